//! A thin record: header, key and value in one allocation, behind one pointer.
//!
//! Millions of these are the whole memory of a node, so nothing is kept twice: a table's entry is
//! eight bytes, and the bytes of a record are at once what is hashed, what is written to a
//! snapshot, and what is read back from one. All numbers are little endian, whatever the machine.
//!
//! ```text
//! 0      4          8            12     13       16            24
//! epoch  key length value length form   zeros    deadline, ms  key … value …
//! ```
//! The epoch is when the record was written, counted in snapshots; it belongs to this process and
//! is neither hashed nor saved. The deadline is a moment of log time, 0 for none.

#![expect(unsafe_code, reason = "one pointer instead of pointer and length; see Record")]

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use xxhash_rust::xxh3::xxh3_128;

const HEADER: usize = 24;
/// Where the part begins that is hashed and saved.
const SAVED: usize = 4;

/// How Redis would hold the value, as far as its history decides it; for `OBJECT ENCODING`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Form {
    /// As its bytes say: a number, a short text, a long one.
    Natural = 0,
    /// A text, though it may look like a number (`INCRBYFLOAT`).
    Text = 1,
    /// A growing buffer (`APPEND`, `SETRANGE`).
    Raw = 2,
}

/// What a record is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) form: Form,
    /// 0 for none.
    pub(super) deadline_ms: u64,
}

/// Invariant: points to the start of a boxed slice of bytes, owned by this record alone, whose
/// length is `HEADER` plus the two lengths in its header.
pub(super) struct Record(NonNull<u8>);

// SAFETY: a record owns its bytes like the `Box<[u8]>` that it is made from.
unsafe impl Send for Record {}
// SAFETY: as above; there is no interior mutability.
unsafe impl Sync for Record {}

/// What so many bytes take: allocators have four sizes between a power of two and the next.
pub(super) fn allocated_bytes(length: usize) -> usize {
    let step = (length.next_power_of_two() / 8).max(16);
    length.next_multiple_of(step)
}

impl Record {
    pub(super) fn new(epoch: u32, parts: Parts<'_>) -> Record {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("strings end at 512 MiB");
        let mut bytes = Vec::with_capacity(HEADER + parts.key.len() + parts.value.len());
        bytes.extend_from_slice(&epoch.to_le_bytes());
        bytes.extend_from_slice(&length(parts.key).to_le_bytes());
        bytes.extend_from_slice(&length(parts.value).to_le_bytes());
        bytes.extend_from_slice(&[parts.form as u8, 0, 0, 0]);
        bytes.extend_from_slice(&parts.deadline_ms.to_le_bytes());
        bytes.extend_from_slice(parts.key);
        bytes.extend_from_slice(parts.value);
        let boxed = Box::into_raw(bytes.into_boxed_slice());
        Record(NonNull::new(boxed.cast()).expect("a box is never null"))
    }

    /// Header, key and value.
    fn bytes(&self) -> &[u8] {
        // SAFETY: by the invariant, so many bytes are there, initialised, for as long as `self`.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.length()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes it the only reference. Callers within this file
        // never change the two lengths.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), self.length()) }
    }

    /// Length of the allocation, as the header tells it.
    fn length(&self) -> usize {
        // SAFETY: by the invariant the header is there, initialised, for as long as `self`.
        let header = unsafe { &*self.0.as_ptr().cast::<[u8; HEADER]>() };
        HEADER + read_u32(header, 4) as usize + read_u32(header, 8) as usize
    }

    fn key_length(&self) -> usize {
        read_u32(self.bytes(), 4) as usize
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.bytes()[HEADER..HEADER + self.key_length()]
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.bytes()[HEADER + self.key_length()..]
    }

    pub(super) fn epoch(&self) -> u32 {
        read_u32(self.bytes(), 0)
    }

    pub(super) fn form(&self) -> Form {
        match self.bytes()[12] {
            0 => Form::Natural,
            1 => Form::Text,
            _ => Form::Raw,
        }
    }

    /// 0 for none.
    pub(super) fn deadline_ms(&self) -> u64 {
        read_u64(self.bytes(), 16)
    }

    /// What this record adds to the state hash.
    pub(super) fn state_hash(&self) -> u128 {
        xxh3_128(self.saved())
    }

    /// What a snapshot holds of it.
    pub(super) fn saved(&self) -> &[u8] {
        &self.bytes()[SAVED..]
    }

    /// What it takes of memory.
    pub(super) fn memory_bytes(&self) -> usize {
        allocated_bytes(self.length())
    }

