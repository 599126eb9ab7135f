//! Looking after the members: asking again, bridging a silent main with the auxiliary, voting it
//! out, letting it back in, and letting the auxiliary forget.

use std::time::Duration;

use synod_runtime::{identity::NodeId, world::Instant};

use super::{Phase, Proposer, reign::Bridge};
use crate::{
    consensus::{
        ballot::Step,
        configuration::{ALPHA, Configuration},
        message::{AuxiliaryMessage, Forget, Heartbeat, NodeRole, Reach, Reached, Standing},
    },
    effects::{Effects, To},
};

/// How well a main keeps up that does not vote. Judged when its word arrives: by the time somebody
/// looks, a busy log has moved on.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Steps it was behind.
    lag: u64,
    /// The last step here at some moment, not known to be durable there yet.
    goal: Option<(Step, Instant)>,
    /// What was executed here by then is durable there.
    durable: Option<Instant>,
}

impl Pace {
    pub(super) fn note(&mut self, now: Instant, executed: Step, beat: &Heartbeat) {
        self.lag = executed.beyond(beat.chosen_upto);
        if let Some((step, at)) = self.goal
            && beat.durable_upto >= step
        {
            self.durable = Some(at);
            self.goal = None;
        }
        self.goal.get_or_insert((executed, now));
    }

    /// Whether it is not far behind.
    pub(super) fn is_near(&self) -> bool {
        self.lag < ALPHA / 4
    }

    /// Whether it could vote without holding up the others, its disk included.
    fn keeps_up(&self, now: Instant, patience: Duration) -> bool {
        self.is_near() && self.durable.is_some_and(|at| now < at + patience)
    }
}

impl Proposer {
    /// An auxiliary's sign of life.
    pub(super) fn auxiliary_stands(&mut self, from: &NodeId, standing: Standing) {
        if let Some(peer) = self.peers.get_mut(&from.name)
            && peer.id == *from
        {
            peer.standing = Some(standing);
        }
    }

    /// Whether an auxiliary could reach a main.
    pub(super) fn reached(&mut self, reached: &Reached) {
        let now = self.turn.at;
        let Phase::Leading(reign) = &mut self.phase else { return };
        if reached.alive {
            reign.unreachable.remove(&reached.node.incarnation);
        } else {
            reign.unreachable.insert(reached.node.incarnation, now);
        }
    }

    /// Everything a leader does for the members, once a turn.
    pub(super) fn take_care(&mut self, out: &mut Effects<Self>) {
        if self.leads().is_none() {
            return;
        }
        if self.is_stuck() {
            sometimes!(SlowLeaderStepsDown if !self.full);
            sometimes!(FullLeaderStepsDown if self.full);
            tracing::warn!(full = self.full, "the own journal makes no progress: another may lead");
            self.step_down(out);
            if let Phase::Following(following) = &mut self.phase {
                following.stand_at = self.turn.at + 10 * self.timing.election;
            }
            self.beat_due = self.turn.at; // the others need not wait for silence
            return;
        }
        let Some(configuration) = self.configuration().cloned() else { return };
        self.note_silence(&configuration);
        self.ask_again(&configuration, out);
        self.bridge(&configuration, out);
        self.reshape(&configuration, out);
        self.let_forget(&configuration, out);
    }

    /// Asks again for votes that are missing for too long: a link may have dropped them.
    fn ask_again(&mut self, configuration: &Configuration, out: &mut Effects<Self>) {
        let (now, patience) = (self.turn.at, self.timing.resend);
        let Phase::Leading(reign) = &self.phase else { return };
        let Some((oldest, open)) = reign.open.first_key_value() else { return };
        if now < open.since + patience {
            return;
        }
        let oldest = *oldest;
        // Acknowledged and still not learned: a learner that was made anew forgot who voted.
        let forgotten = now >= open.since + 4 * patience;
        let mut late: Vec<NodeId> = configuration.mains.clone();
        if reign.bridge.is_some() && !self.owes_lease() {
            late.extend(configuration.auxiliaries.iter().cloned());
        }
        let Phase::Leading(reign) = &mut self.phase else { return };
        late.retain(|node| {
            let acked = reign.acks.get(&node.incarnation);
            let behind =
                forgotten || acked.is_none_or(|(step, at)| *step < oldest && now >= *at + patience);
            let again = reign.resent.get(&node.incarnation);
            let due = behind && again.is_none_or(|at| now >= *at + patience);
            if due {
                reign.resent.insert(node.incarnation, now);
            }
            due
        });
        for node in late {
            self.resend(&node, out);
        }
    }

