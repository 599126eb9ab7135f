//! `GET /actors` and `POST /actors/NAME/MESSAGE`: replicated actors for everybody who speaks HTTP
//! and JSON.
//!
//! Every error body is `{"error":"…","outcome":"not_applied|unknown|applied"}`, so that a client
//! always knows whether it may simply try again.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use synod_runtime::address::{Delivery, SendError};
use tokio::sync::oneshot;

use super::{config::units, http::looked_at, patience::at_most, singletons::Door};
use crate::replicated::{
    ARGS_BYTES_MAX, ActorCatalogue, BadFence, CallError, Consistency, DEADLINE_DEFAULT, Done,
    Fence, IdempotencyKey, Inquiry, JsonError, JsonFunction, Outcome, Position, Reason, Submission,
    Submit,
};

/// The ways to actors, by the numbers of their names.
pub(super) type Ways = BTreeMap<u64, Arc<dyn Submit>>;

/// What the handlers need. Cloning is cheap.
#[derive(Clone)]
pub struct ActorsHttp {
    submit: Arc<dyn Submit>,
    /// Those of actors that have one of their own, by number.
    ways: Arc<Ways>,
    catalogue: Arc<ActorCatalogue>,
    singletons: Arc<[Door]>,
    deadline: Duration,
    body_max: usize,
}

impl ActorsHttp {
    /// Serves the actors of `catalogue` by way of `submit`.
    pub fn new(submit: Arc<dyn Submit>, catalogue: ActorCatalogue) -> Self {
        Self {
            submit,
            ways: Arc::default(),
            catalogue: Arc::new(catalogue),
            singletons: Arc::default(),
            deadline: DEADLINE_DEFAULT,
            body_max: ARGS_BYTES_MAX,
        }
    }

    /// Gives every request this long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Refuses larger bodies (413), in bytes; at most what a command may hold.
    #[must_use]
    pub fn body_max(mut self, bytes: usize) -> Self {
        self.body_max = bytes.min(ARGS_BYTES_MAX);
        self
    }

    /// Goes these ways to the actors of these numbers.
    pub(super) fn ways(mut self, ways: Arc<Ways>) -> Self {
        self.ways = ways;
        self
    }

    /// Serves these singletons too.
    pub(super) fn singletons(mut self, doors: Vec<Door>) -> Self {
        let descriptors = doors.iter().map(|door| door.descriptor.clone());
        let all = self.catalogue.actors().iter().cloned().chain(descriptors).collect();
        self.catalogue = Arc::new(ActorCatalogue::new(all));
        self.singletons = doors.into();
        self
    }

    async fn call(&self, call: Call<'_>) -> Result<(Value, Option<Position>), Failure> {
        match self.singletons.iter().find(|door| door.descriptor.name == call.actor) {
            Some(door) => Ok((self.call_singleton(door, &call).await?, None)),
            None => self.call_replicated(call).await.map(|(reply, at)| (reply, Some(at))),
        }
    }

    async fn call_singleton(&self, door: &Door, call: &Call<'_>) -> Result<Value, Failure> {
        if call.idempotency.is_some() || call.fence.is_some() {
            let why = "a singleton takes neither Idempotency-Key nor Synod-Fence";
            return Err(Failure::bad_request(why.to_owned()));
        }
        let function = door.descriptor.function(call.message)?;
        let args = args_of(function, call.body)?;
        let reply = door.way.ask(function.function.id, args.into(), at_most(self.deadline)).await?;
        Ok(function.reply_to_json(&reply)?)
    }

