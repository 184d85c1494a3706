//! What keeps a node running on its host, behind one seam: how to find it, start it and stop it, as
//! shell for `ssh`.
//!
//! The detached process is for hosts without systemd. Its pidfile holds the pid, the start time of
//! that pid and the digest of the configuration it was started with. A pid alone proves nothing, as
//! pids are reused; so whoever stops a node checks pid, start time, and that the program comes from
//! this deploy_dir. Another cluster on the same host is never touched.

use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::facts::Facts;
use crate::ssh::quote;

/// How long a node may take to hand over, sync and leave before it is killed.
pub const STOP_BOUND: Duration = Duration::from_secs(20);
/// What a node says on stdout and stderr before its traces are open, and when it panics. Begun anew
/// at each start; the last one is kept.
pub const NODE_OUT: &str = "node.out";
pub const PIDFILE: &str = "paxos-node.pid";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supervisor {
    Process,
}

impl Supervisor {
    /// Which one a host gets. Units come with a later release, so `auto` means the detached process
    /// everywhere, and asking for systemd is refused rather than quietly answered otherwise.
    pub fn choose(host: &hosts::Host, facts: &Facts) -> Result<Supervisor> {
        match host.supervisor {
            hosts::Supervisor::Auto | hosts::Supervisor::Process => Ok(Supervisor::Process),
            hosts::Supervisor::Systemd => {
                let mut error =
                    Error::new(Kind::Usage, "run the node under systemd").on(&*host.name);
                if facts.init != "systemd" {
                    error = error.because(format!("PID 1 of this host is {}", facts.init));
                }
                Err(error
                    .because("this release runs nodes as detached processes only")
                    .hint("set supervisor = \"auto\" in the inventory"))
            }
        }
    }
}

/// Shell functions that every script about a node begins with. `node_find` sets `pid` and `start`
/// to this cluster's running node, or to nothing: by the pidfile, or, should it be lost, by a look
/// at all processes of this mount namespace whose program lies in our `releases/`. The kernel names
/// programs by their real path, so `real` is deploy_dir with its links resolved.
pub fn prelude(host: &hosts::Host) -> String {
    let deploy_dir = quote(&host.deploy_dir.display().to_string());
    let data_dir = quote(&host.data_dir.display().to_string());
    format!(
        r#"d={deploy_dir}; data={data_dir}; real=$(cd "$d" 2>/dev/null && pwd -P)
start_of() {{ sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }}
state_of() {{ sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f1; }}
ours() {{
  [ -n "$1" ] && [ -d "/proc/$1" ] && [ "$(state_of "$1")" != Z ] || return 1
  [ "$(readlink "/proc/$1/ns/mnt")" = "$(readlink /proc/self/ns/mnt)" ] || return 1
  case "$(readlink "/proc/$1/exe")" in "$real"/releases/*/paxos-node*) return 0;; esac
  return 1
}}
node_find() {{
  pid= start= config=
  if read -r pid start config < "$d/{PIDFILE}" 2>/dev/null; then
    if ours "$pid" && [ "$(start_of "$pid")" = "$start" ]; then return 0; fi
  fi
  config=
  for pid in $(ls -l /proc/[0-9]*/exe 2>/dev/null | grep -F " -> $real/releases/" | sed 's|.* /proc/\([0-9]*\)/exe.*|\1|'); do
    if ours "$pid" && tr '\0' ' ' < "/proc/$pid/cmdline" | grep -qF -- "--config $d/node.toml"; then
      case "$(tr '\0' ' ' < "/proc/$pid/cmdline")" in
        *" identity "*|*" get "*|*" format "*|*" admin "*) continue;;
      esac
      start=$(start_of "$pid"); return 0
    fi
  done
  pid= start=; return 1
}}
"#
    )
}

/// Starts the node that `current` names. Does nothing where it runs already.
pub fn start(host: &hosts::Host) -> String {
    let nofile = host.limits.nofile.map_or_else(String::new, |count| {
        format!("ulimit -n {count} 2>/dev/null || ulimit -n $(ulimit -Hn) 2>/dev/null || true\n")
    });
    format!(
        r#"{}set -e
if node_find; then echo "running $pid"; exit 0; fi
cd "$d"
config=$(sha256sum < node.toml | cut -d' ' -f1)
[ ! -f {NODE_OUT} ] || mv -f {NODE_OUT} {NODE_OUT}.1
{nofile}export d config
setsid sh -c '
  start=$(sed "s/.*) //" /proc/$$/stat | cut -d" " -f20)
  printf "%s %s %s\n" "$$" "$start" "$config" > "$d/{PIDFILE}.$$"
  mv -f "$d/{PIDFILE}.$$" "$d/{PIDFILE}"
  unset config start
  exec "$d/current/paxos-node" --config "$d/node.toml"
' </dev/null >{NODE_OUT} 2>&1 &
count=0
until node_find || [ $count -ge 100 ]; do count=$((count + 1)); sleep 0.05; kill -0 $! 2>/dev/null || break; done
if node_find; then echo "started $pid"; exit 0; fi
echo "the node exited at once" >&2; tail -n 5 {NODE_OUT} >&2; exit 1
"#,
        prelude(host)
    )
}

/// Asks the node to stop, waits, and kills it when the bound has passed. Prints how it went.
pub fn stop(host: &hosts::Host, bound: Duration) -> String {
    let tenths = bound.as_millis() / 100;
    format!(
        r#"{}if ! node_find; then rm -f "$d/{PIDFILE}"; echo "not running"; exit 0; fi
gone() {{ ! ours "$pid" || [ "$(start_of "$pid")" != "$start" ]; }}
kill -TERM "$pid" 2>/dev/null
count=0
while ! gone && [ $count -lt {tenths} ]; do count=$((count + 1)); sleep 0.1; done
if gone; then how=stopped; else
  how=killed; kill -KILL "$pid" 2>/dev/null; count=0
  while ! gone && [ $count -lt 50 ]; do count=$((count + 1)); sleep 0.1; done
fi
if ! gone; then echo "process $pid does not end, even by SIGKILL" >&2; exit 1; fi
rm -f "$d/{PIDFILE}"; echo "$how"
"#,
        prelude(host)
    )
}

/// The last lines that a node left: what it said before its traces were open, then its newest trace.
pub fn last_words(host: &hosts::Host, lines: usize) -> String {
    format!(
        r#"{}tail -n {lines} "$d/{NODE_OUT}" 2>/dev/null
newest=$(ls -1t "$data"/trace/* 2>/dev/null | head -n 1)
[ -z "$newest" ] || tail -n {lines} "$newest"
"#,
        prelude(host)
    )
}
