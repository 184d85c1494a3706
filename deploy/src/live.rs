//! What the cluster itself says, now: which nodes run, who leads, and who is a member by the log.
//! The inventory is a wish; about membership the log is right.
//!
//! Whatever changes members is asked of the leader, over the admin socket of its host. Leadership
//! moves, answers get lost: so the question is never "was I answered?" but "is it so by now?", and
//! it is asked again until it is, within a bound.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use config::Members;
use monitoring::status::{Configuration, NodeStatus, Role};
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::fleet::{Fleet, Member};
use crate::ssh::quote;
use crate::supervisor;

/// For one answer of a node's admin socket; the node itself gives up after ten seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(250);
/// What the cluster refuses for longer than this, it means.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// An election takes well under a second; a cluster without a leader for so long does not serve.
const LEADERLESS_FOR: Duration = Duration::from_secs(20);
/// After a change, for all voters to be seen where the log is. A dead one is not waited for longer.
const WHOLE_WITHIN: Duration = Duration::from_secs(10);

/// A host as it was seen at one look.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// No node of ours runs there.
    Exited,
    /// It runs, and its pages do not answer (yet).
    Silent,
    Runs(Box<NodeStatus>),
}

/// All hosts of a fleet that could be looked at, at the same instant.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub hosts: Vec<(Member, Seen)>,
    pub errors: Vec<Error>,
}

/// Looks at the hosts that `which` admits.
pub async fn look(fleet: &Fleet, which: impl Fn(&hosts::Host) -> bool) -> Look {
    let outcomes = fleet.each(which, |member| async move { look_at(&member).await }).await;
    let mut look = Look::default();
    for (member, outcome) in outcomes {
        match outcome {
            Ok(seen) => look.hosts.push((member, seen)),
            Err(error) => look.errors.push(error),
        }
    }
    look
}

async fn look_at(member: &Member) -> Result<Seen> {
    let script = format!(
        r#"{}if ! node_find; then echo exited; exit 0; fi
timeout 2 "/proc/$pid/exe" get /status --config "$d/node.toml" 2>/dev/null || echo silent
"#,
        supervisor::prelude(&member.host)
    );
    let said = member.session.run("ask the node how it is", &script).await?;
    if said.trim() == "exited" {
        return Ok(Seen::Exited);
    }
    Ok(serde_json::from_str(&said).map_or(Seen::Silent, |status| Seen::Runs(Box::new(status))))
}

impl Look {
    pub fn statuses(&self) -> impl Iterator<Item = &NodeStatus> {
        self.hosts.iter().filter_map(|(_, seen)| seen.status())
    }

    /// What each node says, by its own id: after a host was given a new id, its former node may
    /// still run there.
    pub fn by_node(&self) -> BTreeMap<u32, Heard<'_>> {
        by_node(self.hosts.iter().map(|(member, seen)| (member.host.id, seen.heard())))
    }

    /// The node that leads the highest ballot, with the way to its host.
    pub fn leader(&self) -> Option<(&Member, &NodeStatus)> {
        let running = self.hosts.iter().filter_map(|(member, seen)| Some((member, seen.status()?)));
        running.filter(|(_, s)| s.role == Role::Leader).max_by_key(|(_, s)| s.ballot)
    }

    /// The newest membership that any node knows.
    pub fn configuration(&self) -> Option<&Configuration> {
        newest(self.statuses())
    }
}

/// What was heard of a node at one look, for those who judge what it may be good for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Heard<'a> {
    /// It does not run.
    Exited,
    /// It runs and its pages do not answer: it may promise and accept all the same.
    Silent,
    Says(&'a NodeStatus),
}

impl<'a> Heard<'a> {
    fn status(self) -> Option<&'a NodeStatus> {
        match self {
            Heard::Says(status) => Some(status),
            Heard::Exited | Heard::Silent => None,
        }
    }
}

/// The statuses among what was heard.
pub fn statuses<'a>(heard: &BTreeMap<u32, Heard<'a>>) -> impl Iterator<Item = &'a NodeStatus> {
    heard.values().filter_map(|heard| heard.status())
}

impl Seen {
    fn heard(&self) -> Heard<'_> {
        match self {
            Seen::Exited => Heard::Exited,
            Seen::Silent => Heard::Silent,
            Seen::Runs(status) => Heard::Says(status),
        }
    }

    pub fn status(&self) -> Option<&NodeStatus> {
        match self {
            Seen::Runs(status) => Some(status),
            Seen::Exited | Seen::Silent => None,
        }
    }
}

