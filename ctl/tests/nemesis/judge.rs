//! What is asked when all is over, and what a checker worth its name must find.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use monitoring::status::NodeStatus;
use proof::check::{Limits, Verdict, linearizable};
use proof::history::{Action, Answer, History, Operation, Outcome};

use crate::clients::READER;

/// How many operations of each kind succeeded.
pub(crate) fn succeeded(history: &History) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for operation in &history.operations {
        if let Outcome::Ok(answer) = &operation.outcome {
            let kind = match (&operation.action, answer) {
                (Action::Set(_), _) => "SET",
                (Action::SetIfEq(..), Answer::Stored) => "SET IFEQ",
                (Action::SetIfEq(..), _) => "SET IFEQ, another value",
                (Action::Get, _) => "GET",
                (Action::Del, _) => "DEL",
                (Action::Incr, _) => "INCR",
                (Action::Append(_), _) => "APPEND",
                (Action::All(_), _) => "EXEC",
            };
            *counts.entry(kind).or_default() += 1;
        }
    }
    counts
}

/// At how many slots all these nodes published a hash of their state, all equal. Fails with the first
/// slot at which two differ.
pub(crate) fn compare_states(statuses: &BTreeMap<u32, NodeStatus>) -> Result<usize, String> {
    let mut hashes: BTreeMap<u64, (u32, &str, usize)> = BTreeMap::new();
    for (id, status) in statuses {
        for at in &status.state_hashes {
            let (first, hash, count) = hashes.entry(at.slot).or_insert((*id, &at.hash, 0));
            if *hash != at.hash {
                return Err(format!("slot {}: n{first} and n{id} differ", at.slot));
            }
            *count += 1;
        }
    }
    Ok(hashes.values().filter(|(_, _, count)| *count == statuses.len()).count())
}

/// Every ballot that anybody led: it is led once, by the node that it names. Takes what each node
/// has said since its first start.
pub(crate) fn ballots_led(said: &BTreeMap<u32, String>) -> Result<usize, String> {
    let mut led = BTreeSet::new();
    for (id, text) in said {
        for line in text.lines().filter(|line| line.contains("this node leads")) {
            let Some(ballot) = line.split("ballot=").nth(1).and_then(|rest| rest.split(' ').next())
            else {
                return Err(format!("n{id} leads in no ballot: {line}"));
            };
            if !ballot.ends_with(&format!(".{id}")) {
                return Err(format!("n{id} leads in another's ballot: {line}"));
            }
            if !led.insert(ballot.to_owned()) {
                return Err(format!("n{id} leads a second time in {ballot}"));
            }
        }
    }
    Ok(led.len())
}

/// A lie told about a recorded history.
pub(crate) struct Lie {
    pub(crate) what: &'static str,
    tell: fn(&mut [Operation]) -> bool,
}

pub(crate) const LIES: [Lie; 5] = [
    Lie { what: "an acknowledged write is lost", tell: lose_a_write },
    Lie { what: "a read is stale", tell: read_something_stale },
    Lie { what: "a transaction is seen half done", tell: halve_a_transaction },
    Lie { what: "an INCR is done twice", tell: double_an_increment },
    Lie { what: "a refused write is seen", tell: refuse_what_was_done },
];

impl Lie {
    /// What the checker says of the history with this lie in it, told about the first object where
    /// it can be told. Of the same object without the lie it must say that all is well.
    pub(crate) fn verdict(&self, history: &History, limits: Limits) -> Result<Verdict, String> {
        let limits = Limits { ok_min: 1, ..limits };
        for operations in by_object(history).into_values() {
            let mut told = operations.clone();
            if (self.tell)(&mut told) {
                let honest = linearizable(&History { operations }, limits);
                if honest != Verdict::Holds {
                    return Err(format!("without the lie: {honest}"));
                }
                return Ok(linearizable(&History { operations: told }, limits));
            }
        }
        Err("there is nothing to tell it about".to_owned())
    }
}

