//! Members come and go: what the shell does about it. The admin socket's `member` verbs become
//! changes that the replica proposes; the links follow the configuration that rules; a node that was
//! removed, and is no longer needed, leaves a tombstone in its data directory and stops.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use config::{MemberConfig, Members};
use paxos::{BatchId, Change, Configuration, Member, NodeId, Now, Role, Rules, Slot};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;

use crate::admin::{AdminReply, Refusal};
use crate::boot;
use crate::clock;
use crate::identity::hex;
use crate::shell::Core;
use crate::small_files::{SmallFile, SmallFileError};

/// What a removed node leaves behind.
const TOMBSTONE: SmallFile = SmallFile { name: "tombstone", version: 2 };
/// How long links to a removed member stay, so that it hears of its removal.
const DEPARTING_US: u64 = 60_000_000;

/// What an administrator may ask about members. Members are named by id or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberCommand {
    List,
    /// The newest configuration known here, as a `members.toml`, with its number and whom it lacks.
    Export,
    /// What another node has exported: told by hand to a node that nobody else may tell.
    Import(Box<Exported>),
    /// Only where it is to replace that voter it may have its name and addresses.
    Add {
        new: Box<NewMember>,
        in_place_of: Option<String>,
        /// The newest store version that its program can do, as far as it says.
        store_version_newest: Option<u32>,
    },
    Promote(String),
    Remove(String),
    Replace {
        old: String,
        new: String,
    },
    /// These are the voters from now on; every other voter leaves.
    Voters(Vec<String>),
    /// Asks a node that this one may not know for what it lacks.
    Meet(Box<NewMember>),
    /// The same members by other rules.
    Rules(Rules),
}

/// A configuration on its way from one node to another through an administrator's hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exported {
    pub number: u32,
    /// Former members.
    pub removed: Vec<u32>,
    pub members_toml: String,
}

/// What is new in it to a node.
#[derive(Debug, PartialEq, Eq)]
enum News {
    None,
    Members,
    /// That it has to go: even if it knows that already. It may wait for the word of a quorum that
    /// does not let it in any more.
    Removed,
}

impl Exported {
    fn news(&self, own: NodeId, known: u32) -> News {
        if self.removed.contains(&own.0) {
            return News::Removed;
        }
        if self.number > known { News::Members } else { News::None }
    }
}

/// A node as its `paxos-node identity` and the inventory describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMember {
    pub id: NodeId,
    pub member: Member,
}

impl MemberCommand {
    pub const USAGE: [&str; 10] = [
        "list",
        "export",
        "import EXPORTED",
        "add ID NAME INCARNATION PUBLIC_KEY PEER CLIENT HTTP [IN_PLACE_OF] [--store-version-newest N]",
        "promote MEMBER",
        "remove MEMBER",
        "replace OLD NEW",
        "voters MEMBER…",
        "meet ID NAME INCARNATION PUBLIC_KEY PEER CLIENT HTTP",
        "rules [--lease-ms N] [--drift-percent N] [--store-version N]",
    ];

    pub fn parse(args: &[String]) -> Result<MemberCommand, String> {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["list"] => Ok(MemberCommand::List),
            ["export"] => Ok(MemberCommand::Export),
            ["import", text] => {
                let exported = serde_json::from_str(text)
                    .map_err(|error| format!("that is not what `member export` prints: {error}"))?;
                Ok(MemberCommand::Import(Box::new(exported)))
            }
            ["add", rest @ ..] => {
                let (rest, store_version_newest) = match rest {
                    [rest @ .., "--store-version-newest", newest] => (rest, Some(number(newest)?)),
                    rest => (rest, None),
                };
                let (words, in_place_of) = match rest.split_last() {
                    Some((old, words)) if words.len() == 7 => (words, Some((*old).to_owned())),
                    _ => (rest, None),
                };
                let new = Box::new(NewMember::parse(words)?);
                Ok(MemberCommand::Add { new, in_place_of, store_version_newest })
            }
            ["meet", rest @ ..] => Ok(MemberCommand::Meet(Box::new(NewMember::parse(rest)?))),
            ["promote", node] => Ok(MemberCommand::Promote((*node).to_owned())),
            ["remove", node] => Ok(MemberCommand::Remove((*node).to_owned())),
            ["replace", old, new] => {
                Ok(MemberCommand::Replace { old: (*old).to_owned(), new: (*new).to_owned() })
            }
            ["voters", first, rest @ ..] => {
                let all = std::iter::once(first).chain(rest);
                Ok(MemberCommand::Voters(all.map(|node| (*node).to_owned()).collect()))
            }
            ["rules", rest @ ..] => Ok(MemberCommand::Rules(parse_rules(rest)?)),
            _ => Err(format!("member needs one of: {}", Self::USAGE.join("; "))),
        }
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("`{text}` is not a whole number"))
}

