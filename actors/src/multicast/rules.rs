//! The safety rules of multicast that a test may switch off, one at a time, to see that its judges
//! notice. In a normal build every rule is on, and there is no switch.

/// One safety rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// I2: a sealed commit server refuses lower epochs.
    SealRefusesLower,
    /// I2: so many are sealed that every committed pair is among their answers.
    SealMeetsEveryCommit,
    /// I2: a seal is on disk before it is answered.
    SealDurable,
    /// I3: of several records of a number that of the highest epoch counts.
    HighestEpochCounts,
    /// I3: of the open numbers only what is known committed is settled, however many copies.
    CopiesAreNotCommitted,
    /// I3: a message that has a lower number gives its place up.
    OpenNumbersScanned,
    /// I3: what is below the floor of any answer is not judged again.
    FloorInAnswer,
    /// I4: a pair is committed when enough commit servers have it.
    EnoughAcknowledge,
    /// I4: numbers are announced in order.
    AnnouncedInOrder,
    /// I4: a pair is on disk before it is acknowledged.
    AcknowledgedDurable,
    /// I4: where the sequencer's own commit server goes first, it has a pair before others hear that it
    /// has.
    CarriedDurable,
    /// R4.21: where a register or a file keeps the largest number, it does before commit servers hear of
    /// it.
    StoredBeforeSubmitted,
    /// I5: data is on disk before it is reported.
    ReportedDurable,
    /// I5: reports of one data server count once.
    ReportersDistinct,
    /// I6: a message gets a number within its lifetime, or none.
    LifetimeChecked,
    /// I6: a message that has a number gets no other.
    DuplicatesRefused,
    /// I7: a publisher's message comes after the one before.
    PublisherOrder,
    /// I8: a commit server names only pairs that it knows committed.
    OnlyCommittedNamed,
    /// I9: data goes when its number is below the checkpoint, not its stamp.
    GarbageByNumber,
    /// I9: data goes for no age alone.
    GarbageNotByAge,
    /// I9: pairs of the last lifetime stay.
    PairsKeptForLifetime,
    /// I10: who takes a lost server's place counts when it has what that one had.
    NewcomerCountsLate,
    /// I10: a commit server takes nothing from sequencers that know an older set of servers.
    OlderServersRefused,
    /// I10: who takes a place has what sealed servers had, before it is sealed itself.
    NewcomerAdopts,
    /// I10: what who takes a place had of an earlier time, and nobody committed, counts no more.
    NewcomerForgets,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::SealRefusesLower,
        Self::SealMeetsEveryCommit,
        Self::SealDurable,
        Self::HighestEpochCounts,
        Self::CopiesAreNotCommitted,
        Self::OpenNumbersScanned,
        Self::FloorInAnswer,
        Self::EnoughAcknowledge,
        Self::AnnouncedInOrder,
        Self::AcknowledgedDurable,
        Self::CarriedDurable,
        Self::StoredBeforeSubmitted,
        Self::ReportedDurable,
        Self::ReportersDistinct,
        Self::LifetimeChecked,
        Self::DuplicatesRefused,
        Self::PublisherOrder,
        Self::OnlyCommittedNamed,
        Self::GarbageByNumber,
        Self::GarbageNotByAge,
        Self::PairsKeptForLifetime,
        Self::NewcomerCountsLate,
        Self::OlderServersRefused,
        Self::NewcomerAdopts,
        Self::NewcomerForgets,
    ];
}

#[cfg(any(test, feature = "mutations"))]
mod switch {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static OFF: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Switches a rule off for this thread; `None` restores every rule.
    pub fn set_rule(rule: Option<Rule>) {
        OFF.with(|off| off.set(rule));
    }

    pub(in crate::multicast) fn is_off(rule: Rule) -> bool {
        OFF.with(|off| off.get() == Some(rule))
    }
}

#[cfg(any(test, feature = "mutations"))]
pub(super) use self::switch::is_off;
#[cfg(any(test, feature = "mutations"))]
pub use self::switch::set_rule;

/// Whether a rule is switched off: never.
#[cfg(not(any(test, feature = "mutations")))]
pub(super) const fn is_off(_rule: Rule) -> bool {
    false
}
