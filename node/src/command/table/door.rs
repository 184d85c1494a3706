//! Commands that any node answers at once, and their subcommands, a few of which are reads.

use super::super::keys as generic;
use super::super::spec::{Class, Group, Spec, answer, keys, read, transaction};
use super::super::{client, cluster, connection, container, introspect, server};

pub(super) const COMMANDS: &[Spec] = &[
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
    transaction("discard", 1).flags("noscript loading stale fast allow_busy").docs(
        Group::Transactions,
        "2.0.0",
        "O(N), when N is the number of queued commands",
        "Forgets the queued commands and lets go of the watched keys.",
    ),
    answer("echo", 2, connection::echo)
        .class(Class::Connection)
        .flags("loading stale fast")
        .categories("connection")
        .docs(Group::Connection, "1.0.0", "O(1)", "Answers with its argument."),
    transaction("exec", 1).flags("noscript loading stale skip_slowlog").docs(
        Group::Transactions,
        "1.2.0",
        "Depends on commands in the transaction",
        "Carries out the queued commands in one step.",
    ),
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
    answer("info", -1, server::info)
        .class(Class::Server)
        .flags("loading stale")
        .categories("dangerous")
        .tips("nondeterministic_output request_policy:all_shards response_policy:special")
        .docs(Group::Server, "1.0.0", "O(1)", "What the node knows of itself, in sections."),
    transaction("multi", 1).flags("noscript loading stale fast allow_busy").docs(
        Group::Transactions,
        "1.2.0",
        "O(1)",
        "Begins a transaction: commands are queued.",
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
    answer("ping", -1, connection::ping)
        .class(Class::Connection)
        .flags("fast")
        .categories("connection")
        .tips("request_policy:all_shards response_policy:all_succeeded")
        .docs(Group::Connection, "1.0.0", "O(1)", "Answers, to show that the node is alive."),
    answer("quit", -1, connection::quit)
        .class(Class::Connection)
        .flags("noscript loading stale fast no_auth allow_busy")
        .categories("connection")
        .docs(Group::Connection, "1.0.0", "O(1)", "Closes the connection."),
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
    answer("select", 2, connection::select)
        .class(Class::Connection)
        .flags("loading stale fast")
        .categories("connection")
        .docs(Group::Connection, "1.0.0", "O(1)", "Accepts database 0, the only one."),
    answer("time", 1, server::time)
        .class(Class::Server)
        .flags("loading stale fast")
        .tips("nondeterministic_output")
        .docs(Group::Server, "2.6.0", "O(1)", "The node's wall clock."),
    transaction("unwatch", 1).flags("noscript loading stale fast allow_busy").docs(
        Group::Transactions,
        "2.2.0",
        "O(1)",
        "Lets go of the watched keys.",
    ),
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
    transaction("watch", -2)
        .flags("noscript loading stale fast allow_busy")
        .keys_at(&[keys(1, -1, 1, "RO")])
        .docs(
            Group::Transactions,
            "2.2.0",
            "O(1) for every key.",
            "Lets EXEC fail if one of the keys is touched meanwhile.",
        ),
];
