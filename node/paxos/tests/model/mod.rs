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
//! # What is left out, and why nothing is missed
//!
//! Two states of a group are one if whatever happens from here on happens in both. So the search
//! forgets what can decide nothing any more (`Replica::hash_standing`, `Replica::hash_leases`,
//! `World::forget_dead`):
//! - *Time is a difference.* No rule asks what a clock shows, only how long ago something was. All
//!   is taken relative to the node's own clock, and what is over counts as over, however long.
//! - *A heartbeat is numbered from the newest backwards*, as far as those go that a search lets
//!   arrive, and a grant that is older than it is long ages no more: it can make no lease any more,
//!   and each that still arrives is newer, or as worthless. Without this no model of leases ends: a
//!   leader may send heartbeats for ever that one acceptor does not hear, and each of them was
//!   another state. That it is held stays part of the state, or a rule that is broken so that it
//!   counts again would not show.
//! - *When a lease last was* decides only that a leader steps down, and a leader none of whose
//!   messages arrive any more is as good as that. In the models it never happens by itself.
//! - *Whom an acceptor follows* decides only whether it grants. A heartbeat of the promised ballot or
//!   a higher one makes its sender the one that is followed, unless a still higher one was heard.
//! - *Once the last ballot has begun*, how high a next one would have to be decides nothing, and a
//!   grant to it keeps nobody waiting.
//! - *Who accepted what* beyond the quorum matters only to a handover.
//! - *A message is dead* that would be refused wherever it arrives, or change nothing.
//!
//! The test `what_is_left_out_decides_nothing` holds all of this against searches that leave out
//! nothing: every message stays, every clock shows what it shows. They meet the same states, as far
//! as a state can be seen from outside. They need a bound on heartbeats and time.
//!
//! # What was found
//!
//! `make model` ends with a table like this one (two cores, debug profile). No model was violated.
//!
//! | model | states | transitions | depth | s | |
//! |---|---|---|---|---|---|
//! | paxos: hints | 205 860 | 1 507 644 | 22 | 1 | exhausted |
//! | paxos: a power failure | 803 120 | 6 272 009 | 26 | 4 | exhausted |
//! | paxos: hints and a power failure | 22 193 136 | 241 737 501 | 29 | 271 | exhausted |
//! | paxos: three ballots | 8 176 998 | 61 473 368 | 29 | 40 | exhausted |
//! | paxos: quorum reads | 73 361 | 451 374 | 20 | 1 | exhausted |
//! | membership: {1,2,3} to {1,2} | 839 272 | 5 167 656 | 32 | 3 | exhausted |
//! | the same, a power failure | 3 551 335 | 31 287 573 | 33 | 30 | exhausted |
//! | membership: {1,2} to {1,3,4} | 12 989 285 | 125 383 955 | 40 | 76 | exhausted |
//! | membership: {1,2,3} to {1,4,5} | 501 859 | 4 801 221 | 36 | – | exhausted |
//! | membership: {1,2,3} to {1,2,4} to {1,4} | 13 132 | 102 910 | 35 | 1 | exhausted |
//! | leases | 72 330 | 503 248 | 25 | 1 | exhausted |
//! | leases: two steps | 205 239 | 1 483 484 | 27 | 4 | exhausted |
//! | leases: a power failure | 1 306 076 | 11 520 661 | 28 | 41 | exhausted |
//! | leases: a handover | 1 045 373 | 8 189 280 | 28 | 35 | exhausted |
//! | leases: drift at the bound | 119 384 | 857 195 | 27 | 4 | exhausted |
//! | leases: drift at the bound, two steps | 309 617 | 2 281 612 | 29 | 11 | exhausted |
//! | leases: late grants | 684 358 | 7 706 389 | 34 | 21 | exhausted |
//!
//! A dash: measured beside other work. The other models have not been run to their end. Memory goes
//! to about 5 GB.

#![allow(unreachable_pub, reason = "a module of test targets, not of a library")]

pub mod bounds;
#[cfg(feature = "mutants")]
pub mod broken;
mod local;
mod network;
mod print;
pub mod search;
mod world;
