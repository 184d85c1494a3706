//! Links that end, by whatever means, and come back.

use super::*;

/// A process that ends shows at once, and is found again when it comes back.
#[test]
fn an_end_shows_at_once_and_a_return_too() {
    run(async {
        for security in [PeerSecurity::Tls, PeerSecurity::Plain] {
            let [one, two] = format_all::<2>();
            let listed = configuration([&one, &two]);
            let mut settings = one.settings(security);
            // No sign of life is sent and no time-out ends while this test runs: only the end of
            // the connection itself can tell.
            settings.limits.idle = PATIENCE * 10;
            let mut end_one = one.start_as(one.begin_process(), &listed, settings);
            for round in 1..=5 {
                let mut end_two = two.start(&listed, security);
                end_one.until(LinkEvent::Connected(NodeId(2))).await;
                end_two.until(LinkEvent::Connected(NodeId(1))).await;
                assert_eq!(end_one.send(NodeId(2), &Message::Ping), Sent::Queued);
                assert_eq!(end_two.until_message(NodeId(1)).await, Message::Ping);
                end_two.end().await;
                end_one.until(LinkEvent::Disconnected(NodeId(2))).await;
                assert_eq!(end_one.disconnects(NodeId(2)), 2 * round, "one for each lane");
                assert_eq!(end_one.send(NodeId(2), &Message::Ping), Sent::Unconnected);
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

/// PITFALLS 85: packets vanish in both directions, or in one, without reset. Both ends notice by
/// themselves, though nobody sends a message, and find each other again when it is over.
#[test]
fn a_half_open_link_is_noticed() {
    let name = "loss::a_half_open_link_is_noticed";
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
