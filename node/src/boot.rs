//! From a configuration to a running node: identity, journal, snapshot, recovery, ports. Whatever
//! is wrong is found before a port for clients or peers opens, and nothing is deleted. Only the
//! read-only pages open first, so that a long recovery can be watched.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use config::{Behaviour, ClientSecurity, Election, Members, NodeConfig, Reads, UserRole};
use journal::{Disk, Journal, Options, RealDisk};
use paxos::{
    Configuration, ElectionStrategy, LeaseTerms, Limits, Member, NodeId, Role, Settings, Timing,
};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

use crate::admin;
use crate::clock;
use crate::command::{self, User};
use crate::http::{self, Http, HttpSettings};
use crate::identity::{self, Identity, Process};
use crate::membership::{self, Membership};
use crate::memory;
use crate::metrics::Metrics;
use crate::peers::{self, LinkSettings, Links};
use crate::published::Published;
use crate::recovery::{self, Origin, Start};
use crate::session;
use crate::shell::{self, Core, Ended, Shell};
use crate::small_files::SmallFile;
use crate::snapshot::Snapshots;
use crate::store::STORE_VERSION_NEWEST;
use crate::syncer::Syncer;
use crate::trace::SetFilter;

const JOURNAL_DIR: &str = "journal";
const SNAPSHOT_DIR: &str = "snapshots";
/// The initial configuration as this node first saw it.
const MEMBERS_COPY: &str = "members.toml";
/// The longest lease, in microseconds, that any process on this disk may have granted.
const LONGEST_LEASE: SmallFile = SmallFile { name: "longest_lease_us", version: 2 };

/// For answers that are on their way when a removed node stops.
const ANSWERS_LEAVE: Duration = Duration::from_millis(50);

/// Makes identity, key and an empty journal in the data directory, once per node.
pub fn format(config: &NodeConfig) -> Result<identity::Public> {
    let public = identity::format(config)?;
    create_journal(config)?;
    Ok(public)
}

fn create_journal(config: &NodeConfig) -> Result<Journal> {
    let disk = RealDisk::create(config.data_dir.join(JOURNAL_DIR))?;
    Ok(Journal::create(Arc::new(disk), journal_options(config), &[])?)
}

fn journal_options(config: &NodeConfig) -> Options {
    let segment_bytes = config.behaviour.segment_bytes.next_multiple_of(4096);
    Options { segment_bytes, reserve_bytes: segment_bytes, ..Options::default() }
}

/// The journal's folder, locked. Where no process has ever started, `format` may have been cut short
/// before it made the folder.
fn journal_disk(config: &NodeConfig) -> Result<RealDisk> {
    let path = config.data_dir.join(JOURNAL_DIR);
    let has_begun = identity::next_process(&config.data_dir)?.starts > 1;
    let disk = if has_begun { RealDisk::open(path) } else { RealDisk::create(path) };
    disk.context("open the journal's folder")
}

