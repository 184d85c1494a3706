//! The work on snapshot files: writing, receiving, checking, loading. A thread of its own does it,
//! so that the core loop never waits for any of it; [`Files`] is that work without the thread.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};

use bytes::Bytes;
use journal::Disk;
use paxos::{Configuration, NodeId, Slot};
use tokio::sync::Notify;

use super::file::{self, FileId, Loaded, Writer, name_of};
use super::incoming::{self, Incoming, Verdict};
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
    /// Reads a complete file, before it is sent.
    Check {
        below: Slot,
    },
    /// This file is bad and will not be read any more.
    PutAside {
        below: Slot,
    },
    /// A peer would send this file: how much of it is here?
    Offered {
        from: NodeId,
        file: FileId,
    },
    Receive {
        from: NodeId,
        file: FileId,
        offset: u64,
        bytes: Bytes,
    },
    /// All of the file has arrived.
    Install {
        from: NodeId,
        file: FileId,
    },
    /// What has arrived of files that cover nothing above this slot is not needed any more.
    Forget {
        below: Slot,
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
    Checked {
        below: Slot,
        result: Result<FileId, String>,
    },
    /// So many bytes of the file are here.
    Received {
        from: NodeId,
        file: FileId,
        have: u64,
    },
    ReceiveFailed {
        from: NodeId,
        file: FileId,
        error: String,
        /// All of it had arrived, and it is no good: the sender's own may be no better.
        bad: bool,
    },
    Installed {
        from: NodeId,
        file: FileId,
        loaded: Box<Loaded>,
    },
}

/// The core's end.
pub(super) struct Worker {
    jobs: SyncSender<Job>,
    done: Receiver<Done>,
    /// What must not be dropped and found no place: it goes first.
    waiting: VecDeque<Job>,
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
        let worker = Worker { jobs, done, waiting: VecDeque::new() };
        (worker, Jobs { received, results })
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
        self.hand_over_waiting();
        self.done.try_recv().ok()
    }

    /// Gives the job back when the thread is behind: for what its sender repeats, or keeps.
    pub(super) fn try_order(&mut self, job: Job) -> Result<(), Box<Job>> {
        self.hand_over_waiting();
        if !self.waiting.is_empty() {
            return Err(Box::new(job));
        }
        self.hand_over(job)
    }

    /// For what nobody would repeat, in the order in which it was asked for. There is little of it.
    pub(super) fn order(&mut self, job: Job) {
        if let Err(job) = self.try_order(job) {
            self.waiting.push_back(*job);
        }
    }

    fn hand_over_waiting(&mut self) {
        while let Some(job) = self.waiting.pop_front() {
            if let Err(job) = self.hand_over(job) {
                self.waiting.push_front(*job);
                return;
            }
        }
    }

    fn hand_over(&self, job: Job) -> Result<(), Box<Job>> {
        match self.jobs.try_send(job) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(job)) => Err(Box::new(job)),
        }
    }
}

/// The files of one node: one being written, one being received.
pub struct Files {
    disk: Arc<dyn Disk>,
    writer: Option<(Slot, Writer)>,
    incoming: Option<Incoming>,
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
                    Err(error) => return Some(self.write_failed(below, &error)),
                }
                None
            }
            Job::Chunk(chunk) => {
                let (below, writer) = self.writer.as_mut()?;
                let below = *below;
                let error = writer.chunk(&chunk).err()?;
                self.writer = None;
                Some(self.write_failed(below, &error))
            }
            Job::End { below, started_us } => {
                let (_, writer) = self.writer.take()?;
                Some(match writer.finish() {
                    Ok(bytes) => Done::Written { below, bytes, started_us },
                    Err(error) => self.write_failed(below, error),
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
            Job::Check { below } => {
                let result = file::verify(&*self.disk, &name_of(below)).map_err(text);
                Some(Done::Checked { below, result })
            }
            Job::PutAside { below } => {
                if let Err(error) = file::put_aside(&*self.disk, below) {
                    tracing::warn!(%error, %below, "put a bad snapshot aside");
                }
                None
            }
            Job::Offered { from, file } => Some(self.receive(from, file, 0, &[])),
            Job::Receive { from, file, offset, bytes } => {
                Some(self.receive(from, file, offset, &bytes))
            }
            Job::Install { from, file } => self.install(from, file),
            Job::Forget { below } => {
                if self.incoming.as_ref().is_some_and(|incoming| incoming.below() <= below) {
                    self.incoming = None;
                }
                self.forget(Some(below));
                None
            }
        }
    }

    fn receive(&mut self, from: NodeId, file: FileId, offset: u64, bytes: &[u8]) -> Done {
        match self.take(from, file, offset, bytes) {
            Ok(have) => Done::Received { from, file, have },
            Err(error) => {
                self.incoming = None;
                self.forget(None);
                let error = error.to_string();
                Done::ReceiveFailed { from, file, error, bad: false }
            }
        }
    }

    /// The answer to a part is how much is here now, so that a stream goes on where it was cut off.
    fn take(&mut self, from: NodeId, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<u64> {
        if !self.incoming.as_ref().is_some_and(|incoming| incoming.is(from, file)) {
            self.incoming = None;
            self.incoming = Some(Incoming::open(&self.disk, from, file)?);
        }
        let incoming = self.incoming.as_mut().expect("it was just opened");
        incoming.take(offset, bytes)?;
        Ok(incoming.have())
    }

    fn install(&mut self, from: NodeId, file: FileId) -> Option<Done> {
        let incoming = self.incoming.take_if(|incoming| incoming.is(from, file))?;
        Some(match incoming.finish() {
            Ok(Verdict::Good(loaded)) => Done::Installed { from, file, loaded },
            Ok(Verdict::Bad(error)) => Done::ReceiveFailed { from, file, error, bad: true },
            Err(error) => {
                let error = error.to_string();
                Done::ReceiveFailed { from, file, error, bad: false }
            }
        })
    }

    /// What came in of a stream that is over must not be what keeps the disk full.
    fn write_failed(&mut self, below: Slot, error: impl ToString) -> Done {
        if self.incoming.is_none() {
            self.forget(None);
        }
        Done::WriteFailed { below, error: error.to_string() }
    }

    fn forget(&self, below: Option<Slot>) {
        if let Err(error) = incoming::forget(&*self.disk, below) {
            tracing::warn!(%error, "remove what came in of a snapshot");
        }
    }
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
