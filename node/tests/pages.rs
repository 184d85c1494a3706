//! The read-only pages over real sockets: what Prometheus and curl would see, and what a careless
//! or hostile reader gets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use monitoring::status::{NodeStatus, Peer, ReadyWithin};
use node::http::{Http, HttpSettings, Limits};
use node::metrics::Metrics;
use node::published::Published;

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
