//! Real Redis clients that read from replicas, where `follower_reads = "linearizable"`: what they read
//! is never older than what they were told is written, also through a change of the leader (CLIENTS
//! §1: some say READONLY by themselves, so it must not mean stale).

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{SOON, TestCluster, call, show, skipped, start, until};
use config::FollowerReads;
use proof::client::Client;
use proof::resp::Reply;
use redis::cluster_read_routing::RandomReplicaStrategy;

/// A write and a read of it each; the leader is paused when a third is done.
const ROUNDS: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(90);

async fn linearizable() -> TestCluster {
    start(3, |spec| spec.behaviour.follower_reads = FollowerReads::Linearizable).await
}

/// Whether the program runs at all with these arguments.
fn works(program: &str, args: &[&str]) -> bool {
    let status =
        Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// How many reads the nodes served by the leader's read index, from the page of each.
fn reads_at_followers(cluster: &TestCluster) -> u64 {
    cluster.nodes.iter().map(|node| reads_at(node.listen.http)).sum()
}

fn reads_at(http: SocketAddr) -> u64 {
    let mut stream = TcpStream::connect(http).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {http}\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let begins = "paxos_reads_total{";
    let mut lines = page.lines().filter(|line| line.starts_with(begins));
    let line = lines.find(|line| line.contains("path=\"follower\"")).expect("one for each path");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A leader that is paused is replaced, and comes back as a follower with connections of its own.
async fn change_the_leader(cluster: &mut TestCluster, key: &str) {
    let mut ours = Client::new(cluster.target(), 0);
    until("a third of the rounds", async || {
        match call(&mut ours, &[b"GET", key.as_bytes()]).await {
            Reply::Bulk(digits) => {
                String::from_utf8_lossy(&digits).parse::<u64>().unwrap() >= ROUNDS / 3
            }
            _ => false,
        }
    })
    .await;
    let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
    cluster.node(leader).pause();
    cluster.wait_for_leader(SOON, |other| other != leader).await.unwrap();
    cluster.node(leader).resume();
}

async fn through_a_leader_change(name: &str, mut command: Command) {
    let mut cluster = linearizable().await;
    let key = format!("read:{name}");
    command.arg(&key).arg(ROUNDS.to_string()).args(cluster.client_addresses());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    change_the_leader(&mut cluster, &key).await;
    let status = tokio::time::timeout(PATIENCE, child.wait()).await;
    assert!(status.expect("it ends").unwrap().success(), "{name}");
    let followed = reads_at_followers(&cluster);
    show(&format!("{name}: {followed} of {ROUNDS} reads at followers"));
    assert!(followed > ROUNDS / 4, "{followed} reads at followers");
}

fn script(program: &str, file: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(format!("{}/tests/clients/{file}", env!("CARGO_MANIFEST_DIR")));
    command
}

#[tokio::test]
async fn redis_py_reads_what_was_written() {
    let has_redis = |python: &&str| works(python, &["-c", "import redis.cluster"]);
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_redis) else {
        return skipped("no python3 has redis (Debian: apt-get install python3-redis)");
    };
    through_a_leader_change("redis-py", script(python, "redis_py_replicas.py")).await;
}

#[tokio::test]
async fn ruby_redis_reads_what_was_written() {
    if !works("ruby", &["-e", "require 'redis'"]) {
        return skipped("ruby-redis is not installed (Debian: apt-get install ruby-redis)");
    }
    through_a_leader_change("ruby-redis", script("ruby", "ruby_redis_replicas.rb")).await;
}

#[tokio::test]
async fn node_redis_reads_what_was_written() {
    let mut command = script("node", "node_redis_replicas.js");
    command.env("NODE_PATH", "/usr/share/nodejs");
    if !works("sh", &["-c", "NODE_PATH=/usr/share/nodejs node -e 'require(\"redis\")'"]) {
        return skipped("node-redis is not installed (Debian: apt-get install node-redis)");
    }
    through_a_leader_change("node-redis", command).await;
}

/// The Rust client, which says READONLY on every connection.
#[tokio::test]
async fn redis_rs_reads_what_was_written() {
    let mut cluster = linearizable().await;
    let nodes = cluster.client_addresses().into_iter().map(|node| format!("redis://{node}"));
    let client = redis::cluster::ClusterClientBuilder::new(nodes)
        .read_routing_strategy(RandomReplicaStrategy)
        .response_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let work = tokio::spawn(async move {
        let mut connection = client.get_async_connection().await.unwrap();
        let (mut rounds, mut number) = (0, 0u64);
        while rounds < ROUNDS {
            number += 1;
            let mut set = redis::cmd("SET");
            let stored: redis::RedisResult<()> =
                set.arg("read:redis-rs").arg(number).query_async(&mut connection).await;
            let mut get = redis::cmd("GET");
            let read: redis::RedisResult<u64> =
                get.arg("read:redis-rs").query_async(&mut connection).await;
            if let (Ok(()), Ok(read)) = (stored, read) {
                assert_eq!(read, number);
                rounds += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    change_the_leader(&mut cluster, "read:redis-rs").await;
    tokio::time::timeout(PATIENCE, work).await.expect("it goes on").unwrap();
    let followed = reads_at_followers(&cluster);
    eprintln!("redis-rs: {followed} of {ROUNDS} reads at followers");
    assert!(followed > ROUNDS / 4, "{followed} reads at followers");
}
