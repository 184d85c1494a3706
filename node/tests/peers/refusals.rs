//! Who is refused, on both sides, with a reason that names what is wrong.

use super::*;

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

/// Starts a process on a copy of `disk`'s directory as it is now, listening elsewhere.
fn copy_of(disk: &Disk, at: SocketAddr) -> Disk {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = NodeConfig {
        data_dir: dir.path().join("data"),
        listen: Listen { client: at, peer: at, http: at },
        ..disk.config.clone()
    };
    std::fs::create_dir(&config.data_dir).expect("create");
    for name in ["identity", "starts"] {
        let (from, to) = (disk.config.data_dir.join(name), config.data_dir.join(name));
        std::fs::copy(from, to).expect("copy");
    }
    let identity = identity::load(&config).expect("load");
    Disk { dir, config, identity }
}

/// PITFALLS 9: two processes on copies of one directory. The second is refused and both are named.
#[test]
fn a_copied_data_directory_is_refused() {
    run(async {
        let [one, two] = format_all::<2>();
        let [elsewhere, beyond] = addresses::<2>();
        let listed = configuration([&one, &two]);
        let early = copy_of(&two, elsewhere);
        let mut end_one = one.start(&listed, PeerSecurity::Tls);
        let original = two.begin_process();
        let late = copy_of(&two, beyond);
        let mut end_two = two.start_as(original, &listed, two.settings(PeerSecurity::Tls));
        end_one.until(LinkEvent::Connected(NodeId(2))).await;
        end_two.until(LinkEvent::Connected(NodeId(1))).await;
        let name = |process: Process| format!("{:016x}", process.nonce);

        // Copied before the original's start: it has another process in that place. However often
        // it starts, and so counts further than the original, it never descends from it.
        for _ in 0..3 {
            let process = early.begin_process();
            let end = early.start_as(process, &listed, early.settings(PeerSecurity::Tls));
            let names = ["refuses this node", "was copied", &name(original), &name(process)];
            end.until_trouble(NodeId(1), &names).await;
            end.end().await;
        }
        // Copied while the original ran: a rightful successor, if the original were gone.
        let process = late.begin_process();
        let end_late = late.start_as(process, &listed, late.settings(PeerSecurity::Tls));
        let names = ["refuses this node", "connected already", &name(original), &name(process)];
        end_late.until_trouble(NodeId(1), &names).await;

        assert_eq!(end_one.disconnects(NodeId(2)), 0, "the original lost its links");
        assert_eq!(end_two.send(NodeId(1), &Message::Ping), Sent::Queued);
        assert_eq!(end_one.until_message(NodeId(2)).await, Message::Ping);

        // The original ends and starts again; now the late copy has another process in that place.
        end_late.end().await;
        end_two.end().await;
        let end_two = two.start(&listed, PeerSecurity::Tls);
        end_one.until(LinkEvent::Connected(NodeId(2))).await;
        end_two.end().await;
        end_one.until(LinkEvent::Disconnected(NodeId(2))).await;
        for _ in 0..2 {
            let end_late = late.start(&listed, PeerSecurity::Tls);
            end_late.until_trouble(NodeId(1), &["refuses this node", "was copied"]).await;
            end_late.end().await;
        }
        let _end_two = two.start(&listed, PeerSecurity::Tls);
        end_one.until(LinkEvent::Connected(NodeId(2))).await;
    });
}