/// What was heard, keyed by the node that speaks; hosts where nothing speaks by their id in the
/// inventory.
pub fn by_node<'a>(seen: impl Iterator<Item = (u32, Heard<'a>)>) -> BTreeMap<u32, Heard<'a>> {
    let mut nodes = BTreeMap::new();
    for (host, heard) in seen {
        match heard {
            Heard::Says(status) => drop(nodes.insert(status.id, heard)),
            Heard::Exited | Heard::Silent => drop(nodes.entry(host).or_insert(heard)),
        }
    }
    nodes
}

pub fn newest<'a>(statuses: impl Iterator<Item = &'a NodeStatus>) -> Option<&'a Configuration> {
    let configurations = statuses.map(|status| &status.configuration);
    configurations.filter(|c| !c.members.is_empty()).max_by_key(|c| c.number)
}

/// What a node has said instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub said: String,
    /// Asked again, it would refuse again.
    pub is_final: bool,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.said)
    }
}

/// How `paxos-node admin` ends after a refusal that is final.
const EXIT_REFUSED: i32 = 3;

/// Asks a node over its admin socket. The inner error is the node's own refusal.
pub async fn ask(member: &Member, words: &[&str]) -> Result<Result<Value, Refusal>> {
    let doing = format!("ask the node: {}", words[..words.len().min(2)].join(" "));
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    let script = format!(
        r#"{}if ! node_find; then echo "error: no node runs there" >&2; exit 1; fi
"/proc/$pid/exe" --config "$d/node.toml" admin {}
"#,
        supervisor::prelude(&member.host),
        words.join(" ")
    );
    let output = member.session.try_run(&doing, &script, ANSWER_WITHIN).await?;
    if output.status != 0 {
        let said = output.stderr.trim();
        let said = said.strip_prefix("error: ").unwrap_or(said).to_owned();
        return Ok(Err(Refusal { said, is_final: output.status == EXIT_REFUSED }));
    }
    serde_json::from_str(&output.stdout)
        .map(Ok)
        .map_err(|cause| Error::new(Kind::Remote, doing).on(&*member.host.name).because(cause))
}

/// Brings the membership to where `is_so` holds, by asking the leader for it as often as it takes;
/// `words` sees the leader's status. Answers with the status of the leader that says it is so.
pub async fn bring_about(
    fleet: &Fleet,
    doing: &str,
    mut is_so: impl FnMut(&Configuration) -> bool,
    words: impl Fn(&NodeStatus) -> Vec<String>,
) -> Result<NodeStatus> {
    let mut refusal: Option<(Instant, Refusal)> = None;
    let mut leaderless: Option<Instant> = None;
    loop {
        let now = look(fleet, |_| true).await;
        let Some((leader, status)) = now.leader() else {
            let since = leaderless.get_or_insert_with(Instant::now);
            if since.elapsed() > LEADERLESS_FOR {
                return Err(no_leader(&now, doing));
            }
            tokio::time::sleep(BETWEEN_QUESTIONS).await;
            continue;
        };
        leaderless = None;
        if is_so(&status.configuration) && !status.configuration.change_under_way {
            return Ok(status.clone());
        }
        // What is final is believed once another look has shown that it was not our own doing: an
        // answer may get lost, and the pages are a moment behind.
        let believed = |(since, refusal): &&(Instant, Refusal)| {
            refusal.is_final || since.elapsed() > REFUSED_FOR
        };
        if let Some((_, refusal)) = refusal.as_ref().filter(believed) {
            return Err(Error::new(Kind::Guard, doing)
                .on(&*leader.host.name)
                .because(refusal)
                .hint("look: `paxosctl status` and `paxosctl member list`"));
        }
        let words = words(status);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match ask(leader, &words).await? {
            Ok(_) => {
                refusal = None;
                continue;
            }
            // What has been overtaken by another leader or change is no refusal of ours.
            Err(said) => {
                let since = refusal.map_or_else(Instant::now, |(since, _)| since);
                refusal = Some((since, said));
            }
        }
        tokio::time::sleep(BETWEEN_QUESTIONS).await;
    }
}

/// Nothing about members can be changed without a leader.
pub fn no_leader(look: &Look, doing: &str) -> Error {
    let mut error = Error::new(Kind::Unavailable, doing);
    let known = look.statuses().find_map(|s| Some((s.leader?, &s.configuration)));
    error = match known {
        Some((id, configuration)) => error
            .because(format!(
                "{} leads, and no host of the inventory that is reached runs it",
                configuration.name_of(id)
            ))
            .hint("the inventory must name its host: `paxosctl member list`"),
        None => error
            .because("no node that is reached leads: the cluster does not serve")
            .hint("look: `paxosctl status`; start what is down: `paxosctl up`"),
    };
    error
}

