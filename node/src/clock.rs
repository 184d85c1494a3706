//! The node's clocks, and the time in the log.
//!
//! Durations come from CLOCK_BOOTTIME: Rust's `Instant` stands still while a machine sleeps
//! (PITFALLS 80). The wall clock is read for one purpose only: a new leader's *log time* starts
//! from the lower median of the wall clocks of its phase 1 quorum (DESIGN §3, time).

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use paxos::Now;
use rustix::time::{ClockId, clock_gettime};

/// Both clocks, now.
pub fn now() -> Now {
    Now { mono_us: mono_us(), wall_ms: wall_ms() }
}

fn mono_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

fn wall_ms() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    let ms = time.tv_sec as u64 * 1_000 + time.tv_nsec as u64 / 1_000_000;
    ms.saturating_add_signed(WALL_OFF_MS.load(Relaxed))
}

/// How wrong this process's wall clock is on purpose.
static WALL_OFF_MS: AtomicI64 = AtomicI64::new(0);

/// For `chaos` only: no machine's clock is set for a test.
pub(crate) fn set_wall_off_ms(off_ms: i64) {
    WALL_OFF_MS.store(off_ms, Relaxed);
}

/// The log time of one reign: what a leader stamps its batches with, and what it measures TTLs by.
///
/// It starts where the log's time stopped and never jumps back. Holders of short locks cannot renew
/// them without a leader, so a leaderless gap is made up at no more than 25 % extra speed; of a gap
/// longer than 60 s all but the last 60 s passes at once (PITFALLS 108). When the log is ahead of
/// the quorum's clocks (a former leader's clock was wrong) it runs on at its own pace, so that TTLs
/// keep their length (PITFALLS 107).
///
/// Wall clocks alone cannot tell a long gap from a log that followed a clock that was behind: with the
/// quorum of the first leader, say, whose lower median is the smaller of two clocks. So a gap
/// is taken for no longer than this process has measured, by its monotonic clock, since it applied the
/// last stamp of a living leader; the rest is made up. That costs TTLs at most a quarter of their length, and
/// `EXPIREAT` comes late for as long as it takes: four times as long as the log was behind. A process
/// that has applied none since it started (all nodes were down) has measured nothing: then the wall
/// clocks are believed, and that no quorum's were behind while another's were right remains assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogClock {
    start_mono_us: u64,
    start_ms: u64,
    /// How far `start_ms` is behind the quorum's clocks.
    gap_ms: u64,
}

const GAP_MS_MAX: u64 = 60_000;

impl LogClock {
    /// `log_ms` is the log's time with all former leaders' entries applied, `quorum_ms` the lower
    /// median of the phase 1 quorum's wall clocks, `stamped_us` when a living leader's stamp was applied
    /// here last.
    pub fn start(mono_us: u64, log_ms: u64, quorum_ms: u64, stamped_us: Option<u64>) -> LogClock {
        let measured_ms = stamped_us.map_or(u64::MAX, |us| mono_us.saturating_sub(us) / 1_000);
        let long_ms = quorum_ms.saturating_sub(log_ms).min(measured_ms).saturating_sub(GAP_MS_MAX);
        // The first leader ever has no gap to make up.
        let start_ms = if log_ms == 0 { quorum_ms } else { log_ms + long_ms };
        LogClock { start_mono_us: mono_us, start_ms, gap_ms: quorum_ms.saturating_sub(start_ms) }
    }

    pub fn ms(&self, mono_us: u64) -> u64 {
        let elapsed_ms = mono_us.saturating_sub(self.start_mono_us) / 1_000;
        self.start_ms + elapsed_ms + self.gap_ms.min(elapsed_ms / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn a_short_gap_is_made_up_slowly() {
        let clock = LogClock::start(0, 100_000, 105_000, None);
        assert_eq!(clock.ms(0), 100_000, "no lock loses its time at the election");
        assert_eq!(clock.ms(8 * SECOND_US), 110_000, "25 % faster");
        assert_eq!(clock.ms(20 * SECOND_US), 125_000, "caught up");
        assert_eq!(clock.ms(30 * SECOND_US), 135_000, "and then at its own pace");
    }

    #[test]
    fn of_a_long_gap_only_the_last_minute_is_kept() {
        let clock = LogClock::start(0, 100_000, 10_000_000, None);
        assert_eq!(clock.ms(0), 10_000_000 - 60_000);
        // The same where it was measured.
        let gap_us = 9_900 * SECOND_US;
        let clock = LogClock::start(gap_us, 100_000, 10_000_000, Some(0));
        assert_eq!(clock.ms(gap_us), 10_000_000 - 60_000);
    }

    #[test]
    fn a_log_behind_the_clocks_passes_no_more_than_was_measured() {
        let year_ms = 365 * 24 * 3_600_000;
        let clock = LogClock::start(SECOND_US, 100_000, year_ms, Some(0));
        assert_eq!(clock.ms(SECOND_US), 100_000, "a short gap");
        assert_eq!(clock.ms(9 * SECOND_US), 110_000, "and makes it up, 25 % faster");
        let clock = LogClock::start(90 * SECOND_US, 100_000, year_ms, Some(0));
        assert_eq!(
            clock.ms(90 * SECOND_US),
            130_000,
            "all but the last minute of what was measured"
        );
    }

    #[test]
    fn a_log_ahead_of_the_clocks_never_goes_back_and_never_stands_still() {
        let year_ms = 365 * 24 * 3_600_000;
        let clock = LogClock::start(0, year_ms, 1_000, None);
        assert_eq!(clock.ms(0), year_ms);
        assert_eq!(clock.ms(5 * SECOND_US), year_ms + 5_000, "TTLs keep their length");
    }

    #[test]
    fn the_first_leader_takes_the_quorums_time() {
        assert_eq!(LogClock::start(0, 0, 1_700_000_000_000, None).ms(0), 1_700_000_000_000);
    }

    /// Says that this process is to print the clock instead.
    const ASKED: &str = "PAXOS_TEST_PRINTS_THE_CLOCK";

    /// 80: time that passes while the machine sleeps counts. A time namespace in which a day was
    /// slept shifts CLOCK_BOOTTIME and nothing else.
    #[test]
    fn a_suspended_machine_is_a_day_older() {
        if std::env::var_os(ASKED).is_some() {
            return println!("boot time {}", mono_us());
        }
        let day_us = 24 * 3_600 * SECOND_US;
        let before_us = mono_us();
        let own = std::env::current_exe().expect("this test's program");
        let mut asleep = std::process::Command::new("unshare");
        asleep.args(["--time", "--boottime", "86400", "--monotonic", "0"]).arg(own);
        asleep.args(["--exact", "clock::tests::a_suspended_machine_is_a_day_older", "--nocapture"]);
        let printed = match asleep.env(ASKED, "1").output() {
            Ok(output) if output.status.success() => output.stdout,
            _ => return eprintln!("skipped: no time namespace can be made (needs root)"),
        };
        let printed = String::from_utf8(printed).expect("text");
        let mut words = printed.split("boot time ").nth(1).expect("it prints").split_whitespace();
        let there_us: u64 = words.next().and_then(|word| word.parse().ok()).expect("a number");
        assert!(there_us >= before_us + day_us, "{there_us} µs there, {before_us} µs here before");
    }
}
