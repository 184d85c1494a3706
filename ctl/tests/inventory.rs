//! From a list of machines to an inventory with users, and the files that are made from it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use assert_cmd::Command;
use sha2::{Digest, Sha256};

struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

fn paxosctl(args: &[&str]) -> Answer {
    let output = Command::cargo_bin("paxosctl")
        .unwrap()
        .args(args)
        .env_remove("PAXOS_INVENTORY")
        .timeout(Duration::from_secs(60))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().expect("it ended by itself");
    Answer { code, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A new inventory of three machines in a folder of its own.
fn initialised() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let answer = paxosctl(&["init", "10.0.0.11", "ops@10.0.0.12", "10.0.0.13:8022"]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    let path = folder.path().join("mine.toml");
    std::fs::write(&path, answer.stdout).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

fn read(path: &str) -> hosts::Inventory {
    hosts::load(path).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn init_writes_an_inventory_that_needs_only_a_user() {
    let (_folder, path) = initialised();
    let inventory = read(&path);
    assert_eq!(inventory.hosts.len(), 3);
    assert_eq!(inventory.hosts[2].ssh.port, Some(8022));
    assert!(inventory.unsettled().has_errors());
    assert_eq!(paxosctl(&["-i", &path, "user", "add", "app"]).code, 0);
    assert!(read(&path).unsettled().is_empty());
}

#[test]
fn init_refuses_what_ssh_would_take_for_an_option() {
    let answer = paxosctl(&["init", "--", "-oProxyCommand=touch owned"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (2, ""));
    assert!(answer.stderr.contains("an address never begins with `-`"), "{}", answer.stderr);
}

#[test]
fn a_user_is_added_rotated_and_removed_and_the_rest_of_the_text_stays() {
    let (_folder, path) = initialised();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let original = std::fs::read_to_string(&path).unwrap();
    let user = |args: &[&str]| paxosctl(&[&["-i", &path, "user"], args].concat());
    let digests = || read(&path).users[0].password_sha256.clone();
    let digest = |password: &str| {
        let bytes = Sha256::digest(password.trim_end().as_bytes());
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };

    let added = user(&["add", "app", "--role", "ro"]);
    assert_eq!(added.stdout.trim_end().len(), 64, "256 bits in hex, and nothing else");
    assert_eq!(digests(), [digest(&added.stdout)]);
    assert_eq!(read(&path).users[0].role, hosts::UserRole::Ro);
    assert_eq!(user(&["add", "app"]).code, 2);

    let rotated = user(&["rotate", "app"]);
    assert_eq!(digests(), [digest(&added.stdout), digest(&rotated.stdout)], "the newest last");
    assert!(user(&["rotate", "app"]).stderr.contains("two passwords already"));
    let finished = user(&["rotate", "app", "--finish"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (0, ""));
    assert_eq!(digests(), [digest(&rotated.stdout)]);

    // A password is told once and kept nowhere (PITFALLS 94).
    let text = std::fs::read_to_string(&path).unwrap();
    for answer in [&added, &rotated] {
        let password = answer.stdout.trim_end();
        assert!(!text.contains(password) && !answer.stderr.contains(password));
    }

    assert_eq!(user(&["remove", "app"]).code, 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), original);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(user(&["remove", "app"]).stderr.contains("there is no user yet"));
}

#[test]
fn a_dry_run_and_a_bad_name_change_nothing() {
    let (_folder, path) = initialised();
    let original = std::fs::read_to_string(&path).unwrap();
    let dry = paxosctl(&["-i", &path, "--dry-run", "user", "add", "app"]);
    assert_eq!((dry.code, dry.stdout.as_str()), (0, ""));
    let bad = paxosctl(&["-i", &path, "user", "add", "a b"]);
    assert_eq!(bad.code, 2);
    assert!(bad.stderr.contains("a user cannot be called \"a b\""), "{}", bad.stderr);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), original);
    assert_eq!(paxosctl(&["-i", "-", "user", "add", "app"]).code, 2);
}

#[test]
fn a_wrong_inventory_is_shown_whole_and_ends_with_2() {
    let (_folder, path) = initialised();
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("id = 2", "id = 1").replace("max_lag_slots", "max_lag_slot");
    std::fs::write(&path, text).unwrap();
    let answer = paxosctl(&["-i", &path, "user", "add", "app"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (2, ""));
    assert!(answer.stderr.contains("error: two hosts have the id 1"), "{}", answer.stderr);
    assert!(answer.stderr.contains("did you mean `max_lag_slots`?"), "{}", answer.stderr);
    assert!(answer.stderr.contains("has 2 errors"), "{}", answer.stderr);
}

#[test]
fn a_unit_is_about_one_host() {
    let (_folder, path) = initialised();
    let all = paxosctl(&["-i", &path, "gen", "unit"]);
    assert_eq!(all.code, 2);
    assert!(all.stderr.contains("hint: name it: -n n1"), "{}", all.stderr);
    let one = paxosctl(&["-i", &path, "-n", "n2", "gen", "unit"]);
    assert!(one.stdout.contains("\nUser=ops\n"), "{}", one.stdout);
    let script = paxosctl(&["-i", &path, "-n", "n2", "gen", "bootstrap"]);
    assert!(script.stdout.starts_with("#!/bin/sh\n"), "{}", script.stdout);
    let private = paxosctl(&["-i", &path, "-n", "n2", "gen", "bootstrap", "--key", &path]);
    assert_eq!(private.code, 2, "not one line with a public key");
}

#[test]
fn completions_and_the_man_page_are_made() {
    assert!(paxosctl(&["gen", "completions", "bash"]).stdout.contains("_paxosctl()"));
    assert!(paxosctl(&["gen", "man"]).stdout.contains(".TH paxosctl"));
}

#[test]
fn a_compose_project_of_nonsense_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("compose");
    let refuse = |args: &[&str]| {
        let answer =
            paxosctl(&[&["gen", "compose", "--out", out.to_str().unwrap()], args].concat());
        assert_eq!(answer.code, 2, "{}", answer.stderr);
        assert!(!out.exists());
        answer.stderr
    };
    assert!(refuse(&["--servers", "0"]).contains("SERVERS is `0`: want a number from 1 to 9"));
    assert!(refuse(&["--clients", "x"]).contains("CLIENTS is `x`: want a number from 0 to 100"));
    assert!(refuse(&["--config", "highestid"]).contains("did you mean `highest-id`?"));
    assert!(refuse(&["--base-port", "65530"]).contains("end above 65535"));
    assert!(refuse(&["--binary", "/nowhere/paxos-node"]).contains("make compile"));
    if !cfg!(target_feature = "crt-static") {
        // This test's own program stands for one that needs a loader.
        let own = std::env::current_exe().unwrap();
        assert!(refuse(&["--binary", own.to_str().unwrap()]).contains("is not static"));
    }
}

#[test]
fn a_lab_is_made_listed_and_removed() {
    if let Err(missing) = hosts::lab::requirements() {
        eprintln!("skipped: {missing}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = format!("c{}", std::process::id());
    let place = ["--name", &name, "--dir", folder.path().to_str().unwrap()];
    let up = paxosctl(&[&["lab", "up", "--hosts", "2", "-o", "json"], &place[..]].concat());
    let down = || paxosctl(&[&["lab", "down"], &place[..]].concat());
    if up.code != 0 {
        down();
        panic!("{}", up.stderr);
    }
    let said: serde_json::Value = serde_json::from_str(&up.stdout).unwrap();
    let inventory = said["inventory"].as_str().unwrap();
    assert_eq!(read(inventory).hosts.len(), said["hosts"].as_array().unwrap().len());
    assert!(paxosctl(&["lab", "list"]).stdout.contains(&name));
    let removed = down();
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    assert!(removed.stderr.contains("2 hosts"), "{}", removed.stderr);
    assert!(!Path::new(inventory).exists());
    assert!(down().stderr.contains("there was no lab"));
    assert!(!paxosctl(&["lab", "list"]).stdout.contains(&name));
}
