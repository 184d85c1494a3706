//! The dashboards, as files and as what they ask. The queries are taken out so that tests can put
//! each of them to a real Prometheus: a panel that returns nothing is a bug, found there.

use serde_json::Value;

/// File name and content of each dashboard.
pub const DASHBOARDS: &[(&str, &str)] =
    &[("cluster.json", include_str!("../grafana/dashboards/cluster.json"))];

/// One query of one panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PanelQuery {
    /// Uid of the dashboard.
    pub dashboard: String,
    pub panel: String,
    pub reference: String,
    /// With Grafana's variables; see [`PanelQuery::expanded`].
    pub expression: String,
}

impl PanelQuery {
    /// The query as Grafana would send it for all nodes of `cluster`.
    pub fn expanded(&self, cluster: &str) -> String {
        self.expression
            .replace("$cluster", cluster)
            .replace("$node", ".*")
            .replace("$__rate_interval", "1m")
            .replace("$__interval", "15s")
            .replace("$__range", "30m")
    }
}

/// Every query of every panel of every dashboard.
pub fn queries() -> Vec<PanelQuery> {
    DASHBOARDS.iter().flat_map(|(name, text)| dashboard_queries(name, text)).collect()
}

fn dashboard_queries(name: &str, text: &str) -> Vec<PanelQuery> {
    let dashboard: Value = serde_json::from_str(text)
        .unwrap_or_else(|error| panic!("dashboard {name} is not JSON: {error}"));
    let uid = text_of(&dashboard, "uid");
    let panels = list(&dashboard, "panels");
    let query = |panel: &Value, target: &Value| PanelQuery {
        dashboard: uid.clone(),
        panel: text_of(panel, "title"),
        reference: text_of(target, "refId"),
        expression: text_of(target, "expr"),
    };
    panels
        .iter()
        .flat_map(|panel| list(panel, "targets").iter().map(move |target| query(panel, target)))
        .collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text_of(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
