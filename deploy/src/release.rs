//! The program that is deployed: one static file, known by its digest. A binary that is not what a
//! host can run is found here, before anything is copied.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::digest;
use crate::error::{Error, Kind, Result};

/// Where `make compile` leaves it, unless it lies beside the program that asks.
const BUILT: &str = "target/release/paxos-node";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub path: PathBuf,
    /// sha-256, lower-case hex.
    pub digest: String,
    pub bytes: u64,
}

impl Release {
    /// The folder in `releases/`.
    pub fn name(&self) -> &str {
        digest::release_name(&self.digest)
    }

    /// Where its program lies on a host.
    pub fn program_on(&self, host: &hosts::Host) -> String {
        host.releases_dir().join(self.name()).join("paxos-node").display().to_string()
    }
}

/// The binaries that the inventory names, by architecture. The built one lies beside this program,
/// as both come out of one build, or in the checkout at `root`.
pub fn find(binary: &hosts::Binary, root: &Path) -> Result<BTreeMap<String, Release>> {
    let mut found = BTreeMap::new();
    match binary {
        hosts::Binary::Built => {
            let beside = std::env::current_exe().ok().map(|own| own.with_file_name("paxos-node"));
            let path = beside.filter(|path| path.is_file()).unwrap_or_else(|| root.join(BUILT));
            let (arch, release) = read(&path, "build it: `make compile`")?;
            found.insert(arch, release);
        }
        hosts::Binary::File(path) => {
            let (arch, release) = read(path, "the inventory's `cluster.binary` names it")?;
            found.insert(arch, release);
        }
        hosts::Binary::PerArchitecture(paths) => {
            for (wanted, path) in paths {
                let (arch, release) = read(path, "the inventory's `cluster.binary` names it")?;
                if arch != *wanted {
                    return Err(Error::new(Kind::Usage, format!("read {}", path.display()))
                        .because(format!(
                            "it is a program for {arch}, the inventory says {wanted}"
                        )));
                }
                found.insert(arch, release);
            }
        }
    }
    Ok(found)
}

fn read(path: &Path, mend: &str) -> Result<(String, Release)> {
    let doing = format!("read the node's binary {}", path.display());
    let error = |cause: String| Error::new(Kind::Usage, &*doing).because(cause).hint(mend);
    let mut head = [0; 20];
    let bytes = std::fs::metadata(path).map_err(|cause| error(cause.to_string()))?.len();
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut head))
        .map_err(|cause| error(cause.to_string()))?;
    let arch = elf_machine(&head).map_err(error)?.to_owned();
    let digest = digest::of_file(path).map_err(|cause| error(cause.to_string()))?;
    Ok((arch, Release { path: path.to_owned(), digest, bytes }))
}

/// The architecture in an ELF header, in the words of `uname -m`.
fn elf_machine(head: &[u8; 20]) -> Result<&'static str, String> {
    if head[..4] != *b"\x7fELF" {
        return Err("it is no Linux program (no ELF header)".to_owned());
    }
    match u16::from_le_bytes([head[18], head[19]]) {
        0x3e => Ok("x86_64"),
        0xb7 => Ok("aarch64"),
        0xf3 => Ok("riscv64"),
        other => Err(format!("it is for an unknown machine (ELF {other:#x})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_linux_program_is_a_release() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("paxos-node");
        let missing = read(&path, "build it: `make compile`").unwrap_err();
        assert_eq!(missing.hint.as_deref(), Some("build it: `make compile`"));
        std::fs::write(&path, "#!/bin/sh\necho this is a script\n").unwrap();
        let script = read(&path, "").unwrap_err();
        assert!(script.causes[0].contains("no ELF header"), "{script}");

        let (arch, release) = read(&std::env::current_exe().unwrap(), "").unwrap();
        assert_eq!(arch, std::env::consts::ARCH);
        assert_eq!(release.name().len(), 12);
        assert!(release.digest.starts_with(release.name()));
    }
}
