//! `paxosctl status`: is it fine, and how many more failures can it take? All nodes are read at one
//! instant, over HTTP, or through ssh where that port is not reachable from here.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use deploy::ssh::Session;
use hosts::{Host, Inventory};
use monitoring::reading::{Pages, Sample, Target};
use monitoring::scrape::{self, Deadlines, Fallback};
use monitoring::show::{COLUMNS, VERSION_COLUMN};
use monitoring::verdict::{self, ClusterStatus, Expectations, Verdict};
use tokio::sync::Mutex;

use crate::cli::{self, Context};
use crate::desk;
use crate::error::{Error, Word};
use crate::ui::{Cell, Style, Ui};

/// Show health, leader, lag and headroom of the cluster.
///
/// Exit code: 0 healthy, 12 degraded (it serves, but not with full redundancy), 5 unavailable,
/// 6 the nodes contradict each other.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show it again and again, until Ctrl-C.
    #[arg(short, long)]
    watch: bool,
    /// Time between two looks.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = cli::duration)]
    every: Duration,
    /// Wait until the cluster is in this state, as long as --timeout (else 60 s) allows.
    #[arg(long, value_name = "STATE", conflicts_with = "watch")]
    wait: Option<Wanted>,
    /// Do not try ssh where a node's HTTP port is not reachable.
    #[arg(long)]
    no_ssh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// Full redundancy.
    Healthy,
    /// It serves, whatever its redundancy.
    Available,
}

const WAIT_DEFAULT: Duration = Duration::from_secs(60);
/// After ssh to a host has failed, it is left alone for this long: sshd penalises the impatient.
const SSH_RETRY_AFTER: Duration = Duration::from_secs(10);

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let inventory = Arc::new(desk::load_inventory(context)?);
    let look = Look::new(inventory, !args.no_ssh);
    if args.watch {
        return watch(&args, context, &look).await;
    }
    if let Some(wanted) = args.wait {
        return wait(&args, wanted, context, &look).await;
    }
    let status = look.once().await;
    show(context, &status);
    Ok(ExitCode::from(status.verdict.exit_code()))
}

async fn watch(args: &Args, context: &Context, look: &Look) -> Result<ExitCode, Error> {
    let full_screen = context.ui.stdout_is_terminal && !context.json();
    loop {
        let began = Instant::now();
        let status = look.once().await;
        if full_screen {
            // Home, the picture, and whatever the last one left below cleared; no flicker.
            let picture = picture(&context.ui, &status).replace('\n', "\x1b[K\n");
            context.ui.data(format!("\x1b[H{picture}\x1b[K\n\x1b[J"));
        } else if context.json() {
            context.ui.json(&status);
        } else {
            context.ui.data(status.headline());
        }
        let rest = args.every.saturating_sub(began.elapsed());
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = context.interrupt.requested() => {
                return Ok(ExitCode::from(status.verdict.exit_code()));
            }
        }
    }
}

async fn wait(
    args: &Args,
    wanted: Wanted,
    context: &Context,
    look: &Look,
) -> Result<ExitCode, Error> {
    let bound = context.global.timeout.unwrap_or(WAIT_DEFAULT);
    let deadline = Instant::now() + bound;
    let mut said = String::new();
    loop {
        let status = look.once().await;
        let there = match wanted {
            Wanted::Healthy => status.verdict == Verdict::Healthy,
            Wanted::Available => matches!(status.verdict, Verdict::Healthy | Verdict::Degraded),
        };
        // A contradiction does not go away by waiting.
        if there || status.verdict == Verdict::Divergent {
            show(context, &status);
            return Ok(ExitCode::from(if there { 0 } else { status.verdict.exit_code() }));
        }
        let now = status.hints.first().cloned().unwrap_or_default();
        if now != said {
            context.ui.say(format!("{}: {now}", status.verdict.word()));
            said = now;
        }
        // Short of main's own bound on the command, so that the last picture is shown.
        if context.interrupt.is_requested() || Instant::now() + args.every * 2 > deadline {
            show(context, &status);
            return Ok(ExitCode::from(status.verdict.exit_code()));
        }
        tokio::time::sleep(args.every.min(Duration::from_millis(500))).await;
    }
}

fn show(context: &Context, status: &ClusterStatus) {
    if context.json() {
        context.ui.json(status);
    } else {
        context.ui.data(picture(&context.ui, status));
    }
}

