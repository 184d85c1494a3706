//! Who did what, when, with what result: one line a command in `<deploy_dir>/audit.ndjson` on every
//! host it touched. It never holds arguments that could be secret: verbs and hosts only.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::fleet::Fleet;
use crate::ssh::{Session, quote};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Names the run: the same on all hosts.
    pub id: String,
    /// RFC 3339, by the operator's clock.
    pub time: String,
    pub who: String,
    pub cluster: String,
    pub what: String,
    pub result: String,
    pub duration_ms: u64,
}

/// Appends to every connected host. Hosts that cannot write are named, but stop nothing.
pub async fn append(fleet: &Fleet, entry: &Entry) -> Vec<String> {
    let line = serde_json::to_string(entry).expect("an entry is strings and a number");
    let outcomes = fleet
        .each(
            |_| true,
            |member| {
                let (line, path) = (quote(&line), quote(&path(&member.host)));
                async move {
                    let script = format!("umask 027; printf '%s\\n' {line} >> {path}");
                    member.session.run("write the audit line", &script).await
                }
            },
        )
        .await;
    outcomes
        .into_iter()
        .filter_map(|(member, outcome)| outcome.err().map(|_| member.host.name.clone()))
        .collect()
}

/// The last entries of one host, oldest first.
pub async fn read(session: &Session, host: &hosts::Host, count: usize) -> Result<Vec<Entry>> {
    let script = format!("tail -n {count} {} 2>/dev/null || true", quote(&path(host)));
    let said = session.run("read the audit log", &script).await?;
    Ok(said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn path(host: &hosts::Host) -> String {
    host.deploy_dir.join("audit.ndjson").display().to_string()
}
