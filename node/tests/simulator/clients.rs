//! Clients: RESP over connections that may close, redirections followed, and a record of everything
//! that was asked and answered. A command whose fate is not known is never sent again, unless it went
//! through `ONCE`: then it is sent until it has its answer. What they ask is drawn in `asking.rs`.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use config::FollowerReads;
use paxos::NodeId;
use proof::commands;
use proof::history::{Action, Answer, Operation, Outcome};
use proof::resp::{self, Reply};

use super::broken::Broken;
use super::coverage::{Coverage, Rare};
use super::machine::Connection;

/// How fast log time may run at most, against true time: a quarter faster to make a gap up, on a
/// clock that is 9 % fast. A little is left for rounding.
const LOG_SPEED_MAX_PERCENT: u64 = 140;

/// An object with so many writes of unknown fate is only read from then on.
const UNKNOWN_MAX: usize = 8;

pub struct Client {
    pub number: u32,
    pub node: NodeId,
    pub connection: Option<Connection>,
    unread: BytesMut,
    pub(super) asked: VecDeque<Asked>,
    /// Grows with every reply, so that a timeout knows whether it is overdue.
    pub replies: u64,
    /// The key that it watches, and what that held when it looked.
    pub(super) watched: Option<(Bytes, Option<Bytes>)>,
    /// This connection has sent `WATCH`, and no `EXEC` since.
    pub(super) watching: bool,
    pub(super) once: Once,
    /// It reads at any node, as its connections say with `READONLY`, and takes what it reads there for
    /// this.
    pub reads_anywhere: FollowerReads,
    /// What this connection has read of counters that need not be new.
    seen: BTreeMap<Bytes, u64>,
    /// A write of the pipeline that is under way was refused.
    was_refused: bool,
}

/// A client's session of `ONCE`.
#[derive(Default)]
pub(super) struct Once {
    pub(super) session: Option<i64>,
    /// The number of the last command.
    pub(super) last: u64,
    /// That command, until it has its answer: its place in the history, and its words.
    pub(super) open: Option<(usize, Vec<Vec<u8>>)>,
}

/// A request under way.
pub(super) struct Asked {
    pub(super) what: What,
    pub(super) argv: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// Its place in the history.
    Recorded(usize),
    Store {
        key: String,
        ttl_ms: u64,
        invoked_us: u64,
    },
    Look {
        key: String,
        invoked_us: u64,
    },
    /// A read that need not be new.
    LookBehind {
        key: Bytes,
    },
    OpenSession,
    /// Its place in the history; sent again until it is answered.
    Once(usize),
    Watch,
    /// The read of the key that is watched: its place in the history.
    LookWatched(usize),
    /// `MULTI`, and what follows it.
    Queue(&'static str),
    /// Its place in the history; whether it may come to nothing; what the watched key held.
    Exec {
        place: usize,
        may_abort: bool,
        guard: Option<Option<Bytes>>,
    },
}

/// A key with a deadline that was certainly set.
pub(super) struct Deadline {
    ttl_ms: u64,
    /// Set after this, and before that.
    set_us: (u64, u64),
}

/// All of them, and what they saw.
#[derive(Default)]
pub struct Clients {
    pub all: Vec<Client>,
    pub history: Vec<Operation>,
    pub coverage: Coverage,
    pub violation: Option<String>,
    pub broken: Option<Broken>,
    pub(super) deadlines: BTreeMap<String, Deadline>,
    /// Writes of unknown fate on each object of the history.
    unknown: BTreeMap<String, usize>,
    pub(super) values: u64,
}

/// What a client does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It waits for more replies.
    Wait,
    /// It thinks, and then asks again.
    Think,
    /// It turns to another node.
    TurnTo(Option<NodeId>),
}

