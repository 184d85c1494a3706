//! Real nodes whose disk fails a sync, or has lost what a sync had covered. What the journal makes of
//! both is tried at every sync and every byte in `node/journal/tests`; here it is asked what the
//! process says, how it ends, and whether the others go on. Full disks are in `bad_input.rs`, slow
//! ones in `chaos.rs`.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{SOON, TestCluster, call, skipped, start, until};
use ctl::local::last_lines;
use proof::check::{Limits, Verdict};
use proof::client::Client;
use proof::load::{Load, Spec as LoadSpec};

/// `paxos-node` ends with this when its data is damaged, and no supervisor starts it again.
const EXIT_DATA: i32 = 74;

/// A tracer that lets the first sync of each thread of a process fail, and none after it: a second
/// try would seem to succeed, as on a real disk.
struct FailingSyncs {
    strace: Child,
    calls: PathBuf,
}

impl FailingSyncs {
    fn of(process: u32, folder: &Path) -> std::io::Result<FailingSyncs> {
        let calls = folder.join("syncs");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=fdatasync,fsync", "-o"]).arg(&calls);
        strace.args(["-e", "inject=fdatasync,fsync:error=EIO:when=1"]);
        strace.args(["-p", &process.to_string()]);
        let strace = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(FailingSyncs { strace, calls })
    }

    /// The syncs that each thread has called.
    fn calls(&self) -> BTreeMap<String, Vec<String>> {
        let mut calls = BTreeMap::<String, Vec<String>>::new();
        for line in fs::read_to_string(&self.calls).unwrap_or_default().lines() {
            let (thread, call) = line.split_once(' ').expect("a thread and its call");
            if call.contains("sync(") {
                calls.entry(thread.to_owned()).or_default().push(call.to_owned());
            }
        }
        calls
    }
}

impl Drop for FailingSyncs {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// PITFALLS 2: the process ends and says why; it never syncs again; and what it had acknowledged
/// before is there when it starts anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_process_and_is_never_tried_again_pitfall_2() {
    let mut cluster = start(3, |_| ()).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let victim = leader % 3 + 1;
    let load = Load::start(LoadSpec::new(cluster.target(), 4));
    let process = cluster.node(victim).pid().expect("it runs");
    let Ok(mut tracer) = FailingSyncs::of(process, cluster.dir.path()) else {
        return skipped("there is no strace: no sync can be made to fail");
    };
    let mut attached = true;
    until("the end of the node", async || {
        attached = tracer.strace.try_wait().unwrap().is_none();
        cluster.node(victim).has_ended() || !attached
    })
    .await;
    if !cluster.node(victim).has_ended() {
        return skipped("strace may not look into another process here");
    }
    let code = cluster.node(victim).exit_status().and_then(|status| status.code());
    assert_eq!(code, Some(1), "it ends by itself, and may be started again");
    let said = last_lines(&cluster.node(victim).log_path(), 10);
    assert!(said.contains("the journal failed: this node stops"), "{said}");
    assert!(said.contains("what the disk holds is not known"), "{said}");
    assert!(said.contains("Input/output error"), "{said}");
    let calls = tracer.calls();
    let failed = calls.values().filter(|calls| calls[0].contains("EIO")).count();
    assert!(failed > 0, "{calls:?}");
    let again = calls.values().filter(|calls| calls[0].contains("EIO") && calls.len() > 1);
    assert_eq!(again.count(), 0, "tried again: {calls:?}");

    let before = load.stats().total().writes_ok;
    until("writes without it", async || load.stats().total().writes_ok > before + 200).await;
    drop(tracer);
    cluster.node(victim).start().unwrap();
    let target = cluster.target();
    let mut finished = load.stop().await;
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let proof = finished.verify(&target, SOON, Limits::default()).await;
    assert_eq!(proof.verdict, Verdict::Holds, "{:#?}", proof.audit.findings);
}

