//! Safety rules that a test may switch off, one at a time, to see that the judges notice.
//! Compiled only for tests; a normal build has no such switch.
//!
//! Two rules of consensus have no switch. *A main is in every quorum* is never the last defence: a
//! leader has its own acceptor's promise, and a learner knows a value only by its own node's vote
//! or a main's word, so a main is there in any case; unit tests hold the rule itself. *An auxiliary
//! forgets only what every main has durably* keeps the cluster going after a loss, and breaks no
//! promise when it is off.

use std::cell::Cell;

/// One rule of roles, switched off. Numbers are those of the list of mutations in the judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleRule {
    /// 1: an expiry does not say which renewal it counts from.
    ExpiryNamesRenewal,
    /// 3: a holder counts from the sending, not from the answer.
    CountsFromSending,
    /// 4: who stood acts only after a renewal.
    StandingConfirms,
    /// 7: what was installed counts from then.
    InstalledCountsFromNow,
    /// 8: a renewal names the epoch.
    RenewalNamesEpoch,
    /// 11: a holder allows for its clock.
    HolderAllowsForDrift,
    /// 12: so does a main.
    MainAllowsForDrift,
    /// 14: only what was renewed counts as renewed.
    OnlyRenewedCounts,
    /// 15: *held* is no grant.
    HeldIsNoGrant,
    /// 16: a main counts from applying, not from its start.
    CountsFromApplying,
    /// 18: a resignation names the epoch.
    ResignationNamesEpoch,
    /// 19: what was granted to a request waits for the whole lease.
    RequestedWaitsLease,
    /// 22: old epochs are refused.
    OldEpochsRefused,
    /// 23: a process of the same name is another.
    SameNameIsAnother,
    /// 25: who stands lapses.
    StandingLapses,
    /// 29: the lease is that of the grant.
    LeaseOfGrant,
    /// 31: only the process that ended leaves.
    ExitNamesProcess,
    /// 32: only who asked is renewed.
    OnlyAskedRenewed,
    /// W2: who watches also hears that nobody leads any more.
    EveryChangeTold,
    /// W2: whoever missed what is not kept any more is told how everything stands.
    GapsAreTold,
}

impl RoleRule {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::ExpiryNamesRenewal,
        Self::CountsFromSending,
        Self::StandingConfirms,
        Self::InstalledCountsFromNow,
        Self::RenewalNamesEpoch,
        Self::HolderAllowsForDrift,
        Self::MainAllowsForDrift,
        Self::OnlyRenewedCounts,
        Self::HeldIsNoGrant,
        Self::CountsFromApplying,
        Self::ResignationNamesEpoch,
        Self::RequestedWaitsLease,
        Self::OldEpochsRefused,
        Self::SameNameIsAnother,
        Self::StandingLapses,
        Self::LeaseOfGrant,
        Self::ExitNamesProcess,
        Self::OnlyAskedRenewed,
        Self::EveryChangeTold,
        Self::GapsAreTold,
    ];
}

thread_local! {
    static RULE_OFF: Cell<Option<RoleRule>> = const { Cell::new(None) };
}

/// Switches a rule of roles off for this thread; `None` restores every rule.
pub fn set_role_rule(rule: Option<RoleRule>) {
    RULE_OFF.with(|off| off.set(rule));
}

/// Whether that rule of roles is switched off.
pub fn is_off(rule: RoleRule) -> bool {
    RULE_OFF.with(|off| off.get() == Some(rule))
}

/// One rule of registers, switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterRule {
    /// G1: a holder orders nothing below what it ordered.
    OrdersRise,
    /// G1: a holder writes nothing below what it ordered.
    OldWritesRefused,
    /// G2: more than half of the holders, or disks, are asked.
    MajorityCounts,
    /// G4, D4: a read that meets an open write settles it first.
    OpenReadsSettled,
    /// G6: who goes on under its order stays below all orders that are above it.
    GoesOnBelowOthers,
    /// D1: a client that starts again finds its own block first.
    OwnBlockRecalled,
    /// D2: whoever finds a higher ballot gives up.
    HigherBallotsWin,
    /// D3: the value of the greatest ballot is the one that counts.
    GreatestBallotCounts,
}

impl RegisterRule {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::OrdersRise,
        Self::OldWritesRefused,
        Self::MajorityCounts,
        Self::OpenReadsSettled,
        Self::GoesOnBelowOthers,
        Self::OwnBlockRecalled,
        Self::HigherBallotsWin,
        Self::GreatestBallotCounts,
    ];
}

thread_local! {
    static REGISTER_RULE_OFF: Cell<Option<RegisterRule>> = const { Cell::new(None) };
}

