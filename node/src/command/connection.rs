//! The connection itself: `PING`, `ECHO`, `HELLO`, `SELECT`, `QUIT`, `RESET` and the cluster
//! switches of a connection.

use super::context::{ConnectionState, Door, Identity};
use super::number::{integer, parse_i64};
use super::{access, client};
use crate::resp::{Protocol, Reply};

/// The version of Redis whose behaviour we follow, and claim.
pub const REDIS_VERSION: &str = "7.0.15";

pub(super) fn ping(_door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    match argv {
        [_] => Reply::status("PONG"),
        [_, message] => Reply::bulk(message),
        _ => super::wrong_number_of_arguments("ping"),
    }
}

pub(super) fn echo(_door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    Reply::bulk(argv[1])
}

pub(super) fn select(_door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    match integer(argv[1]) {
        Err(error) => error,
        Ok(0) => Reply::OK,
        Ok(index) if i32::try_from(index).is_err() => Reply::error(super::OUT_OF_INT),
        Ok(_) => Reply::error("ERR SELECT is not allowed in cluster mode"),
    }
}

pub(super) fn quit(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    door.close = true;
    Reply::OK
}

/// As if just connected.
pub(super) fn reset(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    let open = door.server.users().is_empty();
    let old = &door.connection;
    let mut fresh = ConnectionState::new(
        old.id,
        old.address.clone(),
        old.local_address.clone(),
        open,
        old.opened_ms,
    );
    fresh.last_command = old.last_command;
    fresh.last_command_ms = old.last_command_ms;
    fresh.library_name = old.library_name.clone();
    fresh.library_version = old.library_version.clone();
    *door.connection = fresh;
    Reply::status("RESET")
}

/// Nothing is ever being migrated, so nothing changes.
pub(super) fn asking(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    door.connection.asking = true;
    Reply::OK
}

pub(super) fn readonly(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    door.connection.readonly = true;
    Reply::OK
}

pub(super) fn readwrite(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    door.connection.readonly = false;
    Reply::OK
}

const HELLO_NOAUTH: &str = "NOAUTH HELLO must be called with the client already authenticated, \
otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select \
the RESP protocol version at the same time";

/// `HELLO [version [AUTH user password] [SETNAME name]]`
pub(super) fn hello(door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    let protocol = match argv.get(1).map(|version| parse_i64(version)) {
        None => None,
        Some(None) => {
            return Reply::error("ERR Protocol version is not an integer or out of range");
        }
        Some(Some(2)) => Some(Protocol::Resp2),
        Some(Some(3)) => Some(Protocol::Resp3),
        Some(Some(_)) => return Reply::error("NOPROTO unsupported protocol version"),
    };
    let mut options = argv.get(2..).unwrap_or_default();
    while let [option, rest @ ..] = options {
        if option.eq_ignore_ascii_case(b"auth")
            && let [user, password, rest @ ..] = rest
        {
            match access::authenticate(door.server.users(), user, password) {
                Err(error) => return error,
                Ok(identity) => door.connection.identity = Some(identity),
            }
            options = rest;
        } else if option.eq_ignore_ascii_case(b"setname")
            && let [name, rest @ ..] = rest
        {
            if let Err(error) = client::set_name(door.connection, name) {
                return error;
            }
            options = rest;
        } else {
            let shown = super::shown(option);
            return Reply::error(format!("ERR Syntax error in HELLO option '{shown}'"));
        }
    }
    if !door.connection.is_authenticated() {
        return Reply::error(HELLO_NOAUTH);
    }
    door.connection.protocol = protocol.unwrap_or(door.connection.protocol);
    let version = if door.connection.protocol == Protocol::Resp3 { 3 } else { 2 };
    let role = if door.server.is_leader() { "master" } else { "replica" };
    let fields = [
        ("server", Reply::bulk("redis")),
        ("version", Reply::bulk(REDIS_VERSION)),
        ("proto", Reply::Integer(version)),
        ("id", Reply::Integer(door.connection.id as i64)),
        ("mode", Reply::bulk("cluster")),
        ("role", Reply::bulk(role)),
        ("modules", Reply::Array(Vec::new())),
    ];
    Reply::Map(fields.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
}

/// `AUTH password` (of the user `default`) or `AUTH user password`
pub(super) fn auth(door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    let users = door.server.users();
    let outcome = match argv {
        [_, _] if users.is_empty() => {
            return Reply::error(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            );
        }
        [_, password] => access::authenticate(users, b"default", password),
        [_, user, password] => access::authenticate(users, user, password),
        _ => return Reply::error("ERR syntax error"),
    };
    match outcome {
        Err(error) => error,
        Ok(identity) => {
            door.connection.identity = Some(identity);
            Reply::OK
        }
    }
}

pub(super) fn acl_whoami(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    Reply::bulk(&door.connection.identity.as_ref().unwrap_or(&Identity::default_user()).name)
}

pub(super) fn acl_help(_door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    super::help("ACL", &[("WHOAMI", "The user that this connection speaks for.")])
}
