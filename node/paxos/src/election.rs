//! Who should lead: a strategy, fed by heartbeats alone. It never touches safety; two leaders at
//! once are slow, not wrong.
//!
//! `Ballot` (default) follows *Omni-Paxos* (EuroSys '23) in its two ideas: a leader must be
//! *quorum-connected*, both ways, and who is content with a leader says so. A node takes over only
//! if it is quorum-connected and nobody whom it reaches is happy with a leader. That keeps a group
//! live under the three partial partitions (quorum loss, constrained election, chained), and a
//! returning node cannot disturb a healthy leader. Nodes that cannot accept (full or hung disk)
//! count as unreachable: grey failure (PITFALLS 103).
//!
//! `HighestId` is the lecture's rule: who hears no higher id for two heartbeat intervals leads, nor of
//! one that others follow. Here too only those count that reach a quorum both ways: a higher id that
//! cannot choose would keep those from leading who can, and disturb them for ever.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use crate::ballot::{Ballot, NodeId, Slot};
use crate::configuration::Configuration;
use crate::lease::HASHED_MAX;
use crate::message::Heartbeat;
use crate::output::Deposed;
use crate::settings::{ElectionStrategy, Settings};

/// What this node knows of one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) heartbeat: Heartbeat,
    /// When that heartbeat arrived; `None` before the first, and for a leader whose connection closed.
    received_us: Option<u64>,
    /// When the newest own heartbeat that the peer has echoed was sent.
    echoed_us: Option<u64>,
    pub(crate) round_trip_us: Option<u64>,
    /// Everything below is known chosen by the peer.
    pub(crate) first_unchosen: Slot,
    /// A `Chosen` is on its way: slots below, sent then.
    pub(crate) sent_chosen: Option<(Slot, u64)>,
    /// When a snapshot was last asked for on the peer's behalf.
    pub(crate) snapshot_us: Option<u64>,
}

impl Peer {
    /// Would it grant a lease? One that was never heard might.
    pub(crate) fn takes_part_in_leases(&self) -> bool {
        self.heartbeat.sequence == 0 || self.heartbeat.lease_us > 0
    }
}

/// The leader that this node follows.
#[derive(Clone, Copy, Debug)]
struct Followed {
    node: NodeId,
    ballot: Ballot,
    heard_us: u64,
    can_choose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Following,
    Preparing,
    Leading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Stay,
    TakeOver,
    /// It cannot accept itself, but the others can: one of them is to go on without a pause.
    HandOver,
    StepDown(Deposed),
}

#[derive(Clone, Debug)]
pub(crate) struct Election {
    settings: Settings,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    followed: Option<Followed>,
    pub(crate) can_accept: bool,
    sequence: u64,
    /// When the newest own heartbeats were sent.
    sent: VecDeque<(u64, u64)>,
    next_heartbeat_us: u64,
    started_us: u64,
    last_tick_us: u64,
    /// Since when everything has spoken for taking over.
    eligible_since_us: Option<u64>,
    /// No candidacy before: the own one has failed.
    deferred_until_us: u64,
    /// Nor before this: another's is under way, in a ballot that this node has promised. Over as
    /// soon as that ballot leads.
    candidate_until_us: u64,
    /// That ballot; zero where it is not known yet.
    candidate: Ballot,
    /// Failed attempts at phase 1 in a row.
    attempts: u32,
    quorum_connected_us: u64,
    /// When this node last became leader.
    elected_us: Option<u64>,
    /// The highest ballot known to have led, here or elsewhere.
    led: Ballot,
    /// When leaders were elected, as far as this node knows: itself and others.
    elections_us: VecDeque<u64>,
    jitter_us: u64,
    random: u64,
}

const SENT_MAX: usize = 128;
const MINUTE_US: u64 = 60_000_000;

