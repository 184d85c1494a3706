//! Changes of the configuration: the stop sign (DESIGN §3).
//!
//! Configuration k is chosen in slot s_k and rules the slots above, up to and including s_(k+1). A
//! ballot belongs to one configuration and counts in no slot that another one rules. So a change is
//! a stop: the leader lets the pipeline run dry, proposes the new configuration alone, and once it
//! is chosen everything of the old one is over, its own ballot first. It goes on with a new phase 1
//! among the voters of the new configuration.

use std::collections::BTreeSet;

use super::Replica;
use crate::ballot::{Ballot, NodeId, Slot};
use crate::configuration::{Change, ChangeRefusal, Configuration, Role};
use crate::lease::MARGIN_US;
use crate::message::{BatchId, Heartbeat, Message, Value};
use crate::output::{Deposed, Note, Output, Record};
use crate::proposer::{Handover, Proposer, Stop};
use crate::quorum::Tally;
use crate::settings::Now;

impl Replica {
    /// Changes the configuration, as the leader: from here on no batch is taken; the new
    /// configuration is proposed once all slots are chosen and nothing is in flight. The id comes
    /// back with the chosen entry, or in `Output::lost` when this node stopped leading before.
    ///
    /// Learners that become voters must have caught up, and the voters of the new configuration
    /// must be able to answer now: else the change is refused, with the reason.
    pub fn change(
        &mut self,
        now: Now,
        change: &Change,
        output: &mut Output,
    ) -> Result<BatchId, ChangeRefusal> {
        self.notice_lateness(now);
        let leader = self.leader().filter(|leader| *leader != self.settings.id);
        let Proposer::Leading(leading) = &self.proposer else {
            return Err(ChangeRefusal::NotLeading { leader });
        };
        if leading.stop.is_some() {
            return Err(ChangeRefusal::UnderWay);
        }
        if let Some(Handover { to, .. }) = leading.handover {
            return Err(ChangeRefusal::HandingOver { to });
        }
        if !self.reign_is_open() && !mutant!(ConfigurationAboveOpenSlots) {
            return Err(ChangeRefusal::NotLeading { leader: None });
        }
        let next = match change {
            // Whoever changes one of the terms states them all.
            Change::Rules(_) => {
                let lease_terms = Some(self.lease_terms());
                Configuration { lease_terms, ..self.configuration.clone() }.changed(change)?
            }
            _ => self.configuration.changed(change)?,
        };
        self.check_rules(change, &next)?;
        self.check_answerable(now, &next)?;
        self.batch_count += 1;
        let id = BatchId { incarnation: self.settings.incarnation, counter: self.batch_count };
        if let Proposer::Leading(leading) = &mut self.proposer {
            leading.stop = Some(Stop::Waiting { id, configuration: next });
        }
        self.after_step(now, output);
        Ok(id)
    }

    /// May these rules rule? Every member must be able to read what the configuration says, and to
    /// apply by it; and a lease has to go with the timing of the elections, which is not in the
    /// configuration: this node's stands for all.
    fn check_rules(&self, change: &Change, next: &Configuration) -> Result<(), ChangeRefusal> {
        let Change::Rules(rules) = change else { return Ok(()) };
        let store_version = next.store_version;
        let ruling = &self.configuration;
        if (next.lease_terms, store_version) == (ruling.lease_terms, ruling.store_version) {
            return Err(ChangeRefusal::NothingToChange);
        }
        for &node in next.members.keys() {
            let newest = match node == self.settings.id {
                true => Some(self.settings.store_version_newest),
                false => self.store_versions.get(&node).copied().flatten(),
            };
            let can_do = newest.is_some_and(|newest| newest >= store_version);
            if !can_do && !mutant!(StoreVersionUnheardOf) {
                return Err(ChangeRefusal::CannotDo { node, newest, store_version });
            }
        }
        let Some(terms) = next.lease_terms else { return Ok(()) };
        if rules.lease_us.or(rules.drift_percent.map(u64::from)).is_none() {
            return Ok(());
        }
        let timing = &self.settings.timing;
        // What is left of it has to outlast the heartbeats that renew it.
        let worth_percent = 100 - u64::from(terms.drift_percent);
        let renewed_us = ((timing.heartbeat_us + MARGIN_US) * 100).div_ceil(worth_percent);
        let least_us = renewed_us.max(2 * timing.heartbeat_us);
        // A candidate may have to wait for its end, and whoever suspects a leader sooner too.
        let most_us = (timing.phase1_us / 2).min(timing.silence_us);
        let fits = (least_us..=most_us).contains(&terms.lease_us) || !self.settings.has_leases();
        match fits {
            true => Ok(()),
            false => {
                let lease_us = terms.lease_us;
                Err(ChangeRefusal::LeaseOutOfBounds { lease_us, least_us, most_us })
            }
        }
    }

