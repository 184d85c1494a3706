//! `paxosctl down`: stop nodes, gracefully; with `--wipe`, remove the data of the whole cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Instant;

use deploy::execute::{self, Run};
use deploy::facts::Facts;
use deploy::guard;
use deploy::live;
use deploy::plan::{self, Plan, Quorum};
use deploy::procedures;
use hosts::{Host, Inventory};

use crate::cli::Context;
use crate::commands::plan as plan_verb;
use crate::desk;
use crate::error::{Error, Word};

/// Stop nodes gracefully. Data stays, unless `--wipe` removes that of the whole cluster.
///
/// Without -n or -l the whole cluster stops. Stopping some nodes is refused when it would cost the
/// quorum, counted from what the nodes say now.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove all data of the cluster, for good. Asks for a typed phrase.
    #[arg(long)]
    wipe: bool,
    /// The answer to the question of --wipe, for scripts: the cluster's name.
    #[arg(long, value_name = "CLUSTER", requires = "wipe")]
    yes_wipe: Option<String>,
    /// Stop the selected nodes although the rest is no quorum.
    #[arg(long)]
    accept_quorum_loss: bool,
    /// Leave out hosts that cannot be reached; exits with 9.
    #[arg(long, conflicts_with = "wipe")]
    skip_unreachable: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let began = Instant::now();
    let inventory = desk::load_inventory(context)?;
    let hosts = desk::select(context, &inventory)?;
    let whole = hosts.len() == inventory.hosts.len();
    if args.wipe && !whole {
        return Err(Error::new(Word::Guard, "remove the data of some nodes")
            .because("a voter that lost its data may never vote again under its id")
            .hint(
                "`--wipe` is for whole clusters; a single node leaves by `paxosctl member remove`",
            ));
    }
    // All hosts are asked, as the guard counts the ones that stay.
    let all: Vec<&Host> = inventory.hosts.iter().collect();
    let (fleet, errors) = desk::dial(context, &inventory, &all).await;
    let (facts, mut unread) = deploy::facts::survey(&fleet).await;
    unread.extend(errors);
    unread.retain(|error| hosts.iter().any(|host| error.host.as_deref() == Some(&host.name)));
    if !args.skip_unreachable
        && let Some(error) = deploy::Error::all(unread.clone())
    {
        return Err(refused_for_the_unreachable(&args, error));
    }
    let quorum = if whole || args.accept_quorum_loss { Quorum::MayGo } else { Quorum::Keep };
    let look_at =
        |facts: &BTreeMap<u32, Facts>| plan::down(&inventory, &hosts, facts, quorum, args.wipe);
    let plan = look_at(&facts)?;
    if !context.json() && !plan.is_empty() {
        context.ui.data(plan_verb::render(context, &plan));
    }
    if plan.is_empty() || context.global.dry_run {
        report(context, &plan, args.wipe, None, began);
        return desk::left_out(unread);
    }
    if quorum == Quorum::Keep {
        ask_the_guard(&inventory, &hosts, &facts)?;
    }
    ask_the_person(&args, context, &inventory, &hosts, &facts)?;
    let watch = desk::watch(context);
    let procedure = if args.wipe { procedures::DOWN_AND_WIPE } else { procedures::DOWN };
    let what = if args.wipe { "down --wipe" } else { "down" };
    let (audit_id, ()) = execute::under_lock(&inventory, &fleet, what, &watch, async || {
        // A person may have thought for minutes: look again, now that nobody else changes anything.
        let now = look_at(&deploy::facts::survey(&fleet).await.0)?;
        if now.goes_beyond(&plan) {
            return Err(plan::moved("stop what was shown"));
        }
        Run::new(&inventory, &now, &fleet, &watch).walk(procedure).await
    })
    .await?;
    report(context, &plan, args.wipe, Some(&audit_id), began);
    desk::left_out(unread)
}

fn refused_for_the_unreachable(args: &Args, error: deploy::Error) -> Error {
    let hint = if args.wipe {
        "data goes only when every node has stopped: bring the host up first, or take it out of \
         the inventory"
    } else {
        "`--skip-unreachable` stops the rest"
    };
    Error::from(error).and_hint(hint)
}

/// A first look, so that a person is not asked in vain. The one that counts is asked under the lock.
fn ask_the_guard(
    inventory: &Inventory,
    hosts: &[&Host],
    facts: &BTreeMap<u32, Facts>,
) -> Result<(), Error> {
    let seen = live::by_node(facts.iter().map(|(id, facts)| (*id, facts.heard())));
    let voters = guard::voters(&inventory.hosts, &seen, inventory.guard.max_lag_slots, None);
    let taken: BTreeSet<u32> = hosts.iter().map(|host| host.id).collect();
    guard::may_take(&voters, &taken).map_err(|refusal| {
        Error::new(Word::Guard, "stop the selected nodes").because(refusal).hint(
            "wait until the others have caught up (`paxosctl status`), stop fewer, or say \
             `--accept-quorum-loss`",
        )
    })
}

fn ask_the_person(
    args: &Args,
    context: &Context,
    inventory: &Inventory,
    hosts: &[&Host],
    facts: &BTreeMap<u32, Facts>,
) -> Result<(), Error> {
    let name = &inventory.cluster.name;
    if args.wipe {
        if args.yes_wipe.as_ref() == Some(name) {
            return Ok(());
        }
        if let Some(other) = &args.yes_wipe {
            return Err(Error::usage(format!(
                "--yes-wipe says `{other}`, the cluster is `{name}`"
            )));
        }
        let mut lines = format!("This removes the data of cluster {name} for good:");
        for host in hosts {
            lines += &format!("\n  {}", describe(host, facts.get(&host.id)));
        }
        return context.ui.confirm_phrase(
            &lines,
            &format!("wipe {name}"),
            &format!("--wipe --yes-wipe {name}"),
        );
    }
    let running = hosts
        .iter()
        .filter(|host| facts.get(&host.id).is_some_and(|facts| facts.process.is_some()));
    let lines: Vec<String> =
        running.map(|host| format!("  {}", describe(host, facts.get(&host.id)))).collect();
    context.ui.confirm(&format!("Stop these nodes of cluster {name}?\n{}\n", lines.join("\n")))
}

/// Host, role and lag: what a tired person needs to see before a yes.
fn describe(host: &Host, facts: Option<&Facts>) -> String {
    let status = facts.and_then(|facts| facts.status.as_ref());
    let role = status.map_or_else(|| "not serving".to_owned(), |status| status.role.to_string());
    let lag = status.map_or_else(String::new, |status| {
        let behind = status.highest_known_slot.saturating_sub(status.applied_slot);
        format!(", chosen {}, lag {behind}", status.chosen_slot)
    });
    format!("{} at {} ({role}{lag}, data in {})", host.name, host.address, host.data_dir.display())
}

fn report(context: &Context, plan: &Plan, wiped: bool, audit_id: Option<&str>, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    if context.json() {
        let own = serde_json::json!({
            "plan": plan,
        });
        desk::json_result(context, audit_id, seconds, own);
    } else if let Some(id) = audit_id {
        let flag = desk::inventory_flag(context);
        context.ui.say(format!("down: done in {seconds:.1} s, audit {id}"));
        context.ui.say(if wiped {
            format!("next: paxosctl{flag} up   (begins a new, empty cluster)")
        } else {
            format!("undo: paxosctl{flag} up")
        });
    } else if plan.is_empty() {
        context.ui.data("No changes. None of these nodes runs.");
    } else {
        context.ui.say("dry run: nothing was changed");
    }
}
