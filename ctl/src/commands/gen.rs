//! `paxosctl gen`: files made for other tools, from this program or from the inventory.

use std::process::ExitCode;

use clap::{CommandFactory, Subcommand};

use crate::cli::{Cli, Context};
use crate::error::{Error, Word};
use crate::ui;

/// Write files for shells, man and other tools.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Completions for a shell, on stdout.
    Completions { shell: clap_complete::Shell },
    /// The man page, on stdout.
    Man,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    match args.what {
        What::Completions { shell } => completions(shell, context),
        What::Man => man(context),
    }
}

fn completions(shell: clap_complete::Shell, context: &Context) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "paxosctl", &mut script);
    context.ui.data(String::from_utf8_lossy(&script));
    Ok(ui::OK)
}

fn man(context: &Context) -> Result<ExitCode, Error> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .map_err(|error| Error::new(Word::Internal, "render the man page").because(error))?;
    context.ui.data(String::from_utf8_lossy(&page));
    Ok(ui::OK)
}
