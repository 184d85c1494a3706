//! One task per peer and lane: dials, dials again, and looks after the connection while it lives.
//! The bytes themselves are written by the core loop's `flush`; this task only writes what the
//! socket did not take then.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use super::handshake::{HandshakeError, io_error, secure_outbound};
use super::lane::Ended;
use super::members::Peer;
use super::{Remembered, Shared, set_options};
use crate::wire::{Frame, FrameDecoder, HANDSHAKE_FRAME_BYTES_MAX, Lane};

/// A TCP connection that is not there by then is tried again: the kernel's own second attempt
/// would come no earlier.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// A connection that lasted this long ends the back-off.
const STEADY: Duration = Duration::from_secs(1);

/// Until the peer is no longer a member.
pub(super) async fn run(shared: Rc<Shared>, peer: Rc<Peer>, lane: Lane) {
    let mut gone = peer.gone.subscribe();
    tokio::select! {
        _ = gone.wait_for(|gone| *gone) => {}
        () = keep_connected(&shared, &peer, lane) => {}
    }
    peer.disconnected(&shared, lane).await;
}

async fn keep_connected(shared: &Shared, peer: &Peer, lane: Lane) {
    let limits = &shared.settings.limits;
    let mut pause = limits.retry_min;
    loop {
        let in_time = tokio::time::timeout(limits.handshake, dial(shared, peer, lane)).await;
        let outcome = in_time.unwrap_or(Err(HandshakeError::TimedOut));
        let refused = outcome.as_ref().is_err_and(HandshakeError::is_refusal);
        match outcome {
            Ok(()) => {
                let since = Instant::now();
                trouble_ended(shared, peer, lane);
                peer.connected(shared, lane).await;
                let ended = serve(shared, peer, lane).await;
                peer.disconnected(shared, lane).await;
                trace_end(shared, peer, lane, ended);
                if since.elapsed() >= STEADY {
                    pause = limits.retry_min;
                }
            }
            Err(error) => trouble(shared, peer, lane, &error),
        }
        if refused {
            tokio::time::sleep(shared.jittered(limits.retry_max)).await;
        } else {
            tokio::select! {
                () = tokio::time::sleep(shared.jittered(pause)) => {}
                () = peer.alive.notified() => {}
            }
        }
        pause = (pause * 2).min(limits.retry_max);
    }
}

async fn dial(shared: &Shared, peer: &Peer, lane: Lane) -> Result<(), HandshakeError> {
    let socket = connect(&peer.member.address).await?;
    // A port from the kernel's own range can connect to itself.
    if socket.local_addr().ok() == socket.peer_addr().ok() {
        return Err(HandshakeError::Unexpected("its own port"));
    }
    set_options(&socket, shared.settings.limits.idle).map_err(io_error("set socket options"))?;
    let mut channel = secure_outbound(shared, socket).await?;
    let mut decoder = FrameDecoder::new(HANDSHAKE_FRAME_BYTES_MAX);
    let welcome = shared.introduce(&mut channel, &mut decoder, peer, lane).await?;
    peer.lane(lane).connect(channel, decoder, &welcome);
    Ok(())
}

async fn connect(address: &str) -> Result<TcpStream, HandshakeError> {
    let found = tokio::net::lookup_host(address).await.map_err(io_error("look up the address"))?;
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in found {
        match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(HandshakeError::Io { doing: "connect", source: failure })
}

/// Until the connection ends.
async fn serve(shared: &Shared, peer: &Peer, kind: Lane) -> Ended {
    let lane = peer.lane(kind);
    let Some(socket) = lane.socket() else {
        return Ended::Closed;
    };
    let mut told = None;
    let mut beat = tokio::time::interval(shared.settings.limits.idle / 4);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut blocked = false;
    loop {
        tokio::select! {
            // Only an end can arrive: the far side never sends on this connection.
            readable = socket.readable() => {
                if let Err(error) = readable {
                    return Ended::Failed(error);
                }
                if let Err(ended) = lane.read() {
                    return ended;
                }
            }
            () = lane.attention.notified() => blocked = true,
            _ = socket.writable(), if blocked => match lane.write() {
                Ok(all_gone) => blocked = !all_gone,
                Err(error) => return Ended::Failed(error),
            },
            _ = beat.tick() => {
                let durable = shared.durable.get();
                if kind == Lane::Control && told != Some(durable) {
                    let Remembered { promised, last_slot } = durable;
                    lane.push_frame(&Frame::Durable { promised, last_slot });
                    lane.flush();
                    told = Some(durable);
                }
                if !lane.active.replace(false) {
                    lane.push_frame(&Frame::KeepAlive);
                    lane.flush();
                    lane.active.set(false);
                }
            }
        }
    }
}

fn trouble(shared: &Shared, peer: &Peer, lane: Lane, error: &HandshakeError) {
    let text = error.to_string();
    let (id, address) = (peer.id, &peer.member.address);
    // Said when it changes, and then seldom: a peer that is down for a week is not news.
    let kind = error.kind();
    if *peer.trouble_kind.borrow() != kind {
        shared.quiet.borrow_mut().trace(format!("{id} {kind}"), |more| {
            tracing::warn!(peer = %id, address, %lane, "not connected: {text}{more}");
        });
    }
    *peer.trouble_kind.borrow_mut() = kind;
    peer.counters.set_trouble(Some(text));
}

fn trouble_ended(shared: &Shared, peer: &Peer, lane: Lane) {
    peer.counters.set_trouble(None);
    peer.trouble_kind.borrow_mut().clear();
    let (id, address) = (peer.id, &peer.member.address);
    shared.quiet.borrow_mut().trace(format!("{id} {lane} connected"), |more| {
        tracing::info!(peer = %id, address, %lane, "connected{more}");
    });
}

fn trace_end(shared: &Shared, peer: &Peer, lane: Lane, ended: Ended) {
    let text = match ended {
        Ended::Closed => "it closed the connection".to_owned(),
        Ended::Failed(error) => error.to_string(),
        Ended::Refused(refusal) => format!("it refuses this node: {refusal}"),
        Ended::Nonsense(text) => format!("it speaks another protocol: {text}"),
    };
    let id = peer.id;
    shared.quiet.borrow_mut().trace(format!("{id} {lane} {text}"), |more| {
        tracing::warn!(peer = %id, %lane, "connection lost: {text}{more}");
    });
    peer.counters.set_trouble(Some(text));
}
