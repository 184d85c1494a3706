//! One node, and what the real code does with one call: everything is done here once and looked up
//! afterwards.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hash};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use paxos::{
    Accepted, Ballot, Configuration, Envelope, Heartbeat, Member, Message, NodeId, Note, Output,
    Position, ReadId, Record, Recovered, Replica, Role, Settings, Slot, Value,
};

use super::bounds::Bounds;
use super::network::{Network, canonical, content};
use super::print::{Print, Printed, Quick};

/// A step of time, and when it begins.
const STEP_US: u64 = 10_000;
const START_US: u64 = 1_000_000;
/// Longer than any search.
const NEVER_US: u64 = 1 << 40;

/// A call on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Deliver(u16),
    /// A peer tells it what is chosen in this slot.
    Learn(u64, u16),
    TakeOver,
    /// The batch of this number.
    Propose(u8),
    /// The change of this number.
    Change(u8),
    /// The quorum read of this number.
    Read(u8),
    /// Its disk syncs nothing any more.
    Hang,
    /// It stops, and starts with so many of the records that were not synced.
    Crash(u8),
    /// It sends a heartbeat to everybody.
    Beat,
    /// A step of time passes.
    Pass,
    HandOver(u32),
    /// No power will fail any more: what is on its disk decides nothing.
    ForgetDisk,
    /// No ballot above this one will ever begin.
    Last(Ballot),
}

/// What a call did.
#[derive(Debug, Default)]
pub struct Step {
    pub node: u32,
    /// Messages that left.
    pub sent: Vec<u16>,
    pub declared: Vec<(Slot, u16)>,
    /// Quorum reads that may be served now, and from which slot on.
    pub served: Vec<(u8, Slot)>,
    /// Ballots begun, apart from those of leaders that go on in a new configuration.
    pub begun: u8,
    /// Slots that have their quorum now, by the ballot of this configuration.
    pub tallied: Vec<(Slot, u32)>,
    /// A heartbeat left: those before it are older now.
    pub beats: bool,
}

/// What the search asks of a node again and again.
#[derive(Clone, Copy, Debug, Default)]
pub struct View {
    pub promised: Ballot,
    pub preparing: Option<Ballot>,
    pub leading: Option<Ballot>,
    pub first_unchosen: Slot,
    pub last_slot: Slot,
    pub is_voter: bool,
    pub hung: bool,
    pub unsynced: u8,
    /// A read of the store may begin, under this ballot.
    pub reads_under: Option<Ballot>,
    /// And this one has a lease now.
    pub leased: Option<Ballot>,
    /// Its newest heartbeat was sent at this very moment.
    pub beaten: bool,
}

/// What a restart would find: the records, as far as they decide anything.
#[derive(Clone, Debug, Default, Hash)]
struct Disk {
    promised: Ballot,
    entries: BTreeMap<Slot, (Accepted, Value)>,
    configuration: Option<Configuration>,
}

impl Disk {
    /// As `Replica::recover` reads it.
    fn take(&mut self, record: &Record) {
        match record {
            Record::Promised(ballot) => self.promised = self.promised.max(*ballot),
            Record::Accepted { slot, ballot, value } => {
                self.promised = self.promised.max(*ballot);
                let is_chosen =
                    self.entries.get(slot).is_some_and(|(held, _)| *held == Accepted::Chosen);
                if !is_chosen {
                    self.entries.insert(*slot, (Accepted::Under(*ballot), value.clone()));
                }
            }
            Record::Chosen { slot, value } => {
                self.entries.insert(*slot, (Accepted::Chosen, value.clone()));
            }
            Record::ChosenRange { from, below } => {
                for (_, (accepted, _)) in self.entries.range_mut(*from..(*below).max(*from)) {
                    *accepted = Accepted::Chosen;
                }
            }
            Record::TrimmedBelow(_) => {}
            Record::Configuration(known) => {
                let held = self.configuration.as_ref().map_or(0, |held| held.number);
                if known.number > held {
                    self.configuration = Some(known.clone());
                }
            }
        }
    }

    fn records(&self) -> Vec<Record> {
        let promised = [Record::Promised(self.promised)];
        let entries = self.entries.iter().map(|(slot, (accepted, value))| {
            let (slot, value) = (*slot, value.clone());
            match *accepted {
                Accepted::Under(ballot) => Record::Accepted { slot, ballot, value },
                Accepted::Chosen => Record::Chosen { slot, value },
            }
        });
        let configuration = self.configuration.clone().map(Record::Configuration);
        promised.into_iter().chain(entries).chain(configuration).collect()
    }
}

