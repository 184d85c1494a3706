//! One trouble, by itself, in a cluster that is well: here it can be said what must come of it, and
//! within which time. Someone who can choose leads, clients are answered, nobody takes turns; and
//! when the trouble is over, everybody comes level again.
//!
//! The partial partitions are those that stop other protocols (Omni-Paxos, EuroSys '23); `paxos`
//! has them as scripts and in its `liveness` test.

use std::collections::BTreeSet;

use config::Election;
use paxos::NodeId;

use super::chance::Chance;
use super::coverage::Rare;
use super::plan::Fault;
use super::simulation::Simulation;
use super::{MS, SECOND};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// Syncs of the leader take a second or two.
    SlowLeader,
    /// The leader's disk is full, the others have space.
    FullLeader,
    /// The leader is told to stop.
    StopLeader,
    /// All see one node, and nobody else.
    QuorumLoss,
    /// The same, and that node's log is behind.
    ConstrainedElection,
    /// Only neighbours in a row see each other.
    Chained,
    /// Nobody hears the leader; the leader hears nobody.
    MuteLeader,
    DeafLeader,
    /// An older copy of a follower's disks is put back.
    OlderCopy,
}

const TRIALS: [Trial; 9] = [
    Trial::SlowLeader,
    Trial::FullLeader,
    Trial::StopLeader,
    Trial::QuorumLoss,
    Trial::ConstrainedElection,
    Trial::Chained,
    Trial::MuteLeader,
    Trial::DeafLeader,
    Trial::OlderCopy,
];

/// All hear that all are level.
const BEFORE_US: u64 = 100 * MS;
/// Until a node leads that can choose.
const LEADER_WITHIN_US: u64 = 5 * SECOND;
/// Until the room that is left is used up, if ever.
const FULL_WITHIN_US: u64 = 3 * SECOND;
/// Until a client is answered: some wait at a node that is cut off, for as long as they have patience.
const ANSWERED_WITHIN_US: u64 = 20 * SECOND;
/// Two may have begun at once; after that nobody takes turns.
const SETTLED_WITHIN_US: u64 = 1_500 * MS;
const STEADY_US: u64 = 500 * MS;
/// By then peers have been told what is durable.
const TOLD_WITHIN_US: u64 = 1_200 * MS;
/// By then a leader that was told to stop has done so.
const STOPPED_WITHIN_US: u64 = 3 * SECOND;

impl Simulation {
    /// A cluster in which every voter is up and well stands one of the trials.
    pub(super) fn stand_trial(&mut self) {
        let trial = *Chance::new(self.seed ^ 0x7417).pick(&TRIALS);
        let newest = self.checker.configuration().clone();
        let voters: Vec<NodeId> = newest.voters().collect();
        let all_up = voters.iter().all(|voter| self.process(*voter).is_some());
        let leads_by_ballot = self.plan.behaviour.election == Election::Ballot;
        if self.is_broken() || self.less.leaves_out("trial") || !leads_by_ballot {
            return;
        }
        // A pair cannot spare either of its nodes.
        let [(leader, _)] = self.leaders()[..] else { return };
        if !all_up || voters.len() < 3 {
            return;
        }
        let others: Vec<NodeId> = voters.iter().copied().filter(|node| *node != leader).collect();
        let hub = *self.chance.pick(&others);
        self.trace(|| format!("---- trial: {trial:?}, leader {leader}, hub {hub}"));
        self.clients_work = true;
        for client in 0..self.clients.all.len() {
            self.act(client);
        }
        self.pass(BEFORE_US);
        self.begin(trial, leader, hub);
        match trial {
            Trial::FullLeader if !self.becomes_full(leader) => {}
            Trial::SlowLeader | Trial::FullLeader => {
                self.expect_other_leader(trial, &others);
            }
            Trial::StopLeader => self.expect_stop(leader, &others),
            Trial::OlderCopy => self.expect_refusal(hub),
            Trial::QuorumLoss
            | Trial::ConstrainedElection
            | Trial::Chained
            | Trial::MuteLeader
            | Trial::DeafLeader => {
                // Of six in a row nobody sees a quorum.
                let able = self.quorum_connected(&voters);
                if !able.is_empty() {
                    self.expect_other_leader(trial, &able);
                    self.expect_steady(trial);
                }
            }
        }
        self.end(trial);
    }

    fn pass(&mut self, us: u64) {
        let end_us = self.time_us + us;
        self.run_while(|simulation| simulation.time_us < end_us);
    }

    /// There may be room in the segments that are there, and few writes.
    fn becomes_full(&mut self, leader: NodeId) -> bool {
        let is_full = |simulation: &Simulation| {
            simulation.process(leader).is_some_and(|process| process.state.is_full())
        };
        let end_us = self.time_us + FULL_WITHIN_US;
        self.run_while(|simulation| simulation.time_us < end_us && !is_full(simulation));
        is_full(self)
    }

