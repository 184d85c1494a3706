//! Members come and go by one command each, on lab hosts, under writing clients: a cluster grows and
//! shrinks, hosts are replaced, and a run that broke off goes on.
//!
//! Asserted is what may never happen: a failed write other than a redirection, a lost one, an old id
//! that votes again. How long writes paused is printed.

mod common;
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use common::{SOON, show, until};
use proof::check::{Limits, Verdict};
use proof::client::Target;
use proof::load::{Finished, Load, Spec as LoadSpec};
use support::{Said, Site, eventually};

/// A cluster on lab hosts whose inventory is edited as a person would edit it.
struct Cluster {
    site: Site,
    inventory: PathBuf,
}

impl Cluster {
    /// `hosts` machines, of which the first `members` are in the inventory, and up.
    fn new(purpose: &str, hosts: usize, members: usize) -> Option<Cluster> {
        let site = Site::new(purpose, hosts)?;
        let text = fs::read_to_string(site.open_inventory()).unwrap();
        let (head, _) = text.split_once("\n[[host]]").unwrap();
        let inventory = site.lab.dir().join("mine.toml");
        fs::write(&inventory, head).unwrap();
        let cluster = Cluster { site, inventory };
        for id in 1..=members {
            cluster.write_host(&format!("n{id}"), id, &format!("n{id}"), "");
        }
        cluster.ctl(&["up"]).expect(0);
        Some(cluster)
    }

    fn ctl(&self, args: &[&str]) -> Said {
        self.site.ctl(&self.inventory, args)
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.inventory).unwrap()
    }

    fn write_host(&self, name: &str, id: usize, machine: &str, more: &str) {
        let address = self.site.address(machine);
        let host =
            format!("\n[[host]]\nname = \"{name}\"\nid = {id}\naddress = \"{address}\"\n{more}");
        fs::write(&self.inventory, self.text() + &host).unwrap();
    }

    /// What the command asked for: its lines, and no others.
    fn delete_lines(&self, said: &Said) {
        let quoted = said.stderr.lines().filter_map(|line| line.strip_prefix("  | "));
        let lines: String = quoted.map(|line| format!("{line}\n")).collect();
        let text = self.text();
        assert!(lines.starts_with("[[host]]") && text.contains(&lines), "{}", said.stderr);
        fs::write(&self.inventory, text.replace(&lines, "")).unwrap();
    }

    fn members(&self) -> serde_json::Value {
        self.ctl(&["member", "list", "-o", "json"]).expect(0).json()
    }

    /// Names of the voters, in the inventory's order.
    fn voters(&self) -> Vec<String> {
        let members = self.members()["members"].as_array().unwrap().clone();
        let votes = members.iter().filter(|member| member["membership"] == "voter");
        votes.map(|member| member["name"].as_str().unwrap().to_owned()).collect()
    }

    fn target(&self, machines: &[&str]) -> Target {
        let nodes = machines.iter().map(|machine| format!("{}:7379", self.site.address(machine)));
        Target::open(nodes.collect())
    }

    fn load(&self, clients: usize, machines: &[&str]) -> Load {
        Load::start(LoadSpec::new(self.target(machines), clients))
    }
}

async fn writes_go_on(load: &Load) {
    let before = load.stats().total().writes_ok;
    until("more acknowledged writes", async || load.stats().total().writes_ok > before + 100).await;
}

