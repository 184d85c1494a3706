//! The 80-bit floats of x86, in integers. `INCRBYFLOAT` in Redis is C's `long double`: `strtold`,
//! one addition, `%.17Lf`. Replicas must agree to the last digit, and clients compare ours with
//! Redis's; so this does what that hardware does, on any hardware: 64 bits of mantissa, 15 of
//! exponent, round to nearest, ties to even.

use std::cmp::Ordering;

/// Redis refuses longer texts.
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;

/// Exponent of the lowest bit of the smallest number, 2^-16445.
const EXPONENT_MIN: i32 = -16445;
/// Numbers from 2^16384 on are infinite.
const EXPONENT_TOP: i32 = 16384;

/// Invariants of a finite one: its value is `mantissa` × 2^`exponent`; zero has exponent 0;
/// otherwise the top bit of the mantissa is set, unless the exponent is `EXPONENT_MIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    infinite: bool,
    mantissa: u64,
    exponent: i32,
}

impl LongDouble {
    pub const ZERO: LongDouble =
        LongDouble { negative: false, infinite: false, mantissa: 0, exponent: 0 };

    fn infinity(negative: bool) -> LongDouble {
        LongDouble { negative, infinite: true, mantissa: 0, exponent: 0 }
    }

    pub fn is_finite(&self) -> bool {
        !self.infinite
    }

    /// The number that `text` stands for; `None` for what Redis calls not a valid float: leading
    /// spaces, trailing anything, NaN, and what is too large or too small to be told from zero.
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (negative, digits) = match text {
            [b'-', digits @ ..] => (true, digits),
            [b'+', digits @ ..] => (false, digits),
            digits => (false, digits),
        };
        if digits.eq_ignore_ascii_case(b"inf") || digits.eq_ignore_ascii_case(b"infinity") {
            return Some(LongDouble::infinity(negative));
        }
        let value = match digits {
            [b'0', b'x' | b'X', digits @ ..] => hexadecimal(digits, negative)?,
            digits => decimal(digits, negative)?,
        };
        (!value.infinite).then_some(value)
    }

    /// The sum, rounded; `None` for the sum of opposite infinities.
    pub fn plus(self, other: LongDouble) -> Option<LongDouble> {
        match (self.infinite, other.infinite) {
            (true, true) if self.negative != other.negative => return None,
            (true, _) => return Some(self),
            (_, true) => return Some(other),
            _ => {}
        }
        let (large, small) = if self.magnitude_cmp(&other) == Ordering::Less {
            (other, self)
        } else {
            (self, other)
        };
        if small.mantissa == 0 {
            let negative = large.negative && (large.mantissa != 0 || small.negative);
            return Some(LongDouble { negative, ..large });
        }
        // 63 bits below the larger mantissa; what of the smaller one falls further is one sticky bit.
        let distance = (large.exponent - small.exponent) as u32;
        let (shifted, lost) = shift_right(u128::from(small.mantissa) << 63, distance);
        let high = u128::from(large.mantissa) << 63;
        let sum = match large.negative == small.negative {
            true => high + shifted,
            // The true difference lies between this and one more, so the sticky bit stays right.
            false => high - shifted - u128::from(lost),
        };
        Some(LongDouble::round(large.negative, sum, large.exponent - 63, lost))
    }

    fn magnitude_cmp(&self, other: &LongDouble) -> Ordering {
        match (self.mantissa, other.mantissa) {
            (0, _) | (_, 0) => self.mantissa.cmp(&other.mantissa),
            _ => (self.exponent, self.mantissa).cmp(&(other.exponent, other.mantissa)),
        }
    }

    /// `bits` × 2^`exponent`, and a little more if `lost`, as the nearest representable number.
    fn round(negative: bool, bits: u128, exponent: i32, lost: bool) -> LongDouble {
        if bits == 0 {
            // Exact cancellation gives a positive zero.
            return LongDouble { negative: negative && lost, ..LongDouble::ZERO };
        }
        let length = 128 - bits.leading_zeros() as i32;
        // Bits to drop: those beyond 64, and those below the smallest exponent.
        let drop = (length - 64).max(EXPONENT_MIN - exponent);
        let (mut mantissa, mut exponent) = if drop <= 0 {
            let up = (-drop).min(64 - length);
            ((bits << up) as u64, exponent - up)
        } else {
            let (kept, rest) = shift_right(bits, drop as u32 - 1);
            let (half, inexact) = (kept & 1 == 1, rest || lost);
            let mut kept = kept >> 1;
            if half && (inexact || kept & 1 == 1) {
                kept += 1;
            }
            let carry = i32::from(kept >> 64 != 0);
            ((kept >> carry) as u64, exponent + drop + carry)
        };
        if mantissa == 0 {
            return LongDouble { negative, ..LongDouble::ZERO };
        }
        while mantissa >> 63 == 0 && exponent > EXPONENT_MIN {
            mantissa <<= 1;
            exponent -= 1;
        }
        if exponent + 64 > EXPONENT_TOP {
            return LongDouble::infinity(negative);
        }
        LongDouble { negative, infinite: false, mantissa, exponent }
    }

    /// `%.17Lf` without the zeros at its end, as Redis prints it. Of finite numbers.
    pub fn to_text(&self) -> String {
        const DECIMALS: u128 = 100_000_000_000_000_000;
        let (whole, fraction) = if self.exponent >= 0 {
            let mut whole = Big::from(u128::from(self.mantissa));
            whole.shift_left(self.exponent as u32);
            (whole.to_decimal(), 0)
        } else {
            let scaled = u128::from(self.mantissa) * DECIMALS;
            let drop = self.exponent.unsigned_abs();
            let (kept, rest) = shift_right(scaled, drop - 1);
            let rounds_up = kept & 1 == 1 && (rest || kept & 2 == 2);
            let rounded = (kept >> 1) + u128::from(rounds_up);
            ((rounded / DECIMALS).to_string(), rounded % DECIMALS)
        };
        let mut text = if self.negative { format!("-{whole}") } else { whole };
        if fraction != 0 {
            text.push_str(format!(".{fraction:017}").trim_end_matches('0'));
        }
        if text == "-0" { "0".to_owned() } else { text }
    }
}

