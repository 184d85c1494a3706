//! Plans that change the membership: what is left to do of one change, from what is on the hosts and
//! in the log now. Asked again half-way, or when all is done, the same question has a shorter answer;
//! so running a command again goes on from where it stands.
//!
//! - *The inventory says who a node is, the log says whether it is a member.* A change never rests on
//!   the inventory's idea of the membership.
//! - *A disk is formatted once, an id is used once.* A host with any identity or tombstone on it is
//!   not formatted; a member whose disk is gone comes back under a new id.
//! - *Nothing more is refused than would do harm.* A learner may always come while somebody leads;
//!   a voter may leave when enough of the others have caught up.

use std::collections::{BTreeMap, BTreeSet};

use monitoring::status::{Configuration, Member, MemberRole, NodeStatus, Role};
use serde::Serialize;

use super::refuse::free_id;
use super::{HostPlan, Plan, Quorum, Standing, Step, Wish, host_plan, lacks_copy, standing};
use crate::digest;
use crate::error::{Error, Kind, Result};
use crate::facts::{Data, Facts};
use crate::guard;
use crate::live;
use crate::procedures::{self, Phase};

/// The voters before and after, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub before: Vec<String>,
    pub after: Vec<String>,
    /// The member that leaves, or has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Leaver>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leaver {
    pub id: u32,
    pub name: String,
    pub is_voter: bool,
    pub is_member: bool,
}

/// What every change begins with: a leader, and the membership as the leader has it.
struct Scene<'a> {
    wish: &'a Wish<'a>,
    facts: &'a BTreeMap<u32, Facts>,
    leader: &'a NodeStatus,
    live: &'a Configuration,
}

/// A host of the inventory becomes a member, as the role says that it has there.
pub fn add(wish: &Wish<'_>, facts: &BTreeMap<u32, Facts>, name: &str) -> Result<Plan> {
    let doing = format!("add {name} to the cluster");
    let scene = Scene::new(wish, facts, &doing)?;
    let host = scene.host(name, &doing)?;
    scene.refuse_taken(host, None, &doing)?;
    let mut steps = scene.bring(host, &doing)?;
    if host.role == hosts::Role::Voter && !scene.live.is_voter(host.id) {
        steps.steps.push(Step::Promote);
    }
    Ok(scene.plan(vec![steps], None))
}

/// A learner becomes a voter.
pub fn promote(wish: &Wish<'_>, facts: &BTreeMap<u32, Facts>, name: &str) -> Result<Plan> {
    let doing = format!("make {name} a voter");
    let scene = Scene::new(wish, facts, &doing)?;
    let host = scene.host(name, &doing)?;
    if scene.member(host.id).is_none() {
        return Err(Error::new(Kind::Usage, doing)
            .on(&*host.name)
            .because("it is no member of the cluster")
            .hint(format!("`paxosctl member add {name}` makes it one, voter at once")));
    }
    if host.role != hosts::Role::Voter {
        return Err(wants_voter(host, &doing, wish.inventory, &format!("member promote {name}")));
    }
    scene.refuse_taken(host, None, &doing)?;
    let mut steps = scene.bring(host, &doing)?;
    if !scene.live.is_voter(host.id) {
        steps.steps.push(Step::Promote);
    }
    Ok(scene.plan(vec![steps], None))
}

/// A member leaves for good.
pub fn remove(wish: &Wish<'_>, facts: &BTreeMap<u32, Facts>, name: &str) -> Result<Plan> {
    let doing = format!("remove {name} from the cluster");
    let scene = Scene::new(wish, facts, &doing)?;
    let leaver = scene.leaver(name, None, &doing)?;
    if leaver.is_voter {
        let voters = scene.voters();
        let leaving = BTreeSet::from([leaver.id]);
        guard::may_change(&voters, 0, &leaving).map_err(|refusal| {
            Error::new(Kind::Guard, doing).on(&*leaver.name).because(refusal).hint(format!(
                "bring the others up first (`paxosctl status`), or let another take its place: `paxosctl member replace {name} NEW`"
            ))
        })?;
    }
    let steps = scene.parting(&leaver, true);
    Ok(scene.plan(vec![steps], Some(leaver)))
}