/// L is bounded as in the file; whether all of it goes with the rest is said by the leader.
fn parse_rules(words: &[&str]) -> Result<Rules, String> {
    let usage = || format!("at least one rule is needed: {}", MemberCommand::USAGE[9]);
    let mut rules = Rules::default();
    for pair in words.chunks(2) {
        match *pair {
            ["--lease-ms", text] => {
                let lease_ms = number(text)?;
                if !(10..=10_000).contains(&lease_ms) {
                    return Err(format!("--lease-ms {lease_ms} is out of range: 10 to 10000"));
                }
                rules.lease_us = Some(1_000 * u64::from(lease_ms));
            }
            ["--drift-percent", text] => rules.drift_percent = Some(number(text)?),
            ["--store-version", text] => rules.store_version = Some(number(text)?),
            _ => return Err(usage()),
        }
    }
    if rules == Rules::default() { Err(usage()) } else { Ok(rules) }
}

impl NewMember {
    fn parse(words: &[&str]) -> Result<NewMember, String> {
        let [id, name, incarnation, key, peer, client, http] = words else {
            return Err(format!("seven words are needed: {}", MemberCommand::USAGE[3]));
        };
        let id = id.parse().ok().filter(|id| *id > 0);
        let id = id.ok_or("the id must be a number above 0")?;
        let incarnation = u64::from_str_radix(incarnation, 16)
            .map_err(|_| format!("the incarnation `{incarnation}` is not 16 hex digits"))?;
        let public_key = match *key {
            "-" => Vec::new(),
            key => crate::identity::parse_hex(key)
                .filter(|key| key.len() == 32)
                .ok_or_else(|| format!("the public key `{key}` is not 64 hex digits (or -)"))?,
        };
        for address in [peer, client, http] {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none_or(|port| port == 0) {
                return Err(format!("the address `{address}` is not host:port"));
            }
        }
        let member = Member {
            name: (*name).to_owned(),
            role: Role::Learner,
            incarnation,
            public_key,
            peer_address: (*peer).to_owned(),
            client_address: (*client).to_owned(),
            http_address: (*http).to_owned(),
        };
        Ok(NewMember { id: NodeId(id), member })
    }
}

/// What became of a change that was proposed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Chosen {
        number: u32,
        slot: Slot,
    },
    /// Surely not done.
    Lost,
    /// Its slot was passed by a snapshot.
    Unknown,
}

/// The shell's memory of changes.
#[derive(Debug, Default)]
pub struct Membership {
    /// Askers that wait, by the id of their change.
    waiting: HashMap<BatchId, oneshot::Sender<AdminReply>>,
    /// The configuration that the links follow.
    followed: Configuration,
    /// Former members that may still have to be told, until then.
    departing: BTreeMap<NodeId, Member>,
    departing_until_us: u64,
    /// Nodes that were named in the file of the first start, or by an administrator: whom a node asks
    /// that does not know the members yet.
    introduced: BTreeMap<NodeId, Member>,
    /// The configuration that removed this node, once nobody needs it any more.
    pub removed: Option<u32>,
    /// The configuration of which it was said where this node's file differs.
    said_of: Option<u32>,
}

impl Membership {
    pub fn new(configuration: &Configuration, initial: Configuration) -> Membership {
        Membership {
            followed: configuration.clone(),
            introduced: initial.members,
            ..Membership::default()
        }
    }

