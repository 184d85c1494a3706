//! The dispatcher: one arm for each message, and what each of them does.

use super::Replica;
use crate::acceptor::{AcceptAnswer, PrepareAnswer};
use crate::ballot::{Ballot, NodeId, Slot};
use crate::message::{Accepted, Heartbeat, Message, PromisedEntry, Value};
use crate::output::{Deposed, Note, Output, Record};
use crate::proposer::Proposer;
use crate::settings::Now;

impl Replica {
    pub(super) fn dispatch(
        &mut self,
        now: Now,
        from: NodeId,
        message: Message,
        output: &mut Output,
    ) {
        let lacks = match &message {
            Message::Prepare { ballot, from_slot, .. } => Some((*ballot, *from_slot)),
            Message::Accept { ballot, hint, .. } => Some((*ballot, *hint)),
            Message::Confirm { ballot, .. } => Some((*ballot, self.learner.first_unchosen)),
            _ => None,
        };
        if let Some((ballot, sender_lacks)) = lacks
            && self.turn_away(now, from, ballot, sender_lacks, output)
        {
            return;
        }
        match message {
            // Phase 1a. Promise all slots from there on, and tell what was accepted there.
            // A lease that was granted to another leader comes first.
            Message::Prepare { ballot, .. }
            | Message::Accept { ballot, .. }
            | Message::Confirm { ballot, .. }
                if self.must_wait(now, ballot, &message) =>
            {
                self.see(ballot);
                self.queue(now, from, ballot, message, output);
            }
            Message::Prepare { ballot, from_slot, holds, .. } => {
                self.see(ballot);
                self.on_prepare(now, from, ballot, from_slot, &holds, output);
            }
            // Phase 1b. A quorum will ignore older ballots from now on, so whatever was chosen
            // before is among these promises.
            Message::Promise { ballot, from_slot, to_slot, entries, wall_ms, .. } => {
                self.on_promise(now, from, ballot, (from_slot, to_slot), entries, wall_ms, output);
            }
            // Somebody has promised more than we can offer: this ballot is over.
            Message::Nack { ballot, promised } => {
                self.see(promised);
                if self.leading() == Some(ballot) {
                    self.outbid(now, output);
                } else if self.own_ballot() == Some(ballot) {
                    self.end_ballot(now, Deposed::Nacked, output);
                }
                if promised.configuration > self.configuration.number {
                    self.ask_for_configuration(now, from, output);
                }
            }
            // We ask about slots that the peer has trimmed: learn them first. A peer that knows no
            // more than we do (it lost its newest snapshot) cannot help; others may be a quorum.
            Message::Behind { ballot, first_unchosen: peer_first_unchosen, .. } => {
                let first_unchosen = self.learner.first_unchosen;
                if peer_first_unchosen > first_unchosen {
                    if self.own_ballot() == Some(ballot) {
                        self.end_ballot(now, Deposed::GaveUp, output);
                    }
                    self.send(from, Message::CatchUp { first_unchosen }, output);
                }
            }
            // Phase 2a. Take it unless a higher ballot is promised.
            Message::Accept { ballot, slot, value, hint } => {
                self.see(ballot);
                self.on_accept(now, from, ballot, slot, value, hint, output);
            }
            // Phase 2b. A quorum of these chooses the value.
            Message::Accepted { ballot, slot, first_unchosen } => {
                self.on_accepted(now, from, ballot, slot, first_unchosen, output);
            }
            Message::Heartbeat(heartbeat) => self.on_heartbeat(now, from, heartbeat, output),
            Message::Ping => {
                let heartbeat = self.heartbeat_for(from, now);
                self.send(from, heartbeat, output);
            }
            // Chosen for ever, whoever says so.
            Message::Chosen { first, values } => self.on_chosen(now, from, first, values, output),
            Message::Learned { first_unchosen } => {
                self.peer_knows(from, first_unchosen);
                self.bring_up_to_date(now, from, output);
                self.go_on_sending(now, from, output);
                self.on_leave_known(now, from, first_unchosen, output);
            }
            // The peer lacks what we may have.
            Message::CatchUp { first_unchosen } => {
                self.peer_lacks(from, first_unchosen);
                self.send_missing(now, from, output);
            }
            // A quorum read: is this ballot still the one that we promised?
            Message::Confirm { ballot, round } => {
                self.see(ballot);
                self.on_confirm(now, from, ballot, round, output);
            }
            Message::Confirmed { ballot, round } => {
                if self.leading() == Some(ballot) {
                    self.reads.on_confirmed(from, round);
                }
            }
            // A quorum of these is a lease.
            Message::Grant { ballot, sequence, length_us } => {
                self.on_grant(now, from, ballot, (sequence, length_us), output);
            }
            // The leader lets go of its ballot, in favour of this node.
            Message::Release { ballot, first_unchosen } => {
                self.see(ballot);
                self.on_release(now, ballot, first_unchosen, output);
            }
            // A follower's read.
            Message::ReadIndex { read } => self.on_read_index(now, from, read, output),
            Message::ReadFrom { read, slot } => self.on_read_from(from, read, slot, output),
        }
    }

