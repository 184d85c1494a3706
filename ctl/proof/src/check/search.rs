//! The search for one order of an object's operations that explains every answer.
//!
//! A *configuration* says which operations have been given their place so far, and the state after
//! them. From it, an operation may be next when no operation that is still without a place had
//! returned before this one was invoked. The search goes depth first and never enters a
//! configuration twice. Three facts keep it small:
//!
//! * An operation that may be next, whose answer fits and that leaves the state as it is (a read),
//!   can be placed at once: any order that places it later still holds with it moved here.
//! * Operations of unknown fate need no place at all. Those with the same effect are alike but for
//!   their invocation, so they are used in the order of their invocations.
//! * Values that nobody has read or asked for are alike too, where nothing is made of them (INCR,
//!   APPEND): unknown operations that differ only in such values count as one effect.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use bytes::Bytes;

use super::Verdict;
use super::model::{ABSENT, State, Values};
use crate::history::{Action, Answer, Operation, Outcome};

#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) configurations_max: usize,
    pub(super) deadline: Instant,
}

/// Decides for the object of these keys.
pub(super) fn object(keys: &[&Bytes], operations: &[&Operation], bound: Bound) -> Verdict {
    let mut search = Search::new(keys, operations);
    let name = || {
        let names: Vec<_> = keys.iter().map(|key| String::from_utf8_lossy(key)).collect();
        format!("key {}", names.join(", "))
    };
    match search.run(bound) {
        Found::Order => Verdict::Holds,
        Found::None { deepest } => {
            Verdict::Violated(format!("{}: {}", name(), search.explain(&deepest)))
        }
        Found::GaveUp { visited } => Verdict::Unknown(format!(
            "{}: the search over {} operations was given up after {visited} configurations",
            name(),
            operations.len()
        )),
    }
}

/// An action on one of the object's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// Its place among the keys.
    key: usize,
    action: Action,
}

/// An operation that was answered.
#[derive(Debug)]
struct Definite<'a> {
    steps: Vec<Step>,
    /// Of each step.
    answers: Vec<&'a Answer>,
    invoked_ns: u64,
    returned_ns: u64,
    client: u32,
}

/// Operations of unknown fate with one effect, by the times of their invocation.
#[derive(Debug)]
struct Maybe {
    steps: Vec<Step>,
    invoked_ns: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Configuration {
    /// All definite operations below this have their place.
    first_open: u32,
    /// So have these above it, in order.
    beyond: Vec<u32>,
    /// How many of each kind of `Maybe` were used, where any was.
    used: BTreeMap<u32, u32>,
    /// Of each key.
    states: Vec<State>,
}

impl Configuration {
    fn placed(&self) -> usize {
        self.first_open as usize + self.beyond.len()
    }

    fn has_placed(&self, index: u32) -> bool {
        index < self.first_open || self.beyond.binary_search(&index).is_ok()
    }

    fn place(&self, index: u32, states: Vec<State>) -> Configuration {
        let mut next = Configuration { states, ..self.clone() };
        let at = next.beyond.binary_search(&index).expect_err("an operation has one place");
        next.beyond.insert(at, index);
        let closed =
            next.beyond.iter().zip(next.first_open..).take_while(|(i, open)| *i == open).count();
        next.beyond.drain(..closed);
        next.first_open += closed as u32;
        next
    }

    fn use_maybe(&self, kind: u32, states: Vec<State>) -> Configuration {
        let mut next = Configuration { states, ..self.clone() };
        *next.used.entry(kind).or_default() += 1;
        next
    }
}

enum Found {
    Order,
    None { deepest: Configuration },
    GaveUp { visited: usize },
}

struct Search<'a> {
    keys: Vec<&'a Bytes>,
    values: Values,
    /// In the order of their invocations.
    definite: Vec<Definite<'a>>,
    maybes: Vec<Maybe>,
}