/// The newest membership with everything that a new node needs to know of it, from the leader.
pub async fn export(leader: &Member) -> Result<Members> {
    let doing = "read the membership from the leader";
    let error = || Error::new(Kind::Remote, doing).on(&*leader.host.name);
    let answer = ask(leader, &["member", "export"]).await?.map_err(|said| error().because(said))?;
    let text = answer["members_toml"].as_str().unwrap_or_default();
    // Not judged as a file that a cluster begins with: while a machine changes its id, two members
    // have one address.
    toml::from_str(text).map_err(|cause| error().because(cause))
}

/// Leadership that was handed over.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    pub from: String,
    pub to: String,
    /// As the former leader measured it; `None` when it lay with `to` before we asked.
    pub took_ms: Option<u64>,
}

/// Lets another node lead: `to`, or the best voter; but never `not`.
pub async fn hand_over(fleet: &Fleet, to: Option<u32>, not: Option<u32>) -> Result<Moved> {
    let doing = "hand leadership over";
    let began = Instant::now();
    let mut first: Option<String> = None;
    loop {
        let now = look(fleet, |_| true).await;
        let refusal = match now.leader() {
            None if began.elapsed() > LEADERLESS_FOR => return Err(no_leader(&now, doing)),
            None => None,
            Some((leader, status)) => {
                let name = status.configuration.name_of(status.id);
                let from = first.get_or_insert_with(|| name.clone()).clone();
                let is_there = match (to, not) {
                    (Some(to), _) => status.id == to,
                    (None, Some(not)) => status.id != not,
                    (None, None) => from != name,
                };
                if is_there {
                    return Ok(Moved { from, to: name, took_ms: None });
                }
                let id = to.map(|to| to.to_string());
                let mut words = vec!["transfer"];
                words.extend(id.as_deref());
                match ask(leader, &words).await? {
                    Ok(answer) => {
                        let leads = answer["leader"].as_u64().and_then(|id| id.try_into().ok());
                        if to.is_none_or(|to| leads == Some(to)) {
                            let to = leads.map(|id| status.configuration.name_of(id));
                            let took_ms = answer["took_us"].as_u64().map(|us| us.div_ceil(1_000));
                            return Ok(Moved { from, to: to.unwrap_or_default(), took_ms });
                        }
                        None
                    }
                    Err(said) => Some((leader.host.name.clone(), said)),
                }
            }
        };
        let is_over =
            |(_, refusal): &(String, Refusal)| refusal.is_final || began.elapsed() > REFUSED_FOR;
        if let Some((leader, said)) = refusal.filter(is_over) {
            return Err(Error::new(Kind::Guard, doing)
                .on(leader)
                .because(said)
                .hint("look: `paxosctl member list`; the leader goes on as before"));
        }
        tokio::time::sleep(BETWEEN_QUESTIONS).await;
    }
}

/// How many of the voters could carry the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Redundancy {
    pub caught_up: usize,
    pub voters: usize,
    pub has_leader: bool,
    /// The others, and why they do not count.
    pub missing: Vec<(String, String)>,
}

impl Redundancy {
    /// Voters that may still fail before the quorum is lost.
    pub fn headroom(&self) -> usize {
        let quorum = self.voters / 2 + 1;
        if self.has_leader { self.caught_up.saturating_sub(quorum) } else { 0 }
    }
}

/// Looks until every voter has caught up, or for a while: some may be dead.
pub async fn redundancy(fleet: &Fleet) -> Redundancy {
    let began = Instant::now();
    let mut goal = None;
    loop {
        let look = look(fleet, |_| true).await;
        let voters = crate::guard::voters(&[], &look.by_node(), 0, goal);
        let counts =
            |voter: &&crate::guard::Voter| voter.standing == crate::guard::Standing::CaughtUp;
        let missing = voters.iter().filter(|voter| !counts(voter));
        let found = Redundancy {
            caught_up: voters.iter().filter(counts).count(),
            voters: voters.len(),
            has_leader: look.leader().is_some(),
            missing: missing.map(|v| (v.name.clone(), v.standing.to_string())).collect(),
        };
        let whole = found.has_leader && found.caught_up == found.voters && goal.is_some();
        if whole || began.elapsed() > WHOLE_WITHIN {
            return found;
        }
        goal = look.statuses().map(|status| status.chosen_slot).max();
        tokio::time::sleep(BETWEEN_QUESTIONS).await;
    }
}
