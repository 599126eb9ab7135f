//! `GET /backup` and `POST /restore`: the whole state, out and in, for the verbs of those names.

use std::{io, sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::StatusCode, web};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::json;
use synod_runtime::digest::Sha256;
use tokio::{sync::oneshot, time::sleep};

use super::{
    backup::Head,
    http_guests::{MESSAGE_PACK, WireEnd, stopped},
    site::shelf::Shelf,
};
use crate::{
    consensus::replica::{Shelved, TAKE_PIECE, WHOLE_STATE, pause_after},
    replicated::{Consistency, Done, IdempotencyKey, Inquiry, Outcome, Submission, Submit},
};

/// What the handlers need. Cloning is cheap.
#[derive(Clone)]
pub(super) struct StateHttp {
    pub(super) submit: Arc<dyn Submit>,
    pub(super) cluster: String,
    pub(super) shelf: Arc<Shelf>,
}

/// Adds the routes to an application.
pub(super) fn configure(cfg: &mut web::ServiceConfig, state: StateHttp) {
    let state = web::Data::new(state);
    let route = |path: &str| web::resource(path.to_owned()).app_data(state.clone());
    cfg.service(route("/backup").route(web::get().to(backup)));
    cfg.service(route("/restore/{key}").route(web::post().to(restore)));
}

/// The backup as a file. It holds every command that was answered before it was asked for.
async fn backup(state: web::Data<StateHttp>) -> HttpResponse {
    let (answer, outcome) = oneshot::channel();
    let done: Done = Box::new(move |outcome| drop(answer.send(outcome)));
    state.submit.query(vec![Inquiry {
        actor: 0,
        function: WHOLE_STATE,
        args: Bytes::new(),
        consistency: Consistency::Linearizable,
        deadline: PATIENCE,
        done,
    }]);
    let snapshot = match outcome.await.unwrap_or_else(stopped) {
        Outcome::Applied { reply, .. } => rmp_serde::from_slice::<Shelved>(&reply),
        Outcome::NotApplied(refusal) => {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, &refusal.text);
        }
        Outcome::Unknown(why) | Outcome::Failed(why) | Outcome::SessionExpired(why) => {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, &why);
        }
    };
    let Ok(snapshot) = snapshot else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the answer is no snapshot");
    };
    // Once for its digest, which stands in front, and once to send it.
    let mut sum = Sha256::default();
    let mut parts = Box::pin(parts(Arc::clone(&state.shelf), snapshot));
    while let Some(part) = parts.next().await {
        match part {
            Ok(part) => sum.update(&part),
            Err(why) => return refuse(StatusCode::SERVICE_UNAVAILABLE, &why.to_string()),
        }
    }
    let head = Head::of_snapshot(&state.cluster, snapshot, sum.finish());
    let head = stream::iter([Ok(Bytes::from(head.line()))]);
    let file = head.chain(self::parts(Arc::clone(&state.shelf), snapshot));
    HttpResponse::Ok().content_type("application/octet-stream").streaming(file)
}

/// A snapshot, part by part, no faster than snapshots may be read while clients are served.
fn parts(shelf: Arc<Shelf>, snapshot: Shelved) -> impl Stream<Item = Result<Bytes, io::Error>> {
    stream::unfold(0, move |offset| {
        let shelf = Arc::clone(&shelf);
        async move {
            if offset >= snapshot.total {
                return None;
            }
            let part = shelf.read(snapshot.step, offset).await.filter(|part| !part.is_empty());
            let Some(part) = part else {
                let why = "the snapshot made room for newer ones, or cannot be read; try again";
                return Some((Err(io::Error::other(why)), u64::MAX));
            };
            sleep(pause_after(part.len() as u64)).await;
            let next = offset + part.len() as u64;
            Some((Ok(part), next))
        }
    })
}

/// One piece of a state; `key` makes it be taken once.
async fn restore(
    state: web::Data<StateHttp>,
    key: web::Path<String>,
    payload: web::Payload,
) -> HttpResponse {
    let Ok(key) = IdempotencyKey::new(&key) else {
        return refuse(StatusCode::BAD_REQUEST, "the key of the piece is too long");
    };
    let Ok(Ok(args)) = payload.to_bytes_limited(PIECE_BYTES_MAX).await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the piece is too large, or broke off");
    };
    let (answer, outcome) = oneshot::channel();
    let done: Done = Box::new(move |outcome| drop(answer.send(outcome)));
    state.submit.submit(vec![Submission {
        actor: 0,
        function: TAKE_PIECE,
        args,
        deadline: PATIENCE,
        idempotency: Some(key),
        done,
    }]);
    let end = WireEnd::from(outcome.await.unwrap_or_else(stopped));
    let body = rmp_serde::to_vec(&end).expect("plain data encodes");
    HttpResponse::Ok().content_type(MESSAGE_PACK).body(body)
}

fn refuse(status: StatusCode, why: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({ "error": why, "outcome": "not_applied" }))
}

/// Making or taking a large state takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A piece and what wraps it.
const PIECE_BYTES_MAX: usize = 2 * 1024 * 1024;
