//! Reads: at the leader's clock, outside the log, changing nothing.

use super::keyspace::KeyHash;
use super::lcs;
use super::record::{Form, Record};
use super::search::too_slow;
use super::{PastDeadline, Reading, Store, glob};
use crate::command::number::parse_i64;
use crate::command::operation::{Operation, Read, Scan, TimeForm};
use crate::command::{self, HASH_SLOTS};
use crate::resp::Reply;

/// The longest text that Redis keeps in one piece with its object.
const EMBEDDED_BYTES_MAX: usize = 44;

/// A hash slot with more keys than this is scanned in several steps.
const SCAN_WHOLE_SLOT_MAX: usize = 512;

/// Whatever a client asks for, a step of `SCAN` looks at about so many keys: more of them stop others.
const SCAN_COUNT_MAX: usize = 16 * 1024;
/// What the pattern of one step of `SCAN` may cost.
const SCAN_STEPS: u64 = 1 << 24;

/// A reply of many values is no longer than this: it is put together in memory (PITFALLS 42).
pub(super) const REPLY_BYTES_MAX: usize = 64 << 20;

impl Store {
    /// The answer of a read command, or the deadline that the log must pass first.
    pub fn read(&self, reading: Reading, argv: &[&[u8]]) -> Result<Reply, PastDeadline> {
        match command::check(argv).and_then(|spec| command::parse(spec, argv)) {
            Ok(Operation::Read(read)) => self.answer(reading, read),
            Ok(_) => Ok(Reply::error(format!("ERR '{}' is not a read", command::shown(argv[0])))),
            Err(error) => Ok(error),
        }
    }

    /// The same for a command that has been parsed already.
    pub fn answer(&self, reading: Reading, read: Read<'_>) -> Result<Reply, PastDeadline> {
        View { store: self, now_ms: reading.clock_ms.max(self.time_ms) }.read(read, reading.seed)
    }
}

/// The store at a moment that the log has not reached yet.
struct View<'a> {
    store: &'a Store,
    now_ms: u64,
}