#[derive(Clone, Debug)]
struct Node {
    replica: Replica,
    /// `None` once it decides nothing any more.
    disk: Option<Disk>,
    unsynced: Vec<Record>,
    hung: bool,
    /// No ballot above this one will ever begin.
    last: Option<Ballot>,
    incarnation: u64,
    written: u64,
    now_us: u64,
    /// Number of its newest heartbeat, and when it left.
    sequence: u64,
    beat_us: u64,
    view: View,
}

/// Everything that the search has met: nodes, messages, values, and what calls do.
#[derive(Debug)]
pub struct Lab {
    pub bounds: Bounds,
    pub network: Network,
    nodes: Vec<Node>,
    by_print: HashMap<u128, u32, BuildHasherDefault<Printed>>,
    values: Vec<Value>,
    known: HashMap<(u32, Call), u32, Quick>,
    steps: Vec<Option<Result<Step, String>>>,
}

impl Lab {
    pub fn new(bounds: Bounds) -> Lab {
        Lab {
            bounds,
            network: Network::default(),
            nodes: Vec::new(),
            by_print: HashMap::default(),
            values: Vec::new(),
            known: HashMap::default(),
            steps: Vec::new(),
        }
    }

    pub fn view(&self, node: u32) -> &View {
        &self.nodes[node as usize].view
    }

    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    pub fn call_count(&self) -> usize {
        self.steps.len()
    }

    pub fn value(&self, number: u16) -> &Value {
        &self.values[usize::from(number)]
    }

    /// So many heartbeats of one ballot may be under way.
    pub fn oldest(&self) -> u64 {
        self.bounds.leases.as_ref().map_or(1, |leases| leases.heartbeats)
    }

    /// A node that has never run.
    pub fn fresh(&mut self, id: NodeId) -> u32 {
        let disk = (self.bounds.crashes > 0).then(Disk::default);
        let node = self.start(id, disk, 1, START_US);
        self.intern(node)
    }

    /// What this call does on this node; `None` if it is not possible there.
    pub fn call(&mut self, node: u32, call: Call) -> Option<&Result<Step, String>> {
        let index = match self.known.get(&(node, call)) {
            Some(index) => *index,
            None => {
                let step = self.run(node, call);
                self.steps.push(step);
                let index = self.steps.len() as u32 - 1;
                self.known.insert((node, call), index);
                index
            }
        };
        self.steps[index as usize].as_ref()
    }

    fn run(&mut self, number: u32, call: Call) -> Option<Result<Step, String>> {
        let node = self.nodes[number as usize].clone();
        let promised = node.view.promised;
        // The core stops itself rather than go on with a broken invariant.
        let stepped = catch_unwind(AssertUnwindSafe(|| self.step(node, call)));
        let (node, step) = match stepped {
            Err(_) => return Some(Err("the replica stopped itself".to_owned())),
            Ok(step) => step?,
        };
        let went_back = !matches!(call, Call::Crash(_)) && node.replica.promised() < promised;
        let mut step = match step {
            Ok(_) if went_back => return Some(Err(format!("it went back from {promised}"))),
            Ok(step) => step,
            Err(violation) => return Some(Err(violation)),
        };
        step.node = self.intern(node);
        Some(Ok(step))
    }

    fn step(&mut self, mut node: Node, call: Call) -> Option<(Node, Result<Step, String>)> {
        let (id, now) = (node.replica.id(), node.now());
        let mut output = Output::default();
        match call {
            Call::Deliver(number) => {
                let mut envelope = self.network.get(number).clone();
                match &mut envelope.message {
                    Message::Grant { sequence, .. } => {
                        *sequence = (node.sequence + 1).checked_sub(*sequence)?;
                    }
                    // It would be heard and not answered; it waits for what a restart may forget.
                    Message::Heartbeat(Heartbeat { leading, asks_grant: true, .. })
                        if node.hung && leading.unwrap_or_default() < node.view.promised =>
                    {
                        return None;
                    }
                    _ => {}
                }
                let led = node.replica.leading().is_some();
                node.replica.step(now, envelope, &mut output);
                // What has to wait for the end of a lease arrives when it has ended.
                if !led && output.notes.iter().any(|note| matches!(note, Note::Queued { .. })) {
                    return None;
                }
            }
            Call::Learn(slot, value) => {
                let from = NodeId(if id.0 == 1 { 2 } else { 1 });
                let values = vec![self.value(value).clone()];
                let message = Message::Chosen { first: Slot(slot), values };
                node.replica.step(now, Envelope { from, to: id, message }, &mut output);
            }
            Call::TakeOver => {
                node.replica.take_over(now, &mut output);
                if node.replica.preparing().is_none() && node.replica.leading().is_none() {
                    return None;
                }
            }
            Call::Propose(batch) => {
                let payload = Bytes::from(vec![b'a' + batch]);
                node.replica.propose(now, payload, &mut output).ok()?;
            }
            Call::Change(number) => {
                let change = self.bounds.change(number)?;
                node.replica.change(now, &change, &mut output).ok()?;
            }
            Call::Read(read) => {
                node.replica.read(now, ReadId(u64::from(read)), &mut output).ok()?;
            }
            Call::Hang => node.hung = true,
            Call::Crash(kept) => {
                let mut disk = node.disk.take().unwrap_or_default();
                node.unsynced.iter().take(usize::from(kept)).for_each(|record| disk.take(record));
                let last = node.last;
                node = self.start(id, Some(disk), node.incarnation + 1, node.now_us);
                node.last = last;
            }
            Call::Beat => node.replica.tick(now, &mut output),
            Call::Pass => {
                let rates = self.bounds.leases.as_ref().map_or(&[][..], |leases| leases.rates);
                let rate = rates.get(id.0 as usize - 1).copied().unwrap_or(10);
                node.now_us += STEP_US * rate / 10;
            }
            Call::HandOver(to) => {
                node.replica.hand_over(now, Some(NodeId(to)), &mut output).ok()?;
            }
            Call::ForgetDisk => node.disk = None,
            Call::Last(ballot) => node.last = Some(ballot),
        }
        let step = self.settle(&mut node, output);
        Some((node, step))
    }

