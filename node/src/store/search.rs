//! `KEYS` in slices. Over millions of keys it takes longer than followers wait for a heartbeat,
//! so a loop takes a slice, does what else there is to do, and comes back.
//!
//! What is found is then no picture of one moment, but it is bounded by two: every key that was
//! there from beginning to end is found, every key found was there at some point in between. (In
//! `EXEC` it is one moment, and takes as long as it takes.)

use super::keyspace::Place;
use super::read::REPLY_BYTES_MAX;
use super::record::Record;
use super::{PastDeadline, Reading, Store, glob};
use crate::resp::Reply;

/// A `KEYS` under way.
#[derive(Debug)]
pub struct KeySearch {
    pattern: Vec<u8>,
    /// The first place not yet looked at.
    next: Place,
    found: Vec<Reply>,
    found_bytes: usize,
}

/// What the pattern may cost on one key. Only one made to be slow, on a long key, comes near it.
const STEPS_A_KEY: u64 = 1 << 22;
/// So many bytes looked at cost as much as another key.
const STEPS_AS_A_KEY: u64 = 64;

/// What a key takes in the reply besides its bytes.
const KEY_BYTES: usize = 16;

pub(super) fn too_slow() -> Reply {
    Reply::error("ERR the pattern takes too long on these keys: fewer `*`, or a longer beginning")
}

impl Store {
    pub fn begin_search(
        &self,
        reading: Reading,
        pattern: &[u8],
    ) -> Result<KeySearch, PastDeadline> {
        self.nothing_past(reading.clock_ms)?;
        Ok(KeySearch {
            pattern: pattern.to_vec(),
            next: Place::FIRST,
            found: Vec::new(),
            found_bytes: 0,
        })
    }

    /// Looks at about `records_max` more keys; the answer, once all have been looked at.
    pub fn search_on(&self, search: &mut KeySearch, records_max: usize) -> Option<Reply> {
        let mut seen = 0;
        while let Some(part) = self.keyspace.part_from(search.next) {
            for (place, record) in part.ordered() {
                // What shares a place is looked at together: behind it, all of it has been.
                if seen >= records_max && place > search.next {
                    search.next = place;
                    return None;
                }
                search.next = place;
                seen += 1;
                if !self.lives(record) {
                    continue;
                }
                let key = record.key();
                let mut steps = STEPS_A_KEY;
                let wanted = search.pattern == b"*"
                    || match glob::matches_within(&search.pattern, key, &mut steps) {
                        Some(wanted) => wanted,
                        None => return Some(too_slow()),
                    };
                seen = seen.saturating_add(((STEPS_A_KEY - steps) / STEPS_AS_A_KEY) as usize);
                if wanted {
                    search.found_bytes += key.len() + KEY_BYTES;
                    search.found.push(Reply::bulk(key));
                }
                if search.found_bytes > REPLY_BYTES_MAX {
                    return Some(Reply::error(format!(
                        "ERR the reply would have more than {REPLY_BYTES_MAX} bytes: use SCAN"
                    )));
                }
            }
            search.next = part.next;
            if seen >= records_max {
                return None;
            }
        }
        Some(Reply::Array(std::mem::take(&mut search.found)))
    }

    /// For answers that hang on all keys: is any deadline between the log's time and the clock?
    pub(super) fn nothing_past(&self, clock_ms: u64) -> Result<(), PastDeadline> {
        match self.keyspace.first_deadline_after(self.time_ms) {
            Some(deadline_ms) if deadline_ms <= clock_ms => Err(PastDeadline { deadline_ms }),
            _ => Ok(()),
        }
    }

    /// Once nothing is past: expired keys whose memory is still to be given back do not count.
    pub(super) fn lives(&self, record: &Record) -> bool {
        record.deadline_ms() == 0 || record.deadline_ms() > self.time_ms
    }
}
