//! Links over real sockets on loopback: what they promise, and what they refuse. Each test has its
//! own addresses in 127.0.0.0/8, so that all of them may run at once.

mod exchange;
mod loss;
mod refusals;
mod strangers;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use config::{Behaviour, Listen, NodeConfig, PeerSecurity, Security, Trace};
use node::identity::{self, Identity, Process};
use node::peers::{
    Limits, LinkEvent, LinkEvents, LinkSettings, Links, LinksError, Remembered, Sent,
};
use node::wire::{self, Frame, Hello, Lane, PeerFrame, Refusal, RefusalCode};
use paxos::{Ballot, BatchId, Configuration, Heartbeat, Member, Message, NodeId, Slot, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const UUID: &str = "00112233445566778899aabbccddeeff";
const OTHER_UUID: &str = "ffeeddccbbaa99887766554433221100";
/// Far above anything that a healthy run takes: reaching it is a failure, not a measurement.
const PATIENCE: Duration = Duration::from_secs(20);
/// A formatted disk and where its node listens.
struct Disk {
    dir: tempfile::TempDir,
    config: NodeConfig,
    identity: Identity,
}

impl Disk {
    fn format(id: u32, uuid: &str, address: SocketAddr) -> Disk {
        let dir = tempfile::tempdir().expect("temporary directory");
        let config = NodeConfig {
            schema: 1,
            cluster: "test".to_owned(),
            cluster_uuid: uuid.to_owned(),
            id,
            name: format!("n{id}"),
            data_dir: dir.path().join("data"),
            listen: Listen { client: address, peer: address, http: address },
            security: Security::default(),
            users: Vec::new(),
            behaviour: Behaviour::default(),
            trace: Trace::default(),
        };
        identity::format(&config).expect("format");
        let identity = identity::load(&config).expect("load");
        Disk { dir, config, identity }
    }

    fn id(&self) -> NodeId {
        self.identity.id
    }

    fn begin_process(&self) -> Process {
        identity::begin_process(&self.config.data_dir).expect("count the start")
    }

    fn member(&self) -> Member {
        Member {
            incarnation: self.identity.incarnation,
            public_key: self.identity.key.public().to_vec(),
            peer_address: self.config.listen.peer.to_string(),
            ..Member::default()
        }
    }

    fn settings(&self, security: PeerSecurity) -> LinkSettings {
        LinkSettings {
            listen: self.config.listen.peer,
            security,
            limits: Limits::default(),
            remembered: Remembered::default(),
            store_version_newest: 1,
        }
    }

    fn start(&self, configuration: &Configuration, security: PeerSecurity) -> End {
        self.start_as(self.begin_process(), configuration, self.settings(security))
    }

    fn start_as(
        &self,
        process: Process,
        configuration: &Configuration,
        settings: LinkSettings,
    ) -> End {
        let started = Links::start(&self.identity, process, configuration, settings);
        let (links, events) = started.expect("start links");
        End { links, events }
    }
}

/// One node's end of its links.
struct End {
    links: Links,
    events: LinkEvents,
}

impl End {
    async fn next(&mut self) -> LinkEvent {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.expect("no event in time").expect("the links are gone")
    }

    /// Passes over other events.
    async fn until(&mut self, wanted: LinkEvent) {
        while self.next().await != wanted {}
    }

    async fn until_message(&mut self, from: NodeId) -> Message {
        loop {
            if let LinkEvent::Received { from: sender, frames } = self.next().await
                && sender == from
                && let Some(PeerFrame::Paxos(message)) = frames.into_iter().next()
            {
                return message;
            }
        }
    }

    /// As when the process ends: the kernel closes every connection.
    async fn end(self) {
        self.links.close().await;
    }

    fn send(&self, to: NodeId, message: &Message) -> Sent {
        let sent = self.links.send(to, message);
        self.links.flush();
        sent
    }

    /// Waits until the peer is not connected for a reason that has all these words in it.
    async fn until_trouble(&self, peer: NodeId, words: &[&str]) {
        let mut trouble = None;
        for _ in 0..2000 {
            let counters = self.links.counters();
            let (_, counters) = counters.iter().find(|(id, _)| *id == peer).expect("a peer");
            trouble = counters.trouble();
            if trouble.as_ref().is_some_and(|text| words.iter().all(|word| text.contains(word))) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{peer} has trouble {trouble:?}, not with {words:?}");
    }

    fn disconnects(&self, peer: NodeId) -> u64 {
        let counters = self.links.counters();
        counters.iter().find(|(id, _)| *id == peer).expect("a peer").1.disconnects.get()
    }
}

/// Addresses that no other test has, on port 7380.
fn addresses<const N: usize>() -> [SocketAddr; N] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (test, process) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
    std::array::from_fn(|index| {
        let [high, low] = u16::try_from(process % 50_000).expect("below 50000").to_be_bytes();
        let host = u8::try_from(test as usize * 5 + index + 1).expect("few tests");
        SocketAddr::from((Ipv4Addr::new(127, high.max(1), low, host), 7380))
    })
}

fn format_all<const N: usize>() -> [Disk; N] {
    let addresses = addresses::<N>();
    let mut id = 0;
    addresses.map(|address| {
        id += 1;
        Disk::format(id, UUID, address)
    })
}

fn configuration<'a>(disks: impl IntoIterator<Item = &'a Disk>) -> Configuration {
    let members = disks.into_iter().map(|disk| (disk.id(), disk.member())).collect();
    Configuration { members, store_version: 1, ..Configuration::default() }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("runtime");
    let bounded = async { tokio::time::timeout(PATIENCE * 3, test).await.expect("out of time") };
    tokio::task::LocalSet::new().block_on(&runtime, bounded);
}

