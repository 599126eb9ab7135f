//! The actor: places, sites, and what is still to be performed.

mod bodies;
mod elsewhere;
mod rebuild;

use std::{collections::BTreeMap, sync::Arc};

use actix::{Actor, Handler};
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use synod::{
    replicated::{Query, Replicated, Turn, rand},
    server::config::OnMismatch,
};

use super::{
    Announce, Arrange, Arranged, Done, Elsewhere, IsElsewhere, Join, Joined, Last, Mend, Part,
    Recall, Report, Reported, Step, Tend, Verdict, Wish, keys::Keys, uploads::Uploads,
};
use crate::{
    Past,
    slip::{self, Slip},
};

pub use self::{bodies::BACKLOG_APART_MAX, rebuild::Rebuild};

/// The agreed order. See the module's documentation.
#[derive(Debug, Default, Serialize, Deserialize, Replicated)]
#[replicated(
    name = "web",
    commands(Arrange, Part, Join, Report, Tend, Mend, Elsewhere, Announce),
    queries(Last, Recall, IsElsewhere)
)]
pub struct Web {
    /// The last place given.
    last: u64,
    /// Every serving site has performed everything up to here.
    settled: u64,
    /// What is not settled, and a tail of what is, for sites that come late.
    steps: BTreeMap<u64, Arc<Step>>,
    /// Bytes of what is not settled.
    backlog_bytes: usize,
    /// Bytes of the tail, in memory and on disk.
    tail_bytes: u64,
    sites: BTreeMap<String, Site>,
    /// What each site said of a place that is not settled.
    verdicts: BTreeMap<u64, BTreeMap<String, Verdict>>,
    keys: Keys,
    uploads: Uploads,
    on_mismatch: OnMismatch,
    /// Told to servers that keep a number of it; 0 while no site has such a one.
    #[serde(default)]
    name: u64,
    /// O9: nothing is ordered here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    elsewhere: bool,
    /// B2: how many requests that are kept have this body, of those kept apart.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    apart: BTreeMap<String, u32>,
    /// Bytes of them in what is not settled.
    #[serde(default, skip_serializing_if = "is_zero")]
    backlog_apart: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A server and the main before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Names its present life.
    pub epoch: u64,
    /// Names the state its server began with; its notes are of this one or of none.
    pub lineage: u64,
    /// What that state had performed.
    pub since: u64,
    /// For people.
    pub upstream: String,
    /// It has performed everything up to here, as far as it said.
    pub applied: u64,
    /// It catches up until it has reached this.
    pub until: u64,
    /// Whether it counts.
    pub state: State,
    /// How often it answered otherwise than the others.
    pub diverged: u64,
    /// Its server performs nothing for now, as an operator wants.
    pub held: bool,
    /// Why its server cannot be reached, when it said so last.
    pub down: Option<String>,
    /// Its server can be copied.
    #[serde(default)]
    pub exports: bool,
    /// Its server is being made as another's is.
    #[serde(default)]
    pub rebuild: Option<Rebuild>,
    /// Why the last rebuild came to nothing.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// Whether a site counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Everything ordered is performed there.
    #[default]
    Serving,
    /// Nothing is, until its server is made as another's is.
    Quarantined(String),
}

impl Site {
    fn quarantine(&mut self, why: String) {
        // The first reason is what led to the others.
        if self.state == State::Serving {
            self.state = State::Quarantined(why);
        }
    }

    /// Why it must not perform anything, if so.
    pub fn quarantined(&self) -> Option<&str> {
        match &self.state {
            State::Serving => None,
            State::Quarantined(why) => Some(why),
        }
    }
}

impl Actor for Web {
    type Context = Turn;
}

impl Web {
    /// The last place given.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Every serving site has performed everything up to here.
    pub const fn settled(&self) -> u64 {
        self.settled
    }

    /// The request at that place, while it is kept.
    pub fn step(&self, seq: u64) -> Option<Arc<Step>> {
        self.steps.get(&seq).cloned()
    }

    /// All sites by name.
    pub const fn sites(&self) -> &BTreeMap<String, Site> {
        &self.sites
    }

    /// What was answered to the request at this place, if it is kept.
    pub fn answer(&self, key: &str) -> Option<&super::Kept> {
        self.keys.get(key).and_then(|known| known.response.as_ref())
    }

    /// Whether an answer for the request at this place would be kept.
    pub fn wants_answer(&self, seq: u64) -> bool {
        self.keys.wants(seq)
    }

