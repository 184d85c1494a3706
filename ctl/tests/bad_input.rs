//! Whatever is thrown at the ports, and whatever is wrong with a disk: the node answers clearly or
//! refuses, goes on serving the others, and loses nothing.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use common::{SOON, TestCluster, call, node_binary, show, skipped, spec, start, until};
use config::{User, UserRole};
use ctl::local::{LocalCluster, last_lines};
use proof::check::{Limits, Verdict};
use proof::client::{Client, Fate};
use proof::load::{Load, Spec as LoadSpec};
use proof::resp::Reply;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What comes back until the node closes, or is silent for a while.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> (String, bool) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A node that refuses may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match tokio::time::timeout(Duration::from_secs(2), stream.read(&mut chunk)).await {
            Err(_) => return (String::from_utf8_lossy(&answer).into_owned(), false),
            Ok(Ok(0) | Err(_)) => return (String::from_utf8_lossy(&answer).into_owned(), true),
            Ok(Ok(count)) => answer.extend_from_slice(&chunk[..count]),
        }
    }
}

/// One write and its read through the cluster: the others are still served.
async fn others_are_served(cluster: &TestCluster, token: &str) {
    let mut client = Client::new(cluster.target(), 0);
    let key = format!("served:{token}");
    let stored = call(&mut client, &[b"SET", key.as_bytes(), token.as_bytes()]).await;
    assert_eq!(stored, Reply::Simple("OK".into()));
    let read = call(&mut client, &[b"GET", key.as_bytes()]).await;
    assert_eq!(read, Reply::Bulk(token.to_owned().into()));
}

fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn malformed_requests_are_refused_by_name() {
    let mut cluster = start(3, |_| ()).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let address = cluster.node(leader).listen.client;
    for bytes in [
        &b"*1\r\n+PING\r\n"[..],
        b"*x\r\n",
        b"*-7\r\n*2000000000\r\n",
        b"*1\r\n$-5\r\n",
        b"*1\r\n$abc\r\n",
        b"*2\r\n$4\r\nPING\r\n:5\r\n",
        b"*1\r\n$99999999999999999999\r\n",
    ] {
        let shown = bytes.escape_ascii().to_string();
        let (answer, closed) = exchange(address, bytes).await;
        assert!(answer.contains("-ERR Protocol error"), "{shown} was answered {answer:?}");
        assert!(closed, "{shown}: a stream that lost its frame is of no more use");
    }
    let (answer, closed) = exchange(address, b"NOSUCHCOMMAND a b\r\nPING\r\n").await;
    assert!(
        answer.starts_with("-ERR unknown command") && answer.ends_with("+PONG\r\n"),
        "{answer}"
    );
    assert!(!closed, "an unknown command is no reason to hang up");
    others_are_served(&cluster, "malformed").await;
    assert_eq!(cluster.leader().await, Some(leader), "the leader did not mind");
}

/// PITFALLS 42: a header that announces 512 MiB asks for no memory, and is refused at the door.
#[tokio::test]
async fn a_header_of_512_mib_costs_nothing() {
    let mut cluster = start(3, |_| ()).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let address = cluster.node(leader).listen.client;
    let pid = cluster.node(leader).pid().unwrap();
    let before = resident_bytes(pid);
    let header = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n";
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(header).await.unwrap();
        let _ = stream.write_all(&[b'x'; 64 << 10]).await;
        held.push(stream);
    }
    others_are_served(&cluster, "huge").await;
    let grown = resident_bytes(pid).saturating_sub(before);
    assert!(grown < 256 << 20, "20 headers of 512 MiB made the node grow by {grown} bytes");
    let (answer, _) = exchange(address, header).await;
    assert!(answer.starts_with("-ERR"), "{answer:?}");
}

