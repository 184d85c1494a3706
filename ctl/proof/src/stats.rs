//! Live counters of a load: cheap to write for each client, added up when somebody looks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Latencies from 1 µs to 60 s with two digits: 1 % is finer than any run repeats.
const LATENCY_US_MAX: u64 = 60_000_000;

/// The counters of all clients of one load.
#[derive(Debug)]
pub struct Stats {
    started: Instant,
    clients: Vec<Mutex<Counts>>,
    /// When the newest write was acknowledged, in ns since `started`; 0 before the first.
    newest_write_ns: AtomicU64,
    longest_gap_ns: AtomicU64,
}

/// What happened so far, or since the last look.
#[derive(Clone, Debug)]
pub struct Counts {
    pub writes_ok: u64,
    pub reads_ok: u64,
    pub failed: u64,
    pub unknown: u64,
    /// Failed and unknown operations by the first word of the reason.
    pub words: BTreeMap<String, u64>,
    /// Of the operations that succeeded, in microseconds.
    pub latency_us: Histogram<u64>,
    /// Of those since the last [`Stats::interval`].
    recent_us: Histogram<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            writes_ok: 0,
            reads_ok: 0,
            failed: 0,
            unknown: 0,
            words: BTreeMap::new(),
            latency_us: latencies(),
            recent_us: latencies(),
        }
    }
}

impl Counts {
    /// The latency that `percent` of the successful operations stayed within.
    pub fn latency(&self, percent: f64) -> Duration {
        Duration::from_micros(self.latency_us.value_at_percentile(percent))
    }

    fn add(&mut self, other: &Counts) {
        self.writes_ok += other.writes_ok;
        self.reads_ok += other.reads_ok;
        self.failed += other.failed;
        self.unknown += other.unknown;
        for (word, count) in &other.words {
            *self.words.entry(word.clone()).or_default() += count;
        }
        self.latency_us.add(&other.latency_us).expect("all histograms have one shape");
    }
}

impl Stats {
    pub fn new(clients: usize) -> Arc<Stats> {
        Arc::new(Stats {
            started: Instant::now(),
            clients: (0..clients).map(|_| Mutex::default()).collect(),
            newest_write_ns: AtomicU64::new(0),
            longest_gap_ns: AtomicU64::new(0),
        })
    }

    /// Nanoseconds on the clock of this load.
    pub fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn ok(&self, client: usize, write: bool, latency: Duration) {
        let mut counts = self.client(client);
        let microseconds = (latency.as_micros() as u64).clamp(1, LATENCY_US_MAX);
        counts.latency_us.saturating_record(microseconds);
        counts.recent_us.saturating_record(microseconds);
        if write {
            counts.writes_ok += 1;
            drop(counts);
            self.write_acknowledged();
        } else {
            counts.reads_ok += 1;
        }
    }

    pub fn failed(&self, client: usize, word: &str) {
        let mut counts = self.client(client);
        counts.failed += 1;
        *counts.words.entry(word.to_owned()).or_default() += 1;
    }

    pub fn unknown(&self, client: usize, word: &str) {
        let mut counts = self.client(client);
        counts.unknown += 1;
        *counts.words.entry(word.to_owned()).or_default() += 1;
    }

    /// Everything since the start.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for index in 0..self.clients.len() {
            total.add(&self.client(index));
        }
        total
    }

    /// Latencies of the operations since the last call.
    pub fn interval(&self) -> Histogram<u64> {
        let mut interval = latencies();
        for index in 0..self.clients.len() {
            let mut counts = self.client(index);
            interval.add(&counts.recent_us).expect("all histograms have one shape");
            counts.recent_us.reset();
        }
        interval
    }

    /// Starts measuring the longest time between two acknowledged writes anew.
    pub fn reset_gap(&self) {
        self.newest_write_ns.store(self.now_ns(), Ordering::SeqCst);
        self.longest_gap_ns.store(0, Ordering::SeqCst);
    }

    /// The longest time between two acknowledged writes (of any clients) since the last reset.
    pub fn longest_gap(&self) -> Duration {
        Duration::from_nanos(self.longest_gap_ns.load(Ordering::SeqCst))
    }

    fn write_acknowledged(&self) {
        let now = self.now_ns();
        let before = self.newest_write_ns.swap(now, Ordering::SeqCst);
        if before > 0 {
            self.longest_gap_ns.fetch_max(now.saturating_sub(before), Ordering::SeqCst);
        }
    }

    fn client(&self, index: usize) -> MutexGuard<'_, Counts> {
        self.clients[index].lock().expect("no client panics while it counts")
    }
}

fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).expect("the bounds are valid")
}
