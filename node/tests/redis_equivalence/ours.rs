//! Our side: parser, table and store in a row, as the node's loop puts them together.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node::command::{self, Class, ConnectionState, Door, Member, ServerView, User};
use node::resp::{Limits, RequestParser};
use node::store::{Applying, Reading, Store};

/// A leader of one, open to everybody.
struct Alone;

impl ServerView for Alone {
    fn cluster_uuid(&self) -> &str {
        "00112233445566778899aabbccddeeff"
    }
    fn node_id(&self) -> u32 {
        1
    }
    fn members(&self) -> Vec<Member> {
        let host = "127.0.0.1".to_owned();
        vec![Member { id: 1, host, port: 7379, peer_port: 7380, reachable: true }]
    }
    fn leader(&self) -> Option<u32> {
        Some(1)
    }
    fn is_leader(&self) -> bool {
        true
    }
    fn has_leader(&self) -> bool {
        true
    }
    fn round(&self) -> u64 {
        1
    }
    fn chosen_slots(&self) -> u64 {
        0
    }
    fn is_loading(&self) -> bool {
        false
    }
    fn users(&self) -> &[User] {
        &[]
    }
    fn connections(&self) -> Vec<ConnectionState> {
        Vec::new()
    }
    fn connection_count(&self) -> usize {
        1
    }
    fn connections_max(&self) -> usize {
        10_000
    }
    fn command_bytes_max(&self) -> usize {
        512 << 20
    }
    fn key_count(&self) -> usize {
        0
    }
    fn expiring_count(&self) -> usize {
        0
    }
    fn memory_bytes(&self) -> usize {
        0
    }
    fn commands_processed(&self) -> u64 {
        0
    }
    fn connections_received(&self) -> u64 {
        0
    }
    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
    fn wall_clock(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
    }
    fn followers_with_last_write(&self) -> usize {
        0
    }
}

pub(crate) struct Ours {
    store: Store,
    connection: ConnectionState,
    parser: RequestParser,
    slot: u64,
    close: bool,
}

impl Ours {
    pub(crate) fn new() -> Ours {
        Ours {
            store: Store::new(),
            connection: ConnectionState::new(1, String::new(), String::new(), true, 0),
            parser: RequestParser::new(),
            slot: 0,
            close: false,
        }
    }

    /// The reply to one command, sent as bytes and parsed again.
    pub(crate) fn run(&mut self, command: &[Vec<u8>]) -> Vec<u8> {
        let bytes = super::frames::request(command);
        let replies = self.raw(&bytes);
        assert!(!self.close, "the connection was closed by {}", super::show_command(command));
        replies
    }

    /// The state hash that was kept is the one of the records that are there.
    pub(crate) fn check_state_hash(&self) {
        assert_eq!(self.store.state_hash(), self.store.recompute_state_hash());
    }

    /// All that comes back for these bytes, until the connection closes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = bytes;
        let limits = Limits::authenticated(512 << 20);
        // Apart from `self`, which the arguments' command changes while they borrow the parser.
        let mut parser = std::mem::take(&mut self.parser);
        while !self.close {
            match parser.parse(rest, &limits) {
                Ok(None) => break,
                Ok(Some(request)) => {
                    rest = &rest[request.consumed..];
                    if !request.arguments.is_empty() {
                        self.command(&request.arguments, &mut out);
                    }
                }
                Err(error) => {
                    out.extend_from_slice(&error.reply());
                    self.close = true;
                }
            }
        }
        self.parser = parser;
        out
    }

    fn command(&mut self, argv: &[&[u8]], out: &mut Vec<u8>) {
        let reply = match command::check(argv)
            .and_then(|spec| command::authorize(&self.connection, spec).map(|()| spec))
        {
            Err(error) => error,
            Ok(spec) => match spec.class {
                Class::Connection | Class::Server => {
                    let mut door =
                        Door { connection: &mut self.connection, server: &Alone, close: false };
                    let reply = command::answer(spec, &mut door, argv);
                    self.close = door.close;
                    reply
                }
                Class::Read => match command::validate(spec, argv) {
                    Err(error) => error,
                    Ok(()) => self.read(argv),
                },
                Class::Write => match command::validate(spec, argv) {
                    Err(error) => error,
                    Ok(()) => self.write(argv),
                },
            },
        };
        // Encoded afterwards: HELLO answers in the version that it has just chosen.
        reply.encode(self.connection.protocol, out);
    }

    fn read(&mut self, argv: &[&[u8]]) -> node::resp::Reply {
        let clock_ms = now_ms();
        let hash = self.store.state_hash();
        match self.store.read(Reading { clock_ms, seed: clock_ms }, argv) {
            Ok(reply) => {
                // 84
                assert_eq!(self.store.state_hash(), hash, "a read changed the store");
                reply
            }
            Err(past) => {
                self.store.mark_time(past.deadline_ms);
                self.read(argv)
            }
        }
    }

    fn write(&mut self, argv: &[&[u8]]) -> node::resp::Reply {
        self.slot += 1;
        let applying = Applying { slot: self.slot, time_ms: now_ms(), seed: self.slot };
        self.store.apply(applying, argv)
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}