    /// Mains whose votes are missing, or that are not heard of at all, or whose disk is full.
    pub(super) fn silent<'a>(&'a self, configuration: &'a Configuration) -> Vec<&'a NodeId> {
        let Phase::Leading(reign) = &self.phase else { return Vec::new() };
        let (now, hedge) = (self.turn.at, self.timing.hedge);
        let oldest = reign.open.first_key_value();
        configuration
            .other_mains(self.me.incarnation)
            .filter(|main| {
                let acked = reign.acks.get(&main.incarnation).map_or(Step(0), |(step, _)| *step);
                let lacks =
                    oldest.is_some_and(|(step, open)| acked < *step && now >= open.since + hedge);
                // A link that is down carries no votes, however lately it was heard.
                let gone = self.peers.get(&main.name).is_some_and(|p| p.id == **main && !p.up);
                lacks || gone || !self.heard_within(main, hedge) || self.is_full(main)
            })
            .collect()
    }

    /// Whether this node's disk is full, or its own vote has been missing for long, while another
    /// main could lead.
    fn is_stuck(&self) -> bool {
        let Phase::Leading(reign) = &self.phase else { return false };
        let patience = 4 * self.timing.election;
        let has = |could: &dyn Fn(&NodeId) -> bool| {
            self.configuration().is_some_and(|c| c.other_mains(self.me.incarnation).any(could))
        };
        if self.full {
            return has(&|main| self.could_lead(main));
        }
        has(&|main| self.heard_within(main, self.timing.stickiness))
            && reign.open.first_key_value().is_some_and(|(step, open)| {
                reign.voted < *step && self.turn.at >= open.since + patience
            })
    }

    /// Remembers since when each silent main is silent.
    fn note_silence(&mut self, configuration: &Configuration) {
        let since = self.turn.at - self.timing.hedge;
        let silent: Vec<_> =
            self.silent(configuration).into_iter().map(|main| main.incarnation).collect();
        let Phase::Leading(reign) = &mut self.phase else { return };
        reign.silent.retain(|main, _| silent.contains(main));
        for main in silent {
            reign.silent.entry(main).or_insert(since);
        }
    }

    /// Starts, feeds or ends the bridge over a silent main (1.9 of the manual).
    fn bridge(&mut self, configuration: &Configuration, out: &mut Effects<Self>) {
        let Phase::Leading(reign) = &self.phase else { return };
        if reign.bridge.is_none() {
            if reign.open.is_empty()
                || configuration.auxiliaries.is_empty()
                || self.silent(configuration).is_empty()
            {
                return;
            }
            let sent = self.history.executed();
            // Votes of an earlier bridge, or of an earlier leader's, that it has not forgotten yet.
            let held = configuration.auxiliaries.iter().filter_map(|auxiliary| {
                let peer = self.peers.get(&auxiliary.name).filter(|peer| peer.id == *auxiliary);
                peer.and_then(|peer| peer.standing.as_ref()).map(|standing| standing.bytes)
            });
            let bytes = usize::try_from(held.max().unwrap_or(0)).unwrap_or(usize::MAX);
            sometimes!(BridgeBegins);
            tracing::info!(from = %sent.next(), "an auxiliary completes steps for a silent main");
            let Phase::Leading(reign) = &mut self.phase else { return };
            reign.bridge = Some(Bridge { sent, bytes });
            self.send_bridged(out);
            return;
        }
        // What a lease held back.
        self.send_bridged(out);
        let Phase::Leading(reign) = &self.phase else { return };
        // It ends when every main votes in time again: each has all that was chosen.
        let executed = self.history.executed();
        let current = self.silent(configuration).is_empty()
            && configuration.other_mains(self.me.incarnation).all(|main| {
                let acked = reign.acks.get(&main.incarnation).map_or(Step(0), |(step, _)| *step);
                // Its last words may have been lost, and when all is quiet none follow.
                let says = self.peers.get(&main.name).filter(|peer| peer.id == *main);
                let executes = says.and_then(|peer| peer.beat.as_ref()).map(|b| b.chosen_upto);
                acked.max(executes.unwrap_or_default()) >= executed
            });
        if current {
            sometimes!(BridgeEnds);
            tracing::info!("every main votes again");
            let Phase::Leading(reign) = &mut self.phase else { return };
            reign.bridge = None;
        }
    }

