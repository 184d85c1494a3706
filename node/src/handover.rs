//! Handing leadership over, at the node's edge: who asked for it, what they are told, and a node
//! that stops only once another leads.

use paxos::{HandoverRefusal, NodeId, Note, Now};
use serde_json::json;
use tokio::sync::oneshot;

use crate::admin::AdminReply;
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
    /// It led when it was told to stop, and has found somebody to hand over to.
    awaits_successor: bool,
}

impl Leaving {
    /// Answers whom it hands over to, or why to nobody; `None` if it was told before.
    pub fn begin(&mut self, node: &mut Node, now: Now) -> Option<Result<NodeId, HandoverRefusal>> {
        if self.by_us.is_some() {
            return None;
        }
        self.by_us = Some(now.mono_us + LEAVE_US_MAX);
        let handed = node.hand_over(now, None);
        self.awaits_successor = handed.is_ok();
        Some(handed)
    }

    /// Takes note of a handover that came to nothing.
    pub fn heed(&mut self, note: &Note) {
        if matches!(note, Note::HandoverGivenUp { .. }) {
            self.awaits_successor = false;
        }
    }

    /// May the node stop now? Not while it waits for the one that is to lead, within the bound.
    pub fn is_over(&self, node: &Node, now: Now) -> bool {
        let Some(by_us) = self.by_us else { return false };
        let replica = &node.replica;
        let leads_on = replica.leading().is_some() && !replica.is_handing_over();
        let other_leads = replica.leader().is_some_and(|leader| leader != replica.id());
        !self.awaits_successor || leads_on || other_leads || now.mono_us >= by_us
    }
}

#[derive(Debug)]
struct Asked {
    to: NodeId,
    begun_us: u64,
    reply: oneshot::Sender<AdminReply>,
}

impl Core {
    /// `paxos-node admin transfer [ID]`: answered when another node leads, or when none does.
    pub fn transfer(&mut self, now: Now, to: Option<u32>, reply: oneshot::Sender<AdminReply>) {
        match self.node.hand_over(now, to.map(NodeId)) {
            Ok(to) => {
                tracing::info!(%to, "handing over");
                self.handovers.asked = Some(Asked { to, begun_us: now.mono_us, reply });
            }
            Err(refusal) => {
                // An asker that has gone away does not need the answer.
                let _ = reply.send(Err(self.refusal_text(refusal)));
            }
        }
    }

    fn name_of(&self, node: NodeId) -> String {
        let member = self.node.configuration().members.get(&node);
        member.map_or_else(|| node.to_string(), |member| format!("{} ({node})", member.name))
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
        let Some(Asked { to, begun_us, .. }) = &self.handovers.asked else { return };
        let (to, took_us) = (*to, now.mono_us.saturating_sub(*begun_us));
        let answer = match note {
            Note::Following { leader: Some(leader), .. } if *leader != self.identity.id => {
                Ok(json!({ "leader": leader.0, "name": self.name_of(*leader), "took_us": took_us }))
            }
            Note::HandoverGivenUp { .. } => Err(format!(
                "{} did not take over within {} ms: this node goes on",
                self.name_of(to),
                took_us / 1_000
            )),
            _ => return,
        };
        self.answer_transfer(answer);
    }

    /// Nothing has come of it for too long.
    pub fn give_up_handover(&mut self, now: Now) {
        let begun_us = self.handovers.asked.as_ref().map(|asked| asked.begun_us);
        if begun_us.is_some_and(|begun_us| now.mono_us.saturating_sub(begun_us) > ANSWER_US_MAX) {
            self.answer_transfer(Err("nobody has taken over, and nobody leads yet".to_owned()));
        }
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
            Some(Ok(to)) => tracing::info!(%to, "handing over before stopping"),
            Some(Err(refusal)) => tracing::info!(why = self.refusal_text(refusal), "stopping"),
        }
    }

    pub fn has_left(&self, now: Now) -> bool {
        self.handovers.leaving.is_over(&self.node, now)
    }
}
