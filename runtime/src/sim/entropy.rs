//! Seeded streams: one per (seed, node, life, stream name, how often that name was asked for).

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use rand::{RngExt, SeedableRng};

use super::{
    life::Life,
    queue::{Queue, lock},
    trace::{FNV_OFFSET, Trace, fold},
};
use crate::world::{Entropy, Rng};

/// The randomness of one life of a node.
pub(super) struct SimEntropy {
    seed: u64,
    life: Life,
    /// How often each stream was asked for: a consumer that starts anew must not repeat itself.
    asked: Mutex<BTreeMap<String, u64>>,
    queue: Arc<Queue>,
    trace: Arc<Trace>,
}

impl SimEntropy {
    pub(super) fn new(seed: u64, life: Life, queue: Arc<Queue>, trace: Arc<Trace>) -> Self {
        Self { seed, life, asked: Mutex::default(), queue, trace }
    }
}

impl Entropy for SimEntropy {
    fn rng(&self, stream: &str) -> Rng {
        let count = {
            let mut asked = lock(&self.asked);
            let count = asked.entry(stream.to_owned()).or_default();
            *count += 1;
            *count
        };
        let (node, life) = (self.life.name().as_str(), self.life.number());
        self.trace.note(self.queue.now(), node, "rng", &[life, count], stream.as_bytes());
        derive(self.seed, &[node, stream], &[life, count])
    }
}

impl fmt::Debug for SimEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimEntropy").field(&self.life).finish()
    }
}

/// The generator of a seed for whatever `names` and `numbers` name.
pub(super) fn derive(seed: u64, names: &[&str], numbers: &[u64]) -> Rng {
    let mut state = fold(FNV_OFFSET, &seed.to_le_bytes());
    for name in names {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        state = fold(fold(state, &(name.len() as u64).to_le_bytes()), name.as_bytes());
    }
    for number in numbers {
        state = fold(state, &number.to_le_bytes());
    }
    let mut key = [0; 32];
    for part in key.chunks_exact_mut(8) {
        // SplitMix64: spreads one word over a whole key.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        part.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    Rng::from_seed(key)
}

/// Whether something of probability `chance` happens. Draws nothing when it cannot.
pub(super) fn happens(rng: &mut Rng, chance: f64) -> bool {
    chance > 0.0 && rng.random::<f64>() < chance
}

/// A number from 0 to `most`, both included.
pub(super) fn up_to(rng: &mut Rng, most: u64) -> u64 {
    if most == 0 { 0 } else { rng.random_range(0..=most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_every_part_of_their_name() {
        let first = |seed, names: &[&str], numbers: &[u64]| -> u64 {
            derive(seed, names, numbers).random()
        };
        let base = first(1, &["a", "x"], &[1, 1]);
        assert_eq!(base, first(1, &["a", "x"], &[1, 1]));
        for other in [
            first(2, &["a", "x"], &[1, 1]),
            first(1, &["b", "x"], &[1, 1]),
            first(1, &["ax", ""], &[1, 1]),
            first(1, &["a", "x"], &[2, 1]),
            first(1, &["a", "x"], &[1, 2]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn streams_are_the_same_on_every_machine() {
        assert_eq!(derive(8841, &["a", "links"], &[1, 1]).random::<u64>(), PINNED);
    }

    /// Changing this number breaks the replay of every recorded seed.
    const PINNED: u64 = 12_277_926_891_306_979_824;
}
