//! Waiting for conditions, with deadlines.

use std::time::Duration;

use synod_runtime::world::{Clock as _, Instant, RealClock};

/// Longer than anything here takes on a busy machine: reaching it is a failure, never a wait.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Now, on the clock the nodes use.
pub fn now() -> Instant {
    RealClock.now()
}

/// Lets a little time pass between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "a test thread looks again a little later")]
pub fn pause() {
    std::thread::sleep(PAUSE);
}

/// Waits until `look` finds something.
///
/// # Panics
/// After [`PATIENCE`], with `what` and what `look` said last.
pub fn until<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    until_within(PATIENCE, what, look)
}

/// As [`until`], with a deadline of its own.
///
/// # Panics
/// After `patience`.
pub fn until_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let started = now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) if now().since(started) > patience => {
                panic!("waited {patience:?} in vain for {what}: {why}")
            }
            Err(_) => pause(),
        }
    }
}

/// Watches for the time `span` that `look` keeps saying yes: for what must *not* happen there is
/// no event to wait for.
///
/// # Panics
/// When it says no, with its reason.
pub fn holds_for(span: Duration, what: &str, mut look: impl FnMut() -> Result<(), String>) {
    let started = now();
    while now().since(started) < span {
        if let Err(why) = look() {
            panic!("{what}: {why}");
        }
        pause();
    }
}

/// Short against everything that is waited for.
const PAUSE: Duration = Duration::from_millis(10);
