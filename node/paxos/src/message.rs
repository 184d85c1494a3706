//! What nodes say to each other. An [`Envelope`] is what travels; `node/src/wire.rs` gives it bytes.
//!
//! Names follow *Paxos Made Simple* (phase 1a/1b, 2a/2b) and the lecture *Implementing Replicated
//! Logs with Paxos* (Ousterhout & Ongaro, 2013): its Success is our [`Message::Chosen`].

use bytes::Bytes;

use crate::ballot::{Ballot, NodeId, Slot};
use crate::configuration::Configuration;

/// One message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    pub from: NodeId,
    pub to: NodeId,
    pub message: Message,
}

/// Names one batch for ever: the proposing process (a random number drawn at each start) and a
/// counter. Slot and ballot may change hands, the id tells whether it is still the same batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    pub incarnation: u64,
    pub counter: u64,
}

/// What a slot holds: "value v" of the papers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// Fills a gap of a former leader, and opens each new leader's reign.
    Noop,
    /// Client commands, opaque bytes to this crate.
    Batch { id: BatchId, payload: Bytes },
    /// Rules the slots above its own (the stop sign, DESIGN §3).
    Configuration { id: BatchId, configuration: Configuration },
}

impl Value {
    /// Bytes of a value's frame in a `Chosen`, about.
    pub(crate) const CHOSEN_OVERHEAD_BYTES: usize = 32;

    /// Bytes that this value holds in memory and on the wire, without its frame.
    pub fn len_bytes(&self) -> usize {
        match self {
            Value::Noop => 1,
            Value::Batch { payload, .. } => 17 + payload.len(),
            Value::Configuration { configuration, .. } => {
                33 + 64 * configuration.members.len() + 4 * configuration.removed.len()
            }
        }
    }

    pub fn batch_id(&self) -> Option<BatchId> {
        match self {
            Value::Noop => None,
            Value::Batch { id, .. } | Value::Configuration { id, .. } => Some(*id),
        }
    }
}

/// How firmly an acceptor holds an entry. `Chosen` is the lecture's acceptedProposal = ∞, "will
/// never change", and so it orders above every ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Accepted {
    Under(Ballot),
    Chosen,
}

/// One entry of a [`Message::Promise`]. `value` is absent when the Prepare said that the candidate
/// holds the very entry (same slot, same ballot, and so the same value).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PromisedEntry {
    pub slot: Slot,
    pub accepted: Accepted,
    pub value: Option<Value>,
}

