//! The read-only pages over real sockets: what Prometheus and curl would see, and what a careless
//! or hostile reader gets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use config::{
    Behaviour, ClientSecurity, Listen, MemberConfig, Members, NodeConfig, PeerSecurity, Role,
    Security, Trace,
};
use journal::{Group, Journal, Options, RealDisk};
use monitoring::status::{NodeStatus, Peer, ReadyWithin};
use node::http::{Http, HttpSettings, Limits};
use node::metrics::Metrics;
use node::published::Published;
use node::wire;
use paxos::{Ballot, NodeId, Record, Slot, Value};

fn start(limits: Limits) -> (Http, Arc<Published>) {
    let metrics = Arc::new(Metrics::new("1.2.3", "abc"));
    metrics.peer(2, "n2");
    let published = Arc::new(Published::new(metrics));
    let settings = HttpSettings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        scrape_from: Vec::new(),
        limits,
        ready_within: ReadyWithin::default(),
    };
    let http = Http::start(settings, Arc::clone(&published)).unwrap();
    (http, published)
}

fn status() -> NodeStatus {
    NodeStatus {
        name: "n1".into(),
        id: 1,
        leader: Some(2),
        leader_contact_ms: Some(1),
        can_accept: true,
        chosen_slot: 42,
        applied_slot: 42,
        peers: vec![Peer { id: 2, name: "n2".into(), connected: true, ..Peer::default() }],
        ..NodeStatus::default()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends bytes as they are, reads until the server closes.
fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    // A server that has seen enough may close before all is written.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: SocketAddr, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n");
    let answer = raw(address, request.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head.to_owned(), body.to_owned())
}

/// Waits for what must come true, without saying when.
fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let started = Instant::now();
    while !check() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn promtool_finds_nothing_to_say_about_the_page() {
    let (http, published) = start(Limits::default());
    published.store(status());
    let (head, page) = get(http.local_address(), "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(page.contains("\npaxos_chosen_slot 42\n"), "{page}");

    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("skipped: promtool is not installed (Debian: prometheus)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "promtool check metrics: {said}");
}

#[test]
fn the_status_page_is_read_back_as_it_was_published() {
    let (http, published) = start(Limits::default());
    published.metrics().observe_sync(Duration::from_micros(300));
    published.store(status());
    let (_, page) = get(http.local_address(), "/status");
    let read: NodeStatus = serde_json::from_str(&page).unwrap();
    assert_eq!(read, NodeStatus { sync_p99_us: Some(300), age_ms: read.age_ms, ..status() });
}

/// PITFALLS 50, 87: a core that stops turns both pages red, within a bound.
#[test]
fn a_core_that_stops_turns_the_pages_red() {
    let limits = Limits { core_silence_max: Duration::from_millis(300), ..Limits::default() };
    let (http, published) = start(limits);
    published.store(status());
    assert!(get(http.local_address(), "/readyz").0.starts_with("HTTP/1.1 200 "));
    eventually("/healthz turns red", || {
        get(http.local_address(), "/healthz").0.starts_with("HTTP/1.1 503 ")
    });
    eventually("/readyz turns red", || {
        get(http.local_address(), "/readyz").1.starts_with("not ready: ")
    });
    published.store(status());
    assert!(get(http.local_address(), "/healthz").0.starts_with("HTTP/1.1 200 "));
}

#[test]
fn malformed_and_endless_requests_are_cut_and_the_others_served() {
    let limits = Limits { header_timeout: Duration::from_millis(300), ..Limits::default() };
    let (http, published) = start(limits);
    published.store(status());
    let address = http.local_address();
    let huge = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(64 << 10));
    for request in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), // TLS
        b"*1\r\n$4\r\nPING\r\n",                                    // a Redis client, lost
        b"GET /healthz HTTP/1.1\r\nHost",                           // half a head, then silence
        huge.as_bytes(),
    ] {
        let answer = raw(address, request);
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(get(address, "/healthz").1, "ok\n");
}

#[test]
fn idle_connections_beyond_the_limit_are_closed_and_room_comes_back() {
    let limits = Limits { connections_max: 4, ..Limits::default() };
    let (http, published) = start(limits);
    published.store(status());
    let address = http.local_address();
    let idle: Vec<TcpStream> = (0..4).map(|_| connect(address)).collect();
    eventually("the fifth is closed", || raw(address, b"GET /healthz HTTP/1.0\r\n\r\n").is_empty());
    drop(idle);
    eventually("room comes back", || {
        raw(address, b"GET /healthz HTTP/1.0\r\n\r\n").contains("200 OK")
    });
}

#[test]
fn a_taken_port_is_an_error_of_the_start_and_the_end_frees_it() {
    let (http, published) = start(Limits::default());
    let again = || {
        let settings = HttpSettings {
            listen: http.local_address(),
            scrape_from: Vec::new(),
            limits: Limits::default(),
            ready_within: ReadyWithin::default(),
        };
        Http::start(settings, Arc::clone(&published))
    };
    assert_eq!(again().err().unwrap().kind(), std::io::ErrorKind::AddrInUse);
    let address = http.local_address();
    drop(http);
    assert!(TcpStream::connect(address).is_err());
}

/// A node with a long journal shows how far it has come from the moment that it starts.
#[test]
fn a_long_recovery_can_be_watched() {
    let folder = tempfile::tempdir().unwrap();
    let config = formatted(folder.path());
    fill_journal(&config, 200_000);
    let node = std::process::Command::new(env!("CARGO_BIN_EXE_paxos-node"))
        .arg("--config")
        .arg(folder.path().join("node.toml"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _node = Child(node);
    let http = config.listen.http;
    let ask = |path: &str| TcpStream::connect(http).is_ok().then(|| get(http, path));
    let mut records = Vec::new();
    eventually("the recovery ends", || {
        // In this order: while records are still being read, nobody was let in.
        let client = TcpStream::connect(config.listen.client);
        let Some((head, text)) = ask("/readyz") else { return false };
        if let Some(progress) = text.strip_prefix("not ready: recovering for ") {
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
            let read = progress.split(' ').nth(2).unwrap().parse::<u64>().unwrap();
            records.push(read);
            let (head, text) = get(http, "/healthz");
            assert!(head.starts_with("HTTP/1.1 200 ") && text.starts_with("ok"), "{head} {text}");
            assert!(client.is_err() || read >= 200_000, "a client was let in after {read}");
            return false;
        }
        true
    });
    assert!(records.len() > 1, "the recovery was seen {} times", records.len());
    assert!(records.is_sorted(), "{records:?}");
    let page = get(http, "/metrics").1;
    assert!(page.contains("\npaxos_recovering 0\n"), "{page}");
    let total = page.lines().find_map(|line| line.strip_prefix("paxos_recovery_records_total "));
    assert!(total.unwrap().parse::<u64>().unwrap() >= 200_000, "{page}");
}

/// Killed by its pid when it is no longer needed.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A formatted node that is alone in its cluster.
fn formatted(folder: &std::path::Path) -> NodeConfig {
    let free = |_| std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let held: Vec<std::net::TcpListener> = (0..3).map(free).collect();
    let at = |index: usize| held[index].local_addr().unwrap();
    let config = NodeConfig {
        schema: 1,
        cluster: "pages".into(),
        cluster_uuid: "0123456789abcdef0123456789abcdef".into(),
        id: 1,
        name: "n1".into(),
        data_dir: folder.join("data"),
        listen: Listen { client: at(0), peer: at(1), http: at(2) },
        security: Security {
            peers: PeerSecurity::Plain,
            clients: ClientSecurity::Open,
            scrape_from: Vec::new(),
        },
        users: Vec::new(),
        behaviour: Behaviour { segment_bytes: 32 << 20, ..Behaviour::default() },
        trace: Trace::default(),
    };
    std::fs::write(folder.join("node.toml"), config.to_toml()).unwrap();
    let public = node::boot::format(&config).unwrap();
    let public: serde_json::Value = serde_json::to_value(public).unwrap();
    let member = MemberConfig {
        id: 1,
        name: "n1".into(),
        role: Role::Voter,
        incarnation: public["incarnation"].as_str().unwrap().to_owned(),
        public_key: public["public_key"].as_str().unwrap().to_owned(),
        peer: config.listen.peer.to_string(),
        client: config.listen.client.to_string(),
        http: config.listen.http.to_string(),
    };
    let members = Members {
        cluster_uuid: config.cluster_uuid.clone(),
        members: vec![member],
        ..Members::default()
    };
    std::fs::write(folder.join("members.toml"), members.to_toml()).unwrap();
    config
}

/// Entries that one ballot has accepted, none of them known chosen yet.
fn fill_journal(config: &NodeConfig, records: u64) {
    let disk = Arc::new(RealDisk::open(config.data_dir.join("journal")).unwrap());
    let options = Options {
        segment_bytes: config.behaviour.segment_bytes,
        reserve_bytes: config.behaviour.segment_bytes,
        ..Options::default()
    };
    let (mut journal, _) = Journal::open(disk, options, &mut |_| Ok(())).unwrap();
    let ballot = Ballot { configuration: 0, round: 1, node: NodeId(1) };
    for first in (1..=records).step_by(1_000) {
        let encoded: Vec<(u64, Bytes)> = (first..first + 1_000)
            .map(|slot| {
                let mut bytes = BytesMut::new();
                let record = Record::Accepted { slot: Slot(slot), ballot, value: Value::Noop };
                wire::encode_record(&record, &mut bytes);
                (slot, bytes.freeze())
            })
            .collect();
        let records: Vec<(u64, &[u8])> =
            encoded.iter().map(|(label, bytes)| (*label, &bytes[..])).collect();
        let checkpoint = wire::encode_records(&[]);
        journal.append(Group { records: &records, checkpoint: &checkpoint }).unwrap();
    }
    journal.sync().unwrap();
}
