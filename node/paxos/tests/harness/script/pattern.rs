//! Which messages a command speaks of: kinds, and `from=`, `to=`, `slot=`. What is not named is free.

use paxos::{Envelope, Message};

use super::number;

#[derive(Debug)]
pub struct Pattern {
    kinds: Vec<String>,
    from: Option<Vec<u32>>,
    to: Option<Vec<u32>>,
    slots: Option<Vec<u32>>,
}

impl Pattern {
    /// `words` without the command itself.
    pub fn parse(words: &[&str]) -> Pattern {
        let list = |prefix: &str| -> Option<Vec<u32>> {
            let text = words.iter().find_map(|word| word.strip_prefix(prefix))?;
            Some(text.split(',').map(|id| number(id, "") as u32).collect())
        };
        let is_kind = |word: &&&str| !word.contains('=') && **word != "twice";
        let kinds = words.iter().filter(is_kind).map(|kind| (*kind).to_owned()).collect();
        Pattern { kinds, from: list("from="), to: list("to="), slots: list("slot=") }
    }

    pub fn matches(&self, envelope: &Envelope) -> bool {
        let is_in =
            |list: &Option<Vec<u32>>, id: u32| list.as_ref().is_none_or(|list| list.contains(&id));
        let has_slot = match &envelope.message {
            Message::Accept { slot, .. } | Message::Accepted { slot, .. } => {
                is_in(&self.slots, slot.0 as u32)
            }
            _ => self.slots.is_none(),
        };
        let kind = envelope.message.kind();
        is_in(&self.from, envelope.from.0)
            && is_in(&self.to, envelope.to.0)
            && has_slot
            && (self.kinds.is_empty() || self.kinds.iter().any(|named| named == kind))
    }
}
