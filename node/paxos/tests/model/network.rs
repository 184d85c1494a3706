//! What travels, reduced to what decides anything.
//!
//! A message is kept as a number; its fields that decide nothing here are blanked, so that messages
//! which say the same are the same. Some kinds are left out, because something else in the search
//! stands for all that they can do:
//! - Nack and Behind end a ballot, and raise what the next one is above. A ballot none of whose
//!   messages arrive any more is as good as ended, and the Prepare that the refusal speaks of is a
//!   fact itself, and says the same.
//! - Chosen, Learned, CatchUp: whatever anybody has ever declared may be told to anybody at any
//!   moment (`Action::Learn`), which is more than they can do.
//! - The hint in an Accept is sent as a heartbeat of its own, behind it: the acceptor takes it in
//!   that order. A leader's heartbeat may leave at any moment.

use std::collections::HashMap;

use paxos::{Envelope, Heartbeat, Message, NodeId, Slot};

use super::print::Quick;

/// Every message ever sent in any state, by number.
#[derive(Debug, Default)]
pub struct Network {
    numbers: HashMap<Envelope, u16, Quick>,
    envelopes: Vec<Envelope>,
    aged: HashMap<u16, Option<u16>, Quick>,
}

impl Network {
    pub fn number(&mut self, envelope: Envelope) -> u16 {
        let envelopes = &mut self.envelopes;
        *self.numbers.entry(envelope).or_insert_with_key(|envelope| {
            envelopes.push(envelope.clone());
            u16::try_from(envelopes.len() - 1).expect("a model sends fewer different messages")
        })
    }

    pub fn get(&self, number: u16) -> &Envelope {
        &self.envelopes[usize::from(number)]
    }

    /// The same heartbeat or grant once its leader has sent another heartbeat; `None` when it is
    /// older than any that the search lets arrive.
    pub fn aged(&mut self, number: u16, oldest: u64) -> Option<u16> {
        if let Some(aged) = self.aged.get(&number) {
            return *aged;
        }
        let mut envelope = self.get(number).clone();
        let aged = match &mut envelope.message {
            Message::Heartbeat(Heartbeat { sequence, .. }) | Message::Grant { sequence, .. } => {
                *sequence += 1;
                (*sequence <= oldest).then(|| self.number(envelope))
            }
            _ => Some(number),
        };
        self.aged.insert(number, aged);
        aged
    }
}

/// What of a message is kept; `None` if nothing. Heartbeats and grants are numbered backwards from
/// the newest of their leader, which is 1: `newest` is its number there.
pub fn canonical(mut envelope: Envelope, newest: u64, leases: bool) -> Option<Envelope> {
    let from = envelope.from;
    match &mut envelope.message {
        Message::Promise { first_unchosen, .. } | Message::Accepted { first_unchosen, .. } => {
            *first_unchosen = Slot::ZERO;
        }
        Message::Accept { hint, .. } => *hint = Slot::ZERO,
        Message::Heartbeat(heartbeat) => {
            let hint = if leases { Slot::ZERO } else { heartbeat.hint };
            let ballot = heartbeat.leading?;
            *heartbeat = Heartbeat {
                sequence: if leases { newest + 1 - heartbeat.sequence } else { 0 },
                promised: ballot,
                leading: Some(ballot),
                hint,
                asks_grant: leases && heartbeat.asks_grant,
                lease_us: heartbeat.lease_us,
                ..content(from)
            };
            if leases && !heartbeat.asks_grant {
                return None;
            }
        }
        Message::Release { first_unchosen, .. } => *first_unchosen = Slot::ZERO,
        // It names the heartbeat as that was numbered when it arrived.
        Message::Grant { .. } => {}
        Message::Prepare { .. } | Message::Confirm { .. } | Message::Confirmed { .. } => {}
        Message::Nack { .. }
        | Message::Behind { .. }
        | Message::Ping
        | Message::Chosen { .. }
        | Message::Learned { .. }
        | Message::CatchUp { .. }
        | Message::ReadIndex { .. }
        | Message::ReadFrom { .. } => return None,
    }
    Some(envelope)
}

/// A heartbeat of a node that is well and content, so that nobody thinks of taking over by itself:
/// the search decides who does.
pub fn content(node: NodeId) -> Heartbeat {
    Heartbeat {
        happy_with: Some(node),
        can_accept: true,
        quorum_connected: true,
        ..Heartbeat::default()
    }
}
