//! A site: one main, its server, and whoever waits there.
//!
//! - S1: the server is asked only for what is ordered, in its order; two requests are with it at the
//!   same time only if they touch different things.
//! - S2: before a request is sent it is noted, durably, that it may have been; what must not be sent
//!   twice is not sent again.
//! - S3: a caller gets the answer of this site's own server.
//! - S4: a quarantined site asks its server nothing and answers nobody.
//! - S5: a server that took in less than the whole of a copy stays quarantined.
//! - S6: a server that knows what it performed is asked before each life, and the site shows no more
//!   than that.
//! - S7: a site whose server failed what another site's client asked for answers nobody from it until the
//!   others have said what became of it there.
//!
//! # Layout
//! - [`Site`]: the way in; `gather`: places given together
//! - `live`: its lives, and the work in each; `beside`: which requests wait for which; `perform`: one request at
//!   the server
//! - `doubt`: what failed here, and perhaps nowhere else
//! - `report`: telling the others; [`notes`]: what must not be forgotten
//! - `spread`: large bodies, kept apart from the order
//! - `rebuild`: a server made again as another's is

mod beside;
mod doubt;
mod gather;
mod live;
pub mod notes;
mod perform;
mod rebuild;
mod report;
mod spread;
mod standing;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_rt::task::JoinHandle;
use bytes::Bytes;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use synod::{
    replicated::{CallError, Consistency, Desk, Handle},
    runtime::watch,
    runtime::world::{Clock, Instant},
    server::config::WebConfig,
};
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use self::{
    doubt::Doubt,
    gather::Pace,
    notes::{Facts, Notes},
    rebuild::wait,
    spread::Fetching,
};
pub use self::{spread::Bodies, standing::Standing};
use crate::{
    Answer, Carrier, Copy, Form, Fresh, Identity, Order, OrderError, Past, Request, Response,
    metrics::WebMetrics,
    order::{Arrange, Arranged, Done, Kept, Key, Last, Origin, Recall, Web, digest_request},
    slip::{self, Slip},
    tireless::tireless,
};

/// What a site is made of.
pub struct Parts {
    /// The main's name.
    pub name: String,
    /// How its server is treated.
    pub config: WebConfig,
    /// What its replica of the order executed.
    pub desk: Arc<Desk<Web>>,
    /// The way into the order.
    pub order: Handle<Web>,
    /// The way into the log, where that is not the order: it hears so before this site joins.
    pub log: Option<Handle<Web>>,
    /// The server.
    pub server: Rc<dyn Form>,
    /// What carries its content; none: an operator does.
    pub carrier: Option<Rc<dyn Carrier>>,
    /// Where it keeps large bodies; none: all of them go through the order.
    pub bodies: Option<Bodies>,
    /// What it noted in earlier lives, and where it goes on.
    pub notes: (Notes, Facts),
    /// A number that no other life of a site began with, for its callers' tickets.
    pub first_ticket: u64,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What it counts.
    pub metrics: WebMetrics,
    /// Where it says how it stands.
    pub standing: Arc<Standing>,
}

/// A running site. Cloning is cheap and gives the same one.
#[derive(Clone)]
pub struct Site(Rc<Inner>);

struct Inner {
    name: String,
    config: WebConfig,
    desk: Arc<Desk<Web>>,
    order: Handle<Web>,
    log: Option<Handle<Web>>,
    server: Rc<dyn Form>,
    carrier: Option<Rc<dyn Carrier>>,
    /// The copy that was made of the server, and for which rebuild.
    lent: RefCell<Option<(u64, Rc<dyn Copy>)>>,
    bodies: Option<Bodies>,
    fetching: RefCell<Fetching>,
    /// What the server has performed, while it is still so that it can be copied.
    still: watch::Sender<Option<u64>>,
    /// When the server was rebuilt last, and how often in a row.
    mended: Cell<Option<(Instant, u32)>>,
    notes: Notes,
    facts: Cell<Facts>,
    place: watch::Sender<Place>,
    /// What this site's server has performed, without gaps.
    applied: watch::Sender<u64>,
    /// The last that failed here, and perhaps nowhere else.
    doubt: Cell<Option<Doubt>>,
    /// How far the others were when they had been silent for too long.
    silent: Cell<Option<u64>>,
    /// Why the server cannot be reached at present.
    down: RefCell<Option<String>>,
    callers: RefCell<BTreeMap<u64, oneshot::Sender<Result<Answer, OrderError>>>>,
    next_ticket: Cell<u64>,
    /// What the others were not told yet, in order.
    untold: RefCell<Vec<Done>>,
    tell: Notify,
    clock: Arc<dyn Clock>,
    metrics: WebMetrics,
    pace: Pace,
    standing: Arc<Standing>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
}

