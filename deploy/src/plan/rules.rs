//! The plan for other rules of the cluster: L, ρ and the store's version. They stand in the log, so one
//! question to the leader changes them for all; whether they may rule, the leader says.

use std::collections::BTreeMap;
use std::fmt;

use monitoring::status::{Configuration, NodeStatus, Role};
use serde::Serialize;

use super::{HostPlan, Plan, Quorum, Step, Wish};
use crate::error::{Error, Kind, Result};
use crate::facts::Facts;

/// What is asked for; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rules {
    pub lease_ms: Option<u64>,
    pub drift_percent: Option<u32>,
    pub store_version: Option<u32>,
}

/// Below it clocks that NTP corrects may run apart further than leases bear (PITFALLS 117).
const DRIFT_PERCENT_OF_NTP: u32 = 20;

impl Rules {
    /// As they are typed, for the node and for `paxosctl`.
    pub fn words(&self) -> Vec<String> {
        let named = [
            ("--lease-ms", self.lease_ms),
            ("--drift-percent", self.drift_percent.map(u64::from)),
            ("--store-version", self.store_version.map(u64::from)),
        ];
        let given = named.into_iter().filter_map(|(name, number)| Some((name, number?)));
        given.flat_map(|(name, number)| [name.to_owned(), number.to_string()]).collect()
    }

    /// Do they rule?
    pub fn rule(&self, configuration: &Configuration) -> bool {
        self.lease_ms.is_none_or(|lease_ms| configuration.lease_ms == Some(lease_ms))
            && self.drift_percent.is_none_or(|drift| configuration.drift_percent == Some(drift))
            && self.store_version.is_none_or(|version| configuration.store_version == version)
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lease = self.lease_ms.map(|lease_ms| format!("leases of {lease_ms} ms"));
        let drift = self.drift_percent.map(|percent| format!("drift of {percent} %"));
        let version = self.store_version.map(|version| format!("store version {version}"));
        let said: Vec<String> = [lease, drift, version].into_iter().flatten().collect();
        f.write_str(&said.join(", "))
    }
}

/// Asks the leader for these rules, unless they rule already.
pub fn change(wish: &Wish<'_>, facts: &BTreeMap<u32, Facts>, rules: Rules) -> Result<Plan> {
    let doing = "change the rules of the cluster";
    let statuses = facts.values().filter_map(|facts| facts.status.as_ref());
    let leader = statuses.filter(|s| s.role == Role::Leader).max_by_key(|s| s.ballot);
    let Some(leader) = leader else {
        return Err(Error::new(Kind::Unavailable, doing)
            .because("no node that is reached leads")
            .hint("look: `paxosctl status`; start what is down: `paxosctl up`"));
    };
    let live = &leader.configuration;
    refuse_store_version(rules, live, facts, doing)?;
    let steps = if rules.rule(live) { Vec::new() } else { vec![Step::Rule(rules)] };
    let host = HostPlan {
        name: live.name_of(leader.id),
        id: leader.id,
        votes: true,
        is_leader: true,
        stays_out: false,
        steps,
        release: None,
        node_toml: String::new(),
        former: None,
    };
    let voters: Vec<String> = live.voters().map(|member| member.name.clone()).collect();
    let change = super::member::Change { before: voters.clone(), after: voters, leaves: None };
    Ok(Plan {
        cluster: wish.inventory.cluster.name.clone(),
        cluster_uuid: leader.cluster_uuid.clone(),
        voters: live.voters().count(),
        quorum: Quorum::Keep,
        change: Some(change),
        hosts: vec![host],
        notes: notes(rules, leader),
        pins: BTreeMap::new(),
    })
}

/// The leader refuses it too; said before anything is asked, with what each member can do.
fn refuse_store_version(
    rules: Rules,
    live: &Configuration,
    facts: &BTreeMap<u32, Facts>,
    doing: &str,
) -> Result<()> {
    let Some(asked) = rules.store_version else { return Ok(()) };
    let refused = |because: String| Err(Error::new(Kind::Guard, doing).because(because));
    if asked < live.store_version {
        let ruling = live.store_version;
        return refused(format!("store version {ruling} rules, and it is never lowered"));
    }
    let statuses: Vec<&NodeStatus> = facts.values().filter_map(|f| f.status.as_ref()).collect();
    let lacks = |id: u32| match statuses.iter().find(|status| status.id == id) {
        Some(status) if status.store_version_newest < asked => {
            Some(format!("can do store versions up to {}", status.store_version_newest))
        }
        Some(_) => None,
        None => Some("does not answer".to_owned()),
    };
    let mut lacking = live.members.iter().filter_map(|m| Some((m, lacks(m.id)?)));
    match lacking.next() {
        Some((member, what)) if asked > live.store_version => Err(Error::new(Kind::Guard, doing)
            .on(&*member.name)
            .because(format!("it {what}, and {asked} is asked for"))
            .hint("bring the newer release to every member first: `paxosctl up`")),
        _ => Ok(()),
    }
}

fn notes(rules: Rules, leader: &NodeStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if rules.drift_percent.is_some_and(|percent| percent < DRIFT_PERCENT_OF_NTP) {
        notes.push(format!(
            "a drift below {DRIFT_PERCENT_OF_NTP} % is safe only where no clock is slewed by NTP: \
             else a deposed leader may serve old reads"
        ));
    }
    if rules.store_version.is_some_and(|asked| asked > leader.configuration.store_version) {
        notes.push(
            "a store version is never lowered: no member can go back to a release that cannot do it"
                .to_owned(),
        );
    }
    notes
}