/// The shifted number, and whether a set bit was lost.
fn shift_right(bits: u128, by: u32) -> (u128, bool) {
    match by {
        0 => (bits, false),
        1..=127 => (bits >> by, bits << (128 - by) != 0),
        _ => (0, bits != 0),
    }
}

/// `digits[.digits][e[+-]digits]`
fn decimal(text: &[u8], negative: bool) -> Option<LongDouble> {
    let number = Number::scan(text, u8::is_ascii_digit, b'e')?;
    let mut digits = Big::from(0);
    for digit in &number.digits {
        digits.multiply_add(10, u32::from(digit - b'0'));
    }
    if digits.is_zero() {
        return Some(LongDouble { negative, ..LongDouble::ZERO });
    }
    let exponent = number.exponent - number.fraction_digits as i64;
    // Decimal place of the first digit: far outside, and not worth exact arithmetic.
    let first = number.digits.iter().position(|digit| *digit != b'0').unwrap_or(0);
    let magnitude = exponent + (number.digits.len() - first) as i64;
    if magnitude > 5000 {
        return Some(LongDouble::infinity(negative));
    }
    if magnitude < -5000 {
        return None;
    }
    let value = if exponent >= 0 {
        digits.multiply_power_of_ten(exponent as u32);
        let (top, shift, lost) = digits.top_bits();
        LongDouble::round(negative, top, shift as i32, lost)
    } else {
        let mut divisor = Big::from(1);
        divisor.multiply_power_of_ten(exponent.unsigned_abs() as u32);
        let (quotient, shift, lost) = digits.divide(divisor);
        LongDouble::round(negative, quotient, shift, lost)
    };
    // Too small to be told from zero is an error, as with `strtold`.
    (value.mantissa != 0 || value.infinite).then_some(value)
}

/// `digits[.digits][p[+-]digits]`, all but the exponent in base 16.
fn hexadecimal(text: &[u8], negative: bool) -> Option<LongDouble> {
    let number = Number::scan(text, u8::is_ascii_hexdigit, b'p')?;
    let mut digits = Big::from(0);
    for digit in &number.digits {
        digits.multiply_add(16, char::from(*digit).to_digit(16)?);
    }
    if digits.is_zero() {
        return Some(LongDouble { negative, ..LongDouble::ZERO });
    }
    let (top, shift, lost) = digits.top_bits();
    let exponent = number.exponent - 4 * number.fraction_digits as i64 + i64::from(shift);
    let exponent = exponent.clamp(-100_000, 100_000) as i32;
    let value = LongDouble::round(negative, top, exponent, lost);
    (value.mantissa != 0 || value.infinite).then_some(value)
}

/// The digits of a number and where its point is.
struct Number {
    digits: Vec<u8>,
    fraction_digits: usize,
    exponent: i64,
}

impl Number {
    fn scan(text: &[u8], is_digit: fn(&u8) -> bool, marker: u8) -> Option<Number> {
        let length = |text: &[u8]| text.iter().take_while(|byte| is_digit(byte)).count();
        let (whole, mut rest) = text.split_at(length(text));
        let mut digits = whole.to_vec();
        let mut fraction_digits = 0;
        if let [b'.', tail @ ..] = rest {
            fraction_digits = length(tail);
            digits.extend_from_slice(&tail[..fraction_digits]);
            rest = &tail[fraction_digits..];
        }
        if digits.is_empty() {
            return None;
        }
        let exponent = match rest {
            [] => 0,
            [byte, tail @ ..] if byte.eq_ignore_ascii_case(&marker) => {
                let (negative, digits) = match tail {
                    [b'-', digits @ ..] => (true, digits),
                    [b'+', digits @ ..] => (false, digits),
                    digits => (false, digits),
                };
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return None;
                }
                let bounded =
                    |value: i64, digit: &u8| (value * 10 + i64::from(digit - b'0')).min(1_000_000);
                let value = digits.iter().fold(0, bounded);
                if negative { -value } else { value }
            }
            _ => return None,
        };
        Some(Number { digits, fraction_digits, exponent })
    }
}

