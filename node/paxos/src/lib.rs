//! Multi-Paxos without I/O, clock, threads or randomness of its own.

#![forbid(unsafe_code)]

mod ballot;
mod configuration;
mod message;
mod output;
mod quorum;
mod replica;
mod settings;

pub use ballot::{Ballot, NodeId, Slot};
pub use configuration::{Configuration, Member, Role};
pub use message::{Accepted, BatchId, Envelope, Heartbeat, Message, PromisedEntry, Value};
pub use output::{Deposed, Note, Output, Position, ReadId, Record};
pub use quorum::Tally;
pub use replica::{Recovered, Refusal, Replica};
pub use settings::{ElectionStrategy, Now, Settings, Timing};
