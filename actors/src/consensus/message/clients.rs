//! Commands, reads and their answers.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::identity::NodeId;

use crate::consensus::ballot::{Ballot, Step};
use crate::consensus::value::EncodedCommand;
use crate::replicated::Consistency;

/// Asks an acceptor for a read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// Which round of reads; meaningful to the asker.
    pub round: u64,
    /// The ballot of the leader that asks; none: a home does.
    pub leader: Option<Ballot>,
}

/// What an acceptor has promised by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Which round of reads.
    pub round: u64,
    /// From the question: another reign counts its own rounds.
    pub leader: Option<Ballot>,
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The last step voted for; that of an auxiliary says nothing to a read.
    pub voted: Step,
}

/// A main asks another's acceptor for a lease on reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAsk {
    /// When it was sent by the asker's clock, which counts the lease from here.
    pub asked_nanos: u64,
    /// How long it shall last.
    pub lasts: Duration,
}

/// *Local*: the acceptor passes on who asks, and how far it has voted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseAsked {
    /// Who asks.
    pub by: NodeId,
    /// What was asked.
    pub ask: LeaseAsk,
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The last step voted for.
    pub voted: Step,
}

/// For a while the sender asks no auxiliary for votes: nothing is chosen behind the other's back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// What was asked.
    pub ask: LeaseAsk,
    /// What the granter had voted for, proposed or executed by then is not beyond this step.
    pub upto: Step,
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The highest ballot that the granter had promised when its present life began: what it
    /// proposed before, it has forgotten.
    pub former: Ballot,
}

/// *Local*: a home wants to read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasedRead {
    /// Which round of reads.
    pub round: u64,
    /// What the own acceptor had promised after the reads arrived.
    pub promised: Ballot,
    /// The last step it had voted for by then.
    pub voted: Step,
}

/// Asks a leader for the step that a read must wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadIndex {
    /// Which round of reads, of the asking home.
    pub round: u64,
    /// What the asker's own acceptor had promised after the reads arrived.
    pub witness: Option<Ballot>,
}

/// The answer to [`ReadIndex`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAt {
    /// Which round of reads.
    pub round: u64,
    /// Serve once this is executed; none: ask another.
    pub at: Option<Step>,
}

/// Commands for the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// In the order of their session.
    pub commands: Vec<EncodedCommand>,
}

/// The answer to registering a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// From the command.
    pub nonce: u64,
    /// The session: the position of the command.
    pub session: u64,
}

/// How one command ended; decided, and the same at every replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReply {
    /// Of which command.
    pub seq: u64,
    /// Where it was executed.
    pub position: u64,
    /// What it answered, or why it could not be executed.
    pub result: Result<Bytes, String>,
}

/// Replies to commands of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies {
    /// The session.
    pub session: u64,
    /// In the order of execution.
    pub replies: Vec<CommandReply>,
}

/// A command came out of order and was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The session.
    pub session: u64,
    /// What it has to send again from.
    pub expected: u64,
    /// The session is unknown: it was evicted.
    pub expired: bool,
}

/// *Local*: one command of a client.
#[derive(Debug, Clone)]
pub struct Submit {
    /// Commands with the ticket under which the shell keeps who waits.
    pub commands: Vec<NewCommand>,
}

/// *Local*: a command on its way into a session.
#[derive(Debug, Clone)]
pub struct NewCommand {
    /// Whom to answer.
    pub ticket: u64,
    /// Hash of the actor's name.
    pub actor: u64,
    /// Hash of the function's name.
    pub function: u64,
    /// Whether the arguments begin with an idempotency key.
    pub keyed: bool,
    /// The arguments.
    pub args: Bytes,
    /// How long the client waits.
    pub patience: std::time::Duration,
}

/// *Local*: reads of clients.
#[derive(Debug, Clone)]
pub struct Read {
    /// All of one turn.
    pub reads: Vec<NewRead>,
}

/// *Local*: one read.
#[derive(Debug, Clone)]
pub struct NewRead {
    /// Whom to answer.
    pub ticket: u64,
    /// Hash of the actor's name.
    pub actor: u64,
    /// Hash of the query's name.
    pub function: u64,
    /// The arguments.
    pub args: Bytes,
    /// How fresh the state must be.
    pub consistency: Consistency,
    /// How long the client waits.
    pub patience: std::time::Duration,
}

/// Reads that the receiver shall answer for the sender, as its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The reads.
    pub reads: Vec<ForwardedRead>,
}

/// One read of another home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedRead {
    /// Comes back with the answer.
    pub ticket: u64,
    /// Hash of the actor's name.
    pub actor: u64,
    /// Hash of the query's name.
    pub function: u64,
    /// The arguments.
    pub args: Bytes,
}

/// Answers to [`Forward`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarded {
    /// In no particular order; what is missing is asked again.
    pub answers: Vec<ForwardedAnswer>,
}

/// The answer to one [`ForwardedRead`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedAnswer {
    /// From the question.
    pub ticket: u64,
    /// The position of the state that was read.
    pub position: u64,
    /// What the query answered, or why it could not.
    pub result: Result<Bytes, String>,
}

/// *Local*, home to replica.
#[derive(Debug, Clone)]
pub struct Query {
    /// Not before this step was executed.
    pub after: Step,
    /// What to answer.
    pub reads: Vec<NewRead>,
}

/// *Local*, replica to home.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Ticket, position of the state read, and answer.
    pub answers: Vec<(u64, u64, Result<Bytes, String>)>,
}

/// *Local*, home to client.
#[derive(Debug, Clone)]
pub struct ClientAnswer {
    /// Whose call.
    pub ticket: u64,
    /// How it ended.
    pub end: End,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Applied, or read, at this position, with this answer.
    Done(u64, Bytes),
    /// Decided, but the function could not be executed; state unchanged.
    Failed(u64, String),
    /// Never appended to any journal, never proposed.
    NotApplied(String),
    /// It may have been applied, or may yet be.
    Unknown(String),
}
