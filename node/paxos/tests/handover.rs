//! A handover with one thing wrong, for every message of it: each is lost, comes late or comes twice.
//! Nobody but one holds a lease, the group is not stuck, and nothing of what was written is lost.
//!
//! The messages are taken from a handover that goes well, so that the list is never out of date. The
//! scripts named `handover_…` tell some of these stories step by step.

mod harness;

use std::collections::BTreeMap;

use harness::cluster::Cluster;
use paxos::{Envelope, NodeId, Settings};

const MS: u64 = 1_000;
const FROM: NodeId = NodeId(1);
const TO: NodeId = NodeId(2);

/// A message of the handover: the n-th of its kind from one node to another.
type Place = (&'static str, NodeId, NodeId, usize);

#[derive(Clone, Copy, Debug)]
enum Wrong {
    Lost,
    /// Longer than a few heartbeats, than a lease, than the leader that hands over waits.
    Late {
        ms: u64,
    },
    Twice {
        second_ms: u64,
    },
}

const WRONGS: [Wrong; 7] = [
    Wrong::Lost,
    Wrong::Late { ms: 50 },
    Wrong::Late { ms: 130 },
    Wrong::Late { ms: 400 },
    Wrong::Twice { second_ms: 0 },
    Wrong::Twice { second_ms: 130 },
    Wrong::Twice { second_ms: 400 },
];

#[derive(Clone, Copy, Debug)]
struct Plan {
    lease_ms: u64,
    sync_ms: u64,
    wrong: Option<(Place, Wrong)>,
}

/// Three nodes, a millisecond a step.
struct Desk {
    cluster: Cluster,
    plan: Plan,
    /// What travels, with when it arrives.
    network: Vec<(u64, Envelope)>,
    /// Syncs under way: when each ends, and what it covers.
    syncs: BTreeMap<NodeId, (u64, usize)>,
    /// Messages sent since the leader was asked to hand over.
    sent: Option<Vec<Place>>,
    /// Ballots before that.
    begun: usize,
}

impl Desk {
    fn new(plan: Plan, is_told: bool) -> Desk {
        let mut cluster = Cluster::new((3, 0, 0), |id| {
            let mut settings = Settings::new(id, 0, u64::from(id.0));
            settings.lease_terms.lease_us = MS * plan.lease_ms;
            settings
        });
        cluster.trace.enabled = is_told;
        for id in cluster.ids() {
            cluster.start(id);
        }
        let (network, syncs) = (Vec::new(), BTreeMap::new());
        Desk { cluster, plan, network, syncs, sent: None, begun: 0 }
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }

    fn step(&mut self) {
        self.pick_up();
        self.cluster.time_us += MS;
        let now_us = self.cluster.time_us;
        for id in self.cluster.ids() {
            self.sync(id);
        }
        self.pick_up();
        let waiting = std::mem::take(&mut self.network);
        let (due, left): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(at, _)| *at <= now_us);
        self.network = left;
        for (_, envelope) in due {
            self.cluster.deliver(envelope);
        }
        for id in self.cluster.ids() {
            if (now_us / MS + u64::from(id.0)).is_multiple_of(5) {
                self.cluster.tick(id);
            }
        }
    }

    /// What was written when a sync began is durable when it ends.
    fn sync(&mut self, id: NodeId) {
        let now_us = self.cluster.time_us;
        if let Some(&(ends_us, end)) = self.syncs.get(&id)
            && ends_us <= now_us
        {
            self.syncs.remove(&id);
            self.cluster.sync(id, end);
        }
        let disk = &self.cluster.node(id).disk;
        if disk.unsynced_count() > 0 && !self.syncs.contains_key(&id) {
            self.syncs.insert(id, (now_us + MS * self.plan.sync_ms, disk.end()));
        }
    }

    fn pick_up(&mut self) {
        let arrives_us = self.cluster.time_us + MS;
        for envelope in std::mem::take(&mut self.cluster.outbox) {
            match self.fate(&envelope) {
                None => self.network.push((arrives_us, envelope)),
                Some(Wrong::Lost) => {}
                Some(Wrong::Late { ms }) => self.network.push((arrives_us + MS * ms, envelope)),
                Some(Wrong::Twice { second_ms }) => {
                    self.network.push((arrives_us, envelope.clone()));
                    self.network.push((arrives_us + MS * second_ms, envelope));
                }
            }
        }
    }

    fn fate(&mut self, envelope: &Envelope) -> Option<Wrong> {
        let sent = self.sent.as_mut()?;
        let (kind, from, to) = (envelope.message.kind(), envelope.from, envelope.to);
        let alike = |place: &&Place| (place.0, place.1, place.2) == (kind, from, to);
        let place = (kind, from, to, sent.iter().filter(alike).count());
        sent.push(place);
        let (struck, wrong) = self.plan.wrong?;
        (struck == place).then_some(wrong)
    }

    /// A leader of some time.
    fn begin(&mut self) {
        self.run(300);
        let (first, _) = *self.cluster.leaders().first().expect("somebody leads by now");
        if first != FROM {
            let answer = self.cluster.hand_over(first, Some(FROM));
            assert_eq!(answer, Some(Ok(FROM)));
            self.run(200);
        }
        assert!(self.cluster.leaders().iter().all(|(node, _)| *node == FROM));
    }

    /// With a batch in flight.
    fn hand_over(&mut self) {
        self.begun = self.cluster.checker.begun_count();
        self.sent = Some(Vec::new());
        self.cluster.propose(FROM, "x");
        let answer = self.cluster.hand_over(FROM, Some(TO));
        assert!(matches!(answer, Some(Ok(TO))), "{answer:?}");
    }

    /// What is wrong in the end, if anything.
    fn end(&mut self) -> Result<(), String> {
        let begun = self.cluster.checker.begun_count() - self.begun;
        if begun > BALLOTS_MAX {
            return Err(format!("{begun} ballots"));
        }
        let leaders = self.cluster.leaders();
        let [(leader, _)] = leaders[..] else { return Err(format!("leading: {leaders:?}")) };
        let before = self.cluster.checker.acknowledged_count();
        if self.cluster.checker.lost_count() > 0 || before != 1 {
            return Err("what was in flight is lost".to_owned());
        }
        let taken = self.cluster.propose(leader, "y");
        self.run(300);
        match self.cluster.checker.violation.clone() {
            Some(violation) => Err(violation),
            None if self.cluster.checker.acknowledged_count() > before => Ok(()),
            None => Err(format!("{leader} leads and cannot choose: {taken:?}")),
        }
    }
}

