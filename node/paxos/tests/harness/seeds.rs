//! What both simulators share: many seeds on all cores with their progress, and, for a seed that
//! fails, the shortest life that fails the same way.
//!
//! A life is shortened by leaving things out ([`Less`]): whole kinds of fault, traits of the world
//! (loss, drift, …), single faults, clients. What is left out stays out in a replay by the one
//! command that is printed.

#![allow(clippy::print_stderr, reason = "people wait for it")]

use std::collections::BTreeSet;
use std::fmt;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A run stops after so many seeds that fail.
const FAILED_MAX: usize = 5;
/// A seed is run so often, at most, to be shortened.
const SHRINK_RUNS_MAX: u32 = 500;
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// What is left out of a seed's life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Less {
    /// Kinds of fault, and traits of the world, by name.
    pub without: BTreeSet<String>,
    /// Only the faults of these numbers strike.
    pub faults: Option<BTreeSet<u64>>,
    pub clients: Option<u32>,
}

impl Less {
    /// What `LESS` asks for.
    pub fn from_environment() -> Less {
        let text = std::env::var("LESS").unwrap_or_default();
        Less::parse(&text).unwrap_or_else(|| panic!("LESS cannot be read: {text}"))
    }

    pub fn parse(text: &str) -> Option<Less> {
        let mut less = Less::default();
        for part in text.split_whitespace() {
            let (name, list) = part.split_once('=')?;
            let words = list.split(',').filter(|word| !word.is_empty());
            match name {
                "without" => less.without = words.map(str::to_owned).collect(),
                "faults" => {
                    let numbers = words.map(|word| word.parse().ok());
                    less.faults = Some(numbers.collect::<Option<_>>()?);
                }
                "clients" => less.clients = Some(list.parse().ok()?),
                _ => return None,
            }
        }
        Some(less)
    }

    pub fn leaves_out(&self, name: &str) -> bool {
        self.without.contains(name)
    }

    /// Does the fault of this number, of this kind, strike?
    pub fn lets_strike(&self, number: u64, kind: &str) -> bool {
        !self.leaves_out(kind) && self.faults.as_ref().is_none_or(|kept| kept.contains(&number))
    }
}

impl fmt::Display for Less {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.without.is_empty() {
            parts.push(format!("without={}", Vec::from_iter(self.without.clone()).join(",")));
        }
        if let Some(faults) = &self.faults {
            let numbers: Vec<String> = faults.iter().map(u64::to_string).collect();
            parts.push(format!("faults={}", numbers.join(",")));
        }
        if let Some(clients) = self.clients {
            parts.push(format!("clients={clients}"));
        }
        write!(f, "{}", parts.join(" "))
    }
}

/// A fault that struck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    pub number: u64,
    pub at_us: u64,
    pub kind: String,
}

/// What both simulators tell of a life.
pub struct Life<C> {
    /// The mix that the seed drew.
    pub plan: String,
    pub violation: Option<String>,
    pub coverage: C,
    pub strikes: Vec<Strike>,
    pub clients: u32,
    pub steps: u64,
    pub acknowledged: u64,
    pub virtual_us: u64,
    pub calm_us: u64,
    /// Its last lines, where they were asked for.
    pub trace: Vec<String>,
}

/// What came of many seeds.
#[derive(Default)]
pub struct Total<C> {
    pub coverage: C,
    pub failed: Vec<u64>,
    lives: u64,
    steps: u64,
    acknowledged: u64,
    virtual_us: u64,
    calm_us_max: (u64, u64),
    wall: Duration,
}

