//! `paxosctl member`: who takes part, and its changes, all through the log.

mod change;
mod list;

use std::process::ExitCode;
use std::time::Duration;

use deploy::plan::rules::Rules;

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
    /// Change the rules that all members go by: leases and the store's version.
    ///
    /// They stand in the log, not in the nodes' files: what a file says counts only when a cluster is
    /// founded. The leader refuses what does not go with the timing of the elections, and a store
    /// version that any member cannot do.
    #[command(group = clap::ArgGroup::new("rule").required(true).multiple(true))]
    Rules {
        /// L: for how many milliseconds a lease binds whoever granted it.
        #[arg(long, value_name = "N", group = "rule", value_parser = clap::value_parser!(u64).range(10..=10_000))]
        lease_ms: Option<u64>,
        /// By how much of a lease any two clocks may run apart; 20 where NTP corrects them.
        #[arg(long, value_name = "N", group = "rule", value_parser = clap::value_parser!(u32).range(1..=50))]
        drift_percent: Option<u32>,
        /// The version by which the store applies; raised only, to what every member can do.
        #[arg(long, value_name = "N", group = "rule", value_parser = clap::value_parser!(u32).range(1..))]
        store_version: Option<u32>,
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
        Action::Rules { lease_ms, drift_percent, store_version, lock } => Asked {
            verb: Verb::Rules(Rules { lease_ms, drift_percent, store_version }),
            node: String::new(),
            catch_up: Duration::ZERO,
            lock_wait: lock.lock_wait,
        },
        Action::Remove { name, lock } => Asked {
            verb: Verb::Remove,
            node: name,
            catch_up: Duration::ZERO,
            lock_wait: lock.lock_wait,
        },
    };
    change::run(&asked, context).await
}
