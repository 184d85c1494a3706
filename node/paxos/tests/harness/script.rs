//! Scripts: stories of a cluster that a person can read, with the cluster's own account recorded
//! under each step.
//!
//! A script is a list of blocks: commands, a line `---`, what happened, an empty line. Nothing
//! moves unless a command moves it; messages wait in the network until they are delivered or
//! dropped, and time stands still outside `run`.
//!
//! ```text
//! cluster nodes=3 learners=1 spares=1 strategy=highest-id window=4 chunk=1 disk=manual leader=1
//!   lease=100 speeds=890000,1110000     leases of 100 ms; how fast the nodes' clocks run, in ppm
//!   plain=2,3                           nodes that take no part in leases
//!   files=100,50,50 can=1,1,2           what each node's file says of L; which store version it can do
//!   priority=2:5                        n2's, where the others have 0
//!   timing=wan delay=100 slow=3:150     the longer timing; how many milliseconds messages travel
//!                                       in `run`, and those from and to n3 besides
//! campaign 2               n2 begins phase 1
//! propose 1 x              a client writes x at n1
//! read 1                   a client reads at n1
//! change 1 add 4 name=a for=2 | promote 4 | remove 4 | replace 1 4 | voters 3,4    at leader n1
//! change 1 rules lease=60 drift=25 store=2
//! deliver accept from=1 to=2,3      the waiting messages that match, in order
//! deliver accepted twice            each of them two times
//! drop accepted to=1                the same, but they are lost
//! deliver accept to=2 slot=4        only Accepts and Accepteds of that slot
//! settle                   deliver and sync until nothing moves any more
//! sync 2                   (disk=manual) everything that n2 has written is durable
//! cut 1-2 1>3 | isolate 3 | heal    links, both ways or one way
//! lose accepted to=1       the same messages are lost whenever they are sent, until `heal`
//! crash 1 keep=0 | start 1          keep: how many unsynced groups survive
//! start 1 can=2                     with a program that can do store version 2
//! snapshot 1 | spoil 1     n1 writes a snapshot and trims | its newest one is unreadable
//! grey 2 | able 2          n2 cannot accept, or can again
//! pause 1 | resume 1 | disconnect 2 1
//! tell 3 1                 n1 asks n3 what it lacks
//! ask 1 4                  an operator lets n1 ask n4, whoever that is
//! run 300ms                time passes: ticks, messages (1 ms), syncs; only events are shown
//! pass 30ms | tick 1       only the clocks move | one node notices
//! look 1 | check 1         a read under a lease in its two steps: the store, then the lease
//! follow 3                 a client reads at a follower, which asks the leader
//! transfer 1 2             n1 is to hand over to n2 (or to the best one)
//! status                   what each node promises, holds and knows
//! expect leader 3 | nobody | ballots 2 | done 4 | runs 1    a violation unless n3 leads, and nobody
//!                          else; nobody leads; no more ballots were begun so far; so many batches
//!                          are acknowledged and none is lost; n1 is needed still
//! ```

mod expect;
mod pattern;

use std::collections::{BTreeMap, BTreeSet};

use paxos::{
    Change, ElectionStrategy, Envelope, Member, Message, NodeId, Refusal, Rules, Settings, Timing,
};

use super::cluster::{Cluster, Look};
use super::describe;
use super::foul::Foul;
use pattern::Pattern;

const MS: u64 = 1_000;

/// As in the preset `wan`.
const WAN: Timing = Timing {
    heartbeat_us: 100 * MS,
    silence_us: 1_000 * MS,
    silence_jitter_us: 300 * MS,
    takeover_rank_us: 75 * MS,
    phase1_us: 1_200 * MS,
    phase1_us_max: 5_000 * MS,
    resend_us: 600 * MS,
    stalled_us: 2_000 * MS,
};

/// One block of a script.
#[derive(Debug)]
pub struct Block {
    pub commands: Vec<String>,
    pub answer: Vec<String>,
}

