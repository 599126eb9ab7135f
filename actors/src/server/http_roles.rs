//! `/roles`: who leads in what. Roles are made, removed, taken and given up here by programs in any
//! language.

mod feed;
mod lease;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header, web};
use serde_json::{Value, json};

use super::{
    elections::{ElectionError, Elections},
    http::looked_at,
    http_actors::{idempotency_of, status_of},
    view::Watchers,
};
use crate::{
    election::{
        message::{Holder, Op, Refusal, RoleView, SYSTEM_MANAGER},
        store::Question,
    },
    replicated::{CallError, IdempotencyKey},
};

/// Adds the routes.
pub(super) fn configure(routes: &mut web::ServiceConfig, elections: Elections) {
    routes
        .app_data(web::Data::new(elections))
        .route("/roles", looked_at().to(all))
        .route("/roles/{role:.+}/lease", web::put().to(lease::lease))
        .route("/roles/{role:.+}/lease", web::delete().to(lease::resign))
        .route("/roles/{role:.+}", looked_at().to(one))
        .route("/roles/{role:.+}", web::put().to(add))
        .route("/roles/{role:.+}", web::delete().to(remove));
}

/// The roles as they stand in `GET /roles` and, as this node has them, in `status`.
pub(super) fn documents(views: &[RoleView], stale: bool) -> Vec<Value> {
    let (built_in, made): (Vec<_>, Vec<_>) =
        views.iter().partition(|view| view.role == SYSTEM_MANAGER);
    // What people made comes first.
    made.into_iter().chain(built_in).map(|view| document(view, stale)).collect()
}

fn document(view: &RoleView, stale: bool) -> Value {
    let volunteers: Vec<_> = view.volunteers.iter().map(|one| &one.name).collect();
    let mut document = holder(&view.role, view.holder.as_ref());
    document["epoch"] = json!(view.epoch);
    document["expires_in_ms"] = json!(view.expires_in.map(|left| left.as_millis()));
    document["volunteers"] = json!(volunteers);
    document["stale"] = json!(stale);
    if view.role == SYSTEM_MANAGER {
        document["built_in"] = json!(true);
        document["lease_ms"] = Value::Null;
    }
    if view.removing {
        document["removing"] = json!(true);
    }
    document
}

fn holder(role: &str, holder: Option<&Holder>) -> Value {
    json!({
        "role": role,
        "leader": holder.map(|holder| &holder.client.name),
        "node": holder.map(|holder| &holder.client.node),
        "epoch": holder.map(|holder| holder.epoch),
        "lease_ms": holder.map(|holder| holder.terms.lease().as_millis()),
    })
}

async fn all(
    elections: web::Data<Elections>,
    watchers: web::Data<Watchers>,
    request: HttpRequest,
) -> HttpResponse {
    if let Some(from) = feed::asked(&request) {
        return feed::open(&elections, &watchers, None, from);
    }
    match elections.look(&Question::All).await {
        Ok(views) => HttpResponse::Ok().json(json!({ "roles": documents(&views, false) })),
        Err(error) => match elections.known() {
            known if known.is_empty() => Answer::from(error).response(),
            known => HttpResponse::Ok().json(json!({ "roles": documents(&known, true) })),
        },
    }
}

async fn one(
    elections: web::Data<Elections>,
    watchers: web::Data<Watchers>,
    role: web::Path<String>,
    request: HttpRequest,
) -> HttpResponse {
    if let Some(from) = feed::asked(&request) {
        return feed::open(&elections, &watchers, Some(&role), from);
    }
    let unknown = || Answer::from(Refusal::UnknownRole(role.clone())).response();
    match elections.query(&role).await {
        Ok(Some(view)) => HttpResponse::Ok().json(document(&view, false)),
        Ok(None) => unknown(),
        Err(error) => {
            let known = elections.known();
            match known.iter().find(|view| view.role == *role) {
                Some(view) => HttpResponse::Ok().json(document(view, true)),
                None => Answer::from(error).response(),
            }
        }
    }
}

async fn add(
    elections: web::Data<Elections>,
    role: web::Path<String>,
    request: HttpRequest,
) -> HttpResponse {
    change(&elections, &role, Op::Add { role: role.clone() }, &request).await
}

async fn remove(
    elections: web::Data<Elections>,
    role: web::Path<String>,
    request: HttpRequest,
) -> HttpResponse {
    change(&elections, &role, Op::Remove { role: role.clone() }, &request).await
}

async fn change(elections: &Elections, role: &str, op: Op, request: &HttpRequest) -> HttpResponse {
    let answer = async {
        let key = key_of(elections, request)?;
        elections.say(op, key).await?;
        Ok(HttpResponse::Ok().json(json!({ "role": role, "outcome": "applied" })))
    };
    answer.await.unwrap_or_else(Answer::response)
}

/// The idempotency key of a request, if it has one and the log can remember it.
fn key_of(elections: &Elections, request: &HttpRequest) -> Result<Option<IdempotencyKey>, Answer> {
    let key = idempotency_of(request).map_err(|failure| Answer::bad_request(failure.text))?;
    if key.is_some() && !elections.takes_keys() {
        let why = "roles kept in registers take no Idempotency-Key: epochs tell leases apart, and \
                   what was made or removed stays so";
        return Err(Answer::bad_request(why.to_owned()));
    }
    Ok(key)
}

/// An answer other than 200.
struct Answer {
    status: StatusCode,
    text: String,
    outcome: &'static str,
    /// Who leads, if it says so.
    holder: Option<Value>,
}

impl Answer {
    const fn new(status: StatusCode, text: String, outcome: &'static str) -> Self {
        Self { status, text, outcome, holder: None }
    }

    const fn bad_request(text: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text, NOT_APPLIED)
    }

    fn held(role: &str, by: Option<&Holder>) -> Self {
        let leads = by.map_or_else(
            || "nobody leads; take it without an epoch".to_owned(),
            |by| format!("{} leads in epoch {}", by.client.name, by.epoch),
        );
        let text = format!("role {role}: {leads}");
        Self {
            holder: Some(holder(role, by)),
            ..Self::new(StatusCode::CONFLICT, text, NOT_APPLIED)
        }
    }

    fn response(self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, "1"));
        }
        let mut body = self.holder.unwrap_or_else(|| json!({}));
        body["error"] = json!(self.text);
        body["outcome"] = json!(self.outcome);
        response.json(body)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        if let Refusal::NotHeld { role, holder } = &refusal {
            return Self::held(role, holder.as_ref());
        }
        let status = match &refusal {
            Refusal::UnknownRole(_) => StatusCode::NOT_FOUND,
            Refusal::Removing(_) | Refusal::NotHeld { .. } => StatusCode::CONFLICT,
            Refusal::BuiltIn => StatusCode::FORBIDDEN,
            Refusal::BadName { .. } | Refusal::BadLease(_) | Refusal::BadEpoch(_) => {
                StatusCode::BAD_REQUEST
            }
            Refusal::Full(_) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Fenced { .. } => StatusCode::PRECONDITION_FAILED,
        };
        Self::new(status, refusal.to_string(), NOT_APPLIED)
    }
}

impl From<ElectionError> for Answer {
    fn from(error: ElectionError) -> Self {
        match error {
            ElectionError::Refused(refusal) => refusal.into(),
            ElectionError::Call(error) => {
                let status = match &error {
                    CallError::NotApplied(refusal) => status_of(refusal.reason),
                    _ => StatusCode::GATEWAY_TIMEOUT,
                };
                Self::new(status, error.to_string(), error.outcome())
            }
        }
    }
}

/// The contract's word.
const NOT_APPLIED: &str = "not_applied";