    /// Votes out, lets in, replaces: one change at a time.
    fn reshape(&mut self, configuration: &Configuration, out: &mut Effects<Self>) {
        if self.is_changing() {
            return;
        }
        let change = self
            .whom_to_vote_out(configuration, out)
            .map(|main| configuration.without_main(main.incarnation))
            .or_else(|| self.whom_to_admit(configuration))
            .or_else(|| self.whether_to_rise(configuration));
        if let Some(change) = change {
            self.change_to(change);
        }
    }

    /// Whether a change is on its way, or must not begin now: one at a time.
    pub(super) fn is_changing(&self) -> bool {
        let Phase::Leading(reign) = &self.phase else { return true };
        let epoch = |configuration: Option<&Configuration>| configuration.map(|c| c.epoch);
        reign.change.is_some()
            || reign.handover.is_some()
            || epoch(self.history.newest()) != epoch(self.configuration())
            || reign.open.values().any(|open| open.value.is_configuration())
            || !reign.opened
    }

    /// Proposes it as soon as nothing else is under way.
    pub(super) fn change_to(&mut self, change: Configuration) {
        tracing::info!(epoch = change.epoch, mains = ?change.mains,
            auxiliaries = ?change.auxiliaries, expected = ?change.expected,
            "changing the configuration");
        let Phase::Leading(reign) = &mut self.phase else { return };
        reign.change = Some(change);
    }

    /// Whether that voter was heard of lately.
    pub(super) fn is_there(&self, node: &NodeId) -> bool {
        let auxiliary = self.peers.get(&node.name).is_some_and(|p| p.role == NodeRole::Auxiliary);
        let patience = if auxiliary { 3 * self.timing.auxiliary } else { self.timing.stickiness };
        self.heard_within(node, patience)
    }

    fn whom_to_vote_out(
        &mut self,
        configuration: &Configuration,
        out: &mut Effects<Self>,
    ) -> Option<NodeId> {
        let now = self.turn.at;
        let silent: Vec<NodeId> = self.silent(configuration).into_iter().cloned().collect();
        for main in silent {
            // Its disk was lost: the same name came back as another node.
            let replaced =
                self.peers.get(&main.name).is_some_and(|peer| peer.id != main && peer.up);
            let Phase::Leading(reign) = &self.phase else { return None };
            let since = reign.silent.get(&main.incarnation).copied().unwrap_or(now);
            let unreachable =
                reign.unreachable.get(&main.incarnation).is_some_and(|at| *at >= since);
            let spent = reign.bridge.as_ref().is_some_and(|b| b.bytes > self.bridge_bytes_max);
            let overdue = now >= since + self.timing.remove
                || (now >= since + self.timing.remove_unreachable && unreachable);
            let gains = configuration.gains_without(main.incarnation);
            let wanted = replaced || gains && (spent || overdue);
            if wanted && self.could_choose_without(configuration, &main) {
                sometimes!(MainVotedOut);
                return Some(main);
            }
            if now >= since + self.timing.remove_unreachable {
                self.ask_reach(configuration, &main, out);
            }
        }
        None
    }

    /// Whether enough others are there to decide that a main is out (R1.24). If not, only its own vote
    /// could, and it would cast it as soon as it is back: then it would be out for nothing, and a sole
    /// main left behind that never starts again if the auxiliary's disk is lost.
    fn could_choose_without(&self, configuration: &Configuration, main: &NodeId) -> bool {
        let members = configuration.mains.iter().chain(&configuration.auxiliaries);
        let others = members.filter(|node| *node != main && self.is_there(node));
        configuration.is_quorum(&others.map(|node| node.incarnation).collect())
    }

    fn ask_reach(&mut self, configuration: &Configuration, node: &NodeId, out: &mut Effects<Self>) {
        let (now, patience) = (self.turn.at, 2 * self.timing.probe);
        let Phase::Leading(reign) = &mut self.phase else { return };
        if now < reign.reach_asked + patience {
            return;
        }
        reign.reach_asked = now;
        for auxiliary in &configuration.auxiliaries {
            let reach = AuxiliaryMessage::Reach(Reach { node: node.clone() });
            out.send(To::Node(auxiliary.clone()), reach);
        }
    }

