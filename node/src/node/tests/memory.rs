//! What the data and the clients may take in memory (PITFALLS 42, 45).

use paxos::{BatchId, Message, Slot, Value};

use super::Desk;
use crate::clients::SessionId;

const MIB: usize = 1 << 20;

impl Desk {
    /// Leads alone, with room for so much more data.
    fn with_store_room(bytes: usize) -> Desk {
        let mut desk = Desk::new(1);
        desk.pass(500_000);
        let bytes_max = desk.node.store.memory_bytes() + bytes;
        desk.node.behaviour.store_bytes_max = bytes_max as u64;
        desk
    }

    /// The replies to what was asked, in lines.
    fn answers(&mut self, session: SessionId) -> Vec<String> {
        self.turn();
        let replies = String::from_utf8(self.read(session)).expect("text");
        replies.lines().map(str::to_owned).collect()
    }

    /// Asked in one pipeline; how many were done, all others having been refused as Redis does it.
    #[track_caller]
    fn done_of(&mut self, session: SessionId, commands: &[Vec<Vec<u8>>]) -> usize {
        for command in commands {
            let words: Vec<&[u8]> = command.iter().map(|word| &word[..]).collect();
            self.ask(session, &words);
        }
        let answers = self.answers(session);
        assert_eq!(answers.len(), commands.len());
        let refused = answers.iter().filter(|answer| answer.starts_with('-'));
        for answer in refused.clone() {
            assert_eq!(answer, "-OOM command not allowed when used memory > 'maxmemory'.");
        }
        let limit = self.node.behaviour.store_bytes_max;
        assert!(self.node.store.memory_bytes() as u64 <= limit, "{limit}");
        commands.len() - refused.count()
    }
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn many(line: impl Fn(usize) -> String) -> Vec<Vec<Vec<u8>>> {
    (0..100).map(|nth| words(&line(nth))).collect()
}

/// PITFALLS 45. Little asks for much: a pipeline of it is judged command by command, before any of it is applied.
#[test]
fn a_store_that_is_full_refuses_what_grows_however_little_asks_for_much() {
    // With its key and whatever a record takes, a size that allocators have.
    const LENGTH: usize = 4 * MIB - 4096;
    let mut desk = Desk::with_store_room(32 * MIB);
    let session = desk.connect();
    let done = desk.done_of(session, &many(|nth| format!("SETRANGE k{nth} {} x", LENGTH - 1)));
    assert_eq!(done, 7);

    // Reads pass, and what makes room; then it goes on by itself.
    desk.ask(session, &[b"STRLEN", b"k6"]);
    desk.ask(session, &[b"DEL", b"k1", b"k2", b"k3", b"k4", b"k5", b"k6"]);
    assert_eq!(desk.answers(session), [format!(":{LENGTH}"), ":6".to_owned()]);
    assert_eq!(desk.done_of(session, &many(|nth| format!("COPY k0 copy{nth}"))), 6);
    assert_eq!(desk.done_of(session, &many(|nth| format!("DEL copy{nth}"))), 100);

    // A copy of what is not there yet: set, or renamed, right before it.
    let mut commands = many(|nth| format!("COPY new copy{nth}"));
    commands.insert(0, vec![b"SET".to_vec(), b"new".to_vec(), vec![b'v'; 4 * MIB]]);
    assert!(desk.done_of(session, &commands) > 1);
    assert_eq!(desk.done_of(session, &many(|nth| format!("DEL new copy{nth}"))), 100);
    let mut commands = many(|nth| format!("COPY renamed copy{nth}"));
    commands.insert(0, words("RENAME k0 renamed"));
    assert!(desk.done_of(session, &commands) > 1);

    let appended = vec![b"APPEND".to_vec(), b"renamed".to_vec(), vec![b'v'; MIB]];
    assert!(desk.done_of(session, &vec![appended; 100]) < 100);
    desk.ask(session, &[b"MULTI"]);
    desk.ask(session, &[b"SETRANGE", b"a", b"4000000", b"x"]);
    desk.ask(session, &[b"SETRANGE", b"b", b"4000000", b"x"]);
    desk.ask(session, &[b"EXEC"]);
    let answers = desk.answers(session);
    let refused = "-EXECABORT Transaction discarded because of: OOM command not allowed";
    assert!(answers[3].starts_with(refused), "{answers:?}");
    desk.ask(session, &[b"FLUSHALL"]);
    assert_eq!(desk.answers(session), ["+OK"]);
    (0..10).for_each(|_| desk.pass(5_000));
    assert_eq!(desk.done_of(session, &[words("SET k v")]), 1);
}

/// Whoever has not the memory for what is in the log must not become another state for it.
#[test]
fn what_is_in_the_log_is_applied_whatever_the_limit_of_this_node() {
    let mut desk = Desk::new(3);
    desk.node.behaviour.store_bytes_max = 1;
    let mut batch = crate::batch::BatchBuilder::default();
    batch.push(&[&b"SET"[..], b"k", b"v"]);
    let id = BatchId { incarnation: 99, counter: 1 };
    let values = vec![Value::Batch { id, payload: batch.finish(1, 0) }];
    desk.receive(2, Message::Chosen { first: Slot::FIRST, values });
    assert_eq!(desk.node.store.len(), 1);
}

/// PITFALLS 42. Many clients that do not read, each within its own bounds: replies stop at the limit, nobody is
/// read from, and those that do not read are closed until there is room. Who reads gets everything.
#[test]
fn clients_that_do_not_read_take_no_more_together_than_they_may() {
    const BUDGET: usize = 32 * MIB;
    let mut desk = Desk::new(1);
    desk.pass(500_000);
    desk.node.clients.limit_bytes(BUDGET as u64);
    let good = desk.connect();
    desk.ask(good, &[b"SET", b"k", &vec![b'v'; MIB]]);
    desk.turn();
    assert_eq!(desk.read(good), b"+OK\r\n");
    let readers: Vec<SessionId> = (0..100).map(|_| desk.connect()).collect();
    for reader in &readers {
        for _ in 0..4 {
            desk.ask(*reader, &[b"GET", b"k"]);
        }
    }
    desk.ask(good, &[b"GET", b"k"]);
    let (mut evicted, mut received, mut most) = (0, 0, 0);
    for _ in 0..1_500 {
        desk.pass(5_000);
        most = most.max(desk.node.clients.bytes());
        if let Some(gone) = desk.node.clients.evict(desk.now.mono_us) {
            assert_ne!(gone.id, good);
            assert_eq!(gone.because, "it does not read its replies");
            // Its task ends, and with it the connection.
            desk.node.clients.close(gone.id);
            evicted += 1;
        }
        received += desk.read(good).len();
        desk.node.clients.recount(good);
    }
    // Beyond the limit by the one reply that reached it.
    assert!(most <= BUDGET + 3 * MIB, "{most} bytes");
    assert!(most >= BUDGET, "{most} bytes");
    assert!(evicted > 50, "{evicted} were closed");
    assert_eq!(received, MIB + "$1048576\r\n\r\n".len());
    assert!(desk.node.clients.has_room(good), "there is room again");
}

/// The beginnings of commands count as well, and a client that goes on is not taken for one of them.
#[test]
fn beginnings_of_commands_are_bounded_together() {
    let mut desk = Desk::new(1);
    desk.pass(500_000);
    desk.node.clients.limit_bytes(32 << 20);
    let good = desk.connect();
    let begun: Vec<SessionId> = (0..40).map(|_| desk.connect()).collect();
    for (nth, session) in begun.iter().enumerate() {
        desk.node.clients.get_mut(*session).expect("it is there").rest_bytes = MIB + nth;
        desk.node.clients.recount(*session);
    }
    assert!(!desk.node.clients.has_room(good));
    assert_eq!(desk.node.clients.evict(desk.now.mono_us), None, "they are given time");
    desk.pass(250_000);
    let mut evicted = Vec::new();
    while let Some(gone) = desk.node.clients.evict(desk.now.mono_us) {
        assert_eq!(gone.because, "it has begun a command and does not end it");
        desk.node.clients.close(gone.id);
        evicted.push(gone.id);
    }
    // The heaviest first, and no more than needed.
    assert_eq!(evicted.first(), begun.last());
    assert_eq!(evicted.len(), 40 - 15, "{evicted:?}");
    assert!(desk.node.clients.take_relieved());
    assert!(desk.node.clients.has_room(good));
}
