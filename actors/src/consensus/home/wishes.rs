//! Wishes of operators: passed on to whoever leads, again and again until they are answered.

use synod_runtime::world::Instant;

use super::{Home, answer};
use crate::{
    consensus::message::{End, Granted, NewWish, ProposerMessage, Wanted, Wish},
    effects::Effects,
    machine::Now,
};

/// Wishes at once; operators are few.
const WISHES_MAX: usize = 64;

/// A wish that was not answered yet.
#[derive(Debug)]
pub(super) struct OpenWish {
    ticket: u64,
    wish: Wish,
    until: Instant,
    /// When the leader was told last.
    told: Option<Instant>,
    /// Somebody was told at all: it may come true.
    sent: bool,
}

impl Home {
    pub(super) fn wish(&mut self, now: Now, new: NewWish, out: &mut Effects<Self>) {
        let NewWish { ticket, wish, patience } = new;
        if self.wishes.len() >= WISHES_MAX {
            let why = "overloaded: too many wishes wait".to_owned();
            return answer(ticket, End::NotApplied(why), out);
        }
        self.rounds += 1;
        let until = now.at + patience;
        let open = OpenWish { ticket, wish, until, told: None, sent: false };
        self.wishes.insert(self.rounds, open);
    }

    /// A new leader has heard of none of them.
    pub(super) fn wish_again(&mut self) {
        self.wishes.values_mut().for_each(|open| open.told = None);
    }

    pub(super) fn granted(&mut self, granted: Granted, out: &mut Effects<Self>) {
        let Some(open) = self.wishes.remove(&granted.nonce) else { return };
        let end = match granted.end {
            Ok(()) => End::Done(0, bytes::Bytes::new()),
            Err(why) => End::Failed(0, why),
        };
        answer(open.ticket, end, out);
    }

    /// Tells the leader, and ends what nobody waits for any more.
    pub(super) fn pass_wishes(&mut self, now: Now, out: &mut Effects<Self>) {
        if self.wishes.is_empty() {
            return; // as in nearly every turn
        }
        let patience = 3 * self.timing.resend;
        // One without a quorum decides nothing: what it never heard of is surely not applied.
        let leader = self.serving().map(|leader| self.to_leader(leader));
        let halted = self.leader.halted.as_ref();
        let nobody = || match halted {
            Some(halted) => format!("no quorum: {halted}"),
            None => "no leader was found".to_owned(),
        };
        self.wishes.retain(|nonce, open| {
            if now.at >= open.until {
                let end = match open.sent {
                    false => End::NotApplied(nobody()),
                    true => End::Unknown("the leader did not say that it is so in time".to_owned()),
                };
                answer(open.ticket, end, out);
                return false;
            }
            if let Some(leader) = &leader
                && open.told.is_none_or(|at| now.at >= at + patience)
            {
                (open.told, open.sent) = (Some(now.at), true);
                let wanted = Wanted { nonce: *nonce, wish: open.wish.clone() };
                out.send(leader.clone(), ProposerMessage::Wanted(wanted));
            }
            true
        });
    }

    /// When to look again.
    pub(super) fn wishes_due(&self) -> Option<Instant> {
        let patience = 3 * self.timing.resend;
        let serving = self.serving().is_some();
        let again = |open: &OpenWish| match open.told.filter(|_| serving) {
            Some(at) => open.until.min(at + patience),
            None => open.until,
        };
        self.wishes.values().map(again).min()
    }
}
