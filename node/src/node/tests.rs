//! The node without its sockets: what becomes of requests when their slot, their leader or their
//! reader lets them wait.

use paxos::{
    Ballot, BatchId, Configuration, Envelope, Member, Message, NodeId, Now, Output, Recovered,
    Replica, Settings, Slot, Value,
};

use super::{Effects, Node};
use crate::clients::SessionId;
use crate::command::ConnectionState;
use crate::store::Store;

struct Desk {
    node: Node,
    effects: Effects,
    now: Now,
}

impl Desk {
    /// Node 1 of a group of so many voters.
    fn new(voters: u32) -> Desk {
        let members = (1..=voters).map(|id| {
            let client_address = format!("10.0.0.{id}:7379");
            (NodeId(id), Member { client_address, ..Member::default() })
        });
        let configuration = Configuration { members: members.collect(), ..Default::default() };
        let now = Now { mono_us: 1_000_000, wall_ms: 1_000_000 };
        let mut output = Output::default();
        let settings = Settings::new(NodeId(1), 7, 0);
        let recovered = Recovered::default();
        let replica = Replica::recover(settings, configuration, recovered, now, &mut output);
        let behaviour = config::Behaviour::default();
        let node = Node::new(replica, Store::new(), behaviour, 0, Slot::FIRST, output, now);
        Desk { node, effects: Effects::default(), now }
    }

    /// Turns, with a disk that syncs at once, until nothing is written any more.
    fn turn(&mut self) {
        loop {
            self.effects.records.clear();
            self.node.turn(self.now, &mut self.effects);
            if self.effects.records.is_empty() {
                return;
            }
            self.node.synced(self.now, self.effects.position);
        }
    }

    fn pass(&mut self, us: u64) {
        self.now.mono_us += us;
        self.node.tick(self.now);
        self.turn();
    }

    fn receive(&mut self, from: u32, message: Message) {
        self.node.received(self.now, Envelope { from: NodeId(from), to: NodeId(1), message });
        self.turn();
    }

    fn connect(&mut self) -> SessionId {
        self.node.clients.open(|id| ConnectionState::new(id, "a:1".into(), "b:1".into(), true, 0))
    }

    fn ask(&mut self, session: SessionId, words: &[&[u8]]) {
        let left = self.node.command(self.now, session, words);
        assert!(left.is_none(), "a command for the store");
    }

    /// What the client has been sent, as it reads everything.
    fn read(&mut self, session: SessionId) -> Vec<u8> {
        std::mem::take(&mut self.node.clients.get_mut(session).expect("it is there").out)
    }
}

/// PITFALLS 42: who asks for much gets all of it, as fast as it reads, and no faster.
#[test]
fn replies_wait_for_their_reader() {
    const VALUE_BYTES: usize = 1 << 20;
    const ASKED: usize = 100;
    let mut desk = Desk::new(1);
    desk.pass(500_000);
    assert!(desk.node.replica.reign_is_open());
    let session = desk.connect();
    desk.ask(session, &[b"SET", b"k", &vec![b'v'; VALUE_BYTES]]);
    desk.turn();
    assert_eq!(desk.read(session), b"+OK\r\n");
    for _ in 0..ASKED {
        desk.ask(session, &[b"GET", b"k"]);
    }
    let mut received = Vec::new();
    let mut longest = 0;
    for _ in 0..10 * ASKED {
        desk.pass(5_000);
        let out = desk.read(session);
        longest = longest.max(out.len());
        received.extend(out);
    }
    assert_eq!(received.len(), ASKED * (VALUE_BYTES + "$1048576\r\n\r\n".len()));
    assert!(longest <= 10 << 20, "{longest} bytes waited at once");
    desk.ask(session, &[b"ONCE", b"OPEN"]);
    desk.turn();
    let opened = String::from_utf8(desk.read(session)).expect("text");
    let once = opened.trim_start_matches(':').trim();
    // And nothing at all for one that does not read.
    for number in 1..=ASKED {
        let value = vec![b'v'; VALUE_BYTES];
        desk.ask(session, &[b"GETSET", b"k", &value]);
        let number = number.to_string();
        desk.ask(session, &[b"ONCE", once.as_bytes(), number.as_bytes(), b"GETSET", b"k", &value]);
        desk.ask(session, &[b"GET", b"k"]);
    }
    (0..50).for_each(|_| desk.pass(5_000));
    let waiting = desk.node.clients.get(session).expect("it is there").reply_bytes();
    assert!(waiting <= 64 << 20, "{waiting} bytes wait for a client that does not read");
}

/// Work that shows nowhere in the reply ends a turn, so that heartbeats come between (PITFALLS 46).
#[test]
fn one_heavy_read_a_turn() {
    let mut desk = Desk::new(1);
    desk.pass(500_000);
    let session = desk.connect();
    for _ in 0..5 {
        desk.ask(session, &[b"LCS", b"a", b"b", b"LEN"]);
    }
    for served in 1..=5 {
        desk.node.turn(desk.now, &mut desk.effects);
        assert_eq!(desk.read(session), b":0\r\n");
        assert_eq!(desk.effects.more, served < 5, "after {served}");
    }
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
