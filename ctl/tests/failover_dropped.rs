//! How long no write succeeds when every packet of the leader's host is dropped, both ways and
//! without a reset: nobody is told, the others have to notice the silence. The figures are printed,
//! with what they are made of; they depend on the machine. What is asserted is that the fault acted,
//! that writes come back every time, and that nothing acknowledged is lost.
//!
//! `FAILOVER_DROPS=20 cargo test --release -p ctl --test failover_dropped -- --nocapture` makes the
//! figures for a report.

mod common;
mod support;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{SOON, show, until};
use hosts::lab::Cut;
use proof::check::{Limits, Verdict};
use proof::client::Target;
use proof::load::{Load, Spec as LoadSpec};
use serde_json::Value;
use support::{Site, eventually};

const GAP_MAX: Duration = Duration::from_secs(10);
/// A client that waits for a silent node measures its own patience: give it little. What it gives up
/// has an unknown fate, and the proof takes it so.
const CLIENT_PATIENCE: Duration = Duration::from_millis(100);
const CLIENTS: usize = 8;
/// Rounds between two starts of the cluster: with its first election they are one too few to count.
const CALM_ROUNDS: usize = 2;

/// When things happened in one round, after the moment the packets were dropped.
struct Round {
    /// Silence, heartbeats that tell of it, and the rank among the candidates.
    phase1_began: Duration,
    led: Duration,
    gap: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_come_back_after_the_leaders_packets_are_dropped() {
    let rounds: usize =
        std::env::var("FAILOVER_DROPS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let Some(site) = Site::new("drop", 3) else { return };
    let inventory = site.open_inventory();
    site.ctl(&inventory, &["up", "--yes"]).expect(0);
    let hosts = ["n1", "n2", "n3"];
    let nodes = hosts.iter().map(|host| format!("{}:7379", site.address(host))).collect();
    let mut target = Target::open(nodes);
    target.patience = CLIENT_PATIENCE;
    let load = Load::start(LoadSpec::new(target.clone(), CLIENTS));
    let mut seen = Vec::new();
    for round in 0..rounds {
        // Three elections within a minute double the silence that is waited for. What is measured is
        // a cluster that was calm: after two rounds all nodes start anew, and have forgotten.
        if round > 0 && round % CALM_ROUNDS == 0 {
            site.ctl(&inventory, &["down", "--yes"]).expect(0);
            site.ctl(&inventory, &["up", "--yes"]).expect(0);
        }
        seen.push(drop_the_leader(&site, &inventory, &load).await);
    }
    let figures = |what: &str, of: fn(&Round) -> Duration| {
        let mut all: Vec<Duration> = seen.iter().map(of).collect();
        all.sort();
        let (median, worst) = (all[all.len() / 2].as_millis(), all[all.len() - 1].as_millis());
        show(&format!("  {what}: {median} ms (median), {worst} ms (worst)"));
    };
    show(&format!("packets of the leader dropped, {rounds} times:"));
    figures("until phase 1 of the next leader began", |round| round.phase1_began);
    figures("until it led", |round| round.led);
    figures("no write for", |round| round.gap);
    assert!(seen.iter().all(|round| round.gap < GAP_MAX));

    target.patience = SOON;
    let mut finished = load.stop().await;
    let proof = finished.verify(&target, SOON, Limits::default()).await;
    assert_eq!(proof.verdict, Verdict::Holds, "{:#?}", proof.audit.findings);
}

/// Drops the leader's packets until another node leads and writes come back.
async fn drop_the_leader(site: &Site, inventory: &Path, load: &Load) -> Round {
    let leader = eventually("a cluster without lag", || settled(site, inventory));
    let stats = load.stats();
    let before = stats.total().writes_ok;
    until("writes before", async || stats.total().writes_ok > before + 20).await;
    let lines: BTreeMap<&str, usize> =
        ["n1", "n2", "n3"].map(|host| (host, trace(site, host).len())).into();

    stats.reset_gap();
    let cut_at = since_midnight();
    site.lab.cut(&leader, Cut::Everything).unwrap();
    let elected = eventually("another leader", || {
        let status = site.status(inventory);
        let name = status["leader"]["name"].as_str()?.to_owned();
        (name != leader).then_some(name)
    });
    let writes = stats.total().writes_ok;
    until("writes after", async || stats.total().writes_ok > writes + 100).await;
    let gap = stats.longest_gap();
    prove_silence(site, &leader);
    site.lab.heal(&leader).unwrap();

    let new = trace(site, &elected).split_off(lines[elected.as_str()]);
    let at = |words: &str| {
        let line = new.iter().rfind(|line| line.contains(words));
        let line = line.unwrap_or_else(|| panic!("no `{words}` in {new:#?}"));
        time_of(line).saturating_sub(cut_at)
    };
    Round { phase1_began: at("phase 1 begins"), led: at("this node leads"), gap }
}

/// The leader's name, when all three nodes are up and close to it.
fn settled(site: &Site, inventory: &Path) -> Option<String> {
    let status = site.status(inventory);
    let rows = status["rows"].as_array()?;
    let close = |row: &Value| row["lag_slots"].as_u64().is_none_or(|lag| lag < 1_000);
    let up = |row: &Value| row["state"].as_str().is_some_and(|state| state != "down");
    let all = rows.len() == 3 && rows.iter().all(|row| up(row) && close(row));
    let leader = status["leader"]["name"].as_str()?.to_owned();
    all.then_some(leader)
}

/// The fault acted: the node still runs, and its host neither takes nor refuses a connection.
fn prove_silence(site: &Site, host: &str) {
    assert_eq!(site.lab.processes(host, "paxos-node").unwrap().len(), 1, "the leader still runs");
    let address: SocketAddr = format!("{}:7379", site.address(host)).parse().unwrap();
    let began = Instant::now();
    let error = TcpStream::connect_timeout(&address, Duration::from_millis(300))
        .expect_err("nothing answers behind the cut");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
    assert!(began.elapsed() >= Duration::from_millis(250), "no reset came");
}

/// The lines of a node's trace so far.
fn trace(site: &Site, host: &str) -> Vec<String> {
    let text = site.lab.output(host, "cat /var/lib/paxos/trace/*").unwrap();
    text.lines().map(str::to_owned).collect()
}

fn since_midnight() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now - Duration::from_secs(now.as_secs() / 86_400 * 86_400)
}

/// The time of day at the head of a trace line, `2026-01-31T12:34:56.123456Z`.
fn time_of(line: &str) -> Duration {
    let time = line.split_once('T').and_then(|(_, rest)| rest.split_once('Z')).expect("a time").0;
    let parts: Vec<f64> = time.split(':').map(|part| part.parse().expect("a number")).collect();
    let [hours, minutes, seconds] = parts[..] else { panic!("no time of day: {line}") };
    Duration::from_secs_f64(hours * 3_600.0 + minutes * 60.0 + seconds)
}
