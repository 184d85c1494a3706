//! What is wrong with an inventory, said so that one reading is enough to mend it: where, what it
//! conflicts with, and how to make it right. All problems of a file are shown together.

use std::fmt;

use serde::Serialize;

use crate::document::{Source, Span};

/// One thing that is wrong, or doubtful.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub message: String,
    /// The text of the line, and how many characters of it are meant.
    pub source_line: String,
    pub width: usize,
    /// Shown under the marked characters; may be empty.
    pub label: String,
    pub conflicts_with: Option<Conflict>,
    pub hint: Option<String>,
}

/// The other place that a problem is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conflict {
    pub line: usize,
    pub column: usize,
    pub source_line: String,
    pub width: usize,
    pub label: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// Everything that was found in one file, in the order of its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problem {
    pub(crate) fn new(
        source: &Source,
        severity: Severity,
        span: &Span,
        message: impl Into<String>,
    ) -> Problem {
        let Site { line, column, source_line, width } = Site::of(source, span);
        Problem {
            severity,
            file: source.name.clone(),
            line,
            column,
            message: message.into(),
            source_line,
            width,
            label: String::new(),
            conflicts_with: None,
            hint: None,
        }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = label.into();
        self
    }

    /// Leaves the text of the line out: it may hold what nobody should read over a shoulder.
    pub(crate) fn without_line(mut self) -> Problem {
        self.source_line.clear();
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn conflict(
        mut self,
        source: &Source,
        span: &Span,
        label: impl Into<String>,
    ) -> Problem {
        let Site { line, column, source_line, width } = Site::of(source, span);
        let label = label.into();
        self.conflicts_with = Some(Conflict { line, column, source_line, width, label });
        self
    }
}

struct Site {
    line: usize,
    column: usize,
    source_line: String,
    width: usize,
}

impl Site {
    fn of(source: &Source, span: &Span) -> Site {
        let (line, column) = source.locate(span.start);
        let source_line = source.line_at(span.start).to_owned();
        let room = source_line.chars().count().saturating_sub(column - 1);
        let marked = source.text.get(span.clone()).unwrap_or_default();
        let width = marked.chars().count().min(room).max(1);
        Site { line, column, source_line, width }
    }
}

impl Problems {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter().filter(|problem| problem.severity == Severity::Error)
    }

    pub fn warnings(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter().filter(|problem| problem.severity == Severity::Warning)
    }

    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// As rustc shows it, without colour:
///
/// ```text
/// error: two hosts have the id 2
///   --> mine.toml:31:6
///    |
/// 22 | id = 2
///    |      - n2 has it
/// 31 | id = 2
///    |      ^ n3 has it too
///    = hint: 4 is free
/// ```
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { file, line, column, message, source_line, .. } = self;
        let last_line = self.conflicts_with.as_ref().map_or(0, |other| other.line).max(*line);
        let margin = last_line.to_string().len();
        writeln!(f, "{}: {message}", self.severity)?;
        write!(f, "{:margin$}--> {file}:{line}:{column}", "")?;
        if !source_line.is_empty() {
            self.write_lines(f, margin)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{:margin$} = hint: {hint}", "")?;
        }
        Ok(())
    }
}

impl Problem {
    fn write_lines(&self, f: &mut fmt::Formatter<'_>, margin: usize) -> fmt::Result {
        let Problem { line, column, source_line, width, label, .. } = self;
        write!(f, "\n{:margin$} |", "")?;
        let own = (*line, *column, source_line, *width, label, '^');
        let mut marks = vec![own];
        if let Some(other) = &self.conflicts_with {
            let mark =
                (other.line, other.column, &other.source_line, other.width, &other.label, '-');
            marks.insert(usize::from(other.line > *line), mark);
        }
        let mut shown = 0;
        for (line, column, text, width, label, sign) in marks {
            if line != shown {
                write!(f, "\n{line:>margin$} | {}", text.replace('\t', " "))?;
            }
            shown = line;
            let mark = sign.to_string().repeat(width);
            let under =
                format!("{:margin$} | {:indent$}{mark} {label}", "", "", indent = column - 1);
            write!(f, "\n{}", under.trim_end())?;
        }
        Ok(())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}
