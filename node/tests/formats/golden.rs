//! Files of bytes as text, so that a change can be read, and the words for whoever made one.

use std::fmt::Write;
use std::path::PathBuf;

const ROW_BYTES: usize = 32;

pub(crate) fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "formats", name].iter().collect()
}

pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Today's code writes `today` for the format whose version is the number in `name`; `version` says
/// where that number stands in the code.
pub(crate) fn check(name: &str, version: &str, today: &str) {
    let wants = std::env::var_os("FORMATS").is_some_and(|value| value == "write");
    if wants && !path(name).exists() {
        std::fs::write(path(name), today).unwrap();
    }
    assert!(
        path(name).exists(),
        "node/tests/formats/{name} is missing. If the format has a new version ({version}), make its \
         file with `FORMATS=write cargo test -p node --test formats`, commit it, and leave those of \
         the versions before: this test has to read them as well"
    );
    let kept = read(name);
    if kept == today {
        return;
    }
    let differs = |(_, (ours, theirs)): &(usize, (&str, &str))| ours != theirs;
    let line = today.lines().zip(kept.lines()).enumerate().find(differs);
    let (number, (ours, theirs)) =
        line.unwrap_or((kept.lines().count().min(today.lines().count()), ("", "")));
    panic!(
        "node/tests/formats/{name}: today's code writes other bytes under the same version, first in \
         line {}:\n  kept:  {theirs}\n  today: {ours}\nOther releases and older disks hold the kept \
         ones. Do not edit the file: raise {version}, write the new bytes under the new version, go \
         on reading the one before, and make the new file with `FORMATS=write cargo test -p node \
         --test formats`",
        number + 1
    );
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits = (0..hex.len()).step_by(2);
    digits.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits")).collect()
}

/// `name hex`, a line each.
pub(crate) fn lines<'a>(named: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> String {
    named.into_iter().map(|(name, bytes)| format!("{name} {}\n", hex(&bytes))).collect()
}

pub(crate) fn read_lines(name: &str) -> Vec<(String, Vec<u8>)> {
    let text = read(name);
    let named = text.lines().map(|line| line.split_once(' ').expect("name and hex"));
    named.map(|(name, hex)| (name.to_owned(), bytes(hex))).collect()
}

/// Whole files: their name and length, then rows with their offset, but for those of zeros.
pub(crate) fn files<'a>(files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> String {
    let mut text = String::new();
    for (name, bytes) in files {
        writeln!(text, "file {name} {}", bytes.len()).unwrap();
        for (index, row) in bytes.chunks(ROW_BYTES).enumerate() {
            if row.iter().any(|byte| *byte != 0) {
                writeln!(text, "{:06x} {}", index * ROW_BYTES, hex(row)).unwrap();
            }
        }
    }
    text
}

pub(crate) fn read_files(name: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for line in read(name).lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["file", name, length] => {
                files.push((name.to_owned(), vec![0; length.parse().expect("a length")]));
            }
            [offset, row] => {
                let (_, file) = files.last_mut().expect("a file's line comes first");
                let offset = usize::from_str_radix(offset, 16).expect("an offset");
                let row = bytes(row);
                file[offset..offset + row.len()].copy_from_slice(&row);
            }
            _ => panic!("{name}: a line that is none: {line}"),
        }
    }
    files
}
