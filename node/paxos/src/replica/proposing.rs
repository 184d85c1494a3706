//! A ballot's life: phase 1, phase 2, and its end.

use super::Replica;
use crate::ballot::{Ballot, Slot};
use crate::message::{Accepted, Message, Value};
use crate::output::{Deposed, Note, Output};
use crate::proposer::{Leading, Preparing, Proposer, Stop};
use crate::settings::Now;

impl Replica {
    /// Begins phase 1 in a ballot never used before. The own promise is the record that the
    /// Prepares wait for: the round is on disk before anybody hears of it.
    ///
    /// `release` is the ballot whose leader has handed over to this node. A lease that the own
    /// acceptor has granted to anybody else comes first: then the candidacy waits for its end.
    pub(super) fn begin_candidacy(
        &mut self,
        now: Now,
        release: Option<Ballot>,
        output: &mut Output,
    ) {
        let own = self.settings.id;
        let from_slot = self.learner.first_unchosen;
        // A candidate whose own log is trimmed above its store (an older snapshot was restored)
        // could not even answer itself.
        if from_slot < self.acceptor.first_kept() {
            return;
        }
        // Nor does a ballot of this configuration count in slots that an older one rules.
        if from_slot <= self.configuration.slot {
            return;
        }
        let ballot = Ballot::next(self.highest_seen, self.configuration.number, own);
        if let Some(released) = release {
            self.granter.release(released);
        }
        if self.granter.binds(ballot, now.mono_us) && !mutant!(CandidacyNotQueued) {
            if self.granter.queue_candidacy() {
                output.notes.push(Note::Queued { ballot });
            }
            return;
        }
        self.see(ballot);
        let deadline_us = now.mono_us + self.election.phase1_us();
        let mut configuration = self.configuration.clone();
        if mutant!(PhaseOneWithOldQuorum)
            && let Some(former) = &self.former
        {
            configuration = former.clone();
        }
        let mut preparing =
            Preparing::new(ballot, configuration, from_slot, now.mono_us, deadline_us);
        preparing.release = release;
        self.proposer = Proposer::Preparing(preparing);
        output.notes.push(Note::Preparing { ballot });
        let holds = self.acceptor.holds(from_slot);
        self.on_prepare(now, own, ballot, from_slot, &holds, output);
        for peer in self.others() {
            let holds = holds.clone();
            self.withhold(
                self.written,
                peer,
                Message::Prepare { ballot, from_slot, holds, release },
                output,
            );
        }
    }

    /// Phase 1 has its quorum: adopt what was reported, fill the gaps, and open the reign with an
    /// own no-op.
    pub(super) fn become_leader(&mut self, now: Now, output: &mut Output) {
        let Proposer::Preparing(preparing) =
            std::mem::replace(&mut self.proposer, Proposer::Following)
        else {
            return;
        };
        let first = self.learner.first_unchosen;
        let ballot = preparing.ballot;
        let reported =
            [preparing.last_slot(), self.acceptor.last_slot(), self.learner.last_own_slot()];
        let end = reported.into_iter().flatten().max().map_or(first, Slot::next).max(first);
        let configuration = match mutant!(PhaseOneWithOldQuorum) {
            true => self.configuration.clone(),
            false => preparing.configuration.clone(),
        };
        let mut leading = Leading::new(ballot, configuration, first, now.mono_us);
        leading.own_slot = end;
        self.proposer = Proposer::Leading(leading);
        self.election.on_elected(ballot, now.mono_us);
        self.begin_lease(now, ballot);
        self.released = None;
        let (mut adopted, mut noops) = (0, 0);
        let mut again: Option<Value> = None;
        let mut stopped = None;
        for slot in first.until(end) {
            // A slot above the first unchosen one may be known chosen already. It is proposed all
            // the same, with that value, so that this ballot tallies it and may hint it.
            let known =
                self.acceptor.entry(slot).filter(|entry| entry.accepted == Accepted::Chosen);
            let value =
                known.map(|entry| &entry.value).or_else(|| preparing.adopted(slot)).cloned();
            match value {
                Some(_) => adopted += 1,
                None => noops += 1,
            }
            if mutant!(GapNotFilled) && value.is_none() {
                if let Proposer::Leading(leading) = &mut self.proposer {
                    leading.next_slot = slot.next();
                }
                continue;
            }
            if mutant!(BatchInTwoSlots) && again.is_none() {
                again = value.clone();
            }
            let stop = match &value {
                Some(Value::Configuration { configuration, .. }) => Some(configuration.number),
                _ => None,
            };
            self.propose_value(now, value.unwrap_or(Value::Noop), output);
            if let Some(number) = stop
                && number > self.configuration.number
                && !mutant!(EntriesAboveConfigurationKept)
            {
                stopped = Some((number, slot));
                break;
            }
        }
        if let Some((number, slot)) = stopped {
            self.stop_at(number, slot, output);
        } else {
            self.propose_value(now, again.unwrap_or(Value::Noop), output);
        }
        output.leader_clock_ms = Some(preparing.wall_ms_median());
        let phase1_us = now.mono_us.saturating_sub(preparing.started_us);
        output.notes.push(Note::Elected { ballot, adopted, noops, phase1_us });
        self.note_leader(output);
        self.send_heartbeats(now, output);
        // Whoever let go in favour of this node may be no member any more. It waits for this, and
        // sends its clients here.
        if let Some(former) = preparing.release.map(|released| released.node)
            && former != self.settings.id
            && !self.configuration.contains(former)
        {
            let heartbeat = self.heartbeat_for(former, now);
            self.send(former, heartbeat, output);
        }
    }

