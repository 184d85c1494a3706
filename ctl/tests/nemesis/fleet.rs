//! Real nodes on lab hosts, one a host: formatted, started, administered and looked at. Each has its
//! data on a small disk of its own (a tmpfs), so that filling it fills nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use config::{
    Behaviour, ClientSecurity, FollowerReads, Listen, MemberConfig, Members, NodeConfig,
    PeerSecurity, Role, Security, Trace,
};
use ctl::local::{random_uuid, status};
use monitoring::status::{MemberRole, NodeStatus, Role as Now};
use proof::client::Target;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;

use crate::support::Site;

/// For whatever has to happen and takes a moment. Generous: the machine is shared.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Where a host keeps its node's data, and how much fits in there.
pub(crate) const DISK: &str = "/var/lib/paxos";
const DISK_MIB: u32 = 96;

/// One node, running or not, member or not any more.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: u32,
    pub(crate) host: String,
    pub(crate) address: Ipv4Addr,
}

impl Node {
    fn folder(&self) -> String {
        format!("/opt/n{}", self.id)
    }

    pub(crate) fn data_dir(&self) -> String {
        format!("{DISK}/n{}", self.id)
    }

    pub(crate) fn client(&self) -> SocketAddr {
        (self.address, 7379).into()
    }

    fn http(&self) -> SocketAddr {
        (self.address, 7381).into()
    }
}

/// See the module.
pub(crate) struct Fleet {
    pub(crate) site: Site,
    pub(crate) runtime: Runtime,
    pub(crate) rng: StdRng,
    uuid: String,
    /// All that ever were.
    pub(crate) all: BTreeMap<u32, Node>,
    /// Those that live on a host.
    pub(crate) placed: BTreeSet<u32>,
    /// Those that are to run.
    pub(crate) running: BTreeSet<u32>,
    /// Those that stand still: whoever needs an answer turns to another.
    pub(crate) paused: BTreeSet<u32>,
}

#[derive(serde::Deserialize)]
struct Identity {
    incarnation: String,
    public_key: String,
}

impl Fleet {
    /// `voters` nodes on the first hosts of a lab; the other hosts are spare.
    pub(crate) fn new(site: Site, voters: u32, rng: StdRng) -> Fleet {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let uuid = random_uuid();
        let all = BTreeMap::new();
        let (placed, running, paused) = Default::default();
        let mut fleet = Fleet { site, runtime, rng, uuid, all, placed, running, paused };
        let own = || Path::new(env!("CARGO_BIN_EXE_paxosctl")).with_file_name("paxos-node");
        let program = std::env::var_os("NEMESIS_NODE").map_or_else(own, PathBuf::from);
        for host in fleet.site.lab.host_names() {
            let place = fleet.opt(&host).join("paxos-node");
            if std::fs::hard_link(&program, &place).is_err() {
                std::fs::copy(&program, &place).expect("the host has a program");
            }
            let mount = format!("mkdir -p {DISK} && mount -t tmpfs -o size={DISK_MIB}m d {DISK}");
            fleet.shell(&host, &mount);
        }
        let hosts = fleet.site.lab.host_names();
        let members = (1..).zip(&hosts).take(voters as usize).map(|(id, host)| {
            let mut member = fleet.format(id, host);
            member.role = Role::Voter;
            member
        });
        let members = members.collect();
        let members = Members { cluster_uuid: fleet.uuid.clone(), members, ..Members::default() };
        let members = members.to_toml();
        for id in 1..=voters {
            fleet.introduce(id, &members);
            fleet.start(id);
        }
        fleet
    }

    /// Every host, as a client finds it: who is no member at the moment refuses.
    pub(crate) fn target(&self) -> Target {
        let hosts = self.site.lab.host_names();
        let address = |host: &String| format!("{}:7379", self.site.address(host));
        let mut target = Target::open(hosts.iter().map(address).collect());
        target.patience = Duration::from_millis(1_200);
        target
    }

    /// The folder `/opt` of a host, from outside.
    fn opt(&self, host: &str) -> PathBuf {
        self.site.lab.dir().join("hosts").join(host).join("disk/opt")
    }

    /// Runs a script on a host; what it said on stdout.
    pub(crate) fn shell(&self, host: &str, script: &str) -> String {
        self.site.lab.output(host, script).unwrap_or_else(|error| panic!("{error}"))
    }

    /// An identity on a host, for the first node with this id.
    pub(crate) fn format(&mut self, id: u32, host: &str) -> MemberConfig {
        let address: Ipv4Addr = self.site.address(host).parse().expect("an address");
        let node = Node { id, host: host.to_owned(), address };
        let at = |port| (address, port).into();
        let behaviour = Behaviour {
            // Little of everything: snapshots are taken and sent, and a full disk is soon noticed.
            command_bytes_max: 64 << 10,
            segment_bytes: 256 << 10,
            snapshot_every_bytes: 1 << 20,
            follower_reads: FollowerReads::Linearizable,
            chaos: true,
            ..Behaviour::default()
        };
        let config = NodeConfig {
            schema: 1,
            cluster: "nemesis".to_owned(),
            cluster_uuid: self.uuid.clone(),
            id,
            name: format!("n{id}"),
            data_dir: node.data_dir().into(),
            listen: Listen { client: at(7379), peer: at(7380), http: at(7381) },
            security: Security {
                peers: PeerSecurity::Tls,
                clients: ClientSecurity::Open,
                scrape_from: vec!["10.231.0.0/16".to_owned()],
            },
            users: Vec::new(),
            behaviour,
            trace: Trace {
                dir: Some(format!("{}/trace", node.folder()).into()),
                ..Trace::default()
            },
        };
        let folder = self.opt(host).join(format!("n{id}"));
        std::fs::create_dir_all(&folder).expect("make a node's folder");
        std::fs::write(folder.join("node.toml"), config.to_toml()).expect("write node.toml");
        self.all.insert(id, node);
        self.placed.insert(id);
        let said = self.program(id, "format").expect("format a node");
        let Identity { incarnation, public_key } =
            serde_json::from_str(&said).expect("an identity");
        let (peer, client, http) = (7380, 7379, 7381);
        let [peer, client, http] = [peer, client, http].map(|port| format!("{address}:{port}"));
        let name = format!("n{id}");
        MemberConfig { id, name, role: Role::Learner, incarnation, public_key, peer, client, http }
    }

