//! Replies and their encoding. A command builds one [`Reply`]; which bytes it becomes depends on
//! the version of the protocol that the connection speaks: RESP3 has maps, sets, booleans and one
//! null; RESP2 flattens all of them to arrays, integers and two nulls, exactly as Redis does.

use std::borrow::Cow;

use bytes::Bytes;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Simple(Cow<'static, str>),
    /// With its code: `ERR syntax error`, `MOVED 3999 10.0.0.1:7379`.
    Error(Cow<'static, str>),
    Integer(i64),
    Bulk(Bytes),
    Null,
    NullArray,
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Set(Vec<Reply>),
    Double(f64),
    Boolean(bool),
    /// Decimal digits, with a sign if negative.
    BigNumber(String),
    /// A text with a three-letter format, `txt` or `mkd`.
    Verbatim(&'static str, String),
    Push(Vec<Reply>),
}

impl Reply {
    pub const OK: Reply = Reply::Simple(Cow::Borrowed("OK"));

    /// `text` begins with its code, as in `ERR no such key`.
    pub fn error(text: impl Into<Cow<'static, str>>) -> Reply {
        Reply::Error(text.into())
    }

    pub fn bulk(bytes: impl AsRef<[u8]>) -> Reply {
        Reply::Bulk(Bytes::copy_from_slice(bytes.as_ref()))
    }

    pub fn status(text: &'static str) -> Reply {
        Reply::Simple(Cow::Borrowed(text))
    }

    /// An array of simple strings, as in the lists of flags of `COMMAND`.
    pub fn statuses(texts: impl IntoIterator<Item = &'static str>) -> Vec<Reply> {
        texts.into_iter().map(Reply::status).collect()
    }

    pub fn bulks<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Vec<Reply> {
        texts.into_iter().map(Reply::bulk).collect()
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// The first word of an error: `ERR`, `MOVED`, …; what metrics count by.
    pub fn error_code(&self) -> Option<&str> {
        match self {
            Reply::Error(text) => text.split(' ').next(),
            _ => None,
        }
    }

    /// Appends the bytes of this reply.
    pub fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let resp3 = protocol == Protocol::Resp3;
        match self {
            Reply::Simple(text) => write_line(out, b'+', text),
            Reply::Error(text) => write_line(out, b'-', text),
            Reply::Integer(value) => write_integer(out, b':', *value),
            Reply::Bulk(bytes) => write_bulk(out, bytes),
            Reply::Null | Reply::NullArray if resp3 => out.extend_from_slice(b"_\r\n"),
            Reply::Null => out.extend_from_slice(b"$-1\r\n"),
            Reply::NullArray => out.extend_from_slice(b"*-1\r\n"),
            Reply::Array(items) => write_items(out, b'*', items, protocol),
            Reply::Set(items) => write_items(out, if resp3 { b'~' } else { b'*' }, items, protocol),
            Reply::Push(items) => {
                write_items(out, if resp3 { b'>' } else { b'*' }, items, protocol);
            }
            Reply::Map(pairs) => {
                let (marker, count) =
                    if resp3 { (b'%', pairs.len()) } else { (b'*', 2 * pairs.len()) };
                write_integer(out, marker, count as i64);
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
            Reply::Double(value) if resp3 => write_line(out, b',', &general(*value)),
            Reply::Double(value) => write_bulk(out, general(*value).as_bytes()),
            Reply::Boolean(value) if resp3 => {
                out.extend_from_slice(if *value { b"#t\r\n" } else { b"#f\r\n" });
            }
            Reply::Boolean(value) => write_integer(out, b':', i64::from(*value)),
            Reply::BigNumber(digits) if resp3 => write_line(out, b'(', digits),
            Reply::BigNumber(digits) => write_bulk(out, digits.as_bytes()),
            Reply::Verbatim(format, text) if resp3 => {
                write_integer(out, b'=', text.len() as i64 + 4);
                out.extend_from_slice(format.as_bytes());
                out.push(b':');
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Reply::Verbatim(_, text) => write_bulk(out, text.as_bytes()),
        }
    }

    pub fn to_bytes(&self, protocol: Protocol) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(protocol, &mut out);
        out
    }
}

/// Appends `$length\r\nbytes\r\n`.
pub fn write_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 16);
    write_integer(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends the marker, the number and the end of the line.
pub fn write_integer(out: &mut Vec<u8>, marker: u8, value: i64) {
    // 20 digits and a sign at most; filled from the end.
    let mut digits = [0u8; 21];
    let mut start = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        start -= 1;
        digits[start] = b'-';
    }
    out.push(marker);
    out.extend_from_slice(&digits[start..]);
    out.extend_from_slice(b"\r\n");
}

fn write_items(out: &mut Vec<u8>, marker: u8, items: &[Reply], protocol: Protocol) {
    write_integer(out, marker, items.len() as i64);
    for item in items {
        item.encode(protocol, out);
    }
}

/// A line must stay one line: parts of it may have come from a client.
fn write_line(out: &mut Vec<u8>, marker: u8, text: &str) {
    out.push(marker);
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// `%.17g`, as Redis prints doubles.
fn general(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("`e` format has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..17).contains(&exponent) {
        return trim(&format!("{value:.*}", (16 - exponent) as usize));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reply: Reply, resp2: &str, resp3: &str) {
        assert_eq!(String::from_utf8(reply.to_bytes(Protocol::Resp2)).unwrap(), resp2);
        assert_eq!(String::from_utf8(reply.to_bytes(Protocol::Resp3)).unwrap(), resp3);
    }

    #[test]
    fn both_versions() {
        check(Reply::OK, "+OK\r\n", "+OK\r\n");
        check(Reply::error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n");
        check(Reply::Integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n");
        check(Reply::bulk("a\r\n"), "$3\r\na\r\n\r\n", "$3\r\na\r\n\r\n");
        check(Reply::Null, "$-1\r\n", "_\r\n");
        check(Reply::NullArray, "*-1\r\n", "_\r\n");
        check(Reply::Array(vec![Reply::Integer(0)]), "*1\r\n:0\r\n", "*1\r\n:0\r\n");
        let map = Reply::Map(vec![(Reply::bulk("a"), Reply::Integer(1))]);
        check(map, "*2\r\n$1\r\na\r\n:1\r\n", "%1\r\n$1\r\na\r\n:1\r\n");
        check(Reply::Set(vec![Reply::status("x")]), "*1\r\n+x\r\n", "~1\r\n+x\r\n");
        check(Reply::Push(vec![]), "*0\r\n", ">0\r\n");
        check(Reply::Boolean(true), ":1\r\n", "#t\r\n");
        check(Reply::BigNumber("-12".to_owned()), "$3\r\n-12\r\n", "(-12\r\n");
        let text = Reply::Verbatim("txt", "hi".to_owned());
        check(text, "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
    }

    #[test]
    fn doubles() {
        let check = |value: f64, text: &str| assert_eq!(general(value), text);
        check(0.0, "0");
        check(3.0, "3");
        check(0.1, "0.10000000000000001");
        check(-1.5, "-1.5");
        check(1e17, "1e+17");
        check(12_345_678_901_234_567.0, "12345678901234568");
        check(1e-5, "1.0000000000000001e-05");
        check(f64::NEG_INFINITY, "-inf");
    }
}
