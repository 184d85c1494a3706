//! What a large store costs: a snapshot under load, the join of an empty node, a restart from a
//! snapshot and from the journal alone. The figures are printed, not asserted; asserted is that all
//! of it happened and that nothing was lost.
//!
//! `make measures` makes the figures for a report, with a million keys in a release build. In
//! `cargo test` the store is small, and the figures mean nothing.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::{SOON, TestCluster, show, spec};
use ctl::local::LocalCluster;
use proof::check::{Limits, Verdict};
use proof::client::Client;
use proof::connection::Connection;
use proof::load::{Load, Mix, Spec as LoadSpec};
use proof::resp::{self, Reply};
use proof::stats::Stats;
use tempfile::TempDir;

const VALUE_BYTES: usize = 100;
/// What a write of such a value takes in the journal, roughly.
const WRITE_BYTES: u64 = 150;
const CLIENTS: usize = 16;
/// Slots that a node may be behind and still count as caught up, under load.
const CLOSE_SLOTS: u64 = 200;
/// A million keys take a while to write, to send and to read.
const LONG: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn keys() -> u64 {
    std::env::var("KEYS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000)
}

/// How long the cluster is watched in one state. Longer for a store that means something.
fn watched() -> Duration {
    Duration::from_secs(if keys() >= 100_000 { 15 } else { 2 })
}

/// An empty node joins a store of many keys under load; snapshots are taken under load; every node
/// restarts; the proof holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_a_join_and_restarts_of_a_large_store() {
    let dir = TempDir::with_prefix("paxos-test-").unwrap();
    let mut spec = spec(3, &dir);
    // Several snapshots while the store is filled, and one every few seconds of load.
    spec.behaviour.snapshot_every_bytes = (keys() * WRITE_BYTES / 4).max(1 << 20);
    spec.behaviour.segment_bytes = spec.behaviour.snapshot_every_bytes.min(64 << 20);
    spec.behaviour.command_bytes_max = 256 << 10;
    let mut cluster = TestCluster { cluster: LocalCluster::prepare(spec).unwrap(), dir };
    // The third node is a member from the start, and has never run.
    for id in [1, 2] {
        cluster.node(id).start().unwrap();
    }
    let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
    fill(&cluster, leader, keys(), 16, 64).await;

    let load = Load::start(load_of_sets(&cluster));
    let stats = load.stats().clone();
    warm_up(&stats).await;
    let before = writes_per_second(&stats, watched()).await;

    let (writes, began) = (stats.total().writes_ok, Instant::now());
    cluster.node(3).start().unwrap();
    cluster.wait_until_close(LONG, CLOSE_SLOTS).await.unwrap();
    let took = began.elapsed();
    let meanwhile = (stats.total().writes_ok - writes) as f64 / took.as_secs_f64();
    assert!(bytes_of(&cluster.node(3).data_dir().join("snapshots")) > 0, "no snapshot was sent");
    show(&format!(
        "join of an empty node at {} keys under {CLIENTS} clients: caught up after {:.1} s; \
         {meanwhile:.0} writes/s meanwhile, {before:.0} before (with two nodes)",
        keys(),
        took.as_secs_f64(),
    ));
    let after = writes_per_second(&stats, watched()).await;
    show(&format!("with three nodes afterwards: {after:.0} writes/s"));

    let gaps = Gaps::watch(&mut cluster, &stats).await;
    show(&format!(
        "{} snapshots under load: longest gap between two replies {:.1} ms while one is taken (in \
         {:.1} s), {:.1} ms while none is (in {:.1} s); the longest syncs took {:.1} ms (p99)",
        gaps.snapshots,
        gaps.taking.as_secs_f64() * 1e3,
        gaps.seconds_taking,
        gaps.quiet.as_secs_f64() * 1e3,
        gaps.seconds_quiet,
        longest_sync_ms(&cluster).await,
    ));
    assert!(gaps.snapshots > 0, "no snapshot was taken while it was watched");

    let target = cluster.target();
    let mut finished = load.stop().await;
    let proof = finished.verify(&target, LONG, Limits::default()).await;
    assert_eq!(proof.verdict, Verdict::Holds, "{:#?}", proof.audit.findings);

    restart(&mut cluster, "a snapshot and the journal behind it").await;
    let size = count(&cluster).await;
    assert!(size >= keys(), "{size} keys of {} are left", keys());
}

