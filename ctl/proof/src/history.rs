//! What was asked, when, and what came of it: the input of the checker.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What an operation does to its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Set(Bytes),
    /// The second value, if the key holds the first: `SET … IFEQ`. Not stored is answered by nil.
    SetIfEq(Bytes, Bytes),
    Get,
    Del,
    Incr,
    Append(Bytes),
    /// Several actions on several keys, all at one instant: `MULTI … EXEC`. None of them is another
    /// of its kind.
    All(Vec<(Bytes, Action)>),
}

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Stored,
    Value(Option<Bytes>),
    Number(i64),
    /// Of each action, in order.
    All(Vec<Answer>),
}

/// What is known of an operation's effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, between its two times.
    Ok(Answer),
    /// Surely not done, now or later.
    Failed,
    /// Not answered. It may take effect at any time after it was invoked, or never.
    Unknown,
}

/// One operation of one client on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub client: u32,
    /// Empty where the action names several.
    pub key: Bytes,
    pub action: Action,
    /// Nanoseconds on the one clock of this history.
    pub invoked_ns: u64,
    /// When the answer was read. Says nothing when the outcome is unknown.
    pub returned_ns: u64,
    pub outcome: Outcome,
}

impl Operation {
    /// Every key that it names, as often as it names it.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let (one, several) = match &self.action {
            Action::All(actions) => (None, &actions[..]),
            _ => (Some(&self.key), &[][..]),
        };
        one.into_iter().chain(several.iter().map(|(key, _)| key))
    }

    /// What it does to each of [`Operation::keys`].
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        let (one, several) = match &self.action {
            Action::All(actions) => (None, &actions[..]),
            action => (Some(action), &[][..]),
        };
        one.into_iter().chain(several.iter().map(|(_, action)| action))
    }
}

/// All operations on the keys that they name. The checker relies on "all": an operation that was
/// left out would make an honest server look like a liar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub operations: Vec<Operation>,
}

impl History {
    pub fn merge(&mut self, other: History) {
        self.operations.extend(other.operations);
    }

    pub fn ok_count(&self) -> usize {
        self.operations.iter().filter(|op| matches!(op.outcome, Outcome::Ok(_))).count()
    }

    pub fn unknown_count(&self) -> usize {
        self.operations.iter().filter(|op| op.outcome == Outcome::Unknown).count()
    }

    /// One JSON object a line, for a person or another checker.
    pub fn write_json_lines(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        for operation in &self.operations {
            serde_json::to_writer(&mut *out, &Line::from(operation))?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// An operation in words, as JSON shows it.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    client: u32,
    key: String,
    action: String,
    argument: Option<String>,
    invoked_ns: u64,
    returned_ns: Option<u64>,
    outcome: String,
    answer: Option<String>,
}

impl From<&Operation> for Line {
    fn from(operation: &Operation) -> Line {
        let (action, argument) = match &operation.action {
            Action::Set(value) => ("set", Some(text(value))),
            Action::SetIfEq(expected, value) => {
                ("set if equal", Some(format!("{} -> {}", text(expected), text(value))))
            }
            Action::Get => ("get", None),
            Action::Del => ("del", None),
            Action::Incr => ("incr", None),
            Action::Append(token) => ("append", Some(text(token))),
            Action::All(actions) => ("all", Some(format!("{actions:?}"))),
        };
        let (outcome, answer) = match &operation.outcome {
            Outcome::Ok(Answer::Stored) => ("ok", None),
            Outcome::Ok(Answer::Value(value)) => ("ok", value.as_ref().map(text)),
            Outcome::Ok(Answer::Number(number)) => ("ok", Some(number.to_string())),
            Outcome::Ok(Answer::All(answers)) => ("ok", Some(format!("{answers:?}"))),
            Outcome::Failed => ("failed", None),
            Outcome::Unknown => ("unknown", None),
        };
        let known = operation.outcome != Outcome::Unknown;
        Line {
            client: operation.client,
            key: text(&operation.key),
            action: action.to_owned(),
            argument,
            invoked_ns: operation.invoked_ns,
            returned_ns: known.then_some(operation.returned_ns),
            outcome: outcome.to_owned(),
            answer,
        }
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
