//! A cluster of real node processes on this machine: what `paxosctl run` shows, what `bench`
//! measures and what the tests kill.
//!
//! Every node is a process of its own with its own folder:
//!
//! ```text
//! <dir>/members.toml           the same for all, copied beside each node.toml
//! <dir>/n1/node.toml           rendered here
//! <dir>/n1/members.toml
//! <dir>/n1/data/               identity, journal, snapshots: the node's own
//! <dir>/n1/stderr.log          its trace, and its last words
//! ```
//!
//! No process outlives us: each is killed by its pid when the [`LocalCluster`] is dropped, and by the
//! kernel when we die without a word (see `nursery`).

mod node;
mod nursery;
pub mod ports;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use config::{
    Behaviour, ClientSecurity, Listen, MemberConfig, Members, NodeConfig, PeerSecurity, Role,
    Security, Trace, User,
};
use monitoring::status::NodeStatus;
use proof::client::Target;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tokio::time::Instant;

pub use node::{LocalNode, last_lines, status};
pub use nursery::spawn as spawn_child;

/// Most nodes that one machine is asked to carry; the most voters that an inventory may have.
pub const SERVERS_MAX: u32 = 9;
/// Ports of node i start at `base_port + PORTS_APART * (i - 1)`.
const PORTS_APART: u16 = 10;

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    pub servers: u32,
    pub address: IpAddr,
    /// Client port of the first node; peer and HTTP ports follow it.
    pub base_port: u16,
    pub dir: PathBuf,
    pub binary: PathBuf,
    pub behaviour: Behaviour,
    /// How the nodes' links to each other are secured; plain ones are for loopback only.
    pub peers: PeerSecurity,
    /// Whoever may connect; nobody listed means that anybody may.
    pub users: Vec<User>,
    /// Filter of the nodes' traces.
    pub trace: String,
}

impl Spec {
    /// A cluster at the default ports, open to anybody on this machine.
    pub fn new(servers: u32, dir: &Path, binary: PathBuf) -> Spec {
        let dir = std::path::absolute(dir).expect("a folder has a name that is not empty");
        Spec {
            servers,
            address: Ipv4Addr::LOCALHOST.into(),
            base_port: 7379,
            dir,
            binary,
            behaviour: Behaviour::default(),
            peers: PeerSecurity::Plain,
            users: Vec::new(),
            trace: "info".to_owned(),
        }
    }

    /// Where node `id` listens.
    pub fn listen(&self, id: u32) -> Listen {
        let first = self.base_port + PORTS_APART * (id as u16 - 1);
        let at = |offset| (self.address, first + offset).into();
        Listen { client: at(0), peer: at(1), http: at(2) }
    }
}

/// Why a cluster could not be made or reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing} {path}: {source}", path = path.display())]
    File { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Config(#[from] config::Problems),
    #[error("start {program}: {source}", program = program.display())]
    Start { program: PathBuf, source: std::io::Error },
    #[error("`{command}` failed ({status})\n{said}")]
    Failed { command: String, status: std::process::ExitStatus, said: String },
    #[error("`{command}` printed {said:?}, which is no identity: {source}")]
    NoIdentity { command: String, said: String, source: serde_json::Error },
    #[error("{name} has exited ({status}); the end of {log}:\n{said}", log = log.display())]
    Died { name: String, status: std::process::ExitStatus, log: PathBuf, said: String },
    #[error("{what} did not happen within {within:?}\n{seen}")]
    TooLate { what: String, within: Duration, seen: String },
    #[error("{dir} holds {found}, not {wanted}", dir = dir.display())]
    OtherCluster { dir: PathBuf, found: String, wanted: String },
}

/// See the module.
#[derive(Debug)]
pub struct LocalCluster {
    pub spec: Spec,
    pub nodes: Vec<LocalNode>,
}

/// `paxos-node` in the folder that holds this program, where `make compile` puts both.
pub fn node_binary_beside_us() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("paxos-node")
}

/// What `paxos-node identity` prints.
#[derive(Debug, serde::Deserialize)]
struct Identity {
    incarnation: String,
    public_key: String,
}

impl LocalCluster {
    /// Formats what is not formatted yet, and starts every node. A `dir` that holds the same cluster
    /// from before goes on with its data; whoever wants a fresh one removes `dir` first.
    pub fn start(spec: Spec) -> Result<LocalCluster, Error> {
        assert!((1..=SERVERS_MAX).contains(&spec.servers), "{} servers", spec.servers);
        let mut cluster = LocalCluster::prepare(spec)?;
        for node in &mut cluster.nodes {
            node.start()?;
        }
        Ok(cluster)
    }

