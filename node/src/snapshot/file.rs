//! Snapshot files: `snapshot-<slot>`, where the slot is the first that is not covered.
//!
//! A file is a row of frames: kind u8, length u32, crc32 u32 over number, kind, length and bytes,
//! then the bytes. The first is the head (format version, slot, configuration, the store's head),
//! then chunks of records, then an end: a file without its end is none. The store's own head
//! carries the state hash, so what is loaded is what was saved, or it is refused.

use std::io::{self, BufReader, ErrorKind, Read};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use journal::{Disk, DiskFile};
use paxos::{Configuration, Slot};

use crate::store::{Loader, SnapshotHead, Store};
use crate::wire;

const VERSION: u8 = 1;
const HEAD: u8 = b'H';
const CHUNK: u8 = b'C';
const END: u8 = b'E';
/// No frame is longer: what a rotten length may make a reader allocate.
const FRAME_BYTES_MAX: usize = 64 << 20;
const PREFIX: &str = "snapshot-";
/// How the names of files end that are still being written.
pub(super) const UNFINISHED: &str = ".part";
/// Written at once.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("read snapshot {}: {what} at byte {offset}", path.display())]
    Corrupt { path: PathBuf, offset: u64, what: String },
    #[error(
        "none of the {count} snapshots in {} can be read (newest: {newest}); nothing was deleted. \
         Rebuild this node from its peers under a new id: paxosctl member replace",
        dir.display()
    )]
    NoneGood { dir: PathBuf, count: usize, newest: String },
}

/// A snapshot in memory.
pub struct Loaded {
    pub below: Slot,
    pub configuration: Configuration,
    pub store: Store,
}

/// What was found in the folder of snapshots.
pub struct Found {
    /// The newest that can be read.
    pub newest: Option<Loaded>,
    /// It and the ones before it: the first slot that each does not cover, and its bytes.
    pub files: Vec<(Slot, u64)>,
}

pub(super) fn name_of(below: Slot) -> String {
    format!("{PREFIX}{:020}", below.0)
}

