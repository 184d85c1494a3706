//! Messages, records and notes in the words of the scripts: one line each, for people.

use paxos::{Accepted, Configuration, Deposed, Message, Note, PromisedEntry, Record, Value};

pub fn value(value: &Value) -> String {
    match value {
        Value::Noop => "no-op".to_owned(),
        Value::Batch { payload, .. } => String::from_utf8_lossy(payload).into_owned(),
        Value::Configuration { configuration, .. } => {
            let voters: Vec<String> = configuration.voters().map(|id| id.to_string()).collect();
            let rules = rules(configuration);
            format!("configuration {} {{{}}}{rules}", configuration.number, voters.join(" "))
        }
    }
}

/// What it states beyond its members.
fn rules(configuration: &Configuration) -> String {
    let terms = configuration.lease_terms.map_or(String::new(), |terms| {
        format!(" leases of {} ms, drift {} %", terms.lease_us / 1_000, terms.drift_percent)
    });
    match configuration.store_version {
        0 | 1 => terms,
        store_version => format!("{terms}, store version {store_version}"),
    }
}

fn values(list: &[Value]) -> String {
    list.iter().map(value).collect::<Vec<_>>().join(", ")
}

pub fn accepted(accepted: Accepted) -> String {
    match accepted {
        Accepted::Under(ballot) => ballot.to_string(),
        Accepted::Chosen => "chosen".to_owned(),
    }
}

fn entries(list: &[PromisedEntry]) -> String {
    let entry = |entry: &PromisedEntry| {
        let held = entry.value.as_ref().map_or("(you hold it)".to_owned(), value);
        format!("{}:{held}@{}", entry.slot, accepted(entry.accepted))
    };
    list.iter().map(entry).collect::<Vec<_>>().join(", ")
}

pub fn message(message: &Message) -> String {
    match message {
        Message::Prepare { ballot, from_slot, holds, release } => {
            let holds: Vec<String> =
                holds.iter().map(|(slot, ballot)| format!("{slot}@{ballot}")).collect();
            let holds = if holds.is_empty() {
                String::new()
            } else {
                format!(" holds {}", holds.join(", "))
            };
            let release = release.map_or(String::new(), |released| format!(" released {released}"));
            format!("Prepare {ballot} from {from_slot}{holds}{release}")
        }
        Message::Promise { ballot, from_slot, to_slot, entries: list, first_unchosen, .. } => {
            let to = to_slot.map_or(String::new(), |slot| format!(" to {slot}"));
            format!(
                "Promise {ballot} from {from_slot}{to} [{}] first_unchosen={first_unchosen}",
                entries(list)
            )
        }
        Message::Nack { ballot, promised } => format!("Nack {ballot} promised={promised}"),
        Message::Behind { ballot, first_kept, first_unchosen } => {
            format!("Behind {ballot} first_kept={first_kept} first_unchosen={first_unchosen}")
        }
        Message::Accept { ballot, slot, value: proposed, hint } => {
            format!("Accept {ballot} {slot}:{} hint={hint}", value(proposed))
        }
        Message::Accepted { ballot, slot, first_unchosen } => {
            format!("Accepted {ballot} {slot} first_unchosen={first_unchosen}")
        }
        Message::Heartbeat(heartbeat) => {
            let leading = heartbeat.leading.map_or(String::new(), |ballot| {
                format!(" leading={ballot} hint={}", heartbeat.hint)
            });
            let happy =
                heartbeat.happy_with.map_or(String::new(), |node| format!(" happy_with={node}"));
            let grey = if heartbeat.can_accept { "" } else { " cannot accept" };
            let quorum = if heartbeat.quorum_connected { "" } else { " no quorum" };
            format!(
                "Heartbeat {}/{} promised={}{leading}{happy} first_unchosen={}{grey}{quorum}",
                heartbeat.sequence, heartbeat.echo, heartbeat.promised, heartbeat.first_unchosen
            )
        }
        Message::Ping => "Ping".to_owned(),
        Message::Chosen { first, values: list } => {
            format!("Chosen from {first} [{}]", values(list))
        }
        Message::Learned { first_unchosen } => format!("Learned first_unchosen={first_unchosen}"),
        Message::CatchUp { first_unchosen } => format!("CatchUp first_unchosen={first_unchosen}"),
        Message::Confirm { ballot, round } => format!("Confirm {ballot} round={round}"),
        Message::Confirmed { ballot, round } => format!("Confirmed {ballot} round={round}"),
        Message::Grant { ballot, sequence, length_us } => {
            format!("Grant {ballot} heartbeat {sequence} for {} ms", length_us / 1_000)
        }
        Message::Release { ballot, first_unchosen } => {
            format!("Release {ballot} first_unchosen={first_unchosen}")
        }
        Message::ReadIndex { read } => format!("ReadIndex {read}"),
        Message::ReadFrom { read, slot: Some(slot) } => format!("ReadFrom {read} slot {slot}"),
        Message::ReadFrom { read, slot: None } => format!("ReadFrom {read} not here"),
    }
}