/// A natural number of any size: limbs of 32 bits, lowest first, no zero at the top.
struct Big {
    limbs: Vec<u32>,
}

impl Big {
    fn from(mut value: u128) -> Big {
        let mut limbs = Vec::new();
        while value != 0 {
            limbs.push(value as u32);
            value >>= 32;
        }
        Big { limbs }
    }

    fn is_zero(&self) -> bool {
        self.limbs.is_empty()
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.limbs {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            self.limbs.push(carry as u32);
        }
    }

    fn multiply_power_of_ten(&mut self, power: u32) {
        for _ in 0..power / 9 {
            self.multiply_add(1_000_000_000, 0);
        }
        self.multiply_add(10u32.pow(power % 9), 0);
    }

    fn bit_length(&self) -> u32 {
        let top = self.limbs.last().map_or(0, |limb| 32 - limb.leading_zeros());
        (self.limbs.len() as u32).saturating_sub(1) * 32 + top
    }

    fn shift_left(&mut self, by: u32) {
        if self.is_zero() {
            return;
        }
        self.multiply_add(1 << (by % 32), 0);
        let zeros = std::iter::repeat_n(0, by as usize / 32);
        self.limbs.splice(0..0, zeros);
    }

    /// The highest 96 bits or more, how far they are to be shifted left, and whether any set bit
    /// is below them.
    fn top_bits(&self) -> (u128, u32, bool) {
        let skip = self.limbs.len().saturating_sub(4);
        let top = self.limbs[skip..].iter().rev();
        let top = top.fold(0u128, |top, limb| (top << 32) | u128::from(*limb));
        (top, 32 * skip as u32, self.limbs[..skip].iter().any(|limb| *limb != 0))
    }

    /// At least 66 bits of the quotient, their exponent, and whether it goes on below.
    fn divide(mut self, mut divisor: Big) -> (u128, i32, bool) {
        const BITS: u32 = 66;
        // Align the two, then shift and subtract: one bit a step.
        let (mine, its) = (self.bit_length(), divisor.bit_length());
        let shift = its as i32 - mine as i32;
        if shift >= 0 {
            self.shift_left(shift as u32)
        } else {
            divisor.shift_left(-shift as u32)
        }
        let mut quotient = 0u128;
        for _ in 0..=BITS {
            quotient <<= 1;
            if self.compare(&divisor) != Ordering::Less {
                self.subtract(&divisor);
                quotient |= 1;
            }
            self.shift_left(1);
        }
        (quotient, -shift - BITS as i32, !self.is_zero())
    }

    fn compare(&self, other: &Big) -> Ordering {
        let lengths = self.limbs.len().cmp(&other.limbs.len());
        lengths.then_with(|| self.limbs.iter().rev().cmp(other.limbs.iter().rev()))
    }

    /// `other` must not be larger.
    fn subtract(&mut self, other: &Big) {
        let mut borrow = false;
        for (index, limb) in self.limbs.iter_mut().enumerate() {
            let (less, first) = limb.overflowing_sub(other.limbs.get(index).copied().unwrap_or(0));
            let (less, second) = less.overflowing_sub(u32::from(borrow));
            *limb = less;
            borrow = first || second;
        }
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
    }

    fn to_decimal(mut self: Big) -> String {
        let mut groups = Vec::new();
        while !self.is_zero() {
            let mut rest = 0u64;
            for limb in self.limbs.iter_mut().rev() {
                rest = (rest << 32) | u64::from(*limb);
                *limb = (rest / 1_000_000_000) as u32;
                rest %= 1_000_000_000;
            }
            while self.limbs.last() == Some(&0) {
                self.limbs.pop();
            }
            groups.push(rest);
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        for group in groups.iter().rev() {
            text.push_str(&format!("{group:09}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(one: &str, other: &str) -> Option<String> {
        let parse = |text: &str| LongDouble::parse(text.as_bytes());
        parse(one)?.plus(parse(other)?).filter(LongDouble::is_finite).map(|sum| sum.to_text())
    }

    /// Recorded from Redis 7.0.15 on x86-64.
    #[test]
    fn sums_are_those_of_redis() {
        let check = |one: &str, other: &str, expect: &str| {
            assert_eq!(sum(one, other).as_deref(), Some(expect), "{one} + {other}");
        };
        check("10.50", "0.1", "10.6");
        check("5.0e3", "2.0e2", "5200");
        check("0.1", "0.2", "0.3");
        check("-0", "0", "0");
        check("1", "-1", "0");
    }

    #[test]
    fn texts_that_are_no_floats() {
        for text in [
            "", " 1", "1 ", "abc", "1e", "1e+", ".", "-", "nan", "0x", "1e5000", "1e-5000", "--1",
            "1..2", "1e1.5",
        ] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        for text in ["1", "-1", "+1", "1.", ".5", "1e3", "0x10", "0x.8p1", "inf", "-Infinity"] {
            assert!(LongDouble::parse(text.as_bytes()).is_some(), "{text:?}");
        }
    }
}
