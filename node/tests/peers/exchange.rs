//! What is sent arrives, in order and bounded, whoever reads slowly or not at all.

use super::*;

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

/// PITFALLS 46: a snapshot, or chosen entries for a node that is behind, fill the bulk lane, and do
/// not delay a heartbeat.
#[test]
fn heartbeats_do_not_queue_behind_bulk() {
    run(async {
        let part = Bytes::from(vec![0; 1 << 20]);
        let values = (0..4).map(|counter| batch(counter, vec![0; 2_000])).collect();
        let chosen = Message::Chosen { first: Slot(1), values };
        let fill: [&dyn Fn(&Links) -> Sent; 2] =
            [&|links| links.send_snapshot(NodeId(2), &part), &|links| {
                links.send(NodeId(2), &chosen)
            }];
        for fill in fill {
            let disks = format_all::<2>();
            let configuration = configuration(&disks);
            let [mut end_one, mut end_two] =
                disks.each_ref().map(|disk| disk.start(&configuration, PeerSecurity::Tls));
            end_one.until(LinkEvent::Connected(NodeId(2))).await;
            while fill(&end_one.links) == Sent::Queued {}
            let queued = end_one.links.bulk_bytes_queued(NodeId(2));
            assert!(queued > 30 << 20, "only {queued} bytes wait");
            assert_eq!(end_one.send(NodeId(2), &Message::Ping), Sent::Queued);
            let mut long_bytes = 0;
            'received: loop {
                let LinkEvent::Received { frames, .. } = end_two.next().await else { continue };
                for frame in frames {
                    match frame {
                        PeerFrame::Paxos(Message::Ping) => break 'received,
                        PeerFrame::Snapshot(part) => long_bytes += part.len(),
                        PeerFrame::Paxos(_) => long_bytes += 4 * 2_000,
                        PeerFrame::States(_) => panic!("nobody has sent states"),
                    }
                }
            }
            assert!(long_bytes < queued / 2, "the ping waited for {long_bytes} bytes");
        }
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
