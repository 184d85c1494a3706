//! How far each model goes.

use std::collections::BTreeSet;

use paxos::{Change, NodeId};

/// What may happen, and how often.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub name: &'static str,
    pub voters: &'static [u32],
    pub learners: &'static [u32],
    /// Who begins ballots, apart from leaders that go on in a new configuration.
    pub proposers: &'static [u32],
    /// If not empty: who begins the first ballot, the second and so on.
    pub order: &'static [u32],
    /// Ballots begun in all, apart from those.
    pub ballots: u8,
    /// Clients' batches in all, and the last slot that one is proposed in.
    pub batches: u8,
    pub last_slot: u64,
    /// Power failures. From some moment on the disk of a node syncs nothing any more, then it stops,
    /// and starts with any part of what it had not synced.
    pub crashes: u8,
    /// Anybody learns at any moment, in slot order, what anybody has declared chosen.
    pub learning: bool,
    /// Hints.
    pub hints: bool,
    /// Quorum reads in all.
    pub reads: u8,
    /// The voters of the next configurations, in this order.
    pub changes: &'static [&'static [u32]],
    pub leases: Option<Leases>,
    /// What can decide nothing is left out. Without that a search needs bounds on all that happens,
    /// and is for comparison.
    pub reduced: bool,
}

/// As often as it likes.
pub const ENDLESS: u8 = u8::MAX;

/// Leases, and with them time. It passes in steps, at all nodes at once.
#[derive(Clone, Debug)]
pub struct Leases {
    /// L in steps.
    pub steps: u64,
    /// How many tenths of a step each clock goes forward in one, in order of id; 10 for the others.
    pub rates: &'static [u64],
    /// Heartbeats of one ballot that may be under way, the newest.
    pub heartbeats: u64,
    /// Heartbeats after each ballot's first, and steps of time.
    pub beats: u8,
    pub passes: u8,
    pub releases: u8,
    /// Grants may be late, and answer an older heartbeat; else they arrive at once, which is the
    /// worst case as long as more grants only lengthen a lease.
    pub late_grants: bool,
    /// A store is read at one moment, and the lease is asked at another.
    pub torn_reads: bool,
}

pub(super) const NOTHING: Bounds = Bounds {
    name: "",
    voters: &[1, 2, 3],
    learners: &[],
    proposers: &[1, 2],
    order: &[],
    ballots: 2,
    batches: 0,
    last_slot: 2,
    crashes: 0,
    learning: false,
    hints: false,
    reads: 0,
    changes: &[],
    leases: None,
    reduced: true,
};

pub(super) const NO_DRIFT: Leases = Leases {
    steps: 1,
    rates: &[],
    heartbeats: 1,
    beats: ENDLESS,
    passes: ENDLESS,
    releases: 0,
    late_grants: false,
    torn_reads: false,
};

impl Bounds {
    pub fn change(&self, number: u8) -> Option<Change> {
        let voters: BTreeSet<NodeId> =
            self.changes.get(usize::from(number))?.iter().copied().map(NodeId).collect();
        Some(Change::Voters(voters))
    }

    pub fn nodes(&self) -> u32 {
        (self.voters.len() + self.learners.len()) as u32
    }

    /// The bound in words.
    pub fn words(&self) -> String {
        let ids = |ids: &[u32]| {
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            format!("{{{}}}", ids.join(","))
        };
        let mut words = vec![format!("voters {}", ids(self.voters))];
        if !self.learners.is_empty() {
            words.push(format!("learners {}", ids(self.learners)));
        }
        words.push(match self.order {
            [] => format!("{} ballots begun by any of {}", self.ballots, ids(self.proposers)),
            order => format!("{} ballots, begun in this order by {order:?}", self.ballots),
        });
        if self.batches > 0 {
            words.push(format!("{} batches up to slot {}", self.batches, self.last_slot));
        }
        for voters in self.changes {
            words.push(format!("a change to voters {}, its leaders go on in it", ids(voters)));
        }
        if self.crashes > 0 {
            words.push(format!("{} power failure with any part unsynced", self.crashes));
        }
        if self.reads > 0 {
            words.push(format!("{} quorum reads", self.reads));
        }
        if self.hints {
            words.push("hints at any moment".to_owned());
        }
        if self.learning {
            words.push(
                "what is declared learned by anybody at any moment, in slot order".to_owned(),
            );
        }
        if let Some(leases) = &self.leases {
            words.push(format!("leases of {} steps", leases.steps));
            words.push(match (leases.beats, leases.passes) {
                (ENDLESS, ENDLESS) => "heartbeats and time without end".to_owned(),
                (beats, passes) => format!("{beats} heartbeats besides the first, {passes} steps"),
            });
            if !leases.rates.is_empty() {
                words.push(format!("clocks at {:?} tenths", leases.rates));
            }
            if leases.releases > 0 {
                words.push(format!("{} handovers to anybody", leases.releases));
            }
            if leases.late_grants {
                words.push("grants late".to_owned());
            }
            words
                .push(format!("the newest {} heartbeats of a ballot under way", leases.heartbeats));
            if leases.torn_reads {
                words.push("one read, its lease asked at any moment behind it".to_owned());
            }
        }
        words.push("messages lost, late, doubled, in any order".to_owned());
        words.join("; ")
    }
}

