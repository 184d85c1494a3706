//! `paxosctl audit`: who did what, when, with what result; read from the hosts and merged.

use std::collections::BTreeMap;
use std::process::ExitCode;

use deploy::audit::{self, Entry};

use crate::cli::Context;
use crate::desk;
use crate::error::Error;
use crate::ui::{self, Cell, Style};

/// Show who changed the cluster, when, and how it ended.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many of the newest entries to show.
    #[arg(long, default_value_t = 20, value_name = "N")]
    last: usize,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    let hosts = desk::select(context, &inventory)?;
    let (fleet, mut errors) = desk::dial(context, &inventory, &hosts).await;
    let outcomes = fleet
        .each(
            |_| true,
            |member| async move { audit::read(&member.session, &member.host, args.last).await },
        )
        .await;
    // One run left its line on every host it reached; the id makes them one again.
    let mut merged: BTreeMap<(String, String), (Entry, Vec<String>)> = BTreeMap::new();
    for (member, outcome) in outcomes {
        match outcome {
            Ok(entries) => {
                for entry in entries {
                    let key = (entry.time.clone(), entry.id.clone());
                    let slot = merged.entry(key).or_insert_with(|| (entry, Vec::new()));
                    slot.1.push(member.host.name.clone());
                }
            }
            Err(error) => errors.push(error),
        }
    }
    let skip = merged.len().saturating_sub(args.last);
    let newest: Vec<&(Entry, Vec<String>)> = merged.values().skip(skip).collect();
    if context.json() {
        let entries: Vec<serde_json::Value> = newest
            .iter()
            .map(|(entry, hosts)| serde_json::json!({"entry": entry, "hosts": hosts}))
            .collect();
        context.ui.json(&serde_json::json!({"schema_version": 1, "entries": entries}));
    } else {
        let rows: Vec<Vec<Cell>> = newest.iter().map(|(entry, hosts)| row(entry, hosts)).collect();
        let head = ["TIME", "WHO", "WHAT", "RESULT", "TOOK", "HOSTS", "ID"];
        context.ui.data(context.ui.table(&head, &rows));
    }
    deploy::Error::all(errors).map_or(Ok(ui::OK), |error| Err(error.into()))
}

fn row(entry: &Entry, hosts: &[String]) -> Vec<Cell> {
    let style = if entry.result == "ok" { Style::Good } else { Style::Bad };
    vec![
        entry.time.clone().into(),
        entry.who.clone().into(),
        entry.what.clone().into(),
        Cell::new(entry.result.clone(), style),
        format!("{:.1}s", entry.duration_ms as f64 / 1000.0).into(),
        hosts.join(",").into(),
        entry.id.clone().into(),
    ]
}
