//! A cluster on one desk: real replicas, with everything around them in the hands of the test.
//!
//! Nothing happens here by itself. A driver (a script, or the simulator with its seed) says which
//! message arrives, whose clock ticks, whose disk has synced and who loses power; the cluster does
//! the shell's work around each call (append, send, apply, reply) and holds every step against the
//! [`Checker`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use paxos::{
    Ballot, BatchId, Change, ChangeRefusal, Configuration, Deposed, Envelope, HandoverRefusal,
    Member, Message, NodeId, Note, Now, Output, ReadId, Record, Recovered, Refusal, Replica, Role,
    Settings, Slot, Value,
};

use super::checker::Checker;
use super::clock::Clock;
use super::coverage::{Coverage, Rare};
use super::describe;
use super::disk::{Disk, Snapshot};
use super::foul::Foul;
use super::store::Store;

pub type HandoverAnswer = Result<NodeId, HandoverRefusal>;

/// A running process.
#[derive(Debug)]
pub struct Process {
    pub replica: Replica,
    pub incarnation: u64,
    pub store: Store,
    /// Batches whose clients wait, with the ballot under which they were proposed.
    pub pending: BTreeMap<BatchId, Ballot>,
    /// Reads that wait, with what they must not miss.
    pub reads: BTreeMap<ReadId, Slot>,
    ready: Vec<(ReadId, Slot)>,
}

#[derive(Debug)]
pub struct Node {
    pub clock: Clock,
    pub disk: Disk,
    pub process: Option<Process>,
    pub settings: Settings,
    /// Groups in one segment before the next is opened.
    pub segment_groups: usize,
    /// The longest lease that a process on this disk may have granted.
    pub longest_lease_us: u64,
    /// It was removed, and is not to start again.
    pub has_tombstone: bool,
}

/// A read of the store under a lease that has not been checked yet.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub node: NodeId,
    incarnation: u64,
    ballot: Ballot,
    read: ReadId,
    begun_us: u64,
    /// What the read must not miss, and the last slot that it saw.
    floor: Slot,
    seen: Slot,
    /// Was there a lease when the store was read? (What a fouled shell goes by.)
    held: bool,
}

/// What a run did, line by line; kept only when somebody will read it.
#[derive(Debug, Default)]
pub struct Trace {
    pub enabled: bool,
    /// 0 for no bound.
    pub lines_max: usize,
    pub lines: VecDeque<String>,
}

impl Trace {
    pub fn line(&mut self, line: impl FnOnce() -> String) {
        if self.enabled {
            self.lines.push_back(line());
            if self.lines_max > 0 && self.lines.len() > self.lines_max {
                self.lines.pop_front();
            }
        }
    }
}

#[derive(Debug)]
pub struct Cluster {
    pub time_us: u64,
    pub nodes: BTreeMap<NodeId, Node>,
    pub checker: Checker,
    pub coverage: Coverage,
    pub trace: Trace,
    /// What has left and not been picked up by the driver.
    pub outbox: Vec<Envelope>,
    /// (from, to): a snapshot is to be streamed.
    pub snapshots_wanted: Vec<(NodeId, NodeId)>,
    pub configuration: Configuration,
    pub foul: Option<Foul>,
    /// Nodes whose records were appended and are not synced.
    incarnations: u64,
    reads: u64,
    /// A log may be trimmed above the only snapshot that is left. Not where members come and go: the
    /// others that hold what is missing may be gone.
    pub may_tear: bool,
}

impl Cluster {
    /// `spares` are formatted nodes that are no members yet: they run, and know the first members.
    pub fn new(
        (voters, learners, spares): (u32, u32, u32),
        settings: impl Fn(NodeId) -> Settings,
    ) -> Cluster {
        let member = |role| Member {
            role,
            incarnation: 0,
            public_key: Vec::new(),
            peer_address: String::new(),
            client_address: String::new(),
            http_address: String::new(),
            name: String::new(),
        };
        let members = (1..=voters + learners)
            .map(|id| (NodeId(id), member(if id <= voters { Role::Voter } else { Role::Learner })));
        let configuration =
            Configuration { members: members.collect(), store_version: 1, ..Default::default() };
        let ids: Vec<NodeId> = (1..=voters + learners + spares).map(NodeId).collect();
        let node = |id: NodeId| Node {
            clock: Clock::TRUE,
            disk: Disk::default(),
            process: None,
            settings: settings(id),
            segment_groups: usize::MAX,
            longest_lease_us: 0,
            has_tombstone: false,
        };
        Cluster {
            time_us: 0,
            nodes: ids.iter().map(|id| (*id, node(*id))).collect(),
            checker: Checker::new(configuration.clone(), ids.iter().copied()),
            coverage: Coverage::default(),
            trace: Trace::default(),
            outbox: Vec::new(),
            snapshots_wanted: Vec::new(),
            configuration,
            foul: None,
            incarnations: 0,
            reads: 0,
            may_tear: spares == 0,
        }
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("the driver names nodes of this cluster only")
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.nodes[&id].process.is_some()
    }

