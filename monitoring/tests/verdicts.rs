//! What `status` says about clusters in every condition. Each case is a golden file, named after
//! what it shows: the first line, the table, the hints, the exit code.

use monitoring::reading::{Failure, Reading, Sample, Target, Via};
use monitoring::status::{
    Ballot, Configuration, Member, MemberRole, NodeStatus, Peer, Role, StateHash,
};
use monitoring::verdict::{ClusterStatus, Expectations, Verdict, judge};

const LEADER: u32 = 2;

/// A healthy cluster of `count` voters led by n2.
fn cluster(count: u32) -> Vec<Sample> {
    (1..=count).map(|id| sample(id, count)).collect()
}

fn sample(id: u32, count: u32) -> Sample {
    let member = |id: u32| Member {
        id,
        name: format!("n{id}"),
        role: MemberRole::Voter,
        peer: format!("10.0.0.{id}:7380"),
        client: format!("10.0.0.{id}:7379"),
        http: format!("10.0.0.{id}:7381"),
    };
    let peer = |peer: u32| Peer {
        id: peer,
        name: format!("n{peer}"),
        connected: true,
        rtt_us: Some(400),
        acked_slot: 1_203_918,
        lag_slots: 0,
        lag_ms: 0,
    };
    let status = NodeStatus {
        schema_version: 1,
        cluster: "demo".into(),
        cluster_uuid: "c0ffee".into(),
        name: format!("n{id}"),
        id,
        version: "0.4.1".into(),
        role: if id == LEADER { Role::Leader } else { Role::Follower },
        leader: Some(LEADER),
        leader_contact_ms: Some(12),
        leader_for_ms: Some(15_120_000),
        leader_changes: 3,
        ballot: Ballot { configuration: 0, round: 7, node: LEADER },
        configuration: Configuration {
            number: 0,
            members: (1..=count).map(member).collect(),
            ..Configuration::default()
        },
        first_unchosen: 1_203_919,
        chosen_slot: 1_203_918,
        applied_slot: 1_203_918,
        highest_known_slot: 1_203_918,
        peers: (1..=count).filter(|other| *other != id).map(peer).collect(),
        can_accept: true,
        disk_free_bytes: 82,
        disk_total_bytes: 100,
        sync_p99_us: Some(2_100),
        state_hashes: vec![StateHash { slot: 1_200_000, hash: "aa".repeat(16) }],
        ..NodeStatus::default()
    };
    let target = Target {
        node: format!("n{id}"),
        id,
        host: format!("10.0.0.{id}"),
        http: format!("10.0.0.{id}:7381"),
    };
    Sample { target, outcome: Ok(Reading { status, via: Via::Http }) }
}

fn status(samples: &mut [Sample], id: u32) -> &mut NodeStatus {
    let sample = samples.iter_mut().find(|sample| sample.target.id == id).unwrap();
    &mut sample.outcome.as_mut().unwrap().status
}

fn peer(samples: &mut [Sample], of: u32, id: u32) -> &mut Peer {
    status(samples, of).peers.iter_mut().find(|peer| peer.id == id).unwrap()
}

/// `id` died: it does not answer, and its peers have lost it.
fn kill(samples: &mut [Sample], id: u32) {
    unreadable(samples, id);
    for sample in samples.iter_mut() {
        if let Ok(reading) = &mut sample.outcome {
            for peer in reading.status.peers.iter_mut().filter(|peer| peer.id == id) {
                peer.connected = false;
            }
        }
    }
}

/// `id` does not answer us.
fn unreadable(samples: &mut [Sample], id: u32) {
    let sample = samples.iter_mut().find(|sample| sample.target.id == id).unwrap();
    let text = format!("{}: connection refused", sample.target.http);
    sample.outcome = Err(Failure::Refused(text));
}

/// The leader died and nobody has followed yet.
fn leaderless(samples: &mut [Sample]) {
    kill(samples, LEADER);
    for id in [1, 3] {
        let status = status(samples, id);
        status.leader = None;
        status.role = Role::Candidate;
    }
}

fn judged(samples: &[Sample]) -> ClusterStatus {
    judge(samples, &Expectations { cluster: "demo".into(), ..Expectations::default() })
}

