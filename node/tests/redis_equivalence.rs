//! Ours against a real `redis-server`: the same bytes go to both, the same bytes must come back.
//!
//! Ours is the parser and a node that is alone, without a socket; the other is whatever
//! `redis-server` is installed, on a free loopback port, in a folder of its own. Commands are
//! drawn from a seed over few keys, so that they meet each other's leftovers, and many of them
//! are broken on purpose. Where an answer hangs on the clock, or on an order that Redis leaves
//! open, the test says so and compares what is left.

#[path = "redis_equivalence/frames.rs"]
mod frames;
#[path = "redis_equivalence/generate.rs"]
mod generate;
#[path = "redis_equivalence/ours.rs"]
mod ours;
#[path = "redis_equivalence/real.rs"]
mod real;

use generate::Generator;
use node::resp::Protocol;
use ours::Ours;
use real::{Connection, Real};

/// Sends commands to both in batches, and compares every answer.
struct Pair {
    ours: Ours,
    real: Connection,
    protocol: Protocol,
}

impl Pair {
    fn new(real: &Real, protocol: Protocol) -> Pair {
        let mut pair = Pair { ours: Ours::new(), real: real.connect(), protocol };
        pair.check(&[words("FLUSHALL")]);
        if protocol == Protocol::Resp3 {
            let hello = words("HELLO 3");
            pair.ours.run(&hello);
            pair.real.send(&[hello]);
            pair.real.receive();
        }
        pair
    }

    fn check(&mut self, commands: &[Vec<Vec<u8>>]) {
        self.real.send(commands);
        self.ours.check_state_hash();
        for command in commands {
            let real = frames::comparable(command, &self.real.receive());
            let ours = frames::comparable(command, &self.ours.run(command));
            assert!(
                frames::agree(command, &ours, &real),
                "{:?}\n{}\n ours: {}\nredis: {}",
                self.protocol,
                show_command(command),
                ours.escape_ascii(),
                real.escape_ascii()
            );
        }
    }

    /// The same in one write on both sides. Whether it ended with the replies of an `EXEC`.
    fn check_pipelined(&mut self, commands: &[Vec<Vec<u8>>]) -> bool {
        self.real.send(commands);
        let real: Vec<Vec<u8>> = commands.iter().map(|_| self.real.receive()).collect();
        let bytes: Vec<u8> = commands.iter().flat_map(|command| frames::request(command)).collect();
        let replies = self.ours.raw(&bytes);
        let mut ours = &replies[..];
        for (command, real) in commands.iter().zip(&real) {
            let (reply, rest) = ours.split_at(frames::length(ours).expect("one reply a command"));
            assert!(
                frames::agree(command, reply, real),
                "{:?}\n{}\n ours: {}\nredis: {}\nin {:?}",
                self.protocol,
                show_command(command),
                reply.escape_ascii(),
                real.escape_ascii(),
                commands.iter().map(|command| show_command(command)).collect::<Vec<_>>()
            );
            ours = rest;
        }
        assert!(ours.is_empty(), "more replies than commands");
        real.last().is_some_and(|reply| reply.starts_with(b"*") && *reply != b"*-1\r\n")
    }

    /// Of the documentation, what programs read: the syntax. The prose is our own.
    fn check_arguments(&mut self, name: &str) {
        let command = words(&format!("COMMAND DOCS {name}"));
        self.real.send(std::slice::from_ref(&command));
        let real = self.real.receive();
        let ours = self.ours.run(&command);
        let arguments = |docs: &[u8]| frames::documented_arguments(docs).escape_ascii().to_string();
        assert_eq!(arguments(&ours), arguments(&real), "{:?} {name}", self.protocol);
    }

    fn check_all(&mut self, lines: &[&str]) {
        for line in lines {
            self.check(&[words(line)]);
        }
    }
}

/// Splits at spaces; `_` stands for an empty argument, `\x20` and the like for any byte.
fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| if word == "_" { Vec::new() } else { unescape(word) }).collect()
}

fn unescape(word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut parts = word.split("\\x");
    bytes.extend_from_slice(parts.next().unwrap().as_bytes());
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    bytes
}

