//! R1.44: one decision, explored exhaustively. Two mains and an auxiliary, three ballots of two
//! leaders, every order of every message, each lost, late or repeated: never are two values chosen.
//!
//! The machines are the real ones: acceptors, the auxiliary, and the proposers' choice of a value. A
//! machine is made anew from its durable records for every message, which is what a restart does, so
//! every history with crashes is among those explored.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Duration,
};

use stateright::{Checker, Model, Property};
use synod::{
    consensus::{
        acceptor::Acceptor,
        auxiliary::Auxiliary,
        ballot::{Ballot, Step},
        message::{
            Accept, AcceptorMessage, AuxiliaryMessage, LearnerMessage, Message, Prepare,
            ProposerMessage, Vote,
        },
        record::{Image, Record},
    },
    effects::Effects,
    machine::Machine,
    mutation::{self, Mutation},
};
use synod_tests::hand::{A, B, Standing, X, ballot, dawn, genesis, node, start, tell, value};

/// A ballot, by its round; odd rounds are A's.
type Round = u64;
/// A value, by the round whose leader made it.
type Chosen = u64;
type Report = Option<(Round, Chosen)>;

const ROUNDS: std::ops::RangeInclusive<Round> = 1..=3;
const NODES: [u64; 3] = [A, B, X];

fn leader(round: Round) -> u64 {
    if round % 2 == 1 { A } else { B }
}

fn of_round(round: Round) -> Ballot {
    ballot(round, leader(round))
}

/// What a node's disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
struct Disk {
    promised: Round,
    vote: Report,
}

/// Disks, and every message ever sent: any may arrive at any time, again and again, or never.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct State {
    disks: [Disk; 3],
    promises: BTreeSet<(Round, u64, Report)>,
    proposed: BTreeMap<Round, Chosen>,
    votes: BTreeSet<(Round, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// A request for a promise arrives.
    Ask(Round, u64),
    /// Promises arrive at the leader of a round.
    Lead(Round, Vec<(u64, Report)>),
    /// A proposal arrives.
    Vote(Round, u64),
}

/// What a leader proposes, by its round and the promises it got.
type Choices = BTreeMap<(Round, Vec<(u64, Report)>), Option<Chosen>>;

/// What a node's machine does, by what its disk holds and what is asked of it.
type Turns = BTreeMap<(u64, Disk, Asked), (Disk, Said)>;

/// One decision, with a rule switched off or none.
#[derive(Debug, Default)]
struct Decision {
    off: Option<Mutation>,
    /// The proposer decides by nothing else, so it is asked once.
    choices: Mutex<Choices>,
    /// Nor does a machine, but by its disk and the message.
    turns: Mutex<Turns>,
}

impl Decision {
    /// Hands a message to the node's machine as its disk makes it: what its disk holds then, and
    /// what it promised or whether it voted.
    fn hand(&self, at: u64, disk: Disk, asked: Asked) -> (Disk, Said) {
        let key = (at, disk, asked);
        if let Some(known) = self.turns.lock().expect("nobody panicked").get(&key) {
            return *known;
        }
        let turn = self.turn(at, disk, asked);
        self.turns.lock().expect("nobody panicked").insert(key, turn);
        turn
    }

    fn turn(&self, at: u64, disk: Disk, asked: Asked) -> (Disk, Said) {
        let mut records = vec![Record::Genesis(genesis())];
        records.extend((disk.promised > 0).then(|| Record::Promise(of_round(disk.promised))));
        records.extend(disk.vote.map(|(round, chosen)| {
            let (ballot, value) = (of_round(round), value(chosen));
            Record::Vote(Vote { step: Step(1), ballot, value })
        }));
        mutation::set(self.off);
        let machine = Acceptor::new(node(at));
        let auxiliary = Auxiliary::new(node(X), Duration::from_millis(40));
        let (records, said) = match asked.message() {
            Either::Prepare(m) if at == X => turn::<_, AuxiliaryMessage>(auxiliary, records, at, m),
            Either::Accept(m) if at == X => turn::<_, AuxiliaryMessage>(auxiliary, records, at, m),
            Either::Prepare(m) => turn::<_, AcceptorMessage>(machine, records, at, m),
            Either::Accept(m) => turn::<_, AcceptorMessage>(machine, records, at, m),
        };
        mutation::set(None);
        let mut after = disk;
        for record in records {
            match record {
                Record::Promise(ballot) => after.promised = ballot.round,
                Record::Vote(vote) => {
                    after.promised = after.promised.max(vote.ballot.round);
                    after.vote = Some((vote.ballot.round, made_by(&vote.value).expect("ours")));
                }
                _ => {}
            }
        }
        let said =
            said.into_iter().find_map(|message| match message {
                Message::Proposer(ProposerMessage::Promise(promise)) => {
                    let report = promise.votes.first();
                    Some(Said::Promise(report.map(|vote| {
                        (vote.ballot.round, made_by(&vote.value).expect("one of ours"))
                    })))
                }
                Message::Learner(LearnerMessage::Accepted(_)) => Some(Said::Vote),
                _ => None,
            });
        (after, said.unwrap_or(Said::Nothing))
    }

    /// The value the real proposer proposes with those promises, if it may propose.
    fn choice(&self, round: Round, promises: &[(u64, Report)]) -> Option<Chosen> {
        let key = (round, promises.to_vec());
        if let Some(known) = self.choices.lock().expect("nobody panicked").get(&key) {
            return *known;
        }
        mutation::set(self.off);
        let mut standing = Standing::of(leader(round));
        let asked = standing.asks(round - 1);
        assert_eq!(asked, of_round(round));
        for (from, report) in promises {
            let votes = report.map(|(round, chosen)| (of_round(round), value(chosen)));
            standing.promises(*from, asked, votes.as_slice());
        }
        mutation::set(None);
        let first = standing.proposed().into_iter().next();
        // A step that is free is filled with nothing by a new leader; here it asks for its own.
        let choice = first.map(|(_, value)| made_by(&value).unwrap_or(round));
        self.choices.lock().expect("nobody panicked").insert(key, choice);
        choice
    }