/// A model, and how many states of it are explored when there is no hurry (0: all).
#[derive(Debug)]
pub struct Model {
    pub bounds: Bounds,
    pub states_max: usize,
}

pub const PAXOS: &[Model] = &[
    Model { bounds: HINTS, states_max: 0 },
    Model { bounds: CRASH, states_max: 0 },
    Model { bounds: ALL_FAULTS, states_max: 30_000_000 },
    Model { bounds: THREE_BALLOTS, states_max: 30_000_000 },
    Model { bounds: READS, states_max: 30_000_000 },
];

pub(super) const HINTS: Bounds =
    Bounds { name: "paxos: hints", batches: 2, learning: true, hints: true, ..NOTHING };
pub(super) const CRASH: Bounds =
    Bounds { name: "paxos: a power failure", batches: 2, crashes: 1, ..NOTHING };
pub(super) const ALL_FAULTS: Bounds = Bounds {
    name: "paxos: hints and a power failure",
    batches: 1,
    crashes: 1,
    learning: true,
    hints: true,
    ..NOTHING
};
pub(super) const THREE_BALLOTS: Bounds = Bounds {
    name: "paxos: three ballots",
    proposers: &[1, 2, 3],
    ballots: 3,
    batches: 1,
    ..NOTHING
};
pub(super) const READS: Bounds = Bounds { name: "paxos: quorum reads", reads: 2, ..NOTHING };

pub const MEMBERSHIP: &[Model] = &[
    Model { bounds: SHRINK, states_max: 0 },
    Model { bounds: SHRINK_CRASH, states_max: 0 },
    Model { bounds: SMALL_GROUP, states_max: 0 },
    Model { bounds: REPLACE, states_max: 0 },
    Model { bounds: REPLACE_TAKEN_OVER, states_max: 30_000_000 },
    Model { bounds: TWO_CHANGES, states_max: 30_000_000 },
];

pub(super) const SHRINK: Bounds = Bounds {
    name: "membership: {1,2,3} to {1,2}",
    proposers: &[1, 2, 3],
    batches: 1,
    last_slot: 4,
    changes: &[&[1, 2]],
    learning: true,
    ..NOTHING
};
pub(super) const SHRINK_CRASH: Bounds = Bounds {
    name: "membership: {1,2,3} to {1,2}, a power failure",
    batches: 0,
    crashes: 1,
    ..SHRINK
};
pub(super) const SMALL_GROUP: Bounds = Bounds {
    name: "membership: {1,2} to {1,3,4}",
    voters: &[1, 2],
    learners: &[3, 4],
    proposers: &[1, 2, 3],
    batches: 1,
    last_slot: 4,
    changes: &[&[1, 3, 4]],
    learning: true,
    ..NOTHING
};
/// Only one of the three stays. Whoever leads makes the change and goes on; then a new voter begins.
pub(super) const REPLACE: Bounds = Bounds {
    name: "membership: {1,2,3} to {1,4,5}",
    learners: &[4, 5],
    order: &[1, 4],
    changes: &[&[1, 4, 5]],
    learning: true,
    ..NOTHING
};
/// The same; another of the old ones begins meanwhile.
pub(super) const REPLACE_TAKEN_OVER: Bounds =
    Bounds { name: "membership: {1,2,3} to {1,4,5}, two of the old", order: &[1, 2], ..REPLACE };
/// One leader makes both, and goes on twice.
pub(super) const TWO_CHANGES: Bounds = Bounds {
    name: "membership: {1,2,3} to {1,2,4} to {1,4}",
    learners: &[4],
    order: &[1],
    ballots: 1,
    changes: &[&[1, 2, 4], &[1, 4]],
    learning: true,
    ..NOTHING
};

