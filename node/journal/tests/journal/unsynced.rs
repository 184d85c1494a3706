//! Writes that no sync covered, landing in any part and order. PITFALLS 56 and 4.

use journal::faulty_disk::{Kept, Unsynced};
use journal::{Error, FaultyDisk, Journal};
use proptest::prelude::*;

use crate::support::{append, create, open};

/// Three synced groups, a seal or none, then groups of these sizes, written and not synced.
fn journal_with_a_tail(block_bytes: usize, sealed: bool, unsynced: &[usize]) -> (FaultyDisk, u64) {
    let disk = FaultyDisk::with_block_bytes(5, block_bytes);
    let mut journal = create(&disk);
    while journal.prepare(1 << 20).unwrap() {}
    for id in 1..4 {
        append(&mut journal, id, 1, 100).unwrap();
        journal.sync().unwrap();
    }
    // Behind a seal, opening writes none of its own: new groups begin where those cut began.
    if sealed {
        journal.seal().unwrap();
    }
    let mut id = 4;
    for bytes in unsynced {
        append(&mut journal, id, 1, *bytes).unwrap();
        id += 1;
    }
    disk.stop_after(1);
    assert!(matches!(journal.sync(), Err(Error::Io { .. })), "only the write went through");
    (disk, id)
}

/// Opens after a crash, and then lives on: what was cut must not come back, not even behind new
/// groups of the same size.
fn check_afterwards(disk: &FaultyDisk, bytes: &[usize], appended: u64) {
    let (mut journal, replayed, _) = open(disk).expect("an unfinished end is no corruption");
    let next_id = replayed.next_id();
    assert!((4..=appended).contains(&next_id), "{replayed:?}");
    disk.crash_keeping_nothing();
    let (_, again, _) = open(&disk.fork()).expect("what was shown is durable");
    assert_eq!(again.next_id(), next_id);
    drop(journal);

    journal = open(disk).expect("opened before").0;
    // Of the same size as the group that was cut, so that the next stale one would fit behind.
    let size = bytes.get(next_id as usize - 4).copied().unwrap_or(9);
    append(&mut journal, next_id, 1, size).unwrap();
    journal.sync().unwrap();
    drop(journal);
    disk.crash_keeping_all();
    let (_, replayed, _) = open(disk).unwrap();
    assert_eq!(replayed.next_id(), next_id + 1, "a group that was cut came back");
}

#[test]
fn every_subset_of_blocks_of_a_small_tail() {
    // Three groups over seven to nine blocks, in one write.
    let sizes = [1000, 700, 1300];
    for sealed in [false, true] {
        every_subset(&sizes, sealed);
    }
}

fn every_subset(sizes: &[usize], sealed: bool) {
    let (disk, appended) = journal_with_a_tail(512, sealed, sizes);
    let blocks = disk.unsynced().len();
    assert!((7..=10).contains(&blocks), "{:?}", disk.unsynced());
    let mut survivors = [0; 4];
    for subset in 0..1_u32 << blocks {
        let disk = disk.fork();
        let mut index = 0;
        disk.crash_with(&mut |unsynced| {
            assert!(matches!(unsynced, Unsynced::Block { .. }), "{unsynced:?}");
            index += 1;
            Kept::Version((subset >> (index - 1)) as usize & 1)
        });
        survivors[open(&disk.fork()).unwrap().1.next_id() as usize - 4] += 1;
        check_afterwards(&disk, sizes, appended);
    }
    assert!(survivors.iter().all(|count| *count > 0), "{survivors:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_part_of_any_tail(
        sizes in proptest::collection::vec(0_usize..2_000, 1..6),
        large_blocks: bool,
        sealed: bool,
        fates in proptest::collection::vec((0_u8..4, 0_usize..4_097), 40),
    ) {
        let block_bytes = if large_blocks { 4096 } else { 512 };
        let (disk, appended) = journal_with_a_tail(block_bytes, sealed, &sizes);
        let mut fates = fates.into_iter().cycle();
        disk.crash_with(&mut |unsynced| match (fates.next().unwrap(), unsynced) {
            ((0, _), _) => Kept::Version(0),
            ((1, _), _) => Kept::Version(unsynced.versions()),
            ((2, at), Unsynced::Block { versions, .. }) => Kept::Torn { head: *versions, at, tail: 0 },
            ((_, at), Unsynced::Block { versions, .. }) => Kept::Torn { head: 0, at, tail: *versions },
            _ => Kept::Version(1),
        });
        check_afterwards(&disk, &sizes, appended);
    }
}

/// Groups of one size, so that those of a file's former life stand where new ones end.
fn fill_segments(journal: &mut Journal, mut id: u64, segments: u64) -> u64 {
    let until = journal.stats().segments + segments;
    while journal.stats().segments < until {
        append(journal, id, 1, 64).unwrap();
        journal.sync().unwrap();
        id += 1;
    }
    id
}

// PITFALLS 4.
#[test]
fn the_former_life_of_a_recycled_file_stays_dead() {
    let disk = FaultyDisk::with_block_bytes(5, 512);
    let mut journal = create(&disk);
    let mut id = fill_segments(&mut journal, 1, 3);
    assert!(journal.trim(id - 1).unwrap() >= 2);
    let spares = journal.stats().spares;
    assert!(spares >= 3, "{spares} spares: nothing was recycled");
    // On through the recycled files, with a crash after every group.
    for _ in 0..400 {
        append(&mut journal, id, 1, 64).unwrap();
        journal.sync().unwrap();
        id += 1;
        drop(journal);
        let beyond = disk.fork();
        beyond.crash(id);
        assert_eq!(open(&beyond).unwrap().1.next_id(), id);
        disk.kill();
        journal = open(&disk).unwrap().0;
        if journal.stats().segments > 2 {
            journal.trim(id - 1).unwrap();
        }
    }
    let newest = journal.stats();
    drop(journal);
    let stale = (0..40)
        .map(|number| format!("segment-{number:012}"))
        .filter(|name| journal::Disk::open(&disk, name).is_ok())
        .map(|name| disk.contents(&name).chunks(8).filter(|c| c.starts_with(b"GRP1")).count())
        .sum::<usize>();
    let live = open(&disk).unwrap().1.ids.len() + newest.segments as usize;
    assert!(stale > live + 20, "{stale} groups in the files, {live} live: nothing stale was there");
}
