//! One machine: two disks that may fail, two clocks that are wrong, and, while it is up, a process
//! made of the node's own parts. Sockets and threads are missing, and nothing else: the process
//! takes its turns, appends, syncs, snapshots and recovers with the code of the product.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use config::Behaviour;
use journal::faulty_disk::{Kept, Unsynced};
use journal::{Disk, FaultyDisk, Journal, Options};
use node::boot;
use node::clients::SessionId;
use node::command::ConnectionState;
use node::handover::Leaving;
use node::identity;
use node::metrics::Metrics;
use node::node::{Effects, Node};
use node::peers::{Own, Remembered};
use node::recovery::{self, Origin, Start};
use node::resp::{Limits, Reply, RequestParser};
use node::room::Room;
use node::snapshot::{Done, Files, Job, Jobs, PartSender, Snapshots};
use node::syncer::{Append, Appender, Order, SyncState};
use node::wire::{self, Frame, FrameDecoder, PeerFrame};
use paxos::{Configuration, Envelope, Message, NodeId, Now, Position, Record, Slot};

use crate::broken::{Broken, LyingDisk};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::identities::{Backup, CLUSTER, Formatted, incarnation};
use crate::links::Links;

/// A connection of a client, counted over the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection(pub u64);

/// What stays the same over a machine's lives.
pub struct Machine {
    pub id: NodeId,
    pub clock: Clock,
    pub journal: FaultyDisk,
    pub snapshots: FaultyDisk,
    pub options: Options,
    pub block_bytes: usize,
    pub behaviour: Behaviour,
    /// None on a disk that was lost.
    pub identity: Option<Formatted>,
    /// An older copy of its disks.
    pub kept: Option<Backup>,
    /// The last process that was started here, as the disk counts them.
    pub started: identity::Process,
    pub process: Option<Process>,
    /// It refused to start, as it must: its disk has lost what it had promised to keep.
    pub refused: Option<String>,
    /// It was removed, and has left for good.
    pub has_tombstone: bool,
    /// Its disk stops in the middle of some write, and then the power goes.
    pub doomed: bool,
    /// One of its next syncs fails.
    pub sync_fails: bool,
    /// Until then each sync takes long; and how long the next one takes, if it is that one only.
    pub slow_until_us: u64,
    pub slow_sync_us: Option<u64>,
    /// The journal's disk before its last sync, where a machine is wrong on purpose.
    pub before_sync: Option<FaultyDisk>,
    metrics: Arc<Metrics>,
}

/// One life of a node.
pub struct Process {
    /// Told apart from the lives before and after.
    pub nonce: u64,
    pub node: Node,
    pub appender: Appender,
    pub state: SyncState,
    room: Room,
    files: Files,
    jobs: Jobs,
    /// The next job on a snapshot file.
    job: Option<Job>,
    leaving: Leaving,
    broken: Option<Broken>,
    /// Wrong on purpose: see [`Broken::StopsWithoutHandover`], [`Broken::ContentForEver`].
    stops_at_once: bool,
    was_happy_with: Option<NodeId>,
    snapshots: Snapshots,
    pub links: Links,
    outbox: Outbox,
    effects: Effects,
    synced: Position,
    /// As in the shell: what the replica remembered at a position that is not synced yet.
    claim: (Position, Remembered),
    /// A round of appending and syncing is under way.
    pub writing: bool,
    /// A job on a snapshot file is.
    pub filing: bool,
    pub last_write_us: u64,
    sessions: BTreeMap<SessionId, Connection>,
    clients: BTreeMap<Connection, Client>,
    /// Reads that found a leader whose lease was over, or not there yet.
    reads_without_lease: u64,
}

struct Client {
    session: SessionId,
    parser: RequestParser,
    unread: BytesMut,
}

