//! Sessions of `ONCE`: which commands were carried out, and what the last of them answered.
//!
//! A session numbers its commands 1, 2, 3, …; a number is carried out when it is the next, and only
//! then. So a client that does not know whether its command arrived sends it again, to whoever
//! leads, and gets the first answer. All of it is in the log, the snapshots and the state hash.
//!
//! Everything is bounded: sessions in number, replies in number and bytes. A session that was not
//! used for an hour of log time is forgotten; where there is no room, one that was not used for a
//! minute has to go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::Store;
use crate::resp::Reply;

const SESSIONS_MAX: usize = 4_096;
/// Replies that a session keeps.
const REPLIES_MAX: usize = 64;
/// What these may be long together; the oldest go first. A longer one is not kept at all.
const REPLY_BYTES_MAX: usize = 16 << 10;
/// A session expires when it was not used for so long.
const IDLE_MS_MAX: u64 = 3_600_000;
/// One that was not used for so long may have to make room for another one.
const IDLE_MS_EVICTED: u64 = 60_000;
/// Sessions that one entry of the log forgets at most because their time has come.
const EXPIRED_PER_ENTRY: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    number: u64,
    /// Digest of the command.
    command: u128,
    reply: Box<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    id: u64,
    used_ms: u64,
    /// The last number that was carried out.
    last: u64,
    replies: VecDeque<Kept>,
}

#[derive(Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<u64, Arc<Session>>,
    /// (last use, id)
    by_use: BTreeSet<(u64, u64)>,
    /// The highest id ever given.
    last_id: u64,
    /// What all of this adds to the state hash.
    sum: u128,
}

/// What becomes of a command.
enum Fate {
    New,
    Known(Reply),
}

impl Store {
    pub(super) fn open_session(&mut self) -> Reply {
        let slot = self.keyspace.touches.slot;
        self.sessions.open(slot, self.time_ms)
    }

    /// What the log would answer to a command that is settled: one that was carried out, or of a
    /// session that is not known. `None` for one that may yet be carried out. What is settled stays
    /// so, whoever leads: nobody has to be asked.
    pub fn settled_once(&self, session: u64, number: u64, argv: &[&[u8]]) -> Option<Reply> {
        let last = self.sessions.by_id.get(&session).map_or(u64::MAX, |session| session.last);
        match self.sessions.judge(session, number, digest(argv), self.time_ms) {
            Fate::Known(reply) if number <= last => Some(reply),
            Fate::Known(_) | Fate::New => None,
        }
    }

    /// Carries out command `number` of a session if it is the next, or answers as the first time.
    pub(super) fn once(&mut self, session: u64, number: u64, argv: &[&[u8]]) -> Reply {
        let command = digest(argv);
        match self.sessions.fate(session, number, command, self.time_ms) {
            Fate::Known(reply) => reply,
            Fate::New => {
                let reply = self.carry_out(argv, |_, _| None);
                self.sessions.keep(session, number, command, &reply);
                reply
            }
        }
    }
}

impl Sessions {
    pub(super) fn sum(&self) -> u128 {
        self.sum
    }

