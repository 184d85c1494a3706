//! Leases: how a leader may serve reads from its own store, without asking anybody.
//!
//! A lease belongs to a ballot b. An acceptor whose durable promise is b answers a heartbeat of b
//! with a *grant*: for the next L by its own clock no other node's higher ballot gets past it
//! ([`Granter`]). The leader counts a quorum of such grants from the moment at which it *sent* the
//! heartbeat, and for less than L ([`Holder`]), so that its lease ends before the first granter is
//! free again, whatever the two clocks do to each other within the bound. Any higher ballot needs a
//! quorum of promises, and so one granter of every quorum; hence while the lease lasts, nothing is
//! chosen that this leader has not proposed (C. Gray & D. Cheriton, *Leases*, SOSP '89; DESIGN §3).
//!
//! Grants are never written down. After a start an acceptor behaves as if it had just granted the
//! longest lease that its former process may have granted, to the ballot that it has promised.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};

use crate::ballot::{Ballot, NodeId};
use crate::configuration::{Configuration, LeaseTerms};
use crate::message::{Message, Value};
use crate::settings::Limits;

/// Taken off besides, for the resolution of the clocks.
pub(crate) const MARGIN_US: u64 = 1_000;
/// A search looks at no older heartbeats than so many.
pub(crate) const HASHED_MAX: u64 = 2;

/// How long a holder may count on a grant of `length_us`, from the sending of the heartbeat.
pub(crate) fn counted_us(length_us: u64, drift_percent: u32) -> u64 {
    let drift_percent = match (mutant!(DriftNotSubtracted), mutant!(DriftOfOnePercent)) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => u64::from(drift_percent),
    };
    (length_us - length_us * drift_percent / 100).saturating_sub(MARGIN_US)
}

/// The acceptor's side.
///
/// Invariants:
/// - a grant is only ever given to the acceptor's own promise;
/// - the end of what was granted never comes nearer, but by the word of the one who was granted it.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Granter {
    granted: Option<Granted>,
    /// What has to wait for the end of the grant, in the order in which it arrived.
    queue: VecDeque<(NodeId, Message)>,
    queued_bytes: usize,
    /// This node's own candidacy waits with it.
    candidacy: bool,
}

#[derive(Clone, Copy, Debug, Hash)]
struct Granted {
    ballot: Ballot,
    until_us: u64,
}

impl Granter {
    /// As after a start: the former process may have granted up to `length_us` an instant ago.
    pub(crate) fn recovered(promised: Ballot, length_us: u64, now_us: u64) -> Granter {
        let nothing = promised == Ballot::ZERO || length_us == 0 || mutant!(RestartForgetsGrant);
        let granted = Granted { ballot: promised, until_us: now_us + length_us };
        Granter { granted: (!nothing).then_some(granted), ..Granter::default() }
    }

    /// Must `ballot` wait? One of the granted ballot's own node need not: whoever begins a higher
    /// ballot has ended its lease in the same step.
    pub(crate) fn binds(&self, ballot: Ballot, now_us: u64) -> bool {
        self.granted.is_some_and(|granted| {
            let is_exempt = ballot.node == granted.ballot.node || mutant!(ExemptsAnyNode);
            now_us < granted.until_us && ballot > granted.ballot && !is_exempt
        })
    }

    /// Grants `ballot` until then. A node that is content again forgets its own candidacy.
    pub(crate) fn grant(&mut self, ballot: Ballot, until_us: u64) {
        let former_us = self.granted.map_or(0, |granted| granted.until_us);
        self.granted = Some(Granted { ballot, until_us: until_us.max(former_us) });
        self.candidacy = false;
    }

    /// The leader of `ballot` has let go of it. Whole ballots are compared: a later one of the same
    /// node is not meant.
    pub(crate) fn release(&mut self, ballot: Ballot) {
        self.granted = self.granted.filter(|granted| {
            granted.ballot != ballot
                && !(mutant!(ReleasePassesEveryGrant) && granted.ballot.node == ballot.node)
        });
    }

