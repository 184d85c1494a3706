//! What a slot's payload holds: the log time it was proposed at, a seed for whatever needs chance,
//! and client commands in the order in which they will be applied. The bytes are the same on every
//! node and for every peer; `paxos` never looks inside.
//!
//! Layout, little-endian: version u8 (1), stamp_ms u64, seed u64, command count u32, then for each
//! command its argument count u32 and for each argument its length u32 and its bytes.

use bytes::{BufMut, Bytes, BytesMut};
use paxos::Value;

use crate::command;
use crate::store::Transaction;

const VERSION: u8 = 1;
const HEADER_LEN: usize = 1 + 8 + 8 + 4;

/// A batch being put together.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: BytesMut,
    command_count: u32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        let mut bytes = BytesMut::with_capacity(1024);
        bytes.put_bytes(0, HEADER_LEN);
        BatchBuilder { bytes, command_count: 0 }
    }
}

impl BatchBuilder {
    pub fn push(&mut self, argv: &[impl AsRef<[u8]>]) {
        self.command_count += 1;
        self.bytes.put_u32_le(length(argv.len()));
        for argument in argv {
            let argument = argument.as_ref();
            self.bytes.put_u32_le(length(argument.len()));
            self.bytes.put_slice(argument);
        }
    }

    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The payload. `stamp_ms` is the leader's log time, `seed` the only chance that apply may use.
    pub fn finish(mut self, stamp_ms: u64, seed: u64) -> Bytes {
        let mut header = &mut self.bytes[..HEADER_LEN];
        header.put_u8(VERSION);
        header.put_u64_le(stamp_ms);
        header.put_u64_le(seed);
        header.put_u32_le(self.command_count);
        self.bytes.freeze()
    }
}

/// Lengths fit: a command is far smaller than 4 GiB, which the door has checked.
fn length(length: usize) -> u32 {
    u32::try_from(length).expect("the door refuses commands of 4 GiB")
}

/// A batch read back from a chosen slot.
#[derive(Debug)]
pub struct Batch<'a> {
    pub stamp_ms: u64,
    pub seed: u64,
    pub command_count: u32,
    rest: &'a [u8],
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BatchError {
    #[error("batch version {0} is newer than this node's {VERSION}: upgrade the node")]
    Version(u8),
    #[error("batch ends in the middle of a command")]
    Truncated,
}

impl<'a> Batch<'a> {
    pub fn read(payload: &'a [u8]) -> Result<Batch<'a>, BatchError> {
        let (header, rest) = payload.split_at_checked(HEADER_LEN).ok_or(BatchError::Truncated)?;
        if header[0] != VERSION {
            return Err(BatchError::Version(header[0]));
        }
        let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let command_count = u32::from_le_bytes(header[17..21].try_into().expect("4 bytes"));
        Ok(Batch { stamp_ms: word(1), seed: word(9), command_count, rest })
    }

    /// The next command's arguments, put into `argv`; false when there is none left.
    pub fn next_command(&mut self, argv: &mut Vec<&'a [u8]>) -> Result<bool, BatchError> {
        argv.clear();
        if self.command_count == 0 {
            return Ok(false);
        }
        self.command_count -= 1;
        let argument_count = self.take_u32()?;
        for _ in 0..argument_count {
            let length = self.take_u32()? as usize;
            let (argument, rest) =
                self.rest.split_at_checked(length).ok_or(BatchError::Truncated)?;
            self.rest = rest;
            argv.push(argument);
        }
        Ok(true)
    }

    fn take_u32(&mut self) -> Result<u32, BatchError> {
        let (word, rest) = self.rest.split_first_chunk::<4>().ok_or(BatchError::Truncated)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*word))
    }
}

/// What a command takes in a payload.
pub fn command_bytes(argv: &[impl AsRef<[u8]>]) -> usize {
    argv.iter().map(|argument| 4 + argument.as_ref().len()).sum::<usize>() + 4
}

/// Could applying this make the state larger? Bytes that cannot be read could.
pub fn may_grow(value: &Value) -> bool {
    let Value::Batch { payload, .. } = value else { return false };
    let Ok(mut batch) = Batch::read(payload) else { return true };
    let mut argv = Vec::new();
    loop {
        match batch.next_command(&mut argv) {
            Ok(false) => return false,
            Ok(true) if !command_may_grow(&argv) => {}
            Ok(true) | Err(_) => return true,
        }
    }
}

/// The same of one command of the log. The door asks by the same words what it proposes while the
/// disk is full: an entry that is proposed and that no full node takes would be adopted by one
/// leader after another.
fn command_may_grow(argv: &[&[u8]]) -> bool {
    if argv.first() == Some(&Transaction::NAME) {
        return Transaction::read(argv)
            .is_none_or(|transaction| transaction.commands.iter().any(|argv| argv_may_grow(argv)));
    }
    argv_may_grow(argv)
}

/// The same of one command of a client. What makes no sense is answered with an error at its place,
/// and changes nothing.
pub fn argv_may_grow(argv: &[&[u8]]) -> bool {
    let Ok(spec) = command::check(argv) else { return false };
    let (spec, _) = command::carried(spec, argv);
    spec.has_flag("denyoom")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_batch_reads_back_as_it_was_written(
            commands in prop::collection::vec(
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..5), 0..8),
            stamp_ms: u64, seed: u64,
        ) {
            let mut builder = BatchBuilder::default();
            for argv in &commands {
                builder.push(argv);
            }
            let payload = builder.finish(stamp_ms, seed);
            let mut batch = Batch::read(&payload).expect("our own bytes");
            prop_assert_eq!((batch.stamp_ms, batch.seed), (stamp_ms, seed));
            let mut argv = Vec::new();
            for expected in &commands {
                prop_assert!(batch.next_command(&mut argv).expect("our own bytes"));
                prop_assert_eq!(&argv, expected);
            }
            prop_assert!(!batch.next_command(&mut argv).expect("our own bytes"));
        }

        #[test]
        fn arbitrary_bytes_never_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut argv = Vec::new();
            if let Ok(mut batch) = Batch::read(&payload) {
                while let Ok(true) = batch.next_command(&mut argv) {}
            }
        }
    }
}
