//! A disk in memory that fails on request, the same way every time: for the tests of this crate
//! and of all that keep something on disk.
//!
//! It keeps two truths: what a reader sees (the page cache) and what a power cut leaves. Between
//! two syncs of a file every write adds a version to each block it touches, and a crash picks one
//! version for each block by itself. That covers any subset of the writes landing in any order; a
//! torn block is made of two versions. Names and lengths are picked in the same way.
//!
//! ```
//! use journal::{Disk, FaultyDisk};
//! let disk = FaultyDisk::new(1);
//! let file = disk.create("a").unwrap();
//! file.write_at(0, b"hello").unwrap();
//! file.sync_data().unwrap();
//! disk.crash_keeping_nothing();
//! assert!(disk.open("a").is_err(), "the directory was never synced");
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

mod state;

use self::state::{Inode, NameChange, Random, State};
use crate::disk::{Disk, DiskFile};

/// A handle to the disk; clones name the same disk.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

/// One thing whose fate a crash decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// A block of a file, written `versions` times since its last sync.
    Block { file: String, block: u64, bytes: usize, versions: usize },
    /// The length of a file, grown `versions` times.
    Length { file: String, versions: usize },
    /// A name that was made, changed or removed.
    Name { change: String },
}

/// What a crash leaves of it. Version 0 is what the last sync left, n what the n-th write since
/// then made of it; a name is lost at 0, kept at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Version(usize),
    /// Up to byte `at` of one version, from there on of another.
    Torn {
        head: usize,
        at: usize,
        tail: usize,
    },
}

/// What a sync that fails leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedSync {
    /// Everything is as before, still unsynced.
    KeepsDirty,
    /// Readers still see what was written, but no later sync will write it (as on ext4).
    DropsDirty,
}

impl FaultyDisk {
    /// Blocks of 4096 bytes. The seed decides [`Disk::random_u64`] only.
    pub fn new(seed: u64) -> FaultyDisk {
        FaultyDisk::with_block_bytes(seed, 4096)
    }

    pub fn with_block_bytes(seed: u64, block_bytes: usize) -> FaultyDisk {
        assert!(block_bytes > 0, "blocks of no bytes");
        let state = State { block_bytes, random: Random(seed), ..State::default() };
        FaultyDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// An independent copy of the disk as it is now.
    pub fn fork(&self) -> FaultyDisk {
        FaultyDisk { state: Arc::new(Mutex::new(self.state().clone())) }
    }

    // -- Ends of a process

    /// The process dies, the machine does not: nothing is lost, and nothing becomes durable. Files
    /// that are open now fail from here on, as after every crash.
    pub fn kill(&self) {
        self.state().restart();
    }

    /// Power cut; `choose` says what is left of each unsynced thing.
    pub fn crash_with(&self, choose: &mut dyn FnMut(&Unsynced) -> Kept) {
        self.state().crash(choose);
    }

    pub fn crash_keeping_nothing(&self) {
        self.crash_with(&mut |_| Kept::Version(0));
    }

    pub fn crash_keeping_all(&self) {
        self.crash_with(&mut |unsynced| Kept::Version(unsynced.versions()));
    }

    /// Power cut that keeps a random part, in one of several manners.
    pub fn crash(&self, seed: u64) {
        let mut random = Random(seed);
        let manner = random.below(8);
        self.crash_with(&mut |unsynced| unsynced.pick(manner, &mut random));
    }

    /// What a crash would decide about now, in the order in which it would ask.
    pub fn unsynced(&self) -> Vec<Unsynced> {
        let mut all = Vec::new();
        self.fork().crash_with(&mut |unsynced| {
            all.push(unsynced.clone());
            Kept::Version(0)
        });
        all
    }

    // -- Faults to come

    /// Lets `count` more changes (writes, syncs, changes of names) happen; then every change fails
    /// without effect, until the next kill or crash.
    pub fn stop_after(&self, count: u64) {
        self.state().changes_left = Some(count);
    }

    /// Fails the sync after the next `count` syncs, of data or directory, once.
    pub fn fail_sync_after(&self, count: u64, manner: FailedSync) {
        self.state().fail_sync = Some((count, manner));
    }

    /// All files together may have this many bytes; `None`: any number. May be below what is used.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// What `free_bytes` says, true or not: somebody else may use the space in between.
    pub fn claim_free(&self, bytes: Option<u64>) {
        self.state().claimed_free = bytes;
    }

    /// After this many bytes every write fails for lack of space, over old bytes too, as on a file
    /// system that copies on write; `None` ends that.
    pub fn set_write_allowance(&self, bytes: Option<u64>) {
        self.state().write_allowance = bytes;
    }

    /// Bit rot: inverts the bits of `mask` in a byte, in cache and on disk.
    pub fn flip(&self, name: &str, offset: u64, mask: u8) {
        self.rot(name, |bytes| bytes[offset as usize] ^= mask);
    }

    /// Puts other bytes there, in cache and on disk.
    pub fn overwrite(&self, name: &str, offset: u64, with: &[u8]) {
        let start = offset as usize;
        self.rot(name, |bytes| bytes[start..start + with.len()].copy_from_slice(with));
    }

    /// Cuts a file short, in cache and on disk.
    pub fn truncate(&self, name: &str, len: u64) {
        self.rot(name, |bytes| bytes.truncate(len as usize));
    }

    /// From now on every read of this byte fails.
    pub fn fail_reads_at(&self, name: &str, offset: u64) {
        let mut state = self.state();
        let inode = state.inode_of(name).expect("the file to fail is there");
        state.unreadable.insert((inode, offset));
    }

    // -- What happened

    /// What a reader would see.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        let inode = state.inode_of(name).expect("the file to look at is there");
        state.inodes[inode].cached.clone()
    }

    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    fn rot(&self, name: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.inode_of(name).expect("the file to rot is there");
        let inode = &mut state.inodes[inode];
        assert!(inode.blocks.is_empty(), "rot is for what is synced: {name} is not");
        change(&mut inode.cached);
        change(&mut inode.durable);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the disk is locked")
    }
}

