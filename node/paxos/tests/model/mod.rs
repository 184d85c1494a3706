//! Model checking the real replica: every order of events of a small group, to exhaustion.
//!
//! A replica does nothing but answer calls, so a node's next state and what it sends depend on its
//! present state and the call alone. Three things follow, and make the search small:
//! - *Nodes are interned* (`local`): a state of the group is a row of numbers, and each different
//!   call on each different node state runs the real code once; afterwards it is looked up.
//! - *Messages are facts that stay* (`network`): any of them may arrive at any moment, any number of
//!   times, or never. That is loss, delay, reordering and duplication at once, and what can change
//!   nothing any more wherever it arrives is forgotten.
//! - *States are remembered by 128 bits* (`search`): with 10⁸ of them the chance that any two are
//!   confused is below 10⁻²².
//!
//! Breadth first: a violation comes with a shortest schedule. `bounds` says how far each model goes.
//!
//! What `make model` found to the end on two cores, debug profile, without a violation:
//!
//! | model | states | transitions | depth | s |
//! |---|---|---|---|---|
//! | paxos: hints | 205 860 | 1 507 644 | 22 | 1 |
//! | paxos: a power failure | 803 120 | 6 272 009 | 26 | 4 |
//! | paxos: hints and a power failure | 22 193 136 | 241 737 501 | 29 | 271 |
//! | paxos: three ballots | 8 176 998 | 61 473 368 | 29 | 40 |
//! | paxos: quorum reads | 73 361 | 451 374 | 20 | 1 |
//! | membership: {1,2,3} to {1,2} | 839 272 | 5 167 656 | 32 | 3 |
//! | the same, a power failure | 3 551 335 | 31 287 573 | 33 | 30 |
//! | membership: {1,2} to {1,3,4} | 12 989 285 | 125 383 955 | 40 | 76 |
//!
//! The other models of changes and those of leases are bounded; memory goes to about 5 GB.

#![allow(unreachable_pub, reason = "a module of test targets, not of a library")]

pub mod bounds;
#[cfg(feature = "mutants")]
pub mod broken;
mod local;
mod network;
mod print;
pub mod search;
mod world;
