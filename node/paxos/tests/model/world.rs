//! One state of the search: what every node is, what was sent and may still do something, and what
//! was declared chosen by anybody, ever.

use paxos::{Ballot, Envelope, Message, NodeId, Slot, Value};

use super::bounds::ENDLESS;
use super::local::{Call, Lab, Step};
use super::print::Print;

const NODES_MAX: usize = 5;
const SLOTS_MAX: usize = 10;
const READS_MAX: usize = 3;
/// Nothing declared in this slot.
const OPEN: u16 = u16::MAX;
/// No such read under way.
const IDLE: u8 = u8::MAX;

/// What may happen next. Nodes by their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Deliver(u16),
    Learn(u8, u8),
    TakeOver(u8),
    Propose(u8),
    Change(u8),
    Read(u8),
    Hang(u8),
    Crash(u8, u8),
    Beat(u8),
    /// A step of time.
    Pass,
    HandOver(u8, u8),
    /// It reads its store now, and asks for its lease later.
    Peek(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    nodes: [u32; NODES_MAX],
    sent: Vec<u16>,
    declared: [u16; SLOTS_MAX],
    /// What each quorum read must not miss.
    floors: [u8; READS_MAX],
    /// Who has read a store that lacked something, under which ballot.
    peeked: Option<(u8, Ballot)>,
    ballots: u8,
    batches: u8,
    changes: u8,
    reads: u8,
    crashes: u8,
    releases: u8,
    /// Counted only where they are bounded.
    beats: u8,
    passes: u8,
    hung: u8,
}

impl World {
    pub fn new(lab: &mut Lab) -> World {
        let mut nodes = [0; NODES_MAX];
        for id in 1..=lab.bounds.nodes() {
            nodes[id as usize - 1] = lab.fresh(NodeId(id));
        }
        World {
            nodes,
            sent: Vec::new(),
            declared: [OPEN; SLOTS_MAX],
            floors: [IDLE; READS_MAX],
            peeked: None,
            ballots: 0,
            batches: 0,
            changes: 0,
            reads: 0,
            crashes: 0,
            releases: 0,
            beats: 0,
            passes: 0,
            hung: IDLE,
        }
    }

    fn last_declared(&self) -> Slot {
        let last = self.declared.iter().rposition(|value| *value != OPEN);
        Slot(last.map_or(0, |at| at as u64 + 1))
    }

    pub fn declared(&self) -> usize {
        self.declared.iter().filter(|value| **value != OPEN).count()
    }

    pub fn leaders(&self, lab: &Lab) -> usize {
        self.places(lab).filter(|at| lab.view(self.nodes[*at]).leading.is_some()).count()
    }

    pub fn leased(&self, lab: &Lab) -> usize {
        self.places(lab).filter(|at| lab.view(self.nodes[*at]).leased.is_some()).count()
    }

    /// What can be seen from outside, so that two searches can be compared state by state.
    pub fn seen_from_outside(&self, lab: &Lab) -> u128 {
        let nodes = self.places(lab).map(|at| lab.view(self.nodes[at]));
        let nodes: Vec<_> = nodes
            .map(|v| (v.promised, v.preparing, v.leading, v.leased, v.first_unchosen))
            .collect();
        let declared = self.declared.iter().filter(|value| **value != OPEN);
        let declared: Vec<&Value> = declared.map(|value| lab.value(*value)).collect();
        let counted = (self.ballots, self.releases);
        Print::of(&(nodes, declared, counted))
    }

    fn places(&self, lab: &Lab) -> std::ops::Range<usize> {
        0..lab.bounds.nodes() as usize
    }

