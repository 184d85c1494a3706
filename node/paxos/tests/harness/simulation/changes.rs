//! Members come and go: learners that join empty, promotions, removals, swaps, whole new sets.

use std::collections::BTreeSet;

use paxos::{Change, Member, NodeId, Rules};

use super::{Event, MS, Simulation};

impl Simulation {
    pub(super) fn change(&mut self) {
        if self.calm {
            return;
        }
        let delay_us = self.chance.between(1, 2 * self.plan.change_every_us);
        self.after(delay_us, Event::Change);
        let leaders = self.cluster.leaders();
        if leaders.is_empty() {
            return;
        }
        let leader = self.chance.pick(&leaders).0;
        if self.paused_until.contains_key(&leader) {
            return;
        }
        let of_rules = self.plan.rules && self.rules_chance.one_in(4);
        let change = if of_rules { Some(self.draw_rules()) } else { self.draw_change() };
        if let Some(change) = change {
            self.cluster.trace.line(|| format!("---- {leader} is asked for {change:?}"));
            self.cluster.change(leader, &change);
        }
    }

    /// Drawn apart from the rest, so that a life without such changes stays what it is. No drift below
    /// what the clocks of these lives may have.
    fn draw_rules(&mut self) -> Change {
        let chance = &mut self.rules_chance;
        let (lease_ms, drift_percent) = (*chance.pick(&[50, 60, 80, 100]), *chance.pick(&[20, 30]));
        let has_leases = self.plan.lease_us > 0;
        let ruling = self.cluster.checker.configuration().store_version;
        Change::Rules(Rules {
            lease_us: (has_leases && chance.one_in(2)).then_some(lease_ms * MS),
            drift_percent: (has_leases && chance.one_in(4)).then_some(drift_percent),
            store_version: chance.one_in(2).then(|| (ruling + chance.below(4) as u32).max(2) - 1),
        })
    }

    /// A program that comes back may be a newer one.
    pub(super) fn upgrade(&mut self, node: NodeId) {
        if self.plan.rules && self.rules_chance.one_in(3) {
            self.cluster.node(node).settings.store_version_newest += 1;
        }
    }

    /// Made from what is chosen, not from what the leader knows: so some are nonsense to it, as from
    /// an operator who looks at an old page.
    fn draw_change(&mut self) -> Option<Change> {
        let configuration = self.cluster.checker.configuration().clone();
        let voters: Vec<NodeId> = configuration.voters().collect();
        let is_learner = |node: &NodeId| !configuration.is_voter(*node);
        let learners: Vec<NodeId> =
            configuration.members.keys().copied().filter(is_learner).collect();
        let ids = self.cluster.ids();
        let is_spare =
            |id: &NodeId| !configuration.contains(*id) && !configuration.removed.contains(id);
        let spares: Vec<NodeId> = ids.iter().copied().filter(is_spare).collect();
        let pick = |list: &[NodeId], chance: &mut super::Chance| {
            (!list.is_empty()).then(|| *chance.pick(list))
        };
        let chance = &mut self.chance;
        match chance.below(8) {
            0..=2 => {
                let node = pick(&spares, chance)?;
                Some(Change::Add {
                    node,
                    member: Member::default(),
                    in_place_of: None,
                    store_version: None,
                })
            }
            3 | 4 => Some(Change::Promote(pick(&learners, chance)?)),
            5 => {
                Some(Change::Replace { old: pick(&voters, chance)?, new: pick(&learners, chance)? })
            }
            6 => Some(Change::Remove(*chance.pick(&ids))),
            _ => {
                let members: Vec<NodeId> = configuration.members.keys().copied().collect();
                let set: BTreeSet<NodeId> =
                    members.into_iter().filter(|_| chance.one_in(2)).collect();
                Some(Change::Voters(set))
            }
        }
    }
}
