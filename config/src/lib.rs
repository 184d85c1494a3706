//! How a node behaves: `node.toml`, rendered by the deployer (or by `paxosctl run`), read by
//! `paxos-node`. Presets are the files in `config/presets/`, embedded.

mod node;

pub use node::*;
