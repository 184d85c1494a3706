//! One state of the search: three or more real replicas, what they have on disk, and every message
//! that was ever sent.
//!
//! Messages are facts that stay: any of them may arrive at any moment, any number of times, or
//! never. That is loss, delay, reordering and duplication at once. Time stands still, so nothing
//! happens by itself: the search decides who begins a ballot, who proposes, whose heartbeat is sent
//! and whose power fails.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use paxos::{
    Ballot, Configuration, Envelope, Heartbeat, Member, Message, NodeId, Now, Output, Position,
    Record, Recovered, Replica, Role, Settings, Slot, Value,
};

const NOW: Now = Now { mono_us: 1, wall_ms: 1 };

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub nodes: u32,
    /// Ballots begun in all.
    pub ballots: u8,
    /// Batches proposed in all.
    pub batches: u8,
    pub crashes: u8,
    /// Heartbeats and repeated Accepts, and with them hints, catching up, higher promises seen.
    pub heartbeats: bool,
}

/// What may happen next.
#[derive(Clone, Debug)]
pub enum Action {
    /// The message with this number arrives; what the step wrote is synced, and its answers leave.
    Deliver(usize),
    /// The same, but power fails after the first so many records of the step have reached the disk.
    DeliverThenCrash(usize, usize),
    TakeOver(NodeId),
    TakeOverThenCrash(NodeId, usize),
    Propose(NodeId),
    ProposeThenCrash(NodeId, usize),
    /// A heartbeat of the first to the second, and whatever it has in flight.
    Reconnect(NodeId, NodeId),
    /// Power fails while nothing is unsynced.
    Crash(NodeId),
}

/// Every message ever sent in any state, by number.
#[derive(Debug, Default)]
pub struct Messages {
    numbers: HashMap<Envelope, usize>,
    pub envelopes: Vec<Envelope>,
}

impl Messages {
    fn number(&mut self, envelope: Envelope) -> usize {
        let envelopes = &mut self.envelopes;
        *self.numbers.entry(envelope).or_insert_with_key(|envelope| {
            envelopes.push(envelope.clone());
            envelopes.len() - 1
        })
    }
}

/// A set of message numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Sent(Vec<u64>);

impl Sent {
    fn add(&mut self, number: usize) -> bool {
        let (word, bit) = (number / 64, 1 << (number % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    fn remove(&mut self, number: usize) {
        self.0[number / 64] &= !(1 << (number % 64));
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| word * 64 + bit)
        })
    }
}

#[derive(Clone, Debug)]
struct Node {
    replica: Replica,
    /// What a restart would find, while a restart is still within the bounds.
    records: Vec<Record>,
    written: u64,
    incarnation: u64,
    fingerprint: u64,
}

impl Node {
    fn sealed(mut self) -> Arc<Node> {
        let mut hasher = DefaultHasher::new();
        self.replica.hash_standing(&mut hasher);
        (&self.records, self.incarnation).hash(&mut hasher);
        self.fingerprint = hasher.finish();
        Arc::new(self)
    }
}

#[derive(Clone, Debug)]
pub struct World {
    nodes: Vec<Arc<Node>>,
    sent: Sent,
    /// What was declared chosen by anybody, ever.
    declared: BTreeMap<Slot, Value>,
    ballots: u8,
    batches: u8,
    crashes: u8,
}

/// The search found this in the state after the last step.
pub type Violation = String;

impl World {
    pub fn new(bounds: Bounds) -> World {
        let nodes = (1..=bounds.nodes)
            .map(|id| start(bounds.nodes, NodeId(id), Vec::new(), 1).0.sealed())
            .collect();
        World {
            nodes,
            sent: Sent::default(),
            declared: BTreeMap::new(),
            ballots: 0,
            batches: 0,
            crashes: 0,
        }
    }

