//! Names for bytes: sha-256, lower-case hex. A release folder is named after its first twelve digits.

use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

pub fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn of_file(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// The name of the folder in `releases/` that holds a binary of this digest.
pub fn release_name(digest: &str) -> &str {
    &digest[..digest.len().min(12)]
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
