//! What a host of the inventory is to the cluster, by the log, or, where no node runs that could say
//! it, by what lies on the disks.

use std::collections::{BTreeMap, BTreeSet};

use monitoring::status::Configuration;

use crate::facts::{Data, Facts};
use crate::live;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Member,
    /// In the inventory only: it comes in by `member add`, or not at all.
    Newcomer,
    /// It was a member, and its id is spent.
    Removed,
}

/// The newest membership that any node reports.
pub fn membership(facts: &BTreeMap<u32, Facts>) -> Option<&Configuration> {
    live::newest(facts.values().filter_map(|facts| facts.status.as_ref()))
}

/// Before a cluster has begun, all hosts of its inventory belong to it.
pub(super) fn has_begun(facts: &BTreeMap<u32, Facts>) -> bool {
    facts.values().any(|facts| facts.files.contains_key("members.toml") || facts.process.is_some())
}

/// Hosts without facts are taken for members: nothing is done to them.
pub fn standing(id: u32, facts: &BTreeMap<u32, Facts>) -> Standing {
    let found = facts.get(&id);
    let own_tombstone = found.is_some_and(|f| f.is_removed && holds(f, id));
    match membership(facts) {
        Some(live) if live.members.iter().any(|member| member.id == id) => Standing::Member,
        Some(live) if live.removed.contains(&id) || own_tombstone => Standing::Removed,
        Some(_) => Standing::Newcomer,
        None if own_tombstone => Standing::Removed,
        None if !has_begun(facts) || found.is_none() => Standing::Member,
        None => {
            let enrolled = found.is_some_and(|facts| facts.files.contains_key("members.toml"));
            let named: BTreeSet<u32> = facts.values().flat_map(|f| f.enrolled.clone()).collect();
            if enrolled || named.contains(&id) { Standing::Member } else { Standing::Newcomer }
        }
    }
}

/// Does the disk belong to node `id`? One that cannot be read may.
fn holds(facts: &Facts, id: u32) -> bool {
    match &facts.data {
        Data::Identity(identity) => identity.id == id,
        Data::Blank => false,
        Data::Unread { .. } | Data::Broken { .. } => true,
    }
}
