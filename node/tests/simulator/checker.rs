//! What must hold, whatever happens. The checker sees more than any node does: every record as it
//! becomes durable, every state as it is applied, and the journals as they are read back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use journal::{Entry, FaultyDisk};
use node::identity::Process;
use node::peers::{DiskMemory, Remembered};
use node::wire::{self, Hello, Lane};
use paxos::{Ballot, Configuration, Message, NodeId, Position, Record, Slot, Value};

/// A value by its bytes.
type Digest = u128;

#[derive(Default)]
pub struct Checker {
    pub violation: Option<String>,
    /// By number: those that are chosen, the one given by `format` first.
    configurations: Vec<Configuration>,
    nodes: BTreeMap<NodeId, Durable>,
    /// The value of each slot under each ballot, and who durably accepted it.
    votes: BTreeMap<(Slot, Ballot), Vote>,
    /// Accepted by a quorum of whoever rules the slot: chosen for ever.
    chosen: BTreeMap<Slot, Digest>,
    /// Everything below was chosen.
    first_unchosen: Slot,
    /// The state behind each slot.
    states: BTreeMap<Slot, (u128, NodeId)>,
}

struct Vote {
    value: Digest,
    configuration: Option<Configuration>,
    voters: BTreeSet<NodeId>,
}

/// What one node has said to be durable.
#[derive(Default)]
struct Durable {
    /// Asked to be written by this life, not synced yet.
    written: Vec<(Position, Record)>,
    promised: Ballot,
    accepted: BTreeMap<Slot, Ballot>,
    applied_below: Slot,
    /// As a peer keeps it that has heard everything: by it a restarted node is let in or refused.
    memory: DiskMemory,
}

/// What a journal holds, read back.
#[derive(Default)]
struct Replayed {
    promised: Ballot,
    /// The highest ballot of each slot; `None` once it is known chosen.
    accepted: BTreeMap<Slot, Option<Ballot>>,
    trimmed_below: Slot,
}

impl Checker {
    pub fn new(configuration: Configuration) -> Checker {
        let configurations = vec![configuration];
        Checker { configurations, first_unchosen: Slot::FIRST, ..Checker::default() }
    }

    /// The newest that is chosen.
    pub fn configuration(&self) -> &Configuration {
        self.configurations.last().expect("number 0 is there from the start")
    }

