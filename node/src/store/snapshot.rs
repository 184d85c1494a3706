//! Snapshots as bytes: a head that says what to expect, then chunks of saved records in any
//! order, the table of last touches and the sessions of `ONCE` among them. Files, checksums of
//! blocks and the journey over the network are not our business; that what was loaded is exactly
//! what was saved, is: the head carries the state hash.

use std::fmt;

use super::{STORE_VERSION_FIRST, Store};
use xxhash_rust::xxh3::xxh3_128;

use super::once::Sessions;
use super::record::{Saved, parse_saved};
use super::touches::Touches;
pub use super::walk::SnapshotStep;

/// What a snapshot promises to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    pub time_ms: u64,
    pub records: u64,
    pub state_hash: u128,
    /// Whether the hash depends on the store's version, as it does beyond the first one. The file says
    /// that version beside this head, in its configuration.
    pub hashes_version: bool,
}

impl SnapshotHead {
    /// 3 has the store's version in its hash. What is of the first store version is still written as
    /// version 2 had it, so that an upgrade can be taken back until the store's version is raised.
    pub const VERSION: u8 = 3;
    pub const VERSION_OLDEST: u8 = 2;
    pub const BYTES: usize = 33;

    pub fn encode(&self) -> [u8; SnapshotHead::BYTES] {
        let version = match self.hashes_version {
            true => SnapshotHead::VERSION,
            false => SnapshotHead::VERSION_OLDEST,
        };
        let mut bytes = [version; SnapshotHead::BYTES];
        bytes[1..9].copy_from_slice(&self.time_ms.to_le_bytes());
        bytes[9..17].copy_from_slice(&self.records.to_le_bytes());
        bytes[17..].copy_from_slice(&self.state_hash.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<SnapshotHead, LoadError> {
        let bytes: &[u8; SnapshotHead::BYTES] =
            bytes.try_into().map_err(|_| LoadError::HeadLength(bytes.len()))?;
        if !(SnapshotHead::VERSION_OLDEST..=SnapshotHead::VERSION).contains(&bytes[0]) {
            return Err(LoadError::Version(bytes[0]));
        }
        let number =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Ok(SnapshotHead {
            time_ms: number(1),
            records: number(9),
            state_hash: u128::from_le_bytes(bytes[17..].try_into().expect("sixteen bytes")),
            hashes_version: bytes[0] == SnapshotHead::VERSION,
        })
    }

    /// By which version its hash was made, of a store of `version`.
    fn hashed_version(&self, version: u32) -> u32 {
        if self.hashes_version { version } else { STORE_VERSION_FIRST }
    }

    /// Is what was read what this head promised?
    fn check(&self, records: u64, state_hash: u128) -> Result<(), LoadError> {
        if records != self.records {
            return Err(LoadError::Records { found: records, promised: self.records });
        }
        match state_hash == self.state_hash {
            true => Ok(()),
            false => Err(LoadError::StateHash { found: state_hash, promised: self.state_hash }),
        }
    }
}

/// Why a snapshot is not loaded. Whoever reads it takes another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    HeadLength(usize),
    Version(u8),
    /// A chunk ends in the middle of a record, at this byte.
    Chunk {
        byte: usize,
    },
    Records {
        found: u64,
        promised: u64,
    },
    StateHash {
        found: u128,
        promised: u128,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::HeadLength(length) => {
                write!(f, "snapshot head of {length} bytes instead of {}", SnapshotHead::BYTES)
            }
            LoadError::Version(version) => write!(
                f,
                "snapshot of version {version}, this program reads versions {} to {}",
                SnapshotHead::VERSION_OLDEST,
                SnapshotHead::VERSION
            ),
            LoadError::Chunk { byte } => {
                write!(f, "snapshot chunk has a broken record at byte {byte}")
            }
            LoadError::Records { found, promised } => {
                write!(f, "snapshot holds {found} records, its head promises {promised}")
            }
            LoadError::StateHash { found, promised } => {
                write!(f, "snapshot has state hash {found:032x}, its head promises {promised:032x}")
            }
        }
    }
}

impl std::error::Error for LoadError {}

/// Builds a store from a snapshot, chunk by chunk.
pub struct Loader {
    head: SnapshotHead,
    store: Store,
}

impl Loader {
    /// `version` is the store's, as the configuration says that rules behind the snapshot.
    pub fn new(head: SnapshotHead, version: u32) -> Loader {
        let mut store = Store::new();
        store.rule(version);
        Loader { head, store }
    }

    /// Takes one chunk, as [`SnapshotStep::Chunk`] gave it out.
    pub fn add(&mut self, chunk: &[u8]) -> Result<(), LoadError> {
        let Store { keyspace, sessions, .. } = &mut self.store;
        for_each_saved(chunk, |saved, _| match saved {
            Saved::Record(parts) => {
                keyspace.put(parts);
                Some(())
            }
            other => load_other(other, &mut keyspace.touches, sessions),
        })
    }

