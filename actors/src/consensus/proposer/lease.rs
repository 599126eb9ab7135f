//! Reads without a question: leases between mains (R3 of the manual).
//!
//! With two mains, whatever is chosen was voted for by both, unless one of them leads and asks an
//! auxiliary in the other's place. A main that grants a lease does not, for as long as it lasts. So
//! the other knows by itself what a read must wait for: the last step that it voted for, that it
//! proposed, or that the grant names. The same holds for more mains when all others grant, as long
//! as they need each other or an auxiliary ([`Configuration::needs_every_main`]); three without an
//! auxiliary do not. Reads ask the leader ([`super::reads`]) whenever a lease is missing.
//!
//! ```text
//!   reader, by its clock:   ask ──────────────────── L·(1−ρ) ──────► lease ends
//!                              ╲ grant
//!   granter, by its own:        ask heard ─────────────── L·(1+ρ) ────────► may ask auxiliaries
//! ```
//! 1. A node that starts may have granted a lease in its life before: it asks no auxiliary for votes,
//!    and grants nothing, until that is over. No lease is longer than the granter's own, so who makes
//!    it shorter starts the node a moment later.
//! 2. What a node proposed in a life before it has forgotten. So nobody reads by lease before every
//!    granter's acceptor has promised a ballot that ends those of all mains' lives before.
//! 3. Who is a main is looked at after the step that the read waits for was executed: then every
//!    change that could let others choose is known.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use synod_runtime::{identity::NodeId, world::Instant};

use super::{Phase, Proposer};
use crate::{
    consensus::{
        ballot::{Ballot, Step},
        configuration::Configuration,
        message::{
            AcceptorMessage, HomeMessage, LeaseAsk, LeaseAsked, LeaseGrant, LeasedRead,
            ProposerMessage, ReadAt, ReadIndex,
        },
    },
    effects::{Effects, To},
};

/// A clock runs at most this part too fast or too slow against true time: 1 %, a hundred times what
/// quartz does.
const DRIFT_PART: u32 = 100;

/// After the last read leases are asked for this long: idle mains owe each other nothing.
const WANTED: Duration = Duration::from_secs(1);

/// Rounds of reads that wait for their step: a home has one at a time, and a little for repetitions.
const WAITING_MAX: usize = 16;

/// Both sides of this node's leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// The highest ballot promised when this life began.
    former: Ballot,
    /// The highest step proposed in this life.
    proposed: Step,
    /// Until when this node asks no auxiliary for votes.
    owes_until: Instant,
    /// Until when it may owe something from its life before.
    quiet_until: Instant,
    /// What other mains granted.
    held: BTreeMap<NodeId, Held>,
    wanted_until: Instant,
    ask_due: Instant,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Held {
    until: Instant,
    upto: Step,
    promised: Ballot,
    former: Ballot,
}

/// A round of reads under a lease, whose step is not executed yet.
#[derive(Debug)]
struct Waiting {
    asked: LeasedRead,
    /// Who granted leases.
    from: Vec<NodeId>,
    upto: Step,
    since: Instant,
}