    /// Could the new configuration go on at once? A cluster that grew by a node which does not
    /// exist has lost a part of its fault tolerance for nothing, or all of it (PITFALLS 25).
    fn check_answerable(&self, now: Now, next: &Configuration) -> Result<(), ChangeRefusal> {
        let able: BTreeSet<NodeId> = self
            .election
            .connected(now.mono_us)
            .filter(|(_, peer)| peer.heartbeat.can_accept)
            .map(|(node, _)| node)
            .chain(self.election.can_accept.then_some(self.settings.id))
            .collect();
        for node in next.voters().filter(|node| !self.configuration.is_voter(*node)) {
            if !able.contains(&node) {
                return Err(ChangeRefusal::Unreachable(node));
            }
            next.check_can_do(node, self.store_versions.get(&node).copied().flatten())?;
            let known = self.election.peers.get(&node).map_or(Slot::ZERO, |p| p.first_unchosen);
            let behind_slots = self.learner.first_unchosen.0.saturating_sub(known.0);
            if behind_slots > self.settings.limits.window_slots {
                return Err(ChangeRefusal::NotCaughtUp { node, behind_slots });
            }
        }
        let missing: Vec<NodeId> = next.voters().filter(|node| !able.contains(node)).collect();
        let needed = next.quorum_size();
        let able = next.voters().count() - missing.len();
        if able < needed {
            return Err(ChangeRefusal::CouldNotAnswer { able, needed, missing });
        }
        Ok(())
    }

    /// Proposes the configuration that waits, once nothing is open below it and nothing in flight.
    pub(super) fn propose_configuration(&mut self, now: Now, output: &mut Output) {
        let Proposer::Leading(leading) = &mut self.proposer else { return };
        let Some(Stop::Waiting { id, configuration }) = &leading.stop else { return };
        let is_dry = leading.in_flight.is_empty()
            && leading.next_slot == self.learner.first_unchosen
            && self.learner.first_unchosen > leading.own_slot;
        if !is_dry && !mutant!(ConfigurationAboveOpenSlots) {
            return;
        }
        let (id, mut configuration) = (*id, configuration.clone());
        let slot = leading.next_slot;
        configuration.slot = slot;
        leading.stop = Some(Stop::Proposed);
        self.learner.propose(slot, id);
        self.propose_value(now, Value::Configuration { id, configuration }, output);
    }

    /// A newer configuration is chosen and rules from here on: every ballot of the older one is
    /// over, candidates' too. Whoever led goes on with phase 1 in the new configuration.
    pub(super) fn adopt_configuration(
        &mut self,
        now: Now,
        configuration: Configuration,
        output: &mut Output,
    ) {
        if configuration.number <= self.configuration.number {
            return;
        }
        // From now on this node may promise in the new configuration. So that it is known after a
        // restart too, it is on disk before any such promise: all slots up to it, marked chosen.
        if self.learner.first_unchosen > configuration.slot {
            self.record_chosen_below(now, output);
        }
        self.record(Record::Configuration(configuration.clone()), output);
        let (number, slot) = (configuration.number, configuration.slot);
        output.notes.push(Note::ConfigurationKnown { number, slot });
        let former = std::mem::replace(&mut self.configuration, configuration);
        self.leave_known_to = Tally::default();
        let led = self.leading();
        let leader = self.leader();
        let lives_on = match &self.proposer {
            Proposer::Leading(_) => mutant!(LeaderOutlivesConfiguration),
            Proposer::Preparing(_) => mutant!(CandidateOutlivesConfiguration),
            Proposer::Following => false,
        };
        if led.is_some() {
            self.tell_configuration(&former, output);
        }
        let members: BTreeSet<NodeId> = self.configuration.members.keys().copied().collect();
        self.former = Some(former);
        if lives_on {
            if let Proposer::Leading(leading) = &mut self.proposer {
                leading.stop = None;
            }
            return;
        }
        let own_tally = matches!(&self.proposer, Proposer::Leading(l) if l.in_flight.is_empty());
        if let Some(ballot) = self.own_ballot().filter(|_| !own_tally) {
            output.notes.push(Note::TallyVoided { ballot });
        }
        self.end_ballot(now, Deposed::NewConfiguration, output);
        self.election.on_configuration(&members, leader.is_some(), now.mono_us);
        self.note_leader(output);
        let Some(ballot) = led else { return };
        if self.configuration.is_voter(self.settings.id) {
            self.begin_candidacy(now, None, output);
        } else if !mutant!(RemovedLeaderNamesNobody) {
            self.let_go_removed(now, ballot);
        }
    }

