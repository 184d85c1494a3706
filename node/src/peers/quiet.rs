//! Traces that repeat are held back: a peer that is down for a week, a stranger that knocks for ever
//! or a link that flaps must not fill the disk, or hide the one line that matters.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Lines of one kind in one `WINDOW`.
const LINES_MAX: u32 = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// Kinds that are told apart; strangers cannot make us remember more.
const KINDS_MAX: usize = 256;

#[derive(Default)]
pub(super) struct Quiet {
    kinds: BTreeMap<String, Kind>,
}

struct Kind {
    since: Instant,
    lines: u32,
}

impl Quiet {
    /// Calls `trace` unless lines of this kind have been traced a few times within a minute. It
    /// gets a suffix for the last line before silence.
    pub(super) fn trace(&mut self, kind: String, trace: impl FnOnce(&str)) {
        self.trace_at(Instant::now(), kind, trace);
    }

    fn trace_at(&mut self, now: Instant, kind: String, trace: impl FnOnce(&str)) {
        self.kinds.retain(|_, kind| now.duration_since(kind.since) < WINDOW);
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&kind) {
            return;
        }
        let kind = self.kinds.entry(kind).or_insert(Kind { since: now, lines: 0 });
        kind.lines += 1;
        match kind.lines {
            LINES_MAX => trace(" (more of these are held back for a minute)"),
            lines if lines < LINES_MAX => trace(""),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_held_back_for_a_minute() {
        let mut quiet = Quiet::default();
        let start = Instant::now();
        let mut lines = Vec::new();
        for second in 0..130 {
            let now = start + Duration::from_secs(second);
            quiet.trace_at(now, "n2 down".to_owned(), |_| lines.push(second));
        }
        assert_eq!(lines, [0, 1, 2, 60, 61, 62, 120, 121, 122]);
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let mut quiet = Quiet::default();
        let mut count = 0;
        for stranger in 0..5_000 {
            quiet.trace(format!("stranger {stranger}"), |_| count += 1);
        }
        assert_eq!((count, quiet.kinds.len()), (KINDS_MAX, KINDS_MAX));
    }
}
