//! Streams over a link that carries so many bytes a second, in virtual time: three nodes' own code for
//! snapshots, on disks in memory.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use journal::{Disk, FaultyDisk};
use paxos::{Envelope, Message, NodeId, Now, Slot};

use super::tests::{jobs, learn, new_node_of, snapshots_found};
use super::{Done, Files, Job, Jobs, PartSender, Snapshots};
use crate::node::{Effects, Node};

const TICK_US: u64 = 50_000;
const SECOND: u64 = 1_000_000;
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

/// What left, to be carried.
#[derive(Default)]
struct Outbox(RefCell<Vec<(NodeId, Bytes)>>);

impl PartSender for Outbox {
    fn send_part(&self, to: NodeId, part: &Bytes) {
        self.0.borrow_mut().push((to, part.clone()));
    }

    fn queued_bytes(&self, _to: NodeId) -> usize {
        0
    }
}

struct Machine {
    disk: FaultyDisk,
    node: Node,
    snapshots: Snapshots,
    jobs: Jobs,
    files: Files,
    outbox: Outbox,
    installed: u32,
    journal_bytes: u64,
}

impl Machine {
    fn new(id: NodeId, disk: &FaultyDisk) -> Machine {
        let names = disk.list().expect("list");
        let slots = names.iter().filter_map(|name| name.strip_prefix("snapshot-")?.parse().ok());
        let (snapshots, jobs) = snapshots_found(disk, slots.collect(), 1 << 30);
        Machine {
            disk: disk.clone(),
            node: new_node_of(id),
            snapshots,
            jobs,
            files: Files::new(Arc::new(disk.clone())),
            outbox: Outbox::default(),
            installed: 0,
            journal_bytes: 0,
        }
    }
}

struct World {
    now_us: u64,
    machines: BTreeMap<NodeId, Machine>,
    /// Bytes a second, each way between any two.
    rate: u64,
    /// When each part arrives, in order of its link.
    carried: VecDeque<(u64, NodeId, NodeId, Bytes)>,
    busy_until_us: BTreeMap<(NodeId, NodeId), u64>,
    cut: bool,
    sent_bytes: u64,
}

impl World {
    /// A has a snapshot of so many bytes below slot 50; the others have nothing.
    fn new(rate: u64, value_bytes: usize) -> World {
        let disks = [1, 2, 3].map(FaultyDisk::new);
        write(&disks[0], 50, value_bytes);
        let machines = [A, B, C].into_iter().zip(&disks);
        let machines = machines.map(|(id, disk)| (id, Machine::new(id, disk))).collect();
        World {
            now_us: SECOND,
            machines,
            rate,
            carried: VecDeque::new(),
            busy_until_us: BTreeMap::new(),
            cut: false,
            sent_bytes: 0,
        }
    }

    fn now(&self) -> Now {
        Now { mono_us: self.now_us, wall_ms: 1_000_000 }
    }

    fn at(&mut self, id: NodeId) -> &mut Machine {
        self.machines.get_mut(&id).expect("one of three")
    }

    fn below(&self, id: NodeId) -> u64 {
        self.machines[&id].node.first_unapplied().0
    }

    /// As the protocol does, again and again, while `to` is behind.
    fn want(&mut self, from: NodeId, to: NodeId) {
        let (now, lacks) = (self.now(), self.machines[&to].node.first_unapplied());
        let machine = self.at(from);
        let message = Message::Learned { first_unchosen: lacks };
        machine.node.received(now, Envelope { from: to, to: from, message });
        if lacks < Slot(50) {
            machine.snapshots.wanted(now, to, &machine.node, &machine.outbox);
        }
    }

