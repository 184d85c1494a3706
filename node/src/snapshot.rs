//! Snapshots: when one is taken, what they let go of, and their journey to a peer that is too far
//! behind for the log.
//!
//! The core loop only walks the store, a bounded piece at a time, and reads and sends bounded parts
//! of files; writing, checking and loading is the work of the snapshot thread (`worker.rs`), with a
//! lower priority. A file is complete or it is not there: it is written beside the others, synced,
//! then named (`file.rs`).
//!
//! The log is trimmed behind the *second* newest snapshot: if the newest turns out to be bad, the
//! one before and the log from there on hold everything (PITFALLS 7).

mod file;
mod incoming;
mod part;
mod pins;
mod receiving;
mod sending;
mod streams;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use journal::Disk;
use paxos::{NodeId, Now, Slot};
use tokio::sync::Notify;

use self::file::name_of;
use self::pins::Pins;
use self::receiving::Receiving;
use self::sending::Outgoing;
use self::worker::Worker;
use crate::metrics::{Metrics, SnapshotKind};
use crate::node::Node;
use crate::peers::Links;
use crate::store::SnapshotStep;

pub use self::file::{FileId, Found, Loaded, SnapshotError, load_newest};
pub use self::receiving::StreamCounts;
pub use self::worker::{Done, Files, Job, Jobs};

/// Bytes of records that are copied out of the store in one tick.
const STEP_BYTES: usize = 512 << 10;
/// A snapshot that could not be written is tried again after this long.
const RETRY_US: u64 = 5_000_000;

/// How parts reach a peer.
pub trait PartSender {
    /// Sends one part; it may be lost.
    fn send_part(&self, to: NodeId, part: &Bytes);
    /// Bytes of earlier parts that wait here to be sent.
    fn queued_bytes(&self, to: NodeId) -> usize;
}

impl PartSender for Links {
    fn send_part(&self, to: NodeId, part: &Bytes) {
        self.send_snapshot(to, part);
    }

    fn queued_bytes(&self, to: NodeId) -> usize {
        self.bulk_bytes_queued(to)
    }
}

pub struct Snapshots {
    disk: Arc<dyn Disk>,
    every_bytes: u64,
    worker: Worker,
    metrics: Arc<Metrics>,
    /// Complete files, by the first slot that each does not cover.
    kept: BTreeMap<Slot, Kept>,
    writing: Option<Writing>,
    /// Bytes of the journal that no snapshot covers and that were there at the start.
    found_bytes: u64,
    /// Were written since the start.
    journal_bytes: u64,
    written_at_last: u64,
    /// The last one failed, or a file turned out to be bad: due at this time, however little was
    /// written since.
    retry_us: Option<u64>,
    /// Not before this is another one due because the disk is full.
    full_again_us: u64,
    sending: BTreeMap<NodeId, Outgoing>,
    /// The file whose stream to a peer began last: it may have half of it.
    begun: BTreeMap<NodeId, Slot>,
    /// Nothing is offered to a peer before this time.
    paused_until_us: BTreeMap<NodeId, u64>,
    pins: Pins,
    receiving: Receiving,
}

/// A complete file.
#[derive(Clone, Copy, Debug)]
struct Kept {
    bytes: u64,
    /// What it is, once it was read by this process, or came from a peer.
    file: Option<FileId>,
    /// It cannot be read any more.
    bad: bool,
}

struct Writing {
    below: Slot,
    started_us: u64,
    /// The thread is behind: the next piece waits.
    waiting: Option<Job>,
}

impl Kept {
    fn new(bytes: u64) -> Kept {
        Kept { bytes, file: None, bad: false }
    }
}

impl Snapshots {
    /// `found` are the complete files, as [`load_newest`] saw them. A thread works on the files,
    /// and notifies `wake` when there is something to tell.
    pub fn start(
        disk: Arc<dyn Disk>,
        every_bytes: u64,
        found: Vec<(Slot, u64)>,
        metrics: Arc<Metrics>,
        wake: Arc<Notify>,
    ) -> io::Result<Snapshots> {
        let worker = Worker::start(Arc::clone(&disk), wake)?;
        Ok(Snapshots::with(worker, disk, every_bytes, found, metrics))
    }