    pub fn process(&self, id: NodeId) -> Option<&Process> {
        self.nodes[&id].process.as_ref()
    }

    pub fn replica(&self, id: NodeId) -> Option<&Replica> {
        self.process(id).map(|process| &process.replica)
    }

    /// Everybody who believes to lead, with the ballot.
    pub fn leaders(&self) -> Vec<(NodeId, Ballot)> {
        let leading = |id: &NodeId| Some((*id, self.replica(*id)?.leading()?));
        self.nodes.keys().filter_map(leading).collect()
    }

    pub fn now(&self, id: NodeId) -> Now {
        self.nodes[&id].clock.now(self.time_us)
    }

    // ---- processes --------------------------------------------------------------------------

    /// Starts a process on what its disk holds.
    pub fn start(&mut self, id: NodeId) {
        assert!(!self.is_up(id), "{id} runs already");
        if self.foul != Some(Foul::ReuseIncarnation) || self.incarnations < self.nodes.len() as u64
        {
            self.incarnations += 1;
        }
        let incarnation = match self.foul {
            Some(Foul::ReuseIncarnation) => u64::from(id.0),
            _ => self.incarnations,
        };
        let now = self.now(id);
        let initial = self.configuration.clone();
        let foul = self.foul;
        let node = self.node(id);
        if node.has_tombstone {
            return;
        }
        let snapshot = node.disk.snapshots.last();
        let configuration = snapshot.map_or(initial, |snapshot| snapshot.configuration.clone());
        let store = snapshot.map_or(Store::EMPTY, |snapshot| Store {
            applied_below: snapshot.below,
            hash: snapshot.hash,
        });
        let mut records = node.disk.records();
        match foul {
            Some(Foul::ForgetPromise) => {
                records.retain(|record| !matches!(record, Record::Promised(_)))
            }
            Some(Foul::ForgetAccepted) => {
                records.retain(|record| !matches!(record, Record::Accepted { .. }));
            }
            Some(Foul::ReuseRounds) => {
                records.retain(
                    |record| !matches!(record, Record::Promised(ballot) if ballot.node == id),
                );
            }
            _ => {}
        }
        let granted_us = node.longest_lease_us;
        let recovered = Recovered { snapshot_below: store.applied_below, records, granted_us };
        let mut settings = node.settings.clone();
        settings.incarnation = incarnation;
        settings.seed = settings.seed.wrapping_add(incarnation);
        let mut output = Output::default();
        let replica = Replica::recover(settings, configuration, recovered, now, &mut output);
        node.process = Some(Process {
            replica,
            incarnation,
            store,
            pending: BTreeMap::new(),
            reads: BTreeMap::new(),
            ready: Vec::new(),
        });
        self.checker.restarted(id, store.applied_below);
        self.trace.line(|| format!("{id} starts"));
        self.absorb(id, output);
        self.introduce(id);
    }

    /// The process dies and the power with it: of the unsynced groups the first `survivors` stay.
    /// Returns the reads and batches whose clients hear nothing any more.
    pub fn crash(&mut self, id: NodeId, survivors: usize) {
        let node = self.node(id);
        let Some(process) = node.process.take() else { return };
        let unsynced = node.disk.unsynced_count();
        let written_out = node.disk.lose_power(survivors);
        self.checker.synced(id, &written_out);
        self.coverage.count(Rare::Restarted);
        if process.replica.leading().is_some() {
            self.coverage.count(Rare::RestartWhileLeading);
        }
        if process.replica.preparing().is_some() {
            self.coverage.count(Rare::RestartWhilePreparing);
        }
        if unsynced > 0 && survivors > 0 {
            self.coverage.count(Rare::RecordsSurvived);
        }
        if unsynced > survivors {
            self.coverage.count(Rare::RecordsLost);
        }
        let lost = unsynced.saturating_sub(survivors);
        self.trace.line(|| {
            let lost =
                if lost > 0 { format!(", {lost} unsynced groups lost") } else { String::new() };
            format!("{id} crashes{lost}")
        });
    }

