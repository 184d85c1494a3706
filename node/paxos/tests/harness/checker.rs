//! What must be true after every step, judged from outside.
//!
//! The checker never asks a replica what it believes. It keeps its own book: what each disk holds
//! (written, and durable), and from the durable votes alone which value *is* chosen, whether or not
//! anybody knows it yet. Everything that a replica says or does is held against that book, so a
//! broken rule shows at the step that breaks it and not only when two stores have parted.
//!
//! - One (slot, ballot) carries one value, ever. One slot has one chosen value, ever.
//! - No journal accepts below its own promise, and no promise goes back, restarts included.
//! - Nothing is said before it is durable: promises, Accepteds, Learneds; a Prepare or an Accept
//!   needs its ballot durable at home. A promise hides no durable entry.
//! - Chosen is said, hinted or applied only of what is chosen; applied is the chosen prefix, in
//!   order, once.
//! - A ballot is begun by one process only, and elects once. Nobody says a word as its leader once its
//!   own acceptor has promised a higher one.
//! - A batch is proposed in one slot; acknowledged means chosen; lost means never chosen.
//! - A ballot counts in no slot that another configuration rules; a configuration is proposed above
//!   nothing open and has nothing above it; nobody promises in one that its disk does not know; who
//!   is removed goes only once a quorum can do without it.
//! - A read misses nothing that was acknowledged, or read, before it began.

use std::collections::{BTreeMap, BTreeSet};

use paxos::{
    Accepted, Ballot, BatchId, Configuration, Heartbeat, Message, NodeId, Note, PromisedEntry,
    Record, Slot, Value,
};

use super::describe;

/// What one journal says, up to some record.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub promised: Ballot,
    pub entries: BTreeMap<Slot, (Accepted, Value)>,
    /// The newest configuration that it knows.
    pub configuration: u32,
}

#[derive(Clone, Debug)]
struct Facts {
    written: Book,
    durable: Book,
    /// Everything below is covered by a synced snapshot.
    snapshot_below: Slot,
    /// The configuration in it.
    snapshot_configuration: u32,
    /// Highest ballot in a Promise that has left.
    spoken: Ballot,
    /// What it had promised when its last call was over.
    promised_before: Ballot,
    applied_below: Slot,
    /// The durable book was found to hold all that is chosen below, and has not changed there since.
    learned_below: Slot,
}

#[derive(Debug)]
pub struct Checker {
    /// By number: those that are chosen, the one given by `format` first.
    configurations: Vec<Configuration>,
    /// In which slot each ballot has proposed a configuration.
    stops: BTreeMap<Ballot, Slot>,
    proposed: BTreeMap<(Slot, Ballot), Value>,
    slot_of: BTreeMap<BatchId, Slot>,
    /// Whose disk has held it; learners are in here too, but count for nothing.
    votes: BTreeMap<(Slot, Ballot), BTreeSet<NodeId>>,
    chosen: BTreeMap<Slot, Value>,
    /// Hash of the state after each slot, as the first to apply it found it.
    hashes: BTreeMap<Slot, u64>,
    facts: BTreeMap<NodeId, Facts>,
    /// Which process (by incarnation) began each ballot.
    begun: BTreeMap<Ballot, u64>,
    elected: BTreeSet<Ballot>,
    /// Per ballot: hints have been checked up to here.
    hinted: BTreeMap<Ballot, Slot>,
    acknowledged: BTreeMap<BatchId, Slot>,
    lost: BTreeSet<BatchId>,
    /// No read that begins now may miss this slot.
    read_floor: Slot,
    /// The newest store version that each node's program can do.
    store_versions: BTreeMap<NodeId, u32>,
    pub violation: Option<String>,
}

