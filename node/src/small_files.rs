//! The small text files of a data directory: one line of content, one with the version. The first
//! release wrote the content alone, so a file without a version line is of version 1.
//!
//! A version that this release does not know is an error that names the file, the version and the
//! program that reads it; nothing is changed then.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// One kind of them.
pub(crate) struct SmallFile {
    pub(crate) name: &'static str,
    /// What is written, and the newest that is read.
    pub(crate) version: u32,
}

const VERSION_LINE: &str = "version ";

#[derive(Debug, thiserror::Error)]
pub enum SmallFileError {
    #[error("read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "{} is of version {found}, newer than {newest}, the newest that this release reads; nothing \
         was changed. Start the release that wrote it, or a newer one",
        path.display()
    )]
    Newer { path: PathBuf, found: u32, newest: u32 },
    #[error("{} ends with `{line}`, which is no version; nothing was changed", path.display())]
    NoVersion { path: PathBuf, line: String },
}

impl SmallFile {
    pub(crate) fn path(&self, data_dir: &Path) -> PathBuf {
        data_dir.join(self.name)
    }

    /// The content; `None` where there is no such file.
    pub(crate) fn read(&self, data_dir: &Path) -> Result<Option<String>, SmallFileError> {
        let path = self.path(data_dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SmallFileError::Unreadable { path, source }),
        };
        let text = text.trim_end();
        let Some((content, line)) = text.rsplit_once('\n') else { return Ok(Some(text.into())) };
        let found = line.strip_prefix(VERSION_LINE).and_then(|version| version.parse::<u32>().ok());
        match found {
            Some(found) if found > self.version => {
                Err(SmallFileError::Newer { path, found, newest: self.version })
            }
            Some(_) => Ok(Some(content.trim_end().into())),
            None => Err(SmallFileError::NoVersion { path, line: line.into() }),
        }
    }

    /// Durable when it returns.
    pub(crate) fn write(&self, data_dir: &Path, content: &str) -> io::Result<()> {
        assert!(!content.contains('\n'), "`{content}` is more than a line");
        let text = format!("{content}\n{VERSION_LINE}{}\n", self.version);
        crate::boot::write_durably(&self.path(data_dir), &text)
    }
}
