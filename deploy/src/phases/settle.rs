//! The gate: a leader is there, and every node has caught up. Three good readings one second apart;
//! a node whose process has exited fails it at once and has the last word.

use std::time::{Duration, Instant};

use monitoring::status::NodeStatus;

use crate::error::{Error, Kind, Result};
use crate::execute::Run;
use crate::fleet::Member;
use crate::procedures::Phase;
use crate::supervisor;

const READINGS: usize = 3;
const BETWEEN_GOOD: Duration = Duration::from_secs(1);
const BETWEEN_BAD: Duration = Duration::from_millis(250);
const LAST_LINES: usize = 12;

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    let touched = run.plan.hosts.iter().any(|host| !host.steps.is_empty() && !host.restarts());
    if !touched && run.plan.restarts() > 0 {
        // Each restart has its own gate.
        return Ok(());
    }
    run.watch.phase(Phase::Settle.title());
    settle(run).await
}

/// Waits until the gate opens, or says what is missing.
pub(crate) async fn settle(run: &Run<'_>) -> Result<()> {
    let deadline = Instant::now() + run.settle_within;
    let mut good = 0;
    let mut chosen_before = None;
    let mut said = String::new();
    loop {
        run.pause(Phase::Settle.title())?;
        let readings = read(run).await?;
        let missing = missing(&readings, chosen_before);
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
        let now = missing.join("; ");
        if now != said && !now.is_empty() {
            run.watch.step("gate", &now);
        }
        said = now;
        if Instant::now() > deadline {
            let within = run.settle_within;
            return Err(Error::new(Kind::Unavailable, Phase::Settle.title())
                .because(format!("not within {within:?}: {said}"))
                .hint("look at `paxosctl status` and `paxosctl logs`"));
        }
        tokio::time::sleep(if good > 0 { BETWEEN_GOOD } else { BETWEEN_BAD }).await;
    }
}

type Reading = (Member, Option<NodeStatus>);

/// One reading of all nodes at the same instant. A node that has exited is an error.
async fn read(run: &Run<'_>) -> Result<Vec<Reading>> {
    run.fleet
        .all(
            |_| true,
            |member| async move {
                let script = format!(
                    r#"{}if ! node_find; then echo exited; exit 0; fi
timeout 2 "/proc/$pid/exe" get /status --config "$d/node.toml" 2>/dev/null || echo silent
"#,
                    supervisor::prelude(&member.host)
                );
                let said = member.session.run("ask the node how it is", &script).await?;
                if said.trim() == "exited" {
                    return Err(exited(&member).await);
                }
                Ok(serde_json::from_str::<NodeStatus>(&said).ok())
            },
        )
        .await
}

async fn exited(member: &Member) -> Error {
    let words = supervisor::last_words(&member.host, LAST_LINES);
    let said = member.session.run("read its last words", &words).await.unwrap_or_default();
    Error::new(Kind::Remote, "keep the node running")
        .on(&*member.host.name)
        .because(format!("its process has exited; it said:\n{}", said.trim()))
        .hint(format!("the whole story: `paxosctl logs -n {}`", member.host.name))
}

/// What keeps the gate shut, in words. A node has caught up when it has applied what was known
/// chosen at the reading before: under load, two nodes asked one after the other never agree.
fn missing(readings: &[Reading], chosen_before: Option<u64>) -> Vec<String> {
    let mut missing = Vec::new();
    let mut leaders = Vec::new();
    for (member, status) in readings {
        let name = &member.host.name;
        let Some(status) = status else {
            missing.push(format!("{name} does not answer yet"));
            continue;
        };
        match status.leader {
            Some(leader) => leaders.push(leader),
            None => missing.push(format!("{name} knows no leader")),
        }
        let goal = chosen_before.unwrap_or(0);
        if status.applied_slot < goal {
            missing.push(format!("{name} is {} slots behind", goal - status.applied_slot));
        }
        if !status.can_accept {
            let reason = status.can_accept_reason.as_deref().unwrap_or("no reason given");
            missing.push(format!("{name} cannot accept: {reason}"));
        }
    }
    leaders.dedup();
    if leaders.len() > 1 {
        missing.push("the nodes name different leaders".to_owned());
    }
    missing
}