/// Half a frame, then nothing: the connection waits, nobody else does. On the peer port and the HTTP
/// port too.
#[tokio::test]
async fn half_a_frame_then_silence_holds_up_nobody() {
    let mut cluster = start(3, |_| ()).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let listen = cluster.node(leader).listen.clone();
    let mut held = Vec::new();
    for _ in 0..50 {
        for (address, half) in [
            (listen.client, &b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\nabc"[..]),
            (listen.peer, b"\0\0\0"),
            (listen.http, b"GET /met"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(half).await.unwrap();
            held.push(stream);
        }
    }
    others_are_served(&cluster, "half").await;
    assert!(cluster.node(leader).status().await.is_some(), "its pages answer");
    assert_eq!(cluster.wait_until_caught_up(SOON).await.unwrap(), leader);
}

#[tokio::test]
async fn random_bytes_on_the_peer_port_change_nothing() {
    let mut cluster = start(3, |_| ()).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let ballot = cluster.node(leader).status().await.unwrap().ballot;
    let mut rng = StdRng::seed_from_u64(82);
    for round in 0..60 {
        let node = round % 3 + 1;
        let mut bytes = vec![0; 1 + 97 * round as usize];
        rng.fill_bytes(&mut bytes);
        let mut stream = TcpStream::connect(cluster.node(node).listen.peer).await.unwrap();
        let _ = stream.write_all(&bytes).await;
    }
    others_are_served(&cluster, "random").await;
    assert_eq!(cluster.wait_until_caught_up(SOON).await.unwrap(), leader);
    assert_eq!(cluster.node(leader).status().await.unwrap().ballot, ballot, "nobody was toppled");
}

/// 10 000 clients that say nothing. Needs as many file descriptors, in us and in the node.
#[tokio::test]
async fn ten_thousand_idle_connections_are_borne() {
    const IDLE: usize = 10_000;
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = IDLE as u64 + 2_000;
    if limit.maximum.is_some_and(|most| most < wanted) {
        return skipped(&format!("only {:?} file descriptors are allowed", limit.maximum));
    }
    limit.current = Some(limit.current.map_or(wanted, |now| now.max(wanted)));
    setrlimit(Resource::Nofile, limit).unwrap();

    let mut cluster = start(3, |_| ()).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let address = cluster.node(leader).listen.client;
    let pid = cluster.node(leader).pid().unwrap();
    let before = resident_bytes(pid);
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    others_are_served(&cluster, "idle").await;
    let each = resident_bytes(pid).saturating_sub(before) / IDLE as u64;
    show(&format!("{IDLE} idle connections cost the node {each} bytes each"));
    // Not only those that came first or last: every one of them is alive.
    for stream in idle.iter_mut().step_by(997) {
        stream.write_all(b"PING\r\n").await.unwrap();
        let mut answer = [0; 7];
        tokio::time::timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"+PONG\r\n");
    }
    cluster.wait_until_caught_up(SOON).await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let mut cluster = start(1, |spec| spec.behaviour.connections_max = 4).await;
    let address = cluster.node(1).listen.client;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"PING\r\n").await.unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).await.unwrap();
        held.push(stream);
    }
    let (answer, closed) = exchange(address, b"").await;
    assert!(answer.starts_with("-ERR max number of clients reached") && closed, "{answer:?}");
    drop(held);
    until("room for others", async || exchange(address, b"PING\r\n").await.0 == "+PONG\r\n").await;
}

/// PITFALLS 66: a value at the limit passes, one byte more is refused before it is proposed.
#[tokio::test]
async fn a_value_beyond_the_limit_is_refused_and_never_retried() {
    const MOST: usize = 1 << 20;
    let cluster = start(3, |spec| spec.behaviour.command_bytes_max = MOST as u64).await;
    let mut client = Client::new(cluster.target(), 0);
    let fits = vec![b'x'; MOST - 200];
    assert_eq!(call(&mut client, &[b"SET", b"big", &fits]).await, Reply::Simple("OK".into()));
    let fate = client.call(&[b"SET", b"big", &vec![b'y'; MOST + 1]]).await;
    assert!(!matches!(fate, proof::client::Fate::Done(_)), "{fate:?}");
    others_are_served(&cluster, "too big").await;
    let mut client = Client::new(cluster.target(), 0);
    assert_eq!(call(&mut client, &[b"GET", b"big"]).await, Reply::Bulk(fits.into()));
}

