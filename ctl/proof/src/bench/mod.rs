//! How fast a server answers: closed-loop clients with one kind of work, and what they saw.
//!
//! Every server is measured by the same code on the same machine: one thread drives all clients, as
//! `redis-benchmark` does, so that what a server gains on the other cores is its own. The two doors
//! differ only in how a request is framed: [`resp`] for whatever speaks the Redis protocol,
//! [`etcd`] for etcd's own gRPC over HTTP/2 (its JSON gateway would be a handicap).

pub mod etcd;
pub mod resp;

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::Rng;
use rand::rngs::SmallRng;

/// Keys are drawn from this many.
const KEYS: u32 = 100_000;
const LATENCY_US_MAX: u64 = 60_000_000;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    pub clients: usize,
    /// Requests that each client has under way at once.
    pub pipeline: usize,
    pub reads_percent: u32,
    pub value_bytes: usize,
}

/// How long each part takes.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    pub operations: u64,
    pub elapsed: Duration,
    pub latency_us: Histogram<u64>,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    pub fn latency(&self, percent: f64) -> Duration {
        Duration::from_micros(self.latency_us.value_at_percentile(percent))
    }
}

/// A measurement that met an error is no measurement.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {what}")]
pub struct Failed {
    pub address: String,
    pub what: String,
}

impl Failed {
    fn new(address: &str, what: impl std::fmt::Display) -> Failed {
        Failed { address: address.to_owned(), what: what.to_string() }
    }
}

/// The clock of one client: when to count, when to stop, and what it counted.
struct Stopwatch {
    count_from: Instant,
    stop_at: Instant,
    operations: u64,
    latency_us: Histogram<u64>,
}

impl Stopwatch {
    fn start(timing: Timing) -> Stopwatch {
        let count_from = Instant::now() + timing.warm_up;
        let stop_at = count_from + timing.measured;
        Stopwatch { count_from, stop_at, operations: 0, latency_us: latencies() }
    }

    /// Notes `count` requests that were sent at `sent` and answered now. `false`: time is up.
    fn answered(&mut self, sent: Instant, count: usize) -> bool {
        let now = Instant::now();
        if sent >= self.count_from && now <= self.stop_at {
            let microseconds = ((now - sent).as_micros() as u64).clamp(1, LATENCY_US_MAX);
            self.latency_us.saturating_record_n(microseconds, count as u64);
            self.operations += count as u64;
        }
        now < self.stop_at
    }
}

/// Runs the clients to their end on this thread's runtime and adds up what they counted.
async fn together<F>(clients: Vec<F>, timing: Timing) -> Result<Measured, Failed>
where
    F: Future<Output = Result<Stopwatch, Failed>> + Send + 'static,
{
    let mut running = tokio::task::JoinSet::new();
    clients.into_iter().for_each(|client| drop(running.spawn(client)));
    let mut measured =
        Measured { operations: 0, elapsed: timing.measured, latency_us: latencies() };
    while let Some(client) = running.join_next().await {
        let stopwatch = client.expect("no client panics")?;
        measured.operations += stopwatch.operations;
        measured.latency_us.add(&stopwatch.latency_us).expect("all histograms have one shape");
    }
    Ok(measured)
}

/// Drives one measurement on a thread of its own with one runtime.
fn on_one_thread<F>(measurement: F) -> Result<Measured, Failed>
where
    F: Future<Output = Result<Measured, Failed>> + Send + 'static,
{
    let thread = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(measurement)
    });
    thread.join().expect("no measurement panics")
}

fn is_read(rng: &mut SmallRng, workload: Workload) -> bool {
    rng.random_range(0..100) < workload.reads_percent
}

/// Sixteen bytes, the same for all servers.
fn random_key(rng: &mut SmallRng) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = rng.random_range(0..KEYS);
    let mut at = key.len();
    while rest > 0 {
        at -= 1;
        key[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).expect("the bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn keys_have_one_length_and_vary() {
        let mut rng = SmallRng::seed_from_u64(1);
        let keys: Vec<[u8; 16]> = (0..100).map(|_| random_key(&mut rng)).collect();
        assert!(keys.iter().all(|key| key.starts_with(b"key:") && key.is_ascii()));
        assert!(keys.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn only_the_measured_time_counts() {
        let timing = Timing { warm_up: Duration::from_secs(60), measured: Duration::from_secs(60) };
        let mut stopwatch = Stopwatch::start(timing);
        assert!(stopwatch.answered(Instant::now(), 5));
        assert_eq!(stopwatch.operations, 0, "still warming up");
        stopwatch.count_from = Instant::now();
        assert!(stopwatch.answered(Instant::now(), 5));
        assert_eq!(stopwatch.operations, 5);
    }
}
