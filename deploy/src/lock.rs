//! The operator lock: one change to a cluster at a time. It lives on the hosts, says who holds it,
//! for what and since when, and vanishes by itself: a holder renews it every five seconds, and it is
//! free thirty seconds after the last renewal. So a dead laptop locks nobody out, however long its
//! sshd session lingers. The seconds are those since the host's boot, which no clock that is set can
//! stretch or cut.
//!
//! A renewal only ever renews: a holder whose lock was freed does not take it again, it stops.
//!
//! It is taken on the hosts in id order, so that two takers meet at the first; it is held when a
//! majority has it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::error::{Error, Kind, Result};
use crate::fleet::{Fleet, Member, Watch};
use crate::ssh::{Session, quote};

pub const RENEW_EVERY: Duration = Duration::from_secs(5);
pub const EXPIRES_AFTER: Duration = Duration::from_secs(30);
const _: () = assert!(RENEW_EVERY.as_secs() * 4 < EXPIRES_AFTER.as_secs());

/// What `flock` answers for us when somebody else holds the lock.
const HELD: i32 = 75;
/// What a renewal answers when the lock is no longer there.
const FREED: i32 = 76;

/// Who holds it, as written into the lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Tells two runs of one person apart.
    pub token: String,
    pub who: String,
    pub what: String,
    /// RFC 3339, by the operator's clock.
    pub since: String,
}

/// A lock found on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    pub holder: Holder,
    pub renewed_seconds_ago: u64,
}

impl Found {
    pub fn is_live(&self) -> bool {
        self.renewed_seconds_ago < EXPIRES_AFTER.as_secs()
    }
}

/// A lock that is held, and renewed in the background until it is released or lost.
#[derive(Debug)]
pub struct Lock {
    holder: Holder,
    fleet: Arc<Fleet>,
    renewal: JoinHandle<()>,
}

impl Lock {
    /// Takes the lock on the connected hosts. When it is lost later (somebody freed it, the hosts
    /// could not be reached for too long), `watch` is stopped before the next step.
    pub async fn take(
        fleet: &Fleet,
        hosts_in_all: usize,
        holder: Holder,
        watch: &Watch,
    ) -> Result<Lock> {
        let fleet = Arc::new(fleet.clone());
        let mut order: Vec<_> = fleet.members.iter().collect();
        order.sort_by_key(|member| member.host.id);
        let mut taken = Vec::new();
        for member in order {
            match take_on(&member.session, &member.host, &holder).await {
                Ok(()) => taken.push(member.clone()),
                Err(error) => {
                    // Also where it failed: it may have been written before the time ran out.
                    taken.push(member.clone());
                    give_back(&taken, &holder).await;
                    return Err(error);
                }
            }
        }
        let needed = hosts_in_all / 2 + 1;
        if taken.len() < needed {
            give_back(&taken, &holder).await;
            return Err(Error::new(Kind::Ssh, "take the operator lock")
                .because(format!(
                    "it takes {needed} of {hosts_in_all} hosts, {} answered",
                    taken.len()
                ))
                .hint("bring the others up, or take them out of the inventory"));
        }
        let renewal = tokio::spawn(renew(fleet.clone(), holder.clone(), needed, watch.clone()));
        Ok(Lock { holder, fleet, renewal })
    }

    pub async fn release(self) {
        self.renewal.abort();
        let holder = self.holder.clone();
        self.fleet
            .each(
                |_| true,
                |member| {
                    let holder = holder.clone();
                    async move { release_on(&member.session, &member.host, &holder).await }
                },
            )
            .await;
    }
}

/// Frees what an attempt had taken. What cannot be freed expires.
async fn give_back(taken: &[Member], holder: &Holder) {
    for member in taken {
        let _ = release_on(&member.session, &member.host, holder).await;
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Without renewal it is free after EXPIRES_AFTER, whatever happened to us.
        self.renewal.abort();
    }
}

/// The lock on one host, if there is one.
pub async fn look(session: &Session, host: &hosts::Host) -> Result<Option<Found>> {
    let script = format!("{}[ ! -f \"$lock\" ] || show", prelude(host));
    let said = session.run("look at the operator lock", &script).await?;
    Ok(parse(&said))
}

/// Frees the lock on one host, whoever holds it.
pub async fn force_release(session: &Session, host: &hosts::Host) -> Result<()> {
    let script = format!("rm -f {}", quote(&path(host)));
    session.run("free the operator lock", &script).await.map(drop)
}

async fn renew(fleet: Arc<Fleet>, holder: Holder, needed: usize, watch: Watch) {
    let mut last_good = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let outcomes = fleet
            .each(
                |_| true,
                |member| {
                    let holder = holder.clone();
                    async move { renew_on(&member.session, &member.host, &holder).await }
                },
            )
            .await;
        let good = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count();
        if good >= needed {
            last_good = tokio::time::Instant::now();
        }
        let mut errors = outcomes.into_iter().filter_map(|(_, outcome)| outcome.err());
        if let Some(lost) = errors.find(|error| error.kind == Kind::Lock) {
            watch.stop(format!("the operator lock was lost: {lost}"));
        }
        // A renewal that took long counts from its beginning, so we stop well before it expires.
        if last_good.elapsed() > EXPIRES_AFTER / 2 {
            watch.stop("the operator lock could not be renewed in time on a majority of the hosts");
        }
    }
}

