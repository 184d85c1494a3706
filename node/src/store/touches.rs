//! When each key was last touched, for `WATCH`: a replicated table of slots, so that `EXEC` is
//! judged by every node alike, whoever led when the key was watched.
//!
//! The table is small and of fixed size: keys share buckets, four a hash slot. So another key may
//! abort a transaction now and then, which is tried again; a change of its own keys always does.
//! Expiry and `FLUSHALL` are touches like any other.

use xxhash_rust::xxh3::xxh3_128;

use super::keyspace::KeyHash;
use crate::command::HASH_SLOTS;

const BUCKETS_A_HASH_SLOT: usize = 4;
const BUCKETS: usize = HASH_SLOTS as usize * BUCKETS_A_HASH_SLOT;
/// Bytes of a bucket in a snapshot: its number and its slot.
const SAVED_BYTES: usize = 12;

pub(super) struct Touches {
    /// The slot that is being applied; 0 while a snapshot is loaded, which touches nothing.
    pub(super) slot: u64,
    /// Slot of the last touch of each bucket; 0 for never.
    last: Box<[u64]>,
    /// What the table adds to the state hash: a wrapping sum over its buckets.
    sum: u128,
}

impl Touches {
    pub(super) fn new() -> Touches {
        Touches { slot: 0, last: vec![0; BUCKETS].into_boxed_slice(), sum: 0 }
    }

    pub(super) fn sum(&self) -> u128 {
        self.sum
    }

    /// The sum, added up anew.
    pub(super) fn recomputed_sum(&self) -> u128 {
        let touched = self.last.iter().enumerate();
        touched.fold(0, |sum, (bucket, slot)| sum.wrapping_add(weight(bucket, *slot)))
    }

    pub(super) fn last(&self, key: KeyHash) -> u64 {
        self.last[bucket_of(key)]
    }

    pub(super) fn touch(&mut self, key: KeyHash) {
        if self.slot != 0 {
            self.set(bucket_of(key), self.slot);
        }
    }

    /// Touches every key that a hash slot can hold.
    pub(super) fn touch_hash_slot(&mut self, hash_slot: usize) {
        let first = hash_slot * BUCKETS_A_HASH_SLOT;
        for bucket in first..first + BUCKETS_A_HASH_SLOT {
            self.set(bucket, self.slot);
        }
    }

    fn set(&mut self, bucket: usize, slot: u64) {
        let last = &mut self.last[bucket];
        if *last != slot {
            let change = weight(bucket, slot).wrapping_sub(weight(bucket, *last));
            self.sum = self.sum.wrapping_add(change);
            *last = slot;
        }
    }

    /// The buckets that were ever touched, for a snapshot.
    pub(super) fn save(&self) -> Vec<u8> {
        let mut saved = Vec::new();
        for (bucket, slot) in self.last.iter().enumerate().filter(|(_, slot)| **slot != 0) {
            saved.extend_from_slice(&(bucket as u32).to_le_bytes());
            saved.extend_from_slice(&slot.to_le_bytes());
        }
        saved
    }

    /// Takes in what [`Touches::save`] gave out; `None` if it makes no sense.
    pub(super) fn load(&mut self, saved: &[u8]) -> Option<()> {
        let entries = saved.chunks_exact(SAVED_BYTES);
        entries.remainder().is_empty().then_some(())?;
        for entry in entries {
            let (bucket, slot) = entry.split_first_chunk::<4>()?;
            let bucket = u32::from_le_bytes(*bucket) as usize;
            (bucket < BUCKETS).then_some(())?;
            self.set(bucket, u64::from_le_bytes(slot.try_into().ok()?));
        }
        Some(())
    }
}

fn bucket_of(key: KeyHash) -> usize {
    key.slot() * BUCKETS_A_HASH_SLOT + key.quarter()
}

/// What one bucket adds to the state hash; an untouched one adds nothing.
fn weight(bucket: usize, slot: u64) -> u128 {
    if slot == 0 {
        return 0;
    }
    let mut bytes = [0; SAVED_BYTES];
    bytes[..4].copy_from_slice(&(bucket as u32).to_le_bytes());
    bytes[4..].copy_from_slice(&slot.to_le_bytes());
    xxh3_128(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_and_its_sum_is_kept() {
        let mut touches = Touches::new();
        for slot in 1..500u64 {
            touches.slot = slot;
            touches.touch(KeyHash::of(format!("k{}", slot % 70).as_bytes()));
        }
        touches.touch_hash_slot(77);
        assert_eq!(touches.sum(), touches.recomputed_sum());
        assert_eq!(touches.last(KeyHash::of(b"k69")), 489);
        let mut loaded = Touches::new();
        loaded.load(&touches.save()).expect("its own bytes");
        assert_eq!(loaded.sum(), touches.sum());
        assert_eq!(loaded.last, touches.last);
    }

    #[test]
    fn bytes_that_are_no_table_are_refused() {
        assert!(Touches::new().load(&[0; 13]).is_none());
        let beyond = [&(BUCKETS as u32).to_le_bytes()[..], &[1; 8]].concat();
        assert!(Touches::new().load(&beyond).is_none());
    }
}
