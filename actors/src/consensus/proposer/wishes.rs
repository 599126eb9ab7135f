//! What operators want of the members: looked at once a turn by whoever leads, and answered when it
//! is so, or cannot be.

use synod_runtime::identity::{NodeId, NodeName};

use super::{Phase, Proposer};
use crate::{
    consensus::{
        configuration::Configuration,
        message::{Granted, HomeMessage, NodeRole, Wanted, Wish},
    },
    effects::{Effects, To},
};

/// Wishes at once, of all homes; what is more is asked for again.
const WISHES_MAX: usize = 64;

/// Nodes of one cluster that operators may name: every configuration travels with every change.
const NODES_MAX: usize = 64;

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
    /// It takes this change.
    Change(Configuration),
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
                Answer::Change(change) => {
                    left.push(open); // granted once it is decided
                    if !self.is_changing() {
                        self.change_to(change);
                    }
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
            Wish::Add { name, role, address } => self.wish_to_add(name, *role, address),
            Wish::Remove(name) => self.wish_to_remove(name),
            Wish::Set { name, role } => self.wish_to_set(name, *role),
        }
    }

    /// Decided at once: from then on the node is waited for, and counts when it has caught up.
    fn wish_to_add(&self, name: &NodeName, role: NodeRole, address: &str) -> Answer {
        let Some(newest) = self.history.newest() else { return Answer::Wait };
        match newest.role_of(name) {
            Some(is) if is == role => {
                let known = newest.addresses.iter().find(|(known, _)| known == name);
                return match known.filter(|(_, known)| known != address) {
                    None => Answer::Granted,
                    Some((_, known)) => Answer::Refused(format!(
                        "{name} is there already, at {known}; remove it first"
                    )),
                };
            }
            Some(is) => {
                let is = is.as_str();
                return Answer::Refused(format!(
                    "{name} is there already, as {is}; remove it first"
                ));
            }
            None => {}
        }
        let known = newest.mains.len() + newest.auxiliaries.len() + newest.absent.len();
        if known + newest.expected.len() + newest.members.len() >= NODES_MAX {
            return Answer::Refused(format!("{NODES_MAX} nodes are enough; remove one first"));
        }
        Answer::Change(newest.expecting(name, role, address))
    }

    /// Never so that too few are left to decide anything.
    fn wish_to_remove(&mut self, name: &NodeName) -> Answer {
        let Some(newest) = self.history.newest().cloned() else { return Answer::Wait };
        if newest.role_of(name).is_none() {
            // Until then its vote may be needed: whoever asks may switch it off when we answer.
            if self.configuration().is_some_and(|c| c.role_of(name).is_some()) {
                return Answer::Wait;
            }
            let bearer = self.peers.get(name);
            // A member of the first hour is in no configuration.
            let member = bearer.filter(|peer| peer.role == NodeRole::Member && peer.up);
            return match member.filter(|peer| !newest.removed.contains(&peer.id)) {
                Some(member) => Answer::Change(newest.without(name, Some(member.id.clone()))),
                None if newest.removed.iter().any(|node| node.name == *name) => Answer::Granted,
                None => Answer::Refused(format!("no node is called {name}")),
            };
        }
        let bearer = self.peers.get(name).map(|peer| peer.id.clone());
        let next = newest.without(name, bearer.filter(|_| *name != self.me.name));
        self.take_from(name, next)
    }

    /// A main shall be a member, or a member a main.
    fn wish_to_set(&mut self, name: &NodeName, role: NodeRole) -> Answer {
        let Some(newest) = self.history.newest() else { return Answer::Wait };
        let is = newest.role_of(name).or_else(|| self.is_member_of_old(name));
        match (is, role) {
            (None, _) => Answer::Refused(format!("no node is called {name}")),
            (Some(NodeRole::Auxiliary), _) => Answer::Refused(format!(
                "{name} is an auxiliary, which holds no log; add another node in its place"
            )),
            (Some(_), NodeRole::Auxiliary) => Answer::Refused(format!(
                "{name} holds the log, and an auxiliary does not; add another node for that"
            )),
            (Some(is), role) if is == role => {
                // Until then its vote may be needed: whoever asks may switch it off when we answer.
                let still = self.configuration().is_some_and(|c| c.role_of(name) != Some(role));
                if still { Answer::Wait } else { Answer::Granted }
            }
            (Some(_), NodeRole::Main) => Answer::Change(newest.promoting(name)),
            (Some(_), NodeRole::Member) => {
                let next = newest.demoting(name);
                self.take_from(name, next)
            }
        }
    }

    /// A member of the first hour, in clusters that were founded before configurations named them.
    fn is_member_of_old(&self, name: &NodeName) -> Option<NodeRole> {
        let bearer = self.peers.get(name).filter(|peer| peer.up && peer.role == NodeRole::Member);
        bearer.map(|_| NodeRole::Member)
    }

    /// `next` is without the vote of `name`, if that has one.
    fn take_from(&mut self, name: &NodeName, next: Configuration) -> Answer {
        if next.mains.is_empty() {
            return Answer::Refused(format!("{name} is the last main"));
        }
        let voters = next.mains.iter().chain(&next.auxiliaries);
        let there =
            voters.filter(|node| self.is_there(node)).map(|node| node.incarnation).collect();
        if !next.is_quorum(&there) {
            return Answer::Refused(format!(
                "without {name} too few that are up would be left to decide anything"
            ));
        }
        if *name != self.me.name {
            return Answer::Change(next);
        }
        // The next leader does it: whoever is removed need not be waited for.
        match self.successor() {
            Some(to) => {
                self.hand_over(to);
                Answer::Wait
            }
            // Whoever is there catches up; the client says how long it waits for that.
            None if next.mains.iter().any(|main| self.is_there(main)) => Answer::Wait,
            None => Answer::Refused(format!("{name} leads, and nobody could lead in its place")),
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
            return Answer::Refused(format!(
                "{name} is not there, still catches up, or its disk is full"
            ));
        }
        self.hand_over(main);
        Answer::Wait
    }
}
