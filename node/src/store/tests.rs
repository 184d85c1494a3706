//! Properties of the store as a whole; what single commands answer is compared with Redis in
//! `tests/redis_equivalence`.

use super::hash_slot::{PART_RECORDS_MAX, work};
use super::*;
use crate::resp::Reply;

fn apply(store: &mut Store, time_ms: u64, words: &[&str]) -> Reply {
    let argv: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    store.apply(Applying { slot: 1, time_ms, seed: 0 }, &argv)
}

fn mark_time(store: &mut Store, time_ms: u64) {
    store.mark_time(Applying { slot: 1, time_ms, seed: 0 });
}

fn read(store: &Store, clock_ms: u64, words: &[&str]) -> Result<Reply, PastDeadline> {
    let argv: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    store.read(Reading { clock_ms, seed: 1 }, &argv)
}

fn snapshot(store: &mut Store, meanwhile: impl FnMut(&mut Store)) -> (SnapshotHead, Vec<Vec<u8>>) {
    snapshot_in_steps(store, 1000, meanwhile)
}

fn snapshot_in_steps(
    store: &mut Store,
    step_bytes: usize,
    mut meanwhile: impl FnMut(&mut Store),
) -> (SnapshotHead, Vec<Vec<u8>>) {
    let mut chunks = Vec::new();
    let head = store.begin_snapshot();
    loop {
        match store.snapshot_step(step_bytes).expect("a snapshot is being made") {
            SnapshotStep::Chunk(chunk) => chunks.push(chunk),
            SnapshotStep::Done => return (head, chunks),
        }
        meanwhile(store);
    }
}

fn load(head: SnapshotHead, chunks: &[Vec<u8>]) -> Result<Store, LoadError> {
    let mut loader = Loader::new(head, 1);
    for chunk in chunks {
        loader.add(chunk)?;
    }
    loader.finish()
}

#[test]
fn equal_states_have_equal_hashes_whatever_the_way_there() {
    let mut one = Store::new();
    apply(&mut one, 5, &["SET", "a", "1"]);
    apply(&mut one, 5, &["SET", "b", "2", "PXAT", "500"]);
    let mut other = Store::new();
    apply(&mut other, 1, &["SET", "b", "x"]);
    apply(&mut other, 2, &["SET", "c", "gone"]);
    apply(&mut other, 3, &["INCR", "a"]);
    apply(&mut other, 4, &["DEL", "c"]);
    apply(&mut other, 4, &["SET", "b", "2"]);
    assert_ne!(one.state_hash(), other.state_hash());
    apply(&mut other, 5, &["PEXPIREAT", "b", "500"]);
    assert_ne!(one.state_hash(), other.state_hash(), "when a key was touched is part of the state");
    apply(&mut one, 5, &["SETNX", "c", "x"]);
    apply(&mut one, 5, &["DEL", "c"]);
    assert_eq!(one.state_hash(), other.state_hash());
    assert_eq!(one.state_hash(), one.recompute_state_hash());
}

#[test]
fn time_of_the_log_expires_and_the_clock_only_asks() {
    let mut store = Store::new();
    apply(&mut store, 100, &["SET", "k", "v", "PX", "50"]);
    assert_eq!(store.next_deadline_ms(), Some(150));
    assert_eq!(read(&store, 149, &["PTTL", "k"]), Ok(Reply::Integer(1)));
    let hash = store.state_hash();
    for command in [&["GET", "k"][..], &["DBSIZE"], &["KEYS", "*"], &["SCAN", "0"], &["RANDOMKEY"]]
    {
        assert_eq!(
            read(&store, 150, command),
            Err(PastDeadline { deadline_ms: 150 }),
            "{command:?}"
        );
    }
    // 84: a read past the deadline changes nothing.
    assert_eq!(store.state_hash(), hash);
    mark_time(&mut store, 150);
    assert_eq!(read(&store, 150, &["GET", "k"]), Ok(Reply::Null));
    assert_eq!((store.len(), store.next_deadline_ms()), (0, None));
    // Time never goes back.
    apply(&mut store, 10, &["SET", "k", "v"]);
    assert_eq!(store.time_ms(), 150);
}

