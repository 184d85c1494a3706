//! A transaction as one command of the log, and how it is carried out.
//!
//! In the log it is `MULTI`, the number of watched keys, each with the slot at which it was
//! watched, then each command: the number of its arguments and the arguments. Numbers are decimal
//! texts. No client can send this by itself: its `MULTI` is answered at the door.

use super::keyspace::KeyHash;
use super::{Applying, Reading, Store};
use crate::command::number::parse_i64;
use crate::resp::Reply;

/// A key that must not have been touched after `slot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch<K> {
    pub key: K,
    pub slot: u64,
}

/// A transaction read back from the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    pub watches: Vec<Watch<&'a [u8]>>,
    pub commands: Vec<&'a [&'a [u8]]>,
}

impl<'a> Transaction<'a> {
    pub const NAME: &'static [u8] = b"MULTI";

    /// The arguments under which a transaction is put into the log.
    pub fn write<K: AsRef<[u8]>, A: AsRef<[u8]>>(
        watches: &[Watch<K>],
        commands: &[impl AsRef<[A]>],
    ) -> Vec<Vec<u8>> {
        let number = |number: u64| number.to_string().into_bytes();
        let mut argv = vec![Transaction::NAME.to_vec(), number(watches.len() as u64)];
        for Watch { key, slot } in watches {
            argv.push(key.as_ref().to_vec());
            argv.push(number(*slot));
        }
        for command in commands {
            let command = command.as_ref();
            argv.push(number(command.len() as u64));
            argv.extend(command.iter().map(|argument| argument.as_ref().to_vec()));
        }
        argv
    }

    /// `None` if `argv` is nothing that [`Transaction::write`] makes.
    pub fn read(argv: &'a [&'a [u8]]) -> Option<Transaction<'a>> {
        let (name, rest) = argv.split_first()?;
        let (count, mut rest) = rest.split_first()?;
        (*name == Transaction::NAME).then_some(())?;
        let mut watches = Vec::new();
        for _ in 0..number(count)? {
            let ([key, slot], tail) = rest.split_first_chunk::<2>()?;
            watches.push(Watch { key: *key, slot: number(slot)? });
            rest = tail;
        }
        let mut commands = Vec::new();
        while let Some((count, tail)) = rest.split_first() {
            let count = usize::try_from(number(count)?).ok().filter(|count| *count > 0)?;
            let (command, tail) = tail.split_at_checked(count)?;
            commands.push(command);
            rest = tail;
        }
        Some(Transaction { watches, commands })
    }
}

fn number(text: &[u8]) -> Option<u64> {
    parse_i64(text)?.try_into().ok()
}

/// What the replies of one transaction may be long together: they are put together in memory, and
/// a short entry could ask for any amount (PITFALLS 42, 67).
const REPLY_BYTES_MAX: usize = 64 << 20;

/// The replies of a transaction, for the one node that a client asked; the others need none.
struct Replies {
    wanted: bool,
    replies: Vec<Reply>,
    bytes: usize,
}

impl Replies {
    fn new(wanted: bool) -> Replies {
        Replies { wanted, replies: Vec::new(), bytes: 0 }
    }

    /// Whether the next read is worth carrying out. It changes nothing, so that no node has to.
    fn takes_read(&self) -> bool {
        self.wanted && self.bytes < REPLY_BYTES_MAX
    }

    /// Takes the reply of the next command, or says why it is left out: of a read that is surely not
    /// done, or what a write has found.
    fn push(&mut self, reply: Reply, is_read: bool) {
        if !self.wanted {
            return;
        }
        let bytes = self.bytes + value_bytes(&reply);
        if bytes <= REPLY_BYTES_MAX && (!is_read || self.takes_read()) {
            self.bytes = bytes;
            self.replies.push(reply);
            return;
        }
        self.bytes = REPLY_BYTES_MAX;
        let code = if is_read { "ERR" } else { "EXECDONE executed, but" };
        self.replies.push(Reply::error(format!(
            "{code} the replies of this transaction are longer than {REPLY_BYTES_MAX} bytes, this \
             one is left out"
        )));
    }
}

