//! What a connection gets to hear when a slot of its batches goes to another's: nothing that was done
//! stands behind something that was refused (PITFALLS 110).

use paxos::{Ballot, BatchId, Message, NodeId, Slot, Value};

use super::Desk;
use crate::clients::SessionId;

/// A leader that was deposed with two batches of one connection in flight.
struct Deposed {
    desk: Desk,
    session: SessionId,
    higher: Ballot,
    /// What stands in slots 2 and 3.
    proposed: [Value; 2],
}

impl Deposed {
    /// `SET a 1` in slot 2, and what came behind it in slot 3.
    fn with_behind(behind: &[&[u8]]) -> Deposed {
        let mut desk = Desk::new(3);
        let ballot = desk.lead_under_a_lease();
        let session = desk.connect();
        desk.effects.sends.clear();
        for words in [&[&b"SET"[..], b"a", b"1"], behind] {
            desk.ask(session, words);
            desk.turn();
        }
        let proposed = [Slot(2), Slot(3)].map(|of_slot| {
            let mut sends = desk.effects.sends.iter();
            let accept = sends.find_map(|envelope| match &envelope.message {
                Message::Accept { slot, value, .. } if *slot == of_slot => Some(value.clone()),
                _ => None,
            });
            accept.expect("two slots in flight")
        });
        let higher = Ballot { round: ballot.round + 1, node: NodeId(3), ..ballot };
        let (from_slot, holds) = (Slot(2), Vec::new());
        desk.pass(300_000);
        desk.receive(3, Message::Prepare { ballot: higher, from_slot, holds, release: None });
        desk.pass(300_000);
        Deposed { desk, session, higher, proposed }
    }

    fn chosen(&mut self, slot: u64, value: Value) {
        self.desk.receive(3, Message::Chosen { first: Slot(slot), values: vec![value] });
    }

    fn ask(&mut self, words: &[&[u8]]) {
        self.desk.ask(self.session, words);
        self.desk.turn();
    }

    fn replies(&mut self) -> String {
        String::from_utf8(self.desk.read(self.session)).expect("text")
    }

    fn is_closing(&self) -> bool {
        self.desk.node.clients.get(self.session).expect("it is there").closing
    }
}

#[track_caller]
fn assert_all_refused(replies: &str, count: usize) {
    let lines: Vec<&str> = replies.lines().collect();
    assert_eq!(lines.len(), count, "{replies}");
    assert!(lines.iter().all(|line| line.starts_with("-TRYAGAIN")), "{replies}");
}

/// A batch lost its slot: its client is redirected with its key's hash slot, and whatever the
/// client has sent behind it is refused as well, never done before it.
#[test]
fn behind_a_lost_write_all_is_refused() {
    let mut desk = Desk::new(3);
    desk.pass(10_000);
    let (replica, output) = desk.node.replica_mut();
    assert!(replica.take_over(desk.now, output));
    desk.turn();
    let ballot = desk.node.replica.preparing().expect("phase 1");
    let first = Slot::FIRST;
    desk.receive(
        2,
        Message::Promise {
            ballot,
            from_slot: first,
            to_slot: None,
            entries: Vec::new(),
            first_unchosen: first,
            wall_ms: 1,
        },
    );
    desk.receive(2, Message::Accepted { ballot, slot: first, first_unchosen: first });
    assert!(desk.node.replica.reign_is_open());
    let session = desk.connect();
    desk.ask(session, &[b"SET", b"a", b"1"]);
    desk.turn();

    // n3 begins a ballot, and nobody leads yet: what the client sends now is held.
    let higher = Ballot { round: ballot.round + 1, node: NodeId(3), ..ballot };
    let holds = Vec::new();
    desk.receive(3, Message::Prepare { ballot: higher, from_slot: first, holds, release: None });
    // The lease of n1's ballot runs out.
    desk.pass(300_000);
    desk.ask(session, &[b"SET", b"a", b"2"]);
    desk.turn();
    assert_eq!(desk.read(session), b"");

    // Another batch is chosen in the first one's slot.
    let mut batch = crate::batch::BatchBuilder::default();
    batch.push(&[&b"SET"[..], b"a", b"0"]);
    let id = BatchId { incarnation: 99, counter: 1 };
    let values = vec![Value::Batch { id, payload: batch.finish(1, 0) }];
    desk.receive(2, Message::Chosen { first: first.next(), values });
    let replies = String::from_utf8(desk.read(session)).expect("text");
    let lines: Vec<&str> = replies.lines().collect();
    assert_eq!(lines.len(), 2, "{replies}");
    assert!(lines.iter().all(|line| line.starts_with("-TRYAGAIN")), "{replies}");

    // Once n3 leads, both would be sent there, with the hash slot of their key.
    desk.receive(
        3,
        Message::Accept { ballot: higher, slot: Slot(3), value: Value::Noop, hint: first },
    );
    desk.ask(session, &[b"SET", b"a", b"1"]);
    desk.turn();
    assert_eq!(desk.read(session), b"-MOVED 15495 10.0.0.3:7379\r\n");
}