    fn chosen(state: &State) -> BTreeSet<Chosen> {
        let quorum = |round: &Round| {
            let voters = state.votes.iter().filter(|(of, _)| of == round);
            genesis().is_quorum(&voters.map(|(_, at)| node(*at).incarnation).collect())
        };
        state.proposed.iter().filter(|(round, _)| quorum(round)).map(|(_, v)| *v).collect()
    }
}

/// What a leader asks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Promise(Round),
    Vote(Round, Chosen),
}

enum Either {
    Prepare(Prepare),
    Accept(Accept),
}

/// What the node says to it.
#[derive(Debug, Clone, Copy)]
enum Said {
    Nothing,
    Promise(Report),
    Vote,
}

impl Asked {
    fn message(self) -> Either {
        match self {
            Self::Promise(round) => {
                Either::Prepare(Prepare { ballot: of_round(round), from: Step(1) })
            }
            Self::Vote(round, chosen) => Either::Accept(Accept {
                ballot: of_round(round),
                first: Step(1),
                values: vec![value(chosen)],
                voted: None,
                chosen: None,
            }),
        }
    }
}

fn turn<M, T>(
    mut machine: M,
    records: Vec<Record>,
    at: u64,
    message: impl Into<T>,
) -> (Vec<Record>, Vec<Message>)
where
    M: Machine<Message = T, Envelope = Message, Record = Record, Snapshot = Image>,
{
    start(&mut machine, records);
    let Effects { now, held, records, .. } = tell(&mut machine, dawn(), other(at), message.into());
    (records, now.into_iter().chain(held).map(|letter| letter.message).collect())
}

/// Any other node: what is told to oneself is not sent as a vote.
fn other(at: u64) -> u64 {
    if at == A { B } else { A }
}

fn made_by(value: &synod::consensus::value::Value) -> Option<Chosen> {
    ROUNDS.into_iter().find(|round| *value == self::value(*round))
}

impl Model for Decision {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for round in ROUNDS {
            actions.extend(NODES.map(|at| Action::Ask(round, at)));
            if state.proposed.contains_key(&round) {
                actions.extend(NODES.map(|at| Action::Vote(round, at)));
                continue;
            }
            // Every choice of at most one promise a node.
            let mut choices: Vec<Vec<(u64, Report)>> = vec![vec![]];
            for at in NODES {
                let promises =
                    state.promises.iter().filter(|(of, by, _)| (*of, *by) == (round, at));
                let reports: Vec<Report> = promises.map(|(_, _, report)| *report).collect();
                for with in choices.clone() {
                    choices.extend(reports.iter().map(|report| {
                        let mut with = with.clone();
                        with.push((at, *report));
                        with
                    }));
                }
            }
            let enough = choices.into_iter().filter(|choice| choice.len() > 1);
            actions.extend(enough.map(|choice| Action::Lead(round, choice)));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Ask(round, at) => {
                let disk = &mut state.disks[index(at)];
                let (after, said) = self.hand(at, *disk, Asked::Promise(round));
                *disk = after;
                // A leader that proposed needs no more promises.
                if let Said::Promise(report) = said
                    && !state.proposed.contains_key(&round)
                {
                    state.promises.insert((round, at, report));
                }
            }
            Action::Lead(round, promises) => {
                state.proposed.insert(round, self.choice(round, &promises)?);
                state.promises.retain(|(of, ..)| *of != round);
            }
            Action::Vote(round, at) => {
                let disk = &mut state.disks[index(at)];
                let asked = Asked::Vote(round, state.proposed[&round]);
                let (after, said) = self.hand(at, *disk, asked);
                *disk = after;
                if matches!(said, Said::Vote) {
                    state.votes.insert((round, at));
                }
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("agreement", |_, state| Self::chosen(state).len() <= 1),
            Property::sometimes("a value is chosen", |_, state| !Self::chosen(state).is_empty()),
            Property::sometimes("a later leader repeats it", |_, state: &State| {
                state.proposed.iter().any(|(round, chosen)| round != chosen)
                    && !Self::chosen(state).is_empty()
            }),
        ]
    }
}

fn index(at: u64) -> usize {
    usize::try_from(at - A).expect("a small number")
}

/// R1.44, R1.12, R1.40: all histories.
#[test]
fn r1_44_no_history_of_one_decision_chooses_two_values() {
    let checker = Decision::default().checker().spawn_bfs().join();
    println!("{} states, {} of them distinct", checker.state_count(), checker.unique_state_count());
    assert!(checker.is_done(), "all were visited");
    assert!(checker.unique_state_count() > 1_000, "it went somewhere");
    checker.assert_properties();
}

/// …and each rule is needed: without it the exploration finds two values.
#[test]
fn r1_44_without_a_rule_two_values_are_found() {
    for off in [
        Mutation::VoteBelowPromise,
        Mutation::AuxiliaryVotesBelowPromise,
        Mutation::IgnoreReportedVotes,
        Mutation::LowestVoteWins,
    ] {
        let model = Decision { off: Some(off), ..Decision::default() };
        let checker = model.checker().spawn_bfs().join();
        let found = checker.discovery("agreement");
        let found = found.unwrap_or_else(|| panic!("{off:?} is not missed"));
        println!("{off:?}: {} actions", found.into_actions().len());
    }
}
