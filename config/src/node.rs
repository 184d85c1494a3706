//! The typed form of `node.toml` and of `members.toml` beside it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `node.toml`: everything one node needs to know, but for the keys of its peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    pub schema: u32,
    /// Name of the cluster, for people.
    pub cluster: String,
    /// Drawn once by the deployer, the same on all nodes; hex. Peers of another uuid are refused.
    pub cluster_uuid: String,
    /// Paxos server id of this node.
    pub id: u32,
    /// Name of this node, for people and traces.
    pub name: String,
    /// Journal, snapshots, identity, admin socket.
    pub data_dir: PathBuf,
    pub listen: Listen,
    #[serde(default)]
    pub security: Security,
    #[serde(default, rename = "user")]
    pub users: Vec<User>,
    #[serde(default)]
    pub behaviour: Behaviour,
    #[serde(default)]
    pub trace: Trace,
}

/// Where this node listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    pub client: SocketAddr,
    pub peer: SocketAddr,
    pub http: SocketAddr,
}

/// `members.toml`: the initial configuration (number 0), the same on all nodes. Written by the
/// deployer after every node has been formatted. Read at the first start only; afterwards the
/// configuration in the log rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Members {
    pub cluster_uuid: String,
    #[serde(rename = "member")]
    pub members: Vec<MemberConfig>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    pub id: u32,
    pub name: String,
    pub role: Role,
    /// Hex, as printed by `paxos-node identity`: a random u64 written by `format`.
    pub incarnation: String,
    /// Hex of the 32 raw bytes of the Ed25519 public key made by `format`.
    pub public_key: String,
    /// host:port as peers dial it.
    pub peer: String,
    /// host:port as clients are redirected to.
    pub client: String,
    /// host:port of the read-only pages.
    pub http: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Voter,
    Learner,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    pub peers: PeerSecurity,
    pub clients: ClientSecurity,
    /// Extra CIDRs that may read the HTTP pages.
    pub scrape_from: Vec<String>,
}

impl Default for Security {
    fn default() -> Self {
        Security {
            peers: PeerSecurity::Tls,
            clients: ClientSecurity::Auth,
            scrape_from: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerSecurity {
    Tls,
    /// Loopback only.
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientSecurity {
    Auth,
    Open,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub name: String,
    pub role: UserRole,
    /// One or two (during a rotation) lower-case hex digests.
    pub password_sha256: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserRole {
    Ro,
    Rw,
}

/// What a preset sets. Units are in the names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    pub election: Election,
    pub heartbeat_ms: u64,
    pub silence_ms: u64,
    pub silence_jitter_ms: u64,
    pub takeover_rank_ms: u64,
    pub phase1_ms: u64,
    pub phase1_max_ms: u64,
    pub resend_ms: u64,
    pub stalled_ms: u64,
    pub priority: u32,
    pub window_slots: u64,
    pub window_bytes: u64,
    /// How long a command waits for a leader before `-CLUSTERDOWN`.
    pub hold_ms: u64,
    /// Largest value (and largest command) that is accepted at the door, in bytes.
    pub command_bytes_max: u64,
    pub connections_max: u64,
    /// A snapshot is taken when the journal has grown by this much since the last one.
    pub snapshot_every_bytes: u64,
    pub segment_bytes: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            election: Election::Ballot,
            heartbeat_ms: 25,
            silence_ms: 150,
            silence_jitter_ms: 50,
            takeover_rank_ms: 10,
            phase1_ms: 200,
            phase1_max_ms: 1_000,
            resend_ms: 200,
            stalled_ms: 500,
            priority: 0,
            window_slots: 256,
            window_bytes: 16 << 20,
            hold_ms: 1_000,
            command_bytes_max: 8 << 20,
            connections_max: 20_000,
            snapshot_every_bytes: 256 << 20,
            segment_bytes: 64 << 20,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Election {
    Ballot,
    HighestId,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trace {
    /// A filter as `tracing-subscriber` reads it, for example `info` or `info,paxos_node=debug`.
    pub filter: String,
    /// Folder of the rolling files; default `<data_dir>/trace`.
    pub dir: Option<PathBuf>,
    /// Files kept, one a day.
    pub files_max: u64,
    pub stderr: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Trace { filter: "info".to_owned(), dir: None, files_max: 7, stderr: true }
    }
}