    /// The sum, added up anew.
    pub(super) fn recomputed_sum(&self) -> u128 {
        let sessions = self.by_id.values();
        sessions.fold(weight_of_last_id(self.last_id), |sum, session| {
            sum.wrapping_add(session.weight())
        })
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Forgets some of the sessions that were not used for too long.
    pub(super) fn expire(&mut self, time_ms: u64) {
        for _ in 0..EXPIRED_PER_ENTRY {
            let Some(&(used_ms, id)) = self.by_use.first() else { return };
            if used_ms + IDLE_MS_MAX > time_ms {
                return;
            }
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u64) {
        if let Some(session) = self.by_id.remove(&id) {
            self.by_use.remove(&(session.used_ms, id));
            self.sum = self.sum.wrapping_sub(session.weight());
        }
    }

    /// The id is the slot, or the next free number where the slot opens several.
    fn open(&mut self, slot: u64, time_ms: u64) -> Reply {
        if self.by_id.len() >= SESSIONS_MAX {
            match self.by_use.first() {
                Some(&(used_ms, id)) if used_ms + IDLE_MS_EVICTED <= time_ms => self.forget(id),
                _ => {
                    return Reply::error(format!(
                        "ONCEFULL all {SESSIONS_MAX} sessions were used within the last minute, \
                         no session was opened: share one, or try again"
                    ));
                }
            }
        }
        let id = slot.max(self.last_id + 1);
        self.set_last_id(id);
        self.insert(Session { id, used_ms: time_ms, last: 0, replies: VecDeque::new() });
        Reply::Integer(id as i64)
    }

    fn set_last_id(&mut self, id: u64) {
        let change = weight_of_last_id(id).wrapping_sub(weight_of_last_id(self.last_id));
        self.sum = self.sum.wrapping_add(change);
        self.last_id = id;
    }

    fn insert(&mut self, session: Session) {
        self.sum = self.sum.wrapping_add(session.weight());
        self.by_use.insert((session.used_ms, session.id));
        self.by_id.insert(session.id, Arc::new(session));
    }

    /// Notes the use of a session, and says whether the command is to be carried out.
    fn fate(&mut self, id: u64, number: u64, command: u128, time_ms: u64) -> Fate {
        let fate = self.judge(id, number, command, time_ms);
        // An unknown session has no use to be noted.
        self.change(id, |session| {
            if session.used_ms + IDLE_MS_MAX > time_ms {
                session.used_ms = time_ms;
            }
        });
        fate
    }

    fn judge(&self, id: u64, number: u64, command: u128, time_ms: u64) -> Fate {
        let expired = |session: &Arc<Session>| session.used_ms + IDLE_MS_MAX <= time_ms;
        let Some(session) = self.by_id.get(&id).filter(|session| !expired(session)) else {
            return Fate::Known(Reply::error(format!(
                "ONCEEXPIRED session {id} is not known, or not any more: whether this command was \
                 executed before is not known"
            )));
        };
        let last = session.last;
        let kept = session.replies.iter().find(|kept| kept.number == number);
        match kept {
            Some(kept) if kept.command == command => Fate::Known(load_reply(&kept.reply)),
            Some(_) => Fate::Known(Reply::error(format!(
                "ONCEOTHER number {number} of session {id} was another command, this one was not executed"
            ))),
            None if number == last + 1 => Fate::New,
            None if number <= last => Fate::Known(Reply::error(format!(
                "ONCEDONE number {number} of session {id} was executed, its reply is forgotten"
            ))),
            None => Fate::Known(Reply::error(format!(
                "ONCEGAP number {number} of session {id} was not executed, the next one is {}",
                last + 1
            ))),
        }
    }

    fn keep(&mut self, id: u64, number: u64, command: u128, reply: &Reply) {
        self.change(id, |session| {
            session.last = number;
            if let Some(reply) = save_reply(reply).filter(|reply| reply.len() <= REPLY_BYTES_MAX) {
                session.replies.push_back(Kept { number, command, reply });
            }
            let too_much = |session: &Session| {
                session.replies.len() > REPLIES_MAX || session.bytes() > REPLY_BYTES_MAX
            };
            while too_much(session)
                || session
                    .replies
                    .front()
                    .is_some_and(|kept| kept.number + REPLIES_MAX as u64 <= number)
            {
                session.replies.pop_front();
            }
        });
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut Session)) {
        let Some(shared) = self.by_id.get_mut(&id) else { return };
        let session = Arc::make_mut(shared);
        let (weight, used_ms) = (session.weight(), session.used_ms);
        change(session);
        self.sum = self.sum.wrapping_sub(weight).wrapping_add(session.weight());
        self.by_use.remove(&(used_ms, id));
        self.by_use.insert((session.used_ms, id));
    }

    /// All sessions as they are now; a change later makes a copy.
    pub(super) fn shared(&self) -> Vec<Arc<Session>> {
        self.by_id.values().cloned().collect()
    }

    /// The highest id, for a snapshot.
    pub(super) fn save_last_id(&self) -> [u8; 8] {
        self.last_id.to_le_bytes()
    }

    /// Takes in what [`Sessions::save_last_id`] gave out.
    pub(super) fn load_last_id(&mut self, saved: &[u8]) -> Option<()> {
        self.set_last_id(u64::from_le_bytes(saved.try_into().ok()?));
        Some(())
    }

    /// Takes in what [`Session::save`] gave out.
    pub(super) fn load(&mut self, saved: &[u8]) -> Option<()> {
        let session = Session::load(saved)?;
        let is_new = !self.by_id.contains_key(&session.id) && self.by_id.len() < SESSIONS_MAX;
        is_new.then_some(())?;
        self.insert(session);
        Some(())
    }
}

impl Session {
    fn bytes(&self) -> usize {
        self.replies.iter().map(|kept| kept.reply.len()).sum()
    }

