//! From the tree to the model: the schema of an inventory, key by key, with every default.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::document::{Span, Value};
use crate::model::{
    Binary, Clients, Cluster, ConfigChoice, Guard, Host, HostKeys, Limits, Monitoring, Peers, Role,
    Security, Ssh, Supervisor, User, UserRole, listen_for, local_path,
};
use crate::patterns;
use crate::section::{Findings, Section, Sited};

/// What was read, with the places that the checks between values need.
pub(crate) struct Draft {
    pub(crate) cluster: Cluster,
    pub(crate) config_span: Span,
    pub(crate) hosts: Vec<DraftHost>,
    /// Some host lacks what it needs and is missing above: do not draw conclusions from numbers.
    pub(crate) incomplete: bool,
    pub(crate) guard: Guard,
    pub(crate) guard_span: Span,
    pub(crate) security: Security,
    pub(crate) peers_span: Span,
    pub(crate) clients_span: Span,
    pub(crate) users: Vec<Sited<User>>,
    pub(crate) monitoring: Monitoring,
    pub(crate) max_parallel: usize,
}

pub(crate) struct DraftHost {
    pub(crate) host: Host,
    pub(crate) span: Span,
    /// Where the keys of this host stand: its own, or the default that it takes.
    spans: BTreeMap<&'static str, Span>,
}

impl DraftHost {
    /// The place to show for a key: where it is written, else the host's own header.
    pub(crate) fn site(&self, key: &str) -> &Span {
        self.spans.get(key).unwrap_or(&self.span)
    }
}

/// The parts that a host may set for itself and `[defaults]` for all.
#[derive(Default)]
struct Common {
    client_port: Option<Sited<u16>>,
    peer_port: Option<Sited<u16>>,
    http_port: Option<Sited<u16>>,
    deploy_dir: Option<Sited<std::path::PathBuf>>,
    data_dir: Option<Sited<std::path::PathBuf>>,
    supervisor: Option<Sited<Supervisor>>,
    ssh: CommonSsh,
    limits: Limits,
}

#[derive(Default)]
struct CommonSsh {
    user: Option<Sited<String>>,
    port: Option<Sited<u16>>,
    identity_file: Option<Sited<std::path::PathBuf>>,
    jump: Option<Sited<Vec<Sited<String>>>>,
    known_hosts: Option<Sited<std::path::PathBuf>>,
    host_keys: Option<Sited<HostKeys>>,
    connect_timeout: Option<Sited<Duration>>,
}

/// `folder` is where relative paths begin.
pub(crate) fn read(root: Section<'_>, findings: &Findings<'_>, folder: &Path) -> Draft {
    root.require("schema");
    if let Some(schema) = root.integer("schema", 1, i64::MAX).filter(|schema| schema.value > 1) {
        let message = format!("schema {} is newer than this program", schema.value);
        let problem = findings.error(&schema.span, message).label("schema 1 is the newest known");
        findings.add(problem.hint("upgrade paxosctl"));
    }
    root.require("cluster");
    root.require("host");
    let (cluster, config_span) = read_cluster(root.section("cluster"), folder);
    let defaults = root.section("defaults");
    let (common, max_parallel) = read_defaults(defaults, folder);
    let guard_node = root.section("guard");
    let guard_span = guard_node.as_ref().map_or(0..0, |section| section.span.clone());
    let guard = read_guard(guard_node);
    let security = read_security(root.section("security"), &config_span);
    let users = root.sections("user").into_iter().filter_map(read_user).collect();
    let monitoring = read_monitoring(root.section("monitoring"));
    let sections = root.sections("host");
    let written = sections.len();
    let hosts: Vec<DraftHost> = sections
        .into_iter()
        .filter_map(|section| read_host(section, &common, findings, folder))
        .collect();
    let incomplete = hosts.len() < written;
    root.finish();
    Draft {
        cluster,
        config_span,
        hosts,
        incomplete,
        guard,
        guard_span,
        security: security.value,
        peers_span: security.peers_span,
        clients_span: security.clients_span,
        users,
        monitoring,
        max_parallel,
    }
}

