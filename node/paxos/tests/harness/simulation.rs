//! One seed, one life of a cluster: clients at work, faults of every kind, then calm.
//!
//! Each seed first draws its own mix (swarm testing): how many nodes, which strategy, which kinds
//! of fault and how often. A mix without partitions reaches states that partitions would hide, and
//! the other way round. When the faults end, the cluster must come back within a bounded time: one
//! leader, progress, everybody level, every client answered.

mod calm;
mod changes;
mod faults;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use paxos::{Envelope, NodeId, Settings};

use plan::Plan;

pub use plan::TRAITS;

use super::chance::Chance;
use super::clock::{Clock, TRUE_SPEED_PPM};
use super::cluster::{Cluster, Look};
use super::coverage::{Coverage, Rare};
use super::disk::Snapshot;
use super::foul::Foul;
use super::seeds::{Less, Life, Strike};

/// Two clocks at the bound of 20 % against each other, and one in between.
const SPEEDS_PPM: [u64; 3] = [890_000, TRUE_SPEED_PPM, 1_110_000];
const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;
const TICK_US: u64 = 5 * MS;
/// From the last fault until everything is well again.
const CALM_US_MAX: u64 = 15 * SECOND;
/// A calm cluster is watched for this long: nobody may take its leader away.
const WATCH_US: u64 = 600 * MS;

#[derive(Debug)]
enum Event {
    Deliver(Envelope),
    /// Each process has its own chain of ticks.
    Tick {
        node: NodeId,
        incarnation: u64,
    },
    SyncEnds {
        node: NodeId,
        incarnation: u64,
        end: usize,
    },
    SnapshotBegins(NodeId),
    SnapshotSynced {
        node: NodeId,
        incarnation: u64,
        snapshot: Snapshot,
    },
    SnapshotArrives {
        to: NodeId,
        snapshot: Snapshot,
    },
    Install {
        to: NodeId,
        incarnation: u64,
        snapshot: Snapshot,
    },
    Propose,
    Read,
    /// A read under a lease, some time after the store was read.
    Check(Look),
    Fault,
    Change,
    /// Somebody who looks at the pages helps those who know only peers that are gone.
    Introduce,
    Restart(NodeId),
    Disconnected {
        node: NodeId,
        peer: NodeId,
    },
    Connected {
        node: NodeId,
        peer: NodeId,
    },
    CanAcceptAgain(NodeId),
}

/// What came of a seed.
pub type Outcome = Life<Coverage>;

/// How to run a seed.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub seed: u64,
    pub foul: Option<Foul>,
    pub less: Less,
    pub trace_lines_max: Option<usize>,
}

pub fn run(run: Run) -> Outcome {
    let mut simulation = Simulation::new(run);
    let panicked = catch_unwind(AssertUnwindSafe(|| simulation.live())).err();
    let panicked = panicked.map(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("a node stopped itself: {}", text.unwrap_or_default())
    });
    Outcome {
        violation: simulation.cluster.checker.violation.take().or(panicked),
        trace: simulation.cluster.trace.lines.iter().cloned().collect(),
        steps: simulation.steps,
        strikes: simulation.strikes,
        clients: 1,
        virtual_us: simulation.cluster.time_us,
        acknowledged: simulation.cluster.checker.acknowledged_count() as u64,
        calm_us: simulation.calm_us,
        plan: format!("{:?}", simulation.plan),
        coverage: simulation.cluster.coverage,
    }
}

struct Simulation {
    plan: Plan,
    chance: Chance,
    rules_chance: Chance,
    less: Less,
    /// Faults drawn so far, and those that struck.
    faults_drawn: u64,
    strikes: Vec<Strike>,
    cluster: Cluster,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    steps: u64,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// When the newest message of each link arrives.
    last_arrival_us: BTreeMap<(NodeId, NodeId), u64>,
    paused_until: BTreeMap<NodeId, u64>,
    /// Those among the paused that also lose what is sent to them.
    suspended: BTreeSet<NodeId>,
    /// Since when each disk is busy with a sync.
    syncing_since_us: BTreeMap<NodeId, u64>,
    hung: BTreeSet<NodeId>,
    calm: bool,
    clients_work: bool,
    proposed: u64,
    calm_us: u64,
}