/// Whether a site may order and answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// It does not know yet.
    Joining,
    /// It may, in this life.
    Serving { epoch: u64 },
    /// It may not.
    Quarantined(String),
}

impl Site {
    /// Starts it on the current arbiter. Dropping this ends nothing.
    pub fn start(parts: Parts) -> Self {
        let Parts { name, config, desk, order, log, server, carrier, bodies, .. } = parts;
        let Parts { first_ticket, notes: (notes, facts), clock, metrics, standing, .. } = parts;
        let site = Self(Rc::new(Inner {
            name,
            config,
            desk,
            order,
            log,
            server,
            carrier,
            lent: RefCell::default(),
            bodies,
            fetching: RefCell::default(),
            still: watch::Sender::new(None),
            mended: Cell::default(),
            notes,
            facts: Cell::new(facts),
            place: watch::Sender::new(Place::Joining),
            applied: watch::Sender::new(facts.answered),
            doubt: Cell::default(),
            silent: Cell::default(),
            down: RefCell::default(),
            callers: RefCell::default(),
            next_ticket: Cell::new(first_ticket),
            untold: RefCell::default(),
            tell: Notify::new(),
            clock,
            metrics,
            pace: Pace::default(),
            standing,
            tasks: RefCell::default(),
        }));
        site.spawn();
        site
    }

    /// Starts its work. What panics is begun anew: for what it was about it is as after a crash.
    fn spawn(&self) {
        let [of_site, of_reports, of_copies] = self.0.metrics.restarts();
        let live = {
            let (site, told) = (self.clone(), self.clone());
            let told = move |why: &str| {
                told.0.still.send_replace(None);
                told.set_place(Place::Joining);
                told.set_down(Some(format!("its site panicked: {why}")));
            };
            actix_rt::spawn(tireless(of_site, async move || live::live(site.clone()).await, told))
        };
        let site = self.clone();
        let report = async move || report::report(site.clone()).await;
        let report = actix_rt::spawn(tireless(of_reports, report, |_| ()));
        let site = self.clone();
        let lend = async move || rebuild::lend(site.clone()).await;
        let lend = actix_rt::spawn(tireless(of_copies, lend, |_| ()));
        self.0.tasks.borrow_mut().extend([live, report, lend]);
    }

    /// Ends it at once: its server is asked nothing more, and whoever waits does not know.
    pub fn abort(&self) {
        self.0.tasks.take().iter().for_each(JoinHandle::abort);
        self.0.fetching.take().values().for_each(|(_, task)| task.abort());
        self.0.callers.take();
    }

    /// Ends it, and writes its notes.
    pub fn close(&self) {
        self.abort();
        self.0.notes.keep_lazily(&self.0.facts.get());
        self.0.notes.close();
    }

    /// Its life, or why it may not order and answer.
    fn epoch(&self) -> Result<u64, OrderError> {
        match &*self.0.place.borrow() {
            Place::Joining => Err(OrderError::NotApplied(match &*self.0.down.borrow() {
                Some(why) => format!("the server behind this site cannot be reached: {why}"),
                None => "this site is about to join the others".to_owned(),
            })),
            Place::Serving { epoch } => Ok(*epoch),
            Place::Quarantined(why) => Err(OrderError::Quarantined(why.clone())),
        }
    }

    /// Its life; one that is about to begin is waited for a little, if the server is there.
    async fn joined(&self) -> Result<u64, OrderError> {
        let joins = || *self.0.place.borrow() == Place::Joining && self.0.down.borrow().is_none();
        if joins() {
            let mut place = self.0.place.subscribe();
            let joined = async { while joins() && place.changed().await.is_ok() {} };
            // Whatever it is by then is told.
            let _in_time = timeout(JOIN_PATIENCE, joined).await;
        }
        self.epoch()
    }