/// PITFALLS 3, 61: a byte that a sync had covered is another one. The node does not start, says which
/// byte of which file, and the command that rebuilds it from its peers; it leaves all as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_journal_is_refused_with_file_offset_and_the_way_back() {
    let mut cluster = start(3, |_| ()).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let victim = leader % 3 + 1;
    let mut client = Client::new(cluster.target(), 0);
    for number in 0..50_u32 {
        let key = number.to_string();
        call(&mut client, &[b"SET", key.as_bytes(), &[b'v'; 500]]).await;
    }
    cluster.wait_until_caught_up(SOON).await.unwrap();
    cluster.node(victim).kill();
    let (segment, offset) = rot(&cluster.node(victim).data_dir().join("journal"));
    let rotten = fs::read(&segment).unwrap();

    cluster.node(victim).start().unwrap();
    until("the end of the node", async || cluster.node(victim).has_ended()).await;
    let code = cluster.node(victim).exit_status().and_then(|status| status.code());
    assert_eq!(code, Some(EXIT_DATA));
    let said = last_lines(&cluster.node(victim).log_path(), 6);
    let at = said.rsplit("at byte ").next().and_then(|rest| {
        rest.split(|digit: char| !digit.is_ascii_digit()).next()?.parse::<u64>().ok()
    });
    // The group is named that holds the byte.
    assert!(at.is_some_and(|at| at <= offset && offset - at < 64 << 10), "{offset}: {said}");
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(name), "{said}");
    let way_back = format!("paxosctl member replace {}", cluster.node(victim).name);
    assert!(said.contains(&way_back), "{said}");
    assert_eq!(fs::read(&segment).unwrap(), rotten, "nothing was changed");
    others_serve(&mut cluster, &mut client).await;
}

/// PITFALLS 75: a majority has lost its disks, was formatted again, and starts first. What is there
/// is no cluster of its own: nobody leads, nothing is served, until the operator decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_that_was_formatted_again_founds_no_second_cluster_pitfall_75() {
    let mut cluster = start(3, |_| ()).await;
    let mut client = Client::new(cluster.target(), 0);
    call(&mut client, &[b"SET", b"precious", b"v"]).await;
    let survivor = cluster.wait_until_caught_up(SOON).await.unwrap();
    let wiped = [1, 2, 3].into_iter().filter(|id| *id != survivor);
    (1..=3).for_each(|id| cluster.node(id).kill());
    for id in wiped.clone() {
        fs::remove_dir_all(cluster.node(id).data_dir()).unwrap();
        cluster.node(id).command("format").unwrap();
        cluster.node(id).start().unwrap();
    }
    until("both giving up", async || wiped.clone().all(|id| cluster.node(id).has_ended())).await;
    for id in wiped.clone() {
        let said = last_lines(&cluster.node(id).log_path(), 6);
        assert!(
            said.contains("was this data directory formatted after the list was made?"),
            "{said}"
        );
    }
    // The one that has the data waits for a quorum that there is not any more, and keeps it.
    cluster.node(survivor).start().unwrap();
    until("the survivor", async || cluster.node(survivor).status().await.is_some()).await;
    let status = cluster.node(survivor).status().await.expect("it runs");
    assert!(status.leader.is_none() && status.chosen_slot > 0, "{status:?}");
}

async fn others_serve(cluster: &mut TestCluster, client: &mut Client) {
    call(client, &[b"SET", b"more", b"v"]).await;
    let running = cluster.statuses().await.into_iter().flatten().count();
    assert_eq!(running, 2);
}

/// Changes a bit in the middle of what is written in the fullest segment. Which file, and where.
fn rot(journal: &Path) -> (PathBuf, u64) {
    let files = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path());
    let written = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0)
    };
    let segment = files.filter(|path| path.is_file()).max_by_key(written).expect("a segment");
    let mut bytes = fs::read(&segment).unwrap();
    let offset = written(&segment) / 2;
    bytes[offset] ^= 1;
    fs::write(&segment, bytes).unwrap();
    (segment, offset as u64)
}
