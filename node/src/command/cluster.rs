//! `CLUSTER`: the face of a Redis Cluster of one shard. Whatever happens, it covers all hash
//! slots and names a primary: the leader, else the last one known, else the first member. A
//! client that asks a node without a leader still learns whom to ask next.

use sha2::{Digest, Sha256};

use super::context::{Door, Member, ServerView};
use super::keyslot::{HASH_SLOTS, hash_slot};
use super::number::integer;
use super::operation::Read;
use crate::resp::Reply;

/// The 40 hex digits by which Redis clients know a node; stable for its whole life.
pub fn node_name(cluster_uuid: &str, id: u32) -> String {
    let digest = Sha256::digest(format!("{cluster_uuid}/{id}"));
    digest[..20].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The members, primary first, and whether the first truly leads as far as is known.
fn members(server: &dyn ServerView) -> Vec<Member> {
    let mut members = server.members();
    members.sort_by_key(|member| (Some(member.id) != server.leader(), member.id));
    members
}

pub fn slots(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    let uuid = door.server.cluster_uuid();
    let mut range = vec![Reply::Integer(0), Reply::Integer(i64::from(HASH_SLOTS) - 1)];
    range.extend(members(door.server).into_iter().map(|member| {
        Reply::Array(vec![
            Reply::bulk(&member.host),
            Reply::Integer(i64::from(member.port)),
            Reply::bulk(node_name(uuid, member.id)),
            Reply::Map(Vec::new()),
        ])
    }));
    Reply::Array(vec![Reply::Array(range)])
}

pub fn shards(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    let server = door.server;
    let uuid = server.cluster_uuid();
    let nodes = members(server).into_iter().enumerate().map(|(index, member)| {
        let health = if member.reachable { "online" } else { "fail" };
        map([
            ("id", Reply::bulk(node_name(uuid, member.id))),
            ("port", Reply::Integer(i64::from(member.port))),
            ("ip", Reply::bulk(&member.host)),
            ("endpoint", Reply::bulk(&member.host)),
            ("role", Reply::bulk(if index == 0 { "master" } else { "replica" })),
            ("replication-offset", Reply::Integer(server.chosen_slots() as i64)),
            ("health", Reply::bulk(health)),
        ])
    });
    let all = vec![Reply::Integer(0), Reply::Integer(i64::from(HASH_SLOTS) - 1)];
    Reply::Array(vec![map([
        ("slots", Reply::Array(all)),
        ("nodes", Reply::Array(nodes.collect())),
    ])])
}

fn map<const N: usize>(fields: [(&str, Reply); N]) -> Reply {
    Reply::Map(fields.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
}

/// One line a node: `id host:port@bus flags master ping pong epoch link slots`.
pub fn nodes(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    let server = door.server;
    let uuid = server.cluster_uuid();
    let members = members(server);
    let primary = members.first().map(|member| node_name(uuid, member.id)).unwrap_or_default();
    let now_ms = server.wall_clock().as_millis();
    let mut text = String::new();
    for (index, member) in members.iter().enumerate() {
        let myself = member.id == server.node_id();
        let master = if index == 0 { "-" } else { &primary };
        let (ping_ms, pong_ms) = if myself { (0, 0) } else { (0, now_ms) };
        text.push_str(&format!(
            "{} {}:{}@{} {}{}{} {master} {ping_ms} {pong_ms} {} {}{}\n",
            node_name(uuid, member.id),
            member.host,
            member.port,
            member.peer_port,
            if myself { "myself," } else { "" },
            if index == 0 { "master" } else { "slave" },
            if member.reachable || myself { "" } else { ",fail?" },
            server.round(),
            if member.reachable || myself { "connected" } else { "disconnected" },
            if index == 0 { " 0-16383" } else { "" },
        ));
    }
    Reply::Verbatim("txt", text)
}

pub fn info(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    let server = door.server;
    let state = if server.has_leader() { "ok" } else { "fail" };
    let known = server.members().len();
    let round = server.round();
    let slots = HASH_SLOTS;
    Reply::Verbatim(
        "txt",
        format!(
            "cluster_state:{state}\r\ncluster_slots_assigned:{slots}\r\n\
             cluster_slots_ok:{slots}\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n\
             cluster_known_nodes:{known}\r\ncluster_size:1\r\ncluster_current_epoch:{round}\r\n\
             cluster_my_epoch:{round}\r\ncluster_stats_messages_sent:0\r\n\
             cluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n"
        ),
    )
}

pub fn keyslot(_door: &mut Door<'_>, argv: &[&[u8]]) -> Reply {
    Reply::Integer(i64::from(hash_slot(argv[2])))
}

pub fn myid(door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    Reply::bulk(node_name(door.server.cluster_uuid(), door.server.node_id()))
}

pub fn countkeysinslot<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    Ok(Read::CountInSlot { hash_slot: slot_argument(argv[2])? })
}

pub fn getkeysinslot<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    let slot = integer(argv[2])?;
    let count = integer(argv[3])?;
    let invalid = || Reply::error("ERR Invalid slot or number of keys");
    let hash_slot = u16::try_from(slot).ok().filter(|slot| *slot < HASH_SLOTS);
    let count = usize::try_from(count).map_err(|_| invalid())?;
    Ok(Read::KeysInSlot { hash_slot: hash_slot.ok_or_else(invalid)?, count })
}

fn slot_argument(text: &[u8]) -> Result<u16, Reply> {
    let slot = u16::try_from(integer(text)?).ok().filter(|slot| *slot < HASH_SLOTS);
    slot.ok_or(Reply::error("ERR Invalid slot"))
}

pub fn help(_door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    super::help(
        "CLUSTER",
        &[
            ("COUNTKEYSINSLOT <slot>", "How many keys are in hash slot <slot>."),
            ("GETKEYSINSLOT <slot> <count>", "At most <count> keys of hash slot <slot>."),
            ("INFO", "The state of the cluster, as seen by this node."),
            ("KEYSLOT <key>", "The hash slot of <key>."),
            ("MYID", "The id of this node."),
            ("NODES", "One line a node: id, address, flags, slots."),
            ("SHARDS", "The one shard, its slots and its nodes, as maps."),
            ("SLOTS", "The slots and the nodes that serve them, primary first."),
        ],
    )
}
