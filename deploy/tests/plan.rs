//! Plans as a person reads them, from hosts in many states. No host is touched.

mod world;

use std::collections::BTreeMap;

use deploy::digest;
use deploy::facts::{Data, Facts, Identity};
use deploy::plan::{self, Former, Quorum};
use world::{UUID, World, identity, refused, text};

#[test]
fn a_first_up_formats_each_node_once() {
    let plan = World::new().plan().unwrap();
    insta::assert_snapshot!(text(&plan), @r"
    + n1  (voter, id 1)
        + copy release aaaaaaaaaaaa (1.0 MiB)
        + set current to aaaaaaaaaaaa
        + write node.toml
        + format the data folder: identity and key, once ever
        + write members.toml
        + start the node
        ~ leave a copy of the inventory
    + n2  (voter, id 2)
        + copy release aaaaaaaaaaaa (1.0 MiB)
        + set current to aaaaaaaaaaaa
        + write node.toml
        + format the data folder: identity and key, once ever
        + write members.toml
        + start the node
        ~ leave a copy of the inventory
    + n3  (voter, id 3)
        + copy release aaaaaaaaaaaa (1.0 MiB)
        + set current to aaaaaaaaaaaa
        + write node.toml
        + format the data folder: identity and key, once ever
        + write members.toml
        + start the node
        ~ leave a copy of the inventory
    Plan: 0 updates, 3 add, 0 remove, 0 restarts, 0 leader moves.
    ");
}

#[test]
fn a_converged_cluster_has_no_changes() {
    let plan = World::running().plan().unwrap();
    assert!(plan.is_empty());
    assert_eq!(text(&plan), "No changes. The hosts match the inventory.");
}

#[test]
fn a_killed_node_is_only_started() {
    let mut world = World::running();
    world.of(2).process = None;
    insta::assert_snapshot!(text(&world.plan().unwrap()), @r"
    ~ n2  (voter, id 2)
        + start the node
    Plan: 1 update, 0 add, 0 remove, 0 restarts, 0 leader moves.
    ");
}

#[test]
fn pitfall_96_what_counts_is_the_program_that_runs() {
    let mut world = World::running();
    world.of(3).process.as_mut().unwrap().digest = "b".repeat(64);
    insta::assert_snapshot!(text(&world.plan().unwrap()), @r"
    ~ n3  (voter, id 3)
        ~ restart the node: runs release bbbbbbbbbbbb, wanted aaaaaaaaaaaa
    Plan: 1 update, 0 add, 0 remove, 1 restart, 0 leader moves. Quorum kept at every step (min 2 of 3 up).
    ");
}

#[test]
fn pitfall_90_a_first_up_that_broke_off_goes_on() {
    // Two nodes were formatted, no membership was written: the third may still be formatted.
    let mut world = World::running();
    for id in [1, 2, 3] {
        world.of(id).files.remove("members.toml");
        world.of(id).process = None;
    }
    world.of(3).data = Data::Blank;
    insta::assert_snapshot!(text(&world.plan().unwrap()), @r"
    ~ n1  (voter, id 1)
        + write members.toml
        + start the node
    ~ n2  (voter, id 2)
        + write members.toml
        + start the node
    + n3  (voter, id 3)
        + format the data folder: identity and key, once ever
        + write members.toml
        + start the node
    Plan: 2 updates, 1 add, 0 remove, 0 restarts, 0 leader moves.
    ");
}

#[test]
fn pitfall_90_a_config_written_but_never_started_is_seen() {
    let mut world = World::running();
    world.of(1).process.as_mut().unwrap().config = Some("c".repeat(64));
    insta::assert_snapshot!(text(&world.plan().unwrap()), @r"
    ~ n1  (voter, id 1)
        ~ restart the node: runs with an older node.toml
    Plan: 1 update, 0 add, 0 remove, 1 restart, 0 leader moves. Quorum kept at every step (min 2 of 3 up).
    ");
}

/// The way back is what runs: a run that broke off may have changed link and file already.
#[test]
fn pitfall_90_a_node_would_go_back_to_what_it_runs() {
    let (runs, config) = ("b".repeat(64), "c".repeat(64));
    let mut world = World::running();
    let process = world.of(1).process.as_mut().unwrap();
    process.digest = runs;
    process.config = Some(config.clone());
    let former = |world: &World| world.plan().unwrap().hosts[0].former.clone().unwrap();
    // `current` and `node.toml` are new; the release that runs has been swept out, or is still there.
    assert_eq!(former(&world), Former { release: None, config: Some(config.clone()) });
    world.of(1).releases.push("b".repeat(12));
    assert_eq!(former(&world), Former { release: Some("b".repeat(12)), config: Some(config) });
    assert_eq!(World::new().plan().unwrap().hosts[0].former, None);
}

/// Asked twice, before the question and under the lock: only what was shown is done, but somebody
/// else may have done a part of it.
#[test]
fn a_plan_goes_beyond_another_by_any_step_that_was_not_shown() {
    let mut world = World::running();
    world.of(2).process = None;
    let hosts: Vec<&hosts::Host> = world.inventory.hosts.iter().collect();
    let down = |facts: &BTreeMap<u32, Facts>| {
        plan::down(&world.inventory, &hosts, facts, Quorum::Keep, false).unwrap()
    };
    let shown = down(&world.facts);
    let mut fewer = world.facts.clone();
    fewer.get_mut(&1).unwrap().process = None;
    assert!(!down(&fewer).goes_beyond(&shown));
    let mut more = world.facts.clone();
    more.get_mut(&2).unwrap().process = World::running().of(2).process.clone();
    assert!(down(&more).goes_beyond(&shown));
    // The guard is asked about what `up` restarts, unless there is no way to keep the quorum.
    assert_eq!(World::running().plan().unwrap().quorum, Quorum::Keep);
}

#[test]
fn a_node_that_lost_its_disk_is_never_formatted_again() {
    let mut world = World::running();
    world.of(2).data = Data::Blank;
    world.of(2).process = None;
    refused(&world, &["n2", "no identity", "n1 has begun"], "member replace");
}

#[test]
fn a_wipe_that_broke_off_is_finished_not_guessed() {
    let mut world = World::running();
    for id in [1, 2, 3] {
        world.of(id).process = None;
        world.of(id).files.insert("wiping".to_owned(), digest::of_bytes(b""));
    }
    world.of(1).data = Data::Blank;
    world.of(1).files.clear();
    refused(&world, &["a wipe"], "down --wipe");
}

#[test]
fn foreign_and_unreadable_data_is_refused() {
    let mut world = World::running();
    world.of(2).data = Data::Unread { files: 7 };
    refused(&world, &["n2", "7 files"], "move them away");

    let mut world = World::running();
    world.of(2).data = Data::Broken { said: "identity: bad checksum at byte 12".to_owned() };
    refused(&world, &["n2", "bad checksum at byte 12"], "nothing was touched");

    let mut world = World::running();
    world.of(3).data = Data::Identity(Identity { cluster_uuid: "ff".to_owned(), ..identity(3) });
    refused(&world, &["n3", "cluster ff", UUID], "data_dir of its own");

    let mut world = World::running();
    world.of(3).data = Data::Identity(identity(9));
    refused(&world, &["n3", "node id 9"], "data_dir of its own");
}

#[test]
fn pitfall_52_a_wipe_removes_only_what_is_known_to_be_ours() {
    let world = World::running();
    let hosts: Vec<&hosts::Host> = world.inventory.hosts.iter().collect();
    let down = |facts: &BTreeMap<u32, Facts>, wipe| {
        plan::down(&world.inventory, &hosts, facts, Quorum::MayGo, wipe)
    };
    let plan = down(&world.facts, true).unwrap();
    assert_eq!(plan.summary(), "Plan: 3 to stop, the data of 3 to remove for good.");
    let foreign = Identity { cluster_uuid: "ff".to_owned(), ..identity(2) };
    for data in [Data::Unread { files: 3 }, Data::Identity(foreign)] {
        let mut facts = world.facts.clone();
        facts.get_mut(&2).unwrap().data = data;
        let refused = down(&facts, true).unwrap_err();
        assert_eq!((refused.kind, refused.host.as_deref()), (deploy::Kind::Guard, Some("n2")));
        // Stopping touches no data.
        down(&facts, false).unwrap();
    }
}

#[test]
fn a_binary_for_another_machine_is_found_before_it_is_copied() {
    let mut world = World::new();
    world.of(2).arch = "aarch64".to_owned();
    refused(&world, &["n2", "aarch64", "x86_64 only"], "binary.aarch64");
}

#[test]
fn pitfall_49_the_live_membership_is_compared_with_the_inventory() {
    use monitoring::status::{Configuration, Member, MemberRole, NodeStatus};
    let member = |id: u32, role| Member {
        id,
        name: format!("n{id}"),
        role,
        peer: format!("10.0.0.1{id}:7380"),
        client: String::new(),
        http: String::new(),
    };
    let mut world = World::running();
    let members = vec![
        member(1, MemberRole::Voter),
        member(2, MemberRole::Learner),
        member(4, MemberRole::Voter),
    ];
    let configuration = Configuration { number: 3, members, ..Configuration::default() };
    world.of(1).status = Some(NodeStatus { configuration, ..NodeStatus::default() });
    insta::assert_snapshot!(world.plan().unwrap().lines().join("\n"), @r"
    ! n2 is a learner in the cluster, a voter in the inventory: `paxosctl member promote n2`
    ! n3 (id 3) is in the inventory, but no member of the cluster: `paxosctl member add n3`
    ! n4 (id 4) is a member of the cluster, but not in the inventory: write its [[host]] there, or `paxosctl member remove n4`
    ");
}

#[test]
fn an_unreachable_host_is_left_out_but_a_cluster_begins_with_all() {
    let mut world = World::running();
    world.facts.remove(&3);
    world.of(2).process = None;
    insta::assert_snapshot!(text(&world.plan_without(&[3]).unwrap()), @r"
    ~ n2  (voter, id 2)
        + start the node
    Plan: 1 update, 0 add, 0 remove, 0 restarts, 0 leader moves.
    ");
    let mut world = World::new();
    world.facts.remove(&3);
    let error = world.plan_without(&[3]).unwrap_err();
    assert_eq!((error.kind, error.host.as_deref()), (deploy::Kind::Guard, Some("n3")));
}

#[test]
fn a_saved_plan_knows_what_has_moved_since() {
    let mut world = World::running();
    let saved = world.plan().unwrap().pins;
    assert!(world.plan().unwrap().moved_since(&saved).is_empty());
    world.of(2).process = None;
    world.inventory.text.push('\n');
    let moved = world.plan().unwrap().moved_since(&saved);
    assert_eq!(moved, ["host n2", "inventory"]);
}

#[test]
fn same_facts_same_plan() {
    let world = World::new();
    let (one, two) = (world.plan().unwrap(), world.plan().unwrap());
    assert_eq!(serde_json::to_string(&one).unwrap(), serde_json::to_string(&two).unwrap());
}
