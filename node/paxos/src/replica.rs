//! One node's part in the protocol: an acceptor, a proposer and a learner around one log.
//!
//! Here are its state, its start, and the calls of the shell. The rooms behind: `dispatch` has one
//! arm for each message, stale ballots turned away first; `proposing` is a ballot's life; `learning`
//! takes what is chosen and brings others up to date; `reading` is for reads at
//! followers, `leasing` grants leases and counts grants, `handover` passes leadership on; `time` repeats, suspects and takes over. The
//! rules of what leaves when are in three private `doors`: `record` (to the journal), `send` (may
//! leave at once) and `withhold` (only once everything recorded so far is synced). A node's own
//! votes take the same road as everybody's: they are withheld answers addressed to itself.

mod dispatch;
mod doors;
mod handover;
mod learning;
mod leasing;
mod membership;
mod proposing;
mod reading;
mod time;
mod views;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::acceptor::{Acceptor, Entry};
use crate::ballot::{Ballot, NodeId, Slot};
use crate::configuration::Configuration;
use crate::election::Election;
use crate::learner::Learner;
use crate::lease::{Granter, Holder};
use crate::message::{Accepted, BatchId, Envelope, Message, Value};
use crate::output::{Deposed, Output, Position, ReadId, Record, Withheld};
use crate::proposer::Proposer;
use crate::quorum::Tally;
use crate::reads::{Asker, Reads};
use crate::settings::{Now, Settings};

pub use handover::HandoverRefusal;
use handover::Released;
use reading::Asked;

/// What the shell found on disk: the newest good snapshot's end, and the journal's records in
/// order.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Everything below is in the snapshot; `Slot::FIRST` without one.
    pub snapshot_below: Slot,
    pub records: Vec<Record>,
    /// The longest lease that a former process on this disk may have granted, in microseconds, by
    /// its file or by any configuration that it knew; 0 if there was none, or none that granted. What
    /// this process is to grant counts in any case.
    pub granted_us: u64,
}

impl Default for Recovered {
    fn default() -> Self {
        Recovered { snapshot_below: Slot::FIRST, records: Vec::new(), granted_us: 0 }
    }
}

/// Why a batch or a read was not taken. Nothing was done, nothing will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This node does not lead (or not yet); the leader that it follows, if any.
    NotLeading { leader: Option<NodeId> },
    /// Too many slots or bytes in flight; try again when some are chosen.
    WindowFull,
}

/// What a node knows of one peer, for pages and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerView {
    pub node: NodeId,
    /// Heard lately, and has heard this node lately.
    pub connected: bool,
    pub round_trip_us: Option<u64>,
    /// Everything below is known chosen by the peer.
    pub first_unchosen: Slot,
    pub can_accept: bool,
}

/// See the crate's documentation. Every call takes the time and fills an [`Output`]. Whichever call
/// comes first behind a pause of this process, it begins by noticing that pause.
///
/// Invariants:
/// - a `Leading` or `Preparing` proposer's ballot is the own acceptor's promise;
/// - a message in `withheld` waits for a position that is not synced yet;
/// - `learner.first_unchosen` is above every slot handed out in `Output::applicable`, and below
///   every other.
#[derive(Clone, Debug)]
pub struct Replica {
    settings: Settings,
    configuration: Configuration,
    acceptor: Acceptor,
    proposer: Proposer,
    learner: Learner,
    election: Election,
    reads: Reads,
    asked: Asked,
    granter: Granter,
    holder: Holder,
    /// A ballot that this node has let go of.
    released: Option<Released>,
    /// The highest ballot seen anywhere: the next own ballot is above it.
    highest_seen: Ballot,
    batch_count: u64,
    written: Position,
    synced: Position,
    /// Where the current promise was recorded.
    promised_at: Position,
    withheld: VecDeque<Withheld>,
    recorded_chosen_below: Slot,
    /// What the journal says to be trimmed. Less than the first kept slot where this process
    /// started from a snapshot and does not know the entries under it to be chosen: should that
    /// snapshot turn out to be bad, those entries are needed again.
    recorded_trimmed_below: Slot,
    recorded_chosen_us: u64,
    /// When `first_unchosen` last moved, for catching up from whoever is ahead.
    advanced_us: u64,
    asked_us: u64,
    /// The leader that the shell was told of last, so that it hears of changes only.
    noted_leader: Option<NodeId>,
    /// The configuration before, once a change was seen.
    former: Option<Configuration>,
    /// Who was last asked for a configuration that this node does not know, and when.
    asked_configuration: Option<(NodeId, u64)>,
    /// When a removed node last told the others.
    took_leave_us: u64,
    /// Voters that have the configuration that removed this node on disk.
    leave_known_to: Tally,
    tombstone_reported: bool,
    /// The newest store version that the program of each connected peer can do, if it has said so.
    store_versions: BTreeMap<NodeId, Option<u32>>,
}

