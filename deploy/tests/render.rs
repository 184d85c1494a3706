//! Rendered files, word for word, and what the tools that read them say.

use std::path::Path;
use std::process::Command;

use deploy::render::{self, compose};

fn inventory() -> hosts::Inventory {
    let text = r#"
schema = 1
[cluster]
name = "demo"
[defaults.ssh]
user = "ops"
[[host]]
name = "n1"
id = 1
address = "10.0.0.11"
limits = { memory_max = "4G", nofile = 65536 }
[[host]]
name = "n2"
id = 2
address = "10.0.0.12"
data_dir = "/home/paxos/data"
ssh = { user = "root" }
[[host]]
name = "n3"
id = 3
address = "10.0.0.13"
[security]
clients = "open"
"#;
    hosts::parse(text, "demo.toml", Path::new("/"), hosts::Knowledge::default()).unwrap()
}

fn project() -> compose::Project<'static> {
    compose::Project {
        servers: 3,
        clients: 2,
        config: "default",
        network: [10, 230, 0],
        user: "1000:1000".to_owned(),
        digest: "0123456789abcdef",
        base_port: 7379,
    }
}

#[test]
fn the_unit_of_a_node() {
    let inventory = inventory();
    insta::assert_snapshot!(render::unit(&inventory, &inventory.hosts[0]));
    assert_eq!(render::unit_name(&inventory, &inventory.hosts[0]), "paxos-demo-n1.service");
}

#[test]
fn a_node_that_lives_at_home_still_sees_its_folder() {
    let inventory = inventory();
    let unit = render::unit(&inventory, &inventory.hosts[1]);
    assert!(unit.contains("\nProtectHome=no\n") && unit.contains("\nPrivateTmp=yes\n"), "{unit}");
    assert!(unit.contains("\nUser=paxos\n"), "nothing runs as root: {unit}");
}

#[test]
fn systemd_understands_the_unit_and_finds_it_hardened() {
    let inventory = inventory();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paxos-demo-n1.service");
    // What `verify` looks for on this machine is replaced by what it has.
    let text = render::unit(&inventory, &inventory.hosts[0])
        .replace("/opt/paxos/current/paxos-node", "/bin/true")
        .replace("=ops", "=root");
    std::fs::write(&path, text).unwrap();
    let analyze =
        |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).arg(&path).output();
    let Ok(verified) = analyze(&["verify", "--man=no"]) else {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(!said.contains("paxos-demo-n1"), "{said}");
    // 0 is no exposure, 100 is none of it closed.
    let rated = analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"]).unwrap();
    let said = String::from_utf8_lossy(&rated.stdout);
    assert!(rated.status.success(), "{said}{}", String::from_utf8_lossy(&rated.stderr));
}

#[test]
fn the_script_that_prepares_a_machine() {
    let inventory = inventory();
    let keys = ["ssh-ed25519 AAAAC3 me@laptop".to_owned()];
    let script = render::bootstrap(&inventory, &inventory.hosts[2], &keys);
    insta::assert_snapshot!(script);
    let checked = Command::new("sh").args(["-n", "-c", &script]).status().unwrap();
    assert!(checked.success(), "the shell does not understand it");
}

#[test]
fn the_compose_project() {
    insta::assert_snapshot!(compose::project(&project()));
}

#[test]
fn containers_are_nodes_like_any_other() {
    let inventory = compose::inventory(&project()).unwrap();
    let uuid = "0123456789abcdef0123456789abcdef";
    let text = render::node_toml(&inventory, &inventory.hosts[1], uuid).unwrap();
    let node = config::NodeConfig::parse(&text, "node.toml").unwrap();
    assert_eq!(node.data_dir, Path::new("/paxos/data"));
    assert_eq!(node.listen.peer.to_string(), "0.0.0.0:7380");
    assert_eq!(inventory.hosts[1].peer_endpoint(), "10.230.0.12:7380");
    assert_eq!(node.security.scrape_from, ["10.230.0.0/24"]);
}

#[test]
fn docker_compose_understands_the_project() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docker-compose.yml");
    std::fs::create_dir(folder.path().join("image")).unwrap();
    std::fs::write(folder.path().join("image/Dockerfile"), compose::DOCKERFILE).unwrap();
    std::fs::write(&path, compose::project(&project())).unwrap();
    let tools: [&[&str]; 2] = [&["docker-compose"], &["docker", "compose"]];
    let mut asked = 0;
    for tool in tools {
        let run =
            |arguments: &[&str]| Command::new(tool[0]).args(&tool[1..]).args(arguments).output();
        if !run(&["version"]).is_ok_and(|output| output.status.success()) {
            continue;
        }
        asked += 1;
        let output = run(&["-f", path.to_str().unwrap(), "config"]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool:?}: {said}");
        let text = String::from_utf8_lossy(&output.stdout);
        for service in ["n1:", "n3:", "client2:"] {
            assert!(text.contains(service), "{tool:?} lost {service}\n{text}");
        }
    }
    if asked == 0 {
        eprintln!("skipped: neither docker-compose nor docker compose is installed");
    }
}
