//! Histories for rules that chance seldom needs: what would break them takes several unlikely events
//! in one order. Each is played by hand on one machine, and ends with what that machine must not do.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use rand::SeedableRng as _;
use synod::{
    consensus::{
        Timing, VoteStyle,
        acceptor::Acceptor,
        auxiliary::Auxiliary,
        ballot::{Ballot, Run, Step},
        configuration::{ALPHA, History},
        founder::{Founder, Living},
        learner::Learner,
        lives::Life,
        message::{
            Accept, AcceptorMessage, Acked, AuxiliaryMessage, CatchUp, Confirmed, Entries, Forget,
            FounderMessage, Heartbeat, HomeMessage, Installed, LearnerMessage, LeaseAsk,
            LeaseGrant, LeasedRead, Message, NodeRole, Peer, Prepare, Program, Progress, Promise,
            ProposerMessage, ReadAt, ReadIndex, Request, Trim, Vote,
        },
        proposer::Proposer,
        record::Record,
        value::Value,
    },
    effects::{Effects, Letter, Truncate},
    machine::Machine,
};
use synod_runtime::world::Rng;
use synod_tests::hand::{
    A, B, Standing, X, ballot, command, dawn, genesis, node, start, tell, value,
};

/// What was broken, if anything was.
pub(crate) type Played = Result<(), &'static str>;

fn unless(broken: bool, what: &'static str) -> Played {
    if broken { Err(what) } else { Ok(()) }
}

fn accept(round: u64, step: u64, value: Value) -> Accept {
    let ballot = ballot(round, A);
    Accept { ballot, first: Step(step), values: vec![value], voted: None, chosen: None }
}

/// Promised, trimmed, crashed; then the leader of before asks for a vote.
pub(crate) fn a_replaced_journal_holds_the_promise() -> Played {
    let mut acceptor = Acceptor::new(node(B));
    start(&mut acceptor, vec![Record::Genesis(genesis())]);
    tell(&mut acceptor, dawn(), B, Prepare { ballot: ballot(5, B), from: Step(1) });
    let trimmed = tell(&mut acceptor, dawn(), B, Trim { upto: Step(0) }).truncate;
    let carry = trimmed.map(|truncate| truncate.carry).unwrap_or_default();
    let mut again = Acceptor::new(node(B));
    start(&mut again, carry);
    let out = tell(&mut again, dawn(), A, accept(4, 1, value(1)));
    unless(!out.records.is_empty(), "it voted below what it had promised before it was restarted")
}

/// A leader that is behind asks for step 1, which this node voted on and a snapshot covers.
pub(crate) fn a_promise_speaks_of_what_is_kept() -> Played {
    let mut acceptor = Acceptor::new(node(B));
    start(&mut acceptor, vec![Record::Genesis(genesis())]);
    tell(&mut acceptor, dawn(), A, accept(1, 1, value(1)));
    tell(&mut acceptor, dawn(), B, Trim { upto: Step(1) });
    let out = tell(&mut acceptor, dawn(), A, Prepare { ballot: ballot(2, A), from: Step(1) });
    let null = out.held.iter().any(|letter| match &letter.message {
        Message::Proposer(ProposerMessage::Promise(promise)) => {
            promise.from == Step(1) && promise.votes.is_empty()
        }
        _ => false,
    });
    unless(null, "it said that it never voted on a step whose vote it had dropped")
}

/// An auxiliary crashes right after the turn in which it voted.
pub(crate) fn an_auxiliary_s_vote_is_durable_before_it_is_said() -> Played {
    let mut auxiliary = Auxiliary::new(node(X), Duration::from_millis(40));
    start(&mut auxiliary, vec![Record::Genesis(genesis())]);
    let asked = AuxiliaryMessage::from(accept(1, 1, value(1)));
    let out = tell(&mut auxiliary, dawn(), A, asked);
    let vote = |letter: &Letter<Message>| {
        matches!(letter.message, Message::Learner(LearnerMessage::Accepted(_)))
    };
    unless(out.now.iter().any(vote), "it said a vote that no disk knows")
}

/// An auxiliary promised, forgot what every main has, and crashed; then the leader of before asks.
pub(crate) fn an_auxiliary_forgets_no_promise() -> Played {
    let patience = Duration::from_millis(40);
    let mut auxiliary = Auxiliary::new(node(X), patience);
    start(&mut auxiliary, vec![Record::Genesis(genesis())]);
    let asked = Prepare { ballot: ballot(5, B), from: Step(1) };
    tell(&mut auxiliary, dawn(), B, AuxiliaryMessage::from(asked));
    let forget = Forget { floor: Step(2), configuration: genesis() };
    let forgotten = tell(&mut auxiliary, dawn(), B, forget).truncate;
    let carry = forgotten.map(|truncate| truncate.carry).unwrap_or_default();
    let mut again = Auxiliary::new(node(X), patience);
    start(&mut again, carry);
    let out = tell(&mut again, dawn(), A, AuxiliaryMessage::from(accept(4, 2, value(1))));
    unless(!out.records.is_empty(), "it voted below what it had promised before it was restarted")
}

