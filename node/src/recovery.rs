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

use crate::node::{Beyond, Node};
use crate::snapshot::{self, Loaded};
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
    /// By which version of the store that slot is applied; later ones, maybe, by a newer one.
    pub snapshot_version: u32,
    /// Of the journal's records, those that no snapshot covers.
    pub uncovered_bytes: u64,
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
    let loaded = loaded.unwrap_or_else(|| Loaded::nothing(origin.initial));
    let (snapshot_below, snapshot_version) = (loaded.below, loaded.configuration.store_version);
    let uncovered_bytes = kept.uncovered_bytes;
    let mut output = Output::default();
    let granted_us = origin.granted_us;
    let recovered = Recovered { snapshot_below, records: kept.records, granted_us };
    // Nothing may be applied above it: not even what the journal holds.
    let newest = origin.settings.store_version_newest;
    if let Some(beyond) = Beyond::of(&loaded.configuration, newest) {
        return Err(anyhow!("{beyond}"));
    }
    let configuration = loaded.configuration.clone();
    let replica = Replica::recover(origin.settings, configuration, recovered, now, &mut output);
    let (behaviour, seed) = (origin.behaviour, origin.seed);
    let node = Node::new(replica, loaded, behaviour, seed, output, now);
    if let Some(beyond) = node.beyond.or(Beyond::of(node.configuration(), newest)) {
        return Err(anyhow!("{beyond}"));
    }
    Ok(Start { journal, node, snapshots, snapshot_below, snapshot_version, uncovered_bytes, found })
}

/// The records of the journal that still say something, in their order. What a snapshot covers and a
/// trim has given up is let go as soon as both are known, so that a recovery takes the memory of the
/// log that is kept, not of every segment that has not been used again yet.
struct Kept {
    covered_below: Slot,
    trimmed_below: Slot,
    uncovered_bytes: u64,
    records: Vec<Record>,
}

impl Kept {
    fn new(covered_below: Slot) -> Kept {
        let trimmed_below = Slot::FIRST;
        Kept { covered_below, trimmed_below, uncovered_bytes: 0, records: Vec::new() }
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
                let record = wire::decode_record(Bytes::copy_from_slice(bytes))?;
                if record.slot().is_some_and(|slot| slot >= self.covered_below) {
                    self.uncovered_bytes += bytes.len() as u64;
                }
                self.take(record);
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
        // What a newer release wrote is not damaged, and nothing here may be rebuilt for it.
        JournalError::Refused { .. } => anyhow!(error).context(format!(
            "the journal of {name} holds what this release cannot read. Nothing was changed. Start \
             the release that wrote it, or a newer one"
        )),
        error => anyhow!(error).context("open the journal"),
    }
}

#[cfg(test)]
mod tests {
    use journal::{FaultyDisk, Group};
    use paxos::{Member, NodeId, Value};

    use super::*;
    use crate::batch::BatchBuilder;
    use crate::identity::FORMER_COUNT;
    use crate::peers::{DiskMemory, Remembered};
    use crate::snapshot::{Files, Job, SnapshotError};
    use crate::store::{SnapshotHead, SnapshotStep, Store};
    use crate::wire::{Hello, Lane, WIRE_VERSION, WIRE_VERSION_OLDEST};

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
    const OPTIONS: Options = Options {
        segment_bytes: 16 << 10,
        reserve_bytes: 16 << 10,
        group_bytes_max: 64 << 10,
        keep_free_bytes: 0,
    };

    fn now() -> Now {
        Now { mono_us: 1_000_000, wall_ms: 1_000_000 }
    }

    fn members() -> Configuration {
        let members = (1..=3).map(|id| (NodeId(id), Member::default())).collect();
        Configuration { members, ..Configuration::default() }
    }

    /// Writes the snapshot of an empty store.
    fn write_snapshot(disk: &FaultyDisk, below: u64) {
        let mut store = Store::new();
        let head = store.begin_snapshot();
        write_out(disk, Slot(below), head, members(), &mut store);
    }

    /// The snapshot of a node at this moment.
    fn snapshot_of(node: &mut Node, disk: &FaultyDisk) {
        let (below, head, configuration) = node.begin_snapshot(now());
        write_out(disk, below, head, configuration, &mut node.store);
    }

