//! Runs that something comes between, tried for real on lab hosts: a second operator while the first
//! one thinks, a freed lock, Ctrl-C and another node's death during a rolling restart, and what an
//! earlier run left half-done.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::{Said, Site};

/// Two operators, each of whom may stop one node: the guard is asked again after the question.
#[test]
fn two_operators_cannot_stop_one_node_each() {
    let Some(site) = Site::new("twice", 3) else { return };
    let inventory = &site.open_inventory();
    site.ctl(inventory, &["up"]).expect(0);
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0);

    // One of them has been asked and thinks, at a terminal, which `script` plays.
    let typed = format!("{} -i {} down -n n2", env!("CARGO_BIN_EXE_paxosctl"), inventory.display());
    let mut slow = Command::new("script");
    slow.args(["-qec", &typed, "/dev/null"]).env_remove("PAXOS_INVENTORY");
    slow.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut slow = slow.spawn().expect("script(1), of util-linux");
    let mut voice = slow.stdout.take().unwrap();
    let mut said = read_until(&mut voice, "[y/N]");

    site.ctl(inventory, &["down", "-n", "n1", "--yes"]).expect(0);
    slow.stdin.as_mut().unwrap().write_all(b"y\n").unwrap();
    voice.read_to_string(&mut said).unwrap();
    assert_eq!(slow.wait().unwrap().code(), Some(7), "{said}");
    assert!(said.contains("n1 is down; stopping n2 leaves 1 caught-up voter of 3"), "{said}");
    assert_eq!(site.lab.processes("n2", "paxos-node").unwrap().len(), 1);

    // Who says that it may cost the quorum gets it.
    site.ctl(inventory, &["down", "-n", "n2", "--yes", "--accept-quorum-loss"]).expect(0);
}

/// `--lock-wait` waits, plans again for what it then finds, and goes on.
#[test]
fn a_run_that_waited_for_the_lock_plans_again() {
    let Some(site) = Site::new("waited", 3) else { return };
    let inventory = &site.open_inventory();
    let start = || {
        let mut up = site.command(inventory, &["up", "--lock-wait", "3m"]);
        up.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for tool in [start(), start()] {
        Said::of(tool.wait_with_output().unwrap()).expect(0);
    }
    site.ctl(inventory, &["up"]).expect(0).says("No changes");

    // The same with the change made for sure between the look and the lock.
    site.lab.kill_processes("n2", "paxos-node").unwrap();
    site.leave_lock("n1", -600);
    let mut tool = site.command(inventory, &["up", "--lock-wait", "3m"]);
    let mut tool = tool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = read_until(tool.stderr.as_mut().unwrap(), "waiting: ");
    site.lab.kill_processes("n3", "paxos-node").unwrap();
    site.lab.output("n1", "rm /opt/paxos/lock").unwrap();
    let rest = Said::of(tool.wait_with_output().unwrap());
    said += &rest.stderr;
    assert_eq!(rest.code, 0, "{said}");
    assert!(said.contains("planning anew"), "{said}");
    site.ctl(inventory, &["up"]).expect(0).says("No changes");

    // Who does not wait is told, and nothing is done.
    site.leave_lock("n1", -600);
    site.lab.kill_processes("n3", "paxos-node").unwrap();
    site.ctl(inventory, &["up"]).expect(8).says("ann@desk");
    assert!(site.lab.processes("n3", "paxos-node").unwrap().is_empty());
}

/// Whatever comes between a rolling restart and its end, nothing more is changed than what is named.
#[test]
fn a_rolling_restart_that_is_stopped_leaves_the_node_as_it_is() {
    let Some(release) = Releases::new("rolling") else { return };
    let Releases { site, inventory, .. } = &release;
    site.ctl(inventory, &["up"]).expect(0);

    // Ctrl-C while the first node catches up.
    release.build("second");
    let (tool, first) = release.up_until_a_restart();
    let pid = rustix::process::Pid::from_raw(i32::try_from(tool.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let said = Said::of(tool.wait_with_output().unwrap()).expect(9);
    assert!(said.stderr.contains(&format!("{first} was left as it is")), "{}", said.stderr);
    assert!(!said.stderr.contains("went back"), "{}", said.stderr);
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0);
    site.ctl(inventory, &["plan"]).expect(0).says("2 restarts");

    // The lock is freed under a live holder: it does not take it again, and stops.
    release.build("third");
    let (tool, _) = release.up_until_a_restart();
    site.ctl(inventory, &["lock", "release", "--yes"]).expect(0);
    let said = Said::of(tool.wait_with_output().unwrap()).expect(9);
    assert!(said.stderr.contains("the operator lock was lost"), "{}", said.stderr);
    assert!(said.stderr.contains("somebody freed it"), "{}", said.stderr);
    assert!(!said.stderr.contains("went back"), "{}", said.stderr);
    let shown = site.ctl(inventory, &["lock", "show"]).expect(0);
    assert!(!shown.stdout.contains("held"), "{}", shown.stdout);

    // Another node dies while a healthy one has just been restarted.
    site.ctl(inventory, &["up"]).expect(0);
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0);
    release.build("fourth");
    let (tool, first) = release.up_until_a_restart();
    let other = ["n1", "n2", "n3"].into_iter().find(|name| *name != first).unwrap();
    site.lab.kill_processes(other, "paxos-node").unwrap();
    let said = Said::of(tool.wait_with_output().unwrap());
    assert!([4, 5, 9].contains(&said.code), "{said:?}");
    assert!(!said.stderr.contains("went back"), "{}", said.stderr);
    assert_eq!(site.lab.processes(&first, "paxos-node").unwrap().len(), 1, "it still runs");
    site.ctl(inventory, &["up"]).expect(0);
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0);
}

