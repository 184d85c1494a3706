//! Real Redis clients, unchanged, as cluster clients, through a change of the leader (CLIENTS §1;
//! PITFALLS 38 and 39: redirects that lead nowhere, or to a leader that has died).
//!
//! Libraries resend writes by themselves when a connection closes (PITFALLS 82), so what is asserted
//! of their counters is only `acknowledged <= value`, and that they go on within a bound.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{SOON, TestCluster, call, skipped, start, until};
use proof::client::Client;
use proof::resp::Reply;

/// Acknowledged increments that each client makes, a few milliseconds apart: long enough that the
/// leader changes in the middle.
const INCREMENTS: i64 = 300;

/// A program that increments `key` until it has `INCREMENTS` acknowledgements, then prints `ok`.
/// It is told the nodes and the key by its arguments.
struct Program {
    child: Child,
    name: &'static str,
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Program {
    fn start(
        name: &'static str,
        mut command: Command,
        cluster: &TestCluster,
        key: &str,
    ) -> Program {
        command.arg(key).arg(INCREMENTS.to_string()).args(cluster.client_addresses());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let child = command.spawn().unwrap_or_else(|error| panic!("start {name}: {error}"));
        Program { child, name }
    }

    /// Its last line, once it has ended well.
    async fn result(mut self) -> String {
        let name = self.name;
        let out = BufReader::new(self.child.stdout.take().expect("its output is a pipe"));
        let lines = tokio::task::spawn_blocking(move || {
            out.lines().map_while(Result::ok).last().unwrap_or_default()
        });
        let patience = Duration::from_secs(90);
        let last = tokio::time::timeout(patience, lines).await;
        let last = last.unwrap_or_else(|_| panic!("{name} did not end within {patience:?}"));
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{name}: {status}");
        last.unwrap()
    }
}

/// What happens to the leader that was killed while the client is at work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Killed {
    StaysAway,
    ComesBack,
}

/// Runs the program, kills the leader when a third of the work is done, and checks the counter.
async fn through_a_leader_change(name: &'static str, command: Command, killed: Killed) {
    let mut cluster = start(3, |_| ()).await;
    let key = format!("counter:{name}");
    let program = Program::start(name, command, &cluster, &key);
    let leader = kill_leader_when_a_third_is_done(&mut cluster, &key).await;
    if killed == Killed::ComesBack {
        cluster.wait_for_leader(SOON, |id| id != leader).await.unwrap();
        cluster.node(leader).start().unwrap();
    }
    assert_eq!(program.result().await, "ok", "{name}");
    check_counter(&mut cluster, leader, &key).await;
}

async fn kill_leader_when_a_third_is_done(cluster: &mut TestCluster, key: &str) -> u32 {
    let mut ours = Client::new(cluster.target(), 0);
    until("a third of the increments", async || {
        number(call(&mut ours, &[b"GET", key.as_bytes()]).await) >= INCREMENTS / 3
    })
    .await;
    let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
    cluster.node(leader).kill();
    leader
}

async fn check_counter(cluster: &mut TestCluster, killed: u32, key: &str) {
    let mut ours = Client::new(cluster.target(), 0);
    let value = number(call(&mut ours, &[b"GET", key.as_bytes()]).await);
    assert!(value >= INCREMENTS, "{key} is {value}: acknowledged increments are lost");
    assert!(value < 2 * INCREMENTS, "{key} is {value}: far more than a client resends");
    if !cluster.node(killed).is_started() {
        cluster.node(killed).start().unwrap();
    }
    cluster.wait_until_caught_up(SOON).await.unwrap();
}

fn number(reply: Reply) -> i64 {
    match reply {
        Reply::Nil => 0,
        Reply::Bulk(digits) => String::from_utf8_lossy(&digits).parse().expect("a counter"),
        other => panic!("{other:?} is no counter"),
    }
}

