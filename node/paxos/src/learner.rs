//! The learner: which slots are known chosen, strictly in order.
//!
//! A slot may be tallied, or marked by a hint, long before its turn; it is *declared* chosen and
//! handed to the store only when every lower one is, because which configuration rules a slot is
//! known only then (DESIGN §3, chosen in order).

use std::collections::BTreeMap;

use crate::acceptor::Acceptor;
use crate::ballot::Slot;
use crate::message::{BatchId, Value};

/// Invariant: every slot below `first_unchosen` is chosen and has been handed out once.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Learner {
    pub(crate) first_unchosen: Slot,
    /// Batches of this process by the one slot each was proposed in, until that slot is settled.
    /// They outlive the ballot: a deposed leader's clients wait for the log's verdict.
    own_batches: BTreeMap<Slot, BatchId>,
}

/// One slot declared chosen.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Declared {
    pub(crate) slot: Slot,
    pub(crate) value: Value,
    /// A batch of this process that was proposed here and lost the slot to another.
    pub(crate) lost: Option<BatchId>,
}

impl Learner {
    pub(crate) fn new(first_unchosen: Slot) -> Learner {
        Learner { first_unchosen, own_batches: BTreeMap::new() }
    }

    /// Notes that this process proposes `id` in `slot`, and nowhere else (one batch, one slot).
    pub(crate) fn propose(&mut self, slot: Slot, id: BatchId) {
        assert!(slot >= self.first_unchosen, "slot {slot} is chosen, batch {id:?} cannot go there");
        let former = self.own_batches.insert(slot, id);
        if let Some(former) = former {
            // A former reign proposed in this slot, and the quorum of this reign's phase 1 did not
            // report it: it can still not be chosen any more only once the slot is settled. The
            // proposer never starts a fresh batch in such a slot, so this is a broken invariant.
            panic!("slot {slot} already waits for the fate of batch {former:?}");
        }
    }

    pub(crate) fn own_batches(&self) -> impl Iterator<Item = BatchId> + '_ {
        self.own_batches.values().copied()
    }

    /// The highest slot with such a batch.
    pub(crate) fn last_own_slot(&self) -> Option<Slot> {
        self.own_batches.last_key_value().map(|(slot, _)| *slot)
    }

    /// Declares the next slot if it is marked chosen.
    pub(crate) fn declare_next(&mut self, acceptor: &Acceptor) -> Option<Declared> {
        let slot = self.first_unchosen;
        if !acceptor.is_chosen(slot) {
            return None;
        }
        let value = acceptor.entry(slot)?.value.clone();
        self.first_unchosen = slot.next();
        let lost = self.own_batches.remove(&slot).filter(|id| value.batch_id() != Some(*id));
        Some(Declared { slot, value, lost })
    }

    /// A snapshot covers every slot below `below`; own batches there have an unknown fate.
    pub(crate) fn install(&mut self, below: Slot) -> Vec<BatchId> {
        assert!(below >= self.first_unchosen, "a snapshot below {below} is older than the log");
        let above = self.own_batches.split_off(&below);
        let unknown = std::mem::replace(&mut self.own_batches, above);
        self.first_unchosen = below;
        unknown.into_values().collect()
    }
}
