//! `paxosctl member`: who takes part, and its changes, all through the log.

mod change;
mod list;

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::{self, Context};
use crate::error::Error;

/// List the members of the cluster; let nodes come and go while it serves.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the members by the log beside the hosts of the inventory.
    List,
    /// Bring a host of the inventory into the cluster: copy, format, start, learner, voter.
    ///
    /// It becomes a voter, once it has caught up, where the inventory says so. A run that broke off
    /// goes on when the command is given again.
    Add(Newcomer),
    /// Make a learner a voter, as the inventory says.
    Promote(Newcomer),
    /// Take a member out for good; it stops by itself. Works also when its host is dead.
    Remove {
        /// The member, by its name.
        #[arg(value_name = "NODE")]
        name: String,
        #[command(flatten)]
        lock: LockWait,
    },
    /// Let a new host take the place of a member whose host is dead, wiped or to go.
    ///
    /// The new one stands in the inventory under an id that was never used; the same machine will
    /// do, if its former data is gone.
    Replace {
        /// The member that goes, by its name.
        #[arg(value_name = "OLD")]
        old: String,
        #[command(flatten)]
        new: Newcomer,
    },
}

/// A host that is to become something in the cluster.
#[derive(Debug, clap::Args)]
struct Newcomer {
    /// The host, by its name in the inventory.
    #[arg(value_name = "NODE")]
    name: String,
    /// How long it may take to copy what the others have.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = cli::duration)]
    catch_up: Duration,
    #[command(flatten)]
    lock: LockWait,
}

#[derive(Debug, clap::Args)]
struct LockWait {
    /// Wait this long for a lock that somebody else holds, then plan anew and go on.
    #[arg(long, value_name = "TIME", value_parser = cli::duration)]
    lock_wait: Option<Duration>,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, Error> {
    use change::{Asked, Verb};
    let asked = |verb, new: Newcomer| Asked {
        verb,
        node: new.name,
        catch_up: new.catch_up,
        lock_wait: new.lock.lock_wait,
    };
    let asked = match args.action {
        Action::List => return list::run(context).await,
        Action::Add(new) => asked(Verb::Add, new),
        Action::Promote(new) => asked(Verb::Promote, new),
        Action::Replace { old, new } => asked(Verb::Replace { old }, new),
        Action::Remove { name, lock } => Asked {
            verb: Verb::Remove,
            node: name,
            catch_up: Duration::ZERO,
            lock_wait: lock.lock_wait,
        },
    };
    change::run(&asked, context).await
}