    /// A site may speak, and order, in its present life only (O5).
    fn check(&self, site: &str, epoch: u64) -> Result<&Site, String> {
        let known = self.sites.get(site).ok_or_else(|| format!("site {site} has not joined"))?;
        if known.epoch != epoch {
            return Err(format!("site {site} has begun another life"));
        }
        match known.quarantined() {
            Some(why) => Err(format!("site {site} is quarantined: {why}")),
            None => Ok(known),
        }
    }

    /// Makes room by leaving sites behind that are much further back than another (O2).
    fn shed(&mut self) -> Result<(), String> {
        while self.last - self.settled >= BACKLOG_STEPS_MAX
            || self.backlog_bytes >= BACKLOG_BYTES_MAX
            || self.backlog_apart >= BACKLOG_APART_MAX
        {
            if self.give_up_a_rebuild() {
                self.settle();
                continue;
            }
            let serving = || self.sites.iter().filter(|(_, site)| site.quarantined().is_none());
            let first = serving().map(|(_, site)| site.applied).max().unwrap_or(self.last);
            let behind = serving().min_by_key(|(_, site)| site.applied);
            let ahead = first - self.settled >= (self.last - self.settled) / 2;
            let Some((name, _)) = behind.filter(|(_, site)| ahead && site.applied < first) else {
                let open = self.last - self.settled;
                return Err(format!("{open} ordered requests wait for the servers already"));
            };
            let name = name.clone();
            self.quarantine(&name, "it was too far behind the others".to_owned());
            self.settle();
        }
        Ok(())
    }

    /// Sends a site away, unless it is the last (O4).
    fn quarantine(&mut self, name: &str, why: String) {
        let serving = self.sites.iter().filter(|(_, site)| site.quarantined().is_none());
        if serving.filter(|(other, _)| *other != name).count() == 0 {
            if let Some(site) = self.sites.get_mut(name) {
                site.diverged += 1;
            }
            return;
        }
        if let Some(site) = self.sites.get_mut(name) {
            site.quarantine(why);
        }
        self.end_rebuilds(name, "the site that was copied was quarantined, too");
    }

    /// Compares what all serving sites have performed, and lets it go.
    fn settle(&mut self) {
        let serving = self.sites.values().filter(|site| site.quarantined().is_none());
        let reached = serving.map(|site| site.applied);
        let reached = match slip::is(Slip::LetsGoTooSoon) {
            true => reached.max(),
            false => reached.min(),
        };
        let Some(reached) = reached else { return };
        let reached = reached.min(self.lowest_copy().unwrap_or(u64::MAX));
        while self.settled < reached.min(self.last) {
            self.settled += 1;
            let seq = self.settled;
            let step = self.steps.get(&seq);
            let (weight, apart) = step.map_or((0, 0), |step| (step.weight(), step.apart_bytes()));
            self.backlog_bytes -= weight;
            self.backlog_apart -= apart;
            self.tail_bytes += weight as u64 + apart;
            let verdicts = self.verdicts.remove(&seq).unwrap_or_default();
            self.judge(seq, &verdicts);
        }
        while let Some((&seq, step)) = self.steps.first_key_value() {
            let tail = self.settled.saturating_sub(seq) + 1;
            let full = tail > TAIL_STEPS_MAX
                || self.tail_bytes > TAIL_BYTES_MAX
                || slip::is(Slip::LetsGoTooSoon);
            if seq > self.settled || !full {
                return;
            }
            self.tail_bytes -= step.weight() as u64 + step.apart_bytes();
            let body = step.request.apart.clone();
            self.steps.remove(&seq);
            self.lets_go_of(body.as_ref());
        }
    }