#[tokio::test]
async fn nobody_does_anything_before_authenticating() {
    let password = "correct horse battery staple";
    let digest = |text: &str| -> String {
        Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let user = |name: &str, role| User {
        name: name.to_owned(),
        role,
        password_sha256: vec![digest(password)],
    };
    let users = vec![user("app", UserRole::Rw), user("reader", UserRole::Ro)];
    let mut cluster = start(3, |spec| spec.users = users).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let address = cluster.node(leader).listen.client;

    let (answer, _) = exchange(address, b"SET k v\r\nGET k\r\nFLUSHALL\r\nCLUSTER NODES\r\n").await;
    let refusals: Vec<&str> = answer.lines().collect();
    assert!(refusals.iter().all(|line| line.starts_with("-NOAUTH")), "{answer}");
    assert_eq!(refusals.len(), 4, "{answer}");
    let (answer, _) = exchange(address, b"AUTH app wrong\r\nGET k\r\n").await;
    assert!(answer.starts_with("-WRONGPASS") && answer.contains("\r\n-NOAUTH"), "{answer}");
    // DESIGN §7: until then frames are small.
    let long = [&b"*2\r\n$4\r\nAUTH\r\n$65536\r\n"[..], &vec![b'x'; 65536], b"\r\n"].concat();
    let (answer, closed) = exchange(address, &long).await;
    assert!(closed && !answer.starts_with('+'), "{answer}");

    let mut target = cluster.target();
    target.credentials = Some(("app".into(), password.into()));
    let mut app = Client::new(target.clone(), 0);
    assert_eq!(call(&mut app, &[b"SET", b"k", b"v"]).await, Reply::Simple("OK".into()));
    target.credentials = Some(("reader".into(), password.into()));
    let mut reader = Client::new(target, leader as usize - 1);
    assert_eq!(call(&mut reader, &[b"GET", b"k"]).await, Reply::Bulk("v".into()));
    let refused = proof::client::Fate::Refused("NOPERM".into());
    assert_eq!(reader.call(&[b"SET", b"k", b"w"]).await, refused);
    assert_eq!(call(&mut app, &[b"GET", b"k"]).await, Reply::Bulk("v".into()));
}

/// Starts the node and waits until it has given up; what it said.
async fn refuses_to_start(cluster: &mut TestCluster, id: u32) -> String {
    let node = cluster.node(id);
    let _ = fs::remove_file(node.log_path());
    node.start().unwrap();
    until("the node giving up", async || cluster.node(id).has_ended()).await;
    let node = cluster.node(id);
    let status = node.exit_status().expect("it ended by itself");
    let said = last_lines(&node.log_path(), 10);
    assert!(!status.success(), "it ended as if all were well: {said}");
    assert!(!said.contains("panicked"), "a person is told, not shown a panic: {said}");
    said
}

/// PITFALLS 8, 9, 27, 58: a data directory that is not this node's, or not readable, is refused; the
/// others go on; with its own data back the node catches up.
#[tokio::test]
async fn a_wrong_data_directory_is_refused() {
    let mut cluster = start(3, |_| ()).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let victim = leader % 3 + 1;
    let other = victim % 3 + 1;
    let data = cluster.node(victim).data_dir();
    let kept = data.with_file_name("kept");
    cluster.node(victim).kill();
    fs::rename(&data, &kept).unwrap();

    // Never formatted.
    let said = refuses_to_start(&mut cluster, victim).await;
    assert!(said.contains("format") && said.contains(data.to_str().unwrap()), "{said}");

    // Another node's: the id on the disk is not the id in node.toml.
    copy_dir(&cluster.node(other).data_dir(), &data);
    let said = refuses_to_start(&mut cluster, victim).await;
    assert!(said.contains(&format!("{other}")) && said.contains(&format!("{victim}")), "{said}");
    fs::remove_dir_all(&data).unwrap();

    // Not a directory at all. (Modes do not stop root.)
    fs::write(&data, b"somebody's file").unwrap();
    let said = refuses_to_start(&mut cluster, victim).await;
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    assert_eq!(fs::read(&data).unwrap(), b"somebody's file", "nothing was deleted");
    fs::remove_file(&data).unwrap();

    // Its own, with one byte of the identity flipped.
    copy_dir(&kept, &data);
    let identity = data.join("identity");
    let mut bytes = fs::read(&identity).unwrap();
    bytes[10] ^= 1;
    fs::write(&identity, &bytes).unwrap();
    let said = refuses_to_start(&mut cluster, victim).await;
    assert!(said.contains("identity"), "{said}");
    assert_eq!(fs::read(&identity).unwrap(), bytes, "nothing was mended behind our back");
    fs::remove_dir_all(&data).unwrap();

    others_are_served(&cluster, "wrong data").await;
    fs::rename(&kept, &data).unwrap();
    cluster.node(victim).start().unwrap();
    cluster.wait_until_caught_up(SOON).await.unwrap();
}

/// PITFALLS 8 and 27: a disk that was formatted again is another node. Nobody talks to it, so it
/// never votes with a memory that it lost.
#[tokio::test]
async fn a_node_formatted_again_is_not_let_in() {
    let mut cluster = start(3, |_| ()).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    others_are_served(&cluster, "before").await;
    let victim = leader % 3 + 1;
    cluster.node(victim).kill();
    let data = cluster.node(victim).data_dir();
    let kept = data.with_file_name("kept");
    fs::rename(&data, &kept).unwrap();
    cluster.node(victim).command("format").unwrap();
    cluster.node(victim).start().unwrap();
    // It either gives up by itself, or stays outside: long enough for many heartbeats.
    tokio::time::sleep(Duration::from_secs(2)).await;
    if let Some(status) = cluster.node(victim).status().await {
        assert_eq!(status.leader, None, "it was let in: {status:?}");
        assert_eq!(status.chosen_slot, 0, "it was told what was chosen");
    }
    assert_eq!(cluster.leader().await, Some(leader));
    others_are_served(&cluster, "with an impostor").await;
    cluster.node(victim).kill();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&kept, &data).unwrap();
    cluster.node(victim).start().unwrap();
    cluster.wait_until_caught_up(SOON).await.unwrap();
}

