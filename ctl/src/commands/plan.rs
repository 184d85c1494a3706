//! `paxosctl plan`: what `up` would do, host by host, from what is on the hosts now.

use std::collections::BTreeMap;
use std::process::ExitCode;

use deploy::facts::{self, Facts};
use deploy::fleet::Fleet;
use deploy::plan::{self, Plan, Wish};
use deploy::release::Release;
use hosts::Inventory;

use crate::cli::Context;
use crate::desk;
use crate::error::Error;
use crate::ui::{self, Style};

/// Show what `up` would change, without changing anything.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Exit with 10 when there is something to do.
    #[arg(long)]
    detailed_exitcode: bool,
}

/// What `--detailed-exitcode` answers when a plan has changes.
const HAS_CHANGES: u8 = 10;

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    desk::say_insecure(context, &inventory);
    let releases = desk::releases(&inventory)?;
    let hosts: Vec<&hosts::Host> = inventory.hosts.iter().collect();
    let fleet = desk::dial_all(context, &inventory, &hosts).await?;
    let plan = make(&inventory, &releases, &fleet).await?;
    if context.json() {
        context.ui.json(&serde_json::json!({
            "schema_version": 1,
            "plan": plan,
            "summary": plan.summary(),
        }));
    } else {
        context.ui.data(render(context, &plan));
    }
    if args.detailed_exitcode && !plan.is_empty() {
        return Ok(ExitCode::from(HAS_CHANGES));
    }
    Ok(ui::OK)
}

/// Looks at all hosts and computes the plan.
pub async fn make(
    inventory: &Inventory,
    releases: &BTreeMap<String, Release>,
    fleet: &Fleet,
) -> Result<Plan, Error> {
    let facts = look(fleet).await?;
    let uuid = fresh_uuid()?;
    let wish = Wish { inventory, releases, fresh_uuid: &uuid };
    Ok(plan::up(&wish, &facts)?)
}

pub async fn look(fleet: &Fleet) -> Result<BTreeMap<u32, Facts>, Error> {
    let (facts, errors) = facts::survey(fleet).await;
    match deploy::Error::all(errors) {
        None => Ok(facts),
        Some(error) => Err(error.into()),
    }
}

pub fn fresh_uuid() -> Result<String, Error> {
    deploy::stamp::random_hex(16).map_err(desk::internal("draw a uuid for the cluster"))
}

/// The plan as text, its signs in colour.
pub fn render(context: &Context, plan: &Plan) -> String {
    let style = |line: &str| match line.trim_start().chars().next() {
        Some('+') => Style::Good,
        Some('-') => Style::Bad,
        Some('~' | '!') => Style::Warn,
        _ => Style::Plain,
    };
    let mut out = String::new();
    for line in plan.lines() {
        out.push_str(&context.ui.on_stdout(&line, style(&line)));
        out.push('\n');
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&plan.summary());
    out
}
