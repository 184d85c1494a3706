//! The difference between the wish and the hosts, computed without touching anything: same inputs,
//! same plan. It is so specific that whoever carries it out has no choices left, and printing it is
//! the dry run.
//!
//! What is never planned:
//!
//! - *Formatting twice.* Once the first membership was written anywhere, a blank data folder means a
//!   lost disk, and a voter that lost its disk may never vote again under its old id.
//! - *Touching foreign data.* A data folder of another cluster, or one that nobody can read, is
//!   refused with a mend.
//! - *Changing the membership.* It lives in the log; `members.toml` counts at the first start only.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest;
use crate::error::{Error, Kind, Result};
use crate::facts::{Data, Facts, Identity};
use crate::release::Release;
use crate::render;

/// All that should be done, host by host.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub cluster: String,
    pub cluster_uuid: String,
    pub hosts: Vec<HostPlan>,
    pub voters: usize,
    /// What is odd, but stops nothing.
    pub notes: Vec<String>,
    /// Digests of all that the plan rests on.
    pub pins: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostPlan {
    pub name: String,
    pub id: u32,
    pub votes: bool,
    pub is_leader: bool,
    pub steps: Vec<Step>,
    #[serde(skip)]
    pub release: Option<Release>,
    #[serde(skip)]
    pub node_toml: String,
    #[serde(skip)]
    pub old_release: Option<String>,
}

/// One thing done to one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// Copy a release that is not there yet.
    Upload {
        release: String,
        bytes: u64,
    },
    /// Point `current` at a release.
    Switch {
        from: Option<String>,
        to: String,
    },
    /// Write `node.toml`.
    Configure {
        is_new: bool,
    },
    /// Make identity and key on a blank disk; once ever.
    Format,
    /// Write the first membership.
    Enroll,
    Start,
    /// Stop and start a running node, keeping the quorum.
    Restart {
        because: Vec<String>,
    },
    /// Leave the newest inventory on the host.
    Record,
    Stop,
    /// Remove the data of this incarnation, or of none.
    Wipe {
        incarnation: Option<String>,
    },
}

/// What is wished of one host, once the cluster's uuid is known.
pub struct Wish<'a> {
    pub inventory: &'a hosts::Inventory,
    /// By architecture.
    pub releases: &'a BTreeMap<String, Release>,
    /// Used when no host belongs to a cluster yet.
    pub fresh_uuid: &'a str,
    /// Hosts that could not be reached, and are to be left as they are.
    pub skipped: &'a [u32],
}

/// What `up` does, from the facts of all hosts that are not skipped.
pub fn up(wish: &Wish<'_>, facts: &BTreeMap<u32, Facts>) -> Result<Plan> {
    let inventory = wish.inventory;
    let found =
        |host: &hosts::Host| facts.get(&host.id).expect("facts of every host were gathered");
    refuse_half_wiped(inventory, facts)?;
    refuse_to_begin_without(wish, facts)?;
    refuse_unreadable_data(inventory, facts)?;
    let cluster_uuid = one_cluster(inventory, facts)?.unwrap_or_else(|| wish.fresh_uuid.to_owned());
    refuse_lost_disks(inventory, facts)?;

    let mut plan = Plan {
        cluster: inventory.cluster.name.clone(),
        cluster_uuid,
        hosts: Vec::new(),
        voters: inventory.voters().count(),
        notes: membership_notes(inventory, facts),
        pins: pins(wish, facts),
    };
    for host in inventory.hosts.iter().filter(|host| !wish.skipped.contains(&host.id)) {
        let host_plan = host_plan(wish, host, found(host), &plan.cluster_uuid)?;
        let rendered = digest::of_bytes(host_plan.node_toml.as_bytes());
        plan.pins.insert(format!("node.toml of {}", host.name), rendered);
        plan.hosts.push(host_plan);
    }
    Ok(plan)
}