/// Switches a rule of registers off for this thread; `None` restores every rule.
pub fn set_register_rule(rule: Option<RegisterRule>) {
    REGISTER_RULE_OFF.with(|off| off.set(rule));
}

/// Whether that rule of registers is switched off.
pub fn is_register_rule_off(rule: RegisterRule) -> bool {
    REGISTER_RULE_OFF.with(|off| off.get() == Some(rule))
}

/// One rule of managed services, switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceRule {
    /// A role is given up only once its programs are gone.
    GivesUpWhenGone,
    /// What others need ends after them.
    NeededEndLast,
    /// K2: a primary that has begun seals the epochs before its own.
    BeginningSeals,
    /// K3: a state does not take the place of a later one.
    OldNumbersIgnored,
}

impl ServiceRule {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::GivesUpWhenGone, Self::NeededEndLast, Self::BeginningSeals, Self::OldNumbersIgnored];
}

thread_local! {
    static SERVICE_RULE_OFF: Cell<Option<ServiceRule>> = const { Cell::new(None) };
}

/// Switches a rule of managed services off for this thread; `None` restores every rule.
pub fn set_service_rule(rule: Option<ServiceRule>) {
    SERVICE_RULE_OFF.with(|off| off.set(rule));
}

/// Whether that rule of managed services is switched off.
pub fn is_service_rule_off(rule: ServiceRule) -> bool {
    SERVICE_RULE_OFF.with(|off| off.get() == Some(rule))
}

/// One rule of views and of choosing a manager, switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewRule {
    /// V2: a verdict counts only in the view in which it was asked for.
    VerdictNamesView,
    /// V3: another node is asked before anybody is accused.
    SecondOpinion,
    /// V4: who makes no progress is not well.
    ProgressCounts,
    /// V7: who fell often must be heard for longer.
    FallsCount,
    /// C1: requests wait while a primary is sought.
    RequestersHeldOff,
    /// C2: nothing is written into a candidate variable before its own node has.
    LockIsBarrier,
    /// C3: words of other views count for nothing.
    RanksNameView,
    /// C4: who is disqualified goes on no more.
    DisqualifiedIsSilent,
    /// C5: a primary that lives keeps its place.
    PrimaryStays,
    /// C6: only a higher rank is written.
    HigherRankWins,
}

impl ViewRule {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::VerdictNamesView,
        Self::SecondOpinion,
        Self::ProgressCounts,
        Self::FallsCount,
        Self::RequestersHeldOff,
        Self::LockIsBarrier,
        Self::RanksNameView,
        Self::DisqualifiedIsSilent,
        Self::PrimaryStays,
        Self::HigherRankWins,
    ];
}

thread_local! {
    static VIEW_RULE_OFF: Cell<Option<ViewRule>> = const { Cell::new(None) };
}

/// Switches a rule of views off for this thread; `None` restores every rule.
pub fn set_view_rule(rule: Option<ViewRule>) {
    VIEW_RULE_OFF.with(|off| off.set(rule));
}

/// Whether that rule of views is switched off.
pub fn is_view_rule_off(rule: ViewRule) -> bool {
    VIEW_RULE_OFF.with(|off| off.get() == Some(rule))
}

