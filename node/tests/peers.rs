//! Links over real sockets on loopback: what they promise, and what they refuse. Each test has its
//! own addresses in 127.0.0.0/8, so that all of them may run at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use config::{Behaviour, Listen, NodeConfig, PeerSecurity, Security, Trace};
use node::identity::{self, Identity, Process};
use node::peers::{Limits, LinkEvent, LinkEvents, LinkSettings, Links, LinksError, Sent};
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
        LinkSettings { listen: self.config.listen.peer, security, limits: Limits::default() }
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
    Configuration { number: 0, members, store_version: 1 }
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

/// Three ends, every pair both ways, both lanes, small and large: everything arrives once, in order
/// within a lane, with the right sender.
async fn exchange(security: PeerSecurity) {
    const ROUNDS: u64 = 2000;
    let disks = format_all::<3>();
    let configuration = configuration(&disks);
    let mut ends = disks.each_ref().map(|disk| disk.start(&configuration, security));
    let ids = disks.each_ref().map(Disk::id);
    for (end, own) in ends.iter_mut().zip(ids) {
        let mut missing = ids.iter().filter(|id| **id != own).collect::<Vec<_>>();
        while !missing.is_empty() {
            if let LinkEvent::Connected(peer) = end.next().await {
                missing.retain(|id| **id != peer);
            }
        }
    }
    let seen = Rc::new(RefCell::new(BTreeMap::<(NodeId, NodeId, &str), u64>::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for (mut end, own) in ends.into_iter().zip(ids) {
        let seen = seen.clone();
        let others = ids.into_iter().filter(|id| *id != own).collect::<Vec<_>>();
        tasks.spawn_local(async move {
            let mut round = 1;
            while seen.borrow().values().sum::<u64>() < 6 * 2 * ROUNDS {
                for to in others.iter().filter(|_| round <= ROUNDS) {
                    let len = if round % 500 == 0 { 300_000 } else { 100 };
                    let chosen = Message::Chosen {
                        first: Slot(round),
                        values: vec![batch(round, vec![1; len])],
                    };
                    let learned = Message::Learned { first_unchosen: Slot(round) };
                    assert_eq!(end.links.send(*to, &learned), Sent::Queued);
                    assert_eq!(end.links.send(*to, &chosen), Sent::Queued);
                }
                end.links.flush();
                round += 1;
                let event = tokio::time::timeout(Duration::from_millis(1), end.events.recv()).await;
                let Ok(Some(LinkEvent::Received { from, frames })) = event else { continue };
                for frame in frames {
                    let (kind, slot) = match frame {
                        PeerFrame::Paxos(Message::Learned { first_unchosen }) => {
                            ("learned", first_unchosen)
                        }
                        PeerFrame::Paxos(Message::Chosen { first, values }) => {
                            let Value::Batch { id, payload } = &values[0] else { panic!() };
                            assert_eq!(id.counter, first.0);
                            assert!(payload.iter().all(|byte| *byte == 1));
                            ("chosen", first)
                        }
                        frame => panic!("{frame:?} was never sent"),
                    };
                    let mut seen = seen.borrow_mut();
                    let count = seen.entry((from, own, kind)).or_default();
                    *count += 1;
                    assert_eq!(slot.0, *count, "{kind} from {from} to {own} is out of order");
                }
            }
            end
        });
    }
    let mut ends = Vec::new();
    while let Some(end) = tasks.join_next().await {
        ends.push(end.expect("no end panics"));
    }
    let counters = ends[0].links.counters();
    let learned = node::peers::KINDS.iter().position(|kind| *kind == "learned").expect("a kind");
    assert!(counters.iter().all(|(_, counters)| counters.sent[learned].get() == ROUNDS));
    assert!(counters.iter().all(|(_, counters)| counters.received[learned].get() == ROUNDS));
    assert!(counters.iter().all(|(_, counters)| counters.send_failures() == 0));
}

#[test]
fn three_ends_exchange_thousands_of_frames_in_tls() {
    run(exchange(PeerSecurity::Tls));
}

#[test]
fn three_ends_exchange_thousands_of_frames_in_plain() {
    run(exchange(PeerSecurity::Plain));
}

/// The largest value passes, in TLS, and the heartbeat sent after it on the other lane is there.
#[test]
fn a_value_at_the_limit_passes() {
    run(async {
        let disks = format_all::<2>();
        let configuration = configuration(&disks);
        let [mut one, mut two] =
            disks.each_ref().map(|disk| disk.start(&configuration, PeerSecurity::Tls));
        one.until(LinkEvent::Connected(NodeId(2))).await;
        let largest = accept(1, wire::VALUE_BYTES_MAX);
        assert_eq!(one.send(NodeId(2), &largest), Sent::Queued);
        assert_eq!(one.send(NodeId(2), &accept(2, 2 * wire::VALUE_BYTES_MAX)), Sent::TooLong);
        assert_eq!(two.until_message(NodeId(1)).await, largest);
    });
}

/// Starts n1, n2 and n3; n2 is told another configuration than the others, or starts from another
/// disk. n1 and n2 must not connect, for the reason named in both directions, while n1 and n3 do.
async fn refuses(
    [one, two, three]: [&Disk; 3],
    configuration_of_others: &Configuration,
    configuration_of_two: &Configuration,
    security: PeerSecurity,
    at_one: &[&str],
    at_two: &[&str],
) {
    let mut end_one = one.start(configuration_of_others, security);
    let end_two = two.start(configuration_of_two, security);
    let mut end_three = three.start(configuration_of_others, security);
    end_two.until_trouble(NodeId(1), at_two).await;
    if !at_one.is_empty() {
        end_one.until_trouble(NodeId(2), at_one).await;
    }
    end_one.until(LinkEvent::Connected(NodeId(3))).await;
    end_three.until(LinkEvent::Connected(NodeId(1))).await;
    assert_eq!(end_one.send(NodeId(3), &Message::Ping), Sent::Queued);
    assert_eq!(end_three.until_message(NodeId(1)).await, Message::Ping);
    for end in [&end_one, &end_three] {
        assert!(!end.links.is_connected(NodeId(2)));
        assert_eq!(end.send(NodeId(2), &Message::Ping), Sent::Unconnected);
    }
    assert!(!end_two.links.is_connected(NodeId(1)));
    for end in [end_one, end_two, end_three] {
        end.end().await;
    }
}

#[test]
fn a_wrong_key_is_refused() {
    run(async {
        let [one, two, three] = format_all::<3>();
        let listed = configuration([&one, &two, &three]);
        let mut forged = listed.clone();
        let member = forged.members.get_mut(&NodeId(2)).expect("a member");
        member.public_key = node::tls::NodeKey::generate().expect("key").public().to_vec();
        let at_one = ["TLS handshake", "belongs to no current member"];
        let at_two = ["refuses this node", "key is not accepted"];
        let disks = [&one, &two, &three];
        refuses(disks, &forged, &listed, PeerSecurity::Tls, &at_one, &at_two).await;
    });
}

/// A member's key, but another member's: TLS lets it in, the hello does not match it.
#[test]
fn a_members_key_opens_only_its_own_door() {
    run(async {
        let [one, two, three] = format_all::<3>();
        let listed = configuration([&one, &two, &three]);
        let mut swapped = listed.clone();
        let key = |id: u32| listed.members[&NodeId(id)].public_key.clone();
        swapped.members.get_mut(&NodeId(2)).expect("a member").public_key = key(3);
        swapped.members.get_mut(&NodeId(3)).expect("a member").public_key = key(2);
        let end_one = one.start(&swapped, PeerSecurity::Tls);
        let end_two = two.start(&listed, PeerSecurity::Tls);
        end_two.until_trouble(NodeId(1), &["n2", "not the member's"]).await;
        end_one.until_trouble(NodeId(2), &["n2", "not the member's"]).await;
    });
}

/// PITFALLS 10 and 75: the same names and addresses, another cluster.
#[test]
fn another_cluster_is_refused() {
    run(async {
        let [address] = addresses::<1>();
        let [one, two, three] = format_all::<3>();
        let stranger = Disk::format(2, OTHER_UUID, address);
        let mut others = configuration([&one, &two, &three]);
        // As after a restore: keys, incarnations and addresses are known, the cluster is not.
        others.members.insert(NodeId(2), stranger.member());
        let words = ["refuse", UUID, OTHER_UUID];
        for security in [PeerSecurity::Plain, PeerSecurity::Tls] {
            let disks = [&one, &stranger, &three];
            refuses(disks, &others, &others, security, &words, &words).await;
        }
        drop(two);
    });
}

/// PITFALLS 8 and 27: a disk that was formatted again is not the member that it was.
#[test]
fn a_disk_formatted_again_is_refused() {
    run(async {
        let [one, two, three] = format_all::<3>();
        let listed = configuration([&one, &two, &three]);
        let again = Disk::format(2, UUID, two.config.listen.peer);
        let own = configuration([&one, &again, &three]);
        let words = ["refuse", "formatted again", "new id"];
        let disks = [&one, &again, &three];
        refuses(disks, &listed, &own, PeerSecurity::Plain, &words, &words).await;
        // In TLS already its new key is not a member's.
        let words = ["key is not accepted"];
        refuses(disks, &listed, &own, PeerSecurity::Tls, &[], &words).await;
        // And it would not even start with the members that the others know.
        let settings = again.settings(PeerSecurity::Tls);
        let error = Links::start(&again.identity, again.begin_process(), &listed, settings);
        let error = error.err().expect("a foreign incarnation is refused").to_string();
        assert!(error.contains("incarnation") && error.contains("formatted after"), "{error}");
    });
}

#[test]
fn an_unknown_node_is_refused() {
    run(async {
        let [one, two, three, stranger] = format_all::<4>();
        let listed = configuration([&one, &two, &three]);
        let own = configuration([&one, &two, &three, &stranger]);
        let mut end_one = one.start(&listed, PeerSecurity::Plain);
        let end_stranger = stranger.start(&own, PeerSecurity::Plain);
        end_stranger.until_trouble(NodeId(1), &["n4", "not a member"]).await;
        let mut end_three = three.start(&listed, PeerSecurity::Plain);
        end_one.until(LinkEvent::Connected(NodeId(3))).await;
        end_three.until(LinkEvent::Connected(NodeId(1))).await;
    });
}

/// PITFALLS 76: an address that now belongs to another node of the cluster.
#[test]
fn a_recycled_address_is_noticed() {
    run(async {
        let [one, two, three] = format_all::<3>();
        let listed = configuration([&one, &two, &three]);
        let mut moved = listed.clone();
        let address = three.config.listen.peer.to_string();
        moved.members.get_mut(&NodeId(2)).expect("a member").peer_address = address;
        let end_one = one.start(&moved, PeerSecurity::Tls);
        let mut end_three = three.start(&listed, PeerSecurity::Tls);
        end_one.until_trouble(NodeId(2), &["wants to reach n2, this is n3"]).await;
        end_three.until(LinkEvent::Connected(NodeId(1))).await;
        assert!(!end_one.links.is_connected(NodeId(2)));
    });
}

/// PITFALLS 9: two processes on copies of one directory. The second is refused and both are named.
#[test]
fn a_copied_data_directory_is_refused() {
    run(async {
        let [one, two] = format_all::<2>();
        let [elsewhere] = addresses::<1>();
        let listed = configuration([&one, &two]);
        let (original, copy) = (two.begin_process(), Process { starts: 1, nonce: 99 });
        assert_eq!(original.starts, 1);
        let mut end_one = one.start(&listed, PeerSecurity::Tls);
        let settings = two.settings(PeerSecurity::Tls);
        let mut end_two = two.start_as(original, &listed, settings.clone());
        end_one.until(LinkEvent::Connected(NodeId(2))).await;
        end_two.until(LinkEvent::Connected(NodeId(1))).await;

        let elsewhere = LinkSettings { listen: elsewhere, ..settings };
        let end_copy = two.start_as(copy, &listed, elsewhere.clone());
        let original_name = format!("{:016x}", original.nonce);
        let names = ["refuses this node", "copied", original_name.as_str(), "0000000000000063"];
        end_copy.until_trouble(NodeId(1), &names).await;

        // Restarted, the copy counts further than the original, which is still there.
        end_copy.end().await;
        let end_copy = two.start_as(Process { starts: 2, nonce: 98 }, &listed, elsewhere);
        let names = ["refuses this node", "connected already", original_name.as_str()];
        end_copy.until_trouble(NodeId(1), &names).await;

        assert_eq!(end_one.disconnects(NodeId(2)), 0, "the original lost its links");
        assert_eq!(end_two.send(NodeId(1), &Message::Ping), Sent::Queued);
        assert_eq!(end_one.until_message(NodeId(2)).await, Message::Ping);
    });
}

/// PITFALLS 10: an older copy of a node's own data, put back.
#[test]
fn an_older_copy_of_the_data_is_refused() {
    run(async {
        let [one, two] = format_all::<2>();
        let listed = configuration([&one, &two]);
        let settings = two.settings(PeerSecurity::Tls);
        let mut end_one = one.start(&listed, PeerSecurity::Tls);
        let backup = two.begin_process();
        let newest = two.begin_process();
        let end_two = two.start_as(newest, &listed, settings.clone());
        end_one.until(LinkEvent::Connected(NodeId(2))).await;
        end_two.end().await;
        end_one.until(LinkEvent::Disconnected(NodeId(2))).await;
        let end_two = two.start_as(backup, &listed, settings);
        end_two.until_trouble(NodeId(1), &["older copy", "1 starts", "2 have been seen"]).await;
        assert!(!end_one.links.is_connected(NodeId(2)));
    });
}

/// A process that ends shows at once, and is found again when it comes back.
#[test]
fn an_end_shows_at_once_and_a_return_too() {
    run(async {
        for security in [PeerSecurity::Tls, PeerSecurity::Plain] {
            let [one, two] = format_all::<2>();
            let listed = configuration([&one, &two]);
            let mut end_one = one.start(&listed, security);
            for round in 1..=5 {
                let mut end_two = two.start(&listed, security);
                end_one.until(LinkEvent::Connected(NodeId(2))).await;
                end_two.until(LinkEvent::Connected(NodeId(1))).await;
                assert_eq!(end_one.send(NodeId(2), &Message::Ping), Sent::Queued);
                assert_eq!(end_two.until_message(NodeId(1)).await, Message::Ping);
                end_two.end().await;
                let before = tokio::time::Instant::now();
                end_one.until(LinkEvent::Disconnected(NodeId(2))).await;
                // Not by a time-out: those take two seconds.
                assert!(before.elapsed() < Limits::default().idle / 2, "noticed too late");
                assert_eq!(end_one.disconnects(NodeId(2)), 2 * round, "one for each lane");
                assert_eq!(end_one.send(NodeId(2), &Message::Ping), Sent::Unconnected);
            }
        }
    });
}

/// Random bytes, nothing at all, half a hello: closed, and nobody else notices.
#[test]
fn strangers_are_shown_the_door() {
    run(async {
        for security in [PeerSecurity::Tls, PeerSecurity::Plain] {
            let [one, two] = format_all::<2>();
            let listed = configuration([&one, &two]);
            let mut settings = one.settings(security);
            settings.limits.handshake = Duration::from_millis(300);
            let mut end_one = one.start_as(one.begin_process(), &listed, settings);
            let mut end_two = two.start(&listed, security);
            end_two.until(LinkEvent::Connected(NodeId(1))).await;
            end_one.until(LinkEvent::Connected(NodeId(2))).await;

            let mut half_a_hello = BytesMut::new();
            let hello = Frame::Hello(hello_of(&two, NodeId(1), 1));
            wire::put(&mut half_a_hello, &hello).expect("a hello fits");
            half_a_hello.truncate(half_a_hello.len() / 2);
            let garbage = (0..200_000_u32).map(|n| ((n * 7919) >> 3) as u8).collect::<Vec<_>>();
            for bytes in [&garbage[..], &[], &half_a_hello, b"GET / HTTP/1.1\r\n\r\n", &[0; 64]] {
                let mut stranger = TcpStream::connect(one.config.listen.peer).await.expect("dial");
                let _ = stranger.write_all(bytes).await;
                let mut answer = Vec::new();
                let closed = tokio::time::timeout(PATIENCE, stranger.read_to_end(&mut answer));
                let _ = closed.await.expect("the stranger was not shown the door");
                assert!(answer.len() < 1000, "a stranger got {} bytes", answer.len());
            }
            assert_eq!(end_two.send(NodeId(1), &Message::Ping), Sent::Queued);
            assert_eq!(end_one.until_message(NodeId(2)).await, Message::Ping);
            assert_eq!(end_one.disconnects(NodeId(2)), 0);
        }
    });
}

/// Silent strangers hold a bounded number of places, and give them up to a member.
#[test]
fn silent_strangers_cannot_keep_a_member_out() {
    run(async {
        let [one, two] = format_all::<2>();
        let listed = configuration([&one, &two]);
        let mut settings = one.settings(PeerSecurity::Tls);
        settings.limits.half_open_max = 8;
        // None of them is closed by its deadline while this test runs.
        settings.limits.handshake = PATIENCE * 3;
        let mut end_one = one.start_as(one.begin_process(), &listed, settings);
        let mut strangers = Vec::new();
        for _ in 0..40 {
            strangers.push(TcpStream::connect(one.config.listen.peer).await.expect("dial"));
        }
        let mut end_two = two.start(&listed, PeerSecurity::Tls);
        end_two.until(LinkEvent::Connected(NodeId(1))).await;
        end_one.until(LinkEvent::Connected(NodeId(2))).await;
        let mut open = 0;
        for stranger in &mut strangers {
            let mut byte = [0; 1];
            let read = stranger.read(&mut byte);
            open +=
                usize::from(tokio::time::timeout(Duration::from_millis(20), read).await.is_err());
        }
        assert!(open <= 8, "{open} silent strangers are still there");
    });
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

/// The dialling side checks by the same rules as the answering one.
#[test]
fn whoever_answers_is_checked_too() {
    run(async {
        type Lie = fn(&mut Hello);
        let lies: [(Lie, &str); 6] = [
            (|hello| hello.id = NodeId(3), "n2 was dialled, n3 answers"),
            (|hello| hello.cluster = [9; 16], "is of cluster 0909"),
            (|hello| hello.incarnation += 1, "formatted again"),
            (|hello| hello.to = NodeId(3), "wants to reach n3, this is n1"),
            (|hello| hello.id = NodeId(1), "n2 was dialled, n1 answers"),
            (|hello| (hello.version_oldest, hello.version_newest) = (7, 9), "versions 7 to 9"),
        ];
        for (lie, words) in lies {
            let [one, two, three] = format_all::<3>();
            let listed = configuration([&one, &two, &three]);
            let truth = hello_of(&two, NodeId(1), 5);
            let _held = play(&two, move |theirs| {
                let mut hello = Hello { lane: theirs.lane, ..truth.clone() };
                lie(&mut hello);
                Frame::Welcome(hello)
            });
            let end_one = one.start(&listed, PeerSecurity::Plain);
            end_one.until_trouble(NodeId(2), &["refused", words]).await;
            assert!(!end_one.links.is_connected(NodeId(2)), "believed: {words}");
        }
    });
}

/// PITFALLS 43 and 45: a peer that accepts and never reads costs a bounded buffer; the other peer
/// gets everything, and the silent one is given up.
#[test]
fn a_peer_that_never_reads_costs_a_bounded_buffer() {
    run(async {
        let [one, two, three] = format_all::<3>();
        let listed = configuration([&one, &two, &three]);
        let hello = hello_of(&two, NodeId(1), 5);
        let held =
            play(&two, move |theirs| Frame::Welcome(Hello { lane: theirs.lane, ..hello.clone() }));
        let mut settings = one.settings(PeerSecurity::Plain);
        settings.limits.control_bytes_max = 1 << 20;
        settings.limits.bulk_bytes_max = 2 << 20;
        let limits = settings.limits;
        let mut end_one = one.start_as(one.begin_process(), &listed, settings);
        let mut end_three = three.start(&listed, PeerSecurity::Plain);
        let mut missing = vec![NodeId(2), NodeId(3)];
        while !missing.is_empty() {
            if let LinkEvent::Connected(peer) = end_one.next().await {
                missing.retain(|id| *id != peer);
            }
        }
        let (mut full, mut slot) = (0, 0);
        while full < 100 {
            slot += 1;
            let part = Bytes::from(vec![0; 100_000]);
            let heartbeat =
                Message::Heartbeat(Heartbeat { sequence: slot, ..Heartbeat::default() });
            let sent = [
                end_one.links.send(NodeId(2), &accept(slot, 20_000)),
                end_one.links.send_snapshot(NodeId(2), &part),
            ];
            full += sent.iter().filter(|sent| **sent == Sent::Full).count();
            assert!(end_one.links.bulk_bytes_queued(NodeId(2)) <= limits.bulk_bytes_max);
            assert_eq!(end_one.links.send(NodeId(3), &heartbeat), Sent::Queued);
            end_one.links.flush();
            let Message::Heartbeat(heartbeat) = end_three.until_message(NodeId(1)).await else {
                panic!("another message")
            };
            assert_eq!(heartbeat.sequence, slot);
        }
        let counters = end_one.links.counters();
        let (_, of_two) = counters.iter().find(|(id, _)| *id == NodeId(2)).expect("a peer");
        assert!(of_two.dropped_full.get() >= 100);
        // The window stays shut: the kernel gives the connection up, and we dial again.
        end_one.until(LinkEvent::Disconnected(NodeId(2))).await;
        assert_eq!(end_one.links.bulk_bytes_queued(NodeId(2)), 0);
        assert_eq!(end_one.disconnects(NodeId(3)), 0);
        drop(held);
    });
}

/// PITFALLS 46: a snapshot that fills the bulk lane does not delay a heartbeat.
#[test]
fn heartbeats_do_not_queue_behind_bulk() {
    run(async {
        let [one, two] = format_all::<2>();
        let listed = configuration([&one, &two]);
        let [mut end_one, mut end_two] =
            [&one, &two].map(|disk| disk.start(&listed, PeerSecurity::Tls));
        end_one.until(LinkEvent::Connected(NodeId(2))).await;
        let part = Bytes::from(vec![0; 1 << 20]);
        while end_one.links.send_snapshot(NodeId(2), &part) == Sent::Queued {}
        let queued = end_one.links.bulk_bytes_queued(NodeId(2));
        assert!(queued > 30 << 20, "only {queued} bytes of snapshot wait");
        assert_eq!(end_one.send(NodeId(2), &Message::Ping), Sent::Queued);
        let mut snapshot_bytes = 0;
        loop {
            let LinkEvent::Received { frames, .. } = end_two.next().await else { continue };
            match &frames[0] {
                PeerFrame::Snapshot(part) => snapshot_bytes += part.len(),
                PeerFrame::Paxos(message) => {
                    assert_eq!(*message, Message::Ping);
                    break;
                }
            }
        }
        assert!(snapshot_bytes < queued / 2, "the ping waited for {snapshot_bytes} bytes");
    });
}

/// A core that takes nothing holds its peers back instead of filling its memory, and what was
/// queued arrives in order once it goes on.
#[test]
fn a_busy_core_holds_its_peers_back() {
    run(async {
        let [one, two] = format_all::<2>();
        let listed = configuration([&one, &two]);
        let mut settings = one.settings(PeerSecurity::Tls);
        // Longer than the test: a shut window alone must not end the connection.
        settings.limits.idle = PATIENCE * 3;
        settings.limits.control_bytes_max = 1 << 20;
        let mut end_one = one.start_as(one.begin_process(), &listed, settings.clone());
        settings.listen = two.config.listen.peer;
        let mut end_two = two.start_as(two.begin_process(), &listed, settings);
        end_one.until(LinkEvent::Connected(NodeId(2))).await;
        end_two.until(LinkEvent::Connected(NodeId(1))).await;
        let (mut queued, mut refused) = (0, 0);
        // n2 takes no event. At some point every buffer on the way is full, and stays so.
        while refused < 50 {
            match end_one.send(NodeId(2), &accept(queued + 1, 30_000)) {
                Sent::Queued => (queued, refused) = (queued + 1, 0),
                Sent::Full => refused += 1,
                sent => panic!("{sent:?}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(queued * 30_000 < 64 << 20, "{queued} messages wait somewhere");
        // The other direction is not held back.
        assert_eq!(end_two.send(NodeId(1), &Message::Ping), Sent::Queued);
        assert_eq!(end_one.until_message(NodeId(2)).await, Message::Ping);
        let mut expected = 1;
        while expected <= queued {
            let LinkEvent::Received { frames, .. } = end_two.next().await else {
                panic!("the link was lost")
            };
            for frame in frames {
                assert_eq!(frame, PeerFrame::Paxos(accept(expected, 30_000)));
                expected += 1;
            }
        }
    });
}

/// A process that was paused itself does not blame its peers: what has arrived meanwhile is looked
/// at before silence is counted.
#[test]
fn a_pause_of_ones_own_is_not_held_against_the_peer() {
    run(async {
        let [one, two] = format_all::<2>();
        let listed = configuration([&one, &two]);
        let mut ends = Vec::new();
        for disk in [&one, &two] {
            let mut settings = disk.settings(PeerSecurity::Tls);
            settings.limits.idle = Duration::from_millis(200);
            ends.push(disk.start_as(disk.begin_process(), &listed, settings));
        }
        ends[0].until(LinkEvent::Connected(NodeId(2))).await;
        ends[1].until(LinkEvent::Connected(NodeId(1))).await;
        for _ in 0..3 {
            // The whole thread stands still for five times the idle limit.
            std::thread::sleep(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(ends[0].send(NodeId(2), &Message::Ping), Sent::Queued);
            assert_eq!(ends[1].until_message(NodeId(1)).await, Message::Ping);
        }
        assert_eq!(ends[0].disconnects(NodeId(2)) + ends[1].disconnects(NodeId(1)), 0);
    });
}

/// A refusal is read, kept for `status`, and not answered by hammering.
#[test]
fn a_refused_node_asks_again_slowly() {
    run(async {
        let [one, two] = format_all::<2>();
        let listed = configuration([&one, &two]);
        let refusal = Refusal::new(RefusalCode::NotAMember, "you have\nbeen removed");
        let held = play(&two, move |_| Frame::Refused(refusal.clone()));
        let end_one = one.start(&listed, PeerSecurity::Plain);
        end_one.until_trouble(NodeId(2), &["refuses this node", "you have been removed"]).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let attempts = held.borrow().len();
        // Two lanes, each at once and then at most every 250 ms.
        assert!(attempts <= 8, "{attempts} attempts in half a second");
    });
}

/// Whoever is removed is cut off at once and not let in again; whoever is added is dialled.
#[test]
fn members_come_and_go() {
    run(async {
        let disks = format_all::<3>();
        let [one, two, three] = &disks;
        let all = configuration(&disks);
        let without_two = configuration([one, three]);
        let mut end_one = one.start(&configuration([one, two]), PeerSecurity::Tls);
        let mut end_two = two.start(&all, PeerSecurity::Tls);
        let mut end_three = three.start(&all, PeerSecurity::Tls);
        end_one.until(LinkEvent::Connected(NodeId(2))).await;
        end_three.until_trouble(NodeId(1), &["key is not accepted"]).await;

        end_one.links.update_members(&without_two).expect("new members");
        let mut wanted = vec![LinkEvent::Disconnected(NodeId(2)), LinkEvent::Connected(NodeId(3))];
        while !wanted.is_empty() {
            let event = end_one.next().await;
            wanted.retain(|wanted| *wanted != event);
        }
        end_three.until(LinkEvent::Connected(NodeId(1))).await;
        end_two.until(LinkEvent::Disconnected(NodeId(1))).await;
        end_two.until_trouble(NodeId(1), &["key is not accepted"]).await;
        assert_eq!(end_one.send(NodeId(2), &Message::Ping), Sent::Unconnected);
        assert_eq!(end_one.links.counters().len(), 2, "counters outlive membership");

        // The same members again: nothing is torn down.
        let before = end_one.disconnects(NodeId(3));
        end_one.links.update_members(&without_two).expect("the same members");
        assert_eq!(end_one.send(NodeId(3), &Message::Ping), Sent::Queued);
        assert_eq!(end_three.until_message(NodeId(1)).await, Message::Ping);
        assert_eq!(end_one.disconnects(NodeId(3)), before);
    });
}

#[test]
fn plain_links_are_refused_beyond_loopback() {
    run(async {
        let [one, two] = format_all::<2>();
        let start = |listed: &Configuration, listen: &str| {
            let listen = listen.parse().expect("address");
            let settings = LinkSettings { listen, ..one.settings(PeerSecurity::Plain) };
            Links::start(&one.identity, one.begin_process(), listed, settings)
        };
        let own = one.config.listen.peer.to_string();
        let listed = configuration([&one, &two]);
        let error = start(&listed, "0.0.0.0:7380").err().expect("refused");
        assert!(matches!(error, LinksError::PlainBeyondLoopback { .. }), "{error}");
        for address in ["10.0.0.2:7380", "n2.example.org:7380", "[2001:db8::2]:7380"] {
            let mut listed = listed.clone();
            listed.members.get_mut(&NodeId(2)).expect("n2").peer_address = address.to_owned();
            let error = start(&listed, &own).err().expect("refused").to_string();
            assert!(error.contains("loopback only") && error.contains(address), "{error}");
        }
        for address in ["localhost:7380", "[::1]:7380", "127.9.9.9:1"] {
            let mut listed = listed.clone();
            listed.members.get_mut(&NodeId(2)).expect("n2").peer_address = address.to_owned();
            let (links, _) = start(&listed, &own).expect("loopback is fine");
            links.close().await;
        }
    });
}

#[test]
fn a_taken_port_is_named() {
    run(async {
        let [one, two] = format_all::<2>();
        let listed = configuration([&one, &two]);
        let _taken = std::net::TcpListener::bind(one.config.listen.peer).expect("listen");
        let settings = one.settings(PeerSecurity::Tls);
        let error = Links::start(&one.identity, one.begin_process(), &listed, settings);
        let error = error.err().expect("the port is taken").to_string();
        assert_eq!(error, format!("listen for peers on {}", one.config.listen.peer));
        assert!(one.dir.path().exists());
    });
}

/// PITFALLS 85: packets vanish in both directions, or in one, without reset. Both ends notice by
/// themselves, though nobody sends a message, and find each other again when it is over.
#[test]
fn a_half_open_link_is_noticed() {
    let name = "a_half_open_link_is_noticed";
    if std::env::var_os("IN_OWN_NETWORK").is_some() {
        return run(half_open_links());
    }
    if let Err(why) = can_make_networks() {
        eprintln!("skipped: {why}");
        return;
    }
    // This very test again, in a network of its own: its packets may be dropped.
    let test = std::env::current_exe().expect("the test's own path");
    let status = std::process::Command::new("unshare")
        .args(["--net", "--"])
        .arg(test)
        .args(["--exact", name, "--nocapture"])
        .env("IN_OWN_NETWORK", "1")
        .status();
    assert!(status.expect("unshare runs").success(), "failed in its own network");
}

fn can_make_networks() -> Result<(), String> {
    for command in [&["unshare", "--net", "true"][..], &["nft", "--version"], &["ip", "-V"]] {
        let output = std::process::Command::new(command[0]).args(&command[1..]).output();
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                return Err(format!("`{}` fails: {}", command.join(" "), text.trim()));
            }
            Err(error) => return Err(format!("`{}`: {error}", command[0])),
        }
    }
    Ok(())
}

fn sh(command: &str) {
    let status = std::process::Command::new("sh").args(["-ec", command]).status();
    assert!(status.expect("sh runs").success(), "`{command}` failed");
}

async fn half_open_links() {
    sh("ip link set lo up");
    let [one, two] = format_all::<2>();
    let listed = configuration([&one, &two]);
    let [mut end_one, mut end_two] =
        [&one, &two].map(|disk| disk.start(&listed, PeerSecurity::Tls));
    let [at_one, at_two] = [&one, &two].map(|disk| disk.config.listen.peer.ip());
    // Both ways, then only from n2's address, where n1 dials, towards n1.
    let one_way = format!("ip saddr {at_two} drop");
    for rule in ["drop", one_way.as_str()] {
        end_one.until(LinkEvent::Connected(NodeId(2))).await;
        end_two.until(LinkEvent::Connected(NodeId(1))).await;
        sh("nft add table inet cut && \
            nft add chain inet cut input '{ type filter hook input priority 0; }'");
        sh(&format!("nft add rule inet cut input {rule}"));
        end_one.until(LinkEvent::Disconnected(NodeId(2))).await;
        if rule == "drop" {
            end_two.until(LinkEvent::Disconnected(NodeId(1))).await;
        }
        // The fault acts: nobody gets through while it lasts.
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(!end_one.links.is_connected(NodeId(2)), "packets to {at_one} are not dropped");
        sh("nft delete table inet cut");
        if rule == "drop" {
            continue;
        }
        end_one.until(LinkEvent::Connected(NodeId(2))).await;
    }
}
