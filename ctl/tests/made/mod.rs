//! `make` as a person types it: commands that stand in README.md, run in this checkout with the
//! release programs, which `make compile` builds where they are missing or old.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

pub(crate) fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ctl lies in the checkout").to_owned()
}

/// What `make` said, and how it ended.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Made {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Made {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Made {
        let (out, err) = (&self.stdout, &self.stderr);
        assert!(out.contains(words) || err.contains(words), "no `{words}` in:\n{out}\n{err}");
        self
    }

    /// Lines of ours on stderr, without make's own.
    pub(crate) fn complaints(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.starts_with("error")).collect()
    }
}

/// Runs a `make` command that README.md shows, with `more` variables behind it: the last value of a
/// variable counts, so a test gives its own ports and names and shortens what runs for ever.
#[track_caller]
pub(crate) fn readme(command: &str, more: &[&str]) -> Made {
    let page = std::fs::read_to_string(checkout().join("README.md")).expect("read README.md");
    let shown = |line: &str| line == command || line.trim_start_matches("$ ") == command;
    let stands_there = page.lines().any(shown) || page.contains(&format!("`{command}`"));
    assert!(stands_there, "README.md does not show `{command}` any more");
    let words = command.strip_prefix("make ").expect("a make command");
    let words: Vec<&str> = words.split(' ').chain(more.iter().copied()).collect();
    make(&words)
}

/// Runs `make` in a clean environment: this test's own variables are not a person's.
pub(crate) fn make(words: &[&str]) -> Made {
    let mut command = Command::new("make");
    command.current_dir(checkout()).args(words).stdin(Stdio::null()).env_clear();
    let kept = ["PATH", "HOME", "USER", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "TMPDIR"];
    command.envs(kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    said(command.output().expect("run make"))
}

fn said(output: Output) -> Made {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Made {
        code: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// A base port below the range that the system hands out, with room for nine nodes above it.
pub(crate) fn free_base_port() -> u16 {
    // Tests of one program run at once: no two of them look at the same ports first.
    static LOOKS: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 220) as u16 + 23 * LOOKS.fetch_add(1, Ordering::SeqCst);
    (0..220)
        .map(|step| 10_000 + (first + step) % 220 * 100)
        .find(|base| (0..93).all(|offset| TcpListener::bind(("127.0.0.1", base + offset)).is_ok()))
        .expect("a hundred free ports in a row")
}
