//! How a node behaves, and the files that tell it so.
//!
//! Two files make a node. [`NodeConfig`] is `node.toml`: who this node is, where it listens, whom
//! it admits and how it behaves. [`Members`] is `members.toml`: the cluster as it first was, with
//! everyone's public key. Both are rendered by the deployer (or by `paxosctl run`), read by
//! `paxos-node`, and hold no secret.
//!
//! How it behaves is the [`Behaviour`], which comes from a *preset*: a file in `presets/`, built
//! into the program, or a file of the operator's with the same keys. [`preset`] reads either.
//!
//! Whatever is read is checked whole, and all that is wrong is said at once: a mistyped key with
//! the one that was probably meant, a value out of its range, and values that are each fine but
//! contradict each other (a leader suspected after two heartbeats). The keys and their ranges are
//! one table, in `schema`; a test ties it to the types. What belongs together is in `check`.
//!
//! A node refuses to start from a file with any problem: a wrong setting found at the start is an
//! error message, one found later is an outage.

mod check;
mod node;
mod presets;
mod problem;
mod schema;

pub use node::*;
pub use presets::{PRESETS, preset, preset_names};
pub use problem::{Problem, Problems};
