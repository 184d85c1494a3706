//! What was found on hosts, judged: pass, warn or fail, and what mends it.

use std::collections::BTreeMap;

use super::{Finding, Outcome, Probe, SYNCS};

const SYNC_WARN_MS: f64 = 10.0;
const SYNC_FAIL_MS: f64 = 100.0;
const DISK_WARN_BYTES: u64 = 2 << 30;
const DISK_FAIL_BYTES: u64 = 256 << 20;
const INODES_FAIL: u64 = 1_000;
const CLOCK_WARN_MS: i64 = 500;
const CLOCK_FAIL_MS: i64 = 30_000;
const RTT_WARN_MS: f64 = 20.0;
const NOFILE_WARN: u64 = 65_536;

pub(super) fn host(host: &hosts::Host, architectures: &[String], probe: &Probe) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |check, result, message: String| {
        findings.push(Finding { node: host.name.clone(), check, result, message });
    };
    let user = probe.one("user").split(' ').next().unwrap_or_default();
    say("ssh", Outcome::Pass, format!("host key known, in as {user}"));

    let arch = probe.one("arch");
    if architectures.is_empty() || architectures.iter().any(|have| have == arch) {
        say("arch", Outcome::Pass, arch.to_owned());
    } else {
        let have = architectures.join(", ");
        say(
            "arch",
            Outcome::Fail,
            format!("{arch}, the binary is for {have}: set binary.{arch} in the inventory"),
        );
    }
    if !probe.all("missing").is_empty() {
        say(
            "tools",
            Outcome::Fail,
            format!(
                "missing: {}: install coreutils, util-linux and sed",
                probe.all("missing").join(" ")
            ),
        );
    }
    for folder in probe.all("unwritable") {
        let (folder, place) = folder.split_once(' ').unwrap_or((folder, "/"));
        say(
            "folders",
            Outcome::Fail,
            format!(
                "{user} may not write to {place}: as root, mkdir -p {folder} && chown {user} {folder}"
            ),
        );
    }
    if probe.all("unwritable").is_empty() {
        say(
            "folders",
            Outcome::Pass,
            format!("{} and {}", host.deploy_dir.display(), host.data_dir.display()),
        );
    }
    judge_ports(probe, &mut say);
    judge_disk(host, probe, &mut say);
    judge_syncs(host, probe, &mut say);
    let limit = probe.one("nofile").parse::<u64>().unwrap_or(u64::MAX);
    let wanted = host.limits.nofile.unwrap_or(NOFILE_WARN);
    if limit < wanted {
        say(
            "nofile",
            Outcome::Warn,
            format!(
                "at most {limit} open files, {wanted} wanted: raise it in /etc/security/limits.conf"
            ),
        );
    } else {
        say("nofile", Outcome::Pass, probe.one("nofile").to_owned());
    }
    let (offset, doubt) = (probe.clock_offset_ms, probe.clock_doubt_ms);
    let sure = (offset.abs() - doubt).max(0);
    let result = match sure {
        CLOCK_FAIL_MS.. => Outcome::Fail,
        CLOCK_WARN_MS.. => Outcome::Warn,
        _ => Outcome::Pass,
    };
    let mend =
        if result == Outcome::Pass { "" } else { ": let chrony or systemd-timesyncd keep it" };
    say("clock", result, format!("{offset:+} ms from this machine (±{doubt}){mend}"));
    if !probe.all("killuser").is_empty() && user != "root" {
        say(
            "logind",
            Outcome::Warn,
            format!(
                "KillUserProcesses=yes ends detached nodes at logout: loginctl enable-linger {user}"
            ),
        );
    }
    judge_reach(probe, &mut say);
    findings
}

