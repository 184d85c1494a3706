//! Members come and go in real processes, over plain links and over TLS, while clients write: by
//! the verbs of `paxos-node admin member`. How long no write succeeded is printed for each kind of
//! change; asserted is that the change is made or refused as it should be, that whoever was removed
//! stops by itself and stays stopped, and that every write is accounted for.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{SOON, TestCluster, node_binary, show, start, until};
use config::{MemberConfig, Members, PeerSecurity};
use ctl::local::{LocalCluster, last_lines};
use monitoring::status::{MemberRole, NodeStatus, Role};
use proof::check::{Limits, Verdict};
use proof::client::{Client, Target};
use proof::load::{Load, Spec as LoadSpec};
use serde_json::Value;

const CLIENTS: usize = 8;
const CLOSE_SLOTS: u64 = 500;

/// Tests of this file take turns: each has up to nine processes and measures pauses.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_over_plain_links() {
    come_and_go(PeerSecurity::Plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_over_tls() {
    come_and_go(PeerSecurity::Tls).await;
}

/// A learner is added, catches up and is promoted; a follower is removed; another is replaced in one
/// step; the leader is removed. PITFALLS 24: whoever was removed is gone for good and disturbs nobody.
async fn come_and_go(peers: PeerSecurity) {
    let _turn = TURN.lock().await;
    let mut cluster = start(3, |spec| spec.peers = peers).await;
    let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
    let follower = |nth: u32| (leader - 1 + nth) % 3 + 1;
    let load = start_load(&cluster);

    let four = join(&mut cluster, &load).await;
    let status = cluster.node(four).status().await.expect("n4 answers");
    assert_eq!(status.role, Role::Learner);
    let promoted = change(&mut cluster, &load, &["promote", "n4"]).await;
    assert_eq!(voters(&mut cluster).await, [1, 2, 3, 4]);

    let gone = follower(1);
    let removed = change(&mut cluster, &load, &["remove", &gone.to_string()]).await;
    stops_for_good(&mut cluster, gone).await;

    let five = join(&mut cluster, &load).await;
    let swapped = follower(2);
    let (old, new) = (format!("n{swapped}"), format!("n{five}"));
    let replaced = change(&mut cluster, &load, &["replace", &old, &new]).await;
    stops_for_good(&mut cluster, swapped).await;
    let mut left = vec![leader, four, five];
    left.sort_unstable();
    assert_eq!(voters(&mut cluster).await, left);

    let led_by = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
    let removed_leader = change(&mut cluster, &load, &["remove", &led_by.to_string()]).await;
    stops_for_good(&mut cluster, led_by).await;
    left.retain(|id| *id != led_by);
    assert_eq!(voters(&mut cluster).await, left);
    show(&format!(
        "{peers:?} links, no write for: promote {promoted:?}, remove {removed:?}, replace \
         {replaced:?}, remove the leader {removed_leader:?}"
    ));
    verify(&mut cluster, load).await;
}

/// Every size from 1 to 9 and back, even ones too. Ways back are mixed: every other time it is the
/// leader that goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_from_one_to_nine_and_shrinks_back() {
    let _turn = TURN.lock().await;
    let mut cluster = start(1, |spec| spec.peers = PeerSecurity::Tls).await;
    let load = start_load(&cluster);
    let (mut added, mut promoted) = (Vec::new(), Vec::new());
    for size in 2..=9 {
        let id = start_another(&mut cluster);
        added.push(add(&mut cluster, &load, &id).await);
        promoted.push(change(&mut cluster, &load, &["promote", &id.name]).await);
        assert_eq!(voters(&mut cluster).await.len(), size);
    }
    cluster.wait_until_close(SOON, CLOSE_SLOTS).await.unwrap();
    let (mut removed, mut removed_leader) = (Vec::new(), Vec::new());
    for size in (1..9).rev() {
        let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
        let of_leader = size % 2 == 0;
        let voters_now = voters(&mut cluster).await;
        let goes = voters_now.iter().find(|id| (**id == leader) == of_leader).expect("a voter");
        let pause = change(&mut cluster, &load, &["remove", &goes.to_string()]).await;
        if of_leader {
            removed_leader.push(pause)
        } else {
            removed.push(pause)
        }
        stops_for_good(&mut cluster, *goes).await;
        assert_eq!(voters(&mut cluster).await.len(), size);
    }
    show("1 to 9 and back to 1, no write for (median, worst of each kind):");
    for (kind, mut pauses) in [
        ("add", added),
        ("promote", promoted),
        ("remove a follower", removed),
        ("remove the leader", removed_leader),
    ] {
        pauses.sort_unstable();
        let (median, worst) = (pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
        show(&format!("  {kind}, {} times: {median:?}, {worst:?}", pauses.len()));
    }
    verify(&mut cluster, load).await;
}

/// Any set to any set: three voters make way for three others in one change, the leader among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_voters_make_way_for_three_others_in_one_change() {
    let _turn = TURN.lock().await;
    let mut cluster = start(3, |spec| spec.peers = PeerSecurity::Tls).await;
    let load = start_load(&cluster);
    for _ in 0..3 {
        join(&mut cluster, &load).await;
    }
    let pause = change(&mut cluster, &load, &["voters", "n4", "n5", "n6"]).await;
    for id in 1..=3 {
        stops_for_good(&mut cluster, id).await;
    }
    assert_eq!(voters(&mut cluster).await, [4, 5, 6]);
    show(&format!("all three voters by three others at once: no write for {pause:?}"));
    verify(&mut cluster, load).await;
}

