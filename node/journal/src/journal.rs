//! The journal while it is open: append, sync, seal, roll, trim.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::active::{Active, Birth};
use crate::disk::Disk;
use crate::error::Error;
use crate::frame::{GROUP_HEADER_BYTES, Kind, TRIM_BODY_BYTES, group_bytes, records_body_bytes};
use crate::pool::{Pool, Progress, Purpose, is_full};
use crate::recovery::{self, Entry, Recovery, Refusal};
use crate::segment::{FileKind, SEGMENT_HEADER_BYTES, file_kind, segment_name};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of a segment's file; a multiple of 4096.
    pub segment_bytes: u64,
    /// Held back for [`Journal::append_reserved`]; rounded up to whole segments.
    pub reserve_bytes: u64,
    /// The largest group, and the largest checkpoint. Either may be larger than a segment, which
    /// then gets a file of its own size; that is slower, as the file is written on the spot.
    pub group_bytes_max: u64,
    /// No file is added that would leave less than this on the disk: traces live there too.
    pub keep_free_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            reserve_bytes: 64 << 20,
            group_bytes_max: 256 << 20,
            keep_free_bytes: 16 << 20,
        }
    }
}

/// What is written, and later replayed, as one: all of it or nothing.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// Label and bytes. [`Journal::trim`] goes by labels; a record that only a checkpoint needs to
    /// outlive has label 0.
    pub records: &'a [(u64, &'a [u8])],
    /// All that must survive when every older record is gone, should this group begin a new
    /// segment. It may already include what the group says.
    pub checkpoint: &'a [u8],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of all files: segments, spares and reserve.
    pub bytes: u64,
    pub segments: u64,
    /// Files ready to become segments, the reserve among them.
    pub spares: u64,
    pub reserve_is_whole: bool,
    /// Bytes written into segments since the journal was opened.
    pub written_bytes: u64,
    /// Syncs of segments since the journal was opened.
    pub syncs: u64,
}

pub struct Journal {
    disk: Arc<dyn Disk>,
    options: Options,
    pool: Pool,
    /// Full segments, oldest first; all synced.
    closed: VecDeque<Closed>,
    active: Active,
    /// The first failure after which the disk is not known any more.
    poison: Option<String>,
    /// Bytes of spare files that appended bytes have asked for, and not yet got.
    owed_bytes: u64,
    written_bytes: u64,
    syncs: u64,
}

struct Closed {
    number: u64,
    file_bytes: u64,
    max_label: u64,
}

/// Buffered bytes beyond which the disk is given work before the sync.
const FLUSH_BYTES: usize = 1 << 20;
/// How many bytes of spare files are made for each byte appended, until there are enough.
const FILL_PER_APPENDED: u64 = 2;
const FILL_STEP_BYTES_MAX: u64 = 1 << 20;

impl Journal {
    /// Makes a new journal that opens with `checkpoint`. Refused where one holds records already;
    /// one without any record, from a creation that was cut short, is replaced.
    pub fn create(
        disk: Arc<dyn Disk>,
        options: Options,
        checkpoint: &[u8],
    ) -> Result<Journal, Error> {
        options.check();
        match recovery::survey(&*disk, &mut |_| Ok(())) {
            Err(Error::NotCreated { .. }) => {}
            Err(error) => return Err(error),
            Ok(found) => {
                let name = segment_name(found.newest().header.number);
                if found.recovery.records > 0 || found.newest().header.number > 1 {
                    return Err(Error::AlreadyCreated { directory: disk.path(""), file: name });
                }
                let removed = disk.remove(&name);
                removed.map_err(|source| Error::io("remove", disk.path(&name), source))?;
            }
        }
        let names = disk.list().map_err(|source| Error::io("list", disk.path(""), source))?;
        let files: Vec<FileKind> = names.iter().map(|name| file_kind(name)).collect();
        let mut pool = options.pool(&disk, &files)?;
        let birth = Birth { number: 1, previous_end: 0, first: 1, checkpoint, room: 0 };
        let active = Active::begin(&*disk, &mut pool, &birth, Purpose::Ordinary)?;
        Ok(Journal::new(disk, options, pool, VecDeque::new(), active))
    }

