//! The node: a Multi-Paxos replica, a durable journal and an in-memory store behind a Redis door.
//! `main.rs` is the binary; everything else is here, so that tests can reach it.

// The core: what a node does, without sockets and files.
pub mod agreement;
pub mod batch;
pub mod chaos;
pub mod clients;
pub mod clock;
pub mod command;
pub mod node;
pub mod recovery;
pub mod resp;
pub mod store;
pub mod transactions;

// The shell: sockets, files, threads.
pub mod boot;
pub mod session;
pub mod shell;
pub mod snapshot;
pub mod syncer;
pub mod trace;
pub mod view;

// The others: peers, deployers, pages.
pub mod access;
pub mod admin;
pub mod company;
pub mod get;
pub mod handover;
pub mod http;
pub mod identity;
pub mod lag;
pub mod membership;
pub mod memory;
pub mod metrics;
pub mod peers;
pub mod published;
pub mod recent;
pub mod room;
pub mod small_files;
pub mod tls;
pub mod wire;

/// The release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from, where the build said so.
pub const GIT_SHA: &str = match option_env!("GIT_SHA") {
    Some(sha) => sha,
    None => "unknown",
};