impl Clients {
    /// Every second of them reads at any node.
    pub fn new(count: u32, follower_reads: FollowerReads, broken: Option<Broken>) -> Clients {
        let client = |number| Client {
            number,
            node: NodeId(1),
            connection: None,
            unread: BytesMut::new(),
            asked: VecDeque::new(),
            replies: 0,
            watched: None,
            watching: false,
            once: Once::default(),
            reads_anywhere: if number % 2 == 1 { follower_reads } else { FollowerReads::Moved },
            seen: BTreeMap::new(),
            was_refused: false,
        };
        Clients { broken, all: (0..count).map(client).collect(), ..Clients::default() }
    }

    // ---- answers ------------------------------------------------------------------------------

    /// Bytes came for a client.
    pub fn receive(&mut self, index: usize, time_us: u64, bytes: &[u8]) -> Next {
        self.all[index].unread.extend_from_slice(bytes);
        let mut turn = None;
        loop {
            let client = &mut self.all[index];
            let reply = match resp::take(&mut client.unread) {
                Ok(Some(reply)) => reply,
                Ok(None) => break,
                Err(error) => {
                    self.violation = Some(format!("client {index} was answered {error}"));
                    return Next::Wait;
                }
            };
            client.replies += 1;
            let Some(asked) = client.asked.pop_front() else {
                self.violation = Some(format!("client {index} was answered without having asked"));
                return Next::Wait;
            };
            self.check_order(index, &asked.what, &reply);
            if let Some(to) = self.answered(index, time_us, &asked, &reply) {
                turn = Some(to.or(turn.flatten()));
            }
        }
        match (self.all[index].asked.is_empty(), turn) {
            (false, _) => Next::Wait,
            (true, None) => Next::Think,
            (true, Some(to)) => Next::TurnTo(to),
        }
    }

    /// 110: what was sent together with a write that was refused, and behind it, is not served and not
    /// done. A full disk's refusal is the command's own; a follower may serve what it may serve.
    fn check_order(&mut self, index: usize, what: &What, reply: &Reply) {
        let action = match what {
            What::Recorded(place) | What::LookWatched(place) => &self.history[*place].action,
            What::Look { .. } | What::LookBehind { .. } => &Action::Get,
            What::Store { .. } | What::Once(_) | What::OpenSession | What::Exec { .. } => {
                &Action::Incr
            }
            What::Watch | What::Queue(_) => return,
        };
        let is_read = *action == Action::Get;
        let client = &mut self.all[index];
        match reply.error_word() {
            Some("MOVED" | "TRYAGAIN" | "CLUSTERDOWN") => client.was_refused |= !is_read,
            Some(_) => {}
            None if is_read && client.reads_anywhere != FollowerReads::Moved => {}
            None if client.was_refused => {
                self.violation =
                    Some(format!("{what:?} was answered {reply:?} behind a refused write"));
            }
            None => {}
        }
        client.was_refused &= !client.asked.is_empty();
    }

