//! `COMMAND`: the table, told to clients. Client libraries read it to find the keys of commands
//! that they do not know; `redis-cli` reads the documentation for its hints.

use super::context::Door;
use super::spec::{Keys, Spec};
use super::{carried, find, syntax, table};
use crate::resp::Reply;
use crate::store::glob;

pub(super) fn command(_door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    Reply::Array(table::COMMANDS.iter().map(info_of).collect())
}

pub(super) fn count(_door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    Reply::Integer(table::COMMANDS.len() as i64)
}

/// `COMMAND INFO [name …]`; a name may be `client|id`.
pub(super) fn info(_door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    if argv.len() == 2 {
        return Reply::Array(table::COMMANDS.iter().map(info_of).collect());
    }
    let one = |name: &&[u8]| named(name).map_or(Reply::Null, info_of);
    Reply::Array(argv[2..].iter().map(one).collect())
}

/// `COMMAND DOCS [name …]`; names that are not commands are left out.
pub(super) fn docs(_door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    let specs: Vec<&Spec> = match argv.len() {
        2 => table::COMMANDS.iter().collect(),
        _ => argv[2..].iter().filter_map(|name| named(name)).collect(),
    };
    Reply::Map(specs.into_iter().map(|spec| (Reply::bulk(spec.name), docs_of(spec))).collect())
}

/// `COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]`
pub(super) fn list(_door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    let wanted: Box<dyn Fn(&Spec) -> bool> = match argv[2..] {
        [] => Box::new(|_| true),
        [filterby, kind, value] if filterby.eq_ignore_ascii_case(b"filterby") => {
            let value = value.to_vec();
            if kind.eq_ignore_ascii_case(b"module") {
                Box::new(|_| false)
            } else if kind.eq_ignore_ascii_case(b"aclcat") {
                Box::new(move |spec| {
                    categories(spec).iter().any(|mine| mine.as_bytes().eq_ignore_ascii_case(&value))
                })
            } else if kind.eq_ignore_ascii_case(b"pattern") {
                let pattern = value.to_ascii_lowercase();
                Box::new(move |spec| glob::matches(&pattern, spec.name.as_bytes()))
            } else {
                return Reply::error("ERR syntax error");
            }
        }
        _ => return Reply::error("ERR syntax error"),
    };
    let all = table::COMMANDS.iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    Reply::Array(Reply::bulks(all.filter(|spec| wanted(spec)).map(|spec| spec.name)))
}

/// `COMMAND GETKEYS command argument …`
pub(super) fn getkeys(_door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    match keys_of(&argv[2..]) {
        Err(error) => error,
        Ok((spec, command)) => Reply::Array(Reply::bulks(spec.keys(command))),
    }
}

/// `COMMAND GETKEYSANDFLAGS command argument …`
pub(super) fn getkeysandflags(_door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    let (spec, command) = match keys_of(&argv[2..]) {
        Err(error) => return error,
        Ok(found) => found,
    };
    let keys = spec.keys.iter().flat_map(|keys| {
        keys.of(command).map(|key| {
            let access = match keys.access.strip_suffix(" variable_flags") {
                None => keys.access,
                // `SET`, which looks at what it overwrites only with `GET` or a comparison.
                Some(with_get) => {
                    let mut options = command[3..].iter();
                    let looks: [&[u8]; 3] = [b"get", b"ifeq", b"ifne"];
                    let gets = options
                        .any(|option| looks.iter().any(|look| option.eq_ignore_ascii_case(look)));
                    if gets { with_get } else { "OW update" }
                }
            };
            let access = Reply::statuses(access.split(' '));
            Reply::Array(vec![Reply::bulk(key), Reply::Set(access)])
        })
    });
    Reply::Array(keys.collect())
}

fn keys_of<'a>(command: &'a [&'a [u8]]) -> Result<(&'static Spec, &'a [&'a [u8]]), Reply> {
    let spec = find(command).map_err(|_| Reply::error("ERR Invalid command specified"))?;
    let (spec, command) = carried(spec, command);
    if spec.keys.is_empty() {
        return Err(Reply::error("ERR The command has no key arguments"));
    }
    if !spec.accepts(command.len()) {
        return Err(Reply::error("ERR Invalid number of arguments specified for command"));
    }
    Ok((spec, command))
}

