//! An action in Redis's words, and what Redis answers as the checker takes it.

use bytes::Bytes;

use crate::client::Command;
use crate::history::{Action, Answer};
use crate::resp::Reply;

/// The command that does `action` to `key`. Several actions at one instant are no single command:
/// see [`Client::transaction`](crate::client::Client::transaction).
pub fn command(key: &Bytes, action: &Action) -> Command {
    let word = Bytes::from_static;
    let key = key.clone();
    match action {
        Action::Set(value) => vec![word(b"SET"), key, value.clone()],
        Action::SetIfEq(expected, value) => {
            vec![word(b"SET"), key, value.clone(), word(b"IFEQ"), expected.clone()]
        }
        Action::Get => vec![word(b"GET"), key],
        Action::Del => vec![word(b"DEL"), key],
        Action::Incr => vec![word(b"INCR"), key],
        Action::Append(token) => vec![word(b"APPEND"), key, token.clone()],
        Action::All(_) => panic!("a transaction is several commands"),
    }
}

/// What a reply says of the action. `None` for one that its command does not have: the server is
/// broken.
pub fn answer(action: &Action, reply: &Reply) -> Option<Answer> {
    match (action, reply) {
        (Action::Set(_) | Action::SetIfEq(..), Reply::Simple(ok)) if ok == "OK" => {
            Some(Answer::Stored)
        }
        (Action::Get, Reply::Bulk(value)) => Some(Answer::Value(Some(value.clone()))),
        (Action::Get | Action::SetIfEq(..), Reply::Nil) => Some(Answer::Value(None)),
        (Action::Del | Action::Incr | Action::Append(_), Reply::Integer(number)) => {
            Some(Answer::Number(*number))
        }
        (Action::All(actions), Reply::Array(replies)) if actions.len() == replies.len() => {
            let each = actions.iter().zip(replies);
            let answers = each.map(|((_, action), reply)| answer(action, reply));
            answers.collect::<Option<Vec<Answer>>>().map(Answer::All)
        }
        _ => None,
    }
}
