//! All records, by hash slot, and within one in parts of bounded size (`hash_slot.rs`): no insert
//! ever waits for the rehash of a million others, and no walk has to take a million at once.
//!
//! Every change goes through [`Keyspace::put`], [`Keyspace::touch`], [`Keyspace::remove`] and
//! [`Keyspace::clear`], which keep in step with the records, always:
//! - the state hash, a wrapping sum over all records, the same whatever the order they came in;
//! - the index of deadlines;
//! - the table of last touches;
//! - the snapshot in the making, which is handed an old record before it changes.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::hash_slot::{HashSlot, Part};
use super::record::{Form, Parts, Record};
use super::touches::Touches;
use super::walk::Walk;
use crate::command::{HASH_SLOTS, hash_slot};

/// Hash of a key with its hash slot inside, so that the one number names table and record. The
/// top seven bits and the low ones are the key's own: by those a table finds its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyHash(pub(super) u64);

const SLOT_SHIFT: u32 = 43;
const SLOT_MASK: u64 = (HASH_SLOTS as u64 - 1) << SLOT_SHIFT;

impl KeyHash {
    pub(super) fn of(key: &[u8]) -> KeyHash {
        KeyHash::in_slot(usize::from(hash_slot(key)), key)
    }

    /// Of a key whose hash slot is known.
    pub(super) fn in_slot(slot: usize, key: &[u8]) -> KeyHash {
        KeyHash(xxh3_64(key) & !SLOT_MASK | (slot as u64) << SLOT_SHIFT)
    }

    pub(super) fn slot(self) -> usize {
        ((self.0 & SLOT_MASK) >> SLOT_SHIFT) as usize
    }

    /// One of four parts of the hash slot.
    pub(super) fn quarter(self) -> usize {
        (self.0 >> (SLOT_SHIFT - 2)) as usize & 3
    }

    /// Place within the hash slot.
    pub(super) fn position(self) -> u64 {
        let own = self.0 & ((1 << SLOT_SHIFT) - 1);
        own >> (SLOT_SHIFT - POSITION_BITS)
    }

    pub(super) fn place(self) -> Place {
        Place::new(self.slot(), self.position())
    }
}

/// With the slot in front, a position is still a number that every client language holds exactly.
const POSITION_BITS: u32 = 39;

/// A place in one fixed order of all possible keys: by hash slot, then by hash. What goes through
/// the store in slices remembers where it is by this, whatever comes and goes meanwhile, and even
/// when another node goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(pub(super) u64);

impl Place {
    pub(super) const FIRST: Place = Place(0);
    /// Behind all of them.
    pub(super) const END: Place = Place((HASH_SLOTS as u64) << POSITION_BITS);

    pub(super) fn new(slot: usize, position: u64) -> Place {
        Place((slot as u64) << POSITION_BITS | position)
    }

    pub(super) fn slot(self) -> usize {
        (self.0 >> POSITION_BITS) as usize
    }

    pub(super) fn position(self) -> u64 {
        self.0 & ((1 << POSITION_BITS) - 1)
    }
}

pub(super) struct Keyspace {
    pub(super) slots: Box<[HashSlot]>,
    /// One bit a hash slot: whether it has records. Most have none in a small store.
    occupied: Box<[u64]>,
    /// Wrapping sum of the slots' sums.
    sum: u128,
    len: usize,
    record_bytes: usize,
    /// How many records have this deadline and this hash; hardly ever more than one.
    deadlines: BTreeMap<(u64, KeyHash), u32>,
    /// Raised when a snapshot begins; every record carries the one it was written in.
    pub(super) epoch: u32,
    pub(super) walk: Option<Walk>,
    pub(super) touches: Touches,
    /// Cleared tables whose memory is yet to be given back.
    graveyard: Vec<HashSlot>,
    old_deadlines: Vec<BTreeMap<(u64, KeyHash), u32>>,
}