    /// Writes another value over this one, in place if it has the same length.
    pub(super) fn replace(&mut self, epoch: u32, value: &[u8], form: Form, deadline_ms: u64) {
        if self.value().len() == value.len() {
            let start = HEADER + self.key_length();
            self.set_header(epoch, form, deadline_ms);
            self.bytes_mut()[start..].copy_from_slice(value);
        } else {
            *self = Record::new(epoch, Parts { key: self.key(), value, form, deadline_ms });
        }
    }

    pub(super) fn set_header(&mut self, epoch: u32, form: Form, deadline_ms: u64) {
        let bytes = self.bytes_mut();
        bytes[..4].copy_from_slice(&epoch.to_le_bytes());
        bytes[12] = form as u8;
        bytes[16..HEADER].copy_from_slice(&deadline_ms.to_le_bytes());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let slice = std::ptr::slice_from_raw_parts_mut(self.0.as_ptr(), self.length());
        // SAFETY: by the invariant this is the box that `new` took apart, and nobody else has it.
        drop(unsafe { Box::from_raw(slice) });
    }
}

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved<'a> {
    Record(Parts<'a>),
    /// The table of last touches.
    Touches(&'a [u8]),
    /// A session of `ONCE`.
    Session(&'a [u8]),
    /// The highest session id ever given.
    LastSession(&'a [u8]),
}

/// In the place of a form: not a record, but another piece of the state.
const TOUCHES: u8 = 16;
const SESSION: u8 = 17;
const LAST_SESSION: u8 = 18;

impl Saved<'_> {
    /// The bytes of a piece other than a record, laid out like a record without a key.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let (kind, piece) = match self {
            Saved::Record(parts) => return Record::new(0, parts).saved().to_vec(),
            Saved::Touches(piece) => (TOUCHES, piece),
            Saved::Session(piece) => (SESSION, piece),
            Saved::LastSession(piece) => (LAST_SESSION, piece),
        };
        let mut bytes = vec![0; HEADER - SAVED];
        bytes[4..8].copy_from_slice(&(piece.len() as u32).to_le_bytes());
        bytes[8] = kind;
        bytes.extend_from_slice(piece);
        bytes
    }
}

/// Reads one piece off the front of `saved` bytes; `None` if they are cut short or make no sense.
pub(super) fn parse_saved(bytes: &[u8]) -> Option<(Saved<'_>, &[u8])> {
    let header = bytes.get(..HEADER - SAVED)?;
    let key_length = read_u32(header, 0) as usize;
    let value_length = read_u32(header, 4) as usize;
    let body = &bytes[HEADER - SAVED..];
    let key = body.get(..key_length)?;
    let value = body.get(key_length..key_length.checked_add(value_length)?)?;
    let record =
        |form| Saved::Record(Parts { key, value, form, deadline_ms: read_u64(header, 12) });
    let saved = match header[8..12] {
        [0, 0, 0, 0] => record(Form::Natural),
        [1, 0, 0, 0] => record(Form::Text),
        [2, 0, 0, 0] => record(Form::Raw),
        [kind, 0, 0, 0] if header[..4] == [0; 4] && header[12..] == [0; 8] => match kind {
            TOUCHES => Saved::Touches(value),
            SESSION => Saved::Session(value),
            LAST_SESSION => Saved::LastSession(value),
            _ => return None,
        },
        _ => return None,
    };
    Some((saved, &body[key_length + value_length..]))
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Compile-time reminder that a table's entry is one pointer.
const _: () = assert!(size_of::<Option<ManuallyDrop<Record>>>() == size_of::<usize>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let parts = Parts { key: b"key", value: b"value", form: Form::Text, deadline_ms: 77 };
        let mut record = Record::new(5, parts);
        assert_eq!((record.epoch(), record.key(), record.value()), (5, &b"key"[..], &b"value"[..]));
        assert_eq!((record.form(), record.deadline_ms()), (Form::Text, 77));
        assert_eq!(parse_saved(record.saved()), Some((Saved::Record(parts), &b""[..])));

        let hash = record.state_hash();
        record.replace(6, b"VALUE", Form::Raw, 0);
        assert_eq!((record.value(), record.form(), record.epoch()), (&b"VALUE"[..], Form::Raw, 6));
        record.replace(6, b"longer value", Form::Raw, 0);
        assert_eq!(record.key(), b"key");
        record.replace(9, b"value", Form::Text, 77);
        assert_eq!(record.state_hash(), hash, "the epoch is not part of the state");
    }

    #[test]
    fn cut_bytes_are_refused() {
        let parts = Parts { key: b"k", value: b"v", form: Form::Natural, deadline_ms: 0 };
        let record = Record::new(0, parts);
        for length in 0..record.saved().len() {
            assert_eq!(parse_saved(&record.saved()[..length]), None, "{length} bytes");
        }
        let mut lying = record.saved().to_vec();
        lying[..8].fill(0xff);
        assert_eq!(parse_saved(&lying), None);
    }
}
