//! The keys of every file, with the kind and range of each: one table a section.
//!
//! Walking a text along these tables finds everything that is wrong with single values in one go,
//! where the types alone would stop at the first. A test holds that tables and types name the same
//! keys.

use std::net::SocketAddr;

use toml::de::{DeTable, DeValue};

use crate::problem::Findings;

pub(crate) struct Key {
    pub(crate) name: &'static str,
    kind: Kind,
    required: bool,
}

pub(crate) enum Kind {
    /// From the first to the second number, both included.
    Integer(u64, u64),
    Word(&'static [&'static str]),
    Boolean,
    Text,
    AbsolutePath,
    SocketAddress,
    Texts,
    Table(&'static [Key]),
    Tables(&'static [Key]),
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, required: true }
}

const fn optional(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, required: false }
}

use Kind::{AbsolutePath, Boolean, Integer, SocketAddress, Table, Tables, Text, Texts, Word};

const MINUTE_MS: u64 = 60_000;
const LEASE_MS: Key = optional("lease_ms", Integer(10, 10_000));
const DRIFT_PERCENT: Key = optional("drift_percent", Integer(1, 50));

pub(crate) const BEHAVIOUR: &[Key] = &[
    optional("election", Word(&["ballot", "highest-id"])),
    optional("heartbeat_ms", Integer(5, MINUTE_MS)),
    optional("silence_ms", Integer(10, 10 * MINUTE_MS)),
    optional("silence_jitter_ms", Integer(0, 10 * MINUTE_MS)),
    optional("takeover_rank_ms", Integer(0, MINUTE_MS)),
    optional("phase1_ms", Integer(10, 10 * MINUTE_MS)),
    optional("phase1_max_ms", Integer(10, 10 * MINUTE_MS)),
    optional("resend_ms", Integer(5, MINUTE_MS)),
    optional("reads", Word(&["lease", "quorum"])),
    LEASE_MS,
    DRIFT_PERCENT,
    optional("follower_reads", Word(&["moved", "linearizable", "stale"])),
    optional("stalled_ms", Integer(50, 10 * MINUTE_MS)),
    optional("priority", Integer(0, 1_000_000)),
    optional("window_slots", Integer(1, 65_536)),
    optional("window_bytes", Integer(64 << 10, 1 << 30)),
    optional("hold_ms", Integer(0, MINUTE_MS)),
    optional("command_bytes_max", Integer(1 << 10, 15 << 20)),
    optional("connections_max", Integer(1, 1_000_000)),
    optional("clients_bytes_max", Integer(0, 1 << 50)),
    optional("store_bytes_max", Integer(0, 1 << 50)),
    optional("snapshot_every_bytes", Integer(1 << 20, 1 << 40)),
    optional("segment_bytes", Integer(64 << 10, 1 << 30)),
    optional("chaos", Boolean),
];

pub(crate) const NODE: &[Key] = &[
    key("schema", Integer(1, 1)),
    key("cluster", Text),
    key("cluster_uuid", Text),
    key("id", Integer(1, u32::MAX as u64)),
    key("name", Text),
    key("data_dir", AbsolutePath),
    key("listen", Table(LISTEN)),
    optional("security", Table(SECURITY)),
    optional("user", Tables(USER)),
    optional("behaviour", Table(BEHAVIOUR)),
    optional("trace", Table(TRACE)),
];

const LISTEN: &[Key] =
    &[key("client", SocketAddress), key("peer", SocketAddress), key("http", SocketAddress)];

const SECURITY: &[Key] = &[
    optional("peers", Word(&["tls", "plain"])),
    optional("clients", Word(&["auth", "open"])),
    optional("scrape_from", Texts),
];

const USER: &[Key] =
    &[key("name", Text), key("role", Word(&["ro", "rw"])), key("password_sha256", Texts)];

const TRACE: &[Key] = &[
    optional("filter", Text),
    optional("dir", AbsolutePath),
    optional("files_max", Integer(1, 10_000)),
    optional("file_bytes_max", Integer(64 << 10, 1 << 40)),
    optional("stderr", Boolean),
];

pub(crate) const MEMBERS: &[Key] = &[
    optional("schema", Integer(1, 1)),
    key("cluster_uuid", Text),
    LEASE_MS,
    DRIFT_PERCENT,
    optional("store_version", Integer(1, u32::MAX as u64)),
    key("member", Tables(MEMBER)),
];

const MEMBER: &[Key] = &[
    key("id", Integer(1, u32::MAX as u64)),
    key("name", Text),
    key("role", Word(&["voter", "learner"])),
    key("incarnation", Text),
    key("public_key", Text),
    key("peer", Text),
    key("client", Text),
    key("http", Text),
];

/// Notes where every value of `text` stands, and all that is wrong with single ones.
pub(crate) fn walk(text: &str, keys: &[Key], findings: &mut Findings<'_>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        findings.at(error.span().unwrap_or(0..0), error.message(), None);
    }
    if errors.is_empty() {
        let span = table.span();
        walk_table(table.get_ref(), span, keys, "", findings);
    }
}

