//! Clients of every kind, and a record of all they asked. Keys are used for a few seconds and then
//! left alone until the last read: what is of unknown fate stays bounded on each, and so does the
//! search of the checker.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proof::client::{Client, Fate, Target};
use proof::commands;
use proof::connection::Connection;
use proof::history::{Action, Answer, History, Operation, Outcome};
use proof::once::{OnceClient, OnceError};
use proof::resp::Reply;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Keys are exchanged this often.
const KEYS_LAST: Duration = Duration::from_secs(5);
const THINKS_MS: u64 = 20;
/// The longest that a write through ONCE is sent again and again.
const ONCE_PATIENCE: Duration = Duration::from_secs(60);
/// Who reads back at the end.
pub(crate) const READER: u32 = 999;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Registers,
    Counters,
    Transactions,
    Once,
    Followers,
}

const KINDS: [Kind; 14] = [
    Kind::Registers,
    Kind::Registers,
    Kind::Registers,
    Kind::Registers,
    Kind::Counters,
    Kind::Counters,
    Kind::Transactions,
    Kind::Transactions,
    Kind::Transactions,
    Kind::Transactions,
    Kind::Once,
    Kind::Once,
    Kind::Followers,
    Kind::Followers,
];

/// What all clients share.
pub(crate) struct Shared {
    began: Instant,
    stopping: AtomicBool,
    writes_ok: AtomicU64,
    /// Replies of a kind that the command does not have.
    strange: std::sync::Mutex<Vec<String>>,
    repeated: AtomicU64,
    /// Reads that a node answered which a client had picked by chance.
    followed: AtomicU64,
}

impl Shared {
    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    pub(crate) fn writes_ok(&self) -> u64 {
        self.writes_ok.load(SeqCst)
    }

    /// How often a write was sent again through ONCE.
    pub(crate) fn repeated(&self) -> u64 {
        self.repeated.load(SeqCst)
    }

    /// How many reads were answered by whichever node was asked.
    pub(crate) fn followed(&self) -> u64 {
        self.followed.load(SeqCst)
    }

    pub(crate) fn strange(&self) -> Vec<String> {
        self.strange.lock().expect("nobody panics with it").clone()
    }

    fn age(&self) -> u64 {
        (self.began.elapsed().as_millis() / KEYS_LAST.as_millis()) as u64
    }
}

pub(crate) struct Clients {
    pub(crate) shared: Arc<Shared>,
    tasks: JoinSet<Vec<Operation>>,
}

impl Clients {
    pub(crate) fn start(runtime: &Handle, target: &Target, seed: u64) -> Clients {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            stopping: AtomicBool::new(false),
            writes_ok: AtomicU64::new(0),
            strange: Default::default(),
            repeated: AtomicU64::new(0),
            followed: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for (index, kind) in KINDS.into_iter().enumerate() {
            let worker = Worker {
                index,
                client: Client::new(target.clone(), index),
                rng: SmallRng::seed_from_u64(seed ^ ((index as u64) << 32)),
                shared: shared.clone(),
                history: Vec::new(),
                seen: HashMap::new(),
                values: 0,
            };
            tasks.spawn_on(worker.run(kind, target.clone()), runtime);
        }
        Clients { shared, tasks }
    }

    /// Lets every client finish what it has begun.
    pub(crate) async fn stop(self) -> (Arc<Shared>, History) {
        self.shared.stopping.store(true, SeqCst);
        let operations = self.tasks.join_all().await.into_iter().flatten().collect();
        (self.shared, History { operations })
    }
}