    /// What binds this acceptor, and for how long from now on. A grant to the `last` ballot of all
    /// binds nobody.
    pub(crate) fn hash_at<H: Hasher>(&self, now_us: u64, last: Option<Ballot>, hasher: &mut H) {
        let binds = |granted: &Granted| granted.until_us > now_us && Some(granted.ballot) != last;
        let binding = self.granted.filter(binds);
        binding.map(|granted| (granted.ballot, granted.until_us - now_us)).hash(hasher);
        (&self.queue, self.candidacy).hash(hasher);
    }

    /// Keeps a message for later. What finds no room is dropped: its sender repeats it.
    pub(crate) fn queue(&mut self, from: NodeId, message: Message, limits: Limits) {
        if matches!(message, Message::Prepare { .. }) {
            let is_older = |(node, held): &(NodeId, Message)| {
                *node == from && matches!(held, Message::Prepare { .. })
            };
            self.queue.retain(|held| !is_older(held));
        }
        let bytes = value_bytes(&message);
        let has_room = self.queue.len() < 4 * limits.window_slots as usize
            && self.queued_bytes + bytes <= limits.window_bytes;
        if has_room {
            self.queued_bytes += bytes;
            self.queue.push_back((from, message));
        }
    }

    /// The next message that need not wait any more.
    pub(crate) fn take_free(&mut self, now_us: u64) -> Option<(NodeId, Message)> {
        let is_free = |(_, message): &(NodeId, Message)| !self.binds(ballot_of(message), now_us);
        let at = self.queue.iter().position(is_free)?;
        let (from, message) = self.queue.remove(at)?;
        self.queued_bytes -= value_bytes(&message);
        Some((from, message))
    }

    /// The own candidacy has to wait. False when it did so already.
    pub(crate) fn queue_candidacy(&mut self) -> bool {
        !std::mem::replace(&mut self.candidacy, true)
    }

    pub(crate) fn candidacy_waits(&self) -> bool {
        self.candidacy
    }

    pub(crate) fn take_candidacy(&mut self) -> bool {
        std::mem::take(&mut self.candidacy)
    }
}

fn value_bytes(message: &Message) -> usize {
    match message {
        Message::Accept { value, .. } => Value::len_bytes(value),
        _ => 0,
    }
}

/// The ballot for which a queued message asks.
fn ballot_of(message: &Message) -> Ballot {
    match message {
        Message::Prepare { ballot, .. }
        | Message::Accept { ballot, .. }
        | Message::Confirm { ballot, .. } => *ballot,
        _ => Ballot::ZERO,
    }
}

/// The leader's side: the grants to its ballot.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Holder {
    ballot: Ballot,
    /// Those of the configuration that `ballot` belongs to. Only their ρ counts here: each grant says
    /// itself how long it is.
    terms: LeaseTerms,
    grants: BTreeMap<NodeId, Grant>,
    /// The lease lasts until then, by the clock of this node; 0 before the first quorum.
    expires_us: u64,
    /// Since when there has been no quorum of grants, at least.
    without_since_us: u64,
}

/// The latest heartbeat that one acceptor has granted.
#[derive(Clone, Copy, Debug, Hash)]
struct Grant {
    sequence: u64,
    sent_us: u64,
    length_us: u64,
}

impl Holder {
    /// The holder of a ballot that has just been elected. It holds nothing yet, and for `patience_us`,
    /// another L, it is nobody's fault: granters outside its quorum may still be bound to a former
    /// leader.
    pub(crate) fn begin(
        &mut self,
        ballot: Ballot,
        terms: LeaseTerms,
        patience_us: u64,
        now_us: u64,
    ) {
        if mutant!(LeaseKeptWhenBallotBegun) {
            (self.ballot, self.terms) = (ballot, terms);
            return;
        }
        let without_since_us = now_us + patience_us;
        *self = Holder { ballot, terms, without_since_us, ..Holder::default() };
    }

    /// The ballot is over, and with it the lease: in this very step.
    pub(crate) fn end(&mut self) {
        if mutant!(LeaseKeptWhenBallotBegun) {
            return;
        }
        if mutant!(LeaseKeptAfterRelease) {
            return;
        }
        *self = Holder::default();
    }

