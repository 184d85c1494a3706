//! Closed-loop clients: each sends, waits for its replies, writes down what became of every
//! operation, and goes on, until it is told to stop.
//!
//! Keys are of two kinds. *Recorded* keys (shared registers and counters) have every operation that
//! ever touches them in the history, so that linearizability can be decided; when the history is
//! full, clients leave those keys alone and use others. All other keys are covered by the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use crate::client::{Client, Command, Fate, Target};
use crate::commands;
use crate::history::{Action, Answer, History, Operation, Outcome};
use crate::ledger::{self, Ledger, Mark, WriterLedger};
use crate::stats::Stats;

/// After a refusal a client waits, so that it does not spin while there is no leader.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(5);

/// What kind of load.
#[derive(Clone, Debug)]
pub struct Spec {
    pub target: Target,
    pub clients: usize,
    pub mix: Mix,
    /// Commands that a client sends before it waits.
    pub pipeline: usize,
    pub value_bytes: usize,
    /// First part of every key, so that loads do not meet.
    pub prefix: String,
    /// Operations on recorded keys; past them those keys are left alone.
    pub history_max: u64,
    pub seed: u64,
}

impl Spec {
    pub fn new(target: Target, clients: usize) -> Spec {
        Spec {
            target,
            clients,
            mix: Mix::default(),
            pipeline: 1,
            value_bytes: 100,
            prefix: "load".to_owned(),
            history_max: 20_000,
            seed: 1,
        }
    }
}

/// Shares of the operations, relative to their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// SET of unique values to the client's own keys.
    pub set: u32,
    /// INCR of shared counters.
    pub incr: u32,
    /// APPEND of unique tokens to the client's own keys.
    pub append: u32,
    /// GET of the client's own keys.
    pub get: u32,
    /// SET, GET and DEL of shared registers.
    pub register: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Mix { set: 40, incr: 20, append: 5, get: 20, register: 15 }
    }
}

impl Mix {
    fn sum(self) -> u32 {
        self.set + self.incr + self.append + self.get + self.register
    }
}

const RECORDED_REGISTERS: u32 = 8;
const RECORDED_COUNTERS: u32 = 4;

/// A load at work. Dropping it ends its clients at once; [`Load::stop`] lets them finish.
#[derive(Debug)]
pub struct Load {
    stats: Arc<Stats>,
    stopping: Arc<AtomicBool>,
    clients: JoinSet<(usize, WriterLedger, History)>,
    prefix: String,
}

/// All that a load leaves behind.
#[derive(Debug)]
pub struct Finished {
    pub stats: Arc<Stats>,
    pub ledger: Ledger,
    pub history: History,
}

impl Load {
    pub fn start(spec: Spec) -> Load {
        assert!(spec.clients > 0, "a load needs at least one client");
        assert!(spec.pipeline > 0, "a pipeline holds at least one command");
        assert!(spec.pipeline as u64 <= ledger::UNIQUE_KEYS, "a pipeline meets no key twice");
        assert!(spec.mix.sum() > 0, "a mix needs a share that is not zero");
        let stats = Stats::new(spec.clients);
        let stopping = Arc::new(AtomicBool::new(false));
        let history_left = Arc::new(AtomicU64::new(spec.history_max));
        let prefix = spec.prefix.clone();
        let spec = Arc::new(spec);
        let mut clients = JoinSet::new();
        for index in 0..spec.clients {
            let worker = Worker {
                index,
                client: Client::new(spec.target.clone(), index),
                rng: SmallRng::seed_from_u64(spec.seed ^ ((index as u64) << 32)),
                ledger: WriterLedger::default(),
                history: History::default(),
                unique_count: 0,
                token_count: 0,
                history_left: history_left.clone(),
                stats: stats.clone(),
                spec: spec.clone(),
            };
            clients.spawn(worker.run(stopping.clone()));
        }
        Load { stats, stopping, clients, prefix }
    }

    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Lets every client finish what it has sent, and gathers what they wrote down.
    pub async fn stop(self) -> Finished {
        self.stopping.store(true, Ordering::SeqCst);
        let mut finished = self.clients.join_all().await;
        finished.sort_by_key(|(index, ..)| *index);
        let mut history = History::default();
        let mut writers = Vec::new();
        for (_, writer, own_history) in finished {
            writers.push(writer);
            history.merge(own_history);
        }
        Finished { stats: self.stats, ledger: Ledger::new(&self.prefix, writers), history }
    }
}

/// One client of the load.
struct Worker {
    index: usize,
    client: Client,
    rng: SmallRng,
    ledger: WriterLedger,
    history: History,
    unique_count: u64,
    token_count: u64,
    history_left: Arc<AtomicU64>,
    stats: Arc<Stats>,
    spec: Arc<Spec>,
}

/// One operation to be done, and which book it belongs in.
struct Intent {
    key: Bytes,
    action: Action,
    book: Book,
}

enum Book {
    Unique(u64),
    Token(u64),
    Counter { recorded: bool },
    Recorded,
    None,
}

