//! The thin shell around [`Node`]: one thread, one runtime, all sockets. Tasks of connections and
//! links put into the core what they have read; the loop here takes one turn for all of it and
//! hands the effects out: Accepts to the peers first, then records to the sync thread, then replies
//! to the clients, each socket written once.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use config::NodeConfig;
use paxos::{Envelope, NodeId, Note, Now, Position};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use crate::admin::AdminRequest;
use crate::chaos::Chaos;
use crate::clients::{Evicted, OUT_BYTES_MAX, SessionId};
use crate::clock;
use crate::command::User;
use crate::company::Company;
use crate::handover::Handovers;
use crate::identity::Identity;
use crate::lag::ChosenHistory;
use crate::membership::Membership;
use crate::metrics::{Metrics, PeerMetrics};
use crate::node::{Effects, Node};
use crate::peers::{LinkEvent, LinkEvents, Links, Remembered, Sent};
use crate::published::Published;
use crate::room::Room;
use crate::snapshot::Snapshots;
use crate::syncer::{Append, Syncer};
use crate::trace::SetFilter;
use crate::wire::PeerFrame;

/// One client's socket, shared by its task and the loop.
pub struct Connection {
    pub stream: TcpStream,
    /// Something has changed for the task: bytes are left to write, there is room again, or close.
    pub wake: Notify,
    /// The socket did not take everything.
    pub backlog: Cell<bool>,
    /// The task reads no more until there is room.
    pub paused: Cell<bool>,
}

/// Everything that the loop and the tasks share. Never borrowed across an await.
pub struct Core {
    pub node: Node,
    pub links: Links,
    pub syncer: Syncer,
    pub snapshots: Snapshots,
    pub metrics: Arc<Metrics>,
    pub published: Arc<Published>,
    pub config: NodeConfig,
    pub identity: Identity,
    pub users: Vec<User>,
    pub set_filter: SetFilter,
    pub connections: HashMap<SessionId, Rc<Connection>>,
    pub connections_received: u64,
    pub commands_processed: u64,
    pub chosen_history: ChosenHistory,
    pub leader_since: Option<(u32, u64)>,
    pub last_leader: Option<u32>,
    pub progress: (u64, u64),
    room: Room,
    pub(crate) membership: Membership,
    peer_metrics: BTreeMap<NodeId, Arc<PeerMetrics>>,
    synced: Position,
    /// What the replica remembered at a position that is not synced yet, to be told to peers.
    claim: (Position, Remembered),
    pub handovers: Handovers,
    pub company: Company,
    pub chaos: Chaos,
    chosen_counted: u64,
    applied_counted: u64,
    effects: Effects,
    next_publish_us: u64,
}

pub struct Shell {
    pub core: RefCell<Core>,
    /// A task has put something into the core.
    pub wake: Notify,
}

impl Shell {
    pub fn new(core: Core) -> Shell {
        Shell { core: RefCell::new(core), wake: Notify::new() }
    }
}

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    Asked,
    /// Removed by the configuration of this number, and no longer needed.
    Removed(u32),
    /// The journal failed; the text says how.
    Disk(String),
    /// The others agree on another state; the text says which.
    Outvoted(String),
    /// The log has come to slots that this program cannot apply; the text says why.
    Beyond(String),
}

const TICK: Duration = Duration::from_millis(5);
const PUBLISH_US: u64 = 100_000;
/// A turn of this length is told of: a silence of twice as much costs a leader its office.
const SLOW_TURN_US: u64 = 75_000;
/// Link events taken in one turn, at most.
const EVENTS_MAX: usize = 128;