fn walk_table(
    table: &DeTable<'_>,
    span: std::ops::Range<usize>,
    keys: &[Key],
    path: &str,
    findings: &mut Findings<'_>,
) {
    for (name, value) in table {
        let path = join(path, name.get_ref());
        match keys.iter().find(|key| key.name == name.get_ref().as_ref()) {
            Some(key) => {
                findings.place(&path, value.span());
                walk_value(value, &key.kind, &path, findings);
            }
            None => {
                let known = keys.iter().map(|key| key.name);
                let hint = match nearest(name.get_ref(), known.clone()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
                };
                findings.at(name.span(), format!("unknown key `{path}`"), Some(hint));
            }
        }
    }
    for key in keys.iter().filter(|key| key.required && !table.contains_key(key.name)) {
        findings.at(span.clone(), format!("`{}` is missing", join(path, key.name)), None);
    }
}

fn walk_value(
    value: &toml::Spanned<DeValue<'_>>,
    kind: &Kind,
    path: &str,
    findings: &mut Findings<'_>,
) {
    let span = value.span();
    let wrong = match (kind, value.get_ref()) {
        (Table(keys), DeValue::Table(table)) => {
            walk_table(table, span.clone(), keys, path, findings);
            None
        }
        (Tables(keys), DeValue::Array(items)) => {
            for (position, item) in items.iter().enumerate() {
                let path = format!("{path}[{position}]");
                findings.place(&path, item.span());
                walk_value(item, &Table(keys), &path, findings);
            }
            None
        }
        (Integer(low, high), DeValue::Integer(integer)) => {
            let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
            let fits = number.is_some_and(|number| (*low..=*high).contains(&number));
            if path == "schema" && number.is_some_and(|number| number > *high) {
                let message = format!(
                    "schema = {integer} is newer than {high}, the newest that this release reads: \
                     start the release that wrote it, or a newer one"
                );
                findings.at(span, message, None);
                return;
            }
            (!fits).then(|| format!("{path} = {integer} is out of range: {low} to {high}"))
        }
        (Word(words), DeValue::String(text)) => (!words.contains(&text.as_ref())).then(|| {
            let choices: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            format!("{path} cannot be \"{text}\": one of {}", choices.join(", "))
        }),
        (SocketAddress, DeValue::String(text)) => match text.parse::<SocketAddr>() {
            Ok(address) if address.port() > 0 => None,
            Ok(_) => Some(format!("{path} = \"{text}\" has port 0, which nobody could dial")),
            Err(_) => Some(format!("{path} = \"{text}\" is not written like \"127.0.0.1:7379\"")),
        },
        (AbsolutePath, DeValue::String(text)) => (!text.starts_with('/'))
            .then(|| format!("{path} = \"{text}\" is not an absolute path: it begins with `/`")),
        (Text, DeValue::String(_)) | (Boolean, DeValue::Boolean(_)) => None,
        (Texts, DeValue::Array(items))
            if items.iter().all(|item| matches!(item.get_ref(), DeValue::String(_))) =>
        {
            None
        }
        (kind, found) => {
            Some(format!("{path} is {}, not {}", kind.in_words(), found_in_words(found)))
        }
    };
    if let Some(message) = wrong {
        findings.at(span, message, None);
    }
}

impl Kind {
    fn in_words(&self) -> &'static str {
        match self {
            Integer(..) => "a whole number",
            Boolean => "true or false",
            Texts => "a list of strings",
            Table(_) => "a table",
            Tables(_) => "a list of tables",
            Word(_) | Text | AbsolutePath | SocketAddress => "a string",
        }
    }
}

fn found_in_words(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list of such",
        DeValue::Table(_) => "a table",
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The candidate that `word` was most probably meant to be, if any is near.
pub(crate) fn nearest<'w>(
    word: &str,
    candidates: impl Iterator<Item = &'w str>,
) -> Option<&'w str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Behaviour, Security, Trace};

    /// The types are the other half of the tables: a key in only one of them would be read by
    /// nobody, or refused though it is known.
    #[test]
    fn tables_and_types_name_the_same_keys() {
        assert_eq!(names(BEHAVIOUR), fields(&Behaviour::default()));
        assert_eq!(names(SECURITY), fields(&Security::default()));
        let trace = Trace { dir: Some("/t".into()), ..Trace::default() };
        assert_eq!(names(TRACE), fields(&trace));
        let node = crate::node::tests::example();
        assert_eq!(names(NODE), fields(&node));
        assert_eq!(names(LISTEN), fields(&node.listen));
        assert_eq!(names(USER), fields(&node.users[0]));
        let members = crate::node::tests::example_members();
        assert_eq!(names(MEMBERS), fields(&members));
        assert_eq!(names(MEMBER), fields(&members.members[0]));
    }

    fn names(keys: &[Key]) -> BTreeSet<String> {
        keys.iter().map(|key| key.name.to_owned()).collect()
    }

    fn fields(value: &impl serde::Serialize) -> BTreeSet<String> {
        toml::Table::try_from(value).expect("a table").keys().cloned().collect()
    }
}
