//! O9: a cluster has one order. Where its sites are ordered by a group, the log's own table says so, and
//! takes no site in.

use actix::Handler;
use synod::replicated::{Query, Turn};

use super::{Elsewhere, IsElsewhere, Joined, Web};

impl Web {
    /// What a site is told that would join where nothing is ordered.
    pub(super) fn refuse_join(&self) -> Option<Joined> {
        let why =
            "the sites of this cluster are ordered by multicast: its node file must say so, too";
        self.elsewhere.then(|| Joined {
            epoch: 0,
            lineage: 0,
            applied: 0,
            last: 0,
            quarantined: Some(why.to_owned()),
            order: 0,
        })
    }
}

impl Handler<Elsewhere> for Web {
    type Result = Result<(), String>;

    fn handle(&mut self, _: Elsewhere, _: &mut Turn) -> Result<(), String> {
        if !self.elsewhere && !self.sites.is_empty() {
            return Err("the sites of this cluster are ordered by its log, and stay so".to_owned());
        }
        self.elsewhere = true;
        Ok(())
    }
}

impl Query<IsElsewhere> for Web {
    fn query(&self, _: IsElsewhere) -> bool {
        self.elsewhere
    }
}
