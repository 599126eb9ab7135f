//! What must hold whatever happens: one property a file, each a pure function over the
//! [`Record`].

mod agreement;
mod durability;
mod exactly_once;
mod idleness;
mod linearizability;
mod patience;
mod session_order;
mod trust;

use std::fmt;

use super::record::Record;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// All mains have the same state, and the same digest at the same position.
    Agreement,
    /// What was acknowledged is there, where it was said to be.
    Durability,
    /// Nothing is applied twice, and nothing that was refused is applied.
    ExactlyOnce,
    /// An auxiliary has nothing to do while nothing is wrong (R1.32).
    Idleness,
    /// Every answer fits one order of all calls that agrees with the order of time.
    Linearizability,
    /// Once nothing is wrong, all that was asked is done.
    Liveness,
    /// Every call ends within the patience of its client.
    Patience,
    /// A node whose disk is intact starts again.
    Recovery,
    /// The commands of one session are applied in the order in which they were given.
    SessionOrder,
    /// No part of a node fails by itself.
    Soundness,
    /// Nobody is suspected, replaced or voted out while nothing is wrong.
    Trust,
}

/// A property that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub property: Property,
    /// How that shows.
    pub what: String,
}

/// Everything that did not hold, in the order of the properties.
pub fn judge(record: &Record) -> Vec<Violation> {
    let mut violations = record.found.clone();
    for check in [
        agreement::check,
        durability::check,
        exactly_once::check,
        idleness::check,
        linearizability::check,
        patience::check,
        session_order::check,
        trust::check,
    ] {
        let mut found = Vec::new();
        check(record, &mut found);
        // The first few say it all.
        violations.extend(found.into_iter().take(SHOWN_MAX));
    }
    violations.sort_by_key(|violation| violation.property);
    violations
}

/// How many violations one check may report.
const SHOWN_MAX: usize = 3;

impl Property {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agreement => "agreement",
            Self::Durability => "durability",
            Self::ExactlyOnce => "exactly once",
            Self::Idleness => "idle auxiliary",
            Self::Linearizability => "linearizability",
            Self::Liveness => "liveness",
            Self::Patience => "patience",
            Self::Recovery => "recovery",
            Self::SessionOrder => "session order",
            Self::Soundness => "soundness",
            Self::Trust => "trust",
        }
    }
}

impl Violation {
    pub(super) fn new(property: Property, what: String) -> Self {
        Self { property, what }
    }

    pub(super) fn agreement(what: String) -> Self {
        Self::new(Property::Agreement, what)
    }

    pub(super) fn exactly_once(what: String) -> Self {
        Self::new(Property::ExactlyOnce, what)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property.name(), self.what)
    }
}
