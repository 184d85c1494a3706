//! RESP2 as a client needs it: commands out, replies in. No sockets here.
//!
//! The parser never consumes half a reply: it looks at what has arrived and answers `None` until a
//! whole reply is there, so that its caller may read more and ask again.

use bytes::{Buf, Bytes, BytesMut};

/// Arrays deeper than this are no reply of Redis.
const DEPTH_MAX: usize = 8;
/// Bulk strings and arrays beyond this are taken for garbage, not waited for.
const LENGTH_MAX: i64 = 512 << 20;

/// One reply of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Bytes),
    Nil,
    Array(Vec<Reply>),
}

impl Reply {
    /// The first word of an error (`MOVED`, `CLUSTERDOWN`, `ERR`, …).
    pub fn error_word(&self) -> Option<&str> {
        match self {
            Reply::Error(text) => Some(text.split(' ').next().unwrap_or(text)),
            _ => None,
        }
    }

    /// Where `-MOVED <hash slot> <host:port>` points to.
    pub fn moved_to(&self) -> Option<&str> {
        let Reply::Error(text) = self else { return None };
        let mut words = text.split(' ');
        (words.next() == Some("MOVED")).then(|| words.nth(1)).flatten()
    }
}

/// What arrived is not RESP.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a RESP reply: {0}")]
pub struct Garbled(String);

/// Appends one command, as an array of bulk strings.
pub fn encode(out: &mut BytesMut, arguments: &[&[u8]]) {
    header(out, b'*', arguments.len());
    for argument in arguments {
        header(out, b'$', argument.len());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

/// Takes one whole reply off the front of `input`, or leaves it alone and answers `None`.
pub fn take(input: &mut BytesMut) -> Result<Option<Reply>, Garbled> {
    let mut cursor = Cursor { bytes: input, at: 0 };
    match cursor.reply(0)? {
        None => Ok(None),
        Some(reply) => {
            let consumed = cursor.at;
            input.advance(consumed);
            Ok(Some(reply))
        }
    }
}

fn header(out: &mut BytesMut, kind: u8, length: usize) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut rest = length;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(&digits[start..]);
    out.extend_from_slice(b"\r\n");
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn reply(&mut self, depth: usize) -> Result<Option<Reply>, Garbled> {
        if depth > DEPTH_MAX {
            return Err(Garbled(format!("arrays nested deeper than {DEPTH_MAX}")));
        }
        let Some(line) = self.line() else { return Ok(None) };
        let Some((&kind, rest)) = line.split_first() else {
            return Err(Garbled("an empty line".to_owned()));
        };
        match kind {
            b'+' => Ok(Some(Reply::Simple(text(rest)))),
            b'-' => Ok(Some(Reply::Error(text(rest)))),
            b':' => Ok(Some(Reply::Integer(number(rest)?))),
            b'$' => self.bulk(length(rest)?),
            b'*' => self.array(length(rest)?, depth),
            b'_' => Ok(Some(Reply::Nil)),
            other => Err(Garbled(format!("type byte {:?}", char::from(other)))),
        }
    }

    fn bulk(&mut self, length: Option<usize>) -> Result<Option<Reply>, Garbled> {
        let Some(length) = length else { return Ok(Some(Reply::Nil)) };
        let Some(body) = self.bytes.get(self.at..self.at + length + 2) else { return Ok(None) };
        if &body[length..] != b"\r\n" {
            return Err(Garbled(format!("a bulk string of {length} bytes without its end")));
        }
        self.at += length + 2;
        Ok(Some(Reply::Bulk(Bytes::copy_from_slice(&body[..length]))))
    }

    fn array(&mut self, length: Option<usize>, depth: usize) -> Result<Option<Reply>, Garbled> {
        let Some(length) = length else { return Ok(Some(Reply::Nil)) };
        // Room is made as elements arrive: a length alone must not ask for memory.
        let mut elements = Vec::new();
        for _ in 0..length {
            match self.reply(depth + 1)? {
                Some(element) => elements.push(element),
                None => return Ok(None),
            }
        }
        Ok(Some(Reply::Array(elements)))
    }

    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        self.at += end + 2;
        Some(&rest[..end])
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(bytes: &[u8]) -> Result<i64, Garbled> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Garbled(format!("{:?} where a number belongs", text(bytes))))
}

fn length(bytes: &[u8]) -> Result<Option<usize>, Garbled> {
    match number(bytes)? {
        -1 => Ok(None),
        length @ 0..=LENGTH_MAX => Ok(Some(length as usize)),
        length => Err(Garbled(format!("a length of {length}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Reply {
        take(&mut BytesMut::from(bytes)).expect("is RESP").expect("is whole")
    }

    #[test]
    fn every_kind_of_reply() {
        assert_eq!(all(b"+OK\r\n"), Reply::Simple("OK".into()));
        assert_eq!(all(b":-7\r\n"), Reply::Integer(-7));
        assert_eq!(all(b"$-1\r\n"), Reply::Nil);
        assert_eq!(all(b"_\r\n"), Reply::Nil);
        assert_eq!(all(b"$0\r\n\r\n"), Reply::Bulk(Bytes::new()));
        let nested = all(b"*2\r\n:1\r\n*1\r\n$2\r\na\n\r\n");
        let inner = Reply::Array(vec![Reply::Bulk(Bytes::from_static(b"a\n"))]);
        assert_eq!(nested, Reply::Array(vec![Reply::Integer(1), inner]));
    }

    #[test]
    fn half_a_reply_stays_where_it_is() {
        let whole = b"*2\r\n$3\r\nabc\r\n-MOVED 1 127.0.0.1:7379\r\n";
        for cut in 0..whole.len() {
            let mut input = BytesMut::from(&whole[..cut]);
            assert_eq!(take(&mut input), Ok(None), "cut at {cut}");
            assert_eq!(input.len(), cut);
        }
        let mut input = BytesMut::from(&whole[..]);
        input.extend_from_slice(b"+next");
        let Ok(Some(Reply::Array(elements))) = take(&mut input) else { panic!("an array") };
        assert_eq!(elements[1].moved_to(), Some("127.0.0.1:7379"));
        assert_eq!(elements[1].error_word(), Some("MOVED"));
        assert_eq!(&input[..], b"+next");
    }

    #[test]
    fn garbage_is_named() {
        for garbage in [&b"hello\r\n"[..], b"$x\r\n", b"$-2\r\n", b"$1\r\nabc\r\n", b"\r\n"] {
            assert!(take(&mut BytesMut::from(garbage)).is_err(), "{garbage:?}");
        }
        let deep = b"*1\r\n".repeat(DEPTH_MAX + 2);
        assert!(take(&mut BytesMut::from(&deep[..])).is_err());
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = BytesMut::new();
        encode(&mut out, &[b"SET", b"k", b"0123456789"]);
        assert_eq!(&out[..], b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n");
    }
}