impl Keyspace {
    pub(super) fn new() -> Keyspace {
        Keyspace {
            slots: empty_slots(),
            occupied: no_slots(),
            sum: 0,
            len: 0,
            record_bytes: 0,
            deadlines: BTreeMap::new(),
            epoch: 0,
            walk: None,
            touches: Touches::new(),
            graveyard: Vec::new(),
            old_deadlines: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn sum(&self) -> u128 {
        self.sum
    }

    pub(super) fn slot_len(&self, slot: usize) -> usize {
        self.slots[slot].len()
    }

    /// The part that holds `from`, or the next one that has records: to be gone through from there
    /// on. `None` when there are none behind it.
    pub(super) fn part_from(&self, from: Place) -> Option<Part<'_>> {
        let slot = self.occupied_slots(from.slot()).next()?;
        Some(self.slots[slot].part(from.max(Place::new(slot, 0))))
    }

    pub(super) fn slot_sum(&self, slot: usize) -> u128 {
        self.slots[slot].sum
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.occupied_slots(0).flat_map(|slot| self.slots[slot].records())
    }

    /// The hash slots from `first` on that have records.
    pub(super) fn occupied_slots(&self, first: usize) -> impl Iterator<Item = usize> {
        let words = self.occupied.iter().enumerate().skip(first / 64);
        words.flat_map(move |(index, word)| {
            let from = first.saturating_sub(index * 64);
            let mut bits = word & (u64::MAX << from);
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                (bit < 64).then_some(index * 64 + bit)
            })
        })
    }

    /// Records, tables and index; an estimate to a few per cent.
    pub(super) fn memory_bytes(&self) -> usize {
        // Nine bytes a bucket, of which half to seven eighths are in use.
        const ENTRY: usize = 14;
        const DEADLINE: usize = 40;
        let tables = size_of::<HashSlot>() * self.slots.len();
        self.record_bytes + ENTRY * self.len + DEADLINE * self.deadlines.len() + tables
    }

    pub(super) fn deadline_count(&self) -> usize {
        self.deadlines.len()
    }

    pub(super) fn first_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first_key_value().map(|((deadline_ms, _), _)| *deadline_ms)
    }

    pub(super) fn first_deadline_after(&self, time_ms: u64) -> Option<u64> {
        let from = (time_ms.checked_add(1)?, KeyHash(0));
        self.deadlines.range(from..).next().map(|((deadline_ms, _), _)| *deadline_ms)
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<&Record> {
        let hash = KeyHash::of(key);
        self.slots[hash.slot()].find(hash, |record| record.key() == key)
    }

    /// Makes `parts` the record of its key.
    pub(super) fn put(&mut self, parts: Parts<'_>) {
        let hash = KeyHash::of(parts.key);
        let slot = &mut self.slots[hash.slot()];
        match slot.find_mut(hash, |record| record.key() == parts.key) {
            Some(record) => {
                hand_over(&mut self.walk, hash, record);
                let before = Before::of(record);
                record.replace(self.epoch, parts.value, parts.form, parts.deadline_ms);
                let after = Before::of(record);
                self.changed(hash, Some(before), Some(after));
            }
            None => {
                let record = Record::new(self.epoch, parts);
                let after = Before::of(&record);
                slot.insert(hash, record);
                self.changed(hash, None, Some(after));
            }
        }
    }

    /// Changes the deadline of a key, if it is there.
    pub(super) fn touch(&mut self, key: &[u8], deadline_ms: u64) {
        let hash = KeyHash::of(key);
        let slot = &mut self.slots[hash.slot()];
        if let Some(record) = slot.find_mut(hash, |record| record.key() == key) {
            hand_over(&mut self.walk, hash, record);
            let before = Before::of(record);
            record.set_header(self.epoch, record.form(), deadline_ms);
            let after = Before::of(record);
            self.changed(hash, Some(before), Some(after));
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Record> {
        self.remove_if(KeyHash::of(key), |record| record.key() == key)
    }

    fn remove_if(&mut self, hash: KeyHash, is: impl Fn(&Record) -> bool) -> Option<Record> {
        let slot = &mut self.slots[hash.slot()];
        let record = slot.remove(hash, is)?;
        hand_over(&mut self.walk, hash, &record);
        self.changed(hash, Some(Before::of(&record)), None);
        Some(record)
    }

    /// Removes up to `records_max` records whose deadline is not after `time_ms`, the earliest
    /// first, ties in the order of their hashes: in one order on every node.
    pub(super) fn remove_due(&mut self, time_ms: u64, records_max: usize) {
        for _ in 0..records_max {
            let Some((&(deadline_ms, hash), _)) = self.deadlines.first_key_value() else { return };
            if deadline_ms > time_ms {
                return;
            }
            let due = |record: &Record| {
                record.deadline_ms() == deadline_ms && KeyHash::of(record.key()) == hash
            };
            let removed = self.remove_if(hash, due);
            assert!(removed.is_some(), "deadline {deadline_ms} of a record that is not there");
        }
    }

    /// Removes everything, in no time: what there was is given back by and by.
    pub(super) fn clear(&mut self) {
        self.touch_all();
        let old = std::mem::replace(&mut self.slots, empty_slots());
        match &mut self.walk {
            // The snapshot still needs what it has not seen yet.
            Some(walk) if walk.needs_frozen() => walk.freeze(old),
            _ => self.bury(old),
        }
        self.occupied = no_slots();
        self.sum = 0;
        self.len = 0;
        self.record_bytes = 0;
        self.old_deadlines.push(std::mem::take(&mut self.deadlines));
    }

    /// Every key that is there is touched; of a fuller hash slot also those that might be.
    fn touch_all(&mut self) {
        const ONE_BY_ONE_MAX: usize = 4;
        let occupied: Vec<usize> = self.occupied_slots(0).collect();
        for slot in occupied {
            let records = &self.slots[slot];
            if records.len() > ONE_BY_ONE_MAX {
                self.touches.touch_hash_slot(slot);
            } else {
                records.records().for_each(|record| self.touches.touch(KeyHash::of(record.key())));
            }
        }
    }

    pub(super) fn bury(&mut self, slots: Box<[HashSlot]>) {
        self.graveyard.extend(slots.into_iter().filter(|slot| slot.len() > 0));
    }

    /// Gives back the memory of about `records_max` cleared records; whether there is more.
    pub(super) fn reclaim(&mut self, records_max: usize) -> bool {
        let mut records = 0;
        while records < records_max {
            if let Some(deadlines) = self.old_deadlines.last_mut() {
                if deadlines.pop_first().is_none() {
                    self.old_deadlines.pop();
                }
                records += 1;
                continue;
            }
            let Some(slot) = self.graveyard.last_mut() else { return false };
            match slot.pop_part() {
                Some(part) => records += part.len() + 1,
                None => drop(self.graveyard.pop()),
            }
        }
        !(self.graveyard.is_empty() && self.old_deadlines.is_empty())
    }

    /// A record went from `before` to `after`; `None` for not being there.
    fn changed(&mut self, hash: KeyHash, before: Option<Before>, after: Option<Before>) {
        self.touches.touch(hash);
        let slot = hash.slot();
        let (word, bit) = (&mut self.occupied[slot / 64], 1 << (slot % 64));
        if self.slots[slot].len() == 0 {
            *word &= !bit
        } else {
            *word |= bit
        }
        let slot_sum = &mut self.slots[slot].sum;
        if let Some(before) = &before {
            *slot_sum = slot_sum.wrapping_sub(before.state_hash);
            self.sum = self.sum.wrapping_sub(before.state_hash);
            self.record_bytes -= before.memory_bytes;
            self.len -= 1;
        }
        if let Some(after) = &after {
            *slot_sum = slot_sum.wrapping_add(after.state_hash);
            self.sum = self.sum.wrapping_add(after.state_hash);
            self.record_bytes += after.memory_bytes;
            self.len += 1;
        }
        let before_ms = before.map_or(0, |before| before.deadline_ms);
        let after_ms = after.map_or(0, |after| after.deadline_ms);
        if before_ms == after_ms {
            return;
        }
        if before_ms != 0 {
            let count = self.deadlines.get_mut(&(before_ms, hash));
            let count = count.expect("every deadline is in the index");
            *count -= 1;
            if *count == 0 {
                self.deadlines.remove(&(before_ms, hash));
            }
        }
        if after_ms != 0 {
            *self.deadlines.entry((after_ms, hash)).or_insert(0) += 1;
        }
    }
}

/// What the totals need to know of a record.
struct Before {
    state_hash: u128,
    memory_bytes: usize,
    deadline_ms: u64,
}

impl Before {
    fn of(record: &Record) -> Before {
        Before {
            state_hash: record.state_hash(),
            memory_bytes: record.memory_bytes(),
            deadline_ms: record.deadline_ms(),
        }
    }
}

/// Lets a snapshot in the making have a record before it changes or is dropped.
fn hand_over(walk: &mut Option<Walk>, hash: KeyHash, record: &Record) {
    if let Some(walk) = walk {
        walk.keep(hash.place(), record);
    }
}

fn no_slots() -> Box<[u64]> {
    vec![0; usize::from(HASH_SLOTS) / 64].into_boxed_slice()
}

fn empty_slots() -> Box<[HashSlot]> {
    std::iter::repeat_with(HashSlot::default).take(usize::from(HASH_SLOTS)).collect()
}

/// The record of a key whose form is as its bytes say.
pub(super) fn natural<'a>(key: &'a [u8], value: &'a [u8], deadline_ms: u64) -> Parts<'a> {
    Parts { key, value, form: Form::Natural, deadline_ms }
}
