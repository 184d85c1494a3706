//! A snapshot in the making. It is the state at the moment it began, exactly, though the store
//! goes on changing: a walker visits the hash slots one after another and copies the records
//! older than the snapshot; a change to such a record in a slot not yet visited hands it over
//! first. Each old record is copied exactly once, new ones never. The order does not matter.

use super::keyspace::{HashSlot, Keyspace};
use super::record::Record;
use crate::command::HASH_SLOTS;

/// A chunk reserves so much memory at most before there is anything in it.
const CHUNK_RESERVED_MAX: usize = 1 << 20;

pub(super) struct Walk {
    /// Records of an earlier epoch belong to the snapshot.
    epoch: u32,
    /// The first hash slot not yet visited.
    next_slot: usize,
    /// The tables to visit, if the store was cleared meanwhile.
    frozen: Option<Box<[HashSlot]>>,
    /// Saved records, ready to be taken away.
    chunk: Vec<u8>,
}

impl Walk {
    pub(super) fn new(epoch: u32) -> Walk {
        Walk { epoch, next_slot: 0, frozen: None, chunk: Vec::new() }
    }

    /// Called with every record that is about to change or go.
    pub(super) fn keep(&mut self, slot: usize, record: &Record) {
        if record.epoch() < self.epoch && slot >= self.next_slot {
            self.chunk.extend_from_slice(record.saved());
        }
    }

    /// Whether tables that are being cleared hold records of this snapshot: not if that happened
    /// before, for then all that is left is new.
    pub(super) fn needs_frozen(&self) -> bool {
        self.frozen.is_none() && !self.is_through()
    }

    pub(super) fn freeze(&mut self, slots: Box<[HashSlot]>) {
        assert!(self.frozen.is_none(), "a snapshot has one beginning, so one set of old tables");
        self.frozen = Some(slots);
    }

    fn is_through(&self) -> bool {
        self.next_slot == usize::from(HASH_SLOTS)
    }
}

/// The next step of a snapshot in the making.
#[derive(Debug, PartialEq, Eq)]
pub enum SnapshotStep {
    /// Saved records, to be written in any order. May be empty: nothing to write in this turn.
    Chunk(Vec<u8>),
    /// All records have been handed out.
    Done,
}

impl Keyspace {
    pub(super) fn begin_walk(&mut self) {
        assert!(self.walk.is_none(), "one snapshot at a time");
        self.epoch += 1;
        self.walk = Some(Walk::new(self.epoch));
    }

    /// Visits hash slots until about `bytes` of records are ready.
    pub(super) fn walk_on(&mut self, bytes: usize) -> Option<SnapshotStep> {
        let walk = self.walk.as_mut()?;
        // A turn ends after so many slots, even when they are almost empty.
        const SLOTS_A_TURN: usize = 256;
        // In one piece: growing step by step would touch three times the memory.
        if walk.chunk.capacity() == 0 && !walk.is_through() {
            walk.chunk.reserve(bytes.min(CHUNK_RESERVED_MAX) + CHUNK_RESERVED_MAX / 16);
        }
        let turn_end = (walk.next_slot + SLOTS_A_TURN).min(usize::from(HASH_SLOTS));
        while walk.next_slot < turn_end && walk.chunk.len() < bytes {
            let table = match &walk.frozen {
                Some(frozen) => &frozen[walk.next_slot].table,
                None => &self.slots[walk.next_slot].table,
            };
            for record in table.iter().filter(|record| record.epoch() < walk.epoch) {
                walk.chunk.extend_from_slice(record.saved());
            }
            walk.next_slot += 1;
        }
        let step = match walk.is_through() && walk.chunk.is_empty() {
            false => SnapshotStep::Chunk(std::mem::take(&mut walk.chunk)),
            true => {
                self.end_walk();
                SnapshotStep::Done
            }
        };
        Some(step)
    }

    pub(super) fn end_walk(&mut self) {
        if let Some(Walk { frozen: Some(frozen), .. }) = self.walk.take() {
            self.bury(frozen);
        }
    }
}
