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
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use journal::{Disk, DiskFile};
use paxos::{NodeId, Now, Slot};
use tokio::sync::Notify;

use self::file::name_of;
use self::worker::Worker;
use crate::metrics::{Metrics, SnapshotKind};
use crate::node::Node;
use crate::peers::Links;
use crate::store::SnapshotStep;

pub use self::file::{Found, Loaded, SnapshotError, load_newest};
pub use self::worker::{Done, Files, Job, Jobs};

/// Bytes of records that are copied out of the store in one tick.
const STEP_BYTES: usize = 512 << 10;
const PART_BYTES: usize = 256 << 10;
/// Bytes that may be on their way to one peer without an answer.
const WINDOW_BYTES: u64 = 2 << 20;
const RESEND_US: u64 = 1_000_000;
/// A snapshot that could not be written is tried again after this long.
const RETRY_US: u64 = 5_000_000;
/// A stream of which nothing has come for so long has ended.
const SILENT_US_MAX: u64 = 5_000_000;
/// A stream holds the log for its receiver no longer than this.
const STREAM_US_MAX: u64 = 120_000_000;

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
    kept: BTreeMap<Slot, u64>,
    writing: Option<Writing>,
    /// Bytes of the journal that no snapshot covers and that were there at the start.
    found_bytes: u64,
    written_at_last: u64,
    /// The last one failed: due at this time, however little was written since.
    retry_us: Option<u64>,
    sending: BTreeMap<NodeId, Outgoing>,
    installing: Option<Installing>,
}

/// The one stream that is taken in. Another that begins meanwhile is not wanted: two would throw
/// away each other's parts (PITFALLS 68).
struct Installing {
    from: NodeId,
    below: Slot,
    started_us: u64,
    heard_us: u64,
}

struct Writing {
    below: Slot,
    started_us: u64,
    /// The thread is behind: the next piece waits.
    waiting: Option<Job>,
}

struct Outgoing {
    below: Slot,
    file: Box<dyn DiskFile>,
    total: u64,
    sent: u64,
    acked: u64,
    progress_us: u64,
    started_us: u64,
}

