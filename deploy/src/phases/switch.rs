//! Points `current` at a release, atomically: a link made beside it and renamed over it.

use crate::error::Result;
use crate::execute::Run;
use crate::fleet::Member;
use crate::plan::{HostPlan, Step};
use crate::procedures::Phase;
use crate::ssh::quote;

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    let which =
        |plan: &HostPlan, step: &Step| matches!(step, Step::Switch { .. }) && !plan.restarts();
    run.steps(Phase::Switch, which, |member, plan| async move {
        let release = plan.release.as_ref().expect("a host to switch has a release");
        switch(&member, release.name()).await
    })
    .await
}

pub(super) async fn switch(member: &Member, release: &str) -> Result<()> {
    let folder = quote(&member.host.deploy_dir.display().to_string());
    let script = format!(
        "cd {folder} && [ -x releases/{release}/paxos-node ] && \
         ln -sfn releases/{release} current.$$ && mv -Tf current.$$ current && sync ."
    );
    member.session.run("switch to the release", &script).await.map(drop)
}