/// Whether the program runs at all with these arguments.
fn works(program: &str, args: &[&str]) -> bool {
    let status =
        Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn script(program: &str, file: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(format!("{}/tests/clients/{file}", env!("CARGO_MANIFEST_DIR")));
    command
}

/// A python3 that has redis-py: the one on PATH, or Debian's, which alone sees Debian's packages.
fn python() -> Option<&'static str> {
    let has_redis = |python: &&str| works(python, &["-c", "import redis.cluster"]);
    ["python3", "/usr/bin/python3"].into_iter().find(has_redis)
}

#[tokio::test]
async fn redis_py() {
    let Some(python) = python() else {
        return skipped("no python3 has redis (Debian: apt-get install python3-redis)");
    };
    // Before 4.4 it cannot ask for the nodes again once the first of them is gone for good: it copies
    // a lock ("cannot pickle '_thread.lock' object"), whatever the cluster does.
    let can_ask =
        "import redis; assert tuple(map(int, redis.__version__.split('.')[:2])) >= (4, 4)";
    let killed = match works(python, &["-c", can_ask]) {
        true => Killed::StaysAway,
        false => Killed::ComesBack,
    };
    through_a_leader_change("redis-py", script(python, "redis_py.py"), killed).await;
}

#[tokio::test]
async fn node_redis() {
    let mut command = script("node", "node_redis.js");
    command.env("NODE_PATH", "/usr/share/nodejs");
    if !works("sh", &["-c", "NODE_PATH=/usr/share/nodejs node -e 'require(\"redis\")'"]) {
        return skipped("node-redis is not installed (Debian: apt-get install node-redis)");
    }
    // This version asks for the nodes again only when it is redirected; to a node that does not come
    // back it queues for ever, whatever the cluster does (node-redis #2806).
    through_a_leader_change("node-redis", command, Killed::ComesBack).await;
}

#[tokio::test]
async fn ruby_redis() {
    if !works("ruby", &["-e", "require 'redis'"]) {
        return skipped("ruby-redis is not installed (Debian: apt-get install ruby-redis)");
    }
    through_a_leader_change("ruby-redis", script("ruby", "ruby_redis.rb"), Killed::StaysAway).await;
}

#[tokio::test]
async fn redis_cli() {
    if !works("redis-cli", &["--version"]) {
        return skipped("redis-cli is not installed (Debian: apt-get install redis-tools)");
    }
    through_a_leader_change("redis-cli", script("sh", "redis_cli.sh"), Killed::StaysAway).await;
}

