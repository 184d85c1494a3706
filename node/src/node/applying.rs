//! From chosen slots to replies: what is applied is answered. What is not is in `fates.rs`.

use std::collections::VecDeque;

use paxos::{BatchId, Configuration, Now, Slot, Value};
use rand::RngCore;

use super::{
    Beyond, HASH_EVERY_SLOTS, InFlight, Item, ItemKind, Node, ReadPath, SEARCH_KEYS_A_TURN,
    WaitingRead,
};
use crate::batch::Batch;
use crate::clients::Session;
use crate::command::Work;
use crate::membership::Verdict;
use crate::resp::Reply;
use crate::store::{Applying, Growth, Reading};

/// What a read costs of a turn's bytes, however short its reply.
const READ_BYTES_LEAST: usize = 128;

impl Node {
    /// Applies chosen slots in order; answers those whose batch was proposed here.
    pub(super) fn apply(&mut self, now: Now, applicable: Vec<(Slot, Value)>) {
        for (slot, value) in applicable {
            if self.beyond.is_some() {
                return;
            }
            assert!(
                slot == self.first_unapplied,
                "slot {slot} is not the next to apply, {}",
                self.first_unapplied
            );
            self.first_unapplied = slot.next();
            let began_us = self.stopwatch.map(|now_us| now_us());
            self.apply_value(now, slot, value);
            if let (Some(began_us), Some(now_us)) = (began_us, self.stopwatch) {
                self.counts.applied_us.push(now_us().saturating_sub(began_us));
            }
            if slot.0 % HASH_EVERY_SLOTS == 0 {
                self.agreement.add((slot, self.store.state_hash()));
            }
        }
    }

    pub(super) fn apply_value(&mut self, now: Now, slot: Slot, value: Value) {
        if let Value::Configuration { id, configuration } = &value {
            if self.can_apply_by(configuration) {
                // It rules the slots above.
                self.ruling = configuration.clone();
                self.store.rule(configuration.store_version);
            }
            self.verdicts.push((*id, Verdict::Chosen { number: configuration.number, slot }));
        }
        if let Value::Batch { id, payload } = value {
            // What is adopted from a former reign says nothing about now.
            let is_led = self.replica.leading().is_none() || self.clock.is_some();
            if is_led && self.replica.happy_with(now).is_some() {
                self.stamped_us = Some(now.mono_us);
            }
            let in_flight = self.settled(id);
            if let Some(in_flight) = &in_flight {
                let took_us = now.mono_us.saturating_sub(in_flight.proposed_us);
                self.counts.committed.push((took_us, in_flight.items.len() as u32));
            }
            self.apply_batch(
                slot,
                &payload,
                in_flight.map(|batch| batch.items).unwrap_or_default(),
            );
        }
    }

    /// What was in flight under this id is no longer.
    pub(super) fn settled(&mut self, id: BatchId) -> Option<InFlight> {
        let in_flight = self.in_flight.remove(&id)?;
        self.in_flight_growth = Growth::sum(self.in_flight.values().map(|batch| batch.growth));
        Some(in_flight)
    }

    /// May slots that this configuration rules be applied here? If not, the node has to stop.
    pub(super) fn can_apply_by(&mut self, configuration: &Configuration) -> bool {
        let beyond = Beyond::of(configuration, self.replica.store_version_newest());
        self.beyond = self.beyond.or(beyond);
        beyond.is_none()
    }

    pub(super) fn apply_batch(&mut self, slot: Slot, payload: &[u8], items: Vec<Item>) {
        let mut batch = match Batch::read(payload) {
            Ok(batch) => batch,
            Err(error) => panic!("slot {slot} cannot be applied: {error}"),
        };
        let time_ms = batch.stamp_ms.max(self.store.time_ms());
        let applying = Applying { slot: slot.0, time_ms, seed: batch.seed };
        self.store.mark_time(applying);
        let mut items = VecDeque::from(items);
        let mut argv = Vec::new();
        loop {
            self.serve_reads_in_batch(applying, &mut items);
            let more = batch.next_command(&mut argv);
            match more {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => panic!("slot {slot} cannot be applied: {error}"),
            }
            let reply = self.store.apply_for(applying, &argv, !items.is_empty());
            self.counts.applied_commands += 1;
            if let Some(item) = items.pop_front() {
                if let Some(client) = self.clients.get_mut(item.session) {
                    client.last_write_slot = slot.0;
                }
                self.reply_to_item(item, reply);
            }
        }
        assert!(items.is_empty(), "slot {slot} answers fewer requests than were proposed in it");
    }

    /// The reads that stand at the front of a batch's requests.
    pub(super) fn serve_reads_in_batch(&mut self, applying: Applying, items: &mut VecDeque<Item>) {
        while let Some(Item { kind: ItemKind::Read(argv), .. }) = items.front() {
            let session = items.front().map(|item| item.session);
            let client = session.and_then(|session| self.clients.get(session));
            let reply = if client.is_some_and(Session::takes_replies) {
                let argv: Vec<&[u8]> = argv.iter().map(|argument| &argument[..]).collect();
                self.counts.reads_served += 1;
                self.store
                    .read(Reading { clock_ms: applying.time_ms, seed: applying.seed }, &argv)
                    .expect("at the log's own time nothing is past its deadline")
            } else {
                // They grew since they were asked for.
                Reply::error("TRYAGAIN the replies of this connection are too long for one turn")
            };
            let item = items.pop_front().expect("it was just looked at");
            self.reply_to_item(item, reply);
        }
    }

