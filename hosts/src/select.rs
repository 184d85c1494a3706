//! Which hosts a command is about: `-n n1,n2` and `-l zone=a`.

use crate::model::{Host, Inventory};
use crate::section::nearest;

/// What the operator asked for; empty means all hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Any of these names.
    pub names: Vec<String>,
    /// All of these labels.
    pub labels: Vec<(String, String)>,
}

/// A selection that means nothing, or no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectionError {
    pub message: String,
    pub hint: String,
}

impl Selection {
    /// From the words of the command line: `names` are lists separated by commas, `labels` are
    /// `key=value`.
    pub fn parse(names: &[String], labels: &[String]) -> Result<Selection, SelectionError> {
        let names: Vec<String> = names
            .iter()
            .flat_map(|list| list.split(','))
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        let mut pairs = Vec::new();
        for label in labels.iter().flat_map(|list| list.split(',')) {
            match label.split_once('=') {
                Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                    pairs.push((key.trim().to_owned(), value.trim().to_owned()));
                }
                _ => {
                    return Err(SelectionError {
                        message: format!("`{label}` selects nothing"),
                        hint: "labels are selected by key=value, for example -l zone=a".to_owned(),
                    });
                }
            }
        }
        Ok(Selection { names, labels: pairs })
    }

    pub fn is_all(&self) -> bool {
        self.names.is_empty() && self.labels.is_empty()
    }

    fn admits(&self, host: &Host) -> bool {
        let named = self.names.is_empty() || self.names.contains(&host.name);
        named && self.labels.iter().all(|(key, value)| host.labels.get(key) == Some(value))
    }
}

impl Inventory {
    /// The selected hosts, in inventory order. A name that nobody has, or a selection that is
    /// empty, is an error: a typo must not turn into "nothing to do".
    pub fn select(&self, selection: &Selection) -> Result<Vec<&Host>, SelectionError> {
        let known: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
        for name in &selection.names {
            if !known.contains(&name.as_str()) {
                return Err(SelectionError {
                    message: format!("there is no host {name} in {}", self.origin),
                    hint: match nearest(name, known.iter().copied()) {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!("its hosts are {}", known.join(", ")),
                    },
                });
            }
        }
        let hosts: Vec<&Host> = self.hosts.iter().filter(|host| selection.admits(host)).collect();
        if hosts.is_empty() {
            return Err(self.nothing_selected(selection));
        }
        Ok(hosts)
    }

    fn nothing_selected(&self, selection: &Selection) -> SelectionError {
        let pairs: Vec<String> =
            selection.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let among = if selection.names.is_empty() {
            String::new()
        } else {
            format!(" among {}", selection.names.join(", "))
        };
        let mut known: Vec<String> = self
            .hosts
            .iter()
            .flat_map(|host| host.labels.iter().map(|(key, value)| format!("{key}={value}")))
            .collect();
        known.sort();
        known.dedup();
        SelectionError {
            message: format!("no host has {}{among} in {}", pairs.join(" and "), self.origin),
            hint: if known.is_empty() {
                "no host has labels: labels = { zone = \"a\" } under [[host]]".to_owned()
            } else {
                format!("the labels are {}", known.join(", "))
            },
        }
    }
}
