//! Proof that the tests can fail: each rule of the protocol is broken once, and each mutant does harm
//! that is seen: a seed of the simulator in which an invariant breaks, a script in which the
//! checker complains or the core stops itself, or a model with a schedule that violates it. A mutant
//! that lives would mean a rule that nothing tests.
//!
//! A script that only plays otherwise than recorded proves that the recording is exact, not that the
//! harm is seen. Where two rules stand for each other and either of them is enough, breaking one
//! does no harm: those are listed in pairs, and it is the pair that has to be caught.
//!
//! `Mutant` breaks a line of the core (feature `mutants`); `Foul` is a mistake of the shell around
//! it. `cargo test -p paxos --features mutants --test mutants -- --nocapture` prints the table.

mod harness;
#[path = "model/mod.rs"]
#[allow(dead_code, reason = "the models themselves are run by `model`")]
mod model;

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::foul::Foul;
use harness::script;
use harness::simulation::{Run, run};
use model::broken::{STATES_MAX, model_for, models};
use model::search::search;
use paxos::{Mutant, break_rules};

/// Seeds that have caught a mutant before are tried first: rare conditions would cost minutes
/// otherwise. A mutant that does no harm in any script gets many more before it counts as alive;
/// `HUNT=9000` gives so many to every one.
const SEEDS_FIRST: [u64; 13] = [0, 2, 4, 7, 8, 16, 24, 43, 55, 212, 711, 2_448, 2_741];
const SEEDS_MAX: u64 = 20_000;
/// So many for one that at least a recorded text has noticed.
const SEEDS_OF_NOTICED: u64 = 100;

#[derive(Clone, Copy, Debug)]
enum Broken {
    Core(Mutant),
    Shell(Foul),
}

/// Two rules, either of which is enough: with one of them broken nothing goes wrong, with both it
/// does.
struct Pair {
    rules: [Mutant; 2],
    /// Why one of them does no harm by itself.
    why: &'static str,
}

const EITHER_IS_ENOUGH: [Pair; 1] = [Pair {
    rules: [Mutant::OutvotedLeaderGoesOn, Mutant::HintOfAllKnown],
    why: "an outvoted leader that goes on finds no quorum any more: a quorum has promised the ballot \
          that outvoted it. All that its messages could still do is to have a follower take for \
          chosen what it holds under that ballot, and a hint covers only what was known chosen when \
          phase 1 ended or what this ballot has tallied. A hint of all that is known chosen is as \
          true as long as whoever learns otherwise goes at once",
}];

fn is_paired(name: &str) -> bool {
    let mut rules = EITHER_IS_ENOUGH.iter().flat_map(|pair| pair.rules);
    rules.any(|rule| format!("{rule:?}") == name)
}

#[derive(Debug)]
struct Catch {
    name: String,
    seed: Option<(u64, String)>,
    scripts: Scripts,
    /// The model, and the last line of its shortest schedule.
    model: Option<(&'static str, String)>,
    /// A model is said to show its harm.
    is_hunted: bool,
}

impl Catch {
    fn is_harm(&self) -> bool {
        self.seed.is_some() || !self.scripts.harmed.is_empty() || self.model.is_some()
    }
}

/// What broken scripts show.
#[derive(Debug, Default)]
struct Scripts {
    /// The checker complains, or the core stops itself.
    harmed: Vec<String>,
    /// All goes well, but not as recorded.
    changed: Vec<String>,
}

/// `ONLY=Lease,NoCheckpoint`: those alone whose names begin like that.
fn is_wanted(broken: &Broken, only: &str) -> bool {
    let name = match broken {
        Broken::Core(mutant) => format!("{mutant:?}"),
        Broken::Shell(foul) => format!("{foul:?}"),
    };
    only.split(',').any(|start| name.starts_with(start))
}

thread_local! {
    /// Where this thread's last panic was.
    static STOPPED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

#[test]
fn every_mutant_is_caught() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let all = Mutant::ALL.map(Broken::Core).into_iter().chain(Foul::ALL.map(Broken::Shell));
    let mutants: Vec<Broken> = all.filter(|broken| is_wanted(broken, &only)).collect();
    let catches = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    // A broken core stops itself by a panic, as it should. Nobody wants to read thousands of them.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|stop| {
        let place = stop.location().map(|place| place.file().to_owned()).unwrap_or_default();
        STOPPED_AT.set(place);
    }));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(broken) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let catch = hunt(*broken);
                    catches.lock().expect("nobody panics with it").push(catch);
                }
            });
        }
    });
    std::panic::set_hook(hook);
    let mut catches = catches.into_inner().expect("nobody panics with it");
    catches.sort_by(|a, b| a.name.cmp(&b.name));
    catches.iter().for_each(|catch| eprintln!("{}", line(catch)));
    let harmless = catches.iter().filter(|catch| !catch.is_harm() && !is_paired(&catch.name));
    let alive: Vec<&Catch> = harmless.collect();
    assert!(
        alive.is_empty(),
        "these mutants live, or only a recorded text notices them: {alive:?}"
    );
    let missed: Vec<&Catch> =
        catches.iter().filter(|catch| catch.is_hunted && catch.model.is_none()).collect();
    assert!(missed.is_empty(), "their models do not catch these: {missed:?}");
    assert_eq!(catches.len(), mutants.len());
}

