//! The journal on a directory of this machine.

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
