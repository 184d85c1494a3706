//! The models of the protocol, each to exhaustion or to its bound. See `mod.rs` for how it is done,
//! `bounds.rs` for what each of them covers.

#[path = "mod.rs"]
mod model;

use std::collections::HashSet;
use std::sync::Mutex;

use model::bounds::{Bounds, COMPARED, LEASES, MEMBERSHIP, Model, PAXOS};
use model::search::{Report, explore, search};

/// So many states of each in `cargo test`; `make model` goes on to the end.
const STATES_IN_A_HURRY: usize = 150_000;

/// What was searched so far, a line of the table each. Whoever comes last prints it.
static TABLE: Mutex<(usize, Vec<String>)> = Mutex::new((0, Vec::new()));
const GROUPS: usize = 3;

#[expect(clippy::print_stderr, reason = "what a search has covered is its result")]
fn hold(models: &[Model]) {
    let wanted = std::env::var("STATES").ok();
    let only = std::env::var("ONLY").unwrap_or_default();
    for Model { bounds, states_max } in models.iter().filter(|m| m.bounds.name.contains(&only)) {
        let states_max = match wanted.as_deref() {
            Some("full") => *states_max,
            Some(states) => states.parse().expect("STATES is a number, or `full`"),
            None => STATES_IN_A_HURRY,
        };
        let report = search(bounds, states_max);
        eprintln!("model {}\n  {}\n  {report}", bounds.name, bounds.words());
        assert!(
            report.violation.is_none(),
            "{}:\n{}",
            bounds.name,
            report.violation.unwrap_or_default()
        );
        assert!(report.declared_max > 0, "{}: nothing was ever chosen", bounds.name);
        let leases = bounds.leases.is_some();
        assert!(!leases || report.leased > 0, "{}: nobody ever held a lease", bounds.name);
        TABLE.lock().expect("nobody panics with it").1.push(row(bounds, &report));
    }
    let (groups, rows) = &mut *TABLE.lock().expect("nobody panics with it");
    *groups += 1;
    if *groups == GROUPS {
        eprintln!("\n| model | states | transitions | depth | s | |\n|---|---|---|---|---|---|");
        rows.iter().for_each(|row| eprintln!("{row}"));
    }
}

fn row(bounds: &Bounds, report: &Report) -> String {
    let how = if report.exhausted { "exhausted" } else { "bounded" };
    let Report { states, transitions, depth, wall, .. } = report;
    let wall_s = wall.as_secs_f64();
    format!("| {} | {states} | {transitions} | {depth} | {wall_s:.0} | {how} |", bounds.name)
}

#[test]
fn acceptors_proposers_and_learners() {
    hold(PAXOS);
}

#[test]
fn changes_of_the_configuration() {
    hold(MEMBERSHIP);
}

#[test]
fn leases_with_handover_and_restart() {
    hold(LEASES);
}

/// A search that keeps every message, every clock and all that is over meets the same states, as
/// far as they can be seen from outside, as the one that leaves out what decides nothing.
#[test]
fn what_is_left_out_decides_nothing() {
    for bounds in COMPARED {
        let full = Bounds { reduced: false, ..bounds.clone() };
        let [(small, met), (large, to_meet)] = [bounds, &full].map(|bounds| {
            let mut met = HashSet::new();
            let report = explore(bounds, 0, |world, lab| {
                met.insert(world.seen_from_outside(lab));
            });
            assert!(report.exhausted, "{}: {:?}", bounds.name, report.violation);
            (report, met)
        });
        eprintln!(
            "{}: {} states, {} in full; {} to be seen",
            bounds.name,
            small.states,
            large.states,
            met.len()
        );
        assert!(small.states < large.states, "{}: nothing is left out", bounds.name);
        let (missed, more) = (to_meet.difference(&met).count(), met.difference(&to_meet).count());
        assert_eq!((missed, more), (0, 0), "{}: states are missed, or invented", bounds.name);
    }
}
