//! This node's values of the table in `monitoring::metrics`.
//!
//! Two kinds of values, two ways in. *What happens* (counters, durations) is counted where it
//! happens: each field below is resolved once and is safe to touch from any thread for the price
//! of an atomic. *What is* (slots, roles, lag) is never set here by the core: at each scrape the
//! gauges are made from the newest `NodeStatus`, so that `/metrics` and `/status` cannot disagree.
//!
//! Every child that can be named in advance exists from the start, so that its first event is a
//! step from 0 to 1 and not a series that appears out of nowhere (PITFALLS 51).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use monitoring::exposition::Exposition;
use monitoring::metrics::{self as table, Metric};
use monitoring::status::NodeStatus;
use paxos::{Deposed, Note};
use prometheus::{Counter, Histogram, IntCounter, IntGauge};

use crate::recent::Recent;

mod gauges;
mod peer;

use gauges::Gauges;
pub use peer::PeerMetrics;

/// All of it. Shared by the core loop, the sync thread, the links and the pages.
pub struct Metrics {
    exposition: Exposition,
    gauges: Gauges,
    peers: RwLock<BTreeMap<u32, Arc<PeerMetrics>>>,
    leader_seen: Mutex<LeaderSeen>,
    recent_syncs: Recent,
    requests: Vec<IntCounter>,
    request_seconds: Vec<Histogram>,
    snapshots: Vec<IntCounter>,
    snapshot_seconds: Vec<Histogram>,
    elections: Vec<IntCounter>,

    pub leader_changes: IntCounter,
    pub preemptions: IntCounter,
    pub leaderless_seconds: Counter,
    pub election_seconds: Histogram,

    pub slots_chosen: IntCounter,
    pub slots_applied: IntCounter,

    pub proposals_chosen: IntCounter,
    pub proposals_lost: IntCounter,
    pub proposals_unknown: IntCounter,
    pub proposals_refused: IntCounter,
    pub commit_seconds: Histogram,
    pub phase1_seconds: Histogram,
    pub phase2_seconds: Histogram,
    pub apply_seconds: Histogram,
    pub batch_commands: Histogram,

    sync_seconds: Histogram,
    pub recovery_records: IntCounter,
    pub recovery_bytes: IntCounter,
    pub journal_written_bytes: IntCounter,
    pub client_connections: IntGauge,
    pub client_inflight: IntGauge,
    pub client_memory: IntGauge,
    pub client_memory_limit: IntGauge,
    pub client_evictions: IntCounter,
    pub store_bytes: IntGauge,
    pub store_bytes_limit: IntGauge,
    pub reads_lease: IntCounter,
    pub reads_quorum: IntCounter,
    pub reads_follower: IntCounter,
    pub reads_stale: IntCounter,
    pub state_hash_mismatches: IntCounter,
}

/// How a command is served: label `op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Needs a linearizable read point.
    Read,
    /// Goes through the log.
    Write,
    /// Answered by this node alone: PING, HELLO, CLUSTER, …
    Local,
    /// No command, or not with these arguments.
    Invalid,
}

/// How the answer begins: label `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok,
    Moved,
    ClusterDown,
    TryAgain,
    Oom,
    NoAuth,
    WrongType,
    Error,
    /// The connection was closed without a reply, because the fate is not known here.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotKind {
    Write,
    Send,
    Install,
}

/// What `saw_leader` remembers between two calls.
#[derive(Default)]
struct LeaderSeen {
    last: Option<u32>,
    now: Option<u32>,
    since_us: u64,
    at_us: Option<u64>,
}

