//! README's make targets, run for real. Those of Docker are in `compose.rs`.

mod made;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use hosts::lab::{self, Lab};
use made::{checkout, free_base_port, make, readme};

/// What a run leaves in the checkout goes away with its test.
struct Leftovers(Vec<PathBuf>);

impl Drop for Leftovers {
    fn drop(&mut self) {
        for folder in &self.0 {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// A base port as make is told it, and the folder that a run there uses.
fn own_port() -> (String, Leftovers) {
    let port = free_base_port();
    let run = checkout().join(".run");
    let folders = vec![run.join(port.to_string()), run.join(format!("bench-{port}"))];
    (format!("BASE_PORT={port}"), Leftovers(folders))
}

#[test]
fn compile_and_help() {
    readme("make compile", &[]).expect(0);
    for program in ["paxos-node", "paxosctl"] {
        let path = checkout().join("target/release").join(program);
        let output = Command::new(&path).arg("--version").output().unwrap();
        assert!(output.status.success(), "{}", path.display());
        // Static: nodes are copied to hosts, and into an empty image, as they are.
        let bytes = std::fs::read(&path).unwrap();
        let interpreter = b"/lib64/ld-linux";
        let dynamic = bytes.windows(interpreter.len()).any(|window| window == interpreter);
        assert!(!dynamic, "{} wants a dynamic linker", path.display());
    }
    let help = readme("make help", &[]).expect(0);
    for target in ["run", "ssh_up", "lab_up", "monitor_up", "bench", "sim", "test"] {
        let listed = |line: &str| line.split_whitespace().next() == Some(target);
        assert!(help.stdout.lines().any(listed), "no {target} in:\n{}", help.stdout);
    }
}

#[test]
fn a_run_shows_live_lines_and_ends_with_a_verdict() {
    let (port, _leftovers) = own_port();
    let made = readme("make run", &["DURATION=2s", &port]).expect(0);
    let made = made.says("3 servers start").says("ran 2.").says("with 3 servers, 1 clients");
    assert!(made.stdout.contains("   1s  leader n"), "a line a second:\n{}", made.stdout);
    made.says("proof   holds");

    let made = readme("make run CLIENTS=16 DURATION=8s", &["DURATION=2s", &port]).expect(0);
    made.says("with 3 servers, 16 clients, config default").says("proof   holds");

    let made = readme("make run SERVERS=5 CLIENTS=8 CONFIG=highest-id", &["DURATION=3s", &port]);
    let made = made.expect(0).says("with 5 servers, 8 clients, config highest-id");
    made.says("proof   holds");
}

/// A short one: what is tested is that the command counts leader changes, and holds under them.
#[test]
fn a_soak_says_whether_the_leader_stayed() {
    let (port, _leftovers) = own_port();
    let made = readme("make soak", &["DURATION=3s", "CLIENTS=16", &port]);
    // On a machine that is busy with other tests it may have had to change.
    let stayed = made.stdout.contains("changes after the first election: 0\n");
    let made = made.expect(if stayed { 0 } else { 2 });
    assert_eq!(made.complaints().is_empty(), stayed, "{}", made.stderr);
    made.says("with 3 servers, 16 clients").says("proof   holds");
}

#[test]
fn bad_servers_and_taken_ports_get_one_clear_line() {
    let (port, _leftovers) = own_port();
    for servers in ["0", "10", "x"] {
        let made = make(&["run", &format!("SERVERS={servers}"), &port]).expect(2);
        let expected = format!("error[USAGE]: SERVERS is `{servers}`: want a number from 1 to 9");
        assert_eq!(made.complaints(), [expected]);
    }
    let made = make(&["run", "SERVERS=2", "DURATION=1s", &port]).expect(0);
    made.says("warning: 2 servers survive no more failures than 1");

    let base: u16 = port.trim_start_matches("BASE_PORT=").parse().unwrap();
    let held = base + 11;
    let _holder = TcpListener::bind(("127.0.0.1", held)).unwrap();
    let made = make(&["run", "DURATION=1s", &port]).expect(2);
    let [complaint] = made.complaints()[..] else { panic!("{}", made.stderr) };
    assert!(complaint.contains(&format!("127.0.0.1:{held} is held by")), "{complaint}");
}

#[test]
fn simulations_and_measurements() {
    readme("make sim SEEDS=100000", &["SEEDS=20"]).expect(0).says("20 ");
    let (port, _leftovers) = own_port();
    let made = readme("make bench", &["DURATION=500ms", "ONLY=1 client", &port]).expect(0);
    made.says("1 client").says("operations/s");
}

/// The commands of README's lab, with a name and folders that meet no other lab.
#[test]
fn a_cluster_on_lab_hosts_from_nothing_to_nothing() {
    if let Err(reason) = lab::requirements() {
        return skipped(&reason.to_string());
    }
    let folder = tempfile::tempdir().unwrap();
    let name = format!("make-{}", std::process::id());
    let labs = folder.path().join("labs");
    let inventory = format!("HOSTS={}", labs.join(&name).join("inventory.toml").display());
    let place = [format!("LAB={name}"), format!("LAB_DIR={}", labs.display())];
    let place = [place[0].as_str(), place[1].as_str()];
    let _lab = Down { labs: labs.clone(), name: name.clone() };

    readme("make lab_up", &place).expect(0).says(&format!("lab {name} is up"));
    let up = "make ssh_up HOSTS=.lab/lab/inventory.toml";
    readme(up, &[&inventory]).expect(0).says("audit ");
    readme(up, &[&inventory]).expect(0).says("No changes");
    readme("make ssh_up HOSTS=hosts/inventories/mine.toml", &[&inventory]).expect(0);
    let show = "make ssh_show HOSTS=.lab/lab/inventory.toml";
    let shown = readme(show, &[&inventory]).expect(0).says("healthy").says("can lose 1 more");
    for host in ["n1", "n2", "n3"] {
        assert!(shown.stdout.contains(host), "{}", shown.stdout);
    }

    watch(&inventory, &folder.path().join("monitor"));

    let down = "make ssh_down HOSTS=.lab/lab/inventory.toml";
    readme(down, &[&inventory]).expect(0);
    let lab = Lab::open(&name).unwrap();
    for host in lab.host_names() {
        assert!(lab.processes(&host, "paxos-node").unwrap().is_empty(), "a node is left on {host}");
    }
    // What is stopped is shown as such, and as a failure.
    readme(show, &[&inventory]).expect(2).says("unavailable");
    readme("make lab_down", &place).expect(0).says(&format!("removed lab {name}"));
    assert!(!Lab::list().unwrap().iter().any(|lab| lab.name == name));
    assert!(!labs.join(&name).exists());
}

/// Prometheus for the lab's cluster, which this machine may read without being told so.
fn watch(inventory: &str, folder: &std::path::Path) {
    if Command::new("prometheus").arg("--version").output().is_err() {
        return skipped("prometheus is not installed (Debian: prometheus)");
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let grafana = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = format!("MONITOR_DIR={}", folder.display());
    let ports = [format!("PROMETHEUS_PORT={port}"), format!("GRAFANA_PORT={grafana}")];
    let more = [inventory, &folder, &ports[0], &ports[1]];
    let made = readme("make monitor_up HOSTS=…", &more).expect(0).says("prometheus   ready");
    assert!(!made.stderr.contains("cannot be read from here"), "{}", made.stderr);
    readme("make monitor_down", &more).expect(0).says("prometheus stopped");
}

/// Takes the lab down also after a failed test.
struct Down {
    labs: PathBuf,
    name: String,
}

impl Drop for Down {
    fn drop(&mut self) {
        let _ = Lab::down(&self.labs, &self.name);
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