/// PITFALLS 25, 27, 77: a change that would harm is refused, with the reason, and leaves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_would_harm_is_refused_with_its_reason() {
    let _turn = TURN.lock().await;
    let mut cluster = start(3, |spec| {
        spec.peers = PeerSecurity::Tls;
        spec.behaviour.window_slots = 16;
    })
    .await;
    // Enough that a learner is behind for a while: each value is a slot, and has to be synced.
    fill(&cluster, 150, 200 << 10).await;
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let before = configuration(&mut cluster).await;
    let four = start_another(&mut cluster);
    let five = cluster.prepare_another().unwrap();

    cannot(&mut cluster, &["promote", "n4"], "n4 is no member: add it first").await;
    cannot(&mut cluster, &["promote", "n1"], "n1 is a voter already").await;
    cannot(&mut cluster, &["remove", "somebody"], "no member is called `somebody`").await;
    cannot(&mut cluster, &["replace", "n1", "n9"], "n9 is no member").await;
    until("a follower saying who leads", async || {
        let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
        refused(&cluster, leader % 3 + 1, &["promote", "n1"]).contains("does not lead: ask")
    })
    .await;
    assert_eq!(configuration(&mut cluster).await, before, "what was refused left something");

    // Behind: it is told so, and then promoted once it is not.
    make(&mut cluster, &add_words(&four)).await;
    let mut reasons = Vec::new();
    until("n4 becoming a voter", async || {
        let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
        let answer = member(&cluster, leader, &["promote", "n4"]);
        reasons.extend(answer.as_ref().err().cloned());
        answer.is_ok()
    })
    .await;
    assert!(reasons.iter().any(|reason| reason.contains("slots behind")), "{reasons:?}");

    // Not there at all: n5 was never started.
    make(&mut cluster, &add_words(&five)).await;
    for words in [&["promote", "n5"][..], &["replace", "n1", "n5"]] {
        cannot(&mut cluster, words, "n5 is not reached now").await;
    }
    make(&mut cluster, &["remove", "n5"]).await;
    // Its id is spent, though it never ran.
    cannot(&mut cluster, &add_words(&five), "never used again").await;

    // A set of which too few are there to answer is not even proposed.
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let others: Vec<u32> = (1..=4).filter(|id| *id != leader).collect();
    cluster.node(others[0]).kill();
    let to_three = format!("n{}", others[1]);
    let dead = format!("n{}", others[0]);
    until("the dead node being missed", async || {
        let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
        let status = cluster.nodes[leader as usize - 1].status().await;
        status.is_some_and(|s| s.peers.iter().any(|peer| peer.name == dead && !peer.connected))
    })
    .await;
    let two = ["voters", &dead, &format!("n{leader}")];
    let missing = format!("are reached and able to accept, 2 are needed; missing: {dead}");
    cannot(&mut cluster, &two, &missing).await;
    assert_eq!(voters(&mut cluster).await.len(), 4);
    // Removing a living one leaves two of three that answer: enough.
    make(&mut cluster, &["remove", &to_three]).await;
    stops_for_good(&mut cluster, others[1]).await;
    cluster.node(others[0]).start().unwrap();
    cluster.wait_until_caught_up(SOON).await.unwrap();
}

