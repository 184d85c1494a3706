//! `MULTI`, `EXEC`, `DISCARD`, `WATCH` and `UNWATCH`: what they do to a connection.
//!
//! A connection queues by itself, at once: nothing of it is in the log before `EXEC`, which is one
//! command there. `WATCH` notes the slot up to which this node has applied, behind the writes of
//! its own connection; an older slot than another node's would only abort more. So nothing here
//! hangs on who leads: an `EXEC` is judged by the table in the store (DESIGN §6).

use bytes::Bytes;
use paxos::Now;

use super::taking::DISK_IS_FULL;
use super::{Item, ItemKind, LONG_REPLY_BYTES, Node};
use crate::batch;
use crate::clients::{Held, Request, Sequence, SessionId};
use crate::command::{self, Class, Spec, Work};
use crate::metrics::Op;
use crate::resp::Reply;
use crate::store::{Growth, Reading};
use crate::transactions::{Exec, Queue, Queued};

const QUEUED: Reply = Reply::Simple(std::borrow::Cow::Borrowed("QUEUED"));

const DISCARDED_BECAUSE: &str = "EXECABORT Transaction discarded because of: ";

/// What would change the connection between two commands of a transaction that may yet be aborted.
const CHANGE_THE_CONNECTION: &[&str] = &[
    "asking",
    "auth",
    "client|no-evict",
    "client|setinfo",
    "client|setname",
    "hello",
    "readonly",
    "readwrite",
];

impl Node {
    /// A command that was refused at the door; behind `MULTI` that spoils the transaction.
    pub(super) fn refuse(&mut self, now: Now, id: SessionId, reply: &Reply) {
        if let Some(queue) = self.queue_of(id) {
            queue.refused = true;
        }
        self.answer(now, id, Op::Invalid, reply);
    }

    /// One that is nonsense or not allowed. A refused `EXEC` ends its transaction.
    pub(super) fn refuse_command(&mut self, now: Now, id: SessionId, argv: &[&[u8]], reply: Reply) {
        let is_exec = argv.first().is_some_and(|name| name.eq_ignore_ascii_case(b"exec"));
        if !is_exec {
            return self.refuse(now, id, &reply);
        }
        if let Some(session) = self.clients.get_mut(id) {
            session.queue = None;
        }
        let Reply::Error(text) = reply else { return };
        let text = text.strip_prefix("ERR ").unwrap_or(&text);
        let reply = Reply::error(format!("{DISCARDED_BECAUSE}{text}"));
        self.submit(now, id, Request::Unwatch(reply));
    }

    fn queue_of(&mut self, id: SessionId) -> Option<&mut Queue> {
        self.clients.get_mut(id)?.queue.as_mut()
    }

    /// Whether commands of this connection are queued, not carried out.
    pub(super) fn is_queueing(&self, id: SessionId) -> bool {
        self.clients.get(id).is_some_and(|session| session.queue.is_some())
    }

    /// One of the five.
    pub(super) fn transact(
        &mut self,
        now: Now,
        id: SessionId,
        spec: &'static Spec,
        argv: &[&[u8]],
    ) {
        let Some(session) = self.clients.get_mut(id) else { return };
        let queueing = session.queue.is_some();
        let error = |text: &'static str| Err(Reply::error(text));
        let outcome = match (spec.name, queueing) {
            ("multi", false) => {
                session.queue = Some(Queue::default());
                Ok(None)
            }
            ("multi", true) => error("ERR MULTI calls can not be nested"),
            ("exec", false) => error("ERR EXEC without MULTI"),
            ("exec", true) => {
                let queue = session.queue.take().unwrap_or_default();
                Ok(Some(if queue.refused {
                    Request::Unwatch(Reply::error(
                        "EXECABORT Transaction discarded because of previous errors.",
                    ))
                } else {
                    Request::Exec(Box::new(Exec::new(queue)))
                }))
            }
            ("discard", false) => error("ERR DISCARD without MULTI"),
            ("discard", true) => {
                session.queue = None;
                Ok(Some(Request::Unwatch(Reply::OK)))
            }
            ("watch", true) => error("ERR WATCH inside MULTI is not allowed"),
            ("watch", false) => {
                let keys = argv[1..].iter().map(|key| Bytes::copy_from_slice(key)).collect();
                Ok(Some(Request::Watch(keys)))
            }
            // Behind MULTI it would be too late: EXEC has let go of the keys by then.
            ("unwatch", true) => {
                return self.queue(now, id, Queued::Answered(Reply::OK));
            }
            ("unwatch", false) => Ok(Some(Request::Unwatch(Reply::OK))),
            (name, _) => unreachable!("{name} is not of this class"),
        };
        match outcome {
            Ok(None) => self.answer(now, id, Op::Local, &Reply::OK),
            Ok(Some(request)) => self.submit(now, id, request),
            Err(reply) => self.answer(now, id, Op::Invalid, &reply),
        }
    }