/// One rule, switched off. Numbers are those of the protocol manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// 1: an auxiliary that lost its disk comes back under its old identity.
    AuxiliaryForgetsAll,
    /// 2: a leader claims its vote before it is durable.
    ClaimBeforeDurable,
    /// 3: no promises are asked of a new configuration.
    NoPhaseOneForNewConfiguration,
    /// 4: a configuration decides from the next step on.
    EffectiveAtOnce,
    /// 5: an auxiliary forgets its floor, and who it was told votes there.
    ForgetsFloor,
    /// 6: a node that starts again judges by the first configuration.
    AssumeInitial,
    /// 7: a ballot is used again after a restart.
    BallotReused,
    /// 8: half of the members are enough.
    HalfInsteadOfMajority,
    /// 9: a read is served at the executed prefix.
    ReadAtExecuted,
    /// A vote or promise is said before it is durable.
    SaidBeforeDurable,
    /// An acceptor votes below its promise.
    VoteBelowPromise,
    /// A new leader proposes its own value although a vote was reported.
    IgnoreReportedVotes,
    /// A command is executed again when its session repeats it.
    NoDuplicateCheck,
    /// A replaced journal does not hold the promise.
    TruncateForgetsPromise,
    /// An installed snapshot brings no sessions.
    SnapshotForgetsSessions,
    /// A leader answers reads without asking whether it still leads.
    ReadUnconfirmed,
    /// Words of acceptors count for reads that came after they were given.
    OldWordsCount,
    /// A replica answers a read before it executed the step the read must wait for.
    ReadNotAwaited,
    /// Commands of a session execute in whatever order they come.
    AnyOrder,
    /// A home that was made anew registers as the one before did.
    NonceRepeated,
    /// A leader takes the lowest of the reported votes.
    LowestVoteWins,
    /// A leader does not wait for the promise of its own acceptor.
    OwnPromiseNotAwaited,
    /// A leader claims votes across a gap in what its acceptor said.
    ClaimOverGap,
    /// What a leader says to be chosen in its ballot is taken for chosen in any.
    WordForAnyBallot,
    /// An acceptor's promise speaks of steps whose votes it dropped.
    PromiseBelowTrimmed,
    /// An auxiliary says its vote before it is durable.
    AuxiliarySaidBeforeDurable,
    /// An auxiliary votes below its promise.
    AuxiliaryVotesBelowPromise,
    /// What an auxiliary keeps when it forgets does not hold its promise.
    ForgetDropsPromise,
    /// The journal forgets votes that the snapshot does not cover.
    TrimsBeyondSnapshot,
    /// An installed snapshot brings no configuration.
    SnapshotKeepsConfiguration,
    /// A leader answers reads where it was not promised the next step.
    ReadBeyondPromises,
    /// A learner hands on what it has although the step that was next is not in its log.
    HandsOnOverGap,
    /// 10: a leader asks auxiliaries for votes while another main holds a lease.
    LeaseNotKept,
    /// 11: a node that starts forgets that it granted a lease.
    LeaseNotRemembered,
    /// 12: a read by lease waits for nothing.
    LeaseReadsAtOnce,
    /// A lease is used after its end.
    LeaseNeverEnds,
    /// A node whose journal ended torn promises and votes as if nothing were missing.
    TornEndTrusted,
    /// An older copy of a data directory, or a second one in use, takes part.
    OlderCopyTrusted,
    /// What others voted for is not taken over in place of what a torn end may have held.
    MendTakesNothing,
    /// One other main's lease is enough, however many there are.
    LeaseOfAny,
    /// Leases are used where some of the mains choose without the others.
    LeaseWhereFewerChoose,
    /// A lease is used while what a main proposed in a life before may still be voted for.
    LeaseForgetsFormerBallots,
    /// A leader raises the cluster version as soon as it can execute it itself.
    RisesAlone,
    /// What was noted to be chosen counts although notes before it are missing.
    MarkSpansGap,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 44] = [
        Self::AuxiliaryForgetsAll,
        Self::ClaimBeforeDurable,
        Self::NoPhaseOneForNewConfiguration,
        Self::EffectiveAtOnce,
        Self::ForgetsFloor,
        Self::AssumeInitial,
        Self::BallotReused,
        Self::HalfInsteadOfMajority,
        Self::ReadAtExecuted,
        Self::SaidBeforeDurable,
        Self::VoteBelowPromise,
        Self::IgnoreReportedVotes,
        Self::NoDuplicateCheck,
        Self::TruncateForgetsPromise,
        Self::SnapshotForgetsSessions,
        Self::ReadUnconfirmed,
        Self::OldWordsCount,
        Self::ReadNotAwaited,
        Self::AnyOrder,
        Self::NonceRepeated,
        Self::LowestVoteWins,
        Self::OwnPromiseNotAwaited,
        Self::ClaimOverGap,
        Self::WordForAnyBallot,
        Self::PromiseBelowTrimmed,
        Self::AuxiliarySaidBeforeDurable,
        Self::AuxiliaryVotesBelowPromise,
        Self::ForgetDropsPromise,
        Self::TrimsBeyondSnapshot,
        Self::SnapshotKeepsConfiguration,
        Self::ReadBeyondPromises,
        Self::HandsOnOverGap,
        Self::LeaseNotKept,
        Self::LeaseNotRemembered,
        Self::LeaseReadsAtOnce,
        Self::LeaseNeverEnds,
        Self::TornEndTrusted,
        Self::MendTakesNothing,
        Self::OlderCopyTrusted,
        Self::LeaseOfAny,
        Self::LeaseWhereFewerChoose,
        Self::LeaseForgetsFormerBallots,
        Self::RisesAlone,
        Self::MarkSpansGap,
    ];
}

thread_local! {
    static ON: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Switches `mutation` off or on for this thread; `None` restores every rule.
pub fn set(mutation: Option<Mutation>) {
    ON.with(|on| on.set(mutation));
}

/// Whether the rule is switched off.
pub fn on(mutation: Mutation) -> bool {
    ON.with(|on| on.get() == Some(mutation))
}
