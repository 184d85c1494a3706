//! A snapshot in the making. It is the state at the moment it began, exactly, though the store
//! goes on changing: a walker goes through all places one after another and copies the records
//! older than the snapshot; a change to such a record at a place not yet visited hands it over
//! first. Each old record is copied exactly once, new ones never. The order does not matter.

use std::collections::VecDeque;
use std::sync::Arc;

use super::hash_slot::HashSlot;
use super::keyspace::{Keyspace, Place};
use super::once::Session;
use super::record::{Record, Saved};

/// A chunk is closed before it grows past this; a single record that is larger is one by itself.
/// Chunks end between records, so whoever writes them down must not cut them.
const CHUNK_BYTES: usize = 1 << 20;

pub(super) struct Walk {
    /// Records of an earlier epoch belong to the snapshot.
    epoch: u32,
    /// The first place not yet visited.
    next: Place,
    /// The tables to visit, if the store was cleared meanwhile.
    frozen: Option<Box<[HashSlot]>>,
    /// Full chunks, ready to be taken away. Each old record comes once, so they hold no more than
    /// the store did when the snapshot began.
    full: VecDeque<Vec<u8>>,
    /// Sessions of `ONCE` still to be handed out, as they were when it began.
    sessions: Vec<Arc<Session>>,
    /// The chunk that is being filled.
    chunk: Vec<u8>,
}

impl Walk {
    /// `full` and `sessions` are what belongs to the snapshot besides the records.
    fn new(epoch: u32, full: VecDeque<Vec<u8>>, sessions: Vec<Arc<Session>>) -> Walk {
        Walk { epoch, next: Place::FIRST, frozen: None, full, sessions, chunk: Vec::new() }
    }

    /// Called with every record that is about to change or go.
    pub(super) fn keep(&mut self, place: Place, record: &Record) {
        if record.epoch() < self.epoch && place >= self.next {
            self.save(record.saved());
        }
    }

    fn save(&mut self, saved: &[u8]) {
        if !self.chunk.is_empty() && self.chunk.len() + saved.len() > CHUNK_BYTES {
            self.full.push_back(std::mem::take(&mut self.chunk));
        }
        // In one piece: growing step by step would touch three times the memory.
        if self.chunk.capacity() == 0 {
            self.chunk.reserve(CHUNK_BYTES.max(saved.len()));
        }
        self.chunk.extend_from_slice(saved);
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

    fn has_room(&self, bytes: usize) -> bool {
        self.full.is_empty() && self.chunk.len() < bytes
    }

    fn is_through(&self) -> bool {
        self.next >= Place::END
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
    pub(super) fn begin_walk(&mut self, besides: VecDeque<Vec<u8>>, sessions: Vec<Arc<Session>>) {
        assert!(self.walk.is_none(), "one snapshot at a time");
        self.epoch += 1;
        self.walk = Some(Walk::new(self.epoch, besides, sessions));
    }

    /// Hands out a full chunk if there is one; else goes on until about `bytes` of records are
    /// ready: a record more, and the rest of one part is looked at, no more.
    pub(super) fn walk_on(&mut self, bytes: usize) -> Option<SnapshotStep> {
        let walk = self.walk.as_mut()?;
        if let Some(chunk) = walk.full.pop_front() {
            return Some(SnapshotStep::Chunk(chunk));
        }
        while walk.full.is_empty()
            && walk.chunk.len() < bytes
            && let Some(session) = walk.sessions.pop()
        {
            walk.save(&Saved::Session(&session.save()).to_bytes());
        }
        // A turn ends after so many slots, even when they are almost empty, and after so many
        // records and the rest of a part, even when none of them is old.
        const SLOTS_A_TURN: usize = 256;
        const RECORDS_A_TURN: usize = 8192;
        let turn_end = Place::new(walk.next.slot() + SLOTS_A_TURN, 0).min(Place::END);
        let frozen = walk.frozen.take();
        let slots = frozen.as_ref().unwrap_or(&self.slots);
        let mut looked_at = 0;
        while walk.next < turn_end && walk.has_room(bytes) && looked_at < RECORDS_A_TURN {
            let slot = &slots[walk.next.slot()];
            if slot.len() == 0 {
                walk.next = Place::new(walk.next.slot() + 1, 0);
                continue;
            }
            let part = slot.part(walk.next);
            let mut records = part.ordered().into_iter();
            looked_at += records.len();
            walk.next = loop {
                let Some((place, record)) = records.next() else { break part.next };
                // What shares a place is saved together: behind it, all of it counts as visited.
                if place > walk.next && !walk.has_room(bytes) {
                    break place;
                }
                walk.next = place;
                if record.epoch() < walk.epoch {
                    walk.save(record.saved());
                }
            };
        }
        walk.frozen = frozen;
        if let Some(chunk) = walk.full.pop_front() {
            return Some(SnapshotStep::Chunk(chunk));
        }
        let all = walk.is_through() && walk.sessions.is_empty();
        let step = match all && walk.chunk.is_empty() {
            false => SnapshotStep::Chunk(std::mem::take(&mut walk.chunk)),
            true => {
                self.end_walk();
                SnapshotStep::Done
            }
        };
        Some(step)
    }

    /// Whether full chunks wait to be taken away.
    pub(super) fn walk_has_full_chunks(&self) -> bool {
        self.walk.as_ref().is_some_and(|walk| !walk.full.is_empty())
    }

    pub(super) fn end_walk(&mut self) {
        if let Some(Walk { frozen: Some(frozen), .. }) = self.walk.take() {
            self.bury(frozen);
        }
    }
}
