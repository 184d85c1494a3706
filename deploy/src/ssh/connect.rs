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
/// How long a connection that was left open may take to prove that it still lives.
const RESUME_WITHIN: Duration = Duration::from_millis(1_500);
/// Much longer than any handshake takes.
const LEFTOVER_AFTER: Duration = Duration::from_secs(300);

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

/// One authenticated connection; cheap to clone. It is left open for the next command.
#[derive(Clone, Debug)]
pub struct Session {
    destination: Arc<Destination>,
    inner: Arc<openssh::Session>,
}

impl Session {
    /// Gets in. A connection that an earlier command left open is taken over: it lives on for a
    /// minute of idleness, so that the second of two commands does not pay for the handshake again.
    /// It is known by all that decides who is let in and who is believed, so a changed key, user or
    /// known_hosts file never meets an old connection.
    pub async fn connect(destination: &Destination) -> Result<Session> {
        refuse_option_like(destination)?;
        let control = control_directory().map_err(|error| {
            Error::new(Kind::Internal, "make a private folder for ssh's sockets").because(error)
        })?;
        let link = control.join(format!("open-{}", fingerprint(destination)));
        if let Some(session) = Session::resume(destination, &link).await {
            return Ok(session);
        }
        sweep(&control);
        let fresh = dial(destination, &control).await?;
        let (socket, log) = fresh.detach();
        // Without the link the next command dials anew; that is all.
        let scratch = control.join(format!("open-{}-{}", std::process::id(), serial()));
        let _ = fs::write(&scratch, socket.as_os_str().as_encoded_bytes())
            .and_then(|()| fs::rename(&scratch, &link));
        Ok(Session::new(destination, openssh::Session::resume_mux(socket, log)))
    }

    async fn resume(destination: &Destination, link: &Path) -> Option<Session> {
        let socket = fs::read_to_string(link).ok()?;
        let socket = PathBuf::from(socket);
        if !socket.exists() {
            return None;
        }
        let inner = openssh::Session::resume_mux(socket.into_boxed_path(), None);
        let alive = async {
            let mut command = inner.raw_command("exit 0");
            command.status().await.is_ok_and(|status| status.success())
        };
        // The master may be there and its host gone.
        let answered = tokio::time::timeout(RESUME_WITHIN, alive).await;
        match answered {
            Ok(true) => Some(Session::new(destination, inner)),
            _ => None,
        }
    }

    fn new(destination: &Destination, inner: openssh::Session) -> Session {
        Session { destination: Arc::new(destination.clone()), inner: Arc::new(inner) }
    }

    pub fn name(&self) -> &str {
        &self.destination.name
    }

    pub(super) fn inner(&self) -> &openssh::Session {
        &self.inner
    }
}

async fn dial(destination: &Destination, control: &Path) -> Result<openssh::Session> {
    let config = write_config(control, destination)
        .map_err(|error| Error::new(Kind::Internal, "write ssh's configuration").because(error))?;
    let mut builder = SessionBuilder::default();
    builder
        .known_hosts_check(match destination.host_keys {
            HostKeys::Strict => KnownHosts::Strict,
            HostKeys::AcceptNew => KnownHosts::Add,
        })
        .control_persist(ControlPersist::IdleFor(NonZeroUsize::new(60).expect("not zero")))
        .control_directory(control)
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
    let connected = tokio::time::timeout(bound, builder.connect_mux(&destination.address)).await;
    // ssh has read it by now, and the bastion's ssh with it.
    let _ = fs::remove_file(&config);
    match connected {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(error)) => Err(explain(destination, &error)),
        Err(_) => Err(connect_error(destination)
            .because(format!("no complete handshake within {bound:?}"))
            .hint(unreachable_hint(destination))),
    }
}

/// All that decides whom we reach, as whom, and whom we believe.
fn fingerprint(destination: &Destination) -> String {
    let read = |path: &Path| fs::read(path).unwrap_or_default();
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let key = destination.identity_file.as_deref().map(read).unwrap_or_default();
    let parts = [
        format!("{destination:?}").into_bytes(),
        crate::digest::of_bytes(&key).into_bytes(),
        read(&destination.known_hosts),
        read(&home.join(".ssh/known_hosts")),
        read(&home.join(".ssh/config")),
        read(Path::new("/etc/ssh/ssh_config")),
    ];
    let digests: Vec<String> = parts.iter().map(|part| crate::digest::of_bytes(part)).collect();
    crate::digest::of_bytes(digests.concat().as_bytes())[..16].to_owned()
}

/// Removes what masters that have ended left behind.
fn sweep(control: &Path) {
    let Ok(entries) = fs::read_dir(control) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LEFTOVER_AFTER));
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if old && name.starts_with(".ssh-connection") && !path.join("master").exists() {
            let _ = fs::remove_dir_all(&path);
        } else if old && (name.starts_with("open-") || name.starts_with("config-")) {
            // A link is as old as its connection; removing a live one costs a handshake.
            let _ = fs::remove_file(&path);
        }
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
    refuse_option_like(destination)?;
    let outcome = dial(&probe, &control).await;
    let seen = fs::read_to_string(&scratch).unwrap_or_default();
    let _ = fs::remove_file(&scratch);
    let keys: Vec<String> = seen.lines().map(str::to_owned).collect();
    match outcome {
        Err(error) if keys.is_empty() => Err(error),
        _ => Ok(keys),
    }
}

fn refuse_option_like(destination: &Destination) -> Result<()> {
    let refusal = |what: String, cause: &str| {
        Error::new(Kind::Usage, what).on(&*destination.name).because(cause)
    };
    let words = [Some(&destination.address), destination.user.as_ref()];
    for word in words.into_iter().flatten().chain(&destination.jump) {
        let strange = |c: char| c.is_whitespace() || c.is_control() || "\"'`$;|&<>\\".contains(c);
        if word.is_empty() || word.starts_with('-') || word.contains(strange) {
            let cause = "an address, user or jump host may not look like an option or a command";
            return Err(refusal(format!("dial `{word}`"), cause));
        }
    }
    // These stand in quotes in ssh's configuration, where a line of one's own could run a command.
    let files = [Some(&destination.known_hosts), destination.identity_file.as_ref()];
    for path in files.into_iter().flatten() {
        let text = path.to_string_lossy();
        if text.contains(|c: char| c.is_control() || "\"\\".contains(c)) {
            let cause = "a path may hold neither quotes, backslashes nor control characters";
            return Err(refusal(format!("let ssh read {text:?}"), cause));
        }
    }
    Ok(())
}

/// A path as ssh's configuration reads it: `%` begins a token there.
fn in_config(path: &Path) -> String {
    path.display().to_string().replace('%', "%%")
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
    let known_hosts = in_config(&destination.known_hosts);
    let seconds = destination.connect_timeout.as_secs().max(1);
    // Bastions are not told of `-i`; what stands here reaches them.
    let identity = destination
        .identity_file
        .as_ref()
        .map_or_else(String::new, |path| format!("IdentityFile \"{}\"\n", in_config(path)));
    let text = format!(
        "Host *\n\
         UserKnownHostsFile \"{known_hosts}\"{users_own}\n\
         StrictHostKeyChecking {strict}\n\
         UpdateHostKeys no\n\
         HashKnownHosts no\n\
         BatchMode yes\n\
         ConnectTimeout {seconds}\n\
         ServerAliveInterval 5\n\
         ServerAliveCountMax 3\n\
         ForwardAgent no\n\
         ForwardX11 no\n\
         PermitLocalCommand no\n\
         {identity}\
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