    /// Takes note of the configuration that rules now. True when links have to change.
    pub fn follow(&mut self, now: Now, configuration: &Configuration) -> bool {
        let departed = !self.departing.is_empty() && now.mono_us >= self.departing_until_us;
        if departed {
            self.departing.clear();
        }
        if configuration.number == self.followed.number {
            return departed;
        }
        // Several changes may have been learned in one turn.
        let mut former = std::mem::replace(&mut self.followed, configuration.clone()).members;
        former.retain(|id, _| !configuration.contains(*id));
        self.departing.extend(former);
        self.departing_until_us = now.mono_us + DEPARTING_US;
        true
    }

    /// An administrator names nodes that may know more. Links have to change.
    pub fn introduce(&mut self, members: impl IntoIterator<Item = (NodeId, Member)>) {
        self.introduced.extend(members);
    }

    /// Whom links may lead to: the members; for a while those who have just left; and whomever this node
    /// was told of, at its first start or by an administrator, unless that node has left since. (So a
    /// node finds the others that does not know the members yet, or not any more: PITFALLS 113.)
    pub fn reachable(&self, own: NodeId, configuration: &Configuration) -> Configuration {
        let mut reachable = configuration.clone();
        let strangers =
            self.introduced.iter().filter(|(id, _)| !configuration.removed.contains(id));
        for (id, member) in self.departing.iter().chain(strangers) {
            let is_taken = |other: &Member| {
                !member.public_key.is_empty() && other.public_key == member.public_key
            };
            if *id != own && !reachable.members.values().any(is_taken) {
                reachable.members.entry(*id).or_insert_with(|| member.clone());
            }
        }
        reachable
    }
}

impl Core {
    /// After each turn: links follow the configuration, askers hear what became of their change.
    pub(crate) fn follow_configuration(&mut self, now: Now) {
        if self.membership.follow(now, self.node.configuration()) {
            self.remember_lease();
            self.say_what_differs();
            self.update_links();
        }
        for (id, verdict) in self.node.verdicts.drain(..) {
            let Some(reply) = self.membership.waiting.remove(&id) else { continue };
            let answer = match verdict {
                Verdict::Chosen { number, slot } => {
                    Ok(json!({ "configuration": number, "slot": slot.0.to_string() }))
                }
                Verdict::Lost => Err(Refusal::for_now(
                    "not done: the leader changed before it was chosen; look at `member list` and \
                     ask again",
                )),
                Verdict::Unknown => {
                    Err(Refusal::for_now("its fate is not known here: look at `member list`"))
                }
            };
            // An asker that has gone away does not need the answer.
            let _ = reply.send(answer);
        }
    }

    /// Where this node's file differs from the configuration that rules, in words.
    pub(crate) fn file_differs(&self) -> Vec<String> {
        let file = &self.config.behaviour;
        let Some(terms) = self.node.configuration().lease_terms else { return Vec::new() };
        let ruling_ms = terms.lease_us / 1_000;
        let percent = terms.drift_percent;
        let mut words = Vec::new();
        if file.lease_ms != ruling_ms {
            words.push(format!("lease_ms = {}, the configuration says {ruling_ms}", file.lease_ms));
        }
        if file.drift_percent != percent {
            let own = file.drift_percent;
            words.push(format!("drift_percent = {own}, the configuration says {percent}"));
        }
        words
    }

    /// Says it once for each configuration.
    pub(crate) fn say_what_differs(&mut self) {
        let number = self.node.configuration().number;
        if self.membership.said_of.replace(number) == Some(number) {
            return;
        }
        for what in self.file_differs() {
            tracing::warn!("this node's file has {what}, which rules: see `paxosctl member rules`");
        }
    }

    /// The configuration may allow longer leases than any before. It is on disk itself before any
    /// grant by it leaves; this outlives it.
    fn remember_lease(&self) {
        if !self.node.replica.takes_part_in_leases() {
            return;
        }
        let lease_us = self.node.replica.lease_terms().lease_us;
        if let Err(error) = boot::longest_lease_us(&self.config.data_dir, lease_us) {
            tracing::error!("the longest lease is not remembered: {error:#}");
        }
    }

