//! The node without its sockets: what becomes of requests when their slot, their leader or their
//! reader lets them wait.

mod holding;
mod lost;
mod memory;

use config::FollowerReads;
use paxos::{
    Ballot, BatchId, Configuration, Envelope, Heartbeat, Member, Message, NodeId, Now, Output,
    Recovered, Replica, Settings, Slot, Value,
};

use super::{Effects, Node};
use crate::clients::SessionId;
use crate::command::ConnectionState;
use crate::snapshot::Loaded;
use crate::store::Store;

pub(super) struct Desk {
    pub(super) node: Node,
    effects: Effects,
    now: Now,
}

impl Desk {
    /// Node 1 of a group of so many voters.
    pub(super) fn new(voters: u32) -> Desk {
        Desk::seeded(voters, 0)
    }

    fn seeded(voters: u32, seed: u64) -> Desk {
        let members = (1..=voters).map(|id| {
            let client_address = format!("10.0.0.{id}:7379");
            (NodeId(id), Member { client_address, ..Member::default() })
        });
        let configuration = Configuration { members: members.collect(), ..Default::default() };
        let now = Now { mono_us: 1_000_000, wall_ms: 1_000_000 };
        let mut output = Output::default();
        let settings = Settings::new(NodeId(1), 7, 0);
        let recovered = Recovered::default();
        let loaded = Loaded::nothing(configuration.clone());
        let replica = Replica::recover(settings, configuration, recovered, now, &mut output);
        let behaviour = config::Behaviour::default();
        let node = Node::new(replica, loaded, behaviour, seed, output, now);
        Desk { node, effects: Effects::default(), now }
    }

    /// Turns, with a disk that syncs at once, until nothing is written any more.
    pub(super) fn turn(&mut self) {
        loop {
            self.effects.records.clear();
            self.node.turn(self.now, &mut self.effects);
            if self.effects.records.is_empty() {
                return;
            }
            self.node.synced(self.now, self.effects.position);
        }
    }

    pub(super) fn pass(&mut self, us: u64) {
        self.now.mono_us += us;
        self.node.tick(self.now);
        self.turn();
    }

    fn receive(&mut self, from: u32, message: Message) {
        self.node.received(self.now, Envelope { from: NodeId(from), to: NodeId(1), message });
        self.turn();
    }

    /// Leads three voters, with n2's votes and grants.
    fn lead_under_a_lease(&mut self) -> Ballot {
        // What may have been granted before the start is over.
        self.pass(150_000);
        let (replica, output) = self.node.replica_mut();
        assert!(replica.take_over(self.now, output));
        self.turn();
        let ballot = self.node.replica.preparing().expect("phase 1");
        let first = Slot::FIRST;
        let (entries, wall_ms) = (Vec::new(), 1);
        let (from_slot, to_slot, first_unchosen) = (first, None, first);
        self.receive(
            2,
            Message::Promise { ballot, from_slot, to_slot, entries, first_unchosen, wall_ms },
        );
        self.receive(2, Message::Accepted { ballot, slot: first, first_unchosen: first });
        self.effects.sends.clear();
        self.pass(25_000);
        let sequence = self.effects.sends.iter().find_map(|envelope| match &envelope.message {
            Message::Heartbeat(heartbeat) if heartbeat.asks_grant => Some(heartbeat.sequence),
            _ => None,
        });
        let (sequence, length_us) = (sequence.expect("a heartbeat"), 100_000);
        self.receive(2, Message::Grant { ballot, sequence, length_us });
        assert!(self.node.replica.holds_lease(self.now, ballot));
        ballot
    }

    /// The heartbeats of n2, which leads, for this long.
    fn follow(&mut self, us: u64) {
        for sequence in 1..=us / 10_000 {
            self.pass(10_000);
            let heartbeat = Heartbeat {
                sequence,
                leading: Some(Ballot { configuration: 0, round: 1, node: NodeId(2) }),
                happy_with: Some(NodeId(2)),
                can_accept: true,
                quorum_connected: true,
                connected: vec![NodeId(1), NodeId(3)],
                first_unchosen: Slot::FIRST,
                hint: Slot::FIRST,
                ..Heartbeat::default()
            };
            self.receive(2, Message::Heartbeat(heartbeat));
        }
    }

