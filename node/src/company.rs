//! A node that reaches nobody who lets it in. It cannot know whether that is the network, or whether
//! it slept through changes of the members and nobody keeps a door open for it any more. So it says
//! both, in its trace and on its page, with the commands that mend the second.

use paxos::{NodeId, Now};

use crate::shell::Core;

/// An election, or the restart of all others, takes less.
const ALONE_US: u64 = 5_000_000;

#[derive(Debug, Default)]
pub struct Company {
    alone_since_us: Option<u64>,
    /// What was said of it, while it lasts.
    said: Option<String>,
}

impl Core {
    /// Looks whether any other member is there for this node. The answer is what to say where for
    /// some seconds none was.
    pub(crate) fn look_for_company(&mut self, now: Now) -> Option<String> {
        let own = self.identity.id;
        let configuration = self.node.configuration();
        let others: Vec<NodeId> =
            configuration.members.keys().copied().filter(|id| *id != own).collect();
        let views = self.node.replica.peer_views(now);
        let is_there = |id: &NodeId| {
            self.links.is_connected(*id)
                || views.iter().any(|peer| peer.node == *id && peer.connected)
        };
        if others.is_empty() || others.iter().any(is_there) {
            self.company = Company::default();
            return None;
        }
        let since_us = *self.company.alone_since_us.get_or_insert(now.mono_us);
        if now.mono_us.saturating_sub(since_us) < ALONE_US {
            return None;
        }
        if self.company.said.is_none() {
            let text = self.why_alone(&others);
            tracing::warn!("{text}");
            self.company.said = Some(text);
        }
        self.company.said.clone()
    }

    fn why_alone(&self, others: &[NodeId]) -> String {
        let counters = self.links.counters();
        let troubles = others.iter().map(|id| {
            let member = self.node.configuration().members.get(id);
            let name = member.map_or_else(|| id.to_string(), |member| member.name.clone());
            let trouble = counters.iter().find(|(peer, _)| peer == id);
            let trouble = trouble.and_then(|(_, counters)| counters.trouble());
            format!("{name}: {}", trouble.unwrap_or_else(|| "no connection".to_owned()))
        });
        let troubles = troubles.collect::<Vec<_>>().join("; ");
        let (number, own) = (self.node.configuration().number, &self.config.name);
        format!(
            "none of the members that this node knows (configuration {number}) can be reached and \
             lets it in: {troubles}. If the network is whole, the members have changed while it was \
             down: `paxosctl member list` says whether it is one; if so `paxosctl up` introduces it \
             to the others, and if not `paxosctl member remove {own}` ends it"
        )
    }
}
