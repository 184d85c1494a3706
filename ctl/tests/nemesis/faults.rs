//! The faults: how each begins, how it ends, and the evidence that it acted. A fault without evidence
//! proves nothing about the cluster, so it fails the run.

use std::fmt;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use proof::client::{Client, Fate};
use rand::Rng;
use rustix::process::{Pid, Signal, kill_process};

use crate::fleet::{DISK, Fleet, SOON, within};
use crate::network::{Links, links};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillLeader,
    KillFollower,
    KillAll,
    PauseLeader,
    PauseFollower,
    LeaderInMinority,
    LeaderInMajority,
    Halves,
    Ring,
    Bridge,
    LeaderDeaf,
    LeaderMute,
    LeaderSilent,
    Loss,
    FullLeader,
    FullAll,
    SlowLeader,
    SlowFollower,
    Clock,
    Transfer,
    Grow,
    Shrink,
    RemoveLeader,
    Replace,
}

impl Fault {
    pub(crate) const ALL: [Fault; 24] = [
        Fault::KillLeader,
        Fault::KillFollower,
        Fault::KillAll,
        Fault::PauseLeader,
        Fault::PauseFollower,
        Fault::LeaderInMinority,
        Fault::LeaderInMajority,
        Fault::Halves,
        Fault::Ring,
        Fault::Bridge,
        Fault::LeaderDeaf,
        Fault::LeaderMute,
        Fault::LeaderSilent,
        Fault::Loss,
        Fault::FullLeader,
        Fault::FullAll,
        Fault::SlowLeader,
        Fault::SlowFollower,
        Fault::Clock,
        Fault::Transfer,
        Fault::Grow,
        Fault::Shrink,
        Fault::RemoveLeader,
        Fault::Replace,
    ];

    /// What may strike as well while this one lasts.
    fn companions(self) -> &'static [Fault] {
        match self {
            Fault::LeaderInMinority | Fault::LeaderInMajority | Fault::Ring | Fault::Bridge => {
                &[Fault::PauseLeader, Fault::PauseFollower, Fault::KillLeader, Fault::KillFollower]
            }
            Fault::LeaderDeaf | Fault::LeaderMute | Fault::FullLeader => &[Fault::KillFollower],
            Fault::Loss => &[Fault::KillLeader, Fault::PauseLeader],
            Fault::KillFollower => &[Fault::PauseLeader, Fault::Transfer, Fault::Grow],
            Fault::PauseFollower => &[Fault::KillLeader, Fault::Transfer, Fault::Replace],
            // A wrong clock matters when somebody begins to lead.
            Fault::Clock => &[Fault::KillLeader, Fault::PauseLeader, Fault::Transfer],
            _ => &[],
        }
    }
}

/// Something that was seen, and whether it shows that the fault acted.
pub(crate) struct Evidence {
    pub(crate) acted: bool,
    pub(crate) what: String,
}

impl Evidence {
    pub(crate) fn of(acted: bool, what: String) -> Evidence {
        Evidence { acted, what }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.acted { "" } else { "NOT PROVEN: " }, self.what)
    }
}

/// A fault at work, and what it takes to end it.
enum Active {
    Killed(Vec<u32>),
    Paused {
        node: u32,
        process: i32,
    },
    Cut(Vec<u32>),
    Full {
        nodes: Vec<u32>,
        all: bool,
    },
    /// From within: see [`crate::chaos`].
    Chaos(u32),
    /// A change that is done.
    Over,
}

impl Fleet {
    /// One fault, or two at once, from the beginning to the end.
    pub(crate) fn strike(&mut self, fault: Fault) -> (Vec<Fault>, Vec<Evidence>) {
        let mut faults = vec![fault];
        let (active, mut evidence) = self.begin(fault);
        let companions = fault.companions();
        let lasts = !matches!(active, Active::Over);
        let mut strikes_again = lasts && !companions.is_empty() && self.rng.random_bool(0.5);
        if strikes_again {
            self.wait(500..1_500);
            // Six in a ring hear two others each: no quorum, no leader, and nobody to strike at.
            strikes_again = within(Duration::from_secs(5), || self.leader()).is_some();
        }
        if strikes_again {
            let companion = companions[self.rng.random_range(0..companions.len())];
            faults.push(companion);
            let (second, seen) = self.begin(companion);
            evidence.extend(seen);
            self.hold(companion, &second);
            evidence.extend(self.end(second));
        } else {
            self.hold(fault, &active);
        }
        evidence.extend(self.end(active));
        (faults, evidence)
    }

