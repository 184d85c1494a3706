//! Links between nodes.
//!
//! Each node dials every other member. A connection carries frames one way only, from the node that
//! dialled, and there are two of them: the *control* lane for everything small, and the *bulk* lane
//! for what is long, so that a heartbeat never waits behind a snapshot (PITFALLS 43, 46). A pair of
//! nodes thus holds four connections. Before anything else both sides of each say who they are;
//! a foreign cluster, an unknown node, a formatted-again disk, a second process on a copied
//! directory or an older copy of it is refused with a reason (`handshake.rs`; PITFALLS 8–10, 27,
//! 75, 76).
//!
//! What the core loop may rely on:
//! - [`Links::send`] never waits and never allocates without bound. It lays the frame out in the
//!   peer's buffer, or drops the message and counts it: the protocol repeats what matters.
//!   [`Links::flush`], once per turn, hands every buffer to its socket with one write; what the
//!   socket does not take leaves by itself later.
//! - A slow or dead peer costs its own bounded buffers and nothing else.
//! - [`LinkEvent::Connected`]: messages to the peer can leave; what was sent before may be lost. It
//!   may repeat. [`LinkEvent::Disconnected`]: the connection is lost; a killed process shows at
//!   once, a host that lost its power within two seconds or so (PITFALLS 85). Neither says anything
//!   about the other direction.
//! - Frames of one lane arrive in the order they were sent; between lanes there is no order.
//! - Bytes from strangers close their connection and nothing else.
//!
//! Everything runs on the core's thread, inside its `LocalSet`.

mod admission;
mod channel;
mod counters;
mod handshake;
mod inbound;
mod lane;
mod members;
mod memory;
mod outbound;
mod quiet;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use config::PeerSecurity;
use paxos::{Ballot, Configuration, Message, NodeId, Replica, Slot};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::lane::OutLane;
use self::members::Peer;
use self::quiet::Quiet;
use crate::identity::{Identity, Process};
use crate::tls::{KeyError, MemberKeys, PeerTls};
use crate::wire::{self, Lane, PeerFrame};

pub use self::admission::{Known, Own, admit};
pub use self::counters::{Count, KINDS, PeerCounters};
pub use self::members::check_own;
pub use self::memory::DiskMemory;

/// What happens on the links.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkEvent {
    Connected(NodeId),
    Disconnected(NodeId),
    /// All frames of one read, in order.
    Received {
        from: NodeId,
        frames: Vec<PeerFrame>,
    },
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Queued,
    /// Dropped: the peer's buffer is full.
    Full,
    /// Dropped: no connection, or no such peer.
    Unconnected,
    /// Dropped: it fits into no frame.
    TooLong,
}

#[derive(Clone, Debug)]
pub struct LinkSettings {
    pub listen: SocketAddr,
    pub security: PeerSecurity,
    pub limits: Limits,
    /// What this node remembered when it started.
    pub remembered: Remembered,
    /// What the peers are told that this program can do.
    pub store_version_newest: u32,
}

/// What a replica knew after its recovery. Peers refuse a node that knows less than it has stated
/// to them before: see `memory.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    pub promised: Ballot,
    /// The highest slot that it holds an entry of, or has in its snapshot.
    pub last_slot: Slot,
}

impl Remembered {
    /// All that a replica knows of after its recovery, for its hello. What was given up because some
    /// snapshot covered it is remembered too, even where that file is bad now and an older one was
    /// taken: such slots are unreadable here, not empty, and nobody gets a vote on them.
    pub fn of(replica: &Replica) -> Remembered {
        let durable = Remembered::durable(replica);
        let below = replica.first_unchosen().max(replica.first_kept());
        let last_slot = durable.last_slot.max(Slot(below.0.saturating_sub(1)));
        Remembered { last_slot, ..durable }
    }

    /// What is in the journal, and so survives the loss of any snapshot. Only this is stated to
    /// peers: a file that rots must not make an older copy of the disk that it was on.
    pub fn durable(replica: &Replica) -> Remembered {
        let trimmed = Slot(replica.recorded_trimmed_below().0.saturating_sub(1));
        let last_slot = replica.last_slot().map_or(trimmed, |last_slot| last_slot.max(trimmed));
        Remembered { promised: replica.promised(), last_slot }
    }
}

