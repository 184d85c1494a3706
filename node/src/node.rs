//! The node without its sockets and files: a replica, a store, and the clients that wait for them.
//!
//! The loop reads like a message's trip: *collect* what came in ([`Node::command`],
//! [`Node::received`], [`Node::synced`], [`Node::tick`]), then one [`Node::turn`]: *step, send,
//! persist, apply, reply*. What the world has to do comes out as [`Effects`]. There is no I/O, no
//! clock and no chance in here but what is handed in, so that a simulator can drive it.
//!
//! How a request is served:
//! - a write goes into the open batch; the batch is proposed, chosen, applied; then it is answered;
//! - a read is confirmed by the lease, or waits for a quorum round, and is served from the store,
//!   never from the log; but behind a write of its own connection it takes a place in the batch, so
//!   that it sees that write;
//! - without a leader it is held, for a second by default, then refused: surely not done;
//! - a read on a connection that said READONLY may be served by a node that does not lead.

mod applying;
mod fates;
mod following;
mod pacing;
mod taking;
mod transacting;
mod waiting;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use config::Behaviour;
use paxos::{
    BatchId, Change, ChangeRefusal, Configuration, Envelope, NodeId, Note, Now, Output, Position,
    ReadId, Record, Replica, Slot, Value,
};
use rand::{RngCore, SeedableRng, rngs::SmallRng};

use self::pacing::Pace;
use crate::agreement::{Agreement, Contradiction, State};
use crate::batch::BatchBuilder;
use crate::clients::{Clients, Sequence, SessionId};
use crate::clock::LogClock;
use crate::command::Work;
use crate::membership::Verdict;
use crate::snapshot::Loaded;
use crate::store::{Growth, KeySearch, SnapshotHead, Store};
use crate::transactions::Exec;

/// What a turn asks of the world.
#[derive(Debug, Default)]
pub struct Effects {
    /// To the journal, in order; then [`Node::synced`] with `position`.
    pub records: Vec<Record>,
    /// The replica's position behind the last of these records.
    pub position: Position,
    /// What a new journal segment would have to open with, were it opened before these records.
    pub checkpoint: Vec<Record>,
    /// To the peers, at once.
    pub sends: Vec<Envelope>,
    /// Connections with replies to be written.
    pub dirty: Vec<SessionId>,
    /// Peers that need a snapshot.
    pub snapshot_for: Vec<NodeId>,
    /// What happened, for traces and metrics.
    pub notes: Vec<Note>,
    /// There is more to do at once: another turn is wanted, after what has come in meanwhile.
    pub more: bool,
    /// This node was removed by the configuration of this number, and nobody needs it any more.
    pub tombstone: Option<u32>,
}

/// One request of a proposed batch.
#[derive(Debug)]
struct Item {
    session: SessionId,
    sequence: Sequence,
    /// Of its first key, for a redirection.
    hash_slot: u16,
    /// Its reply may be a value: counted in the connection's `values_pending`.
    answers_value: bool,
    /// What it may take, as the store was when it was asked.
    reply_bytes: usize,
    /// Session and number of a command behind `ONCE`.
    once: Option<(u64, u64)>,
    kind: ItemKind,
}

#[derive(Debug)]
enum ItemKind {
    /// The next command of the payload.
    Write,
    /// Served from the store when its turn in the slot comes.
    Read(Vec<Bytes>),
    /// The next command of the payload, a transaction.
    Exec(Box<Exec>),
}

/// A batch that waits for its slot.
#[derive(Debug)]
struct InFlight {
    items: Vec<Item>,
    growth: Growth,
    proposed_us: u64,
}

#[derive(Debug)]
struct WaitingRead {
    session: SessionId,
    sequence: Sequence,
    hash_slot: u16,
    work: Work,
    path: ReadPath,
    argv: Vec<Bytes>,
}

/// What makes a read safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadPath {
    /// A round among a quorum, at the leader.
    Round,
    /// The leader's lease.
    Lease,
    /// The leader's read index, asked for by a node that does not lead; not after this time.
    Follower { until_us: u64 },
    /// Nothing: the configuration says that it need not be.
    Stale,
}

/// Counters that the pages show; the shell copies them out.
#[derive(Debug, Default)]
pub struct Counts {
    pub applied_commands: u64,
    /// Reads behind a quorum round, or in a batch; and those under a lease.
    pub reads_served: u64,
    pub reads_leased: u64,
    /// Reads served by a node that did not lead: as new as the leader's, and as they happened to be.
    pub reads_followed: u64,
    pub reads_stale: u64,
    pub batches_lost: u64,
    pub batches_unknown: u64,
    pub held_refused: u64,
    /// Microseconds from proposal to apply, and commands, of each own batch.
    pub committed: Vec<(u64, u32)>,
    /// Microseconds that the apply of each slot took, where somebody measures.
    pub applied_us: Vec<u64>,
}