pub fn parse(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut block = Block { commands: Vec::new(), answer: Vec::new() };
    let mut in_answer = false;
    for line in text.lines().chain([""]) {
        if line == "---" {
            in_answer = true;
        } else if line.is_empty() && in_answer {
            blocks.push(std::mem::replace(
                &mut block,
                Block { commands: Vec::new(), answer: Vec::new() },
            ));
            in_answer = false;
        } else if in_answer {
            block.answer.push(line.to_owned());
        } else {
            block.commands.push(line.to_owned());
        }
    }
    if block.commands.iter().any(|line| !line.is_empty()) {
        blocks.push(block);
    }
    blocks
}

/// Runs all blocks; returns them with the answers as they are now. A broken invariant is part of
/// the answer, and ends the script.
pub fn play(blocks: &[Block], foul: Option<Foul>) -> (Vec<Block>, Option<String>) {
    let mut stage = Stage::new(foul);
    let mut played = Vec::new();
    for block in blocks {
        for command in &block.commands {
            let words: Vec<&str> = command.split_whitespace().collect();
            if words.first().is_some_and(|word| !word.starts_with('#')) {
                stage.command(&words);
            }
        }
        let mut answer = stage.take_lines();
        let violation =
            stage.cluster.as_ref().and_then(|cluster| cluster.checker.violation.clone());
        if let Some(violation) = &violation {
            answer.push(format!("VIOLATION: {violation}"));
        }
        played.push(Block { commands: block.commands.clone(), answer });
        if violation.is_some() {
            return (played, violation);
        }
    }
    (played, None)
}

