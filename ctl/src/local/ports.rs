//! Which ports are taken, and by whom, before anything starts.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

/// One port that somebody else has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub address: SocketAddr,
    /// `name (pid 1234)`, when /proc tells.
    pub holder: Option<String>,
    /// The system's words.
    pub error: String,
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.holder {
            Some(holder) => write!(f, "{} is held by {holder}", self.address),
            None => write!(f, "{}: {}", self.address, self.error),
        }
    }
}

/// Those of `addresses` that cannot be listened on now.
pub fn taken(addresses: &[SocketAddr]) -> Vec<Taken> {
    let mut taken: Vec<Taken> = addresses
        .iter()
        .filter_map(|address| {
            // As a server binds: with SO_REUSEADDR, so that TIME_WAIT is no obstacle.
            let error = TcpListener::bind(address).err()?;
            Some(Taken { address: *address, holder: None, error: error.to_string() })
        })
        .collect();
    if !taken.is_empty() {
        let holders = holders(Path::new("/proc"));
        for port in &mut taken {
            port.holder = find(&holders, port.address);
        }
    }
    taken
}

/// Listening sockets, by their address, with their holder.
type Holders = HashMap<SocketAddr, String>;

fn find(holders: &Holders, address: SocketAddr) -> Option<String> {
    let any: [IpAddr; 2] = [[0, 0, 0, 0].into(), [0u16; 8].into()];
    let exact = holders.get(&address);
    exact
        .or_else(|| any.iter().find_map(|ip| holders.get(&SocketAddr::new(*ip, address.port()))))
        .cloned()
}

fn holders(proc: &Path) -> Holders {
    let mut by_inode: HashMap<u64, SocketAddr> = HashMap::new();
    for table in ["net/tcp", "net/tcp6"] {
        let text = fs::read_to_string(proc.join(table)).unwrap_or_default();
        by_inode.extend(text.lines().skip(1).filter_map(listening));
    }
    let mut holders = Holders::new();
    let mut pids: Vec<u32> = fs::read_dir(proc)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // A child shares its parent's sockets until it runs another program: the parent is named.
    pids.sort_unstable();
    for pid in pids {
        let process = proc.join(pid.to_string());
        // Other users' processes cannot be looked into; their ports stay without a name.
        for fd in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let Ok(link) = fs::read_link(fd.path()) else { continue };
            let inode = link.to_str().and_then(|link| {
                link.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
            });
            if let Some(address) = inode.and_then(|inode| by_inode.get(&inode)) {
                let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
                holders
                    .entry(*address)
                    .or_insert_with(|| format!("{} (pid {pid})", command.trim()));
            }
        }
    }
    holders
}

/// One line of /proc/net/tcp: the address and inode of a socket that listens.
fn listening(line: &str) -> Option<(u64, SocketAddr)> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((fields.get(9)?.parse().ok()?, SocketAddr::new(ip_of(ip)?, port)))
}

/// The kernel prints addresses as words of 32 bits in the byte order of the machine.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let words: Option<Vec<u32>> = hex
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok())
        .collect();
    let bytes: Vec<u8> = words?.iter().flat_map(|word| word.to_ne_bytes()).collect();
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = taken(&[address]);
        assert_eq!(found.len(), 1);
        let holder = found[0].holder.as_deref().unwrap();
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        drop(listener);
        assert_eq!(taken(&[address]), []);
    }

    #[test]
    fn a_wildcard_listener_holds_every_address() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = taken(&[SocketAddr::from(([127, 0, 0, 1], port))]);
        assert!(found[0].holder.is_some(), "{found:?}");
    }
}
