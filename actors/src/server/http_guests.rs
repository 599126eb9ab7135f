//! `POST /sessions` and `POST /calls`: the way in of [`Client`](crate::Client), a program outside the
//! cluster that wants each of its commands executed once.
//!
//! Bodies and answers are MessagePack. A call names actor and message by number and carries its
//! arguments as they go into the log, so nothing is converted on the way.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::StatusCode, web};
use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::sync::oneshot;

use super::service::Service;
use crate::replicated::{
    ARGS_BYTES_MAX, Consistency, Done, FENCED, Fenced, GuestCall, IdempotencyKey, Inquiry, Outcome,
    Position, Reason, Refusal, Submission, Submit, name_hash,
};

/// Opens a session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    /// Chosen by the client: the same again answers the same session.
    pub(crate) nonce: u64,
    /// How long it waits.
    pub(crate) patience_ms: u64,
}

/// Calls of one session, in their order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Calls {
    /// The session; not looked at for queries.
    pub(crate) session: u64,
    /// The lowest number of a command the client waits for.
    pub(crate) open: u64,
    pub(crate) calls: Vec<WireCall>,
}

/// One command or query.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireCall {
    pub(crate) kind: Kind,
    /// Hash of the actor's name.
    pub(crate) actor: u64,
    /// Hash of the message's name.
    pub(crate) function: u64,
    pub(crate) args: Bytes,
    /// How long the client waits.
    pub(crate) patience_ms: u64,
}

/// How a call is to be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A command with its number in the session.
    Command(u64),
    /// A command with an idempotency key of its own.
    Keyed(String),
    /// A query.
    Query {
        /// Whether to answer from what the node has.
        local: bool,
        /// Else, how old that may be.
        #[serde(default)]
        bounded_ms: Option<u64>,
    },
}

/// How one call ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WireEnd {
    Applied(u64, Bytes),
    NotApplied(WireReason, String),
    Unknown(String),
    Failed(String),
    SessionExpired(String),
}

/// [`Reason`] on the wire.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum WireReason {
    Unavailable,
    Full,
    TooLarge,
    NoSuchActor,
    KeyReused,
    Fenced,
}

/// What the handlers need. Cloning is cheap.
#[derive(Clone)]
pub(super) struct GuestsHttp {
    submit: Arc<dyn Submit>,
    /// Actor, function, and whether it only reads: what this build can execute. Anything else must
    /// not get into the log, where it would halt the replicas.
    known: Arc<BTreeSet<(u64, u64, bool)>>,
}

impl GuestsHttp {
    pub(super) fn new(submit: Arc<dyn Submit>, services: &[Box<dyn Service>]) -> Self {
        let mut known = BTreeSet::new();
        for machine in services.iter().map(|service| service.machine()) {
            let actor = name_hash(machine.name());
            known.extend(machine.functions().iter().map(|f| (actor, f.id, f.query)));
        }
        Self { submit, known: Arc::new(known) }
    }

    /// Starts a call; its outcome comes through the receiver.
    fn start(&self, calls: &mut Started, call: WireCall, session: u64, open: u64) {
        let (answer, outcome) = oneshot::channel();
        calls.outcomes.push(outcome);
        // A client that hung up wants no answer.
        let done: Done = Box::new(move |outcome| drop(answer.send(outcome)));
        let WireCall { kind, actor, function, args, patience_ms } = call;
        let query = matches!(kind, Kind::Query { .. });
        let fenced = (actor == 0 && function == FENCED).then(|| Fenced::read(&args)).flatten();
        let wanted = fenced.map_or((actor, function, query), |it| (it.actor, it.function, query));
        if !self.known.contains(&wanted) {
            let text = "no such actor or message here; the client's program is another one";
            return done(Outcome::NotApplied(Refusal::new(Reason::NoSuchActor, text)));
        }
        let deadline = patience(patience_ms);
        let idempotency = match kind {
            Kind::Query { local, bounded_ms } => {
                let consistency = match bounded_ms.map(Duration::from_millis) {
                    _ if local => Consistency::Local,
                    Some(age) => Consistency::Bounded(age),
                    None => Consistency::Linearizable,
                };
                let inquiry = Inquiry { actor, function, args, consistency, deadline, done };
                return calls.queries.push(inquiry);
            }
            Kind::Command(seq) => Ok(IdempotencyKey::of_guest(GuestCall { session, seq, open })),
            Kind::Keyed(key) => IdempotencyKey::new(&key),
        };
        match idempotency {
            Ok(key) => {
                let idempotency = Some(key);
                calls.commands.push(Submission {
                    actor,
                    function,
                    args,
                    deadline,
                    idempotency,
                    done,
                });
            }
            Err(bad) => done(Outcome::NotApplied(Refusal::new(Reason::TooLarge, bad.to_string()))),
        }
    }
}

#[derive(Default)]
struct Started {
    commands: Vec<Submission>,
    queries: Vec<Inquiry>,
    outcomes: Vec<oneshot::Receiver<Outcome>>,
}

