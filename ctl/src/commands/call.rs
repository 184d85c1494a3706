//! `paxosctl call CMD ARGS…`: one Redis command to the leader, for those without redis-cli.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::Context;
use crate::desk;
use crate::error::{Error, Word};
use crate::resp::{Connection, Reply, moved_to};
use crate::ui;

/// Send one Redis command to the leader and print the reply.
///
/// The password comes from the environment or from stdin, never from the command line, where
/// everybody on this machine could read it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user to connect as.
    #[arg(long, value_name = "NAME", env = "PAXOS_USER")]
    user: Option<String>,
    /// The environment variable that holds the password.
    #[arg(long, value_name = "VARIABLE", default_value = "PAXOS_PASSWORD")]
    password_env: String,
    /// Read the password from the first line of stdin.
    #[arg(long)]
    password_stdin: bool,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

const REDIRECTS_MAX: usize = 5;
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Longer than a node holds a command while there is no leader.
const REPLY_WITHIN: Duration = Duration::from_secs(10);

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    let inventory = desk::load_inventory(context)?;
    let hosts = desk::select(context, &inventory)?;
    let login = login(&args)?;
    let mut doors: Vec<String> = hosts.iter().map(|host| host.client_endpoint()).collect();
    doors.reverse();
    let mut failures = Vec::new();
    let mut redirects = 0;
    while let Some(door) = doors.pop() {
        let mut connection = match open(&door, login.as_ref()).await {
            Ok(connection) => connection,
            Err(Refused::Unreachable(cause)) => {
                failures.push(cause);
                continue;
            }
            Err(Refused::Denied(error)) => return Err(error),
        };
        match send(&mut connection, &args.command, &door).await? {
            Reply::Error(said) => match moved_to(&said) {
                Some(leader) if redirects < REDIRECTS_MAX => {
                    redirects += 1;
                    doors.push(leader.to_owned());
                }
                _ => return Err(refused(&args.command[0], &said)),
            },
            reply if context.json() => {
                context.ui.json(&serde_json::json!({"schema_version": 1, "reply": reply.json()}));
                return Ok(ui::OK);
            }
            reply => {
                context.ui.data(reply.plain());
                return Ok(ui::OK);
            }
        }
    }
    let mut error = Error::new(Word::Unavailable, "reach a node's client port");
    for failure in failures {
        error = error.because(failure);
    }
    Err(error.hint("nothing was sent. Look: `paxosctl status`"))
}

fn login(args: &Args) -> Result<Option<(String, String)>, Error> {
    let password = if args.password_stdin {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|cause| Error::usage("read the password from stdin").because(cause))?;
        Some(text.lines().next().unwrap_or_default().to_owned())
    } else {
        std::env::var(&args.password_env).ok()
    };
    match (&args.user, password) {
        (Some(user), Some(password)) => Ok(Some((user.clone(), password))),
        (Some(user), None) => Err(Error::usage(format!("no password for user {user}")).hint(
            format!("set {} in the environment, or say --password-stdin", args.password_env),
        )),
        (None, _) => Ok(None),
    }
}

enum Refused {
    Unreachable(String),
    Denied(Error),
}

async fn open(door: &str, login: Option<&(String, String)>) -> Result<Connection, Refused> {
    let connected = tokio::time::timeout(CONNECT_WITHIN, Connection::open(door)).await;
    let unreachable = |cause: String| Refused::Unreachable(format!("{door}: {cause}"));
    let mut connection = match connected {
        Ok(Ok(connection)) => connection,
        Ok(Err(cause)) => return Err(unreachable(cause.to_string())),
        Err(_) => return Err(unreachable(format!("no connection within {CONNECT_WITHIN:?}"))),
    };
    let Some((user, password)) = login else { return Ok(connection) };
    let auth = ["AUTH", user, password];
    let greeting = connection.call(&auth);
    match tokio::time::timeout(REPLY_WITHIN, greeting).await {
        Ok(Ok(Reply::Error(said))) => Err(Refused::Denied(
            Error::new(Word::Remote, format!("log in to {door} as {user}")).because(said),
        )),
        Ok(Ok(_)) => Ok(connection),
        Ok(Err(cause)) => Err(unreachable(cause.to_string())),
        Err(_) => Err(unreachable(format!("no answer to AUTH within {REPLY_WITHIN:?}"))),
    }
}

/// Once the command has left, silence does not mean that it was not done.
async fn send(connection: &mut Connection, command: &[String], door: &str) -> Result<Reply, Error> {
    let doing = format!("send {} to {door}", command[0].to_uppercase());
    let unknown = |cause: String| {
        Error::new(Word::Unknown, &*doing)
            .because(cause)
            .hint("it may or may not have been done: read before you send it again")
    };
    match tokio::time::timeout(REPLY_WITHIN, connection.call(command)).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(cause)) => Err(unknown(cause.to_string())),
        Err(_) => Err(unknown(format!("no reply within {REPLY_WITHIN:?}"))),
    }
}

/// An error reply means that it was not done.
fn refused(command: &str, said: &str) -> Error {
    let doing = format!("run {}", command.to_uppercase());
    let word = said.split(' ').next().unwrap_or_default();
    match word {
        "CLUSTERDOWN" | "TRYAGAIN" => Error::new(Word::Unavailable, doing)
            .because(said)
            .hint("nothing was done. Look: `paxosctl status`"),
        "NOAUTH" | "WRONGPASS" | "NOPERM" => Error::new(Word::Remote, doing)
            .because(said)
            .hint("say --user NAME, with its password in PAXOS_PASSWORD"),
        _ => Error::new(Word::Remote, doing).because(said),
    }
}
