//! Handing leadership over, at the node's edge: who asked for it, what they are told, and a node
//! that stops only once another leads.

use paxos::{HandoverRefusal, NodeId, Note, Now};
use serde_json::json;
use tokio::sync::oneshot;

use crate::admin::{AdminReply, Refusal};
use crate::node::Node;
use crate::shell::Core;

/// A stopping leader waits this long for another to lead, whatever becomes of the handover.
const LEAVE_US_MAX: u64 = 2_000_000;
/// An asker is answered within this time, whatever becomes of the handover.
const ANSWER_US_MAX: u64 = 5_000_000;

/// What is under way at the node's edge.
#[derive(Debug, Default)]
pub struct Handovers {
    asked: Option<Asked>,
    pub leaving: Leaving,
}

/// A node that was told to stop. A leader hands over first: its clients are redirected, not cut off.
#[derive(Debug, Default)]
pub struct Leaving {
    /// It stops at the latest then.
    by_us: Option<u64>,
    /// It led when it was told to stop, and somebody is to lead in its place.
    awaits_successor: bool,
    /// It led when it was told to stop, and a change of the members comes first.
    awaits_change: bool,
}

impl Leaving {
    /// Answers whom it hands over to, or why to nobody; `None` if it was told before.
    pub fn begin(&mut self, node: &mut Node, now: Now) -> Option<Result<NodeId, HandoverRefusal>> {
        if self.by_us.is_some() {
            return None;
        }
        self.by_us = Some(now.mono_us + LEAVE_US_MAX);
        let handed = node.hand_over(now, None);
        self.awaits_successor = matches!(handed, Ok(_) | Err(HandoverRefusal::UnderWay { .. }));
        self.awaits_change = handed == Err(HandoverRefusal::ChangeUnderWay);
        Some(handed)
    }

    /// Hands over once the change is done that came first. To be called at each tick; says whom to,
    /// or why to nobody, when it has.
    pub fn go_on(&mut self, node: &mut Node, now: Now) -> Option<AfterChange> {
        if !self.awaits_change {
            return None;
        }
        let outcome = after_change(node, now, None);
        self.awaits_change = outcome == AfterChange::Waits;
        self.awaits_successor = matches!(outcome, AfterChange::Begun(_));
        Some(outcome)
    }

    /// Takes note of a handover that came to nothing.
    pub fn heed(&mut self, note: &Note) {
        if matches!(note, Note::HandoverGivenUp { .. }) {
            self.awaits_successor = false;
        }
    }

    /// May the node stop now? Not while it waits for a change, or for the one that is to lead, within
    /// the bound.
    pub fn is_over(&self, node: &Node, now: Now) -> bool {
        let Some(by_us) = self.by_us else { return false };
        let replica = &node.replica;
        let leads_on = replica.leading().is_some() && !replica.is_handing_over();
        let other_leads = replica.leader().is_some_and(|leader| leader != replica.id());
        let successor_is_missing = self.awaits_successor && !leads_on && !other_leads;
        let waits = self.awaits_change || successor_is_missing;
        !waits || now.mono_us >= by_us
    }
}

#[derive(Debug)]
struct Asked {
    /// Whom the asker named, if anybody.
    wish: Option<NodeId>,
    /// Who is to lead; `None` while a change of the members comes first.
    to: Option<NodeId>,
    begun_us: u64,
    reply: oneshot::Sender<AdminReply>,
}

/// Where a handover stands that was asked for while a change of the members was under way.
#[derive(Debug, PartialEq, Eq)]
pub enum AfterChange {
    /// The change is not chosen yet, or this node does not lead under it yet.
    Waits,
    Begun(NodeId),
    /// Somebody else leads: the change, or what became of it, has seen to that.
    Led(NodeId),
    Refused(HandoverRefusal),
}

/// A change ends this node's ballot, and a handover of that ballot with it: so it begins once the
/// change is chosen and this node leads again.
fn after_change(node: &mut Node, now: Now, wish: Option<NodeId>) -> AfterChange {
    match node.hand_over(now, wish) {
        Ok(to) | Err(HandoverRefusal::UnderWay { to }) => AfterChange::Begun(to),
        Err(HandoverRefusal::NotLeading { leader: Some(leader) }) => AfterChange::Led(leader),
        Err(HandoverRefusal::ChangeUnderWay | HandoverRefusal::NotLeading { leader: None }) => {
            AfterChange::Waits
        }
        Err(refusal) => AfterChange::Refused(refusal),
    }
}

impl Core {
    /// `paxos-node admin transfer [ID]`: answered when another node leads, or when none does.
    pub fn transfer(&mut self, now: Now, to: Option<u32>, reply: oneshot::Sender<AdminReply>) {
        let wish = to.map(NodeId);
        let begun_us = now.mono_us;
        if self.handovers.asked.is_some() {
            let _ = reply.send(Err(Refusal::for_now(
                "another handover was asked for already: see who leads, and ask again",
            )));
            return;
        }
        match self.node.hand_over(now, wish) {
            Ok(to) => {
                tracing::info!(%to, "handing over");
                self.handovers.asked = Some(Asked { wish, to: Some(to), begun_us, reply });
            }
            Err(HandoverRefusal::ChangeUnderWay) => {
                tracing::info!("a change of the members comes first, then the handover");
                self.handovers.asked = Some(Asked { wish, to: None, begun_us, reply });
            }
            Err(refusal) => {
                // An asker that has gone away does not need the answer.
                let _ = reply.send(Err(self.refusal(refusal)));
            }
        }
    }

