//! The simulator of whole nodes: the product's replica, journal, recovery, store, snapshots, wire
//! format and door, on disks that crash, tear, rot and fill, in virtual time.
//!
//! `cargo test -p node --test simulator` runs the standard set; `SEEDS=100000` runs more, on all
//! cores, from `FROM=…` on. A failing seed prints the one command that replays it with its trace.

#![allow(unreachable_pub, reason = "modules of a test target, not of a library")]

mod asking;
mod broken;
mod calm;
#[path = "../../paxos/tests/harness/chance.rs"]
mod chance;
mod checker;
mod clients;
#[path = "../../paxos/tests/harness/clock.rs"]
mod clock;
mod coverage;
mod disks;
mod faults;
mod lives;
mod machine;
mod plan;
mod requests;
mod setup;
mod simulation;
mod turns;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use broken::Broken;
use coverage::Coverage;
use simulation::{Outcome, Run, run};

pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;

const SEEDS_STANDARD: u64 = 1_000;
/// A broken node must be found within so many seeds.
const SEEDS_BROKEN: u64 = 400;
/// Lines of the trace that a replay shows.
const TRACE_LINES: usize = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[derive(Default)]
struct Total {
    coverage: Coverage,
    failed: Vec<Outcome>,
    steps: u64,
    acknowledged: u64,
    virtual_us: u64,
    calm_us_max: (u64, u64),
}

/// Runs `seeds` seeds on all cores; stops early at the first few that fail.
fn run_all(from: u64, seeds: u64) -> Total {
    let next = AtomicU64::new(from);
    let total = Mutex::new(Total::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let failed = total.lock().expect("no panics inside").failed.len();
                    if seed >= from + seeds || failed >= 5 {
                        return;
                    }
                    let outcome = run(Run { seed, ..Run::default() });
                    let mut total = total.lock().expect("no panics inside");
                    total.coverage.merge(&outcome.coverage);
                    total.steps += outcome.steps;
                    total.acknowledged += outcome.acknowledged as u64;
                    total.virtual_us += outcome.virtual_us;
                    total.calm_us_max = total.calm_us_max.max((outcome.calm_us, seed));
                    if outcome.violation.is_some() {
                        total.failed.push(outcome);
                    }
                }
            });
        }
    });
    total.into_inner().expect("no panics inside")
}

#[test]
fn seeds() {
    let seeds = number("SEEDS").unwrap_or(SEEDS_STANDARD);
    let from = number("FROM").unwrap_or(0);
    let began = Instant::now();
    let total = run_all(from, seeds);
    let wall_seconds = began.elapsed().as_secs_f64();
    let virtual_hours = total.virtual_us as f64 / 3.6e9;
    eprintln!(
        "{seeds} seeds from {from}: {} steps, {} operations acknowledged, {virtual_hours:.2} virtual \
         hours in {wall_seconds:.0} s ({:.4} hours a second); longest way back to calm {} ms (seed \
         {})\n{}",
        total.steps,
        total.acknowledged,
        virtual_hours / wall_seconds,
        total.calm_us_max.0 / MS,
        total.calm_us_max.1,
        total.coverage.table()
    );
    for Outcome { seed, violation, .. } in &total.failed {
        eprintln!("seed {seed}: {}", violation.as_deref().unwrap_or_default());
        eprintln!("  SEED={seed} cargo test -p node --test simulator -- replay --nocapture");
    }
    assert!(total.failed.is_empty(), "{} seeds failed, see above", total.failed.len());
    if seeds >= SEEDS_STANDARD {
        let never = total.coverage.never();
        assert!(never.is_empty(), "these never happened in {seeds} seeds: {never:?}");
    }
}

/// Shows one seed with its trace. Without `SEED` it replays one twice and compares.
#[test]
fn replay() {
    let asked = number("SEED");
    let seed = asked.unwrap_or(1);
    let lines = number("LINES").map_or(TRACE_LINES, |lines| lines as usize);
    let first = run(Run { seed, trace_lines_max: Some(lines), ..Run::default() });
    if asked.is_some() {
        eprintln!("seed {seed}: {}", first.plan);
        first.trace.iter().for_each(|line| eprintln!("{line}"));
    }
    let second = run(Run { seed, trace_lines_max: Some(lines), ..Run::default() });
    assert_eq!(first.trace, second.trace, "the same seed went another way");
    assert!(first.violation.is_none(), "seed {seed}: {}", first.violation.unwrap_or_default());
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
