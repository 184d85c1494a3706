//! `paxosctl up`: make the hosts what the inventory says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use deploy::Kind;
use deploy::execute::{self, Run};
use deploy::fleet::{Fleet, Watch};
use deploy::plan::Plan;
use deploy::procedures;
use deploy::release::Release;
use hosts::Inventory;

use crate::cli::{self, Context};
use crate::commands::plan;
use crate::desk;
use crate::error::{Error, Word};

/// Make the hosts what the inventory says: copy, configure, start, wait for a leader.
///
/// Looks first and does only what is missing; a second run changes nothing. Running nodes that must
/// change are restarted one at a time, the leader last, and the quorum is kept.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long the nodes may take to find a leader and catch up.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = cli::duration)]
    settle: Duration,
    /// Wait this long for a lock that somebody else holds, then plan anew and go on.
    #[arg(long, value_name = "TIME", value_parser = cli::duration)]
    lock_wait: Option<Duration>,
    /// Carry out exactly this plan of `plan --out`, or nothing if anything has moved since.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Leave out hosts that cannot be reached; exits with 9.
    #[arg(long)]
    skip_unreachable: bool,
}

/// What there is to work with, the same for each look.
struct Work<'a> {
    inventory: &'a Inventory,
    releases: BTreeMap<String, Release>,
    fleet: Fleet,
    skipped: Vec<u32>,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let began = Instant::now();
    let inventory = desk::load_inventory(context)?;
    desk::say_insecure(context, &inventory);
    refuse_unsettled(context, &inventory)?;
    let releases = desk::releases(&inventory)?;
    let hosts: Vec<&hosts::Host> = inventory.hosts.iter().collect();
    if !desk::selection(context).is_all() {
        return Err(Error::usage("`up` is about the whole cluster, not about selected nodes")
            .hint("leave out -n and -l; only what differs is touched"));
    }
    let (fleet, errors) = desk::dial(context, &inventory, &hosts).await;
    let connected = |host: &&&hosts::Host| fleet.member(host.id).is_none();
    let skipped: Vec<u32> = hosts.iter().filter(connected).map(|host| host.id).collect();
    if !args.skip_unreachable
        && let Some(error) = deploy::Error::all(errors.clone())
    {
        let hint = "`--skip-unreachable` converges the rest";
        return Err(Error::from(error).and_hint(hint));
    }
    let work = Work { inventory: &inventory, releases, fleet, skipped };
    let is_patient = patience(context, began, args.lock_wait);
    let watch = desk::watch(context);
    loop {
        let shown = first_plan(&args, &work).await?;
        show_and_ask(context, &shown)?;
        if shown.is_empty() || context.global.dry_run {
            report(context, &shown, None, began);
            return desk::left_out(errors);
        }
        let outcome = wait_for_lock(context, &is_patient, || {
            let converge = || converge(&args, &work, &shown, &watch);
            execute::under_lock(&inventory, &work.fleet, "up", &watch, converge)
        })
        .await;
        match outcome {
            Ok((audit_id, ())) => {
                report(context, &shown, Some(&audit_id), began);
                return desk::left_out(errors);
            }
            // Whoever held the lock has changed the hosts; a saved plan is this one or none.
            Err(error) if error.kind == Kind::Moved && args.plan.is_none() && is_patient() => {
                context.ui.say("the hosts have changed meanwhile; planning anew");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn show_and_ask(context: &Context, plan: &Plan) -> Result<(), Error> {
    if !context.json() {
        context.ui.data(plan::render(context, plan));
    }
    if plan.restarts() > 0 && plan.voters <= 2 && !context.global.dry_run {
        context.ui.confirm("The cluster will not serve while a node restarts. Go on?")?;
    }
    Ok(())
}

/// The plan that is shown; with `--plan`, only if it is the saved one.
async fn first_plan(args: &Args, work: &Work<'_>) -> Result<Plan, Error> {
    let Work { inventory, releases, fleet, skipped } = work;
    let Some(path) = &args.plan else {
        return plan::make(inventory, releases, fleet, &plan::fresh_uuid()?, skipped).await;
    };
    let saved = plan::read_saved(path)?;
    let now = plan::make(inventory, releases, fleet, &saved.cluster_uuid, skipped).await?;
    let moved = now.moved_since(&saved.pins);
    if moved.is_empty() {
        return Ok(now);
    }
    Err(Error::new(Word::Guard, format!("carry out the plan {}", path.display()))
        .because(format!("no longer as it was when the plan was made: {}", moved.join(", ")))
        .hint("nothing was done; look again with `paxosctl plan`"))
}

/// Under the lock: looks again, and does what was shown or nothing.
async fn converge(args: &Args, work: &Work<'_>, shown: &Plan, watch: &Watch) -> deploy::Result<()> {
    let Work { inventory, releases, fleet, skipped } = work;
    let wish = deploy::plan::Wish { inventory, releases, fresh_uuid: &shown.cluster_uuid, skipped };
    let plan = deploy::plan::up(&wish, &look(fleet).await?)?;
    let steps = |plan: &Plan| plan.hosts.iter().map(|host| host.steps.clone()).collect::<Vec<_>>();
    if steps(&plan) != steps(shown) {
        return Err(deploy::plan::moved("carry out the plan that was shown"));
    }
    let mut run = Run::new(inventory, &plan, fleet, watch);
    run.settle_within = args.settle;
    run.walk(procedures::UP).await?;
    prove(&wish, fleet).await
}

/// After the work: what runs is what was wished, by the digests of the running programs.
async fn prove(wish: &deploy::plan::Wish<'_>, fleet: &Fleet) -> deploy::Result<()> {
    let left = deploy::plan::up(wish, &look(fleet).await?)?;
    if left.is_empty() {
        return Ok(());
    }
    let mut error =
        deploy::Error::new(deploy::Kind::Partly, "compare what runs with what was wished")
            .hint("run the command again to go on");
    for line in left.lines() {
        error = error.because(line);
    }
    Err(error)
}

async fn look(fleet: &Fleet) -> deploy::Result<BTreeMap<u32, deploy::facts::Facts>> {
    let (facts, errors) = deploy::facts::survey(fleet).await;
    match deploy::Error::all(errors) {
        None => Ok(facts),
        Some(error) => Err(error),
    }
}

/// Whether there is time left to wait for somebody else's lock.
pub(super) fn patience(
    context: &Context,
    began: Instant,
    lock_wait: Option<Duration>,
) -> impl Fn() -> bool {
    let deadline = lock_wait.map(|wait| began + wait);
    move || {
        deadline.is_some_and(|deadline| Instant::now() < deadline)
            && !context.interrupt.is_requested()
    }
}

pub(super) async fn wait_for_lock<T, Attempt>(
    context: &Context,
    is_patient: &impl Fn() -> bool,
    mut attempt: impl FnMut() -> Attempt,
) -> deploy::Result<T>
where
    Attempt: Future<Output = deploy::Result<T>>,
{
    let mut said = false;
    loop {
        match attempt().await {
            Err(error) if error.kind == Kind::Lock && is_patient() => {
                if !said {
                    context.ui.say(format!("waiting: {error}"));
                    said = true;
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            outcome => return outcome,
        }
    }
}

pub(super) fn refuse_unsettled(context: &Context, inventory: &Inventory) -> Result<(), Error> {
    let problems = inventory.unsettled();
    if !problems.has_errors() {
        return Ok(());
    }
    context.ui.say(problems.to_string());
    Err(Error::usage(format!("the inventory {} cannot be started with", inventory.origin)))
}

fn report(context: &Context, plan: &Plan, audit_id: Option<&str>, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    if context.json() {
        let own = serde_json::json!({
            "dry_run": context.global.dry_run,
            "summary": plan.summary(),
        });
        desk::json_result(context, audit_id, seconds, own);
        return;
    }
    let flag = desk::inventory_flag(context);
    match audit_id {
        Some(id) => {
            context.ui.say(format!("up: done in {seconds:.1} s, audit {id}"));
            context.ui.say(format!("next: paxosctl{flag} status   undo: paxosctl{flag} down"));
        }
        None if context.global.dry_run && !plan.is_empty() => {
            context.ui.say("dry run: nothing was changed");
        }
        None => context.ui.say(format!("looked in {seconds:.1} s")),
    }
}
