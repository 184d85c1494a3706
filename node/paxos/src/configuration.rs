//! Who takes part. A configuration is a log entry: number k is chosen in slot s_k and rules the
//! slots above it, up to and including s_(k+1) (DESIGN §3, the stop sign). Number 0 is given by
//! `format` and sits in slot 0.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::ballot::{NodeId, Slot};

/// The members of the group, what identifies them, and the rules that all of them go by.
///
/// **Why L and ρ may change at all.** A ballot belongs to one configuration, so all that is granted
/// to it is granted, and all that it counts is counted, under the terms of that one.
/// - An acceptor grants for the L of the configuration of the ballot that it grants, and says so in
///   the grant; the holder counts each grant for the length that the grant names, less ρ. So nothing
///   rests on two nodes having the same L in mind, and where number 0 is not the same on all of them
///   (files that differ), or states no terms, leases are as safe as with one L for all.
/// - Whoever knows that k + 1 is chosen may rely on it that no lease of k lasts: the leader that
///   tallied it has ended its lease in that step, before it told anybody; a leader of a higher ballot
///   that finished it needed a granter out of every quorum of grants, and waited for the end of those;
///   and while it finishes a configuration its reign does not open, so it serves no read itself.
/// - All the same a granter keeps to what it granted under a longer L: what it granted never ends
///   sooner, and after a restart it is bound for the longest L that its disk remembers. The record of
///   a configuration is durable before any promise in it, and so before any grant by its L.
/// - A larger ρ binds from the first ballot of the configuration that states it. The leases of the
///   one before rest on the smaller bound, as they did all along.
///
/// **Why `store_version` may change.** It is raised only, to what every member has said that it can
/// do. All apply the same slots by the same version, since the log itself says where it changes.
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
    /// By what leases are granted and counted. `None` in a configuration of a release that did not
    /// state them: until [`Change::Rules`] does, every node goes by its own file.
    pub lease_terms: Option<LeaseTerms>,
    /// Version of the state machine that applies the slots ruled by this configuration.
    pub store_version: u32,
}

/// L and ρ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeaseTerms {
    /// L: for how long an acceptor grants, by its own clock.
    pub lease_us: u64,
    /// ρ: by how much of a lease the rates of any two clocks may differ.
    pub drift_percent: u32,
}

impl LeaseTerms {
    /// The kernel lets a correction slew a clock by up to 10 %, and two hosts may be corrected in
    /// opposite directions (PITFALLS 117).
    pub const DRIFT_PERCENT_DEFAULT: u32 = 20;
    /// Beyond it a lease is not worth its grants.
    pub const DRIFT_PERCENT_MAX: u32 = 50;
}

/// What [`Change::Rules`] asks for; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub lease_us: Option<u64>,
    pub drift_percent: Option<u32>,
    pub store_version: Option<u32>,
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
    /// that one's name and addresses: a machine that comes back under a new id. `store_version` is
    /// the newest that its program can do, as far as that program says.
    Add { node: NodeId, member: Member, in_place_of: Option<NodeId>, store_version: Option<u32> },
    /// A caught-up learner becomes a voter.
    Promote(NodeId),
    /// A member leaves for good.
    Remove(NodeId),
    /// A caught-up learner takes the place of a voter, in one step.
    Replace { old: NodeId, new: NodeId },
    /// From any set of voters to any other, through caught-up learners: voters that are not in the
    /// set leave for good, learners in it become voters, other learners stay what they are.
    Voters(BTreeSet<NodeId>),
    /// The same members by other rules.
    Rules(Rules),
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
    /// These rules rule already.
    NothingToChange,
    /// What was applied by a newer version cannot be applied by an older one again.
    StoreVersionLowered {
        ruling: u32,
        asked: u32,
    },
    /// The program of this node cannot do that store version. `None`: it has not been heard, or is
    /// of a release that does not say.
    CannotDo {
        node: NodeId,
        newest: Option<u32>,
        store_version: u32,
    },
    /// The leader's own timing does not go with such a lease.
    LeaseOutOfBounds {
        lease_us: u64,
        least_us: u64,
        most_us: u64,
    },
    DriftOutOfBounds {
        drift_percent: u32,
    },
}

