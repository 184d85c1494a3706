//! Writes. One function a kind, each a straight line from what is there to what will be there.

use super::keyspace::natural;
use super::record::{Form, Parts};
use super::{Applying, DUE_PER_COMMAND, LongDouble, Store, Transaction};
use crate::command::number::{NOT_AN_INTEGER, parse_i64};
use crate::command::operation::{
    Condition, Deadline, ExpireCondition, Expiry, GetExExpiry, Operation, Read, Write,
};
use crate::command::{self, NOT_A_FLOAT};
use crate::resp::Reply;

/// The longest string, as in Redis.
pub(super) const STRING_BYTES_MAX: usize = 512 << 20;

const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
const NO_SUCH_KEY: &str = "ERR no such key";

impl Store {
    /// Carries out one command of an entry. Whatever `argv` holds there is an answer, the same on
    /// every node; an error has changed nothing.
    pub fn apply(&mut self, applying: Applying, argv: &[&[u8]]) -> Reply {
        self.apply_for(applying, argv, true)
    }

    /// The same; where no client waits for the reply, what serves the reply only is left out.
    pub fn apply_for(&mut self, applying: Applying, argv: &[&[u8]], reply_wanted: bool) -> Reply {
        self.advance(applying, DUE_PER_COMMAND);
        match argv.first() {
            Some(&Transaction::NAME) => self.transaction(applying, argv, reply_wanted),
            _ => self.carry_out(argv, |_, _| None),
        }
    }

    /// One command. `read` is asked for the answers of reads, which are in the log only as part of
    /// a transaction.
    pub(super) fn carry_out(
        &mut self,
        argv: &[&[u8]],
        read: impl FnOnce(&Store, Read<'_>) -> Option<Reply>,
    ) -> Reply {
        let operation = command::check(argv).and_then(|spec| command::parse(spec, argv));
        let reply = operation.and_then(|operation| {
            let reply = match operation {
                Operation::Write(write) => return self.write(write),
                Operation::Read(query) => read(self, query),
                Operation::Answer => None,
            };
            reply.ok_or_else(|| {
                let name = command::shown(argv[0]);
                Reply::error(format!("ERR '{name}' is not a command of the log"))
            })
        });
        match reply {
            Ok(reply) | Err(reply) => reply,
        }
    }

    /// Whether a growing write may be proposed: a value may not become longer than a command may
    /// be, or every change to it would hold up everything else. Asked by the leader before it
    /// proposes; apply itself has only the limit of Redis, for it must not depend on settings.
    pub fn admit(&self, write: &Write<'_>, value_bytes_max: usize) -> Result<(), Reply> {
        let end = match write {
            Write::SetRange { offset, value, .. } if !value.is_empty() => {
                offset.saturating_add(value.len())
            }
            Write::Append { key, value } => {
                self.keyspace.find(key).map_or(0, |record| record.value().len()) + value.len()
            }
            _ => return Ok(()),
        };
        // Beyond the limit of Redis apply refuses it, and nothing grows.
        let grows = value_bytes_max < end && end <= STRING_BYTES_MAX;
        if grows { Err(Reply::error(TOO_LONG)) } else { Ok(()) }
    }

    fn write(&mut self, write: Write<'_>) -> Result<Reply, Reply> {
        match write {
            Write::Set { command, key, value, condition, expiry, get } => {
                self.set(command, key, value, condition, expiry, get)
            }
            Write::SetIfAbsent { key, value } => Ok(self.set_if_absent(key, value)),
            Write::GetSet { key, value } => {
                let old = self.value_reply(key);
                self.keyspace.put(natural(key, value, 0));
                Ok(old)
            }
            Write::GetDel { key } => {
                let old = self.value_reply(key);
                self.keyspace.remove(key);
                Ok(old)
            }
            Write::GetEx { key, expiry } => self.get_and_expire(key, expiry),
            Write::MultiSet { pairs, only_if_none_exists } => {
                Ok(self.multi_set(pairs, only_if_none_exists))
            }
            Write::Append { key, value } => self.append(key, value),
            Write::SetRange { key, offset, value } => self.set_range(key, offset, value),
            Write::Increment { key, by } => self.increment(key, by),
            Write::IncrementFloat { key, by } => self.increment_float(key, by),
            Write::Delete { keys } => Ok(self.delete(keys)),
            Write::DeleteIf { key, condition } => {
                let old = self.live(key).map(|old| condition.holds(Some(old.value)));
                let deleted = old == Some(true);
                if deleted {
                    self.keyspace.remove(key);
                }
                Ok(Reply::Integer(deleted.into()))
            }
            Write::Rename { from, to, only_if_absent } => self.rename(from, to, only_if_absent),
            Write::Copy { from, to, replace } => Ok(self.copy(from, to, replace)),
            Write::Expire { command, key, deadline, condition } => {
                self.expire(command, key, deadline, condition)
            }
            Write::Persist { key } => Ok(self.persist(key)),
            Write::Flush => {
                self.keyspace.clear();
                Ok(Reply::OK)
            }
            Write::OpenSession => Ok(self.open_session()),
            Write::Once { session, number, command } => Ok(self.once(session, number, command)),
        }
    }

    /// The record of a key, by the time of the log. An expired one is removed on the way: what
    /// follows may assume that a key either lives or is not there.
    fn live(&mut self, key: &[u8]) -> Option<Parts<'_>> {
        let deadline_ms = self.keyspace.find(key)?.deadline_ms();
        if deadline_ms != 0 && deadline_ms <= self.time_ms {
            self.keyspace.remove(key);
            return None;
        }
        let record = self.keyspace.find(key)?;
        let (form, value) = (record.form(), record.value());
        Some(Parts { key: record.key(), value, form, deadline_ms })
    }

