//! The proposer: phase 1 once for all slots, then phase 2 for many slots at once.
//!
//! Phase 1 asks a quorum what it has accepted from `first_unchosen` on. What it reports is proposed
//! again under the new ballot (for each slot the value of the highest ballot, rule P2c of *Paxos
//! Made Simple* §2.2), gaps are filled with no-ops, and one no-op of the own ballot closes the
//! adopted tail. From then on every batch takes the next slot, without waiting for the one before.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use crate::ballot::{Ballot, NodeId, Slot};
use crate::configuration::Configuration;
use crate::message::{Accepted, BatchId, PromisedEntry, Value};
use crate::quorum::Tally;
use crate::settings::Limits;

#[derive(Clone, Debug, Hash)]
pub(crate) enum Proposer {
    Following,
    Preparing(Preparing),
    Leading(Leading),
}

impl Proposer {
    /// What decides the proposer's steps from here on, without its clocks.
    pub(crate) fn hash_standing<H: Hasher>(&self, hasher: &mut H) {
        std::mem::discriminant(self).hash(hasher);
        match self {
            Proposer::Following => {}
            Proposer::Preparing(preparing) => {
                let Preparing { ballot, release, from_slot, answers, highest, .. } = preparing;
                (ballot, release, from_slot, answers, highest).hash(hasher);
                preparing.configuration.number.hash(hasher);
            }
            Proposer::Leading(leading) => {
                let Leading { ballot, stop, next_slot, hint, own_slot, .. } = leading;
                (ballot, stop, next_slot, hint, own_slot).hash(hasher);
                leading.configuration.number.hash(hasher);
                leading.handover.map(|handover| handover.to).hash(hasher);
                for (slot, proposal) in &leading.in_flight {
                    // A slot that has its quorum needs no more votes.
                    let open = (!proposal.tallied).then_some(&proposal.tally);
                    (slot, &proposal.value, open).hash(hasher);
                }
            }
        }
    }
}

/// Phase 1 under way.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Preparing {
    pub(crate) ballot: Ballot,
    /// The ballot whose leader has handed over to this node.
    pub(crate) release: Option<Ballot>,
    /// Whose promises count: one ballot, one configuration.
    pub(crate) configuration: Configuration,
    pub(crate) from_slot: Slot,
    pub(crate) started_us: u64,
    pub(crate) deadline_us: u64,
    /// When the Prepares were sent last; they are repeated to whoever has not answered.
    pub(crate) sent_us: u64,
    answers: BTreeMap<NodeId, Answer>,
    /// For each slot the highest entry reported so far.
    highest: BTreeMap<Slot, (Accepted, Value)>,
}

/// How much of one acceptor's answer has arrived.
#[derive(Clone, Debug, Hash)]
struct Answer {
    /// All its entries below are here; `None` when all are.
    covered_to: Option<Slot>,
    /// Chunks that came before their predecessors: where each starts and ends.
    ahead: BTreeMap<Slot, Option<Slot>>,
    wall_ms: u64,
}

impl Answer {
    /// A chunk for the slots from `start` to `end` is here. Chunks may come in any order and from
    /// different repeats of the answer; one that leaves a hole waits until the hole is filled.
    fn cover(&mut self, start: Slot, end: Option<Slot>) {
        if mutant!(FirstChunkIsAll) {
            self.covered_to = None;
        }
        let longer = |held: Option<Slot>| match (held, end) {
            (Some(held), Some(end)) => Some(held.max(end)),
            (None, _) | (_, None) => None,
        };
        let held = self.ahead.remove(&start);
        self.ahead.insert(start, held.map_or(end, longer));
        while let (Some(covered_to), Some(next)) = (self.covered_to, self.ahead.first_entry()) {
            if *next.key() > covered_to {
                return;
            }
            self.covered_to = next.remove().map(|end| end.max(covered_to));
        }
        self.ahead.clear();
    }
}

impl Preparing {
    pub(crate) fn new(
        ballot: Ballot,
        configuration: Configuration,
        from_slot: Slot,
        now_us: u64,
        deadline_us: u64,
    ) -> Preparing {
        Preparing {
            ballot,
            release: None,
            configuration,
            from_slot,
            started_us: now_us,
            deadline_us,
            sent_us: now_us,
            answers: BTreeMap::new(),
            highest: BTreeMap::new(),
        }
    }

