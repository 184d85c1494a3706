//! What a disk has said once, it must still know.
//!
//! An acceptor that forgets is worse than one that is gone, and a data directory that was copied,
//! or an older copy that was put back, looks like the real one: same id, same incarnation, same key
//! (PITFALLS 9 and 10). So every node keeps in mind, for each disk that it has met, the last process
//! that ran on it and the furthest that its owner has ever stated as durable. A new process must
//! descend from the one and know at least the other, or it is refused.
//!
//! This memory lives as long as the process that holds it. It costs two comparisons a message.

use std::cell::Cell;

use paxos::{Ballot, Message, Slot};

use crate::identity::Process;
use crate::wire::{Hello, Refusal, RefusalCode};

#[derive(Debug, Default)]
pub struct DiskMemory {
    process: Cell<Option<Process>>,
    /// The highest ballot that it has said to have promised.
    promised: Cell<Ballot>,
    /// The highest slot that it has said to hold an entry of.
    last_slot: Cell<Slot>,
}

impl DiskMemory {
    /// Takes note of what a message states. Only answers that leave after their sync count, and only
    /// those that rest on the journal: what was learned may rest on a snapshot, which may rot. (What
    /// no answer shows, a leader's entries or a learner's, is told now and then: see
    /// [`DiskMemory::stated`].)
    pub fn heard(&self, message: &Message) {
        match message {
            Message::Promise { ballot, .. } => self.stated(*ballot, Slot::ZERO),
            Message::Accepted { ballot, slot, .. } => self.stated(*ballot, *slot),
            _ => {}
        }
    }

    /// What it will still know after any crash, by its own word.
    pub fn stated(&self, promised: Ballot, last_slot: Slot) {
        self.promised.set(self.promised.get().max(promised));
        self.last_slot.set(self.last_slot.get().max(last_slot));
    }

    /// Whether the process that says `hello` is the one that we know or a rightful successor.
    pub fn check(&self, hello: &Hello, at: &str) -> Result<(), Refusal> {
        let process = Process { starts: hello.starts, nonce: hello.process, former: hello.former };
        let Some(seen) = self.process.get() else { return Ok(()) };
        if process.nonce == seen.nonce {
            return Ok(());
        }
        let id = hello.id;
        if process.starts < seen.starts {
            let text = format!(
                "{id} at {at} counts {} starts on its disk, {} have been seen: this is an older \
                 copy of its data directory, which has forgotten promises",
                process.starts, seen.starts
            );
            return Err(Refusal::new(RefusalCode::OlderCopy, text));
        }
        let ancestor = process.ancestor(seen.starts);
        if ancestor.is_some_and(|ancestor| ancestor != seen.nonce) {
            let text = format!(
                "{id} at {at} is process {:016x}, but start {} of this disk was process {:016x}, \
                 which its data directory does not know: one of the two was copied",
                process.nonce, seen.starts, seen.nonce
            );
            return Err(Refusal::new(RefusalCode::SecondProcess, text));
        }
        let (promised, last_slot) = (self.promised.get(), self.last_slot.get());
        if hello.promised < promised || hello.last_slot < last_slot {
            let text = format!(
                "{id} at {at} remembers a promise of {} and entries up to slot {}, but has once \
                 stated {promised} and slot {last_slot}: this is an older copy of its data \
                 directory, which must not vote; replace it under a new id",
                hello.promised, hello.last_slot
            );
            return Err(Refusal::new(RefusalCode::OlderCopy, text));
        }
        Ok(())
    }

    /// The process that says `hello` has been let in.
    pub fn met(&self, hello: &Hello) {
        let process = Process { starts: hello.starts, nonce: hello.process, former: hello.former };
        self.process.set(Some(process));
    }
}
