//! A connection's half of a transaction: what it has queued behind `MULTI`, and which keys it
//! watches. The other half is the store's, at apply.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::command;
use crate::resp::{Protocol, Reply};
use crate::store::{Transaction, Watch};

/// A command behind `MULTI`.
#[derive(Clone, Debug)]
pub enum Queued {
    /// For the store.
    Data(Vec<Bytes>),
    /// Of the connection or the server, and answered when it was queued: the log knows neither.
    Answered(Reply),
}

/// What a connection has queued.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    commands: Vec<Queued>,
    bytes: usize,
    /// A command was refused, so `EXEC` will be.
    pub refused: bool,
}

/// What an argument takes besides its bytes.
const ARGUMENT_BYTES: usize = 48;

impl Queue {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues a command; false, with nothing changed, if the queue would outgrow `bytes_max`.
    pub fn push(&mut self, command: Queued, bytes_max: usize) -> bool {
        let bytes = match &command {
            Queued::Data(argv) => argv.iter().map(|argument| argument.len() + ARGUMENT_BYTES).sum(),
            Queued::Answered(reply) => ARGUMENT_BYTES + reply.to_bytes(Protocol::Resp3).len(),
        };
        if self.bytes + bytes > bytes_max {
            return false;
        }
        self.bytes += bytes;
        self.commands.push(command);
        true
    }
}

/// The keys that a connection watches, each with the slot behind which it must not be touched.
#[derive(Clone, Debug, Default)]
pub struct Watches {
    keys: BTreeMap<Bytes, u64>,
    bytes: usize,
    /// A `WATCH` was refused: an `EXEC` that was to rest on it must not go through.
    pub failed: bool,
}

impl Watches {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Watches a key from `slot` on, unless it is watched already.
    pub fn add(&mut self, key: &Bytes, slot: u64) {
        if !self.keys.contains_key(key) {
            self.keys.insert(key.clone(), slot);
            self.bytes += key.len() + ARGUMENT_BYTES;
        }
    }

    /// Whether these keys fit in, too.
    pub fn has_room_for(&self, keys: &[Bytes], bytes_max: usize) -> bool {
        let more: usize = keys.iter().map(|key| key.len() + ARGUMENT_BYTES).sum();
        self.bytes + more <= bytes_max
    }
}

/// An `EXEC` on its way.
#[derive(Clone, Debug)]
pub struct Exec {
    commands: Vec<Queued>,
    /// Taken from the connection when its turn has come: an earlier `WATCH` may still wait.
    watches: Option<Watches>,
}

impl Exec {
    pub fn new(queue: Queue) -> Exec {
        Exec { commands: queue.commands, watches: None }
    }

    pub fn has_watches(&self) -> bool {
        self.watches.is_some()
    }

    pub fn set_watches(&mut self, watches: Watches) {
        self.watches = Some(watches);
    }

    pub fn watch_failed(&self) -> bool {
        self.watches.as_ref().is_some_and(|watches| watches.failed)
    }

    /// The commands for the store.
    pub fn data(&self) -> impl Iterator<Item = &[Bytes]> {
        self.commands.iter().filter_map(|command| match command {
            Queued::Data(argv) => Some(&argv[..]),
            Queued::Answered(_) => None,
        })
    }

    fn watched(&self) -> impl Iterator<Item = (&Bytes, u64)> {
        self.watches.iter().flat_map(|watches| watches.keys.iter().map(|(key, slot)| (key, *slot)))
    }

    /// Whether there is anything for the log to decide.
    pub fn needs_the_log(&self) -> bool {
        self.data().next().is_some() || self.watched().next().is_some()
    }

    /// Where the first key lives.
    pub fn hash_slot(&self) -> u16 {
        let in_commands = self.data().find_map(|argv| {
            let argv: Vec<&[u8]> = argv.iter().map(|argument| &argument[..]).collect();
            let (spec, argv) = command::carried(command::check(&argv).ok()?, &argv);
            spec.keys(argv).next().map(command::hash_slot)
        });
        let watched = || self.watched().next().map(|(key, _)| command::hash_slot(key));
        in_commands.or_else(watched).unwrap_or(0)
    }

    /// The one command of the log that it becomes.
    pub fn log_command(&self) -> Vec<Vec<u8>> {
        let watches: Vec<Watch<&Bytes>> =
            self.watched().map(|(key, slot)| Watch { key, slot }).collect();
        let commands: Vec<&[Bytes]> = self.data().collect();
        Transaction::write(&watches, &commands)
    }

    /// The client's reply, made of the store's and of what was answered before. Anything but the
    /// replies of all commands is passed on as it is.
    pub fn reply(self, of_store: Reply) -> Reply {
        let Reply::Array(of_store) = of_store else { return of_store };
        let mut of_store = of_store.into_iter();
        let replies = self.commands.into_iter().map(|command| match command {
            Queued::Answered(reply) => reply,
            Queued::Data(_) => of_store.next().expect("the store answers every command"),
        });
        Reply::Array(replies.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_watched_from_the_first_time_on() {
        let mut watches = Watches::default();
        let key = Bytes::from_static(b"k");
        watches.add(&key, 5);
        let bytes = watches.bytes;
        watches.add(&key, 9);
        assert_eq!((watches.keys[&key], watches.bytes), (5, bytes));
        assert!(!watches.has_room_for(&[key], bytes));
    }

    #[test]
    fn a_queue_has_its_limit() {
        let mut queue = Queue::default();
        let command = || Queued::Data(vec![Bytes::from_static(b"PING")]);
        assert!(queue.push(command(), 60));
        assert!(!queue.push(command(), 60));
        assert!(!queue.push(Queued::Answered(Reply::bulk([b'x'; 99])), 200));
        assert_eq!(queue.commands.len(), 1);
    }
}