    /// A command behind `MULTI`. One of the connection or the server is handed back, to be answered
    /// first: what comes of it is queued by [`Node::answered`].
    pub(super) fn queue_command(
        &mut self,
        now: Now,
        id: SessionId,
        spec: &'static Spec,
        argv: &[&[u8]],
    ) -> Option<&'static Spec> {
        match spec.class {
            Class::Read if spec.work != Work::Little => {
                let name = spec.name.to_uppercase();
                let reply = Reply::error(format!(
                    "ERR {name} is not allowed inside a transaction: it would hold up everybody"
                ));
                self.refuse(now, id, &reply);
                None
            }
            Class::Read | Class::Write => {
                let elsewhere = match self.replica.leading() {
                    None => self.moved(now, spec, argv),
                    Some(_) => None,
                };
                match elsewhere {
                    Some(moved) => self.refuse(now, id, &moved),
                    None => {
                        let argv = argv.iter().map(|argument| Bytes::copy_from_slice(argument));
                        self.queue(now, id, Queued::Data(argv.collect()));
                    }
                }
                None
            }
            _ if CHANGE_THE_CONNECTION.contains(&spec.name) => {
                let reply = Reply::error("ERR Command not allowed inside a transaction");
                self.refuse(now, id, &reply);
                None
            }
            _ => Some(spec),
        }
    }

    /// The reply to a command that [`Node::command`] handed back.
    pub fn answered(&mut self, now: Now, id: SessionId, spec: &'static Spec, reply: Reply) {
        match spec.name {
            "reset" => {
                if let Some(session) = self.clients.get_mut(id) {
                    session.queue = None;
                }
                self.submit(now, id, Request::Unwatch(reply));
            }
            "quit" => self.answer(now, id, Op::Local, &reply),
            _ if self.is_queueing(id) => self.queue(now, id, Queued::Answered(reply)),
            _ => self.answer(now, id, Op::Local, &reply),
        }
    }

    fn queue(&mut self, now: Now, id: SessionId, command: Queued) {
        let bytes_max = self.behaviour.command_bytes_max as usize;
        let Some(queue) = self.queue_of(id) else { return };
        if queue.push(command, bytes_max) {
            self.answer(now, id, Op::Local, &QUEUED);
        } else {
            let reply = Reply::error(format!(
                "ERR the transaction is longer than {bytes_max} bytes, which is the limit of a command"
            ));
            self.refuse(now, id, &reply);
        }
    }

    /// Takes a request of a transaction, or holds it behind what its connection has asked before.
    fn submit(&mut self, now: Now, id: SessionId, request: Request) {
        let op = if matches!(request, Request::Exec(_)) { Op::Write } else { Op::Local };
        let Some(sequence) = self.clients.take_sequence(id, op, now.mono_us, request.len_bytes())
        else {
            return;
        };
        if self.has_lost(id) {
            let reply = self.not_done(now, request.hash_slot());
            return self.refuse_held(id, sequence, request, &reply);
        }
        let waits_behind = self.clients.get(id).is_some_and(|session| session.has_held());
        let left = match waits_behind {
            true => Some(request),
            false => self.take_request(now, id, sequence, request),
        };
        if let Some(request) = left {
            self.clients.hold(id, Held { sequence, request });
        }
    }

    /// Takes a request, or gives it back because it has to wait.
    pub(super) fn take_request(
        &mut self,
        now: Now,
        id: SessionId,
        sequence: Sequence,
        request: Request,
    ) -> Option<Request> {
        match request {
            Request::Command(argv) => {
                let arguments: Vec<&[u8]> = argv.iter().map(|argument| &argument[..]).collect();
                let spec = command::check(&arguments).expect("it was checked at the door");
                let taken = self.take(now, id, sequence, spec, &arguments);
                (!taken).then_some(Request::Command(argv))
            }
            Request::Watch(keys) => self.take_watch(now, id, sequence, keys).map(Request::Watch),
            Request::Unwatch(reply) => {
                self.unwatch(id);
                self.clients.complete(id, sequence, &reply);
                None
            }
            Request::Exec(exec) => self.take_exec(now, id, sequence, exec).map(Request::Exec),
        }
    }

    pub(super) fn unwatch(&mut self, id: SessionId) {
        if let Some(session) = self.clients.get_mut(id) {
            session.watches = Default::default();
        }
    }

    fn take_watch(
        &mut self,
        now: Now,
        id: SessionId,
        sequence: Sequence,
        keys: Vec<Bytes>,
    ) -> Option<Vec<Bytes>> {
        let bytes_max = self.behaviour.command_bytes_max as usize;
        let reply = if self.replica.leading().is_none() {
            let Some(moved) = self.moved_to(now, command::hash_slot(&keys[0])) else {
                return Some(keys);
            };
            moved
        } else {
            let Some(clock_ms) = self.log_time_ms(now) else { return Some(keys) };
            let session = self.clients.get_mut(id)?;
            // The writes before it in a pipeline are not to abort it.
            if session.writes_pending > 0 {
                return Some(keys);
            }
            // Nor is the end of a key that the client can no longer see.
            let mut exists: Vec<&[u8]> = vec![b"EXISTS"];
            exists.extend(keys.iter().map(|key| &key[..]));
            if self.store.read(Reading { clock_ms, seed: 0 }, &exists).is_err() {
                self.mark_wanted = true;
                return Some(keys);
            }
            if session.watches.has_room_for(&keys, bytes_max) {
                let slot = self.first_unapplied.0 - 1;
                keys.iter().for_each(|key| session.watches.add(key, slot));
                Reply::OK
            } else {
                Reply::error(format!("ERR the watched keys are longer than {bytes_max} bytes"))
            }
        };
        if reply.is_error() {
            self.watch_failed(id);
        }
        self.clients.complete(id, sequence, &reply);
        None
    }

    /// The transaction that was to rest on a refused `WATCH` is not to go through without it.
    pub(super) fn watch_failed(&mut self, id: SessionId) {
        if let Some(session) = self.clients.get_mut(id) {
            session.watches.failed = true;
        }
    }

    fn take_exec(
        &mut self,
        now: Now,
        id: SessionId,
        sequence: Sequence,
        mut exec: Box<Exec>,
    ) -> Option<Box<Exec>> {
        let session = self.clients.get_mut(id)?;
        if !exec.has_watches() {
            exec.set_watches(std::mem::take(&mut session.watches));
        }
        if exec.watch_failed() {
            self.clients.complete(id, sequence, &Reply::NullArray);
            return None;
        }
        if !exec.needs_the_log() {
            let reply = exec.reply(Reply::Array(Vec::new()));
            self.clients.complete(id, sequence, &reply);
            return None;
        }
        if self.replica.leading().is_none() {
            let Some(moved) = self.moved_to(now, exec.hash_slot()) else { return Some(exec) };
            self.clients.complete(id, sequence, &moved);
            return None;
        }
        if self.clock.is_none() {
            return Some(exec);
        }
        let growth = match self.admit_exec(&exec) {
            Ok(growth) => growth,
            Err(reply) => {
                self.clients.complete(id, sequence, &reply);
                return None;
            }
        };
        let full = self.batch_is_full();
        let reply_bytes: usize = exec.data().map(|argv| self.reply_bytes_now(argv)).sum();
        let reply_is_long = reply_bytes > LONG_REPLY_BYTES;
        let session = self.clients.get_mut(id)?;
        if session.reads_pending > 0 || full || !session.has_room_for_value(reply_is_long) {
            return Some(exec);
        }
        // The queue and the watched keys have a limit each, the entry has one for both: what fits
        // into no frame would be adopted by one leader after another (PITFALLS 66).
        let command = exec.log_command();
        let bytes_max = self.behaviour.command_bytes_max as usize;
        if batch::command_bytes(&command) > bytes_max {
            let reply = Reply::error(format!(
                "{DISCARDED_BECAUSE}it is longer than {bytes_max} bytes with the keys that it watches"
            ));
            self.clients.complete(id, sequence, &reply);
            return None;
        }
        if !self.clients.takes_reply(id) {
            return Some(exec);
        }
        let session = self.clients.get_mut(id)?;
        session.promised_bytes += reply_bytes;
        session.values_pending += 1;
        session.writes_pending += 1;
        self.open.push(&command);
        self.open_growth.add(growth);
        let hash_slot = exec.hash_slot();
        let kind = ItemKind::Exec(exec);
        let (session, answers_value, once) = (id, true, None);
        self.clients.recount(id);
        self.open_items.push(Item {
            session,
            sequence,
            hash_slot,
            answers_value,
            reply_bytes,
            once,
            kind,
        });
        None
    }

    /// One command that may not be proposed keeps all of them from it. By how much all of them grow is
    /// the answer.
    fn admit_exec(&self, exec: &Exec) -> Result<Growth, Reply> {
        let mut ahead = self.growth_ahead();
        let mut growth = Growth::default();
        for argv in exec.data() {
            let argv: Vec<&[u8]> = argv.iter().map(|argument| &argument[..]).collect();
            // Nonsense as well: whoever has to take the entry in looks no closer.
            if self.full && batch::argv_may_grow(&argv) {
                return Err(Reply::error(format!("{DISCARDED_BECAUSE}{DISK_IS_FULL}")));
            }
            let Ok(spec) = command::check(&argv) else { continue };
            // What makes no sense is answered at its place, by the store.
            if command::validate(spec, &argv).is_err() {
                continue;
            }
            let more = self.admit(spec, &argv, ahead).map_err(|reply| match reply {
                Reply::Error(text) => Reply::error(format!("{DISCARDED_BECAUSE}{text}")),
                other => other,
            })?;
            ahead.add(more);
            growth.add(more);
        }
        Ok(growth)
    }
}
