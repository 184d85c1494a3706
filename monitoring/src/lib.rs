//! What we watch: one table of metrics, the page that a node shows of itself, and the verdict that
//! an operator's tool draws from the pages of all nodes.
//!
//! - [`metrics`]: THE table. Name, kind, labels, buckets, unit and help of every metric. Rules and
//!   dashboards beside this crate may only speak of what stands there; tests hold them to it.
//! - [`exposition`]: a `prometheus::Registry` made from the table, and its text.
//! - [`status`]: the `/status` page of one node, and whether that node is ready.
//! - [`scrape`]: reads the pages of all nodes at one instant; [`reading`]: what came of it.
//! - [`dashboards`]: what is shown, and the queries behind it; [`monitor`]: the files and command
//!   lines of a Prometheus and a Grafana on the operator's machine.
//! - [`verdict`]: healthy, degraded, unavailable or divergent; [`show`]: the same in words.

pub mod dashboards;
pub mod exposition;
pub mod metrics;
pub mod monitor;
pub mod reading;
pub mod scrape;
pub mod show;
pub mod status;
pub mod verdict;
