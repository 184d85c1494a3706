//! The last few durations of one kind, and their percentile. A histogram since the start of the
//! process cannot say how the disk does *now*; this ring can. One atomic store to record, a sort of
//! a copy to read; a reader that races a writer sees a mixture of old and new, which is harmless.

use std::sync::atomic::{AtomicU64, Ordering};

pub struct Recent {
    ring: Vec<AtomicU64>,
    /// How many were ever recorded.
    count: AtomicU64,
}

impl Recent {
    pub fn new(len: usize) -> Recent {
        assert!(len > 0, "a ring needs room");
        Recent { ring: (0..len).map(|_| AtomicU64::new(0)).collect(), count: AtomicU64::new(0) }
    }

    pub fn record_us(&self, us: u64) {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let index = count % self.ring.len() as u64;
        self.ring[usize::try_from(index).expect("below the ring's length")]
            .store(us, Ordering::Relaxed);
    }

    /// The smallest recorded duration that at least `quantile` of them do not exceed; `None`
    /// before the first one.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        let count = self.count.load(Ordering::Relaxed);
        let filled = usize::try_from(count).unwrap_or(usize::MAX).min(self.ring.len());
        let mut recorded: Vec<u64> =
            self.ring[..filled].iter().map(|us| us.load(Ordering::Relaxed)).collect();
        recorded.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank between 0 and the ring's length"
        )]
        let rank = (quantile * filled as f64).ceil() as usize;
        recorded.get(rank.max(1) - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_of_what_is_there() {
        let recent = Recent::new(100);
        assert_eq!(recent.quantile_us(0.99), None);
        recent.record_us(7);
        assert_eq!(recent.quantile_us(0.99), Some(7));
        for us in 1..=99 {
            recent.record_us(us);
        }
        assert_eq!(recent.quantile_us(0.5), Some(49));
        assert_eq!(recent.quantile_us(0.99), Some(98));
        assert_eq!(recent.quantile_us(1.0), Some(99));
    }

    #[test]
    fn old_ones_are_forgotten() {
        let recent = Recent::new(4);
        for us in [900, 900, 900, 900, 1, 2, 3, 4] {
            recent.record_us(us);
        }
        assert_eq!(recent.quantile_us(1.0), Some(4));
    }
}
