//! What is on a host now: one script, one round trip, no change. Plans are made from this and from
//! nothing remembered.
//!
//! The digest that counts is the one of the program that *runs* (`/proc/<pid>/exe`), not of the
//! file that was copied: a host may have got a new release and never started it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use monitoring::status::NodeStatus;

use crate::error::{Error, Kind, Result};
use crate::fleet::Fleet;
use crate::live::Heard;
use crate::ssh::Session;
use crate::supervisor;

/// One host as it was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    /// As `uname -m` says it.
    pub arch: String,
    pub machine_id: String,
    pub user: String,
    /// What runs as PID 1.
    pub init: String,
    /// Names of the folders in `releases/`, oldest first.
    pub releases: Vec<String>,
    /// The release that `current` names.
    pub current: Option<String>,
    /// sha-256 of `node.toml`, `members.toml` and `inventory.toml`, where they exist.
    pub files: BTreeMap<String, String>,
    pub process: Option<Process>,
    pub data: Data,
    /// The data folder holds a tombstone: its node was removed from the cluster.
    pub is_removed: bool,
    /// The ids that `members.toml` names.
    pub enrolled: Vec<u32>,
    pub deploy_disk: Option<Disk>,
    pub data_disk: Option<Disk>,
    /// What the running node says of itself.
    #[serde(skip)]
    pub status: Option<NodeStatus>,
}

/// The node that runs, pinned by its start time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    pub pid: u32,
    /// In clock ticks since boot, as the kernel counts them.
    pub start_ticks: u64,
    pub uptime_seconds: u64,
    /// sha-256 of the program in memory.
    pub digest: String,
    /// sha-256 of the `node.toml` that it was started with; unknown when the pidfile was lost.
    pub config: Option<String>,
}

/// What lies in the data folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// No folder, or an empty one.
    #[default]
    Blank,
    /// Formatted.
    Identity(Identity),
    /// Something is there, and no release on the host could read it.
    Unread { files: u64 },
    /// A release on the host tried to read it and could not.
    Broken { said: String },
}

/// As printed by `paxos-node identity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub id: u32,
    pub cluster_uuid: String,
    pub incarnation: String,
    pub public_key: String,
    /// The newest store version that the node's program can do; `None` from a release that does not
    /// say.
    #[serde(default)]
    pub store_version_newest: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub free_inodes: u64,
}

impl Facts {
    pub fn identity(&self) -> Option<&Identity> {
        match &self.data {
            Data::Identity(identity) => Some(identity),
            _ => None,
        }
    }

    pub fn heard(&self) -> Heard<'_> {
        match &self.status {
            Some(status) => Heard::Says(status),
            None if self.process.is_some() => Heard::Silent,
            None => Heard::Exited,
        }
    }

    /// What a plan rests on, for a plan to be refused when it has moved. Figures that change by
    /// themselves (disk, uptime) are left out.
    pub fn pin(&self) -> String {
        let process = self.process.as_ref().map(|p| (p.pid, p.start_ticks, &p.digest, &p.config));
        let text = format!(
            "{} {:?} {:?} {:?} {process:?} {:?} {}",
            self.arch, self.releases, self.current, self.files, self.data, self.is_removed
        );
        crate::digest::of_bytes(text.as_bytes())
    }
}

/// Reads a host. Nothing is changed there.
pub async fn gather(session: &Session, host: &hosts::Host) -> Result<Facts> {
    let doing = "look at what is there";
    let said = session.run(doing, &script(host)).await?;
    parse(&said).map_err(|cause| Error::new(Kind::Internal, doing).on(&*host.name).because(cause))
}

/// Reads many hosts at once.
pub async fn survey(fleet: &Fleet) -> (BTreeMap<u32, Facts>, Vec<Error>) {
    let outcomes = fleet
        .each(|_| true, |member| async move { gather(&member.session, &member.host).await })
        .await;
    let (mut facts, mut errors) = (BTreeMap::new(), Vec::new());
    for (member, outcome) in outcomes {
        match outcome {
            Ok(found) => drop(facts.insert(member.host.id, found)),
            Err(error) => errors.push(error),
        }
    }
    (facts, errors)
}

