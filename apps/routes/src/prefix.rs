//! A range of addresses: all that begin with the same bits.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// An address and how many of its first bits count; the others are zero.
///
/// In the order of prefixes one that holds others comes before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(IpAddr, u8)", into = "(IpAddr, u8)")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// What is no prefix, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPrefix(String);

impl Prefix {
    /// The addresses that share so many of their first bits with `address`.
    ///
    /// # Errors
    /// [`BadPrefix`].
    pub fn new(address: IpAddr, length: u8) -> Result<Self, BadPrefix> {
        if length > bits(address) {
            return Err(BadPrefix(format!("{address}/{length}: an address has fewer bits")));
        }
        let prefix = Self::around(address, length);
        let why = || format!("{address}/{length} has bits beyond its length: write {prefix}");
        if prefix.address == address { Ok(prefix) } else { Err(BadPrefix(why())) }
    }

    /// The only prefix of that length, at most an address's, that holds `address`.
    pub(crate) fn around(address: IpAddr, length: u8) -> Self {
        let rest = u32::from(bits(address) - length);
        let (v4, v6) = (u32::MAX.checked_shl(rest), u128::MAX.checked_shl(rest));
        let address = match address {
            IpAddr::V4(one) => IpAddr::V4((one.to_bits() & v4.unwrap_or(0)).into()),
            IpAddr::V6(one) => IpAddr::V6((one.to_bits() & v6.unwrap_or(0)).into()),
        };
        Self { address, length }
    }

    /// The narrowest that holds `address`: nothing else.
    pub(crate) fn of(address: IpAddr) -> Self {
        Self { address, length: bits(address) }
    }

    /// Whether it holds `address`.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.common(address).is_some_and(|common| common >= self.length)
    }

    /// How many first bits its address shares with another of its family.
    pub(crate) fn common(&self, address: IpAddr) -> Option<u8> {
        let zeros = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return None,
        };
        u8::try_from(zeros).ok()
    }
}

/// Bits of an address of that family.
const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl FromStr for Prefix {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Self, BadPrefix> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(one, other)| Some((one.parse().ok()?, other.parse().ok()?)));
        let form =
            || BadPrefix(format!("{text:?} is no prefix: write 10.0.0.0/8 or 2001:db8::/32"));
        let (address, length) = parts.ok_or_else(form)?;
        Self::new(address, length)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl TryFrom<(IpAddr, u8)> for Prefix {
    type Error = BadPrefix;

    fn try_from((address, length): (IpAddr, u8)) -> Result<Self, BadPrefix> {
        Self::new(address, length)
    }
}

impl From<Prefix> for (IpAddr, u8) {
    fn from(Prefix { address, length }: Prefix) -> Self {
        (address, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_prefix_is_refused_by_what_is_wrong_with_it() {
        let said = |text: &str| {
            text.parse::<Prefix>().map_or_else(|bad| bad.to_string(), |p| p.to_string())
        };
        for good in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "2001:db8::/32", "::1/128"] {
            assert_eq!(said(good), good);
        }
        assert_eq!(said("10.0.0.1/8"), "10.0.0.1/8 has bits beyond its length: write 10.0.0.0/8");
        assert_eq!(said("10.0.0.0/33"), "10.0.0.0/33: an address has fewer bits");
        for bad in ["", "10.0.0.0", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "/8", "ten/8"] {
            assert!(
                said(bad).ends_with("write 10.0.0.0/8 or 2001:db8::/32"),
                "{bad}: {}",
                said(bad)
            );
        }
    }
}
