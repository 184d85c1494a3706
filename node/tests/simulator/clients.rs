//! Clients: RESP over connections that may close, redirections followed, and a record of everything
//! that was asked and answered. A command whose fate is not known is never sent again.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use paxos::NodeId;
use proof::history::{Action, Answer, Operation, Outcome};
use proof::resp::{self, Reply};

use super::chance::Chance;
use super::coverage::{Coverage, Rare};
use super::machine::Connection;
use super::plan::Plan;

/// How fast log time may run at most, against true time: a quarter faster to make a gap up, on a
/// clock that is 9 % fast. A little is left for rounding.
const LOG_SPEED_MAX_PERCENT: u64 = 140;

/// A key with so many writes of unknown fate is only read from then on.
const UNKNOWN_MAX: usize = 8;

pub struct Client {
    pub number: u32,
    pub node: NodeId,
    pub connection: Option<Connection>,
    unread: BytesMut,
    asked: VecDeque<Asked>,
    /// Grows with every reply, so that a timeout knows whether it is overdue.
    pub replies: u64,
}

/// A request under way.
struct Asked {
    /// Its place in the history, or the key with a deadline that it is about.
    what: What,
    argv: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum What {
    Recorded(usize),
    Store { key: String, ttl_ms: u64, invoked_us: u64 },
    Look { key: String, invoked_us: u64 },
}

/// A key with a deadline that was certainly set.
struct Deadline {
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
    deadlines: BTreeMap<String, Deadline>,
    /// Writes of unknown fate of each key.
    unknown: BTreeMap<Bytes, usize>,
    values: u64,
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
    pub fn new(count: u32) -> Clients {
        let client = |number| Client {
            number,
            node: NodeId(1),
            connection: None,
            unread: BytesMut::new(),
            asked: VecDeque::new(),
            replies: 0,
        };
        Clients { all: (0..count).map(client).collect(), ..Clients::default() }
    }

    /// The bytes of the next few requests of a client.
    pub fn ask(&mut self, index: usize, time_us: u64, plan: &Plan, chance: &mut Chance) -> Bytes {
        let mut out = BytesMut::new();
        for _ in 0..chance.between(1, plan.pipeline) {
            let asked = self.draw(index, time_us, plan, chance);
            encode(&mut out, &asked.argv);
            self.all[index].asked.push_back(asked);
        }
        out.freeze()
    }

    /// A read of one key of the history, for the end of a run.
    pub fn ask_for(&mut self, index: usize, time_us: u64, key: &Bytes) -> Bytes {
        let mut out = BytesMut::new();
        let asked = self.record(index, time_us, key.clone(), Action::Get);
        encode(&mut out, &asked.argv);
        self.all[index].asked.push_back(asked);
        out.freeze()
    }

    fn draw(&mut self, index: usize, time_us: u64, plan: &Plan, chance: &mut Chance) -> Asked {
        let number = chance.below(plan.keys);
        if chance.one_in(8) {
            return self.with_deadline(index, time_us, chance);
        }
        let (key, action) = match chance.below(10) {
            0..=2 => (format!("counter{number}"), Action::Incr),
            3 => (format!("counter{number}"), Action::Get),
            4..=5 => (format!("register{number}"), Action::Set(self.value(plan))),
            6..=7 => (format!("register{number}"), Action::Get),
            8 => (format!("register{number}"), Action::Del),
            _ => {
                let token = if chance.one_in(2) { "+" } else { "-" };
                (format!("text{number}"), Action::Append(Bytes::from_static(token.as_bytes())))
            }
        };
        let key = Bytes::from(key);
        // Each write of unknown fate doubles what the judge has to think of.
        let unknown = self.unknown.get(&key).copied().unwrap_or(0);
        let action = if unknown >= UNKNOWN_MAX { Action::Get } else { action };
        self.record(index, time_us, key, action)
    }

    fn value(&mut self, plan: &Plan) -> Bytes {
        self.values += 1;
        let padding = ".".repeat(plan.value_bytes as usize);
        format!("v{}{padding}", self.values).into()
    }

    fn record(&mut self, index: usize, time_us: u64, key: Bytes, action: Action) -> Asked {
        let argv = argv(&key, &action);
        self.history.push(Operation {
            client: self.all[index].number,
            key,
            action,
            invoked_ns: time_us * 1_000,
            returned_ns: 0,
            outcome: Outcome::Unknown,
        });
        Asked { what: What::Recorded(self.history.len() - 1), argv }
    }