/// What one turn leaves for the world.
#[derive(Default)]
pub struct Turned {
    pub frames: Vec<(NodeId, Bytes)>,
    /// The messages among them.
    pub said: Vec<Message>,
    pub records: Vec<Record>,
    /// Behind the records above.
    pub position: Position,
    /// Everything up to here is durable since this turn, as the process believes.
    pub synced: Option<Position>,
    /// What it says to everybody that it will remember.
    pub claimed: Option<Remembered>,
    pub notes: Vec<paxos::Note>,
    /// Another turn is wanted at once.
    pub more: bool,
    pub batches_lost: u64,
    pub batches_unknown: u64,
    /// It was removed, and nobody needs it any more.
    pub is_gone: bool,
    /// It was told to stop, and may.
    pub has_left: bool,
    /// Writers are slowed for somebody.
    pub slows: bool,
    pub reads_leased: u64,
    pub reads_by_round: u64,
    pub reads_without_lease: u64,
    pub reads_followed: u64,
    pub reads_stale: u64,
    pub replies: Vec<(Connection, Bytes)>,
    pub closed: Vec<Connection>,
}

/// Frames on their way out.
#[derive(Default)]
struct Outbox {
    frames: RefCell<Vec<(NodeId, Bytes)>>,
}

impl PartSender for Outbox {
    fn send_part(&self, to: NodeId, part: &Bytes) {
        let len = wire::snapshot_frame_len(part).expect("parts are small");
        let mut frame = BytesMut::new();
        wire::put_snapshot(&mut frame, part, len);
        self.frames.borrow_mut().push((to, frame.freeze()));
    }

    fn queued_bytes(&self, _to: NodeId) -> usize {
        0
    }
}

impl Machine {
    /// A machine that was formatted: an empty journal, as `paxos-node format` makes it.
    pub fn formatted(
        id: NodeId,
        behaviour: Behaviour,
        options: Options,
        block_bytes: usize,
        seed: u64,
    ) -> Machine {
        let disk = |seed| FaultyDisk::with_block_bytes(seed, block_bytes);
        let journal = disk(seed ^ u64::from(id.0));
        let made = Journal::create(Arc::new(journal.clone()), options, &[]);
        made.expect("an empty disk takes a journal");
        Machine {
            id,
            clock: Clock::TRUE,
            journal,
            snapshots: disk(seed),
            options,
            block_bytes,
            behaviour,
            identity: Some(Formatted { id, incarnation: incarnation(id) }),
            kept: None,
            started: identity::Process { starts: 0, nonce: 0, former: Default::default() },
            process: None,
            refused: None,
            has_tombstone: false,
            doomed: false,
            sync_fails: false,
            slow_until_us: 0,
            slow_sync_us: None,
            before_sync: None,
            metrics: Arc::new(Metrics::new("simulated", "none")),
        }
    }

    pub fn now(&self, time_us: u64) -> Now {
        self.clock.now(time_us)
    }

    pub fn nonce(&self) -> Option<u64> {
        self.process.as_ref().map(|process| process.nonce)
    }

    /// Recovers the node from its disks. What it replayed is durable, and its own.
    pub fn start(
        &mut self,
        time_us: u64,
        nonce: u64,
        initial: Configuration,
        broken: Option<Broken>,
    ) -> anyhow::Result<(journal::Recovery, Slot)> {
        let mut former = [0; identity::FORMER_COUNT];
        former[0] = self.started.nonce;
        former[1..].copy_from_slice(&self.started.former[..identity::FORMER_COUNT - 1]);
        self.started = identity::Process { starts: self.started.starts + 1, nonce, former };
        let now = self.now(time_us);
        let lies = |disk: &FaultyDisk, lie: Broken| -> Arc<dyn Disk> {
            match broken == Some(lie) {
                true => Arc::new(LyingDisk(disk.clone())),
                false => Arc::new(disk.clone()),
            }
        };
        let snapshots = lies(&self.snapshots, Broken::SnapshotsNotSynced);
        let settings = boot::settings(&self.behaviour, self.id, nonce);
        let origin = Origin {
            name: self.id.to_string(),
            journal: lies(&self.journal, Broken::JournalNotSynced),
            options: self.options,
            snapshots: Arc::clone(&snapshots),
            initial: initial.clone(),
            granted_us: settings.lease_terms.lease_us,
            settings,
            behaviour: self.behaviour.clone(),
            first_start: self.started.starts == 1,
            seed: nonce,
        };
        let listed = initial;
        let Start {
            journal, node, snapshots: kept, snapshot_below, uncovered_bytes, found, ..
        } = recovery::recover(origin, now)?;
        let own = Own {
            cluster: CLUSTER,
            id: self.id,
            incarnation: self.identity.map_or(0, |identity| identity.incarnation),
            process: self.started,
        };
        let links = Links::new(own, Remembered::of(&node.replica), node.configuration(), listed);
        let every_bytes = self.behaviour.snapshot_every_bytes;
        let metrics = Arc::clone(&self.metrics);
        let (core, jobs) =
            Snapshots::unattended(Arc::clone(&snapshots), every_bytes, kept, metrics);
        let core = core.behind(uncovered_bytes);
        let appender = Appender::new(journal);
        let state = SyncState::default();
        state.publish(&appender);
        self.process = Some(Process {
            nonce,
            room: Room::default(),
            leaving: Leaving::default(),
            broken,
            stops_at_once: false,
            was_happy_with: None,
            job: None,
            node,
            appender,
            state,
            files: Files::new(snapshots),
            jobs,
            snapshots: core,
            links,
            outbox: Outbox::default(),
            effects: Effects::default(),
            synced: Position(0),
            claim: (Position(0), Remembered::default()),
            writing: false,
            filing: false,
            last_write_us: time_us,
            sessions: BTreeMap::new(),
            clients: BTreeMap::new(),
            reads_without_lease: 0,
        });
        Ok((found, snapshot_below))
    }

