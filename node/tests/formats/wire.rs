//! What travels between nodes: frames, the parts of a snapshot inside them, and batches of commands,
//! which also stand in journals.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use journal::{Disk, FaultyDisk};
use node::batch::{Batch, BatchBuilder};
use node::metrics::Metrics;
use node::node::Node;
use node::snapshot::{Done, FileId, Job, Loaded, PartSender, Snapshots};
use node::wire::{
    self, FRAME_BYTES_MAX, Frame, FrameDecoder, Hello, Lane, PeerFrame, Refusal, RefusalCode,
    WIRE_VERSION, WIRE_VERSION_OLDEST, WireError,
};
use paxos::{Member, NodeId, Now, Output, Recovered, Replica, Settings, Slot};

use crate::golden;
use crate::samples::{a_configuration, ballot, one_of_each, without_terms};

const NOW: Now = Now { mono_us: 1_000_000, wall_ms: 1_000_000 };

fn hello() -> Hello {
    Hello {
        version_oldest: 1,
        version_newest: 1,
        cluster: *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff",
        id: NodeId(2),
        incarnation: 0x0123_4567_89ab_cdef,
        to: NodeId(3),
        lane: Lane::Bulk,
        starts: 7,
        process: 0xfeed,
        former: [0xbeef, 0xcafe, 0, 0, 0, 0, 0, 0],
        promised: ballot(7),
        last_slot: Slot(12),
        // As the first release wrote it.
        store_version_newest: None,
    }
}

/// The handshake keeps its version for ever and grows at its end.
#[test]
fn a_hello_says_which_store_version_it_can_do() {
    let frame = Frame::Hello(Hello { store_version_newest: Some(3), ..hello() });
    let mut today = BytesMut::new();
    wire::put(&mut today, &frame).expect("it fits");
    let place = "(a hello only grows at its end)";
    golden::check("hello-2.hex", place, &golden::lines([("hello", today.to_vec())]));
    let kept = golden::read_lines("hello-2.hex").remove(0).1;
    assert_eq!(decode(&kept), Ok(frame));
}

fn one_of_each_frame() -> Vec<(&'static str, Frame)> {
    let mut frames: Vec<_> = one_of_each(without_terms())
        .into_iter()
        .map(|message| (message.kind(), Frame::Peer(PeerFrame::Paxos(message))))
        .collect();
    let states = vec![(Slot(64), 1 << 100 | 7), (Slot(128), 9)];
    frames.extend([
        ("snapshot", Frame::Peer(PeerFrame::Snapshot(Bytes::from_static(b"opaque")))),
        ("states", Frame::Peer(PeerFrame::States(states))),
        ("keep_alive", Frame::KeepAlive),
        ("durable", Frame::Durable { promised: ballot(7), last_slot: Slot(12) }),
        ("hello", Frame::Hello(hello())),
        ("welcome", Frame::Welcome(hello())),
        ("refused", Frame::Refused(Refusal::new(RefusalCode::WrongIncarnation, "who are you?"))),
    ]);
    frames
}

fn decode(bytes: &[u8]) -> Result<Frame, WireError> {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    decoder.spare().extend_from_slice(bytes);
    decoder.next_frame().map(|frame| frame.expect("a whole frame"))
}

#[test]
fn frames() {
    let encode = |frame: &Frame| {
        let mut bytes = BytesMut::new();
        wire::put(&mut bytes, frame).expect("it fits");
        bytes.to_vec()
    };
    let today = one_of_each_frame();
    let today = today.iter().map(|(name, frame)| (*name, encode(frame)));
    let name = format!("wire-{WIRE_VERSION}.hex");
    golden::check(&name, "WIRE_VERSION in node/src/wire.rs", &golden::lines(today));
    for version in WIRE_VERSION_OLDEST..=WIRE_VERSION {
        let kept = golden::read_lines(&format!("wire-{version}.hex"));
        let expected = one_of_each_frame();
        assert_eq!(kept.len(), expected.len());
        for ((name, bytes), (expected_name, expected)) in kept.iter().zip(expected) {
            assert_eq!(name, expected_name);
            assert_eq!(decode(bytes), Ok(expected), "{name} of version {version}");
        }
    }
}

