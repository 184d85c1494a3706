//! Random logs: nothing in one may stop a node, and all who apply it must come to the same state.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::command::{Class, table};
use crate::resp::{Protocol, Reply};

/// One entry: its slot, its time and one command.
struct Entry {
    slot: u64,
    time_ms: u64,
    argv: Vec<Vec<u8>>,
}

/// Any command of the table or none, with arguments that are words of the language, numbers at
/// the edges, keys or plain noise; with the right number of them more often than not.
fn entry(random: &mut SmallRng, slot: u64, time_ms: &mut u64) -> Entry {
    *time_ms += random.random_range(0..3) * random.random_range(0..40);
    // Stamps may lag behind the time that was reached already.
    let stamp_ms = time_ms.saturating_sub(random.random_range(0..2) * 30);
    let spec = &table::COMMANDS[random.random_range(0..table::COMMANDS.len())];
    let mut argv = vec![spec.name.as_bytes().to_vec()];
    let least = spec.arity.unsigned_abs() as usize;
    let count = if random.random_ratio(4, 5) { least } else { random.random_range(1..8) };
    while argv.len() < count {
        argv.push(argument(random));
    }
    if spec.class == Class::Write && spec.arity < 0 {
        for _ in 0..random.random_range(0..3) {
            argv.push(argument(random));
        }
    }
    if random.random_ratio(1, 100) {
        argv[0] = argument(random);
    }
    if random.random_ratio(1, 8) {
        argv = special(random, slot, argv);
    }
    Entry { slot, time_ms: stamp_ms, argv }
}

/// A command of a session, or a transaction; with nonsense in it now and then.
fn special(random: &mut SmallRng, slot: u64, argv: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    // Reads of all keys come in an order of their own.
    let words: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
    let in_order = match crate::command::check(&words) {
        Ok(spec) => spec.class == Class::Write,
        Err(_) => true,
    };
    let argv = if in_order { argv } else { vec![b"INCR".to_vec(), b"k1".to_vec()] };
    let text = |number: u64| number.to_string().into_bytes();
    match random.random_range(0..6) {
        0 => vec![b"ONCE".to_vec(), b"OPEN".to_vec()],
        1 | 2 => {
            let (session, number) = (random.random_range(0..=slot), random.random_range(1..4));
            [vec![b"ONCE".to_vec(), text(session), text(number)], argv].concat()
        }
        _ => {
            let watched = random.random_range(slot.saturating_sub(20)..=slot);
            let watch = Watch { key: format!("k{}", random.random_range(0..12)), slot: watched };
            let other = vec![b"GET".to_vec(), argument(random)];
            let mut log = Transaction::write(&[watch], &[argv, other, vec![b"DBSIZE".to_vec()]]);
            if random.random_ratio(1, 10) {
                let place = random.random_range(0..log.len());
                log[place] = argument(random);
            }
            log
        }
    }
}

fn argument(random: &mut SmallRng) -> Vec<u8> {
    const WORDS: &[&[u8]] = &[
        b"NX",
        b"XX",
        b"GET",
        b"EX",
        b"PX",
        b"EXAT",
        b"PXAT",
        b"KEEPTTL",
        b"PERSIST",
        b"GT",
        b"LT",
        b"REPLACE",
        b"ASYNC",
        b"0",
        b"-1",
        b"3.5",
        b"1e400",
        b"0x1p-9",
        b"9223372036854775807",
        b"-9223372036854775808",
        b"18446744073709551615",
        b"",
        b"\r\n",
        b"\0",
        b"\xff\xfe",
    ];
    match random.random_range(0..10) {
        0..=3 => format!("k{}", random.random_range(0..12)).into_bytes(),
        4..=5 => WORDS[random.random_range(0..WORDS.len())].to_vec(),
        6..=7 => random.random_range(-300..2_000).to_string().into_bytes(),
        8 => (0..random.random_range(0..80)).map(|_| random.random()).collect(),
        _ => format!("{{t}}{}", random.random_range(0..4)).into_bytes(),
    }
}