    async fn call_replicated(&self, call: Call<'_>) -> Result<(Value, Position), Failure> {
        let actor = self.catalogue.actor(call.actor)?;
        let function = actor.function(call.message)?;
        let args = args_of(function, call.body)?;
        let (answer, outcome) = oneshot::channel();
        // A client that hung up wants no answer.
        let done: Done = Box::new(move |outcome| drop(answer.send(outcome)));
        let (actor, deadline) = (actor.id(), at_most(self.deadline));
        let id = function.function.id;
        let way = self.ways.get(&actor).unwrap_or(&self.submit);
        if function.function.query {
            let consistency = call.consistency;
            let inquiry = Inquiry { actor, function: id, args, consistency, deadline, done };
            way.query(vec![inquiry]);
        } else {
            let idempotency = call.idempotency;
            let command = Submission { actor, function: id, args, deadline, idempotency, done };
            way.submit(vec![match &call.fence {
                Some(fence) => command.fenced(fence),
                None => command,
            }]);
        }
        let stopped = |_| Outcome::Unknown("the node stopped".into());
        let (reply, position) = CallError::check(outcome.await.unwrap_or_else(stopped))?;
        let reply = function.reply_to_json(&reply)?;
        Ok((reply, position))
    }
}

/// Adds the routes to an application.
pub fn configure(cfg: &mut web::ServiceConfig, state: ActorsHttp) {
    let state = web::Data::new(state);
    cfg.service(web::resource("/actors").app_data(state.clone()).route(looked_at().to(list)))
        // Names of actors may hold slashes, those of messages may not.
        .service(
            web::resource("/actors/{actor:.+}/{message:[^/]+}")
                .app_data(state)
                .route(web::post().to(call)),
        );
}

async fn list(state: web::Data<ActorsHttp>) -> HttpResponse {
    HttpResponse::Ok().json(state.catalogue.to_json())
}

async fn call(
    state: web::Data<ActorsHttp>,
    path: web::Path<(String, String)>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let (actor, message) = path.into_inner();
    let answer = async {
        let idempotency = idempotency_of(&request)?;
        let (consistency, fence) = (consistency_of(&request)?, fence_of(&request)?);
        let body = body_of(payload, state.body_max).await?;
        let (actor, message, body) = (&actor, &message, &body);
        state.call(Call { actor, message, body, idempotency, fence, consistency }).await
    };
    match answer.await {
        Ok((reply, Some(position))) => {
            HttpResponse::Ok().insert_header((POSITION_HEADER, position.0)).json(reply)
        }
        Ok((reply, None)) => HttpResponse::Ok().json(reply),
        Err(failure) => failure.response(),
    }
}

/// A request, taken apart.
struct Call<'a> {
    actor: &'a str,
    message: &'a str,
    body: &'a [u8],
    idempotency: Option<IdempotencyKey>,
    fence: Option<Fence>,
    consistency: Consistency,
}

/// Reads the body as far as it may go; JSON is never much shorter than its MessagePack form, so
/// the limit of the latter serves for both.
async fn body_of(payload: web::Payload, most: usize) -> Result<Bytes, Failure> {
    match payload.to_bytes_limited(most).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) => Err(Failure::bad_request(format!("the body broke off: {error}"))),
        Err(_) => {
            let text = format!("the body is larger than {most} bytes");
            Err(Failure { status: StatusCode::PAYLOAD_TOO_LARGE, text, outcome: NOT_APPLIED })
        }
    }
}

/// An empty body stands for a message without fields.
fn args_of(function: &JsonFunction, body: &[u8]) -> Result<Bytes, Failure> {
    let args = match body {
        [] => json!({}),
        body => serde_json::from_slice(body)
            .map_err(|error| Failure::bad_request(format!("the body is not JSON: {error}")))?,
    };
    Ok(function.args_from_json(&args)?.into())
}

/// The `Idempotency-Key` of a request, if it has one.
pub(super) fn idempotency_of(request: &HttpRequest) -> Result<Option<IdempotencyKey>, Failure> {
    let Some(value) = request.headers().get(IDEMPOTENCY_HEADER) else { return Ok(None) };
    let bad = |why: String| Failure::bad_request(format!("{IDEMPOTENCY_HEADER}: {why}"));
    let key = value.to_str().map_err(|error| bad(error.to_string()))?;
    IdempotencyKey::new(key).map(Some).map_err(|error| bad(error.to_string()))
}

