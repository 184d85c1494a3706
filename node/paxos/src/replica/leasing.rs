//! Grants given, grants counted, and what a leader does that is outbid: the rules of `lease` at
//! work.

use super::Replica;
use crate::ballot::{Ballot, NodeId};
use crate::configuration::{Configuration, LeaseTerms};
use crate::message::Message;
use crate::output::{Deposed, Note, Output, Position};
use crate::proposer::Proposer;
use crate::settings::Now;

impl Replica {
    // ---- by what terms ------------------------------------------------------------------------

    /// L and ρ of the configuration that rules; of this node's file where it states none.
    pub fn lease_terms(&self) -> LeaseTerms {
        let own = self.settings.lease_terms;
        if mutant!(LeaseOfTheOwnFile) { own } else { self.configuration.lease_terms.unwrap_or(own) }
    }

    /// Does this node grant and hold leases?
    pub fn takes_part_in_leases(&self) -> bool {
        self.settings.has_leases()
    }

    /// The length of this node's grants; 0 if it takes no part in leases.
    pub(super) fn grant_us(&self) -> u64 {
        if self.settings.has_leases() { self.lease_terms().lease_us } else { 0 }
    }

    /// This node leads from now on. Granters may still be bound by the L of the configuration before.
    pub(super) fn begin_lease(&mut self, now: Now, ballot: Ballot) {
        let of = |former: &Configuration| former.lease_terms.unwrap_or(self.settings.lease_terms);
        let former_us = self.former.as_ref().map_or(0, |former| of(former).lease_us);
        let own_us = self.grant_us();
        let patience_us = if own_us == 0 { 0 } else { own_us.max(former_us) };
        self.holder.begin(ballot, self.lease_terms(), patience_us, now.mono_us);
    }

    // ---- the acceptor grants ------------------------------------------------------------------

    /// A heartbeat of `ballot`'s leader asks for a grant. It is given if this acceptor's promise is
    /// that ballot (an acceptor that was not asked in phase 1 may promise now: that is always safe)
    /// and its node is content with the leader; it leaves once that promise is durable, or a restart
    /// would forget both (PITFALLS 114).
    pub(super) fn grant(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        sequence: u64,
        output: &mut Output,
    ) {
        // Nobody promises in a configuration that it does not know, or in one that is over.
        if ballot.configuration != self.configuration.number {
            return;
        }
        let length_us = self.grant_us();
        let content = from == self.settings.id
            || self.election.followed() == Some((from, ballot))
                && self.election.happy_with(now.mono_us) == Some(from);
        if length_us == 0 || !content || self.granter.binds(ballot, now.mono_us) {
            return;
        }
        let promised = self.acceptor.promised();
        if ballot > promised && !mutant!(GrantBelowBallot) && self.acceptor.raise(ballot) {
            self.write_promise(now, ballot, output);
        }
        if ballot != self.acceptor.promised() && !(mutant!(GrantBelowBallot) && ballot > promised) {
            return;
        }
        self.granter.grant(ballot, now.mono_us + length_us);
        // One answer a granter, however long its disk hangs (PITFALLS 44).
        self.withheld.retain(|withheld| {
            withheld.to != from || !matches!(withheld.message, Message::Grant { .. })
        });
        let after = if mutant!(GrantBeforeDurable) { Position(0) } else { self.promised_at };
        self.withhold(after, from, Message::Grant { ballot, sequence, length_us }, output);
    }

    /// Keeps a question of a higher ballot until the grant is over. A leader that learns of a higher
    /// ballot in this way does not wait for it: every heartbeat of its own would prolong the wait
    /// (PITFALLS 116).
    pub(super) fn queue(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        message: Message,
        output: &mut Output,
    ) {
        output.notes.push(Note::Queued { ballot });
        self.granter.queue(from, message, self.settings.limits);
        if self.leading().is_some_and(|own| own < ballot) {
            self.outbid(now, output);
        }
    }

    /// What waited for the end of a grant goes on.
    pub(super) fn take_queued(&mut self, now: Now, output: &mut Output) {
        while let Some((from, message)) = self.granter.take_free(now.mono_us) {
            self.dispatch(now, from, message, output);
        }
        if self.granter.candidacy_waits() && !self.is_bound(now) {
            self.granter.take_candidacy();
            // Meanwhile somebody else may lead.
            let alone = self.own_ballot().is_none() && self.happy_with(now).is_none();
            if alone && self.configuration.is_voter(self.settings.id) {
                self.begin_candidacy(now, None, output);
            }
        }
    }

