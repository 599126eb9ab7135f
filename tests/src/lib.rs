//! Judges: what is true of whole clusters, simulated and real.

pub mod process;
pub mod relay;