fn fence_of(request: &HttpRequest) -> Result<Option<Fence>, Failure> {
    let Some(value) = request.headers().get(FENCE_HEADER) else { return Ok(None) };
    let fence = value.to_str().ok().and_then(|text| Fence::parse(text).ok());
    let bad = || Failure::bad_request(format!("{FENCE_HEADER}: {BadFence}"));
    fence.map(Some).ok_or_else(bad)
}

fn consistency_of(request: &HttpRequest) -> Result<Consistency, Failure> {
    /// What may stand after the question mark.
    #[derive(Deserialize)]
    struct Options {
        consistency: Option<String>,
        bounded: Option<String>,
    }
    let options = web::Query::<Options>::from_query(request.query_string())
        .map_err(|error| Failure::bad_request(error.to_string()))?;
    let age = options.bounded.as_deref().map(units::duration).transpose();
    let age = age.map_err(|why| Failure::bad_request(format!("bounded: {why}")))?;
    match (options.consistency.as_deref(), age) {
        (None, Some(age)) => Ok(Consistency::Bounded(age)),
        (Some(_), Some(_)) => {
            Err(Failure::bad_request("bounded and consistency exclude each other".to_owned()))
        }
        (None | Some("linearizable"), None) => Ok(Consistency::Linearizable),
        (Some("local"), None) => Ok(Consistency::Local),
        (Some(other), None) => Err(Failure::bad_request(format!(
            "consistency: expected \"linearizable\" or \"local\", found {other:?}"
        ))),
    }
}

/// An answer other than 200.
pub(super) struct Failure {
    status: StatusCode,
    pub(super) text: String,
    outcome: &'static str,
}

impl Failure {
    fn bad_request(text: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text, outcome: NOT_APPLIED }
    }

    pub(super) fn response(self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, RETRY_AFTER_S));
        }
        response.json(json!({ "error": self.text, "outcome": self.outcome }))
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let status = match &error {
            CallError::NotApplied(refusal) => status_of(refusal.reason),
            CallError::Unknown(_) | CallError::SessionExpired(_) => StatusCode::GATEWAY_TIMEOUT,
            CallError::Failed(_) | CallError::Unreadable { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self { status, text: error.to_string(), outcome: error.outcome() }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        let (status, outcome) = match error.outcome() {
            Delivery::NotRun => (StatusCode::SERVICE_UNAVAILABLE, NOT_APPLIED),
            Delivery::Unknown => (StatusCode::GATEWAY_TIMEOUT, "unknown"),
        };
        Self { status, text: error.to_string(), outcome }
    }
}

impl From<JsonError> for Failure {
    fn from(error: JsonError) -> Self {
        let (status, outcome) = match error {
            JsonError::UnknownActor { .. } | JsonError::UnknownMessage { .. } => {
                (StatusCode::NOT_FOUND, NOT_APPLIED)
            }
            JsonError::BadArguments { .. } => (StatusCode::BAD_REQUEST, NOT_APPLIED),
            // The command did its work, only its reply cannot be shown.
            JsonError::BadReply(_) => (StatusCode::INTERNAL_SERVER_ERROR, "applied"),
        };
        Self { status, text: error.to_string(), outcome }
    }
}

/// What a refusal is over HTTP.
pub(super) fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Reason::Full => StatusCode::INSUFFICIENT_STORAGE,
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::NoSuchActor => StatusCode::NOT_FOUND,
        Reason::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        Reason::Fenced => StatusCode::PRECONDITION_FAILED,
    }
}

impl fmt::Debug for ActorsHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorsHttp")
            .field("catalogue", &self.catalogue)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// The contract's word.
const NOT_APPLIED: &str = "not_applied";
/// The command's place in the log.
const POSITION_HEADER: &str = "Synod-Position";
/// Makes a repeated request replay its first answer.
const IDEMPOTENCY_HEADER: &str = "Idempotency-Key";
/// Names the role and the epoch that a command is written in.
const FENCE_HEADER: &str = "Synod-Fence";
/// Fail-over takes a third of a second, and whole seconds are all this header can say.
const RETRY_AFTER_S: u64 = 1;

#[cfg(test)]
mod tests;
