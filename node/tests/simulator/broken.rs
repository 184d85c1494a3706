//! Nodes, disks and clients that are wrong on purpose: the checks must find every one of them, or
//! they prove nothing.

use std::io;
use std::path::PathBuf;

use journal::{Disk, DiskFile, FaultyDisk};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The journal's disk says that it has synced, and has not.
    JournalNotSynced,
    /// The same of the disk with the snapshots, behind which the log is trimmed.
    SnapshotsNotSynced,
    /// Records count as durable as soon as they are appended.
    SpeaksBeforeSync,
    /// A crash takes the last synced group along.
    ForgetsLastSync,
    /// `SET` is answered before its slot is chosen.
    RepliesBeforeApply,
    /// A leader serves reads without asking whether it still leads.
    ReadsWithoutRound,
    /// A node whose disk was lost starts as if it had just been formatted.
    LostDiskStarts,
    /// A node starts on another's disk.
    ForeignDiskStarts,
    /// Nodes let in whoever says to be a member.
    CopiesAdmitted,
    /// A node that does not lead serves reads from what it has, as if they were new.
    StaleTakenForNew,
    /// A node whose disk is slow says that it can accept.
    SlowDiskTakesPart,
    /// The same of a full disk.
    FullDiskTakesPart,
    /// A leader that is told to stop does so at once.
    StopsWithoutHandover,
    /// A node goes on to be content with a leader that it no longer hears.
    ContentForEver,
    /// A client sends a command again whose fate it does not know.
    ResendsBlindly,
    /// A client takes a new number of its session when it sends a command again.
    OnceNumbersAnew,
    /// A client does not watch what its transaction rests on.
    WatchesNothing,
}

impl Broken {
    pub const ALL: [Broken; 17] = [
        Broken::JournalNotSynced,
        Broken::SnapshotsNotSynced,
        Broken::SpeaksBeforeSync,
        Broken::ForgetsLastSync,
        Broken::RepliesBeforeApply,
        Broken::ReadsWithoutRound,
        Broken::LostDiskStarts,
        Broken::ForeignDiskStarts,
        Broken::CopiesAdmitted,
        Broken::StaleTakenForNew,
        Broken::SlowDiskTakesPart,
        Broken::FullDiskTakesPart,
        Broken::StopsWithoutHandover,
        Broken::ContentForEver,
        Broken::ResendsBlindly,
        Broken::OnceNumbersAnew,
        Broken::WatchesNothing,
    ];
}

/// A disk whose syncs do nothing.
pub struct LyingDisk(pub FaultyDisk);

impl Disk for LyingDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LyingFile(self.0.create(name)?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LyingFile(self.0.open(name)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }

    fn random_u64(&self) -> u64 {
        self.0.random_u64()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
}

struct LyingFile(Box<dyn DiskFile>);

impl DiskFile for LyingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
