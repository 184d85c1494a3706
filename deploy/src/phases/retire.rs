//! A removed node stops by itself once the others can do without it, and leaves a tombstone on its
//! disk. Here that is waited for. One that was down when it was removed gets its tombstone from us, so
//! that nobody starts it by mistake; and one that does not stop is stopped: it votes no more.
//!
//! Only the disk of that very node is touched: the host may have been given to another one.

use std::time::Duration;

use crate::error::Result;
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

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    for plan in run.plan.hosts.iter().filter(|host| host.steps.contains(&Step::Retire)) {
        run.watch.phase(Phase::Retire.title());
        let Some(member) = run.fleet.member(plan.id) else { continue };
        let number = live::look(run.fleet, |_| true).await.configuration().map_or(0, |c| c.number);
        let script = wait_until_gone(&member.host);
        let bound = GOES_WITHIN * 2;
        let gone = member.session.run_within("wait until it has stopped", &script, bound).await?;
        if gone.trim() == "runs" {
            run.watch.step(&plan.name, "did not stop by itself");
            stop::stop(member, run.watch).await?;
        }
        let said = leave_tombstone(member, plan.id, number).await?;
        run.watch.step(&plan.name, said);
        run.did_one();
    }
    Ok(())
}

fn wait_until_gone(host: &hosts::Host) -> String {
    format!(
        r#"{}count=0
while node_find && [ $count -lt {} ]; do count=$((count + 1)); sleep 0.1; done
if node_find; then echo runs; else echo gone; fi
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
printf 'removed by configuration %s\n' {number} > "$part" && sync "$part" &&
  mv -f "$part" "$data/{TOMBSTONE}" && sync "$data" && echo "has stopped; a tombstone was left on its disk"
"#,
        supervisor::prelude(&member.host)
    );
    let said = member.session.run("leave a tombstone", &script).await?;
    Ok(said.trim().to_owned())
}
