//! Inventories as operators write them, right and wrong: what is read, and every word of what is
//! said about mistakes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hosts::{Clients, ConfigChoice, HostKeys, Inventory, Knowledge, Peers, Problems, Role};

const THREE_HOSTS: &str = r#"schema = 1
[cluster]
name = "demo"
[[host]]
name = "n1"
id = 1
address = "10.0.0.11"
[[host]]
name = "n2"
id = 2
address = "10.0.0.12"
[[host]]
name = "n3"
id = 3
address = "10.0.0.13"
[security]
clients = "open"
"#;

const PRESETS: &[&str] = &["default", "wan", "highest-id"];

fn read(text: &str) -> Result<Inventory, Problems> {
    let knowledge = Knowledge { presets: Some(PRESETS) };
    hosts::parse(text, "mine.toml", Path::new("/git"), knowledge)
}

/// What is said about a text, errors or warnings, exactly.
fn complaints(text: &str) -> String {
    match read(text) {
        Ok(inventory) => inventory.warnings.to_string(),
        Err(problems) => problems.to_string(),
    }
}

/// The messages alone.
fn messages(text: &str) -> Vec<String> {
    let problems = match read(text) {
        Ok(inventory) => inventory.warnings,
        Err(problems) => problems,
    };
    problems.iter().map(|problem| format!("{}: {}", problem.severity, problem.message)).collect()
}

fn change(from: &str, to: &str) -> String {
    assert!(THREE_HOSTS.contains(from), "{from}");
    THREE_HOSTS.replacen(from, to, 1)
}

#[test]
fn every_inventory_in_the_checkout_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("inventories");
    let mut loaded = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let inventory = hosts::load_with(&path, Knowledge { presets: Some(PRESETS) })
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(inventory.warnings, Problems::default(), "{}", inventory.warnings);
        assert_eq!(inventory.voters().count(), 3);
        assert!(inventory.unsettled().is_empty());
        loaded += 1;
    }
    assert!(loaded >= 2);
}

#[test]
fn the_default_inventory_is_this_machine() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("inventories/default.toml");
    let inventory = hosts::load(path).unwrap();
    let ports: Vec<u16> = inventory
        .hosts
        .iter()
        .flat_map(|host| [host.client_port, host.peer_port, host.http_port])
        .collect();
    assert_eq!(ports, [7379, 7380, 7381, 7389, 7390, 7391, 7399, 7400, 7401]);
    assert!(inventory.hosts.iter().all(|host| host.listen == IpAddr::V4(Ipv4Addr::LOCALHOST)));
    assert_eq!(inventory.insecure().len(), 2);
}

