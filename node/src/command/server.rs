//! The server as a whole: `TIME`, `ROLE`, `WAIT`, `CONFIG`, `INFO`.

use super::connection::REDIS_VERSION;
use super::context::{Door, ServerView};
use super::number::{integer, parse_i64};
use crate::resp::Reply;
use crate::store::glob;

/// This node's wall clock: for people and logs. Deadlines run on the log's time.
pub(super) fn time(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    let now = door.server.wall_clock();
    Reply::Array(Reply::bulks([now.as_secs().to_string(), now.subsec_micros().to_string()]))
}

pub(super) fn role(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    let server = door.server;
    let offset = server.chosen_slots() as i64;
    let members = server.members();
    if server.is_leader() {
        let replicas =
            members.iter().filter(|member| member.id != server.node_id()).map(|member| {
                let fields = [member.host.clone(), member.port.to_string(), offset.to_string()];
                Reply::Array(Reply::bulks(fields))
            });
        let replicas = Reply::Array(replicas.collect());
        return Reply::Array(vec![Reply::bulk("master"), Reply::Integer(offset), replicas]);
    }
    let leader = members.iter().find(|member| Some(member.id) == server.leader());
    Reply::Array(vec![
        Reply::bulk("slave"),
        Reply::bulk(leader.map_or("", |member| &member.host)),
        Reply::Integer(leader.map_or(0, |member| i64::from(member.port))),
        Reply::bulk(if server.has_leader() { "connected" } else { "connect" }),
        Reply::Integer(offset),
    ])
}

/// A reply to a write means that a quorum has it on disk, so there is nothing to wait for: the
/// answer is how many followers are known to have this connection's last write.
pub(super) fn wait(door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    if let Err(error) = integer(argv[1]) {
        return error;
    }
    match parse_i64(argv[2]) {
        None => Reply::error("ERR timeout is not an integer or out of range"),
        Some(timeout) if timeout < 0 => Reply::error("ERR timeout is negative"),
        Some(_) => Reply::Integer(door.server.followers_with_last_write() as i64),
    }
}

/// The parameters of Redis that clients and tools ask for, with what is true of us.
fn parameters(server: &dyn ServerView) -> Vec<(&'static str, String)> {
    let port = server
        .members()
        .iter()
        .find(|member| member.id == server.node_id())
        .map_or(0, |member| member.port);
    let fixed = [
        ("appendfsync", "always"),
        ("appendonly", "yes"),
        ("client-output-buffer-limit", ""),
        ("cluster-enabled", "yes"),
        ("cluster-require-full-coverage", "yes"),
        ("databases", "1"),
        ("hash-max-listpack-entries", "128"),
        ("lazyfree-lazy-user-del", "yes"),
        ("maxmemory-policy", "noeviction"),
        ("min-replicas-to-write", "0"),
        ("notify-keyspace-events", ""),
        ("replica-read-only", "yes"),
        ("replica-serve-stale-data", "no"),
        ("save", ""),
        ("slave-read-only", "yes"),
        ("timeout", "0"),
    ];
    let mut parameters: Vec<_> =
        fixed.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    parameters.push(("maxmemory", server.memory_bytes_max().to_string()));
    parameters.push(("maxmemory-clients", server.clients_bytes_max().to_string()));
    parameters.push(("maxclients", server.connections_max().to_string()));
    parameters.push(("port", port.to_string()));
    parameters.push(("proto-max-bulk-len", server.command_bytes_max().to_string()));
    parameters.sort_unstable();
    parameters
}

/// `CONFIG GET pattern …`
pub(super) fn config_get(door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    let patterns: Vec<_> = argv[2..].iter().map(|pattern| pattern.to_ascii_lowercase()).collect();
    let wanted =
        |name: &str| patterns.iter().any(|pattern| glob::matches(pattern, name.as_bytes()));
    let found = parameters(door.server).into_iter().filter(|(name, _)| wanted(name));
    Reply::Map(found.map(|(name, value)| (Reply::bulk(name), Reply::bulk(value))).collect())
}

/// Nothing can be set over this port: a node is configured by its inventory. What would change
/// nothing is let through, for tools that set before they ask.
pub(super) fn config_set(door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    let pairs = &argv[2..];
    if !pairs.len().is_multiple_of(2) {
        return Reply::error("ERR syntax error");
    }
    let parameters = parameters(door.server);
    for pair in pairs.chunks_exact(2) {
        let name = super::shown(pair[0]);
        let known =
            parameters.iter().find(|(known, _)| pair[0].eq_ignore_ascii_case(known.as_bytes()));
        match known {
            None => {
                return Reply::error(format!(
                    "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
                ));
            }
            Some((_, value)) if value.as_bytes() == pair[1] => {}
            Some(_) => {
                return Reply::error(format!(
                    "ERR CONFIG SET failed (possibly related to argument '{name}') - can't set \
                     immutable config"
                ));
            }
        }
    }
    Reply::OK
}

pub(super) fn config_help(_door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    super::help(
        "CONFIG",
        &[
            ("GET <pattern> ...", "The parameters whose names match, and their values."),
            ("SET <name> <value> ...", "Refused, unless nothing would change."),
        ],
    )
}

const SECTIONS: [&str; 8] =
    ["server", "clients", "memory", "persistence", "stats", "replication", "cluster", "keyspace"];

