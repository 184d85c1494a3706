//! `paxosctl member list`: the members by the log, beside what the inventory says, and for each
//! difference the command that mends it. Works with dead hosts, and without ssh where the pages can be
//! reached.

use std::process::ExitCode;
use std::sync::Arc;

use hosts::{Host, Inventory};
use monitoring::reading::Sample;
use monitoring::status::{Configuration, Member, MemberRole, NodeStatus, Role};

use crate::cli::Context;
use crate::commands::status::Look;
use crate::desk;
use crate::error::{Error, Word};
use crate::ui::{self, Cell, Style};

/// One node, whether the log or only the inventory knows it.
#[derive(Debug, serde::Serialize)]
struct Row {
    name: String,
    id: u32,
    /// `voter`, `learner`, `none` or `removed`.
    membership: &'static str,
    /// As the inventory has it.
    inventory: Option<String>,
    state: String,
    lag_slots: Option<u64>,
    peer: String,
    client: String,
    /// What mends the difference between the two.
    mend: Option<String>,
}

pub(super) async fn run(context: &Context) -> Result<ExitCode, Error> {
    let inventory = Arc::new(desk::load_inventory(context)?);
    let samples = Look::new(Arc::clone(&inventory), true).samples().await;
    let statuses: Vec<&NodeStatus> =
        samples.iter().filter_map(|sample| Some(&sample.outcome.as_ref().ok()?.status)).collect();
    let Some(live) = deploy::live::newest(statuses.iter().copied()) else {
        let mut error = Error::new(Word::Unavailable, "read the membership from any node");
        for sample in &samples {
            if let Err(failure) = &sample.outcome {
                error = error.because(format!("{}: {failure}", sample.target.node));
            }
        }
        return Err(error.hint("look: `paxosctl status`"));
    };
    let leader = statuses.iter().filter(|s| s.role == Role::Leader).max_by_key(|s| s.ballot);
    let flag = desk::inventory_flag(context);
    let rows = rows(&inventory, live, leader.copied(), &samples, &flag);
    if context.json() {
        context.ui.json(&serde_json::json!({
            "schema_version": 1,
            "cluster": inventory.cluster.name,
            "configuration": live.number,
            "leader": leader.map(|leader| serde_json::json!({
                "id": leader.id, "name": live.name_of(leader.id),
            })),
            "change_under_way": leader.is_some_and(|l| l.configuration.change_under_way),
            "members": rows,
            "removed": live.removed,
            "lease_ms": live.lease_ms,
            "drift_percent": live.drift_percent,
            "store_version": live.store_version,
        }));
        return Ok(ui::OK);
    }
    let leads =
        leader.map_or_else(|| "no leader".to_owned(), |l| format!("leader {}", live.name_of(l.id)));
    let voters = live.voters().count();
    context.ui.data(format!(
        "cluster {}   configuration {}   {leads}   {voters} voter{}, {} needed",
        inventory.cluster.name,
        live.number,
        if voters == 1 { "" } else { "s" },
        voters / 2 + 1
    ));
    context.ui.data(rules(live));
    let head = ["NODE", "ID", "MEMBER", "INVENTORY", "STATE", "LAG", "PEERS DIAL", "CLIENTS DIAL"];
    let table: Vec<Vec<Cell>> = rows.iter().map(cells).collect();
    context.ui.data(context.ui.table(&head, &table));
    for mend in rows.iter().filter_map(|row| row.mend.as_ref()) {
        context.ui.data(format!("hint: {mend}"));
    }
    Ok(ui::OK)
}

/// What all members go by.
fn rules(live: &Configuration) -> String {
    let leases = match (live.lease_ms, live.drift_percent) {
        (Some(lease_ms), Some(drift_percent)) => {
            format!("leases of {lease_ms} ms, drift {drift_percent} %")
        }
        // No configuration of this cluster has stated them yet.
        _ => "leases as each node's file has them".to_owned(),
    };
    format!("rules: {leases}, store version {}", live.store_version)
}