    fn hold(&mut self, fault: Fault, active: &Active) {
        match (fault, active) {
            (_, Active::Over) => {}
            // Longer than the lease, and than any silence that is borne.
            (Fault::PauseLeader | Fault::PauseFollower, _) => self.wait(1_000..5_000),
            (_, Active::Killed(_)) => self.wait(100..2_500),
            _ => self.wait(1_500..4_000),
        }
    }

    fn wait(&mut self, milliseconds: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.rng.random_range(milliseconds)));
    }

    fn begin(&mut self, fault: Fault) -> (Active, Vec<Evidence>) {
        match fault {
            Fault::Transfer => return (Active::Over, self.transfer()),
            Fault::Grow => return (Active::Over, self.grow()),
            Fault::Shrink => return (Active::Over, self.shrink(false)),
            Fault::RemoveLeader => return (Active::Over, self.shrink(true)),
            Fault::Replace => return (Active::Over, self.replace()),
            _ => {}
        }
        let (leader, others) = self.leader_and_voters();
        let all: Vec<u32> = std::iter::once(leader).chain(others.iter().copied()).collect();
        match fault {
            Fault::KillLeader => self.kill(vec![leader]),
            Fault::KillFollower => self.kill(vec![others[0]]),
            Fault::KillAll => self.kill(self.running.iter().copied().collect()),
            Fault::PauseLeader => self.pause(leader),
            Fault::PauseFollower => self.pause(others[0]),
            Fault::LeaderSilent => {
                self.silence(leader);
                let seen = self.is_silent(leader);
                (Active::Cut(vec![leader]), vec![seen])
            }
            Fault::Loss => {
                let percent = self.rng.random_range(5..25);
                self.lose(&all, percent);
                (Active::Cut(all), Vec::new())
            }
            Fault::FullLeader => self.fill(vec![leader], false),
            Fault::FullAll => self.fill(self.running.iter().copied().collect(), true),
            Fault::SlowLeader => (Active::Chaos(leader), self.slow_leader(leader)),
            Fault::SlowFollower => (Active::Chaos(others[0]), self.slow_follower(others[0])),
            Fault::Clock => {
                let node = all[self.rng.random_range(0..all.len())];
                (Active::Chaos(node), vec![self.shift_clock(node)])
            }
            _ => (Active::Cut(self.cut(&topology(fault, &all))), Vec::new()),
        }
    }

    fn end(&mut self, active: Active) -> Vec<Evidence> {
        match active {
            Active::Over => Vec::new(),
            Active::Cut(nodes) => self.mend(&nodes),
            Active::Killed(nodes) => {
                nodes.iter().for_each(|node| self.start(*node));
                let up = within(SOON, || nodes.iter().all(|n| self.connects(*n)).then_some(()));
                vec![Evidence::of(up.is_some(), format!("{nodes:?} listen again"))]
            }
            Active::Paused { node, process } => {
                let state = state_of(process);
                signal(process, Signal::CONT);
                self.paused.remove(&node);
                let goes_on = within(SOON, || (state_of(process) != Some('T')).then_some(()));
                let acted = state == Some('T') && goes_on.is_some();
                vec![Evidence::of(acted, format!("n{node} stood still until it was let go on"))]
            }
            Active::Full { nodes, all } => self.make_room(&nodes, all),
            Active::Chaos(node) => vec![self.heal(node)],
        }
    }

    fn kill(&mut self, nodes: Vec<u32>) -> (Active, Vec<Evidence>) {
        let processes: Vec<_> = nodes.iter().map(|node| self.process(*node)).collect();
        for process in processes.iter().flatten() {
            signal(*process, Signal::KILL);
        }
        let gone = |node: &u32| self.process(*node).is_none() && self.is_refused(*node);
        let ended = within(SOON, || nodes.iter().all(gone).then_some(()));
        let acted = processes.iter().all(Option::is_some) && ended.is_some();
        let evidence = format!("{nodes:?}: processes {processes:?} are gone, connections refused");
        self.running.retain(|node| !nodes.contains(node));
        (Active::Killed(nodes), vec![Evidence::of(acted, evidence)])
    }

    fn pause(&mut self, node: u32) -> (Active, Vec<Evidence>) {
        let Some(process) = self.process(node) else {
            return (Active::Over, vec![Evidence::of(false, format!("n{node} does not run"))]);
        };
        signal(process, Signal::STOP);
        self.paused.insert(node);
        let stands = within(SOON, || (state_of(process) == Some('T')).then_some(()));
        let evidence = Evidence::of(stands.is_some(), format!("n{node} is in state T"));
        (Active::Paused { node, process }, vec![evidence])
    }

    /// Files take all the space there is, and take it again when the node gives some back.
    fn fill(&mut self, nodes: Vec<u32>, all: bool) -> (Active, Vec<Evidence>) {
        let mut evidence = Vec::new();
        for node in &nodes {
            let said = self.pour(*node);
            let acted = said.contains("No space left");
            evidence.push(Evidence::of(acted, format!("no space left on the disk of n{node}")));
        }
        (Active::Full { nodes, all }, evidence)
    }

    fn pour(&self, node: u32) -> String {
        let pour = format!("dd if=/dev/zero of=$(mktemp {DISK}/filler.XXXXXX) bs=16k 2>&1 || true");
        self.shell(&self.all[&node].host, &pour)
    }

    /// The nodes have noticed; then there is space again, and they notice that too.
    fn make_room(&mut self, nodes: &[u32], all: bool) -> Vec<Evidence> {
        let mut evidence = Vec::new();
        let full = |status: &monitoring::status::NodeStatus| {
            status.can_accept_reason.as_deref() == Some("the disk is full")
        };
        let mut client = Client::new(self.target(), 0);
        let noticed = within(SOON, || {
            nodes.iter().for_each(|node| drop(self.pour(*node)));
            if all {
                // While one has space left it leads, and takes what the others do not.
                let set = client.call(&[b"SET", b"grows", b"x"]);
                return (self.runtime.block_on(set) == Fate::Refused("OOM".into())).then_some(());
            }
            let statuses = self.statuses();
            nodes.iter().all(|node| statuses.get(node).is_some_and(full)).then_some(())
        });
        let what = match all {
            true => "a SET is answered by -OOM".to_owned(),
            false => format!("{nodes:?} say that they are full"),
        };
        evidence.push(Evidence::of(noticed.is_some(), what));
        for node in nodes {
            self.shell(&self.all[node].host, &format!("rm -f {DISK}/filler.*"));
        }
        let recovered = within(SOON, || {
            let statuses = self.statuses();
            let fine = |node| statuses.get(node).is_some_and(|status| status.can_accept);
            nodes.iter().all(fine).then_some(())
        });
        let what = format!("{nodes:?} go on when there is space again");
        evidence.push(Evidence::of(recovered.is_some(), what));
        evidence
    }

    fn connects(&self, node: u32) -> bool {
        let within = Duration::from_millis(500);
        TcpStream::connect_timeout(&self.all[&node].client(), within).is_ok()
    }

    fn is_refused(&self, node: u32) -> bool {
        let within = Duration::from_millis(500);
        let tried = TcpStream::connect_timeout(&self.all[&node].client(), within);
        tried.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    /// It runs, and nothing comes back from it: neither a connection nor a refusal.
    fn is_silent(&self, node: u32) -> Evidence {
        let within = Duration::from_millis(300);
        let tried = TcpStream::connect_timeout(&self.all[&node].client(), within);
        let silent = tried.is_err_and(|error| error.kind() == ErrorKind::TimedOut);
        let acted = silent && self.process(node).is_some();
        Evidence::of(acted, format!("n{node} runs, and a connection to it times out"))
    }
}

