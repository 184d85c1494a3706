//! Whatever stands in an inventory, reading it ends with a value or with problems that point into
//! the text; never with a panic. Texts are made from the example by seeded damage.

use std::path::Path;

use hosts::{Inventory, Knowledge, Problems};

const ROUNDS: u64 = 6_000;
const PIECES: &[&str] = &[
    "[[host]]\n",
    "[[user]]\n",
    "[host]\n",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    "=",
    "\n",
    ",",
    "-",
    "#",
    ".",
    "\\",
    "\\u",
    "\u{0}",
    "é",
    "\u{feff}",
    "9223372036854775808",
    "-1",
    "0x7f",
    "1e9",
    "1979-05-27",
    "id = 1\n",
    "name = \"n1\"\n",
    "address = \"-oProxyCommand=x\"\n",
    "role",
    "true",
    "null",
];

/// A small generator: the same seed makes the same text, everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn damage(text: &str, dice: &mut Dice) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for _ in 0..=dice.below(4) {
        let from = dice.below(text.len().max(1)).min(text.len());
        let to = (from + dice.below(30)).min(text.len());
        match dice.below(4) {
            0 => drop(text.drain(from..to)),
            1 => {
                let copy: Vec<char> = text[from..to].to_vec();
                let at = dice.below(text.len() + 1);
                text.splice(at..at, copy);
            }
            _ => {
                let piece = PIECES[dice.below(PIECES.len())];
                text.splice(from..from, piece.chars());
            }
        }
    }
    text.into_iter().collect()
}

fn read(text: &str) -> Result<Inventory, Problems> {
    let knowledge = Knowledge { presets: Some(&["default"]) };
    hosts::parse(text, "x.toml", Path::new("/nowhere"), knowledge)
}

fn survives(original: &str) {
    let mut outcomes = [0u64; 2];
    for seed in 0..ROUNDS {
        let text = damage(original, &mut Dice(seed));
        let problems = match read(&text) {
            Ok(inventory) => {
                outcomes[0] += 1;
                assert!(inventory.voters().count() >= 1, "seed {seed}");
                inventory.warnings
            }
            Err(problems) => {
                outcomes[1] += 1;
                assert!(problems.has_errors(), "seed {seed}: refused without an error");
                problems
            }
        };
        for problem in problems.iter() {
            assert!((1..=text.matches('\n').count() + 1).contains(&problem.line), "seed {seed}");
            assert!(problem.column >= 1 && !problem.message.is_empty(), "seed {seed}");
        }
        drop(problems.to_string());
    }
    assert!(outcomes.iter().all(|count| *count > ROUNDS / 100), "one-sided damage: {outcomes:?}");
}

#[test]
fn damaged_toml_is_survived() {
    survives(include_str!("../inventories/example.toml"));
}

#[test]
fn damaged_json_is_survived() {
    let toml: toml::Table = include_str!("../inventories/example.toml").parse().unwrap();
    survives(&serde_json::to_string_pretty(&toml).unwrap());
}

#[test]
fn numbers_are_read_as_toml_writes_them() {
    let text = include_str!("../inventories/example.toml")
        .replace("nofile = 1000000", "nofile = 1_000_000")
        .replace("client_port = 7379", "client_port = 0x1cd3");
    let host = read(&text).unwrap().hosts.swap_remove(0);
    assert_eq!((host.limits.nofile, host.client_port), (Some(1_000_000), 7379));
}

#[test]
fn windows_line_ends_change_nothing() {
    let unix = include_str!("../inventories/default.toml");
    let windows = unix.replace('\n', "\r\n");
    assert_eq!(read(&windows).unwrap().hosts, read(unix).unwrap().hosts);
    let wrong = windows.replace("id = 3", "id = 2");
    let shown = read(&wrong).unwrap_err().to_string();
    assert!(!shown.contains('\r') && shown.contains("two hosts have the id 2"), "{shown}");
}