    /// A connection that said READONLY, and the number under which the leader was asked for its read.
    fn ask_as_follower(&mut self) -> (SessionId, u64) {
        self.node.behaviour.follower_reads = FollowerReads::Linearizable;
        self.follow(100_000);
        let session = self.connect();
        self.node.clients.get_mut(session).expect("it is there").connection.readonly = true;
        self.effects.sends.clear();
        self.ask(session, &[b"GET", b"k"]);
        self.turn();
        let mut asked = self.effects.sends.iter().filter_map(|envelope| match envelope.message {
            Message::ReadIndex { read } => Some(read),
            _ => None,
        });
        let read = asked.next().expect("the leader is asked");
        (session, read)
    }

    pub(super) fn connect(&mut self) -> SessionId {
        self.node.clients.open(|id| ConnectionState::new(id, "a:1".into(), "b:1".into(), true, 0))
    }

    pub(super) fn ask(&mut self, session: SessionId, words: &[&[u8]]) {
        let left = self.node.command(self.now, session, words);
        assert!(left.is_none(), "a command for the store");
    }

    /// What the client has been sent, as it reads everything.
    pub(super) fn read(&mut self, session: SessionId) -> Vec<u8> {
        std::mem::take(&mut self.node.clients.get_mut(session).expect("it is there").out)
    }

