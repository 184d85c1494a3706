//! Packets between hosts, dropped without a word. Rules are set where packets arrive, in a table of
//! their own, and count what they drop: a cut that dropped nothing was none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::faults::Evidence;
use crate::fleet::Fleet;

const TABLE: &str = "inet nemesis";

/// Links that are cut, each in one direction: from, to.
pub(crate) type Links = BTreeSet<(u32, u32)>;

/// Both directions of every link between two nodes of which `apart` says so.
pub(crate) fn links(nodes: &[u32], apart: impl Fn(usize, usize) -> bool) -> Links {
    let mut links = Links::new();
    for from in 0..nodes.len() {
        for to in 0..nodes.len() {
            if from != to && (apart(from, to) || apart(to, from)) {
                links.insert((nodes[from], nodes[to]));
            }
        }
    }
    links
}

impl Fleet {
    /// Cuts links; the nodes at whose ends rules count now.
    pub(crate) fn cut(&self, links: &Links) -> Vec<u32> {
        let mut deaf: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (from, to) in links {
            deaf.entry(*to).or_default().push(self.all[from].address.to_string());
        }
        for (to, from) in &deaf {
            self.rule(
                *to,
                &[("input", format!("ip saddr {{ {} }} counter drop", from.join(", ")))],
            );
        }
        deaf.into_keys().collect()
    }

    /// Some packets of everybody are lost.
    pub(crate) fn lose(&self, nodes: &[u32], percent: u32) {
        let rule = format!("iif != lo numgen random mod 100 < {percent} counter drop");
        for node in nodes {
            self.rule(*node, &[("input", rule.clone())]);
        }
    }

    /// Nothing goes in or out, not even to clients.
    pub(crate) fn silence(&self, node: u32) {
        let rule = |lo: &str| format!("{lo} lo accept\ncounter drop");
        self.rule(node, &[("input", rule("iif")), ("output", rule("oif"))]);
    }

    fn rule(&self, node: u32, chains: &[(&str, String)]) {
        let mut rules = format!("table {TABLE} {{}}\ndelete table {TABLE}\ntable {TABLE} {{\n");
        for (hook, rule) in chains {
            let head = format!("type filter hook {hook} priority -190");
            writeln!(rules, "chain {hook} {{\n{head}\n{rule}\n}}").expect("a string grows");
        }
        self.shell(&self.all[&node].host, &format!("nft -f - <<'END'\n{rules}}}\nEND"));
    }

    /// Lets all packets pass again; how many were dropped at each of these nodes.
    pub(crate) fn mend(&self, nodes: &[u32]) -> Vec<Evidence> {
        let mut dropped = Vec::new();
        for node in nodes {
            let host = &self.all[node].host;
            let listed = self.shell(host, &format!("nft list table {TABLE}"));
            self.shell(host, &format!("nft delete table {TABLE}"));
            let counters = listed.split("packets ").skip(1);
            let counts = counters.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            dropped.push((*node, counts.sum::<u64>()));
        }
        let all: Vec<String> = dropped.iter().map(|(node, n)| format!("n{node} {n}")).collect();
        let acted = !dropped.is_empty() && dropped.iter().all(|(_, count)| *count > 0);
        vec![Evidence::of(acted, format!("packets dropped: {}", all.join(", ")))]
    }
}
