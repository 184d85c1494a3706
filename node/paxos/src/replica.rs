//! One node's part in the protocol: an acceptor, a proposer and a learner around one log.
//!
//! [`Replica::step`] is the dispatcher: one arm for each message, stale ballots turned away first.
//! The rules of what leaves when are in three private doors: `record` (to the journal), `send` (may
//! leave at once) and `withhold` (only once everything recorded so far is synced). A node's own
//! votes take the same road as everybody's: they are withheld answers addressed to itself.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::acceptor::{AcceptAnswer, Acceptor, Entry, Learned, PrepareAnswer};
use crate::ballot::{Ballot, NodeId, Slot};
use crate::configuration::Configuration;
use crate::election::{Decision, Election, Standing};
use crate::learner::Learner;
use crate::message::{Accepted, BatchId, Envelope, Heartbeat, Message, PromisedEntry, Value};
use crate::output::{Deposed, Note, Output, Position, ReadId, Record, Withheld};
use crate::proposer::{Delivery, Leading, Preparing, Proposer};
use crate::reads::Reads;
use crate::settings::{ElectionStrategy, Now, Settings};

/// What the shell found on disk: the newest good snapshot's end, and the journal's records in
/// order.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Everything below is in the snapshot; `Slot::FIRST` without one.
    pub snapshot_below: Slot,
    pub records: Vec<Record>,
}

impl Default for Recovered {
    fn default() -> Self {
        Recovered { snapshot_below: Slot::FIRST, records: Vec::new() }
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

/// See the crate's documentation. Every call takes the time and fills an [`Output`].
///
/// Invariants:
/// - a `Leading` or `Preparing` proposer's ballot is the own acceptor's promise;
/// - a message in `withheld` waits for a position that is not synced yet;
/// - `learner.first_unchosen` is above every slot handed out in `Output::applicable`, and below
///   every other.
#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    configuration: Configuration,
    acceptor: Acceptor,
    proposer: Proposer,
    learner: Learner,
    election: Election,
    reads: Reads,
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
    /// A peer whose `Behind` ended a candidacy.
    noted_leader: Option<NodeId>,
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
        let mut replica = Replica {
            election: Election::new(&settings, now.mono_us),
            settings,
            configuration,
            acceptor,
            proposer: Proposer::Following,
            learner: Learner::new(recovered.snapshot_below),
            reads: Reads::default(),
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
        };
        replica.declare(now, output);
        replica.recorded_chosen_below = replica.learner.first_unchosen;
        replica
    }

    /// Takes one message from a peer.
    pub fn step(&mut self, now: Now, envelope: Envelope, output: &mut Output) {
        let Envelope { from, to, message } = envelope;
        assert!(to == self.settings.id, "a message for {to} reached {}", self.settings.id);
        // Peace, not safety: whoever is not a member is not answered.
        if !self.configuration.contains(from) {
            return;
        }
        self.dispatch(now, from, message, output);
        self.after_step(now, output);
    }

    /// Lets time pass: heartbeats, suspicion, repeats. Call at least every 5 ms.
    pub fn tick(&mut self, now: Now, output: &mut Output) {
        self.election.on_tick(now.mono_us);
        self.consider(now, output);
        if self.election.heartbeat_due(now.mono_us) {
            self.send_heartbeats(now, output);
        }
        self.repeat(now, output);
        self.ask_for_missing(now, output);
        let idle_us = now.mono_us.saturating_sub(self.recorded_chosen_us);
        if idle_us >= self.settings.timing.resend_us {
            self.record_chosen_below(now, output);
        }
        self.after_step(now, output);
    }

    /// The journal has synced every record up to `position`.
    pub fn durable(&mut self, now: Now, position: Position, output: &mut Output) {
        assert!(position <= self.written, "position {position:?} was never written");
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
        let Proposer::Leading(leading) = &self.proposer else {
            return Err(Refusal::NotLeading { leader: self.leader() });
        };
        // Whatever former leaders acknowledged lies below the own no-op (PITFALLS 32).
        let last_chosen = Slot(self.learner.first_unchosen.0 - 1);
        let slot = match mutant!(ReadBeforeOwnEntry) {
            true => last_chosen,
            false => last_chosen.max(leading.own_slot),
        };
        if mutant!(ReadWithoutRound) {
            output.reads.push((id, slot));
            return Ok(());
        }
        self.reads.add(id, slot);
        self.after_step(now, output);
        Ok(())
    }

    /// Begins phase 1 now, whatever the election thinks of it: an operator wants this node to lead.
    /// Safe at any time; it costs the present leader its ballot. False for one that cannot lead: a
    /// learner, or a node that must heal its log first.
    pub fn take_over(&mut self, now: Now, output: &mut Output) -> bool {
        if !self.configuration.is_voter(self.settings.id) {
            return false;
        }
        self.end_ballot(now, Deposed::GaveUp, output);
        self.begin_candidacy(now, output);
        self.after_step(now, output);
        self.preparing().is_some() || self.leading().is_some()
    }