/// What a removed node leaves in its data folder: it never starts again.
pub const TOMBSTONE: &str = "tombstone";
/// `paxos-node identity` answers 4 on a data folder that was never formatted.
const UNFORMATTED: i32 = 4;

fn script(host: &hosts::Host) -> String {
    format!(
        r#"{}say() {{ printf '%s %s\n' "$1" "$2"; }}
say arch "$(uname -m)"
say machine_id "$(cat /etc/machine-id 2>/dev/null)"
say user "$(id -un)"
say init "$(cat /proc/1/comm)"
for release in $(ls -1tr "$d/releases" 2>/dev/null); do
  [ ! -x "$d/releases/$release/paxos-node" ] || say release "$release"
done
[ ! -L "$d/current" ] || say current "$(basename "$(readlink "$d/current")")"
for file in node.toml members.toml inventory.toml wiping; do
  [ ! -f "$d/$file" ] || say file "$file $(sha256sum < "$d/$file" | cut -d' ' -f1)"
done
[ ! -f "$d/members.toml" ] || say enrolled "$(sed -n 's/^id *= *\([0-9][0-9]*\)$/\1/p' "$d/members.toml" | tr '\n' ' ')"
[ ! -f "$data/{TOMBSTONE}" ] || say removed yes
files=$(ls -A "$data" 2>/dev/null | wc -l)
say data_files "$files"
if node_find; then
  now=$(cut -d. -f1 /proc/uptime); hertz=$(getconf CLK_TCK)
  say process "$pid $start $((now - start / hertz)) $(sha256sum < "/proc/$pid/exe" | cut -d' ' -f1) $config"
  page=$(timeout 3 "/proc/$pid/exe" get /status --config "$d/node.toml" 2>/dev/null | tr -d '\n')
  [ -z "$page" ] || say status "$page"
fi
# What runs can read its own data; `current` may be a release that was never started.
if [ -n "$pid" ]; then program=/proc/$pid/exe; else program=$d/current/paxos-node; fi
if [ "$files" != 0 ] && [ -x "$program" ] && [ -f "$d/node.toml" ]; then
  ask() {{ timeout 5 "$program" identity --config "$d/node.toml"; }}
  said=$(ask 2>/dev/null); status=$?
  if [ $status != 0 ] && [ $status != 4 ]; then said=$(ask 2>&1); fi
  say identity "$status $(printf %s "$said" | tr '\n' ' ')"
fi
disk() {{
  place=$2; while [ ! -e "$place" ]; do place=$(dirname "$place"); done
  say "$1" "$(df -Pk "$place" | awk 'NR==2 {{print $2, $4}}') $(df -Pi "$place" | awk 'NR==2 {{print $4}}')"
}}
disk deploy_disk "$d"; disk data_disk "$data"
exit 0
"#,
        supervisor::prelude(host)
    )
}

fn parse(said: &str) -> Result<Facts, String> {
    let mut facts = Facts::default();
    let mut data_files = 0;
    for line in said.lines() {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let strange = || format!("the host answered `{line}`");
        match key {
            "arch" => value.clone_into(&mut facts.arch),
            "machine_id" => value.clone_into(&mut facts.machine_id),
            "user" => value.clone_into(&mut facts.user),
            "init" => value.clone_into(&mut facts.init),
            "release" => facts.releases.push(value.to_owned()),
            "current" => facts.current = Some(value.to_owned()),
            "file" => {
                let (name, digest) = value.split_once(' ').ok_or_else(strange)?;
                facts.files.insert(name.to_owned(), digest.to_owned());
            }
            "data_files" => data_files = value.trim().parse().map_err(|_| strange())?,
            "enrolled" => {
                let ids = value.split_whitespace().map(str::parse);
                facts.enrolled = ids.collect::<Result<_, _>>().map_err(|_| strange())?;
            }
            "removed" => facts.is_removed = true,
            "process" => facts.process = Some(parse_process(value).ok_or_else(strange)?),
            "status" => facts.status = serde_json::from_str(value).ok(),
            "identity" => facts.data = parse_identity(value).ok_or_else(strange)?,
            "deploy_disk" => facts.deploy_disk = parse_disk(value),
            "data_disk" => facts.data_disk = parse_disk(value),
            _ => return Err(strange()),
        }
    }
    if facts.arch.is_empty() {
        return Err("the host answered nothing".to_owned());
    }
    // `identity` was asked only where something is there; without an answer it stays unread.
    if data_files > 0 && facts.data == Data::Blank && !said.contains("\nidentity ") {
        facts.data = Data::Unread { files: data_files };
    }
    Ok(facts)
}