    /// The first slot that the newest file does not cover, be it good or not.
    pub fn newest_snapshot_file(&self) -> Option<Slot> {
        let names = self.snapshots.list().expect("the disk is there");
        let slot = |name: &String| name.strip_prefix("snapshot-")?.parse().ok().map(Slot);
        names.iter().filter_map(slot).max()
    }

    /// The process ends and the machine stays up. Answers whose connections it closes.
    pub fn kill(&mut self) -> Vec<Connection> {
        self.journal.kill();
        self.snapshots.kill();
        self.end()
    }

    /// The power goes: of what was not synced, anything may be left.
    pub fn crash(&mut self, seed: u64) -> Vec<Connection> {
        if let Some(before) = self.before_sync.take() {
            self.journal = before;
        }
        match self.doomed {
            true => tear(&self.journal, seed),
            false => self.journal.crash(seed),
        }
        self.snapshots.crash(seed.rotate_left(32));
        self.end()
    }

    fn end(&mut self) -> Vec<Connection> {
        self.doomed = false;
        self.sync_fails = false;
        let process = self.process.take();
        process.map(|process| process.clients.into_keys().collect()).unwrap_or_default()
    }
}

/// The power goes in the middle of a write: each block is part old, part new.
fn tear(disk: &FaultyDisk, seed: u64) {
    let mut chance = Chance::new(seed);
    disk.crash_with(&mut |unsynced| {
        let mut any = || chance.below(unsynced.versions() as u64 + 1) as usize;
        match unsynced {
            Unsynced::Block { bytes, .. } => {
                let (head, tail) = (any(), any());
                Kept::Torn { head, at: chance.below(*bytes as u64) as usize, tail }
            }
            Unsynced::Length { .. } | Unsynced::Name { .. } => Kept::Version(any()),
        }
    });
}

impl Process {
    // ---- what comes in ------------------------------------------------------------------------

    pub fn receive(&mut self, now: Now, to: NodeId, from: NodeId, frame: &Bytes) {
        let mut decoder = FrameDecoder::new(wire::FRAME_BYTES_MAX);
        decoder.spare().extend_from_slice(frame);
        match decoder.next_frame() {
            Ok(Some(Frame::Peer(PeerFrame::Paxos(message)))) => {
                self.links.heard(from, &message);
                if self.state.takes_in(&message) {
                    self.node.received(now, Envelope { from, to, message });
                }
            }
            Ok(Some(Frame::Peer(PeerFrame::Snapshot(part)))) => {
                self.snapshots.received(now, from, part, &mut self.node, &self.outbox);
            }
            Ok(Some(Frame::Durable { promised, last_slot })) => {
                self.links.stated(from, Remembered { promised, last_slot });
            }
            other => panic!("a frame of {from} cannot be read: {other:?}"),
        }
    }