    /// O4: who failed where another succeeded goes; who differs from the most is counted, and goes if
    /// that is wanted. Of two halves that of the site whose client was answered is believed.
    fn judge(&mut self, seq: u64, verdicts: &BTreeMap<String, Verdict>) {
        let failed = |status: u16| status >= 500;
        // One that crashed before it told would have said that it failed: it has performed this.
        let silent = self.sites.iter().any(|(name, site)| {
            site.quarantined().is_none() && site.since < seq && !verdicts.contains_key(name)
        });
        let succeeded = silent
            || verdicts.values().any(|verdict| match verdict {
                Verdict::Answered { status, .. } | Verdict::Redone { status } => !failed(*status),
                Verdict::Lost(_) => false,
            });
        let mut votes: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
        let origin = self.steps.get(&seq).map(|step| step.origin.site.clone());
        for (site, verdict) in verdicts {
            if let Verdict::Answered { status, digest } = verdict
                && !(succeeded && failed(*status))
            {
                let vote = votes.entry(digest).or_default();
                vote.0 += 1;
                vote.1 |= Some(site) == origin.as_ref();
            }
        }
        let most = votes.iter().max_by_key(|(_, vote)| **vote).map(|(digest, _)| *digest);
        let mut gone = Vec::new();
        for (site, verdict) in verdicts {
            match verdict {
                Verdict::Answered { status, .. } | Verdict::Redone { status }
                    if succeeded && failed(*status) =>
                {
                    let why = format!("it answered {status} to request {seq}");
                    gone.push((site, why + ", which others performed"));
                }
                Verdict::Answered { digest, .. } if Some(digest.as_str()) != most => {
                    if let Some(known) = self.sites.get_mut(site) {
                        known.diverged += 1;
                    }
                    if self.on_mismatch == OnMismatch::Quarantine {
                        let why = format!("it answered request {seq} otherwise than others");
                        gone.push((site, why));
                    }
                }
                Verdict::Answered { .. } | Verdict::Redone { .. } | Verdict::Lost(_) => {}
            }
        }
        for (site, why) in gone.into_iter().filter(|_| !slip::is(Slip::KeepsWhoFailed)) {
            self.quarantine(site, why);
        }
    }
}

impl Handler<Arrange> for Web {
    type Result = Arranged;

    fn handle(&mut self, arrange: Arrange, turn: &mut Turn) -> Arranged {
        let Arrange { origin, key, request, parts } = arrange;
        self.uploads.expire(turn.time_ms());
        let body = self.uploads.take(&origin);
        let known = key.as_ref().and_then(|key| self.keys.get(&key.name).map(|known| (key, known)));
        if let Some((key, known)) = known
            && !slip::is(Slip::OrdersAKeyTwice)
        {
            return match known.digest == key.digest {
                true => Arranged::Before { seq: known.seq },
                false => Arranged::KeyReused,
            };
        }
        if let Err(why) =
            self.check(&origin.site, origin.epoch).map(drop).and_then(|()| self.shed())
        {
            return Arranged::Refused(why);
        }
        if body.parts.len() != parts as usize || body.apart != request.apart {
            return Arranged::Refused("its body, or a piece of it, is missing".to_owned());
        }
        self.last += 1; // O1
        let (seq, time_ms) = (self.last, turn.time_ms());
        let seed = turn.rng().next_u64();
        let keyed = key.is_some();
        if let Some(key) = key {
            self.keys.put(key, seq, time_ms); // O3
        }
        let step = Step { seq, time_ms, seed, origin, keyed, request, parts: body.parts };
        self.backlog_bytes += step.weight();
        self.backlog_apart += step.apart_bytes();
        self.holds_on_to(step.request.apart.as_ref());
        self.steps.insert(seq, Arc::new(step));
        Arranged::At(seq)
    }
}

impl Handler<Join> for Web {
    type Result = Joined;

    fn handle(&mut self, join: Join, turn: &mut Turn) -> Joined {
        let Join { site: name, upstream, lineage, applied: noted, lost, .. } = join;
        let Join { on_mismatch, exports, recalls, recalled, .. } = join;
        if let Some(refused) = self.refuse_join() {
            return refused;
        }
        self.on_mismatch = on_mismatch;
        self.uploads.forget(&name);
        self.end_rebuilds(&name, &format!("{name} began another life meanwhile"));
        let before = self.sites.remove(&name);
        let mut site = before.unwrap_or_else(|| {
            let site = Site { lineage: turn.rng().next_u64(), ..Site::default() };
            match lineage.is_some() && self.last > 0 {
                // Its server has performed something, which nobody here knows of.
                true => Site { state: State::Quarantined("it was removed".to_owned()), ..site },
                false => site,
            }
        });
        let unheard = lineage == Some(site.lineage) && lost > site.applied;
        if recalls && self.name == 0 {
            self.name = turn.rng().next_u64().max(1);
        }
        if let Some(performed) = recalled.filter(|_| lineage == Some(site.lineage)) {
            // O8: less than was reported, when it lost what was not yet durable.
            site.applied = performed;
        } else if lineage == Some(site.lineage) {
            // What was reported was performed, even if the note of it was not yet durable.
            site.applied = site.applied.max(noted);
        } else if site.applied > site.since && !recalls {
            let why = "it lost its notes of what its server performed";
            site.quarantine(why.to_owned());
        }
        if !self.continues(site.applied) {
            let why = format!("its server has performed {}, what came next is gone", site.applied);
            site.quarantine(why);
        }
        (site.epoch, site.upstream, site.until) = (turn.position().0, upstream, self.last);
        (site.down, site.exports) = (None, exports);
        let (epoch, lineage, applied) = (site.epoch, site.lineage, site.applied);
        self.sites.insert(name.clone(), site);
        if unheard {
            self.quarantine(&name, format!("nobody knows whether it performed request {lost}"));
        }
        self.settle();
        let quarantined = self.sites.get(&name).and_then(|site| site.quarantined());
        let quarantined = quarantined.map(str::to_owned);
        Joined { epoch, lineage, applied, last: self.last, quarantined, order: self.name }
    }
}

