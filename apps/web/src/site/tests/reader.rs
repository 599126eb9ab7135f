//! Readers of a walk: what they must not be shown.

use super::*;

impl Walk {
    /// A reader: what it is shown is no less than it was told that the server performed, and than others
    /// were told before.
    pub(super) async fn look(&self, name: &str) {
        let Some(site) = self.site(name) else { return };
        let good = |told: &Told| {
            let answer = told.answer.as_ref().ok().filter(|one| one.response.status < 500)?;
            (told.site != name).then_some(answer.seq)
        };
        let acknowledged: Vec<u64> = self.told.borrow().iter().filter_map(good).collect();
        let Ok(seen) = site.fresh(Fresh::Linearizable).await else { return };
        let (server, alive) = (&self.servers[name], self.site(name).is_some());
        let failed = |seq: &&u64| server.done.borrow().failed.contains(seq);
        let missing = acknowledged.iter().find(failed).filter(|_| alive);
        if let Some(seq) = missing.filter(|seq| self.is_elsewhere(name, **seq)) {
            let why = format!("{name} shows {seen} to a reader, and failed {seq}");
            self.stale.borrow_mut().get_or_insert(why);
        }
        if !self.faults.numbers {
            return;
        }
        let last = server.done.borrow().last();
        // One that lost something is another process, and is not asked.
        if alive && !server.is_behind() && last < seen {
            let why = format!("{name} shows {last} to a reader of {seen}");
            self.stale.borrow_mut().get_or_insert(why);
        }
    }

    /// Whether another site that counts has performed this itself: what it has is there.
    fn is_elsewhere(&self, name: &str, seq: u64) -> bool {
        let sites = self.sites.borrow();
        let others = sites[name].1.read(|web| {
            let mut others = web.sites().iter().filter(|(other, _)| *other != name);
            others.any(|(_, site)| site.quarantined().is_none() && site.since < seq)
        });
        others == Some(true)
    }
}