impl Election {
    pub(crate) fn new(settings: &Settings, now_us: u64) -> Election {
        let mut election = Election {
            settings: settings.clone(),
            peers: BTreeMap::new(),
            followed: None,
            can_accept: true,
            sequence: 0,
            sent: VecDeque::new(),
            next_heartbeat_us: now_us,
            started_us: now_us,
            last_tick_us: now_us,
            eligible_since_us: None,
            deferred_until_us: now_us,
            candidate_until_us: now_us,
            candidate: Ballot::ZERO,
            attempts: 0,
            quorum_connected_us: now_us,
            elected_us: None,
            led: Ballot::ZERO,
            elections_us: VecDeque::new(),
            jitter_us: 0,
            random: settings.seed,
        };
        election.jitter_us = election.draw(settings.timing.silence_jitter_us);
        election
    }

    /// Is a heartbeat due? Then notes the next one.
    pub(crate) fn heartbeat_due(&mut self, now_us: u64) -> bool {
        let due = now_us >= self.next_heartbeat_us;
        if due {
            self.next_heartbeat_us = now_us + self.settings.timing.heartbeat_us;
        }
        due
    }

    /// The number of the heartbeat that is sent now.
    pub(crate) fn next_sequence(&mut self, now_us: u64) -> u64 {
        self.sequence += 1;
        self.sent.push_back((self.sequence, now_us));
        if self.sent.len() > SENT_MAX {
            self.sent.pop_front();
        }
        self.sequence
    }

    /// When the own heartbeat of that number was sent; `None` when that is too long ago.
    pub(crate) fn sent_us(&self, sequence: u64) -> Option<u64> {
        let index = self.sent.binary_search_by_key(&sequence, |(sequence, _)| *sequence).ok()?;
        Some(self.sent[index].1)
    }

    /// How long ago the latest heartbeats were sent, as far as a lease of `longest_us` may rest on
    /// them.
    pub(crate) fn hash_sent<H: Hasher>(&self, now_us: u64, longest_us: u64, hasher: &mut H) {
        let latest = self.sent.iter().rev().take(HASHED_MAX as usize);
        latest.for_each(|(_, at)| now_us.saturating_sub(*at).min(longest_us).hash(hasher));
    }

    pub(crate) fn hash_in_full<H: Hasher>(&self, hasher: &mut H) {
        self.followed.map(|f| (f.ballot, f.heard_us, f.can_choose)).hash(hasher);
        (&self.sent, self.last_tick_us).hash(hasher);
    }

    pub(crate) fn last_sequence(&self) -> u64 {
        self.sequence
    }

    /// What to echo to `peer`: its newest heartbeat and how long ago that arrived.
    pub(crate) fn echo_to(&self, peer: NodeId, now_us: u64) -> (u64, u64) {
        match self.peers.get(&peer) {
            Some(Peer { heartbeat, received_us: Some(received_us), .. }) => {
                (heartbeat.sequence, now_us.saturating_sub(*received_us))
            }
            _ => (0, 0),
        }
    }

    pub(crate) fn on_heartbeat(&mut self, from: NodeId, heartbeat: Heartbeat, now_us: u64) {
        let echoed_us = self.sent_us(heartbeat.echo);
        let peer = self.peers.entry(from).or_default();
        if let Some(echoed_us) = echoed_us {
            peer.echoed_us = peer.echoed_us.max(Some(echoed_us));
            let there_and_back = now_us.saturating_sub(echoed_us);
            peer.round_trip_us = Some(there_and_back.saturating_sub(heartbeat.echo_age_us));
        }
        peer.received_us = Some(now_us);
        peer.first_unchosen = heartbeat.first_unchosen;
        match heartbeat.leading {
            Some(ballot) => {
                let can_choose = heartbeat.quorum_connected;
                let newer = self.followed.is_none_or(|followed| ballot >= followed.ballot);
                if newer {
                    self.note_election(ballot, now_us);
                    self.somebody_leads(ballot, now_us);
                    self.followed =
                        Some(Followed { node: from, ballot, heard_us: now_us, can_choose });
                }
            }
            // The one whom we follow no longer leads.
            None => self.followed = self.followed.filter(|followed| followed.node != from),
        }
        self.peers.entry(from).or_default().heartbeat = heartbeat;
    }