    /// As the snapshots' thread does.
    fn write_out(
        disk: &FaultyDisk,
        below: Slot,
        head: SnapshotHead,
        configuration: Configuration,
        store: &mut Store,
    ) {
        let mut files = Files::new(Arc::new(disk.clone()));
        files.work(Job::Begin { below, head, configuration });
        while let Some(step) = store.snapshot_step(1 << 20) {
            files.work(match step {
                SnapshotStep::Chunk(chunk) => Job::Chunk(chunk),
                SnapshotStep::Done => Job::End { below, started_us: 0 },
            });
        }
    }

    fn origin(journal: &FaultyDisk, snapshots: &FaultyDisk) -> Origin {
        Origin {
            name: "n1".to_owned(),
            journal: Arc::new(journal.clone()),
            options: OPTIONS,
            snapshots: Arc::new(snapshots.clone()),
            initial: members(),
            settings: Settings::new(NodeId(1), 7, 0),
            granted_us: 0,
            behaviour: Behaviour::default(),
            first_start: false,
            seed: 0,
        }
    }

    fn journal_with(records: &[Record]) -> FaultyDisk {
        let disk = FaultyDisk::new(1);
        let mut journal = Journal::create(Arc::new(disk.clone()), OPTIONS, &[]).expect("create");
        for record in records {
            let mut bytes = Vec::new();
            wire::encode_record(record, &mut bytes);
            let label = record.slot().map_or(0, |slot| slot.0);
            let group = Group { records: &[(label, &bytes)], checkpoint: &[] };
            journal.append(group).expect("append");
        }
        journal.sync().expect("sync");
        disk
    }

