use super::*;

const LIMITS: Limits = Limits { command_bytes_max: 1024, arguments_max: 64, authenticated: true };

fn parse(bytes: &[u8], limits: &Limits) -> Result<Option<Vec<Vec<u8>>>, ProtocolError> {
    let mut parser = RequestParser::new();
    parser.parse(bytes, limits).map(|request| {
        request.map(|request| request.arguments.iter().map(|argument| argument.to_vec()).collect())
    })
}

fn check(bytes: &str, expect: Result<Option<&[&str]>, ProtocolError>) {
    let found = parse(bytes.as_bytes(), &LIMITS);
    let expect = expect
        .map(|argv| argv.map(|argv| argv.iter().map(|word| word.as_bytes().to_vec()).collect()));
    assert_eq!(found, expect, "{bytes:?}");
}

#[test]
fn whole_requests() {
    check("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", Ok(Some(&["GET", "k"])));
    check("*2\r\n$3\r\nGET\r\n$0\r\n\r\n", Ok(Some(&["GET", ""])));
    check("PING\r\n", Ok(Some(&["PING"])));
    check("set a \"b c\"\n", Ok(Some(&["set", "a", "b c"])));
    check("\r\n", Ok(Some(&[])));
    check("*0\r\n", Ok(Some(&[])));
    check("*-1\r\n", Ok(Some(&[])));
}

#[test]
fn half_requests_wait() {
    for bytes in ["", "*", "*2", "*2\r", "*2\r\n", "*1\r\n$", "*1\r\n$4\r\nPING", "PING", "*1\r\nx"]
    {
        check(bytes, Ok(None));
    }
}

#[test]
fn errors_have_the_texts_of_redis() {
    let check = |bytes: &str, text: &str| {
        let error = parse(bytes.as_bytes(), &LIMITS).unwrap_err();
        assert_eq!(String::from_utf8(error.reply()).unwrap(), text, "{bytes:?}");
    };
    check("*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n");
    check("*99999999999\r\n", "-ERR Protocol error: invalid multibulk length\r\n");
    check("*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length\r\n");
    check("*1\r\n$536870912\r\n", "-ERR Protocol error: invalid bulk length\r\n");
    check("*1\r\n:1\r\n", "-ERR Protocol error: expected '$', got ':'\r\n");
    check("ECHO \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n");
    check(&"*".repeat(70_000), "-ERR Protocol error: too big mbulk count string\r\n");
    check(&"x".repeat(70_000), "-ERR Protocol error: too big inline request\r\n");
    check(
        &format!("*1\r\n${}", "1".repeat(70_000)),
        "-ERR Protocol error: too big bulk count string\r\n",
    );
    check("POST / HTTP/1.1\r\n", "");
    let many = format!("*3\r\n$900\r\n{}\r\n$900\r\n", "v".repeat(900));
    check(&many, "-ERR Protocol error: command is larger than 1024 bytes (command_bytes_max)\r\n");
}

#[test]
fn little_is_read_before_authentication() {
    let check = |bytes: &str, error: ProtocolError| {
        assert_eq!(parse(bytes.as_bytes(), &Limits::unauthenticated()), Err(error), "{bytes:?}");
    };
    check("*11\r\n", ProtocolError::UnauthenticatedMultibulkLength);
    check("*1\r\n$16385\r\n", ProtocolError::UnauthenticatedBulkLength);
    check(&"x".repeat(17_000), ProtocolError::InlineTooBig);
}

/// 66: one byte either side of the limit.
#[test]
fn the_limit_is_exact() {
    let bytes = |length: usize| format!("*1\r\n${length}\r\n{}\r\n", "v".repeat(length));
    for length in [1023, 1024] {
        assert!(parse(bytes(length).as_bytes(), &LIMITS).unwrap().is_some(), "{length}");
    }
    assert_eq!(parse(bytes(1025).as_bytes(), &LIMITS), Err(ProtocolError::BulkLength));
}

#[test]
fn any_cut_gives_the_same_requests() {
    let stream = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nv\r\nvv\r\nPING \"a b\"\r\n*1\r\n$4\r\nPING\r\n\r\n*0\r\n";
    let whole = feed(stream, stream.len());
    assert_eq!(whole.len(), 5);
    for piece in 1..stream.len() {
        assert_eq!(feed(stream, piece), whole, "in pieces of {piece}");
    }
}