/// Nothing failed but by a redirection or a request to try again, nothing is in doubt, nothing is
/// lost.
async fn prove(mut finished: Finished, target: &Target, also: &[&str]) {
    let total = finished.stats.total();
    show(&format!(
        "{} writes acknowledged; clients were told {:?}; unknown fate {}",
        total.writes_ok, total.words, total.unknown
    ));
    assert_eq!(total.unknown, 0, "{:?}", total.words);
    let allowed = |word: &str| ["MOVED", "TRYAGAIN"].contains(&word) || also.contains(&word);
    assert!(total.words.keys().all(|word| allowed(word)), "{:?}", total.words);
    let proof = finished.verify(target, SOON, Limits::default()).await;
    assert_eq!(proof.verdict, Verdict::Holds, "{:#?}", proof.audit.findings);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_from_one_to_five_and_shrinks_to_three_under_load() {
    let Some(cluster) = Cluster::new("grow", 5, 1) else { return };
    let load = cluster.load(16, &["n1"]);
    writes_go_on(&load).await;
    let stats = load.stats().clone();
    stats.reset_gap();
    let pause = |what: &str| {
        show(&format!(
            "{what}: longest time without an acknowledged write {:?}",
            stats.longest_gap()
        ));
        stats.reset_gap();
    };
    for id in 2..=5 {
        let name = format!("n{id}");
        cluster.write_host(&name, id, &name, "");
        let said = cluster.ctl(&["member", "add", &name, "--yes"]).expect(0);
        said.says(&format!("redundancy: {id} of {id} voters caught up")).says("audit ");
        writes_go_on(&load).await;
        pause(&format!("add {name}"));
    }
    assert_eq!(cluster.voters(), ["n1", "n2", "n3", "n4", "n5"]);
    cluster.ctl(&["leader", "move", "n5"]).expect(0).says("n5 leads now");
    writes_go_on(&load).await;
    pause("leader move n5");
    for (name, left) in [("n5", 4), ("n4", 3)] {
        let said = cluster.ctl(&["member", "remove", name, "--yes"]).expect(0);
        let said = said.says(&format!("redundancy: {left} of {left} voters caught up"));
        cluster.delete_lines(&said.says("is never used again"));
        writes_go_on(&load).await;
        pause(&format!("remove {name}"));
        let left = cluster.site.lab.output(name, "cat /var/lib/paxos/tombstone").unwrap();
        assert!(left.contains("removed by configuration"), "{left}");
        assert!(cluster.site.lab.processes(name, "paxos-node").unwrap().is_empty());
    }
    assert_eq!(cluster.voters(), ["n1", "n2", "n3"]);
    cluster.ctl(&["up"]).expect(0);
    cluster.ctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    cluster.ctl(&["status", "--wait", "healthy"]).expect(0).says("can lose 1 more");
    writes_go_on(&load).await;
    prove(load.stop().await, &cluster.target(&["n1", "n2", "n3"]), &[]).await;
}

/// The same machine, its data wiped: nothing but a new id brings it back. And when the old data turns
/// up again, the node that it belongs to stays out for good (PITFALLS 8, 27).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_host_comes_back_under_a_new_id_and_its_old_one_never_votes_again() {
    let Some(cluster) = Cluster::new("wiped", 3, 3) else { return };
    let load = cluster.load(8, &["n1", "n3"]);
    writes_go_on(&load).await;
    let lab = &cluster.site.lab;
    // Writes that wait at a leader that is killed are in doubt, whatever becomes of its disk.
    cluster.ctl(&["leader", "move", "n1"]).expect(0);
    // A copy of what n2 had promised, for whoever finds it later.
    lab.kill_processes("n2", "paxos-node").unwrap();
    lab.output("n2", "cp -a /var/lib/paxos /opt/found && rm -rf /var/lib/paxos").unwrap();
    writes_go_on(&load).await;

    // The old id is refused, with the way out.
    let said = cluster.ctl(&["up"]).expect(7);
    said.says("error[GUARD] n2").says("`paxosctl member replace n2 n4`").says("id = 4");
    let said = cluster.ctl(&["member", "add", "n2", "--yes"]).expect(7);
    said.says("the disk was lost").says("`paxosctl member replace n2 n4`");
    assert!(!lab.run("n2", "test -e /var/lib/paxos/identity").unwrap().status.success());

    // One command, once the inventory says what is wished.
    let text = cluster.text().replace("name = \"n2\"\nid = 2\n", "name = \"n6\"\nid = 6\n");
    fs::write(&cluster.inventory, text).unwrap();
    cluster.ctl(&["member", "add", "n6", "--yes"]).expect(7).says("member replace n2 n6");
    let said = cluster.ctl(&["member", "replace", "n2", "n6", "--dry-run"]).expect(0);
    said.says("voters n1, n2, n3 become n1, n3, n6").says("dry run");
    let said = cluster.ctl(&["member", "replace", "n2", "n6", "--yes"]).expect(0);
    said.says("redundancy restored: 3 of 3 voters caught up, can lose 1 more");
    assert_eq!(cluster.voters(), ["n1", "n6", "n3"]);
    assert_eq!(cluster.members()["removed"], serde_json::json!([2]));
    writes_go_on(&load).await;
    // Given again, it finds that all is done.
    cluster.ctl(&["member", "replace", "n2", "n6", "--yes"]).expect(0).says("No changes");

    // The old data comes back to life on other ports: nobody counts it, and it says who it is.
    let old = "cd /opt && mkdir old && cp /opt/paxos/node.toml /opt/paxos/members.toml old/ && \
               sed -i 's/^id = 6/id = 2/; s/^name = \"n6\"/name = \"n2\"/; \
               s|/var/lib/paxos|/opt/found|; s/:7379/:8379/; s/:7380/:8380/; s/:7381/:8381/' \
               old/node.toml && \
               (setsid /opt/paxos/current/paxos-node --config old/node.toml >old/out 2>&1 </dev/null &)";
    lab.output("n2", old).unwrap();
    let ask = "/opt/paxos/current/paxos-node --config /opt/old/node.toml";
    eventually("the old node runs, or has gone for good", || {
        let runs = lab.run("n2", &format!("{ask} get /status")).unwrap();
        let gone = lab.run("n2", "test -e /opt/found/tombstone").unwrap();
        (runs.status.success() || gone.status.success()).then_some(())
    });
    for _ in 0..3 {
        writes_go_on(&load).await;
        let status = lab.run("n2", &format!("{ask} get /status")).unwrap();
        if let Ok(status) = serde_json::from_slice::<serde_json::Value>(&status.stdout) {
            assert_ne!(status["role"], "leader", "{status}");
        }
        for host in ["n1", "n3"] {
            let ask = "/opt/paxos/current/paxos-node --config /opt/paxos/node.toml get /status";
            let status: serde_json::Value =
                serde_json::from_str(&lab.output(host, ask).unwrap()).unwrap();
            let peers = status["peers"].as_array().unwrap();
            assert!(peers.iter().all(|peer| peer["id"] != 2), "{status}");
        }
    }
    assert_eq!(cluster.voters(), ["n1", "n6", "n3"]);
    prove(load.stop().await, &cluster.target(&["n1", "n3"]), &[]).await;
}

