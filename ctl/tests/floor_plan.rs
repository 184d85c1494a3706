//! The floor plan holds: crates import each other as ARCHITECTURE.md says, and in no other way.

use std::collections::BTreeSet;
use std::path::Path;

const CRATES: [(&str, &str, &[&str]); 9] = [
    ("ctl", "ctl", &["deploy", "monitoring", "hosts", "config", "proof"]),
    ("ctl/proof", "proof", &[]),
    ("deploy", "deploy", &["hosts", "config", "monitoring"]),
    ("node", "node", &["paxos", "journal", "config", "monitoring"]),
    ("node/paxos", "paxos", &[]),
    ("node/journal", "journal", &[]),
    ("hosts", "hosts", &[]),
    ("config", "config", &[]),
    ("monitoring", "monitoring", &[]),
];

/// The names in `[dependencies]` of a manifest; what tests use is their own business (those of
/// `node` judge histories with `proof`).
fn dependencies(manifest: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(manifest).expect("read a manifest of the workspace");
    let table: toml::Table = text.parse().expect("a manifest is TOML");
    let dependencies = table["dependencies"].as_table().expect("a table of dependencies");
    dependencies.keys().cloned().collect()
}

#[test]
fn crates_import_each_other_as_the_floor_plan_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ctl lies in the workspace");
    let ours: BTreeSet<&str> = CRATES.iter().map(|(_, name, _)| *name).collect();
    for (folder, name, allowed) in CRATES {
        let all = dependencies(&root.join(folder).join("Cargo.toml"));
        let found: BTreeSet<&str> =
            all.iter().map(String::as_str).filter(|name| ours.contains(name)).collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        let unplanned: Vec<_> = found.difference(&allowed).collect();
        assert!(unplanned.is_empty(), "{name} imports {unplanned:?}, which the floor plan forbids");
    }
}

#[test]
fn the_protocol_has_no_io_no_clock_and_no_threads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ctl lies in the workspace");
    let banned = ["std::fs", "std::io", "std::net", "std::thread", "std::time", "tokio", "rand::"];
    let mut files = 0;
    let mut folders = vec![root.join("node/paxos/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("list the protocol's sources") {
            let path = entry.expect("list the protocol's sources").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).expect("read a source");
            for word in banned {
                assert!(!text.contains(word), "{} mentions {word}", path.display());
            }
        }
    }
    assert!(files > 8, "only {files} files were looked at");
}