/// Operations by the object that they are about: the parts of a transaction's keys belong together.
fn by_object(history: &History) -> BTreeMap<Bytes, Vec<Operation>> {
    let mut objects: BTreeMap<Bytes, Vec<Operation>> = BTreeMap::new();
    for operation in &history.operations {
        let Some(key) = operation.keys().next() else { continue };
        let parts: Vec<&[u8]> = key.split(|byte| *byte == b':').take(3).collect();
        objects.entry(parts.join(&b':').into()).or_default().push(operation.clone());
    }
    objects
}

/// Two acknowledged writes of one key, by their places, the first returned before the second began.
/// Nothing else is said of the key's values between them: each value is written once.
fn overwritten(operations: &[Operation], key: &Bytes) -> Option<(usize, usize)> {
    let is_set = |operation: &Operation| {
        let set = matches!(operation.action, Action::Set(_)) && operation.key == *key;
        set && operation.outcome == Outcome::Ok(Answer::Stored)
    };
    let sets: Vec<usize> = (0..operations.len()).filter(|at| is_set(&operations[*at])).collect();
    let first = *sets.iter().min_by_key(|at| operations[**at].returned_ns)?;
    let later = sets
        .iter()
        .copied()
        .find(|at| operations[*at].invoked_ns > operations[first].returned_ns)?;
    Some((first, later))
}

fn written(operation: &Operation) -> Bytes {
    match &operation.action {
        Action::Set(value) => value.clone(),
        other => unreachable!("{other:?} was not asked for"),
    }
}

/// The last read finds what was overwritten long ago.
fn lose_a_write(operations: &mut [Operation]) -> bool {
    let is_last = |operation: &&Operation| operation.client == READER;
    let Some(key) = operations.iter().find(is_last).map(|last| last.key.clone()) else {
        return false;
    };
    let Some((first, _)) = overwritten(operations, &key) else { return false };
    let answer = Answer::Value(Some(written(&operations[first])));
    let last = operations.iter_mut().rfind(|op| op.client == READER && op.key == key);
    last.expect("it was found before").outcome = Outcome::Ok(answer);
    true
}

/// A read in the middle finds what was overwritten before it began.
fn read_something_stale(operations: &mut [Operation]) -> bool {
    let keys: BTreeSet<Bytes> = operations.iter().map(|operation| operation.key.clone()).collect();
    for key in keys {
        let Some((first, later)) = overwritten(operations, &key) else { continue };
        let value = written(&operations[first]);
        let overwritten_ns = operations[later].returned_ns;
        let read = operations.iter_mut().find(|op| {
            op.client != READER
                && op.key == key
                && op.action == Action::Get
                && matches!(op.outcome, Outcome::Ok(_))
                && op.invoked_ns > overwritten_ns
        });
        if let Some(read) = read {
            read.outcome = Outcome::Ok(Answer::Value(Some(value)));
            return true;
        }
    }
    false
}

/// Two keys that were written together are read together: one new, one as it was before.
fn halve_a_transaction(operations: &mut [Operation]) -> bool {
    let both = |operation: &Operation| -> Option<[Bytes; 2]> {
        let Action::All(actions) = &operation.action else { return None };
        let [(_, Action::Get), (_, Action::Get)] = &actions[..] else { return None };
        let Outcome::Ok(Answer::All(answers)) = &operation.outcome else { return None };
        match &answers[..] {
            [Answer::Value(Some(x)), Answer::Value(Some(y))] => Some([x.clone(), y.clone()]),
            _ => None,
        }
    };
    // Two such reads one after another, each of a whole write of both keys.
    let reads: Vec<(usize, [Bytes; 2])> = (0..operations.len())
        .filter_map(|at| Some((at, both(&operations[at])?)))
        .filter(|(_, [x, y])| x == y)
        .collect();
    for (old, [_, before]) in &reads {
        for (new, [x, _]) in &reads {
            let after = operations[*old].returned_ns < operations[*new].invoked_ns;
            if after && x != before {
                let halves = [x, before].map(|value| Answer::Value(Some(value.clone())));
                operations[*new].outcome = Outcome::Ok(Answer::All(halves.into()));
                return true;
            }
        }
    }
    false
}

