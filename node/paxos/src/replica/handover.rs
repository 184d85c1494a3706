//! Handing over: a leader lets go of its ballot, and another takes over without waiting for any
//! silence (DESIGN §3).
//!
//! The leader stops proposing, reading and renewing, and waits until what is in flight is chosen.
//! Then it ends its ballot, and its lease with it, and says so in one message, `Release`. The
//! receiver begins phase 1 at once; its Prepares carry the released ballot, so that grants to it do
//! not bind. Whatever is lost on the way costs time and nothing else: after a bound the old leader
//! goes on, in a new round. The released ballot never holds a lease again (PITFALLS 33, 106).
//!
//! A leader that a change of the configuration removes does the same once the change is chosen: in
//! favour of the first voter that has it on disk. It stays until that one leads, so that it can send
//! its clients there.

use super::Replica;
use crate::ballot::{Ballot, NodeId, Slot};
use crate::message::{Message, Value};
use crate::output::{Deposed, Note, Output};
use crate::proposer::{Handover, Proposer};
use crate::settings::Now;

/// Why a leader does not hand over. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverRefusal {
    /// This node does not lead; the leader that it follows, if any.
    NotLeading { leader: Option<NodeId> },
    /// It is handing over to that node already.
    UnderWay { to: NodeId },
    /// A new configuration waits to be chosen, and ends this ballot: it may be asked again once that
    /// one rules and this node leads under it.
    ChangeUnderWay,
    /// That is this node: it leads.
    LeadsAlready,
    /// No voter of the configuration that rules.
    NotAVoter { to: NodeId },
    /// Not heard lately, or it has not heard this node.
    Unreachable { to: NodeId },
    /// Full or hung disk.
    CannotAccept { to: NodeId },
    /// It lacks so many slots.
    Behind { to: NodeId, slots: u64 },
    /// No voter could lead now.
    NobodyCould,
}

impl HandoverRefusal {
    /// May it be possible later, though nobody has changed anything meanwhile but time?
    pub fn passes(self) -> bool {
        !matches!(self, HandoverRefusal::LeadsAlready | HandoverRefusal::NotAVoter { .. })
    }
}

/// A ballot that was let go of, until somebody else leads.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Released {
    ballot: Ballot,
    /// Nobody yet, where a change has removed the leader and no voter is known to know it.
    to: Option<NodeId>,
    sent_us: u64,
    deadline_us: u64,
}

impl Released {
    pub(super) fn successor(self) -> (Ballot, Option<NodeId>) {
        (self.ballot, self.to)
    }

    pub(super) fn postpone(&mut self, late_us: u64) {
        self.deadline_us += late_us;
    }
}

impl Replica {
    /// Begins to hand over to `to`, or to the best voter. What comes of it is in the notes:
    /// `Released` and then another leader, or `HandoverGivenUp`.
    pub fn hand_over(
        &mut self,
        now: Now,
        to: Option<NodeId>,
        output: &mut Output,
    ) -> Result<NodeId, HandoverRefusal> {
        self.notice_lateness(now);
        let to = self.begin_handover(now, to, output)?;
        self.after_step(now, output);
        Ok(to)
    }

    /// This leader cannot accept any more, and others can: one that has caught up goes on, without
    /// waiting for any silence or the end of any lease. If there is none, or it does not work out
    /// within the bound, whoever can takes over.
    pub(super) fn make_way(&mut self, now: Now, output: &mut Output) {
        if self.is_handing_over() {
            return;
        }
        if mutant!(FullLeaderStepsDown) || self.begin_handover(now, None, output).is_err() {
            self.end_ballot(now, Deposed::LostQuorum, output);
        }
    }

