//! The four ports through which a node sees the outside. Nothing may bypass them: that is what
//! lets the very same actors run on real machines and under simulation.

mod clock;
pub mod disk;
mod entropy;
pub mod network;

use std::{fmt, sync::Arc};

pub use clock::{Clock, Instant, RealClock};
pub use disk::Disk;
pub use entropy::{Entropy, RealEntropy, Rng};
pub use network::Network;

/// Everything outside of a node. Cloning is cheap.
#[derive(Clone)]
pub struct World {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Peers.
    pub network: Arc<dyn Network>,
    /// Files.
    pub disk: Arc<dyn Disk>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}
