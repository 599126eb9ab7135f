//! A phi-accrual detector: how sure one may be, by the rhythm so far, that a peer is gone.
//!
//! It learns mean and deviation of the time between signs of life and answers *phi*: a silence that
//! a living peer would keep once in 10ᵖʰⁱ times. A link that stutters is given more time than one
//! that never did. Only sums, products and one square root are used, so every machine comes to the
//! same bits.

use std::{collections::VecDeque, time::Duration};

use synod_runtime::world::Instant;

/// The rhythm of one peer.
#[derive(Debug, Clone)]
pub struct Detector {
    /// A silence below this says nothing.
    pause: Duration,
    /// Nanoseconds between signs of life, the newest last.
    gaps: VecDeque<u64>,
    heard: Option<Instant>,
    since: Instant,
}

/// What a detector makes of a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Heard when it should be.
    Fine,
    /// Silent for longer than it should be.
    Late,
    /// Silent for so long that others are asked.
    Gone,
}

impl Detector {
    /// A peer that is expected from `since` on, and about whom a silence below `pause` says nothing.
    pub fn new(pause: Duration, since: Instant) -> Self {
        Self { pause, gaps: VecDeque::with_capacity(GAPS), heard: None, since }
    }

    /// A sign of life.
    pub fn heard(&mut self, now: Instant) {
        if let Some(before) = self.heard.replace(now) {
            // A silence that was long enough to be noticed is not the rhythm (V5 bounds it too).
            let gap = now.since(before).min(self.pause);
            if self.gaps.len() == GAPS {
                self.gaps.pop_front();
            }
            self.gaps.push_back(nanos(gap));
        }
    }

    /// Since when it was not heard.
    pub fn silent_since(&self) -> Instant {
        self.heard.unwrap_or(self.since)
    }

    /// Whether it was ever heard.
    pub const fn was_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// How unlikely the present silence is; 0 while nothing is known of the rhythm.
    pub fn phi(&self, now: Instant) -> f64 {
        let Some((mean, deviation)) = self.rhythm() else { return 0.0 };
        let silence = nanos(now.since(self.silent_since())) as f64;
        let y = (silence - mean) / deviation;
        if y <= 0.0 {
            return 0.0;
        }
        // The logistic approximation of a normal distribution's tail, as a power of ten.
        y * (1.5976 + 0.070_566 * y * y) * LOG10_E
    }

    /// What the silence means.
    pub fn trust(&self, now: Instant) -> Trust {
        let silence = now.since(self.silent_since());
        let (late, gone) = match self.rhythm() {
            Some(_) => {
                let phi = self.phi(now);
                (phi >= PHI_LATE, phi >= PHI_GONE)
            }
            // Nothing is known of its rhythm: it is given much time.
            None => (true, silence >= START_PAUSES * self.pause),
        };
        match () {
            () if gone && silence >= GONE_PAUSES * self.pause => Trust::Gone, // V5
            () if late && silence >= self.pause => Trust::Late,
            () => Trust::Fine,
        }
    }

    /// Mean and deviation of the gaps in nanoseconds, once enough are known.
    fn rhythm(&self) -> Option<(f64, f64)> {
        if self.gaps.len() < GAPS_MIN {
            return None;
        }
        let count = self.gaps.len() as f64;
        let mean = self.gaps.iter().map(|gap| *gap as f64).sum::<f64>() / count;
        let squares = self.gaps.iter().map(|gap| (*gap as f64 - mean) * (*gap as f64 - mean));
        let deviation = (squares.sum::<f64>() / count).sqrt();
        Some((mean, deviation.max(mean / 4.0).max(DEVIATION_MIN)))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Gaps that are remembered: two seconds of beats every 30 ms.
const GAPS: usize = 64;

/// Fewer say nothing about a rhythm.
const GAPS_MIN: usize = 3;

/// Suspected from here on: a living peer is silent for so long once in 10⁸ times.
const PHI_LATE: f64 = 8.0;

/// Taken for gone from here on.
const PHI_GONE: f64 = 12.0;

/// Silent for so many pauses at least.
const GONE_PAUSES: u32 = 3;

/// The most that any rhythm gives: gaps count up to one pause each, so mean and deviation cannot
/// add up to more.
pub const GONE_PAUSES_MAX: u32 = 4;

/// Whoever was hardly ever heard, since this node started, is given so many pauses.
pub const START_PAUSES: u32 = 10;

/// No network is steadier than this, in nanoseconds.
const DEVIATION_MIN: f64 = 5_000_000.0;

const LOG10_E: f64 = std::f64::consts::LOG10_E;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAUSE: Duration = Duration::from_millis(1_000);

    /// A peer heard after each of these gaps, in milliseconds; and when it was heard last.
    fn after(gaps: &[u64]) -> (Detector, Instant) {
        let mut now = Instant::from_nanos(1);
        let mut peer = Detector::new(PAUSE, now);
        peer.heard(now);
        for gap in gaps {
            now = now + Duration::from_millis(*gap);
            peer.heard(now);
        }
        (peer, now)
    }

    proptest! {
        /// Whatever the rhythm, who is heard in time is never accused.
        #[test]
        fn who_is_heard_in_time_is_never_accused(gaps in prop::collection::vec(1..2_999u64, 1..200)) {
            let mut now = Instant::from_nanos(1);
            let mut peer = Detector::new(PAUSE, now);
            for gap in gaps {
                now = now + Duration::from_millis(gap);
                prop_assert!(peer.trust(now) < Trust::Gone, "after {gap} ms");
                peer.heard(now);
            }
        }

        /// Steady signs of life do not even raise a suspicion.
        #[test]
        fn a_steady_rhythm_is_not_even_suspected(beat in 5..900u64, count in 1..200usize) {
            let (peer, now) = after(&vec![beat; count]);
            prop_assert_eq!(peer.trust(now + Duration::from_millis(beat)), Trust::Fine);
        }

        /// Silence accuses within a bound that no rhythm stretches.
        #[test]
        fn silence_accuses_within_a_bound(gaps in prop::collection::vec(1..20_000u64, 3..200)) {
            let (peer, now) = after(&gaps);
            prop_assert_eq!(peer.trust(now + GONE_PAUSES_MAX * PAUSE), Trust::Gone);
        }

        /// Phi never falls while the silence lasts.
        #[test]
        fn phi_rises_with_the_silence(gaps in prop::collection::vec(1..2_000u64, 3..99), at in 0..9_000u64) {
            let (peer, now) = after(&gaps);
            let phi = |ms| peer.phi(now + Duration::from_millis(ms));
            prop_assert!(phi(at) <= phi(at + 10));
        }
    }

    #[test]
    fn whoever_stutters_is_given_more_time_than_whoever_never_did() {
        let (steady, at) = after(&[30; 64]);
        let stutters: Vec<u64> = (0..64).map(|beat| if beat % 4 == 0 { 700 } else { 30 }).collect();
        let (stuttering, also_at) = after(&stutters);
        let silence = Duration::from_millis(1_200);
        assert_eq!(steady.trust(at + silence), Trust::Late);
        assert_eq!(stuttering.trust(also_at + silence), Trust::Fine);
    }

    #[test]
    fn whoever_was_never_heard_is_given_much_time() {
        let peer = Detector::new(PAUSE, Instant::from_nanos(0));
        let at = |pauses: u32| Instant::from_nanos(0) + pauses * PAUSE;
        assert_eq!(peer.trust(at(START_PAUSES) - Duration::from_millis(1)), Trust::Late);
        assert_eq!(peer.trust(at(START_PAUSES)), Trust::Gone);
    }
}
