//! The manager monitor: at every node, chooses with the others which of them is the manager of
//! services. Nothing is above it.
//!
//! It runs [disqualification](super::candidate) at every view, over the mains and members that are up.
//! The table of services is under the log: mains hold it and vote on it, and rank as secondaries;
//! members only follow it, and are spares.
//!
//! What the manager does are commands that name the epoch they are about, so two of them in different
//! views do no harm for a moment: it needs no lease, and an idle cluster writes nothing for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use synod_runtime::{
    identity::{Incarnation, NodeId, NodeName},
    world::Instant,
};

use super::candidate::{Candidate, Class, Deed, Letter};
use crate::{
    effects::{Effects, To},
    machine::{Machine, Now, Survived},
    membership::message::{Kind, View},
};

/// What a manager monitor is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManagerMessage {
    /// *Local*: another view, from this node's monitor.
    Viewed(View),
    /// Of another node's manager monitor.
    Letter(Letter),
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// To another node's.
    Letter(Letter),
    /// To this node: who the manager is, and how long requesters were held off at most so far. Nobody
    /// while one is sought: requesters wait.
    Manager(Option<NodeName>, Duration),
}

/// See the [module](self).
#[derive(Debug)]
pub struct Manager {
    me: NodeName,
    candidate: Candidate,
    class: Class,
    told: Option<Option<NodeName>>,
}

impl Manager {
    /// The manager monitor of that node.
    pub fn new(me: NodeName) -> Self {
        let candidate = Candidate::new(me.clone());
        Self { me, candidate, class: Class::Spare, told: None }
    }

    fn viewed(&mut self, now: Instant, view: &View, out: &mut Effects<Self>) {
        self.class = match view.nodes.get(&self.me).map(|place| place.kind) {
            Some(Kind::Main) => Class::Secondary,
            Some(Kind::Member | Kind::Auxiliary) | None => Class::Spare,
        };
        let nodes = view.serving().map(|(name, _)| name.clone());
        let deeds = self.candidate.view(now, view.id, nodes);
        self.act(now, deeds, out);
    }

    fn act(&mut self, now: Instant, deeds: Vec<Deed>, out: &mut Effects<Self>) {
        for deed in deeds {
            let more = match deed {
                Deed::Send(to, letter) => {
                    // Nodes are reached by name.
                    let to = To::Node(NodeId::new(to, Incarnation::default()));
                    out.send(to, Word::Letter(letter));
                    continue;
                }
                // The table is here already.
                Deed::AskProvider => self.candidate.provider(now, self.class),
                Deed::Initialise => self.candidate.ready(now),
                Deed::Remap(_) | Deed::Release(_) => continue,
            };
            self.act(now, more, out);
        }
    }

    fn tell(&mut self, now: Instant, out: &mut Effects<Self>) {
        let manager = self.candidate.open_at().cloned();
        if self.told.as_ref() != Some(&manager) {
            self.told = Some(manager.clone());
            out.here(Word::Manager(manager, self.candidate.longest_hold(now)));
        }
    }
}

impl Machine for Manager {
    type Message = ManagerMessage;
    type Envelope = Word;
    type Record = ();
    type Snapshot = ();

    fn start(&mut self, _now: Now, _survived: &Survived<(), ()>, _out: &mut Effects<Self>) {}

    fn message(
        &mut self,
        now: Now,
        from: &NodeId,
        message: ManagerMessage,
        out: &mut Effects<Self>,
    ) {
        match message {
            ManagerMessage::Viewed(view) if from.name == self.me => {
                self.viewed(now.at, &view, out);
            }
            ManagerMessage::Viewed(_) => {} // only its own node tells it
            ManagerMessage::Letter(letter) => {
                let deeds = self.candidate.letter(now.at, &from.name, letter);
                self.act(now.at, deeds, out);
            }
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Self>) {
        self.tell(now.at, out);
    }

    fn timeout(&mut self, now: Now, out: &mut Effects<Self>) {
        let deeds = self.candidate.timeout(now.at);
        self.act(now.at, deeds, out);
    }

    fn deadline(&self) -> Option<Instant> {
        self.candidate.deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::message::{Place, State, ViewId};

    fn view(number: u64, nodes: &[(&str, Kind, State)]) -> View {
        let place = |kind, state| Place { kind, state, incarnation: None };
        let nodes =
            nodes.iter().map(|(name, kind, state)| (name.parse().unwrap(), place(*kind, *state)));
        View { id: ViewId { epoch: number, verdicts: 0 }, nodes: nodes.collect() }
    }

    /// Gives all of them a view, and lets them talk to the end; who they say the manager is.
    fn agree(all: &mut [Manager], view: &View) -> Vec<Option<String>> {
        let now = Now::default();
        let mut mail = std::collections::VecDeque::new();
        for one in all.iter().filter(|one| view.is_up(&one.me)) {
            mail.push_back((one.me.clone(), one.me.clone(), ManagerMessage::Viewed(view.clone())));
        }
        while let Some((from, to, message)) = mail.pop_front() {
            let one = all.iter_mut().find(|one| one.me == to).unwrap();
            let mut out = Effects::default();
            one.message(now, &NodeId::new(from, Incarnation(1)), message, &mut out);
            one.flush(now, &mut out);
            for letter in out.now.drain(..) {
                if let (To::Node(node), Word::Letter(letter)) = (letter.to, letter.message) {
                    mail.push_back((to.clone(), node.name, ManagerMessage::Letter(letter)));
                }
            }
        }
        let told = |one: &Manager| one.told.clone().flatten().map(|name| name.to_string());
        all.iter().map(told).collect()
    }

    #[test]
    fn a_main_manages_while_one_is_up_and_stays_when_others_come() {
        use Kind::{Auxiliary, Main, Member};
        use State::{Down, Up};
        let names = ["a", "b", "a-member"];
        let mut all = names.map(|name| Manager::new(name.parse().unwrap()));
        let of = |a, b, m| {
            [("a", Main, a), ("b", Main, b), ("a-member", Member, m), ("x", Auxiliary, Up)]
        };
        let some = |name: &str| Some(name.to_owned());
        let first = agree(&mut all, &view(1, &of(Down, Up, Up)));
        assert_eq!(first[1..], [some("b"), some("b")], "a main before any member");
        let back = agree(&mut all, &view(2, &of(Up, Up, Up)));
        assert_eq!(back, [some("b"), some("b"), some("b")], "it lives, so it stays");
        let gone = agree(&mut all, &view(3, &of(Up, Down, Up)));
        assert_eq!((&gone[0], &gone[2]), (&some("a"), &some("a")));
        let alone = agree(&mut all, &view(4, &of(Down, Down, Up)));
        assert_eq!(alone[2], some("a-member"));
    }

    #[test]
    fn nobody_else_tells_it_a_view() {
        let mut one = Manager::new("a".parse().unwrap());
        let mut out = Effects::default();
        let message = ManagerMessage::Viewed(view(1, &[("a", Kind::Main, State::Up)]));
        let other = NodeId::new("b".parse().unwrap(), Incarnation(2));
        one.message(Now::default(), &other, message, &mut out);
        assert!(out.is_empty());
    }
}