    fn set_place(&self, place: Place) {
        if let Place::Quarantined(why) = &place {
            // S4: what they asked for may be performed elsewhere, and their answers are not here.
            let why = format!("the server behind this site was quarantined: {why}");
            for (_, caller) in std::mem::take(&mut *self.0.callers.borrow_mut()) {
                // One that went away is not waited for.
                drop(caller.send(Err(OrderError::Unknown(why.clone()))));
            }
        }
        match &place {
            Place::Joining => {}
            Place::Serving { .. } => self.0.standing.set(None),
            Place::Quarantined(why) => self.0.standing.set(Some(why.clone())),
        }
        self.0.place.send_replace(place);
    }

    async fn order(&self, request: Request, identity: Identity) -> Result<Answer, OrderError> {
        let inner = &self.0;
        let epoch = self.joined().await.map_err(|why| match why {
            OrderError::Quarantined(_) => OrderError::NotApplied(why.to_string()),
            why => why,
        })?;
        if let Some(why) = &*inner.down.borrow() {
            let why = format!("the server behind this site cannot be reached: {why}");
            return Err(OrderError::NotApplied(why));
        }
        let started = inner.clock.now();
        let mut call = self.call();
        let origin = Origin { site: inner.name.clone(), epoch, ticket: call.ticket };
        let key = match identity {
            Identity::Key(name) => Some(Key { name, digest: digest_request(&request) }),
            Identity::Made => None,
        };
        let name = key.as_ref().map(|key| key.name.clone());
        let (request, parts) = self.send_body(request, &origin).await?;
        // B2: at hand until this ends, whatever this site has seen of the order by then.
        let _held = request.apart.clone();
        let asking = self.gather().await;
        let arrange = Arrange { origin, key, request, parts };
        let arranged = inner.order.send(arrange).timeout(ORDER_PATIENCE);
        let arranged = tokio::select! {
            biased;
            // The log may be slower to say that it has a place than the server is to perform it.
            answer = &mut call.answer => return answered(answer),
            arranged = arranged => arranged.map_err(not_ordered)?,
        };
        self.ordered(asking, started);
        match arranged {
            Arranged::At(seq) if slip::is(Slip::AnswersForAnother) => {
                let response = Response { status: 200, headers: Vec::new(), body: Bytes::new() };
                Ok(Answer { seq, response, replayed: false })
            }
            Arranged::At(seq) => self.wait(seq, &mut call.answer).await,
            Arranged::Before { seq } => self.replay(&name.unwrap_or_default(), seq).await,
            Arranged::KeyReused => Err(OrderError::KeyReused),
            Arranged::Refused(why) => Err(OrderError::NotApplied(why)),
        }
    }

    /// Waits for the answer to what has its place: not for long where the server is not even there.
    async fn wait(&self, seq: u64, answer: &mut Told) -> Result<Answer, OrderError> {
        let mut looks_down = 0;
        for _ in 0..SERVER_LOOKS {
            if let Ok(answer) = timeout(LOOK_PAUSE, &mut *answer).await {
                return answered(answer);
            }
            looks_down = if self.0.down.borrow().is_some() { looks_down + 1 } else { 0 };
            if looks_down >= DOWN_LOOKS {
                break;
            }
        }
        let why = format!("it is ordered as {seq} and the server has not answered yet");
        Err(OrderError::Unknown(why))
    }

    /// The answer that was given to a request before, at whichever site.
    async fn replay(&self, key: &str, seq: u64) -> Result<Answer, OrderError> {
        let mut news = self.0.desk.news();
        let found = async {
            loop {
                let kept = self.0.desk.read(|web| web.answer(key).cloned()).flatten();
                match kept {
                    Some(Kept::Whole(response)) => {
                        return Ok(Answer { seq, response, replayed: true });
                    }
                    Some(Kept::TooLarge { status }) => {
                        let why = format!(
                            "it was answered {status} as {seq}; the answer was too large to keep"
                        );
                        return Err(OrderError::Unknown(why));
                    }
                    None if news.changed().await.is_ok() => {}
                    None => return Err(OrderError::Unknown("the node stops".to_owned())),
                }
            }
        };
        timeout(SERVER_PATIENCE, found).await.unwrap_or_else(|_| {
            let why = format!("it is ordered as {seq} and no server has answered yet");
            Err(OrderError::Unknown(why))
        })
    }

