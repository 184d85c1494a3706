//! Ballots, slots, values and configurations: what both messages and records are made of.

use std::collections::{BTreeMap, BTreeSet};

use paxos::{Ballot, BatchId, Configuration, LeaseTerms, Member, NodeId, Role, Slot, Value};

use super::WireError;
use super::bytes::{Input, Out};

const NOOP: u8 = 0;
const BATCH: u8 = 1;
/// 2 was a configuration without its slot and the removed ids; nobody ever proposed one.
/// One that states no lease terms.
const CONFIGURATION: u8 = 3;
const CONFIGURATION_WITH_TERMS: u8 = 4;

/// Version of a configuration that stands alone, as in a snapshot's head. One that states no lease
/// terms is still written as version 2 had it: while a cluster is upgraded node by node, nothing that
/// the former release could not read is written down or told, until every member can read it.
pub(super) const CONFIGURATION_VERSION: u8 = 3;
pub(super) const CONFIGURATION_VERSION_OLDEST: u8 = 1;
/// The last version without lease terms.
pub(super) const WITHOUT_TERMS: u8 = 2;

const VOTER: u8 = 0;
const LEARNER: u8 = 1;

/// The least that one member takes: id, role, incarnation and five empty fields.
const MEMBER_LEN_MIN: usize = 4 + 1 + 8 + 5 * 2;

pub(super) const BALLOT_LEN: usize = 4 + 8 + 4;

pub(super) fn put_ballot(out: &mut impl Out, ballot: Ballot) {
    out.u32(ballot.configuration);
    out.u64(ballot.round);
    out.u32(ballot.node.0);
}

pub(super) fn ballot(input: &mut Input) -> Result<Ballot, WireError> {
    Ok(Ballot {
        configuration: input.u32("ballot configuration")?,
        round: input.u64("ballot round")?,
        node: NodeId(input.u32("ballot node")?),
    })
}

pub(super) fn slot(input: &mut Input, what: &'static str) -> Result<Slot, WireError> {
    Ok(Slot(input.u64(what)?))
}

pub(super) fn put_value(out: &mut impl Out, value: &Value) {
    match value {
        Value::Noop => out.u8(NOOP),
        Value::Batch { id, payload } => {
            out.u8(BATCH);
            put_batch_id(out, *id);
            out.blob(payload);
        }
        Value::Configuration { id, configuration } => {
            out.u8(match states_terms(value) {
                true => CONFIGURATION_WITH_TERMS,
                false => CONFIGURATION,
            });
            put_batch_id(out, *id);
            put_configuration(out, configuration);
        }
    }
}

pub(super) fn value(input: &mut Input) -> Result<Value, WireError> {
    match input.u8("value kind")? {
        NOOP => Ok(Value::Noop),
        BATCH => Ok(Value::Batch { id: batch_id(input)?, payload: input.blob("batch payload")? }),
        CONFIGURATION => Ok(Value::Configuration {
            id: batch_id(input)?,
            configuration: configuration(input, WITHOUT_TERMS)?,
        }),
        CONFIGURATION_WITH_TERMS => Ok(Value::Configuration {
            id: batch_id(input)?,
            configuration: configuration(input, CONFIGURATION_VERSION)?,
        }),
        value => Err(WireError::UnknownKind { what: "value", value }),
    }
}

/// Does it hold a configuration that no release before version 3 can read?
pub(super) fn states_terms(value: &Value) -> bool {
    match value {
        Value::Configuration { configuration, .. } => {
            configuration_version(configuration) > WITHOUT_TERMS
        }
        Value::Noop | Value::Batch { .. } => false,
    }
}

/// The oldest version that can say it.
pub(super) fn configuration_version(configuration: &Configuration) -> u8 {
    match configuration.lease_terms {
        Some(_) => CONFIGURATION_VERSION,
        None => WITHOUT_TERMS,
    }
}

fn put_batch_id(out: &mut impl Out, id: BatchId) {
    out.u64(id.incarnation);
    out.u64(id.counter);
}

fn batch_id(input: &mut Input) -> Result<BatchId, WireError> {
    Ok(BatchId {
        incarnation: input.u64("batch incarnation")?,
        counter: input.u64("batch counter")?,
    })
}

pub(super) fn put_configuration(out: &mut impl Out, configuration: &Configuration) {
    out.u32(configuration.number);
    out.u32(configuration.store_version);
    out.u64(configuration.slot.0);
    if let Some(LeaseTerms { lease_us, drift_percent }) = configuration.lease_terms {
        out.u64(lease_us);
        out.u32(drift_percent);
    }
    out.count(configuration.removed.len());
    for id in &configuration.removed {
        out.u32(id.0);
    }
    out.count(configuration.members.len());
    for (id, member) in &configuration.members {
        out.u32(id.0);
        out.u8(match member.role {
            Role::Voter => VOTER,
            Role::Learner => LEARNER,
        });
        out.u64(member.incarnation);
        out.short(&member.public_key);
        out.short(member.peer_address.as_bytes());
        out.short(member.client_address.as_bytes());
        out.short(member.http_address.as_bytes());
        out.short(member.name.as_bytes());
    }
}

/// Version 1 knew neither the slot nor the removed ids: number 0, as `format` gave it. Version 2 knew
/// no lease terms.
pub(super) fn configuration(input: &mut Input, version: u8) -> Result<Configuration, WireError> {
    let number = input.u32("configuration number")?;
    let store_version = input.u32("store version")?;
    let mut slot = Slot::ZERO;
    let mut removed = BTreeSet::new();
    let mut lease_terms = None;
    if version > 1 {
        slot = Slot(input.u64("configuration slot")?);
        if version > WITHOUT_TERMS {
            let lease_us = input.u64("length of leases")?;
            let drift_percent = input.u32("drift")?;
            lease_terms = Some(LeaseTerms { lease_us, drift_percent });
        }
        for _ in 0..input.count(4, "removed members")? {
            removed.insert(NodeId(input.u32("removed member")?));
        }
    }
    let count = input.count(MEMBER_LEN_MIN, "configuration members")?;
    let mut members = BTreeMap::new();
    for _ in 0..count {
        let id = NodeId(input.u32("member id")?);
        let role = match input.u8("member role")? {
            VOTER => Role::Voter,
            LEARNER => Role::Learner,
            value => return Err(WireError::UnknownKind { what: "member role", value }),
        };
        let member = Member {
            role,
            incarnation: input.u64("member incarnation")?,
            public_key: input.short("member public key")?,
            peer_address: input.text("member peer address")?,
            client_address: input.text("member client address")?,
            http_address: input.text("member http address")?,
            name: input.text("member name")?,
        };
        if members.insert(id, member).is_some() {
            return Err(WireError::Duplicate { what: "configuration member", id: id.0 });
        }
    }
    Ok(Configuration { number, slot, members, removed, lease_terms, store_version })
}
