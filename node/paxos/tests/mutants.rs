//! Proof that the tests can fail: each rule of the protocol is broken once, and each mutant is
//! caught by a seed of the simulator. A mutant that lives would mean a rule that nothing tests.
//!
//! `Mutant` breaks a line of the core (feature `mutants`); `Foul` is a mistake of the shell around
//! it. `cargo test -p paxos --features mutants --test mutants -- --nocapture` prints the table.

mod harness;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::foul::Foul;
use harness::script;
use harness::simulation::{Run, run};
use paxos::{Mutant, break_rule};

/// Seeds that have caught a mutant before are tried first: rare conditions would cost minutes
/// otherwise. A mutant that no script sees gets many more before it counts as alive; `HUNT=9000`
/// gives them to the others too.
const SEEDS_FIRST: [u64; 11] = [0, 2, 4, 7, 8, 16, 55, 212, 711, 2_448, 2_741];
const SEEDS_MAX: u64 = 20_000;

#[derive(Clone, Copy, Debug)]
enum Broken {
    Core(Mutant),
    Shell(Foul),
}

#[derive(Debug)]
struct Catch {
    name: String,
    seed: Option<(u64, String)>,
    scripts: Vec<String>,
}

#[test]
fn every_mutant_is_caught() {
    let mutants: Vec<Broken> =
        Mutant::ALL.map(Broken::Core).into_iter().chain(Foul::ALL.map(Broken::Shell)).collect();
    let catches = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    // A broken core stops itself by a panic, as it should. Nobody wants to read thousands of them.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
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
    let alive: Vec<&str> = catches
        .iter()
        .filter(|catch| catch.seed.is_none() && catch.scripts.is_empty())
        .map(|catch| catch.name.as_str())
        .collect();
    assert!(alive.is_empty(), "these mutants live: {alive:?}");
    assert_eq!(catches.len(), mutants.len());
}

/// The same seeds and scripts must be quiet when nothing is broken.
#[test]
fn nothing_is_caught_when_nothing_is_broken() {
    break_rule(None);
    for seed in 0..50 {
        let outcome = run(Run { seed, ..Run::default() });
        assert!(outcome.violation.is_none(), "seed {seed}: {:?}", outcome.violation);
    }
    assert!(changed_scripts(None).is_empty());
}

fn hunt(broken: Broken) -> Catch {
    let (name, foul) = match broken {
        Broken::Core(mutant) => (format!("{mutant:?}"), None),
        Broken::Shell(foul) => (format!("{foul:?} (shell)"), Some(foul)),
    };
    if let Broken::Core(mutant) = broken {
        break_rule(Some(mutant));
    }
    let is_caught = |seed: u64| {
        let violation = run(Run { seed, foul, ..Run::default() }).violation?;
        Some((seed, violation))
    };
    let scripts = changed_scripts(foul);
    let mut seed = SEEDS_FIRST.into_iter().find_map(is_caught);
    let hunt = std::env::var("HUNT").ok().and_then(|seeds| seeds.parse().ok());
    let more = if scripts.is_empty() { SEEDS_MAX } else { hunt.unwrap_or(0) };
    if seed.is_none() {
        seed = (0..more).find_map(is_caught);
    }
    break_rule(None);
    Catch { name, seed, scripts }
}

/// Scripts that no longer play as recorded.
fn changed_scripts(foul: Option<Foul>) -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut changed = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the scripts' folder") {
        let path = entry.expect("its entry").path();
        let recorded = std::fs::read_to_string(&path).expect("read the script");
        let played = std::panic::catch_unwind(|| {
            let (played, violation) = script::play(&script::parse(&recorded), foul);
            violation.is_none() && script::write(&played) == recorded
        });
        if !played.unwrap_or(false) {
            changed.push(path.file_stem().expect("a file name").to_string_lossy().into_owned());
        }
    }
    changed.sort();
    changed
}

fn line(catch: &Catch) -> String {
    let seed = catch.seed.as_ref().map_or("no seed".to_owned(), |(seed, violation)| {
        format!("seed {seed}: {}", violation.chars().take(100).collect::<String>())
    });
    let scripts = match catch.scripts.as_slice() {
        [] => String::new(),
        [one] => format!("; script {one}"),
        [first, rest @ ..] => format!("; script {first} and {} more", rest.len()),
    };
    format!("{:36} {seed}{scripts}", catch.name)
}