#[test]
fn many_keys_that_expire_at_once_go_in_slices() {
    let mut store = Store::new();
    for index in 0..10_000 {
        apply(&mut store, 1, &["SET", &format!("k{index}"), "v", "PXAT", "1000"]);
    }
    mark_time(&mut store, 1000);
    assert!(store.len() > 5_000, "one mark does not remove all");
    // Gone all the same, for every reader and every writer.
    assert_eq!(read(&store, 1000, &["KEYS", "*"]), Ok(Reply::Array(vec![])));
    assert_eq!(read(&store, 1000, &["RANDOMKEY"]), Ok(Reply::Null));
    for index in 0..10_000 {
        assert_eq!(read(&store, 1000, &["EXISTS", &format!("k{index}")]), Ok(Reply::Integer(0)));
    }
    assert_eq!(apply(&mut store, 1000, &["GETDEL", "k77"]), Reply::Null);
    let mut marks = 0;
    while store.next_deadline_ms().is_some() {
        mark_time(&mut store, 1000);
        marks += 1;
        assert!(marks < 100);
    }
    assert_eq!(store.len(), 0);
    assert_eq!(store.state_hash(), store.recompute_state_hash());
}

#[test]
fn a_snapshot_is_the_moment_it_began() {
    let mut store = Store::new();
    for index in 0..3_000 {
        apply(&mut store, 1, &["SET", &format!("k{index}"), &format!("v{index}")]);
    }
    let mut round = 0;
    let (head, chunks) = snapshot(&mut store, |store| {
        round += 1;
        apply(store, 2, &["SET", &format!("k{}", round * 7 % 3_000), "changed"]);
        apply(store, 2, &["DEL", &format!("k{}", round * 13 % 3_000)]);
        apply(store, 2, &["EXPIRE", &format!("k{}", round * 17 % 3_000), "100"]);
        apply(store, 2, &["SET", &format!("new{round}"), "v"]);
        apply(store, 2, &["RENAME", &format!("k{}", round * 19 % 3_000), "renamed"]);
        if round == 40 {
            apply(store, 2, &["FLUSHALL"]);
        }
    });
    assert!(round > 60, "only {round} rounds: the snapshot was not disturbed");
    let loaded = load(head, &chunks).unwrap();
    assert_eq!(loaded.len(), 3_000);
    assert_eq!(loaded.time_ms(), 1);
    assert_eq!(read(&loaded, 1, &["GET", "k13"]), Ok(Reply::bulk("v13")));
    assert_eq!(store.state_hash(), store.recompute_state_hash());
    assert!(!store.is_snapshotting());
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let mut store = Store::new();
    apply(&mut store, 1, &["SET", "a", "1"]);
    apply(&mut store, 1, &["SET", "b", "2", "EX", "10"]);
    let (head, chunks) = snapshot(&mut store, |_| {});
    assert_eq!(SnapshotHead::decode(&head.encode()), Ok(head));
    let bytes: Vec<u8> = chunks.concat();
    assert!(load(head, std::slice::from_ref(&bytes)).is_ok());
    for index in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[index] ^= 1;
        assert!(load(head, &[damaged]).is_err(), "byte {index}");
        assert!(load(head, &[bytes[..index].to_vec()]).is_err(), "cut at {index}");
    }
    assert!(SnapshotHead::decode(&[9; 33]).is_err());
    assert!(SnapshotHead::decode(&[1; 32]).is_err());
}