    /// The leader that has just tallied the new configuration tells all members of both, ahead of
    /// its Prepares: a voter that does not know it yet would have to ask first.
    fn tell_configuration(&self, former: &Configuration, output: &mut Output) {
        let slot = self.configuration.slot;
        let Some(entry) = self.acceptor.entry(slot) else { return };
        let members = former.members.keys().chain(self.configuration.members.keys());
        let members: BTreeSet<NodeId> = members.copied().collect();
        for member in members.into_iter().filter(|member| *member != self.settings.id) {
            let values = vec![entry.value.clone()];
            self.send(member, Message::Chosen { first: slot, values }, output);
        }
    }

    /// May a ballot be promised, accepted or confirmed here? Not in a configuration that this node
    /// does not know: it asks the sender for it first (else such a promise can leave the survivors
    /// stuck: PITFALLS 112). Nor in an older one than it knows: the sender is told what it lacks.
    pub(super) fn turn_away(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        sender_lacks: Slot,
        output: &mut Output,
    ) -> bool {
        let known = self.configuration.number;
        if from == self.settings.id {
            return false;
        }
        if ballot.configuration > known {
            if mutant!(PromiseInUnknownConfiguration) {
                return false;
            }
            output.notes.push(Note::UnknownConfiguration { ballot });
            self.ask_for_configuration(now, from, output);
            return true;
        }
        if ballot.configuration < known && !mutant!(RoundBeforeConfiguration) {
            self.refuse(from, ballot, output);
            self.peer_lacks(from, sender_lacks.max(Slot::FIRST));
            self.send_missing(now, from, output);
            return true;
        }
        false
    }

    /// `peer` speaks of a configuration that this node does not know.
    pub(super) fn ask_for_configuration(&mut self, now: Now, peer: NodeId, output: &mut Output) {
        let patience_us = self.settings.timing.resend_us / 4;
        let asked = self.asked_configuration.is_some_and(|(asked, at_us)| {
            asked == peer && now.mono_us.saturating_sub(at_us) < patience_us
        });
        if !asked {
            self.asked_configuration = Some((peer, now.mono_us));
            let first_unchosen = self.learner.first_unchosen;
            self.send(peer, Message::CatchUp { first_unchosen }, output);
        }
    }

    /// A peer leads under an older configuration, or follows such a leader: it leads nobody who knows
    /// better, and is told. (A peer that merely lags is brought up to date by the leader.)
    pub(super) fn tell_straggler(
        &mut self,
        now: Now,
        from: NodeId,
        heartbeat: &mut Heartbeat,
        output: &mut Output,
    ) {
        let known = self.configuration.number;
        let is_stale = |ballot: Ballot| ballot.configuration < known;
        let leads_stale = heartbeat.leading.is_some_and(is_stale);
        if leads_stale {
            heartbeat.leading = None;
        }
        let follows_stale = self.leader().is_none()
            && heartbeat.happy_with.is_some()
            && is_stale(heartbeat.promised);
        let lacks_it = heartbeat.first_unchosen <= self.configuration.slot;
        if (leads_stale || follows_stale) && lacks_it {
            heartbeat.happy_with = None;
            let peer = self.election.peers.entry(from).or_default();
            peer.first_unchosen = heartbeat.first_unchosen;
            self.send_missing(now, from, output);
        }
    }

    /// Asks `peer` for what this node lacks, whether or not it is a member by what this node knows:
    /// an operator has named it. A member that slept through changes may know nobody else.
    pub fn ask(&mut self, peer: NodeId, output: &mut Output) {
        if peer != self.settings.id {
            let first_unchosen = self.learner.first_unchosen;
            self.send(peer, Message::CatchUp { first_unchosen }, output);
        }
    }

