//! Real nodes with the faults that only they themselves can inject: a disk whose syncs take a second,
//! and a wall clock that is a year off (`paxos-node admin chaos`). Load goes on meanwhile, and what
//! its clients saw is proven in the end. Figures are printed.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{SOON, TestCluster, call, node_binary, show, start, until};
use monitoring::status::NodeStatus;
use proof::check::{Limits, Verdict};
use proof::client::{Client, Fate};
use proof::load::{Load, Spec as LoadSpec};
use proof::resp::Reply;

const SLOWER_MS: u64 = 1_000;
/// Syncs of a second in a row, while all is looked at.
const SLOW_SYNCS: u64 = 4;
/// As for any fail-over, on a machine that is busy with other tests.
const GAP_MAX: Duration = Duration::from_secs(10);
const YEAR_MS: i64 = 365 * 24 * 3_600_000;

async fn start_allowing_chaos() -> TestCluster {
    start(3, |spec| spec.behaviour.chaos = true).await
}

/// How often a node says that it began to lead.
fn reigns(cluster: &mut TestCluster, id: u32) -> usize {
    let said = std::fs::read_to_string(cluster.node(id).log_path()).expect("its trace");
    said.matches("this node leads").count()
}

/// What `paxos-node admin …` printed, or complained.
fn admin(cluster: &mut TestCluster, id: u32, words: &str) -> Result<String, String> {
    let mut command = Command::new(node_binary());
    command.arg("--config").arg(cluster.node(id).config_path()).arg("admin");
    let output = command.args(words.split(' ')).output().expect("run paxos-node");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

async fn status(cluster: &TestCluster, id: u32) -> NodeStatus {
    cluster.nodes[id as usize - 1].status().await.expect("a node that runs answers")
}

/// Slows the disk of `id`, and waits until a sync has taken as long.
async fn slow_down(cluster: &mut TestCluster, id: u32) {
    let said = admin(cluster, id, &format!("chaos disk {SLOWER_MS} 600"));
    assert!(said.as_ref().is_ok_and(|said| said.contains("disk")), "{said:?}");
    until("a slow sync", async || {
        let status = status(cluster, id).await;
        assert_eq!(status.chaos, ["disk"]);
        status.can_accept_reason.is_some_and(|reason| reason.contains("a sync has taken"))
    })
    .await;
}

async fn writes_go_on(load: &Load, count: u64) {
    let before = load.stats().total().writes_ok;
    until("writes", async || load.stats().total().writes_ok > before + count).await;
}

async fn prove(cluster: &TestCluster, load: Load) {
    let target = cluster.target();
    let mut finished = load.stop().await;
    let proof = finished.verify(&target, SOON, Limits::default()).await;
    assert_eq!(proof.verdict, Verdict::Holds, "{:#?}", proof.audit.findings);
}

/// PITFALLS 44, 64: whoever has a sound disk takes over, and keeps the lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_leaves_a_slow_disk_and_stays_away_pitfall_44() {
    let mut cluster = start_allowing_chaos().await;
    let slow = cluster.wait_until_caught_up(SOON).await.unwrap();
    let load = Load::start(LoadSpec::new(cluster.target(), 8));
    writes_go_on(&load, 100).await;
    load.stats().reset_gap();
    let began = Instant::now();
    slow_down(&mut cluster, slow).await;
    cluster.wait_for_leader(SOON, |id| id != slow).await.unwrap();
    let moved = began.elapsed();
    writes_go_on(&load, 100).await;
    let gap = load.stats().longest_gap();
    show(&format!("syncs of {SLOWER_MS} ms: moved within {moved:?}, no write for {gap:?}"));
    assert!(gap < GAP_MAX, "{gap:?}");

    let reigns_of_slow = reigns(&mut cluster, slow);
    for _ in 0..SLOW_SYNCS {
        tokio::time::sleep(Duration::from_millis(SLOWER_MS)).await;
        writes_go_on(&load, 100).await;
    }
    assert_eq!(status(&cluster, slow).await.chaos, ["disk"], "it was slow all the time");
    assert_eq!(reigns(&mut cluster, slow), reigns_of_slow, "the lead came back to it");
    let said = admin(&mut cluster, slow, "chaos heal").unwrap();
    assert!(said.contains("[]"), "{said}");
    until("a sound disk", async || status(&cluster, slow).await.can_accept).await;
    cluster.wait_until_close(SOON, 1_000).await.unwrap();
    prove(&cluster, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followers_slow_disk_moves_nothing() {
    // The other two have to be content with each other, on a machine that is busy with other tests.
    let mut cluster = start(3, |spec| {
        spec.behaviour.chaos = true;
        (spec.behaviour.silence_ms, spec.behaviour.stalled_ms) = (3_000, 3_000);
    })
    .await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let slow = leader % 3 + 1;
    let ballot = status(&cluster, leader).await.ballot;
    let load = Load::start(LoadSpec::new(cluster.target(), 8));
    writes_go_on(&load, 100).await;
    slow_down(&mut cluster, slow).await;
    load.stats().reset_gap();
    for _ in 0..SLOW_SYNCS {
        tokio::time::sleep(Duration::from_millis(SLOWER_MS)).await;
        writes_go_on(&load, 100).await;
    }
    assert_eq!(status(&cluster, slow).await.chaos, ["disk"], "it was slow all the time");
    assert_eq!(status(&cluster, leader).await.ballot, ballot, "the lead moved");
    show(&format!("a slow follower: no write for {:?}", load.stats().longest_gap()));
    prove(&cluster, load).await;
}

/// PITFALLS 107: one clock of three that is a year off, whoever leads and whichever way, neither ends
/// a long TTL nor lets a short one stand still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_a_year_off_leaves_ttls_their_length_pitfall_107() {
    let mut cluster = start_allowing_chaos().await;
    let mut client = Client::new(cluster.target(), 0);
    let hour_ms = 3_600_000;
    let began = Instant::now();
    let set = call(&mut client, &[b"SET", b"long", b"v", b"PX", b"3600000"]).await;
    assert_eq!(set, Reply::Simple("OK".into()));
    let mut off = cluster.wait_until_caught_up(SOON).await.unwrap();
    for off_ms in [YEAR_MS, -YEAR_MS] {
        let said = admin(&mut cluster, off, &format!("chaos clock {off_ms} 600"));
        assert!(said.as_ref().is_ok_and(|said| said.contains("clock")), "{said:?}");
        until("a wall clock that is off", async || {
            let (there, here) = (status(&cluster, off).await, status(&cluster, off % 3 + 1).await);
            assert_eq!(there.chaos, ["clock"]);
            (there.time_ms as i64 - here.time_ms as i64).abs() > YEAR_MS / 2
        })
        .await;
        // Under the leader whose clock leapt, under its follower, and under itself again.
        for to in [None, Some(off % 3 + 1), Some(off)] {
            if let Some(to) = to {
                transfer(&mut cluster, to).await;
            }
            let set = call(&mut client, &[b"SET", b"short", b"v", b"PX", b"300"]).await;
            assert_eq!(set, Reply::Simple("OK".into()));
            until("the end of a short TTL", async || {
                call(&mut client, &[b"GET", b"short"]).await == Reply::Nil
            })
            .await;
            let left_ms = left_ms(&mut client, "long").await;
            // A leaderless moment is made up by a clock that runs a quarter faster.
            let passed_ms = began.elapsed().as_millis() as i64 * 5 / 4 + 1_000;
            let lasts_ms = hour_ms - passed_ms..=hour_ms;
            assert!(lasts_ms.contains(&left_ms), "{left_ms} ms are left, led by {to:?}");
        }
        admin(&mut cluster, off, "chaos heal").unwrap();
        off = off % 3 + 1;
        transfer(&mut cluster, off).await;
    }
}

/// PITFALLS 108: behind an election whose quorum's clocks are far ahead of the log, as after a while
/// without a leader, the holders of short locks still hold them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_ends_no_short_lock_pitfall_108() {
    const AHEAD_MS: i64 = 55_000;
    const TTL_MS: i64 = 30_000;
    let mut cluster = start_allowing_chaos().await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let mut client = Client::new(cluster.target(), 0);
    let began = Instant::now();
    let ttl = TTL_MS.to_string();
    for lock in 0..50 {
        let key = format!("lock:{lock}");
        let words = [b"SET", key.as_bytes(), b"holder", b"PX", ttl.as_bytes()];
        assert_eq!(call(&mut client, &words).await, Reply::Simple("OK".into()));
    }
    for id in 1..=3 {
        admin(&mut cluster, id, &format!("chaos clock {AHEAD_MS} 600")).unwrap();
    }
    cluster.node(leader).kill();
    cluster.wait_for_leader(SOON, |id| id != leader).await.unwrap();
    for lock in 0..50 {
        let key = format!("lock:{lock}");
        let left_ms = left_ms(&mut client, &key).await;
        // The gap is made up by a quarter of what passes.
        let passed_ms = began.elapsed().as_millis() as i64 * 5 / 4 + 1_000;
        assert!(left_ms >= TTL_MS - passed_ms, "{key} has {left_ms} ms left after {passed_ms}");
        assert!(left_ms > 0 || passed_ms >= TTL_MS, "{key} has ended");
    }
}

