//! `paxosctl gen compose`: a folder that `docker compose up` turns into a cluster.
//!
//! ```text
//! docker-compose.yml
//! image/                   Dockerfile and the two static programs
//! inventory.toml           the containers, for paxosctl -i
//! n1/node.toml             seen as /paxos/node.toml in the container
//! n1/members.toml          the same everywhere, last to be written
//! n1/data/                 formatted here: the key is made where it lives
//! ```
//!
//! May be repeated: identities and data stay, so a cluster goes on where it was. A folder that holds
//! another cluster is left alone.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use config::{Members, NodeConfig};
use deploy::facts::Identity;
use deploy::render::{self, compose};
use hosts::{Host, Inventory};

use crate::cli::Context;
use crate::error::{Error, Word};
use crate::local::ports::taken;
use crate::local::{node_binary_beside_us, random_uuid};
use crate::ui;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Nodes, one container each: 1 to 9, odd for a reason.
    #[arg(long, value_name = "N", default_value = "3")]
    servers: String,
    /// Clients, one container each.
    #[arg(long, value_name = "N", default_value = "1")]
    clients: String,
    /// How the nodes behave: a preset, or a TOML file of one.
    #[arg(long, value_name = "PRESET", default_value = "default")]
    config: String,
    /// The folder to write.
    #[arg(long, value_name = "DIR", default_value = ".run/compose")]
    out: PathBuf,
    /// First three bytes of the private network.
    #[arg(long, value_name = "A.B.C", default_value = "10.230.0", value_parser = network)]
    network: [u8; 3],
    /// Client port of the first node on this machine; further nodes are 10 apart.
    #[arg(long, value_name = "PORT", default_value_t = 7379)]
    base_port: u16,
    /// The node's program; default: `paxos-node` beside this one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<ExitCode, Error> {
    let servers = count("SERVERS", &args.servers, 1, compose::SERVERS_MAX)?;
    let clients = count("CLIENTS", &args.clients, 0, compose::CLIENTS_MAX)?;
    if u32::from(args.base_port) + 10 * (servers - 1) + 2 > u32::from(u16::MAX) {
        let message = format!("{servers} nodes from port {} on end above 65535", args.base_port);
        return Err(Error::usage(message).hint("--base-port 7379"));
    }
    if servers.is_multiple_of(2) {
        context.ui.warn(format!(
            "{servers} nodes survive the loss of {}, as {} would",
            (servers - 1) / 2,
            servers - 1
        ));
    }
    config::preset(&args.config)
        .map_err(|problems| Error::usage("read the configuration").because(problems))?;
    let config = config_name(&args.config)?;
    let node = args.binary.clone().unwrap_or_else(node_binary_beside_us);
    let ctl = std::env::current_exe().map_err(of_io("find this program", Path::new("paxosctl")))?;
    for program in [&node, &ctl] {
        check_program(program)?;
    }
    warn_of_ports(args.base_port, servers, context);
    let project = compose::Project {
        servers,
        clients,
        config: &config,
        network: args.network,
        user: user(),
        digest: &digest(&[&node, &ctl])?,
        base_port: args.base_port,
    };
    let inventory = compose::inventory(&project)?;
    let out = std::path::absolute(&args.out).map_err(of_io("find", &args.out))?;
    write_nodes(&inventory, &out, &node)?;
    write_image(&out, &node, &ctl)?;
    write(&out.join("inventory.toml"), &inventory.text)?;
    write(&out.join("docker-compose.yml"), &compose::project(&project))?;
    context
        .ui
        .say(format!("wrote {servers} nodes and {clients} clients to {}", args.out.display()));
    context.ui.hint(format!(
        "docker compose --project-directory {0} -f {0}/docker-compose.yml up -d --build",
        args.out.display()
    ));
    Ok(ui::OK)
}