/// From one increment on, every number is one more than it was.
fn double_an_increment(operations: &mut [Operation]) -> bool {
    let counts = |op: &Operation| matches!(op.action, Action::Incr | Action::Get);
    let known = |op: &Operation| op.outcome != Outcome::Unknown || op.action == Action::Get;
    // With one of unknown fate there, there would be an honest reason.
    if !operations.iter().all(|op| counts(op) && known(op)) {
        return false;
    }
    let is_second =
        |op: &Operation| op.action == Action::Incr && op.outcome == Outcome::Ok(Answer::Number(2));
    if !operations.iter().any(is_second) {
        return false;
    }
    for operation in operations {
        match &mut operation.outcome {
            Outcome::Ok(Answer::Number(number)) if *number >= 2 => *number += 1,
            Outcome::Ok(Answer::Value(Some(digits))) => {
                let number: i64 = std::str::from_utf8(digits).unwrap_or("").parse().unwrap_or(0);
                if number >= 2 {
                    *digits = (number + 1).to_string().into();
                }
            }
            _ => {}
        }
    }
    true
}

/// A write whose value somebody read was answered by an error.
fn refuse_what_was_done(operations: &mut [Operation]) -> bool {
    let mut read = BTreeSet::new();
    for operation in operations.iter() {
        if let Outcome::Ok(Answer::Value(Some(value))) = &operation.outcome {
            read.insert(value.clone());
        }
    }
    let seen = |op: &&mut Operation| {
        matches!(&op.action, Action::Set(value) if read.contains(value))
            && op.outcome == Outcome::Ok(Answer::Stored)
    };
    let Some(write) = operations.iter_mut().find(seen) else { return false };
    write.outcome = Outcome::Failed;
    true
}

/// An object of one key that holds something at the end, and all that is known of it.
pub(crate) fn one_that_is_there(history: &History) -> History {
    let is_there = |operations: &Vec<Operation>| {
        let alone = |op: &Operation| op.key.starts_with(b"c:") || op.key.starts_with(b"r:");
        let holds = |op: &Operation| {
            op.client == READER && matches!(op.outcome, Outcome::Ok(Answer::Value(Some(_))))
        };
        let known = |op: &Operation| op.outcome != Outcome::Unknown;
        operations.iter().all(|op| alone(op) && known(op)) && operations.iter().any(holds)
    };
    let operations = by_object(history).into_values().find(is_there);
    History { operations: operations.expect("a key that holds something") }
}

#[test]
fn a_ballot_that_is_led_twice_is_found() {
    let said = |texts: &[(u32, &str)]| {
        let lines = texts.iter().map(|(id, text)| (*id, (*text).to_owned()));
        ballots_led(&lines.collect())
    };
    let line = |ballot: &str| format!("INFO node: this node leads ballot={ballot} adopted=0\n");
    let (one, two) = (line("0.1.1"), line("0.2.2"));
    assert_eq!(said(&[(1, &one), (2, &two)]), Ok(2));
    let again = format!("{one}… started …\n{one}");
    assert!(said(&[(1, &again), (2, &two)]).is_err_and(|found| found.contains("second time")));
    assert!(said(&[(1, &two)]).is_err_and(|found| found.contains("another's")));
    assert!(said(&[(1, "this node leads")]).is_err());
}

#[test]
fn states_that_differ_are_found() {
    let node = |hashes: &[(u64, &str)]| {
        let hash = |(slot, hash): &(u64, &str)| monitoring::status::StateHash {
            slot: *slot,
            hash: (*hash).to_owned(),
        };
        NodeStatus { state_hashes: hashes.iter().map(hash).collect(), ..NodeStatus::default() }
    };
    let (one, two) = (node(&[(64, "a"), (128, "b")]), node(&[(128, "b"), (192, "c")]));
    assert_eq!(compare_states(&[(1, one.clone()), (2, two)].into()), Ok(1));
    assert_eq!(compare_states(&[(1, one.clone()), (2, NodeStatus::default())].into()), Ok(0));
    let other = node(&[(64, "x")]);
    assert!(compare_states(&[(1, one), (2, other)].into()).is_err());
}