    /// Does a grant to `ballot` count here?
    pub(crate) fn takes(&self, ballot: Ballot) -> bool {
        let is_of_this_node = mutant!(LeaseKeptWhenBallotBegun) && ballot.node == self.ballot.node;
        self.ballot == ballot || is_of_this_node
    }

    /// `from` has granted the heartbeat `sequence`, sent at `sent_us`, for `length_us`.
    pub(crate) fn on_grant(
        &mut self,
        from: NodeId,
        (sequence, sent_us): (u64, u64),
        length_us: u64,
        configuration: &Configuration,
    ) {
        let is_older = self.grants.get(&from).is_some_and(|held| sequence <= held.sequence);
        if is_older {
            return;
        }
        self.grants.insert(from, Grant { sequence, sent_us, length_us });
        self.expires_us = self.expires_us.max(self.quorum_expires_us(configuration));
    }

    /// Until when the grants of a whole quorum can be counted on.
    fn quorum_expires_us(&self, configuration: &Configuration) -> u64 {
        let newest_us = self.grants.values().map(|grant| grant.sent_us).max().unwrap_or(0);
        let voters = self
            .grants
            .iter()
            .filter(|(node, _)| configuration.is_voter(**node) || mutant!(LearnersGrantCounted));
        let mut ends: Vec<u64> = voters
            .map(|(_, grant)| {
                let sent_us = if mutant!(MixedGrants) { newest_us } else { grant.sent_us };
                let own = mutant!(GrantCountedByRulingLease);
                let length_us = if own { self.terms.lease_us } else { grant.length_us };
                sent_us + counted_us(length_us, self.terms.drift_percent)
            })
            .collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(configuration.quorum_size() - 1).copied().unwrap_or(0)
    }

    pub(crate) fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// The lease and the grants that it rests on, as they are worth from now on. A grant that is
    /// older than it is long counts for nothing any more, however much older: its age stops there.
    /// It stays in sight all the same, since a search that forgot it would not see a rule broken that
    /// lets it count again. How much older than the newest heartbeat it is decides nothing beyond
    /// those that a search looks at. For how long there has been no quorum is left out: a ballot that
    /// ends for it is one of which nothing arrives any more.
    pub(crate) fn hash_at<H: Hasher>(&self, now_us: u64, last_sequence: u64, hasher: &mut H) {
        (self.ballot, self.remaining_us(now_us)).hash(hasher);
        for (node, grant) in &self.grants {
            let age_us = now_us.saturating_sub(grant.sent_us).min(grant.length_us);
            let older = (last_sequence - grant.sequence).min(HASHED_MAX);
            (node, older, age_us, grant.length_us).hash(hasher);
        }
    }

    pub(crate) fn remaining_us(&self, now_us: u64) -> u64 {
        self.expires_us.saturating_sub(now_us)
    }

