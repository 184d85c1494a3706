//! The voice: data goes to stdout, talk to stderr, questions to a terminal and to nobody else.
//! Nothing is said in colour alone. A closed pipe ends the program quietly, as `head` expects.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;

use crate::cli::{Color, Format, Global};
use crate::error::{Error, Word};

/// Cheap to clone; all clones share the progress lines, so that talk and progress do not mix.
#[derive(Clone, Debug)]
pub struct Ui {
    pub format: Format,
    pub stdout_color: bool,
    pub stderr_color: bool,
    pub stdout_is_terminal: bool,
    pub stderr_is_terminal: bool,
    can_ask: bool,
    yes: bool,
    bars: Arc<MultiProgress>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Good,
    Warn,
    Bad,
    Bold,
    Dim,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Style::Plain => "",
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "31",
            Style::Bold => "1",
            Style::Dim => "2",
        }
    }
}

/// One cell of a table.
#[derive(Clone, Debug)]
pub struct Cell {
    pub text: String,
    pub style: Style,
}

impl Cell {
    pub fn new(text: impl Into<String>, style: Style) -> Self {
        Cell { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::new(text, Style::Plain)
    }
}

impl Ui {
    pub fn new(global: &Global) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let wants = |is_terminal: bool| match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !no_color,
        };
        let stdout_is_terminal = io::stdout().is_terminal();
        let stderr_is_terminal = io::stderr().is_terminal();
        Ui {
            format: global.output,
            stdout_color: wants(stdout_is_terminal),
            stderr_color: wants(stderr_is_terminal),
            stdout_is_terminal,
            stderr_is_terminal,
            can_ask: io::stdin().is_terminal() && stderr_is_terminal,
            yes: global.yes,
            bars: Arc::new(MultiProgress::new()),
        }
    }

    /// Data: one or more lines to stdout.
    pub fn data(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        self.bars.suspend(|| {
            let mut stdout = io::stdout().lock();
            let written = stdout.write_all(text.as_bytes()).and_then(|()| {
                if !text.ends_with('\n') {
                    stdout.write_all(b"\n")?;
                }
                stdout.flush()
            });
            if let Err(error) = written {
                // The reader has gone; there is nobody left to tell.
                let broken_pipe = error.kind() == io::ErrorKind::BrokenPipe;
                std::process::exit(if broken_pipe { 0 } else { Word::Internal as i32 });
            }
        });
    }

    /// One JSON object, on one line.
    pub fn json(&self, value: &impl serde::Serialize) {
        self.data(serde_json::to_string(value).expect("our reports have string keys only"));
    }

    /// Talk: one or more lines to stderr.
    pub fn say(&self, text: impl AsRef<str>) {
        self.bars.suspend(|| {
            let mut stderr = io::stderr().lock();
            // Talk that cannot be heard is no reason to fail.
            let _ = writeln!(stderr, "{}", text.as_ref().trim_end_matches('\n'));
        });
    }

    pub fn warn(&self, text: impl AsRef<str>) {
        self.say(format!("{} {}", self.on_stderr("warning:", Style::Warn), text.as_ref()));
    }

    pub fn hint(&self, text: impl AsRef<str>) {
        self.say(format!("{} {}", self.on_stderr("hint:", Style::Bold), text.as_ref()));
    }

    pub fn show_error(&self, error: &Error) {
        let text = error.to_string();
        let (head, rest) = text.split_once(':').expect("an error has a colon after its word");
        self.say(format!("{}:{rest}", self.on_stderr(head, Style::Bad)));
    }

    /// Asks a yes-or-no question. Without a terminal it is an error that names the flag.
    pub fn confirm(&self, question: &str) -> Result<(), Error> {
        if self.yes {
            return Ok(());
        }
        if !self.can_ask {
            return Err(Error::usage(format!("cannot ask without a terminal: {question}"))
                .hint("answer it on the command line: `--yes`"));
        }
        let answer = self.ask(&format!("{question} [y/N] "))?;
        match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Error::usage("not confirmed, nothing was changed")),
        }
    }

    /// For what cannot be undone: the person types a phrase that names it. `--yes` is not enough;
    /// `flag` is what a script gives instead.
    pub fn confirm_phrase(&self, question: &str, phrase: &str, flag: &str) -> Result<(), Error> {
        if !self.can_ask {
            return Err(Error::usage(format!("cannot ask without a terminal: {question}"))
                .hint(format!("answer it on the command line: `{flag}`")));
        }
        let answer = self.ask(&format!("{question}\ntype `{phrase}` to go on: "))?;
        if answer == phrase {
            return Ok(());
        }
        Err(Error::usage(format!("`{answer}` is not `{phrase}`, nothing was changed")))
    }

    fn ask(&self, prompt: &str) -> Result<String, Error> {
        self.bars.suspend(|| {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "{prompt}");
            let _ = stderr.flush();
            let mut line = String::new();
            io::stdin()
                .read_line(&mut line)
                .map_err(|error| Error::new(Word::Internal, "read the answer").because(error))?;
            Ok(line.trim().to_owned())
        })
    }

    /// A table whose columns are as wide as they must be. Numbers are the caller's to align.
    pub fn table(&self, head: &[&str], rows: &[Vec<Cell>]) -> String {
        let mut widths: Vec<usize> = head.iter().map(|title| title.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let head: Vec<Cell> = head.iter().map(|title| Cell::new(*title, Style::Bold)).collect();
        let mut out = String::new();
        for row in std::iter::once(&head).chain(rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let padding = " ".repeat(width - cell.text.chars().count() + 2);
                line.push_str(&self.on_stdout(&cell.text, cell.style));
                line.push_str(&padding);
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    pub fn on_stdout(&self, text: &str, style: Style) -> String {
        paint(text, style, self.stdout_color)
    }

    pub fn on_stderr(&self, text: &str, style: Style) -> String {
        paint(text, style, self.stderr_color)
    }

    /// One line a host that changes in place on a terminal; elsewhere each change is a plain line.
    pub fn progress_line(&self, name: &str) -> ProgressLine {
        let bar = self.stderr_is_terminal.then(|| {
            let bar = self.bars.add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("{prefix:12} {msg}")
                .expect("the template names known fields");
            bar.set_style(style);
            bar.set_prefix(name.to_owned());
            bar
        });
        ProgressLine { name: name.to_owned(), ui: self.clone(), bar }
    }
}

/// The line of one host during long work.
#[derive(Debug)]
pub struct ProgressLine {
    name: String,
    ui: Ui,
    bar: Option<ProgressBar>,
}

impl ProgressLine {
    /// A step that a log should keep.
    pub fn step(&self, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(text.to_owned());
                bar.tick();
            }
            None => self.ui.say(format!("{:12} {text}", self.name)),
        }
    }

    /// A figure that changes many times a second: shown on a terminal only.
    pub fn tick(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
            bar.tick();
        }
    }

    pub fn finish(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.finish_with_message(text.to_owned()),
            None => self.ui.say(format!("{:12} {text}", self.name)),
        }
    }
}