    /// Configuration `number`, adopted in `slot`, ends this reign: nothing is proposed above it.
    fn stop_at(&mut self, number: u32, slot: Slot, output: &mut Output) {
        assert!(
            number == self.configuration.number + 1,
            "slot {slot} holds configuration {number}, made for another one than {}",
            self.configuration.number
        );
        if let Proposer::Leading(leading) = &mut self.proposer {
            leading.stop = Some(Stop::Proposed);
        }
        output.notes.push(Note::ConfigurationAdopted { number, slot });
    }

    /// Phase 2a for the next slot, to everybody at once; the own acceptor's record is written in
    /// parallel with the Accepts' way to the others.
    pub(super) fn propose_value(&mut self, now: Now, value: Value, output: &mut Output) {
        let own = self.settings.id;
        let Proposer::Leading(leading) = &mut self.proposer else {
            unreachable!("only a leader proposes");
        };
        let slot = leading.propose(value.clone(), now.mono_us);
        let ballot = leading.ballot;
        let hint = if mutant!(HintBeforeTally) { slot.next() } else { leading.hint };
        for peer in self.others() {
            let value = value.clone();
            self.send(peer, Message::Accept { ballot, slot, value, hint }, output);
        }
        self.on_accept(now, own, ballot, slot, value, hint, output);
    }

    /// This ballot is over, whether in phase 1 or 2. Nothing of it is sent any more. Own batches
    /// wait for the log's verdict; reads are redirected.
    pub(super) fn end_ballot(&mut self, now: Now, reason: Deposed, output: &mut Output) {
        let Some(ballot) = self.own_ballot() else { return };
        let led = self.leading().is_some();
        if let Proposer::Leading(Leading { stop: Some(Stop::Waiting { id, .. }), .. }) =
            &self.proposer
        {
            output.lost.push(*id);
        }
        // With it go all its timers: repeats, heartbeats, read rounds, a handover's bound.
        if !mutant!(TimersOutliveTheBallot) {
            self.proposer = Proposer::Following;
        }
        self.holder.end();
        // Messages of this ballot that still wait for a sync would be spoken by a leader that is
        // none any more.
        self.withheld.retain(|withheld| {
            !matches!(&withheld.message, Message::Prepare { ballot: held, .. } if *held == ballot)
        });
        self.refuse_reads(output);
        if mutant!(LostBeforeSettled) {
            output.lost.extend(self.learner.own_batches());
        }
        self.election.on_deposed(reason, now.mono_us);
        output.notes.push(Note::Deposed { ballot, led, reason });
        self.note_leader(output);
        // Whoever has handed over leaves the others in their belief until the next one leads.
        // After a change nobody is to take over from a leader that is about to go on.
        if led && !matches!(reason, Deposed::HandedOver | Deposed::NewConfiguration) {
            self.send_heartbeats(now, output);
        }
    }

    pub(super) fn start_read_round(&mut self, now: Now, output: &mut Output) {
        let Proposer::Leading(leading) = &self.proposer else { return };
        let ballot = leading.ballot;
        let Some(round) = self.reads.start(self.settings.id, leading.next_slot, now.mono_us) else {
            return;
        };
        for peer in self.others() {
            self.send(peer, Message::Confirm { ballot, round }, output);
        }
    }
}
