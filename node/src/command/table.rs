//! The table of all commands: what `COMMAND` tells, what the door checks, and who reads the
//! arguments. Facts (arity, flags, keys, tips) are those of Redis 7.0, so that client libraries
//! treat our commands exactly as they treat its own. In the order of their names.

use std::sync::LazyLock;

use super::spec::{Class, Group, Spec};
use super::spec::{answer, keys, read, write};
use super::{client, cluster, connection, expiry, introspect, server, strings};
use super::{container, keys as generic};

/// The command of this name, in any case.
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let mut lower = [0u8; NAME_BYTES_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let mut place = hash(lower);
    loop {
        let spec = INDEX[place % INDEX_SIZE]?;
        if spec.name.as_bytes() == lower {
            return Some(spec);
        }
        place += 1;
    }
}

const NAME_BYTES_MAX: usize = 16;
const INDEX_SIZE: usize = 1024;

/// Open addressing, mostly empty: one comparison a lookup, as a rule.
static INDEX: LazyLock<[Option<&'static Spec>; INDEX_SIZE]> = LazyLock::new(|| {
    let mut index = [None; INDEX_SIZE];
    for spec in COMMANDS {
        assert!(spec.name.len() <= NAME_BYTES_MAX, "{} is too long for lookup", spec.name);
        let mut place = hash(spec.name.as_bytes());
        while index[place % INDEX_SIZE].is_some() {
            place += 1;
        }
        index[place % INDEX_SIZE] = Some(spec);
    }
    index
});

/// FNV-1a.
fn hash(name: &[u8]) -> usize {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = name.iter().fold(0x811c_9dc5, mix);
    (hash ^ (hash >> 15)) as usize
}

