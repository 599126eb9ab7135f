//! Safety rules that tests switch off, one at a time, to see that they would be missed. In a program
//! none ever is.

/// A rule broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slip {
    /// A request that meets one in flight is sent all the same (S1).
    SendsBesideAnother,
    /// What was sent before a crash is taken for not sent (S2).
    ForgetsWhatWasSent,
    /// Of several that were with the server in a crash only the last counts as sent (S2).
    DoubtsTheLastOnly,
    /// A request that must not be sent twice is, when no answer came (S2).
    RetriesUnsafe,
    /// A request counts as answered once it is sent (S2).
    NotesBeforeTheAnswer,
    /// A caller is answered before this site's server is (S3).
    AnswersForAnother,
    /// A quarantined site goes on (S4).
    IgnoresQuarantine,
    /// A key that was used before gets another place (O3).
    OrdersAKeyTwice,
    /// A request leaves before every site has performed it (O2).
    LetsGoTooSoon,
    /// A server that failed where others succeeded goes on (O4).
    KeepsWhoFailed,
    /// A server is copied while it performs something (O6).
    CopiesInMotion,
    /// What came after a copy is not performed where it went (O7).
    SkipsTheTail,
    /// A copy that came in part counts as whole (S5).
    TakesAPart,
    /// A server that knows what it performed is not asked (S6).
    TrustsItsNotes,
    /// Readers are shown what a server lost (S6).
    ShowsWhatIsLost,
    /// What failed here, and perhaps nowhere else, keeps nobody waiting (S7).
    AnswersInDoubt,
    /// A body that the order still has is let go of (B2).
    SweepsTooSoon,
}

#[cfg(test)]
impl Slip {
    /// Each of them.
    pub(crate) const ALL: [Self; 17] = [
        Self::SendsBesideAnother,
        Self::ForgetsWhatWasSent,
        Self::DoubtsTheLastOnly,
        Self::RetriesUnsafe,
        Self::NotesBeforeTheAnswer,
        Self::AnswersForAnother,
        Self::IgnoresQuarantine,
        Self::OrdersAKeyTwice,
        Self::LetsGoTooSoon,
        Self::KeepsWhoFailed,
        Self::CopiesInMotion,
        Self::SkipsTheTail,
        Self::TakesAPart,
        Self::TrustsItsNotes,
        Self::ShowsWhatIsLost,
        Self::AnswersInDoubt,
        Self::SweepsTooSoon,
    ];
}

#[cfg(test)]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Slip>> = const { std::cell::Cell::new(None) };
}

/// Breaks a rule on this thread, or none.
#[cfg(test)]
pub(crate) fn set(slip: Option<Slip>) {
    BROKEN.set(slip);
}

/// Whether a rule is broken.
#[cfg(test)]
pub(crate) fn is(slip: Slip) -> bool {
    BROKEN.get() == Some(slip)
}

/// Whether a rule is broken: never.
#[cfg(not(test))]
pub(crate) const fn is(_: Slip) -> bool {
    false
}
