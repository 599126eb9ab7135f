//! A server made again as another's is: the quarantined site asks for a copy and takes it in, the
//! one that serves has its server copied while that is still.
//!
//! - S5: a server that took in less than the whole of a copy stays quarantined.

use std::{future::pending, rc::Rc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use synod::{
    replicated::CallError,
    runtime::{digest::Sha256, world::Instant},
};
use tokio::time::{sleep, timeout};

use super::{Place, Site};
use crate::{
    Carrier, Copy,
    order::{Copied, Mend, News, Rebuild, Web},
    slip::{self, Slip},
};

/// Has the server of a quarantined site made again, as often as it takes. Never returns: that the
/// site is no more quarantined is heard in the log.
pub(super) async fn mend(site: &Site, epoch: u64) {
    let Some(carrier) = site.0.carrier.clone() else { return pending().await };
    // What was with the server when its site was sent away has ended by then, or its connection has.
    sleep(SETTLE_TIME).await;
    // Writes wait for each: a server that goes astray again and again is not to stop the other.
    let times = site.mended_lately();
    if times > 0 {
        let wait = (PAUSE_MIN * 2_u32.saturating_pow(times)).min(PAUSE_MAX);
        tracing::warn!(times, ?wait, "the server behind this site was rebuilt a short while ago");
        sleep(wait).await;
    }
    let mut pause = PAUSE_MIN;
    loop {
        let asked = tell(site, epoch, &News::Wanted).await;
        let why = match asked {
            Ok(id) => match taken(site, epoch, id, &*carrier).await {
                Ok(()) => return pending().await,
                Err(why) => {
                    let told = News::Failed { id, why: why.clone() };
                    // Refused when the rebuild has ended already.
                    drop(tell(site, epoch, &told).await);
                    why
                }
            },
            Err(why) => why,
        };
        tracing::warn!(why, ?pause, "the server behind this site is not rebuilt; once more");
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Takes in the copy of a rebuild, unless that ends before.
async fn taken(site: &Site, epoch: u64, id: u64, carrier: &dyn Carrier) -> Result<(), String> {
    let within = carrier.within();
    let take = async {
        let (from, copy) = copy_of(site, id).await;
        tracing::info!(from, at = copy.at, bytes = copy.bytes, "the server is being rebuilt");
        let mut progress = Progress { site, epoch, id, told: site.0.clock.now() };
        take_in(carrier, (&from, id), &copy, &mut progress).await?;
        // Before it is told, since this life ends with that.
        site.0.mended.set(Some((site.0.clock.now(), site.mended_lately().saturating_add(1))));
        tell(site, epoch, &News::Taken { id }).await.map(drop)
    };
    tokio::select! {
        biased;
        () = ended(site, id) => Err("it was given up".to_owned()),
        // The copy is made first, and has as long.
        taken = timeout(within * 2, take) => {
            taken.unwrap_or_else(|_| Err(format!("it took more than {:?}", within * 2)))
        }
    }
}

/// The copy of a rebuild and where it is, once it is made.
async fn copy_of(site: &Site, id: u64) -> (String, Copied) {
    let look = |one: &Rebuild| Some((one.from.clone(), one.copy.clone()?));
    wait(site, |web| web.rebuild(id).and_then(look)).await
}

/// Waits until there is no such rebuild any more.
async fn ended(site: &Site, id: u64) {
    // It is as old as its name: before, this node's replica may not know it yet.
    wait(site, |web| web.rebuild(id).map(drop)).await;
    wait(site, |web| web.rebuild(id).is_none().then_some(())).await;
}

/// Waits for something in what this node's replica has executed.
pub(super) async fn wait<T>(site: &Site, look: impl Fn(&Web) -> Option<T>) -> T {
    let mut news = site.0.desk.news();
    loop {
        if let Some(found) = site.0.desk.read(&look).flatten() {
            return found;
        }
        if news.changed().await.is_err() {
            // The node stops.
            return pending().await;
        }
    }
}

/// Gives the whole of a copy to the command that takes it in (S5).
async fn take_in(
    carrier: &dyn Carrier,
    (from, id): (&str, u64),
    copy: &Copied,
    progress: &mut Progress<'_>,
) -> Result<(), String> {
    let mut intake = carrier.import(id, copy.bytes)?;
    let offsets = (0..copy.bytes).step_by(PIECE_BYTES);
    let fetched = offsets.map(|offset| fetch(carrier, from, id, offset));
    let mut pieces = stream::iter(fetched).buffered(PIECES_AHEAD);
    let (mut digest, mut came) = (Sha256::default(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        digest.update(&piece);
        came += piece.len() as u64;
        intake.put(piece).await?;
        progress.tell(came).await;
    }
    if digest.finish() != copy.digest && !slip::is(Slip::TakesAPart) {
        return Err(format!("what came of the server of {from} is not what was sent"));
    }
    intake.finish().await
}

/// A piece of a copy; once more when the way there was broken.
async fn fetch(carrier: &dyn Carrier, from: &str, id: u64, offset: u64) -> Result<Bytes, String> {
    let mut tries = 0;
    loop {
        match carrier.fetch(from, id, offset).await {
            Ok(piece) => return Ok(piece),
            Err(_) if slip::is(Slip::TakesAPart) => return Ok(Bytes::new()),
            Err(why) if tries >= FETCH_TRIES => {
                return Err(format!("the copy at {from} cannot be had: {why}"));
            }
            Err(_) => tries += 1,
        }
        sleep(FETCH_PAUSE).await;
    }
}

/// Tells how much came, now and then.
struct Progress<'a> {
    site: &'a Site,
    epoch: u64,
    id: u64,
    told: Instant,
}

impl Progress<'_> {
    async fn tell(&mut self, bytes: u64) {
        let now = self.site.0.clock.now();
        if now.since(self.told) >= PROGRESS_PAUSE {
            self.told = now;
            let news = News::Came { id: self.id, bytes };
            // For people: whether it is heard does not matter.
            drop(self.site.0.order.send(self.mend(news)).await);
        }
    }

    fn mend(&self, news: News) -> Mend {
        Mend { site: self.site.0.name.clone(), epoch: self.epoch, news }
    }
}

/// Says something until the order has heard it.
async fn tell(site: &Site, epoch: u64, news: &News) -> Result<u64, String> {
    loop {
        let mend = Mend { site: site.0.name.clone(), epoch, news: news.clone() };
        match site.0.order.send(mend).await {
            Ok(heard) => return heard,
            Err(why @ CallError::Failed(_)) => return Err(why.to_string()),
            Err(why) => tracing::debug!(%why, "a word on a rebuild was not heard; said again"),
        }
        sleep(FETCH_PAUSE).await;
    }
}

/// Has this site's server copied whenever another site needs that.
pub(super) async fn lend(site: Site) {
    let Some(carrier) = site.0.carrier.clone() else { return };
    let mut news = site.0.desk.news();
    let mut last = 0;
    loop {
        let wanted = site.0.desk.read(|web| web.to_copy(&site.0.name)).flatten();
        let lent = site.0.lent.borrow().as_ref().map(|(id, _)| *id);
        let over = |id: u64| site.0.desk.read(|web| web.rebuild(id).is_none()).unwrap_or_default();
        if lent.is_some_and(over) {
            // The disk is free again.
            site.0.lent.take();
        }
        if let Some(id) = wanted.filter(|id| *id > last) {
            let place = site.0.place.borrow().clone();
            let Place::Serving { epoch } = place else {
                // It is about to.
                sleep(FETCH_PAUSE).await;
                continue;
            };
            last = id;
            copy(&site, epoch, id, &*carrier).await;
        }
        if news.changed().await.is_err() {
            return;
        }
    }
}

/// Copies this site's server, and tells how that went.
async fn copy(site: &Site, epoch: u64, id: u64, carrier: &dyn Carrier) {
    let mut still = site.0.still.subscribe();
    let make = async {
        let at = match slip::is(Slip::CopiesInMotion) {
            true => Some(*site.0.applied.borrow()),
            false => still.wait_for(Option::is_some).await.ok().and_then(|at| *at),
        };
        let at = at.ok_or("the node stops")?;
        tracing::info!(id, at, "the server behind this site is being copied; writes wait");
        Ok::<_, String>((at, carrier.export(id).await?))
    };
    let made = tokio::select! {
        biased;
        () = ended(site, id) => return,
        made = timeout(carrier.within(), make) => made,
    };
    let made = made.unwrap_or_else(|_| Err(format!("no copy within {:?}", carrier.within())));
    let news = match made {
        Ok((at, copy)) => {
            let (bytes, digest) = (copy.len(), copy.digest().to_owned());
            *site.0.lent.borrow_mut() = Some((id, copy));
            News::Copied { id, copy: Copied { at, bytes, digest } }
        }
        Err(why) => News::Failed { id, why: format!("copying {}: {why}", site.0.name) },
    };
    if let Err(why) = tell(site, epoch, &news).await {
        tracing::warn!(id, why, "nobody wants the copy of this site's server any more");
    }
}

impl Site {
    /// How often its server was rebuilt, each time shortly after the last.
    fn mended_lately(&self) -> u32 {
        let now = self.0.clock.now();
        let lately = self.0.mended.get().filter(|(at, _)| now.since(*at) < OFTEN);
        lately.map_or(0, |(_, times)| times)
    }

    /// A piece of the copy that was made of this site's server for a rebuild.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn piece(&self, id: u64, offset: u64) -> Result<Bytes, String> {
        let lent = self.0.lent.borrow().clone();
        let copy: Rc<dyn Copy> = match lent {
            Some((known, copy)) if known == id => copy,
            Some(_) | None => return Err(format!("no copy was made for rebuild {id}")),
        };
        copy.read(offset, PIECE_BYTES).await
    }
}

/// What one message brings of a copy: it shares the way with the protocol's own.
const PIECE_BYTES: usize = if cfg!(test) { 64 } else { 256 << 10 };

/// Asked for before they are taken in: what a way of 80 ms holds, at 12 MB/s.
const PIECES_AHEAD: usize = 4;

/// With the pause, what a link takes to come back; then the rebuild begins anew.
const FETCH_TRIES: u32 = 20;

/// Between two attempts at a piece, or a word.
const FETCH_PAUSE: Duration = Duration::from_millis(500);

/// How often the log has a word on how far it is.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);

/// From quarantine to rebuild: servers end what they have begun.
const SETTLE_TIME: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1_000 });

/// Between two rebuilds that came to nothing: writes may have waited for the first.
const PAUSE_MIN: Duration = Duration::from_secs(2);

/// A server that was rebuilt within this time is rebuilt again only after a pause.
const OFTEN: Duration = Duration::from_secs(600);

/// The longest of either pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
