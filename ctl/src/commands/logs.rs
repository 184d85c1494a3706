//! `paxosctl logs`: the traces of all nodes, merged by time; `-f` follows them.

use std::process::ExitCode;
use std::time::Duration;

use deploy::fleet::{Fleet, Member};
use deploy::ssh::quote;
use tokio::sync::mpsc;

use crate::cli::Context;
use crate::desk;
use crate::error::Error;
use crate::ui::{self, Style};

/// Show the traces of nodes, merged by time.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many of the newest lines of each node.
    #[arg(long, default_value_t = 50, value_name = "N")]
    lines: usize,
    /// Go on showing new lines, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Only lines with this text.
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
}

/// How long a follower lives on a host when we vanish.
const FOLLOW_BOUND: Duration = Duration::from_secs(3_600);

/// One line of one node. A line without a time of its own belongs to the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    time: String,
    node: String,
    text: String,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    let hosts = desk::select(context, &inventory)?;
    let (fleet, mut errors) = desk::dial(context, &inventory, &hosts).await;
    if args.follow {
        for error in errors {
            context.ui.warn(error.to_string());
        }
        return follow(&args, context, &fleet).await;
    }
    let outcomes = fleet
        .each(
            |_| true,
            |member| {
                let script = script(&member, &args, false);
                async move { member.session.run("read the traces", &script).await }
            },
        )
        .await;
    let mut lines = Vec::new();
    for (member, outcome) in outcomes {
        match outcome {
            Ok(text) => lines.extend(timed(&member.host.name, &text)),
            Err(error) => errors.push(error),
        }
    }
    // Stable: lines of one node keep their order.
    lines.sort_by(|one, other| one.time.cmp(&other.time));
    for line in &lines {
        show(context, line);
    }
    deploy::Error::all(errors).map_or(Ok(ui::OK), |error| Err(error.into()))
}

async fn follow(args: &Args, context: &Context, fleet: &Fleet) -> Result<ExitCode, Error> {
    let (sender, mut receiver) = mpsc::channel::<Line>(1_024);
    for member in fleet.members.clone() {
        let (sender, script) = (sender.clone(), script(&member, args, true));
        tokio::spawn(async move {
            let (name, mut time) = (member.host.name.clone(), String::new());
            let followed =
                member.session.follow("follow the traces", &script, FOLLOW_BOUND, |text| {
                    let line = time_line(&name, text, &mut time);
                    // A reader that is slower than the nodes loses lines, not memory.
                    !matches!(sender.try_send(line), Err(mpsc::error::TrySendError::Closed(_)))
                });
            if let Err(error) = followed.await {
                let text = format!("no longer followed: {error}");
                let _ = sender.send(Line { time: String::new(), node: name.clone(), text }).await;
            }
        });
    }
    drop(sender);
    loop {
        tokio::select! {
            line = receiver.recv() => match line {
                Some(line) => show(context, &line),
                None => return Ok(ui::OK),
            },
            () = context.interrupt.requested() => return Ok(ui::OK),
        }
    }
}

/// The rolling files of the trace folder are numbered, so the newest two in name order hold
/// the last lines; what a node said outside of its traces (a panic) comes first.
fn script(member: &Member, args: &Args, follow: bool) -> String {
    let host = &member.host;
    let trace = quote(&host.data_dir.join("trace").display().to_string());
    let out = quote(&host.deploy_dir.join("node.out").display().to_string());
    let lines = args.lines;
    let grep = match &args.grep {
        Some(text) => format!("grep --line-buffered -F -- {}", quote(text)),
        None => "cat".to_owned(),
    };
    if follow {
        format!(
            "newest=$(ls -1 {trace}/* 2>/dev/null | tail -n 1); \
             tail -q -n {lines} -F {out} $newest 2>/dev/null | {grep}"
        )
    } else {
        format!(
            "{{ tail -q -n {lines} {out} 2>/dev/null; \
             for file in $(ls -1 {trace}/* 2>/dev/null | tail -n 2); do cat \"$file\"; done | tail -n {lines}; }} | {grep}; true"
        )
    }
}

fn timed(node: &str, text: &str) -> Vec<Line> {
    let mut time = String::new();
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| time_line(node, line, &mut time))
        .collect()
}

fn time_line(node: &str, text: &str, last: &mut String) -> Line {
    let word = text.split_whitespace().next().unwrap_or_default();
    let is_time = word.len() >= 20 && word.as_bytes()[4] == b'-' && word.as_bytes()[10] == b'T';
    if is_time {
        word.clone_into(last);
    }
    Line { time: last.clone(), node: node.to_owned(), text: text.to_owned() }
}

fn show(context: &Context, line: &Line) {
    if context.json() {
        context.ui.json(&serde_json::json!({
            "time": line.time, "node": line.node, "text": line.text,
        }));
    } else {
        let node = context.ui.on_stdout(&line.node, Style::Bold);
        context.ui.data(format!("{node} {}", line.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_a_time_stays_with_the_one_before() {
        let text = "2026-01-02T03:04:05.123Z  INFO leading\n  at node.rs:12\n\n2026-01-02T03:04:06Z WARN x\n";
        let lines = timed("n1", text);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1].time, lines[0].time);
        assert!(lines[2].time > lines[1].time);
    }

    #[test]
    fn short_and_odd_lines_are_no_times() {
        let mut last = String::new();
        for odd in ["", "x", "é", "thread 'main' panicked", "aaaaéaaaaaéaaaaaaaaaaaa"] {
            assert_eq!(time_line("n1", odd, &mut last).time, "");
        }
    }
}
