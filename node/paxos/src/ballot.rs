//! The two orders that everything else stands on: ballots and slots.

use std::cmp::Ordering;
use std::fmt;

/// The Paxos server id of one node. Given once in the inventory, never a position, never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A ballot: "proposal number" in *Paxos Made Simple* (§2.2), unique and totally ordered.
///
/// The order is by configuration, then round, then node. The configuration comes first so that a
/// deposed leader of an older configuration can never outrank one of a newer configuration
/// (DESIGN §3, stop sign).
///
/// `Ballot::ZERO` is below every ballot that is ever used: "nothing promised yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ballot {
    pub configuration: u32,
    pub round: u64,
    pub node: NodeId,
}

impl Ballot {
    pub const ZERO: Ballot = Ballot { configuration: 0, round: 0, node: NodeId(0) };

    /// The ballot that `node` begins in `configuration` when `highest` is the highest ballot of
    /// this configuration or an older one that it has seen anywhere: one round above, so that it
    /// is above `highest` and never used before.
    pub fn next(highest: Ballot, configuration: u32, node: NodeId) -> Ballot {
        let round = highest.round.checked_add(1).expect("ballot rounds are exhausted");
        let ballot = Ballot { configuration, round, node };
        assert!(ballot > highest, "the next ballot {ballot} is not above {highest}");
        ballot
    }
}

impl Ord for Ballot {
    fn cmp(&self, other: &Ballot) -> Ordering {
        if mutant!(RoundBeforeConfiguration) {
            let by_round = |ballot: &Ballot| (ballot.round, ballot.node, ballot.configuration);
            return by_round(self).cmp(&by_round(other));
        }
        let key = |ballot: &Ballot| (ballot.configuration, ballot.round, ballot.node);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Ballot {
    fn partial_cmp(&self, other: &Ballot) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Short form `7.2` (round.node), or `c3/7.2` outside configuration 0.
impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.configuration > 0 {
            write!(f, "c{}/", self.configuration)?;
        }
        write!(f, "{}.{}", self.round, self.node.0)
    }
}

/// A position in the replicated log. Slots start at 1; slot 0 stands for "before the log" and is
/// ruled by the initial configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

impl Slot {
    pub const ZERO: Slot = Slot(0);
    pub const FIRST: Slot = Slot(1);

    pub fn next(self) -> Slot {
        Slot(self.0 + 1)
    }

    /// The slot before this one; slot 0 has none.
    pub fn previous(self) -> Slot {
        Slot(self.0.checked_sub(1).expect("slot 0 has no previous slot"))
    }

    /// All slots from this one up to, but not including, `end`.
    pub fn until(self, end: Slot) -> impl DoubleEndedIterator<Item = Slot> {
        (self.0..end.0).map(Slot)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_outranks_round_and_round_outranks_node() {
        let ballot =
            |configuration, round, node| Ballot { configuration, round, node: NodeId(node) };
        assert!(ballot(1, 1, 1) > ballot(0, 9, 9));
        assert!(ballot(0, 2, 1) > ballot(0, 1, 9));
        assert!(ballot(0, 1, 2) > ballot(0, 1, 1));
        assert!(Ballot::next(ballot(0, 4, 9), 0, NodeId(1)) > ballot(0, 4, 9));
    }
}