impl Checker {
    pub fn new(configuration: Configuration, everybody: impl Iterator<Item = NodeId>) -> Checker {
        let fresh = Facts {
            written: Book::default(),
            durable: Book::default(),
            snapshot_below: Slot::FIRST,
            snapshot_configuration: 0,
            spoken: Ballot::ZERO,
            promised_before: Ballot::ZERO,
            applied_below: Slot::FIRST,
            learned_below: Slot::FIRST,
        };
        Checker {
            configurations: vec![configuration],
            stops: BTreeMap::new(),
            proposed: BTreeMap::new(),
            slot_of: BTreeMap::new(),
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            hashes: BTreeMap::new(),
            facts: everybody.map(|node| (node, fresh.clone())).collect(),
            begun: BTreeMap::new(),
            elected: BTreeSet::new(),
            hinted: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            lost: BTreeSet::new(),
            read_floor: Slot::ZERO,
            store_versions: BTreeMap::new(),
            violation: None,
        }
    }

    pub fn fail(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    /// The value that a quorum of disks holds for `slot` under one ballot, if there is one.
    pub fn chosen(&self, slot: Slot) -> Option<&Value> {
        self.chosen.get(&slot)
    }

    pub fn chosen_count(&self) -> usize {
        self.chosen.len()
    }

    pub fn last_chosen(&self) -> Slot {
        self.chosen.last_key_value().map_or(Slot::ZERO, |(slot, _)| *slot)
    }

    pub fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }

    pub fn lost_count(&self) -> usize {
        self.lost.len()
    }

    /// Ballots of which a Prepare or an Accept has left.
    pub fn begun_count(&self) -> usize {
        self.begun.len()
    }

    pub fn durable(&self, node: NodeId) -> &Book {
        &self.facts[&node].durable
    }

    pub fn book(&self, node: NodeId) -> &Book {
        &self.facts[&node].written
    }

    fn facts(&mut self, node: NodeId) -> &mut Facts {
        self.facts.get_mut(&node).expect("the checker knows every node from the start")
    }

    /// `node` has handed these records to its journal as one group.
    pub fn written(&mut self, node: NodeId, records: &[Record]) {
        for record in records {
            match record {
                Record::Promised(ballot) => self.written_promise(node, *ballot),
                Record::Accepted { slot, ballot, value } => {
                    self.written_accept(node, *slot, *ballot, value);
                }
                Record::Chosen { slot, value } => self.told_chosen(node, *slot, value),
                Record::ChosenRange { from, below } => self.written_range(node, *from, *below),
                Record::Configuration(configuration) => {
                    let known = self.configurations.get(configuration.number as usize);
                    if known != Some(configuration) {
                        let number = configuration.number;
                        self.fail(format!(
                            "{node} knows a configuration {number} that is not chosen"
                        ));
                    }
                }
                Record::TrimmedBelow(below) => {
                    let snapshot_below = self.facts(node).snapshot_below;
                    if *below > snapshot_below {
                        self.fail(format!(
                            "{node} trims below {below}, its snapshot covers only the slots below {snapshot_below}"
                        ));
                    }
                }
            }
            self.facts(node).written.apply(record);
        }
    }

    fn written_promise(&mut self, node: NodeId, ballot: Ballot) {
        let promised = self.facts(node).written.promised;
        if ballot < promised {
            self.fail(format!("{node} writes promise {ballot}, it had promised {promised}"));
        }
    }

    fn written_accept(&mut self, node: NodeId, slot: Slot, ballot: Ballot, value: &Value) {
        let book = &self.facts(node).written;
        let promised = book.promised;
        let held = book.entries.get(&slot).cloned();
        if ballot < promised {
            self.fail(format!(
                "{node} accepts slot {slot} under {ballot}, it had promised {promised}"
            ));
        }
        if let Some((Accepted::Chosen, former)) = held
            && former != *value
        {
            self.fail(format!("{node} accepts another value over the chosen one in slot {slot}"));
        }
        self.carries(slot, ballot, value);
    }