/// Bounds of time and memory. The defaults are right for production; tests tighten them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes that wait for the control lane of one peer; one longer frame may always wait alone.
    pub control_bytes_max: usize,
    /// The same for the bulk lane.
    pub bulk_bytes_max: usize,
    /// Messages that wait for one lane.
    pub messages_max: usize,
    /// Silence of a connection after which it counts as dead.
    pub idle: Duration,
    /// A connection that has not introduced itself by then is closed.
    pub handshake: Duration,
    /// Incoming connections that may be introducing themselves at once; the oldest gives way.
    pub half_open_max: usize,
    /// Pause before the first attempt to dial again, doubled with each one, half of it random.
    pub retry_min: Duration,
    pub retry_max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // The window of slots in flight (16 MiB of values) fits with its heads.
            control_bytes_max: 17 << 20,
            bulk_bytes_max: 32 << 20,
            messages_max: 1 << 16,
            idle: Duration::from_secs(2),
            handshake: Duration::from_secs(5),
            half_open_max: 64,
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_millis(500),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    #[error("listen for peers on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("set up TLS between nodes")]
    Tls(#[from] KeyError),
    #[error(
        "peers = \"plain\" is for loopback only, but {who} is at {address}: use peers = \"tls\""
    )]
    PlainBeyondLoopback { who: String, address: String },
    #[error(
        "this node is {id} with incarnation {incarnation:016x} and key {public_key}, but the \
         members list has {listed}: was this data directory formatted after the list was made?"
    )]
    NotListed { id: NodeId, incarnation: u64, public_key: String, listed: String },
    #[error("member {id}: {what}")]
    BadMember { id: NodeId, what: String },
}

/// The sending side, and the owner of every link task.
pub struct Links {
    shared: Rc<Shared>,
}

/// The receiving side.
pub struct LinkEvents {
    control: mpsc::Receiver<LinkEvent>,
    bulk: mpsc::Receiver<LinkEvent>,
    /// Small events taken since the last long one, which must not wait for ever either.
    control_in_a_row: u32,
}

/// Batches that wait for the core: small ones in number, long ones by their few.
const CONTROL_EVENTS_MAX: usize = 256;
const BULK_EVENTS_MAX: usize = 4;
/// Small events that may overtake a long one.
const CONTROL_IN_A_ROW_MAX: u32 = 32;
/// Messages longer than this take the bulk lane, whatever they say.
const CONTROL_MESSAGE_LEN_MAX: usize = 64 << 10;

/// What the tasks of one node's links have in common.
struct Shared {
    me: Own,
    settings: LinkSettings,
    tls: Option<PeerTls>,
    keys: Arc<MemberKeys>,
    peers: RefCell<BTreeMap<NodeId, Rc<Peer>>>,
    counters: RefCell<BTreeMap<NodeId, Arc<PeerCounters>>>,
    /// What is durable here, told to every peer now and then.
    durable: Cell<Remembered>,
    /// What each disk has said, whatever became of its links.
    disks: RefCell<BTreeMap<(NodeId, u64), Rc<DiskMemory>>>,
    control: mpsc::Sender<LinkEvent>,
    bulk: mpsc::Sender<LinkEvent>,
    tasks: RefCell<JoinSet<()>>,
    quiet: RefCell<Quiet>,
    random: RefCell<SmallRng>,
    serials: Cell<u64>,
}

