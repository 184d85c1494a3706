//! `ONCE`: a write that is carried out once however often it is sent.

use super::number::parse_i64;
use super::operation::Write;
use super::spec::{Class, Spec};
use crate::resp::Reply;

/// `ONCE OPEN`, or `ONCE session number command [argument …]`
pub(super) fn once<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    match argv {
        [_, open] if open.eq_ignore_ascii_case(b"open") => Ok(Write::OpenSession),
        [_, session, number, command @ ..] if !command.is_empty() => {
            let positive = |text: &[u8]| parse_i64(text).and_then(|value| value.try_into().ok());
            let session = positive(session)
                .ok_or(Reply::error("ERR the session of ONCE is the number that ONCE OPEN gave"))?;
            let number = positive(number).filter(|number| *number > 0).ok_or(Reply::error(
                "ERR the number of ONCE counts the commands of its session: 1, 2, 3, …",
            ))?;
            check_carried(command)?;
            Ok(Write::Once { session, number, command })
        }
        _ => Err(super::wrong_number_of_arguments("once")),
    }
}

/// What makes no sense is refused before it takes a number.
fn check_carried(command: &[&[u8]]) -> Result<(), Reply> {
    let spec = super::check(command)?;
    if spec.class != Class::Write || spec.name == "once" {
        return Err(Reply::error(format!(
            "ERR ONCE carries one write, '{}' is none: send it by itself",
            spec.name
        )));
    }
    super::validate(spec, command)
}

/// The command that `argv` comes down to: what `ONCE` carries, or itself.
pub fn carried<'a>(spec: &'static Spec, argv: &'a [&'a [u8]]) -> (&'static Spec, &'a [&'a [u8]]) {
    match argv.get(3..) {
        Some(command) if spec.name == "once" => match super::check(command) {
            Ok(carried) => (carried, command),
            Err(_) => (spec, argv),
        },
        _ => (spec, argv),
    }
}
