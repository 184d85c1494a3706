//! The bytes of one group: a header, then the records. All that is written by one `append` is one
//! group, and a group is replayed whole or not at all.
//!
//! ```text
//!  0  magic        u32     12  record_count  u32     24  offset  u64    40  body_crc    u32
//!  4  kind         u8      16  segment       u64     32  synced  u64    44  header_crc  u32
//!  8  body_bytes   u32         (all little-endian)                      48  body …, padded to 8
//! ```
//!
//! * A group names the segment and the offset that it was written for, and its header's checksum
//!   starts from the segment's secret `salt`. Bytes left over from a recycled file, and bytes that
//!   a client put into a record so that they look like a group, are therefore no groups here.
//! * `synced` is the offset in this segment below which everything was known to be on disk when
//!   this group was framed. It is what tells corruption from an unfinished write (`recovery.rs`).
//! * The header has a checksum of its own, so that `body_bytes` is believed only when it is what
//!   was written: a rotten length never asks for memory.

pub(crate) const GROUP_HEADER_BYTES: u64 = 48;
pub(crate) const ALIGNMENT: u64 = 8;
/// The body of [`Kind::Trim`].
pub(crate) const TRIM_BODY_BYTES: u64 = 8;
/// A record's label and length, in front of its bytes.
const RECORD_HEADER_BYTES: u64 = 12;
const MAGIC: u32 = u32::from_le_bytes(*b"GRP1");
pub(crate) const MAGIC_BYTES: [u8; 4] = MAGIC.to_le_bytes();

const _: () = assert!(GROUP_HEADER_BYTES.is_multiple_of(ALIGNMENT));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Labelled records.
    Records,
    /// The opaque state that opens every segment.
    Checkpoint,
    /// Nothing: it only carries `synced`.
    Seal,
    /// The number of the oldest segment that is still needed.
    Trim,
    /// Nothing: it says that the next segment is there, so that its loss is noticed.
    Followed,
}

impl Kind {
    const ALL: [Kind; 5] =
        [Kind::Records, Kind::Checkpoint, Kind::Seal, Kind::Trim, Kind::Followed];

    fn code(self) -> u8 {
        match self {
            Kind::Records => 1,
            Kind::Checkpoint => 2,
            Kind::Seal => 3,
            Kind::Trim => 4,
            Kind::Followed => 5,
        }
    }
}

/// Where a group stands: what its checksum binds it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) salt: u64,
    pub(crate) offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) kind: Kind,
    pub(crate) record_count: u32,
    pub(crate) body_bytes: u32,
    pub(crate) synced: u64,
    body_crc: u32,
}

impl GroupHeader {
    /// The header at `place`, if these bytes are one that was written for exactly this place.
    pub(crate) fn decode(place: Place, bytes: &[u8]) -> Option<GroupHeader> {
        assert!(bytes.len() as u64 >= GROUP_HEADER_BYTES, "a group header cut short by its caller");
        if u32_at(bytes, 0) != MAGIC || u32_at(bytes, 44) != header_crc(place.salt, bytes) {
            return None;
        }
        if u64_at(bytes, 16) != place.segment || u64_at(bytes, 24) != place.offset {
            return None;
        }
        let kind = Kind::ALL.into_iter().find(|kind| kind.code() == bytes[4])?;
        Some(GroupHeader {
            kind,
            body_bytes: u32_at(bytes, 8),
            record_count: u32_at(bytes, 12),
            synced: u64_at(bytes, 32),
            body_crc: u32_at(bytes, 40),
        })
    }

    pub(crate) fn body_is_whole(&self, body: &[u8]) -> bool {
        crc32fast::hash(body) == self.body_crc
    }

    /// Header, body and padding.
    pub(crate) fn group_bytes(&self) -> u64 {
        group_bytes(u64::from(self.body_bytes))
    }
}

/// How many bytes a group with a body of this size takes in the segment.
pub(crate) fn group_bytes(body_bytes: u64) -> u64 {
    GROUP_HEADER_BYTES + body_bytes.next_multiple_of(ALIGNMENT)
}

/// How many bytes of body these records take.
pub(crate) fn records_body_bytes(records: &[(u64, &[u8])]) -> u64 {
    records.iter().map(|(_, bytes)| RECORD_HEADER_BYTES + bytes.len() as u64).sum()
}

