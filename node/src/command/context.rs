//! What the commands of the classes Connection and Server see: the connection they came from, and
//! the node through a [`ServerView`], which the node's loop implements. Neither knows a socket.

use std::time::Duration;

use crate::resp::Protocol;

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    ReadOnly,
    ReadWrite,
}

/// A user of the client port, as configured.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
    pub role: Role,
    /// One digest, or two while a password is being rotated.
    pub password_sha256: Vec<[u8; 32]>,
}

/// Who a connection speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub role: Role,
}

impl Identity {
    /// Everyone, where no users are configured (`clients = "open"`).
    pub fn default_user() -> Identity {
        Identity { name: "default".to_owned(), role: Role::ReadWrite }
    }
}

/// The state of one client connection, which its commands read and change.
#[derive(Clone, Debug)]
pub struct ConnectionState {
    pub id: u64,
    pub address: String,
    pub local_address: String,
    pub protocol: Protocol,
    /// `None` until it has authenticated.
    pub identity: Option<Identity>,
    pub name: String,
    pub library_name: String,
    pub library_version: String,
    /// Set by `READONLY`: reads on a follower are wanted.
    pub readonly: bool,
    /// Set by `ASKING`, for the next command.
    pub asking: bool,
    pub no_evict: bool,
    pub opened_ms: u64,
    pub last_command_ms: u64,
    /// Full name of the last command: `client|list`.
    pub last_command: &'static str,
}

impl ConnectionState {
    /// A connection just accepted. `open`: no users are configured, so nobody need authenticate.
    pub fn new(id: u64, address: String, local_address: String, open: bool, now_ms: u64) -> Self {
        ConnectionState {
            id,
            address,
            local_address,
            protocol: Protocol::Resp2,
            identity: open.then(Identity::default_user),
            name: String::new(),
            library_name: String::new(),
            library_version: String::new(),
            readonly: false,
            asking: false,
            no_evict: false,
            opened_ms: now_ms,
            last_command_ms: now_ms,
            last_command: "NULL",
        }
    }

    pub fn is_authenticated(&self) -> bool {
        self.identity.is_some()
    }
}

/// A member of the cluster, as clients are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: u32,
    /// Where clients reach it: the announced host and port.
    pub host: String,
    pub port: u16,
    pub peer_port: u16,
    /// Whether this node hears from it.
    pub reachable: bool,
}

/// What a node knows of itself and of the cluster.
pub trait ServerView {
    /// Hex, the same on all nodes; 40-digit node ids are derived from it.
    fn cluster_uuid(&self) -> &str;
    fn node_id(&self) -> u32;
    /// All members, this node included.
    fn members(&self) -> Vec<Member>;
    /// The leader, or the last one known; `None` only before the first was heard of.
    fn leader(&self) -> Option<u32>;
    /// Whether this node leads.
    fn is_leader(&self) -> bool;
    /// Whether some node is believed to lead now.
    fn has_leader(&self) -> bool;
    /// Round of the highest ballot known; grows with every election.
    fn round(&self) -> u64;
    /// Slots chosen so far; what Redis calls the replication offset.
    fn chosen_slots(&self) -> u64;
    /// Still reading its journal or installing a snapshot.
    fn is_loading(&self) -> bool;
    /// Empty: everyone may do everything.
    fn users(&self) -> &[User];
    /// All client connections, in the order of their ids.
    fn connections(&self) -> Vec<ConnectionState>;
    fn connection_count(&self) -> usize;
    fn connections_max(&self) -> usize;
    fn command_bytes_max(&self) -> usize;
    fn key_count(&self) -> usize;
    /// Keys that have a deadline.
    fn expiring_count(&self) -> usize;
    fn memory_bytes(&self) -> usize;
    /// Beyond this the leader refuses what grows; 0: never.
    fn memory_bytes_max(&self) -> u64;
    /// What all connections take together, and beyond which none is read from; 0: no limit.
    fn clients_bytes(&self) -> usize;
    fn clients_bytes_max(&self) -> u64;
    /// Connections closed for what all of them took.
    fn clients_evicted(&self) -> u64;
    fn commands_processed(&self) -> u64;
    fn connections_received(&self) -> u64;
    fn uptime(&self) -> Duration;
    /// Since 1970, by this node's wall clock; for `TIME` and `INFO` only.
    fn wall_clock(&self) -> Duration;
    /// How many followers are known to have accepted this connection's last write.
    fn followers_with_last_write(&self) -> usize;
}

/// What a Connection or Server command is given.
pub struct Door<'a> {
    pub connection: &'a mut ConnectionState,
    pub server: &'a dyn ServerView,
    /// Set by `QUIT`: close once the reply is out.
    pub close: bool,
}
