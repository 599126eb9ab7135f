//! What the roles of consensus may say to one another.
//!
//! One struct a message, one enum a role. Variants marked *local* never cross the wire: a peer that
//! sends one is refused by the decoder.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use synod_runtime::identity::NodeId;

use super::{
    ballot::{Ballot, Run, Step},
    configuration::{Configuration, History},
    value::{EncodedCommand, Value},
};

/// Any message, addressed by its variant to one role of the receiving node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Message {
    /// To the acceptor of a main.
    #[serde(rename = "a")]
    Acceptor(AcceptorMessage),
    /// To an auxiliary.
    #[serde(rename = "x")]
    Auxiliary(AuxiliaryMessage),
    /// To a proposer.
    #[serde(rename = "p")]
    Proposer(ProposerMessage),
    /// To a learner.
    #[serde(rename = "l")]
    Learner(LearnerMessage),
    /// To a replica.
    #[serde(rename = "r")]
    Replica(ReplicaMessage),
    /// To the home of sessions.
    #[serde(rename = "h")]
    Home(HomeMessage),
    /// To a founder.
    #[serde(rename = "f")]
    Founder(FounderMessage),
    /// *Local*: the node knows how its log began, or that it joins one.
    #[serde(skip)]
    Founded(Option<Configuration>),
    /// *Local*: the end of a client's call.
    #[serde(skip)]
    Client(ClientAnswer),
    /// *Local*: what a role says of itself, for people.
    #[serde(skip)]
    Report(Report),
}

macro_rules! addressed {
    ($($role:ident($kind:ident): $($message:ident),*;)*) => {$(
        impl From<$kind> for Message {
            fn from(message: $kind) -> Self { Self::$role(message) }
        }
        $(impl From<$message> for $kind {
            fn from(message: $message) -> Self { Self::$message(message) }
        })*
    )*};
}

addressed! {
    Acceptor(AcceptorMessage): Prepare, Accept, Confirm, Learned, Trim;
    Auxiliary(AuxiliaryMessage): Prepare, Accept, Confirm, Forget, PreVote, Reach, Heartbeat,
        ProbeAnswer;
    Proposer(ProposerMessage): Promise, Nack, PreVote, PreVoteAnswer, Heartbeat, Standing, Reached,
        Acked, Progress, Confirmed, ReadIndex, Request, Probe, Expiry, Peer, Resign, TellAgain;
    Learner(LearnerMessage): Voted, Accepted, Mark, CatchUp, Entries, Ahead, Resend, Installed,
        Trimmed, Settled, TrimLog, TellAgain;
    Replica(ReplicaMessage): Execute, Query, SnapshotWanted, SnapshotChunk, SnapshotWritten, Fetch,
        TellAgain;
    Founder(FounderMessage): Ask, Empty, Genesis;
    Home(HomeMessage): Leader, Registered, Replies, Gap, ReadAt, Confirmed, Answers, Submit, Read,
        Forward, Forwarded;
}

/// To the acceptor of a main.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum AcceptorMessage {
    /// A would-be leader asks for promises.
    Prepare(Prepare),
    /// A leader asks for votes.
    Accept(Accept),
    /// A read asks whether a newer leader was promised anything.
    Confirm(Confirm),
    /// *Local*, from the learner.
    #[serde(skip)]
    Learned(Learned),
    /// *Local*, from the learner.
    #[serde(skip)]
    Trim(Trim),
}

/// To an auxiliary.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum AuxiliaryMessage {
    /// A would-be leader asks for promises, a main being silent.
    Prepare(Prepare),
    /// A leader asks for votes, a main being silent.
    Accept(Accept),
    /// A read asks whether a newer leader was promised anything.
    Confirm(Confirm),
    /// Every main has this; it need not be kept.
    Forget(Forget),
    /// A main asks whether it should stand.
    PreVote(PreVote),
    /// A leader asks whether a main can be reached from here.
    Reach(Reach),
    /// A sign of life.
    Heartbeat(Heartbeat),
    /// A main answers a probe of this auxiliary.
    ProbeAnswer(ProbeAnswer),
}

