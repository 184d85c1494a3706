//! What the core loop shows to the rest of the process: its newest status, and when it was put
//! here. The loop never waits for a reader: readers hold the lock for the copy of one pointer.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use monitoring::status::NodeStatus;

use crate::metrics::Metrics;

/// Filled by the core loop, read by the pages.
pub struct Published {
    metrics: Arc<Metrics>,
    started: Instant,
    newest: Mutex<Option<(Instant, Arc<NodeStatus>)>>,
}

impl Published {
    pub fn new(metrics: Arc<Metrics>) -> Published {
        Published { metrics, started: Instant::now(), newest: Mutex::new(None) }
    }

    /// To be called every 100 ms, and at each change of leader: the pages call a core that has not
    /// published for two seconds dead.
    pub fn store(&self, status: NodeStatus) {
        let now = Instant::now();
        let now_us = (now - self.started).as_micros();
        self.metrics.saw_leader(u64::try_from(now_us).unwrap_or(u64::MAX), status.leader);
        let status = Some((now, Arc::new(status)));
        *self.newest.lock().expect("no holder of this lock panics") = status;
    }

    /// The newest status and its age; `None` while the node still recovers.
    pub fn newest(&self) -> Option<(Duration, Arc<NodeStatus>)> {
        let newest = self.newest.lock().expect("no holder of this lock panics").clone();
        newest.map(|(stamp, status)| (stamp.elapsed(), status))
    }

    /// Since the process began.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
