//! Labs as an operator and a test use them, with real namespaces, sshd and ssh. Without root or
//! without sshd there is nothing to test here, and each test says so.

#![expect(clippy::print_stderr, reason = "a skipped test says why")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use hosts::lab::{Cut, Lab, Removed, Wish, requirements};

/// A lab with a name of its own that is taken down at the end, also of a failed test.
struct Throwaway {
    lab: Lab,
    dir: tempfile::TempDir,
}

impl Throwaway {
    fn up(label: &str, hosts: usize) -> Option<Throwaway> {
        if let Err(missing) = requirements() {
            eprintln!("skipped: {missing}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::up(&wish(label, dir.path(), hosts)).unwrap_or_else(|error| {
            let _ = Lab::down(dir.path(), &name(label));
            panic!("{error}")
        });
        Some(Throwaway { lab, dir })
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(self.dir.path(), self.lab.name()) {
            eprintln!("lab {} stays: {error}", self.lab.name());
        }
    }
}

/// Other runs of these tests on this machine have labs too.
fn name(label: &str) -> String {
    format!("t{}-{label}", std::process::id())
}

fn wish(label: &str, dir: &Path, hosts: usize) -> Wish {
    Wish { name: name(label), dir: dir.to_owned(), hosts }
}

fn ssh(lab: &Lab, host: &str, command: &str) -> Output {
    Command::new("ssh")
        .arg("-F")
        .arg(lab.ssh_config())
        .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", host, command])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn ssh_output(lab: &Lab, host: &str, command: &str) -> String {
    let output = ssh(lab, host, command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{host}: {command}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits until a host runs a program; it was started in the background.
fn wait_for_process(lab: &Lab, host: &str, program: &str) -> i32 {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let [process] = lab.processes(host, program).unwrap()[..] {
            return process;
        }
        assert!(Instant::now() < deadline, "{program} did not start on {host}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether one host gets an answer from another's sshd; a bounded dial from within.
fn reaches(lab: &Lab, from: &str, to: &str) -> bool {
    let address = lab.address_of(to).unwrap();
    let script = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/22 && head -c 3 <&3'");
    lab.run(from, &script).unwrap().stdout == b"SSH"
}

/// Everything on this machine that bears the lab's number.
fn traces(lab: &Lab) -> Vec<String> {
    let address = lab.address_of("n1").unwrap();
    let number = format!("pxl{}", address.octets()[2]);
    let shown = |arguments: &[&str]| {
        let output = Command::new("ip").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let all = shown(&["netns", "list"]) + &shown(&["-o", "link"]) + &shown(&["-o", "route"]);
    let is_ours = |word: &&str| {
        let word = word.trim_end_matches(':').split('@').next().unwrap();
        word == number || word.starts_with(&format!("{number}-"))
    };
    all.split_whitespace().filter(is_ours).map(ToOwned::to_owned).collect()
}

#[test]
fn hosts_of_a_lab_are_machines_of_their_own() {
    let Some(Throwaway { lab, .. }) = &Throwaway::up("own", 3) else { return };
    let inventory = hosts::load(lab.inventory()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(inventory.hosts.len(), 3);
    let mut ids = Vec::new();
    for host in &inventory.hosts {
        assert_eq!(ssh_output(lab, &host.name, "uname -n; whoami"), format!("{}\nroot", host.name));
        ids.push(ssh_output(lab, &host.name, "cat /etc/machine-id"));
        // Nothing of the real machine shows: its processes, its home, its disk.
        assert_eq!(ssh_output(lab, &host.name, "cat /proc/1/comm"), "sshd");
        assert_eq!(ssh_output(lab, &host.name, "ls /opt /var/lib /home /tmp | grep -v :"), "");
        assert_eq!(ssh_output(lab, &host.name, "ls -A ~"), ".ssh");
        assert!(ssh(lab, &host.name, "test -d /run/systemd/system").status.code() == Some(1));
    }
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
    // Root of a host cannot change the real machine.
    let wrote = ssh(lab, "n1", "touch /etc/lab-was-here || touch /usr/lab-was-here");
    assert!(String::from_utf8_lossy(&wrote.stderr).contains("Read-only file system"));
    ssh_output(lab, "n1", "mkdir -p /opt/paxos /var/lib/paxos && echo 1 > /opt/paxos/file");
    assert!(!ssh(lab, "n2", "ls /opt/paxos").status.success());
    assert!(reaches(lab, "n1", "n3") && reaches(lab, "n3", "n2"));
    assert_eq!(
        ssh_output(lab, "n1", "getent hosts n3 | cut -d' ' -f1"),
        lab.address_of("n3").unwrap().to_string()
    );
}

#[test]
fn a_host_key_that_changed_is_refused_pitfall_93() {
    let Some(Throwaway { lab, .. }) = &Throwaway::up("key", 1) else { return };
    assert!(ssh(lab, "n1", "true").status.success());
    let key = lab.dir().join("hosts/n1/etc/ssh_host_ed25519_key");
    lab.switch_off("n1").unwrap();
    std::fs::remove_file(&key).unwrap();
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .stdin(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            use std::io::Write;
            child.stdin.take().unwrap().write_all(b"y\n")?;
            child.wait()
        });
    assert!(made.unwrap().success());
    lab.switch_on("n1").unwrap();
    let output = ssh(lab, "n1", "true");
    assert!(String::from_utf8_lossy(&output.stderr).contains("HOST IDENTIFICATION HAS CHANGED"));
    assert!(!output.status.success());
}

#[test]
fn a_host_can_be_cut_off_and_healed() {
    let Some(Throwaway { lab, .. }) = &Throwaway::up("cut", 3) else { return };
    if Command::new("nft").arg("--version").output().is_err() {
        eprintln!("skipped: nft is not installed");
        return;
    }
    lab.cut("n1", Cut::Peers(&["n2"])).unwrap();
    assert!(!reaches(lab, "n1", "n2") && !reaches(lab, "n2", "n1"));
    assert!(reaches(lab, "n1", "n3") && reaches(lab, "n2", "n3"));
    // The next cut replaces it.
    lab.cut("n1", Cut::EverythingButSsh).unwrap();
    assert!(ssh(lab, "n1", "true").status.success());
    let listener = "timeout 20 python3 -c \"import socket; s = socket.create_server(('0.0.0.0', 7380)); s.accept()\"";
    let dial = |from: &str| {
        let address = lab.address_of("n1").unwrap();
        let script = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/7380'");
        lab.run(from, &script).unwrap().status.success()
    };
    lab.run("n1", &format!("{listener} > /dev/null 2>&1 &")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while lab.output("n1", "cat /proc/net/tcp").unwrap().matches(":1CD4").count() == 0 {
        assert!(Instant::now() < deadline, "the listener did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!dial("n2"));
    lab.cut("n1", Cut::Everything).unwrap();
    assert!(!reaches(lab, "n2", "n1") && !reaches(lab, "n3", "n1"));
    lab.heal("n1").unwrap();
    lab.heal("n1").unwrap();
    assert!(reaches(lab, "n1", "n2") && reaches(lab, "n3", "n1") && dial("n2"));
    assert_eq!(lab.output("n1", "nft list tables").unwrap(), "");
}

#[test]
fn a_host_that_lost_power_keeps_its_disk_and_nothing_else() {
    let Some(Throwaway { lab, .. }) = &Throwaway::up("power", 2) else { return };
    ssh_output(lab, "n1", "mkdir -p /var/lib/paxos && echo kept > /var/lib/paxos/file");
    // A process that left its session, as a deployed node does.
    ssh_output(lab, "n1", "setsid sleep 600 > /dev/null 2>&1 < /dev/null & echo started");
    let sleeping = wait_for_process(lab, "n1", "sleep");
    lab.switch_off("n1").unwrap();
    assert!(!Path::new(&format!("/proc/{sleeping}/exe")).exists());
    assert!(lab.run("n1", "true").unwrap_err().to_string().contains("switched off"));
    assert!(!reaches(lab, "n2", "n1"));
    lab.switch_on("n1").unwrap();
    lab.switch_on("n1").unwrap();
    assert_eq!(ssh_output(lab, "n1", "cat /var/lib/paxos/file"), "kept");
    assert!(lab.processes("n1", "sleep").unwrap().is_empty());
}

#[test]
fn orphans_of_a_host_are_reaped() {
    let Some(Throwaway { lab, .. }) = &Throwaway::up("orphan", 1) else { return };
    ssh_output(lab, "n1", "setsid sh -c 'sleep 600; true' > /dev/null 2>&1 < /dev/null & echo ok");
    wait_for_process(lab, "n1", "sleep");
    assert_eq!(lab.kill_processes("n1", "sleep").unwrap(), 1);
    let deadline = Instant::now() + Duration::from_secs(10);
    while lab.output("n1", "cat /proc/[0-9]*/stat 2> /dev/null; true").unwrap().contains(") Z ") {
        assert!(Instant::now() < deadline, "a zombie stays");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn up_may_be_repeated_and_add_hosts_and_down_leaves_nothing() {
    let Some(throwaway) = Throwaway::up("again", 1) else { return };
    let (lab, dir) = (&throwaway.lab, throwaway.dir.path());
    ssh_output(lab, "n1", "echo kept > /opt/file");
    let text = std::fs::read_to_string(lab.inventory()).unwrap();
    let edited = text.replace("clients = \"open\"", "clients = \"open\" # mine");
    // An inventory from before the lab moved to another network.
    let network = format!("10.231.{}.", lab.address_of("n1").unwrap().octets()[2]);
    std::fs::write(lab.inventory(), edited.replace(&network, "10.231.255.")).unwrap();

    Lab::up(&wish("again", dir, 1)).unwrap();
    assert_eq!(std::fs::read_to_string(lab.inventory()).unwrap(), edited, "the operator's edits");
    let larger = Lab::up(&wish("again", dir, 3)).unwrap();
    assert_eq!(ssh_output(&larger, "n1", "cat /opt/file"), "kept");
    assert_eq!(ssh_output(&larger, "n3", "uname -n"), "n3");
    assert_eq!(hosts::load(larger.inventory()).unwrap().hosts.len(), 3);
    let text = std::fs::read_to_string(lab.inventory()).unwrap();
    assert!(text.starts_with(&edited), "hosts are added, nothing else changes: {text}");
    let fewer = Lab::up(&wish("again", dir, 2)).unwrap_err();
    assert!(fewer.to_string().contains("has 3 hosts, more than 2"), "{fewer}");

    let elsewhere = tempfile::tempdir().unwrap();
    let taken = Lab::up(&wish("again", elsewhere.path(), 1)).unwrap_err();
    assert!(taken.to_string().contains("exists already"), "{taken}");

    let listed = Lab::list().unwrap().into_iter().find(|one| one.name == lab.name()).unwrap();
    assert_eq!((listed.hosts, listed.running), (3, 3));
    assert_eq!(Lab::open(lab.name()).unwrap().host_names(), ["n1", "n2", "n3"]);
    assert!(!traces(lab).is_empty());
    let removed = Lab::down(dir, lab.name()).unwrap();
    assert_eq!((removed.hosts, removed.network, removed.folder), (3, true, true));
    assert!(removed.processes >= 3, "{removed:?}");
    assert_eq!(traces(lab), Vec::<String>::new());
    assert!(!lab.dir().exists());
    assert_eq!(Lab::down(dir, lab.name()).unwrap(), Removed::default());
    assert!(Lab::open(lab.name()).unwrap_err().to_string().contains("there is no lab"));
}

#[test]
fn labs_with_different_names_live_side_by_side() {
    let Some(one) = Throwaway::up("one", 1) else { return };
    let Some(other) = Throwaway::up("other", 1) else { return };
    assert_ne!(one.lab.address_of("n1").unwrap(), other.lab.address_of("n1").unwrap());
    Lab::down(one.dir.path(), one.lab.name()).unwrap();
    assert_eq!(ssh_output(&other.lab, "n1", "uname -n"), "n1");
}

#[test]
fn those_who_work_on_one_lab_take_turns() {
    let Some(throwaway) = Throwaway::up("turns", 1) else { return };
    let dir = throwaway.dir.path();
    let up = || Lab::up(&wish("turns", dir, 2)).map(drop);
    let down = || Lab::down(dir, throwaway.lab.name()).map(drop);
    std::thread::scope(|scope| {
        let work: [&(dyn Fn() -> Result<(), hosts::lab::LabError> + Sync); 6] =
            [&up, &up, &down, &up, &down, &up];
        let turns = work.map(|work| scope.spawn(work));
        for turn in turns {
            turn.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
        }
    });
    assert_eq!(Lab::up(&wish("turns", dir, 2)).unwrap().host_names().len(), 2);
}

#[test]
fn a_lab_without_its_folder_is_still_taken_down() {
    let Some(throwaway) = Throwaway::up("lost", 1) else { return };
    std::fs::remove_dir_all(throwaway.lab.dir()).unwrap();
    let gone = Lab::open(throwaway.lab.name()).unwrap_err();
    assert!(gone.hint.unwrap().contains("lab down"));
    assert!(Lab::down(Path::new("/nowhere"), throwaway.lab.name()).unwrap().network);
    assert_eq!(traces(&throwaway.lab), Vec::<String>::new());
}

const CRASHING: &str = "LAB_TEST_CRASHING_UP";

/// Not a test by itself: the next one runs it as a process and kills it.
#[test]
fn up_that_will_be_killed() {
    let Some(dir) = std::env::var_os(CRASHING) else { return };
    let wish = Wish { name: std::env::var("LAB_TEST_NAME").unwrap(), dir: dir.into(), hosts: 2 };
    Lab::up(&wish).unwrap();
}

#[test]
fn pitfall_90_an_up_that_was_killed_at_any_moment_can_be_undone_and_repeated() {
    if let Err(missing) = requirements() {
        eprintln!("skipped: {missing}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let name = name("crash");
    for milliseconds in [1, 5, 10, 20, 30, 45, 60, 80, 110, 150, 200, 300] {
        let mut up = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "up_that_will_be_killed"])
            .env(CRASHING, dir.path())
            .env("LAB_TEST_NAME", &name)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        up.kill().unwrap();
        up.wait().unwrap();
        if milliseconds % 20 == 0 {
            // Every other time, by going on instead of going back.
            let lab = Lab::up(&Wish { name: name.clone(), dir: dir.path().into(), hosts: 2 })
                .unwrap_or_else(|error| panic!("after {milliseconds} ms: {error}"));
            assert_eq!(ssh_output(&lab, "n2", "uname -n"), "n2");
        }
        Lab::down(dir.path(), &name)
            .unwrap_or_else(|error| panic!("after {milliseconds} ms: {error}"));
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 0, "after {milliseconds} ms");
        let ours = Lab::list().unwrap().into_iter().any(|lab| lab.name == name);
        assert!(!ours, "after {milliseconds} ms");
    }
}

#[test]
fn what_cannot_be_a_lab_is_said_before_anything_is_made() {
    if let Err(missing) = requirements() {
        eprintln!("skipped: {missing}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let up = |name: &str, hosts| {
        let wish = Wish { name: name.to_owned(), dir: dir.path().to_owned(), hosts };
        Lab::up(&wish).unwrap_err().to_string()
    };
    assert_eq!(up("lab", 0), "a lab has 1 to 64 hosts, not 0");
    assert_eq!(up("../etc", 1), "a lab cannot be called \"../etc\"");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