pub fn record(record: &Record) -> String {
    match record {
        Record::Promised(ballot) => format!("promised {ballot}"),
        Record::Accepted { slot, ballot, value: held } => {
            format!("accepted {slot}:{}@{ballot}", value(held))
        }
        Record::Chosen { slot, value: held } => format!("chosen {slot}:{}", value(held)),
        Record::ChosenRange { from, below } => format!("chosen from {from} below {below}"),
        Record::TrimmedBelow(slot) => format!("trimmed below {slot}"),
        Record::Configuration(configuration) => {
            format!("configuration {} rules above {}", configuration.number, configuration.slot)
        }
    }
}

pub fn note(note: &Note) -> String {
    match note {
        Note::Preparing { ballot } => format!("prepares {ballot}"),
        Note::Elected { ballot, adopted, noops, .. } => {
            format!("leads {ballot} (adopted {adopted}, no-ops {noops})")
        }
        Note::Deposed { ballot, led, reason } => {
            let did = if *led { "stops leading" } else { "stops preparing" };
            format!("{did} {ballot}: {}", reason_text(*reason))
        }
        Note::Following { leader: Some(leader), ballot } => {
            format!("follows {leader} under {ballot}")
        }
        Note::Following { leader: None, .. } => "follows nobody".to_owned(),
        Note::Refused { ballot, promised } => format!("refuses {ballot}, promised {promised}"),
        Note::AnsweredBehind { to } => format!("tells {to} that it is behind"),
        Note::ChosenByHint { count } => format!("marks {count} chosen by hint"),
        Note::Tallied { slot, .. } => format!("tallies {slot}"),
        Note::Queued { ballot } => format!("has granted a lease: {ballot} waits"),
        Note::Leased { ballot } => format!("holds the lease of {ballot}"),
        Note::Released { ballot, to } => format!("lets go of {ballot}, {to} is to lead"),
        Note::HandoverGivenUp { to } => format!("waits no longer for {to}"),
        Note::ConfigurationKnown { number, slot } => {
            format!("knows configuration {number}, which rules above {slot}")
        }
        Note::ConfigurationAdopted { number, slot } => {
            format!("adopts configuration {number} in slot {slot} and proposes nothing above")
        }
        Note::TallyVoided { ballot } => format!("counts no more answers to {ballot}"),
        Note::UnknownConfiguration { ballot } => {
            format!("does not know the configuration of {ballot}")
        }
        Note::Removed { number } => {
            format!("is removed by configuration {number}, and no longer needed")
        }
    }
}

fn reason_text(reason: Deposed) -> &'static str {
    match reason {
        Deposed::Nacked => "refused by a higher promise",
        Deposed::OwnPromise => "its own acceptor promised higher",
        Deposed::Outvoted => "a slot of its own went to another batch",
        Deposed::LostQuorum => "lost its quorum",
        Deposed::HigherId => "a higher id is there",
        Deposed::GaveUp => "gave up",
        Deposed::NewConfiguration => "a newer configuration is known",
        Deposed::HandedOver => "handed over",
    }
}
