//! `paxosctl load`: clients that read and write until they are told to stop, a line every few
//! seconds. What the client containers of a Compose project run.

use std::process::ExitCode;
use std::time::Duration;

use proof::client::Target;
use proof::load::{Load, Spec};
use proof::stats::Stats;

use crate::cli::{Context, duration};
use crate::error::Error;
use crate::ui;

/// Read and write until stopped, and say what became of it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Client ports of the nodes, host:port each.
    #[arg(required = true, value_name = "HOST:PORT", value_parser = endpoint)]
    nodes: Vec<String>,
    /// Clients that read and write without a pause.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    clients: u16,
    /// End by itself after this time.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// A line this often.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    every: Duration,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let mut spec = Spec::new(Target::open(args.nodes), usize::from(args.clients));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap_or_default();
    spec.prefix = format!("load-{:x}-{}", now.as_micros(), std::process::id());
    spec.seed = now.as_nanos() as u64;
    let load = Load::start(spec);
    let stats = load.stats().clone();
    let end = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut ticks = tokio::time::interval(args.every);
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => show(&stats, context),
            () = context.interrupt.requested() => break,
            () = &mut end => break,
        }
    }
    drop(load.stop().await);
    show(&stats, context);
    Ok(ui::OK)
}

fn show(stats: &Stats, context: &Context) {
    let counts = stats.total();
    let recent = stats.interval();
    if context.json() {
        context.ui.json(&serde_json::json!({
            "schema_version": 1,
            "elapsed_seconds": stats.elapsed().as_secs(),
            "writes": counts.writes_ok.to_string(),
            "reads": counts.reads_ok.to_string(),
            "refused": counts.failed.to_string(),
            "unknown": counts.unknown.to_string(),
            "p99_us": recent.value_at_quantile(0.99),
        }));
        return;
    }
    context.ui.data(format!(
        "{:>5}s  writes {}  reads {}  refused {}  unknown {}  p99 {:.1} ms",
        stats.elapsed().as_secs(),
        counts.writes_ok,
        counts.reads_ok,
        counts.failed,
        counts.unknown,
        recent.value_at_quantile(0.99) as f64 / 1e3
    ));
}

fn endpoint(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_some_and(|port| port > 0) {
        return Ok(text.to_owned());
    }
    Err("want host:port, such as 127.0.0.1:7379".to_owned())
}
