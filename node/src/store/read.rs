//! Reads: at the leader's clock, outside the log, changing nothing.

use super::keyspace::Place;
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

/// Whatever a client asks for, a step of `SCAN` looks at so many keys and the rest of a
/// part: more of them stop others.
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
                Reply::Integer(self.store.keyspace.slot_len(usize::from(hash_slot)) as i64)
            }
            Read::KeysInSlot { hash_slot, count } => {
                self.store.nothing_past(self.now_ms)?;
                let first = Place::new(usize::from(hash_slot), 0);
                let live = self.live_from(first, Place::new(first.slot() + 1, 0), count);
                Reply::Array(Reply::bulks(live.into_iter().map(Record::key)))
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

    /// The cursor is a place in the fixed order of all possible keys, where a part ends. So a key that is there all the time is met exactly once, whatever comes and goes, and even
    /// when the next step is answered by another node.
    fn scan(&self, scan: &Scan<'_>) -> Result<Reply, PastDeadline> {
        self.store.nothing_past(self.now_ms)?;
        let keyspace = &self.store.keyspace;
        let mut place = Place(scan.cursor);
        let mut found = Vec::new();
        let count = scan.count.min(SCAN_COUNT_MAX);
        while found.len() < count
            && let Some(part) = keyspace.part_from(place)
        {
            found.extend(part.ordered().into_iter().map(|(_, record)| record));
            place = part.next;
        }
        let cursor = keyspace.part_from(place).map_or(0, |_| place.0);
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
        // Slots have about the same size, so any full one will do; after some misses, the next. Within
        // one it is a key of the few behind a place by chance: the same one on every node.
        const MISSES_MAX: usize = 64;
        const FEW: usize = 16;
        let tries = std::array::from_fn::<_, MISSES_MAX, _>(|_| (roll() % slots) as usize);
        let start = (roll() % slots) as usize;
        let keyspace = &self.store.keyspace;
        let next = keyspace.occupied_slots(start).chain(keyspace.occupied_slots(0));
        for slot in tries.into_iter().chain(next).filter(|slot| keyspace.slot_len(*slot) > 0) {
            let (first, end) = (Place::new(slot, 0), Place::new(slot + 1, 0));
            let middle = Place::new(slot, Place(roll()).position());
            let mut live = self.live_from(middle, end, FEW);
            live.extend(self.live_from(first, middle, FEW - live.len()));
            if !live.is_empty() {
                let chosen = live[(roll() % live.len() as u64) as usize];
                return Ok(Reply::bulk(chosen.key()));
            }
        }
        Ok(Reply::Null)
    }

    /// Up to `count` records that live, from one place to before another, in their order.
    fn live_from(&self, from: Place, end: Place, count: usize) -> Vec<&Record> {
        let mut live = Vec::new();
        let mut place = from;
        while place < end
            && live.len() < count
            && let Some(part) = self.store.keyspace.part_from(place)
        {
            let records = part.ordered().into_iter().take_while(|(place, _)| *place < end);
            let records = records.map(|(_, record)| record);
            let room = count - live.len();
            live.extend(records.filter(|record| self.store.lives(record)).take(room));
            place = part.next;
        }
        live
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