    fn start(journal: &FaultyDisk, snapshots: &FaultyDisk) -> Start {
        journal.kill();
        recover(origin(journal, snapshots), now()).unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn hello(starts: u64, remembered: Remembered) -> Hello {
        let mut former = [0; FORMER_COUNT];
        former[0] = starts - 1;
        Hello {
            version_oldest: WIRE_VERSION_OLDEST,
            version_newest: WIRE_VERSION,
            cluster: [0; 16],
            id: NodeId(1),
            incarnation: 0,
            to: NodeId(2),
            lane: Lane::Control,
            starts,
            process: starts,
            former,
            promised: remembered.promised,
            last_slot: remembered.last_slot,
            store_version_newest: None,
        }
    }

    /// PITFALLS 7 and 10: a snapshot file that rots takes nothing from what the journal knows, so no
    /// peer takes the node that falls back to the file before for an older copy of itself. Without a
    /// record above the snapshot too: the last thing that happened may have been its installation.
    #[test]
    fn a_node_that_falls_back_to_the_older_snapshot_is_no_older_copy() {
        let ballot = Ballot { configuration: 0, round: 7, node: NodeId(1) };
        let installed = [Record::Promised(ballot), Record::TrimmedBelow(Slot(20))];
        let voted = (10..=24).map(|slot| accepted(slot, 7)).collect::<Vec<_>>();
        // The file may have been synced before the records of what it covers were.
        let ahead_of_its_journal = (10..=15).map(|slot| accepted(slot, 7)).collect::<Vec<_>>();
        for records in [&installed[..], &voted, &ahead_of_its_journal] {
            let journal = journal_with(records);
            let snapshots = FaultyDisk::new(2);
            write_snapshot(&snapshots, 10);
            write_snapshot(&snapshots, 20);
            let whole = start(&journal, &snapshots);
            assert_eq!(whole.snapshot_below, Slot(20));
            // A peer meets it, and hears from it whatever it may say.
            let memory = DiskMemory::default();
            let first = hello(1, Remembered::of(&whole.node.replica));
            memory.check(&first, "here").expect("nobody knows it yet");
            memory.met(&first);
            let Remembered { promised, last_slot } = Remembered::durable(&whole.node.replica);
            memory.stated(promised, last_slot);
            drop(whole);

            let length = snapshots.contents("snapshot-00000000000000000020").len() as u64;
            snapshots.flip("snapshot-00000000000000000020", length / 2, 1);
            let fallen_back = start(&journal, &snapshots);
            assert_eq!(fallen_back.snapshot_below, Slot(10));
            let again = hello(2, Remembered::of(&fallen_back.node.replica));
            memory.check(&again, "here").unwrap_or_else(|refusal| panic!("{refusal}"));
            // What it cannot read any more it does not vote on.
            assert!(fallen_back.node.replica.first_kept() >= Slot(10));
        }
    }

    fn refused(journal: &FaultyDisk, snapshots: &FaultyDisk) -> (String, anyhow::Error) {
        journal.kill();
        let before = [journal.fork(), snapshots.fork()];
        let error = recover(origin(journal, snapshots), now()).err().expect("it must not start");
        for (disk, before) in [journal, snapshots].into_iter().zip(before) {
            let names = disk.list().expect("list");
            assert_eq!(names.len(), before.list().expect("list").len());
            for name in names {
                assert_eq!(disk.contents(&name), before.contents(&name), "{name} was changed");
            }
        }
        (format!("{error:#}"), error)
    }

    /// What a newer release wrote is refused by name, with what to do, and left as it is: a record,
    /// a whole journal, a snapshot (which is no reason to go back to the one before).
    #[test]
    fn what_a_newer_release_wrote_is_refused_and_left_alone() {
        let words = ["newer than", "the newest that this release reads", "release that wrote it"];
        let says = |text: &str, words: &[&str]| {
            for word in words {
                assert!(text.contains(word), "`{word}` is missing: {text}");
            }
        };
        let good = journal_with(&[accepted(1, 7)]);
        let snapshots = FaultyDisk::new(2);
        write_snapshot(&snapshots, 1);
        drop(start(&good, &snapshots));

        let journal = FaultyDisk::new(1);
        let mut writer = Journal::create(Arc::new(journal.clone()), OPTIONS, &[]).expect("create");
        let bytes = [wire::RECORD_VERSION + 1, 0, 0, 0, 0, 1];
        writer.append(Group { records: &[(1, &bytes)], checkpoint: &[] }).expect("append");
        writer.sync().expect("sync");
        drop(writer);
        let (text, _) = refused(&journal, &snapshots);
        says(&text, &words);
        let version = format!("record version {}", wire::RECORD_VERSION + 1);
        says(&text, &["segment-000000000001", "at byte", &version]);

        let newer = good.fork();
        let name = "segment-000000000001";
        let mut header = newer.contents(name)[..60].to_vec();
        header[8..12].copy_from_slice(&9_u32.to_le_bytes());
        let crc = crc32fast::hash(&header[..56]);
        header[56..].copy_from_slice(&crc.to_le_bytes());
        newer.overwrite(name, 0, &header);
        let (text, _) = refused(&newer, &snapshots);
        says(&text, &[name, "format version 9", "the release that wrote it"]);

        let older_and_newer = snapshots.fork();
        write_snapshot(&older_and_newer, 20);
        let name = "snapshot-00000000000000000020";
        let mut file = older_and_newer.contents(name);
        let length = u32::from_le_bytes(file[1..5].try_into().expect("four bytes")) as usize;
        for (at, what) in [(9, "file version"), (9 + 1 + 8, "state version")] {
            let was = std::mem::replace(&mut file[at], 99);
            let mut crc = crc32fast::Hasher::new();
            crc.update(&0_u64.to_le_bytes());
            crc.update(&file[..5]);
            crc.update(&file[9..9 + length]);
            let crc = crc.finalize();
            file[5..9].copy_from_slice(&crc.to_le_bytes());
            older_and_newer.overwrite(name, 0, &file);
            let (text, error) = refused(&good, &older_and_newer);
            says(&text, &words);
            says(&text, &[name, what]);
            let cause = error.downcast_ref::<SnapshotError>();
            assert!(matches!(cause, Some(SnapshotError::Newer { found: 99, .. })), "{text}");
            file[at] = was;
        }
    }

    const RAISED: u64 = 100;
    const LAST: u64 = 140;

    /// Slots from the first one on, of which number `RAISED` raises the store's version; and, of the
    /// same length, a log that never does.
    fn a_log(raises: bool) -> Vec<Record> {
        let raised = Configuration { number: 1, slot: Slot(RAISED), store_version: 2, ..members() };
        let value = |slot: u64| {
            let id = paxos::BatchId { incarnation: 5, counter: slot };
            if slot == RAISED && raises {
                return Value::Configuration { id, configuration: raised.clone() };
            }
            let mut batch = BatchBuilder::default();
            batch.push(&["INCR", "n"]);
            Value::Batch { id, payload: batch.finish(1_000 + slot, 1) }
        };
        (1..=LAST).map(|slot| Record::Chosen { slot: Slot(slot), value: value(slot) }).collect()
    }

    /// Starts with a program that can do store version 2.
    fn start_newer(journal: &FaultyDisk, snapshots: &FaultyDisk) -> Node {
        journal.kill();
        let mut origin = origin(journal, snapshots);
        origin.settings.store_version_newest = 2;
        recover(origin, now()).unwrap_or_else(|error| panic!("{error:#}")).node
    }

    fn hashes(node: &Node) -> Vec<(u64, u128)> {
        node.state_hashes().map(|(slot, hash)| (slot.0, hash)).collect()
    }

    /// A restart applies each slot by the version that rules it, wherever it begins: with the first
    /// slot, before the raise, right behind it; and though its journal says from the start that the
    /// newer configuration is known.
    #[test]
    fn each_slot_is_applied_by_the_version_that_rules_it() {
        let log = a_log(true);
        let nowhere = FaultyDisk::new(2);
        let of_whole_log = start_newer(&journal_with(&log), &nowhere);
        assert_eq!(
            (of_whole_log.store.version(), of_whole_log.first_unapplied()),
            (2, Slot(LAST + 1))
        );
        let expected = hashes(&of_whole_log);
        assert_eq!(expected.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [64, 128]);
        // An older program agrees where the first version rules, and a log that raises nothing differs
        // where the second does.
        let never_raised = start(&journal_with(&a_log(false)), &nowhere).node;
        assert_eq!(hashes(&never_raised)[0], expected[0]);
        assert_ne!(hashes(&never_raised)[1], expected[1]);

        for taken_behind in [1, 63, RAISED - 1, RAISED, RAISED + 1, 127] {
            let snapshots = FaultyDisk::new(2);
            let mut node =
                start_newer(&journal_with(&log[..taken_behind as usize]), &FaultyDisk::new(3));
            snapshot_of(&mut node, &snapshots);
            let tail = &log[taken_behind as usize..];
            let Value::Configuration { configuration, .. } = (match &log[RAISED as usize - 1] {
                Record::Chosen { value, .. } => value.clone(),
                other => panic!("{other:?}"),
            }) else {
                panic!("no configuration where one was put")
            };
            let known = [&[Record::Configuration(configuration)], tail].concat();
            for records in [tail, &known] {
                let node = start_newer(&journal_with(records), &snapshots);
                assert_eq!(node.first_unapplied(), Slot(LAST + 1));
                let (what, since) = (hashes(&node), taken_behind);
                let newer: Vec<_> =
                    expected.iter().filter(|(slot, _)| *slot > since).copied().collect();
                assert_eq!(what, newer, "from a snapshot behind slot {since}");
                assert_eq!(node.store.state_hash(), of_whole_log.store.state_hash());
            }
        }
    }

    /// A node that knows of a newer configuration, and has fallen back to a snapshot from before it,
    /// says in its next snapshot what rules behind that one, not what it has heard of: else whoever
    /// starts from it would apply the slots in between by the wrong version.
    #[test]
    fn a_snapshot_says_what_rules_behind_it() {
        let log = a_log(true);
        let snapshots = FaultyDisk::new(2);
        let mut node = start_newer(&journal_with(&log[..10]), &FaultyDisk::new(3));
        snapshot_of(&mut node, &snapshots);
        // What the lost snapshot behind slot 120 covered is gone from the journal; the configuration
        // is on record.
        let Record::Chosen { value: Value::Configuration { configuration, .. }, .. } =
            &log[RAISED as usize - 1]
        else {
            panic!("no configuration where one was put")
        };
        let known = [Record::TrimmedBelow(Slot(121)), Record::Configuration(configuration.clone())];
        let mut node = start_newer(&journal_with(&known), &snapshots);
        assert_eq!((node.configuration().number, node.first_unapplied()), (1, Slot(11)));
        let again = FaultyDisk::new(4);
        snapshot_of(&mut node, &again);
        let taken = snapshot::load_newest(&again).expect("it can be read").newest.expect("a file");
        assert_eq!((taken.below, taken.configuration.number), (Slot(11), 0));
        assert_eq!((taken.store.version(), node.store.version()), (1, 1));
    }
}
