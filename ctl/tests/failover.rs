//! How long no write succeeds when the leader goes away. The figures are printed. What is asserted is
//! that writes come back, every time, and as a rule within the time of a few elections: a busy machine
//! may hold up one of them, not most.
//!
//! `FAILOVER_KILLS=20 cargo test --release -p ctl --test failover -- --nocapture` makes the figures
//! for a report.

mod common;

use std::time::Duration;

use common::{SOON, TestCluster, show, start, until};
use proof::check::{Limits, Verdict};
use proof::load::{Load, Spec as LoadSpec};

/// More than any election may take, even on a machine that is busy with other tests.
const GAP_MAX: Duration = Duration::from_secs(10);
/// Several elections, each with its silence before it.
const GAP_MEDIAN_MAX: Duration = Duration::from_secs(2);
const CLOSE_SLOTS: u64 = 1_000;
const CLIENT_PATIENCE: Duration = Duration::from_millis(100);

/// The two kinds of loss: a killed process resets its connections at once, a paused one is as silent
/// as a host whose packets are dropped.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Killed,
    Silent,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_come_back_after_the_leader_is_killed_or_falls_silent() {
    let rounds = std::env::var("FAILOVER_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    // One after the other: each wants the machine for itself.
    for loss in [Loss::Killed, Loss::Silent] {
        let mut cluster = start(3, |_| ()).await;
        let mut gaps = Vec::new();
        let mut target = cluster.target();
        // A client that waits for a silent node measures its own patience: give it little. What it
        // gives up has an unknown fate, and the proof below takes it so.
        target.patience = CLIENT_PATIENCE;
        let load = Load::start(LoadSpec::new(target, 8));
        for _ in 0..rounds {
            gaps.push(lose_the_leader(&mut cluster, &load, loss).await);
        }
        gaps.sort();
        let (median, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        show(&format!(
            "{loss:?} leader, {rounds} times: no write for {median:?} (median), {worst:?} (worst)"
        ));
        assert!(worst < GAP_MAX, "{gaps:?}");
        assert!(median < GAP_MEDIAN_MAX, "{gaps:?}");
        let target = cluster.target();
        let mut finished = load.stop().await;
        let proof = finished.verify(&target, SOON, Limits::default()).await;
        assert_eq!(proof.verdict, Verdict::Holds, "{loss:?}: {:#?}", proof.audit.findings);
    }
}

/// PITFALLS 104: a follower that stands still for a second does not blame the leader afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_follower_does_not_topple_the_leader() {
    let mut cluster = start(3, |_| ()).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let ballot = ballot_of(&cluster, leader).await;
    let follower = leader % 3 + 1;
    cluster.node(follower).pause();
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.node(follower).resume();
    assert_eq!(cluster.wait_until_caught_up(SOON).await.unwrap(), leader);
    assert_eq!(ballot_of(&cluster, leader).await, ballot, "the leader had to begin a new round");
}

/// Makes the leader go away, and answers how long no write was acknowledged.
async fn lose_the_leader(cluster: &mut TestCluster, load: &Load, loss: Loss) -> Duration {
    let leader = cluster.wait_until_close(SOON, CLOSE_SLOTS).await.unwrap();
    let stats = load.stats();
    let before = stats.total().writes_ok;
    until("writes before", async || stats.total().writes_ok > before + 20).await;
    stats.reset_gap();
    match loss {
        Loss::Killed => cluster.node(leader).kill(),
        Loss::Silent => cluster.node(leader).pause(),
    }
    cluster.wait_for_leader(SOON, |id| id != leader).await.unwrap();
    let elected = stats.total().writes_ok;
    until("writes after", async || stats.total().writes_ok > elected + 100).await;
    let gap = stats.longest_gap();
    match loss {
        Loss::Killed => cluster.node(leader).start().unwrap(),
        Loss::Silent => cluster.node(leader).resume(),
    }
    gap
}

async fn ballot_of(cluster: &TestCluster, id: u32) -> monitoring::status::Ballot {
    cluster.nodes[id as usize - 1].status().await.expect("the leader answers").ballot
}
