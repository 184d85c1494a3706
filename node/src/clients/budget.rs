//! What all connections take together. Each has its own bounds; thousands of them within those bounds
//! could still take more than the machine has.
//!
//! At the limit no client is read from and no long reply is made, until there is room again:
//! replies leave, and with them what was asked. If that does not help for a while, what is left is
//! held by clients that do not go on: that do not read, or have begun a command, or a transaction,
//! and do not end it. The one of them that holds the most is closed, then the next, until half of the
//! limit is free: else the next few bytes would cost everybody the same wait again.

use super::{Clients, Pending, Session, SessionId};

/// Clients that go on have made room within this time.
const PATIENCE_US: u64 = 200_000;
/// A client that holds less is not worth closing.
const EVICTED_BYTES_MIN: usize = 16 << 10;

/// Where all connections stand.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// 0: no limit.
    bytes_max: usize,
    bytes: usize,
    /// The limit was reached, and there is not yet an eighth of it free again.
    pub(super) is_spent: bool,
    /// Since when, as the ticks saw it.
    since_us: Option<u64>,
    /// Closing connections has begun, and has not made enough room yet.
    is_evicting: bool,
    /// One reply may be made though the limit is reached: nobody but us holds anything.
    pub(super) spares_one: bool,
    /// There is room again, and those that were not read from have not been told.
    relieved: bool,
}

/// A connection that was closed for what it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    pub id: SessionId,
    pub address: String,
    pub name: String,
    pub bytes: usize,
    /// All connections together, before.
    pub of_bytes: usize,
    pub because: &'static str,
}

impl Session {
    /// What it takes now, and what the replies that it was promised will take.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Session>()
            + self.pending.capacity() * size_of::<Pending>()
            + self.request_bytes
            + self.promised_bytes
            + self.parked_bytes
            + self.held_by_client_bytes()
    }

    /// What only the client itself can make go away.
    fn held_by_client_bytes(&self) -> usize {
        self.out.capacity() + self.rest_bytes + self.transaction_bytes()
    }

    fn transaction_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes()) + self.watches.bytes()
    }

    fn why_it_holds(&self) -> &'static str {
        let (unread, rest) = (self.out.capacity(), self.rest_bytes);
        match unread.max(rest).max(self.transaction_bytes()) {
            most if most == unread => "it does not read its replies",
            most if most == rest => "it has begun a command and does not end it",
            _ => "it has begun a transaction and does not end it",
        }
    }
}

impl Clients {
    /// The limit of all connections together; 0: none.
    pub fn limit_bytes(&mut self, bytes_max: u64) {
        self.budget.bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    }

    /// What all connections take.
    pub fn bytes(&self) -> usize {
        self.budget.bytes
    }

    /// May more be read from this connection's socket?
    pub fn has_room(&self, id: SessionId) -> bool {
        !self.budget.is_spent && self.get(id).is_some_and(Session::has_room)
    }

    /// May this connection be given one more reply that may be long? The one that is let through
    /// though the limit is reached is used up by asking.
    pub fn takes_reply(&mut self, id: SessionId) -> bool {
        let takes = self.get(id).is_some_and(Session::takes_replies);
        takes && (!self.budget.is_spent || std::mem::take(&mut self.budget.spares_one))
    }

    /// To be called whenever a connection may take more or less than before.
    pub fn recount(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let bytes = session.bytes();
        let counted = std::mem::replace(&mut session.counted_bytes, bytes);
        self.budget.count(counted, bytes);
    }

    /// Whether those that were not read from are to be told that there is room.
    pub fn take_relieved(&mut self) -> bool {
        std::mem::take(&mut self.budget.relieved)
    }

    /// Closes the connection that holds the most of what nobody else can make go away, once the limit
    /// has been reached for longer than clients that go on would need. Asked at each tick.
    pub fn evict(&mut self, now_us: u64) -> Option<Evicted> {
        if !self.budget.is_evicting(now_us) {
            return None;
        }
        let is_idle = |session: &Session| {
            !session.closing && now_us.saturating_sub(session.progress_us) >= PATIENCE_US
        };
        let open = self.sessions.iter().filter(|(_, session)| is_idle(session));
        let heaviest = open.max_by_key(|(id, session)| (session.held_by_client_bytes(), **id));
        let heaviest = heaviest.map(|(id, session)| (*id, session.held_by_client_bytes()));
        let Some((id, held)) = heaviest.filter(|(_, held)| *held >= EVICTED_BYTES_MIN) else {
            self.budget.spares_one = true;
            return None;
        };
        let of_bytes = self.budget.bytes;
        let session = self.sessions.get_mut(&id)?;
        let evicted = Evicted {
            id,
            address: session.connection.address.clone(),
            name: session.connection.name.clone(),
            bytes: held,
            of_bytes,
            because: session.why_it_holds(),
        };
        session.out = Vec::new();
        session.queue = None;
        session.watches = Default::default();
        session.closing = true;
        self.touch(id);
        Some(evicted)
    }

    /// Bytes of this connection have come or gone.
    pub fn progressed(&mut self, id: SessionId) {
        let now_us = self.now_us;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.progress_us = now_us;
        }
    }

    pub(super) fn uncount(&mut self, session: &Session) {
        self.budget.count(session.counted_bytes, 0);
    }
}

impl Budget {
    /// Is it time to close connections?
    fn is_evicting(&mut self, now_us: u64) -> bool {
        if self.is_spent {
            let since_us = *self.since_us.get_or_insert(now_us);
            self.is_evicting |= now_us.saturating_sub(since_us) >= PATIENCE_US;
        } else {
            self.since_us = None;
            self.is_evicting &= self.bytes >= self.bytes_max / 2;
        }
        self.is_evicting
    }

    fn count(&mut self, before: usize, after: usize) {
        self.bytes = self.bytes - before + after;
        if self.bytes_max == 0 {
            return;
        }
        if self.bytes >= self.bytes_max {
            self.is_spent = true;
        } else if self.is_spent && self.bytes < self.bytes_max - self.bytes_max / 8 {
            self.is_spent = false;
            self.spares_one = false;
            self.relieved = true;
        }
    }
}
