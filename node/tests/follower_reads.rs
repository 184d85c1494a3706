//! Reads at nodes that do not lead, by every setting of `follower_reads`: nodes without sockets, and
//! histories through changes of the leader, judged by the checker of `proof`.

#[path = "exactly_once/cluster.rs"]
#[allow(dead_code, reason = "the tests of transactions use the rest of it")]
mod cluster;

use bytes::Bytes;
use cluster::Cluster;
use config::{Behaviour, FollowerReads};
use node::clients::SessionId;
use proof::check::{Limits, Verdict, linearizable};
use proof::history::{Action, Answer, History, Operation, Outcome};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

fn cluster(settings: &[FollowerReads]) -> Cluster {
    let behaviour = |setting: &FollowerReads| Behaviour { follower_reads: *setting, ..default() };
    Cluster::start(&vec![0; settings.len()], settings.iter().map(behaviour).collect())
}

fn default() -> Behaviour {
    Behaviour::default()
}

/// A leader, a node that follows it, and the redirection to the leader for the key `k`.
fn ready(cluster: &mut Cluster) -> (usize, usize, String) {
    let leader = cluster.leader();
    cluster.wait(200);
    (leader, (leader + 1) % cluster.nodes.len(), format!("-MOVED 7629 host{}:7379", leader + 1))
}

#[test]
fn a_read_behind_readonly_is_served_where_it_arrives() {
    let mut cluster = cluster(&[FollowerReads::Linearizable; 3]);
    let (leader, follower, moved) = ready(&mut cluster);
    let (at_leader, reader) = (cluster.client(leader), cluster.client(follower));
    for value in 0..20 {
        cluster.ask(leader, at_leader, &format!("SET k {value}"));
        let replies = cluster.ask(follower, reader, "READONLY; GET k; EXISTS k; DBSIZE");
        assert_eq!(replies, format!("+OK ${value} :1 :1"));
    }
    assert_eq!(cluster.nodes[follower].counts.reads_followed, 60);
    // Whatever is no plain read, and whatever hangs on the leader's clock, is the leader's.
    for command in ["SET k 1", "GETDEL k", "TTL k", "PTTL k"] {
        assert_eq!(cluster.ask(follower, reader, command), moved, "{command}");
    }
    assert_eq!(cluster.ask(follower, reader, "EXPIRETIME k"), ":-1");
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    let replies = cluster.ask(follower, reader, "WATCH k; MULTI; GET k; EXEC; GET k");
    assert_eq!(replies, format!("{moved} +OK {moved} {aborted} $19"));
}

#[test]
fn readwrite_ends_it_and_a_new_connection_has_none() {
    let mut cluster = cluster(&[FollowerReads::Linearizable; 3]);
    let (leader, follower, moved) = ready(&mut cluster);
    let (at_leader, reader) = (cluster.client(leader), cluster.client(follower));
    cluster.ask(leader, at_leader, "SET k v");
    assert_eq!(cluster.ask(follower, reader, "GET k; READONLY"), format!("{moved} +OK"));
    assert_eq!(cluster.ask(follower, reader, "GET k"), "$v");
    assert_eq!(cluster.ask(follower, reader, "READWRITE; GET k"), format!("+OK {moved}"));
    let other = cluster.client(follower);
    assert_eq!(cluster.ask(follower, other, "GET k"), moved);
    // At the leader it says nothing.
    assert_eq!(cluster.ask(leader, at_leader, "READONLY; INCR n; GET n; TTL n"), "+OK :1 $1 :-1");
}

/// `READONLY` counts for what comes behind it, however long that which came before is held.
#[test]
fn what_was_asked_before_readonly_is_not_read_stale() {
    let mut cluster = cluster(&[FollowerReads::Stale; 3]);
    let (leader, follower, _) = ready(&mut cluster);
    let (at_leader, reader) = (cluster.client(leader), cluster.client(follower));
    cluster.ask(leader, at_leader, "SET k v");
    cluster.wait(300);
    cluster.cut_off(follower);
    cluster.wait(400);
    assert_eq!(cluster.ask(follower, reader, "READONLY; GET k; READWRITE"), "+OK $v +OK");
    let replies = cluster.ask(follower, reader, "GET k; READONLY; GET k");
    let refused = "-CLUSTERDOWN The cluster has no leader, the command was not executed";
    assert_eq!(replies, format!("{refused} +OK {refused}"));
}

