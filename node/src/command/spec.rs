//! What the table says of a command: everything that `COMMAND` tells a client, and what the door
//! needs to know to check, route and run it.

use super::context::Door;
use super::operation::{Read, Write};
use crate::resp::Reply;

/// Where a command is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// At once, by any node, from what it knows of this connection.
    Connection,
    /// At once, by any node, from what it knows of itself and the cluster.
    Server,
    /// On the store, outside the log, linearizable.
    Read,
    /// Through the log.
    Write,
    /// By the node, which knows what a connection has queued and watches.
    Transaction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Generic,
    String,
    Transactions,
    Connection,
    Server,
    Cluster,
}

impl Group {
    pub fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::Transactions => "transactions",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Cluster => "cluster",
        }
    }
}

/// Reads arguments into an operation, or says what is wrong with them. The name is `argv[0]`.
pub type ParseWrite = for<'a> fn(&'a [&'a [u8]]) -> Result<Write<'a>, Reply>;
pub type ParseRead = for<'a> fn(&'a [&'a [u8]]) -> Result<Read<'a>, Reply>;
pub type Answer = fn(&mut Door<'_>, &[&[u8]]) -> Reply;

#[derive(Clone, Copy)]
pub enum Handler {
    Write(ParseWrite),
    Read(ParseRead),
    Answer(Answer),
    Transaction,
}

/// Positions of keys: the one at `first`, and every `step`-th after it, up to `last` places
/// further; a negative `last` counts from the end of the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    pub first: usize,
    pub last: i32,
    pub step: usize,
    /// What is done with them, in the words of Redis's key specifications: `RO access`.
    pub access: &'static str,
    pub notes: &'static str,
}

impl Keys {
    pub fn of<'a>(&self, argv: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let end = match usize::try_from(self.last) {
            Ok(last) => (self.first + last + 1).min(argv.len()),
            Err(_) => (argv.len() + 1).saturating_sub(self.last.unsigned_abs() as usize),
        };
        (self.first..end).step_by(self.step).map(|index| argv[index])
    }
}

#[derive(Clone, Copy)]
pub struct Spec {
    /// Lower case; of a subcommand the full name, `client|setname`.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least so many.
    pub arity: i32,
    pub class: Class,
    pub group: Group,
    /// Flags as in `COMMAND INFO`, separated by spaces, in Redis's order.
    pub flags: &'static str,
    /// Categories beyond those that follow from the flags: `keyspace`, `string`, …
    pub categories: &'static str,
    pub tips: &'static str,
    pub keys: &'static [Keys],
    pub since: &'static str,
    pub complexity: &'static str,
    pub summary: &'static str,
    pub handler: Handler,
    pub subcommands: &'static [Spec],
    pub work: Work,
    /// A read whose answer hangs on the leader's clock, which runs between the entries of the log.
    pub needs_clock: bool,
    /// A write that makes a value longer than its arguments are.
    pub extends_value: bool,
    pub old_value: OldValue,
}

/// What a read costs, as far as the length of its reply does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Little,
    /// So much that it is the last of its turn.
    ATurn,
    /// So much that a turn does a slice of it.
    Slices,
}

/// Whether a write answers with the value that it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldValue {
    Never,
    Always,
    /// With this option, which stands behind key and value.
    WithOption(&'static str),
}

impl Spec {
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.split(' ').any(|mine| mine == flag)
    }

    /// Whether it may be run before the client has authenticated.
    pub fn needs_no_auth(&self) -> bool {
        self.has_flag("no_auth")
    }

    pub fn is_write(&self) -> bool {
        self.class == Class::Write
    }

    /// Whether a write may answer with the value that it found.
    pub fn answers_value(&self, argv: &[&[u8]]) -> bool {
        match self.old_value {
            OldValue::Never => false,
            OldValue::Always => true,
            OldValue::WithOption(name) => {
                argv.iter().skip(3).any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
            }
        }
    }

    /// The keys among `argv`; empty for a keyless command, which is never redirected.
    pub fn keys<'a>(
        &'static self,
        argv: &'a [&'a [u8]],
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.keys.iter().flat_map(move |keys| keys.of(argv))
    }

    /// First key, last key and step, as `COMMAND` has told them since its beginning.
    pub fn key_range(&self) -> (i64, i64, i64) {
        let Some(first) = self.keys.first() else { return (0, 0, 0) };
        let last = self.keys.iter().map(|keys| match keys.last {
            last if last < 0 => i64::from(last),
            last => keys.first as i64 + i64::from(last),
        });
        (first.first as i64, last.max().unwrap_or(0), first.step as i64)
    }

    pub fn accepts(&self, argument_count: usize) -> bool {
        let count = argument_count as i64;
        let arity = i64::from(self.arity);
        if arity >= 0 { count == arity } else { count >= -arity }
    }
}

