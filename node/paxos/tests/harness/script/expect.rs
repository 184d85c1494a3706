//! What a script demands in so many words. A recorded text that changes proves that something
//! changed; an expectation that is missed says what harm it does. Time and peace have no other
//! witness: no invariant of safety breaks when nobody leads.

use paxos::NodeId;

use super::{Stage, number};

impl Stage {
    pub(super) fn expect(&mut self, words: &[&str]) {
        if let Err(missed) = self.is_as_expected(words) {
            self.cluster().checker.fail(missed);
        }
    }

    fn is_as_expected(&mut self, words: &[&str]) -> Result<(), String> {
        let paused = self.paused.clone();
        let cluster = self.cluster();
        let leading = cluster.leaders().into_iter().map(|(node, _)| node);
        // One that is paused does not know better.
        let leading: Vec<NodeId> = leading.filter(|node| !paused.contains(node)).collect();
        let must_lead = |expected: &[NodeId]| match leading == expected {
            true => Ok(()),
            false => Err(format!("{leading:?} lead, expected was {expected:?}")),
        };
        match *words {
            ["leader", node] => must_lead(&[NodeId(number(node, "") as u32)]),
            ["nobody"] => must_lead(&[]),
            ["ballots", most] => {
                let begun = cluster.checker.begun_count() as u64;
                match begun <= number(most, "") {
                    true => Ok(()),
                    false => Err(format!("{begun} ballots were begun, expected were {most}")),
                }
            }
            ["done", count] => {
                let done = cluster.checker.acknowledged_count() as u64;
                let lost = cluster.checker.lost_count();
                match (done == number(count, ""), lost) {
                    (true, 0) => Ok(()),
                    _ => Err(format!(
                        "{done} batches are done and {lost} lost, expected was {count}"
                    )),
                }
            }
            ["runs", node] => match cluster.is_up(NodeId(number(node, "") as u32)) {
                true => Ok(()),
                false => Err(format!("n{node} is gone, and still needed")),
            },
            _ => panic!("no such expectation: {words:?}"),
        }
    }
}
