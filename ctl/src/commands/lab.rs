//! `paxosctl lab`: throw-away hosts on this machine, each with its own sshd, and an inventory that
//! names them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Subcommand;
use hosts::lab::{Lab, LabError, Wish};

use crate::cli::Context;
use crate::error::{Error, Word};
use crate::ui::{self, Cell, Style};

/// Make, list and remove throw-away test hosts on this machine (root).
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make hosts with their own addresses and sshd, and an inventory of them.
    ///
    /// May be repeated: hosts that are off are switched on, missing ones are added.
    Up {
        /// How many hosts.
        #[arg(long, value_name = "N", default_value_t = 3)]
        hosts: usize,
        #[command(flatten)]
        place: Place,
    },
    /// Remove a lab without a trace.
    Down {
        #[command(flatten)]
        place: Place,
    },
    /// Show the labs of this machine.
    List,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Name of the lab, and of the cluster in its inventory.
    #[arg(long, value_name = "NAME", default_value = "lab")]
    name: String,
    /// Folder of labs; each has one of its own below it.
    #[arg(long, value_name = "DIR", default_value = ".lab")]
    dir: PathBuf,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let begun = Instant::now();
    match args.what {
        What::Up { hosts, place } => {
            let wish = Wish { name: place.name, dir: place.dir, hosts };
            let lab = blocking(move || Lab::up(&wish)).await?;
            show_up(&lab, begun, context)
        }
        What::Down { place } => {
            let name = place.name.clone();
            let removed = blocking(move || Lab::down(&place.dir, &place.name)).await?;
            if context.json() {
                context.ui.json(&serde_json::json!({ "schema_version": 1, "removed": removed }));
            } else if removed == hosts::lab::Removed::default() {
                context.ui.say(format!("there was no lab {name}"));
            } else {
                context.ui.say(format!(
                    "removed lab {name}: {} hosts, {} processes ({:.1} s)",
                    removed.hosts,
                    removed.processes,
                    begun.elapsed().as_secs_f64()
                ));
            }
            Ok(ui::OK)
        }
        What::List => list(context).await,
    }
}

fn show_up(lab: &Lab, begun: Instant, context: &Context) -> Result<ExitCode, Error> {
    let inventory = shown(lab.inventory());
    let mut rows = Vec::new();
    let mut hosts = Vec::new();
    for name in lab.host_names() {
        let address = lab.address_of(&name).map_err(of_lab)?.to_string();
        hosts.push(serde_json::json!({ "name": name, "address": address }));
        rows.push(vec![Cell::new(name, Style::Plain), Cell::new(address, Style::Plain)]);
    }
    if context.json() {
        let value = serde_json::json!({
            "schema_version": 1,
            "name": lab.name(),
            "inventory": inventory,
            "ssh_config": shown(lab.ssh_config()),
            "hosts": hosts,
        });
        context.ui.json(&value);
        return Ok(ui::OK);
    }
    context.ui.data(context.ui.table(&["HOST", "ADDRESS"], &rows));
    context.ui.say(format!(
        "lab {} is up ({:.1} s); ssh -F {} n1",
        lab.name(),
        begun.elapsed().as_secs_f64(),
        shown(lab.ssh_config())
    ));
    context.ui.hint(format!("paxosctl -i {inventory} up; make ssh_up HOSTS={inventory}"));
    Ok(ui::OK)
}

async fn list(context: &Context) -> Result<ExitCode, Error> {
    let labs = blocking(Lab::list).await?;
    if context.json() {
        context.ui.json(&serde_json::json!({ "schema_version": 1, "labs": labs }));
        return Ok(ui::OK);
    }
    if labs.is_empty() {
        context.ui.say("there is no lab on this machine");
        return Ok(ui::OK);
    }
    let row = |lab: &hosts::lab::Summary| {
        let running = format!("{}/{}", lab.running, lab.hosts);
        let style = if lab.running == lab.hosts { Style::Good } else { Style::Warn };
        vec![
            Cell::from(lab.name.as_str()),
            Cell::new(running, style),
            Cell::from(lab.network.as_str()),
            Cell::from(shown(lab.dir.join("inventory.toml"))),
        ]
    };
    let rows: Vec<Vec<Cell>> = labs.iter().map(row).collect();
    context.ui.data(context.ui.table(&["LAB", "UP", "NETWORK", "INVENTORY"], &rows));
    Ok(ui::OK)
}

/// A lab is made by the system's own tools, one after the other; the runtime must not wait for them.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LabError> + Send + 'static,
) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined
        .map_err(|error| Error::new(Word::Internal, "work on a lab").because(error))?
        .map_err(of_lab)
}

fn of_lab(error: LabError) -> Error {
    let mut out = Error::new(Word::Remote, error.doing);
    if let Some(cause) = error.cause {
        out = out.because(cause);
    }
    match error.hint {
        Some(hint) => out.hint(hint),
        None => out,
    }
}

/// A path as one would type it here.
fn shown(path: PathBuf) -> String {
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok().map(PathBuf::from));
    relative.unwrap_or(path).display().to_string()
}