/// To a proposer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ProposerMessage {
    /// An acceptor promised.
    Promise(Promise),
    /// An acceptor refused.
    Nack(Nack),
    /// A main asks whether it should stand.
    PreVote(PreVote),
    /// What a member thinks of standing.
    PreVoteAnswer(PreVoteAnswer),
    /// A sign of life of a main.
    Heartbeat(Heartbeat),
    /// A sign of life of an auxiliary.
    Standing(Standing),
    /// Whether an auxiliary reaches a main.
    Reached(Reached),
    /// *Local*, from the learner.
    #[serde(skip)]
    Acked(Acked),
    /// *Local*, from the learner.
    #[serde(skip)]
    Progress(Progress),
    /// An acceptor's word for a read.
    Confirmed(Confirmed),
    /// A home asks where a read must wait for.
    ReadIndex(ReadIndex),
    /// A home asks for commands to be ordered.
    Request(Request),
    /// An auxiliary asks for a sign of life.
    Probe(Probe),
    /// *Local*, from the replica.
    #[serde(skip)]
    Expiry(Expiry),
    /// *Local*, from the links.
    #[serde(skip)]
    Peer(Peer),
    /// *Local*: the node stops.
    #[serde(skip)]
    Resign(Resign),
    /// *Local*, from a role that starts.
    #[serde(skip)]
    TellAgain(TellAgain),
}

/// To a learner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LearnerMessage {
    /// *Local*, from the acceptor.
    #[serde(skip)]
    Voted(Voted),
    /// A member's votes are durable.
    Accepted(Accepted),
    /// A leader's news of its own votes and of what was chosen.
    Mark(Mark),
    /// A node asks for what was chosen.
    CatchUp(CatchUp),
    /// What was chosen.
    Entries(Entries),
    /// *Local*, from the proposer: a peer knows more.
    #[serde(skip)]
    Ahead(Ahead),
    /// *Local*, from the replica.
    #[serde(skip)]
    Resend(Resend),
    /// *Local*, from the replica.
    #[serde(skip)]
    Installed(Installed),
    /// *Local*, from the acceptor.
    #[serde(skip)]
    Trimmed(Trimmed),
    /// *Local*, to itself, once records are durable.
    #[serde(skip)]
    Settled(Settled),
    /// *Local*, from the replica.
    #[serde(skip)]
    TrimLog(TrimLog),
    /// *Local*, from a role that starts.
    #[serde(skip)]
    TellAgain(TellAgain),
}

/// To a replica.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ReplicaMessage {
    /// *Local*, from the learner.
    #[serde(skip)]
    Execute(Execute),
    /// *Local*, from the home.
    #[serde(skip)]
    Query(Query),
    /// *Local*, from the learner: the log alone cannot bring this node up.
    #[serde(skip)]
    SnapshotWanted(SnapshotWanted),
    /// A peer asks for a piece of a snapshot.
    Fetch(Fetch),
    /// A piece of a peer's snapshot.
    SnapshotChunk(SnapshotChunk),
    /// *Local*, from the snapshot's writer.
    #[serde(skip)]
    SnapshotWritten(SnapshotWritten),
    /// *Local*, from a proposer that starts or stands.
    #[serde(skip)]
    TellAgain(TellAgain),
}

/// To the home of sessions: the part of a node that stands for its clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum HomeMessage {
    /// Who leads, from a proposer.
    Leader(Leader),
    /// A session was registered, from a replica.
    Registered(Registered),
    /// What commands answered, from a replica.
    Replies(Replies),
    /// A replica met a command out of order.
    Gap(Gap),
    /// Where a read must wait for, from a leader.
    ReadAt(ReadAt),
    /// Reads of a home without a replica.
    Forward(Forward),
    /// What they answered.
    Forwarded(Forwarded),
    /// *Local*, from the acceptor.
    #[serde(skip)]
    Confirmed(Confirmed),
    /// *Local*, from the replica.
    #[serde(skip)]
    Answers(Answers),
    /// *Local*, from clients.
    #[serde(skip)]
    Submit(Submit),
    /// *Local*, from clients.
    #[serde(skip)]
    Read(Read),
}