    fn begin_handover(
        &mut self,
        now: Now,
        to: Option<NodeId>,
        output: &mut Output,
    ) -> Result<NodeId, HandoverRefusal> {
        let leader = self.leader();
        let Proposer::Leading(leading) = &self.proposer else {
            return Err(match self.released {
                Some(Released { to: Some(to), .. }) => HandoverRefusal::UnderWay { to },
                _ => HandoverRefusal::NotLeading { leader },
            });
        };
        if let Some(Handover { to, .. }) = leading.handover {
            return Err(HandoverRefusal::UnderWay { to });
        }
        if leading.stop.is_some() {
            return Err(HandoverRefusal::ChangeUnderWay);
        }
        let to = match to {
            Some(to) => self.could_lead(now, to).map(|_| to)?,
            None => self.best_successor(now).ok_or(HandoverRefusal::NobodyCould)?,
        };
        let deadline_us = now.mono_us + self.settings.timing.phase1_us;
        if let Proposer::Leading(leading) = &mut self.proposer {
            leading.handover = Some(Handover { to, deadline_us });
        }
        self.bring_up_to_date(now, to, output);
        self.go_on_handing_over(now, output);
        Ok(to)
    }

    /// Is a handover of this node under way? It takes no requests meanwhile.
    pub fn is_handing_over(&self) -> bool {
        match &self.proposer {
            Proposer::Leading(leading) => leading.handover.is_some(),
            Proposer::Preparing(_) | Proposer::Following => self.released.is_some(),
        }
    }

    /// How many slots a node lacks that could lead.
    fn could_lead(&self, now: Now, to: NodeId) -> Result<u64, HandoverRefusal> {
        if to == self.settings.id {
            return Err(HandoverRefusal::LeadsAlready);
        }
        if !self.configuration.is_voter(to) {
            return Err(HandoverRefusal::NotAVoter { to });
        }
        let mut connected = self.election.connected(now.mono_us);
        let Some((_, peer)) = connected.find(|(node, _)| *node == to) else {
            return Err(HandoverRefusal::Unreachable { to });
        };
        if !peer.heartbeat.can_accept {
            return Err(HandoverRefusal::CannotAccept { to });
        }
        let slots = self.learner.first_unchosen.0.saturating_sub(peer.first_unchosen.0);
        let soon = slots <= self.settings.limits.window_slots;
        if !soon && !self.fits_one_message(peer.first_unchosen) {
            return Err(HandoverRefusal::Behind { to, slots });
        }
        Ok(slots)
    }

    /// May all that is chosen from `first` on be sent in one `Chosen`? A small window says nothing
    /// of how far behind a peer is: under load each knows less than the leader by what is on the way.
    fn fits_one_message(&self, first: Slot) -> bool {
        let mut bytes_left = self.settings.limits.chunk_bytes;
        first.until(self.learner.first_unchosen).all(|slot| {
            let Some(entry) = self.acceptor.entry(slot) else { return false };
            let bytes = Value::CHOSEN_OVERHEAD_BYTES + entry.value.len_bytes();
            bytes_left.checked_sub(bytes).map(|left| bytes_left = left).is_some()
        })
    }

    /// Of those that could lead, the one of highest priority, then the one that lacks least.
    fn best_successor(&self, now: Now) -> Option<NodeId> {
        let able = self.configuration.voters().filter_map(|node| {
            let lacks = self.could_lead(now, node).ok()?;
            let priority = self.election.peers.get(&node)?.heartbeat.priority;
            Some((priority, std::cmp::Reverse(lacks), node))
        });
        able.max().map(|(_, _, node)| node)
    }

    /// Lets go once nothing is in flight any more and the other has everything; repeats what may be
    /// lost; gives up in time.
    pub(super) fn go_on_handing_over(&mut self, now: Now, output: &mut Output) {
        if let Proposer::Leading(leading) = &mut self.proposer
            && let Some(Handover { to, deadline_us }) = leading.handover
        {
            let known = self.election.peers.get(&to);
            let known = known.map_or(Slot::ZERO, |peer| peer.first_unchosen);
            if leading.has_all(to, known) || mutant!(HandsOverUndrained) {
                self.let_go(now, to, output);
            } else if now.mono_us >= deadline_us {
                // Nothing was said yet: the ballot and its lease simply go on.
                leading.handover = None;
                output.notes.push(Note::HandoverGivenUp { to });
                if self.election.is_in_the_way(&self.configuration) {
                    self.end_ballot(now, Deposed::LostQuorum, output);
                }
            }
            return;
        }
        let Some(released) = &mut self.released else { return };
        let Released { ballot, to, sent_us, deadline_us } = *released;
        if now.mono_us >= deadline_us {
            self.released = None;
            output.notes.extend(to.map(|to| Note::HandoverGivenUp { to }));
            let could = self.configuration.is_voter(self.settings.id)
                && !self.election.is_in_the_way(&self.configuration);
            if self.own_ballot().is_none() && could {
                self.begin_candidacy(now, None, output);
            }
        } else if let Some(to) = to
            && now.mono_us.saturating_sub(sent_us) >= self.settings.timing.resend_us / 4
        {
            released.sent_us = now.mono_us;
            let first_unchosen = self.learner.first_unchosen;
            self.send(to, Message::Release { ballot, first_unchosen }, output);
        }
    }

