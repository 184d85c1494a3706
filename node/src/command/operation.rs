//! Data commands, understood: what is left of the arguments once syntax and types are checked.
//! The families (`strings`, `keys`, `expiry`) build these at the door, to refuse nonsense before
//! it costs a place in the log, and again at apply, where the store carries them out.

use crate::store::LongDouble;

/// A command whose arguments have been read.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation<'a> {
    Write(Write<'a>),
    Read(Read<'a>),
    /// Of the classes Connection and Server: to be answered at the door.
    Answer,
}

/// When a value is to expire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expiry {
    /// No deadline, whatever there was.
    Never,
    /// As it was (`KEEPTTL`).
    Keep,
    Set(Deadline),
}

/// A deadline as the client gave it. Relative ones count from the time of the log entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deadline {
    pub value: i64,
    pub seconds: bool,
    pub absolute: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition<'a> {
    Always,
    IfAbsent,
    IfPresent,
    /// There is a value, and it is this one.
    IfEqual(&'a [u8]),
    /// There is none, or another one.
    IfDifferent(&'a [u8]),
}

impl Condition<'_> {
    /// `value` is what is there now.
    pub fn holds(self, value: Option<&[u8]>) -> bool {
        match self {
            Condition::Always => true,
            Condition::IfAbsent => value.is_none(),
            Condition::IfPresent => value.is_some(),
            Condition::IfEqual(wanted) => value == Some(wanted),
            Condition::IfDifferent(unwanted) => value != Some(unwanted),
        }
    }
}

/// Under which circumstances `EXPIRE` changes a deadline; all that are set must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExpireCondition {
    pub if_none: bool,
    pub if_some: bool,
    pub if_later: bool,
    pub if_sooner: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Write<'a> {
    /// `command` is the name used in error texts.
    Set {
        command: &'static str,
        key: &'a [u8],
        value: &'a [u8],
        condition: Condition<'a>,
        expiry: Expiry,
        get: bool,
    },
    SetIfAbsent {
        key: &'a [u8],
        value: &'a [u8],
    },
    GetSet {
        key: &'a [u8],
        value: &'a [u8],
    },
    GetDel {
        key: &'a [u8],
    },
    /// The deadline is still text: Redis judges it only if the key exists.
    GetEx {
        key: &'a [u8],
        expiry: GetExExpiry<'a>,
    },
    /// `pairs` alternate keys and values.
    MultiSet {
        pairs: &'a [&'a [u8]],
        only_if_none_exists: bool,
    },
    Append {
        key: &'a [u8],
        value: &'a [u8],
    },
    SetRange {
        key: &'a [u8],
        offset: usize,
        value: &'a [u8],
    },
    Increment {
        key: &'a [u8],
        by: i64,
    },
    IncrementFloat {
        key: &'a [u8],
        by: &'a [u8],
    },
    Delete {
        keys: &'a [&'a [u8]],
    },
    /// Deletes a key that is there if the condition holds.
    DeleteIf {
        key: &'a [u8],
        condition: Condition<'a>,
    },
    Rename {
        from: &'a [u8],
        to: &'a [u8],
        only_if_absent: bool,
    },
    Copy {
        from: &'a [u8],
        to: &'a [u8],
        replace: bool,
    },
    Expire {
        command: &'static str,
        key: &'a [u8],
        deadline: Deadline,
        condition: ExpireCondition,
    },
    Persist {
        key: &'a [u8],
    },
    Flush,
    /// `ONCE OPEN`
    OpenSession,
    /// Carries `command` out if `number` is the session's next.
    Once {
        session: u64,
        number: u64,
        command: &'a [&'a [u8]],
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GetExExpiry<'a> {
    Keep,
    Persist,
    Set { text: &'a [u8], seconds: bool, absolute: bool },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Read<'a> {
    Get { key: &'a [u8] },
    MultiGet { keys: &'a [&'a [u8]] },
    Length { key: &'a [u8] },
    Range { key: &'a [u8], start: i64, end: i64 },
    Exists { keys: &'a [&'a [u8]] },
    Type { key: &'a [u8] },
    Encoding { key: &'a [u8] },
    TimeToLive { key: &'a [u8], form: TimeForm },
    Keys { pattern: &'a [u8] },
    Scan(Scan<'a>),
    RandomKey,
    Count,
    CommonSubsequence(CommonSubsequence<'a>),
    CountInSlot { hash_slot: u16 },
    KeysInSlot { hash_slot: u16, count: usize },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeForm {
    pub seconds: bool,
    pub absolute: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scan<'a> {
    pub cursor: u64,
    pub pattern: Option<&'a [u8]>,
    pub count: usize,
    /// False if only keys of a type that we do not have are asked for.
    pub strings: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CommonSubsequence<'a> {
    pub keys: [&'a [u8]; 2],
    pub output: CommonSubsequenceOutput,
    pub match_length_min: i64,
    pub with_match_length: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CommonSubsequenceOutput {
    Text,
    Length,
    Ranges,
}

/// Whether an argument is a float that `INCRBYFLOAT` takes.
pub fn is_float(text: &[u8]) -> bool {
    LongDouble::parse(text).is_some()
}