/// The headline, the table, the hints.
fn picture(ui: &Ui, status: &ClusterStatus) -> String {
    let style = style_of(status.verdict);
    let headline = status.headline();
    let word = status.verdict.word();
    let headline = match headline.split_once(word) {
        Some((before, after)) => format!("{before}{}{after}", ui.on_stdout(word, style)),
        None => headline,
    };
    let mut head: Vec<&str> = COLUMNS.to_vec();
    head.push(VERSION_COLUMN);
    let rows: Vec<Vec<Cell>> = status
        .rows
        .iter()
        .map(|row| {
            let style = if row.reason.is_some() { Style::Bad } else { Style::Plain };
            row.cells().into_iter().map(|text| Cell::new(text, style)).collect()
        })
        .collect();
    let mut out = format!("{headline}\n{}", ui.table(&head, &rows));
    for hint in &status.hints {
        out.push_str(&format!("hint: {hint}\n"));
    }
    out
}

fn style_of(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Healthy => Style::Good,
        Verdict::Degraded => Style::Warn,
        Verdict::Unavailable | Verdict::Divergent => Style::Bad,
    }
}

/// How to look at a cluster, again and again if need be: ssh sessions are kept between two looks.
pub struct Look {
    targets: Vec<Target>,
    expectations: Expectations,
    fallback: Option<Fallback>,
}

impl Look {
    pub fn new(inventory: Arc<Inventory>, with_ssh: bool) -> Look {
        let target = |host: &Host| Target {
            node: host.name.clone(),
            id: host.id,
            host: host.address.clone(),
            http: host.http_endpoint(),
        };
        Look {
            targets: inventory.hosts.iter().map(target).collect(),
            expectations: Expectations {
                cluster: inventory.cluster.name.clone(),
                max_lag_slots: inventory.guard.max_lag_slots,
                version: None,
                voters: inventory.voters().map(|host| host.id).collect(),
            },
            fallback: with_ssh.then(|| through_ssh(inventory)),
        }
    }

    pub async fn once(&self) -> ClusterStatus {
        verdict::judge(&self.samples().await, &self.expectations)
    }

    /// One a host, in the inventory's order.
    pub async fn samples(&self) -> Vec<Sample> {
        scrape::scrape_all(&self.targets, Deadlines::default(), self.fallback.clone()).await
    }
}

type Sessions = Arc<Mutex<BTreeMap<u32, Result<Session, (Instant, String)>>>>;

fn through_ssh(inventory: Arc<Inventory>) -> Fallback {
    let sessions: Sessions = Arc::default();
    Arc::new(move |target: Target| {
        let (inventory, sessions) = (inventory.clone(), sessions.clone());
        Box::pin(async move {
            let host = inventory.host_by_id(target.id).ok_or("no such host in the inventory")?;
            let session = session(host, &sessions).await?;
            let read = deploy::pages::read(&session, host).await;
            if read.as_ref().is_err_and(|error| error.kind == deploy::Kind::Ssh) {
                sessions.lock().await.remove(&host.id);
            }
            let (metrics, status) = read.map_err(|error| format!("ssh: {}", reason(&error)))?;
            Ok(Pages { metrics, status })
        })
    })
}

async fn session(host: &Host, sessions: &Sessions) -> Result<Session, String> {
    match sessions.lock().await.get(&host.id) {
        Some(Ok(session)) => return Ok(session.clone()),
        Some(Err((when, said))) if when.elapsed() < SSH_RETRY_AFTER => return Err(said.clone()),
        _ => {}
    }
    let connected = Session::connect(&deploy::fleet::destination(host))
        .await
        .map_err(|error| (Instant::now(), format!("ssh: {}", reason(&error))));
    sessions.lock().await.insert(host.id, connected.clone());
    connected.map_err(|(_, said)| said)
}

/// The last cause says most; the rest is known from the context.
fn reason(error: &deploy::Error) -> String {
    let cause = error.causes.iter().find(|cause| !cause.starts_with("exit status"));
    cause.unwrap_or(&error.doing).lines().next().unwrap_or_default().to_owned()
}

/// For verbs that need a serving cluster.
pub fn unavailable(status: &ClusterStatus, doing: &str) -> Error {
    let mut error = Error::new(Word::Unavailable, doing);
    for hint in &status.hints {
        error = error.because(hint);
    }
    error.hint("look: `paxosctl status`")
}
