//! The receiver's side of a stream, as the core sees it: whose parts are taken.
//!
//! One stream is taken in at a time: two would throw away each other's parts (PITFALLS 68). Another
//! one is turned away as long as this one moves, and takes its place when its sender has fallen silent.

use std::ops::Range;
use std::time::Duration;

use paxos::NodeId;

use super::file::FileId;
use super::part::NOT_WANTED;

/// A stream of which nothing has come for so long has ended.
const SILENT_US: u64 = 5_000_000;
/// The same after its link was cut: it may be back in a moment, with the other half of the file.
const CUT_US: u64 = 2_000_000;

#[derive(Default)]
pub(super) struct Receiving {
    stream: Option<Installing>,
    /// The file of which something arrived last, and from whom.
    last: Option<(FileId, NodeId)>,
    pub(super) counts: StreamCounts,
}

/// Streams that did not begin at nothing, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounts {
    pub resumed: u64,
    /// Those among them whose former part another peer had sent.
    pub moved: u64,
}

struct Installing {
    from: NodeId,
    file: FileId,
    /// Nothing has arrived since it began, or since its link was cut.
    begins: bool,
    /// All has arrived, and is being read: it is not given up any more.
    loading: bool,
    started_us: u64,
    heard_us: u64,
}

/// What to do with an offer or a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is of this file.
    In(FileId),
    /// The answer, without a look at the disk.
    Answer(u64),
    /// Nothing: the sender will ask again.
    Ignored,
}

impl Receiving {
    pub(super) fn is_active(&self) -> bool {
        self.stream.is_some()
    }

    pub(super) fn file(&self) -> Option<FileId> {
        self.stream.as_ref().map(|stream| stream.file)
    }

    /// `from` would send this file.
    pub(super) fn offered(&mut self, from: NodeId, file: FileId, now_us: u64) -> Taken {
        if let Some(stream) = &mut self.stream {
            if stream.loading {
                return Taken::Answer(if stream.file == file { file.bytes } else { NOT_WANTED });
            }
            if stream.from != from && !stream.is_silent(now_us) {
                return Taken::Answer(NOT_WANTED);
            }
            if stream.file == file {
                let was_quiet = now_us.saturating_sub(stream.heard_us) >= CUT_US / 4;
                stream.begins |= stream.from != from || was_quiet;
                (stream.from, stream.heard_us) = (from, now_us);
                return Taken::In(file);
            }
        }
        self.begin(from, file, now_us)
    }

    /// A part of a file that covers the slots below `file.below`; its sum is not known.
    pub(super) fn part(
        &mut self,
        from: NodeId,
        file: FileId,
        part: Range<u64>,
        now_us: u64,
    ) -> Taken {
        let Some(stream) = &mut self.stream else {
            return match (part.start, part.end) {
                // It follows an offer, which got lost.
                (0, 0) => Taken::Ignored,
                (0, _) => self.begin(from, file, now_us),
                // A process before this one was offered the file: it has to be again.
                _ => Taken::Answer(0),
            };
        };
        let fits = (stream.file.below, stream.file.bytes) == (file.below, file.bytes);
        if stream.from != from || !fits {
            return Taken::Answer(NOT_WANTED);
        }
        stream.heard_us = now_us;
        match stream.loading {
            true => Taken::Answer(stream.file.bytes),
            false => Taken::In(stream.file),
        }
    }

    fn begin(&mut self, from: NodeId, file: FileId, now_us: u64) -> Taken {
        let (started_us, heard_us) = (now_us, now_us);
        self.stream =
            Some(Installing { from, file, begins: true, loading: false, started_us, heard_us });
        Taken::In(file)
    }

    /// So much of the file is here. The answer is who wants to know, and whether that is all of it,
    /// for the first time.
    pub(super) fn arrived(&mut self, file: FileId, have: u64) -> Option<(NodeId, bool)> {
        let stream = self.stream.as_mut().filter(|stream| stream.file == file)?;
        if std::mem::take(&mut stream.begins) && have > 0 {
            tracing::info!(peer = %stream.from, below = %file.below, have, "a snapshot goes on");
            self.counts.resumed += 1;
            let moved = self.last.is_some_and(|last| last.0 == file && last.1 != stream.from);
            self.counts.moved += u64::from(moved);
        }
        if have > 0 {
            self.last = Some((file, stream.from));
        }
        let complete = have == file.bytes && !stream.loading;
        stream.loading |= complete;
        Some((stream.from, complete))
    }

    /// The stream is over. How long it took.
    pub(super) fn ended(&mut self, now_us: u64) -> Duration {
        let started_us = self.stream.take().map_or(now_us, |stream| stream.started_us);
        Duration::from_micros(now_us.saturating_sub(started_us))
    }

    pub(super) fn link_lost(&mut self, peer: NodeId, now_us: u64) {
        if let Some(stream) = &mut self.stream
            && stream.from == peer
        {
            stream.begins = true;
            let cut_us = (now_us + CUT_US).saturating_sub(SILENT_US);
            stream.heard_us = stream.heard_us.min(cut_us);
        }
    }

    /// Its sender may have gone away: then anybody's file is as good.
    pub(super) fn give_up_if_silent(&mut self, now_us: u64) {
        self.stream.take_if(|stream| !stream.loading && stream.is_silent(now_us));
    }
}

impl Installing {
    fn is_silent(&self, now_us: u64) -> bool {
        now_us.saturating_sub(self.heard_us) >= SILENT_US
    }
}