/// A node goes back to what it *ran*, also when an earlier run that broke off has changed the files
/// and the link already.
#[test]
fn a_node_goes_back_to_what_it_ran_not_to_what_lay_there() {
    let Some(release) = Releases::new("back") else { return };
    let Releases { site, inventory, .. } = &release;
    site.ctl(inventory, &["up"]).expect(0);
    let Some(bad) = release.build_one_that_does_not_run() else { return };
    let said = site.ctl(inventory, &["up"]).expect(9);
    let line = said.stderr.lines().find(|line| line.contains("went back to what it ran"));
    let name = line.and_then(|line| line.split_whitespace().next());
    let name = name.unwrap_or_else(|| panic!("{}", said.stderr));
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0);

    // What a run leaves that was killed between the switch and the stop.
    let leave = format!(
        "cd /opt/paxos && ln -sfn releases/{bad} current && \
         cp -p node.toml node.toml.before && echo '# by the run that broke off' >> node.toml"
    );
    site.lab.output(name, &leave).unwrap();
    let said = site.ctl(inventory, &["up"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("went back to what it ran"), "{}", said.stderr);
    assert!(said.stderr.contains("I will not run"), "its last words: {}", said.stderr);
    assert_eq!(site.lab.processes(name, "paxos-node").unwrap().len(), 1, "{name} runs again");
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0);
    let current = site.lab.output(name, "readlink /opt/paxos/current").unwrap();
    assert!(!current.contains(&bad), "current is {current}");
    let config = site.lab.output(name, "cat /opt/paxos/node.toml").unwrap();
    assert!(!config.contains("broke off"), "{config}");
}

/// A whole cluster with a dead host can be stopped.
#[test]
fn the_rest_of_a_cluster_stops_although_a_host_is_dead() {
    let Some(site) = Site::new("rest", 3) else { return };
    let inventory = &site.open_inventory();
    site.ctl(inventory, &["up"]).expect(0);
    site.lab.switch_off("n3").unwrap();
    site.ctl(inventory, &["down", "--yes"])
        .expect(3)
        .says("error[SSH] n3")
        .says("--skip-unreachable");
    let name = site.lab.name().to_owned();
    site.ctl(inventory, &["down", "--wipe", "--yes-wipe", &name])
        .expect(3)
        .says("when every node has stopped");
    site.ctl(inventory, &["down", "--yes", "--skip-unreachable"])
        .expect(9)
        .says("error[PARTLY]")
        .says("error[SSH] n3");
    for host in ["n1", "n2"] {
        assert!(site.lab.processes(host, "paxos-node").unwrap().is_empty(), "on {host}");
    }
}

/// Lab hosts whose inventory names a binary that the test changes.
struct Releases {
    site: Site,
    inventory: PathBuf,
    binary: PathBuf,
}

impl Releases {
    fn new(purpose: &str) -> Option<Releases> {
        let site = Site::new(purpose, 3)?;
        let (inventory, binary) = (site.path("mine.toml"), site.path("paxos-node"));
        fs::copy(built(), &binary).unwrap();
        let text = fs::read_to_string(site.open_inventory()).unwrap();
        let config = format!("config = \"default\"\nbinary = \"{}\"", binary.display());
        fs::write(&inventory, text.replace("config = \"default\"", &config)).unwrap();
        for name in ["id_ed25519", "known_hosts"] {
            fs::copy(site.lab.dir().join(name), site.path(name)).unwrap();
        }
        Some(Releases { site, inventory, binary })
    }

    /// The same program with another digest.
    fn build(&self, name: &str) {
        let mut program = fs::read(built()).unwrap();
        program.extend_from_slice(name.as_bytes());
        fs::write(&self.binary, &program).unwrap();
    }

    /// A program that answers `--version` and then does not run; the name of its release.
    fn build_one_that_does_not_run(&self) -> Option<String> {
        let shim = "int puts(const char*); int main(int n, char **v) { \
                    if (n == 2) { puts(\"paxos-node 9\"); return 0; } \
                    puts(\"I will not run\"); return 3; }";
        let source = self.site.path("shim.c");
        fs::write(&source, shim).unwrap();
        let mut compiler = Command::new("cc");
        let compiled = compiler.arg("-o").arg(&self.binary).arg(&source).status();
        if !compiled.is_ok_and(|status| status.success()) {
            support::skipped("cc cannot compile (Debian: gcc, libc6-dev)");
            return None;
        }
        let digest = deploy::digest::of_file(&self.binary).unwrap();
        Some(deploy::digest::release_name(&digest).to_owned())
    }

    /// Runs `up` until the first node has been restarted, and answers with its name.
    fn up_until_a_restart(&self) -> (Child, String) {
        let mut up = self.site.command(&self.inventory, &["up"]);
        let mut tool = up.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut voice = BufReader::with_capacity(1, tool.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(" started ") {
            line.clear();
            assert!(voice.read_line(&mut line).unwrap() > 0, "no node was restarted");
        }
        let name = line.split_whitespace().next().unwrap().to_owned();
        tool.stderr = Some(voice.into_inner());
        (tool, name)
    }
}

fn built() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_paxosctl")).with_file_name("paxos-node")
}

/// Reads, byte by byte so that nothing after it is taken, until `mark` has been said.
fn read_until(voice: &mut impl Read, mark: &str) -> String {
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(mark.as_bytes()) {
        let count = voice.read(&mut byte).unwrap();
        assert!(count > 0, "ended without `{mark}`: {}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    String::from_utf8_lossy(&said).into_owned()
}
