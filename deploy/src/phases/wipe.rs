//! Removes the data of a whole cluster whose nodes have all stopped. A mark is set on every host
//! first: should the wipe break off half-way, `up` says so instead of guessing.
//!
//! What is removed is named, never guessed: the data folder, and only if its identity is the one
//! that was planned (or it has none); then the files that `up` wrote. Releases and the audit log
//! stay.

use crate::error::Result;
use crate::execute::Run;
use crate::plan::Step;
use crate::procedures::Phase;
use crate::ssh::quote;
use crate::supervisor;

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    let wipes = |step: &Step| matches!(step, Step::Wipe { .. });
    let mark = run.fleet.all(
        |host| run.plan.hosts.iter().any(|p| p.id == host.id && p.steps.iter().any(wipes)),
        |member| async move {
            let path = quote(&member.host.deploy_dir.join("wiping").display().to_string());
            member.session.run("mark the wipe", &format!(": > {path}")).await
        },
    );
    mark.await?;
    run.steps(
        Phase::Wipe,
        |_, step| wipes(step),
        |member, plan| async move {
            let expected = plan.steps.iter().find_map(|step| match step {
                Step::Wipe { incarnation } => Some(incarnation.clone()),
                _ => None,
            });
            let expected = expected.flatten().unwrap_or_default();
            let script = wipe(&member.host, &expected);
            member.session.run("remove the data", &script).await.map(drop)
        },
    )
    .await
}

fn wipe(host: &hosts::Host, incarnation: &str) -> String {
    format!(
        r#"{}if node_find; then echo "the node still runs as $pid" >&2; exit 1; fi
expected={}
if [ -n "$(ls -A "$data" 2>/dev/null)" ] && [ -x "$d/current/paxos-node" ] && [ -f "$d/node.toml" ]; then
  found=$("$d/current/paxos-node" identity --config "$d/node.toml" 2>/dev/null | tr -d ' \n' | sed -n 's/.*"incarnation":"\([^"]*\)".*/\1/p')
  if [ -n "$found" ] && [ "$found" != "$expected" ]; then
    echo "$data belongs to incarnation $found, not to $expected" >&2; exit 1
  fi
fi
case "$data" in /|/*/..*|"") echo "refusing to remove $data" >&2; exit 1;; esac
find "$data" -mindepth 1 -delete 2>/dev/null
if [ -n "$(ls -A "$data" 2>/dev/null)" ]; then echo "could not empty $data" >&2; exit 1; fi
rmdir "$data" 2>/dev/null
rm -f "$d/members.toml" "$d/node.toml" "$d/node.toml.before" "$d/node.toml.new" "$d/inventory.toml" "$d/node.out" "$d/node.out.1" "$d/wiping"
"#,
        supervisor::prelude(host),
        quote(incarnation)
    )
}