impl<'a> Search<'a> {
    fn new(keys: &[&'a Bytes], operations: &[&'a Operation]) -> Search<'a> {
        let mut definite = Vec::new();
        let mut unknown = Vec::new();
        for operation in operations {
            match &operation.outcome {
                Outcome::Ok(answer) => definite.push(Definite {
                    steps: steps(keys, operation),
                    answers: match answer {
                        Answer::All(answers) => answers.iter().collect(),
                        answer => vec![answer],
                    },
                    invoked_ns: operation.invoked_ns,
                    returned_ns: operation.returned_ns,
                    client: operation.client,
                }),
                Outcome::Unknown if operation.action != Action::Get => unknown.push(*operation),
                Outcome::Unknown | Outcome::Failed => {}
            }
        }
        definite.sort_by_key(|operation| operation.invoked_ns);
        let maybes = maybes(keys, operations, unknown);
        Search { keys: keys.to_vec(), maybes, definite, values: Values::new() }
    }

    fn run(&mut self, bound: Bound) -> Found {
        let start = Configuration {
            first_open: 0,
            beyond: Vec::new(),
            used: BTreeMap::new(),
            states: vec![ABSENT; self.keys.len()],
        };
        let mut deepest = start.clone();
        let mut visited = HashSet::from([start.clone()]);
        let mut open = vec![start];
        while let Some(configuration) = open.pop() {
            if configuration.placed() == self.definite.len() {
                return Found::Order;
            }
            if configuration.placed() > deepest.placed() {
                deepest = configuration.clone();
            }
            for next in self.successors(&configuration) {
                if !visited.contains(&next) {
                    visited.insert(next.clone());
                    open.push(next);
                }
            }
            let late = visited.len().is_multiple_of(256) && Instant::now() >= bound.deadline;
            if late || visited.len() >= bound.configurations_max {
                return Found::GaveUp { visited: visited.len() };
            }
        }
        Found::None { deepest }
    }

    /// The configurations one step further; the most promising last.
    fn successors(&mut self, from: &Configuration) -> Vec<Configuration> {
        let (candidates, horizon_ns) = self.candidates(from);
        let mut successors = Vec::new();
        for index in candidates.into_iter().rev() {
            let Definite { steps, answers, .. } = &self.definite[index as usize];
            let Some(states) = apply(&mut self.values, &from.states, steps, Some(answers)) else {
                continue;
            };
            let changes = states != from.states;
            let next = from.place(index, states);
            if !changes {
                return vec![next];
            }
            successors.push(next);
        }
        for kind in 0..self.maybes.len() {
            let maybe = &self.maybes[kind];
            let used = from.used.get(&(kind as u32)).copied().unwrap_or(0) as usize;
            let available = maybe.invoked_ns.get(used).is_some_and(|at| *at <= horizon_ns);
            if !available {
                continue;
            }
            if let Some(states) = apply(&mut self.values, &from.states, &maybe.steps, None)
                && states != from.states
            {
                successors.insert(0, from.use_maybe(kind as u32, states));
            }
        }
        successors
    }

    /// Definite operations that may be next, and the time before which whatever is next must have
    /// been invoked: the earliest return among the operations that have no place yet.
    fn candidates(&self, from: &Configuration) -> (Vec<u32>, u64) {
        let mut horizon_ns = u64::MAX;
        let mut candidates = Vec::new();
        for index in from.first_open..self.definite.len() as u32 {
            let operation = &self.definite[index as usize];
            if operation.invoked_ns > horizon_ns {
                break;
            }
            if !from.has_placed(index) {
                candidates.push(index);
                horizon_ns = horizon_ns.min(operation.returned_ns);
            }
        }
        (candidates, horizon_ns)
    }

    /// Where the longest explanation got stuck.
    fn explain(&self, deepest: &Configuration) -> String {
        let (candidates, _) = self.candidates(deepest);
        let stuck: Vec<String> = candidates
            .iter()
            .take(4)
            .map(|index| {
                let Definite { steps, answers, client, invoked_ns, returned_ns } =
                    &self.definite[*index as usize];
                let (from_us, to_us) = (invoked_ns / 1000, returned_ns / 1000);
                let steps: Vec<String> =
                    steps.iter().zip(answers).map(|(s, a)| self.show(s, a)).collect();
                let steps = steps.join(", ");
                format!("client {client} {steps} at {from_us}..{to_us} us")
            })
            .collect();
        let held: Vec<String> =
            deepest.states.iter().map(|state| self.values.show(*state)).collect();
        format!(
            "no order explains all answers; after {} of {} operations it holds {}, and none of \
             these can be next: {}",
            deepest.placed(),
            self.definite.len(),
            held.join(", "),
            stuck.join("; ")
        )
    }

    fn show(&self, step: &Step, answer: &Answer) -> String {
        let action = &step.action;
        match self.keys.len() {
            1 => format!("{action:?} -> {answer:?}"),
            _ => {
                let key = String::from_utf8_lossy(self.keys[step.key]);
                format!("{key} {action:?} -> {answer:?}")
            }
        }
    }
}

