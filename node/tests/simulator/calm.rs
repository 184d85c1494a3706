//! The calm after the faults: what must be well again, and within which time.

use std::collections::BTreeSet;

use bytes::Bytes;
use paxos::NodeId;
use proof::history::Operation;

use super::SECOND;
use super::simulation::{Event, Simulation};

/// From the last fault until everything is well again.
const CALM_US_MAX: u64 = 20 * SECOND;
/// A calm cluster is watched for this long: nobody may take its leader away.
const WATCH_US: u64 = SECOND;

impl Simulation {
    pub(super) fn come_to_rest(&mut self) {
        self.calm_down();
        self.expect_progress();
        self.clients_work = false;
        self.expect("not level", |simulation| simulation.is_level());
        self.calm_us = self.time_us.saturating_sub(self.plan.faults_us);
        self.expect("not all are answered", |simulation| simulation.is_settled());
        self.stand_trial();
        self.read_everything();
        self.expect("not all keys expired", |simulation| {
            simulation.up().all(|(_, process)| process.node.store.expiring_count() == 0)
        });
        self.expect_peace();
    }

    fn calm_down(&mut self) {
        self.trace(|| "---- calm".to_owned());
        self.calm = true;
        self.cut.clear();
        // Links are made anew; what was still in the old ones is gone.
        self.queue.retain(|_, event| !matches!(event, Event::Deliver { .. }));
        self.last_arrival_us.clear();
        self.bulk_free_us.clear();
        let now_us = self.time_us;
        let is_held_up = |event: &Event| {
            matches!(event, Event::Sync { .. })
                || event.needs_awake().is_some_and(|node| self.paused_until_us.contains_key(&node))
        };
        let held_up: Vec<(u64, u64)> =
            self.queue.iter().filter(|(_, event)| is_held_up(event)).map(|(key, _)| *key).collect();
        for key in held_up {
            let event = self.queue.remove(&key).expect("the key was just found");
            self.queue.insert((now_us, key.1), event);
        }
        self.paused_until_us.clear();
        self.suspended.clear();
        self.take_copies_away();
        for id in self.ids() {
            // What is about to fail fails now.
            let machine = &self.machines[&id];
            if machine.doomed || machine.sync_fails {
                self.power_cut(id);
            }
            self.space_again(id);
            self.fast_again(id);
            self.start(id);
        }
        self.close_dead_connections();
        if self.plan.spares > 0 {
            self.after(SECOND, Event::Introduce);
        }
    }

    pub(super) fn up(&self) -> impl Iterator<Item = (NodeId, &super::machine::Process)> {
        self.machines.iter().filter_map(|(id, machine)| Some((*id, machine.process.as_ref()?)))
    }

    /// A leader is there, and clients are answered again.
    fn expect_progress(&mut self) {
        let before = self.clients.acknowledged_count();
        let chosen = self.checker.first_unchosen();
        self.expect("stuck", |simulation| {
            simulation.checker.first_unchosen() > chosen
                && simulation.clients.acknowledged_count() > before
        });
    }

    /// Goes on until `holds` does, which must be soon.
    pub(super) fn expect(&mut self, otherwise: &str, holds: impl Fn(&Simulation) -> bool) {
        self.expect_within(CALM_US_MAX, otherwise, holds);
    }

    pub(super) fn expect_within(
        &mut self,
        bound_us: u64,
        otherwise: &str,
        holds: impl Fn(&Simulation) -> bool,
    ) {
        let end_us = self.time_us + bound_us;
        self.run_while(|simulation| simulation.time_us < end_us && !holds(simulation));
        if !self.is_broken() && !holds(self) {
            let stand = self.stand();
            let seconds = bound_us / SECOND;
            self.checker.fail(format!("{otherwise}, {seconds} s after the last fault: {stand}"));
        }
    }

    fn stand(&self) -> String {
        let nodes = self.up().map(|(id, process)| {
            let (node, replica) = (&process.node, &process.node.replica);
            format!(
                "{id} applied below {}, leading {:?}, {} waiting, full {}, {} expiring",
                node.first_unapplied(),
                replica.leading(),
                node.pending_count(),
                process.state.is_full(),
                node.store.expiring_count(),
            )
        });
        let waiting = (0..self.clients.all.len()).filter(|index| self.clients.waits(*index));
        let nodes: Vec<String> = nodes.collect();
        format!(
            "{}; chosen below {}; {} clients wait",
            nodes.join("; "),
            self.checker.first_unchosen(),
            waiting.count()
        )
    }

    /// One leader, whom all are content with, and everybody has applied everything.
    pub(super) fn is_level(&self) -> bool {
        let leaders = self.leaders();
        let [(leader, _)] = leaders[..] else { return false };
        let newest = self.checker.configuration();
        // Whoever was removed has learned it, and was let go.
        let is_left = |(id, _): (NodeId, &super::machine::Process)| newest.removed.contains(&id);
        if self.up().any(is_left) {
            return false;
        }
        let below = self.machines[&leader].process.as_ref().map(|up| up.node.first_unapplied());
        let is_content = |(id, process): (NodeId, &super::machine::Process)| {
            let node = &process.node;
            Some(node.first_unapplied()) == below
                && node.replica.happy_with(self.now(id)) == Some(leader)
        };
        self.up().filter(|(id, _)| newest.contains(*id)).all(is_content)
    }

    pub(super) fn is_settled(&self) -> bool {
        let mut clients = 0..self.clients.all.len();
        self.is_level()
            && self.up().all(|(_, process)| process.is_quiet())
            && !clients.any(|index| self.clients.waits(index) || self.clients.insists(index))
    }

    /// The last reads: they catch a last write that was lost.
    fn read_everything(&mut self) {
        let keys: BTreeSet<Bytes> =
            self.clients.history.iter().flat_map(Operation::keys).cloned().collect();
        for key in keys {
            let before = self.clients.acknowledged_count();
            for _ in 0..10 {
                if self.is_broken() || self.clients.acknowledged_count() > before {
                    break;
                }
                self.read_at_leader(&key);
                self.expect("a last read is not answered", |simulation| {
                    !simulation.clients.waits(0)
                });
            }
            if !self.is_broken() && self.clients.acknowledged_count() == before {
                self.checker.fail("a last read is refused again and again".to_owned());
            }
        }
    }

    /// A healthy leader stays.
    fn expect_peace(&mut self) {
        let leaders = self.leaders();
        let end_us = self.time_us + WATCH_US;
        self.run_while(|simulation| simulation.time_us < end_us);
        let later = self.leaders();
        if leaders != later {
            self.checker.fail(format!("a calm leader was replaced: {leaders:?}, now {later:?}"));
        }
    }
}
