//! What a proposer tells: signs of life, who leads, and whom it waits for.

use std::{collections::BTreeSet, time::Duration};

use synod_runtime::identity::{Incarnation, NodeId};

use super::{Known, LEADER_NEWS, Phase, Proposer, following::Following};
use crate::{
    consensus::{
        ballot::Step,
        configuration::{ALPHA, Configuration},
        message::{
            AuxiliaryMessage, Dismissed, Heartbeat, HomeMessage, Leader, Message, Nearness,
            NodeRole, PeerReport, Program, ProposerMessage, ProposerReport, Report, Sign,
        },
    },
    effects::{Effects, To},
};

impl Proposer {
    pub(super) fn leader_news(&self) -> Leader {
        let halted = self.halted.clone();
        match &self.phase {
            Phase::Leading(reign) if reign.established => Leader {
                node: Some(self.me.clone()),
                ballot: reign.ballot,
                serving: halted.is_none(),
                halted,
            },
            Phase::Leading(reign) => {
                Leader { node: None, ballot: reign.ballot, serving: false, halted }
            }
            Phase::Following(following) => {
                let node = self.heard_leader(following).cloned();
                let serving = following.serving && node.is_some();
                Leader { node, ballot: following.ballot, serving, halted }
            }
        }
    }

    /// A leader that fell silent may lead others, but serves nobody here.
    pub(super) fn heard_leader<'a>(&self, following: &'a Following) -> Option<&'a NodeId> {
        let patience = 2 * self.timing.election;
        following.leader.as_ref().filter(|leader| self.heard_within(leader, patience))
    }

    /// Tells homes and people who leads, when that changed or is due: a home that was made anew
    /// has not heard it, and a link may have dropped it.
    pub(super) fn tell(&mut self, out: &mut Effects<Self>) {
        let news = self.leader_news();
        let again = self.told.as_ref() != Some(&news) || self.turn.at >= self.news_due;
        let nearness = Nearness { near: self.is_near(), version: self.version() };
        if again || self.near.as_ref() != Some(&nearness) {
            self.near = Some(nearness.clone());
            out.here(HomeMessage::Nearness(nearness));
        }
        if again {
            self.news_due = self.turn.at + LEADER_NEWS;
            out.here(HomeMessage::Leader(news.clone()));
            if self.leads().is_some() {
                for peer in self.peers.values().filter(|p| p.up && p.role == NodeRole::Member) {
                    let removed =
                        self.configuration().is_some_and(|c| c.removed.contains(&peer.id));
                    let word = match removed {
                        true => HomeMessage::Dismissed(Dismissed {}),
                        false => HomeMessage::Leader(news.clone()),
                    };
                    out.send(To::Node(peer.id.clone()), word);
                }
            }
            self.told = Some(news);
        }
        self.report(out);
    }

    pub(super) fn report(&mut self, out: &mut Effects<Self>) {
        let news = self.leader_news();
        let report = ProposerReport {
            leader: news.node,
            ballot: news.ballot,
            serving: news.serving,
            halted: self.halted.clone(),
            knows: self.knows,
            bridging: matches!(&self.phase, Phase::Leading(reign) if reign.bridge.is_some()),
            mending: self.mending.is_some(),
            peers: self
                .peers
                .values()
                .map(|peer| {
                    let said =
                        |step: fn(&Heartbeat) -> Step| peer.beat.as_ref().map_or(Step(0), step);
                    PeerReport {
                        node: peer.id.clone(),
                        role: peer.role,
                        executed: said(|beat| beat.chosen_upto),
                        durable: said(|beat| beat.durable_upto),
                        epoch: peer.beat.as_ref().map_or(0, |beat| beat.epoch),
                        sign: self.sign_of(peer),
                        program: program_of(peer),
                    }
                })
                .collect(),
        };
        if report != self.reported {
            self.reported = report.clone();
            out.here(Message::Report(Report::Proposer(report)));
        }
    }

    /// The cluster version in force, as far as is known here.
    fn version(&self) -> u32 {
        self.configuration().map_or(0, |configuration| configuration.version)
    }

    /// What people are told of a peer's life; nothing is decided by it.
    fn sign_of(&self, peer: &Known) -> Sign {
        let beats = match peer.role {
            NodeRole::Main => self.timing.quiet,
            NodeRole::Auxiliary => 4 * self.timing.auxiliary,
            // It need not say anything: its link is its sign of life.
            NodeRole::Member if peer.up => return Sign::Heard,
            NodeRole::Member => return Sign::Silent,
        };
        match () {
            () if self.heard_within(&peer.id, beats) => Sign::Heard,
            () if self.heard_within(&peer.id, 3 * beats) => Sign::Late,
            () => Sign::Silent,
        }
    }

    /// Sends signs of life that are due.
    pub(super) fn beat(&mut self, out: &mut Effects<Self>) {
        let now = self.turn.at;
        let (mains, auxiliaries) = (now >= self.beat_due, now >= self.auxiliary_due);
        if !mains && !auxiliaries {
            return;
        }
        let leading = self.leads();
        let beat = Heartbeat {
            ballot: leading.unwrap_or(self.seen),
            leading: leading.is_some(),
            serving: self.halted.is_none(),
            chosen_upto: self.history.executed(),
            // A torn end may hide anything, and nobody should wait for its vote.
            durable_upto: if self.mending.is_some() { Step(0) } else { self.durable_upto },
            epoch: self.history.newest().map_or(0, |c| c.epoch),
            program: Program::THIS,
            knows: self.knows,
            full: self.full,
        };
        for peer in self.peers.values().filter(|peer| peer.up) {
            let to = To::Node(peer.id.clone());
            match peer.role {
                NodeRole::Main | NodeRole::Member if mains && self.concern_each_other(peer) => {
                    out.send(to, ProposerMessage::Heartbeat(beat.clone()));
                }
                NodeRole::Auxiliary if auxiliaries => {
                    out.send(to, AuxiliaryMessage::Heartbeat(beat.clone()));
                }
                NodeRole::Main | NodeRole::Auxiliary | NodeRole::Member => {}
            }
        }
        if mains {
            self.beat_due = now + self.timing.heartbeat;
        }
        if auxiliaries {
            self.auxiliary_due = now + self.timing.auxiliary;
        }
    }

    /// Whether this node or that peer is a main: those without a vote need not hear of one another.
    fn concern_each_other(&self, peer: &Known) -> bool {
        let Some(configuration) = self.configuration() else { return peer.role == NodeRole::Main };
        configuration.has_main(self.me.incarnation)
            || configuration.has_main(peer.id.incarnation)
            || peer.role == NodeRole::Main
    }

    /// Whether what was executed here is new enough to read from: a main waits for what it lacks,
    /// whoever is far behind had better ask another.
    fn is_near(&self) -> bool {
        let Some(configuration) = self.configuration() else { return false };
        let executed = self.history.executed();
        let beats = self.peers.values().filter_map(|peer| peer.beat.as_ref());
        configuration.has_main(self.me.incarnation)
            || beats.map(|beat| beat.chosen_upto.beyond(executed)).max().unwrap_or(0) < ALPHA
    }

    /// Names whoever is missing, when nothing was decided for too long.
    pub(super) fn judge(&mut self) {
        let idle = match &self.phase {
            Phase::Leading(reign) => reign.established && reign.open.is_empty(),
            Phase::Following(following) => {
                self.heard_leader(following).is_some() && following.serving
            }
        };
        let patience = 4 * self.timing.election;
        if let Some(whom) = self.whom_mending_waits_for() {
            self.halted = Some(whom);
            return;
        }
        if self.full && self.leads().is_some() {
            self.halted = Some(format!("needs room on the disk of main {}", self.me.name));
            return;
        }
        if self.is_cut_off(patience) {
            self.halted = Some(self.whom_it_waits_for());
            return;
        }
        if idle {
            self.alive = self.turn.at;
        }
        if self.turn.at < self.alive + patience {
            self.halted = None;
            return;
        }
        self.halted = Some(self.whom_it_waits_for());
    }

    /// Whether this node leads and hears of too few to have anything chosen, though nothing asked
    /// for it yet (check-quorum): what clients want now had better not be taken.
    fn is_cut_off(&self, patience: Duration) -> bool {
        let Phase::Leading(reign) = &self.phase else { return false };
        let Some(configuration) = self.configuration() else { return false };
        if !reign.established || self.turn.at < reign.since + patience {
            return false;
        }
        let mains = configuration.mains.iter().filter(|node| self.heard_within(node, patience));
        let auxiliaries = configuration
            .auxiliaries
            .iter()
            .filter(|node| self.heard_within(node, patience.max(3 * self.timing.auxiliary)));
        let heard = mains.chain(auxiliaries).map(|node| node.incarnation).collect();
        !configuration.is_quorum(&heard)
    }

    pub(super) fn whom_it_waits_for(&self) -> String {
        if let Some(mains) = &self.behind {
            let names: Vec<&str> = mains.iter().map(|main| main.name.as_str()).collect();
            return format!("needs main {}", names.join(" or main "));
        }
        let Some(configuration) = self.configuration() else {
            return "needs to be admitted: no main has answered".to_owned();
        };
        let patience = 4 * self.timing.election;
        let gone = |node: &&NodeId| !self.heard_within(node, patience);
        let silent = |node: &&NodeId| !self.heard_within(node, 3 * self.timing.auxiliary);
        let mains = configuration.mains.iter().filter(gone).map(|node| ("main", node));
        let auxiliaries = configuration.auxiliaries.iter().filter(silent);
        let missing: Vec<(&str, &NodeId)> =
            mains.chain(auxiliaries.map(|node| ("auxiliary", node))).collect();
        needs(configuration, &missing)
    }
}

