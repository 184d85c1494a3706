//! Bytes of [`paxos::Record`], as the journal keeps them: version, group, kind, fields. The
//! journal adds length and checksum.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use paxos::{Record, Slot};

use super::bytes::{Input, Out};
use super::value::{
    CONFIGURATION_VERSION, WITHOUT_TERMS, ballot, configuration, put_ballot, put_configuration,
    put_value, slot, states_terms, value,
};
use super::{GROUP, WireError, check_group};

/// Newest version of the records that this release writes: 2 can state lease terms. What version 1 can
/// say is written as version 1, so that an upgrade can be taken back until such terms are stated.
pub const RECORD_VERSION: u8 = 2;
/// Oldest version that it reads: the one before, so that an upgrade finds its own journal.
pub const RECORD_VERSION_OLDEST: u8 = 1;

const _: () = assert!(RECORD_VERSION < RECORD_VERSION_OLDEST + 2);

const PROMISED: u8 = 1;
const ACCEPTED: u8 = 2;
const CHOSEN: u8 = 3;
const CHOSEN_RANGE: u8 = 4;
const TRIMMED_BELOW: u8 = 5;
/// One that states no lease terms.
const CONFIGURATION: u8 = 6;
const CONFIGURATION_WITH_TERMS: u8 = 7;

pub fn encode_record(record: &Record, out: &mut impl Out) {
    let with_terms = match record {
        Record::Accepted { value, .. } | Record::Chosen { value, .. } => states_terms(value),
        Record::Configuration(configuration) => configuration.lease_terms.is_some(),
        Record::Promised(_) | Record::ChosenRange { .. } | Record::TrimmedBelow(_) => false,
    };
    out.u8(if with_terms { RECORD_VERSION } else { RECORD_VERSION_OLDEST });
    out.u32(GROUP);
    match record {
        Record::Promised(ballot) => {
            out.u8(PROMISED);
            put_ballot(out, *ballot);
        }
        Record::Accepted { slot, ballot, value } => {
            out.u8(ACCEPTED);
            out.u64(slot.0);
            put_ballot(out, *ballot);
            put_value(out, value);
        }
        Record::Chosen { slot, value } => {
            out.u8(CHOSEN);
            out.u64(slot.0);
            put_value(out, value);
        }
        Record::ChosenRange { from, below } => {
            out.u8(CHOSEN_RANGE);
            out.u64(from.0);
            out.u64(below.0);
        }
        Record::TrimmedBelow(Slot(below)) => {
            out.u8(TRIMMED_BELOW);
            out.u64(*below);
        }
        Record::Configuration(configuration) => {
            out.u8(if with_terms { CONFIGURATION_WITH_TERMS } else { CONFIGURATION });
            put_configuration(out, configuration);
        }
    }
}

pub fn decode_record(bytes: Bytes) -> Result<Record, WireError> {
    let mut input = Input::new(bytes);
    let found = input.u8("record version")?;
    if found > RECORD_VERSION {
        return Err(WireError::NewerVersion { what: "record", found, newest: RECORD_VERSION });
    }
    if found < RECORD_VERSION_OLDEST {
        return Err(WireError::OlderVersion {
            what: "record",
            found,
            oldest: RECORD_VERSION_OLDEST,
        });
    }
    check_group(&mut input)?;
    let record = match input.u8("record kind")? {
        PROMISED => Record::Promised(ballot(&mut input)?),
        ACCEPTED => Record::Accepted {
            slot: slot(&mut input, "slot accepted")?,
            ballot: ballot(&mut input)?,
            value: value(&mut input)?,
        },
        CHOSEN => {
            Record::Chosen { slot: slot(&mut input, "slot chosen")?, value: value(&mut input)? }
        }
        CHOSEN_RANGE => Record::ChosenRange {
            from: slot(&mut input, "slot chosen from")?,
            below: slot(&mut input, "slot chosen below")?,
        },
        TRIMMED_BELOW => Record::TrimmedBelow(slot(&mut input, "slot trimmed below")?),
        CONFIGURATION => Record::Configuration(configuration(&mut input, WITHOUT_TERMS)?),
        CONFIGURATION_WITH_TERMS => {
            Record::Configuration(configuration(&mut input, CONFIGURATION_VERSION)?)
        }
        value => return Err(WireError::UnknownKind { what: "record", value }),
    };
    input.end()?;
    Ok(record)
}

/// Several records in one piece: what a journal segment opens with.
pub fn encode_records(records: &[Record]) -> Bytes {
    let mut out = BytesMut::new();
    for record in records {
        let mut bytes = BytesMut::new();
        encode_record(record, &mut bytes);
        out.put_u32_le(u32::try_from(bytes.len()).expect("a record is smaller than 4 GiB"));
        out.put_slice(&bytes);
    }
    out.freeze()
}

pub fn decode_records(mut bytes: Bytes) -> Result<Vec<Record>, WireError> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let what = "record of a checkpoint";
        let length = bytes
            .try_get_u32_le()
            .map_err(|_| WireError::Truncated { what, missing: 4 - bytes.len().min(4) })?
            as usize;
        if length > bytes.len() {
            return Err(WireError::Truncated { what, missing: length - bytes.len() });
        }
        records.push(decode_record(bytes.split_to(length))?);
    }
    Ok(records)
}
