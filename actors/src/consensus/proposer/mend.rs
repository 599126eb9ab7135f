//! Making up for a torn end of the journal, before the own acceptor says anything again.
//!
//! A crash may tear the last write of a journal. Nobody was told what stood there, unless the disk
//! damaged a write that it had called durable: the two look alike. So this node may have promised
//! and voted what it does not know. Its acceptor keeps silent, and its proposer asks the others to
//! promise a ballot above all that any of them has seen, with their votes.
//!
//! **Who has to answer.** Of every configuration that decides a step not durably known here: all
//! other mains, since only they can hold a promise of this node; and so many auxiliaries that this
//! node and those who kept silent are no quorum.
//!
//! **Why that is enough.** Let this node have voted for a value at a step, in a ballot that it does
//! not know. If that value was chosen, or ever will be, some quorum votes for it, and one of those
//! asked is in it. It has promised the new ballot, so it voted before, and its vote was reported
//! (or a later one, for the same value). What is reported is taken over as this node's own vote,
//! so whoever leads next finds it. Below the steps that a promise speaks of, the value is known to
//! be chosen, and is durable here before the acceptor speaks. A promise that this node gave and
//! forgot was asked for by a main that has seen its ballot: the new one is above it.
//!
//! Configurations need no guessing: the first one that this node does not know was chosen by a
//! quorum of one that it knows, of which somebody asked is a part.
//!
//! **When to ask anew.** What a promise passes over because it is chosen, its author knows, but not
//! durably: it may have crashed since, and then has its vote only, which this node did not ask for.
//! The author cannot find out again without this node's promise, and this node would wait for a step
//! that nobody knows to be chosen. So once nobody who is up says that far any more, all are asked
//! again, in a higher ballot, and the votes come with the new promises. An earlier answer counts for
//! nothing then, so this is as sound as the first time. Who lost its disk meanwhile is not asked.
//!
//! A node that is a quorum by itself has nobody to ask. It trusts its disk. Nodes that are torn at
//! once (the power failed) answer one another with what they have left: that suffices unless two
//! disks broke their word at the same time. For the same reason nobody waits for a node that lost
//! its disk and came back as another one: then this node's disk kept its word, and nothing that was
//! said stood in the torn end.

use std::collections::{BTreeMap, BTreeSet};

use synod_runtime::{
    identity::{Incarnation, NodeId, NodeName},
    world::Instant,
};

use super::{Known, Proposer};
use crate::{
    consensus::{
        ballot::{Ballot, Step},
        configuration::{ALPHA, Configuration},
        message::{AcceptorMessage, AuxiliaryMessage, Mend, Nack, Prepare, Promise, Vote},
        value::Decoded,
    },
    effects::{Effects, To},
};

/// What is known of a torn end.
#[derive(Debug)]
pub(super) struct Mending {
    /// Asked of the others, once it was chosen.
    ballot: Option<Ballot>,
    /// The first step that each answer speaks of.
    promises: BTreeMap<NodeId, Step>,
    /// The highest vote reported for each step.
    reported: BTreeMap<Step, Vote>,
    /// When each was last asked.
    asked: BTreeMap<NodeId, Instant>,
    /// The configurations of steps not durably known, each with the first step it decides.
    configurations: BTreeMap<Step, Configuration>,
    /// When the acceptor was last told.
    told: Option<Instant>,
    /// Since when nobody knows any more what those who promised knew to be chosen.
    forgotten: Option<Instant>,
    /// After a refusal: all are asked at once again, or one would lead before the next is asked.
    not_before: Instant,
    since: Instant,
}

impl Mending {
    pub(super) fn begun(now: Instant) -> Self {
        Self {
            ballot: None,
            promises: BTreeMap::new(),
            reported: BTreeMap::new(),
            asked: BTreeMap::new(),
            configurations: BTreeMap::new(),
            told: None,
            forgotten: None,
            not_before: now,
            since: now,
        }
    }

