//! The whole table of the election: what a node does, for every role and everything that it may have
//! heard; and whom it follows behind every event, whomever it followed before.

use super::*;
use crate::configuration::{Member, Role};

const OWN: NodeId = NodeId(2);
const LOWER: NodeId = NodeId(1);
const HIGHER: NodeId = NodeId(3);
const NOW_US: u64 = 10_000_000;
const LONG_AGO_US: u64 = 0;

/// What was heard of the leader that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leader {
    Unknown,
    Silent,
    /// There, and says that it cannot choose.
    Helpless,
    Content,
}

/// What was heard of n3, the other that could lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Higher {
    Gone,
    /// There, and reaches no quorum.
    Helpless,
    Able,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Not,
    /// Its own last attempt has failed.
    BacksOff,
    /// Another's is under way.
    ForCandidate,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    strategy: ElectionStrategy,
    standing: Standing,
    /// Not a learner, nor removed.
    is_voter: bool,
    /// The only voter; n1 and n3 are learners.
    is_alone: bool,
    can_accept: bool,
    /// n1 hears this node and is heard.
    hears_lower: bool,
    higher: Higher,
    leader: Leader,
    /// n1, if it is heard, is content with n3's lead.
    lower_is_happy: bool,
    waits: Waits,
    has_just_started: bool,
    /// Everything has spoken for taking over for as long as its rank asks.
    has_waited: bool,
    /// It reached no quorum when it was last asked, long ago.
    was_cut_off: bool,
    is_stalled: bool,
    is_bound: bool,
}

impl Case {
    fn reaches_quorum(&self) -> bool {
        let others = usize::from(self.hears_lower) + usize::from(self.higher != Higher::Gone);
        match self.is_alone {
            true => self.can_accept || self.strategy == ElectionStrategy::HighestId,
            false => usize::from(self.can_accept) + others >= 2,
        }
    }

    fn is_lost(&self) -> bool {
        self.was_cut_off && !self.reaches_quorum()
    }

    fn is_in_the_way(&self) -> bool {
        !self.can_accept && !self.is_alone
    }

    fn by_ballot(&self, standing: Standing) -> bool {
        self.is_voter && self.strategy == ElectionStrategy::Ballot && self.standing == standing
    }

    fn by_id(&self, is_following: bool) -> bool {
        let follows = self.standing == Standing::Following;
        self.is_voter && self.strategy == ElectionStrategy::HighestId && follows == is_following
    }

    /// DESIGN §3: it reaches a quorum, and nobody whom it reaches is content with a leader.
    fn is_free(&self) -> bool {
        self.can_accept
            && !self.is_bound
            && self.reaches_quorum()
            && self.waits == Waits::Not
            && self.leader != Leader::Content
            && !(self.hears_lower && self.lower_is_happy)
    }

    fn ranks_second(&self) -> bool {
        self.higher == Higher::Able && !self.is_alone && !self.has_waited
    }

    fn hears_of_higher(&self) -> bool {
        !self.is_alone && (self.higher == Higher::Able || self.hears_lower && self.lower_is_happy)
    }

    fn may_try(&self) -> bool {
        !self.hears_of_higher() && !self.has_just_started && self.waits == Waits::Not
    }
}

