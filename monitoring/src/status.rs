//! What one node says of itself at `/status`: one JSON object, read by `paxosctl` and by people.
//! 64-bit numbers are strings in it, because JSON readers round large numbers.
//!
//! The node's core loop fills a [`NodeStatus`] several times a second; the pages and the gauges are
//! made from the newest one, so that they never contradict each other.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Raised when a field changes its meaning or goes away; new fields alone do not raise it.
pub const SCHEMA_VERSION: u32 = 1;

/// The whole page. Slots named `…_slot` are the last ones of their kind (0: none yet), so
/// `chosen_slot` is `first_unchosen` − 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub schema_version: u32,
    pub cluster: String,
    pub cluster_uuid: String,
    pub name: String,
    pub id: u32,
    pub version: String,
    pub git_sha: String,
    pub role: Role,
    /// The leader that this node knows, itself included.
    pub leader: Option<u32>,
    /// How long ago the leader was last heard; 0 on the leader itself.
    pub leader_contact_ms: Option<u64>,
    /// For how long this node has known this leader without a break.
    pub leader_for_ms: Option<u64>,
    /// As in `paxos_leader_changes_total`.
    #[serde(with = "string")]
    pub leader_changes: u64,
    /// Highest ballot promised; on the leader, the one that it leads.
    pub ballot: Ballot,
    pub configuration: Configuration,
    #[serde(with = "string")]
    pub first_unchosen: u64,
    #[serde(with = "string")]
    pub chosen_slot: u64,
    #[serde(with = "string")]
    pub applied_slot: u64,
    /// Highest slot that any node was heard to know chosen.
    #[serde(with = "string")]
    pub highest_known_slot: u64,
    #[serde(with = "string")]
    pub first_kept_slot: u64,
    #[serde(with = "string")]
    pub snapshot_slot: u64,
    /// Slots not known chosen that lie below a slot that is.
    #[serde(with = "string")]
    pub log_holes: u64,
    /// Batches of this node whose slot is not chosen yet.
    #[serde(with = "string")]
    pub proposals_pending: u64,
    /// For how long something has been pending while nothing was chosen; 0 when nothing is.
    pub stalled_ms: u64,
    /// Time left of the read lease that this node holds; 0 without one.
    pub lease_remaining_us: u64,
    pub peers: Vec<Peer>,
    /// Space left, and no group of appends unsynced for long: this node could accept now.
    pub can_accept: bool,
    /// Why not, in words.
    pub can_accept_reason: Option<String>,
    /// No other member can be reached and lets this node in: why, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alone: Option<String>,
    #[serde(with = "string")]
    pub journal_bytes: u64,
    #[serde(with = "string")]
    pub disk_free_bytes: u64,
    #[serde(with = "string")]
    pub disk_total_bytes: u64,
    /// 99th percentile of the last syncs of the journal.
    pub sync_p99_us: Option<u64>,
    /// Newest last: a few, so that nodes sampled at one instant have one slot in common.
    pub state_hashes: Vec<StateHash>,
    pub uptime_ms: u64,
    /// Every protection that is switched off, one word each.
    pub insecure: Vec<String>,
    /// The newest store version that this program can do.
    pub store_version_newest: u32,
    /// Where this node's file differs from the configuration, which rules, in words.
    pub file_differs: Vec<String>,
    /// Kinds of faults that are injected into this node on purpose, as in `paxos_chaos_active`.
    pub chaos: Vec<String>,
    /// Wall clock, milliseconds since 1970.
    pub time_ms: u64,
    /// How old all of this was when the page was read: more than a few hundred milliseconds means
    /// that the core loop does not turn. Set by the pages.
    pub age_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Leader,
    #[default]
    Follower,
    Candidate,
    Learner,
}

/// As in the protocol: compared by configuration, then round, then node.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Ballot {
    pub configuration: u32,
    #[serde(with = "string")]
    pub round: u64,
    pub node: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    pub number: u32,
    pub members: Vec<Member>,
    /// Ids of former members: never used again.
    #[serde(default)]
    pub removed: Vec<u32>,
    /// On the leader: a change waits, or is in flight.
    #[serde(default)]
    pub change_under_way: bool,
    /// L and ρ. Absent where no configuration has stated them: each node goes by its own file.
    #[serde(default)]
    pub lease_ms: Option<u64>,
    #[serde(default)]
    pub drift_percent: Option<u32>,
    /// Version of the store by which slots are applied.
    #[serde(default)]
    pub store_version: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: u32,
    pub name: String,
    pub role: MemberRole,
    /// host:port each.
    pub peer: String,
    pub client: String,
    pub http: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    Voter,
    Learner,
}

