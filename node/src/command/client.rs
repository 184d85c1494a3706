//! `CLIENT`: what a connection says of itself, and what is known of the others.

use super::context::{ConnectionState, Door};
use super::number::parse_i64;
use crate::resp::{Protocol, Reply};

pub(super) fn id(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    Reply::Integer(door.connection.id as i64)
}

pub(super) fn getname(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    match door.connection.name.as_str() {
        "" => Reply::Null,
        name => Reply::bulk(name),
    }
}

pub(super) fn setname(door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    match set_name(door.connection, argv[2]) {
        Ok(()) => Reply::OK,
        Err(error) => error,
    }
}

/// An empty name takes the name away.
pub(super) fn set_name(connection: &mut ConnectionState, name: &[u8]) -> Result<(), Reply> {
    let name = printable(name).ok_or(Reply::error(
        "ERR Client names cannot contain spaces, newlines or special characters.",
    ))?;
    connection.name = name;
    Ok(())
}

/// `CLIENT SETINFO LIB-NAME|LIB-VER text`
pub(super) fn setinfo(door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    let (field, name) = if argv[2].eq_ignore_ascii_case(b"lib-name") {
        (&mut door.connection.library_name, "lib-name")
    } else if argv[2].eq_ignore_ascii_case(b"lib-ver") {
        (&mut door.connection.library_version, "lib-ver")
    } else {
        return Reply::error(format!("ERR Unrecognized option '{}'", super::shown(argv[2])));
    };
    match printable(argv[3]) {
        None => Reply::error(format!(
            "ERR {name} cannot contain spaces, newlines or special characters."
        )),
        Some(text) => {
            *field = text;
            Reply::OK
        }
    }
}

fn printable(text: &[u8]) -> Option<String> {
    text.iter()
        .all(|byte| (b'!'..=b'~').contains(byte))
        .then(|| String::from_utf8_lossy(text).into_owned())
}

/// Nobody is evicted here, so there is nothing to be protected from.
pub(super) fn no_evict(door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    let on = argv[2].eq_ignore_ascii_case(b"on");
    if !on && !argv[2].eq_ignore_ascii_case(b"off") {
        return Reply::error("ERR syntax error");
    }
    door.connection.no_evict = on;
    Reply::OK
}

pub(super) fn info(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    let now_ms = door.server.wall_clock().as_millis() as u64;
    Reply::Verbatim("txt", line(door.connection, now_ms))
}

/// `CLIENT LIST [TYPE type | ID id …]`
pub(super) fn list(door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    let mut connections = door.server.connections();
    match &argv[2..] {
        [] => {}
        [option, kind] if option.eq_ignore_ascii_case(b"type") => {
            let is = |name: &str| kind.eq_ignore_ascii_case(name.as_bytes());
            if ["master", "replica", "slave", "pubsub"].iter().any(|name| is(name)) {
                connections.clear();
            } else if !is("normal") {
                let shown = super::shown(kind);
                return Reply::error(format!("ERR Unknown client type '{shown}'"));
            }
        }
        [option, ids @ ..] if option.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
            let Some(ids) = ids.iter().map(|id| parse_i64(id)).collect::<Option<Vec<_>>>() else {
                return Reply::error("ERR Invalid client ID");
            };
            connections.retain(|connection| ids.contains(&(connection.id as i64)));
        }
        _ => return Reply::error("ERR syntax error"),
    }
    let now_ms = door.server.wall_clock().as_millis() as u64;
    Reply::Verbatim("txt", connections.iter().map(|connection| line(connection, now_ms)).collect())
}

fn line(connection: &ConnectionState, now_ms: u64) -> String {
    let seconds_since = |moment_ms: u64| now_ms.saturating_sub(moment_ms) / 1000;
    let user = connection.identity.as_ref().map_or("(superuser)", |identity| &identity.name);
    let mut flags = String::new();
    if connection.readonly {
        flags.push('r');
    }
    if connection.no_evict {
        flags.push('e');
    }
    if flags.is_empty() {
        flags.push('N');
    }
    format!(
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={flags} db=0 sub=0 psub=0 \
         ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 \
         tot-mem=0 events=r cmd={} user={user} redir=-1 resp={} lib-name={} lib-ver={}\n",
        connection.id,
        connection.address,
        connection.local_address,
        connection.name,
        seconds_since(connection.opened_ms),
        seconds_since(connection.last_command_ms),
        connection.last_command,
        if connection.protocol == Protocol::Resp3 { 3 } else { 2 },
        connection.library_name,
        connection.library_version,
    )
}

pub(super) fn help(_door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    super::help(
        "CLIENT",
        &[
            ("GETNAME", "The name of this connection."),
            ("ID", "The number of this connection."),
            ("INFO", "What is known of this connection, on one line."),
            ("LIST [TYPE <type> | ID <id> ...]", "The same of all connections to this node."),
            ("NO-EVICT (ON|OFF)", "Accepted; connections are not evicted here."),
            ("SETINFO (LIB-NAME|LIB-VER) <text>", "Names the client library and its version."),
            ("SETNAME <name>", "Names this connection."),
        ],
    )
}