impl View<'_> {
    fn read(&self, read: Read<'_>, seed: u64) -> Result<Reply, PastDeadline> {
        Ok(match read {
            Read::Get { key } => self.value(key)?,
            Read::MultiGet { keys } => {
                let mut bytes = 0;
                for key in keys {
                    bytes += self.find(key)?.map_or(0, |record| record.value().len());
                }
                if bytes > REPLY_BYTES_MAX {
                    return Ok(Reply::error(format!(
                        "ERR the reply would have {bytes} bytes, at most {REPLY_BYTES_MAX} are sent"
                    )));
                }
                Reply::Array(keys.iter().map(|key| self.value(key)).collect::<Result<_, _>>()?)
            }
            Read::Length { key } => {
                Reply::Integer(self.find(key)?.map_or(0, |record| record.value().len()) as i64)
            }
            Read::Range { key, start, end } => {
                let value = self.find(key)?.map_or(&b""[..], Record::value);
                Reply::bulk(range(value, start, end))
            }
            Read::Exists { keys } => {
                let mut count = 0;
                for key in keys {
                    count += i64::from(self.find(key)?.is_some());
                }
                Reply::Integer(count)
            }
            Read::Type { key } => {
                Reply::status(if self.find(key)?.is_some() { "string" } else { "none" })
            }
            Read::Encoding { key } => {
                self.find(key)?.map_or(Reply::Null, |record| Reply::bulk(encoding(record)))
            }
            Read::TimeToLive { key, form } => Reply::Integer(self.time_to_live(key, form)?),
            Read::Keys { pattern } => self.keys(pattern)?,
            Read::Scan(scan) => self.scan(&scan)?,
            Read::RandomKey => self.random_key(seed)?,
            Read::Count => {
                self.store.nothing_past(self.now_ms)?;
                Reply::Integer(self.store.len() as i64)
            }
            Read::CommonSubsequence(query) => {
                let [one, other] = query.keys;
                let value = |key| Ok(self.find(key)?.map_or(&b""[..], Record::value));
                lcs::reply(value(one)?, value(other)?, &query)
            }
            Read::CountInSlot { hash_slot } => {
                self.store.nothing_past(self.now_ms)?;
                Reply::Integer(self.store.keyspace.slot(usize::from(hash_slot)).len() as i64)
            }
            Read::KeysInSlot { hash_slot, count } => {
                self.store.nothing_past(self.now_ms)?;
                let records = self.store.keyspace.slot(usize::from(hash_slot)).iter();
                let live = records.filter(|record| self.store.lives(record)).take(count);
                Reply::Array(Reply::bulks(live.map(Record::key)))
            }
        })
    }

    /// The record of a key: there, not there, or not known before the log has caught up.
    fn find(&self, key: &[u8]) -> Result<Option<&Record>, PastDeadline> {
        let Some(record) = self.store.keyspace.find(key) else { return Ok(None) };
        match record.deadline_ms() {
            0 => Ok(Some(record)),
            deadline_ms if deadline_ms <= self.store.time_ms => Ok(None),
            deadline_ms if deadline_ms <= self.now_ms => Err(PastDeadline { deadline_ms }),
            _ => Ok(Some(record)),
        }
    }

    fn value(&self, key: &[u8]) -> Result<Reply, PastDeadline> {
        Ok(self.find(key)?.map_or(Reply::Null, |record| Reply::bulk(record.value())))
    }

    fn time_to_live(&self, key: &[u8], form: TimeForm) -> Result<i64, PastDeadline> {
        let Some(record) = self.find(key)? else { return Ok(-2) };
        if record.deadline_ms() == 0 {
            return Ok(-1);
        }
        // A key that is still there has at least a millisecond to live: `find` saw to it.
        let base_ms = if form.absolute { 0 } else { self.now_ms };
        let left_ms = record.deadline_ms() - base_ms;
        Ok(if form.seconds { (left_ms + 500) / 1000 } else { left_ms } as i64)
    }

    /// At once; a loop with other things to do uses a `KeySearch`.
    fn keys(&self, pattern: &[u8]) -> Result<Reply, PastDeadline> {
        let reading = Reading { clock_ms: self.now_ms, seed: 0 };
        let mut search = self.store.begin_search(reading, pattern)?;
        Ok(self.store.search_on(&mut search, usize::MAX).expect("all of them in one slice"))
    }

    /// The cursor is a place in one fixed order of all possible keys: by hash slot, then by hash.
    /// So a key that is there all the time is met exactly once, whatever comes and goes, and even
    /// when the next step is answered by another node.
    fn scan(&self, scan: &Scan<'_>) -> Result<Reply, PastDeadline> {
        self.store.nothing_past(self.now_ms)?;
        let mut found = Vec::new();
        let mut seen = 0;
        let mut cursor = scan.cursor;
        let count = scan.count.min(SCAN_COUNT_MAX);
        while seen < count {
            let keyspace = &self.store.keyspace;
            let Some(slot) = keyspace.occupied_slots((cursor >> 39) as usize).next() else {
                cursor = 0;
                break;
            };
            let slot = slot as u64;
            let position = if slot == cursor >> 39 { cursor & ((1 << 39) - 1) } else { 0 };
            let mut here: Vec<(u64, &Record)> = keyspace
                .slot(slot as usize)
                .iter()
                .map(|record| (KeyHash::of(record.key()).scan_position(), record))
                .filter(|(place, _)| *place >= position)
                .collect();
            cursor = (slot + 1) << 39;
            let room = (count - seen).max(SCAN_WHOLE_SLOT_MAX);
            if here.len() > room {
                let (_, (last, _), _) =
                    here.select_nth_unstable_by_key(room - 1, |(place, _)| *place);
                let last = *last;
                here.retain(|(place, _)| *place <= last);
                cursor = (slot << 39) + last + 1;
            }
            seen += here.len();
            found.extend(here.into_iter().map(|(_, record)| record));
        }
        if self.store.keyspace.occupied_slots((cursor >> 39) as usize).next().is_none() {
            cursor = 0;
        }
        let mut steps = SCAN_STEPS;
        let mut wanted = Vec::new();
        for record in found.into_iter().filter(|record| scan.strings && self.store.lives(record)) {
            let matches = |pattern| glob::matches_within(pattern, record.key(), &mut steps);
            match scan.pattern.map_or(Some(true), matches) {
                Some(true) => wanted.push(Reply::bulk(record.key())),
                Some(false) => {}
                None => return Ok(too_slow()),
            }
        }
        let keys = Reply::Array(wanted);
        Ok(Reply::Array(vec![Reply::bulk(cursor.to_string()), keys]))
    }

    fn random_key(&self, seed: u64) -> Result<Reply, PastDeadline> {
        self.store.nothing_past(self.now_ms)?;
        let slots = u64::from(HASH_SLOTS);
        let mut dice = seed;
        let mut roll = || {
            // SplitMix64: a good spread from any seed.
            dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (dice ^ (dice >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        // Tables have about the same size, so any full one will do; after some misses, the next.
        const MISSES_MAX: usize = 64;
        let tries = std::array::from_fn::<_, MISSES_MAX, _>(|_| (roll() % slots) as usize);
        let start = (roll() % slots) as usize;
        let keyspace = &self.store.keyspace;
        let next = keyspace.occupied_slots(start).chain(keyspace.occupied_slots(0));
        for slot in tries.into_iter().chain(next) {
            let table = keyspace.slot(slot);
            let live = || table.iter().filter(|record| self.store.lives(record));
            match live().count() {
                0 => {}
                count => {
                    let chosen = live().nth((roll() % count as u64) as usize);
                    return Ok(chosen.map_or(Reply::Null, |record| Reply::bulk(record.key())));
                }
            }
        }
        Ok(Reply::Null)
    }
}

/// The part of `value` from `start` to `end`, both included, both from the end if negative.
fn range(value: &[u8], start: i64, end: i64) -> &[u8] {
    let length = value.len() as i64;
    if length == 0 || (start < 0 && end < 0 && start > end) {
        return b"";
    }
    let place = |index: i64| if index < 0 { (length + index).max(0) } else { index };
    let (start, end) = (place(start), place(end).min(length - 1));
    if start > end { b"" } else { &value[start as usize..=end as usize] }
}

fn encoding(record: &Record) -> &'static str {
    let value = record.value();
    match record.form() {
        Form::Raw => "raw",
        Form::Natural if parse_i64(value).is_some() => "int",
        _ if value.len() <= EMBEDDED_BYTES_MAX => "embstr",
        _ => "raw",
    }
}
