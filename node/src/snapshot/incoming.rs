//! A file on its way in: what has arrived of it, on disk.
//!
//! It is named after its content, and what has arrived stays: over a cut link, a change of sender, a
//! restart. It goes when another file comes in, or when it is not needed any more.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use journal::{Disk, DiskFile};
use paxos::{NodeId, Slot};

use super::file::{self, FileId, INCOMING, Loaded, UNFINISHED, name_of};

/// Synced at least this often, so that a power cut costs no more of it.
const SYNC_BYTES: u64 = 8 << 20;

pub(super) struct Incoming {
    disk: Arc<dyn Disk>,
    /// Who sends a file that has no sum: files of different nodes hold the same records in another
    /// order, so their parts do not mix.
    from: NodeId,
    file: FileId,
    name: String,
    handle: Box<dyn DiskFile>,
    have: u64,
    synced: u64,
}

/// What a complete file was good for.
pub(super) enum Verdict {
    Good(Box<Loaded>),
    /// Its content is not a snapshot, or not the one that was offered.
    Bad(String),
}

impl Incoming {
    /// Goes on with what is here of this file, or begins it. Anything else that is coming in goes:
    /// there may be room for one only, and its sender may be gone for ever.
    pub(super) fn open(disk: &Arc<dyn Disk>, from: NodeId, file: FileId) -> io::Result<Incoming> {
        let name = name_of_incoming(&file);
        let mut have = None;
        for other in names(&**disk)? {
            if other == name && file.sum.is_some() {
                have = Some(file::good_prefix(&**disk, &name)?.min(file.bytes));
            } else {
                disk.remove(&other)?;
            }
        }
        let handle = match have {
            Some(_) => disk.open(&name)?,
            None => disk.create(&name)?,
        };
        if have.is_none() {
            disk.sync_dir()?;
        }
        let have = have.unwrap_or(0);
        Ok(Incoming { disk: Arc::clone(disk), from, file, name, handle, have, synced: have })
    }

    pub(super) fn is(&self, from: NodeId, file: FileId) -> bool {
        self.file == file && (file.sum.is_some() || self.from == from)
    }

    pub(super) fn below(&self) -> Slot {
        self.file.below
    }

    pub(super) fn have(&self) -> u64 {
        self.have
    }

    /// Takes a part that continues what is here; any other changes nothing.
    pub(super) fn take(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset != self.have || bytes.len() as u64 > self.file.bytes - offset {
            return Ok(());
        }
        self.handle.write_at(offset, bytes)?;
        self.have += bytes.len() as u64;
        if self.have - self.synced >= SYNC_BYTES {
            self.handle.sync_data()?;
            self.synced = self.have;
        }
        Ok(())
    }

    /// Everything has arrived: reads it, and names it if it is good. Checked before it gets its name:
    /// whatever bears one can be read.
    pub(super) fn finish(self) -> io::Result<Verdict> {
        assert!(self.have == self.file.bytes, "a file is read before all of it is here");
        self.handle.sync_data()?;
        let bad = match file::load_named(&*self.disk, &self.name) {
            Err(error) => error.to_string(),
            Ok((loaded, _)) if loaded.below != self.file.below => {
                format!("the file covers slots below {}", loaded.below)
            }
            Ok((_, sum)) if self.file.sum.is_some_and(|offered| offered != sum) => {
                "the content is not what was offered".to_owned()
            }
            Ok((loaded, _)) => {
                self.disk.rename(&self.name, &name_of(self.file.below))?;
                self.disk.sync_dir()?;
                return Ok(Verdict::Good(Box::new(loaded)));
            }
        };
        self.give_up()?;
        Ok(Verdict::Bad(bad))
    }

    pub(super) fn give_up(self) -> io::Result<()> {
        self.disk.remove(&self.name)
    }
}

fn name_of_incoming(file: &FileId) -> String {
    let sum = file.sum.map_or("unnamed".to_owned(), |sum| format!("{sum:032x}"));
    format!("{INCOMING}{:020}-{}-{sum}{UNFINISHED}", file.below.0, file.bytes)
}

fn names(disk: &dyn Disk) -> io::Result<Vec<String>> {
    let mut names = disk.list()?;
    names.retain(|name| name.starts_with(INCOMING));
    Ok(names)
}

/// Removes what has come in of files that cover nothing above `below`, or of all.
pub(super) fn forget(disk: &dyn Disk, below: Option<Slot>) -> io::Result<()> {
    for name in names(disk)? {
        let slot = name.strip_prefix(INCOMING).and_then(|rest| rest.get(..20)?.parse().ok());
        if below.is_none_or(|below| slot.is_none_or(|slot: u64| slot <= below.0)) {
            match disk.remove(&name) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