    /// As [`Snapshots::start`], without the thread: whoever holds the [`Jobs`] does them, with
    /// [`Files`], when it likes.
    pub fn unattended(
        disk: Arc<dyn Disk>,
        every_bytes: u64,
        found: Vec<(Slot, u64)>,
        metrics: Arc<Metrics>,
    ) -> (Snapshots, Jobs) {
        let (worker, jobs) = Worker::new();
        (Snapshots::with(worker, disk, every_bytes, found, metrics), jobs)
    }

    fn with(
        worker: Worker,
        disk: Arc<dyn Disk>,
        every_bytes: u64,
        found: Vec<(Slot, u64)>,
        metrics: Arc<Metrics>,
    ) -> Snapshots {
        Snapshots {
            disk,
            every_bytes,
            worker,
            metrics,
            kept: found.into_iter().map(|(below, bytes)| (below, Kept::new(bytes))).collect(),
            writing: None,
            found_bytes: 0,
            journal_bytes: 0,
            written_at_last: 0,
            retry_us: None,
            full_again_us: 0,
            sending: BTreeMap::new(),
            begun: BTreeMap::new(),
            paused_until_us: BTreeMap::new(),
            pins: Pins::new(every_bytes),
            receiving: Receiving::default(),
        }
    }

    /// What the journal held at the start counts too: a node that is restarted again and again would
    /// otherwise never take one.
    pub fn behind(mut self, found_bytes: u64) -> Snapshots {
        self.found_bytes = found_bytes;
        self
    }

    /// Everything below is covered by the newest snapshot; `Slot::FIRST` without one.
    pub fn newest_below(&self) -> Slot {
        self.usable().next().unwrap_or(Slot::FIRST)
    }