impl Core {
    #[expect(clippy::too_many_arguments, reason = "made once, by boot")]
    pub fn new(
        node: Node,
        links: Links,
        syncer: Syncer,
        snapshots: Snapshots,
        metrics: Arc<Metrics>,
        published: Arc<Published>,
        config: NodeConfig,
        identity: Identity,
        users: Vec<User>,
        set_filter: SetFilter,
        membership: Membership,
    ) -> Core {
        let chosen = node.replica.first_unchosen().0 - 1;
        let mut node = node;
        node.stopwatch = Some(|| clock::now().mono_us);
        let mut core = Core {
            node,
            links,
            syncer,
            snapshots,
            metrics,
            published,
            config,
            identity,
            users,
            set_filter,
            connections: HashMap::new(),
            connections_received: 0,
            commands_processed: 0,
            chosen_history: ChosenHistory::new(),
            leader_since: None,
            last_leader: None,
            progress: (0, 0),
            room: Room::default(),
            membership,
            peer_metrics: BTreeMap::new(),
            synced: Position(0),
            chosen_counted: chosen,
            applied_counted: chosen,
            claim: (Position(0), Remembered::default()),
            handovers: Handovers::default(),
            company: Company::default(),
            chaos: Chaos::default(),
            effects: Effects::default(),
            next_publish_us: 0,
        };
        let configuration = core.node.configuration().clone();
        core.meet_peers(&configuration);
        core.say_what_differs();
        core
    }

    /// Figures for every peer that there is.
    pub(crate) fn meet_peers(&mut self, configuration: &paxos::Configuration) {
        for (id, member) in &configuration.members {
            if *id != self.identity.id && !self.peer_metrics.contains_key(id) {
                self.peer_metrics.insert(*id, self.metrics.peer(id.0, &member.name));
            }
        }
    }

    fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Connected(peer) => {
                self.node.introduced(peer, self.links.store_version_newest(peer));
                self.node.connected(clock::now(), peer);
            }
            LinkEvent::Disconnected(peer) => {
                tracing::info!(peer = %peer, "link lost");
                self.node.disconnected(clock::now(), peer);
                self.snapshots.peer_lost(clock::now(), peer);
            }
            LinkEvent::Received { from, frames } => {
                for frame in frames {
                    self.on_frame(from, frame);
                }
            }
        }
    }

    fn on_frame(&mut self, from: NodeId, frame: PeerFrame) {
        // A fresh look at the clock for each message: the protocol measures from its arrival.
        let now = clock::now();
        match frame {
            PeerFrame::Paxos(message) => {
                if let Some(peer) = self.peer_metrics.get(&from) {
                    peer.received(&message);
                }
                if !self.syncer.state.takes_in(&message) {
                    return;
                }
                let envelope = Envelope { from, to: self.identity.id, message };
                self.node.received(now, envelope);
            }
            PeerFrame::Snapshot(part) => {
                self.snapshots.received(now, from, part, &mut self.node, &self.links);
            }
            PeerFrame::States(states) => {
                if let Some(contradiction) = self.node.heard_states(from, states) {
                    tracing::error!(%contradiction, "the same log gave different states");
                }
                let mismatches = &self.metrics.state_hash_mismatches;
                mismatches
                    .inc_by(self.node.agreement.mismatches().saturating_sub(mismatches.get()));
            }
        }
    }

    fn tell_states(&mut self) {
        let states = self.node.agreement.take_untold();
        if states.is_empty() {
            return;
        }
        for peer in self.node.configuration().members.keys().filter(|id| **id != self.identity.id) {
            self.links.send_states(*peer, &states);
        }
    }

    fn on_tick(&mut self) {
        let now = clock::now();
        self.heal(now.mono_us);
        self.hand_over_after_change(now);
        self.give_up_handover(now);
        let state = &self.syncer.state;
        let can_accept = self.room.can_accept(state, &self.node.replica, now);
        self.node.set_can_accept(can_accept, state.is_full());
        self.node.tick(now);
        let journal_bytes = state.written_bytes.load(Relaxed);
        self.snapshots.tick(now, &mut self.node, &self.links, journal_bytes);
        self.keep_within_budget(now);
        if now.mono_us >= self.next_publish_us {
            self.publish(now);
        }
    }

    /// One turn, and everything that comes of it. True when there is more to do at once.
    fn turn(&mut self) -> bool {
        let now = clock::now();
        let synced = self.syncer.state.synced();
        if synced > self.synced {
            self.synced = synced;
            self.node.synced(now, synced);
            self.tell_durable();
        }
        let mut effects = std::mem::take(&mut self.effects);
        self.node.turn_by(&mut clock::now, &mut effects);
        for envelope in effects.sends.drain(..) {
            let sent = self.links.send(envelope.to, &envelope.message);
            if let (Sent::Queued, Some(peer)) = (sent, self.peer_metrics.get(&envelope.to)) {
                peer.sent(&envelope.message);
            }
        }
        self.links.flush();
        if let Some(append) = Append::of(&mut effects) {
            self.syncer.append(append);
        }
        // One claim at a time: what is remembered now is durable once its records are.
        if self.claim.0 <= self.synced {
            self.claim = (effects.position, Remembered::durable(&self.node.replica));
            self.tell_durable();
        }
        for peer in effects.snapshot_for.drain(..) {
            self.snapshots.wanted(now, peer, &self.node, &self.links);
        }
        for session in effects.dirty.drain(..) {
            self.write_out(session);
        }
        let leadership = effects.notes.iter().any(|note| {
            matches!(note, Note::Elected { .. } | Note::Deposed { .. } | Note::Following { .. })
        });
        let notes = std::mem::take(&mut effects.notes);
        for note in notes {
            self.heed_handover(now, &note);
            self.metrics.observe_note(&note);
            trace_note(&note);
        }
        self.follow_configuration(now);
        if let Some(number) = effects.tombstone.take() {
            self.membership.removed = Some(number);
        }
        self.count();
        if leadership {
            self.chosen_history.clear();
            self.publish(now);
        }
        let more = std::mem::take(&mut effects.more);
        self.effects = effects;
        more
    }

    fn tell_durable(&self) {
        let (position, remembered) = self.claim;
        if position <= self.synced {
            self.links.note_durable(remembered);
        }
    }

    /// Hands a session's replies to its socket with one write; what is left goes by its task.
    pub fn write_out(&mut self, id: SessionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let Some(session) = self.node.clients.get_mut(id) else { return };
        let mut has_progressed = false;
        if !session.out.is_empty() && !connection.backlog.get() {
            match connection.stream.try_write(&session.out) {
                Ok(written) => {
                    session.out.drain(..written);
                    has_progressed = written > 0;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    session.out = Vec::new();
                    session.closing = true;
                }
            }
        }
        if session.out.capacity() > (1 << 16) && session.out.is_empty() {
            session.out = Vec::new();
        }
        // A client that asks and does not read is cut off before it eats the memory (PITFALLS 42).
        if session.out.len() > OUT_BYTES_MAX {
            session.out = Vec::new();
            session.closing = true;
        }
        connection.backlog.set(!session.out.is_empty());
        let closing = session.closing;
        if has_progressed {
            self.node.clients.progressed(id);
        }
        self.node.clients.recount(id);
        let has_room_again = connection.paused.get() && self.node.clients.has_room(id);
        if connection.backlog.get() || closing || has_room_again {
            connection.wake.notify_one();
        }
    }

    /// All connections together take too much, or no longer do.
    fn keep_within_budget(&mut self, now: Now) {
        if let Some(evicted) = self.node.clients.evict(now.mono_us) {
            let Evicted { address, name, bytes, of_bytes, because, .. } = evicted;
            tracing::warn!(
                client = %address,
                name,
                bytes,
                of_bytes,
                bytes_max = self.config.behaviour.clients_bytes_max,
                "closed a client, as all of them together take too much memory: {because}"
            );
            self.metrics.client_evictions.inc();
        }
        if self.node.clients.take_relieved() {
            let paused = self.connections.values().filter(|connection| connection.paused.get());
            paused.for_each(|connection| connection.wake.notify_one());
        }
    }

    fn count(&mut self) {
        let chosen = self.node.replica.first_unchosen().0 - 1;
        let applied = self.node.first_unapplied().0 - 1;
        self.metrics.slots_chosen.inc_by(chosen - self.chosen_counted);
        self.metrics.slots_applied.inc_by(applied - self.applied_counted);
        self.chosen_counted = chosen;
        self.applied_counted = applied;
        let counts = &mut self.node.counts;
        self.metrics.reads_quorum.inc_by(std::mem::take(&mut counts.reads_served));
        self.metrics.reads_lease.inc_by(std::mem::take(&mut counts.reads_leased));
        self.metrics.reads_follower.inc_by(std::mem::take(&mut counts.reads_followed));
        self.metrics.reads_stale.inc_by(std::mem::take(&mut counts.reads_stale));
        self.metrics.proposals_lost.inc_by(std::mem::take(&mut counts.batches_lost));
        self.metrics.proposals_unknown.inc_by(std::mem::take(&mut counts.batches_unknown));
        self.metrics.proposals_refused.inc_by(std::mem::take(&mut counts.held_refused));
        for (us, commands) in counts.committed.drain(..) {
            self.metrics.proposals_chosen.inc();
            self.metrics.commit_seconds.observe(us as f64 / 1e6);
            self.metrics.batch_commands.observe(f64::from(commands));
        }
        for us in counts.applied_us.drain(..) {
            self.metrics.apply_seconds.observe(us as f64 / 1e6);
        }
        for finished in self.node.clients.take_finished() {
            self.metrics.requests(finished.op, finished.code).inc();
            self.metrics.request_seconds(finished.op).observe(finished.took_us as f64 / 1e6);
        }
    }

    pub(crate) fn publish(&mut self, now: Now) {
        self.next_publish_us = now.mono_us + PUBLISH_US;
        self.tell_states();
        let connected = self.connections.len() as i64;
        self.metrics.client_connections.set(connected);
        let behaviour = &self.config.behaviour;
        self.metrics.client_memory.set(self.node.clients.bytes() as i64);
        self.metrics.client_memory_limit.set(behaviour.clients_bytes_max as i64);
        self.metrics.store_bytes.set(self.node.store.memory_bytes() as i64);
        self.metrics.store_bytes_limit.set(behaviour.store_bytes_max as i64);
        self.metrics.client_inflight.set(self.node.pending_count() as i64);
        let written = self.syncer.state.written_bytes.load(Relaxed);
        let counted = self.metrics.journal_written_bytes.get();
        self.metrics.journal_written_bytes.inc_by(written.saturating_sub(counted));
        for (id, counters) in self.links.counters() {
            let Some(peer) = self.peer_metrics.get(&id) else { continue };
            let rise = |to: u64, counter: &prometheus::IntCounter| {
                counter.inc_by(to.saturating_sub(counter.get()));
            };
            rise(counters.received_bytes.get(), &peer.bytes_in);
            rise(counters.sent_bytes.get(), &peer.bytes_out);
            rise(counters.send_failures(), &peer.send_failures);
        }
        for (id, peer) in &self.peer_metrics {
            let is_slowed_for = self.snapshots.slowed_for().any(|slowed_for| slowed_for == *id);
            peer.writers_slowed.set(i64::from(is_slowed_for));
        }
        for view in self.node.replica.peer_views(now) {
            if let (Some(peer), Some(us)) = (self.peer_metrics.get(&view.node), view.round_trip_us)
            {
                peer.round_trip_seconds.observe(us as f64 / 1e6);
            }
        }
        let status = self.status(now);
        self.published.store(status);
    }
}