/// The version is part of the state, but for the first one: the programs that knew no other hash a
/// state of it the same way.
#[test]
fn a_state_is_of_a_version() {
    let mut store = Store::new();
    apply(&mut store, 1, &["SET", "a", "1"]);
    let first = store.state_hash();
    store.rule(0);
    assert_eq!((store.version(), store.state_hash()), (1, first));
    assert!(!snapshot(&mut store, |_| {}).0.hashes_version);
    store.rule(2);
    assert_ne!(store.state_hash(), first);
    assert_eq!(store.recompute_state_hash(), store.state_hash());

    let (head, chunks) = snapshot(&mut store, |_| {});
    assert_eq!(SnapshotHead::decode(&head.encode()), Ok(head));
    for version in 0..4 {
        let (mut loader, mut verifier) = (Loader::new(head, version), Verifier::new(head, version));
        for chunk in &chunks {
            loader.add(chunk).unwrap();
            verifier.add(chunk).unwrap();
        }
        assert_eq!(verifier.finish().is_ok(), version == 2, "version {version}");
        match loader.finish() {
            Ok(loaded) => assert_eq!((loaded.version(), version), (2, 2)),
            Err(LoadError::StateHash { .. }) => assert_ne!(version, 2),
            Err(other) => panic!("version {version}: {other}"),
        }
    }
}

#[test]
fn keys_in_slices_are_the_keys() {
    let mut store = Store::new();
    for index in 0..3_000 {
        apply(&mut store, 1, &["SET", &format!("k{index}"), "v"]);
    }
    let reading = Reading { clock_ms: 1, seed: 0 };
    let mut search = store.begin_search(reading, b"k1*").unwrap();
    let mut slices = 0;
    let reply = loop {
        slices += 1;
        // Meanwhile keys come and go; those that stay are found all the same.
        apply(&mut store, 1, &["SET", &format!("other{slices}"), "v"]);
        apply(&mut store, 1, &["DEL", &format!("k2{slices}")]);
        if let Some(reply) = store.search_on(&mut search, 100) {
            break reply;
        }
    };
    assert!(slices >= 20, "{slices} slices");
    assert_eq!(Ok(reply), read(&store, 1, &["KEYS", "k1*"]));
}

/// 66, 42
#[test]
fn values_grow_to_a_limit() {
    let mut store = Store::new();
    apply(&mut store, 1, &["SET", "k", "12345"]);
    let admitted = |store: &Store, words: &[&str]| {
        let argv: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let spec = crate::command::check(&argv).unwrap();
        match crate::command::parse(spec, &argv).unwrap() {
            crate::command::Operation::Write(write) => store.admit(&write, 10).is_ok(),
            other => panic!("{other:?}"),
        }
    };
    assert!(admitted(&store, &["APPEND", "k", "67890"]));
    assert!(!admitted(&store, &["APPEND", "k", "678901"]));
    assert!(admitted(&store, &["APPEND", "new", "0123456789"]));
    assert!(admitted(&store, &["SETRANGE", "k", "9", "x"]));
    assert!(!admitted(&store, &["SETRANGE", "k", "10", "x"]));
    assert!(admitted(&store, &["SETRANGE", "k", "9223372036854775807", "x"]), "apply refuses it");
    assert!(admitted(&store, &["SETRANGE", "k", "10", ""]), "nothing grows");
    assert!(admitted(&store, &["SET", "k", "longer than ten"]));
}

#[test]
fn a_scan_meets_every_key_that_stays() {
    let mut store = Store::new();
    for index in 0..2_000 {
        apply(&mut store, 1, &["SET", &format!("k{index}"), "v"]);
        // All of these in one hash slot, more than one step takes.
        apply(&mut store, 1, &["SET", &format!("{{t}}{index}"), "v"]);
    }
    let mut cursor = "0".to_owned();
    let mut seen = std::collections::BTreeMap::<Vec<u8>, u32>::new();
    let mut steps = 0;
    loop {
        let Ok(Reply::Array(parts)) = read(&store, 1, &["SCAN", &cursor, "COUNT", "50"]) else {
            panic!("SCAN answers with an array");
        };
        let [Reply::Bulk(next), Reply::Array(keys)] = &parts[..] else { panic!("{parts:?}") };
        for key in keys {
            let Reply::Bulk(key) = key else { panic!("{key:?}") };
            *seen.entry(key.to_vec()).or_default() += 1;
        }
        cursor = String::from_utf8(next.to_vec()).unwrap();
        assert!(cursor.parse::<u64>().unwrap() < 1 << 53, "a double must hold the cursor");
        if cursor == "0" {
            break;
        }
        apply(&mut store, 1, &["SET", &format!("{{t}}extra{steps}"), "v"]);
        apply(&mut store, 1, &["DEL", &format!("{{t}}extra{}", steps / 2)]);
        steps += 1;
    }
    for index in 0..2_000 {
        assert_eq!(seen.get(format!("k{index}").as_bytes()), Some(&1));
        assert_eq!(seen.get(format!("{{t}}{index}").as_bytes()), Some(&1));
    }
}