/// PITFALLS 76: a node of another cluster at a member's address is refused, both ways.
#[tokio::test]
async fn a_foreign_clusters_node_is_not_let_in() {
    let mut cluster = start(3, |_| ()).await;
    let leader = cluster.wait_until_caught_up(SOON).await.unwrap();
    let victim = leader % 3 + 1;
    cluster.node(victim).kill();

    // The same addresses, the same ids, another uuid and other keys.
    let foreign_dir = TempDir::new().unwrap();
    let mut foreign_spec = cluster.spec.clone();
    foreign_spec.dir = foreign_dir.path().to_owned();
    let mut foreign = LocalCluster::prepare(foreign_spec).unwrap();
    foreign.node(victim).start().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = foreign.node(victim).status().await.expect("it runs, alone");
    assert_eq!((status.leader, status.chosen_slot), (None, 0), "it was let in");
    assert_eq!(cluster.leader().await, Some(leader));
    others_are_served(&cluster, "with a foreigner").await;
    foreign.node(victim).kill();

    cluster.node(victim).start().unwrap();
    cluster.wait_until_caught_up(SOON).await.unwrap();
}

/// PITFALLS 11, 59 and 103: a follower's disk fills. The others go on; when space is back, so is it.
/// And its full disk never counts towards a quorum it cannot write.
#[tokio::test]
async fn a_full_disk_stops_one_node_and_loses_nothing() {
    let dir = TempDir::with_prefix("paxos-test-").unwrap();
    let mut spec = spec(3, &dir);
    spec.behaviour.command_bytes_max = 256 << 10;
    spec.behaviour.segment_bytes = 1 << 20;
    spec.behaviour.snapshot_every_bytes = 4 << 20;
    let small = Tmpfs::mount(dir.path().join("n3"), 48);
    let Some(small) = small else { return };
    let cluster = LocalCluster::start(spec).unwrap_or_else(|error| panic!("{error}"));
    let mut cluster = TestCluster { cluster, dir };
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let mut load_spec = LoadSpec::new(cluster.target(), 4);
    load_spec.value_bytes = 2_000;
    let load = Load::start(load_spec);
    let filler = small.path.join("filler");
    fill(&filler);

    until("the node noticing", async || {
        let ended = cluster.node(3).has_ended();
        ended || cluster.node(3).status().await.is_some_and(|status| !status.can_accept)
    })
    .await;
    match cluster.node(3).status().await {
        Some(status) => {
            let reason = status.can_accept_reason.unwrap_or_default();
            show(&format!("with a full disk n3 says: {reason}"));
            assert!(!reason.is_empty(), "it says why it cannot accept");
        }
        None => {
            let said = last_lines(&cluster.node(3).log_path(), 10);
            assert!(said.to_lowercase().contains("space"), "it says why it stopped: {said}");
        }
    }
    let before = load.stats().total().writes_ok;
    until("writes without n3", async || load.stats().total().writes_ok > before + 200).await;

    fs::remove_file(&filler).unwrap();
    if cluster.node(3).has_ended() {
        cluster.node(3).start().unwrap();
    }
    let target = cluster.target();
    let mut finished = load.stop().await;
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let proof = finished.verify(&target, SOON, Limits::default()).await;
    assert_eq!(proof.verdict, Verdict::Holds, "{:#?}", proof.audit.findings);
    drop(cluster);
}

