//! Commands on the store: reads, and writes through the log.

use super::super::spec::{Group, OldValue, Spec, Work, keys, read, write};
use super::super::{expiry, keys as generic, once, strings};

pub(super) const COMMANDS: &[Spec] = &[
    write("append", 3, strings::append)
        .flags("write denyoom fast")
        .extends_value()
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW insert")])
        .docs(
            Group::String,
            "2.0.0",
            "O(N) in the length of the value",
            "Adds to the end of a value.",
        ),
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
    write("delex", -2, strings::delex)
        .flags("write fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW access delete")])
        .docs(
            Group::String,
            "8.4.0",
            "O(1)",
            "Deletes a key if its value is, or is not, the one given.",
        ),
    write("delifeq", 3, strings::delifeq)
        .flags("write fast")
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW access delete")])
        .docs(Group::String, "9.0.0", "O(1)", "Deletes a key if its value is the one given."),
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
        .old_value(OldValue::Always)
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW access delete")])
        .docs(Group::String, "6.2.0", "O(1)", "Gives the value of a key and deletes it."),
    write("getex", -2, strings::getex)
        .flags("write fast")
        .old_value(OldValue::Always)
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
        .old_value(OldValue::Always)
        .categories("string")
        .keys_at(&[keys(1, 0, 1, "RW access update")])
        .docs(Group::String, "1.0.0", "O(1)", "Sets a key and gives back what it held."),
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
    read("keys", 2, generic::keys)
        .flags("readonly")
        .work(Work::Slices)
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
        .work(Work::ATurn)
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
    write("once", -2, once::once).flags("write movablekeys").docs(
        Group::Generic,
        "7.0.0",
        "That of the command",
        "Opens a session, or carries a write out once however often it is sent.",
    ),
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
        .needs_clock()
        .categories("keyspace")
        .tips("nondeterministic_output")
        .keys_at(&[keys(1, 0, 1, "RO access")])
        .docs(Group::Generic, "2.6.0", "O(1)", "Milliseconds until a key expires."),
    read("randomkey", 1, generic::randomkey)
        .flags("readonly")
        .categories("keyspace")
        .tips("request_policy:all_shards nondeterministic_output")
        .docs(Group::Generic, "1.0.0", "O(1)", "Some key."),
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
    read("scan", -2, generic::scan)
        .flags("readonly")
        .work(Work::ATurn)
        .categories("keyspace")
        .tips("nondeterministic_output request_policy:special")
        .docs(Group::Generic, "2.8.0", "O(1) for every call", "The keys, a few at a time."),
    write("set", -3, strings::set)
        .flags("write denyoom")
        .old_value(OldValue::WithOption("get"))
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
        .extends_value()
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
        .needs_clock()
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
];
