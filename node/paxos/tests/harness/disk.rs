//! One node's disk: the journal as a list of records in groups, and its snapshots.
//!
//! What the real journal promises (DESIGN §4) is all that is promised here: records appended by
//! one output form a group; a sync covers every group appended before it began; a power cut keeps
//! what was synced and, of the rest, whole groups in order: any number of them, none included.
//! Segments open with a checkpoint and the oldest go once nothing in them is kept any more, so a
//! promise can be recycled with its segment exactly as in the field (PITFALLS 101).

use std::collections::VecDeque;

use paxos::{Configuration, Position, Record, Slot};

/// The state machine's snapshot: everything applied below `below`, as a hash.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub below: Slot,
    pub hash: u64,
    pub configuration: Configuration,
}

#[derive(Clone, Debug)]
struct Group {
    records: Vec<Record>,
    /// The running process's position after this group; checkpoints have none.
    position: Option<Position>,
}

/// Groups are numbered from the first one ever appended; numbers are never used again.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    groups: VecDeque<Group>,
    first_group: usize,
    /// Number of the first unsynced group.
    synced_end: usize,
    /// The number of each segment's first group.
    segments: VecDeque<usize>,
    /// Synced snapshots, oldest first; at most two are kept.
    pub snapshots: Vec<Snapshot>,
    /// Records that this process has appended, checkpoints not counted.
    appended: u64,
}

impl Disk {
    /// Appends one output's records as one group.
    pub fn append(&mut self, records: &[Record]) {
        self.appended += records.len() as u64;
        let position = Some(Position(self.appended));
        self.groups.push_back(Group { records: records.to_vec(), position });
    }

    /// Opens a new segment with a checkpoint.
    pub fn roll(&mut self, checkpoint: Vec<Record>) {
        self.segments.push_back(self.end());
        self.groups.push_back(Group { records: checkpoint, position: None });
    }

    /// The position of the last record appended.
    pub fn last_position(&self) -> Position {
        Position(self.appended)
    }

    /// One past the last group: a sync that begins now will cover the groups below.
    pub fn end(&self) -> usize {
        self.first_group + self.groups.len()
    }

    pub fn unsynced_count(&self) -> usize {
        self.end() - self.synced_end
    }

    pub fn last_segment_len(&self) -> usize {
        self.end() - self.segments.back().copied().unwrap_or(self.first_group)
    }

    /// The sync that covers the groups below `end` is over. Returns what became durable and the
    /// position to report, if any.
    pub fn sync(&mut self, end: usize) -> (Vec<Record>, Option<Position>) {
        let mut records = Vec::new();
        let mut position = None;
        for number in self.synced_end..end.min(self.end()) {
            let group = &self.groups[number - self.first_group];
            records.extend(group.records.iter().cloned());
            position = position.max(group.position);
        }
        self.synced_end = self.synced_end.max(end.min(self.end()));
        (records, position)
    }

    /// Recycles the oldest segments that hold nothing at or above `first_kept`, as far as the
    /// checkpoint that opens the next one is synced. Returns how many segments went.
    pub fn recycle(&mut self, first_kept: Slot) -> usize {
        let mut gone = 0;
        while let Some(&next) = self.segments.iter().find(|start| **start > self.first_group) {
            let length = next - self.first_group;
            let mut oldest = self.groups.iter().take(length).flat_map(|group| &group.records);
            let needed = oldest.any(|record| record.slot().is_some_and(|slot| slot >= first_kept));
            if needed || self.synced_end <= next {
                break;
            }
            self.groups.drain(..length);
            self.first_group = next;
            gone += 1;
        }
        gone
    }

    /// The power goes: of the unsynced groups the first `survivors` were written out in time.
    /// Returns what became durable by that luck.
    pub fn lose_power(&mut self, survivors: usize) -> Vec<Record> {
        let kept = (self.synced_end + survivors).min(self.end());
        let (records, _) = self.sync(kept);
        self.groups.truncate(kept - self.first_group);
        self.segments.retain(|start| *start < kept);
        self.appended = 0;
        for group in &mut self.groups {
            group.position = None;
        }
        records
    }

    /// All records in order, as a restart finds them.
    pub fn records(&self) -> Vec<Record> {
        self.groups.iter().flat_map(|group| group.records.iter().cloned()).collect()
    }

    /// How far the journal says to be trimmed.
    pub fn trimmed_below(&self) -> Slot {
        let records = self.groups.iter().flat_map(|group| &group.records);
        let trimmed = records.filter_map(|record| match record {
            Record::TrimmedBelow(below) => Some(*below),
            _ => None,
        });
        trimmed.max().unwrap_or(Slot::FIRST)
    }

    /// A snapshot is synced; of the older ones only the newest is kept as a fall-back.
    pub fn keep_snapshot(&mut self, snapshot: Snapshot) {
        if self.snapshots.last().is_none_or(|newest| newest.below < snapshot.below) {
            self.snapshots.push(snapshot);
        }
        while self.snapshots.len() > 2 {
            self.snapshots.remove(0);
        }
    }
}
