//! Members come and go: learners that join empty, promotions, removals, swaps, whole new sets.

use std::collections::BTreeSet;

use paxos::{Change, Member, NodeId};

use super::{Event, Simulation};

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
        if let Some(change) = self.draw_change() {
            self.cluster.trace.line(|| format!("---- {leader} is asked for {change:?}"));
            self.cluster.change(leader, &change);
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
                Some(Change::Add { node, member: Member::default(), in_place_of: None })
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