/// One link, as this node sees it. Lag is known to the leader only, 0 elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    pub id: u32,
    pub name: String,
    pub connected: bool,
    pub rtt_us: Option<u64>,
    /// Highest slot up to which the peer said that it knows all slots chosen.
    #[serde(with = "string")]
    pub acked_slot: u64,
    #[serde(with = "string")]
    pub lag_slots: u64,
    pub lag_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHash {
    #[serde(with = "string")]
    pub slot: u64,
    /// Lower-case hex, 32 digits.
    pub hash: String,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
        })
    }
}

/// Short form `7.2` (round.node), or `c3/7.2` outside configuration 0.
impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.configuration > 0 {
            write!(f, "c{}/", self.configuration)?;
        }
        write!(f, "{}.{}", self.round, self.node)
    }
}

impl Configuration {
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.role == MemberRole::Voter)
    }

    pub fn is_voter(&self, id: u32) -> bool {
        self.voters().any(|member| member.id == id)
    }

    /// The member's name, or `n<id>` for a node that this configuration lacks.
    pub fn name_of(&self, id: u32) -> String {
        self.members
            .iter()
            .find(|member| member.id == id && !member.name.is_empty())
            .map_or_else(|| format!("n{id}"), |member| member.name.clone())
    }
}

impl StateHash {
    /// What of the hash fits a metric, whose values are exact up to 53 bits.
    pub fn low48(&self) -> i64 {
        let tail = self.hash.get(self.hash.len().saturating_sub(12)..).unwrap_or_default();
        i64::from_str_radix(tail, 16).unwrap_or(0)
    }
}

/// The bounds between ready and not. A node that is not ready still takes part; only those who
/// choose where to send work should turn away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyWithin {
    pub age_ms_max: u64,
    pub contact_ms_max: u64,
    pub lag_slots_max: u64,
    pub stalled_ms_max: u64,
}

impl Default for ReadyWithin {
    fn default() -> Self {
        ReadyWithin {
            age_ms_max: 2_000,
            contact_ms_max: 1_000,
            lag_slots_max: 1_000,
            stalled_ms_max: 2_000,
        }
    }
}

impl NodeStatus {
    /// Whether work sent to this node now is likely to be done, or why it is not. A contact ages
    /// with its status.
    pub fn readiness(&self, within: ReadyWithin) -> Result<(), String> {
        if self.age_ms > within.age_ms_max {
            return Err(format!("the core loop has not turned for {} ms", self.age_ms));
        }
        let Some(leader) = self.leader else {
            return Err(format!(
                "no leader known ({} of {} peers connected)",
                self.peers.iter().filter(|peer| peer.connected).count(),
                self.peers.len()
            ));
        };
        let name = self.configuration.name_of(leader);
        let contact_ms = match self.role {
            Role::Leader => Some(0),
            _ => self.leader_contact_ms.map(|contact_ms| contact_ms + self.age_ms),
        };
        match contact_ms {
            None => return Err(format!("leader {name} was never heard")),
            Some(contact_ms) if contact_ms > within.contact_ms_max => {
                return Err(format!("leader {name} was last heard {contact_ms} ms ago"));
            }
            Some(_) => {}
        }
        let known_slot = self.highest_known_slot.max(self.chosen_slot);
        let behind = known_slot.saturating_sub(self.applied_slot);
        if behind > within.lag_slots_max {
            return Err(format!("{behind} slots behind (at most {})", within.lag_slots_max));
        }
        if !self.can_accept {
            let reason = self.can_accept_reason.as_deref().unwrap_or("no reason given");
            return Err(format!("cannot accept: {reason}"));
        }
        if self.stalled_ms > within.stalled_ms_max {
            return Err(format!(
                "nothing chosen for {} ms with {} proposals pending",
                self.stalled_ms, self.proposals_pending
            ));
        }
        Ok(())
    }
}

