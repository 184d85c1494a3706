//! From what the disk holds to a node that may run: newest good snapshot, journal, replica, store.
//! All of it goes through [`Disk`], so that what a restart does here is what a simulator restarts.
//!
//! Nothing is deleted, and nothing is written before everything has been read.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use config::Behaviour;
use journal::{Disk, Entry, Error as JournalError, Journal, Options, Refusal};
use paxos::{Ballot, Configuration, Now, Output, Record, Recovered, Replica, Settings, Slot};

use crate::node::Node;
use crate::snapshot::{self, Loaded};
use crate::store::Store;
use crate::wire;

/// What a node starts from.
pub struct Origin {
    /// For messages.
    pub name: String,
    pub journal: Arc<dyn Disk>,
    pub options: Options,
    pub snapshots: Arc<dyn Disk>,
    /// Rules until a snapshot or the log knows a newer one.
    pub initial: Configuration,
    pub settings: Settings,
    /// The longest lease that any process on this disk may have granted: see [`Recovered`].
    pub granted_us: u64,
    pub behaviour: Behaviour,
    /// No process has run on this disk before: a journal that is not there was never made.
    pub first_start: bool,
    /// For whatever needs chance on this node alone.
    pub seed: u64,
}

/// A node that may run, and what it keeps on disk.
pub struct Start {
    pub journal: Journal,
    pub node: Node,
    /// The first slot that each snapshot does not cover, and its bytes.
    pub snapshots: Vec<(Slot, u64)>,
    /// Everything below came from a snapshot, not from the journal.
    pub snapshot_below: Slot,
    pub found: journal::Recovery,
}

/// Newest good snapshot, then the journal's tail.
///
/// An error says what is wrong with which file, and what to do next. The cause of a corrupt or
/// missing journal can be downcast to [`journal::Error`], of a bad snapshot to
/// [`snapshot::SnapshotError`].
pub fn recover(origin: Origin, now: Now) -> Result<Start> {
    recover_watched(origin, now, &mut |_| ())
}

/// The same; `watch` is told the bytes of each record of the journal as it is read.
pub fn recover_watched(origin: Origin, now: Now, watch: &mut dyn FnMut(usize)) -> Result<Start> {
    let snapshot::Found { newest: loaded, files: snapshots } =
        snapshot::load_newest(&*origin.snapshots)?;
    let covered_below = loaded.as_ref().map_or(Slot::FIRST, |loaded| loaded.below);
    let mut kept = Kept::new(covered_below);
    let opened = Journal::open(Arc::clone(&origin.journal), origin.options, &mut |entry| {
        watch(kept.read(entry)?);
        Ok(())
    });
    let (journal, found) = match opened {
        Ok(opened) => opened,
        // `format` was cut short before it made the journal. No process has run here, so nothing
        // was ever promised; later, a missing journal is a lost disk.
        Err(JournalError::NotCreated { .. }) if origin.first_start => {
            (Journal::create(origin.journal, origin.options, &[])?, Default::default())
        }
        Err(error) => return Err(refusal(&origin.name, error)),
    };
    if let Some(cut) = &found.cut {
        tracing::info!(file = %cut.file.display(), offset = cut.offset, "an unfinished group was cut");
    }
    let (snapshot_below, configuration, store) = match loaded {
        Some(Loaded { below, configuration, store }) => (below, configuration, store),
        None => (Slot::FIRST, origin.initial, Store::new()),
    };
    let mut output = Output::default();
    let granted_us = origin.granted_us;
    let recovered = Recovered { snapshot_below, records: kept.records, granted_us };
    let replica = Replica::recover(origin.settings, configuration, recovered, now, &mut output);
    let (behaviour, seed) = (origin.behaviour, origin.seed);
    let node = Node::new(replica, store, behaviour, seed, snapshot_below, output, now);
    Ok(Start { journal, node, snapshots, snapshot_below, found })
}

