//! A disk without space: nothing is lost, nothing is stuck, and it goes on by itself.
//! PITFALLS 11, 59 and 66.

use journal::{Error, FaultyDisk, Journal, Options};

use crate::support::{SMALL, append, append_by, checkpoint, create, open, shared};

/// Appends and syncs until there is no space or enough was written; says which group is next.
fn fill(journal: &mut Journal, mut id: u64, until: u64) -> (u64, bool) {
    while id < until {
        match append(journal, id, 1, 900) {
            Ok(()) => id += 1,
            Err(Error::Full { .. }) => return (id, true),
            Err(error) => panic!("group {id}: {error}"),
        }
        match journal.sync() {
            Ok(()) => {}
            Err(Error::Full { .. }) => return (id, true),
            Err(error) => panic!("sync of group {id}: {error}"),
        }
    }
    (id, false)
}

/// A journal that met a full disk at any point goes on as soon as there is space, in the same
/// process and after a crash.
fn check_recovery(disk: &FaultyDisk, journal: Journal, id: u64, why: &str) {
    let mut journal = journal;
    let crashed = disk.fork();
    crashed.crash(id);
    let opened = match open(&crashed) {
        // Where even old bytes cannot be written, opening has to wait too, and says so.
        Err(Error::Full { .. }) => {
            crashed.kill();
            crashed.set_write_allowance(None);
            open(&crashed)
        }
        opened => opened,
    };
    let (_, replayed, _) = opened.unwrap_or_else(|error| panic!("{why}: {error}"));
    assert!([id - 1, id].contains(&replayed.next_id()), "{why}: {replayed:?}, next is {id}");

    disk.set_capacity(None);
    disk.set_write_allowance(None);
    disk.claim_free(None);
    let (end, full) = fill(&mut journal, id, id + 40);
    assert!(!full && end == id + 40, "{why}: still full with space at {end}");
    assert!(journal.can_grow());
    drop(journal);
    disk.crash_keeping_nothing();
    assert_eq!(open(disk).unwrap().1.next_id(), id + 40, "{why}");
}

// Files grow only while they are filled with zeroes, so this is every byte of that.
#[test]
fn space_ends_at_each_byte_of_a_new_file() {
    let steps = (0..600).chain((600..40_000).step_by(193)).chain(16_300..16_400);
    let mut met = 0;
    for room in steps {
        let disk = FaultyDisk::new(room);
        let mut journal = create(&disk);
        disk.set_capacity(Some(disk.used_bytes() + room));
        // Somebody else takes the space between the question and the write.
        disk.claim_free(Some(1 << 30));
        let (id, full) = fill(&mut journal, 1, 40);
        met += u64::from(full);
        check_recovery(&disk, journal, id, &format!("{room} bytes left"));
    }
    assert!(met > 300, "full {met} times only");
}

// A file system that copies on write may be full at any byte of any write.
#[test]
fn space_ends_at_each_byte_of_a_write() {
    let steps = (0..1_100).chain((1_100..30_000).step_by(71));
    let mut met = 0;
    for allowance in steps {
        let disk = FaultyDisk::with_block_bytes(allowance, 512);
        let mut journal = create(&disk);
        disk.set_write_allowance(Some(allowance));
        let (id, full) = fill(&mut journal, 1, 40);
        met += u64::from(full);
        check_recovery(&disk, journal, id, &format!("{allowance} bytes more"));
    }
    assert!(met > 1_000, "full {met} times only");
}

#[test]
fn space_ends_at_each_byte_of_a_creation() {
    for room in (0..300).chain((300..40_000).step_by(97)) {
        let disk = FaultyDisk::new(room);
        disk.set_capacity(Some(room));
        disk.claim_free(Some(1 << 30));
        match Journal::create(shared(&disk), SMALL, &checkpoint(1)) {
            Ok(_) => assert!(room >= SMALL.segment_bytes),
            Err(Error::Full { .. }) => {}
            Err(error) => panic!("{room} bytes: {error}"),
        }
        disk.set_capacity(None);
        drop(create(&disk));
    }
}