    /// The store, if it is what the head promised.
    pub fn finish(mut self) -> Result<Store, LoadError> {
        self.store.time_ms = self.head.time_ms;
        let version = self.store.version();
        self.store.rule(self.head.hashed_version(version));
        self.head.check(self.store.len() as u64, self.store.state_hash())?;
        self.store.rule(version);
        Ok(self.store)
    }
}

/// Reads a snapshot as [`Loader`] does, and keeps nothing: is it what its head promised?
pub struct Verifier {
    head: SnapshotHead,
    version: u32,
    records: usize,
    sum: u128,
    touches: Touches,
    sessions: Sessions,
}

impl Verifier {
    /// As of [`Loader::new`].
    pub fn new(head: SnapshotHead, version: u32) -> Verifier {
        Verifier {
            head,
            version: head.hashed_version(version.max(STORE_VERSION_FIRST)),
            records: 0,
            sum: 0,
            touches: Touches::new(),
            sessions: Sessions::default(),
        }
    }

    pub fn add(&mut self, chunk: &[u8]) -> Result<(), LoadError> {
        for_each_saved(chunk, |saved, bytes| match saved {
            Saved::Record(_) => {
                self.sum = self.sum.wrapping_add(xxh3_128(bytes));
                self.records += 1;
                Some(())
            }
            other => load_other(other, &mut self.touches, &mut self.sessions),
        })
    }

    pub fn finish(self) -> Result<(), LoadError> {
        let sum = self.sum.wrapping_add(self.touches.sum()).wrapping_add(self.sessions.sum());
        let state_hash = super::combine(sum, self.records, self.head.time_ms, self.version);
        self.head.check(self.records as u64, state_hash)
    }
}

/// Hands out every piece of a chunk with its bytes; a chunk that cannot be read, or a piece that is
/// not taken, is an error that names where.
fn for_each_saved<'a>(
    chunk: &'a [u8],
    mut take: impl FnMut(Saved<'a>, &'a [u8]) -> Option<()>,
) -> Result<(), LoadError> {
    let mut rest = chunk;
    while !rest.is_empty() {
        let byte = chunk.len() - rest.len();
        let (saved, tail) = parse_saved(rest).ok_or(LoadError::Chunk { byte })?;
        take(saved, &rest[..rest.len() - tail.len()]).ok_or(LoadError::Chunk { byte })?;
        rest = tail;
    }
    Ok(())
}

/// A piece of the state that is no record; `None` if it makes no sense.
fn load_other(saved: Saved<'_>, touches: &mut Touches, sessions: &mut Sessions) -> Option<()> {
    match saved {
        Saved::Record(_) => None,
        Saved::Touches(piece) => touches.load(piece),
        Saved::Session(piece) => sessions.load(piece),
        Saved::LastSession(piece) => sessions.load_last_id(piece),
    }
}

impl Store {
    /// Begins a snapshot of this very moment; one that was being made is given up.
    pub fn begin_snapshot(&mut self) -> SnapshotHead {
        self.abort_snapshot();
        let touches = Saved::Touches(&self.keyspace.touches.save()).to_bytes();
        let last_session = Saved::LastSession(&self.sessions.save_last_id()).to_bytes();
        self.keyspace.begin_walk([[touches, last_session].concat()].into(), self.sessions.shared());
        SnapshotHead {
            time_ms: self.time_ms,
            records: self.len() as u64,
            state_hash: self.state_hash(),
            hashes_version: self.version != STORE_VERSION_FIRST,
        }
    }

    /// Goes on with it: visits a few hash slots and hands out about `bytes` of records. To be
    /// called once a turn of the loop until it is [`SnapshotStep::Done`]; commands may be applied
    /// in between. `None` when no snapshot is being made.
    pub fn snapshot_step(&mut self, bytes: usize) -> Option<SnapshotStep> {
        self.keyspace.walk_on(bytes)
    }

    /// Whether the next step hands out what is ready already, without visiting more of the store.
    pub fn has_full_snapshot_chunks(&self) -> bool {
        self.keyspace.walk_has_full_chunks()
    }

    pub fn abort_snapshot(&mut self) {
        self.keyspace.end_walk();
    }

    pub fn is_snapshotting(&self) -> bool {
        self.keyspace.walk.is_some()
    }

    /// All records, recounted and hashed anew; what a scrub compares with [`Store::state_hash`].
    pub fn recompute_state_hash(&self) -> u128 {
        let sum = self
            .keyspace
            .records()
            .fold(0u128, |sum, record| sum.wrapping_add(record.state_hash()));
        let sum = sum.wrapping_add(self.keyspace.touches.recomputed_sum());
        let sum = sum.wrapping_add(self.sessions.recomputed_sum());
        super::combine(sum, self.keyspace.records().count(), self.time_ms, self.version)
    }
}