#[test]
fn everything_that_is_left_out_has_a_value() {
    let inventory = read(THREE_HOSTS).unwrap();
    let host = inventory.host("n2").unwrap();
    assert_eq!(
        (host.id, host.address.as_str(), host.advertise.as_str()),
        (2, "10.0.0.12", "10.0.0.12")
    );
    assert_eq!(host.listen, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    assert_eq!(host.role, Role::Voter);
    assert_eq!(host.client_endpoint(), "10.0.0.12:7379");
    assert_eq!(host.peer_endpoint(), "10.0.0.12:7380");
    assert_eq!(host.http_endpoint(), "10.0.0.12:7381");
    assert_eq!(host.deploy_dir, PathBuf::from("/opt/paxos"));
    assert_eq!(host.data_dir, PathBuf::from("/var/lib/paxos"));
    assert_eq!(host.ssh.known_hosts, PathBuf::from("/git/known_hosts"));
    assert_eq!(host.ssh.host_keys, HostKeys::Strict);
    assert_eq!(host.ssh.connect_timeout, Duration::from_secs(5));
    assert_eq!(inventory.cluster.config, ConfigChoice::Preset("default".to_owned()));
    assert_eq!(inventory.security.peers, Peers::Tls);
    assert_eq!(inventory.guard.max_lag_slots, 1_000);
    assert_eq!(inventory.quorum(), 2);
    assert_eq!(inventory.max_parallel, 8);
    assert!(inventory.warnings.is_empty());
}

#[test]
fn a_host_overrides_the_defaults() {
    let text = r#"
schema = 1
[cluster]
name = "demo"
binary.aarch64 = "bin/paxos-node"
[defaults]
client_port = 6379
data_dir = "/data/paxos"
[defaults.ssh]
user = "ops"
port = 22
jump = ["ops@bastion:2200"]
max_parallel = 3
[defaults.limits]
memory_max = "4G"
nofile = 65536
[[host]]
name = "a"
id = 7
address = "fd00::7"
client_port = 6400
ssh = { user = "root" }
limits = { memory_max = "512M" }
labels = { zone = "x" }
[security]
clients = "open"
"#;
    let inventory = read(text).unwrap();
    let host = &inventory.hosts[0];
    assert_eq!((host.client_port, host.peer_port), (6400, 7380));
    assert_eq!(host.client_endpoint(), "[fd00::7]:6400");
    assert_eq!((host.ssh.user.as_deref(), host.ssh.port), (Some("root"), Some(22)));
    assert_eq!(host.ssh.jump, ["ops@bastion:2200"]);
    assert_eq!((host.limits.memory_max, host.limits.nofile), (Some(512 << 20), Some(65536)));
    assert_eq!(host.labels, BTreeMap::from([("zone".to_owned(), "x".to_owned())]));
    assert_eq!(inventory.max_parallel, 3);
    let hosts::Binary::PerArchitecture(files) = &inventory.cluster.binary else { panic!() };
    assert_eq!(files["aarch64"], PathBuf::from("/git/bin/paxos-node"));
}

#[test]
fn json_is_read_as_well() {
    let json = r#"{"schema": 1, "cluster": {"name": "demo"},
      "host": [{"name": "n1", "id": 1, "address": "10.0.0.11", "labels": {"zone": "a"}}],
      "security": {"clients": "open"}}"#;
    let inventory = read(json).unwrap();
    assert_eq!(inventory.hosts[0].labels["zone"], "a");
    let wrong = json.replace("\"id\": 1", "\"id\": 0, \"prot\": 1");
    insta::assert_snapshot!(complaints(&wrong));
}

#[test]
fn all_problems_are_shown_at_once_each_in_its_place() {
    let text = r#"schema = 2
[cluster]
name = "Demo"
confg = "default"
[defaults]
deploy_dir = "opt/paxos"
[[host]]
name = "n1"
id = 1
address = "-oProxyCommand=touch /tmp/owned"
[[host]]
name = "n2"
id = 2
address = "10.0.0.12"
client_port = 70000
ssh = { user = "-l", jump = ["-W"], prot = 22 }
[[host]]
name = "n3"
id = "3"
[[host]]
name = "n2"
id = 2
address = "10.0.0.12"
role = "voteer"
[security]
peers = "off"
[[user]]
name = "app"
role = "admin"
password_sha256 = ["hunter2"]
"#;
    insta::assert_snapshot!(complaints(text));
}

#[test]
fn a_syntax_error_is_shown_in_its_line() {
    insta::assert_snapshot!(complaints("schema = 1\n[cluster\nname = \"demo\"\n"));
}

#[test]
fn duplicates_name_both_places() {
    let text = change("name = \"n3\"\nid = 3", "name = \"n1\"\nid = 2");
    insta::assert_snapshot!(complaints(&text));
}

#[test]
fn one_machine_needs_ports_and_folders_of_its_own() {
    let text = change("10.0.0.13", "10.0.0.12");
    insta::assert_snapshot!(complaints(&text));
    let apart = text.replace(
        "address = \"10.0.0.12\"\n[security]",
        "address = \"10.0.0.12\"\nclient_port = 7389\npeer_port = 7390\nhttp_port = 7391\n\
         deploy_dir = \"/opt/paxos2\"\ndata_dir = \"/opt/paxos/data\"\n[security]",
    );
    insta::assert_snapshot!(complaints(&apart));
    assert_eq!(messages(&apart.replace("/opt/paxos/data", "/var/lib/paxos2")).len(), 0);
}

