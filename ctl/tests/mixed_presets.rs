//! Nodes of one cluster with different presets, as in the middle of a rolling change. Each preset
//! alone is fine; together they must still find a leader, keep it, and lose nothing (PITFALLS 88).

mod common;

use std::fs;

use common::{SOON, TestCluster, spec};
use config::{NodeConfig, preset, preset_names};
use ctl::local::LocalCluster;
use proof::check::{Limits, Verdict};
use proof::load::{Load, Spec as LoadSpec};

/// Acknowledged writes that show that a cluster serves, before and after its leader is killed.
const WRITES: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_of_presets_serves_and_survives_its_leader_pitfall_88() {
    for majority in preset_names() {
        for minority in preset_names().into_iter().filter(|minority| *minority != majority) {
            let mut cluster = start_mixed(majority, minority);
            let pair = format!("two nodes with {majority}, one with {minority}");
            serves_and_survives(&mut cluster, &pair).await;
        }
    }
}

async fn serves_and_survives(cluster: &mut TestCluster, pair: &str) {
    let leader = cluster.wait_for_leader(SOON, |_| true).await;
    let leader = leader.unwrap_or_else(|error| panic!("{pair}: {error}"));
    let load = Load::start(LoadSpec::new(cluster.target(), 4));
    writes_go_on(&load, pair).await;
    cluster.node(leader).kill();
    let other = cluster.wait_for_leader(SOON, |other| other != leader).await;
    other.unwrap_or_else(|error| panic!("{pair}, its leader killed: {error}"));
    writes_go_on(&load, pair).await;
    cluster.node(leader).start().unwrap();
    let target = cluster.target();
    let mut finished = load.stop().await;
    let back = cluster.wait_until_caught_up(SOON).await;
    back.unwrap_or_else(|error| panic!("{pair}, its leader back: {error}"));
    let proof = finished.verify(&target, SOON, Limits::default()).await;
    assert!(matches!(proof.verdict, Verdict::Holds), "{pair}: {:?}", proof.verdict);
}

async fn writes_go_on(load: &Load, pair: &str) {
    let deadline = tokio::time::Instant::now() + SOON;
    let before = load.stats().total().writes_ok;
    while load.stats().total().writes_ok < before + WRITES {
        let counts = load.stats().total();
        assert!(tokio::time::Instant::now() < deadline, "{pair}: nothing is written: {counts:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Nodes 1 and 2 with one preset, node 3 with the other.
fn start_mixed(majority: &str, minority: &str) -> TestCluster {
    let dir = tempfile::TempDir::with_prefix("paxos-test-").unwrap();
    let cluster = LocalCluster::prepare(spec(3, &dir)).unwrap_or_else(|error| panic!("{error}"));
    let mut cluster = TestCluster { cluster, dir };
    for node in &mut cluster.nodes {
        let path = node.config_path();
        let mut config = NodeConfig::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        let sizes = config.behaviour.clone();
        config.behaviour = preset(if node.id == 3 { minority } else { majority }).unwrap();
        config.behaviour.command_bytes_max = sizes.command_bytes_max;
        config.behaviour.segment_bytes = sizes.segment_bytes;
        fs::write(&path, config.to_toml()).unwrap();
        node.start().unwrap_or_else(|error| panic!("{error}"));
    }
    cluster
}