/// All disks full: what grows is refused with a clear error, what makes room passes, and when there
/// is space again everything goes on by itself (PITFALLS 11, 59).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_on_all_nodes_refuse_growth_and_take_deletions() {
    let dir = TempDir::with_prefix("paxos-test-").unwrap();
    let mut spec = spec(3, &dir);
    spec.behaviour.command_bytes_max = 256 << 10;
    spec.behaviour.segment_bytes = 4 << 20;
    let mut disks = Vec::new();
    for node in ["n1", "n2", "n3"] {
        let Some(small) = Tmpfs::mount(dir.path().join(node), 48) else { return };
        disks.push(small);
    }
    let cluster = LocalCluster::start(spec).unwrap_or_else(|error| panic!("{error}"));
    let mut cluster = TestCluster { cluster, dir };
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let mut client = Client::new(cluster.target(), 0);
    assert_eq!(call(&mut client, &[b"SET", b"kept", b"1"]).await, Reply::Simple("OK".into()));
    assert_eq!(call(&mut client, &[b"SET", b"gone", b"1"]).await, Reply::Simple("OK".into()));
    for disk in &disks {
        fill(&disk.path.join("filler"));
    }

    // Write until the disks say no.
    let value = vec![b'x'; 100 << 10];
    let mut acknowledged = 0;
    until("a refusal for want of space", async || {
        let key = format!("big-{acknowledged}");
        match client.call(&[b"SET", key.as_bytes(), &value]).await {
            Fate::Done(_) => acknowledged += 1,
            Fate::Refused(word) => return word == "OOM",
            // The leader of that moment stepped aside with it.
            Fate::Unknown(_) => {}
        }
        false
    })
    .await;
    show(&format!("{acknowledged} values of 100 KiB fitted beside full disks"));
    until("a deletion", async || matches!(client.call(&[b"DEL", b"gone"]).await, Fate::Done(_)))
        .await;
    assert_eq!(call(&mut client, &[b"EXISTS", b"gone"]).await, Reply::Integer(0));
    assert_eq!(call(&mut client, &[b"GET", b"kept"]).await, Reply::Bulk(b"1".as_slice().into()));

    for disk in &disks {
        fs::remove_file(disk.path.join("filler")).unwrap();
    }
    until("writes that grow, without a restart", async || {
        matches!(client.call(&[b"SET", b"again", &value]).await, Fate::Done(_))
    })
    .await;
    cluster.nobody_died().unwrap();
    for number in 0..acknowledged {
        let key = format!("big-{number}");
        let strlen = call(&mut client, &[b"STRLEN", key.as_bytes()]).await;
        assert_eq!(strlen, Reply::Integer(value.len() as i64), "{key} was acknowledged");
    }
    cluster.wait_until_caught_up(SOON).await.unwrap();
    drop(cluster);
}