    pub fn actions(&self, lab: &Lab, actions: &mut Vec<Action>) {
        let bounds = &lab.bounds;
        actions.clear();
        actions.extend(self.sent.iter().map(|number| Action::Deliver(*number)));
        for at in self.places(lab) {
            let view = lab.view(self.nodes[at]);
            let place = at as u8;
            let slot = view.first_unchosen.0;
            if bounds.learning && self.declared[slot as usize - 1] != OPEN {
                actions.push(Action::Learn(place, slot as u8));
            }
            let proposes = match bounds.order.get(usize::from(self.ballots)) {
                Some(next) => *next == at as u32 + 1,
                None => bounds.order.is_empty() && bounds.proposers.contains(&(at as u32 + 1)),
            };
            if self.ballots < bounds.ballots && view.is_voter && proposes {
                actions.push(Action::TakeOver(place));
            }
            if self.crashes < bounds.crashes && self.hung == IDLE {
                actions.push(Action::Hang(place));
            }
            if self.hung == place {
                actions.extend((0..=view.unsynced).map(|kept| Action::Crash(place, kept)));
            }
            if view.leading.is_none() {
                continue;
            }
            if self.batches < bounds.batches && view.last_slot.0 < bounds.last_slot {
                actions.push(Action::Propose(place));
            }
            if usize::from(self.changes) < bounds.changes.len() {
                actions.push(Action::Change(place));
            }
            if self.reads < bounds.reads {
                actions.push(Action::Read(place));
            }
            let Some(leases) = &bounds.leases else { continue };
            if !view.beaten && (leases.beats == ENDLESS || self.beats < leases.beats) {
                actions.push(Action::Beat(place));
            }
            if self.releases < leases.releases {
                let others = self.places(lab).filter(|to| *to != at);
                actions.extend(others.map(|to| Action::HandOver(place, to as u8)));
            }
            let misses = view.reads_under.is_some() && view.first_unchosen <= self.last_declared();
            if leases.torn_reads && self.peeked.is_none() && misses {
                actions.push(Action::Peek(place));
            }
        }
        let passes = bounds.leases.as_ref().map_or(0, |leases| leases.passes);
        if passes == ENDLESS || self.passes < passes {
            actions.push(Action::Pass);
        }
    }

    /// Takes one action. `None` when it is not possible here, or beyond the bounds.
    pub fn step(&self, action: Action, lab: &mut Lab) -> Option<Result<World, String>> {
        let mut world = self.clone();
        let outcome = match action {
            Action::Deliver(number) => {
                let at = lab.network.get(number).to.0 as usize - 1;
                world.call(at, Call::Deliver(number), lab)
            }
            Action::Learn(at, slot) => {
                let value = self.declared[usize::from(slot) - 1];
                world.call(usize::from(at), Call::Learn(u64::from(slot), value), lab)
            }
            Action::TakeOver(at) => world.call(usize::from(at), Call::TakeOver, lab),
            Action::Propose(at) => {
                world.batches += 1;
                world.call(usize::from(at), Call::Propose(self.batches), lab)
            }
            Action::Change(at) => {
                world.changes += 1;
                world.call(usize::from(at), Call::Change(self.changes), lab)
            }
            Action::Read(at) => {
                world.reads += 1;
                world.floors[usize::from(self.reads)] = self.last_declared().0 as u8;
                world.call(usize::from(at), Call::Read(self.reads), lab)
            }
            Action::Hang(at) => {
                world.hung = at;
                let hangs = world.call(usize::from(at), Call::Hang, lab);
                // The disks of the others decide nothing any more once the last power failure is
                // certain to be this one's.
                if self.crashes + 1 == lab.bounds.crashes {
                    world.forget_disks(Some(usize::from(at)), lab)?;
                }
                hangs
            }
            Action::Crash(at, kept) => {
                world.crashes += 1;
                world.hung = IDLE;
                let crashed = world.call(usize::from(at), Call::Crash(kept), lab);
                if world.crashes == lab.bounds.crashes {
                    world.forget_disks(None, lab)?;
                }
                crashed
            }
            Action::Beat(at) => {
                let is_counted = lab.bounds.leases.as_ref().is_some_and(|l| l.beats != ENDLESS);
                world.beats += u8::from(is_counted);
                world.call(usize::from(at), Call::Beat, lab)
            }
            Action::Pass => {
                let is_counted = lab.bounds.leases.as_ref().is_some_and(|l| l.passes != ENDLESS);
                world.passes += u8::from(is_counted);
                world.pass(lab)
            }
            Action::HandOver(at, to) => {
                world.releases += 1;
                world.call(usize::from(at), Call::HandOver(u32::from(to) + 1), lab)
            }
            Action::Peek(at) => {
                let ballot = lab.view(self.nodes[usize::from(at)]).reads_under?;
                world.peeked = Some((at, ballot));
                Some(Ok(()))
            }
        };
        if let Err(violation) = outcome? {
            return Some(Err(violation));
        }
        if world.ballots > lab.bounds.ballots {
            return None;
        }
        // Where the configuration changes, leaders go on in ballots that are not counted.
        let is_last = world.ballots == lab.bounds.ballots && self.ballots < world.ballots;
        if is_last && lab.bounds.changes.is_empty() && lab.bounds.reduced {
            world.close(lab)?;
        }
        if let Err(violation) = world.check_leases(lab) {
            return Some(Err(violation));
        }
        if lab.bounds.reduced {
            world.forget_dead(lab);
        }
        Some(Ok(world))
    }