/// Reads every key of the history, and adds that to it.
pub(crate) async fn read_back(shared: &Shared, target: &Target, history: &mut History) {
    let keys: BTreeSet<Bytes> =
        history.operations.iter().flat_map(|operation| operation.keys().cloned()).collect();
    let mut client = Client::new(target.clone(), 0);
    let deadline = Instant::now() + Duration::from_secs(120);
    for key in keys {
        loop {
            let invoked_ns = shared.now_ns();
            let value = match client.call(&[b"GET", &key]).await {
                Fate::Done(Reply::Bulk(value)) => Some(value),
                Fate::Done(Reply::Nil) => None,
                other => {
                    assert!(Instant::now() < deadline, "read {key:?} back: {other:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let outcome = Outcome::Ok(Answer::Value(value));
            let (action, returned_ns) = (Action::Get, shared.now_ns());
            let client = READER;
            let read = Operation { client, key, action, invoked_ns, returned_ns, outcome };
            history.operations.push(read);
            break;
        }
    }
}

/// One client.
struct Worker {
    index: usize,
    client: Client,
    rng: SmallRng,
    shared: Arc<Shared>,
    history: Vec<Operation>,
    /// The newest value that it knows of a key, for compare-and-set.
    seen: HashMap<Bytes, Bytes>,
    values: u64,
}

impl Worker {
    async fn run(mut self, kind: Kind, target: Target) -> Vec<Operation> {
        let mut once = None;
        while !self.shared.stopping.load(SeqCst) {
            match kind {
                Kind::Registers => self.register().await,
                Kind::Counters => self.counter().await,
                Kind::Transactions => self.transaction().await,
                Kind::Followers => self.read_anywhere(&target).await,
                Kind::Once => once = self.write_once(once, &target).await,
            }
            let pause = Duration::from_millis(self.rng.random_range(0..THINKS_MS));
            tokio::time::sleep(pause).await;
        }
        self.history
    }

    fn key(&mut self, family: &str, count: u32) -> Bytes {
        let number = self.rng.random_range(0..count);
        format!("{family}:{}:{number}", self.shared.age()).into()
    }

    /// Nobody writes the same twice.
    fn value(&mut self) -> Bytes {
        self.values += 1;
        format!("{}.{}", self.index, self.values).into()
    }

    async fn register(&mut self) {
        let key = self.key("r", 3);
        let known = self.seen.get(&key).cloned();
        let action = match (self.rng.random_range(0..20), known) {
            (0, _) => Action::Del,
            (1..=7, _) => Action::Get,
            (8..=13, Some(known)) => Action::SetIfEq(known, self.value()),
            _ => Action::Set(self.value()),
        };
        self.one(key, action).await;
    }

    async fn counter(&mut self) {
        let key = self.key("c", 2);
        let action = if self.rng.random_bool(0.7) { Action::Incr } else { Action::Get };
        self.one(key, action).await;
    }

    /// Two keys that are mostly written together, and a counter beside them.
    async fn transaction(&mut self) {
        let object = self.key("t", 2);
        let part = |part: &str| Bytes::from([&object[..], b":", part.as_bytes()].concat());
        let (x, y, n) = (part("x"), part("y"), part("n"));
        let value = self.value();
        let set = |key: &Bytes| (key.clone(), Action::Set(value.clone()));
        let get = |key: &Bytes| (key.clone(), Action::Get);
        match self.rng.random_range(0..20) {
            0..=4 => self.all(vec![set(&x), set(&y)]).await,
            5..=6 => self.all(vec![set(&x), (n, Action::Incr), get(&y)]).await,
            7 => self.all(vec![(x, Action::Del), (y, Action::Del)]).await,
            8..=11 => self.all(vec![get(&x), get(&y)]).await,
            12..=14 => self.guarded(&x, vec![set(&x), set(&y), (n, Action::Incr)]).await,
            15 => self.one(y, Action::Set(value)).await,
            16 => self.one(n, Action::Get).await,
            17..=18 => self.one(y, Action::Get).await,
            _ => self.one(x, Action::Get).await,
        }
    }

    /// One write, sent until it is answered: it must have been done once.
    async fn write_once(
        &mut self,
        once: Option<OnceClient>,
        target: &Target,
    ) -> Option<OnceClient> {
        let mut once = match once {
            Some(once) => once,
            None => OnceClient::open(target.clone(), ONCE_PATIENCE).await.ok()?,
        };
        let (key, action) = match self.rng.random_range(0..4) {
            // Shared with others, who do not go through ONCE.
            0 => (self.key("c", 2), Action::Incr),
            1 => (self.key("o", 1), Action::Incr),
            2 => (self.key("a", 1), Action::Append(self.value())),
            _ => (self.key("r", 3), Action::Set(self.value())),
        };
        let command = commands::command(&key, &action);
        let words: Vec<&[u8]> = command.iter().map(|word| &word[..]).collect();
        let (before, invoked_ns) = (once.repeated(), self.shared.now_ns());
        let written = once.write(&words, ONCE_PATIENCE).await;
        self.shared.repeated.fetch_add(once.repeated() - before, SeqCst);
        let (fate, once) = match written {
            Ok(reply) => (Fate::Done(reply), Some(once)),
            Err(OnceError::Refused(word)) => (Fate::Refused(word), Some(once)),
            Err(OnceError::Unknown(_)) => (Fate::Unknown("ONCE"), None),
        };
        self.record(key, action, invoked_ns, fate);
        once
    }

    /// A read at a node picked by chance, which is no less fresh than one at the leader.
    async fn read_anywhere(&mut self, target: &Target) {
        let key = match self.rng.random_bool(0.5) {
            true => self.key("r", 3),
            false => self.key("c", 2),
        };
        let address = &target.nodes[self.rng.random_range(0..target.nodes.len())];
        let Ok(mut connection) = Connection::open(address, target.patience).await else { return };
        if connection.call(&[b"READONLY"]).await.is_err() {
            return;
        }
        // A few on one connection, so that some wait while a fault strikes.
        for _ in 0..20 {
            let invoked_ns = self.shared.now_ns();
            let Ok(reply) = connection.call(&[b"GET", &key]).await else { return };
            if reply.error_word().is_some() {
                return;
            }
            self.shared.followed.fetch_add(1, SeqCst);
            self.record(key.clone(), Action::Get, invoked_ns, Fate::Done(reply));
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..THINKS_MS))).await;
        }
    }

    async fn one(&mut self, key: Bytes, action: Action) {
        let invoked_ns = self.shared.now_ns();
        let mut fates = self.client.run(&[commands::command(&key, &action)]).await;
        self.record(key, action, invoked_ns, fates.pop().expect("one command has one fate"));
    }

    async fn all(&mut self, actions: Vec<(Bytes, Action)>) {
        let commands: Vec<_> = actions.iter().map(|(k, a)| commands::command(k, a)).collect();
        let invoked_ns = self.shared.now_ns();
        let fate = self.client.transaction(&commands).await;
        self.record(Bytes::new(), Action::All(actions), invoked_ns, fate);
    }

    /// What was read of the watched key must still be so when the transaction is done.
    async fn guarded(&mut self, watched: &Bytes, actions: Vec<(Bytes, Action)>) {
        let commands: Vec<_> = actions.iter().map(|(k, a)| commands::command(k, a)).collect();
        let invoked_ns = self.shared.now_ns();
        let (seen, fate) = self.client.guarded(watched, |_| commands.clone()).await;
        let fate = match fate {
            Fate::Done(Reply::Nil) => Fate::Refused("somebody touched it".to_owned()),
            Fate::Done(Reply::Array(replies)) => {
                let seen = seen.map_or(Reply::Nil, Reply::Bulk);
                Fate::Done(Reply::Array(std::iter::once(seen).chain(replies).collect()))
            }
            other => other,
        };
        let read = (watched.clone(), Action::Get);
        let actions = match fate {
            // Without an answer nothing says what the guard saw last.
            Fate::Unknown(_) => actions,
            _ => std::iter::once(read).chain(actions).collect(),
        };
        self.record(Bytes::new(), Action::All(actions), invoked_ns, fate);
    }

    fn record(&mut self, key: Bytes, action: Action, invoked_ns: u64, fate: Fate) {
        let returned_ns = self.shared.now_ns();
        let outcome = match fate {
            Fate::Refused(_) => Outcome::Failed,
            Fate::Unknown(_) => Outcome::Unknown,
            Fate::Done(reply) => match commands::answer(&action, &reply) {
                Some(answer) => Outcome::Ok(answer),
                None => {
                    let strange = format!("{action:?} of {key:?} was answered {reply:?}");
                    self.shared.strange.lock().expect("nobody panics with it").push(strange);
                    Outcome::Unknown
                }
            },
        };
        match (&action, &outcome) {
            (Action::Get, Outcome::Ok(Answer::Value(Some(value)))) => {
                self.seen.insert(key.clone(), value.clone());
            }
            (Action::Get, _) => {}
            (Action::Set(value) | Action::SetIfEq(_, value), Outcome::Ok(Answer::Stored)) => {
                self.seen.insert(key.clone(), value.clone());
                self.shared.writes_ok.fetch_add(1, SeqCst);
            }
            (_, Outcome::Ok(_)) => drop(self.shared.writes_ok.fetch_add(1, SeqCst)),
            (_, Outcome::Failed | Outcome::Unknown) => {}
        }
        let client = self.index as u32;
        let operation = Operation { client, key, action, invoked_ns, returned_ns, outcome };
        self.history.push(operation);
    }
}