/// Bytes of the values in a reply.
fn value_bytes(reply: &Reply) -> usize {
    match reply {
        Reply::Bulk(bytes) => bytes.len(),
        Reply::Array(replies) => replies.iter().map(value_bytes).sum(),
        _ => 0,
    }
}

impl Store {
    /// All commands, one after another, an error of one not keeping the others from being carried
    /// out; or nothing, where a watched key was touched. Reads are carried out only where a reply
    /// is wanted.
    pub(super) fn transaction(
        &mut self,
        applying: Applying,
        argv: &[&[u8]],
        reply_wanted: bool,
    ) -> Reply {
        let Some(Transaction { watches, commands }) = Transaction::read(argv) else {
            return Reply::error("ERR a transaction of the log that cannot be read");
        };
        for Watch { key, slot } in watches {
            // Asking removes a key whose time has come, which is a touch too.
            self.exists(key);
            if self.keyspace.touches.last(KeyHash::of(key)) > slot {
                return Reply::NullArray;
            }
        }
        let reading = Reading { clock_ms: self.time_ms, seed: applying.seed };
        let mut replies = Replies::new(reply_wanted);
        for argv in commands {
            let takes_read = replies.takes_read();
            let mut is_read = false;
            let reply = self.carry_out(argv, |store, read| {
                is_read = true;
                if !takes_read {
                    return Some(Reply::Null);
                }
                let reply = store.answer(reading, read);
                Some(reply.expect("at the log's own time nothing is past its deadline"))
            });
            replies.push(reply, is_read);
        }
        Reply::Array(replies.replies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(store: &mut Store, slot: u64, time_ms: u64, argv: &[Vec<u8>]) -> Reply {
        let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
        store.apply(Applying { slot, time_ms, seed: 0 }, &argv)
    }

    fn run(store: &mut Store, slot: u64, time_ms: u64, line: &str) -> Reply {
        let argv: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        apply(store, slot, time_ms, &argv)
    }

    /// `EXEC` of these lines, with `k` watched at slot 10.
    fn exec(store: &mut Store, slot: u64, time_ms: u64, lines: &[&str]) -> Reply {
        let commands: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
        let watches = [Watch { key: b"k", slot: 10 }];
        apply(store, slot, time_ms, &Transaction::write(&watches, &commands))
    }

    #[test]
    fn it_is_carried_out_whole_with_its_errors() {
        let mut store = Store::new();
        run(&mut store, 10, 1, "SET k x");
        let reply =
            exec(&mut store, 11, 1, &["SET a 1", "INCR k", "INCR a", "GET a", "NOSUCH", "PING"]);
        let Reply::Array(replies) = reply else { panic!("{reply:?}") };
        assert_eq!(replies[0], Reply::OK);
        assert!(replies[1].is_error());
        assert_eq!(replies[2..4], [Reply::Integer(2), Reply::bulk("2")]);
        assert!(replies[4].is_error() && replies[5].is_error());
    }

    /// 67: a short entry that asks for gigabytes costs nobody more than the limit, and those whom no
    /// client asked nothing; what it writes is the same on all.
    #[test]
    fn its_replies_have_a_limit_and_its_writes_have_none() {
        let mut asked = Store::new();
        let mut other = Store::new();
        let value = vec![b'v'; 1 << 20];
        for store in [&mut asked, &mut other] {
            apply(store, 10, 1, &[b"SET".to_vec(), b"big".to_vec(), value.clone()]);
        }
        let mut commands = vec![vec!["GET", "big"]; 100];
        commands.extend([vec!["GETEX", "big", "PX", "99"], vec!["INCR", "n"]]);
        let argv = Transaction::write::<&str, &str>(&[], &commands);
        let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
        let applying = Applying { slot: 11, time_ms: 1, seed: 0 };
        let Reply::Array(replies) = asked.apply_for(applying, &argv, true) else { panic!() };
        assert_eq!(replies.len(), commands.len(), "every command has its reply");
        let whole = replies.iter().filter(|reply| matches!(reply, Reply::Bulk(_))).count();
        assert_eq!(whole, REPLY_BYTES_MAX >> 20);
        assert!(matches!(&replies[99], Reply::Error(text) if text.starts_with("ERR ")));
        assert!(matches!(&replies[100], Reply::Error(text) if text.starts_with("EXECDONE ")));
        assert_eq!(replies[101], Reply::Integer(1));
        assert_eq!(other.apply_for(applying, &argv, false), Reply::Array(Vec::new()));
        assert_eq!(asked.state_hash(), other.state_hash());
    }

    /// 37: by a write, its own connection's or another's, a deadline, `FLUSHALL`; in an earlier
    /// command of the very same slot too.
    #[test]
    fn any_touch_of_a_watched_key_aborts() {
        for touch in
            ["SET k x", "DEL k", "PEXPIRE k 1000", "RENAME k j", "FLUSHALL", "COPY j k REPLACE"]
        {
            let mut store = Store::new();
            run(&mut store, 9, 1, "MSET k v j v");
            assert_ne!(exec(&mut store, 11, 1, &["SET a 1"]), Reply::NullArray);
            run(&mut store, 12, 1, touch);
            assert_eq!(exec(&mut store, 12, 1, &["SET a 2"]), Reply::NullArray, "{touch}");
        }
        let mut store = Store::new();
        run(&mut store, 9, 1, "SET k v PX 100");
        assert_ne!(exec(&mut store, 11, 100, &["SET a 1"]), Reply::NullArray);
        assert_eq!(exec(&mut store, 12, 101, &["SET a 2"]), Reply::NullArray, "its time has come");
    }

    #[test]
    fn what_changes_nothing_touches_nothing() {
        for line in
            ["SET k x NX", "PERSIST k", "DEL nosuch", "EXPIRE nosuch 1", "GETEX k", "SETNX k x"]
        {
            let mut store = Store::new();
            run(&mut store, 9, 1, "SET k v");
            run(&mut store, 11, 1, line);
            assert_ne!(exec(&mut store, 12, 1, &["SET a 1"]), Reply::NullArray, "{line}");
        }
        // `FLUSHALL` of a store without it.
        let mut store = Store::new();
        run(&mut store, 9, 1, "SET a v");
        run(&mut store, 11, 1, "FLUSHALL");
        assert_ne!(exec(&mut store, 12, 1, &["SET a 1"]), Reply::NullArray);
    }

    #[test]
    fn an_expired_key_of_a_long_sweep_aborts_too() {
        let mut store = Store::new();
        for index in 0..10_000 {
            run(&mut store, 9, 1, &format!("SET old{index} v PXAT 500"));
        }
        run(&mut store, 9, 1, "SET k v PXAT 501");
        assert_eq!(exec(&mut store, 11, 600, &["SET a 1"]), Reply::NullArray);
    }

    #[test]
    fn it_reads_back_and_nonsense_is_refused() {
        let watches = [Watch { key: "k", slot: 7 }, Watch { key: "", slot: 0 }];
        let commands = [vec!["SET", "a", ""], vec!["PING"]];
        let argv = Transaction::write(&watches, &commands);
        let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
        let transaction = Transaction::read(&argv).expect("our own");
        assert_eq!(transaction.watches[0], Watch { key: &b"k"[..], slot: 7 });
        assert_eq!(transaction.commands[0], [&b"SET"[..], b"a", b""]);
        for cut in [0, 1, 2, 3, 4, 5, 8] {
            let read = Transaction::read(&argv[..cut]);
            assert!(read.is_none() || cut == 6, "{cut}");
        }
        for bad in
            ["MULTI", "MULTI x", "MULTI -1", "MULTI 0 0", "MULTI 0 9 a", "MULTI 1 k", "multi 0"]
        {
            let argv: Vec<&[u8]> = bad.split(' ').map(str::as_bytes).collect();
            assert_eq!(Transaction::read(&argv), None, "{bad}");
        }
    }
}
