//! The members that links lead to, and what is kept for each of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use config::PeerSecurity;
use paxos::{Configuration, NodeId};
use tokio::sync::{Notify, watch};

use super::lane::OutLane;
use super::memory::DiskMemory;
use super::{LinkEvent, LinksError, PeerCounters, Sent, Shared, outbound};
use crate::identity::hex;
use crate::tls::PublicKey;
use crate::wire::{Lane, WireError};

/// What a member is, as far as links care. A member that changes in any of it is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) incarnation: u64,
    /// None where links are plain.
    pub(super) key: Option<PublicKey>,
    /// host:port
    pub(super) address: String,
}

/// One other member and its four connections.
pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) member: Member,
    pub(super) lanes: [OutLane; 2],
    pub(super) inbound: RefCell<[Option<Inbound>; 2]>,
    pub(super) counters: Arc<PeerCounters>,
    pub(super) disk: Rc<DiskMemory>,
    /// True once it is no longer a member.
    pub(super) gone: watch::Sender<bool>,
    /// It has just dialled us: so it is up, and worth dialling.
    pub(super) alive: Notify,
    /// The kind of trouble that was traced last, empty while connected.
    pub(super) trouble_kind: RefCell<String>,
    /// `Connected` was the last event of the control lane.
    announced: Cell<bool>,
}

/// An incoming connection that has introduced itself.
pub(super) struct Inbound {
    pub(super) serial: u64,
    pub(super) process: u64,
    pub(super) from: SocketAddr,
    pub(super) close: Rc<Notify>,
}

impl Peer {
    pub(super) fn lane(&self, lane: Lane) -> &OutLane {
        &self.lanes[lane.index()]
    }

    /// Another process than `process` that holds a connection with us as this peer.
    pub(super) fn other_process(&self, process: u64) -> Option<String> {
        let inbound = self.inbound.borrow();
        let mut dialled_us = inbound.iter().flatten();
        if let Some(other) = dialled_us.find(|inbound| inbound.process != process) {
            return Some(format!("process {:016x} from {}", other.process, other.from));
        }
        let mut reached = self.lanes.iter().filter_map(OutLane::process);
        let other = reached.find(|other| *other != process)?;
        Some(format!("process {other:016x} at {}", self.member.address))
    }

    pub(super) fn send(
        &self,
        shared: &Shared,
        lane: Lane,
        kind: usize,
        len: usize,
        put: impl FnOnce(&mut BytesMut),
    ) -> Sent {
        let sent = self.lane(lane).push(len, put);
        match sent {
            Sent::Queued => {
                self.counters.sent[kind].add(1);
                self.counters.sent_bytes.add(len as u64);
            }
            Sent::Full => {
                self.counters.dropped_full.add(1);
                if !self.lane(lane).is_newly_full() {
                    return sent;
                }
                shared.quiet.borrow_mut().trace(format!("{} {lane} full", self.id), |more| {
                    let id = self.id;
                    tracing::warn!(peer = %id, %lane, "buffer is full, messages are dropped{more}");
                });
            }
            Sent::Unconnected => self.counters.dropped_unconnected.add(1),
            Sent::TooLong => unreachable!("a lane does not measure"),
        }
        sent
    }

    pub(super) fn refuse_to_send(&self, shared: &Shared, kind: &str, error: &WireError) -> Sent {
        self.counters.dropped_too_long.add(1);
        shared.quiet.borrow_mut().trace(format!("{} {kind} {error}", self.id), |more| {
            tracing::error!(peer = %self.id, kind, "a message fits into no frame: {error}{more}");
        });
        Sent::TooLong
    }