/// Adds the routes to an application.
pub(super) fn configure(cfg: &mut web::ServiceConfig, state: GuestsHttp) {
    let state = web::Data::new(state);
    let route = |path: &str| web::resource(path.to_owned()).app_data(state.clone());
    cfg.service(route("/sessions").route(web::post().to(open)));
    cfg.service(route("/calls").route(web::post().to(calls)));
}

async fn open(state: web::Data<GuestsHttp>, payload: web::Payload) -> HttpResponse {
    let Open { nonce, patience_ms } = match body_of(payload).await {
        Ok(open) => open,
        Err(response) => return response,
    };
    let (answer, outcome) = oneshot::channel();
    let done: Done = Box::new(move |outcome| drop(answer.send(outcome)));
    state.submit.submit(vec![Submission {
        actor: 0,
        function: 0,
        args: Bytes::new(),
        deadline: patience(patience_ms),
        idempotency: Some(IdempotencyKey::opening(nonce)),
        done,
    }]);
    answer_of(&WireEnd::from(outcome.await.unwrap_or_else(stopped)))
}

async fn calls(state: web::Data<GuestsHttp>, payload: web::Payload) -> HttpResponse {
    let Calls { session, open, calls } = match body_of(payload).await {
        Ok(calls) => calls,
        Err(response) => return response,
    };
    let mut started = Started::default();
    for call in calls {
        state.start(&mut started, call, session, open);
    }
    let Started { commands, queries, outcomes } = started;
    if !commands.is_empty() {
        state.submit.submit(commands);
    }
    if !queries.is_empty() {
        state.submit.query(queries);
    }
    let outcomes = join_all(outcomes).await.into_iter();
    let ends = outcomes.map(|outcome| WireEnd::from(outcome.unwrap_or_else(stopped)));
    answer_of(&ends.collect::<Vec<_>>())
}

pub(super) fn stopped(_: oneshot::error::RecvError) -> Outcome {
    Outcome::Unknown("the node stopped".into())
}

fn patience(ms: u64) -> Duration {
    Duration::from_millis(ms).min(PATIENCE_MAX)
}

fn answer_of<T: Serialize>(answer: &T) -> HttpResponse {
    let body = rmp_serde::to_vec(answer).expect("plain data encodes");
    HttpResponse::Ok().content_type(MESSAGE_PACK).body(body)
}

async fn body_of<T: DeserializeOwned>(payload: web::Payload) -> Result<T, HttpResponse> {
    let refuse = |status, why: String| {
        HttpResponse::build(status).json(json!({ "error": why, "outcome": "not_applied" }))
    };
    let body = match payload.to_bytes_limited(BODY_BYTES_MAX).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return Err(refuse(StatusCode::BAD_REQUEST, error.to_string())),
        Err(_) => {
            let why = format!("the body is larger than {BODY_BYTES_MAX} bytes");
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
    };
    rmp_serde::from_slice(&body).map_err(|error| {
        refuse(StatusCode::BAD_REQUEST, format!("this is for synod::Client: {error}"))
    })
}

impl From<Outcome> for WireEnd {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Applied { reply, position } => Self::Applied(position.0, reply),
            Outcome::NotApplied(Refusal { reason, text }) => Self::NotApplied(reason.into(), text),
            Outcome::Unknown(text) => Self::Unknown(text),
            Outcome::Failed(text) => Self::Failed(text),
            Outcome::SessionExpired(text) => Self::SessionExpired(text),
        }
    }
}

impl From<WireEnd> for Outcome {
    fn from(end: WireEnd) -> Self {
        match end {
            WireEnd::Applied(position, reply) => {
                Self::Applied { reply, position: Position(position) }
            }
            WireEnd::NotApplied(reason, text) => {
                Self::NotApplied(Refusal::new(reason.into(), text))
            }
            WireEnd::Unknown(text) => Self::Unknown(text),
            WireEnd::Failed(text) => Self::Failed(text),
            WireEnd::SessionExpired(text) => Self::SessionExpired(text),
        }
    }
}

impl From<Reason> for WireReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unavailable => Self::Unavailable,
            Reason::Full => Self::Full,
            Reason::TooLarge => Self::TooLarge,
            Reason::NoSuchActor => Self::NoSuchActor,
            Reason::KeyReused => Self::KeyReused,
            Reason::Fenced => Self::Fenced,
        }
    }
}

impl From<WireReason> for Reason {
    fn from(reason: WireReason) -> Self {
        match reason {
            WireReason::Unavailable => Self::Unavailable,
            WireReason::Full => Self::Full,
            WireReason::TooLarge => Self::TooLarge,
            WireReason::NoSuchActor => Self::NoSuchActor,
            WireReason::KeyReused => Self::KeyReused,
            WireReason::Fenced => Self::Fenced,
        }
    }
}

impl fmt::Debug for GuestsHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestsHttp").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

/// What the bodies are.
pub(crate) const MESSAGE_PACK: &str = "application/msgpack";

/// The largest command and what wraps it, or many small ones.
const BODY_BYTES_MAX: usize = ARGS_BYTES_MAX + 64 * 1024;

/// A request is not held longer; the client asks again.
const PATIENCE_MAX: Duration = Duration::from_secs(30);
