//! What goes wrong: crashes, cut links, pauses, full disks.

use std::collections::BTreeSet;

use paxos::NodeId;

use super::plan::Fault;
use super::{Event, MS, SECOND, Simulation};
use crate::harness::coverage::Rare;
use crate::harness::seeds::Strike;

impl Simulation {
    pub(super) fn fault(&mut self) {
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
        self.faults_drawn += 1;
        let (number, kind) = (self.faults_drawn, format!("{fault:?}"));
        if !self.less.lets_strike(number, &kind) {
            return;
        }
        self.cluster.trace.line(|| format!("---- {kind}"));
        self.strikes.push(Strike { number, at_us: self.cluster.time_us, kind });
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
            // A machine is suspended: what is sent to it meanwhile is lost, and it wakes in the
            // belief that it leads (SCHEDULES W).
            Fault::SuspendLeader => {
                self.pause(leader);
                self.suspended.insert(leader);
            }
            Fault::Grey => {
                self.cluster.set_can_accept(victim, false);
                let delay_us = self.chance.below(2 * SECOND);
                self.after(delay_us, Event::CanAcceptAgain(victim));
            }
            Fault::Transfer => {
                let to = self.chance.one_in(2).then_some(victim);
                if !self.paused_until.contains_key(&leader) {
                    self.cluster.hand_over(leader, to);
                }
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

    pub(super) fn heal_links(&mut self) {
        let cut = std::mem::take(&mut self.cut);
        for (node, peer) in cut {
            if self.plan.hints && node != peer {
                let delay_us = self.chance.below(20 * MS);
                self.after(delay_us, Event::Connected { node, peer });
            }
        }
    }

    pub(super) fn pause(&mut self, node: NodeId) {
        if self.paused_until.contains_key(&node) {
            return;
        }
        let until_us = self.cluster.time_us + self.chance.between(MS, 1_200 * MS);
        self.cluster.coverage.count(Rare::Paused);
        self.paused_until.insert(node, until_us);
        self.cluster.trace.line(|| format!("{node} is paused until {until_us} µs"));
    }

    pub(super) fn wake(&mut self, node: NodeId) {
        self.paused_until.remove(&node);
        self.suspended.remove(&node);
    }

    pub(super) fn crash(&mut self, node: NodeId) {
        if !self.cluster.is_up(node) {
            return;
        }
        let unsynced = self.cluster.nodes[&node].disk.unsynced_count() as u64;
        let survivors = self.chance.below(unsynced + 1) as usize;
        self.cluster.crash(node, survivors);
        self.syncing_since_us.remove(&node);
        self.wake(node);
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
}