/// The same without any snapshot: what the journal alone costs to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_from_the_journal_alone() {
    let dir = TempDir::with_prefix("paxos-test-").unwrap();
    let mut spec = spec(3, &dir);
    spec.behaviour.snapshot_every_bytes = 1 << 40;
    spec.behaviour.segment_bytes = 64 << 20;
    let mut cluster = TestCluster { cluster: LocalCluster::start(spec).unwrap(), dir };
    let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
    // Few writers without a pipeline: nearly every write is a slot of its own.
    fill(&cluster, leader, keys(), 2, 1).await;
    restart(&mut cluster, "the journal alone").await;
    let size = count(&cluster).await;
    assert!(size >= keys(), "{size} keys of {} are left", keys());
}

/// Writes to keys of their own, in a closed loop.
fn load_of_sets(cluster: &TestCluster) -> LoadSpec {
    let mut load = LoadSpec::new(cluster.target(), CLIENTS);
    load.mix = Mix { set: 95, incr: 0, append: 0, get: 0, register: 5 };
    load
}

async fn warm_up(stats: &Stats) {
    let enough = stats.total().writes_ok + 500;
    common::until("first writes", async || stats.total().writes_ok > enough).await;
}

async fn writes_per_second(stats: &Stats, during: Duration) -> f64 {
    let (writes, began) = (stats.total().writes_ok, Instant::now());
    tokio::time::sleep(during).await;
    (stats.total().writes_ok - writes) as f64 / began.elapsed().as_secs_f64()
}

/// Kills a follower and starts it again, then all at once; how long until they have caught up.
async fn restart(cluster: &mut TestCluster, from: &str) {
    let leader = cluster.wait_until_caught_up(LONG).await.unwrap();
    let slots = cluster.nodes[leader as usize - 1].status().await.unwrap().chosen_slot;
    let follower = leader % 3 + 1;
    let data = cluster.node(follower).data_dir();
    cluster.node(follower).kill();
    let (snapshots, journal) =
        (newest_bytes(&data.join("snapshots")), bytes_of(&data.join("journal")));
    let began = Instant::now();
    cluster.node(follower).start().unwrap();
    cluster.wait_until_caught_up(LONG).await.unwrap();
    let took = began.elapsed().as_secs_f64();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    show(&format!(
        "restart of a node from {from}: {} keys, {slots} slots; ready after {took:.2} s: {:.0} MiB \
         of snapshot, {:.0} MiB of journal (preallocated space included), {:.0} MiB/s",
        keys(),
        mib(snapshots),
        mib(journal),
        mib(snapshots + journal) / took,
    ));
    for id in 1..=3 {
        cluster.node(id).kill();
    }
    let began = Instant::now();
    for id in 1..=3 {
        cluster.node(id).start().unwrap();
    }
    cluster.wait_until_caught_up(LONG).await.unwrap();
    show(&format!("restart of all three at once: {:.2} s", began.elapsed().as_secs_f64()));
}

/// The longest gaps between two replies, told apart by whether a node was taking a snapshot.
struct Gaps {
    snapshots: usize,
    taking: Duration,
    quiet: Duration,
    seconds_taking: f64,
    seconds_quiet: f64,
}

