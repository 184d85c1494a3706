//! Stops nodes: SIGTERM, on which a leader hands over and the journal is synced, and SIGKILL only
//! when the bound has passed. The guard is asked right before.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::execute::Run;
use crate::fleet::{Member, Watch};
use crate::plan::{HostPlan, Step};
use crate::procedures::Phase;
use crate::supervisor::{self, STOP_BOUND};

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    let stops = |host: &&HostPlan| host.steps.contains(&Step::Stop);
    let taken: BTreeSet<u32> = run.plan.hosts.iter().filter(stops).map(|host| host.id).collect();
    run.ask_the_guard(&taken).await?;
    let watch = run.watch.clone();
    run.steps(
        Phase::Stop,
        |_, step| *step == Step::Stop,
        move |member, _| {
            let watch = watch.clone();
            async move { stop(&member, &watch).await }
        },
    )
    .await
}

pub(super) async fn stop(member: &Member, watch: &Watch) -> Result<()> {
    let script = supervisor::stop(&member.host, STOP_BOUND);
    let bound = STOP_BOUND * 2;
    let said = member.session.run_within("stop the node", &script, bound).await?;
    let how = match said.trim() {
        "killed" => format!("killed: it did not stop by itself within {} s", STOP_BOUND.as_secs()),
        other => other.to_owned(),
    };
    watch.step(&member.host.name, how);
    Ok(())
}