fn text(status: &ClusterStatus) -> String {
    let mut lines = vec![status.headline()];
    lines.extend(status.rows.iter().map(|row| row.cells().join("  ")));
    lines.extend(status.hints.iter().map(|hint| format!("hint: {hint}")));
    lines.push(format!("exit {}", status.verdict.exit_code()));
    lines.join("\n")
}

macro_rules! golden {
    ($($(#[$doc:meta])* $name:ident: $count:literal, $change:expr;)*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                let mut samples = cluster($count);
                let change: fn(&mut Vec<Sample>) = $change;
                change(&mut samples);
                insta::assert_snapshot!(stringify!($name), text(&judged(&samples)));
            }
        )*
    };
}

golden! {
    all_is_well: 3, |_| {};
    five_nodes_can_lose_two: 5, |_| {};
    a_dead_follower_takes_the_headroom: 3, |s| kill(s, 3);
    /// PITFALLS 51: a follower shown ahead of the leader.
    a_follower_ahead_of_the_leaders_sample_has_no_lag: 3, |s| {
        status(s, 1).chosen_slot += 500;
        status(s, 1).applied_slot += 500;
    };
    sampling_skew_is_no_lag_when_the_leader_has_the_acknowledgement: 3, |s| {
        status(s, 3).chosen_slot -= 300;
        peer(s, LEADER, 3).lag_slots = 2;
        peer(s, LEADER, 3).lag_ms = 1;
    };
    a_follower_far_behind_is_no_redundancy: 3, |s| {
        status(s, 3).chosen_slot -= 4_812;
        status(s, 3).applied_slot -= 4_900;
        peer(s, LEADER, 3).lag_slots = 4_812;
        peer(s, LEADER, 3).lag_ms = 61_000;
    };
    a_dead_leader_without_a_successor: 3, |s| leaderless(s);
    a_minority_is_unavailable: 3, |s| {
        leaderless(s);
        kill(s, 3);
    };
    nobody_answers: 3, |s| (1..=3).for_each(|id| kill(s, id));
    a_leader_that_chooses_nothing_is_not_available: 3, |s| {
        for id in [1, 3] {
            kill(s, id);
        }
        status(s, LEADER).stalled_ms = 4_000;
        status(s, LEADER).proposals_pending = 9;
    };
    only_the_leader_can_be_read_and_vouches_for_the_others: 3, |s| {
        unreadable(s, 1);
        unreadable(s, 3);
    };
    the_leader_cannot_be_read_but_a_quorum_follows_it: 3, |s| unreadable(s, LEADER);
    followers_that_lost_a_dead_leader_a_while_ago_do_not_count: 3, |s| {
        kill(s, LEADER);
        for id in [1, 3] {
            status(s, id).leader_contact_ms = Some(1_400);
        }
    };
    two_leaders_of_different_ballots_are_a_nuisance: 3, |s| {
        status(s, 1).role = Role::Leader;
        status(s, 1).leader = Some(1);
        status(s, 1).ballot = Ballot { configuration: 0, round: 6, node: 1 };
    };
    two_leaders_of_one_ballot_are_a_violation: 3, |s| status(s, 1).role = Role::Leader;
    unequal_state_at_one_slot_is_divergence: 3, |s| {
        status(s, 3).state_hashes[0].hash = "bb".repeat(16);
    };
    unequal_state_at_different_slots_says_nothing: 3, |s| {
        status(s, 3).state_hashes[0] = StateHash { slot: 1_190_000, hash: "bb".repeat(16) };
    };
    one_common_slot_among_several_is_enough: 3, |s| {
        let hash = |slot, hash: &str| StateHash { slot, hash: hash.repeat(16) };
        status(s, 3).state_hashes = vec![hash(1_200_000, "bb"), hash(1_210_000, "cc")];
    };
    a_full_disk_is_no_redundancy: 3, |s| {
        status(s, 1).can_accept = false;
        status(s, 1).can_accept_reason = Some("disk full".into());
        status(s, 1).disk_free_bytes = 0;
    };
    another_version_is_drift: 3, |s| status(s, 3).version = "0.4.0".into();
    a_learner_that_catches_up_is_no_degradation: 4, |s| {
        for id in 1..=4 {
            status(s, id).configuration.members[3].role = MemberRole::Learner;
        }
        status(s, 4).role = Role::Learner;
        status(s, 4).chosen_slot -= 100_000;
        peer(s, LEADER, 4).lag_slots = 100_000;
    };
    a_removed_node_that_still_runs: 3, |s| {
        for id in 1..=2 {
            status(s, id).configuration.number = 1;
            status(s, id).configuration.members.pop();
            status(s, id).configuration.removed = vec![3];
        }
    };
    /// What is in the inventory only takes nothing from the redundancy of the members.
    a_host_that_is_no_member_yet: 4, |s| {
        for id in 1..=4 {
            status(s, id).configuration.members.pop();
        }
        for id in 1..=3 {
            status(s, id).peers.retain(|peer| peer.id != 4);
        }
        kill(s, 4);
    };
    a_removed_node_that_has_stopped: 4, |s| {
        for id in 1..=4 {
            status(s, id).configuration.members.pop();
            status(s, id).configuration.removed = vec![4];
        }
        for id in 1..=3 {
            status(s, id).peers.retain(|peer| peer.id != 4);
        }
        kill(s, 4);
    };
    a_node_of_another_cluster_in_its_place: 3, |s| {
        status(s, 3).cluster_uuid = "0ddba11".into();
        status(s, 3).cluster = "other".into();
    };
    a_member_that_the_inventory_lacks: 3, |s| { s.remove(0); };
    /// PITFALLS 87: a dead core in a living process.
    a_leader_whose_core_does_not_turn: 3, |s| status(s, LEADER).age_ms = 5_000;
    a_recovering_node: 3, |s| {
        kill(s, 3);
        s[2].outcome =
            Err(Failure::Recovering("10.0.0.3:7381: no status yet: recovering".into()));
    };
    insecure_settings_are_named: 3, |s| {
        status(s, 1).insecure = vec!["clients=open".into()];
        status(s, 2).insecure = vec!["clients=open".into(), "peers=plain".into()];
    };
}

