//! Our side: the parser, and a node that is alone in its cluster, so leads. No socket, no disk: its
//! records count as synced at once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node::clients::SessionId;
use node::command::{self, ConnectionState, Door, ServerView, User};
use node::node::{Effects, Node};
use node::resp::{Limits, RequestParser};
use node::snapshot::Loaded;
use paxos::{Configuration, Member, NodeId, Now, Output, Recovered, Replica, Settings};

/// A leader of one, open to everybody.
struct Alone;

impl ServerView for Alone {
    fn cluster_uuid(&self) -> &str {
        "00112233445566778899aabbccddeeff"
    }
    fn node_id(&self) -> u32 {
        1
    }
    fn members(&self) -> Vec<command::Member> {
        let host = "127.0.0.1".to_owned();
        vec![command::Member { id: 1, host, port: 7379, peer_port: 7380, reachable: true }]
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
    fn memory_bytes_max(&self) -> u64 {
        0
    }
    fn clients_bytes(&self) -> usize {
        0
    }
    fn clients_bytes_max(&self) -> u64 {
        0
    }
    fn clients_evicted(&self) -> u64 {
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
    node: Node,
    id: SessionId,
    parser: RequestParser,
    /// Where the node's monotonic clock is.
    mono_us: u64,
    close: bool,
}

impl Ours {
    pub(crate) fn new() -> Ours {
        let only = NodeId(1);
        let configuration = Configuration {
            members: [(only, Member::default())].into_iter().collect(),
            store_version: 1,
            ..Configuration::default()
        };
        let now = Now { mono_us: 1, wall_ms: wall_ms() };
        let mut output = Output::default();
        let nothing = Recovered::default();
        let settings = Settings::new(only, 1, 1);
        let loaded = Loaded::nothing(configuration.clone());
        let replica = Replica::recover(settings, configuration, nothing, now, &mut output);
        let behaviour = config::Behaviour::default();
        let mut node = Node::new(replica, loaded, behaviour, 1, output, now);
        let id =
            node.clients.open(|id| ConnectionState::new(id, String::new(), String::new(), true, 0));
        let mut ours = Ours { node, id, parser: RequestParser::new(), mono_us: 1, close: false };
        for _ in 0..1_000 {
            if ours.node.log_time_ms(ours.now()).is_some() {
                return ours;
            }
            ours.turn();
        }
        panic!("a node that is alone does not lead after {} us", ours.mono_us);
    }

    fn now(&self) -> Now {
        Now { mono_us: self.mono_us, wall_ms: wall_ms() }
    }

    /// What the shell does, and five milliseconds.
    fn turn(&mut self) {
        self.mono_us += 5_000;
        let mut effects = Effects::default();
        self.node.tick(self.now());
        self.node.turn(self.now(), &mut effects);
        self.node.synced(self.now(), effects.position);
        self.node.turn(self.now(), &mut effects);
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
        let store = &self.node.store;
        assert_eq!(store.state_hash(), store.recompute_state_hash());
    }

    /// All that comes back for these bytes, until the connection closes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Vec<u8> {
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
                        self.command(&request.arguments);
                    }
                }
                Err(error) => {
                    self.node.clients.refuse_protocol(self.id, &error.reply());
                    self.close = true;
                }
            }
        }
        self.parser = parser;
        self.replies()
    }

    fn command(&mut self, argv: &[&[u8]]) {
        let now = self.now();
        let Some(spec) = self.node.command(now, self.id, argv) else { return };
        let session = self.node.clients.get_mut(self.id).expect("it is open");
        let mut door = Door { connection: &mut session.connection, server: &Alone, close: false };
        let reply = command::answer(spec, &mut door, argv);
        self.close = door.close;
        self.node.answered(now, self.id, spec, reply);
    }

    /// Lets the node work until every request has its reply.
    fn replies(&mut self) -> Vec<u8> {
        for _ in 0..1_000 {
            let session = self.node.clients.get_mut(self.id).expect("it is open");
            if !session.has_pending() {
                return std::mem::take(&mut session.out);
            }
            self.turn();
        }
        panic!("a request has no reply after a thousand turns");
    }
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}
