//! Servers made again as another's is (R5.32, R5.41): who is copied, and what is kept until then.
//!
//! - O6: a copy counts only if its source performed nothing from before it was begun until it was
//!   told of: the source is still for as long as the rebuild waits for the copy, and what may have
//!   made it go on ends the rebuild first.
//! - O7: what came after the copy stays until its taker has performed it, or the rebuild has ended.

use actix::Handler;
use serde::{Deserialize, Serialize};
use synod::replicated::{Turn, rand::Rng as _};

use super::{Site, State, Web};
use crate::{
    order::{Copied, Mend, News},
    slip::{self, Slip},
};

/// A server that is being made as another's is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// Names it.
    pub id: u64,
    /// The site that is copied.
    pub from: String,
    /// The copy, once it is made; until then the source's server is still.
    pub copy: Option<Copied>,
    /// Bytes of it that have come, as far as was told.
    pub came: u64,
}

impl Web {
    /// Whether a site can go on after that number.
    pub(super) fn continues(&self, applied: u64) -> bool {
        applied <= self.last
            && (applied == self.last
                || self.steps.first_key_value().is_some_and(|(first, _)| *first <= applied + 1))
    }

    /// The rebuild for which this site's server is to be copied, and still until it is.
    pub fn to_copy(&self, site: &str) -> Option<u64> {
        let mut all = self.rebuilds();
        let wanted = all.find(|(_, one)| one.from == site && one.copy.is_none());
        wanted.map(|(_, one)| one.id)
    }

    /// The rebuild of that name, while it goes on.
    pub fn rebuild(&self, id: u64) -> Option<&Rebuild> {
        self.rebuilds().map(|(_, one)| one).find(|one| one.id == id)
    }

    fn rebuilds(&self) -> impl Iterator<Item = (&str, &Rebuild)> {
        self.sites.iter().filter_map(|(name, site)| Some((name.as_str(), site.rebuild.as_ref()?)))
    }

    /// What the oldest copy under way has performed (O7).
    pub(super) fn lowest_copy(&self) -> Option<u64> {
        self.rebuilds().filter_map(|(_, one)| Some(one.copy.as_ref()?.at)).min()
    }

    /// Ends the rebuilds of, and from, `site`.
    pub(super) fn end_rebuilds(&mut self, site: &str, why: &str) {
        for (name, one) in &mut self.sites {
            if one.rebuild.as_ref().is_some_and(|rebuild| name == site || rebuild.from == site) {
                (one.rebuild, one.trouble) = (None, Some(why.to_owned()));
            }
        }
    }

    /// Ends a rebuild for which everything new is kept, or waits; whether there was one.
    pub(super) fn give_up_a_rebuild(&mut self) -> bool {
        let holds = |(taker, one): (&str, &Rebuild)| {
            let at = match &one.copy {
                Some(copy) => Some(copy.at),
                None => self.sites.get(&one.from).map(|source| source.applied),
            };
            at.is_some_and(|at| at <= self.settled).then(|| taker.to_owned())
        };
        let Some(taker) = self.rebuilds().find_map(holds) else { return false };
        self.end_rebuilds(&taker, "too much was ordered meanwhile to be kept for it");
        true
    }

    /// Begins a rebuild of `name`.
    fn begin_rebuild(&mut self, name: &str, turn: &Turn) -> Result<u64, String> {
        self.end_rebuilds(name, "it was begun anew");
        let free = |(other, site): (&String, &Site)| {
            let good = site.quarantined().is_none() && site.exports && site.down.is_none();
            (good && other != name && self.to_copy(other).is_none()).then(|| other.clone())
        };
        let found = self.sites.iter().find_map(free);
        let from = found.ok_or("no other site serves that can be copied now")?;
        let id = turn.position().0;
        let Some(site) = self.sites.get_mut(name) else { return Err(format!("no site {name}")) };
        site.rebuild = Some(Rebuild { id, from, copy: None, came: 0 });
        Ok(id)
    }

    /// The quarantined server of `name` has become what the copy is.
    fn end_rebuild_well(&mut self, name: &str, id: u64, turn: &mut Turn) -> Result<u64, String> {
        let last = self.last;
        let site = self.sites.get_mut(name).filter(|site| site.id_of_rebuild() == Some(id));
        let site = site.ok_or("that rebuild has ended")?;
        let copy = site.rebuild.as_ref().and_then(|rebuild| rebuild.copy.as_ref());
        let copied = copy.ok_or("there is no copy yet")?.at;
        let at = if slip::is(Slip::SkipsTheTail) { last } else { copied };
        site.begin_again(at, last, turn);
        self.settle();
        Ok(at)
    }
}

impl Site {
    fn id_of_rebuild(&self) -> Option<u64> {
        self.rebuild.as_ref().map(|rebuild| rebuild.id)
    }

    /// A new life with a server that has performed everything up to `at`: what the site still says
    /// of the old one is not heard.
    pub(super) fn begin_again(&mut self, at: u64, last: u64, turn: &mut Turn) {
        self.epoch = turn.position().0;
        self.lineage = turn.rng().next_u64();
        (self.since, self.applied, self.until) = (at, at, last);
        self.state = State::Serving;
        (self.rebuild, self.trouble) = (None, None);
    }
}

impl Handler<Mend> for Web {
    type Result = Result<u64, String>;

    fn handle(&mut self, mend: Mend, turn: &mut Turn) -> Result<u64, String> {
        let Mend { site: name, epoch, news } = mend;
        let known = self.sites.get(&name).ok_or_else(|| format!("no site {name}"))?;
        if known.epoch != epoch {
            return Err(format!("site {name} has begun another life"));
        }
        let away = known.quarantined().is_some();
        let mine = |id: u64| known.id_of_rebuild() == Some(id);
        let of_mine = |id: u64| self.rebuild(id).is_some_and(|one| one.from == name);
        let allowed = match &news {
            News::Wanted => away,
            News::Came { id, .. } | News::Taken { id } => away && mine(*id),
            News::Copied { id, .. } => !away && of_mine(*id),
            News::Failed { id, .. } => mine(*id) || of_mine(*id),
        };
        if !allowed {
            return Err("that rebuild has ended, or is none".to_owned());
        }
        match news {
            News::Wanted => self.begin_rebuild(&name, turn),
            News::Taken { id } => self.end_rebuild_well(&name, id, turn),
            News::Came { id, bytes } => {
                self.change_rebuild(id, |one| one.came = bytes);
                Ok(id)
            }
            News::Copied { id, copy } => {
                // Said once more, it is the same.
                self.change_rebuild(id, |one| one.copy = Some(one.copy.take().unwrap_or(copy)));
                Ok(id)
            }
            News::Failed { id, why } => {
                let taker = self.rebuilds().find(|(_, one)| one.id == id);
                let taker = taker.map(|(taker, _)| taker.to_owned()).unwrap_or_default();
                self.end_rebuilds(&taker, &why);
                self.settle();
                Ok(id)
            }
        }
    }
}

impl Web {
    fn change_rebuild(&mut self, id: u64, change: impl FnOnce(&mut Rebuild)) {
        let mut all = self.sites.values_mut().filter_map(|site| site.rebuild.as_mut());
        if let Some(one) = all.find(|one| one.id == id) {
            change(one);
        }
    }
}
