//! The sync thread: the journal's only user. The core loop hands it groups of records; it appends
//! all that wait, makes them durable with one sync, and reports how far it came. A sync takes about
//! 0.1 ms and now and then 25 ms: nobody else may wait for it.
//!
//! A full disk is not an error: the groups wait here, in order, and the node says meanwhile that it
//! cannot accept. Any other failure is final, as nobody knows what the disk holds after a failed
//! sync (PITFALLS 2): the node stops.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use journal::{Error, Group, Journal};
use paxos::Position;
use tokio::sync::Notify;

use crate::clock;

/// Records of one turn.
#[derive(Debug)]
pub struct Append {
    /// Label (slot) and bytes.
    pub records: Vec<(u64, Bytes)>,
    pub checkpoint: Bytes,
    /// The replica's position behind the last record.
    pub position: Position,
    /// May use the reserve of a full disk: promises and configuration.
    pub must_write: bool,
}

#[derive(Debug)]
enum Order {
    Append(Append),
    /// Segments whose labels are all below may go.
    Trim(u64),
    Stop,
}

/// What the sync thread tells; readable from any thread.
#[derive(Debug, Default)]
pub struct SyncState {
    synced: AtomicU64,
    /// When the oldest group that is not synced was handed over; 0 when all are.
    unsynced_since_us: AtomicU64,
    full: AtomicBool,
    failure: Mutex<Option<String>>,
    pub journal_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub free_bytes: AtomicU64,
}

impl SyncState {
    pub fn synced(&self) -> Position {
        Position(self.synced.load(Relaxed))
    }

    /// How long the oldest group has waited for its sync.
    pub fn unsynced_us(&self, now_us: u64) -> u64 {
        match self.unsynced_since_us.load(Relaxed) {
            0 => 0,
            since_us => now_us.saturating_sub(since_us),
        }
    }

    pub fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }

    pub fn failure(&self) -> Option<String> {
        self.failure.lock().expect("no holder of this lock panics").clone()
    }
}

pub struct Syncer {
    orders: Sender<Order>,
    pub state: Arc<SyncState>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// `wake` is notified whenever the state has changed; `observe` is told how long each sync took.
    pub fn start(
        journal: Journal,
        wake: Arc<Notify>,
        observe: impl Fn(Duration) + Send + 'static,
    ) -> std::io::Result<Syncer> {
        let (orders, received) = channel();
        let state = Arc::new(SyncState::default());
        let worker = Worker {
            journal,
            received,
            waiting: VecDeque::new(),
            state: Arc::clone(&state),
            wake,
            observe: Box::new(observe),
        };
        let thread = std::thread::Builder::new().name("sync".into()).spawn(move || worker.run())?;
        Ok(Syncer { orders, state, thread: Some(thread) })
    }

    pub fn append(&self, append: Append) {
        let now_us = clock::now().mono_us;
        let _ = self.state.unsynced_since_us.compare_exchange(0, now_us, Relaxed, Relaxed);
        self.order(Order::Append(append));
    }

    pub fn trim(&self, below_label: u64) {
        self.order(Order::Trim(below_label));
    }

    /// Syncs what waits and ends the thread.
    pub fn finish(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the sync thread ended with a panic");
        }
    }

    fn order(&self, order: Order) {
        // A thread that has ended has said why in its state, which the loop looks at.
        let _ = self.orders.send(order);
    }
}

struct Worker {
    journal: Journal,
    received: Receiver<Order>,
    /// Not appended yet: the disk is full.
    waiting: VecDeque<Order>,
    state: Arc<SyncState>,
    wake: Arc<Notify>,
    observe: Box<dyn Fn(Duration) + Send>,
}

/// Idle for so long: write the seal, and make spare segments.
const IDLE: Duration = Duration::from_millis(100);
const FULL_PAUSE: Duration = Duration::from_millis(50);
const PREPARE_BYTES: u64 = 4 << 20;
/// Orders taken at once, at most, so that the first of them is not kept waiting.
const ORDERS_MAX: usize = 1_024;

impl Worker {
    fn run(mut self) {
        if let Err(error) = self.work() {
            let text = describe(&error);
            tracing::error!(error = %text, "the journal failed: this node stops");
            *self.state.failure.lock().expect("no holder of this lock panics") = Some(text);
            self.wake.notify_one();
        }
    }

