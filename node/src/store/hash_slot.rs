//! The records of one hash slot, in parts of bounded size. Keys with one tag are all in one slot, so
//! a slot may hold millions; whoever walks over them takes a part at a time, and none grows by more
//! than a part's rehash.
//!
//! The parts are ranges of positions: one for most slots, else a tree of them, as in a B-tree whose
//! leaves are hash tables. A full part is split at its median, neighbours that are nearly empty
//! become one. Where the borders lie depends on the history; the order of records by position, then
//! by key, does not, and it is the only order that this file gives out.

use std::collections::BTreeMap;

use hashbrown::HashTable;

use super::keyspace::{KeyHash, Place};
use super::record::Record;

/// Records of a part, at most: seven eighths of 512 buckets, so that none is ever rehashed when it is
/// full. (Only keys whose hashes agree in 39 bits cannot be told apart, and stay together.)
pub(super) const PART_RECORDS_MAX: usize = 448;
/// A part with fewer records joins a neighbour that has room.
const JOIN_BELOW: usize = PART_RECORDS_MAX / 4;
/// Parts that joined have room to grow before they are split again.
const JOINED_MAX: usize = PART_RECORDS_MAX / 2;

type Table = HashTable<Record>;

#[derive(Default)]
pub(super) struct HashSlot {
    /// From position 0 on. Never empty while there are others.
    first: Table,
    /// The other parts, by the first position of each. None is empty.
    others: BTreeMap<u64, Table>,
    len: usize,
    /// Wrapping sum of the state hashes of its records.
    pub(super) sum: u128,
}

/// One part, as seen from a place in it.
pub(super) struct Part<'a> {
    records: &'a Table,
    from: Place,
    /// The first place behind it.
    pub(super) next: Place,
}

impl<'a> Part<'a> {
    /// Its records from that place on with their places, in their order.
    pub(super) fn ordered(&self) -> Vec<(Place, &'a Record)> {
        work::count(self.records.len());
        let slot = self.from.slot();
        let placed = |record: &'a Record| (KeyHash::in_slot(slot, record.key()).place(), record);
        let mut ordered: Vec<_> =
            self.records.iter().map(placed).filter(|(place, _)| *place >= self.from).collect();
        ordered.sort_unstable_by(|(place, record), (other_place, other)| {
            place.cmp(other_place).then_with(|| record.key().cmp(other.key()))
        });
        ordered
    }
}

impl HashSlot {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        std::iter::once(&self.first).chain(self.others.values()).flatten()
    }

    /// The part that holds a place of this slot.
    pub(super) fn part(&self, from: Place) -> Part<'_> {
        let behind = self.others.range(from.position() + 1..).next();
        let next = match behind {
            Some((position, _)) => Place::new(from.slot(), *position),
            None => Place::new(from.slot() + 1, 0),
        };
        Part { records: self.table(from.position()), from, next }
    }

    pub(super) fn find(&self, hash: KeyHash, is: impl Fn(&Record) -> bool) -> Option<&Record> {
        self.table(hash.position()).find(hash.0, is)
    }

    pub(super) fn find_mut(
        &mut self,
        hash: KeyHash,
        is: impl Fn(&Record) -> bool,
    ) -> Option<&mut Record> {
        self.table_mut(hash.position()).find_mut(hash.0, is)
    }

    /// Adds the record of a key that is not there.
    pub(super) fn insert(&mut self, hash: KeyHash, record: Record) {
        let full = self.table(hash.position()).len();
        // One that could not be split is not tried again with every record.
        if full > 0 && full.is_multiple_of(PART_RECORDS_MAX) {
            self.split(hash);
        }
        self.len += 1;
        let table = self.table_mut(hash.position());
        table.insert_unique(hash.0, record, rehash(hash.slot()));
    }

    pub(super) fn remove(&mut self, hash: KeyHash, is: impl Fn(&Record) -> bool) -> Option<Record> {
        let table = self.table_mut(hash.position());
        let (record, _) = table.find_entry(hash.0, is).ok()?.remove();
        let left = table.len();
        self.len -= 1;
        if left < JOIN_BELOW && !self.others.is_empty() {
            self.join(hash);
        }
        Some(record)
    }

    /// Takes a part away, the last one first; `None` once there is nothing left.
    pub(super) fn pop_part(&mut self) -> Option<HashTable<Record>> {
        let part = match self.others.pop_last() {
            Some((_, part)) => part,
            None => std::mem::take(&mut self.first),
        };
        self.len -= part.len();
        work::count(part.len());
        (part.capacity() > 0).then_some(part)
    }

    fn table(&self, position: u64) -> &Table {
        if self.others.is_empty() {
            return &self.first;
        }
        self.others.range(..=position).next_back().map_or(&self.first, |(_, table)| table)
    }

    fn table_mut(&mut self, position: u64) -> &mut Table {
        if self.others.is_empty() {
            return &mut self.first;
        }
        self.others.range_mut(..=position).next_back().map_or(&mut self.first, |(_, table)| table)
    }

    /// Moves the upper half of the part that holds `hash` into one of its own.
    fn split(&mut self, hash: KeyHash) {
        let position = |record: &Record| KeyHash::in_slot(hash.slot(), record.key()).position();
        let table = self.table_mut(hash.position());
        work::count(table.len());
        let mut positions: Vec<u64> = table.iter().map(position).collect();
        positions.sort_unstable();
        let middle = positions[positions.len() / 2];
        let border = match positions[0] < middle {
            true => Some(middle),
            false => positions.into_iter().find(|position| *position > middle),
        };
        let Some(border) = border else { return };
        let mut upper = Table::with_capacity(PART_RECORDS_MAX);
        for record in table.extract_if(|record| position(record) >= border) {
            let hash = KeyHash::in_slot(hash.slot(), record.key());
            upper.insert_unique(hash.0, record, rehash(hash.slot()));
        }
        self.others.insert(border, upper);
    }

    /// Makes one of the part that holds `hash`, which has few records left, and a neighbour, if both
    /// fit into it. One without any record goes in any case.
    fn join(&mut self, hash: KeyHash) {
        let upper = match self.others.range(..=hash.position()).next_back() {
            Some((position, _)) => *position,
            None => *self.others.first_key_value().expect("there are others").0,
        };
        let lower = match self.others.range_mut(..upper).next_back() {
            Some((_, table)) => table,
            None => &mut self.first,
        };
        let lower_len = lower.len();
        let upper_len = self.others[&upper].len();
        if lower_len > 0 && upper_len > 0 && lower_len + upper_len > JOINED_MAX {
            return;
        }
        let mut taken = self.others.remove(&upper).expect("it was just found");
        let lower = self.table_mut(upper);
        if lower_len == 0 {
            *lower = taken;
            return;
        }
        work::count(upper_len);
        for record in taken.drain() {
            let hash = KeyHash::in_slot(hash.slot(), record.key());
            lower.insert_unique(hash.0, record, rehash(hash.slot()));
        }
    }
}

fn rehash(slot: usize) -> impl Fn(&Record) -> u64 {
    move |record| {
        work::count(1);
        KeyHash::in_slot(slot, record.key()).0
    }
}

/// Counts, in tests, the records that are looked at beside the one that was asked for.
pub(super) mod work {
    #[cfg(test)]
    thread_local! {
        static RECORDS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    pub(super) fn count(records: usize) {
        #[cfg(test)]
        RECORDS.set(RECORDS.get() + records);
        #[cfg(not(test))]
        let _ = records;
    }

    /// How many since the last time.
    #[cfg(test)]
    pub(in crate::store) fn take() -> usize {
        RECORDS.replace(0)
    }
}
