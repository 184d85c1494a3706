//! The sending end of one lane: a bounded buffer of whole frames, and the connection it drains to.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::Rc;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::Sent;
use super::channel::Channel;
use crate::wire::{self, Frame, FrameDecoder, HANDSHAKE_FRAME_BYTES_MAX, Hello, Refusal};

/// An empty buffer larger than this is given back.
const KEEP_BYTES_MAX: usize = 1 << 20;

pub(super) struct OutLane {
    bytes_max: usize,
    messages_max: usize,
    out: RefCell<OutBuffer>,
    /// `None` while there is no connection; then the buffer is empty.
    connection: RefCell<Option<Connection>>,
    /// The socket takes no more, or has failed: the lane's task has to look.
    pub(super) attention: Notify,
    failure: RefCell<Option<io::Error>>,
    /// A message was dropped since the buffer was last empty.
    full: Cell<bool>,
    /// Something was sent since the last look.
    pub(super) active: Cell<bool>,
}

struct Connection {
    channel: Channel,
    decoder: FrameDecoder,
    /// The peer's process at the far end.
    process: u64,
    /// The newest store version that its program can do, if it has said so.
    store_version_newest: Option<u32>,
}

#[derive(Default)]
struct OutBuffer {
    bytes: BytesMut,
    /// Lengths of the frames in `bytes`; the first may have left in part.
    frames: VecDeque<usize>,
}

/// Why a connection is over.
pub(super) enum Ended {
    Closed,
    Failed(io::Error),
    Refused(Refusal),
    Nonsense(String),
}

impl OutLane {
    pub(super) fn new(bytes_max: usize, messages_max: usize) -> OutLane {
        OutLane {
            bytes_max,
            messages_max,
            out: RefCell::default(),
            connection: RefCell::default(),
            attention: Notify::new(),
            failure: RefCell::default(),
            full: Cell::new(false),
            active: Cell::new(false),
        }
    }

    /// Takes a connection whose far side is known.
    pub(super) fn connect(&self, channel: Channel, decoder: FrameDecoder, welcome: &Hello) {
        assert!(self.out.borrow().bytes.is_empty(), "bytes were queued without a connection");
        *self.failure.borrow_mut() = None;
        *self.connection.borrow_mut() = Some(Connection {
            channel,
            decoder,
            process: welcome.process,
            store_version_newest: welcome.store_version_newest,
        });
    }

    /// Closes the connection, if there is one, and drops what had not left.
    pub(super) fn disconnect(&self) -> bool {
        *self.out.borrow_mut() = OutBuffer::default();
        self.connection.borrow_mut().take().is_some()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.borrow().is_some()
    }

    /// The process at the far end.
    pub(super) fn process(&self) -> Option<u64> {
        self.connection.borrow().as_ref().map(|connection| connection.process)
    }

    pub(super) fn store_version_newest(&self) -> Option<u32> {
        self.connection.borrow().as_ref()?.store_version_newest
    }

    pub(super) fn socket(&self) -> Option<Rc<TcpStream>> {
        self.connection.borrow().as_ref().map(|connection| connection.channel.socket.clone())
    }

    /// Whether this is the first message that was dropped since the buffer was last empty.
    pub(super) fn is_newly_full(&self) -> bool {
        !self.full.replace(true)
    }

    pub(super) fn bytes_queued(&self) -> usize {
        self.out.borrow().bytes.len()
    }

    /// Appends a frame of `len` bytes. A frame above the limit may wait alone, or it never could.
    pub(super) fn push(&self, len: usize, put: impl FnOnce(&mut BytesMut)) -> Sent {
        if !self.is_connected() {
            return Sent::Unconnected;
        }
        let mut out = self.out.borrow_mut();
        let too_many = out.frames.len() >= self.messages_max;
        let too_long = !out.bytes.is_empty() && out.bytes.len() + len > self.bytes_max;
        if too_many || too_long {
            return Sent::Full;
        }
        let before = out.bytes.len();
        put(&mut out.bytes);
        assert_eq!(out.bytes.len() - before, len, "a frame is not as long as it was measured");
        out.frames.push_back(len);
        Sent::Queued
    }

    /// Appends one of the short frames of the link itself. It may be dropped as well.
    pub(super) fn push_frame(&self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        wire::put(&mut bytes, frame).expect("a short frame fits");
        let _ = self.push(bytes.len(), |out| out.extend_from_slice(&bytes));
    }

    /// Writes what the socket takes now, and calls the lane's task when something stays.
    pub(super) fn flush(&self) {
        if self.out.borrow().bytes.is_empty() {
            return;
        }
        match self.write() {
            Ok(true) => {}
            Ok(false) => self.attention.notify_one(),
            Err(error) => {
                *self.failure.borrow_mut() = Some(error);
                self.attention.notify_one();
            }
        }
    }

    /// Writes what the socket takes now. True when nothing is left.
    pub(super) fn write(&self) -> io::Result<bool> {
        if let Some(error) = self.failure.borrow_mut().take() {
            return Err(error);
        }
        let mut connection = self.connection.borrow_mut();
        let Some(Connection { channel, .. }) = connection.as_mut() else {
            return Ok(true);
        };
        let mut out = self.out.borrow_mut();
        let before = out.bytes.len();
        let all_gone = channel.try_write(&mut out.bytes)?;
        let left = before - out.bytes.len();
        self.active.set(true);
        out.forget(left);
        if all_gone {
            self.full.set(false);
        }
        Ok(all_gone)
    }

    /// Looks for what the far side has to say on a connection that it only reads: that it is over.
    pub(super) fn read(&self) -> Result<(), Ended> {
        let mut connection = self.connection.borrow_mut();
        let Some(Connection { channel, decoder, .. }) = connection.as_mut() else {
            return Err(Ended::Closed);
        };
        loop {
            match channel.try_read(decoder.spare()) {
                Ok(0) => return Err(Ended::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Ended::Failed(error)),
            }
            match decoder.next_frame() {
                Ok(None) => {}
                Ok(Some(Frame::Refused(refusal))) => return Err(Ended::Refused(refusal)),
                Ok(Some(_)) => {
                    return Err(Ended::Nonsense("it sends on a connection that only reads".into()));
                }
                Err(error) => return Err(Ended::Nonsense(error.to_string())),
            }
            assert!(
                decoder.pending_len() <= HANDSHAKE_FRAME_BYTES_MAX,
                "the decoder of a refusal holds {} bytes",
                decoder.pending_len()
            );
        }
    }
}

impl OutBuffer {
    /// `count` bytes have left at the front.
    fn forget(&mut self, mut count: usize) {
        while let Some(first) = self.frames.front_mut() {
            if *first > count {
                *first -= count;
                break;
            }
            count -= *first;
            self.frames.pop_front();
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEEP_BYTES_MAX {
            self.bytes = BytesMut::new();
        }
    }
}