    /// Tells whether this node could accept now: space left, and no group unsynced for 500 ms.
    pub fn set_can_accept(&mut self, can_accept: bool) {
        self.election.can_accept = can_accept;
    }

    /// A connection to `peer` has closed: a hint to ask around now. Never ends a lease.
    pub fn disconnected(&mut self, now: Now, peer: NodeId, output: &mut Output) {
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

    /// A connection to `peer` is up: what was in flight to it may be lost and is sent again.
    pub fn connected(&mut self, now: Now, peer: NodeId, output: &mut Output) {
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
        ]
    }

    pub fn id(&self) -> NodeId {
        self.settings.id
    }

    pub fn promised(&self) -> Ballot {
        self.acceptor.promised()
    }

    /// The ballot that this node leads, once phase 1 has ended.
    pub fn leading(&self) -> Option<Ballot> {
        match &self.proposer {
            Proposer::Leading(leading) => Some(leading.ballot),
            Proposer::Preparing(_) | Proposer::Following => None,
        }
    }

    /// Leading, and all that former leaders may have got chosen is chosen and handed out, with the
    /// own no-op behind it: from here on the store is as new as the log.
    pub fn reign_is_open(&self) -> bool {
        match &self.proposer {
            Proposer::Leading(leading) => self.learner.first_unchosen > leading.own_slot,
            Proposer::Preparing(_) | Proposer::Following => false,
        }
    }

    /// The ballot whose phase 1 this node runs now.
    pub fn preparing(&self) -> Option<Ballot> {
        match &self.proposer {
            Proposer::Preparing(preparing) => Some(preparing.ballot),
            Proposer::Leading(_) | Proposer::Following => None,
        }
    }

    /// The leader that this node knows: itself, or whom it follows.
    pub fn leader(&self) -> Option<NodeId> {
        match self.leading() {
            Some(_) => Some(self.settings.id),
            None => self.election.followed().map(|(node, _)| node),
        }
    }

    /// The ballot of that leader.
    pub fn leader_ballot(&self) -> Option<Ballot> {
        self.leading().or_else(|| self.election.followed().map(|(_, ballot)| ballot))
    }

    /// The leader that this node has heard within its patience, itself included: for readiness.
    pub fn happy_with(&self, now: Now) -> Option<NodeId> {
        match self.leading() {
            Some(_) => self
                .election
                .leader_reaches_quorum(now.mono_us, &self.configuration)
                .then_some(self.settings.id),
            None => self.election.happy_with(now.mono_us),
        }
    }

    /// How long ago the leader was last heard; 0 on the leader itself.
    pub fn leader_silence_us(&self, now: Now) -> u64 {
        match self.leading() {
            Some(_) => 0,
            None => self.election.leader_silence_us(now.mono_us),
        }
    }

    /// Slots not known chosen that lie below one that is.
    pub fn hole_count(&self) -> u64 {
        self.acceptor.hole_count(self.learner.first_unchosen)
    }

    /// Every slot below is known chosen here.
    pub fn first_unchosen(&self) -> Slot {
        self.learner.first_unchosen
    }

    pub fn first_kept(&self) -> Slot {
        self.acceptor.first_kept()
    }

