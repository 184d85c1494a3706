//! The log behind a snapshot that is on its way to a peer: kept, within bounds, until the peer has
//! come so far that it finds what it lacks in the log that is kept anyway. Were it trimmed before,
//! the peer would need the next snapshot, and the one after that (PITFALLS 68).
//!
//! What may be written meanwhile is [`BUDGET`] times `snapshot_every_bytes`, and as much again as the
//! peer takes in of the file; while it catches up by the log, half as much as it takes in of that, so
//! that it comes closer. Whoever leads slows its writers down to that pace when the budget is used
//! up. Whoever does not lead cannot, and lets go.
//!
//! Nobody is slowed for a peer that takes nothing in: not while its link is cut, not while it reads
//! the file, and after ten seconds without progress the log is let go of. And never below
//! `snapshot_every_bytes / `[`FLOOR_SECONDS`] a second: a peer whose link carries less than that may
//! stay behind, once [`BUDGET_MAX`] times `snapshot_every_bytes` were written all the same.

use std::collections::{BTreeMap, VecDeque};

use paxos::{NodeId, Slot};

use super::sending::STALLED_US;

/// Of `snapshot_every_bytes`: writers go at their own speed until then.
const BUDGET: u64 = 4;
/// Of `snapshot_every_bytes`: the log is let go of.
const BUDGET_MAX: u64 = 8;
/// Writers that are slowed still write `snapshot_every_bytes` in this time.
const FLOOR_SECONDS: u64 = 256;
/// Positions in the log that are remembered, in each `snapshot_every_bytes`.
const MARKS: u64 = 64;

pub(super) struct Pins {
    every_bytes: u64,
    pins: BTreeMap<NodeId, Pin>,
    /// (slot, bytes that the journal had been given when everything below was applied), oldest first;
    /// empty without pins.
    marks: VecDeque<(Slot, u64)>,
}

struct Pin {
    /// The peer needs the log from here on.
    from: Slot,
    begun_bytes: u64,
    /// Of the file, taken in by the peer.
    taken_in: u64,
    /// The peer has the file, and catches up by the log.
    has_file: bool,
    progress_us: u64,
    /// When the allowance was last given out, and what it rested on.
    paced_us: u64,
    paced_credit: u64,
    /// Writers are slowed for it.
    pub slows: bool,
}

/// What became of a pin in a tick.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Held,
    /// Writers may propose so many bytes more.
    Slowed(u64),
    Over(Over),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The peer finds in the log what it lacks.
    Level,
    Stalled,
    /// Too much was written meanwhile.
    TooLong,
}

/// How a peer stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) now_us: u64,
    /// The file is still on its way to it, and so much of it has arrived.
    pub(super) stream: Option<u64>,
    pub(super) first_unchosen: Slot,
    /// It takes something in now: its link is there, and it does not read the file.
    pub(super) takes_in: bool,
    pub(super) journal_bytes: u64,
    pub(super) leading: bool,
}

impl Pins {
    pub(super) fn new(every_bytes: u64) -> Pins {
        Pins { every_bytes, pins: BTreeMap::new(), marks: VecDeque::new() }
    }

    /// The log from `below` on is needed by `peer`. What was written by now is `journal_bytes`.
    pub(super) fn begin(&mut self, peer: NodeId, below: Slot, journal_bytes: u64, now_us: u64) {
        if self.marks.is_empty() {
            self.marks.push_back((below, journal_bytes));
        }
        self.pins.entry(peer).or_insert(Pin {
            from: below,
            begun_bytes: journal_bytes,
            taken_in: 0,
            has_file: false,
            progress_us: now_us,
            paced_us: now_us,
            paced_credit: 0,
            slows: false,
        });
    }

    pub(super) fn end(&mut self, peer: NodeId) {
        self.pins.remove(&peer);
        if self.pins.is_empty() {
            self.marks.clear();
        }
    }

    /// Slots at and above this must be kept.
    pub(super) fn first_needed(&self) -> Option<Slot> {
        self.pins.values().map(|pin| pin.from).min()
    }

