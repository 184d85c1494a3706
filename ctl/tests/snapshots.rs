//! Snapshots of real nodes: a file that rots, an install whose source dies, and writing for ever.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{SOON, TestCluster, call, show, start, until};
use ctl::local::last_lines;
use proof::client::{Client, Fate};
use proof::resp::Reply;

const MIB: usize = 1 << 20;
const VALUE_BYTES: usize = 8 << 10;
/// Commands that one write of a client carries.
const PIPELINE: usize = 32;

/// Small files, so that a few seconds of writing take many snapshots and trim the log many times.
async fn small_snapshots() -> TestCluster {
    start(3, |spec| {
        spec.behaviour.segment_bytes = 1 << 20;
        spec.behaviour.snapshot_every_bytes = 1 << 20;
        spec.behaviour.command_bytes_max = 256 << 10;
    })
    .await
}

/// Writes so many MiB of values over `keys` keys, one round over all of them after the other.
async fn overwrite(client: &mut Client, keys: usize, mebibytes: usize, round: u8) {
    let value = vec![round; VALUE_BYTES];
    let count = mebibytes * MIB / VALUE_BYTES;
    let mut done = 0;
    while done < count {
        let batch: Vec<_> = (done..(done + PIPELINE).min(count))
            .map(|number| {
                let key = format!("key:{}", number % keys);
                vec!["SET".into(), key.into(), value.clone().into()]
            })
            .collect();
        for (command, fate) in batch.iter().zip(client.run(&batch).await) {
            match fate {
                Fate::Done(_) => done += 1,
                // Setting the same value twice does no harm.
                Fate::Refused(_) | Fate::Unknown(_) => {
                    let words: Vec<&[u8]> = command.iter().map(|word| &word[..]).collect();
                    assert_eq!(call(client, &words).await, Reply::Simple("OK".into()));
                    done += 1;
                }
            }
        }
    }
}

/// Complete snapshot files, oldest first.
fn snapshots(data_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_dir.join("snapshots")).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("snapshot-") && !name.ends_with(".part")
    });
    files.sort();
    files
}

fn slot_of(snapshot: &Path) -> u64 {
    let name = snapshot.file_name().unwrap().to_str().unwrap();
    name.rsplit('-').next().unwrap().parse().unwrap()
}

fn rot(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Every file below `directory`. A file that goes meanwhile does not count.
fn bytes_below(directory: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        sum += if metadata.is_dir() { bytes_below(&entry.path()) } else { metadata.len() };
    }
    sum
}

fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// `node` counts: with another one down, writes need it.
async fn is_needed_and_there(cluster: &mut TestCluster, node: u32) {
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let other = node % 3 + 1;
    cluster.node(other).kill();
    let mut client = Client::new(cluster.target(), 0);
    overwrite(&mut client, 50, 1, b'n').await;
    cluster.node(other).start().unwrap();
    cluster.wait_until_caught_up(SOON).await.unwrap();
}

/// The newest snapshot rots while its node is down, and the log behind the one before is whole: the
/// node starts next to its peers, none of which takes it for an older copy, and is fully replicated
/// again (PITFALLS 7, 10).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_newest_snapshot_falls_back_to_the_one_before() {
    let mut cluster = small_snapshots().await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let victim = leader % 3 + 1;
    let data_dir = cluster.node(victim).data_dir();
    let mut client = Client::new(cluster.target(), 0);
    until("two snapshots", async || {
        overwrite(&mut client, 50, 1, b'a').await;
        snapshots(&data_dir).len() == 2
    })
    .await;
    cluster.wait_until_caught_up(SOON).await.unwrap();
    cluster.node(victim).kill();
    let files = snapshots(&data_dir);
    let newest = files.last().unwrap();
    rot(newest);
    cluster.node(victim).start().unwrap();
    is_needed_and_there(&mut cluster, victim).await;
    let log = fs::read_to_string(cluster.node(victim).log_path()).unwrap();
    assert!(log.contains("a snapshot is bad, trying the one before"), "{log}");
    let name = newest.file_name().unwrap().to_str().unwrap();
    assert!(log.contains(name), "the bad file is named: {log}");
}

