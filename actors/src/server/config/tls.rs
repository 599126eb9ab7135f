//! `[tls]`: certificates, who is revoked, and what clients must show.

use std::{collections::BTreeSet, fmt, sync::Arc};

use synod_runtime::{identity::NodeName, world::network::TlsFiles};

use super::{ConfigError, Section};

/// The section `[tls]`.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The texts of the certificate files.
    pub files: TlsFiles,
    /// Names that are refused, whatever certificate they show.
    pub revoked: BTreeSet<NodeName>,
    /// What clients must show.
    pub clients: ClientAccess,
}

/// What clients of HTTP and RESP must show. Anything but [`ClientAccess::Open`] means TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAccess {
    /// Nothing; only on loopback.
    Open,
    /// One of these tokens.
    Token(Tokens),
    /// A certificate of the cluster's authority.
    Certificate,
}

/// Who may come with which token. Cloning is cheap; never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(Arc<[(String, String)]>);

impl Tokens {
    /// Reads lines of `NAME TOKEN`; empty ones and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// What is wrong, and after a semicolon what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let words: Vec<_> = line.split_whitespace().collect();
            let (name, token) = match words[..] {
                [] => continue,
                [first, ..] if first.starts_with('#') => continue,
                [name, token] => (name, token),
                _ => return Err(format!("line {number} is no NAME TOKEN; write two words")),
            };
            if token.len() < TOKEN_BYTES_MIN {
                let why = format!("the token of {name} is shorter than {TOKEN_BYTES_MIN} bytes");
                return Err(format!("{why}; make one with `openssl rand -hex 32`"));
            }
            if all.iter().any(|(other, _)| other == name) {
                return Err(format!("{name} is there twice; use one line for each name"));
            }
            all.push((name.to_owned(), token.to_owned()));
        }
        if all.is_empty() {
            return Err("there is no token; write a line NAME TOKEN".to_owned());
        }
        Ok(Self(all.into()))
    }

    /// Whose token this is; with `user`, only if it is theirs. Takes the same time whatever the
    /// token's bytes are.
    pub fn owner(&self, user: Option<&[u8]>, token: &[u8]) -> Option<&str> {
        let mut found = None;
        for (name, known) in self.0.iter() {
            let meant = user.is_none_or(|user| user == name.as_bytes());
            if same(known.as_bytes(), token) && meant {
                found = Some(name.as_str());
            }
        }
        found
    }
}

/// Every byte is looked at, so that time tells nothing about where they differ.
fn same(known: &[u8], shown: &[u8]) -> bool {
    let differing = known.iter().zip(shown).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differing) == 0 && known.len() == shown.len()
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

pub(super) fn read(section: &Section<'_>) -> Result<TlsConfig, ConfigError> {
    let read = |key| {
        let path = section.path(key)?;
        std::fs::read(&path).map_err(|e| {
            let why = format!("{} cannot be read: {e}", path.display());
            section.refuse(key, why, "name the files that `init` wrote")
        })
    };
    let files = TlsFiles { ca: read("ca")?, cert: read("cert")?, key: read("key")? };
    let mut revoked = BTreeSet::new();
    for name in section.texts("revoked")? {
        let name =
            name.parse().map_err(|e| section.refuse("revoked", format!("{e}"), "correct it"))?;
        revoked.insert(name);
    }
    let way = |text: &str| match text {
        "token" | "certificate" => Ok(text == "token"),
        other => Err(format!("{other:?} is no credential; use {WANT}")),
    };
    let clients = match section.parse("clients", WANT, way)? {
        None => ClientAccess::Open,
        Some(false) => ClientAccess::Certificate,
        Some(true) => {
            let text = read("tokens")?;
            let tokens = Tokens::parse(&String::from_utf8_lossy(&text)).map_err(|said| {
                let (why, hint) = said.split_once("; ").unwrap_or((&said, "correct it"));
                section.refuse("tokens", why, hint)
            })?;
            ClientAccess::Token(tokens)
        }
    };
    Ok(TlsConfig { files, revoked, clients })
}

const WANT: &str = "\"token\" or \"certificate\"";

/// Shorter ones could be guessed.
const TOKEN_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "0123456789abcdef";

    #[test]
    fn a_token_lets_its_owner_in_and_nobody_else() {
        let text = format!("# who\n\nann {LONG}\nbob {LONG}x\n");
        let tokens = Tokens::parse(&text).unwrap();
        assert_eq!(tokens.owner(None, LONG.as_bytes()), Some("ann"));
        assert_eq!(tokens.owner(Some(b"ann"), LONG.as_bytes()), Some("ann"));
        assert_eq!(tokens.owner(Some(b"bob"), LONG.as_bytes()), None);
        assert_eq!(tokens.owner(Some(b"bob"), b"0123456789abcdefx"), Some("bob"));
        for wrong in ["", "0123456789abcde", "0123456789abcdeg", "0123456789abcdefxx"] {
            assert_eq!(tokens.owner(None, wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(format!("{tokens:?}"), r#"["ann", "bob"]"#);
    }

    #[test]
    fn a_file_of_tokens_that_lets_anybody_in_by_mistake_is_refused() {
        for (text, why) in [
            (String::new(), "there is no token"),
            ("# only words".to_owned(), "there is no token"),
            ("ann short".to_owned(), "shorter than 16 bytes"),
            (format!("ann {LONG} more"), "line 1 is no NAME TOKEN"),
            (format!("ann {LONG}\nann {LONG}"), "ann is there twice"),
        ] {
            let said = Tokens::parse(&text).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
