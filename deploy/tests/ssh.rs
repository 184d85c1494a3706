//! The road to a host, against a real sshd on a free loopback port: what gets through, what is
//! refused, and what a person is told.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deploy::Kind;
use deploy::ssh::{Destination, HostKeys, Session, scan_host_keys};

#[tokio::test]
async fn a_script_runs_and_says_how_it_ended() {
    let Some(sshd) = Sshd::start() else { return };
    let session = Session::connect(&sshd.trusted()).await.unwrap();
    let output = session
        .try_run("greet", "echo hello; cat; echo oops >&2; exit 3", Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!((output.status, output.stdout.as_str()), (3, "hello\n"));
    assert_eq!(output.stderr, "oops\n");

    let error = session.run("fail on purpose", "echo why >&2; false").await.unwrap_err();
    assert_eq!(error.kind, Kind::Remote);
    assert_eq!(error.causes, ["why", "exit status 1"]);
}

#[tokio::test]
async fn pitfall_95_the_far_side_ends_by_itself() {
    let Some(sshd) = Sshd::start() else { return };
    let session = Session::connect(&sshd.trusted()).await.unwrap();
    let pid_file = sshd.folder.path().join("sleeper");
    let script = format!("echo $$ > {}; exec sleep 300", pid_file.display());
    let started = Instant::now();
    let error = session.try_run("sleep", &script, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Remote);
    assert!(started.elapsed() < Duration::from_secs(60), "the bound was far exceeded");
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the remote command lives on");
}

#[tokio::test]
async fn files_arrive_whole_or_not_at_all() {
    let Some(sshd) = Sshd::start() else { return };
    let session = Session::connect(&sshd.trusted()).await.unwrap();
    let target = sshd.folder.path().join("target file");
    let path = target.to_str().unwrap();
    session.write_file(path, 0o640, b"one\n").await.unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"one\n");
    assert_eq!(
        std::os::unix::fs::MetadataExt::mode(&fs::metadata(&target).unwrap()) & 0o777,
        0o640
    );

    let source = sshd.folder.path().join("source");
    fs::write(&source, vec![7; 3_000_000]).unwrap();
    let wrong = deploy::digest::of_bytes(b"something else");
    let error = session.upload(&source, path, 0o755, &wrong, &|_, _| {}).await.unwrap_err();
    assert_eq!(error.kind, Kind::Remote);
    assert_eq!(fs::read(&target).unwrap(), b"one\n", "a bad copy replaced a good file");

    let digest = deploy::digest::of_file(&source).unwrap();
    session.upload(&source, path, 0o755, &digest, &|_, _| {}).await.unwrap();
    assert_eq!(fs::metadata(&target).unwrap().len(), 3_000_000);
    let left: Vec<_> = fs::read_dir(sshd.folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn pitfall_93_a_host_key_must_be_known() {
    let Some(sshd) = Sshd::start() else { return };
    let unknown = sshd.destination();
    let error = Session::connect(&unknown).await.unwrap_err();
    assert_eq!(error.kind, Kind::Ssh);
    assert!(error.hint.as_ref().unwrap().contains("paxosctl trust -n n1"), "{error:?}");

    let keys = scan_host_keys(&unknown).await.unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(!unknown.known_hosts.exists(), "a scan must not record anything");
    fs::write(&unknown.known_hosts, keys.join("\n") + "\n").unwrap();
    Session::connect(&unknown).await.unwrap();

    // The host comes back with another key.
    let other = sshd.folder.path().join("other_key");
    keygen(&other);
    let text = fs::read_to_string(other.with_extension("pub")).unwrap();
    let key = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    fs::write(&unknown.known_hosts, format!("[127.0.0.1]:{} {key}\n", sshd.port)).unwrap();
    let error = Session::connect(&unknown).await.unwrap_err();
    assert!(error.causes.iter().any(|cause| cause.contains("another key")), "{error:?}");
    assert!(error.hint.as_ref().unwrap().contains("--replace"), "{error:?}");
}

#[tokio::test]
async fn refusals_name_their_mend() {
    let Some(sshd) = Sshd::start() else { return };
    let mut stranger = sshd.trusted();
    let key = sshd.folder.path().join("stranger");
    keygen(&key);
    stranger.identity_file = Some(key);
    let error = Session::connect(&stranger).await.unwrap_err();
    assert!(error.hint.as_ref().unwrap().contains("ssh-agent"), "{error:?}");

    let mut nobody = sshd.trusted();
    nobody.port = Some(free_port());
    let error = Session::connect(&nobody).await.unwrap_err();
    assert!(error.causes[0].contains("refused"), "{error:?}");
}

/// Whatever an inventory says, no line of it becomes a line of ssh's configuration.
#[tokio::test]
async fn no_destination_runs_code() {
    let Some(sshd) = Sshd::start() else { return };
    let mark = sshd.folder.path().join("mark");
    let run = format!("ProxyCommand touch {}", mark.display());
    let trusted = sshd.trusted();
    let dial = |change: &dyn Fn(&mut Destination)| {
        let mut sly = trusted.clone();
        change(&mut sly);
        sly
    };
    let slies = [
        dial(&|sly| sly.address = format!("-o{run}")),
        dial(&|sly| sly.address = format!("127.0.0.1\n{run}")),
        dial(&|sly| sly.user = Some(format!("-o{run}"))),
        dial(&|sly| sly.jump = vec![format!("-o{run}")]),
        dial(&|sly| sly.known_hosts = format!("/tmp/x\"\n{run}\n#").into()),
        dial(&|sly| sly.identity_file = Some(format!("/tmp/x\"\n{run}\n#").into())),
    ];
    for sly in slies {
        let error = Session::connect(&sly).await.unwrap_err();
        assert_eq!(error.kind, Kind::Usage, "{error}");
        assert!(scan_host_keys(&sly).await.is_err());
        assert!(!mark.exists(), "{sly:?} ran a command here");
    }
}

#[tokio::test]
async fn a_percent_sign_in_a_path_is_no_token() {
    let Some(sshd) = Sshd::start() else { return };
    let mut odd = sshd.trusted();
    let moved = sshd.folder.path().join("100%known %h");
    fs::rename(&odd.known_hosts, &moved).unwrap();
    odd.known_hosts = moved;
    Session::connect(&odd).await.unwrap();
}

/// A private sshd with its own host key and one authorized key.
struct Sshd {
    folder: tempfile::TempDir,
    port: u16,
    process: Child,
}

impl Sshd {
    #[expect(clippy::print_stderr, reason = "a test says why it is skipped")]
    fn start() -> Option<Sshd> {
        let sshd = Path::new("/usr/sbin/sshd");
        if !sshd.exists() {
            eprintln!("skipped: no /usr/sbin/sshd here");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        keygen(&path("host_key"));
        keygen(&path("user_key"));
        fs::copy(path("user_key.pub"), path("authorized_keys")).unwrap();
        // sshd wants its empty folder; where we may not make it, it has been made already.
        let _ = fs::create_dir_all("/run/sshd");
        let port = free_port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\nUsePAM no\n",
            path("host_key").display(),
            path("authorized_keys").display()
        );
        fs::write(path("sshd_config"), config).unwrap();
        let process = Command::new(sshd)
            .arg("-D")
            .arg("-f")
            .arg(path("sshd_config"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sshd = Sshd { folder, port, process };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "sshd did not listen on {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(sshd)
    }

    fn destination(&self) -> Destination {
        Destination {
            name: "n1".to_owned(),
            address: "127.0.0.1".to_owned(),
            user: None,
            port: Some(self.port),
            identity_file: Some(self.folder.path().join("user_key")),
            jump: Vec::new(),
            known_hosts: self.folder.path().join("known_hosts"),
            host_keys: HostKeys::Strict,
            connect_timeout: Duration::from_secs(5),
        }
    }

    fn trusted(&self) -> Destination {
        let text = fs::read_to_string(self.folder.path().join("host_key.pub")).unwrap();
        let key = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let destination = self.destination();
        fs::write(&destination.known_hosts, format!("[127.0.0.1]:{} {key}\n", self.port)).unwrap();
        destination
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn keygen(path: &Path) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
