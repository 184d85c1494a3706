//! From samples of all nodes, taken at one instant, to the one line that an operator reads first:
//! is it fine, and how many more failures can it take? Pure functions of the samples.
//!
//! *Conservative where it counts.* Headroom counts only voters that were read and found sound: able
//! to accept, in contact with the leader, caught up. A voter that this machine cannot read, while
//! the leader says that it is connected, keeps the cluster available but adds no headroom.
//!
//! *Lag is never an artefact of sampling.* A follower that is ahead of the leader's sample has lag
//! 0; behind, the smaller of the two views counts, the follower's own slot and the leader's book of
//! acknowledgements, since each can only overstate.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::reading::{Failure, Sample, Target, Via};
use crate::status::{
    Ballot, Configuration, Member, MemberRole, NodeStatus, Peer, ReadyWithin, Role, SCHEMA_VERSION,
};

/// What the inventory says beyond the targets themselves.
#[derive(Clone, Debug, Default)]
pub struct Expectations {
    pub cluster: String,
    /// A node further behind does not count as caught up (`guard.max_lag_slots`); 0 for 1 000.
    pub max_lag_slots: u64,
    /// Version that every node should run, if one is known.
    pub version: Option<String>,
    /// Ids of the hosts that should vote; empty where that is not known.
    pub voters: BTreeSet<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Healthy,
    /// Serves, but not with full redundancy.
    Degraded,
    /// No leader that a quorum follows.
    Unavailable,
    /// Two nodes contradict each other: a safety violation.
    Divergent,
}

/// All that `paxosctl status` shows, and its JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    pub schema_version: u32,
    pub cluster: String,
    pub verdict: Verdict,
    /// Nodes that were read, of all targets.
    pub up: usize,
    pub total: usize,
    /// Voters that may still fail before the quorum is lost.
    pub headroom: usize,
    pub voters: usize,
    pub leader: Option<Leader>,
    /// The most that any node has seen since it started.
    pub leader_changes: u64,
    #[serde(with = "crate::status::string")]
    pub chosen_slot: u64,
    /// Some nodes could not be read: figures are of the others.
    pub partial: bool,
    pub insecure: Vec<String>,
    pub rows: Vec<Row>,
    pub hints: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    pub id: u32,
    pub name: String,
    pub ballot: Ballot,
    pub for_ms: u64,
}

/// One node, in inventory order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub node: String,
    pub id: u32,
    pub host: String,
    pub state: State,
    /// Why the node is down, strange or not sound.
    pub reason: Option<String>,
    pub ballot: Option<Ballot>,
    pub chosen_slot: Option<String>,
    pub applied_slot: Option<String>,
    pub lag_slots: Option<u64>,
    pub lag_ms: Option<u64>,
    /// From the leader, as the leader measures it.
    pub rtt_us: Option<u64>,
    pub sync_p99_us: Option<u64>,
    pub disk_used_percent: Option<u64>,
    pub version: Option<String>,
    /// Runs another version than it should, or than the others.
    pub version_drift: bool,
    pub via: Option<Via>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Leader,
    Follower,
    Candidate,
    Learner,
    /// No member of the newest configuration, whether it answers or not.
    Outsider,
    /// Still reads its journal.
    Recovering,
    /// Not readable from here, yet connected to others.
    Unread,
    /// Not readable, and not connected either.
    Down,
    /// Something answers in its place that is not this node.
    Strange,
}

impl Verdict {
    /// Exit code of `paxosctl status`.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Healthy => 0,
            Verdict::Degraded => 12,
            Verdict::Unavailable => 5,
            Verdict::Divergent => 6,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Degraded => "degraded",
            Verdict::Unavailable => "unavailable",
            Verdict::Divergent => "divergent",
        }
    }
}