#[test]
fn the_reserve_lets_promises_pass_and_trimming_brings_the_space_back() {
    let options = Options { reserve_bytes: 2 * SMALL.segment_bytes, ..SMALL };
    let disk = FaultyDisk::new(7);
    let mut journal = Journal::create(shared(&disk), options, &checkpoint(1)).unwrap();
    while journal.prepare(1 << 20).unwrap() {}
    disk.set_capacity(Some(8 * SMALL.segment_bytes));
    let mut id = 1;
    while journal.can_grow() {
        append(&mut journal, id, 1, 300).unwrap();
        id += 1;
    }
    journal.sync().unwrap();
    assert!(journal.stats().reserve_is_whole);
    // What was accepted before the question still fits.
    let warned_at = id;
    let error = loop {
        match append(&mut journal, id, 1, 300) {
            Ok(()) => id += 1,
            Err(error) => break error,
        }
    };
    assert!(id > warned_at + 4, "full {} groups after the warning", id - warned_at);
    assert!(error.is_full() && error.to_string().contains("no space left"), "{error}");
    assert!(journal.stats().reserve_is_whole, "ordinary groups lived on the reserve");

    // Two segments of promises.
    let mut promises = 0;
    while append_by(Journal::append_reserved, &mut journal, id, 1, 300).is_ok() {
        journal.sync().unwrap();
        id += 1;
        promises += 1;
    }
    assert!(promises > 50, "{promises} promises in the whole reserve");
    let crashed = disk.fork();
    crashed.crash_keeping_nothing();
    assert_eq!(open(&crashed).unwrap().1.next_id(), id);

    // The disk is as full as before; what the snapshot covers goes.
    assert!(!journal.can_grow());
    assert!(journal.trim(id - 1).unwrap() > 4);
    assert!(journal.can_grow() && journal.stats().reserve_is_whole);
    let (_, full) = fill(&mut journal, id, id + 12);
    assert!(!full);
}

// The last way out of a full disk must not need space: a trim that finds the segment full to the
// brim, the reserve used up, and nothing to roll into.
#[test]
fn a_trim_works_when_nothing_else_does() {
    for last_bytes in 0..200 {
        let disk = FaultyDisk::new(7);
        let mut journal = create(&disk);
        while journal.prepare(1 << 20).unwrap() {}
        disk.set_capacity(Some(disk.used_bytes()));
        let mut id = 1;
        // Towards the end in smaller and smaller groups.
        for bytes in [1_000, last_bytes, 0] {
            while append_by(Journal::append_reserved, &mut journal, id, 1, bytes).is_ok() {
                id += 1;
            }
        }
        journal.seal().unwrap();
        assert_eq!((journal.stats().spares, journal.can_grow()), (0, false));
        drop(journal);
        disk.kill();
        let (mut journal, replayed, _) = open(&disk).unwrap();
        assert_eq!(replayed.next_id(), id);
        journal.seal().unwrap();
        assert!(journal.trim(replayed.checkpoints[2]).unwrap() > 0, "wedged, {last_bytes}");
        journal.seal().unwrap();
        append(&mut journal, id, 1, 10).unwrap();
        journal.sync().unwrap();
        drop(journal);
        disk.crash_keeping_nothing();
        assert_eq!(open(&disk).unwrap().1.next_id(), id + 1);
    }
}

#[test]
fn a_full_disk_is_not_filled_with_useless_halves() {
    let disk = FaultyDisk::new(7);
    let mut journal = create(&disk);
    while journal.prepare(1 << 20).unwrap() {}
    let before = disk.used_bytes();
    disk.set_capacity(Some(before + 9_000));
    disk.claim_free(Some(1 << 30));
    let (_, full) = fill(&mut journal, 1, 1_000);
    assert!(full);
    assert_eq!(disk.used_bytes(), before, "a half-filled file keeps space from others");
}

// PITFALLS 66.
#[test]
fn a_group_larger_than_a_segment_gets_its_own_and_one_over_the_limit_is_refused() {
    let disk = FaultyDisk::new(7);
    let mut journal = create(&disk);
    append(&mut journal, 1, 1, 10).unwrap();
    // Header, the record's label and length, and our 24 bytes in front of the body.
    let frame = 48 + 12 + 24;
    for (id, bytes) in [(2, 16 * 1024), (3, SMALL.group_bytes_max as usize - frame)] {
        append(&mut journal, id, 1, bytes).unwrap();
    }
    let before = disk.counts().changes;
    let error = append(&mut journal, 4, 1, SMALL.group_bytes_max as usize - frame + 1).unwrap_err();
    assert_eq!(error.to_string(), "append a group of 65544 bytes: the limit is 65536");
    assert_eq!(disk.counts().changes, before, "something was written for it");
    // It goes on, and the odd file does not stay.
    append(&mut journal, 4, 1, 10).unwrap();
    journal.sync().unwrap();
    for id in 5..9 {
        append(&mut journal, id, 1, 9_000).unwrap();
    }
    journal.sync().unwrap();
    drop(journal);
    disk.crash_keeping_nothing();
    let (mut journal, replayed, _) = open(&disk.fork()).unwrap();
    assert_eq!(replayed.ids, [1, 2, 3, 4, 5, 6, 7, 8]);
    drop(journal);
    journal = open(&disk).unwrap().0;
    journal.trim(5).unwrap();
    let stats = journal.stats();
    assert_eq!(stats.bytes, (stats.segments + stats.spares) * SMALL.segment_bytes, "{stats:?}");
}
