//! Whether all nodes came to the same state: each tells its peers the hash of its state behind every
//! so manyth slot, and compares what it hears with its own.
//!
//! The same log gives the same bytes, so two hashes of one slot that differ mean that a node has a
//! fault in its memory, its disk or its program. A node that more than half of all members contradict
//! with one voice must not answer anybody any more: it stops. Where no state has so many, nobody can
//! say who is right, and people are called instead.

use std::collections::{BTreeMap, VecDeque};

use paxos::{NodeId, Slot};

/// Hashes that are kept of each node, the newest.
const STATES_MAX: usize = 64;

/// The hash of the state behind a slot.
pub type State = (Slot, u128);

/// What the others' hashes say about this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    pub slot: Slot,
    /// More than half of all members hold another state, and the same one.
    pub outvoted: bool,
    /// The states that there are, and who holds them.
    pub camps: Vec<(u128, Vec<NodeId>)>,
}

#[derive(Debug, Default)]
pub struct Agreement {
    own: VecDeque<State>,
    peers: BTreeMap<NodeId, VecDeque<State>>,
    /// The first slot that was not told to the peers yet.
    untold: Slot,
    /// The first slot whose contradiction was not counted yet.
    uncounted: Slot,
    mismatches: u64,
    outvoted: Option<Contradiction>,
}

impl Agreement {
    /// This node's own state.
    pub fn add(&mut self, state: State) {
        push(&mut self.own, state);
    }

    /// Newest last.
    pub fn own(&self) -> impl Iterator<Item = State> + '_ {
        self.own.iter().copied()
    }

    /// Slots at which another node's state was not this node's.
    pub fn mismatches(&self) -> u64 {
        self.mismatches
    }

    /// Why this node has to stop, if it has to.
    pub fn outvoted(&self) -> Option<&Contradiction> {
        self.outvoted.as_ref()
    }

    /// What the peers have not been told yet.
    pub fn take_untold(&mut self) -> Vec<State> {
        let untold = self.own.iter().filter(|(slot, _)| *slot >= self.untold);
        let untold: Vec<State> = untold.copied().collect();
        if let Some((slot, _)) = untold.last() {
            self.untold = slot.next();
        }
        untold
    }

    /// Tells everything again: somebody has just connected.
    pub fn tell_again(&mut self) {
        self.untold = Slot(0);
    }

    /// What a peer says of its own states.
    pub fn hear(&mut self, from: NodeId, states: Vec<State>) {
        let heard = self.peers.entry(from).or_default();
        for state in states {
            if heard.iter().all(|(slot, _)| *slot != state.0) {
                push(heard, state);
            }
        }
    }

    /// Compares what is known. Of each slot that differs it says so once, and once more should it
    /// turn out that this node is outvoted there.
    pub fn judge(&mut self, me: NodeId, members: &[NodeId]) -> Option<Contradiction> {
        if self.outvoted.is_some() {
            return None;
        }
        let mut found = None;
        for &(slot, hash) in &self.own {
            let camps = self.camps(me, members, slot, hash);
            if camps.len() < 2 {
                continue;
            }
            let many = |holders: &[NodeId]| holders.len() > members.len() / 2;
            let outvoted = camps.iter().any(|(state, holders)| *state != hash && many(holders));
            let contradiction = Contradiction { slot, outvoted, camps };
            if outvoted {
                self.outvoted = Some(contradiction.clone());
                return Some(contradiction);
            }
            if slot >= self.uncounted {
                self.uncounted = slot.next();
                self.mismatches += 1;
                found = found.or(Some(contradiction));
            }
        }
        found
    }

    fn camps(
        &self,
        me: NodeId,
        members: &[NodeId],
        slot: Slot,
        own: u128,
    ) -> Vec<(u128, Vec<NodeId>)> {
        let mut camps: BTreeMap<u128, Vec<NodeId>> = BTreeMap::from([(own, vec![me])]);
        for (peer, states) in self.peers.iter().filter(|(peer, _)| members.contains(peer)) {
            let at_slot = states.iter().find(|(heard, _)| *heard == slot);
            if let Some((_, hash)) = at_slot {
                camps.entry(*hash).or_default().push(*peer);
            }
        }
        camps.into_iter().collect()
    }
}