async fn take_on(session: &Session, host: &hosts::Host, holder: &Holder) -> Result<()> {
    let doing = "take the operator lock";
    let folder = quote(&host.deploy_dir.display().to_string());
    let (token, expires) = (quote(&holder.token), EXPIRES_AFTER.as_secs());
    let script = format!(
        r#"mkdir -p {folder} || exit 1
{}alone
if [ -f "$lock" ] && [ "$(age)" -lt {expires} ] && ! grep -qF {token} "$lock"; then show; exit {HELD}; fi
{}"#,
        prelude(host),
        write(holder)
    );
    change(session, host, doing, &script).await
}

/// Only what is ours is renewed: a lock that was freed or taken over is not taken again.
async fn renew_on(session: &Session, host: &hosts::Host, holder: &Holder) -> Result<()> {
    let token = quote(&holder.token);
    let script = format!(
        r#"{}alone
[ -f "$lock" ] || exit {FREED}
if ! grep -qF {token} "$lock"; then show; exit {HELD}; fi
{}"#,
        prelude(host),
        write(holder)
    );
    change(session, host, "renew the operator lock", &script).await
}

/// The lock file is a line that says when it was renewed, then the holder. Renewed at another boot
/// means: not since this one.
fn prelude(host: &hosts::Host) -> String {
    format!(
        r#"lock={}
boot=$(cat /proc/sys/kernel/random/boot_id); now=$(cut -d. -f1 /proc/uptime)
age() {{
  read -r renewed_boot renewed_at < "$lock"
  if [ "$renewed_boot" = "$boot" ]; then echo $((now - renewed_at)); else echo "$now"; fi
}}
show() {{ age; tail -n 1 "$lock"; }}
alone() {{ exec 9>>"$lock.guard"; flock -w 5 9 || exit 1; }}
"#,
        quote(&path(host))
    )
}

/// The look before it and this are one step under flock (`alone`), so that two takers cannot both
/// win.
fn write(holder: &Holder) -> String {
    let text = serde_json::to_string(holder).expect("a holder is four strings");
    format!(
        r#"printf '%s %s\n%s\n' "$boot" "$now" {} > "$lock.$$" && mv -f "$lock.$$" "$lock"
"#,
        quote(&text)
    )
}

async fn change(session: &Session, host: &hosts::Host, doing: &str, script: &str) -> Result<()> {
    let output = session.try_run(doing, script, Duration::from_secs(10)).await?;
    match output.status {
        0 => Ok(()),
        HELD => Err(held(host, parse(&output.stdout))),
        FREED => Err(Error::new(Kind::Lock, doing).on(&*host.name).because("somebody freed it")),
        status => Err(Error::new(Kind::Remote, doing)
            .on(&*host.name)
            .because(output.stderr.trim())
            .because(format!("exit status {status}"))
            .hint(format!(
                "may the ssh user write to {}? look: `paxosctl check -n {}`",
                host.deploy_dir.display(),
                host.name
            ))),
    }
}

async fn release_on(session: &Session, host: &hosts::Host, holder: &Holder) -> Result<()> {
    let token = quote(&holder.token);
    let script = format!(
        r#"{}[ -d "${{lock%/*}}" ] || exit 0
alone
if grep -qF {token} "$lock" 2>/dev/null; then rm -f "$lock"; fi
"#,
        prelude(host)
    );
    session.run("free the operator lock", &script).await.map(drop)
}

fn held(host: &hosts::Host, found: Option<Found>) -> Error {
    let error = Error::new(Kind::Lock, "take the operator lock").on(&*host.name);
    let Some(Found { holder, renewed_seconds_ago }) = found else {
        return error.because("somebody holds it");
    };
    let left = EXPIRES_AFTER.as_secs().saturating_sub(renewed_seconds_ago);
    error
        .because(format!("{} holds it for `{}` since {}", holder.who, holder.what, holder.since))
        .because(format!("last renewed {renewed_seconds_ago} s ago; free in {left} s unless renewed"))
        .hint("wait for it with `--lock-wait 15m`, or, if you know that it is stale: `paxosctl lock release`")
}

fn parse(said: &str) -> Option<Found> {
    let (age, text) = said.split_once('\n')?;
    Some(Found {
        holder: serde_json::from_str(text.trim()).ok()?,
        renewed_seconds_ago: age.trim().parse::<i64>().ok()?.max(0).unsigned_abs(),
    })
}

fn path(host: &hosts::Host) -> String {
    host.deploy_dir.join("lock").display().to_string()
}
