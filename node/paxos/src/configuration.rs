//! Who takes part. A configuration is a log entry: number k is chosen in slot s_k and rules the
//! slots above it (DESIGN §3, the stop sign). Number 0 is given by `format` and sits in slot 0.

use std::collections::BTreeMap;

use crate::ballot::NodeId;

/// The members of the group, what identifies them, and what all of them must agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Configuration {
    pub number: u32,
    /// Ordered by id, so that every iteration is the same everywhere.
    pub members: BTreeMap<NodeId, Member>,
    /// Version of the state machine that applies the slots ruled by this configuration.
    pub store_version: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Member {
    /// What people call it.
    pub name: String,
    pub role: Role,
    /// Random number that `format` wrote on the member's disk: a wiped disk is another member.
    pub incarnation: u64,
    /// Raw Ed25519 public key of the member's peer links; empty where links are plain.
    pub public_key: Vec<u8>,
    /// host:port where its peers dial it.
    pub peer_address: String,
    /// host:port that clients are redirected to.
    pub client_address: String,
    /// host:port of its read-only pages.
    pub http_address: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    #[default]
    Voter,
    /// Receives everything, counts nowhere.
    Learner,
}

impl Configuration {
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().filter(|(_, member)| member.role == Role::Voter).map(|(id, _)| *id)
    }

    pub fn is_voter(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|member| member.role == Role::Voter)
    }

    pub fn contains(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }

    /// The smallest number of voters that any two sets of which have one in common.
    pub fn quorum_size(&self) -> usize {
        self.voters().count() / 2 + 1
    }
}
