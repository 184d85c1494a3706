//! The gauges: what is, made from the newest status at each scrape and never set elsewhere.

use monitoring::exposition::Exposition;
use monitoring::metrics as table;
use monitoring::status::{self, NodeStatus};
use prometheus::{Gauge, IntGauge, IntGaugeVec};

use super::{seconds, signed};

pub(super) struct Gauges {
    pub(super) node_time: Gauge,
    pub(super) recovering: IntGauge,
    configuration_number: IntGauge,
    voters: IntGauge,
    is_voter: IntGauge,
    has_leader: IntGauge,
    is_leader: IntGauge,
    ballot_round: IntGauge,
    lease_remaining: Gauge,
    chosen_slot: IntGauge,
    applied_slot: IntGauge,
    first_slot: IntGauge,
    log_holes: IntGauge,
    apply_lag_slots: IntGauge,
    proposals_pending: IntGauge,
    journal_bytes: IntGauge,
    data_disk_free: IntGauge,
    snapshot_slot: IntGauge,
    state_hash_slot: IntGauge,
    state_hash_low48: IntGauge,
    chaos_active: IntGaugeVec,
}

impl Gauges {
    pub(super) fn new(e: &Exposition) -> Gauges {
        let gauges = Gauges {
            node_time: e.gauge_f64(&table::NODE_TIME),
            recovering: e.gauge(&table::RECOVERING),
            configuration_number: e.gauge(&table::CONFIGURATION_NUMBER),
            voters: e.gauge(&table::VOTERS),
            is_voter: e.gauge(&table::IS_VOTER),
            has_leader: e.gauge(&table::HAS_LEADER),
            is_leader: e.gauge(&table::IS_LEADER),
            ballot_round: e.gauge(&table::BALLOT_ROUND),
            lease_remaining: e.gauge_f64(&table::LEASE_REMAINING),
            chosen_slot: e.gauge(&table::CHOSEN_SLOT),
            applied_slot: e.gauge(&table::APPLIED_SLOT),
            first_slot: e.gauge(&table::FIRST_SLOT),
            log_holes: e.gauge(&table::LOG_HOLES),
            apply_lag_slots: e.gauge(&table::APPLY_LAG_SLOTS),
            proposals_pending: e.gauge(&table::PROPOSALS_PENDING),
            journal_bytes: e.gauge(&table::JOURNAL_BYTES),
            data_disk_free: e.gauge(&table::DATA_DISK_FREE),
            snapshot_slot: e.gauge(&table::SNAPSHOT_SLOT),
            state_hash_slot: e.gauge(&table::STATE_HASH_SLOT),
            state_hash_low48: e.gauge(&table::STATE_HASH_LOW48),
            chaos_active: e.gauge_vec(&table::CHAOS_ACTIVE),
        };
        for kind in table::CHAOS_KINDS {
            gauges.chaos_active.with_label_values(&[kind]).set(0);
        }
        gauges
    }

    pub(super) fn set(&self, status: &NodeStatus) {
        let configuration = &status.configuration;
        self.configuration_number.set(i64::from(configuration.number));
        self.voters.set(signed(configuration.voters().count() as u64));
        self.is_voter.set(i64::from(configuration.is_voter(status.id)));
        self.has_leader.set(i64::from(status.leader.is_some()));
        self.is_leader.set(i64::from(status.role == status::Role::Leader));
        self.ballot_round.set(signed(status.ballot.round));
        self.lease_remaining.set(seconds(status.lease_remaining_us));
        self.chosen_slot.set(signed(status.chosen_slot));
        self.applied_slot.set(signed(status.applied_slot));
        self.first_slot.set(signed(status.first_kept_slot));
        self.log_holes.set(signed(status.log_holes));
        self.apply_lag_slots.set(signed(status.chosen_slot.saturating_sub(status.applied_slot)));
        self.proposals_pending.set(signed(status.proposals_pending));
        self.journal_bytes.set(signed(status.journal_bytes));
        self.data_disk_free.set(signed(status.disk_free_bytes));
        self.snapshot_slot.set(signed(status.snapshot_slot));
        if let Some(newest) = status.state_hashes.last() {
            self.state_hash_slot.set(signed(newest.slot));
            self.state_hash_low48.set(newest.low48());
        }
        for kind in table::CHAOS_KINDS {
            let active = status.chaos.iter().any(|active| active == kind);
            self.chaos_active.with_label_values(&[kind]).set(i64::from(active));
        }
    }
}
