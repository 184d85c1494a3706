//! README.md tells no lies: every `make` command in it is run by `make.rs` or `compose.rs`, every
//! `paxosctl` command is one that the program takes, and its five minutes are those of
//! `five_minutes.rs`, which runs them.

use std::collections::BTreeSet;
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

/// Commands that no test can run by their words, and what holds them instead.
const HELD_OTHERWISE: [(&str, &str); 1] = [("make test", "it is what runs this test")];

/// Every `make` command of the page: in `sh` blocks, behind a prompt, and in the table.
fn make_commands() -> BTreeSet<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("read README.md");
    let lines = readme.lines().map(|line| line.trim_start_matches("$ "));
    let lines = lines.filter(|line| line.starts_with("make ")).map(str::to_owned);
    let spans = readme.split('`').skip(1).step_by(2);
    let spans = spans.filter(|span| span.starts_with("make ")).map(str::to_owned);
    let commands: BTreeSet<String> = lines.chain(spans).collect();
    assert!(commands.len() >= 15, "only {commands:?} were found");
    commands
}

/// Each stands, word for word, in a call of `readme(…)`, which runs it.
#[test]
fn every_make_command_is_run_by_a_test() {
    let tests = ["make.rs", "compose.rs"].map(|file| {
        std::fs::read_to_string(root().join("ctl/tests").join(file)).expect("read a test")
    });
    let tests = tests.concat();
    for command in make_commands() {
        let by_name = tests.contains(&format!("readme(\"{command}\""));
        let by_variable = tests.contains(&format!(" = \"{command}\";"));
        let otherwise = HELD_OTHERWISE.iter().any(|(held, _)| *held == command);
        assert!(by_name || by_variable || otherwise, "no test runs `{command}`");
    }
}

/// The five minutes on the page are the ones that a test runs for real, in the same order.
#[test]
fn the_five_minutes_are_those_that_are_tested() {
    let script = std::fs::read_to_string(root().join("ctl/tests/five_minutes.rs"))
        .expect("read five_minutes.rs");
    let of_members = |line: &String| IN_MEMBERS.iter().any(|verb| line.starts_with(verb));
    let mut from = 0;
    for line in shell_lines().into_iter().filter(|line| !of_members(line)) {
        let Some(arguments) = line.strip_prefix("paxosctl ") else { continue };
        let verb = arguments.split_whitespace().next().expect("a command has a verb");
        let place = script[from..].find(&format!("[\"{verb}\""));
        from += place.unwrap_or_else(|| panic!("five_minutes.rs does not run `{verb}` there"));
    }
}

/// The verbs of the section on members.
const IN_MEMBERS: [&str; 5] = [
    "paxosctl member add",
    "paxosctl member remove",
    "paxosctl member replace",
    "paxosctl member rules",
    "paxosctl leader move",
];

#[test]
fn the_verbs_of_members_are_those_that_are_tested() {
    let script =
        std::fs::read_to_string(root().join("ctl/tests/members.rs")).expect("read members.rs");
    for verb in IN_MEMBERS {
        assert!(shell_lines().iter().any(|line| line.starts_with(verb)), "the page lacks `{verb}`");
        let words: Vec<&str> = verb.split(' ').skip(1).collect();
        let call = format!("[\"{}\", \"{}\",", words[0], words[1]);
        assert!(script.contains(&call), "members.rs does not run `{verb}`");
    }
}
