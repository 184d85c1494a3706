//! Who this node is, on its disk.
//!
//! `format` runs once per node, by the deployer: it draws a random incarnation and an Ed25519 key
//! and writes them beside the cluster's uuid and the node's id. Everything else follows from one
//! rule: *a disk is formatted once*. A node without identity refuses to start, a wiped disk gets
//! another incarnation, which no peer knows, and so an acceptor that forgot its promises never
//! votes again (DESIGN §3, formatted disks only; PITFALLS 8, 27 and 75).
//!
//! Two more faults look like a good identity: a data directory that was copied, and an old copy put
//! back (PITFALLS 9 and 10). Against both, each start of a process counts up a number on the disk
//! and draws a random one; peers remember the highest they have seen, see `peers.rs`.
//!
//! ```text
//! <data_dir>/identity   one line of JSON, one line with its sha-256; 0600, never written again
//! <data_dir>/starts     two slots, overwritten in turn, so that it needs no space: the count, the
//!                       random numbers of the last processes, a checksum, the version of the slot
//! ```

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use config::NodeConfig;
use paxos::NodeId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::tls::{KeyError, NodeKey};

const SCHEMA: u32 = 1;
const IDENTITY: &str = "identity";
const PARTIAL: &str = "identity.partial";
const STARTS: &str = "starts";
/// An identity is some 400 bytes; a larger file is something else.
const IDENTITY_LEN_MAX: u64 = 4096;

/// What may lie in a data directory that has never been used: traces, and the deployer's files.
const HARMLESS_NAMES: [&str; 3] = ["trace", "lost+found", crate::admin::SOCKET];
const HARMLESS_ENDINGS: [&str; 4] = [".toml", ".log", ".pid", ".out"];

/// One node's identity, private key included.
pub struct Identity {
    pub cluster: ClusterUuid,
    pub id: NodeId,
    /// Drawn by `format`: a disk that was formatted again is another node.
    pub incarnation: u64,
    pub key: NodeKey,
}

/// What others may know: printed by `paxos-node identity`, collected by the deployer into
/// `members.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Public {
    pub id: u32,
    pub cluster_uuid: String,
    /// Sixteen hex digits.
    pub incarnation: String,
    /// Hex of the 32 raw bytes.
    pub public_key: String,
    /// The newest store version that the program that prints this can do.
    #[serde(default)]
    pub store_version_newest: u32,
}

/// One start of a process on a formatted directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// How many processes have started here, this one included; durable before it is told.
    pub starts: u64,
    /// Random: two processes on copies of one directory may have the same count, but not this.
    pub nonce: u64,
    /// The nonces of the processes before it, the last one first; 0 where there was none.
    pub former: [u64; FORMER_COUNT],
}

/// How many earlier processes a directory remembers.
pub const FORMER_COUNT: usize = 8;

impl Process {
    /// The process of start number `starts`, if it is one of the last few before this one.
    pub fn ancestor(&self, starts: u64) -> Option<u64> {
        let back = self.starts.checked_sub(starts)?;
        match usize::try_from(back).ok()? {
            0 => Some(self.nonce),
            back => self.former.get(back - 1).copied(),
        }
    }
}

/// Sixteen bytes, written as 32 hex digits, with or without dashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterUuid(pub [u8; 16]);

impl ClusterUuid {
    pub fn parse(text: &str) -> Option<ClusterUuid> {
        let digits = text.chars().filter(|c| *c != '-').collect::<String>();
        Some(ClusterUuid(parse_hex(&digits)?.try_into().ok()?))
    }
}