/// What travels: a part of a file, or how much of it has arrived.
enum Part {
    Bytes { below: Slot, offset: u64, total: u64, bytes: Bytes },
    Have { below: Slot, bytes: u64 },
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
            kept: found.into_iter().collect(),
            writing: None,
            found_bytes: 0,
            written_at_last: 0,
            retry_us: None,
            sending: BTreeMap::new(),
            installing: None,
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
        self.kept.last_key_value().map_or(Slot::FIRST, |(below, _)| *below)
    }

    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// `journal_bytes` were written into the journal since the start.
    pub fn tick(&mut self, now: Now, node: &mut Node, links: &dyn PartSender, journal_bytes: u64) {
        while let Some(done) = self.worker.next_done() {
            self.on_done(now, done, node, links);
        }
        // The sender may have gone away, and the log may have come as far by another way.
        self.installing = self.installing.take().filter(|stream| {
            stream.below > node.first_unapplied()
                && now.mono_us.saturating_sub(stream.heard_us) < SILENT_US_MAX
        });
        self.begin_if_due(now, node, journal_bytes);
        self.walk(node);
        let peers: Vec<NodeId> = self.sending.keys().copied().collect();
        for peer in peers {
            self.send_parts(now, peer, links);
        }
    }

    /// `peer` needs slots that are trimmed here.
    pub fn wanted(&mut self, now: Now, peer: NodeId, node: &Node, links: &dyn PartSender) {
        if self.sending.contains_key(&peer) {
            return;
        }
        let Some((&below, &total)) = self.kept.last_key_value() else {
            tracing::error!(first_kept = %node.replica.first_kept(), "trimmed without a snapshot");
            return;
        };
        let file = match self.disk.open(&name_of(below)) {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(%error, %below, "open a snapshot to send it");
                return;
            }
        };
        tracing::info!(%peer, %below, bytes = total, "sending a snapshot");
        let outgoing = Outgoing {
            below,
            file,
            total,
            sent: 0,
            acked: 0,
            progress_us: now.mono_us,
            started_us: now.mono_us,
        };
        self.sending.insert(peer, outgoing);
        self.send_parts(now, peer, links);
    }

    pub fn peer_lost(&mut self, peer: NodeId) {
        self.sending.remove(&peer);
        self.installing = self.installing.take().filter(|stream| stream.from != peer);
    }

    /// A part of a snapshot, or the answer to one.
    pub fn received(
        &mut self,
        now: Now,
        from: NodeId,
        part: Bytes,
        node: &mut Node,
        links: &dyn PartSender,
    ) {
        match Part::decode(part) {
            Some(Part::Bytes { below, offset, total, bytes }) => {
                // Old news: it would not bring this node forward.
                if below <= node.first_unapplied() {
                    self.answer(from, below, total, links);
                    return;
                }
                let installing = self.installing.get_or_insert(Installing {
                    from,
                    below,
                    started_us: now.mono_us,
                    heard_us: now.mono_us,
                });
                if (installing.from, installing.below) != (from, below) {
                    self.answer(from, below, total, links);
                    return;
                }
                installing.heard_us = now.mono_us;
                self.worker.order(Job::Receive { from, below, offset, total, bytes });
            }
            Some(Part::Have { below, bytes }) => {
                let Some(outgoing) = self.sending.get_mut(&from) else { return };
                if outgoing.below != below {
                    return;
                }
                outgoing.progress_us = now.mono_us;
                outgoing.acked = bytes.min(outgoing.total);
                // A stream that was cut off goes on where it was: the rest is there already.
                outgoing.sent = outgoing.sent.max(outgoing.acked);
                if outgoing.acked < outgoing.sent
                    && bytes < outgoing.sent - WINDOW_BYTES.min(outgoing.sent)
                {
                    outgoing.sent = outgoing.acked;
                }
                if outgoing.acked >= outgoing.total {
                    let took =
                        Duration::from_micros(now.mono_us.saturating_sub(outgoing.started_us));
                    self.metrics.observe_snapshot(SnapshotKind::Send, took, true);
                    self.sending.remove(&from);
                    return;
                }
                self.send_parts(now, from, links);
            }
            None => tracing::warn!(peer = %from, "a part of a snapshot that cannot be read"),
        }
    }

    fn answer(&self, to: NodeId, below: Slot, bytes: u64, links: &dyn PartSender) {
        links.send_part(to, &Part::Have { below, bytes }.encode());
    }

    fn send_parts(&mut self, now: Now, peer: NodeId, links: &dyn PartSender) {
        let Some(outgoing) = self.sending.get_mut(&peer) else { return };
        if now.mono_us.saturating_sub(outgoing.started_us) > STREAM_US_MAX {
            tracing::warn!(%peer, "a snapshot took too long to send, it starts again");
            let took = Duration::from_micros(STREAM_US_MAX);
            self.metrics.observe_snapshot(SnapshotKind::Send, took, false);
            self.sending.remove(&peer);
            return;
        }
        if now.mono_us.saturating_sub(outgoing.progress_us) > RESEND_US {
            outgoing.progress_us = now.mono_us;
            outgoing.sent = outgoing.acked;
        }
        while outgoing.sent < outgoing.total
            && outgoing.sent - outgoing.acked.min(outgoing.sent) < WINDOW_BYTES
            && links.queued_bytes(peer) < WINDOW_BYTES as usize
        {
            let length = (outgoing.total - outgoing.sent).min(PART_BYTES as u64) as usize;
            let mut bytes = vec![0; length];
            if let Err(error) = outgoing.file.read_at(outgoing.sent, &mut bytes) {
                tracing::error!(%error, below = %outgoing.below, "read a snapshot to send it");
                self.sending.remove(&peer);
                return;
            }
            let part = Part::Bytes {
                below: outgoing.below,
                offset: outgoing.sent,
                total: outgoing.total,
                bytes: bytes.into(),
            };
            links.send_part(peer, &part.encode());
            outgoing.sent += length as u64;
        }
    }

    fn on_done(&mut self, now: Now, done: Done, node: &mut Node, links: &dyn PartSender) {
        match done {
            Done::Written { below, bytes, started_us } => {
                let took = Duration::from_micros(now.mono_us.saturating_sub(started_us));
                tracing::info!(%below, bytes, ms = took.as_millis() as u64, "snapshot written");
                self.metrics.observe_snapshot(SnapshotKind::Write, took, true);
                self.keep(now, below, bytes, node);
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
            Done::Received { from, below, have } => self.answer(from, below, have, links),
            Done::ReceiveFailed { from, below, error } => {
                tracing::error!(peer = %from, %below, %error, "receive a snapshot");
                let took = self.install_time(now);
                self.metrics.observe_snapshot(SnapshotKind::Install, took, false);
            }
            Done::Installed { from, below, total, loaded } => {
                tracing::info!(peer = %from, %below, bytes = total, "snapshot installed");
                let took = self.install_time(now);
                self.metrics.observe_snapshot(SnapshotKind::Install, took, true);
                let Loaded { store, configuration, .. } = *loaded;
                let old = node.install(now, store, below, configuration);
                if self.writing.is_some() && !node.store.is_snapshotting() {
                    // The walk went with the old store: what it has written so far is of no use.
                    self.writing = None;
                    self.worker.order(Job::Abandon);
                }
                self.worker.order(Job::Bury(Box::new(old)));
                self.answer(from, below, total, links);
                self.kept.insert(below, total);
                self.forget_old();
            }
        }
    }

    fn install_time(&mut self, now: Now) -> Duration {
        let since_us = self.installing.take().map_or(now.mono_us, |stream| stream.started_us);
        Duration::from_micros(now.mono_us.saturating_sub(since_us))
    }

    /// A complete snapshot: lets go of what the one before it covers.
    fn keep(&mut self, now: Now, below: Slot, bytes: u64, node: &mut Node) {
        if self.is_writing(below) {
            self.writing = None;
        }
        self.kept.insert(below, bytes);
        self.forget_old();
        // A receiver needs the log from its snapshot on; a stream is bounded in time.
        let held = self
            .sending
            .values()
            .any(|outgoing| now.mono_us.saturating_sub(outgoing.started_us) < STREAM_US_MAX);
        if let Some((&second, _)) = self.kept.iter().rev().nth(1)
            && !held
        {
            let (replica, output) = node.replica_mut();
            replica.trim(second, output);
        }
    }

    fn is_writing(&self, below: Slot) -> bool {
        self.writing.as_ref().is_some_and(|writing| writing.below == below)
    }

    fn forget_old(&mut self) {
        while self.kept.len() > 2 {
            let Some((below, _)) = self.kept.pop_first() else { break };
            if let Err(error) = self.disk.remove(&name_of(below)) {
                tracing::warn!(%error, %below, "remove an old snapshot");
            }
        }
    }

    fn begin_if_due(&mut self, now: Now, node: &mut Node, journal_bytes: u64) {
        let due = match self.retry_us {
            Some(retry_us) => now.mono_us >= retry_us,
            None => {
                let written = journal_bytes.saturating_sub(self.written_at_last);
                self.found_bytes + written >= self.every_bytes
            }
        };
        if self.writing.is_some() || !due || node.first_unapplied() <= self.newest_below() {
            return;
        }
        self.retry_us = None;
        (self.found_bytes, self.written_at_last) = (0, journal_bytes);
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

const BYTES: u8 = 1;
const HAVE: u8 = 2;

impl Part {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Part::Bytes { below, offset, total, bytes } => {
                out.put_u8(BYTES);
                out.put_u64_le(below.0);
                out.put_u64_le(*offset);
                out.put_u64_le(*total);
                out.put_slice(bytes);
            }
            Part::Have { below, bytes } => {
                out.put_u8(HAVE);
                out.put_u64_le(below.0);
                out.put_u64_le(*bytes);
            }
        }
        out.freeze()
    }

    fn decode(mut part: Bytes) -> Option<Part> {
        let kind = part.try_get_u8().ok()?;
        let below = Slot(part.try_get_u64_le().ok()?);
        let number = part.try_get_u64_le().ok()?;
        match kind {
            BYTES => {
                let total = part.try_get_u64_le().ok()?;
                Some(Part::Bytes { below, offset: number, total, bytes: part })
            }
            HAVE => Some(Part::Have { below, bytes: number }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
