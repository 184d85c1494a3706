//! `make up`, `show`, `down` and `kill` with a real engine: containers run, the leader's is killed,
//! another node leads, and the clients go on. It needs Docker with Compose; without it says so.

mod made;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use made::{Made, free_base_port, make, readme};

const SERVERS: u32 = 5;
const WITHIN: Duration = Duration::from_secs(60);

/// A project that is taken down at the end, also of a failed test.
struct Project {
    folder: tempfile::TempDir,
    name: String,
    network: String,
    port: u16,
}

impl Project {
    /// Variables that keep this project apart from any other on this machine.
    fn variables(&self) -> Vec<String> {
        vec![
            format!("PROJECT={}", self.name),
            format!("PROJECT_DIR={}", self.folder.path().join("project").display()),
            format!("NETWORK={}", self.network),
            format!("BASE_PORT={}", self.port),
        ]
    }

    /// A command of README's, for this project.
    fn readme(&self, command: &str) -> Made {
        let variables = self.variables();
        readme(command, &variables.iter().map(String::as_str).collect::<Vec<&str>>())
    }

    /// Ids of the containers and networks that bear the project's label.
    fn left(&self) -> String {
        let label = format!("label=com.docker.compose.project={}", self.name);
        said(&docker(&["ps", "-aq", "--filter", &label]))
            + &said(&docker(&["network", "ls", "-q", "--filter", &label]))
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
            assert!(Instant::now() < deadline, "no leader: {leaders:?}");
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
        let variables = self.variables();
        let words = ["kill"].into_iter().chain(variables.iter().map(String::as_str));
        make(&words.collect::<Vec<&str>>());
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

/// Why there can be no containers here.
fn missing() -> Option<&'static str> {
    let answers = |program: &str, args: &[&str]| {
        Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
    };
    if !answers("docker", &["info"]) {
        return Some("no Docker engine answers (Debian: apt-get install docker.io)");
    }
    let compose = answers("docker", &["compose", "version"]);
    if !compose && !answers("docker-compose", &["version"]) {
        return Some("neither docker compose nor docker-compose is installed");
    }
    None
}

#[test]
fn containers_elect_another_leader_when_the_leaders_is_killed() {
    if let Some(missing) = missing() {
        eprintln!("skipped: {missing}");
        return;
    }
    let id = std::process::id();
    let project = Project {
        folder: tempfile::tempdir().unwrap(),
        name: format!("paxostest{id}"),
        network: format!("10.230.{}", 100 + id % 100),
        port: free_base_port(),
    };
    let members =
        || std::fs::read_to_string(project.folder.path().join("project/n1/members.toml")).unwrap();
    project.readme("make up SERVERS=5 CLIENTS=2").expect(0);
    let first = members();
    project.readme("make up SERVERS=5 CLIENTS=2").expect(0);
    assert_eq!(members(), first, "identities are made once");

    let leader = project.wait_for_leader(SERVERS as usize, None);
    let listed = project.readme("make show").expect(0).stdout;
    for service in ["n1", "n2", "n3", "n4", "n5", "client1", "client2"] {
        assert!(listed.contains(service), "{listed}");
    }
    project.wait_for_writes("client1", 0);

    let killed = docker(&["kill", &project.container(&format!("n{leader}"))]);
    assert!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
    project.wait_for_leader(SERVERS as usize - 1, Some(leader));
    let writes = project.writes("client2");
    project.wait_for_writes("client2", writes);

    project.readme("make down").expect(0);
    assert_eq!(project.left(), "", "a container or network is left");
    project.readme("make show").expect(0).says("no containers here: make up");

    project.readme("make up SERVERS=5 CLIENTS=2").expect(0);
    assert_ne!(members(), first, "a project that was taken down starts anew");
    project.wait_for_leader(SERVERS as usize, None);
    project.readme("make kill").expect(0);
    assert_eq!(project.left(), "", "a container or network is left");
}
