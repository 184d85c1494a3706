//! Commands: one table says what there is ([`table::COMMANDS`]), one file a family says how its
//! arguments are read. What a command *does* is elsewhere: data commands become [`Write`]s and
//! [`Read`]s for the store; the others are answered right here, from a [`Door`].
//!
//! The way of a command: [`check`] (does it exist, has it the right number of arguments?),
//! [`authorize`] (may this user?), [`parse`] (do the arguments make sense?), then by [`Class`]:
//! `Connection` and `Server` commands through [`answer`], at once, on any node; `Read` and `Write`
//! through the store, on the leader. Whatever can be refused without the store is refused here,
//! in Redis's order and with its words, so that nonsense never costs a place in the log. Apply
//! reads the arguments again and trusts nobody.

mod access;
mod client;
pub mod cluster;
mod connection;
mod context;
mod expiry;
mod introspect;
mod keys;
mod keyslot;
pub mod number;
mod once;
pub mod operation;
mod server;
mod spec;
mod strings;
mod syntax;
pub mod table;

pub use access::{authenticate, authorize};
pub use cluster::node_name;
pub use connection::REDIS_VERSION;
pub use context::{ConnectionState, Door, Identity, Member, Role, ServerView, User};
pub use keyslot::{HASH_SLOTS, hash_slot};
pub use once::carried;
pub use operation::{Operation, Read, Write};
pub use spec::{Answer, Class, Group, Handler, Keys, OldValue, ParseRead, ParseWrite, Spec, Work};
pub use strings::NOT_A_FLOAT;

use crate::resp::Reply;

pub(crate) const OUT_OF_INT: &str =
    "ERR value is out of range, value must between -2147483648 and 2147483647";

/// The command that `argv` calls, or the error that the client gets: it does not exist, or has
/// the wrong number of arguments.
pub fn check(argv: &[&[u8]]) -> Result<&'static Spec, Reply> {
    let spec = find(argv)?;
    if !spec.accepts(argv.len()) {
        return Err(wrong_number_of_arguments(spec.name));
    }
    Ok(spec)
}

/// Reads the arguments of a command; what `check` said of `argv` must have been `spec`. Apart from
/// `check`, because Redis asks who the client is in between.
pub fn parse<'a>(spec: &Spec, argv: &'a [&'a [u8]]) -> Result<Operation<'a>, Reply> {
    match spec.handler {
        Handler::Write(parse) => parse(argv).map(Operation::Write),
        Handler::Read(parse) => parse(argv).map(Operation::Read),
        Handler::Answer(_) | Handler::Transaction => Ok(Operation::Answer),
    }
}

/// Whether the arguments of a data command make sense, for commands that go on as they are.
pub fn validate(spec: &Spec, argv: &[&[u8]]) -> Result<(), Reply> {
    parse(spec, argv).map(|_| ())
}

/// Answers a command of the classes Connection and Server.
pub fn answer(spec: &'static Spec, door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    match spec.handler {
        Handler::Answer(answer) => answer(door, argv),
        Handler::Write(_) | Handler::Read(_) | Handler::Transaction => {
            unreachable!("{} goes through the node, not through the door", spec.name)
        }
    }
}

/// The entry of the table; for a command with subcommands, that of the subcommand.
pub fn find(argv: &[&[u8]]) -> Result<&'static Spec, Reply> {
    let Some(container) = argv.first().and_then(|name| table::lookup(name)) else {
        return Err(unknown_command(argv));
    };
    if container.subcommands.is_empty() || argv.len() < 2 {
        return Ok(container);
    }
    let prefix = container.name.len() + 1;
    let mut subcommands = container.subcommands.iter();
    subcommands
        .find(|spec| argv[1].eq_ignore_ascii_case(&spec.name.as_bytes()[prefix..]))
        .ok_or_else(|| {
            let called = shown(argv[0]).to_uppercase();
            let subcommand = cut(argv[1], 128);
            Reply::error(format!("ERR unknown subcommand '{subcommand}'. Try {called} HELP."))
        })
}

/// A command that is nothing without a subcommand; its arity says so before this can.
fn container(_door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    wrong_number_of_arguments(&shown(argv[0]).to_lowercase())
}

pub(crate) fn wrong_number_of_arguments(name: &str) -> Reply {
    Reply::error(format!("ERR wrong number of arguments for '{name}' command"))
}

fn unknown_command(argv: &[&[u8]]) -> Reply {
    let name = cut(argv.first().copied().unwrap_or_default(), 128);
    let mut arguments = String::new();
    for argument in argv.iter().skip(1) {
        if arguments.len() >= 128 {
            break;
        }
        arguments.push_str(&format!("'{}' ", cut(argument, 128 - arguments.len())));
    }
    Reply::error(format!("ERR unknown command '{name}', with args beginning with: {arguments}"))
}

/// A client's text inside an error: up to the first zero byte, as C sees it.
pub(crate) fn shown(text: &[u8]) -> String {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

fn cut(text: &[u8], length_max: usize) -> String {
    shown(&text[..text.len().min(length_max)])
}

/// The answer of a `HELP` subcommand, in the layout that Redis uses.
pub(crate) fn help(command: &str, subcommands: &[(&str, &str)]) -> Reply {
    let title = format!("{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let mut lines = vec![Reply::Simple(title.into())];
    for (usage, meaning) in subcommands {
        lines.push(Reply::Simple((*usage).to_owned().into()));
        lines.push(Reply::Simple(format!("    {meaning}").into()));
    }
    lines.push(Reply::status("HELP"));
    lines.push(Reply::status("    Prints this help."));
    Reply::Array(lines)
}