fn show_command(command: &[Vec<u8>]) -> String {
    let words = command.iter().map(|word| {
        let shown = word.escape_ascii().to_string();
        if shown.len() > 200 {
            format!("{}… ({} bytes)", &shown[..200], word.len())
        } else {
            shown
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Rounds of random commands; a failure names the command, and the seed is the loop's number.
fn random_rounds(
    rounds: u64,
    commands: usize,
    mut next: impl FnMut(&mut Generator) -> Vec<Vec<u8>>,
) {
    let Some(real) = Real::start() else { return };
    for seed in 0..rounds {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let mut generator = Generator::new(seed);
            let mut pair = Pair::new(&real, protocol);
            let batch: Vec<_> = (0..commands).map(|_| next(&mut generator)).collect();
            for commands in batch.chunks(50) {
                pair.check(commands);
            }
        }
    }
}

#[test]
fn well_formed_commands() {
    random_rounds(12, 1_500, Generator::data_command);
}

#[test]
fn malformed_commands() {
    random_rounds(8, 1_500, Generator::malformed_command);
}

/// Blocks of `WATCH`, commands, `MULTI`, commands good and bad, and an end.
#[test]
fn transactions() {
    let Some(real) = Real::start() else { return };
    let mut executed = [0; 2];
    for seed in 0..12 {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let mut generator = Generator::new(seed);
            let mut pair = Pair::new(&real, protocol);
            for _ in 0..150 {
                let block = generator.transaction();
                pair.check(&block);
                // Once more, in one write: what ours does in a pipeline is what it does one by one.
                executed[usize::from(pair.check_pipelined(&block))] += 1;
            }
        }
    }
    assert!(executed.iter().all(|count| *count > 200), "aborted and executed: {executed:?}");
}

#[test]
fn floats_to_the_last_digit() {
    random_rounds(4, 2_000, Generator::float_command);
}

#[test]
fn patterns_with_all_their_oddities() {
    random_rounds(4, 1_000, Generator::pattern_command);
}

#[test]
fn common_subsequences() {
    random_rounds(3, 400, Generator::subsequence_command);
}

#[test]
fn conversations() {
    let Some(real) = Real::start() else { return };
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut pair = Pair::new(&real, protocol);
        pair.check_all(&[
            "PING",
            "PING hello",
            "PING a b",
            "ECHO x",
            "ECHO",
            "ECHO a b",
            "SELECT 0",
            "SELECT x",
            "SELECT 99999999999",
            "CLIENT GETNAME",
            "CLIENT SETNAME me",
            "CLIENT GETNAME",
            "CLIENT SETNAME a\\x20b",
            "CLIENT SETNAME _",
            "CLIENT GETNAME",
            "CLIENT SETNAME",
            "CLIENT",
            "CLIENT FOO",
            "CLIENT NO-EVICT on",
            "CLIENT NO-EVICT foo",
            "CLIENT NO-EVICT",
            "CLIENT LIST TYPE foo",
            "CLIENT LIST FOO",
            "CLIENT LIST ID",
            "CLIENT LIST ID x",
            "CLIENT LIST TYPE replica",
            "CLIENT MAINT_NOTIFICATIONS ON",
            "HELLO x",
            "HELLO 4",
            "HELLO 3 FOO",
            "HELLO 3 SETNAME",
            "HELLO 2 SETNAME a\\x20b",
            "HELLO 3 AUTH x",
            "HELLO 3 AUTH nobody x",
            "AUTH x",
            "AUTH default x",
            "AUTH nobody x",
            "AUTH a b c",
            "AUTH",
            "ACL WHOAMI",
            "ACL FOO",
            "ACL",
            "WAIT a b",
            "WAIT 0 -1",
            "WAIT 0 x",
            "WAIT 0",
            "NOSUCH",
            "NOSUCH a b",
            "nosuch a\\x0d\\x0ab",
            "CONFIG",
            "CONFIG GET",
            "CONFIG FOO",
            "CONFIG GET nosuch",
            "CONFIG SET save a b",
            "CONFIG SET nosuch x",
            "CONFIG SET nosuch",
            "CONFIG SET databases 3",
            "CONFIG GET maxmemory",
            "OBJECT",
            "OBJECT FOO",
            "OBJECT HELP x",
            "OBJECT ENCODING",
            "COMMAND FOO",
            "COMMAND INFO nosuch",
            "COMMAND DOCS nosuch",
            "COMMAND LIST FOO",
            "COMMAND LIST FILTERBY",
            "COMMAND LIST FILTERBY MODULE x",
            "COMMAND GETKEYS get",
            "COMMAND GETKEYS nosuch a",
            "COMMAND GETKEYS ping a",
            "COMMAND GETKEYS get a b",
            "COMMAND GETKEYS mset a b c d",
            "COMMAND GETKEYS set k v EX 1",
            "COMMAND GETKEYS rename a b",
            "COMMAND GETKEYS copy a b replace",
            "COMMAND GETKEYS object encoding k",
            "COMMAND GETKEYS lcs a b len",
            "COMMAND GETKEYS del a b c",
            "COMMAND GETKEYSANDFLAGS mget a b",
            "COMMAND GETKEYSANDFLAGS set a b",
            "COMMAND GETKEYSANDFLAGS set a b XX GET",
            "COMMAND GETKEYSANDFLAGS rename a b",
            "COMMAND GETKEYSANDFLAGS get k",
            "COMMAND COUNT x",
            "CLUSTER",
            "INFO nosuch",
            "TIME x",
            "ROLE x",
            "DBSIZE x",
            "RESET x",
            "READONLY x",
            "EXEC",
            "DISCARD",
            "UNWATCH",
            "WATCH",
            "EXEC x",
            "MULTI x",
            "MULTI",
            "MULTI",
            "WATCH k",
            "UNWATCH",
            "PING",
            "ECHO x",
            "SELECT 0",
            "SELECT x",
            "CLIENT GETNAME",
            "DBSIZE",
            "SET k v FOO",
            "EXEC",
            "MULTI",
            "SET k",
            "SET k v",
            "EXEC",
            "MULTI",
            "NOSUCH",
            "DISCARD",
            "GET k",
            "MULTI",
            "EXEC",
            "WATCH k j",
            "SET k v",
            "MULTI",
            "EXEC",
            "MULTI",
            "EXEC",
            "WATCH k",
            "SET k v",
            "UNWATCH",
            "MULTI",
            "GET k",
            "EXEC",
            "WATCH k",
            "SET k v",
            "MULTI",
            "DISCARD",
            "MULTI",
            "GET k",
            "EXEC",
            "MULTI",
            "SET a 1",
            "RESET",
            "EXEC",
            "FLUSHALL",
        ]);
        let long = "x".repeat(200);
        pair.check_all(&[&long, &format!("{long} {long} b"), &format!("CLIENT {long}")]);
    }
}

/// Younger than the version that we follow, or ours alone.
const YOUNGER: &[&str] = &["client|setinfo", "delex", "delifeq", "once"];

/// The table tells clients what Redis tells them, field by field, so that they route alike.
#[test]
fn the_table_is_that_of_redis() {
    let Some(real) = Real::start() else { return };
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut pair = Pair::new(&real, protocol);
        let mut count = 0;
        for spec in node::command::table::COMMANDS {
            // Of a command with subcommands we have only some, so its last field differs.
            let all = std::iter::once(spec).chain(spec.subcommands);
            for spec in all.filter(|spec| spec.subcommands.is_empty()) {
                if !YOUNGER.contains(&spec.name) {
                    pair.check_all(&[&format!("COMMAND INFO {}", spec.name)]);
                    // `SET` has options that are younger.
                    if spec.name != "set" {
                        pair.check_arguments(spec.name);
                    }
                    count += 1;
                }
            }
        }
        assert!(count > 80, "only {count} commands were compared");
    }
}