    fn pass(&mut self, lab: &mut Lab) -> Option<Result<(), String>> {
        let before = self.nodes;
        for at in self.places(lab) {
            if let Err(violation) = self.call(at, Call::Pass, lab)? {
                return Some(Err(violation));
            }
        }
        (self.nodes != before).then_some(Ok(()))
    }

    /// The last ballot has begun: how high the others are decides nothing any more.
    fn close(&mut self, lab: &mut Lab) -> Option<()> {
        let promised = self.places(lab).map(|at| lab.view(self.nodes[at]).promised);
        let last = promised.max()?;
        for at in self.places(lab) {
            self.call(at, Call::Last(last), lab)?.ok()?;
        }
        Some(())
    }

    fn forget_disks(&mut self, but: Option<usize>, lab: &mut Lab) -> Option<()> {
        if !lab.bounds.reduced {
            return Some(());
        }
        for at in self.places(lab).filter(|at| Some(*at) != but) {
            self.call(at, Call::ForgetDisk, lab)?.ok()?;
        }
        Some(())
    }

    fn call(&mut self, at: usize, call: Call, lab: &mut Lab) -> Option<Result<(), String>> {
        let step = match lab.call(self.nodes[at], call)? {
            Ok(step) => step,
            Err(violation) => return Some(Err(format!("n{}: {violation}", at + 1))),
        };
        let Step { node, sent, declared, served, tallied, begun, beats } = step;
        let (node, begun, beats) = (*node, *begun, *beats);
        let (sent, declared, tallied) = (sent.clone(), declared.clone(), tallied.clone());
        for (read, slot) in served {
            let floor = std::mem::replace(&mut self.floors[usize::from(*read)], IDLE);
            if floor != IDLE && slot.0 < u64::from(floor) {
                return Some(Err(format!("a read is served at slot {slot}, it misses {floor}")));
            }
        }
        self.nodes[at] = node;
        self.ballots += begun;
        for (slot, value) in declared {
            let held = &mut self.declared[slot.0 as usize - 1];
            if *held != OPEN && *held != value {
                let (held, value) = (lab.value(*held), lab.value(value));
                return Some(Err(format!("slot {slot}: {held:?} and then {value:?} declared")));
            }
            *held = value;
        }
        for (slot, configuration) in tallied {
            let ruling = self.ruling(slot, lab);
            if configuration != ruling {
                return Some(Err(format!(
                    "a ballot of configuration {configuration} counts in {slot}, which {ruling} rules"
                )));
            }
        }
        if beats {
            self.age(at, lab);
        }
        self.send(&sent, lab)
    }

    /// The configuration that rules this slot.
    fn ruling(&self, slot: Slot, lab: &Lab) -> u32 {
        let below = self.declared.iter().take(slot.0 as usize - 1).filter(|value| **value != OPEN);
        let is_stop = |value: &&u16| matches!(lab.value(**value), Value::Configuration { .. });
        below.filter(is_stop).count() as u32
    }