    /// A number for this state; equal for states with the same future.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.sent.hash(&mut hasher);
        self.declared.hash(&mut hasher);
        (self.ballots, self.batches, self.crashes).hash(&mut hasher);
        self.nodes.iter().for_each(|node| node.fingerprint.hash(&mut hasher));
        hasher.finish()
    }

    pub fn actions(&self, bounds: Bounds) -> Vec<Action> {
        let mut actions = Vec::new();
        let can_crash = self.crashes < bounds.crashes;
        for number in self.sent.iter() {
            actions.push(Action::Deliver(number));
            if can_crash {
                actions.extend((0..3).map(|kept| Action::DeliverThenCrash(number, kept)));
            }
        }
        for node in &self.nodes {
            let id = node.replica.id();
            // Ids matter only as the order of those who propose, so as many proposers as there are
            // ballots are as good as all.
            if self.ballots < bounds.ballots && id.0 <= u32::from(bounds.ballots) {
                actions.push(Action::TakeOver(id));
                if can_crash {
                    actions.push(Action::TakeOverThenCrash(id, 0));
                }
            }
            if node.replica.leading().is_some() && self.batches < bounds.batches {
                actions.push(Action::Propose(id));
                if can_crash {
                    actions.push(Action::ProposeThenCrash(id, 0));
                }
            }
            if bounds.heartbeats && node.replica.leading().is_some() {
                let others = self.nodes.iter().map(|other| other.replica.id());
                actions.extend(others.filter(|to| *to != id).map(|to| Action::Reconnect(id, to)));
            }
            if can_crash {
                actions.push(Action::Crash(id));
            }
        }
        actions
    }

    /// Takes one action. `None` when it is not possible here or changes nothing by itself.
    pub fn step(
        &self,
        action: &Action,
        bounds: Bounds,
        messages: &mut Messages,
    ) -> Option<Result<World, Violation>> {
        let mut world = self.clone();
        let outcome = match *action {
            Action::Deliver(number) => {
                let envelope = messages.envelopes[number].clone();
                world.run(envelope.to, None, bounds, messages, |replica, output| {
                    replica.step(NOW, envelope, output);
                    Some(())
                })
            }
            Action::DeliverThenCrash(number, kept) => {
                let envelope = messages.envelopes[number].clone();
                world.run(envelope.to, Some(kept), bounds, messages, |replica, output| {
                    replica.step(NOW, envelope, output);
                    Some(())
                })
            }
            Action::TakeOver(id) => {
                world.ballots += 1;
                world.run(id, None, bounds, messages, take_over)
            }
            Action::TakeOverThenCrash(id, kept) => {
                world.ballots += 1;
                world.run(id, Some(kept), bounds, messages, take_over)
            }
            Action::Propose(id) => {
                let payload = world.next_payload();
                world.run(id, None, bounds, messages, |replica, output| {
                    replica.propose(NOW, payload, output).ok().map(|_| ())
                })
            }
            Action::ProposeThenCrash(id, kept) => {
                let payload = world.next_payload();
                world.run(id, Some(kept), bounds, messages, |replica, output| {
                    replica.propose(NOW, payload, output).ok().map(|_| ())
                })
            }
            Action::Reconnect(from, to) => {
                world.run(from, None, bounds, messages, |replica, output| {
                    replica.connected(NOW, to, output);
                    Some(())
                })
            }
            Action::Crash(id) => world.run(id, Some(usize::MAX), bounds, messages, |_, _| Some(())),
        };
        outcome.map(|checked| checked.map(|()| world))
    }

    fn next_payload(&mut self) -> Bytes {
        self.batches += 1;
        Bytes::from(vec![b'a' + self.batches - 1])
    }

    /// The shell's work around one call: what may leave at once leaves; then the records are
    /// synced and the answers that rest on them leave, or power fails with the first `kept` of them
    /// on disk.
    fn run(
        &mut self,
        id: NodeId,
        kept: Option<usize>,
        bounds: Bounds,
        messages: &mut Messages,
        call: impl FnOnce(&mut Replica, &mut Output) -> Option<()>,
    ) -> Option<Result<(), Violation>> {
        let index = id.0 as usize - 1;
        let mut node = Node::clone(&self.nodes[index]);
        let promised = node.replica.promised();
        let mut output = Output::default();
        call(&mut node.replica, &mut output)?;
        self.crashes += u8::from(kept.is_some());
        let keeps_records = self.crashes < bounds.crashes;
        loop {
            if let Err(violation) = self.collect(&mut output, messages) {
                return Some(Err(violation));
            }
            let records = std::mem::take(&mut output.records);
            node.written += records.len() as u64;
            if let Some(kept) = kept {
                // All of them kept is the step without the crash, then a crash.
                if kept != usize::MAX && kept >= records.len() {
                    return None;
                }
                node.records.extend(records.into_iter().take(kept));
                let (restarted, output) =
                    start(bounds.nodes, id, node.records.clone(), node.incarnation + 1);
                node = restarted;
                if let Err(violation) = self.collect(&mut { output }, messages) {
                    return Some(Err(violation));
                }
                break;
            }
            if node.replica.promised() < promised {
                return Some(Err(format!("{id} went back from its promise {promised}")));
            }
            node.records.extend(records);
            let before = messages.envelopes.len();
            node.replica.durable(NOW, Position(node.written), &mut output);
            let is_quiet = output.records.is_empty()
                && output.now.is_empty()
                && output.applicable.is_empty()
                && messages.envelopes.len() == before;
            if is_quiet {
                break;
            }
        }
        if !keeps_records {
            node.records.clear();
        }
        if self.crashes == bounds.crashes {
            self.nodes = std::mem::take(&mut self.nodes)
                .into_iter()
                .map(|other| match other.records.is_empty() {
                    true => other,
                    false => Node { records: Vec::new(), ..Node::clone(&other) }.sealed(),
                })
                .collect();
        }
        self.nodes[index] = node.sealed();
        self.forget_dead(messages, bounds);
        Some(self.chosen_once(messages))
    }

    /// Puts what left into the network, and holds what was declared against all that ever was.
    fn collect(&mut self, output: &mut Output, messages: &mut Messages) -> Result<(), Violation> {
        for envelope in output.now.drain(..) {
            self.sent.add(messages.number(canonical(envelope)));
        }
        for (slot, value) in output.applicable.drain(..) {
            let declared = self.declared.entry(slot).or_insert_with(|| value.clone());
            if *declared != value {
                return Err(format!("slot {slot}: {declared:?} and then {value:?} declared"));
            }
        }
        Ok(())
    }

    /// Removes messages that can do nothing any more wherever and whenever they arrive, so that
    /// states that differ in them only are one: whatever belongs to a ballot below the receiver's
    /// promise is refused, and refusals are left out (they end a ballot, which is like losing all
    /// that would still reach it), and so are chosen entries known long since.
    fn forget_dead(&mut self, messages: &Messages, bounds: Bounds) {
        let dead: Vec<usize> = self
            .sent
            .iter()
            .filter(|number| {
                let Envelope { to, message, .. } = &messages.envelopes[*number];
                let replica = &self.nodes[to.0 as usize - 1].replica;
                match message {
                    Message::Prepare { ballot, .. }
                    | Message::Promise { ballot, .. }
                    | Message::Accept { ballot, .. }
                    | Message::Accepted { ballot, .. } => replica.promised() > *ballot,
                    Message::Nack { .. } => true,
                    Message::Learned { .. } => !bounds.heartbeats,
                    Message::Chosen { first, values } => {
                        first.0 + values.len() as u64 <= replica.first_unchosen().0
                    }
                    _ => false,
                }
            })
            .collect();
        dead.into_iter().for_each(|number| self.sent.remove(number));
    }

    /// Is at most one value accepted by a quorum under one ballot in each slot, whoever knows it?
    /// The Accepteds that were sent tell; own votes are in the acceptor's own hands and are seen
    /// when the slot is declared.
    fn chosen_once(&self, messages: &Messages) -> Result<(), Violation> {
        let mut values: BTreeMap<(Slot, Ballot), &Value> = BTreeMap::new();
        for number in self.sent.iter() {
            if let Message::Accept { ballot, slot, value, .. } = &messages.envelopes[number].message
                && let Some(other) = values.insert((*slot, *ballot), value)
                && other != value
            {
                return Err(format!("slot {slot}, ballot {ballot}: {other:?} and {value:?} sent"));
            }
        }
        Ok(())
    }

    /// What the state table counts.
    pub fn leaders(&self) -> usize {
        self.nodes.iter().filter(|node| node.replica.leading().is_some()).count()
    }

    pub fn declared(&self) -> usize {
        self.declared.len()
    }
}