/// Three machines go and three come: the leader, then a host that lives, then one that is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hosts_are_replaced_by_three_others_under_load() {
    let Some(cluster) = Cluster::new("swap", 6, 3) else { return };
    cluster.ctl(&["leader", "move", "n1"]).expect(0);
    let load = cluster.load(16, &["n1", "n2", "n3", "n4", "n5", "n6"]);
    writes_go_on(&load).await;
    let stats = load.stats().clone();
    for (old, new, id) in [("n1", "n4", 4), ("n2", "n5", 5), ("n3", "n6", 6)] {
        if old == "n3" {
            // Writes that wait at a leader whose plug is pulled are in doubt, whoever replaces it.
            cluster.ctl(&["leader", "move", "n5"]).expect(0);
            writes_go_on(&load).await;
            cluster.site.lab.switch_off("n3").unwrap();
        }
        cluster.write_host(new, id, new, "");
        stats.reset_gap();
        let said = cluster.ctl(&["member", "replace", old, new, "--yes"]).expect(0);
        let said = said.says("redundancy restored: 3 of 3 voters caught up, can lose 1 more");
        cluster.delete_lines(&said);
        writes_go_on(&load).await;
        show(&format!(
            "replace {old} by {new}: longest time without an acknowledged write {:?}",
            stats.longest_gap()
        ));
        if old != "n3" {
            let left = cluster.site.lab.output(old, "cat /var/lib/paxos/tombstone").unwrap();
            assert!(left.contains("removed by configuration"), "{left}");
            assert!(cluster.site.lab.processes(old, "paxos-node").unwrap().is_empty());
        }
    }
    assert_eq!(cluster.voters(), ["n4", "n5", "n6"]);
    cluster.ctl(&["up"]).expect(0);
    cluster.ctl(&["plan", "--detailed-exitcode"]).expect(0).says("No changes");
    cluster.ctl(&["status", "--wait", "healthy"]).expect(0).says("can lose 1 more");
    // A client that turns to a node which is not there (yet, or any more) has sent nothing.
    prove(load.stop().await, &cluster.target(&["n4", "n5", "n6"]), &["CONNECT"]).await;
}

