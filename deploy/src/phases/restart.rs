//! Restarts running nodes one at a time, the leader last. Before each, the guard is asked again
//! with what the nodes say now, and after each, all must have caught up before the next: "up" as
//! the restarted node itself sees it is not enough. A node that does not come back on its new
//! release or configuration goes back to what it ran before, and the others are not touched.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Kind, Result};
use crate::execute::Run;
use crate::facts::{self, Facts};
use crate::fleet::Member;
use crate::guard;
use crate::phases::{configure, settle, start, stop, switch};
use crate::plan::{HostPlan, Step};
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
        ask_the_guard(run, plan).await?;
        restart(run, member, plan).await?;
        run.did_one();
    }
    Ok(())
}

async fn ask_the_guard(run: &Run<'_>, plan: &HostPlan) -> Result<()> {
    // With one or two voters there is no way that keeps the quorum; the plan said so.
    if run.plan.voters <= 2 {
        return Ok(());
    }
    let now: BTreeMap<u32, Facts> = run
        .fleet
        .each(|_| true, |member| async move { facts::gather(&member.session, &member.host).await })
        .await
        .into_iter()
        .filter_map(|(member, outcome)| Some((member.host.id, outcome.ok()?)))
        .collect();
    let seen: Vec<(u32, Option<&Facts>)> =
        run.inventory.hosts.iter().map(|host| (host.id, now.get(&host.id))).collect();
    let voters = guard::voters(&run.inventory.hosts, &seen, run.inventory.guard.max_lag_slots);
    guard::may_take(&voters, &BTreeSet::from([plan.id])).map_err(|refusal| {
        Error::new(Kind::Guard, "restart the node")
            .on(&*plan.name)
            .because(refusal)
            .hint("look: `paxosctl status`; run the command again when the others have caught up")
    })
}

async fn restart(run: &Run<'_>, member: &Member, plan: &HostPlan) -> Result<()> {
    let has = |which: fn(&Step) -> bool| plan.steps.iter().any(which);
    let folder = quote(&member.host.deploy_dir.display().to_string());
    let keep = format!("cd {folder} && cp -pf node.toml node.toml.before");
    member.session.run("keep the former configuration", &keep).await?;
    if has(|step| matches!(step, Step::Configure { .. })) {
        configure::configure(member, plan).await?;
    }
    if has(|step| matches!(step, Step::Switch { .. })) {
        let release = plan.release.as_ref().expect("a host to switch has a release");
        switch::switch(member, release.name()).await?;
    }
    stop::stop(member, run.watch).await?;
    let failure = match start::start(member, run.watch).await {
        Ok(()) => match settle::settle(run).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        },
        Err(error) => error,
    };
    let back = go_back(run, member, plan, &folder).await;
    let mut error = failure;
    match back {
        Ok(()) => {
            run.watch.step(&plan.name, "went back to what it ran before");
            error = error.because("the node went back to its former release and configuration");
        }
        Err(second) => error.others.push(second),
    }
    Err(error)
}

async fn go_back(run: &Run<'_>, member: &Member, plan: &HostPlan, folder: &str) -> Result<()> {
    stop::stop(member, run.watch).await?;
    let restore = format!("cd {folder} && mv -f node.toml.before node.toml");
    member.session.run("restore the former configuration", &restore).await?;
    if let Some(release) = &plan.old_release {
        switch::switch(member, release).await?;
    }
    start::start(member, run.watch).await
}
