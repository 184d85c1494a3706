//! The clients of this node: for each connection the replies in the order of its requests, and the
//! requests that cannot be taken yet.
//!
//! - Replies leave in the order in which the requests came, whatever waits for a disk, a quorum or
//!   nothing at all (PITFALLS 36).
//! - A request that has to wait holds every later one of its connection back, so no GET overtakes
//!   the SET before it (PITFALLS 110).
//! - Behind a request that was refused because its slot was lost nothing gets an ordinary reply.
//! - What waits is bounded in number and bytes; a connection beyond its bound is not read from, and
//!   none is while all of them together take too much (`budget.rs`).

mod budget;

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::command::{self, ConnectionState};
use crate::metrics::{Code, Op};
use crate::resp::Reply;
use crate::transactions::{Exec, Queue, Watches};

use budget::Budget;
pub use budget::Evicted;

/// Names one connection for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Place of a request among those of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// A request that waits to be taken: no leader, a full window, or an earlier one of its connection.
#[derive(Clone, Debug)]
pub struct Held {
    pub sequence: Sequence,
    pub request: Request,
}

/// A request that was surely not done, and is refused once no write behind it can be done any more.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    pub sequence: Sequence,
    /// Of its first key, for a redirection.
    pub hash_slot: u16,
}

/// What may have to wait.
#[derive(Clone, Debug)]
pub enum Request {
    /// A data command.
    Command(Vec<Bytes>),
    /// These keys are to be watched.
    Watch(Vec<Bytes>),
    /// The watched keys are let go, and this is the answer.
    Unwatch(Reply),
    Exec(Box<Exec>),
}

/// What a request takes while it has no reply.
pub fn request_bytes(argv: &[impl AsRef<[u8]>]) -> usize {
    argv.iter().map(|argument| argument.as_ref().len() + ARGUMENT_BYTES).sum()
}

impl Request {
    pub fn len_bytes(&self) -> usize {
        match self {
            Request::Command(argv) | Request::Watch(argv) => request_bytes(argv),
            Request::Unwatch(_) => ARGUMENT_BYTES,
            Request::Exec(exec) => exec.data().map(request_bytes).sum::<usize>() + ARGUMENT_BYTES,
        }
    }

    /// Of its first key; 0 when it has none.
    pub fn hash_slot(&self) -> u16 {
        match self {
            Request::Command(argv) => {
                let argv: Vec<&[u8]> = argv.iter().map(|argument| &argument[..]).collect();
                let spec = command::check(&argv).expect("it was checked at the door");
                spec.keys(&argv).next().map_or(0, command::hash_slot)
            }
            Request::Watch(keys) => keys.first().map_or(0, |key| command::hash_slot(key)),
            Request::Unwatch(_) => 0,
            Request::Exec(exec) => exec.hash_slot(),
        }
    }
}

/// A request that was taken in, and its reply once that is there.
#[derive(Debug)]
struct Pending {
    op: Op,
    arrived_us: u64,
    request_bytes: u32,
    reply: Option<Vec<u8>>,
}

/// One answered request, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    pub op: Op,
    pub code: Code,
    pub took_us: u64,
}

#[derive(Debug)]
pub struct Session {
    pub connection: ConnectionState,
    /// Bytes to be written to the socket.
    pub out: Vec<u8>,
    /// Close once `out` is written.
    pub closing: bool,
    /// Requests taken that will be answered when their slot is applied.
    pub writes_pending: u32,
    /// Requests taken that wait for a read round.
    pub reads_pending: u32,
    /// What is queued behind `MULTI`.
    pub queue: Option<Queue>,
    pub watches: Watches,
    /// Those among the first whose replies may be whole values.
    pub values_pending: u32,
    /// From which request on `READONLY` counts: those before it may still be held.
    readonly_from: Option<Sequence>,
    /// The slot of the last write that was answered.
    pub last_write_slot: u64,
    /// In order. While there are any, nothing more is taken.
    pub lost: Vec<Lost>,
    /// Close once every request so far has its reply.
    closes_when_idle: bool,
    held: VecDeque<Held>,
    /// Requests that have no reply yet.
    request_bytes: usize,
    /// Replies that batches of this connection's requests will make all at once.
    pub promised_bytes: usize,
    /// The beginning of a request that is not complete, as its task says.
    pub rest_bytes: usize,
    /// When bytes last came from it, or went to it.
    progress_us: u64,
    /// What all connections together were told that it takes.
    counted_bytes: usize,
    /// Bytes of replies that wait for the replies before them.
    parked_bytes: usize,
    next: Sequence,
    /// Sequence of `pending[0]`.
    front: Sequence,
    pending: VecDeque<Pending>,
    dirty: bool,
}