    /// Takes in the configurations that became known, and forgets those that ended.
    fn note_configurations(&mut self, known: &[(Step, Configuration)], durable: Step) {
        self.configurations.extend(known.iter().cloned());
        let in_force = self.configurations.range(..=durable.next()).next_back();
        if let Some(first) = in_force.map(|(from, _)| *from) {
            self.configurations = self.configurations.split_off(&first);
        }
        // One that somebody voted for may decide too.
        for (step, vote) in self.reported.iter().filter(|(_, vote)| vote.value.is_configuration()) {
            if let Ok(Decoded::Configuration(next)) = vote.value.decode() {
                self.configurations.entry(step.plus(ALPHA)).or_insert(next);
            }
        }
    }

    /// The first step that no promise passes over.
    fn spoken(&self) -> Step {
        self.promises.values().max().copied().unwrap_or_default()
    }

    /// Who still has to answer `me`: mains, and auxiliaries. Nobody waits for those that are `gone`.
    fn missing(
        &self,
        me: Incarnation,
        gone: impl Fn(&NodeId) -> bool,
    ) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
        let silent = |node: &&NodeId| !self.promises.contains_key(*node) && !gone(node);
        let (mut mains, mut auxiliaries) = (BTreeSet::new(), BTreeSet::new());
        for configuration in self.configurations.values() {
            let silent_mains = configuration.other_mains(me).filter(silent);
            mains.extend(silent_mains.cloned());
            let all = configuration.mains.iter().chain(&configuration.auxiliaries);
            let mut others: BTreeSet<Incarnation> =
                all.filter(silent).map(|node| node.incarnation).collect();
            let alone = configuration.is_quorum(&BTreeSet::from([me]));
            others.insert(me);
            if configuration.has_main(me) && !alone && configuration.is_quorum(&others) {
                auxiliaries.extend(configuration.auxiliaries.iter().filter(silent).cloned());
            }
        }
        (mains, auxiliaries)
    }
}

impl Proposer {
    /// Asks whoever is missing, and tells the acceptor once nobody is.
    pub(super) fn mend(&mut self, out: &mut Effects<Self>) {
        let (now, durable, resend) = (self.turn.at, self.durable_upto, self.timing.resend);
        let Some(mending) = &mut self.mending else { return };
        mending.note_configurations(self.history.changes(), durable);
        if mending.configurations.is_empty() || now < mending.not_before {
            return; // in the first case it is not even known who votes
        }
        let ballot = *mending.ballot.get_or_insert_with(|| {
            self.seen = Ballot { round: self.seen.round + 1, node: self.me.incarnation };
            self.seen
        });
        let gone = |node: &NodeId| came_back_as_another(&self.peers, node);
        let (mains, auxiliaries) = mending.missing(self.me.incarnation, gone);
        let asked = Prepare { ballot, from: durable.next() };
        let mut due = |node: &&NodeId| {
            let due = mending.asked.get(*node).is_none_or(|at| now >= *at + resend);
            if due {
                mending.asked.insert((*node).clone(), now);
            }
            due
        };
        for main in mains.iter().filter(&mut due) {
            out.send(To::Node(main.clone()), AcceptorMessage::Vouch(asked.clone()));
        }
        for auxiliary in auxiliaries.iter().filter(&mut due) {
            out.send(To::Node(auxiliary.clone()), AuxiliaryMessage::Prepare(asked.clone()));
        }
        let answered = mains.is_empty() && auxiliaries.is_empty();
        if answered && durable.next() < mending.spoken() {
            return self.ask_anew_if_forgotten();
        }
        if answered && mending.told.is_none_or(|at| now >= at + resend) {
            mending.told = Some(now);
            let open = mending.reported.range(durable.next()..);
            let votes = open.map(|(_, vote)| vote.clone()).collect();
            #[cfg(any(test, feature = "mutations"))]
            let votes = match crate::mutation::on(crate::mutation::Mutation::MendTakesNothing) {
                true => Vec::new(),
                false => votes,
            };
            out.here(AcceptorMessage::Mend(Mend { ballot, votes }));
        }
    }

