//! The journey of a snapshot to a peer: the streams that leave, the one that comes in, and the log
//! that is kept meanwhile. What each of them goes by is in `sending.rs`, `receiving.rs` and
//! `pins.rs`; here they meet the node, the disk and the links.

use std::time::Duration;

use bytes::Bytes;
use paxos::{NodeId, Now, Slot};

use super::file::{FileId, name_of};
use super::part::{NOT_WANTED, Part};
use super::pins::{Over, Standing, Verdict};
use super::receiving::{StreamCounts, Taken};
use super::sending::{Ended, Outgoing, Stage};
use super::{Job, PartSender, Snapshots};
use crate::metrics::SnapshotKind;
use crate::node::Node;

/// A peer that does not want a file is not offered one for so long.
const PAUSE_US: u64 = 5_000_000;

impl Snapshots {
    pub fn is_installing(&self) -> bool {
        self.receiving.is_active()
    }

    /// Peers for which writers are slowed.
    pub fn slowed_for(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.pins.slowed_for()
    }

    pub fn stream_counts(&self) -> StreamCounts {
        self.receiving.counts
    }

    // ---- what leaves --------------------------------------------------------------------------

    /// `peer` needs slots that are trimmed here.
    pub fn wanted(&mut self, now: Now, peer: NodeId, node: &Node, links: &dyn PartSender) {
        let paused = self.paused_until_us.get(&peer).is_some_and(|until| now.mono_us < *until);
        if paused || self.sending.contains_key(&peer) {
            return;
        }
        // Of a file that was being sent before, it may have half.
        let begun = self.begun.get(&peer).copied();
        let begun = begun.filter(|below| self.kept.get(below).is_some_and(|kept| !kept.bad));
        let Some(below) = begun.or_else(|| self.usable().next()) else {
            if self.writing.is_none() {
                tracing::error!(first_kept = %node.replica.first_kept(), "trimmed without a snapshot");
                self.retry_us.get_or_insert(now.mono_us);
            }
            return;
        };
        let handle = match self.disk.open(&name_of(below)) {
            Ok(handle) => handle,
            Err(error) => return self.is_bad(now, below, &error.to_string()),
        };
        let kept = self.kept[&below];
        tracing::info!(%peer, %below, bytes = kept.bytes, "sending a snapshot");
        let outgoing = Outgoing::new(below, kept.file, handle, now.mono_us);
        let is_being_read = |out: &Outgoing| out.below == below && out.stage == Stage::Checking;
        if kept.file.is_none() && !self.sending.values().any(is_being_read) {
            self.worker.order(Job::Check { below });
        }
        self.sending.insert(peer, outgoing);
        self.begun.insert(peer, below);
        self.pins.begin(peer, below, self.journal_bytes, now.mono_us);
        self.send_parts(now, peer, links);
    }

    pub(super) fn on_checked(
        &mut self,
        now: Now,
        below: Slot,
        result: Result<FileId, String>,
        links: &dyn PartSender,
    ) {
        let file = match result {
            Ok(file) => file,
            Err(error) => return self.is_bad(now, below, &error),
        };
        let Some(kept) = self.kept.get_mut(&below) else { return };
        kept.file = Some(file);
        let peers: Vec<NodeId> = self.sending.keys().copied().collect();
        for peer in peers {
            if let Some(outgoing) = self.sending.get_mut(&peer).filter(|out| out.below == below) {
                outgoing.checked(file, now.mono_us);
                self.send_parts(now, peer, links);
            }
        }
    }

