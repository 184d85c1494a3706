//! Files that are ready to become segments: of full size, written with zeroes (or with the bytes
//! of a segment that is no longer needed), synced. The last `reserve` of them are held back for
//! records that must pass although the disk is full.
//!
//! The reserve is for records only. It was once to make room for a snapshot too, so that the log
//! could be trimmed on a full disk; but a snapshot is as large as the state, which no reserve of a
//! fixed size holds, and one that grew with the state would keep back, for ever, the space whose
//! lack it is to mend. What is left for one is `keep_free_bytes`, which the journal never takes: a
//! store that was emptied by `DEL`, which still passes on a full disk, fits into it, and the log is
//! trimmed behind it.
//!
//! A new file is filled in slices, so that nobody waits for 64 MiB of zeroes: `Journal::append`
//! pays as it goes, `Journal::prepare` uses idle time.

use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::segment::{FileKind, file_name};

/// How many files stay ready beyond the reserve: one to roll into.
const READY_BEYOND_RESERVE: usize = 1;
/// How many may be kept beyond the reserve when segments are recycled: about what is let go of at
/// once, when a snapshot was taken; each that is removed instead is filled with zeroes again soon.
const KEPT_BEYOND_RESERVE: usize = 4;
/// The most that is written between two syncs while a file is filled at once.
const FILL_SLICE_BYTES: u64 = 8 << 20;

pub(crate) struct Pool {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    keep_free_bytes: u64,
    reserve: usize,
    /// The ids of the spare files, oldest first.
    ready: Vec<u64>,
    filling: Option<Filling>,
    next_id: u64,
}

struct Filling {
    id: u64,
    file: Box<dyn DiskFile>,
    filled: u64,
}

/// For whom a file is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Ordinary,
    /// May use the reserve.
    MustWrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    More,
    NoSpace,
}