#[test]
fn a_port_is_used_once_on_a_host() {
    let text = change("id = 2", "id = 2\nhttp_port = 7379");
    assert_eq!(messages(&text), ["error: host n2 uses port 7379 twice"]);
}

#[test]
fn loopback_and_other_machines_do_not_mix() {
    let text = change("10.0.0.11", "127.0.0.1");
    insta::assert_snapshot!(complaints(&text));
}

#[test]
fn plain_peers_are_for_loopback_only() {
    let text = change("[security]", "[security]\npeers = \"plain\"");
    assert_eq!(messages(&text), ["error: peers = \"plain\" is for loopback only"]);
}

#[test]
fn an_even_number_of_voters_is_doubtful_and_ten_are_refused() {
    let host =
        |id: u32| format!("[[host]]\nname = \"n{id}\"\nid = {id}\naddress = \"10.0.0.{id}\"\n");
    let cluster = |count: u32| {
        let hosts: String = (1..=count).map(host).collect();
        format!(
            "schema = 1\ncluster = {{ name = \"demo\" }}\nsecurity = {{ clients = \"open\" }}\n{hosts}"
        )
    };
    let first = |count| messages(&cluster(count)).into_iter().next().unwrap_or_default();
    assert_eq!(first(1), "warning: a single voter: when it is down, so is the cluster");
    assert_eq!(first(3), "");
    assert_eq!(
        first(4),
        "warning: 4 voters survive the loss of 1, as 3 would: the last one only costs"
    );
    assert_eq!(first(9), "");
    assert_eq!(first(10), "error: 10 voters: at most 9 are supported");
    let learners = cluster(1).replace("id = 1\n", "id = 1\nrole = \"learner\"\n");
    assert_eq!(messages(&learners), ["error: no host is a voter, so nothing could be chosen"]);
    assert_eq!(messages(&cluster(0)), ["error: the inventory has no host"]);
}

#[test]
fn voters_in_one_zone_are_doubtful() {
    let zones = |zones: [&str; 3]| {
        let mut text = THREE_HOSTS.to_owned();
        for (id, zone) in (1..).zip(zones) {
            text = text
                .replace(&format!("id = {id}"), &format!("id = {id}\nlabels.zone = \"{zone}\""));
        }
        text + "[guard]\nspread = \"zone\"\n"
    };
    assert!(messages(&zones(["a", "b", "c"])).is_empty());
    assert_eq!(messages(&zones(["a", "b", "a"])), ["warning: 2 of 3 voters share zone = \"a\""]);
    assert_eq!(messages(&zones(["a", "a", "a"])), ["warning: all voters share zone = \"a\""]);
    let text = THREE_HOSTS.to_owned() + "[guard]\nspread = \"zone\"\n";
    assert_eq!(messages(&text), ["warning: spread = \"zone\", but n1, n2, n3 has no such label"]);
}

#[test]
fn a_key_that_ssh_would_refuse_is_found_before() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let text =
        |path: &Path| {
            change("[[host]]", &format!("defaults.ssh.identity_file = {path:?}\n[[host]]"))
                .replacen("[cluster]\nname = \"demo\"\n", "cluster = { name = \"demo\" }\n", 1)
        };
    let missing = messages(&text(&key));
    assert_eq!(missing.len(), 1, "one key, said once: {missing:?}");
    assert!(missing[0].contains("No such file"), "{missing:?}");
    std::fs::write(&key, "").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(messages(&text(&key))[0].contains("others may read it"));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(messages(&text(&key)).is_empty());
}

