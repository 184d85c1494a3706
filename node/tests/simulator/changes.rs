//! Members come and go: nodes that were formatted to join, promotions, removals, swaps, whole sets.

use std::collections::BTreeSet;

use paxos::{Change, NodeId};

use super::SECOND;
use super::coverage::Rare;
use super::setup::member;
use super::simulation::{Event, Simulation};

impl Simulation {
    pub(super) fn change(&mut self) {
        if self.calm {
            return;
        }
        let delay_us = self.chance.between(1, 2 * self.plan.change_every_us);
        self.after(delay_us, Event::Change);
        let Some((leader, _)) = self.leaders().last().copied() else { return };
        let Some(change) = self.draw_change() else { return };
        if self.paused_until_us.contains_key(&leader) {
            return;
        }
        self.trace(|| format!("---- {leader} is asked for {change:?}"));
        let mut refused = false;
        self.at(leader, |process, now| refused = process.node.change(now, &change).is_err());
        self.coverage.count(match (refused, change) {
            (true, _) => Rare::ChangeRefused,
            (_, Change::Add { .. }) => Rare::MemberAdded,
            (_, Change::Promote(_)) => Rare::LearnerPromoted,
            (_, Change::Remove(node)) if node == leader => Rare::LeaderRemoved,
            (_, Change::Remove(_)) => Rare::MemberRemoved,
            (_, Change::Replace { .. } | Change::Voters(_)) => Rare::MembersSwapped,
            (_, Change::Rules(_)) => unreachable!("no rules are drawn here"),
        });
    }

    /// Made from what is chosen, not from what the leader knows: so some are nonsense to it, as from
    /// an administrator who looks at an old page.
    fn draw_change(&mut self) -> Option<Change> {
        let ids = self.ids();
        let newest = self.checker.configuration();
        let voters: Vec<NodeId> = newest.voters().collect();
        let members: Vec<NodeId> = newest.members.keys().copied().collect();
        let learners: Vec<NodeId> =
            members.iter().copied().filter(|id| !newest.is_voter(*id)).collect();
        let is_spare = |id: &NodeId| !newest.contains(*id) && !newest.removed.contains(id);
        let spares: Vec<NodeId> = ids.iter().copied().filter(is_spare).collect();
        let chance = &mut self.chance;
        let mut pick = |list: &[NodeId]| (!list.is_empty()).then(|| *chance.pick(list));
        match pick(&[0, 1, 2, 3, 4, 5, 6, 7].map(NodeId))?.0 {
            0..=2 => {
                let node = pick(&spares)?;
                Some(Change::Add {
                    node,
                    member: member(node),
                    in_place_of: None,
                    store_version: None,
                })
            }
            3 | 4 => Some(Change::Promote(pick(&learners)?)),
            5 => Some(Change::Replace { old: pick(&voters)?, new: pick(&learners)? }),
            6 => Some(Change::Remove(pick(&ids)?)),
            _ => {
                let set: BTreeSet<NodeId> =
                    members.into_iter().filter(|_| self.chance.one_in(2)).collect();
                Some(Change::Voters(set))
            }
        }
    }

    /// Whoever does not know the newest configuration is told of one who takes part in it.
    pub(super) fn introduce(&mut self) {
        let newest = self.checker.configuration().clone();
        let voters: Vec<NodeId> = newest.voters().collect();
        for id in self.ids() {
            let concerns = newest.contains(id) || newest.removed.contains(&id);
            let known = self.process(id).map(|process| process.node.configuration().number);
            // Nobody may know it any more who could let it go: then it is told by hand.
            if known.is_some() && newest.removed.contains(&id) && self.chance.one_in(4) {
                self.bury(id);
            } else if concerns && known.is_some_and(|known| known < newest.number) {
                let voter = *self.chance.pick(&voters);
                let named = newest.members[&voter].clone();
                self.at(id, |process, _| {
                    process.links.introduce(process.node.configuration(), voter, named);
                    process.node.ask(voter);
                });
            }
        }
        self.after(SECOND / 2, Event::Introduce);
    }

    /// Removed, and no longer needed: it writes its tombstone and never starts again.
    pub(super) fn bury(&mut self, node: NodeId) {
        self.coverage.count(Rare::Tombstone);
        self.trace(|| format!("{node} writes its tombstone"));
        let machine = self.machines.get_mut(&node).expect("a node");
        machine.has_tombstone = true;
        let connections = machine.kill();
        self.ended(node, connections, 0);
    }
}
