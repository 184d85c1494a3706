//! Incoming connections: a bounded number of strangers, each with a deadline, and one task for each
//! connection that has introduced itself, which hands every read's frames to the core as one event.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use config::PeerSecurity;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use super::channel::Channel;
use super::handshake::{HandshakeError, io_error, secure_inbound};
use super::members::{Inbound, Peer};
use super::{LinkEvent, Shared, counters, listener_from, set_options};
use crate::wire::{
    FRAME_BYTES_MAX, Frame, FrameDecoder, HANDSHAKE_FRAME_BYTES_MAX, Hello, Lane, PeerFrame,
    Refusal, WireError,
};

/// Looks at a silent connection before it is given up: the silence of a process that was paused
/// itself is then not held against the peer.
const LOOKS: u32 = 4;
const BACKLOG: i32 = 128;
/// After the kernel had no descriptor or memory for one more connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    listener_from(socket)
}

/// A connection that has not introduced itself yet.
struct HalfOpen {
    serial: u64,
    from: IpAddr,
    handle: AbortHandle,
}

/// Oldest first.
type HalfOpenList = Rc<RefCell<VecDeque<HalfOpen>>>;

pub(super) async fn accept(shared: Rc<Shared>, listener: TcpListener) {
    let half_open = HalfOpenList::default();
    loop {
        let (socket, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                shared.quiet.borrow_mut().trace(format!("accept {error}"), |more| {
                    tracing::warn!("cannot accept a peer's connection: {error}{more}");
                });
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if shared.settings.security == PeerSecurity::Plain && !from.ip().is_loopback() {
            continue;
        }
        // Strangers who hold connections open give way to those who come: a member introduces
        // itself within a round trip.
        if half_open.borrow().len() >= shared.settings.limits.half_open_max {
            evict(&mut half_open.borrow_mut());
        }
        let serial = shared.serial();
        let task = serve(shared.clone(), half_open.clone(), serial, socket, from);
        let handle = shared.spawn(task);
        half_open.borrow_mut().push_back(HalfOpen { serial, from: from.ip(), handle });
    }
}

/// Closes the oldest connection of the address that holds the most.
fn evict(half_open: &mut VecDeque<HalfOpen>) {
    let held = |address: IpAddr| half_open.iter().filter(|other| other.from == address).count();
    let Some(most) = half_open.iter().map(|other| held(other.from)).max() else { return };
    let oldest = half_open.iter().position(|other| held(other.from) == most);
    if let Some(oldest) = oldest.and_then(|oldest| half_open.remove(oldest)) {
        oldest.handle.abort();
    }
}

async fn serve(
    shared: Rc<Shared>,
    half_open: HalfOpenList,
    serial: u64,
    socket: TcpStream,
    from: SocketAddr,
) {
    let deadline = shared.settings.limits.handshake;
    let in_time = tokio::time::timeout(deadline, introduce(&shared, socket, from)).await;
    half_open.borrow_mut().retain(|other| other.serial != serial);
    match in_time.unwrap_or(Err(HandshakeError::TimedOut)) {
        Ok((peer, hello, connection)) => {
            receive(&shared, &peer, serial, from, &hello, connection).await;
        }
        Err(error) => {
            shared.quiet.borrow_mut().trace(format!("{} {}", from.ip(), error.kind()), |more| {
                tracing::warn!(%from, "connection to the peer port closed: {error}{more}");
            });
        }
    }
}

struct Connection {
    channel: Channel,
    decoder: FrameDecoder,
}

async fn introduce(
    shared: &Shared,
    socket: TcpStream,
    from: SocketAddr,
) -> Result<(Rc<Peer>, Hello, Connection), HandshakeError> {
    set_options(&socket, shared.settings.limits.idle).map_err(io_error("set socket options"))?;
    let mut channel = secure_inbound(shared, socket).await?;
    let mut decoder = FrameDecoder::new(HANDSHAKE_FRAME_BYTES_MAX);
    let (peer, hello) = shared.welcome(&mut channel, &mut decoder, from).await?;
    decoder.raise_limit(FRAME_BYTES_MAX);
    Ok((peer, hello, Connection { channel, decoder }))
}

async fn receive(
    shared: &Shared,
    peer: &Peer,
    serial: u64,
    from: SocketAddr,
    hello: &Hello,
    mut connection: Connection,
) {
    let lane = hello.lane;
    let close = Rc::new(Notify::new());
    let inbound = Inbound { serial, process: hello.process, from, close: close.clone() };
    // The same process dials again when it has lost the former connection, which we may not know.
    if let Some(former) = peer.inbound.borrow_mut()[lane.index()].replace(inbound) {
        former.close.notify_one();
    }
    // The membership may have changed while the welcome was on its way.
    if *peer.gone.borrow() {
        return;
    }
    peer.alive.notify_waiters();
    let outcome = tokio::select! {
        outcome = read_frames(shared, peer, lane, &mut connection) => outcome,
        () = close.notified() => Ok(()),
    };
    if let Err(error) = outcome {
        shared.quiet.borrow_mut().trace(format!("{} in {error}", peer.id), |more| {
            let id = peer.id;
            tracing::warn!(peer = %id, %from, %lane, "incoming connection lost: {error}{more}");
        });
    }
    let mut inbound = peer.inbound.borrow_mut();
    let slot = &mut inbound[lane.index()];
    if slot.as_ref().is_some_and(|inbound| inbound.serial == serial) {
        *slot = None;
    }
}

async fn read_frames(
    shared: &Shared,
    peer: &Peer,
    lane: Lane,
    connection: &mut Connection,
) -> io::Result<()> {
    let Connection { channel, decoder } = connection;
    let events = match lane {
        Lane::Control => &shared.control,
        Lane::Bulk => &shared.bulk,
    };
    let mut look = tokio::time::interval(shared.settings.limits.idle / LOOKS);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_looks = 0;
    loop {
        let count = tokio::select! {
            biased;
            count = channel.read(decoder.spare()) => count?,
            _ = look.tick() => {
                silent_looks += 1;
                if silent_looks > LOOKS {
                    let text = format!("silent for {:?}", shared.settings.limits.idle);
                    return Err(io::Error::new(ErrorKind::TimedOut, text));
                }
                continue;
            }
        };
        if count == 0 {
            return Ok(());
        }
        silent_looks = 0;
        peer.counters.received_bytes.add(count as u64);
        let mut frames = Vec::new();
        let decoded = decode(peer, decoder, &mut frames);
        if !frames.is_empty() {
            let event = LinkEvent::Received { from: peer.id, frames };
            if events.send(event).await.is_err() {
                return Ok(());
            }
            // One read each: a peer that sends without a pause must not keep the thread.
            tokio::task::yield_now().await;
        }
        decoded.map_err(|nonsense| io::Error::new(ErrorKind::InvalidData, nonsense))?;
    }
}

/// Takes every whole frame. What came before nonsense is still good.
fn decode(
    peer: &Peer,
    decoder: &mut FrameDecoder,
    frames: &mut Vec<PeerFrame>,
) -> Result<(), Nonsense> {
    while let Some(frame) = decoder.next_frame()? {
        match frame {
            Frame::Peer(frame) => {
                peer.counters.received[counters::kind_of(&frame)].add(1);
                if let PeerFrame::Paxos(message) = &frame {
                    peer.disk.heard(message);
                }
                frames.push(frame);
            }
            Frame::KeepAlive => {}
            Frame::Durable { promised, last_slot } => peer.disk.stated(promised, last_slot),
            Frame::Refused(refusal) => return Err(Nonsense::Refused(refusal)),
            Frame::Hello(_) | Frame::Welcome(_) => return Err(Nonsense::SecondHello),
        }
    }
    Ok(())
}

/// What no member of our release sends.
#[derive(Debug, thiserror::Error)]
enum Nonsense {
    #[error("it speaks another protocol: {0}")]
    Wire(#[from] WireError),
    #[error("it refuses this node: {0}")]
    Refused(Refusal),
    #[error("it introduced itself a second time")]
    SecondHello,
}