/// A host of the inventory takes a voter's place, in one step of the log.
pub fn replace(
    wish: &Wish<'_>,
    facts: &BTreeMap<u32, Facts>,
    old: &str,
    new: &str,
) -> Result<Plan> {
    let doing = format!("replace {old} by {new}");
    let scene = Scene::new(wish, facts, &doing)?;
    let host = scene.host(new, &doing)?;
    if host.role != hosts::Role::Voter {
        return Err(wants_voter(
            host,
            &doing,
            wish.inventory,
            &format!("member replace {old} {new}"),
        ));
    }
    let leaver = scene.leaver(old, Some(host.id), &doing)?;
    if leaver.is_member && !leaver.is_voter {
        return Err(Error::new(Kind::Usage, doing)
            .on(&*leaver.name)
            .because("it is a learner: it has no vote that another could take over")
            .hint(format!("`paxosctl member add {new}`, then `paxosctl member remove {old}`")));
    }
    scene.refuse_taken(host, Some(leaver.id), &doing)?;
    let mut steps = scene.bring(host, &doing)?;
    if leaver.is_voter && scene.live.is_voter(host.id) {
        return Err(Error::new(Kind::Usage, doing)
            .on(&*host.name)
            .because("it votes already, beside the one that it is to replace")
            .hint(format!("`paxosctl member remove {old}`")));
    }
    if leaver.is_voter {
        let voters = scene.voters();
        guard::may_change(&voters, 1, &BTreeSet::from([leaver.id])).map_err(|refusal| {
            Error::new(Kind::Guard, &*doing)
                .on(&*leaver.name)
                .because(refusal)
                .hint("bring the others up first: `paxosctl status`")
        })?;
        let (old, old_name) = (leaver.id, leaver.name.clone());
        steps.steps.push(Step::TakeOver { old, old_name });
    } else if !scene.live.is_voter(host.id) {
        // The old one is gone already; its place is free.
        steps.steps.push(Step::Promote);
    }
    let mut hosts = vec![steps];
    let parting = scene.parting(&leaver, false);
    // On one machine the former node's process is ended before the new one starts.
    if parting.id != host.id {
        hosts.push(parting);
    }
    Ok(scene.plan(hosts, Some(leaver)))
}

fn wants_voter(
    host: &hosts::Host,
    doing: &str,
    inventory: &hosts::Inventory,
    command: &str,
) -> Error {
    Error::new(Kind::Usage, doing)
        .on(&*host.name)
        .because(format!("{} says role = \"learner\"", inventory.origin))
        .hint(format!(
            "the inventory is the wish: change that line to `role = \"voter\"`, then `paxosctl {command}`"
        ))
}

impl<'a> Scene<'a> {
    fn new(wish: &'a Wish<'a>, facts: &'a BTreeMap<u32, Facts>, doing: &str) -> Result<Scene<'a>> {
        let statuses = || facts.values().filter_map(|facts| facts.status.as_ref());
        let leaders = statuses().filter(|status| status.role == Role::Leader);
        let Some(leader) = leaders.max_by_key(|status| status.ballot) else {
            let led_by = statuses().find_map(|s| Some(s.configuration.name_of(s.leader?)));
            let error = Error::new(Kind::Unavailable, doing);
            return Err(match led_by {
                Some(name) => error
                    .because(format!("{name} leads, and its host was not reached"))
                    .hint("the inventory must name the leader's host, and ssh must get there; or wait until another leads"),
                None => error
                    .because("no node leads: without a quorum the membership cannot change")
                    .hint("look: `paxosctl status`; start what is down: `paxosctl up`"),
            });
        };
        Ok(Scene { wish, facts, leader, live: &leader.configuration })
    }

    fn member(&self, id: u32) -> Option<&'a Member> {
        self.live.members.iter().find(|member| member.id == id)
    }

