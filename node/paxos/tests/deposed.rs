//! Whoever is deposed does nothing more under the ballot that is over (PITFALLS 81): no heartbeat, no
//! repeated Accept, no read round, no lease, whatever its timers were at and however late the answers.

mod harness;

use harness::cluster::Cluster;
use harness::disk::Snapshot;
use paxos::{Ballot, Envelope, Message, NodeId, Note, Output, Position, Settings, Slot, Value};

const MS: u64 = 1_000;
const LEADER: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
/// Longer than any of its timers.
const LATER_MS: u64 = 3_000;

/// Its reign ends; everything that it waits for stays undone.
type End = (&'static str, fn(&mut Cluster));

const ENDS: [End; 7] = [
    ("its acceptor promises a higher ballot", |cluster| {
        let from_slot = Slot::FIRST;
        let prepare =
            Message::Prepare { ballot: higher(), from_slot, holds: Vec::new(), release: None };
        // A grant may keep it waiting.
        cluster.time_us += 110 * MS;
        arrive(cluster, prepare);
    }),
    ("it is refused", |cluster| {
        let ballot = ballot_of(cluster);
        arrive(cluster, Message::Nack { ballot, promised: higher() });
    }),
    ("it is outvoted", |cluster| {
        let replica = cluster.replica(LEADER).expect("it runs");
        let first = replica.first_unchosen();
        arrive(cluster, Message::Chosen { first, values: vec![Value::Noop] });
    }),
    ("it reaches nobody", |cluster| alone(cluster, 800)),
    ("its disk is full, and there is nobody to hand over to", |cluster| {
        cluster.set_can_accept(LEADER, false);
        alone(cluster, 300);
    }),
    ("a snapshot shows that others went on", |cluster| {
        let configuration = cluster.configuration.clone();
        cluster.install(LEADER, Snapshot { below: Slot(50), hash: 7, configuration });
    }),
    ("an operator lets it begin again", |cluster| cluster.take_over(LEADER)),
];

#[test]
fn nothing_of_a_ballot_that_is_over_is_said_or_counted() {
    for (name, end) in ENDS {
        for lease_ms in [0, 100] {
            let wrong = outlives(end, lease_ms);
            assert!(wrong.is_none(), "{name}, lease {lease_ms}: {}", wrong.unwrap_or_default());
        }
    }
}

/// The same finds fault with a core in which timers outlive the ballot.
#[cfg(feature = "mutants")]
#[test]
fn timers_that_outlive_their_ballot_are_noticed() {
    for (name, end) in ENDS {
        paxos::break_rules(&[paxos::Mutant::TimersOutliveTheBallot]);
        let wrong = std::panic::catch_unwind(|| outlives(end, 0));
        paxos::break_rules(&[]);
        // An operator's new round begins in place of the old one in any case; and the core may stop
        // itself.
        let is_noticed = !matches!(wrong, Ok(None)) || name.starts_with("an operator");
        assert!(is_noticed, "{name}");
    }
}

/// What is said or counted of n1's ballot after its end, if anything.
fn outlives(end: fn(&mut Cluster), lease_ms: u64) -> Option<String> {
    let mut cluster = leader_with_much_to_do(lease_ms);
    let old = ballot_of(&cluster);
    let settled = cluster.replica(LEADER).expect("it runs").first_unchosen();
    end(&mut cluster);
    let leading = cluster.replica(LEADER).expect("it runs").leading();
    if leading == Some(old) {
        return Some("it leads on".to_owned());
    }
    cluster.outbox.clear();
    alone(&mut cluster, LATER_MS);
    let said = std::mem::take(&mut cluster.outbox);
    let late = said.iter().find(|envelope| speaks_for(&envelope.message, old));
    if let Some(Envelope { to, message, .. }) = late {
        return Some(format!("it says to {to}: {message:?}"));
    }
    // Then every answer that it once waited for.
    let known = cluster.replica(LEADER).expect("it runs").first_unchosen();
    let mut replica = cluster.replica(LEADER).expect("it runs").clone();
    let now = cluster.now(LEADER);
    let mut output = Output::default();
    for from in [PEER, NodeId(3)] {
        let accepted = (settled.0..settled.0 + 3).map(|slot| Message::Accepted {
            ballot: old,
            slot: Slot(slot),
            first_unchosen: settled,
        });
        let grants =
            (1..400).map(|sequence| Message::Grant { ballot: old, sequence, length_us: 100 * MS });
        let confirmed = (0..10).map(|round| Message::Confirmed { ballot: old, round });
        for message in accepted.chain(grants).chain(confirmed) {
            replica.step(now, Envelope { from, to: LEADER, message }, &mut output);
        }
    }
    replica.durable(now, Position(0), &mut output);
    if !output.reads.is_empty() {
        return Some(format!("it serves {:?}", output.reads));
    }
    if replica.first_unchosen() != known {
        return Some(format!("it takes {:?} for chosen", output.applicable));
    }
    let counts = |note: &&Note| {
        matches!(note, Note::Tallied { .. } | Note::Leased { .. } | Note::Elected { .. })
    };
    if let Some(note) = output.notes.iter().find(counts) {
        return Some(format!("it counts: {note:?}"));
    }
    (replica.lease_remaining_us(now) > 0).then(|| "it holds a lease".to_owned())
}

/// As a leader of that ballot.
fn speaks_for(message: &Message, old: Ballot) -> bool {
    match message {
        Message::Prepare { ballot, .. }
        | Message::Accept { ballot, .. }
        | Message::Confirm { ballot, .. }
        | Message::Release { ballot, .. } => *ballot == old,
        Message::Heartbeat(heartbeat) => heartbeat.leading == Some(old),
        _ => false,
    }
}

/// n1 leads three nodes, which hear it no more: two slots are in flight and a read round has begun.
fn leader_with_much_to_do(lease_ms: u64) -> Cluster {
    let mut cluster = Cluster::new((3, 0, 0), |id| {
        let mut settings = Settings::new(id, 0, u64::from(id.0));
        settings.lease_terms.lease_us = lease_ms * MS;
        settings
    });
    for id in cluster.ids() {
        cluster.start(id);
    }
    cluster.take_over(LEADER);
    for _ in 0..100 {
        cluster.time_us += MS;
        for envelope in std::mem::take(&mut cluster.outbox) {
            cluster.deliver(envelope);
        }
        for id in cluster.ids() {
            let end = cluster.node(id).disk.end();
            cluster.sync(id, end);
            if (cluster.time_us / MS + u64::from(id.0)).is_multiple_of(5) {
                cluster.tick(id);
            }
        }
    }
    for payload in ["x", "y"] {
        cluster.propose(LEADER, payload).expect("it runs").expect("it leads");
    }
    cluster.read_by_quorum(LEADER).expect("it runs").expect("it leads");
    cluster
}

/// Time passes for n1 only, and nothing arrives there.
fn alone(cluster: &mut Cluster, ms: u64) {
    for _ in 0..ms / 5 {
        cluster.time_us += 5 * MS;
        let end = cluster.node(LEADER).disk.end();
        cluster.sync(LEADER, end);
        cluster.tick(LEADER);
    }
}

fn arrive(cluster: &mut Cluster, message: Message) {
    cluster.deliver(Envelope { from: PEER, to: LEADER, message });
}

fn ballot_of(cluster: &Cluster) -> Ballot {
    cluster.replica(LEADER).expect("it runs").leading().expect("it leads")
}

fn higher() -> Ballot {
    Ballot { configuration: 0, round: 9, node: PEER }
}
