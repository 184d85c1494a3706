//! Plans in words: the lines that a person reads before saying yes, and the one that sums them up.

use std::fmt;

use super::member::Change;
use super::{HostPlan, Plan, Step};

impl Plan {
    /// The lines that a person reads before saying yes.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for host in self.hosts.iter().filter(|host| !host.steps.is_empty()) {
            let role = if host.votes { "voter" } else { "learner" };
            lines.push(format!("{} {}  ({role}, id {})", host.sign(), host.name, host.id));
            for step in &host.steps {
                lines.push(format!("    {} {step}", step.sign()));
            }
        }
        for note in &self.notes {
            lines.push(format!("! {note}"));
        }
        lines
    }

    pub fn summary(&self) -> String {
        if let Some(change) = &self.change {
            return change.summary(self.is_empty());
        }
        if self.is_empty() && self.hosts.iter().any(|host| host.stays_out) {
            return "No changes. The members among the hosts match the inventory.".to_owned();
        }
        if self.is_empty() {
            return "No changes. The hosts match the inventory.".to_owned();
        }
        let stopped = self.hosts.iter().filter(|host| host.steps.contains(&Step::Stop)).count();
        let wipes = |step: &Step| matches!(step, Step::Wipe { .. });
        let wiped = self.hosts.iter().filter(|host| host.steps.iter().any(wipes)).count();
        if stopped + wiped > 0 {
            return match wiped {
                0 => format!("Plan: {stopped} to stop. Their data stays."),
                _ => format!("Plan: {stopped} to stop, the data of {wiped} to remove for good."),
            };
        }
        let signed = |sign: char| {
            self.hosts.iter().filter(|host| !host.steps.is_empty() && host.sign() == sign).count()
        };
        let restarts = self.restarts();
        let counts = |noun: &str, count: usize| {
            format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
        };
        let leader_moves = self
            .hosts
            .iter()
            .filter(|host| host.is_leader && host.restarts() && self.hosts.len() > 1)
            .count();
        let quorum = match restarts {
            0 => String::new(),
            _ if self.voters == 1 => {
                " One voter only: it does not serve while it restarts.".to_owned()
            }
            _ if self.voters == 2 => " Two voters only: no quorum while one restarts.".to_owned(),
            _ => format!(
                " Quorum kept at every step (min {} of {} up).",
                self.voters - 1,
                self.voters
            ),
        };
        format!(
            "Plan: {}, {} add, 0 remove, {}, {}.{quorum}",
            counts("update", signed('~')),
            signed('+'),
            counts("restart", restarts),
            counts("leader move", leader_moves),
        )
    }
}

impl Change {
    fn summary(&self, is_empty: bool) -> String {
        let after = self.after.len();
        let headroom = after - (after / 2 + 1).min(after);
        if self.before == self.after {
            let voters = self.after.join(", ");
            return match is_empty {
                true => format!("No changes. The voters are {voters}."),
                false => format!("Plan: the voters stay {voters}."),
            };
        }
        format!(
            "Plan: voters {} become {}; {after} can lose {headroom}. Quorum kept at every step.",
            self.before.join(", "),
            self.after.join(", "),
        )
    }
}

impl HostPlan {
    fn sign(&self) -> char {
        if self.steps.iter().any(|step| matches!(step, Step::Format | Step::Join)) {
            '+'
        } else if self.steps.iter().all(|step| step.sign() == '-') {
            '-'
        } else {
            '~'
        }
    }
}

impl Step {
    fn sign(&self) -> char {
        match self {
            Step::Upload { .. } | Step::Format | Step::Enroll | Step::Start => '+',
            Step::Introduce | Step::Join | Step::Promote | Step::TakeOver { .. } => '+',
            Step::Configure { is_new: true } | Step::Switch { from: None, .. } => '+',
            Step::Stop | Step::Wipe { .. } => '-',
            Step::StopFormer { .. } | Step::Leave | Step::Retire => '-',
            _ => '~',
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Upload { release, bytes } => {
                write!(f, "copy release {release} ({:.1} MiB)", *bytes as f64 / 1048576.0)
            }
            Step::Switch { from: None, to } => write!(f, "set current to {to}"),
            Step::Switch { from: Some(from), to } => {
                write!(f, "switch current from {from} to {to}")
            }
            Step::Configure { is_new: true } => f.write_str("write node.toml"),
            Step::Configure { is_new: false } => f.write_str("rewrite node.toml"),
            Step::Format => f.write_str("format the data folder: identity and key, once ever"),
            Step::Enroll => f.write_str("write members.toml"),
            Step::Introduce => f.write_str("write members.toml: the members as they are now"),
            Step::StopFormer { pid } => write!(f, "stop process {pid}, which is another node"),
            Step::Start => f.write_str("start the node"),
            Step::Join => f.write_str("make it a learner"),
            Step::CatchUp => f.write_str("wait until it has caught up"),
            Step::Promote => f.write_str("make it a voter"),
            Step::TakeOver { old, old_name } => {
                write!(f, "make it a voter in place of {old_name} (id {old}), in one step")
            }
            Step::Leave => f.write_str("take it out of the membership, for good"),
            Step::Rule(rules) => write!(f, "let these rules rule: {rules}"),
            Step::Retire => f.write_str("see that it has stopped and left its tombstone"),
            Step::Restart { because } => write!(f, "restart the node: {}", because.join(", ")),
            Step::Record => f.write_str("leave a copy of the inventory"),
            Step::Stop => f.write_str("stop the node"),
            Step::Wipe { .. } => f.write_str("remove its data"),
        }
    }
}