impl Proposer {
    pub(super) fn start_leases(&mut self) {
        let quiet = self.turn.at + longer(self.timing.lease);
        let former = self.seen;
        self.leases = Leases { former, owes_until: quiet, quiet_until: quiet, ..Leases::default() };
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::LeaseNotRemembered) {
            (self.leases.owes_until, self.leases.quiet_until) = (self.turn.at, self.turn.at);
        }
    }

    /// What this node proposed in ballots up to `former` it may have forgotten.
    pub(super) fn end_leases_before(&mut self, former: Ballot) {
        self.leases.former = self.leases.former.max(former);
        self.leases.held.clear();
    }

    /// Whether another main relies on this one not to ask auxiliaries for votes.
    pub(super) fn owes_lease(&self) -> bool {
        let owes = self.turn.at < self.leases.owes_until;
        #[cfg(any(test, feature = "mutations"))]
        let owes = owes && !crate::mutation::on(crate::mutation::Mutation::LeaseNotKept);
        owes
    }

    /// Another main asks, through this node's acceptor.
    pub(super) fn lease_asked(&mut self, asked: LeaseAsked, out: &mut Effects<Self>) {
        let now = self.turn.at;
        // Whoever is waited for in vain, or bridged over, gets none: steps could not go on.
        let is_slow = match &self.phase {
            Phase::Leading(reign) => {
                reign.bridge.is_some()
                    || self.configuration().is_none_or(|c| self.silent(c).contains(&&asked.by))
            }
            Phase::Following(_) => false,
        };
        let is_other = self.bound().is_some_and(|others| others.contains(&asked.by));
        let refused = self.timing.lease.is_zero()
            || asked.ask.lasts > self.timing.lease
            || now < self.leases.quiet_until
            || is_slow
            || !is_other
            || !ends(asked.promised, self.leases.former, &self.me);
        if refused {
            return;
        }
        self.leases.owes_until = self.leases.owes_until.max(now + longer(asked.ask.lasts));
        let upto = asked.voted.max(self.proposed()).max(self.history.executed());
        let LeaseAsked { by, ask, promised, .. } = asked;
        let former = self.leases.former;
        let grant = LeaseGrant { ask, upto, promised, former };
        out.send(To::Node(by), ProposerMessage::LeaseGrant(grant));
    }

    /// Another main granted a lease.
    pub(super) fn lease_granted(&mut self, from: &NodeId, grant: &LeaseGrant) {
        let asked = Instant::from_nanos(grant.ask.asked_nanos);
        // No clock of ours showed a later time.
        let LeaseGrant { upto, promised, former, .. } = *grant;
        if asked > self.turn.at || !ends(promised, self.leases.former, &self.me) {
            return;
        }
        let until = asked + shorter(grant.ask.lasts);
        let now = self.turn.at;
        self.leases.held.retain(|_, held| now < held.until);
        if self.leases.held.get(from).is_none_or(|held| held.until < until) {
            self.leases.held.insert(from.clone(), Held { until, upto, promised, former });
        }
    }

    /// What the leases of all `others` together leave open: nothing that is chosen is beyond that
    /// step and what this node voted for or proposed. None while one of them is missing.
    fn granted(&self, others: &[NodeId]) -> Option<Step> {
        let now = self.turn.at;
        let lasts = |held: &Held| {
            let lasts = now < held.until;
            #[cfg(any(test, feature = "mutations"))]
            let lasts = lasts || crate::mutation::on(crate::mutation::Mutation::LeaseNeverEnds);
            lasts
        };
        let held: Vec<(&NodeId, &Held)> =
            others.iter().filter_map(|other| self.leases.held.get_key_value(other)).collect();
        let all = held.len() == others.len() && held.iter().all(|(_, held)| lasts(held));
        #[cfg(any(test, feature = "mutations"))]
        let all = match crate::mutation::on(crate::mutation::Mutation::LeaseOfAny) {
            true => held.iter().any(|(_, held)| lasts(held)),
            false => all,
        };
        let ended = held.iter().all(|(_, one)| {
            held.iter().all(|(other, held)| ends(one.promised, held.former, other))
        });
        #[cfg(any(test, feature = "mutations"))]
        let ended =
            ended || crate::mutation::on(crate::mutation::Mutation::LeaseForgetsFormerBallots);
        let upto = held.iter().map(|(_, held)| held.upto).max();
        upto.filter(|_| all && ended && !self.timing.lease.is_zero() && self.mending.is_none())
    }

    /// A home wants to read; its own acceptor has said how far it voted.
    pub(super) fn leased_read(&mut self, asked: LeasedRead, out: &mut Effects<Self>) {
        let now = self.turn.at;
        self.leases.wanted_until = now + WANTED;
        let room = self.leases.waiting.len() < WAITING_MAX;
        let from = self.bound().filter(|_| room).unwrap_or_default();
        let Some(upto) = self.granted(&from) else {
            return self.ask_where(&asked, out);
        };
        let upto = asked.voted.max(self.proposed()).max(upto);
        #[cfg(any(test, feature = "mutations"))]
        let upto = match crate::mutation::on(crate::mutation::Mutation::LeaseReadsAtOnce) {
            true => self.history.executed(),
            false => upto,
        };
        self.leases.waiting.push_back(Waiting { asked, from, upto, since: now });
    }

    /// Answers reads whose step is executed, and asks for what is due.
    pub(super) fn tend_leases(&mut self, out: &mut Effects<Self>) {
        self.leases.proposed = self.proposed();
        self.serve_leased(out);
        let now = self.turn.at;
        let due = now < self.leases.wanted_until && now >= self.leases.ask_due;
        if due && !self.timing.lease.is_zero() {
            self.leases.ask_due = now + self.timing.lease_renewal;
            for other in self.bound().unwrap_or_default() {
                let ask = LeaseAsk { asked_nanos: now.as_nanos(), lasts: self.timing.lease };
                out.send(To::Node(other), AcceptorMessage::LeaseAsk(ask));
            }
        }
    }

    fn serve_leased(&mut self, out: &mut Effects<Self>) {
        let (now, patience) = (self.turn.at, self.timing.hedge);
        for waiting in std::mem::take(&mut self.leases.waiting) {
            if self.history.executed() < waiting.upto {
                if now < waiting.since + patience {
                    self.leases.waiting.push_back(waiting);
                } else {
                    self.ask_where(&waiting.asked, out);
                }
            } else if self.are_all_after(waiting.upto, &waiting.from) {
                let at = Some(waiting.upto);
                let answer = ReadAt { round: waiting.asked.round, at };
                out.here(HomeMessage::ReadAt(answer));
            } else {
                self.ask_where(&waiting.asked, out);
            }
        }
    }

    /// When something is to be done for leases.
    pub(super) fn leases_due(&self) -> Option<Instant> {
        let asks = !self.timing.lease.is_zero() && self.turn.at < self.leases.wanted_until;
        let waits = self.leases.waiting.front().map(|first| first.since + self.timing.hedge);
        asks.then_some(self.leases.ask_due).into_iter().chain(waits).min()
    }

    /// The leader knows where the read must wait for (R1, R2).
    fn ask_where(&mut self, asked: &LeasedRead, out: &mut Effects<Self>) {
        let index = ReadIndex { round: asked.round, witness: Some(asked.promised) };
        match self.leader_news().node {
            Some(leader) if leader != self.me => {
                out.send(To::Node(leader), ProposerMessage::ReadIndex(index));
            }
            Some(_) => self.read_index(&self.me.clone(), &index, out),
            None => {
                out.here(HomeMessage::ReadAt(ReadAt { round: asked.round, at: None }));
            }
        }
    }

    /// The other mains, if this node is one and all are needed to choose without an auxiliary.
    fn bound(&self) -> Option<Vec<NodeId>> {
        self.bound_by(self.configuration()?)
    }

    fn bound_by(&self, configuration: &Configuration) -> Option<Vec<NodeId>> {
        let needed = configuration.needs_every_main();
        #[cfg(any(test, feature = "mutations"))]
        let needed =
            needed || crate::mutation::on(crate::mutation::Mutation::LeaseWhereFewerChoose);
        let me = self.me.incarnation;
        (needed && configuration.has_main(me))
            .then(|| configuration.other_mains(me).cloned().collect())
    }

    /// Whether, as decided up to `step`, only this node and some of `others` are mains from then on
    /// (3.).
    fn are_all_after(&self, step: Step, others: &[NodeId]) -> bool {
        let in_force = self.history.newest_from().is_some_and(|from| from <= step.next());
        let bound = self.history.newest().and_then(|newest| self.bound_by(newest));
        in_force && bound.is_some_and(|bound| bound.iter().all(|main| others.contains(main)))
    }

    fn proposed(&self) -> Step {
        let now = match &self.phase {
            Phase::Leading(reign) => Step(reign.next.0.saturating_sub(1)),
            Phase::Following(_) => Step(0),
        };
        now.max(self.leases.proposed)
    }
}

/// Whether no acceptor that promised `promised` votes for anything that `node` proposed in a life
/// before the one that it began knowing ballots up to `former` (2.).
fn ends(promised: Ballot, former: Ballot, node: &NodeId) -> bool {
    promised > former || (promised == former && former.node != node.incarnation)
}

/// What the granter counts.
fn longer(lease: Duration) -> Duration {
    lease + lease / DRIFT_PART
}

/// What the holder counts.
fn shorter(lease: Duration) -> Duration {
    lease - lease / DRIFT_PART
}
