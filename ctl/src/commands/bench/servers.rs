//! The servers that `bench` measures: how each is found, started on loopback, and stopped.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proof::bench::Failed;
use tokio::time::Instant;

use super::super::run::of_cluster;
use super::Args;
use crate::error::{Error, Word};
use crate::local::{self, LocalCluster, last_lines, ports, spawn_child};

const MEMBERS: u16 = 3;
const START_WITHIN: Duration = Duration::from_secs(20);
const STOP_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Paxos,
    Etcd,
    Redis,
}

/// Which protocol it speaks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Door {
    Resp,
    Grpc,
}

/// A server at work, and where its leader answers.
pub(super) struct Running {
    pub(super) door: Door,
    pub(super) address: String,
    cluster: Option<LocalCluster>,
    /// Killed when dropped.
    _processes: Vec<Process>,
}

/// A child that is killed by its pid when it is no longer needed.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(super) async fn stop(mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.stop(STOP_WITHIN).await;
        }
    }
}

impl Server {
    pub(super) fn name(self) -> &'static str {
        match self {
            Server::Paxos => "paxos",
            Server::Etcd => "etcd",
            Server::Redis => "redis",
        }
    }

    pub(super) fn how_to_get(self) -> &'static str {
        match self {
            Server::Paxos => "paxos-node is not beside paxosctl; build it with `make compile`",
            Server::Etcd => "etcd is not installed (Debian: apt-get install etcd-server)",
            Server::Redis => "redis-server is not installed (Debian: apt-get install redis-server)",
        }
    }

    /// The version that its program names, or `None` where there is none.
    pub(super) fn version(self, args: &Args) -> Option<String> {
        let (program, before) = match self {
            Server::Paxos => (paxos_node(args), ""),
            Server::Etcd => (PathBuf::from("etcd"), "etcd Version: "),
            Server::Redis => (PathBuf::from("redis-server"), "v="),
        };
        let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().next().unwrap_or_default();
        let at = line.find(before)? + before.len();
        let rest = line[at..].strip_prefix("paxos-node ").unwrap_or(&line[at..]);
        Some(rest.split_whitespace().next().unwrap_or_default().to_owned())
    }

    pub(super) async fn start(self, args: &Args) -> Result<Running, Error> {
        let dir = args.dir.join(self.name());
        if let Err(error) = fs::remove_dir_all(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(of_file("remove the data of the last run", &dir, &error));
        }
        fs::create_dir_all(&dir).map_err(|error| of_file("make the folder", &dir, &error))?;
        match self {
            Server::Paxos => start_paxos(args, &dir).await,
            Server::Etcd => start_etcd(args, &dir).await,
            Server::Redis => start_redis(args, &dir).await,
        }
    }
}

fn paxos_node(args: &Args) -> PathBuf {
    args.binary.clone().unwrap_or_else(local::node_binary_beside_us)
}

async fn start_paxos(args: &Args, dir: &Path) -> Result<Running, Error> {
    let mut spec = local::Spec::new(MEMBERS.into(), dir, paxos_node(args));
    spec.base_port = args.base_port;
    spec.behaviour = config::preset(&args.config).map_err(|p| Error::usage(p.to_string()))?;
    let listens = (1..=spec.servers).map(|id| spec.listen(id));
    free(listens.flat_map(|listen| [listen.client, listen.peer, listen.http]).collect())?;
    let mut cluster = LocalCluster::start(spec).map_err(of_cluster)?;
    cluster.wait_for_leader(START_WITHIN, |_| true).await.map_err(of_cluster)?;
    let nodes = cluster.client_addresses();
    let address = until_it_leads("paxos", || proof::bench::resp::leader(&nodes)).await?;
    Ok(Running { door: Door::Resp, address, cluster: Some(cluster), _processes: Vec::new() })
}

/// Three members with etcd's own defaults; only addresses and folders are given.
async fn start_etcd(args: &Args, dir: &Path) -> Result<Running, Error> {
    let client = |i: u16| SocketAddr::from(([127, 0, 0, 1], args.base_port + 100 + 10 * i));
    let peer = |i: u16| SocketAddr::from(([127, 0, 0, 1], args.base_port + 101 + 10 * i));
    free((0..MEMBERS).flat_map(|i| [client(i), peer(i)]).collect())?;
    let everybody: Vec<String> = (0..MEMBERS).map(|i| format!("e{i}=http://{}", peer(i))).collect();
    let mut processes = Vec::new();
    for i in 0..MEMBERS {
        let (client, peer) = (format!("http://{}", client(i)), format!("http://{}", peer(i)));
        let mut command = Command::new("etcd");
        command.arg("--name").arg(format!("e{i}"));
        command.arg("--data-dir").arg(dir.join(format!("e{i}")));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &everybody.join(","), "--initial-cluster-state", "new"]);
        command.args(["--logger", "zap", "--log-outputs", "stderr"]);
        processes.push(start_process(command, &dir.join(format!("e{i}.log")))?);
    }
    let members: Vec<String> = (0..MEMBERS).map(|i| client(i).to_string()).collect();
    let address = until_it_leads("etcd", || proof::bench::etcd::leader(&members)).await;
    let address = address.map_err(|error| error.because(last_lines(&dir.join("e0.log"), 5)))?;
    Ok(Running { door: Door::Grpc, address, cluster: None, _processes: processes })
}

async fn start_redis(args: &Args, dir: &Path) -> Result<Running, Error> {
    let port = args.base_port + 200;
    free(vec![SocketAddr::from(([127, 0, 0, 1], port))])?;
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--save", "", "--appendonly", "no"]);
    let log = dir.join("redis.log");
    let processes = vec![start_process(command, &log)?];
    let nodes = vec![format!("127.0.0.1:{port}")];
    let address = until_it_leads("redis", || proof::bench::resp::leader(&nodes)).await;
    let address = address.map_err(|error| error.because(last_lines(&log, 5)))?;
    Ok(Running { door: Door::Resp, address, cluster: None, _processes: processes })
}

fn start_process(mut command: Command, log: &Path) -> Result<Process, Error> {
    let file = || File::options().create(true).append(true).open(log);
    let out = file().and_then(|out| Ok((out, file()?)));
    let (out, err) = out.map_err(|error| of_file("open the log", log, &error))?;
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let program = command.get_program().to_string_lossy().into_owned();
    spawn_child(command)
        .map(Process)
        .map_err(|error| Error::new(Word::Internal, format!("start {program}")).because(error))
}

/// Asks again until somebody leads.
async fn until_it_leads<F>(name: &str, ask: impl Fn() -> F) -> Result<String, Error>
where
    F: Future<Output = Result<String, Failed>>,
{
    let deadline = Instant::now() + START_WITHIN;
    loop {
        match ask().await {
            Ok(leader) => return Ok(leader),
            Err(failed) if Instant::now() >= deadline => {
                let doing = format!("wait {START_WITHIN:?} for the leader of {name}");
                return Err(Error::new(Word::Unavailable, doing).because(failed));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn free(addresses: Vec<SocketAddr>) -> Result<(), Error> {
    let taken: Vec<String> = ports::taken(&addresses).iter().map(ToString::to_string).collect();
    if taken.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!("ports are taken: {}", taken.join("; ")))
        .hint("stop whoever holds them, or choose others with `--base-port`"))
}

fn of_file(doing: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::new(Word::Internal, format!("{doing} {}", path.display())).because(error)
}
