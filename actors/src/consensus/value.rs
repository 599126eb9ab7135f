//! What a step decides: nothing, a batch of commands, or who votes from later on.
//!
//! A value is encoded once, by the proposer, into the bytes that become journal record, frame and
//! executed step.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::configuration::Configuration;

/// One command may be this large with everything in it: a value of a mebibyte and its keys fit,
/// and the votes of a whole pipeline of such commands still fit into one frame.
pub const COMMAND_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A step closes at this size, for fairness and memory; larger batches were measured not to help.
pub const STEP_BYTES_MAX: usize = 256 * 1024;

/// The encoded value of a step. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Value(Bytes);

/// A decoded value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// Nothing: fills a gap.
    Noop,
    /// Commands, in order.
    Batch(Batch),
    /// Who votes, `ALPHA` steps later.
    Configuration(Configuration),
}

/// The commands of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The proposer's wall clock, milliseconds since 1970; agreed time never goes back.
    pub time_ms: u64,
    /// Seed of the step's randomness.
    pub seed: u64,
    /// The commands, in order.
    pub commands: Vec<Command>,
}

/// One command of one session (Cheap Paxos, claims 10 and 20: the value is a function to execute).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The session: the position of the command that registered it; 0 only for registering.
    pub session: u64,
    /// Rises by one within a session, from 1.
    pub seq: u64,
    /// Hash of the replicated actor's name; 0 for the log's own functions.
    pub actor: u64,
    /// Hash of the function's name.
    pub function: u64,
    /// Whether `args` begin with an idempotency key.
    pub keyed: bool,
    /// The function's arguments.
    pub args: Bytes,
}

/// A value that no proposer made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a step's value is damaged: {0}")]
pub struct BadValue(&'static str);

const NOOP: u8 = 0;
const BATCH: u8 = 1;
const CONFIGURATION: u8 = 2;
const COMMAND_HEAD: usize = 4 + 8 * 4 + 1;
const BATCH_HEAD: usize = 1 + 8 + 8 + 4;

impl Value {
    /// The value that does nothing.
    pub fn noop() -> Self {
        Self(Bytes::from_static(&[NOOP]))
    }

    /// A change of who votes.
    pub fn configuration(configuration: &Configuration) -> Self {
        let mut bytes = vec![CONFIGURATION];
        bytes.extend(rmp_serde::to_vec_named(configuration).expect("plain data encodes"));
        Self(bytes.into())
    }

    /// A batch of encoded commands.
    pub fn batch(time_ms: u64, seed: u64, commands: &[EncodedCommand]) -> Self {
        let size: usize = commands.iter().map(|c| c.0.len()).sum();
        let mut bytes = BytesMut::with_capacity(BATCH_HEAD + size);
        bytes.put_u8(BATCH);
        bytes.put_u64_le(time_ms);
        bytes.put_u64_le(seed);
        bytes.put_u32_le(u32::try_from(commands.len()).expect("a step is bounded in bytes"));
        for command in commands {
            bytes.put_slice(&command.0);
        }
        Self(bytes.freeze())
    }

    /// The value whose bytes these are.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether this changes who votes.
    pub fn is_configuration(&self) -> bool {
        self.0.first() == Some(&CONFIGURATION)
    }

    /// What is in it. Arguments are slices of the same bytes.
    ///
    /// # Errors
    /// [`BadValue`] when no proposer can have made these bytes.
    pub fn decode(&self) -> Result<Decoded, BadValue> {
        let mut rest = self.0.clone();
        if !rest.has_remaining() {
            return Err(BadValue("empty"));
        }
        match rest.get_u8() {
            NOOP => Ok(Decoded::Noop),
            CONFIGURATION => rmp_serde::from_slice(&rest)
                .map(Decoded::Configuration)
                .map_err(|_undecodable| BadValue("configuration")),
            BATCH => decode_batch(rest).map(Decoded::Batch),
            _ => Err(BadValue("kind")),
        }
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.first() {
            Some(&NOOP) => f.write_str("Noop"),
            Some(&CONFIGURATION) => write!(f, "{:?}", self.decode()),
            Some(_) | None => write!(f, "Value({} bytes)", self.0.len()),
        }
    }
}

fn decode_batch(mut rest: Bytes) -> Result<Batch, BadValue> {
    if rest.remaining() < BATCH_HEAD - 1 {
        return Err(BadValue("batch head"));
    }
    let (time_ms, seed, count) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u32_le());
    // A command takes at least its head, so a hostile count cannot make us reserve more than came.
    let mut commands = Vec::with_capacity((count as usize).min(rest.remaining() / COMMAND_HEAD));
    for _ in 0..count {
        commands.push(decode_command(&mut rest)?);
    }
    if rest.has_remaining() {
        return Err(BadValue("bytes after the batch"));
    }
    Ok(Batch { time_ms, seed, commands })
}

fn decode_command(rest: &mut Bytes) -> Result<Command, BadValue> {
    if rest.remaining() < COMMAND_HEAD {
        return Err(BadValue("command head"));
    }
    let len = rest.get_u32_le() as usize;
    let (session, seq) = (rest.get_u64_le(), rest.get_u64_le());
    let (actor, function) = (rest.get_u64_le(), rest.get_u64_le());
    let keyed = rest.get_u8() != 0;
    if len > rest.remaining() {
        return Err(BadValue("command length"));
    }
    Ok(Command { session, seq, actor, function, keyed, args: rest.split_to(len) })
}

/// A command as it travels: encoded once, never again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedCommand(Bytes);

impl EncodedCommand {
    /// Encodes a command.
    pub fn new(command: &Command) -> Self {
        let mut bytes = BytesMut::with_capacity(COMMAND_HEAD + command.args.len());
        bytes.put_u32_le(u32::try_from(command.args.len()).expect("commands are bounded"));
        bytes.put_u64_le(command.session);
        bytes.put_u64_le(command.seq);
        bytes.put_u64_le(command.actor);
        bytes.put_u64_le(command.function);
        bytes.put_u8(u8::from(command.keyed));
        bytes.put_slice(&command.args);
        Self(bytes.freeze())
    }

    /// Size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a command has a head and is never empty")]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is a whole command of allowed size, as one that came from a peer must be.
    pub fn is_sound(&self) -> bool {
        let mut rest = self.0.clone();
        self.0.len() <= COMMAND_BYTES_MAX && decode_command(&mut rest).is_ok() && rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(seq: u64) -> Command {
        let args = Bytes::from(vec![7; usize::try_from(seq).unwrap()]);
        Command { session: 5, seq, actor: 1, function: 2, keyed: seq == 3, args }
    }

    #[test]
    fn a_batch_comes_back_as_it_went() {
        let commands: Vec<_> = (1..5).map(command).collect();
        let encoded: Vec<_> = commands.iter().map(EncodedCommand::new).collect();
        assert!(encoded.iter().all(EncodedCommand::is_sound));
        let value = Value::batch(10, 20, &encoded);
        let batch = Batch { time_ms: 10, seed: 20, commands };
        assert_eq!(value.decode(), Ok(Decoded::Batch(batch)));
    }

    #[test]
    fn every_prefix_and_every_hostile_count_is_refused() {
        let encoded: Vec<_> = (1..4).map(|seq| EncodedCommand::new(&command(seq))).collect();
        let bytes = Value::batch(10, 20, &encoded).0;
        for cut in 0..bytes.len() {
            assert!(Value(bytes.slice(..cut)).decode().is_err(), "cut at {cut}");
        }
        let mut hostile = bytes.to_vec();
        hostile[17..21].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Value(hostile.into()).decode().is_err());
    }
}