/// Runs the node until it is told to stop or its disk fails.
pub async fn run(mut config: NodeConfig, config_path: &Path, set_filter: SetFilter) -> Result<()> {
    refuse_open_doors(&config)?;
    memory::share_out(&mut config.behaviour, memory::available_bytes());
    membership::refuse_tombstone(&config.data_dir)?;
    let identity = identity::load(&config)?;
    let members = members(&config, config_path)?;
    let disk = journal_disk(&config)?;
    let process = identity::next_process(&config.data_dir)?;
    let snapshot_disk: Arc<dyn Disk> =
        Arc::new(RealDisk::create(config.data_dir.join(SNAPSHOT_DIR))?);
    let metrics = Arc::new(Metrics::new(crate::VERSION, crate::GIT_SHA));
    let published = Arc::new(Published::new(Arc::clone(&metrics)));
    // Before anything is read: a long recovery shows how far it has come.
    let scrape_from = config.security.scrape_from.iter().map(|network| network.parse());
    let http_settings = HttpSettings {
        listen: config.listen.http,
        scrape_from: scrape_from.collect::<Result<_, _>>()?,
        limits: http::Limits::default(),
        ready_within: Default::default(),
    };
    let _http = Http::start(http_settings, Arc::clone(&published))
        .with_context(|| format!("serve pages on {}", config.listen.http))?;
    let initial = members.clone();
    let Start { journal, node, snapshots, uncovered_bytes, .. } =
        recover(&config, &identity, process, members, disk, Arc::clone(&snapshot_disk), &metrics)?;
    identity::count_process(&config.data_dir, &process)?;

    let wake = Arc::new(Notify::new());
    let observe = {
        let metrics = Arc::clone(&metrics);
        move |took| metrics.observe_sync(took)
    };
    let syncer = Syncer::start(journal, Arc::clone(&wake), observe)?;
    let every_bytes = config.behaviour.snapshot_every_bytes;
    let snapshots = Snapshots::start(
        snapshot_disk,
        every_bytes,
        snapshots,
        Arc::clone(&metrics),
        Arc::clone(&wake),
    )?
    .behind(uncovered_bytes);
    let listener = TcpListener::bind(config.listen.client)
        .await
        .with_context(|| format!("listen for clients on {}", config.listen.client))?;
    let link_settings = LinkSettings {
        listen: config.listen.peer,
        security: config.security.peers,
        limits: peers::Limits::default(),
        remembered: peers::Remembered::of(&node.replica),
        store_version_newest: node.replica.store_version_newest(),
    };
    let membership = Membership::new(node.configuration(), initial);
    let reachable = membership.reachable(identity.id, node.configuration());
    let (links, link_events) = Links::start(&identity, process, &reachable, link_settings)?;
    let (admin_requests, admin) = mpsc::channel(16);
    let _admin = admin::serve(&config.data_dir, admin_requests)?;

    let (client, peer, http) = (config.listen.client, config.listen.peer, config.listen.http);
    tracing::info!(name = config.name, id = config.id, %client, %peer, %http, "node started");
    let users = users(&config)?;
    let (name, data_dir) = (config.name.clone(), config.data_dir.clone());
    let core = Core::new(
        node, links, syncer, snapshots, metrics, published, config, identity, users, set_filter,
        membership,
    );
    let shell = Rc::new(Shell::new(core));
    tokio::task::spawn_local(session::accept(Rc::clone(&shell), listener));
    let stop = Rc::new(Notify::new());
    stop_on_signals(Rc::clone(&stop))?;
    let ended = shell::run(Rc::clone(&shell), link_events, admin, wake, stop).await;
    match ended {
        Ended::Asked => {
            shell::finish(&shell);
            tracing::info!("node stopped");
            Ok(())
        }
        Ended::Removed(number) => {
            shell::finish(&shell);
            // Whoever asked for it reads the answer first.
            tokio::time::sleep(ANSWERS_LEAVE).await;
            membership::write_tombstone(&shell.core.borrow().config.data_dir, number)
                .context("write down that this node was removed")?;
            tracing::warn!(number, "removed from the cluster: this node stops for good");
            Ok(())
        }
        Ended::Beyond(beyond) => {
            // What it knows chosen is synced first: it goes on from there.
            shell::finish(&shell);
            Err(anyhow!(beyond))
        }
        Ended::Disk(failure) => {
            Err(anyhow!(failure)
                .context("the journal failed, and what the disk holds is not known"))
        }
        Ended::Outvoted(contradiction) => Err(anyhow!(contradiction).context(format!(
            "more than half of the members agree on a state that this node does not have: its memory, \
             its disk or its program is at fault. Keep {} for whoever looks into it, and rebuild the \
             node from its peers under a new id: paxosctl member replace {name}",
            data_dir.display()
        ))),
    }
}

/// A node without users listens on loopback only, unless it is told to be open (DESIGN §7).
fn refuse_open_doors(config: &NodeConfig) -> Result<()> {
    let beyond_loopback = !config.listen.client.ip().is_loopback();
    let open = config.security.clients == ClientSecurity::Open;
    if beyond_loopback && !open && config.users.is_empty() {
        bail!(
            "no users are configured, and {} is not loopback: add one with `paxosctl user add`, or \
             write clients = \"open\" under [security]",
            config.listen.client
        );
    }
    Ok(())
}

