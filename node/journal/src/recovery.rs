//! Reading a journal back: what survives, what is cut, and what is refused.
//!
//! A crash may keep any part of what was written since the last sync, in any order. So a bad group
//! is either the mark of an unfinished write, and all from there on was never promised to anybody;
//! or it is corruption, and going on would forget what was. The difference is known, not guessed:
//!
//! * A segment but the newest is synced to its end, which its successor's header names.
//! * The newest segment's header and checkpoint were synced before it got its name.
//! * Every group names the offset up to which the disk held everything when it was framed. A bad
//!   group below any such offset, wherever a group that says so is found behind it, is corruption.
//! * Every segment from the first needed one to the newest must be there; and a segment that says
//!   that it is followed is not the newest.
//!
//! Else the journal ends before the first bad group. What stands behind, from the same unfinished
//! writes, must never come back to life: the headers found there are wiped. And as a sync that
//! failed before the restart may have left pages that only look written, the doubtful end is
//! written and synced anew before anyone is told of it.
//!
//! Nothing is written before everything has been read and accepted by the caller.

use std::path::PathBuf;

use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::frame::{ALIGNMENT, GROUP_HEADER_BYTES, GroupHeader, Kind, MAGIC_BYTES, Records};
use crate::pool::is_full;
use crate::segment::{
    BadHeader, FileKind, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, file_kind, segment_name,
};

/// What replay hands out, in the order in which it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// The state that opened a segment. What came before it may be gone.
    Checkpoint(&'a [u8]),
    Record {
        label: u64,
        bytes: &'a [u8],
    },
}

/// Why a caller does not accept an [`Entry`].
pub type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// What was found on opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub segments: u64,
    pub groups: u64,
    pub records: u64,
    /// Bytes of records and checkpoints.
    pub bytes: u64,
    /// The remains of an unfinished write were found at the end, and cut.
    pub cut: Option<Cut>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub file: PathBuf,
    pub offset: u64,
}

/// A segment that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownSegment {
    pub(crate) header: SegmentHeader,
    pub(crate) end: u64,
    pub(crate) max_label: u64,
}

/// Everything that opening learns, before it changes anything.
pub(crate) struct Survey {
    /// Oldest first; the last one is the newest, which goes on.
    pub(crate) segments: Vec<KnownSegment>,
    /// Below this offset of the newest segment, some group says that all is synced.
    pub(crate) claimed: u64,
    /// Where the newest segment's last group that matters ends (seals do not).
    pub(crate) data_end: u64,
    /// Offsets of group headers at and behind the end of the newest segment.
    stale: Vec<u64>,
    /// Segments that were let go before a crash came between.
    pub(crate) leftovers: Vec<u64>,
    pub(crate) files: Vec<FileKind>,
    pub(crate) recovery: Recovery,
}

