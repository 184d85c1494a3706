//! The one table of metrics. A metric exists because it stands here: [`crate::exposition`] builds
//! the registry from the table, the node fills it, and the alerts, recording rules and dashboards
//! of this crate are tested against it.
//!
//! Base units (seconds, bytes), low-cardinality labels. `peer` is a member's name, the same word
//! that Prometheus carries as the target label `node`. The process never labels itself: `cluster`,
//! `node`, `host` and `zone` come from the target files.

/// What a metric measures with, and so how it may be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Whole events, only ever up within one process.
    Counter,
    /// An amount that adds up in fractions: seconds.
    CounterF64,
    /// A whole number of now.
    Gauge,
    /// A fractional number of now: seconds.
    GaugeF64,
    /// Durations or sizes, counted in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub unit: Unit,
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A count of the thing that the name says.
    Count,
    /// 0 or 1.
    Bool,
    Seconds,
    Bytes,
    Slots,
}

/// 50 µs to 1.6 s, doubling: one disk sync, one round trip.
pub const SYNC_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.003_2, 0.006_4, 0.012_8, 0.025_6,
    0.051_2, 0.102_4, 0.204_8, 0.409_6, 0.819_2, 1.638_4,
];

/// 250 µs to 8 s, doubling: a client's command, an election, a snapshot's chunk.
pub const COMMIT_BUCKETS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024,
    2.048, 4.096, 8.192,
];

/// 10 ms to 328 s, doubling: a whole snapshot.
pub const SNAPSHOT_BUCKETS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84,
    327.68,
];

/// Commands in one batch.
pub const BATCH_BUCKETS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

/// Values of the label `op` of the client metrics: how a command is served, not which it is, so
/// that the number of series does not grow with the number of commands.
pub const OPS: &[&str] = &["read", "write", "local", "invalid"];

/// Values of the label `code` of `paxos_client_requests_total`.
pub const CODES: &[&str] = &[
    "ok",
    "moved",
    "clusterdown",
    "tryagain",
    "oom",
    "noauth",
    "wrongtype",
    "error",
    // The connection was closed without a reply because the command's fate is not known here.
    "unknown",
];

/// Values of the label `result` of `paxos_elections_total`.
pub const ELECTION_RESULTS: &[&str] = &["won", "preempted", "gave_up"];
/// Values of the label `result` of `paxos_proposals_total`.
pub const PROPOSAL_RESULTS: &[&str] = &["chosen", "lost", "unknown", "refused"];
/// Values of the label `kind` of the snapshot metrics.
pub const SNAPSHOT_KINDS: &[&str] = &["write", "send", "install"];
/// Values of the label `result` of `paxos_snapshots_total`.
pub const SNAPSHOT_RESULTS: &[&str] = &["ok", "failed"];
/// Values of the label `path` of `paxos_reads_total`.
pub const READ_PATHS: &[&str] = &["lease", "quorum", "follower", "stale"];
/// Values of the label `direction` of the peer metrics.
pub const DIRECTIONS: &[&str] = &["in", "out"];
/// Values of the label `kind` of `paxos_chaos_active`.
pub const CHAOS_KINDS: &[&str] = &["partition", "packets", "process", "disk", "clock"];

macro_rules! table {
    ($($name:ident = $metric:expr;)*) => {
        $(pub const $name: Metric = $metric;)*
        /// Every metric of ours, in the order of the page.
        pub const TABLE: &[Metric] = &[$($name),*];
    };
}

