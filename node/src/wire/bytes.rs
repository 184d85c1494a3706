//! Little-endian fields, written to anything that takes bytes and read with every length checked.
//! Nothing here knows what the fields mean.

use bytes::{Bytes, BytesMut};

use super::WireError;

/// Payloads up to this size are copied out of the receive buffer, larger ones stay slices of it.
///
/// A slice keeps its whole buffer alive. The log holds payloads for a long time, and an idle
/// cluster fills most of a buffer with heartbeats: without the copy a 100 byte entry would pin
/// 64 KiB. Copying 16 KiB costs less than a microsecond.
pub(crate) const COPY_BYTES_MAX: usize = 16 << 10;

/// Elements in one list. With the smallest element (a no-op, one byte on the wire and 72 in
/// memory) a hostile frame costs 36 MiB, not a gigabyte.
pub const LIST_COUNT_MAX: usize = 1 << 19;

/// Takes bytes. The counting form measures a message with the code that writes it, so that the
/// two cannot disagree.
pub trait Out {
    fn bytes(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }
    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
    fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }
    /// A list's length. Saturates: a message this long was refused before ([`super::LIST_COUNT_MAX`]).
    fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }
    /// A length and that many bytes, up to 4 GiB.
    fn blob(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes(bytes);
    }
    /// A length in two bytes and that many bytes. What is longer is cut: addresses and keys have
    /// been validated long before.
    fn short(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(usize::from(u16::MAX));
        self.u16(u16::try_from(len).expect("cut to 65535 just above"));
        self.bytes(&bytes[..len]);
    }
}

impl Out for BytesMut {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Out for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts what would be written.
#[derive(Default)]
pub(crate) struct Count(pub(crate) usize);

impl Out for Count {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Reads fields off the front of a received frame.
pub(crate) struct Input {
    rest: Bytes,
}

impl Input {
    pub(crate) fn new(bytes: Bytes) -> Input {
        Input { rest: bytes }
    }

    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<Bytes, WireError> {
        if len > self.rest.len() {
            return Err(WireError::Truncated { what, missing: len - self.rest.len() });
        }
        Ok(self.rest.split_to(len))
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        let Some(head) = self.rest.get(..N) else {
            return Err(WireError::Truncated { what, missing: N - self.rest.len() });
        };
        array.copy_from_slice(head);
        bytes::Buf::advance(&mut self.rest, N);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        Ok(self.array::<1>(what)?[0])
    }
    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }
    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }
    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }
    pub(crate) fn array16(&mut self, what: &'static str) -> Result<[u8; 16], WireError> {
        self.array(what)
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, WireError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(WireError::UnknownKind { what, value }),
        }
    }

    /// A list's length, refused before anything is reserved when its elements, each at least
    /// `element_len_min` bytes, cannot be in what arrived.
    pub(crate) fn count(
        &mut self,
        element_len_min: usize,
        what: &'static str,
    ) -> Result<usize, WireError> {
        let count = self.u32(what)? as usize;
        let needed = count.saturating_mul(element_len_min);
        if needed > self.rest.len() {
            return Err(WireError::Truncated { what, missing: needed - self.rest.len() });
        }
        if count > LIST_COUNT_MAX {
            return Err(WireError::TooMany { what, count });
        }
        Ok(count)
    }

    /// So many elements, as [`Input::count`] has found that there may be. Room is made for exactly
    /// those: a list that grows as it is read takes up to three times as much.
    pub(crate) fn list<T>(
        &mut self,
        count: usize,
        mut element: impl FnMut(&mut Input) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    /// A payload: a copy when small, else a slice of the receive buffer ([`COPY_BYTES_MAX`]).
    pub(crate) fn blob(&mut self, what: &'static str) -> Result<Bytes, WireError> {
        let len = self.u32(what)? as usize;
        let slice = self.take(len, what)?;
        Ok(if len <= COPY_BYTES_MAX { Bytes::copy_from_slice(&slice) } else { slice })
    }

    pub(crate) fn short(&mut self, what: &'static str) -> Result<Vec<u8>, WireError> {
        let len = usize::from(self.u16(what)?);
        Ok(self.take(len, what)?.to_vec())
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<String, WireError> {
        String::from_utf8(self.short(what)?).map_err(|_| WireError::NotText { what })
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// Everything has been read: bytes left over mean that the two sides disagree on the format.
    pub(crate) fn end(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(WireError::LeftOver { count }),
        }
    }
}