    /// Bytes of a client, opening its connection with the first of them.
    pub fn request(&mut self, now: Now, connection: Connection, bytes: &[u8]) {
        let node = &mut self.node;
        let client = self.clients.entry(connection).or_insert_with(|| {
            let state = |id| {
                let address = format!("client:{}", connection.0);
                ConnectionState::new(id, address, "node".to_owned(), true, now.wall_ms)
            };
            let session = node.clients.open(state);
            self.sessions.insert(session, connection);
            Client { session, parser: RequestParser::new(), unread: BytesMut::new() }
        });
        client.unread.extend_from_slice(bytes);
        let unread = client.unread.split().freeze();
        let limits = Limits::authenticated(1 << 20);
        let mut consumed = 0;
        loop {
            let parsed = client.parser.parse(&unread[consumed..], &limits);
            let Some(request) = parsed.expect("our clients speak RESP") else { break };
            consumed += request.consumed;
            let is_read = request.arguments.first().is_some_and(|name| *name == b"GET");
            let ballot = node.replica.reads_under().filter(|_| is_read);
            self.reads_without_lease +=
                u64::from(ballot.is_some_and(|ballot| !node.replica.holds_lease(now, ballot)));
            let Some(spec) = node.command(now, client.session, &request.arguments) else {
                continue;
            };
            assert_eq!(spec.name, "readonly", "not a data command");
            let session = node.clients.get_mut(client.session).expect("it is open");
            session.connection.readonly = true;
            node.answered(now, client.session, spec, Reply::OK);
        }
        client.unread.extend_from_slice(&unread[consumed..]);
    }

    pub fn knows(&self, connection: Connection) -> bool {
        self.clients.contains_key(&connection)
    }

    /// The client went away.
    pub fn hang_up(&mut self, connection: Connection) {
        if let Some(client) = self.clients.remove(&connection) {
            self.sessions.remove(&client.session);
            self.node.clients.close(client.session);
        }
    }

    pub fn peer_lost(&mut self, now: Now, peer: NodeId) {
        self.node.disconnected(now, peer);
        self.snapshots.peer_lost(now, peer);
    }

    pub fn tick(&mut self, now: Now) {
        let state = &self.state;
        let can_accept = self.room.can_accept(state, &self.node.replica, now)
            || self.broken == Some(Broken::SlowDiskTakesPart) && !state.is_full()
            || self.broken == Some(Broken::FullDiskTakesPart) && state.is_full();
        self.node.set_can_accept(can_accept, state.is_full());
        self.node.tick(now);
        let _ = self.leaving.go_on(&mut self.node, now);
        let journal_bytes = state.written_bytes.load(std::sync::atomic::Ordering::Relaxed);
        self.snapshots.tick(now, &mut self.node, &self.outbox, journal_bytes);
        let Remembered { promised, last_slot } = self.links.durable;
        for peer in self.links.due(now) {
            let mut frame = BytesMut::new();
            wire::put(&mut frame, &Frame::Durable { promised, last_slot }).expect("it is short");
            self.outbox.frames.borrow_mut().push((peer, frame.freeze()));
        }
    }

    /// It was told to stop.
    pub fn leave(&mut self, now: Now) {
        match self.broken {
            Some(Broken::StopsWithoutHandover) => self.stops_at_once = true,
            _ => drop(self.leaving.begin(&mut self.node, now)),
        }
    }

    // ---- one turn -----------------------------------------------------------------------------