pub static COMMANDS: &[Spec] = &[
    answer("acl", -2, container)
        .class(Class::Connection)
        .docs(Group::Server, "6.0.0", "Depends on subcommand.", "Users.")
        .subcommands(&[
            answer("acl|help", 2, connection::acl_help)
                .class(Class::Connection)
                .flags("loading stale")
                .docs(Group::Server, "6.0.0", "O(1)", "Lists the subcommands."),
            answer("acl|whoami", 2, connection::acl_whoami)
                .class(Class::Connection)
                .flags("noscript loading stale")
                .docs(Group::Server, "6.0.0", "O(1)", "The user of this connection."),
        ]),
    write("append", 3, strings::append)
        .flags("write denyoom fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW insert")])
        .docs(
            Group::String,
            "2.0.0",
            "O(N) in the length of the value",
            "Adds to the end of a value.",
        ),
    answer("asking", 1, connection::asking)
        .class(Class::Connection)
        .flags("fast")
        .categories("connection")
        .docs(
            Group::Cluster,
            "3.0.0",
            "O(1)",
            "Accepted for cluster clients; nothing is ever migrating.",
        ),
    answer("auth", -2, connection::auth)
        .class(Class::Connection)
        .flags("noscript loading stale fast no_auth allow_busy")
        .categories("connection")
        .docs(
            Group::Connection,
            "1.0.0",
            "O(N) where N is the number of passwords defined for the user",
            "Says who the client is.",
        ),
    answer("client", -2, container)
        .class(Class::Connection)
        .docs(Group::Connection, "2.4.0", "Depends on subcommand.", "Connections of clients.")
        .subcommands(&[
            answer("client|getname", 2, client::getname)
                .class(Class::Connection)
                .flags("noscript loading stale")
                .categories("connection")
                .docs(Group::Connection, "2.6.9", "O(1)", "The name of this connection."),
            answer("client|help", 2, client::help)
                .class(Class::Connection)
                .flags("loading stale")
                .categories("connection")
                .docs(Group::Connection, "5.0.0", "O(1)", "Lists the subcommands."),
            answer("client|id", 2, client::id)
                .class(Class::Connection)
                .flags("noscript loading stale")
                .categories("connection")
                .docs(Group::Connection, "5.0.0", "O(1)", "The number of this connection."),
            answer("client|info", 2, client::info)
                .class(Class::Connection)
                .flags("noscript loading stale")
                .categories("connection")
                .tips("nondeterministic_output")
                .docs(Group::Connection, "6.2.0", "O(1)", "What is known of this connection."),
            answer("client|list", -2, client::list)
                .class(Class::Connection)
                .flags("admin noscript loading stale")
                .categories("connection")
                .tips("nondeterministic_output")
                .docs(
                    Group::Connection,
                    "2.4.0",
                    "O(N) where N is the number of client connections",
                    "What is known of all connections to this node.",
                ),
            answer("client|no-evict", 3, client::no_evict)
                .class(Class::Connection)
                .flags("admin noscript loading stale")
                .categories("connection")
                .docs(
                    Group::Connection,
                    "7.0.0",
                    "O(1)",
                    "Accepted; connections are not evicted here.",
                ),
            answer("client|setinfo", 4, client::setinfo)
                .class(Class::Connection)
                .flags("noscript loading stale")
                .categories("connection")
                .docs(Group::Connection, "7.2.0", "O(1)", "Names the client library."),
            answer("client|setname", 3, client::setname)
                .class(Class::Connection)
                .flags("noscript loading stale")
                .categories("connection")
                .docs(Group::Connection, "2.6.9", "O(1)", "Names this connection."),
        ]),
    answer("cluster", -2, container)
        .class(Class::Server)
        .docs(
            Group::Cluster,
            "3.0.0",
            "Depends on subcommand.",
            "The cluster as its clients see it.",
        )
        .subcommands(&[
            read("cluster|countkeysinslot", 3, cluster::countkeysinslot).flags("stale").docs(
                Group::Cluster,
                "3.0.0",
                "O(1)",
                "How many keys a hash slot has.",
            ),
            read("cluster|getkeysinslot", 4, cluster::getkeysinslot)
                .flags("stale")
                .tips("nondeterministic_output")
                .docs(
                    Group::Cluster,
                    "3.0.0",
                    "O(log(N)) where N is the number of requested keys",
                    "Some keys of a hash slot.",
                ),
            answer("cluster|help", 2, cluster::help)
                .class(Class::Server)
                .flags("loading stale")
                .docs(Group::Cluster, "5.0.0", "O(1)", "Lists the subcommands."),
            answer("cluster|info", 2, cluster::info)
                .class(Class::Server)
                .flags("stale")
                .tips("nondeterministic_output")
                .docs(Group::Cluster, "3.0.0", "O(1)", "The state of the cluster."),
            answer("cluster|keyslot", 3, cluster::keyslot)
                .class(Class::Server)
                .flags("stale")
                .docs(
                    Group::Cluster,
                    "3.0.0",
                    "O(N) where N is the number of bytes in the key",
                    "The hash slot of a key.",
                ),
            answer("cluster|myid", 2, cluster::myid).class(Class::Server).flags("stale").docs(
                Group::Cluster,
                "3.0.0",
                "O(1)",
                "The id of this node.",
            ),
            answer("cluster|nodes", 2, cluster::nodes)
                .class(Class::Server)
                .flags("stale")
                .tips("nondeterministic_output")
                .docs(
                    Group::Cluster,
                    "3.0.0",
                    "O(N) where N is the total number of Cluster nodes",
                    "One line for each node.",
                ),
            answer("cluster|shards", 2, cluster::shards)
                .class(Class::Server)
                .flags("stale")
                .tips("nondeterministic_output")
                .docs(
                    Group::Cluster,
                    "7.0.0",
                    "O(N) where N is the total number of cluster nodes",
                    "The one shard, its slots and its nodes.",
                ),
            answer("cluster|slots", 2, cluster::slots)
                .class(Class::Server)
                .flags("stale")
                .tips("nondeterministic_output")
                .docs(
                    Group::Cluster,
                    "3.0.0",
                    "O(N) where N is the total number of Cluster nodes",
                    "Hash slots and the nodes that serve them.",
                ),
        ]),
    answer("command", -1, introspect::command)
        .class(Class::Server)
        .flags("loading stale")
        .categories("connection")
        .tips("nondeterministic_output_order")
        .docs(
            Group::Server,
            "2.8.13",
            "O(N) where N is the total number of Redis commands",
            "The commands of this server, in detail.",
        )
        .subcommands(&[
            answer("command|count", 2, introspect::count)
                .class(Class::Server)
                .flags("loading stale")
                .categories("connection")
                .docs(Group::Server, "2.8.13", "O(1)", "How many commands there are."),
            answer("command|docs", -2, introspect::docs)
                .class(Class::Server)
                .flags("loading stale")
                .categories("connection")
                .tips("nondeterministic_output_order")
                .docs(
                    Group::Server,
                    "7.0.0",
                    "O(N) where N is the number of commands to look up",
                    "What commands are for.",
                ),
            answer("command|getkeys", -4, introspect::getkeys)
                .class(Class::Server)
                .flags("loading stale")
                .categories("connection")
                .docs(
                    Group::Server,
                    "2.8.13",
                    "O(N) where N is the number of arguments to the command",
                    "The keys of a whole command.",
                ),
            answer("command|getkeysandflags", -4, introspect::getkeysandflags)
                .class(Class::Server)
                .flags("loading stale")
                .categories("connection")
                .docs(
                    Group::Server,
                    "7.0.0",
                    "O(N) where N is the number of arguments to the command",
                    "The keys of a whole command, and what is done to them.",
                ),
            answer("command|help", 2, introspect::help)
                .class(Class::Server)
                .flags("loading stale")
                .categories("connection")
                .docs(Group::Server, "5.0.0", "O(1)", "Lists the subcommands."),
            answer("command|info", -2, introspect::info)
                .class(Class::Server)
                .flags("loading stale")
                .categories("connection")
                .tips("nondeterministic_output_order")
                .docs(
                    Group::Server,
                    "2.8.13",
                    "O(N) where N is the number of commands to look up",
                    "Arity, flags and positions of keys of commands.",
                ),
            answer("command|list", -2, introspect::list)
                .class(Class::Server)
                .flags("loading stale")
                .categories("connection")
                .tips("nondeterministic_output_order")
                .docs(
                    Group::Server,
                    "7.0.0",
                    "O(N) where N is the total number of Redis commands",
                    "The names of commands.",
                ),
        ]),
    answer("config", -2, container)
        .class(Class::Server)
        .docs(Group::Server, "2.0.0", "Depends on subcommand.", "Parameters of the server.")
        .subcommands(&[
            answer("config|get", -3, server::config_get)
                .class(Class::Server)
                .flags("admin noscript loading stale")
                .docs(
                    Group::Server,
                    "2.0.0",
                    "O(N) in the length of the values",
                    "Parameters whose names match.",
                ),
            answer("config|help", 2, server::config_help)
                .class(Class::Server)
                .flags("loading stale")
                .docs(Group::Server, "5.0.0", "O(1)", "Lists the subcommands."),
            answer("config|set", -4, server::config_set)
                .class(Class::Server)
                .flags("admin noscript loading stale")
                .tips("request_policy:all_nodes response_policy:all_succeeded")
                .docs(
                    Group::Server,
                    "2.0.0",
                    "O(N) in the length of the values",
                    "Refused, unless nothing would change.",
                ),
        ]),
    write("copy", -3, generic::copy)
        .flags("write denyoom")
        .categories("keyspace")
        .keys_at(&[keys(1, 0, 1, "RO access"), keys(2, 0, 1, "OW update")])
        .docs(
            Group::Generic,
            "6.2.0",
            "O(N) in the length of the values",
            "Copies a value to another key.",
        ),
    read("dbsize", 1, generic::dbsize)
        .flags("readonly fast")
        .categories("keyspace")
        .tips("request_policy:all_shards response_policy:agg_sum")
        .docs(Group::Server, "1.0.0", "O(1)", "How many keys there are."),
    write("decr", 2, strings::decr)
        .flags("write denyoom fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW access update")])
        .docs(Group::String, "1.0.0", "O(1)", "Takes one from a number."),
    write("decrby", 3, strings::decrby)
        .flags("write denyoom fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW access update")])
        .docs(Group::String, "1.0.0", "O(1)", "Takes from a number."),
    write("del", -2, generic::del)
        .flags("write")
        .categories("keyspace")
        .tips("request_policy:multi_shard response_policy:agg_sum")
        .keys_at(&[keys(1, -1, 1, "RM delete")])
        .docs(Group::Generic, "1.0.0", "O(N) in the number of keys", "Deletes keys."),
    answer("echo", 2, connection::echo)
        .class(Class::Connection)
        .flags("loading stale fast")
        .categories("connection")
        .docs(Group::Connection, "1.0.0", "O(1)", "Answers with its argument."),
    read("exists", -2, generic::exists)
        .flags("readonly fast")
        .categories("keyspace")
        .tips("request_policy:multi_shard response_policy:agg_sum")
        .keys_at(&[keys(1, -1, 1, "RO")])
        .docs(
            Group::Generic,
            "1.0.0",
            "O(N) where N is the number of keys to check.",
            "How many of the keys exist.",
        ),
    write("expire", -3, expiry::expire)
        .flags("write fast")
        .categories("keyspace")
        .keys_at(&[keys(1, 0, 1, "RW update")])
        .docs(Group::Generic, "1.0.0", "O(1)", "Lets a key expire after some seconds."),
    write("expireat", -3, expiry::expireat)
        .flags("write fast")
        .categories("keyspace")
        .keys_at(&[keys(1, 0, 1, "RW update")])
        .docs(Group::Generic, "1.2.0", "O(1)", "Lets a key expire at a Unix time in seconds."),
    read("expiretime", 2, expiry::expiretime)
        .flags("readonly fast")
        .categories("keyspace")
        .keys_at(&[keys(1, 0, 1, "RO access")])
        .docs(Group::Generic, "7.0.0", "O(1)", "The Unix time in seconds when a key expires."),
    write("flushall", -1, generic::flush)
        .flags("write")
        .categories("keyspace dangerous")
        .tips("request_policy:all_shards response_policy:all_succeeded")
        .docs(
            Group::Server,
            "1.0.0",
            "O(N) where N is the total number of keys in all databases",
            "Deletes all keys.",
        ),
    write("flushdb", -1, generic::flush)
        .flags("write")
        .categories("keyspace dangerous")
        .tips("request_policy:all_shards response_policy:all_succeeded")
        .docs(
            Group::Server,
            "1.0.0",
            "O(N) where N is the number of keys in the selected database",
            "Deletes all keys.",
        ),
    read("get", 2, strings::get)
        .flags("readonly fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RO access")])
        .docs(Group::String, "1.0.0", "O(1)", "The value of a key."),
    write("getdel", 2, strings::getdel)
        .flags("write fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW access delete")])
        .docs(Group::String, "6.2.0", "O(1)", "Gives the value of a key and deletes it."),
    write("getex", -2, strings::getex)
        .flags("write fast")
        .categories("string")
        .keys_at(&[
            keys(1, 0, 1, "RW access update").notes("RW and UPDATE because it changes the TTL")
        ])
        .docs(Group::String, "6.2.0", "O(1)", "Gives the value of a key and changes its deadline."),
    read("getrange", 4, strings::getrange)
        .flags("readonly")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RO access")])
        .docs(Group::String, "2.4.0", "O(N) in the length of the values", "A part of a value."),
    write("getset", 3, strings::getset)
        .flags("write denyoom fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW access update")])
        .docs(Group::String, "1.0.0", "O(1)", "Sets a key and gives back what it held."),
    answer("hello", -1, connection::hello)
        .class(Class::Connection)
        .flags("noscript loading stale fast no_auth allow_busy")
        .categories("connection")
        .docs(
            Group::Connection,
            "6.0.0",
            "O(1)",
            "Begins a conversation: protocol version, user, name.",
        ),
    write("incr", 2, strings::incr)
        .flags("write denyoom fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW access update")])
        .docs(Group::String, "1.0.0", "O(1)", "Adds one to a number."),
    write("incrby", 3, strings::incrby)
        .flags("write denyoom fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW access update")])
        .docs(Group::String, "1.0.0", "O(1)", "Adds to a number."),
    write("incrbyfloat", 3, strings::incrbyfloat)
        .flags("write denyoom fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW access update")])
        .docs(Group::String, "2.6.0", "O(1)", "Adds to a number with a fraction."),
    answer("info", -1, server::info)
        .class(Class::Server)
        .flags("loading stale")
        .categories("dangerous")
        .tips("nondeterministic_output request_policy:all_shards response_policy:special")
        .docs(Group::Server, "1.0.0", "O(1)", "What the node knows of itself, in sections."),
    read("keys", 2, generic::keys)
        .flags("readonly")
        .categories("keyspace dangerous")
        .tips("request_policy:all_shards nondeterministic_output_order")
        .docs(
            Group::Generic,
            "1.0.0",
            "O(N) in the number of keys",
            "All keys that match a pattern.",
        ),
    read("lcs", -3, strings::lcs)
        .flags("readonly")
        .categories("string")
        .keys_at(&[keys(1, 1, 1, "RO access")])
        .docs(
            Group::String,
            "7.0.0",
            "O(N*M) in the lengths of the two values",
            "The longest common subsequence of two values.",
        ),
    read("mget", -2, strings::mget)
        .flags("readonly fast")
        .categories("string")
        .tips("request_policy:multi_shard")
        .keys_at(&[keys(1, -1, 1, "RO access")])
        .docs(
            Group::String,
            "1.0.0",
            "O(N) where N is the number of keys to retrieve.",
            "The values of several keys.",
        ),
    write("mset", -3, strings::mset)
        .flags("write denyoom")
        .categories("string")
        .tips("request_policy:multi_shard response_policy:all_succeeded")
        .keys_at(&[keys(1, -1, 2, "OW update")])
        .docs(
            Group::String,
            "1.0.1",
            "O(N) where N is the number of keys to set.",
            "Sets several keys at once.",
        ),
    write("msetnx", -3, strings::msetnx)
        .flags("write denyoom")
        .categories("string")
        .tips("request_policy:multi_shard response_policy:agg_min")
        .keys_at(&[keys(1, -1, 2, "OW insert")])
        .docs(
            Group::String,
            "1.0.1",
            "O(N) where N is the number of keys to set.",
            "Sets several keys at once, if none of them exists.",
        ),
    answer("object", -2, container)
        .class(Class::Server)
        .docs(Group::Generic, "2.2.3", "Depends on subcommand.", "How values are kept.")
        .subcommands(&[
            read("object|encoding", 3, generic::object_encoding)
                .flags("readonly")
                .categories("keyspace")
                .tips("nondeterministic_output")
                .keys_at(&[keys(2, 0, 1, "RO")])
                .docs(Group::Generic, "2.2.3", "O(1)", "How a value is kept: int, embstr or raw."),
            answer("object|help", 2, generic::object_help)
                .class(Class::Server)
                .flags("loading stale")
                .categories("keyspace")
                .docs(Group::Generic, "6.2.0", "O(1)", "Lists the subcommands."),
        ]),
    write("persist", 2, expiry::persist)
        .flags("write fast")
        .categories("keyspace")
        .keys_at(&[keys(1, 0, 1, "RW update")])
        .docs(Group::Generic, "2.2.0", "O(1)", "Takes the deadline from a key."),
    write("pexpire", -3, expiry::pexpire)
        .flags("write fast")
        .categories("keyspace")
        .keys_at(&[keys(1, 0, 1, "RW update")])
        .docs(Group::Generic, "2.6.0", "O(1)", "Lets a key expire after some milliseconds."),
    write("pexpireat", -3, expiry::pexpireat)
        .flags("write fast")
        .categories("keyspace")
        .keys_at(&[keys(1, 0, 1, "RW update")])
        .docs(Group::Generic, "2.6.0", "O(1)", "Lets a key expire at a Unix time in milliseconds."),
    read("pexpiretime", 2, expiry::pexpiretime)
        .flags("readonly fast")
        .categories("keyspace")
        .keys_at(&[keys(1, 0, 1, "RO access")])
        .docs(Group::Generic, "7.0.0", "O(1)", "The Unix time in milliseconds when a key expires."),
    answer("ping", -1, connection::ping)
        .class(Class::Connection)
        .flags("fast")
        .categories("connection")
        .tips("request_policy:all_shards response_policy:all_succeeded")
        .docs(Group::Connection, "1.0.0", "O(1)", "Answers, to show that the node is alive."),
    write("psetex", 4, strings::psetex)
        .flags("write denyoom")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "OW update")])
        .docs(
            Group::String,
            "2.6.0",
            "O(1)",
            "Sets a key to a value that expires after some milliseconds.",
        ),
    read("pttl", 2, expiry::pttl)
        .flags("readonly fast")
        .categories("keyspace")
        .tips("nondeterministic_output")
        .keys_at(&[keys(1, 0, 1, "RO access")])
        .docs(Group::Generic, "2.6.0", "O(1)", "Milliseconds until a key expires."),
    answer("quit", -1, connection::quit)
        .class(Class::Connection)
        .flags("noscript loading stale fast no_auth allow_busy")
        .categories("connection")
        .docs(Group::Connection, "1.0.0", "O(1)", "Closes the connection."),
    read("randomkey", 1, generic::randomkey)
        .flags("readonly")
        .categories("keyspace")
        .tips("request_policy:all_shards nondeterministic_output")
        .docs(Group::Generic, "1.0.0", "O(1)", "Some key."),
    answer("readonly", 1, connection::readonly)
        .class(Class::Connection)
        .flags("loading stale fast")
        .categories("connection")
        .docs(Group::Cluster, "3.0.0", "O(1)", "Accepts reads from a follower."),
    answer("readwrite", 1, connection::readwrite)
        .class(Class::Connection)
        .flags("loading stale fast")
        .categories("connection")
        .docs(Group::Cluster, "3.0.0", "O(1)", "Takes back READONLY."),
    write("rename", 3, generic::rename)
        .flags("write")
        .categories("keyspace")
        .keys_at(&[keys(1, 0, 1, "RW access delete"), keys(2, 0, 1, "OW update")])
        .docs(Group::Generic, "1.0.0", "O(1)", "Gives a key another name."),
    write("renamenx", 3, generic::renamenx)
        .flags("write fast")
        .categories("keyspace")
        .keys_at(&[keys(1, 0, 1, "RW access delete"), keys(2, 0, 1, "OW insert")])
        .docs(Group::Generic, "1.0.0", "O(1)", "Gives a key another name, if that is free."),
    answer("reset", 1, connection::reset)
        .class(Class::Connection)
        .flags("noscript loading stale fast no_auth allow_busy")
        .categories("connection")
        .docs(Group::Connection, "6.2.0", "O(1)", "Puts the connection back to how it began."),
    answer("role", 1, server::role)
        .class(Class::Server)
        .flags("noscript loading stale fast")
        .categories("admin dangerous")
        .docs(Group::Server, "2.8.12", "O(1)", "Whether the node leads, and who follows or leads."),
    read("scan", -2, generic::scan)
        .flags("readonly")
        .categories("keyspace")
        .tips("nondeterministic_output request_policy:special")
        .docs(Group::Generic, "2.8.0", "O(1) for every call", "The keys, a few at a time."),
    answer("select", 2, connection::select)
        .class(Class::Connection)
        .flags("loading stale fast")
        .categories("connection")
        .docs(Group::Connection, "1.0.0", "O(1)", "Accepts database 0, the only one."),
    write("set", -3, strings::set)
        .flags("write denyoom")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW access update variable_flags")
            .notes("RW and ACCESS due to the optional `GET` argument")])
        .docs(
            Group::String,
            "1.0.0",
            "O(1)",
            "Sets a key to a value, with conditions and a deadline if wanted.",
        ),
    write("setex", 4, strings::setex)
        .flags("write denyoom")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "OW update")])
        .docs(
            Group::String,
            "2.0.0",
            "O(1)",
            "Sets a key to a value that expires after some seconds.",
        ),
    write("setnx", 3, strings::setnx)
        .flags("write denyoom fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "OW insert")])
        .docs(Group::String, "1.0.0", "O(1)", "Sets a key that does not exist."),
    write("setrange", 4, strings::setrange)
        .flags("write denyoom")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW update")])
        .docs(
            Group::String,
            "2.2.0",
            "O(N) in the length of the values",
            "Overwrites a part of a value.",
        ),
    read("strlen", 2, strings::strlen)
        .flags("readonly fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RO")])
        .docs(Group::String, "2.2.0", "O(1)", "The length of a value."),
    read("substr", 4, strings::getrange)
        .flags("readonly")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RO access")])
        .docs(Group::String, "1.0.0", "O(N) in the length of the values", "A part of a value."),
    answer("time", 1, server::time)
        .class(Class::Server)
        .flags("loading stale fast")
        .tips("nondeterministic_output")
        .docs(Group::Server, "2.6.0", "O(1)", "The node's wall clock."),
    read("touch", -2, generic::exists)
        .flags("readonly fast")
        .categories("keyspace")
        .tips("request_policy:multi_shard response_policy:agg_sum")
        .keys_at(&[keys(1, -1, 1, "RO")])
        .docs(
            Group::Generic,
            "3.2.1",
            "O(N) where N is the number of keys that will be touched.",
            "How many of the keys exist.",
        ),
    read("ttl", 2, expiry::ttl)
        .flags("readonly fast")
        .categories("keyspace")
        .tips("nondeterministic_output")
        .keys_at(&[keys(1, 0, 1, "RO access")])
        .docs(Group::Generic, "1.0.0", "O(1)", "Seconds until a key expires."),
    read("type", 2, generic::type_of)
        .flags("readonly fast")
        .categories("keyspace")
        .keys_at(&[keys(1, 0, 1, "RO")])
        .docs(Group::Generic, "1.0.0", "O(1)", "The type of a value."),
    write("unlink", -2, generic::del)
        .flags("write fast")
        .categories("keyspace")
        .tips("request_policy:multi_shard response_policy:agg_sum")
        .keys_at(&[keys(1, -1, 1, "RM delete")])
        .docs(Group::Generic, "4.0.0", "O(N) in the number of keys", "Deletes keys."),
    answer("wait", 3, server::wait)
        .class(Class::Server)
        .flags("noscript")
        .categories("connection")
        .tips("request_policy:all_shards response_policy:agg_min")
        .docs(
            Group::Generic,
            "3.0.0",
            "O(1)",
            "How many followers have the last write of this connection.",
        ),
];

