//! `paxosctl show`: what runs where, read from the hosts now, and what each is to the cluster by the
//! log, where any node answers.

use std::process::ExitCode;

use deploy::facts::{Data, Facts};
use deploy::plan;
use hosts::Host;
use monitoring::status::{Configuration, MemberRole};

use crate::cli::{Context, Format};
use crate::desk;
use crate::error::Error;
use crate::ui::{self, Cell, Style};

/// Show what is on the hosts: releases, processes, membership, data.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    let hosts = desk::select(context, &inventory)?;
    let (fleet, mut errors) = desk::dial(context, &inventory, &hosts).await;
    let (facts, unread) = deploy::facts::survey(&fleet).await;
    errors.extend(unread);
    let live = plan::membership(&facts);
    let why = |host: &Host| {
        errors
            .iter()
            .find(|error| error.host.as_deref() == Some(&host.name))
            .map(ToString::to_string)
    };
    if context.json() {
        let nodes: Vec<serde_json::Value> = hosts
            .iter()
            .map(|host| {
                serde_json::json!({
                    "name": host.name,
                    "id": host.id,
                    "address": host.address,
                    "membership": live.map(|live| membership(host.id, live)),
                    "live_id": facts.get(&host.id).and_then(live_id),
                    "facts": facts.get(&host.id),
                    "error": why(host),
                })
            })
            .collect();
        context.ui.json(&serde_json::json!({
            "schema_version": 1,
            "cluster": inventory.cluster.name,
            "nodes": nodes,
        }));
    } else {
        let wide = context.global.output == Format::Wide;
        let mut head = vec!["NODE", "HOST", "PROCESS", "UP", "RELEASE", "MEMBER", "CLIENT", "DATA"];
        if wide {
            head.extend(["PEER", "HTTP", "DEPLOY DIR", "DATA DIR", "ARCH", "FREE"]);
        }
        let rows: Vec<Vec<Cell>> =
            hosts.iter().map(|host| row(host, facts.get(&host.id), live, wide)).collect();
        context.ui.data(context.ui.table(&head, &rows));
    }
    match deploy::Error::all(errors) {
        None => Ok(ui::OK),
        Some(error) => Err(error.into()),
    }
}

/// What this id is to the cluster.
fn membership(id: u32, live: &Configuration) -> &'static str {
    match live.members.iter().find(|member| member.id == id).map(|member| member.role) {
        Some(MemberRole::Voter) => "voter",
        Some(MemberRole::Learner) => "learner",
        None if live.removed.contains(&id) => "removed",
        None => "not a member",
    }
}

/// The id of the node that answers there: after a host was given another one, its former node may
/// still run.
fn live_id(facts: &Facts) -> Option<u32> {
    facts.status.as_ref().map(|status| status.id)
}

fn member(host: &Host, facts: &Facts, live: Option<&Configuration>) -> Cell {
    let Some(live) = live else { return "?".into() };
    let own = membership(host.id, live);
    match live_id(facts).filter(|id| *id != host.id) {
        Some(id) => {
            let text = format!("{own}; id {id} runs there, {}", membership(id, live));
            Cell::new(text, Style::Bad)
        }
        None if matches!(own, "voter" | "learner") => own.into(),
        None => Cell::new(own, Style::Warn),
    }
}

fn row(host: &Host, facts: Option<&Facts>, live: Option<&Configuration>, wide: bool) -> Vec<Cell> {
    let mut cells: Vec<Cell> = vec![host.name.clone().into(), host.address.clone().into()];
    let Some(facts) = facts else {
        cells.push(Cell::new("unreachable", Style::Bad));
        return cells;
    };
    match &facts.process {
        Some(process) => {
            cells.push(Cell::new(format!("pid {}", process.pid), Style::Good));
            cells.push(age(process.uptime_seconds).into());
            let runs = deploy::digest::release_name(&process.digest).to_owned();
            let drift = facts.current.as_ref() != Some(&runs);
            let style = if drift { Style::Warn } else { Style::Plain };
            let mark = if drift { " (not current)" } else { "" };
            cells.push(Cell::new(format!("{runs}{mark}"), style));
        }
        None => {
            cells.push(Cell::new("stopped", Style::Warn));
            cells.push("-".into());
            cells.push(facts.current.clone().unwrap_or_else(|| "-".to_owned()).into());
        }
    }
    cells.push(member(host, facts, live));
    cells.push(host.client_endpoint().into());
    cells.push(data(&facts.data));
    if wide {
        cells.push(host.peer_endpoint().into());
        cells.push(host.http_endpoint().into());
        cells.push(host.deploy_dir.display().to_string().into());
        cells.push(host.data_dir.display().to_string().into());
        cells.push(facts.arch.clone().into());
        let free = facts.data_disk.map_or_else(|| "-".to_owned(), |disk| bytes(disk.free_bytes));
        cells.push(free.into());
    }
    cells
}

fn data(data: &Data) -> Cell {
    match data {
        Data::Blank => "none".into(),
        Data::Identity(identity) => {
            format!("id {} of {}", identity.id, short(&identity.cluster_uuid)).into()
        }
        Data::Unread { files } => Cell::new(format!("{files} files, unread"), Style::Warn),
        Data::Broken { .. } => Cell::new("unreadable", Style::Bad),
    }
}

fn short(uuid: &str) -> &str {
    uuid.get(..8).unwrap_or(uuid)
}

pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..0x100000 => format!("{} KiB", bytes >> 10),
        0x100000..0x40000000 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}