#[test]
fn without_a_leader_it_is_held_and_then_surely_not_done() {
    let mut cluster = cluster(&[FollowerReads::Linearizable; 3]);
    let (leader, follower, _) = ready(&mut cluster);
    let (at_leader, reader) = (cluster.client(leader), cluster.client(follower));
    cluster.ask(leader, at_leader, "SET k v");
    assert_eq!(cluster.ask(follower, reader, "READONLY"), "+OK");
    cluster.cut_off(follower);
    // While the leader is still believed in, and later.
    for _ in 0..2 {
        cluster.send(follower, reader, "GET k; GET k");
        cluster.wait(default().hold_ms - 100);
        assert_eq!(cluster.replies(follower, reader), "");
        cluster.wait(200);
        let refused = "-CLUSTERDOWN The cluster has no leader, the command was not executed";
        assert_eq!(cluster.replies(follower, reader), format!("{refused} {refused}"));
    }
    // It goes on by itself when the leader is back within that time.
    cluster.ask(leader, at_leader, "SET k w");
    cluster.send(follower, reader, "GET k");
    cluster.wait(300);
    cluster.heal();
    cluster.wait(600);
    assert_eq!(cluster.replies(follower, reader), "$w");
}

/// The write is that of a leader which was deposed meanwhile.
#[test]
fn a_read_waits_for_the_write_of_its_own_connection() {
    for setting in [FollowerReads::Linearizable, FollowerReads::Stale] {
        let mut cluster = cluster(&[setting; 3]);
        let (old, _, _) = ready(&mut cluster);
        let client = cluster.client(old);
        assert_eq!(cluster.ask(old, client, "READONLY; SET k old"), "+OK +OK");
        cluster.cut_off(old);
        cluster.send(old, client, "SET k mine; GET k");
        let new = cluster.leader();
        cluster.wait(300);
        assert_eq!(cluster.replies(old, client), "", "the fate of the write is not known yet");
        cluster.heal();
        cluster.wait(2_000);
        let moved = format!("-MOVED 7629 host{}:7379", new + 1);
        assert_eq!(cluster.replies(old, client), format!("{moved} {moved}"));
    }
}

#[test]
fn a_stale_read_is_served_by_whoever_was_up_to_date_once() {
    let mut cluster = cluster(&[FollowerReads::Stale; 3]);
    let (leader, follower, _) = ready(&mut cluster);
    let (at_leader, reader) = (cluster.client(leader), cluster.client(follower));
    cluster.ask(leader, at_leader, "SET k old");
    cluster.wait(300);
    cluster.cut_off(follower);
    cluster.ask(leader, at_leader, "SET k new");
    cluster.wait(5_000);
    assert_eq!(cluster.ask(follower, reader, "READONLY; GET k"), "+OK $old");
    assert_eq!(cluster.nodes[follower].counts.reads_stale, 1);
    // Started anew it may not know a thing: no better than a node that has just been made.
    cluster.restart(follower);
    let reader = cluster.client(follower);
    let refused = "-CLUSTERDOWN The cluster has no leader, the command was not executed";
    assert_eq!(cluster.ask(follower, reader, "READONLY; GET k"), format!("+OK {refused}"));
    cluster.heal();
    cluster.wait(1_000);
    assert_eq!(cluster.ask(follower, reader, "GET k"), "$new");
}

/// It is each node's own setting.
#[test]
fn different_settings_go_together() {
    let settings = [FollowerReads::Moved, FollowerReads::Linearizable, FollowerReads::Stale];
    let mut cluster = cluster(&settings);
    for turn in 0..6 {
        let (leader, _, moved) = ready(&mut cluster);
        let writer = cluster.client(leader);
        cluster.ask(leader, writer, &format!("SET k {turn}"));
        let value = format!("${turn}");
        cluster.wait(300);
        for (place, setting) in settings.iter().enumerate() {
            let reader = cluster.client(place);
            let reply = cluster.ask(place, reader, "READONLY; GET k");
            let is_moved = place != leader && *setting == FollowerReads::Moved;
            let expected = if is_moved { &moved } else { &value };
            assert_eq!(reply, format!("+OK {expected}"), "turn {turn}, node {place}");
        }
        cluster.cut_off(leader);
        cluster.leader();
        cluster.heal();
        cluster.wait(1_000);
    }
}

// ---- histories ------------------------------------------------------------------------------------

/// Who asks one thing after another, at the node where it is; a writer goes where it is sent.
struct Client {
    number: u32,
    place: usize,
    session: SessionId,
    reads_only: bool,
    /// Its place in the history.
    asked: Option<usize>,
}

struct Run {
    cluster: Cluster,
    random: SmallRng,
    clients: Vec<Client>,
    history: History,
    /// Orders what happens within one step of the cluster's clock.
    clock_ns: u64,
    value: u64,
    reads_followed: u64,
    leaders: Vec<usize>,
}

impl Run {
    fn new(setting: FollowerReads, seed: u64) -> Run {
        let mut cluster = cluster(&[setting; 3]);
        let leader = cluster.leader();
        let open = |number: u32| {
            let place = number as usize % 3;
            let reads_only = number < 6;
            let session = open(&mut cluster, place, reads_only);
            Client { number, place, session, reads_only, asked: None }
        };
        let clients = (0..9).map(open).collect();
        Run {
            cluster,
            random: SmallRng::seed_from_u64(seed),
            clients,
            history: History::default(),
            clock_ns: 0,
            value: 0,
            reads_followed: 0,
            leaders: vec![leader],
        }
    }

