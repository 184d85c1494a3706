//! Multi-Paxos, without I/O, clock, threads or randomness of its own.
//!
//! # The problem
//! Several machines keep one log of commands. Machines crash and come back, messages are lost,
//! doubled, delayed and reordered; nobody lies. Every slot of the log may get one value only, and
//! once a client has been told that its command is done, the command is in the log for ever.
//!
//! # The idea
//! One instance of Paxos decides each slot (Lamport, *Paxos Made Simple*, 2001). A value is
//! **chosen** in a slot when a quorum of acceptors has **accepted** it under one **ballot**. Before
//! anybody proposes under a ballot, a quorum **promises** to ignore lower ones, and says what it has
//! accepted (phase 1); what it reports is proposed again (rule P2c). Any two quorums share an
//! acceptor, so a value that may have been chosen is always among the reports. That is the whole of
//! the safety argument; all else here keeps its premises true:
//!
//! - *one value for a (slot, ballot)*: a ballot is never used twice, not even after a restart;
//! - *promises are kept*: a promise and an acceptance leave this node only once they are on disk
//!   (see [`Output`]), and what has been trimmed is never reported as empty;
//! - *answers count once*, and only of voters of the configuration that rules.
//!
//! # Many slots
//! Phase 1 is run once for all slots from the first unchosen one on; then a leader puts each batch
//! of commands into the next slot, many at once (§3 of the paper; *Paxos Made Moderately Complex*,
//! van Renesse & Altinbuken, 2015). Full replication follows the lecture *Implementing Replicated
//! Logs with Paxos* (Ousterhout & Ongaro, 2013): each Accept and heartbeat carries how far the
//! leader's log is chosen, each Accepted how far the follower's is, and who lacks something is sent
//! [`Message::Chosen`] until it has all.
//!
//! # The rooms
//! `acceptor` (promised, accepted), `proposer` (phase 1, phase 2), `learner` (chosen, in order),
//! `election` (who should try to lead), `lease` and `reads` (how a leader knows that it still is the
//! only one: by grants that it holds, or by a quorum round), `configuration` and `quorum` (who
//! counts), and `replica`, which holds one of each and speaks to the world through [`Output`].
//!
//! # Left out on purpose
//! - Byzantine faults: nobody lies (messages are authenticated by the shell).
//! - Fast or flexible quorums: majorities everywhere.
//! - Clocks that cannot be trusted within a bound: where a host may stop a guest's clock, leases are
//!   switched off and reads take a quorum round.
//!
//! # In use
//! ```
//! use paxos::*;
//!
//! // A group of one: whatever it has on disk is chosen.
//! let member = Member { role: Role::Voter, ..Default::default() };
//! let configuration = Configuration { members: [(NodeId(1), member)].into(), ..Default::default() };
//! let mut now = Now::default();
//! let mut output = Output::default();
//! let settings = Settings::new(NodeId(1), 42, 0);
//! let mut replica = Replica::recover(settings, configuration, Recovered::default(), now, &mut output);
//! let mut written = 0;
//! while replica.leading().is_none() {
//!     now.mono_us += 5_000;
//!     replica.tick(now, &mut output);
//!     written += std::mem::take(&mut output).records.len() as u64; // the journal would sync here
//!     replica.durable(now, Position(written), &mut output);
//! }
//! written += std::mem::take(&mut output).records.len() as u64;
//! replica.durable(now, Position(written), &mut output);
//! let id = replica.propose(now, "set x 1".into(), &mut output).expect("it leads");
//! written += std::mem::take(&mut output.records).len() as u64;
//! assert!(output.applicable.iter().all(|(_, value)| *value == Value::Noop), "not on disk yet");
//! replica.durable(now, Position(written), &mut output);
//! let (_slot, value) = output.applicable.pop().expect("now it is chosen");
//! assert_eq!(value, Value::Batch { id, payload: "set x 1".into() });
//! ```

#![forbid(unsafe_code)]

#[macro_use]
mod mutants;

mod acceptor;
mod ballot;
mod configuration;
mod election;
mod learner;
mod lease;
mod message;
mod output;
mod proposer;
mod quorum;
mod reads;
mod replica;
mod settings;

pub use ballot::{Ballot, NodeId, Slot};
pub use configuration::{Change, ChangeRefusal, Configuration, LeaseTerms, Member, Role, Rules};
pub use message::{Accepted, BatchId, Envelope, Heartbeat, Message, PromisedEntry, Value};
#[cfg(feature = "mutants")]
pub use mutants::{Mutant, break_rules};
pub use output::{Deposed, Note, Output, Position, ReadId, Record};
pub use quorum::Tally;
pub use replica::{HandoverRefusal, PeerView, Recovered, Refusal, Replica};
pub use settings::{ElectionStrategy, Limits, Now, Settings, Timing};
