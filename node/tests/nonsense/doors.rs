//! The doors through which bytes come in that nobody here has written: each takes any bytes, and
//! ends with a value or an error, within a bound of memory. Shared with the fuzzer.

use std::sync::Arc;

use bytes::Bytes;
use journal::{Disk, FaultyDisk, Journal, Options};
use node::batch::Batch;
use node::resp::{Limits, RequestParser};
use node::snapshot::load_newest;
use node::wire::{self, FRAME_BYTES_MAX, FrameDecoder, HANDSHAKE_FRAME_BYTES_MAX};

use crate::memory::peak_of;

/// One of them.
pub struct Door {
    pub name: &'static str,
    /// Says whether anything of it was good.
    enter: fn(&[u8]) -> bool,
    /// Makes checksums right again where they were before somebody changed bytes: without, nothing
    /// behind them is ever reached.
    pub mend: fn(&mut Vec<u8>),
    /// At most so much memory, and so much more for each byte that came.
    bytes_max: usize,
    bytes_max_per_byte: usize,
}

pub const DOORS: &[Door] = &[
    Door { name: "resp", enter: resp, mend: |_| (), bytes_max: 8 << 10, bytes_max_per_byte: 48 },
    Door {
        name: "wire",
        enter: wire,
        mend: |bytes| mend_wire(bytes),
        bytes_max: 160 << 10,
        bytes_max_per_byte: 128,
    },
    Door {
        name: "record",
        enter: record,
        mend: |_| (),
        bytes_max: 4 << 10,
        bytes_max_per_byte: 64,
    },
    Door { name: "batch", enter: batch, mend: |_| (), bytes_max: 1 << 10, bytes_max_per_byte: 16 },
    Door {
        name: "journal",
        enter: journal,
        mend: mend_journal,
        bytes_max: 4 << 20,
        bytes_max_per_byte: 16,
    },
    Door {
        name: "snapshot",
        enter: snapshot,
        mend: mend_snapshot,
        bytes_max: 8 << 20,
        bytes_max_per_byte: 64,
    },
    Door {
        name: "node_toml",
        enter: node_toml,
        mend: |_| (),
        bytes_max: 1 << 20,
        bytes_max_per_byte: 1 << 10,
    },
    Door {
        name: "members_toml",
        enter: members_toml,
        mend: |_| (),
        bytes_max: 1 << 20,
        bytes_max_per_byte: 1 << 10,
    },
];

impl Door {
    pub fn named(name: &str) -> &'static Door {
        DOORS.iter().find(|door| door.name == name).expect("a door of this name")
    }

    /// One that believes a head, for a test of the bound itself.
    #[cfg(test)]
    pub fn greedy() -> Door {
        let enter = |bytes: &[u8]| {
            drop(std::hint::black_box(vec![0_u8; u32_at(bytes, 0)]));
            true
        };
        Door { name: "greedy", enter, mend: |_| (), bytes_max: 1 << 20, bytes_max_per_byte: 16 }
    }

    /// Lets `bytes` in. Says whether anything of them was good, and the memory that they took, which
    /// may not be beyond the bound.
    pub fn enter(&self, bytes: &[u8]) -> (bool, usize) {
        let mut good = false;
        let peak = peak_of(|| good = (self.enter)(bytes));
        let bound = self.bytes_max + self.bytes_max_per_byte * bytes.len();
        assert!(
            peak <= bound,
            "{}: {} bytes took {peak} bytes of memory, at most {bound} are allowed",
            self.name,
            bytes.len()
        );
        (good, peak)
    }
}

/// A client's stream, before and after it has shown who it is.
fn resp(bytes: &[u8]) -> bool {
    let mut good = false;
    for limits in [Limits::unauthenticated(), Limits::authenticated(1 << 20)] {
        let mut parser = RequestParser::new();
        let mut rest = bytes;
        while let Ok(Some(request)) = parser.parse(rest, &limits) {
            let length: usize = request.arguments.iter().map(|argument| argument.len()).sum();
            assert!(length <= request.consumed && request.consumed <= rest.len());
            assert!(request.consumed > 0, "a request of no bytes would be read for ever");
            rest = &rest[request.consumed..];
            good = true;
        }
    }
    good
}

