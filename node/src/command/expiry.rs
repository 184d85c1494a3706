//! Deadlines: `EXPIRE` and its relatives, `TTL` and its relatives, and the arithmetic from what a
//! client writes to a moment in log time.

use super::number::integer;
use super::operation::*;
use crate::resp::Reply;

macro_rules! expire {
    ($name:ident, $seconds:literal, $absolute:literal) => {
        pub(super) fn $name<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
            expire_at(argv, stringify!($name), $seconds, $absolute)
        }
    };
}

expire!(expire, true, false);
expire!(pexpire, false, false);
expire!(expireat, true, true);
expire!(pexpireat, false, true);

fn expire_at<'a>(
    argv: &'a [&'a [u8]],
    command: &'static str,
    seconds: bool,
    absolute: bool,
) -> Result<Write<'a>, Reply> {
    let condition = condition(&argv[3..])?;
    let deadline = Deadline { value: integer(argv[2])?, seconds, absolute };
    Ok(Write::Expire { command, key: argv[1], deadline, condition })
}

fn condition(options: &[&[u8]]) -> Result<ExpireCondition, Reply> {
    let mut condition = ExpireCondition::default();
    for option in options {
        if option.eq_ignore_ascii_case(b"nx") {
            condition.if_none = true;
        } else if option.eq_ignore_ascii_case(b"xx") {
            condition.if_some = true;
        } else if option.eq_ignore_ascii_case(b"gt") {
            condition.if_later = true;
        } else if option.eq_ignore_ascii_case(b"lt") {
            condition.if_sooner = true;
        } else {
            return Err(Reply::error(format!("ERR Unsupported option {}", super::shown(option))));
        }
    }
    if condition.if_none && (condition.if_some || condition.if_later || condition.if_sooner) {
        return Err(Reply::error(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if condition.if_later && condition.if_sooner {
        return Err(Reply::error("ERR GT and LT options at the same time are not compatible"));
    }
    Ok(condition)
}

pub(super) fn persist<'a>(argv: &'a [&'a [u8]]) -> Result<Write<'a>, Reply> {
    Ok(Write::Persist { key: argv[1] })
}

macro_rules! time_to_live {
    ($name:ident, $seconds:literal, $absolute:literal) => {
        pub(super) fn $name<'a>(argv: &'a [&'a [u8]]) -> Result<Read<'a>, Reply> {
            let form = TimeForm { seconds: $seconds, absolute: $absolute };
            Ok(Read::TimeToLive { key: argv[1], form })
        }
    };
}

time_to_live!(ttl, true, false);
time_to_live!(pttl, false, false);
time_to_live!(expiretime, true, true);
time_to_live!(pexpiretime, false, true);

impl Deadline {
    /// For commands that store a value: a deadline must be positive and countable.
    pub fn check_positive(&self, command: &str) -> Result<(), Reply> {
        let max = if self.seconds { i64::MAX / 1000 } else { i64::MAX };
        if self.value <= 0 || self.value > max { Err(invalid(command)) } else { Ok(()) }
    }

    /// The moment in milliseconds, which for `EXPIRE` may lie in the past, even before 1970.
    pub fn moment_ms(&self, now_ms: u64, command: &str) -> Result<i64, Reply> {
        let value_ms = if self.seconds { self.value.checked_mul(1000) } else { Some(self.value) };
        let base_ms = if self.absolute { 0 } else { now_ms as i64 };
        value_ms.and_then(|value_ms| value_ms.checked_add(base_ms)).ok_or_else(|| invalid(command))
    }
}

fn invalid(command: &str) -> Reply {
    Reply::error(format!("ERR invalid expire time in '{command}' command"))
}