/// What is left of a key's time. Asked again when its answer is lost with a leader.
async fn left_ms(client: &mut Client, key: &str) -> i64 {
    let mut left = None;
    until("PTTL", async || {
        if let Fate::Done(Reply::Integer(ms)) = client.call(&[b"PTTL", key.as_bytes()]).await {
            left = Some(ms);
        }
        left.is_some()
    })
    .await;
    left.expect("just answered")
}

/// Lets `to` lead, however often it takes: one that is behind, or that was just deposed, is refused.
async fn transfer(cluster: &mut TestCluster, to: u32) {
    let deadline = Instant::now() + SOON;
    loop {
        let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
        if leader == to {
            return;
        }
        let said = admin(cluster, leader, &format!("transfer {to}"));
        assert!(Instant::now() < deadline, "n{to} does not take over: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_is_refused_where_it_is_not_allowed_and_ends_by_itself_where_it_is() {
    let mut sane = start(1, |_| ()).await;
    for words in ["chaos disk 1000 60", "chaos clock 1000 60", "chaos heal"] {
        let said = admin(&mut sane, 1, words).expect_err("not allowed");
        assert!(said.contains("`chaos = true`"), "{said}");
    }
    assert_eq!(status(&sane, 1).await.chaos, Vec::<String>::new());

    let mut broken = start(1, |spec| spec.behaviour.chaos = true).await;
    let said = admin(&mut broken, 1, "chaos disk 100000 60").expect_err("too much");
    assert!(said.contains("MS = `100000` is no number from 1 to 10000"), "{said}");
    admin(&mut broken, 1, "chaos clock -31536000000 1").unwrap();
    admin(&mut broken, 1, "chaos disk 200 1").unwrap();
    assert_eq!(status(&broken, 1).await.chaos, ["disk", "clock"]);
    until("the end of both", async || status(&broken, 1).await.chaos.is_empty()).await;
    let time_ms = status(&broken, 1).await.time_ms;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.as_millis() as u64 - time_ms < 60_000, "its clock is the machine's again");
}