    /// The same over so many ticks, and the most that was there to be read at once.
    fn read_on(&mut self, session: SessionId, ticks: usize) -> (Vec<u8>, usize) {
        let (mut received, mut longest) = (Vec::new(), 0);
        for _ in 0..ticks {
            self.pass(5_000);
            let out = self.read(session);
            longest = longest.max(out.len());
            received.extend(out);
        }
        (received, longest)
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
    let (received, longest) = desk.read_on(session, 10 * ASKED);
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

/// A follower that gets no answer, or is behind the slot in it, sends the client to the leader: it is
/// there, and has what is asked for.
#[test]
fn a_read_at_a_follower_waits_no_longer_than_any_request() {
    for answer in [None, Some(Slot(99))] {
        let mut desk = Desk::new(3);
        let (session, read) = desk.ask_as_follower();
        if answer.is_some() {
            desk.receive(2, Message::ReadFrom { read, slot: answer });
        }
        desk.follow(800_000);
        assert_eq!(desk.read(session), b"", "{answer:?}");
        desk.follow(300_000);
        assert_eq!(desk.read(session), b"-MOVED 7629 10.0.0.2:7379\r\n", "{answer:?}");
        // An answer that comes now has nobody to go to.
        desk.receive(2, Message::ReadFrom { read, slot: Some(Slot::ZERO) });
        assert_eq!(desk.read(session), b"");
    }
}

/// The leader may answer a question of the process that ran here before.
#[test]
fn no_process_asks_under_the_numbers_of_the_one_before() {
    let (_, before) = Desk::seeded(3, 1).ask_as_follower();
    let mut desk = Desk::seeded(3, 2);
    let (session, read) = desk.ask_as_follower();
    desk.receive(2, Message::ReadFrom { read: before, slot: Some(Slot::ZERO) });
    assert_eq!(desk.read(session), b"", "asked under {read}, {before} was answered");
    desk.receive(2, Message::ReadFrom { read, slot: Some(Slot::ZERO) });
    assert_eq!(desk.read(session), b"$-1\r\n");
}

/// 29: a process that was stopped for longer than its lease, with a read in flight, asks a quorum: the
/// clock that counts is the one behind the arrival of the read.
#[test]
fn a_read_in_flight_while_the_process_stood_still_is_not_served_by_the_lease() {
    for stopped_us in [0, 10_000, 90_000, 5_000_000] {
        let mut desk = Desk::new(3);
        desk.lead_under_a_lease();
        let session = desk.connect();
        desk.ask(session, &[b"GET", b"k"]);
        // It stops somewhere within the turn that is to serve the read.
        let (began, mut asked) = (desk.now, 0);
        let mut clock = || {
            asked += 1;
            let late_us = if asked > 1 { stopped_us } else { 0 };
            Now { mono_us: began.mono_us + late_us, ..began }
        };
        desk.effects.sends.clear();
        desk.node.turn_by(&mut clock, &mut desk.effects);
        let asks = |envelope: &Envelope| matches!(envelope.message, Message::Confirm { .. });
        let asks_a_quorum = desk.effects.sends.iter().any(asks);
        let replies = desk.read(session);
        let in_time = stopped_us < 79_000;
        assert_eq!(replies.is_empty(), !in_time, "stopped for {stopped_us} µs: {replies:?}");
        assert_eq!(asks_a_quorum, !in_time, "stopped for {stopped_us} µs");
    }
}

/// `KEYS` over many keys goes on turn by turn: heartbeats and the commands of others come between
/// (PITFALLS 46), its own connection's do not overtake it.
#[test]
fn keys_are_searched_in_slices() {
    const KEYS: usize = 30_000;
    let mut desk = Desk::new(1);
    desk.pass(500_000);
    let (one, other) = (desk.connect(), desk.connect());
    for first in (0..KEYS).step_by(1_000) {
        let keys: Vec<String> = (first..first + 1_000).map(|key| format!("key{key}")).collect();
        let pairs = keys.iter().flat_map(|key| [key.as_bytes(), b"v"]);
        let words: Vec<&[u8]> = [&b"MSET"[..]].into_iter().chain(pairs).collect();
        desk.ask(one, &words);
        desk.turn();
    }
    desk.read(one);
    // Behind a write of its own, which it has to see, and before one that it must not see.
    desk.ask(one, &[b"SET", b"key-own", b"v"]);
    desk.ask(one, &[b"KEYS", b"key*"]);
    desk.ask(one, &[b"SET", b"key-late", b"v"]);
    let mut turns = 0;
    let mut replies = Vec::new();
    while replies.len() < 1_000 {
        turns += 1;
        assert!(turns < 100, "it goes on");
        desk.ask(other, &[b"INCR", b"turns"]);
        desk.effects.records.clear();
        desk.node.turn(desk.now, &mut desk.effects);
        desk.node.synced(desk.now, desk.effects.position);
        desk.node.turn(desk.now, &mut desk.effects);
        assert_eq!(desk.read(other), format!(":{turns}\r\n").into_bytes());
        replies.extend(desk.read(one));
    }
    assert!(turns > 3, "{turns} turns");
    let text = String::from_utf8(replies).expect("text");
    assert!(text.starts_with(&format!("+OK\r\n*{}\r\n", KEYS + 1)), "{}", &text[..40]);
    assert!(text.contains("key-own") && !text.contains("key-late"));
    desk.node.synced(desk.now, desk.effects.position);
    (0..3).for_each(|_| desk.pass(5_000));
    let late = String::from_utf8(desk.read(one)).expect("text");
    let end: String = text.chars().skip(text.len() - 40).collect();
    assert!(format!("{end}{late}").ends_with("\r\n+OK\r\n"), "{end:?} {late:?}");
    assert_eq!(desk.node.store.len(), KEYS + 3);
}

/// A key's time is up, but not in the log: the search waits for the mark.
#[test]
fn keys_wait_for_the_end_of_a_key() {
    let mut desk = Desk::new(1);
    desk.pass(500_000);
    let session = desk.connect();
    desk.ask(session, &[b"SET", b"short", b"v", b"PX", b"100"]);
    desk.ask(session, &[b"SET", b"long", b"v"]);
    desk.turn();
    assert_eq!(desk.read(session), b"+OK\r\n+OK\r\n");
    desk.now.mono_us += 200_000;
    desk.ask(session, &[b"KEYS", b"*"]);
    desk.turn();
    (0..3).for_each(|_| desk.pass(20_000));
    assert_eq!(desk.read(session), b"*1\r\n$4\r\nlong\r\n");
}

/// A pattern made to be slow costs its own client the answer, and nobody else the time.
#[test]
fn a_pattern_that_takes_too_long_is_refused() {
    let mut desk = Desk::new(1);
    desk.pass(500_000);
    let session = desk.connect();
    let key = vec![b'a'; 200_000];
    desk.ask(session, &[b"SET", &key, b"v"]);
    let slow = [&b"*"[..], &[b'a'; 1_000], b"b"].concat();
    for words in [&[&b"KEYS"[..], &slow][..], &[b"SCAN", b"0", b"MATCH", &slow]] {
        desk.ask(session, words);
        (0..5).for_each(|_| desk.pass(5_000));
        let reply = String::from_utf8(desk.read(session)).expect("text");
        assert!(reply.contains("-ERR the pattern takes too long"), "{reply}");
    }
    // Many stars are nothing.
    let stars = [&b"a*".repeat(50)[..], b"b"].concat();
    desk.ask(session, &[b"KEYS", &stars]);
    (0..5).for_each(|_| desk.pass(5_000));
    assert_eq!(desk.read(session), b"*0\r\n");
}

/// A connection may pipeline a write and many long reads: the reads share each turn's bytes and wait
/// for their reader as any others do, and each sees what stood before it.
#[test]
fn long_reads_behind_a_write_wait_for_their_reader() {
    const VALUE_BYTES: usize = 1 << 20;
    const ASKED: usize = 60;
    let mut desk = Desk::new(1);
    desk.pass(500_000);
    let session = desk.connect();
    desk.ask(session, &[b"SET", b"k", &vec![b'v'; VALUE_BYTES]]);
    desk.turn();
    assert_eq!(desk.read(session), b"+OK\r\n");
    desk.ask(session, &[b"SET", b"x", b"1"]);
    for _ in 0..ASKED {
        desk.ask(session, &[b"GET", b"k"]);
    }
    desk.ask(session, &[b"GET", b"x"]);
    desk.ask(session, &[b"SET", b"x", b"2"]);
    let (received, longest) = desk.read_on(session, 10 * ASKED);
    assert!(received.ends_with(b"$1\r\n1\r\n+OK\r\n"), "the last two see what stood before them");
    assert!(received.len() > ASKED * VALUE_BYTES);
    assert!(longest <= 10 << 20, "{longest} bytes waited at once");
}

/// PITFALLS 34, 35: what was carried out is not refused when it is sent again, whatever has become
/// impossible since.
#[test]
fn a_command_behind_once_that_was_done_is_never_refused() {
    let mut desk = Desk::new(1);
    desk.pass(500_000);
    let session = desk.connect();
    desk.ask(session, &[b"ONCE", b"OPEN"]);
    desk.turn();
    let id =
        String::from_utf8(desk.read(session)).unwrap().trim_matches([':', '\r', '\n']).to_owned();
    let once = |number: &'static [u8], command: &[&'static [u8]]| {
        let mut argv: Vec<Vec<u8>> =
            vec![b"ONCE".to_vec(), id.clone().into_bytes(), number.to_vec()];
        argv.extend(command.iter().map(|word| word.to_vec()));
        argv
    };
    let ask = |desk: &mut Desk, argv: &[Vec<u8>]| {
        let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
        desk.ask(session, &argv);
    };
    let first = once(b"1", &[b"SET", b"k", b"v"]);
    ask(&mut desk, &first);
    desk.node.set_can_accept(true, true);
    // It is still on its way: the answer is its own, not the full disk's.
    ask(&mut desk, &first);
    desk.turn();
    desk.pass(5_000);
    assert_eq!(desk.read(session), b"+OK\r\n+OK\r\n");
    ask(&mut desk, &first);
    ask(&mut desk, &once(b"1", &[b"SET", b"k", b"other"]));
    ask(&mut desk, &once(b"2", &[b"SET", b"k", b"w"]));
    desk.turn();
    let said = String::from_utf8(desk.read(session)).unwrap();
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said[0], "+OK");
    assert!(said[1].starts_with("-ONCEOTHER"), "{}", said[1]);
    assert!(said[2].starts_with("-OOM"), "{}", said[2]);
}

