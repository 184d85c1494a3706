//! Before anything is installed: can these hosts carry a cluster? One script a host looks and
//! measures; what it found is judged here, host by host and against each other. Each finding that is
//! not a pass names its mend.
//!
//! The only thing it writes is one small file beside the data, to time its syncs, removed at once.

mod judge;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::error::Result;
use crate::fleet::{Fleet, Member};
use crate::ssh::quote;
use crate::supervisor;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub node: String,
    pub check: &'static str,
    pub result: Outcome,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Pass,
    Warn,
    Fail,
}

/// What one host answered.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    answers: BTreeMap<String, Vec<String>>,
    /// The host's clock against ours, as far as the round trip lets us know.
    clock_offset_ms: i64,
    clock_doubt_ms: i64,
}

const SYNCS: usize = 200;
const TOOLS: &str = "timeout sha256sum setsid flock sed awk df stat tail sync readlink getconf";

/// Looks at one host. `others` are the hosts whose peer ports it must reach.
pub async fn probe(member: &Member, others: &[hosts::Host]) -> Result<Probe> {
    let script = script(&member.host, others);
    let sent = now_ms();
    let clock = member.session.run("read the clock", "date +%s%N").await?;
    let received = now_ms();
    let said = member
        .session
        .run_within("look whether the host can carry a node", &script, Duration::from_secs(60))
        .await?;
    let mut probe = Probe::parse(&said);
    let theirs = clock.trim().parse::<i64>().unwrap_or(0) / 1_000_000;
    probe.clock_offset_ms = theirs - (sent + received) / 2;
    probe.clock_doubt_ms = (received - sent) / 2;
    Ok(probe)
}

/// Looks at all hosts and judges them. Hosts that could not be dialled are the caller's findings.
pub async fn check(
    inventory: &hosts::Inventory,
    architectures: &[String],
    fleet: &Fleet,
) -> Vec<Finding> {
    let all = inventory.hosts.clone();
    let outcomes = fleet
        .each(
            |_| true,
            |member| {
                let all = all.clone();
                async move { probe(&member, &all).await }
            },
        )
        .await;
    let mut findings = Vec::new();
    let mut probes = Vec::new();
    for (member, outcome) in outcomes {
        match outcome {
            Ok(probe) => {
                findings.extend(judge::host(&member.host, architectures, &probe));
                probes.push((member.host.name.clone(), probe));
            }
            Err(error) => findings.push(Finding {
                node: member.host.name.clone(),
                check: "probe",
                result: Outcome::Fail,
                message: error.to_string(),
            }),
        }
    }
    findings.extend(judge::together(&probes));
    let place = |finding: &Finding| {
        inventory.hosts.iter().position(|host| host.name == finding.node).unwrap_or(usize::MAX)
    };
    findings.sort_by_key(place);
    findings
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn script(host: &hosts::Host, others: &[hosts::Host]) -> String {
    let ports = format!("{} {} {}", host.client_port, host.peer_port, host.http_port);
    let mut script = format!(
        r#"{}say() {{ printf '%s %s\n' "$1" "$2"; }}
say arch "$(uname -m)"
say machine "$(cat /etc/machine-id 2>/dev/null)"
say user "$(id -un) $(id -u)"
say init "$(cat /proc/1/comm)"
for tool in {TOOLS}; do command -v $tool >/dev/null 2>&1 || say missing $tool; done
above() {{ place=$1; while [ ! -e "$place" ]; do place=$(dirname "$place"); done; printf %s "$place"; }}
for folder in "$d" "$data"; do
  place=$(above "$folder")
  if [ -d "$place" ] && [ -w "$place" ]; then say writable "$folder"; else say unwritable "$folder $place"; fi
done
place=$(above "$data")
say disk "$(df -Pk "$place" | awk 'NR==2 {{print $4}}') $(df -Pi "$place" | awk 'NR==2 {{print $4}}')"
say nofile "$(ulimit -Hn)"
node_find; node=$pid
holder() {{
  for fd in /proc/[0-9]*/fd/*; do
    if [ "$(readlink "$fd" 2>/dev/null)" = "socket:[$1]" ]; then
      owner=${{fd#/proc/}}; owner=${{owner%%/*}}; printf '%s %s' "$owner" "$(cat /proc/$owner/comm)"; return
    fi
  done
}}
for port in {ports}; do
  hex=$(printf %04X $port)
  inode=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v p=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == p {{print $10; exit}}')
  if [ -z "$inode" ]; then say port "$port free"; else
    who=$(holder "$inode")
    if [ -n "$node" ] && [ "${{who%% *}}" = "$node" ]; then say port "$port ours"; else say port "$port held $who"; fi
  fi
done
if [ -d "$place" ] && [ -w "$place" ]; then
  probe="$place/.paxosctl-probe.$$"; trap 'rm -f "$probe"' EXIT
  dd if=/dev/zero of="$probe" bs=4096 count={SYNCS} 2>/dev/null; sync "$probe"
  count=0
  while [ $count -lt {SYNCS} ]; do
    dd if=/dev/zero of="$probe" bs=4096 count=1 seek=$count oflag=dsync conv=notrunc 2>&1 | sed -n 's/.* \([0-9.e-]*\) s,.*/sync \1/p'
    count=$((count + 1))
  done
  rm -f "$probe"
fi
grep -qs '^[[:space:]]*KillUserProcesses[[:space:]]*=[[:space:]]*yes' /etc/systemd/logind.conf /etc/systemd/logind.conf.d/*.conf && say killuser yes
"#,
        supervisor::prelude(host)
    );
    for other in others.iter().filter(|other| other.id != host.id) {
        let (name, port) = (&other.name, other.peer_port);
        let address = quote(&other.advertise);
        // A refusal is an answer too: the host is there, and so is the way to it.
        script += &format!(
            r#"if command -v bash >/dev/null 2>&1; then say reach "{name} $(timeout 3 bash -c '
s=${{EPOCHREALTIME/./}}; said=$( {{ exec 3<>/dev/tcp/$0/$1; }} 2>&1 ); code=$?; e=${{EPOCHREALTIME/./}}
case "$code:$said" in 0:*|*refused*) echo $((e - s));; *) echo failed;; esac' {address} {port} 2>/dev/null || echo failed)"
else say reach "{name} unknown"; fi
"#
        );
    }
    script + "exit 0\n"
}

impl Probe {
    fn parse(said: &str) -> Probe {
        let mut probe = Probe::default();
        for line in said.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            probe.answers.entry(key.to_owned()).or_default().push(value.trim().to_owned());
        }
        probe
    }

    fn all(&self, key: &str) -> &[String] {
        self.answers.get(key).map_or(&[], Vec::as_slice)
    }

    fn one(&self, key: &str) -> &str {
        self.all(key).first().map_or("", String::as_str)
    }
}
