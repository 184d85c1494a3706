//! Reads that are not served at the leader: a follower asks for the leader's read index, and serves
//! the read itself once its store has applied that slot.

use std::collections::BTreeMap;

use super::{Refusal, Replica};
use crate::ballot::{NodeId, Slot};
use crate::message::Message;
use crate::output::{Output, ReadId};
use crate::proposer::Proposer;
use crate::reads::Asker;
use crate::settings::Now;

/// Reads of this node that were asked of a leader, until they can be served.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Asked {
    waiting: BTreeMap<ReadId, AskedRead>,
    /// The answer is here; the slot has to be applied.
    indexed: Vec<(ReadId, Slot)>,
}

#[derive(Clone, Copy, Debug, Hash)]
struct AskedRead {
    leader: NodeId,
    asked_us: u64,
    sent_us: u64,
}

impl Replica {
    /// Asks the leader for a read point, on behalf of a read that this follower serves itself. The
    /// answer is in `Output::reads` or `Output::reads_refused`. No former process of this node may
    /// have used `id`: a late answer to its question would be taken for the one to this.
    pub fn read_at_follower(
        &mut self,
        now: Now,
        id: ReadId,
        output: &mut Output,
    ) -> Result<(), Refusal> {
        self.notice_lateness(now);
        let leader = self.happy_with(now).filter(|leader| *leader != self.settings.id);
        let Some(leader) = leader else {
            return Err(Refusal::NotLeading { leader: self.leader() });
        };
        let read = AskedRead { leader, asked_us: now.mono_us, sent_us: now.mono_us };
        self.asked.waiting.insert(id, read);
        self.send(leader, Message::ReadIndex { read: id.0 }, output);
        Ok(())
    }

    /// The reads up to this number wait no longer: whoever asked has gone another way.
    pub fn forget_reads_at_follower(&mut self, up_to: ReadId) {
        self.asked.waiting.retain(|id, _| *id > up_to);
        self.asked.indexed.retain(|(id, _)| *id > up_to);
    }

    /// A leader is asked for its read index. It counts from here: the question arrived before `now`
    /// was sampled, so a lease that is valid at `now` covers it; else a round has to.
    pub(super) fn on_read_index(&mut self, now: Now, from: NodeId, read: u64, output: &mut Output) {
        let Proposer::Leading(leading) = &self.proposer else {
            return self.send(from, Message::ReadFrom { read, slot: None }, output);
        };
        let (ballot, slot) = (leading.ballot, self.read_point(leading.own_slot));
        if self.holds_lease(now, ballot) {
            return self.send(from, Message::ReadFrom { read, slot: Some(slot) }, output);
        }
        self.reads.add(Asker::Peer(from, read), slot);
    }

    /// What a read that arrives now must not miss. Whatever former leaders acknowledged lies below
    /// the own no-op (PITFALLS 32).
    pub(super) fn read_point(&self, own_slot: Slot) -> Slot {
        let last_chosen = Slot(self.learner.first_unchosen.0 - 1);
        match mutant!(ReadBeforeOwnEntry) {
            true => last_chosen,
            false => last_chosen.max(own_slot),
        }
    }

    pub(super) fn on_read_from(
        &mut self,
        from: NodeId,
        read: u64,
        slot: Option<Slot>,
        output: &mut Output,
    ) {
        let id = ReadId(read);
        if self.asked.waiting.get(&id).is_none_or(|asked| asked.leader != from) {
            return;
        }
        self.asked.waiting.remove(&id);
        match slot {
            Some(slot) => self.asked.indexed.push((id, slot)),
            None => output.reads_refused.push(id),
        }
    }

    /// Hands out the reads whose slot is chosen here, and so about to be applied.
    pub(super) fn serve_asked(&mut self, output: &mut Output) {
        let first_unchosen = self.learner.first_unchosen;
        let served = self.asked.indexed.extract_if(.., |(_, slot)| *slot < first_unchosen);
        output.reads.extend(served);
    }

    /// Answers to reads, each to whoever asked.
    pub(super) fn answer_reads(&mut self, reads: Vec<(Asker, Slot)>, output: &mut Output) {
        for (asker, slot) in reads {
            match asker {
                Asker::Own(id) => output.reads.push((id, slot)),
                Asker::Peer(to, read) => {
                    self.send(to, Message::ReadFrom { read, slot: Some(slot) }, output);
                }
            }
        }
    }

    /// This node can no longer answer: the ballot under which they wait is over.
    pub(super) fn refuse_reads(&mut self, output: &mut Output) {
        for asker in self.reads.take_all() {
            match asker {
                Asker::Own(id) => output.reads_refused.push(id),
                Asker::Peer(to, read) => {
                    self.send(to, Message::ReadFrom { read, slot: None }, output);
                }
            }
        }
    }

    /// Repeats questions, and gives up those whose leader is gone or silent.
    pub(super) fn ask_again(&mut self, now: Now, output: &mut Output) {
        let resend_us = self.settings.timing.resend_us;
        let patience_us = 2 * resend_us;
        let leader = self.happy_with(now);
        let is_over = |read: &AskedRead| {
            leader != Some(read.leader) || now.mono_us.saturating_sub(read.asked_us) >= patience_us
        };
        self.asked.waiting.retain(|id, read| {
            let over = is_over(read);
            output.reads_refused.extend(over.then_some(*id));
            !over
        });
        let mut again = Vec::new();
        for (id, read) in &mut self.asked.waiting {
            if now.mono_us.saturating_sub(read.sent_us) >= resend_us / 2 {
                read.sent_us = now.mono_us;
                again.push((read.leader, id.0));
            }
        }
        for (leader, read) in again {
            self.send(leader, Message::ReadIndex { read }, output);
        }
    }
}