/// Complete files with their sizes, oldest first. Remains of unfinished ones are removed.
fn list(disk: &dyn Disk) -> Result<Vec<(Slot, u64)>, SnapshotError> {
    let fail = |doing, name: &str| {
        let path = disk.path(name);
        move |source| SnapshotError::Io { doing, path, source }
    };
    let mut found = Vec::new();
    for name in disk.list().map_err(fail("list", ""))? {
        if name.ends_with(UNFINISHED) {
            disk.remove(&name).map_err(fail("remove", &name))?;
        } else if let Some(slot) = name.strip_prefix(PREFIX).and_then(|slot| slot.parse().ok()) {
            let length = disk.open(&name).and_then(|file| file.len());
            found.push((Slot(slot), length.map_err(fail("open", &name))?));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The newest snapshot that can be read, and all files that are there. A bad one falls back to the
/// one before; where there are files and none is good, the node must not start as if it were empty.
pub fn load_newest(disk: &dyn Disk) -> Result<Found, SnapshotError> {
    let mut found = list(disk)?;
    let count = found.len();
    let mut newest = None;
    while let Some((below, _)) = found.last() {
        match load(disk, &name_of(*below)) {
            Ok(loaded) => return Ok(Found { newest: Some(loaded), files: found }),
            Err(error) => {
                tracing::error!(%error, "a snapshot is bad, trying the one before");
                newest.get_or_insert(error.to_string());
                found.pop();
            }
        }
    }
    match newest {
        None => Ok(Found { newest: None, files: found }),
        Some(newest) => Err(SnapshotError::NoneGood { dir: disk.path(""), count, newest }),
    }
}

pub(super) fn load(disk: &dyn Disk, name: &str) -> Result<Loaded, SnapshotError> {
    let path = disk.path(name);
    let fail = |source| SnapshotError::Io { doing: "open", path: path.clone(), source };
    let file = disk.open(name).map_err(fail)?;
    let length = file.len().map_err(fail)?;
    let reader = BufReader::with_capacity(1 << 20, Sequential { file, at: 0, length });
    let mut frames = Frames { path: path.clone(), reader, offset: 0, number: 0 };
    let (kind, head) = frames.next()?;
    if kind != HEAD {
        return Err(frames.corrupt("no head"));
    }
    let (below, configuration, head) = decode_head(head).map_err(|what| frames.corrupt(&what))?;
    let mut loader = Loader::new(head);
    loop {
        let (kind, bytes) = frames.next()?;
        match kind {
            CHUNK => loader.add(&bytes).map_err(|error| frames.corrupt(&error.to_string()))?,
            END => break,
            other => return Err(frames.corrupt(&format!("unknown kind of frame {other}"))),
        }
    }
    let store = loader.finish().map_err(|error| frames.corrupt(&error.to_string()))?;
    Ok(Loaded { below, configuration, store })
}

/// Reads a file from its beginning to its end.
struct Sequential {
    file: Box<dyn DiskFile>,
    at: u64,
    length: u64,
}

impl Read for Sequential {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = (self.length - self.at).min(bytes.len() as u64) as usize;
        self.file.read_at(self.at, &mut bytes[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}

struct Frames {
    path: PathBuf,
    reader: BufReader<Sequential>,
    offset: u64,
    number: u64,
}

impl Frames {
    fn next(&mut self) -> Result<(u8, Bytes), SnapshotError> {
        let mut header = [0; 9];
        self.read(&mut header)?;
        let kind = header[0];
        let length = u32::from_le_bytes(header[1..5].try_into().expect("4 bytes")) as usize;
        let crc = u32::from_le_bytes(header[5..9].try_into().expect("4 bytes"));
        if length > FRAME_BYTES_MAX {
            return Err(self.corrupt(&format!("a frame of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        self.read(&mut bytes)?;
        if crc != checksum(self.number, kind, &bytes) {
            return Err(self.corrupt("bad checksum"));
        }
        self.number += 1;
        self.offset += (header.len() + length) as u64;
        Ok((kind, bytes.into()))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        match self.reader.read_exact(bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(self.corrupt("the file ends too early"))
            }
            Err(source) => {
                Err(SnapshotError::Io { doing: "read", path: self.path.clone(), source })
            }
        }
    }

    fn corrupt(&self, what: &str) -> SnapshotError {
        let path = self.path.clone();
        SnapshotError::Corrupt { path, offset: self.offset, what: what.to_owned() }
    }
}

fn checksum(number: u64, kind: u8, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&number.to_le_bytes());
    crc.update(&[kind]);
    crc.update(&(bytes.len() as u32).to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

/// A file being written.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    below: Slot,
    part: String,
    file: Box<dyn DiskFile>,
    /// Framed, not written yet.
    buffer: Vec<u8>,
    number: u64,
    written: u64,
}

impl Writer {
    pub(super) fn create(
        disk: &Arc<dyn Disk>,
        below: Slot,
        head: &SnapshotHead,
        configuration: &Configuration,
    ) -> io::Result<Writer> {
        let part = name_of(below) + UNFINISHED;
        let file = create_anew(&**disk, &part)?;
        let disk = Arc::clone(disk);
        let buffer = Vec::new();
        let mut writer = Writer { disk, below, part, file, buffer, number: 0, written: 0 };
        writer.frame(HEAD, &encode_head(below, head, configuration))?;
        Ok(writer)
    }

    pub(super) fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(FRAME_BYTES_MAX) {
            self.frame(CHUNK, piece)?;
        }
        Ok(())
    }

    /// Ends the file, syncs it, and gives it its name.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.frame(END, &[])?;
        self.write_buffer()?;
        self.file.sync_data()?;
        publish(&*self.disk, &self.part, self.below)?;
        Ok(self.written)
    }

    fn frame(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        self.buffer.push(kind);
        self.buffer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&checksum(self.number, kind, bytes).to_le_bytes());
        self.buffer.extend_from_slice(bytes);
        self.number += 1;
        if self.buffer.len() < BUFFER_BYTES {
            return Ok(());
        }
        self.write_buffer()
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        self.file.write_at(self.written, &self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// A new, empty file; what an earlier attempt left under its name goes.
pub(super) fn create_anew(disk: &dyn Disk, name: &str) -> io::Result<Box<dyn DiskFile>> {
    match disk.remove(name) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk.create(name)
}

/// Names a synced file, durably.
pub(super) fn publish(disk: &dyn Disk, part: &str, below: Slot) -> io::Result<()> {
    disk.rename(part, &name_of(below))?;
    disk.sync_dir()
}

fn encode_head(below: Slot, head: &SnapshotHead, configuration: &Configuration) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u64_le(below.0);
    out.put_slice(&head.encode());
    wire::put_configuration(&mut out, configuration);
    out.freeze()
}

fn decode_head(mut bytes: Bytes) -> Result<(Slot, Configuration, SnapshotHead), String> {
    let version = bytes.try_get_u8().map_err(|_| "an empty head")?;
    if version != VERSION {
        return Err(format!("format version {version}, this program reads {VERSION}"));
    }
    let below = Slot(bytes.try_get_u64_le().map_err(|_| "a short head")?);
    if bytes.len() < SnapshotHead::BYTES {
        return Err("a short head".to_owned());
    }
    let head = SnapshotHead::decode(&bytes.split_to(SnapshotHead::BYTES))
        .map_err(|error| error.to_string())?;
    let configuration = wire::decode_configuration(bytes).map_err(|error| error.to_string())?;
    Ok((below, configuration, head))
}