/// What was done to the disk since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes, syncs and changes of names.
    pub changes: u64,
    pub data_syncs: u64,
    pub directory_syncs: u64,
    pub written_bytes: u64,
    pub largest_read_bytes: u64,
}

impl Unsynced {
    pub fn versions(&self) -> usize {
        match self {
            Unsynced::Block { versions, .. } | Unsynced::Length { versions, .. } => *versions,
            Unsynced::Name { .. } => 1,
        }
    }

    fn pick(&self, manner: u64, random: &mut Random) -> Kept {
        let versions = self.versions() as u64;
        let any = random.below(versions + 1) as usize;
        let other = random.below(versions + 1) as usize;
        let mostly = |all: bool| Kept::Version(if all { versions as usize } else { 0 });
        match (manner, self) {
            (0, _) => Kept::Version(0),
            (1, _) => Kept::Version(versions as usize),
            (2, _) => mostly(random.below(8) > 0),
            (3, _) => mostly(random.below(8) == 0),
            (4 | 5, _) | (_, Unsynced::Length { .. } | Unsynced::Name { .. }) => Kept::Version(any),
            (_, Unsynced::Block { bytes, .. }) => {
                // Sectors of 512 bytes, or, worse than any disk, anywhere.
                let unit = if manner == 6 { 512 } else { 1 };
                let at = random.below(*bytes as u64 / unit + 1) * unit;
                Kept::Torn { head: any, at: at as usize, tail: other }
            }
        }
    }
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.change()?;
        if state.names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name} is there")));
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(name.to_owned(), inode);
        state.name_changes.push(NameChange::Create { name: name.to_owned(), inode });
        let generation = state.generation;
        Ok(Box::new(FaultyFile { state: self.state.clone(), inode, generation }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        let (inode, generation) = (state.inode_of(name)?, state.generation);
        Ok(Box::new(FaultyFile { state: self.state.clone(), inode, generation }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let inode = state.inode_of(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), inode);
        state.name_changes.push(NameChange::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.inode_of(name)?;
        state.names.remove(name);
        state.name_changes.push(NameChange::Remove { name: name.to_owned() });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.state().sync_dir()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.state().free_bytes())
    }

    fn random_u64(&self) -> u64 {
        self.state().random.next()
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/faulty").join(name)
    }
}

struct FaultyFile {
    state: Arc<Mutex<State>>,
    inode: usize,
    generation: u64,
}

impl FaultyFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock().expect("no panic while the disk is locked");
        match state.generation == self.generation {
            true => Ok(state),
            false => Err(io::Error::other("the process that opened this file is dead")),
        }
    }
}

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.inodes[self.inode].cached.len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        state.counts.largest_read_bytes = state.counts.largest_read_bytes.max(bytes.len() as u64);
        let read = (self.inode, offset)..(self.inode, end as u64);
        if state.unreadable.range(read).next().is_some() {
            return Err(io::Error::other("this byte was told to be unreadable"));
        }
        let cached = &state.inodes[self.inode].cached;
        let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        bytes.copy_from_slice(cached.get(start..end).ok_or_else(short)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.state()?.write(self.inode, offset as usize, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state()?.sync_data(self.inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced_file(disk: &FaultyDisk) -> Box<dyn DiskFile> {
        let file = disk.create("f").unwrap();
        file.write_at(0, &[1; 1024]).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
        file
    }

    #[test]
    fn each_unsynced_block_has_its_own_fate() {
        let disk = FaultyDisk::with_block_bytes(0, 512);
        let file = synced_file(&disk);
        file.write_at(500, &[2; 24]).unwrap();
        file.write_at(0, &[3; 1]).unwrap();
        assert_eq!(disk.unsynced().len(), 2);
        let seen_after = |choices: [Kept; 2]| {
            let (disk, mut choices) = (disk.fork(), choices.into_iter());
            disk.crash_with(&mut |_| choices.next().unwrap());
            let bytes = disk.contents("f");
            (bytes[0], bytes[505], bytes[515])
        };
        use Kept::Version;
        assert_eq!(seen_after([Version(0), Version(0)]), (1, 1, 1));
        assert_eq!(seen_after([Version(0), Version(1)]), (1, 1, 2));
        assert_eq!(seen_after([Version(1), Version(0)]), (1, 2, 1));
        assert_eq!(seen_after([Version(2), Version(1)]), (3, 2, 2));
        let torn = Kept::Torn { head: 0, at: 500, tail: 2 };
        assert_eq!(seen_after([torn, Version(0)]), (1, 2, 1));
    }

    #[test]
    fn a_failed_sync_may_drop_what_readers_still_see() {
        let disk = FaultyDisk::new(0);
        let file = synced_file(&disk);
        disk.fail_sync_after(0, FailedSync::DropsDirty);
        file.write_at(0, &[2]).unwrap();
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        assert_eq!(disk.contents("f")[0], 2);
        disk.crash_keeping_all();
        assert_eq!(disk.contents("f")[0], 1);
    }

    #[test]
    fn names_are_lost_one_by_one() {
        let disk = FaultyDisk::new(0);
        synced_file(&disk);
        disk.create("g").unwrap();
        disk.rename("f", "h").unwrap();
        disk.crash_with(&mut |unsynced| match unsynced {
            Unsynced::Name { change } if change.contains("Rename") => Kept::Version(1),
            _ => Kept::Version(0),
        });
        assert_eq!(disk.list().unwrap(), ["h"]);
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_stops() {
        let disk = FaultyDisk::new(0);
        let file = synced_file(&disk);
        disk.set_capacity(Some(1030));
        let error = file.write_at(1024, &[5; 100]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!((file.len().unwrap(), disk.free_bytes().unwrap()), (1030, 0));
        file.write_at(0, &[5; 100]).unwrap();
        disk.set_write_allowance(Some(3));
        file.write_at(0, &[6; 100]).unwrap_err();
        assert_eq!(disk.contents("f")[..4], [6, 6, 6, 5]);
    }

    #[test]
    fn a_stopped_disk_and_a_dead_process_change_nothing() {
        let disk = FaultyDisk::new(0);
        let file = synced_file(&disk);
        disk.stop_after(1);
        file.write_at(0, &[2]).unwrap();
        file.write_at(0, &[3]).unwrap_err();
        disk.rename("f", "g").unwrap_err();
        disk.kill();
        file.write_at(0, &[4]).unwrap_err();
        assert_eq!(disk.contents("f")[0], 2);
        disk.crash_keeping_nothing();
        assert_eq!(disk.contents("f")[0], 1);
    }
}
