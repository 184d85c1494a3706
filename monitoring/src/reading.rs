//! One node, read once: its two pages made into one [`NodeStatus`], or why that failed.
//!
//! What changes from moment to moment (slots, lag, leader changes) is taken from `/metrics`, which
//! is what Prometheus sees too; what numbers cannot carry (names, ballots, hashes) from `/status`.

use std::collections::BTreeMap;

use prometheus_parse::{Scrape, Value};
use serde::{Deserialize, Serialize};

use crate::metrics as table;
use crate::status::NodeStatus;

/// A node as the inventory knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub node: String,
    pub id: u32,
    /// What ssh dials, for people.
    pub host: String,
    /// host:port of the pages.
    pub http: String,
}

/// The texts of the two pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    pub metrics: String,
    pub status: String,
}

/// How the pages were reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    Http,
    Ssh,
}

/// One node at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub target: Target,
    pub outcome: Result<Reading, Failure>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub status: NodeStatus,
    pub via: Via,
}

/// Why a node could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing answers: no connection, no answer in time.
    #[error("{0}")]
    Silent(String),
    /// The host answers, the port is closed: no node runs there.
    #[error("{0}")]
    Refused(String),
    /// The node is there and still reads its journal.
    #[error("{0}")]
    Recovering(String),
    /// Something answers that is not this node, or not with what we can read.
    #[error("{0}")]
    Strange(String),
}

impl Reading {
    /// Puts the pages together; an error tells which page is not what it should be.
    pub fn from_pages(target: &Target, pages: &Pages, via: Via) -> Result<Reading, Failure> {
        let strange = |what: String| Failure::Strange(format!("{}: {what}", target.http));
        let mut status: NodeStatus = serde_json::from_str(&pages.status)
            .map_err(|error| strange(format!("/status is not a node's: {error}")))?;
        if status.id != target.id {
            let (name, id) = (&status.name, status.id);
            return Err(strange(format!("answers as {name} (id {id}), not as id {}", target.id)));
        }
        let numbers = Numbers::parse(&pages.metrics);
        let slot = |metric: &table::Metric| {
            numbers
                .get(metric, None)
                .ok_or_else(|| strange(format!("/metrics lacks {}", metric.name)))
        };
        status.chosen_slot = whole(slot(&table::CHOSEN_SLOT)?);
        status.applied_slot = whole(slot(&table::APPLIED_SLOT)?);
        status.leader_changes = whole(slot(&table::LEADER_CHANGES)?);
        for peer in &mut status.peers {
            let of_peer = |metric| numbers.get(metric, Some(&peer.name));
            let (acked, lag) =
                (of_peer(&table::PEER_ACKED_SLOT), of_peer(&table::REPLICATION_LAG_SLOTS));
            let lag_seconds = of_peer(&table::REPLICATION_LAG_SECONDS);
            peer.acked_slot = acked.map_or(peer.acked_slot, whole);
            peer.lag_slots = lag.map_or(peer.lag_slots, whole);
            peer.lag_ms = lag_seconds.map_or(peer.lag_ms, |seconds| whole(seconds * 1e3));
        }
        Ok(Reading { status, via })
    }
}

/// The single numbers of a metrics page, by series name and peer.
struct Numbers(BTreeMap<(String, Option<String>), f64>);

impl Numbers {
    fn parse(page: &str) -> Numbers {
        let lines = page.lines().map(|line| Ok(line.to_owned()));
        let Ok(scrape) = Scrape::parse(lines) else { return Numbers(BTreeMap::new()) };
        let number = |sample: prometheus_parse::Sample| {
            let value = match sample.value {
                Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
                Value::Histogram(_) | Value::Summary(_) => return None,
            };
            let peer = sample.labels.get("peer").map(str::to_owned);
            Some(((sample.metric, peer), value))
        };
        Numbers(scrape.samples.into_iter().filter_map(number).collect())
    }

    fn get(&self, metric: &table::Metric, peer: Option<&str>) -> Option<f64> {
        self.0.get(&(metric.name.to_owned(), peer.map(str::to_owned))).copied()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts of floats saturate, and a negative or missing number of slots counts as none"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Peer;

    fn target() -> Target {
        Target { node: "n1".into(), id: 1, host: "h1".into(), http: "h1:7381".into() }
    }

    fn pages() -> Pages {
        let peers = vec![Peer { id: 2, name: "n2".into(), ..Peer::default() }];
        let status = NodeStatus { id: 1, name: "n1".into(), peers, ..NodeStatus::default() };
        let metrics = "# TYPE paxos_chosen_slot gauge\npaxos_chosen_slot 1203918\n\
                       paxos_applied_slot 1203900\npaxos_leader_changes_total 4\n\
                       paxos_replication_lag_slots{peer=\"n2\"} 818\n\
                       paxos_replication_lag_seconds{peer=\"n2\"} 1.25\n\
                       paxos_peer_acked_slot{peer=\"n2\"} 1203100\n";
        Pages { metrics: metrics.to_owned(), status: serde_json::to_string(&status).unwrap() }
    }

    #[test]
    fn numbers_come_from_the_metrics() {
        let reading = Reading::from_pages(&target(), &pages(), Via::Http).unwrap();
        let status = reading.status;
        assert_eq!((status.chosen_slot, status.applied_slot), (1_203_918, 1_203_900));
        assert_eq!(status.leader_changes, 4);
        let peer = &status.peers[0];
        assert_eq!((peer.lag_slots, peer.lag_ms, peer.acked_slot), (818, 1_250, 1_203_100));
    }

    #[test]
    fn another_node_and_other_software_are_told_apart() {
        let read = |target: &Target, pages: &Pages| {
            Reading::from_pages(target, pages, Via::Http).unwrap_err().to_string()
        };
        let other = Target { id: 7, ..target() };
        assert_eq!(read(&other, &pages()), "h1:7381: answers as n1 (id 1), not as id 7");
        let nginx = Pages { status: "<html>".into(), ..pages() };
        assert!(read(&target(), &nginx).starts_with("h1:7381: /status is not a node's: "));
        let bare = Pages { metrics: "up 1\n\u{0}{{{ nan\n".into(), ..pages() };
        assert_eq!(read(&target(), &bare), "h1:7381: /metrics lacks paxos_chosen_slot");
    }
}
