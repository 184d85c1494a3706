//! From a finished load to one verdict: everything is read back, the ledger is audited, and the
//! recorded history, with those last reads, is searched.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::check::{self, Limits, Verdict};
use crate::client::{Client, Fate, Target};
use crate::history::{Action, Answer, Operation, Outcome};
use crate::ledger::Audit;
use crate::load::Finished;
use crate::resp::Reply;

/// The client that reads back after the load has stopped.
const READER: u32 = u32::MAX;

/// What a load proved.
#[derive(Clone, Debug)]
pub struct Proof {
    pub audit: Audit,
    pub linearizability: Verdict,
    /// Operations in the recorded history, and those of unknown fate among them.
    pub recorded: usize,
    pub recorded_unknown: usize,
    /// Both together.
    pub verdict: Verdict,
}

impl Finished {
    /// Reads everything back within `patience`, and judges. The cluster must be reachable again by
    /// now; keys that cannot be read make the verdict unknown.
    pub async fn verify(&mut self, target: &Target, patience: Duration, limits: Limits) -> Proof {
        let audit = self.ledger.audit(target, patience).await;
        let read_back = self.read_recorded_keys(target, patience).await;
        let history = std::mem::take(&mut self.history);
        // The search is all computation: it must not hold up whatever else runs on this runtime.
        let (history, linearizability) = tokio::task::spawn_blocking(move || {
            let verdict = check::linearizable(&history, limits);
            (history, verdict)
        })
        .await
        .expect("the search does not panic");
        self.history = history;
        let audited = judge(&audit, limits);
        let verdict = audited.and(linearizability.clone()).and(read_back);
        Proof {
            recorded: self.history.operations.len(),
            recorded_unknown: self.history.unknown_count(),
            audit,
            linearizability,
            verdict,
        }
    }

    /// The last reads are operations like any other: they catch a last write that was lost.
    async fn read_recorded_keys(&mut self, target: &Target, patience: Duration) -> Verdict {
        let keys: BTreeSet<Bytes> =
            self.history.operations.iter().map(|operation| operation.key.clone()).collect();
        let deadline = Instant::now() + patience;
        let mut client = Client::new(target.clone(), 0);
        for key in keys {
            loop {
                let invoked_ns = self.stats.now_ns();
                let fate = client.call(&[b"GET", &key]).await;
                let returned_ns = self.stats.now_ns();
                let value = match fate {
                    Fate::Done(Reply::Bulk(value)) => Some(value),
                    Fate::Done(Reply::Nil) => None,
                    _ if Instant::now() < deadline => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                    other => {
                        let key = String::from_utf8_lossy(&key).into_owned();
                        return Verdict::Unknown(format!("read {key} back: {other:?}"));
                    }
                };
                self.history.operations.push(Operation {
                    client: READER,
                    key,
                    action: Action::Get,
                    invoked_ns,
                    returned_ns,
                    outcome: Outcome::Ok(Answer::Value(value)),
                });
                break;
            }
        }
        Verdict::Holds
    }
}

fn judge(audit: &Audit, limits: Limits) -> Verdict {
    if let Some(first) = audit.findings.first() {
        return Verdict::Violated(format!("{} findings, the first: {first}", audit.findings_count));
    }
    if audit.unreadable > 0 {
        return Verdict::Unknown(format!("{} keys could not be read back", audit.unreadable));
    }
    if audit.writes_acknowledged < limits.ok_min as u64 {
        return Verdict::Unknown(format!(
            "only {} writes were acknowledged, {} are needed to say anything",
            audit.writes_acknowledged, limits.ok_min
        ));
    }
    Verdict::Holds
}