fn parse_process(value: &str) -> Option<Process> {
    let mut words = value.split(' ');
    Some(Process {
        pid: words.next()?.parse().ok()?,
        start_ticks: words.next()?.parse().ok()?,
        uptime_seconds: words.next()?.parse::<i64>().ok()?.max(0).unsigned_abs(),
        digest: words.next()?.to_owned(),
        config: words.next().filter(|word| !word.is_empty()).map(str::to_owned),
    })
}

fn parse_identity(value: &str) -> Option<Data> {
    let (status, said) = value.split_once(' ').unwrap_or((value, ""));
    Some(match status.parse().ok()? {
        0 => match serde_json::from_str(said.trim()) {
            Ok(identity) => Data::Identity(identity),
            Err(error) => Data::Broken { said: format!("{}: {error}", said.trim()) },
        },
        UNFORMATTED => Data::Blank,
        _ => Data::Broken { said: said.trim().to_owned() },
    })
}

fn parse_disk(value: &str) -> Option<Disk> {
    let mut words = value.split_whitespace().map(str::parse::<u64>);
    Some(Disk {
        total_bytes: words.next()?.ok()? * 1024,
        free_bytes: words.next()?.ok()? * 1024,
        // Some file systems make inodes as they go and say `-`.
        free_inodes: words.next().and_then(Result::ok).unwrap_or(u64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATTED: &str = "\
arch x86_64
machine_id 0123
user root
init sshd
release 0123456789ab
current 0123456789ab
file node.toml aa
enrolled 1 2 3 
data_files 3
process 42 1234 60 ffff aa
identity 0 {\"id\":1,\"cluster_uuid\":\"c0\",\"incarnation\":\"1f\",\"public_key\":\"ab\"}
deploy_disk 1000 500 77
data_disk 1000 500 -
";

    #[test]
    fn a_host_is_read_from_its_answers() {
        let facts = parse(FORMATTED).unwrap();
        assert_eq!(facts.identity().unwrap().cluster_uuid, "c0");
        assert_eq!((facts.enrolled.as_slice(), facts.is_removed), (&[1, 2, 3][..], false));
        let process = facts.process.unwrap();
        assert_eq!((process.pid, process.config.as_deref()), (42, Some("aa")));
        assert_eq!(facts.deploy_disk.unwrap().free_bytes, 500 * 1024);
        assert_eq!(facts.data_disk.unwrap().free_inodes, u64::MAX);
    }

    #[test]
    fn data_that_nobody_could_read_is_never_blank() {
        let unread = parse("arch x86_64\ndata_files 2\n").unwrap();
        assert_eq!(unread.data, Data::Unread { files: 2 });
        let blank = parse("arch x86_64\ndata_files 0\n").unwrap();
        assert_eq!(blank.data, Data::Blank);
        let broken = parse("arch x86_64\ndata_files 2\nidentity 3 bad checksum\n").unwrap();
        assert_eq!(broken.data, Data::Broken { said: "bad checksum".to_owned() });
        let unformatted = parse("arch x86_64\ndata_files 1\nidentity 4 not formatted\n").unwrap();
        assert_eq!(unformatted.data, Data::Blank);
        assert!(parse("").is_err());
    }

    #[test]
    fn a_pin_moves_with_what_a_plan_rests_on() {
        let facts = parse(FORMATTED).unwrap();
        let mut later = facts.clone();
        later.data_disk = None;
        assert_eq!(facts.pin(), later.pin());
        later.process = None;
        assert_ne!(facts.pin(), later.pin());
    }
}