/// A change right at the walker's feet: in the slot just visited, and in the one that is next.
#[test]
fn a_snapshot_has_each_record_once_around_the_walker() {
    let key_of = |slot: u16| {
        let mut keys = (0..).map(|index| format!("k{index}"));
        keys.find(|key| crate::command::hash_slot(key.as_bytes()) == slot).expect("some key")
    };
    for change in ["SET", "APPEND", "DEL", "PERSIST", "FLUSHALL"] {
        let mut store = Store::new();
        let keys: Vec<String> = (250..262).chain(510..514).map(key_of).collect();
        for key in &keys {
            apply(&mut store, 1, &["SET", key, "old", "EX", "1000"]);
        }
        let mut changed = false;
        let (head, chunks) = snapshot(&mut store, |store| {
            for key in keys.iter().filter(|_| !changed) {
                match change {
                    "FLUSHALL" => apply(store, 2, &[change]),
                    "DEL" | "PERSIST" => apply(store, 2, &[change, key]),
                    _ => apply(store, 2, &[change, key, "new"]),
                };
            }
            changed = true;
        });
        let loaded = load(head, &chunks).unwrap_or_else(|error| panic!("{change}: {error}"));
        for key in &keys {
            assert_eq!(read(&loaded, 1, &["GET", key]), Ok(Reply::bulk("old")), "{change} {key}");
        }
    }
}

/// What changes push out during a snapshot is cut between records, however much it is at once
/// (PITFALLS 6, 7): a file of pieces that end inside a record would be named, trusted and unreadable.
#[test]
fn a_snapshot_is_cut_between_records() {
    let mut store = Store::new();
    let big = "x".repeat(700_000);
    let keys: Vec<String> = (0..40).map(|index| format!("big{index}")).collect();
    for key in &keys {
        apply(&mut store, 1, &["SET", key, &big]);
    }
    apply(&mut store, 1, &["SET", "huge", &"y".repeat(3 << 20)]);
    let mut gone = false;
    let (head, chunks) = snapshot(&mut store, |store| {
        if !std::mem::replace(&mut gone, true) {
            let mut command = vec!["DEL", "huge"];
            command.extend(keys.iter().map(String::as_str));
            apply(store, 2, &command);
        }
    });
    let mut verifier = Verifier::new(head, 1);
    for chunk in &chunks {
        assert!(chunk.len() <= (3 << 20) + 100, "a chunk of {} bytes", chunk.len());
        verifier.add(chunk).expect("each chunk holds whole records");
    }
    verifier.finish().expect("all of them are what the head promised");
    assert!(chunks.len() >= 25, "{} chunks of about a mebibyte", chunks.len());
    let loaded = load(head, &chunks).expect("it loads");
    assert_eq!(loaded.len(), keys.len() + 1);
    assert!(verify_tampered(head, &chunks), "a verifier that accepts anything proves nothing");
}

