//! What Synod promises, one promise a file. Each check is pure: it compares what was observed now
//! with what was observed before, and knows nothing of how either came about.

use std::fmt;

pub mod agreement;
pub mod durability;
pub mod epochs;
pub mod equal_states;
pub mod exactly_once;
pub mod idle_auxiliary;
pub mod linearizable;
pub mod one_value;
pub mod promises;
pub mod said_is_durable;

/// A promise that was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of the promise: the file's.
    pub promise: &'static str,
    /// What was seen.
    pub seen: String,
}

impl Violation {
    /// The promise `promise` was broken.
    pub fn new(promise: &'static str, seen: impl Into<String>) -> Self {
        Self { promise, seen: seen.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.seen)
    }
}