impl fmt::Display for ClusterUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.public())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{path} has no identity: it was never formatted, or its disk was lost or not mounted. A \
         new node is formatted by `paxosctl up` (or `paxos-node format`); a node that lost its \
         disk comes back only under a new id, by `paxosctl member replace`"
    )]
    Unformatted { path: PathBuf },
    #[error(
        "{path} already holds {entry}: a data directory is formatted once. If this node lost its \
         data, replace it under a new id; if it never ran, remove {path} by hand and format again"
    )]
    AlreadyFormatted { path: PathBuf, entry: String },
    #[error(
        "{path} holds `{PARTIAL}`: a former format was interrupted. No node has run on it: remove \
         that file by hand and format again"
    )]
    PartlyFormatted { path: PathBuf },
    #[error(
        "{path} is damaged: {what}. Nothing was changed. Restore this very file, or replace the \
         node under a new id"
    )]
    Corrupt { path: PathBuf, what: String },
    #[error(
        "{path} was written by a newer release ({what} {found}, this one reads up to {newest}). \
         Nothing was changed: start that release, or a newer one"
    )]
    Newer { path: PathBuf, what: &'static str, found: u32, newest: u32 },
    #[error("{path} is of cluster {found}, the configuration says {wanted}: another node's data?")]
    ForeignCluster { path: PathBuf, found: ClusterUuid, wanted: ClusterUuid },
    #[error("{path} is of node {found}, the configuration says {wanted}: another node's data?")]
    ForeignId { path: PathBuf, found: NodeId, wanted: NodeId },
    #[error("{path} may be read by others (mode {mode:04o}): `chmod 600 {path}`")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("cluster_uuid = \"{found}\" in the configuration: 32 hex digits are needed")]
    BadClusterUuid { found: String },
    #[error("make a key")]
    Key(#[from] KeyError),
}

/// Writes a new identity into the data directory of `config`, which must be fresh. Durable when it
/// returns.
pub fn format(config: &NodeConfig) -> Result<Public, IdentityError> {
    let dir = &config.data_dir;
    let cluster = cluster_of(config)?;
    make_data_dir(dir)?;
    refuse_used(dir)?;
    let identity = Identity {
        cluster,
        id: NodeId(config.id),
        incarnation: u64::from_le_bytes(NodeKey::random()?),
        key: NodeKey::generate()?,
    };
    let starts = encode_starts(&Process { starts: 0, nonce: 0, former: [0; FORMER_COUNT] });
    write_new(&dir.join(STARTS), &[&starts[..], &[0; SLOT_LEN as usize][..]].concat())?;
    let partial = dir.join(PARTIAL);
    write_new(&partial, identity.to_file().as_bytes())?;
    let path = dir.join(IDENTITY);
    fs::rename(&partial, &path).map_err(io_error("name the identity", &path))?;
    sync_dir(dir)?;
    if let Some(parent) = dir.parent() {
        // The directory itself may be new; an unsynced entry is lost with the power (PITFALLS 5).
        sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
    }
    Ok(identity.public())
}

/// Reads and checks the identity of `config`'s data directory.
pub fn load(config: &NodeConfig) -> Result<Identity, IdentityError> {
    let wanted = cluster_of(config)?;
    let path = config.data_dir.join(IDENTITY);
    let identity = read(&config.data_dir)?;
    check_place(&path, (identity.cluster, identity.id), (wanted, NodeId(config.id)))?;
    Ok(identity)
}

/// Whether the identity that lies at `path` is the one that the configuration speaks of.
pub fn check_place(
    path: &Path,
    found: (ClusterUuid, NodeId),
    wanted: (ClusterUuid, NodeId),
) -> Result<(), IdentityError> {
    let path = path.to_owned();
    if found.0 != wanted.0 {
        return Err(IdentityError::ForeignCluster { path, found: found.0, wanted: wanted.0 });
    }
    if found.1 != wanted.1 {
        return Err(IdentityError::ForeignId { path, found: found.1, wanted: wanted.1 });
    }
    Ok(())
}

/// Counts a start that needs nothing recovered before it.
pub fn begin_process(data_dir: &Path) -> Result<Process, IdentityError> {
    let process = next_process(data_dir)?;
    count_process(data_dir, &process)?;
    Ok(process)
}

/// The process that starts now, not counted on the disk yet. Call it under the journal's lock, once
/// per process.
pub fn next_process(data_dir: &Path) -> Result<Process, IdentityError> {
    let path = data_dir.join(STARTS);
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let mut slots = [0; 2 * SLOT_LEN as usize];
    file.read_exact_at(&mut slots, 0).map_err(io_error("read", &path))?;
    let (first, second) = slots.split_at(SLOT_LEN as usize);
    let slots = [decode_starts(first), decode_starts(second)];
    // A newer release has started here, if only once: what the other slot says is no longer so.
    for slot in &slots {
        if let StartsSlot::Newer(found) = slot {
            let (what, found, newest) = ("slot version", u32::from(*found), STARTS_VERSION.into());
            return Err(IdentityError::Newer { path, what, found, newest });
        }
    }
    let good = slots.into_iter().filter_map(|slot| match slot {
        StartsSlot::Good(process) => Some(process),
        StartsSlot::Newer(_) | StartsSlot::Bad => None,
    });
    let Some(last) = good.max_by_key(|process| process.starts) else {
        let what = "neither of its two slots has a good checksum".to_owned();
        return Err(IdentityError::Corrupt { path, what });
    };
    let mut former = [0; FORMER_COUNT];
    former[0] = last.nonce;
    former[1..].copy_from_slice(&last.former[..FORMER_COUNT - 1]);
    let nonce = u64::from_le_bytes(NodeKey::random()?);
    Ok(Process { starts: last.starts + 1, nonce, former })
}

/// Counts this start on the disk: before the first peer is dialled, but not before the node has
/// recovered. A first start that fails on the way has promised nothing to anybody, and the next one
/// is still the first.
pub fn count_process(data_dir: &Path, process: &Process) -> Result<(), IdentityError> {
    let path = data_dir.join(STARTS);
    let file = OpenOptions::new().write(true).open(&path);
    let file = file.map_err(io_error("open", &path))?;
    // The slot with the newest count stays as it is: a torn write costs the other one only.
    let offset = (process.starts % 2) * SLOT_LEN;
    file.write_all_at(&encode_starts(process), offset).map_err(io_error("write", &path))?;
    file.sync_data().map_err(io_error("sync", &path))
}

impl Identity {
    pub fn public(&self) -> Public {
        Public {
            id: self.id.0,
            cluster_uuid: self.cluster.to_string(),
            incarnation: format!("{:016x}", self.incarnation),
            public_key: hex(&self.key.public()),
            store_version_newest: crate::store::STORE_VERSION_NEWEST,
        }
    }

    fn to_file(&self) -> String {
        let public = self.public();
        let stored = Stored {
            schema: SCHEMA,
            cluster_uuid: public.cluster_uuid,
            id: public.id,
            incarnation: public.incarnation,
            public_key: public.public_key,
            private_key: hex(self.key.pkcs8()),
        };
        let line = serde_json::to_string(&stored).expect("plain fields become JSON");
        format!("{line}\n{}\n", hex(&Sha256::digest(line.as_bytes())))
    }
}

/// The first line of the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    schema: u32,
    cluster_uuid: String,
    id: u32,
    incarnation: String,
    public_key: String,
    private_key: String,
}

