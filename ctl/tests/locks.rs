//! A lock that ends by itself is no mutual exclusion: its holder may be paused for longer than it
//! lasts and go on as if it still held it. So each holder takes a number in the same step in which it
//! takes the lock, and whatever the lock guards refuses a number below one that it has seen
//! (PITFALLS 83; the recipe of `node/CLIENTS.md`).

mod common;

use std::time::Duration;

use common::{SOON, TestCluster, call, start, until};
use proof::client::{Client, Command, Fate};
use proof::resp::Reply;

const TTL_MS: &str = "400";

/// Takes the lock for `token` if it is free; the holder's number.
async fn take(cluster: &TestCluster, token: &str) -> Option<i64> {
    let lines = [
        "MULTI".to_owned(),
        format!("SET lock {token} NX PX {TTL_MS}"),
        "INCR lock:number".to_owned(),
        "EXEC".to_owned(),
    ];
    let word = |word: &str| word.to_owned().into();
    let commands = lines.map(|line| line.split(' ').map(word).collect::<Command>());
    let mut client = Client::new(cluster.target(), 0);
    // To the leader first: a transaction is not redirected half-way.
    call(&mut client, &[b"GET", b"lock"]).await;
    let mut fates = client.run(&commands).await;
    match fates.pop() {
        Some(Fate::Done(Reply::Array(replies))) => match &replies[..] {
            [Reply::Simple(ok), Reply::Integer(number)] if ok == "OK" => Some(*number),
            [Reply::Nil, Reply::Integer(_)] => None,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?} after {fates:?}"),
    }
}

/// What the lock guards: something outside the cluster.
#[derive(Default)]
struct Guarded {
    highest: i64,
}

impl Guarded {
    fn write(&mut self, number: i64) -> Result<(), i64> {
        if number < self.highest {
            return Err(self.highest);
        }
        self.highest = number;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_paused_is_told_from_the_next_pitfall_83() {
    let mut cluster = start(3, |_| ()).await;
    let mut guarded = Guarded::default();
    let first = take(&cluster, "first").await.expect("the lock is free");
    guarded.write(first).expect("the first holder");
    assert_eq!(take(&cluster, "second").await, None, "it is held");

    // The holder stands still for longer than its lock lasts; the leader changes meanwhile.
    let leader = cluster.wait_for_leader(SOON, |_| true).await.unwrap();
    cluster.node(leader).kill();
    cluster.wait_for_leader(SOON, |id| id != leader).await.unwrap();
    let mut second = None;
    until("the lock running out", async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        second = take(&cluster, "second").await;
        second.is_some()
    })
    .await;
    let second = second.expect("just taken");
    assert!(second > first, "{second} after {first}");
    guarded.write(second).expect("the holder");

    // The first goes on: what it holds is not the lock any more, and the number tells.
    assert_eq!(guarded.write(first), Err(second));
    let mut client = Client::new(cluster.target(), 0);
    let freed = call(&mut client, &[b"DELEX", b"lock", b"IFEQ", b"first"]).await;
    assert_eq!(freed, Reply::Integer(0), "it frees only its own lock");
    cluster.node(leader).start().unwrap();
    cluster.wait_until_caught_up(SOON).await.unwrap();
}
