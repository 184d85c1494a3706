//! The admin socket: `<data_dir>/admin.sock`, 0660, reached over ssh by `paxos-node admin …`.
//!
//! One line of JSON asks, one line of JSON answers:
//! ```text
//! {"verb":"log-level","args":["info,node=debug"]}
//! {"ok":true,"result":{…}}      or      {"ok":false,"error":"…","kind":"final"}
//! ```
//! The kind of a refusal says whether the same question may be answered otherwise a little later,
//! without anybody's doing (`retry`), or not (`final`). `paxos-node admin` ends with 3 after a final one.
//! Whoever may open the file may do everything here; no admin command exists on TCP. This room
//! parses and answers; what a command does is decided by the core loop, which gets [`AdminRequest`]s
//! through a channel.
//!
//! A unix socket's path has room for 107 bytes. A longer one is reached through the directory's
//! descriptor (`/proc/self/fd/N/admin.sock`), so that a deep data directory works all the same.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net as std_net;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::chaos::ChaosCommand;
use crate::membership::MemberCommand;

/// The socket's name in the data directory.
pub const SOCKET: &str = "admin.sock";

/// Bytes of a unix socket's path that the kernel takes, without the final zero.
const PATH_LEN_MAX: usize = 107;
const LINE_LEN_MAX: u64 = 64 << 10;
const CONNECTIONS_MAX: usize = 16;
/// For the request to arrive, and again for the answer to be taken. Between the two the node may
/// take its time.
const DEADLINE: Duration = Duration::from_secs(10);

/// What an administrator may ask of a running node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminCommand {
    /// What this node knows of itself and the cluster.
    Status,
    /// Another trace filter, until the next start.
    LogLevel {
        filter: String,
    },
    /// The newest configuration known here.
    Members,
    /// Members and their changes.
    Member(MemberCommand),
    Version,
    /// Let another node lead: that one, or the best voter.
    Transfer {
        to: Option<u32>,
    },
    /// A fault that is injected on purpose, or its end.
    Chaos(ChaosCommand),
    /// Hand over, finish what waits, end.
    Stop,
}

/// One request on its way to the core loop. A dropped `reply` tells the asker that the node stops.
#[derive(Debug)]
pub struct AdminRequest {
    pub command: AdminCommand,
    pub reply: oneshot::Sender<AdminReply>,
}

/// The answer: any JSON, or a sentence that says what is wrong.
pub type AdminReply = Result<Value, Refusal>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: String,
    pub kind: RefusalKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefusalKind {
    /// Asked again, it is refused again.
    Final,
    /// It may be answered otherwise a little later.
    Retry,
}

impl Refusal {
    pub fn new(error: impl Into<String>, passes: bool) -> Refusal {
        let kind = if passes { RefusalKind::Retry } else { RefusalKind::Final };
        Refusal { error: error.into(), kind }
    }

    /// It passes by itself.
    pub fn for_now(error: impl Into<String>) -> Refusal {
        Refusal::new(error, true)
    }

    pub fn for_good(error: impl Into<String>) -> Refusal {
        Refusal::new(error, false)
    }
}

/// Every verb with its arguments, for help texts and completion.
pub const VERBS: [(&str, &str); 8] = [
    ("status", "what this node knows of itself and the cluster"),
    ("log-level FILTER", "another trace filter until the next start, e.g. info,node=debug"),
    ("members", "the newest configuration known here"),
    ("member …", "members and their changes; the verbs are listed below"),
    ("version", "release and formats"),
    ("transfer [ID]", "let another node lead: that one, or the best voter"),
    ("chaos …", "a fault on purpose, for a while; where the configuration allows it, see below"),
    ("stop", "hand over, finish what waits, end"),
];

