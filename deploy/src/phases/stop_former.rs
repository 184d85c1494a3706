//! Ends the process of the node that a host ran before it was given another id. It may still vote,
//! so the guard is asked; and only the process that was planned is ended.

use std::collections::BTreeSet;

use crate::error::{Error, Kind, Result};
use crate::execute::Run;
use crate::live::{self, Seen};
use crate::phases::stop;
use crate::plan::Step;
use crate::procedures::Phase;
use crate::supervisor;

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    for plan in &run.plan.hosts {
        let pid = plan.steps.iter().find_map(|step| match step {
            Step::StopFormer { pid } => Some(*pid),
            _ => None,
        });
        let (Some(pid), Some(member)) = (pid, run.fleet.member(plan.id)) else { continue };
        run.watch.phase(Phase::StopFormer.title());
        let look = live::look(run.fleet, |host| host.id == plan.id).await;
        let former = match look.hosts.first() {
            Some((_, Seen::Runs(status))) => status.id,
            // Nobody knows whose it is: then it is the one that the change is about.
            _ => run.plan.change.as_ref().and_then(|c| c.leaves.as_ref()).map_or(0, |l| l.id),
        };
        run.ask_the_guard(&BTreeSet::from([former])).await?;
        let doing = "look at the process once more";
        let script = format!("{}node_find && echo $pid || true", supervisor::prelude(&member.host));
        let found = member.session.run(doing, &script).await?;
        if !found.trim().is_empty() && found.trim() != pid.to_string() {
            return Err(Error::new(Kind::Moved, doing)
                .on(&*plan.name)
                .because(format!("process {} runs there now, not {pid}", found.trim()))
                .hint("nothing was done; run the command again"));
        }
        stop::stop(member, run.watch).await?;
        run.did_one();
    }
    Ok(())
}
