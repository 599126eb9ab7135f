//! The inexpensive device: an acceptor that is asked only while a main is silent.
//!
//! In failure-free work it hears heartbeats and nothing else, and writes nothing (R1.32). It keeps
//! votes for the few steps that were open when a main fell silent, within a budget, and forgets
//! them once every main has them (rule F). It never executes anything (R1.36). Its floor is
//! durable: below it, a promise says nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use synod_runtime::{identity::NodeId, journal::EVERY_STEP, world::Instant};

use super::{
    ballot::{Ballot, Run, Step},
    configuration::Configuration,
    message::{
        Accept, Accepted, AuxiliaryMessage, Confirm, Confirmed, Forget, HomeMessage,
        LearnerMessage, Message, Nack, PreVote, PreVoteAnswer, Prepare, Probe, Program, Promise,
        ProposerMessage, Reach, Reached, Report, Standing, Vote,
    },
    record::{Image, Record},
    value::Value,
};
use crate::{
    effects::{Effects, To, Truncate},
    machine::{Machine, Now, Survived},
};

/// Votes beyond this many bytes are refused, except for what changes the configuration: the leader
/// votes the silent main out early instead (R1.33, R1.35).
pub const VOTE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// All that an auxiliary must not forget, for a form of it that keeps no records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Nothing below is voted for.
    pub promised: Ballot,
    /// Steps below are forgotten.
    pub floor: Step,
    /// The newest configuration it was told of; none before the log has begun.
    pub configuration: Option<Configuration>,
    /// The last vote for each step from the floor on, in order.
    pub votes: Vec<Vote>,
}

/// What a vote takes on disk beside its value.
const VOTE_BYTES: usize = 40;

/// Probes waiting for an answer at once; more askers than mains there cannot be.
const PROBES_MAX: usize = 16;

/// See the module's documentation.
#[derive(Debug)]
pub struct Auxiliary {
    me: NodeId,
    probe_patience: Duration,
    promised: Ballot,
    votes: BTreeMap<Step, (Ballot, Value)>,
    /// What they take.
    bytes: usize,
    /// What they may take.
    bytes_max: usize,
    /// Steps below are forgotten.
    floor: Step,
    /// The newest configuration it was told of.
    configuration: Option<Configuration>,
    probes: BTreeMap<u64, AwaitedProbe>,
    nonce: u64,
    reported: Option<Standing>,
    /// Who leads, for people.
    leader: Option<(NodeId, Ballot)>,
    told: bool,
    forgets: bool,
}

#[derive(Debug)]
struct AwaitedProbe {
    asker: NodeId,
    /// Who must answer: another node under its name is not it.
    node: NodeId,
    why: Why,
    until: Instant,
}

#[derive(Debug)]
enum Why {
    /// Whether a main should stand in this round.
    Stand(u64),
    /// Whether this main can be reached.
    Reach(NodeId),
}

impl Auxiliary {
    /// The auxiliary `me`, which waits this long for a main to answer a probe.
    pub fn new(me: NodeId, probe_patience: Duration) -> Self {
        Self {
            me,
            probe_patience,
            promised: Ballot::default(),
            votes: BTreeMap::new(),
            bytes: 0,
            bytes_max: VOTE_BYTES_MAX,
            floor: Step(1),
            configuration: None,
            probes: BTreeMap::new(),
            nonce: 0,
            reported: None,
            leader: None,
            told: false,
            forgets: false,
        }
    }

