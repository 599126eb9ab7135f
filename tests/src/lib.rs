//! Judges: what the whole of Synod promises, checked from outside.
//!
//! # Layout
//! - [`walk`]: a random walk over the pure machines of consensus: hundreds of thousands of events a
//!   second, every fault, one seed.
//! - [`role_walk`]: the same for roles, their leases and the clocks behind them.
//! - [`register_walk`]: the same for registers, on holders and on disks.
//! - [`hand`]: single machines, one message at a time; [`shelf`]: the snapshots beside one.
//! - [`invariants`]: one promise a file, each a pure check of what was observed.
//! - [`simulated`]: a small cluster of real actors in a simulated world, driven by hand.
//! - [`theatre`]: managed services with programs that are played.
//! - [`history`]: what clients of real nodes were told, judged linearizable, and as EDN.
//! - [`process`]: clusters of real processes, killed and cut; [`relay`]: a lossy cable between them.

pub mod hand;
pub mod history;
pub mod invariants;
pub mod process;
pub mod register_walk;
pub mod relay;
pub mod role_walk;
pub mod shelf;
pub mod simulated;
pub mod theatre;
pub mod walk;
