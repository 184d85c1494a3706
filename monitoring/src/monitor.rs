//! What runs Prometheus and Grafana on the operator's machine: one folder with all their files, and
//! the command lines that start them there. Everything is decided here and carried out elsewhere;
//! only [`write()`] touches the disk.
//!
//! ```text
//! <dir>/prometheus/prometheus.yml, rules/*.yml, targets/<cluster>.json, data/
//! <dir>/grafana/grafana.ini, provisioning/…, dashboards/*.json, data/
//! ```

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use serde::Serialize;

use crate::dashboards::DASHBOARDS;

/// Where the two listen and how they scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub prometheus: SocketAddr,
    pub grafana: SocketAddr,
    pub scrape_interval: Duration,
    /// How long Prometheus keeps data.
    pub retention: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            prometheus: SocketAddr::from(([127, 0, 0, 1], 9090)),
            grafana: SocketAddr::from(([127, 0, 0, 1], 3000)),
            scrape_interval: Duration::from_secs(5),
            retention: "15d".to_owned(),
        }
    }
}

/// One node to scrape, with the labels that Prometheus gives its series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeTarget {
    pub cluster: String,
    pub node: String,
    pub host: String,
    /// Empty when the inventory names none.
    pub zone: String,
    /// host:port of the pages.
    pub address: String,
}

/// A file to be, relative to the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub path: PathBuf,
    pub text: String,
}

/// A process to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Names under which the program may be found; the first that exists.
    pub programs: Vec<String>,
    pub args: Vec<String>,
    pub listen: SocketAddr,
    /// Answers 200 once the process serves.
    pub ready_url: String,
    /// Where people look.
    pub url: String,
    /// Debian package, or where else to get it, for the hint.
    pub get_it: &'static str,
}

const SCRAPE_TIMEOUT_MAX: Duration = Duration::from_secs(3);
const PROMETHEUS_YML: &str = include_str!("../prometheus/prometheus.yml");
const RECORDING_YML: &str = include_str!("../prometheus/rules/recording.yml");
const ALERTS_YML: &str = include_str!("../prometheus/rules/alerts.yml");
const DATASOURCE_YML: &str = include_str!("../grafana/provisioning/datasources/paxos.yml");
const PROVIDER_YML: &str = include_str!("../grafana/provisioning/dashboards/paxos.yml");

/// The files of one folder that watches the targets' clusters. `dir` is absolute: Grafana's files
/// name it.
pub fn render(dir: &Path, settings: &Settings, targets: &[ScrapeTarget]) -> Vec<File> {
    assert!(dir.is_absolute(), "{} would depend on where Grafana is started", dir.display());
    let grafana = dir.join("grafana");
    // Prometheus refuses a timeout that is longer than the interval.
    let timeout = settings.scrape_interval.min(SCRAPE_TIMEOUT_MAX);
    let prometheus_yml =
        replaced(PROMETHEUS_YML, "_interval: 5s", &millis(settings.scrape_interval));
    let prometheus_yml = replaced(&prometheus_yml, "scrape_timeout: 3s", &millis(timeout));
    let source = replaced(
        DATASOURCE_YML,
        "http://127.0.0.1:9090",
        &format!("http://{}", settings.prometheus),
    );
    let provider = replaced(
        PROVIDER_YML,
        "/etc/grafana/dashboards/paxos",
        &grafana.join("dashboards").display().to_string(),
    );
    let mut files = vec![
        file("prometheus/prometheus.yml", &prometheus_yml),
        file("prometheus/rules/recording.yml", RECORDING_YML),
        file("prometheus/rules/alerts.yml", ALERTS_YML),
        file("grafana/grafana.ini", &grafana_ini(&grafana, settings)),
        file("grafana/provisioning/datasources/paxos.yml", &source),
        file("grafana/provisioning/dashboards/paxos.yml", &provider),
    ];
    for (name, text) in DASHBOARDS {
        files.push(file(&format!("grafana/dashboards/{name}"), text));
    }
    let mut clusters: Vec<&str> = targets.iter().map(|target| target.cluster.as_str()).collect();
    clusters.sort_unstable();
    clusters.dedup();
    for cluster in clusters {
        let own: Vec<&ScrapeTarget> =
            targets.iter().filter(|target| target.cluster == cluster).collect();
        files.push(file(&targets_path(cluster), &targets_json(&own)));
    }
    files
}

