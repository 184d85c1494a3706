//! The acceptor: what this node has promised, and what it has accepted.
//!
//! Two variables never stand for one another: `promised` is the ballot below which nothing is
//! answered any more; each entry's own ballot says under which one it was accepted (PITFALLS 60).
//! A promise covers *all* slots, also those never seen (PITFALLS 12). The acceptor only decides;
//! the `Replica` writes the records and withholds the answers until they are synced.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use crate::ballot::{Ballot, Slot};
use crate::message::{Accepted, PromisedEntry, Value};
use crate::settings::Limits;

/// One slot as this node holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) accepted: Accepted,
    pub(crate) value: Value,
}

/// Invariants:
/// - `promised` never goes down;
/// - no entry is held under a ballot above `promised`;
/// - an entry that is `Chosen` never changes;
/// - an entry below `first_kept` is chosen: it was learned again for a store that restarted from an
///   older snapshot, and is never spoken of to others.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Acceptor {
    promised: Ballot,
    entries: BTreeMap<Slot, Entry>,
    first_kept: Slot,
    /// The newest hint: below this slot, whatever is held under this ballot is chosen. Kept so
    /// that an Accept that arrives after its hint is marked at once.
    hint: (Ballot, Slot),
}

/// What the acceptor says to a Prepare.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PrepareAnswer {
    /// The promise stands; `raised` when it is new and has to be written.
    Promise { raised: bool },
    /// A higher ballot is promised.
    Refuse,
    /// The candidate asks about trimmed slots.
    Behind,
}

/// What the acceptor says to an Accept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AcceptAnswer {
    /// Taken: the entry has to be written. `chosen` when a hint had already covered it.
    Taken {
        chosen: bool,
    },
    /// This very entry was held before (a repeat), or is known chosen with the same value.
    Held {
        raised: bool,
    },
    /// Something else is known chosen there: the sender is outvoted.
    ChosenOtherwise(Value),
    Refuse,
    Behind,
}

/// What learning a chosen value changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Known before.
    Already,
    /// The entry was held, now it is marked: nothing to write.
    Marked,
    /// The value is new to this node and has to be written.
    Stored,
}

impl Acceptor {
    /// The acceptor as recovered: see `Replica::recover`.
    pub(crate) fn new(
        promised: Ballot,
        entries: BTreeMap<Slot, Entry>,
        first_kept: Slot,
    ) -> Acceptor {
        let acceptor = Acceptor { promised, entries, first_kept, hint: (Ballot::ZERO, Slot::ZERO) };
        for (slot, entry) in &acceptor.entries {
            match entry.accepted {
                Accepted::Chosen => {}
                Accepted::Under(ballot) => {
                    assert!(
                        *slot >= first_kept,
                        "slot {slot} is kept, the log is trimmed below {first_kept}"
                    );
                    assert!(
                        ballot <= promised,
                        "slot {slot} was accepted under {ballot}, above the promise {promised}"
                    );
                }
            }
        }
        acceptor
    }

    pub(crate) fn promised(&self) -> Ballot {
        self.promised
    }

    pub(crate) fn first_kept(&self) -> Slot {
        self.first_kept
    }