    fn begin(&mut self, trial: Trial, leader: NodeId, hub: NodeId) {
        let voters: Vec<NodeId> = self.checker.configuration().voters().collect();
        let ids = self.ids();
        let links = ids.iter().flat_map(|a| ids.iter().map(|b| (*a, *b)));
        let links = links.filter(|(a, b)| a != b);
        match trial {
            Trial::SlowLeader => {
                let machine = self.machines.get_mut(&leader).expect("a member");
                machine.slow_until_us = u64::MAX;
            }
            Trial::FullLeader => {
                let machine = &self.machines[&leader];
                machine.journal.set_capacity(Some(machine.journal.used_bytes()));
            }
            Trial::StopLeader => self.stop(leader),
            Trial::OlderCopy => self.back_up(hub),
            Trial::QuorumLoss => self.links(Fault::QuorumLoss, hub),
            Trial::ConstrainedElection => {
                self.cut.extend([(hub, leader), (leader, hub)]);
                self.pass(BEFORE_US);
                self.links(Fault::QuorumLoss, hub);
                // Now they see each other again.
                self.cut.retain(|(a, b)| *a != hub && *b != hub);
            }
            Trial::Chained => {
                let place = |node: NodeId| voters.iter().position(|voter| *voter == node);
                let is_far = |(a, b): &(NodeId, NodeId)| {
                    place(*a).zip(place(*b)).is_none_or(|(a, b)| a.abs_diff(b) > 1)
                };
                self.cut.extend(links.filter(is_far));
            }
            Trial::MuteLeader => self.cut.extend(links.filter(|(from, _)| *from == leader)),
            Trial::DeafLeader => self.cut.extend(links.filter(|(_, to)| *to == leader)),
        }
    }

    /// Those voters that reach a quorum of them, both ways.
    fn quorum_connected(&self, voters: &[NodeId]) -> Vec<NodeId> {
        let reaches = |a: NodeId, b: NodeId| {
            a == b || !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
        };
        let quorum = voters.len() / 2 + 1;
        let is_able = |a: &NodeId| voters.iter().filter(|b| reaches(*a, **b)).count() >= quorum;
        voters.iter().copied().filter(is_able).collect()
    }

    /// One of `able` leads, has something chosen, and a client is answered.
    fn expect_other_leader(&mut self, trial: Trial, able: &[NodeId]) {
        let able: BTreeSet<NodeId> = able.iter().copied().collect();
        let newest = |simulation: &Simulation| {
            simulation.leaders().into_iter().max_by_key(|(_, ballot)| *ballot)
        };
        let leads = |simulation: &Simulation| {
            newest(simulation).is_some_and(|(leader, _)| able.contains(&leader))
        };
        let text = format!("{trial:?}: none of those who could choose leads");
        self.expect_within(LEADER_WITHIN_US, &text, leads);
        let chosen = self.checker.first_unchosen();
        let acknowledged = self.clients.acknowledged_count();
        let text = format!("{trial:?}: nothing is chosen");
        self.expect_within(ANSWERED_WITHIN_US, &text, |simulation| {
            simulation.checker.first_unchosen() > chosen
                && simulation.clients.acknowledged_count() > acknowledged
        });
        self.coverage.count(trial.rare());
    }

    /// Whoever leads goes on.
    fn expect_steady(&mut self, trial: Trial) {
        self.pass(SETTLED_WITHIN_US);
        let before = self.leaders();
        self.pass(STEADY_US);
        let later = self.leaders();
        let highest =
            |leaders: &[(NodeId, paxos::Ballot)]| leaders.iter().map(|(_, ballot)| *ballot).max();
        if !self.is_broken() && highest(&before) != highest(&later) {
            self.checker.fail(format!("{trial:?}: they take turns: {before:?}, now {later:?}"));
        }
    }

    /// Its peers have heard what the copy lacks, and do not let it in.
    fn expect_refusal(&mut self, node: NodeId) {
        self.pass(TOLD_WITHIN_US);
        self.put_back(node);
        if !self.copies.contains(&node) {
            return;
        }
        let before = self.coverage.of(Rare::OlderCopyRefused);
        self.expect_within(SECOND, "nobody refuses an older copy", |simulation| {
            simulation.coverage.of(Rare::OlderCopyRefused) > before
        });
        self.take_copies_away();
        self.coverage.count(Rare::TrialOlderCopy);
    }

    /// It ends only when another node leads, and starts again later.
    fn expect_stop(&mut self, leader: NodeId, others: &[NodeId]) {
        let nonce = self.machines[&leader].nonce();
        let end_us = self.time_us + STOPPED_WITHIN_US;
        self.run_while(|simulation| {
            simulation.time_us < end_us && simulation.machines[&leader].nonce() == nonce
        });
        if self.is_broken() {
            return;
        }
        if self.machines[&leader].nonce() == nonce {
            return self.checker.fail(format!("{leader} was told to stop, and goes on"));
        }
        let has_successor = self.leaders().iter().any(|(successor, _)| others.contains(successor));
        match has_successor {
            true => self.coverage.count(Rare::TrialStopLeader),
            false => {
                self.checker.fail(format!("{leader} led, and stopped before another node did"));
            }
        }
    }

    /// The trouble is over.
    fn end(&mut self, trial: Trial) {
        if self.is_broken() {
            return;
        }
        self.cut.clear();
        for id in self.ids() {
            self.space_again(id);
            self.fast_again(id);
        }
        self.clients_work = false;
        let text = format!("{trial:?}: not settled");
        self.expect(&text, Simulation::is_settled);
    }
}

impl Trial {
    fn rare(self) -> Rare {
        match self {
            Trial::SlowLeader => Rare::TrialSlowLeader,
            Trial::FullLeader => Rare::TrialFullLeader,
            Trial::StopLeader => Rare::TrialStopLeader,
            Trial::QuorumLoss => Rare::TrialQuorumLoss,
            Trial::ConstrainedElection => Rare::TrialConstrainedElection,
            Trial::Chained => Rare::TrialChained,
            Trial::MuteLeader => Rare::TrialMuteLeader,
            Trial::DeafLeader => Rare::TrialDeafLeader,
            Trial::OlderCopy => Rare::TrialOlderCopy,
        }
    }
}
