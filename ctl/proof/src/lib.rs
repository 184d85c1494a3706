//! Proof that the cluster does not lie: load, what became of it, and a verdict.
//!
//! Three rooms, each usable alone:
//!
//! * [`resp`], [`connection`], [`client`]: a small Redis client of our own. It exists because client
//!   libraries resend writes by themselves when a connection closes; a checker that counts
//!   increments cannot live with that. Ours follows `-MOVED`, which says "surely not done", and
//!   never resends a command whose fate is unknown: that is recorded as [`Outcome::Unknown`].
//!   [`once`] is the one that may send again, because its writes go through `ONCE`.
//! * [`load`], [`ledger`], [`history`]: closed-loop clients, live counters, and two records of what
//!   happened. The ledger is bounded and lives as long as the load; the history holds every
//!   operation with its times and is meant for runs that are checked in full.
//! * [`check`], [`verify`]: linearizability per key, and the audit of everything acknowledged. A verdict is one
//!   of three: holds, violated, unknown. Too few successful operations or a search that ran out of
//!   its bound is *unknown*, never a pass.
//!
//! Beside them, [`mod@bench`] measures how fast a server is, ours or another, and proves nothing.
//!
//! [`Outcome::Unknown`]: history::Outcome::Unknown

pub mod bench;
pub mod check;
pub mod client;
pub mod commands;
pub mod connection;
pub mod history;
pub mod ledger;
pub mod load;
pub mod once;
pub mod resp;
pub mod stats;
pub mod verify;
