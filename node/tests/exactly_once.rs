//! Transactions, `ONCE` and the time of keys across leaders, restarts and snapshots: nodes without
//! sockets, so that each test is one exact course of events.

#[path = "exactly_once/cluster.rs"]
mod cluster;

use cluster::Cluster;
use node::store::Applying;

const YEAR_MS: i64 = 365 * 24 * 3_600_000;

/// 36: replies in order, in one pipeline, whatever waits for what.
#[test]
fn a_pipeline_sees_its_own_writes_and_its_watch_does_not() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let client = cluster.client(leader);
    let pipeline = "SET k 1; WATCH k; GET k; MULTI; INCR k; PING; EXEC; GET k";
    let replies = cluster.ask(leader, client, pipeline);
    assert_eq!(replies, "+OK +OK $1 +OK +QUEUED +QUEUED *2 :2 +PONG $2");
    let pipeline = "WATCH k; SET k 5; MULTI; INCR k; EXEC; UNWATCH; MULTI; INCR k; EXEC";
    let replies = cluster.ask(leader, client, pipeline);
    assert_eq!(replies, "+OK +OK +OK +QUEUED *-1 +OK +OK +QUEUED *1 :6");
    cluster.assert_equal();
}

/// 37
#[test]
fn a_write_of_another_connection_or_the_end_of_a_key_aborts() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let (one, other) = (cluster.client(leader), cluster.client(leader));
    cluster.ask(leader, one, "SET k v");
    assert_eq!(cluster.ask(leader, one, "WATCH k j; MULTI; SET a 1"), "+OK +OK +QUEUED");
    // In the very batch of the EXEC, before it.
    cluster.send(leader, other, "SET j x");
    assert_eq!(cluster.ask(leader, one, "EXEC"), "*-1");
    assert_eq!(cluster.ask(leader, one, "MULTI; SET a 1; EXEC"), "+OK +QUEUED *1 +OK");

    cluster.ask(leader, one, "SET k v PX 500; WATCH k; MULTI; SET a 2");
    cluster.wait(600);
    assert_eq!(cluster.ask(leader, one, "EXEC"), "*-1", "its time came");
    cluster.ask(leader, one, "SET k v PX 500");
    cluster.wait(600);
    // A key that was gone when it was watched does not go once more.
    let replies = cluster.ask(leader, one, "WATCH k; GET k; MULTI; SET a 3; EXEC");
    assert_eq!(replies, "+OK $-1 +OK +QUEUED *1 +OK");
    cluster.assert_equal();
}

#[test]
fn a_follower_sends_a_transaction_to_the_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    cluster.wait(200);
    let follower = (leader + 1) % 3;
    let client = cluster.client(follower);
    let address = format!("host{}:7379", leader + 1);
    let replies = cluster.ask(follower, client, "WATCH k; MULTI; PING; SET k 1; EXEC");
    let moved = format!("-MOVED 7629 {address}");
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    assert_eq!(replies, format!("{moved} +OK +QUEUED {moved} {aborted}"));
    // Nothing in it is for the store.
    assert_eq!(cluster.ask(follower, client, "MULTI; PING; EXEC"), "+OK +QUEUED *1 +PONG");
}

/// A leader that was replaced while a client watched: whoever carries the EXEC out, what the next
/// leader wrote meanwhile aborts it.
#[test]
fn a_watch_outlives_its_leader() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader();
    let watching = cluster.client(old);
    cluster.ask(old, watching, "SET k v; WATCH k; MULTI; SET k mine");
    cluster.cut_off(old);
    let new = cluster.leader();
    assert_ne!(new, old);
    let other = cluster.client(new);
    assert_eq!(cluster.ask(new, other, "SET k theirs"), "+OK");
    // The new one goes away, and the old one, which has caught up by then, leads again.
    cluster.heal();
    cluster.wait(1_000);
    cluster.cut_off(new);
    let third = 3 - old - new;
    for _ in 0..20 {
        let leader = cluster.leader();
        if leader == old {
            break;
        }
        cluster.heal();
        cluster.wait(1_000);
        cluster.cut_off(if leader == third { third } else { new });
    }
    assert_eq!(cluster.leader(), old);
    assert_eq!(cluster.ask(old, watching, "EXEC"), "*-1");
    assert_eq!(cluster.ask(old, watching, "GET k"), "$theirs");
    cluster.heal();
    cluster.assert_equal();
}

