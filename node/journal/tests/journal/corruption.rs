//! Damaged bytes: what a sync covered is refused, with file and offset; what none covered is cut.
//! PITFALLS 3, 58 and 61.

use journal::{Error, FaultyDisk};

use crate::support::{append, create, everything, open, refusal};

/// A disk with one closed segment and one that groups are being appended to, and where the groups
/// of the second stand.
struct Sample {
    disk: FaultyDisk,
    closed: &'static str,
    active: &'static str,
    /// Start of each group of the active segment, the checkpoint first, and the end of the last.
    starts: Vec<u64>,
    /// The first group in the active segment.
    first_id: u64,
}

fn sample() -> Sample {
    let disk = FaultyDisk::new(3);
    let mut journal = create(&disk);
    let mut id = 1;
    while journal.stats().segments < 2 {
        append(&mut journal, id, 2, 700).unwrap();
        journal.sync().unwrap();
        id += 1;
    }
    let first_id = id - 1;
    for bytes in [10, 0, 33] {
        append(&mut journal, id, 2, bytes).unwrap();
        journal.sync().unwrap();
        id += 1;
    }
    drop(journal);
    disk.crash_keeping_nothing();
    let active = "segment-000000000002";
    let contents = disk.contents(active);
    let mut starts = vec![4096];
    loop {
        let at = *starts.last().unwrap() as usize;
        if &contents[at..at + 4] != b"GRP1" {
            break;
        }
        let body_bytes = u32::from_le_bytes(contents[at + 8..at + 12].try_into().unwrap());
        starts.push((at as u64 + 48 + u64::from(body_bytes)).next_multiple_of(8));
    }
    assert_eq!(starts.len(), 6, "checkpoint and four groups at {starts:?}");
    Sample { disk, closed: "segment-000000000001", active, starts, first_id }
}

/// Opening must fail with `Corrupt`, name the file, and change nothing.
fn assert_refused(disk: &FaultyDisk, name: &str, why: &str) -> u64 {
    let before = everything(disk);
    let error = refusal(disk, why);
    let Error::Corrupt { file, offset, .. } = &error else { panic!("{why}: {error}") };
    assert!(file.ends_with(name), "{why}: {error}");
    assert!(before == everything(disk), "{why}: something was written after {error}");
    *offset
}

#[test]
fn each_flipped_byte_before_the_tail_is_refused_and_in_the_tail_is_cut() {
    let Sample { disk, active, starts, first_id, .. } = sample();
    let (tail, end) = (starts[4], starts[5]);
    for at in (0..60).chain(4096..end) {
        let disk = disk.fork();
        disk.flip(active, at, 0xff);
        let why = format!("byte {at} of {active} flipped");
        if at < tail {
            let group = starts.iter().rev().find(|start| **start <= at);
            // Padding is not looked at.
            if let Some(group) = group
                && open(&disk).is_ok()
            {
                let next = starts.iter().find(|start| *start > group).unwrap();
                assert!(at + 8 > *next, "{why}, and nobody saw it");
                assert_eq!(open(&disk).unwrap().1.next_id(), first_id + 4, "{why}");
                continue;
            }
            assert_eq!(assert_refused(&disk, active, &why), group.copied().unwrap_or(0), "{why}");
        } else {
            let (_, replayed, recovery) =
                open(&disk).unwrap_or_else(|error| panic!("{why}: {error}"));
            let kept = first_id + 3 + u64::from(recovery.cut.is_none() && at + 8 > end);
            assert!([first_id + 3, kept].contains(&replayed.next_id()), "{why}: {replayed:?}");
        }
    }
}

#[test]
fn each_cut_zeroes_the_tail_only() {
    let Sample { disk, active, starts, first_id, .. } = sample();
    let end = *starts.last().unwrap();
    let len = disk.contents(active).len();
    for at in 4096..=end {
        // Lost from here to the end, as after writes that never landed.
        let zeroed = disk.fork();
        zeroed.overwrite(active, at, &vec![0; len - at as usize]);
        if at < starts[1] - 8 {
            assert_refused(&zeroed, active, &format!("all zero from {at} on"));
        } else if at >= starts[1] {
            let (_, replayed, _) = open(&zeroed).unwrap();
            let whole = starts[2..].iter().filter(|end| **end <= at).count() as u64;
            // The last bytes of a group may be padding, or zero anyway.
            let found = replayed.next_id() - first_id;
            assert!(found == whole || found == whole + 1, "zero from {at}: {found}, {whole} whole");
        }
        // A file that lost its end is no crash: segments have their full size from the start.
        let short = disk.fork();
        short.truncate(active, at);
        assert_refused(&short, active, &format!("cut to {at} bytes"));
    }
}

#[test]
fn a_hole_before_synced_groups_is_corruption_wherever_it_is() {
    let Sample { disk, active, starts, .. } = sample();
    for pair in starts[..5].windows(2) {
        for at in (pair[0]..pair[1] - 8).step_by(8) {
            let disk = disk.fork();
            disk.overwrite(active, at, &vec![0; (pair[1] - at) as usize]);
            let why = format!("zeroes in {at}..{}", pair[1]);
            assert_eq!(assert_refused(&disk, active, &why), pair[0], "{why}");
        }
    }
}

#[test]
fn a_closed_segment_has_no_tail() {
    let Sample { disk, closed, .. } = sample();
    let contents = disk.contents(closed);
    let end = contents.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let mut refused = 0;
    for at in (0..60).chain((4096..end).step_by(7)) {
        let disk = disk.fork();
        disk.flip(closed, at, 0x10);
        // Only padding may go unseen.
        if contents[at as usize] == 0 && open(&disk).is_ok() {
            continue;
        }
        assert_refused(&disk, closed, &format!("byte {at} of {closed} flipped"));
        refused += 1;
    }
    assert!(refused > 1000, "{refused}");
}

