//! Writes through `ONCE`, by the wrapper in Rust and by the one of the guide in Python, while the
//! leader is killed: each is carried out once, though it is sent again (PITFALLS 35, 82).

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use common::{SOON, TestCluster, call, skipped, start, until};
use proof::client::Client;
use proof::once::{OnceClient, OnceError};
use proof::resp::Reply;

const WRITES: i64 = 400;

async fn counter(client: &mut Client, key: &[u8]) -> i64 {
    match call(client, &[b"GET", key]).await {
        Reply::Nil => 0,
        Reply::Bulk(digits) => String::from_utf8_lossy(&digits).parse().expect("a counter"),
        other => panic!("{other:?} is no counter"),
    }
}

/// Kills the leader when a third of the writes is there, and starts it again behind a new one.
async fn change_the_leader(cluster: &mut TestCluster, key: &[u8]) {
    let mut ours = Client::new(cluster.target(), 0);
    until("a third of the writes", async || counter(&mut ours, key).await >= WRITES / 3).await;
    let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
    cluster.node(leader).kill();
    cluster.wait_for_leader(SOON, |id| id != leader).await.unwrap();
    cluster.node(leader).start().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_write_of_the_rust_client_is_done_once() {
    let mut cluster = start(3, |_| ()).await;
    let mut target = cluster.target();
    target.patience = Duration::from_millis(200);
    let mut once = OnceClient::open(target, SOON).await.unwrap();
    assert_eq!(
        once.write(&[b"INCR", b"a", b"b"], SOON).await,
        Err(OnceError::Refused("ERR".into())),
        "nonsense"
    );
    once.write(&[b"SET", b"text", b"x"], SOON).await.unwrap();
    for _ in 0..2 {
        // The command's own error takes a number, and the same command after it is a new one.
        let error = once.write(&[b"INCR", b"text"], SOON).await;
        assert_eq!(error, Err(OnceError::Refused("ERR".into())));
    }
    let writer = tokio::spawn(async move {
        for value in 1..=WRITES {
            let reply = once.write(&[b"INCR", b"n"], SOON).await;
            assert_eq!(reply, Ok(Reply::Integer(value)), "each reply is the next number");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        once.repeated()
    });
    change_the_leader(&mut cluster, b"n").await;
    let repeated = writer.await.unwrap();
    assert!(repeated > 0, "no write had to be sent again: the test proves nothing");
    let mut ours = Client::new(cluster.target(), 0);
    assert_eq!(counter(&mut ours, b"n").await, WRITES);
    cluster.wait_until_caught_up(SOON).await.unwrap();
}

/// The client of the guide, as it stands there, with a program of a few lines behind it.
fn guide() -> String {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../node/CLIENTS.md"));
    let guide = guide.expect("the guide is there");
    let (_, code) = guide.split_once("```python\n").expect("the guide has a client");
    let (code, _) = code.split_once("\n```").expect("it ends");
    format!(
        "{code}\n\n\
         import sys\n\
         once = Once(sys.argv[2:])\n\
         once.write('SET', 'text', 'x')\n\
         for _ in range(2):\n    \
             try:\n        \
                 once.write('INCR', 'text')\n        \
                 sys.exit('a text was counted')\n    \
             except Refused as refused:\n        \
                 assert 'not an integer' in str(refused), refused\n\
         for value in range(1, int(sys.argv[1]) + 1):\n    \
             assert once.write('INCR', 'n') == value\n    \
             time.sleep(0.002)\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_write_of_the_guides_python_client_is_done_once() {
    if Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skipped("there is no python3");
    }
    let mut cluster = start(3, |_| ()).await;
    let script = cluster.dir.path().join("once.py");
    std::fs::write(&script, guide()).unwrap();
    let mut python = Command::new("python3");
    python.arg(&script).arg(WRITES.to_string()).args(cluster.client_addresses());
    let mut child = python.stdin(Stdio::null()).spawn().unwrap();
    change_the_leader(&mut cluster, b"n").await;
    let ended = tokio::task::spawn_blocking(move || child.wait());
    let status = tokio::time::timeout(Duration::from_secs(90), ended).await;
    let status = status.expect("it ends").unwrap().unwrap();
    assert!(status.success(), "{status}");
    let mut ours = Client::new(cluster.target(), 0);
    assert_eq!(counter(&mut ours, b"n").await, WRITES);
}