/// A configuration by whose store version this program cannot apply. The node has to stop: nothing
/// above it may be applied here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beyond {
    pub number: u32,
    pub store_version: u32,
    pub newest: u32,
}

impl Beyond {
    /// For a program that can do store versions up to `newest`.
    pub fn of(configuration: &Configuration, newest: u32) -> Option<Beyond> {
        let Configuration { number, store_version, .. } = *configuration;
        (store_version > newest).then_some(Beyond { number, store_version, newest })
    }
}

impl std::fmt::Display for Beyond {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Beyond { number, store_version, newest } = self;
        write!(
            f,
            "configuration {number} has the store's version {store_version}, this program can do up \
             to {newest}: nothing above it was applied here. Install the newer release that the other \
             members run (paxosctl up), and start again"
        )
    }
}

pub struct Node {
    pub replica: Replica,
    pub store: Store,
    pub clients: Clients,
    pub counts: Counts,
    /// What became of changes of the configuration that were proposed here, and of lost batches.
    pub verdicts: Vec<(BatchId, Verdict)>,
    behaviour: Behaviour,
    random: SmallRng,
    output: Output,
    /// The batch that the next proposal takes, and what waits for it.
    open: BatchBuilder,
    open_items: Vec<Item>,
    in_flight: BTreeMap<BatchId, InFlight>,
    /// By how much the open batch may make the state larger, and all that is in flight.
    open_growth: Growth,
    in_flight_growth: Growth,
    /// Reads that the next round confirms; reads whose round is under way.
    reads: Vec<WaitingRead>,
    reads_under_way: BTreeMap<ReadId, Vec<WaitingRead>>,
    /// Reads that a round has confirmed, served in order as far as each turn's budget goes.
    confirmed: VecDeque<WaitingRead>,
    /// Reads that take several turns, a slice of one of them in each.
    searches: VecDeque<(WaitingRead, KeySearch)>,
    next_read: u64,
    /// Not leading, and as new as the leader said that it is: once since the start.
    was_up_to_date: bool,
    first_unapplied: Slot,
    /// The configuration that rules the first unapplied slot. The replica may know a newer one, of a
    /// slot that it has not learned yet.
    ruling: Configuration,
    /// The log's clock of this node's reign, once that is open.
    clock: Option<LogClock>,
    quorum_clock_ms: u64,
    /// When a batch of a living leader was applied last: the log's time was right then.
    stamped_us: Option<u64>,
    /// A time mark has been asked for: propose a batch even if it is empty.
    mark_wanted: bool,
    next_mark_us: u64,
    deposed_us: u64,
    position: Position,
    /// The disk is full: writes that grow are refused.
    full: bool,
    /// Writers are slowed down.
    pace: Option<Pace>,
    /// The newest states that were hashed, here and by the peers.
    pub agreement: Agreement,
    /// The log has come to slots that this program cannot apply.
    pub beyond: Option<Beyond>,
    /// Microseconds, for how long an apply takes; `None` where nobody measures.
    pub stopwatch: Option<fn() -> u64>,
}

/// A batch is closed at this size; what comes after waits for the next.
const BATCH_BYTES_MAX: usize = 1 << 20;
const BATCH_ITEMS_MAX: usize = 16 * 1024;
/// A request whose reply would be longer than this, by what the store holds now, is the only one of
/// its connection in a batch that answers with a value: a batch answers all at once.
const LONG_REPLY_BYTES: usize = 64 << 10;
/// Reads are served in one turn until their replies come to so many bytes; the next turn goes on,
/// after whatever has come in (heartbeats do not wait for somebody's reading, PITFALLS 46).
const READ_BYTES_A_TURN: usize = 4 << 20;
/// Keys that a turn of `KEYS` looks at.
const SEARCH_KEYS_A_TURN: usize = 4_096;
/// With this many slots in flight a small batch waits for company: fewer, larger slots carry more.
const SLOTS_BEFORE_WAITING: u64 = 4;
/// A deposed leader's clients wait this long for the log's verdict before they are cut off.
const VERDICT_US_MAX: u64 = 10_000_000;
const MARK_INTERVAL_US: u64 = 10_000;
/// Keys whose memory is given back in one tick after `FLUSHALL`.
const RECLAIM_RECORDS: usize = 1_024;
/// Every node hashes its state after each multiple of this slot, and publishes the newest few.
const HASH_EVERY_SLOTS: u64 = 64;