    /// Whoever promised knew more to be chosen than is durable here. Somebody who is up hands it over,
    /// or nobody knows it any more.
    fn ask_anew_if_forgotten(&mut self) {
        let (now, patience) = (self.turn.at, 2 * self.timing.election);
        let Some(mending) = &mut self.mending else { return };
        let spoken = mending.spoken();
        let beats =
            self.peers.values().filter(|peer| peer.up).filter_map(|peer| peer.beat.as_ref());
        if beats.map(|beat| beat.chosen_upto.next()).max() >= Some(spoken) {
            mending.forgotten = None;
        } else if now >= *mending.forgotten.get_or_insert(now) + patience {
            sometimes!(MendAsksAnew);
            tracing::info!("nobody knows any more what was chosen; asking all again");
            *mending = Mending::begun(mending.since);
        }
    }

    /// Counts a promise asked for here; whether it was one.
    pub(super) fn mending_promise(&mut self, from: &NodeId, promise: &Promise) -> bool {
        let Some(mending) = &mut self.mending else { return false };
        if mending.ballot != Some(promise.ballot) {
            return false;
        }
        mending.promises.insert(from.clone(), promise.from);
        for vote in &promise.votes {
            let best = mending.reported.get(&vote.step);
            if best.is_none_or(|best| best.ballot < vote.ballot) {
                mending.reported.insert(vote.step, vote.clone());
            }
        }
        true
    }

    /// Somebody has promised a higher ballot: then all must be asked for one above that.
    pub(super) fn mending_refused(&mut self, nack: &Nack) {
        let refused = self.mending.as_ref().is_some_and(|mending| {
            mending.ballot == Some(nack.ballot) && nack.promised > nack.ballot
        });
        if refused {
            sometimes!(MendRefused);
            let not_before = self.turn.at + self.jitter(self.timing.resend);
            self.mending = self
                .mending
                .take()
                .map(|Mending { since, .. }| Mending { not_before, ..Mending::begun(since) });
        }
    }

    /// The acceptor speaks again.
    pub(super) fn mended(&mut self) {
        if let Some(Mending { ballot: Some(ballot), .. }) = self.mending.take() {
            tracing::info!("the torn end of the journal is made up for");
            // What was proposed in a life before may have been forgotten with it.
            self.end_leases_before(ballot);
        }
    }

    /// Who is waited for, if that takes long, for people.
    pub(super) fn whom_mending_waits_for(&self) -> Option<String> {
        let mending = self.mending.as_ref()?;
        if self.turn.at < mending.since + 4 * self.timing.election {
            return None;
        }
        let gone = |node: &NodeId| came_back_as_another(&self.peers, node);
        let (mains, auxiliaries) = mending.missing(self.me.incarnation, gone);
        let mains = mains.iter().map(|node| format!("main {}", node.name));
        let auxiliaries = auxiliaries.iter().map(|node| format!("auxiliary {}", node.name));
        let missing: Vec<String> = mains.chain(auxiliaries).collect();
        let why = "to make up for the torn end of its journal";
        Some(match missing.is_empty() {
            true => format!("catches up {why}"),
            false => format!("needs {} {why}", missing.join(" and ")),
        })
    }

    /// When to look again.
    pub(super) fn mending_due(&self) -> Option<Instant> {
        let again = self.turn.at + self.timing.resend;
        self.mending.as_ref().map(|mending| match mending.not_before > self.turn.at {
            true => mending.not_before,
            false => again,
        })
    }
}

/// Whether the node lost its disk: another one is up under its name.
fn came_back_as_another(peers: &BTreeMap<NodeName, Known>, node: &NodeId) -> bool {
    peers.get(&node.name).is_some_and(|peer| peer.id != *node && peer.up)
}