    /// One (slot, ballot) carries one value; one batch is proposed in one slot.
    fn carries(&mut self, slot: Slot, ballot: Ballot, value: &Value) {
        if let Some(former) = self.proposed.get(&(slot, ballot)) {
            if former != value {
                let (former, value) = (describe::value(former), describe::value(value));
                self.fail(format!(
                    "slot {slot} under {ballot} carries two values: {former} and {value}"
                ));
            }
            return;
        }
        self.proposed.insert((slot, ballot), value.clone());
        self.check_stop(slot, ballot, value);
        if let Some(id) = value.batch_id() {
            let first = *self.slot_of.entry(id).or_insert(slot);
            if first != slot {
                let value = describe::value(value);
                self.fail(format!("batch {value} is proposed in slot {first} and in slot {slot}"));
            }
        }
        if self.hinted.get(&ballot).is_some_and(|hinted| slot < *hinted) {
            self.check_hinted(ballot, slot);
        }
    }

    fn told_chosen(&mut self, node: NodeId, slot: Slot, value: &Value) {
        let text = match self.chosen.get(&slot) {
            Some(chosen) if chosen == value => return,
            Some(chosen) => format!("while {} is chosen", describe::value(chosen)),
            None => "while nothing is chosen there".to_owned(),
        };
        let value = describe::value(value);
        self.fail(format!("{node} holds {value} for chosen in slot {slot}, {text}"));
    }

    fn written_range(&mut self, node: NodeId, from: Slot, below: Slot) {
        let book = &self.facts[&node].written;
        let wrong = from.until(below).find(|slot| {
            let held = book.entries.get(slot).map(|(_, value)| value);
            held.is_none() || held != self.chosen.get(slot)
        });
        if let Some(slot) = wrong {
            self.fail(format!(
                "{node} writes that all from {from} below {below} is chosen, its journal does not hold the chosen value of slot {slot}"
            ));
        }
    }

    /// These records of `node` are synced now.
    pub fn synced(&mut self, node: NodeId, records: &[Record]) {
        for record in records {
            let facts = self.facts(node);
            facts.durable.apply(record);
            if let Some(slot) = record.slot() {
                facts.learned_below = facts.learned_below.min(slot);
            }
            if let Record::Accepted { slot, ballot, value } = record {
                self.vote(node, *slot, *ballot, value);
            }
        }
    }

    fn vote(&mut self, node: NodeId, slot: Slot, ballot: Ballot, value: &Value) {
        self.votes.entry((slot, ballot)).or_default().insert(node);
        self.choose();
        if let Some(chosen) = self.chosen.get(&slot)
            && chosen != value
            && self.is_quorum(slot, ballot)
        {
            let (chosen, value) = (describe::value(chosen), describe::value(value));
            self.fail(format!("slot {slot}: {chosen} was chosen, now {value} is, under {ballot}"));
        }
        if !self.chosen.contains_key(&slot) || !self.is_quorum(slot, ballot) {
            return;
        }
        if value.batch_id().is_some_and(|id| self.lost.contains(&id)) {
            let value = describe::value(value);
            self.fail(format!("batch {value} was reported lost and is chosen now, in slot {slot}"));
        }
    }

    /// The configuration that rules `slot`, given that all below is chosen.
    fn ruling(&self, slot: Slot) -> &Configuration {
        let rules = |configuration: &&Configuration| configuration.slot < slot;
        self.configurations.iter().rev().find(rules).expect("number 0 rules from the start")
    }

    /// A ballot counts only in slots that its configuration rules, and only its voters count.
    fn is_quorum(&self, slot: Slot, ballot: Ballot) -> bool {
        let ruling = self.ruling(slot);
        let votes = self.votes.get(&(slot, ballot));
        let count = votes.map_or(0, |votes| votes.iter().filter(|n| ruling.is_voter(**n)).count());
        ballot.configuration == ruling.number && count >= ruling.quorum_size()
    }