/// PITFALLS 113: whoever slept while all others were replaced knows nobody who is left. `up` wakes it,
/// and tells it whom to ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pitfall_113_a_member_that_slept_through_the_change_of_all_others_is_let_in() {
    let Some(cluster) = Cluster::new("slept", 5, 3) else { return };
    cluster.ctl(&["call", "SET", "k", "v"]).expect(0);
    cluster.ctl(&["down", "-n", "n3", "--yes"]).expect(0);
    for (old, new, id) in [("n1", "n4", 4), ("n2", "n5", 5)] {
        cluster.write_host(new, id, new, "");
        let said = cluster.ctl(&["member", "replace", old, new, "--yes"]).expect(0);
        cluster.delete_lines(&said.says("2 of 3 voters caught up").says("n3 is down"));
    }
    assert_eq!(cluster.voters(), ["n3", "n4", "n5"]);
    // Whoever is no member any more has stopped: n3 finds nobody by itself.
    for host in ["n1", "n2"] {
        assert!(cluster.site.lab.processes(host, "paxos-node").unwrap().is_empty());
    }
    cluster.ctl(&["up"]).expect(0).says("was introduced to");
    cluster.ctl(&["status", "--wait", "healthy"]).expect(0).says("can lose 1 more");
    assert_eq!(cluster.ctl(&["call", "GET", "k"]).expect(0).stdout, "v\n");
}

