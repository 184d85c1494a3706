//! Rules and dashboards against the table of metrics, and against promtool.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use monitoring::dashboards::{self, DASHBOARDS};
use monitoring::metrics;
use monitoring::monitor::{Settings, render, write};
use serde_json::Value;

const RECORDING: &str = include_str!("../prometheus/rules/recording.yml");
const ALERTS: &str = include_str!("../prometheus/rules/alerts.yml");
const RUNBOOK: &str = include_str!("../RUNBOOK.md");

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs promtool; `None`, with the reason printed, where it is not installed.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn promtool(args: &[&str]) -> Option<(bool, String)> {
    match Command::new("promtool").args(args).current_dir(folder("prometheus")).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(error) => {
            eprintln!("skipped: promtool cannot be run ({error}); Debian: prometheus");
            None
        }
    }
}

/// Names of series in an expression: ours, the process's, recorded ones.
fn series_names(expression: &str) -> BTreeSet<&str> {
    // What is quoted is no name, and neither is what a comment says.
    let unquoted = expression.split('"').step_by(2);
    unquoted
        .flat_map(|part| part.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')))
        .map(|token| token.trim_end_matches(':'))
        .filter(|token| {
            token.starts_with("paxos_") || token.starts_with("process_") || token.contains(':')
        })
        .collect()
}

/// The values of `- record:` or `- alert:`.
fn named<'a>(rules: &'a str, key: &str) -> Vec<&'a str> {
    let prefix = format!("- {key}: ");
    rules.lines().filter_map(|line| line.trim_start().strip_prefix(prefix.as_str())).collect()
}

/// The expressions of a rules file. Ours are either on one line, or blocks that are indented.
fn expressions(rules: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut block: Option<usize> = None;
    for line in rules.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(outer) = block {
            if line.is_empty() || indent > outer {
                found.last_mut().unwrap().push_str(line);
                found.last_mut().unwrap().push('\n');
                continue;
            }
            block = None;
        }
        match line.trim_start().strip_prefix("expr: ") {
            Some("|") => {
                found.push(String::new());
                block = Some(indent);
            }
            Some(expression) => found.push(expression.to_owned()),
            None => {}
        }
    }
    found
}

fn known(series: &str) -> bool {
    metrics::exists(series) || named(RECORDING, "record").contains(&series)
}

#[test]
fn rules_speak_only_of_metrics_that_exist() {
    let expressions = [expressions(RECORDING), expressions(ALERTS)].concat();
    assert!(expressions.len() > 30, "the rules were not read: {expressions:?}");
    for expression in expressions {
        for series in series_names(&expression) {
            assert!(known(series), "{series} in `{expression}` is in no table");
        }
    }
}

#[test]
fn every_metric_of_the_table_is_watched_somewhere() {
    let rules = [expressions(RECORDING), expressions(ALERTS)].concat();
    let panels = dashboards::queries().into_iter().map(|query| query.expression);
    let watched: Vec<String> = rules.into_iter().chain(panels).collect();
    let watched: BTreeSet<&str> = watched.iter().flat_map(|text| series_names(text)).collect();
    for metric in metrics::TABLE {
        let name = metric.name;
        let series = [name.to_owned(), format!("{name}_bucket")];
        assert!(
            series.iter().any(|series| watched.contains(series.as_str())),
            "{name} is on no dashboard and in no rule"
        );
    }
}

