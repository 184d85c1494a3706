//! Bytes of [`paxos::Message`]. One arm to write and one to read for each kind, fields in the
//! order of the type. A kind's number is never given to another kind.

use paxos::{Accepted, Ballot, Heartbeat, Message, NodeId, PromisedEntry, Slot, Value};

use super::WireError;
use super::bytes::{Input, Out};
use super::value::{BALLOT_LEN, ballot, put_ballot, put_value, slot, value};

const PREPARE: u8 = 1;
const PROMISE: u8 = 2;
const NACK: u8 = 3;
const BEHIND: u8 = 4;
const ACCEPT: u8 = 5;
const ACCEPTED: u8 = 6;
const HEARTBEAT: u8 = 7;
const PING: u8 = 8;
const CHOSEN: u8 = 9;
const LEARNED: u8 = 10;
const CATCH_UP: u8 = 11;
const CONFIRM: u8 = 12;
const CONFIRMED: u8 = 13;
const GRANT: u8 = 14;
const RELEASE: u8 = 15;
const READ_INDEX: u8 = 16;
const READ_FROM: u8 = 17;

const UNDER: u8 = 0;
const FOR_EVER: u8 = 1;

const HELD_LEN: usize = 8 + BALLOT_LEN;
/// Slot, "chosen", no value.
const PROMISED_ENTRY_LEN_MIN: usize = 8 + 1 + 1;
const NODE_ID_LEN: usize = 4;
const VALUE_LEN_MIN: usize = 1;

/// The position of a message's kind in [`Message::KINDS`], which counters are indexed by.
pub fn kind_index(message: &Message) -> usize {
    usize::from(kind(message)) - 1
}

fn kind(message: &Message) -> u8 {
    match message {
        Message::Prepare { .. } => PREPARE,
        Message::Promise { .. } => PROMISE,
        Message::Nack { .. } => NACK,
        Message::Behind { .. } => BEHIND,
        Message::Accept { .. } => ACCEPT,
        Message::Accepted { .. } => ACCEPTED,
        Message::Heartbeat(_) => HEARTBEAT,
        Message::Ping => PING,
        Message::Chosen { .. } => CHOSEN,
        Message::Learned { .. } => LEARNED,
        Message::CatchUp { .. } => CATCH_UP,
        Message::Confirm { .. } => CONFIRM,
        Message::Confirmed { .. } => CONFIRMED,
        Message::Grant { .. } => GRANT,
        Message::Release { .. } => RELEASE,
        Message::ReadIndex { .. } => READ_INDEX,
        Message::ReadFrom { .. } => READ_FROM,
    }
}

pub(super) fn put_message(out: &mut impl Out, message: &Message) {
    out.u8(kind(message));
    match message {
        Message::Prepare { ballot, from_slot, holds, release } => {
            put_ballot(out, *ballot);
            out.u64(from_slot.0);
            put_ballot_if_any(out, *release);
            out.count(holds.len());
            for (slot, ballot) in holds {
                out.u64(slot.0);
                put_ballot(out, *ballot);
            }
        }
        Message::Promise { ballot, from_slot, to_slot, entries, first_unchosen, wall_ms } => {
            put_ballot(out, *ballot);
            out.u64(from_slot.0);
            out.flag(to_slot.is_some());
            if let Some(to_slot) = to_slot {
                out.u64(to_slot.0);
            }
            out.u64(first_unchosen.0);
            out.u64(*wall_ms);
            out.count(entries.len());
            for entry in entries {
                put_promised_entry(out, entry);
            }
        }
        Message::Nack { ballot, promised } => {
            put_ballot(out, *ballot);
            put_ballot(out, *promised);
        }
        Message::Behind { ballot, first_kept, first_unchosen } => {
            put_ballot(out, *ballot);
            out.u64(first_kept.0);
            out.u64(first_unchosen.0);
        }
        Message::Accept { ballot, slot, value, hint } => {
            put_ballot(out, *ballot);
            out.u64(slot.0);
            out.u64(hint.0);
            put_value(out, value);
        }
        Message::Accepted { ballot, slot, first_unchosen } => {
            put_ballot(out, *ballot);
            out.u64(slot.0);
            out.u64(first_unchosen.0);
        }
        Message::Heartbeat(heartbeat) => put_heartbeat(out, heartbeat),
        Message::Ping => {}
        Message::Chosen { first, values } => {
            out.u64(first.0);
            out.count(values.len());
            for value in values {
                put_value(out, value);
            }
        }
        Message::Learned { first_unchosen } | Message::CatchUp { first_unchosen } => {
            out.u64(first_unchosen.0);
        }
        Message::Confirm { ballot, round } | Message::Confirmed { ballot, round } => {
            put_ballot(out, *ballot);
            out.u64(*round);
        }
        Message::Grant { ballot, sequence, length_us } => {
            put_ballot(out, *ballot);
            out.u64(*sequence);
            out.u64(*length_us);
        }
        Message::Release { ballot, first_unchosen } => {
            put_ballot(out, *ballot);
            out.u64(first_unchosen.0);
        }
        Message::ReadIndex { read } => out.u64(*read),
        Message::ReadFrom { read, slot } => {
            out.u64(*read);
            out.flag(slot.is_some());
            if let Some(slot) = slot {
                out.u64(slot.0);
            }
        }
    }
}

