//! What becomes of a request: refused, ordered, or read.

use std::{cell::Cell, rc::Rc, time::Duration};

use actix_http::{
    Method, Payload, Request, RequestHead, Response, StatusCode, Version,
    body::{BodySize, BoxBody, MessageBody as _},
    header::{AUTHORIZATION, HeaderValue, PROXY_AUTHORIZATION, WWW_AUTHENTICATE},
};
use bytes::Bytes;
use synod::{
    replicated::IdempotencyKey,
    runtime::telemetry::{Counter, Metrics},
    server::{
        Access,
        config::{ReadPolicy, WebConfig},
    },
};
use tokio::time::timeout;

use super::{
    answer::{self, Refusal, tell},
    canonical, drain, forwards,
    intake::{Budget, Share},
    ready::READY,
    session,
    tunnel::{self, Other, Tunnels},
};
use crate::{
    Fresh, Identity, Order, Request as Ordered,
    log::{Line, Log, TARGET},
    metrics::REQUESTS,
    path::all_unescaped,
    upstream::{Turned, Upstream, policy},
};

/// The clients' side of a site.
pub(super) struct Edge {
    pub(super) order: Rc<dyn Order>,
    pub(super) upstream: Upstream,
    pub(super) web: WebConfig,
    pub(super) access: Access,
    pub(super) counters: Counters,
    pub(super) log: Log,
    pub(super) budget: Budget,
    pub(super) tunnels: Tunnels,
    pub(super) open: Cell<usize>,
}

/// Counts requests by method: clients could make up any number of others than those of
/// [`VERBS`].
pub(super) struct Counters([Counter; VERBS.len()]);

/// What is to be done for a request.
struct Asked {
    request: Ordered,
    /// Its body's share of what a site holds.
    _share: Share,
    policy: ReadPolicy,
    key: Option<String>,
    /// What the client must see at least.
    session: u64,
}

/// How a request was treated, as the log tells it.
#[derive(Default)]
struct Treated {
    /// None: it was refused before.
    how: Option<&'static str>,
    seq: Option<u64>,
    replayed: bool,
}

impl Edge {
    /// Answers a request, whatever it is.
    pub(super) async fn serve(&self, mut request: Request) -> Response<BoxBody> {
        self.open.set(self.open.get() + 1);
        let _open = Open(&self.open);
        self.counters.count(request.method());
        let (line, mut treated) = (self.log.begin(request.head().peer_addr), Treated::default());
        let mut payload = request.take_payload();
        let answered = self.answer(&mut request, &mut payload, &mut treated).await;
        let mut response = answered.unwrap_or_else(Refusal::response);
        // In HTTP/2 a request ends by itself, and no other waits behind it.
        if request.version() < Version::HTTP_2 {
            response = drain::behind(response, payload);
        }
        write(line, request.head(), &treated, &response);
        response
    }

    /// Refuses a body that says to be too large.
    pub(super) fn check(&self, head: &RequestHead) -> Result<(), Response<BoxBody>> {
        let line = self.log.begin(head.peer_addr);
        self.budget.check(head).map_err(|refused| {
            let response = refused.response();
            write(line, head, &Treated::default(), &response);
            response
        })
    }