fn read_cluster(section: Option<Section<'_>>, folder: &Path) -> (Cluster, Span) {
    // What is missing or wrong here must not hide what is wrong with the hosts.
    let mut cluster = Cluster {
        name: String::new(),
        config: ConfigChoice::Preset("default".to_owned()),
        binary: Binary::Built,
    };
    let Some(section) = section else { return (cluster, 0..0) };
    let mut config_span = section.span.clone();
    if let Some(name) = section.required("name", patterns::cluster_name) {
        cluster.name = name.value;
    }
    if let Some(config) = section.parsed("config", |text| config_choice(text, folder)) {
        cluster.config = config.value;
        config_span = config.span;
    }
    cluster.binary = read_binary(&section, folder);
    section.finish();
    (cluster, config_span)
}

/// A name is a preset; what holds a slash or ends in `.toml` is a file.
fn config_choice(text: &str, folder: &Path) -> Result<ConfigChoice, String> {
    if text.contains('/') || text.ends_with(".toml") {
        return Ok(ConfigChoice::File(local_path(text, folder)));
    }
    patterns::word(text).map(ConfigChoice::Preset).map_err(|_| {
        "write the name of a preset, or the path of a TOML file beside the inventory".to_owned()
    })
}

fn read_binary(section: &Section<'_>, folder: &Path) -> Binary {
    let path = |text: &str| Ok(local_path(text, folder));
    match section.node("binary").map(|node| &node.value) {
        None => Binary::Built,
        Some(Value::Table(_)) => {
            let Some(table) = section.section("binary") else { return Binary::Built };
            let mut files = BTreeMap::new();
            for architecture in ["x86_64", "aarch64", "riscv64", "s390x", "ppc64le", "armv7l"] {
                if let Some(file) = table.parsed(architecture, path) {
                    files.insert(architecture.to_owned(), file.value);
                }
            }
            table.finish();
            Binary::PerArchitecture(files)
        }
        Some(_) => {
            section.parsed("binary", path).map_or(Binary::Built, |file| Binary::File(file.value))
        }
    }
}

fn read_defaults(section: Option<Section<'_>>, folder: &Path) -> (Common, usize) {
    const MAX_PARALLEL: i64 = 8;
    let Some(section) = section else {
        return (Common::default(), MAX_PARALLEL as usize);
    };
    let mut common = read_common(&section);
    let mut max_parallel = MAX_PARALLEL;
    if let Some(ssh) = section.section("ssh") {
        max_parallel = ssh.integer("max_parallel", 1, 64).map_or(MAX_PARALLEL, |sited| sited.value);
        common.ssh = read_ssh(&ssh, folder);
        ssh.finish();
    }
    section.finish();
    (common, usize::try_from(max_parallel).expect("1 to 64"))
}

fn read_common(section: &Section<'_>) -> Common {
    Common {
        client_port: port(section, "client_port"),
        peer_port: port(section, "peer_port"),
        http_port: port(section, "http_port"),
        deploy_dir: section.parsed("deploy_dir", patterns::host_dir),
        data_dir: section.parsed("data_dir", patterns::host_dir),
        supervisor: section.word("supervisor", Supervisor::WORDS, Supervisor::from_word),
        ssh: CommonSsh::default(),
        limits: read_limits(section.section("limits")),
    }
}

fn port(section: &Section<'_>, key: &'static str) -> Option<Sited<u16>> {
    let Sited { value, span } = section.integer(key, 1, 65_535)?;
    Some(Sited { value: u16::try_from(value).expect("1 to 65535"), span })
}

fn read_limits(section: Option<Section<'_>>) -> Limits {
    let Some(section) = section else { return Limits::default() };
    let memory_max = section.parsed("memory_max", patterns::size).map(|size| size.value);
    let nofile = section.integer("nofile", 1_024, 1 << 30);
    section.finish();
    Limits { memory_max, nofile: nofile.map(|sited| sited.value.unsigned_abs()) }
}

fn read_ssh(section: &Section<'_>, folder: &Path) -> CommonSsh {
    let path = |text: &str| Ok(local_path(text, folder));
    CommonSsh {
        user: section.parsed("user", patterns::login),
        port: port(section, "port"),
        identity_file: section.parsed("identity_file", path),
        jump: section.list("jump", patterns::jump),
        known_hosts: section.parsed("known_hosts", path),
        host_keys: section.word("host_keys", HostKeys::WORDS, HostKeys::from_word),
        connect_timeout: section.parsed("connect_timeout", patterns::duration),
    }
}

