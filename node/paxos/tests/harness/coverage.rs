//! Rare things, counted. A simulator that never meets a gap, a duel or a lost batch proves nothing
//! about them (PITFALLS 53), so the standard run fails when one of these stayed at zero.

use std::collections::BTreeMap;

use paxos::{Deposed, Note};

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
    Adopted: "an entry of a former leader was adopted",
    GapFilled: "a gap was filled with a no-op",
    ChosenByHint: "entries became chosen by a hint",
    ChosenByMessage: "a value was learned by Chosen",
    AnsweredBehind: "somebody was told that it is behind",
    Refused: "an older ballot was refused",
    LostBatch: "a batch lost its slot and was reported",
    SettledAfterDeposed: "a deposed leader's client got its reply after all",
    UnknownBatch: "a batch's fate was passed by a snapshot",
    ReadServed: "a read was served",
    ReadRefused: "a read was refused by a deposed leader",
    WindowFull: "a batch found the window full",
    Restarted: "a process was restarted",
    RestartWhilePreparing: "a candidate was restarted in phase 1",
    RestartWhileLeading: "a leader was restarted",
    RecordsLost: "a crash lost unsynced records",
    RecordsSurvived: "unsynced records survived a crash",
    SegmentRecycled: "a journal segment was recycled",
    SnapshotInstalled: "a snapshot was installed",
    InstallInterrupted: "a process ended in the middle of an install",
    SnapshotIgnored: "a late snapshot changed nothing",
    OldSnapshotUsed: "a restart fell back to the older snapshot",
    TornLog: "a log trimmed above its store healed",
    ChunkedPromise: "a promise travelled in several chunks",
    PromiseOmitted: "a promise left out what the candidate holds",
    Paused: "a process was paused",
    GreyNode: "a node that cannot accept said so",
    DeposedNacked: "a ballot ended: refused by a higher promise",
    DeposedOwnPromise: "a ballot ended: own acceptor promised higher",
    DeposedOutvoted: "a ballot ended: outvoted",
    DeposedLostQuorum: "a ballot ended: no quorum",
    DeposedHigherId: "a ballot ended: a higher id is there",
    DeposedGaveUp: "a ballot ended: gave up",
    DeposedHandedOver: "a ballot ended: handed over",
    Leased: "a leader got a lease",
    LeasedRead: "a read was served under a lease",
    LeasedReadInSteps: "the same, some time after the store was read",
    LeaseRefused: "the lease was over when the read was checked",
    Queued: "a lease kept a higher ballot waiting",
    FollowerRead: "a follower served a read",
    HandoverGivenUp: "a handover was given up",
    DeposedConfiguration: "a leader's ballot ended: a newer configuration",
    CandidateVoided: "a candidate's ballot ended: a newer configuration",
    ConfigurationChosen: "a configuration was learned",
    ConfigurationAdopted: "a configuration was adopted by a candidate of the old one",
    UnknownConfiguration: "a ballot of an unknown configuration was not answered",
    StaleTally: "votes of an older configuration were voided",
    ChangeRefused: "a change of the configuration was refused",
    LeaseTermsStated: "a configuration stated other leases than the files",
    StoreVersionRaised: "a configuration raised the store's version",
    LearnerPromoted: "a node that joined empty became a voter",
    LeaderRemoved: "a leader was removed",
    Tombstone: "a removed node was no longer needed",
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

    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Elected { adopted, noops, .. } => {
                self.count(Rare::Elected);
                self.add(Rare::Adopted, *adopted);
                self.add(Rare::GapFilled, *noops);
            }
            Note::ChosenByHint { count } => self.add(Rare::ChosenByHint, *count),
            Note::AnsweredBehind { .. } => self.count(Rare::AnsweredBehind),
            Note::Refused { .. } => self.count(Rare::Refused),
            Note::Deposed { reason: Deposed::NewConfiguration, led, .. } => self.count(match led {
                true => Rare::DeposedConfiguration,
                false => Rare::CandidateVoided,
            }),
            Note::Deposed { reason, .. } => match reason {
                Deposed::Nacked => self.count(Rare::DeposedNacked),
                Deposed::OwnPromise => self.count(Rare::DeposedOwnPromise),
                Deposed::Outvoted => self.count(Rare::DeposedOutvoted),
                Deposed::LostQuorum => self.count(Rare::DeposedLostQuorum),
                Deposed::HigherId => self.count(Rare::DeposedHigherId),
                Deposed::GaveUp => self.count(Rare::DeposedGaveUp),
                Deposed::HandedOver => self.count(Rare::DeposedHandedOver),
                Deposed::NewConfiguration => {}
            },
            Note::Queued { .. } => self.count(Rare::Queued),
            Note::Leased { .. } => self.count(Rare::Leased),
            Note::HandoverGivenUp { .. } => self.count(Rare::HandoverGivenUp),
            Note::ConfigurationKnown { .. } => self.count(Rare::ConfigurationChosen),
            Note::ConfigurationAdopted { .. } => self.count(Rare::ConfigurationAdopted),
            Note::TallyVoided { .. } => self.count(Rare::StaleTally),
            Note::UnknownConfiguration { .. } => self.count(Rare::UnknownConfiguration),
            Note::Removed { .. } => self.count(Rare::Tombstone),
            Note::Preparing { .. }
            | Note::Following { .. }
            | Note::Tallied { .. }
            | Note::Released { .. } => {}
        }
    }
}
