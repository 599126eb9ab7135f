//! Promises and votes, and what the roles of one node tell one another of them.

use serde::{Deserialize, Serialize};
use synod_runtime::identity::NodeId;

use crate::consensus::ballot::{Ballot, Run, Step};
use crate::consensus::configuration::History;
use crate::consensus::value::Value;

/// "Suggested next proposal identifier" (claims 12, 23): for all steps from `from` on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The suggested ballot.
    pub ballot: Ballot,
    /// The first step the asker does not know.
    pub from: Step,
}

/// One vote, as it is reported and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// For which step.
    pub step: Step,
    /// In which ballot.
    pub ballot: Ballot,
    /// For what.
    pub value: Value,
}

/// The answer to [`Prepare`] (R1.15, R1.16): no vote for a step means *null*.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The promised ballot.
    pub ballot: Ballot,
    /// The promise speaks of steps from here on; below, this node knows what was chosen.
    pub from: Step,
    /// The last vote for each step from `from` on that has one.
    pub votes: Vec<Vote>,
    /// Everything up to here is known to be chosen.
    pub chosen_upto: Step,
}

/// A refusal: something higher was promised (R1.17).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    /// What was refused.
    pub ballot: Ballot,
    /// What was promised.
    pub promised: Ballot,
}

/// Claim 1: proposed values, the proposer's vote for them, proposal and step identifiers. Several
/// consecutive steps may share one message, each with its own number (R1.43).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The proposal identifier.
    pub ballot: Ballot,
    /// The step of the first value.
    pub first: Step,
    /// One value a step.
    pub values: Vec<Value>,
    /// The steps in which the proposer's own votes of this ballot are durable.
    pub voted: Option<Run>,
    /// The steps known to be chosen in this very ballot.
    pub chosen: Option<Run>,
}

/// Votes are durable at the sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// In which ballot.
    pub ballot: Ballot,
    /// For which steps.
    pub run: Run,
}

/// A leader's vote mark (R1.45): sent alone when somebody waits for it, else with the next Accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The steps in which its own votes are durable.
    pub voted: Option<Run>,
    /// The steps it knows to be chosen in this very ballot.
    pub chosen: Option<Run>,
}

/// *Local*: the acceptor's own votes, durable, with their values.
#[derive(Debug, Clone)]
pub struct Voted {
    /// In which ballot.
    pub ballot: Ballot,
    /// The step of the first value.
    pub first: Step,
    /// One value a step.
    pub values: Vec<Value>,
}

/// *Local*: values that a leader proposes and this node did not vote for, since its disk is full. It
/// can still learn that they are chosen.
#[derive(Debug, Clone)]
pub struct Proposed {
    /// In which ballot.
    pub ballot: Ballot,
    /// The step of the first value.
    pub first: Step,
    /// One value a step.
    pub values: Vec<Value>,
}

/// *Local*, learner to acceptor: what is known to be chosen, and who else learns from votes.
#[derive(Debug, Clone)]
pub struct Learned {
    /// Everything up to here.
    pub chosen_upto: Step,
    /// The other mains of the present configuration.
    pub others: Vec<NodeId>,
}

/// *Local*, learner to acceptor: a snapshot covers everything up to `upto`.
#[derive(Debug, Clone)]
pub struct Trim {
    /// The last covered step.
    pub upto: Step,
}

/// *Local*, proposer to acceptor: what makes up for a torn end of the journal.
#[derive(Debug, Clone)]
pub struct Mend {
    /// Promised by all who had to be asked; above everything this node may have promised.
    pub ballot: Ballot,
    /// The highest vote that any of them reported, for each step that is not known to be chosen.
    pub votes: Vec<Vote>,
}

/// *Local*, acceptor to proposer: [`Mend`] is done and durable.
#[derive(Debug, Clone)]
pub struct Mended {}

/// *Local*: an acceptor's or member's acknowledgement, passed on to the proposer.
#[derive(Debug, Clone)]
pub struct Acked {
    /// Whose votes.
    pub voter: NodeId,
    /// In which ballot.
    pub ballot: Ballot,
    /// For which steps.
    pub run: Run,
}

/// *Local*, learner to proposer.
#[derive(Debug, Clone)]
pub struct Progress {
    /// What was executed and who votes.
    pub history: History,
    /// The newest run of steps chosen in one ballot, and that ballot.
    pub chosen: Option<(Ballot, Run)>,
    /// Everything up to here would be known again after a crash.
    pub durable_upto: Step,
}

/// *Local*: one role of a node was made anew, the others were not, and will not say by themselves
/// what they said to the old one.
#[derive(Debug, Clone)]
pub struct TellAgain;

/// *Local*, learner to itself: what came of a note.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The first step it speaks of.
    pub first: Step,
    /// The last one.
    pub upto: Step,
    /// It is durable; else there was no room for it.
    pub kept: bool,
}

/// Should I stand? Changes nothing at the receiver (not a promise).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreVote {
    /// The round the asker would use.
    pub round: u64,
    /// The leader it has not heard of for too long.
    pub suspect: Option<NodeId>,
    /// The epoch of the asker's newest configuration.
    pub epoch: u64,
}

/// An opinion on [`PreVote`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreVoteAnswer {
    /// The round asked about.
    pub round: u64,
    /// Whether to go on.
    pub go: bool,
    /// The highest round the answerer knows.
    pub seen: u64,
    /// The answerer's newest configuration, so that a node left behind learns of it.
    pub epoch: u64,
    /// The mains of that configuration.
    pub mains: Vec<NodeId>,
}
