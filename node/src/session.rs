//! One client connection: bytes in, requests to the core; replies leave through the loop, or
//! through here when the socket did not take them at once.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::clients::SessionId;
use crate::clock;
use crate::command::{self, ConnectionState, Door};
use crate::resp::{Limits, Reply, RequestParser};
use crate::shell::{Connection, Core, Shell};
use crate::view::View;

/// A client that has not said who it is by then is closed, where users are configured.
const AUTHENTICATE_WITHIN: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 64 << 10;

thread_local! {
    /// One buffer for all connections: ten thousand idle clients must not hold ten thousand.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Accepts clients for ever.
pub async fn accept(shell: Rc<Shell>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => welcome(&shell, stream, peer),
            Err(error) => {
                // Out of file descriptors, most likely: others go on, new ones wait.
                tracing::warn!(%error, "accept a client");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn welcome(shell: &Rc<Shell>, stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream)
        .set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)));
    let mut core = shell.core.borrow_mut();
    core.connections_received += 1;
    if core.connections.len() as u64 >= core.config.behaviour.connections_max {
        let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
        return;
    }
    let local = stream.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let open = core.users.is_empty();
    let now_ms = clock::now().wall_ms;
    let id = core
        .node
        .clients
        .open(|id| ConnectionState::new(id, peer.to_string(), local, open, now_ms));
    let connection = Rc::new(Connection {
        stream,
        wake: Notify::new(),
        backlog: Cell::new(false),
        paused: Cell::new(false),
    });
    core.connections.insert(id, Rc::clone(&connection));
    drop(core);
    let shell = Rc::clone(shell);
    tokio::task::spawn_local(async move {
        serve(&shell, id, &connection).await;
        let mut core = shell.core.borrow_mut();
        core.connections.remove(&id);
        core.node.clients.close(id);
    });
}

async fn serve(shell: &Rc<Shell>, id: SessionId, connection: &Connection) {
    let mut parser = RequestParser::new();
    // Bytes of a request that is not complete yet; empty, and without memory, most of the time.
    let mut rest: Vec<u8> = Vec::new();
    // Runs while nobody has authenticated, also after a RESET, and while a connection that is cut
    // off waits for its client to read.
    let deadline = tokio::time::sleep(AUTHENTICATE_WITHIN);
    tokio::pin!(deadline);
    let mut counting = true;
    loop {
        let (has_room, must_end, is_drained) = {
            let core = shell.core.borrow();
            let Some(session) = core.node.clients.get(id) else { return };
            let must_end = session.closing || !session.connection.is_authenticated();
            let is_drained = session.closing && session.out.is_empty();
            (core.node.clients.has_room(id), must_end, is_drained)
        };
        if is_drained {
            return;
        }
        if must_end && !counting {
            deadline.as_mut().reset(tokio::time::Instant::now() + AUTHENTICATE_WITHIN);
        }
        counting = must_end;
        connection.paused.set(!has_room);
        tokio::select! {
            ready = connection.stream.readable(), if has_room => {
                if ready.is_err() {
                    return;
                }
                // Others may have taken what was left, between the last look and this one.
                if !shell.core.borrow().node.clients.has_room(id) {
                    continue;
                }
                let read = SCRATCH.with_borrow_mut(|scratch| {
                    let count = connection.stream.try_read(scratch)?;
                    take_in(shell, id, &mut parser, &mut rest, &scratch[..count]);
                    Ok::<usize, std::io::Error>(count)
                });
                match read {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
            ready = connection.stream.writable(), if connection.backlog.get() => {
                if ready.is_err() {
                    return;
                }
                connection.backlog.set(false);
                shell.core.borrow_mut().write_out(id);
            }
            () = connection.wake.notified() => {}
            () = &mut deadline, if must_end => return,
        }
    }
}

/// Takes bytes of a client apart into requests, and those to the core.
fn take_in(
    shell: &Rc<Shell>,
    id: SessionId,
    parser: &mut RequestParser,
    rest: &mut Vec<u8>,
    bytes: &[u8],
) {
    let mut core = shell.core.borrow_mut();
    let had_rest = !rest.is_empty();
    if had_rest {
        rest.extend_from_slice(bytes);
    }
    let buffer: &[u8] = if had_rest { rest } else { bytes };
    let mut consumed = 0;
    loop {
        let limits = core.request_limits(id);
        match parser.parse(&buffer[consumed..], &limits) {
            Ok(None) => break,
            Ok(Some(request)) => {
                consumed += request.consumed;
                if !request.arguments.is_empty() {
                    core.command(id, &request.arguments);
                }
                if core.node.clients.get(id).is_none_or(|session| session.closing) {
                    consumed = buffer.len();
                    break;
                }
            }
            Err(error) => {
                core.node.clients.refuse_protocol(id, &error.reply());
                consumed = buffer.len();
                break;
            }
        }
    }
    if had_rest {
        rest.drain(..consumed);
        if rest.is_empty() {
            *rest = Vec::new();
        }
    } else if consumed < bytes.len() {
        rest.extend_from_slice(&bytes[consumed..]);
    }
    if let Some(session) = core.node.clients.get_mut(id) {
        session.rest_bytes = rest.capacity();
    }
    core.node.clients.progressed(id);
    core.node.clients.recount(id);
    shell.wake.notify_one();
}

impl Core {
    fn request_limits(&self, id: SessionId) -> Limits {
        let authenticated =
            self.node.clients.get(id).is_some_and(|session| session.connection.is_authenticated());
        if authenticated {
            Limits::authenticated(self.config.behaviour.command_bytes_max as usize)
        } else {
            Limits::unauthenticated()
        }
    }

    /// One request: who may it, what is it, and who carries it out.
    fn command(&mut self, id: SessionId, argv: &[&[u8]]) {
        self.commands_processed += 1;
        let now = clock::now();
        let Some(spec) = self.node.command(now, id, argv) else { return };
        let Some(session) = self.node.clients.get(id) else { return };
        let mut connection = session.connection.clone();
        let cluster_uuid = self.identity.cluster.to_string();
        let view = View { core: self, session: id, now, cluster_uuid };
        let mut door = Door { connection: &mut connection, server: &view, close: false };
        let reply: Reply = command::answer(spec, &mut door, argv);
        let close = door.close;
        if let Some(session) = self.node.clients.get_mut(id) {
            session.connection = connection;
        }
        self.node.answered(now, id, spec, reply);
        if close {
            self.node.clients.close_after_replies(id);
        }
    }
}
