//! `paxosctl exec -- COMMAND…`: a shell command on hosts, side by side.

use std::process::ExitCode;
use std::time::Duration;

use deploy::ssh::quote;

use crate::cli::{self, Context};
use crate::desk;
use crate::error::{Error, Word};
use crate::ui::{self, Style};

/// Run a command on hosts, in the node's deploy folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bound on the command, on each host.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = cli::duration)]
    within: Duration,
    /// The command and its arguments. One argument is taken as a shell line.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    let hosts = desk::select(context, &inventory)?;
    let line = match args.command.as_slice() {
        [line] => line.clone(),
        words => words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "),
    };
    let (fleet, errors) = desk::dial(context, &inventory, &hosts).await;
    let outcomes = fleet
        .each(
            |_| true,
            |member| {
                let folder = quote(&member.host.deploy_dir.display().to_string());
                let script = format!("cd {folder} 2>/dev/null; {line}");
                async move { member.session.try_run("run the command", &script, args.within).await }
            },
        )
        .await;
    let mut failures: Vec<Error> = errors.into_iter().map(Error::from).collect();
    for (member, outcome) in outcomes {
        let name = &member.host.name;
        match outcome {
            Ok(output) => {
                show(context, name, &output);
                if output.status != 0 {
                    let status = format!("exit status {}", output.status);
                    failures.push(
                        Error::new(Word::Remote, "run the command").on(&**name).because(status),
                    );
                }
            }
            Err(error) => failures.push(error.into()),
        }
    }
    let mut failures = failures.into_iter();
    match failures.next() {
        None => Ok(ui::OK),
        Some(mut first) => {
            first.others.extend(failures);
            Err(first)
        }
    }
}

fn show(context: &Context, name: &str, output: &deploy::ssh::Output) {
    if context.json() {
        context.ui.json(&serde_json::json!({
            "node": name,
            "status": output.status,
            "stdout": output.stdout,
            "stderr": output.stderr,
        }));
        return;
    }
    for line in output.stdout.lines() {
        context
            .ui
            .data(format!("{} {line}", context.ui.on_stdout(&format!("{name}:"), Style::Bold)));
    }
    for line in output.stderr.lines() {
        context
            .ui
            .say(format!("{} {line}", context.ui.on_stderr(&format!("{name}:"), Style::Bold)));
    }
}
