//! The one harness under all tests of the protocol: golden scripts, the seeded simulator and the
//! mutants drive the same [`Cluster`] of the same `Replica`s, held against the same [`Checker`].

#![allow(dead_code, unused_imports, reason = "each test target uses its own part of the harness")]
#![allow(unreachable_pub, reason = "a module of test targets, not of a library")]

pub mod chance;
pub mod checker;
pub mod clock;
pub mod cluster;
pub mod coverage;
pub mod describe;
pub mod disk;
pub mod foul;
pub mod script;
pub mod seeds;
pub mod simulation;
pub mod store;
