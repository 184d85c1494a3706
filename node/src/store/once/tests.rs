//! What a session promises (DESIGN §3, exactly once).

use super::*;
use crate::store::{Applying, Loader, Reading, SnapshotStep, Verifier};

fn at(store: &mut Store, slot: u64, time_ms: u64, line: &str) -> Reply {
    let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    store.apply(Applying { slot, time_ms, seed: 0 }, &argv)
}

fn run(store: &mut Store, line: &str) -> Reply {
    at(store, 7, 1_000, line)
}

fn code(reply: &Reply) -> &str {
    reply.error_code().unwrap_or("none")
}

/// What a snapshot makes of it.
fn restored(store: &mut Store) -> Store {
    let head = store.begin_snapshot();
    let (mut loader, mut verifier) = (Loader::new(head, 1), Verifier::new(head, 1));
    while let Some(SnapshotStep::Chunk(chunk)) = store.snapshot_step(1_000) {
        loader.add(&chunk).expect("whole pieces");
        verifier.add(&chunk).expect("whole pieces");
    }
    verifier.finish().expect("what its head promises");
    loader.finish().expect("what its head promises")
}

#[test]
fn a_command_is_carried_out_once_and_its_first_reply_comes_again() {
    let mut store = Store::new();
    assert_eq!(run(&mut store, "ONCE OPEN"), Reply::Integer(7));
    assert_eq!(run(&mut store, "ONCE 7 1 INCR n"), Reply::Integer(1));
    assert_eq!(run(&mut store, "ONCE 7 2 INCR n"), Reply::Integer(2));
    for line in ["ONCE 7 1 INCR n", "ONCE 7 2 INCR n", "ONCE 7 1 INCR n"] {
        let number = line.as_bytes()[7] - b'0';
        assert_eq!(run(&mut store, line), Reply::Integer(number.into()));
    }
    let read = store.read(Reading { clock_ms: 1_000, seed: 0 }, &[b"GET", b"n"]);
    assert_eq!(read, Ok(Reply::bulk("2")));
    // Other replies, an error among them, come again as they were.
    for (number, command) in
        ["SET s x", "INCR s", "SET s y GET", "SET s z NX", "DEL s", "SETNX s q"].iter().enumerate()
    {
        let line = format!("ONCE 7 {} {command}", number + 3);
        let first = run(&mut store, &line);
        assert_eq!(run(&mut store, &line), first, "{line}");
        assert_eq!(run(&mut restored(&mut store), &line), first, "{line}, after a snapshot");
    }
}

/// 109: what was done, what was not, and what nobody knows, are three errors.
#[test]
fn numbers_tell_done_from_not_done() {
    let mut store = Store::new();
    run(&mut store, "ONCE OPEN");
    for number in 1..=70 {
        run(&mut store, &format!("ONCE 7 {number} INCR n"));
    }
    assert_eq!(run(&mut store, "ONCE 7 7 INCR n"), Reply::Integer(7), "the 64th last");
    assert_eq!(code(&run(&mut store, "ONCE 7 6 INCR n")), "ONCEDONE");
    assert_eq!(code(&run(&mut store, "ONCE 7 72 INCR n")), "ONCEGAP");
    assert_eq!(run(&mut store, "ONCE 7 71 INCR n"), Reply::Integer(71), "the hole is filled");
    assert_eq!(code(&run(&mut store, "ONCE 8 1 INCR n")), "ONCEEXPIRED");
    assert_eq!(code(&run(&mut store, "ONCE 7 71 INCR m")), "ONCEOTHER");
    assert_eq!(run(&mut store, "ONCE 7 72 INCR n"), Reply::Integer(72));
}

#[test]
fn nonsense_takes_no_number() {
    let mut store = Store::new();
    run(&mut store, "ONCE OPEN");
    for line in [
        "ONCE",
        "ONCE x",
        "ONCE 7 1",
        "ONCE x 1 INCR n",
        "ONCE 7 0 INCR n",
        "ONCE 7 -1 INCR n",
        "ONCE 7 1 NOSUCH",
        "ONCE 7 1 INCR",
        "ONCE 7 1 GET n",
        "ONCE 7 1 MULTI",
        "ONCE 7 1 EXEC",
        "ONCE 7 1 ONCE OPEN",
        "ONCE 7 1 SET k v FOO",
        "ONCE 7 1 PING",
    ] {
        assert_eq!(code(&run(&mut store, line)), "ERR", "{line}");
    }
    assert_eq!(run(&mut store, "ONCE 7 1 INCR n"), Reply::Integer(1));
}

