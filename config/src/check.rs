//! What belongs together: values that are each in range and still make no sense side by side.
//!
//! Each message says both values and why they do not fit, because the one who reads it did not
//! choose the bound.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use serde::de::DeserializeOwned;

use crate::node::{
    Behaviour, ClientSecurity, Election, Members, NodeConfig, PeerSecurity, Reads, Role, User,
};
use crate::problem::{Findings, Problems};
use crate::schema::{self, Key};

const VOTERS_MAX: usize = 9;
/// Room in a segment and in the window beside the largest command.
const SEGMENT_COMMANDS_MIN: u64 = 2;

pub(crate) fn behaviour(text: &str, origin: &str) -> Result<Behaviour, Problems> {
    read(text, origin, schema::BEHAVIOUR, |behaviour, findings| {
        check_behaviour(behaviour, "", findings);
    })
}

pub(crate) fn node(text: &str, origin: &str) -> Result<NodeConfig, Problems> {
    read(text, origin, schema::NODE, check_node)
}

pub(crate) fn members(text: &str, origin: &str) -> Result<Members, Problems> {
    read(text, origin, schema::MEMBERS, check_members)
}

/// Single values first; only when each is right can they be compared.
fn read<T: DeserializeOwned>(
    text: &str,
    origin: &str,
    keys: &[Key],
    check: impl FnOnce(&T, &mut Findings<'_>),
) -> Result<T, Problems> {
    let mut findings = Findings::new(text);
    schema::walk(text, keys, &mut findings);
    if !findings.is_empty() {
        return Err(findings.into_problems(origin));
    }
    let value = toml::from_str::<T>(text)
        .map_err(|error| Problems::one(origin, error.message().to_owned()))?;
    check(&value, &mut findings);
    if findings.is_empty() { Ok(value) } else { Err(findings.into_problems(origin)) }
}

/// `prefix` is where the section stands in the file: empty in a preset.
fn check_behaviour(behaviour: &Behaviour, prefix: &str, findings: &mut Findings<'_>) {
    let Behaviour { heartbeat_ms, silence_ms, silence_jitter_ms, .. } = *behaviour;
    let mut about = |key: &str, message: String, hint: String| {
        findings.about(&format!("{prefix}{key}"), message, hint);
    };
    match behaviour.election {
        Election::Ballot if silence_ms < 6 * heartbeat_ms => about(
            "silence_ms",
            format!("silence_ms = {silence_ms} is less than six heartbeats of {heartbeat_ms} ms"),
            format!("a few lost packets are no failure: at least {}", 6 * heartbeat_ms),
        ),
        Election::HighestId if silence_ms != 2 * heartbeat_ms => about(
            "silence_ms",
            format!(
                "silence_ms = {silence_ms}, but election = \"highest-id\" takes over after exactly \
                 two heartbeats of {heartbeat_ms} ms"
            ),
            format!("silence_ms = {}", 2 * heartbeat_ms),
        ),
        _ => {}
    }
    if silence_jitter_ms > 4 * silence_ms {
        about(
            "silence_jitter_ms",
            format!("silence_jitter_ms = {silence_jitter_ms} dwarfs silence_ms = {silence_ms}"),
            "the random part spreads the candidates; a third of the silence is plenty".to_owned(),
        );
    }
    let not_below = [
        (
            "phase1_ms",
            behaviour.phase1_ms,
            "heartbeat_ms",
            heartbeat_ms,
            "an attempt needs a round trip",
        ),
        (
            "phase1_max_ms",
            behaviour.phase1_max_ms,
            "phase1_ms",
            behaviour.phase1_ms,
            "attempts get longer, not shorter",
        ),
        (
            "stalled_ms",
            behaviour.stalled_ms,
            "silence_ms",
            silence_ms,
            "a leader should not give up sooner than others would suspect it",
        ),
        (
            "window_bytes",
            behaviour.window_bytes,
            "command_bytes_max",
            behaviour.command_bytes_max,
            "the largest command must fit into the window",
        ),
        (
            "clients_bytes_max",
            match behaviour.clients_bytes_max {
                // A share of the memory.
                0 => u64::MAX,
                bytes_max => bytes_max,
            },
            "four times command_bytes_max",
            4 * behaviour.command_bytes_max,
            "a few clients in the middle of the largest command are no flood",
        ),
        (
            "segment_bytes",
            behaviour.segment_bytes,
            "twice command_bytes_max",
            SEGMENT_COMMANDS_MIN * behaviour.command_bytes_max,
            "the largest command must fit into a segment, beside its checkpoint",
        ),
        (
            "snapshot_every_bytes",
            behaviour.snapshot_every_bytes,
            "segment_bytes",
            behaviour.segment_bytes,
            "whole segments are removed",
        ),
    ];
    let leases = behaviour.reads == Reads::Lease && behaviour.election == Election::Ballot;
    let not_below_with_leases = [
        (
            "phase1_ms",
            behaviour.phase1_ms,
            "twice lease_ms",
            2 * behaviour.lease_ms,
            "a candidate may have to wait for the end of a lease",
        ),
        (
            "silence_ms",
            silence_ms,
            "lease_ms",
            behaviour.lease_ms,
            "who suspects a leader sooner has to wait for the end of its lease all the same",
        ),
        (
            "lease_ms",
            behaviour.lease_ms,
            "twice heartbeat_ms",
            2 * heartbeat_ms,
            "a lease has to outlast the heartbeats that renew it",
        ),
        (
            "lease_ms",
            behaviour.lease_ms,
            "a heartbeat by the slowest clock",
            // What is left when ρ and a millisecond are taken off.
            ((heartbeat_ms + 1) * 100).div_ceil(100 - u64::from(behaviour.drift_percent.min(99))),
            "the leader counts on it for drift_percent less, and a millisecond",
        ),
    ];
    let not_below_with_leases = not_below_with_leases.into_iter().filter(|_| leases);
    for (key, value, bound_name, bound, why) in not_below.into_iter().chain(not_below_with_leases) {
        if value < bound {
            let message = format!("{key} = {value} is below {bound_name} = {bound}");
            about(key, message, format!("{why}: {bound} or more"));
        }
    }
}

fn check_node(config: &NodeConfig, findings: &mut Findings<'_>) {
    check_behaviour(&config.behaviour, "behaviour.", findings);
    check_uuid(&config.cluster_uuid, findings);
    let named = [("cluster", &config.cluster), ("name", &config.name)];
    for (key, text) in named {
        if !is_word(text) {
            let message = format!("{key} = {text:?} is no name");
            findings.about(key, message, "letters, digits, `.`, `_` and `-`, at most 63");
        }
    }
    check_listen(config, findings);
    check_users(&config.users, findings);
    for range in config.security.scrape_from.iter().filter(|range| !is_cidr(range)) {
        let message = format!("scrape_from: \"{range}\" is no range of addresses");
        findings.about("security.scrape_from", message, "written like \"10.0.0.0/8\"");
    }
}

fn check_listen(config: &NodeConfig, findings: &mut Findings<'_>) {
    let listen = &config.listen;
    let named = [("client", listen.client), ("peer", listen.peer), ("http", listen.http)];
    for (position, (key, address)) in named.iter().enumerate() {
        if let Some((other, _)) = named[..position].iter().find(|(_, other)| {
            let same_ip = other.ip() == address.ip()
                || other.ip().is_unspecified()
                || address.ip().is_unspecified();
            other.port() == address.port() && same_ip
        }) {
            let message = format!("listen.{key} and listen.{other} are both {address}");
            findings.about(&format!("listen.{key}"), message, "give each a port of its own");
        }
    }
    if config.security.peers == PeerSecurity::Plain && !listen.peer.ip().is_loopback() {
        findings.about(
            "security.peers",
            format!("peers = \"plain\", but listen.peer = {} is not on loopback", listen.peer),
            "whoever reaches that port could join the cluster: peers = \"tls\"",
        );
    }
    let auth = config.security.clients == ClientSecurity::Auth;
    if auth && config.users.is_empty() && !listen.client.ip().is_loopback() {
        findings.about(
            "listen.client",
            format!("clients would be served on {}, but there is no user", listen.client),
            "add one: `paxosctl user add app`; or admit everyone: clients = \"open\"",
        );
    }
}

fn check_users(users: &[User], findings: &mut Findings<'_>) {
    for (position, user) in users.iter().enumerate() {
        let name = &user.name;
        if !is_word(name) {
            let message = format!("user {name:?} has no proper name");
            let hint = "letters, digits, `.`, `_` and `-`, at most 63";
            findings.about(&format!("user[{position}].name"), message, hint);
        }
        if users[..position].iter().any(|other| other.name == *name) {
            let message = format!("two users are called {name}");
            findings.about(&format!("user[{position}].name"), message, "names are unique");
        }
        let digests = &user.password_sha256;
        let path = format!("user[{position}].password_sha256");
        if digests.is_empty() || digests.len() > 2 {
            let message = format!("user {name} has {} passwords", digests.len());
            findings.about(&path, message, "one, or two during a rotation");
        }
        // The value is not shown: it may be the password itself.
        if digests.iter().any(|digest| !is_hex(digest, 64)) {
            let message = format!("user {name} has a password that is no sha-256 digest");
            findings.about(&path, message, "64 lower-case hex digits");
        }
    }
}

fn check_members(members: &Members, findings: &mut Findings<'_>) {
    check_uuid(&members.cluster_uuid, findings);
    let mut seen: BTreeMap<(&str, String), &str> = BTreeMap::new();
    for (position, member) in members.members.iter().enumerate() {
        let path = |key: &str| format!("member[{position}].{key}");
        let name = member.name.as_str();
        let hex =
            [("incarnation", &member.incarnation, 16), ("public_key", &member.public_key, 64)];
        for (key, value, digits) in hex {
            if !is_hex(value, digits) {
                let message = format!("{key} of {name} is \"{value}\"");
                let hint =
                    format!("{digits} lower-case hex digits, as `paxos-node identity` prints");
                findings.about(&path(key), message, hint);
            }
        }
        let endpoints =
            [("peer", &member.peer), ("client", &member.client), ("http", &member.http)];
        for (key, value) in endpoints {
            if !is_endpoint(value) {
                let message = format!("{key} of {name} is \"{value}\"");
                findings.about(&path(key), message, "written like \"10.0.0.11:7380\"");
            }
        }
        let unique: [(&str, &str, &dyn Display); 5] = [
            ("id", "id", &member.id),
            ("name", "name", &member.name),
            ("public_key", "public_key", &member.public_key),
            ("endpoint", "peer", &member.peer),
            ("endpoint", "client", &member.client),
        ];
        for (kind, key, value) in unique {
            if let Some(other) = seen.insert((kind, value.to_string()), name) {
                let message = format!("{key} {value} of {name} is taken by {other}");
                findings.about(&path(key), message, "no two members share it");
            }
        }
    }
    let voters = members.members.iter().filter(|member| member.role == Role::Voter).count();
    if voters == 0 || voters > VOTERS_MAX {
        findings.about(
            "member",
            format!("{voters} voters"),
            format!("1 to {VOTERS_MAX} are needed"),
        );
    }
}

fn check_uuid(uuid: &str, findings: &mut Findings<'_>) {
    if !is_hex(&uuid.replace('-', ""), 32) {
        let message = format!("cluster_uuid = {uuid:?} is no uuid");
        findings.about("cluster_uuid", message, "32 lower-case hex digits");
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && text.len() <= 63
}

fn is_cidr(text: &str) -> bool {
    let (ip, bits) = text.split_once('/').unwrap_or((text, "0"));
    match (ip.parse::<IpAddr>(), bits.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
        _ => false,
    }
}

fn is_endpoint(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.starts_with('-')
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:[]".contains(&byte))
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}
