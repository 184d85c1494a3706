//! The parser of requests: arrays of bulk strings (`*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`) and inline
//! commands. Errors carry the texts of Redis; after one the connection is to be closed, for
//! nobody can tell where the next request begins.
//!
//! - A parser belongs to one connection. It is shown the unconsumed bytes, always from the start
//!   of a request; between calls the caller only appends to them.
//! - It remembers how far it came: a value that arrives in a thousand pieces is not scanned a
//!   thousand times.
//! - A header reserves nothing. The memory of a request in the making is what has arrived, and
//!   that is refused as soon as it is known to pass the limit.

use std::fmt;
use std::ops::Range;

use smallvec::SmallVec;

use super::inline;

/// The arguments of one request, the command's name first.
pub type Argv<'a> = SmallVec<[&'a [u8]; 8]>;

/// The longest header line, and the longest inline command.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Room for this many arguments is kept from one request to the next.
const ARGUMENTS_KEPT: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest request, headers included.
    pub command_bytes_max: usize,
    /// Most arguments of one request.
    pub arguments_max: usize,
    /// Whether the client has shown who it is; the error texts differ.
    pub authenticated: bool,
}

impl Limits {
    /// For clients that may run commands.
    pub fn authenticated(command_bytes_max: usize) -> Limits {
        Limits { command_bytes_max, arguments_max: 1024 * 1024, authenticated: true }
    }

    /// For clients that have yet to authenticate: enough for `HELLO 3 AUTH user password`.
    pub fn unauthenticated() -> Limits {
        Limits { command_bytes_max: 16 * 1024, arguments_max: 10, authenticated: false }
    }
}

/// What came was not RESP, or was too much. To be answered, then the connection closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    MultibulkLength,
    BulkLength,
    ExpectedBulk(u8),
    MultibulkHeader,
    BulkHeader,
    InlineTooBig,
    UnbalancedQuotes,
    UnauthenticatedMultibulkLength,
    UnauthenticatedBulkLength,
    /// The whole request would pass `command_bytes_max`, though none of its arguments does.
    CommandTooBig {
        limit: usize,
    },
    /// A browser or a proxy that speaks HTTP: closed without an answer.
    Http,
}

