//! Mutants of the shell: what the code around the core could do wrong.

/// Mistakes that the shell around the core could make: mutants that need no line of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foul {
    /// A restart does not read the promises in the journal.
    ForgetPromise,
    /// A restart does not read the accepted entries in the journal.
    ForgetAccepted,
    /// The journal reports a position as durable before it has synced.
    SpeakBeforeSync,
    /// A restart forgets the rounds that this node has used itself.
    ReuseRounds,
    /// Entries are trimmed before a snapshot covers them.
    TrimWithoutSnapshot,
    /// Segments are recycled without the checkpoint that opens the next one.
    NoCheckpoint,
    /// A received snapshot is announced to the core before it is on disk.
    InstallBeforeSync,
    /// A process keeps its predecessor's incarnation, so its batches take the same names.
    ReuseIncarnation,
    /// A read is served under a lease that was checked before the read began (a cached time).
    LeaseCheckedBeforeRead,
    /// The lease that is checked behind the read need not be the one under which it began.
    LeaseOfAnyBallot,
    /// A heartbeat goes by a clock that is read after it was sent (here 30 ms later).
    HeartbeatStampedLate,
    /// A grant goes by a clock that was read before its heartbeat arrived (here 30 ms earlier).
    GrantStampedEarly,
}

impl Foul {
    pub const ALL: [Foul; 12] = [
        Foul::ForgetPromise,
        Foul::ForgetAccepted,
        Foul::SpeakBeforeSync,
        Foul::ReuseRounds,
        Foul::TrimWithoutSnapshot,
        Foul::NoCheckpoint,
        Foul::InstallBeforeSync,
        Foul::ReuseIncarnation,
        Foul::LeaseCheckedBeforeRead,
        Foul::LeaseOfAnyBallot,
        Foul::HeartbeatStampedLate,
        Foul::GrantStampedEarly,
    ];
}