    fn let_go(&mut self, now: Now, to: NodeId, output: &mut Output) {
        let Some(ballot) = self.leading() else { return };
        // The last hint travels ahead, so that the other knows chosen what it has accepted.
        let heartbeat = self.heartbeat_for(to, now);
        self.send(to, heartbeat, output);
        if mutant!(RenewedAfterRelease) {
            if let Proposer::Leading(leading) = &mut self.proposer {
                leading.handover = None;
            }
        } else {
            let deadline_us = now.mono_us + self.settings.timing.phase1_us;
            let sent_us = now.mono_us;
            self.released = Some(Released { ballot, to: Some(to), sent_us, deadline_us });
            self.election.wait_for_successor(deadline_us);
            self.end_ballot(now, Deposed::HandedOver, output);
        }
        output.notes.push(Note::Released { ballot, to });
        let first_unchosen = self.learner.first_unchosen;
        self.send(to, Message::Release { ballot, first_unchosen }, output);
    }

    /// A change that this leader has made leaves no place for it: its ballot is over, and whoever is
    /// to lead need not wait for the end of the grants to it. Who that is shows when the first voter
    /// knows the change.
    pub(super) fn let_go_removed(&mut self, now: Now, ballot: Ballot) {
        let deadline_us = now.mono_us + self.settings.timing.phase1_us;
        self.released = Some(Released { ballot, to: None, sent_us: now.mono_us, deadline_us });
    }

    /// `peer` has the change on disk that removed this node.
    pub(super) fn name_successor(&mut self, now: Now, peer: NodeId, output: &mut Output) {
        if let Some(Released { ballot, to: None, deadline_us, .. }) = self.released
            && self.could_lead(now, peer).is_ok()
        {
            let (to, sent_us) = (Some(peer), now.mono_us);
            self.released = Some(Released { ballot, to, sent_us, deadline_us });
            output.notes.push(Note::Released { ballot, to: peer });
            let first_unchosen = self.learner.first_unchosen;
            self.send(peer, Message::Release { ballot, first_unchosen }, output);
        }
    }

    /// Whom this node wants to lead, having let go of its own ballot: it says so to the others,
    /// which leave the one it named the time that it needs.
    pub(super) fn successor(&self) -> Option<NodeId> {
        self.released.and_then(|released| released.to)
    }

    /// Does a ballot that this node has let go of still wait for somebody to lead?
    pub(super) fn awaits_successor(&self) -> bool {
        self.released.is_some()
    }

    /// Somebody has begun a higher ballot, which is what was wanted.
    pub(super) fn succeeded(&mut self, ballot: Ballot) {
        self.released = self.released.filter(|released| ballot <= released.ballot);
    }

    /// A leader hands over to this node. Late, repeated, and from the dead: whoever has promised a
    /// higher ballot meanwhile, or cannot lead, does nothing.
    pub(super) fn on_release(
        &mut self,
        now: Now,
        ballot: Ballot,
        first_unchosen: Slot,
        output: &mut Output,
    ) {
        // What it holds and does not know to be chosen it learns in phase 1.
        let lacks = |slot: &Slot| self.acceptor.entry(*slot).is_none();
        let lacks = self.learner.first_unchosen.until(first_unchosen).filter(lacks).count() as u64;
        let able = self.configuration.is_voter(self.settings.id)
            && self.election.can_accept
            && lacks <= self.settings.limits.window_slots;
        if able && self.acceptor.promised() <= ballot && self.own_ballot().is_none() {
            self.begin_candidacy(now, Some(ballot), output);
        }
    }
}
