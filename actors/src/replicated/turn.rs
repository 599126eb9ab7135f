//! What a replicated actor sees of the world: its place in the log, and nothing else.

use std::fmt;

use actix::{ActorContext, ActorState};
use rand::SeedableRng;
use serde::{Deserialize, Serialize};
use synod_runtime::world::Rng;

/// The ordinal of a command in the executed log; the first is 1. It also serves as the version of
/// what the command wrote and as the epoch of what it granted.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Far above every position that commands reach by themselves by that time, in milliseconds since
    /// 1970, and below 2^53: where those go on that must not come twice.
    pub(crate) const fn above_all_until(time_ms: u64) -> Self {
        Self(time_ms / 1_000 * Self::PER_SECOND)
    }

    /// Positions of one second, by [`above_all_until`](Self::above_all_until).
    pub(crate) const PER_SECOND: u64 = 1 << 20;
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// On whose behalf a command runs: one start of one node's process, named by the position that
/// registered it. Zero for commands of the log itself, such as the passing of agreed time.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SessionId(pub u64);

/// A point of the executed log: the state a query reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Moment {
    /// The last command executed.
    pub position: Position,
    /// Agreed time in milliseconds since 1970: never goes back, the same at every replica.
    pub time_ms: u64,
}

/// The context of a replicated actor: one command of the log being executed.
///
/// Every replica executes the same command with an equal `Turn`, so whatever a handler computes
/// from its state, its message and its turn is equal everywhere. That is why there is no clock,
/// timer, address or task here.
///
/// ```
/// use rand::RngExt as _;
/// use synod::replicated::{Moment, Position, SessionId, Turn};
///
/// fn throw(turn: &mut Turn) -> u8 {
///     turn.rng().random_range(1..=6) // the same number on every main
/// }
///
/// let moment = Moment { position: Position(7), time_ms: 1_000 };
/// let mut turns = [0; 2].map(|_| Turn::new(moment, SessionId(1), 42, 0));
/// assert_eq!(throw(&mut turns[0]), throw(&mut turns[1]));
/// assert_eq!((turns[0].position(), turns[0].time_ms()), (Position(7), 1_000));
/// ```
#[derive(Clone, Debug)]
pub struct Turn {
    moment: Moment,
    session: SessionId,
    seed: u64,
    index: u32,
    version: u32,
    rng: Option<Box<Rng>>,
    state: ActorState,
}

impl Turn {
    /// The turn of the command at `moment`: command number `index` of a step whose random seed is
    /// `seed`.
    pub fn new(moment: Moment, session: SessionId, seed: u64, index: u32) -> Self {
        let state = ActorState::Running;
        Self { moment, session, seed, index, version: 0, rng: None, state }
    }

    /// The same turn in a cluster of that version.
    #[must_use]
    pub fn at_version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// The agreed version of the cluster: the same at every replica, and it never goes back. A
    /// handler that is to do something else from a build on asks for it, so that old and new builds
    /// do the same as long as both run.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Random numbers, equal at every replica. Draws go on where the last left off in this turn.
    pub fn rng(&mut self) -> &mut Rng {
        let (seed, index) = (self.seed, self.index);
        self.rng.get_or_insert_with(|| Box::new(Rng::from_seed(rng_key(seed, index))))
    }

    /// The position of this command.
    pub fn position(&self) -> Position {
        self.moment.position
    }

    /// Agreed time in milliseconds since 1970: never goes back, the same at every replica.
    pub fn time_ms(&self) -> u64 {
        self.moment.time_ms
    }

    /// Position and agreed time together.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// Whose command this is.
    pub fn session(&self) -> SessionId {
        self.session
    }
}

/// Asked for by actix. A replicated actor lives as long as the log: stopping ends nothing but is
/// remembered until the end of the turn.
impl ActorContext for Turn {
    fn stop(&mut self) {
        if self.state == ActorState::Running {
            self.state = ActorState::Stopping;
        }
    }

    fn terminate(&mut self) {
        self.state = ActorState::Stopped;
    }

    fn state(&self) -> ActorState {
        self.state
    }
}

/// The ChaCha8 key of one command. Part of the log's format: seed, then index as a u64, both
/// little-endian, then [`RNG_DOMAIN`].
fn rng_key(seed: u64, index: u32) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&u64::from(index).to_le_bytes());
    key[16..].copy_from_slice(RNG_DOMAIN);
    key
}

/// Keeps these numbers apart from any other use of the step's seed; ends in the format's version.
const RNG_DOMAIN: &[u8; 16] = b"synod turn rng 1";

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::*;

    fn draw(seed: u64, index: u32) -> u64 {
        Turn::new(Moment::default(), SessionId(0), seed, index).rng().next_u64()
    }

    #[test]
    fn equal_seed_and_index_draw_equal_numbers_and_others_do_not() {
        assert_eq!(draw(7, 3), draw(7, 3));
        assert_ne!(draw(7, 3), draw(7, 4));
        assert_ne!(draw(7, 3), draw(8, 3));
    }

    #[test]
    fn what_a_seed_and_an_index_draw_is_part_of_the_logs_format() {
        assert_eq!(draw(7, 3), 0x80c4_7366_2491_593c);
    }

    #[test]
    fn draws_of_one_turn_differ_from_each_other() {
        let mut turn = Turn::new(Moment::default(), SessionId(0), 7, 3);
        let first = turn.rng().next_u64();
        assert_ne!(first, turn.rng().next_u64());
    }
}