/// The file, relative to the folder, that lists a cluster's targets. Removing it stops scraping.
pub fn targets_path(cluster: &str) -> String {
    format!("prometheus/targets/{cluster}.json")
}

/// What `file_sd_configs` reads.
pub fn targets_json(targets: &[&ScrapeTarget]) -> String {
    #[derive(Serialize)]
    struct Group<'a> {
        targets: [&'a str; 1],
        labels: Labels<'a>,
    }
    #[derive(Serialize)]
    struct Labels<'a> {
        cluster: &'a str,
        node: &'a str,
        host: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        zone: &'a str,
    }
    let groups: Vec<Group<'_>> = targets
        .iter()
        .map(|target| Group {
            targets: [&target.address],
            labels: Labels {
                cluster: &target.cluster,
                node: &target.node,
                host: &target.host,
                zone: &target.zone,
            },
        })
        .collect();
    let mut text = serde_json::to_string_pretty(&groups).expect("target groups have string keys");
    text.push('\n');
    text
}

/// Writes the files, each under another name first and then renamed, so that neither process ever
/// reads half a file. The other name does not end like the real one: file_sd watches `*.json`.
pub fn write(dir: &Path, files: &[File]) -> io::Result<()> {
    for folder in ["prometheus/data", "grafana/data", "prometheus/targets"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    for File { path, text } in files {
        let path = dir.join(path);
        let parent = path.parent().expect("every file lies in a folder of ours");
        fs::create_dir_all(parent)?;
        let mut part = path.clone().into_os_string();
        part.push(".part");
        let mut writer = fs::File::create(&part)?;
        writer.write_all(text.as_bytes())?;
        writer.sync_all()?;
        fs::rename(&part, &path)?;
    }
    Ok(())
}

pub fn prometheus_command(dir: &Path, settings: &Settings) -> CommandLine {
    let dir = dir.join("prometheus");
    let url = format!("http://{}", settings.prometheus);
    CommandLine {
        programs: vec!["prometheus".to_owned()],
        args: vec![
            format!("--config.file={}", dir.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", dir.join("data").display()),
            format!("--storage.tsdb.retention.time={}", settings.retention),
            format!("--web.listen-address={}", settings.prometheus),
        ],
        listen: settings.prometheus,
        ready_url: format!("{url}/-/ready"),
        url,
        get_it: "Debian: apt install prometheus",
    }
}

pub fn grafana_command(dir: &Path, settings: &Settings) -> CommandLine {
    let url = format!("http://{}", settings.grafana);
    CommandLine {
        programs: vec![
            "grafana-server".to_owned(),
            "/usr/sbin/grafana-server".to_owned(),
            "/usr/share/grafana/bin/grafana-server".to_owned(),
        ],
        args: vec![
            "--homepath=/usr/share/grafana".to_owned(),
            format!("--config={}", dir.join("grafana/grafana.ini").display()),
        ],
        listen: settings.grafana,
        ready_url: format!("{url}/api/health"),
        url: format!("{url}/d/paxos-cluster"),
        get_it: "packages at grafana.com; Debian has none",
    }
}

/// Viewers need no password, since it listens on loopback; nobody may change anything.
fn grafana_ini(dir: &Path, settings: &Settings) -> String {
    let (dir, address, port) = (dir.display(), settings.grafana.ip(), settings.grafana.port());
    format!(
        "[paths]\ndata = {dir}/data\nlogs = {dir}/data/log\nplugins = {dir}/data/plugins\n\
         provisioning = {dir}/provisioning\n\n\
         [server]\nhttp_addr = {address}\nhttp_port = {port}\n\n\
         [auth.anonymous]\nenabled = true\norg_role = Viewer\n\n\
         [security]\ndisable_initial_admin_creation = true\n\n\
         [users]\nallow_sign_up = false\n\n\
         [dashboards]\ndefault_home_dashboard_path = {dir}/dashboards/cluster.json\n\n\
         [analytics]\nreporting_enabled = false\ncheck_for_updates = false\n\
         check_for_plugin_updates = false\n\n\
         [news]\nnews_feed_enabled = false\n\n[log]\nmode = console\nlevel = warn\n"
    )
}

/// Replaces the value that our file holds for a setting. The setting must be there: a file that was
/// edited without its renderer is found by the first test that renders.
fn replaced(text: &str, shipped: &str, value: &str) -> String {
    assert!(text.contains(shipped), "a file of this crate no longer says `{shipped}`");
    match shipped.split_once(": ") {
        Some((key, _)) => text.replace(shipped, &format!("{key}: {value}")),
        None => text.replace(shipped, value),
    }
}

/// As Prometheus writes durations.
fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

fn file(path: &str, text: &str) -> File {
    File { path: PathBuf::from(path), text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(cluster: &str, node: &str, zone: &str) -> ScrapeTarget {
        ScrapeTarget {
            cluster: cluster.into(),
            node: node.into(),
            host: format!("host-{node}"),
            zone: zone.into(),
            address: format!("{node}:7381"),
        }
    }

    fn text<'a>(files: &'a [File], path: &str) -> &'a str {
        &files.iter().find(|file| file.path == Path::new(path)).expect(path).text
    }

    #[test]
    fn settings_reach_the_files() {
        let settings = Settings {
            prometheus: "127.0.0.1:19090".parse().unwrap(),
            grafana: "127.0.0.1:13000".parse().unwrap(),
            scrape_interval: Duration::from_secs(1),
            ..Settings::default()
        };
        let files = render(Path::new("/srv/watch"), &settings, &[target("demo", "n1", "a")]);
        let yml = text(&files, "prometheus/prometheus.yml");
        for key in ["scrape_interval", "evaluation_interval", "scrape_timeout"] {
            assert!(yml.contains(&format!("{key}: 1000ms\n")), "{yml}");
        }
        let source = text(&files, "grafana/provisioning/datasources/paxos.yml");
        assert!(source.contains("url: http://127.0.0.1:19090\n"), "{source}");
        let provider = text(&files, "grafana/provisioning/dashboards/paxos.yml");
        assert!(provider.contains("path: /srv/watch/grafana/dashboards\n"), "{provider}");
        assert!(text(&files, "grafana/grafana.ini").contains("http_port = 13000\n"));
        let command = prometheus_command(Path::new("/srv/watch"), &settings);
        assert!(command.args.contains(&"--web.listen-address=127.0.0.1:19090".to_owned()));
    }

    #[test]
    fn each_cluster_has_its_own_target_file() {
        let targets = [target("b", "n1", ""), target("a", "n1", "east"), target("a", "n2", "west")];
        let files = render(Path::new("/w"), &Settings::default(), &targets);
        let a: serde_json::Value =
            serde_json::from_str(text(&files, "prometheus/targets/a.json")).unwrap();
        let expect = serde_json::json!([
            { "targets": ["n1:7381"],
              "labels": { "cluster": "a", "node": "n1", "host": "host-n1", "zone": "east" } },
            { "targets": ["n2:7381"],
              "labels": { "cluster": "a", "node": "n2", "host": "host-n2", "zone": "west" } },
        ]);
        assert_eq!(a, expect);
        let b = text(&files, "prometheus/targets/b.json");
        assert!(!b.contains("zone"), "an unknown zone is no label: {b}");
    }

    #[test]
    fn writing_twice_leaves_the_files_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let files = render(dir.path(), &Settings::default(), &[target("demo", "n1", "a")]);
        for _ in 0..2 {
            write(dir.path(), &files).unwrap();
        }
        for File { path, text } in &files {
            assert_eq!(&fs::read_to_string(dir.path().join(path)).unwrap(), text);
        }
        let targets = fs::read_dir(dir.path().join("prometheus/targets")).unwrap();
        let names: Vec<_> = targets.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["demo.json"]);
    }
}