    /// For how long there has been no quorum of grants.
    pub(crate) fn without_us(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.without_since_us.max(self.expires_us))
    }

    /// No grants are asked for now, or this node was late itself: that is not the granters' doing.
    pub(crate) fn forgive(&mut self, late_us: u64, now_us: u64) {
        let since_us = self.without_since_us.max(self.expires_us);
        self.without_since_us = since_us.saturating_add(late_us).min(now_us.max(since_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::{Member, Role};

    const L: u64 = 100_000;
    const TERMS: LeaseTerms =
        LeaseTerms { lease_us: L, drift_percent: LeaseTerms::DRIFT_PERCENT_DEFAULT };

    fn ballot(round: u64, node: u32) -> Ballot {
        Ballot { configuration: 0, round, node: NodeId(node) }
    }

    fn three_voters() -> Configuration {
        let member = |id| (NodeId(id), Member { role: Role::Voter, ..Member::default() });
        Configuration { members: (1..=3).map(member).collect(), ..Configuration::default() }
    }

    #[test]
    fn a_fifth_and_a_millisecond_are_taken_off() {
        assert_eq!(counted_us(L, 20), 79_000);
        assert_eq!(counted_us(0, 20), 0);
        assert_eq!(counted_us(500, 20), 0);
    }

    /// Another configuration's ρ.
    #[test]
    fn a_larger_drift_takes_off_more() {
        assert_eq!(counted_us(L, 35), 64_000);
    }

    /// PITFALLS 105, by a change of L: whoever granted for longer is bound for longer.
    #[test]
    fn a_shorter_grant_does_not_shorten_the_one_before() {
        let mut granter = Granter::default();
        granter.grant(ballot(5, 1), L);
        granter.grant(ballot(7, 1), 10 + L / 2);
        assert!(granter.binds(ballot(8, 2), L - 1));
        assert!(!granter.binds(ballot(8, 2), L));
    }

    #[test]
    fn a_grant_binds_others_and_only_above_and_only_so_long() {
        let mut granter = Granter::default();
        granter.grant(ballot(5, 1), L);
        assert!(granter.binds(ballot(6, 2), L - 1));
        assert!(!granter.binds(ballot(6, 2), L), "its time is up");
        assert!(!granter.binds(ballot(6, 1), 0), "the node that was granted");
        assert!(!granter.binds(ballot(4, 2), 0), "a lower ballot is refused, not queued");
        granter.release(ballot(4, 1));
        assert!(granter.binds(ballot(6, 2), 0), "the release of another ballot");
        granter.release(ballot(5, 1));
        assert!(!granter.binds(ballot(6, 2), 0));
    }

    #[test]
    fn after_a_start_the_promise_counts_as_granted() {
        let granter = Granter::recovered(ballot(5, 1), L, 7);
        assert!(granter.binds(ballot(6, 2), L + 6));
        assert!(!granter.binds(ballot(6, 2), L + 7));
        assert!(!Granter::recovered(Ballot::ZERO, L, 7).binds(ballot(6, 2), 7));
    }

    #[test]
    fn what_is_queued_comes_out_in_order_and_in_bounds() {
        let mut granter = Granter::default();
        let limits = Limits { window_slots: 1, window_bytes: 10, chunk_bytes: 10 };
        granter.grant(ballot(5, 1), L);
        for round in 0..9 {
            let confirm = Message::Confirm { ballot: ballot(6, 2), round };
            granter.queue(NodeId(2), confirm, limits);
        }
        assert!(granter.take_free(L - 1).is_none());
        let rounds =
            std::iter::from_fn(|| granter.take_free(L)).map(|(_, message)| match message {
                Message::Confirm { round, .. } => round,
                other => panic!("{other:?} was never queued"),
            });
        assert_eq!(rounds.collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn the_lease_runs_from_the_newest_heartbeat_that_a_quorum_has_reached() {
        let configuration = three_voters();
        let mut holder = Holder::default();
        holder.begin(ballot(5, 1), TERMS, L, 0);
        holder.on_grant(NodeId(1), (7, 1_000), L, &configuration);
        assert_eq!(holder.remaining_us(1_000), 0, "one is no quorum of three");
        holder.on_grant(NodeId(3), (8, 2_000), L, &configuration);
        assert_eq!(holder.remaining_us(1_000), 79_000, "from the older of the two");
        holder.on_grant(NodeId(3), (6, 500), L, &configuration);
        assert_eq!(holder.remaining_us(1_000), 79_000, "a late grant takes nothing away");
        holder.on_grant(NodeId(9), (9, 3_000), L, &configuration);
        assert_eq!(holder.remaining_us(1_000), 79_000, "no voter of this configuration");
        holder.on_grant(NodeId(2), (9, 3_000), L, &configuration);
        assert_eq!(holder.remaining_us(1_000), 80_000);
        holder.end();
        assert_eq!(holder.remaining_us(1_000), 0);
    }

    #[test]
    fn a_shorter_grant_counts_for_as_long_as_it_was_given() {
        let configuration = three_voters();
        let mut holder = Holder::default();
        holder.begin(ballot(5, 1), TERMS, L, 0);
        holder.on_grant(NodeId(1), (1, 0), 6 * L, &configuration);
        holder.on_grant(NodeId(2), (1, 0), L, &configuration);
        assert_eq!(holder.remaining_us(0), 79_000);
    }
}