/// What a node says of itself with every heartbeat; the election reads nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Heartbeat {
    /// Number of this heartbeat, counted from the start of the sending process.
    pub sequence: u64,
    /// The receiver's newest heartbeat that has reached the sender, 0 for none: proof of both ways.
    pub echo: u64,
    /// How long before sending this one that heartbeat arrived, in microseconds (for the RTT).
    pub echo_age_us: u64,
    /// Highest ballot that the sender has promised.
    pub promised: Ballot,
    /// The ballot that the sender leads now.
    pub leading: Option<Ballot>,
    /// The leader that the sender is content with, itself included.
    pub happy_with: Option<NodeId>,
    /// Space left, and no group unsynced for 500 ms: the sender could accept now (DESIGN §3, grey).
    pub can_accept: bool,
    /// The sender reaches a quorum both ways of nodes that can accept.
    pub quorum_connected: bool,
    /// Nodes that the sender has heard lately and that have heard it.
    pub connected: Vec<NodeId>,
    /// The sender's `first_unchosen`: what lies below needs no catching up.
    pub first_unchosen: Slot,
    /// When `leading`: all slots below that the receiver accepted *under that ballot* are chosen.
    pub hint: Slot,
    /// Breaks ties between candidates, higher first; from the configuration file.
    pub priority: u32,
    /// How long a lease the sender would grant, in microseconds; 0: it takes no part in leases.
    pub lease_us: u64,
    /// When `leading`: grant this heartbeat, please.
    pub asks_grant: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Phase 1a, for all slots ≥ `from_slot`. `holds` lists the entries (slot, ballot) that the
    /// candidate has accepted itself, so that acceptors may leave their values out.
    Prepare {
        ballot: Ballot,
        from_slot: Slot,
        holds: Vec<(Slot, Ballot)>,
        /// The ballot whose leader has handed over to this candidate: grants to it do not bind.
        release: Option<Ballot>,
    },
    /// Phase 1b. Long answers travel in chunks. Each chunk is true by itself: it lists every entry
    /// that the acceptor holds in slots `from_slot` up to, not including, `to_slot` (`None`: all
    /// above). So chunks of a repeated answer may be mixed without hiding an entry.
    Promise {
        ballot: Ballot,
        from_slot: Slot,
        to_slot: Option<Slot>,
        entries: Vec<PromisedEntry>,
        /// Everything below is known chosen by the acceptor.
        first_unchosen: Slot,
        /// Wall clock of the acceptor, milliseconds since 1970: a new leader's clock starts from
        /// the lower median of its quorum (DESIGN §3, time).
        wall_ms: u64,
    },
    /// Refusal of phase 1 or 2: the acceptor has promised `promised`, above `ballot`.
    Nack {
        ballot: Ballot,
        promised: Ballot,
    },
    /// Refusal: the acceptor has trimmed what `ballot` asks about. Catch up first.
    Behind {
        ballot: Ballot,
        first_kept: Slot,
        first_unchosen: Slot,
    },
    /// Phase 2a: one slot, one value. `hint` as in the heartbeat.
    Accept {
        ballot: Ballot,
        slot: Slot,
        value: Value,
        hint: Slot,
    },
    /// Phase 2b. `first_unchosen` lets the leader send what is missing.
    Accepted {
        ballot: Ballot,
        slot: Slot,
        first_unchosen: Slot,
    },
    Heartbeat(Heartbeat),
    /// The highest-id strategy's and anybody's question: are you there? Answered by a heartbeat at
    /// once. Sent when a connection to the leader closes (fast suspicion).
    Ping,
    /// Chosen values of the slots from `first` on, without a gap. From anybody who knows.
    Chosen {
        first: Slot,
        values: Vec<Value>,
    },
    /// The answer to `Chosen`, durable when it leaves: all below is known chosen here.
    Learned {
        first_unchosen: Slot,
    },
    /// Please send chosen entries from this slot on (or a snapshot, when they are trimmed).
    CatchUp {
        first_unchosen: Slot,
    },
    /// A quorum read's round: do you still promise `ballot`?
    Confirm {
        ballot: Ballot,
        round: u64,
    },
    Confirmed {
        ballot: Ballot,
        round: u64,
    },
    /// For `length_us` from now on, by its own clock, the sender's acceptor lets no other node's
    /// ballot above `ballot` pass. Answers the heartbeat of that number, and leaves only once the
    /// promise of `ballot` is durable.
    Grant {
        ballot: Ballot,
        sequence: u64,
        length_us: u64,
    },
    /// The leader of `ballot` hands over to the receiver: it has ended its lease and will never
    /// hold one of that ballot again. Everything below `first_unchosen` is known chosen to it.
    Release {
        ballot: Ballot,
        first_unchosen: Slot,
    },
    /// A follower's read: from which slot on would the leader serve it? `read` is the asker's
    /// number for it.
    ReadIndex {
        read: u64,
    },
    /// The answer: the store will do once it has applied `slot`; `None` when the asked node cannot
    /// tell, as it does not lead.
    ReadFrom {
        read: u64,
        slot: Option<Slot>,
    },
}

impl Message {
    /// The message's kind, for metrics and traces.
    pub fn kind(&self) -> &'static str {
        match self {
            Message::Prepare { .. } => "prepare",
            Message::Promise { .. } => "promise",
            Message::Nack { .. } => "nack",
            Message::Behind { .. } => "behind",
            Message::Accept { .. } => "accept",
            Message::Accepted { .. } => "accepted",
            Message::Heartbeat(_) => "heartbeat",
            Message::Ping => "ping",
            Message::Chosen { .. } => "chosen",
            Message::Learned { .. } => "learned",
            Message::CatchUp { .. } => "catch_up",
            Message::Confirm { .. } => "confirm",
            Message::Confirmed { .. } => "confirmed",
            Message::Grant { .. } => "grant",
            Message::Release { .. } => "release",
            Message::ReadIndex { .. } => "read_index",
            Message::ReadFrom { .. } => "read_from",
        }
    }

    /// Every kind, in a fixed order, so that metrics exist before the first message.
    pub const KINDS: [&'static str; 17] = [
        "prepare",
        "promise",
        "nack",
        "behind",
        "accept",
        "accepted",
        "heartbeat",
        "ping",
        "chosen",
        "learned",
        "catch_up",
        "confirm",
        "confirmed",
        "grant",
        "release",
        "read_index",
        "read_from",
    ];
}
