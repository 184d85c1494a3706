//! The simulator of whole nodes: the product's replica, journal, recovery, store, snapshots, wire
//! format and door, on disks that crash, tear, rot and fill, in virtual time.
//!
//! `cargo test -p node --test simulator` runs the standard set; `SEEDS=100000` runs more, on all
//! cores, from `FROM=…` on. A failing seed is shortened, and the one command that replays what is
//! left of it, with its trace, is printed.

#![allow(unreachable_pub, reason = "modules of a test target, not of a library")]

mod asking;
mod broken;
mod calm;
#[path = "../../paxos/tests/harness/chance.rs"]
mod chance;
mod changes;
mod checker;
mod clients;
#[path = "../../paxos/tests/harness/clock.rs"]
mod clock;
mod coverage;
mod disks;
mod faults;
mod identities;
mod links;
mod lives;
mod machine;
mod plan;
mod requests;
#[path = "../../paxos/tests/harness/seeds.rs"]
mod seeds;
mod setup;
mod simulation;
mod trials;
mod turns;

use std::sync::Mutex;

use broken::Broken;
use coverage::Coverage;
use plan::TRAITS;
use seeds::{Less, check, describe, number, run_all, shrink};
use simulation::{Run, run};

pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;

const SEEDS_STANDARD: u64 = 1_000;
/// A broken node must be found within so many seeds.
const SEEDS_BROKEN: u64 = 400;
/// Lines of the trace that a replay shows.
const TRACE_LINES: usize = 300;

#[test]
fn seeds() {
    let count = number("SEEDS").unwrap_or(SEEDS_STANDARD);
    let from = number("FROM").unwrap_or(0);
    let seeds: Vec<u64> = (from..from + count).collect();
    let of_seed = |seed| run(Run { seed, ..Run::default() });
    let total = run_all("whole nodes", &seeds, of_seed, Coverage::merge);
    eprintln!("whole nodes from {from}: {}\n{}", total.summary(), total.coverage.table());
    for seed in &total.failed {
        let of_less = |less: &Less| run(Run { seed: *seed, less: less.clone(), ..Run::default() });
        if let Some((less, life)) = shrink(&TRAITS, of_less) {
            eprintln!("{}", describe("node", *seed, &less, &life));
        }
    }
    assert!(total.failed.is_empty(), "{} seeds failed, see above", total.failed.len());
    if count >= SEEDS_STANDARD {
        let never = total.coverage.never();
        assert!(never.is_empty(), "these never happened in {count} seeds: {never:?}");
    }
}

/// Shows one seed with its trace. Without `SEED` it replays one twice and compares.
#[test]
fn replay() {
    let asked = number("SEED");
    let seed = asked.unwrap_or(1);
    let lines = number("LINES").map_or(TRACE_LINES, |lines| lines as usize);
    let again = || {
        let less = Less::from_environment();
        run(Run { seed, less, trace_lines_max: Some(lines), ..Run::default() })
    };
    let first = again();
    if asked.is_some() {
        eprintln!("seed {seed}: {}", first.plan);
        first.trace.iter().for_each(|line| eprintln!("{line}"));
    }
    let second = again();
    assert_eq!(first.trace, second.trace, "the same seed went another way");
    assert!(first.violation.is_none(), "seed {seed}: {}", first.violation.unwrap_or_default());
}

/// A life that fails is told shorter: what is left of it fails by the same check, also when it is
/// read back from the command that is printed, and cannot do without any of its faults.
#[test]
fn a_life_that_fails_is_shortened() {
    for broken in [Broken::ForgetsLastSync, Broken::WatchesNothing, Broken::ResendsBlindly] {
        let life = |seed, less: &Less| {
            run(Run { seed, broken: Some(broken), less: less.clone(), ..Run::default() })
        };
        let failing = (0..SEEDS_BROKEN).find_map(|seed| {
            let life = life(seed, &Less::default());
            Some((seed, life.strikes.len(), check(life.violation.as_ref()?)))
        });
        let (seed, strikes, wanted) = failing.expect("it is found within so many seeds");
        let (less, short) = shrink(&TRAITS, |less| life(seed, less)).expect("it fails");
        eprintln!("{broken:?}, from {strikes} faults: {}", describe("node", seed, &less, &short));
        let read_back = Less::parse(&less.to_string()).expect("its own text");
        assert_eq!(read_back, less);
        let again = life(seed, &read_back);
        assert_eq!(again.violation, short.violation);
        assert_eq!(check(&short.violation.unwrap_or_default()), wanted);
        assert!(short.strikes.len() <= strikes);
        for strike in &short.strikes {
            let others = short.strikes.iter().map(|other| other.number);
            let faults = others.filter(|other| *other != strike.number).collect();
            let fewer = Less { faults: Some(faults), ..less.clone() };
            let fails = life(seed, &fewer).violation.is_some_and(|text| check(&text) == wanted);
            assert!(!fails, "{broken:?}, seed {seed}: it can do without {strike:?}");
        }
    }
}

/// The checks can fail: each thing that is wrong on purpose is found.
#[test]
fn what_is_broken_on_purpose_is_found() {
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for broken in Broken::ALL {
            let missed = &missed;
            scope.spawn(move || {
                let found = (0..SEEDS_BROKEN).find_map(|seed| {
                    let outcome = run(Run { seed, broken: Some(broken), ..Run::default() });
                    outcome.violation.map(|text| (seed, text))
                });
                match found {
                    Some((seed, text)) => eprintln!("{broken:?}: seed {seed}: {text}"),
                    None => missed.lock().expect("no panics inside").push(broken),
                }
            });
        }
    });
    let missed = missed.into_inner().expect("no panics inside");
    assert!(missed.is_empty(), "not found within {SEEDS_BROKEN} seeds: {missed:?}");
}
