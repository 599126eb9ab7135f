//! What the roles of consensus may say to one another.
//!
//! One struct a message, one enum a role. Variants marked *local* never cross the wire: a peer that
//! sends one is refused by the decoder.

mod clients;
#[cfg(test)]
mod fuzzed;
mod log;
mod members;
mod report;
mod votes;
mod wishes;

use serde::{Deserialize, Serialize};

pub use self::{
    clients::{
        Answers, ClientAnswer, CommandReply, Confirm, Confirmed, End, Forward, Forwarded,
        ForwardedAnswer, ForwardedRead, Gap, LeaseAsk, LeaseAsked, LeaseGrant, LeasedRead,
        NewCommand, NewRead, Query, Read, ReadAt, ReadIndex, Registered, Replies, Request, Submit,
    },
    log::{
        Ahead, CatchUp, Compare, Entries, Execute, Fetch, Found, Installed, Renew, Resend,
        SnapshotChunk, SnapshotRead, SnapshotWanted, SnapshotWritten, TrimLog, Written,
    },
    members::{
        Ask, Disowned, Empty, Entered, Expiry, Forget, Genesis, Heartbeat, Leader, Nearness,
        NodeRole, Peer, Probe, ProbeAnswer, Program, Reach, Reached, Resign, Standing,
    },
    report::{PeerReport, ProposerReport, Report, Sign},
    votes::{
        Accept, Accepted, Acked, Learned, Mark, Mend, Mended, Nack, PreVote, PreVoteAnswer,
        Prepare, Progress, Promise, Proposed, Settled, TellAgain, Trim, Vote, Voted,
    },
    wishes::{Dismissed, Granted, NewWish, TakeOver, Wanted, Wish},
};
use super::{configuration::Configuration, lives::Life};

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
    /// *Local*: this process must take part in nothing, and why, for people.
    #[serde(skip)]
    Unfit(String),
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
    Acceptor(AcceptorMessage): Prepare, Accept, Confirm, LeaseAsk, Learned, Trim,
        Mend;
    Auxiliary(AuxiliaryMessage): Prepare, Accept, Confirm, Forget, PreVote, Reach, Heartbeat,
        ProbeAnswer;
    Proposer(ProposerMessage): Promise, Nack, PreVote, PreVoteAnswer, Heartbeat, Standing, Reached,
        Acked, Progress, Confirmed, ReadIndex, Request, Probe, Expiry, Peer, Resign, TellAgain,
        Wanted, TakeOver, LeaseAsked, LeaseGrant, LeasedRead, Mended;
    Learner(LearnerMessage): Voted, Proposed, Accepted, Mark, CatchUp, Entries, Ahead, Resend, Installed,
        Settled, TrimLog, TellAgain;
    Replica(ReplicaMessage): Compare, Execute, Query, SnapshotWanted, SnapshotChunk,
        SnapshotWritten, SnapshotRead, Fetch, TellAgain;
    Founder(FounderMessage): Ask, Empty, Genesis, Entered, Disowned;
    Home(HomeMessage): Leader, Registered, Replies, Gap, ReadAt, Confirmed, Answers, Submit, Read,
        Forward, Forwarded, NewWish, Granted, Dismissed, Nearness;
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
    /// Another main asks for a lease on reads.
    LeaseAsk(LeaseAsk),
    /// A main that may have forgotten something asks for a promise, not to lead by it.
    Vouch(Prepare),
    /// *Local*, from the learner.
    #[serde(skip)]
    Learned(Learned),
    /// *Local*, from the learner.
    #[serde(skip)]
    Trim(Trim),
    /// *Local*, from the proposer.
    #[serde(skip)]
    Mend(Mend),
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
    /// A home passes on what an operator wants.
    Wanted(Wanted),
    /// A leader hands over.
    TakeOver(TakeOver),
    /// *Local*, from the acceptor: another main asks for a lease on reads.
    #[serde(skip)]
    LeaseAsked(LeaseAsked),
    /// Another main granted a lease on reads.
    LeaseGrant(LeaseGrant),
    /// *Local*, from the home: where must a read here wait for?
    #[serde(skip)]
    LeasedRead(LeasedRead),
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
    /// *Local*, from the acceptor.
    #[serde(skip)]
    Mended(Mended),
}

/// To a learner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LearnerMessage {
    /// *Local*, from the acceptor.
    #[serde(skip)]
    Voted(Voted),
    /// *Local*, from the acceptor.
    #[serde(skip)]
    Proposed(Proposed),
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
    /// Another main says what it came to.
    Compare(Compare),
    /// A peer asks for a piece of a snapshot.
    Fetch(Fetch),
    /// A piece of a peer's snapshot.
    SnapshotChunk(SnapshotChunk),
    /// *Local*, from the scrubber.
    #[serde(skip)]
    Renew(Renew),
    /// *Local*, from the shelf.
    #[serde(skip)]
    SnapshotWritten(SnapshotWritten),
    /// *Local*, from the shelf.
    #[serde(skip)]
    SnapshotRead(SnapshotRead),
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
    /// Reads of a home that is far behind.
    Forward(Forward),
    /// What they answered.
    Forwarded(Forwarded),
    /// The cluster has removed this node.
    Dismissed(Dismissed),
    /// What became of an operator's wish.
    Granted(Granted),
    /// *Local*, from operators.
    #[serde(skip)]
    NewWish(NewWish),
    /// *Local*, from the proposer: whether reads can be answered here.
    #[serde(skip)]
    Nearness(Nearness),
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
    /// A process that starts with a log asks whether it may take part.
    Enter(Life),
    /// The answer.
    Entered(Entered),
    /// A sign of life of a process that takes part.
    Alive(Life),
    /// The answer if there is something against it.
    Disowned(Disowned),
}
