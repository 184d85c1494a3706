//! The checker itself is checked: it accepts what is linearizable, and it rejects every kind of lie
//! that it exists to find. A checker that cannot fail would be worse than none.

use proptest::prelude::*;

use super::*;
use crate::history::{Action, Answer};

/// One operation in short: `(client, action, invoked, returned, outcome)` on key `k`.
fn op(client: u32, action: Action, from: u64, to: u64, outcome: Outcome) -> Operation {
    let key = Bytes::from_static(b"k");
    Operation { client, key, action, invoked_ns: from, returned_ns: to, outcome }
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn set(client: u32, text: &str, from: u64, to: u64) -> Operation {
    op(client, Action::Set(value(text)), from, to, Outcome::Ok(Answer::Stored))
}

fn get(client: u32, text: Option<&str>, from: u64, to: u64) -> Operation {
    op(client, Action::Get, from, to, Outcome::Ok(Answer::Value(text.map(value))))
}

fn incr(client: u32, answer: i64, from: u64, to: u64) -> Operation {
    op(client, Action::Incr, from, to, Outcome::Ok(Answer::Number(answer)))
}

fn unknown(operation: Operation) -> Operation {
    Operation { outcome: Outcome::Unknown, ..operation }
}

fn failed(operation: Operation) -> Operation {
    Operation { outcome: Outcome::Failed, ..operation }
}

fn check(operations: Vec<Operation>) -> Verdict {
    linearizable(&History { operations }, Limits { ok_min: 1, ..Limits::default() })
}

fn holds(operations: Vec<Operation>) {
    assert_eq!(check(operations), Verdict::Holds);
}

fn violated(operations: Vec<Operation>) {
    let verdict = check(operations);
    assert!(matches!(verdict, Verdict::Violated(_)), "{verdict}");
}

#[test]
fn one_after_another() {
    holds(vec![get(1, None, 0, 1), set(1, "a", 2, 3), get(2, Some("a"), 4, 5)]);
}

#[test]
fn overlapping_writes_may_take_either_order() {
    holds(vec![set(1, "a", 0, 10), set(2, "b", 0, 10), get(3, Some("a"), 11, 12)]);
    holds(vec![set(1, "a", 0, 10), set(2, "b", 0, 10), get(3, Some("b"), 11, 12)]);
}

#[test]
fn a_read_during_a_write_may_see_either_value() {
    let during = |seen| vec![set(1, "a", 0, 1), set(1, "b", 2, 9), get(2, Some(seen), 3, 4)];
    holds(during("a"));
    holds(during("b"));
}

/// PITFALLS 28: a deposed leader answers with what was there before.
#[test]
fn a_stale_read_is_rejected() {
    violated(vec![set(1, "a", 0, 1), set(1, "b", 2, 3), get(2, Some("a"), 4, 5)]);
}

/// PITFALLS 62: one read saw the new value, a later one the old.
#[test]
fn reads_that_go_back_are_rejected() {
    let write = set(1, "b", 2, 20);
    violated(vec![set(1, "a", 0, 1), write, get(2, Some("b"), 3, 4), get(3, Some("a"), 5, 6)]);
}

/// PITFALLS 1: acknowledged, then gone.
#[test]
fn a_lost_update_is_rejected() {
    violated(vec![set(1, "a", 0, 1), get(2, None, 2, 3)]);
    violated(vec![incr(1, 1, 0, 1), incr(2, 1, 2, 3)]);
    violated(vec![incr(1, 1, 0, 9), incr(2, 1, 0, 9)]);
}

/// PITFALLS 82 and 102: one INCR runs twice.
#[test]
fn a_double_apply_is_rejected() {
    violated(vec![incr(1, 1, 0, 1), get(2, Some("2"), 2, 3)]);
    violated(vec![incr(1, 2, 0, 1)]);
    let unknown_once = unknown(incr(1, 0, 0, 1));
    violated(vec![unknown_once, incr(2, 3, 2, 3)]);
}

/// PITFALLS 102: a write comes back after it was overwritten.
#[test]
fn a_write_that_comes_back_is_rejected() {
    violated(vec![
        set(1, "a", 0, 1),
        get(2, Some("a"), 2, 3),
        set(1, "b", 4, 5),
        get(2, Some("b"), 6, 7),
        get(2, Some("a"), 8, 9),
    ]);
}

#[test]
fn an_unknown_write_may_happen_never_at_once_or_late() {
    let lost = || unknown(set(1, "a", 0, 1));
    holds(vec![lost(), get(2, None, 2, 3)]);
    holds(vec![lost(), get(2, Some("a"), 2, 3)]);
    holds(vec![lost(), get(2, None, 2, 3), set(2, "b", 4, 5), get(2, Some("a"), 6, 7)]);
}

#[test]
fn an_unknown_write_happens_once_and_not_before_it_was_sent() {
    let late = || unknown(set(1, "a", 10, 11));
    violated(vec![get(2, Some("a"), 2, 3), late()]);
    violated(vec![
        late(),
        get(2, Some("a"), 12, 13),
        set(2, "b", 14, 15),
        get(2, Some("a"), 16, 17),
    ]);
}

/// PITFALLS 34: an error said "not done", yet it was.
#[test]
fn a_refused_write_that_is_seen_is_rejected() {
    holds(vec![failed(set(1, "a", 0, 1)), get(2, None, 2, 3)]);
    violated(vec![failed(set(1, "a", 0, 1)), get(2, Some("a"), 2, 3)]);
    violated(vec![failed(incr(1, 0, 0, 1)), incr(2, 2, 2, 3)]);
}

#[test]
fn deletes_and_appends_are_understood() {
    let del = |n, from, to| op(1, Action::Del, from, to, Outcome::Ok(Answer::Number(n)));
    let append = |token: &str, length, from, to| {
        op(1, Action::Append(value(token)), from, to, Outcome::Ok(Answer::Number(length)))
    };
    holds(vec![set(1, "a", 0, 1), del(1, 2, 3), del(0, 4, 5), get(2, None, 6, 7)]);
    violated(vec![set(1, "a", 0, 1), del(0, 2, 3)]);
    holds(vec![append("x;", 2, 0, 1), append("y;", 4, 2, 3), get(2, Some("x;y;"), 4, 5)]);
    violated(vec![append("x;", 2, 0, 1), append("y;", 4, 2, 3), get(2, Some("y;x;"), 4, 5)]);
    violated(vec![append("x;", 4, 0, 1)]);
    // A delete that found something proves that the unknown write, which no read saw, was done.
    holds(vec![unknown(set(1, "a", 0, 1)), del(1, 2, 3)]);
    violated(vec![del(1, 2, 3)]);
}

/// PITFALLS 53: too little evidence, or a search that gave up, is no pass.
#[test]
fn too_little_evidence_is_unknown() {
    let few = History { operations: vec![set(1, "a", 0, 1)] };
    assert!(matches!(linearizable(&few, Limits::default()), Verdict::Unknown(_)));
    assert!(matches!(linearizable(&History::default(), Limits::default()), Verdict::Unknown(_)));
    // Sixty writes at once, then a read of none of them.
    let mut hard: Vec<Operation> = (0..60).map(|i| set(i, &format!("{i}"), 0, 100)).collect();
    hard.push(get(99, Some("nobody wrote this"), 101, 102));
    let limits = Limits { ok_min: 1, configurations_max: 5_000, ..Limits::default() };
    let verdict = linearizable(&History { operations: hard }, limits);
    assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict}");
}