/// Says whose return would make a quorum again; `missing`: mains first.
fn needs(configuration: &Configuration, missing: &[(&str, &NodeId)]) -> String {
    if missing.is_empty() {
        return "needs a quorum: votes are missing although every member answers".to_owned();
    }
    let members = configuration.mains.iter().chain(&configuration.auxiliaries);
    let heard = members.filter(|node| missing.iter().all(|(_, gone)| gone != node));
    let heard: BTreeSet<Incarnation> = heard.map(|node| node.incarnation).collect();
    let enough = |back: &[(&str, &NodeId)]| {
        let mut voters = heard.clone();
        voters.extend(back.iter().map(|(_, node)| node.incarnation));
        configuration.is_quorum(&voters)
    };
    // No other so few are enough if the first are not: a main counts as much as anyone.
    let few = (0..=missing.len()).find(|few| enough(&missing[..*few])).unwrap_or_default();
    let would_do = missing.iter().filter(|one| few != 1 || enough(&[**one]));
    let names: Vec<_> = would_do.map(|(role, node)| format!("{role} {}", node.name)).collect();
    match few {
        // With none, enough are heard of and yet nothing is chosen: any may be what is waited for.
        0 | 1 => format!("needs {}", names.join(" or ")),
        _ if few == missing.len() => format!("needs {}", names.join(" and ")),
        _ => format!("needs {few} of {}", names.join(", ")),
    }
}