impl Metrics {
    pub fn new(version: &str, git_sha: &str) -> Metrics {
        let exposition = Exposition::new();
        let e = &exposition;
        e.gauge_vec(&table::BUILD_INFO).with_label_values(&[version, git_sha]).set(1);
        let proposals = |result| e.counter_vec(&table::PROPOSALS).with_label_values(&[result]);
        let reads = |path| e.counter_vec(&table::READS).with_label_values(&[path]);
        Metrics {
            gauges: Gauges::new(e),
            peers: RwLock::default(),
            leader_seen: Mutex::default(),
            recent_syncs: Recent::new(1_024),
            requests: counters2(e, &table::CLIENT_REQUESTS, table::OPS, table::CODES),
            request_seconds: histograms(e, &table::CLIENT_REQUEST_DURATION, table::OPS),
            snapshots: counters2(
                e,
                &table::SNAPSHOTS,
                table::SNAPSHOT_KINDS,
                table::SNAPSHOT_RESULTS,
            ),
            snapshot_seconds: histograms(e, &table::SNAPSHOT_DURATION, table::SNAPSHOT_KINDS),
            elections: table::ELECTION_RESULTS
                .iter()
                .map(|result| e.counter_vec(&table::ELECTIONS).with_label_values(&[result]))
                .collect(),
            leader_changes: e.counter(&table::LEADER_CHANGES),
            preemptions: e.counter(&table::PREEMPTIONS),
            leaderless_seconds: e.counter_f64(&table::LEADERLESS_SECONDS),
            election_seconds: e.histogram(&table::ELECTION_DURATION),
            slots_chosen: e.counter(&table::SLOTS_CHOSEN),
            slots_applied: e.counter(&table::SLOTS_APPLIED),
            proposals_chosen: proposals("chosen"),
            proposals_lost: proposals("lost"),
            proposals_unknown: proposals("unknown"),
            proposals_refused: proposals("refused"),
            commit_seconds: e.histogram(&table::COMMIT_DURATION),
            phase1_seconds: e.histogram(&table::PHASE1_DURATION),
            phase2_seconds: e.histogram(&table::PHASE2_DURATION),
            apply_seconds: e.histogram(&table::APPLY_DURATION),
            batch_commands: e.histogram(&table::BATCH_SIZE),
            recovery_records: e.counter(&table::RECOVERY_RECORDS),
            recovery_bytes: e.counter(&table::RECOVERY_BYTES),
            journal_written_bytes: e.counter(&table::JOURNAL_WRITTEN_BYTES),
            client_connections: e.gauge(&table::CLIENT_CONNECTIONS),
            client_inflight: e.gauge(&table::CLIENT_INFLIGHT),
            client_memory: e.gauge(&table::CLIENT_MEMORY),
            client_memory_limit: e.gauge(&table::CLIENT_MEMORY_LIMIT),
            client_evictions: e.counter(&table::CLIENT_EVICTIONS),
            store_bytes: e.gauge(&table::STORE_BYTES),
            store_bytes_limit: e.gauge(&table::STORE_BYTES_LIMIT),
            reads_lease: reads("lease"),
            reads_quorum: reads("quorum"),
            reads_follower: reads("follower"),
            reads_stale: reads("stale"),
            state_hash_mismatches: e.counter(&table::STATE_HASH_MISMATCHES),
            sync_seconds: e.histogram(&table::JOURNAL_SYNC_DURATION),
            exposition,
        }
    }

    /// The series of one peer, made at the first call. Call for every member at the start, and for
    /// each that joins; keep the result, the look-up takes a lock.
    pub fn peer(&self, id: u32, name: &str) -> Arc<PeerMetrics> {
        let mut peers = self.peers.write().expect("no holder of this lock panics");
        let new = || Arc::new(PeerMetrics::new(&self.exposition, name));
        Arc::clone(peers.entry(id).or_insert_with(new))
    }

    /// Commands answered, by how they were served and how the answer begins.
    pub fn requests(&self, op: Op, code: Code) -> &IntCounter {
        &self.requests[op as usize * table::CODES.len() + code as usize]
    }

    /// From a command read to its reply handed to the socket.
    pub fn request_seconds(&self, op: Op) -> &Histogram {
        &self.request_seconds[op as usize]
    }

