//! The seeded simulator: many short lives of a cluster, each checked after every step.
//!
//! `cargo test -p paxos --test simulator` runs the standard set; `SEEDS=100000` runs more, on all
//! cores, from `FROM=…` on. A failing seed is shortened, and the one command that replays what is
//! left of it, with its trace, is printed.

mod harness;

use harness::coverage::Coverage;
use harness::foul::Foul;
use harness::seeds::{Less, check, describe, number, run_all, shrink};
use harness::simulation::{Run, TRAITS, run};

const SEEDS_STANDARD: u64 = 2_000;
/// Lines of the trace that a replay shows: the last page or two.
const TRACE_LINES: usize = 200;

#[test]
fn seeds() {
    let count = number("SEEDS").unwrap_or(SEEDS_STANDARD);
    let from = number("FROM").unwrap_or(0);
    let seeds: Vec<u64> = (from..from + count).collect();
    let of_seed = |seed| run(Run { seed, ..Run::default() });
    let total = run_all("protocol", &seeds, of_seed, Coverage::merge);
    eprintln!("protocol from {from}: {}\n{}", total.summary(), total.coverage.table());
    for seed in &total.failed {
        let of_less = |less: &Less| run(Run { seed: *seed, less: less.clone(), ..Run::default() });
        if let Some((less, life)) = shrink(&TRAITS, of_less) {
            eprintln!("{}", describe("paxos", *seed, &less, &life));
        }
    }
    assert!(total.failed.is_empty(), "{} seeds failed, see above", total.failed.len());
    if count >= SEEDS_STANDARD {
        let never = total.coverage.never();
        assert!(never.is_empty(), "these never happened in {count} seeds: {never:?}");
    }
}

/// Shows one seed with its trace. Without `SEED` it replays the first one twice and compares.
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

/// What is left of a life that fails still fails by the same check.
#[test]
fn a_life_that_fails_is_shortened() {
    let life = |seed, less: &Less| {
        let foul = Some(Foul::SpeakBeforeSync);
        run(Run { seed, foul, less: less.clone(), ..Run::default() })
    };
    let (seed, long) = (0..200)
        .map(|seed| (seed, life(seed, &Less::default())))
        .find(|(_, life)| life.violation.is_some() && life.strikes.len() > 1)
        .expect("it is found within so many seeds");
    let (less, short) = shrink(&TRAITS, |less| life(seed, less)).expect("it fails");
    eprintln!("{}", describe("paxos", seed, &less, &short));
    assert!(short.strikes.len() < long.strikes.len());
    let read_back = Less::parse(&less.to_string()).expect("its own text");
    let again = life(seed, &read_back);
    assert_eq!(again.violation, short.violation);
    let of = |violation: Option<String>| check(&violation.unwrap_or_default());
    assert_eq!(of(short.violation), of(long.violation));
}
