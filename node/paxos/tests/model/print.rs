//! A hash of 128 bits for what was seen before: two lanes of folded multiplication.

use std::hash::{BuildHasherDefault, Hash, Hasher};

#[derive(Clone, Copy, Debug, Default)]
pub struct Print {
    a: u64,
    b: u64,
}

fn fold(x: u64, y: u64) -> u64 {
    let product = u128::from(x) * u128::from(y);
    (product as u64) ^ (product >> 64) as u64
}

impl Print {
    pub fn of(value: &impl Hash) -> u128 {
        let mut print = Print::default();
        value.hash(&mut print);
        print.wide()
    }

    pub fn wide(self) -> u128 {
        u128::from(fold(self.a, 0x9E37_79B9_7F4A_7C15)) << 64
            | u128::from(fold(self.b, 0xC2B2_AE3D_27D4_EB4F))
    }

    fn add(&mut self, word: u64) {
        self.a = fold(self.a.rotate_left(23) ^ word ^ 0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB);
        self.b = fold(self.b.rotate_left(41) ^ word ^ 0x8EBC_6AF0_9C88_C6E3, 0x5899_65CC_7537_4CC3);
    }
}

impl Hasher for Print {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
        self.add(bytes.len() as u64);
    }

    fn write_u8(&mut self, word: u8) {
        self.add(u64::from(word));
    }

    fn write_u16(&mut self, word: u16) {
        self.add(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.add(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.add(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.add(word as u64);
    }

    fn finish(&self) -> u64 {
        self.wide() as u64
    }
}

/// For keys that are no prints themselves.
pub type Quick = BuildHasherDefault<Print>;

/// For keys that are prints already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Printed(u64);

impl Hasher for Printed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only prints are hashed so");
    }

    fn write_u128(&mut self, print: u128) {
        self.0 = print as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
