//! Requests in: what a client asks is refused at the door, sent elsewhere, taken or held.

use bytes::Bytes;
use paxos::Now;

use super::{BATCH_ITEMS_MAX, Item, ItemKind, LONG_REPLY_BYTES, Node, ReadPath, WaitingRead};
use crate::batch;
use crate::clients::{Held, Request, Sequence, SessionId, request_bytes};
use crate::command::{self, Class, Operation, Spec, Work, Write};
use crate::metrics::Op;
use crate::resp::Reply;
use crate::store::Growth;

pub(super) const DISK_IS_FULL: &str =
    "OOM the disk of the leader is full, the command was not executed";
/// As Redis says it.
const MEMORY_IS_FULL: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// Session and number of a command behind `ONCE`.
fn once_number(spec: &Spec, argv: &[&[u8]]) -> Option<(u64, u64)> {
    if spec.name != "once" {
        return None;
    }
    match command::parse(spec, argv) {
        Ok(Operation::Write(Write::Once { session, number, .. })) => Some((session, number)),
        _ => None,
    }
}

impl Node {
    /// A command as it came from a client: refused at the door, or taken. One that is not for the
    /// store (connection and server commands) is handed back, to be answered by whoever can.
    pub fn command(&mut self, now: Now, id: SessionId, argv: &[&[u8]]) -> Option<&'static Spec> {
        let session = self.clients.get_mut(id)?;
        let spec = match command::check(argv) {
            Ok(spec) => spec,
            Err(reply) => {
                self.refuse_command(now, id, argv, reply);
                return None;
            }
        };
        session.connection.last_command = spec.name;
        session.connection.last_command_ms = now.wall_ms;
        if let Err(reply) = command::authorize(&session.connection, spec) {
            self.refuse_command(now, id, argv, reply);
            return None;
        }
        if spec.class == Class::Transaction {
            self.transact(now, id, spec, argv);
            return None;
        }
        if self.is_queueing(id) && !matches!(spec.name, "quit" | "reset") {
            return self.queue_command(now, id, spec, argv);
        }
        if let Err(reply) = command::validate(spec, argv) {
            self.answer(now, id, Op::Invalid, &reply);
            return None;
        }
        match spec.class {
            Class::Read | Class::Write => {
                self.request(now, id, spec, argv);
                None
            }
            Class::Connection | Class::Server | Class::Transaction => Some(spec),
        }
    }

    /// A data command of a client, checked at the door.
    fn request(&mut self, now: Now, session: SessionId, spec: &'static Spec, argv: &[&[u8]]) {
        let op = if spec.is_write() { Op::Write } else { Op::Read };
        let Some(sequence) =
            self.clients.take_sequence(session, op, now.mono_us, request_bytes(argv))
        else {
            return;
        };
        if self.has_lost(session) {
            let hash_slot = spec.keys(argv).next().map_or(0, command::hash_slot);
            let reply = self.not_done(now, hash_slot);
            return self.clients.complete(session, sequence, &reply);
        }
        let waits_behind = self.clients.get(session).is_some_and(|session| session.has_held());
        if waits_behind || !self.take(now, session, sequence, spec, argv) {
            let argv = argv.iter().map(|argument| Bytes::copy_from_slice(argument)).collect();
            let request = Request::Command(argv);
            self.clients.hold(session, Held { sequence, request });
        }
    }

    /// A reply that waits for nothing but the replies before it.
    pub fn answer(&mut self, now: Now, session: SessionId, op: Op, reply: &Reply) {
        if let Some(sequence) = self.clients.take_sequence(session, op, now.mono_us, 0) {
            self.clients.complete(session, sequence, reply);
        }
    }

    /// Takes a request, or says that it has to wait.
    pub(super) fn take(
        &mut self,
        now: Now,
        session: SessionId,
        sequence: Sequence,
        spec: &'static Spec,
        argv: &[&[u8]],
    ) -> bool {
        if self.replica.leading().is_none() {
            if let Some(taken) = self.take_at_follower(now, session, sequence, spec, argv) {
                return taken;
            }
            let Some(moved) = self.moved(now, spec, argv) else { return false };
            self.clients.complete(session, sequence, &moved);
            return true;
        }
        if self.clock.is_none() {
            return false;
        }
        let once = once_number(spec, argv);
        let growth = match self.admit(spec, argv, self.growth_ahead()) {
            Ok(growth) => growth,
            Err(reply) => {
                // Sent again, it is not to be told by the door that it was not done.
                let settled = once.and_then(|(session, number)| {
                    self.store.settled_once(session, number, &argv[3..])
                });
                if settled.is_none() && once.is_some_and(|once| self.is_under_way(once)) {
                    return false;
                }
                self.clients.complete(session, sequence, &settled.unwrap_or(reply));
                return true;
            }
        };
        let (carried, arguments) = command::carried(spec, argv);
        let answers_value = !spec.is_write() || carried.answers_value(arguments);
        let waiting_writes = self.clients.get(session).map_or(0, |client| client.writes_pending);
        let is_for_batch = spec.is_write() || waiting_writes > 0;
        let reply_bytes =
            if is_for_batch && answers_value { self.reply_bytes_now(argv) } else { 0 };
        let reply_is_long = reply_bytes > LONG_REPLY_BYTES;
        let full = self.batch_is_full();
        let Some(client) = self.clients.get_mut(session) else { return true };
        let is_write = spec.is_write();
        let hash_slot = spec.keys(argv).next().map_or(0, command::hash_slot);
        if !is_write && client.writes_pending == 0 {
            client.reads_pending += 1;
            let argv = argv.iter().map(|argument| Bytes::copy_from_slice(argument)).collect();
            let work = spec.work;
            let path = ReadPath::Round;
            self.reads.push(WaitingRead { session, sequence, hash_slot, work, path, argv });
            return true;
        }
        // A write must not be seen by the reads before it, and the batch has its limits.
        if client.reads_pending > 0 || full {
            return false;
        }
        // What a batch answers is answered at once when it is applied, so values are counted here. A
        // read that is long, or much work, waits until the batch is applied.
        let waits = (!is_write && (spec.work != Work::Little || reply_is_long))
            || (answers_value && !client.has_room_for_value(reply_is_long));
        if waits || (answers_value && !self.clients.takes_reply(session)) {
            return false;
        }
        let Some(client) = self.clients.get_mut(session) else { return true };
        client.promised_bytes += reply_bytes;
        client.values_pending += u32::from(answers_value);
        client.writes_pending += 1;
        let kind = if is_write {
            self.open.push(argv);
            self.open_growth.add(growth);
            ItemKind::Write
        } else {
            ItemKind::Read(argv.iter().map(|argument| Bytes::copy_from_slice(argument)).collect())
        };
        self.clients.recount(session);
        self.open_items.push(Item {
            session,
            sequence,
            hash_slot,
            answers_value,
            reply_bytes,
            once,
            kind,
        });
        true
    }

    /// Whether a command behind `ONCE` waits for its slot here. All that former leaders have left is
    /// applied when a reign is open.
    fn is_under_way(&self, once: (u64, u64)) -> bool {
        let in_flight = self.in_flight.values().flat_map(|batch| &batch.items);
        in_flight.chain(&self.open_items).any(|item| item.once == Some(once))
    }

    /// What a request would answer in values, as far as the store can say now.
    pub(super) fn reply_bytes_now(&self, argv: &[impl AsRef<[u8]>]) -> usize {
        let argv: Vec<&[u8]> = argv.iter().map(AsRef::as_ref).collect();
        let Ok(spec) = command::check(&argv) else { return 0 };
        let (spec, argv) = command::carried(spec, &argv);
        if spec.is_write() && !spec.answers_value(argv) {
            return 0;
        }
        spec.keys(argv).map(|key| self.store.value_len(key)).sum()
    }

    pub(super) fn batch_is_full(&self) -> bool {
        self.open.len_bytes() >= self.batch_bytes_max() || self.open_items.len() >= BATCH_ITEMS_MAX
    }

    /// Refuses what would let a value outgrow a command, before it costs a place in the log, and
    /// what grows while the disk of this leader is full, or its memory would be. By how much a write
    /// grows is the answer; `ahead` is what will be applied before it.
    ///
    /// Only here: what is in the log is applied, on every node alike, whatever memory that has.
    pub(super) fn admit(
        &self,
        spec: &'static Spec,
        argv: &[&[u8]],
        ahead: Growth,
    ) -> Result<Growth, Reply> {
        let (spec, argv) = command::carried(spec, argv);
        if self.full && batch::argv_may_grow(argv) {
            return Err(Reply::error(DISK_IS_FULL));
        }
        let mut growth = Growth::default();
        if spec.is_write() {
            growth = Growth::of_arguments(argv);
        }
        if (spec.extends_value || spec.moves_value())
            && let Operation::Write(write) = command::parse(spec, argv)?
        {
            self.store.admit(&write, self.behaviour.command_bytes_max as usize)?;
            growth = self.store.growth(&write, ahead).unwrap_or(growth);
        }
        let bytes_max = self.behaviour.store_bytes_max;
        let bytes = self.store.memory_bytes() as u64 + (ahead.bytes + growth.bytes) as u64;
        if bytes_max != 0 && bytes > bytes_max && batch::argv_may_grow(argv) {
            return Err(Reply::error(MEMORY_IS_FULL));
        }
        Ok(growth)
    }

    /// What is proposed and not applied, or will be proposed next.
    pub(super) fn growth_ahead(&self) -> Growth {
        let mut ahead = self.in_flight_growth;
        ahead.add(self.open_growth);
        ahead
    }

    /// The redirection to the leader, if another one is known and alive: nobody is sent to a leader
    /// that has not been heard lately (PITFALLS 39).
    pub(super) fn moved(&self, now: Now, spec: &'static Spec, argv: &[&[u8]]) -> Option<Reply> {
        let (spec, argv) = command::carried(spec, argv);
        self.moved_to(now, spec.keys(argv).next().map_or(0, command::hash_slot))
    }

    pub(super) fn moved_to(&self, now: Now, hash_slot: u16) -> Option<Reply> {
        let leader = self.replica.happy_with(now).filter(|leader| *leader != self.replica.id())?;
        let address = &self.configuration().members.get(&leader)?.client_address;
        Some(Reply::error(format!("MOVED {hash_slot} {address}")))
    }
}