/// Is a changed byte, and a missing chunk, noticed?
fn verify_tampered(head: SnapshotHead, chunks: &[Vec<u8>]) -> bool {
    let refused = |chunks: &[Vec<u8>]| {
        let mut verifier = Verifier::new(head, 1);
        chunks.iter().any(|chunk| verifier.add(chunk).is_err()) || verifier.finish().is_err()
    };
    let chunks: Vec<Vec<u8>> = chunks.iter().filter(|chunk| !chunk.is_empty()).cloned().collect();
    let mut flipped = chunks.clone();
    *flipped[0].last_mut().expect("it is not empty") ^= 1;
    refused(&flipped) && refused(&chunks[1..])
}

/// Compare and set, compare and delete: one step each.
#[test]
fn values_are_compared_and_changed_in_one_step() {
    let (ok, nil, deleted, kept) = (Reply::OK, Reply::Null, Reply::Integer(1), Reply::Integer(0));
    let value = |value: &str| Reply::bulk(value);
    // Each from `k` = `v`.
    let cases: [(&str, Reply, Option<&str>); 16] = [
        ("SET k w IFEQ v", ok.clone(), Some("w")),
        ("SET k w IFEQ x", nil.clone(), Some("v")),
        ("SET k w ifeq v GET", value("v"), Some("w")),
        ("SET k w IFEQ x GET", value("v"), Some("v")),
        ("SET j w IFEQ v", nil.clone(), None),
        ("SET k w IFNE x", ok.clone(), Some("w")),
        ("SET k w IFNE v", nil.clone(), Some("v")),
        ("SET j w IFNE v", ok, Some("w")),
        ("DELIFEQ k v", deleted.clone(), None),
        ("DELIFEQ k x", kept.clone(), Some("v")),
        ("DELIFEQ j v", kept.clone(), None),
        ("DELEX k", deleted.clone(), None),
        ("DELEX k IFEQ v", deleted.clone(), None),
        ("DELEX k IFEQ x", kept.clone(), Some("v")),
        ("DELEX k IFNE x", deleted, None),
        ("DELEX k IFNE v", kept, Some("v")),
    ];
    for (line, reply, left) in cases {
        let words: Vec<&str> = line.split(' ').collect();
        let mut store = Store::new();
        apply(&mut store, 1, &["SET", "k", "v"]);
        assert_eq!(apply(&mut store, 1, &words), reply, "{line}");
        let left = left.map_or(nil.clone(), value);
        assert_eq!(read(&store, 1, &["GET", words[1]]), Ok(left), "{line}");
    }
    let mut store = Store::new();
    for line in
        ["SET k v IFEQ", "SET k v NX IFEQ a", "SET k v IFEQ a XX", "DELEX k FOO a", "DELEX k a"]
    {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(apply(&mut store, 1, &words).is_error(), "{line}");
    }
}

