//! `paxos-node get /metrics`: one of this node's own pages, for a deployer whose ssh allows no
//! forwarding.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const DEADLINE: Duration = Duration::from_secs(5);

/// Status code and body.
pub fn page(listen: SocketAddr, page: &str) -> Result<(u16, String)> {
    if !page.starts_with('/') || page.contains(char::is_whitespace) {
        bail!("`{page}` is no page; there are /metrics, /status, /healthz and /readyz");
    }
    let mut address = listen;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let doing = || format!("get {page} from {address} (does the node run?)");
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).with_context(doing)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    // HTTP/1.0: the end of the answer is the end of the connection.
    write!(stream, "GET {page} HTTP/1.0\r\nHost: {address}\r\n\r\n").with_context(doing)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(doing)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(doing)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).with_context(doing)?;
    Ok((status, body.to_owned()))
}