fn program_of(peer: &Known) -> Option<(Program, Option<u32>)> {
    let executes = peer.beat.as_ref().map(|beat| (beat.program, Some(beat.knows)));
    executes.or_else(|| peer.standing.as_ref().map(|standing| (standing.program, None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_would_make_a_quorum_again() {
        let node = |name: &str, number| NodeId::new(name.parse().unwrap(), Incarnation(number));
        let [a, b, c] = [node("a", 1), node("b", 2), node("c", 3)];
        let [x, y] = [node("x", 4), node("y", 5)];
        let small = Configuration::founding(vec![a.clone(), b.clone()], vec![x.clone()]);
        let (lost, gone) = (("main", &b), ("auxiliary", &x));
        assert_eq!(needs(&small, &[lost, gone]), "needs main b or auxiliary x");
        let mains = vec![a.clone(), b.clone(), c.clone()];
        let large = Configuration::founding(mains.clone(), vec![x.clone(), y.clone()]);
        let all = [("main", &a), lost, ("main", &c), gone, ("auxiliary", &y)];
        assert_eq!(needs(&large, &all[1..]), "needs 2 of main b, main c, auxiliary x, auxiliary y");
        assert_eq!(needs(&large, &all[2..]), "needs main c or auxiliary x or auxiliary y");
        // None is enough without a main.
        assert_eq!(needs(&large, &all[..3]), "needs main a or main b or main c");
        let even = Configuration::founding(mains, Vec::new());
        assert_eq!(needs(&even, &all[..3]), "needs 2 of main a, main b, main c");
        let pair = Configuration::founding(vec![a.clone(), b.clone()], Vec::new());
        assert_eq!(needs(&pair, &all[..2]), "needs main a and main b");
        // What a sole main waits for when it starts.
        let sole = Configuration::founding(vec![a], vec![x.clone()]);
        assert_eq!(needs(&sole, &[gone]), "needs auxiliary x");
        assert!(needs(&sole, &[]).contains("votes are missing although"));
    }
}
