//! Writes `node.toml` where it is missing or differs. A node that runs gets its own in the restart
//! phase, right before it is restarted.

use crate::error::Result;
use crate::execute::Run;
use crate::fleet::Member;
use crate::plan::{HostPlan, Step};
use crate::procedures::Phase;

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    let which =
        |plan: &HostPlan, step: &Step| matches!(step, Step::Configure { .. }) && !plan.restarts();
    run.steps(
        Phase::Configure,
        which,
        |member, plan| async move { configure(&member, &plan).await },
    )
    .await
}

/// It names users and digests of their passwords, so only the node's user reads it.
pub(super) async fn configure(member: &Member, plan: &HostPlan) -> Result<()> {
    let path = member.host.node_toml().display().to_string();
    member.session.write_file(&path, 0o600, plan.node_toml.as_bytes()).await
}
