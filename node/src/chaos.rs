//! Faults that are injected on purpose, to see what the cluster makes of them:
//! ```text
//! paxos-node --config node.toml admin chaos disk MS SECONDS     each sync takes MS longer
//! paxos-node --config node.toml admin chaos clock MS SECONDS    the wall clock is off by MS, or -MS
//! paxos-node --config node.toml admin chaos heal                both end at once
//! ```
//! Only what nobody can do to a static program from outside: killing, pausing, cutting links and
//! filling disks need no help from within. A node does it only where its configuration says
//! `chaos = true`, never for longer than asked, and not beyond its process: whoever injects a fault
//! and loses the host leaves nothing broken. Meanwhile status and `paxos_chaos_active` name it.

use std::time::Duration;

use paxos::Now;
use serde_json::{Value, json};

use crate::clock;
use crate::shell::Core;

/// A sync that takes longer looks like a dead disk, which needs no fault of its own.
const SLOWER_MS_MAX: u64 = 10_000;
/// Two years: one there, and one back on the other side.
const CLOCK_OFF_MS_MAX: u64 = 2 * 366 * 24 * 3_600_000;
const SECONDS_MAX: u64 = 3_600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChaosCommand {
    /// Each sync of the journal takes so much longer.
    Disk {
        slower: Duration,
        lasts: Duration,
    },
    /// The wall clock is off.
    Clock {
        off_ms: i64,
        lasts: Duration,
    },
    Heal,
}

impl ChaosCommand {
    pub const USAGE: [&str; 3] = ["disk MS SECONDS", "clock MS SECONDS", "heal"];

    pub fn parse(args: &[String]) -> Result<ChaosCommand, String> {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        match words[..] {
            ["disk", ms, seconds] => Ok(ChaosCommand::Disk {
                slower: Duration::from_millis(number("MS", ms, SLOWER_MS_MAX)?),
                lasts: Duration::from_secs(number("SECONDS", seconds, SECONDS_MAX)?),
            }),
            ["clock", ms, seconds] => {
                let ahead = number("MS", ms.trim_start_matches('-'), CLOCK_OFF_MS_MAX)? as i64;
                Ok(ChaosCommand::Clock {
                    off_ms: if ms.starts_with('-') { -ahead } else { ahead },
                    lasts: Duration::from_secs(number("SECONDS", seconds, SECONDS_MAX)?),
                })
            }
            ["heal"] => Ok(ChaosCommand::Heal),
            _ => Err(format!("chaos takes one of: {}", ChaosCommand::USAGE.join(", "))),
        }
    }
}

fn number(what: &str, digits: &str, max: u64) -> Result<u64, String> {
    match digits.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(format!("{what} = `{digits}` is no number from 1 to {max}")),
    }
}

/// What is at work, each until its end.
#[derive(Debug, Default)]
pub struct Chaos {
    disk_until_us: Option<u64>,
    clock_until_us: Option<u64>,
}

impl Chaos {
    /// As in `paxos_chaos_active`.
    pub fn kinds(&self) -> Vec<String> {
        let disk = self.disk_until_us.map(|_| "disk".to_owned());
        disk.into_iter().chain(self.clock_until_us.map(|_| "clock".to_owned())).collect()
    }
}

impl Core {
    pub(crate) fn inject(&mut self, now: Now, command: ChaosCommand) -> Result<Value, String> {
        if !self.config.behaviour.chaos {
            return Err(
                "this node's configuration does not allow chaos; a cluster that is there to \
                        be broken says `chaos = true` in its preset"
                    .to_owned(),
            );
        }
        let until_us = |lasts: Duration| now.mono_us + lasts.as_micros() as u64;
        match command {
            ChaosCommand::Disk { slower, lasts } => {
                self.syncer.state.slow_down(slower);
                self.chaos.disk_until_us = Some(until_us(lasts));
            }
            ChaosCommand::Clock { off_ms, lasts } => {
                clock::set_wall_off_ms(off_ms);
                self.chaos.clock_until_us = Some(until_us(lasts));
            }
            ChaosCommand::Heal => self.heal(u64::MAX),
        }
        tracing::warn!(?command, "chaos");
        self.publish(now);
        Ok(json!({ "active": self.chaos.kinds() }))
    }

    /// Ends what has lasted long enough.
    pub(crate) fn heal(&mut self, now_us: u64) {
        if self.chaos.disk_until_us.take_if(|until_us| now_us >= *until_us).is_some() {
            self.syncer.state.slow_down(Duration::ZERO);
            tracing::warn!("chaos is over: syncs take what they take");
        }
        if self.chaos.clock_until_us.take_if(|until_us| now_us >= *until_us).is_some() {
            clock::set_wall_off_ms(0);
            tracing::warn!("chaos is over: the wall clock is the machine's");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<ChaosCommand, String> {
        ChaosCommand::parse(&words.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_injected_is_bounded() {
        let (slower, lasts) = (Duration::from_secs(1), Duration::from_secs(30));
        assert_eq!(parse("disk 1000 30"), Ok(ChaosCommand::Disk { slower, lasts }));
        let off_ms = -31_536_000_000;
        assert_eq!(parse("clock -31536000000 30"), Ok(ChaosCommand::Clock { off_ms, lasts }));
        assert_eq!(parse("heal"), Ok(ChaosCommand::Heal));
        for bad in ["disk 10001 1", "disk 1 3601", "disk 0 1", "disk 1 0", "clock --1x 1", "disk 1"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("disk 10001 1").unwrap_err().contains("MS = `10001` is no number from 1"));
        assert!(parse("").unwrap_err().contains("disk MS SECONDS, clock MS SECONDS, heal"));
    }
}
