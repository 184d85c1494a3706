//! What clients ask, drawn by chance: single commands, transactions with and without `WATCH`, writes
//! through `ONCE`, keys with deadlines.

use bytes::{Bytes, BytesMut};
use config::FollowerReads;
use proof::history::{Action, Operation, Outcome};
use proof::resp;

use super::broken::Broken;
use super::chance::Chance;
use super::clients::{Asked, Clients, What};
use super::coverage::Rare;
use super::plan::Plan;

impl Clients {
    /// The bytes of the next few requests of a client.
    pub fn ask(&mut self, index: usize, time_us: u64, plan: &Plan, chance: &mut Chance) -> Bytes {
        let mut out = BytesMut::new();
        let reads_anywhere = self.all[index].reads_anywhere;
        if reads_anywhere != FollowerReads::Moved && self.all[index].connection.is_none() {
            self.push(index, What::Queue("OK"), words(&["READONLY"]), &mut out);
        }
        if self.insists(index) {
            self.insist(index, &mut out);
        } else if self.all[index].watched.is_some() {
            self.guarded(index, time_us, plan, chance, &mut out);
        } else {
            for _ in 0..chance.between(1, plan.pipeline) {
                self.draw(index, time_us, plan, chance, &mut out);
                // What is sent again stands alone; and an `EXEC` behind a `WATCH` is that `WATCH`'s.
                if self.insists(index) || self.all[index].watching {
                    break;
                }
            }
        }
        out.freeze()
    }

    /// A read of one key of the history, for the end of a run.
    pub fn ask_for(&mut self, index: usize, time_us: u64, key: &Bytes) -> Bytes {
        let mut out = BytesMut::new();
        self.single(index, time_us, key.clone(), Action::Get, &mut out);
        out.freeze()
    }

    fn draw(
        &mut self,
        index: usize,
        time_us: u64,
        plan: &Plan,
        chance: &mut Chance,
        out: &mut BytesMut,
    ) {
        let number = chance.below(plan.keys);
        match self.all[index].reads_anywhere {
            FollowerReads::Stale => return self.look_behind(index, number, chance, out),
            FollowerReads::Linearizable if !chance.one_in(4) => {
                let key = *chance.pick(&[counter, register, text]);
                return self.single(index, time_us, key(number), Action::Get, out);
            }
            FollowerReads::Linearizable | FollowerReads::Moved => {}
        }
        if chance.one_in(8) {
            return self.with_deadline(index, time_us, chance, out);
        }
        if plan.once && chance.one_in(4) {
            return self.once(index, time_us, number, chance, out);
        }
        if plan.transactions && chance.one_in(3) {
            return self.transaction(index, time_us, number, plan, chance, out);
        }
        let (key, action) = match chance.below(10) {
            0..=2 => (counter(number), Action::Incr),
            3 => (counter(number), Action::Get),
            4..=5 => (register(number), Action::Set(self.value(plan))),
            6..=7 => (register(number), Action::Get),
            8 => (register(number), Action::Del),
            _ => (text(number), Action::Append(token(chance))),
        };
        let action = if self.may_write(&key) { action } else { Action::Get };
        self.single(index, time_us, key, action, out);
    }

    /// A read that need not be new is no part of the history: it has rules of its own.
    fn look_behind(&mut self, index: usize, number: u64, chance: &mut Chance, out: &mut BytesMut) {
        let key = if chance.one_in(2) { counter(number) } else { register(number) };
        let argv = argv(&key, &Action::Get);
        self.push(index, What::LookBehind { key }, argv, out);
    }

    fn value(&mut self, plan: &Plan) -> Bytes {
        self.values += 1;
        let padding = ".".repeat(plan.value_bytes as usize);
        format!("v{}{padding}", self.values).into()
    }

    fn push(&mut self, index: usize, what: What, argv: Vec<Vec<u8>>, out: &mut BytesMut) {
        encode(out, &argv);
        self.all[index].asked.push_back(Asked { what, argv });
    }

    fn record(&mut self, index: usize, time_us: u64, key: Bytes, action: Action) -> usize {
        self.history.push(Operation {
            client: self.all[index].number,
            key,
            action,
            invoked_ns: time_us * 1_000,
            returned_ns: 0,
            outcome: Outcome::Unknown,
        });
        self.history.len() - 1
    }

    fn single(
        &mut self,
        index: usize,
        time_us: u64,
        key: Bytes,
        action: Action,
        out: &mut BytesMut,
    ) {
        let argv = argv(&key, &action);
        let place = self.record(index, time_us, key, action);
        self.push(index, What::Recorded(place), argv, out);
    }

    // ---- ONCE ---------------------------------------------------------------------------------

    fn once(
        &mut self,
        index: usize,
        time_us: u64,
        number: u64,
        chance: &mut Chance,
        out: &mut BytesMut,
    ) {
        let Some(session) = self.all[index].once.session else {
            return self.push(index, What::OpenSession, words(&["ONCE", "OPEN"]), out);
        };
        let (key, action) = match chance.one_in(2) {
            true => (counter(number), Action::Incr),
            false => (text(number), Action::Append(token(chance))),
        };
        let command = argv(&key, &action);
        let place = self.record(index, time_us, key, action);
        let once = &mut self.all[index].once;
        once.last += 1;
        let mut argv = words(&["ONCE", &session.to_string(), &once.last.to_string()]);
        argv.extend(command);
        once.open = Some((place, argv.clone()));
        self.push(index, What::Once(place), argv, out);
    }

