//! The journal's side of the sync thread, without the thread: which groups are appended, what one
//! sync covers, what waits while the disk is full. No clock and no sleep, so that whoever calls it
//! decides when, a simulator too.
//!
//! The order of calls is [`Appender::append_waiting`], [`Appender::sync`] until it is done, then
//! [`Appender::settle`].

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use journal::{Error, Group, Journal, Stats};
use paxos::{Position, Record};

use crate::node::Effects;
use crate::wire;

/// Records of one turn.
#[derive(Debug)]
pub struct Append {
    /// Label (slot) and bytes.
    pub records: Vec<(u64, Bytes)>,
    pub checkpoint: Bytes,
    /// The replica's position behind the last record.
    pub position: Position,
    /// May use the reserve of a full disk: promises and configuration.
    pub must_write: bool,
    /// Segments whose labels are all below may go once the records are durable: one of them says
    /// so, see [`Append::of`]. A trim travels with that record and in no other way, so that the order
    /// cannot be wrong: slots that are gone without it would count as slots where nothing was ever
    /// accepted.
    pub trim_below: Option<u64>,
}

impl Append {
    /// Takes a turn's records out of its effects; `None` when it has none.
    pub fn of(effects: &mut Effects) -> Option<Append> {
        if effects.records.is_empty() {
            return None;
        }
        let must_write = effects
            .records
            .iter()
            .any(|record| matches!(record, Record::Promised(_) | Record::TrimmedBelow(_)));
        let trimmed_below = |record: &Record| match record {
            Record::TrimmedBelow(below) => Some(below.0),
            _ => None,
        };
        let trim_below = effects.records.iter().filter_map(trimmed_below).max();
        let checkpoint = wire::encode_records(&effects.checkpoint);
        let records = effects.records.drain(..).map(|record| {
            let label = record.slot().map_or(0, |slot| slot.0);
            let mut bytes = BytesMut::with_capacity(64);
            wire::encode_record(&record, &mut bytes);
            (label, bytes.freeze())
        });
        let records = records.collect();
        Some(Append { records, checkpoint, position: effects.position, must_write, trim_below })
    }
}

impl Append {
    /// What it holds of memory, about.
    pub fn len_bytes(&self) -> u64 {
        let records = self.records.iter().map(|(_, bytes)| 64 + bytes.len() as u64);
        records.sum::<u64>() + self.checkpoint.len() as u64
    }
}

#[derive(Debug)]
pub enum Order {
    Append(Append),
    Stop,
}

/// What became of the orders taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Everything up to here is durable, if anything new is.
    pub synced: Option<Position>,
    /// [`Append::len_bytes`] of the groups that are durable now.
    pub synced_bytes: u64,
    /// A group did not fit: it waits, with all behind it.
    pub waits_for_space: bool,
    /// Writes that grow should not be taken now.
    pub full: bool,
    /// Asked to stop.
    pub stop: bool,
}

pub struct Appender {
    journal: Journal,
    /// Not appended yet.
    waiting: VecDeque<Order>,
    /// Appended, not synced.
    appended: Option<Position>,
    appended_bytes: u64,
    /// Of what was appended.
    trim_below: Option<u64>,
    waits_for_space: bool,
    stop: bool,
}

const PREPARE_BYTES: u64 = 4 << 20;

impl Appender {
    pub fn new(journal: Journal) -> Appender {
        Appender {
            journal,
            waiting: VecDeque::new(),
            appended: None,
            appended_bytes: 0,
            trim_below: None,
            waits_for_space: false,
            stop: false,
        }
    }

    pub fn take(&mut self, order: Order) {
        self.waiting.push_back(order);
    }

    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Appends what waits, up to the first group that finds no space.
    pub fn append_waiting(&mut self) -> Result<(), Error> {
        self.waits_for_space = false;
        while let Some(order) = self.waiting.pop_front() {
            match order {
                Order::Append(append) => match self.append(&append) {
                    Ok(()) => {
                        self.appended = Some(append.position);
                        self.appended_bytes += append.len_bytes();
                        self.trim_below = self.trim_below.max(append.trim_below);
                    }
                    Err(error) if error.is_full() => {
                        self.waiting.push_front(Order::Append(append));
                        self.waits_for_space = true;
                        break;
                    }
                    Err(error) => return Err(error),
                },
                Order::Stop => self.stop = true,
            }
        }
        Ok(())
    }

    /// Is there anything that a sync would make durable?
    pub fn needs_sync(&self) -> bool {
        self.appended.is_some()
    }

    /// Makes durable what was appended. False when there is no space for it: nothing is lost, and
    /// the same call may be made again. Any error is final, as nobody knows what the disk holds.
    pub fn sync(&mut self) -> Result<bool, Error> {
        match self.journal.sync() {
            Ok(()) => Ok(true),
            Err(error) if error.is_full() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// After the sync: lets segments go whose trim is on record now, and says how far all has come.
    pub fn settle(&mut self) -> Result<Settled, Error> {
        if let Some(below) = self.trim_below.take() {
            match self.journal.trim(below) {
                Ok(gone) => tracing::debug!(below, segments = gone, "journal trimmed"),
                Err(error) if error.is_full() => tracing::warn!(below, "no room to note a trim"),
                Err(error) => return Err(error),
            }
        }
        Ok(Settled {
            synced: self.appended.take(),
            synced_bytes: std::mem::take(&mut self.appended_bytes),
            waits_for_space: self.waits_for_space,
            full: self.waits_for_space || !self.journal.can_grow(),
            // What waits for space was never acknowledged to anybody: it may be dropped at a stop.
            stop: self.stop,
        })
    }

    /// With nothing to do: writes the seal, makes spare segments. True while the disk is full.
    pub fn idle(&mut self) -> Result<bool, Error> {
        for result in [self.journal.seal(), self.journal.prepare(PREPARE_BYTES)] {
            match result {
                Ok(_) => {}
                // Nothing is lost: the next append says so again.
                Err(error) if error.is_full() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(!self.journal.can_grow())
    }

    pub fn stats(&self) -> Stats {
        self.journal.stats()
    }

    pub fn free_bytes(&self) -> Result<u64, Error> {
        self.journal.free_bytes()
    }

    fn append(&mut self, append: &Append) -> Result<(), Error> {
        let records: Vec<(u64, &[u8])> =
            append.records.iter().map(|(label, bytes)| (*label, &bytes[..])).collect();
        let group = Group { records: &records, checkpoint: &append.checkpoint };
        match self.journal.append(group) {
            // Order is kept, so what must pass takes everything before it along.
            Err(error) if error.is_full() && (append.must_write || self.must_write_waits()) => {
                self.journal.append_reserved(group)
            }
            result => result,
        }
    }

    fn must_write_waits(&self) -> bool {
        let must_write =
            |order: &Order| matches!(order, Order::Append(append) if append.must_write);
        self.waiting.iter().any(must_write)
    }
}