/// The same of a snapshot that a peer had sent, with nothing chosen since: the log behind the one
/// before is not here, and nothing but the journal's word says how far this node was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_installed_snapshot_makes_no_older_copy() {
    let mut cluster = small_snapshots().await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let victim = leader % 3 + 1;
    let data_dir = cluster.node(victim).data_dir();
    let mut client = Client::new(cluster.target(), 0);
    until("a snapshot of its own", async || {
        overwrite(&mut client, 50, 1, b'a').await;
        !snapshots(&data_dir).is_empty()
    })
    .await;
    cluster.wait_until_caught_up(SOON).await.unwrap();
    cluster.node(victim).kill();
    let own = slot_of(snapshots(&data_dir).last().unwrap());
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let last_slot = cluster.node(leader).status().await.unwrap().chosen_slot;
    until("the others' trimming what it lacks", async || {
        overwrite(&mut client, 50, 1, b'b').await;
        let statuses = cluster.statuses().await;
        let kept = statuses.iter().flatten().map(|status| status.first_kept_slot);
        kept.filter(|first_kept| *first_kept > last_slot + 1).count() == 2
    })
    .await;
    // It takes none of its own any more.
    let config = cluster.node(victim).config_path();
    let text = fs::read_to_string(&config).unwrap();
    let every = "snapshot_every_bytes = ";
    assert!(text.contains(every), "{text}");
    fs::write(&config, text.replace(&format!("{every}{MIB}"), &format!("{every}{}", MIB << 20)))
        .unwrap();
    cluster.node(victim).start().unwrap();
    cluster.wait_until_caught_up(SOON).await.unwrap();
    // Long enough for it to tell its peers what it remembers, which it does twice a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.node(victim).kill();
    let log = fs::read_to_string(cluster.node(victim).log_path()).unwrap();
    let files = snapshots(&data_dir);
    let [_, installed] = &files[..] else { panic!("two files are kept: {files:?}") };
    // The one before may be its own or another that was installed: what the log lacks is the same.
    assert!(slot_of(installed) > own && log.contains("snapshot installed"), "{files:?}: {log}");
    rot(installed);
    cluster.node(victim).start().unwrap();
    // Nothing is written: what it lacks, it gets for the asking, or not at all.
    let caught_up = cluster.wait_until_caught_up(SOON).await;
    let log = fs::read_to_string(cluster.node(victim).log_path()).unwrap();
    assert!(log.contains("a snapshot is bad, trying the one before"), "{log}");
    if let Err(error) = caught_up {
        panic!("{error}\n{}", last_lines(&cluster.node(victim).log_path(), 20));
    }
    is_needed_and_there(&mut cluster, victim).await;
}

/// The newest file of both others rots while they run: neither sends it, and the node that needs one is
/// brought up all the same (PITFALLS 6, 68).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_file_is_not_sent() {
    let mut cluster = small_snapshots().await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let victim = leader % 3 + 1;
    let others = [leader, victim % 3 + 1];
    let mut client = Client::new(cluster.target(), 0);
    cluster.node(victim).kill();
    let last_slot = cluster.node(leader).status().await.unwrap().chosen_slot;
    until("the others' trimming what it lacks", async || {
        overwrite(&mut client, 50, 1, b'a').await;
        let statuses = cluster.statuses().await;
        let mut kept = statuses.iter().flatten().map(|status| status.first_kept_slot);
        kept.all(|first_kept| first_kept > last_slot + 1)
    })
    .await;
    // Nothing is written any more, so what is newest now stays it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rotten: Vec<PathBuf> = others
        .iter()
        .map(|id| snapshots(&cluster.node(*id).data_dir()).pop().expect("a snapshot"))
        .collect();
    rotten.iter().for_each(|file| rot(file));
    cluster.node(victim).start().unwrap();
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let log = |id: u32| fs::read_to_string(cluster.nodes[id as usize - 1].log_path()).unwrap();
    let found = others.iter().filter(|id| log(**id).contains("a snapshot is bad: it is not sent"));
    assert!(found.count() > 0, "nobody looked: {}", log(leader));
    assert!(!log(victim).contains("receive a snapshot"), "{}", log(victim));
    is_needed_and_there(&mut cluster, victim).await;
    cluster.nobody_died().unwrap();
}