    /// The shell's work around one call: what may leave at once leaves; then the records are synced,
    /// unless the disk hangs, and the answers that rest on them leave.
    fn settle(&mut self, node: &mut Node, mut output: Output) -> Result<Step, String> {
        let mut step = Step::default();
        let mut goes_on = false;
        let mut leads = node.view.leading.unwrap_or_default().configuration;
        let mut is_synced = false;
        loop {
            for (slot, value) in output.applicable.drain(..) {
                step.declared.push((slot, self.value_number(value)));
            }
            step.served.extend(output.reads.drain(..).map(|(read, slot)| (read.0 as u8, slot)));
            for note in output.notes.drain(..) {
                match note {
                    Note::ConfigurationKnown { .. } => goes_on = true,
                    Note::Preparing { .. } if !goes_on => step.begun += 1,
                    Note::Elected { ballot, .. } => leads = ballot.configuration,
                    Note::Tallied { slot, .. } => step.tallied.push((slot, leads)),
                    _ => {}
                }
            }
            for envelope in output.now.drain(..) {
                self.leave(node, envelope, &mut step)?;
            }
            let records = std::mem::take(&mut output.records);
            if is_synced && records.is_empty() {
                break;
            }
            node.written += records.len() as u64;
            if node.hung {
                node.unsynced.extend(records);
                break;
            }
            if let Some(disk) = &mut node.disk {
                records.iter().for_each(|record| disk.take(record));
            }
            node.replica.durable(node.now(), Position(node.written), &mut output);
            is_synced = true;
        }
        self.hint(node, &mut step)?;
        step.sent.sort_unstable();
        step.sent.dedup();
        Ok(step)
    }

    fn leave(
        &mut self,
        node: &mut Node,
        envelope: Envelope,
        step: &mut Step,
    ) -> Result<(), String> {
        match &envelope.message {
            Message::Promise { ballot, .. } => {
                let known = node.replica.configuration().number;
                if ballot.configuration > known {
                    let id = node.replica.id();
                    return Err(format!("{id} promises {ballot}, it knows configuration {known}"));
                }
            }
            Message::Heartbeat(heartbeat) => {
                node.sequence = node.sequence.max(heartbeat.sequence);
                if heartbeat.asks_grant {
                    node.beat_us = node.now_us;
                    step.beats = true;
                }
            }
            _ => {}
        }
        let leases = self.bounds.leases.is_some();
        if let Some(envelope) = canonical(envelope, node.sequence, leases)
            && envelope.to.0 <= self.bounds.nodes()
        {
            step.sent.push(self.network.number(envelope));
        }
        Ok(())
    }

    /// A leader's heartbeat may leave at any moment, and so now, with its hint.
    fn hint(&mut self, node: &Node, step: &mut Step) -> Result<(), String> {
        if !self.bounds.hints || node.replica.leading().is_none() {
            return Ok(());
        }
        let mut node = node.clone();
        let mut output = Output::default();
        for peer in (1..=self.bounds.nodes()).map(NodeId) {
            node.replica.connected(node.now(), peer, &mut output);
        }
        for envelope in output.now.drain(..) {
            let hint = match &envelope.message {
                Message::Heartbeat(heartbeat) => heartbeat.hint,
                _ => Slot::ZERO,
            };
            if hint > Slot::FIRST {
                self.leave(&mut node, envelope, step)?;
            }
        }
        Ok(())
    }

