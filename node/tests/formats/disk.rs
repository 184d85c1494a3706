//! What a node keeps on its disk: journal, snapshots, identity and the small files beside them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use config::{Behaviour, Listen, Members, NodeConfig, Security, Trace};
use journal::{Disk, Entry, FaultyDisk, Journal, Options};
use node::identity::{self, FORMER_COUNT, Process};
use node::membership;
use node::snapshot::{Done, Files, Job, load_newest};
use node::store::{Applying, SnapshotHead, SnapshotStep, Store};
use node::syncer::{Append, Appender, Order};
use node::wire::{self, RECORD_VERSION, RECORD_VERSION_OLDEST};
use paxos::{Configuration, NodeId, Position, Record, Slot, Value};

use crate::golden;
use crate::samples::{a_configuration, ballot, one_of_each_record, without_terms};

fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode_record(record, &mut bytes);
    bytes
}

#[test]
fn records() {
    let of_version = |version: u8| match version {
        1 => one_of_each_record(without_terms()),
        _ => one_of_each_record(a_configuration()),
    };
    // What the version before could say is written as it had it.
    for version in RECORD_VERSION_OLDEST..=RECORD_VERSION {
        let name = format!("record-{version}.hex");
        let expected = of_version(version);
        let today = expected.iter().map(|(name, record)| (*name, encode(record)));
        golden::check(&name, "RECORD_VERSION in node/src/wire/record.rs", &golden::lines(today));
        let kept = golden::read_lines(&name);
        assert_eq!(kept.len(), expected.len());
        for ((name, bytes), (expected_name, expected)) in kept.into_iter().zip(expected) {
            assert_eq!(name, expected_name);
            assert_eq!(wire::decode_record(bytes.into()), Ok(expected), "{name}");
        }
    }
    for (name, mut bytes) in golden::read_lines("record-2.hex") {
        bytes[0] = RECORD_VERSION + 1;
        let error = wire::decode_record(bytes.into()).expect_err("a newer version").to_string();
        assert!(error.contains("record version 3 is newer than 2"), "{name}: {error}");
    }
}

const OPTIONS: Options = Options {
    segment_bytes: 16 << 10,
    reserve_bytes: 16 << 10,
    group_bytes_max: 64 << 10,
    keep_free_bytes: 0,
};

/// A record that fills a third of a segment, mostly with zeros, which the files of bytes leave out.
fn large(slot: u64) -> Record {
    let id = paxos::BatchId { incarnation: 5, counter: slot };
    let value = Value::Batch { id, payload: Bytes::from(vec![0; 5_000]) };
    Record::Accepted { slot: Slot(slot), ballot: ballot(7), value }
}

fn checkpoint() -> Vec<Record> {
    vec![
        Record::Promised(ballot(7)),
        Record::TrimmedBelow(Slot(4)),
        Record::Configuration(without_terms()),
    ]
}

/// Three segments with groups of every kind, of which the first was let go.
fn a_journal() -> FaultyDisk {
    let disk = FaultyDisk::new(1);
    let journal = Journal::create(Arc::new(disk.clone()), OPTIONS, &[]).unwrap();
    let mut appender = Appender::new(journal);
    let small = one_of_each_record(without_terms()).into_iter().map(|(_, record)| record);
    let groups = [small.collect::<Vec<_>>()].into_iter();
    // The last one lets go of the first segment.
    let large = (5..10).map(|slot| (vec![large(slot)], (slot == 9).then_some(7)));
    let groups = groups.map(|records| (records, None)).chain(large);
    for (index, (records, trim_below)) in groups.enumerate() {
        let labelled = records.iter().map(|record| {
            let label = record.slot().map_or(0, |slot| slot.0);
            (label, encode(record).into())
        });
        appender.take(Order::Append(Append {
            records: labelled.collect(),
            checkpoint: wire::encode_records(&checkpoint()),
            position: Position(index as u64 + 1),
            must_write: false,
            trim_below,
        }));
        appender.append_waiting().unwrap();
        assert!(appender.sync().unwrap());
        appender.settle().unwrap();
    }
    appender.idle().unwrap();
    disk
}

fn segments(disk: &FaultyDisk) -> Vec<(String, Vec<u8>)> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.starts_with("segment-"));
    names.sort();
    names.into_iter().map(|name| (name.clone(), disk.contents(&name))).collect()
}

