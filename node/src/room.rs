//! Whether a node takes part though its disk is nearly full.
//!
//! One full disk among others: the node turns grey, and those with space go on without it
//! (PITFALLS 59, 103). All disks full: then nobody would lead, and not even a `DEL` could make room.
//! So a full node that has seen no leader for a while makes do: it takes part, in writes that do not
//! grow, and looks again later whether somebody with space can take over.

use paxos::{Now, Replica};

use crate::syncer::SyncState;

/// Nobody with space has taken over within this time: more than any election among them takes.
const LEADERLESS_US: u64 = 1_500_000;
/// For so long a full node takes part before it gives others the chance again.
const MAKES_DO_US: u64 = 60_000_000;

#[derive(Debug, Default)]
pub struct Room {
    leaderless_since_us: Option<u64>,
    makes_do_until_us: u64,
}

impl Room {
    /// Could this node accept now, as it tells its peers?
    pub fn can_accept(&mut self, state: &SyncState, replica: &Replica, now: Now) -> bool {
        let has_leader = replica.happy_with(now).is_some();
        let makes_do = self.takes_part(now.mono_us, state.is_full(), has_leader);
        state.can_accept(now.mono_us) || makes_do && state.can_write(now.mono_us)
    }

    /// May this node take part now? `has_leader`: one that it is content with, itself included.
    pub fn takes_part(&mut self, now_us: u64, full: bool, has_leader: bool) -> bool {
        if !full {
            *self = Room::default();
            return true;
        }
        if now_us < self.makes_do_until_us {
            return true;
        }
        if has_leader {
            self.leaderless_since_us = None;
            return false;
        }
        let since_us = *self.leaderless_since_us.get_or_insert(now_us);
        if now_us.saturating_sub(since_us) < LEADERLESS_US {
            return false;
        }
        self.leaderless_since_us = None;
        self.makes_do_until_us = now_us + MAKES_DO_US;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_node_makes_do_only_when_nobody_with_space_leads() {
        let mut room = Room::default();
        assert!(room.takes_part(0, false, false), "there is space");
        assert!(!room.takes_part(1, true, true), "others have space");
        assert!(!room.takes_part(2, true, false), "they have time to take over");
        assert!(!room.takes_part(LEADERLESS_US, true, true), "they did");
        let begin = 2 * LEADERLESS_US;
        assert!(!room.takes_part(begin, true, false));
        assert!(room.takes_part(begin + LEADERLESS_US, true, false), "nobody did");
        let end = begin + LEADERLESS_US + MAKES_DO_US;
        assert!(room.takes_part(end - 1, true, true), "it goes on for a while");
        assert!(!room.takes_part(end, true, true), "then others get their chance");
        assert!(!room.takes_part(end + 1, true, false));
        assert!(room.takes_part(end + 2, false, false), "space came back");
        assert!(!room.takes_part(end + 3, true, false), "and all begins anew");
    }
}
