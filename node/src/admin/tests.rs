//! A real socket, both ends: what is asked, what is answered, what is refused.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::*;

/// A node that answers each request with what it was asked, until asked to stop.
async fn echo(mut requests: mpsc::Receiver<AdminRequest>) {
    while let Some(AdminRequest { command, reply }) = requests.recv().await {
        let answer = match command {
            AdminCommand::Stop => return,
            AdminCommand::LogLevel { filter } if filter == "bad" => {
                Err(Refusal::for_good("no filter"))
            }
            AdminCommand::Transfer { .. } => Err(Refusal::for_now("not yet")),
            command => Ok(json!(format!("{command:?}"))),
        };
        reply.send(answer).expect("somebody waits for the answer");
    }
}

fn ask(dir: &Path, verb: &str, args: &[&str]) -> Result<Value, AdminError> {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    call(dir, verb, &args, Duration::from_secs(20))
}

/// Serves on `dir` while `check` runs on a thread of its own, as `paxos-node admin` would.
fn with_server(dir: &Path, check: impl FnOnce(&Path) + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime").block_on(async {
        let (sender, receiver) = mpsc::channel(8);
        let server = serve(dir, sender).expect("listen");
        tokio::spawn(echo(receiver));
        let owned = dir.to_owned();
        tokio::task::spawn_blocking(move || check(&owned)).await.expect("the check holds");
        drop(server);
    });
    assert!(!dir.join(SOCKET).exists(), "the socket outlived its server");
}

#[test]
fn a_request_is_answered() {
    let dir = tempfile::tempdir().expect("temporary directory");
    with_server(dir.path(), |dir| {
        let mode = fs::metadata(dir.join(SOCKET)).expect("metadata").mode();
        assert_eq!(mode & 0o7777, 0o660);
        assert_eq!(ask(dir, "status", &[]).expect("an answer"), json!("Status"));
        let filter = ask(dir, "log-level", &["info,node=debug"]).expect("an answer");
        assert_eq!(filter, json!("LogLevel { filter: \"info,node=debug\" }"));
        let refused = ask(dir, "log-level", &["bad"]).expect_err("refused");
        assert_eq!(refused.to_string(), "no filter");
        let stopping = ask(dir, "stop", &[]).expect_err("no answer").to_string();
        assert_eq!(stopping, "the node is stopping");
    });
}

#[test]
fn bad_requests_are_told_what_is_wrong() {
    let dir = tempfile::tempdir().expect("temporary directory");
    with_server(dir.path(), |dir| {
        let error = |verb, args: &[&str]| ask(dir, verb, args).expect_err("refused").to_string();
        let unknown = error("reboot", &[]);
        assert!(unknown.contains("unknown verb `reboot`") && unknown.contains("status"));
        assert!(error("log-level", &[]).contains("needs a FILTER"));
        assert!(error("status", &["now"]).contains("no argument `now`"));
        for raw in ["GET / HTTP/1.1\n", "{}\n", "{\"verb\":1}\n", "\n", "no end"] {
            let mut stream = std_net::UnixStream::connect(dir.join(SOCKET)).expect("connect");
            stream.write_all(raw.as_bytes()).expect("write");
            stream.shutdown(std::net::Shutdown::Write).expect("end");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("read");
            assert!(line.contains("not a request"), "{raw:?} got {line:?}");
        }
        let mut stream = std_net::UnixStream::connect(dir.join(SOCKET)).expect("connect");
        // The node may hang up before all of it is written.
        let _ = stream.write_all(&vec![b'x'; 1 << 20]);
        let mut line = String::new();
        let _ = BufReader::new(&stream).read_line(&mut line);
        assert!(line.is_empty() || line.contains("too long"), "{line:?}");
        assert_eq!(ask(dir, "version", &[]).expect("still there"), json!("Version"));
    });
}

/// Whoever asks can tell what is refused for good from what may be asked again.
#[test]
fn a_refusal_says_whether_it_passes() {
    let dir = tempfile::tempdir().expect("temporary directory");
    with_server(dir.path(), |dir| {
        for (verb, args, expected) in [
            ("log-level", &["bad"][..], RefusalKind::Final),
            ("reboot", &[], RefusalKind::Final),
            ("transfer", &[], RefusalKind::Retry),
            ("stop", &[], RefusalKind::Retry),
        ] {
            match ask(dir, verb, args) {
                Err(AdminError::Refused { kind, .. }) => assert_eq!(kind, Some(expected), "{verb}"),
                other => panic!("{verb}: {other:?}"),
            }
        }
    });
    let line = r#"{"ok":false,"error":"of an older node"}"#;
    assert_eq!(serde_json::from_str::<ReplyLine>(line).expect("a reply").kind, None);
}

/// Connections that say nothing take places, not the node.
#[test]
fn silent_clients_do_not_keep_others_out() {
    let dir = tempfile::tempdir().expect("temporary directory");
    with_server(dir.path(), |dir| {
        let connect = |_| std_net::UnixStream::connect(dir.join(SOCKET)).expect("connect");
        let silent = (0..CONNECTIONS_MAX - 1).map(connect).collect::<Vec<_>>();
        assert_eq!(ask(dir, "version", &[]).expect("an answer"), json!("Version"));
        drop(silent);
    });
}

#[test]
fn a_killed_nodes_socket_is_replaced_and_a_live_ones_is_not() {
    let dir = tempfile::tempdir().expect("temporary directory");
    // Bound and never removed, as after kill -9.
    drop(std_net::UnixListener::bind(dir.path().join(SOCKET)).expect("bind"));
    let nobody = ask(dir.path(), "status", &[]).expect_err("nobody listens");
    assert!(matches!(nobody, AdminError::NotRunning { .. }), "{nobody}");
    with_server(dir.path(), |dir| {
        ask(dir, "status", &[]).expect("an answer");
        let (sender, _receiver) = mpsc::channel(1);
        let second = serve(dir, sender).expect_err("the first still runs");
        assert!(matches!(second, AdminError::AlreadyRunning { .. }), "{second}");
        ask(dir, "status", &[]).expect("the first was not disturbed");
    });
    let gone = ask(dir.path(), "status", &[]).expect_err("nobody listens").to_string();
    assert!(gone.contains("no node answers at") && gone.contains("admin.sock"), "{gone}");
}

#[test]
fn a_file_in_the_sockets_place_is_kept() {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join(SOCKET), "precious").expect("write");
    let (sender, _receiver) = mpsc::channel(1);
    let error = serve(dir.path(), sender).expect_err("refused");
    assert!(matches!(error, AdminError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read(dir.path().join(SOCKET)).expect("read"), b"precious");
}

/// A unix socket's path ends at 107 bytes; a data directory's does not.
#[test]
fn a_deep_data_directory_has_its_socket_too() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let base = dir.path().as_os_str().len();
    // Around the limit, where the temporary name is longer than the final one, and far beyond.
    for wanted in [PATH_LEN_MAX - 16, PATH_LEN_MAX - 12, PATH_LEN_MAX - 10, PATH_LEN_MAX, 400] {
        let mut deep = dir.path().to_owned();
        while deep.as_os_str().len() + 1 < wanted {
            let missing = wanted - deep.as_os_str().len() - 1;
            deep.push("d".repeat(missing.min(100)));
        }
        assert!(deep.as_os_str().len() > base);
        fs::create_dir_all(&deep).expect("create");
        with_server(&deep, |dir| {
            assert_eq!(ask(dir, "status", &[]).expect("an answer"), json!("Status"));
        });
    }
}
