//! What the tests with real node processes share: the node's program, built as it stands now, and a
//! cluster at an address of its own.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]
#![expect(clippy::print_stderr, reason = "a skipped test says so, and figures are shown")]

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ctl::local::{LocalCluster, Spec, last_lines};
use proof::client::{Client, Fate};
use proof::resp::Reply;
use tempfile::TempDir;

/// Generous: these tests share two cores with whatever else runs. No test times itself by them.
pub const SOON: Duration = Duration::from_secs(30);

/// `paxos-node`, built once per test binary. Cargo makes a package's own programs for its tests, but
/// not those of another package.
pub fn node_binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build_node).clone()
}

fn build_node() -> PathBuf {
    if let Some(given) = std::env::var_os("PAXOS_NODE") {
        return given.into();
    }
    // target/<profile>/deps/<this test>
    let own = std::env::current_exe().unwrap();
    let profile_dir = own.parent().and_then(|deps| deps.parent()).expect("tests run from target/");
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "node", "--bin", "paxos-node"]);
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    build.arg("--target-dir").arg(profile_dir.parent().expect("target/<profile>"));
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    let status = build.status().expect("cargo can be run");
    assert!(status.success(), "build paxos-node: {status}");
    profile_dir.join("paxos-node")
}

/// A cluster whose folder goes away with it.
pub struct TestCluster {
    pub cluster: LocalCluster,
    /// After `cluster`, so that the processes are gone before their files.
    pub dir: TempDir,
}

impl std::ops::Deref for TestCluster {
    type Target = LocalCluster;

    fn deref(&self) -> &LocalCluster {
        &self.cluster
    }
}

impl std::ops::DerefMut for TestCluster {
    fn deref_mut(&mut self) -> &mut LocalCluster {
        &mut self.cluster
    }
}

impl Drop for TestCluster {
    /// A failed test shows what the nodes said last; their files go away in a moment.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.cluster.nodes {
                eprintln!("{}, the end of its trace:", node.name);
                eprintln!("{}", last_lines(&node.log_path(), 15));
            }
        }
    }
}

/// A spec for `servers` nodes at an address that no other test uses.
pub fn spec(servers: u32, dir: &TempDir) -> Spec {
    let mut spec = Spec::new(servers, dir.path(), node_binary());
    spec.address = own_address();
    // Segments are written full of zeros before they are used; small ones make many starts cheap.
    spec.behaviour.command_bytes_max = 1 << 20;
    spec.behaviour.segment_bytes = 4 << 20;
    spec
}

/// Starts `servers` nodes after `change` to their spec, and waits for a leader.
pub async fn start(servers: u32, change: impl FnOnce(&mut Spec)) -> TestCluster {
    let dir = TempDir::with_prefix("paxos-test-").unwrap();
    let mut spec = spec(servers, &dir);
    change(&mut spec);
    let cluster = LocalCluster::start(spec).unwrap_or_else(|error| panic!("{error}"));
    let mut cluster = TestCluster { cluster, dir };
    cluster.wait_for_leader(SOON, |_| true).await.unwrap_or_else(|error| panic!("{error}"));
    cluster
}

/// An address in 127/8 for one cluster: tests that run at once never meet, whatever their ports.
fn own_address() -> IpAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        // Any odd factor spreads neighbouring process ids; 127.0.x.x is left to others.
        let mixed = (std::process::id() ^ count << 20).wrapping_mul(0x9E37_79B1);
        let [_, b, c, d] = mixed.to_be_bytes();
        let address = Ipv4Addr::new(127, b.clamp(1, 254), c, d.clamp(1, 254));
        if TcpListener::bind((address, 7379)).is_ok() {
            return address.into();
        }
    }
}

/// One command through a client of our own, again while it is refused: for set-up and checks, where
/// "not done" means "try again".
pub async fn call(client: &mut Client, words: &[&[u8]]) -> Reply {
    for _ in 0..400 {
        match client.call(words).await {
            Fate::Done(reply) => return reply,
            Fate::Refused(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Fate::Unknown(why) => panic!("the fate of {words:?} is unknown: {why}"),
        }
    }
    panic!("{words:?} was refused for 20 s");
}

/// Waits until `done` says so, or panics with `what`.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !done().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

pub fn show(text: &str) {
    eprintln!("{text}");
}