/// In whatever phase the tool is killed, the same command goes on from there; a disk is formatted
/// once, and the node is added once. No run leaves a voter behind that has not caught up (PITFALLS 77).
#[test]
fn pitfall_90_a_member_that_was_half_added_is_added_by_the_same_command() {
    let Some(cluster) = Cluster::new("half", 3, 2) else { return };
    cluster.write_host("n3", 3, "n3", "");
    let phases = [
        "format new nodes",
        "introduce the new node",
        "start nodes",
        "add it as a learner",
        "wait until it has caught up",
        "make it a voter",
    ];
    let identity = || {
        let said = cluster.site.lab.run("n3", "cat /var/lib/paxos/identity 2>/dev/null").unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    let (mut killed, mut identities) = (0, Vec::new());
    for phase in phases {
        let mut add = cluster.site.command(&cluster.inventory, &["member", "add", "n3", "--yes"]);
        let mut tool = add.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let voice = BufReader::new(tool.stderr.take().unwrap());
        let begun = voice.lines().any(|line| line.unwrap().contains(phase));
        tool.kill().unwrap();
        tool.wait().unwrap();
        killed += usize::from(begun);
        for host in cluster.site.lab.host_names() {
            cluster.site.expire_lock(&host);
        }
        identities.push(identity());
        if phase != "make it a voter" {
            assert_eq!(cluster.voters(), ["n1", "n2"], "killed in `{phase}`");
        }
    }
    assert!(killed >= 3, "only {killed} runs were killed in their phase");
    eventually("the next run finishes", || {
        let said = cluster.ctl(&["member", "add", "n3", "--yes"]);
        assert!(said.code == 0 || said.stderr.contains("nothing was done"), "{said:?}");
        (said.code == 0).then_some(())
    });
    cluster.ctl(&["member", "add", "n3", "--yes"]).expect(0).says("No changes");
    assert_eq!(cluster.voters(), ["n1", "n2", "n3"]);
    assert_eq!(cluster.site.lab.processes("n3", "paxos-node").unwrap().len(), 1);
    identities.retain(|text| !text.is_empty());
    let last = identity();
    assert!(identities.iter().all(|text| *text == last), "the disk was formatted once");
    cluster.ctl(&["status", "--wait", "healthy"]).expect(0).says("can lose 1 more");
    cluster.ctl(&["audit"]).expect(0).says("member add n3");
}

/// What would do harm is refused with the way out, and nothing else is; where the inventory and the
/// membership differ, every verb names the same mend.
#[test]
fn pitfall_25_a_change_that_would_do_harm_is_refused_and_says_what_mends_it() {
    let Some(cluster) = Cluster::new("rules", 4, 3) else { return };
    // A name that the inventory lacks: the lines to write.
    let said = cluster.ctl(&["member", "add", "n4", "--yes"]).expect(2);
    said.says("error[USAGE] n4").says("[[host]]").says("id = 4");
    cluster.ctl(&["member", "remove", "n9", "--yes"]).expect(2).says("n3 (id 3)");
    cluster.ctl(&["member", "remove", "n3"]).expect(2).says("--yes");

    // In the inventory only: left alone, and named.
    cluster.write_host("n4", 4, "n4", "role = \"learner\"\n");
    for verb in [&["plan"][..], &["up"], &["status"], &["member", "list"]] {
        cluster.ctl(verb).expect(0).says("paxosctl").says("member add n4");
    }
    assert!(cluster.site.lab.processes("n4", "paxos-node").unwrap().is_empty());
    cluster.ctl(&["plan", "--detailed-exitcode"]).expect(10).says("member add n4");
    cluster.ctl(&["show"]).expect(0).says("not a member").says("voter");
    cluster.ctl(&["status", "--wait", "healthy"]).expect(0).says("can lose 1 more");

    // What all members go by: changed, and then nothing is left to change.
    cluster.ctl(&["member", "rules", "--lease-ms", "80", "--yes"]).expect(0);
    cluster.ctl(&["member", "rules", "--lease-ms", "80", "--yes"]).expect(0).says("No changes");
    let rules = "rules: leases of 80 ms, drift 20 %, store version 1";
    cluster.ctl(&["member", "list"]).expect(0).says(rules);

    // With one voter down no other may leave; but whoever only listens may come and go. Where n1 led
    // from the start, moving the lead there would be nothing, and nothing would be in the audit.
    cluster.ctl(&["leader", "move", "n2"]).expect(0);
    cluster.ctl(&["leader", "move", "n1"]).expect(0);
    cluster.site.lab.kill_processes("n3", "paxos-node").unwrap();
    let said = cluster.ctl(&["member", "remove", "n1", "--yes"]).expect(7);
    said.says("n3 is down; removing n1 leaves 1 caught-up voter of 2, needs 2");
    cluster.ctl(&["member", "add", "n4", "--yes"]).expect(0).says("n3 is down");
    cluster.ctl(&["leader", "move", "n4"]).expect(2).says("a learner cannot lead");
    cluster.ctl(&["member", "promote", "n4", "--yes"]).expect(2).says("role = \"voter\"");
    let text = cluster.text().replace("role = \"learner\"", "role = \"voter\"");
    fs::write(&cluster.inventory, text).unwrap();
    cluster.ctl(&["member", "list"]).expect(0).says("member promote n4");
    cluster.ctl(&["member", "promote", "n4", "--yes"]).expect(0).says("3 of 4 voters caught up");

    // A dead one may leave; its host comes back, and it stays out.
    let said = cluster.ctl(&["member", "remove", "n3", "--yes"]).expect(0);
    said.says("redundancy: 3 of 3 voters caught up").says("id 3 is never used again");
    let tombstone = cluster.site.lab.output("n3", "cat /var/lib/paxos/tombstone").unwrap();
    assert!(tombstone.contains("removed by configuration"), "{tombstone}");
    for verb in [&["plan"][..], &["up"], &["status"], &["member", "list"]] {
        cluster.ctl(verb).expect(0).says("n3 (id 3) was removed");
    }
    assert!(cluster.site.lab.processes("n3", "paxos-node").unwrap().is_empty());
    // Not even when nobody runs who could say so (PITFALLS 91).
    cluster.ctl(&["down", "--yes"]).expect(0);
    cluster.ctl(&["up"]).expect(0).says("n3 (id 3) was removed");
    assert!(cluster.site.lab.processes("n3", "paxos-node").unwrap().is_empty());
    cluster.ctl(&["plan", "--detailed-exitcode"]).expect(10).says("n3 (id 3) was removed");
    cluster.ctl(&["show"]).expect(0).says("removed");
    cluster.ctl(&["member", "add", "n3", "--yes"]).expect(2).says("never used again");
    cluster.ctl(&["member", "remove", "n3", "--yes"]).expect(0).says("No changes");
    let audit = cluster.ctl(&["audit"]).expect(0);
    audit.says("member add n4").says("member remove n3").says("leader move n1");
}