/// Stopping nodes, and perhaps removing their data. Whoever asks for it has been through the guard.
pub fn down(
    inventory: &hosts::Inventory,
    hosts: &[&hosts::Host],
    facts: &BTreeMap<u32, Facts>,
    wipe: bool,
) -> Plan {
    let host_plan = |host: &&hosts::Host| {
        let found = facts.get(&host.id)?;
        let mut steps = Vec::new();
        if found.process.is_some() {
            steps.push(Step::Stop);
        }
        let traces = found.data != Data::Blank || !found.files.is_empty();
        if wipe && traces {
            let incarnation = found.identity().map(|identity| identity.incarnation.clone());
            steps.push(Step::Wipe { incarnation });
        }
        Some(HostPlan {
            name: host.name.clone(),
            id: host.id,
            votes: host.role == hosts::Role::Voter,
            is_leader: found.status.as_ref().is_some_and(|status| status.leader == Some(host.id)),
            steps,
            release: None,
            node_toml: String::new(),
            old_release: found.current.clone(),
        })
    };
    Plan {
        cluster: inventory.cluster.name.clone(),
        cluster_uuid: String::new(),
        hosts: hosts.iter().filter_map(host_plan).collect(),
        voters: inventory.voters().count(),
        notes: Vec::new(),
        pins: BTreeMap::new(),
    }
}

fn host_plan(wish: &Wish<'_>, host: &hosts::Host, facts: &Facts, uuid: &str) -> Result<HostPlan> {
    let release = wish.releases.get(&facts.arch).ok_or_else(|| {
        let have: Vec<&str> = wish.releases.keys().map(String::as_str).collect();
        Error::new(Kind::Usage, "choose a binary")
            .on(&*host.name)
            .because(format!(
                "the host is {}, and there is a binary for {} only",
                facts.arch,
                have.join(", ")
            ))
            .hint(format!("set binary.{} in the inventory", facts.arch))
    })?;
    let node_toml = render::node_toml(wish.inventory, host, uuid)?;
    let config_digest = digest::of_bytes(node_toml.as_bytes());
    let name = release.name();
    let mut steps = Vec::new();
    if !facts.releases.iter().any(|there| there == name) {
        steps.push(Step::Upload { release: name.to_owned(), bytes: release.bytes });
    }
    if facts.current.as_deref() != Some(name) {
        steps.push(Step::Switch { from: facts.current.clone(), to: name.to_owned() });
    }
    let written = facts.files.get("node.toml");
    if written != Some(&config_digest) {
        steps.push(Step::Configure { is_new: written.is_none() });
    }
    if facts.data == Data::Blank {
        steps.push(Step::Format);
    }
    if !facts.files.contains_key("members.toml") {
        steps.push(Step::Enroll);
    }
    match &facts.process {
        None => steps.push(Step::Start),
        Some(process) => {
            let mut because = Vec::new();
            if process.digest != release.digest {
                let runs = digest::release_name(&process.digest);
                because.push(format!("runs release {runs}, wanted {name}"));
            }
            match &process.config {
                Some(config) if *config != config_digest => {
                    because.push("runs with an older node.toml".to_owned());
                }
                // A lost pidfile: what it was started with is unknown unless the file still is as wanted.
                None if written != Some(&config_digest) => {
                    because.push("node.toml changes".to_owned());
                }
                _ => {}
            }
            if !because.is_empty() {
                steps.push(Step::Restart { because });
            }
        }
    }
    let copy = digest::of_bytes(wish.inventory.text.as_bytes());
    if facts.files.get("inventory.toml") != Some(&copy) {
        steps.push(Step::Record);
    }
    Ok(HostPlan {
        name: host.name.clone(),
        id: host.id,
        votes: host.role == hosts::Role::Voter,
        is_leader: facts.status.as_ref().is_some_and(|status| status.leader == Some(host.id)),
        steps,
        release: Some(release.clone()),
        node_toml,
        old_release: facts.current.clone(),
    })
}

