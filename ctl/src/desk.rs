//! What most verbs do first: read the inventory, pick the hosts, dial them, and give long work a
//! voice.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deploy::fleet::{Event, Fleet, Watch};
use hosts::{Host, Inventory, Selection};
use tokio::runtime::Handle;

use crate::cli::Context;
use crate::error::{Error, Word};
use crate::ui::{ProgressLine, Ui};

/// Reads the inventory that `-i` names. All its problems are shown at once.
pub fn load_inventory(context: &Context) -> Result<Inventory, Error> {
    let inventory = load_inventory_quietly(context)?;
    for warning in &inventory.warnings.0 {
        context.ui.say(warning.to_string());
    }
    Ok(inventory)
}

/// The same without its warnings: for verbs that are about to mend them.
pub fn load_inventory_quietly(context: &Context) -> Result<Inventory, Error> {
    let path = &context.global.inventory;
    let names = config::preset_names();
    let knowledge = hosts::Knowledge { presets: Some(&names) };
    let loaded = match path.to_str().and_then(|path| path.strip_prefix("ssh://")) {
        Some(place) => {
            let fetch = fetch_inventory(place, context);
            let text = tokio::task::block_in_place(|| Handle::current().block_on(fetch))?;
            let here = std::env::current_dir().map_err(internal("find the current folder"))?;
            hosts::parse(&text, &path.display().to_string(), &here, knowledge)
        }
        None => hosts::load_with(path, knowledge),
    };
    loaded.map_err(|problems| {
        context.ui.say(problems.to_string());
        let count = problems.0.iter().filter(|p| p.severity == hosts::Severity::Error).count();
        let errors = if count == 1 { "error" } else { "errors" };
        Error::usage(format!("the inventory {} has {count} {errors}", path.display()))
    })
}

/// The copy that `up` left on a host: `ssh://[user@]host[:port][/deploy_dir]`. For an inventory that
/// was lost here; its relative paths then begin in the current folder.
async fn fetch_inventory(place: &str, context: &Context) -> Result<String, Error> {
    let (authority, folder) = match place.split_once('/') {
        Some((authority, folder)) if !folder.is_empty() => (authority, format!("/{folder}")),
        _ => (place.trim_end_matches('/'), "/opt/paxos".to_owned()),
    };
    let (user, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (Some(user.to_owned()), address),
        None => (None, authority),
    };
    let (address, port) = match address.rsplit_once(':') {
        Some((address, port)) if !address.contains(':') => {
            let port = port.parse().map_err(|_| Error::usage(format!("`{port}` is no port")))?;
            (address, Some(port))
        }
        _ => (address, None),
    };
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let destination = deploy::ssh::Destination {
        name: address.to_owned(),
        address: address.trim_matches(['[', ']']).to_owned(),
        user,
        port,
        identity_file: None,
        jump: Vec::new(),
        known_hosts: home.join(".ssh/known_hosts"),
        host_keys: deploy::ssh::HostKeys::Strict,
        connect_timeout: context.global.timeout.unwrap_or(Duration::from_secs(5)),
    };
    let session = deploy::ssh::Session::connect(&destination).await?;
    let path = deploy::ssh::quote(&format!("{folder}/inventory.toml"));
    Ok(session.run("read the inventory that `up` left there", &format!("cat {path}")).await?)
}

/// The hosts that `-n` and `-l` name; all of them without either.
pub fn select<'a>(context: &Context, inventory: &'a Inventory) -> Result<Vec<&'a Host>, Error> {
    inventory
        .select(&selection(context))
        .map_err(|error| Error::usage(error.message).hint(error.hint))
}

pub fn selection(context: &Context) -> Selection {
    Selection { names: context.global.node.clone(), labels: context.global.label.clone() }
}

/// Dials hosts; those that could not be reached are in the second half.
pub async fn dial(
    context: &Context,
    inventory: &Inventory,
    hosts: &[&Host],
) -> (Fleet, Vec<deploy::Error>) {
    let parallel = context.global.parallel.map_or(inventory.max_parallel, usize::from);
    deploy::fleet::connect(hosts, parallel).await
}

/// Hosts that were left out, on request, make a run a partial one.
pub fn left_out(errors: Vec<deploy::Error>) -> Result<ExitCode, Error> {
    match deploy::Error::all(errors) {
        None => Ok(crate::ui::OK),
        Some(error) => Err(Error::new(Word::Partly, "all but the hosts that cannot be reached")
            .hint("run the command again when they are back")
            .and(error.into())),
    }
}

