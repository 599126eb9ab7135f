//! How people write durations, sizes and addresses: `150ms`, `64KiB`, `host:port`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use serde::Serialize;

/// Reads `250us`, `150ms`, `2s`, `1m` or `1h`.
///
/// # Errors
/// Says how durations are written when `text` is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write it like 150ms, 2s or 1m");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let micros_per_unit = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(micros_per_unit).map(Duration::from_micros).ok_or_else(wrong)
}

/// Reads `512B`, `64KiB`, `8MiB` or `1GiB`, in bytes.
///
/// # Errors
/// Says how sizes are written when `text` is none.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write it like 64KiB or 8MiB");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let bytes_per_unit: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(bytes_per_unit).ok_or_else(wrong)
}

/// Reads an address to listen on: an IP address (or `localhost`) and a port.
///
/// # Errors
/// Says what an address to listen on looks like when `text` is none.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let named =
        text.strip_prefix("localhost:").map(|port| format!("{}:{port}", Ipv4Addr::LOCALHOST));
    let address: Option<SocketAddr> = named.as_deref().unwrap_or(text).parse().ok();
    address.filter(|a| a.port() != 0).ok_or_else(|| {
        format!("{text:?} is no address to listen on; write it like 127.0.0.1:7001 or [::]:7001")
    })
}

/// Where a peer is reached: `host:port`, the host a name or an IP address (IPv6 in brackets).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// The host: a name, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, never 0.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether this can only mean the machine itself.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.ip().is_some_and(|ip| ip.is_loopback())
    }

    /// Another port of the same host.
    pub(crate) fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port }
    }

    /// The host as an IP address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address; write it like db1.example.com:7001");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(inner) = bracketed {
            let ip: IpAddr = inner.parse().map_err(|_| wrong())?;
            return Ok(Self { host: ip.to_string(), port });
        }
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
        if host.is_empty() || !host.chars().all(good) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip() {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Some(IpAddr::V4(_)) | None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl From<HostPort> for String {
    fn from(address: HostPort) -> Self {
        address.to_string()
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

/// Cuts `150ms` into its digits and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(duration("150ms").unwrap(), Duration::from_millis(150));
        assert_eq!(duration("2s").unwrap(), Duration::from_secs(2));
        assert_eq!(duration("1m").unwrap(), Duration::from_secs(60));
        assert_eq!(duration("250us").unwrap(), Duration::from_micros(250));
        for bad in
            ["", "150", "ms", "1.5s", "-1s", "2 s", "2S", "99999999999999999999s", "9999999999999h"]
        {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_a_number_and_a_binary_unit() {
        assert_eq!(size("64KiB").unwrap(), 64 << 10);
        assert_eq!(size("8MiB").unwrap(), 8 << 20);
        assert_eq!(size("512B").unwrap(), 512);
        for bad in ["64", "64KB", "64kib", "KiB", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["a:1", "db-1.example.com:7001", "127.0.0.1:7001", "[::1]:7001"] {
            assert_eq!(good.parse::<HostPort>().unwrap().to_string(), good);
        }
        for bad in ["a", ":1", "a:", "a:0", "a:65536", "::1:7001", "a b:1", "[x]:1"] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad:?}");
        }
        assert!("localhost:7".parse::<HostPort>().unwrap().is_loopback());
        assert!(listen_address("localhost:7001").unwrap().ip().is_loopback());
        for bad in ["7001", "db1:7001", "127.0.0.1:0", "127.0.0.1"] {
            assert!(listen_address(bad).is_err(), "{bad:?}");
        }
    }
}
