//! What can go wrong on the way to a running cluster: of which kind, on which host, while doing
//! what, why, and what mends it. The front desk adds the exit code and prints it.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The wish itself cannot be granted: an inventory or a file here that is wrong.
    Usage,
    /// A host could not be reached, or would not let us in.
    Ssh,
    /// A command ran on a host and failed there.
    Remote,
    /// The hosts are fine, but the cluster does not serve.
    Unavailable,
    /// Doing it would cost the quorum, or data.
    Guard,
    /// Somebody else holds the operator lock.
    Lock,
    /// The hosts are no longer as they were when the plan was made.
    Moved,
    /// Some hosts are done and some are not.
    Partly,
    /// Asked to stop between two steps: nothing failed.
    Stopped,
    /// Our own doing.
    Internal,
}

#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    pub host: Option<Box<str>>,
    pub doing: String,
    pub causes: Vec<String>,
    pub hint: Option<String>,
    /// What failed on other hosts in the same step.
    pub others: Vec<Error>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: Kind, doing: impl Into<String>) -> Self {
        Error {
            kind,
            host: None,
            doing: doing.into(),
            causes: Vec::new(),
            hint: None,
            others: Vec::new(),
        }
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

    /// One error out of those of several hosts; none of none.
    pub fn all(errors: Vec<Error>) -> Option<Error> {
        let mut errors = errors.into_iter();
        let mut first = errors.next()?;
        first.others.extend(errors);
        Some(first)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}: ")?;
        }
        write!(f, "{}", self.doing)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