    /// With room for votes of so many bytes on its disk; [`VOTE_BYTES_MAX`] unless said.
    pub fn within(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// With this memory instead of what [`Machine::start`] would give it.
    pub fn remembering(mut self, memory: Memory) -> Self {
        let Memory { promised, floor, configuration, votes } = memory;
        let votes = votes.into_iter().map(|vote| (vote.step, (vote.ballot, vote.value)));
        (self.promised, self.configuration) = (promised, configuration);
        (self.floor, self.votes) = (floor.max(Step(1)), votes.collect());
        self.bytes = self.votes.values().map(|(_, value)| cost(value)).sum();
        self
    }

    /// All that it must not forget.
    pub fn memory(&self) -> Memory {
        Memory {
            promised: self.promised,
            floor: self.floor,
            configuration: self.configuration.clone(),
            votes: self.kept().collect(),
        }
    }

    fn kept(&self) -> impl Iterator<Item = Vote> {
        self.votes.iter().map(|(step, (ballot, value))| Vote {
            step: *step,
            ballot: *ballot,
            value: value.clone(),
        })
    }

    fn prepare(&mut self, from: &NodeId, asked: &Prepare, out: &mut Effects<Self>) {
        if asked.ballot < self.promised {
            return self.refuse(from, asked.ballot, out);
        }
        let persisted = if asked.ballot > self.promised {
            self.promised = asked.ballot;
            out.persist(Record::Promise(asked.ballot))
        } else {
            out.after_all_before()
        };
        let first = asked.from.max(self.floor);
        sometimes!(AuxiliaryReportsVotes if self.votes.range(first..).next().is_some());
        let votes = self
            .votes
            .range(first..)
            .map(|(step, (ballot, value))| Vote {
                step: *step,
                ballot: *ballot,
                value: value.clone(),
            })
            .collect();
        let promise = Promise { ballot: asked.ballot, from: first, votes, chosen_upto: Step(0) };
        persisted.then_send(To::Node(from.clone()), ProposerMessage::Promise(promise));
    }

    fn accept(&mut self, from: &NodeId, asked: Accept, out: &mut Effects<Self>) {
        let ballot = asked.ballot;
        let stale = ballot < self.promised;
        #[cfg(any(test, feature = "mutations"))]
        let stale =
            stale && !crate::mutation::on(crate::mutation::Mutation::AuxiliaryVotesBelowPromise);
        if stale {
            return self.refuse(from, ballot, out);
        }
        let mut last = None;
        let skip = usize::try_from(self.floor.beyond(asked.first)).unwrap_or(usize::MAX);
        let first = asked.first.max(self.floor);
        sometimes!(BelowFloorAsked if skip > 0);
        for (step, value) in (asked.first.0..).map(Step).zip(asked.values).skip(skip) {
            let known = self.votes.get(&step);
            if known.is_some_and(|(voted, _)| *voted == ballot) {
                last = Some(step);
                continue;
            }
            let needed = value.is_configuration() || value.bytes().len() <= 1;
            let after = self.bytes - known.map_or(0, |(_, old)| cost(old)) + cost(&value);
            if after > self.bytes_max && !needed {
                break;
            }
            sometimes!(AuxiliaryVotes);
            self.bytes = after;
            self.promised = ballot;
            self.votes.insert(step, (ballot, value.clone()));
            out.persist(Record::Vote(Vote { step, ballot, value }));
            last = Some(step);
        }
        if let Some(run) = last.and_then(|last| Run::new(first, last)) {
            let accepted = LearnerMessage::Accepted(Accepted { ballot, run });
            out.after_all_before().then_send(To::Node(from.clone()), accepted);
        }
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::AuxiliarySaidBeforeDurable) {
            let held = std::mem::take(&mut out.held);
            out.now.extend(held);
        }
    }

    fn refuse(&self, from: &NodeId, ballot: Ballot, out: &mut Effects<Self>) {
        sometimes!(AuxiliaryRefuses);
        let nack = Nack { ballot, promised: self.promised };
        out.send(To::Node(from.clone()), ProposerMessage::Nack(nack));
    }

    fn confirm(&self, from: &NodeId, asked: &Confirm, out: &mut Effects<Self>) {
        let Confirm { round, leader } = *asked;
        let confirmed = Confirmed { round, leader, promised: self.promised, voted: Step(0) };
        if leader.is_some() {
            out.send(To::Node(from.clone()), ProposerMessage::Confirmed(confirmed));
        } else {
            out.send(To::Node(from.clone()), HomeMessage::Confirmed(confirmed));
        }
    }

