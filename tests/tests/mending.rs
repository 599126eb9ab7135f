//! Making up for a torn end of a journal, played by hand on the proposer of the node that is torn.

use std::time::Duration;

use rand::SeedableRng;
use synod::{
    consensus::{
        Timing, VoteStyle,
        ballot::{Ballot, Step},
        configuration::History,
        message::{
            AcceptorMessage, Heartbeat, Mend, Message, NodeRole, Peer, Program, Progress, Promise,
            ProposerMessage, Vote,
        },
        proposer::Proposer,
        record::Record,
    },
    machine::Now,
};
use synod_runtime::world::Rng;
use synod_tests::hand::{A, B, X, ballot, dawn, genesis, node, start, tell, value};

/// B, whose journal ended torn before it knew anything to be chosen; A and X are connected.
struct Torn {
    proposer: Proposer,
    now: Now,
    said: Vec<Message>,
}

impl Torn {
    fn new() -> Self {
        let rng = Rng::seed_from_u64(1);
        let mut proposer = Proposer::new(node(B), Timing::default(), VoteStyle::Split, rng);
        start(&mut proposer, vec![Record::Genesis(genesis()), Record::Torn]);
        let mut torn = Self { proposer, now: dawn(), said: Vec::new() };
        for (peer, role) in [(A, NodeRole::Main), (X, NodeRole::Auxiliary)] {
            torn.hears(B, Peer { node: node(peer), role, up: true });
        }
        let history = History::new(genesis());
        torn.hears(B, Progress { history, chosen: None, durable_upto: Step(0) });
        torn
    }

    fn hears(&mut self, from: u64, message: impl Into<ProposerMessage>) {
        let out = tell(&mut self.proposer, self.now, from, message.into());
        self.said.extend(out.now.into_iter().map(|letter| letter.message));
    }

    /// A gives signs of life for so long, in which it says how much it knows to be chosen.
    fn passes(&mut self, time: Duration, chosen_upto: Step) {
        let until = self.now.at + time;
        while self.now.at < until {
            self.now.at = self.now.at + Duration::from_millis(50);
            let beat = Heartbeat {
                ballot: Ballot::default(),
                leading: false,
                serving: true,
                chosen_upto,
                durable_upto: Step(0),
                epoch: 0,
                program: Program::THIS,
                knows: 0,
                full: false,
            };
            self.hears(A, beat);
        }
    }

    /// In which ballot it asked last, since it was looked at.
    fn asked(&mut self) -> Option<Ballot> {
        let asked = self.said.drain(..).filter_map(|message| match message {
            Message::Acceptor(AcceptorMessage::Vouch(asked)) => Some(asked.ballot),
            _ => None,
        });
        asked.last()
    }

    fn mends(&self) -> Option<&Mend> {
        self.said.iter().find_map(|message| match message {
            Message::Acceptor(AcceptorMessage::Mend(mend)) => Some(mend),
            _ => None,
        })
    }
}

fn promise(ballot: Ballot, from: u64, votes: Vec<Vote>) -> Promise {
    Promise { ballot, from: Step(from), votes, chosen_upto: Step(from - 1) }
}

/// Goal: a main that knew a step to be chosen, and forgot it in a crash, is asked for its vote, so that
/// nobody waits for ever; as long as somebody knows the step, the log hands it over and all are left in
/// peace.
#[test]
fn what_was_known_to_be_chosen_and_forgotten_is_asked_for_anew() {
    let mut torn = Torn::new();
    let first = torn.asked().expect("it asks A");
    torn.hears(A, promise(first, 2, vec![]));
    torn.hears(X, promise(first, 1, vec![]));
    torn.passes(Duration::from_secs(20), Step(1));
    assert!(torn.mends().is_none(), "step 1 is not here yet");
    assert_eq!(torn.asked(), None, "A hands it over in good time");

    torn.passes(Duration::from_secs(2), Step(0));
    let second = torn.asked().expect("nobody knows it any more, so all are asked again");
    assert!(second > first, "{second} after {first}");
    let vote = Vote { step: Step(1), ballot: ballot(1, A), value: value(1) };
    torn.hears(A, promise(second, 1, vec![vote.clone()]));
    assert!(torn.mends().is_none(), "the answer of X in the first ballot counts no more");
    torn.hears(X, promise(second, 1, vec![]));
    let mend = torn.mends().expect("all have answered");
    assert_eq!((mend.ballot, &mend.votes), (second, &vec![vote]));
}
