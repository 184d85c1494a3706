//! Replies as bytes: where one ends, and what of it can be compared.

/// The bytes of a request.
pub(crate) fn request(command: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Length of the reply at the start of `bytes`, if all of it is there.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || {
        let text = std::str::from_utf8(&bytes[1..line - 2]).expect("a number is text");
        text.parse::<i64>().expect("a length is a number")
    };
    match bytes[0] {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => Some(line),
        b'$' | b'=' => match number() {
            -1 => Some(line),
            length => {
                let end = line + length as usize + 2;
                (bytes.len() >= end).then_some(end)
            }
        },
        marker @ (b'*' | b'~' | b'>' | b'%') => {
            let items = number().max(0) * if marker == b'%' { 2 } else { 1 };
            let mut end = line;
            for _ in 0..items {
                end += length(&bytes[end..])?;
            }
            Some(end)
        }
        other => panic!("no reply begins with {:?}", char::from(other)),
    }
}

/// The items of an array, as bytes.
fn items(array: &[u8]) -> Vec<&[u8]> {
    let mut rest = &array[array.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2..];
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (item, tail) = rest.split_at(length(rest).unwrap());
        items.push(item);
        rest = tail;
    }
    items
}

/// The field `arguments` of a `COMMAND DOCS` of one command, or nothing.
pub(crate) fn documented_arguments(docs: &[u8]) -> &[u8] {
    let fields = items(items(docs)[1]);
    let place = fields.iter().step_by(2).position(|name| *name == b"$9\r\narguments\r\n");
    place.map_or(b"", |place| fields[2 * place + 1])
}

/// The reply with what Redis leaves open taken out of it: the order of keys.
pub(crate) fn comparable(command: &[Vec<u8>], reply: &[u8]) -> Vec<u8> {
    let sorted = |array: &[u8]| {
        let mut items = items(array);
        items.sort_unstable();
        items.concat()
    };
    match command[0].to_ascii_lowercase().as_slice() {
        b"keys" if reply[0] == b'*' => sorted(reply),
        // Both return everything at once where few keys are asked for with a large COUNT.
        b"scan" if reply[0] == b'*' => {
            let parts = items(reply);
            [parts[0], &sorted(parts[1])].concat()
        }
        _ => reply.to_vec(),
    }
}

/// Equal, but for answers in time, which may be apart by what passed between the two servers.
pub(crate) fn agree(command: &[Vec<u8>], ours: &[u8], theirs: &[u8]) -> bool {
    let apart_max = match command[0].to_ascii_lowercase().as_slice() {
        b"ttl" | b"expiretime" => 20,
        b"pttl" | b"pexpiretime" => 20_000,
        // Any key that exists will do, and both have the same.
        b"randomkey" => {
            return (ours == b"$-1\r\n" || ours == b"_\r\n")
                == (theirs == b"$-1\r\n" || theirs == b"_\r\n");
        }
        _ => return ours == theirs,
    };
    match (integer(ours), integer(theirs)) {
        (Some(ours), Some(theirs)) if ours > 0 && theirs > 0 => ours.abs_diff(theirs) <= apart_max,
        _ => ours == theirs,
    }
}

fn integer(reply: &[u8]) -> Option<i64> {
    std::str::from_utf8(reply).ok()?.strip_prefix(':')?.strip_suffix("\r\n")?.parse().ok()
}
