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

#![allow(unreachable_pub, reason = "a module of test targets, not of a library")]

pub mod bounds;
#[cfg(feature = "mutants")]
pub mod broken;
mod local;
mod network;
mod print;
pub mod search;
mod world;
