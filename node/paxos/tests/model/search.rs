//! Breadth first through all states.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::BuildHasherDefault;
use std::time::{Duration, Instant};

use super::bounds::Bounds;
use super::local::Lab;
use super::print::{Print, Printed};
use super::world::{Action, World, describe};

#[derive(Debug, Default)]
pub struct Report {
    pub states: usize,
    pub transitions: usize,
    pub depth: usize,
    pub exhausted: bool,
    /// Different states of single nodes, and how often the replica's code was run.
    pub nodes: usize,
    pub calls: usize,
    /// States with two leaders at once, with a leased leader; most slots declared in one.
    pub two_leaders: usize,
    pub leased: usize,
    pub declared_max: usize,
    pub violation: Option<String>,
    pub wall: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} states, {} transitions, depth {}, {}; two leaders in {}, a lease in {}, up to {} \
             slots declared; {} states of single nodes, {} calls; {:.1} s",
            self.states,
            self.transitions,
            self.depth,
            if self.exhausted { "exhausted" } else { "bounded" },
            self.two_leaders,
            self.leased,
            self.declared_max,
            self.nodes,
            self.calls,
            self.wall.as_secs_f64(),
        )
    }
}

/// Explores the model to exhaustion, or until so many states were expanded (0: no bound).
pub fn search(bounds: &Bounds, states_max: usize) -> Report {
    explore(bounds, states_max, |_, _| {})
}

/// The same, and shows every state.
pub fn explore(bounds: &Bounds, states_max: usize, mut show: impl FnMut(&World, &Lab)) -> Report {
    let started = Instant::now();
    let mut lab = Lab::new(bounds.clone());
    let mut report = Report::default();
    let mut seen: HashSet<u128, BuildHasherDefault<Printed>> = HashSet::default();
    // How each state was reached first: from which other, and by what.
    let mut trail: Vec<(u32, Action)> = vec![(0, Action::Pass)];
    let first = World::new(&mut lab);
    seen.insert(Print::of(&first));
    let mut frontier: VecDeque<World> = [first].into();
    let (mut level_end, mut actions) = (1, Vec::new());
    while let Some(world) = frontier.pop_front() {
        let number = report.states;
        if number == level_end {
            report.depth += 1;
            level_end = trail.len();
        }
        if states_max > 0 && number >= states_max {
            break;
        }
        report.states += 1;
        show(&world, &lab);
        report.two_leaders += usize::from(world.leaders(&lab) > 1);
        report.leased += usize::from(world.leased(&lab) > 0);
        report.declared_max = report.declared_max.max(world.declared());
        world.actions(&lab, &mut actions);
        for &action in &actions {
            let Some(outcome) = world.step(action, &mut lab) else { continue };
            report.transitions += 1;
            match outcome {
                Ok(next) => {
                    if seen.insert(Print::of(&next)) {
                        trail.push((number as u32, action));
                        frontier.push_back(next);
                    }
                }
                Err(violation) => {
                    let steps = schedule(&trail, number, action, &lab);
                    report.violation = Some(format!("{steps}\n=> {violation}"));
                    frontier.clear();
                    break;
                }
            }
        }
    }
    report.exhausted =
        report.violation.is_none() && frontier.is_empty() && report.states == trail.len();
    report.nodes = lab.node_count();
    report.calls = lab.call_count();
    report.wall = started.elapsed();
    report
}

fn schedule(trail: &[(u32, Action)], mut number: usize, last: Action, lab: &Lab) -> String {
    let mut steps = vec![describe(last, lab)];
    while number > 0 {
        let (before, action) = trail[number];
        steps.push(describe(action, lab));
        number = before as usize;
    }
    let lines = steps.iter().rev().enumerate().map(|(at, step)| format!("{}. {step}", at + 1));
    lines.collect::<Vec<_>>().join("\n")
}
