//! `paxos-node`: one member of the cluster. See `paxos-node --help`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};
use config::NodeConfig;
use node::admin::{AdminError, RefusalKind};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One member of a Paxos-replicated key-value cluster that speaks the Redis protocol.
#[derive(Parser)]
#[command(name = "paxos-node", version = node::VERSION, about)]
struct Cli {
    /// The node's configuration, `node.toml`.
    #[arg(long, short, global = true)]
    config: Option<PathBuf>,
    /// Check the configuration and end.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Make identity, key and an empty journal in the data directory; once per node.
    Format,
    /// Print the public half of the identity as JSON; ends with 4 where there is none.
    Identity,
    /// Ask the running node over its admin socket; ends with 3 where it refuses for good.
    #[command(after_help = admin_help())]
    Admin {
        /// One of those below.
        verb: String,
        #[arg(allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Print one of the node's read-only pages: /metrics, /status, /healthz, /readyz.
    Get { page: String },
}

/// Every verb of the admin socket, and what `member` and `chaos` take.
fn admin_help() -> String {
    let verbs = node::admin::VERBS.map(|(verb, what)| format!("  {verb:<18} {what}"));
    let members = node::membership::MemberCommand::USAGE.map(|usage| format!("  member {usage}"));
    let chaos = node::chaos::ChaosCommand::USAGE.map(|usage| format!("  chaos {usage}"));
    let (verbs, members, chaos) = (verbs.join("\n"), members.join("\n"), chaos.join("\n"));
    format!("Verbs:\n{verbs}\n\nMembers:\n{members}\n\nChaos:\n{chaos}")
}

/// `admin` where the node has refused for good; after any other failure it may be asked again.
const EXIT_REFUSED: u8 = 3;
/// `identity` where the data directory was never formatted.
const EXIT_UNFORMATTED: u8 = 4;
/// The data on disk is damaged: starting again would not help, so no supervisor should try.
const EXIT_DATA: u8 = 74;

/// For the answer of a running node.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            let damaged = error.chain().any(|cause| {
                matches!(
                    cause.downcast_ref::<journal::Error>(),
                    Some(journal::Error::Corrupt { .. } | journal::Error::Missing { .. })
                ) || matches!(
                    cause.downcast_ref::<node::snapshot::SnapshotError>(),
                    Some(node::snapshot::SnapshotError::NoneGood { .. })
                )
            });
            ExitCode::from(if damaged { EXIT_DATA } else { 1 })
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let path = cli.config.ok_or_else(|| anyhow!("--config node.toml is missing"))?;
    let config = NodeConfig::load(&path).map_err(|problems| anyhow!("{problems}"))?;
    match cli.verb {
        None if cli.check => {
            say(&format!("{} is valid", path.display()));
            Ok(ExitCode::SUCCESS)
        }
        None => serve(config, &path),
        Some(Verb::Format) => {
            let public = node::boot::format(&config)?;
            say(&serde_json::to_string(&public)?);
            Ok(ExitCode::SUCCESS)
        }
        Some(Verb::Identity) => identity(&config),
        Some(Verb::Admin { verb, args }) => {
            let answer = node::admin::call(&config.data_dir, &verb, &args, ANSWERED_WITHIN);
            if let Err(error @ AdminError::Refused { kind: Some(RefusalKind::Final), .. }) = answer
            {
                complain(&anyhow!(error));
                return Ok(ExitCode::from(EXIT_REFUSED));
            }
            say(&serde_json::to_string_pretty(&answer?)?);
            Ok(ExitCode::SUCCESS)
        }
        Some(Verb::Get { page }) => {
            let (status, body) = node::get::page(config.listen.http, &page)?;
            say(body.trim_end());
            Ok(if status == 200 { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
    }
}

fn identity(config: &NodeConfig) -> Result<ExitCode> {
    match node::identity::load(config) {
        Ok(identity) => {
            say(&serde_json::to_string(&identity.public())?);
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ node::identity::IdentityError::Unformatted { .. }) => {
            complain(&anyhow!(error));
            Ok(ExitCode::from(EXIT_UNFORMATTED))
        }
        Err(error) => Err(error.into()),
    }
}

fn serve(config: NodeConfig, path: &Path) -> Result<ExitCode> {
    let (guard, set_filter) = node::trace::start(&config).map_err(|error| anyhow!(error))?;
    end_on_panic();
    #[cfg(feature = "mutants")]
    break_rule();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, node::boot::run(config, path, set_filter));
    if let Err(error) = &result {
        tracing::error!("{error:#}");
    }
    drop(guard);
    result.map(|()| ExitCode::SUCCESS)
}

/// `PAXOS_BROKEN` names a rule of the protocol that this process breaks, to be found out.
#[cfg(feature = "mutants")]
fn break_rule() {
    let name = std::env::var("PAXOS_BROKEN").unwrap_or_default();
    let broken = paxos::Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
    if !name.is_empty() {
        paxos::break_rules(&[broken.unwrap_or_else(|| panic!("{name} is no rule"))]);
    }
}

/// A panic in any thread ends the process: a node with a dead part is worse than none (PITFALLS 87).
fn end_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("{panic}");
        print(panic);
        // Gives the trace's thread a moment to write the reason down.
        std::thread::sleep(Duration::from_millis(50));
        std::process::abort();
    }));
}

fn say(text: &str) {
    // A closed pipe is the reader's choice.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn complain(error: &anyhow::Error) {
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "error: {error}");
    for cause in error.chain().skip(1) {
        let _ = writeln!(stderr, "  caused by: {cause}");
    }
}
