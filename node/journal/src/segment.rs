//! One segment: a file of fixed size, written full of zeroes before it is used, so that a sync of
//! it moves data and no metadata. It starts with a page that says which segment this is and, of
//! the one before, where it ended: a segment exists only when all of its predecessor was synced.
//!
//! ```text
//!  0  magic    8 bytes    16  number  u64    32  file_bytes    u64    48  first  u64
//!  8  version  u32        24  salt    u64    40  previous_end  u64    56  crc    u32
//! 4096  the checkpoint group, then groups one after the other, each at a multiple of 8
//! ```
//!
//! A file gets its segment's name only after this page and the checkpoint were synced. So a file
//! with such a name and a bad page is corruption, never an unfinished write.

use crate::frame::{Place, u32_at, u64_at};

/// The page stands alone in its block, which nothing writes again.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 4096;
const HEADER_FIELDS_BYTES: usize = 60;
const MAGIC: &[u8; 8] = b"JOURNAL\0";
pub(crate) const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// 1, 2, 3, … without gaps; a number is never used again.
    pub(crate) number: u64,
    /// Drawn for each segment: see `frame.rs`.
    pub(crate) salt: u64,
    pub(crate) file_bytes: u64,
    /// Where the segment before ended; all of it is synced. 0 in the very first one.
    pub(crate) previous_end: u64,
    /// The oldest segment that was still needed when this one began.
    pub(crate) first: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Damaged,
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn place(&self, offset: u64) -> Place {
        Place { segment: self.number, salt: self.salt, offset }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
        page[0..8].copy_from_slice(MAGIC);
        page[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let fields = [self.number, self.salt, self.file_bytes, self.previous_end, self.first];
        for (index, field) in fields.into_iter().enumerate() {
            page[16 + 8 * index..24 + 8 * index].copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32fast::hash(&page[..HEADER_FIELDS_BYTES - 4]);
        page[HEADER_FIELDS_BYTES - 4..HEADER_FIELDS_BYTES].copy_from_slice(&crc.to_le_bytes());
        page
    }

    pub(crate) fn decode(page: &[u8]) -> Result<SegmentHeader, BadHeader> {
        let crc = crc32fast::hash(&page[..HEADER_FIELDS_BYTES - 4]);
        if &page[0..8] != MAGIC || u32_at(page, HEADER_FIELDS_BYTES - 4) != crc {
            return Err(BadHeader::Damaged);
        }
        if u32_at(page, 8) != VERSION {
            return Err(BadHeader::Version(u32_at(page, 8)));
        }
        Ok(SegmentHeader {
            number: u64_at(page, 16),
            salt: u64_at(page, 24),
            file_bytes: u64_at(page, 32),
            previous_end: u64_at(page, 40),
            first: u64_at(page, 48),
        })
    }
}

/// What a file in the journal's directory is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// `segment-<number>`: part of the journal.
    Segment(u64),
    /// `spare-<id>`: of full size and synced once it has this name; its content means nothing.
    Spare(u64),
    /// `filling-<id>`: a spare that is not written full yet.
    Filling(u64),
    /// Not ours.
    Other,
}

pub(crate) fn file_kind(name: &str) -> FileKind {
    let Some((prefix, digits)) = name.split_once('-') else { return FileKind::Other };
    let Ok(number) = digits.parse() else { return FileKind::Other };
    let kind = match prefix {
        "segment" => FileKind::Segment(number),
        "spare" => FileKind::Spare(number),
        "filling" => FileKind::Filling(number),
        _ => return FileKind::Other,
    };
    // Only the very name that we would write: `segment-7` beside `segment-…07` is not ours.
    if file_name(&kind) == name { kind } else { FileKind::Other }
}

pub(crate) fn segment_name(number: u64) -> String {
    file_name(&FileKind::Segment(number))
}

pub(crate) fn file_name(kind: &FileKind) -> String {
    match kind {
        FileKind::Segment(number) => format!("segment-{number:012}"),
        FileKind::Spare(id) => format!("spare-{id:012}"),
        FileKind::Filling(id) => format!("filling-{id:012}"),
        FileKind::Other => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PITFALLS 58: every flipped bit of the page's fields is noticed.
    #[test]
    fn a_header_comes_back_or_is_refused() {
        let header = SegmentHeader {
            number: 12,
            salt: 0xfeed,
            file_bytes: 1 << 26,
            previous_end: 8192,
            first: 9,
        };
        let good = header.encode();
        assert_eq!(SegmentHeader::decode(&good), Ok(header));
        for bit in 0..HEADER_FIELDS_BYTES * 8 {
            let mut page = good.clone();
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&page), Err(BadHeader::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for kind in [FileKind::Segment(1), FileKind::Spare(42), FileKind::Filling(u64::MAX)] {
            assert_eq!(file_kind(&file_name(&kind)), kind);
        }
        for name in ["lock", "segment-7", "segment-", "spare-00000000000x", "lost+found", ""] {
            assert_eq!(file_kind(name), FileKind::Other, "{name}");
        }
    }
}
