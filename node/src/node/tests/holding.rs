//! For how long a request is held that cannot be taken.

use config::FollowerReads;
use paxos::{Ballot, Message, NodeId, Slot};

use super::Desk;

const HOLD_US: u64 = 1_000_000;

/// A request that stood behind another one has its own time once that one was taken.
#[test]
fn whoever_stood_behind_another_is_held_for_as_long_as_anybody() {
    let mut desk = Desk::new(3);
    desk.node.behaviour.follower_reads = FollowerReads::Stale;
    let session = desk.connect();
    desk.node.clients.get_mut(session).expect("it is there").connection.readonly = true;
    // Nobody leads, and this node was not up to date yet: both wait.
    desk.ask(session, &[b"GET", b"k"]);
    desk.pass(HOLD_US - 200_000);
    desk.ask(session, &[b"SET", b"k", b"1"]);
    let asked_us = desk.now.mono_us;
    desk.node.was_up_to_date = true;
    desk.pass(50_000);
    assert_eq!(desk.read(session), b"$-1\r\n", "the first was taken");
    desk.pass(200_000);
    assert_eq!(desk.read(session), b"", "after {} us", desk.now.mono_us - asked_us);
    desk.pass(asked_us + HOLD_US - desk.now.mono_us);
    let reply = String::from_utf8(desk.read(session)).expect("text");
    assert!(reply.starts_with("-CLUSTERDOWN"), "{reply}");
}

/// A read that was taken by a leader which then lost its ballot is held from its arrival on, not
/// from there.
#[test]
fn what_comes_back_from_a_deposed_leader_does_not_begin_anew() {
    let mut desk = Desk::new(3);
    let ballot = desk.lead_under_a_lease();
    // The lease runs out, and nobody answers the round that the read begins.
    desk.pass(120_000);
    let session = desk.connect();
    desk.ask(session, &[b"GET", b"k"]);
    desk.turn();
    let asked_us = desk.now.mono_us;
    desk.pass(100_000);
    assert!(desk.node.replica.leading().is_some());
    desk.pass(300_000);
    let higher = Ballot { round: ballot.round + 1, node: NodeId(3), ..ballot };
    let (from_slot, holds) = (Slot::FIRST, Vec::new());
    desk.receive(3, Message::Prepare { ballot: higher, from_slot, holds, release: None });
    assert!(desk.node.replica.leading().is_none());
    assert_eq!(desk.read(session), b"");
    desk.pass(asked_us + HOLD_US - desk.now.mono_us);
    let reply = String::from_utf8(desk.read(session)).expect("text");
    assert!(reply.starts_with("-CLUSTERDOWN"), "{reply}");
}