fn apply(store: &mut Store, entry: &Entry) -> Vec<u8> {
    let argv: Vec<&[u8]> = entry.argv.iter().map(Vec::as_slice).collect();
    let reply = store.apply(applying(entry), &argv);
    reply.to_bytes(Protocol::Resp3)
}

fn applying(entry: &Entry) -> Applying {
    Applying { slot: entry.slot, time_ms: entry.time_ms, seed: entry.slot }
}

/// The store as it comes back from a snapshot that was taken while `entries` were applied to it.
fn through_snapshot(store: &mut Store, entries: &[Entry], replies: &mut Vec<Vec<u8>>) -> Store {
    let mut loader = Loader::new(store.begin_snapshot(), 1);
    let mut entries = entries.iter();
    let step = |store: &mut Store| store.snapshot_step(64).expect("a snapshot is being made");
    while let SnapshotStep::Chunk(chunk) = step(store) {
        loader.add(&chunk).expect("whole records");
        if let Some(entry) = entries.next() {
            replies.push(apply(store, entry));
        }
    }
    for entry in entries {
        replies.push(apply(store, entry));
    }
    loader.finish().expect("the snapshot holds what its head promises")
}

/// 40, 67: no log stops a node, and neither a restart from a snapshot nor the moment at which it
/// was taken makes a difference to any later answer.
#[test]
fn every_node_answers_the_same_log_alike() {
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut time_ms = 1_000;
        let log: Vec<Entry> =
            (1..=600).map(|slot| entry(&mut random, slot, &mut time_ms)).collect();

        let mut straight = Store::new();
        let straight_replies: Vec<_> =
            log.iter().map(|entry| apply(&mut straight, entry)).collect();

        let mut live = Store::new();
        let mut replies = Vec::new();
        let begin = random.random_range(0..300);
        for entry in &log[..begin] {
            replies.push(apply(&mut live, entry));
        }
        let end = begin + random.random_range(0..200);
        let mut restored = through_snapshot(&mut live, &log[begin..end], &mut replies);
        for entry in &log[end..] {
            replies.push(apply(&mut live, entry));
        }
        assert_eq!(replies, straight_replies, "seed {seed}");

        let restored_replies: Vec<_> =
            log[begin..].iter().map(|entry| apply(&mut restored, entry)).collect();
        assert_eq!(restored_replies, straight_replies[begin..], "seed {seed}, restored at {begin}");
        for store in [&live, &restored] {
            assert_eq!(store.state_hash(), straight.state_hash(), "seed {seed}");
            assert_eq!(store.state_hash(), store.recompute_state_hash(), "seed {seed}");
            assert_eq!(store.memory_bytes(), straight.memory_bytes(), "seed {seed}");
            assert_eq!(store.next_deadline_ms(), straight.next_deadline_ms(), "seed {seed}");
        }
    }
}

/// 84: no read, whatever its arguments and its clock, changes anything; and an error of a write
/// has changed nothing but the time.
#[test]
fn reads_and_errors_change_nothing() {
    for seed in 0..20 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut time_ms = 1_000;
        let mut store = Store::new();
        for slot in 1..=500 {
            let entry = entry(&mut random, slot, &mut time_ms);
            store.mark_time(applying(&entry));
            let before = store.state_hash();
            let argv: Vec<&[u8]> = entry.argv.iter().map(Vec::as_slice).collect();
            let clock_ms = entry.time_ms + random.random_range(0..200);
            let _ = store.read(Reading { clock_ms, seed: random.random() }, &argv);
            assert_eq!(store.state_hash(), before, "seed {seed}: a read changed the store");
            let reply = store.apply(applying(&entry), &argv);
            // A session remembers its errors too.
            let in_session = entry.argv[0].eq_ignore_ascii_case(b"once");
            if let Reply::Error(text) = reply
                && !in_session
            {
                assert_eq!(store.state_hash(), before, "seed {seed}: {text} changed the store");
            }
        }
    }
}