/// PITFALLS 10: an older copy of a node's own data, put back: from before its last start, or from
/// before something that it has stated since.
#[test]
fn an_older_copy_of_the_data_is_refused() {
    run(async {
        let ballot = |round| Ballot { round, node: NodeId(1), ..Ballot::ZERO };
        let slot = Slot(40);
        let accepted = Message::Accepted { ballot: ballot(3), slot, first_unchosen: Slot(1) };
        let promise = Message::Promise {
            ballot: ballot(3),
            from_slot: Slot(1),
            to_slot: None,
            entries: Vec::new(),
            first_unchosen: Slot(1),
            wall_ms: 0,
        };
        let full = Remembered { promised: ballot(3), last_slot: slot };
        let no_promise = Remembered { promised: ballot(2), ..full };
        let no_entry = Remembered { last_slot: slot.previous(), ..full };
        for (stated, forgetful, words) in [
            (&accepted, no_promise, "a promise of 2.1"),
            (&accepted, no_entry, "up to slot 39"),
            (&promise, no_promise, "has once stated 3.1"),
        ] {
            let [one, two] = format_all::<2>();
            let [elsewhere] = addresses::<1>();
            let listed = configuration([&one, &two]);
            let start = |disk: &Disk, remembered| {
                let settings = LinkSettings { remembered, ..disk.settings(PeerSecurity::Tls) };
                disk.start_as(disk.begin_process(), &listed, settings)
            };
            let ancient = copy_of(&two, elsewhere);
            let mut end_one = one.start(&listed, PeerSecurity::Tls);
            two.begin_process();
            let end_two = start(&two, Remembered::default());
            end_one.until(LinkEvent::Connected(NodeId(2))).await;
            while end_two.send(NodeId(1), stated) != Sent::Queued {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(end_one.until_message(NodeId(2)).await, *stated);
            end_two.end().await;
            end_one.until(LinkEvent::Disconnected(NodeId(2))).await;

            let end_ancient = start(&ancient, full);
            let reason = ["older copy", "counts 1 starts", "2 have been seen"];
            end_ancient.until_trouble(NodeId(1), &reason).await;
            end_ancient.end().await;
            let end_two = start(&two, forgetful);
            end_two.until_trouble(NodeId(1), &["older copy", "must not vote", words]).await;
            assert!(!end_one.links.is_connected(NodeId(2)));
            end_two.end().await;
            // Whoever remembers everything is welcome.
            let _end_two = start(&two, full);
            end_one.until(LinkEvent::Connected(NodeId(2))).await;
        }
    });
}

/// A leader answers nobody, so nothing that it says shows what it must remember: it tells so by
/// itself, and is held to it.
#[test]
fn a_leaders_own_word_counts() {
    run(async {
        let [one, two] = format_all::<2>();
        let listed = configuration([&one, &two]);
        let mut end_one = one.start(&listed, PeerSecurity::Plain);
        let promised = Ballot { round: 3, node: NodeId(2), ..Ballot::ZERO };
        let mut first = welcomed(&one, hello_of(&two, NodeId(1), 1)).await;
        let word = bytes_of(&Frame::Durable { promised, last_slot: Slot(40) });
        let ping = bytes_of(&Frame::Peer(PeerFrame::Paxos(Message::Ping)));
        first.write_all(&[&word[..], &ping].concat()).await.expect("write");
        assert_eq!(end_one.until_message(NodeId(2)).await, Message::Ping);
        let next = |promised, last_slot| Hello {
            starts: 2,
            former: [1, 0, 0, 0, 0, 0, 0, 0],
            promised,
            last_slot: Slot(last_slot),
            ..hello_of(&two, NodeId(1), 2)
        };
        drop(first);
        for hello in [next(Ballot::ZERO, 40), next(promised, 39)] {
            // The former connection may not have been seen to end yet: that is another reason.
            let refusal = loop {
                match dial(&one, hello.clone()).await {
                    (_, Frame::Refused(Refusal { code: RefusalCode::SecondProcess, .. })) => {}
                    (_, Frame::Refused(refusal)) => break refusal,
                    (_, frame) => panic!("{frame:?} instead of a refusal"),
                }
            };
            assert_eq!(refusal.code, RefusalCode::OlderCopy, "{refusal}");
        }
        welcomed(&one, next(promised, 40)).await;
    });
}

/// The other half: what is noted as durable is told to every peer, and only ever more of it.
#[test]
fn what_is_durable_is_told() {
    run(async {
        let [one, two] = format_all::<2>();
        let listed = configuration([&one, &two]);
        let truth = hello_of(&two, NodeId(1), 5);
        let held =
            play(&two, move |theirs| Frame::Welcome(Hello { lane: theirs.lane, ..truth.clone() }));
        let mut end_one = one.start(&listed, PeerSecurity::Plain);
        end_one.until(LinkEvent::Connected(NodeId(2))).await;
        let promised = |round| Ballot { round, node: NodeId(1), ..Ballot::ZERO };
        let remembered =
            |round, slot| Remembered { promised: promised(round), last_slot: Slot(slot) };
        end_one.links.note_durable(remembered(3, 40));
        end_one.links.note_durable(remembered(2, 41));
        let wanted = Frame::Durable { promised: promised(3), last_slot: Slot(41) };
        let streams = std::mem::take(&mut *held.borrow_mut());
        let (sender, mut told) = tokio::sync::mpsc::channel(1);
        for mut stream in streams {
            let (sender, wanted) = (sender.clone(), wanted.clone());
            tokio::task::spawn_local(async move {
                let mut decoder = wire::FrameDecoder::new(wire::FRAME_BYTES_MAX);
                while let Ok(1..) = stream.read_buf(decoder.spare()).await {
                    while let Some(frame) = decoder.next_frame().expect("a frame") {
                        if frame == wanted {
                            let _ = sender.send(()).await;
                        }
                    }
                }
            });
        }
        let told = tokio::time::timeout(PATIENCE, told.recv()).await;
        assert_eq!(told, Ok(Some(())), "the peer was not told");
    });
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