impl Replica {
    /// A replica as it was when its records were written: promises kept, accepted entries kept,
    /// leading nothing. `configuration` is the one given by `format` (number 0) or by the snapshot;
    /// a newer one in the records rules.
    pub fn recover(
        settings: Settings,
        mut configuration: Configuration,
        recovered: Recovered,
        now: Now,
        output: &mut Output,
    ) -> Replica {
        let given = configuration.number;
        let mut recorded = 0;
        let mut promised = Ballot::ZERO;
        let mut entries: BTreeMap<Slot, Entry> = BTreeMap::new();
        let mut first_kept = Slot::FIRST;
        for record in recovered.records {
            match record {
                Record::Promised(ballot) => promised = promised.max(ballot),
                Record::Accepted { slot, ballot, value } => {
                    promised = promised.max(ballot);
                    let known_chosen =
                        entries.get(&slot).is_some_and(|entry| entry.accepted == Accepted::Chosen);
                    if !known_chosen {
                        entries.insert(slot, Entry { accepted: Accepted::Under(ballot), value });
                    }
                }
                Record::Chosen { slot, value } => {
                    entries.insert(slot, Entry { accepted: Accepted::Chosen, value });
                }
                // The mark speaks of the entries as the records before it hold them, so it has to
                // be taken at its place: a later record may belong to a slot above.
                Record::ChosenRange { from, below } => {
                    for entry in entries.range_mut(from..below.max(from)).map(|(_, entry)| entry) {
                        entry.accepted = Accepted::Chosen;
                    }
                }
                Record::TrimmedBelow(below) => first_kept = first_kept.max(below),
                Record::Configuration(known) => {
                    recorded = recorded.max(known.number);
                    if known.number > configuration.number {
                        configuration = known;
                    }
                }
            }
        }
        let recorded_trimmed_below = first_kept;
        // What the snapshot covers is kept for peers only as far as the journal itself knows it to
        // be chosen: the record that corrected an outvoted entry may not have survived.
        let is_chosen =
            |slot: Slot| entries.get(&slot).is_some_and(|entry| entry.accepted == Accepted::Chosen);
        let mut known_from = recovered.snapshot_below;
        while known_from > first_kept && is_chosen(known_from.previous()) {
            known_from = known_from.previous();
        }
        // Without a snapshot that reaches the first kept slot (a bad newest one), the slots in
        // between have to be learned again: they are not empty, they are unreadable.
        first_kept = first_kept.max(known_from);
        let mut entries = entries.split_off(&recovered.snapshot_below.min(first_kept));
        entries.retain(|slot, entry| *slot >= first_kept || entry.accepted == Accepted::Chosen);
        let acceptor = Acceptor::new(promised, entries, first_kept);
        let terms = configuration.lease_terms.unwrap_or(settings.lease_terms);
        let own_us = if settings.has_leases() { terms.lease_us } else { 0 };
        let granted_us = recovered.granted_us.max(own_us);
        let mut replica = Replica {
            election: Election::new(&settings, now.mono_us),
            settings,
            configuration,
            acceptor,
            proposer: Proposer::Following,
            learner: Learner::new(recovered.snapshot_below),
            reads: Reads::default(),
            asked: Asked::default(),
            granter: Granter::recovered(promised, granted_us, now.mono_us),
            holder: Holder::default(),
            released: None,
            highest_seen: promised,
            batch_count: 0,
            written: Position(0),
            synced: Position(0),
            promised_at: Position(0),
            withheld: VecDeque::new(),
            recorded_chosen_below: recovered.snapshot_below,
            recorded_trimmed_below,
            recorded_chosen_us: now.mono_us,
            advanced_us: now.mono_us,
            asked_us: now.mono_us,
            noted_leader: None,
            former: None,
            asked_configuration: None,
            took_leave_us: now.mono_us,
            leave_known_to: Tally::default(),
            tombstone_reported: false,
            store_versions: BTreeMap::new(),
        };
        // The snapshot may have been synced before the journal was: should it turn out to be bad, the
        // configuration is needed all the same.
        if given > recorded {
            replica.record(Record::Configuration(replica.configuration.clone()), output);
        }
        replica.declare(now, output);
        replica.recorded_chosen_below = replica.learner.first_unchosen;
        replica
    }