    /// Whether it has to turn to another node, if the reply says so.
    fn answered(
        &mut self,
        index: usize,
        time_us: u64,
        asked: &Asked,
        reply: &Reply,
    ) -> Option<Option<NodeId>> {
        if let Some(word) = reply.error_word() {
            let rare = match (word, &asked.what) {
                ("MOVED", _) => Rare::Moved,
                ("CLUSTERDOWN", _) => Rare::NoLeader,
                ("TRYAGAIN", _) => Rare::TryAgain,
                ("OOM", _) => Rare::FullRefused,
                ("EXECABORT", What::Exec { .. }) => Rare::TransactionRefused,
                _ => {
                    self.violation = Some(format!("{:?} was answered {reply:?}", asked.what));
                    return None;
                }
            };
            self.coverage.count(rare);
            let client = &mut self.all[index];
            match asked.what {
                What::Recorded(place) => self.history[place].outcome = Outcome::Failed,
                What::LookWatched(place) => {
                    self.history[place].outcome = Outcome::Failed;
                    client.watched = None;
                }
                What::Exec { place, .. } => self.history[place].outcome = Outcome::Failed,
                _ => {}
            }
            let to = reply.moved_to().and_then(|address| address.strip_prefix('n'));
            return Some(to.and_then(|id| id.split(':').next()?.parse().ok()).map(NodeId));
        }
        let client = &mut self.all[index];
        match &asked.what {
            What::Recorded(place) => self.done(time_us, *place, reply),
            What::Store { key, ttl_ms, invoked_us } => {
                let deadline = Deadline { ttl_ms: *ttl_ms, set_us: (*invoked_us, time_us) };
                self.deadlines.insert(key.clone(), deadline);
            }
            What::Look { key, invoked_us } => self.looked(time_us, key, *invoked_us, reply),
            What::LookBehind { key } => self.looked_behind(index, key, reply),
            What::OpenSession => match reply {
                Reply::Integer(session) => {
                    client.once = Once { session: Some(*session), ..Once::default() };
                }
                _ => self.violation = Some(format!("ONCE OPEN was answered {reply:?}")),
            },
            What::Once(place) => {
                client.once.open = None;
                self.coverage.count(Rare::OnceDone);
                self.done(time_us, *place, reply);
            }
            What::Watch => {}
            What::LookWatched(place) => {
                self.done(time_us, *place, reply);
                let Operation { key, outcome, .. } = &self.history[*place];
                if let Outcome::Ok(Answer::Value(value)) = outcome {
                    self.all[index].watched = Some((key.clone(), value.clone()));
                }
            }
            What::Queue(expected) => {
                if *reply != Reply::Simple((*expected).to_owned()) {
                    self.violation = Some(format!("{expected} was due, {reply:?} came"));
                }
            }
            What::Exec { place, may_abort, guard } => match reply {
                Reply::Nil if *may_abort => {
                    self.coverage.count(Rare::TransactionAborted);
                    self.history[*place].outcome = Outcome::Failed;
                }
                _ => {
                    self.coverage.count(Rare::TransactionDone);
                    self.done(time_us, *place, reply);
                    let outcome = &mut self.history[*place].outcome;
                    if let (Outcome::Ok(Answer::All(answers)), Some(held)) = (outcome, guard) {
                        answers.insert(0, Answer::Value(held.clone()));
                    }
                }
            },
        }
        None
    }

    fn done(&mut self, time_us: u64, place: usize, reply: &Reply) {
        let operation = &mut self.history[place];
        operation.returned_ns = time_us * 1_000;
        let answer = match (&operation.action, reply) {
            // What a watched key held is known, and not among the replies.
            (Action::All(actions), Reply::Array(replies)) if actions.len() > replies.len() => {
                let asked = actions[actions.len() - replies.len()..].to_vec();
                commands::answer(&Action::All(asked), reply)
            }
            (action, reply) => commands::answer(action, reply),
        };
        match answer {
            Some(answer) => operation.outcome = Outcome::Ok(answer),
            None => {
                let action = &operation.action;
                self.violation = Some(format!("{action:?} was answered {reply:?}"));
            }
        }
    }

    /// A key never goes before its time.
    fn looked(&mut self, time_us: u64, key: &str, invoked_us: u64, reply: &Reply) {
        let deadline = &self.deadlines[key];
        let (set_from_us, set_until_us) = deadline.set_us;
        let held_us = time_us - set_from_us;
        if *reply != Reply::Nil {
            return self.coverage.count(Rare::NotYetExpired);
        }
        self.coverage.count(Rare::Expired);
        if invoked_us >= set_until_us
            && held_us * LOG_SPEED_MAX_PERCENT / 100 < deadline.ttl_ms * 1_000
        {
            let ttl_ms = deadline.ttl_ms;
            self.violation =
                Some(format!("{key} was to live for {ttl_ms} ms and was gone within {held_us} µs"));
        }
    }