/// A peer's stream, by a stranger and by a member.
fn wire(bytes: &[u8]) -> bool {
    let mut good = false;
    for limit in [HANDSHAKE_FRAME_BYTES_MAX, FRAME_BYTES_MAX] {
        let mut decoder = FrameDecoder::new(limit);
        // As a socket hands it over.
        for piece in bytes.chunks(16 << 10) {
            decoder.spare().extend_from_slice(piece);
            while let Ok(Some(frame)) = decoder.next_frame() {
                drop(frame);
                good = true;
            }
        }
    }
    good
}

fn record(bytes: &[u8]) -> bool {
    let copy = Bytes::copy_from_slice(bytes);
    let one = wire::decode_record(copy.clone()).is_ok();
    let many = wire::decode_records(copy.clone()).is_ok();
    one | many | wire::decode_configuration(copy).is_ok()
}

fn batch(bytes: &[u8]) -> bool {
    let Ok(mut batch) = Batch::read(bytes) else { return false };
    let mut argv = Vec::new();
    loop {
        match batch.next_command(&mut argv) {
            Ok(true) => {}
            Ok(false) => return true,
            Err(_) => return false,
        }
    }
}

/// What a directory of the journal, or of snapshots, holds: name length, name, length of the file in
/// two bytes, its bytes; and again. What is left over belongs to the last file.
pub fn files(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    while let Some((&[name, low, high], rest)) = bytes.split_first_chunk::<3>() {
        let name = usize::from(name).min(rest.len());
        let (name, rest) = rest.split_at(name);
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (content, rest) = rest.split_at(length);
        let name = name.iter().map(|byte| char::from(byte & 0x7f)).collect();
        files.push((name, content.to_vec()));
        bytes = rest;
    }
    files
}

pub fn joined(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        let length = u16::try_from(content.len()).expect("files of samples are small");
        bytes.push(u8::try_from(name.len()).expect("names are short"));
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(content);
    }
    bytes
}

fn disk_of(bytes: &[u8]) -> FaultyDisk {
    let disk = FaultyDisk::with_block_bytes(1, 64 << 10);
    for (name, content) in files(bytes) {
        // A name twice is one file.
        if let Ok(file) = disk.create(&name) {
            file.write_at(0, &content).expect("there is room");
        }
    }
    disk
}

pub const OPTIONS: Options = Options {
    segment_bytes: 16 << 10,
    reserve_bytes: 16 << 10,
    group_bytes_max: 64 << 10,
    keep_free_bytes: 0,
};

/// What opens is whole: it is sealed, read again, and says the same.
fn journal(bytes: &[u8]) -> bool {
    let disk: Arc<dyn Disk> = Arc::new(disk_of(bytes));
    let mut first = Vec::new();
    let read = journal::read(&*disk, &mut |entry| {
        first.push(format!("{entry:?}").len());
        Ok(())
    });
    let mut again = Vec::new();
    let opened = Journal::open(Arc::clone(&disk), OPTIONS, &mut |entry| {
        again.push(format!("{entry:?}").len());
        Ok(())
    });
    assert_eq!(first, again, "two readings differ");
    let Ok((journal, _)) = opened else { return false };
    drop(journal);
    assert!(read.is_ok(), "what was opened cannot be read: {read:?}");
    let mut third = Vec::new();
    journal::read(&*disk, &mut |entry| {
        third.push(format!("{entry:?}").len());
        Ok(())
    })
    .expect("a journal that was opened opens again");
    assert_eq!(first, third, "opening changed what is there");
    true
}

fn snapshot(bytes: &[u8]) -> bool {
    let Ok(found) = load_newest(&disk_of(bytes)) else { return false };
    let Some(loaded) = found.newest else { return false };
    let hash = loaded.store.recompute_state_hash();
    assert_eq!(hash, loaded.store.state_hash(), "what was loaded is not what its head says");
    true
}

