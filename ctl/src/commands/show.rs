//! `paxosctl show`: what runs where, read from the hosts now.

use std::process::ExitCode;

use deploy::facts::{Data, Facts};
use hosts::Host;

use crate::cli::{Context, Format};
use crate::desk;
use crate::error::Error;
use crate::ui::{self, Cell, Style};

/// Show what is on the hosts: releases, processes, data.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    let hosts = desk::select(context, &inventory)?;
    let (fleet, mut errors) = desk::dial(context, &inventory, &hosts).await;
    let (facts, unread) = deploy::facts::survey(&fleet).await;
    errors.extend(unread);
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
        let mut head = vec!["NODE", "HOST", "PROCESS", "UP", "RELEASE", "CLIENT", "DATA"];
        if wide {
            head.extend(["PEER", "HTTP", "DEPLOY DIR", "DATA DIR", "ARCH", "FREE"]);
        }
        let rows: Vec<Vec<Cell>> =
            hosts.iter().map(|host| row(host, facts.get(&host.id), wide)).collect();
        context.ui.data(context.ui.table(&head, &rows));
    }
    match deploy::Error::all(errors) {
        None => Ok(ui::OK),
        Some(error) => Err(error.into()),
    }
}

fn row(host: &Host, facts: Option<&Facts>, wide: bool) -> Vec<Cell> {
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
