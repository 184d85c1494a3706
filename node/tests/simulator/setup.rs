//! What a cluster of a plan starts with: its configuration and its clocks.

use paxos::{Configuration, Member, NodeId};

use super::SECOND;
use super::chance::Chance;
use super::clock::{Clock, TRUE_SPEED_PPM};
use super::identities::incarnation;
use super::plan::Plan;

pub fn configuration(nodes: u32) -> Configuration {
    let members = (1..=nodes).map(NodeId).map(|id| (id, member(id))).collect();
    Configuration { members, store_version: 1, ..Configuration::default() }
}

pub fn member(id: NodeId) -> Member {
    let client_address = format!("{id}:7379");
    Member { client_address, incarnation: incarnation(id), ..Member::default() }
}

/// The node whose wall clock may be.
pub const WILD: NodeId = NodeId(1);

/// One wall clock may be wild. Log time starts from the lower median of a quorum's clocks, which is
/// right as long as most of any quorum are; of two clocks it is the one behind, so of three nodes
/// the wild one is ahead.
pub fn draw_clock(chance: &mut Chance, plan: &Plan, id: NodeId) -> Clock {
    let wild = plan.wild_wall_clock && id == WILD;
    Clock {
        offset_us: chance.below(100 * SECOND),
        speed_ppm: match plan.drift {
            true => chance.between(910_000, 1_090_000),
            false => TRUE_SPEED_PPM,
        },
        wall_offset_ms: match wild {
            true => draw_wild_offset_ms(chance, plan),
            false => chance.below(100) as i64,
        },
    }
}

pub fn draw_wild_offset_ms(chance: &mut Chance, plan: &Plan) -> i64 {
    let year_ms = 365 * 86_400_000;
    let behind_ms = if plan.nodes == 3 { 0 } else { year_ms };
    chance.below(year_ms + behind_ms) as i64 - behind_ms as i64
}
