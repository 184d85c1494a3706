//! The models of the protocol, each to exhaustion or to its bound. See `mod.rs` for how it is done,
//! `bounds.rs` for what each of them covers.

#[path = "mod.rs"]
mod model;

use model::bounds::{LEASES, MEMBERSHIP, Model, PAXOS};
use model::search::search;

/// So many states of each in `cargo test`; `make model` goes on to the end.
const STATES_IN_A_HURRY: usize = 150_000;

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
    }
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