/// PITFALLS 24: stopped before its removal, started after. It disturbs nobody, learns of it, and
/// stays away for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_through_its_removal_disturbs_nobody() {
    let _turn = TURN.lock().await;
    for peers in [PeerSecurity::Plain, PeerSecurity::Tls] {
        let mut cluster = start(3, |spec| spec.peers = peers).await;
        let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
        let sleeper = leader % 3 + 1;
        cluster.node(sleeper).kill();
        let load = start_load(&cluster);
        change(&mut cluster, &load, &["remove", &sleeper.to_string()]).await;
        cluster.node(sleeper).start().unwrap();
        stops_for_good(&mut cluster, sleeper).await;
        nobody_heard(&mut cluster, sleeper).await;
        verify(&mut cluster, load).await;
    }
}

/// The same once the others keep no door open for it any more: nobody tells it, so it goes on asking
/// and disturbs nobody, until it is told by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_that_nobody_lets_in_is_told_by_hand() {
    let _turn = TURN.lock().await;
    for peers in [PeerSecurity::Plain, PeerSecurity::Tls] {
        let mut cluster = start(3, |spec| spec.peers = peers).await;
        let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
        let sleeper = leader % 3 + 1;
        cluster.node(sleeper).kill();
        let load = start_load(&cluster);
        change(&mut cluster, &load, &["remove", &sleeper.to_string()]).await;
        verify(&mut cluster, load).await;
        // Nodes that have started since then know whom the newest configuration names, and no more.
        for id in (1..=3).filter(|id| *id != sleeper) {
            cluster.node(id).kill();
            cluster.node(id).start().unwrap();
        }
        let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
        let _ = fs::remove_file(cluster.node(sleeper).log_path());
        cluster.node(sleeper).start().unwrap();
        until("being turned away", async || {
            last_lines(&cluster.node(sleeper).log_path(), 200).contains("refuses this node")
        })
        .await;
        // Long enough for the sleeper's own silence to end, several times.
        tokio::time::sleep(Duration::from_secs(1)).await;
        nobody_heard(&mut cluster, sleeper).await;
        // It says so itself, and what to do.
        let advice = format!("`paxosctl member remove n{sleeper}` ends it");
        let mut alone = None;
        until("saying that nobody lets it in", async || {
            alone = status_of(&cluster, sleeper).await.alone;
            alone.is_some()
        })
        .await;
        let alone = alone.expect("just seen");
        for words in ["refuses this node", "`paxosctl up` introduces it", &advice] {
            assert!(alone.contains(words), "no `{words}` in: {alone}");
        }
        assert!(last_lines(&cluster.node(sleeper).log_path(), 200).contains(&advice));
        assert_eq!(status_of(&cluster, leader).await.alone, None);
        let exported = member(&cluster, leader, &["export"]).unwrap().to_string();
        let told = member(&cluster, sleeper, &["import", &exported]).unwrap();
        assert_eq!(told["removed_by"], 1, "{told}");
        stops_for_good(&mut cluster, sleeper).await;
    }
}

