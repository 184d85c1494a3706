//! One table of the inventory while it is being read.
//!
//! A `Section` hands out values by key and remembers which keys were asked for; what is left when
//! it is finished is unknown, and becomes an error with the nearest known key. So a key is named
//! in exactly one place: where it is read. Problems go to a shared list, never to the caller:
//! reading goes on, so that all of them are found.

use std::cell::RefCell;

use crate::document::{Key, Node, Source, Span, Value};
use crate::problem::{Problem, Severity};

/// Where problems are put down.
pub(crate) struct Findings<'a> {
    pub(crate) source: &'a Source,
    problems: RefCell<Vec<Problem>>,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Sited<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

pub(crate) struct Section<'a> {
    findings: &'a Findings<'a>,
    /// As people name it: `[guard]`, or `host n2`.
    title: String,
    pub(crate) span: Span,
    entries: &'a [(Key, Node)],
    known: RefCell<Vec<&'static str>>,
}

/// Whether a complaint repeats what was written.
#[derive(Clone, Copy)]
enum Echo {
    Value,
    Nothing,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(source: &'a Source) -> Findings<'a> {
        Findings { source, problems: RefCell::default() }
    }

    pub(crate) fn error(&self, span: &Span, message: impl Into<String>) -> Problem {
        Problem::new(self.source, Severity::Error, span, message)
    }

    pub(crate) fn warning(&self, span: &Span, message: impl Into<String>) -> Problem {
        Problem::new(self.source, Severity::Warning, span, message)
    }

    pub(crate) fn add(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// All that was found, in the order of the file.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems
    }
}

impl<'a> Section<'a> {
    /// The section that `node` is, or a complaint that it is none.
    pub(crate) fn new(
        findings: &'a Findings<'a>,
        title: impl Into<String>,
        node: &'a Node,
    ) -> Option<Section<'a>> {
        let title = title.into();
        let Value::Table(entries) = &node.value else {
            let found = node.value.kind();
            findings.add(findings.error(&node.span, format!("{title} is a table, not {found}")));
            return None;
        };
        let span = node.span.clone();
        Some(Section { findings, title, span, entries, known: RefCell::default() })
    }

    pub(crate) fn node(&self, key: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().push(key);
        self.entries.iter().find(|(found, _)| found.name == key).map(|(_, node)| node)
    }

    pub(crate) fn entries(&self) -> &'a [(Key, Node)] {
        self.entries
    }

    /// A string that `parse` understands.
    pub(crate) fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Sited<T>> {
        let node = self.node(key)?;
        self.parse_node(key, node, &parse, Echo::Value)
    }

    /// The same, but it must be there.
    pub(crate) fn required<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Sited<T>> {
        self.require(key);
        self.parsed(key, parse)
    }

    /// One of a few words, with the nearest one named when it is another.
    pub(crate) fn word<T>(
        &self,
        key: &'static str,
        words: &'static [&'static str],
        from_word: impl Fn(&str) -> Option<T>,
    ) -> Option<Sited<T>> {
        let node = self.node(key)?;
        let text = self.text(key, node)?;
        if let Some(value) = from_word(text) {
            return Some(Sited { value, span: node.span.clone() });
        }
        let choices: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let problem = self
            .findings
            .error(&node.span, format!("{key} cannot be \"{text}\""))
            .label(format!("one of {}", choices.join(", ")));
        self.findings.add(match nearest(text, words.iter().copied()) {
            Some(word) => problem.hint(format!("did you mean \"{word}\"?")),
            None => problem,
        });
        None
    }

    /// A whole number from `low` to `high`.
    pub(crate) fn integer(&self, key: &'static str, low: i64, high: i64) -> Option<Sited<i64>> {
        let node = self.node(key)?;
        let Value::Integer(value) = node.value else {
            self.wrong_kind(key, node, "a whole number");
            return None;
        };
        if !(low..=high).contains(&value) {
            let problem =
                self.findings.error(&node.span, format!("{key} = {value} is out of range"));
            let range = if high == i64::MAX {
                format!("{low} or more")
            } else {
                format!("{low} to {high}")
            };
            self.findings.add(problem.label(range));
            return None;
        }
        Some(Sited { value, span: node.span.clone() })
    }

    /// A list of strings, each of which `parse` understands.
    pub(crate) fn list<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Sited<Vec<Sited<T>>>> {
        self.list_with(key, parse, Echo::Value)
    }

    /// A list of strings that nobody else should read, should one of them be a password by mistake:
    /// complaints show neither the value nor its line.
    pub(crate) fn secret_list<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Sited<Vec<Sited<T>>>> {
        self.list_with(key, parse, Echo::Nothing)
    }

    fn list_with<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        echo: Echo,
    ) -> Option<Sited<Vec<Sited<T>>>> {
        let node = self.node(key)?;
        let Value::Array(items) = &node.value else {
            self.wrong_kind(key, node, "a list of strings");
            return None;
        };
        let value =
            items.iter().filter_map(|item| self.parse_node(key, item, &parse, echo)).collect();
        Some(Sited { value, span: node.span.clone() })
    }

    /// A table inside this one.
    pub(crate) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        let node = self.node(key)?;
        Section::new(self.findings, format!("[{key}]"), node)
    }

    /// The tables of a list such as `[[host]]`.
    pub(crate) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let Value::Array(items) = &node.value else {
            self.wrong_kind(key, node, &format!("a list of tables: write [[{key}]]"));
            return Vec::new();
        };
        let section = |item| Section::new(self.findings, format!("[[{key}]]"), item);
        items.iter().filter_map(section).collect()
    }

    pub(crate) fn rename(&mut self, title: String) {
        self.title = title;
    }

    pub(crate) fn require(&self, key: &'static str) {
        if self.entries.iter().any(|(found, _)| found.name == key) {
            return;
        }
        let problem = self.findings.error(&self.span, format!("{} has no {key}", self.title));
        self.findings.add(problem.label(format!("{key} = … is missing")));
    }

    /// Complains about every key that nothing asked for.
    pub(crate) fn finish(self) {
        let known = self.known.into_inner();
        for (key, _) in self.entries.iter().filter(|(key, _)| !known.contains(&key.name.as_str())) {
            let message = format!("{} has no key `{}`", self.title, key.name);
            let problem = self.findings.error(&key.span, message);
            self.findings.add(match nearest(&key.name, known.iter().copied()) {
                Some(name) => problem.hint(format!("did you mean `{name}`?")),
                None => problem.hint(format!("known here: {}", known.join(", "))),
            });
        }
    }

    fn parse_node<T>(
        &self,
        key: &str,
        node: &'a Node,
        parse: &impl Fn(&str) -> Result<T, String>,
        echo: Echo,
    ) -> Option<Sited<T>> {
        let text = self.text(key, node)?;
        let why = match parse(text) {
            Ok(value) => return Some(Sited { value, span: node.span.clone() }),
            Err(why) => why,
        };
        self.findings.add(match echo {
            Echo::Value => {
                self.findings.error(&node.span, format!("{key} cannot be {text:?}")).hint(why)
            }
            Echo::Nothing => {
                self.findings.error(&node.span, format!("{key} is wrong")).without_line().hint(why)
            }
        });
        None
    }

    fn text(&self, key: &str, node: &'a Node) -> Option<&'a str> {
        if let Value::String(text) = &node.value {
            return Some(text);
        }
        self.wrong_kind(key, node, "a string");
        None
    }

    fn wrong_kind(&self, key: &str, node: &Node, expected: &str) {
        let message = format!("{key} is {expected}, not {}", node.value.kind());
        self.findings.add(self.findings.error(&node.span, message));
    }
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