/// Judges samples of one instant, given in inventory order.
pub fn judge(samples: &[Sample], expect: &Expectations) -> ClusterStatus {
    let samples = without_foreigners(samples, expect);
    let view = View::new(&samples, expect);
    let rows: Vec<Row> = samples.iter().map(|sample| view.row(sample)).collect();
    let contradictions = contradictions(&view.statuses);
    let leader = view.acknowledged_leader();
    // A learner that still catches up takes nothing from the voters' redundancy.
    let whole =
        |row: &Row| row.reason.is_none() || (row.via.is_some() && row.state == State::Learner);
    let voters = view.configuration.voters().count();
    let verdict = if !contradictions.is_empty() {
        Verdict::Divergent
    } else if leader.is_none() {
        Verdict::Unavailable
    } else if view.sound.len() < voters || !rows.iter().all(whole) {
        Verdict::Degraded
    } else {
        Verdict::Healthy
    };
    let headroom = match leader {
        Some(_) => view.sound.len().saturating_sub(view.quorum),
        None => 0,
    };
    let mut hints = contradictions;
    hints.extend(view.hints(&rows, verdict));
    // Nothing is expected of a host that is no member.
    let is_expected = |sample: &&Sample| sample.outcome.is_ok() || view.is_member(sample.target.id);
    let total = samples.iter().filter(is_expected).count();
    ClusterStatus {
        schema_version: SCHEMA_VERSION,
        cluster: expect.cluster.clone(),
        verdict,
        up: view.statuses.len(),
        total,
        headroom,
        voters,
        leader,
        leader_changes: view.statuses.iter().map(|status| status.leader_changes).max().unwrap_or(0),
        chosen_slot: view.statuses.iter().map(|status| status.chosen_slot).max().unwrap_or(0),
        partial: view.statuses.len() < total,
        insecure: insecure(&view.statuses),
        rows,
        hints,
    }
}

/// Nodes of another cluster that answer at one of our addresses are no nodes of ours.
fn without_foreigners(samples: &[Sample], expect: &Expectations) -> Vec<Sample> {
    let readings = samples.iter().filter_map(|sample| sample.outcome.as_ref().ok());
    let uuid = most_common(readings.map(|reading| reading.status.cluster_uuid.as_str()));
    let ours = |status: &NodeStatus| {
        let named_so = expect.cluster.is_empty() || status.cluster == expect.cluster;
        named_so && uuid.as_ref().is_none_or(|uuid| *uuid == status.cluster_uuid)
    };
    let mut samples = samples.to_vec();
    for sample in &mut samples {
        if let Ok(reading) = &sample.outcome
            && !ours(&reading.status)
        {
            let NodeStatus { cluster, cluster_uuid, .. } = &reading.status;
            let text =
                format!("{}: a node of cluster {cluster} ({cluster_uuid})", sample.target.http);
            sample.outcome = Err(Failure::Strange(text));
        }
    }
    samples
}

/// What the samples say together.
struct View<'a> {
    expect: &'a Expectations,
    /// Of the nodes that were read.
    statuses: Vec<&'a NodeStatus>,
    /// The newest that any of them knows.
    configuration: Configuration,
    /// The node that leads the highest ballot.
    leader: Option<&'a NodeStatus>,
    /// Voters that were read and could carry on.
    sound: BTreeSet<u32>,
    /// The smallest number of voters that can choose.
    quorum: usize,
    within: ReadyWithin,
    /// The version that nodes should run.
    version: Option<String>,
}

