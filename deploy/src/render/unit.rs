//! The systemd unit of a node, and the script that prepares a machine for it.

use hosts::{Host, Inventory};

use super::template::fill;
use crate::supervisor::STOP_BOUND;

const UNIT: &str = include_str!("../../units/paxos-node.service");
const BOOTSTRAP: &str = include_str!("../../units/bootstrap.sh");

/// What a node ends with when starting it again would change nothing: no identity, damaged data.
const FINAL_EXITS: &str = "4 74";
const DEFAULT_USER: &str = "paxos";

/// The unit's file name: one machine may carry nodes of several clusters.
pub fn unit_name(inventory: &Inventory, host: &Host) -> String {
    format!("paxos-{}-{}.service", inventory.cluster.name, host.name)
}

/// The account that a node runs under: the one that `paxosctl` logs in as, so that it can format
/// and reach the admin socket without root; never root itself.
pub fn service_user(host: &Host) -> &str {
    host.ssh.user.as_deref().filter(|user| *user != "root").unwrap_or(DEFAULT_USER)
}

/// The systemd unit.
pub fn unit(inventory: &Inventory, host: &Host) -> String {
    let mut limits = String::new();
    if let Some(bytes) = host.limits.memory_max {
        limits.push_str(&format!("MemoryMax={bytes}\n"));
    }
    let nofile = host.limits.nofile.unwrap_or(1_000_000);
    limits.push_str(&format!("LimitNOFILE={nofile}\n"));
    let folders = [&host.deploy_dir, &host.data_dir];
    let below = |roots: &[&str]| {
        folders.iter().any(|folder| roots.iter().any(|root| folder.starts_with(root)))
    };
    let at_home = below(&["/home", "/root", "/run/user"]);
    let in_tmp = below(&["/tmp", "/var/tmp"]);
    fill(
        UNIT,
        &[
            ("cluster", &inventory.cluster.name),
            ("node", &host.name),
            ("id", &host.id.to_string()),
            ("user", service_user(host)),
            ("deploy_dir", &host.deploy_dir.display().to_string()),
            ("data_dir", &host.data_dir.display().to_string()),
            ("final_exits", FINAL_EXITS),
            ("stop_seconds", &STOP_BOUND.as_secs().to_string()),
            ("limits", &limits),
            // What hides a folder would hide ours in it.
            ("protect_home", if at_home { "no" } else { "yes" }),
            ("private_tmp", if in_tmp { "no" } else { "yes" }),
        ],
    )
}

/// One script for root: account, folders, unit and a sudo rule for exactly this unit. `keys` are
/// public ssh keys that may log in as the node's account, a line each.
pub fn bootstrap(inventory: &Inventory, host: &Host, keys: &[String]) -> String {
    let user = service_user(host);
    let authorize = |key: &String| {
        let key = key.trim().replace('\'', "");
        format!("grep -qxF '{key}' \"$keys\" || echo '{key}' >> \"$keys\"\n")
    };
    let keys = if keys.is_empty() {
        String::new()
    } else {
        let lines: String = keys.iter().map(authorize).collect();
        format!(
            "\nhome=$(getent passwd {user} | cut -d: -f6)\nkeys=$home/.ssh/authorized_keys\n\
             install -d -o {user} -g {user} -m 0700 \"$home/.ssh\"\n\
             [ -f \"$keys\" ] || install -o {user} -g {user} -m 0600 /dev/null \"$keys\"\n{lines}"
        )
    };
    let unit_name = unit_name(inventory, host);
    fill(
        BOOTSTRAP,
        &[
            ("cluster", &inventory.cluster.name),
            ("node", &host.name),
            ("address", &host.address),
            ("user", user),
            ("keys", &keys),
            ("deploy_dir", &host.deploy_dir.display().to_string()),
            ("data_dir", &host.data_dir.display().to_string()),
            ("unit", &unit_name),
            ("unit_text", &unit(inventory, host)),
            // sudo ignores files with a dot in their name.
            ("sudoers", unit_name.trim_end_matches(".service")),
        ],
    )
}
