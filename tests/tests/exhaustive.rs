//! R1.44: decisions, explored exhaustively. Two mains and an auxiliary, ballots of two leaders, every
//! order of every message, each lost, late or repeated: never are two values chosen for a step.
//!
//! One step with three ballots, and logs of several steps, whose promises speak of all of them: how
//! many ballots and steps says [`Decisions::new`]. A step is proposed when all but the last
//! [`WINDOW`] before it are chosen.
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
        value::Value,
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
/// The same, of every step.
type Reports = [Report; STEPS_MAX];

/// As many steps as any log here has.
const STEPS_MAX: usize = 4;
/// Steps that may be open at once.
const WINDOW: usize = 2;
const ROUNDS_MAX: Round = 3;
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
    votes: Reports,
}

/// Disks, and every message ever sent: any may arrive at any time, again and again, or never.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct State {
    disks: [Disk; 3],
    promises: BTreeSet<(Round, u64, Reports)>,
    proposed: BTreeMap<Round, [Chosen; STEPS_MAX]>,
    /// By round, step and node.
    votes: BTreeSet<(Round, usize, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// A request for a promise arrives.
    Ask(Round, u64),
    /// Promises arrive at the leader of a round.
    Lead(Round, Vec<(u64, Reports)>),
    /// A proposal of a step arrives.
    Vote(Round, usize, u64),
}

/// What a leader proposes, by its round and the promises it got.
type Choices = BTreeMap<(Round, Vec<(u64, Reports)>), Option<[Chosen; STEPS_MAX]>>;

/// What a node's machine does, by what its disk holds and what is asked of it.
type Turns = BTreeMap<(u64, Disk, Asked), (Disk, Said)>;

/// Some decisions, with a rule switched off or none.
#[derive(Debug, Default)]
struct Decisions {
    rounds: Round,
    steps: usize,
    off: Option<Mutation>,
    /// The proposer decides by nothing else, so it is asked once.
    choices: Mutex<Choices>,
    /// Nor does a machine, but by its disk and the message.
    turns: Mutex<Turns>,
}

impl Decisions {
    /// All logs of so many steps, with so many ballots.
    fn new(rounds: Round, steps: usize) -> Self {
        assert!(rounds <= ROUNDS_MAX && steps <= STEPS_MAX);
        Self { rounds, steps, ..Self::default() }
    }

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
        records.extend(votes_of(&disk.votes).into_iter().map(Record::Vote));
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
                    note(&vote, &mut after.votes);
                }
                _ => {}
            }
        }
        let said = said.into_iter().find_map(|message| match message {
            Message::Proposer(ProposerMessage::Promise(promise)) => {
                let mut reports = Reports::default();
                promise.votes.iter().for_each(|vote| note(vote, &mut reports));
                Some(Said::Promise(reports))
            }
            Message::Learner(LearnerMessage::Accepted(_)) => Some(Said::Vote),
            _ => None,
        });
        (after, said.unwrap_or(Said::Nothing))
    }

    /// The values the real proposer proposes with those promises, if it may propose.
    fn choice(&self, round: Round, promises: &[(u64, Reports)]) -> Option<[Chosen; STEPS_MAX]> {
        let key = (round, promises.to_vec());
        if let Some(known) = self.choices.lock().expect("nobody panicked").get(&key) {
            return *known;
        }
        mutation::set(self.off);
        let mut standing = Standing::of(leader(round));
        let asked = standing.asks(round - 1);
        assert_eq!(asked, of_round(round));
        for (from, reports) in promises {
            standing.promises_of(*from, asked, votes_of(reports));
        }
        mutation::set(None);
        let proposed: BTreeMap<Step, Value> = standing.proposed().into_iter().collect();
        // A step that is free is filled with nothing by a new leader; here it asks for its own.
        let choice = (!proposed.is_empty()).then(|| {
            let mut choice = [0; STEPS_MAX];
            for (step, chosen) in (1..).map(Step).zip(choice.iter_mut().take(self.steps)) {
                *chosen = proposed.get(&step).and_then(made_by).unwrap_or(round);
            }
            choice
        });
        self.choices.lock().expect("nobody panicked").insert(key, choice);
        choice
    }

    /// What was chosen for a step.
    fn chosen(state: &State, step: usize) -> BTreeSet<Chosen> {
        let quorum = |round: Round| {
            let voters = NODES.into_iter().filter(|at| state.votes.contains(&(round, step, *at)));
            genesis().is_quorum(&voters.map(|at| node(at).incarnation).collect())
        };
        let chosen = state.proposed.iter().filter(|(round, _)| quorum(**round));
        chosen.map(|(_, values)| values[step]).collect()
    }

    /// The steps that may be proposed.
    fn open(&self, state: &State) -> std::ops::Range<usize> {
        let chosen = (0..self.steps).take_while(|step| !Self::chosen(state, *step).is_empty());
        0..self.steps.min(chosen.count() + WINDOW)
    }
}

