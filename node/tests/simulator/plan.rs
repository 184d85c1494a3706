//! The mix that a seed draws: what kind of cluster it is, and what happens to it.

use config::{Behaviour, Election, FollowerReads, Reads};
use journal::Options;

use super::chance::Chance;
use super::seeds::Less;
use super::{MS, SECOND};

#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: u32,
    /// Nodes that were formatted to join, and may be added.
    pub spares: u32,
    /// Members come and go about this often; 0 for never.
    pub change_every_us: u64,
    pub behaviour: Behaviour,
    pub options: Options,
    /// What the disks tear.
    pub block_bytes: usize,
    /// Clocks run at different speeds.
    pub drift: bool,
    /// One wall clock is wrong by up to a year.
    pub wild_wall_clock: bool,
    pub faults_us: u64,
    pub faults: Vec<Fault>,
    pub fault_every_us: u64,
    pub loss_ppm: u64,
    pub duplicate_ppm: u64,
    pub delay_us: (u64, u64),
    pub in_order: bool,
    /// What a link carries of snapshots and of what is caught up by the log, bytes a second; 0 for
    /// any amount at once.
    pub bulk_bytes_per_s: u64,
    /// Peers notice at once when a connection closes.
    pub hints: bool,
    pub sync_us: (u64, u64),
    pub stall_ppm: u64,
    /// For one job on a snapshot file.
    pub file_us: (u64, u64),
    pub clients: u32,
    pub pipeline: u64,
    pub think_us: u64,
    /// A client hangs up after so long without an answer.
    pub patience_us: u64,
    /// Clients use `MULTI`, `ONCE`.
    pub transactions: bool,
    pub once: bool,
    /// Whoever uses `ONCE` has less patience: nothing is lost by asking again elsewhere.
    pub once_patience_us: u64,
    pub keys: u64,
    pub value_bytes: u64,
    /// What clients take reads at followers for; `Moved`: they do not ask there.
    pub follower_reads: FollowerReads,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill,
    PowerCut,
    PowerCutLeader,
    PowerCutAll,
    CutInWrite,
    CutInInstall,
    Isolate,
    IsolateLeader,
    OneWay,
    Split,
    RandomLinks,
    /// Only neighbours in a row see each other.
    Chain,
    /// All see one node, and nobody else.
    QuorumLoss,
    /// The same, and that node has been cut off from the leader before: its log is behind.
    ConstrainedElection,
    HealLinks,
    Pause,
    PauseLeader,
    SuspendLeader,
    /// As on SIGTERM: a leader hands over first.
    Stop,
    StopLeader,
    WallClockJumps,
    FullDisk,
    FullDiskLeader,
    /// For some seconds every sync takes 50 ms to 2 s.
    SlowDisk,
    SlowDiskLeader,
    /// The next sync takes 25 ms to 5 s.
    SlowSync,
    FailSync,
    RotJournal,
    RotSnapshot,
    /// What was on its disks is gone; and is formatted again; or is another node's.
    LoseDisk,
    FormatAgain,
    ForeignDisk,
    /// A copy of its disks is made, and put back later.
    OlderCopy,
    Transfer,
}

const FAULTS: [Fault; 35] = [
    Fault::Kill,
    Fault::PowerCut,
    Fault::PowerCutLeader,
    Fault::PowerCutAll,
    Fault::CutInWrite,
    Fault::CutInInstall,
    Fault::Isolate,
    Fault::IsolateLeader,
    Fault::IsolateLeader,
    Fault::OneWay,
    Fault::Split,
    Fault::RandomLinks,
    Fault::Chain,
    Fault::QuorumLoss,
    Fault::ConstrainedElection,
    Fault::HealLinks,
    Fault::Pause,
    Fault::PauseLeader,
    Fault::SuspendLeader,
    Fault::Stop,
    Fault::StopLeader,
    Fault::WallClockJumps,
    Fault::FullDisk,
    Fault::FullDiskLeader,
    Fault::SlowDisk,
    Fault::SlowDiskLeader,
    Fault::SlowSync,
    Fault::FailSync,
    Fault::RotJournal,
    Fault::RotSnapshot,
    Fault::LoseDisk,
    Fault::FormatAgain,
    Fault::ForeignDisk,
    Fault::OlderCopy,
    Fault::Transfer,
];

/// What else a life can do without.
pub const TRAITS: [&str; 12] = [
    "loss",
    "changes",
    "duplicates",
    "delays",
    "drift",
    "wild",
    "stalls",
    "transactions",
    "once",
    "pipeline",
    "followers",
    "trial",
];

impl Plan {
    pub fn leave_out(&mut self, less: &Less) {
        for name in &less.without {
            match name.as_str() {
                "loss" => self.loss_ppm = 0,
                "duplicates" => self.duplicate_ppm = 0,
                "delays" => self.delay_us = (40, 120),
                "drift" => self.drift = false,
                "wild" => self.wild_wall_clock = false,
                "stalls" => self.stall_ppm = 0,
                "transactions" => self.transactions = false,
                "changes" => self.change_every_us = 0,
                "once" => self.once = false,
                "pipeline" => self.pipeline = 1,
                "followers" => self.follower_reads = FollowerReads::Moved,
                _kind_of_fault => {}
            }
        }
        self.clients = less.clients.unwrap_or(self.clients);
    }