    fn start(&self, id: NodeId, disk: Option<Disk>, incarnation: u64, now_us: u64) -> Node {
        let role = |learners: bool| Member {
            role: if learners { Role::Learner } else { Role::Voter },
            ..Member::default()
        };
        let voters = self.bounds.voters.iter().map(|id| (NodeId(*id), role(false)));
        let learners = self.bounds.learners.iter().map(|id| (NodeId(*id), role(true)));
        let configuration =
            Configuration { members: voters.chain(learners).collect(), ..Configuration::default() };
        let mut settings = Settings::new(id, u64::from(id.0) << 8 | incarnation, 0);
        settings.lease_terms.lease_us =
            self.bounds.leases.as_ref().map_or(0, |leases| leases.steps * STEP_US);
        // The search decides when anything happens.
        settings.timing.heartbeat_us = 0;
        settings.timing.silence_us = NEVER_US;
        settings.timing.silence_jitter_us = 0;
        settings.timing.phase1_us = NEVER_US;
        settings.timing.phase1_us_max = NEVER_US;
        settings.timing.resend_us = NEVER_US;
        settings.timing.stalled_us = NEVER_US;
        let lease_us = settings.lease_terms.lease_us;
        let records = disk.as_ref().map(Disk::records).unwrap_or_default();
        let recovered = Recovered { records, ..Recovered::default() };
        let now = paxos::Now { mono_us: now_us, wall_ms: 1 };
        let mut output = Output::default();
        let mut replica = Replica::recover(settings, configuration, recovered, now, &mut output);
        // All have heard of each other, so that a change is not refused for that.
        let mut sequence = 0;
        for peer in (1..=self.bounds.nodes()).map(NodeId).filter(|peer| *peer != id) {
            replica.connected(now, peer, &mut output);
            let said = output.now.iter().find_map(|envelope| match &envelope.message {
                Message::Heartbeat(heartbeat) if envelope.to == peer => Some(heartbeat.sequence),
                _ => None,
            });
            let Some(echo) = said else { continue };
            sequence = echo;
            let heartbeat = Heartbeat { sequence: 1, echo, lease_us, ..content(peer) };
            let message = Message::Heartbeat(heartbeat);
            replica.step(now, Envelope { from: peer, to: id, message }, &mut output);
        }
        let written = output.records.len() as u64;
        replica.durable(now, Position(written), &mut output);
        Node {
            replica,
            disk,
            unsynced: Vec::new(),
            hung: false,
            last: None,
            incarnation,
            written,
            now_us,
            sequence,
            beat_us: 0,
            view: View::default(),
        }
    }

    fn intern(&mut self, mut node: Node) -> u32 {
        let mut print = Print::default();
        node.replica.id().hash(&mut print);
        let reduced = self.bounds.reduced;
        node.replica.hash_standing(node.last.is_none(), &mut print);
        (&node.disk, &node.unsynced, node.hung, node.last).hash(&mut print);
        if self.names_batches() || !reduced {
            node.incarnation.hash(&mut print);
        }
        match &self.bounds.leases {
            Some(leases) if reduced => {
                let hands_over = leases.releases > 0;
                node.replica.hash_leases(node.now(), node.last, hands_over, &mut print);
            }
            Some(_) => node.replica.hash_leases_in_full(node.now(), &mut print),
            None => {}
        }
        let nodes = &mut self.nodes;
        *self.by_print.entry(print.wide()).or_insert_with(|| {
            node.view = node.look();
            nodes.push(node);
            nodes.len() as u32 - 1
        })
    }

    /// Only the names of batches and changes tell one process of a node from the next.
    fn names_batches(&self) -> bool {
        self.bounds.batches > 0 || !self.bounds.changes.is_empty()
    }

    fn value_number(&mut self, value: Value) -> u16 {
        let at = self.values.iter().position(|known| *known == value);
        let at = at.unwrap_or_else(|| {
            self.values.push(value);
            self.values.len() - 1
        });
        u16::try_from(at).expect("a model chooses fewer different values")
    }
}

impl Node {
    fn now(&self) -> paxos::Now {
        paxos::Now { mono_us: self.now_us, wall_ms: 1 }
    }

    fn look(&self) -> View {
        let replica = &self.replica;
        let reads_under = replica.reads_under();
        View {
            promised: replica.promised(),
            preparing: replica.preparing(),
            leading: replica.leading(),
            first_unchosen: replica.first_unchosen(),
            last_slot: replica.last_slot().unwrap_or(Slot::ZERO),
            is_voter: replica.configuration().is_voter(replica.id()),
            hung: self.hung,
            unsynced: self.unsynced.len() as u8,
            reads_under,
            leased: reads_under.filter(|ballot| replica.holds_lease(self.now(), *ballot)),
            beaten: self.beat_us == self.now_us,
        }
    }
}