/// PITFALLS 113: all others are replaced while one sleeps. It wakes up among strangers, who know it;
/// the operator introduces one of them to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_knows_only_removed_peers_is_introduced() {
    let _turn = TURN.lock().await;
    for (peers, by_export) in [(PeerSecurity::Plain, true), (PeerSecurity::Tls, false)] {
        let mut cluster = start(3, |spec| spec.peers = peers).await;
        let load = start_load(&cluster);
        let leader = cluster.wait_until_close(SOON, CLOSE_SLOTS).await.unwrap();
        let sleeper = leader % 3 + 1;
        cluster.node(sleeper).kill();
        let mut new = Vec::new();
        for _ in 0..2 {
            new.push(start_another(&mut cluster));
            add(&mut cluster, &load, new.last().unwrap()).await;
        }
        let all = [sleeper.to_string(), new[0].id.to_string(), new[1].id.to_string()];
        change(&mut cluster, &load, &["voters", &all[0], &all[1], &all[2]]).await;
        for id in (1..=3).filter(|id| *id != sleeper) {
            stops_for_good(&mut cluster, id).await;
        }
        cluster.node(sleeper).start().unwrap();
        // Long enough for many attempts of both sides.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let status = status_of(&cluster, sleeper).await;
        assert_eq!(status.leader, None, "{peers:?}: nobody has introduced it yet");
        let words = match by_export {
            true => {
                let exported = member(&cluster, new[0].id, &["export"]).unwrap();
                vec!["import".to_owned(), exported.to_string()]
            }
            false => description("meet", &new[0]),
        };
        // One that no link can lead to is refused, and keeps nobody else from it.
        let mut stranger = new[0].clone();
        stranger.id += 50;
        match peers {
            PeerSecurity::Plain => stranger.peer = "10.0.0.1:7380".to_owned(),
            PeerSecurity::Tls => stranger.public_key = "-".to_owned(),
        }
        let refusal = member(&cluster, sleeper, &description("meet", &stranger)).unwrap_err();
        assert!(refusal.contains(&format!("n{}", stranger.id)), "{peers:?}: {refusal}");
        member(&cluster, sleeper, &words).unwrap();
        cluster.wait_until_close(SOON, CLOSE_SLOTS).await.unwrap();
        assert_eq!(status_of(&cluster, sleeper).await.role, Role::Follower, "{peers:?}");
        // It counts: without it and another nothing would be chosen.
        cluster.node(new[1].id).kill();
        let stats = load.stats();
        cluster.wait_for_leader(SOON, |id| id != new[1].id).await.unwrap();
        let before = stats.total().writes_ok;
        until("writes with the sleeper", async || stats.total().writes_ok > before + 20).await;
        cluster.node(new[1].id).start().unwrap();
        verify(&mut cluster, load).await;
    }
}

/// PITFALLS 10: a member that is started on an older copy of its own data has forgotten what it has
/// promised. Its peers do not let it in; with its own data back it is welcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_a_members_data_is_refused() {
    let _turn = TURN.lock().await;
    let mut cluster = start(3, |spec| spec.peers = PeerSecurity::Tls).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let victim = leader % 3 + 1;
    let data = cluster.node(victim).data_dir();
    let (older, newer) = (data.with_file_name("older"), data.with_file_name("newer"));
    cluster.node(victim).kill();
    copy_dir(&data, &older);
    cluster.node(victim).start().unwrap();
    fill(&cluster, 20, 100).await;
    cluster.wait_until_caught_up(SOON).await.unwrap();
    cluster.node(victim).kill();
    fs::rename(&data, &newer).unwrap();
    copy_dir(&older, &data);
    let _ = fs::remove_file(cluster.node(victim).log_path());
    cluster.node(victim).start().unwrap();
    until("being told why", async || {
        last_lines(&cluster.node(victim).log_path(), 200).contains("was copied")
    })
    .await;
    fill(&cluster, 20, 100).await;
    let status = status_of(&cluster, victim).await;
    assert_eq!(status.leader, None, "it was let in");
    assert_ne!(cluster.leader().await, Some(victim));
    cluster.node(victim).kill();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&newer, &data).unwrap();
    cluster.node(victim).start().unwrap();
    cluster.wait_until_caught_up(SOON).await.unwrap();
}