/// Reads a journal without changing anything: for tools, while no process owns it.
pub fn read(
    disk: &dyn Disk,
    visit: &mut dyn FnMut(Entry<'_>) -> Result<(), Refusal>,
) -> Result<Recovery, Error> {
    Ok(survey(disk, visit)?.recovery)
}

pub(crate) fn survey(
    disk: &dyn Disk,
    visit: &mut dyn FnMut(Entry<'_>) -> Result<(), Refusal>,
) -> Result<Survey, Error> {
    let names = disk.list().map_err(|source| Error::io("list", disk.path(""), source))?;
    let files: Vec<FileKind> = names.iter().map(|name| file_kind(name)).collect();
    let mut numbers: Vec<u64> = files
        .iter()
        .filter_map(|file| match file {
            FileKind::Segment(number) => Some(*number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    let Some(newest) = numbers.last().copied() else {
        return Err(Error::NotCreated { directory: disk.path("") });
    };

    let mut reader = SegmentReader::open(disk, newest)?;
    let tail = find_tail(disk, &mut reader)?;
    let mut survey = Survey {
        segments: Vec::new(),
        claimed: tail.claimed,
        data_end: tail.data_end,
        leftovers: numbers.iter().copied().filter(|number| *number < tail.first).collect(),
        recovery: Recovery::default(),
        stale: Vec::new(),
        files,
    };
    if !tail.stale.is_empty() {
        survey.recovery.cut = Some(Cut { file: reader.path.clone(), offset: tail.end });
    }
    survey.stale = tail.stale;

    // The next one's header says where a segment ends, so it is opened before this one is read.
    let newest_name = segment_name(newest);
    let mut older = Vec::new();
    let mut end = reader.header.previous_end;
    for number in (tail.first..newest).rev() {
        if numbers.binary_search(&number).is_err() {
            let file = disk.path(&segment_name(number));
            return Err(Error::Missing { file, by: newest_name });
        }
        let header = SegmentReader::open(disk, number)?.header;
        older.push((number, end));
        end = header.previous_end;
    }
    for (number, end) in older.into_iter().rev() {
        let mut reader = SegmentReader::open(disk, number)?;
        survey.replay(&mut reader, end, visit)?;
    }
    survey.replay(&mut reader, tail.end, visit)?;
    Ok(survey)
}

impl Survey {
    pub(crate) fn newest(&self) -> &KnownSegment {
        self.segments.last().expect("a journal has at least one segment")
    }

    fn replay(
        &mut self,
        reader: &mut SegmentReader,
        end: u64,
        visit: &mut dyn FnMut(Entry<'_>) -> Result<(), Refusal>,
    ) -> Result<(), Error> {
        let mut max_label = 0;
        let mut offset = SEGMENT_HEADER_BYTES;
        while offset < end {
            let group =
                reader.group_at(offset)?.filter(|group| offset + group.group_bytes() <= end);
            let Some(group) = group else {
                return Err(reader.corrupt(offset, "bad group, although it was synced,"));
            };
            let path = reader.path.clone();
            let body = reader.body(offset, &group)?;
            let refused = |source| Error::Refused { file: path.clone(), offset, source };
            match group.kind {
                Kind::Seal | Kind::Trim | Kind::Followed => {}
                Kind::Checkpoint => {
                    visit(Entry::Checkpoint(body)).map_err(refused)?;
                    self.recovery.bytes += body.len() as u64;
                }
                Kind::Records => {
                    for record in Records::new(&group, body) {
                        let Ok((label, bytes)) = record else {
                            let what = "a whole group whose records do not add up".to_owned();
                            return Err(Error::Corrupt { file: path, offset, what });
                        };
                        visit(Entry::Record { label, bytes }).map_err(refused)?;
                        max_label = max_label.max(label);
                        self.recovery.records += 1;
                        self.recovery.bytes += bytes.len() as u64;
                    }
                    self.recovery.groups += 1;
                }
            }
            offset += group.group_bytes();
        }
        self.recovery.segments += 1;
        self.segments.push(KnownSegment { header: reader.header, end, max_label });
        Ok(())
    }

    /// Makes the end of the newest segment fit to be appended to, and all that was replayed
    /// durable. May be cut short by a crash anywhere: the next opening finds the same end.
    pub(crate) fn repair(&self, disk: &dyn Disk) -> Result<Box<dyn DiskFile>, Error> {
        let newest = self.newest();
        let name = segment_name(newest.header.number);
        let fail = |doing: &'static str| {
            let path = disk.path(&name);
            move |source| Error::io(doing, path, source)
        };
        let file = disk.open(&name).map_err(fail("open"))?;
        let write = |offset, bytes: &[u8]| match file.write_at(offset, bytes) {
            Ok(()) => Ok(()),
            // Only where a file system copies on write.
            Err(error) if is_full(&error) => Err(Error::Full {
                doing: format!("write the end of {} anew", disk.path(&name).display()),
                needed_bytes: bytes.len() as u64,
                free_bytes: disk.free_bytes().unwrap_or(0),
            }),
            Err(source) => Err(fail("write the end anew of")(source)),
        };
        for offset in &self.stale {
            write(*offset, &[0; GROUP_HEADER_BYTES as usize])?;
        }
        let mut offset = self.claimed;
        let mut chunk = vec![0; WINDOW_BYTES as usize];
        while offset < newest.end {
            let count = (newest.end - offset).min(WINDOW_BYTES);
            let chunk = &mut chunk[..count as usize];
            file.read_at(offset, chunk).map_err(fail("read"))?;
            write(offset, chunk)?;
            offset += count;
        }
        file.sync_data().map_err(fail("sync"))?;
        // The newest segment may have got its name right before the crash.
        disk.sync_dir().map_err(fail("sync the directory of"))?;
        Ok(file)
    }
}

struct Tail {
    end: u64,
    claimed: u64,
    data_end: u64,
    first: u64,
    stale: Vec<u64>,
}

/// Finds where the newest segment ends, or that it is corrupt.
fn find_tail(disk: &dyn Disk, reader: &mut SegmentReader) -> Result<Tail, Error> {
    let header = reader.header;
    let mut tail = Tail {
        end: SEGMENT_HEADER_BYTES,
        claimed: 0,
        data_end: 0,
        first: header.first,
        stale: Vec::new(),
    };
    while let Some(group) = reader.group_at(tail.end)? {
        let opens = tail.end == SEGMENT_HEADER_BYTES;
        if opens != (group.kind == Kind::Checkpoint) {
            return Err(reader.corrupt(tail.end, "a group that does not belong there"));
        }
        if group.kind == Kind::Followed {
            let file = disk.path(&segment_name(header.number + 1));
            return Err(Error::Missing { file, by: segment_name(header.number) });
        }
        if group.kind == Kind::Trim {
            let body = reader.body(tail.end, &group)?;
            let first = body.try_into().map(u64::from_le_bytes).unwrap_or(0);
            if first < tail.first || first > header.number {
                return Err(reader.corrupt(tail.end, "a trim that makes no sense"));
            }
            tail.first = first;
        }
        tail.claimed = tail.claimed.max(group.synced);
        tail.end += group.group_bytes();
        if opens {
            tail.claimed = tail.end;
        }
        if group.kind != Kind::Seal {
            tail.data_end = tail.end;
        }
    }
    if tail.end == SEGMENT_HEADER_BYTES {
        return Err(reader.corrupt(tail.end, "bad checkpoint, although it was synced,"));
    }
    for (offset, group) in reader.headers_from(tail.end)? {
        if group.synced > tail.end {
            let what =
                format!("bad group, although the one at byte {offset} knows that it was synced,");
            return Err(reader.corrupt(tail.end, &what));
        }
        tail.stale.push(offset);
    }
    Ok(tail)
}

const WINDOW_BYTES: u64 = 1 << 20;

/// Reads one segment through a window that only a group larger than it makes grow, and only after
/// that group's header proved to be genuine.
struct SegmentReader {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    header: SegmentHeader,
    window: Vec<u8>,
    window_start: u64,
}

impl SegmentReader {
    fn open(disk: &dyn Disk, number: u64) -> Result<SegmentReader, Error> {
        let name = segment_name(number);
        let path = disk.path(&name);
        let fail = |source| Error::io("read", path.clone(), source);
        let corrupt = |what: String| Error::Corrupt { file: path.clone(), offset: 0, what };
        let file = disk.open(&name).map_err(fail)?;
        let file_bytes = file.len().map_err(fail)?;
        if file_bytes < SEGMENT_HEADER_BYTES {
            return Err(corrupt(format!("the file is cut to {file_bytes} bytes, its header bad")));
        }
        let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
        file.read_at(0, &mut page).map_err(fail)?;
        let header = match SegmentHeader::decode(&page) {
            Ok(header) => header,
            Err(BadHeader::Damaged) => return Err(corrupt("bad segment header".to_owned())),
            Err(BadHeader::Version(found)) => {
                return Err(Error::Version { file: path, found, known: VERSION });
            }
        };
        if header.number != number {
            return Err(corrupt(format!("the header of segment {}", header.number)));
        }
        if !(1..=number).contains(&header.first) {
            let first = header.first;
            return Err(corrupt(format!("a header that needs segment {first} before this one")));
        }
        if header.file_bytes != file_bytes {
            let was = header.file_bytes;
            return Err(corrupt(format!("the file has {file_bytes} bytes instead of {was}, seen")));
        }
        Ok(SegmentReader { file, path, header, window: Vec::new(), window_start: 0 })
    }

    /// The group at `offset`, if it is whole.
    fn group_at(&mut self, offset: u64) -> Result<Option<GroupHeader>, Error> {
        let Some(group) = self.header_at(offset)? else { return Ok(None) };
        let body = self.body(offset, &group)?;
        Ok(group.body_is_whole(body).then_some(group))
    }

    fn header_at(&mut self, offset: u64) -> Result<Option<GroupHeader>, Error> {
        if offset + GROUP_HEADER_BYTES > self.header.file_bytes {
            return Ok(None);
        }
        let place = self.header.place(offset);
        let group = GroupHeader::decode(place, self.bytes(offset, GROUP_HEADER_BYTES)?);
        Ok(group.filter(|group| offset + group.group_bytes() <= self.header.file_bytes))
    }

    fn body(&mut self, offset: u64, group: &GroupHeader) -> Result<&[u8], Error> {
        self.bytes(offset + GROUP_HEADER_BYTES, u64::from(group.body_bytes))
    }

    /// All genuine group headers at `from` and behind, whether or not their bodies are whole.
    fn headers_from(&mut self, from: u64) -> Result<Vec<(u64, GroupHeader)>, Error> {
        let mut found = Vec::new();
        let mut start = from;
        while start + GROUP_HEADER_BYTES <= self.header.file_bytes {
            let count = (self.header.file_bytes - start).min(WINDOW_BYTES);
            let window = self.bytes(start, count)?;
            let candidates: Vec<u64> = (window.chunks_exact(ALIGNMENT as usize).enumerate())
                .filter(|(_, bytes)| bytes[..4] == MAGIC_BYTES)
                .map(|(index, _)| start + index as u64 * ALIGNMENT)
                .collect();
            for offset in candidates {
                if let Some(group) = self.header_at(offset)? {
                    found.push((offset, group));
                }
            }
            start += count.next_multiple_of(ALIGNMENT);
        }
        Ok(found)
    }

    fn bytes(&mut self, offset: u64, count: u64) -> Result<&[u8], Error> {
        let window_end = self.window_start + self.window.len() as u64;
        if offset < self.window_start || offset + count > window_end {
            let wanted = count.max(WINDOW_BYTES).min(self.header.file_bytes - offset);
            self.window.resize(wanted as usize, 0);
            self.window_start = offset;
            let read = self.file.read_at(offset, &mut self.window);
            if let Err(source) = read {
                self.window.clear();
                let doing = format!("read {count} bytes at {offset} of");
                return Err(Error::io(doing, self.path.clone(), source));
            }
        }
        let start = (offset - self.window_start) as usize;
        Ok(&self.window[start..start + count as usize])
    }

    fn corrupt(&self, offset: u64, what: &str) -> Error {
        Error::Corrupt { file: self.path.clone(), offset, what: what.to_owned() }
    }
}
