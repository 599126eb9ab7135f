//! From when on a holder that is not renewed must put its work down: times only.

use std::time::Duration;

use synod_runtime::world::Instant;

/// When a holder that may act until `until` begins to step down: with a quarter of its lease left.
/// By then three renewals in a row have failed; and what it was doing has that long to end, before
/// it is dropped where it stands.
pub fn steps_down_at(lease: Duration, until: Instant) -> Instant {
    until - lease / 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::lease::{LEASE_MAX, LEASE_MIN, acts_for, period};

    #[test]
    fn three_renewals_may_fail_before_a_holder_steps_down_and_it_has_time_for_that() {
        for lease in [LEASE_MIN, LEASE_MAX] {
            let until = Instant::default() + acts_for(lease);
            let steps = steps_down_at(lease, until);
            assert!(steps.since(Instant::default()) > period(lease) * 3, "{lease:?}");
            assert!(until.since(steps) >= Duration::from_millis(75), "{lease:?}");
        }
    }
}
