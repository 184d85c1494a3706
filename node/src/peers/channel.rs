//! One TCP connection, plain or inside TLS, that never blocks: both directions do what the socket
//! allows now and say so. The core loop can thus write in its own turn, without a task between.

use std::io::{self, BufRead, ErrorKind, IoSlice, Write};
use std::rc::Rc;

use bytes::{Buf, BufMut, BytesMut};
use rustls::Connection;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::tls::{self, PublicKey};

/// Plaintext given to TLS at once; its ciphertext leaves before more is given, so that no more
/// than this waits inside.
const ENCRYPT_BYTES_MAX: usize = 64 << 10;

pub(super) struct Channel {
    pub(super) socket: Rc<TcpStream>,
    tls: Option<Tls>,
}

struct Tls {
    connection: Connection,
    /// Received, not yet decrypted: one read of the socket feeds several records.
    ciphertext: Vec<u8>,
    consumed: usize,
    received: usize,
}

impl Channel {
    pub(super) fn plain(socket: TcpStream) -> Channel {
        Channel { socket: Rc::new(socket), tls: None }
    }

    /// After the handshake. `read_bytes` are read from the socket at once.
    pub(super) fn tls(socket: TcpStream, mut connection: Connection, read_bytes: usize) -> Channel {
        connection.set_buffer_limit(Some(2 * ENCRYPT_BYTES_MAX));
        let ciphertext = vec![0; read_bytes];
        let tls = Tls { connection, ciphertext, consumed: 0, received: 0 };
        Channel { socket: Rc::new(socket), tls: Some(tls) }
    }

    /// The key that the far side has proven to hold; none where links are plain.
    pub(super) fn peer_key(&self) -> Option<PublicKey> {
        tls::peer_key(self.tls.as_ref()?.connection.peer_certificates())
    }

    /// Appends what has arrived. `Ok(0)` is the end of the stream, `WouldBlock` means later.
    pub(super) fn try_read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        match &mut self.tls {
            None => {
                let room = into.chunk_mut().len();
                let count = self.socket.try_read_buf(into)?;
                if count < room {
                    forget_readiness(&self.socket);
                }
                Ok(count)
            }
            Some(tls) => tls.try_read(&self.socket, into),
        }
    }

    /// Gives the front of `out` to the kernel. True when nothing is left here.
    pub(super) fn try_write(&mut self, out: &mut BytesMut) -> io::Result<bool> {
        match &mut self.tls {
            None => {
                while !out.is_empty() {
                    match self.socket.try_write(out) {
                        Ok(count) => out.advance(count),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                        Err(error) => return Err(error),
                    }
                }
                Ok(true)
            }
            Some(tls) => tls.try_write(&self.socket, out),
        }
    }

    /// Reads until something has arrived. `Ok(0)` is the end of the stream.
    pub(super) async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        loop {
            match self.try_read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            self.socket.readable().await?;
        }
    }

    pub(super) async fn write_all(&mut self, out: &mut BytesMut) -> io::Result<()> {
        while !self.try_write(out)? {
            self.socket.writable().await?;
        }
        Ok(())
    }
}

impl Tls {
    fn try_read(&mut self, socket: &TcpStream, into: &mut BytesMut) -> io::Result<usize> {
        let mut total = self.take_plaintext(into)?;
        while total == 0 {
            if self.consumed == self.received {
                self.received = socket.try_read(&mut self.ciphertext)?;
                self.consumed = 0;
                if self.received == 0 {
                    return Ok(0);
                }
                if self.received < self.ciphertext.len() {
                    forget_readiness(socket);
                }
            }
            while self.consumed < self.received {
                let mut waiting = &self.ciphertext[self.consumed..self.received];
                let taken = self.connection.read_tls(&mut waiting)?;
                if taken == 0 {
                    // The far side has said that it is done.
                    return Ok(total);
                }
                self.consumed += taken;
                let state = self.connection.process_new_packets();
                state.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                total += self.take_plaintext(into)?;
            }
        }
        Ok(total)
    }

    fn take_plaintext(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        let mut reader = self.connection.reader();
        let mut total = 0;
        loop {
            let plaintext = match reader.fill_buf() {
                Ok(plaintext) => plaintext,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(total),
                Err(error) => return Err(error),
            };
            let count = plaintext.len();
            if count == 0 {
                return Ok(total);
            }
            into.extend_from_slice(plaintext);
            reader.consume(count);
            total += count;
        }
    }

    fn try_write(&mut self, socket: &TcpStream, out: &mut BytesMut) -> io::Result<bool> {
        loop {
            while self.connection.wants_write() {
                match self.connection.write_tls(&mut NonBlocking(socket)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            if out.is_empty() {
                return Ok(true);
            }
            let count = out.len().min(ENCRYPT_BYTES_MAX);
            let taken = self.connection.writer().write(&out[..count])?;
            out.advance(taken);
        }
    }
}

/// A read has got less than it had room for, so the socket is empty: the next one waits at once
/// instead of asking the kernel in vain. Nothing is lost, as epoll reports by edges and no event is
/// taken in between; and tokio keeps the end of a stream in mind whatever we forget.
fn forget_readiness(socket: &TcpStream) {
    let _: io::Result<()> = socket.try_io(Interest::READABLE, || Err(ErrorKind::WouldBlock.into()));
}

/// Writes what the socket takes now.
struct NonBlocking<'a>(&'a TcpStream);

impl Write for NonBlocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