impl Pool {
    /// A pool of the `spares` that are there; those not usable are removed.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        segment_bytes: u64,
        reserve: usize,
        keep_free_bytes: u64,
        files: &[FileKind],
    ) -> Result<Pool, Error> {
        let mut pool = Pool {
            disk,
            segment_bytes,
            keep_free_bytes,
            reserve,
            ready: Vec::new(),
            filling: None,
            next_id: 1,
        };
        for file in files {
            let (FileKind::Spare(id) | FileKind::Filling(id)) = *file else { continue };
            pool.next_id = pool.next_id.max(id + 1);
            let name = file_name(file);
            let whole = pool.file_bytes(&name)? == segment_bytes;
            if matches!(file, FileKind::Spare(_)) && whole && pool.ready.len() < pool.kept_max() {
                pool.ready.push(id);
            } else {
                pool.remove(&name)?;
            }
        }
        pool.ready.sort_unstable();
        Ok(pool)
    }

    pub(crate) fn ready_files(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn reserve_is_whole(&self) -> bool {
        self.ready.len() >= self.reserve
    }

    /// Bytes in all files of the pool.
    pub(crate) fn bytes(&self) -> u64 {
        let filling = self.filling.as_ref().map_or(0, |filling| filling.filled);
        self.ready.len() as u64 * self.segment_bytes + filling
    }

    /// Files that an ordinary group may still roll into without new space.
    pub(crate) fn ordinary_files(&self) -> usize {
        self.ready.len().saturating_sub(self.reserve)
    }

    /// Whether the disk has room for the rest of the reserve and one file more: then an ordinary
    /// group may even take from the reserve, which is made good at once.
    pub(crate) fn disk_has_room(&self) -> Result<bool, Error> {
        let missing = (self.reserve + 1).saturating_sub(self.ready.len()).max(1) as u64;
        // What is filled already is no longer counted as free.
        let filled = self.filling.as_ref().map_or(0, |filling| filling.filled);
        let needed_bytes = missing * self.segment_bytes - filled + self.keep_free_bytes;
        Ok(self.free_bytes()? >= needed_bytes)
    }

    pub(crate) fn free_bytes(&self) -> Result<u64, Error> {
        let free = self.disk.free_bytes();
        free.map_err(|source| Error::io("ask for the free space of", self.disk.path(""), source))
    }

    fn kept_max(&self) -> usize {
        self.reserve + KEPT_BEYOND_RESERVE
    }

    /// Fills up to `budget_bytes` of the next file that is wanted.
    pub(crate) fn step(&mut self, budget_bytes: u64) -> Result<Progress, Error> {
        let wanted = self.reserve + READY_BEYOND_RESERVE;
        if self.ready.len() >= wanted {
            return Ok(Progress::Done);
        }
        if self.filling.is_none() && !self.begin_filling()? {
            return Ok(Progress::NoSpace);
        }
        let filling = self.filling.as_mut().expect("begun above");
        let name = file_name(&FileKind::Filling(filling.id));
        let end = self.segment_bytes.min(filling.filled + budget_bytes.max(1));
        match filling.file.preallocate(filling.filled, end) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                self.drop_filling()?;
                return Ok(Progress::NoSpace);
            }
            Err(source) => return Err(Error::io("fill", self.disk.path(&name), source)),
        }
        let synced = filling.file.sync_data();
        synced.map_err(|source| Error::io("sync", self.disk.path(&name), source))?;
        filling.filled = end;
        if end < self.segment_bytes {
            return Ok(Progress::More);
        }
        let id = self.filling.take().expect("just filled").id;
        self.rename(&name, &file_name(&FileKind::Spare(id)))?;
        self.sync_dir()?;
        self.ready.push(id);
        Ok(if self.ready.len() >= wanted { Progress::Done } else { Progress::More })
    }

    /// Whether a file could be begun: not when the disk is about to be full.
    fn begin_filling(&mut self) -> Result<bool, Error> {
        if self.free_bytes()? < self.segment_bytes + self.keep_free_bytes {
            return Ok(false);
        }
        let id = self.new_id();
        let name = file_name(&FileKind::Filling(id));
        match self.disk.create(&name) {
            Ok(file) => self.filling = Some(Filling { id, file, filled: 0 }),
            Err(error) if is_full(&error) => return Ok(false),
            Err(source) => return Err(Error::io("create", self.disk.path(&name), source)),
        }
        Ok(true)
    }

    /// A half-filled file is of no use on a full disk, and others need its space.
    fn drop_filling(&mut self) -> Result<(), Error> {
        match self.filling.take() {
            Some(filling) => self.remove(&file_name(&FileKind::Filling(filling.id))),
            None => Ok(()),
        }
    }

    /// Takes a file of at least `needed_bytes` to become a segment: its spare's id and its size.
    /// `Error::Full` has changed nothing.
    pub(crate) fn take(
        &mut self,
        needed_bytes: u64,
        purpose: Purpose,
    ) -> Result<(u64, u64), Error> {
        if needed_bytes > self.segment_bytes {
            let file_bytes = needed_bytes.next_multiple_of(4096);
            return Ok((self.make_at_once(file_bytes)?, file_bytes));
        }
        let held_back = match purpose {
            Purpose::Ordinary => self.reserve,
            Purpose::MustWrite => 0,
        };
        while self.ready.len() <= held_back {
            if !self.ready.is_empty() && self.disk_has_room()? {
                break;
            }
            match self.step(FILL_SLICE_BYTES)? {
                Progress::More => {}
                Progress::Done if self.ready.len() > held_back => {}
                Progress::Done | Progress::NoSpace => return Err(self.full(self.segment_bytes)?),
            }
        }
        Ok((self.ready.remove(0), self.segment_bytes))
    }

    /// Puts a file back that was taken and not used.
    pub(crate) fn give_back(&mut self, id: u64, file_bytes: u64) -> Result<(), Error> {
        if file_bytes == self.segment_bytes {
            self.ready.insert(0, id);
            return Ok(());
        }
        self.remove(&file_name(&FileKind::Spare(id)))
    }

    /// Turns the file of a segment that is no longer needed into a spare, or removes it.
    pub(crate) fn recycle(&mut self, name: &str, file_bytes: u64) -> Result<(), Error> {
        if file_bytes != self.segment_bytes || self.ready.len() >= self.kept_max() {
            return self.remove(name);
        }
        let id = self.new_id();
        self.rename(name, &file_name(&FileKind::Spare(id)))?;
        self.ready.push(id);
        Ok(())
    }

    /// A file of an unusual size, for a group or checkpoint that no ordinary one holds.
    fn make_at_once(&mut self, file_bytes: u64) -> Result<u64, Error> {
        if self.free_bytes()? < file_bytes + self.keep_free_bytes {
            return Err(self.full(file_bytes)?);
        }
        let id = self.new_id();
        let name = file_name(&FileKind::Filling(id));
        let path = self.disk.path(&name);
        let file = match self.disk.create(&name) {
            Ok(file) => file,
            Err(error) if is_full(&error) => return Err(self.full(file_bytes)?),
            Err(source) => return Err(Error::io("create", path, source)),
        };
        match file.preallocate(0, file_bytes) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                let full = self.full(file_bytes)?;
                self.remove(&name)?;
                return Err(full);
            }
            Err(source) => return Err(Error::io("fill", path, source)),
        }
        file.sync_data().map_err(|source| Error::io("sync", path, source))?;
        self.rename(&name, &file_name(&FileKind::Spare(id)))?;
        self.sync_dir()?;
        Ok(id)
    }

    fn full(&self, needed_bytes: u64) -> Result<Error, Error> {
        let free_bytes = self.free_bytes()?;
        let needed_bytes = needed_bytes + self.keep_free_bytes;
        Ok(Error::Full { doing: "add a segment".to_owned(), needed_bytes, free_bytes })
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn file_bytes(&self, name: &str) -> Result<u64, Error> {
        let len = self.disk.open(name).and_then(|file| file.len());
        len.map_err(|source| Error::io("open", self.disk.path(name), source))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let removed = self.disk.remove(name);
        removed.map_err(|source| Error::io("remove", self.disk.path(name), source))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let renamed = self.disk.rename(from, to);
        renamed.map_err(|source| Error::io(format!("rename to {to}"), self.disk.path(from), source))
    }

    fn sync_dir(&self) -> Result<(), Error> {
        let synced = self.disk.sync_dir();
        synced.map_err(|source| Error::io("sync the directory", self.disk.path(""), source))
    }
}

pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
