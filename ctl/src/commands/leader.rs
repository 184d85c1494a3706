//! `paxosctl leader move`: let another node lead, without a pause that clients would notice.

use std::process::ExitCode;
use std::time::Instant;

use deploy::{execute, live};
use hosts::{Host, Inventory};

use crate::cli::Context;
use crate::desk;
use crate::error::{Error, Word};
use crate::ui;

/// See who leads in `status`; let another node lead.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Hand leadership over: to that node, or to the voter that is best placed.
    ///
    /// The node must be a voter, reached, caught up and able to write; else the leader stays.
    Move(MoveArgs),
}

#[derive(Debug, clap::Args)]
pub struct MoveArgs {
    /// The node that is to lead, by its name.
    #[arg(value_name = "NODE")]
    to: Option<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let Action::Move(args) = args.action;
    move_to(args, context).await
}

/// Also `paxosctl transfer`.
pub async fn move_to(args: MoveArgs, context: &Context) -> Result<ExitCode, Error> {
    let began = Instant::now();
    let inventory = desk::load_inventory(context)?;
    let all: Vec<&Host> = inventory.hosts.iter().collect();
    let (fleet, errors) = desk::dial(context, &inventory, &all).await;
    let now = live::look(&fleet, |_| true).await;
    let Some((_, status)) = now.leader() else {
        let error = Error::from(live::no_leader(&now, "move leadership"));
        return Err(errors.into_iter().fold(error, |error, other| error.and(other.into())));
    };
    let (leader, configuration) = (status.id, &status.configuration);
    let from = configuration.name_of(leader);
    let to = args.to.as_deref().map(|name| voter(name, &inventory, status)).transpose()?;
    if to == Some(leader) {
        context.ui.say(format!("{from} leads already"));
        report(context, &from, &from, None, None, began);
        return Ok(ui::OK);
    }
    if to.is_none() && configuration.voters().count() < 2 {
        return Err(Error::new(Word::Guard, "move leadership")
            .on(from)
            .because("it is the only voter: nobody else can lead")
            .hint(format!(
                "add one: `paxosctl{} member add NODE`",
                desk::inventory_flag(context)
            )));
    }
    if context.global.dry_run {
        let to = to.map_or_else(|| "the best voter".to_owned(), |to| configuration.name_of(to));
        context.ui.data(format!("{from} would hand leadership over to {to}"));
        return Ok(ui::OK);
    }
    let what = match to {
        Some(to) => format!("leader move {}", configuration.name_of(to)),
        None => "leader move".to_owned(),
    };
    let watch = desk::watch(context);
    let (audit_id, moved) = execute::under_lock(&inventory, &fleet, &what, &watch, async || {
        live::hand_over(&fleet, to, None).await
    })
    .await?;
    report(context, &moved.from, &moved.to, moved.took_ms, Some(&audit_id), began);
    Ok(ui::OK)
}

/// By the name that the cluster or the inventory has for it.
fn voter(
    name: &str,
    inventory: &Inventory,
    status: &monitoring::status::NodeStatus,
) -> Result<u32, Error> {
    let configuration = &status.configuration;
    let live = configuration.members.iter().find(|member| member.name == name).map(|m| m.id);
    let id = live.or_else(|| inventory.host(name).map(|host| host.id));
    if let Some(id) = id.filter(|id| configuration.is_voter(*id)) {
        return Ok(id);
    }
    let voters: Vec<&str> = configuration.voters().map(|member| member.name.as_str()).collect();
    let why = match id {
        Some(id) if configuration.members.iter().any(|m| m.id == id) => "a learner cannot lead",
        Some(_) => "it is no member of the cluster",
        None => "neither the cluster nor the inventory has a node of this name",
    };
    Err(Error::usage("move leadership")
        .on(name)
        .because(why)
        .hint(format!("the voters are {}", voters.join(", "))))
}

fn report(
    context: &Context,
    from: &str,
    to: &str,
    took_ms: Option<u64>,
    audit_id: Option<&str>,
    began: Instant,
) {
    let seconds = began.elapsed().as_secs_f64();
    if context.json() {
        let own = serde_json::json!({
            "from": from,
            "leader": to,
            "took_ms": took_ms,
        });
        desk::json_result(context, audit_id, seconds, own);
        return;
    }
    let Some(id) = audit_id else { return };
    let took = took_ms.map_or_else(String::new, |ms| format!(" within {ms} ms"));
    context.ui.data(format!("{to} leads now; {from} handed over{took}"));
    let flag = desk::inventory_flag(context);
    context.ui.say(format!("leader move: done in {seconds:.1} s, audit {id}"));
    context
        .ui
        .say(format!("next: paxosctl{flag} status   undo: paxosctl{flag} leader move {from}"));
}
