//! A member that slept through changes may know only nodes that are gone: it dials them for ever, and
//! who leads now is nobody that it has heard of. ssh is the root of trust, so it is told over ssh
//! whom to ask (PITFALLS 113).

use crate::error::Result;
use crate::execute::Run;
use crate::fleet::Member;
use crate::live;
use monitoring::status::{NodeStatus, Role};

/// Introduces the leader to whoever runs, knows no leader, and knows an older membership.
pub(crate) async fn introduce_the_leader(
    run: &Run<'_>,
    readings: &[(Member, Option<NodeStatus>)],
) -> Result<()> {
    let statuses =
        || readings.iter().filter_map(|(member, status)| Some((member, status.as_ref()?)));
    let leaders = statuses().filter(|(_, status)| status.role == Role::Leader);
    let Some((at, leader)) = leaders.max_by_key(|(_, status)| status.ballot) else { return Ok(()) };
    let newest = leader.configuration.number;
    let is_lost =
        |status: &NodeStatus| status.leader.is_none() && status.configuration.number < newest;
    let lost: Vec<&Member> =
        statuses().filter(|(_, status)| is_lost(status)).map(|(member, _)| member).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let known = live::export(at).await?;
    let Some(known) = known.members.iter().find(|member| member.id == leader.id) else {
        return Ok(());
    };
    let id = known.id.to_string();
    let words = [
        "member",
        "meet",
        &id,
        &known.name,
        &known.incarnation,
        if known.public_key.is_empty() { "-" } else { &known.public_key },
        &known.peer,
        &known.client,
        &known.http,
    ];
    for member in lost {
        let text = match live::ask(member, &words).await? {
            Ok(_) => format!("knew only members that are gone; was introduced to {}", known.name),
            Err(said) => format!("could not be introduced to {}: {said}", known.name),
        };
        run.watch.step(&member.host.name, text);
    }
    Ok(())
}
