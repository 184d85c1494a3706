//! Keys, whatever they hold: `DEL`, `EXISTS`, `RENAME`, `COPY`, `SCAN`, `OBJECT`, `FLUSHALL`.

use super::context::Door;
use super::number::integer;
use super::operation::*;
use crate::resp::Reply;

const SYNTAX: &str = "ERR syntax error";

pub(super) fn del<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    Ok(Write::Delete { keys: &argv[1..] })
}

pub(super) fn exists<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    Ok(Read::Exists { keys: &argv[1..] })
}

pub(super) fn type_of<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    Ok(Read::Type { key: argv[1] })
}

pub(super) fn keys<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    Ok(Read::Keys { pattern: argv[1] })
}

pub(super) fn randomkey<'a>(_argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    Ok(Read::RandomKey)
}

pub(super) fn dbsize<'a>(_argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    Ok(Read::Count)
}

pub(super) fn rename<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    Ok(Write::Rename { from: argv[1], to: argv[2], only_if_absent: false })
}

pub(super) fn renamenx<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    Ok(Write::Rename { from: argv[1], to: argv[2], only_if_absent: true })
}

pub(super) fn copy<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    let mut replace = false;
    let mut options = argv[3..].iter();
    while let Some(option) = options.next() {
        if option.eq_ignore_ascii_case(b"replace") {
            replace = true;
        } else if option.eq_ignore_ascii_case(b"db")
            && let Some(text) = options.next()
        {
            let index = i32::try_from(integer(text)?);
            match index.map_err(|_| Reply::error(super::OUT_OF_INT))? {
                0 => {}
                _ => return Err(Reply::error("ERR DB index is out of range")),
            }
        } else {
            return Err(Reply::error(SYNTAX));
        }
    }
    if argv[1] == argv[2] {
        return Err(Reply::error("ERR source and destination objects are the same"));
    }
    Ok(Write::Copy { from: argv[1], to: argv[2], replace })
}

/// `ASYNC` and `SYNC` make no difference: memory is given back in slices either way.
pub(super) fn flush<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    match argv[1..] {
        [] => Ok(Write::Flush),
        [mode] if mode.eq_ignore_ascii_case(b"async") => Ok(Write::Flush),
        [mode] if mode.eq_ignore_ascii_case(b"sync") => Ok(Write::Flush),
        _ => Err(Reply::error(SYNTAX)),
    }
}

/// COUNT is a hint: one call visits no more keys, however many are asked for, so that it holds up
/// nobody else.
const SCAN_COUNT_MAX: usize = 10_000;

pub(super) fn scan<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    let cursor = cursor(argv[1]).ok_or(Reply::error("ERR invalid cursor"))?;
    let mut scan = Scan { cursor, pattern: None, count: 10, strings: true };
    let mut options = argv[2..].iter();
    while let Some(option) = options.next() {
        let Some(value) = options.next() else { return Err(Reply::error(SYNTAX)) };
        if option.eq_ignore_ascii_case(b"count") {
            let count = integer(value)?;
            if count < 1 {
                return Err(Reply::error(SYNTAX));
            }
            scan.count = usize::try_from(count).unwrap_or(usize::MAX).min(SCAN_COUNT_MAX);
        } else if option.eq_ignore_ascii_case(b"match") {
            scan.pattern = (*value != b"*").then_some(value);
        } else if option.eq_ignore_ascii_case(b"type") {
            scan.strings = value.eq_ignore_ascii_case(b"string");
        } else {
            return Err(Reply::error(SYNTAX));
        }
    }
    Ok(Read::Scan(scan))
}

/// What C's `strtoul` takes: a sign, then digits; `-1` wraps around.
fn cursor(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    // Nothing at all is a zero to it.
    if text.is_empty() {
        return Some(0);
    }
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if negative { value.wrapping_neg() } else { value })
}

pub(super) fn object_encoding<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
    Ok(Read::Encoding { key: argv[2] })
}

pub(super) fn object_help(_door: &mut Door<'_>, _argv: &[&[u8]]) -> Reply {
    super::help(
        "OBJECT",
        &[("ENCODING <key>", "How the value of <key> is kept: int, embstr or raw.")],
    )
}
