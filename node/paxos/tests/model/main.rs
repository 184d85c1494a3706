//! Model checking: every order of events of a small group, with the real code.
//!
//! Breadth first from the empty group: each state is expanded by everything that may happen in it,
//! states that were seen before are not expanded again. A violation therefore comes with a shortest
//! schedule. `STATES=n` moves the bound of states (0: to exhaustion); what was covered is printed.
//! Larger searches than `cargo test` makes have been run: see `make model`.

#![allow(unreachable_pub, reason = "a module of a test target, not of a library")]

mod world;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use world::{Action, Bounds, Messages, World, describe};

/// The steps that led to a state, the newest first.
struct Path {
    action: Action,
    before: Option<Arc<Path>>,
}

#[derive(Debug, Default)]
struct Report {
    states: usize,
    transitions: usize,
    depth: usize,
    exhausted: bool,
    /// States with two leaders at once, and with every batch declared.
    two_leaders: usize,
    declared_max: usize,
    violation: Option<String>,
}

fn search(bounds: Bounds, states_max: usize) -> Report {
    let mut messages = Messages::default();
    let mut report = Report::default();
    let mut seen = HashSet::new();
    let first = World::new(bounds);
    seen.insert(first.fingerprint());
    let mut frontier: VecDeque<(World, Option<Arc<Path>>, usize)> = [(first, None, 0)].into();
    while let Some((world, path, depth)) = frontier.pop_front() {
        report.states += 1;
        report.depth = depth;
        report.two_leaders += usize::from(world.leaders() > 1);
        report.declared_max = report.declared_max.max(world.declared());
        if states_max > 0 && report.states >= states_max {
            return report;
        }
        for action in world.actions(bounds) {
            let stepped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                world.step(&action, bounds, &mut messages)
            }));
            let outcome = match stepped {
                Ok(None) => continue,
                Ok(Some(outcome)) => outcome,
                Err(_) => Err("the replica stopped itself".to_owned()),
            };
            report.transitions += 1;
            let before = path.clone();
            match outcome {
                Ok(next) => {
                    if seen.insert(next.fingerprint()) {
                        let path = Arc::new(Path { action, before });
                        frontier.push_back((next, Some(path), depth + 1));
                    }
                }
                Err(violation) => {
                    let path = Arc::new(Path { action, before });
                    report.violation = Some(schedule(&path, &violation, &messages));
                    return report;
                }
            }
        }
    }
    report.exhausted = true;
    report
}

fn schedule(last: &Path, violation: &str, messages: &Messages) -> String {
    let mut lines = vec![format!("VIOLATION: {violation}")];
    let mut step = Some(last);
    while let Some(path) = step {
        lines.push(describe(&path.action, messages));
        step = path.before.as_deref();
    }
    lines.reverse();
    lines.join("\n")
}

#[expect(clippy::print_stderr, reason = "what a search has covered is its result")]
fn check(name: &str, bounds: Bounds, states_max: usize) -> Report {
    let states_max =
        std::env::var("STATES").ok().and_then(|max| max.parse().ok()).unwrap_or(states_max);
    let started = Instant::now();
    let report = search(bounds, states_max);
    eprintln!(
        "model {name}: {} states, {} transitions, depth {}, {}; two leaders in {}, up to {} slots \
         declared; {:.1} s",
        report.states,
        report.transitions,
        report.depth,
        if report.exhausted { "exhausted" } else { "bounded" },
        report.two_leaders,
        report.declared_max,
        started.elapsed().as_secs_f64(),
    );
    report
}

fn holds(name: &str, bounds: Bounds, states_max: usize) {
    let report = check(name, bounds, states_max);
    assert!(report.violation.is_none(), "{name}:\n{}", report.violation.unwrap_or_default());
    assert!(report.declared_max > 0, "{name}: nothing was ever chosen, the search proves nothing");
}

/// Two ballots, whoever begins them, with the no-ops that open their reigns; no failures but those
/// of the network.
const DUEL: Bounds = Bounds { nodes: 3, ballots: 2, batches: 0, crashes: 0, heartbeats: false };
/// The same with one client's batch, hints and catching up.
const HINTS: Bounds = Bounds { nodes: 3, ballots: 2, batches: 1, crashes: 0, heartbeats: true };
/// The same with one power failure, at any moment between writing and syncing.
const CRASH: Bounds = Bounds { nodes: 3, ballots: 2, batches: 1, crashes: 1, heartbeats: false };

#[test]
fn two_ballots() {
    holds("duel: 3 nodes, 2 ballots", DUEL, 60_000);
}

#[test]
fn two_ballots_with_hints_and_catching_up() {
    holds("hints: 3 nodes, 2 ballots, 1 batch, heartbeats", HINTS, 60_000);
}

#[test]
fn two_ballots_and_a_crash() {
    holds("crash: 3 nodes, 2 ballots, 1 batch, 1 crash", CRASH, 60_000);
}

/// A search that finds nothing proves nothing unless it can find something.
#[cfg(feature = "mutants")]
#[test]
fn a_broken_rule_is_found() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let broken = [
        (paxos::Mutant::AcceptDoesNotPromise, DUEL),
        (paxos::Mutant::OneVariableForPromisedAndAccepted, HINTS),
    ];
    let reports = broken.map(|(mutant, bounds)| {
        paxos::break_rule(Some(mutant));
        (mutant, check(&format!("{mutant:?}"), bounds, 60_000))
    });
    paxos::break_rule(None);
    std::panic::set_hook(hook);
    for (mutant, report) in reports {
        assert!(report.violation.is_some(), "{mutant:?} lives");
    }
}
