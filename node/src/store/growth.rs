//! By how much a write may make the state larger, as far as that can be said before it is applied.
//!
//! The leader asks before it proposes, so that the state of all nodes stays within a limit. Most
//! writes bring along whatever they add. A few make much of little: one `COPY` of a long value, one
//! `SETRANGE` far behind its end. And what is proposed and not applied yet may leave values behind
//! that such a write then copies, so the longest of them is known as well.

use super::Store;
use super::apply::STRING_BYTES_MAX;
use super::record::allocated_bytes;
use crate::command::operation::Write;

/// What a record takes besides its key and value, its place in the tables and among the deadlines
/// included; also more than the text of any number.
const RECORD_BYTES: usize = 96;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Memory of the state.
    pub bytes: usize,
    /// The longest value that any of it may leave behind.
    pub longest_bytes: usize,
}

impl Growth {
    pub fn add(&mut self, other: Growth) {
        self.bytes += other.bytes;
        self.longest_bytes = self.longest_bytes.max(other.longest_bytes);
    }

    /// Of all of these.
    pub fn sum(all: impl Iterator<Item = Growth>) -> Growth {
        let mut sum = Growth::default();
        all.for_each(|growth| sum.add(growth));
        sum
    }

    /// Of a write that adds its arguments and nothing else.
    pub fn of_arguments(argv: &[&[u8]]) -> Growth {
        let bytes = argv.iter().map(|argument| record_bytes(argument.len())).sum();
        let longest = argv.iter().map(|argument| argument.len()).max().unwrap_or(0);
        Growth { bytes, longest_bytes: longest.max(RECORD_BYTES) }
    }
}

impl Store {
    /// Of a write that makes much of little, or changes or moves a value as it is; `None` for any
    /// other. `ahead` is what will be applied before it.
    pub fn growth(&self, write: &Write<'_>, ahead: Growth) -> Option<Growth> {
        let longest = |key: &[u8]| self.value_len(key).max(ahead.longest_bytes);
        Some(match write {
            Write::SetRange { key, offset, value } => {
                let end = offset.saturating_add(value.len());
                // Neither changes anything.
                let end = if value.is_empty() || end > STRING_BYTES_MAX { 0 } else { end };
                let bytes = self.extended_bytes(key, end.max(self.value_len(key)));
                Growth { bytes, longest_bytes: longest(key).max(end) }
            }
            Write::Append { key, value } => Growth {
                bytes: self.extended_bytes(key, self.value_len(key) + value.len()),
                longest_bytes: longest(key) + value.len(),
            },
            Write::Copy { from, to, .. } => Growth {
                bytes: record_bytes(to.len() + longest(from)),
                longest_bytes: longest(from),
            },
            // Nothing is added but a name; but under it there may be a longer value than before.
            Write::Rename { from, to, .. } => {
                Growth { bytes: to.len(), longest_bytes: longest(from) }
            }
            _ => return None,
        })
    }

    /// What a value takes more once it is so long.
    fn extended_bytes(&self, key: &[u8], length: usize) -> usize {
        let before = self.keyspace.find(key).map_or(0, |record| record.memory_bytes());
        record_bytes(key.len() + length).saturating_sub(before)
    }
}

/// What a record with so many bytes of key and value takes, at most.
fn record_bytes(length: usize) -> usize {
    allocated_bytes(length + RECORD_BYTES) + RECORD_BYTES
}