/// Hosts of the inventory in its order, then members that it lacks.
fn rows(
    inventory: &Inventory,
    live: &Configuration,
    leader: Option<&NodeStatus>,
    samples: &[Sample],
    flag: &str,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for (host, sample) in inventory.hosts.iter().zip(samples) {
        let member = live.members.iter().find(|member| member.id == host.id);
        let status = sample.outcome.as_ref().ok().map(|reading| &reading.status);
        let membership = match member.map(|member| member.role) {
            Some(MemberRole::Voter) => "voter",
            Some(MemberRole::Learner) => "learner",
            None if live.removed.contains(&host.id) => "removed",
            None => "none",
        };
        let down = if member.is_some() { "DOWN" } else { "-" };
        rows.push(Row {
            name: host.name.clone(),
            id: host.id,
            membership,
            inventory: Some(host.role.to_string()),
            state: status.map_or_else(|| down.to_owned(), state),
            lag_slots: status
                .zip(leader)
                .map(|(own, leader)| leader.chosen_slot.saturating_sub(own.applied_slot)),
            peer: member.map_or_else(|| host.peer_endpoint(), |m| m.peer.clone()),
            client: member.map_or_else(|| host.client_endpoint(), |m| m.client.clone()),
            mend: mend(host, member, membership, flag),
        });
    }
    for member in live.members.iter().filter(|m| inventory.host_by_id(m.id).is_none()) {
        let Member { name, id, role, peer, client, .. } = member;
        rows.push(Row {
            name: name.clone(),
            id: *id,
            membership: if *role == MemberRole::Voter { "voter" } else { "learner" },
            inventory: None,
            state: "not looked at".to_owned(),
            lag_slots: None,
            peer: peer.clone(),
            client: client.clone(),
            mend: Some(format!(
                "{name} (id {id}) is a member, but not in the inventory: write its [[host]] there, \
                 or paxosctl{flag} member remove {name}"
            )),
        });
    }
    rows
}

fn state(status: &NodeStatus) -> String {
    match status.role {
        Role::Leader => "LEADER".to_owned(),
        role => role.to_string(),
    }
}

fn mend(host: &Host, member: Option<&Member>, membership: &str, flag: &str) -> Option<String> {
    let name = &host.name;
    let wished = host.role;
    match (member.map(|member| member.role), wished) {
        (Some(MemberRole::Learner), hosts::Role::Voter) => Some(format!(
            "{name} is a learner, the inventory says voter: paxosctl{flag} member promote {name}"
        )),
        (Some(MemberRole::Voter), hosts::Role::Learner) => Some(format!(
            "{name} is a voter, the inventory says learner: a voter never becomes a learner again; \
             write role = \"voter\" there, or paxosctl{flag} member remove {name}"
        )),
        (Some(_), _) => None,
        (None, _) if membership == "removed" => Some(format!(
            "{name} (id {}) was removed, and its id is never used again: delete its [[host]] from \
             the inventory",
            host.id
        )),
        (None, _) => Some(format!("{name} is no member: paxosctl{flag} member add {name}")),
    }
}

fn cells(row: &Row) -> Vec<Cell> {
    let style = match (row.membership, row.mend.is_some()) {
        (_, true) => Style::Warn,
        _ if row.state == "DOWN" => Style::Bad,
        _ => Style::Plain,
    };
    let membership = if row.membership == "none" { "-" } else { row.membership };
    let lag = row.lag_slots.map_or_else(|| "-".to_owned(), |lag| lag.to_string());
    let inventory = row.inventory.clone().unwrap_or_else(|| "-".to_owned());
    let texts = [
        row.name.clone(),
        row.id.to_string(),
        membership.to_owned(),
        inventory,
        row.state.clone(),
        lag,
        row.peer.clone(),
        row.client.clone(),
    ];
    texts.into_iter().map(|text| Cell::new(text, style)).collect()
}
