//! Golden scenarios: each file in `scripts/` is one story, named after what it shows. The recorded
//! answers are part of the file; `UPDATE_SCRIPTS=1` writes them anew, to be read as a diff: keep a
//! changed answer only if you know why it changed.

mod harness;

use harness::script::{parse, play, write};

/// The shortest schedules that break the protocol without one of its rules, as an exhaustive search
/// found them before anything was built; those of the leases by the search's own names.
const SCHEDULES: [(&str, &str); 36] = [
    ("w1", "w1_outvoted_leader_gives_no_hint"),
    ("w2", "w2_outvoted_leader_and_learner"),
    ("a", "a_configuration_outranks_the_round"),
    ("b", "b_chosen_in_order_under_a_pending_configuration"),
    ("c-leader", "c_leaders_tally_is_void"),
    ("c-candidate", "c_candidate_of_the_old_configuration_ends"),
    ("d", "d_nothing_is_proposed_above_an_adopted_configuration"),
    ("e", "e_configuration_waits_until_nothing_is_open"),
    ("e2", "e2_nothing_is_proposed_above_a_configuration"),
    ("f", "f_ballot_never_used_again"),
    ("g", "g_hint_across_ballots_proves_nothing"),
    ("h1", "h1_phase_1_by_the_new_configuration"),
    ("h2", "h2_a_new_phase_1_after_a_change"),
    ("l", "l_no_promise_in_an_unknown_configuration"),
    ("arr", "lease_counted_from_the_sending"),
    ("ownq", "lease_own_candidacy_waits"),
    ("forget", "lease_restarted_granter_is_bound"),
    ("chkread", "lease_checked_after_the_read"),
    ("drift", "lease_drift_at_the_bound"),
    ("relkeep, relrenew", "lease_ends_with_the_release"),
    ("relany", "lease_release_names_one_ballot"),
    ("nonmem", "lease_learners_grants_do_not_count"),
    ("oldq", "lease_by_a_quorum_of_the_new_configuration"),
    ("confkeep", "lease_ends_with_a_new_configuration"),
    ("exc", "lease_exempts_its_own_node"),
    ("begunkeep", "lease_ends_when_a_higher_ballot_begins"),
    ("oldnew", "lease_grant_names_its_heartbeat"),
    ("mix", "lease_of_the_slowest_of_a_quorum"),
    ("noadopt", "lease_read_waits_for_the_own_entry"),
    ("noteafter", "lease_heartbeat_is_stamped_before_it_leaves"),
    ("stalenow", "lease_grant_is_stamped_behind_its_arrival"),
    ("grantany, durg", "lease_grant_waits_for_its_promise"),
    ("ilv", "lease_lost_and_won_again"),
    ("stuck", "lease_stuck_group_comes_free"),
    ("stuck by an outbid leader", "lease_outbid_leader_begins_above"),
    ("higher Accepts not queued", "lease_queues_a_higher_accept"),
];

#[test]
fn every_schedule_is_a_script() {
    for (schedule, name) in SCHEDULES {
        let path = format!("{}/tests/scripts/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path);
        let text = text.unwrap_or_else(|error| panic!("schedule {schedule}: {path}: {error}"));
        assert!(text.contains("\n---\n"), "schedule {schedule}: {name} records nothing");
    }
}

#[test]
fn every_script_plays_as_recorded() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the scripts' folder")
        .map(|entry| entry.expect("its entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 100, "only {} scripts were found", paths.len());
    let update = std::env::var_os("UPDATE_SCRIPTS").is_some();
    let mut changed = Vec::new();
    for path in &paths {
        let name = path.file_stem().expect("a file name").to_string_lossy().into_owned();
        let recorded = std::fs::read_to_string(path).expect("read the script");
        let (played, violation) = play(&parse(&recorded), None);
        let text = write(&played);
        if update {
            std::fs::write(path, &text).expect("write the script");
        } else if text != recorded {
            changed.push(format!("{name}:\n{}", first_difference(&recorded, &text)));
        }
        changed.extend(violation.map(|violation| format!("{name}: VIOLATION: {violation}")));
    }
    assert!(
        changed.is_empty(),
        "these went another way (UPDATE_SCRIPTS=1 cargo test -p paxos --test scripts records it):\n{}",
        changed.join("\n")
    );
}

fn first_difference(recorded: &str, played: &str) -> String {
    let recorded = recorded.lines().chain(std::iter::repeat("(nothing more)"));
    let mut lines = recorded.zip(played.lines().chain(["(nothing more)"])).enumerate();
    let difference = lines.find(|(_, (recorded, played))| recorded != played);
    difference.map_or(String::new(), |(number, (recorded, played))| {
        format!("  line {}\n  recorded: {recorded}\n  now:      {played}", number + 1)
    })
}
