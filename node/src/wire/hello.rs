//! How two nodes introduce themselves, before anything else and both ways: the node that dials
//! sends a `Hello`, the other answers with a `Welcome` of the same fields, or refuses.

use std::fmt;

use paxos::{Ballot, NodeId, Slot};

use super::bytes::{Input, Out};
use super::value::{ballot, put_ballot, slot};
use super::{WIRE_VERSION, WIRE_VERSION_OLDEST, WireError};

/// A connection carries one kind of traffic, so that what is small never waits behind what is long
/// (PITFALLS 43 and 46).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Heartbeats, votes and everything else that is small.
    Control,
    /// Large values, chosen entries for those behind, long promises, snapshots.
    Bulk,
}

impl Lane {
    pub const ALL: [Lane; 2] = [Lane::Control, Lane::Bulk];

    pub fn index(self) -> usize {
        match self {
            Lane::Control => 0,
            Lane::Bulk => 1,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Control => "control",
            Lane::Bulk => "bulk",
        })
    }
}

/// Who speaks, for which cluster, and to whom it believes to speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub version_oldest: u8,
    pub version_newest: u8,
    pub cluster: [u8; 16],
    pub id: NodeId,
    pub incarnation: u64,
    /// The node that the sender means to have reached: addresses move, ids do not (PITFALLS 76).
    pub to: NodeId,
    pub lane: Lane,
    /// How often a process has started on the sender's data directory, counted on its disk: an
    /// older copy of the directory counts less (PITFALLS 10).
    pub starts: u64,
    /// Random number of the sender's process: two processes with one directory differ (PITFALLS 9).
    pub process: u64,
    /// The processes before it on this directory, the last one first; 0 where there was none.
    pub former: [u64; 8],
    /// What the sender remembered when it started: its promise, and the highest slot that it holds
    /// an entry of.
    pub promised: Ballot,
    pub last_slot: Slot,
    /// The newest store version that the sender's program can do; `None` from a release that does
    /// not say.
    pub store_version_newest: Option<u32>,
}

impl Hello {
    /// The version that both sides speak, if there is one.
    pub fn agree(&self) -> Option<u8> {
        let version = self.version_newest.min(WIRE_VERSION);
        (version >= self.version_oldest.max(WIRE_VERSION_OLDEST)).then_some(version)
    }

    pub(super) fn put(&self, out: &mut impl Out) {
        out.u8(self.version_oldest);
        out.u8(self.version_newest);
        out.bytes(&self.cluster);
        out.u32(self.id.0);
        out.u64(self.incarnation);
        out.u32(self.to.0);
        out.u8(match self.lane {
            Lane::Control => 0,
            Lane::Bulk => 1,
        });
        out.u64(self.starts);
        out.u64(self.process);
        for former in self.former {
            out.u64(former);
        }
        put_ballot(out, self.promised);
        out.u64(self.last_slot.0);
        if let Some(newest) = self.store_version_newest {
            out.u32(newest);
        }
    }

    pub(super) fn take(input: &mut Input) -> Result<Hello, WireError> {
        let mut hello = Hello {
            version_oldest: input.u8("oldest version")?,
            version_newest: input.u8("newest version")?,
            cluster: input.array16("cluster uuid")?,
            id: NodeId(input.u32("node id")?),
            incarnation: input.u64("incarnation")?,
            to: NodeId(input.u32("node addressed")?),
            lane: match input.u8("lane")? {
                0 => Lane::Control,
                1 => Lane::Bulk,
                value => return Err(WireError::UnknownKind { what: "lane", value }),
            },
            starts: input.u64("number of starts")?,
            process: input.u64("process")?,
            former: [0; 8],
            promised: Ballot::ZERO,
            last_slot: Slot::ZERO,
            store_version_newest: None,
        };
        for former in &mut hello.former {
            *former = input.u64("former process")?;
        }
        hello.promised = ballot(input)?;
        hello.last_slot = slot(input, "last slot")?;
        if input.remaining() > 0 {
            hello.store_version_newest = Some(input.u32("newest store version")?);
        }
        // Fields of later releases.
        input.rest();
        Ok(hello)
    }
}

/// Why a connection is not wanted, for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCode {
    ForeignCluster,
    NotAMember,
    WrongIncarnation,
    WrongKey,
    Misdirected,
    NoCommonVersion,
    /// Another process with this identity is connected.
    SecondProcess,
    /// A process with this identity that started later has been seen.
    OlderCopy,
    /// Not a frame of this protocol.
    Malformed,
    /// A reason that a newer release knows.
    Other(u8),
}

impl RefusalCode {
    const KNOWN: [(u8, RefusalCode); 9] = [
        (1, RefusalCode::ForeignCluster),
        (2, RefusalCode::NotAMember),
        (3, RefusalCode::WrongIncarnation),
        (4, RefusalCode::WrongKey),
        (5, RefusalCode::Misdirected),
        (6, RefusalCode::NoCommonVersion),
        (7, RefusalCode::SecondProcess),
        (8, RefusalCode::OlderCopy),
        (9, RefusalCode::Malformed),
    ];

    fn number(self) -> u8 {
        if let RefusalCode::Other(number) = self {
            return number;
        }
        let known = RefusalCode::KNOWN.iter().find(|(_, code)| *code == self);
        known.expect("every code but Other is listed").0
    }

    fn from_number(number: u8) -> RefusalCode {
        let known = RefusalCode::KNOWN.iter().find(|(known, _)| *known == number);
        known.map_or(RefusalCode::Other(number), |(_, code)| *code)
    }
}

/// Why a connection is not wanted, for a program and for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: RefusalCode,
    pub text: String,
}

/// A refusal must fit into one handshake frame.
const TEXT_LEN_MAX: usize = 600;

impl Refusal {
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Refusal {
        let mut text = text.into();
        while text.len() > TEXT_LEN_MAX {
            text.pop();
        }
        Refusal { code, text }
    }

    pub(super) fn put(&self, out: &mut impl Out) {
        out.u8(self.code.number());
        out.short(self.text.as_bytes());
    }

    pub(super) fn take(input: &mut Input) -> Result<Refusal, WireError> {
        let code = RefusalCode::from_number(input.u8("refusal code")?);
        let text = input.text("refusal text")?;
        input.rest();
        // It comes from outside and ends up in traces and on terminals.
        let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        Ok(Refusal::new(code, text))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
