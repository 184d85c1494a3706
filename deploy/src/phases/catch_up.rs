//! Waits until a learner has what the others have: it has applied what was known chosen at the look
//! before. Under load two nodes seen one after the other never agree.

use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::execute::Run;
use crate::live::{self, Seen};
use crate::phases::settle;
use crate::plan::{HostPlan, Step};
use crate::procedures::Phase;

const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
/// A log that is no terminal gets a line this often.
const SAY_EVERY: Duration = Duration::from_secs(5);

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    for plan in run.plan.hosts.iter().filter(|host| host.steps.contains(&Step::CatchUp)) {
        run.watch.phase(Phase::CatchUp.title());
        catch_up(run, plan).await?;
        run.did_one();
    }
    Ok(())
}

async fn catch_up(run: &Run<'_>, plan: &HostPlan) -> Result<()> {
    let (began, mut said_at) = (Instant::now(), Instant::now());
    let (mut goal, mut exits) = (None, 0);
    loop {
        run.pause(Phase::CatchUp.title())?;
        let look = live::look(run.fleet, |_| true).await;
        let chosen = look.statuses().map(|status| status.chosen_slot).max().unwrap_or(0);
        let own = look.hosts.iter().find(|(member, _)| member.host.id == plan.id);
        let behind = match own {
            None => "its host is not reached".to_owned(),
            Some((member, Seen::Exited)) => {
                exits += 1;
                if exits > 1 {
                    return Err(settle::exited(member).await);
                }
                "it does not run".to_owned()
            }
            Some((_, Seen::Silent)) => "it does not answer yet".to_owned(),
            Some((_, Seen::Runs(status))) => {
                let knows = status.configuration.members.iter().any(|m| m.id == plan.id);
                match goal {
                    Some(goal) if knows && status.applied_slot >= goal => {
                        let seconds = began.elapsed().as_secs_f64();
                        let slots = status.applied_slot;
                        let text = format!("has caught up at slot {slots} in {seconds:.1} s");
                        run.watch.step(&plan.name, text);
                        return Ok(());
                    }
                    _ if !knows => "it has not learned yet that it is a member".to_owned(),
                    _ => {
                        let lag = goal.unwrap_or(chosen).saturating_sub(status.applied_slot);
                        format!("{lag} slots behind")
                    }
                }
            }
        };
        goal = Some(chosen);
        if began.elapsed() > run.catch_up_within {
            let within = run.catch_up_within;
            return Err(Error::new(Kind::Unavailable, Phase::CatchUp.title())
                .on(&*plan.name)
                .because(format!("not within {within:?}: {behind}"))
                .hint(format!(
                    "look at `paxosctl logs -n {}`; `--catch-up` waits longer",
                    plan.name
                )));
        }
        run.watch.tick(&plan.name, format!("catch up: {behind}"));
        if said_at.elapsed() > SAY_EVERY {
            said_at = Instant::now();
            run.watch.step(&plan.name, format!("catch up: {behind}"));
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
