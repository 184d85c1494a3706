//! Learning what is chosen, and bringing others up to date.

use super::Replica;
use crate::acceptor::Learned;
use crate::ballot::{Ballot, NodeId, Slot};
use crate::message::{Message, Value};
use crate::output::{Deposed, Note, Output, Record};
use crate::proposer::{Delivery, Proposer};
use crate::settings::Now;

impl Replica {
    /// `value` is chosen in `slot`. A leader that proposed something else there is outvoted and
    /// ends its ballot before it sends anything more (PITFALLS 111).
    pub(super) fn learn(&mut self, now: Now, slot: Slot, value: Value, output: &mut Output) {
        let outvoted = match &self.proposer {
            Proposer::Leading(leading) => leading.outvoted_by(slot, &value),
            Proposer::Preparing(_) | Proposer::Following => false,
        };
        if outvoted && !mutant!(OutvotedLeaderGoesOn) {
            self.end_ballot(now, Deposed::Outvoted, output);
        }
        if slot < self.learner.first_unchosen {
            return;
        }
        if self.acceptor.learn(slot, &value) == Learned::Stored {
            self.record(Record::Chosen { slot, value }, output);
        }
    }

    pub(super) fn take_hint(&mut self, ballot: Ballot, hint: Slot, output: &mut Output) {
        let count = self.acceptor.take_hint(ballot, hint, self.learner.first_unchosen);
        if count > 0 {
            output.notes.push(Note::ChosenByHint { count });
        }
    }

    /// Hands out every slot whose turn has come.
    pub(super) fn declare(&mut self, now: Now, output: &mut Output) {
        while let Some(declared) = self.learner.declare_next(&self.acceptor) {
            self.advanced_us = now.mono_us;
            output.lost.extend(declared.lost);
            if let Value::Configuration { configuration, .. } = &declared.value {
                assert!(
                    configuration.slot == declared.slot,
                    "a configuration made for slot {} is chosen in slot {}",
                    configuration.slot,
                    declared.slot
                );
                self.adopt_configuration(now, configuration.clone(), output);
            }
            output.applicable.push((declared.slot, declared.value));
        }
    }

    // ---- bringing others up to date -----------------------------------------------------------

    pub(super) fn peer_knows(&mut self, peer: NodeId, first_unchosen: Slot) {
        if peer != self.settings.id {
            let peer = self.election.peers.entry(peer).or_default();
            peer.first_unchosen = peer.first_unchosen.max(first_unchosen);
        }
    }

    /// A peer that asks says where it stands now: less far than before, if it has restarted.
    pub(super) fn peer_lacks(&mut self, peer: NodeId, first_unchosen: Slot) {
        if peer != self.settings.id {
            let peer = self.election.peers.entry(peer).or_default();
            peer.first_unchosen = first_unchosen;
            peer.sent_chosen = None;
        }
    }

    /// The leader brings everybody up to date, again and again until they are (full replication).
    pub(super) fn bring_up_to_date(&mut self, now: Now, peer: NodeId, output: &mut Output) {
        let Proposer::Leading(leading) = &self.proposer else { return };
        let Some(known) = self.election.peers.get(&peer) else { return };
        let slot = known.first_unchosen;
        if slot >= self.learner.first_unchosen {
            return;
        }
        // A handover does not wait until what may have been lost is due again.
        let is_waited_for = leading.handover.is_some_and(|handover| handover.to == peer);
        let resend_us = if is_waited_for { 0 } else { self.settings.timing.resend_us };
        if leading.delivery(peer, slot, now.mono_us, resend_us) == Delivery::Needed {
            self.send_missing(now, peer, output);
        }
    }

    /// A peer that has asked this node, though it does not lead, gets all that it lacks.
    pub(super) fn go_on_sending(&mut self, now: Now, peer: NodeId, output: &mut Output) {
        let asked = self.election.peers.get(&peer).is_some_and(|peer| peer.sent_chosen.is_some());
        if asked && self.leading().is_none() {
            self.send_missing(now, peer, output);
        }
    }

    /// One `Chosen` with what the peer lacks, the next when it has answered; or a snapshot.
    pub(super) fn send_missing(&mut self, now: Now, peer: NodeId, output: &mut Output) {
        let resend_us = self.settings.timing.resend_us;
        let first_unchosen = self.learner.first_unchosen;
        let first_kept = self.acceptor.first_kept();
        let Some(known) = self.election.peers.get_mut(&peer) else { return };
        let first = known.first_unchosen.max(Slot::FIRST);
        if first >= first_unchosen {
            return;
        }
        if first < first_kept {
            let asked =
                known.snapshot_us.is_some_and(|at| now.mono_us.saturating_sub(at) < resend_us);
            if !asked {
                known.snapshot_us = Some(now.mono_us);
                output.snapshot_for.push(peer);
            }
            return;
        }
        let under_way = known.sent_chosen.is_some_and(|(end, sent_us)| {
            first < end && now.mono_us.saturating_sub(sent_us) < resend_us
        });
        if under_way {
            return;
        }
        let mut values = Vec::new();
        let mut bytes = 0;
        for slot in first.until(first_unchosen) {
            let Some(entry) = self.acceptor.entry(slot) else { break };
            bytes += Value::CHOSEN_OVERHEAD_BYTES + entry.value.len_bytes();
            values.push(entry.value.clone());
            if bytes >= self.settings.limits.chunk_bytes {
                break;
            }
        }
        known.sent_chosen = Some((Slot(first.0 + values.len() as u64), now.mono_us));
        // These entries may rest on records that are not synced here; but they are chosen, so a
        // quorum has them on disk.
        self.send(peer, Message::Chosen { first, values }, output);
    }

    /// Nobody brings us up to date, and somebody knows more: ask the one who knows most.
    pub(super) fn ask_for_missing(&mut self, now: Now, output: &mut Output) {
        let patience_us = 2 * self.settings.timing.resend_us;
        let quiet = |at: u64| now.mono_us.saturating_sub(at) >= patience_us;
        if self.leading().is_some() || !quiet(self.advanced_us) || !quiet(self.asked_us) {
            return;
        }
        let first_unchosen = self.learner.first_unchosen;
        let ahead = self
            .election
            .connected(now.mono_us)
            .filter(|(_, peer)| peer.first_unchosen > first_unchosen)
            .max_by_key(|(node, peer)| (peer.first_unchosen, *node))
            .map(|(node, _)| node);
        if let Some(peer) = ahead {
            self.asked_us = now.mono_us;
            self.send(peer, Message::CatchUp { first_unchosen }, output);
        }
    }
}
