//! What the machines of consensus do only now and then, counted by thread: a long random run can say
//! which rules it never exercised, and so never tested. Compiled only for tests; a normal build counts
//! nothing.

use std::cell::Cell;

/// Names each thing once.
macro_rules! list {
    ($($(#[doc = $what:literal])+ $name:ident,)+) => {
        /// Something that a machine does only now and then.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Sometimes {
            $($(#[doc = $what])+ $name,)+
        }

        impl Sometimes {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

list! {
    /// An acceptor's promise reports votes.
    PromiseReportsVotes,
    /// An acceptor refuses an older ballot.
    OlderBallotRefused,
    /// An acceptor is asked to vote on a step that its snapshot covers.
    CoveredStepAsked,
    /// An acceptor is asked for a vote that it has given.
    VoteAskedAgain,
    /// An acceptor whose disk is full does not vote.
    FullKeepsNoVote,
    /// An acceptor whose journal ended torn keeps silent.
    TornKeepsSilent,
    /// …and vouches for another one all the same.
    TornVouches,
    /// What others voted for is taken over in place of what a torn end may have held.
    MendTakesVotes,
    /// What a torn end may hide is asked for again, since somebody promised a higher ballot.
    MendRefused,
    /// …or since what was known to be chosen was forgotten.
    MendAsksAnew,
    /// An auxiliary votes.
    AuxiliaryVotes,
    /// An auxiliary's promise reports votes.
    AuxiliaryReportsVotes,
    /// An auxiliary refuses an older ballot.
    AuxiliaryRefuses,
    /// An auxiliary is asked to vote below its floor.
    BelowFloorAsked,
    /// An auxiliary forgets.
    AuxiliaryForgets,
    /// An auxiliary reaches the main that another one would replace.
    ProbeAnswered,
    /// An auxiliary does not reach it.
    ProbeUnanswered,
    /// An auxiliary advises a node that does not vote any more against standing.
    OutsiderAdvisedAgainst,
    /// Somebody who would stand is told that there is a leader.
    AdvisedAgainst,
    /// A node learns that the cluster went on without it.
    LeftBehind,
    /// A leader is refused for a higher ballot, and follows.
    RefusedLeaderFollows,
    /// A leader hears another one in a higher ballot, and follows.
    LeaderHearsLeader,
    /// A leader hears that a main promised a higher ballot, and stands again.
    LeaderStandsAgain,
    /// Nobody leads after so long: whoever asked for promises gives up.
    ReignGivenUp,
    /// A leader whose disk makes no progress steps down.
    SlowLeaderStepsDown,
    /// A leader whose disk is full steps down.
    FullLeaderStepsDown,
    /// A leader proposes again what a promise reported.
    ReportedValueProposed,
    /// A leader fills a gap between reported votes.
    GapFilled,
    /// A leader waits for promises from a new configuration.
    NewConfigurationAsked,
    /// A leader claims votes behind a gap only.
    VotesBehindGap,
    /// An auxiliary completes steps for a silent main.
    BridgeBegins,
    /// Every main votes again.
    BridgeEnds,
    /// An auxiliary is not asked while another main may read under a lease.
    LeaseHoldsBridge,
    /// A main is voted out.
    MainVotedOut,
    /// A main is let in.
    MainAdmitted,
    /// An auxiliary that lost its disk is replaced by what came back.
    AuxiliaryReplaced,
    /// Leadership is handed over.
    LeadershipHandedOver,
    /// A sole main hears from an auxiliary that it still is that.
    SoleConfirmed,
    /// A step is learned on a leader's word.
    LearnedByWord,
    /// A step is learned by counting votes.
    LearnedByVotes,
    /// A step is learned that this node did not vote for.
    LearnedWithoutVote,
    /// Steps are handed to a node that catches up.
    LogHandedOut,
    /// A snapshot is offered to one that lacks more than the log has.
    SnapshotOffered,
    /// The state of another node is installed.
    SnapshotInstalled,
    /// The journal drops what a snapshot covers.
    JournalTrimmed,
    /// A learner that was made anew knows less than the one before.
    LearnerKnowsLess,
}

thread_local! {
    static COUNTS: [Cell<u64>; Sometimes::ALL.len()] =
        const { [const { Cell::new(0) }; Sometimes::ALL.len()] };
}

/// It happened on this thread.
pub fn note(what: Sometimes) {
    COUNTS.with(|counts| {
        let count = &counts[what as usize];
        count.set(count.get() + 1);
    });
}

/// How often each happened on this thread since the last call.
pub fn take() -> Vec<(Sometimes, u64)> {
    let count = |what: &Sometimes| COUNTS.with(|counts| counts[*what as usize].take());
    Sometimes::ALL.iter().map(|what| (*what, count(what))).collect()
}
