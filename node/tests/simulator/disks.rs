//! The disks' time: what a thread of the product does while the node goes on, happens here at
//! moments of its own, with the same calls in the same order.

use node::snapshot::Done;
use paxos::NodeId;

use super::broken::Broken;
use super::coverage::Rare;
use super::simulation::{Event, FULL_PAUSE_US, IDLE_US, Simulation};
use super::{MS, SECOND};

impl Simulation {
    pub(super) fn tick(&mut self, node: NodeId) {
        self.at(node, |process, now| process.tick(now));
        let (now, time_us) = (self.now(node), self.time_us);
        let machine = self.machines.get_mut(&node).expect("a member");
        let Some(process) = &mut machine.process else { return };
        if process.state.is_full() {
            self.coverage.count(Rare::DiskFull);
        } else if !process.state.can_accept(now.mono_us) {
            self.coverage.count(Rare::GreyNode);
        }
        if process.writing || time_us < process.last_write_us + IDLE_US {
            return;
        }
        process.last_write_us = time_us;
        match process.appender.idle() {
            Ok(full) => {
                process.state.set_full(full);
                process.state.publish(&process.appender);
            }
            Err(error) => self.disk_failed(node, &error),
        }
    }

    pub(super) fn append(&mut self, node: NodeId, nonce: u64) {
        let now = self.now(node);
        let machine = self.machines.get_mut(&node).expect("a member");
        let Some(process) = &mut machine.process else { return };
        process.state.begin(now.mono_us);
        match process.appender.append_waiting() {
            Ok(()) if process.appender.needs_sync() => {
                let (low, high) = if self.calm { (80, 200) } else { self.plan.sync_us };
                let mut delay_us = self.chance.between(low, high);
                if !self.calm && self.chance.ppm(self.plan.stall_ppm) {
                    delay_us += self.chance.below(2 * SECOND);
                }
                delay_us += self.slowness_us(node);
                self.after(delay_us, Event::Sync { node, nonce });
            }
            Ok(()) => self.settle(node, nonce),
            Err(error) => self.disk_failed(node, &error),
        }
    }

    /// What a slow disk adds to a sync that begins now.
    fn slowness_us(&mut self, node: NodeId) -> u64 {
        let machine = self.machines.get_mut(&node).expect("a member");
        let once_us = machine.slow_sync_us.take();
        let is_slow = self.time_us < machine.slow_until_us;
        self.coverage.add(Rare::SlowSync, u64::from(once_us.is_some()));
        self.coverage.add(Rare::SlowDisk, u64::from(is_slow));
        let slow_us = if is_slow { self.chance.between(50 * MS, 2 * SECOND) } else { 0 };
        once_us.unwrap_or(0) + slow_us
    }

    pub(super) fn sync(&mut self, node: NodeId, nonce: u64) {
        let machine = self.machines.get_mut(&node).expect("a member");
        let Some(process) = &mut machine.process else { return };
        if self.broken == Some(Broken::ForgetsLastSync) {
            machine.before_sync = Some(machine.journal.fork());
        }
        match process.appender.sync() {
            Ok(true) => self.settle(node, nonce),
            Ok(false) => {
                process.state.sync_found_no_space();
                self.after(FULL_PAUSE_US, Event::Sync { node, nonce });
                self.at(node, |_, _| {});
            }
            Err(error) => self.disk_failed(node, &error),
        }
    }

    fn settle(&mut self, node: NodeId, nonce: u64) {
        let (now, time_us) = (self.now(node), self.time_us);
        let machine = self.machines.get_mut(&node).expect("a member");
        let Some(process) = &mut machine.process else { return };
        let segments = process.appender.stats().segments;
        let settled = match process.appender.settle() {
            Ok(settled) => settled,
            Err(error) => return self.disk_failed(node, &error),
        };
        let let_go = segments.saturating_sub(process.appender.stats().segments);
        self.coverage.add(Rare::JournalTrimmed, let_go);
        let waiting = process.appender.waiting_count() > 0;
        process.state.settle(&settled, waiting, now.mono_us);
        process.state.publish(&process.appender);
        process.last_write_us = time_us;
        process.writing = settled.waits_for_space;
        if settled.waits_for_space {
            self.after(FULL_PAUSE_US, Event::Append { node, nonce });
        }
        self.at(node, |_, _| {});
    }

    /// A failed sync ends the node: nobody knows what its disk holds.
    pub(super) fn disk_failed(&mut self, node: NodeId, error: &journal::Error) {
        let machine = self.machines.get_mut(&node).expect("a member");
        if machine.doomed {
            self.coverage.count(Rare::CutInWrite);
            return self.power_cut(node);
        }
        if !machine.sync_fails {
            return self.checker.fail(format!("the journal of {node} failed by itself: {error}"));
        }
        machine.sync_fails = false;
        self.coverage.count(Rare::SyncFailed);
        self.trace(|| format!("{node} stops: {error}"));
        if self.chance.one_in(2) {
            self.power_cut(node);
        } else {
            self.kill(node);
        }
    }

    pub(super) fn file(&mut self, node: NodeId, nonce: u64) {
        let machine = self.machines.get_mut(&node).expect("a member");
        let Some(process) = &mut machine.process else { return };
        process.filing = false;
        if process.is_checking() && self.rot_next_checked && !self.calm {
            self.rot_in_check(node);
        }
        let machine = self.machines.get_mut(&node).expect("a member");
        let Some(process) = &mut machine.process else { return };
        if let Some(done) = process.file_work() {
            let delay_us = self.chance.between(50, 2 * MS);
            self.after(delay_us, Event::Filed { node, nonce, done });
        }
        self.at(node, |_, _| {});
    }

    pub(super) fn count_done(&mut self, node: NodeId, done: &Done) {
        let (rare, text) = match done {
            Done::Written { below, .. } => (Rare::SnapshotWritten, format!("written {below}")),
            Done::Installed { file, from, .. } => {
                (Rare::SnapshotInstalled, format!("installed {} of {from}", file.below))
            }
            Done::WriteFailed { error, .. } | Done::ReceiveFailed { error, .. } => {
                (Rare::SnapshotFailed, format!("failed: {error}"))
            }
            Done::Checked { result: Ok(_), .. } | Done::Received { .. } => return,
            Done::Checked { below, result: Err(error) } => {
                (Rare::SnapshotFailed, format!("{below} is bad: {error}"))
            }
        };
        self.coverage.count(rare);
        self.trace(|| format!("{node} snapshot {text}"));
    }

    pub(super) fn space_again(&mut self, node: NodeId) {
        let machine = &self.machines[&node];
        machine.journal.set_capacity(None);
        machine.snapshots.set_capacity(None);
        self.trace(|| format!("{node} has space again"));
    }
    pub(super) fn fast_again(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).expect("a member");
        (machine.slow_until_us, machine.slow_sync_us) = (0, None);
    }
}
