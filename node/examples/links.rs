//! Measures links between two nodes on loopback, each with a runtime and a thread of its own:
//! `cargo run --release -p node --example links`. Round trips one by one, then as many as fit into
//! a window, for small and larger values, plain and in TLS.

#![expect(clippy::print_stdout, reason = "an example that measures")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use config::{Behaviour, Listen, NodeConfig, PeerSecurity, Security, Trace};
use node::identity::{self, Identity};
use node::peers::{Limits, LinkEvent, LinkEvents, LinkSettings, Links, Remembered, Sent};
use node::wire::PeerFrame;
use paxos::{Ballot, BatchId, Configuration, Member, Message, NodeId, Slot, Value};

const EACH: Duration = Duration::from_secs(2);

fn main() {
    println!("{:8} {:>7} {:>7} {:>12} {:>12}", "links", "bytes", "window", "messages/s", "us each");
    for (index, security) in [PeerSecurity::Plain, PeerSecurity::Tls].into_iter().enumerate() {
        for (len, window) in [(100, 1), (100, 64), (6_400, 1), (6_400, 64), (60_000, 16)] {
            let rate = measure(security, len, window, 100 + u8::try_from(index).expect("two"));
            let name = format!("{security:?}").to_lowercase();
            println!("{name:8} {len:7} {window:7} {rate:12.0} {:12.1}", 1e6 / rate);
        }
    }
}

/// Accepts a second that are answered by an Accepted each, with `window` of them on their way.
fn measure(security: PeerSecurity, len: usize, window: u64, host: u8) -> f64 {
    let dir = tempfile::tempdir().expect("temporary directory");
    let address = |id: u32| SocketAddr::from(([127, 77, host, id.to_le_bytes()[0]], 7380));
    let nodes = [1, 2].map(|id| {
        let config = NodeConfig {
            schema: 1,
            cluster: "example".to_owned(),
            cluster_uuid: "00".repeat(16),
            id,
            name: format!("n{id}"),
            data_dir: dir.path().join(format!("n{id}")),
            listen: Listen { client: address(id), peer: address(id), http: address(id) },
            security: Security::default(),
            users: Vec::new(),
            behaviour: Behaviour::default(),
            trace: Trace::default(),
        };
        identity::format(&config).expect("format");
        (identity::load(&config).expect("load"), config)
    });
    let members = nodes.iter().map(|(identity, config)| {
        let member = Member {
            incarnation: identity.incarnation,
            public_key: identity.key.public().to_vec(),
            peer_address: config.listen.peer.to_string(),
            ..Member::default()
        };
        (identity.id, member)
    });
    let configuration =
        Configuration { members: members.collect(), store_version: 1, ..Configuration::default() };
    let [(one, config_one), (two, config_two)] = nodes;
    let listed = configuration.clone();
    let answering = std::thread::spawn(move || {
        run(async {
            let (links, events) = start(&two, &config_two, &listed, security);
            answer(links, events).await;
        });
    });
    let rate = run(async {
        let (links, events) = start(&one, &config_one, &configuration, security);
        ask(links, events, len, window).await
    });
    answering.join().expect("the answering node");
    rate
}

fn run<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("runtime"), task)
}

fn start(
    identity: &Identity,
    config: &NodeConfig,
    configuration: &Configuration,
    security: PeerSecurity,
) -> (Links, LinkEvents) {
    let process = identity::begin_process(&config.data_dir).expect("count the start");
    let listen = config.listen.peer;
    let (limits, remembered) = (Limits::default(), Remembered::default());
    let settings = LinkSettings { listen, security, limits, remembered, store_version_newest: 1 };
    Links::start(identity, process, configuration, settings).expect("start links")
}

async fn ask(links: Links, mut events: LinkEvents, len: usize, window: u64) -> f64 {
    let to = NodeId(2);
    while events.recv().await != Some(LinkEvent::Connected(to)) {}
    let payload = bytes::Bytes::from(vec![7; len]);
    let accept = |slot| {
        let id = BatchId { incarnation: 1, counter: slot };
        let value = Value::Batch { id, payload: payload.clone() };
        Message::Accept { ballot: Ballot::ZERO, slot: Slot(slot), value, hint: Slot(1) }
    };
    let start = Instant::now();
    let (mut sent, mut answered) = (0, 0);
    while start.elapsed() < EACH {
        while sent - answered < window {
            sent += 1;
            assert_eq!(links.send(to, &accept(sent)), Sent::Queued);
        }
        links.flush();
        let Some(LinkEvent::Received { frames, .. }) = events.recv().await else { continue };
        answered += frames.len() as u64;
    }
    let rate = answered as f64 / start.elapsed().as_secs_f64();
    links.close().await;
    rate
}

async fn answer(links: Links, mut events: LinkEvents) {
    while let Some(event) = events.recv().await {
        match event {
            LinkEvent::Disconnected(_) => break,
            LinkEvent::Connected(_) => {}
            LinkEvent::Received { from, frames } => {
                for frame in frames {
                    let PeerFrame::Paxos(Message::Accept { ballot, slot, .. }) = frame else {
                        continue;
                    };
                    let accepted = Message::Accepted { ballot, slot, first_unchosen: slot };
                    // The way back may come up a moment later than the way here.
                    while links.send(from, &accepted) == Sent::Unconnected {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                links.flush();
            }
        }
    }
    links.close().await;
}