    /// Takes one message from a peer.
    pub fn step(&mut self, now: Now, envelope: Envelope, output: &mut Output) {
        self.notice_lateness(now);
        let Envelope { from, to, message } = envelope;
        assert!(to == self.settings.id, "a message for {to} reached {}", self.settings.id);
        // Peace, not safety: whoever is not a member is not answered.
        if self.listens_to(from, &message) {
            self.dispatch(now, from, message, output);
        } else if self.configuration.removed.contains(&from) {
            self.on_former_member(now, from, &message, output);
        }
        self.after_step(now, output);
    }

    /// Lets time pass: heartbeats, suspicion, repeats. Call at least every 5 ms.
    pub fn tick(&mut self, now: Now, output: &mut Output) {
        self.notice_lateness(now);
        self.election.on_tick(now.mono_us);
        self.consider(now, output);
        self.go_on_handing_over(now, output);
        if self.election.heartbeat_due(now.mono_us) {
            self.send_heartbeats(now, output);
        }
        self.repeat(now, output);
        self.ask_again(now, output);
        self.ask_for_missing(now, output);
        self.take_leave(now, output);
        let idle_us = now.mono_us.saturating_sub(self.recorded_chosen_us);
        if idle_us >= self.settings.timing.resend_us {
            self.record_chosen_below(now, output);
        }
        self.after_step(now, output);
    }

    /// The journal has synced every record up to `position`.
    pub fn durable(&mut self, now: Now, position: Position, output: &mut Output) {
        assert!(position <= self.written, "position {position:?} was never written");
        self.notice_lateness(now);
        self.synced = self.synced.max(position);
        self.after_step(now, output);
    }

    /// Proposes a batch in the next free slot. The id comes back with the chosen entry, or in
    /// `Output::lost` or `Output::unknown`.
    pub fn propose(
        &mut self,
        now: Now,
        payload: Bytes,
        output: &mut Output,
    ) -> Result<BatchId, Refusal> {
        self.notice_lateness(now);
        let Proposer::Leading(leading) = &self.proposer else {
            return Err(Refusal::NotLeading { leader: self.leader() });
        };
        if !leading.has_room_for(payload.len(), self.settings.limits) {
            return Err(Refusal::WindowFull);
        }
        self.batch_count += 1;
        let id = BatchId { incarnation: self.settings.incarnation, counter: self.batch_count };
        self.learner.propose(leading.next_slot, id);
        self.propose_value(now, Value::Batch { id, payload }, output);
        self.after_step(now, output);
        Ok(id)
    }

    /// Asks for a linearizable read point: a round among a quorum that starts after this call
    /// confirms that this node still leads; the answer is in `Output::reads`.
    pub fn read(&mut self, now: Now, id: ReadId, output: &mut Output) -> Result<(), Refusal> {
        self.notice_lateness(now);
        let Proposer::Leading(leading) = &self.proposer else {
            return Err(Refusal::NotLeading { leader: self.leader() });
        };
        let slot = self.read_point(leading.own_slot);
        if mutant!(ReadWithoutRound) {
            output.reads.push((id, slot));
            return Ok(());
        }
        self.reads.add(Asker::Own(id), slot);
        self.after_step(now, output);
        Ok(())
    }

    /// Begins phase 1 now, whatever the election thinks of it: an operator wants this node to lead.
    /// Safe at any time; it costs the present leader its ballot, once the lease that this node has
    /// granted it is over. False for one that cannot lead: a learner, or a node that must heal its
    /// log first.
    pub fn take_over(&mut self, now: Now, output: &mut Output) -> bool {
        self.notice_lateness(now);
        if !self.configuration.is_voter(self.settings.id) && !mutant!(RemovedMayCampaign) {
            return false;
        }
        self.end_ballot(now, Deposed::GaveUp, output);
        self.begin_candidacy(now, None, output);
        self.after_step(now, output);
        self.own_ballot().is_some() || self.granter.candidacy_waits()
    }

