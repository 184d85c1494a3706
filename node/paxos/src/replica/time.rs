//! What time brings: elections, heartbeats, repeats.

use super::Replica;
use crate::ballot::{NodeId, Slot};
use crate::election::{Decision, Standing};
use crate::message::{Heartbeat, Message};
use crate::output::{Deposed, Output};
use crate::proposer::Proposer;
use crate::settings::Now;

impl Replica {
    /// A node that was itself paused (stopped, suspended, starved) blames nobody for it, whichever
    /// call comes first when it goes on. Leases and grants know no such mercy: they end by the clock.
    pub(super) fn notice_lateness(&mut self, now: Now) {
        let late_us = self.election.notice_lateness(now.mono_us);
        if late_us == 0 {
            return;
        }
        self.holder.forgive(late_us, now.mono_us);
        match &mut self.proposer {
            Proposer::Following => {}
            Proposer::Preparing(preparing) => preparing.deadline_us += late_us,
            Proposer::Leading(leading) => {
                leading.progress_us = (leading.progress_us + late_us).min(now.mono_us);
                if let Some(handover) = &mut leading.handover {
                    handover.deadline_us += late_us;
                }
            }
        }
        if let Some(released) = &mut self.released {
            released.postpone(late_us);
        }
    }

    /// Asks the election what to do, and does it.
    pub(super) fn consider(&mut self, now: Now, output: &mut Output) {
        let standing = match &self.proposer {
            Proposer::Following => Standing::Following,
            Proposer::Preparing(_) => Standing::Preparing,
            Proposer::Leading(_) => Standing::Leading,
        };
        let stalled = match &self.proposer {
            Proposer::Leading(leading) => {
                let quiet_us = now.mono_us.saturating_sub(leading.progress_us);
                let stalled = quiet_us >= self.settings.timing.stalled_us;
                !leading.in_flight.is_empty() && stalled && !mutant!(StalledLeaderStays)
            }
            Proposer::Preparing(_) | Proposer::Following => false,
        };
        let stalled = stalled || self.lacks_grants(now);
        let bound = self.is_bound(now);
        match self.election.decide(now.mono_us, &self.configuration, standing, stalled, bound) {
            Decision::Stay => {}
            Decision::TakeOver => self.begin_candidacy(now, None, output),
            Decision::HandOver => self.make_way(now, output),
            Decision::StepDown(reason) => self.end_ballot(now, reason, output),
        }
        self.note_leader(output);
    }

    /// Repeats what has not been answered: Prepares, Accepts, read rounds.
    pub(super) fn repeat(&mut self, now: Now, output: &mut Output) {
        let resend_us = self.settings.timing.resend_us;
        let members = self.others();
        let mut messages = Vec::new();
        let mut gave_up = false;
        match &mut self.proposer {
            Proposer::Following => {}
            Proposer::Preparing(preparing) => {
                gave_up = now.mono_us >= preparing.deadline_us;
                let own_promise_synced = self.promised_at <= self.synced;
                let due = now.mono_us.saturating_sub(preparing.sent_us) >= resend_us / 4;
                if !gave_up && due && own_promise_synced {
                    preparing.sent_us = now.mono_us;
                    let (ballot, from_slot) = (preparing.ballot, preparing.from_slot);
                    let release = preparing.release;
                    for peer in members {
                        if !preparing.has_answered(peer) {
                            let holds = self.acceptor.holds(from_slot);
                            let prepare = Message::Prepare { ballot, from_slot, holds, release };
                            messages.push((peer, prepare));
                        }
                    }
                }
            }
            Proposer::Leading(leading) => {
                let (ballot, hint) = (leading.ballot, leading.hint);
                for (&slot, proposal) in &mut leading.in_flight {
                    if now.mono_us.saturating_sub(proposal.sent_us) < resend_us {
                        continue;
                    }
                    proposal.sent_us = now.mono_us;
                    for &peer in members.iter().filter(|peer| !proposal.tally.contains(**peer)) {
                        let value = proposal.value.clone();
                        messages.push((peer, Message::Accept { ballot, slot, value, hint }));
                    }
                }
                self.reads.give_up_round(now.mono_us, resend_us);
            }
        }
        for (peer, message) in messages {
            self.send(peer, message, output);
        }
        if gave_up {
            self.end_ballot(now, Deposed::GaveUp, output);
        }
    }

    pub(super) fn send_heartbeats(&mut self, now: Now, output: &mut Output) {
        if self.is_removed() {
            return;
        }
        let sequence = self.election.next_sequence(now.mono_us);
        for peer in self.others() {
            let message = self.heartbeat(peer, sequence, now);
            self.send(peer, message, output);
        }
        // The own acceptor grants like the others.
        if let Some(ballot) = self.leading().filter(|_| self.asks_grants()) {
            self.grant(now, self.settings.id, ballot, sequence, output);
        }
    }

    pub(super) fn heartbeat_for(&mut self, peer: NodeId, now: Now) -> Message {
        let sequence = self.election.next_sequence(now.mono_us);
        self.heartbeat(peer, sequence, now)
    }

    pub(super) fn heartbeat(&self, peer: NodeId, sequence: u64, now: Now) -> Message {
        let (echo, echo_age_us) = self.election.echo_to(peer, now.mono_us);
        let leading = self.leading();
        let quorum_connected = match leading {
            Some(_) => self.election.leader_reaches_quorum(now.mono_us, &self.configuration),
            None => self.election.is_quorum_connected(now.mono_us, &self.configuration),
        };
        let happy_with = match leading {
            Some(_) => quorum_connected.then_some(self.settings.id),
            None => self.successor().or(self.election.happy_with(now.mono_us)),
        };
        let hint = match &self.proposer {
            Proposer::Leading(_) if mutant!(HintOfAllKnown) => self.learner.first_unchosen,
            Proposer::Leading(leading) => leading.hint,
            Proposer::Preparing(_) | Proposer::Following => Slot::ZERO,
        };
        Message::Heartbeat(Heartbeat {
            sequence,
            echo,
            echo_age_us,
            promised: self.acceptor.promised(),
            leading,
            happy_with,
            // A torn log (restored from an older snapshot, trimmed above it) has to heal first.
            can_accept: self.election.can_accept
                && self.learner.first_unchosen >= self.acceptor.first_kept()
                && self.learner.first_unchosen > self.configuration.slot,
            quorum_connected,
            connected: self.election.connected(now.mono_us).map(|(node, _)| node).collect(),
            first_unchosen: self.learner.first_unchosen,
            hint,
            priority: self.settings.priority,
            lease_us: self.grant_us(),
            asks_grant: self.asks_grants(),
        })
    }
}