/// The initial configuration. The file beside `node.toml` counts at the first start; the copy in the
/// data directory ever after, so that a changed file cannot change who votes.
fn members(config: &NodeConfig, config_path: &Path) -> Result<Configuration> {
    let copy = config.data_dir.join(MEMBERS_COPY);
    let path = config_path.with_file_name("members.toml");
    if copy.exists() {
        let members = Members::load(&copy).map_err(|problems| anyhow!("{problems}"))?;
        // The file may say nothing of the rules that the node was founded with.
        let same = |rendered: &Members| {
            rendered.cluster_uuid == members.cluster_uuid && rendered.members == members.members
        };
        if Members::load(&path).is_ok_and(|rendered| !same(&rendered)) {
            tracing::warn!(
                file = %path.display(),
                "differs from the configuration that this node started with, which rules"
            );
        }
        return configuration(&members);
    }
    let mut members = Members::load(&path).map_err(|problems| anyhow!("{problems}"))?;
    if !members.cluster_uuid.eq_ignore_ascii_case(&config.cluster_uuid) {
        bail!(
            "{} is of cluster {}, node.toml of {}",
            path.display(),
            members.cluster_uuid,
            config.cluster_uuid
        );
    }
    // The rules that it is founded with; the file may change, the configuration does not.
    let file = &config.behaviour;
    members.lease_ms.get_or_insert(file.lease_ms);
    members.drift_percent.get_or_insert(file.drift_percent);
    let configuration = configuration(&members)?;
    write_durably(&copy, &members.to_toml())
        .with_context(|| format!("write {}", copy.display()))?;
    Ok(configuration)
}

pub(crate) fn write_durably(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let part = PathBuf::from(format!("{}.part", path.display()));
    let mut file = std::fs::File::create(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(dir)?.sync_all()
}

pub(crate) fn configuration(members: &Members) -> Result<Configuration> {
    let stated = members.lease_ms.zip(members.drift_percent);
    let mut configuration = Configuration {
        lease_terms: stated.map(|(lease_ms, percent)| lease_terms(lease_ms, percent)),
        store_version: members.store_version.unwrap_or(1),
        ..Configuration::default()
    };
    for member in &members.members {
        let incarnation = u64::from_str_radix(&member.incarnation, 16)
            .with_context(|| format!("incarnation of member {}", member.id))?;
        let value = Member {
            name: member.name.clone(),
            role: match member.role {
                config::Role::Voter => Role::Voter,
                config::Role::Learner => Role::Learner,
            },
            incarnation,
            public_key: hex_bytes(&member.public_key)
                .with_context(|| format!("public_key of member {}", member.id))?,
            peer_address: member.peer.clone(),
            client_address: member.client.clone(),
            http_address: member.http.clone(),
        };
        configuration.members.insert(NodeId(member.id), value);
    }
    Ok(configuration)
}

fn hex_bytes(text: &str) -> Result<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        bail!("`{text}` is not hex");
    }
    let digits = (0..text.len()).step_by(2);
    Ok(digits.map(|at| u8::from_str_radix(&text[at..at + 2], 16)).collect::<Result<_, _>>()?)
}

fn users(config: &NodeConfig) -> Result<Vec<User>> {
    let users = config.users.iter().map(|user| {
        let digests = user.password_sha256.iter().map(|digest| {
            let bytes = hex_bytes(digest)?;
            let length = bytes.len();
            bytes.try_into().map_err(|_| anyhow!("a digest of {length} bytes, not 32"))
        });
        Ok(User {
            name: user.name.clone(),
            role: match user.role {
                UserRole::Ro => command::Role::ReadOnly,
                UserRole::Rw => command::Role::ReadWrite,
            },
            password_sha256: digests
                .collect::<Result<_>>()
                .with_context(|| format!("password_sha256 of user {}", user.name))?,
        })
    });
    users.collect()
}

/// Recovers the node, and says how that went.
fn recover(
    config: &NodeConfig,
    identity: &Identity,
    process: Process,
    initial: Configuration,
    disk: RealDisk,
    snapshots: Arc<dyn Disk>,
    metrics: &Metrics,
) -> Result<Start> {
    let started = std::time::Instant::now();
    let now = clock::now();
    let settings = settings(&config.behaviour, identity.id, process.nonce);
    let takes_part = settings.takes_part_in_leases;
    let by_file_us = if takes_part { settings.lease_terms.lease_us } else { 0 };
    let granted_us = longest_lease_us(&config.data_dir, by_file_us)?;
    let origin = Origin {
        name: config.name.clone(),
        journal: Arc::new(disk),
        options: journal_options(config),
        snapshots,
        initial,
        settings,
        granted_us,
        behaviour: config.behaviour.clone(),
        first_start: process.starts == 1,
        seed: process.nonce ^ now.mono_us,
    };
    let start = recovery::recover_watched(origin, now, &mut |bytes| {
        metrics.recovery_records.inc();
        metrics.recovery_bytes.inc_by(bytes as u64);
    })?;
    let (node, found) = (&start.node, &start.found);
    // Before it grants anything by the configuration that it knows now.
    let ruling_us = if takes_part { node.replica.lease_terms().lease_us } else { 0 };
    longest_lease_us(&config.data_dir, ruling_us)?;
    tracing::info!(
        snapshot_below = %start.snapshot_below,
        snapshot_version = start.snapshot_version,
        store_version = node.store.version(),
        groups = found.groups,
        records = found.records,
        bytes = found.bytes,
        first_unchosen = %node.replica.first_unchosen(),
        promised = %node.replica.promised(),
        keys = node.store.len(),
        ms = started.elapsed().as_millis() as u64,
        "recovered"
    );
    Ok(start)
}

