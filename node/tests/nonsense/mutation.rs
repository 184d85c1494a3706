//! Damage, always the same for one seed.

/// A small generator: the same seed makes the same damage, everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ self.0 >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 32) as usize % bound.max(1)
    }
}

/// Numbers at which lengths, counts and versions turn over.
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    8,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x8_0000,
    0x8_0001,
    0x10_0000,
    0x100_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff0,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX >> 1,
    u64::MAX - 7,
    u64::MAX,
];
const TEXTS: &[&str] =
    &["\r\n", "*", "$", "-1", "9999999999", "\"", "[[", "]", "=", "\0", "{", "true"];

/// One of the samples, damaged in a few places.
pub fn mutated(samples: &[Vec<u8>], dice: &mut Dice, mend: fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = samples[dice.below(samples.len())].clone();
    for _ in 0..=dice.below(4) {
        damage(&mut bytes, samples, dice);
    }
    if dice.below(4) > 0 {
        mend(&mut bytes);
    }
    bytes
}

fn damage(bytes: &mut Vec<u8>, samples: &[Vec<u8>], dice: &mut Dice) {
    // Heads are short, and all else hangs on them: half of the damage is near one's beginning.
    let reach = if dice.below(2) == 0 { 64 } else { usize::MAX };
    let from = dice.below(bytes.len().min(reach));
    let to = (from + 1 + dice.below(40)).min(bytes.len());
    let number = NUMBERS[dice.below(NUMBERS.len())].to_le_bytes();
    match dice.below(9) {
        0 if from < bytes.len() => bytes[from] ^= 1 << dice.below(8),
        1 if from < bytes.len() => bytes[from] = number[0],
        2 | 3 => {
            let width = [2, 4, 4, 8][dice.below(4)];
            let end = (from + width).min(bytes.len());
            bytes[from..end].copy_from_slice(&number[..end - from]);
        }
        4 => bytes.truncate(from),
        5 if from < to => drop(bytes.drain(from..to)),
        6 if from < to => {
            let copy = bytes[from..to].to_vec();
            let at = dice.below(bytes.len() + 1);
            bytes.splice(at..at, copy);
        }
        7 => {
            let other = &samples[dice.below(samples.len())];
            let start = dice.below(other.len());
            let end = (start + 1 + dice.below(200)).min(other.len());
            bytes.splice(from..from, other[start.min(end)..end].iter().copied());
        }
        _ => {
            let text = TEXTS[dice.below(TEXTS.len())];
            bytes.splice(from..from, text.bytes());
        }
    }
}
