//! The bytes of every format that leaves a process, on the wire or onto a disk, kept as files beside
//! this test. Today's code reads each to what it meant, and writes the very same bytes.
//!
//! A format never changes under its version: peers run other releases during an upgrade, and disks
//! outlive all of them. Who changes one gives it the next version, goes on reading the one before,
//! and makes the new file with
//!
//! ```text
//! FORMATS=write cargo test -p node --test formats
//! ```
//!
//! which writes files that are missing, and never one that is there.

mod disk;
mod golden;
mod samples;
mod wire;