/// 64-bit numbers as strings; plain numbers are understood too.
pub(crate) mod string {
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` passes references")]
    pub(crate) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Number(u64),
        }
        match Either::deserialize(deserializer)? {
            Either::Text(text) => text.parse().map_err(de::Error::custom),
            Either::Number(number) => Ok(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> NodeStatus {
        NodeStatus {
            leader: Some(2),
            leader_contact_ms: Some(20),
            can_accept: true,
            chosen_slot: 100,
            applied_slot: 100,
            highest_known_slot: 100,
            peers: vec![Peer { id: 2, connected: true, ..Peer::default() }],
            ..NodeStatus::default()
        }
    }

    fn check(change: impl Fn(&mut NodeStatus), expect: Result<(), &str>) {
        let mut status = ready();
        change(&mut status);
        let expect = expect.map_err(str::to_owned);
        assert_eq!(status.readiness(ReadyWithin::default()), expect);
    }

    /// PITFALLS 50: green while nothing commits.
    #[test]
    fn readiness_turns_for_each_reason() {
        check(|_| {}, Ok(()));
        check(|s| s.leader = None, Err("no leader known (1 of 1 peers connected)"));
        check(|s| s.leader_contact_ms = None, Err("leader n2 was never heard"));
        check(|s| s.leader_contact_ms = Some(1_500), Err("leader n2 was last heard 1500 ms ago"));
        check(|s| s.highest_known_slot = 1_101, Err("1001 slots behind (at most 1000)"));
        check(|s| s.chosen_slot = 1_101, Err("1001 slots behind (at most 1000)"));
        check(|s| s.applied_slot = 105, Ok(()));
        check(
            |s| {
                s.can_accept = false;
                s.can_accept_reason = Some("disk full".into());
            },
            Err("cannot accept: disk full"),
        );
        check(
            |s| {
                s.stalled_ms = 2_500;
                s.proposals_pending = 3;
            },
            Err("nothing chosen for 2500 ms with 3 proposals pending"),
        );
    }

    #[test]
    fn a_contact_ages_with_its_status() {
        check(|s| s.age_ms = 900, Ok(()));
        check(|s| s.age_ms = 1_500, Err("leader n2 was last heard 1520 ms ago"));
        check(|s| s.age_ms = 2_500, Err("the core loop has not turned for 2500 ms"));
    }

    #[test]
    fn large_numbers_survive_json_as_strings() {
        let mut status = ready();
        status.chosen_slot = u64::MAX;
        status.ballot = Ballot { configuration: 1, round: u64::MAX - 1, node: 3 };
        status.state_hashes = vec![StateHash { slot: 1 << 60, hash: "00ff".into() }];
        let json = serde_json::to_string(&status).unwrap();
        assert!(json.contains("\"chosen_slot\":\"18446744073709551615\""), "{json}");
        assert!(json.contains("\"role\":\"follower\""), "{json}");
        assert_eq!(serde_json::from_str::<NodeStatus>(&json).unwrap(), status);
    }

    #[test]
    fn the_low48_of_a_hash_are_its_last_twelve_digits() {
        let hash = |hash: &str| StateHash { slot: 1, hash: hash.into() }.low48();
        assert_eq!(hash("ffffffffffffffffffff00000000000a"), 10);
        assert_eq!(hash("0000ffffffffffff"), (1 << 48) - 1);
        assert_eq!(hash("a"), 10);
    }

    #[test]
    fn an_older_or_newer_page_is_still_read() {
        let page = r#"{"schema_version":1,"name":"n1","chosen_slot":7,"a_field_of_tomorrow":true}"#;
        let status: NodeStatus = serde_json::from_str(page).unwrap();
        assert_eq!((status.name.as_str(), status.chosen_slot), ("n1", 7));
    }

    #[test]
    fn ballots_are_ordered_and_shown_as_in_the_protocol() {
        let ballot = |configuration, round, node| Ballot { configuration, round, node };
        assert!(ballot(1, 1, 1) > ballot(0, 9, 3));
        assert_eq!(ballot(0, 7, 2).to_string(), "7.2");
        assert_eq!(ballot(3, 7, 2).to_string(), "c3/7.2");
    }
}