impl ChangeRefusal {
    /// May the same change be taken later, though nobody has changed anything meanwhile but time?
    pub fn passes(&self) -> bool {
        match self {
            ChangeRefusal::NotLeading { .. }
            | ChangeRefusal::UnderWay
            | ChangeRefusal::HandingOver { .. }
            | ChangeRefusal::Unreachable(_)
            | ChangeRefusal::NotCaughtUp { .. }
            | ChangeRefusal::CannotDo { newest: None, .. }
            | ChangeRefusal::CouldNotAnswer { .. } => true,
            ChangeRefusal::NotAMember(_)
            | ChangeRefusal::AlreadyAMember(_)
            | ChangeRefusal::AlreadyAVoter(_)
            | ChangeRefusal::NotAVoter(_)
            | ChangeRefusal::IdUsedBefore(_)
            | ChangeRefusal::Taken { .. }
            | ChangeRefusal::NoVoterLeft
            | ChangeRefusal::TooManyVoters { .. }
            | ChangeRefusal::NothingToChange
            | ChangeRefusal::StoreVersionLowered { .. }
            | ChangeRefusal::CannotDo { newest: Some(_), .. }
            | ChangeRefusal::LeaseOutOfBounds { .. }
            | ChangeRefusal::DriftOutOfBounds { .. } => false,
        }
    }
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
            ChangeRefusal::NothingToChange => write!(f, "these rules rule already"),
            ChangeRefusal::StoreVersionLowered { ruling, asked } => write!(
                f,
                "store version {ruling} rules, and is never lowered to {asked}: what was applied by \
                 the newer one cannot be applied by the older one again"
            ),
            ChangeRefusal::CannotDo { node, newest: Some(newest), store_version } => write!(
                f,
                "{node} can do store versions up to {newest}, not {store_version}: install a newer \
                 release there first"
            ),
            ChangeRefusal::CannotDo { node, newest: None, store_version } => write!(
                f,
                "{node} has not said that it can do store version {store_version}: see that it runs, \
                 is connected, and is of a release that says"
            ),
            ChangeRefusal::LeaseOutOfBounds { lease_us, least_us, most_us } => write!(
                f,
                "a lease of {} ms does not go with the timing of this node's file, which allows {} to \
                 {} ms (twice heartbeat_ms, and more by a larger drift; half of phase1_ms, and \
                 silence_ms): change those on all nodes first",
                lease_us / 1_000,
                least_us.div_ceil(1_000),
                most_us / 1_000
            ),
            ChangeRefusal::DriftOutOfBounds { drift_percent } => write!(
                f,
                "a drift of {drift_percent} % makes no sense: 1 to {} % (clocks that NTP corrects \
                 need {})",
                LeaseTerms::DRIFT_PERCENT_MAX,
                LeaseTerms::DRIFT_PERCENT_DEFAULT
            ),
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
            Change::Add { node, member, in_place_of, store_version } => {
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
                self.check_can_do(*node, *store_version)?;
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
            Change::Rules(rules) => next.rule(*rules)?,
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

    /// Can `node`, whose newest store version is `newest`, do the one that rules? A program that says
    /// nothing is of a release that knew only the first one.
    pub(crate) fn check_can_do(
        &self,
        node: NodeId,
        newest: Option<u32>,
    ) -> Result<(), ChangeRefusal> {
        let store_version = self.store_version;
        if newest.unwrap_or(1) < store_version {
            return Err(ChangeRefusal::CannotDo { node, newest, store_version });
        }
        Ok(())
    }

    fn rule(&mut self, rules: Rules) -> Result<(), ChangeRefusal> {
        if let Some(terms) = &mut self.lease_terms {
            terms.lease_us = rules.lease_us.unwrap_or(terms.lease_us);
            terms.drift_percent = rules.drift_percent.unwrap_or(terms.drift_percent);
            if !(1..=LeaseTerms::DRIFT_PERCENT_MAX).contains(&terms.drift_percent) {
                let drift_percent = terms.drift_percent;
                return Err(ChangeRefusal::DriftOutOfBounds { drift_percent });
            }
        }
        if let Some(asked) = rules.store_version {
            let ruling = self.store_version;
            if asked < ruling && !mutant!(StoreVersionLowered) {
                return Err(ChangeRefusal::StoreVersionLowered { ruling, asked });
            }
            self.store_version = asked;
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