#[test]
fn bytes_that_are_not_a_request() {
    let Some(real) = Real::start() else { return };
    let big = |byte: &str| byte.repeat(70_000).into_bytes();
    let streams: Vec<Vec<u8>> = vec![
        b"*x\r\n".to_vec(),
        b"*99999999999\r\n".to_vec(),
        b"*3000000000\r\n".to_vec(),
        b"*1\r\n$-1\r\n".to_vec(),
        b"*1\r\n$x\r\n".to_vec(),
        b"*1\r\n$536870913\r\n".to_vec(),
        b"*1\r\n:1\r\n".to_vec(),
        b"*2\r\n$4\r\nECHO\r\nxx\r\n".to_vec(),
        b"*0\r\nPING\r\n*x\r\n".to_vec(),
        b"*-5\r\n\r\n  \r\nPING\r\n*x\r\n".to_vec(),
        b"ECHO \"unbalanced\r\n".to_vec(),
        b"ECHO 'a'b\r\n".to_vec(),
        b"ECHO \"a b\\x41\\n\"\r\nPING\r\n*x\r\n".to_vec(),
        b"set k 'single \\' quoted'\nGET k\n*x\r\n".to_vec(),
        b"POST / HTTP/1.1\r\n".to_vec(),
        b"Host: x\r\n".to_vec(),
        b"QUIT\r\nPING\r\n".to_vec(),
        big("x"),
        big("*"),
        [b"*1\r\n".to_vec(), big("$")].concat(),
    ];
    for stream in streams {
        let theirs = real.connect().raw(&stream);
        let ours = Ours::new().raw(&stream);
        assert_eq!(
            ours.escape_ascii().to_string(),
            theirs.escape_ascii().to_string(),
            "after {}",
            show_command(&[stream])
        );
    }
}