impl Handler<Report> for Web {
    type Result = Reported;

    fn handle(&mut self, report: Report, _: &mut Turn) -> Reported {
        let Report { site: name, epoch, done, down } = report;
        let Ok(site) = self.check(&name, epoch) else {
            return Reported { stale: true, applied: 0 };
        };
        let mut applied = site.applied;
        for Done { seq, verdict, response } in done {
            // Said once more, or out of order: only what comes next counts.
            if seq != applied + 1 || seq > self.last {
                continue;
            }
            applied = seq;
            if let Some(response) = response {
                self.keys.answered(seq, response);
            }
            if let Verdict::Lost(why) = &verdict {
                let why = format!("nobody knows whether it performed request {seq}: {why}");
                self.quarantine(&name, why);
            }
            if seq > self.settled {
                self.verdicts.entry(seq).or_default().insert(name.clone(), verdict);
            }
        }
        if let Some(site) = self.sites.get_mut(&name) {
            site.applied = applied;
            site.down = down;
        }
        self.settle();
        Reported { stale: false, applied }
    }
}

impl Handler<Tend> for Web {
    type Result = Result<u64, String>;

    fn handle(&mut self, tend: Tend, turn: &mut Turn) -> Result<u64, String> {
        let Tend { site: name, wish } = tend;
        let Some(site) = self.sites.get(&name) else {
            let names: Vec<_> = self.sites.keys().map(String::as_str).collect();
            return Err(format!("no site {name}; there are {}", names.join(", ")));
        };
        let applied = site.applied;
        match wish {
            Wish::Rejoin { at } if site.quarantined().is_none() => {
                return Err(format!("{name} is not quarantined; nothing changed at {at}"));
            }
            Wish::Rejoin { at } if at > self.last => return Err(format!("{at} has no request")),
            Wish::Rejoin { at } if !self.continues(at) => {
                return Err(format!("what came after {at} is no longer kept: copy a newer state"));
            }
            Wish::Hold | Wish::Release | Wish::Rejoin { .. } | Wish::Remove => {}
        }
        let last = self.last;
        let Some(site) = self.sites.get_mut(&name) else { return Err(format!("no site {name}")) };
        let answer = match wish {
            Wish::Hold | Wish::Release => {
                site.held = wish == Wish::Hold;
                applied
            }
            Wish::Rejoin { at } => {
                site.begin_again(at, last, turn);
                at
            }
            Wish::Remove => {
                self.sites.remove(&name);
                self.end_rebuilds(&name, &format!("{name} was removed"));
                applied
            }
        };
        self.settle();
        Ok(answer)
    }
}

impl Query<Last> for Web {
    fn query(&self, _: Last) -> u64 {
        self.last
    }
}

impl Query<Recall> for Web {
    fn query(&self, recall: Recall) -> Past {
        self.keys.past(&recall.key)
    }
}

/// Requests that wait for a server: minutes of a fast one's work, for a site that restarts.
pub const BACKLOG_STEPS_MAX: u64 = 100_000;

/// Their bytes: memory of every main, and part of every snapshot.
pub const BACKLOG_BYTES_MAX: usize = 128 << 20;

/// Performed requests that are kept for a site that comes a little late.
pub const TAIL_STEPS_MAX: u64 = 4_096;

/// Their bytes, with those of bodies kept apart.
pub const TAIL_BYTES_MAX: u64 = 8 << 20;