/// An EXEC that its leader could not get chosen is not done, and says so.
#[test]
fn an_exec_of_a_deposed_leader_is_settled_by_the_log() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader();
    let client = cluster.client(old);
    cluster.ask(old, client, "SET n 1");
    cluster.cut_off(old);
    cluster.send(old, client, "MULTI; INCR n; INCR n; EXEC");
    cluster.wait(100);
    let new = cluster.leader();
    let other = cluster.client(new);
    assert_eq!(cluster.ask(new, other, "GET n"), "$1");
    assert_eq!(cluster.ask(new, other, "INCR n"), ":2");
    cluster.heal();
    cluster.wait(2_000);
    let replies = cluster.replies(old, client);
    let expected = format!("+OK +QUEUED +QUEUED -MOVED 3432 host{}:7379", new + 1);
    assert_eq!(replies, expected);
    assert_eq!(cluster.ask(new, other, "GET n"), "$2");
    cluster.assert_equal();
}

/// 35, 109: the first reply again from the next leader, after a restart of all, after a snapshot.
#[test]
fn once_is_once_for_every_leader() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader();
    let client = cluster.client(old);
    let opened = cluster.ask(old, client, "ONCE OPEN");
    let session: u64 = opened.trim_start_matches(':').parse().expect("a number");
    let incr = |number: u64| format!("ONCE {session} {number} INCR n");
    assert_eq!(cluster.ask(old, client, &incr(1)), ":1");

    cluster.wait(200);
    cluster.cut_off(old);
    let new = cluster.leader();
    let other = cluster.client(new);
    assert_eq!(cluster.ask(new, other, &format!("{}; {}", incr(1), incr(2))), ":1 :2");
    assert!(cluster.ask(new, other, &incr(9)).starts_with("-ONCEGAP"));

    // The one that was away gets the state as a snapshot.
    cluster.hand_snapshot(new, old);
    cluster.heal();
    cluster.assert_equal();
    for place in 0..3 {
        cluster.restart(place);
    }
    let leader = cluster.leader();
    let client = cluster.client(leader);
    let replies = cluster.ask(leader, client, &format!("{}; {}; GET n", incr(1), incr(2)));
    assert_eq!(replies, ":1 :2 $2");
    cluster.assert_equal();
}

/// 109: of a pipeline whose first command was lost, none of the later ones is carried out out of
/// turn, and sent again all of them are.
#[test]
fn a_pipeline_with_a_hole_is_repeated_whole() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader();
    let client = cluster.client(old);
    let opened = cluster.ask(old, client, "ONCE OPEN");
    let session: u64 = opened.trim_start_matches(':').parse().expect("a number");
    cluster.wait(200);
    cluster.cut_off(old);
    cluster.send(old, client, &format!("ONCE {session} 1 APPEND k a"));
    cluster.wait(50);
    let new = cluster.leader();
    let other = cluster.client(new);
    let rest = format!("ONCE {session} 2 APPEND k b; ONCE {session} 3 APPEND k c");
    let replies = cluster.ask(new, other, &rest);
    assert_eq!(replies.matches("-ONCEGAP").count(), 2, "{replies}");
    cluster.heal();
    cluster.wait(2_000);
    assert!(cluster.replies(old, client).starts_with("-MOVED"), "surely not done");
    let all = format!("ONCE {session} 1 APPEND k a; {rest}; GET k");
    assert_eq!(cluster.ask(new, other, &all), ":1 :2 :3 $abc");
    cluster.assert_equal();
}

/// 107: a leader whose clock is a year off, and then one whose clock is right. Of any quorum the lower
/// median counts, so one clock that is ahead does nothing.
#[test]
fn keys_keep_their_length_with_clocks_a_year_apart() {
    for clocks in [[YEAR_MS, 0, 0], [-YEAR_MS, 0, 0], [0, YEAR_MS, 0], [-YEAR_MS, YEAR_MS, 0]] {
        let mut cluster = Cluster::with_clocks(&clocks);
        for round in 0..4 {
            let leader = cluster.leader();
            let client = cluster.client(leader);
            cluster.ask(leader, client, &format!("SET k{round} v PX 10000"));
            cluster.wait(2_000);
            let left = cluster.ask(leader, client, &format!("PTTL k{round}"));
            let left_ms: u64 = left.trim_start_matches(':').parse().expect("it lives");
            // A gap that is being made up makes it at most a quarter faster.
            assert!((7_400..=8_000).contains(&left_ms), "{left_ms} ms, clocks {clocks:?}");
            cluster.cut_off(leader);
            let next = cluster.leader();
            cluster.heal();
            cluster.wait(300);
            let client = cluster.client(next);
            assert_eq!(cluster.ask(next, client, &format!("GET k{round}")), "$v", "{clocks:?}");
            let leader = cluster.leader();
            let client = cluster.client(leader);
            cluster.wait(12_000);
            assert_eq!(cluster.ask(leader, client, &format!("GET k{round}")), "$-1", "{clocks:?}");
        }
        cluster.assert_equal();
    }
}

