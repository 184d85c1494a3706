//! The state machine: a keyspace of strings with deadlines, changed by nothing but the log.
//!
//! [`Store::apply`] is a pure function of the state and the entry: no clock, no randomness, no
//! order that depends on a seed. Two nodes that applied the same log hold the same bytes, and can
//! tell: [`Store::state_hash`] is kept up to date with every change and depends on the state
//! alone, not on the way there.
//!
//! **Time** comes with the entries and only moves forward. A key whose deadline has come *by the
//! time of the log* is gone, whether or not its memory has been given back yet: apply removes a
//! few of them at a time, so that a million keys that expire at once stop nobody.
//! [`Store::read`] runs outside the log at the leader's clock, which is ahead of the log's time.
//! It changes nothing, and where the answer hangs on a deadline that has passed by that clock but
//! not in the log, it says so ([`PastDeadline`]): the caller lets the log catch up and asks again.
//!
//! **The version** is part of the state: entries are applied as the version says that ruled their
//! slot when they were chosen ([`Store::rule`]), whatever the program could do besides. So programs of
//! different releases hold the same bytes, and two that do not apply by one version do not agree in
//! their hashes either.
//!
//! A store never sees a ballot, a connection or a disk.

mod apply;
pub mod glob;
mod growth;
mod hash_slot;
mod keyspace;
mod lcs;
mod long_double;
mod once;
mod read;
mod record;
mod search;
mod snapshot;
mod touches;
mod transaction;
mod walk;

pub use growth::Growth;
pub use long_double::LongDouble;
pub use search::KeySearch;
pub use snapshot::{LoadError, Loader, SnapshotHead, SnapshotStep, Verifier};
pub use transaction::{Transaction, Watch};

use keyspace::Keyspace;
use once::Sessions;
use xxhash_rust::xxh3::xxh3_128;

/// The newest version of apply that this program can do. Which one is done is in the log: the
/// configuration that rules a slot says so (DESIGN §3, same log, same bytes). A change of what any
/// entry does to any state is a new version, and the one before stays for the slots that it rules:
/// apply asks [`Store::version`], never the program. That is about the numbers below, too.
pub const STORE_VERSION_NEWEST: u32 = 1;
/// The version of a log that says nothing of it.
pub const STORE_VERSION_FIRST: u32 = 1;

/// What the log says of the entry that is being applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applying {
    pub slot: u64,
    /// Time of the entry.
    pub time_ms: u64,
    /// Chance, for commands that need it; the same on every node.
    pub seed: u64,
}

/// How a read is to see the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The leader's clock.
    pub clock_ms: u64,
    /// Chance, for `RANDOMKEY`.
    pub seed: u64,
}

/// The answer depends on a deadline that the clock has passed and the log has not: propose a time
/// mark, and read again once the log has reached `deadline_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastDeadline {
    pub deadline_ms: u64,
}

/// Records that one command, and one time mark, removes at most because their time has come.
const DUE_PER_COMMAND: usize = 64;
const DUE_PER_TIME_MARK: usize = 2048;

pub struct Store {
    keyspace: Keyspace,
    sessions: Sessions,
    time_ms: u64,
    version: u32,
}

impl Default for Store {
    fn default() -> Self {
        Store::new()
    }
}

impl Store {
    pub fn new() -> Store {
        Store {
            keyspace: Keyspace::new(),
            sessions: Sessions::default(),
            time_ms: 0,
            version: STORE_VERSION_FIRST,
        }
    }

    /// By which version the next entry is applied.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Entries are applied by `version` from the next one on: the log has come to a configuration that
    /// says so. One that is lower than the first stands for the first.
    pub fn rule(&mut self, version: u32) {
        self.version = version.max(STORE_VERSION_FIRST);
    }

    /// Time of the last entry applied.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The earliest deadline; once the clock has reached it, a time mark is due. Not after
    /// [`Store::time_ms`] when more keys expired than one mark removes: then another one is due.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.keyspace.first_deadline_ms()
    }

    /// Bytes of the value of a key, whatever its deadline; 0 without one.
    pub fn value_len(&self, key: &[u8]) -> usize {
        self.keyspace.find(key).map_or(0, |record| record.value().len())
    }

    /// Number of keys, expired ones included whose memory has not been given back.
    pub fn len(&self) -> usize {
        self.keyspace.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of keys that have a deadline.
    pub fn expiring_count(&self) -> usize {
        self.keyspace.deadline_count()
    }

    /// Number of sessions of `ONCE`.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// What the data takes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.keyspace.memory_bytes()
    }

    /// The same on every node that has applied the same entries; cheap.
    pub fn state_hash(&self) -> u128 {
        let sum = self.keyspace.sum().wrapping_add(self.keyspace.touches.sum());
        combine(sum.wrapping_add(self.sessions.sum()), self.len(), self.time_ms, self.version)
    }

    /// Part of the state hash, for finding out where two nodes differ.
    pub fn hash_slot_hash(&self, hash_slot: u16) -> u128 {
        self.keyspace.slot_sum(usize::from(hash_slot))
    }

    /// Applies an entry that holds nothing but its time.
    pub fn mark_time(&mut self, applying: Applying) {
        self.advance(applying, DUE_PER_TIME_MARK);
    }

    /// Gives back the memory of about `records_max` keys that `FLUSHALL` removed; true while there
    /// is more. Every command does a little of it; a loop with nothing else to do does the rest.
    pub fn reclaim(&mut self, records_max: usize) -> bool {
        self.keyspace.reclaim(records_max)
    }

    /// Time never goes back. Part of every apply, so it happens on every node alike.
    fn advance(&mut self, applying: Applying, due_max: usize) {
        self.time_ms = self.time_ms.max(applying.time_ms);
        self.keyspace.touches.slot = applying.slot;
        self.sessions.expire(self.time_ms);
        self.keyspace.remove_due(self.time_ms, due_max);
        self.keyspace.reclaim(due_max);
    }
}

/// The first version leaves no trace in it: the programs that knew no other one hash like this, and
/// have to agree with those that do.
fn combine(sum: u128, len: usize, time_ms: u64, version: u32) -> u128 {
    let mut bytes = [0u8; 36];
    bytes[..16].copy_from_slice(&sum.to_le_bytes());
    bytes[16..24].copy_from_slice(&(len as u64).to_le_bytes());
    bytes[24..32].copy_from_slice(&time_ms.to_le_bytes());
    bytes[32..].copy_from_slice(&version.to_le_bytes());
    let is_first = version == STORE_VERSION_FIRST;
    xxh3_128(&bytes[..if is_first { 32 } else { 36 }])
}

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;