/// The loop. Ends when asked to, or when the disk fails.
pub async fn run(
    shell: Rc<Shell>,
    mut link_events: LinkEvents,
    mut admin: mpsc::Receiver<AdminRequest>,
    synced: Arc<Notify>,
    stop: Rc<Notify>,
) -> Ended {
    let mut ticker = tokio::time::interval(TICK);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut ticked = false;
        tokio::select! {
            biased;
            Some(event) = link_events.recv() => {
                let mut core = shell.core.borrow_mut();
                core.on_link(event);
                for _ in 0..EVENTS_MAX {
                    let Some(event) = link_events.try_recv() else { break };
                    core.on_link(event);
                }
            }
            () = synced.notified() => {}
            () = shell.wake.notified() => {}
            _ = ticker.tick() => ticked = true,
            Some(request) = admin.recv() => {
                shell.core.borrow_mut().administer(request);
            }
            () = stop.notified() => shell.core.borrow_mut().leave(clock::now()),
        }
        let mut core = shell.core.borrow_mut();
        if let Some(failure) = core.syncer.state.failure() {
            return Ended::Disk(failure);
        }
        if let Some(contradiction) = core.node.agreement.outvoted() {
            return Ended::Outvoted(contradiction.to_string());
        }
        // Before time passes, what has already arrived is taken in: a node that was paused must not
        // blame the others for its own pause (PITFALLS 104).
        if ticked {
            while let Some(event) = link_events.try_recv() {
                core.on_link(event);
            }
            core.on_tick();
        }
        let began_us = clock::now().mono_us;
        let more = core.turn();
        let took_us = clock::now().mono_us.saturating_sub(began_us);
        if took_us >= SLOW_TURN_US {
            tracing::warn!(took_ms = took_us / 1_000, "a turn took long: heartbeats waited for it");
        }
        if let Some(beyond) = core.node.beyond {
            return Ended::Beyond(beyond.to_string());
        }
        if let Some(number) = core.membership.removed {
            return Ended::Removed(number);
        }
        if core.has_left(clock::now()) {
            return Ended::Asked;
        }
        if more {
            shell.wake.notify_one();
        }
    }
}

