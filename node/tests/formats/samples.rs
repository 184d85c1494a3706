//! One of everything that travels or is written down, always the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use paxos::{
    Accepted, Ballot, BatchId, Configuration, Heartbeat, LeaseTerms, Member, Message, NodeId,
    PromisedEntry, Record, Role, Slot, Value,
};

pub(crate) fn ballot(round: u64) -> Ballot {
    Ballot { configuration: 1, round, node: NodeId(2) }
}

pub(crate) fn a_configuration() -> Configuration {
    let member = |role, n: u8| Member {
        role,
        incarnation: u64::from(n) << 56 | 0xabc,
        public_key: vec![n; 32],
        peer_address: format!("10.0.0.{n}:7380"),
        client_address: format!("10.0.0.{n}:7379"),
        http_address: format!("10.0.0.{n}:7381"),
        name: format!("n{n}"),
    };
    let members = BTreeMap::from([
        (NodeId(1), member(Role::Voter, 1)),
        (NodeId(2), member(Role::Learner, 2)),
    ]);
    Configuration {
        number: 5,
        slot: Slot(70),
        members,
        removed: [NodeId(3), NodeId(9)].into(),
        lease_terms: Some(LeaseTerms { lease_us: 123_000, drift_percent: 21 }),
        store_version: 6,
    }
}

/// As releases had it that stated no lease terms; and as it is still written.
pub(crate) fn without_terms() -> Configuration {
    Configuration { lease_terms: None, ..a_configuration() }
}

pub(crate) fn a_change(configuration: Configuration) -> Value {
    let id = BatchId { incarnation: 3, counter: 4 };
    Value::Configuration { id, configuration }
}

pub(crate) fn a_batch() -> Value {
    let id = BatchId { incarnation: 0x1122_3344_5566_7788, counter: 9 };
    Value::Batch { id, payload: Bytes::from_static(b"SET k v") }
}

pub(crate) fn one_of_each(configuration: Configuration) -> Vec<Message> {
    let entry = |slot, accepted, value| PromisedEntry { slot: Slot(slot), accepted, value };
    vec![
        Message::Prepare {
            ballot: ballot(7),
            from_slot: Slot(3),
            holds: vec![(Slot(4), ballot(6))],
            release: Some(ballot(6)),
        },
        Message::Promise {
            ballot: ballot(7),
            from_slot: Slot(5),
            to_slot: Some(Slot(8)),
            first_unchosen: Slot(5),
            entries: vec![
                entry(5, Accepted::Under(ballot(4)), Some(a_batch())),
                entry(6, Accepted::Chosen, Some(Value::Noop)),
                entry(7, Accepted::Under(ballot(6)), None),
            ],
            wall_ms: 1_700_000_000_123,
        },
        Message::Nack { ballot: ballot(7), promised: ballot(8) },
        Message::Behind { ballot: ballot(7), first_kept: Slot(9), first_unchosen: Slot(11) },
        Message::Accept { ballot: ballot(7), slot: Slot(12), value: a_batch(), hint: Slot(10) },
        Message::Accepted { ballot: ballot(7), slot: Slot(12), first_unchosen: Slot(10) },
        Message::Heartbeat(Heartbeat {
            sequence: 100,
            echo: 99,
            echo_age_us: 1234,
            promised: ballot(7),
            leading: Some(ballot(7)),
            happy_with: Some(NodeId(2)),
            can_accept: true,
            quorum_connected: false,
            connected: vec![NodeId(1), NodeId(3)],
            first_unchosen: Slot(10),
            hint: Slot(9),
            priority: 50,
            lease_us: 100_000,
            asks_grant: true,
        }),
        Message::Ping,
        Message::Chosen {
            first: Slot(5),
            values: vec![a_batch(), Value::Noop, a_change(configuration)],
        },
        Message::Learned { first_unchosen: Slot(8) },
        Message::CatchUp { first_unchosen: Slot(8) },
        Message::Confirm { ballot: ballot(7), round: 21 },
        Message::Confirmed { ballot: ballot(7), round: 21 },
        Message::Grant { ballot: ballot(7), sequence: 100, length_us: 100_000 },
        Message::Release { ballot: ballot(7), first_unchosen: Slot(10) },
        Message::ReadIndex { read: 33 },
        Message::ReadFrom { read: 33, slot: Some(Slot(9)) },
    ]
}

pub(crate) fn one_of_each_record(configuration: Configuration) -> Vec<(&'static str, Record)> {
    let a_change = a_change(configuration.clone());
    let accepted = Record::Accepted { slot: Slot(4), ballot: ballot(7), value: a_batch() };
    vec![
        ("promised", Record::Promised(ballot(7))),
        ("accepted", accepted),
        ("chosen", Record::Chosen { slot: Slot(4), value: a_change }),
        ("configuration", Record::Configuration(configuration)),
        ("chosen_range", Record::ChosenRange { from: Slot(2), below: Slot(4) }),
        ("trimmed_below", Record::TrimmedBelow(Slot(4))),
    ]
}
