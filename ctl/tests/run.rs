//! `paxosctl run` as a person types it.

use std::net::TcpListener;

use assert_cmd::Command;

fn paxosctl(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("paxosctl").unwrap();
    command.args(args).timeout(std::time::Duration::from_secs(120));
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
