//! A [`ClusterStatus`] in words: the first line and the cells of the table. Text only; colours and
//! column widths are the front desk's business.

use crate::verdict::{ClusterStatus, Row, State};

/// Heads of the table's columns, for [`Row::cells`].
pub const COLUMNS: [&str; 10] =
    ["NODE", "HOST", "STATE", "BALLOT", "CHOSEN", "APPLIED", "LAG", "RTT", "FSYNC p99", "DISK"];
/// The last column, apart because [`COLUMNS`] alone fits 80 characters.
pub const VERSION_COLUMN: &str = "VERSION";

impl ClusterStatus {
    /// Is it fine, and how many more failures can it take?
    pub fn headline(&self) -> String {
        let leader = match &self.leader {
            Some(leader) => format!(
                "leader {} (ballot {}, for {})",
                leader.name,
                leader.ballot,
                duration(leader.for_ms)
            ),
            None => "no leader".to_owned(),
        };
        let chosen = grouped(self.chosen_slot);
        let mut line = format!(
            "cluster {}   {}   {}/{} up   {leader}   chosen {chosen}   can lose {} more",
            self.cluster,
            self.verdict.word(),
            self.up,
            self.total,
            self.headroom
        );
        if self.partial {
            line.push_str("   (partial)");
        }
        if !self.insecure.is_empty() {
            line.push_str("   INSECURE: ");
            line.push_str(&self.insecure.join(", "));
        }
        line
    }
}

impl Row {
    /// One cell a column of [`COLUMNS`], then the version.
    pub fn cells(&self) -> Vec<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let lag = match (self.lag_slots, self.lag_ms) {
            (Some(slots), Some(ms)) if ms > 0 => format!("{slots}/{}", duration(ms)),
            (Some(slots), _) => slots.to_string(),
            (None, _) => "-".to_owned(),
        };
        let time = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), millis);
        let mut version = text(&self.version);
        if self.version_drift {
            version.push_str(" (drift)");
        }
        vec![
            self.node.clone(),
            self.host.clone(),
            self.state_text(),
            self.ballot.map_or_else(|| "-".to_owned(), |ballot| ballot.to_string()),
            text(&self.chosen_slot),
            text(&self.applied_slot),
            lag,
            time(self.rtt_us),
            time(self.sync_p99_us),
            self.disk_used_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
            version,
        ]
    }

    /// The leader shouts; what is not sound carries a mark.
    fn state_text(&self) -> String {
        let word = match self.state {
            State::Leader => "LEADER",
            State::Follower => "follower",
            State::Candidate => "candidate",
            State::Learner => "learner",
            State::Outsider => "outsider",
            State::Recovering => "recovering",
            State::Unread => "unread",
            State::Down => "DOWN",
            State::Strange => "STRANGE",
        };
        let mark = if self.via.is_some() && self.reason.is_some() { "!" } else { "" };
        format!("{word}{mark}")
    }
}

/// `1 203 918`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// The two largest units: `4h12m`, `1.5s`, `320ms`.
pub fn duration(ms: u64) -> String {
    let (seconds, minutes, hours, days) =
        (ms / 1_000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..10_000 if ms % 1_000 >= 100 => format!("{seconds}.{}s", ms % 1_000 / 100),
        1_000..60_000 => format!("{seconds}s"),
        60_000..3_600_000 => format!("{minutes}m{}s", seconds % 60),
        3_600_000..86_400_000 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// `0.4ms`, `41ms`.
fn millis(us: u64) -> String {
    if us < 10_000 {
        format!("{}.{}ms", us / 1_000, us % 1_000 / 100)
    } else {
        format!("{}ms", us / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_as_people_read_them() {
        let groups = [0, 7, 999, 1_000, 1_203_918].map(grouped);
        assert_eq!(groups, ["0", "7", "999", "1 000", "1 203 918"]);
        let times = [0, 320, 1_000, 1_540, 41_000, 61_000, 15_120_000, 180_000_000].map(duration);
        assert_eq!(times, ["0ms", "320ms", "1s", "1.5s", "41s", "1m1s", "4h12m", "2d2h"]);
        assert_eq!([80, 450, 2_100, 41_900].map(millis), ["0.0ms", "0.4ms", "2.1ms", "41ms"]);
    }
}
