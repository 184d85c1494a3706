//! Plans that change the membership, as a person reads them: from whatever is on the hosts and in the
//! log to what is left to do.

mod world;

use std::collections::BTreeMap;

use deploy::facts::{Data, Facts};
use deploy::plan::rules::{self, Rules};
use deploy::plan::{Plan, Wish, member};
use deploy::{Kind, Result};
use monitoring::status::{Ballot, Configuration, Member, MemberRole, NodeStatus, Role};
use world::{UUID, World, identity, text};

const LEADER: u32 = 2;

/// n1 to n3 run and are members; n4 is a bare host that is in the inventory too.
fn serving() -> World {
    let mut world = World::running();
    let n4 = "[[host]]\nname = \"n4\"\nid = 4\naddress = \"10.0.0.14\"\n";
    rewrite(&mut world, |text| text.replace("[[user]]", &format!("{n4}[[user]]")));
    world.facts.insert(4, Facts { arch: "x86_64".to_owned(), ..Facts::default() });
    members(&mut world, &[(1, MemberRole::Voter), (2, MemberRole::Voter), (3, MemberRole::Voter)]);
    world
}

/// Another inventory, of which every host that has anything has a copy.
fn rewrite(world: &mut World, change: impl Fn(&str) -> String) {
    let text = change(&world.inventory.text);
    let folder = std::path::Path::new("/tmp");
    world.inventory =
        hosts::parse(&text, "demo.toml", folder, hosts::Knowledge::default()).unwrap();
    let copy = deploy::digest::of_bytes(text.as_bytes());
    for facts in world.facts.values_mut().filter(|facts| !facts.files.is_empty()) {
        facts.files.insert("inventory.toml".to_owned(), copy.clone());
    }
}

/// Every node that runs says that these are the members.
fn members(world: &mut World, roles: &[(u32, MemberRole)]) {
    let member = |(id, role): &(u32, MemberRole)| Member {
        id: *id,
        name: format!("n{id}"),
        role: *role,
        peer: format!("10.0.0.1{id}:7380"),
        client: format!("10.0.0.1{id}:7379"),
        http: format!("10.0.0.1{id}:7381"),
    };
    let configuration = Configuration {
        number: 5,
        members: roles.iter().map(member).collect(),
        removed: vec![9],
        ..Configuration::default()
    };
    for (id, facts) in world.facts.iter_mut().filter(|(_, facts)| facts.process.is_some()) {
        facts.status = Some(NodeStatus {
            id: *id,
            cluster_uuid: UUID.to_owned(),
            role: if *id == LEADER { Role::Leader } else { Role::Follower },
            leader: Some(LEADER),
            ballot: Ballot { configuration: 5, round: 1, node: LEADER },
            chosen_slot: 100,
            applied_slot: 100,
            can_accept: true,
            configuration: configuration.clone(),
            ..NodeStatus::default()
        });
    }
}

fn stop(world: &mut World, id: u32) {
    world.of(id).process = None;
    world.of(id).status = None;
}

/// n4 as an earlier run left it: formatted, and started.
fn start_n4(world: &mut World) {
    start_n4_as(world, "n4");
}

fn start_n4_as(world: &mut World, name: &str) {
    let mut facts = world.facts[&1].clone();
    facts.data = Data::Identity(identity(4));
    let host = world.inventory.host(name).unwrap();
    let node_toml = deploy::render::node_toml(&world.inventory, host, UUID).unwrap();
    let config = deploy::digest::of_bytes(node_toml.as_bytes());
    facts.files.insert("node.toml".to_owned(), config.clone());
    facts.process.as_mut().unwrap().config = Some(config);
    facts.status = None;
    world.facts.insert(4, facts);
}

