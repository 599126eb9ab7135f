//! Handing leadership on: to whom an operator names, or to whoever can take it when this node stops.
//!
//! The leader takes no new steps, waits until the other has voted on all that were proposed, and
//! tells it to stand at once. What clients ask for meanwhile waits here and at their homes, which
//! send it to the next leader; so a handover costs a few round trips and no error.

use synod_runtime::{identity::NodeId, world::Instant};

use super::{Phase, Proposer};
use crate::{
    consensus::{
        ballot::Step,
        message::{ProposerMessage, TakeOver},
    },
    effects::{Effects, To},
};

/// Leadership on its way to another main.
#[derive(Debug)]
pub(super) struct Handover {
    to: NodeId,
    /// When it is given up, and this node goes on.
    until: Instant,
    /// When the other was told last.
    told: Option<Instant>,
}

impl Proposer {
    /// The node stops: whoever is left need not wait for it to fall silent.
    pub(super) fn resign(&mut self, out: &mut Effects<Self>) {
        self.resigned = true;
        self.beat_due = self.turn.at;
        match self.leads().and_then(|_| self.successor()) {
            Some(to) => self.hand_over(to),
            None => self.step_down(out),
        }
    }

    /// The main that could lead soonest.
    pub(super) fn successor(&self) -> Option<NodeId> {
        let Phase::Leading(reign) = &self.phase else { return None };
        let reached =
            |main: &&NodeId| reign.acks.get(&main.incarnation).map_or(Step(0), |(step, _)| *step);
        let others = self.configuration()?.other_mains(self.me.incarnation);
        others.filter(|main| self.could_lead(main)).max_by_key(reached).cloned()
    }

    /// Whether that main is connected, heard of, not far behind and has room on its disk.
    pub(super) fn could_lead(&self, main: &NodeId) -> bool {
        self.heard_within(main, self.timing.stickiness)
            && !self.is_full(main)
            && self.peers.get(&main.name).is_some_and(|peer| peer.up && peer.pace.is_near())
    }

    /// Begins to hand leadership to `to`; nothing is lost when it does not take it.
    pub(super) fn hand_over(&mut self, to: NodeId) {
        let until = self.turn.at + 2 * self.timing.election;
        let Phase::Leading(reign) = &mut self.phase else { return };
        if reign.handover.as_ref().is_none_or(|handover| handover.to != to) {
            tracing::info!(to = %to.name, "handing leadership over");
            reign.handover = Some(Handover { to, until, told: None });
        }
    }

    /// Whether this node leads, and wants that one to.
    pub(super) fn hands_over_to(&self, node: &NodeId) -> bool {
        let Phase::Leading(reign) = &self.phase else { return false };
        reign.handover.as_ref().is_some_and(|handover| handover.to == *node)
    }

    /// Tells the other once it has all, or gives up.
    pub(super) fn carry_handover(&mut self, out: &mut Effects<Self>) {
        let (now, resend, me) = (self.turn.at, self.timing.resend, self.me.incarnation);
        let all = self.history.executed();
        let is_main = |to: &NodeId| {
            self.configuration().is_some_and(|c| c.other_mains(me).any(|main| main == to))
        };
        let Phase::Leading(reign) = &self.phase else { return };
        let Some(handover) = &reign.handover else { return };
        if now >= handover.until || !is_main(&handover.to) {
            tracing::warn!(to = %handover.to.name, "it did not take over in time");
            return self.end_handover(out);
        }
        let ready = reign.open.is_empty() && reign.next == all.next() && reign.opened;
        let due = handover.told.is_none_or(|at| now >= at + resend);
        if ready && due {
            let take_over = TakeOver { ballot: reign.ballot };
            out.send(To::Node(handover.to.clone()), ProposerMessage::TakeOver(take_over));
            let Phase::Leading(reign) = &mut self.phase else { return };
            reign.handover.iter_mut().for_each(|handover| handover.told = Some(now));
        }
    }

    fn end_handover(&mut self, out: &mut Effects<Self>) {
        let Phase::Leading(reign) = &mut self.phase else { return };
        reign.handover = None;
        if self.resigned {
            self.beat_due = self.turn.at;
            self.step_down(out);
        }
    }

    /// The leader wants this node to lead. Whom the word is not of counts for nothing: a ballot is
    /// earned by promises in any case.
    pub(super) fn take_over(&mut self, from: &NodeId, asked: &TakeOver, out: &mut Effects<Self>) {
        let Phase::Following(following) = &self.phase else { return };
        let of_leader = following.leader.as_ref() == Some(from) && following.ballot == asked.ballot;
        if of_leader && self.is_main() && !self.resigned {
            sometimes!(LeadershipHandedOver);
            self.campaign(self.seen.round + 1, out);
        }
    }
}