/// The version after ours is refused by its number, in every frame but those of the handshake, which
/// never get another.
#[test]
fn the_next_version_of_a_frame_is_refused_by_name() {
    for (name, bytes) in golden::read_lines(&format!("wire-{WIRE_VERSION}.hex")) {
        let mut bytes = bytes;
        bytes[8] += 1;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..4]);
        crc.update(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
        let error = decode(&bytes).expect_err("a newer version").to_string();
        assert!(
            error.contains("frame version 2 is newer than 1, the newest that this release reads"),
            "{name}: {error}"
        );
    }
}

/// Versions of the one before and of the one after overlap with ours; two apart they do not.
#[test]
fn neighbours_agree_and_strangers_do_not() {
    let agree = |version_oldest, version_newest| {
        Hello { version_oldest, version_newest, ..hello() }.agree()
    };
    let ours = WIRE_VERSION;
    assert_eq!(agree(ours, ours + 1), Some(ours), "a node that is one release ahead");
    assert_eq!(agree(WIRE_VERSION_OLDEST.saturating_sub(1), WIRE_VERSION_OLDEST), Some(ours));
    assert_eq!(agree(ours + 1, ours + 2), None);
    assert_eq!(agree(0, WIRE_VERSION_OLDEST - 1), None);
}

/// Parts as they leave, and what they mean to whoever gets them.
#[derive(Default)]
struct Sent(RefCell<Vec<Bytes>>);

impl PartSender for Sent {
    fn send_part(&self, _to: NodeId, part: &Bytes) {
        self.0.borrow_mut().push(part.clone());
    }

    fn queued_bytes(&self, _to: NodeId) -> usize {
        0
    }
}

fn idle_node() -> Node {
    let mut output = Output::default();
    let members = (1..=3).map(|id| (NodeId(id), Member::default())).collect();
    let configuration = paxos::Configuration { members, ..Default::default() };
    let settings = Settings::new(NodeId(2), 7, 0);
    let loaded = Loaded::nothing(configuration.clone());
    let replica = Replica::recover(settings, configuration, Recovered::default(), NOW, &mut output);
    Node::new(replica, loaded, config::Behaviour::default(), 0, output, NOW)
}

/// What a stream says, both ways. It has no version of its own: it is the frame's. The file of the
/// release before has chunks and answers; offers and failures, which that one does not know and does
/// not heed, stand in their own.
#[test]
fn parts_of_a_snapshot() {
    let disk = FaultyDisk::new(1);
    let handle = disk.create("snapshot-00000000000000000009").unwrap();
    handle.write_at(0, b"the file's bytes").unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let metrics = Arc::new(Metrics::new("test", "none"));
    let found = vec![(Slot(9), 16)];
    let (mut snapshots, jobs) = Snapshots::unattended(disk, 1 << 30, found, metrics);
    let mut node = idle_node();
    let sent = Sent::default();
    // The file is read, offered, and sent to whoever has nothing of it.
    snapshots.wanted(NOW, NodeId(3), &node, &sent);
    let file = FileId { below: Slot(9), bytes: 16, sum: Some(0x0102_0304_0506_0708_090a) };
    jobs.results.send(Done::Checked { below: Slot(9), result: Ok(file) }).unwrap();
    snapshots.tick(NOW, &mut node, &sent, 0);
    let have_nothing = [&b"\x02"[..], &[9, 0, 0, 0, 0, 0, 0, 0], &[0; 8]];
    snapshots.received(NOW, NodeId(3), have_nothing.concat().into(), &mut node, &sent);
    // One that arrives here and is old news is answered as had in full.
    let old_news = [&b"\x01"[..], &[1, 0, 0, 0, 0, 0, 0, 0], &[0; 8], &[16, 0, 0, 0, 0, 0, 0, 0]];
    snapshots.received(NOW, NodeId(3), old_news.concat().into(), &mut node, &sent);
    // Another stream is not wanted while one is coming in; a file that is no good is told.
    let parts = sent.0.take();
    let [offer, empty, bytes, have] = &parts[..] else { panic!("{} parts", parts.len()) };
    assert_eq!(empty, &bytes.slice(..25), "an empty part follows the offer");
    let named = ["bytes", "have"].into_iter().zip([bytes, have].map(|part| part.to_vec()));
    let place = "WIRE_VERSION in node/src/wire.rs";
    let name = format!("part-{WIRE_VERSION}.hex");
    golden::check(&name, place, &golden::lines(named));
    snapshots.received(NOW, NodeId(1), offer.clone(), &mut node, &sent);
    snapshots.received(NOW, NodeId(3), offer.clone(), &mut node, &sent);
    let job = std::iter::from_fn(|| jobs.received.try_recv().ok()).last().expect("a job");
    assert!(matches!(job, Job::Offered { from: NodeId(1), file: offered } if offered == file));
    let (error, bad) = ("no good".to_owned(), true);
    let failed = Done::ReceiveFailed { from: NodeId(1), file, error, bad };
    jobs.results.send(failed).unwrap();
    snapshots.tick(NOW, &mut node, &sent, 0);
    let parts = sent.0.take();
    let [not_wanted, failed] = &parts[..] else { panic!("{} parts", parts.len()) };
    let named = ["offer", "not_wanted", "failed"].into_iter();
    let named = named.zip([offer, not_wanted, failed].map(|part| part.to_vec()));
    golden::check(&format!("stream-{WIRE_VERSION}.hex"), place, &golden::lines(named));

    // Read, as the release before this one sends it: the chunk is taken in for what it says.
    let kept = golden::read_lines(&name);
    snapshots.received(NOW, NodeId(1), kept[0].1.clone().into(), &mut node, &sent);
    let job = jobs.received.try_recv().expect("a chunk to be written");
    let Job::Receive { from, file, offset, bytes } = job else { panic!("another job") };
    assert_eq!((from, file.below, file.bytes, file.sum), (NodeId(1), Slot(9), 16, None));
    assert_eq!((offset, &bytes[..]), (0, &b"the file's bytes"[..]));
}

