//! Strings: `SET` and its relatives, counters, ranges, `LCS`.

use super::number::integer;
use super::operation::*;
use crate::resp::Reply;

const SYNTAX: &str = "ERR syntax error";

pub(super) fn get<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    Ok(Read::Get { key: argv[1] })
}

pub(super) fn mget<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    Ok(Read::MultiGet { keys: &argv[1..] })
}

pub(super) fn strlen<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    Ok(Read::Length { key: argv[1] })
}

pub(super) fn getrange<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    Ok(Read::Range { key: argv[1], start: integer(argv[2])?, end: integer(argv[3])? })
}

pub(super) fn set<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    let mut condition = Condition::Always;
    let mut get = false;
    let mut keep = false;
    let mut deadline: Option<DeadlineText> = None;
    let mut options = argv[3..].iter();
    while let Some(option) = options.next() {
        if option.eq_ignore_ascii_case(b"nx")
            && matches!(condition, Condition::Always | Condition::IfAbsent)
        {
            condition = Condition::IfAbsent;
        } else if option.eq_ignore_ascii_case(b"xx")
            && matches!(condition, Condition::Always | Condition::IfPresent)
        {
            condition = Condition::IfPresent;
        } else if let Some(compare) = comparison(option)
            && condition == Condition::Always
            && let Some(value) = options.next()
        {
            condition = compare(value);
        } else if option.eq_ignore_ascii_case(b"get") {
            get = true;
        } else if option.eq_ignore_ascii_case(b"keepttl") && deadline.is_none() {
            keep = true;
        } else if let Some(kind) = DeadlineKind::of(option)
            && !keep
            && deadline.as_ref().is_none_or(|earlier| earlier.kind == kind)
            && let Some(text) = options.next()
        {
            deadline = Some(DeadlineText { kind, text });
        } else {
            return Err(Reply::error(SYNTAX));
        }
    }
    let expiry = match deadline {
        Some(deadline) => Expiry::Set(deadline.read("set")?),
        None if keep => Expiry::Keep,
        None => Expiry::Never,
    };
    Ok(Write::Set { command: "set", key: argv[1], value: argv[2], condition, expiry, get })
}

/// `IFEQ` (Valkey 8.1, Redis 8.4) or `IFNE` (Redis 8.4), and what it makes of the value after it.
fn comparison<'a>(option: &[u8]) -> Option<fn(&'a [u8]) -> Condition<'a>> {
    if option.eq_ignore_ascii_case(b"ifeq") {
        Some(Condition::IfEqual)
    } else if option.eq_ignore_ascii_case(b"ifne") {
        Some(Condition::IfDifferent)
    } else {
        None
    }
}

/// `DELIFEQ key value` (Valkey 9)
pub(super) fn delifeq<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    Ok(Write::DeleteIf { key: argv[1], condition: Condition::IfEqual(argv[2]) })
}

/// `DELEX key [IFEQ value | IFNE value]` (Redis 8.4)
pub(super) fn delex<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    let condition = match argv {
        [_, _] => Condition::Always,
        [_, _, option, value] => comparison(option).ok_or(Reply::error(SYNTAX))?(value),
        _ => return Err(super::wrong_number_of_arguments("delex")),
    };
    Ok(Write::DeleteIf { key: argv[1], condition })
}

pub(super) fn setnx<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    Ok(Write::SetIfAbsent { key: argv[1], value: argv[2] })
}

pub(super) fn setex<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    set_with_deadline(argv, "setex", DeadlineKind::Ex)
}

pub(super) fn psetex<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    set_with_deadline(argv, "psetex", DeadlineKind::Px)
}

fn set_with_deadline<'a>(
    argv: &'a [&'a [u8]],
    command: &'static str,
    kind: DeadlineKind,
) -> Result<Write<'a>, Reply> {
    let deadline = DeadlineText { kind, text: argv[2] }.read(command)?;
    Ok(Write::Set {
        command,
        key: argv[1],
        value: argv[3],
        condition: Condition::Always,
        expiry: Expiry::Set(deadline),
        get: false,
    })
}

pub(super) fn getset<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    Ok(Write::GetSet { key: argv[1], value: argv[2] })
}

pub(super) fn getdel<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    Ok(Write::GetDel { key: argv[1] })
}

pub(super) fn getex<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    let mut persist = false;
    let mut deadline: Option<DeadlineText> = None;
    let mut options = argv[2..].iter();
    while let Some(option) = options.next() {
        if option.eq_ignore_ascii_case(b"persist") && deadline.is_none() {
            persist = true;
        } else if let Some(kind) = DeadlineKind::of(option)
            && !persist
            && deadline.as_ref().is_none_or(|earlier| earlier.kind == kind)
            && let Some(text) = options.next()
        {
            deadline = Some(DeadlineText { kind, text });
        } else {
            return Err(Reply::error(SYNTAX));
        }
    }
    let expiry = match deadline {
        Some(DeadlineText { kind, text }) => {
            GetExExpiry::Set { text, seconds: kind.seconds(), absolute: kind.absolute() }
        }
        None if persist => GetExExpiry::Persist,
        None => GetExExpiry::Keep,
    };
    Ok(Write::GetEx { key: argv[1], expiry })
}

