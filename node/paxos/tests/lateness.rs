//! A process that stood still blames nobody for it, whichever call comes first when it goes on
//! (PITFALLS 104); but its lease has run out by the clock all the same (PITFALLS 80).

mod harness;

use std::collections::BTreeSet;

use harness::cluster::Cluster;
use paxos::{
    Change, Configuration, Envelope, Message, NodeId, Now, Output, Position, ReadId, Replica,
    Settings, Slot,
};

const MS: u64 = 1_000;
const LEADER: NodeId = NodeId(1);
const FOLLOWER: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);
/// Longer than any silence, stall or lease.
const PAUSE_MS: u64 = 5_000;

type Entry = (&'static str, fn(&mut Replica, Now, &mut Output));

/// Every way into a replica that takes the time and may change it.
const ENTRIES: [Entry; 12] = [
    ("step", |replica, now, output| {
        let envelope = Envelope { from: OTHER, to: replica.id(), message: Message::Ping };
        replica.step(now, envelope, output);
    }),
    ("tick", Replica::tick),
    ("durable", |replica, now, output| replica.durable(now, Position(0), output)),
    ("propose", |replica, now, output| {
        let _ = replica.propose(now, "y".into(), output);
    }),
    ("read", |replica, now, output| {
        let _ = replica.read(now, ReadId(1), output);
    }),
    ("take_over", |replica, now, output| {
        replica.take_over(now, output);
    }),
    ("disconnected", |replica, now, output| replica.disconnected(now, OTHER, output)),
    ("connected", |replica, now, output| replica.connected(now, OTHER, output)),
    ("install", |replica, now, output| {
        replica.install(now, Slot::FIRST, Configuration::default(), output);
    }),
    ("change", |replica, now, output| {
        let _ = replica.change(now, &Change::Remove(NodeId(9)), output);
    }),
    ("hand_over", |replica, now, output| {
        let _ = replica.hand_over(now, None, output);
    }),
    ("read_at_follower", |replica, now, output| {
        let _ = replica.read_at_follower(now, ReadId(1), output);
    }),
];

#[test]
fn whichever_call_comes_first_behind_a_pause_blames_nobody() {
    for (name, enter) in ENTRIES {
        for id in [LEADER, FOLLOWER] {
            let (mut replica, now) = paused(id);
            let connected = |replica: &Replica| {
                let views = replica.peer_views(now);
                views.into_iter().filter(|peer| peer.connected).count()
            };
            assert_eq!(connected(&replica), 0, "{name} at {id}: the pause shows");
            assert_eq!(replica.lease_remaining_us(now), 0, "{name} at {id}: the lease is over");
            let mut output = Output::default();
            enter(&mut replica, now, &mut output);
            assert_eq!(connected(&replica), 2, "{name} at {id}: the others are blamed");
            assert_eq!(replica.lease_remaining_us(now), 0, "{name} at {id}: no mercy for a lease");
            // These two end its reign because they are asked to.
            if id == LEADER && !["take_over", "hand_over"].contains(&name) {
                assert!(replica.leading().is_some(), "{name}: it stops leading");
                replica.tick(now, &mut output);
                assert!(replica.leading().is_some(), "{name}: it stops leading at the next tick");
            }
        }
    }
}

/// Whoever adds a call that takes the time adds it above.
#[test]
fn no_call_that_takes_the_time_is_missing_above() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let rooms = std::fs::read_dir(format!("{folder}/replica")).expect("its rooms");
    let rooms = rooms.map(|entry| entry.expect("a file").path());
    let files = rooms.chain([format!("{folder}/replica.rs").into()]);
    let mut found = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for function in text.split("    pub fn ").skip(1) {
            let (name, rest) = function.split_once(['(', '<']).expect("a name");
            let arguments = rest.split_once('{').map_or(rest, |(arguments, _)| arguments);
            if arguments.contains("&mut self") && arguments.contains("now: Now") {
                found.insert(name.to_owned());
            }
        }
    }
    let listed: BTreeSet<String> = ENTRIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, listed);
}

/// One of three nodes, with a slot pending if it leads, and the time at which it goes on.
fn paused(id: NodeId) -> (Replica, Now) {
    let mut cluster = Cluster::new((3, 0, 0), |id| {
        let mut settings = Settings::new(id, 0, u64::from(id.0));
        settings.lease_terms.lease_us = 100 * MS;
        settings
    });
    for id in cluster.ids() {
        cluster.start(id);
    }
    cluster.take_over(LEADER);
    for _ in 0..200 {
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
    assert!(cluster.replica(LEADER).expect("it runs").lease_remaining_us(cluster.now(LEADER)) > 0);
    cluster.propose(LEADER, "x").expect("it runs").expect("it leads");
    cluster.time_us += MS * PAUSE_MS;
    (cluster.replica(id).expect("it runs").clone(), cluster.now(id))
}
