//! The whole chain that an operator looks at: real hosts with their own sshd, a real Prometheus with
//! our rules, a leader that is killed, and every query of every dashboard panel.

#![expect(clippy::print_stderr, reason = "a skipped test says why")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use hosts::lab::{Lab, Wish, requirements};
use monitoring::dashboards;
use proof::client::Target;
use proof::load::{Load, Spec};
use serde_json::Value;

/// Generous: the machine is shared. Nothing here is measured by it.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_has_data_when_prometheus_has_watched_a_leader_die() {
    if let Err(missing) = requirements() {
        eprintln!("skipped: {missing}");
        return;
    }
    if Command::new("prometheus").arg("--version").output().is_err() {
        eprintln!("skipped: prometheus is not installed (Debian: prometheus)");
        return;
    }
    let watched = Watched::start();
    let inventory = hosts::load(&watched.inventory).unwrap();
    let clients = inventory.hosts.iter().map(hosts::Host::client_endpoint).collect();
    let load = Load::start(Spec::new(Target::open(clients), 2));

    watched.wait_for("three nodes are scraped", |w| w.number("cluster:up:sum") == Some(3.0));
    watched.wait_for("the headroom is one", |w| {
        w.number("cluster:paxos_quorum_headroom:min") == Some(1.0)
    });
    watched.wait_for("slots are chosen", |w| {
        w.number("cluster:paxos_slots_chosen:rate1m").is_some_and(|rate| rate > 0.0)
    });

    let leader = watched.leader().expect("somebody leads");
    assert_eq!(watched.lab.kill_processes(&leader, "paxos-node").unwrap(), 1);
    watched.wait_for("another node leads", |w| w.leader().is_some_and(|other| other != leader));
    watched.wait_for("the change is counted", |w| {
        w.number("cluster:paxos_leader_changes:increase15m").is_some_and(|changes| changes > 0.0)
    });
    watched.wait_for("the headroom is gone", |w| {
        w.number("cluster:paxos_quorum_headroom:min") == Some(0.0)
    });
    watched.wait_for("the alert waits to fire", |w| {
        let alerts = w.query("ALERTS{alertname=\"PaxosNodeDown\"}");
        alerts.len() == 1 && alerts[0]["metric"]["node"] == leader.as_str()
    });

    let queries = dashboards::queries();
    assert!(queries.len() > 60, "only {} queries", queries.len());
    let empty = |w: &Watched| {
        let empty = queries.iter().filter(|query| w.query(&query.expanded(&w.cluster)).is_empty());
        empty.map(|query| format!("{}: {}", query.panel, query.expression)).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + SOON;
    loop {
        let empty = empty(&watched);
        if empty.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "panels without data:\n{}", empty.join("\n"));
        std::thread::sleep(Duration::from_millis(500));
    }

    let said = watched.ctl_ok(&["monitor", "up"]);
    assert!(said.contains("prometheus runs already"), "{said}");
    assert!(said.contains(&format!("warning: {leader} cannot be read from here")), "{said}");
    let operations = load.stop().await;
    drop(operations);
    let said = watched.ctl_ok(&["monitor", "down"]);
    assert!(said.contains("prometheus stopped"), "{said}");
    assert!(TcpStream::connect(("127.0.0.1", watched.prometheus_port)).is_err());
}

/// A lab with a cluster on it and a Prometheus that watches it; gone with the value.
struct Watched {
    lab: Lab,
    labs: tempfile::TempDir,
    cluster: String,
    inventory: PathBuf,
    prometheus_port: u16,
}

impl Watched {
    fn start() -> Watched {
        let labs = tempfile::tempdir().unwrap();
        let cluster = format!("m{}", std::process::id());
        let wish = Wish { name: cluster.clone(), dir: labs.path().to_owned(), hosts: 3 };
        let lab = Lab::up(&wish).unwrap_or_else(|error| {
            let _ = Lab::down(labs.path(), &cluster);
            panic!("{error}")
        });
        let inventory = lab.inventory();
        let prometheus_port = free_port();
        let watched = Watched { lab, labs, cluster, inventory, prometheus_port };
        watched.complete_inventory();
        watched.ctl_ok(&["up", "--yes"]);
        let said = watched.ctl_ok(&["monitor", "up"]);
        assert!(said.contains("prometheus   ready"), "{said}");
        assert!(!said.contains("cannot be read from here"), "{said}");
        watched
    }

    /// The node's program as it stands now, a short interval, and leave for this machine to scrape.
    fn complete_inventory(&self) {
        let text = std::fs::read_to_string(&self.inventory).unwrap();
        let binary = format!("[cluster]\nbinary = {:?}\n", node_binary());
        let mut text = text.replace("[cluster]\n", &binary);
        if !text.contains("scrape_from") {
            text = text.replace("[security]\n", "[security]\nscrape_from = [\"10.231.0.0/16\"]\n");
        }
        text.push_str("\n[monitoring]\nscrape_interval = \"1s\"\n");
        std::fs::write(&self.inventory, text).unwrap();
    }

    /// stdout and stderr of `paxosctl`, whose success is expected.
    fn ctl_ok(&self, args: &[&str]) -> String {
        let output = self.ctl(args);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "paxosctl {args:?}: {}\n{said}", output.status);
        said
    }

    fn ctl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paxosctl"));
        command.arg("-i").arg(&self.inventory).args(args);
        if args[0] == "monitor" {
            command.arg("--dir").arg(self.labs.path().join("monitor"));
            command.arg(format!("--prometheus-port={}", self.prometheus_port));
            command.arg(format!("--grafana-port={}", free_port()));
        }
        command.output().unwrap()
    }

    fn wait_for(&self, what: &str, done: impl Fn(&Watched) -> bool) {
        let deadline = Instant::now() + SOON;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}: not within {SOON:?}\n{}", self.targets());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn leader(&self) -> Option<String> {
        let leaders = self.query("paxos_is_leader == 1");
        let node = |sample: &Value| sample["metric"]["node"].as_str().map(str::to_owned);
        match &leaders[..] {
            [leader] => node(leader),
            _ => None,
        }
    }

    /// The value of an expression that has one.
    fn number(&self, expression: &str) -> Option<f64> {
        match &self.query(expression)[..] {
            [sample] => sample["value"][1].as_str()?.parse().ok(),
            _ => None,
        }
    }

    fn query(&self, expression: &str) -> Vec<Value> {
        let answer = self.ask(&format!("/api/v1/query?query={}", encoded(expression)));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().expect("a vector").clone()
    }

    /// What Prometheus says of its targets, for a message.
    fn targets(&self) -> String {
        let answer = self.ask("/api/v1/targets");
        serde_json::to_string_pretty(&answer["data"]["activeTargets"]).unwrap()
    }

    fn ask(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.prometheus_port)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.ctl(&["monitor", "down"]);
        if let Err(error) = Lab::down(self.labs.path(), self.lab.name()) {
            eprintln!("lab {} stays: {error}", self.lab.name());
        }
    }
}

/// `paxos-node`, built as the tests were: cargo makes a package's own programs for its tests, but
/// not those of another package.
fn node_binary() -> PathBuf {
    let profile_dir = Path::new(env!("CARGO_BIN_EXE_paxosctl")).parent().unwrap();
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    build.args(["build", "--quiet", "--package", "node", "--bin", "paxos-node", "--target-dir"]);
    build.arg(profile_dir.parent().expect("target/<profile>"));
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    let status = build.status().expect("cargo can be run");
    assert!(status.success(), "build paxos-node: {status}");
    profile_dir.join("paxos-node")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
