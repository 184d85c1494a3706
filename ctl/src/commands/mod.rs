//! One file a verb: its flags, whose doc comments are its help, and `run`: load, call, show.
//! To add a verb: its file, a line in `Verb`, a line in `Verb::run`.

pub mod audit;
pub mod bench;
pub mod call;
pub mod check;
pub mod down;
pub mod exec;
pub mod r#gen;
pub mod init;
pub mod lab;
pub mod leader;
pub mod load;
pub mod lock;
pub mod logs;
pub mod member;
pub mod monitor;
pub mod plan;
pub mod run;
pub mod show;
pub mod status;
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
    Check(check::Args),
    Plan(plan::Args),
    Up(up::Args),
    Down(down::Args),
    Show(show::Args),
    Status(status::Args),
    Logs(logs::Args),
    Call(call::Args),
    Exec(exec::Args),
    Member(member::Args),
    Leader(leader::Args),
    /// The same as `leader move`.
    #[command(hide = true)]
    Transfer(leader::MoveArgs),
    User(user::Args),
    Run(run::Args),
    Lab(lab::Args),
    Load(load::Args),
    Bench(bench::Args),
    Monitor(monitor::Args),
    Audit(audit::Args),
    Lock(lock::Args),
    Gen(r#gen::Args),
}

impl Verb {
    pub async fn run(self, context: &Context) -> Result<ExitCode, Error> {
        match self {
            Verb::Init(args) => init::run(args, context).await,
            Verb::Trust(args) => trust::run(args, context).await,
            Verb::Check(args) => check::run(args, context).await,
            Verb::Plan(args) => plan::run(args, context).await,
            Verb::Up(args) => up::run(args, context).await,
            Verb::Down(args) => down::run(args, context).await,
            Verb::Show(args) => show::run(args, context).await,
            Verb::Status(args) => status::run(args, context).await,
            Verb::Logs(args) => logs::run(args, context).await,
            Verb::Call(args) => call::run(args, context).await,
            Verb::Exec(args) => exec::run(args, context).await,
            Verb::Member(args) => member::run(args, context).await,
            Verb::Leader(args) => leader::run(args, context).await,
            Verb::Transfer(args) => leader::move_to(args, context).await,
            Verb::User(args) => user::run(args, context).await,
            Verb::Run(args) => run::run(args, context).await,
            Verb::Lab(args) => lab::run(args, context).await,
            Verb::Load(args) => load::run(args, context).await,
            Verb::Bench(args) => bench::run(args, context).await,
            Verb::Monitor(args) => monitor::run(args, context).await,
            Verb::Audit(args) => audit::run(args, context).await,
            Verb::Lock(args) => lock::run(args, context).await,
            Verb::Gen(args) => r#gen::run(args, context).await,
        }
    }

    /// Verbs that end by themselves on the first Ctrl-C: they watch `context.interrupt`, finish
    /// their current step and say where they stopped. All others are simply ended (exit 130).
    pub fn finishes_its_step(&self) -> bool {
        matches!(
            self,
            Verb::Down(_)
                | Verb::Lab(_)
                | Verb::Leader(_)
                | Verb::Load(_)
                | Verb::Logs(_)
                | Verb::Member(_)
                | Verb::Run(_)
                | Verb::Status(_)
                | Verb::Transfer(_)
                | Verb::Up(_)
        )
    }
}
