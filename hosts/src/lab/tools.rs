//! Running the system's own tools, and saying what went wrong with them.

use std::fmt::{self, Display};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// What could not be done to a lab: the step, what the system said, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LabError {
    pub doing: String,
    pub cause: Option<String>,
    pub hint: Option<String>,
}

impl LabError {
    pub(super) fn new(doing: impl Into<String>) -> LabError {
        LabError { doing: doing.into(), cause: None, hint: None }
    }

    pub(super) fn because(mut self, cause: impl Display) -> LabError {
        let cause = cause.to_string().trim().to_owned();
        self.cause = Some(cause).filter(|cause| !cause.is_empty());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> LabError {
        self.hint = Some(hint.into());
        self
    }
}

impl Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

/// Adds what was being done to an error of the system.
pub(super) trait Attempt<T> {
    fn attempt(self, doing: impl FnOnce() -> String) -> Result<T, LabError>;
}

impl<T, E: Display> Attempt<T> for Result<T, E> {
    fn attempt(self, doing: impl FnOnce() -> String) -> Result<T, LabError> {
        self.map_err(|error| LabError::new(doing()).because(error))
    }
}

pub(super) fn fail<T>(doing: String, cause: impl Display) -> Result<T, LabError> {
    Err(LabError::new(doing).because(cause))
}

/// Whether this machine and this user can have a lab at all, without trying.
pub fn requirements() -> Result<(), LabError> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::new("a lab needs root: its hosts are namespaces of the kernel")
            .hint("sudo paxosctl lab up"));
    }
    const TOOLS: [(&str, &str); 7] = [
        ("ip", "iproute2"),
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("setsid", "util-linux"),
        ("mount", "mount"),
        ("sshd", "openssh-server"),
        ("ssh-keygen", "openssh-client"),
    ];
    let missing: Vec<_> = TOOLS.iter().filter(|(tool, _)| find(tool).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let tools: Vec<&str> = missing.iter().map(|(tool, _)| *tool).collect();
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    Err(LabError::new(format!("a lab needs {}, which is not installed", tools.join(", ")))
        .hint(format!("Debian and Ubuntu: apt-get install {}", packages.join(" "))))
}

/// Where a tool is; the folders of the administrator count though they may not be in `PATH`.
pub(super) fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    std::env::split_paths(&path)
        .chain(system.iter().map(PathBuf::from))
        .map(|folder| folder.join(tool))
        .find(|file| file.is_file())
}

/// A command of the tool, ready to be given arguments.
pub(super) fn tool(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| PathBuf::from(name)))
}

/// Runs a tool that must succeed; what it wrote to stdout.
pub(super) fn call(name: &str, arguments: &[&str]) -> Result<String, LabError> {
    let doing = || format!("{name} {}", arguments.join(" "));
    let output = tool(name).args(arguments).stdin(Stdio::null()).output().attempt(doing)?;
    accept(output, doing)
}

/// The same, with `input` on its stdin.
pub(super) fn call_with(name: &str, arguments: &[&str], input: &str) -> Result<String, LabError> {
    let doing = || format!("{name} {}", arguments.join(" "));
    let run = || -> io::Result<Output> {
        let mut child = tool(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        child.wait_with_output()
    };
    accept(run().attempt(doing)?, doing)
}

fn accept(output: Output, doing: impl FnOnce() -> String) -> Result<String, LabError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    fail(doing(), String::from_utf8_lossy(&output.stderr))
}

/// Every process in the net namespace that `/run/netns/<name>` names.
pub(super) fn processes_in(namespace: &str) -> Vec<i32> {
    let Ok(wanted) = fs::metadata(Path::new("/run/netns").join(namespace)) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process that ends meanwhile, or a zombie, is in no namespace any more.
        let Ok(own) = fs::metadata(entry.path().join("ns/net")) else { continue };
        if (own.dev(), own.ino()) == (wanted.dev(), wanted.ino()) {
            found.push(id);
        }
    }
    found
}

/// `kill -9`; that it is gone already is no error.
pub(super) fn kill(process: i32) {
    if let Some(process) = Pid::from_raw(process) {
        let _ = kill_process(process, Signal::KILL);
    }
}
