//! A node's read-only pages through ssh, for when its HTTP port is not reachable from here: the
//! running program itself asks its own node.

use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::ssh::Session;
use crate::supervisor;

const SEPARATOR: &str = "--paxosctl-page";

/// `/metrics` and `/status`.
pub async fn read(session: &Session, host: &hosts::Host) -> Result<(String, String)> {
    let doing = "read the node's pages";
    let script = format!(
        r#"{}if ! node_find; then echo "no node runs there" >&2; exit 1; fi
get() {{ timeout 2 "/proc/$pid/exe" get "$1" --config "$d/node.toml"; }}
get /metrics || exit 1; printf '\n{SEPARATOR}\n'; get /status
"#,
        supervisor::prelude(host)
    );
    let said = session.run_within(doing, &script, Duration::from_secs(5)).await?;
    match said.split_once(&format!("\n{SEPARATOR}\n")) {
        Some((metrics, status)) => Ok((metrics.to_owned(), status.trim().to_owned())),
        None => {
            Err(Error::new(Kind::Remote, doing).on(&*host.name).because("the answer was cut off"))
        }
    }
}
