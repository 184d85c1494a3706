//! Faults that a node injects into itself, as `paxos-node admin chaos …` asks it to: a disk whose syncs
//! take a second, and a wall clock that is a year off.

use std::time::{SystemTime, UNIX_EPOCH};

use monitoring::status::NodeStatus;
use rand::Rng;

use crate::faults::Evidence;
use crate::fleet::{Fleet, SOON, within};

const SLOWER_MS: u32 = 1_000;
const YEAR_MS: i64 = 365 * 24 * 3_600_000;
/// Ends in any case, also when the test does not come to it.
const SECONDS: u32 = 120;

impl Fleet {
    /// The lead leaves a disk on which every sync takes a second.
    pub(crate) fn slow_leader(&self, node: u32) -> Vec<Evidence> {
        let slow = self.slow_down(node);
        let moved = within(SOON, || self.leader().filter(|leader| leader.id != node));
        let moved = match moved {
            Some(leader) => Evidence::of(true, format!("n{} leads now", leader.id)),
            None => Evidence::of(false, "nobody else took over".to_owned()),
        };
        vec![slow, moved]
    }

    pub(crate) fn slow_follower(&self, node: u32) -> Vec<Evidence> {
        vec![self.slow_down(node)]
    }

    fn slow_down(&self, node: u32) -> Evidence {
        let said = self.program(node, &format!("admin chaos disk {SLOWER_MS} {SECONDS}"));
        let hangs = |status: &NodeStatus| {
            let reason = status.can_accept_reason.as_deref();
            reason.is_some_and(|reason| reason.contains("a sync has taken"))
        };
        let seen = within(SOON, || self.statuses().get(&node).filter(|s| hangs(s)).map(drop));
        Evidence::of(
            seen.is_some(),
            format!("syncs of n{node} take a second longer{}", trouble(said)),
        )
    }

    /// A year ahead, or a year behind.
    pub(crate) fn shift_clock(&mut self, node: u32) -> Evidence {
        let off_ms = if self.rng.random_bool(0.5) { YEAR_MS } else { -YEAR_MS };
        let said = self.program(node, &format!("admin chaos clock {off_ms} {SECONDS}"));
        let here = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
        let is_off = |status: &NodeStatus| {
            (status.time_ms as i64 - here.as_millis() as i64 - off_ms).abs() < YEAR_MS / 2
        };
        let seen = within(SOON, || self.statuses().get(&node).filter(|s| is_off(s)).map(drop));
        Evidence::of(seen.is_some(), format!("n{node}'s clock is {off_ms} ms off{}", trouble(said)))
    }

    /// Nothing is injected any more. A node that was killed meanwhile has left it behind.
    pub(crate) fn heal(&self, node: u32) -> Evidence {
        // Refused only by one that is not up again yet, and has nothing to heal.
        let _ = self.program(node, "admin chaos heal");
        let healed = within(SOON, || {
            self.statuses().get(&node).filter(|s| s.chaos.is_empty() && s.can_accept).map(drop)
        });
        Evidence::of(healed.is_some(), format!("n{node} is itself again"))
    }
}

fn trouble(said: Result<String, String>) -> String {
    said.err().map_or_else(String::new, |error| format!(": {error}"))
}
