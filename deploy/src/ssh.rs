//! The only place that runs anything on a host.
//!
//! A `Session` is one authenticated connection (a ControlMaster of the system's own `ssh`, so that
//! agents, bastions, hardware keys and `~/.ssh/config` work as the operator is used to). On top of it:
//!
//! - *Strict host keys.* Ours beside the inventory, then the user's. A generated configuration file
//!   carries that to jump hosts too, and includes the user's and the system's configuration.
//! - *The far side ends by itself.* Dropping a local child leaves the remote process alive, so every
//!   script runs under `timeout` there, a little shorter than our own deadline.
//! - *A marked status line.* ssh's exit code cannot tell a lost connection from a killed process.
//!   A script's own last line says how it ended; without that line the connection was lost.
//! - *Scripts travel by stdin*, never in argv: process lists on the host do not show them. Neither
//!   scripts nor what they print is ever traced.

mod connect;
mod transfer;

pub use connect::{Destination, HostKeys, Session, scan_host_keys};
pub use transfer::Progress;

use std::time::Duration;

use openssh::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::error::{Error, Kind, Result};

/// How long a remote command may take unless its caller knows better.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// What the local deadline grants beyond the remote one: a round trip and the wait for `-k`.
const GRACE: Duration = Duration::from_secs(5);
const MARK: &str = "--paxosctl-status";