impl Links {
    /// Listens, and dials every other member of `configuration` from now on. Call it inside the
    /// runtime and its `LocalSet`. `process` is what `identity::begin_process` counted.
    pub fn start(
        identity: &Identity,
        process: Process,
        configuration: &Configuration,
        settings: LinkSettings,
    ) -> Result<(Links, LinkEvents), LinksError> {
        let Identity { id, incarnation, key, .. } = identity;
        check_own(*id, *incarnation, key.public(), configuration, settings.security)?;
        let members = members::read(configuration, settings.security)?;
        let listen = settings.listen;
        if settings.security == PeerSecurity::Plain && !listen.ip().is_loopback() {
            let (who, address) = ("this node's peer port".to_owned(), listen.to_string());
            return Err(LinksError::PlainBeyondLoopback { who, address });
        }
        let keys = Arc::new(MemberKeys::default());
        let tls = match settings.security {
            PeerSecurity::Tls => Some(PeerTls::new(&identity.key, keys.clone())?),
            PeerSecurity::Plain => None,
        };
        let listener = inbound::listen(listen)
            .map_err(|source| LinksError::Listen { address: listen, source })?;
        let (control, control_events) = mpsc::channel(CONTROL_EVENTS_MAX);
        let (bulk, bulk_events) = mpsc::channel(BULK_EVENTS_MAX);
        let shared = Rc::new(Shared {
            me: Own {
                cluster: identity.cluster,
                id: identity.id,
                incarnation: identity.incarnation,
                process,
            },
            durable: Cell::new(settings.remembered),
            settings,
            tls,
            keys,
            peers: RefCell::default(),
            counters: RefCell::default(),
            disks: RefCell::default(),
            control,
            bulk,
            tasks: RefCell::default(),
            quiet: RefCell::default(),
            random: RefCell::new(SmallRng::from_os_rng()),
            serials: Cell::new(0),
        });
        shared.replace_members(members);
        shared.spawn(inbound::accept(shared.clone(), listener));
        let links = Links { shared };
        let events = LinkEvents { control: control_events, bulk: bulk_events, control_in_a_row: 0 };
        Ok((links, events))
    }

    /// Lays `message` out in the buffer of `to`, or drops it.
    pub fn send(&self, to: NodeId, message: &Message) -> Sent {
        let peers = self.shared.peers.borrow();
        let Some(peer) = peers.get(&to) else {
            return Sent::Unconnected;
        };
        let len = match wire::frame_len(message) {
            Ok(len) => len,
            Err(error) => return peer.refuse_to_send(&self.shared, message.kind(), &error),
        };
        let lane = match message {
            Message::Chosen { .. } => Lane::Bulk,
            _ if len > CONTROL_MESSAGE_LEN_MAX => Lane::Bulk,
            _ => Lane::Control,
        };
        peer.send(&self.shared, lane, wire::kind_index(message), len, |out| {
            wire::put_message(out, message, len);
        })
    }

    /// Sends one part of a snapshot on the bulk lane. Its sender paces itself by the answer and by
    /// [`Links::bulk_bytes_queued`].
    pub fn send_snapshot(&self, to: NodeId, part: &Bytes) -> Sent {
        let peers = self.shared.peers.borrow();
        let Some(peer) = peers.get(&to) else {
            return Sent::Unconnected;
        };
        let len = match wire::snapshot_frame_len(part) {
            Ok(len) => len,
            Err(error) => return peer.refuse_to_send(&self.shared, "snapshot", &error),
        };
        peer.send(&self.shared, Lane::Bulk, counters::SNAPSHOT, len, |out| {
            wire::put_snapshot(out, part, len);
        })
    }

    /// Tells a peer what state this node is in.
    pub fn send_states(&self, to: NodeId, states: &[(Slot, u128)]) -> Sent {
        let peers = self.shared.peers.borrow();
        let Some(peer) = peers.get(&to) else {
            return Sent::Unconnected;
        };
        let len = match wire::states_frame_len(states.len()) {
            Ok(len) => len,
            Err(error) => return peer.refuse_to_send(&self.shared, "states", &error),
        };
        peer.send(&self.shared, Lane::Control, counters::STATES, len, |out| {
            wire::put_states(out, states, len);
        })
    }

    /// Hands every buffer to its socket. Once per turn of the loop.
    pub fn flush(&self) {
        for peer in self.shared.peers.borrow().values() {
            peer.lanes.iter().for_each(OutLane::flush);
        }
    }

