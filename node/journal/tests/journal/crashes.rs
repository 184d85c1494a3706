//! Crashes between any two operations on the disk, and syncs that fail. PITFALLS 1, 2, 5, 7.

use journal::faulty_disk::{FailedSync, Kept, Unsynced};
use journal::{Entry, Error, FaultyDisk, Group, Journal};

use crate::support::{SMALL, append, checkpoint, create, open, shared};

/// Where a scenario had got to when the disk stopped.
#[derive(Clone, Copy, Debug)]
struct Reached {
    synced: u64,
    appended: u64,
    trimmed_below: u64,
}

/// Rolls, trims, recycles, seals and syncs, with the disk stopping after `changes` of them; says
/// how far it got, and whether it got to the end.
fn scenario(disk: &FaultyDisk, changes: u64) -> (Reached, bool) {
    let mut journal = create(disk);
    disk.stop_after(changes);
    let mut reached = Reached { synced: 1, appended: 1, trimmed_below: 1 };
    let mut work = || -> Result<(), Error> {
        for id in 1..26 {
            reached.appended = id + 1;
            append(&mut journal, id, 2, 900)?;
            if id % 3 == 0 {
                journal.sync()?;
                reached.synced = id + 1;
            }
            if id % 10 == 0 {
                reached.trimmed_below = id - 2;
                journal.trim(id - 2)?;
            }
            if id % 13 == 0 {
                journal.seal()?;
                reached.synced = id + 1;
            }
        }
        Ok(())
    };
    let done = work().is_ok();
    (reached, done)
}

fn check(disk: &FaultyDisk, reached: Reached, why: &str) {
    let (mut journal, replayed, _) = open(disk).unwrap_or_else(|error| panic!("{why}: {error}"));
    let next_id = replayed.next_id();
    assert!(next_id >= reached.synced && next_id <= reached.appended, "{why}: {replayed:?}");
    let front = replayed.checkpoints[0];
    assert!(front <= reached.trimmed_below, "{why}: starts at {front}");
    // And it goes on: through the next segments, and through another crash.
    for id in next_id..next_id + 20 {
        append(&mut journal, id, 2, 900).unwrap_or_else(|error| panic!("{why}: {error}"));
    }
    journal.sync().unwrap();
    journal.trim(next_id + 10).unwrap();
    drop(journal);
    disk.crash_keeping_nothing();
    assert_eq!(open(disk).unwrap().1.next_id(), next_id + 20, "{why}");
}

// PITFALLS 5 and 7: whatever part of names and blocks is lost.
#[test]
fn a_crash_after_each_change_of_the_disk() {
    let mut changes = 0;
    loop {
        let disk = FaultyDisk::with_block_bytes(changes, 4096);
        let (reached, done) = scenario(&disk, changes);
        for seed in 0..24 {
            let disk = disk.fork();
            disk.crash(seed);
            check(&disk, reached, &format!("stopped after {changes} changes, crash {seed}"));
        }
        let names = |keep_name: bool| {
            let disk = disk.fork();
            disk.crash_with(&mut |unsynced| match unsynced {
                Unsynced::Name { .. } => Kept::Version(usize::from(keep_name)),
                _ => Kept::Version(if keep_name { 0 } else { unsynced.versions() }),
            });
            check(&disk, reached, &format!("stopped after {changes}, names kept: {keep_name}"));
        };
        names(true);
        names(false);
        if done {
            break;
        }
        changes += 1;
    }
    assert!(changes > 60, "only {changes} changes: that is no roll and no trim");
}

#[test]
fn a_crash_after_each_change_of_a_creation() {
    for changes in 0.. {
        let disk = FaultyDisk::new(changes);
        disk.stop_after(changes);
        let done = Journal::create(shared(&disk), SMALL, &checkpoint(1)).is_ok();
        for seed in 0..16 {
            let disk = disk.fork();
            disk.crash(seed);
            match open(&disk) {
                Ok((_, replayed, _)) => assert!(replayed.ids.is_empty()),
                Err(Error::NotCreated { .. }) if !done => {}
                Err(error) => panic!("stopped after {changes}, crash {seed}: {error}"),
            }
            // `format` may be run again.
            let mut journal = create(&disk);
            append(&mut journal, 1, 1, 1).unwrap();
            journal.sync().unwrap();
            drop(journal);
            disk.crash_keeping_nothing();
            assert_eq!(open(&disk).unwrap().1.ids, [1]);
        }
        if done {
            assert!(changes > 6, "{changes}");
            return;
        }
    }
}

#[test]
fn a_crash_after_each_change_of_an_opening() {
    let disk = FaultyDisk::with_block_bytes(9, 512);
    let (mut reached, done) = scenario(&disk, u64::MAX);
    assert!(done);
    // An end to repair: four groups, the first whole, of the second one block missing.
    disk.kill();
    let (mut journal, replayed, _) = open(&disk).unwrap();
    while journal.prepare(1 << 20).unwrap() {}
    let next_id = replayed.next_id();
    for id in next_id..next_id + 4 {
        append(&mut journal, id, 1, 1_000).unwrap();
    }
    disk.stop_after(1);
    journal.sync().unwrap_err();
    drop(journal);
    let mut blocks = 0;
    disk.crash_with(&mut |_| {
        blocks += 1;
        Kept::Version(usize::from(blocks != 4))
    });
    assert_eq!(open(&disk.fork()).unwrap().1.next_id(), next_id + 1);
    (reached.synced, reached.appended) = (next_id + 1, next_id + 1);
    for changes in 0.. {
        let disk = disk.fork();
        disk.stop_after(changes);
        let done = open(&disk).is_ok();
        for seed in 0..16 {
            let disk = disk.fork();
            disk.crash(seed);
            check(&disk, reached, &format!("opening stopped after {changes}, crash {seed}"));
        }
        if done {
            assert!(changes > 3, "{changes}");
            return;
        }
    }
}

