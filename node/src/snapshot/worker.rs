//! The work on snapshot files: writing, receiving, checking, loading. A thread of its own does it,
//! so that the core loop never waits for any of it; [`Files`] is that work without the thread.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};

use bytes::Bytes;
use journal::{Disk, DiskFile};
use paxos::{Configuration, NodeId, Slot};
use tokio::sync::Notify;

use super::file::{self, Loaded, UNFINISHED, Unfinished, Writer};
use crate::store::{SnapshotHead, Store};

/// An order of the core.
pub enum Job {
    Begin {
        below: Slot,
        head: SnapshotHead,
        configuration: Configuration,
    },
    Chunk(Vec<u8>),
    End {
        below: Slot,
        started_us: u64,
    },
    /// The file that is being written will not be finished.
    Abandon,
    /// Gives back its memory.
    Bury(Box<Store>),
    Receive {
        from: NodeId,
        below: Slot,
        offset: u64,
        total: u64,
        bytes: Bytes,
    },
}

/// What came of it.
pub enum Done {
    Written {
        below: Slot,
        bytes: u64,
        started_us: u64,
    },
    WriteFailed {
        below: Slot,
        error: String,
    },
    /// So many bytes of the file are here.
    Received {
        from: NodeId,
        below: Slot,
        have: u64,
    },
    ReceiveFailed {
        from: NodeId,
        below: Slot,
        error: String,
    },
    Installed {
        from: NodeId,
        below: Slot,
        total: u64,
        loaded: Box<Loaded>,
    },
}

/// The core's end.
pub(super) struct Worker {
    jobs: SyncSender<Job>,
    done: Receiver<Done>,
}

/// Pieces that wait for the disk, at most.
const JOBS_MAX: usize = 16;

/// The other end: the jobs in their order, and where their results go.
pub struct Jobs {
    pub received: Receiver<Job>,
    pub results: Sender<Done>,
}

impl Worker {
    pub(super) fn new() -> (Worker, Jobs) {
        let (jobs, received) = sync_channel(JOBS_MAX);
        let (results, done) = channel();
        (Worker { jobs, done }, Jobs { received, results })
    }

    /// A thread takes the jobs; `wake` is notified of every result.
    pub(super) fn start(disk: Arc<dyn Disk>, wake: Arc<Notify>) -> io::Result<Worker> {
        let (worker, jobs) = Worker::new();
        let mut files = Files::new(disk);
        let run = move || {
            lower_priority();
            while let Ok(job) = jobs.received.recv() {
                if let Some(done) = files.work(job) {
                    let _ = jobs.results.send(done);
                    wake.notify_one();
                }
            }
        };
        std::thread::Builder::new().name("snapshot".into()).spawn(run)?;
        Ok(worker)
    }

    pub(super) fn next_done(&mut self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    /// Gives the job back when the thread is behind.
    pub(super) fn try_order(&self, job: Job) -> Result<(), Box<Job>> {
        match self.jobs.try_send(job) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(job)) => Err(Box::new(job)),
        }
    }

    /// For what its sender repeats: dropped when the thread is behind.
    pub(super) fn order(&self, job: Job) {
        let _ = self.try_order(job);
    }
}

/// The files of one node: one being written, one being received.
pub struct Files {
    disk: Arc<dyn Disk>,
    writer: Option<(Slot, Writer)>,
    incoming: Option<Incoming>,
}

/// A file on its way in.
struct Incoming {
    /// Files of different nodes hold the same records in another order: parts do not mix.
    from: NodeId,
    below: Slot,
    part: Unfinished,
    file: Box<dyn DiskFile>,
    have: u64,
    total: u64,
}

impl Files {
    pub fn new(disk: Arc<dyn Disk>) -> Files {
        Files { disk, writer: None, incoming: None }
    }

    /// Does one job. None, when there is nothing to tell yet.
    pub fn work(&mut self, job: Job) -> Option<Done> {
        match job {
            Job::Begin { below, head, configuration } => {
                match Writer::create(&self.disk, below, &head, &configuration) {
                    Ok(writer) => self.writer = Some((below, writer)),
                    Err(error) => return Some(write_failed(below, &error)),
                }
                None
            }
            Job::Chunk(chunk) => {
                let (below, writer) = self.writer.as_mut()?;
                let error = writer.chunk(&chunk).err()?;
                let failed = write_failed(*below, &error);
                self.writer = None;
                Some(failed)
            }
            Job::End { below, started_us } => {
                let (_, writer) = self.writer.take()?;
                Some(match writer.finish() {
                    Ok(bytes) => Done::Written { below, bytes, started_us },
                    Err(error) => Done::WriteFailed { below, error },
                })
            }
            Job::Abandon => {
                self.writer = None;
                None
            }
            Job::Bury(store) => {
                drop(store);
                None
            }
            Job::Receive { from, below, offset, total, bytes } => {
                match self.receive(from, below, offset, total, &bytes) {
                    Ok(done) => Some(done),
                    Err(error) => {
                        self.incoming = None;
                        Some(Done::ReceiveFailed { from, below, error })
                    }
                }
            }
        }
    }

    /// Takes a part that continues what is here; anything else is answered with how much that is,
    /// so that a stream goes on where it was cut off.
    fn receive(
        &mut self,
        from: NodeId,
        below: Slot,
        offset: u64,
        total: u64,
        bytes: &[u8],
    ) -> Result<Done, String> {
        let fits = |incoming: &Incoming| {
            (incoming.from, incoming.below, incoming.total) == (from, below, total)
        };
        if !self.incoming.as_ref().is_some_and(fits) {
            // The core takes one stream in at a time, so whatever else is here has ended, be it newer:
            // its sender may be gone for ever. It goes first, as there may be room for one only.
            self.incoming = None;
            self.incoming = Some(Incoming::create(&self.disk, from, below, total).map_err(text)?);
        }
        let incoming = self.incoming.as_mut().ok_or("no file is open")?;
        if offset == incoming.have && offset + bytes.len() as u64 <= total {
            incoming.file.write_at(offset, bytes).map_err(text)?;
            incoming.have += bytes.len() as u64;
        }
        if incoming.have < total {
            return Ok(Done::Received { from, below, have: incoming.have });
        }
        let incoming = self.incoming.take().ok_or("no file is open")?;
        incoming.file.sync_data().map_err(text)?;
        // Checked before it gets its name: whatever bears one can be read.
        let loaded = file::load(&*self.disk, &incoming.part.name).map_err(text)?;
        if loaded.below != below {
            return Err(format!("the file covers slots below {}", loaded.below));
        }
        incoming.part.publish(below).map_err(text)?;
        Ok(Done::Installed { from, below, total, loaded: Box::new(loaded) })
    }
}

impl Incoming {
    fn create(disk: &Arc<dyn Disk>, from: NodeId, below: Slot, total: u64) -> io::Result<Incoming> {
        let (part, file) =
            Unfinished::create(disk, format!("incoming-{:020}{UNFINISHED}", below.0))?;
        Ok(Incoming { from, below, part, file, have: 0, total })
    }
}

fn write_failed(below: Slot, error: &io::Error) -> Done {
    Done::WriteFailed { below, error: error.to_string() }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// Commits come first: this thread yields to them.
fn lower_priority() {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), 10) {
        tracing::warn!(%error, "lower the priority of the snapshot thread");
    }
}