pub const LEASES: &[Model] = &[
    Model { bounds: LEASE, states_max: 0 },
    Model { bounds: LEASE_TWO_STEPS, states_max: 0 },
    Model { bounds: LEASE_RESTART, states_max: 0 },
    Model { bounds: LEASE_HANDOVER, states_max: 0 },
    Model { bounds: LEASE_HANDOVER_LATE, states_max: 30_000_000 },
    Model { bounds: LEASE_HANDOVER_RESTART, states_max: 30_000_000 },
    Model { bounds: LEASE_DRIFT, states_max: 0 },
    Model { bounds: LEASE_DRIFT_TWO_STEPS, states_max: 0 },
    Model { bounds: LEASE_LATE, states_max: 0 },
    Model { bounds: LEASE_TORN, states_max: 30_000_000 },
    Model { bounds: LEASE_CHANGE, states_max: 30_000_000 },
    Model { bounds: LEASE_SHRINK, states_max: 30_000_000 },
];

pub(super) const LEASE: Bounds = Bounds { name: "leases", leases: Some(NO_DRIFT), ..NOTHING };
pub(super) const LEASE_TWO_STEPS: Bounds =
    Bounds { name: "leases: two steps", leases: Some(Leases { steps: 2, ..NO_DRIFT }), ..NOTHING };
pub(super) const LEASE_RESTART: Bounds =
    Bounds { name: "leases: a power failure", crashes: 1, leases: Some(NO_DRIFT), ..NOTHING };
pub(super) const LEASE_HANDOVER: Bounds = Bounds {
    name: "leases: a handover",
    leases: Some(Leases { releases: 1, ..NO_DRIFT }),
    ..NOTHING
};
/// Whoever hands over goes on, and its Release is late.
pub(super) const LEASE_HANDOVER_LATE: Bounds =
    Bounds { name: "leases: a late Release", order: &[1, 1, 2], ballots: 3, ..LEASE_HANDOVER };
pub(super) const LEASE_HANDOVER_RESTART: Bounds = Bounds {
    name: "leases: a handover and a power failure",
    order: &[1, 2],
    crashes: 1,
    ..LEASE_HANDOVER
};
pub(super) const LEASE_DRIFT: Bounds = Bounds {
    name: "leases: drift at the bound",
    leases: Some(Leases { rates: &[8], ..NO_DRIFT }),
    ..NOTHING
};
/// 16 ms of the holder's clock are 20 ms of the granters', and a lease of 20 ms lasts 15.
pub(super) const LEASE_DRIFT_TWO_STEPS: Bounds = Bounds {
    name: "leases: drift at the bound, two steps",
    leases: Some(Leases { steps: 2, rates: &[8], ..NO_DRIFT }),
    ..NOTHING
};
pub(super) const LEASE_LATE: Bounds = Bounds {
    name: "leases: late grants",
    leases: Some(Leases { heartbeats: 2, late_grants: true, ..NO_DRIFT }),
    ..NOTHING
};
/// A lease lost, and won again in another ballot.
pub(super) const LEASE_TORN: Bounds = Bounds {
    name: "leases: a read apart from its check",
    order: &[1, 2, 1],
    ballots: 3,
    leases: Some(Leases { torn_reads: true, ..NO_DRIFT }),
    ..NOTHING
};
/// A quorum of the new configuration needs nobody who has granted in the old one.
pub(super) const LEASE_CHANGE: Bounds = Bounds {
    name: "leases: {1,2} to {1,3,4}",
    voters: &[1, 2],
    learners: &[3, 4],
    order: &[1, 3],
    changes: &[&[1, 3, 4]],
    learning: true,
    leases: Some(NO_DRIFT),
    ..NOTHING
};
pub(super) const LEASE_SHRINK: Bounds = Bounds {
    name: "leases: {1,2,3} to {1,2}",
    order: &[1, 2],
    changes: &[&[1, 2]],
    learning: true,
    leases: Some(NO_DRIFT),
    ..NOTHING
};

/// Small enough for a search that leaves nothing out.
pub const COMPARED: &[Bounds] = &[
    Bounds {
        name: "compared: one ballot",
        order: &[1],
        ballots: 1,
        leases: Some(Leases { beats: 1, passes: 2, ..NO_DRIFT }),
        ..NOTHING
    },
    Bounds {
        name: "compared: two ballots",
        voters: &[1, 2],
        leases: Some(Leases { beats: 1, passes: 2, ..NO_DRIFT }),
        ..NOTHING
    },
    Bounds {
        name: "compared: a handover",
        voters: &[1, 2],
        order: &[1, 2],
        leases: Some(Leases { beats: 0, passes: 1, releases: 1, ..NO_DRIFT }),
        ..NOTHING
    },
    Bounds {
        name: "compared: late grants",
        voters: &[1, 2],
        order: &[1],
        ballots: 1,
        leases: Some(Leases { beats: 2, passes: 2, heartbeats: 2, late_grants: true, ..NO_DRIFT }),
        ..NOTHING
    },
];