impl ProtocolError {
    /// The bytes to send before the connection is closed.
    pub fn reply(&self) -> Vec<u8> {
        match self {
            ProtocolError::Http => Vec::new(),
            _ => format!("-ERR Protocol error: {self}\r\n").into_bytes(),
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::MultibulkLength => write!(f, "invalid multibulk length"),
            ProtocolError::BulkLength => write!(f, "invalid bulk length"),
            ProtocolError::ExpectedBulk(byte) => {
                let shown = if matches!(byte, b'\r' | b'\n') { ' ' } else { char::from(*byte) };
                write!(f, "expected '$', got '{shown}'")
            }
            ProtocolError::MultibulkHeader => write!(f, "too big mbulk count string"),
            ProtocolError::BulkHeader => write!(f, "too big bulk count string"),
            ProtocolError::InlineTooBig => write!(f, "too big inline request"),
            ProtocolError::UnbalancedQuotes => write!(f, "unbalanced quotes in request"),
            ProtocolError::UnauthenticatedMultibulkLength => {
                write!(f, "unauthenticated multibulk length")
            }
            ProtocolError::UnauthenticatedBulkLength => write!(f, "unauthenticated bulk length"),
            ProtocolError::CommandTooBig { limit } => {
                write!(f, "command is larger than {limit} bytes (command_bytes_max)")
            }
            ProtocolError::Http => write!(f, "this is not an HTTP server"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// One complete request. `arguments` is empty for an empty line or array, which has no answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// How many bytes of the buffer it took.
    pub consumed: usize,
    pub arguments: Argv<'a>,
}

/// - `position` is where the next unread header or value begins; all before it is understood.
/// - `scanned ≥ position`: no line end was found before it.
#[derive(Debug, Default)]
pub struct RequestParser {
    /// Arguments still to come, once the array's header has been read.
    missing: Option<usize>,
    /// Length of the value whose header has been read, but which has not wholly arrived.
    bulk: Option<usize>,
    position: usize,
    scanned: usize,
    arguments: Vec<Range<usize>>,
    /// Inline words, unquoted.
    scratch: Vec<u8>,
}

impl RequestParser {
    pub fn new() -> RequestParser {
        RequestParser::default()
    }

    /// The request at the start of `buffer`, or `None` when more bytes are needed.
    pub fn parse<'a>(
        &'a mut self,
        buffer: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<Request<'a>>, ProtocolError> {
        if self.missing.is_none() {
            match buffer.first() {
                None => return Ok(None),
                Some(b'*') => {}
                Some(_) => return self.parse_inline(buffer, limits),
            }
            let Some(count) = self.multibulk_header(buffer, limits)? else { return Ok(None) };
            self.missing = Some(count);
            // One huge request is no reason to hold its memory for the life of a connection.
            if self.arguments.capacity() > ARGUMENTS_KEPT {
                self.arguments = Vec::new();
            }
            self.arguments.clear();
        }
        while self.missing != Some(0) {
            let Some(argument) = self.bulk(buffer, limits)? else { return Ok(None) };
            self.arguments.push(argument);
            self.missing = self.missing.map(|missing| missing - 1);
        }
        let consumed = self.position;
        self.forget();
        let arguments = self.arguments.iter().map(|range| &buffer[range.clone()]).collect();
        Ok(Some(Request { consumed, arguments }))
    }

    /// How many bytes the buffer must hold before it is worth asking again; a hint for the
    /// size of the next read, never beyond the limits.
    pub fn bytes_wanted(&self) -> usize {
        self.position + self.bulk.map_or(1, |length| length + 2)
    }

    fn multibulk_header(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        let Some(number) = self.line(buffer, ProtocolError::MultibulkHeader)? else {
            return Ok(None);
        };
        match crate::command::number::parse_i64(&buffer[number]) {
            None => Err(ProtocolError::MultibulkLength),
            Some(count) if count > 10 && !limits.authenticated => {
                Err(ProtocolError::UnauthenticatedMultibulkLength)
            }
            Some(count) if count > limits.arguments_max as i64 => {
                Err(ProtocolError::MultibulkLength)
            }
            Some(count) => Ok(Some(count.max(0) as usize)),
        }
    }

    /// One `$length\r\n…\r\n`; `None` until all of it is there.
    fn bulk(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
    ) -> Result<Option<Range<usize>>, ProtocolError> {
        let length = match self.bulk {
            Some(length) => length,
            None => {
                match buffer.get(self.position) {
                    None => return Ok(None),
                    Some(b'$') => {}
                    // A byte other than `$` is only judged once its line is complete.
                    Some(other) => {
                        return match self.line(buffer, ProtocolError::BulkHeader)? {
                            None => Ok(None),
                            Some(_) => Err(ProtocolError::ExpectedBulk(*other)),
                        };
                    }
                }
                let Some(number) = self.line(buffer, ProtocolError::BulkHeader)? else {
                    return Ok(None);
                };
                let length = bulk_length(&buffer[number], limits)?;
                if self.position + length + 2 > limits.command_bytes_max.saturating_add(64) {
                    return Err(ProtocolError::CommandTooBig { limit: limits.command_bytes_max });
                }
                self.bulk = Some(length);
                length
            }
        };
        let end = self.position + length;
        if buffer.len() < end + 2 {
            return Ok(None);
        }
        let argument = self.position..end;
        self.bulk = None;
        self.position = end + 2;
        self.scanned = self.position;
        Ok(Some(argument))
    }

    /// The place of the text between the marker at `position` and the next `\r\n`, past which
    /// `position` then stands.
    fn line(
        &mut self,
        buffer: &[u8],
        too_long: ProtocolError,
    ) -> Result<Option<Range<usize>>, ProtocolError> {
        let from = self.scanned.max(self.position);
        let Some(offset) = buffer[from..].iter().position(|byte| *byte == b'\r') else {
            self.scanned = buffer.len();
            let waiting = buffer.len() - self.position;
            return if waiting > LINE_BYTES_MAX { Err(too_long) } else { Ok(None) };
        };
        let end = from + offset;
        if buffer.len() < end + 2 {
            self.scanned = end;
            return Ok(None);
        }
        let number = (self.position + 1).min(end)..end;
        self.position = end + 2;
        self.scanned = self.position;
        Ok(Some(number))
    }

    fn parse_inline<'a>(
        &'a mut self,
        buffer: &'a [u8],
        limits: &Limits,
    ) -> Result<Option<Request<'a>>, ProtocolError> {
        let line_bytes_max = LINE_BYTES_MAX.min(limits.command_bytes_max);
        let newline = buffer[self.scanned..].iter().position(|byte| *byte == b'\n');
        let Some(offset) = newline else {
            self.scanned = buffer.len();
            let too_long = buffer.len() > line_bytes_max;
            return if too_long { Err(ProtocolError::InlineTooBig) } else { Ok(None) };
        };
        let end = self.scanned + offset;
        if end > line_bytes_max {
            return Err(ProtocolError::InlineTooBig);
        }
        self.forget();
        let line = buffer[..end].strip_suffix(b"\r").unwrap_or(&buffer[..end]);
        self.scratch.clear();
        let words = inline::split(line, &mut self.scratch);
        let words = words.ok_or(ProtocolError::UnbalancedQuotes)?;
        let arguments: Argv<'a> = words.into_iter().map(|word| &self.scratch[word]).collect();
        if arguments.first().is_some_and(|name| {
            name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
        }) {
            return Err(ProtocolError::Http);
        }
        Ok(Some(Request { consumed: end + 1, arguments }))
    }

    /// Ready for the next request; `arguments` stays, for the one just completed.
    fn forget(&mut self) {
        self.missing = None;
        self.bulk = None;
        self.position = 0;
        self.scanned = 0;
    }
}

fn bulk_length(number: &[u8], limits: &Limits) -> Result<usize, ProtocolError> {
    let length =
        crate::command::number::parse_i64(number).and_then(|length| usize::try_from(length).ok());
    match length {
        None => Err(ProtocolError::BulkLength),
        Some(length) if length > limits.command_bytes_max => Err(if limits.authenticated {
            ProtocolError::BulkLength
        } else {
            ProtocolError::UnauthenticatedBulkLength
        }),
        Some(length) => Ok(length),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