    async fn see(&self, fresh: Fresh) -> Result<u64, OrderError> {
        self.joined().await?;
        let seq = match fresh {
            Fresh::Local => return Ok(*self.0.applied.borrow()),
            // Nobody has seen more than there is.
            Fresh::Since(seq) if seq > self.known() => seq.min(self.last().await?),
            Fresh::Since(seq) => seq,
            Fresh::Linearizable => self.last().await?,
        };
        let mut applied = self.0.applied.subscribe();
        let seen = timeout(READ_PATIENCE, applied.wait_for(|applied| *applied >= seq)).await;
        let seen = seen.ok().and_then(|seen| seen.ok().map(|seen| *seen));
        self.judged().await?;
        self.epoch()?;
        seen.ok_or_else(|| {
            let why = format!("the server behind this site has not performed {seq} yet");
            OrderError::NotApplied(why)
        })
    }

    async fn last(&self) -> Result<u64, OrderError> {
        let last = self.0.order.query(Last {}).timeout(READ_PATIENCE).await;
        last.map_err(not_read)
    }

    /// The last place given, as far as this node knows.
    fn known(&self) -> u64 {
        self.0.desk.read(Web::last).unwrap_or_default()
    }

    fn call(&self) -> Caller<'_> {
        let ticket = self.0.next_ticket.get();
        self.0.next_ticket.set(ticket.wrapping_add(1));
        let (tell, answer) = oneshot::channel();
        self.0.callers.borrow_mut().insert(ticket, tell);
        Caller { site: self, ticket, answer }
    }
}

impl Order for Site {
    fn perform(
        &self,
        request: Request,
        identity: Identity,
    ) -> LocalBoxFuture<'_, Result<Answer, OrderError>> {
        let judged = async {
            let answer = self.order(request, identity).await?;
            let unknown = |why: OrderError| OrderError::Unknown(why.to_string());
            self.judged().await.map_err(unknown).map(|()| answer)
        };
        judged.boxed_local()
    }

    fn fresh(&self, fresh: Fresh) -> LocalBoxFuture<'_, Result<u64, OrderError>> {
        self.see(fresh).boxed_local()
    }

    fn outcome<'a>(&'a self, key: &'a str) -> LocalBoxFuture<'a, Result<Past, OrderError>> {
        let recall = Recall { key: key.to_owned() };
        let asked = self.0.order.query(recall).consistency(Consistency::Linearizable);
        asked.map(|past| past.map_err(not_read)).boxed_local()
    }

    fn behind(&self) -> u64 {
        self.known().saturating_sub(*self.0.applied.borrow())
    }
}

/// Brings an answer.
type Told = oneshot::Receiver<Result<Answer, OrderError>>;

/// Somebody who waits for an answer, until dropped.
struct Caller<'a> {
    site: &'a Site,
    ticket: u64,
    answer: Told,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.site.0.callers.borrow_mut().remove(&self.ticket);
    }
}

fn answered(
    answer: Result<Result<Answer, OrderError>, oneshot::error::RecvError>,
) -> Result<Answer, OrderError> {
    answer.unwrap_or_else(|_| Err(OrderError::Unknown("the node stops".to_owned())))
}

/// Who only asked changed nothing.
fn not_read(error: CallError) -> OrderError {
    OrderError::NotApplied(match error {
        CallError::NotApplied(refusal) => refusal.text,
        other => other.to_string(),
    })
}

fn not_ordered(error: CallError) -> OrderError {
    match error {
        CallError::NotApplied(refusal) => OrderError::NotApplied(refusal.text),
        CallError::Unknown(why) | CallError::SessionExpired(why) => OrderError::Unknown(why),
        // It was tried, and has no effect.
        CallError::Failed(why) => OrderError::NotApplied(why),
        CallError::Unreadable { .. } => OrderError::Unknown(error.to_string()),
    }
}

/// How long a request waits for a site that is about to join: it is there sooner when all goes well.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);

/// How long the log may take: several fail-overs.
const ORDER_PATIENCE: Duration = Duration::from_secs(5);

/// How long a server may take for what is ordered, and for what was ordered before it.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether the server is there.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// The same patience in such looks.
const SERVER_LOOKS: u32 = 120;

/// So many in a row without a server: longer than one takes that is started again, shorter than
/// people wait. The client may ask the other site what became of its request.
const DOWN_LOOKS: u32 = 4;

/// How long a reader waits for what it must see.
const READ_PATIENCE: Duration = Duration::from_secs(5);

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("name", &self.name).finish_non_exhaustive()
    }
}
