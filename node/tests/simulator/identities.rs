//! Disks that are not the node's own any more: lost, another node's, formatted again, or an older copy
//! put back. Such a node does not start, or its peers do not let it in; it never votes.

use std::path::Path;

use config::PeerSecurity;
use journal::FaultyDisk;
use node::identity::{self, ClusterUuid, Process};
use node::peers;
use paxos::NodeId;

use super::broken::Broken;
use super::coverage::Rare;
use super::machine::Machine;
use super::simulation::Simulation;

pub const CLUSTER: ClusterUuid = ClusterUuid([7; 16]);

/// What `format` writes on a disk.
#[derive(Clone, Copy, Debug)]
pub struct Formatted {
    pub id: NodeId,
    pub incarnation: u64,
}

/// A copy of all that a machine had, as of some moment.
#[derive(Clone)]
pub struct Backup {
    journal: FaultyDisk,
    snapshots: FaultyDisk,
    started: Process,
}

pub fn incarnation(id: NodeId) -> u64 {
    u64::from(id.0) << 32 | 1
}

impl Simulation {
    /// As the product does before it reads anything else. Answers what keeps the node from starting.
    pub(super) fn check_identity(&self, node: NodeId) -> Result<(), String> {
        let Some(Formatted { id, incarnation }) = self.machines[&node].identity else {
            return Err("its directory was never formatted, or its disk was lost".to_owned());
        };
        if id != node && self.broken == Some(Broken::ForeignDiskStarts) {
            return Ok(());
        }
        identity::check_place(Path::new("identity"), (CLUSTER, id), (CLUSTER, node))
            .map_err(|error| error.to_string())?;
        let (listed, security) = (&self.configuration, PeerSecurity::Plain);
        peers::check_own(node, incarnation, [0; 32], listed, security)
            .map_err(|error| error.to_string())
    }

    pub(super) fn refused_identity(&mut self, node: NodeId, text: String) {
        self.trace(|| format!("{node} does not start: {text}"));
        if !self.spoiled.contains(&node) {
            return self.checker.fail(format!("{node} does not start: {text}"));
        }
        self.coverage.count(Rare::IdentityRefused);
        self.machines.get_mut(&node).expect("a node").refused = Some(text);
    }

    // ---- what befalls a disk ------------------------------------------------------------------

    /// All that was on its disks is gone.
    pub(super) fn lose_disk(&mut self, node: NodeId) {
        if self.spoil(node) {
            self.coverage.count(Rare::DiskLost);
            let keeps_name = self.broken == Some(Broken::LostDiskStarts);
            let machine = self.machines.get_mut(&node).expect("a node");
            machine.wipe(machine.identity.filter(|_| keeps_name));
        }
    }

    /// The same, and somebody formats it again.
    pub(super) fn format_again(&mut self, node: NodeId) {
        if self.spoil(node) {
            self.coverage.count(Rare::FormattedAgain);
            let incarnation = self.chance.next() | 1;
            let machine = self.machines.get_mut(&node).expect("a node");
            machine.wipe(Some(Formatted { id: node, incarnation }));
        }
    }

    /// Another node's directory is copied over its own.
    pub(super) fn put_foreign_disk(&mut self, node: NodeId, other: NodeId) {
        if other != node && self.spoil(node) {
            self.coverage.count(Rare::ForeignDisk);
            let foreign = self.machines[&other].backup();
            let identity = self.machines[&other].identity;
            let machine = self.machines.get_mut(&node).expect("a node");
            machine.restore(foreign);
            machine.identity = identity;
        }
    }

    fn spoil(&mut self, node: NodeId) -> bool {
        let can = self.can_be_spoiled(node) && self.process(node).is_some();
        if can {
            self.power_cut(node);
            self.spoiled.insert(node);
        }
        can
    }

    pub(super) fn back_up(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).expect("a node");
        if machine.process.is_some() {
            machine.kept = Some(machine.backup());
        }
    }

    /// Puts an older copy back, where something is missing from it. What the node has said since lives
    /// in the memory of its peers' processes, and nowhere else: it is done only while they all run and
    /// have heard enough, and the copy is taken away before any of them starts again.
    pub(super) fn put_back(&mut self, node: NodeId) {
        let Some(backup) = self.machines[&node].kept.clone() else { return };
        if !self.can_be_spoiled(node) || !self.copies.is_empty() || self.process(node).is_none() {
            return;
        }
        let mut copy = self.machines[&node].copied(backup.clone());
        if self.checker.holds_all(node, &copy.journal) {
            return;
        }
        let nonce = self.chance.next() | 1;
        if copy.start(self.time_us, nonce, self.configuration.clone(), None).is_err() {
            return;
        }
        let copy = copy.process.expect("it was just started");
        let knows_better = |(id, machine): (&NodeId, &mut Machine)| {
            let hello = copy.links.hello(*id);
            machine.process.as_mut().is_some_and(|up| up.links.remembers_more(&hello))
        };
        let mut peers = self.machines.iter_mut().filter(|(id, _)| **id != node);
        if !peers.all(knows_better) {
            return;
        }
        self.power_cut(node);
        self.spoiled.insert(node);
        self.copies.insert(node);
        self.coverage.count(Rare::OlderCopy);
        self.machines.get_mut(&node).expect("a node").restore(backup);
        self.start(node);
    }

    /// Whoever put an older copy back sees that nobody lets it in.
    pub(super) fn take_copies_away(&mut self) {
        for node in self.copies.clone() {
            let machine = self.machines.get_mut(&node).expect("a node");
            machine.refused = Some("its peers know better".to_owned());
            let connections = machine.kill();
            self.ended(node, connections, 0);
        }
        self.copies.clear();
    }
}

impl Machine {
    fn wipe(&mut self, identity: Option<Formatted>) {
        let fresh = Machine::formatted(
            self.id,
            self.behaviour.clone(),
            self.options,
            self.block_bytes,
            u64::from(self.id.0),
        );
        self.journal = fresh.journal;
        self.snapshots = fresh.snapshots;
        self.started = fresh.started;
        self.identity = identity;
    }

    fn backup(&self) -> Backup {
        let (journal, snapshots) = (self.journal.fork(), self.snapshots.fork());
        journal.kill();
        snapshots.kill();
        Backup { journal, snapshots, started: self.started }
    }

    fn restore(&mut self, backup: Backup) {
        self.journal = backup.journal.fork();
        self.snapshots = backup.snapshots.fork();
        self.started = backup.started;
    }

    /// A machine like this one, with that on its disks.
    fn copied(&self, backup: Backup) -> Machine {
        let mut copy = Machine::formatted(
            self.id,
            self.behaviour.clone(),
            self.options,
            self.block_bytes,
            u64::from(self.id.0),
        );
        copy.clock = self.clock;
        copy.restore(backup);
        copy
    }
}
