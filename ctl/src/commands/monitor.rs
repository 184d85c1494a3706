//! `paxosctl monitor`: a Prometheus, and a Grafana where there is one, on this machine. Their files
//! and command lines are decided by `monitoring::monitor`; they run on after this command and are
//! known by a pid file that also holds their start time.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use hosts::Inventory;
use monitoring::monitor::{self, CommandLine, ScrapeTarget, Settings};
use monitoring::reading::{Sample, Target};
use monitoring::scrape::{Deadlines, scrape_all};

use crate::cli::Context;
use crate::desk;
use crate::error::{Error, Word};
use crate::local::ports;
use crate::ui;

#[path = "monitor/process.rs"]
mod process;

use process::{Detached, Started};

/// Both answer within a second or two; a store of many days takes longer to read.
const READY_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Prometheus and Grafana for this inventory, on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Folder for their files and data.
    #[arg(long, global = true, value_name = "DIR", default_value = ".monitor")]
    dir: PathBuf,
    /// Port of Prometheus, on loopback.
    #[arg(long, global = true, value_name = "PORT", env = "PAXOS_PROMETHEUS_PORT")]
    #[arg(default_value_t = 9090)]
    prometheus_port: u16,
    /// Port of Grafana, on loopback.
    #[arg(long, global = true, value_name = "PORT", env = "PAXOS_GRAFANA_PORT")]
    #[arg(default_value_t = 3000)]
    grafana_port: u16,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum What {
    /// Write targets, rules, dashboards and provisioning; running ones take them up.
    Render,
    /// Render, then start what does not run yet.
    Up,
    /// Stop both. Their data stays.
    Down,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let dir = std::path::absolute(&args.dir).map_err(|error| {
        Error::usage(format!("find the folder {}", args.dir.display())).because(error)
    })?;
    match args.what {
        What::Render => {
            render(&args, &dir, context)?;
            Ok(ui::OK)
        }
        What::Up => {
            let (settings, inventory) = render(&args, &dir, context)?;
            let prometheus = monitor::prometheus_command(&dir, &settings);
            let Some(program) = process::find_program(&prometheus.programs) else {
                return Err(Error::usage("prometheus is not installed").hint(prometheus.get_it));
            };
            bring_up("prometheus", &dir, &program, &prometheus, context).await?;
            let grafana = monitor::grafana_command(&dir, &settings);
            match process::find_program(&grafana.programs) {
                Some(program) => bring_up("grafana", &dir, &program, &grafana, context).await?,
                None => context.ui.warn(format!(
                    "Grafana is not installed ({}); its dashboards are in {}",
                    grafana.get_it,
                    dir.join("grafana/dashboards").display()
                )),
            }
            warn_of_unread(&inventory, context).await;
            context.ui.hint(format!(
                "{}/alerts shows what fires; stop: paxosctl monitor down",
                prometheus.url
            ));
            Ok(ui::OK)
        }
        What::Down => bring_down(&dir, context).await,
    }
}

/// Writes the folder; says how the watchers are to run, and what they will watch.
fn render(args: &Args, dir: &Path, context: &Context) -> Result<(Settings, Inventory), Error> {
    let inventory = desk::load_inventory(context)?;
    let settings = Settings {
        prometheus: ([127, 0, 0, 1], args.prometheus_port).into(),
        grafana: ([127, 0, 0, 1], args.grafana_port).into(),
        scrape_interval: inventory.monitoring.scrape_interval,
        ..Settings::default()
    };
    let targets = targets(&inventory);
    let files = monitor::render(dir, &settings, &targets);
    monitor::write(dir, &files).map_err(|error| {
        Error::new(Word::Internal, format!("write the files of Prometheus to {}", dir.display()))
            .because(error)
            .hint("choose another folder with `--dir`")
    })?;
    // Targets are noticed by themselves; rules and intervals only after a reload.
    if let Some(prometheus) = Detached::find(dir, "prometheus") {
        prometheus.reload();
    }
    context.ui.say(format!("{} files in {}", files.len(), dir.display()));
    Ok((settings, inventory))
}

fn targets(inventory: &Inventory) -> Vec<ScrapeTarget> {
    let target = |host: &hosts::Host| ScrapeTarget {
        cluster: inventory.cluster.name.clone(),
        node: host.name.clone(),
        host: host.address.clone(),
        zone: host.labels.get("zone").cloned().unwrap_or_default(),
        address: host.http_endpoint(),
    };
    inventory.hosts.iter().map(target).collect()
}

/// Prometheus will read from this very machine, so what cannot be read from here now stays dark.
async fn warn_of_unread(inventory: &Inventory, context: &Context) {
    let target = |host: &hosts::Host| Target {
        node: host.name.clone(),
        id: host.id,
        host: host.address.clone(),
        http: host.http_endpoint(),
    };
    let targets: Vec<Target> = inventory.hosts.iter().map(target).collect();
    let samples = scrape_all(&targets, Deadlines::default(), None).await;
    let mut forbidden = false;
    for Sample { target, outcome } in &samples {
        if let Err(failure) = outcome {
            context.ui.warn(format!("{} cannot be read from here: {failure}", target.node));
            forbidden |= failure.to_string().contains(": 403: ");
        }
    }
    if forbidden {
        context.ui.hint(
            "add this machine's address to `scrape_from` in [security] of the inventory, then: \
             paxosctl up",
        );
    }
}

/// Starts one of the two unless it runs, and waits until it serves. A port that somebody else has
/// is found first, with its holder; a program that ends at once shows its last words.
async fn bring_up(
    name: &str,
    dir: &Path,
    program: &Path,
    command: &CommandLine,
    context: &Context,
) -> Result<(), Error> {
    let doing = format!("start {name}");
    if Detached::find(dir, name).is_some() {
        context.ui.say(format!("{name} runs already: {}", command.url));
        return Ok(());
    }
    if let [taken] = &ports::taken(&[command.listen])[..] {
        // Debian's package of Prometheus starts one of its own on the usual port.
        return Err(Error::usage(format!("cannot {doing}: {taken}")).hint(format!(
            "stop the holder, or choose another port: --{name}-port {0}, or \
             PAXOS_{1}_PORT={0} make monitor_up",
            command.listen.port().wrapping_add(10_000),
            name.to_uppercase()
        )));
    }
    let mut started = Started::start(dir, name, program, &command.args)
        .map_err(|error| Error::new(Word::Internal, doing.as_str()).because(error))?;
    let line = context.ui.progress_line(name);
    line.step("starting");
    let deadline = tokio::time::Instant::now() + READY_WITHIN;
    loop {
        if started.has_ended() {
            return Err(Error::new(Word::Internal, doing).because(started.last_words()).hint(
                "is the port taken? `--prometheus-port` and `--grafana-port` choose others",
            ));
        }
        if process::answers(&command.ready_url).await {
            line.finish(&format!("ready: {}", command.url));
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(Error::new(Word::Internal, doing)
                .because(format!("{} does not answer within {READY_WITHIN:?}", command.ready_url))
                .because(started.last_words()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn bring_down(dir: &Path, context: &Context) -> Result<ExitCode, Error> {
    for name in ["grafana", "prometheus"] {
        match Detached::find(dir, name) {
            None => context.ui.say(format!("{name} does not run")),
            Some(process) => {
                let stopped = process.stop(STOP_WITHIN).await;
                let how = if stopped { "stopped" } else { "killed, as it did not stop" };
                context.ui.say(format!("{name} {how}; its data stays in {}", dir.display()));
            }
        }
    }
    Ok(ui::OK)
}