    pub fn fail(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    pub fn first_unchosen(&self) -> Slot {
        self.first_unchosen
    }

    // ---- records ------------------------------------------------------------------------------

    pub fn written(&mut self, node: NodeId, records: &[Record], end: Position) {
        let begin = end.0 - records.len() as u64;
        let written = &mut self.nodes.entry(node).or_default().written;
        let positions = (begin + 1..).map(Position);
        written.extend(positions.zip(records.iter().cloned()));
    }

    /// The process says that everything up to `position` is durable.
    pub fn synced(&mut self, node: NodeId, position: Position) {
        let durable = self.nodes.entry(node).or_default();
        let later = durable
            .written
            .split_off(durable.written.partition_point(|(written, _)| *written <= position));
        for (_, record) in std::mem::replace(&mut durable.written, later) {
            self.durable(node, &record);
        }
    }

    fn durable(&mut self, node: NodeId, record: &Record) {
        let durable = self.nodes.entry(node).or_default();
        match record {
            Record::Promised(ballot) => durable.promised = durable.promised.max(*ballot),
            Record::Accepted { slot, ballot, .. } => {
                durable.promised = durable.promised.max(*ballot);
                durable.accepted.insert(*slot, *ballot);
                self.vote(node, *slot, *ballot, record);
            }
            Record::Chosen { slot, .. } => self.must_be_chosen(node, *slot, digest(record)),
            Record::Configuration(configuration) => {
                let known = self.configurations.get(configuration.number as usize);
                if known != Some(configuration) {
                    let number = configuration.number;
                    self.fail(format!("{node} knows a configuration {number} that is not chosen"));
                }
            }
            Record::ChosenRange { .. } => {}
            Record::TrimmedBelow(below) => {
                durable.accepted = durable.accepted.split_off(below);
            }
        }
    }

    fn vote(&mut self, node: NodeId, slot: Slot, ballot: Ballot, record: &Record) {
        let value = digest(record);
        let configuration = match record {
            Record::Accepted { value: Value::Configuration { configuration, .. }, .. } => {
                Some(configuration.clone())
            }
            _ => None,
        };
        let vote = self.votes.entry((slot, ballot)).or_insert_with(|| Vote {
            value,
            configuration,
            voters: BTreeSet::new(),
        });
        if vote.value != value {
            return self.fail(format!("{node} accepted a second value for {slot} under {ballot}"));
        }
        vote.voters.insert(node);
        self.choose();
        let is_other = self.chosen.get(&slot).is_some_and(|chosen| *chosen != value);
        if is_other && self.is_quorum(slot, ballot) {
            self.fail(format!("a second value is chosen for slot {slot}, under {ballot}"));
        }
    }

    /// A ballot counts only in slots that its configuration rules, and only its voters count.
    fn is_quorum(&self, slot: Slot, ballot: Ballot) -> bool {
        let rules = |configuration: &&Configuration| configuration.slot < slot;
        let ruling = self.configurations.iter().rev().find(rules).expect("number 0 rules first");
        let voters = &self.votes[&(slot, ballot)].voters;
        let count = voters.iter().filter(|node| ruling.is_voter(**node)).count();
        ballot.configuration == ruling.number && count >= ruling.quorum_size()
    }

    /// In order: who rules a slot is known only when all below is chosen.
    fn choose(&mut self) {
        loop {
            let slot = self.first_unchosen;
            let of_slot = (slot, Ballot::ZERO)..(slot.next(), Ballot::ZERO);
            let mut ballots = self.votes.range(of_slot).map(|((_, ballot), _)| *ballot);
            let Some(ballot) = ballots.find(|ballot| self.is_quorum(slot, *ballot)) else { return };
            let vote = &self.votes[&(slot, ballot)];
            self.chosen.insert(slot, vote.value);
            self.configurations.extend(vote.configuration.clone());
            self.first_unchosen = slot.next();
        }
    }

    fn must_be_chosen(&mut self, node: NodeId, slot: Slot, value: Digest) {
        match self.chosen.get(&slot) {
            Some(chosen) if *chosen == value => {}
            Some(_) => self.fail(format!("{node} takes another value for chosen in slot {slot}")),
            None => self.fail(format!("{node} takes slot {slot} for chosen, and no quorum has it")),
        }
    }

    // ---- states -------------------------------------------------------------------------------

    /// After every turn: what is applied is a prefix of what is chosen, and makes one state.
    pub fn applied(&mut self, node: NodeId, below: Slot, hash: u128) {
        if below > self.first_unchosen {
            let chosen = self.first_unchosen;
            return self.fail(format!("{node} applied below {below}, chosen is only {chosen}"));
        }
        let durable = self.nodes.entry(node).or_default();
        if below < durable.applied_below {
            let before = durable.applied_below;
            return self.fail(format!("{node} went back from slot {before} to {below}"));
        }
        durable.applied_below = below;
        let (first, who) = *self.states.entry(below).or_insert((hash, node));
        if first != hash {
            self.fail(format!("{node} and {who} differ below slot {below}: {hash:x}, {first:x}"));
        }
    }

    /// What a process tells its peers, and so has to remember ever after.
    pub fn said(&mut self, node: NodeId, messages: &[Message], claimed: Option<Remembered>) {
        let memory = &self.nodes.entry(node).or_default().memory;
        messages.iter().for_each(|message| memory.heard(message));
        if let Some(Remembered { promised, last_slot }) = claimed {
            memory.stated(promised, last_slot);
        }
    }

    // ---- restarts -----------------------------------------------------------------------------

    /// A process introduces itself with what it remembers. Its disk is the true one, whatever was
    /// cut from it or fell back to an older file: nobody may take it for an older copy.
    pub fn introduced(&mut self, node: NodeId, process: Process, remembered: Remembered) {
        let hello = Hello {
            version_oldest: wire::WIRE_VERSION_OLDEST,
            version_newest: wire::WIRE_VERSION,
            cluster: [0; 16],
            id: node,
            incarnation: 0,
            to: node,
            lane: Lane::Control,
            starts: process.starts,
            process: process.nonce,
            former: process.former,
            promised: remembered.promised,
            last_slot: remembered.last_slot,
            store_version_newest: None,
        };
        let memory = &self.nodes.entry(node).or_default().memory;
        match memory.check(&hello, "its address") {
            Ok(()) => memory.met(&hello),
            Err(refusal) => self.fail(format!("its peers refuse {node}: {refusal}")),
        }
    }

    /// The process is gone, and with it what it had not synced.
    pub fn ended(&mut self, node: NodeId) {
        let durable = self.nodes.entry(node).or_default();
        durable.written.clear();
        durable.applied_below = Slot::FIRST;
    }

    /// Before a restart: the journal still holds everything that was ever said to be durable.
    /// Answers what it holds.
    pub fn check_journal(&mut self, node: NodeId, disk: &FaultyDisk) -> Vec<Record> {
        let mut records = Vec::new();
        let read = journal::read(disk, &mut |entry| {
            match entry {
                Entry::Checkpoint(bytes) => {
                    records.extend(wire::decode_records(Bytes::copy_from_slice(bytes))?);
                }
                Entry::Record { bytes, .. } => {
                    records.push(wire::decode_record(Bytes::copy_from_slice(bytes))?);
                }
            }
            Ok(())
        });
        // What cannot be read is the recovery's business: it refuses to start.
        if read.is_err() {
            return records;
        }
        let mut replayed = Replayed::default();
        records.iter().for_each(|record| replayed.take(record));
        let durable = self.nodes.entry(node).or_default();
        if replayed.promised < durable.promised {
            let (promised, found) = (durable.promised, replayed.promised);
            self.fail(format!("{node} promised {promised}, its journal knows of {found}"));
            return records;
        }
        let lost =
            durable.accepted.range(replayed.trimmed_below..).find(|(slot, ballot)| match replayed
                .accepted
                .get(slot)
            {
                Some(Some(found)) => found < *ballot,
                Some(None) => false,
                None => true,
            });
        if let Some((slot, ballot)) = lost {
            let text = format!("{node} accepted slot {slot} under {ballot}, its journal lost it");
            self.fail(text);
        }
        records
    }

    /// Whether a disk lacks nothing of what was said to be durable.
    pub fn holds_all(&mut self, node: NodeId, disk: &FaultyDisk) -> bool {
        let before = self.violation.take();
        self.check_journal(node, disk);
        std::mem::replace(&mut self.violation, before).is_none()
    }

    /// The node has started. What its journal held is durable from now on, also what had not been
    /// reported before the end.
    pub fn replayed(&mut self, node: NodeId, records: Vec<Record>) {
        for record in records {
            self.durable(node, &record);
        }
    }
}

impl Replayed {
    fn take(&mut self, record: &Record) {
        match record {
            Record::Promised(ballot) => self.promised = self.promised.max(*ballot),
            Record::Accepted { slot, ballot, .. } => {
                self.promised = self.promised.max(*ballot);
                let known = self.accepted.entry(*slot).or_insert(Some(*ballot));
                *known = known.map(|known| known.max(*ballot));
            }
            Record::Chosen { slot, .. } => {
                self.accepted.insert(*slot, None);
            }
            Record::ChosenRange { .. } | Record::Configuration(_) => {}
            Record::TrimmedBelow(below) => self.trimmed_below = self.trimmed_below.max(*below),
        }
    }
}

/// The value's own bytes, as records carry them.
fn digest(record: &Record) -> Digest {
    let (Record::Accepted { slot, value, .. } | Record::Chosen { slot, value }) = record else {
        unreachable!("only these carry a value");
    };
    let mut bytes = BytesMut::new();
    wire::encode_record(&Record::Chosen { slot: *slot, value: value.clone() }, &mut bytes);
    xxhash_rust::xxh3::xxh3_128(&bytes)
}