pub fn write(blocks: &[Block]) -> String {
    let mut text = String::new();
    for block in blocks {
        for line in block.commands.iter().chain([&"---".to_owned()]).chain(&block.answer) {
            text.push_str(line);
            text.push('\n');
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

struct Stage {
    cluster: Option<Cluster>,
    /// Messages on their way, in the order in which they were sent, with when.
    network: Vec<(u64, Envelope)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    /// What the network loses until it is healed.
    lost: Vec<Pattern>,
    paused: BTreeSet<NodeId>,
    syncs_by_itself: bool,
    /// How long a message travels while time passes, and how much longer from and to some nodes.
    delay_us: u64,
    slow_us: BTreeMap<NodeId, u64>,
    /// Reads whose lease is not checked yet.
    looks: Vec<Look>,
    foul: Option<Foul>,
}

impl Stage {
    fn new(foul: Option<Foul>) -> Stage {
        Stage {
            cluster: None,
            network: Vec::new(),
            cut: BTreeSet::new(),
            lost: Vec::new(),
            paused: BTreeSet::new(),
            syncs_by_itself: true,
            delay_us: 0,
            slow_us: BTreeMap::new(),
            looks: Vec::new(),
            foul,
        }
    }

    fn cluster(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("a script begins with the command `cluster`")
    }

    fn take_lines(&mut self) -> Vec<String> {
        self.cluster
            .as_mut()
            .map(|cluster| cluster.trace.lines.drain(..).collect())
            .unwrap_or_default()
    }

    fn say(&mut self, line: String) {
        self.cluster().trace.line(|| line);
    }

    fn command(&mut self, words: &[&str]) {
        let node = |at: usize| NodeId(words[at].parse().expect("a node's number"));
        match words[0] {
            "cluster" => self.begin(words),
            "campaign" => {
                let id = node(1);
                self.cluster().take_over(id);
            }
            "propose" => self.propose(node(1), &words[2..].join(" ")),
            "read" => match self.cluster().read(node(1)) {
                Some(Ok(read)) if self.cluster().waits(node(1), read) => {
                    self.say(format!("{} begins read {}", node(1), read.0));
                }
                Some(Ok(_)) => {}
                Some(Err(refusal)) => self.refused(node(1), refusal),
                None => self.say(format!("{} is down", node(1))),
            },
            "deliver" => self.deliver(words, true),
            "drop" => self.deliver(words, false),
            "settle" => self.settle(),
            "sync" => {
                let id = node(1);
                self.sync(id);
            }
            "cut" => words[1..].iter().for_each(|link| self.cut_link(link)),
            "isolate" => {
                for other in self.cluster().ids() {
                    self.cut.extend([(node(1), other), (other, node(1))]);
                }
            }
            "lose" => self.lost.push(Pattern::parse(&words[1..])),
            "heal" => {
                self.cut.clear();
                self.lost.clear();
            }
            "crash" => {
                let keep = words.get(2).map_or(0, |word| number(word, "keep="));
                self.cluster().crash(node(1), keep as usize);
                self.network.retain(|(_, envelope)| envelope.to != node(1));
            }
            "start" => {
                if let Some(can) = words.get(2) {
                    let newest = number(can, "can=") as u32;
                    self.cluster().node(node(1)).settings.store_version_newest = newest;
                }
                self.cluster().start(node(1));
            }
            "snapshot" => {
                let snapshot = self.cluster().snapshot(node(1)).expect("a running node");
                self.cluster().snapshot_synced(node(1), snapshot);
            }
            "spoil" => self.cluster().spoil_newest_snapshot(node(1)),
            "grey" => self.cluster().set_can_accept(node(1), false),
            "able" => self.cluster().set_can_accept(node(1), true),
            "pause" => drop(self.paused.insert(node(1))),
            "resume" => drop(self.paused.remove(&node(1))),
            // A peer asks, as it would after some silence: CatchUp from where it stands.
            "tell" => {
                let first_unchosen =
                    self.cluster().replica(node(2)).expect("a running node").first_unchosen();
                let message = Message::CatchUp { first_unchosen };
                self.cluster().deliver(Envelope { from: node(2), to: node(1), message });
            }
            "ask" => {
                let (id, peer) = (node(1), node(2));
                self.cluster().ask(id, peer);
            }
            "change" => self.change(node(1), &words[2..]),
            "disconnect" => self.cluster().disconnected(node(1), node(2)),
            "run" => self.run(number(words[1].trim_end_matches("ms"), "")),
            "pass" => self.cluster().time_us += MS * number(words[1].trim_end_matches("ms"), ""),
            "tick" => {
                let id = node(1);
                self.cluster().tick(id);
            }
            "look" => match self.cluster().look(node(1)) {
                Some(look) => {
                    self.looks.push(look);
                    self.say(format!("{} has read its store", node(1)));
                }
                None => self.say(format!("{} reads under no lease", node(1))),
            },
            "check" => {
                let of_node = |look: &mut Look| look.node == node(1);
                for look in self.looks.extract_if(.., of_node).collect::<Vec<_>>() {
                    self.cluster().check(look);
                }
            }
            "follow" => match self.cluster().read_at_follower(node(1)) {
                Some(Ok(read)) => self.say(format!("{} asks for read {}", node(1), read.0)),
                Some(Err(refusal)) => self.refused(node(1), refusal),
                None => self.say(format!("{} is down", node(1))),
            },
            "transfer" => {
                let to = words.get(2).map(|_| node(2));
                match self.cluster().hand_over(node(1), to) {
                    Some(Ok(to)) => self.say(format!("{} hands over to {to}", node(1))),
                    Some(Err(refusal)) => {
                        self.say(format!("{} does not hand over: {refusal:?}", node(1)));
                    }
                    None => self.say(format!("{} is down", node(1))),
                }
            }
            "status" => self.status(),
            "expect" => self.expect(&words[1..]),
            other => panic!("no such command: {other}"),
        }
        self.pick_up();
    }

    fn begin(&mut self, words: &[&str]) {
        let option = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
        let value =
            |name: &str, default: u64| option(name).map_or(default, |word| number(word, ""));
        let sizes =
            (value("nodes=", 3) as u32, value("learners=", 0) as u32, value("spares=", 0) as u32);
        let mut cluster = Cluster::new(sizes, |id| {
            let mut settings = Settings::new(id, 0, u64::from(id.0));
            let is_plain = option("plain=").is_some_and(|list| {
                list.split(',').any(|node| number(node, "") == u64::from(id.0))
            });
            settings.takes_part_in_leases = !is_plain;
            let own = |name: &str, default: u64| {
                let of_each = option(name).and_then(|list| list.split(',').nth(id.0 as usize - 1));
                of_each.map_or(default, |text| number(text, ""))
            };
            settings.lease_terms.lease_us = MS * own("files=", value("lease=", 0));
            settings.store_version_newest = own("can=", 1) as u32;
            if option("timing=") == Some("wan") {
                settings.timing = WAN;
            }
            let preferred = option("priority=").and_then(|text| text.split_once(':'));
            let is_preferred =
                preferred.is_some_and(|(node, _)| number(node, "") == u64::from(id.0));
            settings.priority = preferred
                .filter(|_| is_preferred)
                .map_or(0, |(_, priority)| number(priority, "") as u32);
            settings.limits.window_slots = value("window=", 256);
            settings.limits.chunk_bytes = value("chunk=", 256 << 10) as usize;
            if option("strategy=") == Some("highest-id") {
                settings.election = ElectionStrategy::HighestId;
            }
            settings
        });
        for node in cluster.nodes.values_mut() {
            node.segment_groups = value("segment=", usize::MAX as u64) as usize;
        }
        let speeds = option("speeds=").unwrap_or_default().split(',');
        for (node, speed) in cluster.nodes.values_mut().zip(speeds.filter(|text| !text.is_empty()))
        {
            node.clock.speed_ppm = number(speed, "");
        }
        cluster.foul = self.foul;
        cluster.trace.enabled = true;
        for id in cluster.ids() {
            cluster.start(id);
        }
        cluster.trace.lines.clear();
        self.cluster = Some(cluster);
        if let Some(leader) = option("leader=") {
            let leader = NodeId(number(leader, "") as u32);
            self.cluster().take_over(leader);
            self.pick_up();
            self.settle();
            self.cluster().trace.lines.clear();
            self.say(format!("{leader} leads"));
        }
        self.syncs_by_itself = option("disk=") != Some("manual");
        self.delay_us = MS * value("delay=", 0);
        let slow = option("slow=").and_then(|text| text.split_once(':'));
        self.slow_us
            .extend(slow.map(|(node, ms)| (NodeId(number(node, "") as u32), MS * number(ms, ""))));
    }

    fn propose(&mut self, id: NodeId, payload: &str) {
        match self.cluster().propose(id, payload) {
            Some(Ok(_)) => {}
            Some(Err(refusal)) => self.refused(id, refusal),
            None => self.say(format!("{id} is down")),
        }
    }

    fn change(&mut self, id: NodeId, words: &[&str]) {
        let node = |at: usize| NodeId(number(words[at], "") as u32);
        let change = match words[0] {
            // `add 4 name=n2 for=2`: called n2, and to take the place of node 2.
            "add" => {
                let option = |prefix| words.iter().find_map(|word| word.strip_prefix(prefix));
                let name = option("name=").unwrap_or_default().to_owned();
                let in_place_of = option("for=").map(|id| NodeId(number(id, "") as u32));
                let member = Member { name, ..Member::default() };
                let newest = self.cluster().node(node(1)).settings.store_version_newest;
                let store_version = Some(newest);
                Change::Add { node: node(1), member, in_place_of, store_version }
            }
            "promote" => Change::Promote(node(1)),
            "remove" => Change::Remove(node(1)),
            "replace" => Change::Replace { old: node(1), new: node(2) },
            "voters" => Change::Voters(
                words[1].split(',').map(|id| NodeId(number(id, "") as u32)).collect(),
            ),
            "rules" => {
                let rule = |name: &str| {
                    let text = words.iter().find_map(|word| word.strip_prefix(name))?;
                    Some(number(text, ""))
                };
                Change::Rules(Rules {
                    lease_us: rule("lease=").map(|lease_ms| MS * lease_ms),
                    drift_percent: rule("drift=").map(|percent| percent as u32),
                    store_version: rule("store=").map(|version| version as u32),
                })
            }
            other => panic!("no such change: {other}"),
        };
        match self.cluster().change(id, &change) {
            Some(Ok(_)) => {}
            Some(Err(refusal)) => self.say(format!("{id} refuses the change: {refusal}")),
            None => self.say(format!("{id} is down")),
        }
    }

    fn refused(&mut self, id: NodeId, refusal: Refusal) {
        let why = match refusal {
            Refusal::NotLeading { leader: Some(leader) } => format!("ask {leader}"),
            Refusal::NotLeading { leader: None } => "no leader known".to_owned(),
            Refusal::WindowFull => "the window is full".to_owned(),
        };
        self.say(format!("{id} takes nothing: {why}"));
    }

    fn cut_link(&mut self, link: &str) {
        let ends = |mark: char| {
            let (from, to) = link.split_once(mark)?;
            Some((NodeId(number(from, "") as u32), NodeId(number(to, "") as u32)))
        };
        if let Some((from, to)) = ends('>') {
            self.cut.insert((from, to));
        } else if let Some((a, b)) = ends('-') {
            self.cut.extend([(a, b), (b, a)]);
        } else {
            panic!("no such link: {link}");
        }
    }

    /// Takes what the last call sent, and lets disks work unless the script does that.
    fn pick_up(&mut self) {
        loop {
            let time_us = self.cluster().time_us;
            let sent = std::mem::take(&mut self.cluster().outbox);
            self.network.extend(sent.into_iter().map(|envelope| (time_us, envelope)));
            let (cut, lost) = (&self.cut, &self.lost);
            self.network.retain(|(_, envelope)| {
                !cut.contains(&(envelope.from, envelope.to))
                    && !lost.iter().any(|pattern| pattern.matches(envelope))
            });
            if !self.syncs_by_itself || !self.sync_all() {
                return;
            }
        }
    }

    /// True if anything was unsynced.
    fn sync_all(&mut self) -> bool {
        let ids = self.cluster().ids();
        let unsynced = ids.into_iter().filter(|id| {
            let node = self.cluster().node(*id);
            node.process.is_some() && node.disk.unsynced_count() > 0
        });
        let unsynced: Vec<NodeId> = unsynced.collect();
        unsynced.iter().for_each(|id| self.sync(*id));
        !unsynced.is_empty()
    }

    fn sync(&mut self, id: NodeId) {
        let end = self.cluster().node(id).disk.end();
        self.cluster().sync(id, end);
    }

    fn deliver(&mut self, words: &[&str], arrives: bool) {
        let pattern = Pattern::parse(&words[1..]);
        let waiting = std::mem::take(&mut self.network);
        let (chosen, left): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(_, envelope)| pattern.matches(envelope));
        self.network = left;
        if chosen.is_empty() {
            self.say(format!("(no message to {})", words.join(" ")));
        }
        for (_, envelope) in chosen {
            if arrives {
                if words.contains(&"twice") {
                    self.arrive(envelope.clone());
                }
                self.arrive(envelope);
            } else if !matches!(envelope.message, Message::Heartbeat(_)) {
                let (from, to) = (envelope.from, envelope.to);
                self.say(format!("{from} ⇥ {to} {} is lost", describe::message(&envelope.message)));
            }
            self.pick_up();
        }
    }

    /// Delivers one message. Heartbeats are too many to be shown.
    fn arrive(&mut self, envelope: Envelope) {
        let is_heartbeat = matches!(envelope.message, Message::Heartbeat(_));
        let shown = self.cluster().trace.lines.len();
        self.cluster().deliver(envelope);
        if is_heartbeat {
            self.cluster().trace.lines.remove(shown);
        }
    }

    fn settle(&mut self) {
        self.pick_up();
        for _ in 0..10_000 {
            if !self.network.is_empty() {
                let (_, envelope) = self.network.remove(0);
                if self.cluster().is_up(envelope.to) {
                    self.arrive(envelope);
                }
            } else if !self.install_wanted() && !self.sync_all() {
                return;
            }
            self.pick_up();
        }
        panic!("it never settles");
    }

    /// Streams the snapshots that somebody asked for.
    fn install_wanted(&mut self) -> bool {
        let wanted = std::mem::take(&mut self.cluster().snapshots_wanted);
        for (from, to) in &wanted {
            if let Some(snapshot) = self.cluster().node(*from).disk.snapshots.last().cloned()
                && !self.cut.contains(&(*from, *to))
            {
                self.cluster().install(*to, snapshot);
            }
        }
        !wanted.is_empty()
    }

    /// Lets time pass, a millisecond a step. Of all that happens only the events are kept.
    fn run(&mut self, ms: u64) {
        let shown = self.cluster().trace.lines.len();
        for _ in 0..ms {
            self.cluster().time_us += MS;
            let now_us = self.cluster().time_us;
            self.pick_up();
            self.sync_all();
            let paused = self.paused.clone();
            let (delay_us, slow_us) = (self.delay_us, self.slow_us.clone());
            let due = |at_us: u64, envelope: &Envelope| {
                let ends = [envelope.from, envelope.to];
                let slow_us: u64 = ends.iter().filter_map(|end| slow_us.get(end)).sum();
                at_us + delay_us + slow_us < now_us && !paused.contains(&envelope.to)
            };
            let waiting = std::mem::take(&mut self.network);
            let (arriving, left): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(at_us, envelope)| due(*at_us, envelope));
            self.network = left;
            for (_, envelope) in arriving {
                if self.cluster().is_up(envelope.to) {
                    self.arrive(envelope);
                }
            }
            self.install_wanted();
            for id in self.cluster().ids() {
                // Each node's ticks fall into their own millisecond.
                if (now_us / MS + u64::from(id.0)).is_multiple_of(5) && !self.paused.contains(&id) {
                    self.cluster().tick(id);
                }
            }
            self.pick_up();
        }
        let lines = &mut self.cluster().trace.lines;
        let events: Vec<String> = lines.drain(shown..).collect();
        let is_event = |line: &String| {
            !line.contains(" → ") && !line.contains(" writes: ") && !line.contains(" tallies ")
        };
        lines.extend(events.into_iter().filter(is_event));
    }

    fn status(&mut self) {
        let mut lines = Vec::new();
        let cluster = self.cluster();
        for (id, node) in &cluster.nodes {
            let Some(process) = &node.process else {
                let gone = if node.has_tombstone { "removed" } else { "down" };
                lines.push(format!("{id} {gone}"));
                continue;
            };
            let replica = &process.replica;
            let role = match (replica.leading(), replica.preparing()) {
                (Some(ballot), _) => format!("leads {ballot}"),
                (None, Some(ballot)) => format!("prepares {ballot}"),
                (None, None) => "follows".to_owned(),
            };
            let book = cluster.checker.book(*id);
            let entries =
                book.entries.range(replica.first_kept()..).map(|(slot, (accepted, value))| {
                    let known = *slot < replica.first_unchosen();
                    let how =
                        if known { "chosen".to_owned() } else { describe::accepted(*accepted) };
                    format!("{slot}:{}@{how}", describe::value(value))
                });
            let entries: Vec<String> = entries.collect();
            lines.push(format!(
                "{id} {role}, promised {}, first_unchosen {} [{}]",
                replica.promised(),
                replica.first_unchosen(),
                entries.join(", ")
            ));
        }
        lines.into_iter().for_each(|line| self.say(line));
    }
}

fn number(text: &str, prefix: &str) -> u64 {
    let digits = text.strip_prefix(prefix).unwrap_or(text);
    digits.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}