/// The records of the journal that still say something, in their order. What a snapshot covers and a
/// trim has given up is let go as soon as both are known, so that a recovery takes the memory of the
/// log that is kept, not of every segment that has not been used again yet.
struct Kept {
    covered_below: Slot,
    trimmed_below: Slot,
    records: Vec<Record>,
}

impl Kept {
    fn new(covered_below: Slot) -> Kept {
        Kept { covered_below, trimmed_below: Slot::FIRST, records: Vec::new() }
    }

    /// Takes an entry of the journal; answers its bytes.
    fn read(&mut self, entry: Entry<'_>) -> Result<usize, Refusal> {
        match entry {
            Entry::Checkpoint(bytes) => {
                for record in wire::decode_records(Bytes::copy_from_slice(bytes))? {
                    self.take(record);
                }
                Ok(bytes.len())
            }
            Entry::Record { bytes, .. } => {
                self.take(wire::decode_record(Bytes::copy_from_slice(bytes))?);
                Ok(bytes.len())
            }
        }
    }

    fn take(&mut self, record: Record) {
        if let Record::TrimmedBelow(below) = record
            && below > self.trimmed_below
        {
            self.trimmed_below = below;
            self.forget_below(below.min(self.covered_below));
        }
        self.records.push(record);
    }

    /// An entry that goes leaves the promise that it implied.
    fn forget_below(&mut self, below: Slot) {
        let mut implied: Option<Ballot> = None;
        self.records.retain(|record| match record {
            Record::Accepted { slot, ballot, .. } if *slot < below => {
                implied = implied.max(Some(*ballot));
                false
            }
            Record::Chosen { slot, .. } => *slot >= below,
            _ => true,
        });
        self.records.extend(implied.map(Record::Promised));
    }
}

fn refusal(name: &str, error: JournalError) -> anyhow::Error {
    match error {
        JournalError::Corrupt { .. } | JournalError::Missing { .. } => {
            anyhow!(error).context(format!(
                "the journal of {name} lost what it had promised to keep. Nothing was changed. \
                 Rebuild this node from its peers under a new id: paxosctl member replace {name}"
            ))
        }
        error => anyhow!(error).context("open the journal"),
    }
}

#[cfg(test)]
mod tests {
    use paxos::{NodeId, Value};

    use super::*;

    fn accepted(slot: u64, round: u64) -> Record {
        let ballot = Ballot { configuration: 0, round, node: NodeId(1) };
        Record::Accepted { slot: Slot(slot), ballot, value: Value::Noop }
    }

    fn slots(kept: &Kept) -> Vec<u64> {
        kept.records.iter().filter_map(|record| record.slot()).map(|slot| slot.0).collect()
    }

    /// Memory follows what is kept: the trimmed goes while the rest is still being read.
    #[test]
    fn what_is_trimmed_and_covered_is_let_go_at_once() {
        let mut kept = Kept::new(Slot(900));
        for slot in 1..=1_000 {
            kept.take(accepted(slot, slot));
        }
        assert_eq!(kept.records.len(), 1_000);
        kept.take(Record::TrimmedBelow(Slot(500)));
        assert_eq!(slots(&kept), (500..=1_000).collect::<Vec<u64>>());
        // Beyond the snapshot nothing is let go, whatever was trimmed: those slots are unreadable,
        // not empty, and the replica has to know.
        kept.take(Record::TrimmedBelow(Slot(950)));
        assert_eq!(slots(&kept), (900..=1_000).collect::<Vec<u64>>());
    }

    /// PITFALLS 17: the promise that an entry implied outlives the entry.
    #[test]
    fn an_entry_that_goes_leaves_its_promise() {
        let mut kept = Kept::new(Slot(10));
        kept.take(accepted(1, 7));
        kept.take(accepted(2, 3));
        kept.take(Record::TrimmedBelow(Slot(10)));
        let promised = kept.records.iter().filter_map(|record| match record {
            Record::Promised(ballot) => Some(ballot.round),
            _ => None,
        });
        assert_eq!(promised.max(), Some(7));
    }
}
