//! Real nodes on real hosts (network namespaces, each with an sshd), all kinds of clients, and faults
//! of all kinds in random order. Then it is asked whether what the clients saw was possible for one
//! copy of the data, and whether all nodes came to the same state. Every fault has to show that it
//! acted; one that does not makes the run *unknown*, which is a failure (PITFALLS 53).
//!
//! `NEMESIS_SEED=7 NEMESIS_SECONDS=600 cargo test -p ctl --test nemesis -- --nocapture` repeats a
//! schedule, or lasts longer. The seed decides what strikes whom, when; what the nodes make of it
//! depends on the machine. `NEMESIS_DIR` names a folder that keeps the history of a failed run.
//!
//! `make nemesis BROKEN=AdoptNothing` lets nodes run that break this rule of the protocol, and is
//! content when they are found out (`NEMESIS_NODE` names their program).
//!
//! What no process can be made to suffer here is left to the simulators: a power cut, after which
//! the page cache is gone (all nodes killed at once, as here, leave it to the kernel), disks that
//! tear and rot, and clocks that run at different rates. The wall clock is shifted from within, by
//! `admin chaos`: a namespace has no wall clock of its own.

#[path = "nemesis/chaos.rs"]
mod chaos;
#[path = "nemesis/clients.rs"]
mod clients;
#[path = "nemesis/faults.rs"]
mod faults;
#[path = "nemesis/fleet.rs"]
mod fleet;
#[path = "nemesis/guardian.rs"]
mod guardian;
#[path = "nemesis/judge.rs"]
mod judge;
#[path = "nemesis/members.rs"]
mod members;
#[path = "nemesis/network.rs"]
mod network;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clients::{Clients, read_back};
use faults::Fault;
use fleet::{Fleet, within};
use guardian::Guardian;
use judge::LIES;
use proof::check::{Limits, Verdict, linearizable};
use proof::client::{Client, Fate};
use proof::history::History;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use support::{Site, skipped};

const VOTERS: u32 = 5;
const HOSTS: usize = 7;
/// For the faults; what was begun is brought to its end.
const SECONDS: u64 = 75;
/// After each fault, acknowledged writes must come again within this time.
const RECOVERY: Duration = Duration::from_secs(30);
const WRITES_AFTER: u64 = 20;
/// Fewer of a kind prove nothing about it.
const OK_MIN: usize = 40;
const KINDS: [&str; 8] =
    ["GET", "SET", "SET IFEQ", "SET IFEQ, another value", "DEL", "INCR", "APPEND", "EXEC"];
const LIMITS: Limits =
    Limits { ok_min: 1_000, configurations_max: 3_000_000, time: Duration::from_secs(120) };

#[test]
fn what_clients_saw_was_possible_whatever_struck() {
    let Some(site) = Site::new("nemesis", HOSTS) else { return };
    if Command::new("nft").arg("--version").output().is_err() {
        return skipped("there is no nft: packets cannot be dropped");
    }
    let _guardian = Guardian::of(&site);
    let seed = number("NEMESIS_SEED").unwrap_or_else(|| {
        u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_micros())
    });
    let seconds = number("NEMESIS_SECONDS").unwrap_or(SECONDS);
    show(&format!("NEMESIS_SEED={seed} NEMESIS_SECONDS={seconds}"));
    let mut fleet = Fleet::new(site, VOTERS, StdRng::seed_from_u64(seed));
    fleet.wait_for_leader();
    let target = fleet.target();
    let clients = Clients::start(fleet.runtime.handle(), &target, seed);
    writes_come(&fleet, &clients, "before the first fault");

    let acted = torment(&mut fleet, &clients, Duration::from_secs(seconds));

    fleet.eventually("full replication", || replicated(&fleet));
    let runtime = fleet.runtime.handle().clone();
    let (shared, mut history) = runtime.block_on(clients.stop());
    fleet.eventually("full replication of the last write", || replicated(&fleet));
    runtime.block_on(read_back(&shared, &target, &mut history));
    let compared = equal_states(&fleet);
    let said: BTreeMap<u32, String> = fleet.all.keys().map(|id| (*id, fleet.said(*id))).collect();
    let led = judge::ballots_led(&said).unwrap_or_else(|found| panic!("{found}"));

    let succeeded = judge::succeeded(&history);
    show(&format!(
        "succeeded: {succeeded:?}; unknown {}; sent again through ONCE {}; read anywhere {}; states equal at \
         {compared} slots; {led} ballots led; {} nodes in all",
        history.unknown_count(),
        shared.repeated(),
        shared.followed(),
        fleet.all.len()
    ));
    assert_eq!(shared.strange(), Vec::<String>::new(), "answers that their command does not have");
    let began = Instant::now();
    let verdict = linearizable(&history, LIMITS);
    let count = history.operations.len();
    show(&format!("{count} operations, judged within {:?}: {verdict}", began.elapsed()));
    if verdict != Verdict::Holds {
        keep(&history, seed);
    }
    assert_eq!(verdict, Verdict::Holds, "NEMESIS_SEED={seed}");
    for kind in KINDS {
        let count = succeeded.get(kind).copied().unwrap_or(0);
        assert!(count >= OK_MIN, "unknown: only {count} {kind} succeeded, {OK_MIN} are needed");
    }
    let idle: Vec<&Fault> = Fault::ALL.iter().filter(|fault| !acted.contains(fault)).collect();
    assert!(idle.is_empty(), "unknown: these faults were never seen to act: {idle:?}");
    let followed = shared.followed();
    assert!(followed >= OK_MIN as u64, "unknown: only {followed} reads at any node succeeded");
    assert!(led > 3, "unknown: only {led} ballots were led");
    lies_are_found(&history);
    meddling_is_found(&fleet, &shared, &target, history);
}