/// Who does not hear whom. The leader comes first among `all`, the rest in random order.
fn topology(fault: Fault, all: &[u32]) -> Links {
    let count = all.len();
    let minority = (count - 1) / 2;
    match fault {
        Fault::LeaderInMinority => links(all, |a, b| a < minority && b >= minority),
        Fault::LeaderInMajority => links(all, |a, b| a < count - minority && b >= count - minority),
        // Two halves, and with an odd number somebody between them who hears nobody.
        Fault::Halves => {
            let part = |place: usize| match place {
                place if place < count / 2 => 0,
                place if place < count / 2 * 2 => 1,
                _ => 2,
            };
            links(all, |a, b| part(a) != part(b))
        }
        Fault::Ring => links(all, |a, b| {
            let apart = a.abs_diff(b);
            apart != 1 && apart != count - 1
        }),
        // The last one hears both halves, which do not hear each other.
        Fault::Bridge => {
            let left = (count - 1) / 2;
            links(all, |a, b| a < left && b >= left && b < count - 1)
        }
        Fault::LeaderDeaf => all[1..].iter().map(|from| (*from, all[0])).collect(),
        Fault::LeaderMute => all[1..].iter().map(|to| (all[0], *to)).collect(),
        other => unreachable!("{other:?} is no partition"),
    }
}

fn signal(process: i32, signal: Signal) {
    let process = Pid::from_raw(process).expect("a process has a number");
    kill_process(process, signal).expect("a process of our own lab takes signals");
}

/// `R`, `S`, `T`, …
fn state_of(process: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