fn lease_terms(lease_ms: u64, drift_percent: u32) -> LeaseTerms {
    LeaseTerms { lease_us: lease_ms * 1_000, drift_percent }
}

/// How the replica of node `id` behaves; `nonce` is its process's own random number.
pub fn settings(behaviour: &Behaviour, id: NodeId, nonce: u64) -> Settings {
    Settings {
        id,
        incarnation: nonce,
        seed: nonce.rotate_left(17),
        election: match behaviour.election {
            Election::Ballot => ElectionStrategy::Ballot,
            Election::HighestId => ElectionStrategy::HighestId,
        },
        timing: Timing {
            heartbeat_us: behaviour.heartbeat_ms * 1_000,
            silence_us: behaviour.silence_ms * 1_000,
            silence_jitter_us: behaviour.silence_jitter_ms * 1_000,
            takeover_rank_us: behaviour.takeover_rank_ms * 1_000,
            phase1_us: behaviour.phase1_ms * 1_000,
            phase1_us_max: behaviour.phase1_max_ms * 1_000,
            resend_us: behaviour.resend_ms * 1_000,
            stalled_us: behaviour.stalled_ms * 1_000,
        },
        lease_terms: lease_terms(behaviour.lease_ms, behaviour.drift_percent),
        takes_part_in_leases: behaviour.reads == Reads::Lease
            && behaviour.election == Election::Ballot,
        store_version_newest: STORE_VERSION_NEWEST,
        priority: behaviour.priority,
        limits: Limits {
            window_slots: behaviour.window_slots,
            window_bytes: behaviour.window_bytes as usize,
            chunk_bytes: 256 << 10,
        },
    }
}

/// What a process on this disk may have granted, however it was configured and whatever ruled, with
/// what this one may grant. The grants themselves are never written down: after a start the node acts as if it had just
/// given the longest of them.
pub fn longest_lease_us(data_dir: &Path, lease_us: u64) -> Result<u64> {
    let path = LONGEST_LEASE.path(data_dir);
    let former_us = match LONGEST_LEASE.read(data_dir)? {
        Some(text) => text.parse().with_context(|| {
            format!("{} holds `{text}`, not a number of microseconds", path.display())
        })?,
        None => 0,
    };
    if lease_us > former_us {
        LONGEST_LEASE
            .write(data_dir, &lease_us.to_string())
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(lease_us.max(former_us))
}

/// SIGTERM and SIGINT end the node in order.
fn stop_on_signals(stop: Rc<Notify>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::task::spawn_local(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM"),
            _ = interrupt.recv() => tracing::info!("SIGINT"),
        }
        stop.notify_one();
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::longest_lease_us;

    /// A granter that is configured anew is still bound by the longer lease that it may have given.
    #[test]
    fn a_shorter_lease_does_not_shorten_those_that_were_granted() {
        let dir = tempfile::tempdir().expect("a folder");
        let longest = |lease_us| longest_lease_us(dir.path(), lease_us).expect("a number");
        assert_eq!(longest(100_000), 100_000);
        assert_eq!(longest(600_000), 600_000);
        assert_eq!(longest(100_000), 600_000);
        assert_eq!(longest(0), 600_000, "one that takes no part any more");
        std::fs::write(super::LONGEST_LEASE.path(dir.path()), "long\n").expect("a file");
        let error = longest_lease_us(dir.path(), 0).expect_err("no number").to_string();
        assert!(error.contains("holds `long`"), "{error}");
    }
}