    /// Tells whether this node could accept now: space left, and no group unsynced for 500 ms.
    pub fn set_can_accept(&mut self, can_accept: bool) {
        self.election.can_accept = can_accept;
    }

    /// A connection to `peer` has closed: a hint to ask around now. Never ends a lease.
    pub fn disconnected(&mut self, now: Now, peer: NodeId, output: &mut Output) {
        self.notice_lateness(now);
        // Another program may come back in its place.
        self.store_versions.remove(&peer);
        let was_leader = self.election.on_disconnected(peer);
        if was_leader {
            self.note_leader(output);
            self.send_heartbeats(now, output);
            for other in self.others() {
                self.send(other, Message::Ping, output);
            }
            self.consider(now, output);
        }
        self.after_step(now, output);
    }

    /// The newest store version that this node's own program can do.
    pub fn store_version_newest(&self) -> u32 {
        self.settings.store_version_newest
    }

    /// The newest store version that the program at the other end of a new connection can do, if it
    /// has said so. Good until the connection closes.
    pub fn introduced(&mut self, peer: NodeId, store_version_newest: Option<u32>) {
        self.store_versions.insert(peer, store_version_newest);
    }

    /// A connection to `peer` is up: what was in flight to it may be lost and is sent again.
    pub fn connected(&mut self, now: Now, peer: NodeId, output: &mut Output) {
        self.notice_lateness(now);
        if !self.configuration.contains(peer) || peer == self.settings.id {
            return;
        }
        if let Some(known) = self.election.peers.get_mut(&peer) {
            known.sent_chosen = None;
        }
        let heartbeat = self.heartbeat_for(peer, now);
        self.send(peer, heartbeat, output);
        if let Proposer::Leading(leading) = &self.proposer {
            let (ballot, hint) = (leading.ballot, leading.hint);
            for (&slot, proposal) in &leading.in_flight {
                if !proposal.tally.contains(peer) {
                    let value = proposal.value.clone();
                    let message = Message::Accept { ballot, slot, value, hint };
                    output.now.push(Envelope { from: self.settings.id, to: peer, message });
                }
            }
        }
    }

    /// Entries below `first_kept` may go: a synced snapshot covers them. It must lie at or below
    /// `first_unchosen`. The journal may drop their segments once the record is synced.
    pub fn trim(&mut self, first_kept: Slot, output: &mut Output) {
        assert!(
            first_kept <= self.learner.first_unchosen,
            "cannot trim below {first_kept}: only slots below {} are chosen",
            self.learner.first_unchosen
        );
        if first_kept > self.acceptor.first_kept() {
            self.acceptor.trim(first_kept);
        }
        // After a restart the acceptor may keep less than the journal says: what a snapshot covers,
        // and nobody here knows to be chosen, was left out. It must be on record before it goes.
        if first_kept > self.recorded_trimmed_below {
            self.record_trimmed_below(first_kept, output);
        }
    }

    /// A snapshot received from a peer, covering all slots below `below`, is synced and installed
    /// in the store. Promise and accepted entries at or above it stay. A snapshot that is not newer
    /// than what this node knows changes nothing (PITFALLS 69).
    pub fn install(
        &mut self,
        now: Now,
        below: Slot,
        configuration: Configuration,
        output: &mut Output,
    ) {
        self.notice_lateness(now);
        if below <= self.learner.first_unchosen {
            return;
        }
        let outvoted = match &self.proposer {
            Proposer::Leading(leading) => leading.hint < below,
            Proposer::Preparing(_) | Proposer::Following => false,
        };
        if outvoted {
            self.end_ballot(now, Deposed::Outvoted, output);
        }
        output.unknown.extend(self.learner.install(below));
        self.recorded_chosen_below = below;
        self.acceptor.trim(below);
        self.record_trimmed_below(below, output);
        if configuration.number > self.configuration.number {
            self.adopt_configuration(now, configuration, output);
        }
        self.advanced_us = now.mono_us;
        self.declare(now, output);
        self.after_step(now, output);
    }

    /// Records that a new journal segment opens with (DESIGN §4, checkpoint). They hold whatever of
    /// the records around them survives, so they may be written ahead of the group that they open.
    pub fn checkpoint(&self) -> Vec<Record> {
        vec![
            Record::Promised(self.acceptor.promised()),
            Record::TrimmedBelow(self.recorded_trimmed_below),
            Record::Configuration(self.configuration.clone()),
        ]
    }
}