    /// Does a grant to another leader keep this question waiting? A Prepare that its leader has
    /// let go for does away with the grant.
    fn must_wait(&mut self, now: Now, ballot: Ballot, message: &Message) -> bool {
        if let Message::Prepare { release: Some(released), .. } = message {
            self.granter.release(*released);
        }
        self.granter.binds(ballot, now.mono_us)
    }

    pub(super) fn on_prepare(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        from_slot: Slot,
        holds: &[(Slot, Ballot)],
        output: &mut Output,
    ) {
        match self.acceptor.prepare(ballot, from_slot) {
            PrepareAnswer::Promise { raised } => {
                if raised {
                    self.write_promise(now, ballot, output);
                } else if self.waits_for_sync(from, |message| {
                    matches!(message, Message::Promise { ballot: held, .. } if *held == ballot)
                }) {
                    return;
                }
                // Everything that the answer speaks of has to be on disk, not only the promise.
                let first_unchosen = self.learner.first_unchosen;
                for (from_slot, to_slot, entries) in
                    self.acceptor.report(from_slot, holds, self.settings.limits)
                {
                    let promise = Message::Promise {
                        ballot,
                        from_slot,
                        to_slot,
                        entries,
                        first_unchosen,
                        wall_ms: now.wall_ms,
                    };
                    self.withhold(self.written, from, promise, output);
                }
            }
            PrepareAnswer::Refuse => self.refuse(from, ballot, output),
            PrepareAnswer::Behind => self.answer_behind(from, ballot, output),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_promise(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        covers: (Slot, Option<Slot>),
        entries: Vec<PromisedEntry>,
        wall_ms: u64,
        output: &mut Output,
    ) {
        if self.own_ballot() != Some(ballot) || self.leading().is_some() {
            return;
        }
        // What others know chosen is chosen: no need to propose it again.
        for entry in &entries {
            if let (Accepted::Chosen, Some(value)) = (entry.accepted, &entry.value) {
                self.learn(now, entry.slot, value.clone(), output);
            }
        }
        self.declare(now, output);
        let Proposer::Preparing(preparing) = &mut self.proposer else { return };
        // Among what was known chosen there may have been a newer configuration.
        if preparing.ballot != ballot {
            return;
        }
        let acceptor = &self.acceptor;
        preparing.on_promise(from, covers, entries, wall_ms, |slot, ballot| {
            let entry = acceptor.entry(slot)?;
            (entry.accepted == Accepted::Under(ballot)).then(|| entry.value.clone())
        });
        if preparing.reached() {
            self.become_leader(now, output);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_accept(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        slot: Slot,
        value: Value,
        hint: Slot,
        output: &mut Output,
    ) {
        let promised_before = self.acceptor.promised();
        let answer = self.acceptor.accept(ballot, slot, &value);
        if self.acceptor.promised() > promised_before {
            self.promise_raised(now, ballot, output);
        }
        let mut repeated = false;
        match answer {
            AcceptAnswer::Refuse => return self.refuse(from, ballot, output),
            AcceptAnswer::Behind => return self.answer_behind(from, ballot, output),
            AcceptAnswer::ChosenOtherwise(chosen) => {
                let message = Message::Chosen { first: slot, values: vec![chosen] };
                return self.withhold(self.written, from, message, output);
            }
            AcceptAnswer::Taken { .. } => {
                self.record(Record::Accepted { slot, ballot, value }, output);
                if self.acceptor.promised() > promised_before {
                    self.promised_at = self.written;
                }
            }
            AcceptAnswer::Held { raised } => {
                let is_answered = |message: &Message| {
                    matches!(message, Message::Accepted { ballot: held, slot: at, .. }
                        if (*held, *at) == (ballot, slot))
                };
                repeated = !raised && self.waits_for_sync(from, is_answered);
                if raised {
                    self.record(Record::Promised(ballot), output);
                    self.promised_at = self.written;
                }
            }
        }
        if from != self.settings.id {
            self.election.on_leader_message(ballot, now.mono_us);
            self.take_hint(ballot, hint, output);
            self.declare(now, output);
        }
        if repeated {
            return;
        }
        let first_unchosen = self.learner.first_unchosen;
        let accepted = Message::Accepted { ballot, slot, first_unchosen };
        self.withhold(self.written, from, accepted, output);
    }

    pub(super) fn on_accepted(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        slot: Slot,
        first_unchosen: Slot,
        output: &mut Output,
    ) {
        self.peer_knows(from, first_unchosen);
        let Proposer::Leading(leading) = &mut self.proposer else { return };
        if leading.ballot != ballot && !mutant!(VoteOfAnOlderBallot) {
            return;
        }
        self.reads.on_accepted(from, slot);
        if !leading.on_accepted(from, slot) {
            return;
        }
        while let Some((slot, phase2_us)) = leading.settle_next(now.mono_us) {
            self.acceptor.mark_chosen(slot, leading.ballot);
            output.notes.push(Note::Tallied { slot, phase2_us });
        }
        self.declare(now, output);
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Now,
        from: NodeId,
        mut heartbeat: Heartbeat,
        output: &mut Output,
    ) {
        self.see(heartbeat.promised);
        self.tell_straggler(now, from, &mut heartbeat, output);
        let (leading, hint, promised) = (heartbeat.leading, heartbeat.hint, heartbeat.promised);
        let (asks_grant, sequence) = (heartbeat.asks_grant, heartbeat.sequence);
        self.election.on_heartbeat(from, heartbeat, now.mono_us);
        if let Some(ballot) = leading {
            self.see(ballot);
            self.succeeded(ballot);
            self.take_hint(ballot, hint, output);
            self.declare(now, output);
            if asks_grant {
                self.grant(now, from, ballot, sequence, output);
            }
        }
        // A peer that has promised more will not vote for this ballot any more: begin a round above
        // it rather than lead without that voter until the next one fails too.
        if self.leading().is_some_and(|ballot| promised > ballot) {
            self.outbid(now, output);
        }
        if promised.configuration > self.configuration.number {
            self.ask_for_configuration(now, from, output);
        }
        self.bring_up_to_date(now, from, output);
        self.consider(now, output);
    }

    pub(super) fn on_chosen(
        &mut self,
        now: Now,
        from: NodeId,
        first: Slot,
        values: Vec<Value>,
        output: &mut Output,
    ) {
        let mut slot = first;
        for value in values {
            self.learn(now, slot, value, output);
            slot = slot.next();
        }
        self.declare(now, output);
        let first_unchosen = self.learner.first_unchosen;
        self.withhold(self.written, from, Message::Learned { first_unchosen }, output);
    }

    pub(super) fn on_confirm(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        round: u64,
        output: &mut Output,
    ) {
        if ballot < self.acceptor.promised() {
            return self.refuse(from, ballot, output);
        }
        // An acceptor that was not asked in phase 1 may promise now: that is always safe.
        if self.acceptor.raise(ballot) {
            self.write_promise(now, ballot, output);
        }
        self.election.on_leader_message(ballot, now.mono_us);
        self.withhold(self.promised_at, from, Message::Confirmed { ballot, round }, output);
    }
}
