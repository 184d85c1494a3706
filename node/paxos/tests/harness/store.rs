//! The state machine under test.

use paxos::{Slot, Value};

/// The replicated state machine: it remembers how far it is, and everything in one hash.
#[derive(Clone, Copy, Debug)]
pub struct Store {
    pub applied_below: Slot,
    pub hash: u64,
}

impl Store {
    pub const EMPTY: Store = Store { applied_below: Slot::FIRST, hash: 0xcbf2_9ce4_8422_2325 };

    pub fn apply(&mut self, slot: Slot, value: &Value) {
        let id = value.batch_id().unwrap_or_default();
        for part in [slot.0, id.incarnation, id.counter] {
            self.hash = (self.hash ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
        self.applied_below = slot.next();
    }
}