/// Keys with one tag are in one hash slot. However many there are, nothing goes through all of them
/// in one turn: not what looks for keys, not a snapshot, and not a write that makes the slot grow.
#[test]
fn a_slot_of_many_keys_stops_nobody() {
    const KEYS: usize = 200_000;
    // What one turn may ask for, and the part at either end of it.
    const ASKED: usize = 1_000;
    const WALKED_MAX: usize = 8_192 + PART_RECORDS_MAX;
    const TURN_MAX: usize = ASKED + 2 * PART_RECORDS_MAX;
    let key = |index: usize| format!("{{a}}{index}");
    let mut store = Store::new();
    work::take();
    let longest = |most: &mut usize| *most = (*most).max(work::take());
    let mut growth = 0;
    for index in 0..KEYS {
        apply(&mut store, 1, &["SET", &key(index), "old"]);
        longest(&mut growth);
    }
    assert!(growth <= 2 * PART_RECORDS_MAX, "a write moved {growth} records");

    let (mut cursor, mut scan, mut seen) = ("0".to_owned(), 0, std::collections::BTreeSet::new());
    loop {
        let command = ["SCAN", &cursor, "COUNT", &ASKED.to_string()];
        let Ok(Reply::Array(parts)) = read(&store, 1, &command) else { panic!("SCAN") };
        longest(&mut scan);
        let [Reply::Bulk(next), Reply::Array(keys)] = &parts[..] else { panic!("{parts:?}") };
        for key in keys {
            let Reply::Bulk(key) = key else { panic!("{key:?}") };
            assert!(seen.insert(key.to_vec()), "{key:?} twice");
        }
        cursor = String::from_utf8(next.to_vec()).unwrap();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), KEYS);
    assert!(scan <= TURN_MAX, "a step of SCAN looked at {scan} records");

    let reading = Reading { clock_ms: 1, seed: 0 };
    let mut search = store.begin_search(reading, b"*").unwrap();
    let mut keys = 0;
    let reply = loop {
        let reply = store.search_on(&mut search, ASKED);
        longest(&mut keys);
        if let Some(reply) = reply {
            break reply;
        }
    };
    let Reply::Array(found) = reply else { panic!("{reply:?}") };
    assert_eq!(found.len(), KEYS);
    assert!(keys <= TURN_MAX, "a slice of KEYS looked at {keys} records");

    for command in [&["RANDOMKEY"][..], &["CLUSTER", "GETKEYSINSLOT", "15495", "10"]] {
        assert!(!matches!(read(&store, 1, command), Ok(Reply::Null | Reply::Error(_))));
        let looked_at = work::take();
        assert!(looked_at <= 2 * PART_RECORDS_MAX, "{command:?} looked at {looked_at} records");
    }

    // Meanwhile many are overwritten, removed and added: parts are split and joined at the walker's
    // feet, and of most records that it meets later none is old.
    let (mut walk, mut round) = (0, 0);
    work::take();
    let (head, chunks) = snapshot_in_steps(&mut store, 16 << 10, |store| {
        longest(&mut walk);
        for index in (round * 2_000..).take(2_000) {
            apply(store, 2, &["SET", &key(index % KEYS), "new"]);
            apply(store, 2, &["DEL", &key((index + KEYS / 2) % KEYS)]);
            apply(store, 2, &["SET", &format!("{{a}}more{index}"), "new"]);
        }
        round += 1;
        work::take();
    });
    assert!(round > 20, "only {round} rounds: the snapshot was not disturbed");
    assert!(walk <= WALKED_MAX, "a step of the snapshot looked at {walk} records");
    let loaded = load(head, &chunks).expect("it is the moment when it began");
    assert_eq!(loaded.len(), KEYS);
    assert_eq!(read(&loaded, 1, &["GET", &key(KEYS - 1)]), Ok(Reply::bulk("old")));
    assert_eq!(store.state_hash(), store.recompute_state_hash());

    apply(&mut store, 3, &["FLUSHALL"]);
    work::take();
    let mut turn = 0;
    loop {
        let more = store.reclaim(ASKED);
        longest(&mut turn);
        if !more {
            break;
        }
    }
    assert!(turn <= TURN_MAX, "{turn} records were given back in one turn");
}

/// Parts that are split and joined lose nothing and repeat nothing; what the store says of its keys
/// depends on the keys alone, not on how they came to be there.
#[test]
fn the_order_of_keys_is_that_of_no_history() {
    let mut grown = Store::new();
    for index in 0..20_000 {
        apply(&mut grown, 1, &["SET", &format!("{{a}}{index}"), "v"]);
    }
    // Down to nothing in some places and to a few in others.
    for index in 300..20_000 {
        apply(&mut grown, 1, &["DEL", &format!("{{a}}{index}")]);
    }
    let mut small = Store::new();
    for index in (0..300).rev() {
        apply(&mut small, 1, &["SET", &format!("{{a}}{index}"), "v"]);
    }
    assert_eq!(grown.len(), small.len());
    for seed in 0..200 {
        for command in
            [&["RANDOMKEY"][..], &["KEYS", "*"], &["CLUSTER", "GETKEYSINSLOT", "15495", "7"]]
        {
            let answer = |store: &Store| {
                let argv: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
                store.read(Reading { clock_ms: 1, seed }, &argv)
            };
            assert_eq!(answer(&grown), answer(&small), "{command:?} with seed {seed}");
        }
    }
    for index in (0..300).rev() {
        let key = format!("{{a}}{index}");
        assert_eq!(read(&grown, 1, &["GET", &key]), Ok(Reply::bulk("v")));
        assert_eq!(apply(&mut grown, 1, &["DEL", &key]), Reply::Integer(1));
    }
    assert_eq!((grown.len(), read(&grown, 1, &["KEYS", "*"])), (0, Ok(Reply::Array(vec![]))));
    assert_eq!(grown.state_hash(), grown.recompute_state_hash());
}