/// The own disk hangs while B and the auxiliary promise; the node could crash, forget the ballot,
/// and use it again.
pub(crate) fn a_leader_has_its_own_promise() -> Played {
    let mut standing = Standing::new();
    let ballot = standing.asks(0);
    standing.promises(B, ballot, &[]);
    standing.promises(X, ballot, &[]);
    unless(!standing.proposed().is_empty(), "it proposed in a ballot that its disk does not know")
}

/// Step 2 was chosen in another ballot meanwhile; the own votes are for steps 1 and 3.
pub(crate) fn a_leader_claims_only_votes_it_has() -> Played {
    let mut standing = Standing::new();
    let ballot = standing.asks(0);
    standing.promises(A, ballot, &[]);
    standing.promises(B, ballot, &[]);
    let acked = |step| {
        let run = Run { first: Step(step), last: Step(step) };
        Acked { voter: node(A), ballot, run }
    };
    let mut history = History::new(genesis());
    standing.tell(A, acked(1));
    history.execute(Step(1), None);
    history.execute(Step(2), None);
    standing.progress(&history);
    standing.said.clear();
    standing.tell(B, Request { commands: vec![command(1)] });
    standing.tell(A, acked(3));
    standing.tell(B, Request { commands: vec![command(2)] });
    let claims = standing.said.iter().any(|message| match message {
        Message::Acceptor(AcceptorMessage::Accept(said)) => {
            said.voted.is_some_and(|run| run.holds(Step(2)))
        }
        Message::Learner(LearnerMessage::Mark(said)) => {
            said.voted.is_some_and(|run| run.holds(Step(2)))
        }
        _ => false,
    });
    unless(claims, "it claimed a vote for a step it never voted on")
}

/// B's word for an earlier read comes late: B may have promised another leader since.
pub(crate) fn a_word_counts_only_for_reads_before_it() -> Played {
    let mut standing = Standing::new();
    let ballot = standing.asks(0);
    standing.promises(A, ballot, &[]);
    standing.promises(B, ballot, &[]);
    let word = |round| Confirmed { round, leader: Some(ballot), promised: ballot, voted: Step(0) };
    standing.tell(A, ReadIndex { round: 1, witness: None });
    standing.tell(A, word(1));
    standing.tell(B, word(1));
    standing.said.clear();
    standing.tell(A, ReadIndex { round: 2, witness: None });
    standing.tell(A, word(2));
    standing.tell(B, word(1));
    let answered = standing.said.iter().any(|message| {
        let answer = |read: &ReadAt| read.round == 2 && read.at.is_some();
        matches!(message, Message::Home(HomeMessage::ReadAt(read)) if answer(read))
    });
    unless(answered, "a read was answered on a word given before it began")
}

/// Step 2 is voted for while a snapshot of step 1 is written; trimmed, crashed; then another leader
/// asks what was voted for.
pub(crate) fn a_trimmed_journal_holds_what_the_snapshot_does_not() -> Played {
    let mut acceptor = Acceptor::new(node(B));
    start(&mut acceptor, vec![Record::Genesis(genesis())]);
    let mut records = tell(&mut acceptor, dawn(), A, accept(1, 1, value(1))).records;
    records.extend(tell(&mut acceptor, dawn(), A, accept(1, 2, value(2))).records);
    let trimmed = tell(&mut acceptor, dawn(), B, Trim { upto: Step(1) }).truncate;
    let Truncate { upto, carry } = trimmed.ok_or("a trim does nothing")?;
    records.retain(|record| record.step().0 > upto);
    records.extend(carry);
    let mut again = Acceptor::new(node(B));
    start(&mut again, records);
    let out = tell(&mut again, dawn(), A, Prepare { ballot: ballot(2, A), from: Step(2) });
    let told = out.held.iter().any(|letter| match &letter.message {
        Message::Proposer(ProposerMessage::Promise(promise)) => promise.votes.len() == 1,
        _ => false,
    });
    unless(!told, "it forgot a vote that no snapshot covers")
}

/// A node that was away installs a snapshot taken after B was voted out.
pub(crate) fn a_snapshot_brings_its_configuration() -> Played {
    let mut learner = Learner::new(node(B));
    start(&mut learner, vec![Record::Genesis(genesis())]);
    let mut history = History::new(genesis());
    history.execute(Step(1), Some(genesis().without_main(node(B).incarnation)));
    for step in 2..=ALPHA {
        history.execute(Step(step), None);
    }
    tell(&mut learner, dawn(), B, Installed { history: history.clone() });
    unless(learner.history() != &history, "it goes on with the configuration from before")
}

