//! What a replica tells of itself: for pages, metrics and tests. Nothing here changes it.

use std::hash::{Hash, Hasher};

use super::{PeerView, Replica};
use crate::ballot::{Ballot, NodeId, Slot};
use crate::configuration::Configuration;
use crate::proposer::Proposer;
use crate::settings::{ElectionStrategy, Now};

impl Replica {
    pub fn id(&self) -> NodeId {
        self.settings.id
    }

    pub fn promised(&self) -> Ballot {
        self.acceptor.promised()
    }

    /// The ballot that this node leads, once phase 1 has ended.
    pub fn leading(&self) -> Option<Ballot> {
        match &self.proposer {
            Proposer::Leading(leading) => Some(leading.ballot),
            Proposer::Preparing(_) | Proposer::Following => None,
        }
    }

    /// Leading, and all that former leaders may have got chosen is chosen and handed out, with the
    /// own no-op behind it: from here on the store is as new as the log.
    pub fn reign_is_open(&self) -> bool {
        match &self.proposer {
            Proposer::Leading(leading) => self.learner.first_unchosen > leading.own_slot,
            Proposer::Preparing(_) | Proposer::Following => false,
        }
    }

    /// The ballot whose phase 1 this node runs now.
    pub fn preparing(&self) -> Option<Ballot> {
        match &self.proposer {
            Proposer::Preparing(preparing) => Some(preparing.ballot),
            Proposer::Leading(_) | Proposer::Following => None,
        }
    }

    /// The leader that this node knows: itself, or whom it follows.
    pub fn leader(&self) -> Option<NodeId> {
        match self.leading() {
            Some(_) => Some(self.settings.id),
            None => self.election.followed().map(|(node, _)| node),
        }
    }

    /// The ballot of that leader.
    pub fn leader_ballot(&self) -> Option<Ballot> {
        self.leading().or_else(|| self.election.followed().map(|(_, ballot)| ballot))
    }

    /// The leader that this node has heard within its patience, itself included: for readiness.
    pub fn happy_with(&self, now: Now) -> Option<NodeId> {
        match self.leading() {
            Some(_) => self
                .election
                .leader_reaches_quorum(now.mono_us, &self.configuration)
                .then_some(self.settings.id),
            None => self.election.happy_with(now.mono_us),
        }
    }

    /// How long ago the leader was last heard; 0 on the leader itself.
    pub fn leader_silence_us(&self, now: Now) -> u64 {
        match self.leading() {
            Some(_) => 0,
            None => self.election.leader_silence_us(now.mono_us),
        }
    }

    /// Slots not known chosen that lie below one that is.
    pub fn hole_count(&self) -> u64 {
        self.acceptor.hole_count(self.learner.first_unchosen)
    }

    /// Every slot below is known chosen here.
    pub fn first_unchosen(&self) -> Slot {
        self.learner.first_unchosen
    }

    pub fn first_kept(&self) -> Slot {
        self.acceptor.first_kept()
    }

    /// All below was given up, and the journal says so. Never above [`Replica::first_kept`].
    pub fn recorded_trimmed_below(&self) -> Slot {
        self.recorded_trimmed_below
    }

    /// The highest slot that this node holds an entry of, chosen or not.
    pub fn last_slot(&self) -> Option<Slot> {
        self.acceptor.last_slot()
    }

    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Leading, with room in the window for a batch of so many bytes.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        match &self.proposer {
            Proposer::Leading(leading) => leading.has_room_for(bytes, self.settings.limits),
            Proposer::Preparing(_) | Proposer::Following => false,
        }
    }

    /// Slots in flight, when leading.
    pub fn pending_count(&self) -> u64 {
        match &self.proposer {
            Proposer::Leading(leading) => leading.next_slot.0 - leading.hint.0,
            Proposer::Preparing(_) | Proposer::Following => 0,
        }
    }

    pub fn peer_views(&self, now: Now) -> Vec<PeerView> {
        let connected: Vec<NodeId> =
            self.election.connected(now.mono_us).map(|(node, _)| node).collect();
        self.others()
            .into_iter()
            .map(|node| {
                let peer = self.election.peers.get(&node);
                let is_connected = connected.contains(&node);
                PeerView {
                    node,
                    connected: is_connected,
                    // The last one of a peer that is gone says nothing of now.
                    round_trip_us: peer
                        .filter(|_| is_connected)
                        .and_then(|peer| peer.round_trip_us),
                    first_unchosen: peer.map_or(Slot::ZERO, |peer| peer.first_unchosen),
                    can_accept: peer.is_some_and(|peer| peer.heartbeat.can_accept),
                }
            })
            .collect()
    }

    pub fn election_strategy(&self) -> ElectionStrategy {
        self.settings.election
    }

    /// Feeds `hasher` with everything that decides what this replica may say, promise, accept and
    /// declare from here on while time stands still, and with nothing of its clocks, chances and
    /// statistics: two replicas that hash alike answer alike. Left out is also who is believed to
    /// lack what, which decides only when a chosen entry is sent again. For a search that must know
    /// which states it has seen. `begins`: whether own ballots may still begin, which have to be
    /// above every other.
    pub fn hash_standing<H: Hasher>(&self, begins: bool, hasher: &mut H) {
        self.configuration.hash(hasher);
        self.former.as_ref().map(|former| former.number).hash(hasher);
        self.acceptor.hash_standing(self.learner.first_unchosen, hasher);
        self.proposer.hash_standing(hasher);
        self.learner.hash(hasher);
        self.reads.hash(hasher);
        begins.then_some(self.highest_seen).hash(hasher);
        self.batch_count.hash(hasher);
        for withheld in &self.withheld {
            withheld.after.0.saturating_sub(self.synced.0).hash(hasher);
            withheld.to.hash(hasher);
            withheld.message.hash(hasher);
        }
    }

    /// The same for what passes with time: grants, leases, handovers. All of it relative to `now`,
    /// so that it does not matter when something happened, only how long ago; and nothing of what
    /// is over. Who has which slot counts only while a handover may still wait for it. `last`: no
    /// ballot above this one will ever begin, so that a grant to it keeps nobody waiting.
    pub fn hash_leases<H: Hasher>(
        &self,
        now: Now,
        last: Option<Ballot>,
        hands_over: bool,
        hasher: &mut H,
    ) {
        self.granter.hash_at(now.mono_us, last, hasher);
        self.holder.hash_at(now.mono_us, self.election.last_sequence(), hasher);
        // A heartbeat of the promised ballot or above makes its sender the one that is followed.
        let promised = self.acceptor.promised();
        let matters = |ballot: Ballot| ballot > promised || self.granter.candidacy_waits();
        self.election.followed().filter(|(_, ballot)| matters(*ballot)).hash(hasher);
        self.released.map(|released| released.successor()).hash(hasher);
        if let Proposer::Leading(leading) = &self.proposer {
            self.election.hash_sent(now.mono_us, self.grant_us(), hasher);
            hands_over.then(|| leading.hash_deliveries(hasher));
        }
    }

    /// The same with nothing left out: what is over, who is followed, every clock as it stands. For
    /// a search that is to show that what the other leaves out decides nothing.
    pub fn hash_leases_in_full<H: Hasher>(&self, now: Now, hasher: &mut H) {
        (now.mono_us, &self.granter, &self.holder, self.released).hash(hasher);
        self.election.hash_in_full(hasher);
        if let Proposer::Leading(leading) = &self.proposer {
            leading.hash_deliveries(hasher);
        }
    }
}