table! {
    // Identity
    BUILD_INFO = gauge("paxos_build_info", Unit::Bool,
        "Always 1; the labels tell which build runs.").by(&["version", "git_sha"]);
    NODE_TIME = gauge_f64("paxos_node_time_seconds", Unit::Seconds,
        "Wall clock of the node at the time of the scrape, seconds since 1970.");
    CONFIGURATION_NUMBER = gauge("paxos_configuration_number", Unit::Count,
        "Number of the newest configuration that the node knows to be chosen.");
    VOTERS = gauge("paxos_voters", Unit::Count,
        "Voters in the newest configuration that the node knows.");
    IS_VOTER = gauge("paxos_is_voter", Unit::Bool,
        "1 if the node votes in the newest configuration that it knows.");

    // Leadership
    HAS_LEADER = gauge("paxos_has_leader", Unit::Bool,
        "1 if the node knows a leader and has heard from it lately.");
    IS_LEADER = gauge("paxos_is_leader", Unit::Bool,
        "1 if the node leads: phase 1 of its ballot has ended and it was not outvoted since.");
    LEADER_CHANGES = counter("paxos_leader_changes_total", Unit::Count,
        "How often the node has seen another node become leader, itself included.");
    BALLOT_ROUND = gauge("paxos_ballot_round", Unit::Count,
        "Round of the highest ballot that the node has promised.");
    ELECTIONS = counter("paxos_elections_total", Unit::Count,
        "Candidacies of the node, by how they ended.").by(&["result"]);
    ELECTION_DURATION = histogram("paxos_election_duration_seconds", COMMIT_BUCKETS,
        "From the loss of the last leader to the next one, as the node saw it.");
    PREEMPTIONS = counter("paxos_preemptions_total", Unit::Count,
        "Ballots of the node, leading or candidate, that a higher ballot ended.");
    LEASE_REMAINING = gauge_f64("paxos_lease_remaining_seconds", Unit::Seconds,
        "Time left of the read lease that the node holds; 0 without one.");
    LEADERLESS_SECONDS = counter_f64("paxos_leaderless_seconds_total", Unit::Seconds,
        "Time during which the node knew no leader.");

    // Log
    SLOTS_CHOSEN = counter("paxos_slots_chosen_total", Unit::Slots,
        "Slots that the node learned to be chosen since it started.");
    SLOTS_APPLIED = counter("paxos_slots_applied_total", Unit::Slots,
        "Slots that the node applied to its store since it started.");
    CHOSEN_SLOT = gauge("paxos_chosen_slot", Unit::Slots,
        "Highest slot up to which all slots are known chosen.");
    APPLIED_SLOT = gauge("paxos_applied_slot", Unit::Slots,
        "Highest slot applied to the store.");
    FIRST_SLOT = gauge("paxos_first_slot", Unit::Slots,
        "First slot that the node still keeps in its log.");
    LOG_HOLES = gauge("paxos_log_holes", Unit::Slots,
        "Slots not known chosen that lie below a slot that is.");
    APPLY_LAG_SLOTS = gauge("paxos_apply_lag_slots", Unit::Slots,
        "Slots known chosen and not applied yet.");
    REPLICATION_LAG_SLOTS = gauge("paxos_replication_lag_slots", Unit::Slots,
        "On the leader: chosen slots that the peer has not acknowledged. 0 elsewhere.")
        .by(&["peer"]);
    REPLICATION_LAG_SECONDS = gauge_f64("paxos_replication_lag_seconds", Unit::Seconds,
        "On the leader: for how long the first slot that the peer lacks has been chosen. 0 elsewhere.")
        .by(&["peer"]);
    PEER_ACKED_SLOT = gauge("paxos_peer_acked_slot", Unit::Slots,
        "Highest slot up to which the peer said that it knows all slots chosen.").by(&["peer"]);

    // Proposals
    PROPOSALS = counter("paxos_proposals_total", Unit::Count,
        "Batches proposed by the node, by what became of them.").by(&["result"]);
    PROPOSALS_PENDING = gauge("paxos_proposals_pending", Unit::Count,
        "Batches proposed by the node whose slot is not chosen yet.");
    COMMIT_DURATION = histogram("paxos_commit_duration_seconds", COMMIT_BUCKETS,
        "From proposing a batch to its slot being chosen.");
    PHASE1_DURATION = histogram("paxos_phase1_duration_seconds", COMMIT_BUCKETS,
        "Phase 1 of the ballots that the node won.");
    PHASE2_DURATION = histogram("paxos_phase2_duration_seconds", COMMIT_BUCKETS,
        "From the first Accept of a slot to its quorum.");
    APPLY_DURATION = histogram("paxos_apply_duration_seconds", SYNC_BUCKETS,
        "Applying one slot to the store.");
    BATCH_SIZE = Metric { unit: Unit::Count, ..histogram("paxos_batch_size_commands", BATCH_BUCKETS,
        "Client commands in one proposed batch.") };

    // Disk
    JOURNAL_SYNC_DURATION = histogram("paxos_journal_sync_duration_seconds", SYNC_BUCKETS,
        "One group of appends to the journal made durable.");
    JOURNAL_WRITTEN_BYTES = counter("paxos_journal_written_bytes_total", Unit::Bytes,
        "Bytes appended to the journal.");
    JOURNAL_BYTES = gauge("paxos_journal_bytes", Unit::Bytes,
        "Bytes that the journal's segments take on disk.");
    DATA_DISK_FREE = gauge("paxos_data_disk_free_bytes", Unit::Bytes,
        "Free space of the file system that holds the node's data.");
    RECOVERING = gauge("paxos_recovering", Unit::Bool,
        "Whether this process still reads its disk before it takes part.");
    RECOVERY_RECORDS = counter("paxos_recovery_records_total", Unit::Count,
        "Records of the journal that this process has read at its start.");
    RECOVERY_BYTES = counter("paxos_recovery_read_bytes_total", Unit::Bytes,
        "Bytes of the journal's records that this process has read at its start.");
    SNAPSHOTS = counter("paxos_snapshots_total", Unit::Count,
        "Snapshots written to disk, sent to a peer, or installed from one.")
        .by(&["kind", "result"]);
    SNAPSHOT_DURATION = histogram("paxos_snapshot_duration_seconds", SNAPSHOT_BUCKETS,
        "Writing, sending or installing one snapshot.").by(&["kind"]);
    SNAPSHOT_SLOT = gauge("paxos_snapshot_slot", Unit::Slots,
        "Highest slot that the newest snapshot on disk covers.");

    WRITERS_SLOWED = gauge("paxos_writers_slowed", Unit::Bool,
        "1 while the node, leading, slows its writers down to what the peer takes in, which is being \
         brought up to date from a snapshot.").by(&["peer"]);

    // Network
    PEER_CONNECTED = gauge("paxos_peer_connected", Unit::Bool,
        "1 while a link to the peer is up.").by(&["peer"]);
    PEER_ROUND_TRIP = histogram("paxos_peer_round_trip_seconds", SYNC_BUCKETS,
        "Heartbeat to the peer and back, without the peer's own waiting.").by(&["peer"]);
    PEER_MESSAGES = counter("paxos_peer_messages_total", Unit::Count,
        "Protocol messages exchanged with the peer.").by(&["peer", "direction", "type"]);
    PEER_BYTES = counter("paxos_peer_bytes_total", Unit::Bytes,
        "Bytes exchanged with the peer, before encryption.").by(&["peer", "direction"]);
    PEER_SEND_FAILURES = counter("paxos_peer_send_failures_total", Unit::Count,
        "Messages to the peer that were dropped: no link, a full queue, or a failed write.")
        .by(&["peer"]);

    // Clients
    CLIENT_REQUESTS = counter("paxos_client_requests_total", Unit::Count,
        "Client commands answered, by how they are served and how the answer begins.")
        .by(&["op", "code"]);
    CLIENT_REQUEST_DURATION = histogram("paxos_client_request_duration_seconds", COMMIT_BUCKETS,
        "From a command read to its reply handed to the socket.").by(&["op"]);
    CLIENT_CONNECTIONS = gauge("paxos_client_connections", Unit::Count,
        "Client connections that are open.");
    CLIENT_INFLIGHT = gauge("paxos_client_inflight_requests", Unit::Count,
        "Client commands that were read and not answered yet.");
    CLIENT_MEMORY = gauge("paxos_client_memory_bytes", Unit::Bytes,
        "What all client connections together hold: requests, replies, beginnings of commands.");
    CLIENT_MEMORY_LIMIT = gauge("paxos_client_memory_limit_bytes", Unit::Bytes,
        "Where clients are not read from any more (`clients_bytes_max`); 0 for no limit.");
    CLIENT_EVICTIONS = counter("paxos_client_evictions_total", Unit::Count,
        "Connections closed because all of them together held too much: those that held the most.");
    STORE_BYTES = gauge("paxos_store_bytes", Unit::Bytes,
        "What the data takes in memory, to a few per cent.");
    STORE_BYTES_LIMIT = gauge("paxos_store_limit_bytes", Unit::Bytes,
        "Where this node, if it leads, refuses writes that grow (`store_bytes_max`); 0 for no limit.");
    READS = counter("paxos_reads_total", Unit::Count,
        "Reads served, by what made them safe: the leader's lease, a quorum round, the leader's read \
         index at a follower; stale ones are not safe.").by(&["path"]);

    // Proof
    STATE_HASH_SLOT = gauge("paxos_state_hash_slot", Unit::Slots,
        "Slot of the newest state hash that the node published.");
    STATE_HASH_LOW48 = gauge("paxos_state_hash_low48", Unit::Count,
        "Low 48 bits of the state hash at paxos_state_hash_slot. Equal slots must mean equal bits.");
    STATE_HASH_MISMATCHES = counter("paxos_state_hash_mismatches_total", Unit::Count,
        "How often a peer's state hash differed from the node's own at the same slot.");
    CHAOS_ACTIVE = gauge("paxos_chaos_active", Unit::Bool,
        "1 while a fault of this kind is injected into the node on purpose.").by(&["kind"]);
}