fn read(data_dir: &Path) -> Result<Identity, IdentityError> {
    let path = data_dir.join(IDENTITY);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let path = data_dir.to_owned();
            return Err(if path.join(PARTIAL).exists() {
                IdentityError::PartlyFormatted { path }
            } else {
                IdentityError::Unformatted { path }
            });
        }
        Err(source) => return Err(IdentityError::Io { doing: "open", path, source }),
    };
    let metadata = file.metadata().map_err(io_error("read the mode of", &path))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(IdentityError::Exposed { path, mode: metadata.mode() & 0o7777 });
    }
    let mut text = String::new();
    let limited = file.take(IDENTITY_LEN_MAX).read_to_string(&mut text);
    match limited {
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(IdentityError::Corrupt { path, what: "not text".to_owned() });
        }
        limited => limited.map_err(io_error("read", &path))?,
    };
    decode(&text).map_err(|problem| match problem {
        Problem::Newer(found) => {
            IdentityError::Newer { path, what: "schema", found, newest: SCHEMA }
        }
        Problem::Damaged(what) => IdentityError::Corrupt { path, what },
    })
}

enum Problem {
    Newer(u32),
    Damaged(String),
}

fn decode(text: &str) -> Result<Identity, Problem> {
    let damaged = |what: &str| Problem::Damaged(what.to_owned());
    let (line, rest) = text.split_once('\n').ok_or_else(|| damaged("its first line has no end"))?;
    if rest != format!("{}\n", hex(&Sha256::digest(line.as_bytes()))) {
        return Err(damaged("its checksum does not match"));
    }
    // Other fields may have come since, so the schema is read by itself first.
    let value = serde_json::from_str::<serde_json::Value>(line);
    let value = value.map_err(|error| damaged(&format!("not JSON: {error}")))?;
    let schema = value.get("schema").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if schema > u64::from(SCHEMA) {
        return Err(Problem::Newer(u32::try_from(schema).unwrap_or(u32::MAX)));
    }
    let stored = serde_json::from_value::<Stored>(value);
    let stored = stored.map_err(|error| damaged(&error.to_string()))?;
    let cluster = ClusterUuid::parse(&stored.cluster_uuid);
    let key = parse_hex(&stored.private_key).and_then(|der| NodeKey::from_pkcs8(der).ok());
    let identity = Identity {
        cluster: cluster.ok_or_else(|| damaged("its cluster uuid is no uuid"))?,
        id: NodeId(stored.id),
        incarnation: u64::from_str_radix(&stored.incarnation, 16)
            .map_err(|_| damaged("its incarnation is no number"))?,
        key: key.ok_or_else(|| damaged("its private key is no Ed25519 key"))?,
    };
    if hex(&identity.key.public()) != stored.public_key {
        return Err(damaged("its private and public keys do not belong together"));
    }
    Ok(identity)
}

