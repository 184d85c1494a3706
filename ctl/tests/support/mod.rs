//! What tests against lab hosts share: a lab that goes away with its test, and `paxosctl` run as a
//! person would, with its exit code and both its voices.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use hosts::lab::{self, Lab, Wish};

/// Hosts for one test. Everything is removed when it is dropped, also after a panic.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    pub(crate) folder: tempfile::TempDir,
    name: String,
}

impl Site {
    /// `None`, with the reason on stderr, where this machine cannot have a lab.
    pub(crate) fn new(purpose: &str, hosts: usize) -> Option<Site> {
        if let Err(reason) = lab::requirements() {
            skipped(&reason.to_string());
            return None;
        }
        build_the_node();
        let folder = tempfile::tempdir().unwrap();
        let name = format!("{purpose}-{}", std::process::id());
        let wish = Wish { name: name.clone(), dir: folder.path().join("labs"), hosts };
        let lab = Lab::up(&wish).unwrap();
        Some(Site { lab, folder, name })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn address(&self, host: &str) -> String {
        self.lab.address_of(host).unwrap().to_string()
    }

    /// Runs `paxosctl -i <inventory> args…` without a terminal.
    pub(crate) fn ctl(&self, inventory: &Path, args: &[&str]) -> Said {
        Said::of(self.command(inventory, args).output().unwrap())
    }

    pub(crate) fn command(&self, inventory: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxosctl"));
        command
            .current_dir(self.folder.path())
            .env_remove("PAXOS_INVENTORY")
            .env_remove("PAXOS_PASSWORD")
            .stdin(Stdio::null())
            .arg("-i")
            .arg(inventory)
            .args(args);
        command
    }

    /// Leaves a lock as somebody else's run would, renewed so many seconds ago.
    pub(crate) fn leave_lock(&self, host: &str, seconds_ago: i64) {
        let holder = "{\"token\":\"abc\",\"who\":\"ann@desk\",\"what\":\"upgrade\",\
                      \"since\":\"2026-01-02T03:04:05Z\"}";
        let script = format!(
            "mkdir -p /opt/paxos && printf '%s\\n%s\\n' \"{STAMP}\" '{holder}' > /opt/paxos/lock"
        );
        self.lab.output(host, &script.replace("AGO", &seconds_ago.to_string())).unwrap();
    }

    /// Lets whatever lock there is expire: nobody waits half a minute in a test.
    pub(crate) fn expire_lock(&self, host: &str) {
        let script =
            format!("[ ! -f /opt/paxos/lock ] || sed -i \"1s/.*/{STAMP}/\" /opt/paxos/lock");
        self.lab.output(host, &script.replace("AGO", "31")).unwrap();
    }

    pub(crate) fn status(&self, inventory: &Path) -> serde_json::Value {
        self.ctl(inventory, &["status", "-o", "json"]).json()
    }

    /// The lab's own inventory, in which clients need no password.
    pub(crate) fn open_inventory(&self) -> PathBuf {
        self.lab.inventory()
    }
}

/// When a lock was renewed, in its first line: the boot, and the seconds since it.
const STAMP: &str =
    "$(cat /proc/sys/kernel/random/boot_id) $(( $(cut -d. -f1 /proc/uptime) - (AGO) ))";

impl Drop for Site {
    fn drop(&mut self) {
        let removed = Lab::down(&self.folder.path().join("labs"), &self.name);
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test says why it is skipped")]
pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn of(output: Output) -> Said {
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Said {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, word: &str) -> Said {
        let (out, err) = (&self.stdout, &self.stderr);
        assert!(out.contains(word) || err.contains(word), "no `{word}` in:\n{out}\n{err}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}

/// Asks again and again until the answer is there, within a generous bound.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// `paxos-node` lies beside `paxosctl` when the whole workspace was built; a test of this crate
/// alone has to ask for it.
fn build_the_node() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ctl = Path::new(env!("CARGO_BIN_EXE_paxosctl"));
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "node", "--bin", "paxos-node"]);
        if ctl.parent().is_some_and(|folder| folder.ends_with("release")) {
            build.arg("--release");
        }
        let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
        assert!(status.success(), "the node did not build");
        assert!(ctl.with_file_name("paxos-node").is_file());
    });
}
