//! Numbers as Redis reads them: canonical decimal, no sign `+`, no leading zeros, no spaces.

use crate::resp::Reply;

/// The value of a canonical decimal i64, or `None`: `07`, `+7`, `-0`, ` 7` and `` are not.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Negative all along: that side reaches one further.
        value = value.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// An integer argument, or the error that Redis gives.
pub fn integer(argument: &[u8]) -> Result<i64, Reply> {
    parse_i64(argument).ok_or(Reply::error(NOT_AN_INTEGER))
}

pub const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_only() {
        let check = |text: &str, value: Option<i64>| {
            assert_eq!(parse_i64(text.as_bytes()), value, "{text:?}");
        };
        check("0", Some(0));
        check("-1", Some(-1));
        check("9223372036854775807", Some(i64::MAX));
        check("-9223372036854775808", Some(i64::MIN));
        for text in [
            "",
            "-",
            "-0",
            "00",
            "07",
            "+7",
            " 7",
            "7 ",
            "1.0",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999999",
        ] {
            check(text, None);
        }
    }
}
