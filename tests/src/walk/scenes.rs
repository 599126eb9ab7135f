//! Plans that play one kind of history over and over: where a rule seldom matters, chance alone
//! would seldom show that it is missing.

use std::time::Duration;

use rand::RngExt;
use synod::consensus::Timing;
use synod_runtime::world::Rng;

use super::plan::{Faults, Plan, Shape, quick};

impl Plan {
    /// A main is let in again and leads in a lower ballot than the one that let it in, over and over
    /// (see `script`).
    pub fn readmitted(shape: Shape, rng: &mut Rng) -> Self {
        let ms = Duration::from_millis;
        Self {
            timing: Timing { remove_unreachable: ms(60), remove: ms(100), ..quick() },
            chaos_us: 3_000_000,
            delay_us: rng.random_range(100..600),
            sync_us: rng.random_range(50..1_000),
            // Where little is asked, a configuration comes into force long before it is used.
            call_us: rng.random_range(20_000..80_000),
            scripted: true,
            ..Self::calm(shape)
        }
    }

    /// Leaders are cut off and go on believing that they lead, with clients that ask them.
    pub fn deposed(shape: Shape, rng: &mut Rng) -> Self {
        Self {
            timing: quick(),
            chaos_us: 1_000_000,
            fault_us: rng.random_range(100_000..200_000),
            faults: Faults { depose: 4, mend: 1, ..Faults::default() },
            delay_us: rng.random_range(200..2_000),
            late: rng.random_range(0..200),
            call_us: rng.random_range(3_000..10_000),
            cut_us: rng.random_range(150_000..400_000),
            ..Self::calm(shape)
        }
    }

    /// Leases that outlast elections or are soon over, mains and leaders that are cut off, or crash and are soon back while
    /// the other main cannot be asked.
    pub fn leased(shape: Shape, rng: &mut Rng) -> Self {
        let ms = Duration::from_millis;
        let lease = if rng.random_bool(0.5) { ms(400) } else { ms(20) };
        let timing = Timing { lease, hedge: ms(10), promises: ms(10), ..quick() };
        let faults = Faults { depose: 2, topple: 3, isolate: 3, mend: 2, ..Faults::default() };
        // Of several others some may be heard.
        let many = u32::from(shape.mains > 2);
        Self {
            timing,
            chaos_us: 2_000_000,
            fault_us: rng.random_range(150_000..400_000),
            faults: Faults { one_way: 3 * many, ..faults },
            delay_us: rng.random_range(100..1_000),
            call_us: rng.random_range(1_000..4_000),
            down_us: rng.random_range(1_000..30_000),
            cut_us: rng.random_range(150_000..500_000),
            ..Self::calm(shape)
        }
    }

    /// Mains crash, one soon after the other, and the ends of their journals are torn.
    pub fn torn(shape: Shape, rng: &mut Rng) -> Self {
        Self {
            timing: quick(),
            chaos_us: 2_000_000,
            fault_us: rng.random_range(60_000..200_000),
            faults: Faults {
                crash: 3,
                crash_leader: 3,
                crash_auxiliary: 1,
                role: 1,
                isolate: rng.random_range(0..3),
                split: rng.random_range(0..3),
                mend: 3,
                ..Faults::default()
            },
            delay_us: rng.random_range(100..1_500),
            late: rng.random_range(0..100),
            sync_us: rng.random_range(100..4_000),
            call_us: rng.random_range(1_000..20_000),
            down_us: rng.random_range(1_000..200_000),
            cut_us: rng.random_range(20_000..200_000),
            snapshot_log_bytes: rng.random_range(300..8_000),
            torn: 700,
            ..Self::calm(shape)
        }
    }

    /// Leaders crash, lose the last of what was durable, and are soon back while the other main
    /// cannot be asked.
    pub fn forgetful(shape: Shape, rng: &mut Rng) -> Self {
        let toppled = Self::toppled(shape, rng);
        let faults = Faults { topple: 4, mend: 1, ..Faults::default() };
        let (delay_us, sync_us) = (rng.random_range(100..500), rng.random_range(100..1_000));
        let cut_us = rng.random_range(200_000..400_000);
        let call_us = rng.random_range(500..3_000);
        let fault_us = rng.random_range(100_000..200_000);
        let (torn, torn_lost) = (1_000, 1_000);
        Self { faults, delay_us, sync_us, cut_us, call_us, fault_us, torn, torn_lost, ..toppled }
    }

    /// Leaders crash with much on its way to their disks, and are soon back while the other main
    /// cannot be asked.
    pub fn toppled(shape: Shape, rng: &mut Rng) -> Self {
        Self {
            timing: quick(),
            chaos_us: 1_500_000,
            fault_us: rng.random_range(40_000..120_000),
            faults: Faults { topple: 4, crash_auxiliary: 1, mend: 2, ..Faults::default() },
            delay_us: rng.random_range(100..1_000),
            late: rng.random_range(0..200),
            sync_us: rng.random_range(1_000..8_000),
            call_us: rng.random_range(2_000..10_000),
            down_us: rng.random_range(1_000..60_000),
            cut_us: rng.random_range(50_000..200_000),
            ..Self::calm(shape)
        }
    }
}