/// A connection with more than this in flight is not read from until it has less.
/// Requests of one connection in batches whose replies may be whole values.
const VALUES_PENDING_MAX: u32 = 256;
const PENDING_MAX: usize = 16 * 1024;
const REQUEST_BYTES_MAX: usize = 32 << 20;
/// What an argument takes besides its bytes.
const ARGUMENT_BYTES: usize = 48;
/// A client that does not read its replies: past this it is closed (PITFALLS 42).
pub const OUT_BYTES_MAX: usize = 256 << 20;
const OUT_BYTES_PAUSE: usize = 8 << 20;

impl Session {
    fn new(connection: ConnectionState) -> Session {
        Session {
            connection,
            out: Vec::new(),
            closing: false,
            writes_pending: 0,
            reads_pending: 0,
            queue: None,
            watches: Watches::default(),
            values_pending: 0,
            readonly_from: None,
            last_write_slot: 0,
            lost: Vec::new(),
            closes_when_idle: false,
            held: VecDeque::new(),
            request_bytes: 0,
            promised_bytes: 0,
            rest_bytes: 0,
            progress_us: 0,
            counted_bytes: 0,
            parked_bytes: 0,
            next: Sequence(0),
            front: Sequence(0),
            pending: VecDeque::new(),
            dirty: false,
        }
    }

    /// The next request's place.
    fn take_sequence(&mut self, op: Op, arrived_us: u64, request_bytes: usize) -> Sequence {
        let sequence = self.next;
        self.next.0 += 1;
        let since = self.readonly_from.unwrap_or(sequence);
        self.readonly_from = self.connection.readonly.then_some(since);
        self.request_bytes += request_bytes;
        let request_bytes = u32::try_from(request_bytes).expect("the door refuses 4 GiB");
        self.pending.push_back(Pending { op, arrived_us, request_bytes, reply: None });
        sequence
    }

    /// Whether this request came behind a `READONLY` that has not been taken back.
    pub fn is_readonly(&self, sequence: Sequence) -> bool {
        self.connection.readonly && self.readonly_from.is_some_and(|from| from <= sequence)
    }

    /// Whether a request that was taken before this one lost its slot, and has not been refused.
    pub fn has_lost_before(&self, sequence: Sequence) -> bool {
        self.lost.first().is_some_and(|lost| lost.sequence < sequence)
    }

    /// When a request that has no reply yet came in.
    pub fn arrived_us(&self, sequence: Sequence) -> u64 {
        self.pending[(sequence.0 - self.front.0) as usize].arrived_us
    }

    /// Puts a reply in its place, and all replies whose turn has come into `out`.
    fn complete(&mut self, sequence: Sequence, encode: impl FnOnce(&mut Vec<u8>)) -> (Op, u64) {
        let index = (sequence.0 - self.front.0) as usize;
        let pending = &mut self.pending[index];
        assert!(pending.reply.is_none(), "request {} answered twice", sequence.0);
        let taken = (pending.op, pending.arrived_us);
        self.request_bytes -= pending.request_bytes as usize;
        if index > 0 {
            let mut bytes = Vec::new();
            encode(&mut bytes);
            self.parked_bytes += bytes.len();
            pending.reply = Some(bytes);
            return taken;
        }
        encode(&mut self.out);
        self.pending.pop_front();
        self.front.0 += 1;
        while let Some(Pending { reply: Some(bytes), .. }) = self.pending.front() {
            self.out.extend_from_slice(bytes);
            self.parked_bytes -= bytes.len();
            self.pending.pop_front();
            self.front.0 += 1;
        }
        self.closing |= self.closes_when_idle && self.pending.is_empty();
        taken
    }

    /// When the first of the held requests came in. Those behind it came later, whatever became of
    /// those before it.
    pub fn held_since_us(&self) -> Option<u64> {
        self.held.front().map(|held| self.arrived_us(held.sequence))
    }

    /// Whether a request waits for its reply.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Replies that are ready and have not left.
    pub fn reply_bytes(&self) -> usize {
        self.out.len() + self.parked_bytes
    }

    /// May it be given more replies? A client that asks and does not read must not fill the memory
    /// with what it asked for (PITFALLS 42).
    pub fn takes_replies(&self) -> bool {
        self.reply_bytes() < OUT_BYTES_PAUSE
    }

    /// May a batch take one more of its requests that answers with a value? A long one is alone.
    pub fn has_room_for_value(&self, is_long: bool) -> bool {
        let pending_max = if is_long { 0 } else { VALUES_PENDING_MAX - 1 };
        self.values_pending <= pending_max && self.takes_replies()
    }

    /// May more be read from its socket?
    pub fn has_room(&self) -> bool {
        self.pending.len() < PENDING_MAX
            && self.request_bytes < REQUEST_BYTES_MAX
            && self.takes_replies()
            && !self.closing
            && !self.closes_when_idle
    }
}

