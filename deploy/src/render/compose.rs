//! A Docker Compose project: an image of two static programs, a private network, one container a
//! node and one a client.
//!
//! A project is an inventory like any other, with addresses of its own network; so a container's
//! `node.toml` and `members.toml` are made by the very functions that make a host's.

use std::net::Ipv4Addr;
use std::path::Path;

use hosts::{Inventory, Knowledge};

use super::template::fill;
use crate::error::{Error, Kind, Result};

pub const DOCKERFILE: &str = include_str!("../../compose/Dockerfile");
const PROJECT: &str = include_str!("../../compose/docker-compose.yml");
const NODE: &str = include_str!("../../compose/node.yml");
const CLIENT: &str = include_str!("../../compose/client.yml");

pub const SERVERS_MAX: u32 = 9;
pub const CLIENTS_MAX: u32 = 100;
/// Where a node's folder is seen inside its container.
pub const FOLDER: &str = "/paxos";

/// What the project holds.
#[derive(Clone, Debug)]
pub struct Project<'a> {
    pub servers: u32,
    pub clients: u32,
    /// A preset, or the path of a file.
    pub config: &'a str,
    /// First three bytes of the private network.
    pub network: [u8; 3],
    /// `uid:gid` of whoever made the folders, so that they can also remove them.
    pub user: String,
    /// Of both programs: another build is another image.
    pub digest: &'a str,
    /// Client port of the first node on this machine; the others follow 10 apart.
    pub base_port: u16,
}

impl Project<'_> {
    fn node_address(&self, id: u32) -> Ipv4Addr {
        self.address(10 + id)
    }

    fn client_address(&self, number: u32) -> Ipv4Addr {
        self.address(100 + number)
    }

    fn address(&self, last: u32) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, u8::try_from(last).expect("at most 100 + CLIENTS_MAX"))
    }

    fn subnet(&self) -> String {
        format!("{}/24", self.address(0))
    }
}

/// The inventory of the containers. Clients need no password: only this machine reaches them.
pub fn inventory(project: &Project<'_>) -> Result<Inventory> {
    let config = toml::Value::from(project.config).to_string();
    let mut text = format!(
        "# The containers of `paxosctl gen compose`. Only this machine reaches them.\n\
         schema = 1\n\n[cluster]\nname = \"compose\"\nconfig = {config}\n\n\
         [defaults]\ndeploy_dir = \"{FOLDER}\"\ndata_dir = \"{FOLDER}/data\"\n\n\
         [security]\npeers = \"tls\"\nclients = \"open\"\nscrape_from = [\"{}\"]\n",
        project.subnet()
    );
    for id in 1..=project.servers {
        let address = project.node_address(id);
        text.push_str(&format!(
            "\n[[host]]\nname = \"n{id}\"\nid = {id}\naddress = \"{address}\"\n"
        ));
    }
    hosts::parse(&text, "the inventory of the containers", Path::new("/"), Knowledge::default())
        .map_err(|problems| {
            Error::new(Kind::Usage, "make the containers' inventory").because(problems)
        })
}

/// `docker-compose.yml`.
pub fn project(project: &Project<'_>) -> String {
    let targets: Vec<String> =
        (1..=project.servers).map(|id| format!("\"{}:7379\"", project.node_address(id))).collect();
    let names: Vec<String> = (1..=project.servers).map(|id| format!("n{id}")).collect();
    let mut services = String::new();
    for id in 1..=project.servers {
        let port = |offset: u16| {
            let nth = u16::try_from(id - 1).expect("at most SERVERS_MAX");
            (project.base_port + 10 * nth + offset).to_string()
        };
        services.push_str(&fill(
            NODE,
            &[
                ("name", &names[id as usize - 1]),
                ("address", &project.node_address(id).to_string()),
                ("client_port", &port(0)),
                ("http_port", &port(2)),
            ],
        ));
    }
    for number in 1..=project.clients {
        services.push_str(&fill(
            CLIENT,
            &[
                ("name", &format!("client{number}")),
                ("address", &project.client_address(number).to_string()),
                ("targets", &targets.join(", ")),
                ("nodes", &names.join(", ")),
            ],
        ));
    }
    fill(
        PROJECT,
        &[
            ("servers", &project.servers.to_string()),
            ("clients", &project.clients.to_string()),
            ("first_address", &project.node_address(1).to_string()),
            ("image", &format!("paxos:{}", &project.digest[..12])),
            ("user", &project.user),
            ("services", &services),
            ("subnet", &project.subnet()),
        ],
    )
}
