//! The Compose project as `make up` uses it, with a real engine: containers run, the leader's is
//! killed, another node leads, and the clients go on. It needs Docker and the static programs of
//! `make compile`; without them it says so.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const SERVERS: u32 = 3;
const WITHIN: Duration = Duration::from_secs(60);

/// A project that is taken down at the end, also of a failed test.
struct Project {
    folder: tempfile::TempDir,
    name: String,
    network: String,
    compose: &'static [&'static str],
}

impl Project {
    fn compose(&self, args: &[&str]) -> Output {
        let folder = self.folder.path();
        Command::new(self.compose[0])
            .args(&self.compose[1..])
            .args(["-p", &self.name, "--project-directory"])
            .arg(folder)
            .arg("-f")
            .arg(folder.join("docker-compose.yml"))
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The container of a service, by its label: the two Composes name them differently.
    fn container(&self, service: &str) -> String {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let service = format!("label=com.docker.compose.service={service}");
        said(&docker(&["ps", "-aq", "--filter", &project, "--filter", &service]))
    }

    /// What each node says that leads, or answers nothing.
    fn leaders(&self) -> BTreeMap<String, Option<u64>> {
        let ask = |id: u32| {
            let status = page(&format!("{}.{}:7381", self.network, 10 + id));
            let leader = status.and_then(|status| status["leader"].as_u64());
            (format!("n{id}"), leader)
        };
        (1..=SERVERS).map(ask).collect()
    }

    /// Waits until `count` nodes agree on a leader other than `former`.
    fn wait_for_leader(&self, count: usize, former: Option<u64>) -> u64 {
        let deadline = Instant::now() + WITHIN;
        loop {
            let leaders = self.leaders();
            let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
            for leader in leaders.values().flatten().filter(|leader| Some(**leader) != former) {
                *votes.entry(*leader).or_default() += 1;
            }
            if let Some((leader, _)) = votes.iter().find(|(_, votes)| **votes >= count) {
                return *leader;
            }
            let traces = said(&self.compose(&["logs", "--tail=5"]));
            assert!(Instant::now() < deadline, "no leader: {leaders:?}\n{traces}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Writes that a client container says it has done; 0 before its first line.
    fn writes(&self, client: &str) -> u64 {
        let trace = said(&docker(&["logs", "--tail=1", &self.container(client)]));
        let mut words = trace.split_whitespace().skip_while(|word| *word != "writes");
        words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    fn wait_for_writes(&self, client: &str, above: u64) -> u64 {
        let deadline = Instant::now() + WITHIN;
        loop {
            let writes = self.writes(client);
            if writes > above {
                return writes;
            }
            assert!(Instant::now() < deadline, "{client} stands at {writes} writes");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.compose(&["kill"]);
        self.compose(&["down", "--timeout", "0", "--rmi", "all"]);
    }
}

fn docker(args: &[&str]) -> Output {
    Command::new("docker").args(args).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// `/status` of a node, within half a second.
fn page(address: &str) -> Option<serde_json::Value> {
    let patience = Duration::from_millis(500);
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(b"GET /status HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// Both programs as `make compile` leaves them, and how Compose is called here.
fn equipment() -> Result<(PathBuf, &'static [&'static str]), String> {
    let answers = |program: &str, args: &[&str]| {
        Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
    };
    if !answers("docker", &["info"]) {
        return Err("no Docker engine answers".to_owned());
    }
    let compose: &[&str] = if answers("docker", &["compose", "version"]) {
        &["docker", "compose"]
    } else if answers("docker-compose", &["version"]) {
        &["docker-compose"]
    } else {
        return Err("neither docker compose nor docker-compose is installed".to_owned());
    };
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let built = checkout.join("target/release");
    for program in ["paxosctl", "paxos-node"] {
        if !built.join(program).is_file() {
            return Err(format!("{} is not built: make compile", built.join(program).display()));
        }
    }
    Ok((built, compose))
}

/// Client ports of SERVERS nodes, 10 apart, free now.
fn free_base_port() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = 20_000 + (std::process::id() % 100) as u16 * 100;
    (0..100)
        .map(|step| first + step * 30)
        .find(|base| (0..30).all(|offset| is_free(base + offset)))
        .expect("some thirty ports in a row are free")
}

#[test]
fn containers_elect_another_leader_when_the_leaders_is_killed() {
    let (built, compose) = match equipment() {
        Ok(equipment) => equipment,
        Err(missing) => {
            eprintln!("skipped: {missing}");
            return;
        }
    };
    let id = std::process::id();
    let project = Project {
        folder: tempfile::tempdir().unwrap(),
        name: format!("paxostest{id}"),
        network: format!("10.230.{}", 100 + id % 100),
        compose,
    };
    let port = free_base_port().to_string();
    let generate = || {
        let output = Command::new(built.join("paxosctl"))
            .args(["gen", "compose", "--clients", "2", "--network", &project.network])
            .args(["--servers", &SERVERS.to_string(), "--base-port", &port, "--out"])
            .arg(project.folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(project.folder.path().join("n1/members.toml")).unwrap()
    };
    let members = generate();
    assert_eq!(generate(), members, "identities are made once");

    let up = project.compose(&["up", "-d", "--build"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let leader = project.wait_for_leader(SERVERS as usize, None);
    let listed = said(&project.compose(&["ps"]));
    for service in ["n1", "n2", "n3", "client1", "client2"] {
        assert!(listed.contains(service), "{listed}");
    }
    project.wait_for_writes("client1", 0);

    let killed = docker(&["kill", &project.container(&format!("n{leader}"))]);
    assert!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
    project.wait_for_leader(SERVERS as usize - 1, Some(leader));
    let writes = project.writes("client2");
    project.wait_for_writes("client2", writes);

    let down = project.compose(&["down", "--timeout", "20", "--rmi", "all"]);
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    let label = format!("label=com.docker.compose.project={}", project.name);
    assert_eq!(said(&docker(&["ps", "-aq", "--filter", &label])), "", "no container is left");
    assert_eq!(said(&docker(&["network", "ls", "-q", "--filter", &label])), "");
}
