//! Whatever comes in through a door, it ends with a value or an error: never with a panic, and never
//! with more memory than what came can account for. Inputs are today's formats, damaged by seeded
//! mutation; mostly with their checksums made right again, so that what lies behind is reached.
//!
//! The fuzzer enters by the same doors: `make fuzz TARGET=wire SECONDS=60`.

#![expect(clippy::print_stderr, reason = "figures are shown")]
#![allow(unreachable_pub, reason = "modules of a test target, not of a library")]

mod doors;
#[path = "../formats/golden.rs"]
#[allow(dead_code, reason = "only its readers are wanted here")]
mod golden;
mod memory;
mod mutation;
mod seeds;

use doors::{DOORS, Door};
use mutation::{Dice, mutated};

/// How often a door is entered. A journal or a snapshot is a whole disk.
fn rounds(door: &Door) -> u64 {
    match door.name {
        "journal" | "snapshot" => 1_500,
        "node_toml" | "members_toml" => 1_500,
        _ => 20_000,
    }
}

fn enter_with_nonsense(name: &str) {
    let door = Door::named(name);
    let seeds = seeds::of(name);
    for seed in &seeds {
        let (good, _) = door.enter(seed);
        assert!(good, "a sample is refused: {}", seed.escape_ascii());
    }
    let (mut good, mut peak) = (0, 0);
    for round in 0..rounds(door) {
        let mut dice = Dice(round);
        let bytes = mutated(&seeds, &mut dice, door.mend);
        let entered = std::panic::catch_unwind(|| door.enter(&bytes));
        let (is_good, bytes_taken) = entered.unwrap_or_else(|_| {
            panic!("round {round} of {name}, see above: {}", bytes.escape_ascii())
        });
        good += u64::from(is_good);
        peak = peak.max(bytes_taken);
    }
    let rounds = rounds(door);
    eprintln!(
        "{name}: {rounds} inputs, {good} of them good in part; at most {peak} bytes of memory"
    );
    // Text is soon no TOML any more.
    let enough = if name.ends_with("toml") { rounds / 300 } else { rounds / 100 };
    assert!(good > enough, "{good} of {rounds} were good: nothing but the first check was met");
    assert!(good < rounds * 99 / 100, "{good} of {rounds} were good: they are not damaged");
}

#[test]
fn requests_of_clients() {
    enter_with_nonsense("resp");
}

#[test]
fn frames_of_peers() {
    enter_with_nonsense("wire");
}

#[test]
fn records_and_checkpoints() {
    enter_with_nonsense("record");
}

#[test]
fn batches() {
    enter_with_nonsense("batch");
}

#[test]
fn journals() {
    enter_with_nonsense("journal");
}

#[test]
fn snapshot_files() {
    enter_with_nonsense("snapshot");
}

#[test]
fn configurations_of_nodes() {
    enter_with_nonsense("node_toml");
}

#[test]
fn lists_of_members() {
    enter_with_nonsense("members_toml");
}

/// A bound that nobody can break proves nothing: one that allocates what a head states is caught.
#[test]
fn the_bound_is_measured() {
    let taken = memory::peak_of(|| drop(std::hint::black_box(vec![0_u8; 100_000])));
    assert!((100_000..110_000).contains(&taken), "{taken}");
    let freed_before = std::hint::black_box(vec![0_u8; 50_000]);
    let taken = memory::peak_of(|| drop(freed_before));
    assert_eq!(taken, 0);
    assert!(
        std::panic::catch_unwind(|| {
            let greedy = Door::greedy();
            greedy.enter(&[0, 0, 0, 1])
        })
        .is_err()
    );
}

/// Writes the samples where the fuzzer starts from: `FUZZ_SEEDS=folder`.
#[test]
fn seeds_for_the_fuzzer() {
    let Some(folder) = std::env::var_os("FUZZ_SEEDS") else { return };
    for door in DOORS {
        let folder = std::path::Path::new(&folder).join(door.name);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds::of(door.name).iter().enumerate() {
            std::fs::write(folder.join(format!("sample-{number}")), seed).unwrap();
        }
    }
}
