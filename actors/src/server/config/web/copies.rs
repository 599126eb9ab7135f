//! How the content of a server is passed on, and taken in (R5.41).

use std::{fmt, time::Duration};

use super::{
    super::{ConfigError, Section},
    Upstream,
};

/// How the content of a server is passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebCopies {
    /// Gives all of it, while the server is asked nothing that changes it.
    pub export: Hook,
    /// Makes what it is given all that the server has.
    pub import: Hook,
    /// How long each may take.
    pub within: Duration,
    /// The most that `export` may give.
    pub bytes_max: u64,
}

/// What gives, or takes, the content of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// A command: it writes it to its standard output, or reads it from its standard input.
    Command(Vec<String>),
    /// A place at a server, for GET or PUT.
    Url(HookUrl),
}

/// Where a server gives or takes its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookUrl {
    /// `http://HOST:PORT`.
    pub server: String,
    /// A path, perhaps with a query.
    pub target: String,
}

/// Without its query: what lets people in stands there, and this is shown to all.
impl fmt::Display for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.server, self.target.split('?').next().unwrap_or_default())
    }
}

/// Reads `export`, `import` and their limits; none: content is copied by hand.
pub(super) fn read(section: &Section<'_>) -> Result<Option<WebCopies>, ConfigError> {
    let (export, import) = (hook(section, "export")?, hook(section, "import")?);
    let within = section.duration("rebuild_within", REBUILD_WITHIN)?;
    let bytes_max = section.size("rebuild_bytes", 1..=REBUILD_BYTES_MAX, REBUILD_BYTES)?;
    let (key, other) = match (export, import) {
        (None, None) => return Ok(None),
        (Some(export), Some(import)) => {
            return Ok(Some(WebCopies { export, import, within, bytes_max }));
        }
        (None, Some(_)) => ("import", "export"),
        (Some(_), None) => ("export", "import"),
    };
    // Either server may be the one that is copied.
    Err(section.refuse(key, format!("there is no `{other}`"), "a rebuild wants both"))
}

fn hook(section: &Section<'_>, key: &'static str) -> Result<Option<Hook>, ConfigError> {
    let words = section.one_or_more(key)?;
    match words.as_slice() {
        [] => Ok(None),
        [url] if url.contains("://") => {
            let refused =
                |why: String| section.refuse(key, why, "write it like http://HOST:PORT/PATH");
            url_of(url).map(|url| Some(Hook::Url(url))).map_err(refused)
        }
        // Words are not cut here as a shell would.
        [line] if section.bare(key).is_some() && line.contains(' ') => {
            let why = format!("{line:?} is no program's name");
            let hint = "write a command as a list of its words, or [\"sh\", \"-c\", \"…\"]";
            Err(section.refuse(key, why, hint))
        }
        _ => Ok(Some(Hook::Command(words))),
    }
}

fn url_of(text: &str) -> Result<HookUrl, String> {
    let host = text.find("://").map_or(0, |at| at + "://".len());
    let path = text[host..].find(['/', '?', '#']).map_or(text.len(), |at| host + at);
    let (server, target) = text.split_at(path);
    let server: Upstream = server.parse()?;
    let visible = |c: char| c.is_ascii_graphic() && c != '#';
    if server.is_redis() || !target.starts_with('/') || !target.chars().all(visible) {
        return Err(format!("{text:?} is no place at a server of HTTP"));
    }
    Ok(HookUrl { server: server.0, target: target.to_owned() })
}

/// Some GiB at a disk's speed; writes wait for an export.
const REBUILD_WITHIN: Duration = Duration::from_secs(600);

/// What fits most disks beside a server's own content.
const REBUILD_BYTES: u64 = 16 << 30;

/// More than any disk has: a number that is no mistake.
const REBUILD_BYTES_MAX: u64 = 1 << 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_at_a_server_is_a_url_with_a_path() {
        let url = url_of("http://127.0.0.1:9001/dump?all=1").unwrap();
        assert_eq!((&*url.server, &*url.target), ("http://127.0.0.1:9001", "/dump?all=1"));
        assert_eq!(url.to_string(), "http://127.0.0.1:9001/dump");
        for bad in [
            "http://127.0.0.1:9001",
            "http://127.0.0.1:9001?x",
            "http:///dump",
            "http://a:0/dump",
            "http://u@a/dump",
            "http://a/du mp",
            "http://a/dump#x",
            "http://a/d\r\nX: y",
            "https://a/dump",
            "redis://a:1/",
        ] {
            assert!(url_of(bad).is_err(), "{bad}");
        }
    }
}