/// The handover's own, and another where it failed. A late message costs no more.
const BALLOTS_MAX: usize = 2;
/// By then it is over, whatever was lost.
const SETTLED_MS: u64 = 700;

/// `breaks` breaks a rule, or none, once there is a leader to hand over.
fn play(plan: Plan, is_told: bool, breaks: impl Fn()) -> (Result<(), String>, Vec<String>) {
    let mut desk = Desk::new(plan, is_told);
    desk.begin();
    breaks();
    desk.hand_over();
    desk.run(SETTLED_MS);
    let end = desk.end();
    #[cfg(feature = "mutants")]
    paxos::break_rules(&[]);
    (end, desk.cluster.trace.lines.drain(..).collect())
}

/// The messages of a handover that goes well, up to the first lease of the next leader, or the next
/// few heartbeats where there are none.
fn messages(plan: Plan) -> Vec<Place> {
    let mut desk = Desk::new(plan, false);
    desk.begin();
    desk.hand_over();
    for _ in 0..SETTLED_MS {
        desk.step();
        let now = desk.cluster.now(TO);
        let next = desk.cluster.replica(TO).expect("it runs");
        if next.reign_is_open() && (plan.lease_ms == 0 || next.lease_remaining_us(now) > 0) {
            desk.run(2 * plan.sync_ms + 30);
            return desk.sent.unwrap_or_default();
        }
    }
    panic!("a handover without any trouble does not end");
}

#[test]
fn every_message_of_a_handover_may_be_lost_late_or_doubled() {
    let (plays, failures) = every_play(|| {});
    println!("{plays} handovers, {} failed", failures.len());
    if let Some((plan, _)) = failures.first() {
        let (_, told) = play(*plan, true, || {});
        let texts: Vec<String> =
            failures.iter().map(|(plan, text)| format!("{plan:?}: {text}")).collect();
        panic!("{}\n\nthe first of them:\n{}", texts.join("\n"), told.join("\n"));
    }
}

/// How many there were, and which of them ended badly.
fn every_play(breaks: impl Fn()) -> (usize, Vec<(Plan, String)>) {
    let mut failures = Vec::new();
    let mut plays = 0;
    for (lease_ms, sync_ms) in [(0, 0), (100, 0), (0, 20), (100, 20)] {
        let well = Plan { lease_ms, sync_ms, wrong: None };
        let messages = messages(well);
        for kind in ["accept", "accepted", "release", "prepare", "promise", "heartbeat"] {
            assert!(messages.iter().any(|place| place.0 == kind), "no {kind}: {messages:?}");
        }
        assert!(lease_ms == 0 || messages.iter().any(|place| place.0 == "grant"), "{messages:?}");
        for place in messages {
            for wrong in WRONGS {
                let plan = Plan { wrong: Some((place, wrong)), ..well };
                plays += 1;
                failures.extend(play(plan, false, &breaks).0.err().map(|text| (plan, text)));
            }
        }
    }
    (plays, failures)
}

/// The same, with a rule of the handover broken: something that is lost, late or doubled shows it.
#[cfg(feature = "mutants")]
#[test]
fn a_broken_handover_is_noticed() {
    use paxos::{Mutant, break_rules};
    for mutant in
        [Mutant::RenewedAfterRelease, Mutant::LeaseKeptAfterRelease, Mutant::TakesOverFromTheHappy]
    {
        let (plays, failures) = every_play(|| break_rules(&[mutant]));
        println!("{mutant:?}: {} of {plays} handovers, {:?}", failures.len(), failures.first());
        assert!(!failures.is_empty(), "{mutant:?} is not noticed");
    }
}