// After opening and in idle moments nothing is in doubt, not even the last group.
#[test]
fn a_seal_ends_the_doubt_about_the_last_group() {
    let Sample { disk, active, starts, first_id, .. } = sample();
    let last = starts[4];
    let doubtful = disk.fork();
    doubtful.flip(active, last + 60, 1);
    assert_eq!(open(&doubtful).unwrap().1.next_id(), first_id + 3);

    let (journal, _, _) = open(&disk).unwrap();
    drop(journal);
    disk.crash_keeping_nothing();
    let reopened = disk.fork();
    reopened.flip(active, last + 60, 1);
    assert_eq!(assert_refused(&reopened, active, "rot after a seal"), last);

    let (mut journal, replayed, _) = open(&disk).unwrap();
    append(&mut journal, replayed.next_id(), 1, 5).unwrap();
    assert!(journal.seal().unwrap());
    assert!(!journal.seal().unwrap(), "sealed twice without anything new");
    drop(journal);
    disk.crash_keeping_nothing();
    let contents = disk.contents(active);
    let rotten = contents.iter().rposition(|byte| *byte == 4).unwrap() as u64;
    disk.flip(active, rotten.min(last + 200), 1);
    assert_refused(&disk, active, "rot after a seal when idle");
}

#[test]
fn a_seal_costs_nothing_when_nothing_happened() {
    let disk = FaultyDisk::new(3);
    let mut journal = create(&disk);
    append(&mut journal, 1, 1, 1).unwrap();
    journal.seal().unwrap();
    drop(journal);
    disk.kill();
    drop(open(&disk).unwrap());
    let before = everything(&disk);
    for _ in 0..100 {
        disk.kill();
        let (mut journal, _, _) = open(&disk).unwrap();
        assert!(!journal.seal().unwrap());
        journal.sync().unwrap();
    }
    assert!(before == everything(&disk), "a hundred restarts used up space");
}

#[test]
fn a_missing_segment_and_a_foreign_one_are_refused() {
    use journal::Disk;
    let Sample { disk, closed, active, .. } = sample();
    let lost = disk.fork();
    lost.remove(closed).unwrap();
    let message = refusal(&lost, "without its first segment").to_string();
    assert!(message.contains(closed) && message.contains("is missing"), "{message}");
    assert!(message.contains(active), "{message}");

    let lost = disk.fork();
    lost.remove(active).unwrap();
    let message = refusal(&lost, "without its newest segment").to_string();
    assert!(message.contains(active) && message.contains("is missing"), "{message}");

    let swapped = disk.fork();
    swapped.remove(active).unwrap();
    swapped.rename(closed, active).unwrap();
    let message = refusal(&swapped, "a segment under another name").to_string();
    assert!(message.contains("the header of segment 1"), "{message}");

    let gone = disk.fork();
    gone.remove(active).unwrap();
    gone.remove(closed).unwrap();
    assert!(matches!(refusal(&gone, "nothing there"), Error::NotCreated { .. }));
}

#[test]
fn a_newer_format_is_named_and_left_alone() {
    let Sample { disk, active, .. } = sample();
    let mut page = disk.contents(active)[..60].to_vec();
    page[8] = 9;
    let crc = crc32fast::hash(&page[..56]);
    page[56..60].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite(active, 0, &page);
    let before = everything(&disk);
    let message = refusal(&disk, "format 9").to_string();
    assert!(message.contains("format version 9, but this release writes and reads 1"), "{message}");
    assert!(before == everything(&disk));
}

// PITFALLS 58: found by the fuzzer. Whoever wrote that, nothing may be let go of on its word: a segment
// that says that only later ones are needed would go itself.
#[test]
fn a_header_that_needs_later_segments_only_lets_go_of_nothing() {
    for first in [0_u64, 1_000, u64::MAX] {
        let Sample { disk, active, .. } = sample();
        let mut page = disk.contents(active)[..60].to_vec();
        page[48..56].copy_from_slice(&first.to_le_bytes());
        let crc = crc32fast::hash(&page[..56]);
        page[56..60].copy_from_slice(&crc.to_le_bytes());
        disk.overwrite(active, 0, &page);
        let before = everything(&disk);
        let message = refusal(&disk, "needs later ones").to_string();
        assert!(message.contains(&format!("needs segment {first} before")), "{message}");
        assert!(before == everything(&disk));
    }
}

// PITFALLS 61: unreadable is neither empty nor the end.
#[test]
fn a_byte_that_cannot_be_read_stops_the_opening() {
    let Sample { disk, active, closed, starts, .. } = sample();
    for (name, at) in [(active, 30), (active, starts[2]), (active, 16_000), (closed, 9_000)] {
        let disk = disk.fork();
        disk.fail_reads_at(name, at);
        let error = refusal(&disk, "an unreadable byte");
        let Error::Io { path, .. } = &error else { panic!("{error}") };
        assert!(path.ends_with(name), "{error}");
    }
}

#[test]
fn a_rotten_length_asks_for_no_memory() {
    let Sample { disk, active, starts, .. } = sample();
    let segment_bytes = disk.contents(active).len() as u64;
    for start in &starts[..5] {
        for length in [u32::MAX, 1 << 31, 1 << 24, segment_bytes as u32] {
            let disk = disk.fork();
            disk.overwrite(active, start + 8, &length.to_le_bytes());
            let _ = open(&disk);
            let largest = disk.counts().largest_read_bytes;
            assert!(largest <= segment_bytes, "read {largest} bytes at once for {length}");
        }
    }
}
