//! One node process: started, killed, paused, resumed, and asked how it is.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use config::Listen;
use monitoring::status::NodeStatus;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Error, nursery, output_of};

/// A page that takes longer is as good as none.
const STATUS_WITHIN: Duration = Duration::from_millis(500);
/// What is read from the end of a node's log when it died.
const LAST_BYTES: u64 = 16 << 10;

/// See the module.
#[derive(Debug)]
pub struct LocalNode {
    pub id: u32,
    pub name: String,
    pub listen: Listen,
    pub dir: PathBuf,
    binary: PathBuf,
    child: Option<Child>,
    /// How it ended, when nobody here had asked for it.
    ended: Option<ExitStatus>,
    asked_to_end: bool,
}

impl LocalNode {
    pub(super) fn new(
        id: u32,
        name: String,
        listen: Listen,
        dir: PathBuf,
        binary: PathBuf,
    ) -> LocalNode {
        LocalNode { id, name, listen, dir, binary, child: None, ended: None, asked_to_end: false }
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.join("stderr.log")
    }

    /// `paxos-node <verb> --config node.toml`, to its end; what it printed.
    pub fn command(&self, verb: &str) -> Result<String, Error> {
        output_of(Command::new(&self.binary).arg(verb).arg("--config").arg(self.config_path()))
    }

    /// Starts the process; the log goes on where it was.
    pub fn start(&mut self) -> Result<(), Error> {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let path = self.log_path();
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let doing = "open the log";
        let log = log.map_err(|source| Error::File { doing, path, source })?;
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(self.config_path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = nursery::spawn(command);
        let program = self.binary.clone();
        self.child = Some(started.map_err(|source| Error::Start { program, source })?);
        self.ended = None;
        self.asked_to_end = false;
        Ok(())
    }

    /// Whether it was started and has not been stopped by us. It may have died since.
    pub fn is_started(&self) -> bool {
        self.child.is_some() && !self.asked_to_end
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// SIGKILL, and waits for the end: nothing of the process runs when this returns.
    pub fn kill(&mut self) {
        self.asked_to_end = true;
        if let Some(mut child) = self.child.take() {
            // Both fail only when the child has ended and was reaped already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; does not wait.
    pub fn terminate(&mut self) {
        self.asked_to_end = true;
        self.signal(Signal::TERM);
    }

    /// SIGSTOP: the process stands still, its sockets stay open.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Whether no process is left.
    pub fn has_ended(&mut self) -> bool {
        let Some(child) = &mut self.child else { return true };
        match child.try_wait() {
            Ok(None) => false,
            Ok(Some(status)) => {
                self.child = None;
                self.ended = Some(status);
                true
            }
            Err(_) => true,
        }
    }

    /// How it ended, if it did so by itself or after [`Self::terminate`].
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.has_ended();
        self.ended
    }

    /// An error when it has exited although nobody here stopped it.
    pub fn still_runs(&mut self) -> Result<(), Error> {
        if self.asked_to_end || !self.has_ended() {
            return Ok(());
        }
        let Some(status) = self.ended else { return Ok(()) };
        Err(Error::Died {
            name: self.name.clone(),
            status,
            log: self.log_path(),
            said: last_lines(&self.log_path(), 12),
        })
    }

    /// What it says of itself now.
    pub async fn status(&self) -> Option<NodeStatus> {
        status(self.listen.http).await
    }

    fn signal(&mut self, signal: Signal) {
        // A child that was reaped is no longer held here, so the pid is not somebody else's.
        if self.has_ended() {
            return;
        }
        if let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The node's own account at `/status`.
pub async fn status(http: SocketAddr) -> Option<NodeStatus> {
    let page = tokio::time::timeout(STATUS_WITHIN, get(http, "/status")).await.ok()?.ok()?;
    serde_json::from_str(&page).ok()
}

/// One HTTP/1.0 exchange: the server closes when it has said everything, so nothing is chunked.
async fn get(http: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(http).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {http}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page).await?;
    let page = String::from_utf8_lossy(&page).into_owned();
    match page.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(page.lines().next().unwrap_or_default().to_owned())),
    }
}

/// The end of a text file, indented, for a message. Says so when there is nothing to show.
pub fn last_lines(path: &Path, count: usize) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = match read() {
        Ok(text) if text.trim().is_empty() => return "  (it said nothing)".to_owned(),
        Ok(text) => text,
        Err(error) => return format!("  (not readable: {error})"),
    };
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(count)..];
    shown.iter().map(|line| format!("  {line}")).collect::<Vec<String>>().join("\n")
}