/// Docker finds a taken port only when half of the containers run. Those of a project that runs are
/// its own.
fn warn_of_ports(base_port: u16, servers: u32, context: &Context) {
    let ports = (0..servers as u16).flat_map(|nth| [0, 2].map(|port| base_port + 10 * nth + port));
    let addresses: Vec<SocketAddr> = ports.map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect();
    for port in taken(&addresses) {
        if !port.holder.as_ref().is_some_and(|holder| holder.starts_with("docker-proxy")) {
            context
                .ui
                .warn(format!("{port}; BASE_PORT or --base-port moves the containers' ports"));
        }
    }
}

/// Every node's folder: configuration, identity, members.
fn write_nodes(inventory: &Inventory, out: &Path, program: &Path) -> Result<(), Error> {
    let former = former_members(inventory, out)?;
    let uuid = former.as_ref().map_or_else(random_uuid, |members| members.cluster_uuid.clone());
    let mut identities = BTreeMap::new();
    for host in &inventory.hosts {
        let folder = out.join(&host.name);
        let data = folder.join("data");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&data)
            .map_err(of_io("make", &data))?;
        let text = render::node_toml(inventory, host, &uuid)?;
        let mut node = NodeConfig::parse(&text, "node.toml").map_err(of_config)?;
        // `docker logs` shows what goes to stderr, and bounds it.
        node.trace.stderr = true;
        write(&folder.join("node.toml"), &node.to_toml())?;
        identities.insert(host.id, identity(&mut node, host, &folder, program)?);
    }
    let members = render::members_toml(inventory, &uuid, &identities)?;
    for host in &inventory.hosts {
        write(&out.join(&host.name).join("members.toml"), &members)?;
    }
    Ok(())
}

/// The members of the cluster that this folder holds, if any: it must be the one that is wanted.
fn former_members(inventory: &Inventory, out: &Path) -> Result<Option<Members>, Error> {
    let path = out.join(&inventory.hosts[0].name).join("members.toml");
    if !path.exists() {
        return Ok(None);
    }
    let members = Members::load(&path).map_err(of_config)?;
    let endpoints = |members: &Members| -> Vec<String> {
        members.members.iter().map(|member| member.peer.clone()).collect()
    };
    let wanted: Vec<String> = inventory.hosts.iter().map(Host::peer_endpoint).collect();
    if endpoints(&members) == wanted {
        return Ok(Some(members));
    }
    let message = format!("{} holds a cluster of {} nodes", out.display(), members.members.len());
    Err(Error::usage(message)
        .because(format!("{} at these addresses are wanted", wanted.len()))
        .hint("end it first: make down"))
}

/// The identity of a node: formatted now, unless it was. The node's own program does it, on the
/// path that the folder has outside of the container.
fn identity(
    node: &mut NodeConfig,
    host: &Host,
    folder: &Path,
    program: &Path,
) -> Result<Identity, Error> {
    let data = folder.join("data");
    node.data_dir.clone_from(&data);
    let outside = folder.join("node.outside.toml");
    write(&outside, &node.to_toml())?;
    let blank = fs::read_dir(&data).map_err(of_io("read", &data))?.next().is_none();
    if blank {
        ask(program, "format", &outside, host)?;
    }
    let said = ask(program, "identity", &outside, host)?;
    fs::remove_file(&outside).map_err(of_io("remove", &outside))?;
    serde_json::from_str(&said).map_err(|error| {
        Error::new(Word::Internal, format!("read the identity of {}", host.name)).because(error)
    })
}

fn ask(program: &Path, verb: &str, config: &Path, host: &Host) -> Result<String, Error> {
    let doing = format!("{} {verb} for {}", program.display(), host.name);
    let output = Command::new(program)
        .arg(verb)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::new(Word::Internal, &doing).because(error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::new(Word::Remote, doing).because(String::from_utf8_lossy(&output.stderr)))
}

fn write_image(out: &Path, node: &Path, ctl: &Path) -> Result<(), Error> {
    let image = out.join("image");
    fs::create_dir_all(&image).map_err(of_io("make", &image))?;
    write(&image.join("Dockerfile"), compose::DOCKERFILE)?;
    for (program, name) in [(node, "paxos-node"), (ctl, "paxosctl")] {
        let partial = image.join(format!("{name}.partial"));
        fs::copy(program, &partial).map_err(of_io("copy", program))?;
        let target = image.join(name);
        fs::rename(&partial, &target).map_err(of_io("write", &target))?;
    }
    Ok(())
}