    /// The newest snapshot turns out to be unreadable at the next start. Where the log is trimmed
    /// above the older one (after an install), the node has to learn what lies between again; only
    /// one node may be torn like that, or chosen entries would be gone for good.
    pub fn spoil_newest_snapshot(&mut self, id: NodeId) {
        let may_tear = id == NodeId(1) && self.nodes.len() > 1 && self.may_tear;
        let node = self.node(id);
        let [.., older, _newest] = node.disk.snapshots.as_slice() else { return };
        let below = older.below;
        let configuration = older.configuration.number;
        let is_torn = node.disk.trimmed_below() > below;
        if node.process.is_some() || (is_torn && !may_tear) {
            return;
        }
        node.disk.snapshots.pop();
        self.checker.snapshot_spoiled(id, below, configuration);
        self.coverage.count(Rare::OldSnapshotUsed);
        if is_torn {
            self.coverage.count(Rare::TornLog);
        }
        self.trace
            .line(|| format!("{id}'s newest snapshot is spoiled, the one below {below} is left"));
    }

    /// A process that starts and those that run tell each other which store versions they can do.
    fn introduce(&mut self, id: NodeId) {
        let newest = self.nodes[&id].settings.store_version_newest;
        self.checker.can_do(id, newest);
        for peer in self.ids() {
            if peer == id || !self.is_up(peer) {
                continue;
            }
            let theirs = self.nodes[&peer].settings.store_version_newest;
            self.call(id, |replica, _, _| replica.introduced(peer, Some(theirs)));
            self.call(peer, |replica, _, _| replica.introduced(id, Some(newest)));
        }
    }

    // ---- what can happen to a process ---------------------------------------------------------

