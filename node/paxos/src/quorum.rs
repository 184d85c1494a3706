//! Counting voters: majorities of the voters of one configuration.

use std::collections::BTreeSet;

use crate::ballot::NodeId;
use crate::configuration::Configuration;

/// Who has answered one question. A node counts once, however often it answers (PITFALLS 15), and
/// only if it is a voter of the configuration that rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    nodes: BTreeSet<NodeId>,
}

impl Tally {
    /// Notes an answer; true if it is this node's first.
    pub fn add(&mut self, node: NodeId) -> bool {
        let is_first = self.nodes.insert(node);
        if mutant!(VoteCountedTwice) && !is_first {
            let other = (1..).map(NodeId).find(|other| !self.nodes.contains(other));
            self.nodes.extend(other);
        }
        is_first
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes.contains(&node)
    }

    pub fn reached(&self, configuration: &Configuration) -> bool {
        let voters = self
            .nodes
            .iter()
            .filter(|node| configuration.is_voter(**node) || mutant!(LearnerVotes))
            .count();
        voters >= configuration.quorum_size()
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().copied()
    }
}
