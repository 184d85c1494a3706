//! Rare things, counted: a run that never met one of them proves nothing about it, so the standard
//! run fails when one stayed at zero.

use std::collections::BTreeMap;

use node::wire::{Refusal, RefusalCode};
use paxos::Note;

macro_rules! rare {
    ($($name:ident: $text:literal,)*) => {
        /// One rare thing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rare { $($name,)* }

        impl Rare {
            pub const ALL: &[Rare] = &[$(Rare::$name,)*];

            pub fn text(self) -> &'static str {
                match self { $(Rare::$name => $text,)* }
            }
        }
    };
}

rare! {
    Elected: "a leader was elected",
    TwoLeaders: "two leaders at once",
    Adopted: "entries of a former leader were adopted",
    GapFilled: "a gap was filled with a no-op",
    AnsweredBehind: "somebody was told that it is behind",
    Killed: "a process was killed",
    PowerCut: "the power went",
    CutInWrite: "the power went in the middle of a write",
    TailCut: "an unfinished end of a journal was cut",
    SnapshotWritten: "a snapshot was written",
    SnapshotFailed: "a snapshot could not be written or received",
    SnapshotInstalled: "a snapshot was installed from a peer",
    WritersSlowed: "writers were slowed for a peer that is brought up to date",
    InstallInterrupted: "a process ended in the middle of an install",
    StartedFromSnapshot: "a restart began from a snapshot",
    OlderSnapshotUsed: "a restart fell back to the older snapshot",
    JournalTrimmed: "a journal was trimmed",
    RotRefused: "a node refused to start on a rotten journal",
    RotHarmless: "rot in what nobody needs any more did no harm",
    DiskLost: "a disk was lost",
    FormattedAgain: "a node was formatted again",
    ForeignDisk: "another node's disk was put in its place",
    IdentityRefused: "a node did not start on a disk that is not its own",
    OlderCopy: "an older copy of a disk was put back",
    OlderCopyRefused: "its peers refused it",
    StrangerRefused: "a node was refused that is no member yet, or no longer",
    Introduced: "two processes introduced themselves to each other",
    DiskFull: "a disk was full",
    FullRefused: "a write was refused for a full disk",
    SyncFailed: "a node stopped at a failed sync",
    GreyNode: "a slow disk made a node grey",
    SlowDisk: "a sync of a slow disk",
    SlowSync: "one sync took long",
    SlowLeaderLeft: "a leader on a slow disk let another lead",
    FullLeaderLeft: "a leader on a full disk let another lead",
    Stopped: "a process stopped as it was told",
    Paused: "a process was paused",
    WallClockJumped: "a wall clock jumped",
    LinksCut: "links were cut",
    OneWay: "links were cut one way",
    QuorumLoss: "all links were cut but those of one node",
    ConstrainedElection: "the same, and that node was behind",
    Chained: "only neighbours in a row saw each other",
    Moved: "a client was redirected",
    NoLeader: "a client was told that there is no leader",
    TryAgain: "a client was told to try again",
    BatchLost: "a batch lost its slot",
    BatchUnknown: "a batch's fate could not be learned",
    HandedOver: "a leader handed over",
    HandoverGivenUp: "a handover was given up",
    HandoverRefused: "a handover was refused",
    Leased: "a leader got a lease",
    LeasedRead: "a read was served under a lease",
    LeaseRefused: "a read found a leader that held no lease",
    RoundRead: "a read was served behind a quorum round, or in a batch",
    FollowerRead: "a follower served a read as new as the leader's",
    StaleRead: "a follower served a read from what it had",
    Queued: "a lease kept a higher ballot waiting",
    TransactionDone: "a transaction was carried out",
    TransactionAborted: "a transaction was aborted: a watched key had changed",
    TransactionRefused: "a transaction was refused as a whole",
    OnceDone: "a command of ONCE was answered",
    OnceAgain: "a command of ONCE was sent again",
    MemberAdded: "a node was to join as a learner",
    LearnerPromoted: "a learner was to become a voter",
    MembersSwapped: "members were to be swapped",
    MemberRemoved: "a member was to leave",
    LeaderRemoved: "the leader itself was to leave",
    ChangeRefused: "a change of the configuration was refused",
    ConfigurationKnown: "a node learned a new configuration",
    ConfigurationAdopted: "a configuration was adopted by a candidate of the old one",
    StaleTally: "votes of an older configuration were voided",
    UnknownConfiguration: "a ballot of an unknown configuration was not answered",
    Tombstone: "a removed node wrote its tombstone",
    TrialSlowLeader: "alone: another led while the leader's disk was slow",
    TrialFullLeader: "alone: another led while the leader's disk was full",
    TrialStopLeader: "alone: another led when the leader stopped as it was told",
    TrialQuorumLoss: "alone: the one that all others saw led",
    TrialConstrainedElection: "alone: the same, though its log was behind",
    TrialChained: "alone: one that saw a quorum led, in a row of nodes",
    TrialMuteLeader: "alone: another led when nobody heard the leader",
    TrialDeafLeader: "alone: another led when the leader heard nobody",
    TrialOlderCopy: "alone: nobody let an older copy of a disk in",
    ClosedUnanswered: "a connection closed with requests under way",
    ClientGaveUp: "a client gave up waiting",
    Expired: "a key with a deadline was gone",
    NotYetExpired: "a key with a deadline was there",
}

#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<Rare, u64>,
}

impl Coverage {
    pub fn count(&mut self, rare: Rare) {
        self.add(rare, 1);
    }

    pub fn add(&mut self, rare: Rare, n: u64) {
        if n > 0 {
            *self.counts.entry(rare).or_default() += n;
        }
    }

    pub fn merge(&mut self, other: &Coverage) {
        for (rare, n) in &other.counts {
            self.add(*rare, *n);
        }
    }

    pub fn of(&self, rare: Rare) -> u64 {
        self.counts.get(&rare).copied().unwrap_or(0)
    }

    pub fn never(&self) -> Vec<Rare> {
        Rare::ALL.iter().copied().filter(|rare| self.of(*rare) == 0).collect()
    }

    pub fn table(&self) -> String {
        let line = |rare: &Rare| format!("{:>10}  {}\n", self.of(*rare), rare.text());
        Rare::ALL.iter().map(line).collect()
    }

    pub fn refused(&mut self, refusal: &Refusal) {
        match refusal.code {
            RefusalCode::OlderCopy | RefusalCode::SecondProcess => {
                self.count(Rare::OlderCopyRefused);
            }
            RefusalCode::NotAMember => self.count(Rare::StrangerRefused),
            _ => {}
        }
    }

    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Elected { adopted, noops, .. } => {
                self.count(Rare::Elected);
                self.add(Rare::Adopted, *adopted);
                self.add(Rare::GapFilled, *noops);
            }
            Note::AnsweredBehind { .. } => self.count(Rare::AnsweredBehind),
            Note::ConfigurationKnown { .. } => self.count(Rare::ConfigurationKnown),
            Note::ConfigurationAdopted { .. } => self.count(Rare::ConfigurationAdopted),
            Note::TallyVoided { .. } => self.count(Rare::StaleTally),
            Note::UnknownConfiguration { .. } => self.count(Rare::UnknownConfiguration),
            Note::Released { .. } => self.count(Rare::HandedOver),
            Note::HandoverGivenUp { .. } => self.count(Rare::HandoverGivenUp),
            Note::Leased { .. } => self.count(Rare::Leased),
            Note::Queued { .. } => self.count(Rare::Queued),
            _ => {}
        }
    }
}
