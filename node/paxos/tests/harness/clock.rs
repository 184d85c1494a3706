//! A node's two clocks, as wrong as a test wants them: shifted, fast or slow, and the wall clock
//! off by a year.

use paxos::Now;

/// Parts per million by which a clock runs at the true speed.
pub const TRUE_SPEED_PPM: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub offset_us: u64,
    /// The drift bound of DESIGN §3 is 20 % between any two clocks.
    pub speed_ppm: u64,
    pub wall_offset_ms: i64,
}

impl Clock {
    pub const TRUE: Clock = Clock { offset_us: 0, speed_ppm: TRUE_SPEED_PPM, wall_offset_ms: 0 };

    pub fn now(&self, time_us: u64) -> Now {
        let mono_us = self.offset_us + time_us * self.speed_ppm / TRUE_SPEED_PPM;
        let wall_ms = 1_700_000_000_000 + (time_us / 1000) as i64 + self.wall_offset_ms;
        Now { mono_us, wall_ms: wall_ms.max(0) as u64 }
    }
}
