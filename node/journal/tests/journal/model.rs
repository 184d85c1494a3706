//! Random lives of a journal against a model: thousands of seeds of appending, syncing, trimming,
//! filling up, failing, dying and opening again. After every opening: everything that a sync
//! covered is there; of the rest, a prefix; order kept; nothing that was cut comes back.

use journal::faulty_disk::FailedSync;
use journal::{Error, FaultyDisk, Journal, Options};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::{self, SMALL, append_by, open_with, shared};

/// `SEEDS=20000` tries more.
const SEEDS: u64 = 1000;
const STEPS: usize = 120;

struct Life {
    disk: FaultyDisk,
    options: Options,
    journal: Option<Journal>,
    /// The id that the next group gets.
    next_id: u64,
    /// Groups below are durable.
    synced: u64,
    /// No group from here on may be missing at the front.
    needed_from: u64,
    /// A group that was neither taken nor refused: the disk failed meanwhile.
    maybe: bool,
    coverage: Coverage,
}

/// What the seeds together must have seen, or the test tests less than it says.
#[derive(Debug, Default)]
struct Coverage {
    openings: u64,
    cuts: u64,
    lost_groups: u64,
    survived_unsynced: u64,
    rolls: u64,
    trimmed: u64,
    full: u64,
    failed: u64,
    large_groups: u64,
}

impl Life {
    fn begin(seed: u64, random: &mut SmallRng) -> Life {
        let block_bytes = if random.random() { 512 } else { 4096 };
        let disk = FaultyDisk::with_block_bytes(seed, block_bytes);
        let reserve_bytes = SMALL.segment_bytes * random.random_range(0..3);
        let options = Options { reserve_bytes, ..SMALL };
        let journal = Journal::create(shared(&disk), options, &support::checkpoint(1)).unwrap();
        Life {
            disk,
            options,
            journal: Some(journal),
            next_id: 1,
            synced: 1,
            needed_from: 1,
            maybe: false,
            coverage: Coverage::default(),
        }
    }

    fn step(&mut self, random: &mut SmallRng) {
        let Some(journal) = &self.journal else { return self.reopen(random) };
        // No file is forgotten, and none is counted that is not there.
        assert_eq!(journal.stats().bytes, self.disk.used_bytes());
        match random.random_range(0..100) {
            0..45 => self.append(random),
            45..65 => {
                let result = self.journal().sync();
                self.settle(result, |life| life.synced = life.next_id);
            }
            65..70 => {
                let result = self.journal().seal();
                self.settle(result, |life| life.synced = life.next_id);
            }
            70..74 => {
                let below = random.random_range(self.needed_from..=self.next_id);
                // Asking is enough to lose the right to it.
                self.needed_from = below;
                let result = self.journal().trim(below);
                let trimmed = *result.as_ref().unwrap_or(&0);
                self.coverage.trimmed += trimmed;
                self.settle(result, |_| {});
            }
            74..78 => {
                let result = self.journal().prepare(random.random_range(1..20_000));
                self.settle(result, |_| {});
            }
            78..81 => self.disk.stop_after(random.random_range(0..8)),
            81..83 => {
                let manner = match random.random() {
                    true => FailedSync::KeepsDirty,
                    false => FailedSync::DropsDirty,
                };
                self.disk.fail_sync_after(random.random_range(0..4), manner);
            }
            83..86 => {
                let room = random.random_range(0..40_000);
                self.disk.set_capacity(Some(self.disk.used_bytes() + room));
            }
            86..88 => self.disk.set_write_allowance(Some(random.random_range(0..9_000))),
            88..90 => self.disk.claim_free(Some(1 << 40)),
            90..93 => self.give_space(),
            _ => self.die(random),
        }
    }

    fn append(&mut self, random: &mut SmallRng) {
        // Half of the groups have one size, so that what was cut would fit behind what is new.
        let alike = random.random();
        let records = if alike { 1 } else { random.random_range(1..4) };
        let bytes = match random.random_range(0..40) {
            _ if alike => 200,
            0 => 14_000,
            1..4 => random.random_range(2_000..5_000),
            _ => random.random_range(0..300),
        };
        let how =
            if random.random_range(0..4) == 0 { Journal::append_reserved } else { Journal::append };
        let segments = self.journal().stats().segments;
        let id = self.next_id;
        let result = append_by(how, self.journal(), id, records, bytes);
        if let Ok(()) = result {
            self.next_id += 1;
            self.coverage.large_groups += u64::from(records as usize * bytes > 16_000);
            if self.journal().stats().segments > segments {
                self.coverage.rolls += 1;
                // The segment before was synced, all of it.
                self.synced = self.synced.max(id);
            }
        } else {
            self.maybe = !matches!(result, Err(Error::Full { .. } | Error::TooLarge { .. }));
        }
        self.settle(result, |_| {});
    }