/// Runs the seeds on all cores; stops early after the first few that fail.
pub fn run_all<C: Default + Send>(
    name: &str,
    seeds: &[u64],
    run: impl Fn(u64) -> Life<C> + Sync,
    merge: impl Fn(&mut C, &C) + Sync,
) -> Total<C> {
    let next = AtomicU64::new(0);
    let total = Mutex::new(Total::default());
    let progress = Progress::new(name, seeds.len() as u64);
    let began = Instant::now();
    let work = || {
        while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            if total.lock().expect("no panics inside").failed.len() >= FAILED_MAX {
                return;
            }
            let life = run(seed);
            let mut total = total.lock().expect("no panics inside");
            merge(&mut total.coverage, &life.coverage);
            total.lives += 1;
            total.steps += life.steps;
            total.acknowledged += life.acknowledged;
            total.virtual_us += life.virtual_us;
            total.calm_us_max = total.calm_us_max.max((life.calm_us, seed));
            if let Some(violation) = life.violation {
                progress.say(&format!("seed {seed}: {}", first_line(&violation)));
                total.failed.push(seed);
            }
            progress.done(total.lives, total.failed.len());
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    progress.end();
    let mut total = total.into_inner().expect("no panics inside");
    total.wall = began.elapsed();
    total
}

impl<C> Total<C> {
    pub fn summary(&self) -> String {
        let wall_seconds = self.wall.as_secs_f64();
        let virtual_hours = self.virtual_us as f64 / 3.6e9;
        format!(
            "{} seeds, {} failed: {} steps, {} acknowledged, {virtual_hours:.2} virtual hours in \
             {wall_seconds:.0} s ({:.1} wall minutes): {:.4} virtual hours a second, {:.1} seeds a \
             second; longest way back to calm {} ms (seed {})",
            self.lives,
            self.failed.len(),
            self.steps,
            self.acknowledged,
            wall_seconds / 60.0,
            virtual_hours / wall_seconds,
            self.lives as f64 / wall_seconds,
            self.calm_us_max.0 / 1_000,
            self.calm_us_max.1,
        )
    }
}

/// A bar on a terminal, now and then a line elsewhere.
struct Progress {
    name: String,
    seeds: u64,
    bar: Option<ProgressBar>,
    began: Instant,
    last_line: Mutex<Instant>,
}

impl Progress {
    fn new(name: &str, seeds: u64) -> Progress {
        let style = "{msg} {wide_bar} {pos}/{len} seeds, {per_sec}, {eta} left";
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(style).expect("a template of our own");
            ProgressBar::new(seeds).with_style(style).with_message(name.to_owned())
        });
        let now = Instant::now();
        Progress { name: name.to_owned(), seeds, bar, began: now, last_line: Mutex::new(now) }
    }

    fn done(&self, lives: u64, failed: usize) {
        if let Some(bar) = &self.bar {
            return bar.set_position(lives);
        }
        let mut last = self.last_line.lock().expect("no panics inside");
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            let (name, seeds, seconds) = (&self.name, self.seeds, self.began.elapsed().as_secs());
            eprintln!("{name}: {lives} of {seeds} seeds in {seconds} s, {failed} failed");
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Leaves out what can be left out while the life still fails the same check: kinds of fault, then
/// `traits` of the world, then single faults, then clients.
pub fn shrink<C>(traits: &[&str], run: impl Fn(&Less) -> Life<C>) -> Option<(Less, Life<C>)> {
    let life = run(&Less::default());
    let wanted = check(life.violation.as_ref()?);
    let mut shrink = Shrink { run, wanted, less: Less::default(), best: life, runs: 0 };
    let strikes = shrink.best.strikes.iter();
    let kinds: BTreeSet<String> = strikes.map(|strike| strike.kind.clone()).collect();
    for name in kinds.into_iter().chain(traits.iter().map(|name| (*name).to_owned())) {
        let mut fewer = shrink.less.clone();
        fewer.without.insert(name);
        shrink.try_out(fewer);
    }
    let mut chunk = shrink.best.strikes.len();
    while chunk > 0 {
        shrink.thin(chunk);
        chunk /= 2;
    }
    for clients in 1..shrink.best.clients {
        if shrink.try_out(Less { clients: Some(clients), ..shrink.less.clone() }) {
            break;
        }
    }
    // Where single faults are named, whole kinds need not be.
    if shrink.less.faults.is_some() {
        let without = shrink.less.without.iter().filter(|name| traits.contains(&name.as_str()));
        let without = without.cloned().collect();
        shrink.try_out(Less { without, ..shrink.less.clone() });
    }
    while shrink.thin(1) {}
    Some((shrink.less, shrink.best))
}

struct Shrink<C, R> {
    run: R,
    wanted: String,
    /// The shortest so far.
    less: Less,
    best: Life<C>,
    runs: u32,
}

impl<C, R: Fn(&Less) -> Life<C>> Shrink<C, R> {
    /// Keeps to `fewer` if the life still fails the same check, and no more strikes for it.
    fn try_out(&mut self, fewer: Less) -> bool {
        if self.runs >= SHRINK_RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let life = (self.run)(&fewer);
        let is_same = life.violation.as_ref().is_some_and(|text| check(text) == self.wanted);
        if !is_same || life.strikes.len() > self.best.strikes.len() {
            return false;
        }
        (self.less, self.best) = (fewer, life);
        true
    }

    /// Leaves out so many faults in a row, wherever it can. False if that was nowhere.
    fn thin(&mut self, chunk: usize) -> bool {
        let before = self.best.strikes.len();
        let mut at = 0;
        while at < self.best.strikes.len() {
            let numbers = self.best.strikes.iter().map(|strike| strike.number).enumerate();
            let kept = numbers.filter(|(place, _)| *place < at || *place >= at + chunk);
            let faults = Some(kept.map(|(_, number)| number).collect());
            let length = self.best.strikes.len();
            self.try_out(Less { faults, ..self.less.clone() });
            if self.best.strikes.len() == length {
                at += chunk;
            }
        }
        self.best.strikes.len() < before
    }
}

/// Which check a text is of: its head, without the numbers of this life.
pub fn check(violation: &str) -> String {
    let head = violation.split(':').next().unwrap_or(violation);
    head.chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
}

/// The shortened life in words, and the one command that shows it again.
pub fn describe<C>(package: &str, seed: u64, less: &Less, life: &Life<C>) -> String {
    let violation = life.violation.as_deref().unwrap_or_default();
    let mut text = format!("seed {seed}: {}\n", violation.chars().take(1_000).collect::<String>());
    for Strike { at_us, kind, number } in &life.strikes {
        text.push_str(&format!("  {at_us:>10} us  {kind} (fault {number})\n"));
    }
    let less = match less.to_string() {
        nothing if nothing.is_empty() => String::new(),
        less => format!("LESS='{less}' "),
    };
    text.push_str(&format!(
        "  SEED={seed} {less}cargo test -p {package} --test simulator -- replay --nocapture"
    ));
    text
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}