/// A leads alone; B is let in again, and its configuration comes into force: B may by now lead by the
/// auxiliary's word, in a lower ballot that A never hears of.
pub(crate) fn a_read_is_answered_where_promises_hold() -> Played {
    let mut standing = Standing::new();
    let ballot = standing.asks(0);
    standing.promises(A, ballot, &[]);
    standing.promises(B, ballot, &[]);
    // Of those who decide next, only A has promised.
    let alone = genesis().without_main(node(B).incarnation);
    let mut history = History::new(alone.clone());
    history.execute(Step(1), Some(alone.with_main(node(OUTSIDE))));
    for step in 2..=ALPHA {
        history.execute(Step(step), None);
    }
    standing.progress(&history);
    standing.said.clear();
    let word = |round| Confirmed { round, leader: Some(ballot), promised: ballot, voted: Step(0) };
    standing.tell(A, ReadIndex { round: 1, witness: None });
    standing.tell(A, word(1));
    standing.tell(OUTSIDE, word(1));
    let answered = standing.said.iter().any(
        |message| matches!(message, Message::Home(HomeMessage::ReadAt(read)) if read.at.is_some()),
    );
    unless(answered, "a read was answered without the promises of the configuration in force")
}

/// The leader runs a newer build, the other main does not.
pub(crate) fn a_version_rises_only_when_every_main_can() -> Played {
    let proposed = |knows| {
        let mut standing = Standing::knowing(2);
        let ballot = standing.asks(0);
        standing.promises(A, ballot, &[]);
        standing.promises(B, ballot, &[]);
        let mut history = History::new(genesis());
        history.execute(Step(1), None);
        standing.progress(&history);
        let beat = Heartbeat {
            ballot,
            leading: false,
            serving: true,
            chosen_upto: Step(1),
            durable_upto: Step(1),
            epoch: 0,
            program: Program::THIS,
            knows,
            full: false,
        };
        standing.tell(B, beat.clone());
        standing.tell(B, beat);
        standing.proposed().iter().any(|(_, value)| value.is_configuration())
    };
    if !proposed(2) {
        return Err("the version did not rise although every main can");
    }
    unless(proposed(0), "the version rose beyond what a main can execute")
}

/// Three mains and two auxiliaries: B and C grant leases. What C proposed in its life before, B could
/// still vote for together with the auxiliaries, if B had promised less.
pub(crate) fn a_lease_counts_only_where_former_ballots_have_ended() -> Played {
    let answered = |promised_by_b| {
        let mut standing = Standing::new();
        let mut three = genesis();
        three.mains.push(node(OUTSIDE));
        three.auxiliaries.push(node(OUTSIDE + 1));
        standing.progress(&History::new(three));
        let peer = Peer { node: node(OUTSIDE), role: NodeRole::Main, up: true };
        standing.tell(OUTSIDE, peer);
        standing.now.at = standing.now.at + Duration::from_secs(1);
        let asked_nanos = standing.now.at.as_nanos();
        let ask = LeaseAsk { asked_nanos, lasts: Duration::from_millis(100) };
        let grant =
            |promised, former| LeaseGrant { ask: ask.clone(), upto: Step(0), promised, former };
        standing.tell(B, grant(promised_by_b, Ballot::default()));
        standing.tell(OUTSIDE, grant(ballot(5, A), ballot(3, OUTSIDE)));
        standing.said.clear();
        let (round, promised, voted) = (7, ballot(5, A), Step(0));
        standing.tell(A, LeasedRead { round, promised, voted });
        standing.said.iter().any(|message| {
            matches!(message, Message::Home(HomeMessage::ReadAt(read)) if read.at.is_some())
        })
    };
    if !answered(ballot(4, A)) {
        return Err("a read under the leases of all others was not answered at once");
    }
    unless(answered(ballot(2, A)), "a read was answered although more may be chosen")
}

/// A node that others follow installs a snapshot: what came between is not in its log.
pub(crate) fn a_step_is_handed_on_under_its_own_number() -> Played {
    let entries = |step: u64| {
        let values = vec![(ballot(1, A), value(1))];
        Entries { first: Step(step), values, chosen_upto: Step(step), snapshot: false }
    };
    let mut learner = Learner::new(node(B));
    start(&mut learner, vec![Record::Genesis(genesis())]);
    tell(&mut learner, dawn(), A, entries(1));
    tell(&mut learner, dawn(), OUTSIDE, CatchUp { from: Step(2), fresh: false });
    let mut history = History::new(genesis());
    for step in 1..=ALPHA {
        history.execute(Step(step), None);
    }
    // Both in one turn.
    let mut out = Effects::default();
    learner.message(dawn(), &node(B), Installed { history }.into(), &mut out);
    learner.message(dawn(), &node(A), entries(ALPHA + 1).into(), &mut out);
    learner.flush(dawn(), &mut out);
    let wrong = |letter: &Letter<Message>| match &letter.message {
        Message::Learner(LearnerMessage::Entries(said)) => {
            !said.values.is_empty() && said.first != Step(ALPHA + 1)
        }
        _ => false,
    };
    unless(out.now.iter().any(wrong), "it handed a step on under the number of another")
}

