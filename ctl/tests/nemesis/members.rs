//! Members come and go, by `paxos-node admin member …` on the leader's host. An answer may be lost
//! with its leader, so what counts is what the configuration says afterwards.

use std::time::Duration;

use monitoring::status::{Configuration, MemberRole};
use rand::Rng;

use crate::faults::Evidence;
use crate::fleet::{Fleet, SOON, within};

/// How far voters are let grow and shrink.
const VOTERS: std::ops::RangeInclusive<usize> = 4..=6;

pub(crate) fn voters(configuration: &Configuration) -> Vec<u32> {
    let members = configuration.members.iter();
    members.filter(|member| member.role == MemberRole::Voter).map(|member| member.id).collect()
}

impl Fleet {
    /// A learner joins, catches up and becomes a voter. Where no host is free, somebody leaves.
    pub(crate) fn grow(&mut self) -> Vec<Evidence> {
        let before = self.wait_for_leader().configuration;
        let Some(host) = self.free_host() else { return self.shrink(false) };
        if voters(&before).len() >= *VOTERS.end() {
            return self.shrink(false);
        }
        let new = self.join(&host);
        let after = self.change(&format!("promote n{new}"), |now| voters(now).contains(&new));
        vec![grown(&before, &after, format!("n{new} joined and votes"))]
    }

    /// A voter leaves: the leader, or another. Where too few are left, one joins instead.
    pub(crate) fn shrink(&mut self, leader_leaves: bool) -> Vec<Evidence> {
        let before = self.wait_for_leader().configuration;
        if voters(&before).len() <= *VOTERS.start() {
            return self.grow();
        }
        let (leader, others) = self.leader_and_voters();
        let old = if leader_leaves { leader } else { others[0] };
        let after = self.change(&format!("remove n{old}"), |now| !has(now, old));
        let which = if leader_leaves { "the leader" } else { "a follower" };
        vec![grown(&before, &after, format!("n{old}, {which}, was removed")), self.bury(old)]
    }

    /// A learner takes the place of a voter, in one step.
    pub(crate) fn replace(&mut self) -> Vec<Evidence> {
        let Some(host) = self.free_host() else { return self.shrink(false) };
        let before = self.wait_for_leader().configuration;
        let new = self.join(&host);
        let (leader, others) = self.leader_and_voters();
        let old = if self.rng.random_bool(0.3) { leader } else { others[0] };
        let after = self.change(&format!("replace n{old} n{new}"), |now| {
            voters(now).contains(&new) && !has(now, old)
        });
        vec![grown(&before, &after, format!("n{new} replaced n{old}")), self.bury(old)]
    }

    /// A fresh node on a free host becomes a learner.
    fn join(&mut self, host: &str) -> u32 {
        // Ids are never used again.
        let id = self.all.keys().next_back().expect("there are nodes") + 1;
        let new = self.format(id, host);
        let words = format!(
            "add {id} n{id} {} {} {} {} {}",
            new.incarnation, new.public_key, new.peer, new.client, new.http
        );
        self.change(&words, |now| has(now, id));
        let members = self.eventually("the members as a file", || {
            let leader = self.leader()?.id;
            let said = self.program(leader, "admin member export").ok()?;
            let said: serde_json::Value = serde_json::from_str(&said).ok()?;
            said["members_toml"].as_str().map(str::to_owned)
        });
        self.introduce(id, &members);
        self.start(id);
        id
    }

    /// Asks the leader for a change until the configuration is as wanted.
    fn change(&self, words: &str, is_done: impl Fn(&Configuration) -> bool) -> Configuration {
        let mut said = String::new();
        let done = within(SOON, || {
            let leader = self.leader()?;
            if is_done(&leader.configuration) {
                return Some(leader.configuration);
            }
            if let Err(error) = self.program(leader.id, &format!("admin member {words}")) {
                said = error;
            }
            None
        });
        done.unwrap_or_else(|| {
            panic!("not within {SOON:?}: member {words}: {said}\n{}", self.describe())
        })
    }

    /// A node that was removed ends by itself and leaves its tombstone.
    fn bury(&mut self, id: u32) -> Evidence {
        let node = self.all[&id].clone();
        let grave = format!("cat {}/tombstone", node.data_dir());
        let buried = within(SOON, || {
            let ended = self.process(id).is_none();
            let output = self.site.lab.run(&node.host, &grave).expect("look for a tombstone");
            (ended && output.status.success()).then_some(())
        });
        if buried.is_none() {
            return Evidence::of(false, format!("n{id} has not ended\n{}", self.describe()));
        }
        self.running.remove(&id);
        self.placed.remove(&id);
        self.shell(&node.host, &format!("rm -rf {}", node.data_dir()));
        Evidence::of(true, format!("n{id} ended and left its tombstone"))
    }

    fn free_host(&mut self) -> Option<String> {
        let taken = |host: &String| self.placed.iter().any(|id| self.all[id].host == *host);
        let hosts = self.site.lab.host_names();
        let free: Vec<String> = hosts.into_iter().filter(|host| !taken(host)).collect();
        (!free.is_empty()).then(|| free[self.rng.random_range(0..free.len())].clone())
    }

    /// The leader hands over to another voter.
    pub(crate) fn transfer(&mut self) -> Vec<Evidence> {
        let mut said = String::new();
        for _ in 0..20 {
            let (leader, others) = self.leader_and_voters();
            let to = others[0];
            let before = self.wait_for_leader().ballot;
            match self.program(leader, &format!("admin transfer {to}")) {
                Ok(answer) => {
                    let after = within(SOON, || self.leader().filter(|now| now.ballot > before));
                    let leads = answer.contains("took_us") && after.is_some();
                    return vec![Evidence::of(leads, format!("n{leader} handed over to n{to}"))];
                }
                // Behind, not reached, or no leader any more: another try.
                Err(error) => said = error,
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        vec![Evidence::of(false, format!("nobody took over: {said}"))]
    }
}

fn has(configuration: &Configuration, id: u32) -> bool {
    configuration.members.iter().any(|member| member.id == id)
}

fn grown(before: &Configuration, after: &Configuration, what: String) -> Evidence {
    let (from, to) = (before.number, after.number);
    Evidence::of(to > from, format!("{what}: configuration {from} -> {to}"))
}
