//! Tells a node that comes later who the members are: `members.toml` as the log has it now, asked of
//! the leader over ssh. Whoever this names is whom the node dials first.

use crate::error::Result;
use crate::execute::Run;
use crate::live;
use crate::plan::Step;
use crate::procedures::Phase;

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    let missing = |step: &Step| *step == Step::Introduce;
    if !run.plan.hosts.iter().any(|host| host.steps.iter().any(missing)) {
        return Ok(());
    }
    let look = live::look(run.fleet, |_| true).await;
    let Some((leader, _)) = look.leader() else {
        return Err(live::no_leader(&look, Phase::Introduce.title()));
    };
    let members = live::export(leader).await?;
    run.steps(
        Phase::Introduce,
        |_, step| missing(step),
        move |member, _| {
            let mut members = members.clone();
            // Whoever is said to be at its own address is gone, or it itself.
            members.members.retain(|known| known.peer != member.host.peer_endpoint());
            async move {
                let text = members.to_toml();
                let path = member.host.members_toml().display().to_string();
                member.session.write_file(&path, 0o644, text.as_bytes()).await
            }
        },
    )
    .await
}
