//! `paxosctl init`: a first inventory from a list of machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::Context;
use crate::error::Error;
use crate::ui;

/// Write a commented inventory of these hosts to stdout.
///
/// paxosctl init 10.0.0.11 10.0.0.12 ops@10.0.0.13:8022 > hosts/inventories/mine.toml
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Machines as ssh reaches them: [USER@]HOST[:PORT].
    #[arg(required = true, value_name = "HOST")]
    hosts: Vec<String>,
    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "demo")]
    name: String,
    /// The ssh key to log in with; default: your ssh-agent and ~/.ssh/config.
    #[arg(long, value_name = "FILE")]
    identity_file: Option<PathBuf>,
}

/// What was typed for one host.
struct Typed<'a> {
    user: Option<&'a str>,
    address: &'a str,
    port: Option<&'a str>,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let text = render(&args)?;
    let names = config::preset_names();
    let knowledge = hosts::Knowledge { presets: Some(&names) };
    let inventory = hosts::parse(&text, "the new inventory", Path::new("."), knowledge);
    let inventory = inventory.map_err(|problems| {
        context.ui.say(problems.to_string());
        Error::usage("these hosts make no inventory").hint("paxosctl init [USER@]HOST[:PORT] …")
    })?;
    for warning in inventory.warnings.iter().filter(|warning| !warning.message.contains("log in")) {
        context.ui.warn(&warning.message);
    }
    context.ui.data(&text);
    if !context.ui.stdout_is_terminal {
        context.ui.hint("next: paxosctl -i FILE trust, check, user add app, plan, up");
    }
    Ok(ui::OK)
}

fn render(args: &Args) -> Result<String, Error> {
    let typed = args.hosts.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    let mut text = format!(
        "# The machines of cluster {name}, and what is wished of them. Keep this file in git: it holds\n\
         # no secret. hosts/inventories/example.toml shows every key.\n\
         schema = 1\n\n\
         [cluster]\nname = \"{name}\"\nconfig = \"default\"               # a preset of config/presets/, or the path of a TOML file\n\n\
         [defaults.ssh]                   # what is left out comes from ~/.ssh/config\n\
         known_hosts = \"known_hosts\"      # beside this file; filled by `paxosctl trust`\n",
        name = args.name
    );
    if let Some(file) = &args.identity_file {
        let file = std::path::absolute(file)
            .map_err(|error| Error::usage("find the identity file").because(error))?;
        let _ = writeln!(text, "identity_file = {}", quoted(&file.display().to_string()));
    }
    text.push_str(
        "\n# id is the Paxos server id: give each to one machine, once and for ever. Labels say what fails\n\
         # together, for [guard]: labels = { zone = \"a\" }.\n",
    );
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for (id, host) in (1u32..).zip(&typed) {
        let nth = seen.entry(host.address).and_modify(|count| *count += 1).or_insert(0);
        push_host(&mut text, id, host, *nth);
    }
    text.push_str(
        "\n[guard]\n# spread = \"zone\"               # warn when losing one zone would lose the quorum\n\
         max_lag_slots = 1000             # a node further behind does not count as caught up\n\n\
         [security]\npeers = \"tls\"                    # nodes make their own keys; nothing expires\n\
         clients = \"auth\"                 # who may connect: `paxosctl user add app`\n",
    );
    Ok(text)
}

/// `nth` counts the nodes on the same machine from 0: further ones need ports and folders of
/// their own.
fn push_host(text: &mut String, id: u32, host: &Typed<'_>, nth: u32) {
    let _ = write!(
        text,
        "\n[[host]]\nname = \"n{id}\"\nid = {id}\naddress = {}\n",
        quoted(host.address)
    );
    let mut ssh = Vec::new();
    ssh.extend(host.user.map(|user| format!("user = {}", quoted(user))));
    ssh.extend(host.port.map(|port| format!("port = {port}")));
    if !ssh.is_empty() {
        let _ = writeln!(text, "ssh = {{ {} }}", ssh.join(", "));
    }
    if nth > 0 {
        let base = 7_379 + 10 * nth;
        let _ = write!(
            text,
            "client_port = {base}\npeer_port = {}\nhttp_port = {}\n\
             deploy_dir = \"/opt/paxos-n{id}\"\ndata_dir = \"/var/lib/paxos-n{id}\"\n",
            base + 1,
            base + 2
        );
    }
}

fn parse(text: &str) -> Result<Typed<'_>, Error> {
    let (user, rest) = match text.split_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, text),
    };
    // An IPv6 address has more than one colon, and brackets when a port follows.
    let (address, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => (address, None),
        Some((address, port)) => (address, port.strip_prefix(':')),
        None => match rest.split_once(':') {
            Some((address, port)) if !port.contains(':') => (address, Some(port)),
            _ => (rest, None),
        },
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(Error::usage(format!("`{text}` names no port: 1 to 65535 after the colon")));
    }
    Ok(Typed { user, address, port })
}

/// A TOML string; what is wrong with its content is for the inventory's own checks to say.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(hosts: &[&str]) -> String {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        render(&Args { hosts, name: "demo".to_owned(), identity_file: None }).unwrap()
    }

    fn read(text: &str) -> hosts::Inventory {
        hosts::parse(text, "mine.toml", Path::new("/git"), hosts::Knowledge::default())
            .unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn what_is_typed_becomes_an_inventory() {
        let inventory = read(&written(&["h1", "ops@10.0.0.12", "root@[fd00::3]:8022"]));
        let addresses: Vec<&str> =
            inventory.hosts.iter().map(|host| host.address.as_str()).collect();
        assert_eq!(addresses, ["h1", "10.0.0.12", "fd00::3"]);
        assert_eq!(inventory.hosts[1].ssh.user.as_deref(), Some("ops"));
        assert_eq!(inventory.hosts[2].ssh.port, Some(8022));
        assert_eq!(inventory.hosts[2].id, 3);
    }

    #[test]
    fn one_machine_may_carry_several_nodes() {
        let inventory = read(&written(&["10.0.0.1", "10.0.0.1", "10.0.0.1"]));
        let ports: Vec<u16> = inventory.hosts.iter().map(|host| host.client_port).collect();
        assert_eq!(ports, [7379, 7389, 7399]);
    }

    #[test]
    fn an_option_in_the_place_of_a_host_is_refused() {
        let text = written(&["-oProxyCommand=touch x"]);
        let problems = hosts::parse(&text, "x", Path::new("/"), hosts::Knowledge::default());
        assert!(problems.unwrap_err().to_string().contains("never begins with `-`"));
        let text = written(&["a\"\nid = 9\nx = \"b"]);
        assert!(hosts::parse(&text, "x", Path::new("/"), hosts::Knowledge::default()).is_err());
    }
}