impl AdminCommand {
    fn parse(verb: &str, args: Vec<String>) -> Result<AdminCommand, String> {
        let (command, rest) = match verb {
            "log-level" => {
                let mut args = args.into_iter();
                let filter = args.next().ok_or("log-level needs a FILTER, for example `info`")?;
                (AdminCommand::LogLevel { filter }, args.collect())
            }
            "member" => (AdminCommand::Member(MemberCommand::parse(&args)?), Vec::new()),
            "chaos" => (AdminCommand::Chaos(ChaosCommand::parse(&args)?), Vec::new()),
            "transfer" => {
                let mut args = args.into_iter();
                let to = args.next().map(|id| {
                    let digits = id.strip_prefix('n').unwrap_or(&id).parse();
                    digits.map_err(|_| format!("`{id}` is no node's id, for example 2"))
                });
                (AdminCommand::Transfer { to: to.transpose()? }, args.collect())
            }
            "status" => (AdminCommand::Status, args),
            "members" => (AdminCommand::Members, args),
            "version" => (AdminCommand::Version, args),
            "stop" => (AdminCommand::Stop, args),
            _ => {
                let known = VERBS.map(|(verb, _)| verb).join(", ");
                return Err(format!("unknown verb `{verb}`; known are {known}"));
            }
        };
        match rest.first() {
            None => Ok(command),
            Some(extra) => Err(format!("{verb} takes no argument `{extra}`")),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("{doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("a node already runs on this data directory: {path} answers")]
    AlreadyRunning { path: PathBuf },
    #[error("{path} exists and is no socket")]
    NotASocket { path: PathBuf },
    #[error("no node answers at {path}: does it run?")]
    NotRunning { path: PathBuf, source: io::Error },
    #[error("{path} closed the connection without an answer: the node is stopping")]
    NoAnswer { path: PathBuf },
    #[error("{path} answered something else than JSON")]
    NotJson { path: PathBuf, source: serde_json::Error },
    /// The node's own words.
    #[error("{error}")]
    Refused {
        error: String,
        /// `None` from a node that does not say it.
        kind: Option<RefusalKind>,
    },
}

/// The listening socket; gone from the directory once this is dropped.
#[derive(Debug)]
pub struct AdminServer {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestLine {
    verb: String,
    #[serde(default)]
    args: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ReplyLine {
    ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<RefusalKind>,
}

/// Listens on the admin socket of `data_dir`. A socket that a killed process has left is replaced.
/// Call it inside a runtime, after the journal's lock is held.
pub fn serve(
    data_dir: &Path,
    requests: mpsc::Sender<AdminRequest>,
) -> Result<AdminServer, AdminError> {
    let path = data_dir.join(SOCKET);
    clear_stale(&path)?;
    // Bound under another name and renamed once its mode is right: nobody finds it half made.
    let fresh = data_dir.join("admin.sock.new");
    let _ = fs::remove_file(&fresh);
    let (_dir, reachable) = reachable(&fresh).map_err(io_error("open the folder of", &path))?;
    let listener = UnixListener::bind(&reachable).map_err(io_error("listen on", &path))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))
        .map_err(io_error("set the mode of", &path))?;
    fs::rename(&fresh, &path).map_err(io_error("name", &path))?;
    let task = tokio::spawn(accept(listener, requests));
    Ok(AdminServer { path, task })
}

/// Asks the node that runs on `data_dir`. Blocks for at most `timeout`.
pub fn call(
    data_dir: &Path,
    verb: &str,
    args: &[String],
    timeout: Duration,
) -> Result<Value, AdminError> {
    let path = data_dir.join(SOCKET);
    let (_dir, reachable) = reachable(&path).map_err(io_error("open the folder of", &path))?;
    let stream = std_net::UnixStream::connect(reachable)
        .map_err(|source| AdminError::NotRunning { path: path.clone(), source })?;
    stream.set_read_timeout(Some(timeout)).map_err(io_error("set a time limit on", &path))?;
    stream.set_write_timeout(Some(timeout)).map_err(io_error("set a time limit on", &path))?;
    let request = RequestLine { verb: verb.to_owned(), args: args.to_vec() };
    let request = serde_json::to_string(&request).expect("strings become JSON") + "\n";
    (&stream).write_all(request.as_bytes()).map_err(io_error("ask", &path))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).map_err(io_error("wait for", &path))?;
    if line.is_empty() {
        return Err(AdminError::NoAnswer { path });
    }
    let reply = serde_json::from_str::<ReplyLine>(&line);
    let reply = reply.map_err(|source| AdminError::NotJson { path, source })?;
    match reply.ok {
        true => Ok(reply.result.unwrap_or(Value::Null)),
        false => {
            let error = reply.error.unwrap_or_default();
            Err(AdminError::Refused { error, kind: reply.kind })
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<AdminRequest>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = free.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let requests = requests.clone();
                tokio::spawn(async move {
                    // A client that neither asks nor reads has no one to be told.
                    let _ = answer(stream, requests).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the admin socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, requests: mpsc::Sender<AdminRequest>) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut read = tokio::io::BufReader::new(read.take(LINE_LEN_MAX));
    tokio::time::timeout(DEADLINE, read.read_line(&mut line)).await??;
    if !line.ends_with('\n') && line.len() as u64 >= LINE_LEN_MAX {
        return write_reply(&mut write, Err(Refusal::for_good("the request is too long"))).await;
    }
    let command = serde_json::from_str::<RequestLine>(&line)
        .map_err(|error| format!("not a request: {error}"))
        .and_then(|request| AdminCommand::parse(&request.verb, request.args));
    let command = match command {
        Ok(command) => command,
        Err(error) => return write_reply(&mut write, Err(Refusal::for_good(error))).await,
    };
    tracing::info!(?command, "admin request");
    let (reply, replied) = oneshot::channel();
    let stopping = || Err(Refusal::for_now("the node is stopping"));
    if requests.send(AdminRequest { command, reply }).await.is_err() {
        return write_reply(&mut write, stopping()).await;
    }
    write_reply(&mut write, replied.await.unwrap_or_else(|_| stopping())).await
}

async fn write_reply(
    write: &mut (impl AsyncWriteExt + Unpin),
    reply: AdminReply,
) -> io::Result<()> {
    let line = match reply {
        Ok(result) => ReplyLine { ok: true, result: Some(result), error: None, kind: None },
        Err(Refusal { error, kind }) => {
            ReplyLine { ok: false, result: None, error: Some(error), kind: Some(kind) }
        }
    };
    let line = serde_json::to_string(&line).expect("JSON values become JSON") + "\n";
    tokio::time::timeout(DEADLINE, write.write_all(line.as_bytes())).await??;
    write.shutdown().await
}

/// A path for `path` that is short enough for the kernel, and the descriptor it may go through.
fn reachable(path: &Path) -> io::Result<(Option<File>, PathBuf)> {
    if path.as_os_str().len() <= PATH_LEN_MAX {
        return Ok((None, path.to_owned()));
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok((None, path.to_owned()));
    };
    let dir = File::open(dir)?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    Ok((Some(dir), short))
}

fn clear_stale(path: &Path) -> Result<(), AdminError> {
    let path_owned = path.to_owned();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(AdminError::Io { doing: "look at", path: path_owned, source }),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(AdminError::NotASocket { path: path_owned });
        }
        Ok(_) => {}
    }
    let (_dir, reachable) = reachable(path).map_err(io_error("open the folder of", path))?;
    match std_net::UnixStream::connect(reachable) {
        Ok(_) => Err(AdminError::AlreadyRunning { path: path_owned }),
        Err(_) => fs::remove_file(path).map_err(io_error("remove the stale", path)),
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AdminError {
    let path = path.to_owned();
    move |source| AdminError::Io { doing, path, source }
}

#[cfg(test)]
mod tests;
