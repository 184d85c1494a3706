//! What a replica is told at its start, and how it is told the time.

use crate::ballot::NodeId;
use crate::configuration::LeaseTerms;

/// One reading of this node's two clocks, taken by the shell just before the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds of a clock that never goes back and counts suspended time (CLOCK_BOOTTIME).
    /// Its zero is arbitrary and differs between nodes.
    pub mono_us: u64,
    /// Milliseconds since 1970 by the wall clock. May jump; used only as DESIGN §3 *time* says.
    pub wall_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionStrategy {
    /// Quorum-connected candidates ordered by (round, priority, id): DESIGN §3.
    Ballot,
    /// Whoever hears no higher id for two heartbeat intervals leads.
    HighestId,
}

/// Every duration is in microseconds of the node's own monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub heartbeat_us: u64,
    /// Silence of a leader before it is suspected, without the random part.
    pub silence_us: u64,
    /// Upper bound of the random part of the silence.
    pub silence_jitter_us: u64,
    /// Delay per rank among candidates before taking over.
    pub takeover_rank_us: u64,
    /// One attempt at phase 1; doubles up to `phase1_us_max` with each failed attempt.
    pub phase1_us: u64,
    pub phase1_us_max: u64,
    /// An Accept that a peer has not answered is repeated after this long.
    pub resend_us: u64,
    /// A leader that has pending slots and chose none for this long stops leading.
    pub stalled_us: u64,
}

impl Timing {
    /// The default preset, for machines on one network.
    pub const LAN: Timing = Timing {
        heartbeat_us: 25_000,
        silence_us: 150_000,
        silence_jitter_us: 50_000,
        takeover_rank_us: 10_000,
        phase1_us: 200_000,
        phase1_us_max: 1_000_000,
        resend_us: 200_000,
        stalled_us: 500_000,
    };
}

/// Bounds on what is in flight and on the size of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Slots that may be in flight at once.
    pub window_slots: u64,
    /// Bytes of values that may be in flight at once.
    pub window_bytes: usize,
    /// Bytes of values in one `Chosen` message or one chunk of a Promise.
    pub chunk_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub id: NodeId,
    /// Drawn anew by the shell at every start of the process; names this process's batches.
    pub incarnation: u64,
    /// Seed of the replica's only randomness: jitter and back-off.
    pub seed: u64,
    pub election: ElectionStrategy,
    pub timing: Timing,
    /// L and ρ as this node's file has them: what it goes by where no configuration states any. Nodes
    /// whose files differ go together: a grant says how long it is. An L of 0 is no lease at all.
    pub lease_terms: LeaseTerms,
    /// Does this node grant and hold leases? Else its reads are served by quorum rounds. So they are
    /// under `HighestId`, whatever stands here.
    pub takes_part_in_leases: bool,
    /// The newest version of the store that this program can do.
    pub store_version_newest: u32,
    /// Breaks ties between candidates, higher first.
    pub priority: u32,
    pub limits: Limits,
}

impl Settings {
    /// By the highest-id rule two leaders at once are usual, and would only wait for each other's
    /// leases.
    pub(crate) fn has_leases(&self) -> bool {
        self.takes_part_in_leases && self.election == ElectionStrategy::Ballot
    }

    /// The defaults of DESIGN §3 for one node.
    pub fn new(id: NodeId, incarnation: u64, seed: u64) -> Settings {
        Settings {
            id,
            incarnation,
            seed,
            election: ElectionStrategy::Ballot,
            timing: Timing::LAN,
            lease_terms: LeaseTerms {
                lease_us: 100_000,
                drift_percent: LeaseTerms::DRIFT_PERCENT_DEFAULT,
            },
            takes_part_in_leases: true,
            store_version_newest: 1,
            priority: 0,
            limits: Limits { window_slots: 256, window_bytes: 16 << 20, chunk_bytes: 256 << 10 },
        }
    }
}
