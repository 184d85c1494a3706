//! Is what the clients saw possible for one copy of the data, with every operation done at one
//! instant between its invocation and its return? (Herlihy and Wing, "Linearizability: A Correctness
//! Condition for Concurrent Objects", TOPLAS 1990.)
//!
//! Keys are independent of each other, and linearizability is local (theorem 1 there): a history is
//! linearizable when each key's part is. So every key is searched alone, see [`search`], after the
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
    /// Configurations visited for one key.
    pub configurations_max: usize,
    /// For all keys together.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { ok_min: 100, configurations_max: 2_000_000, time: Duration::from_secs(60) }
    }
}

/// Checks every key of the history.
pub fn linearizable(history: &History, limits: Limits) -> Verdict {
    let deadline = Instant::now() + limits.time;
    let mut keys: BTreeMap<&Bytes, Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        // What was surely not done explains nothing; if it was done all the same, somebody reads a
        // value that nobody wrote, and the search fails there.
        if operation.outcome != Outcome::Failed {
            keys.entry(&operation.key).or_default().push(operation);
        }
    }
    let ok_count = history.ok_count();
    let mut verdict = match ok_count < limits.ok_min {
        true => Verdict::Unknown(format!(
            "only {ok_count} operations succeeded, {} are needed to say anything",
            limits.ok_min
        )),
        false => Verdict::Holds,
    };
    for (key, operations) in keys {
        let bound = search::Bound { configurations_max: limits.configurations_max, deadline };
        let of_key = search::key(&String::from_utf8_lossy(key), &operations, bound);
        verdict = verdict.and(of_key);
        if matches!(verdict, Verdict::Violated(_)) {
            break;
        }
    }
    verdict
}

#[cfg(test)]
mod tests;