impl Node {
    /// `loaded` is the state to begin with, and `output` what recovery filled: the journal's chosen
    /// tail is applied here, by the rules that it meets on its way, whatever the replica has heard of
    /// already.
    pub fn new(
        replica: Replica,
        loaded: Loaded,
        behaviour: Behaviour,
        seed: u64,
        output: Output,
        now: Now,
    ) -> Node {
        let Loaded { below: first_unapplied, configuration: ruling, mut store } = loaded;
        store.rule(ruling.store_version);
        let mut random = SmallRng::seed_from_u64(seed);
        // Far from where a former process of this node was: see `Replica::read_at_follower`.
        let next_read = random.next_u64() >> 1;
        let mut clients = Clients::default();
        clients.limit_bytes(behaviour.clients_bytes_max);
        let mut node = Node {
            replica,
            verdicts: Vec::new(),
            store,
            clients,
            counts: Counts::default(),
            behaviour,
            random,
            output,
            open: BatchBuilder::default(),
            open_items: Vec::new(),
            in_flight: BTreeMap::new(),
            open_growth: Growth::default(),
            in_flight_growth: Growth::default(),
            reads: Vec::new(),
            reads_under_way: BTreeMap::new(),
            confirmed: VecDeque::new(),
            searches: VecDeque::new(),
            next_read,
            was_up_to_date: false,
            first_unapplied,
            ruling,
            clock: None,
            quorum_clock_ms: 0,
            stamped_us: None,
            mark_wanted: false,
            next_mark_us: 0,
            deposed_us: 0,
            position: Position(0),
            full: false,
            pace: None,
            agreement: Agreement::default(),
            beyond: None,
            stopwatch: None,
        };
        let applicable = std::mem::take(&mut node.output.applicable);
        node.apply(now, applicable);
        node
    }

    // ---- collect ------------------------------------------------------------------------------

    /// A message of a peer.
    pub fn received(&mut self, now: Now, envelope: Envelope) {
        self.replica.step(now, envelope, &mut self.output);
    }

    /// The journal has synced all records up to `position`.
    pub fn synced(&mut self, now: Now, position: Position) {
        self.replica.durable(now, position, &mut self.output);
    }

    /// What the program at the other end of a new connection can do, if it has said so.
    pub fn introduced(&mut self, peer: NodeId, store_version_newest: Option<u32>) {
        self.replica.introduced(peer, store_version_newest);
    }

    pub fn connected(&mut self, now: Now, peer: NodeId) {
        self.agreement.tell_again();
        self.replica.connected(now, peer, &mut self.output);
    }

    pub fn disconnected(&mut self, now: Now, peer: NodeId) {
        self.replica.disconnected(now, peer, &mut self.output);
    }

    /// Time has passed: call at least every 5 ms.
    pub fn tick(&mut self, now: Now) {
        self.replica.tick(now, &mut self.output);
        self.store.reclaim(RECLAIM_RECORDS);
        self.follow_up(now);
        self.refuse_overdue(now);
        self.give_up_verdicts(now);
        let due = self.log_time_ms(now).zip(self.store.next_deadline_ms());
        if due.is_some_and(|(clock_ms, deadline_ms)| deadline_ms <= clock_ms)
            && now.mono_us >= self.next_mark_us
        {
            self.next_mark_us = now.mono_us + MARK_INTERVAL_US;
            self.mark_wanted = true;
        }
    }

    pub fn is_full(&self) -> bool {
        self.full
    }

    /// A leader proposes a batch, be it empty.
    pub fn want_mark(&mut self) {
        self.mark_wanted = true;
    }

    /// Whether the disk could take more now, and whether it is full.
    pub fn set_can_accept(&mut self, can_accept: bool, full: bool) {
        self.replica.set_can_accept(can_accept);
        self.full = full;
    }

    // ---- one turn -----------------------------------------------------------------------------

    /// Does all that can be done without waiting, and says what the world has to do. Time stands
    /// still meanwhile: for a world in which it does.
    pub fn turn(&mut self, now: Now, effects: &mut Effects) {
        self.turn_by(&mut || now, effects);
    }