/// PITFALLS 66: the entry of a transaction has the limit of a command, with its watched keys.
#[test]
fn a_transaction_that_fits_into_no_frame_is_refused_at_the_door() {
    let mut desk = Desk::new(1);
    desk.pass(500_000);
    let session = desk.connect();
    let most = desk.node.behaviour.command_bytes_max as usize - 200;
    desk.ask(session, &[b"WATCH", &vec![b'w'; most]]);
    desk.ask(session, &[b"MULTI"]);
    desk.ask(session, &[b"SET", b"k", &vec![b'v'; most]]);
    desk.ask(session, &[b"EXEC"]);
    desk.turn();
    let said = String::from_utf8(desk.read(session)).unwrap();
    assert!(said.contains("-EXECABORT Transaction discarded because of: it is longer"), "{said}");
    desk.ask(session, &[b"EXISTS", b"k"]);
    desk.turn();
    assert_eq!(desk.read(session), b":0\r\n");
}

/// While the disk is full the door proposes nothing that a full node would not take in.
#[test]
fn a_full_disk_refuses_a_growing_transaction_and_lets_a_shrinking_one_pass() {
    let mut desk = Desk::new(1);
    desk.pass(500_000);
    let session = desk.connect();
    desk.node.set_can_accept(true, true);
    for (command, answer) in [
        (&[&b"DEL"[..], b"k"][..], "*1\r\n:0"),
        (&[b"SET", b"k", b"v"], "-EXECABORT"),
        (&[b"SET", b"k", b"v", b"NONSENSE"], "-EXECABORT"),
        (&[b"ONCE", b"1", b"1", b"SET", b"k", b"v"], "-EXECABORT"),
        (&[b"GET", b"k"], "*1\r\n$-1"),
    ] {
        desk.ask(session, &[b"MULTI"]);
        desk.ask(session, command);
        desk.ask(session, &[b"EXEC"]);
        desk.turn();
        let said = String::from_utf8(desk.read(session)).unwrap();
        let said = said.strip_prefix("+OK\r\n+QUEUED\r\n").unwrap_or(&said);
        assert!(said.starts_with(answer), "{command:?}: {said}");
    }
}

