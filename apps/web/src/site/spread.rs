//! Large bodies, kept apart from the order: at two sites before their requests have places, at each site
//! before its server performs them (B1, B2).

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use actix_rt::task::JoinHandle;
use bytes::Bytes;
use futures_util::{StreamExt as _, future::select_ok, stream};
use synod::runtime::watch;
use tokio::time::{sleep, timeout};

use super::{ORDER_PATIENCE, Site, wait};
use crate::{
    Apart, Courier, Holding, OrderError, Request,
    bodies::{APART_FROM, PIECE_BYTES, Store},
    order::{Announce, Origin, Part, Step, Web},
    slip::{self, Slip},
};

/// What a site needs to keep bodies apart.
#[derive(Clone)]
pub struct Bodies {
    /// Its disk.
    pub store: Store,
    /// The way to the other sites.
    pub courier: Rc<dyn Courier>,
}

/// Bodies that come from other sites now, by their digests and these sites.
pub(super) type Fetching = BTreeMap<(String, String), (Rc<watch::Sender<Fetch>>, JoinHandle<()>)>;

/// How far one of them is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fetch {
    /// So many bytes came.
    Came(u64),
    /// It is kept here.
    Whole,
    /// The other site does not keep it.
    Nowhere,
    /// Why it did not come.
    Failed(String),
}

impl Site {
    /// Sees to a large body before its request is ordered: what is left of the request, and how many
    /// pieces of it went ahead. Two sites keep the body, or else it goes through the order.
    pub(super) async fn send_body(
        &self,
        mut request: Request,
        origin: &Origin,
    ) -> Result<(Request, u32), OrderError> {
        if request.body_bytes() <= APART_FROM as u64 {
            return Ok((request, 0));
        }
        let Some(bodies) = &self.0.bodies else {
            return self.send_parts(request, None, origin).await;
        };
        let kept = match request.apart.take() {
            Some(body) => Ok(body),
            None => bodies.store.keep(request.body.clone()).await,
        };
        let body = kept.map_err(|why| OrderError::NotApplied(why.to_string()))?;
        match self.spread(bodies, &body, origin).await {
            Ok(()) => Ok((Request { body: Bytes::new(), apart: Some(body), ..request }, 0)),
            Err(why) if body.bytes > PARTS_BYTES_MAX => {
                let why = format!("two sites must keep a body of {} bytes: {why}", body.bytes);
                Err(OrderError::NotApplied(why))
            }
            Err(why) => {
                tracing::debug!(why, "a large body goes through the order");
                self.send_parts(request, Some(&body), origin).await
            }
        }
    }

    /// Sends a body through the order, piece by piece.
    async fn send_parts(
        &self,
        request: Request,
        apart: Option<&Apart>,
        origin: &Origin,
    ) -> Result<(Request, u32), OrderError> {
        let mut rest = match apart.and_then(|apart| apart.held.as_ref()) {
            Some(held) => held
                .up_to(0, usize::MAX)
                .await
                .map_err(|why| OrderError::NotApplied(why.to_string()))?,
            None => request.body.clone(),
        };
        let mut index = 0;
        while !rest.is_empty() {
            let bytes = rest.split_to(rest.len().min(PART_BYTES));
            let part = Part { origin: origin.clone(), index, bytes };
            let put = self.0.order.send(part).timeout(ORDER_PATIENCE).await;
            // Whatever became of a piece: the request itself was not even asked for.
            let why = match put {
                Ok(Ok(())) => {
                    index += 1;
                    continue;
                }
                Ok(Err(why)) => why,
                Err(error) => error.to_string(),
            };
            return Err(OrderError::NotApplied(why));
        }
        Ok((Request { body: Bytes::new(), ..request }, index))
    }

    /// Has a body kept by another site, too, so that its request may have a place (B1). The order knows
    /// of it from then on, for a while.
    ///
    /// # Errors
    /// Too few sites keep it.
    async fn spread(&self, bodies: &Bodies, body: &Apart, origin: &Origin) -> Result<(), String> {
        self.announce(body, origin).await?;
        if self.others(false).is_empty() {
            // Nobody else will ever need it.
            return Ok(());
        }
        let others = self.others(true);
        let asked = others.iter().map(|at| Box::pin(self.held_at(bodies, at, body, origin)));
        match asked.collect::<Vec<_>>() {
            none if none.is_empty() => Err("no other site serves".to_owned()),
            asked => select_ok(asked).await.map(drop),
        }
    }

    /// Tells the order that a body is being kept: it stays wherever that is known.
    async fn announce(&self, body: &Apart, origin: &Origin) -> Result<(), String> {
        let announce = Announce { origin: origin.clone(), body: body.clone() };
        let heard = self.0.order.send(announce).timeout(ORDER_PATIENCE).await;
        heard.map_err(|why| why.to_string())??;
        // B2: here, too, before anybody here lets go of it.
        let known = wait(self, |web| web.wants(&body.digest).then_some(()));
        timeout(ORDER_PATIENCE, known).await.map_err(|_| "the order is far ahead".to_owned())
    }