    /// Any message of a ballot's phase 2 is a sign of life of its leader.
    pub(crate) fn on_leader_message(&mut self, ballot: Ballot, now_us: u64) {
        match &mut self.followed {
            Some(followed) if ballot < followed.ballot => {}
            Some(followed) if ballot == followed.ballot => followed.heard_us = now_us,
            _ => {
                self.note_election(ballot, now_us);
                self.somebody_leads(ballot, now_us);
                self.followed = Some(Followed {
                    node: ballot.node,
                    ballot,
                    heard_us: now_us,
                    can_choose: true,
                });
            }
        }
    }

    /// This node has promised another's `ballot`: let that candidate finish its phase 1 first.
    pub(crate) fn on_promised_other(&mut self, ballot: Ballot, now_us: u64) {
        self.followed = self.followed.filter(|followed| followed.ballot >= ballot);
        self.candidate_until_us = now_us + self.settings.timing.phase1_us;
        self.candidate = ballot;
    }

    /// No more patience with a candidate that leads. But what the leader before it has said comes
    /// late from time to time: that says nothing of the candidate.
    fn somebody_leads(&mut self, ballot: Ballot, now_us: u64) {
        if ballot >= self.candidate {
            self.candidate_until_us = now_us;
        }
    }

    /// A newer configuration rules: whoever led under the older one leads no more. If there was a
    /// leader (`led`), it goes on in the new configuration, or names another if it has no place there:
    /// that is given the time it needs.
    pub(crate) fn on_configuration(&mut self, members: &BTreeSet<NodeId>, led: bool, now_us: u64) {
        self.peers.retain(|node, _| members.contains(node));
        self.followed = None;
        if led {
            self.candidate = Ballot::ZERO;
            self.candidate_until_us = now_us + self.settings.timing.phase1_us;
        }
    }