/// Frames labelled records for `place` and adds them to `out`.
pub(crate) fn encode_records(
    out: &mut Vec<u8>,
    place: Place,
    synced: u64,
    records: &[(u64, &[u8])],
) {
    encode(out, place, synced, Kind::Records, records.len() as u32, |out| {
        for (label, bytes) in records {
            out.extend_from_slice(&label.to_le_bytes());
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
    });
}

/// Frames a group whose body is one piece: a checkpoint, a seal (empty) or a trim.
pub(crate) fn encode_plain(out: &mut Vec<u8>, place: Place, synced: u64, kind: Kind, body: &[u8]) {
    encode(out, place, synced, kind, 0, |out| out.extend_from_slice(body));
}

fn encode(
    out: &mut Vec<u8>,
    place: Place,
    synced: u64,
    kind: Kind,
    record_count: u32,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    assert!(place.offset.is_multiple_of(ALIGNMENT), "a group at {} is not aligned", place.offset);
    assert!(synced <= place.offset, "a group cannot know of synced bytes behind itself");
    let start = out.len();
    let body_start = start + GROUP_HEADER_BYTES as usize;
    out.resize(body_start, 0);
    fill(out);
    let body_bytes = u32::try_from(out.len() - body_start).expect("the group limit is below 4 GiB");
    let body_crc = crc32fast::hash(&out[body_start..]);
    out.resize(start + group_bytes(u64::from(body_bytes)) as usize, 0);

    let header = &mut out[start..body_start];
    header[0..4].copy_from_slice(&MAGIC_BYTES);
    header[4] = kind.code();
    header[8..12].copy_from_slice(&body_bytes.to_le_bytes());
    header[12..16].copy_from_slice(&record_count.to_le_bytes());
    header[16..24].copy_from_slice(&place.segment.to_le_bytes());
    header[24..32].copy_from_slice(&place.offset.to_le_bytes());
    header[32..40].copy_from_slice(&synced.to_le_bytes());
    header[40..44].copy_from_slice(&body_crc.to_le_bytes());
    let crc = header_crc(place.salt, header);
    header[44..48].copy_from_slice(&crc.to_le_bytes());
}

/// The records of a body, in order. Stops with `Err` where the body does not hold what it says,
/// which a matching checksum leaves to a fault of the writer.
pub(crate) struct Records<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Records<'a> {
    pub(crate) fn new(header: &GroupHeader, body: &'a [u8]) -> Records<'a> {
        Records { rest: body, left: header.record_count }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u64, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return (!std::mem::take(&mut self.rest).is_empty()).then_some(Err(Malformed));
        }
        self.left -= 1;
        let header_bytes = RECORD_HEADER_BYTES as usize;
        let end = (self.rest.len() >= header_bytes)
            .then(|| header_bytes + u32_at(self.rest, 8) as usize)
            .filter(|end| *end <= self.rest.len());
        let Some(end) = end else {
            (self.left, self.rest) = (0, &[]);
            return Some(Err(Malformed));
        };
        let record = (u64_at(self.rest, 0), &self.rest[header_bytes..end]);
        self.rest = &self.rest[end..];
        Some(Ok(record))
    }
}

fn header_crc(salt: u64, header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&header[..44]);
    hasher.finalize()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { segment: 7, salt: 0x5eed, offset: 4096 };

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_records(&mut bytes, PLACE, 4000, &[(3, b"three"), (0, b""), (9, b"nine!")]);
        bytes
    }

    #[test]
    fn a_group_comes_back_as_it_was_written() {
        let bytes = sample();
        let header = GroupHeader::decode(PLACE, &bytes).unwrap();
        assert_eq!((header.kind, header.synced), (Kind::Records, 4000));
        assert_eq!(header.group_bytes(), bytes.len() as u64);
        let body = &bytes[48..48 + header.body_bytes as usize];
        assert!(header.body_is_whole(body));
        let records: Result<Vec<_>, _> = Records::new(&header, body).collect();
        assert_eq!(records.unwrap(), [(3, &b"three"[..]), (0, b""), (9, b"nine!")]);
    }

    // PITFALLS 3 and 4: no flipped bit and no other place is taken for this group.
    #[test]
    fn no_flipped_bit_is_believed() {
        let good = sample();
        let body_bytes = GroupHeader::decode(PLACE, &good).unwrap().body_bytes as usize;
        for bit in 0..(48 + body_bytes) * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let whole = GroupHeader::decode(PLACE, &bytes)
                .is_some_and(|header| header.body_is_whole(&bytes[48..48 + body_bytes]));
            assert!(!whole, "bit {bit} was flipped and nobody saw it");
        }
    }

    #[test]
    fn a_group_belongs_to_one_place() {
        let bytes = sample();
        for place in [
            Place { segment: 8, ..PLACE },
            Place { salt: 0x5eee, ..PLACE },
            Place { offset: 4104, ..PLACE },
        ] {
            assert_eq!(GroupHeader::decode(place, &bytes), None);
        }
    }

    #[test]
    fn a_body_that_does_not_add_up_is_an_error_and_not_a_panic() {
        let bytes = sample();
        let header = GroupHeader::decode(PLACE, &bytes).unwrap();
        let body = &bytes[48..48 + header.body_bytes as usize];
        for cut in 0..body.len() {
            let records: Result<Vec<_>, _> = Records::new(&header, &body[..cut]).collect();
            assert_eq!(records, Err(Malformed), "body cut to {cut} bytes");
        }
        let fewer = GroupHeader { record_count: 2, ..header };
        assert!(Records::new(&fewer, body).any(|record| record.is_err()));
    }
}