    /// Rule F. What is forgotten leaves the disk at the end of the turn.
    fn forget(&mut self, asked: Forget) {
        let newer =
            self.configuration.as_ref().is_none_or(|c| asked.configuration.epoch >= c.epoch);
        if newer {
            self.configuration = Some(asked.configuration);
        }
        if asked.floor > self.floor {
            sometimes!(AuxiliaryForgets if !self.votes.is_empty());
            self.floor = asked.floor;
            self.votes = self.votes.split_off(&self.floor);
            self.bytes = self.votes.values().map(|(_, value)| cost(value)).sum();
        }
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::ForgetsFloor) {
            self.floor = Step(1);
        }
        self.forgets = true;
    }

    fn advise(&mut self, now: Now, from: &NodeId, asked: &PreVote, out: &mut Effects<Self>) {
        // It is told of a configuration late, so a newer one than its own may well hold the asker.
        let member = self
            .configuration
            .as_ref()
            .is_none_or(|c| c.epoch < asked.epoch || c.has_main(from.incarnation));
        #[cfg(any(test, feature = "mutations"))]
        let member = member || crate::mutation::on(crate::mutation::Mutation::ForgetsFloor);
        sometimes!(OutsiderAdvisedAgainst if !member);
        match &asked.suspect {
            _ if !member => self.opine(from, asked.round, false, out),
            None => self.opine(from, asked.round, true, out),
            Some(suspect) => {
                self.probe(now, from, suspect.clone(), Why::Stand(asked.round), out);
            }
        }
    }

    fn opine(&self, to: &NodeId, round: u64, go: bool, out: &mut Effects<Self>) {
        let known = self.configuration.as_ref();
        let answer = PreVoteAnswer {
            round,
            go,
            seen: self.promised.round,
            epoch: known.map_or(0, |c| c.epoch),
            mains: known.map_or_else(Vec::new, |c| c.mains.clone()),
        };
        out.send(To::Node(to.clone()), ProposerMessage::PreVoteAnswer(answer));
    }

    /// Its own heartbeats are too slow to judge a main by, so it looks.
    fn probe(&mut self, now: Now, asker: &NodeId, node: NodeId, why: Why, out: &mut Effects<Self>) {
        if self.probes.len() >= PROBES_MAX {
            return;
        }
        self.nonce += 1;
        let probe = Probe { nonce: self.nonce };
        out.send(To::Node(node.clone()), ProposerMessage::Probe(probe));
        let until = now.at + self.probe_patience;
        let awaited = AwaitedProbe { asker: asker.clone(), node, why, until };
        self.probes.insert(self.nonce, awaited);
    }

    fn conclude(&self, probe: AwaitedProbe, alive: bool, out: &mut Effects<Self>) {
        sometimes!(ProbeAnswered if alive);
        sometimes!(ProbeUnanswered if !alive);
        match probe.why {
            Why::Stand(round) => self.opine(&probe.asker, round, !alive, out),
            Why::Reach(node) => {
                let reached = ProposerMessage::Reached(Reached { node, alive });
                out.send(To::Node(probe.asker), reached);
            }
        }
    }

    fn standing(&self) -> Standing {
        Standing {
            floor: self.floor,
            holds: self.votes.last_key_value().map(|(step, _)| *step),
            bytes: self.bytes as u64,
            epoch: self.configuration.as_ref().map_or(0, |c| c.epoch),
            program: Program::THIS,
        }
    }

    /// The nodes it may have to reach.
    pub fn mains(&self) -> BTreeSet<NodeId> {
        self.configuration.iter().flat_map(|c| c.mains.iter().cloned()).collect()
    }

    /// The auxiliary's own identity.
    pub fn id(&self) -> &NodeId {
        &self.me
    }
}

/// Bytes that a vote for this takes.
pub(super) fn cost(value: &Value) -> usize {
    VOTE_BYTES + value.bytes().len()
}

impl Machine for Auxiliary {
    type Message = AuxiliaryMessage;
    type Envelope = Message;
    type Record = Record;
    type Snapshot = Image;

