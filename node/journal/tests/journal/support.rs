//! What the tests share: small journals whose every group says which one it is.

use std::sync::Arc;

use journal::{Disk, Entry, Error, FaultyDisk, Group, Journal, Options, Recovery};

pub(crate) const SMALL: Options = Options {
    segment_bytes: 16 * 1024,
    reserve_bytes: 16 * 1024,
    group_bytes_max: 64 * 1024,
    keep_free_bytes: 0,
};

pub(crate) fn shared(disk: &FaultyDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// A group that can be known again: `id` is also its label, and every record tells id, its own
/// index and how many there are.
pub(crate) fn append(
    journal: &mut Journal,
    id: u64,
    records: u64,
    bytes: usize,
) -> Result<(), Error> {
    append_by(Journal::append, journal, id, records, bytes)
}

pub(crate) fn append_by(
    how: fn(&mut Journal, Group<'_>) -> Result<(), Error>,
    journal: &mut Journal,
    id: u64,
    records: u64,
    bytes: usize,
) -> Result<(), Error> {
    let bodies: Vec<Vec<u8>> = (0..records).map(|index| body(id, index, records, bytes)).collect();
    let records: Vec<(u64, &[u8])> = bodies.iter().map(|body| (id, body.as_slice())).collect();
    how(journal, Group { records: &records, checkpoint: &checkpoint(id) })
}

/// A checkpoint that says which groups came before it.
pub(crate) fn checkpoint(next_id: u64) -> Vec<u8> {
    let mut bytes = next_id.to_le_bytes().to_vec();
    bytes.resize(8 + (next_id % 40) as usize, 0xcc);
    bytes
}

fn body(id: u64, index: u64, count: u64, bytes: usize) -> Vec<u8> {
    let mut body: Vec<u8> = [id, index, count].iter().flat_map(|n| n.to_le_bytes()).collect();
    body.extend((0..bytes).map(|at| (id as usize + at) as u8));
    body
}

/// What a replay showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// The ids of the groups, in order; each was whole.
    pub(crate) ids: Vec<u64>,
    /// The ids that were next when the checkpoints were written.
    pub(crate) checkpoints: Vec<u64>,
    left: u64,
}

impl Replayed {
    pub(crate) fn see(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Checkpoint(bytes) => {
                let next = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                assert_eq!(bytes, checkpoint(next), "a checkpoint came back changed");
                if let Some(last) = self.ids.last() {
                    assert!(next > *last, "checkpoint {next} behind group {last}");
                }
                self.checkpoints.push(next);
            }
            Entry::Record { label, bytes } => {
                let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
                let (id, index, count) = (number(0), number(8), number(16));
                assert_eq!(label, id);
                assert_eq!(bytes, body(id, index, count, bytes.len() - 24), "a record changed");
                if self.left == 0 {
                    assert_eq!(index, 0, "group {id} starts in its middle");
                    self.ids.push(id);
                    self.left = count;
                }
                assert_eq!(self.ids.last(), Some(&id), "group {id} within another");
                assert_eq!(index, count - self.left, "records of group {id} out of order");
                self.left -= 1;
            }
        }
    }

    /// All groups whole, one after the other, the first right behind the first checkpoint.
    pub(crate) fn check(&self) {
        assert_eq!(self.left, 0, "the last group came back in part");
        let first = self.checkpoints[0];
        let wanted: Vec<u64> = (first..first + self.ids.len() as u64).collect();
        assert_eq!(self.ids, wanted, "groups are missing, doubled or out of order");
    }

    /// One behind the last group.
    pub(crate) fn next_id(&self) -> u64 {
        self.checkpoints[0] + self.ids.len() as u64
    }
}

pub(crate) fn open(disk: &FaultyDisk) -> Result<(Journal, Replayed, Recovery), Error> {
    open_with(disk, SMALL)
}

pub(crate) fn open_with(
    disk: &FaultyDisk,
    options: Options,
) -> Result<(Journal, Replayed, Recovery), Error> {
    let mut replayed = Replayed::default();
    let (journal, recovery) = Journal::open(shared(disk), options, &mut |entry| {
        replayed.see(entry);
        Ok(())
    })?;
    replayed.check();
    Ok((journal, replayed, recovery))
}

/// The error of an opening that must not succeed.
pub(crate) fn refusal(disk: &FaultyDisk, why: &str) -> Error {
    match open(disk) {
        Err(error) => error,
        Ok((_, replayed, _)) => panic!("{why}: opened, with groups {:?}", replayed.ids),
    }
}

pub(crate) fn create(disk: &FaultyDisk) -> Journal {
    Journal::create(shared(disk), SMALL, &checkpoint(1)).unwrap()
}

/// Names and contents of everything on the disk.
pub(crate) fn everything(disk: &FaultyDisk) -> Vec<(String, Vec<u8>)> {
    let mut names = disk.list().unwrap();
    names.sort();
    names.into_iter().map(|name| (name.clone(), disk.contents(&name))).collect()
}
