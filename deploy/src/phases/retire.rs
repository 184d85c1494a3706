//! A removed node stops by itself once the others can do without it, and leaves a tombstone on its
//! disk. Here that is waited for. One that was down when it was removed gets its tombstone from us, so
//! that nobody starts it by mistake; and one that does not stop is stopped: it votes no more.
//!
//! Neither is done before a quorum of the members that stay says that it knows the change. Until then
//! the removed node may be the only one that can still tell them, or whose promise they need.
//!
//! Only the disk of that very node is touched: the host may have been given to another one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use monitoring::status::{Configuration, NodeStatus};

use crate::error::{Error, Kind, Result};
use crate::execute::Run;
use crate::facts::TOMBSTONE;
use crate::fleet::Member;
use crate::live;
use crate::phases::stop;
use crate::plan::Step;
use crate::procedures::Phase;
use crate::supervisor;

/// As long as a quorum of the others takes to say that it knows.
const GOES_WITHIN: Duration = Duration::from_secs(20);
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    for plan in run.plan.hosts.iter().filter(|host| host.steps.contains(&Step::Retire)) {
        run.watch.phase(Phase::Retire.title());
        let Some(member) = run.fleet.member(plan.id) else { continue };
        let script = wait_until_gone(&member.host);
        let bound = GOES_WITHIN * 2;
        let gone = member.session.run_within("wait until it has stopped", &script, bound).await?;
        let said = match gone.trim() {
            "buried" => "has stopped, its tombstone is there".to_owned(),
            left => {
                let number = known_by_a_quorum(run, &plan.name).await?;
                if left == "runs" {
                    run.watch.step(&plan.name, "did not stop by itself");
                    stop::stop(member, run.watch).await?;
                }
                leave_tombstone(member, plan.id, number).await?
            }
        };
        run.watch.step(&plan.name, said);
        run.did_one();
    }
    Ok(())
}

/// The newest configuration's number, once a quorum of its voters says that it knows it.
async fn known_by_a_quorum(run: &Run<'_>, leaving: &str) -> Result<u32> {
    let began = Instant::now();
    loop {
        let look = live::look(run.fleet, |_| true).await;
        let Some(newest) = look.configuration() else {
            return Err(live::no_leader(&look, "ask who knows of the removal"));
        };
        let unaware = unaware(newest, look.statuses());
        if unaware.len() <= (newest.voters().count() - 1) / 2 {
            return Ok(newest.number);
        }
        if began.elapsed() > GOES_WITHIN {
            return Err(Error::new(Kind::Guard, "end the removed node")
                .on(leaving)
                .because(format!(
                    "{} {} not said that the removal is known there, and a quorum has to know it                      before {leaving} may go",
                    unaware.join(" and "),
                    if unaware.len() == 1 { "has" } else { "have" }
                ))
                .hint(format!(
                    "{leaving} is no member any more and was left as it is; bring the others back                      (`paxosctl up`), then give the same command again"
                )));
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Voters of `newest` that do not say that they know it.
fn unaware<'a>(
    newest: &Configuration,
    statuses: impl Iterator<Item = &'a NodeStatus>,
) -> Vec<String> {
    let aware = statuses.filter(|status| status.configuration.number >= newest.number);
    let aware: BTreeSet<u32> = aware.map(|status| status.id).collect();
    let unaware = newest.voters().filter(|voter| !aware.contains(&voter.id));
    unaware.map(|voter| newest.name_of(voter.id)).collect()
}

fn wait_until_gone(host: &hosts::Host) -> String {
    format!(
        r#"{}count=0
while node_find && [ $count -lt {} ]; do count=$((count + 1)); sleep 0.1; done
if node_find; then echo runs; elif [ -f "$data/{TOMBSTONE}" ]; then echo buried; else echo gone; fi
"#,
        supervisor::prelude(host),
        GOES_WITHIN.as_millis() / 100
    )
}

async fn leave_tombstone(member: &Member, id: u32, number: u32) -> Result<String> {
    let script = format!(
        r#"{}if node_find; then echo "runs still, as $pid"; exit 0; fi
if [ -f "$data/{TOMBSTONE}" ]; then echo "has stopped, its tombstone is there"; exit 0; fi
said=$("$d/current/paxos-node" identity --config "$d/node.toml" 2>/dev/null | tr -d ' \n')
case "$said" in *'"id":{id},'*) ;; *) echo "has no data here"; exit 0;; esac
part="$data/{TOMBSTONE}.part"
printf 'removed by configuration %s\nversion 2\n' {number} > "$part" && sync "$part" &&
  mv -f "$part" "$data/{TOMBSTONE}" && sync "$data" && echo "has stopped; a tombstone was left on its disk"
"#,
        supervisor::prelude(&member.host)
    );
    let said = member.session.run("leave a tombstone", &script).await?;
    Ok(said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use monitoring::status::{Member, MemberRole};

    use super::*;

    fn voter(id: u32) -> Member {
        let [peer, client, http] = [7380, 7379, 7381].map(|port| format!("10.0.0.{id}:{port}"));
        Member { id, name: format!("n{id}"), role: MemberRole::Voter, peer, client, http }
    }

    fn knows(id: u32, number: u32, voters: &[u32]) -> NodeStatus {
        let members = voters.iter().copied().map(voter).collect();
        let configuration = Configuration { number, members, ..Configuration::default() };
        NodeStatus { id, configuration, ..NodeStatus::default() }
    }

    /// Two of two: the removed leader alone knows of its removal. Without it the other one could
    /// never learn that it is alone, and would wait for its promise for good.
    #[test]
    fn a_removed_node_is_not_ended_before_a_quorum_of_those_that_stay_knows() {
        let removed = knows(2, 7, &[1]);
        let newest = removed.configuration.clone();
        let asleep = knows(1, 6, &[1, 2]);
        assert_eq!(unaware(&newest, [&removed, &asleep].into_iter()), ["n1"]);
        assert_eq!(unaware(&newest, [&removed].into_iter()), ["n1"]);
        assert!(unaware(&newest, [&knows(1, 7, &[1])].into_iter()).is_empty());
        let grown = knows(1, 8, &[1, 3]);
        assert!(unaware(&newest, [&grown].into_iter()).is_empty());
    }
}
