//! Files of snapshots on a disk that fails on request, and a store that must agree with its log.

use std::sync::Arc;

use bytes::Bytes;
use journal::{Disk, Entry, FaultyDisk, Journal, Options};
use paxos::{
    BatchId, Configuration, Envelope, Member, Message, NodeId, Now, Output, Record, Recovered,
    Replica, Settings, Slot, Value,
};

use super::{Done, FileId, Files, Job, Jobs, Loaded, PartSender, Snapshots, load_newest};
use crate::batch::BatchBuilder;
use crate::metrics::Metrics;
use crate::node::{Effects, Node};
use crate::store::{SnapshotStep, Store};
use crate::syncer::{Append, Appender, Order};
use crate::wire;

const NOW: Now = Now { mono_us: 1_000_000, wall_ms: 1_000_000 };

/// A store with so many bytes of values, and the jobs that write it down.
pub(super) fn jobs(below: Slot, value_bytes: usize) -> Vec<Job> {
    let mut store = Store::new();
    let applying = crate::store::Applying { slot: 1, time_ms: 1, seed: 0 };
    for (number, value) in vec![b'v'; value_bytes].chunks(100_000).enumerate() {
        store.apply(applying, &[b"SET", format!("key{number}").as_bytes(), value]);
    }
    let head = store.begin_snapshot();
    let mut jobs = vec![Job::Begin { below, head, configuration: Configuration::default() }];
    while let Some(step) = store.snapshot_step(1 << 20) {
        match step {
            SnapshotStep::Chunk(chunk) => jobs.push(Job::Chunk(chunk)),
            SnapshotStep::Done => jobs.push(Job::End { below, started_us: 0 }),
        }
    }
    jobs
}

fn names(disk: &dyn Disk) -> Vec<String> {
    disk.list().expect("list the folder")
}

/// PITFALLS 11, 59: what a failed attempt leaves behind keeps a full disk full.
#[test]
fn a_snapshot_that_finds_no_room_leaves_nothing() {
    let disk = FaultyDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    disk.set_capacity(Some(2 << 20));
    let mut files = Files::new(Arc::clone(&shared));
    for below in [10, 20, 30] {
        let done: Vec<Done> =
            jobs(Slot(below), 4 << 20).into_iter().filter_map(|job| files.work(job)).collect();
        assert!(matches!(done[..], [Done::WriteFailed { .. }]), "{} reports", done.len());
        assert_eq!(names(&*shared), Vec::<String>::new());
    }
    // The same for one that is received: the newer replaces the older, a failed one goes.
    for below in [40, 50, 60] {
        let bytes = Bytes::from(vec![1; 1 << 20]);
        let file = FileId { below: Slot(below), bytes: 8 << 20, sum: Some(1) };
        let part = |offset| Job::Receive { from: NodeId(1), file, offset, bytes: bytes.clone() };
        let received = files.work(part(0));
        assert!(matches!(received, Some(Done::Received { have, .. }) if have == 1 << 20));
        assert_eq!(names(&*shared).len(), 1);
    }
    // With room again, it works.
    disk.set_capacity(None);
    let done: Vec<Done> =
        jobs(Slot(70), 4 << 20).into_iter().filter_map(|job| files.work(job)).collect();
    assert!(matches!(done[..], [Done::Written { below: Slot(70), .. }]));
}

/// PITFALLS 70: the source of an install is lost half-way, and what the next one has is older. It is
/// taken all the same: the other half of the newer one may never come.
#[test]
fn an_older_snapshot_of_another_peer_takes_the_place_of_half_a_newer_one() {
    let source = FaultyDisk::new(1);
    let mut files = Files::new(Arc::new(source.clone()));
    let done: Vec<Done> =
        jobs(Slot(50), 300_000).into_iter().filter_map(|job| files.work(job)).collect();
    assert!(matches!(done[..], [Done::Written { .. }]));
    let name = names(&source).pop().expect("the file");
    let whole = Bytes::from(source.contents(&name));

    let disk = FaultyDisk::new(2);
    let mut files = Files::new(Arc::new(disk.clone()));
    let part = |from, file, offset, bytes| Job::Receive { from: NodeId(from), file, offset, bytes };
    let half = Bytes::from(vec![1; 1_000]);
    let newer = FileId { below: Slot(60), bytes: 8 << 20, sum: Some(1) };
    let received = files.work(part(1, newer, 0, half));
    assert!(matches!(received, Some(Done::Received { have: 1_000, .. })));
    let older = FileId { below: Slot(50), bytes: whole.len() as u64, sum: None };
    let (head, tail) = (whole.slice(..100_000), whole.slice(100_000..));
    let received = files.work(part(2, older, 0, head));
    assert!(matches!(received, Some(Done::Received { have: 100_000, .. })));
    let received = files.work(part(2, older, 100_000, tail));
    assert!(matches!(received, Some(Done::Received { .. })));
    let installed = files.work(Job::Install { from: NodeId(2), file: older });
    let Some(Done::Installed { file, .. }) = installed else { panic!("it is not installed") };
    assert_eq!(file, older);
    assert_eq!(names(&disk), [name]);
}