pub(super) fn mset<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    multi_set(argv, "mset", false)
}

pub(super) fn msetnx<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    multi_set(argv, "msetnx", true)
}

fn multi_set<'a>(
    argv: &'a [&'a [u8]],
    command: &str,
    only_if_none_exists: bool,
) -> Result<Write<'a>, Reply> {
    let pairs = &argv[1..];
    if !pairs.len().is_multiple_of(2) {
        return Err(super::wrong_number_of_arguments(command));
    }
    Ok(Write::MultiSet { pairs, only_if_none_exists })
}

pub(super) fn append<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    Ok(Write::Append { key: argv[1], value: argv[2] })
}

pub(super) fn setrange<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    let offset = integer(argv[2])?;
    let offset = usize::try_from(offset).map_err(|_| Reply::error("ERR offset is out of range"))?;
    Ok(Write::SetRange { key: argv[1], offset, value: argv[3] })
}

pub(super) fn incr<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    Ok(Write::Increment { key: argv[1], by: 1 })
}

pub(super) fn decr<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    Ok(Write::Increment { key: argv[1], by: -1 })
}

pub(super) fn incrby<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    Ok(Write::Increment { key: argv[1], by: integer(argv[2])? })
}

pub(super) fn decrby<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    let by = integer(argv[2])?.checked_neg();
    let by = by.ok_or(Reply::error("ERR decrement would overflow"))?;
    Ok(Write::Increment { key: argv[1], by })
}

/// Whether the increment is a float is judged at apply: Redis looks at the value first.
pub(super) fn incrbyfloat<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    if !is_float(argv[2]) {
        return Err(Reply::error(NOT_A_FLOAT));
    }
    Ok(Write::IncrementFloat { key: argv[1], by: argv[2] })
}

pub const NOT_A_FLOAT: &str = "ERR value is not a valid float";

pub(super) fn lcs<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    let mut length = false;
    let mut ranges = false;
    let mut with_match_length = false;
    let mut match_length_min = 0;
    let mut options = argv[3..].iter();
    while let Some(option) = options.next() {
        if option.eq_ignore_ascii_case(b"idx") {
            ranges = true;
        } else if option.eq_ignore_ascii_case(b"len") {
            length = true;
        } else if option.eq_ignore_ascii_case(b"withmatchlen") {
            with_match_length = true;
        } else if option.eq_ignore_ascii_case(b"minmatchlen")
            && let Some(text) = options.next()
        {
            match_length_min = integer(text)?.max(0);
        } else {
            return Err(Reply::error(SYNTAX));
        }
    }
    let output = match (ranges, length) {
        (true, true) => {
            return Err(Reply::error(
                "ERR If you want both the length and indexes, please just use IDX.",
            ));
        }
        (true, false) => CommonSubsequenceOutput::Ranges,
        (false, true) => CommonSubsequenceOutput::Length,
        (false, false) => CommonSubsequenceOutput::Text,
    };
    Ok(Read::CommonSubsequence(CommonSubsequence {
        keys: [argv[1], argv[2]],
        output,
        match_length_min,
        with_match_length,
    }))
}

/// The four ways to name a deadline; naming it twice in the same way is allowed, the last counts.
#[derive(Clone, Copy, PartialEq)]
enum DeadlineKind {
    Ex,
    Px,
    ExAt,
    PxAt,
}

impl DeadlineKind {
    fn of(option: &[u8]) -> Option<DeadlineKind> {
        let kinds: [(&[u8], DeadlineKind); 4] = [
            (b"ex", DeadlineKind::Ex),
            (b"px", DeadlineKind::Px),
            (b"exat", DeadlineKind::ExAt),
            (b"pxat", DeadlineKind::PxAt),
        ];
        kinds.iter().find(|(name, _)| option.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
    }

    fn seconds(self) -> bool {
        matches!(self, DeadlineKind::Ex | DeadlineKind::ExAt)
    }

    fn absolute(self) -> bool {
        matches!(self, DeadlineKind::ExAt | DeadlineKind::PxAt)
    }
}

struct DeadlineText<'a> {
    kind: DeadlineKind,
    text: &'a [u8],
}

impl DeadlineText<'_> {
    /// Refuses what can never be a deadline; the rest is known at apply, with the log's time.
    fn read(&self, command: &str) -> Result<Deadline, Reply> {
        let deadline = Deadline {
            value: integer(self.text)?,
            seconds: self.kind.seconds(),
            absolute: self.kind.absolute(),
        };
        deadline.check_positive(command)?;
        Ok(deadline)
    }
}