#[test]
fn the_version_that_the_inventory_names_is_the_measure() {
    let samples = cluster(3);
    let expect = Expectations { version: Some("0.5.0".into()), ..Expectations::default() };
    let status = judge(&samples, &expect);
    assert!(status.rows.iter().all(|row| row.version_drift));
    assert!(status.hints[0].ends_with("the inventory says 0.5.0: paxosctl plan"));
}

/// Whoever could not follow a raise of the store's version is named: before it, and after.
#[test]
fn a_member_that_cannot_do_a_store_version_is_named() {
    let mut samples = cluster(3);
    for id in 1..=3 {
        status(&mut samples, id).configuration.store_version = 1;
        status(&mut samples, id).store_version_newest = 1;
    }
    assert_eq!(judged(&samples).hints, Vec::<String>::new());
    for id in 1..=2 {
        status(&mut samples, id).store_version_newest = 2;
    }
    // One of a release that does not say stands for one of the first version.
    for newest in [1, 0] {
        status(&mut samples, 3).store_version_newest = newest;
        let judged = judged(&samples);
        let hint = "n3 can do store versions up to 1, others up to 2: it could not follow a raise";
        assert!(judged.hints.len() == 1 && judged.hints[0].starts_with(hint), "{:?}", judged.hints);
        assert_eq!(judged.verdict, Verdict::Healthy);
    }
    status(&mut samples, 1).configuration.number = 1;
    status(&mut samples, 1).configuration.store_version = 2;
    let hints = judged(&samples).hints;
    let hint = "n3 can do store versions up to 1, 2 rules: it applies nothing more";
    assert!(hints.len() == 1 && hints[0].starts_with(hint), "{hints:?}");
    // A host that is no member holds nobody up.
    for id in 1..=3 {
        let configuration = &mut status(&mut samples, id).configuration;
        configuration.members.retain(|member| member.id != 3);
    }
    let hints = judged(&samples).hints;
    assert!(hints.iter().all(|hint| !hint.contains("store versions")), "{hints:?}");
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let codes = [Verdict::Healthy, Verdict::Degraded, Verdict::Unavailable, Verdict::Divergent]
        .map(Verdict::exit_code);
    assert_eq!(codes, [0, 12, 5, 6]);
}

#[test]
fn json_keeps_large_numbers_and_reads_back() {
    let status = judged(&cluster(3));
    let json = serde_json::to_string(&status).unwrap();
    assert!(json.contains("\"verdict\":\"healthy\"") && json.contains("\"1203918\""), "{json}");
    assert_eq!(serde_json::from_str::<ClusterStatus>(&json).unwrap(), status);
}
