//! The seeded simulator: many short lives of a cluster, each checked after every step.
//!
//! `cargo test -p paxos --test simulator` runs the standard set; `SEEDS=100000` runs more, on all
//! cores, from `FROM=…` on. A failing seed prints the one command that replays it with its trace.

mod harness;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use harness::coverage::Coverage;
use harness::simulation::{Outcome, Run, run};

const SEEDS_STANDARD: u64 = 2_000;
/// Lines of the trace that a replay shows: the last page or two.
const TRACE_LINES: usize = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

struct Total {
    coverage: Coverage,
    failed: Vec<Outcome>,
    steps: u64,
    acknowledged: u64,
    calm_us_max: (u64, u64),
}

/// Runs `seeds` seeds on all cores; stops early at the first few that fail.
fn run_all(from: u64, seeds: u64) -> Total {
    let next = AtomicU64::new(from);
    let total = Mutex::new(Total {
        coverage: Coverage::default(),
        failed: Vec::new(),
        steps: 0,
        acknowledged: 0,
        calm_us_max: (0, 0),
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds
                        || total.lock().expect("no panics inside").failed.len() >= 5
                    {
                        return;
                    }
                    let outcome = run(Run { seed, ..Run::default() });
                    let mut total = total.lock().expect("no panics inside");
                    total.coverage.merge(&outcome.coverage);
                    total.steps += outcome.steps;
                    total.acknowledged += outcome.acknowledged as u64;
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
    let total = run_all(from, seeds);
    eprintln!(
        "{seeds} seeds from {from}: {} steps, {} batches acknowledged; longest way back to calm {} ms (seed {})\n{}",
        total.steps,
        total.acknowledged,
        total.calm_us_max.0 / 1000,
        total.calm_us_max.1,
        total.coverage.table()
    );
    for outcome in &total.failed {
        let violation = outcome.violation.as_deref().unwrap_or_default();
        eprintln!("seed {}: {violation}", outcome.seed);
        eprintln!(
            "  SEED={} cargo test -p paxos --test simulator -- replay --nocapture",
            outcome.seed
        );
    }
    assert!(total.failed.is_empty(), "{} seeds failed, see above", total.failed.len());
    if seeds >= SEEDS_STANDARD {
        let never = total.coverage.never();
        assert!(never.is_empty(), "these never happened in {seeds} seeds: {never:?}");
    }
}

/// Shows one seed with its trace. Without `SEED` it replays the first one twice and compares.
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