    /// Chosen in order: which configuration rules a slot is known only when all below is chosen.
    fn choose(&mut self) {
        loop {
            let slot = self.last_chosen().next();
            let mut votes = self.votes.range((slot, Ballot::ZERO)..(slot.next(), Ballot::ZERO));
            let found = votes.find(|((_, ballot), _)| self.is_quorum(slot, *ballot));
            let Some((&(_, ballot), _)) = found else { return };
            let value = self.proposed[&(slot, ballot)].clone();
            if let Value::Configuration { configuration, .. } = &value {
                if configuration.number as usize != self.configurations.len()
                    || configuration.slot != slot
                {
                    let number = configuration.number;
                    self.fail(format!("slot {slot}: configuration {number} has the wrong base"));
                }
                self.check_store_version(configuration);
                self.configurations.push(configuration.clone());
            }
            self.chosen.insert(slot, value);
        }
    }

    /// The program of `node` can do store versions up to this one.
    pub fn can_do(&mut self, node: NodeId, newest: u32) {
        self.store_versions.insert(node, newest);
    }

    /// The store's version is raised only, and every member can do it.
    fn check_store_version(&mut self, configuration: &Configuration) {
        let (number, next) = (configuration.number, configuration.store_version);
        let former = self.configuration().store_version;
        if next < former {
            self.fail(format!(
                "configuration {number} lowers the store version from {former} to {next}"
            ));
        }
        let cannot = |id: &&NodeId| self.store_versions.get(id).is_none_or(|can| *can < next);
        if let Some(node) = configuration.members.keys().find(cannot) {
            let text = format!("configuration {number}: {node} cannot do store version {next}");
            self.fail(text);
        }
    }

    /// An acceptor grants by the L of the configuration whose ballot it grants.
    fn check_length(&mut self, from: NodeId, ballot: Ballot, length_us: u64) {
        let configuration = self.configurations.get(ballot.configuration as usize);
        let terms = configuration.and_then(|configuration| configuration.lease_terms);
        if let Some(terms) = terms
            && terms.lease_us != length_us
        {
            self.fail(format!(
                "{from} grants {ballot} for {length_us} µs, its configuration says {}",
                terms.lease_us
            ));
        }
    }

    /// The stop sign: a configuration is proposed above nothing that is open, and nothing above it.
    fn check_stop(&mut self, slot: Slot, ballot: Ballot, value: &Value) {
        let stop = self.stops.get(&ballot).copied();
        if let Some(stop) = stop.filter(|stop| slot > *stop) {
            self.fail(format!(
                "{ballot} proposes in slot {slot}, above its new configuration in slot {stop}"
            ));
        }
        if matches!(value, Value::Configuration { .. }) {
            self.stops.insert(ballot, slot);
            let last = self.last_chosen();
            if slot > last.next() {
                self.fail(format!(
                    "{ballot} proposes a configuration in slot {slot}, chosen is all up to {last}"
                ));
            }
        }
    }

    /// The newest configuration that is chosen.
    pub fn configuration(&self) -> &Configuration {
        self.configurations.last().expect("number 0 is there from the start")
    }

    /// `node` says that configuration `number` can do without it.
    pub fn removed(&mut self, node: NodeId, number: u32) {
        let Some(configuration) = self.configurations.get(number as usize) else {
            return self
                .fail(format!("{node} goes by configuration {number}, which is not chosen"));
        };
        let knows = |voter: &NodeId| self.facts[voter].configuration() >= number;
        let known = configuration.voters().filter(knows).count();
        if configuration.contains(node) || known < configuration.quorum_size() {
            self.fail(format!(
                "{node} goes, only {known} voters of configuration {number} know that it may"
            ));
        }
    }

    /// The power went: what was only written is forgotten.
    pub fn restarted(&mut self, node: NodeId, applied_below: Slot) {
        let facts = self.facts(node);
        facts.written = facts.durable.clone();
        facts.promised_before = facts.durable.promised;
        facts.applied_below = applied_below;
    }

