//! The gate: a leader is there, and every node has caught up. Three good readings one second apart;
//! a node whose process has exited fails it at once and has the last word.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use monitoring::status::NodeStatus;

use crate::error::{Error, Kind, Result};
use crate::execute::Run;
use crate::fleet::Member;
use crate::live::{self, Seen};
use crate::phases::meet;
use crate::procedures::Phase;
use crate::supervisor;

const READINGS: usize = 3;
const BETWEEN_GOOD: Duration = Duration::from_secs(1);
const BETWEEN_BAD: Duration = Duration::from_millis(250);
/// A node that knows nobody who is left is told whom to ask; others find each other sooner.
const INTRODUCE_EVERY: Duration = Duration::from_secs(2);
const LAST_LINES: usize = 12;

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    let touched = run.plan.hosts.iter().any(|host| !host.steps.is_empty() && !host.restarts());
    if !touched && run.plan.restarts() > 0 {
        // Each restart has its own gate.
        return Ok(());
    }
    run.watch.phase(Phase::Settle.title());
    settle(run).await.map_err(|shut| *shut.error)
}

/// The gate did not open.
#[derive(Debug)]
pub(crate) struct Shut {
    pub(crate) error: Box<Error>,
    /// The nodes that keep it shut, as far as is known: those that have exited or, when time ran
    /// out, those that something is missing of.
    pub(crate) by: BTreeSet<u32>,
}

impl Shut {
    pub(crate) fn by(id: u32, error: Error) -> Shut {
        Shut { error: Box::new(error), by: BTreeSet::from([id]) }
    }

    /// Says nothing about any node: we were asked to stop, or could not look.
    pub(crate) fn unknown(error: Error) -> Shut {
        Shut { error: Box::new(error), by: BTreeSet::new() }
    }
}

/// Waits until the gate opens, or says what is missing.
pub(crate) async fn settle(run: &Run<'_>) -> Result<(), Shut> {
    let deadline = Instant::now() + run.settle_within;
    let mut good = 0;
    let mut chosen_before = None;
    let mut said = String::new();
    let mut introduced = Instant::now();
    loop {
        run.pause(Phase::Settle.title()).map_err(Shut::unknown)?;
        let readings = read(run).await?;
        let missing = missing(&readings, chosen_before);
        if !missing.is_empty() && introduced.elapsed() > INTRODUCE_EVERY {
            introduced = Instant::now();
            meet::introduce_the_leader(run, &readings).await.map_err(Shut::unknown)?;
        }
        // The first reading has nothing to be compared with, so it is never a good one.
        let compared = chosen_before.is_some();
        chosen_before = readings.iter().filter_map(|(_, r)| Some(r.as_ref()?.chosen_slot)).max();
        if missing.is_empty() && compared {
            good += 1;
            if good == READINGS {
                return Ok(());
            }
        } else {
            good = 0;
        }
        let now = missing.iter().map(|gap| gap.text.as_str()).collect::<Vec<_>>().join("; ");
        if now != said && !now.is_empty() {
            run.watch.step("gate", &now);
        }
        said = now;
        if Instant::now() > deadline {
            let within = run.settle_within;
            let error = Error::new(Kind::Unavailable, Phase::Settle.title())
                .because(format!("not within {within:?}: {said}"))
                .hint("look at `paxosctl status` and `paxosctl logs`");
            return Err(Shut {
                error: Box::new(error),
                by: missing.iter().filter_map(|gap| gap.of).collect(),
            });
        }
        tokio::time::sleep(if good > 0 { BETWEEN_GOOD } else { BETWEEN_BAD }).await;
    }
}

type Reading = (Member, Option<NodeStatus>);

/// One reading of all nodes at the same instant. A node that has exited is an error.
async fn read(run: &Run<'_>) -> Result<Vec<Reading>, Shut> {
    let look = live::look(run.fleet, |host| run.takes_part(host.id)).await;
    let (mut readings, mut errors, mut by) = (Vec::new(), look.errors, BTreeSet::new());
    for (member, seen) in look.hosts {
        match seen {
            Seen::Exited => {
                by.insert(member.host.id);
                errors.push(exited(&member).await);
            }
            Seen::Silent => readings.push((member, None)),
            Seen::Runs(status) => readings.push((member, Some(*status))),
        }
    }
    match Error::all(errors) {
        None => Ok(readings),
        Some(error) => Err(Shut { error: Box::new(error), by }),
    }
}

pub(crate) async fn exited(member: &Member) -> Error {
    let words = supervisor::last_words(&member.host, LAST_LINES);
    let said = member.session.run("read its last words", &words).await.unwrap_or_default();
    Error::new(Kind::Remote, "keep the node running")
        .on(&*member.host.name)
        .because(format!("its process has exited; it said:\n{}", said.trim()))
        .hint(format!("the whole story: `paxosctl logs -n {}`", member.host.name))
}

/// Something that keeps the gate shut.
struct Gap {
    /// The node that it is missing of, if it is one.
    of: Option<u32>,
    text: String,
}

/// What keeps the gate shut, in words. A node has caught up when it has applied what was known
/// chosen at the reading before: under load, two nodes asked one after the other never agree.
fn missing(readings: &[Reading], chosen_before: Option<u64>) -> Vec<Gap> {
    let mut missing = Vec::new();
    let mut leaders = Vec::new();
    for (member, status) in readings {
        let name = &member.host.name;
        let mut lacks = |text| missing.push(Gap { of: Some(member.host.id), text });
        let Some(status) = status else {
            lacks(format!("{name} does not answer yet"));
            continue;
        };
        match status.leader {
            Some(leader) => leaders.push(leader),
            None => lacks(format!("{name} knows no leader")),
        }
        let goal = chosen_before.unwrap_or(0);
        if status.applied_slot < goal {
            lacks(format!("{name} is {} slots behind", goal - status.applied_slot));
        }
        if !status.can_accept {
            let reason = status.can_accept_reason.as_deref().unwrap_or("no reason given");
            lacks(format!("{name} cannot accept: {reason}"));
        }
    }
    leaders.dedup();
    if leaders.len() > 1 {
        missing.push(Gap { of: None, text: "the nodes name different leaders".to_owned() });
    }
    missing
}
