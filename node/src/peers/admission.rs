//! Who is let in: the rules of the handshake, without its sockets.
//!
//! Both sides of a connection judge the other by them, before anything else.

use paxos::NodeId;

use super::{DiskMemory, Remembered};
use crate::identity::{ClusterUuid, Process, hex};
use crate::tls::PublicKey;
use crate::wire::{Hello, Lane, Refusal, RefusalCode, WIRE_VERSION, WIRE_VERSION_OLDEST};

/// Who a node is to its peers.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    pub cluster: ClusterUuid,
    pub id: NodeId,
    pub incarnation: u64,
    pub process: Process,
}

/// What a node knows of the member that somebody says to be.
pub struct Known<'a> {
    pub incarnation: u64,
    /// None where links are plain.
    pub key: Option<PublicKey>,
    pub disk: &'a DiskMemory,
    /// Another process that holds a connection as this member, in words.
    pub other_process: Option<String>,
}

impl Own {
    /// How it introduces itself.
    pub fn hello(&self, to: NodeId, lane: Lane, remembered: Remembered) -> Hello {
        Hello {
            version_oldest: WIRE_VERSION_OLDEST,
            version_newest: WIRE_VERSION,
            cluster: self.cluster.0,
            id: self.id,
            incarnation: self.incarnation,
            to,
            lane,
            starts: self.process.starts,
            process: self.process.nonce,
            former: self.process.former,
            promised: remembered.promised,
            last_slot: remembered.last_slot,
            store_version_newest: None,
        }
    }
}

/// Whether whoever says `hello` and shows `key` is `known`, as it was when it became a member, and no
/// copy. If so, `me` keeps in mind that it has met this process.
pub fn admit(
    me: &Own,
    known: Option<Known<'_>>,
    hello: &Hello,
    key: Option<PublicKey>,
    at: &str,
) -> Result<(), Refusal> {
    let id = hello.id;
    let refuse = |code, text: String| Err(Refusal::new(code, text));
    if hello.cluster != me.cluster.0 {
        let theirs = ClusterUuid(hello.cluster);
        let text = format!("{id} at {at} is of cluster {theirs}, {} of {}", me.id, me.cluster);
        return refuse(RefusalCode::ForeignCluster, text);
    }
    if hello.to != me.id {
        let text = format!("{id} at {at} wants to reach {}, this is {}", hello.to, me.id);
        return refuse(RefusalCode::Misdirected, text);
    }
    if id == me.id {
        let text = format!(
            "{id} at {at} is process {:016x}, but {id} is this node, process {:016x}: this data \
             directory was copied",
            hello.process, me.process.nonce
        );
        return refuse(RefusalCode::SecondProcess, text);
    }
    let Some(known) = known else {
        let text = format!("{id} at {at} is not a member that {} knows", me.id);
        return refuse(RefusalCode::NotAMember, text);
    };
    if hello.incarnation != known.incarnation {
        let text = format!(
            "{id} at {at} has incarnation {:016x}, the member has {:016x}: its disk was formatted \
             again; it can only come back under a new id",
            hello.incarnation, known.incarnation
        );
        return refuse(RefusalCode::WrongIncarnation, text);
    }
    if key != known.key {
        let theirs = key.map_or("no key".to_owned(), |key| format!("key {}", hex(&key)));
        let text = format!("{id} at {at} shows {theirs}, which is not the member's");
        return refuse(RefusalCode::WrongKey, text);
    }
    if hello.agree().is_none() {
        let text = format!(
            "{id} at {at} speaks wire versions {} to {}, {} speaks {WIRE_VERSION_OLDEST} to \
             {WIRE_VERSION}: upgrade one release at a time",
            hello.version_oldest, hello.version_newest, me.id
        );
        return refuse(RefusalCode::NoCommonVersion, text);
    }
    known.disk.check(hello, at)?;
    if let Some(other) = known.other_process {
        let text = format!(
            "{id} at {at} is process {:016x}, but {id} is connected already: {other}",
            hello.process
        );
        return refuse(RefusalCode::SecondProcess, text);
    }
    known.disk.met(hello);
    Ok(())
}
