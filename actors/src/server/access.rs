//! Who may use a node's HTTP and RESP listeners.
//!
//! With `[tls] clients` both speak TLS with the node's certificate and demand a credential: a token
//! of the file `[tls] tokens` (HTTP `Authorization: Bearer`, RESP `AUTH`), or a certificate of the
//! cluster's authority, which the TLS handshake checks. Without it they are open, and bind only to
//! loopback. A page from elsewhere in somebody's browser asks for nothing it may not: browsers name the
//! page with every request that could change something, and such pages are refused.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use actix_web::{
    Error, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN, WWW_AUTHENTICATE},
    middleware::Next,
};
use serde_json::json;
use synod_runtime::{identity::ClusterName, quic::ListenerTls, world::network::BindError};
use tokio_rustls::TlsAcceptor;

use super::config::{ClientAccess, TlsConfig, Tokens};

/// The door of a node's listeners. Cloning is cheap; what it demands can change while they run.
#[derive(Debug, Clone, Default)]
pub struct Access {
    tls: Option<ListenerTls>,
    /// Those that are good now; without any, tokens are not asked for.
    tokens: Option<Arc<RwLock<Tokens>>>,
}

impl Access {
    /// Everybody may come, without TLS.
    pub fn open() -> Self {
        Self::default()
    }

    /// As `[tls]` says.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub fn new(cluster: &ClusterName, config: &TlsConfig) -> Result<Self, BindError> {
        let demand = config.clients == ClientAccess::Certificate;
        let tokens = match &config.clients {
            ClientAccess::Open => return Ok(Self::open()),
            ClientAccess::Certificate => None,
            ClientAccess::Token(tokens) => Some(Arc::new(RwLock::new(tokens.clone()))),
        };
        let tls = ListenerTls::new(&config.files, cluster, demand)?;
        tls.revoke(config.revoked.clone());
        Ok(Self { tls: Some(tls), tokens })
    }

    /// What a listener must put before its protocol, if anything.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config()))
    }

    pub(super) fn tls(&self) -> Option<&ListenerTls> {
        self.tls.as_ref()
    }

    /// Whether a client must show a token before anything else. One that showed a certificate
    /// need not.
    pub fn needs_token(&self) -> bool {
        self.tokens.is_some()
    }

    /// Whether this token is good (and that user's, when one is named).
    pub fn admits(&self, user: Option<&[u8]>, token: &[u8]) -> bool {
        self.tokens.as_ref().is_none_or(|tokens| {
            let tokens = tokens.read().unwrap_or_else(PoisonError::into_inner);
            tokens.owner(user, token).is_some()
        })
    }

    /// Takes over what changed in `[tls]`; answers whether all of it could be.
    ///
    /// # Errors
    /// Certificates that cannot be used; nothing was changed.
    pub(super) fn take(&self, config: &TlsConfig) -> Result<bool, BindError> {
        if let Some(tls) = &self.tls {
            tls.renew(&config.files)?;
            tls.revoke(config.revoked.clone());
        }
        let same = match (&self.tls, &self.tokens, &config.clients) {
            (None, _, ClientAccess::Open) | (Some(_), None, ClientAccess::Certificate) => true,
            (_, Some(tokens), ClientAccess::Token(new)) => {
                *tokens.write().unwrap_or_else(PoisonError::into_inner) = new.clone();
                true
            }
            _ => false,
        };
        Ok(same)
    }
}

/// Lets a request through that shows a good token, or that asks whether the process lives.
pub(super) async fn guard(
    access: Access,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let shown = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    let token = shown.and_then(|shown| match shown.split_at_checked(BEARER.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(BEARER) => Some(token.trim_ascii()),
        Some(_) | None => None,
    });
    // A browser adds no token by itself, so whoever shows one means it.
    if !access.needs_token() && is_foreign(request.headers(), access.tls.is_none()) {
        let error =
            "a page from elsewhere may not ask this node; use a program, or the node's own page";
        let body = json!({ "error": error, "outcome": "not_applied" });
        return Ok(request.into_response(HttpResponse::Forbidden().json(body)));
    }
    let free = !access.needs_token() || request.path() == "/healthz";
    if free || token.is_some_and(|token| access.admits(None, token)) {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    let error = match token {
        None => "a token is needed: Authorization: Bearer TOKEN",
        Some(_) => "the token is not known here",
    };
    let answer = HttpResponse::Unauthorized()
        .insert_header((WWW_AUTHENTICATE, "Bearer"))
        .json(json!({ "error": error, "outcome": "not_applied" }));
    Ok(request.into_response(answer))
}

/// Whether a browser asks on behalf of a page that is not this node's. Where everybody may come, only
/// pages of this machine are: a name that leads here today may be a stranger's.
fn is_foreign(headers: &HeaderMap, open: bool) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    page.is_none_or(|(_, page)| match open {
        true => !is_this_machine(page),
        false => headers.get(HOST).is_none_or(|host| *host != *page),
    })
}

/// Of `HOST` or `HOST:PORT`.
fn is_this_machine(authority: &str) -> bool {
    let end = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
    let host = &authority[..end.unwrap_or(authority.len())];
    let address: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests;
