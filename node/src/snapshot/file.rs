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
use xxhash_rust::xxh3::Xxh3;

use crate::store::{LoadError, Loader, SnapshotHead, Store, Verifier};
use crate::wire::{self, WireError};

const VERSION: u8 = 1;
const HEAD: u8 = b'H';
const CHUNK: u8 = b'C';
const END: u8 = b'E';
const PREFIX: &str = "snapshot-";
/// How the names of files begin that a peer is sending. What has arrived outlives the process: the
/// stream goes on where it was cut off.
pub(super) const INCOMING: &str = "incoming-";
/// How the name of a file begins that turned out to be bad, and was put aside.
const ROTTEN: &str = "rotten-";
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
        "snapshot {}: {what} version {found} is newer than {newest}, the newest that this release \
         reads; nothing was changed. Start the release that wrote it, or a newer one",
        path.display()
    )]
    Newer { path: PathBuf, what: &'static str, found: u8, newest: u8 },
    #[error(
        "none of the {count} snapshots in {} can be read (newest: {newest}); nothing was deleted. \
         Rebuild this node from its peers under a new id: paxosctl member replace",
        dir.display()
    )]
    NoneGood { dir: PathBuf, count: usize, newest: String },
}

/// A snapshot in memory.
pub struct Loaded {
    /// The first slot that it does not cover.
    pub below: Slot,
    /// What rules that slot.
    pub configuration: Configuration,
    pub store: Store,
}

impl Loaded {
    /// Where nothing was applied yet.
    pub fn nothing(configuration: Configuration) -> Loaded {
        Loaded { below: Slot::FIRST, configuration, store: Store::new() }
    }
}

/// What was found in the folder of snapshots.
pub struct Found {
    /// The newest that can be read.
    pub newest: Option<Loaded>,
    /// It and the ones before it: the first slot that each does not cover, and its bytes.
    pub files: Vec<(Slot, u64)>,
}

/// Which file: peers that hold the very same one may take turns in sending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The first slot that it does not cover.
    pub below: Slot,
    pub bytes: u64,
    /// Of all its bytes. `None` in a stream of the release before this one, which does not say.
    pub sum: Option<u128>,
}

pub(super) fn name_of(below: Slot) -> String {
    format!("{PREFIX}{:020}", below.0)
}

