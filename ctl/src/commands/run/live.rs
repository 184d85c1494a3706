//! The live view of `paxosctl run`: on a terminal it redraws itself several times a second,
//! elsewhere it says one line a second.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use monitoring::status::{Ballot, NodeStatus, Role};
use proof::stats::Stats;

use super::summary::grouped;
use crate::cli::Context;
use crate::local::{LocalCluster, leader_of};
use crate::ui::{Cell, Style};

const LINE_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Live<'a> {
    context: &'a Context,
    stats: Arc<Stats>,
    /// Names of nodes whose death was told.
    told_dead: BTreeSet<String>,
    led_by: Option<(u32, Ballot)>,
    /// After the first election.
    pub(super) leader_changes: u64,
    pub(super) leader: Option<String>,
    last_line: Instant,
    last: Totals,
    /// Figures of the last full second.
    rates: Rates,
    lines_drawn: usize,
}

#[derive(Clone, Copy, Default)]
struct Totals {
    writes: u64,
    reads: u64,
}

struct Rates {
    writes_per_second: f64,
    reads_per_second: f64,
    recent_us: Histogram<u64>,
}

impl<'a> Live<'a> {
    pub(super) fn new(context: &'a Context, stats: Arc<Stats>) -> Live<'a> {
        let recent_us = stats.interval();
        Live {
            context,
            stats,
            told_dead: BTreeSet::new(),
            led_by: None,
            leader_changes: 0,
            leader: None,
            last_line: Instant::now(),
            last: Totals::default(),
            rates: Rates { writes_per_second: 0.0, reads_per_second: 0.0, recent_us },
            lines_drawn: 0,
        }
    }

    /// Asks every node how it is, and shows it when it is time to.
    pub(super) async fn look(&mut self, cluster: &mut LocalCluster) {
        let statuses = cluster.statuses().await;
        self.tell_deaths(cluster);
        self.note_leader(&statuses);
        let is_time = self.last_line.elapsed() >= LINE_EVERY;
        if is_time {
            self.measure();
        }
        if self.context.json() {
            if is_time {
                self.context.ui.json(&self.as_json(cluster, &statuses));
            }
        } else if self.context.ui.stdout_is_terminal {
            self.redraw(cluster, &statuses);
        } else if is_time {
            self.context.ui.data(self.line(cluster, &statuses));
        }
    }

    fn tell_deaths(&mut self, cluster: &mut LocalCluster) {
        for node in &mut cluster.nodes {
            if let Err(died) = node.still_runs()
                && self.told_dead.insert(node.name.clone())
            {
                // What is drawn next must not overwrite this.
                self.lines_drawn = 0;
                self.context.ui.warn(died.to_string());
            }
        }
    }

    fn note_leader(&mut self, statuses: &[Option<NodeStatus>]) {
        let leader = leader_of(statuses);
        let status = statuses.iter().flatten().find(|status| Some(status.id) == leader);
        self.leader = status.map(|status| status.name.clone());
        if let Some(status) = status {
            let leads = (status.id, status.ballot);
            if self.led_by.is_some_and(|before| before != leads) {
                self.leader_changes += 1;
            }
            self.led_by = Some(leads);
        }
    }

    fn measure(&mut self) {
        let counts = self.stats.total();
        let seconds = self.last_line.elapsed().as_secs_f64();
        let per_second = |now: u64, before: u64| (now - before) as f64 / seconds;
        self.rates = Rates {
            writes_per_second: per_second(counts.writes_ok, self.last.writes),
            reads_per_second: per_second(counts.reads_ok, self.last.reads),
            recent_us: self.stats.interval(),
        };
        self.last = Totals { writes: counts.writes_ok, reads: counts.reads_ok };
        self.last_line = Instant::now();
    }

    /// One line that says it all, for logs and pipes.
    fn line(&self, cluster: &LocalCluster, statuses: &[Option<NodeStatus>]) -> String {
        let lags: Vec<String> = cluster
            .nodes
            .iter()
            .zip(statuses)
            .filter(|(node, _)| Some(&node.name) != self.leader.as_ref())
            .map(|(node, status)| match status {
                Some(status) => format!("{} {}", node.name, lag(statuses, status)),
                None => format!("{} down", node.name),
            })
            .collect();
        format!(
            "{}  lag {}",
            self.head(statuses),
            if lags.is_empty() { "-".into() } else { lags.join(", ") }
        )
    }

    fn head(&self, statuses: &[Option<NodeStatus>]) -> String {
        let leader = match (&self.leader, self.led_by) {
            (Some(name), Some((_, ballot))) => format!("leader {name} ballot {ballot}"),
            _ => "no leader".to_owned(),
        };
        let counts = self.stats.total();
        let p99_ms = self.rates.recent_us.value_at_quantile(0.99) as f64 / 1000.0;
        format!(
            "{:>4}s  {leader}  chosen {}  {} writes/s  {} reads/s  p99 {p99_ms:.2} ms  unknown {}  refused {}",
            self.stats.elapsed().as_secs(),
            grouped(chosen_slot(statuses)),
            grouped(self.rates.writes_per_second as u64),
            grouped(self.rates.reads_per_second as u64),
            counts.unknown,
            counts.failed,
        )
    }

    /// The same with a table of the nodes, drawn over what was drawn before.
    fn redraw(&mut self, cluster: &LocalCluster, statuses: &[Option<NodeStatus>]) {
        let rows: Vec<Vec<Cell>> = cluster
            .nodes
            .iter()
            .zip(statuses)
            .map(|(node, status)| {
                let client: Cell = node.listen.client.to_string().into();
                let Some(status) = status else {
                    let down = Cell::new("down", Style::Bad);
                    return vec![node.name.clone().into(), down, client];
                };
                let state = match status.role {
                    Role::Leader => Cell::new("LEADER", Style::Good),
                    other => Cell::new(other.to_string(), Style::Plain),
                };
                vec![
                    node.name.clone().into(),
                    state,
                    client,
                    status.ballot.to_string().into(),
                    grouped(status.chosen_slot).into(),
                    grouped(status.applied_slot).into(),
                    lag(statuses, status).to_string().into(),
                    status
                        .sync_p99_us
                        .map_or("-".into(), |us| format!("{:.1}ms", us as f64 / 1e3))
                        .into(),
                ]
            })
            .collect();
        let head =
            ["NODE", "STATE", "CLIENTS AT", "BALLOT", "CHOSEN", "APPLIED", "LAG", "FSYNC p99"];
        let table = self.context.ui.table(&head, &rows);
        let text = format!("{}\n\n{table}\nCtrl-C stops", self.head(statuses));
        let up = match self.lines_drawn {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        };
        self.lines_drawn = text.lines().count();
        self.context.ui.data(format!("{up}{text}"));
    }

    fn as_json(
        &self,
        cluster: &LocalCluster,
        statuses: &[Option<NodeStatus>],
    ) -> serde_json::Value {
        let nodes: Vec<serde_json::Value> = cluster
            .nodes
            .iter()
            .zip(statuses)
            .map(|(node, status)| match status {
                None => serde_json::json!({ "name": node.name, "state": "down" }),
                Some(status) => serde_json::json!({
                    "name": node.name,
                    "state": status.role.to_string(),
                    "chosen_slot": status.chosen_slot.to_string(),
                    "applied_slot": status.applied_slot.to_string(),
                    "lag_slots": lag(statuses, status).to_string(),
                }),
            })
            .collect();
        let counts = self.stats.total();
        serde_json::json!({
            "schema_version": 1,
            "event": "look",
            "elapsed_ms": self.stats.elapsed().as_millis() as u64,
            "leader": self.leader,
            "chosen_slot": chosen_slot(statuses).to_string(),
            "writes_per_second": self.rates.writes_per_second,
            "reads_per_second": self.rates.reads_per_second,
            "p99_us": self.rates.recent_us.value_at_quantile(0.99),
            "unknown": counts.unknown.to_string(),
            "refused": counts.failed.to_string(),
            "nodes": nodes,
        })
    }
}

fn chosen_slot(statuses: &[Option<NodeStatus>]) -> u64 {
    statuses.iter().flatten().map(|status| status.chosen_slot).max().unwrap_or(0)
}

/// Slots that this node has not applied, of those that any node knew chosen at the same look.
fn lag(statuses: &[Option<NodeStatus>], of: &NodeStatus) -> u64 {
    chosen_slot(statuses).saturating_sub(of.applied_slot)
}
