//! What is wrong with a configuration file: where, what, and how to mend it.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1; 0 when it is about the whole file.
    pub line: usize,
    pub column: usize,
    pub message: String,
    pub hint: Option<String>,
}

/// All that is wrong with one file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    pub file: String,
    pub problems: Vec<Problem>,
}

impl Problems {
    pub(crate) fn one(file: &str, message: impl Into<String>) -> Problems {
        let problem = Problem { line: 0, column: 0, message: message.into(), hint: None };
        Problems { file: file.to_owned(), problems: vec![problem] }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            let separator = if position == 0 { "" } else { "\n" };
            write!(f, "{separator}{}", self.file)?;
            if problem.line > 0 {
                write!(f, ":{}:{}", problem.line, problem.column)?;
            }
            write!(f, ": {}", problem.message)?;
            if let Some(hint) = &problem.hint {
                write!(f, "\n    hint: {hint}")?;
            }
        }
        Ok(())
    }
}

/// Collects problems of one text and knows where its keys stand.
pub(crate) struct Findings<'a> {
    text: &'a str,
    /// Key path (`behaviour.silence_ms`, `user[1].name`) and where its value stands.
    sites: Vec<(String, Range<usize>)>,
    problems: Vec<Problem>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(text: &'a str) -> Findings<'a> {
        Findings { text, sites: Vec::new(), problems: Vec::new() }
    }

    pub(crate) fn place(&mut self, path: &str, span: Range<usize>) {
        self.sites.push((path.to_owned(), span));
    }

    pub(crate) fn at(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let (line, column) = self.locate(span.start);
        self.problems.push(Problem { line, column, message: message.into(), hint });
    }

    /// About the value at `path`, or, when a default stands for it, about the whole file.
    pub(crate) fn about(
        &mut self,
        path: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let hint = Some(hint.into());
        match self.sites.iter().find(|(known, _)| known == path) {
            Some((_, span)) => self.at(span.clone(), message, hint),
            None => {
                self.problems.push(Problem { line: 0, column: 0, message: message.into(), hint });
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    pub(crate) fn into_problems(mut self, file: &str) -> Problems {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        Problems { file: file.to_owned(), problems: self.problems }
    }

    fn locate(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}
