//! One seed, one life of a cluster, in virtual time: whole nodes on disks that fail, clients at
//! work, faults of every kind, then calm.
//!
//! All chance comes from the seed, so a seed that failed fails again, step by step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use config::FollowerReads;
use node::snapshot::Done;
use paxos::{Configuration, NodeId, Now};
use proof::check::{Limits, Verdict, linearizable};
use proof::history::History;

use super::MS;
use super::broken::Broken;
use super::chance::Chance;
use super::checker::Checker;
use super::clients::Clients;
use super::coverage::Coverage;
use super::machine::{Connection, Machine, Process};
use super::plan::Plan;
use super::seeds::{Less, Life, Strike};
use super::setup::{configuration, draw_clock};
use super::turns::describe;

pub enum Event {
    Deliver {
        from: NodeId,
        /// The process that sent it.
        nonce: u64,
        to: NodeId,
        frame: Bytes,
    },
    /// There was more to do than one turn does.
    Turn {
        node: NodeId,
        nonce: u64,
    },
    Tick {
        node: NodeId,
        nonce: u64,
    },
    /// What waits is appended; then synced; again, when there was no space.
    Append {
        node: NodeId,
        nonce: u64,
    },
    Sync {
        node: NodeId,
        nonce: u64,
    },
    File {
        node: NodeId,
        nonce: u64,
    },
    Filed {
        node: NodeId,
        nonce: u64,
        done: Done,
    },
    Connected {
        node: NodeId,
        peer: NodeId,
    },
    Disconnected {
        node: NodeId,
        peer: NodeId,
    },
    Request {
        node: NodeId,
        nonce: u64,
        connection: Connection,
        bytes: Bytes,
    },
    HangUp {
        node: NodeId,
        nonce: u64,
        connection: Connection,
    },
    Reply {
        connection: Connection,
        bytes: Bytes,
    },
    Closed {
        connection: Connection,
    },
    Act {
        client: usize,
    },
    Impatient {
        client: usize,
        replies: u64,
    },
    /// A signal asks it to stop.
    Stop {
        node: NodeId,
        nonce: u64,
    },
    Fault,
    /// All links are cut but those of one node.
    Constrain {
        hub: NodeId,
    },
    /// An administrator changes who takes part.
    Change,
    /// He helps those who know only peers that are gone.
    Introduce,
    PowerCut {
        node: NodeId,
        nonce: u64,
    },
    Start {
        node: NodeId,
    },
    SpaceAgain {
        node: NodeId,
    },
    /// An older copy of its disks is put back.
    PutBack {
        node: NodeId,
    },
}

/// How to run a seed.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub seed: u64,
    pub broken: Option<Broken>,
    pub less: Less,
    pub trace_lines_max: Option<usize>,
}

/// What came of it.
pub type Outcome = Life<Coverage>;

pub struct Simulation {
    pub(super) seed: u64,
    pub(super) plan: Plan,
    pub(super) broken: Option<Broken>,
    pub(super) less: Less,
    /// Faults drawn so far, and those that struck.
    pub(super) faults_drawn: u64,
    pub(super) strikes: Vec<Strike>,
    pub(super) chance: Chance,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    pub(super) clients: Clients,
    pub(super) checker: Checker,
    pub(super) coverage: Coverage,
    pub(super) time_us: u64,
    pub(super) queue: BTreeMap<(u64, u64), Event>,
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) last_arrival_us: BTreeMap<(NodeId, NodeId), u64>,
    /// When a slow link has carried what is long.
    pub(super) bulk_free_us: BTreeMap<(NodeId, NodeId), u64>,
    pub(super) paused_until_us: BTreeMap<NodeId, u64>,
    /// Those among the paused that also lose what is sent to them.
    pub(super) suspended: BTreeSet<NodeId>,
    /// Nodes that have lost something synced: never more than the others can spare.
    pub(super) spoiled: BTreeSet<NodeId>,
    /// Those that run on an older copy of their disks.
    pub(super) copies: BTreeSet<NodeId>,
    /// Who was refused by whom, and will not try again before then.
    pub(super) refused_until_us: BTreeMap<(NodeId, NodeId), u64>,
    /// The next node that receives a snapshot loses its power.
    pub(super) cut_next_install: bool,
    /// The newest file of the next node that looks at one, to send it, rots.
    pub(super) rot_next_checked: bool,
    pub(super) spoiled_files: BTreeSet<(NodeId, String)>,
    pub(super) calm: bool,
    pub(super) clients_work: bool,
    pub(super) calm_us: u64,
    pub(super) configuration: Configuration,
    sequence: u64,
    steps: u64,
    pub(super) connections: u64,
    pub(super) last_reply_us: BTreeMap<Connection, u64>,
    /// Connections whose next reply was given too early, by a node that is wrong on purpose.
    pub(super) muted: BTreeSet<Connection>,
    /// What a client that is wrong on purpose will send once more.
    pub(super) resends: Vec<Vec<Vec<u8>>>,
    trace: VecDeque<String>,
    trace_lines_max: usize,
}

