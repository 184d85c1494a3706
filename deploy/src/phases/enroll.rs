//! Introduces the nodes to each other: collects what `format` made on every host, and writes the
//! same `members.toml` to all. ssh is the root of trust; no key travels any other way.
//!
//! Where a host has the file already (an earlier run broke off here), that text is the truth, and it
//! must name what the others' disks say.

use std::collections::BTreeMap;

use crate::error::{Error, Kind, Result};
use crate::execute::Run;
use crate::facts::Identity;
use crate::fleet::Member;
use crate::plan::Step;
use crate::procedures::Phase;
use crate::render;
use crate::ssh::quote;

pub(crate) async fn run(run: &Run<'_>) -> Result<()> {
    let missing = |step: &Step| *step == Step::Enroll;
    if !run.plan.hosts.iter().any(|host| host.steps.iter().any(missing)) {
        return Ok(());
    }
    let identities = collect(run).await?;
    let text = match existing(run).await? {
        Some(text) => text,
        None => render::members_toml(run.inventory, &run.plan.cluster_uuid, &identities)?,
    };
    confirm(run, &text, &identities)?;
    run.steps(
        Phase::Enroll,
        |_, step| missing(step),
        move |member, _| {
            let text = text.clone();
            async move {
                let path = member.host.members_toml().display().to_string();
                member.session.write_file(&path, 0o644, text.as_bytes()).await
            }
        },
    )
    .await
}

async fn collect(run: &Run<'_>) -> Result<BTreeMap<u32, Identity>> {
    let read = run
        .fleet
        .all(|host| run.takes_part(host.id), |member| async move { identity(&member).await })
        .await?;
    Ok(read.into_iter().map(|(member, identity)| (member.host.id, identity)).collect())
}

/// What `format` made on a host.
pub(super) async fn identity(member: &Member) -> Result<Identity> {
    let doing = "read the node's identity";
    let program = quote(&member.host.current().join("paxos-node").display().to_string());
    let config = quote(&member.host.node_toml().display().to_string());
    let said = member.session.run(doing, &format!("{program} identity --config {config}")).await?;
    serde_json::from_str::<Identity>(said.trim())
        .map_err(|cause| Error::new(Kind::Remote, doing).on(&*member.host.name).because(cause))
}

async fn existing(run: &Run<'_>) -> Result<Option<String>> {
    let read = run
        .fleet
        .all(
            |host| run.takes_part(host.id),
            |member| async move {
                let path = quote(&member.host.members_toml().display().to_string());
                let script = format!("cat {path} 2>/dev/null || true");
                member.session.run("read members.toml", &script).await
            },
        )
        .await?;
    let mut texts = read.into_iter().filter(|(_, text)| !text.trim().is_empty());
    let Some((first, text)) = texts.next() else { return Ok(None) };
    match texts.find(|(_, other)| *other != text) {
        None => Ok(Some(text)),
        Some((other, _)) => Err(Error::new(Kind::Guard, "compare members.toml of all hosts")
            .on(&*other.host.name)
            .because(format!("it differs from the one of {}", first.host.name))
            .hint("look at both: `paxosctl exec -- cat members.toml`")),
    }
}

/// The text must name exactly the disks that we just read.
fn confirm(run: &Run<'_>, text: &str, identities: &BTreeMap<u32, Identity>) -> Result<()> {
    let doing = "introduce the nodes to each other";
    let members: config::Members =
        toml::from_str(text).map_err(|cause| Error::new(Kind::Remote, doing).because(cause))?;
    for (id, identity) in identities {
        let name = run.inventory.host_by_id(*id).map_or("?", |host| host.name.as_str());
        let error = |cause: &str| {
            Error::new(Kind::Guard, doing)
                .on(name)
                .because(cause)
                .hint(format!("a node comes into an existing cluster by `paxosctl member add {name}`, or `member replace OLD {name}`"))
        };
        let Some(member) = members.members.iter().find(|member| member.id == *id) else {
            return Err(error("the members.toml that other hosts have does not name this node"));
        };
        if member.incarnation != identity.incarnation || member.public_key != identity.public_key {
            return Err(error(
                "the members.toml that other hosts have names another disk or key for this node",
            ));
        }
        if identity.cluster_uuid != members.cluster_uuid {
            return Err(error("its disk belongs to another cluster"));
        }
    }
    Ok(())
}