    /// A snapshot of `node` that covers all below is synced.
    pub fn snapshot_synced(&mut self, node: NodeId, below: Slot, configuration: u32) {
        let facts = self.facts(node);
        facts.snapshot_configuration = facts.snapshot_configuration.max(configuration);
        facts.snapshot_below = facts.snapshot_below.max(below);
    }

    /// The newest snapshot of `node` is unreadable: the one that covers all below `below` is left.
    pub fn snapshot_spoiled(&mut self, node: NodeId, below: Slot, configuration: u32) {
        let facts = self.facts(node);
        facts.snapshot_below = below;
        facts.snapshot_configuration = configuration;
    }

    /// A snapshot was loaded into the running store.
    pub fn installed(&mut self, node: NodeId, below: Slot) {
        self.facts(node).applied_below = below;
    }

    /// A message leaves `from`, whose process has this incarnation.
    pub fn sent(&mut self, from: NodeId, incarnation: u64, message: &Message) {
        match message {
            Message::Prepare { ballot, .. } => {
                self.own_ballot(from, *ballot, "Prepare");
                self.begun(*ballot, incarnation);
            }
            Message::Promise { ballot, from_slot, to_slot, entries, .. } => {
                self.check_promise(from, *ballot, *from_slot, *to_slot, entries);
            }
            Message::Accept { ballot, slot, value, hint } => {
                self.own_ballot(from, *ballot, "Accept");
                self.check_reign(from, *ballot, "Accept");
                self.begun(*ballot, incarnation);
                self.carries(*slot, *ballot, value);
                self.hint(*ballot, *hint);
            }
            Message::Accepted { ballot, slot, .. } => self.check_accepted(from, *ballot, *slot),
            Message::Confirm { ballot, .. } => self.check_reign(from, *ballot, "Confirm"),
            Message::Heartbeat(Heartbeat { leading: Some(ballot), hint, .. }) => {
                self.check_reign(from, *ballot, "a heartbeat");
                self.hint(*ballot, *hint);
            }
            Message::Chosen { first, values } => {
                for (slot, value) in (first.0..).map(Slot).zip(values) {
                    self.told_chosen(from, slot, value);
                }
            }
            Message::Learned { first_unchosen } => self.check_learned(from, *first_unchosen),
            Message::Grant { ballot, length_us, .. } => {
                self.check_length(from, *ballot, *length_us);
                let durable = self.facts(from).durable.promised;
                if durable < *ballot {
                    self.fail(format!("{from} grants {ballot}, its disk promises only {durable}"));
                }
            }
            Message::Confirmed { ballot, .. } => {
                let promised = self.facts(from).durable.promised;
                if promised < *ballot {
                    self.fail(format!(
                        "{from} confirms {ballot}, its disk promises only {promised}"
                    ));
                }
            }
            _ => {}
        }
    }

    fn own_ballot(&mut self, from: NodeId, ballot: Ballot, kind: &str) {
        let durable = self.facts(from).durable.promised;
        if ballot.node != from {
            self.fail(format!("{from} sends {kind} of {ballot}, the ballot of another node"));
        }
        if durable < ballot {
            self.fail(format!("{from} sends {kind} of {ballot}, its disk promises only {durable}"));
        }
    }

    /// A leader whose own acceptor has promised more is none any more, and its timers are stopped.
    fn check_reign(&mut self, from: NodeId, ballot: Ballot, kind: &str) {
        let promised = self.facts(from).promised_before;
        if ballot < promised {
            self.fail(format!(
                "{from} sends {kind} of {ballot}, it had promised {promised} before"
            ));
        }
    }

    /// Everything that a call of `node` has asked for is written and sent.
    pub fn call_is_over(&mut self, node: NodeId) {
        let facts = self.facts(node);
        facts.promised_before = facts.written.promised;
    }