    /// Waits until a site keeps a body.
    async fn held_at(
        &self,
        bodies: &Bodies,
        at: &str,
        body: &Apart,
        origin: &Origin,
    ) -> Result<(), String> {
        let (mut came, mut idle) = (0, 0);
        let mut announced = self.0.clock.now();
        loop {
            let why = match bodies.courier.hold(at, body).await {
                Ok(Holding::Whole) => return Ok(()),
                Ok(Holding::Came(bytes)) if bytes > came => {
                    (came, idle) = (bytes, 0);
                    continue;
                }
                Ok(Holding::Came(_)) => "nothing more of it comes there".to_owned(),
                Err(why) => why,
            };
            idle += 1;
            if idle >= HOLD_TRIES {
                return Err(format!("{at} does not keep it: {why}"));
            }
            sleep(HOLD_PAUSE).await;
            let now = self.0.clock.now();
            if now.since(announced) > ANNOUNCE_EVERY {
                announced = now;
                self.announce(body, origin).await?;
            }
        }
    }

    /// Another site asks this one to keep a body that it has.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn hold(&self, from: &str, body: &Apart) -> Result<Holding, String> {
        let Some(bodies) = &self.0.bodies else { return Err("no bodies are kept here".into()) };
        // One that is away has other things to fetch.
        self.epoch().map_err(|why| why.to_string())?;
        let so_far = watch::Sender::new(0);
        let look = async {
            // B2: what this site has not seen announced it would not keep.
            wait(self, |web| web.wants(&body.digest).then_some(())).await;
            let mut fetching = self.fetching(bodies, from, body);
            loop {
                let now = fetching.borrow().clone();
                match now {
                    Fetch::Came(bytes) => so_far.send_replace(bytes),
                    Fetch::Whole => return Ok(Holding::Whole),
                    Fetch::Nowhere => return Err(format!("{from} does not keep it itself")),
                    Fetch::Failed(why) => return Err(why),
                };
                if fetching.changed().await.is_err() {
                    return Err("it was given up".to_owned());
                }
            }
        };
        let looked = timeout(HOLD_LOOK, look).await;
        looked.unwrap_or_else(|_| Ok(Holding::Came(*so_far.borrow())))
    }

    /// What is kept here of a body from `offset` on; none if it is not.
    ///
    /// # Errors
    /// The disk refuses.
    pub async fn body_piece(&self, body: &Apart, offset: u64) -> Result<Option<Bytes>, String> {
        match &self.0.bodies {
            Some(bodies) => bodies.store.piece(body, offset).await.map_err(|why| why.to_string()),
            None => Ok(None),
        }
    }

    /// The body of a request that is to be performed, however long it takes to be had. None when no
    /// site keeps it any more.
    pub(super) async fn body_of(&self, step: &Step, body: &Apart) -> Option<Apart> {
        let bodies = self.0.bodies.as_ref()?;
        let mut pause = FETCH_PAUSE;
        loop {
            let mut why = match bodies.store.held(body).await {
                Ok(Some(held)) => return Some(held),
                Ok(None) => String::new(),
                Err(why) => why.to_string(),
            };
            let mut others = self.others(false);
            others.sort_by_key(|other| *other != step.origin.site);
            let mut without = 0;
            for other in &others {
                let mut fetching = self.fetching(bodies, other, body);
                let ended = fetching.wait_for(|now| !matches!(now, Fetch::Came(_))).await;
                match ended.map(|now| now.clone()) {
                    Ok(Fetch::Nowhere) => without += 1,
                    Ok(Fetch::Failed(failed)) => why = format!("{other}: {failed}"),
                    Ok(Fetch::Whole | Fetch::Came(_)) | Err(_) => break,
                }
            }
            if without == others.len() && why.is_empty() {
                tracing::error!(seq = step.seq, ?body, "no site keeps the body of this request");
                return None;
            }
            if !why.is_empty() {
                tracing::warn!(seq = step.seq, ?body, why, "a body cannot be had; once more");
                sleep(pause).await;
                pause = (pause * 2).min(FETCH_PAUSE_MAX);
            }
        }
    }

    /// The other sites that the order knows, or those of them that serve.
    fn others(&self, serving: bool) -> Vec<String> {
        let named = |web: &Web| {
            let others = web.sites().iter().filter(|(name, _)| **name != self.0.name);
            let others = others.filter(|(_, site)| !serving || site.quarantined().is_none());
            others.map(|(name, _)| name.clone()).collect()
        };
        self.0.desk.read(named).unwrap_or_default()
    }

    /// Fetches a body from another site, unless that is under way.
    fn fetching(&self, bodies: &Bodies, from: &str, body: &Apart) -> watch::Receiver<Fetch> {
        let mut all = self.0.fetching.borrow_mut();
        let name = (body.digest.clone(), from.to_owned());
        if let Some((under_way, _)) = all.get(&name) {
            return under_way.subscribe();
        }
        let told = Rc::new(watch::Sender::new(Fetch::Came(0)));
        let receiver = told.subscribe();
        let (site, bodies, sender) = (self.clone(), bodies.clone(), Rc::clone(&told));
        let (from, body, ended) = (from.to_owned(), body.clone(), name.clone());
        let task = actix_rt::spawn(async move {
            let how = fetch(&bodies, &from, &body, &sender).await;
            site.0.fetching.borrow_mut().remove(&ended);
            sender.send_replace(how);
        });
        all.insert(name, (told, task));
        receiver
    }

    /// Lets go of bodies that the order has no more, as far as this site has seen, which is all up to
    /// the beginning of its life `epoch` at least: what it was asked to keep before stands there (B2).
    pub(super) fn sweep(&self, epoch: u64) {
        let Some(bodies) = &self.0.bodies else { return };
        if bodies.store.is_empty() {
            return;
        }
        // A replica that has no state yet says nothing.
        let _read = self.0.desk.read(|web| {
            let has_begun = web.sites().get(&self.0.name).is_some_and(|me| me.epoch >= epoch);
            if has_begun {
                let too_soon = slip::is(Slip::SweepsTooSoon);
                bodies.store.sweep(|digest| web.wants(digest) && !too_soon);
            }
        });
    }
}

