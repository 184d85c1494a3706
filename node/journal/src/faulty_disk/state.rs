//! The two truths of a [`FaultyDisk`](super::FaultyDisk), and how a crash makes them one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::{Counts, FailedSync, Kept, Unsynced};

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) block_bytes: usize,
    /// Never reused, so that handles of removed files go on working.
    pub(super) inodes: Vec<Inode>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) durable_names: BTreeMap<String, usize>,
    pub(super) name_changes: Vec<NameChange>,
    /// Raised when the process dies.
    pub(super) generation: u64,
    pub(super) random: Random,
    pub(super) changes_left: Option<u64>,
    pub(super) fail_sync: Option<(u64, FailedSync)>,
    pub(super) capacity: Option<u64>,
    pub(super) claimed_free: Option<u64>,
    pub(super) write_allowance: Option<u64>,
    pub(super) unreadable: BTreeSet<(usize, u64)>,
    pub(super) counts: Counts,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) cached: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// Of each block written since the last sync, its content after each write.
    pub(super) blocks: BTreeMap<usize, Vec<Vec<u8>>>,
    pub(super) lengths: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Create { name: String, inode: usize },
    Rename { from: String, to: String },
    Remove { name: String },
}

impl State {
    pub(super) fn inode_of(&self, name: &str) -> io::Result<usize> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{name} is not there"));
        self.names.get(name).copied().ok_or_else(missing)
    }

    /// Counts a change, or refuses it.
    pub(super) fn change(&mut self) -> io::Result<()> {
        match &mut self.changes_left {
            Some(0) => return Err(io::Error::other("the disk was told to stop here")),
            Some(left) => *left -= 1,
            None => {}
        }
        self.counts.changes += 1;
        Ok(())
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].cached.len() as u64).sum()
    }

    pub(super) fn free_bytes(&self) -> u64 {
        let capacity = self.capacity.unwrap_or(1 << 50);
        self.claimed_free.unwrap_or(capacity.saturating_sub(self.used_bytes()))
    }

    pub(super) fn write(&mut self, inode: usize, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.change()?;
        let len = self.inodes[inode].cached.len();
        let growth = (offset + bytes.len()).saturating_sub(len) as u64;
        let room = self.capacity.map_or(u64::MAX, |all| all.saturating_sub(self.used_bytes()));
        let mut allowed = bytes.len() as u64 - growth.saturating_sub(room).min(bytes.len() as u64);
        if let Some(allowance) = &mut self.write_allowance {
            allowed = allowed.min(*allowance);
            *allowance -= allowed;
        }
        let block_bytes = self.block_bytes;
        self.inodes[inode].write(offset, &bytes[..allowed as usize], block_bytes);
        self.counts.written_bytes += allowed;
        if allowed < bytes.len() as u64 {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left"));
        }
        Ok(())
    }

    /// Whether this sync is one that works.
    pub(super) fn next_sync(&mut self) -> Result<(), FailedSync> {
        match &mut self.fail_sync {
            Some((0, manner)) => {
                let manner = *manner;
                self.fail_sync = None;
                return Err(manner);
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    pub(super) fn sync_data(&mut self, inode: usize) -> io::Result<()> {
        self.change()?;
        self.counts.data_syncs += 1;
        let result = self.next_sync();
        let block_bytes = self.block_bytes;
        let inode = &mut self.inodes[inode];
        match result {
            Ok(()) => {
                inode.land(block_bytes, &mut |unsynced| Kept::Version(unsynced.versions()), "")
            }
            Err(FailedSync::KeepsDirty) => {}
            Err(FailedSync::DropsDirty) => inode.blocks.clear(),
        }
        result.map_err(|_| io::Error::other("this sync was told to fail"))
    }

    pub(super) fn sync_dir(&mut self) -> io::Result<()> {
        self.change()?;
        self.counts.directory_syncs += 1;
        self.next_sync().map_err(|_| io::Error::other("this sync was told to fail"))?;
        self.durable_names = self.names.clone();
        self.name_changes.clear();
        Ok(())
    }

    pub(super) fn restart(&mut self) {
        self.generation += 1;
        self.changes_left = None;
        self.fail_sync = None;
    }

    pub(super) fn crash(&mut self, choose: &mut dyn FnMut(&Unsynced) -> Kept) {
        self.restart();
        for change in std::mem::take(&mut self.name_changes) {
            let text = format!("{change:?}");
            if choose(&Unsynced::Name { change: text }) != Kept::Version(0) {
                change.apply(&mut self.durable_names);
            }
        }
        let names: BTreeMap<usize, String> = (self.names.iter())
            .chain(&self.durable_names)
            .map(|(name, inode)| (*inode, name.clone()))
            .collect();
        self.names = self.durable_names.clone();
        for (index, inode) in self.inodes.iter_mut().enumerate() {
            // What has no name is gone, and nobody asks how.
            if let Some(name) = names.get(&index) {
                inode.land(self.block_bytes, choose, name);
            }
            inode.cached = inode.durable.clone();
        }
    }
}

impl Inode {
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8], block_bytes: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if end > self.cached.len() {
            self.cached.resize(end, 0);
            self.lengths.push(end);
        }
        self.cached[offset..end].copy_from_slice(bytes);
        for block in offset / block_bytes..=(end - 1) / block_bytes {
            let start = block * block_bytes;
            let image = &self.cached[start..(start + block_bytes).min(self.cached.len())];
            self.blocks.entry(block).or_default().push(image.to_vec());
        }
    }

    /// Decides what becomes durable of everything unsynced.
    pub(super) fn land(
        &mut self,
        block_bytes: usize,
        choose: &mut dyn FnMut(&Unsynced) -> Kept,
        name: &str,
    ) {
        let lengths = std::mem::take(&mut self.lengths);
        if !lengths.is_empty() {
            let question = Unsynced::Length { file: name.to_owned(), versions: lengths.len() };
            if let Kept::Version(version @ 1..) = choose(&question) {
                self.durable.resize(lengths[version - 1], 0);
            }
        }
        for (block, versions) in std::mem::take(&mut self.blocks) {
            let start = block * block_bytes;
            let kept = choose(&Unsynced::Block {
                file: name.to_owned(),
                block: block as u64,
                bytes: block_bytes,
                versions: versions.len(),
            });
            let end = (start + block_bytes).min(self.durable.len());
            if start >= end {
                continue;
            }
            let now = self.durable[start..end].to_vec();
            let image = |version: usize| {
                // Zeroes, where the file was shorter when this version was written.
                let mut image = now.clone();
                if let Some(version) = version.checked_sub(1).map(|index| &versions[index]) {
                    let count = version.len().min(image.len());
                    image[..count].copy_from_slice(&version[..count]);
                }
                image
            };
            let landed = match kept {
                Kept::Version(version) => image(version),
                Kept::Torn { head, at, tail } => {
                    let mut torn = image(tail);
                    let at = at.min(torn.len());
                    torn[..at].copy_from_slice(&image(head)[..at]);
                    torn
                }
            };
            self.durable[start..end].copy_from_slice(&landed);
        }
    }
}

impl NameChange {
    pub(super) fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Create { name, inode } => {
                names.insert(name, inode);
            }
            // The change before it may have been lost.
            NameChange::Rename { from, to } => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            NameChange::Remove { name } => {
                names.remove(&name);
            }
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): enough for choosing what breaks.
#[derive(Clone, Debug, Default)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }
}
