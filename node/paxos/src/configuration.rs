//! Who takes part. A configuration is a log entry: number k is chosen in slot s_k and rules the
//! slots above it, up to and including s_(k+1) (DESIGN §3, the stop sign). Number 0 is given by
//! `format` and sits in slot 0.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::ballot::{NodeId, Slot};

/// The members of the group, what identifies them, and what all of them must agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Configuration {
    pub number: u32,
    /// The slot that it is proposed and chosen in: it rules the slots above.
    pub slot: Slot,
    /// Ordered by id, so that every iteration is the same everywhere.
    pub members: BTreeMap<NodeId, Member>,
    /// Ids of former members. None of them is ever used again (PITFALLS 27), and a node that finds
    /// its own id here has been removed.
    pub removed: BTreeSet<NodeId>,
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

impl Member {
    /// What no two members may have in common: for people, peers, clients and pages.
    fn labels(&self) -> [(&'static str, &str); 4] {
        [
            ("name", &self.name),
            ("peer address", &self.peer_address),
            ("client address", &self.client_address),
            ("http address", &self.http_address),
        ]
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    #[default]
    Voter,
    /// Receives everything, counts nowhere.
    Learner,
}

/// One step from a configuration to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new member, as a learner: it receives everything and counts nowhere yet. Its role in
    /// `member` does not matter. Only where it is to replace a voter, `in_place_of`, it may have
    /// that one's name and addresses: a machine that comes back under a new id.
    Add { node: NodeId, member: Member, in_place_of: Option<NodeId> },
    /// A caught-up learner becomes a voter.
    Promote(NodeId),
    /// A member leaves for good.
    Remove(NodeId),
    /// A caught-up learner takes the place of a voter, in one step.
    Replace { old: NodeId, new: NodeId },
    /// From any set of voters to any other, through caught-up learners: voters that are not in the
    /// set leave for good, learners in it become voters, other learners stay what they are.
    Voters(BTreeSet<NodeId>),
}

/// Why a change of the configuration was not taken. Nothing was done, nothing will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// This node does not lead (or has not opened its reign yet); whom it follows, if anybody.
    NotLeading {
        leader: Option<NodeId>,
    },
    /// The former change is not chosen yet.
    UnderWay,
    /// This leader lets another one lead: the change is for that one.
    HandingOver {
        to: NodeId,
    },
    NotAMember(NodeId),
    AlreadyAMember(NodeId),
    AlreadyAVoter(NodeId),
    NotAVoter(NodeId),
    /// The id belonged to a member that was removed.
    IdUsedBefore(NodeId),
    /// Another member has the same name or address: people and clients would take one for the other.
    Taken {
        node: NodeId,
        by: NodeId,
        /// What it is, and what both have: `name`, `n4`.
        what: &'static str,
        which: String,
    },
    /// No voter would be left.
    NoVoterLeft,
    TooManyVoters {
        voters: usize,
        voters_max: usize,
    },
    /// The learner is not reached, both ways, or cannot accept now.
    Unreachable(NodeId),
    /// The learner lacks so many chosen slots.
    NotCaughtUp {
        node: NodeId,
        behind_slots: u64,
    },
    /// Too few voters of the new configuration are reached and able to accept now.
    CouldNotAnswer {
        able: usize,
        needed: usize,
        missing: Vec<NodeId>,
    },
}

impl fmt::Display for ChangeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeRefusal::NotLeading { leader: Some(leader) } => {
                write!(f, "this node does not lead: ask {leader}")
            }
            ChangeRefusal::NotLeading { leader: None } => {
                write!(f, "no leader is ready here: try again in a moment")
            }
            ChangeRefusal::UnderWay => {
                write!(f, "another change is under way: wait until it is chosen")
            }
            ChangeRefusal::HandingOver { to } => {
                write!(f, "this node is handing over to {to}: ask that one in a moment")
            }
            ChangeRefusal::NotAMember(node) => write!(f, "{node} is no member: add it first"),
            ChangeRefusal::AlreadyAMember(node) => write!(f, "{node} is a member already"),
            ChangeRefusal::AlreadyAVoter(node) => write!(f, "{node} is a voter already"),
            ChangeRefusal::NotAVoter(node) => write!(f, "{node} is a learner, not a voter"),
            ChangeRefusal::IdUsedBefore(node) => {
                write!(f, "{node} was removed, and an id is never used again: take a new id")
            }
            ChangeRefusal::Taken { node, by, what, which } => write!(
                f,
                "{node} and {by} would both have the {what} {which}: give {node} another one, or let \
                 it take the place of {by} (`paxosctl member replace`)"
            ),
            ChangeRefusal::NoVoterLeft => write!(f, "no voter would be left"),
            ChangeRefusal::TooManyVoters { voters, voters_max } => {
                write!(f, "{voters} voters are too many: {voters_max} at most")
            }
            ChangeRefusal::Unreachable(node) => {
                write!(f, "{node} is not reached now, or cannot accept: see that it runs")
            }
            ChangeRefusal::NotCaughtUp { node, behind_slots } => {
                write!(f, "{node} is {behind_slots} slots behind: wait until it has caught up")
            }
            ChangeRefusal::CouldNotAnswer { able, needed, missing } => {
                let missing: Vec<String> = missing.iter().map(NodeId::to_string).collect();
                write!(
                    f,
                    "the new configuration could not answer now: {able} of its voters are reached \
                     and able to accept, {needed} are needed; missing: {}",
                    missing.join(", ")
                )
            }
        }
    }
}