/// PITFALLS 74: after every change and after restarts, all nodes say the same about the members, and
/// so does what `member export` writes for the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_say_the_same_after_changes_and_restarts() {
    let _turn = TURN.lock().await;
    // Snapshots after every few bytes, so that restarts take the members from them.
    let mut cluster = start(3, |spec| {
        spec.peers = PeerSecurity::Tls;
        spec.behaviour.snapshot_every_bytes = spec.behaviour.segment_bytes;
    })
    .await;
    let load = start_load(&cluster);
    join(&mut cluster, &load).await;
    change(&mut cluster, &load, &["promote", "n4"]).await;
    change(&mut cluster, &load, &["remove", "n1"]).await;
    stops_for_good(&mut cluster, 1).await;
    fill(&cluster, 60, 200 << 10).await;
    verify(&mut cluster, load).await;
    for id in 2..=4 {
        until("a snapshot", async || status_of(&cluster, id).await.snapshot_slot > 0).await;
    }
    let said = configuration(&mut cluster).await;
    assert_eq!(said["removed"], serde_json::json!([1]));
    let agree = async |cluster: &mut TestCluster| {
        cluster.wait_until_caught_up(SOON).await.unwrap();
        for id in 2..=4 {
            let mut own = member(cluster, id, &["list"]).unwrap();
            own["change_under_way"] = Value::Bool(false);
            assert_eq!(own, said, "n{id}");
            let exported = member(cluster, id, &["export"]).unwrap();
            let toml = exported["members_toml"].as_str().expect("text").to_owned();
            for name in ["n2", "n3", "n4"] {
                assert!(toml.contains(&format!("name = \"{name}\"")), "n{id} exports {toml}");
            }
            assert_eq!(exported["number"], said["number"], "n{id}");
        }
    };
    agree(&mut cluster).await;
    for id in 2..=4 {
        cluster.node(id).kill();
        cluster.node(id).start().unwrap();
    }
    agree(&mut cluster).await;
    // PITFALLS 27: what remembers the ids that are spent is the snapshots, by now.
    let members = Members::load(cluster.node(1).dir.join("members.toml")).unwrap();
    cannot(&mut cluster, &description("add", &members.members[0]), "never used again").await;
}

/// L and ρ change while clients write; whoever starts again goes by the configuration, not by its
/// file. What does not go together is refused, and so is a store version that a member cannot do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_change_under_load() {
    let _turn = TURN.lock().await;
    let mut cluster = start(3, |spec| spec.peers = PeerSecurity::Plain).await;
    let load = start_load(&cluster);
    let founded = status_of(&cluster, 1).await;
    assert_eq!(founded.configuration.lease_ms, Some(100));
    assert_eq!((founded.configuration.store_version, founded.file_differs), (1, Vec::new()));

    let shorter = change(&mut cluster, &load, &["rules", "--lease-ms", "60"]).await;
    let both = ["rules", "--lease-ms", "80", "--drift-percent", "30"];
    let both = change(&mut cluster, &load, &both).await;
    let follower = cluster.wait_for_leader(SOON, |_| true).await.unwrap() % 3 + 1;
    cluster.node(follower).kill();
    cluster.node(follower).start().unwrap();
    for id in 1..=3 {
        until("the rules", async || {
            let configuration = status_of(&cluster, id).await.configuration;
            (configuration.lease_ms, configuration.drift_percent) == (Some(80), Some(30))
        })
        .await;
        let differs = status_of(&cluster, id).await.file_differs;
        assert_eq!(differs[0], "lease_ms = 100, the configuration says 80", "n{id}");
        assert_eq!(differs[1], "drift_percent = 20, the configuration says 30", "n{id}");
    }
    until("a lease by the new rules", async || {
        let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
        status_of(&cluster, leader).await.lease_remaining_us > 0
    })
    .await;

    cannot(&mut cluster, &["rules", "--lease-ms", "101"], "does not go with the timing").await;
    cannot(&mut cluster, &["rules", "--lease-ms", "80"], "these rules rule already").await;
    cannot(&mut cluster, &["rules", "--store-version", "0"], "never lowered").await;
    let beyond = ["rules", "--store-version", "2"];
    cannot(&mut cluster, &beyond, "can do store versions up to 1, not 2").await;
    show(&format!("no write for: a shorter L {shorter:?}, L and ρ {both:?}"));
    verify(&mut cluster, load).await;
}