    /// The same by a running clock. It is asked at the start, and again whenever reads are to be
    /// confirmed by the lease: a time that was noted before they arrived says nothing.
    pub fn turn_by(&mut self, clock: &mut dyn FnMut() -> Now, effects: &mut Effects) {
        let now = clock();
        self.clients.set_now(now.mono_us);
        // What a segment opened for this turn's records may start with: nothing newer than them.
        effects.checkpoint = self.replica.checkpoint();
        let mut read_bytes = READ_BYTES_A_TURN;
        loop {
            self.propose(now);
            self.start_reads(now);
            let progress = self.settle(now, effects);
            let leased = self.confirm_by_lease(now, clock);
            self.serve_confirmed(now, &mut read_bytes);
            if !progress && !leased {
                break;
            }
            self.retry_held(now);
        }
        let searched = self.search_on(now);
        effects.more = searched || (read_bytes == 0 && !self.confirmed.is_empty());
        effects.position = self.position;
        effects.dirty.extend(self.clients.take_dirty());
    }

    fn propose(&mut self, now: Now) {
        let Some(stamp_ms) = self.log_time_ms(now) else { return };
        if self.open_items.is_empty() && !self.mark_wanted {
            return;
        }
        if self.waits_for_pace() {
            return;
        }
        let waits_for_company = self.replica.pending_count() >= SLOTS_BEFORE_WAITING
            && self.open.len_bytes() < BATCH_BYTES_MAX / 16;
        if waits_for_company {
            return;
        }
        if !self.replica.has_room_for(self.open.len_bytes()) {
            return;
        }
        let payload = std::mem::take(&mut self.open).finish(stamp_ms, self.random.next_u64());
        self.keep_pace(payload.len());
        let id = self
            .replica
            .propose(now, payload, &mut self.output)
            .expect("a leader with room takes a batch");
        let items = std::mem::take(&mut self.open_items);
        let growth = std::mem::take(&mut self.open_growth);
        self.in_flight_growth.add(growth);
        self.in_flight.insert(id, InFlight { items, growth, proposed_us: now.mono_us });
        self.mark_wanted = false;
    }

    fn start_reads(&mut self, now: Now) {
        if self.reads.is_empty() {
            return;
        }
        if self.replica.leading().is_none() {
            return self.ask_leader(now);
        }
        let leased = self.replica.reads_under();
        if leased.is_some_and(|ballot| self.replica.holds_lease(now, ballot)) {
            // Served from the store, once all that has been chosen is applied.
            return;
        }
        self.start_round(now);
    }

    fn start_round(&mut self, now: Now) {
        self.next_read += 1;
        let id = ReadId(self.next_read);
        if self.replica.read(now, id, &mut self.output).is_ok() {
            self.reads_under_way.insert(id, std::mem::take(&mut self.reads));
        }
    }

    /// Takes what the replica has put out. False when there was nothing that could move anything
    /// else.
    fn settle(&mut self, now: Now, effects: &mut Effects) -> bool {
        let output = std::mem::take(&mut self.output);
        let progress = !output.applicable.is_empty()
            || !output.reads.is_empty()
            || !output.reads_refused.is_empty()
            || !output.lost.is_empty()
            || !output.notes.is_empty();
        self.position.0 += output.records.len() as u64;
        effects.records.extend(output.records);
        effects.sends.extend(output.now);
        effects.snapshot_for.extend(output.snapshot_for);
        effects.tombstone = effects.tombstone.or(output.tombstone);
        if let Some(clock_ms) = output.leader_clock_ms {
            self.quorum_clock_ms = clock_ms;
        }
        self.take_verdicts(now, &output.notes, output.lost, output.applicable);
        if self.beyond.is_some() {
            return false;
        }
        if self.clock.is_none() && self.replica.reign_is_open() {
            let log_ms = self.store.time_ms();
            let (mono_us, quorum_ms) = (now.mono_us, self.quorum_clock_ms);
            self.clock = Some(LogClock::start(mono_us, log_ms, quorum_ms, self.stamped_us));
        }
        for (id, slot) in output.reads {
            assert!(slot < self.first_unapplied, "a read of slot {slot} before it is applied");
            self.confirmed.extend(self.reads_under_way.remove(&id).unwrap_or_default());
        }
        // Backwards, as each goes in front of what is held already.
        for id in output.reads_refused.into_iter().rev() {
            let waiting = self.reads_under_way.remove(&id).unwrap_or_default();
            self.redirect_reads(waiting);
        }
        for id in output.unknown {
            self.verdicts.push((id, Verdict::Unknown));
            self.cut_off(id);
        }
        effects.notes.extend(output.notes);
        progress
    }

    /// In this order: a leader that is none any more first takes back what it has not proposed, and
    /// what is behind a lost batch must not be answered when it is applied.
    fn take_verdicts(
        &mut self,
        now: Now,
        notes: &[Note],
        lost: Vec<BatchId>,
        applicable: Vec<(Slot, Value)>,
    ) {
        notes.iter().for_each(|note| self.heed(now, note));
        self.refuse_lost(now, lost);
        self.apply(now, applicable);
    }