/// What the `process` collector of the `prometheus` crate adds. CPU is a whole number of seconds
/// there: take rates over a minute or more.
pub const PROCESS_METRICS: &[&str] = &[
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
];

/// Whether a series of this name may come from a node: a metric of ours, one of its histogram
/// series, or a process metric.
pub fn exists(series: &str) -> bool {
    PROCESS_METRICS.contains(&series)
        || TABLE.iter().any(|metric| match metric.kind {
            Kind::Histogram(_) => series
                .strip_prefix(metric.name)
                .is_some_and(|rest| matches!(rest, "_bucket" | "_sum" | "_count")),
            _ => series == metric.name,
        })
}

impl Metric {
    const fn by(self, labels: &'static [&'static str]) -> Metric {
        Metric { labels, ..self }
    }
}

const fn metric(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind, labels: &[], unit, help }
}

const fn counter(name: &'static str, unit: Unit, help: &'static str) -> Metric {
    metric(name, Kind::Counter, unit, help)
}

const fn counter_f64(name: &'static str, unit: Unit, help: &'static str) -> Metric {
    metric(name, Kind::CounterF64, unit, help)
}

const fn gauge(name: &'static str, unit: Unit, help: &'static str) -> Metric {
    metric(name, Kind::Gauge, unit, help)
}

