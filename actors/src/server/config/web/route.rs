//! `[[web.routes]]`: how requests of some paths are treated.

use std::{collections::BTreeSet, str::FromStr};

use awc::http::header::HeaderName;

use super::super::{ConfigError, Section};

/// How requests of some paths are treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebRoute {
    /// The paths that begin with it, as whole segments; the longest one counts.
    pub path: String,
    /// Only these methods; none named are all.
    pub methods: Vec<String>,
    /// How much a safe request must see.
    pub read: Option<ReadPolicy>,
    /// What a request that may have been performed before a crash becomes.
    pub redo: Option<RedoPolicy>,
    /// Which of its requests may be performed in any order, and so side by side.
    pub commutes: Option<Commutes>,
    /// Headers of responses, in lower case, that may differ between sites.
    pub ignore: Vec<String>,
    /// Headers of responses, in lower case, that clients are not given (R5.29).
    pub remove: Vec<String>,
    /// Whether requests for another protocol (WebSocket; CONNECT on `/`) go to the site's own server,
    /// by the order. Others are treated as ever.
    pub pass: bool,
}

/// How much a safe request must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPolicy {
    /// Whatever its site has.
    Local,
    /// What its client has seen before.
    Session,
    /// All that was answered to anybody before.
    Linearizable,
    /// It is ordered like an unsafe one.
    Ordered,
}

impl ReadPolicy {
    /// As a node file has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Session => "session",
            Self::Linearizable => "linearizable",
            Self::Ordered => "ordered",
        }
    }
}

/// What becomes of a request that was sent to a server and may have been performed, when its site
/// crashed before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedoPolicy {
    /// It is sent again, marked.
    Resend,
    /// It is not: the server's state is unknown, and is rebuilt.
    Rebuild,
}

/// Of which requests of a route neither what they do nor what is answered to them depends on their
/// order, whatever their methods (R5.45). Nobody but an operator knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commutes {
    /// Of those with different paths, neither within the other.
    Path,
    /// Of those whose queries give different values to this name.
    Query(String),
    /// Of those that give different values to this header, in lower case.
    Header(String),
}

impl FromStr for Commutes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(' ') {
            None if text == "path" => Ok(Self::Path),
            Some(("query", name)) if is_token(name) => Ok(Self::Query(name.to_owned())),
            Some(("header", name)) if is_token(name) => Ok(Self::Header(name.to_ascii_lowercase())),
            Some(_) | None => Err(format!("{text:?} is no key; use {COMMUTES}")),
        }
    }
}

/// Whether it can name a header, or a part of a query that needs no escapes.
fn is_token(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    !name.is_empty() && name.bytes().all(known)
}

impl WebRoute {
    /// The route of `path` that changes nothing.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            methods: Vec::new(),
            read: None,
            redo: None,
            commutes: None,
            ignore: Vec::new(),
            remove: Vec::new(),
            pass: false,
        }
    }

    pub(super) fn covers(&self, method: &str, path: &str) -> bool {
        let begin = self.path.trim_end_matches('/');
        let below = path
            .strip_prefix(begin)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest.starts_with('?'));
        below && (self.methods.is_empty() || self.methods.iter().any(|one| one == method))
    }
}

/// Reads one.
pub(super) fn read(section: &Section<'_>) -> Result<WebRoute, ConfigError> {
    let path: String = section.need("path", "the beginning of paths, such as \"/api\"")?;
    if !path.starts_with('/') || path.contains(['?', '#', ' ']) {
        let why = format!("{path:?} is no path");
        return Err(section.refuse("path", why, "write it like /api, without a query"));
    }
    let read = section.parse("read", "\"local\", \"session\", \"linearizable\" or \"ordered\"", |text| {
        match text {
            "local" => Ok(ReadPolicy::Local),
            "session" => Ok(ReadPolicy::Session),
            "linearizable" => Ok(ReadPolicy::Linearizable),
            "ordered" => Ok(ReadPolicy::Ordered),
            other => Err(format!(
                "{other:?} is no policy; use \"local\", \"session\", \"linearizable\" or \"ordered\""
            )),
        }
    })?;
    let redo = section.parse("redo", "\"resend\" or \"rebuild\"", |text| match text {
        "resend" => Ok(RedoPolicy::Resend),
        "rebuild" => Ok(RedoPolicy::Rebuild),
        other => Err(format!("{other:?} is no policy; use \"resend\" or \"rebuild\"")),
    })?;
    let commutes = section.parse("commutes", COMMUTES, str::parse::<Commutes>)?;
    let methods: BTreeSet<String> = section.texts("methods")?.into_iter().collect();
    if let Some(bad) = methods.iter().find(|one| !is_method(one)) {
        let why = format!("{bad:?} is no method");
        return Err(section.refuse("methods", why, "write them in capitals, like \"PUT\""));
    }
    Ok(WebRoute {
        path,
        methods: methods.into_iter().collect(),
        read,
        redo,
        commutes,
        ignore: headers(section, "ignore")?,
        remove: headers(section, "remove")?,
        pass: section.flag("pass")?,
    })
}

/// Names of headers of responses.
fn headers(section: &Section<'_>, key: &'static str) -> Result<Vec<String>, ConfigError> {
    let names = section.texts(key)?;
    let valid = |name: &str| HeaderName::from_bytes(name.as_bytes()).is_ok();
    if let Some(bad) = names.iter().find(|name| !valid(name)) {
        let why = format!("{bad:?} is no name of a header");
        return Err(section.refuse(key, why, "write it like \"ETag\""));
    }
    Ok(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
}

fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

const COMMUTES: &str = "\"path\", \"query NAME\" or \"header NAME\"";

/// Its keys.
pub(in super::super) const ROUTE_KEYS: &[&str] =
    &["path", "methods", "read", "redo", "commutes", "pass", "ignore", "remove"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_commute_by_path_or_by_a_value_that_is_named() {
        let read = |text: &str| text.parse::<Commutes>();
        assert_eq!(read("path"), Ok(Commutes::Path));
        assert_eq!(read("query account"), Ok(Commutes::Query("account".to_owned())));
        assert_eq!(read("header X-Account"), Ok(Commutes::Header("x-account".to_owned())));
        for bad in ["", "all", "path x", "query", "query ", "query a b", "header x:y", "query a%62"]
        {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