    /// Takes one chunk of a promise. Values that were left out because this node holds them come
    /// from `own`.
    pub(crate) fn on_promise(
        &mut self,
        from: NodeId,
        (start, end): (Slot, Option<Slot>),
        entries: Vec<PromisedEntry>,
        wall_ms: u64,
        own: impl Fn(Slot, Ballot) -> Option<Value>,
    ) {
        for PromisedEntry { slot, accepted, value } in entries {
            let value = value.or_else(|| match accepted {
                Accepted::Under(ballot) => own(slot, ballot),
                Accepted::Chosen => None,
            });
            // The own entry is gone only when it became chosen or was overwritten by a higher
            // ballot; both are reported by the own acceptor or end this candidacy.
            let Some(value) = value else { continue };
            let known = self.highest.get(&slot).map(|(held, _)| *held);
            let is_higher = known.is_none_or(|held| accepted > held);
            let is_lower = known.is_none_or(|held| accepted < held);
            if is_higher && !mutant!(AdoptLowest) || is_lower && mutant!(AdoptLowest) {
                self.highest.insert(slot, (accepted, value));
            }
        }
        let fresh = Answer { covered_to: Some(self.from_slot), ahead: BTreeMap::new(), wall_ms };
        self.answers.entry(from).or_insert(fresh).cover(start, end);
    }

    pub(crate) fn has_answered(&self, node: NodeId) -> bool {
        self.answers.get(&node).is_some_and(|answer| answer.covered_to.is_none())
    }

    /// Have enough acceptors answered in full?
    pub(crate) fn reached(&self) -> bool {
        let mut tally = Tally::default();
        for node in self.answers.keys().filter(|node| self.has_answered(**node)) {
            tally.add(*node);
        }
        tally.reached(&self.configuration)
    }

    /// The value to adopt for a slot, if anybody reported one.
    pub(crate) fn adopted(&self, slot: Slot) -> Option<&Value> {
        let adopted = self.highest.get(&slot).map(|(_, value)| value);
        adopted.filter(|_| !mutant!(AdoptNothing))
    }

    pub(crate) fn last_slot(&self) -> Option<Slot> {
        self.highest.last_key_value().map(|(slot, _)| *slot)
    }

    /// Lower median of the wall clocks of those who answered in full. One that is ahead does nothing;
    /// of a bare quorum of two the one that is behind counts, so whoever takes this for the time has
    /// to bound what it makes of a difference (PITFALLS 107).
    pub(crate) fn wall_ms_median(&self) -> u64 {
        let mut clocks: Vec<u64> = self
            .answers
            .values()
            .filter(|answer| answer.covered_to.is_none())
            .map(|answer| answer.wall_ms)
            .collect();
        clocks.sort_unstable();
        clocks.get(clocks.len().saturating_sub(1) / 2).copied().unwrap_or(0)
    }
}

/// One slot in flight.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Proposal {
    pub(crate) value: Value,
    pub(crate) tally: Tally,
    /// A quorum has accepted; declared chosen when every lower slot is.
    pub(crate) tallied: bool,
    pub(crate) first_sent_us: u64,
    pub(crate) sent_us: u64,
}

/// A slot that this ballot has tallied, until every member has it.
#[derive(Clone, Debug, Hash)]
struct Settled {
    tally: Tally,
    sent_us: u64,
}

/// A leader that drains before it lets go.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Handover {
    pub(crate) to: NodeId,
    pub(crate) deadline_us: u64,
}

/// The stop sign: nothing is proposed above a new configuration before it is chosen, and it is
/// proposed above nothing that is not.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Stop {
    /// The pipeline runs dry first.
    Waiting { id: BatchId, configuration: Configuration },
    /// It is in flight.
    Proposed,
}

/// Phase 2.
///
/// Invariants:
/// - `hint` ≤ every slot in `in_flight`; every slot below `hint` was known chosen when phase 1
///   ended, or was tallied by this ballot;
/// - `in_flight` has no gap between `hint` and `next_slot`.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Leading {
    pub(crate) ballot: Ballot,
    /// Whose votes count: one ballot, one configuration.
    pub(crate) configuration: Configuration,
    /// A change of the configuration is under way.
    pub(crate) stop: Option<Stop>,
    pub(crate) next_slot: Slot,
    /// Acceptors may take as chosen what they hold below, under this ballot.
    pub(crate) hint: Slot,
    /// The no-op that opened this reign. Reads wait for it.
    pub(crate) own_slot: Slot,
    pub(crate) in_flight: BTreeMap<Slot, Proposal>,
    pub(crate) in_flight_bytes: usize,
    /// When a slot was last tallied, or the first was proposed into an idle pipeline.
    pub(crate) progress_us: u64,
    /// A handover is under way: nothing new is proposed, read or renewed.
    pub(crate) handover: Option<Handover>,
    settled: BTreeMap<Slot, Settled>,
}

/// Whether a member needs a slot by `Chosen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It holds the entry under this ballot, or the Accept is still fresh: the hint will do.
    UnderWay,
    Needed,
}

impl Leading {
    /// Who has what this ballot has chosen: a handover waits for it.
    pub(crate) fn hash_deliveries<H: Hasher>(&self, hasher: &mut H) {
        self.settled.iter().for_each(|(slot, settled)| (slot, &settled.tally).hash(hasher));
        self.in_flight.iter().for_each(|(slot, proposal)| (slot, &proposal.tally).hash(hasher));
    }

