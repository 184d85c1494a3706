//! The journal on a directory of this machine.

use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;

use journal::{Entry, Error, Group, Journal, Options, RealDisk};

const OPTIONS: Options = Options {
    segment_bytes: 64 * 1024,
    reserve_bytes: 64 * 1024,
    group_bytes_max: 1 << 20,
    keep_free_bytes: 0,
};

/// The journal, its records, and the newest checkpoint.
type Opened = (Journal, Vec<(u64, Vec<u8>)>, Vec<u8>);

fn open(directory: &std::path::Path) -> Result<Opened, Error> {
    let disk = Arc::new(RealDisk::open(directory)?);
    let (mut records, mut checkpoint) = (Vec::new(), Vec::new());
    let (journal, _) = Journal::open(disk, OPTIONS, &mut |entry| {
        match entry {
            Entry::Checkpoint(bytes) => checkpoint = bytes.to_vec(),
            Entry::Record { label, bytes } => records.push((label, bytes.to_vec())),
        }
        Ok(())
    })?;
    Ok((journal, records, checkpoint))
}

#[test]
fn records_outlive_the_process_and_trimming_lets_the_oldest_go() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
    let mut journal = Journal::create(disk, OPTIONS, b"state 0").unwrap();
    let mut written = Vec::new();
    for label in 1..=2000_u64 {
        let bytes = vec![label as u8; (label % 200) as usize];
        let checkpoint = format!("state {label}");
        let group = Group { records: &[(label, &bytes)], checkpoint: checkpoint.as_bytes() };
        journal.append(group).unwrap();
        written.push((label, bytes));
        if label % 10 == 0 {
            journal.sync().unwrap();
        }
    }
    let segments = journal.stats().segments;
    assert!(segments > 3, "{segments} segments are too few to show anything");
    drop(journal);

    let (mut journal, records, _) = open(directory.path()).unwrap();
    assert_eq!(records, written);
    let gone = journal.trim(1500).unwrap();
    assert!(gone > 0 && gone < segments);
    drop(journal);

    let (journal, records, checkpoint) = open(directory.path()).unwrap();
    let kept_from = records[0].0;
    assert!(kept_from > 1 && kept_from <= 1500, "kept from {kept_from}");
    assert_eq!(records, written[kept_from as usize - 1..]);
    assert!(checkpoint.starts_with(b"state 1"), "{checkpoint:?}");
    assert_eq!(journal.stats().segments, segments - gone);
}

#[test]
fn a_journal_is_created_once_and_never_by_opening() {
    let directory = tempfile::tempdir().unwrap();
    let Err(Error::NotCreated { .. }) = open(directory.path()) else { panic!("opened nothing") };
    let disk = || Arc::new(RealDisk::open(directory.path()).unwrap());
    drop(Journal::create(disk(), OPTIONS, b"first try").unwrap());
    let mut journal = Journal::create(disk(), OPTIONS, b"second try").unwrap();
    journal.append(Group { records: &[(1, b"x")], checkpoint: b"" }).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let Err(error) = Journal::create(disk(), OPTIONS, b"third try") else { panic!("created") };
    assert!(error.to_string().contains("is already there and holds records"), "{error}");
    let (_, records, checkpoint) = open(directory.path()).unwrap();
    assert_eq!((records.len(), checkpoint.as_slice()), (1, &b"second try"[..]));
}

// PITFALLS 9 and 67.
#[test]
fn a_second_owner_and_a_record_that_nobody_understands_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
    let mut journal = Journal::create(disk, OPTIONS, b"").unwrap();
    journal.append(Group { records: &[(1, b"x")], checkpoint: b"" }).unwrap();
    journal.sync().unwrap();
    let Err(Error::Locked { .. }) = open(directory.path()) else { panic!("two owners") };
    drop(journal);
    let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
    let refuse = &mut |entry: Entry<'_>| match entry {
        Entry::Record { .. } => Err("gibberish".into()),
        Entry::Checkpoint(_) => Ok(()),
    };
    let Err(error) = Journal::open(disk, OPTIONS, refuse) else { panic!("accepted") };
    let message = error.to_string();
    assert!(message.contains("segment-000000000001"), "{message}");
    assert!(message.contains("at byte 4144 was refused"), "{message}");
}

