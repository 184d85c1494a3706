//! What two nodes say to each other while one of them sends a snapshot, in bytes.
//!
//! A stream begins with an [`Part::Offer`], which names the file. Its receiver answers how much of
//! that very file it [`Part::Have`], which is where the sender begins: nothing after a first
//! offer, and what had arrived after a link that was cut, a restart, or another sender of the same
//! file. Each part is answered by how much there is now, and a file that cannot be read in the end by
//! [`Part::Failed`].
//!
//! The release before this one knows neither offers nor failures. An empty part follows each offer:
//! it answers that one the same way.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use paxos::Slot;

use super::file::FileId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Bytes { below: Slot, offset: u64, total: u64, bytes: Bytes },
    Have { below: Slot, bytes: u64 },
    Offer(FileId),
    Failed { below: Slot },
}

/// [`Part::Have`] of so many bytes: they are not wanted now. Another stream is running, or there is no
/// room. (The release before this one takes it for a stream that has ended well.)
pub(super) const NOT_WANTED: u64 = u64::MAX;

const BYTES: u8 = 1;
const HAVE: u8 = 2;
const OFFER: u8 = 3;
const FAILED: u8 = 4;

impl Part {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let mut put_head = |kind, below: &Slot| {
            out.put_u8(kind);
            out.put_u64_le(below.0);
        };
        match self {
            Part::Bytes { below, offset, total, bytes } => {
                put_head(BYTES, below);
                out.put_u64_le(*offset);
                out.put_u64_le(*total);
                out.put_slice(bytes);
            }
            Part::Have { below, bytes } => {
                put_head(HAVE, below);
                out.put_u64_le(*bytes);
            }
            Part::Offer(file) => {
                put_head(OFFER, &file.below);
                out.put_u64_le(file.bytes);
                out.put_u128_le(file.sum.expect("only a file that was read is offered"));
            }
            Part::Failed { below } => put_head(FAILED, below),
        }
        out.freeze()
    }

    pub(super) fn decode(mut part: Bytes) -> Option<Part> {
        let kind = part.try_get_u8().ok()?;
        let below = Slot(part.try_get_u64_le().ok()?);
        match kind {
            BYTES => {
                let offset = part.try_get_u64_le().ok()?;
                let total = part.try_get_u64_le().ok()?;
                Some(Part::Bytes { below, offset, total, bytes: part })
            }
            HAVE => Some(Part::Have { below, bytes: part.try_get_u64_le().ok()? }),
            OFFER => {
                let bytes = part.try_get_u64_le().ok()?;
                let sum = Some(part.try_get_u128_le().ok()?);
                Some(Part::Offer(FileId { below, bytes, sum }))
            }
            FAILED => Some(Part::Failed { below }),
            _ => None,
        }
    }
}
