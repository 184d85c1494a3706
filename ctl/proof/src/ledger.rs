//! What each key must hold at the end, in bounded memory however long the load runs.
//!
//! Every writer has keys of its own, so that what they may hold follows from its own record alone:
//!
//! * a *unique* key is set to a number that grows; it must hold the number acknowledged last, or one
//!   whose fate is unknown (such a write may arrive late). A refused number must never be seen;
//! * an *append* key collects tokens; each acknowledged token must be there once, an unknown one at
//!   most once, a refused one never. This is what shows a write that was done twice;
//! * a *counter* is shared by all: `acknowledged <= value <= acknowledged + unknown`.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::client::{Client, Command, Fate, Target};
use crate::resp::Reply;

/// Each writer goes round in this many unique keys.
pub const UNIQUE_KEYS: u64 = 512;
/// Tokens that one append key takes, and append keys of a writer: past them it appends no more.
pub const TOKENS_PER_KEY: u64 = 100;
pub const APPEND_KEYS: u64 = 64;

/// Findings kept in words; more are only counted.
const FINDINGS_MAX: usize = 20;
const AUDIT_PIPELINE: usize = 64;

/// What is known of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Acknowledged,
    Refused,
    Unknown,
}

/// What one unique key may hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub acknowledged: Option<u64>,
    pub unknown: Vec<u64>,
}

/// How often one counter was incremented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Increments {
    pub acknowledged: u64,
    pub unknown: u64,
}

/// The record of one writer.
#[derive(Clone, Debug, Default)]
pub struct WriterLedger {
    unique: HashMap<u64, Expected>,
    tokens: HashMap<u64, Vec<(u64, Mark)>>,
    counters: HashMap<Bytes, Increments>,
    writes_acknowledged: u64,
}

impl WriterLedger {
    pub fn unique(&mut self, number: u64, mark: Mark) {
        let expected = self.unique.entry(number % UNIQUE_KEYS).or_default();
        match mark {
            Mark::Acknowledged => expected.acknowledged = Some(number),
            Mark::Unknown => expected.unknown.push(number),
            Mark::Refused => {}
        }
        self.count(mark);
    }

    pub fn appended(&mut self, number: u64, mark: Mark) {
        self.tokens.entry(number / TOKENS_PER_KEY).or_default().push((number, mark));
        self.count(mark);
    }

    pub fn incremented(&mut self, key: &Bytes, mark: Mark) {
        let increments = self.counters.entry(key.clone()).or_default();
        match mark {
            Mark::Acknowledged => increments.acknowledged += 1,
            Mark::Unknown => increments.unknown += 1,
            Mark::Refused => {}
        }
        self.count(mark);
    }

    fn count(&mut self, mark: Mark) {
        self.writes_acknowledged += u64::from(mark == Mark::Acknowledged);
    }
}

/// The records of all writers of one load.
#[derive(Clone, Debug)]
pub struct Ledger {
    prefix: String,
    writers: Vec<WriterLedger>,
}

/// What the audit found wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: FindingKind,
    pub key: String,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// An acknowledged write is not there.
    Lost,
    /// A write was done more than once.
    Doubled,
    /// A write that an error called "not done" is there, or one that nobody made.
    Phantom,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            FindingKind::Lost => "lost",
            FindingKind::Doubled => "done twice",
            FindingKind::Phantom => "phantom",
        };
        write!(f, "{kind}: {} {}", self.key, self.detail)
    }
}

/// The result of reading everything back.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    pub keys_checked: u64,
    pub writes_acknowledged: u64,
    /// Keys that could not be read within the time given.
    pub unreadable: u64,
    pub findings: Vec<Finding>,
    pub findings_count: u64,
}

impl Audit {
    fn report(&mut self, kind: FindingKind, key: &str, detail: String) {
        self.findings_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { kind, key: key.to_owned(), detail });
        }
    }
}

pub fn unique_key(prefix: &str, writer: usize, number: u64) -> String {
    format!("{prefix}:u:{writer}:{}", number % UNIQUE_KEYS)
}

