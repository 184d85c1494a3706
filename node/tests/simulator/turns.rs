//! A process's turn, and what comes of it: frames to carry, disks to keep busy, replies to bring.

use bytes::Bytes;
use node::wire::{FRAME_BYTES_MAX, Frame, FrameDecoder, PeerFrame};
use paxos::{Message, NodeId, Now};

use super::coverage::Rare;
use super::machine::{Connection, Machine, Process, Turned};
use super::simulation::{Event, Simulation};
use super::{MS, SECOND};

impl Simulation {
    /// Hands something to a process that is up, and lets it take its turn.
    pub(super) fn at(&mut self, node: NodeId, what: impl FnOnce(&mut Process, Now)) {
        let time_us = self.time_us;
        let machine = self.machines.get_mut(&node).expect("a member");
        let now = machine.now(time_us);
        let Some(process) = &mut machine.process else { return };
        what(process, now);
        let turned = process.turn(now);
        let starts_writing = !process.writing && process.appender.waiting_count() > 0;
        process.writing |= starts_writing;
        let starts_filing = !process.filing && process.has_file_work();
        process.filing |= starts_filing;
        let nonce = process.nonce;
        let is_cut_in_install = !self.calm && self.cut_next_install && process.is_installing();
        let below = process.node.first_unapplied();
        let hash = process.node.store.state_hash();
        // Nobody hears what an older copy of a disk makes of it.
        if !self.copies.contains(&node) {
            self.checker.written(node, &turned.records, turned.position);
            if let Some(position) = turned.synced {
                self.checker.synced(node, position);
            }
            self.checker.applied(node, below, hash);
            self.checker.said(node, &turned.said, turned.claimed);
        }
        if turned.more {
            self.after(5, Event::Turn { node, nonce });
        }
        if starts_writing {
            let delay_us = self.chance.between(5, 50);
            self.after(delay_us, Event::Append { node, nonce });
        }
        if starts_filing {
            let (low, high) = self.plan.file_us;
            let delay_us = self.chance.between(low, high);
            self.after(delay_us, Event::File { node, nonce });
        }
        if is_cut_in_install {
            self.cut_in_install(node, nonce);
        }
        self.carry_out(node, nonce, turned);
    }

    pub(super) fn wake(&mut self, node: NodeId) {
        self.paused_until_us.remove(&node);
        self.suspended.remove(&node);
    }

    fn carry_out(&mut self, node: NodeId, nonce: u64, turned: Turned) {
        self.coverage.add(Rare::WritersSlowed, u64::from(turned.slows));
        self.coverage.add(Rare::BatchLost, turned.batches_lost);
        self.coverage.add(Rare::BatchUnknown, turned.batches_unknown);
        self.coverage.add(Rare::LeasedRead, turned.reads_leased);
        self.coverage.add(Rare::RoundRead, turned.reads_by_round);
        self.coverage.add(Rare::LeaseRefused, turned.reads_without_lease);
        self.coverage.add(Rare::FollowerRead, turned.reads_followed);
        self.coverage.add(Rare::StaleRead, turned.reads_stale);
        for note in &turned.notes {
            self.coverage.note(note);
            self.trace(|| format!("{node} {note:?}"));
            if let paxos::Note::Elected { .. } = note
                && self.leaders().len() > 1
            {
                self.coverage.count(Rare::TwoLeaders);
            }
        }
        let is_over = |note: &paxos::Note| {
            matches!(note, paxos::Note::Deposed { led: true, .. } | paxos::Note::Released { .. })
        };
        if turned.notes.iter().any(is_over)
            && let Some(process) = self.process(node)
            && !process.has_good_disk(self.now(node))
        {
            self.coverage.count(match process.state.is_full() {
                true => Rare::FullLeaderLeft,
                false => Rare::SlowLeaderLeft,
            });
        }
        for (to, frame) in turned.frames {
            self.carry((node, nonce), to, frame);
        }
        for (connection, bytes) in turned.replies {
            if !self.muted.remove(&connection) {
                self.reach_client(connection, Event::Reply { connection, bytes });
            }
        }
        for connection in turned.closed {
            self.reach_client(connection, Event::Closed { connection });
        }
        if turned.is_gone {
            self.bury(node);
        } else if turned.has_left {
            self.finish(node);
        }
    }

    /// What a connection carries arrives in order.
    pub(super) fn reach_client(&mut self, connection: Connection, event: Event) {
        let mut arrival_us = self.time_us + self.chance.between(20, 400);
        let last_us = self.last_reply_us.entry(connection).or_default();
        arrival_us = arrival_us.max(*last_us);
        *last_us = arrival_us;
        self.after(arrival_us - self.time_us, event);
    }

    fn carry(&mut self, (from, nonce): (NodeId, u64), to: NodeId, frame: Bytes) {
        let lossy = !self.calm;
        let leads_there = |process: &Process| process.links.reaches(to);
        if !self.process(from).is_some_and(leads_there) {
            return;
        }
        if self.cut.contains(&(from, to)) || (lossy && self.chance.ppm(self.plan.loss_ppm)) {
            return;
        }
        if lossy && self.chance.ppm(self.plan.duplicate_ppm) {
            let delay_us = self.chance.below(300 * MS);
            self.after(delay_us, Event::Deliver { from, nonce, to, frame: frame.clone() });
        }
        let (low, high) = if self.calm { (40, 300) } else { self.plan.delay_us };
        let mut arrival_us = self.time_us + self.chance.between(low, high);
        let is_slow = lossy && self.plan.bulk_bytes_per_s > 0 && is_bulk(&frame);
        if is_slow {
            let free_us = self.bulk_free_us.entry((from, to)).or_default();
            *free_us = (*free_us).max(self.time_us)
                + frame.len() as u64 * SECOND / self.plan.bulk_bytes_per_s;
            arrival_us = arrival_us.max(*free_us);
        }
        if self.plan.in_order && !is_slow {
            let last_us = self.last_arrival_us.entry((from, to)).or_default();
            arrival_us = arrival_us.max(*last_us);
            *last_us = arrival_us;
        }
        self.after(arrival_us - self.time_us, Event::Deliver { from, nonce, to, frame });
    }

    pub(super) fn leaders(&self) -> Vec<(NodeId, paxos::Ballot)> {
        let leads = |(id, machine): (&NodeId, &Machine)| {
            Some((*id, machine.process.as_ref()?.node.replica.leading()?))
        };
        self.machines.iter().filter_map(leads).collect()
    }
}

/// Whether the product sends it on the lane for what is long.
fn is_bulk(frame: &Bytes) -> bool {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    decoder.spare().extend_from_slice(frame);
    let is_long = |frame: &PeerFrame| match frame {
        PeerFrame::Snapshot(_) | PeerFrame::Paxos(Message::Chosen { .. }) => true,
        PeerFrame::Paxos(_) | PeerFrame::States(_) => false,
    };
    matches!(decoder.next_frame(), Ok(Some(Frame::Peer(frame))) if is_long(&frame))
}

/// A message in words, cut to a line.
pub(super) fn describe(from: NodeId, to: NodeId, frame: &Bytes) -> String {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    decoder.spare().extend_from_slice(frame);
    let text = format!("{from} > {to} {:?}", decoder.next_frame());
    text.chars().take(240).collect()
}
