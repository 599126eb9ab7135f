//! `/roles`: who leads in what, and leases of roles for programs in any language.
//!
//! A program that takes a role by `PUT /roles/R/lease` notes the time by its own clock before it
//! sends the request, and acts until `expires_in_ms` after that; it renews with the epoch well
//! before. Whoever falls silent loses the role after the lease, never earlier.

mod feed;

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header, web};
use serde::Deserialize;
use serde_json::{Value, json};
use synod_runtime::world::Instant;

use super::{
    config::units,
    elections::{Cell, ElectionError, Elections, Found},
    http::looked_at,
    http_actors::{idempotency_of, status_of},
    site::lock,
    view::Watchers,
};
use crate::{
    election::{
        lease::{DRIFT_PERCENT, period},
        message::{Epoch, Grant, Holder, Op, Refusal, RoleView, SYSTEM_MANAGER, Terms},
        service::{Ended, ServiceMessage, Volunteered},
        store::Question,
    },
    replicated::CallError,
};

/// Adds the routes.
pub(super) fn configure(routes: &mut web::ServiceConfig, elections: Elections) {
    routes
        .app_data(web::Data::new(elections))
        .route("/roles", looked_at().to(all))
        .route("/roles/{role:.+}/lease", web::put().to(lease))
        .route("/roles/{role:.+}/lease", web::delete().to(resign))
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
    let key = match idempotency_of(request) {
        Ok(key) => key,
        Err(failure) => return failure.response(),
    };
    if key.is_some() && !elections.takes_keys() {
        let why =
            "roles kept in registers take no Idempotency-Key; what was made or removed stays so";
        return Answer::bad_request(why.to_owned()).response();
    }
    match elections.change_once(op, key).await {
        Ok(()) => HttpResponse::Ok().json(json!({ "role": role, "outcome": "applied" })),
        Err(error) => Answer::from(error).response(),
    }
}

/// The body of `PUT /roles/R/lease`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    holder: String,
    lease: Option<String>,
    /// Given: renews what is held in that epoch.
    epoch: Option<Epoch>,
    #[serde(default)]
    wait: bool,
    #[serde(default)]
    priority: u8,
}

async fn lease(
    elections: web::Data<Elections>,
    role: web::Path<String>,
    body: web::Bytes,
) -> HttpResponse {
    let arrived = elections.now();
    let asked = serde_json::from_slice::<Asked>(&body).map_err(|error| {
        let hint = "expected {\"holder\":NAME,\"lease\":\"2s\",\"epoch\":N,\"wait\":true}";
        Answer::bad_request(format!("{error}; {hint}"))
    });
    let answer = async {
        let asked = asked?;
        let lease = asked.lease.as_deref().map(units::duration).transpose();
        let lease = lease.map_err(|why| Answer::bad_request(format!("lease: {why}")))?;
        let terms = Terms::new(lease.unwrap_or_else(|| elections.lease()), asked.priority)?;
        let request = Request { elections: &elections, role: role.into_inner(), asked, terms };
        match request.asked.epoch {
            Some(epoch) => request.renew(epoch, arrived).await,
            None => request.take(arrived).await,
        }
    };
    answer.await.unwrap_or_else(Answer::response)
}

struct Request<'a> {
    elections: &'a Elections,
    role: String,
    asked: Asked,
    terms: Terms,
}