    /// Is this node no member by the newest configuration that it knows, without having been
    /// removed? So is one that has been formatted to join, until it has learned that it was added.
    pub(super) fn is_joining(&self) -> bool {
        let own = self.settings.id;
        !self.configuration.contains(own) && !self.is_removed()
    }

    /// The newest configuration that this node knows has removed it.
    pub fn is_removed(&self) -> bool {
        self.configuration.removed.contains(&self.settings.id)
    }

    /// Does this message come from somebody that this node listens to? A member; anybody, while this
    /// node does not know the members yet; and anybody who knows a newer configuration.
    pub(super) fn listens_to(&self, from: NodeId, message: &Message) -> bool {
        let known = self.configuration.number;
        self.configuration.contains(from)
            || self.is_joining()
            || mutant!(RemovedMayCampaign)
            || match message {
                Message::Prepare { ballot, .. }
                | Message::Accept { ballot, .. }
                | Message::Confirm { ballot, .. } => ballot.configuration > known,
                Message::Heartbeat(heartbeat) => heartbeat.promised.configuration > known,
                Message::Nack { promised, .. } => promised.configuration > known,
                Message::Chosen { .. } => true,
                // A leader that a change has removed hands over.
                Message::Release { ballot, .. } => ballot.node == from,
                _ => false,
            }
    }

    /// A former member speaks. It is not heard, lest it disturb the others (PITFALLS 24); but it is
    /// told what it lacks, until it knows that it was removed.
    pub(super) fn on_former_member(
        &mut self,
        now: Now,
        from: NodeId,
        message: &Message,
        output: &mut Output,
    ) {
        let first_unchosen = match message {
            Message::Heartbeat(heartbeat) => heartbeat.first_unchosen,
            Message::Prepare { from_slot, .. } => *from_slot,
            Message::Learned { first_unchosen } | Message::CatchUp { first_unchosen } => {
                *first_unchosen
            }
            Message::Ping => {
                let heartbeat = self.heartbeat_for(from, now);
                return self.send(from, heartbeat, output);
            }
            _ => return,
        };
        if first_unchosen <= self.configuration.slot {
            let peer = self.election.peers.entry(from).or_default();
            peer.first_unchosen = first_unchosen.max(Slot::FIRST);
            self.send_missing(now, from, output);
        }
    }

    /// A removed node sees to it that the new configuration can do without it: it tells what it
    /// knows until a quorum has it on disk. Only then it may go.
    pub(super) fn take_leave(&mut self, now: Now, output: &mut Output) {
        let due = now.mono_us.saturating_sub(self.took_leave_us) >= self.settings.timing.resend_us;
        if !self.is_removed() || self.tombstone_reported || !due {
            return;
        }
        self.took_leave_us = now.mono_us;
        if self.may_leave() {
            return self.leave(output);
        }
        let voters: Vec<NodeId> = self.configuration.voters().collect();
        for voter in voters.into_iter().filter(|voter| !self.leave_known_to.contains(*voter)) {
            // Without values it is a question: how far do you know the log, on disk?
            let first = self.configuration.slot.next();
            self.send(voter, Message::Chosen { first, values: Vec::new() }, output);
        }
    }

    /// A peer of a removed node has said how far it knows the log, on disk.
    pub(super) fn on_leave_known(
        &mut self,
        now: Now,
        from: NodeId,
        first_unchosen: Slot,
        output: &mut Output,
    ) {
        if !self.is_removed() || self.tombstone_reported {
            return;
        }
        if first_unchosen <= self.configuration.slot {
            return self.send_missing(now, from, output);
        }
        self.leave_known_to.add(from);
        self.name_successor(now, from, output);
        if self.may_leave() {
            self.leave(output);
        }
    }

    fn may_leave(&self) -> bool {
        let known = self.leave_known_to.reached(&self.configuration) || mutant!(TombstoneAtOnce);
        known && !self.awaits_successor()
    }

    fn leave(&mut self, output: &mut Output) {
        let number = self.configuration.number;
        self.tombstone_reported = true;
        output.tombstone = Some(number);
        output.notes.push(Note::Removed { number });
    }

    /// Is a change of the configuration waiting, or in flight?
    pub fn change_is_under_way(&self) -> bool {
        matches!(&self.proposer, Proposer::Leading(leading) if leading.stop.is_some())
    }

    pub fn role(&self) -> Option<Role> {
        self.configuration.members.get(&self.settings.id).map(|member| member.role)
    }
}
