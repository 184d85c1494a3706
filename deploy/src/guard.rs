//! The quorum guard: before anything takes nodes away, count what would be left, from what the
//! nodes say now and not from the inventory. A voter counts when it runs, has caught up, and could
//! accept; one that was not reached does not.
//!
//! It must not refuse too much either: taking away a node that is down already, or one that does
//! not vote, costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::live::{self, Heard};

/// A node as the guard sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    pub id: u32,
    pub name: String,
    pub standing: Standing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    CaughtUp,
    /// By so many slots.
    Behind(u64),
    /// In its own words.
    CannotAccept(String),
    /// It runs and tells nothing of itself: it cannot be counted on, and may be what every write goes
    /// through.
    Silent,
    Down,
    Unreachable,
}

/// Why taking nodes away is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub taken: Vec<String>,
    /// They would leave the membership, not only stop.
    pub for_good: bool,
    pub voters: usize,
    pub needed: usize,
    pub left: usize,
    /// Voters that do not count, and why, taken ones aside.
    pub weak: Vec<Voter>,
}

/// The voters of the cluster: as the newest configuration that any node reports has them, or, when
/// none reports, as the inventory has them. `seen` is what was heard of each node that was looked at.
///
/// A voter has caught up when it has applied `goal`; without one, what any node knew chosen at the
/// same look, but for `max_lag_slots`. Under load two looks tell more than one: what was chosen at the
/// first is the goal at the second.
pub fn voters(
    hosts: &[hosts::Host],
    seen: &BTreeMap<u32, Heard<'_>>,
    max_lag_slots: u64,
    goal: Option<u64>,
) -> Vec<Voter> {
    let newest = live::newest(live::statuses(seen));
    let chosen = live::statuses(seen).map(|status| status.chosen_slot).max().unwrap_or(0);
    let (goal, slack) = goal.map_or((chosen, max_lag_slots), |goal| (goal, 0));
    let members: Vec<(u32, String)> = match newest {
        Some(live) => live.voters().map(|member| (member.id, live.name_of(member.id))).collect(),
        None => hosts
            .iter()
            .filter(|host| host.role == hosts::Role::Voter)
            .map(|host| (host.id, host.name.clone()))
            .collect(),
    };
    members
        .into_iter()
        .map(|(id, name)| {
            let standing = match seen.get(&id) {
                None => Standing::Unreachable,
                Some(heard) => standing(*heard, goal, slack),
            };
            Voter { id, name, standing }
        })
        .collect()
}

fn standing(heard: Heard<'_>, goal: u64, slack: u64) -> Standing {
    let status = match heard {
        Heard::Exited => return Standing::Down,
        Heard::Silent => return Standing::Silent,
        Heard::Says(status) => status,
    };
    let behind = goal.saturating_sub(status.applied_slot);
    if behind > slack {
        return Standing::Behind(behind);
    }
    if !status.can_accept {
        let reason = status.can_accept_reason.clone();
        return Standing::CannotAccept(reason.unwrap_or_else(|| "cannot accept".to_owned()));
    }
    Standing::CaughtUp
}

/// May these nodes be taken away together? Allowed when a quorum of caught-up voters stays, or when
/// all of them are down: one that is behind, or of which nothing was heard, may still promise and
/// accept, and be what every write goes through.
pub fn may_take(voters: &[Voter], taken: &BTreeSet<u32>) -> Result<(), Refusal> {
    let counts = |voter: &&Voter| voter.standing == Standing::CaughtUp;
    let needed = voters.len() / 2 + 1;
    let left = voters.iter().filter(|voter| !taken.contains(&voter.id)).filter(counts).count();
    let may_be_of_use = |voter: &Voter| voter.standing != Standing::Down;
    let costs = voters.iter().filter(|voter| taken.contains(&voter.id)).any(may_be_of_use);
    if left >= needed || !costs {
        return Ok(());
    }
    Err(refusal(voters, taken, false, voters.len(), needed, left))
}

/// May these voters leave for good, while so many others come that have caught up? Allowed when the
/// voters that there are then can choose.
pub fn may_change(
    voters: &[Voter],
    joining: usize,
    leaving: &BTreeSet<u32>,
) -> Result<(), Refusal> {
    let stay = || voters.iter().filter(|voter| !leaving.contains(&voter.id));
    let after = stay().count() + joining;
    let needed = after / 2 + 1;
    let left = stay().filter(|v| v.standing == Standing::CaughtUp).count() + joining;
    if left >= needed {
        return Ok(());
    }
    Err(refusal(voters, leaving, true, after, needed, left))
}

fn refusal(
    voters: &[Voter],
    taken: &BTreeSet<u32>,
    for_good: bool,
    count: usize,
    needed: usize,
    left: usize,
) -> Refusal {
    let is_weak =
        |voter: &&Voter| !taken.contains(&voter.id) && voter.standing != Standing::CaughtUp;
    Refusal {
        taken: names(voters, |voter| taken.contains(&voter.id)),
        for_good,
        voters: count,
        needed,
        left,
        weak: voters.iter().filter(is_weak).cloned().collect(),
    }
}