pub fn append_key(prefix: &str, writer: usize, number: u64) -> String {
    format!("{prefix}:a:{writer}:{}", number / TOKENS_PER_KEY)
}

/// A unique value: its number, filled up to `length` bytes.
pub fn unique_value(number: u64, length: usize) -> Bytes {
    let mut value = number.to_string().into_bytes();
    value.push(b'.');
    value.resize(value.len().max(length), b'x');
    value.into()
}

impl Ledger {
    pub fn new(prefix: &str, writers: Vec<WriterLedger>) -> Ledger {
        Ledger { prefix: prefix.to_owned(), writers }
    }

    /// Reads every key that the load wrote, within `limit`, and compares.
    pub async fn audit(&self, target: &Target, limit: Duration) -> Audit {
        let keys = self.keys();
        let mut audit = Audit {
            writes_acknowledged: self.writers.iter().map(|w| w.writes_acknowledged).sum(),
            ..Audit::default()
        };
        let deadline = Instant::now() + limit;
        let mut client = Client::new(target.clone(), 0);
        let mut values = HashMap::new();
        for chunk in keys.chunks(AUDIT_PIPELINE) {
            audit.unreadable += read(&mut client, chunk, deadline, &mut values).await;
        }
        audit.keys_checked = values.len() as u64;
        self.compare(&values, &mut audit);
        audit
    }

    /// Compares what the keys hold with what they may hold. Keys missing from `values` were not
    /// read and are passed over.
    pub fn compare(&self, values: &HashMap<String, Option<Bytes>>, audit: &mut Audit) {
        for (writer, ledger) in self.writers.iter().enumerate() {
            for (index, expected) in &ledger.unique {
                let key = unique_key(&self.prefix, writer, *index);
                if let Some(value) = values.get(&key) {
                    compare_unique(&key, expected, value.as_deref(), audit);
                }
            }
            for (index, tokens) in &ledger.tokens {
                let key = append_key(&self.prefix, writer, index * TOKENS_PER_KEY);
                if let Some(value) = values.get(&key) {
                    compare_tokens(&key, tokens, value.as_deref().unwrap_or_default(), audit);
                }
            }
        }
        for (key, increments) in self.counters() {
            let key = String::from_utf8_lossy(&key).into_owned();
            if let Some(value) = values.get(&key) {
                compare_counter(&key, increments, value.as_deref(), audit);
            }
        }
    }

    fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for (writer, ledger) in self.writers.iter().enumerate() {
            keys.extend(ledger.unique.keys().map(|i| unique_key(&self.prefix, writer, *i)));
            let appends = ledger.tokens.keys();
            keys.extend(appends.map(|i| append_key(&self.prefix, writer, i * TOKENS_PER_KEY)));
        }
        keys.extend(self.counters().keys().map(|key| String::from_utf8_lossy(key).into_owned()));
        keys
    }

    fn counters(&self) -> HashMap<Bytes, Increments> {
        let mut sums: HashMap<Bytes, Increments> = HashMap::new();
        for (key, increments) in self.writers.iter().flat_map(|writer| &writer.counters) {
            let sum = sums.entry(key.clone()).or_default();
            sum.acknowledged += increments.acknowledged;
            sum.unknown += increments.unknown;
        }
        sums
    }
}