    pub(super) fn reply_to_item(&mut self, item: Item, reply: Reply) {
        if let Some(client) = self.clients.get_mut(item.session) {
            client.writes_pending -= 1;
            client.values_pending -= u32::from(item.answers_value);
            client.promised_bytes -= item.reply_bytes;
            if client.has_lost_before(item.sequence) {
                return self.close_unanswered(item.session);
            }
        }
        let reply = match item.kind {
            ItemKind::Exec(exec) => exec.reply(reply),
            ItemKind::Write | ItemKind::Read(_) => reply,
        };
        self.clients.complete(item.session, item.sequence, &reply);
    }

    /// Serves confirmed reads from the store, in order, until their replies have used up the bytes of
    /// this turn. Those of a client that does not take its replies stay for later, in order.
    ///
    /// Later is as good: a read sees a state at least as new as the one its round confirmed.
    pub(super) fn serve_confirmed(&mut self, now: Now, bytes_left: &mut usize) {
        if self.confirmed.is_empty() {
            return;
        }
        let clock_ms = self.log_time_ms(now).unwrap_or_else(|| self.store.time_ms());
        let reading = Reading { clock_ms, seed: self.random.next_u64() };
        let mut postponed = VecDeque::new();
        while *bytes_left > 0
            && let Some(read) = self.confirmed.pop_front()
        {
            if self.clients.get(read.session).is_none() {
                continue;
            }
            if !self.clients.takes_reply(read.session) {
                postponed.push_back(read);
                continue;
            }
            let Some(client) = self.clients.get(read.session) else { continue };
            let (session, work, before) = (read.session, read.work, client.reply_bytes());
            if work == Work::Slices {
                postponed.extend(self.begin_search(reading, read));
                continue;
            }
            self.serve_read(reading, read);
            let after = self.clients.get(session).map_or(before, Session::reply_bytes);
            let spent = after.saturating_sub(before) + READ_BYTES_LEAST;
            // Its work says nothing about its reply: the last of this turn.
            let is_last = work == Work::ATurn;
            *bytes_left = if is_last { 0 } else { bytes_left.saturating_sub(spent) };
        }
        postponed.append(&mut self.confirmed);
        self.confirmed = postponed;
    }

    /// Confirms the waiting reads by the lease, without a round. The clock is asked now, when they
    /// have arrived and all that is chosen is applied: while the lease holds nobody else can have got
    /// anything chosen, so the store is as new as any of them may ask for, and never gets older
    /// (PITFALLS 29). Without a lease they wait for a round. False if there was nothing to do.
    pub(super) fn confirm_by_lease(&mut self, now: Now, clock: &mut dyn FnMut() -> Now) -> bool {
        let Some(ballot) = self.replica.reads_under().filter(|_| !self.reads.is_empty()) else {
            return false;
        };
        if !self.replica.holds_lease(clock(), ballot) {
            self.start_round(now);
            return true;
        }
        let waiting = std::mem::take(&mut self.reads);
        let path = ReadPath::Lease;
        self.confirmed.extend(waiting.into_iter().map(|read| WaitingRead { path, ..read }));
        true
    }

    fn answer_read(&mut self, read: &WaitingRead, reply: &Reply) {
        *match read.path {
            ReadPath::Lease => &mut self.counts.reads_leased,
            ReadPath::Round => &mut self.counts.reads_served,
            ReadPath::Follower { .. } => &mut self.counts.reads_followed,
            ReadPath::Stale => &mut self.counts.reads_stale,
        } += 1;
        self.clients.complete(read.session, read.sequence, reply);
    }

    /// Begins a read that takes several turns; gives it back if the log has to come further first.
    fn begin_search(&mut self, reading: Reading, read: WaitingRead) -> Option<WaitingRead> {
        match self.store.begin_search(reading, &read.argv[1]) {
            Ok(search) => self.searches.push_back((read, search)),
            Err(_past_deadline) if self.clock.is_none() => self.redirect_reads(vec![read]),
            Err(_past_deadline) => {
                self.mark_wanted = true;
                return Some(read);
            }
        }
        None
    }

    /// A slice of the search whose turn it is; false where there is none that may go on.
    pub(super) fn search_on(&mut self, now: Now) -> bool {
        for _ in 0..self.searches.len() {
            let Some((read, mut search)) = self.searches.pop_front() else { break };
            let Some(client) = self.clients.get_mut(read.session) else { continue };
            if !client.takes_replies() {
                self.searches.push_back((read, search));
                continue;
            }
            match self.store.search_on(&mut search, SEARCH_KEYS_A_TURN) {
                None => self.searches.push_back((read, search)),
                Some(reply) => {
                    client.reads_pending -= 1;
                    self.answer_read(&read, &reply);
                    // What its connection has sent behind it need wait no longer.
                    self.retry_held(now);
                }
            }
            return true;
        }
        false
    }

    fn serve_read(&mut self, reading: Reading, read: WaitingRead) {
        let arguments: Vec<&[u8]> = read.argv.iter().map(|argument| &argument[..]).collect();
        let result = self.store.read(reading, &arguments);
        let Some(client) = self.clients.get_mut(read.session) else { return };
        match result {
            Ok(reply) => {
                client.reads_pending -= 1;
                self.answer_read(&read, &reply);
            }
            // The key's time is up, but the log does not say so yet: the read takes a place in the
            // log, behind a time mark. A node that no longer leads has no log to take a place in.
            Err(_past_deadline) if self.clock.is_none() => self.redirect_reads(vec![read]),
            Err(_past_deadline) => {
                client.reads_pending -= 1;
                client.writes_pending += 1;
                client.values_pending += 1;
                let WaitingRead { session, sequence, hash_slot, argv, .. } = read;
                let kind = ItemKind::Read(argv);
                let (answers_value, once) = (true, None);
                self.open_items.push(Item {
                    session,
                    sequence,
                    hash_slot,
                    answers_value,
                    reply_bytes: 0,
                    once,
                    kind,
                });
            }
        }
    }
}
