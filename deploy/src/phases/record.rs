//! Leaves the inventory on the hosts, so that nothing lives on one laptop, and sweeps out releases
//! beyond the last three. The one that `current` names and the one that runs are never swept.

use crate::error::Result;
use crate::execute::Run;
use crate::plan::Step;
use crate::procedures::Phase;
use crate::supervisor;

const RELEASES_KEPT: usize = 3;

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    let text = run.inventory.text.clone();
    let which = |_: &_, step: &Step| matches!(step, Step::Record | Step::Upload { .. });
    run.steps(Phase::Record, which, move |member, _| {
        let text = text.clone();
        async move {
            let path = member.host.deploy_dir.join("inventory.toml").display().to_string();
            member.session.write_file(&path, 0o640, text.as_bytes()).await?;
            member.session.run("sweep out old releases", &sweep(&member.host)).await.map(drop)
        }
    })
    .await
}

fn sweep(host: &hosts::Host) -> String {
    format!(
        r#"{}cd "$d/releases" || exit 0
current=$(basename "$(readlink ../current)"); running=
if node_find; then running=$(basename "$(dirname "$(readlink "/proc/$pid/exe")")"); fi
kept=0
for release in $(ls -1t); do
  kept=$((kept + 1))
  [ $kept -gt {RELEASES_KEPT} ] || continue
  case "$release" in "$current"|"$running") continue;; esac
  case "$release" in *[!0-9a-f]*) continue;; esac
  rm -rf "./$release"
done
"#,
        supervisor::prelude(host)
    )
}