/// The log says by which version of the store its slots are applied. A program that cannot do that one
/// applies nothing above, and says what to do; on its disk is what it takes to go on.
#[test]
fn nothing_is_applied_above_a_store_version_that_this_program_cannot_do() {
    let mut desk = Desk::new(3);
    let former = desk.node.configuration().clone();
    let configuration = Configuration { number: 1, slot: Slot(1), store_version: 2, ..former };
    let id = BatchId { incarnation: 2, counter: 1 };
    let above = BatchId { incarnation: 2, counter: 2 };
    let mut batch = crate::batch::BatchBuilder::default();
    batch.push(&["SET", "k", "v"]);
    let values = vec![
        Value::Configuration { id, configuration: configuration.clone() },
        Value::Batch { id: above, payload: batch.finish(1, 1) },
    ];
    let message = Message::Chosen { first: Slot(1), values };
    desk.node.received(desk.now, Envelope { from: NodeId(2), to: NodeId(1), message });
    desk.turn();
    let beyond = desk.node.beyond.expect("version 2 is beyond this program");
    assert!(beyond.to_string().contains("version 2, this program can do up to 1"), "{beyond}");
    assert_eq!((desk.node.first_unapplied(), desk.node.store.len()), (Slot(2), 0));
    assert_eq!(desk.node.configuration(), &configuration);
    // Nor by a snapshot from there.
    let mut desk = Desk::new(3);
    let loaded = Loaded { below: Slot(9), configuration, store: Store::new() };
    drop(desk.node.install(desk.now, loaded));
    assert!(desk.node.beyond.is_some() && desk.node.first_unapplied() == Slot::FIRST);
}
