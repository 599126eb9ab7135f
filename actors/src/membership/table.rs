//! The verdicts on nodes: what every main and member comes to from the same log. Together with the
//! configuration they are the view.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use synod_runtime::identity::{NodeId, NodeName};

use super::message::{Kind, Op, Place, State, View, ViewId};
use crate::replicated::Roster;

/// The verdicts in force, and the nodes they are about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Views {
    /// Those that are not simply up.
    verdicts: BTreeMap<NodeName, Verdict>,
    /// Verdicts that changed something.
    count: u64,
    /// What the log's configuration says; told anew after every restore, so it is in no snapshot.
    #[serde(skip)]
    roster: Roster,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Verdict {
    node: NodeId,
    state: State,
}

impl Views {
    /// Executes one request. Answers whether there is another view now.
    pub fn apply(&mut self, op: &Op) -> bool {
        let name = &op.node.name;
        let view = self.view();
        if when_on!(VerdictNamesView) && op.view != view.id {
            return false; // V2
        }
        let Some(place) = view.nodes.get(name) else { return false };
        let is_other = place.incarnation.is_some_and(|known| known != op.node.incarnation);
        // Who was voted out comes back by the vote of the mains alone.
        if is_other || place.state == op.state || self.roster.absent.contains(name) {
            return false;
        }
        match op.state {
            State::Up => drop(self.verdicts.remove(name)),
            State::Down | State::Halted => {
                let verdict = Verdict { node: op.node.clone(), state: op.state };
                self.verdicts.insert(name.clone(), verdict);
            }
        }
        self.count += 1;
        true
    }

    /// The log came to another configuration, or to this one by a snapshot. Verdicts on nodes that
    /// are gone, or were replaced by others of the same name, go with them.
    pub fn roster(&mut self, roster: &Roster) {
        self.roster = roster.clone();
        let known = roster.mains.iter().chain(&roster.auxiliaries);
        let known: BTreeMap<_, _> = known.map(|node| (&node.name, node)).collect();
        self.verdicts.retain(|name, verdict| match known.get(name) {
            Some(node) => **node == verdict.node,
            None => roster.members.contains(name),
        });
    }

    /// The view that this makes.
    pub fn view(&self) -> View {
        let Roster { epoch, mains, auxiliaries, absent, members } = &self.roster;
        let mut nodes = BTreeMap::new();
        let place = |kind, state, incarnation| Place { kind, state, incarnation };
        for name in members {
            nodes.insert(name.clone(), place(Kind::Member, State::Up, None));
        }
        for name in absent {
            nodes.insert(name.clone(), place(Kind::Main, State::Down, None));
        }
        for (all, kind) in [(auxiliaries, Kind::Auxiliary), (mains, Kind::Main)] {
            for node in all {
                let at = place(kind, State::Up, Some(node.incarnation));
                nodes.insert(node.name.clone(), at);
            }
        }
        for (name, verdict) in &self.verdicts {
            if let Some(place) = nodes.get_mut(name) {
                place.state = verdict.state;
            }
        }
        View { id: ViewId { epoch: *epoch, verdicts: self.count }, nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_runtime::identity::Incarnation;

    fn node(name: &str, incarnation: u64) -> NodeId {
        NodeId::new(name.parse().unwrap(), Incarnation(incarnation))
    }

    fn roster(epoch: u64) -> Roster {
        Roster {
            epoch,
            mains: vec![node("a", 1), node("b", 2)],
            auxiliaries: vec![node("x", 3)],
            members: vec!["m1".parse().unwrap()],
            ..Roster::default()
        }
    }

    fn views() -> Views {
        let mut views = Views::default();
        views.roster(&roster(0));
        views
    }

    fn down(views: &Views, node: NodeId) -> Op {
        Op { view: views.view().id, node, state: State::Down, by: Vec::new() }
    }

    fn states(views: &Views) -> String {
        let all = views.view().nodes.into_iter();
        all.map(|(name, place)| format!("{name} {}; ", place.state.as_str())).collect()
    }

    #[test]
    fn everybody_of_the_configuration_is_up_until_accused() {
        let mut views = views();
        assert_eq!(states(&views), "a up; b up; m1 up; x up; ");
        let op = down(&views, node("m1", 9));
        assert!(views.apply(&op));
        assert_eq!(
            (states(&views).as_str(), views.view().id.number()),
            ("a up; b up; m1 down; x up; ", 1)
        );
        let back = Op { state: State::Up, ..down(&views, node("m1", 9)) };
        assert!(views.apply(&back));
        assert_eq!(views.view().id.number(), 2);
        assert!(!views.apply(&Op { view: views.view().id, ..back }), "it is up");
    }

    #[test]
    fn a_verdict_counts_only_in_the_view_in_which_it_was_asked_for() {
        let mut views = views();
        let (one, other) = (down(&views, node("m1", 9)), down(&views, node("x", 3)));
        assert!(views.apply(&one));
        assert!(!views.apply(&other), "of the view before");
        let late = down(&views, node("x", 3));
        views.roster(&roster(1));
        assert!(!views.apply(&late), "the configuration is another");
    }

    #[test]
    fn a_verdict_is_about_one_node_and_not_about_the_next_of_its_name() {
        let mut views = views();
        let stranger = down(&views, node("x", 4));
        assert!(!views.apply(&stranger));
        let op = down(&views, node("x", 3));
        assert!(views.apply(&op));
        let mut next = roster(1);
        next.auxiliaries = vec![node("x", 4)];
        views.roster(&next);
        assert!(views.view().is_up(&"x".parse().unwrap()));
        assert!(!views.apply(&down(&views, node("nobody", 1))));
    }

    #[test]
    fn who_was_voted_out_is_down_and_comes_back_by_the_configuration_alone() {
        let mut views = views();
        let b: NodeName = "b".parse().unwrap();
        let mut without = roster(1);
        without.mains.pop();
        without.absent.push(b.clone());
        views.roster(&without);
        assert_eq!(views.view().nodes[&b].state, State::Down);
        let back = Op { state: State::Up, ..down(&views, node("b", 2)) };
        assert!(!views.apply(&back));
        views.roster(&roster(2));
        assert!(views.view().is_up(&b));
    }

    #[test]
    fn a_snapshot_and_the_roster_give_the_same_view() {
        let mut views = views();
        let op = down(&views, node("x", 3));
        views.apply(&op);
        let bytes = rmp_serde::to_vec(&views).unwrap();
        let mut other: Views = rmp_serde::from_slice(&bytes).unwrap();
        other.roster(&roster(0));
        assert_eq!(other, views);
    }
}