impl Request<'_> {
    /// Takes the role, or says who has it.
    async fn take(&self, arrived: Instant) -> Result<HttpResponse, Answer> {
        let pulse = self.asked.wait.then(|| self.elections.pulse());
        if let Some(pulse) = &pulse {
            pulse.quicken(period(self.terms.lease()) / 2);
        }
        let cell = self.elections.stand(self.volunteered(None, pulse.as_ref().map(|p| p.number())));
        let stands = Stands { elections: self.elections, cell: Some(cell) };
        let mut first = None;
        let led = stands.cell().wait(|known| match (&known.lease, &known.ended, &known.holder) {
            (Some((grant, _, deadline)), _, _) => Found::This(Ok((*grant, *deadline))),
            (None, Some(ended), _) => Found::This(Err(self.ended(ended.clone()))),
            // The next period has begun, and it is another's.
            (None, None, Some(holder)) => {
                let before = first.get_or_insert(holder.epoch);
                match *before == holder.epoch {
                    true => Found::Wait,
                    false => Found::This(Err(Answer::held(&self.role, Some(holder)))),
                }
            }
            (None, None, None) => Found::Wait,
        });
        // The answer counts from when the request was sent, by another clock: that one may be off
        // by as much as both clocks drift meanwhile, which must stay well below the lease.
        let most = self.terms.lease() * (100 / 8 / u32::try_from(DRIFT_PERCENT).unwrap_or(1));
        let Ok(led) = tokio::time::timeout(most, led).await else {
            let holder = stands.cell().known().holder.clone();
            return Err(Answer::held(&self.role, holder.as_ref()));
        };
        let (grant, deadline) = led?;
        let cell = stands.taken();
        self.elections.tell(ServiceMessage::OnItsOwn(cell.handle));
        self.keep(cell);
        Ok(self.leading(grant, deadline, arrived))
    }

    /// Who stood for the role does no more.
    fn ended(&self, ended: Ended) -> Answer {
        match ended {
            Ended::Held(by) => Answer::held(&self.role, Some(&by)),
            Ended::Refused(refusal) => refusal.into(),
            Ended::Left | Ended::Lost => {
                let why = "the lease ran out".to_owned();
                Answer::new(StatusCode::CONFLICT, why, NOT_APPLIED)
            }
            Ended::Failed(failed) if failed.not_applied => {
                Answer::new(StatusCode::SERVICE_UNAVAILABLE, failed.why, NOT_APPLIED)
            }
            Ended::Failed(failed) => {
                Answer::new(StatusCode::GATEWAY_TIMEOUT, failed.why, "unknown")
            }
        }
    }

    /// Renews what is held in that epoch, at this node or taken over from another.
    async fn renew(&self, epoch: Epoch, arrived: Instant) -> Result<HttpResponse, Answer> {
        let mut kept = self.kept(epoch);
        loop {
            let was_here = kept.is_some();
            match self.renewed(kept.take(), epoch, arrived).await {
                Err(lost) if lost.holder.is_none() && lost.status == StatusCode::CONFLICT => {}
                answer => return answer,
            }
            let present = self.present().await;
            let ours = |one: &Holder| one.epoch == epoch && one.client.name == self.asked.holder;
            // A renewal that reached another node late has taken it over there: it comes back.
            if !(was_here && present.as_ref().is_some_and(ours)) {
                return Err(Answer::held(&self.role, present.as_ref()));
            }
        }
    }

    /// The same, by what this node keeps of it.
    async fn renewed(
        &self,
        kept: Option<Arc<Cell>>,
        epoch: Epoch,
        arrived: Instant,
    ) -> Result<HttpResponse, Answer> {
        let cell =
            kept.unwrap_or_else(|| self.elections.stand(self.volunteered(Some(epoch), None)));
        let mut patience = PATIENCE;
        let (grant, deadline) = loop {
            let handle = cell.handle;
            self.elections.tell(ServiceMessage::Asked { handle, at_once: true });
            let renewed = cell.wait(|known| match (&known.lease, &known.ended) {
                (_, Some(ended)) => Found::This(Err(self.ended(ended.clone()))),
                (Some((grant, sent, deadline)), None) if *sent >= arrived => {
                    Found::This(Ok((*grant, *deadline)))
                }
                (_, None) => Found::Wait,
            });
            if let Ok(renewed) = tokio::time::timeout(AGAIN, renewed).await {
                break renewed?;
            }
            patience = patience.saturating_sub(AGAIN);
            if patience.is_zero() {
                let why = "outcome unknown: the renewal was not answered in time".to_owned();
                return Err(Answer::new(StatusCode::GATEWAY_TIMEOUT, why, "unknown"));
            }
        };
        self.keep(cell);
        Ok(self.leading(grant, deadline, arrived))
    }

    fn volunteered(&self, adopt: Option<Epoch>, pulse: Option<u64>) -> Volunteered {
        Volunteered {
            handle: 0,
            role: self.role.clone(),
            name: self.asked.holder.clone(),
            terms: self.terms,
            stands: pulse.is_some(),
            pulse,
            adopt,
        }
    }

    fn kept(&self, epoch: Epoch) -> Option<Arc<Cell>> {
        let key = (self.role.clone(), self.asked.holder.clone());
        let leases = lock(self.elections.leases());
        let cell = leases.get(&key)?;
        let lease = cell.known().lease;
        lease.filter(|(grant, _, _)| grant.epoch == epoch).map(|_| Arc::clone(cell))
    }

    fn keep(&self, cell: Arc<Cell>) {
        let mut leases = lock(self.elections.leases());
        leases.retain(|_, cell| cell.known().ended.is_none());
        leases.insert((self.role.clone(), self.asked.holder.clone()), cell);
    }

    /// The role was lost; who has it now?
    async fn present(&self) -> Option<Holder> {
        self.elections.query(&self.role).await.ok().flatten()?.holder
    }

    fn leading(&self, grant: Grant, deadline: Instant, arrived: Instant) -> HttpResponse {
        // What this node's clock counted while the request waited may be too much by the client's.
        let waited = self.elections.now().since(arrived);
        let drift = if self.asked.wait { waited / 100 * 2 * DRIFT_PERCENT as u32 } else { ZERO };
        HttpResponse::Ok().json(json!({
            "leader": true,
            "role": self.role,
            "holder": self.asked.holder,
            "epoch": grant.epoch,
            "lease_ms": grant.terms.lease().as_millis(),
            "expires_in_ms": deadline.since(arrived).saturating_sub(drift).as_millis(),
        }))
    }
}

