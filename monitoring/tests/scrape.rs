//! Scraping over real sockets: the good, the dead, the silent, the strange, and all at one instant.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use monitoring::reading::{Failure, Pages, Target, Via};
use monitoring::scrape::{Deadlines, Fallback, scrape_all};
use monitoring::status::NodeStatus;

const METRICS: &str = "paxos_chosen_slot 10\npaxos_applied_slot 9\npaxos_leader_changes_total 2\n";

fn status(id: u32) -> String {
    serde_json::to_string(&NodeStatus { id, ..NodeStatus::default() }).unwrap()
}

fn target(id: u32, http: String) -> Target {
    Target { node: format!("n{id}"), id, host: "h".into(), http }
}

/// Serves one connection after another; `answer` makes each response from the path.
fn server(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(4) {
            serve(stream.unwrap(), &answer);
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &impl Fn(&str) -> String) {
    let mut head = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
        if head.ends_with(b"\r\n\r\n") {
            let request = String::from_utf8(std::mem::take(&mut head)).unwrap();
            let path = request.split(' ').nth(1).unwrap();
            if stream.write_all(answer(path).as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn response(code: u16, body: &str) -> String {
    format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn node(id: u32) -> String {
    server(move |path| match path {
        "/metrics" => response(200, METRICS),
        "/status" => response(200, &status(id)),
        _ => response(404, ""),
    })
}

/// Accepts, as the kernel of a stopped process does, and never answers.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn closed() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn every_node_gets_its_own_answer_and_none_waits_for_the_dead() {
    let (_listener, silent) = silent();
    let targets = [
        target(1, node(1)),
        target(2, silent.clone()),
        target(3, closed()),
        target(4, node(9)),
        target(5, server(|_| response(403, "you may not read this page\n"))),
        target(6, server(|_| response(503, "no status yet: recovering\n"))),
        target(7, server(|_| "220 mail.example ESMTP\r\n".to_owned())),
        target(8, "no-such-host.invalid:7381".into()),
        target(9, node(9)),
    ];
    let deadlines = Deadlines { total: Duration::from_millis(2_500), ..Deadlines::default() };
    let started = Instant::now();
    let samples = scrape_all(&targets, deadlines, None).await;
    // The bound of `status`, whatever is down.
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());

    assert!(
        samples.iter().map(|sample| &sample.target).eq(&targets),
        "in the order of the targets"
    );
    let outcome = |id: usize| samples[id - 1].outcome.clone();
    let reading = outcome(1).unwrap();
    assert_eq!((reading.via, reading.status.chosen_slot), (Via::Http, 10));
    assert_eq!(outcome(9).unwrap().status.id, 9);
    let expect = format!("{silent}: no answer within 2500 ms");
    assert_eq!(outcome(2).unwrap_err(), Failure::Silent(expect));
    assert!(matches!(outcome(3), Err(Failure::Refused(_))), "{:?}", outcome(3));
    assert!(outcome(4).unwrap_err().to_string().ends_with("(id 9), not as id 4"));
    let forbidden = outcome(5).unwrap_err().to_string();
    assert!(forbidden.ends_with("/metrics: 403: you may not read this page"), "{forbidden}");
    assert!(matches!(outcome(6), Err(Failure::Recovering(_))), "{:?}", outcome(6));
    assert!(matches!(outcome(7), Err(Failure::Strange(_))), "{:?}", outcome(7));
    assert!(matches!(outcome(8), Err(Failure::Silent(_))), "{:?}", outcome(8));
}

#[tokio::test]
async fn the_second_way_is_taken_by_those_who_need_it_and_by_nobody_else() {
    let (_listener, silent) = silent();
    let asked = Arc::new(AtomicUsize::new(0));
    let fallback: Fallback = {
        let asked = Arc::clone(&asked);
        Arc::new(move |target: Target| {
            asked.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                match target.id {
                    1 => Ok(Pages { metrics: METRICS.into(), status: status(1) }),
                    _ => Err("ssh: connection timed out".to_owned()),
                }
            })
        })
    };
    let targets = [target(1, silent), target(2, closed()), target(3, node(3))];
    let deadlines = Deadlines { http: Duration::from_millis(200), ..Deadlines::default() };
    let samples = scrape_all(&targets, deadlines, Some(fallback)).await;
    assert_eq!(samples[0].outcome.as_ref().unwrap().via, Via::Ssh);
    let text = samples[1].outcome.as_ref().unwrap_err().to_string();
    assert!(text.ends_with("connection refused; ssh: connection timed out"), "{text}");
    assert_eq!(samples[2].outcome.as_ref().unwrap().via, Via::Http);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_endless_page_is_cut() {
    let endless = server(|_| {
        let body = "x".repeat(8 << 20);
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    });
    let samples = scrape_all(&[target(1, endless)], Deadlines::default(), None).await;
    assert!(matches!(samples[0].outcome, Err(Failure::Strange(_))), "{:?}", samples[0].outcome);
}

/// PITFALLS 51: lag measured at different instants. Each node here answers only once the other one
/// has been asked too, so asking them one after another would never end.
#[tokio::test]
async fn all_nodes_are_asked_at_once() {
    let asked = Arc::new(Barrier::new(2));
    let patient = |id: u32| {
        let asked = Arc::clone(&asked);
        server(move |path| {
            if path == "/metrics" {
                asked.wait();
                return response(200, METRICS);
            }
            response(200, &status(id))
        })
    };
    let targets = [target(1, patient(1)), target(2, patient(2)), target(3, closed())];
    let samples = scrape_all(&targets, Deadlines::default(), None).await;
    assert!(samples[0].outcome.is_ok() && samples[1].outcome.is_ok(), "{samples:?}");
}

#[tokio::test]
async fn nothing_to_read_is_no_sample() {
    assert!(scrape_all(&[], Deadlines::default(), None).await.is_empty());
}
