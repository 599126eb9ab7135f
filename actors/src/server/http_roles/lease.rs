//! `PUT` and `DELETE /roles/R/lease`: leases of roles for programs in any language.
//!
//! A program notes the time by its own clock before it sends the request, and acts until
//! `expires_in_ms` after that; it renews with the epoch well before. Whoever falls silent loses the
//! role after the lease, never earlier.
//!
//! With an `Idempotency-Key` the log remembers what was decided: whether the role was granted, and in
//! which epoch; which epoch was to be resigned. What follows from that may be done over and over, since
//! the epoch names one lease for ever, and so the time that is left is true in every answer.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde::Deserialize;
use serde_json::json;
use synod_runtime::world::Instant;

use super::{Answer, NOT_APPLIED, key_of};
use crate::{
    election::{
        lease::{DRIFT_PERCENT, period},
        message::{Client, ClientKey, Epoch, Grant, Holder, Op, Refusal, Said, Terms},
        service::{Ended, ServiceMessage, Volunteered},
    },
    replicated::{IdempotencyKey, name_hash},
    server::{
        config::units,
        elections::{Cell, ElectionError, Elections, Found},
        site::lock,
    },
};

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

pub(super) async fn lease(
    elections: web::Data<Elections>,
    role: web::Path<String>,
    body: web::Bytes,
    http: HttpRequest,
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
        let key = key_of(&elections, &http)?;
        let request = Request { elections: &elections, role: role.into_inner(), asked, terms };
        match (request.asked.epoch, key) {
            // The epoch makes it the same renewal, however often it comes.
            (Some(epoch), _) => request.renew(epoch, arrived).await,
            (None, Some(key)) => request.take_once(key, arrived).await,
            (None, None) => request.take(arrived).await,
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

    /// The same, decided once: a repetition hears of the same grant, if it is held still.
    async fn take_once(
        &self,
        key: IdempotencyKey,
        arrived: Instant,
    ) -> Result<HttpResponse, Answer> {
        if self.asked.wait {
            let why = "with an Idempotency-Key nobody waits for a role: leave out one of the two";
            return Err(Answer::bad_request(why.to_owned()));
        }
        // The command must be the same at whichever node it comes in, so none is named: whoever has
        // the grant takes it over at once, below, or it runs out.
        let number = name_hash(&self.role);
        let client = Client {
            key: ClientKey { service: name_hash(key.text().unwrap_or_default()), number },
            name: self.asked.holder.clone(),
            node: String::new(),
        };
        let (role, terms) = (self.role.clone(), self.terms);
        let take = Op::Take { role, client, terms, stand: false };
        match self.elections.say(take, Some(key)).await? {
            Said::Granted(grant) => self.renew(grant.epoch, arrived).await.map_err(taken),
            Said::Held(_, by) => Err(Answer::held(&self.role, Some(&by))),
            other => {
                let why = format!("role {}: unexpected answer {other:?}", self.role);
                Err(Answer::new(StatusCode::INTERNAL_SERVER_ERROR, why, "unknown"))
            }
        }
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
        let mut kept = kept(self.elections, &self.role, &self.asked.holder, epoch);
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

/// The role was granted, so that a renewal which did not come through leaves open how it is by now.
fn taken(mut failed: Answer) -> Answer {
    if failed.status == StatusCode::SERVICE_UNAVAILABLE {
        (failed.status, failed.outcome) = (StatusCode::GATEWAY_TIMEOUT, "unknown");
    }
    failed
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
pub(super) struct Resigning {
    holder: String,
    epoch: Option<Epoch>,
}

pub(super) async fn resign(
    elections: web::Data<Elections>,
    role: web::Path<String>,
    query: web::Query<Resigning>,
    http: HttpRequest,
) -> HttpResponse {
    let role = role.into_inner();
    let answer = async {
        let key = key_of(&elections, &http)?;
        let keyed = key.is_some();
        let present = meant(&elections, &role, key).await?;
        let Resigning { holder, epoch } = query.into_inner();
        let held = present.as_ref().filter(|present| {
            present.client.name == holder && epoch.is_none_or(|epoch| epoch == present.epoch)
        });
        let Some(Holder { epoch, .. }) = held else {
            return Err(Answer::held(&role, present.as_ref()));
        };
        if let Some(cell) = kept(&elections, &role, &holder, *epoch) {
            lock(elections.leases()).remove(&(role.clone(), holder.clone()));
            // No later answer revives the epoch.
            cell.give_up();
            elections.tell(ServiceMessage::Forget(cell.handle));
        }
        match elections.change_one(Op::Resign { role: role.clone(), epoch: *epoch }).await {
            // That lease is over, as it was asked for.
            Err(ElectionError::Refused(Refusal::NotHeld { .. } | Refusal::UnknownRole(_)))
                if keyed => {}
            done => done?,
        }
        Ok(HttpResponse::Ok().json(json!({
            "role": role, "holder": holder, "epoch": epoch, "outcome": "applied",
        })))
    };
    answer.await.unwrap_or_else(Answer::response)
}

/// Who holds the role that is to be resigned; with a key, who held it when that first came.
async fn meant(
    elections: &Elections,
    role: &str,
    key: Option<IdempotencyKey>,
) -> Result<Option<Holder>, Answer> {
    let Some(key) = key else {
        let view = elections.query(role).await?;
        return Ok(view.ok_or_else(|| Refusal::UnknownRole(role.to_owned()))?.holder);
    };
    // Nobody holds an epoch that is never granted: the log says, and remembers, how it is instead.
    let never = Op::Resign { role: role.to_owned(), epoch: Epoch::default() };
    match elections.say(never, Some(key)).await {
        Err(ElectionError::Refused(Refusal::NotHeld { holder, .. })) => Ok(holder),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(None),
    }
}

/// What this node keeps of a lease.
fn kept(elections: &Elections, role: &str, holder: &str, epoch: Epoch) -> Option<Arc<Cell>> {
    let leases = lock(elections.leases());
    let cell = leases.get(&(role.to_owned(), holder.to_owned()))?;
    let lease = cell.known().lease;
    lease.filter(|(grant, _, _)| grant.epoch == epoch).map(|_| Arc::clone(cell))
}

/// A renewal that was not answered is asked for again: the client waits, so it is alive.
const AGAIN: Duration = Duration::from_millis(100);

/// How long a renewal waits at most; by then most leases are over.
const PATIENCE: Duration = Duration::from_secs(4);

const ZERO: Duration = Duration::ZERO;
