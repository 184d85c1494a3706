//! The only door out of the core: what a step wants written, sent, applied and told.
//!
//! **Persist before you speak, as a type.** A message may leave at once only if it is in
//! [`Output::now`]. Promises, Accepteds and every other answer that states something about this
//! node's disk are `Withheld`: a private type that stays inside the `Replica`, tied to the
//! [`Position`] of the record it rests on. Only `Replica::durable` turns it into an [`Envelope`].
//! The shell cannot send one too early, because it never holds one.

use crate::ballot::{Ballot, NodeId, Slot};
use crate::configuration::Configuration;
use crate::message::{BatchId, Envelope, Message, Value};

/// How many records a replica has asked to be written since it started. Positions are handed back
/// through `Replica::durable` once the journal has synced them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// What is persisted. The journal sees bytes only; `node/src/wire.rs` lays them out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Nothing below this ballot will be promised or accepted any more. A node's own candidacy is
    /// such a promise, so the rounds that it has used are durable before its first Prepare leaves.
    Promised(Ballot),
    /// The acceptor took `value` for `slot` under `ballot`, which it thereby promises too.
    Accepted { slot: Slot, ballot: Ballot, value: Value },
    /// `value` is chosen for `slot`, learned from a peer.
    Chosen { slot: Slot, value: Value },
    /// Every slot from `from` up to, not including, `below` is chosen, with the value that earlier
    /// records hold for it. A hint for the restart only: losing it costs a catch-up and nothing
    /// else. It never reaches below what this process knows slot by slot: under a snapshot that it
    /// installed or started from, older records may hold an entry that lost its slot.
    ChosenRange { from: Slot, below: Slot },
    /// Records of slots below may be gone: a synced snapshot covers them. Whoever asks about them
    /// is answered `Behind`, also after a restart from an older snapshot.
    TrimmedBelow(Slot),
    /// This configuration is known chosen, and so is every slot up to its own. Written before any
    /// promise in it.
    Configuration(Configuration),
}

impl Record {
    /// The highest slot that this record holds an entry of, if any: the journal's label. A segment
    /// whose labels all lie below the first kept slot may be recycled.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Record::Accepted { slot, .. } | Record::Chosen { slot, .. } => Some(*slot),
            Record::Promised(_)
            | Record::ChosenRange { .. }
            | Record::TrimmedBelow(_)
            | Record::Configuration(_) => None,
        }
    }
}

/// A read that waits for its quorum round; the shell's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// Something that happened, for traces, metrics, the simulator's coverage table and the scripts.
/// Never needed for correctness.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// Phase 1 of `ballot` begins.
    Preparing { ballot: Ballot },
    /// Phase 1 ended: this node leads. `adopted` entries of former leaders are proposed again,
    /// `noops` gaps are filled.
    Elected { ballot: Ballot, adopted: u64, noops: u64, phase1_us: u64 },
    /// This node no longer leads (or no longer prepares) `ballot`.
    Deposed { ballot: Ballot, led: bool, reason: Deposed },
    /// Another leader is followed from now on.
    Following { leader: Option<NodeId>, ballot: Ballot },
    /// A Prepare or Accept of an older ballot was refused.
    Refused { ballot: Ballot, promised: Ballot },
    /// A question about trimmed slots was answered `Behind`.
    AnsweredBehind { to: NodeId },
    /// Entries became chosen by a leader's hint.
    ChosenByHint { count: u64 },
    /// Phase 2 of one slot ended, this long after its Accept was first sent.
    Tallied { slot: Slot, phase2_us: u64 },
    /// A question of a higher ballot, or this node's own candidacy in it, has to wait: the acceptor
    /// has granted a lease to another.
    Queued { ballot: Ballot },
    /// The lease of `ballot` begins: reads need no round from here on.
    Leased { ballot: Ballot },
    /// This node has let go of `ballot`, and has asked `to` to lead.
    Released { ballot: Ballot, to: NodeId },
    /// Nobody has taken over within the bound: this node goes on.
    HandoverGivenUp { to: NodeId },
    /// This configuration, chosen in `slot`, rules from here on.
    ConfigurationKnown { number: u32, slot: Slot },
    /// A new leader found a configuration among what was accepted. It finishes that slot, drops
    /// what was reported above and begins again in the new configuration.
    ConfigurationAdopted { number: u32, slot: Slot },
    /// A newer configuration became known while this ballot waited for answers: they count no more.
    TallyVoided { ballot: Ballot },
    /// A ballot of a configuration that is not known here was not answered.
    UnknownConfiguration { ballot: Ballot },
    /// Configuration `number` lacks this node, and a quorum of it knows.
    Removed { number: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deposed {
    /// Somebody promised a higher ballot and said so.
    Nacked,
    /// This node's own acceptor promised a higher ballot.
    OwnPromise,
    /// A slot that it proposed and had not tallied turned out to be chosen with something else.
    Outvoted,
    /// A quorum of nodes that can accept is no longer reached, or nothing pending is chosen.
    LostQuorum,
    /// A higher id is there (highest-id strategy).
    HigherId,
    /// Phase 1 did not end in time, or the candidate is behind and must catch up first.
    GaveUp,
    /// A newer configuration is known.
    NewConfiguration,
    /// It was handed over to another node.
    HandedOver,
}

/// Everything that one or more steps ask of the world. Outputs add up: fill one `Output` with many
/// steps, then write its records with one sync.
///
/// The shell, in this order: hand `records` to the journal; send `now`; apply `applicable` in
/// order; answer `reads` and `lost`. When the journal has synced, call `Replica::durable`.
#[derive(Debug, Default)]
pub struct Output {
    /// To be appended to the journal, in this order.
    pub records: Vec<Record>,
    /// May leave at once, before the records are synced.
    pub now: Vec<Envelope>,
    /// Chosen entries in slot order, each slot exactly once, without gaps.
    pub applicable: Vec<(Slot, Value)>,
    /// Own batches whose slot was chosen with something else: surely not done, never will be.
    pub lost: Vec<BatchId>,
    /// Own batches whose slot was passed by a snapshot install: their fate is unknown here.
    pub unknown: Vec<BatchId>,
    /// Reads whose round has succeeded: serve each once its slot is applied.
    pub reads: Vec<(ReadId, Slot)>,
    /// Reads that this node can no longer serve: redirect them (a read has no effect).
    pub reads_refused: Vec<ReadId>,
    /// Peers that need slots which are trimmed here: stream a snapshot to them.
    pub snapshot_for: Vec<NodeId>,
    /// The wall clocks (milliseconds since 1970) from which a new leader's clock starts: set in
    /// the step in which this node becomes leader.
    pub leader_clock_ms: Option<u64>,
    /// This node has been removed by the configuration of this number, and a quorum of the new
    /// voters has that on disk: nobody needs it any more. Write that down, and stop.
    pub tombstone: Option<u32>,
    pub notes: Vec<Note>,
}

/// A message that rests on records which may not be synced yet.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Withheld {
    pub(crate) after: Position,
    pub(crate) to: NodeId,
    pub(crate) message: Message,
}