/// Disks that the log itself has filled: deleting is enough, nobody has to make room by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_the_log_has_filled_is_given_back_by_deleting() {
    let dir = TempDir::with_prefix("paxos-test-").unwrap();
    let mut spec = spec(3, &dir);
    spec.behaviour.command_bytes_max = 256 << 10;
    spec.behaviour.segment_bytes = 4 << 20;
    let mut disks = Vec::new();
    for node in ["n1", "n2", "n3"] {
        let Some(small) = Tmpfs::mount(dir.path().join(node), 64) else { return };
        disks.push(small);
    }
    let cluster = LocalCluster::start(spec).unwrap_or_else(|error| panic!("{error}"));
    let mut cluster = TestCluster { cluster, dir };
    cluster.wait_until_caught_up(SOON).await.unwrap();
    let mut client = Client::new(cluster.target(), 0);
    let value = vec![b'x'; 100 << 10];
    for round in 0..2 {
        let mut acknowledged = 0;
        until("a refusal for want of space", async || {
            let key = format!("big-{acknowledged}");
            match client.call(&[b"SET", key.as_bytes(), &value]).await {
                Fate::Done(_) => acknowledged += 1,
                Fate::Refused(word) => return word == "OOM",
                Fate::Unknown(_) => {}
            }
            false
        })
        .await;
        show(&format!("round {round}: {acknowledged} values of 100 KiB filled the disks"));
        assert!(acknowledged > 50, "round {round}: {acknowledged}");
        until("a flush", async || matches!(client.call(&[b"FLUSHALL"]).await, Fate::Done(_))).await;
        until("writes that grow", async || {
            matches!(client.call(&[b"SET", b"again", &value]).await, Fate::Done(_))
        })
        .await;
    }
    cluster.nobody_died().unwrap();
    cluster.wait_until_caught_up(SOON).await.unwrap();
    drop(cluster);
}

/// A small file system of our own, unmounted when dropped.
struct Tmpfs {
    path: std::path::PathBuf,
}

impl Tmpfs {
    fn mount(path: std::path::PathBuf, mebibytes: u32) -> Option<Tmpfs> {
        fs::create_dir_all(&path).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(&path);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Tmpfs { path }),
            Ok(output) => {
                skipped(&format!("mount a tmpfs: {}", String::from_utf8_lossy(&output.stderr)));
                None
            }
            Err(error) => {
                skipped(&format!("mount: {error}"));
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.path).status());
    }
}

/// Writes until no byte more fits.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).unwrap();
    for size in [64 << 10, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy_dir(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The program says what it wants when it is called wrongly.
#[test]
fn the_program_refuses_a_wrong_configuration_by_name() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("node.toml");
    for text in ["", "schema = 1\nnonsense = true\n", "not toml at all"] {
        fs::write(&path, text).unwrap();
        let mut node = std::process::Command::new(node_binary());
        let output = node.arg("--config").arg(&path).arg("--check").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{text:?} was accepted");
        assert!(said.contains("node.toml") && !said.contains("panicked"), "{said}");
    }
}