/// To a founder: the part of a node that agrees on how the log begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FounderMessage {
    /// A node without a log asks what is known.
    Ask(Ask),
    /// The answer of a node that has no log either.
    Empty(Empty),
    /// The answer of a node that has one.
    Genesis(Genesis),
}

/// A node without a log asks how the log began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {}

/// I have no log either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// How the log began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// The first configuration.
    pub configuration: Configuration,
}

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
    /// Steps above it that were chosen without this node's vote.
    pub chosen: Vec<Vote>,
    /// Everything up to here is chosen.
    pub chosen_upto: Step,
}

/// *Local*, acceptor to learner: [`Trim`] is done and durable.
#[derive(Debug, Clone)]
pub struct Trimmed {
    /// The last covered step.
    pub upto: Step,
}

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

/// *Local*, learner to itself.
#[derive(Debug, Clone)]
pub struct Settled {
    /// Everything up to here would be known again after a crash.
    pub upto: Step,
}

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

/// A main's sign of life, to mains several times an election timeout, to auxiliaries once a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The highest ballot seen; the sender's own when it leads.
    pub ballot: Ballot,
    /// Whether the sender leads.
    pub leading: bool,
    /// Whether it can have commands chosen at present.
    pub serving: bool,
    /// What it has executed.
    pub chosen_upto: Step,
    /// What it would know again after a crash.
    pub durable_upto: Step,
    /// The epoch of its newest configuration.
    pub epoch: u64,
}

/// An auxiliary's sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Steps below are forgotten.
    pub floor: Step,
    /// The highest step it still holds a vote for.
    pub holds: Option<Step>,
    /// Bytes it holds.
    pub bytes: u64,
    /// The newest configuration it was told of.
    pub epoch: u64,
}

/// Rule F: the auxiliary may forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forget {
    /// Every step below was executed, durably, by every main.
    pub floor: Step,
    /// The configuration in force at the floor.
    pub configuration: Configuration,
}

/// Asks an auxiliary whether it can reach a main.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Which main.
    pub node: NodeId,
}

/// The answer to [`Reach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Which main.
    pub node: NodeId,
    /// Whether it answered.
    pub alive: bool,
}

/// Asks a main for a sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Comes back in the answer.
    pub nonce: u64,
}

/// The answer to [`Probe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// From the probe.
    pub nonce: u64,
}

/// Asks for chosen values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchUp {
    /// The first step the asker does not know.
    pub from: Step,
    /// The asker does not even know how the log began.
    pub fresh: bool,
}

/// Chosen values; contiguous.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// The step of the first value.
    pub first: Step,
    /// Ballot in which, and value that was chosen, one a step.
    pub values: Vec<(Ballot, Value)>,
    /// The sender knows everything up to here.
    pub chosen_upto: Step,
    /// The log alone cannot help: fetch a snapshot from the sender's replica.
    pub snapshot: bool,
}

/// *Local*: a peer says it has executed further.
#[derive(Debug, Clone)]
pub struct Ahead {
    /// Who.
    pub peer: NodeId,
    /// How far.
    pub chosen_upto: Step,
}

/// *Local*, replica to learner: hand over again from here.
#[derive(Debug, Clone)]
pub struct Resend {
    /// The first step wanted.
    pub from: Step,
}

/// *Local*, replica to learner: a peer's snapshot was installed.
#[derive(Debug, Clone)]
pub struct Installed {
    /// What was executed and who votes.
    pub history: History,
}

/// *Local*, replica to learner: an own snapshot is durable.
#[derive(Debug, Clone)]
pub struct TrimLog {
    /// The last covered step.
    pub upto: Step,
}