    /// This file cannot be read: nobody is sent it any more, and a new one is taken. It stays where it
    /// is until that is complete.
    fn is_bad(&mut self, now: Now, below: Slot, error: &str) {
        tracing::error!(error, %below, "a snapshot is bad: it is not sent, and a new one is taken");
        if let Some(kept) = self.kept.get_mut(&below) {
            kept.bad = true;
        }
        self.retry_us = Some(now.mono_us);
        let peers = self.sending.iter().filter(|(_, out)| out.below == below);
        for peer in peers.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.stream_ended(now, peer, false);
        }
    }

    fn send_parts(&mut self, now: Now, peer: NodeId, links: &dyn PartSender) {
        let Some(outgoing) = self.sending.get_mut(&peer) else { return };
        let queued = || links.queued_bytes(peer);
        let send = |part: &Part| links.send_part(peer, &part.encode());
        if let Err(ended) = outgoing.step(now.mono_us, &queued, &send) {
            self.ended_early(now, peer, &ended);
        }
    }

    fn ended_early(&mut self, now: Now, peer: NodeId, ended: &Ended) {
        let Some(outgoing) = self.sending.get(&peer) else { return };
        let (below, acked) = (outgoing.below, outgoing.acked);
        match ended {
            Ended::Stalled => {
                tracing::warn!(%peer, %below, acked, "a snapshot does not get on, its stream ends");
            }
            Ended::NotWanted => {
                tracing::debug!(%peer, %below, "a snapshot is not wanted now");
                self.paused_until_us.insert(peer, now.mono_us + PAUSE_US);
                self.sending.remove(&peer);
                return self.pins.end(peer);
            }
            Ended::Unreadable(error) => return self.is_bad(now, below, &error.to_string()),
        }
        self.stream_ended(now, peer, false);
    }

    fn stream_ended(&mut self, now: Now, peer: NodeId, succeeded: bool) {
        let Some(outgoing) = self.sending.remove(&peer) else { return };
        let took = Duration::from_micros(now.mono_us.saturating_sub(outgoing.started_us));
        // A peer may have caught up by another way.
        if !succeeded || outgoing.acked > 0 {
            self.metrics.observe_snapshot(SnapshotKind::Send, took, succeeded);
        }
        if !succeeded {
            self.pins.end(peer);
        }
    }

    pub fn peer_lost(&mut self, now: Now, peer: NodeId) {
        if let Some(outgoing) = self.sending.get_mut(&peer) {
            outgoing.link_lost();
        }
        self.receiving.link_lost(peer, now.mono_us);
    }

    /// Time has passed for all streams, and for the log that is kept for them.
    pub(super) fn tick_streams(&mut self, now: Now, node: &mut Node, links: &dyn PartSender) {
        self.receiving.give_up_if_silent(now.mono_us);
        if let Some(file) = self.receiving.file()
            && file.below <= node.first_unapplied()
        {
            self.receiving.ended(now.mono_us);
            self.worker.order(Job::Forget { below: file.below });
        }
        if self.sending.is_empty() && self.pins.peers().is_empty() {
            return node.slow_down(None);
        }
        let views = node.replica.peer_views(now);
        for view in &views {
            let has_file =
                self.sending.get(&view.node).is_some_and(|out| view.first_unchosen >= out.below);
            if has_file {
                self.begun.remove(&view.node);
                self.stream_ended(now, view.node, true);
            }
        }
        for peer in self.sending.keys().copied().collect::<Vec<_>>() {
            self.send_parts(now, peer, links);
        }
        self.tick_pins(now, node, &views);
    }

    fn tick_pins(&mut self, now: Now, node: &mut Node, views: &[paxos::PeerView]) {
        self.pins.mark(node.first_unapplied(), self.journal_bytes);
        let leading = node.replica.leading().is_some();
        let mut slowed: Option<u64> = None;
        for peer in self.pins.peers() {
            let Some(view) = views.iter().find(|view| view.node == peer) else {
                // It is no member any more.
                self.pins.end(peer);
                continue;
            };
            let outgoing = self.sending.get(&peer);
            let takes_in = outgoing.is_none_or(|out| out.stage == Stage::Sending);
            let standing = Standing {
                now_us: now.mono_us,
                stream: outgoing.map(|out| out.acked),
                first_unchosen: view.first_unchosen,
                takes_in: takes_in && view.connected,
                journal_bytes: self.journal_bytes,
                leading,
            };
            let was_slowed = self.pins.slowed_for().any(|slowed_for| slowed_for == peer);
            match self.pins.tick(peer, standing) {
                Verdict::Held => {}
                Verdict::Slowed(bytes) => {
                    if !was_slowed {
                        tracing::warn!(
                            %peer,
                            "writers are slowed: more is written than its link carries while it is \
                             brought up to date"
                        );
                    }
                    slowed = Some(slowed.map_or(bytes, |least| least.min(bytes)));
                }
                Verdict::Over(over) => {
                    match over {
                        Over::Level => tracing::info!(%peer, "the log reaches it again"),
                        Over::Stalled => {
                            tracing::warn!(%peer, "it does not catch up: the log goes")
                        }
                        Over::TooLong => tracing::warn!(
                            %peer,
                            "too much is written for its link: the log is not kept any longer, and \
                             it will need another snapshot"
                        ),
                    }
                    self.pins.end(peer);
                }
            }
        }
        node.slow_down(slowed.map(|bytes| (bytes, self.pins.batch_bytes_max())));
    }

    // ---- what comes in ------------------------------------------------------------------------

    /// A part of a snapshot, or what is said about one.
    pub fn received(
        &mut self,
        now: Now,
        from: NodeId,
        part: Bytes,
        node: &mut Node,
        links: &dyn PartSender,
    ) {
        match Part::decode(part) {
            Some(Part::Offer(file)) => {
                // Old news: it would not bring this node forward.
                if file.below <= node.first_unapplied() {
                    return self.answer(from, file.below, file.bytes, links);
                }
                match self.receiving.offered(from, file, now.mono_us) {
                    Taken::In(file) => {
                        // If it finds no place, the offer is repeated.
                        let _ = self.worker.try_order(Job::Offered { from, file });
                    }
                    Taken::Answer(have) => self.answer(from, file.below, have, links),
                    Taken::Ignored => {}
                }
            }
            Some(Part::Bytes { below, offset, total, bytes }) => {
                if below <= node.first_unapplied() {
                    return self.answer(from, below, total, links);
                }
                let file = FileId { below, bytes: total, sum: None };
                let range = offset..offset.saturating_add(bytes.len() as u64);
                match self.receiving.part(from, file, range, now.mono_us) {
                    Taken::In(file) => {
                        let _ = self.worker.try_order(Job::Receive { from, file, offset, bytes });
                    }
                    Taken::Answer(have) => self.answer(from, below, have, links),
                    Taken::Ignored => {}
                }
            }
            Some(Part::Have { below, bytes }) => self.on_have(now, from, below, bytes, links),
            Some(Part::Failed { below }) => self.on_failed(now, from, below),
            None => tracing::warn!(peer = %from, "a part of a snapshot that cannot be read"),
        }
    }

    fn on_have(&mut self, now: Now, from: NodeId, below: Slot, bytes: u64, links: &dyn PartSender) {
        let outgoing = self.sending.get_mut(&from).filter(|outgoing| outgoing.below == below);
        let Some(outgoing) = outgoing else { return };
        match outgoing.on_have(bytes, now.mono_us) {
            Ok(()) => self.send_parts(now, from, links),
            Err(ended) => self.ended_early(now, from, &ended),
        }
    }

    /// All of the file has arrived there, and it is no good. Is it here?
    fn on_failed(&mut self, now: Now, from: NodeId, below: Slot) {
        if self.sending.get(&from).is_none_or(|outgoing| outgoing.below != below) {
            return;
        }
        tracing::warn!(peer = %from, %below, "it cannot read the snapshot that it was sent");
        self.stream_ended(now, from, false);
        self.begun.remove(&from);
        // The next stream begins with reading it.
        if let Some(kept) = self.kept.get_mut(&below) {
            kept.file = None;
        }
    }

    pub(super) fn on_received(&mut self, file: FileId, have: u64, links: &dyn PartSender) {
        let Some((from, complete)) = self.receiving.arrived(file, have) else { return };
        if complete {
            self.worker.order(Job::Install { from, file });
            // The release before this one would take it for the end.
            if file.sum.is_none() {
                return;
            }
        }
        self.answer(from, file.below, have, links);
    }

    pub(super) fn on_receive_failed(
        &mut self,
        now: Now,
        from: NodeId,
        file: FileId,
        error: &str,
        bad: bool,
        links: &dyn PartSender,
    ) {
        tracing::error!(peer = %from, below = %file.below, error, "receive a snapshot");
        if self.receiving.file() != Some(file) {
            return;
        }
        let took = self.receiving.ended(now.mono_us);
        self.metrics.observe_snapshot(SnapshotKind::Install, took, false);
        if bad {
            links.send_part(from, &Part::Failed { below: file.below }.encode());
        } else {
            self.answer(from, file.below, NOT_WANTED, links);
        }
    }

    pub(super) fn answer(&self, to: NodeId, below: Slot, bytes: u64, links: &dyn PartSender) {
        links.send_part(to, &Part::Have { below, bytes }.encode());
    }
}
