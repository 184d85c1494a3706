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

mod refuse;
mod show;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest;
use crate::error::{Error, Kind, Result};
use crate::facts::{Data, Facts, Process};
use crate::release::Release;
use crate::render;

/// All that should be done, host by host.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub cluster: String,
    pub cluster_uuid: String,
    pub hosts: Vec<HostPlan>,
    pub voters: usize,
    pub quorum: Quorum,
    /// What is odd, but stops nothing.
    pub notes: Vec<String>,
    /// Digests of all that the plan rests on.
    pub pins: BTreeMap<String, String>,
}

/// Whether nodes may be taken away although the rest is no quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// The guard is asked right before each node is taken away.
    Keep,
    /// The whole cluster stops, somebody said so, or one or two voters leave no other way.
    MayGo,
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
    pub former: Option<Former>,
}

/// What a node runs before it is restarted, and goes back to if it does not come up. Taken from the
/// process, not from the files: a run that broke off may have changed those already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// The release folder, if the host still has it.
    pub release: Option<String>,
    /// sha-256 of its `node.toml`; unknown when the pidfile was lost.
    pub config: Option<String>,
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
    refuse::half_wiped(inventory, facts)?;
    refuse::to_begin_without(wish, facts)?;
    refuse::unreadable_data(inventory, facts)?;
    let cluster_uuid =
        refuse::one_cluster(inventory, facts)?.unwrap_or_else(|| wish.fresh_uuid.to_owned());
    refuse::lost_disks(inventory, facts)?;

    let mut plan = Plan {
        cluster: inventory.cluster.name.clone(),
        cluster_uuid,
        hosts: Vec::new(),
        voters: inventory.voters().count(),
        quorum: if inventory.voters().count() <= 2 { Quorum::MayGo } else { Quorum::Keep },
        notes: refuse::membership_notes(inventory, facts),
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

/// Stopping nodes, and perhaps removing their data.
pub fn down(
    inventory: &hosts::Inventory,
    hosts: &[&hosts::Host],
    facts: &BTreeMap<u32, Facts>,
    quorum: Quorum,
    wipe: bool,
) -> Result<Plan> {
    if wipe {
        // Only what is known to be this cluster's is removed.
        refuse::unreadable_data(inventory, facts)?;
        refuse::one_cluster(inventory, facts)?;
    }
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
            former: None,
        })
    };
    Ok(Plan {
        cluster: inventory.cluster.name.clone(),
        cluster_uuid: String::new(),
        hosts: hosts.iter().filter_map(host_plan).collect(),
        voters: inventory.voters().count(),
        quorum,
        notes: Vec::new(),
        pins: BTreeMap::new(),
    })
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
        former: facts.process.as_ref().map(|process| former(process, facts)),
    })
}

/// What was shown is not what would be done now; so nothing is.
pub fn moved(doing: &str) -> Error {
    Error::new(Kind::Moved, doing)
        .because("the hosts have changed since it was made")
        .hint("nothing was done; run the command again")
}

fn former(process: &Process, facts: &Facts) -> Former {
    let runs = digest::release_name(&process.digest);
    let release = facts.releases.iter().find(|there| *there == runs).cloned();
    Former { release, config: process.config.clone() }
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

    /// Whether this plan does to a host what `shown` did not say it would.
    pub fn goes_beyond(&self, shown: &Plan) -> bool {
        let said = |host: &HostPlan, step: &Step| {
            shown.hosts.iter().any(|known| known.id == host.id && known.steps.contains(step))
        };
        self.hosts.iter().any(|host| host.steps.iter().any(|step| !said(host, step)))
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
}

impl HostPlan {
    pub fn restarts(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Restart { .. }))
    }
}
