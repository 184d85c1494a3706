//! `paxosctl run`: a cluster of real processes and its clients on this machine, watched live, and a
//! summary with a verdict at the end. `make run` calls it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proof::check::{Limits, Verdict};
use proof::load::{Load, Spec as LoadSpec};

use crate::cli::{Context, duration};
use crate::error::{Error, Word};
use crate::local::{self, LocalCluster, SERVERS_MAX, ports};
use crate::ui;

#[path = "run/live.rs"]
mod live;
#[path = "run/summary.rs"]
mod summary;

use live::Live;
pub(super) use summary::grouped;

/// Clients beyond this would measure this machine's scheduler.
const CLIENTS_MAX: usize = 10_000;
/// How long the first election and the reading back may take.
const ELECTION_WITHIN: Duration = Duration::from_secs(10);
const READ_BACK_WITHIN: Duration = Duration::from_secs(15);
const STOP_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Run a cluster and its clients on this machine, and show what they do.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Node processes: 1 to 9, odd for a reason.
    #[arg(long, value_name = "N", default_value = "3")]
    servers: String,
    /// Clients that read and write without a pause.
    #[arg(long, value_name = "N", default_value = "1")]
    clients: String,
    /// How the nodes behave: a preset, or a TOML file of one.
    #[arg(long, value_name = "PRESET", default_value = "default")]
    config: String,
    /// End by itself after this time.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Client port of the first node; each node takes three ports, nodes are 10 apart.
    #[arg(long, value_name = "PORT", default_value_t = 7379)]
    base_port: u16,
    /// Go on with the data of the last run.
    #[arg(long)]
    keep: bool,
    /// Fail when the leader changes after the first election: nothing here gives it a reason to.
    #[arg(long)]
    steady: bool,
    /// Folder for data and traces.
    #[arg(long, value_name = "DIR", default_value = ".run")]
    dir: PathBuf,
    /// The node's program; default: `paxos-node` beside this one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let servers = parse_servers(&args.servers)?;
    let clients = parse_clients(&args.clients)?;
    let behaviour = config::preset(&args.config).map_err(of_config)?;
    let base_port = check_base_port(args.base_port, servers)?;
    let binary = args.binary.clone().unwrap_or_else(local::node_binary_beside_us);
    let mut spec = local::Spec::new(servers, &args.dir.join(base_port.to_string()), binary);
    spec.base_port = base_port;
    spec.behaviour = behaviour;
    check_ports(&spec)?;
    check_binary(&spec.binary)?;
    warn_of_size(servers, context);
    if !args.keep {
        remove_former(&spec.dir)?;
    }

    let mut cluster = LocalCluster::start(spec).map_err(of_cluster)?;
    context.ui.say(format!(
        "{servers} servers start; redis-cli -c -p {}; data and traces in {}",
        args.base_port,
        cluster.spec.dir.display()
    ));
    cluster.wait_for_leader(ELECTION_WITHIN, |_| true).await.map_err(of_cluster)?;

    let mut load_spec = LoadSpec::new(cluster.target(), clients);
    load_spec.prefix = format!("run-{:x}", since_1970().as_millis());
    load_spec.seed = since_1970().as_nanos() as u64;
    let load = Load::start(load_spec);
    let started = Instant::now();
    let mut live = Live::new(context, load.stats().clone());
    let ends_at = args.duration.map(|duration| started + duration);
    while !context.interrupt.is_requested() && ends_at.is_none_or(|end| Instant::now() < end) {
        live.look(&mut cluster).await;
        let until = ends_at.map_or(LOOK_EVERY, |end| LOOK_EVERY.min(end - Instant::now().min(end)));
        tokio::select! {
            () = tokio::time::sleep(until) => {}
            () = context.interrupt.requested() => {}
        }
    }

    context.ui.say("stopping the clients, then reading everything back");
    let target = cluster.target();
    let mut finished = load.stop().await;
    let ran = started.elapsed();
    let proof = finished.verify(&target, READ_BACK_WITHIN, Limits::default()).await;
    live.look(&mut cluster).await;
    let killed = cluster.stop(STOP_WITHIN).await;
    if !killed.is_empty() {
        context.ui.warn(format!(
            "{} did not stop within {STOP_WITHIN:?} of SIGTERM and were killed",
            killed.join(", ")
        ));
    }
    summary::show(&args, ran, &finished, &live, &proof, context);
    match proof.verdict {
        Verdict::Holds if args.steady && live.leader_changes > 0 => Err(restless(&cluster, &live)),
        Verdict::Holds => Ok(ui::OK),
        Verdict::Violated(_) => Ok(Word::Safety.exit_code()),
        Verdict::Unknown(_) => Ok(Word::Unknown.exit_code()),
    }
}