/// Clients that know where nodes may be, nine at most.
fn start_load(cluster: &TestCluster) -> Load {
    let addresses = (1..=9).map(|id| cluster.spec.listen(id).client.to_string());
    // A node that is gone refuses at once; the others are tried next.
    Load::start(LoadSpec::new(Target::open(addresses.collect()), CLIENTS))
}

/// Formats and starts the next node; nobody knows it yet.
fn start_another(cluster: &mut TestCluster) -> MemberConfig {
    let new = cluster.prepare_another().unwrap_or_else(|error| panic!("{error}"));
    cluster.node(new.id).start().unwrap();
    new
}

/// One more learner, caught up; its id.
async fn join(cluster: &mut TestCluster, load: &Load) -> u32 {
    let new = start_another(cluster);
    add(cluster, load, &new).await;
    new.id
}

/// Adds a learner and waits until it has caught up; how long no write succeeded.
async fn add(cluster: &mut TestCluster, load: &Load, new: &MemberConfig) -> Duration {
    let words = add_words(new);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let pause = change(cluster, load, &words).await;
    until("the learner catching up", async || {
        let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
        let status = status_of(cluster, leader).await;
        let peer = status.peers.iter().find(|peer| peer.id == new.id);
        peer.is_some_and(|peer| peer.connected && peer.lag_slots < CLOSE_SLOTS)
    })
    .await;
    pause
}

fn add_words(new: &MemberConfig) -> Vec<String> {
    description("add", new)
}

fn description(verb: &str, new: &MemberConfig) -> Vec<String> {
    let id = new.id.to_string();
    [verb, &id, &new.name, &new.incarnation, &new.public_key, &new.peer, &new.client, &new.http]
        .map(str::to_owned)
        .to_vec()
}

/// Makes a change under load, and answers how long no write succeeded around it.
async fn change(cluster: &mut TestCluster, load: &Load, words: &[&str]) -> Duration {
    let stats = load.stats();
    let before = stats.total().writes_ok;
    until("writes before", async || stats.total().writes_ok > before + 50).await;
    stats.reset_gap();
    make(cluster, words).await;
    let chosen = stats.total().writes_ok;
    until("writes after", async || stats.total().writes_ok > chosen + 200).await;
    stats.longest_gap()
}

/// Makes a change. What is refused only for the moment is asked again.
async fn make(cluster: &mut TestCluster, words: &[impl AsRef<str>]) {
    until("the change", async || {
        let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
        match member(cluster, leader, words) {
            Ok(answer) => answer["configuration"].as_u64().is_some(),
            Err(refusal) => {
                let passes = ["slots behind", "no leader is ready", "does not lead: ask"];
                assert!(passes.iter().any(|words| refusal.contains(words)), "{refusal}");
                false
            }
        }
    })
    .await;
}

/// `paxos-node admin member …` at node `at`: what it answered, or its complaint.
fn member(cluster: &LocalCluster, at: u32, words: &[impl AsRef<str>]) -> Result<Value, String> {
    let config = cluster.nodes[at as usize - 1].config_path();
    let mut node = Command::new(node_binary());
    node.arg("--config").arg(config).args(["admin", "member"]);
    let output = node.args(words.iter().map(AsRef::as_ref)).output().expect("run paxos-node");
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).expect("JSON")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The change is refused for that reason by whoever leads, once that is ready to look at it.
async fn cannot(cluster: &mut TestCluster, words: &[impl AsRef<str>], reason: &str) {
    until(reason, async || {
        let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
        let refusal = refused(cluster, leader, words);
        let passes = ["no leader is ready", "does not lead: ask"];
        let is_early = passes.iter().any(|words| refusal.contains(words));
        assert!(is_early || refusal.contains(reason), "{refusal}");
        !is_early
    })
    .await;
}

