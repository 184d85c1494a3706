//! Restarts running nodes one at a time, the leader last. Before each, the guard is asked again
//! with what the nodes say now, and after each, all must have caught up before the next: "up" as
//! the restarted node itself sees it is not enough.
//!
//! What runs stays as it is until the node has stopped: the new configuration waits in a file of its
//! own, and `current` is switched between stop and start. A node that does not come back on its new
//! release or configuration goes back to what it ran before, and the others are not touched. That
//! is a second stop, so the guard is asked a second time; and it is only done where the restarted
//! node itself is what fails. Asked to stop meanwhile, or with trouble elsewhere, we leave it as it
//! is and say so.

use std::collections::BTreeSet;

use crate::digest;
use crate::error::{Error, Kind, Result};
use crate::execute::Run;
use crate::fleet::Member;
use crate::phases::settle::{self, Shut};
use crate::phases::{configure, start, stop, switch};
use crate::plan::{Former, HostPlan, Step};
use crate::procedures::Phase;
use crate::ssh::quote;

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    let mut order: Vec<&HostPlan> = run.plan.hosts.iter().filter(|host| host.restarts()).collect();
    if order.is_empty() {
        return Ok(());
    }
    run.watch.phase(Phase::Restart.title());
    order.sort_by_key(|host| host.is_leader);
    for plan in order {
        run.pause(&format!("restart {}", plan.name))?;
        let Some(member) = run.fleet.member(plan.id) else { continue };
        restart(run, member, plan).await?;
        run.did_one();
    }
    Ok(())
}

async fn restart(run: &Run<'_>, member: &Member, plan: &HostPlan) -> Result<()> {
    if configures(plan) {
        configure::stage(member, plan).await?;
    }
    let way_back = keep_what_runs(member, plan).await?;
    run.ask_the_guard(&BTreeSet::from([plan.id])).await?;
    stop::stop(member, run.watch).await?;
    match bring_up(run, member, plan).await {
        Ok(()) => Ok(()),
        Err(shut) => Err(after_failure(run, member, plan, shut, way_back).await),
    }
}

fn configures(plan: &HostPlan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::Configure { .. }))
}

/// Keeps the configuration that the node runs with as `node.toml.before`, wherever it is found, and
/// answers with the release to go back to; or with why there is no way back.
async fn keep_what_runs(member: &Member, plan: &HostPlan) -> Result<Result<String, String>> {
    let Some(Former { release, config }) = &plan.former else {
        return Ok(Err("what it ran before is not known".to_owned()));
    };
    let folder = quote(&member.host.deploy_dir.display().to_string());
    // Without a pidfile nobody knows; the file that lies there is the best guess.
    let known = quote(config.as_deref().unwrap_or_default());
    let script = format!(
        r#"cd {folder} || exit 1; known={known}
digest() {{ sha256sum < "$1" 2>/dev/null | cut -d' ' -f1; }}
[ -n "$known" ] || known=$(digest node.toml)
for file in node.toml node.toml.before node.toml.new; do
  [ "$(digest $file)" = "$known" ] || continue
  [ $file = node.toml.before ] || cp -pf $file node.toml.before || exit 1
  echo kept; exit 0
done
echo lost
"#
    );
    let said = member.session.run("keep the former configuration", &script).await?;
    Ok(match release {
        None => Err("its former release is no longer on the host".to_owned()),
        Some(_) if said.trim() != "kept" => {
            Err("its former node.toml is no longer on the host".to_owned())
        }
        Some(release) => Ok(release.clone()),
    })
}

/// From stopped to caught up, on what the plan says.
async fn bring_up(run: &Run<'_>, member: &Member, plan: &HostPlan) -> Result<(), Shut> {
    // Where the way to the host broke, nothing is known of the node.
    let own = |error: Error| match error.kind {
        Kind::Ssh => Shut::unknown(error),
        _ => Shut::by(plan.id, error),
    };
    if configures(plan) {
        configure::swap_in(member).await.map_err(own)?;
    }
    if plan.steps.iter().any(|step| matches!(step, Step::Switch { .. })) {
        let release = plan.release.as_ref().expect("a host to switch has a release");
        switch::switch(member, release.name()).await.map_err(own)?;
    }
    start::start(member, run.watch).await.map_err(own)?;
    settle::settle(run).await
}

/// Puts the node back, where that mends anything and costs nothing; the failure says what became of
/// it.
async fn after_failure(
    run: &Run<'_>,
    member: &Member,
    plan: &HostPlan,
    shut: Shut,
    way_back: Result<String, String>,
) -> Error {
    let left = format!("{} was left as it is, on what the plan says", plan.name);
    let is_at_fault = shut.by.contains(&plan.id);
    let error = *shut.error;
    if !is_at_fault || run.watch.stopped_because().is_some() {
        return error.because(left);
    }
    let release = match way_back {
        Ok(release) => release,
        Err(why) => return error.because(format!("{left}: {why}")),
    };
    if let Err(refusal) = run.ask_the_guard(&BTreeSet::from([plan.id])).await {
        let mut error = error.because(left);
        error.others.push(refusal);
        return error;
    }
    match go_back(run, member, &release).await {
        Ok(()) => {
            let name = digest::release_name(&release);
            run.watch.step(&plan.name, format!("went back to what it ran before, release {name}"));
            error.because("the node went back to its former release and configuration")
        }
        Err(second) => {
            let mut error = error;
            error.others.push(second);
            error
        }
    }
}

async fn go_back(run: &Run<'_>, member: &Member, release: &str) -> Result<()> {
    stop::stop(member, run.watch).await?;
    let folder = quote(&member.host.deploy_dir.display().to_string());
    let restore = format!("cd {folder} && mv -f node.toml.before node.toml");
    member.session.run("restore the former configuration", &restore).await?;
    switch::switch(member, release).await?;
    start::start(member, run.watch).await
}