fn node_toml(bytes: &[u8]) -> bool {
    let parsed = config::NodeConfig::parse(&String::from_utf8_lossy(bytes), "node.toml");
    says_where(parsed.as_ref().err().map(ToString::to_string), "node.toml")
}

fn members_toml(bytes: &[u8]) -> bool {
    let parsed = config::Members::parse(&String::from_utf8_lossy(bytes), "members.toml");
    says_where(parsed.as_ref().err().map(ToString::to_string), "members.toml")
}

fn says_where(problems: Option<String>, file: &str) -> bool {
    problems.is_none_or(|text| {
        assert!(text.contains(file), "a problem in no file: {text}");
        false
    })
}

// ---- mending ----------------------------------------------------------------------------------

fn crc(parts: &[&[u8]]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.finalize().to_le_bytes()
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().expect("four")) as usize)
}

/// Frame after frame: length, checksum, body.
fn mend_wire(bytes: &mut [u8]) {
    let mut at = 0;
    while at + 8 < bytes.len() {
        let end = (at + 8).saturating_add(u32_at(bytes, at)).min(bytes.len());
        let length = u32::try_from(end - at - 8).expect("small").to_le_bytes();
        bytes[at..at + 4].copy_from_slice(&length);
        let sum = crc(&[&length, &bytes[at + 8..end]]);
        bytes[at + 4..at + 8].copy_from_slice(&sum);
        at = end;
    }
}

fn each_file(bytes: &mut Vec<u8>, mend: fn(&mut [u8])) {
    let mut files = files(bytes);
    for (_, content) in &mut files {
        mend(content);
    }
    *bytes = joined(&files);
}

fn mend_journal(bytes: &mut Vec<u8>) {
    each_file(bytes, mend_segment);
}

/// The page, then group after group.
fn mend_segment(file: &mut [u8]) {
    const PAGE: usize = 4096;
    if file.len() < PAGE {
        return;
    }
    let length = (file.len() as u64).to_le_bytes();
    file[32..40].copy_from_slice(&length);
    let sum = crc(&[&file[..56]]);
    file[56..60].copy_from_slice(&sum);
    let (number, salt) = (file[16..24].to_vec(), file[24..32].to_vec());
    let mut at = PAGE;
    while at + 48 <= file.len() && file[at..].starts_with(b"GRP1") {
        let body = u32_at(file, at + 8).min(file.len() - at - 48);
        file[at + 8..at + 12].copy_from_slice(&u32::try_from(body).expect("small").to_le_bytes());
        file[at + 16..at + 24].copy_from_slice(&number);
        file[at + 24..at + 32].copy_from_slice(&(at as u64).to_le_bytes());
        let sum = crc(&[&file[at + 48..at + 48 + body]]);
        file[at + 40..at + 44].copy_from_slice(&sum);
        let sum = crc(&[&salt, &file[at..at + 44]]);
        file[at + 44..at + 48].copy_from_slice(&sum);
        at += 48 + body.next_multiple_of(8);
    }
}

fn mend_snapshot(bytes: &mut Vec<u8>) {
    each_file(bytes, mend_snapshot_file);
}

/// Frame after frame: kind, length, checksum over its number too.
fn mend_snapshot_file(file: &mut [u8]) {
    let (mut at, mut number) = (0, 0_u64);
    while at + 9 <= file.len() {
        let length = u32_at(file, at + 1).min(file.len() - at - 9);
        let words = u32::try_from(length).expect("small").to_le_bytes();
        file[at + 1..at + 5].copy_from_slice(&words);
        let sum = crc(&[&number.to_le_bytes(), &file[at..at + 5], &file[at + 9..at + 9 + length]]);
        file[at + 5..at + 9].copy_from_slice(&sum);
        at += 9 + length;
        number += 1;
    }
}