fn put_ballot_if_any(out: &mut impl Out, ballot: Option<Ballot>) {
    out.flag(ballot.is_some());
    if let Some(ballot) = ballot {
        put_ballot(out, ballot);
    }
}

fn ballot_if_any(input: &mut Input, what: &'static str) -> Result<Option<Ballot>, WireError> {
    if input.flag(what)? { Ok(Some(ballot(input)?)) } else { Ok(None) }
}

pub(super) fn message(input: &mut Input) -> Result<Message, WireError> {
    Ok(match input.u8("message kind")? {
        PREPARE => Message::Prepare {
            ballot: ballot(input)?,
            from_slot: slot(input, "first slot of a Prepare")?,
            release: ballot_if_any(input, "whether a ballot is released")?,
            holds: holds(input)?,
        },
        PROMISE => promise(input)?,
        NACK => Message::Nack { ballot: ballot(input)?, promised: ballot(input)? },
        BEHIND => Message::Behind {
            ballot: ballot(input)?,
            first_kept: slot(input, "first kept slot")?,
            first_unchosen: slot(input, "first unchosen slot")?,
        },
        ACCEPT => {
            let ballot = ballot(input)?;
            let slot_accepted = slot(input, "slot of an Accept")?;
            let hint = slot(input, "hint of an Accept")?;
            Message::Accept { ballot, slot: slot_accepted, value: value(input)?, hint }
        }
        ACCEPTED => Message::Accepted {
            ballot: ballot(input)?,
            slot: slot(input, "slot of an Accepted")?,
            first_unchosen: slot(input, "first unchosen slot")?,
        },
        HEARTBEAT => Message::Heartbeat(heartbeat(input)?),
        PING => Message::Ping,
        CHOSEN => {
            Message::Chosen { first: slot(input, "first slot chosen")?, values: values(input)? }
        }
        LEARNED => Message::Learned { first_unchosen: slot(input, "first unchosen slot")? },
        CATCH_UP => Message::CatchUp { first_unchosen: slot(input, "first unchosen slot")? },
        CONFIRM => Message::Confirm { ballot: ballot(input)?, round: input.u64("read round")? },
        CONFIRMED => Message::Confirmed { ballot: ballot(input)?, round: input.u64("read round")? },
        GRANT => Message::Grant {
            ballot: ballot(input)?,
            sequence: input.u64("heartbeat granted")?,
            length_us: input.u64("length of a grant")?,
        },
        RELEASE => Message::Release {
            ballot: ballot(input)?,
            first_unchosen: slot(input, "first unchosen slot")?,
        },
        READ_INDEX => Message::ReadIndex { read: input.u64("number of a read")? },
        READ_FROM => {
            let read = input.u64("number of a read")?;
            let known = input.flag("whether the read index is known")?;
            let slot = if known { Some(slot(input, "read index")?) } else { None };
            Message::ReadFrom { read, slot }
        }
        value => return Err(WireError::UnknownKind { what: "message", value }),
    })
}

fn holds(input: &mut Input) -> Result<Vec<(Slot, Ballot)>, WireError> {
    let count = input.count(HELD_LEN, "entries that a candidate holds")?;
    input.list(count, |input| Ok((slot(input, "slot held")?, ballot(input)?)))
}