    /// Tells a node, before its first start, who the members are.
    pub(crate) fn introduce(&self, id: u32, members: &str) {
        let file = self.opt(&self.all[&id].host).join(format!("n{id}/members.toml"));
        std::fs::write(file, members).expect("write members.toml");
    }

    pub(crate) fn start(&mut self, id: u32) {
        let node = &self.all[&id];
        let folder = node.folder();
        // Read only by a program in which rules can be broken.
        let broken = std::env::var("PAXOS_BROKEN").unwrap_or_default();
        let script = format!(
            "PAXOS_BROKEN={broken} setsid /opt/paxos-node --config {folder}/node.toml \
             </dev/null >>{folder}/out 2>&1 &"
        );
        self.shell(&node.host, &script);
        self.running.insert(id);
    }

    /// `paxos-node <words>` on the node's host, to its end.
    pub(crate) fn program(&self, id: u32, words: &str) -> Result<String, String> {
        let node = &self.all[&id];
        // A node that stands still does not answer: the question ends in any case.
        let script =
            format!("timeout 15 /opt/paxos-node --config {}/node.toml {words}", node.folder());
        let output = self.site.lab.run(&node.host, &script).map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!("{}: {}", output.status, text(&output.stderr))),
        }
    }

    /// The process of a node that is to run, by the number that this machine gives it.
    pub(crate) fn process(&self, id: u32) -> Option<i32> {
        let found = self.site.lab.processes(&self.all[&id].host, "paxos-node").expect("a host");
        assert!(found.len() < 2, "node {id} runs twice: {found:?}");
        found.first().copied()
    }

    /// What the nodes say of themselves now.
    pub(crate) fn statuses(&self) -> BTreeMap<u32, NodeStatus> {
        let mut asked = tokio::task::JoinSet::new();
        for id in self.running.difference(&self.paused) {
            let (id, http) = (*id, self.all[id].http());
            asked.spawn_on(async move { (id, status(http).await) }, self.runtime.handle());
        }
        let answers = self.runtime.block_on(asked.join_all());
        let answered = answers.into_iter().filter_map(|(id, status)| Some((id, status?)));
        answered.filter(|(id, status)| status.id == *id).collect()
    }

    /// Who says that it leads, in the highest ballot if several do.
    pub(crate) fn leader(&self) -> Option<NodeStatus> {
        let leads = |status: &NodeStatus| status.role == Now::Leader;
        self.statuses().into_values().filter(leads).max_by_key(|status| status.ballot)
    }

    pub(crate) fn wait_for_leader(&self) -> NodeStatus {
        self.eventually("a leader", || self.leader())
    }

    /// The leader, and the other voters that run, in random order.
    pub(crate) fn leader_and_voters(&mut self) -> (u32, Vec<u32>) {
        let leader = self.wait_for_leader();
        let voters = leader.configuration.members.iter().filter(|m| m.role == MemberRole::Voter);
        let others = voters.map(|member| member.id).filter(|id| *id != leader.id);
        let awake = |id: &u32| self.running.contains(id) && !self.paused.contains(id);
        let mut others: Vec<u32> = others.filter(awake).collect();
        for place in (1..others.len()).rev() {
            others.swap(place, self.rng.random_range(0..=place));
        }
        (leader.id, others)
    }

    /// Asks again and again until the answer is there; a failure shows what the nodes say.
    #[track_caller]
    pub(crate) fn eventually<T>(&self, what: &str, ask: impl FnMut() -> Option<T>) -> T {
        within(SOON, ask)
            .unwrap_or_else(|| panic!("not within {SOON:?}: {what}\n{}", self.describe()))
    }

    /// One line a node, for messages.
    pub(crate) fn describe(&self) -> String {
        let statuses = self.statuses();
        let line = |id: &u32| match statuses.get(id) {
            None => format!("  n{id}: no answer, process {:?}", self.process(*id)),
            Some(s) => format!(
                "  n{id}: {:?}, leader {:?}, ballot {:?}, configuration {}, chosen {}, applied {}, \
                 stalled {} ms, {:?}",
                s.role,
                s.leader,
                s.ballot,
                s.configuration.number,
                s.chosen_slot,
                s.applied_slot,
                s.stalled_ms,
                s.can_accept_reason
            ),
        };
        self.running.iter().map(line).collect::<Vec<String>>().join("\n")
    }

    /// Everything a node has said since its first start.
    pub(crate) fn said(&self, id: u32) -> String {
        let path = self.opt(&self.all[&id].host).join(format!("n{id}/out"));
        let bytes =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Asks again and again, for so long.
pub(crate) fn within<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
