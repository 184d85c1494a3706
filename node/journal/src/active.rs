//! The segment that is appended to: how it begins, and where it stands.

use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::frame::{self, GROUP_HEADER_BYTES, Kind, TRIM_BODY_BYTES, group_bytes};
use crate::pool::{Pool, Purpose, is_full};
use crate::segment::{FileKind, SEGMENT_HEADER_BYTES, SegmentHeader, file_name, segment_name};

/// The segment that is appended to. `claimed ≤ synced ≤ written ≤ written + buffer ≤ file_bytes`
pub(crate) struct Active {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Box<dyn DiskFile>,
    /// Framed, not yet handed to the disk. A write that found no space is made again as it was.
    pub(crate) buffer: Vec<u8>,
    pub(crate) written: u64,
    pub(crate) synced: u64,
    /// Some group says that everything below is synced.
    pub(crate) claimed: u64,
    /// The end of the last group that matters (seals do not).
    pub(crate) data_end: u64,
    pub(crate) max_label: u64,
}

/// What records leave free at the end of a segment: for a trim, a seal before and one after it,
/// and the note that the next segment is there. On a full disk, with no file to roll into, that
/// trim is the way out.
const TAIL_ROOM_BYTES: u64 = 3 * GROUP_HEADER_BYTES + GROUP_HEADER_BYTES + TRIM_BODY_BYTES;

/// What a new segment needs to know.
pub(crate) struct Birth<'a> {
    pub(crate) number: u64,
    pub(crate) previous_end: u64,
    pub(crate) first: u64,
    pub(crate) checkpoint: &'a [u8],
    /// Bytes of the group that will follow at once.
    pub(crate) room: u64,
}

impl Active {
    /// Begins a segment: header and checkpoint synced first, the name after. Until the name is
    /// there the file is a spare, so a crash in between leaves nothing behind but that.
    pub(crate) fn begin(
        disk: &dyn Disk,
        pool: &mut Pool,
        birth: &Birth<'_>,
        purpose: Purpose,
    ) -> Result<Active, Error> {
        let checkpoint_end = SEGMENT_HEADER_BYTES + group_bytes(birth.checkpoint.len() as u64);
        let needed_bytes = checkpoint_end + birth.room + TAIL_ROOM_BYTES;
        let (id, file_bytes) = pool.take(needed_bytes, purpose)?;
        let header = SegmentHeader {
            number: birth.number,
            salt: disk.random_u64(),
            file_bytes,
            previous_end: birth.previous_end,
            first: birth.first,
        };
        let mut bytes = header.encode();
        let place = header.place(SEGMENT_HEADER_BYTES);
        let synced = SEGMENT_HEADER_BYTES;
        frame::encode_plain(&mut bytes, place, synced, Kind::Checkpoint, birth.checkpoint);
        assert_eq!(bytes.len() as u64, checkpoint_end, "a checkpoint framed to another size");

        let spare = file_name(&FileKind::Spare(id));
        let name = segment_name(birth.number);
        let fail = |doing: &'static str| {
            let path = disk.path(&spare);
            move |source| Error::io(doing, path, source)
        };
        let file = disk.open(&spare).map_err(fail("open"))?;
        match file.write_at(0, &bytes) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                drop(file);
                pool.give_back(id, file_bytes)?;
                let (doing, free_bytes) = ("begin a segment".to_owned(), pool.free_bytes()?);
                return Err(Error::Full { doing, needed_bytes: checkpoint_end, free_bytes });
            }
            Err(source) => return Err(fail("write the first page of")(source)),
        }
        file.sync_data().map_err(fail("sync"))?;
        disk.rename(&spare, &name).map_err(fail("name as a segment"))?;
        disk.sync_dir().map_err(fail("sync the directory of"))?;
        Ok(Active {
            header,
            file,
            buffer: Vec::new(),
            written: checkpoint_end,
            synced: checkpoint_end,
            claimed: checkpoint_end,
            data_end: checkpoint_end,
            max_label: 0,
        })
    }

    pub(crate) fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Whether a group of records of this size fits.
    pub(crate) fn has_room_for_records(&self, bytes: u64) -> bool {
        self.end() + bytes + TAIL_ROOM_BYTES <= self.header.file_bytes
    }

    /// Whether a seal or trim of this size fits, and the note that there is a next segment.
    pub(crate) fn has_room_for_note(&self, bytes: u64) -> bool {
        self.end() + bytes + GROUP_HEADER_BYTES <= self.header.file_bytes
    }

    pub(crate) fn frame_records(&mut self, records: &[(u64, &[u8])]) {
        let (place, synced) = (self.header.place(self.end()), self.synced);
        frame::encode_records(&mut self.buffer, place, synced, records);
        self.claimed = synced;
        self.data_end = self.end();
        let labels = records.iter().map(|(label, _)| *label);
        self.max_label = labels.max().unwrap_or(0).max(self.max_label);
    }

    pub(crate) fn frame_plain(&mut self, kind: Kind, body: &[u8]) {
        let (place, synced) = (self.header.place(self.end()), self.synced);
        frame::encode_plain(&mut self.buffer, place, synced, kind, body);
        self.claimed = synced;
        if kind != Kind::Seal {
            self.data_end = self.end();
        }
    }

    /// Writes at the end, behind all that counts, that the next segment is there and will be.
    pub(crate) fn note_successor(&mut self) -> std::io::Result<()> {
        self.frame_plain(Kind::Followed, &[]);
        self.file.write_at(self.written, &self.buffer)?;
        self.file.sync_data()
    }
}