    /// The files that can be read, newest first.
    fn usable(&self) -> impl Iterator<Item = Slot> + '_ {
        self.kept.iter().rev().filter(|(_, kept)| !kept.bad).map(|(below, _)| *below)
    }

    /// `journal_bytes` were written into the journal since the start.
    pub fn tick(&mut self, now: Now, node: &mut Node, links: &dyn PartSender, journal_bytes: u64) {
        self.journal_bytes = journal_bytes;
        while let Some(done) = self.worker.next_done() {
            self.on_done(now, done, node, links);
        }
        self.begin_if_due(now, node);
        self.walk(node);
        self.tick_streams(now, node, links);
    }

    fn on_done(&mut self, now: Now, done: Done, node: &mut Node, links: &dyn PartSender) {
        match done {
            Done::Written { below, bytes, started_us } => {
                let took = Duration::from_micros(now.mono_us.saturating_sub(started_us));
                tracing::info!(%below, bytes, ms = took.as_millis() as u64, "snapshot written");
                self.metrics.observe_snapshot(SnapshotKind::Write, took, true);
                self.keep(below, bytes, node);
            }
            Done::WriteFailed { below, error } => {
                tracing::error!(%below, %error, "write a snapshot");
                self.metrics.observe_snapshot(SnapshotKind::Write, Duration::ZERO, false);
                if !self.is_writing(below) {
                    return;
                }
                node.store.abort_snapshot();
                self.writing = None;
                self.retry_us = Some(now.mono_us + RETRY_US);
            }
            Done::Checked { below, result } => self.on_checked(now, below, result, links),
            Done::Received { file, have, .. } => self.on_received(file, have, links),
            Done::ReceiveFailed { from, file, error, bad } => {
                self.on_receive_failed(now, from, file, &error, bad, links);
            }
            Done::Installed { from, file, loaded } => {
                let below = file.below;
                tracing::info!(peer = %from, %below, bytes = file.bytes, "snapshot installed");
                let took = self.receiving.ended(now.mono_us);
                self.metrics.observe_snapshot(SnapshotKind::Install, took, true);
                let old = node.install(now, *loaded);
                if self.writing.is_some() && !node.store.is_snapshotting() {
                    // The walk went with the old store: what it has written so far is of no use.
                    self.writing = None;
                    self.worker.order(Job::Abandon);
                }
                self.worker.order(Job::Bury(Box::new(old)));
                self.answer(from, below, file.bytes, links);
                let known = file.sum.map(|_| file);
                self.kept.insert(below, Kept { file: known, ..Kept::new(file.bytes) });
                self.forget_old();
            }
        }
    }

    /// A complete snapshot: lets go of what the one before it covers, as far as no peer that is being
    /// brought up needs it.
    fn keep(&mut self, below: Slot, bytes: u64, node: &mut Node) {
        if self.is_writing(below) {
            self.writing = None;
        }
        self.kept.insert(below, Kept::new(bytes));
        let bad: Vec<Slot> =
            self.kept.iter().filter(|(_, kept)| kept.bad).map(|(below, _)| *below).collect();
        for below in bad {
            self.kept.remove(&below);
            self.worker.order(Job::PutAside { below });
        }
        self.worker.order(Job::Forget { below });
        self.forget_old();
        if let Some(second) = self.usable().nth(1) {
            let first_kept = self.pins.first_needed().map_or(second, |needed| needed.min(second));
            let (replica, output) = node.replica_mut();
            replica.trim(first_kept, output);
        }
    }

    fn is_writing(&self, below: Slot) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.below == below)
    }

    /// The two newest stay, and what is being sent.
    fn forget_old(&mut self) {
        let newest: Vec<Slot> = self.usable().take(2).collect();
        let is_sent = |below: &Slot| self.sending.values().any(|out| out.below == *below);
        let is_old = |(below, kept): &(&Slot, &Kept)| {
            !kept.bad && !newest.contains(below) && !is_sent(below)
        };
        let old: Vec<Slot> = self.kept.iter().filter(is_old).map(|(below, _)| *below).collect();
        for below in old {
            self.kept.remove(&below);
            if let Err(error) = self.disk.remove(&name_of(below)) {
                tracing::warn!(%error, %below, "remove an old snapshot");
            }
        }
    }

    /// What was journaled since the newest snapshot began.
    fn uncovered_bytes(&self) -> u64 {
        self.found_bytes + self.journal_bytes.saturating_sub(self.written_at_last)
    }

    /// Due by what was journaled, and on a full disk too: there only what makes room is taken, and
    /// that is short. Nothing would ever be trimmed behind what was deleted, and the disk would stay
    /// full for good.
    fn begin_if_due(&mut self, now: Now, node: &mut Node) {
        let is_full = node.is_full() && now.mono_us >= self.full_again_us;
        let due = match self.retry_us {
            Some(retry_us) => now.mono_us >= retry_us,
            None => is_full || self.uncovered_bytes() >= self.every_bytes,
        };
        // A node that has come to what it cannot apply is about to stop.
        if self.writing.is_some() || !due || node.beyond.is_some() {
            return;
        }
        if node.first_unapplied() <= self.newest_below() {
            // The log is trimmed behind the second newest, for which something has to be applied.
            if is_full && node.replica.first_kept() < self.newest_below() {
                node.want_mark();
            }
            return;
        }
        self.retry_us = None;
        self.full_again_us = now.mono_us + RETRY_US;
        (self.found_bytes, self.written_at_last) = (0, self.journal_bytes);
        let (below, head, configuration) = node.begin_snapshot(now);
        self.writing = Some(Writing {
            below,
            started_us: now.mono_us,
            waiting: Some(Job::Begin { below, head, configuration }),
        });
        tracing::info!(%below, records = head.records, "snapshot begins");
    }

    /// Copies the next piece of the store out, and whatever changes have pushed out meanwhile, as far
    /// as the thread keeps up.
    fn walk(&mut self, node: &mut Node) {
        let Some(writing) = &mut self.writing else { return };
        loop {
            if let Some(job) = writing.waiting.take()
                && let Err(job) = self.worker.try_order(job)
            {
                writing.waiting = Some(*job);
                return;
            }
            let has_more = node.store.has_full_snapshot_chunks();
            match node.store.snapshot_step(STEP_BYTES) {
                Some(SnapshotStep::Chunk(chunk)) => writing.waiting = Some(Job::Chunk(chunk)),
                Some(SnapshotStep::Done) => {
                    let (below, started_us) = (writing.below, writing.started_us);
                    writing.waiting = Some(Job::End { below, started_us });
                }
                None => {}
            }
            if !has_more {
                return;
            }
        }
    }
}

#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
