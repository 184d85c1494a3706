//! What is counted per peer. Written by the core thread only, read from any: relaxed atomics, and
//! a plain load and store instead of a locked addition.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use paxos::Message;

use crate::wire::PeerFrame;

/// Kinds of [`Message`], and snapshot parts and states after them.
pub const KINDS: [&str; Message::KINDS.len() + 2] = kinds();

/// Positions in [`KINDS`].
pub(super) const SNAPSHOT: usize = Message::KINDS.len();
pub(super) const STATES: usize = SNAPSHOT + 1;

const fn kinds() -> [&'static str; Message::KINDS.len() + 2] {
    let mut kinds = ["snapshot"; Message::KINDS.len() + 2];
    kinds[STATES] = "states";
    let mut index = 0;
    while index < Message::KINDS.len() {
        kinds[index] = Message::KINDS[index];
        index += 1;
    }
    kinds
}

/// The position in [`KINDS`] of a received frame.
pub(super) fn kind_of(frame: &PeerFrame) -> usize {
    match frame {
        PeerFrame::Paxos(message) => crate::wire::kind_index(message),
        PeerFrame::Snapshot(_) => SNAPSHOT,
        PeerFrame::States(_) => STATES,
    }
}

/// One number that one thread writes.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed) + more, Relaxed);
    }
}

/// Everything that is counted about one peer. It outlives the peer's membership.
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Messages handed to a socket's buffer, by kind ([`KINDS`]).
    pub sent: [Count; KINDS.len()],
    /// Messages received, by kind.
    pub received: [Count; KINDS.len()],
    /// Bytes before encryption.
    pub sent_bytes: Count,
    pub received_bytes: Count,
    /// Dropped, since the peer does not read as fast as we send.
    pub dropped_full: Count,
    /// Dropped, since there was no connection.
    pub dropped_unconnected: Count,
    /// Dropped, since they fit into no frame: a bug above, traced as an error.
    pub dropped_too_long: Count,
    /// Connections that were lost after they had been up.
    pub disconnects: Count,
    pub(super) connected: AtomicBool,
    pub(super) trouble: Mutex<Option<String>>,
}

impl PeerCounters {
    /// Messages that could not be sent, for whatever reason.
    pub fn send_failures(&self) -> u64 {
        self.dropped_full.get() + self.dropped_unconnected.get() + self.dropped_too_long.get()
    }

    /// Whether this node can send to the peer now.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Why there is no connection, in words; for `status`.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}
