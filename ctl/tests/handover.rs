//! Leadership handed over under running clients: on request, and by a node that is told to stop.
//! The figures are printed, not asserted; asserted is that no client is told anything but where the
//! leader is, that every write is accounted for, and that the one that was named leads.
//!
//! `HANDOVERS=50 cargo test --release -p ctl --test handover -- --nocapture` makes the figures for a
//! report.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{SOON, TestCluster, node_binary, show, start, until};
use ctl::local::last_lines;
use proof::check::{Limits, Verdict};
use proof::load::{Load, Spec as LoadSpec};

const CLOSE_SLOTS: u64 = 200;

fn rounds() -> usize {
    std::env::var("HANDOVERS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

/// What `paxos-node admin transfer …` printed, or complained.
fn transfer(cluster: &mut TestCluster, leader: u32, to: &str) -> Result<String, String> {
    let config = cluster.node(leader).config_path();
    let output = Command::new(node_binary())
        .arg("--config")
        .arg(config)
        .args(["admin", "transfer"])
        .args((!to.is_empty()).then_some(to))
        .output()
        .expect("run paxos-node");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_costs_its_clients_a_redirection() {
    let mut cluster = start(3, |_| ()).await;
    let load = Load::start(LoadSpec::new(cluster.target(), 8));
    let (mut gaps, mut undisturbed) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let leader = cluster.wait_until_close(SOON, CLOSE_SLOTS).await.unwrap();
        let stats = load.stats();
        let before = stats.total().writes_ok;
        until("writes before", async || stats.total().writes_ok > before + 20).await;
        stats.reset_gap();
        let began = Instant::now();
        let to = leader % 3 + 1;
        let answer = transfer(&mut cluster, leader, &to.to_string());
        assert!(answer.as_ref().is_ok_and(|text| text.contains("took_us")), "{answer:?}");
        assert_eq!(cluster.wait_for_leader(SOON, |id| id != leader).await.unwrap(), to);
        let elected = stats.total().writes_ok;
        until("writes after", async || stats.total().writes_ok > elected + 100).await;
        gaps.push(stats.longest_gap());
        // As long again without a transfer: what the machine and its disk do by themselves.
        let took = began.elapsed();
        stats.reset_gap();
        tokio::time::sleep(took).await;
        undisturbed.push(stats.longest_gap());
    }
    for (what, mut gaps) in [("transfer", gaps), ("nothing done for as long", undisturbed)] {
        gaps.sort();
        let (times, median, worst) = (gaps.len(), gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        show(&format!(
            "{what}, {times} times: no write for {median:?} (median), {worst:?} (worst)"
        ));
    }
    let target = cluster.target();
    let mut finished = load.stop().await;
    let total = finished.stats.total();
    show(&format!("clients were told: {:?}; unknown fate {}", total.words, total.unknown));
    assert_eq!(total.unknown, 0, "no write's fate is in doubt");
    let others: Vec<_> = total.words.keys().filter(|word| *word != "MOVED").collect();
    assert!(others.is_empty(), "{:?}", total.words);
    let proof = finished.verify(&target, SOON, Limits::default()).await;
    assert_eq!(proof.verdict, Verdict::Holds, "{:#?}", proof.audit.findings);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut cluster = start(3, |_| ()).await;
    let load = Load::start(LoadSpec::new(cluster.target(), 8));
    let mut gaps = Vec::new();
    for _ in 0..rounds().min(4) {
        let leader = cluster.wait_until_close(SOON, CLOSE_SLOTS).await.unwrap();
        let stats = load.stats();
        let before = stats.total().writes_ok;
        until("writes before", async || stats.total().writes_ok > before + 20).await;
        stats.reset_gap();
        cluster.node(leader).terminate();
        until("the node has ended", async || cluster.node(leader).has_ended()).await;
        cluster.wait_for_leader(SOON, |id| id != leader).await.unwrap();
        let elected = stats.total().writes_ok;
        until("writes after", async || stats.total().writes_ok > elected + 100).await;
        gaps.push(stats.longest_gap());
        let status = cluster.node(leader).exit_status();
        assert!(status.is_none_or(|status| status.success()), "{status:?}");
        cluster.node(leader).kill();
        cluster.node(leader).start().unwrap();
    }
    gaps.sort();
    show(&format!("SIGTERM of the leader, {} times: no write for {gaps:?}", gaps.len()));
    let target = cluster.target();
    let mut finished = load.stop().await;
    let proof = finished.verify(&target, SOON, Limits::default()).await;
    assert_eq!(proof.verdict, Verdict::Holds, "{:#?}", proof.audit.findings);
}

/// A change of the members ends the leader's ballot: a handover that is asked for meanwhile waits for
/// it, and is answered as any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_during_a_change_of_members_waits_for_it() {
    let mut cluster = start(3, |_| ()).await;
    let (mut waited, mut round) = (0, 0);
    while waited == 0 || round < 5 {
        round += 1;
        assert!(round < 200, "no transfer met a change under way");
        let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
        // A learner that never runs: nobody waits for it, and the change is chosen all the same.
        let id = 10 + round;
        let port = |door: u32| format!("127.0.0.1:{}", 20_000 + 10 * id + door);
        let words = [
            ["admin", "member", "add"].map(str::to_owned).to_vec(),
            vec![id.to_string(), format!("x{id}"), format!("{id:016x}"), format!("{id:064x}")],
            vec![port(0), port(1), port(2)],
        ]
        .concat();
        let config = cluster.node(leader).config_path();
        let mut add = Command::new(node_binary());
        let mut add = add.arg("--config").arg(config).args(words).spawn().expect("run paxos-node");
        // At whatever moment of it.
        std::thread::sleep(Duration::from_micros(u64::from(round) * 137 % 12_000));
        match transfer(&mut cluster, leader, "") {
            Ok(text) => assert!(text.contains("took_us"), "{text}"),
            // Said at once, or when it is known; what must not be is that nobody knows anything.
            Err(text) => {
                let clear = ["does not lead", "did not take over", "is not reached"];
                assert!(clear.iter().any(|words| text.contains(words)), "{text}");
            }
        }
        add.wait().expect("it ends");
        let said = last_lines(&cluster.node(leader).log_path(), 200);
        waited += said.matches("a change of the members comes first, then the handover").count();
    }
    show(&format!("{waited} of {round} transfers waited for a change"));
}

/// PITFALLS 79: whoever cannot lead is refused by name, and nothing changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_to_who_cannot_lead_is_refused() {
    let mut cluster = start(3, |_| ()).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let refused = |cluster: &mut TestCluster, at: u32, to: &str| {
        transfer(cluster, at, to).expect_err("it cannot be done")
    };
    assert!(refused(&mut cluster, leader, &leader.to_string()).contains("leads already"));
    assert!(refused(&mut cluster, leader, "9").contains("no voter"));
    assert!(refused(&mut cluster, leader, "two").contains("no node's id"));
    let follower = leader % 3 + 1;
    assert!(refused(&mut cluster, follower, "1").contains("does not lead: ask"));
    cluster.node(follower).kill();
    until("the dead node is missed", async || {
        transfer(&mut cluster, leader, &follower.to_string())
            .is_err_and(|text| text.contains("not reached"))
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.leader().await, Some(leader));
}
