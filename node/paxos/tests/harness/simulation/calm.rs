//! The calm after the faults: what must be well again, and within which time.

use paxos::{ElectionStrategy, NodeId};

use super::{CALM_US_MAX, Event, SECOND, Simulation, WATCH_US};

impl Simulation {
    pub(super) fn calm_down(&mut self) {
        let now_us = self.cluster.time_us;
        self.cluster.trace.line(|| format!("---- calm from {now_us} µs on"));
        self.calm = true;
        self.cut.clear();
        // Links are made anew; what was still in the old ones is gone.
        self.queue.retain(|_, event| !matches!(event, Event::Deliver(_)));
        self.last_arrival_us.clear();
        // Whoever is paused wakes, whatever disk hangs comes back.
        let is_held_up = |event: &Event| {
            matches!(event, Event::SyncEnds { .. })
                || event.needs_awake().is_some_and(|node| self.paused_until.contains_key(&node))
        };
        let held_up: Vec<(u64, u64)> =
            self.queue.iter().filter(|(_, event)| is_held_up(event)).map(|(key, _)| *key).collect();
        for key in held_up {
            let event = self.queue.remove(&key).expect("the key was just found");
            self.queue.insert((now_us, key.1), event);
        }
        self.paused_until.clear();
        self.suspended.clear();
        for id in self.cluster.ids() {
            if !self.cluster.is_up(id) {
                self.start(id);
            }
            self.cluster.set_can_accept(id, true);
        }
        if self.plan.change_every_us > 0 {
            self.after(SECOND, Event::Introduce);
        }
    }

    /// Whoever does not know the newest configuration is told of one who takes part in it.
    pub(super) fn introduce(&mut self) {
        let newest = self.cluster.checker.configuration().clone();
        let voters: Vec<NodeId> = newest.voters().collect();
        for id in self.cluster.members() {
            let known = self.cluster.replica(id).map(|replica| replica.configuration().number);
            if known.is_some_and(|known| known < newest.number) {
                let voter = *self.chance.pick(&voters);
                self.cluster.ask(id, voter);
            }
        }
        self.after(SECOND / 2, Event::Introduce);
    }

    /// A leader is there and takes a new batch to its end.
    pub(super) fn expect_progress(&mut self) {
        let begun_us = self.cluster.time_us;
        let before = self.cluster.checker.last_chosen();
        let acknowledged = self.cluster.checker.acknowledged_count();
        self.run_while(|simulation| {
            let checker = &simulation.cluster.checker;
            let progress =
                checker.last_chosen() > before && checker.acknowledged_count() > acknowledged;
            !progress && simulation.cluster.time_us < begun_us + CALM_US_MAX
        });
        if self.cluster.time_us >= begun_us + CALM_US_MAX {
            let leaders = self.cluster.leaders();
            self.cluster.checker.fail(format!(
                "stuck: {} s after the last fault nothing new is chosen; leading: {leaders:?}",
                CALM_US_MAX / SECOND
            ));
        }
    }

    /// Does a deposed leader's client wait for the log to settle its batch?
    pub(super) fn somebody_waits(&self) -> bool {
        self.cluster.nodes.values().filter_map(|node| node.process.as_ref()).any(|process| {
            let leading = process.replica.leading();
            process.pending.values().any(|ballot| leading != Some(*ballot))
        })
    }

    /// Clients rest, but for what it takes to settle the batches of deposed leaders; everybody
    /// learns everything, and everybody who waits is answered.
    pub(super) fn expect_level(&mut self) {
        self.clients_work = false;
        let begun_us = self.cluster.time_us;
        self.run_while(|simulation| {
            !simulation.is_settled() && simulation.cluster.time_us < begun_us + CALM_US_MAX
        });
        self.calm_us = self.cluster.time_us - self.plan.faults_us;
        if self.cluster.time_us >= begun_us + CALM_US_MAX {
            let stand: Vec<String> = self
                .cluster
                .nodes
                .iter()
                .filter_map(|(id, node)| {
                    let process = node.process.as_ref()?;
                    Some(format!(
                        "{id} applied below {}, {} batches and {} reads wait",
                        process.store.applied_below,
                        process.pending.len(),
                        process.reads.len()
                    ))
                })
                .collect();
            self.cluster.checker.fail(format!(
                "not level {} s after the last fault, chosen up to {}: {}",
                CALM_US_MAX / SECOND,
                self.cluster.checker.last_chosen(),
                stand.join("; ")
            ));
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        let waits = |id: &NodeId| {
            self.cluster
                .process(*id)
                .is_some_and(|process| !process.pending.is_empty() || !process.reads.is_empty())
        };
        let candidates =
            self.cluster.ids().into_iter().filter_map(|id| self.cluster.replica(id)?.preparing());
        let leaders = self.cluster.leaders();
        let configuration = self.cluster.checker.configuration();
        let members = self.cluster.members();
        let is_right = |leader: NodeId| {
            self.plan.strategy != ElectionStrategy::HighestId
                || Some(leader) == configuration.voters().max()
        };
        // Whoever was removed has learned it, and was let go.
        let are_gone = members.iter().all(|id| configuration.contains(*id));
        let is_content = |id: &NodeId| {
            self.cluster.replica(*id).and_then(|replica| replica.happy_with(self.cluster.now(*id)))
                == leaders.first().map(|(leader, _)| *leader)
        };
        let promised = members.iter().filter_map(|id| self.cluster.replica(*id));
        let highest_promise = promised.map(|replica| replica.promised()).max();
        are_gone
            && candidates.count() == 0
            && highest_promise == leaders.first().map(|(_, ballot)| *ballot)
            && leaders.len() == 1
            && is_right(leaders[0].0)
            && members.iter().all(is_content)
            && self.cluster.is_level()
            && !members.iter().any(waits)
    }

    /// A healthy leader stays (PITFALLS 20).
    pub(super) fn expect_peace(&mut self) {
        let leaders = self.cluster.leaders();
        let end_us = self.cluster.time_us + WATCH_US;
        self.run_while(|simulation| simulation.cluster.time_us < end_us);
        let later = self.cluster.leaders();
        if leaders != later {
            self.cluster
                .checker
                .fail(format!("a calm leader was replaced: {leaders:?}, now {later:?}"));
        }
    }
}
