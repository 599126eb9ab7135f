//! Not leading: listening for the leader, and asking whether to stand when it falls silent.
//!
//! Asking first (pre-vote) keeps a node that merely lost its own link from deposing a leader that
//! everyone else hears.

use std::{collections::BTreeSet, time::Duration};

use synod_runtime::{
    identity::{Incarnation, NodeId},
    world::Instant,
};

use super::{Phase, Proposer};
use crate::{
    consensus::{
        ballot::Ballot,
        message::{AuxiliaryMessage, PreVote, PreVoteAnswer, ProposerMessage},
    },
    effects::{Effects, To},
};

/// The state of a node that does not lead.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// Whom it follows.
    pub(super) leader: Option<NodeId>,
    /// In which ballot.
    pub(super) ballot: Ballot,
    /// Whether that leader can have steps chosen.
    pub(super) serving: bool,
    /// When to stand, unless the leader is heard before.
    pub(super) stand_at: Instant,
    /// Opinions asked for.
    pub(super) standing: Option<ExpectOpinions>,
}

#[derive(Debug)]
pub(super) struct ExpectOpinions {
    round: u64,
    go: BTreeSet<Incarnation>,
    since: Instant,
}

impl Following {
    pub(super) fn deadline(&self, stands: bool, opinions: Duration) -> Option<Instant> {
        match &self.standing {
            Some(standing) => Some(standing.since + opinions),
            None => stands.then_some(self.stand_at),
        }
    }
}

impl Proposer {
    /// Gives an opinion on a main that would stand.
    pub(super) fn advise(&mut self, from: &NodeId, asked: &PreVote, out: &mut Effects<Self>) {
        let newest = self.history.newest();
        let knows = newest.is_none_or(|c| c.epoch < asked.epoch || c.has_main(from.incarnation));
        let content = match &self.phase {
            Phase::Leading(reign) => reign.established,
            Phase::Following(following) => following.leader.as_ref().is_some_and(|leader| {
                leader != from && self.heard_within(leader, self.timing.stickiness)
            }),
        };
        let answer = PreVoteAnswer {
            round: asked.round,
            go: knows && !content,
            seen: self.seen.round,
            epoch: newest.map_or(0, |c| c.epoch),
            mains: newest.map_or_else(Vec::new, |c| c.mains.clone()),
        };
        out.send(To::Node(from.clone()), ProposerMessage::PreVoteAnswer(answer));
    }

    /// Counts an opinion.
    pub(super) fn advised(&mut self, from: &NodeId, answer: PreVoteAnswer) {
        self.seen.round = self.seen.round.max(answer.seen);
        let epoch = self.history.newest().map_or(0, |c| c.epoch);
        if answer.epoch > epoch {
            sometimes!(LeftBehind);
            // The cluster went on without this node: it must catch up, it cannot lead.
            self.behind = Some(answer.mains);
        } else if answer.go {
            sometimes!(SoleConfirmed if self.was_sole() && !self.confirmed_sole);
            self.confirmed_sole |=
                self.configuration().is_some_and(|c| c.auxiliaries.iter().any(|a| a == from));
        }
        let patience = self.timing.election + self.jitter(self.timing.election);
        let now = self.turn.at;
        if let Phase::Following(following) = &mut self.phase
            && let Some(standing) = &mut following.standing
            && standing.round == answer.round
        {
            if answer.go {
                standing.go.insert(from.incarnation);
            } else {
                sometimes!(AdvisedAgainst);
                following.standing = None;
                following.stand_at = now + patience;
            }
        }
    }

    /// Stands when it is time to, and leads when the opinions allow it.
    pub(super) fn consider_standing(&mut self, out: &mut Effects<Self>) {
        let now = self.turn.at;
        let (hedge, may_stand, patience) = (self.timing.hedge, self.may_stand(), self.patience());
        let Phase::Following(following) = &mut self.phase else { return };
        // A leader that is heard is followed, whether by its heartbeats or its proposals.
        if let Some(leader) = following.leader.clone() {
            let heard = self.peers.get(&leader.name).filter(|p| p.id == leader);
            if let Some(at) = heard.and_then(|peer| peer.heard) {
                following.stand_at = following.stand_at.max(at + patience);
            }
        }
        if !may_stand {
            following.standing = None;
            return;
        }
        let Some(standing) = &following.standing else {
            if now >= following.stand_at {
                self.ask_opinions(out);
            }
            return;
        };
        let (round, since, go) = (standing.round, standing.since, standing.go.clone());
        let enough = self.configuration().is_some_and(|c| c.is_quorum(&go))
            && (self.confirmed_sole || !self.was_sole());
        if enough {
            self.campaign(round, out);
        } else if now >= since + self.timing.opinions {
            let again = now + self.jitter(hedge);
            if let Phase::Following(following) = &mut self.phase {
                following.standing = None;
                following.stand_at = again;
                following.leader = None;
            }
        }
    }

    /// Whether this node is the only main, and an auxiliary could know better.
    fn was_sole(&self) -> bool {
        self.configuration().is_some_and(|c| {
            c.mains.len() == 1 && !c.auxiliaries.is_empty() && (c.epoch > 0 || !c.absent.is_empty())
        })
    }

    fn ask_opinions(&mut self, out: &mut Effects<Self>) {
        let Some(configuration) = self.configuration().cloned() else { return };
        let silent = configuration
            .other_mains(self.me.incarnation)
            .any(|main| !self.heard_within(main, self.timing.stickiness));
        let ask_auxiliaries = silent || (self.was_sole() && !self.confirmed_sole);
        let round = self.seen.round + 1;
        let now = self.turn.at;
        let me = self.me.incarnation;
        let epoch = self.history.newest().map_or(0, |c| c.epoch);
        let Phase::Following(following) = &mut self.phase else { return };
        let suspect = following.leader.clone().filter(|l| l.incarnation != me);
        let asked = PreVote { round, suspect, epoch };
        following.standing = Some(ExpectOpinions { round, go: BTreeSet::from([me]), since: now });
        for main in configuration.other_mains(me) {
            out.send(To::Node(main.clone()), ProposerMessage::PreVote(asked.clone()));
        }
        if ask_auxiliaries {
            for auxiliary in &configuration.auxiliaries {
                out.send(To::Node(auxiliary.clone()), AuxiliaryMessage::PreVote(asked.clone()));
            }
        }
        if configuration.mains.len() == 1 && !ask_auxiliaries {
            self.campaign(round, out);
        }
    }
}
