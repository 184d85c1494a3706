//! Getting in: the generated ssh configuration, the connection itself, and what its refusals mean.

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openssh::{ControlPersist, KnownHosts, SessionBuilder};

use crate::error::{Error, Kind, Result};

/// The crate appends 29 bytes to it, and a socket's path may have 90.
const CONTROL_DIR_BYTES_MAX: usize = 61;
/// A connection that was accepted may still hang in its handshake.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(5);

/// Where and how to dial one host. Addresses, users and jumps have been checked against strict
/// patterns by the inventory; they are asserted once more here, as they become ssh's arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What people say.
    pub name: String,
    pub address: String,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub identity_file: Option<PathBuf>,
    pub jump: Vec<String>,
    pub known_hosts: PathBuf,
    pub host_keys: HostKeys,
    pub connect_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeys {
    /// A key must be known already.
    Strict,
    /// A key never seen is recorded; a changed one is refused.
    AcceptNew,
}

/// One authenticated connection; cheap to clone, closed when the last clone goes.
#[derive(Clone, Debug)]
pub struct Session {
    destination: Arc<Destination>,
    inner: Arc<openssh::Session>,
}

impl Session {
    pub async fn connect(destination: &Destination) -> Result<Session> {
        refuse_option_like(destination)?;
        let control = control_directory().map_err(|error| {
            Error::new(Kind::Internal, "make a private folder for ssh's sockets").because(error)
        })?;
        let config = write_config(&control, destination).map_err(|error| {
            Error::new(Kind::Internal, "write ssh's configuration").because(error)
        })?;
        let mut builder = SessionBuilder::default();
        builder
            .known_hosts_check(match destination.host_keys {
                HostKeys::Strict => KnownHosts::Strict,
                HostKeys::AcceptNew => KnownHosts::Add,
            })
            .control_persist(ControlPersist::IdleFor(NonZeroUsize::new(60).expect("not zero")))
            .control_directory(&control)
            .config_file(&config)
            .connect_timeout(destination.connect_timeout.max(Duration::from_secs(1)))
            .jump_hosts(&destination.jump);
        if let Some(user) = &destination.user {
            builder.user(user.clone());
        }
        if let Some(port) = destination.port {
            builder.port(port);
        }
        if let Some(identity_file) = &destination.identity_file {
            builder.keyfile(identity_file);
        }
        let bound = destination.connect_timeout + HANDSHAKE_GRACE;
        let connected =
            tokio::time::timeout(bound, builder.connect_mux(&destination.address)).await;
        // ssh has read it by now, and the bastion's ssh with it.
        let _ = fs::remove_file(&config);
        let inner = match connected {
            Ok(Ok(inner)) => inner,
            Ok(Err(error)) => return Err(explain(destination, &error)),
            Err(_) => {
                return Err(connect_error(destination)
                    .because(format!("no complete handshake within {bound:?}"))
                    .hint(unreachable_hint(destination)));
            }
        };
        Ok(Session { destination: Arc::new(destination.clone()), inner: Arc::new(inner) })
    }

    pub fn name(&self) -> &str {
        &self.destination.name
    }

    pub(super) fn inner(&self) -> &openssh::Session {
        &self.inner
    }
}

/// Asks a host for its keys without trusting them: a throw-away session that accepts any new key
/// into an empty file. It works through a bastion too, which ssh-keyscan does not. Whether we are
/// let in does not matter; the key is shown before that. Lines in known_hosts format.
pub async fn scan_host_keys(destination: &Destination) -> Result<Vec<String>> {
    let control = control_directory().map_err(|error| {
        Error::new(Kind::Internal, "make a private folder for ssh's sockets").because(error)
    })?;
    let scratch = control.join(format!("scan-{}-{}", std::process::id(), serial()));
    let mut probe = destination.clone();
    probe.known_hosts = scratch.clone();
    probe.host_keys = HostKeys::AcceptNew;
    let _ = fs::remove_file(&scratch);
    let outcome = Session::connect(&probe).await;
    let seen = fs::read_to_string(&scratch).unwrap_or_default();
    let _ = fs::remove_file(&scratch);
    let keys: Vec<String> = seen.lines().map(str::to_owned).collect();
    match outcome {
        Err(error) if keys.is_empty() => Err(error),
        _ => Ok(keys),
    }
}

fn refuse_option_like(destination: &Destination) -> Result<()> {
    let words = [Some(&destination.address), destination.user.as_ref()];
    for word in words.into_iter().flatten().chain(&destination.jump) {
        let strange = |c: char| c.is_whitespace() || c.is_control() || "\"'`$;|&<>\\".contains(c);
        if word.is_empty() || word.starts_with('-') || word.contains(strange) {
            return Err(Error::new(Kind::Usage, format!("dial `{word}`"))
                .on(&*destination.name)
                .because(
                    "an address, user or jump host may not look like an option or a command",
                ));
        }
    }
    Ok(())
}

