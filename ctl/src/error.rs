//! What went wrong, said once and well: a word that stands for the exit code, the host, what was
//! being done, the chain of causes in the words of whoever failed, and what to do next.
//!
//! ```text
//! error[SSH] n2: connect to 10.0.0.12 port 22
//!   caused by: Connection timed out
//!
//! hint: is the host up? `paxosctl check -n n2`
//! ```

use std::fmt;
use std::process::ExitCode;

/// The kinds of failure that a script can tell apart. The numbers are a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Internal = 1,
    Usage = 2,
    Ssh = 3,
    Remote = 4,
    Unavailable = 5,
    Safety = 6,
    Guard = 7,
    Lock = 8,
    Partly = 9,
    Unknown = 11,
    Degraded = 12,
    Interrupted = 130,
}

impl Word {
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(self as u8)
    }

    fn name(self) -> &'static str {
        match self {
            Word::Internal => "INTERNAL",
            Word::Usage => "USAGE",
            Word::Ssh => "SSH",
            Word::Remote => "REMOTE",
            Word::Unavailable => "UNAVAILABLE",
            Word::Safety => "SAFETY",
            Word::Guard => "GUARD",
            Word::Lock => "LOCK",
            Word::Partly => "PARTLY",
            Word::Unknown => "UNKNOWN",
            Word::Degraded => "DEGRADED",
            Word::Interrupted => "INTERRUPTED",
        }
    }
}

/// One failure as a person sees it. Build it with what was being done, then add the rest.
#[derive(Clone, Debug)]
pub struct Error {
    pub word: Word,
    pub host: Option<Box<str>>,
    pub doing: String,
    pub causes: Vec<String>,
    pub hint: Option<String>,
    /// Failures of other hosts in the same command; each is shown with its own word.
    pub others: Vec<Error>,
}

impl Error {
    pub fn new(word: Word, doing: impl Into<String>) -> Self {
        Error {
            word,
            host: None,
            doing: doing.into(),
            causes: Vec::new(),
            hint: None,
            others: Vec::new(),
        }
    }

    pub fn usage(doing: impl Into<String>) -> Self {
        Error::new(Word::Usage, doing)
    }

    pub fn on(mut self, host: impl Into<Box<str>>) -> Self {
        self.host = Some(host.into());
        self
    }

    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        let cause = cause.to_string();
        if !cause.trim().is_empty() {
            self.causes.push(cause);
        }
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// One more way out beside the hint that is there.
    pub fn and_hint(mut self, hint: &str) -> Self {
        self.hint = Some(match self.hint {
            Some(first) => format!("{first}\nhint: {hint}"),
            None => hint.to_owned(),
        });
        self
    }

    pub fn and(mut self, other: Error) -> Self {
        self.others.push(other);
        self
    }

    pub fn exit_code(&self) -> ExitCode {
        self.word.exit_code()
    }

    /// An error of a library with its whole chain of sources.
    pub fn from_chain(word: Word, doing: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let mut out = Error::new(word, doing);
        let mut next = Some(error);
        while let Some(error) = next {
            out.causes.push(error.to_string());
            next = error.source();
        }
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]", self.word.name())?;
        if let Some(host) = &self.host {
            write!(f, " {host}")?;
        }
        write!(f, ": {}", self.doing)?;
        for cause in &self.causes {
            for (number, line) in cause.lines().filter(|line| !line.trim().is_empty()).enumerate() {
                let lead = if number == 0 { "  caused by: " } else { "             " };
                write!(f, "\n{lead}{line}")?;
            }
        }
        for other in &self.others {
            let mut other = other.clone();
            other.hint = None;
            write!(f, "\n{other}")?;
        }
        // Hosts that fail alike share one hint.
        let mut hints: Vec<&str> = Vec::new();
        let others = self.others.iter().filter_map(|other| other.hint.as_deref());
        for hint in self.hint.as_deref().into_iter().chain(others) {
            if !hints.contains(&hint) {
                let lead = if hints.is_empty() { "\n\n" } else { "\n" };
                write!(f, "{lead}hint: {hint}")?;
                hints.push(hint);
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<deploy::Error> for Error {
    fn from(error: deploy::Error) -> Self {
        let word = match error.kind {
            deploy::Kind::Usage => Word::Usage,
            deploy::Kind::Ssh => Word::Ssh,
            deploy::Kind::Remote => Word::Remote,
            deploy::Kind::Unavailable => Word::Unavailable,
            deploy::Kind::Guard | deploy::Kind::Moved => Word::Guard,
            deploy::Kind::Lock => Word::Lock,
            deploy::Kind::Partly | deploy::Kind::Stopped => Word::Partly,
            deploy::Kind::Internal => Word::Internal,
        };
        Error {
            word,
            host: error.host,
            doing: error.doing,
            causes: error.causes,
            hint: error.hint,
            others: error.others.into_iter().map(Error::from).collect(),
        }
    }
}

/// What no verb foresaw. A verb that can name the failure builds an `Error` itself.
impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => {
                let mut chain = error.chain().map(ToString::to_string);
                let mut out = Error::new(Word::Internal, chain.next().unwrap_or_default());
                out.causes = chain.collect();
                out
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_from_what_to_why_to_what_next() {
        let error = Error::new(Word::Ssh, "connect to 10.0.0.12 port 22")
            .on("n2")
            .because("ssh: connect\nConnection timed out")
            .hint("is the host up?");
        insta::assert_snapshot!(error, @r"
        error[SSH] n2: connect to 10.0.0.12 port 22
          caused by: ssh: connect
                     Connection timed out

        hint: is the host up?
        ");
    }
}
