//! Patterns of `KEYS`, `SCAN MATCH` and `CONFIG GET`: `*`, `?`, `[a-z]`, `[^x]`, `\`. Like Redis
//! to the last oddity, but never slower than pattern times text.

/// Whether `pattern` matches all of `text`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    matches_within(pattern, text, &mut { u64::MAX }).unwrap_or(false)
}

/// The same, if it can be told within so many bytes looked at; what is left of them stays in `steps`.
pub fn matches_within(pattern: &[u8], text: &[u8], steps: &mut u64) -> Option<bool> {
    // An empty text is matched by the empty pattern alone, not even by `*`.
    if text.is_empty() {
        return Some(pattern.is_empty());
    }
    let (mut pattern_rest, mut text_rest) = (pattern, text);
    // Where to go on if the rest does not match: after the last star, one byte further on. Earlier
    // stars need no second look, the last one can stand in for them.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        *steps = steps.checked_sub(1)?;
        if let [b'*', tail @ ..] = pattern_rest {
            if tail.iter().all(|byte| *byte == b'*') {
                return Some(true);
            }
            pattern_rest = tail;
            retry = Some((tail, text_rest));
            continue;
        }
        let step = match text_rest {
            [byte, tail @ ..] => {
                let (is_one, pattern) = one(pattern_rest, *byte);
                *steps = steps.checked_sub((pattern_rest.len() - pattern.len()) as u64)?;
                is_one.then_some((pattern, tail))
            }
            [] if pattern_rest.is_empty() => return Some(true),
            [] => return Some(false),
        };
        match (step, retry) {
            (Some((pattern, text)), _) => (pattern_rest, text_rest) = (pattern, text),
            (None, Some((pattern, [_, text @ ..]))) => {
                (pattern_rest, text_rest) = (pattern, text);
                retry = Some((pattern, text));
            }
            (None, _) => return Some(false),
        }
    }
}

/// Whether the first element of the pattern matches `byte`, and what is left behind it.
fn one(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    match pattern {
        [] => (false, pattern),
        [b'?', tail @ ..] => (true, tail),
        [b'[', tail @ ..] => class(tail, byte),
        [b'\\', escaped, tail @ ..] => (*escaped == byte, tail),
        [first, tail @ ..] => (*first == byte, tail),
    }
}

/// A class may lack its `]`; then it ends with the pattern.
fn class(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut rest) = match pattern {
        [b'^', tail @ ..] => (true, tail),
        tail => (false, tail),
    };
    let mut found = false;
    let rest = loop {
        match rest {
            [b'\\', escaped, tail @ ..] => {
                found |= *escaped == byte;
                rest = tail;
            }
            [b']', tail @ ..] => break tail,
            [] => break rest,
            [from, b'-', to, tail @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest = tail;
            }
            [first, tail @ ..] => {
                found |= *first == byte;
                rest = tail;
            }
        }
    };
    (found != negated, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |pattern: &str, text: &str, expect: bool| {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expect, "{pattern} {text}");
        };
        check("", "", true);
        check("*", "", false);
        check("*", "a", true);
        check("a*", "a", true);
        check("a**", "a", true);
        check("*a", "aaa", true);
        check("*a?", "aab", true);
        check("h?llo", "hllo", false);
        check("h[ae]llo", "hallo", true);
        check("h[^e]llo", "hello", false);
        check("h[a-b]llo", "hbllo", true);
        check("h[b-a]llo", "hallo", true);
        check("[a", "a", true);
        check("[^", "a", true);
        check("[]", "]", false);
        check("\\*", "*", true);
        check("\\*", "a", false);
        check("a\\", "a\\", true);
        check("*ab*cd*", "xabxabcxcdx", true);
        check("*ab*cd", "xabxabcxcdx", false);
        check("a*b", "a", false);
    }

    /// 42: no pattern makes a lookup exponential.
    #[test]
    fn many_stars_end() {
        let pattern = b"a*".repeat(50);
        assert!(!matches(&[&pattern[..], b"b"].concat(), &[b'a'; 500]));
    }

    /// Nor is pattern times text for nothing: who has no time says how much there is.
    #[test]
    fn what_it_costs_is_bounded_and_counted() {
        let text = [b'a'; 1_000];
        let cost = |pattern: &[u8]| {
            let mut steps = 1 << 40;
            matches_within(pattern, &text, &mut steps);
            (1u64 << 40) - steps
        };
        assert!(cost(b"a*") < 10);
        let late = [&b"*"[..], &[b'a'; 500], b"b"].concat();
        assert!((250_000..2_000_000).contains(&cost(&late)), "{}", cost(&late));
        let class = [&b"*["[..], &[b'x'; 500], b"]b"].concat();
        assert!((500_000..2_000_000).contains(&cost(&class)), "{}", cost(&class));
        assert_eq!(matches_within(&late, &text, &mut 100_000), None);
        assert_eq!(matches_within(b"a*a", &text, &mut 100_000), Some(true));
    }
}