#[test]
fn an_unknown_preset_is_an_error() {
    let text = change("name = \"demo\"", "name = \"demo\"\nconfig = \"highestid\"");
    insta::assert_snapshot!(complaints(&text));
    let text = change("name = \"demo\"", "name = \"demo\"\nconfig = \"./none.toml\"");
    assert_eq!(messages(&text), ["error: there is no file /git/./none.toml"]);
}

#[test]
fn an_inventory_without_users_may_be_written_but_not_started() {
    let inventory = read(&change("clients = \"open\"", "")).unwrap();
    assert_eq!(inventory.security.clients, Clients::Auth);
    assert_eq!(inventory.warnings.iter().count(), 1);
    assert!(inventory.unsettled().has_errors());
    let digest = "a".repeat(64);
    let user =
        format!("[[user]]\nname = \"app\"\nrole = \"rw\"\npassword_sha256 = [\"{digest}\"]\n");
    let inventory = read(&(change("clients = \"open\"", "") + &user)).unwrap();
    assert!(inventory.unsettled().is_empty() && inventory.warnings.is_empty());
    let twice = change("clients = \"open\"", "") + &user + &user;
    assert_eq!(messages(&twice), ["error: two users are called app"]);
    let same = user.replace(&format!("\"{digest}\""), &format!("\"{digest}\", \"{digest}\""));
    assert_eq!(messages(&(THREE_HOSTS.to_owned() + &same)).len(), 1);
}

#[test]
fn a_missing_file_says_what_to_do() {
    let problems = hosts::load("/nowhere/mine.toml").unwrap_err();
    insta::assert_snapshot!(problems);
}

#[test]
fn hosts_are_selected_by_name_and_label() {
    let text = change("id = 1", "id = 1\nlabels = { zone = \"a\" }");
    let text = text.replace("id = 3", "id = 3\nlabels = { zone = \"a\", rack = \"r1\" }");
    let inventory = read(&text).unwrap();
    let select = |names: &[&str], labels: &[&str]| {
        let owned =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let selection = hosts::Selection::parse(&owned(names), &owned(labels))?;
        let hosts = inventory.select(&selection)?;
        Ok(hosts.iter().map(|host| host.name.clone()).collect::<Vec<_>>().join(" "))
    };
    let ok = |names: &[&str], labels: &[&str]| select(names, labels).unwrap();
    assert_eq!(ok(&[], &[]), "n1 n2 n3");
    assert_eq!(ok(&["n3,n1"], &[]), "n1 n3", "in inventory order");
    assert_eq!(ok(&[], &["zone=a"]), "n1 n3");
    assert_eq!(ok(&[], &["zone=a", "rack=r1"]), "n3");
    let error = |names: &[&str], labels: &[&str]| {
        let error: hosts::SelectionError = select(names, labels).unwrap_err();
        format!("{} / {}", error.message, error.hint)
    };
    assert_eq!(error(&["n4"], &[]), "there is no host n4 in mine.toml / did you mean n1?");
    assert_eq!(error(&["db"], &[]), "there is no host db in mine.toml / its hosts are n1, n2, n3");
    assert_eq!(
        error(&[], &["zone=b"]),
        "no host has zone=b in mine.toml / the labels are rack=r1, zone=a"
    );
    assert_eq!(
        error(&["n2"], &["zone=a"]),
        "no host has zone=a among n2 in mine.toml / the labels are rack=r1, zone=a"
    );
    assert!(error(&[], &["zone"]).contains("key=value"));
}

#[test]
fn a_copy_from_a_host_is_read_without_the_keys_of_its_writer() {
    let text = change("name = \"demo\"", "name = \"demo\"\n[defaults.ssh]\nidentity_file = \"k\"");
    assert!(read(&text).is_err());
    let origin = "ssh://ops@10.0.0.11";
    let copy = hosts::parse(&text, origin, Path::new("/nowhere"), Knowledge::default()).unwrap();
    assert!(copy.hosts.iter().all(|host| host.ssh.identity_file.is_none()));
    assert_eq!(copy.warnings.iter().count(), 1, "{}", copy.warnings);
}
