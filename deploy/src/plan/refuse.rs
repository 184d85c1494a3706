//! What a plan refuses to touch, each with its mend.

use std::collections::BTreeMap;

use super::Wish;
use crate::error::{Error, Kind, Result};
use crate::facts::{Data, Facts, Identity};

/// A cluster begins with all its nodes: the first membership names every disk.
pub(super) fn to_begin_without(wish: &Wish<'_>, facts: &BTreeMap<u32, Facts>) -> Result<()> {
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
pub(super) fn half_wiped(inventory: &hosts::Inventory, facts: &BTreeMap<u32, Facts>) -> Result<()> {
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
pub(super) fn unreadable_data(hosts: &[&hosts::Host], facts: &BTreeMap<u32, Facts>) -> Result<()> {
    for host in hosts {
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
                    .hint(format!(
                        "nothing was touched; `paxosctl logs` may say more. A node whose data is lost comes back under a new id only: `paxosctl member replace {} NEW`",
                        host.name
                    )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The uuid that all formatted hosts share, if any is formatted.
pub(super) fn one_cluster(
    hosts: &[&hosts::Host],
    facts: &BTreeMap<u32, Facts>,
) -> Result<Option<String>> {
    let mut first: Option<(&hosts::Host, &Identity)> = None;
    for host in hosts.iter().copied() {
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
pub(super) fn lost_disks(
    inventory: &hosts::Inventory,
    members: &[&hosts::Host],
    facts: &BTreeMap<u32, Facts>,
) -> Result<()> {
    let begun = |host: &&hosts::Host| {
        facts.get(&host.id).is_some_and(|facts| {
            facts.files.contains_key("members.toml") || facts.process.is_some()
        })
    };
    let Some(witness) = inventory.hosts.iter().find(begun) else { return Ok(()) };
    let blank =
        |host: &&hosts::Host| facts.get(&host.id).is_some_and(|facts| facts.data == Data::Blank);
    let Some(lost) = members.iter().copied().find(blank) else { return Ok(()) };
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
    let free = free_id(inventory, facts);
    Err(error.hint(format!(
        "a node that lost its disk comes back under an id never used before: give this host `id = {free}` and a name of its own in the inventory, say n{free}; then `paxosctl member replace {} n{free}`",
        lost.name
    )))
}

/// An id that was never used, as far as anybody who was reached knows.
pub(super) fn free_id(inventory: &hosts::Inventory, facts: &BTreeMap<u32, Facts>) -> u32 {
    let configurations =
        facts.values().filter_map(|facts| facts.status.as_ref()).map(|s| &s.configuration);
    let by_log = configurations.flat_map(|configuration| {
        let members = configuration.members.iter().map(|member| member.id);
        members.chain(configuration.removed.iter().copied())
    });
    let by_disk = facts.values().filter_map(|facts| facts.identity().map(|identity| identity.id));
    let used = inventory.hosts.iter().map(|host| host.id).chain(by_log).chain(by_disk);
    used.max().unwrap_or(0).saturating_add(1)
}