/// A read rides in the batch behind the one that was lost: it is refused with the write that it was
/// to see, whether or not its own batch was chosen, and without waiting for that.
#[test]
fn a_read_behind_a_lost_write_is_refused_with_it() {
    for at_once in [true, false] {
        let mut deposed = Deposed::with_behind(&[b"GET", b"a"]);
        let second = deposed.proposed[1].clone();
        if at_once {
            let values = vec![Value::Noop, second];
            deposed.desk.receive(3, Message::Chosen { first: Slot(2), values });
        } else {
            deposed.chosen(2, Value::Noop);
            assert_all_refused(&deposed.replies(), 2);
            deposed.chosen(3, second);
            deposed.ask(&[b"GET", b"a"]);
        }
        deposed.desk.pass(2_000_000);
        let replies = deposed.replies();
        match at_once {
            true => assert_all_refused(&replies, 2),
            // And only what came before the refusal.
            false => assert!(replies.starts_with("-CLUSTERDOWN"), "{replies}"),
        }
        assert!(!deposed.is_closing());
    }
}

/// The write behind the lost one was done: said one way or the other, a library that sends the refused
/// one again would turn the program's order round. So nothing is said.
#[test]
fn a_done_write_behind_a_lost_one_closes_the_connection() {
    for at_once in [true, false] {
        let mut deposed = Deposed::with_behind(&[b"SET", b"a", b"2"]);
        let second = deposed.proposed[1].clone();
        if at_once {
            let values = vec![Value::Noop, second];
            deposed.desk.receive(3, Message::Chosen { first: Slot(2), values });
        } else {
            deposed.chosen(2, Value::Noop);
            deposed.ask(&[b"GET", b"a"]);
            assert_eq!(deposed.replies(), "");
            assert!(!deposed.is_closing(), "the second one may be lost, too");
            deposed.chosen(3, second);
        }
        assert!(deposed.is_closing());
        deposed.desk.pass(2_000_000);
        assert_eq!(deposed.replies(), "");
    }
}

/// The refusal of the first waits for the fate of the second; what comes meanwhile is refused behind
/// them.
#[test]
fn lost_writes_are_refused_in_order_once_all_are_known_lost() {
    let mut deposed = Deposed::with_behind(&[b"SET", b"a", b"2"]);
    deposed.ask(&[b"SET", b"a", b"3"]);
    deposed.chosen(2, Value::Noop);
    deposed.ask(&[b"WATCH", b"a"]);
    deposed.ask(&[b"GET", b"a"]);
    assert_eq!(deposed.replies(), "");
    deposed.chosen(3, Value::Noop);
    assert_all_refused(&deposed.replies(), 5);
    assert!(!deposed.is_closing());
    // It is an ordinary connection again.
    let (ballot, hint) = (deposed.higher, Slot::FIRST);
    let accept = Message::Accept { ballot, slot: Slot(4), value: Value::Noop, hint };
    deposed.desk.receive(3, accept);
    deposed.ask(&[b"SET", b"a", b"1"]);
    assert!(deposed.replies().starts_with("-MOVED"));
}

/// The second one's fate does not become known: the connection is closed in the time that an unknown
/// fate has.
#[test]
fn a_refusal_does_not_wait_for_ever() {
    let mut deposed = Deposed::with_behind(&[b"SET", b"a", b"2"]);
    deposed.chosen(2, Value::Noop);
    for _ in 0..9 {
        deposed.desk.pass(1_000_000);
    }
    assert!(!deposed.is_closing());
    deposed.desk.pass(2_000_000);
    assert!(deposed.is_closing());
    deposed.chosen(3, Value::Noop);
    assert_eq!(deposed.replies(), "");
}

/// What stood before the lost one is answered as ever.
#[test]
fn a_write_before_the_lost_one_is_answered() {
    let mut deposed = Deposed::with_behind(&[b"SET", b"a", b"2"]);
    let first = deposed.proposed[0].clone();
    let values = vec![first, Value::Noop];
    deposed.desk.receive(3, Message::Chosen { first: Slot(2), values });
    let replies = deposed.replies();
    assert!(replies.starts_with("+OK\r\n-TRYAGAIN"), "{replies}");
}
