//! A few nodes without sockets and disks, in a time of their own: what one sends arrives at once, what
//! one writes is durable at once, and any of them can be cut off, restarted, or handed a snapshot.

use std::collections::BTreeSet;

use config::Behaviour;
use node::boot;
use node::clients::SessionId;
use node::command::{ConnectionState, Spec};
use node::node::{Effects, Node};
use node::resp::Reply;
use node::snapshot::Loaded;
use node::store::{Loader, SnapshotStep};
use paxos::{Configuration, Envelope, Member, NodeId, Now, Output, Record, Recovered, Replica};

const STEP_US: u64 = 5_000;
/// More than any election takes.
const STEPS_MAX: usize = 4_000;
const WALL_MS: u64 = 1_700_000_000_000;

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    /// What each has on its disk.
    records: Vec<Vec<Record>>,
    cut_off: BTreeSet<usize>,
    behaviours: Vec<Behaviour>,
    /// How far the wall clock of each is off, in milliseconds.
    wall_off_ms: Vec<i64>,
    mono_us: u64,
    starts: u64,
}

fn id_of(place: usize) -> NodeId {
    NodeId(place as u32 + 1)
}

fn configuration(count: usize) -> Configuration {
    let members = (0..count).map(|place| {
        let client_address = format!("host{}:7379", place + 1);
        (id_of(place), Member { client_address, ..Member::default() })
    });
    Configuration { members: members.collect(), store_version: 1, ..Configuration::default() }
}

impl Cluster {
    pub(crate) fn new(count: usize) -> Cluster {
        Cluster::with_clocks(&vec![0; count])
    }

    /// One node for each wall clock.
    pub(crate) fn with_clocks(wall_off_ms: &[i64]) -> Cluster {
        Cluster::start(wall_off_ms, vec![Behaviour::default(); wall_off_ms.len()])
    }

    /// One node for each wall clock and behaviour.
    pub(crate) fn start(wall_off_ms: &[i64], behaviours: Vec<Behaviour>) -> Cluster {
        let mut cluster = Cluster {
            nodes: Vec::new(),
            records: vec![Vec::new(); wall_off_ms.len()],
            cut_off: BTreeSet::new(),
            behaviours,
            wall_off_ms: wall_off_ms.to_vec(),
            mono_us: 1_000_000,
            starts: 0,
        };
        for place in 0..wall_off_ms.len() {
            let node = cluster.make(place);
            cluster.nodes.push(node);
        }
        cluster.connect_all();
        cluster
    }

    fn make(&mut self, place: usize) -> Node {
        self.starts += 1;
        let behaviour = self.behaviours[place].clone();
        let settings = boot::settings(&behaviour, id_of(place), self.starts);
        let records = self.records[place].clone();
        let recovered = Recovered { records, ..Recovered::default() };
        let (now, mut output) = (self.now(place), Output::default());
        let count = self.wall_off_ms.len();
        let replica = Replica::recover(settings, configuration(count), recovered, now, &mut output);
        let loaded = Loaded::nothing(configuration(count));
        Node::new(replica, loaded, behaviour, self.starts, output, now)
    }

    fn connect_all(&mut self) {
        for one in 0..self.nodes.len() {
            for other in (0..self.nodes.len()).filter(|other| *other != one) {
                let now = self.now(one);
                if self.are_connected(one, other) {
                    self.nodes[one].connected(now, id_of(other));
                } else {
                    self.nodes[one].disconnected(now, id_of(other));
                }
            }
        }
    }

    fn are_connected(&self, one: usize, other: usize) -> bool {
        !self.cut_off.contains(&one) && !self.cut_off.contains(&other)
    }

    fn now(&self, place: usize) -> Now {
        let wall_ms = WALL_MS + self.mono_us / 1_000;
        Now {
            mono_us: self.mono_us,
            wall_ms: wall_ms.saturating_add_signed(self.wall_off_ms[place]),
        }
    }

    pub(crate) fn cut_off(&mut self, place: usize) {
        self.cut_off.insert(place);
        self.connect_all();
    }

    pub(crate) fn heal(&mut self) {
        self.cut_off.clear();
        self.connect_all();
    }

    /// A process that starts anew on its disk; its clients are gone.
    pub(crate) fn restart(&mut self, place: usize) {
        self.nodes[place] = self.make(place);
        self.connect_all();
    }

    /// The state of one as another one gets it when it is too far behind for the log.
    pub(crate) fn hand_snapshot(&mut self, from: usize, to: usize) {
        let now = self.now(from);
        let (below, head, configuration) = self.nodes[from].begin_snapshot(now);
        let mut loader = Loader::new(head, configuration.store_version);
        let store = &mut self.nodes[from].store;
        while let Some(SnapshotStep::Chunk(chunk)) = store.snapshot_step(1 << 16) {
            loader.add(&chunk).expect("whole pieces");
        }
        let store = loader.finish().expect("what its head promises");
        let now = self.now(to);
        self.nodes[to].install(now, Loaded { below, configuration, store });
    }

