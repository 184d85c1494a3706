//! Gives a blank data folder its identity and key. The key never leaves the host. `paxos-node
//! format` itself refuses a folder that has an identity, so even two tools at once format it once.

use crate::error::Result;
use crate::execute::Run;
use crate::plan::Step;
use crate::procedures::Phase;
use crate::ssh::quote;

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    run.steps(Phase::Format, |_, step| *step == Step::Format, |member, _| async move {
        let program = quote(&member.host.current().join("paxos-node").display().to_string());
        let config = quote(&member.host.node_toml().display().to_string());
        let data_dir = quote(&member.host.data_dir.display().to_string());
        let script = format!(
            "umask 077; mkdir -p {data_dir} && chmod 700 {data_dir} && {program} format --config {config}"
        );
        member.session.run("format the data folder", &script).await.map(drop)
    })
    .await
}