/// PITFALLS 6, 7: the log is trimmed on the word of a named file, so none gets its name unread.
#[test]
fn a_snapshot_that_does_not_read_back_gets_no_name() {
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(1));
    let mut files = Files::new(Arc::clone(&disk));
    let damaged = jobs(Slot(10), 1_000).into_iter().map(|job| match job {
        Job::Chunk(mut chunk) => {
            chunk.truncate(chunk.len() / 2);
            Job::Chunk(chunk)
        }
        other => other,
    });
    let done: Vec<Done> = damaged.filter_map(|job| files.work(job)).collect();
    assert!(matches!(done[..], [Done::WriteFailed { .. }]), "{} reports", done.len());
    assert_eq!(names(&*disk), Vec::<String>::new());

    let done: Vec<Done> =
        jobs(Slot(20), 1_000).into_iter().filter_map(|job| files.work(job)).collect();
    assert!(matches!(done[..], [Done::Written { .. }]));
    let found = load_newest(&*disk).expect("it is good");
    assert_eq!(found.newest.expect("it is there").below, Slot(20));
}

/// Whatever is in a file: an error that names it, never a panic, and no more memory than the file.
#[test]
fn a_damaged_file_is_an_error() {
    let disk = FaultyDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut files = Files::new(Arc::clone(&shared));
    let done: Vec<Done> =
        jobs(Slot(20), 300).into_iter().filter_map(|job| files.work(job)).collect();
    assert!(matches!(done[..], [Done::Written { .. }]));
    let name = names(&*shared).pop().expect("the file");
    let length = disk.contents(&name).len() as u64;
    for offset in 0..length {
        for mask in [0x01, 0x80] {
            disk.flip(&name, offset, mask);
            let error = load_newest(&*shared).err().expect("a flipped bit is noticed");
            assert!(error.to_string().contains("byte"), "{error}");
            disk.flip(&name, offset, mask);
        }
    }
    for cut in 0..length {
        let fork = disk.fork();
        fork.truncate(&name, cut);
        assert!(load_newest(&fork).is_err(), "cut at byte {cut} of {length}");
    }
    assert!(load_newest(&*shared).is_ok());
}

fn configuration() -> Configuration {
    let members = (1..=3).map(|id| (NodeId(id), Member::default())).collect();
    Configuration { members, ..Configuration::default() }
}

/// Node 2 of three, with nothing on its disk.
fn new_node() -> Node {
    new_node_of(NodeId(2))
}

pub(super) fn new_node_of(id: NodeId) -> Node {
    let mut output = Output::default();
    let settings = Settings::new(id, 7, 0);
    let replica =
        Replica::recover(settings, configuration(), Recovered::default(), NOW, &mut output);
    let loaded = Loaded::nothing(configuration());
    Node::new(replica, loaded, config::Behaviour::default(), 0, output, NOW)
}

fn snapshots(disk: &FaultyDisk, every_bytes: u64) -> (Snapshots, Jobs) {
    snapshots_found(disk, Vec::new(), every_bytes)
}

/// With the files of these slots.
pub(super) fn snapshots_found(
    disk: &FaultyDisk,
    found: Vec<u64>,
    every_bytes: u64,
) -> (Snapshots, Jobs) {
    let bytes = |below| disk.contents(&super::name_of(Slot(below))).len() as u64;
    let found = found.into_iter().map(|below| (Slot(below), bytes(below))).collect();
    let metrics = Arc::new(Metrics::new("0", "0"));
    Snapshots::unattended(Arc::new(disk.clone()), every_bytes, found, metrics)
}

/// Another node tells what was chosen in these slots: each sets a key of its own.
pub(super) fn learn(node: &mut Node, slots: std::ops::Range<u64>, value_bytes: usize) {
    let value = |counter: u64| {
        let mut batch = BatchBuilder::default();
        let (key, value) = (format!("k{counter}"), vec![b'v'; value_bytes]);
        let argv: [&[u8]; 3] = [b"SET", key.as_bytes(), &value];
        batch.push(&argv);
        let id = BatchId { incarnation: 9, counter };
        Value::Batch { id, payload: batch.finish(1, 0) }
    };
    let first = Slot(slots.start);
    let message = Message::Chosen { first, values: slots.map(value).collect() };
    let to = node.replica.id();
    let from = NodeId(to.0 % 3 + 1);
    node.received(NOW, Envelope { from, to, message });
}

