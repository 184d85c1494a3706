//! From what the disk holds to a node that may run: newest good snapshot, journal, replica, store.
//! All of it goes through [`Disk`], so that what a restart does here is what a simulator restarts.
//!
//! Nothing is deleted, and nothing is written before everything has been read.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use config::Behaviour;
use journal::{Disk, Entry, Error as JournalError, Journal, Options, Refusal};
use paxos::{Configuration, Now, Output, Record, Recovered, Replica, Settings, Slot};

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
    let snapshot::Found { newest: loaded, files: snapshots } =
        snapshot::load_newest(&*origin.snapshots)?;
    let mut records: Vec<Record> = Vec::new();
    let opened = Journal::open(Arc::clone(&origin.journal), origin.options, &mut |entry| {
        read(entry, &mut records)
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
    let recovered = Recovered { snapshot_below, records };
    let replica = Replica::recover(origin.settings, configuration, recovered, now, &mut output);
    let (behaviour, seed) = (origin.behaviour, origin.seed);
    let node = Node::new(replica, store, behaviour, seed, snapshot_below, output, now);
    Ok(Start { journal, node, snapshots, snapshot_below, found })
}

fn read(entry: Entry<'_>, records: &mut Vec<Record>) -> Result<(), Refusal> {
    match entry {
        Entry::Checkpoint(bytes) => {
            records.extend(wire::decode_records(Bytes::copy_from_slice(bytes))?);
        }
        Entry::Record { bytes, .. } => {
            records.push(wire::decode_record(Bytes::copy_from_slice(bytes))?);
        }
    }
    Ok(())
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
