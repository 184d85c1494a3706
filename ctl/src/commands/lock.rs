//! `paxosctl lock`: who holds the operator lock, and how to free it.

use std::process::ExitCode;

use clap::Subcommand;
use deploy::lock::{self, Found};
use deploy::{audit, stamp};

use crate::cli::Context;
use crate::desk;
use crate::error::Error;
use crate::ui::{self, Cell, Style};

/// Show or free the operator lock.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Who holds it, for what, since when.
    Show,
    /// Free it, whoever holds it. It frees itself 30 s after its holder has gone.
    Release,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    match args.what {
        What::Show => show(context).await,
        What::Release => release(context).await,
    }
}

async fn show(context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    let hosts = desk::select(context, &inventory)?;
    let (fleet, mut errors) = desk::dial(context, &inventory, &hosts).await;
    let outcomes = fleet
        .each(|_| true, |member| async move { lock::look(&member.session, &member.host).await })
        .await;
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    for (member, outcome) in outcomes {
        let name = member.host.name.clone();
        match outcome {
            Ok(found) => {
                rows.push(row(&name, found.as_ref()));
                json.push(serde_json::json!({"node": name, "lock": found, "live": found.as_ref().is_some_and(Found::is_live)}));
            }
            Err(error) => errors.push(error),
        }
    }
    if context.json() {
        context.ui.json(&serde_json::json!({"schema_version": 1, "locks": json}));
    } else {
        let head = ["NODE", "LOCK", "WHO", "WHAT", "SINCE", "RENEWED"];
        context.ui.data(context.ui.table(&head, &rows));
    }
    deploy::Error::all(errors).map_or(Ok(ui::OK), |error| Err(error.into()))
}

fn row(name: &str, found: Option<&Found>) -> Vec<Cell> {
    let mut cells: Vec<Cell> = vec![name.into()];
    let Some(found) = found else {
        cells.push("free".into());
        return cells;
    };
    cells.push(if found.is_live() { Cell::new("held", Style::Warn) } else { "expired".into() });
    let holder = &found.holder;
    cells.extend([
        holder.who.clone().into(),
        holder.what.clone().into(),
        holder.since.clone().into(),
    ]);
    cells.push(format!("{} s ago", found.renewed_seconds_ago).into());
    cells
}

async fn release(context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    let hosts = desk::select(context, &inventory)?;
    let fleet = desk::dial_all(context, &inventory, &hosts).await?;
    let found = fleet
        .all(|_| true, |member| async move { lock::look(&member.session, &member.host).await })
        .await?;
    let holders: Vec<&Found> = found.iter().filter_map(|(_, found)| found.as_ref()).collect();
    let Some(first) = holders.first() else {
        context.ui.say("the lock is free");
        return Ok(ui::OK);
    };
    let holder = &first.holder;
    context.ui.confirm(&format!(
        "{} holds it for `{}` since {}, renewed {} s ago. Free it?",
        holder.who, holder.what, holder.since, first.renewed_seconds_ago
    ))?;
    fleet
        .all(
            |_| true,
            |member| async move { lock::force_release(&member.session, &member.host).await },
        )
        .await?;
    let entry = audit::Entry {
        id: stamp::random_hex(6).map_err(desk::internal("name the audit entry"))?,
        time: stamp::rfc3339(std::time::SystemTime::now()),
        who: stamp::who(),
        cluster: inventory.cluster.name.clone(),
        what: format!("lock release (of {} for {})", holder.who, holder.what),
        result: "ok".to_owned(),
        duration_ms: 0,
    };
    audit::append(&fleet, &entry).await;
    context.ui.say(format!("the lock is free, audit {}", entry.id));
    Ok(ui::OK)
}