    /// Slots that stay in memory after they were chosen, to know who has them.
    const SETTLED_MAX: usize = 4096;

    pub(crate) fn new(
        ballot: Ballot,
        configuration: Configuration,
        first_slot: Slot,
        now_us: u64,
    ) -> Leading {
        Leading {
            ballot,
            configuration,
            stop: None,
            next_slot: first_slot,
            hint: first_slot,
            own_slot: first_slot,
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            progress_us: now_us,
            handover: None,
            settled: BTreeMap::new(),
        }
    }

    /// A single batch may exceed the bytes of the window, or it could never be proposed.
    pub(crate) fn has_room_for(&self, bytes: usize, limits: Limits) -> bool {
        if self.handover.is_some() {
            return false;
        }
        if self.stop.is_some() && !mutant!(ValuesAboveConfiguration) {
            return false;
        }
        let slots = self.next_slot.0 - self.hint.0;
        slots < limits.window_slots
            && (slots == 0 || self.in_flight_bytes + bytes <= limits.window_bytes)
    }

    /// Puts `value` into the next slot.
    pub(crate) fn propose(&mut self, value: Value, now_us: u64) -> Slot {
        let slot = self.next_slot;
        self.next_slot = slot.next();
        if self.in_flight.is_empty() {
            self.progress_us = now_us;
        }
        self.in_flight_bytes += value.len_bytes();
        let proposal = Proposal {
            value,
            tally: Tally::default(),
            tallied: false,
            first_sent_us: now_us,
            sent_us: now_us,
        };
        self.in_flight.insert(slot, proposal);
        slot
    }

    /// Counts an Accepted. True when it completes the slot's quorum.
    pub(crate) fn on_accepted(&mut self, from: NodeId, slot: Slot) -> bool {
        if let Some(settled) = self.settled.get_mut(&slot) {
            settled.tally.add(from);
            if self.configuration.members.keys().all(|member| settled.tally.contains(*member)) {
                self.settled.remove(&slot);
            }
            return false;
        }
        let Some(proposal) = self.in_flight.get_mut(&slot) else { return false };
        proposal.tally.add(from);
        let completes = !proposal.tallied && proposal.tally.reached(&self.configuration);
        proposal.tallied |= completes;
        completes
    }

    /// Takes the next slot out of flight once it and all before it are tallied.
    pub(crate) fn settle_next(&mut self, now_us: u64) -> Option<(Slot, u64)> {
        let slot = self.hint;
        let overtaken = mutant!(ChosenOutOfOrder) && self.in_flight.values().any(|p| p.tallied);
        if !self.in_flight.get(&slot)?.tallied && !overtaken {
            return None;
        }
        let proposal = self.in_flight.remove(&slot)?;
        self.hint = slot.next();
        self.in_flight_bytes -= proposal.value.len_bytes();
        self.progress_us = now_us;
        let settled = Settled { tally: proposal.tally, sent_us: proposal.sent_us };
        self.settled.insert(slot, settled);
        if self.settled.len() > Self::SETTLED_MAX {
            self.settled.pop_first();
        }
        Some((slot, now_us.saturating_sub(proposal.first_sent_us)))
    }

    /// Does `peer`, which lacks chosen slot `slot`, need it by `Chosen`? Not while its Accept may
    /// still be on the way, or a slow follower would be sent everything twice.
    pub(crate) fn delivery(
        &self,
        peer: NodeId,
        slot: Slot,
        now_us: u64,
        resend_us: u64,
    ) -> Delivery {
        match self.settled.get(&slot) {
            Some(settled) if settled.tally.contains(peer) => Delivery::UnderWay,
            Some(settled) if now_us.saturating_sub(settled.sent_us) < resend_us => {
                Delivery::UnderWay
            }
            _ => Delivery::Needed,
        }
    }

    /// Has `peer` all that this ballot has chosen? It knows the slots below `first_unchosen`, and
    /// must have accepted the others.
    pub(crate) fn has_all(&self, peer: NodeId, first_unchosen: Slot) -> bool {
        let mut later = self.settled.range(first_unchosen..).map(|(_, settled)| settled);
        self.in_flight.is_empty()
            && self.hint.0 <= first_unchosen.0 + Self::SETTLED_MAX as u64
            && later.all(|settled| settled.tally.contains(peer))
    }

    /// Does it prove a higher ballot that `value` is chosen in `slot`? So it does where this ballot
    /// proposed something else and has not tallied it, and where it has proposed nothing at all:
    /// whatever lower ballots got chosen was reported in phase 1.
    pub(crate) fn outvoted_by(&self, slot: Slot, value: &Value) -> bool {
        let other = |proposal: &Proposal| !proposal.tallied && proposal.value != *value;
        slot >= self.next_slot || self.in_flight.get(&slot).is_some_and(other)
    }
}
