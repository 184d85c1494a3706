//! The longest common subsequence of two values: the classic table, and the walk back through it
//! that Redis makes, so that of several longest ones the same is found.

use crate::command::operation::{CommonSubsequence, CommonSubsequenceOutput};
use crate::resp::Reply;

/// The table has as many cells as the product of the lengths, and takes as long. Redis allows 128 Mi
/// of them; here other commands, and heartbeats, would have to wait for a second.
const CELLS_MAX: usize = 16 << 20;

pub(super) fn reply(one: &[u8], other: &[u8], query: &CommonSubsequence<'_>) -> Reply {
    let cells = (one.len() + 1).checked_mul(other.len() + 1);
    if cells.is_none_or(|cells| cells > CELLS_MAX) {
        return Reply::error(format!(
            "ERR values of {} and {} bytes are too long for LCS: the product of their lengths may \
             be at most {CELLS_MAX}",
            one.len(),
            other.len()
        ));
    }
    let table = Table::of(one, other);
    let length = table.at(one.len(), other.len());
    match query.output {
        CommonSubsequenceOutput::Length => Reply::Integer(i64::from(length)),
        CommonSubsequenceOutput::Text => {
            let mut text = Vec::with_capacity(length as usize);
            table.walk_back(one, other, |step| text.push(one[step.0]));
            text.reverse();
            Reply::bulk(text)
        }
        CommonSubsequenceOutput::Ranges => {
            let mut matches = Matches::default();
            table.walk_back(one, other, |step| matches.add(step));
            let wanted = matches.ranges.into_iter();
            let wanted = wanted.filter(|range| range.length as i64 >= query.match_length_min);
            let ranges = wanted.map(|range| range.reply(query.with_match_length));
            Reply::Map(vec![
                (Reply::bulk("matches"), Reply::Array(ranges.collect())),
                (Reply::bulk("len"), Reply::Integer(i64::from(length))),
            ])
        }
    }
}

/// `at(i, j)` is the length for the first `i` bytes of one and the first `j` of the other.
struct Table {
    cells: Vec<u32>,
    width: usize,
}

impl Table {
    fn of(one: &[u8], other: &[u8]) -> Table {
        let width = other.len() + 1;
        let mut table = Table { cells: vec![0; (one.len() + 1) * width], width };
        for (i, left) in one.iter().enumerate() {
            for (j, right) in other.iter().enumerate() {
                let length = if left == right {
                    table.at(i, j) + 1
                } else {
                    table.at(i, j + 1).max(table.at(i + 1, j))
                };
                table.cells[(i + 1) * width + j + 1] = length;
            }
        }
        table
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }

    /// Calls `step` with the places of each common byte, from the last to the first.
    fn walk_back(&self, one: &[u8], other: &[u8], mut step: impl FnMut((usize, usize))) {
        let (mut i, mut j) = (one.len(), other.len());
        while i > 0 && j > 0 {
            if one[i - 1] == other[j - 1] {
                (i, j) = (i - 1, j - 1);
                step((i, j));
            } else if self.at(i - 1, j) > self.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
    }
}

/// Common bytes that follow one another in both values, collected from the back.
#[derive(Default)]
struct Matches {
    ranges: Vec<Range>,
}

struct Range {
    starts: (usize, usize),
    length: usize,
}

impl Matches {
    fn add(&mut self, step: (usize, usize)) {
        match self.ranges.last_mut() {
            Some(range) if range.starts == (step.0 + 1, step.1 + 1) => {
                range.starts = step;
                range.length += 1;
            }
            _ => self.ranges.push(Range { starts: step, length: 1 }),
        }
    }
}

impl Range {
    fn reply(&self, with_length: bool) -> Reply {
        let pair = |start: usize| {
            let end = start + self.length - 1;
            Reply::Array(vec![Reply::Integer(start as i64), Reply::Integer(end as i64)])
        };
        let mut parts = vec![pair(self.starts.0), pair(self.starts.1)];
        if with_length {
            parts.push(Reply::Integer(self.length as i64));
        }
        Reply::Array(parts)
    }
}