    /// Looks at how a call ended: the journal goes on, or it is dead and says so for ever.
    fn settle<T>(&mut self, result: Result<T, Error>, done: impl FnOnce(&mut Life)) {
        match result {
            Ok(_) => done(self),
            Err(Error::Full { .. }) => self.coverage.full += 1,
            Err(error) => {
                assert!(matches!(error, Error::Io { .. }), "{error}");
                let poisoned = self.journal().sync();
                assert!(matches!(poisoned, Err(Error::Poisoned { .. })), "went on after {error}");
                self.coverage.failed += 1;
                self.journal = None;
            }
        }
    }

    fn die(&mut self, random: &mut SmallRng) {
        self.journal = None;
        match random.random_range(0..4) {
            0 => self.disk.kill(),
            1 => self.disk.crash_keeping_nothing(),
            _ => self.disk.crash(random.random()),
        }
    }

    fn give_space(&mut self) {
        self.disk.set_capacity(None);
        self.disk.set_write_allowance(None);
        self.disk.claim_free(None);
    }

    fn reopen(&mut self, random: &mut SmallRng) {
        self.die(random);
        self.give_space();
        if random.random_range(0..4) == 0 {
            self.disk.stop_after(random.random_range(0..12));
        }
        if random.random_range(0..8) == 0 {
            self.disk.fail_sync_after(random.random_range(0..3), FailedSync::DropsDirty);
        }
        let (journal, replayed, recovery) = match open_with(&self.disk, self.options) {
            Ok(opened) => opened,
            // The disk failed while it was opened: that is all it may say.
            Err(error) => return assert!(matches!(error, Error::Io { .. }), "{error}"),
        };
        let next_id = replayed.next_id();
        assert!(next_id >= self.synced, "synced below {}, found below {next_id}", self.synced);
        let appended = self.next_id + u64::from(self.maybe);
        assert!(next_id <= appended, "appended below {appended}, found below {next_id}");
        let front = replayed.checkpoints[0];
        assert!(front <= self.needed_from, "{front} is the first, {} needed", self.needed_from);

        self.coverage.openings += 1;
        self.coverage.cuts += u64::from(recovery.cut.is_some());
        self.coverage.lost_groups += self.next_id.saturating_sub(next_id);
        self.coverage.survived_unsynced += next_id - self.synced;
        // What was shown is durable by now, and what was not shown is gone.
        (self.next_id, self.synced, self.maybe) = (next_id, next_id, false);
        self.needed_from = self.needed_from.min(next_id);
        self.journal = Some(journal);
    }

    fn journal(&mut self) -> &mut Journal {
        self.journal.as_mut().expect("looked at before")
    }
}

fn live(seed: u64) -> Coverage {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut life = Life::begin(seed, &mut random);
    for _ in 0..STEPS {
        life.step(&mut random);
    }
    // Whatever happened: with a disk in order it opens.
    life.journal = None;
    life.disk.crash_keeping_nothing();
    life.give_space();
    let (_, replayed, _) = open_with(&life.disk, life.options).unwrap();
    assert!(replayed.next_id() >= life.synced, "synced below {}", life.synced);
    life.coverage
}

// PITFALLS 1, 2, 3, 4, 5, 7, 11, 56, 59 in one.
#[test]
fn what_was_synced_survives_whatever_happens() {
    let seeds = number_from("SEEDS").unwrap_or(SEEDS);
    let mut all = Coverage::default();
    for seed in 0..seeds {
        let seen = std::panic::catch_unwind(|| live(seed));
        let seen = seen.unwrap_or_else(|_| panic!("seed {seed}: run one_seed with it"));
        all.openings += seen.openings;
        all.cuts += seen.cuts;
        all.lost_groups += seen.lost_groups;
        all.survived_unsynced += seen.survived_unsynced;
        all.rolls += seen.rolls;
        all.trimmed += seen.trimmed;
        all.full += seen.full;
        all.failed += seen.failed;
        all.large_groups += seen.large_groups;
    }
    let Coverage { openings, cuts, lost_groups, survived_unsynced, rolls, .. } = all;
    let rare = [all.trimmed, all.full, all.failed, all.large_groups];
    let seen = [openings, cuts, lost_groups, survived_unsynced, rolls];
    assert!(seen.iter().chain(&rare).all(|count| *count > seeds / 20), "seen too little: {all:?}");
}

/// For the seed of a failure: `SEED=7 cargo test -p journal one_seed`.
#[test]
fn one_seed() {
    live(number_from("SEED").unwrap_or(0));
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text}: not a number")))
}
