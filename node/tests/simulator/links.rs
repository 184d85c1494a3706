//! A process's side of its links, without sockets: whom they may lead to, by the configuration that it
//! knows, and whom it lets in, by the product's own rules.

use std::collections::BTreeMap;

use node::membership::Membership;
use node::peers::{DiskMemory, Known, Own, Remembered, admit};
use node::wire::{Hello, Lane, Refusal};
use paxos::{Configuration, Member, Message, NodeId, Now, Slot};

use super::coverage::Rare;
use super::simulation::Simulation;
use super::{MS, broken::Broken};

/// A peer is told so often what is durable here.
const TELL_US: u64 = 500 * MS;
/// Whoever was refused tries again no sooner.
const RETRY_US: u64 = 250 * MS;

pub struct Links {
    own: Own,
    remembered: Remembered,
    membership: Membership,
    /// Whom they may lead to.
    reachable: Configuration,
    disks: BTreeMap<(NodeId, u64), DiskMemory>,
    /// The processes that it has let in, and that have let it in.
    open: BTreeMap<NodeId, u64>,
    pub durable: Remembered,
    told_us: u64,
}

impl Links {
    pub fn new(
        own: Own,
        remembered: Remembered,
        known: &Configuration,
        initial: Configuration,
    ) -> Links {
        let membership = Membership::new(known, initial);
        let reachable = membership.reachable(own.id, known);
        Links {
            own,
            remembered,
            membership,
            reachable,
            disks: BTreeMap::new(),
            open: BTreeMap::new(),
            durable: remembered,
            told_us: 0,
        }
    }

    /// After each turn.
    pub fn follow(&mut self, now: Now, known: &Configuration) {
        if self.membership.follow(now, known) {
            self.update(known);
        }
    }

    /// An administrator names somebody who may know more.
    pub fn introduce(&mut self, known: &Configuration, peer: NodeId, member: Member) {
        self.membership.introduce([(peer, member)]);
        self.update(known);
    }

    fn update(&mut self, known: &Configuration) {
        self.reachable = self.membership.reachable(self.own.id, known);
        self.open.retain(|peer, _| self.reachable.contains(*peer));
    }

    pub fn reaches(&self, peer: NodeId) -> bool {
        self.reachable.contains(peer)
    }

    pub fn hello(&self, to: NodeId) -> Hello {
        self.own.hello(to, Lane::Control, self.remembered)
    }

    fn disk(&mut self, peer: NodeId) -> Option<(u64, &DiskMemory)> {
        let incarnation = self.reachable.members.get(&peer)?.incarnation;
        Some((incarnation, self.disks.entry((peer, incarnation)).or_default()))
    }

    fn admits(&mut self, hello: &Hello) -> Result<(), Refusal> {
        let own = self.own;
        let known = self.disk(hello.id).map(|(incarnation, disk)| Known {
            incarnation,
            key: None,
            disk,
            // A machine runs one process, so another one is gone.
            other_process: None,
        });
        admit(&own, known, hello, None, "its address")
    }

    /// Would it take this process for one of an older copy of the disk?
    pub fn remembers_more(&mut self, hello: &Hello) -> bool {
        self.disk(hello.id).is_some_and(|(_, disk)| disk.check(hello, "its address").is_err())
    }

    pub fn heard(&mut self, from: NodeId, message: &Message) {
        if let Some((_, disk)) = self.disk(from) {
            disk.heard(message);
        }
    }

    pub fn stated(&mut self, from: NodeId, remembered: Remembered) {
        if let Some((_, disk)) = self.disk(from) {
            disk.stated(remembered.promised, remembered.last_slot);
        }
    }

    /// Whom to tell what is durable here, if it is time to.
    pub fn due(&mut self, now: Now) -> Vec<NodeId> {
        if now.mono_us < self.told_us + TELL_US || self.durable.last_slot == Slot::ZERO {
            return Vec::new();
        }
        self.told_us = now.mono_us;
        self.reachable.members.keys().copied().filter(|id| *id != self.own.id).collect()
    }
}

impl Simulation {
    /// Whether what the process `nonce` of `from` sends comes in at `to`. Before the first frame they
    /// introduce themselves to each other.
    pub(super) fn is_let_in(&mut self, from: NodeId, nonce: u64, to: NodeId) -> bool {
        let open = |process: &super::machine::Process| process.links.open.get(&from).copied();
        match self.process(to) {
            None => return false,
            Some(process) if open(process) == Some(nonce) => return true,
            Some(_) if self.machines[&from].nonce() != Some(nonce) => return false,
            Some(_) => {}
        }
        if self.refused_until_us.get(&(from, to)).is_some_and(|until_us| *until_us > self.time_us) {
            return false;
        }
        match self.introduce_each_other(from, to) {
            Ok(()) => true,
            Err(refusal) => {
                self.refused_until_us.insert((from, to), self.time_us + RETRY_US);
                self.coverage.refused(&refusal);
                self.trace(|| format!("{from} to {to} refused: {refusal}"));
                false
            }
        }
    }

    fn introduce_each_other(&mut self, from: NodeId, to: NodeId) -> Result<(), Refusal> {
        let mut process = |id: NodeId| {
            let machine = self.machines.get_mut(&id).expect("a node");
            machine.process.take().expect("it is up")
        };
        let (mut dialling, mut answering) = (process(from), process(to));
        let admits_all = self.broken == Some(Broken::CopiesAdmitted);
        let mut met = answering.links.admits(&dialling.links.hello(to));
        met = met.and_then(|()| dialling.links.admits(&answering.links.hello(from)));
        if met.is_ok() || admits_all {
            answering.links.open.insert(from, dialling.nonce);
            dialling.links.open.insert(to, answering.nonce);
        }
        for (id, process) in [(from, dialling), (to, answering)] {
            self.machines.get_mut(&id).expect("a node").process = Some(process);
        }
        if admits_all {
            met = Ok(());
        }
        let copy = [from, to].into_iter().find(|id| self.copies.contains(id));
        if let Some(copy) = copy.filter(|_| met.is_ok()) {
            self.checker.fail(format!("an older copy of the disk of {copy} was let in"));
        }
        if met.is_ok() {
            self.coverage.count(Rare::Introduced);
        }
        met
    }
}
