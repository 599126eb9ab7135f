//! What operators want of the members: looked at once a turn by whoever leads, and answered when it
//! is so, or cannot be.

use synod_runtime::identity::{NodeId, NodeName};

use super::{Phase, Proposer};
use crate::{
    consensus::message::{Granted, HomeMessage, Wanted, Wish},
    effects::{Effects, To},
};

/// Wishes at once, of all homes; what is more is asked for again.
const WISHES_MAX: usize = 64;

/// A wish, and the home to answer.
#[derive(Debug, Clone)]
pub(super) struct OpenWish {
    home: NodeId,
    nonce: u64,
    wish: Wish,
}

/// What a leader thinks of a wish.
enum Answer {
    /// It is so.
    Granted,
    /// It cannot be: why, and what to do.
    Refused(String),
    /// It is on its way.
    Wait,
}

impl Proposer {
    /// A home passes a wish on.
    pub(super) fn wanted(&mut self, from: &NodeId, wanted: Wanted, out: &mut Effects<Self>) {
        if self.leads().is_none() {
            let news = self.leader_news();
            return out.send(self.home_of(from), HomeMessage::Leader(news));
        }
        let Wanted { nonce, wish } = wanted;
        let Phase::Leading(reign) = &mut self.phase else { return };
        let known = reign.wishes.iter().any(|open| open.home == *from && open.nonce == nonce);
        if !known && reign.wishes.len() < WISHES_MAX {
            reign.wishes.push(OpenWish { home: from.clone(), nonce, wish });
        }
    }

    /// Looks at every wish.
    pub(super) fn grant_wishes(&mut self, out: &mut Effects<Self>) {
        let Phase::Leading(reign) = &mut self.phase else { return };
        if reign.wishes.is_empty() || !reign.opened {
            return;
        }
        let mut left = Vec::new();
        for open in std::mem::take(&mut reign.wishes) {
            let end = match self.look_at(&open.wish) {
                Answer::Granted => Ok(()),
                Answer::Refused(why) => Err(why),
                Answer::Wait => {
                    left.push(open);
                    continue;
                }
            };
            let granted = Granted { nonce: open.nonce, end };
            out.send(self.home_of(&open.home), HomeMessage::Granted(granted));
        }
        let Phase::Leading(reign) = &mut self.phase else { return };
        reign.wishes = left;
    }

    fn home_of(&self, node: &NodeId) -> To {
        if *node == self.me { To::Here } else { To::Node(node.clone()) }
    }

    fn look_at(&mut self, wish: &Wish) -> Answer {
        match wish {
            Wish::Lead(name) => self.wish_to_lead(name),
        }
    }

    fn wish_to_lead(&mut self, name: &NodeName) -> Answer {
        if *name == self.me.name {
            return Answer::Granted;
        }
        let main = self.configuration().and_then(|c| c.mains.iter().find(|m| m.name == *name));
        let Some(main) = main.cloned() else {
            return Answer::Refused(format!("{name} is no main; only mains lead"));
        };
        if !self.could_lead(&main) {
            return Answer::Refused(format!("{name} is not there, or still catches up"));
        }
        self.hand_over(main);
        Answer::Wait
    }
}
