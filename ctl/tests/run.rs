//! `paxosctl run` as a person types it.

mod common;
mod made;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use made::free_base_port;
use rustix::process::{Pid, Signal, kill_process};

fn paxosctl(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("paxosctl").unwrap();
    command.args(args).timeout(Duration::from_secs(120));
    command
}

/// What it says on stderr when it refuses as a matter of usage.
fn refusal(args: &[&str]) -> String {
    let output = paxosctl(args).assert().code(2).get_output().clone();
    assert!(output.stdout.is_empty(), "{:?}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn bad_numbers_get_one_clear_line() {
    for servers in ["0", "10", "x", "-1", ""] {
        let said = refusal(&["run", &format!("--servers={servers}")]);
        let expected = format!("error[USAGE]: SERVERS is `{servers}`: want a number from 1 to 9\n");
        assert_eq!(said, expected);
    }
    let said = refusal(&["run", "--clients", "0"]);
    assert_eq!(said, "error[USAGE]: CLIENTS is `0`: want a number from 1 to 10000\n");
    let said = refusal(&["run", "--base-port", "65530"]);
    assert!(said.starts_with("error[USAGE]: BASE_PORT is 65530"), "{said}");
    let said = refusal(&["run", "--config", "no-such-preset"]);
    assert!(said.contains("no-such-preset") && said.contains("highest-id"), "{said}");
}

#[test]
fn a_taken_port_is_found_before_anything_starts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("run");
    let (port_text, dir_text) = (port.to_string(), dir.to_str().unwrap());
    let said = refusal(&["run", "--base-port", &port_text, "--dir", dir_text]);
    assert!(said.contains(&format!("127.0.0.1:{port} is held by")), "{said}");
    assert!(said.contains(&format!("(pid {})", std::process::id())), "{said}");
    assert!(said.contains("hint: "), "{said}");
    assert!(!dir.exists(), "nothing was made");
}

/// The arguments of a run in `dir` with the node as it stands now.
fn args(dir: &Path, base_port: u16, more: &[&str]) -> Vec<String> {
    let node = common::node_binary();
    let mut args: Vec<String> = ["run", "--dir", dir.to_str().unwrap(), "--binary"]
        .into_iter()
        .chain([node.to_str().unwrap(), "--base-port", &base_port.to_string()])
        .map(str::to_owned)
        .collect();
    args.extend(more.iter().map(|word| (*word).to_owned()));
    args
}

fn start(args: &[String]) -> Child {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("paxosctl"));
    let command = command.args(args).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Processes of a cluster in `dir`, by what they were started with.
fn nodes_of(dir: &Path) -> Vec<u32> {
    let mark = dir.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let program = line.split('\0').next().unwrap_or_default();
        program.ends_with("/paxos-node") && line.contains(mark)
    })
    .collect()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + common::SOON;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn runs_end_with_a_summary_and_a_verdict_and_can_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_base_port();
    let run = |more: &[&str]| {
        let args = args(dir.path(), port, more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = paxosctl(&args).assert().success().get_output().clone();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (out, talk) = run(&["--duration", "3s", "--clients", "4"]);
    assert!(out.contains("leader n") && out.contains("writes/s") && out.contains("lag n"), "{out}");
    assert!(out.contains("proof   holds: "), "{out}");
    assert!(!talk.contains("warning"), "{talk}");
    assert_eq!(nodes_of(dir.path()), Vec::<u32>::new(), "no process is left");

    let (out, talk) = run(&["--duration", "3s", "--clients", "4", "--keep"]);
    assert!(out.contains("proof   holds: "), "{out}\n{talk}");
    // Another shape does not fit the data that is kept, and is told so.
    let others = args(dir.path(), port, &["--keep", "--servers", "5", "--duration", "1s"]);
    let said = refusal(&others.iter().map(String::as_str).collect::<Vec<&str>>());
    assert!(said.contains("a cluster of 3") && said.contains("KEEP"), "{said}");

    let more = ["--servers", "2", "--config", "highest-id", "--duration", "2s", "-o", "json"];
    let (out, talk) = run(&[&more[..], &["--clients", "4"]].concat());
    assert!(talk.contains("warning: 2 servers survive no more failures than 1"), "{talk}");
    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "result", "{out}");
    assert_eq!(last["verdict"], "holds", "{out}");
}

/// SIGTERM and Ctrl-C end a run with its summary; a node that dies meanwhile is shown with its last
/// words.
#[test]
fn a_run_is_stopped_cleanly_and_tells_of_dead_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let child = start(&args(dir.path(), free_base_port(), &["--clients", "4"]));
    wait_until("three nodes", || nodes_of(dir.path()).len() == 3);
    std::thread::sleep(Duration::from_secs(3));
    let victim = nodes_of(dir.path())[0];
    kill_process(Pid::from_raw(victim as i32).unwrap(), Signal::KILL).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(out.contains("proof   holds: "), "{out}\n{talk}");
    assert!(output.status.success(), "{}\n{out}\n{talk}", output.status);
    assert!(talk.contains("has exited (signal: 9 (SIGKILL)); the end of"), "{talk}");
    assert!(talk.contains("node started"), "its last trace lines are shown: {talk}");
    assert_eq!(nodes_of(dir.path()), Vec::<u32>::new(), "no process is left");
}

/// Even when we die without a word, the kernel takes the nodes with us.
#[test]
fn no_node_outlives_a_run_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(&args(dir.path(), free_base_port(), &[]));
    wait_until("three nodes", || nodes_of(dir.path()).len() == 3);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the end of every node", || nodes_of(dir.path()).is_empty());
}