fn refused(cluster: &LocalCluster, at: u32, words: &[impl AsRef<str>]) -> String {
    member(cluster, at, words).expect_err("it must be refused")
}

async fn status_of(cluster: &TestCluster, id: u32) -> NodeStatus {
    let mut found = None;
    until("an answer", async || {
        found = cluster.nodes[id as usize - 1].status().await;
        found.is_some()
    })
    .await;
    found.expect("just seen")
}

async fn configuration(cluster: &mut TestCluster) -> Value {
    let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
    member(cluster, leader, &["list"]).unwrap()
}

async fn voters(cluster: &mut TestCluster) -> Vec<u32> {
    let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
    let status = status_of(cluster, leader).await;
    let voters = status.configuration.members.iter();
    voters.filter(|member| member.role == MemberRole::Voter).map(|member| member.id).collect()
}

/// The node ends by itself, without complaint, leaves its tombstone, and does not start again: it
/// says why, and what to do.
async fn stops_for_good(cluster: &mut TestCluster, id: u32) {
    until(&format!("n{id} stopping"), async || cluster.node(id).has_ended()).await;
    let node = cluster.node(id);
    let status = node.exit_status().expect("it ended by itself");
    assert!(status.success(), "n{id} {status}: {}", last_lines(&node.log_path(), 10));
    let tombstone = fs::read_to_string(node.data_dir().join("tombstone")).expect("a tombstone");
    assert!(tombstone.starts_with("removed by configuration "), "{tombstone}");
    let again = Command::new(node_binary()).arg("--config").arg(node.config_path()).output();
    let again = again.expect("run paxos-node");
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success(), "n{id} started again: {said}");
    let first = tombstone.lines().next().expect("a line");
    for words in ["was removed from the cluster", first, "never used again"] {
        assert!(said.contains(words), "no `{words}` in: {said}");
    }
    // It is not missed any more.
    cluster.node(id).kill();
}

/// The others lead and follow among themselves: nobody has promised a ballot of that node.
async fn nobody_heard(cluster: &mut TestCluster, removed: u32) {
    cluster.wait_for_leader(SOON, |id| id != removed).await.unwrap();
    for id in (1..=3).filter(|id| *id != removed) {
        let ballot = status_of(cluster, id).await.ballot;
        assert!(ballot.node != removed, "n{id} has promised {ballot}: it was disturbed");
    }
}

/// Values that are chosen, each in a slot of its own.
async fn fill(cluster: &TestCluster, count: usize, length: usize) {
    let mut client = Client::new(cluster.target(), 0);
    let value = vec![b'x'; length];
    for number in 0..count {
        let key = format!("fill:{number}");
        common::call(&mut client, &[b"SET", key.as_bytes(), &value]).await;
    }
}

/// Every write is accounted for, and all nodes have it.
async fn verify(cluster: &mut TestCluster, load: Load) {
    let target =
        Target::open((1..=9).map(|id| cluster.spec.listen(id).client.to_string()).collect());
    let mut finished = load.stop().await;
    let total = finished.stats.total();
    show(&format!(
        "  {} writes, told: {:?}, unknown fate {}",
        total.writes_ok, total.words, total.unknown
    ));
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let proof = finished.verify(&target, SOON, Limits::default()).await;
    assert_eq!(proof.verdict, Verdict::Holds, "{:#?}", proof.audit.findings);
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy_dir(&entry.path(), &target),
            kind if kind.is_file() => drop(fs::copy(entry.path(), target).unwrap()),
            _ => {}
        }
    }
}
