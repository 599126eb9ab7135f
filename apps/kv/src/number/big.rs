//! Just enough arithmetic on natural numbers of any size to round decimal fractions exactly.

use std::cmp::Ordering;

/// A natural number: 32-bit limbs, lowest first, no zero limb at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Big(Vec<u32>);

impl Big {
    pub(super) fn from_u64(value: u64) -> Self {
        let mut big = Self(vec![low(value), low(value >> 32)]);
        big.trim();
        big
    }

    /// The lowest 64 bits.
    pub(super) fn low_u64(&self) -> u64 {
        let limb = |at: usize| u64::from(self.0.get(at).copied().unwrap_or(0));
        limb(0) | limb(1) << 32
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// Bits up to the highest one.
    pub(super) fn bits(&self) -> usize {
        let Some(highest) = self.0.last() else { return 0 };
        self.0.len() * 32 - highest.leading_zeros() as usize
    }

    pub(super) fn bit(&self, at: usize) -> bool {
        self.0.get(at / 32).is_some_and(|limb| limb >> (at % 32) & 1 == 1)
    }

    /// Whether any of the lowest `count` bits is one.
    pub(super) fn any_below(&self, count: usize) -> bool {
        (0..self.0.len().min(count / 32)).any(|at| self.0[at] != 0)
            || (count / 32 * 32..count).any(|at| self.bit(at))
    }

    /// `self × factor + addend`.
    pub(super) fn mul_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.0 {
            let product = u64::from(*limb) * u64::from(factor) + carry;
            *limb = low(product);
            carry = product >> 32;
        }
        self.0.push(low(carry));
        self.trim();
    }

    /// `self × 10^exponent`.
    pub(super) fn mul_pow10(&mut self, mut exponent: usize) {
        while exponent > 0 {
            let step = exponent.min(9);
            self.mul_add(10_u32.pow(u32::try_from(step).expect("at most nine")), 0);
            exponent -= step;
        }
    }

    /// Divides by `divisor`; gives the remainder.
    pub(super) fn div(&mut self, divisor: u32) -> u32 {
        let mut remainder = 0_u64;
        for limb in self.0.iter_mut().rev() {
            let part = remainder << 32 | u64::from(*limb);
            *limb = low(part / u64::from(divisor));
            remainder = part % u64::from(divisor);
        }
        self.trim();
        low(remainder)
    }

    pub(super) fn shl(&self, bits: usize) -> Self {
        if self.is_zero() {
            return Self::default();
        }
        let mut limbs = vec![0; bits / 32];
        let mut carry = 0_u64;
        for limb in &self.0 {
            let shifted = u64::from(*limb) << (bits % 32) | carry;
            limbs.push(low(shifted));
            carry = shifted >> 32;
        }
        limbs.push(low(carry));
        let mut big = Self(limbs);
        big.trim();
        big
    }

    pub(super) fn shr(&self, bits: usize) -> Self {
        let limbs = self.0.get(bits / 32..).unwrap_or(&[]);
        let mut shifted = Vec::with_capacity(limbs.len());
        for (at, limb) in limbs.iter().enumerate() {
            let above = u64::from(limbs.get(at + 1).copied().unwrap_or(0));
            shifted.push(low((above << 32 | u64::from(*limb)) >> (bits % 32)));
        }
        let mut big = Self(shifted);
        big.trim();
        big
    }

    pub(super) fn add(&self, other: &Self) -> Self {
        let mut limbs = Vec::with_capacity(self.0.len().max(other.0.len()) + 1);
        let mut carry = 0_u64;
        for at in 0..self.0.len().max(other.0.len()) {
            let limb = |big: &Self| u64::from(big.0.get(at).copied().unwrap_or(0));
            let sum = limb(self) + limb(other) + carry;
            limbs.push(low(sum));
            carry = sum >> 32;
        }
        limbs.push(low(carry));
        let mut big = Self(limbs);
        big.trim();
        big
    }

    /// `self − other`, which must not be negative.
    pub(super) fn sub(&self, other: &Self) -> Self {
        assert!(self.compare(other) != Ordering::Less, "natural numbers only");
        let mut limbs = Vec::with_capacity(self.0.len());
        let mut borrow = 0_i64;
        for (at, limb) in self.0.iter().enumerate() {
            let other = i64::from(other.0.get(at).copied().unwrap_or(0));
            let difference = i64::from(*limb) - other - borrow;
            borrow = i64::from(difference < 0);
            limbs.push((difference + (borrow << 32)) as u32);
        }
        let mut big = Self(limbs);
        big.trim();
        big
    }

    pub(super) fn compare(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// The decimal digits, at least one.
    pub(super) fn decimal(mut self) -> String {
        let mut groups = Vec::new();
        while !self.is_zero() {
            groups.push(self.div(1_000_000_000));
        }
        let Some(first) = groups.pop() else { return "0".to_owned() };
        let mut text = first.to_string();
        for group in groups.iter().rev() {
            text.push_str(&format!("{group:09}"));
        }
        text
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

/// The low half.
fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}
