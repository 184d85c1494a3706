//! What goes wrong: processes, machines, links, disks.

use std::collections::BTreeSet;

use journal::Disk;
use journal::faulty_disk::FailedSync;
use paxos::NodeId;

use super::coverage::Rare;
use super::machine::Process;
use super::plan::Fault;
use super::seeds::Strike;
use super::setup::{WILD, draw_wild_offset_ms};
use super::simulation::{Event, Simulation};
use super::{MS, SECOND};

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
        let ids = self.ids();
        let victim = *self.chance.pick(&ids);
        let leader = self.leaders().last().map_or(victim, |(id, _)| *id);
        self.faults_drawn += 1;
        let (number, kind) = (self.faults_drawn, format!("{fault:?}"));
        if !self.less.lets_strike(number, &kind) {
            return;
        }
        self.trace(|| format!("---- {kind} {victim}, leader {leader}"));
        self.strikes.push(Strike { number, at_us: self.time_us, kind });
        match fault {
            Fault::Kill => self.kill(victim),
            Fault::PowerCut => self.power_cut(victim),
            Fault::PowerCutLeader => self.power_cut(leader),
            Fault::PowerCutAll => ids.into_iter().for_each(|id| self.power_cut(id)),
            Fault::CutInWrite => self.cut_in_write(victim),
            Fault::CutInInstall => self.cut_next_install = true,
            Fault::IsolateLeader => self.links(Fault::Isolate, leader),
            Fault::Isolate
            | Fault::OneWay
            | Fault::Split
            | Fault::RandomLinks
            | Fault::Chain
            | Fault::QuorumLoss
            | Fault::HealLinks => self.links(fault, victim),
            Fault::ConstrainedElection => self.constrain(victim, leader),
            Fault::Pause => self.pause(victim),
            Fault::PauseLeader => self.pause(leader),
            // A machine is suspended: what is sent to it meanwhile is lost, and it wakes in the
            // belief that it leads.
            Fault::SuspendLeader => {
                self.pause(leader);
                self.suspended.insert(leader);
            }
            Fault::Stop => self.stop(victim),
            Fault::StopLeader => self.stop(leader),
            Fault::WallClockJumps => self.wall_clock_jumps(),
            Fault::FullDisk => self.fill(victim),
            Fault::FullDiskLeader => self.fill(leader),
            Fault::SlowDisk => self.slow_down(victim),
            Fault::SlowDiskLeader => self.slow_down(leader),
            Fault::SlowSync => {
                let sync_us = self.chance.between(25 * MS, 5 * SECOND);
                self.machines.get_mut(&victim).expect("a member").slow_sync_us = Some(sync_us);
            }
            Fault::FailSync => self.fail_sync(victim),
            Fault::RotJournal => self.rot_journal(victim),
            Fault::RotSnapshot => self.rot_snapshot(victim),
            Fault::LoseDisk => self.lose_disk(victim),
            Fault::FormatAgain => self.format_again(victim),
            Fault::ForeignDisk => self.put_foreign_disk(victim, leader),
            Fault::OlderCopy => {
                let delay_us = self.chance.between(100 * MS, 2 * SECOND);
                self.back_up(victim);
                self.after(delay_us, Event::PutBack { node: victim });
            }
            Fault::Transfer => {
                let to = self.chance.one_in(2).then_some(victim);
                self.transfer(leader, to);
            }
        }
        // Links come back by themselves sooner or later, also in mixes without HealLinks.
        if self.chance.one_in(6) {
            self.heal_links();
        }
    }

    // ---- processes and machines ---------------------------------------------------------------

    pub(super) fn kill(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).expect("a member");
        if machine.process.is_none() {
            return;
        }
        let installing = machine.process.as_ref().is_some_and(Process::is_installing);
        self.coverage.add(Rare::InstallInterrupted, u64::from(installing));
        let connections = machine.kill();
        self.coverage.count(Rare::Killed);
        self.trace(|| format!("{node} is killed"));
        let back_in_us = self.back_in_us();
        self.ended(node, connections, back_in_us);
    }

    pub(super) fn power_cut(&mut self, node: NodeId) {
        let seed = self.chance.next();
        let machine = self.machines.get_mut(&node).expect("a member");
        if machine.process.is_none() {
            return;
        }
        let installing = machine.process.as_ref().is_some_and(Process::is_installing);
        self.coverage.add(Rare::InstallInterrupted, u64::from(installing));
        let connections = machine.crash(seed);
        self.coverage.count(Rare::PowerCut);
        self.trace(|| format!("{node} loses its power"));
        let back_in_us = self.back_in_us();
        self.ended(node, connections, back_in_us);
    }

    fn back_in_us(&mut self) -> u64 {
        let longest_us = *self.chance.pick(&[10 * MS, 100 * MS, 1_500 * MS, 4 * SECOND]);
        self.chance.between(5 * MS, longest_us)
    }

    /// One of the disks stops after a few more changes, then the power goes.
    fn cut_in_write(&mut self, node: NodeId) {
        let count = self.chance.below(8);
        let of_journal = self.chance.below(4) > 0;
        let delay_us = self.chance.between(MS, 200 * MS);
        let machine = self.machines.get_mut(&node).expect("a member");
        let Some(nonce) = machine.nonce() else { return };
        match of_journal {
            true => machine.journal.stop_after(count),
            false => machine.snapshots.stop_after(count),
        }
        machine.doomed = true;
        self.after(delay_us, Event::PowerCut { node, nonce });
    }

    /// Somebody installs a snapshot: few moments are as delicate.
    pub(super) fn cut_in_install(&mut self, node: NodeId, nonce: u64) {
        self.cut_next_install = false;
        let delay_us = self.chance.below(3 * MS);
        self.after(delay_us, Event::PowerCut { node, nonce });
    }

    fn pause(&mut self, node: NodeId) {
        let until_us = self.time_us + self.chance.between(MS, 1_200 * MS);
        if self.process(node).is_some() && !self.paused_until_us.contains_key(&node) {
            self.coverage.count(Rare::Paused);
            self.paused_until_us.insert(node, until_us);
        }
    }

    /// A signal asks it to stop; one that is paused hears of it when it goes on.
    pub(super) fn stop(&mut self, node: NodeId) {
        if let Some(nonce) = self.machines[&node].nonce() {
            self.after(0, Event::Stop { node, nonce });
        }
    }

    /// As an administrator asks for it. A paused process does not hear him.
    fn transfer(&mut self, leader: NodeId, to: Option<NodeId>) {
        if self.paused_until_us.contains_key(&leader) {
            return;
        }
        let mut refused = false;
        self.at(leader, |process, now| refused = process.node.hand_over(now, to).is_err());
        self.coverage.add(Rare::HandoverRefused, u64::from(refused));
    }

    fn wall_clock_jumps(&mut self) {
        if self.plan.wild_wall_clock {
            let wall_offset_ms = draw_wild_offset_ms(&mut self.chance, &self.plan);
            let machine = self.machines.get_mut(&WILD).expect("a member");
            machine.clock.wall_offset_ms = wall_offset_ms;
            self.coverage.count(Rare::WallClockJumped);
        }
    }

    // ---- links --------------------------------------------------------------------------------

    pub(super) fn links(&mut self, fault: Fault, victim: NodeId) {
        if fault == Fault::HealLinks {
            return self.heal_links();
        }
        let ids = self.ids();
        let side: BTreeSet<NodeId> =
            ids.iter().copied().filter(|_| self.chance.one_in(2)).collect();
        let inwards = self.chance.one_in(2);
        for a in ids.iter().copied() {
            for b in ids.iter().copied().filter(|b| *b != a) {
                let is_cut = match fault {
                    Fault::Isolate => a == victim || b == victim,
                    Fault::OneWay if inwards => b == victim,
                    Fault::OneWay => a == victim,
                    Fault::Split => side.contains(&a) != side.contains(&b),
                    Fault::Chain => a.0.abs_diff(b.0) > 1,
                    Fault::QuorumLoss => a != victim && b != victim,
                    _ => self.chance.one_in(3),
                };
                if is_cut {
                    self.cut.insert((a, b));
                }
            }
        }
        self.coverage.count(match fault {
            Fault::QuorumLoss => Rare::QuorumLoss,
            Fault::Chain => Rare::Chained,
            Fault::OneWay => Rare::OneWay,
            _ => Rare::LinksCut,
        });
    }

    /// First `hub` loses sight of the leader, and a little later everybody of everybody but `hub`.
    fn constrain(&mut self, hub: NodeId, leader: NodeId) {
        if hub != leader {
            self.cut.extend([(hub, leader), (leader, hub)]);
        }
        let delay_us = self.chance.between(20 * MS, 400 * MS);
        self.after(delay_us, Event::Constrain { hub });
    }

    pub(super) fn constrained(&mut self, hub: NodeId) {
        if !self.calm {
            self.coverage.count(Rare::ConstrainedElection);
            self.heal_links();
            self.links(Fault::QuorumLoss, hub);
        }
    }

    pub(super) fn heal_links(&mut self) {
        for (peer, node) in std::mem::take(&mut self.cut) {
            if self.plan.hints {
                let delay_us = self.chance.below(20 * MS);
                self.after(delay_us, Event::Connected { node, peer });
            }
        }
    }

    // ---- disks --------------------------------------------------------------------------------

    fn fill(&mut self, node: NodeId) {
        let left = self.chance.below(3 * self.plan.options.segment_bytes);
        let delay_us = self.chance.between(50 * MS, 3 * SECOND);
        let machine = &self.machines[&node];
        machine.journal.set_capacity(Some(machine.journal.used_bytes() + left));
        if self.chance.one_in(2) {
            machine.snapshots.set_capacity(Some(machine.snapshots.used_bytes() + left / 16));
        }
        self.after(delay_us, Event::SpaceAgain { node });
    }

    fn slow_down(&mut self, node: NodeId) {
        let until_us = self.time_us + self.chance.between(500 * MS, 4 * SECOND);
        self.machines.get_mut(&node).expect("a member").slow_until_us = until_us;
    }

    fn fail_sync(&mut self, node: NodeId) {
        let count = self.chance.below(20);
        let manner = match self.chance.one_in(2) {
            true => FailedSync::KeepsDirty,
            false => FailedSync::DropsDirty,
        };
        let machine = self.machines.get_mut(&node).expect("a member");
        if machine.process.is_some() {
            machine.journal.fail_sync_after(count, manner);
            machine.sync_fails = true;
        }
    }

    /// May this node lose something that it had synced? Only while the others can do without it.
    pub(super) fn can_be_spoiled(&self, node: NodeId) -> bool {
        let spared = self.machines.len() - (self.machines.len() / 2 + 1);
        self.spoiled.contains(&node) || self.spoiled.len() < spared
    }

    /// Flips bits in the middle of what the journal has kept for long: in a segment that is full.
    fn rot_journal(&mut self, node: NodeId) {
        if !self.can_be_spoiled(node) || self.process(node).is_none() {
            return;
        }
        self.power_cut(node);
        let disk = self.machines[&node].journal.clone();
        let names = disk.list().expect("the disk is there");
        let mut segments: Vec<String> =
            names.into_iter().filter(|name| name.starts_with("segment-")).collect();
        segments.sort_unstable();
        segments.pop();
        if segments.is_empty() {
            return;
        }
        let name = self.chance.pick(&segments).clone();
        let bytes = disk.contents(&name);
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        if used.is_empty() {
            return;
        }
        let offset = *self.chance.pick(&used);
        let mask = 1 << self.chance.below(8);
        disk.flip(&name, offset as u64, mask);
        self.spoiled.insert(node);
        self.trace(|| format!("{node} rots in {name} at {offset}"));
    }

    /// Flips bits in the newest snapshot, where the one before is good.
    fn rot_snapshot(&mut self, node: NodeId) {
        if !self.can_be_spoiled(node) || self.process(node).is_none() {
            return;
        }
        // Found at the next start, or by the next node that somebody needs a snapshot of.
        if self.chance.one_in(2) {
            self.rot_next_checked = true;
            return;
        }
        self.power_cut(node);
        self.rot_newest_snapshot(node);
    }

    /// It is about to look at a file before it sends it.
    pub(super) fn rot_in_check(&mut self, node: NodeId) {
        if self.can_be_spoiled(node) {
            self.rot_next_checked = false;
            self.rot_newest_snapshot(node);
        }
    }

    fn rot_newest_snapshot(&mut self, node: NodeId) {
        let disk = self.machines[&node].snapshots.clone();
        let names = disk.list().expect("the disk is there");
        let mut files: Vec<String> = names
            .into_iter()
            .filter(|name| name.starts_with("snapshot-") && !name.ends_with(".part"))
            .collect();
        files.sort_unstable();
        let Some([before, newest]) = files.last_chunk::<2>() else { return };
        let is_spoiled = |name: &String| self.spoiled_files.contains(&(node, name.clone()));
        if is_spoiled(before) || is_spoiled(newest) {
            return;
        }
        let offset = self.chance.below(disk.contents(newest).len() as u64);
        disk.flip(newest, offset, 1 << self.chance.below(8));
        self.spoiled.insert(node);
        self.spoiled_files.insert((node, newest.clone()));
        self.trace(|| format!("{node} rots in {newest} at {offset}"));
    }
}