    fn start(&mut self, _now: Now, survived: &Survived<Record, Image>, _out: &mut Effects<Self>) {
        #[cfg(any(test, feature = "mutations"))]
        if crate::mutation::on(crate::mutation::Mutation::AuxiliaryForgetsAll) {
            return;
        }
        for record in &survived.records {
            match record {
                Record::Genesis(configuration) => {
                    self.configuration.get_or_insert_with(|| configuration.clone());
                }
                Record::Promise(ballot) => self.promised = self.promised.max(*ballot),
                Record::Vote(vote) => {
                    self.promised = self.promised.max(vote.ballot);
                    self.votes.insert(vote.step, (vote.ballot, vote.value.clone()));
                }
                Record::Floor(floor, configuration) => {
                    self.floor = self.floor.max(*floor);
                    self.configuration = Some(configuration.clone());
                }
                Record::Chosen(_)
                | Record::Mark(_)
                | Record::Trimmed(_)
                | Record::Torn
                | Record::Mended => {}
            }
        }
        self.votes = self.votes.split_off(&self.floor);
        self.bytes = self.votes.values().map(|(_, value)| cost(value)).sum();
    }

    fn message(
        &mut self,
        now: Now,
        from: &NodeId,
        message: AuxiliaryMessage,
        out: &mut Effects<Self>,
    ) {
        match message {
            AuxiliaryMessage::Prepare(asked) => self.prepare(from, &asked, out),
            AuxiliaryMessage::Accept(asked) => self.accept(from, asked, out),
            AuxiliaryMessage::Confirm(asked) => self.confirm(from, &asked, out),
            AuxiliaryMessage::Forget(asked) => self.forget(asked),
            AuxiliaryMessage::PreVote(asked) => self.advise(now, from, &asked, out),
            AuxiliaryMessage::Reach(Reach { node }) => {
                self.probe(now, from, node.clone(), Why::Reach(node), out);
            }
            AuxiliaryMessage::Heartbeat(beat) => {
                if beat.leading && self.leader.as_ref().is_none_or(|(_, b)| *b <= beat.ballot) {
                    let leader = Some((from.clone(), beat.ballot));
                    self.told |= self.leader != leader;
                    self.leader = leader;
                }
                let standing = ProposerMessage::Standing(self.standing());
                out.send(To::Node(from.clone()), standing);
            }
            AuxiliaryMessage::ProbeAnswer(answer) => {
                if let Some(probe) = self.probes.remove(&answer.nonce) {
                    let alive = probe.node == *from;
                    self.conclude(probe, alive, out);
                }
            }
        }
    }

    fn flush(&mut self, _now: Now, out: &mut Effects<Self>) {
        if std::mem::take(&mut self.forgets)
            && let Some(configuration) = &self.configuration
        {
            // Its whole memory, written anew: storage stays within the budget for ever.
            let mut carry = vec![
                Record::Floor(self.floor, configuration.clone()),
                Record::Promise(self.promised),
            ];
            carry.extend(self.kept().map(Record::Vote));
            #[cfg(any(test, feature = "mutations"))]
            if crate::mutation::on(crate::mutation::Mutation::ForgetDropsPromise) {
                carry.retain(|record| !matches!(record, Record::Promise(_)));
            }
            out.truncate = Some(Truncate { upto: EVERY_STEP, carry });
        }
        let standing = self.standing();
        if std::mem::take(&mut self.told) || self.reported.as_ref() != Some(&standing) {
            self.reported = Some(standing.clone());
            let (leader, configuration) = (self.leader.clone(), self.configuration.clone());
            out.here(Message::Report(Report::Auxiliary { standing, leader, configuration }));
        }
    }

    fn timeout(&mut self, now: Now, out: &mut Effects<Self>) {
        let late: Vec<u64> = self
            .probes
            .iter()
            .filter(|(_, probe)| now.at >= probe.until)
            .map(|(nonce, _)| *nonce)
            .collect();
        for nonce in late {
            if let Some(probe) = self.probes.remove(&nonce) {
                self.conclude(probe, false, out);
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.probes.values().map(|probe| probe.until).min()
    }
}
