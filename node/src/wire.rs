//! The bytes of what leaves this process for another node or for the journal.
//!
//! Peers exchange *frames*. Every number is little-endian:
//! ```text
//! 0  u32 length of everything after byte 8     8  u8  version      10  u32 group, 0 for now
//! 4  u32 crc32 of the length and of the rest   9  u8  frame kind   14  fields
//! ```
//! Journal records carry version, group and kind in the same spirit; the journal itself adds length
//! and checksum. Fields are laid out by hand, one line each; the files in `tests/formats` tell when
//! a format changes. A release reads its own version and the one before; two nodes speak the older
//! of their newest versions; a newer one is an error that says so.
//!
//! Decoding takes bytes from strangers. It never panics, reserves no more than a small multiple of
//! what has arrived, and refuses a frame longer than [`FRAME_BYTES_MAX`] by its head alone. Large
//! payloads are slices of the receive buffer. Nothing here touches a socket or a file.

mod bytes;
mod hello;
mod message;
mod record;
mod value;

use ::bytes::{Bytes, BytesMut};
use paxos::{Ballot, Configuration, Message, Slot};

use self::bytes::{Count, Input};

pub use self::bytes::Out;
pub use self::hello::{Hello, Lane, Refusal, RefusalCode};
pub use self::message::kind_index;
pub use self::record::{
    RECORD_VERSION, RECORD_VERSION_OLDEST, decode_record, decode_records, encode_record,
    encode_records,
};

/// Version of the frames that this release writes.
pub const WIRE_VERSION: u8 = 1;
/// Oldest version that it reads and can write: the one before, for rolling upgrades.
pub const WIRE_VERSION_OLDEST: u8 = 1;
/// The frames of the handshake keep this version for ever, or two releases could not even agree
/// that they disagree. They grow at their end; an older reader ignores what it does not know.
const HANDSHAKE_VERSION: u8 = 1;

/// The only group so far (DESIGN §11).
pub(crate) const GROUP: u32 = 0;

/// Largest value that fits into every message it can travel in: an Accept, a chunk of a Promise
/// or a `Chosen` that already holds a chunk of smaller ones. The door refuses what is larger.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Largest frame, head included.
pub const FRAME_BYTES_MAX: usize = VALUE_BYTES_MAX + (1 << 20);
/// Largest frame before the sender has shown who it is.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 1 << 10;
/// Elements in one list (values of a `Chosen`, entries of a Promise): see `bytes.rs`.
pub use self::bytes::LIST_COUNT_MAX;

const FRAME_HEAD_LEN: usize = 8;
const BODY_HEAD_LEN: usize = 6;
/// Slot and hash.
const STATE_LEN: usize = 24;
/// An empty receive buffer larger than this is given back.
const KEEP_BYTES_MAX: usize = 4 * READ_BYTES;
/// Room that is kept free in the receive buffer for the next read.
const READ_BYTES: usize = 64 << 10;

const _: () = assert!(WIRE_VERSION < WIRE_VERSION_OLDEST + 2);
const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);
const _: () = assert!(self::bytes::COPY_BYTES_MAX < READ_BYTES);

/// Frame kinds. Retired numbers are never given to another kind (PITFALLS 96).
mod frame_kind {
    pub(super) const PAXOS: u8 = 1;
    pub(super) const SNAPSHOT: u8 = 2;
    pub(super) const KEEP_ALIVE: u8 = 3;
    pub(super) const DURABLE: u8 = 4;
    pub(super) const STATES: u8 = 5;
    pub(super) const HELLO: u8 = 16;
    pub(super) const WELCOME: u8 = 17;
    pub(super) const REFUSED: u8 = 18;
}

/// What the rest of the node exchanges with its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerFrame {
    Paxos(Message),
    /// Offers, chunks and acknowledgements of a snapshot; `snapshot.rs` knows what is inside.
    Snapshot(Bytes),
    /// The hash of the sender's state behind each of these slots.
    States(Vec<(Slot, u128)>),
}