    /// A leader has sent another heartbeat: those before it, and their grants, are older now.
    fn age(&mut self, at: usize, lab: &mut Lab) {
        let (own, oldest) = (NodeId(at as u32 + 1), lab.oldest());
        let mut sent = Vec::with_capacity(self.sent.len());
        for number in &self.sent {
            let Envelope { from, to, message } = lab.network.get(*number);
            let is_own = match message {
                Message::Heartbeat(_) => *from == own,
                Message::Grant { .. } => *to == own,
                _ => false,
            };
            sent.extend(if is_own { lab.network.aged(*number, oldest) } else { Some(*number) });
        }
        sent.sort_unstable();
        self.sent = sent;
    }

    fn send(&mut self, sent: &[u16], lab: &mut Lab) -> Option<Result<(), String>> {
        let at_once = lab.bounds.leases.as_ref().is_some_and(|leases| !leases.late_grants);
        for &number in sent {
            let Envelope { to, message, .. } = lab.network.get(number);
            let (to, is_grant) = (to.0 as usize - 1, matches!(message, Message::Grant { .. }));
            if is_grant && at_once {
                if let Some(Err(violation)) = self.call(to, Call::Deliver(number), lab) {
                    return Some(Err(violation));
                }
                continue;
            }
            let Err(place) = self.sent.binary_search(&number) else { continue };
            if let Err(violation) = self.check_accept(number, lab) {
                return Some(Err(violation));
            }
            self.sent.insert(place, number);
        }
        Some(Ok(()))
    }

    /// One slot carries one value under one ballot. A new configuration is proposed above nothing
    /// that is open, and nothing above it.
    fn check_accept(&self, number: u16, lab: &Lab) -> Result<(), String> {
        let Message::Accept { ballot, slot, value, .. } = &lab.network.get(number).message else {
            return Ok(());
        };
        let stops = |value: &Value| match value {
            Value::Configuration { configuration, .. } => {
                configuration.number > ballot.configuration
            }
            Value::Noop | Value::Batch { .. } => false,
        };
        let below = self.declared.iter().take(slot.0 as usize - 1);
        if stops(value) && below.into_iter().any(|value| *value == OPEN) {
            return Err(format!("{ballot} proposes a configuration in {slot}, above an open slot"));
        }
        for other in &self.sent {
            let Message::Accept { ballot: under, slot: held, value: other, .. } =
                &lab.network.get(*other).message
            else {
                continue;
            };
            if under != ballot {
                continue;
            }
            if held == slot && other != value {
                return Err(format!("slot {slot}, {ballot}: {other:?} and {value:?} sent"));
            }
            if held < slot && stops(other) {
                return Err(format!(
                    "{ballot} proposes in {slot}, its new configuration is in {held}"
                ));
            }
        }
        Ok(())
    }

    /// Whoever has a lease has applied all that anybody has acknowledged, and is the only one. (It
    /// covers reads that wait behind a pause: a lease only shrinks meanwhile.)
    fn check_leases(&self, lab: &Lab) -> Result<(), String> {
        if lab.bounds.leases.is_none() {
            return Ok(());
        }
        let last = self.last_declared();
        let mut holder = None;
        for at in self.places(lab) {
            let view = lab.view(self.nodes[at]);
            let Some(ballot) = view.leased else { continue };
            if view.first_unchosen <= last {
                let id = at + 1;
                return Err(format!("n{id} holds a lease of {ballot} and lacks slot {last}"));
            }
            if let Some(other) = holder.replace(ballot) {
                return Err(format!("leases of {other} and {ballot} at once"));
            }
            if let Some((place, under)) = self.peeked
                && usize::from(place) == at
                && under == ballot
            {
                return Err(format!("n{} serves what it read under {under} before", at + 1));
            }
        }
        Ok(())
    }

    /// Removes messages that can do nothing any more wherever and whenever they arrive, so that
    /// states that differ in them only are one.
    fn forget_dead(&mut self, lab: &mut Lab) {
        let mut sent = std::mem::take(&mut self.sent);
        let held = sent.clone();
        sent.retain(|number| !self.is_dead(*number, &held, lab));
        self.sent = sent;
    }