fn feed(stream: &[u8], piece: usize) -> Vec<Vec<Vec<u8>>> {
    let mut parser = RequestParser::new();
    let mut buffer = Vec::new();
    let mut requests = Vec::new();
    for bytes in stream.chunks(piece) {
        buffer.extend_from_slice(bytes);
        loop {
            let consumed = match parser.parse(&buffer, &LIMITS).unwrap() {
                None => break,
                Some(request) => {
                    requests.push(request.arguments.iter().map(|word| word.to_vec()).collect());
                    request.consumed
                }
            };
            buffer.drain(..consumed);
        }
    }
    assert!(buffer.is_empty());
    requests
}

/// What a parser holds besides the caller's buffer.
fn held(parser: &RequestParser) -> usize {
    parser.arguments.capacity() * size_of::<Range<usize>>() + parser.scratch.capacity()
}

/// 42: memory follows what arrived, never what a header announces.
#[test]
fn headers_reserve_nothing() {
    let limits = Limits::authenticated(8 << 20);
    for bytes in ["*1048576\r\n", "*1048576\r\n$8388000\r\n", "*2\r\n$8388000\r\nabc"] {
        let mut parser = RequestParser::new();
        assert_eq!(parser.parse(bytes.as_bytes(), &limits), Ok(None), "{bytes:?}");
        assert_eq!(held(&parser), 0, "{bytes:?}");
        assert!(parser.bytes_wanted() <= (8 << 20) + 64);
    }
}

/// A big value in small pieces: each call goes on where the last one stopped.
#[test]
fn half_a_request_is_not_scanned_again() {
    let mut parser = RequestParser::new();
    let limits = Limits::authenticated(1 << 20);
    let mut buffer = b"*2\r\n$3\r\nSET\r\n$1000000\r\n".to_vec();
    let header = buffer.len();
    while buffer.len() < header + 1_000_000 {
        assert_eq!(parser.parse(&buffer, &limits), Ok(None));
        assert_eq!((parser.position, parser.bytes_wanted()), (header, header + 1_000_002));
        buffer.extend_from_slice(&[b'v'; 1000]);
    }
    buffer.extend_from_slice(b"\r\n");
    let request = parser.parse(&buffer, &limits).unwrap().unwrap();
    assert_eq!(request.consumed, buffer.len());
    // A line without an end is not scanned again either.
    let mut parser = RequestParser::new();
    assert_eq!(parser.parse(&[b'x'; 5000], &limits), Ok(None));
    assert_eq!(parser.scanned, 5000);
}

mod any_bytes {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that look like requests more often than chance would have it.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"*".to_vec()),
            Just(b"$".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".to_vec()),
            Just(b"PING \"x\\x41\" 'y'\r\n".to_vec()),
            any::<i64>().prop_map(|number| number.to_string().into_bytes()),
            (0..40i64).prop_map(|number| number.to_string().into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..12),
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    /// All requests and the error at the end, if any, when the bytes come in pieces of one size.
    fn outcome(stream: &[u8], piece: usize) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
        let mut parser = RequestParser::new();
        let mut buffer = Vec::new();
        let mut requests = Vec::new();
        for bytes in stream.chunks(piece) {
            buffer.extend_from_slice(bytes);
            loop {
                let consumed = match parser.parse(&buffer, &LIMITS) {
                    Err(error) => return (requests, Some(error)),
                    Ok(None) => break,
                    Ok(Some(request)) => {
                        requests.push(request.arguments.iter().map(|word| word.to_vec()).collect());
                        request.consumed
                    }
                };
                assert!(consumed > 0 && consumed <= buffer.len());
                assert!(held(&parser) <= 64 * 1024);
                buffer.drain(..consumed);
            }
        }
        (requests, None)
    }

    proptest! {
        /// 67: whatever comes, no panic; and where the network cuts makes no difference.
        #[test]
        fn are_parsed_alike_however_they_are_cut(stream in stream(), piece in 1usize..20) {
            prop_assert_eq!(outcome(&stream, piece), outcome(&stream, stream.len().max(1)));
        }
    }
}