    /// Sends the command again whose answer is not there yet.
    fn insist(&mut self, index: usize, out: &mut BytesMut) {
        let once = &mut self.all[index].once;
        let Some((place, argv)) = &mut once.open else { return };
        if self.broken == Some(Broken::OnceNumbersAnew) {
            once.last += 1;
            argv[2] = once.last.to_string().into_bytes();
        }
        let (place, argv) = (*place, argv.clone());
        self.coverage.count(Rare::OnceAgain);
        self.push(index, What::Once(place), argv, out);
    }

    // ---- transactions -------------------------------------------------------------------------

    fn transaction(
        &mut self,
        index: usize,
        time_us: u64,
        number: u64,
        plan: &Plan,
        chance: &mut Chance,
        out: &mut BytesMut,
    ) {
        let (counter, register) = (counter(number), register(number));
        let look = vec![(counter.clone(), Action::Get), (register.clone(), Action::Get)];
        if !self.may_write(&counter) {
            return self.exec(index, time_us, None, look, out);
        }
        let actions = match chance.below(5) {
            0 => look,
            1 => vec![(counter, Action::Incr), (register, Action::Set(self.value(plan)))],
            2 => vec![(register, Action::Del), (counter, Action::Incr)],
            // What it writes then is drawn when it knows what the key holds.
            _ => return self.watch(index, time_us, register, out),
        };
        self.exec(index, time_us, None, actions, out);
    }

    fn watch(&mut self, index: usize, time_us: u64, key: Bytes, out: &mut BytesMut) {
        let name = String::from_utf8_lossy(&key).into_owned();
        self.all[index].watching = true;
        if self.broken != Some(Broken::WatchesNothing) {
            self.push(index, What::Watch, words(&["WATCH", &name]), out);
        }
        let place = self.record(index, time_us, key, Action::Get);
        self.push(index, What::LookWatched(place), words(&["GET", &name]), out);
    }

    /// A transaction that rests on what the watched key held.
    fn guarded(
        &mut self,
        index: usize,
        time_us: u64,
        plan: &Plan,
        chance: &mut Chance,
        out: &mut BytesMut,
    ) {
        let Some((key, held)) = self.all[index].watched.take() else { return };
        let number = String::from_utf8_lossy(&key).trim_start_matches("register").parse();
        let counter = counter(number.expect("registers are numbered"));
        let write = match chance.one_in(3) {
            true => Action::Del,
            false => Action::Set(self.value(plan)),
        };
        let actions = vec![(key.clone(), write), (counter, Action::Incr)];
        self.exec(index, time_us, Some((key, held)), actions, out);
    }

    fn exec(
        &mut self,
        index: usize,
        time_us: u64,
        watched: Option<(Bytes, Option<Bytes>)>,
        actions: Vec<(Bytes, Action)>,
        out: &mut BytesMut,
    ) {
        self.push(index, What::Queue("OK"), words(&["MULTI"]), out);
        for (key, action) in &actions {
            self.push(index, What::Queue("QUEUED"), argv(key, action), out);
        }
        let guard = watched.as_ref().map(|(_, held)| held.clone());
        let look = watched.map(|(key, _)| (key, Action::Get));
        let may_abort = std::mem::take(&mut self.all[index].watching);
        let all = Action::All(look.into_iter().chain(actions).collect());
        let place = self.record(index, time_us, Bytes::new(), all);
        self.push(index, What::Exec { place, may_abort, guard }, words(&["EXEC"]), out);
    }

    // ---- deadlines ----------------------------------------------------------------------------

    /// Sets a new key for a while, or looks at one that was set.
    fn with_deadline(
        &mut self,
        index: usize,
        time_us: u64,
        chance: &mut Chance,
        out: &mut BytesMut,
    ) {
        if chance.one_in(2) && !self.deadlines.is_empty() {
            let keys: Vec<&String> = self.deadlines.keys().collect();
            let key = (*chance.pick(&keys)).clone();
            let argv = words(&["GET", &key]);
            return self.push(index, What::Look { key, invoked_us: time_us }, argv, out);
        }
        let key = format!("lock{}-{time_us}-{}", self.all[index].number, self.values);
        self.values += 1;
        let ttl_ms = chance.between(20, 3_000);
        let argv = words(&["SET", &key, "held", "PX", &ttl_ms.to_string()]);
        self.push(index, What::Store { key, ttl_ms, invoked_us: time_us }, argv, out);
    }
}

fn counter(number: u64) -> Bytes {
    format!("counter{number}").into()
}

fn register(number: u64) -> Bytes {
    format!("register{number}").into()
}

fn text(number: u64) -> Bytes {
    format!("text{number}").into()
}

fn token(chance: &mut Chance) -> Bytes {
    Bytes::from_static(if chance.one_in(2) { b"+" } else { b"-" })
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

pub fn encode(out: &mut BytesMut, argv: &[Vec<u8>]) {
    let words: Vec<&[u8]> = argv.iter().map(|word| &word[..]).collect();
    resp::encode(out, &words);
}

fn argv(key: &Bytes, action: &Action) -> Vec<Vec<u8>> {
    proof::commands::command(key, action).iter().map(|word| word.to_vec()).collect()
}
