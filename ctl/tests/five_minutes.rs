//! The first five minutes of a new operator, as one script, run for real: from bare hosts with an
//! sshd to a cluster that serves Redis clients, through a killed leader and a host that is cut off,
//! back to hosts on which nothing runs.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use hosts::lab::{Cut, Lab};
use support::{Said, Site, eventually};

#[test]
fn the_first_five_minutes() {
    let Some(site) = Site::new("five", 3) else { return };
    let inventory = &site.path("mine.toml");

    // init: three addresses make an inventory.
    let [n1, n2, n3] = ["n1", "n2", "n3"].map(|host| format!("root@{}", site.address(host)));
    let key = site.lab.identity_file().display().to_string();
    let args = ["init", "--name", "demo", "--identity-file", &key, &n1, &n2, &n3];
    let said = Said::of(site.command(inventory, &args).output().unwrap()).expect(0);
    fs::write(inventory, said.stdout).unwrap();

    // trust: strangers are refused until their keys are on record.
    let refused = site.ctl(inventory, &["show"]).expect(3);
    refused.says("error[SSH] n1").says("paxosctl trust -n n1");
    let said = site.ctl(inventory, &["trust"]).expect(2).says("--yes");
    for fingerprint in fingerprints(&site.lab) {
        assert!(said.stdout.contains(&fingerprint), "no {fingerprint} in {}", said.stdout);
    }
    site.ctl(inventory, &["trust", "--yes"]).expect(0).says("recorded 3 of 3 hosts");
    site.ctl(inventory, &["trust"]).expect(0).says("every host key is on record");

    // check: what was found, host by host.
    let said = site.ctl(inventory, &["check", "-o", "json"]).expect(0).json();
    let checks = said["findings"].as_array().unwrap();
    for check in ["ssh", "arch", "ports", "disk", "fsync", "clock", "reach"] {
        let of = checks.iter().filter(|finding| finding["check"] == check).count();
        assert!(of >= 3, "{check} was looked at on {of} hosts");
    }

    // user add: without a user nothing may start.
    site.ctl(inventory, &["up"]).expect(2).says("paxosctl user add app");
    let password = site.ctl(inventory, &["user", "add", "app"]).expect(0).stdout.trim().to_owned();
    assert!(password.len() >= 32, "a password of 256 bits");

    // plan shows, up does, a second up has nothing to do.
    let plan = site.ctl(inventory, &["plan"]).expect(0).says("+ start the node");
    assert!(
        plan.stdout.ends_with("Plan: 0 updates, 3 add, 0 remove, 0 restarts, 0 leader moves.\n")
    );
    site.ctl(inventory, &["plan", "--detailed-exitcode"]).expect(10);
    site.ctl(inventory, &["up"]).expect(0).says("audit ");
    site.ctl(inventory, &["up"]).expect(0).says("No changes");
    site.ctl(inventory, &["plan", "--detailed-exitcode"]).expect(0).says("No changes");

    // status: healthy, one leader, one more may fail.
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0).says("can lose 1 more");

    // Any Redis client, from any node.
    for (index, host) in ["n1", "n2", "n3"].into_iter().enumerate() {
        let key = format!("greeting-{index}");
        redis_cli(&site, host, &password, &["SET", &key, "hello"], "OK");
        redis_cli(&site, host, &password, &["GET", &key], "hello");
    }
    let mut call = site.command(inventory, &["call", "--user", "app", "GET", "greeting-1"]);
    let said = Said::of(call.env("PAXOS_PASSWORD", &password).output().unwrap()).expect(0);
    assert_eq!(said.stdout, "hello\n");
    site.ctl(inventory, &["call", "GET", "greeting-1"]).expect(4).says("NOAUTH");

    // kill -9 of the leader: another leads, and that is one change.
    let before = site.status(inventory);
    let leader = leader_of(&before).unwrap();
    let changes = before["leader_changes"].as_u64().unwrap();
    assert_eq!(site.lab.kill_processes(&leader, "paxos-node").unwrap(), 1);
    let after = eventually("another leader", || {
        let status = site.status(inventory);
        leader_of(&status).filter(|name| *name != leader).map(|_| status)
    });
    assert_eq!(after["leader_changes"], changes + 1);
    let said = site.ctl(inventory, &["status"]).expect(12);
    said.says("degraded").says("can lose 0 more").says(&format!("{leader} is down"));
    site.ctl(inventory, &["plan"]).expect(0).says("+ start the node").says("Plan: 1 update");
    site.ctl(inventory, &["up"]).expect(0);
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0);

    // A host is cut off: degraded, no headroom, and the answer still comes.
    let follower = follower_of(&site.status(inventory));
    site.lab.cut(&follower, Cut::Everything).unwrap();
    let said = eventually("the cut is seen", || {
        let said = site.ctl(inventory, &["status"]);
        (said.code == 12).then_some(said)
    });
    said.says("can lose 0 more").says("(partial)");
    redis_cli(
        &site,
        &leader_of(&site.status(inventory)).unwrap(),
        &password,
        &["SET", "k", "v"],
        "OK",
    );
    site.lab.heal(&follower).unwrap();
    site.ctl(inventory, &["status", "--wait", "healthy"]).expect(0).says("can lose 1 more");
    eventually("no lag is left", || {
        let rows = site.status(inventory)["rows"].clone();
        let caught_up = |row: &serde_json::Value| row["lag_slots"].as_u64().unwrap_or(0) == 0;
        rows.as_array().unwrap().iter().all(caught_up).then_some(())
    });

    // The audit log knows who did it all.
    let audit = site.ctl(inventory, &["audit", "-o", "json"]).expect(0).json();
    let entries = audit["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "two runs changed something: {audit}");
    assert!(entries.iter().all(|entry| entry["hosts"].as_array().unwrap().len() == 3));

    // down: asks first, then no process is left.
    site.ctl(inventory, &["down"]).expect(2).says("--yes");
    site.ctl(inventory, &["down", "--yes"]).expect(0);
    for host in site.lab.host_names() {
        assert!(site.lab.processes(&host, "paxos-node").unwrap().is_empty(), "on {host}");
    }
    site.ctl(inventory, &["status"]).expect(5).says("unavailable");

    // lab down: no namespace is left.
    let (name, dir) = (site.lab.name().to_owned(), site.path("labs"));
    assert!(Lab::list().unwrap().iter().any(|lab| lab.name == name));
    let dir = dir.to_str().unwrap();
    site.ctl(inventory, &["lab", "down", "--name", &name, "--dir", dir]).expect(0);
    assert!(!Lab::list().unwrap().iter().any(|lab| lab.name == name));
}

