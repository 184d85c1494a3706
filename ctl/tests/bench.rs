//! `paxosctl bench`, in a run too short for its figures to mean anything: it measures whatever is
//! installed, says what it skips, and leaves no process.

mod common;
mod made;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::node_binary;
use made::free_base_port;
use serde_json::Value;

/// Runs it with the node as it stands now and the programs of `path`.
fn bench(path: &str, dir: &Path, only: &str) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_paxosctl"))
        .args(["-o", "json", "bench", "--duration", "300ms", "--only", only, "--binary"])
        .arg(node_binary())
        .args(["--base-port", &free_base_port().to_string(), "--dir"])
        .arg(dir)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    output
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object on stdout")
}

/// Programs whose command line names this folder.
fn left_behind(dir: &Path) -> Vec<String> {
    let mark = dir.to_str().unwrap();
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(mark)).collect()
}

#[test]
fn whatever_is_installed_is_measured_side_by_side() {
    let path = std::env::var("PATH").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let output = bench(&path, dir.path(), "1 client");
    let report = json(&output);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let servers = report["workloads"][0]["servers"].as_object().unwrap();
    for (server, program) in
        [("paxos", None), ("etcd", Some("etcd")), ("redis", Some("redis-server"))]
    {
        let installed = program.is_none_or(|program| {
            Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
        });
        assert_eq!(servers.contains_key(server), installed, "{server}: {said}");
        if !installed {
            assert!(said.contains(&format!("skipped {server}: ")), "{said}");
            continue;
        }
        let figures = &servers[server];
        assert!(figures["per_second"].as_f64().unwrap() > 0.0, "{server}: {figures}");
        let percentile = |name: &str| figures[name].as_u64().unwrap();
        assert!(percentile("p50_us") <= percentile("p99_us"), "{server}: {figures}");
        assert!(report["versions"][server].as_str().unwrap().contains('.'), "{report}");
    }
    assert_eq!(left_behind(dir.path()), Vec::<String>::new());
}

#[test]
fn without_the_others_our_own_figures_are_still_made() {
    let empty = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let output = bench(empty.path().to_str().unwrap(), dir.path(), "64 clients");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("skipped etcd: etcd is not installed (Debian: apt-get"), "{said}");
    assert!(said.contains("skipped redis: redis-server is not installed (Debian"), "{said}");
    let report = json(&output);
    assert_eq!(report["workloads"].as_array().unwrap().len(), 1, "{report}");
    let servers = report["workloads"][0]["servers"].as_object().unwrap();
    assert_eq!(servers.keys().collect::<Vec<_>>(), ["paxos"]);
    assert!(servers["paxos"]["per_second"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn a_measurement_that_does_not_exist_is_refused_with_those_that_do() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxosctl"));
    let output = command.args(["bench", "--only", "65 clients"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("`64 clients`") && said.contains("`64 x pipeline 16`"), "{said}");
}
