//! Is what the clients saw possible for one copy of the data, with every operation done at one
//! instant between its invocation and its return? (Herlihy and Wing, "Linearizability: A Correctness
//! Condition for Concurrent Objects", TOPLAS 1990.)
//!
//! Linearizability is local (theorem 1 there): a history is linearizable when the part of each object
//! is. An object is a key, or all keys that transactions tie together: whoever touches two keys at
//! one instant makes one object of both. Every object is searched alone, see [`search`], after the
//! algorithm of Wing and Gong (1993) with Lowe's memory of configurations seen ("Testing for
//! linearizability", 2017).
//!
//! The answer is one of three. A checker that gives up, or that had nothing to look at, says
//! *unknown*; only a search that was finished, over enough operations, may say *holds*.

mod model;
mod search;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::history::{History, Operation, Outcome};

/// The three answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    /// With what was found.
    Violated(String),
    /// With the reason why nothing can be said.
    Unknown(String),
}

impl Verdict {
    /// The worse of two: one violation is enough, and two unknowns do not make a pass.
    pub fn and(self, other: Verdict) -> Verdict {
        match (self, other) {
            (Verdict::Violated(found), _) | (_, Verdict::Violated(found)) => {
                Verdict::Violated(found)
            }
            (Verdict::Unknown(reason), _) | (_, Verdict::Unknown(reason)) => {
                Verdict::Unknown(reason)
            }
            (Verdict::Holds, Verdict::Holds) => Verdict::Holds,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Holds => write!(f, "holds"),
            Verdict::Violated(found) => write!(f, "VIOLATED: {found}"),
            Verdict::Unknown(reason) => write!(f, "unknown: {reason}"),
        }
    }
}

/// How much the search may cost, and how much it must have seen.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Fewer successful operations than this prove nothing.
    pub ok_min: usize,
    /// Configurations visited for one object.
    pub configurations_max: usize,
    /// For all of them together.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { ok_min: 100, configurations_max: 2_000_000, time: Duration::from_secs(60) }
    }
}

/// Checks every object of the history.
pub fn linearizable(history: &History, limits: Limits) -> Verdict {
    let deadline = Instant::now() + limits.time;
    // What was surely not done explains nothing; if it was done all the same, somebody reads a value
    // that nobody wrote, and the search fails there.
    let done = history.operations.iter().filter(|operation| operation.outcome != Outcome::Failed);
    let ok_count = history.ok_count();
    let mut verdict = match ok_count < limits.ok_min {
        true => Verdict::Unknown(format!(
            "only {ok_count} operations succeeded, {} are needed to say anything",
            limits.ok_min
        )),
        false => Verdict::Holds,
    };
    for (keys, operations) in objects(done.collect()) {
        let bound = search::Bound { configurations_max: limits.configurations_max, deadline };
        let of_object = search::object(&keys, &operations, bound);
        verdict = verdict.and(of_object);
        if matches!(verdict, Verdict::Violated(_)) {
            break;
        }
    }
    verdict
}

/// The keys of each object, and the operations on it.
fn objects(operations: Vec<&Operation>) -> Vec<(Vec<&Bytes>, Vec<&Operation>)> {
    // Each key points to a smaller one of its object, the smallest to itself.
    let mut smaller: BTreeMap<&Bytes, &Bytes> = BTreeMap::new();
    fn smallest<'a>(smaller: &BTreeMap<&'a Bytes, &'a Bytes>, mut key: &'a Bytes) -> &'a Bytes {
        while smaller[key] != key {
            key = smaller[key];
        }
        key
    }
    for operation in &operations {
        let mut former = None;
        for key in operation.keys() {
            smaller.entry(key).or_insert(key);
            if let Some(former) = former.replace(key) {
                let (a, b) = (smallest(&smaller, former), smallest(&smaller, key));
                smaller.insert(a.max(b), a.min(b));
            }
        }
    }
    let mut objects: BTreeMap<&Bytes, (Vec<&Bytes>, Vec<&Operation>)> = BTreeMap::new();
    for key in smaller.keys() {
        objects.entry(smallest(&smaller, key)).or_default().0.push(key);
    }
    for operation in operations {
        if let Some(key) = operation.keys().next() {
            objects.entry(smallest(&smaller, key)).or_default().1.push(operation);
        }
    }
    objects.into_values().collect()
}

#[cfg(test)]
mod tests;
