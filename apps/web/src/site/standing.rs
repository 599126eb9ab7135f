//! How a site stands, for who looks at it from outside its arbiter.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// How a site stands.
#[derive(Debug, Default)]
pub struct Standing {
    placed: AtomicBool,
    away: Mutex<Option<String>>,
}

impl Standing {
    /// Whether it has known, since it began, whether it may answer.
    pub fn is_placed(&self) -> bool {
        self.placed.load(Ordering::Acquire)
    }

    /// Why it may not answer, where it was sent away or was never taken in.
    pub fn away(&self) -> Option<String> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, away: Option<String>) {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = away;
        self.set_placed();
    }

    pub(super) fn set_placed(&self) {
        self.placed.store(true, Ordering::Release);
    }
}