fn read_guard(section: Option<Section<'_>>) -> Guard {
    let mut guard = Guard { spread: None, max_lag_slots: 1_000 };
    let Some(section) = section else { return guard };
    guard.spread = section.parsed("spread", patterns::word).map(|spread| spread.value);
    if let Some(max_lag_slots) = section.integer("max_lag_slots", 0, i64::MAX) {
        guard.max_lag_slots = max_lag_slots.value.unsigned_abs();
    }
    section.finish();
    guard
}

struct DraftSecurity {
    value: Security,
    peers_span: Span,
    clients_span: Span,
}

/// `elsewhere` is shown for what is not written.
fn read_security(section: Option<Section<'_>>, elsewhere: &Span) -> DraftSecurity {
    let value = Security { peers: Peers::Tls, clients: Clients::Auth, scrape_from: Vec::new() };
    let (peers_span, clients_span) = (elsewhere.clone(), elsewhere.clone());
    let mut security = DraftSecurity { value, peers_span, clients_span };
    let Some(section) = section else { return security };
    if let Some(peers) = section.word("peers", Peers::WORDS, Peers::from_word) {
        security.value.peers = peers.value;
        security.peers_span = peers.span;
    }
    if let Some(clients) = section.word("clients", Clients::WORDS, Clients::from_word) {
        security.value.clients = clients.value;
        security.clients_span = clients.span;
    }
    if let Some(ranges) = section.list("scrape_from", patterns::cidr) {
        security.value.scrape_from = ranges.value.into_iter().map(|range| range.value).collect();
    }
    section.finish();
    security
}

fn read_user(mut section: Section<'_>) -> Option<Sited<User>> {
    let name = section.required("name", patterns::word);
    if let Some(name) = &name {
        section.rename(format!("user {}", name.value));
    }
    section.require("role");
    let role = section.word("role", UserRole::WORDS, UserRole::from_word);
    section.require("password_sha256");
    let digests = section.secret_list("password_sha256", patterns::digest);
    section.finish();
    let name = name?;
    let password_sha256 = digests?.value.into_iter().map(|digest| digest.value).collect();
    let user = User { name: name.value, role: role?.value, password_sha256 };
    Some(Sited { value: user, span: name.span })
}

fn read_monitoring(section: Option<Section<'_>>) -> Monitoring {
    let mut monitoring = Monitoring { scrape_interval: Duration::from_secs(5) };
    let Some(section) = section else { return monitoring };
    if let Some(interval) = section.parsed("scrape_interval", patterns::duration) {
        monitoring.scrape_interval = interval.value;
    }
    section.finish();
    monitoring
}