    /// Everything on disk, nothing running.
    pub fn prepare(spec: Spec) -> Result<LocalCluster, Error> {
        let members_path = spec.dir.join("members.toml");
        let former = former_members(&members_path)?;
        if let Some(former) = &former {
            check_same_cluster(&spec, former)?;
        }
        let uuid = match &former {
            Some(members) => members.cluster_uuid.clone(),
            None => random_uuid(),
        };
        let nodes: Vec<LocalNode> = (1..=spec.servers).map(|id| node_of(&spec, id)).collect();
        let mut members = Members { cluster_uuid: uuid.clone(), ..Members::default() };
        for node in &nodes {
            write_node_toml(&spec, node, &uuid)?;
            if former.is_none() {
                node.command("format")?;
            }
            members.members.push(member_of(node, identity_of(node)?));
        }
        let members = members.to_toml();
        for node in &nodes {
            write(&node.dir.join("members.toml"), &members)?;
        }
        // Last: a folder that has it was prepared to the end.
        write(&members_path, &members)?;
        Ok(LocalCluster { spec, nodes })
    }

    /// Formats one more node, under the next id. It is no member yet and does not run yet: it joins
    /// once it was started, and the leader was told `member add` with what is returned.
    pub fn prepare_another(&mut self) -> Result<MemberConfig, Error> {
        let members_path = self.spec.dir.join("members.toml");
        let members = Members::load(&members_path)?;
        let node = node_of(&self.spec, self.nodes.len() as u32 + 1);
        write_node_toml(&self.spec, &node, &members.cluster_uuid)?;
        write(&node.dir.join("members.toml"), &members.to_toml())?;
        node.command("format")?;
        let member = MemberConfig { role: Role::Learner, ..member_of(&node, identity_of(&node)?) };
        self.nodes.push(node);
        Ok(member)
    }

    pub fn node(&mut self, id: u32) -> &mut LocalNode {
        &mut self.nodes[id as usize - 1]
    }