    fn update_links(&mut self) {
        let configuration = self.node.configuration();
        let reachable = self.membership.reachable(self.identity.id, configuration);
        if let Err(error) = self.links.update_members(&reachable) {
            tracing::error!(number = configuration.number, "links stay as they are: {error}");
        }
        self.meet_peers(&reachable);
    }

    /// Answers one `member` request; a change is answered once its fate is known.
    pub(crate) fn administer_members(
        &mut self,
        command: MemberCommand,
        reply: oneshot::Sender<AdminReply>,
    ) {
        let now = clock::now();
        let change = match self.change_of(now, command) {
            Ok(Asked::Change(change)) => change,
            Ok(Asked::Answer(answer)) => {
                let _ = reply.send(Ok(answer));
                return;
            }
            Err(error) => {
                let _ = reply.send(Err(Refusal::for_good(error)));
                return;
            }
        };
        match self.node.change(now, &change) {
            Ok(id) => {
                self.membership.waiting.insert(id, reply);
            }
            Err(refusal) => {
                let _ = reply.send(Err(Refusal::new(refusal.to_string(), refusal.passes())));
            }
        }
    }

    fn change_of(&mut self, now: Now, command: MemberCommand) -> Result<Asked, String> {
        let change = match command {
            MemberCommand::List => {
                let configuration = self.status(now).configuration;
                return Ok(Asked::Answer(json!(configuration)));
            }
            MemberCommand::Export => return Ok(Asked::Answer(json!(self.exported()))),
            MemberCommand::Import(exported) => return self.import(&exported).map(Asked::Answer),
            MemberCommand::Meet(new) => {
                let peer = new.id;
                self.introduce([(peer, new.member)].into())?;
                self.node.ask(peer);
                return Ok(Asked::Answer(json!({ "asks": peer.0 })));
            }
            MemberCommand::Rules(rules) => Change::Rules(rules),
            MemberCommand::Add { new, in_place_of, store_version_newest } => {
                let old = in_place_of.map(|old| self.member_id(&old)).transpose()?;
                let mut next = self.node.configuration().clone();
                next.members.entry(new.id).or_insert_with(|| new.member.clone());
                self.links.check_members(&next).map_err(|error| error.to_string())?;
                Change::Add {
                    node: new.id,
                    member: new.member,
                    in_place_of: old,
                    store_version: store_version_newest,
                }
            }
            MemberCommand::Promote(node) => Change::Promote(self.member_id(&node)?),
            MemberCommand::Remove(node) => Change::Remove(self.member_id(&node)?),
            MemberCommand::Replace { old, new } => {
                Change::Replace { old: self.member_id(&old)?, new: self.member_id(&new)? }
            }
            MemberCommand::Voters(nodes) => {
                let ids = nodes.iter().map(|node| self.member_id(node));
                Change::Voters(ids.collect::<Result<_, _>>()?)
            }
        };
        Ok(Asked::Change(change))
    }

    /// A member by its name or its id.
    fn member_id(&self, text: &str) -> Result<NodeId, String> {
        let members = &self.node.configuration().members;
        let named = members.iter().filter(|(_, member)| member.name == text);
        let named: Vec<NodeId> = named.map(|(id, _)| *id).collect();
        if let [first, second, ..] = named[..] {
            // One of them is to take the other's place.
            return Err(format!(
                "{first} and {second} are both called `{text}`: say which by its id"
            ));
        }
        let by_name = named.first().copied();
        let by_id = || text.trim_start_matches('n').parse().ok().map(NodeId);
        by_name.or_else(by_id).ok_or_else(|| format!("no member is called `{text}`"))
    }

    fn exported(&self) -> Exported {
        let configuration = self.node.configuration();
        Exported {
            number: configuration.number,
            removed: configuration.removed.iter().map(|id| id.0).collect(),
            members_toml: self.members_file().to_toml(),
        }
    }