    /// Whether a request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.open.get() > 0
    }

    async fn answer(
        &self,
        request: &mut Request,
        payload: &mut Payload,
        treated: &mut Treated,
    ) -> Result<Response<BoxBody>, Refusal> {
        if let Err(refused) = self.admit(request) {
            let mut response = refused.response();
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
            return Ok(response);
        }
        if let Some(key) = request.path().strip_prefix(OUTCOME) {
            return self.outcome(request.method(), key).await;
        }
        if request.path() == READY {
            return self.ready(request.method()).await;
        }
        if let Some(ended) = forwards::step(request.head_mut())? {
            return Ok(ended);
        }
        if let Some(other) = tunnel::wanted(request.head(), &self.web)? {
            treated.how = Some("pass");
            return self
                .pass(other, request.head(), std::mem::replace(payload, Payload::None))
                .await;
        }
        let asked = self.asked(request, payload).await?;
        let policy = match policy::is_safe(&asked.request) {
            true => asked.policy,
            false => ReadPolicy::Ordered,
        };
        treated.how = Some(policy.name());
        match policy {
            ReadPolicy::Ordered => self.ordered(asked, treated).await,
            _ => self.read(asked).await,
        }
    }

    /// Lets those in who show a good token, where one is asked for. It is for this site, not for
    /// the server behind.
    fn admit(&self, request: &mut Request) -> Result<(), Refusal> {
        if !self.access.needs_token() {
            return Ok(());
        }
        let headers = &mut request.head_mut().headers;
        for name in [PROXY_AUTHORIZATION, AUTHORIZATION] {
            let shown = headers.get(&name).map(|value| value.as_bytes().to_vec());
            let token = shown.as_deref().and_then(|shown| match shown.split_at_checked(7) {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => Some(token),
                Some(_) | None => None,
            });
            if token.is_some_and(|token| self.access.admits(None, token.trim_ascii())) {
                headers.remove(name);
                return Ok(());
            }
        }
        let text = "a token of this cluster is needed: Proxy-Authorization (or Authorization): Bearer TOKEN";
        Err(Refusal::new(StatusCode::UNAUTHORIZED, text))
    }

    async fn outcome(&self, method: &Method, key: &str) -> Result<Response<BoxBody>, Refusal> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "an outcome is asked by GET"));
        }
        let key = String::from_utf8(all_unescaped(key));
        let key = key.map_err(|_| Refusal::bad("an Idempotency-Key is text"))?;
        check_key(&key)?;
        let past = self.order.outcome(&key).await.map_err(|why| Refusal::of_read(&why))?;
        Ok(answer::outcome(past))
    }

    /// Reads all of a request.
    async fn asked(&self, request: &Request, payload: &mut Payload) -> Result<Asked, Refusal> {
        self.budget.check(request.head())?;
        let session = session::shown(&request.head().headers).map_err(Refusal::bad)?;
        let key = key(request.head())?;
        let (body, apart, share) = self.budget.read(payload).await?;
        // Nothing is left of it.
        *payload = Payload::None;
        let secure = self.access.acceptor().is_some();
        let ordered = canonical::request(request.head(), secure, body)?;
        let ordered = Ordered { apart, ..ordered };
        let route = policy::route(&self.web, &ordered);
        let policy = route.and_then(|route| route.read).unwrap_or(ReadPolicy::Linearizable);
        Ok(Asked { request: ordered, _share: share, policy, key, session })
    }

    /// Lets a client speak another protocol with this site's own server.
    async fn pass(
        &self,
        other: Other,
        head: &RequestHead,
        client: Payload,
    ) -> Result<Response<BoxBody>, Refusal> {
        let tunnel = self.tunnels.open()?;
        let request = canonical::request(head, self.access.acceptor().is_some(), Bytes::new())?;
        self.order.fresh(Fresh::Local).await.map_err(|why| Refusal::of_read(&why))?;
        let turned = self.upstream.switch(&request, &other.headers()).await;
        Ok(match turned.map_err(|fault| Refusal::from(&fault))? {
            Turned::Switched(mut server) => {
                policy::strip(&self.web, &request, &mut server.headers);
                tunnel.join(other, server, client, Rc::clone(&self.order))
            }
            Turned::Answered(mut reading) => {
                policy::strip(&self.web, &request, &mut reading.headers);
                answer::passing(reading, false)
            }
        })
    }

    /// Has a request ordered; the answer is the one of this site's server.
    async fn ordered(
        &self,
        asked: Asked,
        treated: &mut Treated,
    ) -> Result<Response<BoxBody>, Refusal> {
        let is_head = asked.request.method == "HEAD";
        let identity = asked.key.map_or(Identity::Made, Identity::Key);
        let performed = timeout(VERDICT_TIME_MAX, self.order.perform(asked.request, identity));
        let late = |_| Refusal::unknown("outcome unknown: it takes too long");
        let answer = performed.await.map_err(late)?.map_err(|why| Refusal::of_order(&why))?;
        (treated.seq, treated.replayed) = (Some(answer.seq), answer.replayed);
        let mut response = answer::whole(answer.response, is_head);
        let headers = response.headers_mut();
        let seq = answer.seq.to_string();
        tell(headers, SEQ, &seq);
        tell(headers, session::SESSION, &seq);
        if self.web.routes.iter().any(|route| route.read == Some(ReadPolicy::Session)) {
            tell(headers, "set-cookie", &session::cookie(answer.seq));
        }
        if answer.replayed {
            tell(headers, REPLAYED, "true");
        }
        tell(headers, "via", VIA);
        Ok(response)
    }

    /// Reads from this site's server, once it has seen enough.
    async fn read(&self, asked: Asked) -> Result<Response<BoxBody>, Refusal> {
        let fresh = match asked.policy {
            ReadPolicy::Local => Fresh::Local,
            ReadPolicy::Session => Fresh::Since(asked.session),
            ReadPolicy::Linearizable | ReadPolicy::Ordered => Fresh::Linearizable,
        };
        let seen = timeout(VERDICT_TIME_MAX, self.order.fresh(fresh)).await;
        let late = |_| {
            let text = "this site is too far behind to answer";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text)
        };
        let seen = seen.map_err(late)?.map_err(|why| Refusal::of_read(&why))?;
        let missing = if fresh == Fresh::Local { self.order.behind() } else { 0 };
        let is_head = asked.request.method == "HEAD";
        let reading = self.upstream.read(&asked.request).await;
        let mut reading = reading.map_err(|fault| Refusal::from(&fault))?;
        policy::strip(&self.web, &asked.request, &mut reading.headers);
        let mut response = answer::passing(reading, is_head);
        let headers = response.headers_mut();
        // What was read may be newer, never older.
        tell(headers, session::SESSION, &seen.max(asked.session).to_string());
        if missing > 0 {
            tell(headers, STALE, &missing.to_string());
        }
        tell(headers, "via", VIA);
        Ok(response)
    }
}

