//! What no single value shows: contradictions between hosts, and wishes that would fail later, on
//! machines, at a worse moment. Each check is one function; none stops at its first finding.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::document::Span;
use crate::model::{Clients, ConfigChoice, Host, Peers, Role};
use crate::read::{Draft, DraftHost};
use crate::section::{Findings, nearest};

const VOTERS_MAX: usize = 9;

/// `presets` are the known names of configurations; `None` leaves that check out.
pub(crate) fn check(draft: &Draft, presets: Option<&[&str]>, findings: &Findings<'_>) {
    names_and_ids(draft, findings);
    ports(draft, findings);
    folders(draft, findings);
    loopback(draft, findings);
    identity_files(draft, findings);
    config(draft, presets, findings);
    users(draft, findings);
    if !draft.incomplete {
        voters(draft, findings);
        spread(draft, findings);
    }
}

fn names_and_ids(draft: &Draft, findings: &Findings<'_>) {
    let mut names: BTreeMap<&str, &DraftHost> = BTreeMap::new();
    let mut ids: BTreeMap<u32, &DraftHost> = BTreeMap::new();
    let free_id =
        draft.hosts.iter().map(|draft| draft.host.id).max().unwrap_or(0).saturating_add(1);
    for this in &draft.hosts {
        let host = &this.host;
        if let Some(first) = names.insert(&host.name, this) {
            let problem = findings
                .error(this.site("name"), format!("two hosts are called {}", host.name))
                .label("the name is taken")
                .conflict(findings.source, first.site("name"), "by this one");
            findings.add(problem);
        }
        if let Some(first) = ids.insert(host.id, this) {
            let problem = findings
                .error(this.site("id"), format!("two hosts have the id {}", host.id))
                .label(format!("{} has it too", host.name))
                .conflict(findings.source, first.site("id"), format!("{} has it", first.host.name))
                .hint(format!("{free_id} is free; never take the id of a host that is gone"));
            findings.add(problem);
        }
    }
}

fn ports(draft: &Draft, findings: &Findings<'_>) {
    for (position, this) in draft.hosts.iter().enumerate() {
        let own = named_ports(&this.host);
        for (index, (key, port)) in own.iter().enumerate() {
            if let Some((other, _)) = own[..index].iter().find(|(_, other)| other == port) {
                let message = format!("host {} uses port {port} twice", this.host.name);
                let problem = findings
                    .error(this.site(key), message)
                    .label(format!("as {key}"))
                    .conflict(findings.source, this.site(other), format!("as {other}"));
                findings.add(problem);
            }
        }
        for other in &draft.hosts[..position] {
            port_conflict(this, other, findings);
        }
    }
}

