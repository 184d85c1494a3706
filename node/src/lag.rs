//! Lag in seconds. The leader notes now and then how far the log was chosen; a peer that
//! acknowledges only up to slot s lacks s + 1, and has lacked it since that slot was chosen.

use std::collections::VecDeque;

/// Samples of (time, chosen slot), both rising. Bounded: a lag older than the oldest sample is
/// reported as the age of that sample ("at least").
pub struct ChosenHistory {
    samples: VecDeque<(u64, u64)>,
    /// Samples closer together than this are not kept.
    every_us: u64,
    samples_max: usize,
}

impl ChosenHistory {
    /// Ten samples a second for two minutes.
    pub fn new() -> ChosenHistory {
        ChosenHistory { samples: VecDeque::new(), every_us: 100_000, samples_max: 1_200 }
    }

    /// All slots up to `chosen_slot` are chosen at `now_us`. Call at each publication.
    pub fn record(&mut self, now_us: u64, chosen_slot: u64) {
        if let Some((at_us, slot)) = self.samples.back() {
            let too_soon = now_us.saturating_sub(*at_us) < self.every_us;
            if *slot == chosen_slot || too_soon {
                return;
            }
        }
        if self.samples.len() == self.samples_max {
            self.samples.pop_front();
        }
        self.samples.push_back((now_us, chosen_slot));
    }

    /// For how long the slot after `acked_slot` has been chosen; 0 when it is not.
    pub fn lag_us(&self, now_us: u64, acked_slot: u64) -> u64 {
        let first_beyond = self.samples.partition_point(|(_, slot)| *slot <= acked_slot);
        self.samples.get(first_beyond).map_or(0, |(at_us, _)| now_us.saturating_sub(*at_us))
    }

    /// Another log position to count from: this node has just begun to lead.
    pub fn clear(&mut self) {
        self.samples.clear();
    }
}

impl Default for ChosenHistory {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    #[test]
    fn the_lag_is_the_age_of_the_first_slot_that_is_missing() {
        let mut history = ChosenHistory::new();
        for (at_ms, slot) in [(0, 10), (100, 20), (200, 30), (5_000, 30), (5_100, 40)] {
            history.record(at_ms * MS, slot);
        }
        let lag_ms = |acked_slot| history.lag_us(5_200 * MS, acked_slot) / MS;
        assert_eq!(lag_ms(9), 5_200);
        assert_eq!(lag_ms(10), 5_100);
        assert_eq!(lag_ms(25), 5_000);
        assert_eq!(lag_ms(30), 100, "an idle time is no lag: slot 31 was chosen at 5100");
        assert_eq!(lag_ms(40), 0);
        assert_eq!(lag_ms(99), 0);
    }

    #[test]
    fn memory_stays_bounded_and_the_lag_becomes_a_lower_bound() {
        let mut history = ChosenHistory::new();
        for turn in 0..100_000 {
            history.record(turn * 100 * MS, turn);
        }
        assert_eq!(history.samples.len(), 1_200);
        let now_us = 99_999 * 100 * MS;
        assert_eq!(history.lag_us(now_us, 0), 1_199 * 100 * MS);
    }
}