fn names(voters: &[Voter], which: impl Fn(&Voter) -> bool) -> Vec<String> {
    voters.iter().filter(|voter| which(voter)).map(|voter| voter.name.clone()).collect()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for voter in &self.weak {
            write!(f, "{} {}; ", voter.name, voter.standing)?;
        }
        let verb = if self.for_good { "removing" } else { "stopping" };
        write!(
            f,
            "{verb} {} leaves {} caught-up voter{} of {}, needs {}",
            self.taken.join(" and "),
            self.left,
            if self.left == 1 { "" } else { "s" },
            self.voters,
            self.needed
        )
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::CaughtUp => f.write_str("has caught up"),
            Standing::Behind(slots) => write!(f, "is {slots} slots behind"),
            Standing::CannotAccept(reason) => write!(f, "cannot accept ({reason})"),
            Standing::Silent => f.write_str("runs and does not answer"),
            Standing::Down => f.write_str("is down"),
            Standing::Unreachable => f.write_str("is not reachable"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(standings: &[Standing]) -> Vec<Voter> {
        let voter = |(index, standing): (usize, &Standing)| {
            let id = u32::try_from(index).unwrap() + 1;
            Voter { id, name: format!("n{id}"), standing: standing.clone() }
        };
        standings.iter().enumerate().map(voter).collect()
    }

    fn check(standings: &[Standing], taken: &[u32], expect: Result<(), &str>) {
        let taken = taken.iter().copied().collect();
        let said = may_take(&cluster(standings), &taken).map_err(|refusal| refusal.to_string());
        assert_eq!(said, expect.map_err(str::to_owned));
    }

    use Standing::{Behind, CannotAccept, CaughtUp, Down, Silent, Unreachable};

    #[test]
    fn pitfall_97_a_selection_beyond_the_quorum_is_refused() {
        check(&[CaughtUp, CaughtUp, CaughtUp], &[1], Ok(()));
        check(
            &[CaughtUp, CaughtUp, CaughtUp],
            &[1, 2],
            Err("stopping n1 and n2 leaves 1 caught-up voter of 3, needs 2"),
        );
        check(
            &[CaughtUp, CaughtUp, CaughtUp],
            &[1, 2, 3],
            Err("stopping n1 and n2 and n3 leaves 0 caught-up voters of 3, needs 2"),
        );
    }

    #[test]
    fn pitfall_47_a_voter_that_is_behind_does_not_count() {
        check(
            &[CaughtUp, Behind(4812), CaughtUp],
            &[1],
            Err("n2 is 4812 slots behind; stopping n1 leaves 1 caught-up voter of 3, needs 2"),
        );
        check(
            &[CaughtUp, Unreachable, CannotAccept("disk full".into()), CaughtUp, CaughtUp],
            &[1],
            Err("n2 is not reachable; n3 cannot accept (disk full); \
                 stopping n1 leaves 2 caught-up voters of 5, needs 3"),
        );
    }

    #[test]
    fn pitfall_25_a_change_is_judged_by_the_voters_that_there_are_then() {
        let after = |standings: &[Standing], joining, leaving: &[u32]| {
            let leaving = leaving.iter().copied().collect();
            may_change(&cluster(standings), joining, &leaving).map_err(|r| r.to_string())
        };
        // A dead one may go, a healthy one may not while another is dead.
        assert_eq!(after(&[CaughtUp, Down, CaughtUp], 0, &[2]), Ok(()));
        let refused = "n2 is down; removing n1 leaves 1 caught-up voter of 2, needs 2";
        assert_eq!(after(&[CaughtUp, Down, CaughtUp], 0, &[1]), Err(refused.to_owned()));
        assert_eq!(after(&[CaughtUp, Down, CaughtUp, CaughtUp], 0, &[1]), Ok(()));
        let refused = "removing n1 leaves 0 caught-up voters of 0, needs 1";
        assert_eq!(after(&[CaughtUp], 0, &[1]), Err(refused.to_owned()));
        // Whoever comes never makes it worse, as long as there is a quorum.
        for standings in [&[CaughtUp, CaughtUp, Down][..], &[CaughtUp], &[CaughtUp, CaughtUp]] {
            assert_eq!(after(standings, 1, &[]), Ok(()));
        }
        assert_eq!(after(&[CaughtUp, Unreachable, CaughtUp], 1, &[2]), Ok(()));
        assert_eq!(after(&[CaughtUp], 1, &[1]), Ok(()));
    }

    #[test]
    fn what_does_not_count_may_always_go() {
        check(&[CaughtUp, Down, CaughtUp], &[2], Ok(()));
        check(&[CaughtUp, Down, Down], &[2], Ok(()));
        check(&[CaughtUp, CaughtUp, CaughtUp], &[9], Ok(()));
    }

    /// A node that is behind promises and accepts all the same: here every write goes through it.
    #[test]
    fn the_second_half_of_a_quorum_stays_though_it_is_behind() {
        check(
            &[CaughtUp, Behind(4812), Down],
            &[2],
            Err("n3 is down; stopping n2 leaves 1 caught-up voter of 3, needs 2"),
        );
        check(&[CaughtUp, Behind(4812), CaughtUp], &[2], Ok(()));
    }

    /// A page that does not answer in time says nothing about the protocol.
    #[test]
    fn a_process_that_runs_and_tells_nothing_is_no_process_that_is_down() {
        let heard = live::by_node([(1, Heard::Silent), (2, Heard::Exited)].into_iter());
        let standings: Vec<Standing> = heard.into_values().map(|h| standing(h, 0, 0)).collect();
        assert_eq!(standings, [Silent, Down]);
        check(
            &[CaughtUp, Silent, Down],
            &[2],
            Err("n3 is down; stopping n2 leaves 1 caught-up voter of 3, needs 2"),
        );
        check(
            &[CaughtUp, Silent, CaughtUp],
            &[1],
            Err("n2 runs and does not answer; stopping n1 leaves 1 caught-up voter of 3, needs 2"),
        );
        check(&[CaughtUp, Silent, CaughtUp], &[2], Ok(()));
        // A host that was given another id runs its former node still, and nothing tells whose it is.
        check(
            &[CaughtUp, Unreachable, Down],
            &[2],
            Err("n3 is down; stopping n2 leaves 1 caught-up voter of 3, needs 2"),
        );
    }
}