/// The last turn of a node that stops: what was handed to the journal is synced. Clients and peers
/// see their connections close, which tells the peers at once that this node is gone.
pub fn finish(shell: &Shell) {
    let mut core = shell.core.borrow_mut();
    core.turn();
    core.syncer.finish();
}

fn trace_note(note: &Note) {
    match note {
        Note::Preparing { ballot } => tracing::info!(%ballot, "phase 1 begins"),
        Note::Elected { ballot, adopted, noops, phase1_us } => {
            tracing::info!(%ballot, adopted, noops, phase1_us, "this node leads");
        }
        Note::Deposed { ballot, led, reason } => {
            tracing::info!(%ballot, led, ?reason, "this node's ballot is over");
        }
        Note::Following { leader: Some(leader), ballot } => {
            tracing::info!(%leader, %ballot, "leader");
        }
        Note::Following { leader: None, .. } => tracing::info!("no leader"),
        Note::AnsweredBehind { to } => tracing::info!(peer = %to, "asked about trimmed slots"),
        Note::Refused { ballot, promised } => tracing::debug!(%ballot, %promised, "refused"),
        Note::Queued { ballot } => {
            tracing::debug!(%ballot, "a ballot waits for the lease that was granted");
        }
        Note::Leased { ballot } => tracing::debug!(%ballot, "this node holds the lease"),
        Note::Released { ballot, to } => tracing::info!(%ballot, %to, "handed over"),
        Note::HandoverGivenUp { to } => {
            tracing::warn!(%to, "it did not take over in time: this node goes on");
        }
        Note::ConfigurationKnown { number, slot } => {
            tracing::info!(number, %slot, "a new configuration rules");
        }
        Note::ConfigurationAdopted { number, slot } => {
            tracing::info!(number, %slot, "a former leader's configuration is finished first");
        }
        Note::TallyVoided { ballot } => tracing::info!(%ballot, "votes no longer count"),
        Note::UnknownConfiguration { ballot } => {
            tracing::debug!(%ballot, "its configuration is not known here yet");
        }
        Note::Removed { number } => {
            tracing::warn!(number, "removed by this configuration, and no longer needed");
        }
        Note::ChosenByHint { .. } | Note::Tallied { .. } => {}
    }
}