fn read_host(
    mut section: Section<'_>,
    defaults: &Common,
    findings: &Findings<'_>,
    folder: &Path,
) -> Option<DraftHost> {
    let span = section.span.clone();
    let name = section.required("name", patterns::host_name);
    if let Some(name) = &name {
        section.rename(format!("host {}", name.value));
    }
    section.require("id");
    let id = section.integer("id", 1, i64::from(u32::MAX));
    let address = section.required("address", patterns::address);
    let advertise = section.parsed("advertise", patterns::address);
    let listen = section.parsed("listen", |text| {
        text.parse::<IpAddr>().map_err(|_| "what a node listens on is an IP address".to_owned())
    });
    let role = section.word("role", Role::WORDS, Role::from_word);
    let labels = read_labels(&section, findings);
    let mut own = read_common(&section);
    if let Some(ssh) = section.section("ssh") {
        own.ssh = read_ssh(&ssh, folder);
        ssh.finish();
    }
    section.finish();

    let (name, id, address) = (name?, id?, address?);
    let advertise = advertise.unwrap_or_else(|| address.clone());
    let listen = listen.map_or_else(|| listen_for(&advertise.value), |listen| listen.value);
    let mut take = Take { spans: BTreeMap::new() };
    let host = Host {
        name: take.note("name", name),
        id: u32::try_from(take.note("id", id)).expect("1 to 2^32 - 1"),
        address: take.note("address", address),
        advertise: take.note("advertise", advertise),
        listen,
        role: role.map_or(Role::Voter, |role| take.note("role", role)),
        labels,
        client_port: take.first("client_port", &own.client_port, &defaults.client_port, 7_379),
        peer_port: take.first("peer_port", &own.peer_port, &defaults.peer_port, 7_380),
        http_port: take.first("http_port", &own.http_port, &defaults.http_port, 7_381),
        deploy_dir: take.first(
            "deploy_dir",
            &own.deploy_dir,
            &defaults.deploy_dir,
            "/opt/paxos".into(),
        ),
        data_dir: take.first(
            "data_dir",
            &own.data_dir,
            &defaults.data_dir,
            "/var/lib/paxos".into(),
        ),
        supervisor: take.first(
            "supervisor",
            &own.supervisor,
            &defaults.supervisor,
            Supervisor::Auto,
        ),
        ssh: take.ssh(&own.ssh, &defaults.ssh, folder),
        limits: Limits {
            memory_max: own.limits.memory_max.or(defaults.limits.memory_max),
            nofile: own.limits.nofile.or(defaults.limits.nofile),
        },
    };
    Some(DraftHost { host, span, spans: take.spans })
}

fn read_labels(section: &Section<'_>, findings: &Findings<'_>) -> BTreeMap<String, String> {
    let Some(table) = section.section("labels") else { return BTreeMap::new() };
    let mut labels = BTreeMap::new();
    for (key, node) in table.entries() {
        if let Err(why) = patterns::word(&key.name) {
            let message = format!("a label cannot be called {:?}", key.name);
            findings.add(findings.error(&key.span, message).hint(why));
        }
        match &node.value {
            Value::String(value) if patterns::word(value).is_ok() => {
                labels.insert(key.name.clone(), value.clone());
            }
            Value::String(value) => {
                let message = format!("label {} cannot be {value:?}", key.name);
                let why = patterns::word(value).expect_err("matched above");
                findings.add(findings.error(&node.span, message).hint(why));
            }
            other => {
                let message = format!("label {} is a string, not {}", key.name, other.kind());
                findings.add(findings.error(&node.span, message));
            }
        }
    }
    labels
}

/// Chooses between a host's own value, the default and ours, and remembers where it came from.
struct Take {
    spans: BTreeMap<&'static str, Span>,
}

impl Take {
    fn note<T>(&mut self, key: &'static str, sited: Sited<T>) -> T {
        self.spans.insert(key, sited.span);
        sited.value
    }

    fn first<T: Clone>(
        &mut self,
        key: &'static str,
        own: &Option<Sited<T>>,
        default: &Option<Sited<T>>,
        ours: T,
    ) -> T {
        self.some(key, own, default).unwrap_or(ours)
    }

    fn some<T: Clone>(
        &mut self,
        key: &'static str,
        own: &Option<Sited<T>>,
        default: &Option<Sited<T>>,
    ) -> Option<T> {
        let sited = own.as_ref().or(default.as_ref())?;
        Some(self.note(key, sited.clone()))
    }

    fn ssh(&mut self, own: &CommonSsh, default: &CommonSsh, folder: &Path) -> Ssh {
        let jump = self.some("jump", &own.jump, &default.jump).unwrap_or_default();
        Ssh {
            user: self.some("user", &own.user, &default.user),
            port: self.some("port", &own.port, &default.port),
            identity_file: self.some("identity_file", &own.identity_file, &default.identity_file),
            jump: jump.into_iter().map(|sited| sited.value).collect(),
            known_hosts: self
                .some("known_hosts", &own.known_hosts, &default.known_hosts)
                .unwrap_or_else(|| folder.join("known_hosts")),
            host_keys: self.first(
                "host_keys",
                &own.host_keys,
                &default.host_keys,
                HostKeys::Strict,
            ),
            connect_timeout: self.first(
                "connect_timeout",
                &own.connect_timeout,
                &default.connect_timeout,
                Duration::from_secs(5),
            ),
        }
    }
}