    pub(super) fn peers(&self) -> Vec<NodeId> {
        self.pins.keys().copied().collect()
    }

    pub(super) fn slowed_for(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.pins.iter().filter(|(_, pin)| pin.slows).map(|(peer, _)| *peer)
    }

    /// The log ends before `first_unapplied` now.
    pub(super) fn mark(&mut self, first_unapplied: Slot, journal_bytes: u64) {
        let step_bytes = self.every_bytes / MARKS;
        if let Some((slot, bytes)) = self.marks.back()
            && first_unapplied > *slot
            && journal_bytes.saturating_sub(*bytes) > step_bytes
        {
            self.marks.push_back((first_unapplied, journal_bytes));
        }
        while let Some((second, _)) = self.marks.get(1)
            && self.first_needed().is_some_and(|needed| *second <= needed)
        {
            self.marks.pop_front();
        }
    }

    /// Bytes that had been written when the log ended before `slot`, or a little less.
    fn bytes_at(&self, slot: Slot) -> u64 {
        let beyond = self.marks.partition_point(|(marked, _)| *marked <= slot);
        self.marks.get(beyond.saturating_sub(1)).map_or(0, |(_, bytes)| *bytes)
    }

    pub(super) fn tick(&mut self, peer: NodeId, standing: Standing) -> Verdict {
        let Standing { now_us, stream, first_unchosen, takes_in, journal_bytes, leading } =
            standing;
        let reached_bytes = self.bytes_at(first_unchosen);
        let every_bytes = self.every_bytes;
        let Some(pin) = self.pins.get_mut(&peer) else { return Verdict::Held };
        pin.has_file |= stream.is_none();
        if let Some(taken_in) = stream
            && taken_in > pin.taken_in
        {
            (pin.taken_in, pin.progress_us) = (taken_in, now_us);
        }
        if pin.has_file && first_unchosen > pin.from {
            (pin.from, pin.progress_us) = (first_unchosen, now_us);
        }
        let lacks_bytes = journal_bytes.saturating_sub(reached_bytes);
        if pin.has_file && lacks_bytes <= every_bytes / 4 {
            return Verdict::Over(Over::Level);
        }
        // A stream that does not move is ended by its sender.
        if pin.has_file && now_us.saturating_sub(pin.progress_us) > STALLED_US {
            return Verdict::Over(Over::Stalled);
        }
        let of_log =
            if pin.has_file { reached_bytes.saturating_sub(pin.begun_bytes) / 2 } else { 0 };
        let credit = pin.taken_in + of_log;
        let written = journal_bytes.saturating_sub(pin.begun_bytes);
        let beyond = written.saturating_sub(credit);
        let budget = if leading { BUDGET_MAX } else { BUDGET };
        if beyond > budget * every_bytes {
            return Verdict::Over(Over::TooLong);
        }
        // A little less than the budget ends it, or it would begin and end with every part.
        let bound = BUDGET * every_bytes - if pin.slows { every_bytes / 8 } else { 0 };
        pin.slows = leading && takes_in && beyond > bound;
        let gained = credit.saturating_sub(std::mem::replace(&mut pin.paced_credit, credit));
        let floor = every_bytes * now_us.saturating_sub(pin.paced_us) / (FLOOR_SECONDS * 1_000_000);
        // Less than a byte goes on counting.
        if floor > 0 || !pin.slows {
            pin.paced_us = now_us;
        }
        if pin.slows { Verdict::Slowed(gained.max(floor)) } else { Verdict::Held }
    }

    /// What a batch may carry while writers are slowed: a quarter of a second's at the least pace.
    pub(super) fn batch_bytes_max(&self) -> usize {
        (self.every_bytes / FLOOR_SECONDS / 4).max(4 << 10) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);
    const EVERY: u64 = 1 << 20;
    const TICK_US: u64 = 5_000;

    /// A peer that takes in so many bytes a second, of a file and then of the log, and writers that would
    /// write so many. One slot is 1 KiB of log.
    struct Race {
        pins: Pins,
        now_us: u64,
        file_bytes: u64,
        taken_in: u64,
        taken_log: u64,
        written: u64,
        leading: bool,
        slowed_us: u64,
    }

