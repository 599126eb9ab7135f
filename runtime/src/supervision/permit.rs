//! How long an actor may act, when that is not for itself to say.

/// Says at every moment whether an actor may still act: what a lease is to supervision. It is asked
/// before each turn and each message, so that an actor whose process was stopped for a minute does
/// nothing more when it goes on. Each answer, once `false`, must stay so.
pub trait Permit: Send + Sync + 'static {
    /// Whether it takes messages from others, and may be rebuilt. Messages are refused as *not run*
    /// from then on.
    fn takes(&self) -> bool;

    /// Whether it may do anything at all: timers and futures of its context too. It is dropped
    /// where it stands once this is `false`; its `stopping` and `stopped` are not called.
    fn acts(&self) -> bool;
}