    /// It was written once, and on one connection nothing goes back.
    fn looked_behind(&mut self, index: usize, key: &Bytes, reply: &Reply) {
        let Some(Answer::Value(value)) = commands::answer(&Action::Get, reply) else {
            self.violation = Some(format!("GET {key:?} was answered {reply:?}"));
            return;
        };
        let asked = self.history.iter().flat_map(|operation| actions_on(operation, key));
        let fail = |text: &str| Some(format!("{key:?} was read as {value:?}: {text}"));
        if key.starts_with(b"register") {
            let is_set =
                |action: &Action| matches!(action, Action::Set(v) if Some(v) == value.as_ref());
            let mut asked = asked;
            if value.is_some() && !asked.any(is_set) {
                self.violation = fail("nobody has written that");
            }
            return;
        }
        let count: u64 = match &value {
            None => 0,
            Some(text) => String::from_utf8_lossy(text).parse().expect("a counter is a number"),
        };
        let asked = asked.filter(|action| **action == Action::Incr).count() as u64;
        let seen = self.all[index].seen.entry(key.clone()).or_default();
        if count < *seen || count > asked {
            self.violation = fail(&format!("{seen} was read before, {asked} have been asked for"));
        }
        *seen = count;
    }

    /// Its connection closed, or it gave up. What it asked has an unknown fate; answers the writes
    /// among it, for clients that are wrong on purpose.
    pub fn lose_connection(&mut self, index: usize) -> Vec<Vec<Vec<u8>>> {
        self.forget_connection(index);
        let client = &mut self.all[index];
        if !client.asked.is_empty() {
            self.coverage.count(Rare::ClosedUnanswered);
        }
        let mut unknown = Vec::new();
        for asked in std::mem::take(&mut client.asked) {
            let (What::Recorded(place) | What::LookWatched(place) | What::Exec { place, .. }) =
                asked.what
            else {
                continue;
            };
            // A read without an answer says nothing.
            if self.history[place].action == Action::Get {
                self.history[place].outcome = Outcome::Failed;
                continue;
            }
            let of = object(self.history[place].keys().next().expect("it has a key"));
            *self.unknown.entry(of).or_default() += 1;
            if let What::Recorded(_) = asked.what {
                unknown.push(asked.argv);
            }
        }
        unknown
    }

    /// Whatever hangs on its connection is gone.
    pub fn forget_connection(&mut self, index: usize) {
        let client = &mut self.all[index];
        client.connection = None;
        client.unread.clear();
        client.watched = None;
        client.watching = false;
        client.was_refused = false;
        client.seen.clear();
    }

    /// Each write of unknown fate doubles what the judge has to think of.
    pub(super) fn may_write(&self, key: &Bytes) -> bool {
        self.unknown.get(&object(key)).is_none_or(|unknown| *unknown < UNKNOWN_MAX)
    }

    /// It has a command under way that it will send until it is answered.
    pub fn insists(&self, index: usize) -> bool {
        self.all[index].once.open.is_some()
    }

    pub fn waits(&self, index: usize) -> bool {
        !self.all[index].asked.is_empty()
    }

    /// What is asked first, if anything is.
    pub fn first_asked(&self, index: usize) -> Option<&[Vec<u8>]> {
        self.all[index].asked.front().map(|asked| &asked.argv[..])
    }

    pub fn acknowledged_count(&self) -> usize {
        self.history.iter().filter(|op| matches!(op.outcome, Outcome::Ok(_))).count()
    }
}

/// What an operation does to one key.
fn actions_on<'a>(
    operation: &'a Operation,
    key: &'a Bytes,
) -> impl Iterator<Item = &'a Action> + 'a {
    let (single, several) = match &operation.action {
        Action::All(actions) => (None, &actions[..]),
        action => (Some(action).filter(|_| operation.key == *key), &[][..]),
    };
    let several = several.iter().filter(move |(other, _)| other == key);
    single.into_iter().chain(several.map(|(_, action)| action))
}

/// The keys of one number are tied together by transactions, but for the texts.
fn object(key: &Bytes) -> String {
    let key = String::from_utf8_lossy(key);
    match key.starts_with("text") {
        true => key.into_owned(),
        false => key.trim_start_matches(char::is_alphabetic).to_owned(),
    }
}