    impl Race {
        fn new(file_bytes: u64) -> Race {
            let mut pins = Pins::new(EVERY);
            pins.begin(PEER, Slot(0), 0, 0);
            let (now_us, taken_in, taken_log, written) = (0, 0, 0, 0);
            Race {
                pins,
                now_us,
                file_bytes,
                taken_in,
                taken_log,
                written,
                leading: true,
                slowed_us: 0,
            }
        }

        /// Until it is over, at most so many seconds.
        fn run(&mut self, seconds: u64, link: u64, writers: u64) -> Option<Over> {
            let end_us = self.now_us + seconds * 1_000_000;
            let mut debt = 0;
            while self.now_us < end_us {
                self.now_us += TICK_US;
                let passed = link * TICK_US / 1_000_000;
                match self.taken_in < self.file_bytes {
                    true => self.taken_in += passed,
                    false => self.taken_log = (self.taken_log + passed).min(self.written),
                }
                self.pins.mark(Slot(self.written >> 10), self.written);
                let standing = Standing {
                    now_us: self.now_us,
                    stream: (self.taken_in < self.file_bytes).then_some(self.taken_in),
                    first_unchosen: Slot(self.taken_log >> 10),
                    takes_in: true,
                    journal_bytes: self.written,
                    leading: self.leading,
                };
                let wish = writers * TICK_US / 1_000_000;
                match self.pins.tick(PEER, standing) {
                    Verdict::Held => (self.written, debt) = (self.written + wish, 0),
                    Verdict::Slowed(bytes) => {
                        debt = (debt + bytes).min(bytes.max(4 << 10));
                        let written = debt.min(wish);
                        (self.written, debt) = (self.written + written, debt - written);
                        self.slowed_us += TICK_US;
                    }
                    Verdict::Over(over) => return Some(over),
                }
            }
            None
        }
    }

    /// PITFALLS 68: writers ten times as fast as the link never leave the peer behind, and the log that is
    /// kept for it is bounded.
    #[test]
    fn fast_writers_are_slowed_until_the_peer_is_level() {
        let mut race = Race::new(20 << 20);
        assert_eq!(race.run(600, 1 << 20, 10 << 20), Some(Over::Level));
        assert!(race.slowed_us > 10_000_000, "slowed for {} us", race.slowed_us);
        assert!(race.written < 60 << 20, "{} bytes of log", race.written);
    }

    #[test]
    fn writers_that_the_link_can_carry_are_not_slowed() {
        let mut race = Race::new(20 << 20);
        assert_eq!(race.run(600, 4 << 20, 1 << 20), Some(Over::Level));
        assert_eq!(race.slowed_us, 0);
    }

    /// Nobody waits for a peer that is gone, and nobody comes to a stop for one that is nearly so.
    #[test]
    fn a_peer_that_takes_nothing_in_slows_nobody_for_long() {
        let mut race = Race::new(1 << 20);
        assert_eq!(race.run(4, 1 << 20, 10 << 20), None);
        assert_eq!(race.run(15, 0, 10 << 20), Some(Over::Stalled));
        assert!(race.now_us < 15_000_000, "{} us", race.now_us);

        let mut race = Race::new(1 << 30);
        assert_eq!(race.run(60, 1_000, 10 << 20), None);
        let before = race.written;
        assert_eq!(race.run(60, 1_000, 10 << 20), None);
        let floor = 60 * EVERY / FLOOR_SECONDS;
        assert!(race.written - before > floor * 9 / 10, "{} bytes", race.written - before);
        assert_eq!(race.run(3_000, 1_000, 10 << 20), Some(Over::TooLong));
        assert!(race.written < 14 * EVERY, "{} bytes of log", race.written);
    }

    /// Who does not lead cannot slow anybody.
    #[test]
    fn a_follower_lets_go() {
        let mut race = Race::new(20 << 20);
        race.leading = false;
        assert_eq!(race.run(60, 1 << 20, 10 << 20), Some(Over::TooLong));
        assert!(race.written < 6 * EVERY, "{} bytes of log", race.written);
    }
}