    /// The cluster version rises when every main says that it can execute the higher one, and so
    /// does everybody else who follows the log and is connected: whoever cannot would halt.
    fn whether_to_rise(&self, configuration: &Configuration) -> Option<Configuration> {
        let mut known = self.knows;
        for main in configuration.other_mains(self.me.incarnation) {
            let peer = self.peers.get(&main.name).filter(|peer| peer.up && peer.id == *main)?;
            known = known.min(peer.beat.as_ref()?.knows);
        }
        let others = self.peers.values().filter(|peer| peer.up);
        let least = others.filter_map(|peer| peer.beat.as_ref()).map(|beat| beat.knows).min();
        let known = least.map_or(known, |least| known.min(least));
        #[cfg(any(test, feature = "mutations"))]
        let known = match crate::mutation::on(crate::mutation::Mutation::RisesAlone) {
            true => self.knows,
            false => known,
        };
        (known > configuration.version).then(|| configuration.raised_to(known))
    }

    /// A main that caught up, or an auxiliary that came back with another disk.
    fn whom_to_admit(&self, configuration: &Configuration) -> Option<Configuration> {
        let now = self.turn.at;
        for peer in self.peers.values().filter(|peer| peer.up) {
            let name = &peer.id.name;
            let expected = configuration.expected.iter().find(|(expected, _)| expected == name);
            let expected = expected.map(|(_, role)| *role);
            let listed = configuration.absent.contains(name) || expected == Some(NodeRole::Main);
            let standing_in = configuration.auxiliaries.iter().find(|a| a.name == peer.id.name);
            match peer.role {
                NodeRole::Main | NodeRole::Member
                    if listed && !configuration.has_main(peer.id.incarnation) =>
                {
                    let knows = peer.beat.as_ref().map_or(0, |beat| beat.knows);
                    let keeps_pace = knows >= configuration.version
                        && peer.pace.keeps_up(now, self.timing.remove_unreachable)
                        && !self.is_full(&peer.id)
                        && self.heard_within(&peer.id, self.timing.hedge);
                    if keeps_pace {
                        sometimes!(MainAdmitted);
                        return Some(configuration.with_main(peer.id.clone()));
                    }
                }
                NodeRole::Auxiliary
                    if standing_in.is_some_and(|a| *a != peer.id)
                        || expected == Some(NodeRole::Auxiliary) && self.is_there(&peer.id) =>
                {
                    sometimes!(AuxiliaryReplaced if standing_in.is_some());
                    return Some(configuration.with_auxiliary(peer.id.clone()));
                }
                NodeRole::Main | NodeRole::Auxiliary | NodeRole::Member => {}
            }
        }
        None
    }

    /// Rule F: an auxiliary forgets what every main has executed durably.
    fn let_forget(&mut self, configuration: &Configuration, out: &mut Effects<Self>) {
        let now = self.turn.at;
        let Phase::Leading(reign) = &self.phase else { return };
        let busy = reign.bridge.is_some() || now < reign.forget_asked + self.timing.hedge;
        // One that was removed may forget too, and stops when it is told.
        let removed = configuration.removed.iter();
        let told: Vec<&NodeId> = configuration.auxiliaries.iter().chain(removed).collect();
        if busy || told.is_empty() {
            return;
        }
        let durable: Option<Step> = configuration
            .mains
            .iter()
            .map(|main| {
                if *main == self.me {
                    return Some(self.durable_upto);
                }
                let peer = self.peers.get(&main.name).filter(|peer| peer.id == *main)?;
                peer.beat.as_ref().map(|beat| beat.durable_upto)
            })
            .min()
            .flatten();
        let Some(durable) = durable else { return };
        let asked: Vec<NodeId> = told
            .into_iter()
            .filter(|auxiliary| {
                let peer = self.peers.get(&auxiliary.name).filter(|peer| peer.id == **auxiliary);
                peer.and_then(|peer| peer.standing.as_ref()).is_some_and(|standing| {
                    let holds = standing.holds.is_some_and(|step| step <= durable);
                    let outdated = standing.holds.is_none() && standing.epoch < configuration.epoch;
                    (holds || outdated) && durable.next() > standing.floor
                })
            })
            .cloned()
            .collect();
        if asked.is_empty() {
            return;
        }
        let forget = Forget { floor: durable.next(), configuration: configuration.clone() };
        for auxiliary in asked {
            out.send(To::Node(auxiliary), AuxiliaryMessage::Forget(forget.clone()));
        }
        let Phase::Leading(reign) = &mut self.phase else { return };
        reign.forget_asked = now;
    }
}
