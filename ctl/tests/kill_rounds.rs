//! The promise of the whole project: what was acknowledged is there, once, whoever is killed.
//! PITFALLS 1, 34, 53, 82, 102.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{SOON, TestCluster, show, start, until};
use monitoring::status::{NodeStatus, StateHash};
use proof::check::{Limits, Verdict};
use proof::load::{Load, Mix, Spec as LoadSpec};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const ROUNDS: u64 = 20;
const CLIENTS: usize = 8;
/// Acknowledged writes that a round must see after its kill, or the load proves nothing about it.
const WRITES_A_ROUND: u64 = 50;
/// A node this close to the newest slot counts as back while writes go on.
const CLOSE_SLOTS: u64 = 1_000;

/// A load of all kinds of writes on recorded keys.
fn load_on(cluster: &TestCluster, seed: u64, pipeline: usize) -> Load {
    let mut spec = LoadSpec::new(cluster.target(), CLIENTS);
    spec.mix = Mix { set: 35, incr: 25, append: 15, get: 5, register: 20 };
    spec.seed = seed;
    spec.pipeline = pipeline;
    spec.history_max = 40_000;
    Load::start(spec)
}

async fn writes_go_on(load: &Load, count: u64) {
    let before = load.stats().total().writes_ok;
    until("the next acknowledged writes", async || {
        load.stats().total().writes_ok >= before + count
    })
    .await;
}

/// 20 rounds of `kill -9` of a random node, every third time the leader, under writing clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_rounds_of_kill_9_lose_nothing_and_do_nothing_twice() {
    let seed = 7;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = start(3, |_| ()).await;
    let load = load_on(&cluster, seed, 1);
    writes_go_on(&load, WRITES_A_ROUND).await;
    let mut leaders_killed = 0;
    for round in 0..ROUNDS {
        let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
        let victim = if round % 3 == 0 { leader } else { rng.random_range(1..=3) };
        leaders_killed += u64::from(victim == leader);
        cluster.node(victim).kill();
        writes_go_on(&load, WRITES_A_ROUND).await;
        cluster.node(victim).start().unwrap();
        // Not always: the next kill may meet a node that is still catching up.
        if rng.random_bool(0.5) {
            cluster.wait_until_close(SOON, CLOSE_SLOTS).await.unwrap();
        } else {
            let node = victim;
            until("the restarted node's status", async || {
                cluster.cluster.nodes[node as usize - 1].status().await.is_some()
            })
            .await;
        }
    }
    writes_go_on(&load, WRITES_A_ROUND).await;

    let target = cluster.target();
    let mut finished = load.stop().await;
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let proof = finished.verify(&target, SOON, Limits::default()).await;
    let counts = finished.stats.total();
    show(&format!(
        "{ROUNDS} kills ({leaders_killed} of the leader): {} writes acknowledged, {} refused, {} \
         unknown {:?}; longest time without a write {:?}; {} keys read back, {} operations checked: {}",
        counts.writes_ok,
        counts.failed,
        counts.unknown,
        counts.words,
        finished.stats.longest_gap(),
        proof.audit.keys_checked,
        proof.recorded,
        proof.verdict
    ));
    assert_eq!(proof.verdict, Verdict::Holds, "{:#?}", proof.audit.findings);
    assert!(leaders_killed >= ROUNDS / 3, "the leader was killed too");
    let mut compared = Err("nobody was asked".to_owned());
    until("a slot whose state hash all three publish", async || {
        compared = compare_states(&cluster.statuses().await);
        compared != Ok(0)
    })
    .await;
    show(&format!("states compared at {} slots", compared.expect("equal states")));

    // All at once, as when the power goes: what was acknowledged is on the disks.
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.start().unwrap();
    }
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let again = finished.verify(&target, SOON, Limits::default()).await;
    assert_eq!(again.verdict, Verdict::Holds, "after all were killed: {:#?}", again.audit.findings);
}