    fn begun(&mut self, ballot: Ballot, incarnation: u64) {
        let first = *self.begun.entry(ballot).or_insert(incarnation);
        if first != incarnation {
            self.fail(format!("ballot {ballot} is used again after a restart"));
        }
    }

    fn check_promise(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        from_slot: Slot,
        to_slot: Option<Slot>,
        entries: &[PromisedEntry],
    ) {
        let facts = self.facts(from);
        let durable = facts.durable.promised;
        if durable < ballot {
            self.fail(format!("{from} promises {ballot}, its disk promises only {durable}"));
            return;
        }
        if ballot < facts.spoken {
            let spoken = facts.spoken;
            self.fail(format!("{from} promises {ballot} after {spoken}"));
            return;
        }
        facts.spoken = ballot;
        let known = facts.configuration();
        if ballot.configuration > known {
            self.fail(format!("{from} promises {ballot}, its disk knows configuration {known}"));
            return;
        }
        let facts = self.facts(from);
        let to_slot = to_slot.unwrap_or(Slot(u64::MAX));
        let mut listed = entries.iter().map(|entry| (entry.slot, entry.accepted));
        let listed: BTreeMap<Slot, Accepted> = listed.by_ref().collect();
        let hidden =
            facts.durable.entries.range(from_slot..to_slot).find(|(slot, (accepted, _))| {
                // What was accepted under this ballot or a later one came after the promise.
                matches!(accepted, Accepted::Under(under) if *under < ballot)
                    && listed.get(slot).is_none_or(|said| said < accepted)
            });
        let hidden = hidden.map(|(slot, _)| *slot);
        if let Some(slot) = hidden {
            self.fail(format!(
                "{from} promises {ballot} and hides what it accepted in slot {slot}"
            ));
        }
    }

    fn check_accepted(&mut self, from: NodeId, ballot: Ballot, slot: Slot) {
        let facts = &self.facts[&from];
        let durable = facts.durable.promised;
        if durable < ballot {
            self.fail(format!(
                "{from} says Accepted of {ballot}, its disk promises only {durable}"
            ));
            return;
        }
        // It may have been overwritten under a higher ballot since, in the same sync.
        if self.votes.get(&(slot, ballot)).is_some_and(|votes| votes.contains(&from)) {
            return;
        }
        // Or it was accepted under another ballot and is known chosen; below the trimming, the
        // snapshot holds it.
        let held = facts.durable.entries.get(&slot).map(|(_, value)| value);
        let chosen = self.chosen.get(&slot);
        let holds_chosen = chosen.is_some() && (held == chosen || slot < facts.snapshot_below);
        if !holds_chosen || self.proposed.get(&(slot, ballot)) != chosen {
            self.fail(format!(
                "{from} says Accepted of slot {slot} under {ballot}, its disk does not hold it"
            ));
        }
    }

    fn check_learned(&mut self, from: NodeId, first_unchosen: Slot) {
        let facts = &self.facts[&from];
        let unchecked = facts.snapshot_below.max(facts.learned_below);
        let missing = unchecked.until(first_unchosen).find(|slot| {
            let held = facts.durable.entries.get(slot).map(|(_, value)| value);
            held.is_none() || held != self.chosen.get(slot)
        });
        if let Some(slot) = missing {
            self.fail(format!(
                "{from} says that it knows all below {first_unchosen}, its disk does not hold slot {slot}"
            ));
        }
        let facts = self.facts(from);
        facts.learned_below = facts.learned_below.max(first_unchosen);
    }

    fn hint(&mut self, ballot: Ballot, hint: Slot) {
        let checked = self.hinted.get(&ballot).copied().unwrap_or(Slot::FIRST);
        for slot in checked.until(hint) {
            self.check_hinted(ballot, slot);
        }
        self.hinted.insert(ballot, checked.max(hint));
    }

