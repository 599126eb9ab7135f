//! Randomness, in named streams so that one consumer's draws never shift another's.

use std::fmt;

use rand::SeedableRng;

/// The generator every stream hands out: the same numbers for a seed on every build and target.
pub type Rng = rand_chacha::ChaCha8Rng;

/// The port to randomness.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// A fresh generator for the consumer called `stream`.
    fn rng(&self, stream: &str) -> Rng;
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealEntropy;

impl Entropy for RealEntropy {
    fn rng(&self, _stream: &str) -> Rng {
        Rng::from_seed(rand::random())
    }
}