/// A short path of our own that nobody else can enter.
fn control_directory() -> io::Result<PathBuf> {
    let uid = fs::metadata("/proc/self")?.uid();
    let fallback = PathBuf::from(format!("/tmp/pxc-{uid}"));
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("pxc"));
    let folder = match runtime {
        Some(folder)
            if folder.as_os_str().len() <= CONTROL_DIR_BYTES_MAX
                && folder.parent().is_some_and(Path::is_dir) =>
        {
            folder
        }
        _ => fallback,
    };
    match fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(&folder)?;
    if !found.is_dir() || found.uid() != uid || found.permissions().mode() & 0o077 != 0 {
        let folder = folder.display();
        return Err(io::Error::other(format!("{folder} is not a folder that only we can enter")));
    }
    Ok(folder)
}

/// `-F` replaces the user's and the system's configuration, so it includes both; the first value
/// found wins, so ours stand above them. It is the only way to reach jump hosts with options.
fn write_config(control: &Path, destination: &Destination) -> io::Result<PathBuf> {
    let strict = match destination.host_keys {
        HostKeys::Strict => "yes",
        HostKeys::AcceptNew => "accept-new",
    };
    // A scan must show what the host says, whatever the user's file already holds.
    let users_own =
        if destination.host_keys == HostKeys::Strict { " ~/.ssh/known_hosts" } else { "" };
    let known_hosts = destination.known_hosts.display();
    let seconds = destination.connect_timeout.as_secs().max(1);
    let text = format!(
        "Host *\n\
         UserKnownHostsFile \"{known_hosts}\"{users_own}\n\
         StrictHostKeyChecking {strict}\n\
         UpdateHostKeys no\n\
         BatchMode yes\n\
         ConnectTimeout {seconds}\n\
         ServerAliveInterval 5\n\
         ServerAliveCountMax 3\n\
         ForwardAgent no\n\
         ForwardX11 no\n\
         PermitLocalCommand no\n\
         Include ~/.ssh/config\n\
         Include /etc/ssh/ssh_config\n"
    );
    let name = format!("config-{}-{}", std::process::id(), serial());
    let path = control.join(name);
    let mut file = fs::File::create(&path)?;
    file.write_all(text.as_bytes())?;
    Ok(path)
}

/// Names for scratch files that no other connection of this process uses.
fn serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn connect_error(destination: &Destination) -> Error {
    let user = destination.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
    let port = destination.port.map(|port| format!(" port {port}")).unwrap_or_default();
    let doing = format!("connect to {user}{}{port}", destination.address);
    Error::new(Kind::Ssh, doing).on(&*destination.name)
}

fn unreachable_hint(destination: &Destination) -> String {
    let name = &destination.name;
    format!(
        "is the host up and its sshd reachable from here? look closer: `paxosctl check -n {name}`"
    )
}

/// ssh says much in prose. Three cases have a mend of their own.
fn explain(destination: &Destination, error: &openssh::Error) -> Error {
    let said = match error {
        openssh::Error::Connect(inner) => inner.to_string(),
        other => std::error::Error::source(other)
            .map_or_else(|| other.to_string(), |source| format!("{other}: {source}")),
    };
    let said = essence(&said);
    let name = &destination.name;
    let out = connect_error(destination).because(&said);
    if said.contains("IDENTIFICATION HAS CHANGED") {
        out.because("the host shows another key than the one on record: a new machine under the old address, or somebody in between")
            .hint(format!("if you know why it changed: `paxosctl trust -n {name} --replace` shows both fingerprints"))
    } else if said.contains("Host key verification failed") || said.contains("host key is known") {
        out.because("its host key is not on record")
            .hint(format!("compare its fingerprint and record it: `paxosctl trust -n {name}`"))
    } else if said.contains("Permission denied") || said.contains("Too many authentication") {
        out.because("the host accepted none of our keys")
            .hint("load your key into ssh-agent (`ssh-add`), or set `ssh.user` and `ssh.identity_file` in the inventory")
    } else {
        out.hint(unreachable_hint(destination))
    }
}

/// ssh's banner about a changed key is a screen long; what counts in it is a line or two.
fn essence(said: &str) -> String {
    let noise = |line: &&str| {
        let line = line.trim();
        !(line.is_empty()
            || line.starts_with("@@@")
            || line.starts_with("debug")
            || line.starts_with("Warning: Permanently added"))
    };
    let lines: Vec<&str> = said.lines().map(str::trim_end).filter(noise).collect();
    let changed = lines.iter().any(|line| line.contains("IDENTIFICATION HAS CHANGED"));
    if !changed {
        return lines.join("\n");
    }
    let keep = |line: &&&str| {
        line.contains("IDENTIFICATION HAS CHANGED")
            || line.starts_with("SHA256:")
            || line.starts_with("Offending")
            || line.contains("Host key verification failed")
    };
    let kept: Vec<&str> =
        lines.iter().filter(keep).map(|line| line.trim_matches(['@', ' '])).collect();
    kept.join("\n")
}