    /// Opens a journal that is there, handing all of it to `visit`, oldest first. When it returns
    /// an error, nothing on disk was changed, but for one in the repair of an unfinished end.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        visit: &mut dyn FnMut(Entry<'_>) -> Result<(), Refusal>,
    ) -> Result<(Journal, Recovery), Error> {
        options.check();
        let found = recovery::survey(&*disk, visit)?;
        let file = found.repair(&*disk)?;
        let mut pool = options.pool(&disk, &found.files)?;
        for number in &found.leftovers {
            let name = segment_name(*number);
            let len = disk.open(&name).and_then(|file| file.len());
            let len = len.map_err(|source| Error::io("open", disk.path(&name), source))?;
            pool.recycle(&name, len)?;
        }
        let newest = *found.newest();
        let closed = found.segments.iter().rev().skip(1).rev().map(|segment| Closed {
            number: segment.header.number,
            file_bytes: segment.header.file_bytes,
            max_label: segment.max_label,
        });
        let active = Active {
            header: newest.header,
            file,
            buffer: Vec::new(),
            written: newest.end,
            synced: newest.end,
            claimed: found.claimed,
            data_end: found.data_end,
            max_label: newest.max_label,
        };
        let closed = closed.collect();
        let mut journal = Journal::new(disk, options, pool, closed, active);
        journal.seal()?;
        Ok((journal, found.recovery))
    }

    fn new(
        disk: Arc<dyn Disk>,
        options: Options,
        pool: Pool,
        closed: VecDeque<Closed>,
        active: Active,
    ) -> Journal {
        Journal {
            disk,
            options,
            pool,
            closed,
            active,
            poison: None,
            owed_bytes: 0,
            written_bytes: 0,
            syncs: 0,
        }
    }

    /// Frames a group to be written; it is durable after the next [`Journal::sync`].
    ///
    /// [`Error::Full`] and [`Error::TooLarge`] have appended nothing, and the journal goes on; any
    /// other error is final.
    pub fn append(&mut self, group: Group<'_>) -> Result<(), Error> {
        self.guarded(|journal| journal.append_for(group, Purpose::Ordinary))
    }

    /// As [`Journal::append`], for what must pass although the disk is full: may use the reserve.
    pub fn append_reserved(&mut self, group: Group<'_>) -> Result<(), Error> {
        self.guarded(|journal| journal.append_for(group, Purpose::MustWrite))
    }

    /// Makes everything appended durable, with one sync. [`Error::Full`] keeps it all for the next
    /// call; any other error is final, as nobody knows what the disk holds after a failed sync.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.guarded(Journal::sync_active)
    }

    /// To be called when there is nothing to do: syncs, and writes down that it did, so that after
    /// a crash there is no doubt about the last group. Says whether anything was written.
    pub fn seal(&mut self) -> Result<bool, Error> {
        self.guarded(|journal| {
            journal.sync_active()?;
            let active = &journal.active;
            if active.claimed >= active.data_end || !active.has_room_for_note(GROUP_HEADER_BYTES) {
                return Ok(false);
            }
            journal.active.frame_plain(Kind::Seal, &[]);
            journal.sync_active()?;
            Ok(true)
        })
    }

    /// Lets go of the oldest segments as long as all their labels are below `below_label`, never of
    /// the active one; says how many went. What they held without a label stands in the checkpoint
    /// of a newer segment.
    pub fn trim(&mut self, below_label: u64) -> Result<u64, Error> {
        self.guarded(|journal| journal.trim_below(below_label))
    }

    /// Makes up to `budget_bytes` of the spare files that are missing. To be called in idle time;
    /// says whether there is more to do.
    pub fn prepare(&mut self, budget_bytes: u64) -> Result<bool, Error> {
        self.guarded(|journal| Ok(journal.pool.step(budget_bytes)? == Progress::More))
    }

    /// Whether ordinary groups will find room for a while. Asked before work is accepted; what was
    /// accepted before still fits when this turns false.
    pub fn can_grow(&self) -> bool {
        let margin = (self.options.segment_bytes / 4).min(16 << 20);
        let room = self.active.header.file_bytes - self.active.end()
            + self.pool.ordinary_files() as u64 * self.options.segment_bytes;
        self.poison.is_none() && (room >= margin || self.pool.disk_has_room().unwrap_or(false))
    }

    pub fn free_bytes(&self) -> Result<u64, Error> {
        self.pool.free_bytes()
    }

    pub fn stats(&self) -> Stats {
        let closed_bytes: u64 = self.closed.iter().map(|closed| closed.file_bytes).sum();
        Stats {
            bytes: closed_bytes + self.active.header.file_bytes + self.pool.bytes(),
            segments: self.closed.len() as u64 + 1,
            spares: self.pool.ready_files() as u64,
            reserve_is_whole: self.pool.reserve_is_whole(),
            written_bytes: self.written_bytes,
            syncs: self.syncs,
        }
    }

    /// Refuses everything after a failure that leaves the disk unknown.
    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Journal) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if let Some(cause) = &self.poison {
            return Err(Error::Poisoned { cause: cause.clone() });
        }
        let result = work(self);
        if let Err(error) = &result
            && !matches!(error, Error::Full { .. } | Error::TooLarge { .. })
        {
            let source = std::error::Error::source(error).map(|source| format!(": {source}"));
            self.poison = Some(format!("{error}{}", source.unwrap_or_default()));
        }
        result
    }

    fn append_for(&mut self, group: Group<'_>, purpose: Purpose) -> Result<(), Error> {
        if group.records.is_empty() {
            return Ok(());
        }
        let bytes = group_bytes(records_body_bytes(group.records));
        let limit = self.options.group_bytes_max;
        let largest = bytes.max(group_bytes(group.checkpoint.len() as u64));
        if largest > limit {
            return Err(Error::TooLarge { bytes: largest, limit });
        }
        if !self.active.has_room_for_records(bytes) {
            self.roll(group.checkpoint, bytes, purpose)?;
        }
        self.active.frame_records(group.records);
        if self.active.buffer.len() >= FLUSH_BYTES {
            match self.flush() {
                // The group is in the buffer: sync will write it, or say that it is full.
                Ok(()) | Err(Error::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.owed_bytes += bytes * FILL_PER_APPENDED;
        let step_bytes = (self.options.segment_bytes / 16).min(FILL_STEP_BYTES_MAX);
        if self.owed_bytes >= step_bytes {
            self.pool.step(self.owed_bytes.min(FILL_STEP_BYTES_MAX))?;
            self.owed_bytes = 0;
        }
        Ok(())
    }

    /// Starts the next segment. When there is no space, nothing has changed.
    fn roll(&mut self, checkpoint: &[u8], room: u64, purpose: Purpose) -> Result<(), Error> {
        self.sync_active()?;
        let old = &self.active;
        let birth = Birth {
            number: old.header.number + 1,
            previous_end: old.written,
            first: self.closed.front().map_or(old.header.number, |oldest| oldest.number),
            checkpoint,
            room,
        };
        let next = Active::begin(&*self.disk, &mut self.pool, &birth, purpose)?;
        self.written_bytes += next.written;
        self.syncs += 1;
        let mut old = std::mem::replace(&mut self.active, next);
        match old.note_successor() {
            Ok(()) => self.syncs += 1,
            // Only where a file system copies on write, and nothing but the note is lost.
            Err(error) if is_full(&error) => {}
            Err(source) => {
                let path = self.disk.path(&segment_name(old.header.number));
                return Err(Error::io("sync", path, source));
            }
        }
        self.closed.push_back(Closed {
            number: old.header.number,
            file_bytes: old.header.file_bytes,
            max_label: old.max_label,
        });
        Ok(())
    }

    /// Hands the buffer to the disk.
    fn flush(&mut self) -> Result<(), Error> {
        let active = &mut self.active;
        if active.buffer.is_empty() {
            return Ok(());
        }
        let bytes = active.buffer.len() as u64;
        match active.file.write_at(active.written, &active.buffer) {
            Ok(()) => {}
            // A file system that copies on write needs space even for this. The very same bytes
            // will be written to the very same place, so half a write does no harm.
            Err(error) if is_full(&error) => {
                let free_bytes = self.pool.free_bytes()?;
                let doing = "write to a segment".to_owned();
                return Err(Error::Full { doing, needed_bytes: bytes, free_bytes });
            }
            Err(source) => {
                let doing = format!("write {bytes} bytes at {} of", active.written);
                let path = self.disk.path(&segment_name(active.header.number));
                return Err(Error::io(doing, path, source));
            }
        }
        active.written += bytes;
        active.buffer.clear();
        self.written_bytes += bytes;
        Ok(())
    }

    fn sync_active(&mut self) -> Result<(), Error> {
        self.flush()?;
        let active = &mut self.active;
        if active.synced == active.written {
            return Ok(());
        }
        active.file.sync_data().map_err(|source| {
            Error::io("sync", self.disk.path(&segment_name(active.header.number)), source)
        })?;
        active.synced = active.written;
        self.syncs += 1;
        Ok(())
    }

    fn trim_below(&mut self, below_label: u64) -> Result<u64, Error> {
        let is_needed = |closed: &Closed| closed.max_label >= below_label;
        let count = self.closed.iter().position(is_needed).unwrap_or(self.closed.len());
        // Every trim with something to do makes files to roll into; so when there is no room for a
        // second note, a new segment will begin, and the next trim does it.
        if count == 0 || !self.active.has_room_for_note(group_bytes(TRIM_BODY_BYTES)) {
            return Ok(0);
        }
        let first = self.closed.get(count).map_or(self.active.header.number, |next| next.number);
        // Noted and synced before the first file goes: a segment that is missing without such a
        // note is a loss, and one that is back in spite of it does not count.
        self.active.frame_plain(Kind::Trim, &first.to_le_bytes());
        self.sync_active()?;
        for closed in self.closed.drain(..count) {
            self.pool.recycle(&segment_name(closed.number), closed.file_bytes)?;
        }
        let synced = self.disk.sync_dir();
        synced.map_err(|source| Error::io("sync the directory", self.disk.path(""), source))?;
        Ok(count as u64)
    }
}

impl Options {
    fn check(&self) {
        let Options { segment_bytes, group_bytes_max, .. } = *self;
        assert!(
            segment_bytes >= 4 * SEGMENT_HEADER_BYTES && segment_bytes.is_multiple_of(4096),
            "segments of {segment_bytes} bytes: at least 16384 and a multiple of 4096 are needed"
        );
        assert!(
            group_bytes_max <= u64::from(u32::MAX) - 4096,
            "groups of up to {group_bytes_max} bytes: the format holds less than 4 GiB"
        );
    }

    fn pool(&self, disk: &Arc<dyn Disk>, files: &[FileKind]) -> Result<Pool, Error> {
        let reserve = self.reserve_bytes.div_ceil(self.segment_bytes) as usize;
        Pool::open(disk.clone(), self.segment_bytes, reserve, self.keep_free_bytes, files)
    }
}
