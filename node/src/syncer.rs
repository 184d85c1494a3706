//! The sync thread: the journal's only user. The core loop hands it groups of records; it appends
//! all that wait, makes them durable with one sync, and reports how far it came. A sync takes about
//! 0.1 ms and now and then 25 ms: nobody else may wait for it.
//!
//! A full disk is not an error: the groups wait here, in order, and the node says meanwhile that it
//! cannot accept. Any other failure is final, as nobody knows what the disk holds after a failed
//! sync (PITFALLS 2): the node stops.

mod appender;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use journal::{Error, Journal};
use paxos::{Message, Position};
use tokio::sync::Notify;

use crate::batch;
use crate::clock;

pub use self::appender::{Append, Appender, Order, Settled};

/// What the sync thread tells; readable from any thread.
#[derive(Debug, Default)]
pub struct SyncState {
    synced: AtomicU64,
    /// When the oldest group that is not synced was handed over; 0 when all are.
    unsynced_since_us: AtomicU64,
    /// Bytes of records handed over that are not synced yet.
    unsynced_bytes: AtomicU64,
    /// Room for writes that grow is running out.
    full: AtomicBool,
    /// A group has found no space at all.
    blocked: AtomicBool,
    /// Each sync takes so much longer, on purpose.
    slower_ms: AtomicU64,
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

    /// Does the disk take what it is given? It does not when a group has found no space, or has
    /// waited too long for its sync: that makes a node grey.
    pub fn can_write(&self, now_us: u64) -> bool {
        !self.blocked.load(Relaxed) && self.unsynced_us(now_us) < UNSYNCED_US_MAX
    }

    /// Could this node accept whatever comes?
    pub fn can_accept(&self, now_us: u64) -> bool {
        !self.is_full() && self.can_write(now_us)
    }

    /// What cannot be written down is not taken in: the sender repeats it, and nothing piles up in
    /// front of a disk that is full or hangs (PITFALLS 44, 45, 59). A disk that is nearly full takes
    /// what does not grow, so that there is a way to make room.
    pub fn takes_in(&self, message: &Message) -> bool {
        match message {
            Message::Accept { value, .. } => {
                self.has_room() && !(self.is_full() && batch::may_grow(value))
            }
            Message::Chosen { values, .. } => {
                self.has_room() && !(self.is_full() && values.iter().any(batch::may_grow))
            }
            // Their answers list the log and wait for the disk, and they teach what is chosen.
            Message::Prepare { .. } | Message::Promise { .. } => {
                self.unsynced_bytes.load(Relaxed) < UNSYNCED_BYTES_MAX
            }
            _ => true,
        }
    }

    fn has_room(&self) -> bool {
        !self.blocked.load(Relaxed) && self.unsynced_bytes.load(Relaxed) < UNSYNCED_BYTES_MAX
    }

    /// A group of so many bytes was handed over.
    pub fn hand_over(&self, bytes: u64, now_us: u64) {
        self.unsynced_bytes.fetch_add(bytes, Relaxed);
        self.begin(now_us);
    }

    /// A group was handed over, or its writing begins.
    pub fn begin(&self, now_us: u64) {
        let _ = self.unsynced_since_us.compare_exchange(0, now_us, Relaxed, Relaxed);
    }

    /// A sync found no space: it is tried again.
    pub fn sync_found_no_space(&self) {
        self.full.store(true, Relaxed);
        self.blocked.store(true, Relaxed);
    }

    /// What came of one round of writing. `waiting`: more was taken meanwhile, or waits for space.
    pub fn settle(&self, settled: &Settled, waiting: bool, now_us: u64) {
        self.full.store(settled.full, Relaxed);
        self.blocked.store(settled.waits_for_space, Relaxed);
        let since_us = if waiting { now_us } else { 0 };
        if settled.waits_for_space {
            // Keeps the age of what waits, so that the node turns grey.
            self.begin(since_us);
        } else {
            self.unsynced_since_us.store(since_us, Relaxed);
        }
        let unsynced_bytes = self.unsynced_bytes.load(Relaxed);
        assert!(settled.synced_bytes <= unsynced_bytes, "more was synced than was handed over");
        self.unsynced_bytes.fetch_sub(settled.synced_bytes, Relaxed);
        if let Some(position) = settled.synced {
            self.synced.store(position.0, Relaxed);
        }
    }

