//! Writers that are slowed down, while a peer is brought up to date over a link that carries less than
//! they would write (PITFALLS 68). Batches are proposed at the pace that is given, and smaller ones, so
//! that none of them waits long; whoever finds no place in one is held, as by a full window.

use super::{BATCH_BYTES_MAX, Node};

/// What a slot takes in the journal beside its payload, about.
const RECORD_BYTES: usize = 128;

/// What may be proposed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Below zero after a batch that was larger.
    bytes_allowed: i64,
    batch_bytes_max: usize,
}

impl Node {
    /// Lets writers propose so many bytes more and no others, in batches of so many, until it is said
    /// again; or lets them go.
    pub fn slow_down(&mut self, pace: Option<(u64, usize)>) {
        self.pace = pace.map(|(bytes, batch_bytes_max)| {
            let bytes = bytes as i64;
            let left = self.pace.map_or(0, |pace| pace.bytes_allowed);
            // What was not used up is no reason to run ahead later.
            let bytes_allowed = (left + bytes).min(bytes.max(batch_bytes_max as i64));
            Pace { bytes_allowed, batch_bytes_max }
        });
    }

    /// A time mark alone is always let through: reads wait for it.
    pub(super) fn waits_for_pace(&self) -> bool {
        self.pace.is_some_and(|pace| pace.bytes_allowed <= 0) && !self.open_items.is_empty()
    }

    /// A batch of so many bytes is proposed.
    pub(super) fn keep_pace(&mut self, payload_bytes: usize) {
        if let Some(pace) = &mut self.pace {
            pace.bytes_allowed -= (payload_bytes + RECORD_BYTES) as i64;
        }
    }

    pub(super) fn batch_bytes_max(&self) -> usize {
        self.pace.map_or(BATCH_BYTES_MAX, |pace| pace.batch_bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use crate::node::tests::Desk;

    /// Writers that are slowed are answered at that pace; who waits too long is refused, surely not done,
    /// and reads pass.
    #[test]
    fn writers_keep_the_pace_they_are_given() {
        const TICK_US: u64 = 5_000;
        let mut desk = Desk::new(1);
        desk.pass(500_000);
        let sessions: Vec<_> = (0..300).map(|_| desk.connect()).collect();
        let reader = desk.connect();
        desk.node.slow_down(Some((0, 4 << 10)));
        let value = vec![b'v'; 900];
        for (number, session) in sessions.iter().enumerate() {
            desk.ask(*session, &[b"SET", format!("k{number}").as_bytes(), &value]);
        }
        desk.ask(reader, &[b"GET", b"k0"]);
        desk.turn();
        assert_eq!(desk.read(reader), b"$-1\r\n", "nothing was written, and a read does not wait");
        let (mut done, mut refused) = (0, 0);
        for _ in 0..400 {
            // 100 000 bytes a second.
            desk.node.slow_down(Some((500, 4 << 10)));
            desk.pass(TICK_US);
            for session in &sessions {
                match &desk.read(*session)[..] {
                    b"" => {}
                    b"+OK\r\n" => done += 1,
                    refusal => {
                        assert!(refusal.starts_with(b"-TRYAGAIN"), "{refusal:?}");
                        refused += 1;
                    }
                }
            }
        }
        assert_eq!(done + refused, 300);
        assert!((80..130).contains(&done), "{done} in the second that they may wait");

        desk.node.slow_down(None);
        for (number, session) in sessions.iter().enumerate() {
            desk.ask(*session, &[b"SET", format!("k{number}").as_bytes(), &value]);
        }
        desk.turn();
        assert!(sessions.iter().all(|session| desk.read(*session) == b"+OK\r\n"));
    }
}
