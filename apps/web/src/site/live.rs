//! The lives of a site, and its work in each: what is ordered, performed at its server.

use std::{cell::Cell, collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{
    FutureExt as _, StreamExt as _, future::LocalBoxFuture, stream::FuturesUnordered,
};
use synod::server::config::RedoPolicy;
use tokio::time::sleep;

use super::{
    Place, Site,
    beside::{Touching, apart},
    notes::Facts,
    perform::{Ended, perform},
    rebuild,
};
use crate::{
    Answer, OrderError, Touches,
    order::{Done, Elsewhere, Join, Joined, Kept, Report, Step, Verdict, Web},
    slip::{self, Slip},
};

/// Begins one life after the other.
pub(super) async fn live(site: Site) {
    // What is begun anew after a panic knows as little of its server as after a crash.
    site.set_down(None);
    if let Err(why) = settle(&site).await {
        tracing::error!(why, "this site cannot join the others");
        site.set_place(Place::Quarantined(why));
        return std::future::pending().await;
    }
    loop {
        let mut joined = join(&site, None).await;
        let recalls = site.0.server.recalls() && !slip::is(Slip::TrustsItsNotes);
        if recalls && joined.quarantined.is_none() {
            let performed = recall(&site, &joined).await;
            joined = join(&site, Some((joined.lineage, performed))).await;
        }
        let Joined { epoch, lineage, applied, last, quarantined, .. } = joined;
        if let Some(why) = quarantined
            && !slip::is(Slip::IgnoresQuarantine)
        {
            tracing::error!(why, "the server behind this site is quarantined");
            site.set_place(Place::Quarantined(why));
            tokio::select! {
                biased;
                () = readmitted(&site, epoch) => {}
                () = rebuild::mend(&site, epoch) => {}
            }
            continue;
        }
        let known = site.0.facts.get();
        let facts = match known.lineage == lineage {
            true if recalls => Facts { answered: applied, ..known },
            true => Facts { answered: known.answered.max(applied), ..known },
            false => Facts { lineage, answered: applied, ..Facts::default() },
        };
        if known.lineage != lineage {
            // What failed had its place in another order.
            site.0.doubt.set(None);
        }
        if known.lineage == lineage && !recalls {
            // What was told of it and not noted it may have failed.
            site.doubt(if applied > known.answered { applied } else { facts.lost });
        }
        keep(&site, facts).await;
        if !slip::is(Slip::ShowsWhatIsLost) || facts.answered > *site.0.applied.borrow() {
            site.0.applied.send_replace(facts.answered);
        }
        site.0.untold.borrow_mut().clear();
        site.set_place(Place::Serving { epoch });
        // Whatever changed before it could be told.
        site.0.tell.notify_one();
        tracing::info!(site = site.0.name, applied = facts.answered, "joined the order");
        // What has its place only since then was never sent.
        let (reserved, once) = (facts.reserved.min(last), facts.once.min(last));
        let began = Facts { reserved, once, ..facts };
        Work::new(&site, epoch, began).run().await;
        site.0.still.send_replace(None);
        site.set_place(Place::Joining);
    }
}

/// Lets the log hear that requests are ordered elsewhere, if so, until it has (O9).
async fn settle(site: &Site) -> Result<(), String> {
    let Some(log) = &site.0.log else { return Ok(()) };
    loop {
        match log.send(Elsewhere {}).await {
            Ok(heard) => return heard,
            Err(why) => tracing::debug!(%why, "the log has not heard yet where the order is"),
        }
        sleep(JOIN_PAUSE).await;
    }
}

/// Says that it is here until it is heard; with what its server says that it performed, and of which
/// state, when that was asked.
async fn join(site: &Site, recalled: Option<(u64, u64)>) -> Joined {
    let facts = site.0.facts.get();
    let recalls = site.0.server.recalls();
    let lineage = recalled.map_or(facts.lineage, |(lineage, _)| lineage);
    let join = Join {
        site: site.0.name.clone(),
        upstream: site.0.config.upstream.clone(),
        lineage: (lineage != 0).then_some(lineage),
        applied: facts.answered,
        // A server that knows leaves nothing unknown.
        lost: if recalls { 0 } else { facts.lost },
        on_mismatch: site.0.config.on_mismatch,
        exports: site.0.carrier.is_some(),
        recalls,
        recalled: recalled.map(|(_, performed)| performed),
    };
    loop {
        match site.0.order.send(join.clone()).await {
            Ok(joined) => return joined,
            Err(why) => tracing::debug!(%why, "not joined yet"),
        }
        sleep(JOIN_PAUSE).await;
    }
}

/// Asks the server what it performed, until it says so (S6).
async fn recall(site: &Site, joined: &Joined) -> u64 {
    let mut pause = PAUSE_MIN;
    loop {
        let why = match site.0.server.recall(joined.order).await {
            Ok(performed) => {
                site.set_down(None);
                return performed;
            }
            Err(why) => why,
        };
        if site.set_down(Some(why.clone())) {
            let (name, done) = (site.0.name.clone(), Vec::new());
            let report = Report { site: name, epoch: joined.epoch, done, down: Some(why) };
            // For people: whether it is heard does not matter.
            drop(site.0.order.send(report).await);
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Waits until somebody says that the server was made good.
async fn readmitted(site: &Site, epoch: u64) {
    let mut news = site.0.desk.news();
    loop {
        let now = site.0.desk.read(|web| {
            web.sites().get(&site.0.name).map(|one| (one.epoch, one.quarantined().is_some()))
        });
        match now {
            Some(Some((newer, false))) if newer > epoch => return,
            // Nobody knows it any more: it may join anew.
            Some(None) => sleep(JOIN_PAUSE).await,
            Some(Some(_)) | None => {}
        }
        if news.changed().await.is_err() {
            return;
        }
    }
}

/// Notes, until that is durable: nothing is done before.
async fn keep(site: &Site, facts: Facts) {
    site.0.facts.set(facts);
    while let Err(why) = site.0.notes.keep(&facts).await {
        tracing::error!(%why, "the site's notes cannot be written");
        sleep(JOIN_PAUSE).await;
    }
}

/// The work of one life.
struct Work<'a> {
    site: &'a Site,
    epoch: u64,
    /// What it knew when this life began.
    began: Facts,
    /// How far its own replica said that it is.
    told: Cell<u64>,
    next: u64,
    /// Those before it that meet what is with the server, or one another: they wait, in their order.
    behind: Touching<Arc<Step>>,
    in_flight: FuturesUnordered<LocalBoxFuture<'a, (Arc<Step>, Ended)>>,
    touched: BTreeMap<u64, Touches>,
    /// Ended before others that stand before them.
    ended: BTreeMap<u64, Done>,
}

/// What a site is to do next.
enum Look {
    /// Nothing more in this life.
    Over,
    /// These, as far as they do not meet others.
    Steps(Vec<Arc<Step>>),
    /// Nothing new, so that its server can be copied.
    Still,
}

impl<'a> Work<'a> {
    fn new(site: &'a Site, epoch: u64, began: Facts) -> Self {
        let next = began.answered + 1;
        let in_flight = FuturesUnordered::new();
        Self {
            site,
            epoch,
            began,
            told: Cell::new(0),
            next,
            behind: Vec::new(),
            in_flight,
            touched: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    /// Until this life is over. What is with the server then has no answer that counts.
    async fn run(mut self) {
        let mut news = self.site.0.desk.news();
        loop {
            match self.look() {
                Look::Over => return,
                Look::Steps(steps) => {
                    self.site.0.still.send_replace(None);
                    self.begin(steps).await;
                }
                Look::Still => {
                    // A copy holds all before a number and nothing behind it: what was passed by is
                    // performed first.
                    self.begin(Vec::new()).await;
                    let done = self.site.0.facts.get().answered;
                    let still = self.in_flight.is_empty().then_some(done);
                    let told = &self.site.0.still;
                    told.send_if_modified(|now| std::mem::replace(now, still) != still);
                }
            }
            tokio::select! {
                biased;
                Some((step, ended)) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    if let Ended::Behind(performed) = ended {
                        tracing::warn!(performed, "the server behind this site lost what it had");
                        return;
                    }
                    self.end(&step, ended);
                }
                () = self.site.0.server.lost() => return,
                changed = news.changed() => if changed.is_err() {
                    return;
                },
            }
            self.site.sweep(self.epoch);
        }
    }

    /// What its own replica says.
    fn look(&self) -> Look {
        let room = WINDOW.saturating_sub(self.in_flight.len() + self.behind.len()) as u64;
        let executed = self.site.0.desk.executed().0;
        let look = self.site.0.desk.read(|web| {
            let Some(me) = web.sites().get(&self.site.0.name) else { return Look::Over };
            let away = me.quarantined().is_some() && !slip::is(Slip::IgnoresQuarantine);
            if me.epoch > self.epoch || away || self.went_back(web, me, executed) {
                return Look::Over;
            }
            if me.epoch == self.epoch {
                self.told.set(me.applied);
            }
            // O6: until the copy is told of, or wanted no more.
            let still = me.epoch == self.epoch && web.to_copy(&self.site.0.name).is_some();
            if still && !slip::is(Slip::CopiesInMotion) {
                return Look::Still;
            }
            // Its replica may not have come to this life yet.
            let room = if me.held || me.epoch < self.epoch { 0 } else { room };
            Look::Steps((self.next..).take(room as usize).map_while(|seq| web.step(seq)).collect())
        });
        look.unwrap_or(Look::Steps(Vec::new()))
    }

    /// Whether the order is another than it was, as after a restore: other requests have its places.
    /// A replica that had `executed` its joining and does not know of it has another state since.
    fn went_back(&self, web: &Web, me: &crate::order::Site, executed: u64) -> bool {
        if me.epoch < self.epoch {
            return executed >= self.epoch;
        }
        // The same epoch of another cluster goes with another lineage.
        me.lineage != self.began.lineage
            || me.applied < self.told.get()
            || web.last() + 1 < self.next
    }

    /// Sends what meets neither what is with the server nor anything that waits before it (S1).
    async fn begin(&mut self, steps: Vec<Arc<Step>>) {
        let server = &self.site.0.server;
        if let Some(last) = steps.last() {
            self.next = last.seq + 1;
        }
        let new = steps.into_iter().map(|step| (server.touches(&step.request), step));
        let all = std::mem::take(&mut self.behind).into_iter().chain(new);
        let (go, behind) = apart(all, &self.touched);
        self.behind = behind;
        let mut sent = Vec::new();
        for (touches, step) in go {
            self.touched.insert(step.seq, touches);
            let policy = server.redo(&step.request);
            sent.push((step, policy));
        }
        self.note(&sent).await;
        for (step, policy) in sent {
            let before = self.may_have_been_sent(step.seq, policy);
            self.in_flight.push(match policy {
                RedoPolicy::Rebuild if before => {
                    let why = "its site ended between sending it and the answer".to_owned();
                    std::future::ready((step, Ended::Lost(why))).boxed_local()
                }
                RedoPolicy::Rebuild | RedoPolicy::Resend => {
                    perform(self.site, step, before, policy).boxed_local()
                }
            });
        }
    }

    /// S2: notes that these may be sent.
    async fn note(&self, sent: &[(Arc<Step>, RedoPolicy)]) {
        let last = |of: RedoPolicy| {
            let last = sent.iter().rev().find(|(_, policy)| *policy == of);
            last.map_or(0, |(step, _)| step.seq)
        };
        let facts = self.site.0.facts.get();
        let (once, again) = (last(RedoPolicy::Rebuild), last(RedoPolicy::Resend));
        if slip::is(Slip::NotesBeforeTheAnswer) {
            self.site.0.notes.keep_lazily(&Facts { answered: once.max(again), ..facts });
        }
        let reserved = if again > facts.reserved { again + RESERVED } else { facts.reserved };
        let noted = Facts { reserved, once: once.max(facts.once), ..facts };
        if noted != facts && !slip::is(Slip::ForgetsWhatWasSent) {
            keep(self.site, noted).await;
        }
    }

    /// Whether a request was perhaps sent in an earlier life (S2).
    fn may_have_been_sent(&self, seq: u64, policy: RedoPolicy) -> bool {
        match policy {
            _ if slip::is(Slip::ForgetsWhatWasSent) => false,
            RedoPolicy::Rebuild if slip::is(Slip::DoubtsTheLastOnly) => seq == self.began.once,
            RedoPolicy::Rebuild => seq <= self.began.once,
            RedoPolicy::Resend => seq <= self.began.reserved,
        }
    }

    fn end(&mut self, step: &Step, ended: Ended) {
        let inner = &self.site.0;
        let seq = step.seq;
        self.touched.remove(&seq);
        let (verdict, response, answer) = match ended {
            Ended::Answered { response, redone } => {
                let status = response.status;
                let verdict = match redone {
                    true => Verdict::Redone { status },
                    false => {
                        let digest = inner.server.digest(&step.request, &response);
                        Verdict::Answered { status, digest }
                    }
                };
                let wanted =
                    step.keyed && inner.desk.read(|web| web.wants_answer(seq)).unwrap_or_default();
                let kept = wanted.then(|| Kept::of(&response));
                (verdict, kept, Ok(Answer { seq, response, replayed: false }))
            }
            Ended::Lost(why) => (Verdict::Lost(why.clone()), None, Err(OrderError::Unknown(why))),
            Ended::Performed | Ended::Behind(_) => {
                let why = format!("it was performed as {seq}, and its answer was lost");
                (Verdict::Redone { status: 200 }, None, Err(OrderError::Unknown(why)))
            }
        };
        if step.origin.site == inner.name
            && let Some(caller) = inner.callers.borrow_mut().remove(&step.origin.ticket)
        {
            // One that went away is not waited for.
            drop(caller.send(answer));
        }
        let mut facts = inner.facts.get();
        let told_apart = match verdict {
            Verdict::Answered { status, .. } | Verdict::Redone { status } => status >= 500,
            Verdict::Lost(_) => true,
        };
        if told_apart {
            // It may be noted as done and forgotten in a crash: the others must hear of it.
            facts.lost = facts.lost.max(seq);
            // Of this site's own requests nobody was told anything better, but who repeats one elsewhere.
            if step.origin.site != inner.name || step.keyed {
                self.site.doubt(seq);
            }
        }
        self.ended.insert(seq, Done { seq, verdict, response });
        let unsure = facts.answered < facts.once;
        while let Some(done) = self.ended.remove(&(facts.answered + 1)) {
            facts.answered = done.seq;
            inner.untold.borrow_mut().push(done);
        }
        inner.facts.set(facts);
        if unsure && facts.answered >= seq {
            // The sooner, the less likely is a crash that leaves its fate unknown.
            inner.notes.keep_lazily(&facts);
        }
        inner.applied.send_if_modified(|applied| {
            let more = facts.answered > *applied;
            *applied = facts.answered;
            more
        });
        inner.tell.notify_one();
    }
}

impl Site {
    /// Notes whether the server can be reached; whether that is new.
    pub(super) fn set_down(&self, down: Option<String>) -> bool {
        if *self.0.down.borrow() == down {
            return false;
        }
        match &down {
            Some(why) => tracing::warn!(why, "the server behind this site cannot be reached"),
            None => tracing::info!("the server behind this site is back"),
        }
        if down.is_some() {
            // It answers its clients so until people mend it.
            self.0.standing.set_placed();
        }
        *self.0.down.borrow_mut() = down;
        // Who waits for it to join looks again.
        self.0.place.send_modify(|_| ());
        self.0.tell.notify_one();
        true
    }
}

/// Requests with the server at once.
const WINDOW: usize = 64;

/// So many requests more may be sent after one note: a sync of the disk for each would be slow, and
/// after a crash so many at most are marked as sent before that were not.
const RESERVED: u64 = 256;

/// Between two attempts to be heard.
const JOIN_PAUSE: Duration = Duration::from_millis(200);

/// Between two attempts to reach a server.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The same, when it has been away for long.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(1);
