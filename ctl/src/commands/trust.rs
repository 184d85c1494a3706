//! `paxosctl trust`: show the keys of hosts, and record those that a person has compared.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use deploy::fleet::destination;
use deploy::ssh::{Destination, scan_host_keys};
use hosts::Host;

use crate::cli::Context;
use crate::desk;
use crate::error::{Error, Word};
use crate::ui::{self, Cell, Style};

/// Show the host keys of new hosts, and record them after review.
///
/// Compare each fingerprint with what the host itself says: ssh-keygen -lf
/// /etc/ssh/ssh_host_ed25519_key.pub
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Replace a key on record by the one that the host shows now.
    #[arg(long)]
    replace: bool,
}

/// What a host showed, beside what is on record.
struct Found {
    name: String,
    known_hosts: std::path::PathBuf,
    lines: Vec<String>,
    recorded: Vec<Recorded>,
}

/// A line of the file that is about a host: with the host's name, and as it stands there.
struct Recorded {
    line: String,
    raw: String,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    let hosts = desk::select(context, &inventory)?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    let scans: Vec<_> = hosts.into_iter().map(|host| tokio::spawn(scan(host.clone()))).collect();
    for scan in scans {
        let scanned = scan.await.map_err(|cause| {
            Error::new(Word::Internal, "ask a host for its keys").because(cause)
        })?;
        match scanned {
            Ok(keys) => found.push(keys),
            Err(error) => failures.push(error),
        }
    }
    show(context, &found);
    let changed: Vec<&Found> = found.iter().filter(|found| found.is_changed()).collect();
    if !changed.is_empty() && !args.replace {
        let names: Vec<&str> = changed.iter().map(|found| found.name.as_str()).collect();
        return Err(Error::new(Word::Ssh, "trust a key that has changed")
            .on(names.join(","))
            .because("a new machine under the old address, or somebody in between")
            .hint("if you know why it changed, compare the fingerprint and say `--replace`"));
    }
    let new: Vec<&Found> =
        found.iter().filter(|found| found.is_new() || found.is_changed()).collect();
    if !new.is_empty() && !context.global.dry_run {
        let names: Vec<&str> = new.iter().map(|found| found.name.as_str()).collect();
        context.ui.confirm(&format!("Record these keys ({})?", names.join(", ")))?;
        for found in &new {
            record(found)?;
        }
        context.ui.say(format!("recorded {} of {} hosts", new.len(), found.len()));
    } else if new.is_empty() && failures.is_empty() {
        context.ui.say("every host key is on record");
    }
    let mut failures = failures.into_iter();
    match failures.next() {
        None => Ok(ui::OK),
        Some(mut first) => {
            first.others.extend(failures);
            Err(first)
        }
    }
}

async fn scan(host: Host) -> Result<Found, Error> {
    let destination = destination(&host);
    let lines = scan_host_keys(&destination).await?;
    let recorded = recorded(&destination, &lines);
    Ok(Found { name: host.name, known_hosts: destination.known_hosts, lines, recorded })
}

/// What our own file has about the hosts of `lines` (a jump host's among them). `ssh-keygen -F` looks,
/// as only it can read names that were hashed.
fn recorded(destination: &Destination, lines: &[String]) -> Vec<Recorded> {
    let mut recorded = Vec::new();
    for subject in lines.iter().filter_map(|line| subject(line)) {
        let found = std::process::Command::new("ssh-keygen")
            .args(["-F", subject, "-f"])
            .arg(&destination.known_hosts)
            .output();
        let Ok(found) = found else { continue };
        let text = String::from_utf8_lossy(&found.stdout);
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let rest = line.split_once(' ').map_or("", |(_, rest)| rest);
            recorded.push(Recorded { line: format!("{subject} {rest}"), raw: line.to_owned() });
        }
    }
    recorded
}

/// The host that a known_hosts line is about: `name`, or `[name]:port`.
fn subject(line: &str) -> Option<&str> {
    line.split_whitespace().next().filter(|word| !word.starts_with('#'))
}

/// `type key`, without the host and the comment.
fn key(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace().skip(1);
    Some((words.next()?, words.next()?))
}

impl Found {
    fn is_new(&self) -> bool {
        self.lines.iter().any(|line| !self.knows(line)) && !self.is_changed()
    }

