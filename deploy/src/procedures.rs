//! What is done, in which order. Each procedure is one list; each phase is one file in `phases/`
//! and may be run again after a run that broke off.

/// A phase of a procedure, with the title that a person would give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Upload,
    Configure,
    Switch,
    Format,
    Enroll,
    Start,
    Restart,
    Settle,
    Record,
    Stop,
    Wipe,
    StopFormer,
    Introduce,
    Join,
    CatchUp,
    Promote,
    TakeOver,
    Leave,
    Retire,
    Rule,
}

/// From whatever is there to what the inventory says.
///
/// New nodes first get everything they need; nothing is started before all of them are formatted
/// and know each other. Running nodes are restarted one at a time, the leader last, and only once
/// the nodes that were down are up.
pub const UP: &[Phase] = &[
    Phase::Upload,
    Phase::Configure,
    Phase::Switch,
    Phase::Format,
    Phase::Enroll,
    Phase::Introduce,
    Phase::Start,
    Phase::Settle,
    Phase::Restart,
    Phase::Record,
];

/// From a host to a member of a cluster that runs, or to one in another one's place: a phase that the
/// plan has no step for does nothing. In the log it is a learner until it has caught up, and counts
/// nowhere; so whatever breaks off in between costs the others nothing.
pub const ADD_MEMBER: &[Phase] = &[
    Phase::Upload,
    Phase::StopFormer,
    Phase::Configure,
    Phase::Switch,
    Phase::Format,
    Phase::Introduce,
    Phase::Start,
    Phase::Join,
    Phase::CatchUp,
    Phase::Promote,
    Phase::TakeOver,
    Phase::Retire,
    Phase::Record,
];

/// From a member to a node that has stopped for good.
pub const REMOVE_MEMBER: &[Phase] = &[Phase::Leave, Phase::Retire, Phase::Record];

/// From the rules of the cluster to others: one change in the log.
pub const CHANGE_RULES: &[Phase] = &[Phase::Rule];

/// From running to stopped; data stays.
pub const DOWN: &[Phase] = &[Phase::Stop];

/// From running to nothing. Data goes only when every node of the cluster has stopped.
pub const DOWN_AND_WIPE: &[Phase] = &[Phase::Stop, Phase::Wipe];

impl Phase {
    pub fn title(self) -> &'static str {
        match self {
            Phase::Upload => "copy releases",
            Phase::Configure => "write configurations",
            Phase::Switch => "switch to the release",
            Phase::Format => "format new nodes",
            Phase::Enroll => "introduce the nodes to each other",
            Phase::Start => "start nodes",
            Phase::Restart => "restart nodes one by one",
            Phase::Settle => "wait for a leader and for all to catch up",
            Phase::Record => "leave the inventory on the hosts",
            Phase::Stop => "stop nodes",
            Phase::Wipe => "remove data",
            Phase::StopFormer => "end what ran here as another node",
            Phase::Introduce => "introduce the new node to the others",
            Phase::Join => "add it as a learner",
            Phase::CatchUp => "wait until it has caught up",
            Phase::Promote => "make it a voter",
            Phase::TakeOver => "let it vote in the other's place",
            Phase::Leave => "take it out of the membership",
            Phase::Rule => "let other rules rule",
            Phase::Retire => "see that the removed node has stopped for good",
        }
    }
}