/// Fault after fault: all kinds in random order, and again, until the time is over. Answers those
/// that acted; ends the test when one did not, or when the cluster does not come back after it.
fn torment(fleet: &mut Fleet, clients: &Clients, lasts: Duration) -> BTreeSet<Fault> {
    let began = Instant::now();
    let mut acted = BTreeSet::new();
    let mut deck: Vec<Fault> = Vec::new();
    while acted.len() < Fault::ALL.len() || began.elapsed() < lasts {
        if deck.is_empty() {
            deck = Fault::ALL.to_vec();
            deck.shuffle(&mut fleet.rng);
        }
        let fault = deck.pop().expect("the deck was filled");
        let before = clients.shared.writes_ok();
        let at = began.elapsed();
        let (faults, evidence) = fleet.strike(fault);
        let meanwhile = clients.shared.writes_ok() - before;
        let healed = Instant::now();
        writes_come(fleet, clients, &format!("after {faults:?}"));
        let seen: Vec<String> = evidence.iter().map(ToString::to_string).collect();
        show(&format!(
            "{:6.1} s {faults:?}: {}; {meanwhile} writes meanwhile, again after {:?}",
            at.as_secs_f64(),
            seen.join("; "),
            healed.elapsed()
        ));
        assert!(evidence.iter().all(|seen| seen.acted), "unknown: {faults:?} did not act");
        for id in &fleet.running {
            assert!(fleet.process(*id).is_some(), "n{id} has ended: {}", last_words(fleet, *id));
        }
        acted.extend(faults);
        let pause = Duration::from_millis(fleet.rng.random_range(0..700));
        std::thread::sleep(pause);
    }
    acted
}

fn writes_come(fleet: &Fleet, clients: &Clients, when: &str) {
    let before = clients.shared.writes_ok();
    let come =
        within(RECOVERY, || (clients.shared.writes_ok() >= before + WRITES_AFTER).then_some(()));
    assert!(come.is_some(), "no writes within {RECOVERY:?} {when}\n{}", fleet.describe());
}

/// All members run, follow one leader and have applied all that is chosen.
fn replicated(fleet: &Fleet) -> Option<()> {
    let statuses = fleet.statuses();
    let leader = fleet.leader()?;
    let members: BTreeSet<u32> = leader.configuration.members.iter().map(|m| m.id).collect();
    let chosen = statuses.values().map(|status| status.chosen_slot).max()?;
    // With clients at work a node that is asked a moment earlier has applied a little less.
    let close = |status: &monitoring::status::NodeStatus| {
        status.leader == Some(leader.id) && status.applied_slot + 200 >= chosen
    };
    (members == fleet.running && members.iter().all(|id| statuses.get(id).is_some_and(close)))
        .then_some(())
}

/// At how many slots all nodes say that they hold the same: at least at one. A few more writes lead to
/// a slot at which hashes are published.
fn equal_states(fleet: &Fleet) -> usize {
    let mut client = Client::new(fleet.target(), 0);
    fleet.eventually("a slot whose state hash all publish", || {
        for _ in 0..20 {
            let set = client.call(&[b"SET", b"more", b"x"]);
            let fate = fleet.runtime.block_on(set);
            assert!(!matches!(fate, Fate::Unknown(_)), "nothing strikes any more: {fate:?}");
        }
        let statuses = fleet.statuses();
        let compared = judge::compare_states(&statuses).unwrap_or_else(|found| panic!("{found}"));
        (compared > 0 && statuses.len() == fleet.running.len()).then_some(compared)
    })
}

/// A checker that finds nothing in a doctored history would find nothing in a broken cluster.
fn lies_are_found(history: &History) {
    for lie in &LIES {
        match lie.verdict(history, LIMITS) {
            Ok(Verdict::Violated(found)) => show(&format!("  {}: {found}", lie.what)),
            other => panic!("{}: {other:?}", lie.what),
        }
    }
}

/// The same on the cluster itself: somebody deletes a key that nobody deleted, and the next read of
/// the clients' own tells.
fn meddling_is_found(
    fleet: &Fleet,
    shared: &clients::Shared,
    target: &proof::client::Target,
    history: History,
) {
    let object = judge::one_that_is_there(&history);
    let key = object.operations[0].key.clone();
    let mut meddler = Client::new(target.clone(), 0);
    let mut object = object;
    fleet.runtime.block_on(async {
        let mut deleted = Fate::Refused("not asked yet".to_owned());
        // It has to find the leader first.
        for _ in 0..HOSTS {
            if matches!(deleted, Fate::Refused(_)) {
                deleted = meddler.call(&[b"DEL", &key]).await;
            }
        }
        assert_eq!(deleted, Fate::Done(proof::resp::Reply::Integer(1)));
        read_back(shared, target, &mut object).await;
    });
    let verdict = linearizable(&object, Limits { ok_min: 1, ..LIMITS });
    assert!(matches!(verdict, Verdict::Violated(_)), "{key:?} was deleted by nobody: {verdict}");
}

/// The history of a failed run, for whoever looks into it.
fn keep(history: &History, seed: u64) {
    let Some(folder) = std::env::var_os("NEMESIS_DIR") else { return };
    let path = std::path::Path::new(&folder).join(format!("history-{seed}.jsonl"));
    let mut file = std::fs::File::create(&path).expect("make a file for the history");
    history.write_json_lines(&mut file).expect("write the history");
    show(&format!("the history is in {}", path.display()));
}

fn last_words(fleet: &Fleet, id: u32) -> String {
    let said = fleet.said(id);
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[expect(clippy::print_stderr, reason = "figures are shown")]
fn show(text: &str) {
    eprintln!("{text}");
}
