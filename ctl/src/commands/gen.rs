//! `paxosctl gen`: files made for other tools, from this program or from the inventory.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Subcommand};

use crate::cli::{Cli, Context};
use crate::desk;
use crate::error::{Error, Word};
use crate::ui;

#[path = "gen/compose.rs"]
mod compose;

/// Write files for Docker Compose, systemd, shells, man and other tools.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A Docker Compose project: nodes and clients in a private network.
    Compose(compose::Args),
    /// The systemd unit of a node (-n NAME), on stdout.
    Unit,
    /// A script for root that prepares the machine of a node (-n NAME), on stdout.
    Bootstrap {
        /// A public ssh key that may log in as the node's account.
        #[arg(long, value_name = "FILE")]
        key: Vec<PathBuf>,
    },
    /// Completions for a shell, on stdout.
    Completions { shell: clap_complete::Shell },
    /// The man page, on stdout.
    Man,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    match args.what {
        What::Compose(args) => compose::run(&args, context),
        What::Unit => unit(context),
        What::Bootstrap { key } => bootstrap(&key, context),
        What::Completions { shell } => completions(shell, context),
        What::Man => man(context),
    }
}

fn unit(context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    let host = the_one(context, &inventory)?;
    context.ui.data(deploy::render::unit(&inventory, host));
    Ok(ui::OK)
}

fn bootstrap(keys: &[PathBuf], context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    let host = the_one(context, &inventory)?;
    let read = |path: &PathBuf| {
        let doing = format!("read the public key {}", path.display());
        let text =
            std::fs::read_to_string(path).map_err(|error| Error::usage(&doing).because(error))?;
        if text.contains("PRIVATE KEY") || text.trim().lines().count() != 1 {
            return Err(Error::usage(doing)
                .because("it is not one line with a public key")
                .hint(format!("{}.pub?", path.display())));
        }
        Ok(text)
    };
    let keys = keys.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    context.ui.data(deploy::render::bootstrap(&inventory, host, &keys));
    Ok(ui::OK)
}

/// The single host that `-n` names: such a file is about one machine.
fn the_one<'a>(
    context: &Context,
    inventory: &'a hosts::Inventory,
) -> Result<&'a hosts::Host, Error> {
    match desk::select(context, inventory)?[..] {
        [host] => Ok(host),
        ref hosts => Err(Error::usage(format!("{} hosts, but this is about one", hosts.len()))
            .hint(format!("name it: -n {}", hosts[0].name))),
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
