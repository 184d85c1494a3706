//! The files that a node and its machine read, made from the inventory: same inputs, same bytes.

pub mod compose;
mod template;
mod unit;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use config::{
    Behaviour, ClientSecurity, Listen, MemberConfig, Members, NodeConfig, PeerSecurity, Role,
    Security, Trace, User, UserRole,
};

use crate::error::{Error, Kind, Result};
use crate::facts::Identity;

pub use unit::{bootstrap, service_user, unit, unit_name};

/// `node.toml` of one host.
pub fn node_toml(
    inventory: &hosts::Inventory,
    host: &hosts::Host,
    cluster_uuid: &str,
) -> Result<String> {
    let listen = |port| SocketAddr::new(host.listen, port);
    let node = NodeConfig {
        schema: 1,
        cluster: inventory.cluster.name.clone(),
        cluster_uuid: cluster_uuid.to_owned(),
        id: host.id,
        name: host.name.clone(),
        data_dir: host.data_dir.clone(),
        listen: Listen {
            client: listen(host.client_port),
            peer: listen(host.peer_port),
            http: listen(host.http_port),
        },
        security: security(inventory),
        users: inventory.users.iter().map(user).collect(),
        behaviour: behaviour(inventory)?,
        // What goes to stderr is kept in one file without bound; the rolling files are bounded.
        trace: Trace { stderr: false, ..Trace::default() },
    };
    Ok(node.to_toml())
}

/// `members.toml`, the same on all hosts: the cluster as it begins.
pub fn members_toml(
    inventory: &hosts::Inventory,
    cluster_uuid: &str,
    identities: &BTreeMap<u32, Identity>,
) -> Result<String> {
    let mut members = Vec::new();
    for host in &inventory.hosts {
        let identity = identities.get(&host.id).ok_or_else(|| {
            Error::new(Kind::Internal, "write members.toml")
                .on(&*host.name)
                .because("the identity of this node was not read")
        })?;
        members.push(MemberConfig {
            id: host.id,
            name: host.name.clone(),
            role: match host.role {
                hosts::Role::Voter => Role::Voter,
                hosts::Role::Learner => Role::Learner,
            },
            incarnation: identity.incarnation.clone(),
            public_key: identity.public_key.clone(),
            peer: host.peer_endpoint(),
            client: host.client_endpoint(),
            http: host.http_endpoint(),
        });
    }
    Ok(Members { cluster_uuid: cluster_uuid.to_owned(), members, ..Members::default() }.to_toml())
}

fn behaviour(inventory: &hosts::Inventory) -> Result<Behaviour> {
    let name = match &inventory.cluster.config {
        hosts::ConfigChoice::Preset(name) => name.clone(),
        hosts::ConfigChoice::File(path) => path.display().to_string(),
    };
    config::preset(&name).map_err(|problems| {
        Error::new(Kind::Usage, format!("read the configuration `{name}`")).because(problems)
    })
}

fn security(inventory: &hosts::Inventory) -> Security {
    Security {
        peers: match inventory.security.peers {
            hosts::Peers::Tls => PeerSecurity::Tls,
            hosts::Peers::Plain => PeerSecurity::Plain,
        },
        clients: match inventory.security.clients {
            hosts::Clients::Auth => ClientSecurity::Auth,
            hosts::Clients::Open => ClientSecurity::Open,
        },
        scrape_from: inventory.security.scrape_from.clone(),
    }
}

fn user(user: &hosts::User) -> User {
    User {
        name: user.name.clone(),
        role: match user.role {
            hosts::UserRole::Ro => UserRole::Ro,
            hosts::UserRole::Rw => UserRole::Rw,
        },
        password_sha256: user.password_sha256.clone(),
    }
}