    /// A node may have slept until nobody that it knows is a member any more, or until no member
    /// lets it in any more. Told who they are it asks them for the rest; told that it was removed
    /// it goes: whoever may open this socket could as well delete its data.
    fn import(&mut self, exported: &Exported) -> Result<serde_json::Value, String> {
        let members = Members::parse(&exported.members_toml, "the imported members");
        let members = members.map_err(|problems| problems.to_string())?;
        let own = self.identity.cluster.to_string();
        if !members.cluster_uuid.eq_ignore_ascii_case(&own) {
            let theirs = members.cluster_uuid;
            return Err(format!(
                "these are the members of cluster {theirs}, this node is of {own}"
            ));
        }
        let known = self.node.configuration().number;
        let number = exported.number;
        match exported.news(self.identity.id, known) {
            News::Removed => {
                self.membership.removed = Some(number);
                return Ok(json!({ "removed_by": number, "news": true }));
            }
            News::None => return Ok(json!({ "configuration": known, "news": false })),
            News::Members => {}
        }
        let told = boot::configuration(&members).map_err(|error| format!("{error:#}"))?;
        self.introduce(told.members)?;
        Ok(json!({ "configuration": known, "told_of": number, "news": true }))
    }

    /// Links to nodes that the log does not name (yet). One that no link can lead to is refused here:
    /// among the others it would keep every later change of members from the links.
    fn introduce(&mut self, members: BTreeMap<NodeId, Member>) -> Result<(), String> {
        let strangers = Configuration { members, ..Configuration::default() };
        self.links.check_members(&strangers).map_err(|error| error.to_string())?;
        self.membership.introduce(strangers.members);
        self.update_links();
        Ok(())
    }

    fn members_file(&self) -> Members {
        let configuration = self.node.configuration();
        let members = configuration.members.iter().map(|(id, member)| MemberConfig {
            id: id.0,
            name: member.name.clone(),
            role: match member.role {
                Role::Voter => config::Role::Voter,
                Role::Learner => config::Role::Learner,
            },
            incarnation: format!("{:016x}", member.incarnation),
            public_key: hex(&member.public_key),
            peer: member.peer_address.clone(),
            client: member.client_address.clone(),
            http: member.http_address.clone(),
        });
        Members {
            cluster_uuid: self.identity.cluster.to_string(),
            members: members.collect(),
            ..Members::default()
        }
    }
}

enum Asked {
    Change(Change),
    Answer(serde_json::Value),
}

#[derive(Debug, thiserror::Error)]
pub enum TombstoneError {
    #[error(
        "{path} says that this node was removed from the cluster: {text}. It does not start again, \
         and its id is never used again. Wipe its data directory; to bring the host back, format it \
         under a new id and `paxosctl member add` it"
    )]
    Removed { path: PathBuf, text: String },
    #[error(transparent)]
    Unreadable(#[from] SmallFileError),
}

/// A node with a tombstone does not start, whatever release has written it.
pub fn refuse_tombstone(data_dir: &Path) -> Result<(), TombstoneError> {
    match TOMBSTONE.read(data_dir)? {
        Some(text) => Err(TombstoneError::Removed { path: TOMBSTONE.path(data_dir), text }),
        None => Ok(()),
    }
}

/// Durable when it returns.
pub fn write_tombstone(data_dir: &Path, number: u32) -> std::io::Result<()> {
    TOMBSTONE.write(data_dir, &format!("removed by configuration {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that slept through its removal and heard of it from one peer may be refused by all who
    /// could tell it that a quorum knows: an administrator's word lets it go all the same.
    #[test]
    fn a_removed_node_is_told_to_go_though_it_knows() {
        let exported = Exported { number: 7, removed: vec![5], members_toml: String::new() };
        assert_eq!(exported.news(NodeId(5), 6), News::Removed);
        assert_eq!(exported.news(NodeId(5), 7), News::Removed);
        assert_eq!(exported.news(NodeId(4), 7), News::None);
        assert_eq!(exported.news(NodeId(4), 6), News::Members);
    }
}