/// Dials hosts where all of them are needed.
pub async fn dial_all(
    context: &Context,
    inventory: &Inventory,
    hosts: &[&Host],
) -> Result<Fleet, Error> {
    let (fleet, errors) = dial(context, inventory, hosts).await;
    match deploy::Error::all(errors) {
        None => Ok(fleet),
        Some(error) => Err(error.into()),
    }
}

/// `INSECURE: …` for every protection that is switched off.
pub fn say_insecure(context: &Context, inventory: &Inventory) {
    for exception in inventory.insecure() {
        let word = context.ui.on_stderr("INSECURE:", crate::ui::Style::Warn);
        context.ui.say(format!("{word} {exception}"));
    }
}

/// A listener that shows one line a host, and that Ctrl-C stops between two steps.
pub fn watch(context: &Context) -> Watch {
    let lines = Arc::new(Mutex::new(Lines { ui: context.ui.clone(), of: BTreeMap::new() }));
    let json = context.json();
    let ui = context.ui.clone();
    let watch = Watch::new(move |event| {
        if json {
            ui.json(&event_json(&event));
            return;
        }
        lines.lock().expect("no holder panics").show(event);
    });
    let (interrupt, stopper) = (context.interrupt.clone(), watch.clone());
    tokio::spawn(async move {
        interrupt.requested().await;
        stopper.stop("asked to, by Ctrl-C or --timeout");
    });
    watch
}

/// Where this checkout is: the folder above that holds `Cargo.toml` and `deploy`, else here.
pub fn checkout() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let is_root = |folder: &std::path::Path| {
        folder.join("Cargo.toml").is_file() && folder.join("deploy").is_dir()
    };
    here.ancestors().find(|folder| is_root(folder)).map_or(here.clone(), PathBuf::from)
}

/// The binaries to deploy, as the inventory names them.
pub fn releases(
    inventory: &Inventory,
) -> Result<BTreeMap<String, deploy::release::Release>, Error> {
    deploy::release::find(&inventory.cluster.binary, &checkout()).map_err(Error::from)
}

/// The end of a verb that changes something, as JSON: what all of them say, and its own words.
pub fn json_result(
    context: &Context,
    audit_id: Option<&str>,
    seconds: f64,
    own: serde_json::Value,
) {
    let mut result = serde_json::json!({
        "schema_version": 1,
        "event": "result",
        "result": "ok",
        "changed": audit_id.is_some(),
        "audit_id": audit_id,
        "duration_seconds": seconds,
    });
    if let (Some(result), serde_json::Value::Object(own)) = (result.as_object_mut(), own) {
        result.extend(own);
    }
    context.ui.json(&result);
}

/// How to type the inventory in a hint: nothing when it is the default one.
pub fn inventory_flag(context: &Context) -> String {
    let from_environment = std::env::var_os("PAXOS_INVENTORY").is_some();
    let path = context.global.inventory.display().to_string();
    if from_environment || path == "hosts/inventories/default.toml" {
        String::new()
    } else {
        format!(" -i {path}")
    }
}

pub fn internal(doing: &str) -> impl Fn(std::io::Error) -> Error + '_ {
    move |cause| Error::new(Word::Internal, doing).because(cause)
}

struct Lines {
    ui: Ui,
    of: BTreeMap<String, ProgressLine>,
}

impl Lines {
    fn show(&mut self, event: Event) {
        match event {
            Event::Phase { title } => self.ui.say(format!("==> {title}")),
            Event::Step { host, text } => self.line(host).step(&text),
            Event::Tick { host, text } => self.line(host).tick(&text),
        }
    }

    fn line(&mut self, host: String) -> &ProgressLine {
        let ui = &self.ui;
        self.of.entry(host.clone()).or_insert_with(|| ui.progress_line(&host))
    }
}

fn event_json(event: &Event) -> serde_json::Value {
    match event {
        Event::Phase { title } => serde_json::json!({"event": "phase", "title": title}),
        Event::Step { host, text } => {
            serde_json::json!({"event": "step", "host": host, "text": text})
        }
        Event::Tick { host, text } => {
            serde_json::json!({"event": "tick", "host": host, "text": text})
        }
    }
}