    /// The host that the inventory has under this name, with the lines to write if it has none.
    fn host(&self, name: &str, doing: &str) -> Result<&'a hosts::Host> {
        if let Some(host) = self.wish.inventory.host(name) {
            return Ok(host);
        }
        let id = free_id(self.wish.inventory, self.facts);
        Err(Error::new(Kind::Usage, doing)
            .on(name)
            .because(format!("{} has no [[host]] of this name", self.wish.inventory.origin))
            .hint(format!(
                "write these lines there, then run the command again:\n\n[[host]]\nname = \"{name}\"\nid = {id}                        # never used before\naddress = \"ADDRESS OF {name}\"   # what ssh dials\nrole = \"voter\"                # or \"learner\""
            )))
    }

    /// No two members have a name or an address in common, but for one that takes the other's place:
    /// people, peers and clients would take one for the other.
    fn refuse_taken(&self, host: &hosts::Host, leaves: Option<u32>, doing: &str) -> Result<()> {
        let (peer, client) = (host.peer_endpoint(), host.client_endpoint());
        let http = host.http_endpoint();
        let others = self.live.members.iter();
        for other in others.filter(|m| m.id != host.id && Some(m.id) != leaves) {
            let shared = [
                ("called the same", &host.name, &other.name),
                ("at the same address", &peer, &other.peer),
                ("at the same client address", &client, &other.client),
                ("at the same http address", &http, &other.http),
            ];
            if let Some((how, which, _)) = shared.iter().find(|(_, own, theirs)| own == theirs) {
                return Err(Error::new(Kind::Guard, doing)
                    .on(&*host.name)
                    .because(format!(
                        "id {}: {} (id {}) is a member {how}, {which}",
                        host.id, other.name, other.id
                    ))
                    .hint(format!(
                        "if it takes that one's place: `paxosctl member replace {} {}`",
                        other.name, host.name
                    )));
            }
        }
        Ok(())
    }

    /// The member that is to leave, by the name that the cluster has for it, else by the inventory's;
    /// one that has left already is found by its id too.
    fn leaver(&self, name: &str, new: Option<u32>, doing: &str) -> Result<Leaver> {
        let inventory = self.wish.inventory;
        let by_log = self.live.members.iter().find(|m| m.name == name && Some(m.id) != new);
        let by_inventory =
            || inventory.host(name).map(|host| host.id).filter(|id| Some(*id) != new);
        let by_number = || {
            let id = name.strip_prefix('n').unwrap_or(name).parse::<u32>().ok()?;
            let known = self.member(id).is_some() || self.live.removed.contains(&id);
            (known && Some(id) != new).then_some(id)
        };
        let id = by_log.map(|member| member.id).or_else(by_inventory).or_else(by_number);
        let Some(id) = id else {
            let members: Vec<String> =
                self.live.members.iter().map(|m| format!("{} (id {})", m.name, m.id)).collect();
            return Err(Error::new(Kind::Usage, doing)
                .on(name)
                .because("no member is called so")
                .hint(format!("the members are {}", members.join(", "))));
        };
        if let Some(member) = self.member(id) {
            let is_voter = member.role == MemberRole::Voter;
            return Ok(Leaver { id, name: member.name.clone(), is_voter, is_member: true });
        }
        if self.live.removed.contains(&id) {
            return Ok(Leaver { id, name: name.to_owned(), is_voter: false, is_member: false });
        }
        Err(Error::new(Kind::Usage, doing)
            .on(name)
            .because(format!("it (id {id}) never was a member of the cluster"))
            .hint("there is nothing to remove: delete its [[host]] from the inventory"))
    }

    /// From whatever is on the host to a learner that has caught up.
    fn bring(&self, host: &hosts::Host, doing: &str) -> Result<HostPlan> {
        let facts = self.facts.get(&host.id).ok_or_else(|| {
            Error::new(Kind::Ssh, doing).on(&*host.name).because("the host was not reached")
        })?;
        let is_member = self.member(host.id).is_some();
        self.refuse_spent_id(host, doing)?;
        self.refuse_data(host, facts, is_member, doing)?;
        let uuid = &self.leader.cluster_uuid;
        let former = former_process(host, facts, self.wish, uuid)?;
        let mut seen = facts.clone();
        if former.is_some() {
            seen.process = None;
        }
        let mut plan = host_plan(self.wish, host, &seen, uuid, true)?;
        // Restarting what runs is the business of `up`.
        plan.steps.retain(|step| !matches!(step, Step::Restart { .. }));
        if seen.process.is_some() {
            let is_record = |step: &Step| *step == Step::Record;
            plan.steps.retain(is_record);
        } else if !is_member && !plan.steps.contains(&Step::Introduce) {
            plan.steps.push(Step::Introduce);
        }
        if let Some(pid) = former {
            plan.steps.insert(0, Step::StopFormer { pid });
        }
        plan.former = None;
        let record = plan.steps.iter().position(|step| *step == Step::Record);
        let record = record.map(|at| plan.steps.remove(at));
        if !is_member {
            plan.steps.push(Step::Join);
        }
        if !self.has_caught_up(host, &seen) {
            plan.steps.push(Step::CatchUp);
        }
        plan.steps.extend(record);
        Ok(plan)
    }

    fn has_caught_up(&self, host: &hosts::Host, facts: &Facts) -> bool {
        let Some(status) = &facts.status else { return false };
        let behind = self.leader.chosen_slot.saturating_sub(status.applied_slot);
        let knows = status.configuration.members.iter().any(|member| member.id == host.id);
        status.id == host.id && knows && behind <= self.wish.inventory.guard.max_lag_slots
    }

    fn refuse_spent_id(&self, host: &hosts::Host, doing: &str) -> Result<()> {
        let spent = self.live.removed.contains(&host.id)
            || standing(host.id, self.facts) == Standing::Removed;
        if !spent {
            return Ok(());
        }
        let free = free_id(self.wish.inventory, self.facts);
        Err(Error::new(Kind::Usage, doing)
            .on(&*host.name)
            .because(format!(
                "id {} belonged to a member that was removed, and is never used again",
                host.id
            ))
            .hint(format!("give the host an id that was never used: `id = {free}`")))
    }

    /// Only a blank folder is formatted, and only this node's own data is started with.
    fn refuse_data(
        &self,
        host: &hosts::Host,
        facts: &Facts,
        is_member: bool,
        doing: &str,
    ) -> Result<()> {
        let data_dir = host.data_dir.display();
        let refused = |cause: String| Error::new(Kind::Guard, doing).on(&*host.name).because(cause);
        let move_away = format!(
            "if nobody needs it, move it away: `paxosctl exec -n {} -- mv {data_dir} {data_dir}.old`; then run the command again",
            host.name
        );
        match &facts.data {
            Data::Blank if is_member => {
                let free = free_id(self.wish.inventory, self.facts);
                Err(refused(format!(
                    "id {} is a member, and {data_dir} has no identity on it: the disk was lost, and with it its promises",
                    host.id
                ))
                .hint(format!(
                    "give the host an id never used before, `id = {free}`, and a new name, say n{free}; then `paxosctl member replace {} n{free}`",
                    host.name
                )))
            }
            Data::Blank => Ok(()),
            Data::Identity(identity) if identity.id != host.id => {
                let hint = match self.member(identity.id).filter(|_| facts.process.is_some()) {
                    Some(former) => format!(
                        "it is the disk of {0}, a member that runs: first `paxosctl member remove {0}`, on which it stops by itself; then {move_away}",
                        former.name
                    ),
                    None => move_away,
                };
                Err(refused(format!(
                    "{data_dir} holds the data of node id {}, the inventory says id {}",
                    identity.id, host.id
                ))
                .hint(hint))
            }
            Data::Identity(identity) if identity.cluster_uuid != self.leader.cluster_uuid => {
                Err(refused(format!(
                    "{data_dir} belongs to cluster {}, this is cluster {}",
                    identity.cluster_uuid, self.leader.cluster_uuid
                ))
                .hint(move_away))
            }
            Data::Identity(_) => Ok(()),
            Data::Unread { files } => Err(refused(format!(
                "there are {files} files in {data_dir}, and no node of ours on the host to read them"
            ))
            .hint(move_away)),
            Data::Broken { said } => Err(refused(said.clone()).hint(move_away)),
        }
    }

    /// What is left to do for the one that leaves.
    fn parting(&self, leaver: &Leaver, by_itself: bool) -> HostPlan {
        let mut steps = Vec::new();
        if by_itself && leaver.is_member {
            steps.push(Step::Leave);
        }
        let host = self.wish.inventory.host_by_id(leaver.id);
        let facts = host.and_then(|host| self.facts.get(&host.id));
        let is_its_disk = |facts: &Facts| facts.identity().is_some_and(|i| i.id == leaver.id);
        let is_retired = |facts: &Facts| facts.process.is_none() && facts.is_removed;
        if facts.is_some_and(|facts| is_its_disk(facts) && !is_retired(facts)) {
            steps.push(Step::Retire);
        }
        HostPlan {
            name: leaver.name.clone(),
            id: leaver.id,
            votes: leaver.is_voter,
            is_leader: self.leader.id == leaver.id,
            stays_out: false,
            steps,
            release: None,
            node_toml: String::new(),
            former: None,
        }
    }

    fn voters(&self) -> Vec<guard::Voter> {
        let inventory = self.wish.inventory;
        let seen = live::by_node(self.facts.iter().map(|(id, facts)| (*id, facts.heard())));
        guard::voters(&inventory.hosts, &seen, inventory.guard.max_lag_slots, None)
    }

    fn plan(&self, mut hosts: Vec<HostPlan>, leaves: Option<Leaver>) -> Plan {
        let inventory = self.wish.inventory;
        let mut voters: BTreeMap<u32, String> =
            self.live.voters().map(|member| (member.id, member.name.clone())).collect();
        let before: Vec<String> = voters.values().cloned().collect();
        if let Some(leaver) = &leaves {
            voters.remove(&leaver.id);
        }
        for host in &hosts {
            let votes = |step: &Step| matches!(step, Step::Promote | Step::TakeOver { .. });
            if host.steps.iter().any(votes) {
                voters.insert(host.id, host.name.clone());
            }
        }
        let mut notes = Vec::new();
        if let Some(leaver) = leaves.as_ref().filter(|l| l.is_voter && l.id == self.leader.id) {
            notes.push(format!("{} leads: it hands leadership over first", leaver.name));
        }
        // Nothing lives on one machine: the inventory that says so goes to all of them.
        for host in &inventory.hosts {
            let facts = self.facts.get(&host.id).filter(|facts| !facts.files.is_empty());
            let planned = hosts.iter().any(|plan| plan.id == host.id);
            let is_member = standing(host.id, self.facts) == Standing::Member;
            if let Some(facts) = facts.filter(|facts| lacks_copy(inventory, facts))
                && is_member
                && !planned
            {
                let record = HostPlan::untouched(host, facts, false);
                hosts.push(HostPlan { steps: vec![Step::Record], ..record });
            }
        }
        for host in &mut hosts {
            // Shown in the order in which they are done.
            let order = [&[Phase::Leave], procedures::ADD_MEMBER].concat();
            host.steps.sort_by_key(|step| order.iter().position(|phase| *phase == step.phase()));
        }
        Plan {
            cluster: inventory.cluster.name.clone(),
            cluster_uuid: self.leader.cluster_uuid.clone(),
            voters: before.len(),
            quorum: Quorum::Keep,
            change: Some(Change { before, after: voters.into_values().collect(), leaves }),
            hosts,
            notes,
            pins: BTreeMap::new(),
        }
    }
}

/// The process that runs on the host and is not the node that the inventory wants there.
fn former_process(
    host: &hosts::Host,
    facts: &Facts,
    wish: &Wish<'_>,
    uuid: &str,
) -> Result<Option<u32>> {
    let Some(process) = &facts.process else { return Ok(None) };
    let is_own = match &facts.status {
        Some(status) => status.id == host.id,
        // Its pages do not answer: what it was started with tells.
        None => {
            let wanted = crate::render::node_toml(wish.inventory, host, uuid)?;
            let wanted = digest::of_bytes(wanted.as_bytes());
            process.config.as_ref() == Some(&wanted) || facts.identity().is_some()
        }
    };
    Ok((!is_own).then_some(process.pid))
}