    /// This node will still know `durable` after any crash. Peers are told within half a second,
    /// and refuse a directory that knows less.
    pub fn note_durable(&self, durable: Remembered) {
        let before = self.shared.durable.get();
        self.shared.durable.set(Remembered {
            promised: before.promised.max(durable.promised),
            last_slot: before.last_slot.max(durable.last_slot),
        });
    }

    /// Bytes that wait here for the bulk lane of `to`.
    pub fn bulk_bytes_queued(&self, to: NodeId) -> usize {
        let peers = self.shared.peers.borrow();
        peers.get(&to).map_or(0, |peer| peer.lane(Lane::Bulk).bytes_queued())
    }

    /// Links to members that are gone or are no longer the same close, those to new ones open.
    /// From now on a handshake accepts the keys of `configuration` only.
    pub fn update_members(&self, configuration: &Configuration) -> Result<(), LinksError> {
        let members = members::read(configuration, self.shared.settings.security)?;
        self.shared.replace_members(members);
        Ok(())
    }

    /// Could links lead to these members?
    pub fn check_members(&self, configuration: &Configuration) -> Result<(), LinksError> {
        members::read(configuration, self.shared.settings.security).map(drop)
    }

    /// The counters of every peer that was ever a member, this node not included.
    pub fn counters(&self) -> Vec<(NodeId, Arc<PeerCounters>)> {
        let counters = self.shared.counters.borrow();
        counters.iter().map(|(id, counters)| (*id, counters.clone())).collect()
    }

    /// The newest store version that the program of a connected peer can do, if it has said so.
    pub fn store_version_newest(&self, peer: NodeId) -> Option<u32> {
        self.shared.peer(peer)?.lane(Lane::Control).store_version_newest()
    }

    pub fn is_connected(&self, peer: NodeId) -> bool {
        let peers = self.shared.peers.borrow();
        peers.get(&peer).is_some_and(|peer| peer.counters.is_connected())
    }

    /// Closes every connection and the port, and returns when that is done. Dropping the links
    /// does the same a little later.
    pub async fn close(self) {
        let mut tasks = std::mem::take(&mut *self.shared.tasks.borrow_mut());
        tasks.shutdown().await;
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.shared.tasks.borrow_mut().abort_all();
    }
}

impl LinkEvents {
    /// The next event, small ones first; `None` once the links are gone. May be dropped at any
    /// time without losing an event.
    pub async fn recv(&mut self) -> Option<LinkEvent> {
        if let Some(event) = self.try_recv() {
            return Some(event);
        }
        tokio::select! {
            biased;
            event = self.control.recv() => event,
            Some(event) = self.bulk.recv() => Some(event),
        }
    }

    /// An event that is there already.
    pub fn try_recv(&mut self) -> Option<LinkEvent> {
        if self.control_in_a_row < CONTROL_IN_A_ROW_MAX
            && let Ok(event) = self.control.try_recv()
        {
            self.control_in_a_row += 1;
            return Some(event);
        }
        self.control_in_a_row = 0;
        self.bulk.try_recv().or_else(|_| self.control.try_recv()).ok()
    }
}

impl Shared {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> tokio::task::AbortHandle {
        let mut tasks = self.tasks.borrow_mut();
        while let Some(ended) = tasks.try_join_next() {
            // A broken invariant stops the node, also where panics do not abort.
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        tasks.spawn_local(task)
    }

    fn peer(&self, id: NodeId) -> Option<Rc<Peer>> {
        self.peers.borrow().get(&id).cloned()
    }

    /// A number that no other connection of this process has.
    fn serial(&self) -> u64 {
        let serial = self.serials.get() + 1;
        self.serials.set(serial);
        serial
    }

    /// Between half of `pause` and all of it.
    fn jittered(&self, pause: Duration) -> Duration {
        pause.mul_f64(self.random.borrow_mut().random_range(0.5..=1.0))
    }
}

/// Options that every connection between nodes needs.
fn set_options(socket: &tokio::net::TcpStream, idle: Duration) -> io::Result<()> {
    let socket = socket2::SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    // Sent and not acknowledged for this long: the far side is gone, although no FIN came.
    socket.set_tcp_user_timeout(Some(idle))
}

fn listener_from(socket: socket2::Socket) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}
