//! The three doors out (`record`, `send`, `withhold`), and small change.

use super::Replica;
use crate::ballot::{Ballot, NodeId, Slot};
use crate::message::{Envelope, Message};
use crate::output::{Deposed, Note, Output, Position, Record, Withheld};
use crate::proposer::Proposer;
use crate::settings::Now;

impl Replica {
    /// What every call ends with: withheld messages whose records are synced, finished read rounds,
    /// and the mark of how far the log is chosen when something is written anyway.
    pub(super) fn after_step(&mut self, now: Now, output: &mut Output) {
        while self.withheld.front().is_some_and(|withheld| withheld.after <= self.synced) {
            let Some(Withheld { to, message, .. }) = self.withheld.pop_front() else { break };
            if to == self.settings.id {
                self.dispatch(now, to, message, output);
            } else {
                self.send(to, message, output);
            }
        }
        self.take_queued(now, output);
        while let Some(reads) = self.reads.take_confirmed(&self.configuration) {
            self.answer_reads(reads, output);
            self.start_read_round(now, output);
        }
        self.start_read_round(now, output);
        self.serve_asked(output);
        self.propose_configuration(now, output);
        if !output.records.is_empty() {
            self.record_chosen_below(now, output);
        }
    }

    pub(super) fn record_chosen_below(&mut self, now: Now, output: &mut Output) {
        let first_unchosen = self.learner.first_unchosen;
        self.recorded_chosen_us = now.mono_us;
        if first_unchosen > self.recorded_chosen_below {
            let mut from = std::mem::replace(&mut self.recorded_chosen_below, first_unchosen);
            if mutant!(MarkReachesUnderSnapshot) {
                from = Slot::FIRST;
            }
            self.record(Record::ChosenRange { from, below: first_unchosen }, output);
        }
    }

    pub(super) fn record_trimmed_below(&mut self, below: Slot, output: &mut Output) {
        self.recorded_trimmed_below = self.recorded_trimmed_below.max(below);
        self.record(Record::TrimmedBelow(below), output);
    }

    pub(super) fn record(&mut self, record: Record, output: &mut Output) {
        self.written.0 += 1;
        output.records.push(record);
    }

    pub(super) fn send(&self, to: NodeId, message: Message, output: &mut Output) {
        assert!(to != self.settings.id, "{to} would send {} to itself", message.kind());
        output.now.push(Envelope { from: self.settings.id, to, message });
    }

    /// Sends `message` once everything recorded up to `after` is synced. What is already synced
    /// leaves at once, but never past an own vote that still waits.
    pub(super) fn withhold(
        &mut self,
        after: Position,
        to: NodeId,
        message: Message,
        output: &mut Output,
    ) {
        if after <= self.synced && to != self.settings.id {
            return self.send(to, message, output);
        }
        let is_early = match &message {
            Message::Prepare { .. } => mutant!(PrepareBeforeSync),
            Message::Learned { .. } => mutant!(LearnedBeforeSync),
            _ => to == self.settings.id && mutant!(OwnVoteBeforeSync),
        };
        let after = if is_early { Position(0) } else { after };
        let place = self.withheld.partition_point(|withheld| withheld.after <= after);
        self.withheld.insert(place, Withheld { after, to, message });
    }

    /// Does an answer to `to` already wait for the disk? A question that is repeated while the disk
    /// hangs must not add an answer each time (PITFALLS 44).
    pub(super) fn waits_for_sync(&self, to: NodeId, is_answer: impl Fn(&Message) -> bool) -> bool {
        self.withheld.iter().any(|withheld| withheld.to == to && is_answer(&withheld.message))
    }

    pub(super) fn write_promise(&mut self, now: Now, ballot: Ballot, output: &mut Output) {
        self.record(Record::Promised(ballot), output);
        self.promised_at = self.written;
        self.promise_raised(now, ballot, output);
    }

    /// The own acceptor has promised `ballot`. A leader or candidate of a lower one goes at once.
    pub(super) fn promise_raised(&mut self, now: Now, ballot: Ballot, output: &mut Output) {
        let is_over = self.own_ballot().is_some_and(|own| own < ballot);
        if is_over && !mutant!(LeaderOutlivesItsPromise) {
            self.end_ballot(now, Deposed::OwnPromise, output);
        }
        self.succeeded(ballot);
        if ballot.node != self.settings.id {
            self.election.on_promised_other(ballot, now.mono_us);
        }
    }

    pub(super) fn refuse(&self, to: NodeId, ballot: Ballot, output: &mut Output) {
        let promised = self.acceptor.promised();
        output.notes.push(Note::Refused { ballot, promised });
        if to != self.settings.id {
            self.send(to, Message::Nack { ballot, promised }, output);
        }
    }

    pub(super) fn answer_behind(&self, to: NodeId, ballot: Ballot, output: &mut Output) {
        output.notes.push(Note::AnsweredBehind { to });
        if to != self.settings.id {
            let first_kept = self.acceptor.first_kept();
            let first_unchosen = self.learner.first_unchosen;
            self.send(to, Message::Behind { ballot, first_kept, first_unchosen }, output);
        }
    }

    /// Tells the shell when the known leader changes.
    pub(super) fn note_leader(&mut self, output: &mut Output) {
        let leader = self.leader();
        if leader != self.noted_leader {
            self.noted_leader = leader;
            let ballot = self.leader_ballot().unwrap_or_default();
            output.notes.push(Note::Following { leader, ballot });
        }
    }

    /// The next own ballot has to be above this one. One of a configuration that this node does not
    /// know is above all that it can begin: it learns that configuration first.
    pub(super) fn see(&mut self, ballot: Ballot) {
        if ballot.configuration <= self.configuration.number {
            self.highest_seen = self.highest_seen.max(ballot);
        }
    }

    pub(super) fn own_ballot(&self) -> Option<Ballot> {
        match &self.proposer {
            Proposer::Following => None,
            Proposer::Preparing(preparing) => Some(preparing.ballot),
            Proposer::Leading(leading) => Some(leading.ballot),
        }
    }

    /// Every member but this node, in order of id.
    pub(super) fn others(&self) -> Vec<NodeId> {
        self.configuration.members.keys().copied().filter(|id| *id != self.settings.id).collect()
    }
}
