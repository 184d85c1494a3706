//! Changes to the text of an inventory that leave everything else as it was: comments, order,
//! spaces. The places come from the same tree that was read, so nothing is searched for.
//!
//! Only users are edited by program: their digests are nothing to type. A JSON inventory is made by
//! another program, which is where it should be changed.

use crate::document::{self, Key, Node, Span, Value};
use crate::model::User;

/// Why a text cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("the inventory is not valid TOML")]
    Unreadable,
    #[error("the inventory is JSON, which another program makes: change it there")]
    Json,
    #[error(
        "users or hosts are written in one line: write each as a [[user]] or [[host]] of its own"
    )]
    Inline,
    #[error("there is no user {0}")]
    NoSuchUser(String),
    #[error("there is no host {0}")]
    NoSuchHost(String),
    #[error("there is a user {0} already")]
    Exists(String),
}

/// The text with one more user, at its end.
pub fn add_user(text: &str, user: &User) -> Result<String, EditError> {
    let tree = read(text)?;
    if find(text, &tree, &user.name)?.is_some() {
        return Err(EditError::Exists(user.name.clone()));
    }
    let separator = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    Ok(format!(
        "{text}{separator}[[user]]\nname = \"{}\"\nrole = \"{}\"\npassword_sha256 = {}\n",
        user.name,
        user.role,
        digests(&user.password_sha256)
    ))
}

/// The text with other digests for a user.
pub fn set_passwords(text: &str, name: &str, sha256: &[String]) -> Result<String, EditError> {
    let tree = read(text)?;
    let user = find(text, &tree, name)?.ok_or_else(|| EditError::NoSuchUser(name.to_owned()))?;
    let span = user.digests.ok_or(EditError::Inline)?;
    Ok(format!("{}{}{}", &text[..span.start], digests(sha256), &text[span.end..]))
}

/// The text without a user: its lines from `[[user]]` to its last value, and one empty line.
pub fn remove_user(text: &str, name: &str) -> Result<String, EditError> {
    let tree = read(text)?;
    let user = find(text, &tree, name)?.ok_or_else(|| EditError::NoSuchUser(name.to_owned()))?;
    let start = text[..user.span.start].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[user.span.end..].find('\n').map_or(text.len(), |end| user.span.end + end + 1);
    let (before, after) = (&text[..start], &text[end..]);
    let one_gap = before.is_empty() || before.ends_with("\n\n");
    let after = if one_gap { after.strip_prefix('\n').unwrap_or(after) } else { after };
    let before = if after.is_empty() { before.trim_end_matches('\n') } else { before };
    let end = if after.is_empty() && !before.is_empty() { "\n" } else { "" };
    Ok(format!("{before}{end}{after}"))
}

/// Some lines of a text, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    pub first: usize,
    pub last: usize,
    pub text: String,
}

/// The lines of a host: from its `[[host]]` to its last value. For a person to delete.
pub fn lines_of_host(text: &str, name: &str) -> Result<Lines, EditError> {
    let tree = read(text)?;
    let none = || EditError::NoSuchHost(name.to_owned());
    let hosts = entry(&tree, "host").ok_or_else(none)?;
    let Value::Array(hosts) = &hosts.value else { return Err(EditError::Inline) };
    let is_wanted = |host: &&Node| matches!(entry(host, "name"), Some(Node { value: Value::String(found), .. }) if found == name);
    let host = hosts.iter().find(is_wanted).ok_or_else(none)?;
    if !text[host.span.clone()].starts_with("[[") {
        return Err(EditError::Inline);
    }
    let start = text[..host.span.start].rfind('\n').map_or(0, |newline| newline + 1);
    let end = last_value(host).unwrap_or(host.span.end);
    let end = text[end..].find('\n').map_or(text.len(), |newline| end + newline);
    let first = text[..start].matches('\n').count() + 1;
    let last = first + text[start..end].matches('\n').count();
    Ok(Lines { first, last, text: text[start..end].to_owned() })
}

/// Where the last value of a table ends, those of its own tables included.
fn last_value(node: &Node) -> Option<usize> {
    let ends = entries(node).iter().map(|(_, value)| {
        let own = match value.value {
            Value::Table(_) => None,
            _ => Some(value.span.end),
        };
        own.or_else(|| last_value(value)).unwrap_or(value.span.end)
    });
    ends.max()
}

/// Where a user stands.
struct Found {
    /// From its header to the end of its last value.
    span: Span,
    digests: Option<Span>,
}

fn read(text: &str) -> Result<Node, EditError> {
    if text.trim_start().starts_with('{') {
        return Err(EditError::Json);
    }
    document::parse(text).map_err(|_| EditError::Unreadable)
}

