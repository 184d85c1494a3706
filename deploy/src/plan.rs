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
//! - *Changing the membership* by the way. It lives in the log; `members.toml` counts at the first
//!   start only. A host of the inventory that is no member is left alone, and the command that makes
//!   it one is named: those plans are made in `member`.

pub mod member;
mod notes;
mod refuse;
pub mod rules;
mod show;
mod standing;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest;
use crate::error::{Error, Kind, Result};
use crate::facts::{Data, Facts, Process};
use crate::procedures::Phase;
use crate::release::Release;
use crate::render;

pub use standing::{Standing, membership, standing};

/// All that should be done, host by host.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub cluster: String,
    pub cluster_uuid: String,
    pub hosts: Vec<HostPlan>,
    pub voters: usize,
    pub quorum: Quorum,
    /// For a change of the membership: what becomes of the voters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<member::Change>,
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
    /// No member by the log: nothing is done there, and nothing is expected of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stays_out: bool,
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
    /// Write the membership as it is in the log now, for a node that comes later.
    Introduce,
    /// End a process that was started as another node, whose host this was.
    StopFormer {
        pid: u32,
    },
    Start,
    /// Make it a learner, through the log.
    Join,
    /// Wait until it has what the others have.
    CatchUp,
    /// Make the learner a voter.
    Promote,
    /// Let the learner vote in another one's place, in one step.
    TakeOver {
        old: u32,
        old_name: String,
    },
    /// Take it out of the membership.
    Leave,
    /// See that a node that was removed has stopped, and never starts again.
    Retire,
    /// Ask the leader for other rules of the cluster.
    Rule(rules::Rules),
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
    let is_member = |host: &hosts::Host| standing(host.id, facts) == Standing::Member;
    let members: Vec<&hosts::Host> =
        inventory.hosts.iter().filter(|host| is_member(host)).collect();
    refuse::half_wiped(inventory, facts)?;
    refuse::to_begin_without(wish, facts)?;
    refuse::unreadable_data(&members, facts)?;
    let cluster_uuid =
        refuse::one_cluster(&members, facts)?.unwrap_or_else(|| wish.fresh_uuid.to_owned());
    refuse::lost_disks(inventory, &members, facts)?;

    let live = membership(facts);
    let voters = live.map_or(inventory.voters().count(), |live| live.voters().count());
    let mut plan = Plan {
        cluster: inventory.cluster.name.clone(),
        cluster_uuid,
        hosts: Vec::new(),
        voters,
        quorum: if voters <= 2 { Quorum::MayGo } else { Quorum::Keep },
        change: None,
        notes: notes::on_membership(inventory, facts),
        pins: pins(wish, facts),
    };
    for host in inventory.hosts.iter().filter(|host| !wish.skipped.contains(&host.id)) {
        if !is_member(host) {
            plan.hosts.push(HostPlan::untouched(host, found(host), true));
            continue;
        }
        let host_plan = host_plan(wish, host, found(host), &plan.cluster_uuid, live.is_some())?;
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
        let all: Vec<&hosts::Host> = inventory.hosts.iter().collect();
        refuse::unreadable_data(&all, facts)?;
        refuse::one_cluster(&all, facts)?;
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
        Some(HostPlan { steps, ..HostPlan::untouched(host, found, false) })
    };
    Ok(Plan {
        cluster: inventory.cluster.name.clone(),
        cluster_uuid: String::new(),
        hosts: hosts.iter().filter_map(host_plan).collect(),
        voters: inventory.voters().count(),
        quorum,
        change: None,
        notes: Vec::new(),
        pins: BTreeMap::new(),
    })
}

/// `lives`: the membership in the log is known.
fn host_plan(
    wish: &Wish<'_>,
    host: &hosts::Host,
    facts: &Facts,
    uuid: &str,
    lives: bool,
) -> Result<HostPlan> {
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
        steps.push(if lives { Step::Introduce } else { Step::Enroll });
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
    if lacks_copy(wish.inventory, facts) {
        steps.push(Step::Record);
    }
    Ok(HostPlan {
        steps,
        release: Some(release.clone()),
        node_toml,
        former: facts.process.as_ref().map(|process| former(process, facts)),
        ..HostPlan::untouched(host, facts, false)
    })
}

fn lacks_copy(inventory: &hosts::Inventory, facts: &Facts) -> bool {
    let copy = digest::of_bytes(inventory.text.as_bytes());
    facts.files.get("inventory.toml") != Some(&copy)
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

    /// Whether the cluster is not as the inventory says: something is to be done, or the membership is
    /// another one, which only a command of its own changes (each note names it).
    pub fn differs(&self) -> bool {
        !self.is_empty() || !self.notes.is_empty()
    }

    /// Whether any node stops or starts.
    pub fn touches_nodes(&self) -> bool {
        self.restarts() > 0 || self.hosts.iter().any(|host| host.steps.contains(&Step::Start))
    }

    pub fn restarts(&self) -> usize {
        self.hosts.iter().filter(|host| host.restarts()).count()
    }
}

impl Step {
    /// The phase that carries it out.
    pub fn phase(&self) -> Phase {
        match self {
            Step::Upload { .. } => Phase::Upload,
            Step::Switch { .. } => Phase::Switch,
            Step::Configure { .. } => Phase::Configure,
            Step::Format => Phase::Format,
            Step::Enroll => Phase::Enroll,
            Step::Introduce => Phase::Introduce,
            Step::StopFormer { .. } => Phase::StopFormer,
            Step::Start => Phase::Start,
            Step::Join => Phase::Join,
            Step::CatchUp => Phase::CatchUp,
            Step::Promote => Phase::Promote,
            Step::TakeOver { .. } => Phase::TakeOver,
            Step::Leave => Phase::Leave,
            Step::Retire => Phase::Retire,
            Step::Rule(_) => Phase::Rule,
            Step::Restart { .. } => Phase::Restart,
            Step::Record => Phase::Record,
            Step::Stop => Phase::Stop,
            Step::Wipe { .. } => Phase::Wipe,
        }
    }
}

impl HostPlan {
    /// A host to which nothing is done.
    fn untouched(host: &hosts::Host, facts: &Facts, stays_out: bool) -> HostPlan {
        HostPlan {
            name: host.name.clone(),
            id: host.id,
            votes: host.role == hosts::Role::Voter,
            is_leader: facts.status.as_ref().is_some_and(|status| status.leader == Some(host.id)),
            stays_out,
            steps: Vec::new(),
            release: None,
            node_toml: String::new(),
            former: None,
        }
    }

    pub fn restarts(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Restart { .. }))
    }
}