    fn step(&mut self) {
        self.now_us += TICK_US;
        let now = self.now();
        while let Some((_, from, to, part)) =
            self.carried.pop_front_if(|(arrival_us, ..)| *arrival_us <= now.mono_us)
        {
            if !self.cut {
                let Machine { node, snapshots, outbox, .. } = self.at(to);
                snapshots.received(now, from, part, node, outbox);
            }
        }
        for machine in self.machines.values_mut() {
            while let Ok(job) = machine.jobs.received.try_recv() {
                if let Some(done) = machine.files.work(job) {
                    machine.installed += u32::from(matches!(done, Done::Installed { .. }));
                    machine.jobs.results.send(done).expect("the core is there");
                }
            }
            let Machine { node, snapshots, outbox, journal_bytes, .. } = machine;
            snapshots.tick(now, node, outbox, *journal_bytes);
            node.turn(now, &mut Effects::default());
        }
        for from in [A, B, C] {
            let sent = self.at(from).outbox.0.take();
            for (to, part) in sent {
                self.sent_bytes += part.len() as u64;
                let rate = self.rate;
                let busy_until_us = self.busy_until_us.entry((from, to)).or_default();
                let begins_us = (*busy_until_us).max(now.mono_us);
                *busy_until_us = begins_us + part.len() as u64 * SECOND / rate;
                self.carried.push_back((*busy_until_us, from, to, part));
            }
        }
        self.carried.make_contiguous().sort_by_key(|(arrival_us, ..)| *arrival_us);
    }

    /// Seconds until `holds`, at most so many.
    fn until(&mut self, seconds: u64, from: NodeId, holds: impl Fn(&World) -> bool) -> u64 {
        let start_us = self.now_us;
        while !holds(self) {
            assert!(self.now_us < start_us + seconds * SECOND, "it is not so in {seconds} s");
            self.want(from, B);
            self.step();
        }
        (self.now_us - start_us) / SECOND
    }

    fn cut(&mut self, seconds: u64, from: NodeId) {
        self.cut = true;
        self.carried.clear();
        self.busy_until_us.clear();
        let now = self.now();
        for (id, peer) in [(from, B), (B, from)] {
            self.at(id).snapshots.peer_lost(now, peer);
        }
        let end_us = self.now_us + seconds * SECOND;
        while self.now_us < end_us {
            self.step();
        }
        self.cut = false;
    }

    /// B's process is a new one on the same disk.
    fn restart_b(&mut self) {
        let disk = self.machines[&B].disk.clone();
        disk.crash_keeping_all();
        super::load_newest(&disk).expect("it starts");
        self.machines.insert(B, Machine::new(B, &disk));
    }
}

fn write(disk: &FaultyDisk, below: u64, value_bytes: usize) {
    let mut files = Files::new(Arc::new(disk.clone()));
    let done: Vec<Done> =
        jobs(Slot(below), value_bytes).into_iter().filter_map(|job| files.work(job)).collect();
    assert!(matches!(done[..], [Done::Written { .. }]));
}

fn arrived(world: &World) -> u64 {
    let names = world.machines[&B].disk.list().expect("list");
    let of = |name: &String| world.machines[&B].disk.contents(name).len() as u64;
    names.iter().filter(|name| name.starts_with("incoming-")).map(of).sum()
}

/// PITFALLS 68: it takes as long as it takes.
#[test]
fn a_large_state_arrives_over_a_slow_link() {
    let mut world = World::new(20_000, 4_000_000);
    let seconds = world.until(400, A, |world| world.below(B) == 50);
    assert!(seconds > 150, "{seconds} s are no long journey");
    assert!(world.sent_bytes < 4_400_000, "{} bytes were sent for it", world.sent_bytes);
}

/// A link that is cut again and again, and a receiver that is started anew, cost only what was under
/// way.
#[test]
fn a_stream_goes_on_where_it_was() {
    let mut world = World::new(100_000, 4_000_000);
    world.until(60, A, |world| arrived(world) > 1_000_000);
    world.cut(4, A);
    world.until(60, A, |world| arrived(world) > 2_000_000);
    world.restart_b();
    world.until(60, A, |world| arrived(world) > 2_500_000);
    // Longer than a stream lives without progress.
    world.cut(15, A);
    world.until(60, A, |world| world.below(B) == 50);
    let resumed = world.machines[&B].snapshots.stream_counts().resumed;
    assert_eq!(resumed, 2, "after the restart: it, and the second cut");
    // The last frame was not whole when the process ended.
    assert!(world.sent_bytes < 5_500_000, "{} bytes were sent for it", world.sent_bytes);
}