    fn is_dead(&self, number: u16, sent: &[u16], lab: &mut Lab) -> bool {
        let Envelope { from, to, message } = lab.network.get(number);
        let (from, to) = (from.0 as usize - 1, to.0 as usize - 1);
        let receiver = lab.view(self.nodes[to]);
        let sender = lab.view(self.nodes[from]);
        match message {
            // Refused, now and for ever; and an answer to one that asks no more is not counted.
            // Even a refused one does away with a grant to a ballot that was let go of.
            Message::Prepare { ballot, release, .. } => {
                let (promised, hung) = (receiver.promised, receiver.hung);
                let is_over = sender.preparing != Some(*ballot);
                let has_released = release.is_some();
                (promised > *ballot || promised == *ballot && is_over)
                    && (!has_released || !hung && self.does_nothing(number, sent, lab))
            }
            Message::Promise { ballot, .. } => {
                receiver.preparing != Some(*ballot) || self.does_nothing(number, sent, lab)
            }
            // What is held under the ballot stays as it is, unless power fails before it is synced.
            Message::Accept { ballot, .. } => {
                let (promised, hung) = (receiver.promised, receiver.hung);
                promised > *ballot
                    || promised == *ballot && !hung && self.does_nothing(number, sent, lab)
            }
            Message::Accepted { ballot, .. } | Message::Confirmed { ballot, .. } => {
                receiver.leading != Some(*ballot) || self.does_nothing(number, sent, lab)
            }
            Message::Confirm { ballot, .. } => {
                receiver.promised > *ballot || sender.leading != Some(*ballot)
            }
            // Nothing more can come to be held under a ballot below the promise, nor be chosen that
            // is known chosen. A heartbeat that asks for a grant does so again as time passes.
            Message::Heartbeat(heartbeat) => {
                let ballot = heartbeat.leading.unwrap_or_default();
                let (promised, hung) = (receiver.promised, receiver.hung);
                let known = !heartbeat.asks_grant && receiver.first_unchosen >= heartbeat.hint;
                known
                    || promised > ballot
                        && !hung
                        && (heartbeat.asks_grant || self.does_nothing(number, sent, lab))
            }
            Message::Grant { ballot, .. } => {
                receiver.leading != Some(*ballot) || self.does_nothing(number, sent, lab)
            }
            Message::Release { ballot, .. } => receiver.promised > *ballot,
            _ => false,
        }
    }

    /// It would change nothing where it goes, and have nothing said that is not said already.
    fn does_nothing(&self, number: u16, sent: &[u16], lab: &mut Lab) -> bool {
        let to = lab.network.get(number).to.0 as usize - 1;
        match lab.call(self.nodes[to], Call::Deliver(number)) {
            None => false,
            Some(Err(_)) => false,
            Some(Ok(step)) => {
                step.node == self.nodes[to]
                    && step.declared.is_empty()
                    && step.sent.iter().all(|answer| sent.binary_search(answer).is_ok())
            }
        }
    }
}

pub fn describe(action: Action, lab: &Lab) -> String {
    let name = |at: u8| format!("n{}", at + 1);
    match action {
        Action::Deliver(number) => {
            let Envelope { from, to, message } = lab.network.get(number);
            format!("{from} -> {to} {message:?}")
        }
        Action::Learn(at, slot) => format!("{} is told what is chosen in slot {slot}", name(at)),
        Action::TakeOver(at) => format!("{} begins a ballot", name(at)),
        Action::Propose(at) => format!("{} proposes a batch", name(at)),
        Action::Change(at) => format!("{} is to change the configuration", name(at)),
        Action::Read(at) => format!("a quorum read begins at {}", name(at)),
        Action::Hang(at) => format!("{} syncs nothing any more", name(at)),
        Action::Crash(at, kept) => {
            format!("{} restarts with {kept} of its unsynced records", name(at))
        }
        Action::Beat(at) => format!("{} sends heartbeats", name(at)),
        Action::Pass => "a step of time passes".to_owned(),
        Action::HandOver(at, to) => format!("{} is to hand over to {}", name(at), name(to)),
        Action::Peek(at) => format!("{} reads its store", name(at)),
    }
}
