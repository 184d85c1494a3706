//! Text output of the node: rolling files that never hold up the node and never fill the disk, and
//! standard error. The filter can be changed while it runs.

mod rolling;

use std::io;
use std::path::Path;

use config::NodeConfig;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

use rolling::Rolling;

/// Changes the filter; kept by the shell.
pub type SetFilter = Box<dyn Fn(&str) -> Result<(), String>>;

/// Begins tracing. Lines leave until the guard is dropped.
pub fn start(config: &NodeConfig) -> Result<(WorkerGuard, SetFilter), String> {
    let default_dir = config.data_dir.join("trace");
    let dir = config.trace.dir.as_deref().unwrap_or(&default_dir);
    make_dir(dir).map_err(|error| format!("make the trace folder {}: {error}", dir.display()))?;
    let files = Rolling::open(dir, config.trace.files_max, config.trace.file_bytes_max)
        .map_err(|error| format!("open a trace file in {}: {error}", dir.display()))?;
    let (writer, guard) = tracing_appender::non_blocking(files);
    let filter = EnvFilter::try_new(&config.trace.filter)
        .map_err(|error| format!("trace.filter = \"{}\": {error}", config.trace.filter))?;
    let (filter, handle) = reload::Layer::new(filter);
    let to_files = fmt::layer().with_writer(writer).with_ansi(false).with_target(false);
    let to_stderr = config
        .trace
        .stderr
        .then(|| fmt::layer().with_writer(io::stderr).with_ansi(false).with_target(false).boxed());
    tracing_subscriber::registry().with(filter).with(to_files).with(to_stderr).init();
    let set = move |text: &str| {
        let filter = EnvFilter::try_new(text).map_err(|error| format!("`{text}`: {error}"))?;
        handle.reload(filter).map_err(|error| error.to_string())
    };
    Ok((guard, Box::new(set)))
}

fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