/// Writes the line of a request whose answer begins.
fn write(line: Option<Line>, head: &RequestHead, treated: &Treated, response: &Response<BoxBody>) {
    let Some(line) = line else { return };
    let bytes = match response.body().size() {
        _ if head.method == Method::HEAD => Some(0),
        BodySize::None => Some(0),
        BodySize::Sized(bytes) => Some(bytes),
        BodySize::Stream => None,
    };
    // Behind it stands a key.
    let path = head.uri.path();
    let path = if path.starts_with(OUTCOME) { OUTCOME } else { path };
    tracing::debug!(
        target: TARGET,
        client = line.client.map(display),
        method = %head.method,
        path,
        status = response.status().as_u16(),
        bytes,
        ms = line.ms(),
        treated = treated.how,
        seq = treated.seq,
        replayed = treated.replayed.then_some(true),
        "answered",
    );
}

/// Counts a request as under way until dropped.
struct Open<'a>(&'a Cell<usize>);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The client's `Idempotency-Key`.
fn key(head: &RequestHead) -> Result<Option<String>, Refusal> {
    let mut keys = head.headers.get_all(KEY);
    let Some(value) = keys.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| Refusal::bad("Idempotency-Key: not text"))?;
    if keys.next().is_some() {
        return Err(Refusal::bad("Idempotency-Key: there are two"));
    }
    check_key(text)?;
    Ok(Some(text.to_owned()))
}

fn check_key(key: &str) -> Result<(), Refusal> {
    let bad = |why: &dyn std::fmt::Display| Refusal::bad(format!("Idempotency-Key: {why}"));
    IdempotencyKey::new(key).map(drop).map_err(|why| bad(&why))
}

impl Counters {
    pub(super) fn new(metrics: &Metrics, site: &str) -> Self {
        Self(VERBS.map(|verb| metrics.counter(&REQUESTS, &[("site", site), ("verb", verb)])))
    }

    fn count(&self, method: &Method) {
        let at = VERBS.iter().position(|verb| *verb == method.as_str());
        self.0[at.unwrap_or(VERBS.len() - 1)].increment();
    }
}

/// What metrics show methods as; the last one is for all others.
const VERBS: [&str; 18] = [
    "GET",
    "HEAD",
    "PUT",
    "POST",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "other",
];

/// Names an intention; repeated, it is answered as before.
const KEY: &str = "idempotency-key";

/// An ordered request's place.
const SEQ: &str = "synod-seq";

/// How many ordered requests a local read may miss.
const STALE: &str = "synod-stale";

/// As others who replay answers call it.
const REPLAYED: &str = "idempotent-replayed";

const VIA: &str = "1.1 synod";

/// Where an outcome is asked for.
const OUTCOME: &str = "/.well-known/synod/outcome/";

/// Longer than any verdict of the order takes; it only ends what nobody waits for any more.
const VERDICT_TIME_MAX: Duration = Duration::from_secs(120);