impl Simulation {
    fn new(run: Run) -> Simulation {
        let mut chance = Chance::new(run.seed);
        let mut plan = Plan::draw(&mut chance, run.seed);
        plan.leave_out(&run.less);
        let window = *chance.pick(&[1, 4, 32, 256]);
        let chunk_bytes = *chance.pick(&[1, 100, 256 << 10]);
        let priorities = chance.one_in(4);
        let strategy = plan.strategy;
        let seed = run.seed;
        let plain = plan.mixed_leases;
        let mut cluster = Cluster::new((plan.voters, plan.learners, plan.spares), |id| {
            let mut settings = Settings::new(id, 0, seed ^ u64::from(id.0));
            settings.election = strategy;
            settings.lease_terms.lease_us = plan.lease_us;
            settings.takes_part_in_leases = !plain || id.0 % 2 == 1;
            settings.limits.window_slots = window;
            settings.limits.chunk_bytes = chunk_bytes;
            settings.priority = if priorities { id.0 % 2 } else { 0 };
            settings
        });
        cluster.foul = run.foul;
        cluster.trace.enabled = run.trace_lines_max.is_some();
        cluster.trace.lines_max = run.trace_lines_max.unwrap_or(0);
        let drift = chance.one_in(3);
        let wall = chance.one_in(4);
        let segment_groups = *chance.pick(&[4, 50, usize::MAX]);
        for node in cluster.nodes.values_mut() {
            node.segment_groups = segment_groups;
            node.clock = Clock {
                offset_us: chance.below(100 * SECOND),
                speed_ppm: if drift { *chance.pick(&SPEEDS_PPM) } else { TRUE_SPEED_PPM },
                wall_offset_ms: if wall {
                    chance.below(730 * 86_400_000) as i64 - 365 * 86_400_000
                } else {
                    0
                },
            };
        }
        Simulation {
            plan,
            chance,
            rules_chance: Chance::new(seed ^ 0x7a11),
            less: run.less,
            faults_drawn: 0,
            strikes: Vec::new(),
            cluster,
            queue: BTreeMap::new(),
            sequence: 0,
            steps: 0,
            cut: BTreeSet::new(),
            last_arrival_us: BTreeMap::new(),
            paused_until: BTreeMap::new(),
            suspended: BTreeSet::new(),
            syncing_since_us: BTreeMap::new(),
            hung: BTreeSet::new(),
            calm: false,
            clients_work: true,
            proposed: 0,
            calm_us: 0,
        }
    }

    fn live(&mut self) {
        for id in self.cluster.ids() {
            self.start(id);
            if self.plan.snapshot_every_us > 0 {
                let phase_us = self.chance.below(self.plan.snapshot_every_us);
                self.after(phase_us, Event::SnapshotBegins(id));
            }
        }
        self.after(0, Event::Propose);
        if self.plan.read_every_us > 0 {
            self.after(0, Event::Read);
        }
        self.after(self.plan.fault_every_us, Event::Fault);
        if self.plan.change_every_us > 0 {
            self.after(self.plan.change_every_us, Event::Change);
        }
        let end_us = self.plan.faults_us;
        self.run_while(|simulation| simulation.cluster.time_us < end_us);
        self.calm_down();
        if self.is_broken() {
            return;
        }
        self.expect_progress();
        self.expect_level();
        self.expect_peace();
    }

    fn is_broken(&self) -> bool {
        self.cluster.checker.violation.is_some()
    }

    /// Runs until `go_on` says no, or something is broken.
    fn run_while(&mut self, mut go_on: impl FnMut(&Simulation) -> bool) {
        self.collect();
        while !self.is_broken() && go_on(self) {
            let Some(((at_us, _), event)) = self.queue.pop_first() else { return };
            self.cluster.time_us = self.cluster.time_us.max(at_us);
            self.steps += 1;
            self.handle(event);
            self.collect();
        }
    }

    // ---- events -------------------------------------------------------------------------------

