//! The same keys over HTTP: `GET`, `PUT`, `DELETE /kv/KEY`, and `GET /kv` to list them.
//!
//! A key is whatever stands behind `/kv/`, percent-decoded, any bytes. Its `ETag` is the position of
//! the command that last wrote it, and preconditions are decided at the very step that writes. Every
//! error is `{"error":"…","outcome":"not_applied|unknown|applied"}`.
//!
//! A list of keys is JSON, which has no place for bytes that are no text: a page with such keys has
//! `keys_encoded` beside `keys`, all of its keys percent-encoded, and `next_encoded` beside `next` where
//! that is one of them.

mod failure;
mod request;

use std::{fmt, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    http::{StatusCode, header},
    web,
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use synod::replicated::{
    CallError, Consistency, DEADLINE_DEFAULT, Done, Fence, Function, IdempotencyKey, Inquiry,
    Outcome, Position, Submission, Submit, name_hash,
};
use tokio::sync::oneshot;

use self::{
    failure::Failure,
    request::{Listing, body, consistency, fence, idempotency, key, percent_encoded, precondition},
};
use crate::{
    machine::{DELETE, GET, LIST, NAME, PUT},
    message::{Blob, Delete, Found, Get, Page, Put, Written},
};

/// What the handlers need. Cloning is cheap.
#[derive(Clone)]
pub struct KvHttp {
    submit: Arc<dyn Submit>,
    deadline: Duration,
}

impl KvHttp {
    /// Serves keys by way of `submit`.
    pub fn new(submit: Arc<dyn Submit>) -> Self {
        Self { submit, deadline: DEADLINE_DEFAULT }
    }

    /// Gives every request this long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    async fn command<M: Serialize>(
        &self,
        function: Function,
        message: &M,
        way: Way,
    ) -> Result<Written, Failure> {
        let (done, outcome) = answer();
        let command = Submission {
            actor: name_hash(NAME),
            function: function.id,
            args: pack(message),
            deadline: self.deadline,
            idempotency: way.idempotency,
            done,
        };
        self.submit.submit(vec![match &way.fence {
            Some(fence) => command.fenced(fence),
            None => command,
        }]);
        unpack(outcome.await).map(|(written, _)| written)
    }

    async fn query<M: Serialize, R: DeserializeOwned>(
        &self,
        function: Function,
        message: &M,
        consistency: Consistency,
    ) -> Result<(R, Position), Failure> {
        let (done, outcome) = answer();
        let inquiry = Inquiry {
            actor: name_hash(NAME),
            function: function.id,
            args: pack(message),
            consistency,
            deadline: self.deadline,
            done,
        };
        self.submit.query(vec![inquiry]);
        unpack(outcome.await)
    }
}

/// What a write brings along in its headers.
struct Way {
    idempotency: Option<IdempotencyKey>,
    fence: Option<Fence>,
}

impl Way {
    fn of(request: &HttpRequest) -> Result<Self, Failure> {
        Ok(Self { idempotency: idempotency(request)?, fence: fence(request)? })
    }
}

/// Adds the routes to an application.
pub fn configure(cfg: &mut web::ServiceConfig, state: KvHttp) {
    let state = web::Data::new(state);
    cfg.service(
        web::resource("/kv")
            .app_data(state.clone())
            .route(web::get().to(list))
            .route(web::head().to(list)),
    )
    .service(
        web::resource("/kv/{key:.*}")
            .app_data(state)
            .route(web::get().to(get))
            .route(web::head().to(get))
            .route(web::head().to(get))
            .route(web::put().to(put))
            .route(web::delete().to(delete)),
    );
}

async fn get(state: web::Data<KvHttp>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let get = Get { key: key(&request)? };
        let consistency = consistency(&request)?;
        let not_wanted = precondition(&request)?;
        let (found, _) = state.query::<_, Option<Found>>(GET, &get, consistency).await?;
        let Some(Found { value, version }) = found else { return Err(Failure::no_such_key()) };
        if !not_wanted.holds(Some(version)) {
            return Ok(versioned(StatusCode::NOT_MODIFIED, version).finish());
        }
        let mut response = versioned(StatusCode::OK, version);
        Ok(response.content_type("application/octet-stream").body(value.0))
    };
    answer.await.unwrap_or_else(Failure::response)
}

async fn put(
    state: web::Data<KvHttp>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let (key, when) = (key(&request)?, precondition(&request)?);
        let way = Way::of(&request)?;
        let put = Put { key, value: Blob(body(payload).await?), when };
        written(state.command(PUT, &put, way).await?)
    };
    answer.await.unwrap_or_else(Failure::response)
}

async fn delete(state: web::Data<KvHttp>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let delete = Delete { key: key(&request)?, when: precondition(&request)? };
        let way = Way::of(&request)?;
        written(state.command(DELETE, &delete, way).await?)
    };
    answer.await.unwrap_or_else(Failure::response)
}

async fn list(state: web::Data<KvHttp>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let Listing { list, consistency } = request::listing(&request)?;
        let (page, position) = state.query::<_, Page>(LIST, &list, consistency).await?;
        let text = |key: &Blob| String::from_utf8_lossy(&key.0).into_owned();
        let keys: Vec<String> = page.keys.iter().map(text).collect();
        let mut body = json!({ "keys": keys, "next": page.next.as_ref().map(text) });
        // A key that is no text cannot be given back as one: these may, as they are, behind `/kv/` and
        // `after=`.
        let is_text = |key: &Blob| std::str::from_utf8(&key.0).is_ok();
        if !page.keys.iter().all(is_text) {
            let encoded: Vec<_> = page.keys.iter().map(|key| percent_encoded(&key.0)).collect();
            body["keys_encoded"] = json!(encoded);
        }
        if let Some(next) = page.next.filter(|next| !is_text(next)) {
            body["next_encoded"] = json!(percent_encoded(&next.0));
        }
        Ok(HttpResponse::Ok().insert_header((POSITION_HEADER, position.0)).json(body))
    };
    answer.await.unwrap_or_else(Failure::response)
}

fn written(written: Written) -> Result<HttpResponse, Failure> {
    match written {
        Written::Done { position } => Ok(versioned(StatusCode::NO_CONTENT, position).finish()),
        Written::Refused { version } => Err(Failure::precondition(version)),
        Written::TooLarge => Err(Failure::too_large()),
    }
}

fn versioned(status: StatusCode, version: u64) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response.insert_header((header::ETAG, format!("\"{version}\"")));
    response.insert_header((POSITION_HEADER, version));
    response
}

fn answer() -> (Done, impl Future<Output = Outcome>) {
    let (answer, outcome) = oneshot::channel();
    // A client that hung up wants no answer.
    let done: Done = Box::new(move |outcome| drop(answer.send(outcome)));
    let stopped = |_| Outcome::Unknown("the node stopped".into());
    (done, async move { outcome.await.unwrap_or_else(stopped) })
}

fn pack<M: Serialize>(message: &M) -> Bytes {
    rmp_serde::to_vec_named(message).expect("messages are plain structs of bytes").into()
}

fn unpack<R: DeserializeOwned>(outcome: Outcome) -> Result<(R, Position), Failure> {
    let (reply, position) = CallError::check(outcome)?;
    let reply = rmp_serde::from_slice(&reply).map_err(|error| Failure::unreadable(&error))?;
    Ok((reply, position))
}

impl fmt::Debug for KvHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvHttp").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// The command's place in the log.
const POSITION_HEADER: &str = "Synod-Position";

#[cfg(test)]
mod tests;