/// Complete files with their sizes, oldest first. Remains of those that were being written are
/// removed.
fn list(disk: &dyn Disk) -> Result<Vec<(Slot, u64)>, SnapshotError> {
    let fail = |doing, name: &str| {
        let path = disk.path(name);
        move |source| SnapshotError::Io { doing, path, source }
    };
    let mut found = Vec::new();
    for name in disk.list().map_err(fail("list", ""))? {
        if name.starts_with(INCOMING) {
            continue;
        }
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
            // It is good, only not for this program: going back behind it would not be for the rest.
            Err(error @ SnapshotError::Newer { .. }) => return Err(error),
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

fn load(disk: &dyn Disk, name: &str) -> Result<Loaded, SnapshotError> {
    load_named(disk, name).map(|(loaded, _)| loaded)
}

/// As [`load`], with the content's sum.
pub(super) fn load_named(disk: &dyn Disk, name: &str) -> Result<(Loaded, u128), SnapshotError> {
    let (mut frames, below, configuration, head) = open(disk, name)?;
    let mut loader = Loader::new(head, configuration.store_version);
    while let Some(chunk) = frames.next_chunk()? {
        loader.add(&chunk).map_err(|error| frames.corrupt(&error.to_string()))?;
    }
    let store = loader.finish().map_err(|error| frames.corrupt(&error.to_string()))?;
    let sum = frames.finish()?;
    Ok((Loaded { below, configuration, store }, sum))
}

/// Reads a file as a restart would, without keeping it in memory, and answers with the sum of its
/// bytes. What gets a name was verified: the log is trimmed on its word (PITFALLS 7). What is sent
/// was, too: a peer would find out only when it has all of it.
pub(super) fn verify(disk: &dyn Disk, name: &str) -> Result<FileId, SnapshotError> {
    let (mut frames, below, configuration, head) = open(disk, name)?;
    let mut verifier = Verifier::new(head, configuration.store_version);
    while let Some(chunk) = frames.next_chunk()? {
        verifier.add(&chunk).map_err(|error| frames.corrupt(&error.to_string()))?;
    }
    verifier.finish().map_err(|error| frames.corrupt(&error.to_string()))?;
    let bytes = frames.length;
    Ok(FileId { below, bytes, sum: Some(frames.finish()?) })
}

/// How much of an unfinished file is good: up to the end of the last frame that can be read. What
/// was not synced before a power cut ends it.
pub(super) fn good_prefix(disk: &dyn Disk, name: &str) -> io::Result<u64> {
    let mut frames = Frames::open(disk, name)?;
    loop {
        match frames.next() {
            Ok(_) => {}
            Err(SnapshotError::Io { source, .. }) => return Err(source),
            Err(_) => return Ok(frames.offset),
        }
    }
}

/// Gives a bad file another name, so that nobody takes it for a snapshot; an earlier one goes.
pub(super) fn put_aside(disk: &dyn Disk, below: Slot) -> io::Result<()> {
    for name in disk.list()?.iter().filter(|name| name.starts_with(ROTTEN)) {
        disk.remove(name)?;
    }
    let name = name_of(below);
    disk.rename(&name, &name.replace(PREFIX, ROTTEN))?;
    disk.sync_dir()
}

fn open(
    disk: &dyn Disk,
    name: &str,
) -> Result<(Frames, Slot, Configuration, SnapshotHead), SnapshotError> {
    let path = disk.path(name);
    let mut frames = Frames::open(disk, name).map_err(|source| SnapshotError::Io {
        doing: "open",
        path: path.clone(),
        source,
    })?;
    let (kind, head) = frames.next()?;
    if kind != HEAD {
        return Err(frames.corrupt("no head"));
    }
    let (below, configuration, head) = decode_head(head).map_err(|bad| match bad {
        BadHead::Damaged(what) => frames.corrupt(&what),
        BadHead::Newer { what, found, newest } => {
            SnapshotError::Newer { path, what, found, newest }
        }
    })?;
    Ok((frames, below, configuration, head))
}

/// Reads a file from its beginning to its end.
struct Sequential {
    file: Box<dyn DiskFile>,
    at: u64,
    length: u64,
    /// Of what was read.
    hash: Xxh3,
}

impl Read for Sequential {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = (self.length - self.at).min(bytes.len() as u64) as usize;
        self.file.read_at(self.at, &mut bytes[..count])?;
        self.hash.update(&bytes[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

struct Frames {
    path: PathBuf,
    reader: BufReader<Sequential>,
    /// Of the whole file: a rotten length must not make a reader allocate more.
    length: u64,
    offset: u64,
    number: u64,
}

impl Frames {
    fn open(disk: &dyn Disk, name: &str) -> io::Result<Frames> {
        let file = disk.open(name)?;
        let length = file.len()?;
        let sequential = Sequential { file, at: 0, length, hash: Xxh3::new() };
        let reader = BufReader::with_capacity(1 << 20, sequential);
        Ok(Frames { path: disk.path(name), reader, length, offset: 0, number: 0 })
    }

    /// Behind the last frame: nothing may follow. Answers with the sum of the whole file.
    fn finish(self) -> Result<u128, SnapshotError> {
        if self.offset < self.length {
            return Err(self.corrupt("bytes behind the end"));
        }
        Ok(self.reader.into_inner().hash.digest128())
    }

    fn next(&mut self) -> Result<(u8, Bytes), SnapshotError> {
        let mut header = [0; 9];
        self.read(&mut header)?;
        let kind = header[0];
        let length = u32::from_le_bytes(header[1..5].try_into().expect("4 bytes")) as usize;
        let crc = u32::from_le_bytes(header[5..9].try_into().expect("4 bytes"));
        if length as u64 > self.length.saturating_sub(self.offset) {
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

    /// The next chunk of records; `None` at the end of the file.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        match self.next()? {
            (CHUNK, bytes) => Ok(Some(bytes)),
            (END, _) => Ok(None),
            (other, _) => Err(self.corrupt(&format!("unknown kind of frame {other}"))),
        }
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

/// A file without its name yet. It goes when it is given up, whatever the reason: on a full disk
/// the remains of failed attempts would keep it full (PITFALLS 11, 59).
pub(super) struct Unfinished {
    disk: Arc<dyn Disk>,
    pub(super) name: String,
    is_published: bool,
}

impl Unfinished {
    /// A new, empty file; what an earlier attempt left under its name goes.
    pub(super) fn create(
        disk: &Arc<dyn Disk>,
        name: String,
    ) -> io::Result<(Unfinished, Box<dyn DiskFile>)> {
        match disk.remove(&name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&name)?;
        Ok((Unfinished { disk: Arc::clone(disk), name, is_published: false }, file))
    }

    /// Names a synced file, durably.
    pub(super) fn publish(mut self, below: Slot) -> io::Result<()> {
        self.disk.rename(&self.name, &name_of(below))?;
        self.is_published = true;
        self.disk.sync_dir()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_published
            && let Err(error) = self.disk.remove(&self.name)
        {
            tracing::warn!(%error, name = %self.name, "remove an unfinished snapshot");
        }
    }
}

/// A file being written.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    below: Slot,
    part: Unfinished,
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
        let (part, file) = Unfinished::create(disk, name_of(below) + UNFINISHED)?;
        let disk = Arc::clone(disk);
        let buffer = Vec::new();
        let mut writer = Writer { disk, below, part, file, buffer, number: 0, written: 0 };
        writer.frame(HEAD, &encode_head(below, head, configuration))?;
        Ok(writer)
    }

    /// One chunk, as the store gave it out: whole records, in one frame.
    pub(super) fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frame(CHUNK, bytes)
    }

    /// Ends the file, syncs it, reads it back, and gives it its name.
    pub(super) fn finish(mut self) -> Result<u64, String> {
        let text = |error: io::Error| error.to_string();
        self.frame(END, &[]).map_err(text)?;
        self.write_buffer().map_err(text)?;
        self.file.sync_data().map_err(text)?;
        verify(&*self.disk, &self.part.name).map_err(|error| error.to_string())?;
        self.part.publish(self.below).map_err(text)?;
        Ok(self.written)
    }

    fn frame(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.buffer.push(kind);
        self.buffer.extend_from_slice(&length.to_le_bytes());
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

fn encode_head(below: Slot, head: &SnapshotHead, configuration: &Configuration) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u64_le(below.0);
    out.put_slice(&head.encode());
    wire::put_configuration(&mut out, configuration);
    out.freeze()
}

enum BadHead {
    Damaged(String),
    Newer { what: &'static str, found: u8, newest: u8 },
}

fn damaged(what: impl ToString) -> BadHead {
    BadHead::Damaged(what.to_string())
}

fn decode_head(mut bytes: Bytes) -> Result<(Slot, Configuration, SnapshotHead), BadHead> {
    let version = bytes.try_get_u8().map_err(|_| damaged("an empty head"))?;
    if version > VERSION {
        return Err(BadHead::Newer { what: "file", found: version, newest: VERSION });
    }
    if version < VERSION {
        return Err(damaged(format!("format version {version}, this program reads {VERSION}")));
    }
    let below = Slot(bytes.try_get_u64_le().map_err(|_| damaged("a short head"))?);
    if bytes.len() < SnapshotHead::BYTES {
        return Err(damaged("a short head"));
    }
    let head = SnapshotHead::decode(&bytes.split_to(SnapshotHead::BYTES));
    let head = head.map_err(|error| match error {
        LoadError::Version(found) if found > SnapshotHead::VERSION => {
            BadHead::Newer { what: "state", found, newest: SnapshotHead::VERSION }
        }
        error => damaged(error),
    })?;
    let configuration = wire::decode_configuration(bytes).map_err(|error| match error {
        WireError::NewerVersion { what, found, newest } => BadHead::Newer { what, found, newest },
        error => damaged(error),
    })?;
    Ok((below, configuration, head))
}