    /// The lane has a connection now.
    pub(super) async fn connected(&self, shared: &Shared, lane: Lane) {
        if lane == Lane::Control {
            self.counters.connected.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        if self.lanes.iter().all(OutLane::is_connected) {
            self.announced.set(true);
            let _ = shared.control.send(LinkEvent::Connected(self.id)).await;
        }
    }

    /// Closes the lane's connection, if it has one.
    pub(super) async fn disconnected(&self, shared: &Shared, lane: Lane) {
        if !self.lane(lane).disconnect() {
            return;
        }
        self.counters.disconnects.add(1);
        if lane == Lane::Control {
            self.counters.connected.store(false, std::sync::atomic::Ordering::Relaxed);
            if self.announced.replace(false) {
                let _ = shared.control.send(LinkEvent::Disconnected(self.id)).await;
            }
        }
    }

    fn close(&self) {
        self.gone.send_replace(true);
        for inbound in self.inbound.borrow().iter().flatten() {
            inbound.close.notify_one();
        }
    }
}

impl Shared {
    pub(super) fn replace_members(self: &Rc<Self>, members: BTreeMap<NodeId, Member>) {
        let keys = members.iter().filter_map(|(id, member)| Some((member.key?, *id))).collect();
        self.keys.replace(keys);
        self.peers.borrow_mut().retain(|id, peer| {
            let stays = members.get(id) == Some(&peer.member);
            if !stays {
                tracing::info!(peer = %id, address = peer.member.address, "no longer a member");
                peer.close();
            }
            stays
        });
        for (id, member) in members {
            if id != self.me.id && self.peer(id).is_none() {
                self.add_peer(id, member);
            }
        }
    }

    fn add_peer(self: &Rc<Self>, id: NodeId, member: Member) {
        let limits = &self.settings.limits;
        let counters = self.counters.borrow_mut().entry(id).or_default().clone();
        let disk = self.disks.borrow_mut().entry((id, member.incarnation)).or_default().clone();
        let peer = Rc::new(Peer {
            id,
            member,
            lanes: [
                OutLane::new(limits.control_bytes_max, limits.messages_max),
                OutLane::new(limits.bulk_bytes_max, limits.messages_max),
            ],
            inbound: RefCell::default(),
            counters,
            disk,
            gone: watch::Sender::new(false),
            alive: Notify::new(),
            trouble_kind: RefCell::default(),
            announced: Cell::new(false),
        });
        for lane in Lane::ALL {
            self.spawn(outbound::run(self.clone(), peer.clone(), lane));
        }
        self.peers.borrow_mut().insert(id, peer);
    }
}

/// The members of a configuration, refused when links to them would not be safe.
pub(super) fn read(
    configuration: &Configuration,
    security: PeerSecurity,
) -> Result<BTreeMap<NodeId, Member>, LinksError> {
    let mut members = BTreeMap::new();
    let mut owners = BTreeMap::new();
    for (id, member) in &configuration.members {
        let id = *id;
        let key = match security {
            PeerSecurity::Plain => None,
            PeerSecurity::Tls => Some(member.public_key.as_slice().try_into().map_err(|_| {
                let what = format!("its public key has {} bytes, not 32", member.public_key.len());
                LinksError::BadMember { id, what }
            })?),
        };
        if let Some(other) = key.and_then(|key: PublicKey| owners.insert(key, id)) {
            return Err(LinksError::BadMember { id, what: format!("it has the key of {other}") });
        }
        let address = member.peer_address.clone();
        let Some((host, port)) = address.rsplit_once(':') else {
            let what = format!("its peer address `{address}` is not host:port");
            return Err(LinksError::BadMember { id, what });
        };
        if port.parse::<u16>().is_err() {
            let what = format!("its peer address `{address}` has no port number");
            return Err(LinksError::BadMember { id, what });
        }
        if security == PeerSecurity::Plain && !is_loopback(host) {
            return Err(LinksError::PlainBeyondLoopback { who: format!("member {id}"), address });
        }
        members.insert(id, Member { incarnation: member.incarnation, key, address });
    }
    Ok(members)
}

/// If this node is listed, it must be the very one. One that joins, or was removed, is not listed.
pub fn check_own(
    id: NodeId,
    incarnation: u64,
    public_key: PublicKey,
    configuration: &Configuration,
    security: PeerSecurity,
) -> Result<(), LinksError> {
    let listed = match configuration.members.get(&id) {
        None => return Ok(()),
        Some(member) if member.incarnation != incarnation => {
            format!("incarnation {:016x}", member.incarnation)
        }
        Some(member) if security == PeerSecurity::Tls && member.public_key != public_key => {
            format!("key {}", hex(&member.public_key))
        }
        Some(_) => return Ok(()),
    };
    Err(LinksError::NotListed { id, incarnation, public_key: hex(&public_key), listed })
}

/// Names are not asked for: what they mean may change later.
fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