#[test]
fn one_bad_key_among_good_ones_is_found() {
    let other = Operation { key: Bytes::from_static(b"z"), ..get(1, Some("never written"), 0, 1) };
    violated(vec![set(1, "a", 0, 1), get(1, Some("a"), 2, 3), other]);
}

#[test]
fn many_unknown_increments_are_cheap() {
    let mut operations: Vec<Operation> = (0..200).map(|i| unknown(incr(i, 0, 0, 1))).collect();
    operations.push(incr(300, 150, 2, 3));
    operations.push(get(300, Some("201"), 4, 5));
    holds(operations.clone());
    operations.push(get(300, Some("202"), 6, 7));
    violated(operations);
}

fn all(
    client: u32,
    actions: &[(&str, Action)],
    from: u64,
    to: u64,
    answers: &[Answer],
) -> Operation {
    let actions = actions.iter().map(|(key, action)| (value(key), action.clone())).collect();
    let outcome = Outcome::Ok(Answer::All(answers.to_vec()));
    Operation { key: Bytes::new(), ..op(client, Action::All(actions), from, to, outcome) }
}

fn on(key: &str, operation: Operation) -> Operation {
    Operation { key: value(key), ..operation }
}

/// Each key alone looks right: only together they show that the transaction was seen half done.
#[test]
fn a_transaction_that_is_seen_half_done_is_rejected() {
    let both = [("a", Action::Incr), ("b", Action::Incr)];
    let one = Answer::Number(1);
    let write = all(1, &both, 0, 9, &[one.clone(), one]);
    let look = |key, seen, from| on(key, get(2, seen, from, from + 1));
    holds(vec![write.clone(), look("a", None, 2), look("b", Some("1"), 4)]);
    holds(vec![write.clone(), look("a", Some("1"), 2), look("b", Some("1"), 4)]);
    violated(vec![write.clone(), look("a", Some("1"), 2), look("b", None, 4)]);
    let unsure = unknown(write);
    holds(vec![unsure.clone(), look("a", Some("1"), 20), look("b", Some("1"), 22)]);
    violated(vec![unsure, look("a", Some("1"), 20), look("b", None, 22)]);
}