    /// `host:port` of every client port.
    pub fn client_addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.listen.client.to_string()).collect()
    }

    /// How a load reaches this cluster.
    pub fn target(&self) -> Target {
        Target::open(self.client_addresses())
    }

    /// What every node says of itself now; `None` for those that do not answer.
    pub async fn statuses(&self) -> Vec<Option<NodeStatus>> {
        let mut asked = tokio::task::JoinSet::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let http = node.listen.http;
            asked.spawn(async move { (index, node::status(http).await) });
        }
        let mut statuses: Vec<Option<NodeStatus>> = self.nodes.iter().map(|_| None).collect();
        for (index, status) in asked.join_all().await {
            statuses[index] = status;
        }
        statuses
    }

    /// The node that says it leads, in the highest ballot if several do.
    pub async fn leader(&self) -> Option<u32> {
        leader_of(&self.statuses().await)
    }

    /// Waits until a node leads that `wanted` accepts. A node that exits ends the wait.
    pub async fn wait_for_leader(
        &mut self,
        within: Duration,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<u32, Error> {
        let deadline = Instant::now() + within;
        loop {
            let statuses = self.statuses().await;
            if let Some(leader) = leader_of(&statuses).filter(|leader| wanted(*leader)) {
                return Ok(leader);
            }
            self.nobody_died()?;
            if Instant::now() >= deadline {
                let what = "the election of a leader".to_owned();
                return Err(Error::TooLate { what, within, seen: self.describe(&statuses) });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a leader is there and every running node has applied all that is chosen.
    pub async fn wait_until_caught_up(&mut self, within: Duration) -> Result<u32, Error> {
        self.wait_until_close(within, 0).await
    }

    /// The same under load, where nodes that are asked at slightly different moments are never
    /// equal: no running node is more than `slots_max` behind.
    pub async fn wait_until_close(
        &mut self,
        within: Duration,
        slots_max: u64,
    ) -> Result<u32, Error> {
        let began = Instant::now();
        let deadline = began + within;
        loop {
            let asked = began.elapsed();
            let statuses = self.statuses().await;
            // A page tells what was so when it was made: one from before the question may lack what
            // has been answered to clients since.
            let is_fresh = |status: &NodeStatus| Duration::from_millis(status.age_ms + 1) <= asked;
            if let Some(leader) = leader_of(&statuses)
                && self.all_follow(leader, slots_max, &statuses)
                && statuses.iter().flatten().all(is_fresh)
            {
                return Ok(leader);
            }
            self.nobody_died()?;
            if Instant::now() >= deadline {
                let what = "catching up of every node".to_owned();
                return Err(Error::TooLate { what, within, seen: self.describe(&statuses) });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn all_follow(&self, leader: u32, slots_max: u64, statuses: &[Option<NodeStatus>]) -> bool {
        let chosen_slot = statuses.iter().flatten().map(|s| s.chosen_slot).max().unwrap_or(0);
        self.nodes.iter().zip(statuses).filter(|(node, _)| node.is_started()).all(|(_, status)| {
            status.as_ref().is_some_and(|status| {
                status.leader == Some(leader)
                    && status.applied_slot.saturating_add(slots_max) >= chosen_slot
            })
        })
    }

    /// An error when a node that nobody stopped has exited.
    pub fn nobody_died(&mut self) -> Result<(), Error> {
        self.nodes.iter_mut().try_for_each(LocalNode::still_runs)
    }

    /// SIGTERM to all at once, then SIGKILL to those that have not ended within `patience`.
    /// Answers the names of the latter.
    pub async fn stop(&mut self, patience: Duration) -> Vec<String> {
        self.nodes.iter_mut().for_each(LocalNode::terminate);
        let deadline = Instant::now() + patience;
        let mut killed = Vec::new();
        for node in &mut self.nodes {
            while !node.has_ended() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if !node.has_ended() {
                killed.push(node.name.clone());
                node.kill();
            }
        }
        killed
    }

    /// One line a node, for messages.
    fn describe(&self, statuses: &[Option<NodeStatus>]) -> String {
        let lines = self.nodes.iter().zip(statuses).map(|(node, status)| match status {
            None => format!("  {}: no answer at {}", node.name, node.listen.http),
            Some(s) => format!(
                "  {}: {}, leader {:?}, ballot {}, chosen {}, applied {}",
                node.name, s.role, s.leader, s.ballot, s.chosen_slot, s.applied_slot
            ),
        });
        lines.collect::<Vec<String>>().join("\n")
    }
}

/// The node that says it leads, in the highest ballot if several do.
pub fn leader_of(statuses: &[Option<NodeStatus>]) -> Option<u32> {
    let leads = |status: &&NodeStatus| status.role == monitoring::status::Role::Leader;
    statuses.iter().flatten().filter(leads).max_by_key(|s| s.ballot).map(|s| s.id)
}

pub fn random_uuid() -> String {
    let mut bytes = [0u8; 16];
    OsRng.try_fill_bytes(&mut bytes).expect("the system has random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn node_of(spec: &Spec, id: u32) -> LocalNode {
    let name = format!("n{id}");
    LocalNode::new(id, name.clone(), spec.listen(id), spec.dir.join(name), spec.binary.clone())
}

fn write_node_toml(spec: &Spec, node: &LocalNode, uuid: &str) -> Result<(), Error> {
    let clients = match spec.users.is_empty() {
        true => ClientSecurity::Open,
        false => ClientSecurity::Auth,
    };
    let config = NodeConfig {
        schema: 1,
        cluster: "local".to_owned(),
        cluster_uuid: uuid.to_owned(),
        id: node.id,
        name: node.name.clone(),
        data_dir: node.data_dir(),
        listen: node.listen.clone(),
        security: Security { peers: spec.peers, clients, scrape_from: Vec::new() },
        users: spec.users.clone(),
        behaviour: spec.behaviour.clone(),
        trace: Trace { filter: spec.trace.clone(), stderr: true, ..Trace::default() },
    };
    let doing = "make the folder";
    fs::create_dir_all(&node.dir).map_err(|source| Error::File {
        doing,
        path: node.dir.clone(),
        source,
    })?;
    write(&node.config_path(), &config.to_toml())
}

fn identity_of(node: &LocalNode) -> Result<Identity, Error> {
    let said = node.command("identity")?;
    let command = "paxos-node identity".to_owned();
    serde_json::from_str(&said).map_err(|source| Error::NoIdentity { command, said, source })
}

fn member_of(node: &LocalNode, identity: Identity) -> MemberConfig {
    MemberConfig {
        id: node.id,
        name: node.name.clone(),
        role: Role::Voter,
        incarnation: identity.incarnation,
        public_key: identity.public_key,
        peer: node.listen.peer.to_string(),
        client: node.listen.client.to_string(),
        http: node.listen.http.to_string(),
    }
}

fn former_members(path: &Path) -> Result<Option<Members>, Error> {
    match path.exists() {
        false => Ok(None),
        true => Ok(Some(Members::load(path)?)),
    }
}

fn check_same_cluster(spec: &Spec, former: &Members) -> Result<(), Error> {
    let wanted: Vec<String> =
        (1..=spec.servers).map(|id| spec.listen(id).peer.to_string()).collect();
    let found: Vec<String> = former.members.iter().map(|member| member.peer.clone()).collect();
    if wanted == found {
        return Ok(());
    }
    let of = |addresses: &[String]| {
        format!("a cluster of {} at {}", addresses.len(), addresses.join(", "))
    };
    Err(Error::OtherCluster { dir: spec.dir.clone(), found: of(&found), wanted: of(&wanted) })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let doing = "write";
    fs::write(path, text).map_err(|source| Error::File { doing, path: path.to_owned(), source })
}

/// Runs a program to its end and answers what it printed.
fn output_of(command: &mut Command) -> Result<String, Error> {
    let program = PathBuf::from(command.get_program());
    let output =
        command.stdin(Stdio::null()).output().map_err(|source| Error::Start { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim_end().to_owned();
    Err(Error::Failed { command: words.join(" "), status: output.status, said })
}