    /// Everything that came in is worked off, in the order of the product's own loop.
    pub fn turn(&mut self, now: Now) -> Turned {
        let mut turned = Turned::default();
        let synced = self.state.synced();
        if synced > self.synced {
            self.synced = synced;
            self.node.synced(now, synced);
            turned.synced = Some(synced);
        }
        let mut effects = std::mem::take(&mut self.effects);
        self.node.turn(now, &mut effects);
        for mut envelope in effects.sends.drain(..) {
            self.distort(&mut envelope.message);
            let len = wire::frame_len(&envelope.message).expect("what a node says fits a frame");
            let mut frame = BytesMut::new();
            wire::put_message(&mut frame, &envelope.message, len);
            self.outbox.frames.borrow_mut().push((envelope.to, frame.freeze()));
            turned.said.push(envelope.message);
        }
        turned.more = std::mem::take(&mut effects.more);
        turned.records = effects.records.clone();
        turned.position = effects.position;
        if let Some(append) = Append::of(&mut effects) {
            self.state.hand_over(append.len_bytes(), now.mono_us);
            self.appender.take(Order::Append(append));
            if self.broken == Some(Broken::SpeaksBeforeSync) {
                self.node.synced(now, effects.position);
                turned.synced = Some(effects.position);
            }
        }
        let (position, remembered) = self.claim;
        if position <= self.synced {
            turned.claimed = Some(remembered);
            self.links.durable = remembered;
            self.claim = (effects.position, Remembered::durable(&self.node.replica));
        }
        for peer in effects.snapshot_for.drain(..) {
            self.snapshots.wanted(now, peer, &self.node, &self.outbox);
        }
        effects.notes.iter().for_each(|note| self.leaving.heed(note));
        turned.notes.append(&mut effects.notes);
        turned.has_left = self.stops_at_once || self.leaving.is_over(&self.node, now);
        self.links.follow(now, self.node.configuration());
        turned.is_gone = effects.tombstone.take().is_some();
        self.node.verdicts.clear();
        for session in effects.dirty.drain(..) {
            self.write_out(session, &mut turned);
        }
        // As the shell does for the pages.
        let counts = std::mem::take(&mut self.node.counts);
        turned.batches_lost = counts.batches_lost;
        turned.batches_unknown = counts.batches_unknown;
        turned.slows = self.snapshots.slowed_for().next().is_some();
        turned.reads_leased = counts.reads_leased;
        turned.reads_by_round = counts.reads_served;
        turned.reads_without_lease = std::mem::take(&mut self.reads_without_lease);
        turned.reads_followed = counts.reads_followed;
        turned.reads_stale = counts.reads_stale;
        self.node.clients.take_finished();
        turned.frames = std::mem::take(&mut self.outbox.frames.borrow_mut());
        self.effects = effects;
        turned
    }

    fn distort(&mut self, message: &mut Message) {
        if let Message::Heartbeat(heartbeat) = message
            && self.broken == Some(Broken::ContentForEver)
        {
            self.was_happy_with = heartbeat.happy_with.or(self.was_happy_with);
            heartbeat.happy_with = self.was_happy_with;
        }
    }

    fn write_out(&mut self, id: SessionId, turned: &mut Turned) {
        let Some(connection) = self.sessions.get(&id).copied() else { return };
        let Some(session) = self.node.clients.get_mut(id) else { return };
        let closing = session.closing;
        if !session.out.is_empty() {
            turned.replies.push((connection, std::mem::take(&mut session.out).into()));
        }
        if closing {
            self.hang_up(connection);
            turned.closed.push(connection);
        }
    }

    // ---- the disks' work ----------------------------------------------------------------------

    /// Is there a job on a snapshot file to be done?
    pub fn has_file_work(&mut self) -> bool {
        if self.job.is_none() {
            self.job = self.jobs.received.try_recv().ok();
        }
        self.job.is_some()
    }

    /// Is that job to look at a file before it is sent?
    pub fn is_checking(&self) -> bool {
        matches!(self.job, Some(Job::Check { .. }))
    }

    /// Does that job; what came of it is for [`Process::filed`].
    pub fn file_work(&mut self) -> Option<Done> {
        let job = self.job.take()?;
        self.files.work(job)
    }

    /// The job's result is on its way to the core.
    pub fn filed(&mut self, done: Done) {
        self.jobs.results.send(done).expect("the core is there");
    }

    pub fn is_installing(&self) -> bool {
        self.snapshots.is_installing()
    }

    /// The end of a process that was told to stop: what was handed to the journal is synced, as far
    /// as there is space.
    pub fn finish(&mut self) -> Result<(), journal::Error> {
        // What is under way first, then what waits behind it.
        for _ in 0..2 {
            if self.appender.needs_sync() && !self.appender.sync()? {
                return Ok(());
            }
            if let Some(position) = self.appender.settle()?.synced {
                self.synced = position;
            }
            self.appender.append_waiting()?;
        }
        Ok(())
    }

    pub fn synced(&self) -> Position {
        self.synced
    }

    /// Neither full nor slow, by its own measure.
    pub fn has_good_disk(&self, now: Now) -> bool {
        self.state.can_accept(now.mono_us)
    }

    /// Nobody waits for an answer here.
    pub fn is_quiet(&self) -> bool {
        self.node.pending_count() == 0 && !self.node.clients.has_holding()
    }
}