/// A node that catches up.
const OUTSIDE: u64 = 9;

/// The end of the journal was torn: a promise of a higher ballot may have stood there.
pub(crate) fn a_torn_end_may_hide_a_promise() -> Played {
    let mut acceptor = Acceptor::new(node(B));
    start(&mut acceptor, vec![Record::Genesis(genesis()), Record::Torn]);
    let asked = Prepare { ballot: ballot(2, A), from: Step(1) };
    let out = tell(&mut acceptor, dawn(), A, asked);
    unless(!out.held.is_empty(), "it promised although it may have promised more before")
}

/// The end of the journal was torn; the other main holds a vote that was chosen if it stood there.
pub(crate) fn a_torn_end_may_hide_a_vote() -> Played {
    let rng = Rng::seed_from_u64(1);
    let mut proposer = Proposer::new(node(A), Timing::default(), VoteStyle::Split, rng);
    start(&mut proposer, vec![Record::Genesis(genesis()), Record::Torn]);
    let progress =
        Progress { history: History::new(genesis()), chosen: None, durable_upto: Step(0) };
    let mut said = tell(&mut proposer, dawn(), A, progress).now;
    let asked = said.iter().find_map(|letter| match &letter.message {
        Message::Acceptor(AcceptorMessage::Vouch(asked)) => Some(asked.ballot),
        _ => None,
    });
    let Some(asked) = asked else { return Err("it asks nobody") };
    let vote = Vote { step: Step(1), ballot: ballot(1, B), value: value(1) };
    for (from, votes) in [(B, vec![vote]), (X, vec![])] {
        let promise = Promise { ballot: asked, from: Step(1), votes, chosen_upto: Step(0) };
        said.extend(tell(&mut proposer, dawn(), from, promise).now);
    }
    let mended = said.iter().find_map(|letter| match &letter.message {
        Message::Acceptor(AcceptorMessage::Mend(mend)) => Some(mend.votes.len()),
        _ => None,
    });
    unless(mended != Some(1), "it forgot a vote by which a step may have been chosen")
}

/// The others have heard of a longer journal than the one this process found.
pub(crate) fn an_older_copy_takes_no_part() -> Played {
    let listed = [(A, NodeRole::Main), (B, NodeRole::Main), (X, NodeRole::Auxiliary)];
    let listed: BTreeMap<_, _> = listed.map(|(n, role)| (node(n).name, role)).into();
    let mut witness = Founder::new(node(B), listed.clone());
    start(&mut witness, vec![Record::Genesis(genesis())]);
    let life = |starts, nonce, position| Life { starts, nonce, position, torn: false };
    tell(&mut witness, dawn(), A, FounderMessage::Alive(life(3, 7, 90)));
    let position: Rc<dyn Fn() -> u64> = Rc::new(|| 40);
    let mut copy =
        Founder::new(node(A), listed).living(Living { starts: 4, nonce: 8, torn: false, position });
    start(&mut copy, vec![Record::Genesis(genesis())]);
    let mut said = Vec::new();
    let asked = tell(&mut witness, dawn(), A, FounderMessage::Enter(life(4, 8, 40)));
    for letter in asked.now {
        if let Message::Founder(answer) = letter.message {
            said.extend(tell(&mut copy, dawn(), B, answer).now);
        }
    }
    let refused = |letter: &Letter<Message>| matches!(&letter.message, Message::Unfit(_));
    unless(!said.iter().any(refused), "it went on with an older copy of its data directory")
}

/// Something else was chosen than this node had voted for, and the journal had no room for the note
/// of it, but for the next one.
pub(crate) fn what_was_not_noted_is_not_known() -> Played {
    let old = Vote { step: Step(1), ballot: ballot(1, B), value: value(1) };
    let later = Vote { step: Step(2), ballot: ballot(2, A), value: value(3) };
    let mark = Run { first: Step(2), last: Step(2) };
    let records = vec![
        Record::Genesis(genesis()),
        Record::Vote(old),
        Record::Chosen(later),
        Record::Mark(mark),
    ];
    let mut learner = Learner::new(node(B));
    start(&mut learner, records);
    unless(learner.chosen(Step(1)).is_some(), "it takes its old vote for what was chosen")
}
