//! Who is there? The first two frames of every connection, and what is refused.
//!
//! The dialling side sends a `Hello`, the other checks it and answers with a `Welcome`, which the
//! dialling side checks by the same rules. Either may answer `Refused` with a reason instead. TLS
//! has let nobody through but holders of a member's key; the hello must match that very member.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use paxos::NodeId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Shared;
use super::admission::{Known, admit};
use super::channel::Channel;
use super::members::Peer;
use crate::wire::{self, Frame, FrameDecoder, Hello, Lane, Refusal, RefusalCode, WireError};

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("{doing}: {source}")]
    Io { doing: &'static str, source: io::Error },
    #[error("TLS handshake: {0}")]
    Tls(String),
    #[error("it speaks another protocol: {0}")]
    Wire(#[from] WireError),
    #[error("it sent {0} where a hello was due")]
    Unexpected(&'static str),
    #[error("it closed the connection before it introduced itself")]
    Closed,
    #[error("it did not introduce itself in time")]
    TimedOut,
    /// The far side does not want us.
    #[error("it refuses this node: {0}")]
    RefusedByPeer(Refusal),
    /// We do not want the far side.
    #[error("refused: {0}")]
    Refused(Refusal),
}

impl HandshakeError {
    /// A refusal stays for a while: no hurry to ask again.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, HandshakeError::RefusedByPeer(_) | HandshakeError::Refused(_))
    }

    /// The same for the same trouble, whatever port or process it names this time.
    pub(super) fn kind(&self) -> String {
        match self {
            HandshakeError::Refused(refusal) | HandshakeError::RefusedByPeer(refusal) => {
                format!("{:?}", refusal.code)
            }
            HandshakeError::Wire(_) => "wire".to_owned(),
            other => other.to_string(),
        }
    }
}

pub(super) fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> HandshakeError {
    move |source| HandshakeError::Io { doing, source }
}

impl Shared {
    /// The dialling side: tell `peer` who we are, and learn that it is `peer`. Returns what it says of
    /// itself.
    pub(super) async fn introduce(
        &self,
        channel: &mut Channel,
        decoder: &mut FrameDecoder,
        peer: &Peer,
        lane: Lane,
    ) -> Result<Hello, HandshakeError> {
        let hello = Frame::Hello(self.hello(peer.id, lane));
        write_frame(channel, &hello).await?;
        let welcome = match read_frame(channel, decoder).await? {
            Frame::Welcome(welcome) => welcome,
            Frame::Refused(refusal) => return Err(HandshakeError::RefusedByPeer(refusal)),
            frame => return Err(HandshakeError::Unexpected(name(&frame))),
        };
        let checked = if welcome.id == peer.id {
            self.check(&welcome, channel, &peer.member.address).map(|_| ())
        } else {
            let text = format!("{} was dialled, {} answers", peer.id, welcome.id);
            Err(Refusal::new(RefusalCode::Misdirected, text))
        };
        match checked {
            Ok(()) => Ok(welcome),
            Err(refusal) => {
                let _ = write_frame(channel, &Frame::Refused(refusal.clone())).await;
                Err(HandshakeError::Refused(refusal))
            }
        }
    }

    /// The answering side: learn who dialled, and answer.
    pub(super) async fn welcome(
        &self,
        channel: &mut Channel,
        decoder: &mut FrameDecoder,
        from: std::net::SocketAddr,
    ) -> Result<(Rc<Peer>, Hello), HandshakeError> {
        let hello = match read_frame(channel, decoder).await {
            Ok(Frame::Hello(hello)) => hello,
            Ok(frame) => return Err(HandshakeError::Unexpected(name(&frame))),
            Err(error) => return Err(error),
        };
        match self.check(&hello, channel, &from.to_string()) {
            Ok(peer) => {
                let welcome = Frame::Welcome(self.hello(hello.id, hello.lane));
                write_frame(channel, &welcome).await?;
                Ok((peer, hello))
            }
            Err(refusal) => {
                say_goodbye(channel, &refusal).await;
                Err(HandshakeError::Refused(refusal))
            }
        }
    }

    fn hello(&self, to: NodeId, lane: Lane) -> Hello {
        Hello {
            store_version_newest: Some(self.settings.store_version_newest),
            ..self.me.hello(to, lane, self.settings.remembered)
        }
    }

    /// Whether the far side is a member that we know, as it was when it became one, and no copy.
    fn check(&self, hello: &Hello, channel: &Channel, at: &str) -> Result<Rc<Peer>, Refusal> {
        let peer = self.peer(hello.id);
        let known = peer.as_ref().map(|peer| Known {
            incarnation: peer.member.incarnation,
            key: peer.member.key,
            disk: &peer.disk,
            other_process: peer.other_process(hello.process),
        });
        admit(&self.me, known, hello, channel.peer_key(), at)?;
        Ok(peer.expect("only a known peer is let in"))
    }
}

async fn write_frame(channel: &mut Channel, frame: &Frame) -> Result<(), HandshakeError> {
    let mut out = BytesMut::new();
    wire::put(&mut out, frame)?;
    channel.write_all(&mut out).await.map_err(io_error("send the hello"))
}

async fn read_frame(
    channel: &mut Channel,
    decoder: &mut FrameDecoder,
) -> Result<Frame, HandshakeError> {
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok(frame);
        }
        let count = channel.read(decoder.spare()).await.map_err(read_error)?;
        if count == 0 {
            return Err(HandshakeError::Closed);
        }
    }
}