fn leader_of(status: &serde_json::Value) -> Option<String> {
    status["leader"]["name"].as_str().map(str::to_owned)
}

fn follower_of(status: &serde_json::Value) -> String {
    let leader = leader_of(status).unwrap();
    let rows = status["rows"].as_array().unwrap();
    let mut names = rows.iter().map(|row| row["node"].as_str().unwrap());
    names.rfind(|name| *name != leader).unwrap().to_owned()
}

/// What a person would compare: the fingerprints as the machines' owner knows them.
fn fingerprints(lab: &Lab) -> Vec<String> {
    let known_hosts = lab.known_hosts();
    let said = Command::new("ssh-keygen").arg("-lf").arg(known_hosts).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    let words = text.lines().filter_map(|line| line.split(' ').nth(1));
    let found: Vec<String> = words.map(str::to_owned).collect();
    assert!(found.len() >= 3, "{text}");
    found
}

/// `redis-cli -c` where Debian's redis-tools are installed. The password is in the environment.
#[expect(clippy::print_stderr, reason = "a test says what it skips")]
fn redis_cli(site: &Site, host: &str, password: &str, command: &[&str], expect: &str) {
    if !Path::new("/usr/bin/redis-cli").exists() {
        eprintln!("skipped: redis-cli is not installed");
        return;
    }
    let said = Command::new("redis-cli")
        .env("REDISCLI_AUTH", password)
        .args(["-c", "--user", "app", "-h", &site.address(host), "-p", "7379"])
        .args(command)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    assert_eq!(stdout, expect, "{}", String::from_utf8_lossy(&said.stderr));
}
