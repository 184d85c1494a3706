//! What real nodes hold in memory: the data stays within its limit at the leader's word, and floods of
//! clients that do not go on cost the others nothing but a moment.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::{SOON, start, until};
use ctl::local::last_lines;
use proof::client::{Client, Fate, Target};
use proof::resp::Reply;

const MIB: usize = 1 << 20;

/// Tests of this file take turns: one of them floods its node.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Asks until there is an answer that is no refusal. What is asked here may be done twice.
async fn ask(target: &Target, words: &[&[u8]]) -> Reply {
    let mut answer = None;
    until("an answer", async || {
        // Whoever has waited in vain begins with another connection.
        if let Fate::Done(reply) = Client::new(target.clone(), 0).call(words).await {
            answer = Some(reply);
        }
        answer.is_some()
    })
    .await;
    answer.expect("just seen")
}

/// PITFALLS 45: little is asked, in a pipeline, and much would come of it, on all nodes alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_stays_within_its_limit_on_all_nodes() {
    const LIMIT: usize = 64 * MIB;
    let _turn = TURN.lock().await;
    let mut cluster = start(3, |spec| spec.behaviour.store_bytes_max = LIMIT as u64).await;
    let target = cluster.target();
    let shown = ask(&target, &[b"CONFIG", b"GET", b"maxmemory"]).await;
    assert!(format!("{shown:?}").contains(&LIMIT.to_string()), "{shown:?}");
    ask(&target, &[b"SET", b"long", &vec![b'v'; MIB - 200]]).await;
    let mut client = Client::new(target.clone(), 0);
    let mut copied = 0;
    let refused = loop {
        let name = format!("copy{copied}");
        match client.call(&[b"COPY", b"long", name.as_bytes()]).await {
            Fate::Done(_) => copied += 1,
            Fate::Refused(word) if word == "OOM" => break word,
            Fate::Refused(_) => {}
            Fate::Unknown(_) => client = Client::new(target.clone(), 0),
        }
        assert!(copied < 100, "nothing stops it");
    };
    assert_eq!(refused, "OOM");
    assert!(copied > 40, "{copied} copies");
    for node in cluster.nodes.iter().map(|node| node.listen.http) {
        until("the node showing its data", async || gauge(node, "paxos_store_bytes") > 0).await;
        assert!(gauge(node, "paxos_store_bytes") <= LIMIT as u64);
    }
    // Reads pass, and what makes room.
    assert!(matches!(ask(&target, &[b"GET", b"copy7"]).await, Reply::Bulk(_)));
    ask(&target, &[b"DEL", b"copy1", b"copy2"]).await;
    ask(&target, &[b"COPY", b"long", b"again"]).await;
    assert!(matches!(ask(&target, &[b"GET", b"again"]).await, Reply::Bulk(_)));
    cluster.wait_until_caught_up(SOON).await.unwrap();
}

/// PITFALLS 42: many clients, each within its own bounds, begin a command and do not end it. All of
/// them together hold no more than they may, and others are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_clients_that_do_not_go_on_is_cut_down() {
    const LIMIT: usize = 8 * MIB;
    const FRAME: usize = 900_000;
    let _turn = TURN.lock().await;
    let mut cluster = start(1, |spec| spec.behaviour.clients_bytes_max = LIMIT as u64).await;
    let (address, http) = (cluster.node(1).listen.client, cluster.node(1).listen.http);
    let flood: Vec<_> =
        (0..60).map(|_| std::thread::spawn(move || begin(address, FRAME))).collect();
    let mut most = 0;
    until("some of them being closed", async || {
        most = most.max(gauge(http, "paxos_client_memory_bytes"));
        gauge(http, "paxos_client_evictions_total") > 3
    })
    .await;
    // Between two looks it may have been more, but not by much.
    assert!(most <= (LIMIT + 2 * MIB) as u64, "{most} bytes");
    let done = ask(&Target::open(vec![address.to_string()]), &[b"SET", b"k", b"v"]).await;
    assert_eq!(done, Reply::Simple("OK".into()));
    drop(flood.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>());
    let said = last_lines(&cluster.node(1).log_path(), 200);
    assert!(said.contains("it has begun a command and does not end it"), "{said}");
    until("room again", async || gauge(http, "paxos_client_memory_bytes") < LIMIT as u64 / 2).await;
}

/// Most of a command, and no more, as far as the node takes it.
fn begin(address: SocketAddr, frame: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_write_timeout(Some(Duration::from_millis(500))).ok()?;
    stream.write_all(format!("*3\r\n$3\r\nSET\r\n$1\r\nf\r\n${frame}\r\n").as_bytes()).ok()?;
    // Whoever is not read from, or closed, cannot write all of it.
    let _ = stream.write_all(&vec![b'x'; frame - 1]);
    Some(stream)
}

/// One figure of a node's page; 0 where it is not there.
fn gauge(http: SocketAddr, name: &str) -> u64 {
    let page = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(http)?;
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {http}\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    };
    let page = page().unwrap_or_default();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0)
}
