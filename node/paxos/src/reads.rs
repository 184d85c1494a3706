//! Linearizable reads by a quorum round.
//!
//! A read notes the last slot that was chosen when it arrived. A round *started afterwards* asks a
//! quorum whether it still promises this ballot. If it does, no higher ballot had a quorum of
//! promises when the read arrived, so nothing was chosen that this leader does not know
//! (Paxos's read-only quorum round; Raft thesis §6.4 calls it ReadIndex). Reads that arrive while
//! a round is under way wait for the next one: it must not have started before them.

use crate::ballot::{NodeId, Slot};
use crate::configuration::Configuration;
use crate::output::ReadId;
use crate::quorum::Tally;

/// Who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    Own(ReadId),
    /// A follower, with its own number for the read.
    Peer(NodeId, u64),
}

#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Reads {
    round: u64,
    /// Not in a round yet.
    waiting: Vec<(Asker, Slot)>,
    under_way: Option<Round>,
}

#[derive(Clone, Debug, Hash)]
struct Round {
    number: u64,
    started_us: u64,
    /// The first slot proposed after the round began: an Accepted from there on confirms too.
    from_slot: Slot,
    tally: Tally,
    reads: Vec<(Asker, Slot)>,
}

impl Reads {
    pub(crate) fn add(&mut self, asker: Asker, slot: Slot) {
        match &mut self.under_way {
            Some(round) if mutant!(ReadJoinsOlderRound) => round.reads.push((asker, slot)),
            _ => self.waiting.push((asker, slot)),
        }
    }

    /// Starts a round for all that wait, unless one is under way. Returns its number.
    pub(crate) fn start(&mut self, own: NodeId, next_slot: Slot, now_us: u64) -> Option<u64> {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.round += 1;
        let mut tally = Tally::default();
        tally.add(own);
        self.under_way = Some(Round {
            number: self.round,
            started_us: now_us,
            from_slot: next_slot,
            tally,
            reads: std::mem::take(&mut self.waiting),
        });
        Some(self.round)
    }

    /// A round that has had no quorum for this long is asked again, under a new number.
    pub(crate) fn give_up_round(&mut self, now_us: u64, resend_us: u64) {
        if let Some(round) = &mut self.under_way
            && now_us.saturating_sub(round.started_us) >= resend_us
        {
            let mut reads = std::mem::take(&mut round.reads);
            reads.append(&mut self.waiting);
            self.waiting = reads;
            self.under_way = None;
        }
    }

    pub(crate) fn on_confirmed(&mut self, from: NodeId, number: u64) {
        if let Some(round) = &mut self.under_way
            && round.number == number
        {
            round.tally.add(from);
        }
    }

    /// An Accepted for a slot that was proposed after the round began says the same.
    pub(crate) fn on_accepted(&mut self, from: NodeId, slot: Slot) {
        if let Some(round) = &mut self.under_way
            && slot >= round.from_slot
        {
            round.tally.add(from);
        }
    }

    /// The reads of the round, once a quorum has confirmed it.
    pub(crate) fn take_confirmed(
        &mut self,
        configuration: &Configuration,
    ) -> Option<Vec<(Asker, Slot)>> {
        let confirmed = self.under_way.as_ref()?.tally.reached(configuration);
        if !confirmed {
            return None;
        }
        self.under_way.take().map(|round| round.reads)
    }

    /// This node no longer leads: all reads that wait, to be redirected.
    pub(crate) fn take_all(&mut self) -> Vec<Asker> {
        let under_way = self.under_way.take().map(|round| round.reads).unwrap_or_default();
        let waiting = std::mem::take(&mut self.waiting);
        under_way.into_iter().chain(waiting).map(|(asker, _)| asker).collect()
    }
}