impl Worker {
    async fn run(mut self, stopping: Arc<AtomicBool>) -> (usize, WriterLedger, History) {
        while !stopping.load(Ordering::SeqCst) {
            let intents: Vec<Intent> = (0..self.spec.pipeline).map(|_| self.intend()).collect();
            let commands: Vec<Command> = intents
                .iter()
                .map(|intent| commands::command(&intent.key, &intent.action))
                .collect();
            let invoked_ns = self.stats.now_ns();
            let fates = self.client.run(&commands).await;
            let returned_ns = self.stats.now_ns();
            let refused = fates.iter().any(|fate| matches!(fate, Fate::Refused(_)));
            for (intent, fate) in intents.into_iter().zip(fates) {
                self.write_down(intent, fate, invoked_ns, returned_ns);
            }
            if refused {
                tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
            }
        }
        (self.index, self.ledger, self.history)
    }

    fn intend(&mut self) -> Intent {
        let mix = self.spec.mix;
        let mut draw = self.rng.random_range(0..mix.sum());
        let mut falls_to = |share: u32| {
            let hit = draw < share;
            draw = draw.wrapping_sub(share);
            hit
        };
        let appends_left = self.token_count < ledger::TOKENS_PER_KEY * ledger::APPEND_KEYS;
        if falls_to(mix.incr) {
            self.intend_incr()
        } else if falls_to(mix.append) && appends_left {
            self.intend_append()
        } else if falls_to(mix.get) {
            self.intend_get()
        } else if falls_to(mix.register) && self.take_history() {
            self.intend_register()
        } else {
            self.intend_set()
        }
    }

    fn intend_set(&mut self) -> Intent {
        let number = self.unique_count;
        self.unique_count += 1;
        let key = ledger::unique_key(&self.spec.prefix, self.index, number);
        let value = ledger::unique_value(number, self.spec.value_bytes);
        Intent { key: key.into(), action: Action::Set(value), book: Book::Unique(number) }
    }

    fn intend_incr(&mut self) -> Intent {
        let recorded = self.take_history();
        let counter = self.rng.random_range(0..RECORDED_COUNTERS);
        let kind = if recorded { "c" } else { "d" };
        let key = format!("{}:{kind}:{counter}", self.spec.prefix);
        Intent { key: key.into(), action: Action::Incr, book: Book::Counter { recorded } }
    }

    fn intend_append(&mut self) -> Intent {
        let number = self.token_count;
        self.token_count += 1;
        let key = ledger::append_key(&self.spec.prefix, self.index, number);
        let token = Bytes::from(format!("{number};"));
        Intent { key: key.into(), action: Action::Append(token), book: Book::Token(number) }
    }

    fn intend_get(&mut self) -> Intent {
        let number = self.rng.random_range(0..ledger::UNIQUE_KEYS);
        let key = ledger::unique_key(&self.spec.prefix, self.index, number);
        Intent { key: key.into(), action: Action::Get, book: Book::None }
    }

    fn intend_register(&mut self) -> Intent {
        let register = self.rng.random_range(0..RECORDED_REGISTERS);
        let key = format!("{}:r:{register}", self.spec.prefix);
        let action = match self.rng.random_range(0..20) {
            0 => Action::Del,
            1..=9 => Action::Get,
            _ => {
                let value = format!("{}.{}", self.index, self.rng.random::<u32>());
                Action::Set(value.into())
            }
        };
        Intent { key: key.into(), action, book: Book::Recorded }
    }

    /// Takes one place in the history, while there is one.
    fn take_history(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        self.history_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    fn write_down(&mut self, intent: Intent, fate: Fate, invoked_ns: u64, returned_ns: u64) {
        let write = intent.action != Action::Get;
        let latency = Duration::from_nanos(returned_ns - invoked_ns);
        let (mark, outcome) = match answer_of(&intent.action, fate) {
            Fated::Ok(answer) => {
                self.stats.ok(self.index, write, latency);
                (Mark::Acknowledged, Outcome::Ok(answer))
            }
            Fated::Failed(word) => {
                self.stats.failed(self.index, &word);
                (Mark::Refused, Outcome::Failed)
            }
            Fated::Unknown(word) => {
                self.stats.unknown(self.index, word);
                (Mark::Unknown, Outcome::Unknown)
            }
        };
        let recorded = match intent.book {
            Book::Unique(number) => {
                self.ledger.unique(number, mark);
                false
            }
            Book::Token(number) => {
                self.ledger.appended(number, mark);
                false
            }
            Book::Counter { recorded } => {
                self.ledger.incremented(&intent.key, mark);
                recorded
            }
            Book::Recorded => true,
            Book::None => false,
        };
        if recorded {
            self.history.operations.push(Operation {
                client: self.index as u32,
                key: intent.key,
                action: intent.action,
                invoked_ns,
                returned_ns,
                outcome,
            });
        }
    }
}

enum Fated {
    Ok(Answer),
    Failed(String),
    Unknown(&'static str),
}

/// An answer of a kind that the command does not have leaves its fate unknown: the server is broken,
/// and the count of such words says so.
fn answer_of(action: &Action, fate: Fate) -> Fated {
    match fate {
        Fate::Refused(word) => Fated::Failed(word),
        Fate::Unknown(word) => Fated::Unknown(word),
        Fate::Done(reply) => match commands::answer(action, &reply) {
            Some(answer) => Fated::Ok(answer),
            None => Fated::Unknown("STRANGE"),
        },
    }
}
