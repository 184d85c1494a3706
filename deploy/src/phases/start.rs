//! Starts the nodes that are down. One that exits at once fails here, with its last words.

use crate::error::Result;
use crate::execute::Run;
use crate::fleet::{Member, Watch};
use crate::plan::Step;
use crate::procedures::Phase;
use crate::supervisor;

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    let watch = run.watch.clone();
    run.steps(
        Phase::Start,
        |_, step| *step == Step::Start,
        move |member, _| {
            let watch = watch.clone();
            async move { start(&member, &watch).await }
        },
    )
    .await
}

pub(super) async fn start(member: &Member, watch: &Watch) -> Result<()> {
    let said = member.session.run("start the node", &supervisor::start(&member.host)).await?;
    watch.step(&member.host.name, said.trim());
    Ok(())
}