/// What a script printed and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Session {
    /// Runs a POSIX shell script and expects it to succeed. `doing` is for the error.
    pub async fn run(&self, doing: &str, script: &str) -> Result<String> {
        let output = self.try_run(doing, script, COMMAND_TIMEOUT).await?;
        self.expect_success(doing, output)
    }

    /// Like `run`, with its own bound.
    pub async fn run_within(&self, doing: &str, script: &str, bound: Duration) -> Result<String> {
        let output = self.try_run(doing, script, bound).await?;
        self.expect_success(doing, output)
    }

    /// Runs a script and hands back however it ended. Only a connection that fails, or a deadline
    /// that passes, is an error here.
    pub async fn try_run(&self, doing: &str, script: &str, bound: Duration) -> Result<Output> {
        let command = wrapped("sh -s", bound);
        // Read as one compound command, so that nothing in it can eat the rest of the script.
        let script = format!("{{\n{script}\n}} </dev/null\n");
        let work = self.exchange(&command, script.as_bytes());
        let (stdout, stderr) = self.within(doing, bound + GRACE, work).await?;
        self.unmark(doing, bound, stdout, stderr)
    }

    /// Runs a command line with the operator's own bytes on stdin (for an upload, a password).
    pub async fn feed(&self, doing: &str, command: &str, stdin: &[u8]) -> Result<Output> {
        let wrapped = wrapped(command, COMMAND_TIMEOUT);
        let work = self.exchange(&wrapped, stdin);
        let (stdout, stderr) = self.within(doing, COMMAND_TIMEOUT + GRACE, work).await?;
        self.unmark(doing, COMMAND_TIMEOUT, stdout, stderr)
    }

    /// Runs a script and hands over its stdout line by line, until it ends, `bound` passes or
    /// `on_line` says stop. For following traces.
    pub async fn follow(
        &self,
        doing: &str,
        script: &str,
        bound: Duration,
        mut on_line: impl FnMut(&str) -> bool,
    ) -> Result<()> {
        let command = format!("exec timeout -k 2 {} sh -c {}", bound.as_secs(), quote(script));
        let lost = |error: openssh::Error| self.lost(doing, &error);
        let mut child = self
            .inner()
            .raw_command(format!("sh -c {}", quote(&command)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .await
            .map_err(lost)?;
        let stdout = child.stdout().take().expect("stdout was piped");
        let mut lines = BufReader::new(stdout).split(b'\n');
        loop {
            match lines.next_segment().await {
                Ok(Some(line)) if on_line(&String::from_utf8_lossy(&line)) => {}
                // Dropping our end closes the channel: the remote command gets SIGPIPE or SIGHUP
                // at its next line, and its time-out at the latest.
                Ok(_) => return Ok(()),
                Err(error) => {
                    return Err(self.error(Kind::Ssh, doing).because(error));
                }
            }
        }
    }

    async fn exchange(
        &self,
        command: &str,
        stdin: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), openssh::Error> {
        let mut child = self
            .inner()
            .raw_command(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .await?;
        let mut to_child = child.stdin().take().expect("stdin was piped");
        let mut from_child = child.stdout().take().expect("stdout was piped");
        let mut errors = child.stderr().take().expect("stderr was piped");
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let write = async {
            // A command that ends before it has read everything says why on stderr.
            let _ = to_child.write_all(stdin).await;
            drop(to_child);
        };
        let (_, out, err) = tokio::join!(
            write,
            from_child.read_to_end(&mut stdout),
            errors.read_to_end(&mut stderr)
        );
        out.and(err).map_err(openssh::Error::ChildIo)?;
        // The marked line says how the script ended; what ssh believes adds nothing.
        let _ = child.wait().await;
        Ok((stdout, stderr))
    }

    async fn within<T>(
        &self,
        doing: &str,
        bound: Duration,
        work: impl Future<Output = Result<T, openssh::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(bound, work).await {
            Ok(result) => result.map_err(|error| self.lost(doing, &error)),
            Err(_) => Err(self
                .error(Kind::Ssh, doing)
                .because(format!("no answer within {bound:?}"))
                .hint("the host or the network between stands still; try again")),
        }
    }

    fn unmark(
        &self,
        doing: &str,
        bound: Duration,
        stdout: Vec<u8>,
        stderr: Vec<u8>,
    ) -> Result<Output> {
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let Some((stdout, status)) = split_mark(&stdout) else {
            return Err(self
                .error(Kind::Ssh, doing)
                .because("the connection was lost before the command had ended")
                .because(stderr.trim())
                .hint("what was under way ends by its own time-out; run the command again"));
        };
        // What `timeout` answers when it had to end its command.
        if status == 124 || status == 137 {
            return Err(self
                .error(Kind::Remote, doing)
                .because(format!("still running after {bound:?} and ended"))
                .because(stderr.trim()));
        }
        Ok(Output { status, stdout: stdout.to_owned(), stderr })
    }

    fn expect_success(&self, doing: &str, output: Output) -> Result<String> {
        if output.status == 0 {
            return Ok(output.stdout);
        }
        let mut error = self.error(Kind::Remote, doing);
        let said = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
        if !said.trim().is_empty() {
            error = error.because(last_lines(said, 8));
        }
        Err(error.because(format!("exit status {}", output.status)))
    }

    fn lost(&self, doing: &str, error: &openssh::Error) -> Error {
        let mut out = self.error(Kind::Ssh, doing).because(error);
        if let Some(source) = std::error::Error::source(error) {
            out = out.because(source);
        }
        out
    }

    fn error(&self, kind: Kind, doing: &str) -> Error {
        Error::new(kind, doing).on(self.name())
    }
}

/// `text` as one word of a POSIX shell.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The login shell on a host may be anything, so it only ever sees `sh -c '…'`.
fn wrapped(command: &str, bound: Duration) -> String {
    let seconds = bound.as_secs().max(1);
    let inner = format!("timeout -k 2 {seconds} {command}; printf '\\n{MARK} %d\\n' $?");
    format!("sh -c {}", quote(&inner))
}

fn split_mark(stdout: &str) -> Option<(&str, i32)> {
    let (body, mark) = stdout.trim_end_matches('\n').rsplit_once('\n')?;
    let status = mark.strip_prefix(MARK)?.trim().parse().ok()?;
    Some((body, status))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_survives_the_shell() {
        assert_eq!(quote("/opt/paxos"), "/opt/paxos");
        assert_eq!(quote("it's; rm -rf /"), r"'it'\''s; rm -rf /'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn only_a_marked_line_ends_a_script() {
        assert_eq!(split_mark("a\nb\n\n--paxosctl-status 0\n"), Some(("a\nb\n", 0)));
        assert_eq!(split_mark("\n--paxosctl-status 4\n"), Some(("", 4)));
        assert_eq!(split_mark("cut off here"), None);
        assert_eq!(split_mark(""), None);
    }
}