impl std::fmt::Display for Contradiction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "behind slot {} the nodes hold different states:", self.slot)?;
        for (hash, holders) in &self.camps {
            let holders: Vec<String> = holders.iter().map(NodeId::to_string).collect();
            write!(f, " {hash:032x} ({})", holders.join(", "))?;
        }
        Ok(())
    }
}

fn push(states: &mut VecDeque<State>, state: State) {
    states.push_back(state);
    if states.len() > STATES_MAX {
        states.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);

    /// Every member's hash of slot 64, this node's first; `None` for one that has said nothing.
    fn judged(hashes: &[Option<u128>]) -> (Option<Contradiction>, Agreement) {
        let mut agreement = Agreement::default();
        let members: Vec<NodeId> = (1..=hashes.len() as u32).map(NodeId).collect();
        for (member, hash) in members.iter().zip(hashes) {
            match hash {
                Some(hash) if *member == ME => agreement.add((Slot(64), *hash)),
                Some(hash) => agreement.hear(*member, vec![(Slot(64), *hash)]),
                None => {}
            }
        }
        (agreement.judge(ME, &members), agreement)
    }

    #[test]
    fn the_minority_of_at_least_three_is_outvoted_and_nobody_else() {
        // (hashes, differs, outvoted)
        let cases: [(&[Option<u128>], bool, bool); 10] = [
            (&[Some(1), Some(1), Some(1)], false, false),
            (&[Some(1), Some(2), Some(2)], true, true),
            (&[Some(1), Some(1), Some(2)], true, false),
            (&[Some(1), Some(2), Some(3)], true, false),
            (&[Some(1), Some(2)], true, false),
            // Two of five contradict: the three others may yet be on this node's side.
            (&[Some(1), Some(2), Some(2), None, None], true, false),
            (&[Some(1), Some(2), Some(2), None, Some(2)], true, true),
            (&[Some(1), Some(1), Some(2), Some(2)], true, false),
            (&[None, Some(2), Some(2)], false, false),
            (&[Some(1), None, None], false, false),
        ];
        for (hashes, differs, outvoted) in cases {
            let (found, agreement) = judged(hashes);
            assert_eq!(found.is_some(), differs, "{hashes:?}");
            assert_eq!(agreement.outvoted().is_some(), outvoted, "{hashes:?}");
        }
    }

    #[test]
    fn a_slot_is_counted_once_and_only_slots_in_common_are_compared() {
        let mut agreement = Agreement::default();
        let members = [ME, NodeId(2)];
        agreement.add((Slot(64), 1));
        agreement.hear(NodeId(2), vec![(Slot(128), 2)]);
        assert_eq!(agreement.judge(ME, &members), None);
        agreement.add((Slot(128), 1));
        let found = agreement.judge(ME, &members).expect("they differ");
        assert_eq!((found.slot, found.outvoted), (Slot(128), false));
        assert!(found.to_string().contains("slot 128"), "{found}");
        assert_eq!((agreement.judge(ME, &members), agreement.mismatches()), (None, 1));
        // A node that is no member has no say.
        agreement.hear(NodeId(9), vec![(Slot(64), 7)]);
        assert_eq!(agreement.judge(ME, &members), None);
    }

    #[test]
    fn peers_are_told_each_state_once_and_the_newest_are_kept() {
        let mut agreement = Agreement::default();
        for place in 1..=100u64 {
            agreement.add((Slot(place * 64), 1));
        }
        assert_eq!(agreement.take_untold().len(), STATES_MAX);
        assert_eq!(agreement.take_untold(), []);
        agreement.add((Slot(101 * 64), 1));
        assert_eq!(agreement.take_untold(), [(Slot(101 * 64), 1)]);
        agreement.tell_again();
        assert_eq!(agreement.take_untold().len(), STATES_MAX);
    }
}