/// All connections.
#[derive(Debug, Default)]
pub struct Clients {
    sessions: HashMap<SessionId, Session>,
    next_id: u64,
    /// Sessions with new bytes in `out`.
    dirty: Vec<SessionId>,
    /// Sessions with held requests, in no particular order, each once.
    holding: Vec<SessionId>,
    finished: Vec<Finished>,
    budget: Budget,
    /// The clock of the current turn.
    now_us: u64,
}

impl Clients {
    pub fn open(&mut self, make: impl FnOnce(u64) -> ConnectionState) -> SessionId {
        self.next_id += 1;
        let id = SessionId(self.next_id);
        self.sessions.insert(id, Session::new(make(id.0)));
        self.recount(id);
        id
    }

    /// Forgets a connection. What it has proposed goes on; the replies go nowhere.
    pub fn close(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.uncount(&session);
        }
    }

    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// The time that answers are measured by; set at the beginning of each turn.
    pub fn set_now(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// The place of a request of so many bytes.
    pub fn take_sequence(
        &mut self,
        id: SessionId,
        op: Op,
        now_us: u64,
        request_bytes: usize,
    ) -> Option<Sequence> {
        let session = self.sessions.get_mut(&id)?;
        let sequence = session.take_sequence(op, now_us, request_bytes);
        self.recount(id);
        Some(sequence)
    }

    pub fn complete(&mut self, id: SessionId, sequence: Sequence, reply: &Reply) {
        // The client may have gone away meanwhile.
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let protocol = session.connection.protocol;
        let (op, arrived_us) = session.complete(sequence, |out| reply.encode(protocol, out));
        let took_us = self.now_us.saturating_sub(arrived_us);
        self.finished.push(Finished { op, code: code_of(reply), took_us });
        self.touch(id);
    }

    /// Answers with bytes that are no reply of a command, and closes after them.
    pub fn refuse_protocol(&mut self, id: SessionId, bytes: &[u8]) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let sequence = session.take_sequence(Op::Invalid, self.now_us, 0);
        session.closes_when_idle = true;
        session.complete(sequence, |out| out.extend_from_slice(bytes));
        self.finished.push(Finished { op: Op::Invalid, code: Code::Error, took_us: 0 });
        self.touch(id);
    }

    /// Closes the connection once it has all its replies.
    pub fn close_after_replies(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.closes_when_idle = true;
            session.closing |= session.pending.is_empty();
        }
        self.touch(id);
    }

    /// What was answered since the last call.
    pub fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    /// Notes that `id` has something to write.
    pub fn touch(&mut self, id: SessionId) {
        self.recount(id);
        if let Some(session) = self.sessions.get_mut(&id)
            && !session.dirty
        {
            session.dirty = true;
            self.dirty.push(id);
        }
    }

    /// The sessions with something to write.
    pub fn take_dirty(&mut self) -> Vec<SessionId> {
        let dirty = std::mem::take(&mut self.dirty);
        for id in &dirty {
            if let Some(session) = self.sessions.get_mut(id) {
                session.dirty = false;
            }
        }
        dirty
    }

    /// Holds a request back, behind those held before.
    pub fn hold(&mut self, id: SessionId, held: Held) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.held.is_empty() {
            self.holding.push(id);
        }
        session.held.push_back(held);
    }

    /// Holds requests back that were taken before everything that is held now.
    pub fn hold_first(&mut self, id: SessionId, requests: Vec<Held>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if requests.is_empty() {
            return;
        }
        if session.held.is_empty() {
            self.holding.push(id);
        }
        for held in requests.into_iter().rev() {
            session.held.push_front(held);
        }
    }

    pub fn take_first_held(&mut self, id: SessionId) -> Option<Held> {
        let session = self.sessions.get_mut(&id)?;
        session.held.pop_front()
    }

    /// Puts back what [`Clients::take_first_held`] took.
    pub fn put_first_held(&mut self, id: SessionId, held: Held) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.held.push_front(held);
        }
    }

    /// The sessions that hold requests, to be tried again; those that still hold some afterwards are
    /// given back with [`Clients::still_holding`].
    pub fn take_holding(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.holding)
    }

    pub fn still_holding(&mut self, id: SessionId) {
        self.holding.push(id);
    }

    pub fn has_holding(&self) -> bool {
        !self.holding.is_empty()
    }
}

/// How an answer begins, as the metrics have it.
fn code_of(reply: &Reply) -> Code {
    match reply.error_code() {
        None => Code::Ok,
        Some("MOVED") => Code::Moved,
        Some("CLUSTERDOWN") => Code::ClusterDown,
        Some("TRYAGAIN") => Code::TryAgain,
        Some("OOM") => Code::Oom,
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Code::NoAuth,
        Some("WRONGTYPE") => Code::WrongType,
        Some(_) => Code::Error,
    }
}
