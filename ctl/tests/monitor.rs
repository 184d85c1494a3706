//! The whole chain that an operator looks at: real hosts with their own sshd, a real Prometheus with
//! our rules, a leader that is killed, and every query of every dashboard panel.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use monitoring::dashboards;
use proof::client::Target;
use proof::load::{Load, Spec};
use serde_json::Value;
use support::{Said, Site, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_has_data_when_prometheus_has_watched_a_leader_die() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        return skipped("prometheus is not installed (Debian: prometheus)");
    }
    let Some(site) = Site::new("mon", 3) else { return };
    let watched = Watched::start(&site);
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
    assert_eq!(site.lab.kill_processes(&leader, "paxos-node").unwrap(), 1);
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
    let asked = |query: &dashboards::PanelQuery| watched.query(&query.expanded(&watched.cluster));
    for query in &queries {
        let what = format!("panel {} has data: {}", query.panel, query.expression);
        eventually(&what, || Some(()).filter(|()| !asked(query).is_empty()));
    }

    let dark = format!("warning: {leader} cannot be read from here");
    watched.monitor("up").expect(0).says("prometheus runs already").says(&dark);
    drop(load.stop().await);
    watched.monitor("down").expect(0).says("prometheus stopped");
    assert!(TcpStream::connect(("127.0.0.1", watched.prometheus_port)).is_err());
}

/// PITFALLS 50, 86: without a quorum nothing can be done, and there is no reason to restart anything.
#[test]
fn without_a_quorum_a_node_is_not_ready_and_stays_healthy() {
    let Some(site) = Site::new("ready", 3) else { return };
    let inventory = site.open_inventory();
    site.ctl(&inventory, &["up", "--yes"]).expect(0);
    let page = |host: &str, path: &str| exchange(&format!("{}:7381", site.address(host)), path);
    for host in ["n1", "n2", "n3"] {
        eventually("every node is ready", || page(host, "/readyz").0.eq(&200).then_some(()));
        assert_eq!(page(host, "/status").0, 200, "a lab's inventory lets this machine scrape");
    }
    for host in ["n1", "n2"] {
        assert_eq!(site.lab.kill_processes(host, "paxos-node").unwrap(), 1);
    }
    let reason = eventually("the last node is not ready", || {
        let (code, reason) = page("n3", "/readyz");
        (code == 503).then_some(reason)
    });
    assert!(reason.starts_with("not ready: "), "{reason}");
    assert_eq!(page("n3", "/healthz"), (200, "ok\n".to_owned()));
    eventually("the cluster is unavailable", || {
        (site.ctl(&inventory, &["status"]).code == 5).then_some(())
    });
    assert_eq!(page("n3", "/healthz").0, 200, "nobody restarts a node that only waits for others");

    site.ctl(&inventory, &["up", "--yes"]).expect(0);
    eventually("the node is ready again", || page("n3", "/readyz").0.eq(&200).then_some(()));
    site.ctl(&inventory, &["status", "--wait", "healthy"]).expect(0);
}

/// A lab with a cluster on it and a Prometheus that watches it.
struct Watched<'a> {
    site: &'a Site,
    cluster: String,
    inventory: PathBuf,
    prometheus_port: u16,
}

impl Watched<'_> {
    fn start(site: &Site) -> Watched<'_> {
        let cluster = site.lab.name().to_owned();
        let inventory = site.open_inventory();
        let watched = Watched { site, cluster, inventory, prometheus_port: free_port() };
        // A short interval; this machine may scrape, as the lab's inventory says.
        let mut text = std::fs::read_to_string(&watched.inventory).unwrap();
        text.push_str("\n[monitoring]\nscrape_interval = \"1s\"\n");
        std::fs::write(&watched.inventory, text).unwrap();
        site.ctl(&watched.inventory, &["up", "--yes"]).expect(0);
        let said = watched.monitor("up").expect(0).says("prometheus   ready");
        assert!(!said.stderr.contains("cannot be read from here"), "{}", said.stderr);
        watched
    }

    fn monitor(&self, what: &str) -> Said {
        let port = format!("--prometheus-port={}", self.prometheus_port);
        self.site.ctl(&self.inventory, &["monitor", what, &port])
    }

    fn wait_for(&self, what: &str, done: impl Fn(&Watched<'_>) -> bool) {
        eventually(what, || done(self).then_some(()));
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
        let address = format!("127.0.0.1:{}", self.prometheus_port);
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let (code, body) = exchange(&address, &path);
        assert_eq!(code, 200, "{expression}: {body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        answer["data"]["result"].as_array().expect("a vector").clone()
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let _ = self.monitor("down");
    }
}

/// Code and body of one page.
fn exchange(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
    (code, body.to_owned())
}

#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
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

/// Debian's package of Prometheus starts one of its own on the usual port.
#[test]
fn a_taken_port_is_named_with_its_holder_before_anything_starts() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        return skipped("prometheus is not installed (Debian: prometheus)");
    }
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let inventory = concat!(env!("CARGO_MANIFEST_DIR"), "/../hosts/inventories/default.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_paxosctl"));
    command.args(["-i", inventory, "monitor", "up", "--prometheus-port", &port.to_string()]);
    let said = Said::of(command.current_dir(dir.path()).output().unwrap()).expect(2);
    let expect = format!("error[USAGE]: cannot start prometheus: 127.0.0.1:{port} is held by ");
    said.says(&expect).says(&format!("(pid {})", std::process::id())).says("--prometheus-port");
    assert!(!dir.path().join(".monitor/prometheus.pid").exists(), "nothing was started");
}
