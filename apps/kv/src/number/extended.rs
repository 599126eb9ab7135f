//! The numbers of `INCRBYFLOAT`: Redis computes them in the 80-bit format of x86 (64 bits of
//! mantissa) and prints 17 decimals. The same here, in whole numbers, so that every replica on
//! every machine agrees to the last digit.

use std::cmp::Ordering;

use super::big::Big;

/// A finite 80-bit number: `± mantissa × 2^exponent`, the mantissa below 2^64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extended {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

/// Why a float was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FloatError {
    /// The text is no number, or one that is too large or too small.
    #[error("value is not a valid float")]
    Invalid,
    /// The number, or the sum, is infinite.
    #[error("increment would produce NaN or Infinity")]
    Infinite,
}

impl Extended {
    /// Zero.
    pub const ZERO: Self = Self { negative: false, mantissa: 0, exponent: 0 };

    /// Reads a decimal number such as `-3.0e5`.
    pub fn parse(text: &[u8]) -> Result<Self, FloatError> {
        if text.is_empty() || text.len() > TEXT_LEN_MAX {
            return Err(FloatError::Invalid);
        }
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") {
            return Err(FloatError::Infinite);
        }
        if let [b'0', b'x' | b'X', hex @ ..] = rest {
            let (digits, exponent2) = hexadecimal(hex).ok_or(FloatError::Invalid)?;
            if digits.is_zero() {
                return Ok(Self { negative, ..Self::ZERO });
            }
            return Self::round(negative, &digits, exponent2).ok_or(FloatError::Invalid);
        }
        let (digits, exponent10) = decimal(rest).ok_or(FloatError::Invalid)?;
        if digits.is_zero() {
            return Ok(Self { negative, ..Self::ZERO });
        }
        // Far outside the format: not worth a number of a million digits.
        if exponent10.abs() > EXPONENT10_MAX {
            return Err(FloatError::Invalid);
        }
        let power = usize::try_from(exponent10.unsigned_abs()).expect("checked above");
        let (mantissa, exponent) = if exponent10 >= 0 {
            let mut whole = digits;
            whole.mul_pow10(power);
            (whole, 0)
        } else {
            let mut divisor = Big::from_u64(1);
            divisor.mul_pow10(power);
            divide(&digits, &divisor)
        };
        Self::round(negative, &mantissa, exponent).ok_or(FloatError::Invalid)
    }

    /// The sum, rounded to the nearest number, ties to even.
    pub fn add(&self, other: &Self) -> Result<Self, FloatError> {
        if self.mantissa == 0 || other.mantissa == 0 {
            let sum = if self.mantissa == 0 { other } else { self };
            return Ok(sum.clone());
        }
        let exponent = self.exponent.min(other.exponent);
        let aligned = |number: &Self| {
            let shift = usize::try_from(number.exponent - exponent).expect("not below the lower");
            Big::from_u64(number.mantissa).shl(shift)
        };
        let (a, b) = (aligned(self), aligned(other));
        let (negative, sum) = if self.negative == other.negative {
            (self.negative, a.add(&b))
        } else {
            match a.compare(&b) {
                Ordering::Equal => return Ok(Self::ZERO),
                Ordering::Greater => (self.negative, a.sub(&b)),
                Ordering::Less => (other.negative, b.sub(&a)),
            }
        };
        Self::round(negative, &sum, exponent).ok_or(FloatError::Infinite)
    }

    /// Seventeen decimals, without zeros at the end.
    pub fn format(&self) -> String {
        let mut scaled = Big::from_u64(self.mantissa);
        scaled.mul_pow10(DECIMALS);
        let shift = self.exponent.unsigned_abs() as usize;
        let scaled =
            if self.exponent >= 0 { scaled.shl(shift) } else { shr_half_even(&scaled, shift) };
        let digits = format!("{:0>width$}", scaled.decimal(), width = DECIMALS + 1);
        let (whole, fraction) = digits.split_at(digits.len() - DECIMALS);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        let zero = whole == "0" && fraction.is_empty();
        let sign = if self.negative && !zero { "-" } else { "" };
        format!("{sign}{whole}{dot}{fraction}")
    }

    /// The number nearest to `mantissa × 2^exponent`; nothing when that is beyond the format.
    fn round(negative: bool, mantissa: &Big, exponent: i32) -> Option<Self> {
        let excess = mantissa.bits().saturating_sub(64);
        let mut rounded = shr_half_even(mantissa, excess);
        let mut exponent = exponent + i32::try_from(excess).ok()?;
        if rounded.bits() > 64 {
            // Rounded up to 2^64.
            rounded = rounded.shr(1);
            exponent += 1;
        }
        let top = exponent + i32::try_from(rounded.bits()).ok()?;
        if !(EXPONENT2_MIN..=EXPONENT2_MAX).contains(&top) {
            return None;
        }
        Some(Self { negative, mantissa: rounded.low_u64(), exponent })
    }
}

/// The digits of a decimal number as one whole number, and the power of ten it is to be taken with.
fn decimal(text: &[u8]) -> Option<(Big, i64)> {
    let (number, power) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], exponent(&text[at + 1..])?),
        None => (text, 0),
    };
    let mut digits = Big::default();
    let mut seen = 0;
    let mut decimals: Option<i64> = None;
    for byte in number {
        match byte {
            b'0'..=b'9' => {
                digits.mul_add(10, u32::from(byte - b'0'));
                seen += 1;
                decimals = decimals.map(|count| count + 1);
            }
            b'.' if decimals.is_none() => decimals = Some(0),
            _ => return None,
        }
    }
    (seen > 0).then(|| (digits, power - decimals.unwrap_or(0)))
}

