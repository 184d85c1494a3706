//! `paxosctl`: the front desk. It reads what a person typed, calls the crates that know how, and
//! shows what came of it. Only this crate prints, asks questions and sets exit codes.
//!
//! The way through it is short: `cli.rs` says what may be typed, `commands/<verb>.rs` does one verb
//! each (load, call, show), `ui.rs` talks (data on stdout, talk on stderr), `error.rs` turns what
//! went wrong into a word, a chain of causes, a hint and an exit code.

pub mod cli;
pub mod commands;
pub mod desk;
pub mod error;
pub mod local;
pub mod resp;
pub mod ui;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Context};
use commands::Verb;
use error::{Error, Word};

/// The whole program; `main.rs` only calls it, so that tests can reach the parts.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::show_parse_error(&error),
    };
    let ui = ui::Ui::new(&cli.global);
    if cli.global.verbose > 0 {
        ui::start_tracing(cli.global.verbose);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the runtime starts when threads can be made");
    let outcome = runtime.block_on(run(cli, ui.clone()));
    // A reader of stdin or a remote command that hangs must not keep a finished command waiting.
    runtime.shutdown_background();
    match outcome {
        Ok(exit) => exit,
        Err(error) => {
            ui.show_error(&error);
            error.exit_code()
        }
    }
}

/// Runs one verb under the two bounds that hold for all of them: `--timeout` and Ctrl-C.
async fn run(cli: Cli, ui: ui::Ui) -> Result<ExitCode, Error> {
    let timeout = cli.global.timeout;
    let steps = cli.verb.finishes_its_step();
    let context = Context::new(cli.global, ui);
    let interrupt = context.interrupt.clone();
    // Whoever only looks has no step worth waiting for.
    let says_so = matches!(cli.verb, Verb::Up(_) | Verb::Down(_) | Verb::Lab(_) | Verb::Member(_));
    ui::watch_ctrl_c(interrupt.clone(), context.ui.clone(), says_so);
    let verb = cli.verb.run(&context);
    tokio::pin!(verb);
    let stopped = async {
        if steps {
            std::future::pending::<()>().await;
        }
        interrupt.requested().await;
    };
    let expired = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        outcome = &mut verb => return outcome,
        () = stopped => return Err(Error::new(Word::Interrupted, "stopped by Ctrl-C")),
        () = expired => {}
    }
    // As on Ctrl-C: what is under way may end, so that locks are given back and it is known where
    // it stopped.
    interrupt.request();
    if steps && let Ok(outcome) = tokio::time::timeout(LAST_STEP_WITHIN, verb).await {
        return outcome;
    }
    let bound = timeout.unwrap_or_default();
    Err(Error::new(Word::Unknown, format!("the command did not end within --timeout {bound:?}"))
        .hint("look at what runs before trying again: `paxosctl status`"))
}

/// How long a step may still take when the bound on the command has passed.
const LAST_STEP_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