    pub(super) fn exists(&mut self, key: &[u8]) -> bool {
        self.live(key).is_some()
    }

    fn value_reply(&mut self, key: &[u8]) -> Reply {
        self.live(key).map_or(Reply::Null, |old| Reply::bulk(old.value))
    }

    /// Stores a record; one whose deadline has come already leaves nothing behind.
    fn put(&mut self, parts: Parts<'_>) {
        if parts.deadline_ms != 0 && parts.deadline_ms <= self.time_ms {
            self.keyspace.remove(parts.key);
        } else {
            self.keyspace.put(parts);
        }
    }

    /// The deadline as it is kept; a moment before 1970 is as past as any.
    fn deadline_ms(&self, deadline: Deadline, command: &str) -> Result<u64, Reply> {
        Ok(deadline.moment_ms(self.time_ms, command)?.max(1) as u64)
    }

    fn set(
        &mut self,
        command: &str,
        key: &[u8],
        value: &[u8],
        condition: Condition<'_>,
        expiry: Expiry,
        get: bool,
    ) -> Result<Reply, Reply> {
        let deadline_ms = match expiry {
            Expiry::Set(deadline) => Some(self.deadline_ms(deadline, command)?),
            Expiry::Never => Some(0),
            Expiry::Keep => None,
        };
        let plain = condition == Condition::Always && deadline_ms.is_some() && !get;
        let old = if plain { None } else { self.live(key) };
        let holds = condition.holds(old.map(|old| old.value));
        let deadline_ms = deadline_ms.unwrap_or_else(|| old.map_or(0, |old| old.deadline_ms));
        let old_value = get.then(|| old.map_or(Reply::Null, |old| Reply::bulk(old.value)));
        if holds {
            self.put(natural(key, value, deadline_ms));
        }
        Ok(old_value.unwrap_or(if holds { Reply::OK } else { Reply::Null }))
    }

    fn set_if_absent(&mut self, key: &[u8], value: &[u8]) -> Reply {
        if self.exists(key) {
            return Reply::Integer(0);
        }
        self.keyspace.put(natural(key, value, 0));
        Reply::Integer(1)
    }

    fn get_and_expire(&mut self, key: &[u8], expiry: GetExExpiry<'_>) -> Result<Reply, Reply> {
        let Some(old) = self.live(key) else { return Ok(Reply::Null) };
        let reply = Reply::bulk(old.value);
        match expiry {
            GetExExpiry::Keep => {}
            GetExExpiry::Persist => self.keyspace.touch(key, 0),
            GetExExpiry::Set { text, seconds, absolute } => {
                let value = command::number::integer(text)?;
                let deadline = Deadline { value, seconds, absolute };
                deadline.check_positive("getex")?;
                let deadline_ms = self.deadline_ms(deadline, "getex")?;
                self.touch(key, deadline_ms);
            }
        }
        Ok(reply)
    }

    /// Changes the deadline of a key that is there.
    fn touch(&mut self, key: &[u8], deadline_ms: u64) {
        if deadline_ms != 0 && deadline_ms <= self.time_ms {
            self.keyspace.remove(key);
        } else {
            self.keyspace.touch(key, deadline_ms);
        }
    }

    fn multi_set(&mut self, pairs: &[&[u8]], only_if_none_exists: bool) -> Reply {
        if only_if_none_exists && pairs.chunks_exact(2).any(|pair| self.exists(pair[0])) {
            return Reply::Integer(0);
        }
        for pair in pairs.chunks_exact(2) {
            self.keyspace.put(natural(pair[0], pair[1], 0));
        }
        if only_if_none_exists { Reply::Integer(1) } else { Reply::OK }
    }

    fn append(&mut self, key: &[u8], value: &[u8]) -> Result<Reply, Reply> {
        let Some(old) = self.live(key) else {
            self.keyspace.put(natural(key, value, 0));
            return Ok(Reply::Integer(value.len() as i64));
        };
        let length = bounded(old.value.len(), value.len())?;
        let joined = [old.value, value].concat();
        let deadline_ms = old.deadline_ms;
        self.keyspace.put(Parts { key, value: &joined, form: Form::Raw, deadline_ms });
        Ok(Reply::Integer(length as i64))
    }

