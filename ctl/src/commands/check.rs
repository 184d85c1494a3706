//! `paxosctl check`: can these hosts carry a cluster? Nothing is installed or changed.

use std::process::ExitCode;

use deploy::preflight::{self, Finding, Outcome};

use crate::cli::Context;
use crate::desk;
use crate::error::{Error, Word};
use crate::ui::{self, Cell, Style};

/// Check hosts before anything is installed: reachability, ports, disks, clocks, syncs.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    let hosts = desk::select(context, &inventory)?;
    let mut findings = Vec::new();
    let architectures: Vec<String> = match desk::releases(&inventory) {
        Ok(releases) => releases.into_keys().collect(),
        Err(error) => {
            let hint = error.hint.unwrap_or_default();
            let message = format!("{}: {}: {hint}", error.doing, error.causes.join(": "));
            let node = "(here)".to_owned();
            findings.push(Finding { node, check: "binary", result: Outcome::Fail, message });
            Vec::new()
        }
    };
    let (fleet, errors) = desk::dial(context, &inventory, &hosts).await;
    let unreached = !errors.is_empty();
    findings.extend(preflight::check(&inventory, &architectures, &fleet).await);
    findings.extend(errors.into_iter().map(|error| Finding {
        node: error.host.as_deref().unwrap_or("?").to_owned(),
        check: "ssh",
        result: Outcome::Fail,
        message: format!("{}: {}", error.causes.join("; "), error.hint.unwrap_or_default()),
    }));
    show(context, &findings);
    let count = |result| findings.iter().filter(|finding| finding.result == result).count();
    let (failed, warned) = (count(Outcome::Fail), count(Outcome::Warn));
    if failed > 0 {
        let word = if unreached { Word::Ssh } else { Word::Remote };
        return Err(Error::new(
            word,
            format!("preflight: {failed} failed, {warned} to be looked at"),
        )
        .hint("each line above names its mend; then run it again"));
    }
    let hosts = if hosts.len() == 1 { "host" } else { "hosts" };
    context
        .ui
        .say(format!("{} {hosts} can carry the cluster; {warned} warnings", fleet.members.len()));
    Ok(ui::OK)
}

fn show(context: &Context, findings: &[Finding]) {
    if context.json() {
        context.ui.json(&serde_json::json!({"schema_version": 1, "findings": findings}));
        return;
    }
    let rows: Vec<Vec<Cell>> = findings
        .iter()
        .map(|finding| {
            let (word, style) = match finding.result {
                Outcome::Pass => ("pass", Style::Good),
                Outcome::Warn => ("warn", Style::Warn),
                Outcome::Fail => ("FAIL", Style::Bad),
            };
            vec![
                finding.node.clone().into(),
                finding.check.into(),
                Cell::new(word, style),
                finding.message.clone().into(),
            ]
        })
        .collect();
    context.ui.data(context.ui.table(&["NODE", "CHECK", "RESULT", "MESSAGE"], &rows));
}