/// One frame of a connection between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Peer(PeerFrame),
    /// Says only that the sender is there.
    KeepAlive,
    /// What the sender will still know after any crash.
    Durable {
        promised: Ballot,
        last_slot: Slot,
    },
    /// The first frame of the node that dialled.
    Hello(Hello),
    /// The answer to a hello: who was reached.
    Welcome(Hello),
    /// The last frame of a connection that is not wanted, and why.
    Refused(Refusal),
}

/// What is wrong with bytes that arrived, or with a message that cannot become a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("{what}: {missing} bytes are missing")]
    Truncated { what: &'static str, missing: usize },
    #[error("{count} bytes are left over after the last field")]
    LeftOver { count: usize },
    #[error("a frame of {length} bytes, at most {limit} are allowed")]
    TooLong { length: usize, limit: usize },
    #[error("{what}: {count} elements, at most {LIST_COUNT_MAX} are allowed")]
    TooMany { what: &'static str, count: usize },
    #[error("a frame's checksum is {computed:08x}, its head says {stated:08x}")]
    Checksum { stated: u32, computed: u32 },
    #[error("{what} version {found} is newer than {newest}, the newest that this release reads")]
    NewerVersion { what: &'static str, found: u8, newest: u8 },
    #[error("{what} version {found} is older than {oldest}, the oldest that this release reads")]
    OlderVersion { what: &'static str, found: u8, oldest: u8 },
    #[error("group {found} is not served here, only group {GROUP}")]
    UnknownGroup { found: u32 },
    #[error("{what}: unknown kind {value}")]
    UnknownKind { what: &'static str, value: u8 },
    #[error("{what}: id {id} twice")]
    Duplicate { what: &'static str, id: u32 },
    #[error("{what}: not UTF-8")]
    NotText { what: &'static str },
}

/// Length of the frame of `message`, head included, or why it cannot be sent at all.
pub fn frame_len(message: &Message) -> Result<usize, WireError> {
    let (what, count) = match message {
        Message::Prepare { holds, .. } => ("entries that a candidate holds", holds.len()),
        Message::Promise { entries, .. } => ("promised entries", entries.len()),
        Message::Chosen { values, .. } => ("chosen values", values.len()),
        Message::Heartbeat(heartbeat) => ("connected nodes", heartbeat.connected.len()),
        _ => ("", 0),
    };
    if count > LIST_COUNT_MAX {
        return Err(WireError::TooMany { what, count });
    }
    let mut counter = Count::default();
    message::put_message(&mut counter, message);
    check_frame_len(FRAME_HEAD_LEN + BODY_HEAD_LEN + counter.0)
}

/// Length of the frame of a snapshot part.
pub fn snapshot_frame_len(bytes: &[u8]) -> Result<usize, WireError> {
    check_frame_len(FRAME_HEAD_LEN + BODY_HEAD_LEN + bytes.len())
}

fn check_frame_len(length: usize) -> Result<usize, WireError> {
    if length > FRAME_BYTES_MAX {
        return Err(WireError::TooLong { length, limit: FRAME_BYTES_MAX });
    }
    Ok(length)
}

/// Appends the frame of `message`, whose length is `len` by [`frame_len`].
pub fn put_message(out: &mut BytesMut, message: &Message, len: usize) {
    put_frame(out, WIRE_VERSION, frame_kind::PAXOS, len, |out| {
        message::put_message(out, message);
    });
}

/// Appends the frame of a snapshot part, whose length is `len` by [`snapshot_frame_len`].
pub fn put_snapshot(out: &mut BytesMut, bytes: &[u8], len: usize) {
    put_frame(out, WIRE_VERSION, frame_kind::SNAPSHOT, len, |out| out.bytes(bytes));
}

/// Length of the frame of so many states.
pub fn states_frame_len(count: usize) -> Result<usize, WireError> {
    if count > LIST_COUNT_MAX {
        return Err(WireError::TooMany { what: "states", count });
    }
    check_frame_len(FRAME_HEAD_LEN + BODY_HEAD_LEN + 4 + STATE_LEN * count)
}

/// Appends the frame of states, whose length is `len` by [`states_frame_len`].
pub fn put_states(out: &mut BytesMut, states: &[(Slot, u128)], len: usize) {
    put_frame(out, WIRE_VERSION, frame_kind::STATES, len, |out| {
        out.count(states.len());
        for (slot, hash) in states {
            out.u64(slot.0);
            out.bytes(&hash.to_le_bytes());
        }
    });
}

/// Appends any frame. The ones above are for their senders; this one serves all the rest.
pub fn put(out: &mut BytesMut, frame: &Frame) -> Result<(), WireError> {
    match frame {
        Frame::Peer(PeerFrame::Paxos(message)) => put_message(out, message, frame_len(message)?),
        Frame::Peer(PeerFrame::Snapshot(bytes)) => {
            put_snapshot(out, bytes, snapshot_frame_len(bytes)?);
        }
        Frame::Peer(PeerFrame::States(states)) => {
            put_states(out, states, states_frame_len(states.len())?);
        }
        Frame::KeepAlive => put_frame(out, WIRE_VERSION, frame_kind::KEEP_ALIVE, 0, |_| {}),
        Frame::Durable { promised, last_slot } => {
            put_frame(out, WIRE_VERSION, frame_kind::DURABLE, 0, |out| {
                value::put_ballot(out, *promised);
                out.u64(last_slot.0);
            });
        }
        Frame::Hello(hello) => {
            put_frame(out, HANDSHAKE_VERSION, frame_kind::HELLO, 0, |out| hello.put(out));
        }
        Frame::Welcome(hello) => {
            put_frame(out, HANDSHAKE_VERSION, frame_kind::WELCOME, 0, |out| hello.put(out));
        }
        Frame::Refused(refusal) => {
            put_frame(out, HANDSHAKE_VERSION, frame_kind::REFUSED, 0, |out| refusal.put(out));
        }
    }
    Ok(())
}

fn put_frame(
    out: &mut BytesMut,
    version: u8,
    kind: u8,
    len_reserved: usize,
    fields: impl FnOnce(&mut BytesMut),
) {
    out.reserve(len_reserved.max(FRAME_HEAD_LEN + BODY_HEAD_LEN));
    let start = out.len();
    out.u64(0);
    out.u8(version);
    out.u8(kind);
    out.u32(GROUP);
    fields(out);
    let frame = &mut out[start..];
    assert!(frame.len() <= FRAME_BYTES_MAX, "a frame of {} bytes was laid out", frame.len());
    let length = u32::try_from(frame.len() - FRAME_HEAD_LEN).expect("at most FRAME_BYTES_MAX");
    frame[..4].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(length, &frame[FRAME_HEAD_LEN..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Bytes of a configuration, as snapshots keep it.
pub fn put_configuration(out: &mut impl Out, configuration: &Configuration) {
    out.u8(value::configuration_version(configuration));
    value::put_configuration(out, configuration);
}

/// The configuration that [`put_configuration`] wrote; nothing may follow it.
pub fn decode_configuration(bytes: Bytes) -> Result<Configuration, WireError> {
    let mut input = Input::new(bytes);
    let found = input.u8("configuration version")?;
    let newest = value::CONFIGURATION_VERSION;
    if found > newest {
        return Err(WireError::NewerVersion { what: "configuration", found, newest });
    }
    let oldest = value::CONFIGURATION_VERSION_OLDEST;
    if found < oldest {
        return Err(WireError::OlderVersion { what: "configuration", found, oldest });
    }
    let configuration = value::configuration(&mut input, found)?;
    input.end()?;
    Ok(configuration)
}

/// Cuts a stream of bytes into frames. Give it bytes through [`FrameDecoder::spare`].
///
/// - The buffer at most doubles what has arrived, whatever length a head states.
/// - After an error the stream has no next frame: close the connection.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    limit: usize,
}

impl FrameDecoder {
    /// A decoder that refuses frames longer than `limit`, head included.
    pub fn new(limit: usize) -> FrameDecoder {
        assert!(limit <= FRAME_BYTES_MAX, "a decoder for frames of {limit} bytes");
        FrameDecoder { buffer: BytesMut::new(), limit }
    }

    /// Who sends is known now: longer frames are welcome.
    pub fn raise_limit(&mut self, limit: usize) {
        assert!(limit <= FRAME_BYTES_MAX, "a decoder for frames of {limit} bytes");
        self.limit = limit;
    }

    /// The buffer to append received bytes to, with room for some.
    pub fn spare(&mut self) -> &mut BytesMut {
        let room = self.buffer.capacity() - self.buffer.len();
        if room < READ_BYTES / 16 {
            self.buffer.reserve(READ_BYTES.max(self.buffer.len()));
        }
        &mut self.buffer
    }

    /// Bytes that wait for the rest of their frame.
    pub fn pending_len(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole frame, or `None` until more bytes arrive.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(head) = self.buffer.first_chunk::<FRAME_HEAD_LEN>() else {
            return Ok(None);
        };
        let (length, crc) = head.split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("four of eight bytes"));
        let stated = u32::from_le_bytes(crc.try_into().expect("four of eight bytes"));
        let frame_len = FRAME_HEAD_LEN.saturating_add(length as usize);
        if frame_len > self.limit {
            return Err(WireError::TooLong { length: frame_len, limit: self.limit });
        }
        if self.buffer.len() < frame_len {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(frame_len).freeze();
        let body = frame.split_off(FRAME_HEAD_LEN);
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BYTES_MAX {
            // What a long frame needed is not kept for the short ones after it.
            self.buffer = BytesMut::new();
        }
        let computed = checksum(length, &body);
        if computed != stated {
            return Err(WireError::Checksum { stated, computed });
        }
        decode_body(body).map(Some)
    }
}

fn decode_body(body: Bytes) -> Result<Frame, WireError> {
    let mut input = Input::new(body);
    let version = input.u8("frame version")?;
    let kind = input.u8("frame kind")?;
    match kind {
        frame_kind::HELLO | frame_kind::WELCOME | frame_kind::REFUSED => {
            check_version(version, HANDSHAKE_VERSION, HANDSHAKE_VERSION)?;
        }
        _ => check_version(version, WIRE_VERSION_OLDEST, WIRE_VERSION)?,
    }
    check_group(&mut input)?;
    let frame = match kind {
        frame_kind::PAXOS => Frame::Peer(PeerFrame::Paxos(message::message(&mut input)?)),
        frame_kind::SNAPSHOT => Frame::Peer(PeerFrame::Snapshot(input.rest())),
        frame_kind::STATES => Frame::Peer(PeerFrame::States(states(&mut input)?)),
        frame_kind::KEEP_ALIVE => Frame::KeepAlive,
        frame_kind::DURABLE => Frame::Durable {
            promised: value::ballot(&mut input)?,
            last_slot: value::slot(&mut input, "last slot")?,
        },
        frame_kind::HELLO => Frame::Hello(Hello::take(&mut input)?),
        frame_kind::WELCOME => Frame::Welcome(Hello::take(&mut input)?),
        frame_kind::REFUSED => Frame::Refused(Refusal::take(&mut input)?),
        value => return Err(WireError::UnknownKind { what: "frame", value }),
    };
    input.end()?;
    Ok(frame)
}

fn states(input: &mut Input) -> Result<Vec<(Slot, u128)>, WireError> {
    let count = input.count(STATE_LEN, "states")?;
    input.list(count, |input| {
        let slot = value::slot(input, "slot of a state")?;
        let (low, high) = (input.u64("hash of a state")?, input.u64("hash of a state")?);
        Ok((slot, u128::from(high) << 64 | u128::from(low)))
    })
}

fn check_version(found: u8, oldest: u8, newest: u8) -> Result<(), WireError> {
    if found > newest {
        return Err(WireError::NewerVersion { what: "frame", found, newest });
    }
    if found < oldest {
        return Err(WireError::OlderVersion { what: "frame", found, oldest });
    }
    Ok(())
}

fn check_group(input: &mut Input) -> Result<(), WireError> {
    match input.u32("group")? {
        GROUP => Ok(()),
        found => Err(WireError::UnknownGroup { found }),
    }
}

#[cfg(test)]
mod tests;
