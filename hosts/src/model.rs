//! An inventory that has been read: every default resolved, every path absolute, nothing left to
//! look up elsewhere. What the operator wrote is a wish; these are its values.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::problem::{Problem, Problems, Severity};

/// The machines of one cluster, and what is wished of them.
///
/// - Names and ids of hosts are unique; so is every address:port that peers or clients dial.
/// - There are 1 to 9 voters.
/// - Hosts are in the order of the file, which is the order of every table that people see.
#[derive(Clone, Debug)]
pub struct Inventory {
    pub cluster: Cluster,
    pub hosts: Vec<Host>,
    pub guard: Guard,
    pub security: Security,
    pub users: Vec<User>,
    pub monitoring: Monitoring,
    /// Connections that the operator's machine keeps open at once.
    pub max_parallel: usize,
    /// How the inventory was named: a path, or `stdin`.
    pub origin: String,
    /// The text as it was read; `up` leaves a copy on every host. It holds no secret.
    pub text: String,
    /// What is doubtful but admitted.
    pub warnings: Problems,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cluster {
    pub name: String,
    pub config: ConfigChoice,
    pub binary: Binary,
}

/// How the nodes behave: a preset by its name, or a file of the operator's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigChoice {
    Preset(String),
    File(PathBuf),
}

/// Which `paxos-node` is deployed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Binary {
    /// The one built from this checkout.
    #[default]
    Built,
    /// One file for all hosts.
    File(PathBuf),
    /// One file per architecture, as `uname -m` names it.
    PerArchitecture(BTreeMap<String, PathBuf>),
}

/// One node and the machine it runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// What people say.
    pub name: String,
    /// The Paxos server id; never reused.
    pub id: u32,
    /// What ssh dials.
    pub address: String,
    /// What peers and clients dial.
    pub advertise: String,
    /// What the node listens on.
    pub listen: IpAddr,
    pub role: Role,
    pub labels: BTreeMap<String, String>,
    pub client_port: u16,
    pub peer_port: u16,
    pub http_port: u16,
    pub deploy_dir: PathBuf,
    pub data_dir: PathBuf,
    pub supervisor: Supervisor,
    pub ssh: Ssh,
    pub limits: Limits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Voter,
    Learner,
}

/// What keeps a node running on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Supervisor {
    /// systemd where the host has it, else a detached process.
    Auto,
    Systemd,
    Process,
}

/// How ssh reaches a host. What is `None` is left to the operator's ssh configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ssh {
    pub user: Option<String>,
    pub port: Option<u16>,
    pub identity_file: Option<PathBuf>,
    /// `[user@]host[:port]`, dialled one through the other.
    pub jump: Vec<String>,
    pub known_hosts: PathBuf,
    pub host_keys: HostKeys,
    #[serde(serialize_with = "as_milliseconds")]
    pub connect_timeout: Duration,
}

