//! What may be typed: the flags that every verb shares, and the way a duration or a `key=value` is
//! read. The verbs themselves are listed in `commands/mod.rs`; each verb's own flags live in its
//! file, where their doc comments are the help.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};

use crate::commands::Verb;
use crate::error::Word;
use crate::ui::{Interrupt, Ui};

/// Run, watch and prove a Paxos cluster that speaks the Redis protocol.
#[derive(Debug, Parser)]
#[command(name = "paxosctl", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Start here: paxosctl init HOST… > hosts/inventories/mine.toml, then \
    paxosctl -i hosts/inventories/mine.toml trust, check, plan, up, status.")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags that every verb understands, before or after it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Inventory of hosts: a TOML or JSON file, or `-` for stdin.
    #[arg(short, long, global = true, env = "PAXOS_INVENTORY", value_name = "FILE")]
    #[arg(default_value = "hosts/inventories/default.toml")]
    pub inventory: PathBuf,
    /// Only these nodes, by name.
    #[arg(short, long, global = true, value_name = "NAME,…", value_delimiter = ',')]
    pub node: Vec<String>,
    /// Only nodes that carry this label.
    #[arg(short, long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub label: Vec<(String, String)>,
    /// How many hosts are worked on at once.
    #[arg(short = 'j', long, global = true, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub parallel: Option<u16>,
    /// Answer yes to ordinary questions.
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// Show what would be done, and do nothing.
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Bound on the whole command, such as `30s` or `2m`.
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Shape of the data on stdout.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Say more on stderr; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Colour of the output; `NO_COLOR` turns it off as well.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Wide,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// What a verb is given: the shared flags, the voice, and whether Ctrl-C was pressed.
#[derive(Debug)]
pub struct Context {
    pub global: Global,
    pub ui: Ui,
    pub interrupt: Interrupt,
}

impl Context {
    pub fn new(global: Global, ui: Ui) -> Self {
        Context { global, ui, interrupt: Interrupt::default() }
    }

    pub fn json(&self) -> bool {
        self.global.output == Format::Json
    }
}

/// Help and version go to stdout with exit 0, as clap does it; a wrong flag is our exit 2.
#[expect(
    clippy::print_stderr,
    reason = "the voice does not exist yet: the flags that shape it failed"
)]
pub fn show_parse_error(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => Word::Internal.exit_code(),
        };
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprint!("{error}");
        return Word::Usage.exit_code();
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    eprint!("error[USAGE]: {text}");
    Word::Usage.exit_code()
}

/// `250ms`, `30s`, `5m`, `2h`; a bare number is refused, because nobody remembers its unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| "want a number and a unit, such as `30s`")?;
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        "" => return Err(format!("`{text}` has no unit: `{text}s` or `{text}m`?")),
        _ => return Err(format!("unknown unit `{unit}`: use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("want KEY=VALUE, such as `zone=a`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert!(duration("30").unwrap_err().contains("no unit"));
        assert!(duration("3d").unwrap_err().contains("unknown unit"));
        assert!(duration("-1s").is_err());
    }
}