/// A cluster begins with all its nodes: the first membership names every disk.
fn refuse_to_begin_without(wish: &Wish<'_>, facts: &BTreeMap<u32, Facts>) -> Result<()> {
    let begun = facts.values().any(|facts| facts.files.contains_key("members.toml"));
    let absent = |host: &&hosts::Host| wish.skipped.contains(&host.id);
    match wish.inventory.hosts.iter().find(absent) {
        Some(host) if !begun => {
            Err(Error::new(Kind::Guard, "begin a cluster without a node of it")
                .on(&*host.name)
                .because("it could not be reached, and the first membership must name its disk")
                .hint("bring the host up, or take it out of the inventory for now"))
        }
        _ => Ok(()),
    }
}

/// A wipe marks every host before it removes anything, and takes its mark away last.
fn refuse_half_wiped(inventory: &hosts::Inventory, facts: &BTreeMap<u32, Facts>) -> Result<()> {
    let marked = |host: &&hosts::Host| {
        facts.get(&host.id).is_some_and(|facts| facts.files.contains_key("wiping"))
    };
    let Some(host) = inventory.hosts.iter().find(marked) else { return Ok(()) };
    Err(Error::new(Kind::Guard, "bring up a cluster whose data is half removed")
        .on(&*host.name)
        .because("a wipe began here and did not end")
        .hint("finish it with `paxosctl down --wipe`; then `paxosctl up` begins anew"))
}