fn batch(counter: u64, payload: Vec<u8>) -> Value {
    Value::Batch { id: BatchId { incarnation: 1, counter }, payload: payload.into() }
}

fn accept(slot: u64, len: usize) -> Message {
    let value = batch(slot, vec![7; len]);
    Message::Accept { ballot: Ballot::ZERO, slot: Slot(slot), value, hint: Slot(1) }
}

fn hello_of(disk: &Disk, to: NodeId, process: u64) -> Hello {
    Hello {
        version_oldest: 1,
        version_newest: 1,
        cluster: disk.identity.cluster.0,
        id: disk.id(),
        incarnation: disk.identity.incarnation,
        to,
        lane: Lane::Control,
        starts: 1,
        process,
        former: [0; 8],
        promised: Ballot::ZERO,
        last_slot: Slot::ZERO,
        store_version_newest: None,
    }
}

/// A member that we play by hand, plain: takes connections and answers each hello by `answer`.
fn play(disk: &Disk, answer: impl Fn(Hello) -> Frame + 'static) -> Rc<RefCell<Vec<TcpStream>>> {
    let listener = std::net::TcpListener::bind(disk.config.listen.peer).expect("listen");
    listener.set_nonblocking(true).expect("non-blocking");
    let listener = TcpListener::from_std(listener).expect("listener");
    let held = Rc::new(RefCell::new(Vec::new()));
    let streams = held.clone();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut decoder = wire::FrameDecoder::new(wire::HANDSHAKE_FRAME_BYTES_MAX);
            let hello = loop {
                match decoder.next_frame().expect("a frame") {
                    Some(Frame::Hello(hello)) => break hello,
                    Some(frame) => panic!("{frame:?} instead of a hello"),
                    None => assert_ne!(stream.read_buf(decoder.spare()).await.expect("read"), 0),
                }
            };
            let mut bytes = BytesMut::new();
            wire::put(&mut bytes, &answer(hello)).expect("it fits");
            stream.write_all(&bytes).await.expect("answer");
            streams.borrow_mut().push(stream);
        }
    });
    held
}

/// Dials `disk` by hand, plain, says `hello`, and returns the answer.
async fn dial(disk: &Disk, hello: Hello) -> (TcpStream, Frame) {
    let mut stream = TcpStream::connect(disk.config.listen.peer).await.expect("dial");
    stream.write_all(&bytes_of(&Frame::Hello(hello))).await.expect("say hello");
    let mut decoder = wire::FrameDecoder::new(wire::HANDSHAKE_FRAME_BYTES_MAX);
    loop {
        match decoder.next_frame().expect("a frame") {
            Some(frame) => return (stream, frame),
            None => assert_ne!(stream.read_buf(decoder.spare()).await.expect("read"), 0),
        }
    }
}

async fn welcomed(disk: &Disk, hello: Hello) -> TcpStream {
    match dial(disk, hello).await {
        (stream, Frame::Welcome(_)) => stream,
        (_, frame) => panic!("{frame:?} instead of a welcome"),
    }
}

fn bytes_of(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    wire::put(&mut bytes, frame).expect("it fits");
    bytes
}
