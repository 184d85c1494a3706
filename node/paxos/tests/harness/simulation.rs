//! One seed, one life of a cluster: clients at work, faults of every kind, then calm.
//!
//! Each seed first draws its own mix (swarm testing): how many nodes, which strategy, which kinds
//! of fault and how often. A mix without partitions reaches states that partitions would hide, and
//! the other way round. When the faults end, the cluster must come back within a bounded time: one
//! leader, progress, everybody level, every client answered.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use paxos::{ElectionStrategy, Envelope, NodeId, Settings};

use super::chance::Chance;
use super::clock::{Clock, TRUE_SPEED_PPM};
use super::cluster::{Cluster, Foul};
use super::coverage::{Coverage, Rare};
use super::disk::Snapshot;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;
const TICK_US: u64 = 5 * MS;
/// From the last fault until everything is well again.
const CALM_US_MAX: u64 = 15 * SECOND;
/// A calm cluster is watched for this long: nobody may take its leader away.
const WATCH_US: u64 = 600 * MS;

/// The mix that a seed draws.
#[derive(Clone, Debug)]
pub struct Plan {
    pub voters: u32,
    pub learners: u32,
    pub strategy: ElectionStrategy,
    pub faults_us: u64,
    loss_ppm: u64,
    duplicate_ppm: u64,
    delay_us: (u64, u64),
    slow_ppm: u64,
    sync_us: (u64, u64),
    stall_ppm: u64,
    fault_every_us: u64,
    faults: Vec<Fault>,
    snapshot_every_us: u64,
    propose_every_us: u64,
    read_every_us: u64,
    hints: bool,
    /// Messages of one link arrive in the order in which they were sent.
    in_order: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Crash,
    CrashAll,
    CrashLeader,
    Isolate,
    OneWay,
    Split,
    RandomLinks,
    Chain,
    QuorumLoss,
    HealLinks,
    Pause,
    PauseLeader,
    Grey,
    SpoilSnapshot,
}

const FAULTS: [Fault; 14] = [
    Fault::Crash,
    Fault::CrashAll,
    Fault::CrashLeader,
    Fault::Isolate,
    Fault::OneWay,
    Fault::Split,
    Fault::RandomLinks,
    Fault::Chain,
    Fault::QuorumLoss,
    Fault::HealLinks,
    Fault::Pause,
    Fault::PauseLeader,
    Fault::Grey,
    Fault::SpoilSnapshot,
];

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
    Fault,
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
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    pub violation: Option<String>,
    pub coverage: Coverage,
    pub trace: Vec<String>,
    pub steps: u64,
    pub acknowledged: usize,
    pub calm_us: u64,
    pub plan: String,
}

/// How to run a seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    pub seed: u64,
    pub foul: Option<Foul>,
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
        seed: run.seed,
        violation: simulation.cluster.checker.violation.take().or(panicked),
        trace: simulation.cluster.trace.lines.iter().cloned().collect(),
        steps: simulation.steps,
        acknowledged: simulation.cluster.checker.acknowledged_count(),
        calm_us: simulation.calm_us,
        plan: format!("{:?}", simulation.plan),
        coverage: simulation.cluster.coverage,
    }
}

struct Simulation {
    plan: Plan,
    chance: Chance,
    cluster: Cluster,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    steps: u64,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// When the newest message of each link arrives.
    last_arrival_us: BTreeMap<(NodeId, NodeId), u64>,
    paused_until: BTreeMap<NodeId, u64>,
    /// Since when each disk is busy with a sync.
    syncing_since_us: BTreeMap<NodeId, u64>,
    hung: BTreeSet<NodeId>,
    calm: bool,
    clients_work: bool,
    proposed: u64,
    calm_us: u64,
}