#[test]
fn every_alert_is_explained_and_tested_both_ways() {
    let alerts = named(ALERTS, "alert");
    assert_eq!(alerts.len(), alerts.iter().collect::<BTreeSet<_>>().len());
    let blocks: Vec<&str> = ALERTS.split("- alert: ").skip(1).collect();
    let mut tests = String::new();
    for entry in fs::read_dir(folder("prometheus/rules/tests")).unwrap() {
        tests.push_str(&fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let cases: Vec<&str> = tests.split("- alertname: ").skip(1).collect();
    for (alert, block) in alerts.iter().zip(blocks) {
        assert!(RUNBOOK.contains(&format!("\n## {alert}\n")), "{alert} is not in RUNBOOK.md");
        let anchor = format!("monitoring/RUNBOOK.md#{}\"", alert.to_lowercase());
        for part in ["severity: ", "summary: ", "description: ", &anchor] {
            assert!(block.contains(part), "{alert} lacks {part}");
        }
        let pages = ["PaxosQuorumLost", "PaxosNoLeader", "PaxosStateDivergence"].contains(alert);
        assert_eq!(block.contains("severity: critical"), pages, "{alert}: only these three page");
        let own = || cases.iter().filter(|case| case.lines().next() == Some(alert));
        let silent = own().filter(|case| case.contains("exp_alerts: []")).count();
        assert!(silent > 0, "{alert} has no test in which it stays silent");
        assert!(own().count() > silent, "{alert} has no test in which it fires");
    }
    for section in RUNBOOK.lines().filter_map(|line| line.strip_prefix("## ")) {
        assert!(alerts.contains(&section), "RUNBOOK.md explains {section}, which is no alert");
    }
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    let tests: Vec<String> = fs::read_dir(folder("prometheus/rules/tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .collect();
    let check = ["check", "rules", "rules/recording.yml", "rules/alerts.yml"];
    let test: Vec<&str> =
        ["test", "rules"].into_iter().chain(tests.iter().map(String::as_str)).collect();
    for args in [check.as_slice(), &test] {
        let Some((accepted, text)) = promtool(args) else { return };
        assert!(accepted, "promtool {args:?}: {text}");
    }
}

#[test]
fn promtool_accepts_a_rendered_folder() {
    let dir = tempfile::tempdir().unwrap();
    let target = monitoring::monitor::ScrapeTarget {
        cluster: "demo".into(),
        node: "n1".into(),
        host: "h1".into(),
        zone: "a".into(),
        address: "127.0.0.1:7381".into(),
    };
    let config = dir.path().join("prometheus/prometheus.yml");
    for scrape_interval in [30, 5, 1].map(Duration::from_secs) {
        let settings = Settings { scrape_interval, ..Settings::default() };
        write(dir.path(), &render(dir.path(), &settings, std::slice::from_ref(&target))).unwrap();
        let Some((accepted, text)) = promtool(&["check", "config", config.to_str().unwrap()])
        else {
            return;
        };
        assert!(accepted && !text.contains("WARNING"), "every {scrape_interval:?}: {text}");
    }
    let Some((accepted, text)) = promtool(&[
        "check",
        "service-discovery",
        "--timeout=2s",
        config.to_str().unwrap(),
        "paxos",
    ]) else {
        return;
    };
    assert!(accepted && text.contains("\"zone\": \"a\""), "{text}");
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().unwrap().iter()
}

#[test]
fn dashboards_are_complete_and_ask_only_for_what_exists() {
    for (name, text) in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(text).unwrap();
        assert!(dashboard["uid"].as_str().unwrap().starts_with("paxos-"), "{name}: fixed uid");
        assert!(dashboard.get("__inputs").is_none(), "{name}: a provisioned file has no inputs");
        assert!(dashboard["id"].is_null(), "{name}: the id is Grafana's");
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        assert_eq!(variables[0]["type"], "datasource", "{name}: the source is a variable");

        let mut ids = BTreeSet::new();
        let mut titles = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(
                ids.insert(panel["id"].as_u64().unwrap()),
                "{name}: id of {title} is not its own"
            );
            assert!(titles.insert(title), "{name}: two panels are called {title}");
            if panel["type"] == "row" {
                continue;
            }
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}: no description");
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
            assert!(unit.is_some_and(|unit| !unit.is_empty()), "{title}: no unit");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{title}: asks nothing");
            for source in
                targets.iter().map(|target| &target["datasource"]).chain([&panel["datasource"]])
            {
                assert_eq!(source["uid"], "${datasource}", "{title}: a fixed source");
            }
        }
    }
    let annotations = DASHBOARDS.iter().flat_map(|(_, text)| {
        let dashboard: Value = serde_json::from_str(text).unwrap();
        let list = dashboard["annotations"]["list"].as_array().unwrap().clone();
        list.into_iter().filter_map(|annotation| annotation["expr"].as_str().map(str::to_owned))
    });
    let panels = dashboards::queries().into_iter().map(|query| query.expression);
    for expression in annotations.chain(panels) {
        for series in series_names(&expression) {
            assert!(known(series), "{series} in `{expression}` is in no table");
        }
        assert!(expression.contains("cluster=\"$cluster\""), "of which cluster? {expression}");
    }
}

#[test]
fn the_rows_of_the_cluster_dashboard_are_those_of_the_contract_and_fill_the_width() {
    let dashboard: Value = serde_json::from_str(DASHBOARDS[0].1).unwrap();
    let rows: Vec<&str> = panels(&dashboard)
        .filter(|panel| panel["type"] == "row")
        .map(|panel| panel["title"].as_str().unwrap())
        .collect();
    let expect =
        ["Verdict", "Leadership", "Log", "Latency", "Network", "Clients", "Disk and process"];
    assert_eq!(rows, expect);
    let mut widths: BTreeMap<u64, u64> = BTreeMap::new();
    for panel in panels(&dashboard) {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        *widths.entry(at("y")).or_default() += at("w");
    }
    assert!(widths.values().all(|width| *width == 24), "{widths:?}");
}

#[test]
fn queries_are_expanded_to_what_prometheus_understands() {
    let queries = dashboards::queries();
    assert!(queries.len() > 60, "only {} queries", queries.len());
    for query in &queries {
        let expanded = query.expanded("demo");
        assert!(!expanded.contains('$'), "{}: {expanded}", query.panel);
    }
    // The parser of promtool is Prometheus's own: the queries as the rules of one group.
    let mut rules = "groups:\n  - name: panels\n    rules:\n".to_owned();
    for (index, query) in queries.iter().enumerate() {
        let expression = query.expanded("demo").replace('\'', "''");
        rules.push_str(&format!("      - {{record: 'panel:{index}', expr: '{expression}'}}\n"));
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("panels.yml");
    fs::write(&file, rules).unwrap();
    let Some((accepted, text)) = promtool(&["check", "rules", file.to_str().unwrap()]) else {
        return;
    };
    assert!(accepted, "{text}");
}
