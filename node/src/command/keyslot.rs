//! The hash slot of a key: CRC16 (XMODEM) of the key, or of its `{tag}`, modulo 16384. Clients
//! route by it, `MOVED` names it, and the store is cut along it.

/// How many hash slots there are; part of the Redis Cluster protocol.
pub const HASH_SLOTS: u16 = 16384;

/// Only what stands between the first `{` and the next `}` counts, if there is anything between.
pub fn hash_slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let tail = &key[open + 1..];
        let close = tail.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &tail[..close])
    });
    crc16(tag.unwrap_or(key)) % HASH_SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let index = (crc >> 8) as u8 ^ byte;
        (crc << 8) ^ TABLE[usize::from(index)]
    })
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(hash_slot(b"foo"), 12182);
        assert_eq!(hash_slot(b""), 0);
        assert_eq!(hash_slot(b"{user1000}.following"), hash_slot(b"user1000"));
        assert_eq!(hash_slot(b"foo{{bar}}zap"), hash_slot(b"{bar"));
        assert_eq!(hash_slot(b"foo{bar}{zap}"), hash_slot(b"bar"));
        // Nothing between the braces, or no second one: the whole key.
        assert_eq!(hash_slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % HASH_SLOTS);
        assert_eq!(hash_slot(b"foo{bar"), crc16(b"foo{bar") % HASH_SLOTS);
    }
}
