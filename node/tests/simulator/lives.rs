//! A machine's lives: starts, refusals, ends.

use node::peers::Remembered;
use paxos::NodeId;

use super::MS;
use super::coverage::Rare;
use super::machine::Connection;
use super::simulation::{Event, Simulation, TICK_US};

impl Simulation {
    pub(super) fn start(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).expect("a member");
        if machine.process.is_some() || machine.refused.is_some() || machine.has_tombstone {
            return;
        }
        if let Err(text) = self.check_identity(node) {
            return self.refused_identity(node, text);
        }
        if !self.copies.contains(&node) {
            self.take_copies_away();
        }
        let nonce = self.chance.next() | 1;
        let is_copy = self.copies.contains(&node);
        let machine = self.machines.get_mut(&node).expect("a member");
        let replayed = match is_copy {
            true => Vec::new(),
            false => self.checker.check_journal(node, &machine.journal),
        };
        let initial = self.configuration.clone();
        let was_there = machine.newest_snapshot_file();
        match machine.start(self.time_us, nonce, initial, self.broken) {
            Ok((found, snapshot_below)) => {
                self.checker.replayed(node, replayed);
                if found.cut.is_some() {
                    self.coverage.count(Rare::TailCut);
                }
                if snapshot_below > paxos::Slot::FIRST {
                    self.coverage.count(Rare::StartedFromSnapshot);
                }
                if was_there.is_some_and(|slot| slot > snapshot_below) {
                    self.coverage.count(Rare::OlderSnapshotUsed);
                }
                if self.spoiled.contains(&node) && !is_copy {
                    self.coverage.count(Rare::RotHarmless);
                }
                self.trace(|| format!("{node} starts from {snapshot_below}, {found:?}"));
                let machine = &self.machines[&node];
                let process = machine.process.as_ref().expect("just started");
                let remembered = Remembered::of(&process.node.replica);
                if !is_copy {
                    self.checker.introduced(node, machine.started, remembered);
                }
                self.after_start(node, nonce);
            }
            Err(error) => self.refused(node, &error),
        }
    }

    fn after_start(&mut self, node: NodeId, nonce: u64) {
        let phase_us = self.chance.below(TICK_US);
        self.after(phase_us, Event::Tick { node, nonce });
        self.at(node, |_, _| {});
        if self.plan.hints {
            for peer in self.ids().into_iter().filter(|peer| *peer != node) {
                let delay_us = self.chance.below(3 * MS);
                self.after(delay_us, Event::Connected { node: peer, peer: node });
                self.after(delay_us, Event::Connected { node, peer });
            }
        }
    }

    /// Only a disk that has lost what was synced may keep a node from starting, and it must say
    /// which file is wrong, and where.
    fn refused(&mut self, node: NodeId, error: &anyhow::Error) {
        let text = format!("{error:#}");
        self.trace(|| format!("{node} refuses to start: {text}"));
        let corrupt =
            matches!(error.downcast_ref::<journal::Error>(), Some(journal::Error::Corrupt { .. }));
        if !corrupt || !self.spoiled.contains(&node) || !text.contains("at byte") {
            return self.checker.fail(format!("{node} does not start: {text}"));
        }
        self.coverage.count(Rare::RotRefused);
        self.machines.get_mut(&node).expect("a member").refused = Some(text);
    }

    /// A process that was told to stop does so, and in half of the cases its machine loses its power
    /// a moment later: nothing that was handed to the disk is lost.
    pub(super) fn finish(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).expect("a member");
        let Some(process) = &mut machine.process else { return };
        let finished = process.finish();
        let synced = process.synced();
        if !self.copies.contains(&node) {
            self.checker.synced(node, synced);
        }
        if let Err(error) = finished {
            return self.disk_failed(node, &error);
        }
        self.coverage.count(Rare::Stopped);
        self.trace(|| format!("{node} stops"));
        match self.chance.one_in(2) {
            true => self.power_cut(node),
            false => self.kill(node),
        }
    }

    /// A process has ended: its clients see their connections close, its peers notice or not.
    pub(super) fn ended(&mut self, node: NodeId, connections: Vec<Connection>, back_in_us: u64) {
        self.checker.ended(node);
        self.wake(node);
        for connection in connections {
            self.reach_client(connection, Event::Closed { connection });
        }
        self.after(back_in_us, Event::Start { node });
        if self.plan.hints {
            for peer in self.ids().into_iter().filter(|peer| *peer != node) {
                let delay_us = self.chance.below(3 * MS);
                self.after(delay_us, Event::Disconnected { node: peer, peer: node });
            }
        }
    }
}
