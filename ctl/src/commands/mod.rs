//! One file a verb: its flags, whose doc comments are its help, and `run`: load, call, show.
//! To add a verb: its file, a line in `Verb`, a line in `Verb::run`.

pub mod audit;
pub mod bench;
pub mod down;
pub mod exec;
pub mod r#gen;
pub mod init;
pub mod lab;
pub mod lock;
pub mod plan;
pub mod run;
pub mod show;
pub mod trust;
pub mod up;
pub mod user;

use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::Context;
use crate::error::Error;

#[derive(Debug, Subcommand)]
pub enum Verb {
    Init(init::Args),
    Trust(trust::Args),
    Plan(plan::Args),
    Up(up::Args),
    Down(down::Args),
    Show(show::Args),
    Exec(exec::Args),
    Run(run::Args),
    Bench(bench::Args),
    Audit(audit::Args),
    Lock(lock::Args),
    Gen(r#gen::Args),
    Lab(lab::Args),
    User(user::Args),
}

impl Verb {
    pub async fn run(self, context: &Context) -> Result<ExitCode, Error> {
        match self {
            Verb::Init(args) => init::run(args, context).await,
            Verb::Trust(args) => trust::run(args, context).await,
            Verb::Plan(args) => plan::run(args, context).await,
            Verb::Up(args) => up::run(args, context).await,
            Verb::Down(args) => down::run(args, context).await,
            Verb::Show(args) => show::run(args, context).await,
            Verb::Exec(args) => exec::run(args, context).await,
            Verb::Run(args) => run::run(args, context).await,
            Verb::Bench(args) => bench::run(args, context).await,
            Verb::Audit(args) => audit::run(args, context).await,
            Verb::Lock(args) => lock::run(args, context).await,
            Verb::Gen(args) => r#gen::run(args, context).await,
            Verb::Lab(args) => lab::run(args, context).await,
            Verb::User(args) => user::run(args, context).await,
        }
    }

    /// Verbs that end by themselves on the first Ctrl-C: they watch `context.interrupt`, finish
    /// their current step and say where they stopped. All others are simply ended (exit 130).
    pub fn finishes_its_step(&self) -> bool {
        matches!(self, Verb::Up(_) | Verb::Down(_) | Verb::Run(_) | Verb::Lab(_))
    }
}