/// An empty image has no loader: a program that wants one would not start, with a message that
/// nobody understands ("no such file or directory").
fn check_program(path: &Path) -> Result<(), Error> {
    let bytes = fs::read(path).map_err(|error| {
        Error::usage(format!("read the program {}", path.display()))
            .because(error)
            .hint("build both: make compile")
    })?;
    if needs_loader(&bytes) {
        let message =
            format!("{} is not static, so it cannot run alone in an image", path.display());
        return Err(
            Error::usage(message).hint("build it: make compile; then target/release/paxosctl")
        );
    }
    Ok(())
}

/// Whether a 64-bit ELF file names an interpreter (a program header of type 3).
fn needs_loader(elf: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| -> usize {
        let field = elf.get(at..at + bytes).unwrap_or_default();
        field.iter().rev().fold(0, |value, byte| (value << 8) | usize::from(*byte))
    };
    let (table, entry_bytes, entries) = (number(32, 8), number(54, 2), number(56, 2));
    elf.starts_with(b"\x7fELF\x02\x01")
        && (0..entries).any(|entry| number(table.saturating_add(entry * entry_bytes), 4) == 3)
}

fn digest(programs: &[&Path]) -> Result<String, Error> {
    let mut both = String::new();
    for program in programs {
        both += &deploy::digest::of_file(program).map_err(of_io("read", program))?;
    }
    Ok(deploy::digest::of_bytes(both.as_bytes()))
}

/// A path must hold from the inventory's folder too.
fn config_name(config: &str) -> Result<String, Error> {
    if !config.contains('/') && !config.ends_with(".toml") {
        return Ok(config.to_owned());
    }
    let path = std::path::absolute(config).map_err(of_io("find", Path::new(config)))?;
    Ok(path.display().to_string())
}

fn user() -> String {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    format!("{}:{}", user.as_raw(), group.as_raw())
}

fn count(name: &str, text: &str, low: u32, high: u32) -> Result<u32, Error> {
    match text.parse() {
        Ok(count) if (low..=high).contains(&count) => Ok(count),
        _ => Err(Error::usage(format!("{name} is `{text}`: want a number from {low} to {high}"))),
    }
}

fn network(text: &str) -> Result<[u8; 3], String> {
    let bytes: Vec<u8> = text.split('.').filter_map(|byte| byte.parse().ok()).collect();
    let network: [u8; 3] =
        bytes.try_into().map_err(|_| "want the first three bytes of a network: 10.230.0")?;
    if text.split('.').count() == 3 { Ok(network) } else { Err("want three bytes".to_owned()) }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    fs::write(&partial, text).map_err(of_io("write", &partial))?;
    fs::rename(&partial, path).map_err(of_io("write", path))
}

fn of_io<'a>(doing: &'a str, path: &'a Path) -> impl Fn(std::io::Error) -> Error + 'a {
    move |error| Error::usage(format!("{doing} {}", path.display())).because(error)
}

fn of_config(problems: config::Problems) -> Error {
    Error::new(Word::Usage, "read a node's files").because(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_needs_a_loader_and_a_text_does_not() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let is_static = cfg!(target_feature = "crt-static");
        assert_eq!(needs_loader(&own), !is_static);
        assert!(!needs_loader(b"#!/bin/sh\n"));
        assert!(!needs_loader(&own[..64]));
    }

    #[test]
    fn counts_and_networks_are_bounded() {
        assert!(count("SERVERS", "0", 1, 9).is_err() && count("SERVERS", "10", 1, 9).is_err());
        assert!(count("SERVERS", "x", 1, 9).unwrap_err().to_string().contains("SERVERS is `x`"));
        assert_eq!(network("10.230.7"), Ok([10, 230, 7]));
        for wrong in ["10.230", "10.230.0.0", "10.x.0", "10.230.256", ""] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }
}