pub(super) const TICK_US: u64 = 5 * MS;
/// As the sync thread of the product has it.
pub(super) const IDLE_US: u64 = 100 * MS;
pub(super) const FULL_PAUSE_US: u64 = 50 * MS;

pub fn run(run: Run) -> Outcome {
    let mut simulation = Simulation::new(run);
    let panicked = catch_unwind(AssertUnwindSafe(|| simulation.live())).err();
    let panicked = panicked.map(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("a node stopped itself: {}", text.unwrap_or_default())
    });
    let mut coverage = simulation.coverage;
    coverage.merge(&simulation.clients.coverage);
    Outcome {
        violation: simulation.checker.violation.take().or(panicked),
        coverage,
        trace: simulation.trace.into(),
        plan: format!("{:?}", simulation.plan),
        strikes: simulation.strikes,
        clients: simulation.plan.clients,
        steps: simulation.steps,
        acknowledged: simulation.clients.acknowledged_count() as u64,
        virtual_us: simulation.time_us,
        calm_us: simulation.calm_us,
    }
}

impl Simulation {
    fn new(run: Run) -> Simulation {
        let mut chance = Chance::new(run.seed);
        let mut plan = Plan::draw(&mut chance);
        plan.leave_out(&run.less);
        // Their early answers are given one at a time.
        if matches!(run.broken, Some(Broken::RepliesBeforeApply | Broken::ReadsWithoutRound)) {
            plan.pipeline = 1;
            plan.transactions = false;
            plan.once = false;
        }
        if run.broken == Some(Broken::StaleTakenForNew) {
            plan.behaviour.follower_reads = FollowerReads::Stale;
            plan.follower_reads = FollowerReads::Linearizable;
        }
        let configuration = configuration(plan.nodes);
        let mut machines = BTreeMap::new();
        for id in &(1..=plan.nodes + plan.spares).map(NodeId).collect::<Vec<_>>() {
            let (behaviour, options) = (plan.behaviour.clone(), plan.options);
            let mut machine =
                Machine::formatted(*id, behaviour, options, plan.block_bytes, run.seed);
            machine.clock = draw_clock(&mut chance, &plan, *id);
            machines.insert(*id, machine);
        }
        Simulation {
            seed: run.seed,
            clients: Clients::new(plan.clients, plan.follower_reads, run.broken),
            checker: Checker::new(configuration.clone()),
            plan,
            broken: run.broken,
            less: run.less,
            faults_drawn: 0,
            strikes: Vec::new(),
            chance,
            machines,
            coverage: Coverage::default(),
            time_us: 0,
            queue: BTreeMap::new(),
            cut: BTreeSet::new(),
            last_arrival_us: BTreeMap::new(),
            bulk_free_us: BTreeMap::new(),
            paused_until_us: BTreeMap::new(),
            suspended: BTreeSet::new(),
            spoiled: BTreeSet::new(),
            copies: BTreeSet::new(),
            refused_until_us: BTreeMap::new(),
            cut_next_install: false,
            rot_next_checked: false,
            spoiled_files: BTreeSet::new(),
            calm: false,
            clients_work: true,
            calm_us: 0,
            configuration,
            sequence: 0,
            steps: 0,
            connections: 0,
            last_reply_us: BTreeMap::new(),
            muted: BTreeSet::new(),
            resends: Vec::new(),
            trace: VecDeque::new(),
            trace_lines_max: run.trace_lines_max.unwrap_or(0),
        }
    }

    fn live(&mut self) {
        for id in self.ids() {
            self.start(id);
        }
        for client in 0..self.clients.all.len() {
            self.after(0, Event::Act { client });
        }
        self.after(self.plan.fault_every_us, Event::Fault);
        if self.plan.change_every_us > 0 {
            self.after(self.plan.change_every_us, Event::Change);
        }
        let end_us = self.plan.faults_us;
        self.run_while(|simulation| simulation.time_us < end_us);
        if !self.is_broken() {
            self.come_to_rest();
        }
        // A history that ended early is judged too: what is wrong in it stays wrong.
        self.judge_history();
    }

    fn judge_history(&mut self) {
        let operations = std::mem::take(&mut self.clients.history);
        let history = History { operations };
        let limits = Limits { ok_min: 1, ..Limits::default() };
        match linearizable(&history, limits) {
            Verdict::Holds => {}
            Verdict::Violated(text) => self.checker.fail(format!("not linearizable: {text}")),
            // After the calm there always is something to look at.
            Verdict::Unknown(text) if self.calm => self.checker.fail(format!("unclear: {text}")),
            Verdict::Unknown(_) => {}
        }
        self.clients.history = history.operations;
    }