    /// Idle work has looked at the disk. True if that changed anything.
    pub fn set_full(&self, full: bool) -> bool {
        self.full.swap(full, Relaxed) != full
    }

    /// For `chaos` only.
    pub(crate) fn slow_down(&self, by: Duration) {
        self.slower_ms.store(by.as_millis() as u64, Relaxed);
    }

    /// The journal failed, and what the disk holds is not known: the node stops.
    pub fn fail(&self, text: String) {
        *self.failure.lock().expect("no holder of this lock panics") = Some(text);
    }

    /// Shows the journal's figures.
    pub fn publish(&self, appender: &Appender) {
        let stats = appender.stats();
        self.journal_bytes.store(stats.bytes, Relaxed);
        self.written_bytes.store(stats.written_bytes, Relaxed);
        if let Ok(free_bytes) = appender.free_bytes() {
            self.free_bytes.store(free_bytes, Relaxed);
        }
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
            appender: Appender::new(journal),
            received,
            state: Arc::clone(&state),
            wake,
            observe: Box::new(observe),
        };
        let thread = std::thread::Builder::new().name("sync".into()).spawn(move || worker.run())?;
        Ok(Syncer { orders, state, thread: Some(thread) })
    }

    pub fn append(&self, append: Append) {
        self.state.hand_over(append.len_bytes(), clock::now().mono_us);
        self.order(Order::Append(append));
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
    appender: Appender,
    received: Receiver<Order>,
    state: Arc<SyncState>,
    wake: Arc<Notify>,
    observe: Box<dyn Fn(Duration) + Send>,
}

/// Idle for so long: write the seal, and make spare segments.
const IDLE: Duration = Duration::from_millis(100);
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// A sync of this length is told of: it takes half of what makes a node grey.
const SLOW_SYNC: Duration = Duration::from_millis(250);
/// A group that waits this long for its sync makes the node grey: it could not accept now.
const UNSYNCED_US_MAX: u64 = 500_000;
/// Records may wait for the disk up to this many bytes; then no more are taken in.
const UNSYNCED_BYTES_MAX: u64 = 64 << 20;
/// Orders taken at once, at most, so that the first of them is not kept waiting.
const ORDERS_MAX: usize = 1_024;

impl Worker {
    fn run(mut self) {
        if let Err(error) = self.work() {
            let text = describe(&error);
            tracing::error!(error = %text, "the journal failed: this node stops");
            self.state.fail(text);
            self.wake.notify_one();
        }
    }