    /// The connection to `peer` has closed. If it was the leader, it counts as gone until it is
    /// heard again. Anybody else is given the usual time: one link that flaps must not cost a
    /// leader its quorum. True when it was the leader.
    pub(crate) fn on_disconnected(&mut self, peer: NodeId) -> bool {
        let was_leader = self.followed.is_some_and(|followed| followed.node == peer);
        // By the highest-id rule silence alone counts: two heartbeats, which is soon enough.
        let gone = was_leader && self.settings.election == ElectionStrategy::Ballot;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.sent_chosen = None;
            if gone {
                peer.received_us = None;
                peer.echoed_us = None;
            }
        }
        if gone {
            self.followed = None;
        }
        was_leader
    }

    pub(crate) fn on_elected(&mut self, ballot: Ballot, now_us: u64) {
        self.followed = None;
        self.attempts = 0;
        self.quorum_connected_us = now_us;
        self.elected_us = Some(now_us);
        self.note_election(ballot, now_us);
    }

    /// An own candidacy or reign has ended. Back off before the next, longer each time, by chance,
    /// so that two proposers do not keep each other from ever leading (PITFALLS 21).
    pub(crate) fn on_deposed(&mut self, reason: Deposed, now_us: u64) {
        let timing = self.settings.timing;
        self.eligible_since_us = None;
        match reason {
            // It could not choose: give the others time to take over.
            Deposed::LostQuorum => self.defer(now_us, 2 * timing.silence_us),
            Deposed::OwnPromise
            | Deposed::HigherId
            | Deposed::NewConfiguration
            | Deposed::HandedOver => {}
            Deposed::Nacked | Deposed::Outvoted | Deposed::GaveUp => {
                let longest =
                    (timing.takeover_rank_us << self.attempts.min(10)).min(timing.phase1_us);
                self.attempts += 1;
                let delay_us = self.draw(longest);
                self.defer(now_us, delay_us);
            }
        }
    }

    /// This node has handed over: it leaves the next one time until then.
    pub(crate) fn wait_for_successor(&mut self, until_us: u64) {
        self.deferred_until_us = self.deferred_until_us.max(until_us);
    }

    /// How long the next attempt at phase 1 may take.
    pub(crate) fn phase1_us(&self) -> u64 {
        let timing = self.settings.timing;
        (timing.phase1_us << self.attempts.min(10)).min(timing.phase1_us_max)
    }

    /// `ballot` leads. If that is news, somebody was elected: no matter who, since it is the whole
    /// group that has no leader as long as they replace each other. A leader that goes on in its new
    /// configuration was never in doubt.
    fn note_election(&mut self, ballot: Ballot, now_us: u64) {
        if ballot <= self.led {
            return;
        }
        let former = std::mem::replace(&mut self.led, ballot);
        let goes_on = former.node == ballot.node && former.configuration < ballot.configuration;
        let elsewhere = ballot.node != self.settings.id && mutant!(ElectionsOfOthersForgotten);
        if goes_on || elsewhere {
            return;
        }
        self.elections_us.push_back(now_us);
        while self.elections_us.front().is_some_and(|at| now_us.saturating_sub(*at) > MINUTE_US) {
            self.elections_us.pop_front();
        }
        self.jitter_us = self.draw(self.settings.timing.silence_jitter_us);
    }

    /// The leader that this node follows and is content with.
    pub(crate) fn happy_with(&self, now_us: u64) -> Option<NodeId> {
        let followed = self.followed?;
        let silent_us = now_us.saturating_sub(followed.heard_us);
        let content = match self.settings.election {
            ElectionStrategy::Ballot => followed.can_choose && silent_us < self.silence_us(now_us),
            ElectionStrategy::HighestId => silent_us < 2 * self.settings.timing.heartbeat_us,
        };
        content.then_some(followed.node)
    }

    pub(crate) fn leader_silence_us(&self, now_us: u64) -> u64 {
        self.followed.map_or(0, |followed| now_us.saturating_sub(followed.heard_us))
    }

    /// The leader of the newest ballot heard of, content with it or not.
    pub(crate) fn followed(&self) -> Option<(NodeId, Ballot)> {
        self.followed.map(|followed| (followed.node, followed.ballot))
    }

    /// Peers heard lately that have heard this node lately.
    pub(crate) fn connected(&self, now_us: u64) -> impl Iterator<Item = (NodeId, &Peer)> + '_ {
        let reach_us = self.settings.timing.silence_us;
        let recent = move |at: Option<u64>, span_us: u64| {
            at.is_some_and(|at| now_us.saturating_sub(at) < span_us)
        };
        self.peers
            .iter()
            .filter(move |(_, peer)| {
                recent(peer.received_us, reach_us) && recent(peer.echoed_us, 2 * reach_us)
            })
            .map(|(node, peer)| (*node, peer))
    }

    /// Does this node reach, both ways, a quorum of voters that can accept?
    pub(crate) fn is_quorum_connected(&self, now_us: u64, configuration: &Configuration) -> bool {
        let own = self.settings.id;
        let own_vote = usize::from(configuration.is_voter(own) && self.can_accept);
        let others = self
            .connected(now_us)
            .filter(|(node, peer)| {
                let is_able = peer.heartbeat.can_accept || mutant!(GreyCounts);
                configuration.is_voter(*node) && is_able
            })
            .count();
        own_vote + others >= configuration.quorum_size()
    }

    /// Does a leader reach a quorum? A quorum of promises proves it for a while, before the echoes
    /// of the first heartbeats are back: followers that doubted a leader in its first instant would
    /// take over from it at once.
    pub(crate) fn leader_reaches_quorum(&self, now_us: u64, configuration: &Configuration) -> bool {
        let is_fresh = self
            .elected_us
            .is_some_and(|at| now_us.saturating_sub(at) < self.settings.timing.silence_us);
        is_fresh || self.is_quorum_connected(now_us, configuration)
    }

    /// A call has come. A node that was itself paused must not take that for the others' silence
    /// (PITFALLS 104): it moves all it remembers forward by its own lateness.
    /// Returns that lateness; 0 when the last tick was not too long ago, or it is noticed already.
    pub(crate) fn notice_lateness(&mut self, now_us: u64) -> u64 {
        let late_us = now_us.saturating_sub(self.last_tick_us);
        if late_us <= self.settings.timing.heartbeat_us || mutant!(LagNotSubtracted) {
            return 0;
        }
        self.last_tick_us = now_us;
        let forward = |at: u64| (at + late_us).min(now_us);
        for peer in self.peers.values_mut() {
            peer.received_us = peer.received_us.map(forward);
            peer.echoed_us = peer.echoed_us.map(forward);
        }
        if let Some(followed) = &mut self.followed {
            followed.heard_us = forward(followed.heard_us);
        }
        self.quorum_connected_us = forward(self.quorum_connected_us);
        self.eligible_since_us = None;
        late_us
    }

    pub(crate) fn on_tick(&mut self, now_us: u64) {
        self.last_tick_us = now_us;
    }

    /// What this node should do now. `stalled` says that it leads and has chosen nothing of what is
    /// pending for too long; `bound` that its acceptor has granted a lease to somebody else, so that
    /// it could not begin a ballot yet.
    pub(crate) fn decide(
        &mut self,
        now_us: u64,
        configuration: &Configuration,
        standing: Standing,
        stalled: bool,
        bound: bool,
    ) -> Decision {
        if !configuration.is_voter(self.settings.id) && !mutant!(RemovedMayCampaign) {
            return match standing {
                Standing::Following => Decision::Stay,
                _ => Decision::StepDown(Deposed::NewConfiguration),
            };
        }
        match self.settings.election {
            ElectionStrategy::Ballot => {
                self.decide_by_ballot(now_us, configuration, standing, stalled, bound)
            }
            ElectionStrategy::HighestId => self.decide_by_id(now_us, configuration, standing),
        }
    }

    fn decide_by_ballot(
        &mut self,
        now_us: u64,
        configuration: &Configuration,
        standing: Standing,
        stalled: bool,
        bound: bool,
    ) -> Decision {
        let quorum_connected = self.is_quorum_connected(now_us, configuration);
        if quorum_connected {
            self.quorum_connected_us = now_us;
        }
        match standing {
            Standing::Leading => {
                let cut_off_us = now_us.saturating_sub(self.quorum_connected_us);
                if stalled || cut_off_us >= self.settings.timing.silence_us {
                    return Decision::StepDown(Deposed::LostQuorum);
                }
                match self.is_in_the_way(configuration) {
                    true => Decision::HandOver,
                    false => Decision::Stay,
                }
            }
            Standing::Preparing => Decision::Stay,
            Standing::Following => {
                let is_unhappy = |(_, peer): (NodeId, &Peer)| peer.heartbeat.happy_with.is_none();
                let eligible = self.can_accept
                    && !bound
                    && quorum_connected
                    && now_us >= self.deferred_until_us.max(self.candidate_until_us)
                    && self.happy_with(now_us).is_none()
                    && (self.connected(now_us).all(is_unhappy) || mutant!(TakesOverFromTheHappy));
                if !eligible {
                    self.eligible_since_us = None;
                    return Decision::Stay;
                }
                let since_us = *self.eligible_since_us.get_or_insert(now_us);
                let delay_us =
                    self.settings.timing.takeover_rank_us * self.rank(now_us, configuration);
                if now_us.saturating_sub(since_us) < delay_us {
                    return Decision::Stay;
                }
                Decision::TakeOver
            }
        }
    }

    fn decide_by_id(
        &mut self,
        now_us: u64,
        configuration: &Configuration,
        standing: Standing,
    ) -> Decision {
        let patience_us = 2 * self.settings.timing.heartbeat_us;
        let alone = configuration.voters().count() == 1;
        let reaches_quorum = alone || self.is_quorum_connected(now_us, configuration);
        if reaches_quorum {
            self.quorum_connected_us = now_us;
        }
        // Whoever cannot accept (full or hung disk, torn log) or reaches no quorum cannot lead: it
        // must not keep those from leading who can.
        let is_recent = |peer: &Peer| {
            peer.received_us.is_some_and(|at| now_us.saturating_sub(at) < patience_us)
        };
        let heard_lately = |peer: &Peer| {
            peer.heartbeat.can_accept
                && peer.heartbeat.quorum_connected
                // Nor one that has not learned yet that it is a voter.
                && peer.heartbeat.first_unchosen > configuration.slot
                && is_recent(peer)
        };
        // A learner never leads, however high its id.
        let is_higher = |node: NodeId| node > self.settings.id && configuration.is_voter(node);
        // Heard, or heard of: one that only this node does not hear would be disturbed for ever.
        let higher = self.peers.iter().any(|(node, peer)| {
            let follows_higher = peer.heartbeat.happy_with.is_some_and(is_higher);
            is_higher(*node) && heard_lately(peer) || follows_higher && is_recent(peer)
        });
        let waits_until_us = self.deferred_until_us.max(self.candidate_until_us);
        // As long again, until the others have been able to say that they reach a quorum.
        let just_started = now_us.saturating_sub(self.started_us) < 2 * patience_us;
        let cut_off_us = now_us.saturating_sub(self.quorum_connected_us);
        let is_cut_off =
            standing == Standing::Leading && cut_off_us >= self.settings.timing.silence_us;
        match standing {
            Standing::Following if higher || just_started || now_us < waits_until_us => {
                Decision::Stay
            }
            Standing::Following if reaches_quorum && (self.can_accept || alone) => {
                Decision::TakeOver
            }
            Standing::Following => Decision::Stay,
            _ if higher => Decision::StepDown(Deposed::HigherId),
            _ if is_cut_off || self.is_in_the_way(configuration) => {
                Decision::StepDown(Deposed::LostQuorum)
            }
            _ => Decision::Stay,
        }
    }

    /// Is its own disk full or hung, while others could go on without it?
    pub(crate) fn is_in_the_way(&self, configuration: &Configuration) -> bool {
        !self.can_accept && configuration.voters().count() > 1
    }

    /// This node's place among those who could take over: by priority, then by id, highest first.
    fn rank(&self, now_us: u64, configuration: &Configuration) -> u64 {
        let own = (self.settings.priority, self.settings.id);
        let better = self.connected(now_us).filter(|(node, peer)| {
            let heartbeat = &peer.heartbeat;
            configuration.is_voter(*node)
                && heartbeat.can_accept
                && heartbeat.quorum_connected
                && (heartbeat.priority, *node) > own
        });
        better.count() as u64
    }

    /// Silence after which a leader is suspected. Three elections within a minute double it, up to a
    /// second, until it is calm.
    fn silence_us(&self, now_us: u64) -> u64 {
        let recent = self.elections_us.iter().filter(|at| now_us.saturating_sub(**at) < MINUTE_US);
        let silence_us = self.settings.timing.silence_us;
        let base_us = if recent.count() >= 3 && !mutant!(SilenceNeverDoubles) {
            (2 * silence_us).min(1_000_000.max(silence_us))
        } else {
            silence_us
        };
        base_us + self.jitter_us
    }

    fn defer(&mut self, now_us: u64, delay_us: u64) {
        self.deferred_until_us = self.deferred_until_us.max(now_us + delay_us);
    }

    /// A number from 0 to `bound`, by chance (SplitMix64; seeded, so that a run can be repeated).
    fn draw(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % (bound + 1)
    }
}

#[cfg(test)]
mod tests;
