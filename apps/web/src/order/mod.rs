//! The agreed order: a replicated actor, under the log or under a group, that gives requests their
//! places and remembers what became of them at each site.
//!
//! - O1: places are given once, from 1, without gaps.
//! - O2: a request stays until every serving site has performed it; a site too far behind is
//!   quarantined instead, and while all of them are, nothing new is taken.
//! - O3: an `Idempotency-Key` has one place.
//! - O4: a site whose server failed where another's succeeded, or of which nobody knows whether it
//!   performed something, serves no more. The last site is never sent away.
//! - O5: a site is heard in its present life only.
//! - O6: a copy of a server counts only if the server performed nothing while it was made.
//! - O7: what came after a copy stays until it was performed where the copy went.
//! - O8: a server that itself knows what it performed is believed, be it more or less than was reported;
//!   its site goes on from there, if what came next is still kept.
//! - O9: a cluster has one order: where requests are ordered by a group, no site joins in the log.

mod compare;
mod keys;
mod message;
mod step;
mod table;
#[cfg(test)]
mod tests;
mod uploads;

pub(crate) use self::compare::{digest_request, digest_response};
pub use self::{
    message::{
        Announce, Arrange, Arranged, Copied, Done, Elsewhere, IsElsewhere, Join, Joined,
        KEPT_RESPONSE_MAX, Kept, Key, Last, Mend, News, Origin, Part, Recall, Report, Reported,
        Tend, Verdict, Wish,
    },
    step::Step,
    table::{
        BACKLOG_APART_MAX, BACKLOG_BYTES_MAX, BACKLOG_STEPS_MAX, Rebuild, Site, State,
        TAIL_BYTES_MAX, TAIL_STEPS_MAX, Web,
    },
};

/// The name of the actor.
pub const NAME: &str = "web";