impl Gaps {
    /// Watches until several snapshots have come and gone, for a while at least. A small store takes
    /// one after the other, so that there may be no time without.
    async fn watch(cluster: &mut TestCluster, stats: &Stats) -> Gaps {
        let folders: Vec<_> =
            cluster.nodes.iter().map(|node| node.data_dir().join("snapshots")).collect();
        let mut gaps = Gaps {
            snapshots: 0,
            taking: Duration::ZERO,
            quiet: Duration::ZERO,
            seconds_taking: 0.0,
            seconds_quiet: 0.0,
        };
        let began = Instant::now();
        let mut named: BTreeSet<_> = folders.iter().flat_map(|folder| files(folder).0).collect();
        let mut was_taking = false;
        let mut since = Instant::now();
        stats.reset_gap();
        while (gaps.snapshots < 9 && began.elapsed() < LONG)
            || (gaps.seconds_quiet < watched().as_secs_f64() && began.elapsed() < 8 * watched())
        {
            tokio::time::sleep(LOOK_EVERY).await;
            let mut is_taking = false;
            for folder in &folders {
                let (complete, unfinished) = files(folder);
                is_taking |= unfinished;
                let new = complete.into_iter().filter(|path| named.insert(path.clone())).count();
                gaps.snapshots += new;
                // One that came and went between two looks.
                is_taking |= new > 0;
            }
            let (gap, seconds) = (stats.longest_gap(), since.elapsed().as_secs_f64());
            // A gap at the border belongs to the snapshot.
            if is_taking || was_taking {
                gaps.taking = gaps.taking.max(gap);
                gaps.seconds_taking += seconds;
            } else {
                gaps.quiet = gaps.quiet.max(gap);
                gaps.seconds_quiet += seconds;
            }
            was_taking = is_taking;
            since = Instant::now();
            stats.reset_gap();
        }
        gaps
    }
}

/// The names of the complete snapshots in a folder, and whether one is being written.
fn files(folder: &Path) -> (Vec<std::path::PathBuf>, bool) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let (unfinished, complete): (Vec<_>, Vec<_>) = entries
        .map(|entry| entry.path())
        .partition(|path| path.extension().is_some_and(|extension| extension == "part"));
    (complete, !unfinished.is_empty())
}

fn bytes_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|data| data.len()).sum()
}

/// Of the snapshots in a folder, the newest is what a restart reads.
fn newest_bytes(folder: &Path) -> u64 {
    let newest = files(folder).0.into_iter().max();
    newest.and_then(|path| fs::metadata(path).ok()).map_or(0, |data| data.len())
}

async fn longest_sync_ms(cluster: &TestCluster) -> f64 {
    let statuses = cluster.statuses().await;
    let longest = statuses.iter().flatten().filter_map(|status| status.sync_p99_us).max();
    longest.unwrap_or(0) as f64 / 1e3
}

/// How many keys the cluster holds.
async fn count(cluster: &TestCluster) -> u64 {
    let mut client = Client::new(cluster.target(), 0);
    match common::call(&mut client, &[b"DBSIZE"]).await {
        Reply::Integer(size) => size.try_into().expect("a size is not negative"),
        other => panic!("DBSIZE answered {other:?}"),
    }
}

/// Writes `count` keys at the leader, on so many connections with so deep a pipeline.
async fn fill(cluster: &TestCluster, leader: u32, count: u64, connections: u64, pipeline: u64) {
    let address = cluster.nodes[leader as usize - 1].listen.client.to_string();
    let began = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..connections {
        let address = address.clone();
        writers.spawn(async move {
            let mut connection = Connection::open(&address, SOON).await.unwrap();
            let value = [b'v'; VALUE_BYTES];
            let mut numbers = (writer..count).step_by(connections as usize).peekable();
            while numbers.peek().is_some() {
                let mut commands = BytesMut::new();
                let mut sent = 0;
                for number in numbers.by_ref().take(pipeline as usize) {
                    let key = format!("fill:{number:012}");
                    resp::encode(&mut commands, &[b"SET", key.as_bytes(), &value]);
                    sent += 1;
                }
                connection.send(&commands).await.unwrap();
                for _ in 0..sent {
                    let reply = connection.receive().await.unwrap();
                    assert!(matches!(&reply, Reply::Simple(ok) if ok == "OK"), "{reply:?}");
                }
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    let seconds = began.elapsed().as_secs_f64();
    show(&format!(
        "{count} keys of {VALUE_BYTES} B written by {connections} connections, {pipeline} at once, \
         in {seconds:.1} s ({:.0}/s)",
        count as f64 / seconds
    ));
}
