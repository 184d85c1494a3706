//! The node: a Multi-Paxos replica, a durable journal and an in-memory store behind a Redis door.
//! `main.rs` is the binary; everything else is here, so that tests can reach it.

pub mod admin;
pub mod identity;
pub mod peers;
pub mod tls;
pub mod wire;

pub mod access;
pub mod http;
pub mod lag;
pub mod metrics;
pub mod published;
pub mod recent;

pub mod command;
pub mod resp;
pub mod store;