pub(super) fn help(_door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    super::help(
        "COMMAND",
        &[
            ("(no subcommand)", "Details of all commands."),
            ("COUNT", "How many commands there are."),
            ("DOCS [<name> ...]", "What the commands are for."),
            ("GETKEYS <command>", "The keys of a whole command."),
            ("GETKEYSANDFLAGS <command>", "The same, with what is done to each key."),
            ("INFO [<name> ...]", "Arity, flags and positions of keys."),
            ("LIST [FILTERBY <filter> <value>]", "The names of all commands."),
        ],
    )
}

/// `get`, or `client|id`.
fn named(name: &[u8]) -> Option<&'static Spec> {
    let name = name.to_ascii_lowercase();
    let mut parts = name.splitn(2, |byte| *byte == b'|');
    let container = table::lookup(parts.next()?)?;
    match parts.next() {
        None => Some(container),
        Some(_) => container.subcommands.iter().find(|spec| spec.name.as_bytes() == name),
    }
}

fn info_of(spec: &Spec) -> Reply {
    let (first, last, step) = spec.key_range();
    Reply::Array(vec![
        Reply::bulk(spec.name),
        Reply::Integer(i64::from(spec.arity)),
        Reply::Set(Reply::statuses(words(spec.flags))),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        Reply::Set(
            categories(spec).iter().map(|name| Reply::Simple(format!("@{name}").into())).collect(),
        ),
        Reply::Set(Reply::bulks(words(spec.tips))),
        Reply::Set(spec.keys.iter().map(key_specification).collect()),
        Reply::Set(spec.subcommands.iter().map(info_of).collect()),
    ])
}

fn docs_of(spec: &Spec) -> Reply {
    let mut fields = vec![
        (Reply::bulk("summary"), Reply::bulk(spec.summary)),
        (Reply::bulk("since"), Reply::bulk(spec.since)),
        (Reply::bulk("group"), Reply::bulk(spec.group.name())),
        (Reply::bulk("complexity"), Reply::bulk(spec.complexity)),
    ];
    let arguments = syntax::arguments(spec.name);
    if !arguments.is_empty() {
        let arguments = arguments.iter().map(syntax::Argument::docs).collect();
        fields.push((Reply::bulk("arguments"), Reply::Array(arguments)));
    }
    if !spec.subcommands.is_empty() {
        let subcommands = spec.subcommands.iter();
        let docs = subcommands.map(|spec| (Reply::bulk(spec.name), docs_of(spec))).collect();
        fields.push((Reply::bulk("subcommands"), Reply::Map(docs)));
    }
    Reply::Map(fields)
}

fn key_specification(keys: &Keys) -> Reply {
    let map = |fields: Vec<(&str, Reply)>| {
        Reply::Map(fields.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
    };
    let mut fields = Vec::new();
    if !keys.notes.is_empty() {
        fields.push(("notes", Reply::bulk(keys.notes)));
    }
    fields.push(("flags", Reply::Set(Reply::statuses(words(keys.access)))));
    let index = map(vec![("index", Reply::Integer(keys.first as i64))]);
    fields.push(("begin_search", map(vec![("type", Reply::bulk("index")), ("spec", index)])));
    let range = map(vec![
        ("lastkey", Reply::Integer(i64::from(keys.last))),
        ("keystep", Reply::Integer(keys.step as i64)),
        ("limit", Reply::Integer(0)),
    ]);
    fields.push(("find_keys", map(vec![("type", Reply::bulk("range")), ("spec", range)])));
    map(fields)
}

/// All ACL categories, those that follow from the flags too, in Redis's order.
fn categories(spec: &Spec) -> Vec<&'static str> {
    const ORDER: [&str; 10] = [
        "keyspace",
        "read",
        "write",
        "string",
        "admin",
        "fast",
        "slow",
        "dangerous",
        "connection",
        "transaction",
    ];
    let own = |name: &str| words(spec.categories).any(|mine| mine == name);
    let has = |name: &str| match name {
        "read" => spec.has_flag("readonly"),
        "write" => spec.has_flag("write"),
        "admin" => spec.has_flag("admin") || own("admin"),
        "fast" => spec.has_flag("fast"),
        "slow" => !spec.has_flag("fast"),
        "dangerous" => spec.has_flag("admin") || own(name),
        _ => own(name),
    };
    ORDER.into_iter().filter(|name| has(name)).collect()
}

fn words(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split(' ').filter(|word| !word.is_empty())
}