#[cfg(test)]
mod tests {
    use super::super::spec::Handler;
    use super::*;

    #[test]
    fn names_are_sorted_and_found() {
        assert!(COMMANDS.is_sorted_by_key(|spec| spec.name));
        for spec in COMMANDS {
            let found = lookup(spec.name.to_uppercase().as_bytes()).expect("a command is found");
            assert_eq!(found.name, spec.name);
            assert!(!spec.summary.is_empty(), "{} has no summary", spec.name);
            let prefix = format!("{}|", spec.name);
            assert!(spec.subcommands.iter().all(|sub| sub.name.starts_with(&prefix)));
        }
        assert!(lookup(b"nosuch").is_none());
        assert!(lookup(b"").is_none());
        assert!(lookup(&[b'g'; 300]).is_none());
    }

    /// Every argument that a parser may index is covered by the arity.
    #[test]
    fn the_shortest_call_is_parsed() {
        for spec in COMMANDS.iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands)) {
            let argv = vec![&b"1"[..]; spec.arity.unsigned_abs() as usize];
            match spec.handler {
                Handler::Write(parse) => drop(parse(&argv)),
                Handler::Read(parse) => drop(parse(&argv)),
                Handler::Answer(_) => {}
            }
            let keys = spec.keys(&argv).count();
            assert_eq!(keys > 0, !spec.keys.is_empty(), "{}", spec.name);
        }
    }
}
