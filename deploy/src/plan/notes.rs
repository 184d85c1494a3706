//! Where the live membership and the inventory differ. The log is right; each note names the command
//! or the lines that mend it.

use std::collections::BTreeMap;

use monitoring::status::{Member, MemberRole};

use super::{Standing, membership, standing};
use crate::facts::Facts;

pub(super) fn on_membership(
    inventory: &hosts::Inventory,
    facts: &BTreeMap<u32, Facts>,
) -> Vec<String> {
    let mut notes = Vec::new();
    let live = membership(facts);
    for host in &inventory.hosts {
        let (name, id) = (&host.name, host.id);
        match standing(id, facts) {
            Standing::Newcomer if live.is_some() => notes.push(format!(
                "{name} (id {id}) is in the inventory, but no member of the cluster: \
                 `paxosctl member add {name}`"
            )),
            Standing::Newcomer => notes.push(format!(
                "{name} (id {id}) was never a member, as far as the disks tell: once the others \
                 run, `paxosctl member add {name}`"
            )),
            Standing::Removed => notes.push(format!(
                "{name} (id {id}) was removed from the cluster, and its id is never used again: \
                 delete its [[host]] from the inventory"
            )),
            Standing::Member => {
                let member = live.and_then(|live| live.members.iter().find(|m| m.id == id));
                notes.extend(member.iter().flat_map(|member| differences(host, member)));
            }
        }
    }
    for member in live.iter().flat_map(|live| &live.members) {
        if inventory.host_by_id(member.id).is_none() {
            let Member { name, id, .. } = member;
            notes.push(format!(
                "{name} (id {id}) is a member of the cluster, but not in the inventory: write its \
                 [[host]] there, or `paxosctl member remove {name}`"
            ));
        }
    }
    notes
}

fn differences(host: &hosts::Host, member: &Member) -> Vec<String> {
    let name = &host.name;
    let mut notes = Vec::new();
    match (member.role, host.role) {
        (MemberRole::Learner, hosts::Role::Voter) => notes.push(format!(
            "{name} is a learner in the cluster, a voter in the inventory: \
             `paxosctl member promote {name}`"
        )),
        (MemberRole::Voter, hosts::Role::Learner) => notes.push(format!(
            "{name} is a voter in the cluster, a learner in the inventory: a voter never becomes a \
             learner again; write role = \"voter\" there, or `paxosctl member remove {name}`"
        )),
        _ => {}
    }
    let endpoints = [
        ("peers", &member.peer, host.peer_endpoint()),
        ("clients", &member.client, host.client_endpoint()),
    ];
    for (who, live, wished) in endpoints {
        // An endpoint that is not reported is not compared.
        if !live.is_empty() && *live != wished {
            notes.push(format!(
                "{who} dial {name} at {live}, the inventory says {wished}: a member keeps its \
                 addresses; put them back, or replace the node under a new id"
            ));
        }
    }
    notes
}