impl Configuration {
    pub const VOTERS_MAX: usize = 9;

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

    /// The next configuration. Its slot is known only when it is proposed.
    pub fn changed(&self, change: &Change) -> Result<Configuration, ChangeRefusal> {
        let mut next = self.clone();
        next.number += 1;
        match change {
            Change::Add { node, member, in_place_of } => {
                if self.contains(*node) {
                    return Err(ChangeRefusal::AlreadyAMember(*node));
                }
                if self.removed.contains(node) {
                    return Err(ChangeRefusal::IdUsedBefore(*node));
                }
                if let Some(old) = in_place_of.filter(|old| !self.is_voter(*old)) {
                    return Err(match self.contains(old) {
                        true => ChangeRefusal::NotAVoter(old),
                        false => ChangeRefusal::NotAMember(old),
                    });
                }
                self.check_untaken(*node, member, *in_place_of)?;
                next.members.insert(*node, Member { role: Role::Learner, ..member.clone() });
            }
            Change::Promote(node) => next.promote(*node)?,
            Change::Remove(node) => next.remove(*node)?,
            Change::Replace { old, new } => {
                if self.contains(*old) && !self.is_voter(*old) {
                    return Err(ChangeRefusal::NotAVoter(*old));
                }
                next.promote(*new)?;
                next.remove(*old)?;
            }
            Change::Voters(voters) => {
                for node in voters.iter().filter(|node| !self.is_voter(**node)) {
                    next.promote(*node)?;
                }
                for node in self.voters().filter(|node| !voters.contains(node)) {
                    next.remove(node)?;
                }
            }
        }
        // A learner may share a voter's name for as long as it does not vote beside that one.
        for (node, member) in &next.members {
            if next.is_voter(*node) && !self.is_voter(*node) {
                next.check_untaken(*node, member, None)?;
            }
        }
        match next.voters().count() {
            0 => Err(ChangeRefusal::NoVoterLeft),
            voters if voters > Self::VOTERS_MAX => {
                Err(ChangeRefusal::TooManyVoters { voters, voters_max: Self::VOTERS_MAX })
            }
            _ => Ok(next),
        }
    }

    /// Has any other member, but for `except`, the name or an address of this one?
    fn check_untaken(
        &self,
        node: NodeId,
        member: &Member,
        except: Option<NodeId>,
    ) -> Result<(), ChangeRefusal> {
        let others = self.members.iter().filter(|(id, _)| **id != node && Some(**id) != except);
        for (by, other) in others {
            for ((what, own), (_, theirs)) in member.labels().into_iter().zip(other.labels()) {
                if own == theirs && !own.is_empty() {
                    let (by, which) = (*by, own.to_owned());
                    return Err(ChangeRefusal::Taken { node, by, what, which });
                }
            }
        }
        Ok(())
    }

    fn promote(&mut self, node: NodeId) -> Result<(), ChangeRefusal> {
        let member = self.members.get_mut(&node).ok_or(ChangeRefusal::NotAMember(node))?;
        if member.role == Role::Voter {
            return Err(ChangeRefusal::AlreadyAVoter(node));
        }
        member.role = Role::Voter;
        Ok(())
    }

    fn remove(&mut self, node: NodeId) -> Result<(), ChangeRefusal> {
        self.members.remove(&node).ok_or(ChangeRefusal::NotAMember(node))?;
        self.removed.insert(node);
        Ok(())
    }
}