    fn is_changed(&self) -> bool {
        let other_key = |line: &String| {
            let same_host = |old: &&str| subject(old) == subject(line);
            let rivals: Vec<&str> = self
                .recorded
                .iter()
                .map(|old| old.line.as_str())
                .filter(same_host)
                .filter(|old| key(old).map(|key| key.0) == key(line).map(|key| key.0))
                .collect();
            !rivals.is_empty() && !rivals.iter().any(|old| key(old) == key(line))
        };
        self.lines.iter().any(other_key)
    }

    fn knows(&self, line: &str) -> bool {
        let same = |old: &str| subject(old) == subject(line) && key(old) == key(line);
        self.recorded.iter().any(|old| same(&old.line))
    }
}

fn show(context: &Context, found: &[Found]) {
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    for found in found {
        for line in &found.lines {
            let (kind, blob) = key(line).unwrap_or(("?", ""));
            let print = fingerprint(blob);
            let (state, style) = match () {
                () if found.knows(line) => ("on record", Style::Good),
                () if found.is_changed() => ("CHANGED", Style::Bad),
                () => ("new", Style::Warn),
            };
            let address = subject(line).unwrap_or("?");
            json.push(serde_json::json!({
                "node": found.name, "host": address, "type": kind, "fingerprint": print, "state": state,
            }));
            rows.push(vec![
                found.name.clone().into(),
                address.into(),
                kind.into(),
                print.into(),
                Cell::new(state, style),
            ]);
        }
    }
    if context.json() {
        context.ui.json(&serde_json::json!({"schema_version": 1, "keys": json}));
    } else if !rows.is_empty() {
        let head = ["NODE", "HOST", "TYPE", "FINGERPRINT", "STATE"];
        context.ui.data(context.ui.table(&head, &rows));
    }
}

/// As `ssh-keygen -l` shows it: SHA256 of the key's bytes in base64 without padding.
fn fingerprint(blob: &str) -> String {
    use sha2::{Digest, Sha256};
    match base64_decode(blob) {
        Some(bytes) => format!("SHA256:{}", base64_encode(&Sha256::digest(bytes))),
        None => "unreadable".to_owned(),
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = ALPHABET.iter().position(|letter| *letter == byte)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}

fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..=chunk.len() {
            let index = bits >> (18 - 6 * place) & 0x3f;
            out.push(char::from(ALPHABET[index as usize]));
        }
    }
    out
}

/// Writes the whole file anew beside it and renames it, so that a crash loses no key.
fn record(found: &Found) -> Result<(), Error> {
    let path = &found.known_hosts;
    let doing = format!("record host keys in {}", path.display());
    let failed = |cause: std::io::Error| Error::usage(&*doing).because(cause);
    let old = std::fs::read_to_string(path).unwrap_or_default();
    // The old key of a host must go: while it stands there it is believed.
    let rival = |old: &Recorded| {
        found.lines.iter().any(|new| {
            subject(new) == subject(&old.line)
                && key(new).map(|key| key.0) == key(&old.line).map(|key| key.0)
        })
    };
    let replaced = |line: &str| found.recorded.iter().any(|old| old.raw == line && rival(old));
    let kept: Vec<&str> = old.lines().filter(|line| !replaced(line)).collect();
    let mut text = kept.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    for line in &found.lines {
        text.push_str(line);
        text.push('\n');
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let scratch = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = std::fs::File::create(&scratch).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&scratch, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `ssh-keygen`, fingerprint as it prints it.
    #[test]
    fn fingerprints_are_those_of_ssh_keygen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&path)
            .status();
        let Ok(status) = made else { return };
        assert!(status.success());
        let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        let shown =
            std::process::Command::new("ssh-keygen").arg("-lf").arg(&path).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        let blob = public.split_whitespace().nth(1).unwrap();
        assert_eq!(Some(fingerprint(blob).as_str()), shown.split_whitespace().nth(1));
    }

    #[test]
    fn a_changed_key_is_not_a_new_one() {
        let found = |recorded: &[&str]| Found {
            name: "n1".to_owned(),
            known_hosts: "known_hosts".into(),
            lines: vec!["10.0.0.1 ssh-ed25519 AAAA".to_owned()],
            recorded: recorded
                .iter()
                .map(|line| Recorded { line: (*line).to_owned(), raw: (*line).to_owned() })
                .collect(),
        };
        assert!(found(&[]).is_new());
        assert!(!found(&["10.0.0.1 ssh-ed25519 AAAA"]).is_new());
        assert!(found(&["10.0.0.1 ssh-ed25519 BBBB"]).is_changed());
        assert!(!found(&["10.0.0.1 ssh-rsa BBBB"]).is_changed());
        assert!(found(&["10.0.0.1 ssh-rsa BBBB"]).is_new());
    }
}
