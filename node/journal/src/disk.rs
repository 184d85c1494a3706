//! The one door to the disk, and the only file of the project that syncs. [`Disk`] is a flat
//! directory of files, with just the operations whose order decides what a crash leaves behind;
//! [`RealDisk`] is a directory of this machine, [`FaultyDisk`](crate::FaultyDisk) one in memory
//! that crashes, tears, rots and fills on request.
//!
//! What may be relied on, and nothing more: bytes are safe after `sync_data`, names after
//! `sync_dir`, and until then any part of them may or may not survive. Writing the same bytes again
//! over synced ones does not endanger them. A failed sync says nothing about what is on disk, nor
//! does a second, successful one (the kernel may have dropped the data in between).

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statvfs};

use crate::error::Error;

/// A flat directory of files.
pub trait Disk: Send + Sync {
    /// The names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a new, empty file; an existing one is an error.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all that happened to names durable.
    fn sync_dir(&self) -> io::Result<()>;
    fn free_bytes(&self) -> io::Result<u64>;
    /// A number that nobody outside can guess.
    fn random_u64(&self) -> u64;
    /// Where the file is, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send {
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `bytes`, or fails with `UnexpectedEof`.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes`; when it fails, any part of them may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the content and length durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Writes zeroes over `from..to`. Not `fallocate`: blocks that were only promised by the file
    /// system make every first sync over them pay for metadata.
    fn preallocate(&self, from: u64, to: u64) -> io::Result<()> {
        const ZEROES: &[u8] = &[0; 64 * 1024];
        let mut offset = from;
        while offset < to {
            let count = (to - offset).min(ZEROES.len() as u64);
            self.write_at(offset, &ZEROES[..count as usize])?;
            offset += count;
        }
        Ok(())
    }
}

const LOCK_NAME: &str = "lock";

/// A directory of this machine, owned by one process at a time.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
    /// Opened once: the handle that directory syncs go through.
    directory_file: File,
    _lock: Lock,
}

/// Held for its lock, which the kernel drops with the process, however that ends.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Not left to the closing of the file: a child process that is just being started has a
        // copy of it for a moment. Should this fail, that moment later the lock is gone anyway.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl RealDisk {
    /// Opens an existing directory and locks it, or says which process has it.
    pub fn open(directory: impl Into<PathBuf>) -> Result<RealDisk, Error> {
        let directory = directory.into();
        let directory_file = File::open(&directory)
            .map_err(|source| Error::io("open the directory", directory.clone(), source))?;
        let lock = lock(&directory.join(LOCK_NAME))?;
        Ok(RealDisk { directory, directory_file, _lock: lock })
    }

    /// As [`RealDisk::open`], making the directory (for its owner only) if it is not there.
    pub fn create(directory: impl Into<PathBuf>) -> Result<RealDisk, Error> {
        let directory = directory.into();
        make_directory(&directory)
            .map_err(|source| Error::io("make the directory", directory.clone(), source))?;
        RealDisk::open(directory)
    }
}

/// Makes a directory and those above it, each durable in the one that holds it.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| *parent != Path::new(""));
    let parent = parent.unwrap_or(Path::new("."));
    make_directory(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

/// Takes the lock file for this process and writes our pid into it, for the next one to name.
fn lock(path: &Path) -> Result<Lock, Error> {
    let fail = |source| Error::io("open the lock file", path.to_owned(), source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(fail)?;
    let own = std::process::id();
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            let known = file.read_to_string(&mut owner).is_ok() && !owner.trim().is_empty();
            let owner = if known { owner.trim().to_owned() } else { "(unknown)".to_owned() };
            return Err(Error::Locked { file: path.to_owned(), owner, own });
        }
        Err(errno) => return Err(Error::io("lock", path.to_owned(), errno.into())),
    }
    // On a full disk the name of the owner is lost, and nothing else.
    if file.set_len(0).is_ok() {
        let _ = file.write_all(own.to_string().as_bytes());
    }
    Ok(Lock(file))
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            // A name that is no UTF-8 is not one of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Box::new(RealFile(options.open(self.path(name))?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(name))?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory_file.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let figures = statvfs(&self.directory)?;
        Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
    }

    fn random_u64(&self) -> u64 {
        // The standard library seeds its hash maps from the kernel's random numbers.
        RandomState::new().build_hasher().finish()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PITFALLS 9: two owners of one directory.
    #[test]
    fn a_second_owner_is_refused_and_both_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let first = RealDisk::open(directory.path()).unwrap();
        let message = RealDisk::open(directory.path()).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(message.contains(&format!("process {pid} holds it")), "{message}");
        assert!(message.contains(&format!("this is process {pid}")), "{message}");
        drop(first);
        RealDisk::open(directory.path()).unwrap();
    }

    #[test]
    fn files_keep_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk::create(directory.path().join("a/b")).unwrap();
        let file = disk.create("x").unwrap();
        file.preallocate(0, 100_000).unwrap();
        file.write_at(70_000, b"hello").unwrap();
        file.sync_data().unwrap();
        disk.rename("x", "y").unwrap();
        disk.sync_dir().unwrap();
        let file = disk.open("y").unwrap();
        assert_eq!(file.len().unwrap(), 100_000);
        let mut bytes = [9; 7];
        file.read_at(69_999, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0hello\0");
        assert!(file.read_at(99_999, &mut bytes).is_err());
        assert!(disk.create("y").is_err());
        assert!(disk.free_bytes().unwrap() > 0);
        assert_ne!(disk.random_u64(), disk.random_u64());
    }
}
