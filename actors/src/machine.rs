//! A protocol role as a pure machine: it decides, and does nothing.
//!
//! A machine knows no actor, file, socket, clock or random source. What happens to it comes in as
//! calls with the time as an argument; what it wants done goes out as [`Effects`]. The very same
//! machine runs inside an actor on a real disk, in a simulated cluster, and in a test that walks
//! its rules at random.

use synod_runtime::{identity::NodeId, world::Instant};

use crate::effects::Effects;

/// What a crash leaves behind, as a role gets it back: at start, and after its actor was rebuilt.
#[derive(Debug, Clone, Default)]
pub struct Survived<R, S> {
    /// The durable records in the order they were written.
    pub records: Vec<R>,
    /// The newest snapshot, if any was taken.
    pub snapshot: Option<S>,
}

/// The time, as a machine is told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// By the node's own monotonic clock: for every decision.
    pub at: Instant,
    /// Milliseconds since 1970 by its wall clock: only to be proposed as agreed time.
    pub wall_ms: u64,
}

/// One role of a protocol.
pub trait Machine: 'static {
    /// What other roles may say to it.
    type Message: Send + 'static;
    /// What it may say to other roles: the messages of all of them.
    type Envelope: Send + 'static;
    /// What it makes durable.
    type Record: Send + Sync + 'static;
    /// What a snapshot holds.
    type Snapshot: Send + Sync + 'static;

    /// Takes back what survived and starts. Called once, before anything else.
    fn start(
        &mut self,
        now: Now,
        survived: &Survived<Self::Record, Self::Snapshot>,
        out: &mut Effects<Self>,
    );

    /// From now on this node's disk is full, or has room again: what is no use without a record had
    /// better not be begun while it is. Told before the first message that follows.
    fn room(&mut self, _full: bool) {}

    /// One message of `from` (which may be this node).
    fn message(&mut self, now: Now, from: &NodeId, message: Self::Message, out: &mut Effects<Self>);

    /// The end of a turn: everything that had arrived was handed over. The place to act on many
    /// messages at once.
    fn flush(&mut self, now: Now, out: &mut Effects<Self>);

    /// The time asked for by [`Machine::deadline`] has come.
    fn timeout(&mut self, now: Now, out: &mut Effects<Self>);

    /// When to be called next by [`Machine::timeout`]; asked after every call.
    fn deadline(&self) -> Option<Instant>;
}