fn cluster_of(config: &NodeConfig) -> Result<ClusterUuid, IdentityError> {
    ClusterUuid::parse(&config.cluster_uuid)
        .ok_or_else(|| IdentityError::BadClusterUuid { found: config.cluster_uuid.clone() })
}

fn make_data_dir(dir: &Path) -> Result<(), IdentityError> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made.map_err(io_error("create", dir))?,
    }
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(dir, private).map_err(io_error("make private (0700)", dir))
}

/// Anything that is not known to be harmless may be somebody's data.
fn refuse_used(dir: &Path) -> Result<(), IdentityError> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let name = entry.map_err(io_error("list", dir))?.file_name().to_string_lossy().into_owned();
        let harmless = HARMLESS_NAMES.contains(&name.as_str())
            || HARMLESS_ENDINGS.iter().any(|ending| name.ends_with(ending));
        if name == PARTIAL {
            return Err(IdentityError::PartlyFormatted { path: dir.to_owned() });
        }
        if !harmless {
            let entry = format!("`{name}`");
            return Err(IdentityError::AlreadyFormatted { path: dir.to_owned(), entry });
        }
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(io_error("create", path))?;
    file.write_all(bytes).map_err(io_error("write", path))?;
    file.sync_all().map_err(io_error("sync", path))
}

fn sync_dir(dir: &Path) -> Result<(), IdentityError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(io_error("sync", dir))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io { doing, path, source }
}

/// Slots lie in different sectors, so that one torn write cannot hit both.
const SLOT_LEN: u64 = 4096;
const STARTS_WORDS: usize = 2 + FORMER_COUNT;
/// Of the words and their checksum.
const STARTS_LEN: usize = 8 * STARTS_WORDS + 4;
/// Version of a slot. It stands behind the checksum, twice, the second time with each bit turned,
/// and it will stand there in every version. The first release wrote two zeros.
const STARTS_VERSION: u8 = 2;
const STARTS_VERSION_AT: usize = STARTS_LEN;

fn encode_starts(process: &Process) -> [u8; SLOT_LEN as usize] {
    let mut slot = [0; SLOT_LEN as usize];
    let words = [process.starts, process.nonce].into_iter().chain(process.former);
    for (word, bytes) in words.zip(slot.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let (words, rest) = slot.split_at_mut(8 * STARTS_WORDS);
    rest[..4].copy_from_slice(&crc32fast::hash(words).to_le_bytes());
    rest[4..6].copy_from_slice(&[STARTS_VERSION, !STARTS_VERSION]);
    slot
}

/// What a slot of the starts holds.
enum StartsSlot {
    Good(Process),
    /// Of this version.
    Newer(u8),
    /// Never written, or torn.
    Bad,
}

fn decode_starts(slot: &[u8]) -> StartsSlot {
    match slot.get(STARTS_VERSION_AT..STARTS_VERSION_AT + 2) {
        Some([0, 0]) => {}
        Some(&[version, turned]) if version == !turned && version > STARTS_VERSION => {
            return StartsSlot::Newer(version);
        }
        Some(&[version, turned]) if version == !turned => {}
        _ => return StartsSlot::Bad,
    }
    decode_process(slot).map_or(StartsSlot::Bad, StartsSlot::Good)
}

/// Both versions have it the same way.
fn decode_process(slot: &[u8]) -> Option<Process> {
    let (words, crc) = slot.get(..STARTS_LEN)?.split_at(8 * STARTS_WORDS);
    // The checksum of zeros is not zero, so an empty slot is no count.
    (u32::from_le_bytes(crc.try_into().ok()?) == crc32fast::hash(words)).then_some(())?;
    let mut words = words
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes each")));
    Some(Process {
        starts: words.next()?,
        nonce: words.next()?,
        former: std::array::from_fn(|_| words.next().expect("as many words as fields")),
    })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn parse_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    pairs.map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

#[cfg(test)]
mod tests;
