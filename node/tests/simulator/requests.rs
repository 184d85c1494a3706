//! The way between clients and nodes, and what clients do next.

use bytes::{Bytes, BytesMut};
use config::FollowerReads;
use node::resp::Protocol;
use node::store::Reading;
use paxos::NodeId;

use super::MS;
use super::asking::encode;
use super::broken::Broken;
use super::clients::{Client, Next};
use super::coverage::Rare;
use super::machine::Connection;
use super::simulation::{Event, Simulation};

impl Simulation {
    pub(super) fn act(&mut self, client: usize) {
        self.resend();
        let works = self.clients_work || self.clients.insists(client);
        if works && !self.clients.waits(client) {
            let (plan, chance) = (&self.plan, &mut self.chance);
            let Some(_) = self.machines[&self.clients.all[client].node].nonce() else {
                return self.turn_to(client, None);
            };
            let bytes = self.clients.ask(client, self.time_us, plan, chance);
            self.send(client, bytes);
        }
    }

    pub(super) fn read_at_leader(&mut self, key: &Bytes) {
        if let Some((leader, _)) = self.leaders().first().copied() {
            self.move_to(0, leader);
        }
        let bytes = self.clients.ask_for(0, self.time_us, key);
        self.send(0, bytes);
    }

    fn send(&mut self, client: usize, bytes: Bytes) {
        let node = self.clients.all[client].node;
        let Some(nonce) = self.machines[&node].nonce() else {
            self.lose(client);
            return self.turn_to(client, None);
        };
        let connection = match self.clients.all[client].connection {
            Some(connection) => connection,
            None => self.new_connection(),
        };
        self.clients.all[client].connection = Some(connection);
        let delay_us = self.chance.between(20, 400);
        self.after(delay_us, Event::Request { node, nonce, connection, bytes });
        let replies = self.clients.all[client].replies;
        let patience_us = match self.clients.insists(client) {
            true => self.plan.once_patience_us,
            false => self.plan.patience_us,
        };
        self.after(patience_us, Event::Impatient { client, replies });
    }

    fn new_connection(&mut self) -> Connection {
        self.connections += 1;
        Connection(self.connections)
    }

    fn client_of(&self, connection: Connection) -> Option<usize> {
        self.clients.all.iter().position(|client| client.connection == Some(connection))
    }

    pub(super) fn request(&mut self, node: NodeId, connection: Connection, bytes: &Bytes) {
        if self.lies_to(node, connection) {
            return;
        }
        self.at(node, |process, now| process.request(now, connection, bytes));
    }

    pub(super) fn reply(&mut self, connection: Connection, bytes: &[u8]) {
        let Some(client) = self.client_of(connection) else { return };
        self.trace(|| format!("client {client} < {}", bytes.escape_ascii()));
        match self.clients.receive(client, self.time_us, bytes) {
            Next::Wait => {}
            Next::Think => self.think(client),
            Next::TurnTo(node) => self.turn_to(client, node),
        }
    }

    pub(super) fn closed(&mut self, connection: Connection) {
        if let Some(client) = self.client_of(connection) {
            self.lose(client);
            self.turn_to(client, None);
        }
    }

    /// A client that has waited for too long hangs up.
    pub(super) fn impatient(&mut self, client: usize, replies: u64) {
        if self.clients.all[client].replies != replies || !self.clients.waits(client) {
            return;
        }
        self.coverage.count(Rare::ClientGaveUp);
        let node = self.clients.all[client].node;
        let connection = self.clients.all[client].connection;
        if let (Some(connection), Some(nonce)) = (connection, self.machines[&node].nonce()) {
            self.after(100, Event::HangUp { node, nonce, connection });
        }
        self.lose(client);
        self.turn_to(client, None);
    }

    /// A connection whose other end is gone is found out at once, not after a client's patience.
    pub(super) fn close_dead_connections(&mut self) {
        for client in 0..self.clients.all.len() {
            let Client { node, connection, .. } = &self.clients.all[client];
            if let Some(connection) = *connection
                && !self.process(*node).is_some_and(|process| process.knows(connection))
            {
                self.closed(connection);
            }
        }
    }

    /// One that reads anywhere does not stay where it is for long.
    fn think(&mut self, client: usize) {
        if self.clients.all[client].reads_anywhere != FollowerReads::Moved
            && !self.clients.insists(client)
            && !self.clients.all[client].watching
            && self.chance.one_in(3)
        {
            let node = *self.chance.pick(&self.ids());
            self.move_to(client, node);
        }
        let delay_us = self.chance.between(1, 2 * self.plan.think_us);
        self.after(delay_us, Event::Act { client });
    }

    /// Goes on at another node: the one it was told of, or any.
    fn turn_to(&mut self, client: usize, node: Option<NodeId>) {
        let ids = self.ids();
        let node = match node {
            Some(node) => node,
            None => *self.chance.pick(&ids),
        };
        self.move_to(client, node);
        // Nobody asks a cluster without a leader as fast as it can refuse.
        let delay_us = self.chance.between(MS, 20 * MS);
        self.after(delay_us, Event::Act { client });
    }

    fn move_to(&mut self, client: usize, node: NodeId) {
        let from = self.clients.all[client].node;
        if from == node {
            return;
        }
        self.clients.all[client].node = node;
        let connection = self.clients.all[client].connection;
        self.clients.forget_connection(client);
        if let Some(connection) = connection
            && let Some(nonce) = self.machines[&from].nonce()
        {
            self.after(100, Event::HangUp { node: from, nonce, connection });
        }
    }

    fn lose(&mut self, client: usize) {
        let unknown = self.clients.lose_connection(client);
        if self.broken != Some(Broken::ResendsBlindly) {
            return;
        }
        self.resends.extend(unknown);
    }

    /// Nobody listens to what comes of it.
    fn resend(&mut self) {
        let Some((node, _)) = self.leaders().last().copied() else { return };
        let Some(nonce) = self.machines[&node].nonce() else { return };
        let Some(argv) = self.resends.pop() else { return };
        let mut bytes = BytesMut::new();
        encode(&mut bytes, &argv);
        let connection = self.new_connection();
        let bytes = bytes.freeze();
        self.after(100, Event::Request { node, nonce, connection, bytes });
    }

    /// Nodes that are wrong on purpose. True if the request goes no further.
    fn lies_to(&mut self, node: NodeId, connection: Connection) -> bool {
        let Some(process) = self.process(node) else { return false };
        let Some(client) = self.client_of(connection) else { return false };
        let Some(argv) = self.clients.first_asked(client) else { return false };
        if process.node.replica.leading().is_none() {
            return false;
        }
        match self.broken {
            Some(Broken::RepliesBeforeApply)
                if argv[0] == b"SET" && !self.muted.contains(&connection) =>
            {
                self.muted.insert(connection);
                self.after(100, Event::Reply { connection, bytes: Bytes::from_static(b"+OK\r\n") });
                false
            }
            Some(Broken::ReadsWithoutRound) if argv[0] == b"GET" => {
                let words: Vec<&[u8]> = argv.iter().map(|word| &word[..]).collect();
                let store = &process.node.store;
                let reading = Reading { clock_ms: store.time_ms(), seed: 0 };
                let Ok(reply) = store.read(reading, &words) else { return false };
                let mut bytes = Vec::new();
                reply.encode(Protocol::Resp2, &mut bytes);
                self.after(100, Event::Reply { connection, bytes: bytes.into() });
                true
            }
            _ => false,
        }
    }
}