    /// Sets a new key for a while, or looks at one that was set.
    fn with_deadline(&mut self, index: usize, time_us: u64, chance: &mut Chance) -> Asked {
        if chance.one_in(2) && !self.deadlines.is_empty() {
            let keys: Vec<&String> = self.deadlines.keys().collect();
            let key = (*chance.pick(&keys)).clone();
            let argv = vec![b"GET".to_vec(), key.clone().into_bytes()];
            return Asked { what: What::Look { key, invoked_us: time_us }, argv };
        }
        let key = format!("lock{}-{time_us}-{}", self.all[index].number, self.values);
        self.values += 1;
        let ttl_ms = chance.between(20, 3_000);
        let words = ["SET", &key, "held", "PX", &ttl_ms.to_string()];
        let argv = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        Asked { what: What::Store { key, ttl_ms, invoked_us: time_us }, argv }
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
            if let Some(to) = self.answered(time_us, &asked, &reply) {
                turn = Some(to);
            }
        }
        match (self.all[index].asked.is_empty(), turn) {
            (false, _) => Next::Wait,
            (true, None) => Next::Think,
            (true, Some(to)) => Next::TurnTo(to),
        }
    }

    /// Whether it has to turn to another node, if the reply says so.
    fn answered(&mut self, time_us: u64, asked: &Asked, reply: &Reply) -> Option<Option<NodeId>> {
        if let Some(word) = reply.error_word() {
            let rare = match word {
                "MOVED" => Rare::Moved,
                "CLUSTERDOWN" => Rare::NoLeader,
                "TRYAGAIN" => Rare::TryAgain,
                "OOM" => Rare::FullRefused,
                _ => {
                    self.violation = Some(format!("{:?} was answered {reply:?}", asked.what));
                    return None;
                }
            };
            self.coverage.count(rare);
            if let What::Recorded(place) = asked.what {
                self.history[place].outcome = Outcome::Failed;
            }
            let to = reply.moved_to().and_then(|address| address.strip_prefix('n'));
            return Some(to.and_then(|id| id.split(':').next()?.parse().ok()).map(NodeId));
        }
        match &asked.what {
            What::Recorded(place) => {
                let operation = &mut self.history[*place];
                operation.returned_ns = time_us * 1_000;
                match answer(&operation.action, reply) {
                    Some(answer) => operation.outcome = Outcome::Ok(answer),
                    None => {
                        let action = &operation.action;
                        self.violation = Some(format!("{action:?} was answered {reply:?}"));
                    }
                }
            }
            What::Store { key, ttl_ms, invoked_us } => {
                let deadline = Deadline { ttl_ms: *ttl_ms, set_us: (*invoked_us, time_us) };
                self.deadlines.insert(key.clone(), deadline);
            }
            What::Look { key, invoked_us } => self.looked(time_us, key, *invoked_us, reply),
        }
        None
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

    /// Its connection closed, or it gave up. What it asked has an unknown fate; answers the writes
    /// among it, for clients that are wrong on purpose.
    pub fn lose_connection(&mut self, index: usize) -> Vec<Vec<Vec<u8>>> {
        let client = &mut self.all[index];
        client.connection = None;
        client.unread.clear();
        if !client.asked.is_empty() {
            self.coverage.count(Rare::ClosedUnanswered);
        }
        let mut unknown = Vec::new();
        for asked in client.asked.drain(..) {
            let What::Recorded(place) = asked.what else { continue };
            // A read without an answer says nothing.
            if self.history[place].action == Action::Get {
                self.history[place].outcome = Outcome::Failed;
            } else {
                *self.unknown.entry(self.history[place].key.clone()).or_default() += 1;
                unknown.push(asked.argv);
            }
        }
        unknown
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

pub fn encode(out: &mut BytesMut, argv: &[Vec<u8>]) {
    let words: Vec<&[u8]> = argv.iter().map(|word| &word[..]).collect();
    resp::encode(out, &words);
}

fn argv(key: &Bytes, action: &Action) -> Vec<Vec<u8>> {
    let words: Vec<&[u8]> = match action {
        Action::Set(value) => vec![b"SET", key, value],
        Action::Get => vec![b"GET", key],
        Action::Del => vec![b"DEL", key],
        Action::Incr => vec![b"INCR", key],
        Action::Append(token) => vec![b"APPEND", key, token],
        Action::SetIfEq(expected, value) => vec![b"SET", key, value, b"IFEQ", expected],
        Action::All(_) => panic!("no transaction is asked for here"),
    };
    words.into_iter().map(<[u8]>::to_vec).collect()
}

fn answer(action: &Action, reply: &Reply) -> Option<Answer> {
    match (action, reply) {
        (Action::Set(_), Reply::Simple(text)) if text == "OK" => Some(Answer::Stored),
        (Action::Get, Reply::Bulk(value)) => Some(Answer::Value(Some(value.clone()))),
        (Action::Get, Reply::Nil) => Some(Answer::Value(None)),
        (Action::Del | Action::Incr | Action::Append(_), Reply::Integer(number)) => {
            Some(Answer::Number(*number))
        }
        _ => None,
    }
}