/// `INFO [section …]`
pub(super) fn info(door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    let is = |asked: &[u8], name: &str| asked.eq_ignore_ascii_case(name.as_bytes());
    let all = argv.len() == 1
        || argv[1..]
            .iter()
            .any(|asked| ["all", "default", "everything"].iter().any(|name| is(asked, name)));
    let mut text = String::new();
    for section in SECTIONS {
        if !all && !argv[1..].iter().any(|asked| is(asked, section)) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let mut title = section.to_owned();
        title[..1].make_ascii_uppercase();
        text.push_str(&format!("# {title}\r\n"));
        for (name, value) in fields(section, door.server) {
            text.push_str(&format!("{name}:{value}\r\n"));
        }
    }
    Reply::Verbatim("txt", text)
}

fn fields(section: &str, server: &dyn ServerView) -> Vec<(&'static str, String)> {
    let member =
        |id: Option<u32>| server.members().into_iter().find(|member| Some(member.id) == id);
    let number = |flag: bool| if flag { "1" } else { "0" }.to_owned();
    match section {
        "server" => vec![
            ("redis_version", REDIS_VERSION.to_owned()),
            ("redis_mode", "cluster".to_owned()),
            ("paxos_node_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("os", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
            ("arch_bits", usize::BITS.to_string()),
            ("process_id", std::process::id().to_string()),
            ("run_id", super::cluster::node_name(server.cluster_uuid(), server.node_id())),
            ("tcp_port", member(Some(server.node_id())).map_or(0, |me| me.port).to_string()),
            ("server_time_usec", server.wall_clock().as_micros().to_string()),
            ("uptime_in_seconds", server.uptime().as_secs().to_string()),
            ("uptime_in_days", (server.uptime().as_secs() / 86_400).to_string()),
        ],
        "clients" => vec![
            ("connected_clients", server.connection_count().to_string()),
            ("maxclients", server.connections_max().to_string()),
            ("blocked_clients", "0".to_owned()),
        ],
        "memory" => vec![
            ("used_memory", server.memory_bytes().to_string()),
            ("used_memory_dataset", server.memory_bytes().to_string()),
            ("mem_clients_normal", server.clients_bytes().to_string()),
            ("maxmemory", server.memory_bytes_max().to_string()),
            ("maxmemory_policy", "noeviction".to_owned()),
        ],
        "persistence" => vec![
            ("loading", number(server.is_loading())),
            ("async_loading", "0".to_owned()),
            ("rdb_bgsave_in_progress", "0".to_owned()),
            ("aof_enabled", "1".to_owned()),
            ("aof_last_write_status", "ok".to_owned()),
        ],
        "stats" => vec![
            ("total_connections_received", server.connections_received().to_string()),
            ("total_commands_processed", server.commands_processed().to_string()),
            ("evicted_clients", server.clients_evicted().to_string()),
        ],
        "replication" => replication(server),
        "cluster" => vec![("cluster_enabled", "1".to_owned())],
        "keyspace" if server.key_count() > 0 => vec![(
            "db0",
            format!("keys={},expires={},avg_ttl=0", server.key_count(), server.expiring_count()),
        )],
        _ => Vec::new(),
    }
}

fn replication(server: &dyn ServerView) -> Vec<(&'static str, String)> {
    let members = server.members();
    let offset = server.chosen_slots().to_string();
    let replid = super::cluster::node_name(server.cluster_uuid(), 0);
    let mut fields = Vec::new();
    if server.is_leader() {
        let replicas: Vec<_> =
            members.iter().filter(|member| member.id != server.node_id()).collect();
        fields.push(("role", "master".to_owned()));
        fields.push(("connected_slaves", replicas.len().to_string()));
        // Nine members at most, and names must outlive this call.
        const NAMES: [&str; 9] = [
            "slave0", "slave1", "slave2", "slave3", "slave4", "slave5", "slave6", "slave7",
            "slave8",
        ];
        for (name, member) in NAMES.into_iter().zip(replicas) {
            let state = if member.reachable { "online" } else { "wait_bgsave" };
            let (host, port) = (&member.host, member.port);
            fields
                .push((name, format!("ip={host},port={port},state={state},offset={offset},lag=0")));
        }
    } else {
        let leader = members.iter().find(|member| Some(member.id) == server.leader());
        let link = if server.has_leader() { "up" } else { "down" };
        fields.push(("role", "slave".to_owned()));
        fields.push(("master_host", leader.map_or("", |member| &member.host).to_owned()));
        fields.push(("master_port", leader.map_or(0, |member| member.port).to_string()));
        fields.push(("master_link_status", link.to_owned()));
        fields.push(("master_last_io_seconds_ago", "0".to_owned()));
        fields.push(("master_sync_in_progress", "0".to_owned()));
        fields.push(("slave_read_repl_offset", offset.clone()));
        fields.push(("slave_repl_offset", offset.clone()));
        fields.push(("slave_priority", "100".to_owned()));
        fields.push(("slave_read_only", "1".to_owned()));
        fields.push(("connected_slaves", "0".to_owned()));
    }
    fields.push(("master_failover_state", "no-failover".to_owned()));
    fields.push(("master_replid", replid));
    fields.push(("master_repl_offset", offset.clone()));
    fields.push(("repl_backlog_active", "0".to_owned()));
    fields
}