    /// Five milliseconds.
    pub(crate) fn step(&mut self) {
        self.mono_us += STEP_US;
        for place in 0..self.nodes.len() {
            let now = self.now(place);
            self.nodes[place].tick(now);
        }
        // Messages beget messages, for a while.
        for _ in 0..20 {
            let sent: Vec<Envelope> =
                (0..self.nodes.len()).flat_map(|place| self.turn(place)).collect();
            for envelope in sent {
                let (from, to) = (envelope.from.0 as usize - 1, envelope.to.0 as usize - 1);
                if self.are_connected(from, to) {
                    let now = self.now(to);
                    self.nodes[to].received(now, envelope);
                }
            }
        }
    }

    fn turn(&mut self, place: usize) -> Vec<Envelope> {
        let (now, mut effects) = (self.now(place), Effects::default());
        let node = &mut self.nodes[place];
        node.turn(now, &mut effects);
        node.synced(now, effects.position);
        node.turn(now, &mut effects);
        self.records[place].extend(effects.records);
        effects.sends
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        for _ in 0..ms * 1_000 / STEP_US {
            self.step();
        }
    }

    /// The one that leads and is connected, once there is one.
    #[track_caller]
    pub(crate) fn leader(&mut self) -> usize {
        for _ in 0..STEPS_MAX {
            let mut places = (0..self.nodes.len()).filter(|place| !self.cut_off.contains(place));
            let leads = |place: &usize| self.nodes[*place].log_time_ms(self.now(*place)).is_some();
            if let Some(leader) = places.find(leads) {
                return leader;
            }
            self.step();
        }
        panic!("no leader");
    }

    pub(crate) fn client(&mut self, place: usize) -> SessionId {
        let state = |id| ConnectionState::new(id, String::new(), String::new(), true, 0);
        self.nodes[place].clients.open(state)
    }

    /// Sends lines, each a command, as one pipeline. Data commands and transactions only.
    pub(crate) fn send(&mut self, place: usize, client: SessionId, lines: &str) {
        let now = self.now(place);
        for line in lines.split("; ") {
            let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let spec: Option<&'static Spec> = self.nodes[place].command(now, client, &argv);
            if let Some(spec) = spec {
                let session = self.nodes[place].clients.get_mut(client).expect("it is open");
                let reply = match spec.name {
                    "ping" => "PONG",
                    "readonly" | "readwrite" => {
                        session.connection.readonly = spec.name == "readonly";
                        "OK"
                    }
                    name => panic!("{name} is not answered by this door"),
                };
                self.nodes[place].answered(now, client, spec, Reply::status(reply));
            }
        }
    }

    /// All replies so far, without the lengths of bulk strings: `+OK :1 $value`.
    pub(crate) fn replies(&mut self, place: usize, client: SessionId) -> String {
        let session = self.nodes[place].clients.get_mut(client).expect("it is open");
        let bytes = std::mem::take(&mut session.out);
        let text = String::from_utf8(bytes).expect("the tests use text");
        let mut words = Vec::new();
        let mut lines = text.split("\r\n");
        while let Some(line) = lines.next() {
            match line.strip_prefix('$') {
                Some(length) if length != "-1" => {
                    words.push(format!("${}", lines.next().expect("a bulk string")));
                }
                _ => words.push(line.to_owned()),
            }
        }
        words.join(" ").trim().to_owned()
    }

    /// The replies, once all are there.
    #[track_caller]
    pub(crate) fn ask(&mut self, place: usize, client: SessionId, lines: &str) -> String {
        self.send(place, client, lines);
        for _ in 0..STEPS_MAX {
            let session = self.nodes[place].clients.get(client).expect("it is open");
            if !session.has_pending() {
                return self.replies(place, client);
            }
            self.step();
        }
        panic!("no reply to {lines}");
    }

    /// What the shell does now and then: everybody hears of everybody's states.
    pub(crate) fn exchange_states(&mut self) {
        for from in 0..self.nodes.len() {
            let states = self.nodes[from].agreement.take_untold();
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                self.nodes[to].heard_states(id_of(from), states.clone());
            }
        }
    }

    /// Every node has applied the same, and has come to the same.
    #[track_caller]
    pub(crate) fn assert_equal(&mut self) {
        self.wait(2_000);
        let first = (self.nodes[0].first_unapplied(), self.nodes[0].store.state_hash());
        for node in &self.nodes {
            assert_eq!((node.first_unapplied(), node.store.state_hash()), first);
            assert_eq!(node.store.recompute_state_hash(), first.1);
        }
    }
}
