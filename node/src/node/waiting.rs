//! Requests that cannot be taken yet: no leader, a full window, or an earlier request of their
//! connection. They are held in order, tried again in order, and refused together.

use std::collections::BTreeMap;

use paxos::Now;

use super::{Item, ItemKind, Node, WaitingRead};
use crate::batch::Batch;
use crate::clients::{Held, Request, Sequence, SessionId};
use crate::resp::Reply;

impl Node {
    /// Tries held requests again, connection by connection, in order.
    pub(super) fn retry_held(&mut self, now: Now) {
        for session in self.clients.take_holding() {
            while let Some(Held { sequence, request }) = self.clients.take_first_held(session) {
                if let Some(request) = self.take_request(now, session, sequence, request) {
                    self.clients.put_first_held(session, Held { sequence, request });
                    break;
                }
            }
            if self.clients.get(session).is_some_and(|session| session.has_held()) {
                self.clients.still_holding(session);
            }
        }
    }

    /// Refuses what came in too long ago and is still held: surely not done. Every later request that
    /// its connection has already sent is refused with it. Time counts from the arrival of each
    /// request: one that was taken, and comes back because this node leads no more, does not begin
    /// anew, and one that stood behind others has its own time once those are gone.
    pub(super) fn refuse_overdue(&mut self, now: Now) {
        if !self.clients.has_holding() {
            return;
        }
        self.retry_held(now);
        // A leader with work in flight is slow, not absent: its clients are asked to try again.
        let reply = match self.replica.leading() {
            Some(_) => {
                Reply::error("TRYAGAIN The cluster is overloaded, the command was not executed")
            }
            None if self.replica.happy_with(now).is_some() => Reply::error(
                "CLUSTERDOWN The leader does not answer this node, the command was not executed",
            ),
            None => {
                Reply::error("CLUSTERDOWN The cluster has no leader, the command was not executed")
            }
        };
        for session in self.clients.take_holding() {
            let Some(client) = self.clients.get(session) else { continue };
            // What waits for replies of its own connection is not overdue: they will come.
            let waits_for_own = client.writes_pending > 0 || client.reads_pending > 0;
            let hold_us = self.behaviour.hold_ms * 1_000;
            let is_due = client.held_since_us().is_some_and(|us| us + hold_us <= now.mono_us);
            if waits_for_own || !is_due {
                self.clients.still_holding(session);
                continue;
            }
            while let Some(Held { sequence, request }) = self.clients.take_first_held(session) {
                self.refuse_held(session, sequence, request, &reply);
            }
        }
    }

    /// Refuses a request that was held: surely not done.
    pub(super) fn refuse_held(
        &mut self,
        session: SessionId,
        sequence: Sequence,
        request: Request,
        reply: &Reply,
    ) {
        self.counts.held_refused += 1;
        match &request {
            Request::Watch(_) => self.watch_failed(session),
            Request::Unwatch(_) | Request::Exec(_) => self.unwatch(session),
            Request::Command(_) => {}
        }
        let reply = match &request {
            Request::Unwatch(own) => own,
            _ => reply,
        };
        self.clients.complete(session, sequence, reply);
    }

    /// Puts the requests of the open batch back to where they are held.
    pub(super) fn reopen_items(&mut self) {
        let payload = std::mem::take(&mut self.open).finish(0, 0);
        let items = std::mem::take(&mut self.open_items);
        self.open_growth = Default::default();
        let mut batch = Batch::read(&payload).expect("this node's own bytes");
        let mut argv = Vec::new();
        let mut by_session: BTreeMap<SessionId, Vec<Held>> = BTreeMap::new();
        for Item { session, sequence, answers_value, reply_bytes, kind, .. } in items {
            let request = match kind {
                ItemKind::Read(argv) => Request::Command(argv),
                ItemKind::Write => {
                    batch.next_command(&mut argv).expect("this node's own bytes");
                    let arguments = argv.iter().map(|argument| payload.slice_ref(argument));
                    Request::Command(arguments.collect())
                }
                ItemKind::Exec(exec) => {
                    batch.next_command(&mut argv).expect("this node's own bytes");
                    Request::Exec(exec)
                }
            };
            if let Some(client) = self.clients.get_mut(session) {
                client.writes_pending -= 1;
                client.values_pending -= u32::from(answers_value);
                client.promised_bytes -= reply_bytes;
            }
            by_session.entry(session).or_default().push(Held { sequence, request });
        }
        for (session, held) in by_session {
            self.clients.hold_first(session, held);
        }
    }

    /// These reads cannot be served here any more. They have no effect, so they may start again.
    pub(super) fn redirect_reads(&mut self, waiting: Vec<WaitingRead>) {
        let mut by_session: BTreeMap<SessionId, Vec<Held>> = BTreeMap::new();
        for WaitingRead { session, sequence, argv, .. } in waiting {
            if let Some(client) = self.clients.get_mut(session) {
                client.reads_pending -= 1;
            }
            let request = Request::Command(argv);
            by_session.entry(session).or_default().push(Held { sequence, request });
        }
        for (session, held) in by_session {
            self.clients.hold_first(session, held);
        }
    }
}