/// PITFALLS 36 and 110: the same with pipelines, where some commands of one write are redirected or
/// refused and others are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_survive_kills_of_the_leader() {
    let mut cluster = start(3, |_| ()).await;
    let load = load_on(&cluster, 11, 8);
    for _ in 0..5 {
        writes_go_on(&load, WRITES_A_ROUND).await;
        let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
        cluster.node(leader).kill();
        writes_go_on(&load, WRITES_A_ROUND).await;
        cluster.node(leader).start().unwrap();
        cluster.wait_until_close(SOON, CLOSE_SLOTS).await.unwrap();
    }
    let target = cluster.target();
    let mut finished = load.stop().await;
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let proof = finished.verify(&target, SOON, Limits::default()).await;
    assert_eq!(proof.verdict, Verdict::Holds, "{:#?}", proof.audit.findings);
}

/// Without a quorum nothing is acknowledged; with one again, all goes on. The audit would call any
/// write that was refused meanwhile and done later a phantom (PITFALLS 34).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_acknowledged() {
    let mut cluster = start(3, |_| ()).await;
    let load = load_on(&cluster, 13, 1);
    writes_go_on(&load, 10 * WRITES_A_ROUND).await;
    let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
    let followers: Vec<u32> = (1..=3).filter(|id| *id != leader).collect();
    for follower in &followers {
        cluster.node(*follower).kill();
    }
    // What was acknowledged until here had its quorum; one answer may still have been on its way.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = load.stats().total();
    until("refusals or silence", async || {
        let now = load.stats().total();
        now.failed + now.unknown >= before.failed + before.unknown + CLIENTS as u64
    })
    .await;
    assert_eq!(load.stats().total().writes_ok, before.writes_ok, "acknowledged by one of three");
    for follower in followers {
        cluster.node(follower).start().unwrap();
    }
    // Enough to judge by, whatever the mix of this run has drawn so far.
    writes_go_on(&load, 20 * WRITES_A_ROUND).await;
    let target = cluster.target();
    let mut finished = load.stop().await;
    let proof = finished.verify(&target, SOON, Limits::default()).await;
    assert_eq!(proof.verdict, Verdict::Holds, "{:#?}", proof.audit.findings);
}

/// At how many slots all nodes published a hash of their state, all of them equal: none, when a node
/// does not answer or they have no slot in common, which proves nothing (PITFALLS 53). Fails with the
/// first slot at which two differ.
fn compare_states(statuses: &[Option<NodeStatus>]) -> Result<usize, String> {
    let mut hashes: BTreeMap<u64, (&str, &str, usize)> = BTreeMap::new();
    for status in statuses.iter().flatten() {
        for at in &status.state_hashes {
            let (name, hash, count) =
                hashes.entry(at.slot).or_insert((status.name.as_str(), at.hash.as_str(), 0));
            if *hash != at.hash {
                return Err(format!("slot {}: {name} and {} differ", at.slot, status.name));
            }
            *count += 1;
        }
    }
    Ok(hashes.values().filter(|(_, _, count)| *count == statuses.len()).count())
}

#[test]
fn a_comparison_that_compares_nothing_is_no_proof() {
    let node = |name: &str, hashes: &[(u64, &str)]| {
        let hash = |(slot, hash): &(u64, &str)| StateHash { slot: *slot, hash: (*hash).to_owned() };
        let state_hashes = hashes.iter().map(hash).collect();
        Some(NodeStatus { name: name.to_owned(), state_hashes, ..NodeStatus::default() })
    };
    let (one, two) = (node("n1", &[(64, "a"), (128, "b")]), node("n2", &[(128, "b"), (192, "c")]));
    assert_eq!(compare_states(&[one.clone(), two.clone()]), Ok(1));
    assert_eq!(compare_states(&[one.clone(), two, None]), Ok(0), "one does not answer");
    assert_eq!(compare_states(&[one.clone(), node("n2", &[(192, "c")])]), Ok(0));
    let differs = compare_states(&[one, node("n2", &[(64, "x")])]);
    assert_eq!(differs, Err("slot 64: n1 and n2 differ".to_owned()));
}