fn with<T>(world: &World, ask: impl Fn(&Wish<'_>, &BTreeMap<u32, Facts>) -> T) -> T {
    let wish = Wish {
        inventory: &world.inventory,
        releases: &world.releases,
        fresh_uuid: "",
        skipped: &[],
    };
    ask(&wish, &world.facts)
}

fn add(world: &World, name: &str) -> Result<Plan> {
    with(world, |wish, facts| member::add(wish, facts, name))
}

fn promote(world: &World, name: &str) -> Result<Plan> {
    with(world, |wish, facts| member::promote(wish, facts, name))
}

fn remove(world: &World, name: &str) -> Result<Plan> {
    with(world, |wish, facts| member::remove(wish, facts, name))
}

fn replace(world: &World, old: &str, new: &str) -> Result<Plan> {
    with(world, |wish, facts| member::replace(wish, facts, old, new))
}

#[track_caller]
fn refuses(outcome: Result<Plan>, kind: Kind, words: &[&str]) {
    let error = outcome.expect_err("it is refused");
    assert_eq!(error.kind, kind, "{error}");
    let said = format!("{error} {}", error.hint.as_deref().unwrap_or_default());
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

#[test]
fn a_bare_host_becomes_a_voter() {
    insta::assert_snapshot!(text(&add(&serving(), "n4").unwrap()), @r"
    + n4  (voter, id 4)
        + copy release aaaaaaaaaaaa (1.0 MiB)
        + write node.toml
        + set current to aaaaaaaaaaaa
        + format the data folder: identity and key, once ever
        + write members.toml: the members as they are now
        + start the node
        + make it a learner
        ~ wait until it has caught up
        + make it a voter
        ~ leave a copy of the inventory
    Plan: voters n1, n2, n3 become n1, n2, n3, n4; 4 can lose 1. Quorum kept at every step.
    ");
}

/// Whatever an earlier run has done is not done again.
#[test]
fn a_run_that_broke_off_leaves_the_rest() {
    let mut world = serving();
    start_n4(&mut world);
    insta::assert_snapshot!(text(&add(&world, "n4").unwrap()), @r"
    + n4  (voter, id 4)
        + make it a learner
        ~ wait until it has caught up
        + make it a voter
    Plan: voters n1, n2, n3 become n1, n2, n3, n4; 4 can lose 1. Quorum kept at every step.
    ");
    let voter = MemberRole::Voter;
    members(&mut world, &[(1, voter), (2, voter), (3, voter), (4, MemberRole::Learner)]);
    insta::assert_snapshot!(text(&add(&world, "n4").unwrap()), @r"
    ~ n4  (voter, id 4)
        + make it a voter
    Plan: voters n1, n2, n3 become n1, n2, n3, n4; 4 can lose 1. Quorum kept at every step.
    ");
    members(&mut world, &[(1, voter), (2, voter), (3, voter), (4, voter)]);
    insta::assert_snapshot!(text(&add(&world, "n4").unwrap()), @r"
    No changes. The voters are n1, n2, n3, n4.
    ");
}

#[test]
fn one_takes_the_place_of_another() {
    let mut world = serving();
    stop(&mut world, 3);
    insta::assert_snapshot!(text(&replace(&world, "n3", "n4").unwrap()), @r"
    + n4  (voter, id 4)
        + copy release aaaaaaaaaaaa (1.0 MiB)
        + write node.toml
        + set current to aaaaaaaaaaaa
        + format the data folder: identity and key, once ever
        + write members.toml: the members as they are now
        + start the node
        + make it a learner
        ~ wait until it has caught up
        + make it a voter in place of n3 (id 3), in one step
        ~ leave a copy of the inventory
    - n3  (voter, id 3)
        - see that it has stopped and left its tombstone
    Plan: voters n1, n2, n3 become n1, n2, n4; 3 can lose 1. Quorum kept at every step.
    ");
    insta::assert_snapshot!(text(&remove(&world, "n3").unwrap()), @r"
    - n3  (voter, id 3)
        - take it out of the membership, for good
        - see that it has stopped and left its tombstone
    Plan: voters n1, n2, n3 become n1, n2; 2 can lose 0. Quorum kept at every step.
    ");
    let world = serving();
    insta::assert_snapshot!(text(&remove(&world, "n2").unwrap()), @r"
    - n2  (voter, id 2)
        - take it out of the membership, for good
        - see that it has stopped and left its tombstone
    ! n2 leads: it hands leadership over first
    Plan: voters n1, n2, n3 become n1, n3; 2 can lose 0. Quorum kept at every step.
    ");
}

/// The machine of n3 is to be n4, and what was n3 still runs there, its disk wiped beneath it.
#[test]
fn a_machine_under_a_new_id_stops_its_former_node_first() {
    let mut world = serving();
    rewrite(&mut world, |text| {
        let n4 = "[[host]]\nname = \"n4\"\nid = 4\naddress = \"10.0.0.14\"\n";
        let text = text.replace(n4, "");
        text.replace("name = \"n3\"\nid = 3\n", "name = \"n4\"\nid = 4\n")
    });
    let mut wiped = world.facts.remove(&3).unwrap();
    wiped.data = Data::Blank;
    world.facts.insert(4, wiped);
    insta::assert_snapshot!(text(&replace(&world, "n3", "n4").unwrap()), @r"
    + n4  (voter, id 4)
        - stop process 103, which is another node
        ~ rewrite node.toml
        + format the data folder: identity and key, once ever
        + write members.toml: the members as they are now
        + start the node
        + make it a learner
        ~ wait until it has caught up
        + make it a voter in place of n3 (id 3), in one step
    Plan: voters n1, n2, n3 become n1, n2, n4; 3 can lose 1. Quorum kept at every step.
    ");
    refuses(add(&world, "n4"), Kind::Guard, &["same address", "member replace n3 n4"]);
    // With its data still there, nothing is touched.
    world.of(4).data = Data::Identity(identity(3));
    let words = ["node id 3", "member remove n3", "mv /var/lib/paxos"];
    refuses(replace(&world, "n3", "n4"), Kind::Guard, &words);
}

/// Nothing is to be done by `up`, and still the cluster is not as the inventory says.
#[test]
fn a_plan_without_steps_differs_where_the_membership_does() {
    let mut world = serving();
    let plan = world.plan().unwrap();
    assert!(plan.is_empty() && plan.differs(), "{:?}", plan.notes);
    assert!(plan.notes[0].contains("`paxosctl member add n4`"), "{:?}", plan.notes);
    rewrite(&mut world, |text| {
        text.replace("[[host]]\nname = \"n4\"\nid = 4\naddress = \"10.0.0.14\"\n", "")
    });
    world.facts.remove(&4);
    let plan = world.plan().unwrap();
    assert!(plan.is_empty() && !plan.differs(), "{:?}", plan.notes);
}

/// Names are as unique as addresses: n3 under a new id comes in its own place, or not at all.
#[test]
fn a_second_member_with_a_taken_name_comes_only_in_the_place_of_the_first() {
    let mut world = serving();
    stop(&mut world, 3);
    // Another machine, called n3 as well; and one at the addresses of n3 that clients and pages use.
    rewrite(&mut world, |text| {
        let n4 = "[[host]]\nname = \"n4\"\nid = 4\n";
        let n3 = "[[host]]\nname = \"n3\"\nid = 3\naddress = \"10.0.0.13\"\n";
        text.replace(n3, "").replace(n4, "[[host]]\nname = \"n3\"\nid = 4\n")
    });
    world.facts.remove(&3);
    refuses(add(&world, "n3"), Kind::Guard, &["id 4", "n3 (id 3)", "member replace n3 n3"]);
    refuses(replace(&world, "n1", "n3"), Kind::Guard, &["id 4", "n3 (id 3)", "called the same"]);
    let plan = text(&replace(&world, "n3", "n3").unwrap());
    assert!(plan.contains("make it a voter in place of n3 (id 3), in one step"), "{plan}");

    // A run that broke off behind `make it a learner` is not finished as something else.
    let voter = MemberRole::Voter;
    start_n4_as(&mut world, "n3");
    members(&mut world, &[(1, voter), (2, voter), (3, voter), (4, MemberRole::Learner)]);
    refuses(promote(&world, "n3"), Kind::Guard, &["id 4", "n3 (id 3)", "member replace n3 n3"]);

    let mut world = serving();
    rewrite(&mut world, |text| {
        let n3 = "[[host]]\nname = \"n3\"\nid = 3\naddress = \"10.0.0.13\"\n";
        let n4 = "id = 4\naddress = \"10.0.0.14\"\n";
        let beside_n3 = "id = 4\naddress = \"10.0.0.13\"\npeer_port = 7390\nhttp_port = 7391\n";
        text.replace(n3, "").replace(n4, beside_n3)
    });
    world.facts.remove(&3);
    refuses(add(&world, "n4"), Kind::Guard, &["same client address, 10.0.0.13:7379", "n3 (id 3)"]);
}

#[test]
fn what_would_do_harm_is_refused_with_the_way_out() {
    let world = serving();
    refuses(add(&world, "n5"), Kind::Usage, &["[[host]]", "name = \"n5\"", "id = 10"]);
    refuses(remove(&world, "n5"), Kind::Usage, &["n3 (id 3)"]);
    refuses(remove(&world, "n4"), Kind::Usage, &["never was a member"]);
    refuses(replace(&world, "n1", "n2"), Kind::Usage, &["votes already", "member remove n1"]);

    let mut world = serving();
    world.of(4).data = Data::Unread { files: 7 };
    refuses(add(&world, "n4"), Kind::Guard, &["7 files", "mv /var/lib/paxos"]);
    world.of(4).data =
        Data::Identity(deploy::facts::Identity { cluster_uuid: "ff".to_owned(), ..identity(4) });
    refuses(add(&world, "n4"), Kind::Guard, &["cluster ff"]);
    world.of(4).data = Data::Identity(identity(4));
    world.of(4).is_removed = true;
    refuses(add(&world, "n4"), Kind::Usage, &["never used again", "id = 10"]);

    // A member whose disk is gone comes back as another one.
    let mut world = serving();
    stop(&mut world, 3);
    world.of(3).data = Data::Blank;
    refuses(add(&world, "n3"), Kind::Guard, &["disk was lost", "member replace n3 n10"]);

    // With n3 down, no other voter may leave; nobody can do anything without a leader.
    refuses(remove(&world, "n1"), Kind::Guard, &["n3 is down", "leaves 1 caught-up voter of 2"]);
    add(&world, "n4").unwrap();
    stop(&mut world, 2);
    for id in [1, 3] {
        if let Some(status) = &mut world.of(id).status {
            status.leader = None;
        }
    }
    refuses(add(&world, "n4"), Kind::Unavailable, &["no node leads", "paxosctl up"]);
}

fn rules(world: &World, asked: Rules) -> Result<Plan> {
    with(world, |wish, facts| rules::change(wish, facts, asked))
}

/// One question to whoever leads, nothing where they rule already; and a store version that a member
/// cannot do, or that is lower, is refused before anything is asked.
#[test]
fn other_rules_are_one_question_to_the_leader() {
    let mut world = serving();
    for facts in world.facts.values_mut().filter_map(|facts| facts.status.as_mut()) {
        let configuration = &mut facts.configuration;
        (configuration.lease_ms, configuration.drift_percent) = (Some(100), Some(20));
        configuration.store_version = 2;
        facts.store_version_newest = if facts.id == 3 { 3 } else { 4 };
    }
    let asked = Rules { lease_ms: Some(80), drift_percent: Some(10), store_version: Some(3) };
    let plan = rules(&world, asked).unwrap();
    assert_eq!(
        plan.lines(),
        [
            "~ n2  (voter, id 2)",
            "    ~ let these rules rule: leases of 80 ms, drift of 10 %, store version 3",
            "! a drift below 20 % is safe only where no clock is slewed by NTP: else a deposed leader \
             may serve old reads",
            "! a store version is never lowered: no member can go back to a release that cannot do it",
        ]
    );
    let words = ["--lease-ms", "80", "--drift-percent", "10", "--store-version", "3"];
    assert_eq!(asked.words(), words);
    let same = Rules { lease_ms: Some(100), store_version: Some(2), ..Rules::default() };
    assert!(rules(&world, same).unwrap().is_empty());

    let store = |version| Rules { store_version: Some(version), ..Rules::default() };
    let error = rules(&world, store(1)).unwrap_err();
    assert!(
        error.to_string().contains("store version 2 rules, and it is never lowered"),
        "{error}"
    );
    let error = rules(&world, store(4)).unwrap_err();
    assert_eq!((error.kind, error.host.as_deref()), (Kind::Guard, Some("n3")));
    assert!(error.to_string().contains("can do store versions up to 3, and 4"), "{error}");
    stop(&mut world, 1);
    let error = rules(&world, store(3)).unwrap_err();
    assert_eq!(error.host.as_deref(), Some("n1"));
    assert!(error.to_string().contains("does not answer"), "{error}");
    stop(&mut world, LEADER);
    assert_eq!(rules(&world, same).unwrap_err().kind, Kind::Unavailable);
}
