//! The durable log: append, sync, replay, trim. Bytes only; what they mean is the caller's affair.
//!
//! ```text
//! segment-000000000007   [header | checkpoint | group | group | … ]          all synced
//! segment-000000000008   [header | checkpoint | group | group | seal | … 0 0 0 0 ]   appended to
//! spare-000000000003     full size, ready to become the next segment
//! lock                   names the process that owns the directory
//! ```
//!
//! A [`Group`] is a few labelled records that are written, and after a crash found, as one. Groups
//! fill a segment one after the other; one [`Journal::sync`] makes all durable that were appended.
//! When a group does not fit, a spare file becomes the next segment, opened by a *checkpoint*: the
//! caller's bytes for whatever must survive when all older records are gone. By labels the caller
//! says which records are no longer needed ([`Journal::trim`]); whole segments become spares.
//!
//! What a journal promises:
//!
//! * What a successful `sync` covered is replayed, in order, or opening fails with file and offset.
//! * Of what was not synced, a prefix of the groups is replayed; no group in part, none out of
//!   order, and none that a former life of the file or a former end of the journal held.
//! * After a failed sync every call fails, for ever: the disk is no longer known.
//! * Without space, `append` and `sync` say [`Error::Full`] and lose nothing; they work again as
//!   soon as there is space. A reserve lets small, necessary records pass meanwhile.
//! * Memory is bounded by the largest group, also when lengths on disk are rotten.
//!
//! What it leaves out: reading while it is open (the caller keeps in memory what it needs),
//! threads (the caller syncs on a thread of its own), and a way to go on with a corrupt journal.
//!
//! One doubt remains by design. The last groups' durability is on record only in the groups or the
//! seal after them; should the disk lose exactly those, whole and synced, they look unfinished.
//! [`Journal::seal`] in idle moments keeps that to the last instants.

#![forbid(unsafe_code)]

mod active;
mod disk;
mod error;
pub mod faulty_disk;
mod frame;
mod journal;
mod pool;
mod recovery;
mod segment;

pub use disk::{Disk, DiskFile, RealDisk};
pub use error::Error;
pub use faulty_disk::FaultyDisk;
pub use journal::{Group, Journal, Options, Stats};
pub use recovery::{Cut, Entry, Recovery, Refusal, read};

/// The journal lives on its caller's sync thread.
const _: fn() = || {
    fn may_move_to_a_thread<T: Send>() {}
    may_move_to_a_thread::<Journal>();
};