/// The child of the next test: appends and syncs for ever, and tells each group that is durable.
#[test]
fn child_that_is_killed() {
    let Some(directory) = std::env::var_os("JOURNAL_CHILD_DIRECTORY") else { return };
    let disk = Arc::new(RealDisk::open(directory).unwrap());
    let mut journal = Journal::create(disk, OPTIONS, b"").unwrap();
    let mut told = std::io::stdout();
    for label in 1_u64.. {
        let bytes = vec![label as u8; (label % 999) as usize];
        journal.append(Group { records: &[(label, &bytes)], checkpoint: b"" }).unwrap();
        journal.sync().unwrap();
        writeln!(told, "durable {label}").and_then(|()| told.flush()).unwrap();
    }
}

// PITFALLS 9: the owner is named while it lives, and its death gives the directory free.
#[test]
fn what_a_killed_process_called_durable_is_there() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let directory = directory.path().join(round.to_string());
        std::fs::create_dir(&directory).unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "real_disk::child_that_is_killed", "--nocapture"])
            .env("JOURNAL_CHILD_DIRECTORY", &directory)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut durable = || {
            let line = lines.find(|line| line.as_ref().is_ok_and(|l| l.contains("durable ")))?;
            line.unwrap().rsplit(' ').next().unwrap().parse::<u64>().ok()
        };
        let wanted = 50 + 150 * round;
        while durable().unwrap() < wanted {}
        let message = open(&directory).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(&format!("process {} holds it", child.id())), "{message}");
        child.kill().unwrap();
        child.wait().unwrap();
        let last = std::iter::from_fn(durable).last().unwrap_or(wanted);
        let (_, records, _) = open(&directory).unwrap();
        assert!(records.len() as u64 >= last, "{last} were durable, {} are there", records.len());
        for (index, (label, bytes)) in records.iter().enumerate() {
            assert_eq!(*label, index as u64 + 1);
            assert_eq!(*bytes, vec![*label as u8; (label % 999) as usize]);
        }
    }
}

/// A file system in memory of this size, gone with the guard; `None` where that is not possible.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Option<SmallDisk> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(directory)),
            Ok(output) => {
                skipped(String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                skipped(&format!("mount: {error}"));
                None
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn skipped(why: &str) {
    eprintln!("skipped: a small tmpfs is needed: {why}");
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

// PITFALLS 11 and 59, on a file system of this machine.
#[test]
fn a_full_file_system_stops_growth_only_and_recovers_by_itself() {
    let Some(small) = SmallDisk::mount(2 << 20) else { return };
    let directory = small.0.path();
    let disk = Arc::new(RealDisk::open(directory).unwrap());
    let mut journal = Journal::create(disk, OPTIONS, b"").unwrap();
    while journal.prepare(1 << 20).unwrap() {}
    // Somebody else fills the rest, but for one segment and a bit.
    let rest = journal.free_bytes().unwrap() - OPTIONS.segment_bytes - 10_000;
    std::fs::write(directory.join("somebody-elses"), vec![1; rest as usize]).unwrap();

    let bytes = [3; 1000];
    let group = |label: &u64| (*label, &bytes[..]);
    let mut label = 1;
    let full = loop {
        match journal.append(Group { records: &[group(&label)], checkpoint: b"" }) {
            Ok(()) => label += 1,
            Err(error) => break error,
        }
        journal.sync().unwrap();
        assert!(label < 4000, "2 MiB hold more than 4 MB");
    };
    assert!(full.is_full() && !journal.can_grow(), "{full}");
    let must = Group { records: &[group(&label)], checkpoint: b"" };
    journal.append_reserved(must).unwrap();
    journal.sync().unwrap();
    label += 1;
    drop(journal);

    // A restart on the full disk, then space.
    let (mut journal, records, _) = open(directory).unwrap();
    assert_eq!(records.len() as u64, label - 1);
    std::fs::remove_file(directory.join("somebody-elses")).unwrap();
    assert!(journal.can_grow());
    for _ in 0..200 {
        journal.append(Group { records: &[group(&label)], checkpoint: b"" }).unwrap();
        journal.sync().unwrap();
        label += 1;
    }
    drop(journal);
    assert_eq!(open(directory).unwrap().1.len() as u64, label - 1);
}
