//! The files of a trace: `node.000001.log`, `node.000002.log`, … Each is closed when the next line
//! would make it longer than its bound, and the oldest goes when there are too many. So the folder
//! never holds more than files x bytes, whatever a node has to say (PITFALLS 11).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(super) struct Rolling {
    dir: PathBuf,
    files_max: u64,
    file_bytes_max: u64,
    number: u64,
    file: File,
    written: u64,
}

impl Rolling {
    /// Goes on in the newest file while that has room.
    pub(super) fn open(dir: &Path, files_max: u64, file_bytes_max: u64) -> io::Result<Rolling> {
        let number = numbers(dir)?.last().copied().unwrap_or(1);
        let file = open(dir, number)?;
        let written = file.metadata()?.len();
        let rolling =
            Rolling { dir: dir.to_owned(), files_max, file_bytes_max, number, file, written };
        rolling.forget_oldest()?;
        Ok(rolling)
    }

    fn roll(&mut self) -> io::Result<()> {
        self.file = open(&self.dir, self.number + 1)?;
        self.number += 1;
        self.written = 0;
        self.forget_oldest()
    }

    fn forget_oldest(&self) -> io::Result<()> {
        let numbers = numbers(&self.dir)?;
        let too_many = numbers.len().saturating_sub(self.files_max as usize);
        for number in &numbers[..too_many] {
            fs::remove_file(path(&self.dir, *number))?;
        }
        Ok(())
    }
}

impl Write for Rolling {
    /// Takes a line. What finds no space is lost: a full disk must not cost more than its trace.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let len = line.len() as u64;
        if self.written > 0 && self.written + len > self.file_bytes_max {
            self.roll()?;
        }
        match self.file.write_all(line) {
            Ok(()) => self.written += len,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            Err(error) => return Err(error),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("node.{number:06}.log"))
}

fn open(dir: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path(dir, number))
}

/// Of the files that are there, oldest first.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_str().unwrap_or_default();
        let digits = name.strip_prefix("node.").and_then(|name| name.strip_suffix(".log"));
        numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dir: &Path) -> (Vec<u64>, String) {
        let numbers = numbers(dir).unwrap();
        let text = numbers.iter().map(|n| fs::read_to_string(path(dir, *n)).unwrap()).collect();
        (numbers, text)
    }

    /// PITFALLS 11: what fills the disk may be our own traces.
    #[test]
    fn a_node_that_talks_without_end_keeps_its_last_words_within_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            // Each time a process that starts again.
            let mut rolling = Rolling::open(dir.path(), 3, 1_000).unwrap();
            for line in 0..200 {
                rolling.write_all(format!("line {line:03}\n").as_bytes()).unwrap();
                let bytes: u64 = fs::read_dir(dir.path())
                    .unwrap()
                    .map(|entry| entry.unwrap().metadata().unwrap().len())
                    .sum();
                assert!(bytes <= 3_000, "{bytes} bytes of traces");
            }
        }
        let (numbers, text) = read(dir.path());
        assert_eq!(numbers.len(), 3);
        let expect: Vec<String> = (0..200).map(|line| format!("line {line:03}")).collect();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines.len() > 200 && expect.iter().rev().zip(lines.iter().rev()).all(|(a, b)| a == b)
        );
    }

    #[test]
    fn a_line_longer_than_a_file_is_kept_whole_and_a_restart_goes_on_in_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(500);
        for _ in 0..2 {
            let mut rolling = Rolling::open(dir.path(), 9, 100).unwrap();
            rolling.write_all(b"short\n").unwrap();
            rolling.write_all(long.as_bytes()).unwrap();
        }
        assert_eq!(read(dir.path()), (vec![1, 2, 3, 4], format!("short\n{long}short\n{long}")));
        let mut rolling = Rolling::open(dir.path(), 9, 1_000).unwrap();
        rolling.write_all(b"more").unwrap();
        assert_eq!(read(dir.path()).0, [1, 2, 3, 4]);
    }
}