/// In TLS 1.3 the client learns only here that its key was not welcome.
fn read_error(source: io::Error) -> HandshakeError {
    match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(_) => tls_error(source),
        None => HandshakeError::Io { doing: "receive the hello", source },
    }
}

/// Says a TLS error in our own words where we know better.
fn tls_error(source: io::Error) -> HandshakeError {
    let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateUnknown)) => {
            let text = "this node's key is not accepted: its current members do not list it";
            HandshakeError::RefusedByPeer(Refusal::new(RefusalCode::WrongKey, text))
        }
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) => {
            HandshakeError::Tls(other.0.to_string())
        }
        _ => HandshakeError::Tls(source.to_string()),
    }
}

/// Says why, and lets it arrive: closing with unread bytes would reset the connection and take the
/// reason with it.
async fn say_goodbye(channel: &mut Channel, refusal: &Refusal) {
    if write_frame(channel, &Frame::Refused(refusal.clone())).await.is_err() {
        return;
    }
    let socket = socket2::SockRef::from(&*channel.socket);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut ignored = BytesMut::new();
    let until_closed = async {
        while matches!(channel.read(&mut ignored).await, Ok(count) if count > 0) {
            ignored.clear();
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(500), until_closed).await;
}

/// The TLS handshake of either side.
pub(super) async fn secure_outbound(
    shared: &Shared,
    socket: TcpStream,
) -> Result<Channel, HandshakeError> {
    let Some(tls) = &shared.tls else { return Ok(Channel::plain(socket)) };
    let connector = tokio_rustls::TlsConnector::from(tls.client.clone());
    let name = crate::tls::PeerTls::server_name();
    let mut stream = connector.connect(name, socket).await.map_err(tls_error)?;
    stream.flush().await.map_err(tls_error)?;
    let (socket, connection) = stream.into_inner();
    // Nothing but a refusal comes back on this connection.
    Ok(Channel::tls(socket, connection.into(), 4 << 10))
}

pub(super) async fn secure_inbound(
    shared: &Shared,
    socket: TcpStream,
) -> Result<Channel, HandshakeError> {
    let Some(tls) = &shared.tls else { return Ok(Channel::plain(socket)) };
    let acceptor = tokio_rustls::TlsAcceptor::from(tls.server.clone());
    let mut stream = acceptor.accept(socket).await.map_err(tls_error)?;
    stream.flush().await.map_err(tls_error)?;
    let (socket, connection) = stream.into_inner();
    if connection.alpn_protocol() != Some(crate::tls::ALPN) {
        return Err(HandshakeError::Unexpected("TLS for another protocol"));
    }
    Ok(Channel::tls(socket, connection.into(), 64 << 10))
}

fn name(frame: &Frame) -> &'static str {
    match frame {
        Frame::Peer(_) => "a message",
        Frame::KeepAlive => "a sign of life",
        Frame::Durable { .. } => "a statement",
        Frame::Hello(_) => "a hello",
        Frame::Welcome(_) => "a welcome",
        Frame::Refused(_) => "a refusal",
    }
}