    /// The highest slot that this node holds an entry of, chosen or not.
    pub fn last_slot(&self) -> Option<Slot> {
        self.acceptor.last_slot()
    }

    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Leading, with room in the window for a batch of so many bytes.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        match &self.proposer {
            Proposer::Leading(leading) => leading.has_room_for(bytes, self.settings.limits),
            Proposer::Preparing(_) | Proposer::Following => false,
        }
    }

    /// Slots in flight, when leading.
    pub fn pending_count(&self) -> u64 {
        match &self.proposer {
            Proposer::Leading(leading) => leading.next_slot.0 - leading.hint.0,
            Proposer::Preparing(_) | Proposer::Following => 0,
        }
    }

    pub fn peer_views(&self, now: Now) -> Vec<PeerView> {
        let connected: Vec<NodeId> =
            self.election.connected(now.mono_us).map(|(node, _)| node).collect();
        self.others()
            .into_iter()
            .map(|node| {
                let peer = self.election.peers.get(&node);
                PeerView {
                    node,
                    connected: connected.contains(&node),
                    round_trip_us: peer.and_then(|peer| peer.round_trip_us),
                    first_unchosen: peer.map_or(Slot::ZERO, |peer| peer.first_unchosen),
                    can_accept: peer.is_some_and(|peer| peer.heartbeat.can_accept),
                }
            })
            .collect()
    }

    // ---- the dispatcher ---------------------------------------------------------------------

    fn dispatch(&mut self, now: Now, from: NodeId, message: Message, output: &mut Output) {
        match message {
            // Phase 1a. Promise all slots from there on, and tell what was accepted there.
            Message::Prepare { ballot, from_slot, holds } => {
                self.see(ballot);
                self.on_prepare(now, from, ballot, from_slot, &holds, output);
            }
            // Phase 1b. A quorum will ignore older ballots from now on, so whatever was chosen
            // before is among these promises.
            Message::Promise { ballot, from_slot, to_slot, entries, wall_ms, .. } => {
                self.on_promise(now, from, ballot, (from_slot, to_slot), entries, wall_ms, output);
            }
            // Somebody has promised more than we can offer: this ballot is over.
            Message::Nack { ballot, promised } => {
                self.see(promised);
                if self.own_ballot() == Some(ballot) {
                    self.end_ballot(now, Deposed::Nacked, output);
                }
            }
            // We ask about slots that the peer has trimmed: learn them first. A peer that knows no
            // more than we do (it lost its newest snapshot) cannot help; others may be a quorum.
            Message::Behind { ballot, first_unchosen: peer_first_unchosen, .. } => {
                let first_unchosen = self.learner.first_unchosen;
                if peer_first_unchosen > first_unchosen {
                    if self.own_ballot() == Some(ballot) {
                        self.end_ballot(now, Deposed::GaveUp, output);
                    }
                    self.send(from, Message::CatchUp { first_unchosen }, output);
                }
            }
            // Phase 2a. Take it unless a higher ballot is promised.
            Message::Accept { ballot, slot, value, hint } => {
                self.see(ballot);
                self.on_accept(now, from, ballot, slot, value, hint, output);
            }
            // Phase 2b. A quorum of these chooses the value.
            Message::Accepted { ballot, slot, first_unchosen } => {
                self.on_accepted(now, from, ballot, slot, first_unchosen, output);
            }
            Message::Heartbeat(heartbeat) => self.on_heartbeat(now, from, heartbeat, output),
            Message::Ping => {
                let heartbeat = self.heartbeat_for(from, now);
                self.send(from, heartbeat, output);
            }
            // Chosen for ever, whoever says so.
            Message::Chosen { first, values } => self.on_chosen(now, from, first, values, output),
            Message::Learned { first_unchosen } => {
                self.peer_knows(from, first_unchosen);
                self.bring_up_to_date(now, from, output);
            }
            // The peer lacks what we may have.
            Message::CatchUp { first_unchosen } => {
                self.peer_lacks(from, first_unchosen);
                self.send_missing(now, from, output);
            }
            // A quorum read: is this ballot still the one that we promised?
            Message::Confirm { ballot, round } => {
                self.see(ballot);
                self.on_confirm(now, from, ballot, round, output);
            }
            Message::Confirmed { ballot, round } => {
                if self.leading() == Some(ballot) {
                    self.reads.on_confirmed(from, round);
                }
            }
        }
    }

    fn on_prepare(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        from_slot: Slot,
        holds: &[(Slot, Ballot)],
        output: &mut Output,
    ) {
        match self.acceptor.prepare(ballot, from_slot) {
            PrepareAnswer::Promise { raised } => {
                if raised {
                    self.write_promise(now, ballot, output);
                }
                // Everything that the answer speaks of has to be on disk, not only the promise.
                let first_unchosen = self.learner.first_unchosen;
                for (from_slot, to_slot, entries) in
                    self.acceptor.report(from_slot, holds, self.settings.limits)
                {
                    let promise = Message::Promise {
                        ballot,
                        from_slot,
                        to_slot,
                        entries,
                        first_unchosen,
                        wall_ms: now.wall_ms,
                    };
                    self.withhold(self.written, from, promise, output);
                }
            }
            PrepareAnswer::Refuse => self.refuse(from, ballot, output),
            PrepareAnswer::Behind => self.answer_behind(from, ballot, output),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn on_promise(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        covers: (Slot, Option<Slot>),
        entries: Vec<PromisedEntry>,
        wall_ms: u64,
        output: &mut Output,
    ) {
        if self.own_ballot() != Some(ballot) || self.leading().is_some() {
            return;
        }
        // What others know chosen is chosen: no need to propose it again.
        for entry in &entries {
            if let (Accepted::Chosen, Some(value)) = (entry.accepted, &entry.value) {
                self.learn(now, entry.slot, value.clone(), output);
            }
        }
        self.declare(now, output);
        let Proposer::Preparing(preparing) = &mut self.proposer else { return };
        let acceptor = &self.acceptor;
        preparing.on_promise(from, covers, entries, wall_ms, |slot, ballot| {
            let entry = acceptor.entry(slot)?;
            (entry.accepted == Accepted::Under(ballot)).then(|| entry.value.clone())
        });
        if preparing.reached(&self.configuration) {
            self.become_leader(now, output);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn on_accept(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        slot: Slot,
        value: Value,
        hint: Slot,
        output: &mut Output,
    ) {
        let promised_before = self.acceptor.promised();
        let answer = self.acceptor.accept(ballot, slot, &value);
        if self.acceptor.promised() > promised_before {
            self.promise_raised(now, ballot, output);
        }
        match answer {
            AcceptAnswer::Refuse => return self.refuse(from, ballot, output),
            AcceptAnswer::Behind => return self.answer_behind(from, ballot, output),
            AcceptAnswer::ChosenOtherwise(chosen) => {
                let message = Message::Chosen { first: slot, values: vec![chosen] };
                return self.withhold(self.written, from, message, output);
            }
            AcceptAnswer::Taken { .. } => {
                self.record(Record::Accepted { slot, ballot, value }, output);
                if self.acceptor.promised() > promised_before {
                    self.promised_at = self.written;
                }
            }
            AcceptAnswer::Held { raised } => {
                if raised {
                    self.record(Record::Promised(ballot), output);
                    self.promised_at = self.written;
                }
            }
        }
        if from != self.settings.id {
            self.election.on_leader_message(ballot, now.mono_us);
            self.take_hint(ballot, hint, output);
            self.declare(now, output);
        }
        let first_unchosen = self.learner.first_unchosen;
        let accepted = Message::Accepted { ballot, slot, first_unchosen };
        self.withhold(self.written, from, accepted, output);
    }

    fn on_accepted(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        slot: Slot,
        first_unchosen: Slot,
        output: &mut Output,
    ) {
        self.peer_knows(from, first_unchosen);
        let Proposer::Leading(leading) = &mut self.proposer else { return };
        if leading.ballot != ballot && !mutant!(VoteOfAnOlderBallot) {
            return;
        }
        self.reads.on_accepted(from, slot);
        if !leading.on_accepted(from, slot, &self.configuration) {
            return;
        }
        while let Some((slot, phase2_us)) = leading.settle_next(now.mono_us) {
            self.acceptor.mark_chosen(slot, leading.ballot);
            output.notes.push(Note::Tallied { slot, phase2_us });
        }
        self.declare(now, output);
    }

    fn on_heartbeat(&mut self, now: Now, from: NodeId, heartbeat: Heartbeat, output: &mut Output) {
        self.see(heartbeat.promised);
        let (leading, hint, promised) = (heartbeat.leading, heartbeat.hint, heartbeat.promised);
        self.election.on_heartbeat(from, heartbeat, now.mono_us);
        if let Some(ballot) = leading {
            self.see(ballot);
            self.take_hint(ballot, hint, output);
            self.declare(now, output);
        }
        // A peer that has promised more will not vote for this ballot any more: begin a round above
        // it rather than lead without that voter until the next one fails too.
        if self.leading().is_some_and(|ballot| promised > ballot) {
            self.end_ballot(now, Deposed::Nacked, output);
        }
        self.bring_up_to_date(now, from, output);
        self.consider(now, output);
    }

    fn on_chosen(
        &mut self,
        now: Now,
        from: NodeId,
        first: Slot,
        values: Vec<Value>,
        output: &mut Output,
    ) {
        let mut slot = first;
        for value in values {
            self.learn(now, slot, value, output);
            slot = slot.next();
        }
        self.declare(now, output);
        let first_unchosen = self.learner.first_unchosen;
        self.withhold(self.written, from, Message::Learned { first_unchosen }, output);
    }

    fn on_confirm(
        &mut self,
        now: Now,
        from: NodeId,
        ballot: Ballot,
        round: u64,
        output: &mut Output,
    ) {
        if ballot < self.acceptor.promised() {
            return self.refuse(from, ballot, output);
        }
        // An acceptor that was not asked in phase 1 may promise now: that is always safe.
        if self.acceptor.raise(ballot) {
            self.write_promise(now, ballot, output);
        }
        self.election.on_leader_message(ballot, now.mono_us);
        self.withhold(self.promised_at, from, Message::Confirmed { ballot, round }, output);
    }

    // ---- proposing --------------------------------------------------------------------------

    /// Begins phase 1 in a ballot never used before. The own promise is the record that the
    /// Prepares wait for: the round is on disk before anybody hears of it.
    fn begin_candidacy(&mut self, now: Now, output: &mut Output) {
        let own = self.settings.id;
        let from_slot = self.learner.first_unchosen;
        // A candidate whose own log is trimmed above its store (an older snapshot was restored)
        // could not even answer itself.
        if from_slot < self.acceptor.first_kept() {
            return;
        }
        let ballot = Ballot::next(self.highest_seen, self.configuration.number, own);
        self.see(ballot);
        let deadline_us = now.mono_us + self.election.phase1_us();
        self.proposer =
            Proposer::Preparing(Preparing::new(ballot, from_slot, now.mono_us, deadline_us));
        output.notes.push(Note::Preparing { ballot });
        let holds = self.acceptor.holds(from_slot);
        self.on_prepare(now, own, ballot, from_slot, &holds, output);
        for peer in self.others() {
            let holds = holds.clone();
            self.withhold(
                self.written,
                peer,
                Message::Prepare { ballot, from_slot, holds },
                output,
            );
        }
    }

    /// Phase 1 has its quorum: adopt what was reported, fill the gaps, and open the reign with an
    /// own no-op.
    fn become_leader(&mut self, now: Now, output: &mut Output) {
        let Proposer::Preparing(preparing) =
            std::mem::replace(&mut self.proposer, Proposer::Following)
        else {
            return;
        };
        let first = self.learner.first_unchosen;
        let ballot = preparing.ballot;
        let reported =
            [preparing.last_slot(), self.acceptor.last_slot(), self.learner.last_own_slot()];
        let end = reported.into_iter().flatten().max().map_or(first, Slot::next).max(first);
        let mut leading = Leading::new(ballot, first, now.mono_us);
        leading.own_slot = end;
        self.proposer = Proposer::Leading(leading);
        self.election.on_elected(now.mono_us);
        let (mut adopted, mut noops) = (0, 0);
        let mut again: Option<Value> = None;
        for slot in first.until(end) {
            // A slot above the first unchosen one may be known chosen already. It is proposed all
            // the same, with that value, so that this ballot tallies it and may hint it.
            let known =
                self.acceptor.entry(slot).filter(|entry| entry.accepted == Accepted::Chosen);
            let value =
                known.map(|entry| &entry.value).or_else(|| preparing.adopted(slot)).cloned();
            match value {
                Some(_) => adopted += 1,
                None => noops += 1,
            }
            if mutant!(GapNotFilled) && value.is_none() {
                if let Proposer::Leading(leading) = &mut self.proposer {
                    leading.next_slot = slot.next();
                }
                continue;
            }
            if mutant!(BatchInTwoSlots) && again.is_none() {
                again = value.clone();
            }
            self.propose_value(now, value.unwrap_or(Value::Noop), output);
        }
        self.propose_value(now, again.unwrap_or(Value::Noop), output);
        output.leader_clock_ms = Some(preparing.wall_ms_median());
        let phase1_us = now.mono_us.saturating_sub(preparing.started_us);
        output.notes.push(Note::Elected { ballot, adopted, noops, phase1_us });
        self.note_leader(output);
        self.send_heartbeats(now, output);
    }

    /// Phase 2a for the next slot, to everybody at once; the own acceptor's record is written in
    /// parallel with the Accepts' way to the others.
    fn propose_value(&mut self, now: Now, value: Value, output: &mut Output) {
        let own = self.settings.id;
        let Proposer::Leading(leading) = &mut self.proposer else {
            unreachable!("only a leader proposes");
        };
        let slot = leading.propose(value.clone(), now.mono_us);
        let (ballot, hint) = (leading.ballot, leading.hint);
        for peer in self.others() {
            let value = value.clone();
            self.send(peer, Message::Accept { ballot, slot, value, hint }, output);
        }
        self.on_accept(now, own, ballot, slot, value, hint, output);
    }

    /// This ballot is over, whether in phase 1 or 2. Nothing of it is sent any more. Own batches
    /// wait for the log's verdict; reads are redirected.
    fn end_ballot(&mut self, now: Now, reason: Deposed, output: &mut Output) {
        let Some(ballot) = self.own_ballot() else { return };
        let led = self.leading().is_some();
        self.proposer = Proposer::Following;
        // Messages of this ballot that still wait for a sync would be spoken by a leader that is
        // none any more.
        self.withheld.retain(|withheld| {
            !matches!(&withheld.message, Message::Prepare { ballot: held, .. } if *held == ballot)
        });
        output.reads_refused.extend(self.reads.take_all());
        if mutant!(LostBeforeSettled) {
            output.lost.extend(self.learner.own_batches());
        }
        self.election.on_deposed(reason, now.mono_us);
        output.notes.push(Note::Deposed { ballot, led, reason });
        self.note_leader(output);
        if led {
            self.send_heartbeats(now, output);
        }
    }

    fn start_read_round(&mut self, now: Now, output: &mut Output) {
        let Proposer::Leading(leading) = &self.proposer else { return };
        let ballot = leading.ballot;
        let Some(round) = self.reads.start(self.settings.id, leading.next_slot, now.mono_us) else {
            return;
        };
        for peer in self.others() {
            self.send(peer, Message::Confirm { ballot, round }, output);
        }
    }

    // ---- learning ---------------------------------------------------------------------------

    /// `value` is chosen in `slot`. A leader that proposed something else there is outvoted and
    /// ends its ballot before it sends anything more (PITFALLS 111).
    fn learn(&mut self, now: Now, slot: Slot, value: Value, output: &mut Output) {
        let outvoted = match &self.proposer {
            Proposer::Leading(leading) => leading.outvoted_by(slot, &value),
            Proposer::Preparing(_) | Proposer::Following => false,
        };
        if outvoted && !mutant!(OutvotedLeaderGoesOn) {
            self.end_ballot(now, Deposed::Outvoted, output);
        }
        if slot < self.learner.first_unchosen {
            return;
        }
        if self.acceptor.learn(slot, &value) == Learned::Stored {
            self.record(Record::Chosen { slot, value }, output);
        }
    }

    fn take_hint(&mut self, ballot: Ballot, hint: Slot, output: &mut Output) {
        let count = self.acceptor.take_hint(ballot, hint, self.learner.first_unchosen);
        if count > 0 {
            output.notes.push(Note::ChosenByHint { count });
        }
    }

    /// Hands out every slot whose turn has come.
    fn declare(&mut self, now: Now, output: &mut Output) {
        while let Some(declared) = self.learner.declare_next(&self.acceptor) {
            self.advanced_us = now.mono_us;
            output.lost.extend(declared.lost);
            if let Value::Configuration { configuration, .. } = &declared.value {
                self.adopt_configuration(now, configuration.clone(), output);
            }
            output.applicable.push((declared.slot, declared.value));
        }
    }

    /// A newer configuration rules from here on: every ballot of the older one is over.
    fn adopt_configuration(&mut self, now: Now, configuration: Configuration, output: &mut Output) {
        if configuration.number <= self.configuration.number {
            return;
        }
        self.configuration = configuration;
        self.end_ballot(now, Deposed::NewConfiguration, output);
    }

    // ---- bringing others up to date -----------------------------------------------------------

    fn peer_knows(&mut self, peer: NodeId, first_unchosen: Slot) {
        if peer != self.settings.id {
            let peer = self.election.peers.entry(peer).or_default();
            peer.first_unchosen = peer.first_unchosen.max(first_unchosen);
        }
    }

    /// A peer that asks says where it stands now: less far than before, if it has restarted.
    fn peer_lacks(&mut self, peer: NodeId, first_unchosen: Slot) {
        if peer != self.settings.id {
            let peer = self.election.peers.entry(peer).or_default();
            peer.first_unchosen = first_unchosen;
            peer.sent_chosen = None;
        }
    }

    /// The leader brings everybody up to date, again and again until they are (full replication).
    fn bring_up_to_date(&mut self, now: Now, peer: NodeId, output: &mut Output) {
        let Proposer::Leading(leading) = &self.proposer else { return };
        let Some(known) = self.election.peers.get(&peer) else { return };
        let slot = known.first_unchosen;
        if slot >= self.learner.first_unchosen {
            return;
        }
        let resend_us = self.settings.timing.resend_us;
        if leading.delivery(peer, slot, now.mono_us, resend_us) == Delivery::Needed {
            self.send_missing(now, peer, output);
        }
    }

    /// One `Chosen` with what the peer lacks, the next when it has answered; or a snapshot.
    fn send_missing(&mut self, now: Now, peer: NodeId, output: &mut Output) {
        let resend_us = self.settings.timing.resend_us;
        let first_unchosen = self.learner.first_unchosen;
        let first_kept = self.acceptor.first_kept();
        let Some(known) = self.election.peers.get_mut(&peer) else { return };
        let first = known.first_unchosen.max(Slot::FIRST);
        if first >= first_unchosen {
            return;
        }
        if first < first_kept {
            let asked =
                known.snapshot_us.is_some_and(|at| now.mono_us.saturating_sub(at) < resend_us);
            if !asked {
                known.snapshot_us = Some(now.mono_us);
                output.snapshot_for.push(peer);
            }
            return;
        }
        let under_way = known.sent_chosen.is_some_and(|(end, sent_us)| {
            first < end && now.mono_us.saturating_sub(sent_us) < resend_us
        });
        if under_way {
            return;
        }
        let mut values = Vec::new();
        let mut bytes = 0;
        for slot in first.until(first_unchosen) {
            let Some(entry) = self.acceptor.entry(slot) else { break };
            bytes += 32 + entry.value.len_bytes();
            values.push(entry.value.clone());
            if bytes >= self.settings.limits.chunk_bytes {
                break;
            }
        }
        known.sent_chosen = Some((Slot(first.0 + values.len() as u64), now.mono_us));
        // These entries may rest on records that are not synced here; but they are chosen, so a
        // quorum has them on disk.
        self.send(peer, Message::Chosen { first, values }, output);
    }

    /// Nobody brings us up to date, and somebody knows more: ask the one who knows most.
    fn ask_for_missing(&mut self, now: Now, output: &mut Output) {
        let patience_us = 2 * self.settings.timing.resend_us;
        let quiet = |at: u64| now.mono_us.saturating_sub(at) >= patience_us;
        if self.leading().is_some() || !quiet(self.advanced_us) || !quiet(self.asked_us) {
            return;
        }
        let first_unchosen = self.learner.first_unchosen;
        let ahead = self
            .election
            .connected(now.mono_us)
            .filter(|(_, peer)| peer.first_unchosen > first_unchosen)
            .max_by_key(|(node, peer)| (peer.first_unchosen, *node))
            .map(|(node, _)| node);
        if let Some(peer) = ahead {
            self.asked_us = now.mono_us;
            self.send(peer, Message::CatchUp { first_unchosen }, output);
        }
    }

    // ---- time -------------------------------------------------------------------------------

    /// Asks the election what to do, and does it.
    fn consider(&mut self, now: Now, output: &mut Output) {
        let standing = match &self.proposer {
            Proposer::Following => Standing::Following,
            Proposer::Preparing(_) => Standing::Preparing,
            Proposer::Leading(_) => Standing::Leading,
        };
        let stalled = match &self.proposer {
            Proposer::Leading(leading) => {
                let quiet_us = now.mono_us.saturating_sub(leading.progress_us);
                !leading.in_flight.is_empty() && quiet_us >= self.settings.timing.stalled_us
            }
            Proposer::Preparing(_) | Proposer::Following => false,
        };
        match self.election.decide(now.mono_us, &self.configuration, standing, stalled) {
            Decision::Stay => {}
            Decision::TakeOver => self.begin_candidacy(now, output),
            Decision::StepDown(reason) => self.end_ballot(now, reason, output),
        }
        self.note_leader(output);
    }

    /// Repeats what has not been answered: Prepares, Accepts, read rounds.
    fn repeat(&mut self, now: Now, output: &mut Output) {
        let resend_us = self.settings.timing.resend_us;
        let members = self.others();
        let mut messages = Vec::new();
        let mut gave_up = false;
        match &mut self.proposer {
            Proposer::Following => {}
            Proposer::Preparing(preparing) => {
                gave_up = now.mono_us >= preparing.deadline_us;
                let own_promise_synced = self.promised_at <= self.synced;
                let due = now.mono_us.saturating_sub(preparing.sent_us) >= resend_us / 4;
                if !gave_up && due && own_promise_synced {
                    preparing.sent_us = now.mono_us;
                    let (ballot, from_slot) = (preparing.ballot, preparing.from_slot);
                    for peer in members {
                        if !preparing.has_answered(peer) {
                            let holds = self.acceptor.holds(from_slot);
                            messages.push((peer, Message::Prepare { ballot, from_slot, holds }));
                        }
                    }
                }
            }
            Proposer::Leading(leading) => {
                let (ballot, hint) = (leading.ballot, leading.hint);
                for (&slot, proposal) in &mut leading.in_flight {
                    if now.mono_us.saturating_sub(proposal.sent_us) < resend_us {
                        continue;
                    }
                    proposal.sent_us = now.mono_us;
                    for &peer in members.iter().filter(|peer| !proposal.tally.contains(**peer)) {
                        let value = proposal.value.clone();
                        messages.push((peer, Message::Accept { ballot, slot, value, hint }));
                    }
                }
                self.reads.give_up_round(now.mono_us, resend_us);
            }
        }
        for (peer, message) in messages {
            self.send(peer, message, output);
        }
        if gave_up {
            self.end_ballot(now, Deposed::GaveUp, output);
        }
    }

    fn send_heartbeats(&mut self, now: Now, output: &mut Output) {
        let sequence = self.election.next_sequence(now.mono_us);
        for peer in self.others() {
            let message = self.heartbeat(peer, sequence, now);
            self.send(peer, message, output);
        }
    }

    fn heartbeat_for(&mut self, peer: NodeId, now: Now) -> Message {
        let sequence = self.election.next_sequence(now.mono_us);
        self.heartbeat(peer, sequence, now)
    }

    fn heartbeat(&self, peer: NodeId, sequence: u64, now: Now) -> Message {
        let (echo, echo_age_us) = self.election.echo_to(peer, now.mono_us);
        let leading = self.leading();
        let quorum_connected = match leading {
            Some(_) => self.election.leader_reaches_quorum(now.mono_us, &self.configuration),
            None => self.election.is_quorum_connected(now.mono_us, &self.configuration),
        };
        let happy_with = match leading {
            Some(_) => quorum_connected.then_some(self.settings.id),
            None => self.election.happy_with(now.mono_us),
        };
        let hint = match &self.proposer {
            Proposer::Leading(leading) => leading.hint,
            Proposer::Preparing(_) | Proposer::Following => Slot::ZERO,
        };
        Message::Heartbeat(Heartbeat {
            sequence,
            echo,
            echo_age_us,
            promised: self.acceptor.promised(),
            leading,
            happy_with,
            // A torn log (restored from an older snapshot, trimmed above it) has to heal first.
            can_accept: self.election.can_accept
                && self.learner.first_unchosen >= self.acceptor.first_kept(),
            quorum_connected,
            connected: self.election.connected(now.mono_us).map(|(node, _)| node).collect(),
            first_unchosen: self.learner.first_unchosen,
            hint,
            priority: self.settings.priority,
        })
    }

    // ---- doors and small change -----------------------------------------------------------------

    /// What every call ends with: withheld messages whose records are synced, finished read rounds,
    /// and the mark of how far the log is chosen when something is written anyway.
    fn after_step(&mut self, now: Now, output: &mut Output) {
        while self.withheld.front().is_some_and(|withheld| withheld.after <= self.synced) {
            let Some(Withheld { to, message, .. }) = self.withheld.pop_front() else { break };
            if to == self.settings.id {
                self.dispatch(now, to, message, output);
            } else {
                self.send(to, message, output);
            }
        }
        while let Some(reads) = self.reads.take_confirmed(&self.configuration) {
            output.reads.extend(reads);
            self.start_read_round(now, output);
        }
        self.start_read_round(now, output);
        if !output.records.is_empty() {
            self.record_chosen_below(now, output);
        }
    }

    fn record_chosen_below(&mut self, now: Now, output: &mut Output) {
        let first_unchosen = self.learner.first_unchosen;
        self.recorded_chosen_us = now.mono_us;
        if first_unchosen > self.recorded_chosen_below {
            let mut from = std::mem::replace(&mut self.recorded_chosen_below, first_unchosen);
            if mutant!(MarkReachesUnderSnapshot) {
                from = Slot::FIRST;
            }
            self.record(Record::ChosenRange { from, below: first_unchosen }, output);
        }
    }

    fn record_trimmed_below(&mut self, below: Slot, output: &mut Output) {
        self.recorded_trimmed_below = self.recorded_trimmed_below.max(below);
        self.record(Record::TrimmedBelow(below), output);
    }

    fn record(&mut self, record: Record, output: &mut Output) {
        self.written.0 += 1;
        output.records.push(record);
    }

    fn send(&self, to: NodeId, message: Message, output: &mut Output) {
        assert!(to != self.settings.id, "{to} would send {} to itself", message.kind());
        output.now.push(Envelope { from: self.settings.id, to, message });
    }

    /// Sends `message` once everything recorded up to `after` is synced. What is already synced
    /// leaves at once, but never past an own vote that still waits.
    fn withhold(&mut self, after: Position, to: NodeId, message: Message, output: &mut Output) {
        if after <= self.synced && to != self.settings.id {
            return self.send(to, message, output);
        }
        let is_early = match &message {
            Message::Prepare { .. } => mutant!(PrepareBeforeSync),
            _ => to == self.settings.id && mutant!(OwnVoteBeforeSync),
        };
        let after = if is_early { Position(0) } else { after };
        let place = self.withheld.partition_point(|withheld| withheld.after <= after);
        self.withheld.insert(place, Withheld { after, to, message });
    }

    fn write_promise(&mut self, now: Now, ballot: Ballot, output: &mut Output) {
        self.record(Record::Promised(ballot), output);
        self.promised_at = self.written;
        self.promise_raised(now, ballot, output);
    }

    /// The own acceptor has promised `ballot`. A leader or candidate of a lower one goes at once.
    fn promise_raised(&mut self, now: Now, ballot: Ballot, output: &mut Output) {
        let is_over = self.own_ballot().is_some_and(|own| own < ballot);
        if is_over && !mutant!(LeaderOutlivesItsPromise) {
            self.end_ballot(now, Deposed::OwnPromise, output);
        }
        if ballot.node != self.settings.id {
            self.election.on_promised_other(ballot, now.mono_us);
        }
    }

    fn refuse(&self, to: NodeId, ballot: Ballot, output: &mut Output) {
        let promised = self.acceptor.promised();
        output.notes.push(Note::Refused { ballot, promised });
        if to != self.settings.id {
            self.send(to, Message::Nack { ballot, promised }, output);
        }
    }

    fn answer_behind(&self, to: NodeId, ballot: Ballot, output: &mut Output) {
        output.notes.push(Note::AnsweredBehind { to });
        if to != self.settings.id {
            let first_kept = self.acceptor.first_kept();
            let first_unchosen = self.learner.first_unchosen;
            self.send(to, Message::Behind { ballot, first_kept, first_unchosen }, output);
        }
    }

    /// Tells the shell when the known leader changes.
    fn note_leader(&mut self, output: &mut Output) {
        let leader = self.leader();
        if leader != self.noted_leader {
            self.noted_leader = leader;
            let ballot = self.leader_ballot().unwrap_or_default();
            output.notes.push(Note::Following { leader, ballot });
        }
    }

    fn see(&mut self, ballot: Ballot) {
        self.highest_seen = self.highest_seen.max(ballot);
    }

    fn own_ballot(&self) -> Option<Ballot> {
        match &self.proposer {
            Proposer::Following => None,
            Proposer::Preparing(preparing) => Some(preparing.ballot),
            Proposer::Leading(leading) => Some(leading.ballot),
        }
    }

    /// Every member but this node, in order of id.
    fn others(&self) -> Vec<NodeId> {
        self.configuration.members.keys().copied().filter(|id| *id != self.settings.id).collect()
    }

    pub fn election_strategy(&self) -> ElectionStrategy {
        self.settings.election
    }
}