/// The sender dies half-way, and another peer holds the very same file.
#[test]
fn a_stream_moves_to_a_peer_with_the_same_file() {
    let mut world = World::new(100_000, 4_000_000);
    let name = "snapshot-00000000000000000050";
    let copy = world.machines[&A].disk.contents(name);
    let disk = FaultyDisk::new(4);
    disk.create(name).expect("create").write_at(0, &copy).expect("write");
    world.machines.insert(C, Machine::new(C, &disk));
    world.until(60, A, |world| arrived(world) > 2_000_000);
    world.cut(1, A);
    world.machines.insert(A, Machine::new(A, &FaultyDisk::new(5)));
    world.until(60, C, |world| world.below(B) == 50);
    assert_eq!(world.machines[&B].snapshots.stream_counts().moved, 1);
    assert!(world.sent_bytes < 4_400_000, "{} bytes were sent for it", world.sent_bytes);
}

/// The newest file has rotted since it was written: the one before is sent, and none of the rotten.
#[test]
fn a_rotten_file_is_not_sent() {
    let mut world = World::new(1_000_000, 1_000_000);
    let disk = world.machines[&A].disk.clone();
    write(&disk, 60, 1_000_000);
    disk.flip("snapshot-00000000000000000060", 500_000, 1);
    world.machines.insert(A, Machine::new(A, &disk));
    let machine = world.at(A);
    learn(&mut machine.node, 1..70, 10);
    machine.node.turn(Now { mono_us: SECOND, wall_ms: 1 }, &mut Effects::default());
    world.until(60, A, |world| world.below(B) == 50);
    assert!(world.sent_bytes < 1_200_000, "{} bytes were sent for it", world.sent_bytes);
    // It took another in the place of the rotten one, which is put aside.
    let is_aside = |name: &String| name.starts_with("rotten");
    world.until(200, A, |_| disk.list().expect("list").iter().any(is_aside));
    let mut names = disk.list().expect("list");
    names.sort();
    let numbers = [("rotten", 60), ("snapshot", 50), ("snapshot", 70)];
    assert_eq!(names, numbers.map(|(kind, below)| format!("{kind}-{below:020}")));
}

/// It rots while it is sent: the receiver finds out, and tells; the sender looks, and sends the other.
#[test]
fn a_file_that_rots_on_the_way_is_sent_once() {
    let mut world = World::new(200_000, 1_000_000);
    let disk = world.machines[&A].disk.clone();
    write(&disk, 60, 1_000_000);
    world.machines.insert(A, Machine::new(A, &disk));
    world.until(60, A, |world| arrived(world) > 300_000);
    disk.flip("snapshot-00000000000000000060", 900_000, 1);
    world.until(60, A, |world| world.below(B) == 50);
    assert!(world.sent_bytes < 2_300_000, "{} bytes were sent for it", world.sent_bytes);
}

/// What nobody would ask for again is not lost to a thread that is behind.
#[test]
fn no_order_is_dropped_that_nobody_repeats() {
    let (mut worker, jobs) = super::worker::Worker::new();
    while worker.try_order(Job::Chunk(Vec::new())).is_ok() {}
    worker.order(Job::Abandon);
    worker.order(Job::Bury(Box::default()));
    assert!(worker.try_order(Job::Chunk(Vec::new())).is_err(), "it would overtake them");
    let mut taken = Vec::new();
    while let Ok(job) = jobs.received.try_recv() {
        taken.push(job);
        let _ = worker.next_done();
    }
    assert!(matches!(taken[taken.len() - 2..], [Job::Abandon, Job::Bury(_)]));
}