/// The digits of a hexadecimal number as one whole number, and the power of two it is to be taken
/// with, far from the limits of `i32`.
fn hexadecimal(text: &[u8]) -> Option<(Big, i32)> {
    let (number, power) = match text.iter().position(|byte| matches!(byte, b'p' | b'P')) {
        Some(at) => (&text[..at], exponent(&text[at + 1..])?),
        None => (text, 0),
    };
    let mut digits = Big::default();
    let mut seen = false;
    let mut fraction_bits: Option<i64> = None;
    for byte in number {
        if *byte == b'.' && fraction_bits.is_none() {
            fraction_bits = Some(0);
            continue;
        }
        digits.mul_add(16, char::from(*byte).to_digit(16)?);
        seen = true;
        fraction_bits = fraction_bits.map(|bits| bits + 4);
    }
    let power = power - fraction_bits.unwrap_or(0);
    let power = power.clamp(-EXPONENT2_READ_MAX, EXPONENT2_READ_MAX);
    seen.then(|| (digits, i32::try_from(power).expect("clamped")))
}

/// The exponent behind an `e`.
fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // A text of so many digits that it overflows is beyond every limit anyway.
    let value = digits.iter().fold(0_i64, |value, digit| {
        value.saturating_mul(10).saturating_add(i64::from(digit - b'0')).min(1 << 40)
    });
    Some(if negative { -value } else { value })
}

/// `numerator / divisor` with more than 64 bits, the last of which is sticky: it stands for all that
/// follow, which is all that rounding needs.
fn divide(numerator: &Big, divisor: &Big) -> (Big, i32) {
    let shift = QUOTIENT_BITS + bits_i32(divisor) - bits_i32(numerator);
    let by = shift.unsigned_abs() as usize;
    let (numerator, dropped) = if shift >= 0 {
        (numerator.shl(by), false)
    } else {
        (numerator.shr(by), numerator.any_below(by))
    };
    // Long division, bit by bit; what is shorter than the divisor gives only zeros.
    let steps = numerator.bits().saturating_sub(divisor.bits() - 1);
    let mut remainder = numerator.shr(steps);
    let mut quotient = Big::default();
    for at in (0..steps).rev() {
        remainder = remainder.shl(1).add(&Big::from_u64(u64::from(numerator.bit(at))));
        let fits = remainder.compare(divisor) != Ordering::Less;
        if fits {
            remainder = remainder.sub(divisor);
        }
        quotient.mul_add(2, u32::from(fits));
    }
    quotient.mul_add(2, u32::from(dropped || !remainder.is_zero()));
    (quotient, -shift - 1)
}

fn bits_i32(number: &Big) -> i32 {
    i32::try_from(number.bits()).expect("numbers of some ten thousand bits")
}

/// Drops the lowest `bits` bits, rounding to nearest, ties to even.
fn shr_half_even(number: &Big, bits: usize) -> Big {
    let shifted = number.shr(bits);
    if bits == 0 || !number.bit(bits - 1) {
        return shifted;
    }
    let up = number.any_below(bits - 1) || shifted.bit(0);
    if up { shifted.add(&Big::from_u64(1)) } else { shifted }
}

/// Bits of a quotient: the mantissa's, the half's and one in reserve.
const QUOTIENT_BITS: i32 = 66;

/// Decimals that Redis prints.
const DECIMALS: usize = 17;

/// Longest text Redis reads as a float.
const TEXT_LEN_MAX: usize = 5 * 1024 - 1;

/// Powers of ten beyond this are beyond the format, whatever the digits in a text of that length.
const EXPONENT10_MAX: i64 = 12_000;

/// Powers of two beyond this are beyond the format, whatever the digits in a text of that length.
const EXPONENT2_READ_MAX: i64 = 1 << 20;

/// Numbers from 2^16384 on are infinite.
const EXPONENT2_MAX: i32 = 16_384;

/// Numbers below 2^-16445 are zero.
const EXPONENT2_MIN: i32 = -16_444;

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> String {
        let parse = |text: &str| Extended::parse(text.as_bytes()).unwrap();
        parse(a).add(&parse(b)).unwrap().format()
    }

    #[test]
    fn sums_are_printed_as_redis_prints_them() {
        assert_eq!(sum("10.50", "0.1"), "10.6");
        assert_eq!(sum("5.0e3", "2.0e2"), "5200");
        assert_eq!(sum("3", "-3"), "0");
        assert_eq!(sum("-0", "-0"), "0");
        assert_eq!(sum("0.1", "0.2"), "0.3");
        assert_eq!(sum("1e-17", "0"), "0.00000000000000001");
        assert_eq!(sum("1e-18", "0"), "0");
        assert_eq!(sum("-1.5", ".25"), "-1.25");
        assert_eq!(sum("0x1p-3", "-0X1.8"), "-1.375");
        assert_eq!(sum("123456789012345678901", "1"), "123456789012345678904");
    }

    #[test]
    fn what_is_no_finite_number_is_refused() {
        for bad in [
            "",
            " 1",
            "1 ",
            "e5",
            ".",
            "1e",
            "1e+",
            "1.2.3",
            "abc",
            "1e99999",
            "1e-99999",
            "0x",
            "0x.p1",
            "0x1p",
            "0x1p99999999",
        ] {
            assert_eq!(Extended::parse(bad.as_bytes()), Err(FloatError::Invalid), "{bad}");
        }
        assert_eq!(Extended::parse(b"-inf"), Err(FloatError::Infinite));
        let max = Extended::parse(b"1e4932").unwrap();
        let max = max.add(&max.clone()).and_then(|twice| twice.add(&max));
        assert_eq!(max.and_then(|m| m.add(&m)).and_then(|m| m.add(&m)), Err(FloatError::Infinite));
    }
}
