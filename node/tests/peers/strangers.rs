//! Bytes from anybody: closed, and nobody else notices.

use super::*;

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

fn hello_on(disk: &Disk, lane: Lane) -> Hello {
    Hello { lane, ..hello_of(disk, NodeId(1), 1) }
}

async fn is_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest));
    let _ = closed.await.expect("the connection was not closed");
}

/// A member that sends what is no frame, or stops in the middle of one: that connection ends, what
/// came before it was taken, and the next connection is as welcome as the first.
#[test]
fn a_member_that_talks_nonsense_is_cut_off() {
    run(async {
        let [one, two] = format_all::<2>();
        let listed = configuration([&one, &two]);
        let mut settings = one.settings(PeerSecurity::Plain);
        settings.limits.idle = Duration::from_millis(300);
        let mut end_one = one.start_as(one.begin_process(), &listed, settings);
        let frame = |frame: &Frame| {
            let mut bytes = BytesMut::new();
            wire::put(&mut bytes, frame).expect("it fits");
            bytes
        };
        let ping = frame(&Frame::Peer(PeerFrame::Paxos(Message::Ping)));
        let mut flipped = frame(&Frame::Peer(PeerFrame::Paxos(accept(1, 100))));
        flipped[40] ^= 1;
        let mut newer = ping.clone();
        newer[8] = 99;
        let mut endless = ping.clone();
        endless[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let half = frame(&Frame::Peer(PeerFrame::Paxos(accept(1, 1 << 20)))).split_to(1000);
        let second_hello = frame(&Frame::Hello(hello_of(&two, NodeId(1), 1)));
        for nonsense in [&[0xaa; 300][..], &flipped, &newer, &endless, &half, &second_hello, &[]] {
            for lane in Lane::ALL {
                let mut stream = welcomed(&one, hello_on(&two, lane)).await;
                stream.write_all(&[&ping[..], nonsense].concat()).await.expect("write");
                is_closed(&mut stream).await;
                let event = end_one.next().await;
                let frames = vec![PeerFrame::Paxos(Message::Ping)];
                assert_eq!(event, LinkEvent::Received { from: NodeId(2), frames });
            }
        }
    });
}

/// A member that dials again has lost the former connection, whether we know it or not.
#[test]
fn a_newer_connection_replaces_the_older_one() {
    run(async {
        let [one, two] = format_all::<2>();
        let listed = configuration([&one, &two]);
        let _end_one = one.start(&listed, PeerSecurity::Plain);
        let mut older = welcomed(&one, hello_on(&two, Lane::Control)).await;
        let mut bulk = welcomed(&one, hello_on(&two, Lane::Bulk)).await;
        let mut newer = welcomed(&one, hello_on(&two, Lane::Control)).await;
        is_closed(&mut older).await;
        for stream in [&mut bulk, &mut newer] {
            let mut byte = [0; 1];
            let read = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut byte));
            assert!(read.await.is_err(), "another connection was closed too");
        }
    });
}