/// What a million keys of one tag cost, and what single keys cost; `make` it in a release build:
/// `cargo test --release -p node --lib -- --ignored --nocapture figures_of_one_slot`. The figures are
/// printed, and what is asserted is that all of it happened.
#[test]
#[ignore = "a measure"]
fn figures_of_one_slot() {
    use std::time::{Duration, Instant};
    const KEYS: usize = 1_000_000;
    let timed = |most: &mut Duration, began: Instant| *most = (*most).max(began.elapsed());
    for tag in ["{a}", ""] {
        let name = if tag.is_empty() { "all slots" } else { "one slot" };
        let value = "v".repeat(100);
        let keys: Vec<String> = (0..KEYS).map(|index| format!("{tag}key:{index:08}")).collect();
        let mut store = Store::new();
        let [mut growth, mut scan, mut search_turn, mut walk] = [Duration::ZERO; 4];
        let began = Instant::now();
        for key in &keys {
            let began = Instant::now();
            apply(&mut store, 1, &["SET", key, &value]);
            timed(&mut growth, began);
        }
        let inserted = began.elapsed();
        let order = |index: usize| &keys[index * 7_919 % KEYS];
        let began = Instant::now();
        for index in 0..KEYS {
            apply(&mut store, 1, &["SET", order(index), &value]);
        }
        let overwritten = began.elapsed();
        let began = Instant::now();
        for index in 0..KEYS {
            assert_ne!(read(&store, 1, &["GET", order(index)]), Ok(Reply::Null));
        }
        let got = began.elapsed();
        let mut cursor = "0".to_owned();
        loop {
            let began = Instant::now();
            let reply = read(&store, 1, &["SCAN", &cursor]);
            timed(&mut scan, began);
            let Ok(Reply::Array(parts)) = reply else { panic!("SCAN") };
            let Reply::Bulk(next) = &parts[0] else { panic!("{parts:?}") };
            cursor = String::from_utf8(next.to_vec()).unwrap();
            // Enough to know; before there were parts, each step took as long as all of them.
            if cursor == "0" || scan > Duration::from_millis(20) {
                break;
            }
        }
        let reading = Reading { clock_ms: 1, seed: 0 };
        let mut search = store.begin_search(reading, b"*:00*").unwrap();
        let mut is_through = false;
        while !is_through {
            let began = Instant::now();
            is_through = store.search_on(&mut search, 4096).is_some();
            timed(&mut search_turn, began);
        }
        store.begin_snapshot();
        let walked = Instant::now();
        loop {
            let began = Instant::now();
            let step = store.snapshot_step(512 << 10);
            timed(&mut walk, began);
            if step == Some(SnapshotStep::Done) {
                break;
            }
        }
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let per_second = |duration: Duration| KEYS as f64 / duration.as_secs_f64() / 1e3;
        println!(
            "{name}, {KEYS} keys: longest turn in ms: growth {:.2}, SCAN {:.2}, KEYS {:.2}, \
             snapshot {:.2} (all of it {:.0}); thousands a second: new keys {:.0}, SET {:.0}, GET {:.0}",
            ms(growth),
            ms(scan),
            ms(search_turn),
            ms(walk),
            ms(walked.elapsed()),
            per_second(inserted),
            per_second(overwritten),
            per_second(got),
        );
    }
}