/// Hears nothing and has nothing queued.
struct Nowhere;

impl PartSender for Nowhere {
    fn send_part(&self, _to: NodeId, _part: &Bytes) {}

    fn queued_bytes(&self, _to: NodeId) -> usize {
        0
    }
}

fn installed(below: u64) -> Done {
    let (below, configuration) = (Slot(below), configuration());
    let loaded = Box::new(Loaded { below, configuration, store: Store::new() });
    let file = FileId { below, bytes: 9, sum: Some(1) };
    Done::Installed { from: NodeId(1), file, loaded }
}

/// The sync thread takes what waits; it may do so at any moment.
fn write(appender: &mut Appender) -> Result<(), journal::Error> {
    appender.append_waiting()?;
    if appender.needs_sync() {
        appender.sync()?;
    }
    appender.settle().map(|_| ())
}

/// The records that wait in the node, to the sync thread.
fn turn(node: &mut Node, appender: &mut Appender) {
    let mut effects = Effects::default();
    node.turn(NOW, &mut effects);
    appender.take(Order::Append(Append::of(&mut effects).expect("it has records")));
}

/// PITFALLS 6, 61, 100: wherever the power goes, a slot whose entry has left the journal is on record
/// as trimmed. It would otherwise count as a slot in which nothing was ever accepted.
#[test]
fn nothing_leaves_the_journal_before_the_record_that_says_so() {
    let segment_bytes = 16 << 10;
    let options =
        Options { segment_bytes, reserve_bytes: 0, group_bytes_max: 1 << 20, keep_free_bytes: 0 };
    let mut trims = 0;
    let mut changes = 0;
    loop {
        let disk = FaultyDisk::new(1);
        let journal = Journal::create(Arc::new(disk.clone()), options, &[]).expect("create");
        let mut appender = Appender::new(journal);
        let mut node = new_node();
        for slot in 1..=20 {
            learn(&mut node, slot..slot + 1, 4 << 10);
            turn(&mut node, &mut appender);
            write(&mut appender).expect("the disk is well");
        }
        let (mut snapshots, jobs) = snapshots(&FaultyDisk::new(2), 1 << 30);
        jobs.results.send(installed(100)).expect("it listens");

        disk.stop_after(changes);
        snapshots.tick(NOW, &mut node, &Nowhere, 0);
        let mut result = write(&mut appender);
        turn(&mut node, &mut appender);
        if result.is_ok() {
            result = write(&mut appender);
        }
        disk.crash_keeping_all();

        let (mut kept, mut trimmed_below) = (Vec::new(), 0);
        journal::read(&disk, &mut |entry| {
            let records = match entry {
                Entry::Checkpoint(bytes) => wire::decode_records(Bytes::copy_from_slice(bytes))?,
                Entry::Record { bytes, .. } => {
                    vec![wire::decode_record(Bytes::copy_from_slice(bytes))?]
                }
            };
            for record in records {
                match record {
                    Record::Chosen { slot, .. } => kept.push(slot.0),
                    Record::TrimmedBelow(below) => trimmed_below = below.0,
                    _ => {}
                }
            }
            Ok(())
        })
        .expect("the journal can be read");
        trims += u64::from(kept.len() < 20);
        for slot in 1..=20 {
            assert!(
                kept.contains(&slot) || slot < trimmed_below,
                "slot {slot} is gone, on record is {trimmed_below}, {changes} changes"
            );
        }
        if result.is_ok() {
            break;
        }
        changes += 1;
    }
    assert!(changes > 3 && trims > 1, "{changes} changes, {trims} times something was gone");
}

/// A snapshot is installed in the very turn in which the log has come as far by itself: store and
/// replica must stand at the same slot (PITFALLS 69).
#[test]
fn an_install_meets_chosen_slots_that_are_not_applied_yet() {
    for below in 1..=6 {
        let mut node = new_node();
        let values = (1..=4)
            .map(|counter| {
                let mut batch = BatchBuilder::default();
                let argv: [&[u8]; 2] = [b"INCR", b"n"];
                batch.push(&argv);
                let id = BatchId { incarnation: 9, counter };
                Value::Batch { id, payload: batch.finish(1, 0) }
            })
            .collect();
        let message = Message::Chosen { first: Slot::FIRST, values };
        node.received(NOW, Envelope { from: NodeId(1), to: NodeId(2), message });
        drop(node.install(NOW, Loaded { below: Slot(below), ..Loaded::nothing(configuration()) }));
        let mut effects = Effects::default();
        node.turn(NOW, &mut effects);
        let first_unapplied = Slot(below.max(5));
        assert_eq!(node.first_unapplied(), first_unapplied, "a snapshot below {below}");
        assert_eq!(node.replica.first_unchosen(), first_unapplied);
    }
}