/// Reads one chunk of keys, again until the deadline where a read was refused or unanswered (a read
/// may be repeated: it changes nothing). Answers how many were never read.
async fn read(
    client: &mut Client,
    keys: &[String],
    deadline: Instant,
    values: &mut HashMap<String, Option<Bytes>>,
) -> u64 {
    let mut missing: Vec<&String> = keys.iter().collect();
    loop {
        let get = |key: &&String| -> Command {
            vec![Bytes::from_static(b"GET"), Bytes::copy_from_slice(key.as_bytes())]
        };
        let commands: Vec<Command> = missing.iter().map(get).collect();
        let fates = client.run(&commands).await;
        let mut still_missing = Vec::new();
        for (key, fate) in missing.into_iter().zip(fates) {
            match fate {
                Fate::Done(Reply::Bulk(value)) => drop(values.insert(key.clone(), Some(value))),
                Fate::Done(Reply::Nil) => drop(values.insert(key.clone(), None)),
                _ => still_missing.push(key),
            }
        }
        if still_missing.is_empty() || Instant::now() >= deadline {
            return still_missing.len() as u64;
        }
        missing = still_missing;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn compare_unique(key: &str, expected: &Expected, value: Option<&[u8]>, audit: &mut Audit) {
    let Some(value) = value else {
        if let Some(number) = expected.acknowledged {
            audit.report(FindingKind::Lost, key, format!("holds nothing, {number} was set"));
        }
        return;
    };
    let found = std::str::from_utf8(value).ok().and_then(|v| v.split('.').next()?.parse().ok());
    let allowed =
        |number| expected.acknowledged == Some(number) || expected.unknown.contains(&number);
    match (found, expected.acknowledged) {
        (Some(number), _) if allowed(number) => {}
        (Some(number), Some(acknowledged)) if number < acknowledged => {
            let detail = format!("holds {number}, but {acknowledged} was set after it");
            audit.report(FindingKind::Lost, key, detail);
        }
        (Some(number), _) => {
            let detail = format!("holds {number}, a write that was refused or never made");
            audit.report(FindingKind::Phantom, key, detail);
        }
        (None, _) => {
            let detail = format!("holds {:?}, which nobody wrote", String::from_utf8_lossy(value));
            audit.report(FindingKind::Phantom, key, detail);
        }
    }
}

fn compare_tokens(key: &str, tokens: &[(u64, Mark)], value: &[u8], audit: &mut Audit) {
    let mut seen: HashMap<u64, u64> = HashMap::new();
    for token in value.split(|byte| *byte == b';').filter(|token| !token.is_empty()) {
        match std::str::from_utf8(token).ok().and_then(|digits| digits.parse().ok()) {
            Some(number) => *seen.entry(number).or_default() += 1,
            None => {
                let token = String::from_utf8_lossy(token).into_owned();
                audit.report(FindingKind::Phantom, key, format!("holds the token {token:?}"));
            }
        }
    }
    for &(number, mark) in tokens {
        match (mark, seen.remove(&number).unwrap_or(0)) {
            (Mark::Acknowledged, 0) => {
                audit.report(FindingKind::Lost, key, format!("lacks the token {number}"));
            }
            (Mark::Refused, 1..) => {
                let detail = format!("holds the token {number}, which was refused");
                audit.report(FindingKind::Phantom, key, detail);
            }
            (_, count @ 2..) => {
                audit.report(FindingKind::Doubled, key, format!("token {number}, {count} times"));
            }
            (Mark::Acknowledged | Mark::Unknown, 0 | 1) | (Mark::Refused, 0) => {}
        }
    }
    for number in seen.keys() {
        audit.report(FindingKind::Phantom, key, format!("token {number}, which nobody appended"));
    }
}

fn compare_counter(key: &str, sum: Increments, value: Option<&[u8]>, audit: &mut Audit) {
    let text = String::from_utf8_lossy(value.unwrap_or(b"0")).into_owned();
    let Increments { acknowledged, unknown } = sum;
    let detail = format!("is {text}: {acknowledged} acknowledged, {unknown} of unknown fate");
    match text.parse::<u64>() {
        Err(_) => audit.report(FindingKind::Phantom, key, detail),
        Ok(value) if value < acknowledged => audit.report(FindingKind::Lost, key, detail),
        Ok(value) if value > acknowledged + unknown => {
            audit.report(FindingKind::Doubled, key, detail);
        }
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kinds of findings when the keys of one writer hold these values.
    fn audit(ledger: WriterLedger, values: &[(&str, Option<&str>)]) -> Vec<FindingKind> {
        let value = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let values = values.iter().map(|(key, v)| ((*key).to_owned(), v.map(value))).collect();
        let mut audit = Audit::default();
        Ledger::new("p", vec![ledger]).compare(&values, &mut audit);
        audit.findings.iter().map(|finding| finding.kind).collect()
    }

    fn unique(marks: &[(u64, Mark)]) -> WriterLedger {
        let mut ledger = WriterLedger::default();
        marks.iter().for_each(|&(number, mark)| ledger.unique(number, mark));
        ledger
    }

    #[test]
    fn unique_keys_hold_the_last_acknowledged_or_an_unknown_write() {
        let ledger = || {
            unique(&[
                (1, Mark::Acknowledged),
                (1 + UNIQUE_KEYS, Mark::Unknown),
                (1 + 2 * UNIQUE_KEYS, Mark::Acknowledged),
                (1 + 3 * UNIQUE_KEYS, Mark::Refused),
            ])
        };
        for allowed in ["1025.xx", "513.x"] {
            assert_eq!(audit(ledger(), &[("p:u:0:1", Some(allowed))]), [], "{allowed}");
        }
        assert_eq!(audit(ledger(), &[("p:u:0:1", Some("1.x"))]), [FindingKind::Lost]);
        assert_eq!(audit(ledger(), &[("p:u:0:1", None)]), [FindingKind::Lost]);
        assert_eq!(audit(ledger(), &[("p:u:0:1", Some("1537.x"))]), [FindingKind::Phantom]);
        assert_eq!(audit(ledger(), &[("p:u:0:1", Some("what"))]), [FindingKind::Phantom]);
    }

    #[test]
    fn a_refused_write_alone_leaves_nothing() {
        let ledger = || unique(&[(1, Mark::Refused)]);
        assert_eq!(audit(ledger(), &[("p:u:0:1", None)]), []);
        assert_eq!(audit(ledger(), &[("p:u:0:1", Some("1.x"))]), [FindingKind::Phantom]);
    }

    #[test]
    fn tokens_are_there_once() {
        let ledger = || {
            let mut ledger = WriterLedger::default();
            ledger.appended(1, Mark::Acknowledged);
            ledger.appended(2, Mark::Unknown);
            ledger.appended(3, Mark::Refused);
            ledger.appended(4, Mark::Acknowledged);
            ledger
        };
        assert_eq!(audit(ledger(), &[("p:a:0:0", Some("1;4;"))]), []);
        assert_eq!(audit(ledger(), &[("p:a:0:0", Some("1;4;2;"))]), []);
        assert_eq!(audit(ledger(), &[("p:a:0:0", Some("1;"))]), [FindingKind::Lost]);
        assert_eq!(audit(ledger(), &[("p:a:0:0", Some("1;4;4;"))]), [FindingKind::Doubled]);
        assert_eq!(audit(ledger(), &[("p:a:0:0", Some("1;2;2;4;"))]), [FindingKind::Doubled]);
        assert_eq!(audit(ledger(), &[("p:a:0:0", Some("1;3;4;"))]), [FindingKind::Phantom]);
        assert_eq!(audit(ledger(), &[("p:a:0:0", Some("1;4;9;"))]), [FindingKind::Phantom]);
    }

    /// PITFALLS 34: `ok <= value <= ok + unknown`.
    #[test]
    fn counters_stay_between_their_bounds() {
        let ledger = || {
            let mut ledger = WriterLedger::default();
            let key = Bytes::from_static(b"c");
            for mark in [Mark::Acknowledged, Mark::Acknowledged, Mark::Unknown, Mark::Refused] {
                ledger.incremented(&key, mark);
            }
            ledger
        };
        assert_eq!(audit(ledger(), &[("c", Some("2"))]), []);
        assert_eq!(audit(ledger(), &[("c", Some("3"))]), []);
        assert_eq!(audit(ledger(), &[("c", Some("1"))]), [FindingKind::Lost]);
        assert_eq!(audit(ledger(), &[("c", None)]), [FindingKind::Lost]);
        assert_eq!(audit(ledger(), &[("c", Some("4"))]), [FindingKind::Doubled]);
    }
}