/// What a watched key held when its transaction began is a read within the transaction.
#[test]
fn a_transaction_that_missed_a_change_is_rejected() {
    let guarded = [("a", Action::Get), ("a", Action::Set(value("2")))];
    let answers = [Answer::Value(Some(value("0"))), Answer::Stored];
    let before = || on("a", set(1, "0", 0, 1));
    holds(vec![before(), all(2, &guarded, 2, 9, &answers)]);
    violated(vec![before(), on("a", set(1, "1", 2, 3)), all(2, &guarded, 4, 9, &answers)]);
}

#[test]
fn compare_and_set_is_understood() {
    let swap = |stored: bool, from_value: &str, to_value: &str, from, to| {
        let answer = if stored { Answer::Stored } else { Answer::Value(None) };
        let action = Action::SetIfEq(value(from_value), value(to_value));
        op(1, action, from, to, Outcome::Ok(answer))
    };
    holds(vec![set(1, "a", 0, 1), swap(true, "a", "b", 2, 3), get(2, Some("b"), 4, 5)]);
    holds(vec![set(1, "a", 0, 1), swap(false, "x", "b", 2, 3), get(2, Some("a"), 4, 5)]);
    holds(vec![swap(false, "x", "b", 2, 3), get(2, None, 4, 5)]);
    violated(vec![set(1, "a", 0, 1), swap(true, "x", "b", 2, 3)]);
    violated(vec![set(1, "a", 0, 1), swap(false, "a", "b", 2, 3)]);
    // Two who swap the same value: one of them has to fail.
    let both = vec![set(1, "a", 0, 1), swap(true, "a", "b", 2, 9), swap(true, "a", "c", 2, 9)];
    violated(both);
    // A swap that fails tells values apart that no read has seen.
    let lost = || unknown(set(1, "b", 0, 1));
    holds(vec![set(1, "a", 2, 3), lost(), swap(false, "a", "c", 4, 5)]);
    violated(vec![set(1, "a", 2, 3), swap(false, "a", "c", 4, 5)]);
    violated(vec![lost(), swap(true, "b", "c", 4, 5), swap(true, "b", "d", 6, 7)]);
}

/// Each of these writes may be done or not, in any order, and nobody saw its value: that must not
/// cost a search of all subsets.
#[test]
fn many_unknown_transactions_are_cheap() {
    let write = |i: u32, text: &str, from, to| {
        let both = [("x", Action::Set(value(text))), ("y", Action::Set(value(text)))];
        all(i, &both, from, to, &[Answer::Stored, Answer::Stored])
    };
    let look = |seen: [&str; 2], from| {
        let both = [("x", Action::Get), ("y", Action::Get)];
        let answers = seen.map(|text| Answer::Value(Some(value(text))));
        all(99, &both, from, from + 1, &answers)
    };
    let mut operations: Vec<Operation> =
        (0..100).map(|i| unknown(write(i, &format!("lost{i}"), 0, 1))).collect();
    for i in 0..50 {
        operations.push(write(98, &format!("{i}"), 10 * i + 2, 10 * i + 3));
        operations.push(look([&format!("{i}"), &format!("{i}")], 10 * i + 4));
    }
    holds(operations.clone());
    operations.push(look(["49", "48"], 1_000));
    violated(operations);
}