    fn work(&mut self) -> Result<(), Error> {
        self.publish();
        loop {
            let pause = if self.waiting.is_empty() { IDLE } else { FULL_PAUSE };
            match self.received.recv_timeout(pause) {
                Ok(order) => self.waiting.push_back(order),
                Err(RecvTimeoutError::Timeout) if self.waiting.is_empty() => {
                    self.idle()?;
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            while self.waiting.len() < ORDERS_MAX
                && let Ok(order) = self.received.try_recv()
            {
                self.waiting.push_back(order);
            }
            if self.write()? {
                return Ok(());
            }
        }
    }

    /// Appends what waits and syncs it. True when asked to stop.
    fn write(&mut self) -> Result<bool, Error> {
        // From here on the age of what waits counts, also if it was handed over while the last sync
        // was reported.
        let now_us = clock::now().mono_us;
        let _ = self.state.unsynced_since_us.compare_exchange(0, now_us, Relaxed, Relaxed);
        let mut position = None;
        let mut trim = None;
        let mut stop = false;
        let mut full = false;
        while let Some(order) = self.waiting.pop_front() {
            match order {
                Order::Append(append) => match self.append(&append) {
                    Ok(()) => position = Some(append.position),
                    Err(error) if error.is_full() => {
                        self.waiting.push_front(Order::Append(append));
                        full = true;
                        break;
                    }
                    Err(error) => return Err(error),
                },
                Order::Trim(below) => trim = Some(below),
                Order::Stop => stop = true,
            }
        }
        if position.is_some() {
            let started = Instant::now();
            loop {
                match self.journal.sync() {
                    Ok(()) => break,
                    // Nothing is lost: what was appended is kept for the next call.
                    Err(error) if error.is_full() => {
                        self.state.full.store(true, Relaxed);
                        self.wake.notify_one();
                        std::thread::sleep(FULL_PAUSE);
                    }
                    Err(error) => return Err(error),
                }
            }
            (self.observe)(started.elapsed());
        }
        // The records that allow it are synced now.
        if let Some(below) = trim {
            match self.journal.trim(below) {
                Ok(gone) => tracing::debug!(below, segments = gone, "journal trimmed"),
                Err(error) if error.is_full() => tracing::warn!(below, "no room to note a trim"),
                Err(error) => return Err(error),
            }
        }
        self.state.full.store(full || !self.journal.can_grow(), Relaxed);
        let since_us = if self.waiting.is_empty() { 0 } else { clock::now().mono_us };
        if full {
            // Keeps the age of what waits, so that the node turns grey.
            let _ = self.state.unsynced_since_us.compare_exchange(0, since_us, Relaxed, Relaxed);
        } else {
            self.state.unsynced_since_us.store(since_us, Relaxed);
        }
        if let Some(position) = position {
            self.state.synced.store(position.0, Relaxed);
        }
        self.publish();
        self.wake.notify_one();
        // What waits for space was never acknowledged to anybody: it may be dropped at a stop.
        Ok(stop)
    }

    fn append(&mut self, append: &Append) -> Result<(), Error> {
        let records: Vec<(u64, &[u8])> =
            append.records.iter().map(|(label, bytes)| (*label, &bytes[..])).collect();
        let group = Group { records: &records, checkpoint: &append.checkpoint };
        match self.journal.append(group) {
            // Order is kept, so what must pass takes everything before it along.
            Err(error) if error.is_full() && (append.must_write || self.must_write_waits()) => {
                self.journal.append_reserved(group)
            }
            result => result,
        }
    }

    fn must_write_waits(&self) -> bool {
        let must_write =
            |order: &Order| matches!(order, Order::Append(append) if append.must_write);
        self.waiting.iter().any(must_write)
    }

    fn idle(&mut self) -> Result<(), Error> {
        for result in [self.journal.seal(), self.journal.prepare(PREPARE_BYTES)] {
            match result {
                Ok(_) => {}
                // Nothing is lost: the next append says so again.
                Err(error) if error.is_full() => {}
                Err(error) => return Err(error),
            }
        }
        let full = !self.journal.can_grow();
        if self.state.full.swap(full, Relaxed) != full {
            self.wake.notify_one();
        }
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let stats = self.journal.stats();
        self.state.journal_bytes.store(stats.bytes, Relaxed);
        self.state.written_bytes.store(stats.written_bytes, Relaxed);
        if let Ok(free_bytes) = self.journal.free_bytes() {
            self.state.free_bytes.store(free_bytes, Relaxed);
        }
    }
}

/// The error with its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