    fn work(&mut self) -> Result<(), Error> {
        self.state.publish(&self.appender);
        loop {
            let is_idle = self.appender.waiting_count() == 0;
            match self.received.recv_timeout(if is_idle { IDLE } else { FULL_PAUSE }) {
                Ok(order) => self.appender.take(order),
                Err(RecvTimeoutError::Timeout) if is_idle => {
                    self.idle()?;
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            while self.appender.waiting_count() < ORDERS_MAX
                && let Ok(order) = self.received.try_recv()
            {
                self.appender.take(order);
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
        self.state.begin(clock::now().mono_us);
        self.appender.append_waiting()?;
        if self.appender.needs_sync() {
            let started = Instant::now();
            std::thread::sleep(Duration::from_millis(self.state.slower_ms.load(Relaxed)));
            while !self.appender.sync()? {
                self.state.sync_found_no_space();
                self.wake.notify_one();
                std::thread::sleep(FULL_PAUSE);
            }
            let took = started.elapsed();
            if took >= SLOW_SYNC {
                tracing::warn!(
                    took_ms = took.as_millis(),
                    "a sync took long: the disk is slow or shared"
                );
            }
            (self.observe)(took);
        }
        let settled = self.appender.settle()?;
        let waiting = self.appender.waiting_count() > 0;
        self.state.settle(&settled, waiting, clock::now().mono_us);
        self.state.publish(&self.appender);
        self.wake.notify_one();
        Ok(settled.stop)
    }

    fn idle(&mut self) -> Result<(), Error> {
        let full = self.appender.idle()?;
        if self.state.set_full(full) {
            self.wake.notify_one();
        }
        self.state.publish(&self.appender);
        Ok(())
    }
}

/// The error with its causes, in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use paxos::{Ballot, BatchId, Slot, Value};

    use super::*;
    use crate::batch::BatchBuilder;
    use crate::store::Transaction;

    /// A disk that is nearly full takes what makes room, and nothing that grows.
    #[test]
    fn a_full_disk_takes_what_does_not_grow() {
        let accept = |command: &[&[u8]]| {
            let mut batch = BatchBuilder::default();
            batch.push(command);
            let value = Value::Batch { id: BatchId::default(), payload: batch.finish(1, 1) };
            Message::Accept { ballot: Ballot::ZERO, slot: Slot::FIRST, value, hint: Slot::ZERO }
        };
        let state = SyncState::default();
        state.set_full(true);
        assert!(state.takes_in(&accept(&[b"DEL", b"k"])));
        assert!(state.takes_in(&accept(&[b"FLUSHALL"])));
        assert!(!state.takes_in(&accept(&[b"SET", b"k", b"v"])));
        assert!(!state.takes_in(&accept(&[b"APPEND", b"k", b"v"])));
        let transaction = |command: &[&[u8]]| {
            let argv = Transaction::write::<&[u8], &[u8]>(&[], &[command]);
            let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
            state.takes_in(&accept(&argv))
        };
        assert!(transaction(&[b"DEL", b"k"]) && transaction(&[b"GET", b"k"]));
        assert!(!transaction(&[b"SET", b"k", b"v"]));
        assert!(state.takes_in(&accept(&[b"ONCE", b"1", b"1", b"DEL", b"k"])));
        assert!(!state.takes_in(&accept(&[b"ONCE", b"1", b"1", b"SET", b"k", b"v"])));
        state.set_full(false);
        assert!(state.takes_in(&accept(&[b"SET", b"k", b"v"])));
    }

    /// PITFALLS 44, 45, 59: whatever is repeated to a node whose disk hangs or is full must not
    /// pile up in its memory; what costs no record still passes.
    #[test]
    fn nothing_piles_up_in_front_of_the_disk() {
        let payload = BatchBuilder::default().finish(1, 1);
        let value = Value::Batch { id: BatchId::default(), payload };
        let accept = Message::Accept {
            ballot: Ballot::ZERO,
            slot: Slot::FIRST,
            value: value.clone(),
            hint: Slot::ZERO,
        };
        let chosen = Message::Chosen { first: Slot::FIRST, values: vec![value] };
        let prepare = Message::Prepare {
            ballot: Ballot::ZERO,
            from_slot: Slot::FIRST,
            holds: Vec::new(),
            release: None,
        };
        let state = SyncState::default();
        let taken = |state: &SyncState| {
            [&accept, &chosen, &prepare, &Message::Ping].map(|message| state.takes_in(message))
        };
        assert_eq!(taken(&state), [true, true, true, true]);
        state.set_full(true);
        assert_eq!(taken(&state), [true, true, true, true], "nothing in them grows");
        state.settle(&Settled { waits_for_space: true, full: true, ..Settled::default() }, true, 1);
        assert_eq!(taken(&state), [false, false, true, true], "a full disk may still promise");
        state.settle(&Settled::default(), false, 1);
        state.hand_over(UNSYNCED_BYTES_MAX, 1);
        assert_eq!(taken(&state), [false, false, false, true], "the disk hangs");
        let synced_bytes = UNSYNCED_BYTES_MAX;
        let settled = Settled { synced: Some(Position(7)), synced_bytes, ..Settled::default() };
        state.settle(&settled, false, 2);
        assert_eq!(taken(&state), [true, true, true, true]);
    }
}