    /// One group of appends was made durable.
    pub fn observe_sync(&self, took: Duration) {
        self.sync_seconds.observe(took.as_secs_f64());
        self.recent_syncs.record_us(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn observe_snapshot(&self, kind: SnapshotKind, took: Duration, succeeded: bool) {
        let result = usize::from(!succeeded);
        self.snapshots[kind as usize * table::SNAPSHOT_RESULTS.len() + result].inc();
        self.snapshot_seconds[kind as usize].observe(took.as_secs_f64());
    }

    /// What the replica tells of itself.
    pub fn observe_note(&self, note: &Note) {
        match note {
            Note::Elected { phase1_us, .. } => {
                self.elections[Election::Won as usize].inc();
                self.phase1_seconds.observe(seconds(*phase1_us));
            }
            Note::Deposed { led, reason, .. } => {
                let preempted = match reason {
                    Deposed::Nacked
                    | Deposed::OwnPromise
                    | Deposed::Outvoted
                    | Deposed::HigherId => true,
                    Deposed::LostQuorum
                    | Deposed::GaveUp
                    | Deposed::NewConfiguration
                    | Deposed::HandedOver => false,
                };
                if preempted {
                    self.preemptions.inc();
                }
                if !led {
                    let end = if preempted { Election::Preempted } else { Election::GaveUp };
                    self.elections[end as usize].inc();
                }
            }
            Note::Tallied { phase2_us, .. } => self.phase2_seconds.observe(seconds(*phase2_us)),
            _ => {}
        }
    }

    /// Which leader the node knows at `now_us` of a clock that never goes back: counts changes and
    /// the time without one. The first leader after the start is no change.
    pub(crate) fn saw_leader(&self, now_us: u64, leader: Option<u32>) {
        let mut seen = self.leader_seen.lock().expect("no holder of this lock panics");
        if seen.now.is_none()
            && let Some(at_us) = seen.at_us
        {
            self.leaderless_seconds.inc_by(seconds(now_us.saturating_sub(at_us)));
        }
        seen.at_us = Some(now_us);
        if seen.now == leader {
            return;
        }
        let leaderless_us =
            if seen.now.is_none() { now_us.saturating_sub(seen.since_us) } else { 0 };
        seen.now = leader;
        seen.since_us = now_us;
        if leader.is_some() {
            if seen.last.is_some() {
                self.leader_changes.inc();
                self.election_seconds.observe(seconds(leaderless_us));
            }
            seen.last = leader;
        }
    }

    /// 99th percentile of the last syncs.
    pub fn sync_p99_us(&self) -> Option<u64> {
        self.recent_syncs.quantile_us(0.99)
    }

    /// The page `/metrics`, its gauges made from `status`; `None` before the first status.
    pub fn page(&self, status: Option<&NodeStatus>) -> String {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.gauges.node_time.set(wall.as_secs_f64());
        self.gauges.recovering.set(i64::from(status.is_none()));
        if let Some(status) = status {
            self.gauges.set(status);
            for peer in &status.peers {
                self.peer(peer.id, &peer.name).set(peer);
            }
        }
        self.exposition.text()
    }
}

impl Code {
    /// The code of an error reply, from its text without the leading `-`.
    pub fn of_error(text: &[u8]) -> Code {
        let word = text.split(|byte| *byte == b' ').next().unwrap_or_default();
        match word {
            b"MOVED" | b"ASK" => Code::Moved,
            b"CLUSTERDOWN" => Code::ClusterDown,
            b"TRYAGAIN" => Code::TryAgain,
            b"OOM" => Code::Oom,
            b"NOAUTH" | b"WRONGPASS" | b"NOPERM" => Code::NoAuth,
            b"WRONGTYPE" => Code::WrongType,
            _ => Code::Error,
        }
    }
}

/// In the order of `ELECTION_RESULTS`.
#[derive(Clone, Copy)]
enum Election {
    Won,
    Preempted,
    GaveUp,
}

fn counters2(e: &Exposition, metric: &Metric, outer: &[&str], inner: &[&str]) -> Vec<IntCounter> {
    let family = e.counter_vec(metric);
    let row = |a| inner.iter().map(move |b| (a, b));
    outer.iter().flat_map(row).map(|(a, b)| family.with_label_values(&[*a, *b])).collect()
}

fn histograms(e: &Exposition, metric: &Metric, values: &[&str]) -> Vec<Histogram> {
    let family = e.histogram_vec(metric);
    values.iter().map(|value| family.with_label_values(&[*value])).collect()
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a duration stay far below 2^53")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Gauges are signed; no slot or size ever comes near the limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use monitoring::status::{Peer, Role, StateHash};
    use paxos::Message;

    use super::*;

    const SECOND_US: u64 = 1_000_000;

    /// The value of one series of the page.
    fn value(page: &str, series: &str) -> f64 {
        let line =
            page.lines().find(|line| line.rsplit_once(' ').is_some_and(|(s, _)| s == series));
        let line = line.unwrap_or_else(|| panic!("no {series} on the page:\n{page}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// PITFALLS 51: series that are missing until their first event.
    #[test]
    fn every_metric_of_the_table_is_there_from_the_start() {
        let metrics = Metrics::new("1.2.3", "abc");
        metrics.peer(2, "n2");
        let page = metrics.page(None);
        for metric in table::TABLE {
            let head = format!("# TYPE {} ", metric.name);
            assert!(page.contains(&head), "{} has no series", metric.name);
        }
        for series in [
            "paxos_build_info{git_sha=\"abc\",version=\"1.2.3\"}",
            "paxos_client_requests_total{code=\"unknown\",op=\"write\"}",
            "paxos_peer_messages_total{direction=\"out\",peer=\"n2\",type=\"confirmed\"}",
            "paxos_snapshots_total{kind=\"install\",result=\"failed\"}",
            "paxos_chaos_active{kind=\"disk\"}",
        ] {
            value(&page, series);
        }
        assert!(value(&page, "process_start_time_seconds") > 0.0);
        assert!(value(&page, "paxos_node_time_seconds") > 1.7e9);
    }

    #[test]
    fn labels_land_where_their_enum_says() {
        let metrics = Metrics::new("v", "s");
        metrics.requests(Op::Read, Code::Moved).inc_by(1);
        metrics.requests(Op::Invalid, Code::Unknown).inc_by(2);
        metrics.requests(Op::Write, Code::of_error(b"WRONGTYPE Operation against")).inc_by(3);
        metrics.observe_snapshot(SnapshotKind::Install, Duration::from_secs(1), false);
        metrics.observe_snapshot(SnapshotKind::Write, Duration::from_secs(1), true);
        metrics.peer(2, "n2").sent(&Message::Ping);
        metrics.peer(2, "n2").received(&Message::Learned { first_unchosen: paxos::Slot(1) });
        let page = metrics.page(None);
        for (series, expect) in [
            ("paxos_client_requests_total{code=\"moved\",op=\"read\"}", 1.0),
            ("paxos_client_requests_total{code=\"unknown\",op=\"invalid\"}", 2.0),
            ("paxos_client_requests_total{code=\"wrongtype\",op=\"write\"}", 3.0),
            ("paxos_snapshots_total{kind=\"install\",result=\"failed\"}", 1.0),
            ("paxos_snapshots_total{kind=\"write\",result=\"ok\"}", 1.0),
            ("paxos_snapshot_duration_seconds_count{kind=\"install\"}", 1.0),
            ("paxos_peer_messages_total{direction=\"out\",peer=\"n2\",type=\"ping\"}", 1.0),
            ("paxos_peer_messages_total{direction=\"in\",peer=\"n2\",type=\"learned\"}", 1.0),
        ] {
            assert_eq!(value(&page, series), expect, "{series}");
        }
        assert_eq!(table::OPS[Op::Invalid as usize], "invalid");
        assert_eq!(table::CODES[Code::Unknown as usize], "unknown");
        assert_eq!(table::SNAPSHOT_KINDS[SnapshotKind::Install as usize], "install");
        assert_eq!(table::ELECTION_RESULTS[Election::GaveUp as usize], "gave_up");
    }

    #[test]
    fn gauges_are_those_of_the_status() {
        let metrics = Metrics::new("v", "s");
        let status = NodeStatus {
            id: 1,
            role: Role::Leader,
            leader: Some(1),
            chosen_slot: 90,
            applied_slot: 70,
            state_hashes: vec![StateHash { slot: 64, hash: "0a".into() }],
            peers: vec![Peer {
                id: 2,
                name: "n2".into(),
                connected: true,
                lag_slots: 11,
                lag_ms: 1_500,
                ..Peer::default()
            }],
            chaos: vec!["clock".into()],
            ..NodeStatus::default()
        };
        let page = metrics.page(Some(&status));
        for (series, expect) in [
            ("paxos_is_leader", 1.0),
            ("paxos_chosen_slot", 90.0),
            ("paxos_apply_lag_slots", 20.0),
            ("paxos_replication_lag_slots{peer=\"n2\"}", 11.0),
            ("paxos_replication_lag_seconds{peer=\"n2\"}", 1.5),
            ("paxos_peer_connected{peer=\"n2\"}", 1.0),
            ("paxos_state_hash_low48", 10.0),
            ("paxos_chaos_active{kind=\"clock\"}", 1.0),
            ("paxos_chaos_active{kind=\"disk\"}", 0.0),
        ] {
            assert_eq!(value(&page, series), expect, "{series}");
        }
        let deposed = NodeStatus { role: Role::Follower, leader: None, ..NodeStatus::default() };
        assert_eq!(value(&metrics.page(Some(&deposed)), "paxos_is_leader"), 0.0);
    }

    /// PITFALLS 51: counters reset by a role change.
    #[test]
    fn leaders_come_and_go() {
        let metrics = Metrics::new("v", "s");
        let script = [(0, None), (2, None), (3, Some(1)), (10, Some(1)), (11, None), (13, Some(2))];
        for (second, leader) in script {
            metrics.saw_leader(second * SECOND_US, leader);
        }
        metrics.saw_leader(14 * SECOND_US, Some(3));
        assert_eq!(metrics.leader_changes.get(), 2, "the first leader is no change");
        assert_eq!(metrics.leaderless_seconds.get(), 5.0, "0–3 and 11–13");
        assert_eq!(metrics.election_seconds.get_sample_count(), 2);
        assert_eq!(metrics.election_seconds.get_sample_sum(), 2.0);
    }

    #[test]
    fn elections_end_in_one_of_three_ways() {
        let metrics = Metrics::new("v", "s");
        let ballot = paxos::Ballot::ZERO;
        metrics.observe_note(&Note::Elected { ballot, adopted: 0, noops: 0, phase1_us: 500 });
        for (led, reason) in [
            (false, Deposed::Nacked),
            (false, Deposed::GaveUp),
            (true, Deposed::Outvoted),
            (true, Deposed::LostQuorum),
        ] {
            metrics.observe_note(&Note::Deposed { ballot, led, reason });
        }
        let page = metrics.page(None);
        for result in table::ELECTION_RESULTS {
            let series = format!("paxos_elections_total{{result=\"{result}\"}}");
            assert_eq!(value(&page, &series), 1.0, "{result}");
        }
        assert_eq!(metrics.preemptions.get(), 2);
        assert_eq!(metrics.phase1_seconds.get_sample_count(), 1);
    }
}