impl<'a> View<'a> {
    fn new(samples: &'a [Sample], expect: &'a Expectations) -> View<'a> {
        let readings = samples.iter().filter_map(|sample| sample.outcome.as_ref().ok());
        let statuses: Vec<&NodeStatus> = readings.map(|reading| &reading.status).collect();
        let newest = statuses.iter().max_by_key(|status| status.configuration.number);
        let leaders = statuses.iter().copied().filter(|status| status.role == Role::Leader);
        let leader = leaders.max_by_key(|status| status.ballot);
        let max_lag_slots = if expect.max_lag_slots == 0 { 1_000 } else { expect.max_lag_slots };
        let mut view = View {
            expect,
            configuration: newest.map(|status| status.configuration.clone()).unwrap_or_default(),
            leader,
            sound: BTreeSet::new(),
            quorum: 0,
            // Lag is judged by `unsound` against the leader's sample, not by the node itself.
            within: ReadyWithin { lag_slots_max: max_lag_slots, ..ReadyWithin::default() },
            version: expect
                .version
                .clone()
                .or_else(|| most_common(statuses.iter().map(|status| status.version.as_str()))),
            statuses,
        };
        view.quorum = view.configuration.voters().count() / 2 + 1;
        let voters = view.statuses.iter().filter(|status| view.configuration.is_voter(status.id));
        let sound = voters.filter(|status| view.unsound(status).is_none());
        view.sound = sound.map(|status| status.id).collect();
        view
    }

    /// Why this node does not count as redundancy, if so.
    fn unsound(&self, status: &NodeStatus) -> Option<String> {
        if let Err(reason) = status.readiness(self.within) {
            return Some(reason);
        }
        if let (Some(follows), Some(leader)) = (status.leader, self.leader)
            && follows != leader.id
        {
            let [follows, leader] = [follows, leader.id].map(|id| self.configuration.name_of(id));
            return Some(format!("follows {follows} while {leader} leads"));
        }
        let (lag_slots, _) = self.lag(status)?;
        (lag_slots > self.within.lag_slots_max)
            .then(|| format!("{lag_slots} slots behind (at most {})", self.within.lag_slots_max))
    }

    /// The leader that a quorum can be seen to follow: as far as the voters were read, or by the
    /// leader's own word about its links, or, when it cannot be read itself, by its followers'.
    fn acknowledged_leader(&self) -> Option<Leader> {
        let Some(leader) = self.leader else { return self.unread_leader() };
        let followed = self.sound.contains(&leader.id) && self.sound.len() >= self.quorum;
        let connected = |peer: &&Peer| peer.connected && self.configuration.is_voter(peer.id);
        let reached = 1 + leader.peers.iter().filter(connected).count();
        let says_so = leader.readiness(self.within).is_ok() && reached >= self.quorum;
        (followed || says_so).then(|| self.describe(leader.id, leader))
    }

    fn unread_leader(&self) -> Option<Leader> {
        let mut followers: BTreeMap<u32, Vec<&NodeStatus>> = BTreeMap::new();
        for status in self.statuses.iter().filter(|status| self.sound.contains(&status.id)) {
            followers.entry(status.leader?).or_default().push(status);
        }
        let (id, followers) = followers.into_iter().max_by_key(|(_, followers)| followers.len())?;
        let read = self.statuses.iter().any(|status| status.id == id);
        let follower = followers.iter().max_by_key(|status| status.ballot)?;
        (!read && followers.len() + 1 >= self.quorum).then(|| self.describe(id, follower))
    }

    /// Slots and milliseconds behind the leader; `None` for the leader and without one.
    fn lag(&self, status: &NodeStatus) -> Option<(u64, u64)> {
        let leader = self.leader.filter(|leader| leader.id != status.id)?;
        let sampled = leader.chosen_slot.saturating_sub(status.chosen_slot);
        let booked = leader.peers.iter().find(|peer| peer.id == status.id && peer.connected);
        let lag_slots = booked.map_or(sampled, |peer| sampled.min(peer.lag_slots));
        let lag_ms = if lag_slots == 0 { 0 } else { booked.map_or(0, |peer| peer.lag_ms) };
        Some((lag_slots, lag_ms))
    }

    fn row(&self, sample: &Sample) -> Row {
        let Target { node, id, host, .. } = &sample.target;
        let link = self.link_to(*id);
        let empty = Row {
            node: node.clone(),
            id: *id,
            host: host.clone(),
            state: State::Down,
            reason: None,
            ballot: None,
            chosen_slot: None,
            applied_slot: None,
            lag_slots: None,
            lag_ms: None,
            rtt_us: self.leader.and(link).and_then(|peer| peer.rtt_us),
            sync_p99_us: None,
            disk_used_percent: None,
            version: None,
            version_drift: false,
            via: None,
        };
        match &sample.outcome {
            Err(Failure::Silent(_) | Failure::Refused(_)) if !self.is_member(*id) => {
                Row { state: State::Outsider, ..empty }
            }
            Err(failure) => {
                let state = match failure {
                    Failure::Strange(_) => State::Strange,
                    Failure::Recovering(_) => State::Recovering,
                    _ if link.is_some() => State::Unread,
                    _ => State::Down,
                };
                Row { state, reason: Some(failure.to_string()), ..empty }
            }
            Ok(reading) => {
                let status = &reading.status;
                let lag = self.lag(status);
                Row {
                    state: self.state(status),
                    reason: self.unsound(status),
                    ballot: Some(status.ballot),
                    chosen_slot: Some(status.chosen_slot.to_string()),
                    applied_slot: Some(status.applied_slot.to_string()),
                    lag_slots: lag.map(|(slots, _)| slots),
                    lag_ms: lag.map(|(_, ms)| ms),
                    sync_p99_us: status.sync_p99_us,
                    disk_used_percent: disk_used_percent(status),
                    version: Some(status.version.clone()),
                    version_drift: self.version.as_ref().is_some_and(|v| *v != status.version),
                    via: Some(reading.via),
                    ..empty
                }
            }
        }
    }

    /// A link to the node that is up: the leader's, or anyone's when the leader was not read.
    fn link_to(&self, id: u32) -> Option<&Peer> {
        let by = |status: &&'a NodeStatus| self.leader.is_none_or(|leader| leader.id == status.id);
        let mut links = self.statuses.iter().filter(|status| by(status)).flat_map(|s| &s.peers);
        links.find(|peer| peer.id == id && peer.connected)
    }

    /// As long as no node says who the members are, every host is taken for one.
    fn is_member(&self, id: u32) -> bool {
        let members = &self.configuration.members;
        members.is_empty() || members.iter().any(|member| member.id == id)
    }

    fn state(&self, status: &NodeStatus) -> State {
        match status.role {
            _ if !self.is_member(status.id) => State::Outsider,
            Role::Leader => State::Leader,
            Role::Follower => State::Follower,
            Role::Candidate => State::Candidate,
            Role::Learner => State::Learner,
        }
    }

    fn describe(&self, id: u32, told_by: &NodeStatus) -> Leader {
        Leader {
            id,
            name: self.configuration.name_of(id),
            ballot: told_by.ballot,
            for_ms: told_by.leader_for_ms.unwrap_or(0),
        }
    }

    /// What to do next, most pressing first.
    fn hints(&self, rows: &[Row], verdict: Verdict) -> Vec<String> {
        let mut hints = Vec::new();
        if verdict == Verdict::Unavailable {
            hints.push(if self.statuses.is_empty() {
                "no node answers: paxosctl logs, or paxosctl up".to_owned()
            } else {
                let voters = self.statuses.iter().filter(|s| self.configuration.is_voter(s.id));
                format!(
                    "{} of {} voters answer; {} are needed, and a leader",
                    voters.count(),
                    self.configuration.voters().count(),
                    self.quorum
                )
            });
        }
        for row in rows {
            let name = &row.node;
            match (&row.state, &row.reason) {
                (State::Down, Some(reason)) => {
                    hints.push(format!("{name} is down ({reason}): paxosctl logs -n {name}"));
                }
                (State::Unread, Some(reason)) => hints.push(format!(
                    "{name} cannot be read from here ({reason}), though other nodes reach it"
                )),
                (State::Recovering, Some(reason)) => hints.push(format!("{name}: {reason}")),
                (State::Strange, Some(reason)) => {
                    hints.push(format!("in place of {name}, something else: {reason}"));
                }
                (State::Outsider, _) if self.configuration.removed.contains(&row.id) => {
                    hints.push(format!(
                        "{name} (id {}) was removed from the cluster, and its id is never used \
                         again: delete its [[host]] from the inventory",
                        row.id
                    ));
                }
                (State::Outsider, _) => hints.push(format!(
                    "{name} is in the inventory, but no member: paxosctl member add {name}"
                )),
                (_, Some(reason)) => hints.push(format!("{name}: {reason}")),
                (_, None) => {}
            }
        }
        hints.extend(self.drift_hint(rows));
        hints.extend(self.raise_hints());
        hints.extend(self.membership_hints(rows));
        let leaders = self.statuses.iter().filter(|status| status.role == Role::Leader);
        let leaders: BTreeMap<Ballot, &str> =
            leaders.map(|status| (status.ballot, status.name.as_str())).collect();
        if leaders.len() > 1 {
            let leaders = leaders.iter().map(|(ballot, name)| format!("{name} ({ballot})"));
            hints.push(format!(
                "several nodes say that they lead: {}; the highest ballot counts, the others will \
                 notice",
                leaders.collect::<Vec<_>>().join(", ")
            ));
        }
        hints
    }

    fn drift_hint(&self, rows: &[Row]) -> Option<String> {
        let drifted: Vec<String> = rows
            .iter()
            .filter(|row| row.version_drift)
            .map(|row| format!("{} runs {}", row.node, row.version.as_deref().unwrap_or("?")))
            .collect();
        let should = match &self.expect.version {
            Some(version) => format!("the inventory says {version}"),
            None => format!("most run {}", self.version.as_deref().unwrap_or("?")),
        };
        (!drifted.is_empty()).then(|| format!("{}, {should}: paxosctl plan", drifted.join(", ")))
    }

    /// Members whose program cannot do what those of others can, or what rules: they could not follow
    /// a raise of the store's version. A node that does not say (0) knows the first version only.
    fn raise_hints(&self) -> Vec<String> {
        let members = || self.statuses.iter().filter(|status| self.is_member(status.id));
        let can_do = |status: &NodeStatus| status.store_version_newest.max(1);
        let newest = members().map(|status| can_do(status)).max().unwrap_or(1);
        let ruling = self.configuration.store_version;
        let behind = members().filter(|status| can_do(status) < newest.max(ruling));
        let hints = behind.map(|status| {
            let (name, own) = (&status.name, can_do(status));
            if own < ruling {
                format!(
                    "{name} can do store versions up to {own}, {ruling} rules: it applies nothing more; \
                     install the newer release there: paxosctl up"
                )
            } else {
                format!(
                    "{name} can do store versions up to {own}, others up to {newest}: it could not \
                     follow a raise, which waits for a newer release there: paxosctl up"
                )
            }
        });
        hints.collect()
    }

    fn membership_hints(&self, rows: &[Row]) -> Vec<String> {
        let known: BTreeSet<u32> = rows.iter().map(|row| row.id).collect();
        let mut hints = Vec::new();
        for Member { id, name, role, .. } in &self.configuration.members {
            let should_vote = self.expect.voters.contains(id);
            if !known.contains(id) {
                hints.push(format!(
                    "{name} (id {id}) is a member, but not in the inventory: write its [[host]] \
                     there, or paxosctl member remove {name}"
                ));
            } else if *role == MemberRole::Learner && should_vote {
                hints.push(format!(
                    "{name} is a learner, the inventory says voter: paxosctl member promote {name}"
                ));
            }
        }
        hints
    }
}

