//! README.md tells no lies: every `paxosctl` command in it is one that the program takes, every
//! `make` target exists, and its five minutes are those of `five_minutes.rs`, which runs them.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ctl lies in the workspace").to_owned()
}

/// The lines of all `sh` blocks.
fn shell_lines() -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("read README.md");
    let mut lines = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => lines.push(line.to_owned()),
            _ => {}
        }
    }
    assert!(lines.len() > 10, "the README shows only {} commands", lines.len());
    lines
}

#[test]
fn every_paxosctl_command_is_taken_by_the_program() {
    let mut seen = 0;
    for line in shell_lines() {
        let command = line.split(" > ").next().expect("a line has a beginning").trim();
        let Some(arguments) = command.strip_prefix("paxosctl ") else { continue };
        // `--help` behind a command makes the parser read all of it, and do nothing.
        let words: Vec<&str> = arguments.split_whitespace().take(1).collect();
        let output = Command::new(env!("CARGO_BIN_EXE_paxosctl"))
            .args(&words)
            .arg("--help")
            .output()
            .expect("run paxosctl");
        assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
        seen += 1;
    }
    assert!(seen >= 7, "only {seen} commands of paxosctl were tried");
}

#[test]
fn every_make_target_exists() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("read README.md");
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("read the Makefile");
    let mut seen = std::collections::BTreeSet::new();
    for after in readme.split("make ").skip(1) {
        let target: String =
            after.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        let is_command = readme.contains(&format!("`make {target}"))
            || readme
                .lines()
                .any(|line| line.trim_start_matches("$ ").starts_with(&format!("make {target}")));
        if target.is_empty() || !is_command {
            continue;
        }
        assert!(
            makefile.lines().any(|line| line.starts_with(&format!("{target}:"))),
            "README names `make {target}`, which the Makefile does not have"
        );
        seen.insert(target);
    }
    assert!(seen.len() >= 12, "only {seen:?} were found");
}

/// The five minutes on the page are the ones that a test runs for real, in the same order.
#[test]
fn the_five_minutes_are_those_that_are_tested() {
    let script = std::fs::read_to_string(root().join("ctl/tests/five_minutes.rs"))
        .expect("read five_minutes.rs");
    let mut from = 0;
    for line in shell_lines() {
        let Some(arguments) = line.strip_prefix("paxosctl ") else { continue };
        let verb = arguments.split_whitespace().next().expect("a command has a verb");
        let place = script[from..].find(&format!("[\"{verb}\""));
        from += place.unwrap_or_else(|| panic!("five_minutes.rs does not run `{verb}` there"));
    }
}