impl Plan {
    fn draw(chance: &mut Chance) -> Plan {
        let voters = *chance.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 7]);
        let faults: Vec<Fault> = FAULTS.iter().copied().filter(|_| chance.one_in(2)).collect();
        Plan {
            voters,
            learners: u32::from(chance.one_in(5)),
            strategy: if chance.one_in(4) {
                ElectionStrategy::HighestId
            } else {
                ElectionStrategy::Ballot
            },
            faults_us: chance.between(1, 4) * SECOND,
            loss_ppm: *chance.pick(&[0, 0, 1_000, 20_000, 150_000]),
            duplicate_ppm: *chance.pick(&[0, 0, 10_000, 200_000]),
            delay_us: *chance.pick(&[(40, 120), (40, 3_000), (1_000, 30_000)]),
            slow_ppm: *chance.pick(&[0, 0, 2_000, 50_000]),
            sync_us: *chance.pick(&[(80, 200), (80, 5_000), (2_000, 25_000)]),
            stall_ppm: *chance.pick(&[0, 0, 1_000]),
            fault_every_us: *chance.pick(&[30 * MS, 150 * MS, 500 * MS]),
            faults,
            snapshot_every_us: *chance.pick(&[0, 20 * MS, 200 * MS]),
            propose_every_us: *chance.pick(&[MS, 4 * MS, 20 * MS]),
            read_every_us: *chance.pick(&[0, 5 * MS, 30 * MS]),
            hints: chance.one_in(2),
            in_order: chance.one_in(2),
        }
    }
}

