//! `paxosctl plan`: what `up` would do, host by host, from what is on the hosts now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use deploy::facts::{self, Facts};
use deploy::fleet::Fleet;
use deploy::plan::{self, Plan, Wish};
use deploy::release::Release;
use hosts::Inventory;
use serde::{Deserialize, Serialize};

use crate::cli::Context;
use crate::desk;
use crate::error::Error;
use crate::ui::{self, Style};

/// Show what `up` would change, without changing anything.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Exit with 10 when there is something to do, also where only a `member` command would do it.
    #[arg(long)]
    detailed_exitcode: bool,
    /// Save the plan; `up --plan FILE` carries out exactly this one, or nothing.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What is kept of a plan: all that it rests on, and its text for people.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    schema_version: u32,
    pub cluster_uuid: String,
    pub pins: BTreeMap<String, String>,
    lines: Vec<String>,
}

/// What `--detailed-exitcode` answers when a plan has changes.
const HAS_CHANGES: u8 = 10;

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    desk::say_insecure(context, &inventory);
    let releases = desk::releases(&inventory)?;
    let hosts: Vec<&hosts::Host> = inventory.hosts.iter().collect();
    let fleet = desk::dial_all(context, &inventory, &hosts).await?;
    let plan = make(&inventory, &releases, &fleet, &fresh_uuid()?, &[]).await?;
    if let Some(path) = &args.out {
        save(&plan, path)?;
    }
    if context.json() {
        context.ui.json(&serde_json::json!({
            "schema_version": 1,
            "plan": plan,
            "summary": plan.summary(),
        }));
    } else {
        context.ui.data(render(context, &plan));
    }
    if args.detailed_exitcode && plan.differs() {
        return Ok(ExitCode::from(HAS_CHANGES));
    }
    Ok(ui::OK)
}

/// Looks at all hosts and computes the plan.
pub async fn make(
    inventory: &Inventory,
    releases: &BTreeMap<String, Release>,
    fleet: &Fleet,
    fresh_uuid: &str,
    skipped: &[u32],
) -> Result<Plan, Error> {
    let facts = look(fleet).await?;
    Ok(plan::up(&Wish { inventory, releases, fresh_uuid, skipped }, &facts)?)
}

fn save(plan: &Plan, path: &Path) -> Result<(), Error> {
    let saved = Saved {
        schema_version: 1,
        cluster_uuid: plan.cluster_uuid.clone(),
        pins: plan.pins.clone(),
        lines: plan.lines(),
    };
    let text = serde_json::to_string_pretty(&saved).expect("a plan has string keys only");
    std::fs::write(path, text + "\n")
        .map_err(|cause| Error::usage(format!("write {}", path.display())).because(cause))
}

pub fn read_saved(path: &Path) -> Result<Saved, Error> {
    let error = || Error::usage(format!("read the plan {}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|cause| error().because(cause))?;
    serde_json::from_str(&text)
        .map_err(|cause| error().because(cause).hint("make one with `paxosctl plan --out FILE`"))
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
