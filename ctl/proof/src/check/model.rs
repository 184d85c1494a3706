//! What a key does, one action at a time: the specification that the cluster is held against.
//!
//! Values are replaced by small numbers, so that the search compares and stores them cheaply.

use std::collections::HashMap;

use bytes::Bytes;

use crate::history::{Action, Answer};

/// A value of the key by its number; see [`Values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct State(u32);

/// The key does not exist.
pub(super) const ABSENT: State = State(0);

/// All values seen, each once.
#[derive(Debug)]
pub(super) struct Values {
    numbers: HashMap<Bytes, State>,
    /// Indexed by state; the place of `ABSENT` is never looked at.
    values: Vec<Bytes>,
}

impl Values {
    pub(super) fn new() -> Values {
        Values { numbers: HashMap::new(), values: vec![Bytes::new()] }
    }

    pub(super) fn state_of(&mut self, value: &Bytes) -> State {
        if let Some(state) = self.numbers.get(value) {
            return *state;
        }
        let state = State(u32::try_from(self.values.len()).expect("fewer values than 4 billion"));
        self.values.push(value.clone());
        self.numbers.insert(value.clone(), state);
        state
    }

    pub(super) fn value(&self, state: State) -> Option<&Bytes> {
        (state != ABSENT).then(|| &self.values[state.0 as usize])
    }

    /// In words.
    pub(super) fn show(&self, state: State) -> String {
        self.value(state).map_or("nothing".to_owned(), |v| String::from_utf8_lossy(v).into_owned())
    }

    /// What the action answers in this state, and the state after it. `None` where Redis answers an
    /// error, which changes nothing.
    pub(super) fn apply(&mut self, state: State, action: &Action) -> Option<(State, Answer)> {
        match action {
            Action::Set(value) => Some((self.state_of(value), Answer::Stored)),
            Action::SetIfEq(expected, value) => Some(match self.value(state) == Some(expected) {
                true => (self.state_of(value), Answer::Stored),
                false => (state, Answer::Value(None)),
            }),
            Action::Get => Some((state, Answer::Value(self.value(state).cloned()))),
            Action::Del => Some((ABSENT, Answer::Number(i64::from(state != ABSENT)))),
            Action::Incr => {
                let digits = self.value(state).map_or(&b"0"[..], |value| &value[..]);
                let number: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
                let next = number.checked_add(1)?;
                let state = self.state_of(&Bytes::from(next.to_string()));
                Some((state, Answer::Number(next)))
            }
            Action::Append(token) => {
                let mut value = self.value(state).map_or(Vec::new(), |value| value.to_vec());
                value.extend_from_slice(token);
                let length = value.len() as i64;
                Some((self.state_of(&value.into()), Answer::Number(length)))
            }
            Action::All(_) => unreachable!("taken apart before"),
        }
    }
}
