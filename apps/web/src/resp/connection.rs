//! One connection to a server, and where the server is.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::wire::{self, Replies};

/// A server's address as a person writes it: `redis://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisAddress(String);

impl RedisAddress {
    /// Whether a text is meant to be one.
    pub fn is_meant(text: &str) -> bool {
        text.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
    }

    /// Reads `redis://host:port`; without a port, 6379.
    ///
    /// # Errors
    /// What is wrong with it, without the key it was under.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not redis://HOST:PORT, without a user or a database");
        let rest = text.get(SCHEME.len()..).filter(|_| Self::is_meant(text)).ok_or_else(bad)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        // A colon inside brackets belongs to an address of IPv6.
        let colon = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
        let (host, port) = match colon {
            Some(colon) => {
                (&authority[..colon], authority[colon + 1..].parse().map_err(|_| bad())?)
            }
            None => (authority, REDIS_PORT),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let known = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        let six = bare.contains(':') == (bare.len() < host.len());
        match !bare.is_empty() && port > 0 && six && bare.chars().all(known) {
            true => Ok(Self(format!("{host}:{port}"))),
            false => Err(bad()),
        }
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

/// A connection to a server, in one of its databases.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// Heard and not yet understood.
    pub(super) buffer: BytesMut,
    who: Who,
    database: u32,
}

/// The server at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    /// Its process: another one at the same address has another name.
    pub(super) instance: String,
    pub(super) version: String,
}

impl Connection {
    /// Connects, and looks who is there.
    ///
    /// # Errors
    /// Nobody, or no server that a site can use.
    pub(super) async fn open(address: &RedisAddress, database: u32) -> Result<Self, String> {
        let RedisAddress(at) = address;
        let opened = timeout(CONNECT_TIME_MAX, TcpStream::connect(at)).await;
        let stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(format!("{at}: {error}")),
            Err(_) => return Err(format!("{at}: nobody takes a connection")),
        };
        // Requests are written whole, so waiting for more would only cost time.
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let who = Who { instance: String::new(), version: String::new() };
        let mut connection = Self { stream, buffer: BytesMut::new(), who, database };
        let selected = connection.ask(&["SELECT", &database.to_string()]).await?;
        if selected != "+OK\r\n" {
            let said = String::from_utf8_lossy(&selected[1..]).trim_end().to_owned();
            return Err(format!("{at} lets nobody into database {database}: {said}"));
        }
        let info = connection.ask(&["INFO"]).await?;
        let info = wire::text(&info).map(|text| String::from_utf8_lossy(text).into_owned());
        let info = info.ok_or_else(|| format!("{at} does not say what it is"))?;
        connection.who = check(&info).map_err(|why| format!("{at}: {why}"))?;
        Ok(connection)
    }

    /// Asks one thing, while nothing else is under way.
    ///
    /// # Errors
    /// There is no answer.
    pub(super) async fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Bytes, String> {
        let mut bytes = Vec::new();
        wire::write(&mut bytes, words);
        let answered = timeout(CONNECT_TIME_MAX, async {
            self.stream.write_all(&bytes).await.map_err(|error| error.to_string())?;
            let (mut reply, mut at) = (Replies::new(1), 0);
            loop {
                at += reply.advance(&self.buffer[at..])?;
                if reply.is_done() {
                    return Ok(self.buffer.split_to(at).freeze());
                }
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) => return Err("it hung up".to_owned()),
                    Ok(_) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
        });
        answered.await.unwrap_or_else(|_| Err("it takes connections and says nothing".to_owned()))
    }

    /// The process at the other end: another one at the same address has another name.
    pub(super) fn instance(&self) -> &str {
        &self.who.instance
    }

    /// The same, and what it is.
    pub(super) const fn who(&self) -> &Who {
        &self.who
    }

    /// The database that it is in.
    pub(super) const fn database(&self) -> u32 {
        self.database
    }

    /// Whether it is open, and nothing was said on it that nobody asked.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let quiet = self.stream.try_read(&mut byte);
        let waits = quiet.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        waits && self.buffer.is_empty()
    }
}

/// The process, if it is one that a site can use.
fn check(info: &str) -> Result<Who, String> {
    let field = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let version = field("redis_version").unwrap_or("0");
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let version_is: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version_is < OLDEST {
        let (major, minor) = OLDEST;
        return Err(format!(
            "its version is {version}; {major}.{minor} is the oldest that will do"
        ));
    }
    if field("role") != Some("master") {
        return Err("it is a replica of another server".to_owned());
    }
    if field("loading") == Some("1") {
        return Err("it is loading what it has".to_owned());
    }
    let instance = field("run_id").filter(|id| !id.is_empty());
    let instance = instance.ok_or_else(|| "it has no run_id".to_owned())?;
    Ok(Who { instance: instance.to_owned(), version: version.to_owned() })
}

const SCHEME: &str = "redis://";

const REDIS_PORT: u16 = 6379;

/// The first that knows `SET … PXAT`.
const OLDEST: (u32, u32) = (6, 2);

/// A server that does not even say who it is in this time is not up.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let good = |text: &str| RedisAddress::parse(text).unwrap().0;
        assert_eq!(good("redis://127.0.0.1:7001"), "127.0.0.1:7001");
        assert_eq!(good("REDIS://localhost/"), "localhost:6379");
        assert_eq!(good("redis://[::1]:9"), "[::1]:9");
        for bad in ["redis://", "redis://a:0", "redis://a/1", "redis://:x@a", "http://a", "redis"] {
            assert!(RedisAddress::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_that_a_site_cannot_use_says_why() {
        let info = |version: &str, role: &str| {
            format!(
                "# Server\r\nredis_version:{version}\r\nrun_id:ab\r\nloading:0\r\nrole:{role}\r\n"
            )
        };
        let who = Who { instance: "ab".to_owned(), version: "7.0.15".to_owned() };
        assert_eq!(check(&info("7.0.15", "master")), Ok(who));
        assert!(check(&info("6.0.9", "master")).unwrap_err().contains("6.2"));
        assert!(check(&info("7.2", "slave")).unwrap_err().contains("replica"));
        assert!(check("").is_err());
    }
}