/// A history as a correct server makes it: each operation takes effect at a point within its span.
fn honest(seed: Vec<(u8, u64, u64, u8)>) -> Vec<Operation> {
    let mut planned: Vec<(u64, u32, u64, u64, u8, u8)> = Vec::new();
    let mut clock = [0u64; 6];
    for (index, (kind, before, after, fate)) in seed.into_iter().enumerate() {
        let client = index % clock.len();
        let invoked = clock[client] + 1;
        let effect = invoked + before;
        let returned = effect + after + 1;
        clock[client] = returned;
        planned.push((effect, client as u32, invoked, returned, kind, fate));
    }
    planned.sort();
    let mut state: Option<Bytes> = None;
    let mut operations = Vec::new();
    for (number, (_, client, invoked, returned, kind, fate)) in planned.into_iter().enumerate() {
        let happens = fate != 0;
        let fresh = value(&number.to_string());
        let (action, answer, after) = match kind % 4 {
            0 | 1 => (Action::Get, Answer::Value(state.clone()), state.clone()),
            2 => (Action::Set(fresh.clone()), Answer::Stored, Some(fresh)),
            _ => (Action::Del, Answer::Number(i64::from(state.is_some())), None),
        };
        // 0: never done and unknown; 1: done and unknown; else done and known.
        if happens {
            state = after;
        }
        let outcome = if fate < 2 { Outcome::Unknown } else { Outcome::Ok(answer) };
        operations.push(op(client, action, invoked, returned, outcome));
    }
    operations
}

/// All orders, tried one by one: slow, and too simple to be wrong.
fn by_brute_force(operations: &[Operation]) -> bool {
    fn go(left: &[Operation], state: &Option<Bytes>) -> bool {
        if left.iter().all(|op| op.outcome == Outcome::Unknown) {
            return true;
        }
        let known = left.iter().filter(|op| op.outcome != Outcome::Unknown);
        let horizon = known.map(|op| op.returned_ns).min().unwrap_or(u64::MAX);
        (0..left.len()).any(|i| {
            let next = &left[i];
            if next.invoked_ns > horizon {
                return false;
            }
            let (answer, after) = match &next.action {
                Action::Set(value) => (Answer::Stored, Some(value.clone())),
                Action::Get => (Answer::Value(state.clone()), state.clone()),
                Action::Del => (Answer::Number(i64::from(state.is_some())), None),
                _ => unreachable!("not made here"),
            };
            let fits = match &next.outcome {
                Outcome::Ok(seen) => *seen == answer,
                _ => true,
            };
            let mut rest = left.to_vec();
            rest.remove(i);
            fits && go(&rest, &after)
        })
    }
    go(operations, &None)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn honest_histories_hold(seed in prop::collection::vec((0u8..4, 0u64..9, 0u64..9, 0u8..12), 1..120)) {
        let verdict = check(honest(seed));
        prop_assert!(!matches!(verdict, Verdict::Violated(_)), "{}", verdict);
    }

    /// One answer of an honest history is changed: the search and brute force agree on whether
    /// that can still be explained.
    #[test]
    fn agrees_with_brute_force(
        seed in prop::collection::vec((0u8..4, 0u64..6, 0u64..6, 0u8..8), 1..7),
        victim in 0usize..7,
        lie in 0u8..7,
    ) {
        let mut operations = honest(seed);
        let victim = victim % operations.len();
        if let Outcome::Ok(Answer::Value(seen)) = &mut operations[victim].outcome {
            *seen = (lie > 0).then(|| value(&(lie - 1).to_string()));
        }
        let any_known = operations.iter().any(|op| op.outcome != Outcome::Unknown);
        let expected = by_brute_force(&operations);
        match check(operations) {
            Verdict::Holds => prop_assert!(expected && any_known),
            Verdict::Violated(_) => prop_assert!(!expected),
            Verdict::Unknown(_) => prop_assert!(!any_known),
        }
    }
}
