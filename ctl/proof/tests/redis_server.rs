//! The load and the checkers against a server that is known to be right: Debian's `redis-server`,
//! one process. It must pass; with somebody meddling behind its back it must not.

#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use proof::check::{Limits, Verdict};
use proof::client::{Client, Fate, Target};
use proof::load::{Load, Mix, Spec};
use proof::resp::Reply;
use proof::verify::Proof;

struct Redis {
    child: Child,
    target: Target,
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server of our own on a free loopback port, with nothing on disk.
async fn redis_server() -> Option<Redis> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let started = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .stdout(Stdio::null())
        .spawn();
    let Ok(child) = started else {
        eprintln!("skipped: redis-server is not installed");
        return None;
    };
    let redis = Redis { child, target: Target::open(vec![format!("127.0.0.1:{port}")]) };
    let mut client = Client::new(redis.target.clone(), 0);
    for _ in 0..200 {
        if client.call(&[b"PING"]).await == Fate::Done(Reply::Simple("PONG".into())) {
            return Some(redis);
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("redis-server did not answer on port {port}");
}

/// Runs a load until enough was done, calls `meddle` in the middle, and judges.
async fn prove(redis: &Redis, pipeline: usize, meddle: &[&[&[u8]]]) -> Proof {
    let mut spec = Spec::new(redis.target.clone(), 4);
    spec.mix = Mix { append: 20, ..Mix::default() };
    spec.pipeline = pipeline;
    spec.history_max = 3_000;
    let load = Load::start(spec);
    let mut side = Client::new(redis.target.clone(), 0);
    // A write is meddled with before the last round over the keys, so that it cannot be healed.
    while load.stats().total().writes_ok < 3_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut finished = load.stop().await;
    for words in meddle {
        let fate = side.call(words).await;
        assert!(matches!(fate, Fate::Done(_)), "{words:?}: {fate:?}");
    }
    finished.verify(&redis.target, Duration::from_secs(10), Limits::default()).await
}

#[tokio::test]
async fn an_honest_server_passes() {
    let Some(redis) = redis_server().await else { return };
    for pipeline in [1, 16] {
        let proof = prove(&redis, pipeline, &[&[b"PING"]]).await;
        assert_eq!(proof.verdict, Verdict::Holds, "pipeline {pipeline}: {:?}", proof.audit);
        assert!(proof.audit.writes_acknowledged >= 2_000);
        assert!(proof.recorded > 500, "{}", proof.recorded);
        Client::new(redis.target.clone(), 0).call(&[b"FLUSHALL"]).await;
    }
}

/// PITFALLS 53: each lie turns the verdict.
#[tokio::test]
async fn every_lie_is_found() {
    let lies: &[&[&[u8]]] = &[
        &[b"DEL", b"load:u:0:1"],
        &[b"DEL", b"load:a:0:0"],
        &[b"APPEND", b"load:a:1:0", b"0;"],
        &[b"INCR", b"load:c:0"],
        &[b"DECR", b"load:c:1"],
        &[b"SET", b"load:r:2", b"nobody wrote this"],
    ];
    let Some(redis) = redis_server().await else { return };
    for lie in lies {
        let proof = prove(&redis, 1, &[lie]).await;
        let told = String::from_utf8_lossy(&lie.join(&b' ')).into_owned();
        assert!(matches!(proof.verdict, Verdict::Violated(_)), "{told}: {}", proof.verdict);
        Client::new(redis.target.clone(), 0).call(&[b"FLUSHALL"]).await;
    }
}

/// A server that goes away leaves unknown fates and refusals, counted by their words.
#[tokio::test]
async fn a_server_that_dies_leaves_unknown_fates() {
    let Some(mut redis) = redis_server().await else { return };
    let load = Load::start(Spec::new(redis.target.clone(), 4));
    while load.stats().total().writes_ok < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    redis.child.kill().unwrap();
    redis.child.wait().unwrap();
    while load.stats().total().failed < 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut finished = load.stop().await;
    let counts = finished.stats.total();
    assert!(counts.words.contains_key("CONNECT"), "{:?}", counts.words);
    assert!(counts.unknown <= 4, "each client loses one operation at most: {:?}", counts.words);
    let proof = finished.verify(&redis.target, Duration::from_millis(200), Limits::default()).await;
    assert!(matches!(proof.verdict, Verdict::Unknown(_)), "{}", proof.verdict);
}

/// Our own transactions: done as a whole, or not at all.
#[tokio::test]
async fn a_transaction_is_done_as_a_whole_or_not_at_all() {
    let Some(redis) = redis_server().await else { return };
    let mut client = Client::new(redis.target.clone(), 0);
    let words = |words: &[&'static str]| words.iter().map(|word| Bytes::from(*word)).collect();
    let both = [words(&["SET", "x", "1"]), words(&["INCR", "n"])];
    let replies = vec![Reply::Simple("OK".into()), Reply::Integer(1)];
    assert_eq!(client.transaction(&both).await, Fate::Done(Reply::Array(replies)));
    let spoilt = [words(&["SET", "x", "2"]), words(&["INCR", "n", "too", "many"])];
    assert_eq!(client.transaction(&spoilt).await, Fate::Refused("ERR".into()));
    assert_eq!(client.call(&[b"GET", b"x"]).await, Fate::Done(Reply::Bulk("1".into())));

    let key = Bytes::from("x");
    let (seen, fate) = client.guarded(&key, |_| vec![words(&["SET", "x", "2"])]).await;
    assert_eq!(seen, Some("1".into()));
    assert_eq!(fate, Fate::Done(Reply::Array(vec![Reply::Simple("OK".into())])));
    // Somebody else writes between the look and the EXEC.
    let target = redis.target.clone();
    let meddle = |_| {
        let mut stream = std::net::TcpStream::connect(&target.nodes[0]).unwrap();
        stream.write_all(b"SET x 3\r\n").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        vec![words(&["SET", "x", "4"])]
    };
    assert_eq!(client.guarded(&key, meddle).await, (Some("2".into()), Fate::Done(Reply::Nil)));
    assert_eq!(client.call(&[b"GET", b"x"]).await, Fate::Done(Reply::Bulk("3".into())));
}
