//! The text of an inventory and where everything in it stands.
//!
//! TOML and JSON become one small tree in which every key and value keeps its span (bytes in the
//! text), so that whatever is found wrong later can be shown in its line. Nothing here knows what
//! an inventory is.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

pub(crate) type Span = Range<usize>;

/// The text that was read, and the name under which to speak about it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Table(Vec<(Key, Node)>),
    Array(Vec<Node>),
    String(String),
    Integer(i64),
    /// A value that no inventory uses, named by its kind: a fraction, a date, null.
    Other(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) span: Span,
}

/// Text that is neither TOML nor JSON.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) span: Span,
    pub(crate) message: String,
}

impl Source {
    /// Whether it was read back from a host, far from the folder that its paths are about.
    pub(crate) fn is_copy(&self) -> bool {
        self.name.starts_with("ssh://")
    }

    /// Line and column, both counted from 1, the column in characters.
    pub(crate) fn locate(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.floor(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The whole line in which `offset` stands, without its end.
    pub(crate) fn line_at(&self, offset: usize) -> &str {
        let offset = self.floor(offset);
        let start = self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let end =
            self.text[offset..].find('\n').map_or(self.text.len(), |newline| offset + newline);
        self.text[start..end].trim_end_matches('\r')
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

/// Reads the tree: JSON when the first character is a brace (which no TOML text begins with).
pub(crate) fn parse(text: &str) -> Result<Node, Vec<SyntaxError>> {
    if text.trim_start().starts_with('{') { parse_json(text) } else { parse_toml(text) }
}

fn parse_toml(text: &str) -> Result<Node, Vec<SyntaxError>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let span = table.span();
        return Ok(Node { span, value: from_toml_table(table.into_inner()) });
    }
    let syntax_error = |error: &toml::de::Error| SyntaxError {
        span: error.span().unwrap_or(0..0),
        message: error.message().to_owned(),
    };
    Err(errors.iter().map(syntax_error).collect())
}

fn from_toml_table(table: DeTable<'_>) -> Value {
    let entry = |(key, value): (toml::Spanned<std::borrow::Cow<'_, str>>, _)| {
        (Key { span: key.span(), name: key.into_inner().into_owned() }, from_toml(value))
    };
    let mut entries: Vec<(Key, Node)> = table.into_iter().map(entry).collect();
    // The parser sorts by name; people read from top to bottom.
    entries.sort_by_key(|(key, _)| key.span.start);
    Value::Table(entries)
}

fn from_toml(spanned: toml::Spanned<DeValue<'_>>) -> Node {
    let span = spanned.span();
    let value = match spanned.into_inner() {
        DeValue::Table(table) => from_toml_table(table),
        DeValue::Array(array) => Value::Array(array.into_iter().map(from_toml).collect()),
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Value::Other("a number out of range"), Value::Integer),
        DeValue::Boolean(_) => Value::Other("true or false"),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    };
    Node { span, value }
}

fn parse_json(text: &str) -> Result<Node, Vec<SyntaxError>> {
    // serde_json judges the syntax and bounds the depth; the scan below may then trust the text.
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        let line_start: usize =
            text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let offset = line_start + error.column().saturating_sub(1);
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        return Err(vec![SyntaxError { span: offset..offset + 1, message }]);
    }
    let mut scan = JsonScan { text, at: 0, errors: Vec::new() };
    let node = scan.value();
    if scan.errors.is_empty() { Ok(node) } else { Err(scan.errors) }
}

/// Walks text that is known to be valid JSON and notes where things stand.
struct JsonScan<'a> {
    text: &'a str,
    at: usize,
    errors: Vec<SyntaxError>,
}

