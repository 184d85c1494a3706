//! What can go wrong, said with file, offset and values.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that a sync had covered are not what was written. Nothing was changed.
    #[error("read {}: {what} at byte {offset}", file.display())]
    Corrupt { file: PathBuf, offset: u64, what: String },
    /// A segment that the journal still needs is gone. Nothing was changed.
    #[error("read {}: the file is missing, and {by} needs it", file.display())]
    Missing { file: PathBuf, by: String },
    /// There is no journal: nothing was ever created here, or all of it is gone.
    #[error("open the journal in {}: there is no segment", directory.display())]
    NotCreated { directory: PathBuf },
    /// A journal is already there and holds records.
    #[error("create a journal in {}: {file} is already there and holds records", directory.display())]
    AlreadyCreated { directory: PathBuf, file: String },
    #[error(
        "read {}: format version {found}, but this release writes and reads {known}; nothing was \
         changed. Start the release that wrote it",
        file.display()
    )]
    Version { file: PathBuf, found: u32, known: u32 },
    /// The caller did not understand a record. Nothing was changed.
    #[error("read {}: the record of the group at byte {offset} was refused", file.display())]
    Refused { file: PathBuf, offset: u64, source: Box<dyn std::error::Error + Send + Sync> },
    /// No room, and nothing was lost by it: the same call may be made again, and works as soon as
    /// there is space.
    #[error("{doing}: no space left ({free_bytes} bytes free, {needed_bytes} needed)")]
    Full { doing: String, needed_bytes: u64, free_bytes: u64 },
    /// Larger than any group may be. Nothing was written.
    #[error("append a group of {bytes} bytes: the limit is {limit}")]
    TooLarge { bytes: u64, limit: u64 },
    /// The disk failed before, and what it holds is not known since: only a restart reads it anew.
    #[error("the journal stopped at an earlier failure ({cause})")]
    Poisoned { cause: String },
    #[error("lock {}: process {owner} holds it; this is process {own}", file.display())]
    Locked { file: PathBuf, owner: String, own: u32 },
    #[error("{doing} {}", path.display())]
    Io { doing: String, path: PathBuf, source: io::Error },
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>, path: PathBuf, source: io::Error) -> Error {
        Error::Io { doing: doing.into(), path, source }
    }

    /// Whether the same call may succeed later, without a restart.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full { .. })
    }
}
