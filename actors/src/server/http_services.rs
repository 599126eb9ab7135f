//! `/services`: outside programs that the cluster keeps running, shown and changed.

mod feed;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header, web};
use serde::Deserialize;
use serde_json::json;

use super::{
    http::looked_at,
    http_actors::status_of,
    services::{ServiceError, Services},
    view::Watchers,
};
use crate::{
    management::message::{Refusal, Spec},
    replicated::CallError,
};

/// Adds the routes.
pub(super) fn configure(routes: &mut web::ServiceConfig, services: Services) {
    routes
        .app_data(web::Data::new(services))
        .route("/services", looked_at().to(all))
        .route("/services/{service}", looked_at().to(one))
        .route("/services/{service}", web::put().to(add))
        .route("/services/{service}", web::delete().to(remove))
        .route("/services/{service}/{change}", web::post().to(change));
}

async fn all(
    services: web::Data<Services>,
    watchers: web::Data<Watchers>,
    request: HttpRequest,
) -> HttpResponse {
    if let Some(feed) = feed::asked(&request, &services, &watchers, None) {
        return feed;
    }
    let (documents, stale) = services.show().await;
    HttpResponse::Ok().json(json!({ "services": documents, "stale": stale }))
}

async fn one(
    services: web::Data<Services>,
    watchers: web::Data<Watchers>,
    name: web::Path<String>,
    request: HttpRequest,
) -> HttpResponse {
    if let Some(feed) = feed::asked(&request, &services, &watchers, Some(&name)) {
        return feed;
    }
    let (documents, stale) = services.show().await;
    match documents.into_iter().find(|document| document["service"] == *name) {
        Some(document) => HttpResponse::Ok().json(document),
        None if stale => {
            let why = "this node does not know by now what services there are";
            refused(&CallError::NotApplied(why.into()).into())
        }
        None => refused(&Refusal::Unknown(name.into_inner()).into()),
    }
}

async fn add(
    services: web::Data<Services>,
    name: web::Path<String>,
    body: web::Bytes,
) -> HttpResponse {
    let spec = serde_json::from_slice::<Spec>(&body).map_err(|error| error.to_string());
    match spec {
        Ok(spec) if spec.name == *name => answer(services.add(spec).await),
        Ok(spec) => bad(&format!("the body describes {}, not {name}", spec.name)),
        Err(why) => bad(&why),
    }
}

async fn remove(services: web::Data<Services>, name: web::Path<String>) -> HttpResponse {
    answer(services.remove(&name).await)
}

/// What stands in the body of a change; each takes what is its own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Change {
    node: Option<String>,
    add: Vec<String>,
    remove: Vec<String>,
    secondaries: Option<u32>,
}

async fn change(
    services: web::Data<Services>,
    path: web::Path<(String, String)>,
    body: web::Bytes,
) -> HttpResponse {
    let (name, change) = path.into_inner();
    let what = match body.is_empty() {
        true => Ok(Change::default()),
        false => serde_json::from_slice::<Change>(&body),
    };
    let what = match what {
        Ok(what) => what,
        Err(error) => return bad(&error.to_string()),
    };
    match (change.as_str(), what) {
        ("move", Change { node: Some(node), .. }) => answer(services.move_to(&name, &node).await),
        ("checkpoint", _) => match services.checkpoint(&name).await {
            Ok(nodes) => HttpResponse::Ok().json(json!({ "outcome": "applied", "nodes": nodes })),
            Err(error) => refused(&error),
        },
        ("freeze", _) => answer(services.freeze(&name, true).await),
        ("unfreeze", _) => answer(services.freeze(&name, false).await),
        ("providers", Change { add, remove, .. }) => {
            answer(services.providers(&name, add, remove).await)
        }
        ("set", Change { secondaries: Some(secondaries), .. }) => {
            answer(services.set(&name, secondaries).await)
        }
        _ => bad(
            "expected move {\"node\"}, freeze, unfreeze, checkpoint, providers {\"add\",\"remove\"} or \
                  set {\"secondaries\"}",
        ),
    }
}

fn answer(done: Result<(), ServiceError>) -> HttpResponse {
    match done {
        Ok(()) => HttpResponse::Ok().json(json!({ "outcome": "applied" })),
        Err(error) => refused(&error),
    }
}

fn bad(why: &str) -> HttpResponse {
    HttpResponse::BadRequest().json(json!({ "error": why, "outcome": NOT_APPLIED }))
}

fn refused(error: &ServiceError) -> HttpResponse {
    let (status, outcome) = match error {
        ServiceError::Refused(refusal) => {
            let status = match refusal {
                Refusal::Unknown(_) => StatusCode::NOT_FOUND,
                Refusal::There(_) | Refusal::Stale { .. } | Refusal::Tied(_) => {
                    StatusCode::CONFLICT
                }
                Refusal::Bad(_) | Refusal::NoProvider { .. } | Refusal::Missing { .. } => {
                    StatusCode::BAD_REQUEST
                }
                Refusal::Full(_) => StatusCode::TOO_MANY_REQUESTS,
            };
            (status, NOT_APPLIED)
        }
        ServiceError::NotRunnable { .. } => (StatusCode::BAD_REQUEST, NOT_APPLIED),
        ServiceError::NotThere { .. } | ServiceError::NoCheckpoint(_) => {
            (StatusCode::CONFLICT, NOT_APPLIED)
        }
        ServiceError::Call(error @ CallError::NotApplied(refusal)) => {
            (status_of(refusal.reason), error.outcome())
        }
        ServiceError::Call(error) => (StatusCode::GATEWAY_TIMEOUT, error.outcome()),
    };
    let mut response = HttpResponse::build(status);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.insert_header((header::RETRY_AFTER, "1"));
    }
    response.json(json!({ "error": error.to_string(), "outcome": outcome }))
}

const NOT_APPLIED: &str = "not_applied";