impl JsonScan<'_> {
    fn value(&mut self) -> Node {
        let start = self.skip_space();
        let value = match self.text.as_bytes()[self.at] {
            b'{' => self.table(),
            b'[' => self.array(),
            b'"' => Value::String(self.string()),
            _ => self.scalar(),
        };
        Node { span: start..self.at, value }
    }

    fn table(&mut self) -> Value {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        self.at += 1;
        while !self.closes(b'}') {
            let start = self.skip_space();
            let name = self.string();
            let span = start..self.at;
            self.skip_space();
            self.at += 1; // the colon
            let node = self.value();
            if entries.iter().any(|(key, _)| key.name == name) {
                let message = format!("duplicate key `{name}`");
                self.errors.push(SyntaxError { span: span.clone(), message });
            }
            entries.push((Key { name, span }, node));
        }
        Value::Table(entries)
    }

    fn array(&mut self) -> Value {
        let mut items = Vec::new();
        self.at += 1;
        while !self.closes(b']') {
            items.push(self.value());
        }
        Value::Array(items)
    }

    /// Steps over space, a comma, or the closing bracket; true for the bracket.
    fn closes(&mut self, bracket: u8) -> bool {
        self.skip_space();
        if self.text.as_bytes()[self.at] == b',' {
            self.at += 1;
            self.skip_space();
        }
        let closes = self.text.as_bytes()[self.at] == bracket;
        self.at += usize::from(closes);
        closes
    }

    fn string(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        while self.text.as_bytes()[self.at] != b'"' {
            self.at += if self.text.as_bytes()[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        serde_json::from_str(&self.text[start..self.at]).expect("checked by serde_json before")
    }

    fn scalar(&mut self) -> Value {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        let length = rest.iter().position(|byte| b",]} \t\r\n".contains(byte));
        self.at += length.unwrap_or(rest.len());
        match &self.text[start..self.at] {
            "true" | "false" => Value::Other("true or false"),
            "null" => Value::Other("null"),
            number => number.parse().map_or(Value::Other("a fraction"), Value::Integer),
        }
    }

    fn skip_space(&mut self) -> usize {
        while self.text.as_bytes().get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.at
    }
}

impl Value {
    /// The kind in words, for "expected a string, found …".
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Table(_) => "a table",
            Value::Array(_) => "a list",
            Value::String(_) => "a string",
            Value::Integer(_) => "a whole number",
            Value::Other(kind) => kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_toml_become_the_same_tree() {
        let toml = "a = 1\nb = [true, \"x\\n\"]\n[t]\nk = \"v\"\n";
        let json = " { \"a\": 1, \"b\": [ true ,\"x\\n\"], \"t\": {\"k\":\"v\"} }\n";
        let (toml, json) = (parse(toml).unwrap(), parse(json).unwrap());
        assert_eq!(strip(&toml.value), strip(&json.value));
    }

    #[test]
    fn every_value_knows_where_it_stands() {
        let text = "{\"host\": [{\"na\\\"me\": \"é\", \"id\": 12}]}";
        let Value::Table(root) = parse(text).unwrap().value else { panic!("no table") };
        let Value::Array(hosts) = &root[0].1.value else { panic!("no list") };
        let Value::Table(host) = &hosts[0].value else { panic!("no table") };
        assert_eq!(&text[host[0].0.span.clone()], "\"na\\\"me\"");
        assert_eq!(&text[host[0].1.span.clone()], "\"é\"");
        assert_eq!(&text[host[1].1.span.clone()], "12");
    }

    #[test]
    fn all_syntax_errors_are_found_at_once() {
        let errors = parse("a = \nb = 1\nc = ]\n").unwrap_err();
        assert!(errors.len() >= 2, "{errors:?}");
        let errors = parse("{\"a\": 1, \"a\": 2}").unwrap_err();
        assert_eq!(errors[0].message, "duplicate key `a`");
        assert_eq!(errors[0].span, 9..12);
    }

    #[test]
    fn a_json_error_points_at_its_place() {
        let errors = parse("{\n  \"a\": 1,\n  b: 2\n}").unwrap_err();
        let source = Source { name: String::new(), text: "{\n  \"a\": 1,\n  b: 2\n}".to_owned() };
        assert_eq!(source.locate(errors[0].span.start), (3, 3));
    }

    /// The tree without its spans.
    fn strip(value: &Value) -> String {
        match value {
            Value::Table(entries) => entries
                .iter()
                .map(|(key, node)| format!("{}={};", key.name, strip(&node.value)))
                .collect(),
            Value::Array(items) => items.iter().map(|node| strip(&node.value) + ",").collect(),
            other => format!("{other:?}"),
        }
    }
}