/// 107: the first leader's clock is a year behind, and of the two that answered it first the smaller
/// one counts: the log begins a year ago. It dies, and the next two clocks are right: locks and sessions
/// live on, as nobody has been without a leader for a year.
#[test]
fn a_first_leader_a_year_behind_leaves_locks_and_sessions_their_time() {
    let first = Cluster::new(3).leader();
    let mut clocks = [0; 3];
    clocks[first] = -YEAR_MS;
    let mut cluster = Cluster::with_clocks(&clocks);
    let leader = cluster.leader();
    assert_eq!(leader, first, "clocks elect nobody");
    let client = cluster.client(leader);
    let opened = cluster.ask(leader, client, "ONCE OPEN");
    let once = format!("ONCE {} 1 INCR n", opened.trim_start_matches(':'));
    let ask = format!("{once}; SET lock me PX 10000");
    assert!(cluster.ask(leader, client, &ask).starts_with(":1 +OK"));
    let log_ms = cluster.nodes[leader].store.time_ms() as i64;
    assert!(log_ms < 1_700_000_000_000 - YEAR_MS / 2, "it runs by the clock that is behind");
    cluster.wait(1_000);
    cluster.cut_off(leader);
    let next = cluster.leader();
    let client = cluster.client(next);
    let replies = cluster.ask(next, client, &format!("{once}; GET lock; PTTL lock"));
    let left = replies.strip_prefix(":1 $me :").expect("they live");
    let left_ms: u64 = left.parse().expect("a TTL");
    assert!((8_000..=10_000).contains(&left_ms), "{left_ms} ms");
    // And it ends: a quarter sooner at most.
    cluster.wait(left_ms);
    assert_eq!(cluster.ask(next, client, "GET lock"), "$-1");
    cluster.heal();
    cluster.assert_equal();
}

/// 108: a leaderless time does not end the locks of those who could not renew them.
#[test]
fn a_leaderless_gap_expires_no_short_lock_at_once() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader();
    let client = cluster.client(old);
    cluster.ask(old, client, "SET lock me PX 500");
    cluster.wait(100);
    // Nobody reaches anybody for ten seconds.
    for place in 0..3 {
        cluster.cut_off(place);
    }
    cluster.wait(10_000);
    cluster.heal();
    let leader = cluster.leader();
    let client = cluster.client(leader);
    assert_eq!(cluster.ask(leader, client, "GET lock"), "$me");
    cluster.wait(600);
    assert_eq!(cluster.ask(leader, client, "GET lock"), "$-1", "and then its time comes");
}

/// 84: nobody asks, nobody writes, and the key goes on every node.
#[test]
fn an_idle_cluster_expires_its_keys() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let client = cluster.client(leader);
    cluster.ask(leader, client, "SET k v PX 300; SET stays v");
    cluster.wait(2_000);
    for node in &cluster.nodes {
        assert_eq!(node.store.len(), 1);
    }
    cluster.assert_equal();
}

/// `EXPIREAT` counts by the log's time: that of the quorum's clocks when the leader began, so a key
/// goes when they say so, and not with the first clock that is ahead.
#[test]
fn expireat_follows_the_clocks_of_the_quorum() {
    let mut cluster = Cluster::with_clocks(&[0, 0, 0]);
    let leader = cluster.leader();
    let client = cluster.client(leader);
    let wall_ms = 1_700_000_000_000_u64 + 1_000;
    let ask = format!("SET k v; PEXPIREAT k {}; PTTL k", wall_ms + 60_000);
    let replies = cluster.ask(leader, client, &ask);
    let left_ms: u64 =
        replies.rsplit(':').next().and_then(|left| left.parse().ok()).expect("a TTL");
    // Since the beginning not more than an election has passed.
    assert!((50_000..=60_000).contains(&left_ms), "{left_ms}");
    cluster.wait(left_ms + 100);
    assert_eq!(cluster.ask(leader, client, "GET k"), "$-1");
}

/// The same log gives the same bytes, or the one that differs from the others learns of it.
#[test]
fn a_node_whose_state_was_altered_is_outvoted_by_the_others() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let client = cluster.client(leader);
    let write = |cluster: &mut Cluster| {
        for number in 0..150 {
            cluster.ask(leader, client, &format!("SET k{number} v"));
        }
        cluster.wait(100);
        cluster.exchange_states();
    };
    write(&mut cluster);
    assert!(cluster.nodes.iter().all(|node| node.agreement.own().count() > 1));
    assert!(cluster.nodes.iter().all(|node| node.agreement.mismatches() == 0));
    let altered = (leader + 1) % 3;
    let store = &mut cluster.nodes[altered].store;
    let applying = Applying { slot: 1, time_ms: store.time_ms(), seed: 0 };
    store.apply(applying, &[b"SET", b"altered", b"x"]);
    write(&mut cluster);
    // The last one to be heard may have come before the others' states were all there.
    cluster.exchange_states();
    for (place, node) in cluster.nodes.iter().enumerate() {
        assert_eq!(node.agreement.outvoted().is_some(), place == altered, "node {}", place + 1);
        assert!(node.agreement.mismatches() > 0 || place == altered);
    }
}