    /// A hint says: what you accepted under my ballot in this slot is chosen.
    fn check_hinted(&mut self, ballot: Ballot, slot: Slot) {
        let Some(proposed) = self.proposed.get(&(slot, ballot)) else { return };
        if self.chosen.get(&slot) != Some(proposed) {
            let proposed = describe::value(proposed);
            self.fail(format!(
                "{ballot} hints that its {proposed} is chosen in slot {slot}: it is not"
            ));
        }
    }

    /// `node`'s store applies an entry and then has this hash.
    pub fn applied(&mut self, node: NodeId, slot: Slot, value: &Value, hash: u64) {
        let expected = self.facts(node).applied_below;
        if slot != expected {
            self.fail(format!("{node} applies slot {slot}, the next in order is {expected}"));
        }
        self.facts(node).applied_below = slot.next();
        self.told_chosen(node, slot, value);
        let first = *self.hashes.entry(slot).or_insert(hash);
        if first != hash {
            self.fail(format!("{node}'s store differs from the others' after slot {slot}"));
        }
    }

    /// A client got its reply.
    pub fn acknowledged(&mut self, id: BatchId, slot: Slot) {
        if self.acknowledged.insert(id, slot).is_some() {
            self.fail(format!("slot {slot}: a batch is acknowledged twice"));
        }
        self.read_floor = self.read_floor.max(slot);
    }

    /// A client was told: surely not done.
    pub fn lost(&mut self, id: BatchId) {
        self.lost.insert(id);
        let slot = self.slot_of.get(&id).copied();
        if slot.is_none() {
            return; // A change that was never proposed.
        }
        let chosen = slot.and_then(|slot| self.chosen.get(&slot));
        if chosen.is_none_or(|chosen| chosen.batch_id() == Some(id)) {
            self.fail(format!("a batch proposed in slot {slot:?} is called lost before it is"));
        }
    }

    /// A read begins; it must not miss this slot.
    pub fn read_begins(&self) -> Slot {
        self.read_floor
    }

    /// A read that began at `floor` may be served once `slot` is applied; it sees all up to
    /// `seen`.
    pub fn read_served(&mut self, node: NodeId, floor: Slot, slot: Slot, seen: Slot) {
        if slot < floor {
            self.fail(format!(
                "{node} serves a read at slot {slot}, slot {floor} was acknowledged before it"
            ));
        }
        self.read_floor = self.read_floor.max(seen);
    }

    /// `node` holds a lease now, and its store has applied all below `applied_below`.
    pub fn holds_lease(&mut self, node: NodeId, applied_below: Slot) {
        if applied_below <= self.read_floor {
            let floor = self.read_floor;
            self.fail(format!(
                "{node} holds a lease and has not applied slot {floor}, which was acknowledged"
            ));
        }
    }

    pub fn noted(&mut self, node: NodeId, note: &Note) {
        if let Note::Elected { ballot, .. } = note
            && !self.elected.insert(*ballot)
        {
            self.fail(format!("{node} is elected twice under {ballot}"));
        }
    }
}

impl Facts {
    /// The newest configuration that its disk knows.
    fn configuration(&self) -> u32 {
        self.durable.configuration.max(self.snapshot_configuration)
    }
}

impl Book {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Promised(ballot) => self.promised = self.promised.max(*ballot),
            Record::Accepted { slot, ballot, value } => {
                self.promised = self.promised.max(*ballot);
                self.entries.insert(*slot, (Accepted::Under(*ballot), value.clone()));
            }
            Record::Chosen { slot, value } => {
                self.entries.insert(*slot, (Accepted::Chosen, value.clone()));
            }
            // What was accepted below stays in this book: a promise must not come from a trimmed log.
            Record::ChosenRange { .. } | Record::TrimmedBelow(_) => {}
            Record::Configuration(configuration) => {
                self.configuration = self.configuration.max(configuration.number);
            }
        }
    }
}
