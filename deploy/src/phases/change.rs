//! Changes of the membership, asked of the leader. The guard is asked right before each that takes a
//! voter away or makes one, with what the nodes say now. A leader that is to leave hands over first.

use std::collections::BTreeSet;

use monitoring::status::Configuration;

use crate::error::{Error, Kind, Result};
use crate::execute::Run;
use crate::live;
use crate::phases::enroll;
use crate::plan::{HostPlan, Step};
use crate::procedures::Phase;

/// The new node becomes a learner: it gets everything and counts nowhere.
pub(crate) async fn join(run: &Run<'_>) -> Result<()> {
    let Some((plan, _)) = planned(run, |step| *step == Step::Join) else { return Ok(()) };
    run.watch.phase(Phase::Join.title());
    let member = run.fleet.member(plan.id).ok_or_else(|| away(Phase::Join, plan))?;
    let identity = enroll::identity(member).await?;
    let host = &member.host;
    let mut words = vec![
        "member".to_owned(),
        "add".to_owned(),
        host.id.to_string(),
        host.name.clone(),
        identity.incarnation.clone(),
        identity.public_key.clone(),
        host.peer_endpoint(),
        host.client_endpoint(),
        host.http_endpoint(),
    ];
    // The machine, and the name, of a voter that it is to replace are its own.
    words.extend(plan.steps.iter().find_map(|step| match step {
        Step::TakeOver { old, .. } => Some(old.to_string()),
        _ => None,
    }));
    // The first one is what every release can do.
    if let Some(newest) = identity.store_version_newest.filter(|newest| *newest > 1) {
        words.extend(["--store-version-newest".to_owned(), newest.to_string()]);
    }
    let is_so = |c: &Configuration| is_member(c, plan.id);
    let leader =
        live::bring_about(run.fleet, Phase::Join.title(), is_so, |_| words.clone()).await?;
    // Another run may have added a node of this id from another disk.
    let leader = run.fleet.members.iter().find(|member| member.host.id == leader.id);
    if let Some(leader) = leader {
        let known = live::export(leader).await?;
        let known = known.members.iter().find(|known| known.id == plan.id);
        if known.is_some_and(|known| known.incarnation != identity.incarnation) {
            return Err(Error::new(Kind::Guard, Phase::Join.title())
                .on(&*host.name)
                .because(format!("id {} is a member already, with another disk", plan.id))
                .hint("give this host an id that was never used"));
        }
    }
    run.watch.step(&host.name, "is a learner");
    run.did_one();
    Ok(())
}

/// The members go on by other rules.
pub(crate) async fn rule(run: &Run<'_>) -> Result<()> {
    let which = |step: &Step| matches!(step, Step::Rule(_));
    let Some((plan, Step::Rule(rules))) = planned(run, which) else { return Ok(()) };
    run.watch.phase(Phase::Rule.title());
    let words = || [vec!["member".to_owned(), "rules".to_owned()], rules.words()].concat();
    let leader =
        live::bring_about(run.fleet, Phase::Rule.title(), |c| rules.rule(c), |_| words()).await?;
    let number = leader.configuration.number;
    run.watch.step(&plan.name, format!("{rules} by configuration {number}"));
    run.did_one();
    Ok(())
}

/// The learner becomes a voter.
pub(crate) async fn promote(run: &Run<'_>) -> Result<()> {
    let Some((plan, _)) = planned(run, |step| *step == Step::Promote) else { return Ok(()) };
    run.watch.phase(Phase::Promote.title());
    run.ask_the_guard_of_change(1, &BTreeSet::new()).await?;
    let is_so = |c: &Configuration| c.is_voter(plan.id);
    let words = || vec!["member".to_owned(), "promote".to_owned(), plan.id.to_string()];
    live::bring_about(run.fleet, Phase::Promote.title(), is_so, |_| words()).await?;
    run.watch.step(&plan.name, "is a voter");
    run.did_one();
    Ok(())
}

/// The learner votes in another one's place.
pub(crate) async fn take_over(run: &Run<'_>) -> Result<()> {
    let which = |step: &Step| matches!(step, Step::TakeOver { .. });
    let Some((plan, Step::TakeOver { old, old_name })) = planned(run, which) else { return Ok(()) };
    run.watch.phase(Phase::TakeOver.title());
    run.ask_the_guard_of_change(1, &BTreeSet::from([*old])).await?;
    make_way(run, *old, old_name).await?;
    let is_so = |c: &Configuration| c.is_voter(plan.id) && !is_member(c, *old);
    let words =
        || vec!["member".to_owned(), "replace".to_owned(), old.to_string(), plan.id.to_string()];
    live::bring_about(run.fleet, Phase::TakeOver.title(), is_so, |_| words()).await?;
    run.watch.step(&plan.name, format!("is a voter, {old_name} (id {old}) is none any more"));
    run.did_one();
    Ok(())
}

/// The member leaves for good.
pub(crate) async fn leave(run: &Run<'_>) -> Result<()> {
    let Some((plan, _)) = planned(run, |step| *step == Step::Leave) else { return Ok(()) };
    run.watch.phase(Phase::Leave.title());
    if plan.votes {
        run.ask_the_guard_of_change(0, &BTreeSet::from([plan.id])).await?;
        make_way(run, plan.id, &plan.name).await?;
    }
    let is_so = |c: &Configuration| !is_member(c, plan.id);
    let words = || vec!["member".to_owned(), "remove".to_owned(), plan.id.to_string()];
    let leader = live::bring_about(run.fleet, Phase::Leave.title(), is_so, |_| words()).await?;
    let number = leader.configuration.number;
    run.watch.step(&plan.name, format!("is no member any more (configuration {number})"));
    run.did_one();
    Ok(())
}

/// Whoever leads and is to leave hands over first, so that clients are redirected and not held up by
/// an election. Where nobody else could lead, it leaves as it is.
async fn make_way(run: &Run<'_>, id: u32, name: &str) -> Result<()> {
    let now = live::look(run.fleet, |_| true).await;
    let leads = now.leader().is_some_and(|(_, status)| status.id == id);
    let is_alone = now.configuration().is_some_and(|c| c.voters().count() < 2);
    if !leads || is_alone {
        return Ok(());
    }
    match live::hand_over(run.fleet, None, Some(id)).await {
        Ok(moved) => run.watch.step(name, format!("has handed leadership over to {}", moved.to)),
        Err(error) if error.kind == Kind::Guard => {
            run.watch.step(name, format!("leads until it is out: {error}"));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn is_member(configuration: &Configuration, id: u32) -> bool {
    configuration.members.iter().any(|member| member.id == id)
}

fn planned<'a>(
    run: &'a Run<'_>,
    which: impl Fn(&Step) -> bool,
) -> Option<(&'a HostPlan, &'a Step)> {
    let hosts = run.plan.hosts.iter();
    hosts.flat_map(|host| host.steps.iter().map(move |step| (host, step))).find(|(_, s)| which(s))
}

fn away(phase: Phase, plan: &HostPlan) -> Error {
    Error::new(Kind::Ssh, phase.title()).on(&*plan.name).because("the host was not reached")
}