type Say<'a> = &'a mut dyn FnMut(&'static str, Outcome, String);

fn judge_ports(probe: &Probe, say: Say<'_>) {
    let held: Vec<&String> =
        probe.all("port").iter().filter(|port| port.contains(" held")).collect();
    for port in &held {
        let (number, holder) = port.split_once(" held").unwrap_or((port, ""));
        let holder = match holder.trim().split_once(' ') {
            Some((pid, name)) => format!("{name} (pid {pid})"),
            None => "another user's process".to_owned(),
        };
        say(
            "ports",
            Outcome::Fail,
            format!("{number} is held by {holder}: stop it, or set another port in the inventory"),
        );
    }
    if held.is_empty() {
        let states: Vec<String> =
            probe.all("port").iter().map(|port| port.replace(' ', " is ")).collect();
        say("ports", Outcome::Pass, states.join(", "));
    }
}

fn judge_disk(host: &hosts::Host, probe: &Probe, say: Say<'_>) {
    let mut words = probe.one("disk").split(' ');
    let free = words.next().and_then(|word| word.parse::<u64>().ok()).map(|kib| kib * 1024);
    let inodes = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(u64::MAX);
    let data_dir = host.data_dir.display();
    let Some(free) = free else {
        return say("disk", Outcome::Warn, format!("df did not answer for {data_dir}"));
    };
    let gib = free as f64 / (1_u64 << 30) as f64;
    if inodes < INODES_FAIL {
        say(
            "disk",
            Outcome::Fail,
            format!("{inodes} inodes left for {data_dir}: remove files there"),
        );
    } else if free < DISK_FAIL_BYTES {
        say("disk", Outcome::Fail, format!("{gib:.2} GiB free for {data_dir}: make room"));
    } else if free < DISK_WARN_BYTES {
        say("disk", Outcome::Warn, format!("{gib:.1} GiB free for {data_dir}: make room soon"));
    } else {
        say("disk", Outcome::Pass, format!("{gib:.1} GiB free for {data_dir}"));
    }
}

fn judge_syncs(host: &hosts::Host, probe: &Probe, say: Say<'_>) {
    let mut syncs: Vec<f64> = probe.all("sync").iter().filter_map(|s| s.parse().ok()).collect();
    if syncs.len() < SYNCS / 2 {
        if probe.all("unwritable").is_empty() {
            say("fsync", Outcome::Warn, "could not be measured with dd".to_owned());
        }
        return;
    }
    syncs.sort_by(f64::total_cmp);
    let p99_ms = syncs[(syncs.len() - 1) * 99 / 100] * 1_000.0;
    let median_ms = syncs[syncs.len() / 2] * 1_000.0;
    let figures = format!("p99 {p99_ms:.2} ms, median {median_ms:.2} ms of {} syncs", syncs.len());
    let data_dir = host.data_dir.display();
    match p99_ms {
        p99 if p99 >= SYNC_FAIL_MS => say(
            "fsync",
            Outcome::Fail,
            format!("{figures}: every write waits for this; put {data_dir} on a faster disk"),
        ),
        p99 if p99 >= SYNC_WARN_MS => say(
            "fsync",
            Outcome::Warn,
            format!("{figures}: writes will be slow; a disk of its own for {data_dir} helps"),
        ),
        _ => say("fsync", Outcome::Pass, figures),
    }
}

fn judge_reach(probe: &Probe, say: Say<'_>) {
    for reach in probe.all("reach") {
        let (peer, microseconds) = reach.split_once(' ').unwrap_or((reach, ""));
        match microseconds.parse::<f64>() {
            Ok(us) if us / 1_000.0 >= RTT_WARN_MS => say(
                "reach",
                Outcome::Warn,
                format!(
                    "{peer} in {:.1} ms: far apart; config = \"wan\" suits better",
                    us / 1_000.0
                ),
            ),
            Ok(us) => say("reach", Outcome::Pass, format!("{peer} in {:.1} ms", us / 1_000.0)),
            Err(_) if microseconds == "unknown" => {
                say("reach", Outcome::Warn, format!("{peer} not tried: the host has no bash"))
            }
            Err(_) => say(
                "reach",
                Outcome::Fail,
                format!(
                    "{peer} cannot be reached on its peer port: open the firewall between them"
                ),
            ),
        }
    }
}

pub(super) fn together(probes: &[(String, Probe)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, probe) in probes {
        let machine = probe.one("machine");
        if machine.is_empty() {
            continue;
        }
        if let Some(first) = seen.insert(machine, name) {
            findings.push(Finding {
                node: name.clone(),
                check: "machine-id",
                result: Outcome::Warn,
                message: format!("the same as {first}: one machine, or a cloned one (then: rm /etc/machine-id; systemd-machine-id-setup)"),
            });
        }
    }
    let clocks: Vec<&(String, Probe)> = probes.iter().collect();
    let earliest = clocks.iter().min_by_key(|(_, probe)| probe.clock_offset_ms);
    let latest = clocks.iter().max_by_key(|(_, probe)| probe.clock_offset_ms);
    if let (Some((early, a)), Some((late, b))) = (earliest, latest) {
        let apart = b.clock_offset_ms - a.clock_offset_ms - a.clock_doubt_ms - b.clock_doubt_ms;
        if apart >= CLOCK_WARN_MS {
            findings.push(Finding {
                node: late.clone(),
                check: "clocks",
                result: Outcome::Warn,
                message: format!(
                    "{apart} ms ahead of {early}: expiry times jump when the leader changes"
                ),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> hosts::Host {
        let text = "schema = 1\n[cluster]\nname = \"demo\"\n[[host]]\nname = \"n1\"\nid = 1\naddress = \"10.0.0.1\"\n";
        let folder = std::path::Path::new("/tmp");
        hosts::parse(text, "t", folder, hosts::Knowledge::default()).unwrap().hosts[0].clone()
    }

    fn sound() -> String {
        let mut said = "arch x86_64\nmachine aa\nuser ops 1000\nnofile 1048576\n\
                        disk 100000000 1000000\nport 7379 free\nport 7380 ours\nreach n2 400\n"
            .to_owned();
        for _ in 0..SYNCS {
            said += "sync 0.0001\n";
        }
        said
    }

    fn check(said: &str, expect: &[(&str, Outcome, &str)]) {
        let findings = super::host(&host(), &["x86_64".to_owned()], &Probe::parse(said));
        let odd: Vec<&Finding> =
            findings.iter().filter(|finding| finding.result != Outcome::Pass).collect();
        assert_eq!(odd.len(), expect.len(), "{odd:?}");
        for (finding, (check, result, word)) in odd.iter().zip(expect) {
            assert_eq!((finding.check, finding.result), (*check, *result), "{finding:?}");
            assert!(finding.message.contains(word), "{finding:?}");
        }
    }

    #[test]
    fn a_sound_host_passes_and_each_fault_names_its_mend() {
        let sound = sound();
        check(&sound, &[]);
        let with = |from: &str, to: &str| sound.replace(from, to);
        use Outcome::{Fail, Warn};
        check(&with("x86_64", "aarch64"), &[("arch", Fail, "binary.aarch64")]);
        check(
            &with("7379 free", "7379 held 812 redis-server"),
            &[("ports", Fail, "redis-server (pid 812)")],
        );
        check(&with("7379 free", "7379 held "), &[("ports", Fail, "another user's")]);
        check(&with("100000000 1000000", "1000000 1000000"), &[("disk", Warn, "make room soon")]);
        check(&with("100000000 1000000", "100000000 5"), &[("disk", Fail, "5 inodes")]);
        check(&with("nofile 1048576", "nofile 1024"), &[("nofile", Warn, "1024")]);
        check(&with("sync 0.0001", "sync 0.02"), &[("fsync", Warn, "p99 20.00 ms")]);
        check(&with("sync 0.0001", "sync 0.5"), &[("fsync", Fail, "faster disk")]);
        check(&with("n2 400", "n2 failed"), &[("reach", Fail, "firewall")]);
        check(&with("n2 400", "n2 80000"), &[("reach", Warn, "wan")]);
        check(&(sound.clone() + "missing flock\n"), &[("tools", Fail, "flock")]);
        check(
            &(sound.clone() + "unwritable /opt/paxos /opt\n"),
            &[("folders", Fail, "chown ops /opt/paxos")],
        );
        check(&(sound.clone() + "killuser yes\n"), &[("logind", Warn, "enable-linger ops")]);
    }

    #[test]
    fn cloned_machines_and_drifting_clocks_are_found_together() {
        let probe = |machine: &str, offset| {
            let mut probe = Probe::parse(&format!("machine {machine}\n"));
            probe.clock_offset_ms = offset;
            probe
        };
        let probes = [
            ("n1".to_owned(), probe("aa", 0)),
            ("n2".to_owned(), probe("aa", 20)),
            ("n3".to_owned(), probe("bb", 900)),
        ];
        let findings = together(&probes);
        assert_eq!(findings.len(), 2);
        assert!(findings[0].message.contains("same as n1"));
        assert!(findings[1].message.contains("900 ms ahead of n1"));
    }
}