    /// What was asked for while a change of the members was under way.
    pub fn hand_over_after_change(&mut self, now: Now) {
        if let Some(Asked { wish, to: None, .. }) = self.handovers.asked {
            match after_change(&mut self.node, now, wish) {
                AfterChange::Waits => {}
                AfterChange::Begun(to) => {
                    tracing::info!(%to, "the change is done; handing over");
                    self.handovers.asked.iter_mut().for_each(|asked| asked.to = Some(to));
                }
                AfterChange::Led(leader) => self.answer_transfer_led(now, leader),
                AfterChange::Refused(refusal) => {
                    let refusal = self.refusal(refusal);
                    self.answer_transfer(Err(refusal));
                }
            }
        }
        match self.handovers.leaving.go_on(&mut self.node, now) {
            None | Some(AfterChange::Waits | AfterChange::Led(_)) => {}
            Some(AfterChange::Begun(to)) => {
                tracing::info!(%to, "the change is done; handing over before stopping");
            }
            Some(AfterChange::Refused(refusal)) => {
                tracing::info!(why = self.refusal_text(refusal), "stopping");
            }
        }
    }

    fn name_of(&self, node: NodeId) -> String {
        let member = self.node.configuration().members.get(&node);
        member.map_or_else(|| node.to_string(), |member| format!("{} ({node})", member.name))
    }

    fn refusal(&self, refusal: HandoverRefusal) -> Refusal {
        Refusal::new(self.refusal_text(refusal), refusal.passes())
    }

    fn refusal_text(&self, refusal: HandoverRefusal) -> String {
        let name = |node| self.name_of(node);
        match refusal {
            HandoverRefusal::NotLeading { leader: Some(leader) } => {
                format!("this node does not lead: ask {}", name(leader))
            }
            HandoverRefusal::NotLeading { leader: None } => {
                "this node does not lead, and knows no leader".to_owned()
            }
            HandoverRefusal::UnderWay { to } => {
                format!("this node is handing over to {} already", name(to))
            }
            HandoverRefusal::ChangeUnderWay => {
                "a change of the members is under way: try again when it is chosen".to_owned()
            }
            HandoverRefusal::LeadsAlready => "this node leads already".to_owned(),
            HandoverRefusal::NotAVoter { to } => {
                format!("{} is no voter of this cluster, it cannot lead", name(to))
            }
            HandoverRefusal::Unreachable { to } => {
                format!("{} is not reached, or does not reach this node", name(to))
            }
            HandoverRefusal::CannotAccept { to } => {
                format!("the disk of {} is full or hangs", name(to))
            }
            HandoverRefusal::Behind { to, slots } => {
                format!("{} is {slots} slots behind: try again when it has caught up", name(to))
            }
            HandoverRefusal::NobodyCould => {
                "no other voter is reached, caught up and able to write".to_owned()
            }
        }
    }

    /// Tells the asker what has become of it.
    pub fn heed_handover(&mut self, now: Now, note: &Note) {
        self.handovers.leaving.heed(note);
        let Some(Asked { to: Some(to), begun_us, .. }) = self.handovers.asked else { return };
        match note {
            Note::Following { leader: Some(leader), .. } if *leader != self.identity.id => {
                self.answer_transfer_led(now, *leader);
            }
            Note::HandoverGivenUp { .. } => {
                let took_ms = now.mono_us.saturating_sub(begun_us) / 1_000;
                let name = self.name_of(to);
                self.answer_transfer(Err(Refusal::for_now(format!(
                    "{name} did not take over within {took_ms} ms: this node goes on"
                ))));
            }
            _ => {}
        }
    }

    /// Nothing has come of it for too long.
    pub fn give_up_handover(&mut self, now: Now) {
        let Some(Asked { to, begun_us, .. }) = &self.handovers.asked else { return };
        if now.mono_us.saturating_sub(*begun_us) > ANSWER_US_MAX {
            let text = match to {
                Some(_) => "nobody has taken over, and nobody leads yet",
                None => {
                    "a change of the members is under way and was not done in time: look at \
                     `member list`, and ask again"
                }
            };
            self.answer_transfer(Err(Refusal::for_now(text)));
        }
    }

    fn answer_transfer_led(&mut self, now: Now, leader: NodeId) {
        let Some(Asked { begun_us, .. }) = &self.handovers.asked else { return };
        let took_us = now.mono_us.saturating_sub(*begun_us);
        let name = self.name_of(leader);
        self.answer_transfer(Ok(json!({ "leader": leader.0, "name": name, "took_us": took_us })));
    }

    fn answer_transfer(&mut self, answer: AdminReply) {
        if let Some(asked) = self.handovers.asked.take() {
            let _ = asked.reply.send(answer);
        }
    }

    /// This node is to stop.
    pub fn leave(&mut self, now: Now) {
        match self.handovers.leaving.begin(&mut self.node, now) {
            None => {}
            Some(Ok(to) | Err(HandoverRefusal::UnderWay { to })) => {
                tracing::info!(%to, "handing over before stopping");
            }
            Some(Err(HandoverRefusal::ChangeUnderWay)) => {
                tracing::info!("a change of the members comes first, then another leads");
            }
            Some(Err(refusal)) => tracing::info!(why = self.refusal_text(refusal), "stopping"),
        }
    }

    pub fn has_left(&self, now: Now) -> bool {
        self.handovers.leaving.is_over(&self.node, now)
    }
}
