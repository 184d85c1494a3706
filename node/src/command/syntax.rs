//! The arguments of the commands, as `COMMAND DOCS` describes them: what `redis-cli` builds its
//! hints from. In the order of the names; commands without arguments are not listed.

use crate::resp::Reply;

/// One argument; or, if it has `arguments` itself, a choice between them or a group of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Argument {
    name: &'static str,
    kind: &'static str,
    /// Which of the command's key specifications finds it.
    key_specification: Option<u8>,
    /// The word before it, or the whole of it.
    token: &'static str,
    since: &'static str,
    optional: bool,
    multiple: bool,
    arguments: &'static [Argument],
}

/// What a command takes.
pub(super) fn arguments(name: &str) -> &'static [Argument] {
    match SYNTAX.binary_search_by_key(&name, |(name, _)| name) {
        Ok(place) => SYNTAX[place].1,
        Err(_) => &[],
    }
}

impl Argument {
    pub(super) fn docs(&self) -> Reply {
        let mut fields = vec![("name", Reply::bulk(self.name)), ("type", Reply::bulk(self.kind))];
        if let Some(index) = self.key_specification {
            fields.push(("key_spec_index", Reply::Integer(i64::from(index))));
        }
        if !self.token.is_empty() {
            fields.push(("token", Reply::bulk(self.token)));
        }
        if !self.since.is_empty() {
            fields.push(("since", Reply::bulk(self.since)));
        }
        let flags = [(self.optional, "optional"), (self.multiple, "multiple")];
        let flags: Vec<_> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        if !flags.is_empty() {
            fields.push(("flags", Reply::Set(Reply::statuses(flags))));
        }
        if !self.arguments.is_empty() {
            let arguments = self.arguments.iter().map(Argument::docs).collect();
            fields.push(("arguments", Reply::Array(arguments)));
        }
        Reply::Map(fields.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
    }

    const fn after(mut self, token: &'static str) -> Argument {
        self.token = token;
        self
    }

    const fn since(mut self, since: &'static str) -> Argument {
        self.since = since;
        self
    }

    const fn optional(mut self) -> Argument {
        self.optional = true;
        self
    }

    const fn multiple(mut self) -> Argument {
        self.multiple = true;
        self
    }
}

const fn argument(name: &'static str, kind: &'static str) -> Argument {
    Argument {
        name,
        kind,
        key_specification: None,
        token: "",
        since: "",
        optional: false,
        multiple: false,
        arguments: &[],
    }
}

const fn key(name: &'static str, specification: u8) -> Argument {
    let mut key = argument(name, "key");
    key.key_specification = Some(specification);
    key
}

const fn string(name: &'static str) -> Argument {
    argument(name, "string")
}

const fn integer(name: &'static str) -> Argument {
    argument(name, "integer")
}

const fn double(name: &'static str) -> Argument {
    argument(name, "double")
}

const fn pattern(name: &'static str) -> Argument {
    argument(name, "pattern")
}

const fn unix_time(name: &'static str) -> Argument {
    argument(name, "unix-time")
}

const fn token(name: &'static str, token: &'static str) -> Argument {
    argument(name, "pure-token").after(token)
}

/// One of these.
const fn one_of(name: &'static str, arguments: &'static [Argument]) -> Argument {
    let mut choice = argument(name, "oneof");
    choice.arguments = arguments;
    choice
}

/// All of these, together.
const fn block(name: &'static str, arguments: &'static [Argument]) -> Argument {
    let mut group = argument(name, "block");
    group.arguments = arguments;
    group
}

const EXPIRE_CONDITION: Argument = one_of(
    "condition",
    &[token("nx", "NX"), token("xx", "XX"), token("gt", "GT"), token("lt", "LT")],
)
.since("7.0.0")
.optional();

const FLUSH_MODE: Argument = one_of(
    "async",
    &[token("async", "ASYNC").since("4.0.0"), token("sync", "SYNC").since("6.2.0")],
)
.optional();

static SYNTAX: &[(&str, &[Argument])] = &[
    ("append", &[key("key", 0), string("value")]),
    ("auth", &[string("username").since("6.0.0").optional(), string("password")]),
    (
        "client|list",
        &[
            one_of(
                "normal_master_replica_pubsub",
                &[
                    token("normal", "NORMAL"),
                    token("master", "MASTER"),
                    token("replica", "REPLICA"),
                    token("pubsub", "PUBSUB"),
                ],
            )
            .after("TYPE")
            .since("5.0.0")
            .optional(),
            block("id", &[integer("client-id").multiple()]).after("ID").since("6.2.0").optional(),
        ],
    ),
    ("client|no-evict", &[one_of("enabled", &[token("on", "ON"), token("off", "OFF")])]),
    (
        "client|setinfo",
        &[one_of(
            "attr",
            &[string("libname").after("LIB-NAME"), string("libver").after("LIB-VER")],
        )],
    ),
    ("client|setname", &[string("connection-name")]),
    ("cluster|countkeysinslot", &[integer("slot")]),
    ("cluster|getkeysinslot", &[integer("slot"), integer("count")]),
    ("cluster|keyslot", &[string("key")]),
    ("command|docs", &[string("command-name").optional().multiple()]),
    ("command|info", &[string("command-name").optional().multiple()]),
    (
        "command|list",
        &[one_of(
            "filterby",
            &[
                string("module-name").after("MODULE"),
                string("category").after("ACLCAT"),
                pattern("pattern").after("PATTERN"),
            ],
        )
        .after("FILTERBY")
        .optional()],
    ),
    ("config|get", &[block("parameter", &[string("parameter")]).multiple()]),
    ("config|set", &[block("parameter_value", &[string("parameter"), string("value")]).multiple()]),
    (
        "copy",
        &[
            key("source", 0),
            key("destination", 1),
            integer("destination-db").after("DB").optional(),
            token("replace", "REPLACE").optional(),
        ],
    ),
    ("decr", &[key("key", 0)]),
    ("decrby", &[key("key", 0), integer("decrement")]),
    ("del", &[key("key", 0).multiple()]),
    (
        "delex",
        &[
            key("key", 0),
            one_of(
                "condition",
                &[string("ifeq-value").after("IFEQ"), string("ifne-value").after("IFNE")],
            )
            .optional(),
        ],
    ),
    ("delifeq", &[key("key", 0), string("value")]),
    ("echo", &[string("message")]),
    ("exists", &[key("key", 0).multiple()]),
    ("expire", &[key("key", 0), integer("seconds"), EXPIRE_CONDITION]),
    ("expireat", &[key("key", 0), unix_time("unix-time-seconds"), EXPIRE_CONDITION]),
    ("expiretime", &[key("key", 0)]),
    ("flushall", &[FLUSH_MODE]),
    ("flushdb", &[FLUSH_MODE]),
    ("get", &[key("key", 0)]),
    ("getdel", &[key("key", 0)]),
    (
        "getex",
        &[
            key("key", 0),
            one_of(
                "expiration",
                &[
                    integer("seconds").after("EX"),
                    integer("milliseconds").after("PX"),
                    unix_time("unix-time-seconds").after("EXAT"),
                    unix_time("unix-time-milliseconds").after("PXAT"),
                    token("persist", "PERSIST"),
                ],
            )
            .optional(),
        ],
    ),
    ("getrange", &[key("key", 0), integer("start"), integer("end")]),
    ("getset", &[key("key", 0), string("value")]),
    (
        "hello",
        &[block(
            "arguments",
            &[
                integer("protover"),
                block("username_password", &[string("username"), string("password")])
                    .after("AUTH")
                    .optional(),
                string("clientname").after("SETNAME").optional(),
            ],
        )
        .optional()],
    ),
    ("incr", &[key("key", 0)]),
    ("incrby", &[key("key", 0), integer("increment")]),
    ("incrbyfloat", &[key("key", 0), double("increment")]),
    ("info", &[string("section").optional().multiple()]),
    ("keys", &[pattern("pattern")]),
    (
        "lcs",
        &[
            key("key1", 0),
            key("key2", 0),
            token("len", "LEN").optional(),
            token("idx", "IDX").optional(),
            integer("len").after("MINMATCHLEN").optional(),
            token("withmatchlen", "WITHMATCHLEN").optional(),
        ],
    ),
    ("mget", &[key("key", 0).multiple()]),
    ("mset", &[block("key_value", &[key("key", 0), string("value")]).multiple()]),
    ("msetnx", &[block("key_value", &[key("key", 0), string("value")]).multiple()]),
    ("object|encoding", &[key("key", 0)]),
    (
        "once",
        &[one_of(
            "action",
            &[
                token("open", "OPEN"),
                block(
                    "carry",
                    &[
                        integer("session"),
                        integer("number"),
                        string("command"),
                        string("arg").optional().multiple(),
                    ],
                ),
            ],
        )],
    ),
    ("persist", &[key("key", 0)]),
    ("pexpire", &[key("key", 0), integer("milliseconds"), EXPIRE_CONDITION]),
    ("pexpireat", &[key("key", 0), unix_time("unix-time-milliseconds"), EXPIRE_CONDITION]),
    ("pexpiretime", &[key("key", 0)]),
    ("ping", &[string("message").optional()]),
    ("psetex", &[key("key", 0), integer("milliseconds"), string("value")]),
    ("pttl", &[key("key", 0)]),
    ("rename", &[key("key", 0), key("newkey", 1)]),
    ("renamenx", &[key("key", 0), key("newkey", 1)]),
    (
        "scan",
        &[
            integer("cursor"),
            pattern("pattern").after("MATCH").optional(),
            integer("count").after("COUNT").optional(),
            string("type").after("TYPE").since("6.0.0").optional(),
        ],
    ),
    ("select", &[integer("index")]),
    (
        "set",
        &[
            key("key", 0),
            string("value"),
            one_of(
                "condition",
                &[
                    token("nx", "NX"),
                    token("xx", "XX"),
                    string("comparison-value").after("IFEQ").since("8.1.0"),
                    string("comparison-value").after("IFNE").since("8.4.0"),
                ],
            )
            .since("2.6.12")
            .optional(),
            token("get", "GET").since("6.2.0").optional(),
            one_of(
                "expiration",
                &[
                    integer("seconds").after("EX").since("2.6.12"),
                    integer("milliseconds").after("PX").since("2.6.12"),
                    unix_time("unix-time-seconds").after("EXAT").since("6.2.0"),
                    unix_time("unix-time-milliseconds").after("PXAT").since("6.2.0"),
                    token("keepttl", "KEEPTTL").since("6.0.0"),
                ],
            )
            .optional(),
        ],
    ),
    ("setex", &[key("key", 0), integer("seconds"), string("value")]),
    ("setnx", &[key("key", 0), string("value")]),
    ("setrange", &[key("key", 0), integer("offset"), string("value")]),
    ("strlen", &[key("key", 0)]),
    ("substr", &[key("key", 0), integer("start"), integer("end")]),
    ("touch", &[key("key", 0).multiple()]),
    ("ttl", &[key("key", 0)]),
    ("type", &[key("key", 0)]),
    ("unlink", &[key("key", 0).multiple()]),
    ("wait", &[integer("numreplicas"), integer("timeout")]),
    ("watch", &[key("key", 0).multiple()]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_belong_to_commands() {
        assert!(SYNTAX.is_sorted_by_key(|(name, _)| name));
        let names: Vec<_> = super::super::table::COMMANDS
            .iter()
            .flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
            .map(|spec| spec.name)
            .collect();
        for (name, _) in SYNTAX {
            assert!(names.contains(name), "{name} is not a command");
        }
    }
}