/// Statements of two nodes that cannot both be true. Each is a safety violation.
fn contradictions(statuses: &[&NodeStatus]) -> Vec<String> {
    let mut found = Vec::new();
    let mut hashes: BTreeMap<u64, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    let mut leaders: BTreeMap<Ballot, Vec<&str>> = BTreeMap::new();
    for status in statuses {
        for state in &status.state_hashes {
            let at_slot = hashes.entry(state.slot).or_default();
            at_slot.entry(state.hash.as_str()).or_default().push(&status.name);
        }
        if status.role == Role::Leader {
            leaders.entry(status.ballot).or_default().push(&status.name);
        }
    }
    // The first slot where they differ tells most; later ones only repeat it.
    if let Some((slot, differing)) = hashes.iter().find(|(_, hashes)| hashes.len() > 1) {
        let camps: Vec<String> = differing
            .iter()
            .map(|(hash, names)| format!("{} {}", names.join("+"), hash.get(..12).unwrap_or(hash)))
            .collect();
        found.push(format!(
            "DIVERGENCE: state hashes differ at slot {slot}: {}; stop writing, then: paxosctl \
             debug bundle",
            camps.join(", ")
        ));
    }
    for (ballot, names) in leaders.iter().filter(|(_, names)| names.len() > 1) {
        found.push(format!(
            "SAFETY: ballot {ballot} is led by {} at once; stop writing, then: paxosctl debug \
             bundle",
            names.join(" and ")
        ));
    }
    found
}

/// Ties go to the last one in order.
fn most_common<'a>(texts: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for text in texts.filter(|text| !text.is_empty()) {
        *counts.entry(text).or_default() += 1;
    }
    let (text, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    Some(text.to_owned())
}

fn insecure(statuses: &[&NodeStatus]) -> Vec<String> {
    let words: BTreeSet<&String> = statuses.iter().flat_map(|status| &status.insecure).collect();
    words.into_iter().cloned().collect()
}

fn disk_used_percent(status: &NodeStatus) -> Option<u64> {
    let used = status.disk_total_bytes.checked_sub(status.disk_free_bytes)?;
    (used.saturating_mul(100)).checked_div(status.disk_total_bytes)
}