    /// Runs one call of the replica, then does the shell's work for it.
    fn call<T>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Replica, Now, &mut Output) -> T,
    ) -> Option<T> {
        let now = self.now(id);
        let process = self.node(id).process.as_mut()?;
        let mut output = Output::default();
        let answer = act(&mut process.replica, now, &mut output);
        self.absorb(id, output);
        Some(answer)
    }

    pub fn tick(&mut self, id: NodeId) {
        let late_us = if self.foul == Some(Foul::HeartbeatStampedLate) { 30_000 } else { 0 };
        self.call(id, |replica, mut now, output| {
            now.mono_us += late_us;
            replica.tick(now, output);
        });
    }

    pub fn deliver(&mut self, envelope: Envelope) {
        let (from, to) = (envelope.from, envelope.to);
        if !self.is_up(to) {
            return;
        }
        self.trace.line(|| format!("{from} → {to} {}", describe::message(&envelope.message)));
        match &envelope.message {
            Message::Chosen { .. } => self.coverage.count(Rare::ChosenByMessage),
            Message::Promise { to_slot, entries, .. } => {
                if to_slot.is_some() {
                    self.coverage.count(Rare::ChunkedPromise);
                }
                if entries.iter().any(|entry| entry.value.is_none()) {
                    self.coverage.count(Rare::PromiseOmitted);
                }
            }
            _ => {}
        }
        let is_heartbeat = matches!(envelope.message, Message::Heartbeat(_));
        let is_early = is_heartbeat && self.foul == Some(Foul::GrantStampedEarly);
        let early_us = if is_early { 30_000 } else { 0 };
        self.call(to, |replica, mut now, output| {
            now.mono_us = now.mono_us.saturating_sub(early_us);
            replica.step(now, envelope, output);
        });
    }

    pub fn take_over(&mut self, id: NodeId) {
        self.call(id, |replica, now, output| replica.take_over(now, output));
    }

    pub fn connected(&mut self, id: NodeId, peer: NodeId) {
        let newest = self.nodes[&peer].settings.store_version_newest;
        self.call(id, |replica, now, output| {
            replica.introduced(peer, Some(newest));
            replica.connected(now, peer, output);
        });
    }

    pub fn disconnected(&mut self, id: NodeId, peer: NodeId) {
        self.trace.line(|| format!("{id} loses its connection to {peer}"));
        self.call(id, |replica, now, output| replica.disconnected(now, peer, output));
    }

    pub fn set_can_accept(&mut self, id: NodeId, can_accept: bool) {
        if !can_accept {
            self.coverage.count(Rare::GreyNode);
        }
        self.call(id, |replica, _, _| replica.set_can_accept(can_accept));
    }

    /// A client writes. `None` when nobody is there to answer.
    pub fn propose(&mut self, id: NodeId, payload: &str) -> Option<Result<BatchId, Refusal>> {
        let now = self.now(id);
        let process = self.node(id).process.as_mut()?;
        let mut output = Output::default();
        let answer = process.replica.propose(now, payload.to_owned().into(), &mut output);
        match answer {
            Ok(batch) => {
                let ballot = process.replica.leading().unwrap_or_default();
                if process.pending.insert(batch, ballot).is_some() {
                    self.checker.fail(format!("{id} gives the name of a batch twice"));
                }
            }
            Err(Refusal::WindowFull) => self.coverage.count(Rare::WindowFull),
            Err(Refusal::NotLeading { .. }) => {}
        }
        self.absorb(id, output);
        Some(answer)
    }

    /// The leader `id` is to hand over.
    pub fn hand_over(&mut self, id: NodeId, to: Option<NodeId>) -> Option<HandoverAnswer> {
        self.call(id, |replica, now, output| replica.hand_over(now, to, output))
    }

    /// An operator changes the configuration.
    pub fn change(
        &mut self,
        id: NodeId,
        change: &Change,
    ) -> Option<Result<BatchId, ChangeRefusal>> {
        let now = self.now(id);
        let process = self.node(id).process.as_mut()?;
        let mut output = Output::default();
        let answer = process.replica.change(now, change, &mut output);
        match &answer {
            Ok(batch) => {
                let ballot = process.replica.leading().unwrap_or_default();
                process.pending.insert(*batch, ballot);
            }
            Err(_) => self.coverage.count(Rare::ChangeRefused),
        }
        self.absorb(id, output);
        Some(answer)
    }

    /// An operator tells `id` of a peer that knows more.
    pub fn ask(&mut self, id: NodeId, peer: NodeId) {
        self.trace.line(|| format!("{id} is told of {peer}"));
        self.call(id, |replica, _, output| replica.ask(peer, output));
    }

    pub fn has_tombstone(&self, id: NodeId) -> bool {
        self.nodes[&id].has_tombstone
    }

    /// Everybody who is a member now, or may have to be told that it is none any more.
    pub fn members(&self) -> Vec<NodeId> {
        let configuration = self.checker.configuration();
        let concerns = |id: &NodeId| {
            configuration.contains(*id)
                || (configuration.removed.contains(id) && !self.has_tombstone(*id))
        };
        self.nodes.keys().copied().filter(concerns).collect()
    }

    /// A client reads: under the lease, if there is one, else by a quorum round.
    pub fn read(&mut self, id: NodeId) -> Option<Result<ReadId, Refusal>> {
        if let Some(look) = self.look(id)
            && self.check(look)
        {
            return Some(Ok(look.read));
        }
        self.read_by_quorum(id)
    }

    /// The first step of a read under a lease: read the store.
    pub fn look(&mut self, id: NodeId) -> Option<Look> {
        let process = self.process(id)?;
        let ballot = process.replica.reads_under()?;
        let look = Look {
            node: id,
            incarnation: process.incarnation,
            ballot,
            read: ReadId(self.reads + 1),
            begun_us: self.time_us,
            floor: self.checker.read_begins(),
            seen: process.store.applied_below.previous(),
            held: process.replica.holds_lease(self.now(id), ballot),
        };
        self.reads += 1;
        Some(look)
    }

    /// The second step: check the lease, by the clock as it is now. False if the read has to be
    /// served in another way.
    pub fn check(&mut self, look: Look) -> bool {
        let Look { node: id, ballot, read, mut floor, mut seen, .. } = look;
        let now = self.now(id);
        let Some(process) = self.process(id) else { return false };
        if process.incarnation != look.incarnation {
            return false;
        }
        let replica = &process.replica;
        let held = match self.foul {
            Some(Foul::LeaseCheckedBeforeRead) => look.held,
            Some(Foul::LeaseOfAnyBallot) => {
                replica.reads_under().is_some_and(|ballot| replica.holds_lease(now, ballot))
            }
            _ => replica.holds_lease(now, ballot),
        };
        if self.foul == Some(Foul::LeaseCheckedBeforeRead) {
            floor = self.checker.read_begins();
            seen = process.store.applied_below.previous();
        }
        if !held {
            self.coverage.count(Rare::LeaseRefused);
            self.trace.line(|| format!("{id} has no lease for read {}", read.0));
            return false;
        }
        let in_steps = look.begun_us < self.time_us;
        self.coverage.count(if in_steps { Rare::LeasedReadInSteps } else { Rare::LeasedRead });
        self.trace.line(|| format!("{id} serves read {} at slot {seen}, leased", read.0));
        self.checker.read_served(id, floor, seen, seen);
        true
    }

    /// Is that read still to be served?
    pub fn waits(&self, id: NodeId, read: ReadId) -> bool {
        self.process(id).is_some_and(|process| process.reads.contains_key(&read))
    }

    /// A client reads at a follower, which serves the read itself.
    pub fn read_at_follower(&mut self, id: NodeId) -> Option<Result<ReadId, Refusal>> {
        let answer = self.begin_read(id, Replica::read_at_follower)?;
        if answer.is_ok() {
            self.coverage.count(Rare::FollowerRead);
        }
        Some(answer)
    }

    pub fn read_by_quorum(&mut self, id: NodeId) -> Option<Result<ReadId, Refusal>> {
        self.begin_read(id, Replica::read)
    }

    fn begin_read(
        &mut self,
        id: NodeId,
        begin: impl FnOnce(&mut Replica, Now, ReadId, &mut Output) -> Result<(), Refusal>,
    ) -> Option<Result<ReadId, Refusal>> {
        let now = self.now(id);
        self.reads += 1;
        let read = ReadId(self.reads);
        let floor = self.checker.read_begins();
        let process = self.node(id).process.as_mut()?;
        let mut output = Output::default();
        let answer = begin(&mut process.replica, now, read, &mut output);
        if answer.is_ok() {
            process.reads.insert(read, floor);
        }
        self.absorb(id, output);
        Some(answer.map(|()| read))
    }

    // ---- disks ------------------------------------------------------------------------------

    /// The sync that covers all groups below `end` is over.
    pub fn sync(&mut self, id: NodeId, end: usize) {
        let node = self.node(id);
        if node.process.is_none() {
            return;
        }
        let (records, position) = node.disk.sync(end);
        self.checker.synced(id, &records);
        if self.foul == Some(Foul::SpeakBeforeSync) {
            return;
        }
        if let Some(position) = position {
            self.call(id, |replica, now, output| replica.durable(now, position, output));
        }
    }

    /// The state machine as it is now, to be written as a snapshot.
    pub fn snapshot(&self, id: NodeId) -> Option<Snapshot> {
        let process = self.process(id)?;
        Some(Snapshot {
            below: process.store.applied_below,
            hash: process.store.hash,
            configuration: process.replica.configuration().clone(),
        })
    }

    /// A snapshot of the own store is synced: trim behind the one before it.
    pub fn snapshot_synced(&mut self, id: NodeId, snapshot: Snapshot) {
        let below = snapshot.below;
        let configuration = snapshot.configuration.number;
        let foul = self.foul;
        let node = self.node(id);
        if node.process.is_none() {
            return;
        }
        node.disk.keep_snapshot(snapshot);
        let mut first_kept = match node.disk.snapshots.as_slice() {
            [older, _newest] => older.below,
            _ => Slot::FIRST,
        };
        if foul == Some(Foul::TrimWithoutSnapshot) {
            let replica = node.process.as_ref().map(|process| &process.replica);
            first_kept = replica.map_or(first_kept, Replica::first_unchosen);
        }
        self.checker.snapshot_synced(id, below, configuration);
        self.trace.line(|| format!("{id} has a snapshot below {below}, trims below {first_kept}"));
        self.call(id, |replica, _, output| replica.trim(first_kept, output));
    }

    /// A snapshot from a peer has arrived, and is synced: load it and tell the core.
    pub fn install(&mut self, id: NodeId, snapshot: Snapshot) {
        let Some(process) = self.node(id).process.as_mut() else { return };
        let below = snapshot.below;
        if below <= process.store.applied_below {
            // The core must bear a late or repeated one all the same (PITFALLS 69).
            self.coverage.count(Rare::SnapshotIgnored);
        } else {
            process.store = Store { applied_below: below, hash: snapshot.hash };
            self.coverage.count(Rare::SnapshotInstalled);
            if self.foul != Some(Foul::InstallBeforeSync) {
                self.node(id).disk.keep_snapshot(snapshot.clone());
                self.checker.snapshot_synced(id, below, snapshot.configuration.number);
            }
            self.checker.installed(id, below);
        }
        self.trace.line(|| format!("{id} installs a snapshot below {below}"));
        let configuration = snapshot.configuration;
        self.call(id, |replica, now, output| replica.install(now, below, configuration, output));
    }

    // ---- the shell's work ---------------------------------------------------------------------

    /// Append, send, apply, reply: what `node.rs` does with an output.
    fn absorb(&mut self, id: NodeId, output: Output) {
        let Output {
            records,
            now,
            applicable,
            lost,
            unknown,
            reads,
            reads_refused,
            snapshot_for,
            leader_clock_ms: _,
            tombstone,
            notes,
        } = output;
        for note in &notes {
            self.note(id, note);
        }
        self.append(id, &records);
        for envelope in now {
            let incarnation = self.incarnation(id);
            self.checker.sent(id, incarnation, &envelope.message);
            self.outbox.push(envelope);
        }
        self.checker.call_is_over(id);
        for (slot, value) in applicable {
            self.apply(id, slot, &value);
        }
        for batch in lost {
            self.coverage.count(Rare::LostBatch);
            self.checker.lost(batch);
            self.settle(id, batch, "is lost");
        }
        for batch in unknown {
            self.coverage.count(Rare::UnknownBatch);
            self.settle(id, batch, "has an unknown fate");
        }
        self.serve_reads(id, reads, &reads_refused);
        self.snapshots_wanted.extend(snapshot_for.into_iter().map(|to| (id, to)));
        if let Some(number) = tombstone {
            self.checker.removed(id, number);
            let node = self.node(id);
            node.has_tombstone = true;
            node.process = None;
        }
        self.remember_lease(id);
        self.check_leases();
    }

    /// No grant by a longer L leaves before the disk remembers it.
    fn remember_lease(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some(process) = &node.process else { return };
        if node.settings.takes_part_in_leases {
            let lease_us = process.replica.lease_terms().lease_us;
            node.longest_lease_us = node.longest_lease_us.max(lease_us);
        }
    }

    /// At most one node holds a lease, and no lease misses what anybody was told.
    fn check_leases(&mut self) {
        let holders = self.nodes.iter().filter_map(|(id, node)| {
            let process = node.process.as_ref()?;
            let held_us = process.replica.lease_remaining_us(node.clock.now(self.time_us));
            (held_us > 0).then_some((*id, process.store.applied_below))
        });
        let holders: Vec<(NodeId, Slot)> = holders.collect();
        if holders.len() > 1 {
            self.checker
                .fail(format!("two nodes hold leases: {} and {}", holders[0].0, holders[1].0));
        }
        for (id, applied_below) in holders {
            self.checker.holds_lease(id, applied_below);
        }
    }

    fn incarnation(&self, id: NodeId) -> u64 {
        self.process(id).map_or(0, |process| process.incarnation)
    }

    fn note(&mut self, id: NodeId, note: &Note) {
        self.checker.noted(id, note);
        self.coverage.note(note);
        self.count_change(id, note);
        if matches!(note, Note::Elected { .. }) && self.leaders().len() > 1 {
            self.coverage.count(Rare::TwoLeaders);
        }
        self.trace.line(|| format!("{id} {}", describe::note(note)));
    }

    fn count_change(&mut self, id: NodeId, note: &Note) {
        let Some(replica) = self.replica(id) else { return };
        let rare = match note {
            Note::ConfigurationKnown { .. } => {
                let is_new = !self.configuration.contains(id);
                (is_new && replica.configuration().is_voter(id)).then_some(Rare::LearnerPromoted)
            }
            Note::Deposed { led: true, reason: Deposed::NewConfiguration, .. } => {
                replica.is_removed().then_some(Rare::LeaderRemoved)
            }
            _ => None,
        };
        if let Some(rare) = rare {
            self.coverage.count(rare);
        }
        if matches!(note, Note::ConfigurationKnown { .. }) {
            self.count_rules(id);
        }
    }

    fn count_rules(&mut self, id: NodeId) {
        let Some(replica) = self.replica(id) else { return };
        let configuration = replica.configuration();
        let of_files = Some(self.nodes[&id].settings.lease_terms);
        let states_others =
            configuration.lease_terms.is_some() && configuration.lease_terms != of_files;
        let is_raised = configuration.store_version > 1;
        self.coverage.add(Rare::LeaseTermsStated, u64::from(states_others));
        self.coverage.add(Rare::StoreVersionRaised, u64::from(is_raised));
    }

    fn append(&mut self, id: NodeId, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        for record in records {
            self.trace.line(|| format!("{id} writes: {}", describe::record(record)));
        }
        self.checker.written(id, records);
        let foul = self.foul;
        let node = self.node(id);
        node.disk.append(records);
        let trims = records.iter().any(|record| matches!(record, Record::TrimmedBelow(_)));
        let Some(process) = &node.process else { return };
        if node.disk.last_segment_len() > node.segment_groups {
            let checkpoint = match foul {
                Some(Foul::NoCheckpoint) => Vec::new(),
                _ => process.replica.checkpoint(),
            };
            node.disk.roll(checkpoint);
        }
        let recycled = if trims { node.disk.recycle(process.replica.first_kept()) } else { 0 };
        if recycled > 0 {
            self.coverage.count(Rare::SegmentRecycled);
            self.trace.line(|| format!("{id} recycles {recycled} segments"));
        }
        if foul == Some(Foul::SpeakBeforeSync) {
            let position = self.node(id).disk.last_position();
            self.call(id, |replica, now, output| replica.durable(now, position, output));
        }
    }

    fn apply(&mut self, id: NodeId, slot: Slot, value: &Value) {
        let process = self.node(id).process.as_mut().expect("only a running process applies");
        process.store.apply(slot, value);
        let hash = process.store.hash;
        self.trace.line(|| format!("{id} applies {slot}:{}", describe::value(value)));
        self.checker.applied(id, slot, value, hash);
        if let Some(batch) = value.batch_id()
            && self.nodes[&id]
                .process
                .as_ref()
                .is_some_and(|process| process.pending.contains_key(&batch))
        {
            self.checker.acknowledged(batch, slot);
            self.settle(id, batch, "is done");
        }
    }

    /// A client hears of its batch.
    fn settle(&mut self, id: NodeId, batch: BatchId, fate: &str) {
        let process = self.node(id).process.as_mut().expect("only a running process replies");
        let leading = process.replica.leading();
        match process.pending.remove(&batch) {
            None => {
                self.checker.fail(format!("{id} settles a batch that nobody waits for: it {fate}"))
            }
            Some(ballot) if fate == "is done" && leading != Some(ballot) => {
                self.coverage.count(Rare::SettledAfterDeposed);
            }
            Some(_) => {}
        }
        if fate != "is done" {
            self.trace.line(|| format!("{id}'s batch {} {fate}", batch.counter));
        }
    }

    fn serve_reads(&mut self, id: NodeId, confirmed: Vec<(ReadId, Slot)>, refused: &[ReadId]) {
        let process = self.node(id).process.as_mut().expect("only a running process serves reads");
        process.ready.extend(confirmed);
        for read in refused {
            process.reads.remove(read);
        }
        let applied_below = process.store.applied_below;
        let (served, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut process.ready)
            .into_iter()
            .partition(|(_, slot)| *slot < applied_below);
        process.ready = waiting;
        for read in refused {
            self.coverage.count(Rare::ReadRefused);
            self.trace.line(|| format!("{id} refuses read {}", read.0));
        }
        for (read, slot) in served {
            let process = self.node(id).process.as_mut().expect("it was there a line ago");
            let Some(floor) = process.reads.remove(&read) else {
                self.checker
                    .fail(format!("{id} serves read {} twice, or after refusing it", read.0));
                continue;
            };
            self.coverage.count(Rare::ReadServed);
            self.trace.line(|| format!("{id} serves read {} at slot {slot}", read.0));
            self.checker.read_served(id, floor, slot, applied_below.previous());
        }
    }

    /// Do all members know the same log, to its end?
    pub fn is_level(&self) -> bool {
        let stores: BTreeSet<(Slot, u64)> = self
            .members()
            .into_iter()
            .filter_map(|id| self.process(id))
            .map(|process| (process.store.applied_below, process.store.hash))
            .collect();
        stores.len() == 1
            && stores.first().is_some_and(|(below, _)| *below > self.checker.last_chosen())
    }
}