/// What a leader asks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Promise(Round),
    Vote(Round, usize, Chosen),
}

enum Either {
    Prepare(Prepare),
    Accept(Accept),
}

/// What the node says to it.
#[derive(Debug, Clone, Copy)]
enum Said {
    Nothing,
    Promise(Reports),
    Vote,
}

impl Asked {
    fn message(self) -> Either {
        match self {
            Self::Promise(round) => {
                Either::Prepare(Prepare { ballot: of_round(round), from: Step(1) })
            }
            Self::Vote(round, step, chosen) => Either::Accept(Accept {
                ballot: of_round(round),
                first: step_of(step),
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

fn made_by(value: &Value) -> Option<Chosen> {
    (1..=ROUNDS_MAX).find(|round| *value == self::value(*round))
}

/// The step at a place of [`Reports`].
fn step_of(place: usize) -> Step {
    Step(1 + place as u64)
}

fn votes_of(reports: &Reports) -> Vec<Vote> {
    let votes = reports.iter().enumerate().filter_map(|(place, report)| {
        let (round, chosen) = (*report)?;
        let (ballot, value) = (of_round(round), value(chosen));
        Some(Vote { step: step_of(place), ballot, value })
    });
    votes.collect()
}

fn note(vote: &Vote, reports: &mut Reports) {
    let place = usize::try_from(vote.step.0 - 1).expect("a small number");
    reports[place] = Some((vote.ballot.round, made_by(&vote.value).expect("one of ours")));
}

impl Model for Decisions {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let open = self.open(state);
        for round in 1..=self.rounds {
            actions.extend(NODES.map(|at| Action::Ask(round, at)));
            if state.proposed.contains_key(&round) {
                let each = open.clone().flat_map(|step| NODES.map(|at| (step, at)));
                actions.extend(each.map(|(step, at)| Action::Vote(round, step, at)));
                continue;
            }
            // Every choice of at most one promise a node.
            let mut choices: Vec<Vec<(u64, Reports)>> = vec![vec![]];
            for at in NODES {
                let promises =
                    state.promises.iter().filter(|(of, by, _)| (*of, *by) == (round, at));
                let reports: Vec<Reports> = promises.map(|(_, _, report)| *report).collect();
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
            Action::Vote(round, step, at) => {
                let disk = &mut state.disks[index(at)];
                let asked = Asked::Vote(round, step, state.proposed[&round][step]);
                let (after, said) = self.hand(at, *disk, asked);
                *disk = after;
                if matches!(said, Said::Vote) {
                    state.votes.insert((round, step, at));
                }
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("agreement", |model, state| {
                (0..model.steps).all(|step| Self::chosen(state, step).len() <= 1)
            }),
            Property::sometimes("every step is chosen", |model, state| {
                (0..model.steps).all(|step| !Self::chosen(state, step).is_empty())
            }),
            Property::sometimes("a later leader repeats it", |_, state: &State| {
                state.proposed.iter().any(|(round, chosen)| *round != chosen[0])
                    && !Self::chosen(state, 0).is_empty()
            }),
        ]
    }
}

fn index(at: u64) -> usize {
    usize::try_from(at - A).expect("a small number")
}

fn explore(rounds: Round, steps: usize) {
    let checker = Decisions::new(rounds, steps).checker().threads(2).spawn_bfs().join();
    let (all, distinct) = (checker.state_count(), checker.unique_state_count());
    println!("{rounds} ballots, {steps} steps: {all} states, {distinct} of them distinct");
    assert!(checker.is_done(), "all were visited");
    assert!(distinct > 1_000, "it went somewhere");
    checker.assert_properties();
}

/// R1.44, R1.12, R1.40: all histories.
#[test]
fn r1_44_no_history_of_one_decision_chooses_two_values() {
    explore(3, 1);
}

/// The same where promises speak of several steps: of those of one ballot, the next one's leader.
#[test]
fn r1_44_no_history_of_a_log_chooses_two_values_for_a_step() {
    explore(2, 2);
    explore(2, 3);
}

/// All that fits into the memory of a machine: minutes.
/// `cargo test --release -p synod-tests --test exhaustive -- --ignored --nocapture`
#[test]
#[ignore = "it takes minutes"]
fn r1_44_no_history_of_a_longer_log_chooses_two_values_for_a_step() {
    explore(2, 4);
    explore(3, 2);
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
        let model = Decisions { off: Some(off), ..Decisions::new(3, 1) };
        let checker = model.checker().spawn_bfs().join();
        let found = checker.discovery("agreement");
        let found = found.unwrap_or_else(|| panic!("{off:?} is not missed"));
        println!("{off:?}: {} actions", found.into_actions().len());
    }
}
