//! The mix that a seed draws: what kind of cluster it is, and what happens to it.

use paxos::ElectionStrategy;

use super::{MS, SECOND};
use crate::harness::chance::Chance;
use crate::harness::seeds::Less;

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    pub voters: u32,
    pub learners: u32,
    pub strategy: ElectionStrategy,
    pub faults_us: u64,
    pub loss_ppm: u64,
    pub duplicate_ppm: u64,
    pub delay_us: (u64, u64),
    pub slow_ppm: u64,
    pub sync_us: (u64, u64),
    pub stall_ppm: u64,
    pub fault_every_us: u64,
    pub faults: Vec<Fault>,
    pub snapshot_every_us: u64,
    pub propose_every_us: u64,
    pub read_every_us: u64,
    pub hints: bool,
    /// The length of leases; 0 for a cluster without.
    pub lease_us: u64,
    /// Every second node takes no part in leases.
    pub mixed_leases: bool,
    /// Messages of one link arrive in the order in which they were sent.
    pub in_order: bool,
    /// Members come and go about this often; 0 for never.
    pub change_every_us: u64,
    /// Nodes that are formatted, run, and may be added.
    pub spares: u32,
    /// Some changes are of the rules, and some programs come back newer than they went.
    pub rules: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Crash,
    CrashAll,
    CrashLeader,
    Isolate,
    OneWay,
    Split,
    RandomLinks,
    Chain,
    QuorumLoss,
    HealLinks,
    Pause,
    PauseLeader,
    SuspendLeader,
    Grey,
    SpoilSnapshot,
    Transfer,
}

const FAULTS: [Fault; 16] = [
    Fault::Crash,
    Fault::CrashAll,
    Fault::CrashLeader,
    Fault::Isolate,
    Fault::OneWay,
    Fault::Split,
    Fault::RandomLinks,
    Fault::Chain,
    Fault::QuorumLoss,
    Fault::HealLinks,
    Fault::Pause,
    Fault::PauseLeader,
    Fault::SuspendLeader,
    Fault::Grey,
    Fault::SpoilSnapshot,
    Fault::Transfer,
];

/// What else a life can do without.
pub const TRAITS: [&str; 9] =
    ["loss", "duplicates", "delays", "stalls", "leases", "changes", "rules", "reads", "snapshots"];

impl Plan {
    pub fn leave_out(&mut self, less: &Less) {
        for name in &less.without {
            match name.as_str() {
                "loss" => self.loss_ppm = 0,
                "duplicates" => self.duplicate_ppm = 0,
                "delays" => (self.delay_us, self.slow_ppm) = ((40, 120), 0),
                "stalls" => self.stall_ppm = 0,
                "leases" => self.lease_us = 0,
                "changes" => self.change_every_us = 0,
                "rules" => self.rules = false,
                "reads" => self.read_every_us = 0,
                "snapshots" => self.snapshot_every_us = 0,
                _kind_of_fault => {}
            }
        }
    }

    pub fn draw(chance: &mut Chance, seed: u64) -> Plan {
        let (spares, change_every_us) = draw_changes(&mut Chance::new(seed ^ 0x5709));
        let rules = change_every_us > 0 && Chance::new(seed ^ 0x2135).one_in(2);
        let voters = *chance.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 7]);
        let faults: Vec<Fault> = FAULTS.iter().copied().filter(|_| chance.one_in(2)).collect();
        Plan {
            voters,
            learners: u32::from(chance.one_in(5)),
            strategy: if chance.one_in(4) {
                ElectionStrategy::HighestId
            } else {
                ElectionStrategy::Ballot
            },
            faults_us: chance.between(1, 4) * SECOND,
            loss_ppm: *chance.pick(&[0, 0, 1_000, 20_000, 150_000]),
            duplicate_ppm: *chance.pick(&[0, 0, 10_000, 200_000]),
            delay_us: *chance.pick(&[(40, 120), (40, 3_000), (1_000, 30_000)]),
            slow_ppm: *chance.pick(&[0, 0, 2_000, 50_000]),
            sync_us: *chance.pick(&[(80, 200), (80, 5_000), (2_000, 25_000)]),
            stall_ppm: *chance.pick(&[0, 0, 1_000]),
            fault_every_us: *chance.pick(&[30 * MS, 150 * MS, 500 * MS]),
            faults,
            snapshot_every_us: *chance.pick(&[0, 20 * MS, 200 * MS]),
            propose_every_us: *chance.pick(&[MS, 4 * MS, 20 * MS]),
            read_every_us: *chance.pick(&[0, 5 * MS, 30 * MS]),
            hints: chance.one_in(2),
            in_order: chance.one_in(2),
            lease_us: *chance.pick(&[0, 100 * MS, 100 * MS, 100 * MS]),
            mixed_leases: chance.one_in(8),
            change_every_us,
            spares,
            rules,
        }
    }
}

/// A third of the seeds changes the membership. Drawn apart, so that the others stay what they are.
fn draw_changes(chance: &mut Chance) -> (u32, u64) {
    if !chance.one_in(3) {
        return (0, 0);
    }
    (chance.between(1, 5) as u32, *chance.pick(&[40 * MS, 150 * MS, 400 * MS]))
}
