//! Inline commands: a line of words, as typed into `nc`. Words may be quoted like in a shell:
//! `"…"` knows `\n \r \t \b \a \\ \" \xHH`, `'…'` knows only `\'`.

use std::ops::Range;

/// Splits `line` into words, written one after another to `scratch`; `words` are their places.
/// `None` when a quote is left open, or something follows a closing quote.
pub(super) fn split(line: &[u8], scratch: &mut Vec<u8>) -> Option<Vec<Range<usize>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // The vertical tab is a space to C's `isspace`, though not to Rust.
        while let [0x0b, tail @ ..] = rest {
            rest = tail.trim_ascii_start();
        }
        if rest.is_empty() {
            return Some(words);
        }
        let start = scratch.len();
        rest = word(rest, scratch)?;
        words.push(start..scratch.len());
    }
}

/// Copies one word to `scratch` and returns what follows it.
fn word<'a>(mut rest: &'a [u8], scratch: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t' | 0, ..] => {
                return Some(rest.get(1..).unwrap_or(rest));
            }
            [b'"', tail @ ..] => return closed(double_quoted(tail, scratch)?),
            [b'\'', tail @ ..] => return closed(single_quoted(tail, scratch)?),
            [byte, tail @ ..] => {
                scratch.push(*byte);
                rest = tail;
            }
        }
    }
}

/// A closing quote must end its word.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [] => Some(rest),
        [byte, ..] if byte.is_ascii_whitespace() || *byte == 0x0b => Some(rest),
        _ => None,
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], scratch: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\\', b'x', high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                scratch.push(hex(*high)? * 16 + hex(*low)?);
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] => {
                scratch.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = tail;
            }
            [b'"', tail @ ..] => return Some(tail),
            [byte, tail @ ..] => {
                scratch.push(*byte);
                rest = tail;
            }
            [] => return None,
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], scratch: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\\', b'\'', tail @ ..] => {
                scratch.push(b'\'');
                rest = tail;
            }
            [b'\'', tail @ ..] => return Some(tail),
            [byte, tail @ ..] => {
                scratch.push(*byte);
                rest = tail;
            }
            [] => return None,
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Option<&[&str]>) {
        let mut scratch = Vec::new();
        let words = split(line.as_bytes(), &mut scratch).map(|words| {
            words
                .into_iter()
                .map(|word| String::from_utf8_lossy(&scratch[word]).into_owned())
                .collect::<Vec<_>>()
        });
        let expect = expect.map(|words| words.iter().map(|word| word.to_string()).collect());
        assert_eq!(words, expect, "{line:?}");
    }

    #[test]
    fn words_and_quotes() {
        check("", Some(&[]));
        check("  PING  ", Some(&["PING"]));
        check("SET a b", Some(&["SET", "a", "b"]));
        check(r#"SET "a b" 'c"d'"#, Some(&["SET", "a b", "c\"d"]));
        check(r#"ECHO "\x41\n\q\"" '\'' ''"#, Some(&["ECHO", "A\nq\"", "'", ""]));
        check("ECHO foo\"bar\"", Some(&["ECHO", "foobar"]));
        check("ECHO \"open", None);
        check("ECHO 'open", None);
        check("ECHO \"a\"b", None);
        check("ECHO \"ends\\", None);
    }
}
