//! One node's part in the protocol: an acceptor, a proposer and a learner around one log.

use bytes::Bytes;

use crate::ballot::{Ballot, NodeId, Slot};
use crate::configuration::Configuration;
use crate::message::{BatchId, Envelope};
use crate::output::{Output, Position, ReadId, Record};
use crate::settings::{Now, Settings};

/// What the shell found on disk: the newest good snapshot's end, and the journal's records in
/// order.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Everything below is in the snapshot; `Slot::FIRST` without one.
    pub snapshot_below: Slot,
    pub records: Vec<Record>,
}

/// Why a batch or a read was not taken. Nothing was done, nothing will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This node does not lead (or not yet); the leader that it follows, if any.
    NotLeading { leader: Option<NodeId> },
    /// Too many slots or bytes in flight; try again when some are chosen.
    WindowFull,
}

/// See the crate's documentation. Every call takes the time and fills an [`Output`].
pub struct Replica {
    settings: Settings,
}

impl Replica {
    /// A replica as it was when its records were written: promises kept, accepted entries kept,
    /// leading nothing. `configuration` is the one given by `format` (number 0) or by the snapshot.
    pub fn recover(
        settings: Settings,
        configuration: Configuration,
        recovered: Recovered,
        now: Now,
        output: &mut Output,
    ) -> Replica {
        let _ = (configuration, recovered, now, output);
        Replica { settings }
    }

    /// Takes one message from a peer.
    pub fn step(&mut self, now: Now, envelope: Envelope, output: &mut Output) {
        let _ = (now, envelope, output);
    }

    /// Lets time pass: heartbeats, suspicion, repeats. Call at least every 5 ms.
    pub fn tick(&mut self, now: Now, output: &mut Output) {
        let _ = (now, output);
    }

    /// The journal has synced every record up to `position`.
    pub fn durable(&mut self, now: Now, position: Position, output: &mut Output) {
        let _ = (now, position, output);
    }

    /// Proposes a batch in the next free slot. The id comes back with the chosen entry, or in
    /// `Output::lost` or `Output::unknown`.
    pub fn propose(
        &mut self,
        now: Now,
        payload: Bytes,
        output: &mut Output,
    ) -> Result<BatchId, Refusal> {
        let _ = (now, payload, output);
        Err(Refusal::NotLeading { leader: None })
    }

    /// Asks for a linearizable read point: a round among a quorum that starts after this call
    /// confirms that this node still leads; the answer is in `Output::reads`.
    pub fn read(&mut self, now: Now, id: ReadId, output: &mut Output) -> Result<(), Refusal> {
        let _ = (now, id, output);
        Err(Refusal::NotLeading { leader: None })
    }

    /// Tells whether this node could accept now: space left, and no group unsynced for 500 ms.
    pub fn set_can_accept(&mut self, can_accept: bool) {
        let _ = can_accept;
    }

    /// A connection to `peer` has closed: a hint to ask around now. Never ends a lease.
    pub fn disconnected(&mut self, now: Now, peer: NodeId, output: &mut Output) {
        let _ = (now, peer, output);
    }

    /// A connection to `peer` is up: what was in flight to it may be lost and is sent again.
    pub fn connected(&mut self, now: Now, peer: NodeId, output: &mut Output) {
        let _ = (now, peer, output);
    }

    /// Entries below `first_kept` may go: a synced snapshot covers them. It must lie at or below
    /// `first_unchosen`. The journal may drop their segments once the record is synced.
    pub fn trim(&mut self, first_kept: Slot, output: &mut Output) {
        let _ = (first_kept, output);
    }

    /// A snapshot received from a peer, covering all slots below `below`, is synced and installed
    /// in the store. Promise and accepted entries at or above it stay.
    pub fn install(
        &mut self,
        now: Now,
        below: Slot,
        configuration: Configuration,
        output: &mut Output,
    ) {
        let _ = (now, below, configuration, output);
    }

    /// Records that a new journal segment opens with (DESIGN §4, checkpoint): the promise and how
    /// far the log is chosen.
    pub fn checkpoint(&self) -> Vec<Record> {
        Vec::new()
    }

    pub fn id(&self) -> NodeId {
        self.settings.id
    }

    pub fn promised(&self) -> Ballot {
        Ballot::ZERO
    }

    /// The ballot that this node leads, once phase 1 has ended.
    pub fn leading(&self) -> Option<Ballot> {
        None
    }

    /// The leader that this node knows: itself, or whom it follows.
    pub fn leader(&self) -> Option<NodeId> {
        None
    }

    /// Every slot below is known chosen here.
    pub fn first_unchosen(&self) -> Slot {
        Slot::FIRST
    }

    pub fn first_kept(&self) -> Slot {
        Slot::FIRST
    }

    pub fn configuration(&self) -> &Configuration {
        unimplemented!("skeleton")
    }
}
