//! How fast the journal is on this machine, beside the floor that the disk sets: the same bytes
//! written to a bare file of zeroes, with a sync after each group.
//!
//! `cargo run -p journal --example throughput --release [directory]` (default: a directory in the
//! current one, removed afterwards). About ten seconds; the last column is groups of which each
//! was synced.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use journal::{Disk, Entry, Group, Journal, Options, RealDisk};

const RUN: Duration = Duration::from_millis(1500);
const RECORD_BYTES: usize = 100;

#[expect(clippy::print_stdout, reason = "a program for people to read")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let directory = parent.join(format!("throughput-{}", std::process::id()));
    println!("{:<34} {:>12} {:>10} {:>10} {:>12}", "", "records/s", "p50 us", "p99 us", "groups/s");
    for records in [1, 16, 256] {
        let label = |what: &str| format!("{what}, {records} x {RECORD_BYTES} B a sync");
        show(&label("bare file"), records, bare(&directory.join("bare"), records)?);
        show(&label("journal"), records, journal(&directory.join("journal"), records)?);
    }
    println!("\n{}", replay(&directory.join("journal"))?);
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a program for people to read")]
fn show(what: &str, records: usize, mut took: Vec<Duration>) {
    took.sort_unstable();
    let total: Duration = took.iter().sum();
    let groups = took.len() as f64 / total.as_secs_f64();
    let percentile = |percent: usize| took[took.len() * percent / 100].as_secs_f64() * 1e6;
    println!(
        "{what:<34} {:>12.0} {:>10.0} {:>10.0} {groups:>12.0}",
        groups * records as f64,
        percentile(50),
        percentile(99)
    );
}

/// How long each round of `work` takes, for a while.
fn repeat(
    mut work: impl FnMut() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    let begin = Instant::now();
    let mut took = Vec::new();
    while begin.elapsed() < RUN {
        let start = Instant::now();
        work()?;
        took.push(start.elapsed());
    }
    Ok(took)
}

fn bare(directory: &Path, records: usize) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    const FILE_BYTES: u64 = 64 << 20;
    let disk = RealDisk::create(directory)?;
    let file = disk.create("bare")?;
    file.preallocate(0, FILE_BYTES)?;
    file.sync_data()?;
    let group = vec![7; records * RECORD_BYTES];
    let mut offset = 0;
    let took = repeat(|| {
        file.write_at(offset, &group)?;
        file.sync_data()?;
        offset = (offset + group.len() as u64) % (FILE_BYTES - group.len() as u64);
        Ok(())
    })?;
    disk.remove("bare")?;
    Ok(took)
}

fn journal(directory: &Path, records: usize) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    let disk = Arc::new(RealDisk::create(directory)?);
    let mut journal = Journal::create(disk, Options::default(), b"checkpoint")?;
    let record = [7; RECORD_BYTES];
    let mut label = 0;
    repeat(|| {
        label += 1;
        let group: Vec<(u64, &[u8])> = vec![(label, &record); records];
        journal.append(Group { records: &group, checkpoint: b"checkpoint" })?;
        journal.sync()?;
        // As a node does that takes a snapshot now and then.
        if label % 10_000 == 0 {
            journal.trim(label - 5_000)?;
        }
        Ok(())
    })
}

fn replay(directory: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let disk = Arc::new(RealDisk::open(directory)?);
    let start = Instant::now();
    let mut bytes = 0;
    let (_, recovery) = Journal::open(disk, Options::default(), &mut |entry| {
        if let Entry::Record { bytes: record, .. } = entry {
            bytes += record.len();
        }
        Ok(())
    })?;
    let took = start.elapsed().as_secs_f64();
    let (records, segments) = (recovery.records, recovery.segments);
    let rate = bytes as f64 / 1e6 / took;
    Ok(format!("replay: {records} records in {segments} segments, {took:.3} s, {rate:.0} MB/s"))
}