/// Somebody who stands until it is answered; whoever hangs up before leaves.
struct Stands<'a> {
    elections: &'a Elections,
    cell: Option<Arc<Cell>>,
}

impl Stands<'_> {
    fn cell(&self) -> &Cell {
        self.cell.as_deref().expect("there until it is taken")
    }

    fn taken(mut self) -> Arc<Cell> {
        self.cell.take().expect("there until it is taken")
    }
}

impl Drop for Stands<'_> {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            self.elections.tell(ServiceMessage::Leave(cell.handle));
        }
    }
}

/// What stands behind `DELETE /roles/R/lease?`.
#[derive(Debug, Deserialize)]
struct Resigning {
    holder: String,
    epoch: Option<Epoch>,
}

async fn resign(
    elections: web::Data<Elections>,
    role: web::Path<String>,
    query: web::Query<Resigning>,
) -> HttpResponse {
    let Resigning { holder, epoch } = query.into_inner();
    let kept = lock(elections.leases()).remove(&(role.clone(), holder.clone()));
    let answer = async {
        let view = elections.query(&role).await?;
        let view = view.ok_or_else(|| Refusal::UnknownRole(role.clone()))?;
        let present = view.holder.as_ref();
        let held = present.filter(|present| {
            present.client.name == holder && epoch.is_none_or(|epoch| epoch == present.epoch)
        });
        let Some(held) = held else { return Err(Answer::held(&role, present)) };
        let epoch = held.epoch;
        if let Some(cell) = kept {
            // No later answer revives the epoch.
            cell.give_up();
            elections.tell(ServiceMessage::Forget(cell.handle));
        }
        elections.change_one(Op::Resign { role: role.clone(), epoch }).await?;
        Ok(HttpResponse::Ok().json(json!({
            "role": *role, "holder": holder, "epoch": epoch, "outcome": "applied",
        })))
    };
    answer.await.unwrap_or_else(Answer::response)
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

/// A renewal that was not answered is asked for again: the client waits, so it is alive.
const AGAIN: Duration = Duration::from_millis(100);

/// How long a renewal waits at most; by then most leases are over.
const PATIENCE: Duration = Duration::from_secs(4);

const ZERO: Duration = Duration::ZERO;