/// The states behind an operation; `None` if its answers would have been others, or an error.
fn apply(
    values: &mut Values,
    states: &[State],
    steps: &[Step],
    answers: Option<&[&Answer]>,
) -> Option<Vec<State>> {
    let mut states = states.to_vec();
    for (index, step) in steps.iter().enumerate() {
        let (state, answer) = values.apply(states[step.key], &step.action)?;
        if answers.is_some_and(|answers| answers.get(index) != Some(&&answer)) {
            return None;
        }
        states[step.key] = state;
    }
    Some(states)
}

fn steps(keys: &[&Bytes], operation: &Operation) -> Vec<Step> {
    let step = |key: &Bytes, action: &Action| {
        let key = keys.binary_search(&key).expect("all keys of the object are listed");
        Step { key, action: action.clone() }
    };
    match &operation.action {
        Action::All(actions) => actions.iter().map(|(key, action)| step(key, action)).collect(),
        action => vec![step(&operation.key, action)],
    }
}

/// Groups operations of unknown fate by their effect.
fn maybes(keys: &[&Bytes], all: &[&Operation], mut unknown: Vec<&Operation>) -> Vec<Maybe> {
    unknown.sort_by_key(|operation| operation.invoked_ns);
    let told_apart = told_apart(all);
    let counted = counted(keys, all);
    let mut maybes: Vec<Maybe> = Vec::new();
    for operation in unknown {
        let mut steps = steps(keys, operation);
        for Step { key, action } in &mut steps {
            if let Action::Set(value) | Action::SetIfEq(_, value) = action
                && !counted[*key]
                && !told_apart.contains(value)
            {
                // Stands for all of them; no client writes this one.
                *value = Bytes::from_static(b"\0 any value that no read has seen");
            }
        }
        match maybes.iter_mut().find(|maybe| maybe.steps == steps) {
            Some(maybe) => maybe.invoked_ns.push(operation.invoked_ns),
            None => maybes.push(Maybe { steps, invoked_ns: vec![operation.invoked_ns] }),
        }
    }
    maybes
}

/// Values that somebody has read, or asked for.
fn told_apart<'a>(all: &[&'a Operation]) -> HashSet<&'a Bytes> {
    fn read<'a>(answer: &'a Answer, values: &mut HashSet<&'a Bytes>) {
        match answer {
            Answer::Value(value) => values.extend(value),
            Answer::All(answers) => answers.iter().for_each(|answer| read(answer, values)),
            Answer::Stored | Answer::Number(_) => {}
        }
    }
    let mut values = HashSet::new();
    for operation in all {
        if let Outcome::Ok(answer) = &operation.outcome {
            read(answer, &mut values);
        }
        for action in operation.actions() {
            if let Action::SetIfEq(expected, _) = action {
                values.insert(expected);
            }
        }
    }
    values
}

/// Of each key, whether what it holds becomes part of what it will hold.
fn counted(keys: &[&Bytes], all: &[&Operation]) -> Vec<bool> {
    let mut counted = vec![false; keys.len()];
    for operation in all {
        for (key, action) in operation.keys().zip(operation.actions()) {
            if let (Ok(key), Action::Incr | Action::Append(_)) = (keys.binary_search(&key), action)
            {
                counted[key] = true;
            }
        }
    }
    counted
}