    pub(super) fn is_broken(&self) -> bool {
        self.checker.violation.is_some()
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    pub(super) fn process(&self, node: NodeId) -> Option<&Process> {
        self.machines[&node].process.as_ref()
    }

    pub(super) fn now(&self, node: NodeId) -> Now {
        self.machines[&node].now(self.time_us)
    }

    pub(super) fn trace(&mut self, line: impl FnOnce() -> String) {
        if self.trace_lines_max == 0 {
            return;
        }
        if self.trace.len() == self.trace_lines_max {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>10} {}", self.time_us, line()));
    }

    // ---- events -------------------------------------------------------------------------------

    pub(super) fn after(&mut self, delay_us: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.time_us + delay_us, self.sequence), event);
    }

    /// Runs until `go_on` says no, or something is wrong.
    pub(super) fn run_while(&mut self, mut go_on: impl FnMut(&Simulation) -> bool) {
        while !self.is_broken() && go_on(self) {
            let Some(((at_us, _), event)) = self.queue.pop_first() else { return };
            self.time_us = self.time_us.max(at_us);
            self.steps += 1;
            self.handle(event);
            if let Some(text) = self.clients.violation.take() {
                self.checker.fail(text);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        if let Some(node) = event.needs_awake()
            && let Some(&until_us) = self.paused_until_us.get(&node)
        {
            if until_us > self.time_us {
                if self.suspended.contains(&node) && matches!(event, Event::Deliver { .. }) {
                    return;
                }
                return self.after(until_us - self.time_us, event);
            }
            self.wake(node);
        }
        if let Some((node, nonce)) = event.life()
            && self.machines[&node].nonce() != Some(nonce)
        {
            return;
        }
        match event {
            Event::Deliver { from, nonce, to, frame } => {
                if !self.cut.contains(&(from, to)) && self.is_let_in(from, nonce, to) {
                    self.trace(|| describe(from, to, &frame));
                    self.at(to, |process, now| process.receive(now, to, from, &frame));
                }
            }
            Event::Tick { node, nonce } => {
                self.tick(node);
                self.after(TICK_US, Event::Tick { node, nonce });
            }
            Event::Turn { node, .. } => self.at(node, |_, _| {}),
            Event::Append { node, nonce } => self.append(node, nonce),
            Event::Sync { node, nonce } => self.sync(node, nonce),
            Event::File { node, nonce } => self.file(node, nonce),
            Event::Filed { node, done, .. } => {
                self.count_done(node, &done);
                self.at(node, |process, _| process.filed(done));
            }
            Event::Connected { node, peer } => {
                let nonce =
                    self.machines[&peer].nonce().filter(|_| !self.cut.contains(&(peer, node)));
                if nonce.is_some_and(|nonce| self.is_let_in(peer, nonce, node)) {
                    self.at(node, |process, now| process.node.connected(now, peer));
                }
            }
            Event::Disconnected { node, peer } => {
                self.at(node, |process, now| process.peer_lost(now, peer));
            }
            Event::Request { node, connection, bytes, .. } => {
                self.request(node, connection, &bytes);
            }
            Event::HangUp { node, connection, .. } => {
                self.at(node, |process, _| process.hang_up(connection));
            }
            Event::Reply { connection, bytes } => self.reply(connection, &bytes),
            Event::Closed { connection } => self.closed(connection),
            Event::Act { client } => self.act(client),
            Event::Impatient { client, replies } => self.impatient(client, replies),
            Event::Stop { node, .. } => self.at(node, |process, now| process.leave(now)),
            Event::Fault => self.fault(),
            Event::Constrain { hub } => self.constrained(hub),
            Event::Change => self.change(),
            Event::Introduce => self.introduce(),
            Event::PowerCut { node, .. } => self.power_cut(node),
            Event::Start { node } => self.start(node),
            Event::SpaceAgain { node } => self.space_again(node),
            Event::PutBack { node } if self.calm => self.trace(|| format!("{node} keeps its disk")),
            Event::PutBack { node } => self.put_back(node),
        }
    }
}

impl Event {
    /// The node that has to run for this to happen.
    pub(super) fn needs_awake(&self) -> Option<NodeId> {
        match self {
            Event::Deliver { to, .. } => Some(*to),
            Event::Tick { node, .. }
            | Event::Turn { node, .. }
            | Event::Append { node, .. }
            | Event::Sync { node, .. }
            | Event::File { node, .. }
            | Event::Filed { node, .. }
            | Event::Connected { node, .. }
            | Event::Disconnected { node, .. }
            | Event::Request { node, .. }
            | Event::HangUp { node, .. }
            | Event::Stop { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// The life of a process that this belongs to.
    fn life(&self) -> Option<(NodeId, u64)> {
        match self {
            Event::Tick { node, nonce }
            | Event::Turn { node, nonce }
            | Event::Append { node, nonce }
            | Event::Sync { node, nonce }
            | Event::File { node, nonce }
            | Event::Filed { node, nonce, .. }
            | Event::Request { node, nonce, .. }
            | Event::HangUp { node, nonce, .. }
            | Event::Stop { node, nonce }
            | Event::PowerCut { node, nonce } => Some((*node, *nonce)),
            _ => None,
        }
    }
}