const fn gauge_f64(name: &'static str, unit: Unit, help: &'static str) -> Metric {
    metric(name, Kind::GaugeF64, unit, help)
}

const fn histogram(name: &'static str, buckets: &'static [f64], help: &'static str) -> Metric {
    metric(name, Kind::Histogram(buckets), Unit::Seconds, help)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_say_their_unit() {
        let mut names = BTreeSet::new();
        for metric in TABLE {
            assert!(names.insert(metric.name), "{} stands twice in the table", metric.name);
            assert!(metric.name.starts_with("paxos_"), "{} is not ours", metric.name);
            assert!(metric.help.ends_with('.'), "help of {} is no sentence", metric.name);
            let counts = matches!(metric.kind, Kind::Counter | Kind::CounterF64);
            assert_eq!(counts, metric.name.ends_with("_total"), "{}: _total", metric.name);
            let base = metric.name.strip_suffix("_total").unwrap_or(metric.name);
            if metric.unit == Unit::Seconds {
                assert!(base.ends_with("_seconds"), "{} is in seconds", metric.name);
            }
            if metric.unit == Unit::Bytes {
                assert!(base.ends_with("_bytes"), "{} is in bytes", metric.name);
            }
        }
    }

    #[test]
    fn buckets_rise_and_span_what_operations_asks_for() {
        for metric in TABLE {
            if let Kind::Histogram(buckets) = metric.kind {
                assert!(buckets.is_sorted_by(|a, b| a < b), "{}: buckets do not rise", metric.name);
            }
        }
        assert_eq!((SYNC_BUCKETS[0], SYNC_BUCKETS[15]), (0.000_05, 1.638_4));
        assert_eq!((COMMIT_BUCKETS[0], COMMIT_BUCKETS[15]), (0.000_25, 8.192));
    }

    #[test]
    fn a_histogram_exists_by_its_series_only() {
        assert!(exists("paxos_commit_duration_seconds_bucket"));
        assert!(!exists("paxos_commit_duration_seconds"));
        assert!(!exists("paxos_chosen_slot_count"));
        assert!(exists("process_open_fds"));
    }
}