#[test]
fn either_of_two_rules_is_enough_and_neither_is_not() {
    for Pair { rules, why } in EITHER_IS_ENOUGH {
        for rule in rules {
            break_rules(&[rule]);
            let harmed = play_scripts(None).harmed;
            assert!(harmed.is_empty(), "{rule:?} does harm alone: {harmed:?}");
        }
        break_rules(&rules);
        let harmed = play_scripts(None).harmed;
        break_rules(&[]);
        assert!(!harmed.is_empty(), "no script shows the harm of {rules:?}");
        eprintln!("{rules:?}: harm in {harmed:?}\n  {why}");
    }
}

/// The same seeds and scripts must be quiet when nothing is broken.
#[test]
fn nothing_is_caught_when_nothing_is_broken() {
    break_rules(&[]);
    for seed in 0..50 {
        let outcome = run(Run { seed, ..Run::default() });
        assert!(outcome.violation.is_none(), "seed {seed}: {:?}", outcome.violation);
    }
    let scripts = play_scripts(None);
    assert!(scripts.harmed.is_empty() && scripts.changed.is_empty(), "{scripts:?}");
}

/// So must the models be in which a mutant is hunted.
#[test]
fn no_model_is_violated_when_nothing_is_broken() {
    break_rules(&[]);
    for bounds in models() {
        let violation = search(bounds, STATES_MAX / 4).violation;
        assert!(violation.is_none(), "{}:\n{}", bounds.name, violation.unwrap_or_default());
    }
}

fn hunt(broken: Broken) -> Catch {
    let (name, foul) = match broken {
        Broken::Core(mutant) => (format!("{mutant:?}"), None),
        Broken::Shell(foul) => (format!("{foul:?} (shell)"), Some(foul)),
    };
    if let Broken::Core(mutant) = broken {
        break_rules(&[mutant]);
    }
    let is_caught = |seed: u64| {
        let violation = run(Run { seed, foul, ..Run::default() }).violation?;
        Some((seed, violation))
    };
    let scripts = play_scripts(foul);
    let bounds = match broken {
        Broken::Core(mutant) => model_for(mutant),
        Broken::Shell(_) => None,
    };
    let is_hunted = bounds.is_some();
    let model = bounds.and_then(|bounds| {
        let violation = search(bounds, STATES_MAX).violation?;
        Some((bounds.name, violation.lines().last().unwrap_or_default().to_owned()))
    });
    let mut seed = SEEDS_FIRST.into_iter().find_map(is_caught);
    let hunt = std::env::var("HUNT").ok().and_then(|seeds| seeds.parse().ok());
    let is_known = !scripts.harmed.is_empty() || model.is_some() || is_paired(&name);
    let more = hunt.unwrap_or(match (is_known, scripts.changed.is_empty()) {
        (true, _) => 0,
        (false, true) => SEEDS_MAX,
        (false, false) => SEEDS_OF_NOTICED,
    });
    if seed.is_none() {
        seed = (0..more).find_map(is_caught);
    }
    break_rules(&[]);
    Catch { name, seed, scripts, model, is_hunted }
}

/// Plays all scripts, and tells which of them go wrong or otherwise than recorded.
fn play_scripts(foul: Option<Foul>) -> Scripts {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut scripts = Scripts::default();
    for entry in std::fs::read_dir(folder).expect("the scripts' folder") {
        let path = entry.expect("its entry").path();
        let recorded = std::fs::read_to_string(&path).expect("read the script");
        let name = path.file_stem().expect("a file name").to_string_lossy().into_owned();
        match std::panic::catch_unwind(|| script::play(&script::parse(&recorded), foul)) {
            Ok((_, Some(_violation))) => scripts.harmed.push(name),
            Ok((played, None)) if script::write(&played) == recorded => {}
            // The core's own assertions are harm that is seen; the harness missing a message is not.
            Err(_) if STOPPED_AT.with_borrow(|place| !place.contains("tests/")) => {
                scripts.harmed.push(name);
            }
            Ok(_) | Err(_) => scripts.changed.push(name),
        }
    }
    scripts.harmed.sort();
    scripts.changed.sort();
    scripts
}

fn line(catch: &Catch) -> String {
    let seed = catch.seed.as_ref().map_or("no seed".to_owned(), |(seed, violation)| {
        format!("seed {seed}: {}", violation.chars().take(100).collect::<String>())
    });
    let told = |how: &str, scripts: &[String]| match scripts {
        [] => String::new(),
        [one] => format!("; {how} {one}"),
        [first, rest @ ..] => format!("; {how} {first} and {} more", rest.len()),
    };
    let harmed = told("harm in script", &catch.scripts.harmed);
    let changed = told("other text in", &catch.scripts.changed);
    let model = catch
        .model
        .as_ref()
        .map_or(String::new(), |(model, violation)| format!("; model {model}: {violation}"));
    format!("{:36} {seed}{harmed}{changed}{model}", catch.name)
}