#[test]
fn ids_are_slots_and_never_used_again() {
    let mut store = Store::new();
    assert_eq!(at(&mut store, 5, 1, "ONCE OPEN"), Reply::Integer(5));
    assert_eq!(at(&mut store, 5, 1, "ONCE OPEN"), Reply::Integer(6), "two in one slot");
    assert_eq!(at(&mut store, 6, 1, "ONCE OPEN"), Reply::Integer(7));
    // All of them expire; a store that comes from a snapshot does not begin anew either.
    store.mark_time(Applying { slot: 6, time_ms: 1 + IDLE_MS_MAX, seed: 0 });
    assert_eq!(store.sessions.len(), 0);
    assert_eq!(at(&mut restored(&mut store), 6, 1, "ONCE OPEN"), Reply::Integer(8));
}

#[test]
fn sessions_expire_by_the_time_of_the_log_if_they_are_not_used() {
    let mut store = Store::new();
    run(&mut store, "ONCE OPEN");
    run(&mut store, "ONCE 7 1 INCR n");
    let used_ms = 1_000 + IDLE_MS_MAX - 1;
    assert_eq!(at(&mut store, 8, used_ms, "ONCE 7 1 INCR n"), Reply::Integer(1));
    assert_eq!(at(&mut store, 8, used_ms + IDLE_MS_MAX - 1, "ONCE 7 2 INCR n"), Reply::Integer(2));
    let late_ms = used_ms + 2 * IDLE_MS_MAX;
    assert_eq!(code(&at(&mut store, 9, late_ms, "ONCE 7 2 INCR n")), "ONCEEXPIRED");
    let read = store.read(Reading { clock_ms: late_ms, seed: 0 }, &[b"GET", b"n"]);
    assert_eq!(read, Ok(Reply::bulk("2")));
}

#[test]
fn sessions_and_replies_are_bounded() {
    let mut store = Store::new();
    for slot in 1..=SESSIONS_MAX as u64 {
        assert_eq!(at(&mut store, slot, slot, "ONCE OPEN"), Reply::Integer(slot as i64));
    }
    assert_eq!(code(&at(&mut store, 5_000, 5_000, "ONCE OPEN")), "ONCEFULL");
    let later_ms = 1 + IDLE_MS_EVICTED;
    assert_eq!(at(&mut store, 5_001, later_ms, "ONCE OPEN"), Reply::Integer(5_001));
    assert_eq!(code(&at(&mut store, 5_002, later_ms, "ONCE 1 1 INCR n")), "ONCEEXPIRED");
    assert_eq!(store.sessions.len(), SESSIONS_MAX);

    let long = "x".repeat(REPLY_BYTES_MAX / 3);
    at(&mut store, 5_003, later_ms, &format!("SET k {long}"));
    for number in 1..=10 {
        at(&mut store, 5_004, later_ms, &format!("ONCE 9 {number} SET k {long} GET"));
        assert!(store.sessions.by_id[&9].bytes() <= REPLY_BYTES_MAX);
    }
    assert_eq!(
        at(&mut store, 5_004, later_ms, &format!("ONCE 9 10 SET k {long} GET")),
        Reply::bulk(&long)
    );
    let forgotten = at(&mut store, 5_004, later_ms, &format!("ONCE 9 5 SET k {long} GET"));
    assert_eq!(code(&forgotten), "ONCEDONE");
    assert_eq!(store.state_hash(), store.recompute_state_hash());
}

/// `FLUSHALL` empties the store, not the memory of what was done.
#[test]
fn a_flush_forgets_no_session() {
    let mut store = Store::new();
    run(&mut store, "ONCE OPEN");
    run(&mut store, "ONCE 7 1 INCR n");
    run(&mut store, "FLUSHALL");
    assert_eq!(run(&mut store, "ONCE 7 1 INCR n"), Reply::Integer(1));
    assert_eq!(store.len(), 0, "it was not carried out again");
}