/// What is done about a host key that `known_hosts` does not have. A changed key is refused in
/// both cases, and there is no third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeys {
    Strict,
    AcceptNew,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes; `None` sets no limit.
    pub memory_max: Option<u64>,
    /// Open files; `None` leaves the host's own limit.
    pub nofile: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Guard {
    /// The label whose values fail together: a zone, a rack.
    pub spread: Option<String>,
    pub max_lag_slots: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Security {
    pub peers: Peers,
    pub clients: Clients,
    pub scrape_from: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Peers {
    Tls,
    /// Loopback only.
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Clients {
    Auth,
    Open,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    pub name: String,
    pub role: UserRole,
    /// Lower-case hex; two during a rotation, the newest last.
    pub password_sha256: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UserRole {
    Ro,
    Rw,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Monitoring {
    #[serde(serialize_with = "as_milliseconds")]
    pub scrape_interval: Duration,
}

impl Inventory {
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    pub fn host_by_id(&self, id: u32) -> Option<&Host> {
        self.hosts.iter().find(|host| host.id == id)
    }

    pub fn voters(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.role == Role::Voter)
    }

    /// How many voters must answer: more than half.
    pub fn quorum(&self) -> usize {
        self.voters().count() / 2 + 1
    }

    /// Each exception to "safe unless told otherwise", for `plan` and `status` to print behind
    /// `INSECURE:`.
    pub fn insecure(&self) -> Vec<&'static str> {
        let mut exceptions = Vec::new();
        if self.security.clients == Clients::Open {
            exceptions.push("clients = \"open\": whoever reaches a client port may read and write");
        }
        if self.security.peers == Peers::Plain {
            exceptions.push("peers = \"plain\": nodes talk without encryption and know each other by number only");
        }
        if self.hosts.iter().any(|host| host.ssh.host_keys == HostKeys::AcceptNew) {
            exceptions.push(
                "host_keys = \"accept-new\": the first connection to a host trusts whoever answers",
            );
        }
        exceptions
    }

    /// What must be settled before nodes may be started with this inventory, though it may be
    /// written, checked and added to without.
    pub fn unsettled(&self) -> Problems {
        if self.security.clients == Clients::Open || !self.users.is_empty() {
            return Problems::default();
        }
        let problem = Problem {
            severity: Severity::Error,
            file: self.origin.clone(),
            line: 1,
            column: 1,
            message: "clients = \"auth\", but there is no user: nobody could connect".to_owned(),
            source_line: self.text.lines().next().unwrap_or_default().to_owned(),
            width: 1,
            label: String::new(),
            conflicts_with: None,
            hint: Some("paxosctl user add app   (makes a password and shows it once)".to_owned()),
        };
        Problems(vec![problem])
    }
}

impl Host {
    /// `host:port` as clients dial it; IPv6 in brackets.
    pub fn client_endpoint(&self) -> String {
        endpoint(&self.advertise, self.client_port)
    }

    pub fn peer_endpoint(&self) -> String {
        endpoint(&self.advertise, self.peer_port)
    }

    pub fn http_endpoint(&self) -> String {
        endpoint(&self.advertise, self.http_port)
    }

    /// Whether peers and clients reach this node on the machine's own loopback only.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.advertise)
    }

    /// Where the releases stand, and the link to the one that runs.
    pub fn releases_dir(&self) -> PathBuf {
        self.deploy_dir.join("releases")
    }

    pub fn current(&self) -> PathBuf {
        self.deploy_dir.join("current")
    }

    pub fn node_toml(&self) -> PathBuf {
        self.deploy_dir.join("node.toml")
    }

    pub fn members_toml(&self) -> PathBuf {
        self.deploy_dir.join("members.toml")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }

    /// Whether `other` lives on the same machine, as far as the inventory tells.
    pub fn shares_machine_with(&self, other: &Host) -> bool {
        self.address == other.address || (is_loopback(&self.address) && is_loopback(&other.address))
    }
}

pub(crate) fn endpoint(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub(crate) fn is_loopback(address: &str) -> bool {
    address == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Loopback stays on loopback; whoever is dialled from elsewhere listens on all addresses, because
/// the address that others dial may belong to a router in front.
pub(crate) fn listen_for(advertise: &str) -> IpAddr {
    match advertise.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => ip,
        Ok(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ if advertise == "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

/// A path of the operator's machine: `~` is the home folder, and a relative path begins beside
/// the inventory.
pub(crate) fn local_path(text: &str, folder: &Path) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => folder.join(text),
    }
}

fn as_milliseconds<S: serde::Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

macro_rules! words {
    ($type:ty { $($variant:ident = $word:literal),+ }) => {
        impl $type {
            /// Every value as an inventory writes it.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            pub(crate) fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self {
                    $(Self::$variant => $word),+
                })
            }
        }
    };
}

words!(Role { Voter = "voter", Learner = "learner" });
words!(Supervisor { Auto = "auto", Systemd = "systemd", Process = "process" });
words!(HostKeys { Strict = "strict", AcceptNew = "accept-new" });
words!(Peers { Tls = "tls", Plain = "plain" });
words!(Clients { Auth = "auth", Open = "open" });
words!(UserRole { Ro = "ro", Rw = "rw" });