/// Data that is there but cannot be read stops everything: it may be the only copy.
fn refuse_unreadable_data(
    inventory: &hosts::Inventory,
    facts: &BTreeMap<u32, Facts>,
) -> Result<()> {
    for host in &inventory.hosts {
        let data_dir = host.data_dir.display();
        let error = || Error::new(Kind::Guard, format!("read {data_dir}")).on(&*host.name);
        match facts.get(&host.id).map(|facts| &facts.data) {
            Some(Data::Unread { files }) => {
                return Err(error()
                    .because(format!("there are {files} files in it, and no node of ours on the host to read them"))
                    .hint(format!("if they are of no use, move them away: `paxosctl exec -n {} -- mv {data_dir} {data_dir}.old`", host.name)));
            }
            Some(Data::Broken { said }) => {
                return Err(error()
                    .because(said)
                    .hint("nothing was touched; `paxosctl logs` may say more. A node whose data is lost comes back as a new id only"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The uuid that all formatted hosts share, if any is formatted.
fn one_cluster(
    inventory: &hosts::Inventory,
    facts: &BTreeMap<u32, Facts>,
) -> Result<Option<String>> {
    let mut first: Option<(&hosts::Host, &Identity)> = None;
    for host in &inventory.hosts {
        let Some(identity) = facts.get(&host.id).and_then(Facts::identity) else { continue };
        let error = |cause: String| {
            Error::new(Kind::Guard, format!("read {}", host.data_dir.display()))
                .on(&*host.name)
                .because(cause)
                .hint("give this node a data_dir of its own in the inventory")
        };
        if identity.id != host.id {
            return Err(error(format!(
                "it belongs to node id {}, the inventory says id {}",
                identity.id, host.id
            )));
        }
        match first {
            Some((other, before)) if before.cluster_uuid != identity.cluster_uuid => {
                return Err(error(format!(
                    "it belongs to cluster {}, the data of {} to cluster {}",
                    identity.cluster_uuid, other.name, before.cluster_uuid
                )));
            }
            Some(_) => {}
            None => first = Some((host, identity)),
        }
    }
    Ok(first.map(|(_, identity)| identity.cluster_uuid.clone()))
}

/// A blank disk is formatted only while no membership was ever written. A first `up` that broke off
/// between two hosts is before that, and simply goes on.
fn refuse_lost_disks(inventory: &hosts::Inventory, facts: &BTreeMap<u32, Facts>) -> Result<()> {
    let begun = |host: &&hosts::Host| {
        facts.get(&host.id).is_some_and(|facts| {
            facts.files.contains_key("members.toml") || facts.process.is_some()
        })
    };
    let Some(witness) = inventory.hosts.iter().find(begun) else { return Ok(()) };
    let blank =
        |host: &&hosts::Host| facts.get(&host.id).is_some_and(|facts| facts.data == Data::Blank);
    let Some(lost) = inventory.hosts.iter().find(blank) else { return Ok(()) };
    let member = facts
        .values()
        .filter_map(|facts| facts.status.as_ref())
        .any(|status| status.configuration.members.iter().any(|member| member.id == lost.id));
    let error =
        Error::new(Kind::Guard, "format a data folder in a cluster that was formatted before")
            .on(&*lost.name)
            .because(format!(
                "{} has no identity on it, but {} has begun",
                lost.data_dir.display(),
                witness.name
            ));
    let error = if member {
        error.because(format!(
            "id {} votes in this cluster; with an empty disk it could break a promise",
            lost.id
        ))
    } else {
        error
    };
    Err(error.hint("a node that lost its disk, or a new one, comes in under an id never used before: `paxosctl member replace`"))
}

/// Where the live membership differs from the inventory, the log is right and the inventory is to
/// be mended.
fn membership_notes(inventory: &hosts::Inventory, facts: &BTreeMap<u32, Facts>) -> Vec<String> {
    let newest = facts
        .values()
        .filter_map(|facts| facts.status.as_ref())
        .map(|status| &status.configuration)
        .max_by_key(|configuration| configuration.number);
    let Some(live) = newest.filter(|live| !live.members.is_empty()) else { return Vec::new() };
    let mut notes = Vec::new();
    for host in &inventory.hosts {
        let Some(member) = live.members.iter().find(|member| member.id == host.id) else {
            notes.push(format!(
                "{} (id {}) is in the inventory, but no member of the cluster",
                host.name, host.id
            ));
            continue;
        };
        let votes = member.role == monitoring::status::MemberRole::Voter;
        if votes != (host.role == hosts::Role::Voter) {
            let live_role = if votes { "voter" } else { "learner" };
            notes.push(format!(
                "{} is a {live_role} in the cluster, a {} in the inventory",
                host.name, host.role
            ));
        }
        if member.peer != host.peer_endpoint() {
            notes.push(format!(
                "peers dial {} at {}, the inventory says {}",
                host.name,
                member.peer,
                host.peer_endpoint()
            ));
        }
    }
    for member in &live.members {
        if inventory.host_by_id(member.id).is_none() {
            notes.push(format!(
                "{} (id {}) is a member of the cluster, but not in the inventory",
                member.name, member.id
            ));
        }
    }
    notes
}

fn pins(wish: &Wish<'_>, facts: &BTreeMap<u32, Facts>) -> BTreeMap<String, String> {
    let mut pins = BTreeMap::new();
    pins.insert("inventory".to_owned(), digest::of_bytes(wish.inventory.text.as_bytes()));
    for (arch, release) in wish.releases {
        pins.insert(format!("binary {arch}"), release.digest.clone());
    }
    for host in &wish.inventory.hosts {
        let pin = facts.get(&host.id).map_or_else(|| "skipped".to_owned(), Facts::pin);
        pins.insert(format!("host {}", host.name), pin);
    }
    pins
}

impl Plan {
    /// What this plan rests on that is not as it was when `saved` was made.
    pub fn moved_since(&self, saved: &BTreeMap<String, String>) -> Vec<String> {
        let mut names: Vec<&String> = self.pins.keys().chain(saved.keys()).collect();
        names.sort();
        names.dedup();
        let moved = |name: &&String| self.pins.get(*name) != saved.get(*name);
        names.into_iter().filter(moved).cloned().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.hosts.iter().all(|host| host.steps.is_empty())
    }

    /// Whether any node stops or starts.
    pub fn touches_nodes(&self) -> bool {
        self.restarts() > 0 || self.hosts.iter().any(|host| host.steps.contains(&Step::Start))
    }

    pub fn restarts(&self) -> usize {
        self.hosts.iter().filter(|host| host.restarts()).count()
    }

    /// The lines that a person reads before saying yes.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for host in self.hosts.iter().filter(|host| !host.steps.is_empty()) {
            let role = if host.votes { "voter" } else { "learner" };
            lines.push(format!("{} {}  ({role}, id {})", host.sign(), host.name, host.id));
            for step in &host.steps {
                lines.push(format!("    {} {step}", step.sign()));
            }
        }
        for note in &self.notes {
            lines.push(format!("! {note}"));
        }
        lines
    }

    pub fn summary(&self) -> String {
        if self.is_empty() {
            return "No changes. The hosts match the inventory.".to_owned();
        }
        let stopped = self.hosts.iter().filter(|host| host.steps.contains(&Step::Stop)).count();
        let wipes = |step: &Step| matches!(step, Step::Wipe { .. });
        let wiped = self.hosts.iter().filter(|host| host.steps.iter().any(wipes)).count();
        if stopped + wiped > 0 {
            return match wiped {
                0 => format!("Plan: {stopped} to stop. Their data stays."),
                _ => format!("Plan: {stopped} to stop, the data of {wiped} to remove for good."),
            };
        }
        let signed = |sign: char| {
            self.hosts.iter().filter(|host| !host.steps.is_empty() && host.sign() == sign).count()
        };
        let restarts = self.restarts();
        let counts = |noun: &str, count: usize| {
            format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
        };
        let leader_moves = self
            .hosts
            .iter()
            .filter(|host| host.is_leader && host.restarts() && self.hosts.len() > 1)
            .count();
        let quorum = match restarts {
            0 => String::new(),
            _ if self.voters == 1 => {
                " One voter only: it does not serve while it restarts.".to_owned()
            }
            _ if self.voters == 2 => " Two voters only: no quorum while one restarts.".to_owned(),
            _ => format!(
                " Quorum kept at every step (min {} of {} up).",
                self.voters - 1,
                self.voters
            ),
        };
        format!(
            "Plan: {}, {} add, 0 remove, {}, {}.{quorum}",
            counts("update", signed('~')),
            signed('+'),
            counts("restart", restarts),
            counts("leader move", leader_moves),
        )
    }
}

impl HostPlan {
    pub fn restarts(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Restart { .. }))
    }

    fn sign(&self) -> char {
        if self.steps.contains(&Step::Format) {
            '+'
        } else if self.steps.iter().all(|step| step.sign() == '-') {
            '-'
        } else {
            '~'
        }
    }
}

impl Step {
    fn sign(&self) -> char {
        match self {
            Step::Upload { .. } | Step::Format | Step::Enroll | Step::Start => '+',
            Step::Configure { is_new: true } | Step::Switch { from: None, .. } => '+',
            Step::Stop | Step::Wipe { .. } => '-',
            _ => '~',
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Upload { release, bytes } => {
                write!(f, "copy release {release} ({:.1} MiB)", *bytes as f64 / 1048576.0)
            }
            Step::Switch { from: None, to } => write!(f, "set current to {to}"),
            Step::Switch { from: Some(from), to } => {
                write!(f, "switch current from {from} to {to}")
            }
            Step::Configure { is_new: true } => f.write_str("write node.toml"),
            Step::Configure { is_new: false } => f.write_str("rewrite node.toml"),
            Step::Format => f.write_str("format the data folder: identity and key, once ever"),
            Step::Enroll => f.write_str("write members.toml"),
            Step::Start => f.write_str("start the node"),
            Step::Restart { because } => write!(f, "restart the node: {}", because.join(", ")),
            Step::Record => f.write_str("leave a copy of the inventory"),
            Step::Stop => f.write_str("stop the node"),
            Step::Wipe { .. } => f.write_str("remove its data"),
        }
    }
}