impl std::fmt::Debug for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spec({})", self.name)
    }
}

/// Builders, so that a row of the table names only what it has.
pub(in crate::command) const fn write(name: &'static str, arity: i32, parse: ParseWrite) -> Spec {
    Spec::new(name, arity, Class::Write, Handler::Write(parse))
}

pub(in crate::command) const fn read(name: &'static str, arity: i32, parse: ParseRead) -> Spec {
    Spec::new(name, arity, Class::Read, Handler::Read(parse))
}

pub(in crate::command) const fn answer(name: &'static str, arity: i32, answer: Answer) -> Spec {
    Spec::new(name, arity, Class::Server, Handler::Answer(answer))
}

pub(in crate::command) const fn transaction(name: &'static str, arity: i32) -> Spec {
    Spec::new(name, arity, Class::Transaction, Handler::Transaction).categories("transaction")
}

pub(in crate::command) const fn keys(
    first: usize,
    last: i32,
    step: usize,
    access: &'static str,
) -> Keys {
    Keys { first, last, step, access, notes: "" }
}

impl Keys {
    pub(in crate::command) const fn notes(mut self, notes: &'static str) -> Keys {
        self.notes = notes;
        self
    }
}

impl Spec {
    const fn new(name: &'static str, arity: i32, class: Class, handler: Handler) -> Spec {
        Spec {
            name,
            arity,
            class,
            group: Group::Generic,
            flags: "",
            categories: "",
            tips: "",
            keys: &[],
            since: "",
            complexity: "",
            summary: "",
            handler,
            subcommands: &[],
            work: Work::Little,
            needs_clock: false,
            extends_value: false,
            old_value: OldValue::Never,
        }
    }

    /// Whether it puts a value that is there under another name.
    pub fn moves_value(&self) -> bool {
        matches!(self.name, "copy" | "rename" | "renamenx")
    }

    pub(in crate::command) const fn class(mut self, class: Class) -> Spec {
        self.class = class;
        self
    }

    pub(in crate::command) const fn flags(mut self, flags: &'static str) -> Spec {
        self.flags = flags;
        self
    }

    pub(in crate::command) const fn categories(mut self, categories: &'static str) -> Spec {
        self.categories = categories;
        self
    }

    pub(in crate::command) const fn tips(mut self, tips: &'static str) -> Spec {
        self.tips = tips;
        self
    }

    pub(in crate::command) const fn keys_at(mut self, keys: &'static [Keys]) -> Spec {
        self.keys = keys;
        self
    }

    pub(in crate::command) const fn docs(
        mut self,
        group: Group,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
    ) -> Spec {
        self.group = group;
        self.since = since;
        self.complexity = complexity;
        self.summary = summary;
        self
    }

    pub(in crate::command) const fn work(mut self, work: Work) -> Spec {
        self.work = work;
        self
    }

    pub(in crate::command) const fn needs_clock(mut self) -> Spec {
        self.needs_clock = true;
        self
    }

    pub(in crate::command) const fn extends_value(mut self) -> Spec {
        self.extends_value = true;
        self
    }

    pub(in crate::command) const fn old_value(mut self, old_value: OldValue) -> Spec {
        self.old_value = old_value;
        self
    }

    pub(in crate::command) const fn subcommands(mut self, subcommands: &'static [Spec]) -> Spec {
        self.subcommands = subcommands;
        self
    }
}