    fn heed(&mut self, now: Now, note: &Note) {
        if let Note::Deposed { led: true, .. } = note {
            self.clock = None;
            self.mark_wanted = false;
            self.deposed_us = now.mono_us;
            // Nothing of the open batch was proposed, and no round has begun for these reads: they
            // are taken again, in order, by whatever rules now.
            self.reopen_items();
            let waiting = std::mem::take(&mut self.reads);
            self.redirect_reads(waiting);
        }
    }

    // ---- members -------------------------------------------------------------------------------

    /// Changes the configuration: see `Replica::change`. What becomes of it is in `verdicts`.
    pub fn change(&mut self, now: Now, change: &Change) -> Result<BatchId, ChangeRefusal> {
        self.replica.change(now, change, &mut self.output)
    }

    /// Asks `peer` for what this node lacks, whoever that is.
    pub fn ask(&mut self, peer: NodeId) {
        self.replica.ask(peer, &mut self.output);
    }

    /// Hands leadership over to `to`, or to the best voter: before this node stops, or because
    /// somebody asked for it.
    pub fn hand_over(
        &mut self,
        now: Now,
        to: Option<NodeId>,
    ) -> Result<NodeId, paxos::HandoverRefusal> {
        self.replica.hand_over(now, to, &mut self.output)
    }

    // ---- views --------------------------------------------------------------------------------

    pub fn configuration(&self) -> &Configuration {
        self.replica.configuration()
    }

    /// The leader's log time; `None` unless this node leads and its reign is open.
    pub fn log_time_ms(&self, now: Now) -> Option<u64> {
        self.clock.map(|clock| clock.ms(now.mono_us).max(self.store.time_ms()))
    }

    pub fn first_unapplied(&self) -> Slot {
        self.first_unapplied
    }

    /// The configuration that rules the first unapplied slot.
    pub fn ruling(&self) -> &Configuration {
        &self.ruling
    }

    /// (slot, hash of the state behind it), newest last.
    pub fn state_hashes(&self) -> impl Iterator<Item = (Slot, u128)> + '_ {
        self.agreement.own()
    }

    /// What a peer says of its states. The answer is a contradiction that is new.
    pub fn heard_states(&mut self, from: NodeId, states: Vec<State>) -> Option<Contradiction> {
        self.agreement.hear(from, states);
        let members: Vec<NodeId> = self.configuration().members.keys().copied().collect();
        self.agreement.judge(self.replica.id(), &members)
    }

    /// Batches and reads that wait for the others.
    pub fn pending_count(&self) -> usize {
        self.in_flight.len()
            + self.reads_under_way.len()
            + usize::from(!self.confirmed.is_empty())
            + self.searches.len()
    }

    /// The replica and where its output goes, for the snapshots' trimming and installing.
    pub fn replica_mut(&mut self) -> (&mut Replica, &mut Output) {
        (&mut self.replica, &mut self.output)
    }

    /// Begins a snapshot of everything chosen so far: the slots that it covers, and what its file
    /// says of the state and of who rules from there on.
    pub fn begin_snapshot(&mut self, now: Now) -> (Slot, SnapshotHead, Configuration) {
        self.apply_pending(now);
        let head = self.store.begin_snapshot();
        (self.first_unapplied, head, self.ruling.clone())
    }

    /// The store and its slot after a snapshot was installed. What is not needed any more is given
    /// back: letting millions of records go takes longer than a turn may.
    pub fn install(&mut self, now: Now, loaded: Loaded) -> Store {
        // The log may have come as far by itself while the file was read.
        self.apply_pending(now);
        let Loaded { below, configuration, store } = loaded;
        if below <= self.first_unapplied || !self.can_apply_by(&configuration) {
            return store;
        }
        self.first_unapplied = below;
        self.ruling = configuration.clone();
        let former = std::mem::replace(&mut self.store, store);
        self.store.rule(configuration.store_version);
        self.replica.install(now, below, configuration, &mut self.output);
        former
    }

    /// Applies what earlier events of this turn have made chosen: whoever speaks of the store and
    /// of the replica in one breath must find both at the same slot.
    fn apply_pending(&mut self, now: Now) {
        let applicable = std::mem::take(&mut self.output.applicable);
        let lost = std::mem::take(&mut self.output.lost);
        // Heeded again when the output is settled, then for nothing.
        let notes = std::mem::take(&mut self.output.notes);
        self.take_verdicts(now, &notes, lost, applicable);
        self.output.notes = notes;
    }
}

#[cfg(test)]
mod tests;
