//! The sender's side of a stream.
//!
//! The file is read once before it is offered, and sending begins at what the receiver has of it. As
//! long as its answers rise the stream goes on, however long it takes: only when nothing more has
//! arrived for [`STALLED_US`] is it over. What may be under way is what the link carries in about a
//! second, so that on a slow one whatever else goes to that peer is not stuck behind it.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use journal::DiskFile;
use paxos::Slot;

use super::file::FileId;
use super::part::{NOT_WANTED, Part};

const PART_BYTES_MAX: u64 = 256 << 10;
/// Bytes that may be on their way to one peer without an answer: at first, and at most.
const WINDOW_BYTES_MIN: u64 = 16 << 10;
const WINDOW_BYTES_MAX: u64 = 2 << 20;
/// A part that is answered sooner lets the window grow, one that is answered later makes it shrink.
const DELAY_US_LOW: u64 = 250_000;
const DELAY_US_HIGH: u64 = 1_000_000;
/// Without an answer for so long, or four times what the last one took, the receiver is asked again.
const ASK_AGAIN_US_MIN: u64 = 1_000_000;
const ASK_AGAIN_US_MAX: u64 = 4_000_000;
/// A stream of which nothing more has arrived for so long has ended.
pub(super) const STALLED_US: u64 = 10_000_000;
/// Slower than this no receiver reads a file that has arrived.
const LOADED_BYTES_PER_S_MIN: u64 = 8 << 20;

pub(super) struct Outgoing {
    pub(super) below: Slot,
    /// What it is, once it was read and is good.
    file: Option<FileId>,
    handle: Box<dyn DiskFile>,
    pub(super) stage: Stage,
    sent: u64,
    pub(super) acked: u64,
    /// Where the receiver's own part of the file ended when this stream began.
    pub(super) resumed_at: Option<u64>,
    /// The end of each part under way, and when it left.
    in_flight: VecDeque<(u64, u64)>,
    window: u64,
    delay_us: u64,
    asked_us: u64,
    progress_us: u64,
    pub(super) started_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The file is being read.
    Checking,
    /// How much of it has the receiver?
    Offered,
    Sending,
    /// All has arrived, and is being read.
    Loading {
        since_us: u64,
    },
}

/// Why a stream is over that has not brought its receiver forward.
#[derive(Debug)]
pub(super) enum Ended {
    Stalled,
    NotWanted,
    Unreadable(io::Error),
}

impl Outgoing {
    pub(super) fn new(
        below: Slot,
        file: Option<FileId>,
        handle: Box<dyn DiskFile>,
        now_us: u64,
    ) -> Outgoing {
        Outgoing {
            below,
            file,
            handle,
            stage: if file.is_some() { Stage::Offered } else { Stage::Checking },
            sent: 0,
            acked: 0,
            resumed_at: None,
            in_flight: VecDeque::new(),
            window: WINDOW_BYTES_MIN,
            delay_us: 0,
            asked_us: 0,
            progress_us: now_us,
            started_us: now_us,
        }
    }

    /// The file was read and is good.
    pub(super) fn checked(&mut self, file: FileId, now_us: u64) {
        if self.stage == Stage::Checking {
            self.file = Some(file);
            (self.stage, self.progress_us) = (Stage::Offered, now_us);
        }
    }

    /// The link is gone and may come back; the receiver may have been started anew.
    pub(super) fn link_lost(&mut self) {
        if self.stage != Stage::Checking {
            (self.stage, self.asked_us) = (Stage::Offered, 0);
        }
    }

    /// The receiver has so many bytes of the file.
    pub(super) fn on_have(&mut self, bytes: u64, now_us: u64) -> Result<(), Ended> {
        let Some(file) = self.file else { return Ok(()) };
        if bytes == NOT_WANTED {
            return Err(Ended::NotWanted);
        }
        let have = bytes.min(file.bytes);
        if have == file.bytes {
            if !matches!(self.stage, Stage::Loading { .. }) {
                self.stage = Stage::Loading { since_us: now_us };
            }
            self.acked = have;
            self.progress_us = now_us;
            return Ok(());
        }
        if self.stage == Stage::Offered {
            self.stage = Stage::Sending;
            self.in_flight.clear();
            self.window = WINDOW_BYTES_MIN;
            self.sent = have;
            if self.resumed_at.is_none() {
                self.resumed_at = Some(have);
                self.progress_us = now_us;
            }
            if have < self.acked {
                // It was started anew, and has lost what it had not synced.
                self.acked = have;
            }
        }
        if self.stage == Stage::Sending && have > self.acked {
            self.acked = have;
            self.sent = self.sent.max(have);
            self.progress_us = now_us;
            self.adapt_window(now_us);
        }
        Ok(())
    }

    fn adapt_window(&mut self, now_us: u64) {
        while let Some(&(end, sent_us)) = self.in_flight.front()
            && end <= self.acked
        {
            self.in_flight.pop_front();
            self.delay_us = now_us.saturating_sub(sent_us);
        }
        self.window = match self.delay_us {
            ..DELAY_US_LOW => self.window * 2,
            DELAY_US_HIGH.. => self.window / 2,
            _ => self.window,
        }
        .clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
    }

    /// Sends what may leave now, as far as `queued` bytes before it have left.
    pub(super) fn step(
        &mut self,
        now_us: u64,
        queued: &dyn Fn() -> usize,
        send: &dyn Fn(&Part),
    ) -> Result<(), Ended> {
        let Some(file) = self.file else { return Ok(()) };
        let bound_us = match self.stage {
            Stage::Checking => return Ok(()),
            Stage::Offered | Stage::Sending => self.progress_us + STALLED_US,
            Stage::Loading { since_us } => {
                let load_us = file.bytes * 1_000_000 / LOADED_BYTES_PER_S_MIN;
                (self.progress_us + STALLED_US).min(since_us + STALLED_US + load_us)
            }
        };
        if now_us > bound_us {
            return Err(Ended::Stalled);
        }
        if self.asks(now_us) {
            self.asked_us = now_us;
            // A receiver that reads the file says so, and stays where it is.
            if self.stage == Stage::Sending {
                self.stage = Stage::Offered;
            }
            send(&Part::Offer(file));
            let (below, total) = (file.below, file.bytes);
            send(&Part::Bytes { below, offset: 0, total, bytes: Bytes::new() });
        }
        while self.stage == Stage::Sending
            && self.sent < file.bytes
            && self.sent - self.acked < self.window
            && queued() < self.window as usize
        {
            let (below, offset, total) = (file.below, self.sent, file.bytes);
            let length = (total - offset).min(PART_BYTES_MAX).min(self.window);
            let mut bytes = vec![0; length as usize];
            self.handle.read_at(offset, &mut bytes).map_err(Ended::Unreadable)?;
            send(&Part::Bytes { below, offset, total, bytes: bytes.into() });
            self.sent += length;
            self.in_flight.push_back((self.sent, now_us));
        }
        Ok(())
    }

    fn asks(&self, now_us: u64) -> bool {
        let patience_us = (4 * self.delay_us).clamp(ASK_AGAIN_US_MIN, ASK_AGAIN_US_MAX);
        let quiet_since_us = match self.stage {
            Stage::Checking => return false,
            Stage::Offered if self.asked_us == 0 => return true,
            Stage::Offered => self.asked_us,
            Stage::Sending | Stage::Loading { .. } => self.asked_us.max(self.progress_us),
        };
        now_us.saturating_sub(quiet_since_us) >= patience_us
    }
}