fn port_conflict(this: &DraftHost, other: &DraftHost, findings: &Findings<'_>) {
    let (host, before) = (&this.host, &other.host);
    let listens_clash = host.listen == before.listen
        || host.listen.is_unspecified()
        || before.listen.is_unspecified();
    if host.advertise != before.advertise && !(host.shares_machine_with(before) && listens_clash) {
        return;
    }
    let theirs = named_ports(before);
    let shared = |(_, port): &&(&'static str, u16)| theirs.iter().any(|(_, other)| other == port);
    let own = named_ports(host);
    let clashing: Vec<_> = own.iter().filter(shared).collect();
    let Some((key, port)) = clashing.first() else { return };
    let (other_key, _) = theirs.iter().find(|(_, theirs)| theirs == port).expect("it clashes");
    // Two hosts that take all their ports from the defaults differ by address, or not at all.
    let (own_site, other_site) = if this.site(key) == other.site(other_key) {
        (this.site("address"), other.site("address"))
    } else {
        (this.site(key), other.site(other_key))
    };
    let numbers: Vec<String> = clashing.iter().map(|(_, port)| port.to_string()).collect();
    let message = format!(
        "hosts {} and {} would both listen on port {} of {}",
        before.name,
        host.name,
        numbers.join(", "),
        host.advertise
    );
    let free = named_ports(before).iter().map(|(_, port)| *port).max().unwrap_or(0);
    let problem = findings
        .error(own_site, message)
        .label(host.name.clone())
        .conflict(findings.source, other_site, before.name.clone())
        .hint(format!(
            "give {} ports of its own (client_port, peer_port, http_port above {free}), or another address",
            host.name
        ));
    findings.add(problem);
}

fn named_ports(host: &Host) -> [(&'static str, u16); 3] {
    [
        ("client_port", host.client_port),
        ("peer_port", host.peer_port),
        ("http_port", host.http_port),
    ]
}

fn folders(draft: &Draft, findings: &Findings<'_>) {
    for (position, this) in draft.hosts.iter().enumerate() {
        let host = &this.host;
        // Releases below the data would go with it in a wipe; the other way round is harmless.
        if host.deploy_dir.starts_with(&host.data_dir) {
            let message = format!("host {}: deploy_dir lies within data_dir", host.name);
            let problem = findings
                .error(this.site("deploy_dir"), message)
                .label(host.deploy_dir.display().to_string())
                .conflict(
                    findings.source,
                    this.site("data_dir"),
                    host.data_dir.display().to_string(),
                )
                .hint("removing the data would remove the program: keep the two apart");
            findings.add(problem);
        }
        for other in &draft.hosts[..position] {
            if host.shares_machine_with(&other.host) {
                folder_conflict(this, other, findings);
            }
        }
    }
}

/// On one machine no folder of a node may hold, or be, a folder of another.
fn folder_conflict(this: &DraftHost, other: &DraftHost, findings: &Findings<'_>) {
    for (key, own) in named_folders(&this.host) {
        for (other_key, theirs) in named_folders(&other.host) {
            if !(own.starts_with(theirs) || theirs.starts_with(own)) {
                continue;
            }
            let relation = if own == theirs {
                "is"
            } else if own.starts_with(theirs) {
                "lies within"
            } else {
                "holds"
            };
            let message = format!(
                "on one machine, {key} of {} {relation} {other_key} of {}",
                this.host.name, other.host.name
            );
            let (own_site, other_site) = if this.site(key) == other.site(other_key) {
                (&this.span, &other.span)
            } else {
                (this.site(key), other.site(other_key))
            };
            let problem = findings
                .error(own_site, message)
                .label(own.display().to_string())
                .conflict(findings.source, other_site, theirs.display().to_string())
                .hint(format!("give {} folders of its own", this.host.name));
            findings.add(problem);
        }
    }
}

fn named_folders(host: &Host) -> [(&'static str, &Path); 2] {
    [("deploy_dir", &host.deploy_dir), ("data_dir", &host.data_dir)]
}

fn loopback(draft: &Draft, findings: &Findings<'_>) {
    let local = draft.hosts.iter().find(|this| this.host.is_loopback());
    let remote = draft.hosts.iter().find(|this| !this.host.is_loopback());
    if let (Some(local), Some(remote)) = (local, remote) {
        let message = format!(
            "{} is known to its peers as {}, which means another machine on each of them",
            local.host.name, local.host.advertise
        );
        let problem = findings
            .error(local.site("advertise"), message)
            .label("only this machine reaches it")
            .conflict(findings.source, remote.site("advertise"), "this one is elsewhere")
            .hint(format!(
                "advertise = \"an address of {} that the others reach\"",
                local.host.name
            ));
        findings.add(problem);
    }
    let Some(remote) = remote else { return };
    if draft.security.peers == Peers::Plain {
        let problem = findings
            .error(&draft.peers_span, "peers = \"plain\" is for loopback only")
            .label("whoever reaches a peer port could join the cluster")
            .conflict(findings.source, remote.site("advertise"), "this host is elsewhere")
            .hint("write peers = \"tls\": it needs no certificates, the hosts make their keys");
        findings.add(problem);
    }
}

fn identity_files(draft: &Draft, findings: &Findings<'_>) {
    let mut seen: BTreeSet<(&Path, usize)> = BTreeSet::new();
    for this in &draft.hosts {
        let Some(path) = this.host.ssh.identity_file.as_deref() else { continue };
        let site = this.site("identity_file");
        if !seen.insert((path, site.start)) {
            continue;
        }
        let shown = path.display();
        let problem = match std::fs::metadata(path) {
            // The copy on a host names a key of whoever put it there.
            Err(_) if findings.source.is_copy() => findings
                .warning(site, format!("there is no ssh key {shown} here"))
                .label("left out: your ssh-agent and ~/.ssh/config are used"),
            Err(error) => findings
                .error(site, format!("cannot read the ssh key {shown}: {error}"))
                .hint("leave identity_file out to use your ssh-agent and ~/.ssh/config"),
            Ok(file) if file.permissions().mode() & 0o077 != 0 => findings
                .error(site, format!("ssh refuses the key {shown}: others may read it"))
                .label(format!("mode {:04o}", file.permissions().mode() & 0o7777))
                .hint(format!("chmod 600 {shown}")),
            Ok(_) => continue,
        };
        findings.add(problem);
    }
}

fn config(draft: &Draft, presets: Option<&[&str]>, findings: &Findings<'_>) {
    let problem = match (&draft.cluster.config, presets) {
        (ConfigChoice::Preset(name), Some(presets)) if !presets.contains(&name.as_str()) => {
            let problem = findings
                .error(&draft.config_span, format!("there is no preset called {name}"))
                .label(format!("known: {}", presets.join(", ")));
            match nearest(name, presets.iter().copied()) {
                Some(near) => problem.hint(format!("did you mean \"{near}\"?")),
                None => problem.hint("a file of your own is named by its path: \"./mine.toml\""),
            }
        }
        (ConfigChoice::File(path), _) if !path.is_file() => findings
            .error(&draft.config_span, format!("there is no file {}", path.display()))
            .hint("relative paths begin beside the inventory"),
        _ => return,
    };
    findings.add(problem);
}

fn users(draft: &Draft, findings: &Findings<'_>) {
    if draft.security.clients == Clients::Auth && draft.users.is_empty() {
        let problem = findings
            .warning(&draft.clients_span, "clients must log in, but there is no user yet")
            .hint("paxosctl user add app");
        findings.add(problem);
    }
    let mut names: BTreeMap<&str, &Span> = BTreeMap::new();
    for user in &draft.users {
        let name = user.value.name.as_str();
        if let Some(first) = names.insert(name, &user.span) {
            let problem = findings
                .error(&user.span, format!("two users are called {name}"))
                .conflict(findings.source, first, "the first one");
            findings.add(problem);
        }
        let digests = &user.value.password_sha256;
        let distinct: BTreeSet<&String> = digests.iter().collect();
        if digests.is_empty() || digests.len() > 2 || distinct.len() < digests.len() {
            let message =
                format!("user {name} has {} passwords, {} distinct", digests.len(), distinct.len());
            let problem = findings
                .error(&user.span, message)
                .label("one, or two different ones during a rotation")
                .hint(format!("paxosctl user rotate {name}"));
            findings.add(problem);
        }
    }
}

fn voters(draft: &Draft, findings: &Findings<'_>) {
    let voters: Vec<&DraftHost> =
        draft.hosts.iter().filter(|this| this.host.role == Role::Voter).collect();
    let count = voters.len();
    let Some(last) = voters.last() else {
        if !draft.hosts.is_empty() {
            let problem = findings
                .error(&draft.hosts[0].span, "no host is a voter, so nothing could be chosen")
                .hint("role = \"voter\" on at least one, better three");
            findings.add(problem);
        }
        return;
    };
    let site = last.site("name");
    if count > VOTERS_MAX {
        let problem = findings
            .error(site, format!("{count} voters: at most {VOTERS_MAX} are supported"))
            .hint("role = \"learner\" copies everything without slowing each write");
        findings.add(problem);
    } else if count == 1 {
        let problem = findings
            .warning(site, "a single voter: when it is down, so is the cluster")
            .hint("three voters survive the loss of one");
        findings.add(problem);
    } else if count.is_multiple_of(2) {
        let survives = (count - 1) / 2;
        let message = format!(
            "{count} voters survive the loss of {survives}, as {} would: the last one only costs",
            count - 1
        );
        let problem = findings.warning(site, message).hint(format!(
            "use {} or {} voters, or make one a learner",
            count - 1,
            count + 1
        ));
        findings.add(problem);
    }
}

fn spread(draft: &Draft, findings: &Findings<'_>) {
    let Some(label) = &draft.guard.spread else { return };
    let voters: Vec<&DraftHost> =
        draft.hosts.iter().filter(|this| this.host.role == Role::Voter).collect();
    let without: Vec<&str> = voters
        .iter()
        .filter(|this| !this.host.labels.contains_key(label))
        .map(|this| this.host.name.as_str())
        .collect();
    if !without.is_empty() {
        let message = format!("spread = \"{label}\", but {} has no such label", without.join(", "));
        let hint = format!("labels = {{ {label} = \"…\" }} on every voter");
        findings.add(findings.warning(&draft.guard_span, message).hint(hint));
        return;
    }
    let mut members: BTreeMap<&str, usize> = BTreeMap::new();
    for this in &voters {
        *members.entry(this.host.labels[label].as_str()).or_default() += 1;
    }
    let quorum = voters.len() / 2 + 1;
    let Some((value, size)) = members.iter().max_by_key(|(_, size)| **size) else { return };
    if voters.len() > 1 && voters.len() - size < quorum {
        let message = if *size == voters.len() {
            format!("all voters share {label} = \"{value}\"")
        } else {
            format!("{size} of {} voters share {label} = \"{value}\"", voters.len())
        };
        let problem = findings
            .warning(&draft.guard_span, message)
            .label(format!("losing that {label} loses the quorum"))
            .hint(format!(
                "place voters so that no {label} holds more than {}",
                voters.len() - quorum
            ));
        findings.add(problem);
    }
}