    fn set_range(&mut self, key: &[u8], offset: usize, value: &[u8]) -> Result<Reply, Reply> {
        let old = self.live(key);
        let (old_value, deadline_ms) =
            old.map_or((&b""[..], 0), |old| (old.value, old.deadline_ms));
        if value.is_empty() {
            return Ok(Reply::Integer(old_value.len() as i64));
        }
        let end = bounded(offset, value.len())?;
        let mut whole = Vec::with_capacity(end.max(old_value.len()));
        whole.extend_from_slice(old_value);
        whole.resize(end.max(old_value.len()), 0);
        whole[offset..end].copy_from_slice(value);
        self.keyspace.put(Parts { key, value: &whole, form: Form::Raw, deadline_ms });
        Ok(Reply::Integer(whole.len() as i64))
    }

    fn increment(&mut self, key: &[u8], by: i64) -> Result<Reply, Reply> {
        let (value, deadline_ms) = match self.live(key) {
            None => (0, 0),
            Some(old) => {
                let value = parse_i64(old.value).ok_or(Reply::error(NOT_AN_INTEGER))?;
                (value, old.deadline_ms)
            }
        };
        let sum = value.checked_add(by);
        let sum = sum.ok_or(Reply::error("ERR increment or decrement would overflow"))?;
        self.keyspace.put(natural(key, sum.to_string().as_bytes(), deadline_ms));
        Ok(Reply::Integer(sum))
    }

    fn increment_float(&mut self, key: &[u8], by: &[u8]) -> Result<Reply, Reply> {
        let not_a_float = || Reply::error(NOT_A_FLOAT);
        let (value, deadline_ms) = match self.live(key) {
            None => (LongDouble::ZERO, 0),
            Some(old) => (LongDouble::parse(old.value).ok_or_else(not_a_float)?, old.deadline_ms),
        };
        let by = LongDouble::parse(by).ok_or_else(not_a_float)?;
        let sum = value.plus(by).filter(LongDouble::is_finite);
        let sum = sum.ok_or(Reply::error("ERR increment would produce NaN or Infinity"))?;
        let text = sum.to_text();
        let value = text.as_bytes();
        self.keyspace.put(Parts { key, value, form: Form::Text, deadline_ms });
        Ok(Reply::bulk(text))
    }

    fn delete(&mut self, keys: &[&[u8]]) -> Reply {
        let mut deleted = 0;
        for key in keys {
            if self.exists(key) {
                self.keyspace.remove(key);
                deleted += 1;
            }
        }
        Reply::Integer(deleted)
    }

    fn rename(&mut self, from: &[u8], to: &[u8], only_if_absent: bool) -> Result<Reply, Reply> {
        if !self.exists(from) {
            return Err(Reply::error(NO_SUCH_KEY));
        }
        let done = if only_if_absent { Reply::Integer(1) } else { Reply::OK };
        if from == to {
            return Ok(if only_if_absent { Reply::Integer(0) } else { done });
        }
        if only_if_absent && self.exists(to) {
            return Ok(Reply::Integer(0));
        }
        let record = self.keyspace.remove(from).expect("it exists, as was just seen");
        let (value, form) = (record.value(), record.form());
        self.keyspace.put(Parts { key: to, value, form, deadline_ms: record.deadline_ms() });
        Ok(done)
    }

    fn copy(&mut self, from: &[u8], to: &[u8], replace: bool) -> Reply {
        if !self.exists(from) || (!replace && self.exists(to)) {
            return Reply::Integer(0);
        }
        let source = self.live(from).expect("it exists, as was just seen");
        let value = source.value.to_vec();
        let (form, deadline_ms) = (source.form, source.deadline_ms);
        self.keyspace.put(Parts { key: to, value: &value, form, deadline_ms });
        Reply::Integer(1)
    }

    fn expire(
        &mut self,
        command: &str,
        key: &[u8],
        deadline: Deadline,
        condition: ExpireCondition,
    ) -> Result<Reply, Reply> {
        let moment_ms = deadline.moment_ms(self.time_ms, command)?;
        let Some(old) = self.live(key) else { return Ok(Reply::Integer(0)) };
        let old_ms = (old.deadline_ms != 0).then_some(old.deadline_ms as i64);
        let holds = (!condition.if_none || old_ms.is_none())
            && (!condition.if_some || old_ms.is_some())
            // No deadline is later than every deadline.
            && (!condition.if_later || old_ms.is_some_and(|old_ms| moment_ms > old_ms))
            && (!condition.if_sooner || old_ms.is_none_or(|old_ms| moment_ms < old_ms));
        if !holds {
            return Ok(Reply::Integer(0));
        }
        self.touch(key, moment_ms.max(1) as u64);
        Ok(Reply::Integer(1))
    }

    fn persist(&mut self, key: &[u8]) -> Reply {
        match self.live(key) {
            Some(old) if old.deadline_ms != 0 => {
                self.keyspace.touch(key, 0);
                Reply::Integer(1)
            }
            _ => Reply::Integer(0),
        }
    }
}

/// The sum of two lengths, if a string may be that long.
fn bounded(length: usize, more: usize) -> Result<usize, Reply> {
    let sum = length.checked_add(more).filter(|sum| *sum <= STRING_BYTES_MAX);
    sum.ok_or(Reply::error(TOO_LONG))
}
