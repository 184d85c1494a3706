//! What is not answered as it was asked: requests whose slot went to another's batch are refused, and
//! a fate that cannot be known, or cannot be told without harm, is never answered at all.
//!
//! An error means "surely not done", and many libraries send such a request again by themselves. So
//! nothing that stands behind a refused write on its connection may have been served or done: the
//! program's order would be turned round, a GET would overtake its SET (PITFALLS 110). What is held
//! behind it, and reads that ride in a later batch, are refused with it. A write in a later batch may
//! be chosen yet: then the refusal waits for that verdict. If it is lost, too, both are refused, in
//! order; if it was done, nobody is answered and the connection is closed, which says nothing about
//! anything. A library that sends everything again then sends it in order.

use std::collections::{BTreeMap, BTreeSet};

use paxos::{BatchId, Now};

use super::{InFlight, Item, ItemKind, Node, VERDICT_US_MAX};
use crate::clients::{Held, Lost, SessionId};
use crate::membership::Verdict;
use crate::resp::Reply;

impl Node {
    /// Other batches were chosen in these ones' slots. Must be called before anything above those
    /// slots is applied: what is behind a lost write on its connection is not to be answered.
    pub(super) fn refuse_lost(&mut self, now: Now, lost: Vec<BatchId>) {
        // By session: the first of its batches that was lost.
        let mut losers: BTreeMap<SessionId, BatchId> = BTreeMap::new();
        for id in lost {
            self.verdicts.push((id, Verdict::Lost));
            let Some(InFlight { items, .. }) = self.settled(id) else { continue };
            self.counts.batches_lost += 1;
            for item in items {
                losers.entry(item.session).or_insert(id);
                self.lose(&item);
            }
        }
        if losers.is_empty() {
            return;
        }
        let undecided = self.lose_reads_behind(&losers);
        for session in losers.into_keys() {
            while let Some(Held { sequence, request }) = self.clients.take_first_held(session) {
                let reply = self.not_done(now, request.hash_slot());
                self.refuse_held(session, sequence, request, &reply);
            }
            if !undecided.contains(&session) {
                self.answer_lost(now, session);
            }
        }
    }

    fn lose(&mut self, item: &Item) {
        let Some(client) = self.clients.get_mut(item.session) else { return };
        client.writes_pending -= 1;
        client.values_pending -= u32::from(item.answers_value);
        client.promised_bytes -= item.reply_bytes;
        client.lost.push(Lost { sequence: item.sequence, hash_slot: item.hash_slot });
    }

    /// Reads of these sessions that ride in batches behind the lost ones are lost as well. Answers
    /// the sessions that have writes there, which may yet be done.
    fn lose_reads_behind(&mut self, losers: &BTreeMap<SessionId, BatchId>) -> BTreeSet<SessionId> {
        let mut undecided = BTreeSet::new();
        let mut reads = Vec::new();
        for (id, batch) in &mut self.in_flight {
            // A process numbers its batches in the order of their slots.
            let is_behind = |item: &Item| losers.get(&item.session).is_some_and(|lost| lost < id);
            let is_read = |item: &Item| matches!(item.kind, ItemKind::Read(_));
            reads.extend(batch.items.extract_if(.., |item| is_behind(item) && is_read(item)));
            undecided.extend(batch.items.iter().filter(|item| is_behind(item)).map(|i| i.session));
        }
        reads.iter().for_each(|item| self.lose(item));
        undecided
    }

    /// Refuses what this session has lost, as nothing behind it can be done any more.
    fn answer_lost(&mut self, now: Now, session: SessionId) {
        let Some(client) = self.clients.get_mut(session) else { return };
        if client.closing {
            return;
        }
        for Lost { sequence, hash_slot } in std::mem::take(&mut client.lost) {
            let reply = self.not_done(now, hash_slot);
            self.clients.complete(session, sequence, &reply);
        }
    }

    /// Whether a connection waits to be told what it has lost: what it sends is refused behind that.
    pub(super) fn has_lost(&self, session: SessionId) -> bool {
        self.clients.get(session).is_some_and(|client| !client.lost.is_empty())
    }

    /// The redirection for a request that was surely not done, or the wish to try again.
    pub(super) fn not_done(&self, now: Now, hash_slot: u16) -> Reply {
        self.moved_to(now, hash_slot).unwrap_or_else(|| {
            Reply::error("TRYAGAIN The leader changed, the command was not executed")
        })
    }

    /// The fate of this batch cannot be learned here: no reply would be true, so the connections
    /// are closed.
    pub(super) fn cut_off(&mut self, id: BatchId) {
        let Some(in_flight) = self.settled(id) else { return };
        self.counts.batches_unknown += 1;
        for item in in_flight.items {
            self.close_unanswered(item.session);
        }
    }

    /// The first request without a reply never gets one, so nothing behind it leaves, either.
    pub(super) fn close_unanswered(&mut self, session: SessionId) {
        if let Some(client) = self.clients.get_mut(session) {
            client.closing = true;
        }
        self.clients.touch(session);
    }

    /// Clients of batches whose fate stays unknown for too long after this node was deposed.
    pub(super) fn give_up_verdicts(&mut self, now: Now) {
        if self.replica.leading().is_some() {
            return;
        }
        let overdue: Vec<BatchId> = self
            .in_flight
            .iter()
            .filter(|(_, batch)| {
                now.mono_us.saturating_sub(batch.proposed_us.max(self.deposed_us)) > VERDICT_US_MAX
            })
            .map(|(id, _)| *id)
            .collect();
        for id in overdue {
            self.cut_off(id);
        }
    }
}
