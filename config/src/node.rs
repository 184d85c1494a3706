//! The typed form of `node.toml` and of `members.toml` beside it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::check;
use crate::presets::read;
use crate::problem::Problems;

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

impl NodeConfig {
    /// Reads and checks `node.toml`; all that is wrong is said at once.
    pub fn load(path: impl AsRef<Path>) -> Result<NodeConfig, Problems> {
        let path = path.as_ref();
        NodeConfig::parse(&read(path)?, &path.display().to_string())
    }

    /// The same from memory; `origin` names the text in messages.
    pub fn parse(text: &str, origin: &str) -> Result<NodeConfig, Problems> {
        check::node(text, origin)
    }

    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a NodeConfig has string keys only")
    }
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Members {
    /// 1 where it is not given: the first files had none.
    #[serde(default = "first_schema")]
    pub schema: u32,
    pub cluster_uuid: String,
    /// The rules of the cluster when it is founded; where they are not given, those of the node's own
    /// file. A node keeps them with its copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_percent: Option<u32>,
    /// 1 where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_version: Option<u32>,
    #[serde(rename = "member")]
    pub members: Vec<MemberConfig>,
}

fn first_schema() -> u32 {
    1
}

/// Nobody yet.
impl Default for Members {
    fn default() -> Members {
        Members {
            schema: first_schema(),
            cluster_uuid: String::new(),
            lease_ms: None,
            drift_percent: None,
            store_version: None,
            members: Vec::new(),
        }
    }
}

impl Members {
    /// Reads and checks `members.toml`; all that is wrong is said at once.
    pub fn load(path: impl AsRef<Path>) -> Result<Members, Problems> {
        let path = path.as_ref();
        Members::parse(&read(path)?, &path.display().to_string())
    }

    /// The same from memory; `origin` names the text in messages.
    pub fn parse(text: &str, origin: &str) -> Result<Members, Problems> {
        check::members(text, origin)
    }

    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("Members have string keys only")
    }
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

/// What a preset sets. Units are in the names; `presets/default.toml` says what each key does.
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
    pub reads: Reads,
    pub lease_ms: u64,
    pub drift_percent: u32,
    pub follower_reads: FollowerReads,
    pub window_slots: u64,
    pub window_bytes: u64,
    /// How long a command waits for a leader before `-CLUSTERDOWN`.
    pub hold_ms: u64,
    /// Largest value (and largest command) that is accepted at the door, in bytes.
    pub command_bytes_max: u64,
    pub connections_max: u64,
    /// What all connections together may hold; 0 for a share of this machine's memory.
    pub clients_bytes_max: u64,
    /// What the data may take before the leader refuses what grows; 0 for a share of its memory.
    pub store_bytes_max: u64,
    /// A snapshot is taken when the journal has grown by this much since the last one.
    pub snapshot_every_bytes: u64,
    pub segment_bytes: u64,
    /// Whether faults may be injected over the admin socket.
    pub chaos: bool,
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
            reads: Reads::Lease,
            lease_ms: 100,
            drift_percent: 20,
            follower_reads: FollowerReads::Moved,
            window_slots: 256,
            window_bytes: 16 << 20,
            hold_ms: 1_000,
            command_bytes_max: 8 << 20,
            connections_max: 20_000,
            clients_bytes_max: 0,
            store_bytes_max: 0,
            snapshot_every_bytes: 256 << 20,
            segment_bytes: 64 << 20,
            chaos: false,
        }
    }
}

/// How a leader makes sure that it still is the only one, before it answers a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reads {
    /// By a lease, and by a round without one.
    Lease,
    /// By a round among a quorum, always.
    Quorum,
}

/// What a node that does not lead does with a read on a connection that said READONLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FollowerReads {
    /// Redirects, as without READONLY.
    Moved,
    /// Asks the leader from which slot on, and serves it itself.
    Linearizable,
    /// Serves it from what it has.
    Stale,
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
    /// Files kept; the oldest goes when a new one is begun.
    pub files_max: u64,
    /// A file is not written beyond this: all of them hold at most `files_max` times as much.
    pub file_bytes_max: u64,
    pub stderr: bool,
}

impl Default for Trace {
    fn default() -> Self {
        Trace {
            filter: "info".to_owned(),
            dir: None,
            files_max: 8,
            file_bytes_max: 16 << 20,
            stderr: true,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One with every section filled.
    pub(crate) fn example() -> NodeConfig {
        NodeConfig {
            schema: 1,
            cluster: "demo".to_owned(),
            cluster_uuid: "0123456789abcdef0123456789abcdef".to_owned(),
            id: 1,
            name: "n1".to_owned(),
            data_dir: "/var/lib/paxos".into(),
            listen: Listen {
                client: "10.0.0.11:7379".parse().unwrap(),
                peer: "10.0.0.11:7380".parse().unwrap(),
                http: "10.0.0.11:7381".parse().unwrap(),
            },
            security: Security::default(),
            users: vec![User {
                name: "app".to_owned(),
                role: UserRole::Rw,
                password_sha256: vec!["ab".repeat(32)],
            }],
            behaviour: Behaviour::default(),
            trace: Trace::default(),
        }
    }

    pub(crate) fn example_members() -> Members {
        let member = |id: u32| MemberConfig {
            id,
            name: format!("n{id}"),
            role: Role::Voter,
            incarnation: format!("{id:016x}"),
            public_key: format!("{id:064x}"),
            peer: format!("10.0.0.{id}:7380"),
            client: format!("10.0.0.{id}:7379"),
            http: format!("10.0.0.{id}:7381"),
        };
        Members {
            schema: 1,
            cluster_uuid: "0123456789abcdef0123456789abcdef".to_owned(),
            lease_ms: Some(100),
            drift_percent: Some(20),
            store_version: Some(1),
            members: (1..=3).map(member).collect(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (node, members) = (example(), example_members());
        assert_eq!(NodeConfig::parse(&node.to_toml(), "node.toml").unwrap(), node);
        assert_eq!(Members::parse(&members.to_toml(), "members.toml").unwrap(), members);
    }
}