/// From every node, the leader or not, `redis-cli -c` reads what was written through another.
#[tokio::test]
async fn redis_cli_follows_redirects_from_any_node() {
    if !works("redis-cli", &["--version"]) {
        return skipped("redis-cli is not installed (Debian: apt-get install redis-tools)");
    }
    let cluster = start(3, |_| ()).await;
    let cli = |address: &str, words: &[&str]| {
        let (host, port) = address.split_once(':').unwrap();
        let output =
            Command::new("redis-cli").args(["-c", "-h", host, "-p", port]).args(words).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let addresses = cluster.client_addresses();
    for (index, address) in addresses.iter().enumerate() {
        let value = format!("by way of {index}");
        assert_eq!(cli(address, &["SET", "k", &value]), "OK\n");
        for other in &addresses {
            assert_eq!(cli(other, &["GET", "k"]), format!("{value}\n"));
        }
    }
    assert!(cli(&addresses[0], &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
}

/// The Rust client, with the retries that it makes by itself.
#[tokio::test]
async fn redis_rs() {
    let mut cluster = start(3, |_| ()).await;
    let nodes = cluster.client_addresses().into_iter().map(|node| format!("redis://{node}"));
    let client = redis::cluster::ClusterClientBuilder::new(nodes)
        .response_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let work = tokio::spawn(async move {
        let mut connection = client.get_async_connection().await.unwrap();
        let mut acknowledged = 0;
        while acknowledged < INCREMENTS {
            let answer: redis::RedisResult<i64> =
                redis::cmd("INCR").arg("counter:redis-rs").query_async(&mut connection).await;
            acknowledged += i64::from(answer.is_ok());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let leader = kill_leader_when_a_third_is_done(&mut cluster, "counter:redis-rs").await;
    tokio::time::timeout(Duration::from_secs(90), work).await.expect("it goes on").unwrap();
    check_counter(&mut cluster, leader, "counter:redis-rs").await;
}

/// Commands that want the whole keyspace name no key, and followers answer them with `MOVED 0`: only
/// the leader's answer is linearizable, and a client that knows the wrong leader learns the right one.
#[tokio::test]
async fn redis_cli_finds_the_whole_keyspace_from_any_node() {
    if !works("redis-cli", &["--version"]) {
        return skipped("redis-cli is not installed (Debian: apt-get install redis-tools)");
    }
    let cluster = start(3, |_| ()).await;
    let cli = |address: &str, words: &[&str]| {
        let (host, port) = address.split_once(':').unwrap();
        let output =
            Command::new("redis-cli").args(["-c", "-h", host, "-p", port]).args(words).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    for address in cluster.client_addresses() {
        assert_eq!(cli(&address, &["MSET", "a", "1", "b", "2"]), "OK\n");
        assert_eq!(cli(&address, &["DBSIZE"]), "2\n");
        assert_eq!(cli(&address, &["KEYS", "a*"]), "a\n");
        assert!(["a\n", "b\n"].contains(&cli(&address, &["RANDOMKEY"]).as_str()));
        let scanned = cli(&address, &["SCAN", "0", "COUNT", "1000"]);
        assert!(scanned.starts_with("0\n") && scanned.contains("\na\n"), "{scanned}");
        assert_eq!(cli(&address, &["FLUSHALL"]), "OK\n");
        assert_eq!(cli(&address, &["DBSIZE"]), "0\n");
    }
}

/// A leader that was paused answers as a follower afterwards; clients that still take it for the
/// leader are told.
async fn depose_by_a_pause(cluster: &mut TestCluster) {
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    cluster.node(leader).pause();
    cluster.wait_for_leader(SOON, |other| other != leader).await.unwrap();
    cluster.node(leader).resume();
    let new = cluster.wait_until_caught_up(SOON).await.unwrap();
    assert_ne!(new, leader, "the returned node did not take over again");
}

#[tokio::test]
async fn redis_py_finds_the_whole_keyspace_after_a_leader_change() {
    let Some(python) = python() else {
        return skipped("no python3 has redis (Debian: apt-get install python3-redis)");
    };
    let mut cluster = start(3, |_| ()).await;
    let mut command = script(python, "redis_py_keyspace.py");
    command.args(cluster.client_addresses()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = command.spawn().unwrap();
    let mut said = BufReader::new(client.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "before");
    depose_by_a_pause(&mut cluster).await;
    client.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    let last = said.next().unwrap().unwrap();
    assert!(client.wait().unwrap().success());
    // redis-py has no way to follow a MOVED without a key: it raises until it has met a key, or ten.
    assert_eq!(last, "after");
}

#[tokio::test]
async fn redis_rs_finds_the_whole_keyspace_after_a_leader_change() {
    let mut cluster = start(3, |_| ()).await;
    let nodes = cluster.client_addresses().into_iter().map(|node| format!("redis://{node}"));
    let client = redis::cluster::ClusterClientBuilder::new(nodes)
        .response_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let mut connection = client.get_async_connection().await.unwrap();
    for round in 0..2 {
        let () = redis::cmd("SET").arg("a").arg(1).query_async(&mut connection).await.unwrap();
        if round == 1 {
            // The command that meets the old leader is one without a key.
            depose_by_a_pause(&mut cluster).await;
        }
        let size: i64 = redis::cmd("DBSIZE").query_async(&mut connection).await.unwrap();
        assert_eq!(size, 1);
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        assert_eq!(keys, ["a"]);
        let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    }
}
