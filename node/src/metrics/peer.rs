//! The series of one peer.

use monitoring::exposition::Exposition;
use monitoring::metrics as table;
use monitoring::status;
use paxos::Message;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::{seconds, signed};

/// Counters and durations are counted where they happen; the gauges come from the status.
pub struct PeerMetrics {
    pub round_trip_seconds: Histogram,
    pub bytes_in: IntCounter,
    pub bytes_out: IntCounter,
    pub send_failures: IntCounter,
    pub writers_slowed: IntGauge,
    messages_in: Vec<IntCounter>,
    messages_out: Vec<IntCounter>,
    connected: IntGauge,
    acked_slot: IntGauge,
    lag_slots: IntGauge,
    lag_seconds: Gauge,
}

impl PeerMetrics {
    pub(super) fn new(e: &Exposition, peer: &str) -> PeerMetrics {
        let messages = |direction| {
            let family = e.counter_vec(&table::PEER_MESSAGES);
            let child = |kind| family.with_label_values(&[peer, direction, kind]);
            Message::KINDS.into_iter().map(child).collect()
        };
        let bytes =
            |direction| e.counter_vec(&table::PEER_BYTES).with_label_values(&[peer, direction]);
        let gauge = |metric| e.gauge_vec(metric).with_label_values(&[peer]);
        PeerMetrics {
            round_trip_seconds: e.histogram_vec(&table::PEER_ROUND_TRIP).with_label_values(&[peer]),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            send_failures: e.counter_vec(&table::PEER_SEND_FAILURES).with_label_values(&[peer]),
            writers_slowed: gauge(&table::WRITERS_SLOWED),
            messages_in: messages("in"),
            messages_out: messages("out"),
            connected: gauge(&table::PEER_CONNECTED),
            acked_slot: gauge(&table::PEER_ACKED_SLOT),
            lag_slots: gauge(&table::REPLICATION_LAG_SLOTS),
            lag_seconds: e
                .gauge_f64_vec(&table::REPLICATION_LAG_SECONDS)
                .with_label_values(&[peer]),
        }
    }

    pub fn received(&self, message: &Message) {
        self.messages_in[kind_index(message)].inc();
    }

    pub fn sent(&self, message: &Message) {
        self.messages_out[kind_index(message)].inc();
    }

    pub(super) fn set(&self, peer: &status::Peer) {
        self.connected.set(i64::from(peer.connected));
        self.acked_slot.set(signed(peer.acked_slot));
        self.lag_slots.set(signed(peer.lag_slots));
        self.lag_seconds.set(seconds(peer.lag_ms.saturating_mul(1_000)));
    }
}

fn kind_index(message: &Message) -> usize {
    let kind = message.kind();
    let index = Message::KINDS.iter().position(|known| *known == kind);
    index.expect("Message::KINDS lists every kind of message")
}