fn find(text: &str, tree: &Node, name: &str) -> Result<Option<Found>, EditError> {
    let Some(users) = entry(tree, "user") else { return Ok(None) };
    let Value::Array(users) = &users.value else { return Err(EditError::Inline) };
    for user in users {
        if !text[user.span.clone()].starts_with("[[") {
            return Err(EditError::Inline);
        }
        let is_wanted = matches!(entry(user, "name"), Some(Node { value: Value::String(found), .. }) if found == name);
        if is_wanted {
            let end = entries(user).iter().map(|(_, value)| value.span.end).max();
            let span = user.span.start..end.unwrap_or(user.span.end);
            let digests = entry(user, "password_sha256").map(|node| node.span.clone());
            return Ok(Some(Found { span, digests }));
        }
    }
    Ok(None)
}

fn entries(node: &Node) -> &[(Key, Node)] {
    match &node.value {
        Value::Table(entries) => entries,
        _ => &[],
    }
}

fn entry<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    entries(node).iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
}

fn digests(sha256: &[String]) -> String {
    let quoted: Vec<String> = sha256.iter().map(|digest| format!("\"{digest}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UserRole;

    const TEXT: &str = "schema = 1 # one\n\n# those who may\n[[user]]\nname = \"a\"\nrole = \"ro\"\n\
                        password_sha256 = [\n  \"x\", # old\n  \"y\",\n] # kept\n\n[[user]] # second\n\
                        name = \"b\"\npassword_sha256 = [\"z\"]\nrole = \"rw\"\n\n[guard]\n";

    fn user(name: &str) -> User {
        let password_sha256 = vec!["d".to_owned()];
        User { name: name.to_owned(), role: UserRole::Rw, password_sha256 }
    }

    #[test]
    fn a_user_is_added_at_the_end_and_removed_without_a_trace() {
        let added = add_user(TEXT, &user("c")).unwrap();
        assert_eq!(
            added,
            format!("{TEXT}\n[[user]]\nname = \"c\"\nrole = \"rw\"\npassword_sha256 = [\"d\"]\n")
        );
        assert_eq!(remove_user(&added, "c").unwrap(), TEXT);
        assert_eq!(remove_user(&add_user("a = 1", &user("c")).unwrap(), "c").unwrap(), "a = 1\n");
        assert_eq!(add_user(TEXT, &user("b")), Err(EditError::Exists("b".to_owned())));
    }

    #[test]
    fn the_middle_of_a_text_goes_and_the_rest_stays() {
        let without = remove_user(TEXT, "b").unwrap();
        assert_eq!(
            without,
            TEXT.replace(
                "[[user]] # second\nname = \"b\"\npassword_sha256 = [\"z\"]\nrole = \"rw\"\n\n",
                ""
            )
        );
        let without = remove_user(TEXT, "a").unwrap();
        assert!(
            without.starts_with("schema = 1 # one\n\n# those who may\n\n[[user]] # second\n"),
            "{without}"
        );
    }

    #[test]
    fn a_password_is_changed_in_its_place() {
        let digests = ["1".to_owned(), "2".to_owned()];
        let changed = set_passwords(TEXT, "a", &digests).unwrap();
        assert_eq!(changed, TEXT.replace("[\n  \"x\", # old\n  \"y\",\n]", "[\"1\", \"2\"]"));
        assert_eq!(set_passwords(TEXT, "c", &digests), Err(EditError::NoSuchUser("c".to_owned())));
    }

    #[test]
    fn the_lines_of_a_host_are_found() {
        let text = "schema = 1\n\n[[host]]\nname = \"a\"\nid = 1 # one\n\n# the other\n[[host]]\n\
                    name = \"b\"\nid = 2\n[host.ssh]\nport = 22\n\n[guard]\nspread = \"zone\"\n";
        let lines = |name: &str| lines_of_host(text, name).unwrap();
        let a =
            Lines { first: 3, last: 5, text: "[[host]]\nname = \"a\"\nid = 1 # one".to_owned() };
        assert_eq!(lines("a"), a);
        let b = "[[host]]\nname = \"b\"\nid = 2\n[host.ssh]\nport = 22".to_owned();
        assert_eq!(lines("b"), Lines { first: 8, last: 12, text: b });
        assert_eq!(lines_of_host(text, "c"), Err(EditError::NoSuchHost("c".to_owned())));
        assert_eq!(lines_of_host("{}", "c"), Err(EditError::Json));
    }

    #[test]
    fn what_cannot_be_edited_is_said() {
        assert_eq!(add_user("{}", &user("c")), Err(EditError::Json));
        assert_eq!(add_user("a = [", &user("c")), Err(EditError::Unreadable));
        let inline = "user = [{ name = \"a\", role = \"ro\", password_sha256 = [] }]\n";
        assert_eq!(remove_user(inline, "a"), Err(EditError::Inline));
        assert_eq!(add_user(inline, &user("c")), Err(EditError::Inline));
    }
}
