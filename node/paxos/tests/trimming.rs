//! What is let go of is on record first.

use paxos::{
    Ballot, Configuration, Member, NodeId, Now, Output, Record, Recovered, Replica, Settings, Slot,
    Value,
};

/// A restart from a snapshot leaves out the entries below it that are not known to be chosen. They
/// are still in the journal; once that is trimmed too, the record must say so, or a node that lost
/// its snapshots would take those slots for empty.
#[test]
fn a_trim_after_a_restart_is_recorded() {
    let id = NodeId(1);
    let members = [1, 2, 3].map(|id| (NodeId(id), Member::default())).into();
    let configuration = Configuration { members, store_version: 1, ..Configuration::default() };
    let ballot = Ballot { configuration: 0, round: 1, node: NodeId(2) };
    let accepted = |slot| Record::Accepted { slot: Slot(slot), ballot, value: Value::Noop };
    let recovered = Recovered {
        snapshot_below: Slot(4),
        records: (1..=3).map(accepted).collect(),
        granted_us: 0,
    };
    let now = Now { mono_us: 0, wall_ms: 0 };
    let mut output = Output::default();
    let settings = Settings::new(id, 7, 7);
    let mut replica = Replica::recover(settings, configuration, recovered, now, &mut output);
    assert_eq!(replica.first_kept(), Slot(4));
    assert!(!output.records.contains(&Record::TrimmedBelow(Slot(4))), "{:?}", output.records);
    replica.trim(Slot(4), &mut output);
    assert!(output.records.contains(&Record::TrimmedBelow(Slot(4))), "{:?}", output.records);
    assert!(replica.checkpoint().contains(&Record::TrimmedBelow(Slot(4))));
    let count = output.records.len();
    replica.trim(Slot(4), &mut output);
    assert_eq!(output.records.len(), count, "once is enough");
}