/// PITFALLS 70: what a node in the middle of an install has is no copy of anything. The leader, who
/// sends it, dies half-way: the third has it all, and the install goes on from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_the_middle_of_an_install_is_no_copy() {
    const KEYS: usize = 4_096;
    let mut cluster = small_snapshots().await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let victim = leader % 3 + 1;
    let third = victim % 3 + 1;
    let incoming = cluster.node(victim).data_dir().join("snapshots");
    let is_installing = || {
        let names = fs::read_dir(&incoming).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name()).any(|name| {
            let name = name.to_string_lossy().into_owned();
            name.starts_with("incoming-")
        })
    };
    let data_dir = cluster.node(victim).data_dir();
    let newest = || snapshots(&data_dir).last().map_or(0, |file| slot_of(file));
    cluster.node(victim).kill();
    let mut client = Client::new(cluster.target(), 0);
    let mut was_cut = 0;
    for round in 0..8 {
        // Large enough to be under way for a while; both others trim meanwhile, and go on trimming.
        overwrite(&mut client, KEYS, KEYS * VALUE_BYTES / MIB, b'0' + round).await;
        let source = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
        let had = newest();
        cluster.node(victim).start().unwrap();
        // It may be over before anybody looks: then the next round has to do.
        let deadline = tokio::time::Instant::now() + SOON;
        while !is_installing() && newest() <= had {
            assert!(tokio::time::Instant::now() < deadline, "nothing was installed");
            std::thread::sleep(Duration::from_micros(50));
        }
        // It stands still, so that it is in the middle for sure.
        cluster.node(victim).pause();
        was_cut += u32::from(is_installing());
        cluster.node(source).kill();
        cluster.node(victim).resume();
        // The third and the one that installs are all there is, and a quorum.
        until("a new leader", async || cluster.leader().await.is_some_and(|id| id != source)).await;
        overwrite(&mut client, 10, 1, b'0' + round).await;
        for key in (0..KEYS).step_by(97) {
            let name = format!("key:{key}");
            let read = call(&mut client, &[b"GET", name.as_bytes()]).await;
            assert_eq!(read, Reply::Bulk(vec![b'0' + round; VALUE_BYTES].into()), "{name}");
        }
        cluster.wait_until_caught_up(SOON).await.unwrap();
        cluster.node(source).start().unwrap();
        cluster.wait_until_caught_up(SOON).await.unwrap();
        if was_cut == 2 {
            break;
        }
        cluster.node(victim).kill();
    }
    show(&format!("n{victim} lost its source {was_cut} times in the middle; n{third} had it all"));
    assert!(was_cut > 0, "no install was cut: the fault never acted");
    cluster.nobody_died().unwrap();
}