    pub(crate) fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(&slot)
    }

    pub(crate) fn last_slot(&self) -> Option<Slot> {
        self.entries.last_key_value().map(|(slot, _)| *slot)
    }

    /// Phase 1b, for all slots from `from_slot` on.
    pub(crate) fn prepare(&mut self, ballot: Ballot, from_slot: Slot) -> PrepareAnswer {
        if ballot < self.promised && !mutant!(PromiseGoesBack) {
            return PrepareAnswer::Refuse;
        }
        // Nothing may be said of trimmed slots: "unreadable" never counts as "nothing accepted"
        // (PITFALLS 61, 100). And no promise either, or the candidate would count it.
        if from_slot < self.first_kept && !mutant!(PromiseFromTrimmedLog) {
            return PrepareAnswer::Behind;
        }
        PrepareAnswer::Promise { raised: self.raise(ballot) }
    }

    /// Every kept entry from `from_slot` on, in chunks of about `limits.chunk_bytes`. Values that the
    /// candidate holds itself, under the same ballot, are left out.
    pub(crate) fn report(
        &self,
        from_slot: Slot,
        holds: &[(Slot, Ballot)],
        limits: Limits,
    ) -> Vec<(Slot, Option<Slot>, Vec<PromisedEntry>)> {
        let mut chunks = Vec::new();
        let mut chunk_start = from_slot;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (&slot, entry) in self.entries.range(from_slot..) {
            if bytes >= limits.chunk_bytes {
                chunks.push((chunk_start, Some(slot), std::mem::take(&mut entries)));
                chunk_start = slot;
                bytes = 0;
            }
            let held_there = match entry.accepted {
                Accepted::Under(ballot) => holds.binary_search(&(slot, ballot)).is_ok(),
                Accepted::Chosen => false,
            };
            let value = (!held_there).then(|| entry.value.clone());
            bytes += 32 + value.as_ref().map_or(0, Value::len_bytes);
            entries.push(PromisedEntry { slot, accepted: entry.accepted, value });
        }
        chunks.push((chunk_start, None, entries));
        chunks
    }

    /// The entries from `from_slot` on that are not known chosen: what a Prepare lists.
    pub(crate) fn holds(&self, from_slot: Slot) -> Vec<(Slot, Ballot)> {
        self.entries
            .range(from_slot..)
            .filter_map(|(&slot, entry)| match entry.accepted {
                Accepted::Under(ballot) => Some((slot, ballot)),
                Accepted::Chosen => None,
            })
            .collect()
    }

    /// Phase 2b.
    pub(crate) fn accept(&mut self, ballot: Ballot, slot: Slot, value: &Value) -> AcceptAnswer {
        let never_seen = mutant!(PromiseOnlySlotsSeen) && !self.entries.contains_key(&slot);
        if ballot < self.promised && !never_seen {
            return AcceptAnswer::Refuse;
        }
        if slot < self.first_kept {
            return AcceptAnswer::Behind;
        }
        match self.entries.get(&slot) {
            Some(Entry { accepted: Accepted::Chosen, value: chosen }) => {
                if chosen != value {
                    return AcceptAnswer::ChosenOtherwise(chosen.clone());
                }
                return AcceptAnswer::Held { raised: self.raise(ballot) };
            }
            Some(Entry { accepted: Accepted::Under(held), value: held_value })
                if *held == ballot =>
            {
                assert!(
                    held_value == value,
                    "two values for slot {slot} under one ballot {ballot}"
                );
                return AcceptAnswer::Held { raised: false };
            }
            _ => {}
        }
        if !mutant!(AcceptDoesNotPromise) {
            self.raise(ballot);
        }
        let (hint_ballot, hint) = self.hint;
        let chosen = hint_ballot == ballot && slot < hint;
        let accepted = if chosen { Accepted::Chosen } else { Accepted::Under(ballot) };
        self.entries.insert(slot, Entry { accepted, value: value.clone() });
        AcceptAnswer::Taken { chosen }
    }

    /// A leader's hint: below `hint`, what this acceptor holds *under the same ballot* is chosen,
    /// since one (slot, ballot) carries one value. Entries of other ballots prove nothing
    /// (PITFALLS 16). Returns how many entries it marked.
    pub(crate) fn take_hint(&mut self, ballot: Ballot, hint: Slot, first_unchosen: Slot) -> u64 {
        let scanned = if self.hint.0 == ballot { self.hint.1 } else { Slot::ZERO };
        if hint <= scanned || ballot < self.hint.0 {
            return 0;
        }
        self.hint = (ballot, hint);
        let mut marked = 0;
        let from = scanned.max(first_unchosen);
        if from >= hint {
            return 0;
        }
        for (_, entry) in self.entries.range_mut(from..hint) {
            let is_of_this_ballot = entry.accepted == Accepted::Under(ballot);
            let is_open = entry.accepted != Accepted::Chosen;
            if is_of_this_ballot || (mutant!(HintAcrossBallots) && is_open) {
                entry.accepted = Accepted::Chosen;
                marked += 1;
            }
        }
        marked
    }

    /// `value` is chosen in `slot`, whoever says so. Two different chosen values are the one thing
    /// that Paxos exists to exclude: the node stops rather than go on with either.
    pub(crate) fn learn(&mut self, slot: Slot, value: &Value) -> Learned {
        match self.entries.get_mut(&slot) {
            Some(entry) if entry.accepted == Accepted::Chosen => {
                assert!(entry.value == *value, "slot {slot} is chosen with two different values");
                Learned::Already
            }
            Some(entry) if entry.value == *value => {
                entry.accepted = Accepted::Chosen;
                Learned::Marked
            }
            _ => {
                let entry = Entry { accepted: Accepted::Chosen, value: value.clone() };
                self.entries.insert(slot, entry);
                Learned::Stored
            }
        }
    }

    /// Own tally complete: the own entry, held under `ballot`, is chosen.
    pub(crate) fn mark_chosen(&mut self, slot: Slot, ballot: Ballot) {
        let entry =
            self.entries.get_mut(&slot).expect("a leader's own acceptor holds what it tallied");
        assert!(
            entry.accepted == Accepted::Under(ballot) || entry.accepted == Accepted::Chosen,
            "slot {slot} was tallied under {ballot} but is held as {:?}",
            entry.accepted
        );
        entry.accepted = Accepted::Chosen;
    }

    pub(crate) fn is_chosen(&self, slot: Slot) -> bool {
        self.entries.get(&slot).is_some_and(|entry| entry.accepted == Accepted::Chosen)
    }

    /// Slots from `first_unchosen` on that are not known chosen, below the last one that is.
    pub(crate) fn hole_count(&self, first_unchosen: Slot) -> u64 {
        let chosen =
            |(slot, entry): (&Slot, &Entry)| (entry.accepted == Accepted::Chosen).then_some(*slot);
        let Some(last) = self.entries.range(first_unchosen..).rev().find_map(chosen) else {
            return 0;
        };
        let known = self.entries.range(first_unchosen..=last).filter_map(chosen).count() as u64;
        last.0 + 1 - first_unchosen.0 - known
    }

    /// What decides the acceptor's answers from here on. A hint counts for nothing any more once
    /// all below it is known chosen, or its ballot can have nothing accepted here.
    pub(crate) fn hash_standing<H: Hasher>(&self, first_unchosen: Slot, hasher: &mut H) {
        (self.promised, &self.entries, self.first_kept).hash(hasher);
        let (ballot, hint) = self.hint;
        let matters = ballot > self.promised || ballot == self.promised && hint > first_unchosen;
        matters.then_some(self.hint).hash(hasher);
    }

    /// Drops all entries below `first_kept`.
    pub(crate) fn trim(&mut self, first_kept: Slot) {
        if first_kept > self.first_kept {
            self.entries = self.entries.split_off(&first_kept);
            self.first_kept = first_kept;
        }
    }

    /// Promises `ballot` if it is higher than the promise so far.
    pub(crate) fn raise(&mut self, ballot: Ballot) -> bool {
        let raised = ballot > self.promised || mutant!(PromiseGoesBack);
        if raised {
            if mutant!(OneVariableForPromisedAndAccepted) {
                let open = self.entries.values_mut().filter(|e| e.accepted != Accepted::Chosen);
                open.for_each(|entry| entry.accepted = Accepted::Under(ballot));
            }
            self.promised = ballot;
        }
        raised
    }
}