/// *Local*, learner to replica: execute these, in order.
#[derive(Debug, Clone)]
pub struct Execute {
    /// The step of the first value.
    pub first: Step,
    /// One value a step.
    pub values: Vec<Value>,
    /// Whether this node answers clients elsewhere: it does unless it led these steps.
    pub answer_others: bool,
}

/// *Local*, learner to replica: fetch a snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotWanted {
    /// From whom.
    pub peer: NodeId,
    /// It knows everything up to here.
    pub chosen_upto: Step,
    /// The learner itself knows everything up to here.
    pub known: Step,
}

/// Asks for a piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Of which snapshot; 0: the newest.
    pub step: Step,
    /// From which byte.
    pub offset: u64,
}

/// A piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// Of which snapshot.
    pub step: Step,
    /// Its whole size in bytes.
    pub total: u64,
    /// CRC-32 of the whole.
    pub digest: u32,
    /// Where the piece belongs.
    pub offset: u64,
    /// The piece.
    pub bytes: Bytes,
}

/// *Local*: a snapshot is durable, or could not be written.
#[derive(Debug, Clone)]
pub struct SnapshotWritten {
    /// Of which step.
    pub step: Step,
    /// Whether it is durable.
    pub durable: bool,
}

/// Commands for the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// In the order of their session.
    pub commands: Vec<EncodedCommand>,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The leader, if the sender knows one.
    pub node: Option<NodeId>,
    /// Its ballot.
    pub ballot: Ballot,
    /// Whether commands can be chosen at present.
    pub serving: bool,
    /// Why not, for people.
    pub halted: Option<String>,
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
    /// Whether to answer from what is here, whatever its age.
    pub local: bool,
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

/// *Local*, replica to proposer: when something of the state expires.
#[derive(Debug, Clone)]
pub struct Expiry {
    /// Agreed time in milliseconds.
    pub due_ms: Option<u64>,
}

/// *Local*: stop leading, and let the others know at once.
#[derive(Debug, Clone)]
pub struct Resign {}

/// What a node is in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Holds state and votes.
    Main,
    /// Votes when a main is missing.
    Auxiliary,
    /// Hosts clients and services; never votes.
    Member,
}

/// *Local*, from the links: a peer is connected, or no longer.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// As what.
    pub role: NodeRole,
    /// Whether it is connected.
    pub up: bool,
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

/// *Local*: what a role says of itself, for `status` and metrics.
#[derive(Debug, Clone)]
pub enum Report {
    /// From the proposer.
    Proposer(ProposerReport),
    /// From the learner: what was executed, and what of it is durable.
    Learner {
        /// What was executed and who votes.
        history: History,
        /// Would be known again after a crash.
        durable_upto: Step,
    },
    /// From the replica: position, agreed time, digest.
    Replica {
        /// Commands executed.
        position: u64,
        /// The executed step.
        step: Step,
        /// Agreed time in milliseconds.
        time_ms: u64,
        /// Chain over commands and replies.
        digest: u64,
    },
    /// From an auxiliary.
    Auxiliary {
        /// What it keeps.
        standing: Standing,
        /// Who leads, as far as it was told.
        leader: Option<(NodeId, Ballot)>,
        /// The newest configuration it was told of.
        configuration: Option<Configuration>,
    },
    /// From a home.
    Home(Leader),
}

/// What a proposer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProposerReport {
    /// Who leads.
    pub leader: Option<NodeId>,
    /// Its ballot.
    pub ballot: Ballot,
    /// Whether commands can be chosen.
    pub serving: bool,
    /// Whom it waits for, if it can do nothing without.
    pub halted: Option<String>,
    /// Whether an auxiliary completes the steps at present.
    pub bridging: bool,
    /// The executed step each heard peer told of last, with its name.
    pub peers: Vec<(NodeId, Step, bool)>,
}