fn take_over(replica: &mut Replica, output: &mut Output) -> Option<()> {
    replica.take_over(NOW, output).then_some(())
}

fn start(nodes: u32, id: NodeId, records: Vec<Record>, incarnation: u64) -> (Node, Output) {
    let member = Member { role: Role::Voter, ..Member::default() };
    let members = (1..=nodes).map(|id| (NodeId(id), member.clone())).collect();
    let configuration = Configuration { members, ..Configuration::default() };
    let mut output = Output::default();
    let recovered = Recovered { records: records.clone(), ..Recovered::default() };
    let mut settings = Settings::new(id, u64::from(id.0) << 8 | incarnation, 0);
    // Time stands still here; leases have their scripts and the simulator.
    settings.lease_us = 0;
    let replica = Replica::recover(settings, configuration, recovered, NOW, &mut output);
    (Node { replica, records, written: 0, incarnation, fingerprint: 0 }, output)
}

/// Numbers and echoes of heartbeats serve the election, which stands still here; without them
/// heartbeats that say the same are the same.
fn canonical(mut envelope: Envelope) -> Envelope {
    if let Message::Heartbeat(heartbeat) = &mut envelope.message {
        *heartbeat = Heartbeat {
            sequence: 0,
            echo: 0,
            echo_age_us: 0,
            happy_with: None,
            quorum_connected: true,
            connected: Vec::new(),
            ..std::mem::take(heartbeat)
        };
    }
    envelope
}

pub fn describe(action: &Action, messages: &Messages) -> String {
    let message = |number: usize| {
        let Envelope { from, to, message } = &messages.envelopes[number];
        format!("{from} -> {to} {message:?}")
    };
    match action {
        Action::Deliver(number) => message(*number),
        Action::DeliverThenCrash(number, kept) => {
            format!("{}, then power fails after {kept} records", message(*number))
        }
        other => format!("{other:?}"),
    }
}