/// Brings a body here.
async fn fetch(bodies: &Bodies, from: &str, body: &Apart, told: &watch::Sender<Fetch>) -> Fetch {
    match bodies.store.held(body).await {
        Ok(Some(_)) => return Fetch::Whole,
        Ok(None) => {}
        Err(why) => return Fetch::Failed(why.to_string()),
    }
    let mut draft = bodies.store.draft();
    let offsets = (0..body.bytes).step_by(PIECE_BYTES);
    let pieces = offsets.map(|offset| piece(&*bodies.courier, from, body, offset));
    let mut pieces = stream::iter(pieces).buffered(PIECES_AHEAD);
    while let Some(piece) = pieces.next().await {
        let put = match piece {
            Ok(Some(piece)) => draft.put(piece).await.map_err(|why| why.to_string()),
            Ok(None) => return Fetch::Nowhere,
            Err(why) => Err(why),
        };
        if let Err(why) = put {
            return Fetch::Failed(why);
        }
        told.send_replace(Fetch::Came(draft.len()));
    }
    match draft.finish().await {
        // B3. Another one is named otherwise, so that nobody finds it.
        Ok(kept) if kept == *body => Fetch::Whole,
        Ok(_) => Fetch::Failed(format!("what came from {from} is not what was sent")),
        Err(why) => Fetch::Failed(why.to_string()),
    }
}

/// A piece of a body; once more when the way there was broken.
async fn piece(
    courier: &dyn Courier,
    from: &str,
    body: &Apart,
    offset: u64,
) -> Result<Option<Bytes>, String> {
    let mut tries = 0;
    loop {
        match courier.fetch(from, body, offset).await {
            Err(_) if tries < PIECE_TRIES => tries += 1,
            had => return had,
        }
        sleep(HOLD_PAUSE).await;
    }
}

/// A body goes through the order in such pieces: each must fit one command, and soon others' too.
const PART_BYTES: usize = if cfg!(test) { 2 } else { 1 << 20 };

/// The most that goes through the order of one body: every main has it in memory.
const PARTS_BYTES_MAX: u64 = 64 << 20;

/// Asked for before they are kept: what a way of 80 ms holds, at 24 MB/s.
const PIECES_AHEAD: usize = 8;

/// How long a site that is asked to keep a body waits before it says how far it is.
const HOLD_LOOK: Duration = Duration::from_secs(1);

/// So often in a row without progress: then the other site counts as unable, and clients wait no more.
const HOLD_TRIES: u32 = 3;

/// Between two attempts that failed.
const HOLD_PAUSE: Duration = Duration::from_millis(100);

/// With the pause, what a link takes to notice that it is broken.
const PIECE_TRIES: u32 = 3;

/// A body that takes long to come is announced again, well before it is forgotten.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(20);

/// Between two attempts to have the body of what must be performed.
const FETCH_PAUSE: Duration = Duration::from_millis(100);

/// The same, after many.
const FETCH_PAUSE_MAX: Duration = Duration::from_secs(2);

impl std::fmt::Debug for Bodies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bodies").field("store", &self.store).finish_non_exhaustive()
    }
}