    pub fn draw(chance: &mut Chance) -> Plan {
        let segment_bytes = *chance.pick(&[16 << 10, 16 << 10, 64 << 10, 256 << 10]);
        let nodes = *chance.pick(&[1, 2, 3, 3, 3, 3, 3, 4, 5, 5]);
        let mut plan = Plan {
            nodes,
            spares: 0,
            change_every_us: 0,
            behaviour: draw_behaviour(chance, segment_bytes),
            options: Options {
                segment_bytes,
                reserve_bytes: segment_bytes,
                group_bytes_max: 4 << 20,
                keep_free_bytes: 0,
            },
            block_bytes: *chance.pick(&[512, 512, 4096]),
            drift: chance.one_in(3),
            wild_wall_clock: nodes >= 3 && chance.one_in(3),
            faults_us: chance.between(1, 7) * SECOND,
            faults: draw_faults(chance),
            fault_every_us: *chance.pick(&[50 * MS, 150 * MS, 500 * MS, 1_000 * MS]),
            loss_ppm: *chance.pick(&[0, 0, 1_000, 20_000, 100_000]),
            duplicate_ppm: *chance.pick(&[0, 0, 10_000, 100_000]),
            delay_us: *chance.pick(&[(40, 120), (40, 3_000), (1_000, 20_000)]),
            in_order: chance.one_in(2),
            bulk_bytes_per_s: 0,
            hints: chance.one_in(2),
            sync_us: *chance.pick(&[(80, 200), (80, 5_000), (2_000, 25_000)]),
            stall_ppm: *chance.pick(&[0, 0, 1_000, 5_000]),
            file_us: *chance.pick(&[(50, 5_000), (1_000, 100_000)]),
            clients: chance.between(1, 5) as u32,
            pipeline: *chance.pick(&[1, 1, 2, 4]),
            patience_us: *chance.pick(&[SECOND, 5 * SECOND, 15 * SECOND]),
            think_us: *chance.pick(&[2 * MS, 10 * MS, 40 * MS]),
            transactions: chance.one_in(2),
            once: chance.one_in(2),
            once_patience_us: *chance.pick(&[20 * MS, 200 * MS, SECOND]),
            keys: chance.between(1, 4),
            value_bytes: *chance.pick(&[0, 0, 0, 100, 100, 1_000, 1_000, 1_000, 60_000]),
            follower_reads: FollowerReads::Moved,
        };
        plan.follower_reads = plan.behaviour.follower_reads;
        if chance.one_in(4) {
            plan.bulk_bytes_per_s = *chance.pick(&[10_000, 40_000, 160_000]);
            plan.behaviour.snapshot_every_bytes = *chance.pick(&[4 << 10, 20 << 10]);
            // A state that is longer under way than its sender takes to write the next one.
            plan.value_bytes = *chance.pick(&[1_000, 5_000, 20_000]);
            plan.faults_us = 7 * SECOND;
            plan.faults.extend([Fault::Isolate, Fault::Isolate, Fault::PowerCut, Fault::Kill]);
        }
        if chance.one_in(3) {
            plan.spares = chance.between(1, 3) as u32;
            plan.change_every_us = *chance.pick(&[80 * MS, 300 * MS, 800 * MS]);
            // A quorum may shrink to those whose disks have rotted, or to one wild clock: neither is
            // the cluster's fault.
            plan.wild_wall_clock = false;
            plan.faults.retain(|fault| !fault.spoils());
        }
        plan
    }
}

impl Fault {
    /// Whether a node may lose what it had synced.
    fn spoils(self) -> bool {
        matches!(
            self,
            Fault::RotJournal
                | Fault::RotSnapshot
                | Fault::LoseDisk
                | Fault::FormatAgain
                | Fault::ForeignDisk
                | Fault::OlderCopy
        )
    }
}

/// Half of the kinds, some of them more often than others.
fn draw_faults(chance: &mut Chance) -> Vec<Fault> {
    let mut faults = Vec::new();
    for fault in FAULTS {
        let weight = *chance.pick(&[0, 0, 0, 1, 1, 4]);
        faults.extend(std::iter::repeat_n(fault, weight));
    }
    faults
}

fn draw_behaviour(chance: &mut Chance, segment_bytes: u64) -> Behaviour {
    Behaviour {
        election: if chance.one_in(5) { Election::HighestId } else { Election::Ballot },
        reads: if chance.one_in(3) { Reads::Quorum } else { Reads::Lease },
        window_slots: *chance.pick(&[1, 4, 256]),
        snapshot_every_bytes: *chance.pick(&[4 << 10, 4 << 10, 20 << 10, 100 << 10, 1 << 30]),
        segment_bytes,
        priority: chance.below(2) as u32,
        follower_reads: *chance.pick(&[
            FollowerReads::Moved,
            FollowerReads::Linearizable,
            FollowerReads::Linearizable,
            FollowerReads::Stale,
        ]),
        ..Behaviour::default()
    }
}