impl Simulation {
    fn new(run: Run) -> Simulation {
        let mut chance = Chance::new(run.seed);
        let plan = Plan::draw(&mut chance);
        let window = *chance.pick(&[1, 4, 32, 256]);
        let chunk_bytes = *chance.pick(&[1, 100, 256 << 10]);
        let priorities = chance.one_in(4);
        let strategy = plan.strategy;
        let seed = run.seed;
        let mut cluster = Cluster::new(plan.voters, plan.learners, |id| {
            let mut settings = Settings::new(id, 0, seed ^ u64::from(id.0));
            settings.election = strategy;
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
                speed_ppm: if drift { chance.between(910_000, 1_090_000) } else { TRUE_SPEED_PPM },
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
            cluster,
            queue: BTreeMap::new(),
            sequence: 0,
            steps: 0,
            cut: BTreeSet::new(),
            last_arrival_us: BTreeMap::new(),
            paused_until: BTreeMap::new(),
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

    // ---- the calm at the end --------------------------------------------------------------------

    fn calm_down(&mut self) {
        let now_us = self.cluster.time_us;
        self.cluster.trace.line(|| format!("---- calm from {now_us} µs on"));
        self.calm = true;
        self.cut.clear();
        // Links are made anew; what was still in the old ones is gone.
        self.queue.retain(|_, event| !matches!(event, Event::Deliver(_)));
        self.last_arrival_us.clear();
        // Whoever is paused wakes, whatever disk hangs comes back.
        let is_held_up = |event: &Event| {
            matches!(event, Event::SyncEnds { .. })
                || event.needs_awake().is_some_and(|node| self.paused_until.contains_key(&node))
        };
        let held_up: Vec<(u64, u64)> =
            self.queue.iter().filter(|(_, event)| is_held_up(event)).map(|(key, _)| *key).collect();
        for key in held_up {
            let event = self.queue.remove(&key).expect("the key was just found");
            self.queue.insert((now_us, key.1), event);
        }
        self.paused_until.clear();
        for id in self.cluster.ids() {
            if !self.cluster.is_up(id) {
                self.start(id);
            }
            self.cluster.set_can_accept(id, true);
        }
    }

    /// A leader is there and takes a new batch to its end.
    fn expect_progress(&mut self) {
        let begun_us = self.cluster.time_us;
        let before = self.cluster.checker.last_chosen();
        let acknowledged = self.cluster.checker.acknowledged_count();
        self.run_while(|simulation| {
            let checker = &simulation.cluster.checker;
            let progress =
                checker.last_chosen() > before && checker.acknowledged_count() > acknowledged;
            !progress && simulation.cluster.time_us < begun_us + CALM_US_MAX
        });
        if self.cluster.time_us >= begun_us + CALM_US_MAX {
            let leaders = self.cluster.leaders();
            self.cluster.checker.fail(format!(
                "stuck: {} s after the last fault nothing new is chosen; leading: {leaders:?}",
                CALM_US_MAX / SECOND
            ));
        }
    }

    /// Does a deposed leader's client wait for the log to settle its batch?
    fn somebody_waits(&self) -> bool {
        self.cluster.nodes.values().filter_map(|node| node.process.as_ref()).any(|process| {
            let leading = process.replica.leading();
            process.pending.values().any(|ballot| leading != Some(*ballot))
        })
    }

    /// Clients rest, but for what it takes to settle the batches of deposed leaders; everybody
    /// learns everything, and everybody who waits is answered.
    fn expect_level(&mut self) {
        self.clients_work = false;
        let begun_us = self.cluster.time_us;
        self.run_while(|simulation| {
            !simulation.is_settled() && simulation.cluster.time_us < begun_us + CALM_US_MAX
        });
        self.calm_us = self.cluster.time_us - self.plan.faults_us;
        if self.cluster.time_us >= begun_us + CALM_US_MAX {
            let stand: Vec<String> = self
                .cluster
                .nodes
                .iter()
                .filter_map(|(id, node)| {
                    let process = node.process.as_ref()?;
                    Some(format!(
                        "{id} applied below {}, {} batches and {} reads wait",
                        process.store.applied_below,
                        process.pending.len(),
                        process.reads.len()
                    ))
                })
                .collect();
            self.cluster.checker.fail(format!(
                "not level {} s after the last fault, chosen up to {}: {}",
                CALM_US_MAX / SECOND,
                self.cluster.checker.last_chosen(),
                stand.join("; ")
            ));
        }
    }

    fn is_settled(&self) -> bool {
        let waits = |id: &NodeId| {
            self.cluster
                .process(*id)
                .is_some_and(|process| !process.pending.is_empty() || !process.reads.is_empty())
        };
        let candidates =
            self.cluster.ids().into_iter().filter_map(|id| self.cluster.replica(id)?.preparing());
        let leaders = self.cluster.leaders();
        let is_right = |leader: NodeId| {
            self.plan.strategy != ElectionStrategy::HighestId || leader.0 == self.plan.voters
        };
        let is_content = |id: &NodeId| {
            self.cluster.replica(*id).and_then(|replica| replica.happy_with(self.cluster.now(*id)))
                == leaders.first().map(|(leader, _)| *leader)
        };
        let promised = self.cluster.nodes.keys().filter_map(|id| self.cluster.replica(*id));
        let highest_promise = promised.map(|replica| replica.promised()).max();
        candidates.count() == 0
            && highest_promise == leaders.first().map(|(_, ballot)| *ballot)
            && leaders.len() == 1
            && is_right(leaders[0].0)
            && self.cluster.nodes.keys().all(is_content)
            && self.cluster.is_level()
            && !self.cluster.nodes.keys().any(waits)
    }

    /// A healthy leader stays (PITFALLS 20).
    fn expect_peace(&mut self) {
        let leaders = self.cluster.leaders();
        let end_us = self.cluster.time_us + WATCH_US;
        self.run_while(|simulation| simulation.cluster.time_us < end_us);
        let later = self.cluster.leaders();
        if leaders != later {
            self.cluster
                .checker
                .fail(format!("a calm leader was replaced: {leaders:?}, now {later:?}"));
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
                let wait_us = until_us - self.cluster.time_us;
                return self.after(wait_us, event);
            }
            self.paused_until.remove(&node);
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
                if self.incarnation(to) == Some(incarnation) {
                    self.cluster.install(to, snapshot);
                }
            }
            Event::Propose => self.propose(),
            Event::Read => self.read(),
            Event::Fault => self.fault(),
            Event::Restart(node) => self.start(node),
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
        if self.clients_work && !self.paused_until.contains_key(&node) {
            self.cluster.read(node);
        }
    }

    // ---- faults ------------------------------------------------------------------------------

    fn fault(&mut self) {
        if self.calm {
            return;
        }
        let delay_us = self.chance.between(1, 2 * self.plan.fault_every_us);
        self.after(delay_us, Event::Fault);
        if self.plan.faults.is_empty() {
            return;
        }
        let fault = *self.chance.pick(&self.plan.faults);
        let ids = self.cluster.ids();
        let victim = *self.chance.pick(&ids);
        let leader = self.cluster.leaders().last().map_or(victim, |(id, _)| *id);
        self.cluster.trace.line(|| format!("---- {fault:?}"));
        match fault {
            Fault::Crash => self.crash(victim),
            Fault::CrashLeader => self.crash(leader),
            Fault::CrashAll => ids.into_iter().for_each(|id| self.crash(id)),
            Fault::Isolate => {
                let other_links = |id: &NodeId| [(*id, victim), (victim, *id)];
                self.cut.extend(ids.iter().filter(|id| **id != victim).flat_map(other_links));
            }
            Fault::OneWay => {
                let inwards = self.chance.one_in(2);
                let link = |id: &NodeId| if inwards { (*id, victim) } else { (victim, *id) };
                self.cut.extend(ids.iter().filter(|id| **id != victim).map(link));
            }
            Fault::Split => {
                let side: BTreeSet<NodeId> =
                    ids.iter().copied().filter(|_| self.chance.one_in(2)).collect();
                for a in &ids {
                    for b in &ids {
                        if side.contains(a) != side.contains(b) {
                            self.cut.insert((*a, *b));
                        }
                    }
                }
            }
            Fault::RandomLinks => {
                for a in &ids {
                    for b in &ids {
                        if self.chance.one_in(3) {
                            self.cut.insert((*a, *b));
                        }
                    }
                }
            }
            // Only neighbours in a row see each other.
            Fault::Chain => {
                for a in &ids {
                    for b in &ids {
                        if a.0.abs_diff(b.0) > 1 {
                            self.cut.insert((*a, *b));
                        }
                    }
                }
            }
            // All see one node, and nobody else.
            Fault::QuorumLoss => {
                for a in &ids {
                    for b in &ids {
                        if *a != victim && *b != victim {
                            self.cut.insert((*a, *b));
                        }
                    }
                }
            }
            Fault::HealLinks => self.heal_links(),
            Fault::Pause => self.pause(victim),
            Fault::PauseLeader => self.pause(leader),
            Fault::Grey => {
                self.cluster.set_can_accept(victim, false);
                let delay_us = self.chance.below(2 * SECOND);
                self.after(delay_us, Event::CanAcceptAgain(victim));
            }
            Fault::SpoilSnapshot => {
                self.crash(victim);
                self.cluster.spoil_newest_snapshot(victim);
            }
        }
        // Links come back by themselves sooner or later, also in mixes without HealLinks.
        if self.chance.one_in(4) {
            self.heal_links();
        }
    }

    fn heal_links(&mut self) {
        let cut = std::mem::take(&mut self.cut);
        for (node, peer) in cut {
            if self.plan.hints && node != peer {
                let delay_us = self.chance.below(20 * MS);
                self.after(delay_us, Event::Connected { node, peer });
            }
        }
    }

    fn pause(&mut self, node: NodeId) {
        if self.paused_until.contains_key(&node) {
            return;
        }
        let until_us = self.cluster.time_us + self.chance.between(MS, 1_200 * MS);
        self.cluster.coverage.count(Rare::Paused);
        self.paused_until.insert(node, until_us);
        self.cluster.trace.line(|| format!("{node} is paused until {until_us} µs"));
    }

    fn crash(&mut self, node: NodeId) {
        if !self.cluster.is_up(node) {
            return;
        }
        let unsynced = self.cluster.nodes[&node].disk.unsynced_count() as u64;
        let survivors = self.chance.below(unsynced + 1) as usize;
        self.cluster.crash(node, survivors);
        self.syncing_since_us.remove(&node);
        self.paused_until.remove(&node);
        let longest_us = *self.chance.pick(&[5 * MS, 100 * MS, 1_500 * MS]);
        let delay_us = self.chance.between(MS, longest_us);
        self.after(delay_us, Event::Restart(node));
        if self.plan.hints {
            for peer in self.cluster.ids() {
                if peer != node {
                    let delay_us = self.chance.below(3 * MS);
                    self.after(delay_us, Event::Disconnected { node: peer, peer: node });
                }
            }
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
            Event::SnapshotArrives { to, .. } | Event::Install { to, .. } => Some(*to),
            Event::Propose | Event::Read | Event::Fault | Event::Restart(_) => None,
        }
    }
}