    /// Would an own candidacy have to wait?
    pub(super) fn is_bound(&self, now: Now) -> bool {
        let next = Ballot::next(self.highest_seen, self.configuration.number, self.settings.id);
        self.granter.binds(next, now.mono_us) && !mutant!(CandidacyNotQueued)
    }

    // ---- the leader holds ---------------------------------------------------------------------

    /// Does this leader ask for grants with its heartbeats? Not where too few take part: grants that
    /// can never be a quorum would only hold up the others.
    pub(super) fn asks_grants(&self) -> bool {
        let Proposer::Leading(leading) = &self.proposer else { return false };
        if self.grant_us() == 0 || leading.handover.is_some() {
            return false;
        }
        let takes_part = |node: &NodeId| {
            *node == self.settings.id
                || self.election.peers.get(node).is_none_or(|peer| peer.takes_part_in_leases())
        };
        let count = self.configuration.voters().filter(takes_part).count();
        count >= self.configuration.quorum_size()
    }

    pub(super) fn on_grant(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        (sequence, length_us): (u64, u64),
        output: &mut Output,
    ) {
        let Proposer::Leading(leading) = &self.proposer else { return };
        if !self.holder.takes(ballot) {
            return;
        }
        let leading = leading.ballot;
        let sequence = match mutant!(OldGrantForNewest) {
            true => self.election.last_sequence(),
            false => sequence,
        };
        // A heartbeat so old that its sending is forgotten is worth nothing any more.
        let Some(sent_us) = self.election.sent_us(sequence) else { return };
        let sent_us = if mutant!(LeaseCountedFromArrival) { now.mono_us } else { sent_us };
        let held = self.holder.remaining_us(now.mono_us) > 0;
        let ruling = match &self.former {
            Some(former) if mutant!(LeaseOfTheOldQuorum) => former,
            _ => &self.configuration,
        };
        self.holder.on_grant(from, (sequence, sent_us), length_us, ruling);
        if !held && self.holder.remaining_us(now.mono_us) > 0 {
            output.notes.push(Note::Leased { ballot: leading });
        }
    }

    /// Somebody has promised or begun a higher ballot. A leader under whose lease nobody else can
    /// lead begins a round above it at once. Without a lease somebody else may lead by now: it ends
    /// its ballot, and the election decides.
    pub(super) fn outbid(&mut self, now: Now, output: &mut Output) {
        if mutant!(OutbidLeaderGoesOn) {
            return;
        }
        let alone = self.holder.remaining_us(now.mono_us) > 0;
        self.end_ballot(now, Deposed::Nacked, output);
        if alone {
            self.begin_candidacy(now, None, output);
        }
    }

    /// Has this leader been without a quorum of grants for a whole L, though it asks for them? Then
    /// it cannot choose, and must not keep the others from choosing either.
    pub(super) fn lacks_grants(&mut self, now: Now) -> bool {
        if !self.asks_grants() {
            self.holder.forgive(u64::MAX, now.mono_us);
        }
        self.holder.without_us(now.mono_us) >= self.grant_us().max(1)
            && self.leading().is_some()
            && !mutant!(OutbidLeaderGoesOn)
    }

    // ---- reads --------------------------------------------------------------------------------

    /// The ballot under which a read of the applied store may begin now: this node leads, takes part
    /// in leases, and its store is as new as the log. Whether there *is* a lease is asked behind the
    /// read, by [`Replica::holds_lease`].
    pub fn reads_under(&self) -> Option<Ballot> {
        match &self.proposer {
            Proposer::Leading(leading) => {
                let open = self.reign_is_open() || mutant!(LeasedReadBeforeOwnEntry);
                let free = leading.handover.is_none() && self.grant_us() > 0;
                (open && free).then_some(leading.ballot)
            }
            Proposer::Following if mutant!(LeaseKeptAfterRelease) => Some(self.holder.ballot()),
            Proposer::Preparing(_) | Proposer::Following => None,
        }
    }

    /// Is what was read under `ballot` (see [`Replica::reads_under`]) linearizable? `now` has to be
    /// sampled after the read of the store: a process may be paused anywhere (PITFALLS 29), and the
    /// lease may have been lost and won again in between, under another ballot (PITFALLS 115). If
    /// not, read again after a quorum round.
    pub fn holds_lease(&self, now: Now, ballot: Ballot) -> bool {
        self.reads_under() == Some(ballot)
            && self.holder.takes(ballot)
            && self.holder.remaining_us(now.mono_us) > 0
    }

    /// What is left of the lease that this node holds; 0 without one.
    pub fn lease_remaining_us(&self, now: Now) -> u64 {
        match self.reads_under() {
            Some(_) => self.holder.remaining_us(now.mono_us),
            None => 0,
        }
    }
}