// PITFALLS 2.
#[test]
fn a_failed_sync_is_the_end_and_what_only_looked_written_is_written_anew() {
    for manner in [FailedSync::KeepsDirty, FailedSync::DropsDirty] {
        for failing in 0.. {
            let disk = FaultyDisk::new(failing);
            let mut journal = create(&disk);
            disk.fail_sync_after(failing, manner);
            let (mut id, mut synced) = (1, 1);
            let failure = loop {
                if id > 30 {
                    break None;
                }
                let result = append(&mut journal, id, 2, 900);
                id += u64::from(result.is_ok());
                match result.and_then(|()| if id % 3 == 0 { journal.sync() } else { Ok(()) }) {
                    Ok(()) => {}
                    Err(error) => break Some(error),
                }
                synced = if id % 3 == 0 { id } else { synced };
            };
            let Some(failure) = failure else {
                assert!(failing > 10, "{failing} syncs only");
                break;
            };
            assert!(failure.to_string().starts_with("sync"), "{failure}");
            for _ in 0..3 {
                assert_dead(&mut journal, id);
            }
            drop(journal);

            // The process starts again, on the cache of the same kernel: then the power goes.
            disk.kill();
            let (_, shown, _) = open(&disk).unwrap();
            assert!(shown.next_id() >= synced && shown.next_id() <= id + 1, "{shown:?}, {synced}");
            disk.crash_keeping_nothing();
            let (_, after, _) = open(&disk).unwrap();
            assert_eq!(after.next_id(), shown.next_id(), "sync {failing} failed, {manner:?}");
        }
    }
}

fn assert_dead(journal: &mut Journal, id: u64) {
    let results = [
        append(journal, id, 1, 1),
        journal.sync(),
        journal.seal().map(|_| ()),
        journal.trim(id).map(|_| ()),
        journal.prepare(1).map(|_| ()),
    ];
    for result in results {
        let message = result.unwrap_err().to_string();
        assert!(message.contains("stopped at an earlier failure (sync"), "{message}");
        assert!(message.contains("this sync was told to fail"), "{message}");
    }
    assert!(!journal.can_grow());
}

// PITFALLS 1: nothing is durable before its sync says so, and everything is after.
#[test]
fn a_crash_between_append_and_sync() {
    let disk = FaultyDisk::new(1);
    let mut journal = create(&disk);
    for id in 1..60 {
        append(&mut journal, id, 1, 400).unwrap();
        let before = disk.fork();
        before.crash_keeping_nothing();
        assert_eq!(open(&before).unwrap().1.next_id(), id, "durable before its sync");
        journal.sync().unwrap();
        let after = disk.fork();
        after.crash_keeping_nothing();
        assert_eq!(open(&after).unwrap().1.next_id(), id + 1, "lost after its sync");
    }
}

// PITFALLS 7: only a prefix goes, whatever the order of labels, and only with the checkpoint of a
// newer segment in place.
#[test]
fn trimming_stops_at_the_first_segment_that_is_needed() {
    let disk = FaultyDisk::new(1);
    let mut journal = create(&disk);
    let labels = [500, 5, 7, 400, 6, 0];
    for label in labels {
        // One segment each.
        let bytes = [1; 9_000];
        let group = Group { records: &[(label, &bytes)], checkpoint: &checkpoint(1) };
        journal.append(group).unwrap();
    }
    assert_eq!(journal.stats().segments, 6);
    assert_eq!(journal.trim(0).unwrap(), 0);
    assert_eq!(journal.trim(500).unwrap(), 0, "500 itself is needed");
    assert_eq!(journal.trim(400).unwrap(), 0);
    assert_eq!(journal.trim(501).unwrap(), 5, "all but the active one");
    assert_eq!(journal.trim(u64::MAX).unwrap(), 0, "the active one went");
    drop(journal);
    disk.crash_keeping_nothing();
    let mut seen = Vec::new();
    Journal::open(shared(&disk), SMALL, &mut |entry| {
        seen.push(matches!(entry, Entry::Record { label: 0, .. }));
        Ok(())
    })
    .unwrap();
    assert_eq!(seen, [false, true], "a checkpoint and the last record");
}

#[test]
fn one_sync_covers_everything_that_waited() {
    let disk = FaultyDisk::new(1);
    let mut journal = create(&disk);
    while journal.prepare(1 << 20).unwrap() {}
    let before = disk.counts();
    for id in 1..20 {
        append(&mut journal, id, 1, 100).unwrap();
    }
    journal.sync().unwrap();
    journal.sync().unwrap();
    let after = disk.counts();
    assert_eq!(after.data_syncs - before.data_syncs, 1);
    assert_eq!(after.changes - before.changes, 2, "one write and one sync");
}