type Row = (&'static str, fn(&Case) -> bool, Decision);

/// Each case is in exactly one row.
const ROWS: [Row; 15] = [
    (
        "who is no voter never leads",
        |case| !case.is_voter && case.standing == Standing::Following,
        Decision::Stay,
    ),
    (
        "nor any more",
        |case| !case.is_voter && case.standing != Standing::Following,
        Decision::StepDown(Deposed::NewConfiguration),
    ),
    (
        "a leader that chooses nothing, or has long reached no quorum, goes",
        |case| case.by_ballot(Standing::Leading) && (case.is_stalled || case.is_lost()),
        Decision::StepDown(Deposed::LostQuorum),
    ),
    (
        "one that cannot accept makes way",
        |case| {
            case.by_ballot(Standing::Leading)
                && !(case.is_stalled || case.is_lost())
                && case.is_in_the_way()
        },
        Decision::HandOver,
    ),
    (
        "else it leads on, whatever it hears",
        |case| {
            case.by_ballot(Standing::Leading)
                && !(case.is_stalled || case.is_lost() || case.is_in_the_way())
        },
        Decision::Stay,
    ),
    ("a candidate has its own bound", |case| case.by_ballot(Standing::Preparing), Decision::Stay),
    (
        "a follower stays while anything speaks against it",
        |case| case.by_ballot(Standing::Following) && !case.is_free(),
        Decision::Stay,
    ),
    (
        "it lets one pass that ranks higher",
        |case| case.by_ballot(Standing::Following) && case.is_free() && case.ranks_second(),
        Decision::Stay,
    ),
    (
        "else it takes over",
        |case| case.by_ballot(Standing::Following) && case.is_free() && !case.ranks_second(),
        Decision::TakeOver,
    ),
    (
        "by id: whoever hears of a higher one that could, or has to wait, stays",
        |case| case.by_id(true) && !case.may_try(),
        Decision::Stay,
    ),
    (
        "by id: so does who could choose nothing",
        |case| {
            let could = case.reaches_quorum() && !case.is_in_the_way();
            case.by_id(true) && case.may_try() && !could
        },
        Decision::Stay,
    ),
    (
        "by id: else it takes over",
        |case| {
            let could = case.reaches_quorum() && !case.is_in_the_way();
            case.by_id(true) && case.may_try() && could
        },
        Decision::TakeOver,
    ),
    (
        "by id: a leader or candidate gives place to a higher one that could",
        |case| case.by_id(false) && case.hears_of_higher(),
        Decision::StepDown(Deposed::HigherId),
    ),
    (
        "by id: it goes when it cannot accept, or has long led without a quorum",
        |case| {
            let is_lost = case.standing == Standing::Leading && case.is_lost();
            case.by_id(false) && !case.hears_of_higher() && (is_lost || case.is_in_the_way())
        },
        Decision::StepDown(Deposed::LostQuorum),
    ),
    (
        "by id: else it goes on",
        |case| {
            let is_lost = case.standing == Standing::Leading && case.is_lost();
            case.by_id(false) && !case.hears_of_higher() && !(is_lost || case.is_in_the_way())
        },
        Decision::Stay,
    ),
];

#[test]
fn for_every_role_and_all_that_may_be_heard_it_is_clear_what_to_do() {
    let mut met = [0; ROWS.len()];
    for case in cases() {
        let rows: Vec<usize> = (0..ROWS.len()).filter(|row| ROWS[*row].1(&case)).collect();
        let [row] = rows[..] else { panic!("rows {rows:?} speak of {case:?}") };
        let (rule, _, decision) = ROWS[row];
        met[row] += 1;
        assert_eq!(decide(&case), decision, "{rule}: {case:?}");
    }
    assert!(met.iter().all(|count| *count > 0), "a row that never applies: {met:?}");
    assert_eq!(met.iter().sum::<u32>(), 165_888);
}

fn cases() -> impl Iterator<Item = Case> {
    // The digits of a number, each with its own base.
    const BASES: [usize; 15] = [2, 3, 2, 2, 2, 2, 3, 4, 2, 3, 2, 2, 2, 2, 2];
    let all = BASES.iter().product::<usize>();
    let case = |mut number: usize| {
        let digits = BASES.map(|base| {
            let digit = number % base;
            number /= base;
            digit
        });
        let is = |at: usize| digits[at] == 1;
        Case {
            strategy: [ElectionStrategy::Ballot, ElectionStrategy::HighestId][digits[0]],
            standing: [Standing::Following, Standing::Preparing, Standing::Leading][digits[1]],
            is_voter: is(2),
            is_alone: is(3),
            can_accept: is(4),
            hears_lower: is(5),
            higher: [Higher::Gone, Higher::Helpless, Higher::Able][digits[6]],
            leader: [Leader::Unknown, Leader::Silent, Leader::Helpless, Leader::Content][digits[7]],
            lower_is_happy: is(8),
            waits: [Waits::Not, Waits::BacksOff, Waits::ForCandidate][digits[9]],
            has_just_started: is(10),
            has_waited: is(11),
            was_cut_off: is(12),
            is_stalled: is(13),
            is_bound: is(14),
        }
    };
    // The only voter is this node.
    (0..all).map(case).filter(|case| case.is_voter || !case.is_alone)
}

fn decide(case: &Case) -> Decision {
    let mut settings = Settings::new(OWN, 1, 1);
    settings.election = case.strategy;
    let timing = settings.timing;
    let mut election = Election::new(&settings, LONG_AGO_US);
    election.can_accept = case.can_accept;
    if case.has_just_started {
        election.started_us = NOW_US;
    }
    if case.has_waited {
        election.eligible_since_us = Some(NOW_US - timing.takeover_rank_us);
    }
    if !case.was_cut_off {
        election.quorum_connected_us = NOW_US;
    }
    match case.waits {
        Waits::Not => {}
        Waits::BacksOff => election.deferred_until_us = NOW_US + 1,
        Waits::ForCandidate => election.candidate_until_us = NOW_US + 1,
    }
    let said = |quorum_connected: bool, happy_with: Option<NodeId>| {
        let first_unchosen = Slot::FIRST;
        let can_accept = true;
        let heartbeat = Heartbeat {
            can_accept,
            quorum_connected,
            happy_with,
            first_unchosen,
            ..Heartbeat::default()
        };
        let (received_us, echoed_us) = (Some(NOW_US), Some(NOW_US));
        Peer { heartbeat, received_us, echoed_us, ..Peer::default() }
    };
    if case.hears_lower {
        election.peers.insert(LOWER, said(false, case.lower_is_happy.then_some(HIGHER)));
    }
    if case.higher != Higher::Gone {
        election.peers.insert(HIGHER, said(case.higher == Higher::Able, None));
    }
    let heard_us = if case.leader == Leader::Silent { LONG_AGO_US } else { NOW_US };
    let can_choose = case.leader != Leader::Helpless;
    let followed = Followed { node: HIGHER, ballot: ballot(5, HIGHER), heard_us, can_choose };
    election.followed = (case.leader != Leader::Unknown).then_some(followed);
    let member = |id: NodeId| {
        let votes = if id == OWN { case.is_voter } else { !case.is_alone };
        let role = if votes { Role::Voter } else { Role::Learner };
        (id, Member { role, ..Member::default() })
    };
    let members = [LOWER, OWN, HIGHER].map(member).into();
    let configuration = Configuration { members, ..Configuration::default() };
    let (stalled, bound) = (case.is_stalled, case.is_bound);
    election.decide(NOW_US, &configuration, case.standing, stalled, bound)
}

fn ballot(round: u64, node: NodeId) -> Ballot {
    Ballot { configuration: 0, round, node }
}

/// Something that happens, and whom the node follows behind it if before it followed nobody, a
/// leader of round 4, n3 in round 5, or a leader of round 6: by round.
type Event = (&'static str, fn(&mut Election), [Option<u64>; 4]);

const FOLLOWED_BEFORE: [Option<u64>; 4] = [None, Some(4), Some(5), Some(6)];

const EVENTS: [Event; 12] = [
    (
        "n3 leads in round 5",
        |election| hear(election, HIGHER, Some(5)),
        [Some(5), Some(5), Some(5), Some(6)],
    ),
    ("n3 leads nothing", |election| hear(election, HIGHER, None), [None; 4]),
    (
        "n1, which is not followed, leads nothing",
        |election| hear(election, LOWER, None),
        [None, Some(4), Some(5), Some(6)],
    ),
    (
        "a message of round 5's phase 2",
        |e| e.on_leader_message(ballot(5, HIGHER), NOW_US),
        [Some(5), Some(5), Some(5), Some(6)],
    ),
    (
        "round 5 of n3 is promised",
        |e| e.on_promised_other(ballot(5, HIGHER), NOW_US),
        [None, None, Some(5), Some(6)],
    ),
    (
        "n3's connection closes",
        |election| {
            election.on_disconnected(HIGHER);
        },
        [None; 4],
    ),
    (
        "n1's connection closes",
        |election| {
            election.on_disconnected(LOWER);
        },
        FOLLOWED_BEFORE,
    ),
    ("this node is elected", |election| election.on_elected(ballot(7, OWN), NOW_US), [None; 4]),
    ("it stops leading", |e| e.on_deposed(Deposed::LostQuorum, NOW_US), FOLLOWED_BEFORE),
    ("it waits for the one that it named", |e| e.wait_for_successor(NOW_US), FOLLOWED_BEFORE),
    ("a new configuration rules", |election| rule(election, true), [None; 4]),
    ("the same, and nobody led", |election| rule(election, false), [None; 4]),
];

#[test]
fn behind_every_event_it_is_clear_who_is_followed() {
    for (event, happen, after) in EVENTS {
        for (before, after) in FOLLOWED_BEFORE.into_iter().zip(after) {
            let mut election = following(before);
            happen(&mut election);
            let followed = election.followed().map(|(_, ballot)| ballot.round);
            assert_eq!(followed, after, "{event}, before round {before:?} was followed");
        }
    }
}

/// How long a node leaves the others alone, by why its own ballot has ended.
#[test]
fn behind_every_end_of_a_ballot_it_is_clear_how_long_to_wait() {
    let silence_us = Settings::new(OWN, 1, 1).timing.silence_us;
    let rank_us = Settings::new(OWN, 1, 1).timing.takeover_rank_us;
    let ends = [
        (Deposed::LostQuorum, 2 * silence_us, 2 * silence_us, 0),
        (Deposed::OwnPromise, 0, 0, 0),
        (Deposed::HigherId, 0, 0, 0),
        (Deposed::NewConfiguration, 0, 0, 0),
        (Deposed::HandedOver, 0, 0, 0),
        (Deposed::Nacked, 0, rank_us, 1),
        (Deposed::Outvoted, 0, rank_us, 1),
        (Deposed::GaveUp, 0, rank_us, 1),
    ];
    for (reason, least_us, most_us, attempts) in ends {
        let mut election = following(None);
        election.eligible_since_us = Some(NOW_US);
        election.on_deposed(reason, NOW_US);
        let waits_us = election.deferred_until_us.saturating_sub(NOW_US);
        assert!((least_us..=most_us).contains(&waits_us), "{reason:?}: {waits_us} µs");
        assert_eq!(election.attempts, attempts, "{reason:?}");
        assert_eq!(election.eligible_since_us, None, "{reason:?}");
    }
}

/// A patience with a candidate ends when it leads, or a later one, and not by a word of an older one.
#[test]
fn behind_every_word_of_a_leader_it_is_clear_whether_a_candidate_is_waited_for() {
    for (round, waits) in [(4, true), (5, false), (6, false)] {
        let heartbeat = |election: &mut Election| hear(election, HIGHER, Some(round));
        let message = |e: &mut Election| e.on_leader_message(ballot(round, HIGHER), NOW_US);
        for lead in [&heartbeat as &dyn Fn(&mut Election), &message] {
            let mut election = following(None);
            election.on_promised_other(ballot(5, HIGHER), NOW_US);
            lead(&mut election);
            assert_eq!(election.candidate_until_us > NOW_US, waits, "round {round}");
        }
    }
}

/// An election is a new ballot that leads, whoever it is; not a leader that goes on in its new
/// configuration, nor one that is heard again.
#[test]
fn three_elections_within_a_minute_double_the_silence_whoever_was_elected() {
    let mut election = following(None);
    let base_us = election.settings.timing.silence_us;
    let silence_us = |election: &Election, at: u64| election.silence_us(at) - election.jitter_us;
    election.on_elected(ballot(1, OWN), NOW_US);
    hear(&mut election, HIGHER, Some(2));
    hear(&mut election, HIGHER, Some(2));
    hear(&mut election, LOWER, Some(1));
    let goes_on = Ballot { configuration: 1, round: 3, node: HIGHER };
    election.on_leader_message(goes_on, NOW_US);
    assert_eq!(silence_us(&election, NOW_US), base_us);
    let other = Ballot { configuration: 1, round: 4, node: LOWER };
    election.on_leader_message(other, NOW_US);
    assert_eq!(silence_us(&election, NOW_US), 2 * base_us);
    assert_eq!(silence_us(&election, NOW_US + MINUTE_US), base_us);
}

fn following(round: Option<u64>) -> Election {
    let mut election = Election::new(&Settings::new(OWN, 1, 1), NOW_US);
    let node = HIGHER;
    let follow =
        |round| Followed { node, ballot: ballot(round, node), heard_us: NOW_US, can_choose: true };
    election.followed = round.map(follow);
    election
}

fn hear(election: &mut Election, from: NodeId, leads: Option<u64>) {
    let leading = leads.map(|round| ballot(round, from));
    election.on_heartbeat(from, Heartbeat { leading, ..Heartbeat::default() }, NOW_US);
}

fn rule(election: &mut Election, led: bool) {
    election.on_configuration(&[LOWER, OWN, HIGHER].into(), led, NOW_US);
    let patience_us = if led { election.settings.timing.phase1_us } else { 0 };
    assert_eq!(election.candidate_until_us, NOW_US + patience_us);
}