fn values(input: &mut Input) -> Result<Vec<Value>, WireError> {
    let count = input.count(VALUE_LEN_MIN, "chosen values")?;
    input.list(count, value)
}

fn promise(input: &mut Input) -> Result<Message, WireError> {
    let ballot = ballot(input)?;
    let from_slot = slot(input, "first slot of a Promise")?;
    let bounded = input.flag("whether a Promise has an end")?;
    let to_slot = if bounded { Some(slot(input, "end of a Promise")?) } else { None };
    let first_unchosen = slot(input, "first unchosen slot")?;
    let wall_ms = input.u64("wall clock")?;
    let count = input.count(PROMISED_ENTRY_LEN_MIN, "promised entries")?;
    let entries = input.list(count, promised_entry)?;
    Ok(Message::Promise { ballot, from_slot, to_slot, entries, first_unchosen, wall_ms })
}

fn put_promised_entry(out: &mut impl Out, entry: &PromisedEntry) {
    out.u64(entry.slot.0);
    match entry.accepted {
        Accepted::Under(ballot) => {
            out.u8(UNDER);
            put_ballot(out, ballot);
        }
        Accepted::Chosen => out.u8(FOR_EVER),
    }
    out.flag(entry.value.is_some());
    if let Some(value) = &entry.value {
        put_value(out, value);
    }
}

fn promised_entry(input: &mut Input) -> Result<PromisedEntry, WireError> {
    let slot = slot(input, "slot of a promised entry")?;
    let accepted = match input.u8("how an entry is accepted")? {
        UNDER => Accepted::Under(ballot(input)?),
        FOR_EVER => Accepted::Chosen,
        value => return Err(WireError::UnknownKind { what: "how an entry is accepted", value }),
    };
    let value = if input.flag("value of an entry")? { Some(value(input)?) } else { None };
    Ok(PromisedEntry { slot, accepted, value })
}

fn put_heartbeat(out: &mut impl Out, heartbeat: &Heartbeat) {
    out.u64(heartbeat.sequence);
    out.u64(heartbeat.echo);
    out.u64(heartbeat.echo_age_us);
    put_ballot(out, heartbeat.promised);
    put_ballot_if_any(out, heartbeat.leading);
    out.flag(heartbeat.happy_with.is_some());
    if let Some(node) = heartbeat.happy_with {
        out.u32(node.0);
    }
    out.flag(heartbeat.can_accept);
    out.flag(heartbeat.quorum_connected);
    out.u64(heartbeat.first_unchosen.0);
    out.u64(heartbeat.hint.0);
    out.u32(heartbeat.priority);
    out.u64(heartbeat.lease_us);
    out.flag(heartbeat.asks_grant);
    out.count(heartbeat.connected.len());
    for node in &heartbeat.connected {
        out.u32(node.0);
    }
}

fn heartbeat(input: &mut Input) -> Result<Heartbeat, WireError> {
    let mut heartbeat = Heartbeat {
        sequence: input.u64("heartbeat number")?,
        echo: input.u64("heartbeat echo")?,
        echo_age_us: input.u64("heartbeat echo age")?,
        promised: ballot(input)?,
        ..Heartbeat::default()
    };
    heartbeat.leading = ballot_if_any(input, "whether the sender leads")?;
    if input.flag("whether the sender is content")? {
        heartbeat.happy_with = Some(NodeId(input.u32("leader of a heartbeat")?));
    }
    heartbeat.can_accept = input.flag("whether the sender can accept")?;
    heartbeat.quorum_connected = input.flag("whether the sender reaches a quorum")?;
    heartbeat.first_unchosen = slot(input, "first unchosen slot")?;
    heartbeat.hint = slot(input, "hint of a heartbeat")?;
    heartbeat.priority = input.u32("priority")?;
    heartbeat.lease_us = input.u64("length of a lease")?;
    heartbeat.asks_grant = input.flag("whether a grant is asked for")?;
    let count = input.count(NODE_ID_LEN, "connected nodes")?;
    heartbeat.connected = input.list(count, |input| Ok(NodeId(input.u32("connected node")?)))?;
    Ok(heartbeat)
}