/// Whether Ctrl-C was pressed.
#[derive(Clone, Debug)]
pub struct Interrupt(watch::Sender<bool>);

impl Default for Interrupt {
    fn default() -> Self {
        Interrupt(watch::Sender::new(false))
    }
}

impl Interrupt {
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    pub async fn requested(&self) {
        let mut receiver = self.0.subscribe();
        // The sender lives in self, so waiting cannot fail.
        let _ = receiver.wait_for(|requested| *requested).await;
    }

    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

/// The first Ctrl-C is a request, which verbs that change something answer between two steps; the
/// second ends the program where it stands. SIGTERM and SIGHUP count as the first.
pub fn watch_ctrl_c(interrupt: Interrupt, ui: Ui, says_so: bool) {
    tokio::spawn(async move {
        let mut seen = 0;
        loop {
            wait_for_signal().await;
            seen += 1;
            if seen > 1 {
                std::process::exit(Word::Interrupted as i32);
            }
            if says_so {
                ui.say("stopping after the current step; Ctrl-C again to leave at once");
            }
            interrupt.request();
        }
    });
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be watched");
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be watched");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// `-v` shows what the tool does, `-vv` what its libraries do. Never what is sent or received.
pub fn start_tracing(verbose: u8) {
    let filter = match verbose {
        1 => "warn,ctl=info,paxosctl=info,deploy=info,hosts=info",
        _ => "info,ctl=debug,paxosctl=debug,deploy=debug,hosts=debug",
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .init();
}

pub const OK: ExitCode = ExitCode::SUCCESS;

fn paint(text: &str, style: Style, color: bool) -> String {
    match style.code() {
        code if color && !code.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
        _ => text.to_owned(),
    }
}