/// A disk with these files, synced.
fn disk_with(files: &[(String, Vec<u8>)]) -> FaultyDisk {
    let disk = FaultyDisk::new(2);
    for (name, bytes) in files {
        let file = disk.create(name).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir().unwrap();
    disk
}

#[test]
fn journal_segments() {
    let today = segments(&a_journal());
    assert_eq!(today.len(), 2, "one was let go, one is full, one goes on");
    let version = u32::from_le_bytes(today[0].1[8..12].try_into().unwrap());
    let name = format!("journal-{version}.hex");
    let text = golden::files(today.iter().map(|(name, bytes)| (&name[..], bytes.clone())));
    golden::check(&name, "VERSION in node/journal/src/segment.rs", &text);

    let kept = disk_with(&golden::read_files(&name));
    let mut checkpoints = Vec::new();
    let mut records = Vec::new();
    let found = Journal::open(Arc::new(kept.clone()), OPTIONS, &mut |entry| {
        match entry {
            Entry::Checkpoint(bytes) => {
                checkpoints.push(wire::decode_records(Bytes::copy_from_slice(bytes))?);
            }
            Entry::Record { label, bytes } => {
                let record = wire::decode_record(Bytes::copy_from_slice(bytes))?;
                assert_eq!(record.slot(), Some(Slot(label)));
                records.push(record);
            }
        }
        Ok(())
    });
    let (mut journal, recovery) = found.unwrap();
    assert_eq!(checkpoints, [checkpoint(), checkpoint()]);
    let first = records[0].slot().expect("a slot's record").0;
    assert_eq!(records, (first..10).map(large).collect::<Vec<_>>());
    assert!(first > 5 && recovery.cut.is_none(), "from slot {first}, {recovery:?}");
    // It goes on from there.
    let bytes = encode(&large(10));
    journal.append(journal::Group { records: &[(10, &bytes)], checkpoint: &[] }).unwrap();
    journal.sync().unwrap();
}

/// A store with whatever it can hold: plain, with a deadline, a session with a reply, touches.
fn a_store() -> Store {
    let mut store = Store::new();
    let commands: [&[&[u8]]; 4] = [
        &[b"SET", b"plain", b"value"],
        &[b"SET", b"short-lived", b"\x00\xff", b"PXAT", b"99999999999"],
        &[b"ONCE", b"OPEN"],
        &[b"ONCE", b"3", b"1", b"INCR", b"counter"],
    ];
    for (index, argv) in commands.iter().enumerate() {
        let applying = Applying { slot: index as u64 + 1, time_ms: 1_000, seed: 0 };
        let reply = store.apply(applying, argv);
        assert!(!reply.is_error(), "{reply:?}");
    }
    store
}

/// The file of a snapshot as today's code writes it.
fn a_snapshot(store: &mut Store, below: Slot, configuration: Configuration) -> Vec<u8> {
    let disk = FaultyDisk::new(1);
    let mut files = Files::new(Arc::new(disk.clone()));
    let head = store.begin_snapshot();
    files.work(Job::Begin { below, head, configuration });
    while let Some(step) = store.snapshot_step(1 << 20) {
        let done = files.work(match step {
            // How the walk is cut into steps is no matter of the format.
            SnapshotStep::Chunk(chunk) if chunk.is_empty() => continue,
            SnapshotStep::Chunk(chunk) => Job::Chunk(chunk),
            SnapshotStep::Done => Job::End { below, started_us: 0 },
        });
        assert!(matches!(done, None | Some(Done::Written { .. })));
    }
    disk.contents(SNAPSHOT)
}

const SNAPSHOT: &str = "snapshot-00000000000000000005";

/// What is of the first store version is written as the version before had it, which says nothing of
/// the store's; what is of a later one says so.
#[test]
fn snapshot_files() {
    let mut versions = Vec::new();
    for (store_version, configuration) in [(1, without_terms()), (6, a_configuration())] {
        let mut store = a_store();
        store.rule(store_version);
        let below = Slot(5);
        let today = a_snapshot(&mut store, below, configuration.clone());
        // Behind the head's frame: the version of the file, its slot, the version of the state.
        let (version, state_version) = (today[9], today[9 + 1 + 8]);
        versions.push(state_version);
        let name = format!("snapshot-{version}-{state_version}.hex");
        let place = "VERSION in node/src/snapshot/file.rs, or SnapshotHead::VERSION";
        golden::check(&name, place, &golden::files([(SNAPSHOT, today)]));

        let loaded = load_newest(&disk_with(&golden::read_files(&name))).unwrap().newest.unwrap();
        // By which version its slots go on, the file says in its configuration.
        store.rule(configuration.store_version);
        assert_eq!((loaded.below, &loaded.configuration), (below, &configuration));
        assert_eq!(loaded.store.version(), 6);
        assert_eq!(loaded.store.state_hash(), store.state_hash());
        assert_eq!(loaded.store.recompute_state_hash(), store.state_hash());
        // The session is known, and the first reply comes again.
        let mut loaded = loaded.store;
        let applying = Applying { slot: 5, time_ms: 1_000, seed: 0 };
        let argv: [&[u8]; 5] = [b"ONCE", b"3", b"1", b"INCR", b"counter"];
        assert_eq!(loaded.apply(applying, &argv), store.apply(applying, &argv));
        assert_eq!(loaded.state_hash(), store.state_hash());
    }
    assert_eq!(versions, [SnapshotHead::VERSION_OLDEST, SnapshotHead::VERSION]);
}

fn config(data_dir: &Path) -> NodeConfig {
    let address = "127.0.0.1:7380".parse().unwrap();
    NodeConfig {
        schema: 1,
        cluster: "test".to_owned(),
        cluster_uuid: "00112233445566778899aabbccddeeff".to_owned(),
        id: 3,
        name: "n3".to_owned(),
        data_dir: data_dir.to_owned(),
        listen: Listen { client: address, peer: address, http: address },
        security: Security::default(),
        users: Vec::new(),
        behaviour: Behaviour::default(),
        trace: Trace::default(),
    }
}

/// Text with what is drawn anew each time left out: long rows of hex digits.
fn without_chance(text: &str) -> String {
    let words = text.split_inclusive(|c: char| !c.is_ascii_hexdigit());
    let shown = words.map(|word| match word.trim_end_matches(|c: char| !c.is_ascii_hexdigit()) {
        digits if digits.len() >= 16 => word.replace(digits, "…"),
        _ => word.to_owned(),
    });
    shown.collect()
}

/// The identity of a node that exists nowhere: its key opens nothing.
#[test]
fn identity() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    identity::format(&config(&data_dir)).unwrap();
    let path = data_dir.join("identity");
    let fresh = fs::read_to_string(&path).unwrap();
    let name = "identity-1.txt";
    assert!(fresh.starts_with(r#"{"schema":1,"#), "{fresh}");
    let wants = std::env::var_os("FORMATS").is_some_and(|value| value == "write");
    if wants && !golden::path(name).exists() {
        fs::write(golden::path(name), &fresh).unwrap();
    }
    let kept = golden::read(name);
    assert_eq!(
        without_chance(&fresh),
        without_chance(&kept),
        "format writes another identity file under the same version: raise SCHEMA in \
         node/src/identity.rs, and go on reading the one before"
    );

    fs::write(&path, &kept).unwrap();
    let loaded = identity::load(&config(&data_dir)).unwrap();
    let public = serde_json::to_value(loaded.public()).unwrap();
    let stored = kept.lines().next().unwrap();
    let stored = serde_json::from_str::<serde_json::Value>(stored).unwrap();
    for field in ["id", "cluster_uuid", "incarnation", "public_key"] {
        assert_eq!(public[field], stored[field], "{field}");
    }
    assert_eq!(loaded.id, NodeId(3));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn starts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("starts");
    fs::write(&path, [0; 2 * 4096]).unwrap();
    let mut former = [0; FORMER_COUNT];
    (former[0], former[1]) = (0xbeef, 0xcafe);
    identity::count_process(directory.path(), &Process { starts: 4, nonce: 0xbeef, former })
        .unwrap();
    let last = Process { starts: 5, nonce: 0xfeed, former };
    identity::count_process(directory.path(), &last).unwrap();
    let today = golden::files([("starts", fs::read(&path).unwrap())]);
    golden::check("starts-2.hex", "STARTS_VERSION in node/src/identity.rs", &today);

    // The first release wrote no version.
    for name in ["starts-1.hex", "starts-2.hex"] {
        fs::write(&path, &golden::read_files(name)[0].1).unwrap();
        let next = identity::next_process(directory.path()).unwrap();
        let former = (next.ancestor(5), next.ancestor(4));
        assert_eq!((next.starts, former), (6, (Some(0xfeed), Some(0xbeef))), "{name}");
        // What follows is of today's version, beside a slot of the one before.
        identity::count_process(directory.path(), &next).unwrap();
        assert_eq!(identity::next_process(directory.path()).unwrap().starts, 7, "{name}");
    }
}

/// What a newer program has left is refused by its file, its version and who reads it.
fn assert_refused_as_newer(error: &impl std::fmt::Display, path: &Path, versions: &str) {
    let error = error.to_string();
    let path = path.display().to_string();
    for words in [&path[..], versions, "nothing was changed", "Start the release that wrote it"] {
        assert!(error.contains(words), "`{words}` is missing: {error}");
    }
}

#[test]
fn tombstones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tombstone");
    membership::write_tombstone(directory.path(), 7).unwrap();
    let today = fs::read_to_string(&path).unwrap();
    golden::check("tombstone-2.txt", "TOMBSTONE in node/src/membership.rs", &today);
    // The first release wrote no version.
    for name in ["tombstone-1.txt", "tombstone-2.txt"] {
        fs::write(&path, golden::read(name)).unwrap();
        let error = membership::refuse_tombstone(directory.path()).unwrap_err().to_string();
        assert!(error.contains("removed by configuration 7. It does not start again"), "{error}");
    }
    let newer = today.replace("version 2", "version 3");
    fs::write(&path, &newer).unwrap();
    let error = membership::refuse_tombstone(directory.path()).unwrap_err();
    assert_refused_as_newer(&error, &path, "version 3, newer than 2");
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn longest_leases() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("longest_lease_us");
    let longest = |lease_us| node::boot::longest_lease_us(directory.path(), lease_us);
    assert_eq!(longest(100_000).unwrap(), 100_000);
    let today = fs::read_to_string(&path).unwrap();
    golden::check("longest_lease_us-2.txt", "LONGEST_LEASE in node/src/boot.rs", &today);
    // The first release wrote no version.
    for name in ["longest_lease_us-1.txt", "longest_lease_us-2.txt"] {
        fs::write(&path, golden::read(name)).unwrap();
        assert_eq!(longest(50_000).unwrap(), 100_000, "{name}");
    }
    let newer = today.replace("version 2", "version 3");
    fs::write(&path, &newer).unwrap();
    assert_refused_as_newer(&longest(200_000).unwrap_err(), &path, "version 3, newer than 2");
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}

/// Keys may be added to what the deployer writes, so these are read, and not compared with what it
/// would write today.
#[test]
fn configuration_files() {
    let text = golden::read("node-1.toml");
    let node = NodeConfig::parse(&text, "node-1.toml").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!((node.schema, node.id, &node.name[..]), (1, 2, "n2"));
    assert_eq!(node.data_dir, Path::new("/var/lib/paxos/n2"));
    assert_eq!(node.listen.peer, "10.0.0.2:7380".parse().unwrap());
    assert_eq!(node.users[0].name, "app");
    assert_eq!(node.behaviour.heartbeat_ms, 20);
    let newer = text.replace("schema = 1", "schema = 2");
    let refused = |error: String, file: &str| {
        for words in [file, "schema = 2 is newer than 1", "start the release that wrote it"] {
            assert!(error.contains(words), "`{words}` is missing: {error}");
        }
    };
    refused(NodeConfig::parse(&newer, "node.toml").unwrap_err().to_string(), "node.toml");

    let text = golden::read("members-1.toml");
    let members = Members::parse(&text, "members-1.toml").unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(members.cluster_uuid, "00112233445566778899aabbccddeeff");
    let ids: Vec<u32> = members.members.iter().map(|member| member.id).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(members.members[2].peer, "10.0.0.3:7380");
    assert_eq!(members.members[2].role, config::Role::Learner);
    // The first files said no schema; the next ones are refused by theirs.
    assert!(!text.contains("schema") && members.schema == 1);
    let newer = members.to_toml().replace("schema = 1", "schema = 2");
    refused(Members::parse(&newer, "members.toml").unwrap_err().to_string(), "members.toml");
    let again = Members::parse(&members.to_toml(), "written today");
    assert_eq!(again.unwrap_or_else(|found| panic!("{found}")), members);
}
