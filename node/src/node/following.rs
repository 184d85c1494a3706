//! Reads at a node that does not lead: on connections that said `READONLY`, and as the
//! configuration has it (`follower_reads`).
//!
//! - *linearizable*: the leader is asked how far it is (`Replica::read_at_follower`), once for all
//!   reads of a turn; they are served when the store has come as far. What cannot be served in time
//!   is redirected, or refused where there is no leader.
//! - *stale*: served at once, from what there is, if this node was up to date once since it started:
//!   one that has just been made would answer that no key exists.
//!
//! A read waits for the writes of its own connection, here too: they may be those of a leader that
//! was deposed meanwhile. What hangs on the leader's clock is read at the leader.

use bytes::Bytes;
use config::FollowerReads;
use paxos::{Now, ReadId};

use super::{Node, ReadPath, WaitingRead};
use crate::clients::{Sequence, SessionId};
use crate::command::{self, Class, Spec};

impl Node {
    /// Takes a read that this node may serve without leading, or says that it has to wait. `None`: it
    /// is for the leader.
    pub(super) fn take_at_follower(
        &mut self,
        now: Now,
        session: SessionId,
        sequence: Sequence,
        spec: &'static Spec,
        argv: &[&[u8]],
    ) -> Option<bool> {
        let client = self.clients.get(session)?;
        let is_member = self.configuration().contains(self.replica.id());
        let may_be_here = spec.class == Class::Read && !spec.needs_clock && is_member;
        if !may_be_here || !client.is_readonly(sequence) {
            return None;
        }
        let path = match self.behaviour.follower_reads {
            FollowerReads::Moved => return None,
            FollowerReads::Stale if !self.was_up_to_date => return None,
            FollowerReads::Stale => ReadPath::Stale,
            FollowerReads::Linearizable => {
                let until_us = client.arrived_us(sequence) + self.behaviour.hold_ms * 1_000;
                if now.mono_us >= until_us {
                    return None;
                }
                ReadPath::Follower { until_us }
            }
        };
        let is_stale = path == ReadPath::Stale;
        if client.writes_pending > 0 || (!is_stale && self.replica.happy_with(now).is_none()) {
            return Some(false);
        }
        let read = WaitingRead {
            session,
            sequence,
            hash_slot: spec.keys(argv).next().map_or(0, command::hash_slot),
            work: spec.work,
            path,
            argv: argv.iter().map(|argument| Bytes::copy_from_slice(argument)).collect(),
        };
        self.clients.get_mut(session)?.reads_pending += 1;
        match is_stale {
            true => self.confirmed.push_back(read),
            false => self.reads.push(read),
        }
        Some(true)
    }

    /// Asks the leader from which slot on the waiting reads may be served.
    pub(super) fn ask_leader(&mut self, now: Now) {
        let waiting = std::mem::take(&mut self.reads);
        self.next_read += 1;
        let id = ReadId(self.next_read);
        match self.replica.read_at_follower(now, id, &mut self.output) {
            Ok(()) => drop(self.reads_under_way.insert(id, waiting)),
            Err(_nobody_to_ask) => self.redirect_reads(waiting),
        }
    }

    /// Gives up the reads that have waited for the leader's answer, or for the slot that it named,
    /// for as long as they may. And notes whether this node is up to date.
    pub(super) fn follow_up(&mut self, now: Now) {
        let is_over = |read: &WaitingRead| match read.path {
            ReadPath::Follower { until_us } => until_us <= now.mono_us,
            ReadPath::Lease | ReadPath::Round | ReadPath::Stale => false,
        };
        let over = self.reads_under_way.iter().filter(|(_, reads)| reads.iter().any(is_over));
        if let Some(last) = over.map(|(id, _)| *id).next_back() {
            self.replica.forget_reads_at_follower(last);
            let later = self.reads_under_way.split_off(&ReadId(last.0 + 1));
            let waiting = std::mem::replace(&mut self.reads_under_way, later);
            // Backwards, as each goes in front of what is held already.
            for reads in waiting.into_values().rev() {
                self.redirect_reads(reads);
            }
        }
        if !self.was_up_to_date {
            self.was_up_to_date = self.is_up_to_date(now);
        }
    }

    /// Leading, or with everything applied that the leader was heard to know chosen.
    fn is_up_to_date(&self, now: Now) -> bool {
        match self.replica.happy_with(now) {
            Some(leader) if leader == self.replica.id() => self.clock.is_some(),
            Some(leader) => self.replica.peer_views(now).iter().any(|peer| {
                peer.node == leader && peer.connected && peer.first_unchosen <= self.first_unapplied
            }),
            None => false,
        }
    }
}