    fn weight(&self) -> u128 {
        xxh3_128(&self.save())
    }

    pub(super) fn save(&self) -> Vec<u8> {
        let mut saved = Vec::with_capacity(32 + self.bytes() + 32 * self.replies.len());
        for number in [self.id, self.used_ms, self.last] {
            saved.extend_from_slice(&number.to_le_bytes());
        }
        for Kept { number, command, reply } in &self.replies {
            saved.extend_from_slice(&number.to_le_bytes());
            saved.extend_from_slice(&command.to_le_bytes());
            saved.extend_from_slice(&(reply.len() as u32).to_le_bytes());
            saved.extend_from_slice(reply);
        }
        saved
    }

    fn load(saved: &[u8]) -> Option<Session> {
        let mut rest = saved;
        let mut session = Session {
            id: take_u64(&mut rest)?,
            used_ms: take_u64(&mut rest)?,
            last: take_u64(&mut rest)?,
            replies: VecDeque::new(),
        };
        while !rest.is_empty() {
            let number = take_u64(&mut rest)?;
            let command = u128::from_le_bytes(take(&mut rest)?);
            let length = u32::from_le_bytes(take(&mut rest)?) as usize;
            let (reply, tail) = rest.split_at_checked(length)?;
            session.replies.push_back(Kept { number, command, reply: reply.into() });
            rest = tail;
        }
        Some(session)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*bytes)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

fn weight_of_last_id(id: u64) -> u128 {
    if id == 0 { 0 } else { xxh3_128(&id.to_le_bytes()) }
}

/// Of all arguments, and of where each ends.
fn digest(argv: &[&[u8]]) -> u128 {
    let mut bytes = Vec::new();
    for argument in argv {
        bytes.extend_from_slice(&(argument.len() as u64).to_le_bytes());
        bytes.extend_from_slice(argument);
    }
    xxh3_128(&bytes)
}

const SIMPLE: u8 = b'+';
const ERROR: u8 = b'-';
const INTEGER: u8 = b':';
const BULK: u8 = b'$';
const NULL: u8 = b'_';

/// The bytes of a reply that a write can give; `None` for any other.
fn save_reply(reply: &Reply) -> Option<Box<[u8]>> {
    let tagged = |tag: u8, bytes: &[u8]| Some([&[tag], bytes].concat().into_boxed_slice());
    match reply {
        Reply::Simple(text) => tagged(SIMPLE, text.as_bytes()),
        Reply::Error(text) => tagged(ERROR, text.as_bytes()),
        Reply::Integer(value) => tagged(INTEGER, &value.to_le_bytes()),
        Reply::Bulk(bytes) => tagged(BULK, bytes),
        Reply::Null => tagged(NULL, &[]),
        _ => None,
    }
}

fn load_reply(saved: &[u8]) -> Reply {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into();
    match saved {
        [SIMPLE, bytes @ ..] => Reply::Simple(text(bytes)),
        [ERROR, bytes @ ..] => Reply::Error(text(bytes)),
        [INTEGER, bytes @ ..] => Reply::Integer(bytes.try_into().map_or(0, i64::from_le_bytes)),
        [BULK, bytes @ ..] => Reply::bulk(bytes),
        _ => Reply::Null,
    }
}

#[cfg(test)]
mod tests;