    fn after(&mut self, delay_us: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.cluster.time_us + delay_us, self.sequence), event);
    }

    fn handle(&mut self, event: Event) {
        if let Some(node) = event.needs_awake()
            && let Some(&until_us) = self.paused_until.get(&node)
        {
            if until_us > self.cluster.time_us {
                if self.suspended.contains(&node) && matches!(event, Event::Deliver(_)) {
                    return;
                }
                let wait_us = until_us - self.cluster.time_us;
                return self.after(wait_us, event);
            }
            self.wake(node);
        }
        match event {
            Event::Deliver(envelope) => {
                if !self.cut.contains(&(envelope.from, envelope.to)) {
                    self.cluster.deliver(envelope);
                }
            }
            Event::Tick { node, incarnation } => {
                if self.incarnation(node) == Some(incarnation) {
                    self.watch_disk(node);
                    self.cluster.tick(node);
                    self.after(TICK_US, Event::Tick { node, incarnation });
                }
            }
            Event::SyncEnds { node, incarnation, end } => self.sync_ends(node, incarnation, end),
            Event::SnapshotBegins(node) => self.snapshot_begins(node),
            Event::SnapshotSynced { node, incarnation, snapshot } => {
                if self.incarnation(node) == Some(incarnation) {
                    self.cluster.snapshot_synced(node, snapshot);
                }
            }
            Event::SnapshotArrives { to, snapshot } => {
                if let Some(incarnation) = self.incarnation(to) {
                    let delay_us = self.chance.between(MS, 40 * MS);
                    self.after(delay_us, Event::Install { to, incarnation, snapshot });
                }
            }
            Event::Install { to, incarnation, snapshot } => {
                match self.incarnation(to) == Some(incarnation) {
                    true => self.cluster.install(to, snapshot),
                    false => self.cluster.coverage.count(Rare::InstallInterrupted),
                }
            }
            Event::Propose => self.propose(),
            Event::Read => self.read(),
            Event::Check(look) => {
                if !self.cluster.check(look) && self.clients_work {
                    self.cluster.read_by_quorum(look.node);
                }
            }
            Event::Fault => self.fault(),
            Event::Change => self.change(),
            Event::Introduce => self.introduce(),
            Event::Restart(node) => {
                self.upgrade(node);
                self.start(node);
            }
            Event::Disconnected { node, peer } => {
                if self.cluster.is_up(node) {
                    self.cluster.disconnected(node, peer);
                }
            }
            Event::Connected { node, peer } => self.cluster.connected(node, peer),
            Event::CanAcceptAgain(node) => self.cluster.set_can_accept(node, true),
        }
    }

    fn incarnation(&self, node: NodeId) -> Option<u64> {
        self.cluster.process(node).map(|process| process.incarnation)
    }

    /// Picks up what the last step left: messages to carry, disks to sync, snapshots to stream.
    fn collect(&mut self) {
        for envelope in std::mem::take(&mut self.cluster.outbox) {
            self.carry(envelope);
        }
        for (from, to) in std::mem::take(&mut self.cluster.snapshots_wanted) {
            if let Some(snapshot) = self.cluster.nodes[&from].disk.snapshots.last().cloned()
                && !self.cut.contains(&(from, to))
            {
                let delay_us = self.chance.between(MS, 100 * MS);
                self.after(delay_us, Event::SnapshotArrives { to, snapshot });
            }
        }
        for node in self.cluster.ids() {
            self.begin_sync(node);
        }
    }

    fn carry(&mut self, envelope: Envelope) {
        let link = (envelope.from, envelope.to);
        let lossy = !self.calm;
        if self.cut.contains(&link) || (lossy && self.chance.ppm(self.plan.loss_ppm)) {
            return;
        }
        if lossy && self.chance.ppm(self.plan.duplicate_ppm) {
            let delay_us = self.chance.below(300 * MS);
            self.after(delay_us, Event::Deliver(envelope.clone()));
        }
        let (low, high) = if self.calm { (40, 300) } else { self.plan.delay_us };
        let mut delay_us = self.chance.between(low, high);
        if lossy && self.chance.ppm(self.plan.slow_ppm) {
            delay_us += self.chance.below(SECOND);
        }
        let mut arrival_us = self.cluster.time_us + delay_us;
        if self.plan.in_order {
            let last_us = self.last_arrival_us.entry(link).or_default();
            arrival_us = arrival_us.max(*last_us);
            *last_us = arrival_us;
        }
        self.after(arrival_us - self.cluster.time_us, Event::Deliver(envelope));
    }

    fn begin_sync(&mut self, node: NodeId) {
        let disk = &self.cluster.nodes[&node].disk;
        let Some(incarnation) = self.incarnation(node) else { return };
        if disk.unsynced_count() == 0 || self.syncing_since_us.contains_key(&node) {
            return;
        }
        let end = disk.end();
        let (low, high) = if self.calm { (80, 200) } else { self.plan.sync_us };
        let mut delay_us = self.chance.between(low, high);
        if !self.calm && self.chance.ppm(self.plan.stall_ppm) {
            delay_us += self.chance.below(2 * SECOND);
        }
        self.syncing_since_us.insert(node, self.cluster.time_us);
        self.after(delay_us, Event::SyncEnds { node, incarnation, end });
    }

    /// A node whose oldest group has waited for 500 ms says that it cannot accept (grey nodes).
    fn watch_disk(&mut self, node: NodeId) {
        let hangs = self
            .syncing_since_us
            .get(&node)
            .is_some_and(|since_us| self.cluster.time_us - since_us >= 500 * MS);
        let was_hung = self.hung.contains(&node);
        if hangs && !was_hung {
            self.hung.insert(node);
            self.cluster.set_can_accept(node, false);
        } else if was_hung && !hangs {
            self.hung.remove(&node);
            self.cluster.set_can_accept(node, true);
        }
    }

    fn sync_ends(&mut self, node: NodeId, incarnation: u64, end: usize) {
        if self.incarnation(node) == Some(incarnation) {
            self.syncing_since_us.remove(&node);
            self.cluster.sync(node, end);
        }
    }

    fn snapshot_begins(&mut self, node: NodeId) {
        self.after(self.plan.snapshot_every_us, Event::SnapshotBegins(node));
        let newest = self.cluster.nodes[&node].disk.snapshots.last().map(|snapshot| snapshot.below);
        if let Some(snapshot) = self.cluster.snapshot(node)
            && newest.is_none_or(|newest| snapshot.below > newest)
            && let Some(incarnation) = self.incarnation(node)
        {
            let delay_us = self.chance.between(MS, 60 * MS);
            self.after(delay_us, Event::SnapshotSynced { node, incarnation, snapshot });
        }
    }

    // ---- clients ------------------------------------------------------------------------------

    /// Whom a client turns to: mostly one who leads, now and then anybody.
    fn someone(&mut self) -> NodeId {
        let leaders = self.cluster.leaders();
        if leaders.is_empty() || self.chance.one_in(8) {
            let ids = self.cluster.ids();
            return *self.chance.pick(&ids);
        }
        self.chance.pick(&leaders).0
    }

    fn propose(&mut self) {
        let delay_us = self.chance.between(1, 2 * self.plan.propose_every_us);
        self.after(delay_us, Event::Propose);
        if !self.clients_work && !self.somebody_waits() {
            return;
        }
        let node = self.someone();
        for _ in 0..self.chance.between(1, 4) {
            if !self.paused_until.contains_key(&node) {
                self.proposed += 1;
                let payload = format!("w{}", self.proposed);
                self.cluster.propose(node, &payload);
            }
        }
    }

    fn read(&mut self) {
        let delay_us = self.chance.between(1, 2 * self.plan.read_every_us);
        self.after(delay_us, Event::Read);
        let node = self.someone();
        if !self.clients_work || self.paused_until.contains_key(&node) {
            return;
        }
        let follows = self.cluster.replica(node).is_some_and(|replica| replica.leading().is_none());
        if follows && self.chance.one_in(2) {
            self.cluster.read_at_follower(node);
        } else if self.chance.one_in(2)
            && let Some(look) = self.cluster.look(node)
        {
            let delay_us = self.chance.below(150 * MS);
            self.after(delay_us, Event::Check(look));
        } else {
            self.cluster.read(node);
        }
    }

    fn start(&mut self, node: NodeId) {
        if self.cluster.is_up(node) {
            return;
        }
        self.cluster.start(node);
        let phase_us = self.chance.below(TICK_US);
        if let Some(incarnation) = self.incarnation(node) {
            self.after(phase_us, Event::Tick { node, incarnation });
        }
        if self.plan.hints {
            for peer in self.cluster.ids() {
                if peer != node {
                    let delay_us = self.chance.below(3 * MS);
                    self.after(delay_us, Event::Connected { node: peer, peer: node });
                    self.after(delay_us, Event::Connected { node, peer });
                }
            }
        }
    }
}

impl Event {
    /// The node that has to run for this event to happen.
    fn needs_awake(&self) -> Option<NodeId> {
        match self {
            Event::Deliver(envelope) => Some(envelope.to),
            Event::Tick { node, .. }
            | Event::SyncEnds { node, .. }
            | Event::SnapshotBegins(node)
            | Event::SnapshotSynced { node, .. }
            | Event::Disconnected { node, .. }
            | Event::Connected { node, .. }
            | Event::CanAcceptAgain(node) => Some(*node),
            Event::Check(look) => Some(look.node),
            Event::SnapshotArrives { to, .. } | Event::Install { to, .. } => Some(*to),
            Event::Propose
            | Event::Read
            | Event::Fault
            | Event::Change
            | Event::Introduce
            | Event::Restart(_) => None,
        }
    }
}
