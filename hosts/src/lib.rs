//! The machines of a cluster: what an inventory says about them, and whether it can be true.
//!
//! An inventory is a TOML file (or JSON of the same schema) that an operator keeps in git. It is
//! the only input of every command: who the nodes are, where they live, how ssh gets there and how
//! much is trusted. [`load`] reads it into an [`Inventory`], in which every default is resolved
//! and every path is absolute, or answers with *all* [`Problems`] at once, each shown in its line
//! with what it conflicts with and how to mend it. An unknown key is an error: a misspelt
//! `max_lag_slot` that is silently ignored is found at three in the morning.
//!
//! The way through the rooms: `document` turns text into a tree that knows where everything
//! stands; `section` hands out its values and keeps track of what was asked for; `read` is the
//! schema; `check` compares hosts with each other; `model` is the result; `select` picks hosts.
//! [`lab`] makes hosts out of nothing for trying all this, and writes an inventory for them.
//!
//! This crate prints nothing, and reaches no machine but the one it runs on.

use std::io::Read as _;
use std::path::{Path, PathBuf};

mod check;
mod document;
pub mod edit;
pub mod lab;
mod model;
mod patterns;
mod problem;
mod read;
mod section;
mod select;

pub use model::{
    Binary, Clients, Cluster, ConfigChoice, Guard, Host, HostKeys, Inventory, Limits, Monitoring,
    Peers, Role, Security, Ssh, Supervisor, User, UserRole,
};
pub use problem::{Conflict, Problem, Problems, Severity};
pub use select::{Selection, SelectionError};

use document::Source;
use section::{Findings, Section};

/// What the caller knows that an inventory is checked against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Knowledge<'a> {
    /// The names that `cluster.config` may have; `None` admits any.
    pub presets: Option<&'a [&'a str]>,
}

/// Reads the inventory at `path`; `-` is standard input.
pub fn load(path: impl AsRef<Path>) -> Result<Inventory, Problems> {
    load_with(path, Knowledge::default())
}

/// [`load`], with more to check against.
pub fn load_with(path: impl AsRef<Path>, knowledge: Knowledge<'_>) -> Result<Inventory, Problems> {
    let path = path.as_ref();
    let from_stdin = path == Path::new("-");
    let read = if from_stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let origin = if from_stdin { "stdin".to_owned() } else { path.display().to_string() };
    match read {
        Ok(text) => parse(&text, &origin, &folder_of(path, from_stdin), knowledge),
        Err(error) => Err(unreadable(&origin, &error)),
    }
}

/// Reads an inventory that is already in memory. `origin` names it in messages; relative paths in
/// it begin at `folder`. An origin that begins with `ssh://` is the copy that `up` left on a host:
/// ssh keys that are not here are left out of it, with a warning.
pub fn parse(
    text: &str,
    origin: &str,
    folder: &Path,
    knowledge: Knowledge<'_>,
) -> Result<Inventory, Problems> {
    let source = Source { name: origin.to_owned(), text: text.to_owned() };
    let findings = Findings::new(&source);
    let tree = match document::parse(text) {
        Ok(tree) => tree,
        Err(errors) => {
            for error in errors {
                findings.add(findings.error(&error.span, error.message));
            }
            return Err(Problems(findings.into_problems()));
        }
    };
    let root = Section::new(&findings, "the inventory", &tree);
    let draft = root.map(|root| read::read(root, &findings, folder));
    if let Some(draft) = &draft {
        check::check(draft, knowledge.presets, &findings);
    }
    let problems = Problems(findings.into_problems());
    let Some(draft) = draft.filter(|_| !problems.has_errors()) else {
        assert!(problems.has_errors(), "an inventory was refused without a reason");
        return Err(problems);
    };
    let mut hosts: Vec<Host> = draft.hosts.into_iter().map(|draft| draft.host).collect();
    if source.is_copy() {
        for host in &mut hosts {
            host.ssh.identity_file.take_if(|path| !path.exists());
        }
    }
    Ok(Inventory {
        cluster: draft.cluster,
        hosts,
        guard: draft.guard,
        security: draft.security,
        users: draft.users.into_iter().map(|user| user.value).collect(),
        monitoring: draft.monitoring,
        max_parallel: draft.max_parallel,
        origin: origin.to_owned(),
        text: text.to_owned(),
        warnings: problems,
    })
}

/// The folder of the inventory, absolute, so that paths in the model hold wherever they are used.
fn folder_of(path: &Path, from_stdin: bool) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    match path.parent() {
        Some(folder) if !from_stdin => here.join(folder),
        _ => here,
    }
}

fn unreadable(origin: &str, error: &std::io::Error) -> Problems {
    let hint = if error.kind() == std::io::ErrorKind::NotFound {
        "name one with -i, or write one: paxosctl init h1 h2 h3 > mine.toml"
    } else {
        "an inventory is a TOML or JSON text in UTF-8"
    };
    let source = Source { name: origin.to_owned(), text: String::new() };
    let message = format!("cannot read the inventory {origin}: {error}");
    Problems(vec![Problem::new(&source, Severity::Error, &(0..0), message).hint(hint)])
}