/// The leader was to stay, and did not.
fn restless(cluster: &LocalCluster, live: &Live<'_>) -> Error {
    let traces = cluster.spec.dir.join("n*").join("stderr.log");
    Error::new(Word::Degraded, format!("the leader changed {} times", live.leader_changes))
        .because("every node ran all the time, so no change had a reason but time")
        .hint(format!("grep -h 'leader\\|ballot\\|link' {} | sort", traces.display()))
}

fn parse_servers(text: &str) -> Result<u32, Error> {
    match text.parse() {
        Ok(servers @ 1..=SERVERS_MAX) => Ok(servers),
        _ => {
            Err(Error::usage(format!("SERVERS is `{text}`: want a number from 1 to {SERVERS_MAX}")))
        }
    }
}

fn parse_clients(text: &str) -> Result<usize, Error> {
    match text.parse() {
        Ok(clients @ 1..=CLIENTS_MAX) => Ok(clients),
        _ => {
            Err(Error::usage(format!("CLIENTS is `{text}`: want a number from 1 to {CLIENTS_MAX}")))
        }
    }
}

fn check_base_port(base_port: u16, servers: u32) -> Result<u16, Error> {
    let last = u32::from(base_port) + 10 * (servers - 1) + 2;
    if base_port > 0 && last <= u32::from(u16::MAX) {
        return Ok(base_port);
    }
    Err(Error::usage(format!(
        "BASE_PORT is {base_port}: {servers} servers would need ports up to {last}; want 1 to {}",
        u32::from(u16::MAX) - 10 * (servers - 1) - 2
    )))
}

fn check_ports(spec: &local::Spec) -> Result<(), Error> {
    let addresses: Vec<SocketAddr> = (1..=spec.servers)
        .map(|id| spec.listen(id))
        .flat_map(|listen| [listen.client, listen.peer, listen.http])
        .collect();
    let taken = ports::taken(&addresses);
    if taken.is_empty() {
        return Ok(());
    }
    let taken: Vec<String> = taken.iter().map(ToString::to_string).collect();
    Err(Error::usage(format!("ports are taken: {}", taken.join("; ")))
        .hint("stop whoever holds them, or choose others with BASE_PORT=17379 (`--base-port`)"))
}

fn check_binary(binary: &Path) -> Result<(), Error> {
    match binary.is_file() {
        true => Ok(()),
        false => Err(Error::usage(format!("the node's program {} is missing", binary.display()))
            .hint("build it with `make compile`, or name another with `--binary`")),
    }
}

/// One clear line each: an even number buys nothing, a single one survives nothing.
fn warn_of_size(servers: u32, context: &Context) {
    if servers == 1 {
        context.ui.warn("1 server survives no failure; 3 survive one");
    } else if servers.is_multiple_of(2) {
        context.ui.warn(format!(
            "{servers} servers survive no more failures than {}: a quorum is {} of them",
            servers - 1,
            servers / 2 + 1
        ));
    }
}

/// Only a folder that an earlier run made is ever removed.
fn remove_former(dir: &Path) -> Result<(), Error> {
    let is_ours = dir.join("members.toml").exists() || dir.join("n1/node.toml").exists();
    match std::fs::symlink_metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(_) if !is_ours => {
            let dir = dir.display();
            Err(Error::usage(format!("{dir} is there and was not made by an earlier run"))
                .hint("move it away, or choose another folder with `--dir`"))
        }
        _ => std::fs::remove_dir_all(dir).map_err(|error| {
            let doing = format!("remove the data of the last run in {}", dir.display());
            Error::new(Word::Internal, doing).because(error)
        }),
    }
}

/// What went wrong with the cluster, in the words of the front desk.
pub(super) fn of_cluster(error: local::Error) -> Error {
    match error {
        local::Error::OtherCluster { .. } => {
            Error::usage(error.to_string()).hint("leave out KEEP (`--keep`) for a fresh one")
        }
        local::Error::TooLate { what, within, seen } => {
            Error::new(Word::Unavailable, format!("wait {within:?} for {what}")).because(seen)
        }
        other => Error::from_chain(Word::Internal, "run the local cluster", &other),
    }
}

fn of_config(problems: config::Problems) -> Error {
    Error::usage(problems.to_string())
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