/// PITFALLS 71: the others do not keep their log for a node that is dead. It costs a bounded disk,
/// and a snapshot when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_peer_does_not_pin_the_log() {
    const KEYS: usize = 100;
    const WRITTEN_MIB: usize = 8;
    let mut cluster = small_snapshots().await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let dead = leader % 3 + 1;
    cluster.node(dead).kill();
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let last_slot = cluster.node(leader).status().await.unwrap().chosen_slot;
    let mut client = Client::new(cluster.target(), 0);
    overwrite(&mut client, KEYS, WRITTEN_MIB, b'd').await;
    until("logs that let go of what the dead one lacks", async || {
        overwrite(&mut client, KEYS, 1, b'e').await;
        let statuses = cluster.statuses().await;
        let kept = statuses.iter().flatten().map(|status| status.first_kept_slot);
        kept.filter(|first_kept| *first_kept > last_slot + 1).count() == 2
    })
    .await;
    cluster.node(dead).start().unwrap();
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let status = cluster.node(dead).status().await.expect("it runs");
    assert!(status.snapshot_slot > 0, "what it missed was nowhere but in a snapshot");
}

/// Two hours' worth of overwrites, as a cluster writes that fills a snapshot every few minutes: what
/// a node holds in memory and on disk is the same after a few snapshots and after many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_overwrites_leave_memory_and_disk_flat() {
    const KEYS: usize = 100;
    const STRETCHES: u64 = 6;
    const SNAPSHOTS_A_STRETCH: u64 = 4;
    let mut cluster = small_snapshots().await;
    let mut client = Client::new(cluster.target(), 0);
    let dirs: Vec<PathBuf> = cluster.nodes.iter().map(|node| node.data_dir()).collect();
    let newest = |dir: &PathBuf| snapshots(dir).last().map_or(0, |file| slot_of(file));
    let mut seen = vec![(0, 0); dirs.len()];
    let mut figures = Vec::new();
    let mut written_mib = 0;
    // Peaks of each stretch, sampled between writes: memory, journal, snapshots, of any node.
    for stretch in 1..=STRETCHES {
        let mut peak = [0; 3];
        while seen.iter().any(|(_, taken)| *taken < stretch * SNAPSHOTS_A_STRETCH) {
            overwrite(&mut client, KEYS, 8, b'a' + stretch as u8).await;
            written_mib += 8;
            // Writers that run ahead of a loaded machine's snapshots say nothing about what is kept.
            until("a snapshot on each node", async || {
                seen.iter().zip(&dirs).all(|(seen, dir)| newest(dir) > seen.0)
            })
            .await;
            for ((node, dir), seen) in cluster.nodes.iter().zip(&dirs).zip(&mut seen) {
                let now = [
                    resident_bytes(node.pid().unwrap()),
                    bytes_below(&dir.join("journal")),
                    bytes_below(&dir.join("snapshots")),
                ];
                for (peak, now) in peak.iter_mut().zip(now) {
                    *peak = (*peak).max(now);
                }
                let slot = newest(dir);
                if slot > seen.0 {
                    *seen = (slot, seen.1 + 1);
                }
            }
        }
        figures.push(peak);
    }
    show(&format!(
        "{written_mib} MiB over {} KiB of keys, {} snapshots on each node; peaks of memory, journal, \
         snapshots in KiB: {:?}",
        (KEYS * VALUE_BYTES) >> 10,
        STRETCHES * SNAPSHOTS_A_STRETCH,
        figures.iter().map(|peak| peak.map(|bytes| bytes >> 10)).collect::<Vec<_>>()
    ));
    // The first two stretches warm up: how far writers run ahead of a snapshot depends on the machine.
    // A node that kept what it should let go of would have grown since by all that was written.
    let written = written_mib * MIB as u64 * (STRETCHES - 2) / STRETCHES;
    let slack = [written / 2, written / 3, 8 << 20];
    assert!(written > 60 << 20, "{written} bytes are too few to show anything");
    let warm: Vec<u64> = (0..3).map(|kind| figures[0][kind].max(figures[1][kind])).collect();
    for peak in &figures[2..] {
        for ((peak, warm), slack) in peak.iter().zip(&warm).zip(slack) {
            assert!(*peak <= warm + slack, "it grows: {figures:?}");
        }
    }
    cluster.wait_until_caught_up(SOON).await.unwrap();
    cluster.nobody_died().unwrap();
}