    fn go(&mut self) -> Verdict {
        for _ in 0..1_500 {
            self.trouble();
            (0..self.clients.len()).for_each(|index| self.ask(index));
            self.cluster.step();
            (0..self.clients.len()).for_each(|index| self.hear(index));
        }
        self.reads_followed +=
            self.cluster.nodes.iter().map(|node| node.counts.reads_followed).sum::<u64>();
        for operation in &mut self.history.operations {
            if operation.action == Action::Get && operation.outcome == Outcome::Unknown {
                operation.outcome = Outcome::Failed;
            }
        }
        linearizable(&self.history, Limits::default())
    }

    fn trouble(&mut self) {
        let place = self.random.random_range(0..3);
        match self.random.random_range(0..400) {
            0..=2 => self.cluster.cut_off(place),
            3..=10 => self.cluster.heal(),
            11 => self.restart(place),
            _ => {}
        }
        let leads = |node: &node::node::Node| node.replica.reign_is_open();
        if let Some(leader) = self.cluster.nodes.iter().position(leads)
            && self.leaders.last() != Some(&leader)
        {
            self.leaders.push(leader);
        }
    }

    fn restart(&mut self, place: usize) {
        self.reads_followed += self.cluster.nodes[place].counts.reads_followed;
        self.cluster.restart(place);
        for index in 0..self.clients.len() {
            if self.clients[index].place == place {
                self.go_to(index, place);
            }
        }
    }

    /// What it has asked for is left open.
    fn go_to(&mut self, index: usize, place: usize) {
        let client = &mut self.clients[index];
        client.place = place;
        client.session = open(&mut self.cluster, place, client.reads_only);
        client.asked = None;
    }

    fn ask(&mut self, index: usize) {
        if self.clients[index].asked.is_some() || self.random.random_range(0..3) > 0 {
            return;
        }
        let key = ["a", "b"].choose(&mut self.random).expect("there are some");
        let (line, action) = match self.clients[index].reads_only {
            true => (format!("GET {key}"), Action::Get),
            false => {
                self.value += 1;
                (format!("SET {key} {}", self.value), Action::Set(self.value.to_string().into()))
            }
        };
        self.clock_ns += 1;
        let client = &mut self.clients[index];
        client.asked = Some(self.history.operations.len());
        self.history.operations.push(Operation {
            client: client.number,
            key: Bytes::from_static(key.as_bytes()),
            action,
            invoked_ns: self.clock_ns,
            returned_ns: 0,
            outcome: Outcome::Unknown,
        });
        self.cluster.send(client.place, client.session, &line);
    }

    fn hear(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(asked) = client.asked else { return };
        let reply = self.cluster.replies(client.place, client.session);
        if reply.is_empty() {
            return;
        }
        client.asked = None;
        self.clock_ns += 1;
        let operation = &mut self.history.operations[asked];
        operation.returned_ns = self.clock_ns;
        operation.outcome = match (&operation.action, reply.as_str()) {
            (_, error) if error.starts_with('-') && error != "-1" && error != "$-1" => {
                Outcome::Failed
            }
            (Action::Get, "$-1") => Outcome::Ok(Answer::Value(None)),
            (Action::Get, value) => {
                let value = value.trim_start_matches('$').to_owned();
                Outcome::Ok(Answer::Value(Some(value.into())))
            }
            _ => Outcome::Ok(Answer::Stored),
        };
        if client.reads_only || operation.outcome != Outcome::Failed {
            return;
        }
        // Where there is no leader, somebody else may know more.
        let host = reply.split("host").nth(1).and_then(|text| text.split(':').next()?.parse().ok());
        let place = host.map_or(self.random.random_range(0..3), |host: usize| host - 1);
        self.go_to(index, place);
    }
}

fn open(cluster: &mut Cluster, place: usize, reads_only: bool) -> SessionId {
    let session = cluster.client(place);
    if reads_only {
        cluster.send(place, session, "READONLY");
        cluster.replies(place, session);
    }
    session
}

#[test]
fn reads_at_followers_are_linearizable_through_changes_of_the_leader() {
    let (mut followed, mut changes) = (0, 0);
    for seed in 0..12 {
        let mut run = Run::new(FollowerReads::Linearizable, seed);
        assert_eq!(run.go(), Verdict::Holds, "seed {seed}");
        followed += run.reads_followed;
        changes += run.leaders.len() - 1;
    }
    println!("{followed} reads at followers, {changes} changes of the leader");
    assert!(followed > 5_000, "{followed} reads at followers");
    assert!(changes > 12, "{changes} changes of the leader");
}

/// The same course of events with stale reads: the judge has to notice, or it proves nothing.
#[test]
fn stale_reads_are_noticed() {
    let caught = (0..4)
        .filter(|seed| matches!(Run::new(FollowerReads::Stale, *seed).go(), Verdict::Violated(_)));
    assert_eq!(caught.count(), 4);
}
