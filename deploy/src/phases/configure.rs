//! Writes `node.toml` where it is missing or differs. For a node that runs it is staged beside the
//! old one, and swapped in by the restart phase once the node has stopped: what lies in `node.toml`
//! is always what a running node was started with, also after a run that broke off.

use crate::error::Result;
use crate::execute::Run;
use crate::fleet::Member;
use crate::plan::{HostPlan, Step};
use crate::procedures::Phase;
use crate::ssh::quote;

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

async fn configure(member: &Member, plan: &HostPlan) -> Result<()> {
    write(member, &member.host.node_toml().display().to_string(), plan).await
}

pub(super) async fn stage(member: &Member, plan: &HostPlan) -> Result<()> {
    write(member, &staged(member), plan).await
}

pub(super) async fn swap_in(member: &Member) -> Result<()> {
    let path = quote(&member.host.node_toml().display().to_string());
    let script = format!("mv -f {} {path}", quote(&staged(member)));
    member.session.run("swap in the new configuration", &script).await.map(drop)
}

fn staged(member: &Member) -> String {
    format!("{}.new", member.host.node_toml().display())
}

/// It names users and digests of their passwords, so only the node's user reads it.
async fn write(member: &Member, path: &str, plan: &HostPlan) -> Result<()> {
    member.session.write_file(path, 0o600, plan.node_toml.as_bytes()).await
}
