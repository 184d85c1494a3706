//! Processes that outlive the command which started them. A pid alone is no identity, since pids
//! come round again: the pid file also holds the start time, and only a process with both is ours
//! to signal.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::local::last_lines;

/// One that runs, started by us now or before.
#[derive(Debug)]
pub(super) struct Detached {
    pid: Pid,
    started_at: u64,
    pid_file: PathBuf,
}

/// One that we have just started.
#[derive(Debug)]
pub(super) struct Started {
    child: Child,
    log: PathBuf,
}

impl Detached {
    /// The process that the folder's pid file names, if it still runs.
    pub(super) fn find(dir: &Path, name: &str) -> Option<Detached> {
        let pid_file = pid_file(dir, name);
        let text = fs::read_to_string(&pid_file).ok()?;
        let (pid, started_at) = text.trim().split_once(' ')?;
        let (pid, started_at): (i32, u64) = (pid.parse().ok()?, started_at.parse().ok()?);
        let found = Detached { pid: Pid::from_raw(pid)?, started_at, pid_file };
        found.runs().then_some(found)
    }

    pub(super) fn reload(&self) {
        // One that has ended meanwhile has nothing to reload.
        let _ = kill_process(self.pid, Signal::HUP);
    }

    /// True if it ended by itself, false if it had to be killed.
    pub(super) async fn stop(self, within: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + within;
        let _ = kill_process(self.pid, Signal::TERM);
        while self.runs() {
            if tokio::time::Instant::now() > deadline {
                let _ = kill_process(self.pid, Signal::KILL);
                let _ = fs::remove_file(&self.pid_file);
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let _ = fs::remove_file(&self.pid_file);
        true
    }

    fn runs(&self) -> bool {
        start_time(self.pid) == Some(self.started_at)
    }
}

impl Started {
    /// Starts the program in a process group of its own, so that Ctrl-C here is not its end.
    pub(super) fn start(
        dir: &Path,
        name: &str,
        program: &Path,
        args: &[String],
    ) -> io::Result<Started> {
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let child = Command::new(program)
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        let started_at = start_time(pid).unwrap_or_default();
        fs::write(pid_file(dir, name), format!("{} {started_at}\n", pid.as_raw_nonzero()))?;
        Ok(Started { child, log })
    }

    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn last_words(&self) -> String {
        format!("its last words, from {}:\n{}", self.log.display(), last_lines(&self.log, 6))
    }
}

/// The first of the programs that is there: a path as it is, a name along PATH.
pub(super) fn find_program(programs: &[String]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    programs.iter().find_map(|program| {
        if program.contains('/') {
            return Some(PathBuf::from(program)).filter(|program| program.is_file());
        }
        std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
    })
}

/// Whether `http://address:port/path` answers 200 within a second.
pub(super) async fn answers(url: &str) -> bool {
    let exchange = async {
        let (address, path) = url.strip_prefix("http://")?.split_once('/')?;
        let address: SocketAddr = address.parse().ok()?;
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET /{path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.ok()?;
        head.ends_with(b" 200").then_some(())
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), exchange).await, Ok(Some(())))
}

fn pid_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.pid"))
}

/// When the process started, in clock ticks since boot; `None` when it does not run, or has ended
/// and only waits to be buried.
fn start_time(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name stands in parentheses and may hold anything, so count from the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started_at = fields.nth(18)?.parse().ok()?;
    (state != "Z").then_some(started_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path) -> Started {
        let program = find_program(&["sleep".to_owned()]).expect("coreutils");
        Started::start(dir, "watcher", &program, &["300".to_owned()]).unwrap()
    }

    #[tokio::test]
    async fn found_again_stopped_and_gone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Detached::find(dir.path(), "watcher").is_none());
        let mut started = sleeper(dir.path());
        let found = Detached::find(dir.path(), "watcher").expect("it runs");
        assert!(!started.has_ended());
        assert!(found.stop(Duration::from_secs(10)).await);
        assert!(started.has_ended());
        assert!(Detached::find(dir.path(), "watcher").is_none());
    }

    /// A pid that came round again belongs to somebody else.
    #[test]
    fn another_process_of_the_same_pid_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let mut started = sleeper(dir.path());
        let file = pid_file(dir.path(), "watcher");
        let text = fs::read_to_string(&file).unwrap();
        let (pid, started_at) = text.trim().split_once(' ').unwrap();
        let later = started_at.parse::<u64>().unwrap() + 1;
        fs::write(&file, format!("{pid} {later}\n")).unwrap();
        assert!(Detached::find(dir.path(), "watcher").is_none());
        assert!(!started.has_ended());
        started.child.kill().unwrap();
        started.child.wait().unwrap();
    }
}
