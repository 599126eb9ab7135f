//! Letters: what roles say, and how it travels.

use rand::RngExt;
use synod::{
    consensus::message::{Message, Report},
    effects::{Letter, To},
};
use synod_runtime::identity::NodeId;

use super::{Plan, Walk, node::Role, place_of, schedule::Event};
use crate::invariants::Violation;

impl Walk {
    /// A role says something.
    pub(super) fn say(
        &mut self,
        place: usize,
        role: Role,
        letter: Letter<Message>,
    ) -> Result<(), Violation> {
        let Letter { to, message } = letter;
        let node = &mut self.nodes[place];
        if self.trace {
            eprintln!("{:>12} {} {role:?} -> {to:?} {message:?}", self.schedule.now, node.id);
        }
        let here = match &to {
            To::Here => true,
            To::Node(id) => *id == node.id,
        };
        match message {
            Message::Client(answer) if answer.ticket == super::faults::WISH => {}
            Message::Client(answer) => return self.clients.answered(answer),
            Message::Report(Report::Auxiliary { standing, .. }) => node.standing = Some(standing),
            Message::Report(Report::Proposer(_)) => {
                node.leads = node.proposer().is_some_and(|proposer| proposer.leads().is_some());
            }
            // The walk begins after the founding.
            Message::Founder(_) | Message::Founded(_) | Message::Unfit(_) => {}
            Message::Report(
                Report::Learner { .. }
                | Report::Replica { .. }
                | Report::Home(_)
                | Report::Dismissed,
            ) => {}
            Message::Acceptor(_)
            | Message::Learner(_)
            | Message::Replica(_)
            | Message::Proposer(_)
            | Message::Home(_)
            | Message::Auxiliary(_) => {
                self.book.said(&node.id, &node.disk, role, &message)?;
                let from = node.id.clone();
                match to {
                    To::Node(id) if !here => self.post(place, &id, &from, &message),
                    To::Node(_) | To::Here => self.deliver(place, from, message),
                }
            }
        }
        Ok(())
    }

    /// Sends a letter over the network.
    fn post(&mut self, place: usize, to: &NodeId, from: &NodeId, message: &Message) {
        let Plan { loss, duplicates, delay_us, late, .. } = self.plan;
        let calm = self.healed.is_some();
        if self.network.is_cut(place, place_of(to)) {
            return;
        }
        if !calm && self.rng.random_ratio(loss, 1_000) {
            return;
        }
        let again = !calm && self.rng.random_ratio(duplicates, 1_000);
        for _ in 0..=u8::from(again) {
            let slow = !calm && self.rng.random_ratio(late, 1_000);
            let longest = delay_us * 1_000 * if slow { 50 } else { 1 };
            let after = self.rng.random_range(10_000..longest.max(20_000));
            let message = Box::new(message.clone());
            let letter = Event::Letter { to: to.clone(), from: from.clone(), message };
            self.schedule.after(after, letter);
        }
    }
}
