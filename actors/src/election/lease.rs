//! The arithmetic of leases: how long a holder acts, how long the others wait.

use std::time::Duration;

/// No clock runs wrong by more than this, in parts of a hundred (ρ). Quartz is a thousand times
/// better; what virtual machines do to clocks is not.
pub const DRIFT_PERCENT: u64 = 1;

/// The lease of those who name none.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(2);

/// The shortest lease: several renewals, each with a slow sync and a lost message, fit in.
pub const LEASE_MIN: Duration = Duration::from_millis(300);

/// The longest lease: a main remembers for so long when it applied what.
pub const LEASE_MAX: Duration = Duration::from_mins(10);

/// How long after sending its renewal a holder acts: T·(1−ρ), rounded down.
pub fn acts_for(lease: Duration) -> Duration {
    if off!(HolderAllowsForDrift) {
        return lease;
    }
    let nanos = nanos(lease);
    Duration::from_nanos(nanos / 100 * (100 - DRIFT_PERCENT))
}

/// How long after applying a renewal a main waits: T·(1+ρ), rounded up.
pub fn waits_for(lease: Duration) -> Duration {
    if off!(MainAllowsForDrift) {
        return lease;
    }
    let nanos = nanos(lease);
    Duration::from_nanos(nanos.div_ceil(100) * (100 + DRIFT_PERCENT))
}

/// How long a main waits for whoever was granted a role without having asked at that moment.
pub fn waits_unconfirmed(lease: Duration) -> Duration {
    lease / 4
}

/// How often a lease is renewed: so often that three renewals in a row may be lost, and that who
/// stands hears of a grant before it lapses unconfirmed.
pub fn period(lease: Duration) -> Duration {
    lease / 5
}

fn nanos(lease: Duration) -> u64 {
    u64::try_from(lease.min(LEASE_MAX).as_nanos()).expect("ten minutes fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_with_the_slowest_clock_stops_before_a_main_with_the_fastest_expires() {
        for lease in [LEASE_MIN, LEASE_DEFAULT, LEASE_MAX, Duration::from_nanos(300_000_001)] {
            // In true time: the holder's clock shows 0.99 of it at worst, the main's 1.01.
            let holder = acts_for(lease).as_nanos() * 100 / 99;
            let main = waits_for(lease).as_nanos() * 100 / 101;
            assert!(holder <= main, "{lease:?}: {holder} and {main}");
            assert!(acts_for(lease) < lease && lease < waits_for(lease));
        }
    }
}