/// A snapshot is installed while the node writes its own: the walk goes with the old store, and the
/// next snapshot begins when it is due.
#[test]
fn a_node_goes_on_taking_snapshots_after_an_install_in_the_middle_of_one() {
    let mut node = new_node();
    let learn_in_a_turn = |node: &mut Node, slots, value_bytes| {
        learn(node, slots, value_bytes);
        node.turn(NOW, &mut Effects::default());
    };
    learn_in_a_turn(&mut node, 1..9, 1 << 20);
    let (mut snapshots, jobs) = snapshots(&FaultyDisk::new(1), 1);
    snapshots.tick(NOW, &mut node, &Nowhere, 10);
    jobs.results.send(installed(100)).expect("it listens");
    snapshots.tick(NOW, &mut node, &Nowhere, 20);
    node.turn(NOW, &mut Effects::default());
    learn_in_a_turn(&mut node, 100..109, 100);
    while jobs.received.try_recv().is_ok() {}
    snapshots.tick(NOW, &mut node, &Nowhere, 1_000_000);
    let begins = |job| matches!(job, Job::Begin { below: Slot(109), .. });
    assert!(
        std::iter::from_fn(|| jobs.received.try_recv().ok()).any(begins),
        "no snapshot ever again"
    );
}

/// What was journaled before a restart counts: a node that is restarted again and again takes
/// snapshots as any other.
#[test]
fn the_journal_that_was_found_counts_towards_the_next_snapshot() {
    for (found_bytes, begins) in [(0, false), (900, true)] {
        let mut node = new_node();
        learn(&mut node, 1..3, 10);
        node.turn(NOW, &mut Effects::default());
        let (snapshots, jobs) = snapshots(&FaultyDisk::new(1), 1_000);
        let mut snapshots = snapshots.behind(found_bytes);
        snapshots.tick(NOW, &mut node, &Nowhere, 100);
        assert_eq!(jobs.received.try_recv().is_ok(), begins, "{found_bytes}");
    }
}

/// On a full disk little is written any more: what was deleted gives its place back all the same, and
/// the log goes behind the second snapshot from there.
#[test]
fn a_full_disk_makes_a_snapshot_due() {
    let mut node = new_node();
    let learn_in_a_turn = |node: &mut Node, slots| {
        learn(node, slots, 10);
        node.turn(NOW, &mut Effects::default());
    };
    let (mut snapshots, jobs) = snapshots(&FaultyDisk::new(1), 1 << 30);
    let begins_at = |node: &mut Node, snapshots: &mut Snapshots, after_us| {
        let now = Now { mono_us: NOW.mono_us + after_us, ..NOW };
        // The first one begins, the next one hands the rest over.
        for _ in 0..2 {
            snapshots.tick(now, node, &Nowhere, 100);
        }
        std::iter::from_fn(|| jobs.received.try_recv().ok()).find_map(|job| match job {
            Job::Begin { below, .. } => {
                let written = Done::Written { below, bytes: 9, started_us: 0 };
                jobs.results.send(written).expect("it listens");
                Some(below)
            }
            _ => None,
        })
    };
    learn_in_a_turn(&mut node, 1..3);
    assert_eq!(begins_at(&mut node, &mut snapshots, 0), None);
    node.set_can_accept(true, true);
    assert_eq!(begins_at(&mut node, &mut snapshots, 0), Some(Slot(3)));
    learn_in_a_turn(&mut node, 3..5);
    assert_eq!(begins_at(&mut node, &mut snapshots, 1_000_000), None, "not again at once");
    assert_eq!(begins_at(&mut node, &mut snapshots, 6_000_000), Some(Slot(5)));
    assert_eq!(begins_at(&mut node, &mut snapshots, 7_000_000), None);
    assert_eq!(node.replica.first_kept(), Slot(3));
    node.set_can_accept(true, false);
    learn_in_a_turn(&mut node, 5..7);
    assert_eq!(begins_at(&mut node, &mut snapshots, 20_000_000), None);
}