#[test]
fn batches() {
    let mut builder = BatchBuilder::default();
    builder.push(&["SET", "key", "value"]);
    builder.push(&["DEL", "a", ""]);
    let payload = builder.finish(0x0102_0304_0506, 0x1122_3344);
    let version = payload[0];
    let name = format!("batch-{version}.hex");
    let place = "VERSION in node/src/batch.rs";
    golden::check(&name, place, &golden::lines([("batch", payload.to_vec())]));
    let kept = golden::read_lines(&name).remove(0).1;
    let mut batch = Batch::read(&kept).unwrap();
    assert_eq!((batch.stamp_ms, batch.seed), (0x0102_0304_0506, 0x1122_3344));
    let mut argv = Vec::new();
    for expected in [["SET", "key", "value"], ["DEL", "a", ""]] {
        assert!(batch.next_command(&mut argv).unwrap());
        assert_eq!(argv, expected.map(str::as_bytes));
    }
    assert!(!batch.next_command(&mut argv).unwrap());
    let newer = [&[version + 1], &kept[1..]].concat();
    let error = Batch::read(&newer).expect_err("a newer version").to_string();
    assert_eq!(error, "batch version 2 is newer than this node's 1: upgrade the node");
}

/// A configuration that stands alone, as a snapshot's head has it; the version before, too.
#[test]
fn configurations() {
    // The oldest version that can say it is written.
    for (version, configuration) in [(2, without_terms()), (3, a_configuration())] {
        let mut today = Vec::new();
        wire::put_configuration(&mut today, &configuration);
        assert_eq!(today[0], version);
        let name = format!("configuration-{version}.hex");
        let place = "CONFIGURATION_VERSION in node/src/wire/value.rs";
        golden::check(&name, place, &golden::lines([("configuration", today)]));
    }
    let read = |version: u8| {
        let kept = golden::read_lines(&format!("configuration-{version}.hex")).remove(0).1;
        wire::decode_configuration(kept.into()).unwrap()
    };
    assert_eq!(read(3), a_configuration());
    assert_eq!(read(2), without_terms());
    // Version 1 knew neither the slot nor the ids that were removed.
    let mut before = without_terms();
    (before.slot, before.removed) = (Slot::ZERO, Default::default());
    assert_eq!(read(1), before);
    let newer = Bytes::from(vec![4, 0, 0]);
    let error = wire::decode_configuration(newer).expect_err("a newer version").to_string();
    assert!(error.contains("configuration version 4 is newer than 3"), "{error}");
}
