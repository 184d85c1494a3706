//! `paxosctl bench`: our cluster of three, etcd's cluster of three and one plain Redis, one after the
//! other, on this machine, in one run, by the same clients. `make bench` calls it.
//!
//! Redis is the ceiling, not a peer: one process, nothing on disk, nobody to agree with.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use proof::bench::{Failed, Measured, Timing, Workload};
use serde_json::json;

use crate::cli::{Context, duration};
use crate::error::{Error, Word};
use crate::ui::{self, Cell, Style};

#[path = "bench/servers.rs"]
mod servers;

use servers::{Door, Server};

const WARM_UP: Duration = Duration::from_secs(1);

/// Measure our cluster against etcd and plain Redis on this machine, in one run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long each measurement takes, after a second of warming up.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    duration: Duration,
    /// Only measurements whose name holds this text.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// How our nodes behave: a preset, or a TOML file of one.
    #[arg(long, value_name = "PRESET", default_value = "default")]
    config: String,
    /// Folder for the data of all servers: they share one disk.
    #[arg(long, value_name = "DIR", default_value = ".run/bench")]
    dir: PathBuf,
    /// Client port of our first node; the other servers take the ports above.
    #[arg(long, value_name = "PORT", default_value_t = 8379)]
    base_port: u16,
    /// The node's program; default: `paxos-node` beside this one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

const WORKLOADS: [(&str, Workload); 5] = [
    ("1 client", workload(1, 1, 0)),
    ("64 clients", workload(64, 1, 0)),
    ("256 clients", workload(256, 1, 0)),
    ("64 x pipeline 16", workload(64, 16, 0)),
    ("64, 90 % reads", workload(64, 1, 90)),
];

const fn workload(clients: usize, pipeline: usize, reads_percent: u32) -> Workload {
    Workload { clients, pipeline, reads_percent, value_bytes: 100 }
}

/// What one server did in each workload.
struct Column {
    server: &'static str,
    version: String,
    results: Vec<Result<Measured, Failed>>,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let chosen: Vec<(&str, Workload)> =
        WORKLOADS.into_iter().filter(|(name, _)| name.contains(&args.only)).collect();
    if chosen.is_empty() {
        let names = WORKLOADS.map(|(name, _)| format!("`{name}`")).join(", ");
        return Err(Error::usage(format!("no measurement is called `{}`: {names}", args.only)));
    }
    if cfg!(debug_assertions) {
        context.ui.warn("this is a debug build: its figures mean nothing; use `make bench`");
    }
    let mut columns = Vec::new();
    for server in [Server::Paxos, Server::Etcd, Server::Redis] {
        let Some(version) = server.version(&args) else {
            context.ui.say(format!("skipped {}: {}", server.name(), server.how_to_get()));
            continue;
        };
        match measure(server, &args, &chosen, context).await {
            Ok(results) => columns.push(Column { server: server.name(), version, results }),
            // A peer that does not start is no reason to lose our own figures.
            Err(error) if server != Server::Paxos => {
                context.ui.warn(format!("skipped {}: {error}", server.name()));
            }
            Err(error) => return Err(error),
        }
    }
    match context.json() {
        true => context.ui.json(&as_json(&chosen, &columns)),
        false => context.ui.data(as_table(&chosen, &columns, context)),
    }
    let failures: Vec<String> = columns
        .iter()
        .flat_map(|column| {
            let failed = column.results.iter().filter_map(|result| result.as_ref().err());
            failed.map(move |failed| format!("{}: {failed}", column.server))
        })
        .collect();
    if failures.is_empty() {
        return Ok(ui::OK);
    }
    Err(Error::new(Word::Unknown, "some measurements failed").because(failures.join("\n")))
}

async fn measure(
    server: Server,
    args: &Args,
    chosen: &[(&str, Workload)],
    context: &Context,
) -> Result<Vec<Result<Measured, Failed>>, Error> {
    let timing = Timing { warm_up: WARM_UP, measured: args.duration };
    let line = context.ui.progress_line(server.name());
    line.step("start");
    let running = server.start(args).await?;
    let mut results = Vec::new();
    for (name, workload) in chosen {
        line.step(name);
        let (door, address, workload) = (running.door, running.address.clone(), *workload);
        let measured = tokio::task::spawn_blocking(move || match door {
            Door::Resp => proof::bench::resp::measure(&address, workload, timing),
            Door::Grpc => proof::bench::etcd::measure(&address, workload, timing),
        });
        results.push(measured.await.expect("no measurement panics"));
    }
    running.stop().await;
    line.finish("done");
    Ok(results)
}

fn as_table(chosen: &[(&str, Workload)], columns: &[Column], context: &Context) -> String {
    let mut head = vec!["100 B, closed loop".to_owned()];
    head.extend(columns.iter().map(|column| format!("{} {}", column.server, column.version)));
    let peers = columns.iter().skip(1);
    head.extend(peers.map(|peer| format!("{}/{}", columns[0].server, peer.server)));
    let rows: Vec<Vec<Cell>> = chosen
        .iter()
        .enumerate()
        .map(|(index, (name, _))| {
            let mut row = vec![Cell::from(*name)];
            row.extend(columns.iter().map(|column| figure(&column.results[index])));
            let peers = columns.iter().skip(1);
            row.extend(peers.map(|peer| match ratio(&columns[0], peer, index) {
                Some(ratio) => format!("{ratio:.2}").into(),
                None => "-".into(),
            }));
            row
        })
        .collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let table = context.ui.table(&head, &rows);
    format!("{table}operations/s, p50 / p99 in ms; redis is one process with nothing on disk\n")
}

fn figure(result: &Result<Measured, Failed>) -> Cell {
    match result {
        Err(_) => Cell::new("failed", Style::Bad),
        Ok(measured) => {
            let ms = |percent| measured.latency(percent).as_secs_f64() * 1e3;
            let per_second = super::run::grouped(measured.per_second() as u64);
            format!("{per_second:>8}  {:.2} / {:.2}", ms(50.0), ms(99.0)).into()
        }
    }
}

fn ratio(ours: &Column, theirs: &Column, index: usize) -> Option<f64> {
    let per_second =
        |column: &Column| column.results[index].as_ref().ok().map(Measured::per_second);
    Some(per_second(ours)? / per_second(theirs)?).filter(|ratio| ratio.is_finite())
}

fn as_json(chosen: &[(&str, Workload)], columns: &[Column]) -> serde_json::Value {
    let workloads: Vec<serde_json::Value> = chosen
        .iter()
        .enumerate()
        .map(|(index, (name, workload))| {
            let servers: serde_json::Map<String, serde_json::Value> = columns
                .iter()
                .map(|column| {
                    let figures = match &column.results[index] {
                        Err(failed) => json!({ "failed": failed.to_string() }),
                        Ok(measured) => json!({
                            "per_second": measured.per_second(),
                            "p50_us": measured.latency(50.0).as_micros() as u64,
                            "p99_us": measured.latency(99.0).as_micros() as u64,
                            "ratio": ratio(&columns[0], column, index),
                        }),
                    };
                    (column.server.to_owned(), figures)
                })
                .collect();
            json!({
                "name": name,
                "clients": workload.clients,
                "pipeline": workload.pipeline,
                "reads_percent": workload.reads_percent,
                "value_bytes": workload.value_bytes,
                "servers": servers,
            })
        })
        .collect();
    let versions: serde_json::Map<String, serde_json::Value> =
        columns.iter().map(|c| (c.server.to_owned(), json!(c.version))).collect();
    json!({ "schema_version": 1, "versions": versions, "workloads": workloads })
}
